"""Uploads in parts (s3-surface, sections 2 and 3)."""

import base64
import hashlib
import io
import random
import unittest

import door
from boto3.s3.transfer import TransferConfig
from door import Suite, crc32

MIB = 1 << 20
DATA = random.Random(9).randbytes(13 * MIB)
PARTS = [DATA[: 5 * MIB], DATA[5 * MIB : 10 * MIB], DATA[10 * MIB :]]


def etag_of(parts):
    return f'"{hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}"'


class Uploads(Suite):
    def begin(self, key="k", **more):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **more)["UploadId"]

    def part(self, upload, number, body, key="k", **more):
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **more)

    def complete(self, upload, parts, key="k", **more):
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        return self.s3.complete_multipart_upload(
            Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more
        )

    def uploaded(self, key="k", order=(0, 1, 2), **more):
        upload = self.begin(key, **more)
        part = {name: value for name, value in more.items() if name == "ChecksumAlgorithm"}
        etags = {number: self.part(upload, number + 1, PARTS[number], key, **part)["ETag"] for number in order}
        return upload, [(number + 1, etags[number]) for number in sorted(etags)]

    def test_parts_in_any_order_become_one_object(self):
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            upload, parts = self.uploaded(order=order, Metadata={"a": "1"}, Tagging="t=1", ContentType="text/x")
            answer = self.complete(upload, parts)
            self.assertEqual(answer["ETag"], etag_of(PARTS))
            self.assertTrue(self.body("k") == DATA)
            head = self.head("k")
            self.assertEqual((head["ETag"], head["ContentLength"]), (etag_of(PARTS), len(DATA)))
            self.assertEqual((head["Metadata"], head["TagCount"], head["ContentType"]), ({"a": "1"}, 1, "text/x"))

    def test_boto3_transfers(self):
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
        self.s3.upload_fileobj(io.BytesIO(DATA), self.bucket, "k", Config=config)
        out = io.BytesIO()
        self.s3.download_fileobj(self.bucket, "k", out, Config=config)
        self.assertTrue(out.getvalue() == DATA)
        self.assertEqual(self.head("k")["ETag"], etag_of(PARTS))

    def test_one_part_may_be_small(self):
        upload = self.begin()
        etag = self.part(upload, 7, b"1")["ETag"]
        self.assertEqual(self.complete(upload, [(7, etag)])["ETag"], etag_of([b"1"]))
        self.assertEqual(self.body("k"), b"1")

    def test_a_part_sent_again_counts_as_sent_last(self):
        upload = self.begin()
        self.part(upload, 1, b"old")
        etag = self.part(upload, 1, b"new")["ETag"]
        self.complete(upload, [(1, etag)])
        self.assertEqual(self.body("k"), b"new")

    def test_parts_that_are_not_listed_are_left_out(self):
        upload, parts = self.uploaded()
        self.complete(upload, [parts[0], parts[2]])
        self.assertTrue(self.body("k") == PARTS[0] + PARTS[2])

    def test_complete_is_held_to_the_rules(self):
        upload, parts = self.uploaded()
        small = self.part(upload, 4, b"small")["ETag"]
        for listed, code in (
            ([parts[1], parts[0]], "InvalidPartOrder"),
            ([parts[0], parts[0]], "InvalidPartOrder"),
            ([(9, parts[0][1])], "InvalidPart"),
            ([(1, parts[1][1])], "InvalidPart"),
            ([(4, small), (5, small)], "InvalidPart"),
        ):
            with self.refused(code, 400):
                self.complete(upload, listed)
        last = self.part(upload, 5, b"last")["ETag"]
        with self.refused("EntityTooSmall", 400):
            self.complete(upload, [(4, small), (5, last)])
        answer = self.raw("POST", "k", {"uploadId": upload}, body=b"<CompleteMultipartUpload/>").send()
        self.assertRefused(answer, 400, "MalformedXML")
        self.assertEqual(self.keys(), [])
        self.complete(upload, parts)

    def test_complete_asked_again_answers_the_same(self):
        upload, parts = self.uploaded()
        first = self.complete(upload, parts)
        again = self.complete(upload, parts)
        self.assertEqual(first["ETag"], again["ETag"])

    def test_complete_heeds_conditions_and_sizes(self):
        self.put("k", b"1")
        upload, parts = self.uploaded()
        with self.refused("PreconditionFailed", 412):
            self.complete(upload, parts, IfNoneMatch="*")
        with self.refused("InvalidRequest", 400):
            self.complete(upload, parts, MpuObjectSize=5)
        self.complete(upload, parts, MpuObjectSize=len(DATA))

    def test_what_is_aborted_is_gone(self):
        upload, parts = self.uploaded()
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload)
        for ask in (
            lambda: self.part(upload, 1, b""),
            lambda: self.complete(upload, parts),
            lambda: self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload),
            lambda: self.s3.abort_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload),
            lambda: self.s3.abort_multipart_upload(Bucket=self.bucket, Key="k", UploadId="nonsense"),
        ):
            with self.refused("NoSuchUpload", 404):
                ask()

    def test_numbers_are_1_to_10000(self):
        upload = self.begin()
        self.part(upload, 10000, b"1")
        for number in ("0", "10001", "x", ""):
            answer = self.raw("PUT", "k", {"partNumber": number, "uploadId": upload}).send()
            self.assertRefused(answer, 400, "InvalidArgument")

    def test_parts_are_listed_in_pages(self):
        upload = self.begin()
        for number in (3, 1, 2):
            self.part(upload, number, bytes(number))
        page = self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload, MaxParts=2)
        self.assertEqual([(part["PartNumber"], part["Size"]) for part in page["Parts"]], [(1, 1), (2, 2)])
        self.assertEqual((page["IsTruncated"], page["NextPartNumberMarker"]), (True, 2))
        page = self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload, PartNumberMarker=2)
        self.assertEqual(([part["PartNumber"] for part in page["Parts"]], page["IsTruncated"]), ([3], False))

    def test_uploads_are_listed_in_pages(self):
        uploads = [(key, self.begin(key)) for key in ("a", "a", "b/1", "b/2", "c")]
        page = self.s3.list_multipart_uploads(Bucket=self.bucket)
        self.assertEqual([(upload["Key"], upload["UploadId"]) for upload in page["Uploads"]], uploads)
        found, place = [], {}
        while True:
            page = self.s3.list_multipart_uploads(Bucket=self.bucket, MaxUploads=2, **place)
            found += [(upload["Key"], upload["UploadId"]) for upload in page.get("Uploads", [])]
            if not page["IsTruncated"]:
                break
            place = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        self.assertEqual(found, uploads)
        page = self.s3.list_multipart_uploads(Bucket=self.bucket, Delimiter="/", Prefix="b")
        self.assertEqual([entry["Prefix"] for entry in page["CommonPrefixes"]], ["b/"])

    def test_a_part_is_read_by_its_number(self):
        upload, parts = self.uploaded(ChecksumAlgorithm="CRC32")
        self.complete(upload, parts)
        for number, part in enumerate(PARTS, 1):
            answer = self.get("k", PartNumber=number, ChecksumMode="ENABLED")
            self.assertEqual((answer["PartsCount"], answer["ChecksumCRC32"]), (3, crc32(part)))
            self.assertTrue(answer["Body"].read() == part)
        with self.refused("InvalidPartNumber", 416):
            self.get("k", PartNumber=4)
        answer = self.s3.get_object_attributes(
            Bucket=self.bucket, Key="k", ObjectAttributes=["ObjectParts"], MaxParts=2
        )["ObjectParts"]
        self.assertEqual((answer["TotalPartsCount"], answer["IsTruncated"]), (3, True))
        self.assertEqual([part["Size"] for part in answer["Parts"]], [5 * MIB, 5 * MIB])

    def test_a_composite_check_sum_is_of_the_parts(self):
        upload, parts = self.uploaded(ChecksumAlgorithm="SHA256")
        answer = self.complete(upload, parts)
        raw = b"".join(hashlib.sha256(part).digest() for part in PARTS)
        expected = base64.b64encode(hashlib.sha256(raw).digest()).decode() + "-3"
        self.assertEqual((answer["ChecksumSHA256"], answer["ChecksumType"]), (expected, "COMPOSITE"))
        self.assertEqual(self.head("k", ChecksumMode="ENABLED")["ChecksumSHA256"], expected)

    def test_a_crc_of_the_whole_is_joined(self):
        upload, parts = self.uploaded(ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
        with self.refused("BadDigest", 400):
            self.complete(upload, parts, ChecksumCRC32="AAAAAA==")
        with self.refused("InvalidRequest", 400):
            self.complete(upload, parts, ChecksumType="COMPOSITE")
        answer = self.complete(upload, parts, ChecksumCRC32=crc32(DATA), ChecksumType="FULL_OBJECT")
        self.assertEqual((answer["ChecksumCRC32"], answer["ChecksumType"]), (crc32(DATA), "FULL_OBJECT"))

    def test_an_upload_that_said_nothing_takes_parts_of_any_sum_and_one_that_did_takes_its_own(self):
        upload = self.raw("POST", "k", {"uploads": ""}).send().element("UploadId")
        sent = self.raw("PUT", "k", {"partNumber": "1", "uploadId": upload}, body=b"1", headers={"x-amz-checksum-crc32": crc32(b"1")}).send()
        self.assertEqual(sent.status, 200, sent)
        self.complete(upload, [(1, sent.headers["etag"])])
        head = self.head("k", ChecksumMode="ENABLED")
        self.assertEqual(head["ChecksumType"], "FULL_OBJECT")
        self.assertIn("ChecksumCRC64NVME", head)
        upload = self.begin(ChecksumAlgorithm="CRC64NVME")
        answer = self.raw("PUT", "k", {"partNumber": "1", "uploadId": upload}, body=b"1", headers={"x-amz-checksum-crc32": crc32(b"1")}).send()
        self.assertRefused(answer, 400, "InvalidRequest")

    def test_parts_are_held_to_what_is_said_of_them(self):
        upload = self.begin(ChecksumAlgorithm="SHA256")
        etag = self.part(upload, 1, b"1", ChecksumAlgorithm="SHA256")["ETag"]
        wrong = base64.b64encode(hashlib.sha256(b"2").digest()).decode()
        listed = [{"PartNumber": 1, "ETag": etag, "ChecksumSHA256": wrong}]
        where = {"Bucket": self.bucket, "Key": "k", "UploadId": upload}
        with self.refused("InvalidPart", 400):
            self.s3.complete_multipart_upload(**where, MultipartUpload={"Parts": listed})
        listed[0]["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(b"1").digest()).decode()
        self.s3.complete_multipart_upload(**where, MultipartUpload={"Parts": listed})
        upload = self.begin()
        md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
        answer = self.raw("PUT", "k", {"partNumber": "1", "uploadId": upload}, body=b"1", headers={"content-md5": md5}).send()
        self.assertRefused(answer, 400, "BadDigest")
        self.assertNotIn("Parts", self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload))

    def test_lists_of_parts_and_uploads_tell_their_check_sums_and_encode_names(self):
        upload = self.begin("a b+", ChecksumAlgorithm="SHA256")
        self.part(upload, 1, b"1", "a b+", ChecksumAlgorithm="SHA256")
        page = self.s3.list_parts(Bucket=self.bucket, Key="a b+", UploadId=upload)
        self.assertEqual((page["ChecksumAlgorithm"], page["ChecksumType"], page["StorageClass"]), ("SHA256", "COMPOSITE", "STANDARD"))
        self.assertEqual(page["Parts"][0]["ChecksumSHA256"], base64.b64encode(hashlib.sha256(b"1").digest()).decode())
        page = self.s3.list_multipart_uploads(Bucket=self.bucket)["Uploads"][0]
        self.assertEqual((page["ChecksumAlgorithm"], page["ChecksumType"]), ("SHA256", "COMPOSITE"))
        answer = self.raw("GET", "", {"uploads": "", "encoding-type": "url", "prefix": "a "}).send()
        self.assertIn(b"<Key>a%20b%2B</Key>", answer.body)
        self.assertIn(b"<Prefix>a%20</Prefix>", answer.body)

    def test_ids_of_uploads_are_not_to_be_guessed(self):
        ids = [self.begin() for _ in range(10)]
        self.assertEqual(len(set(ids)), 10)
        for one, next_ in zip(ids, ids[1:]):
            self.assertGreaterEqual(sum(a != b for a, b in zip(one, next_)), 8, (one, next_))

    def test_an_upload_of_another_key_or_bucket_is_not_there(self):
        upload = self.begin("k")
        with self.refused("NoSuchUpload", 404):
            self.part(upload, 1, b"1", "other")
        other = self.bucket + "x"
        self.s3.create_bucket(Bucket=other)
        with self.refused("NoSuchUpload", 404):
            self.s3.upload_part(Bucket=other, Key="k", UploadId=upload, PartNumber=1, Body=b"1")

    def test_kinds_that_do_not_go_together_are_refused(self):
        for headers in (
            {"x-amz-checksum-type": "FULL_OBJECT"},
            {"x-amz-checksum-type": "FULL_OBJECT", "x-amz-checksum-algorithm": "SHA256"},
            {"x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-algorithm": "CRC64NVME"},
            {"x-amz-checksum-algorithm": "MD4"},
        ):
            answer = self.raw("POST", "k", {"uploads": ""}, headers=headers).send()
            self.assertRefused(answer, 400, "InvalidRequest")
        upload = self.begin(ChecksumAlgorithm="SHA256")
        with self.refused("InvalidRequest", 400):
            self.part(upload, 1, b"1", ChecksumAlgorithm="CRC32")

    def test_parts_are_copied_from_objects(self):
        self.put("source", DATA)
        upload = self.begin()
        ranges = ("bytes=1000-6000999", "bytes=6001000-12000000")
        parts = []
        for number, range_ in enumerate(ranges, 1):
            answer = self.s3.upload_part_copy(
                Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=number,
                CopySource=f"{self.bucket}/source", CopySourceRange=range_,
            )
            parts.append((number, answer["CopyPartResult"]["ETag"]))
        self.assertEqual(parts[0][1], f'"{hashlib.md5(DATA[1000:6001000]).hexdigest()}"')
        self.complete(upload, parts)
        self.assertTrue(self.body("k") == DATA[1000:12000001])
        for range_, code, status in (("bytes=5-1", "InvalidArgument", 400), ("0-1", "InvalidArgument", 400), (f"bytes=0-{len(DATA)}", "InvalidArgument", 400), (f"bytes={len(DATA)}-{len(DATA)}", "InvalidRange", 416)):
            headers = {"x-amz-copy-source": f"{self.bucket}/source", "x-amz-copy-source-range": range_}
            asked = self.raw("PUT", "k", {"partNumber": "1", "uploadId": self.begin()}, headers=headers)
            self.assertRefused(asked.send(), status, code)

    def test_a_copy_of_parts_keeps_tag_check_sum_and_parts(self):
        upload, parts = self.uploaded(ChecksumAlgorithm="SHA256")
        checksum = self.complete(upload, parts)["ChecksumSHA256"]
        self.s3.copy_object(Bucket=self.bucket, Key="copy", CopySource=f"{self.bucket}/k")
        head = self.head("copy", ChecksumMode="ENABLED")
        self.assertEqual((head["ETag"], head["ChecksumSHA256"]), (etag_of(PARTS), checksum))
        self.assertTrue(self.body("copy", PartNumber=2) == PARTS[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
