"""What objects cost: chunks that nobody had before, and no bytes where a reference will do (s3-surface, sections 2 to 4)."""

import os
import unittest

from door import Suite, sum_of

MIB = 1 << 20


class Costs(Suite):
    def new(self, act):
        """Bytes of new chunks, and bytes that were received, while something was done."""
        before = [sum_of("s3_ingest_bytes_total", what=what) for what in ("new", "received")]
        act()
        return [sum_of("s3_ingest_bytes_total", what=what) - one for what, one in zip(("new", "received"), before)]

    def test_equal_content_is_stored_once(self):
        data = os.urandom(6 * MIB)
        self.assertEqual(self.new(lambda: self.put("a", data)), [len(data), len(data)])
        self.assertEqual(self.new(lambda: self.put("b", data)), [0, len(data)])

    def test_a_version_costs_what_is_new_in_it(self):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        data = os.urandom(6 * MIB)
        self.put("k", data)
        new, _ = self.new(lambda: self.put("k", data[: 3 * MIB] + b"a little more" + data[3 * MIB :]))
        self.assertTrue(13 <= new <= MIB, new)
        self.assertEqual(len(self.s3.list_object_versions(Bucket=self.bucket)["Versions"]), 2)

    def test_a_copy_is_by_reference(self):
        data = os.urandom(6 * MIB)
        self.put("k", data)
        self.assertEqual(self.new(lambda: self.s3.copy_object(Bucket=self.bucket, Key="c", CopySource=f"{self.bucket}/k")), [0, 0])
        self.assertTrue(self.body("c") == data)
        # Also when it is all that is left.
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertTrue(self.body("c") == data)

    def test_completing_an_upload_moves_no_data(self):
        upload = {"Bucket": self.bucket, "Key": "k"}
        upload["UploadId"] = self.s3.create_multipart_upload(**upload)["UploadId"]
        parts = [os.urandom(5 * MIB), os.urandom(MIB)]
        etags = [self.s3.upload_part(**upload, PartNumber=number, Body=part)["ETag"] for number, part in enumerate(parts, 1)]
        listed = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]}
        self.assertEqual(self.new(lambda: self.s3.complete_multipart_upload(**upload, MultipartUpload=listed)), [0, 0])
        self.assertTrue(self.body("k") == b"".join(parts))


if __name__ == "__main__":
    unittest.main(verbosity=2)
