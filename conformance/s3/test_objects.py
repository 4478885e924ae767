"""Objects: ETags, check sums, conditions, ranges, tags, copies, deletes (s3-surface, sections 2 and 3)."""

import base64
import datetime
import hashlib
import random
import unittest

import door
from door import Suite, crc32

MIB = 1 << 20
BIG = random.Random(7).randbytes(12 * MIB)


def checksum(algorithm, data):
    return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()


class Buckets(Suite):
    def test_create_says_where_and_that_it_is_there_already(self):
        answer = self.s3.create_bucket(Bucket=self.bucket + "x")
        self.assertEqual(answer["Location"], f"/{self.bucket}x")
        with self.refused("BucketAlreadyOwnedByYou", 409):
            self.s3.create_bucket(Bucket=self.bucket)

    def test_create_takes_the_region_of_the_server_alone(self):
        document = "<CreateBucketConfiguration><LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>"
        asked = door.Signed("PUT", f"/{self.bucket}y", body=(document % "us-east-1").encode())
        self.assertEqual(asked.send().status, 200)
        asked = door.Signed("PUT", f"/{self.bucket}z", body=(document % "eu-west-1").encode())
        self.assertRefused(asked.send(), 400, "InvalidLocationConstraint")
        asked = door.Signed("PUT", f"/{self.bucket}z", body=b"<nonsense")
        self.assertRefused(asked.send(), 400, "MalformedXML")

    def test_object_lock_turns_versioning_on(self):
        self.s3.create_bucket(Bucket=self.bucket + "l", ObjectLockEnabledForBucket=True)
        self.assertEqual(self.s3.get_bucket_versioning(Bucket=self.bucket + "l")["Status"], "Enabled")

    def test_head_and_location_tell_the_region(self):
        answer = self.s3.head_bucket(Bucket=self.bucket)
        self.assertEqual(answer["BucketRegion"], "us-east-1")
        self.assertIsNone(self.s3.get_bucket_location(Bucket=self.bucket)["LocationConstraint"])
        with self.refused("404", 404):
            self.s3.head_bucket(Bucket="not-there-at-all")

    def test_a_bucket_with_something_in_it_stays(self):
        self.put("k")
        with self.refused("BucketNotEmpty", 409):
            self.s3.delete_bucket(Bucket=self.bucket)
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.s3.create_multipart_upload(Bucket=self.bucket, Key="open")
        answer = self.s3.delete_bucket(Bucket=self.bucket)
        self.assertEqual(answer["ResponseMetadata"]["HTTPStatusCode"], 204)
        with self.refused("NoSuchBucket", 404):
            self.s3.list_objects_v2(Bucket=self.bucket)

    def test_list_is_by_name_in_pages(self):
        names = [f"{self.bucket}-{number}" for number in range(5)]
        for name in names:
            self.s3.create_bucket(Bucket=name)
        pages = self.s3.get_paginator("list_buckets").paginate(
            Prefix=self.bucket + "-", PaginationConfig={"PageSize": 2}
        )
        pages = [[bucket["Name"] for bucket in page.get("Buckets", [])] for page in pages]
        self.assertEqual(pages, [names[:2], names[2:4], names[4:]])
        self.assertRefused(door.Signed("GET", "/", {"max-buckets": "0"}).send(), 400, "InvalidArgument")

    def test_an_acl_shows_the_owner_and_another_is_not_taken(self):
        grants = self.s3.get_bucket_acl(Bucket=self.bucket)["Grants"]
        self.assertEqual([grant["Permission"] for grant in grants], ["FULL_CONTROL"])
        self.put("k", ACL="private")
        self.put("k", ACL="bucket-owner-full-control")
        with self.refused("NotImplemented", 501):
            self.put("k", ACL="public-read")


class Digests(Suite):
    def test_an_etag_is_the_md5(self):
        for data in (b"", b"hello", BIG):
            etag = self.put("k", data)["ETag"]
            self.assertEqual(etag, f'"{hashlib.md5(data).hexdigest()}"')
            self.assertEqual((self.get("k")["ETag"], self.body("k")), (etag, data))

    def test_a_check_sum_is_kept_and_told_when_asked_for(self):
        for algorithm, field, value in (
            ("CRC32", "ChecksumCRC32", crc32(b"hello")),
            ("SHA1", "ChecksumSHA1", checksum("sha1", b"hello")),
            ("SHA256", "ChecksumSHA256", checksum("sha256", b"hello")),
            ("CRC32C", "ChecksumCRC32C", "mnG7TA=="),
        ):
            if algorithm == "CRC32C":
                self.raw("PUT", "k", body=b"hello", headers={"x-amz-checksum-crc32c": value}).send()
            else:
                self.assertEqual(self.put("k", b"hello", ChecksumAlgorithm=algorithm)[field], value)
            for answer in (self.head("k", ChecksumMode="ENABLED"), self.get("k", ChecksumMode="ENABLED")):
                self.assertEqual((answer[field], answer["ChecksumType"]), (value, "FULL_OBJECT"))
            self.assertNotIn(field, self.head("k"))

    def test_without_one_crc64nvme_is_worked_out(self):
        answer = self.raw("PUT", "k", body=b"123456789").send()
        self.assertEqual(answer.headers["x-amz-checksum-crc64nvme"], "rosUhgp5mIg=")

    def test_a_wrong_one_stores_nothing(self):
        for headers, code in (
            ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
            ({"x-amz-checksum-sha256": checksum("sha256", b"other")}, "BadDigest"),
            ({"x-amz-checksum-crc32": "x"}, "InvalidRequest"),
            ({"x-amz-checksum-crc32": crc32(b"1"), "x-amz-checksum-sha1": checksum("sha1", b"1")}, "InvalidRequest"),
            ({"x-amz-checksum-crc32": crc32(b"1"), "x-amz-sdk-checksum-algorithm": "SHA1"}, "InvalidRequest"),
            ({"x-amz-checksum-xxhash64": "AAAAAAAAAAA="}, "InvalidRequest"),
        ):
            self.assertRefused(self.raw("PUT", "k", body=b"1", headers=headers).send(), 400, code)
        self.assertEqual(self.keys(), [])

    def test_attributes_are_told_as_asked_for(self):
        self.put("k", b"hello", ChecksumAlgorithm="SHA256")
        every = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
        answer = self.s3.get_object_attributes(Bucket=self.bucket, Key="k", ObjectAttributes=every)
        self.assertEqual(answer["ETag"], hashlib.md5(b"hello").hexdigest())
        self.assertEqual(answer["Checksum"]["ChecksumSHA256"], checksum("sha256", b"hello"))
        self.assertEqual((answer["StorageClass"], answer["ObjectSize"]), ("STANDARD", 5))
        self.assertNotIn("ObjectParts", answer)
        answer = self.s3.get_object_attributes(Bucket=self.bucket, Key="k", ObjectAttributes=["ObjectSize"])
        self.assertNotIn("ETag", answer)
        for headers in ({}, {"x-amz-object-attributes": "Size"}):
            self.assertRefused(self.raw("GET", "k", {"attributes": ""}, headers=headers).send(), 400, "InvalidArgument")

    def test_storage_classes_are_labels(self):
        self.put("k", StorageClass="REDUCED_REDUNDANCY")
        self.assertEqual(self.head("k")["StorageClass"], "REDUCED_REDUNDANCY")
        self.put("k", StorageClass="STANDARD")
        self.assertNotIn("StorageClass", self.head("k"))
        with self.refused("InvalidStorageClass", 400):
            self.put("k", StorageClass="GLACIER")


class Conditions(Suite):
    def test_reads_heed_etags_and_dates(self):
        etag = self.put("k", b"1")["ETag"]
        when = self.head("k")["LastModified"]
        before, after = when - datetime.timedelta(seconds=5), when
        self.assertEqual(self.body("k", IfMatch=etag), b"1")
        self.assertEqual(self.body("k", IfNoneMatch='"x"'), b"1")
        self.assertEqual(self.body("k", IfModifiedSince=before), b"1")
        self.assertEqual(self.body("k", IfUnmodifiedSince=after), b"1")
        self.assertEqual(self.body("k", IfMatch=etag, IfUnmodifiedSince=before), b"1")
        for more in ({"IfMatch": '"x"'}, {"IfUnmodifiedSince": before}):
            with self.refused("PreconditionFailed", 412):
                self.get("k", **more)
        for more in ({"IfNoneMatch": etag}, {"IfModifiedSince": after}, {"IfNoneMatch": "*"}):
            with self.refused("304", 304) as caught:
                self.get("k", **more)
            headers = caught.exception.response["ResponseMetadata"]["HTTPHeaders"]
            self.assertEqual(headers["etag"], etag)
            self.assertIn("last-modified", headers)
            with self.refused("304", 304):
                self.head("k", **more)

    def test_tags_come_before_dates_in_lists_bare_and_by_star(self):
        etag = self.put("k", b"1", CacheControl="max-age=1", Expires="Thu, 01 Jan 2099 00:00:00 GMT")["ETag"]
        same = self.raw("HEAD", "k").send().headers["last-modified"]
        old, future = "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT"
        for headers, status in (
            ({"if-match": f'"x", {etag}'}, 200),
            ({"if-match": etag.strip('"')}, 200),
            ({"if-match": "*"}, 200),
            ({"if-match": etag, "if-unmodified-since": old}, 200),
            ({"if-match": '"x"', "if-none-match": etag}, 412),
            ({"if-none-match": f'"x", {etag}'}, 304),
            ({"if-none-match": '"x"', "if-modified-since": same}, 200),
            ({"if-match": etag, "if-none-match": etag}, 304),
            ({"if-modified-since": same}, 304),
            ({"if-modified-since": future}, 200),
            ({"if-unmodified-since": same}, 200),
            ({"if-unmodified-since": old}, 412),
        ):
            for method in ("GET", "HEAD"):
                answer = self.raw(method, "k", headers=headers).send()
                self.assertEqual(answer.status, status, headers)
                if status == 304:
                    self.assertEqual((answer.headers["etag"], answer.headers["last-modified"]), (etag, same))
                    self.assertEqual((answer.headers["cache-control"], answer.headers["expires"]), ("max-age=1", future))
                    self.assertEqual(answer.body, b"")

    def test_copies_heed_the_condition_of_their_destination(self):
        etag = self.put("k", b"1")["ETag"]
        copy = lambda **headers: self.raw("PUT", "c", headers={"x-amz-copy-source": f"{self.bucket}/k", **{name.replace("_", "-"): value for name, value in headers.items()}}).send()
        self.assertRefused(copy(if_match=etag), 404, "NoSuchKey")
        self.assertEqual(copy(if_none_match="*").status, 200)
        self.assertRefused(copy(if_none_match="*"), 412, "PreconditionFailed")
        self.assertRefused(copy(if_match='"x"'), 412, "PreconditionFailed")
        self.assertEqual(copy(if_match=etag).status, 200)

    def test_a_malformed_date_is_ignored(self):
        self.put("k", b"1")
        answer = self.raw("GET", "k", headers={"if-modified-since": "yesterday"}).send()
        self.assertEqual(answer.status, 200)

    def test_writes_heed_etags(self):
        etag = self.put("k", b"1", IfNoneMatch="*")["ETag"]
        with self.refused("PreconditionFailed", 412):
            self.put("k", b"2", IfNoneMatch="*")
        with self.refused("PreconditionFailed", 412):
            self.put("k", b"2", IfMatch='"x"')
        with self.refused("NoSuchKey", 404):
            self.put("other", b"2", IfMatch=etag)
        for more in ({"IfNoneMatch": etag}, {"IfMatch": etag, "IfNoneMatch": "*"}):
            with self.refused("NotImplemented", 501):
                self.put("k", b"2", **more)
        self.assertEqual(self.body("k"), b"1")
        self.put("k", b"2", IfMatch=etag)
        self.assertEqual(self.body("k"), b"2")

    def test_a_delete_marker_counts_as_absent(self):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.put("k", b"1")
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.put("k", b"2", IfNoneMatch="*")

    def test_deletes_heed_etags(self):
        etag = self.put("k", b"1")["ETag"]
        with self.refused("PreconditionFailed", 412):
            self.s3.delete_object(Bucket=self.bucket, Key="k", IfMatch='"x"')
        objects = [{"Key": "k", "ETag": '"x"'}]
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": objects})
        self.assertEqual(answer["Errors"][0]["Code"], "PreconditionFailed")
        self.s3.delete_object(Bucket=self.bucket, Key="k", IfMatch=etag)
        self.assertEqual(self.keys(), [])


class Ranges(Suite):
    def test_one_range_is_answered(self):
        self.put("k", BIG)
        for header, expected in (
            ("bytes=0-0", BIG[:1]),
            ("bytes=100-199", BIG[100:200]),
            ("bytes=5000000-", BIG[5000000:]),
            ("bytes=-10", BIG[-10:]),
            ("bytes=-99999999", BIG),
            ("bytes=3000000-99999999", BIG[3000000:]),
        ):
            answer = self.raw("GET", "k", headers={"range": header}).send()
            self.assertEqual(answer.status, 206, header)
            self.assertTrue(answer.body == expected, header)
            start = len(BIG) - len(expected) if header.startswith("bytes=-") else int(header[6:].split("-")[0])
            self.assertEqual(answer.headers["content-range"], f"bytes {start}-{start + len(expected) - 1}/{len(BIG)}")
            head = self.raw("HEAD", "k", headers={"range": header}).send()
            self.assertEqual((head.status, head.headers["content-length"]), (206, str(len(expected))))

    def test_zeros_in_front_count_for_nothing(self):
        self.put("k", b"hello")
        self.assertEqual(self.raw("GET", "k", headers={"range": "bytes=000-0001"}).send().body, b"he")

    def test_a_range_has_no_check_sum_unless_it_is_a_part(self):
        self.put("k", b"hello", ChecksumAlgorithm="SHA256")
        answer = self.get("k", Range="bytes=0-1", ChecksumMode="ENABLED")
        self.assertNotIn("ChecksumSHA256", answer)
        answer = self.head("k", PartNumber=1, ChecksumMode="ENABLED")
        self.assertEqual((answer["ChecksumSHA256"], answer["ResponseMetadata"]["HTTPStatusCode"]), (checksum("sha256", b"hello"), 206))

    def test_headers_of_answers_are_overridden_as_asked_for(self):
        self.put("k", b"hello", ContentType="text/a", CacheControl="a")
        more = {"ResponseContentType": "text/b", "ResponseCacheControl": "b", "ResponseContentDisposition": "c", "ResponseContentEncoding": "identity", "ResponseContentLanguage": "de"}
        answer = self.get("k", **more)
        self.assertEqual((answer["ContentType"], answer["CacheControl"], answer["ContentDisposition"]), ("text/b", "b", "c"))
        self.assertEqual((answer["ContentEncoding"], answer["ContentLanguage"]), ("identity", "de"))

    def test_what_is_malformed_is_ignored(self):
        self.put("k", b"hello")
        for header in ("bytes=a-b", "bytes=3-1", "items=0-1", "bytes=0-1,3-4", "bytes=", "x"):
            answer = self.raw("GET", "k", headers={"range": header}).send()
            self.assertEqual((answer.status, answer.body), (200, b"hello"), header)
            self.assertEqual(answer.headers["accept-ranges"], "bytes")

    def test_what_lies_outside_is_refused(self):
        self.put("k", b"hello")
        for header in ("bytes=5-", "bytes=9-10", "bytes=-0"):
            answer = self.raw("GET", "k", headers={"range": header}).send()
            self.assertRefused(answer, 416, "InvalidRange")
            self.assertEqual(answer.headers["content-range"], "bytes */5")

    def test_a_part_of_an_object_of_one_part(self):
        self.put("k", b"hello")
        self.assertEqual(self.body("k", PartNumber=1), b"hello")
        with self.refused("InvalidPartNumber", 416):
            self.get("k", PartNumber=2)
        with self.refused("InvalidRequest", 400):
            self.get("k", PartNumber=1, Range="bytes=0-1")


class Tags(Suite):
    def tags(self, **more):
        answer = self.s3.get_object_tagging(Bucket=self.bucket, Key="k", **more)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def set(self, tags, **more):
        tags = [{"Key": key, "Value": value} for key, value in tags]
        self.s3.put_object_tagging(Bucket=self.bucket, Key="k", Tagging={"TagSet": tags}, **more)

    def test_tags_are_set_read_counted_and_taken_away(self):
        self.put("k", Tagging="a=1&b%20c=2")
        self.assertEqual((self.tags(), self.head("k")["TagCount"]), ({"a": "1", "b c": "2"}, 2))
        self.set([("x", "y")])
        self.assertEqual(self.tags(), {"x": "y"})
        self.s3.delete_object_tagging(Bucket=self.bucket, Key="k")
        self.assertEqual(self.tags(), {})

    def test_tags_follow_the_rules(self):
        self.put("k")
        for tags, code in (
            ([(str(number), "") for number in range(11)], "BadRequest"),
            ([("a" * 129, "")], "InvalidTag"),
            ([("a", "b" * 257)], "InvalidTag"),
            ([("a", ""), ("a", "")], "InvalidTag"),
            ([("aws:a", "")], "InvalidTag"),
        ):
            with self.refused(code, 400):
                self.set(tags)
        with self.refused("InvalidArgument", 400):
            self.put("k", Tagging="a=1&a=2")

    def test_tags_are_of_a_version(self):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        first = self.put("k", Tagging="a=1")["VersionId"]
        self.put("k", Tagging="a=2")
        self.assertEqual((self.tags(VersionId=first), self.tags()), ({"a": "1"}, {"a": "2"}))
        self.set([("a", "3")], VersionId=first)
        self.assertEqual((self.tags(VersionId=first), self.tags()), ({"a": "3"}, {"a": "2"}))
        with self.refused("NoSuchKey", 404):
            self.s3.get_object_tagging(Bucket=self.bucket, Key="none")


class Copies(Suite):
    def copy(self, key, source, **more):
        return self.s3.copy_object(Bucket=self.bucket, Key=key, CopySource=source, **more)

    def test_a_copy_has_all_of_its_source(self):
        more = {"Metadata": {"a": "1"}, "ContentType": "text/x", "Tagging": "t=1"}
        etag = self.put("a b/ü+%", BIG, ChecksumAlgorithm="SHA256", **more)["ETag"]
        answer = self.copy("copy", {"Bucket": self.bucket, "Key": "a b/ü+%"})
        self.assertEqual(answer["CopyObjectResult"]["ETag"], etag)
        head = self.head("copy", ChecksumMode="ENABLED")
        self.assertEqual((head["Metadata"], head["ContentType"], head["TagCount"]), ({"a": "1"}, "text/x", 1))
        self.assertEqual(head["ChecksumSHA256"], checksum("sha256", BIG))
        self.assertTrue(self.body("copy") == BIG)

    def test_directives_replace(self):
        self.put("k", b"1", Metadata={"a": "1"}, ContentType="text/x", Tagging="t=1")
        self.copy("copy", f"{self.bucket}/k", MetadataDirective="REPLACE", Metadata={"b": "2"}, TaggingDirective="REPLACE")
        head = self.head("copy")
        self.assertEqual((head["Metadata"], head["ContentType"]), ({"b": "2"}, "binary/octet-stream"))
        self.assertNotIn("TagCount", head)
        answer = self.raw("PUT", "c", headers={"x-amz-copy-source": f"{self.bucket}/k", "x-amz-metadata-directive": "X"})
        self.assertRefused(answer.send(), 400, "InvalidArgument")

    def test_onto_itself_something_has_to_change(self):
        self.put("k", b"1")
        with self.refused("InvalidRequest", 400):
            self.copy("k", f"{self.bucket}/k")
        self.copy("k", f"{self.bucket}/k", MetadataDirective="REPLACE", Metadata={"b": "2"})
        self.assertEqual((self.body("k"), self.head("k")["Metadata"]), (b"1", {"b": "2"}))

    def test_conditions_are_of_the_source(self):
        etag = self.put("k", b"1")["ETag"]
        self.copy("c", f"{self.bucket}/k", CopySourceIfMatch=etag)
        for more in ({"CopySourceIfMatch": '"x"'}, {"CopySourceIfNoneMatch": etag}):
            with self.refused("PreconditionFailed", 412):
                self.copy("c", f"{self.bucket}/k", **more)

    def test_dates_of_the_source_are_conditions(self):
        self.put("k", b"1")
        same = self.raw("HEAD", "k").send().headers["last-modified"]
        for name, value, status in (
            ("x-amz-copy-source-if-modified-since", same, 412),
            ("x-amz-copy-source-if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 200),
            ("x-amz-copy-source-if-unmodified-since", same, 200),
            ("x-amz-copy-source-if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 412),
        ):
            answer = self.raw("PUT", "c", headers={"x-amz-copy-source": f"{self.bucket}/k", name: value}).send()
            self.assertEqual(answer.status, status, (name, value))

    def test_another_owner_of_the_source_was_expected(self):
        self.put("k", b"1")
        owner = self.s3.list_buckets()["Owner"]["ID"]
        self.copy("c", f"{self.bucket}/k", ExpectedSourceBucketOwner=owner)
        with self.refused("AccessDenied", 403):
            self.copy("c", f"{self.bucket}/k", ExpectedSourceBucketOwner="123456789012")

    def test_a_source_may_begin_with_a_slash_and_is_decoded_once(self):
        self.put("a b/%2B+ü", b"1")
        for source in (f"/{self.bucket}/a%20b/%252B%2B%C3%BC", f"{self.bucket}/a%20b/%252B%2B%C3%BC"):
            self.assertEqual(self.raw("PUT", "c", headers={"x-amz-copy-source": source}).send().status, 200, source)

    def test_a_new_check_sum_is_worked_out(self):
        self.put("k", BIG)
        answer = self.copy("c", f"{self.bucket}/k", ChecksumAlgorithm="SHA256")
        self.assertEqual(answer["CopyObjectResult"]["ChecksumSHA256"], checksum("sha256", BIG))

    def test_versions_can_be_copied(self):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        first = self.put("k", b"1")["VersionId"]
        self.put("k", b"2")
        answer = self.copy("c", {"Bucket": self.bucket, "Key": "k", "VersionId": first})
        self.assertEqual((self.body("c"), answer["CopySourceVersionId"]), (b"1", first))

    def test_sources_that_are_not_there(self):
        for source, code, status in (
            (f"{self.bucket}/none", "NoSuchKey", 404),
            ("not-there-at-all/k", "NoSuchBucket", 404),
            (f"{self.bucket}/none?versionId=x", "InvalidArgument", 400),
            ("nonsense", "InvalidArgument", 400),
        ):
            asked = self.raw("PUT", "c", headers={"x-amz-copy-source": source})
            self.assertRefused(asked.send(), status, code)


class Times(Suite):
    def test_last_modified_is_in_seconds_and_never_runs_backwards(self):
        times = []
        for number in range(20):
            self.put("k", str(number).encode())
            times.append(self.head("k")["LastModified"])
            self.s3.copy_object(Bucket=self.bucket, Key="k", CopySource=f"{self.bucket}/k", MetadataDirective="REPLACE")
            times.append(self.head("k")["LastModified"])
        self.assertEqual(times, sorted(times))
        self.assertTrue(all(time.microsecond == 0 for time in times))


class Deletes(Suite):
    def test_deleting_what_is_not_there_is_204(self):
        answer = self.s3.delete_object(Bucket=self.bucket, Key="none")
        self.assertEqual(answer["ResponseMetadata"]["HTTPStatusCode"], 204)

    def test_many_at_once(self):
        for number in range(5):
            self.put(str(number))
        objects = [{"Key": str(number)} for number in range(4)] + [{"Key": "none"}, {"Key": "4", "VersionId": "nonsense"}]
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": objects})
        self.assertEqual(len(answer["Deleted"]), 5)
        self.assertEqual([(error["Key"], error["Code"]) for error in answer["Errors"]], [("4", "InvalidArgument")])
        self.assertEqual(self.keys(), ["4"])
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": "4"}], "Quiet": True})
        self.assertNotIn("Deleted", answer)

    def test_a_list_is_bounded_and_has_a_digest(self):
        entry = b"<Object><Key>a</Key></Object>"
        for count in (0, 1001):
            body = b"<Delete>" + entry * count + b"</Delete>"
            headers = {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}
            answer = self.raw("POST", "", {"delete": ""}, body=body, headers=headers).send()
            self.assertRefused(answer, 400, "MalformedXML")
        answer = self.raw("POST", "", {"delete": ""}, body=b"<Delete>" + entry + b"</Delete>").send()
        self.assertRefused(answer, 400, "InvalidRequest")


if __name__ == "__main__":
    unittest.main(verbosity=2)
