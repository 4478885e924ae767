"""Writers and readers of one key at the same time (s3-surface, sections 1 and 2): one wins whole, never a mix."""

import hashlib
import os
import threading
import unittest

from botocore.exceptions import ClientError
from door import Suite, client

MIB = 1 << 20
WRITERS = 6
ROUNDS = 8
LOST = {409: "ConditionalRequestConflict", 412: "PreconditionFailed"}


def at_once(jobs):
    """Runs all jobs at the same moment; their results, in order: what they return, or the error that they raise."""
    gate, results = threading.Barrier(len(jobs)), [None] * len(jobs)

    def run(number, job):
        gate.wait()
        try:
            results[number] = job()
        except ClientError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class Races(Suite):
    def setUp(self):
        super().setUp()
        # Connections of their own.
        self.clients = [client() for _ in range(WRITERS)]

    def put_of(self, number, data, **more):
        where = {"Bucket": self.bucket, "Key": "k"}
        return lambda: self.clients[number].put_object(**where, Body=data, Metadata={"by": str(number)}, **more)

    def assertOne(self, results):
        """The one that won; all others were told that they lost."""
        won = [number for number, result in enumerate(results) if not isinstance(result, ClientError)]
        for result in results:
            if isinstance(result, ClientError):
                status = result.response["ResponseMetadata"]["HTTPStatusCode"]
                self.assertEqual(LOST.get(status), result.response["Error"]["Code"], result)
        self.assertEqual(len(won), 1, results)
        return won[0]

    def assertWhole(self, bodies):
        """The key has what one of the writers sent, all of it. Which."""
        answer = self.get("k")
        number = int(answer["Metadata"]["by"])
        self.assertTrue(answer["Body"].read() == bodies[number])
        self.assertEqual(answer["ETag"], f'"{hashlib.md5(bodies[number]).hexdigest()}"')
        return number

    def test_of_plain_writers_all_succeed_and_one_is_seen_whole(self):
        for round_ in range(ROUNDS):
            # In a row, of one chunk, of many.
            bodies = [os.urandom((100, 40_000, MIB)[round_ % 3] + number) for number in range(WRITERS)]
            results = at_once([self.put_of(number, body) for number, body in enumerate(bodies)])
            for result, body in zip(results, bodies):
                self.assertEqual(result["ETag"], f'"{hashlib.md5(body).hexdigest()}"')
            self.assertWhole(bodies)
            self.assertEqual(self.keys(), ["k"])

    def test_of_writers_of_a_new_key_one_wins(self):
        for round_ in range(ROUNDS):
            bodies = [os.urandom((100, 300_000)[round_ % 2] + number) for number in range(WRITERS)]
            won = self.assertOne(at_once([self.put_of(number, body, IfNoneMatch="*") for number, body in enumerate(bodies)]))
            self.assertEqual(self.assertWhole(bodies), won)
            self.s3.delete_object(Bucket=self.bucket, Key="k")

    def test_of_writers_that_saw_the_same_one_wins(self):
        etag = self.put("k", b"first")["ETag"]
        for round_ in range(ROUNDS):
            bodies = [os.urandom((100, 300_000)[round_ % 2] + number) for number in range(WRITERS)]
            results = at_once([self.put_of(number, body, IfMatch=etag) for number, body in enumerate(bodies)])
            won = self.assertOne(results)
            self.assertEqual(self.assertWhole(bodies), won)
            etag = results[won]["ETag"]

    def test_of_a_write_and_a_delete_that_saw_the_same_one_wins(self):
        for _ in range(ROUNDS):
            etag = self.put("k", b"first")["ETag"]
            delete = lambda: self.clients[1].delete_object(Bucket=self.bucket, Key="k", IfMatch=etag)
            results = at_once([self.put_of(0, b"second", IfMatch=etag), delete])
            lost = [result for result in results if isinstance(result, ClientError)]
            self.assertEqual(len(lost), 1, results)
            status = lost[0].response["ResponseMetadata"]["HTTPStatusCode"]
            # What was deleted is not there to be compared with.
            self.assertIn(status, (404, 409, 412))
            self.assertEqual(self.keys(), ["k"] if results[1] is lost[0] else [])
            if results[1] is lost[0]:
                self.assertEqual(self.body("k"), b"second")

    def test_of_uploads_that_are_completed_together_one_wins(self):
        for more in ({}, {"IfNoneMatch": "*"}):
            jobs, bodies = [], []
            for number in range(WRITERS):
                upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="k", Metadata={"by": str(number)})["UploadId"]
                bodies.append(os.urandom(100_000 + number))
                where = {"Bucket": self.bucket, "Key": "k", "UploadId": upload}
                etag = self.s3.upload_part(**where, PartNumber=1, Body=bodies[-1])["ETag"]
                parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
                one = self.clients[number]
                jobs.append(lambda one=one, where=where, parts=parts: one.complete_multipart_upload(**where, MultipartUpload=parts, **more))
            results = at_once(jobs)
            if more:
                won = self.assertOne(results)
            else:
                self.assertFalse([result for result in results if isinstance(result, ClientError)])
            answer = self.get("k")
            number = int(answer["Metadata"]["by"])
            self.assertTrue(answer["Body"].read() == bodies[number])
            if more:
                self.assertEqual(number, won)
            self.s3.delete_object(Bucket=self.bucket, Key="k")

    def test_one_upload_completed_by_many_becomes_one_object(self):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        where = {"Bucket": self.bucket, "Key": "k"}
        where["UploadId"] = self.s3.create_multipart_upload(**where)["UploadId"]
        etag = self.s3.upload_part(**where, PartNumber=1, Body=b"1")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        jobs = [lambda one=one: one.complete_multipart_upload(**where, MultipartUpload=parts) for one in self.clients]
        ids = {result["VersionId"] for result in at_once(jobs)}
        self.assertEqual(len(ids), 1, ids)
        self.assertEqual(len(self.s3.list_object_versions(Bucket=self.bucket)["Versions"]), 1)

    def test_where_versions_are_kept_every_writer_has_one(self):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        ids = []
        for _ in range(3):
            bodies = [os.urandom(1000) for _ in range(WRITERS)]
            results = at_once([self.put_of(number, body) for number, body in enumerate(bodies)])
            for result, body in zip(results, bodies):
                ids.append(result["VersionId"])
                self.assertEqual(self.body("k", VersionId=ids[-1]), body)
        versions = self.s3.list_object_versions(Bucket=self.bucket)["Versions"]
        self.assertEqual(sorted(version["VersionId"] for version in versions), sorted(ids))
        self.assertEqual([version["IsLatest"] for version in versions], [True] + [False] * (len(ids) - 1))
        self.assertEqual(self.head("k")["VersionId"], versions[0]["VersionId"])

    def test_readers_see_one_version_whole_while_others_write(self):
        bodies = {hashlib.md5(body).hexdigest(): body for body in (os.urandom(MIB + number) for number in range(4))}
        self.put("k", next(iter(bodies.values())))
        done = threading.Event()

        def write(number):
            for body in list(bodies.values()) * 4:
                self.clients[number].put_object(Bucket=self.bucket, Key="k", Body=body)
            done.set()

        def read(number):
            count = 0
            while not done.is_set() or count == 0:
                answer = self.clients[number].get_object(Bucket=self.bucket, Key="k")
                body = answer["Body"].read()
                self.assertTrue(bodies[answer["ETag"].strip('"')] == body)
                count += 1
            return count

        results = at_once([lambda: write(0)] + [lambda number=number: read(number) for number in (1, 2, 3)])
        self.assertTrue(all(count > 0 for count in results[1:]), results)

    def test_a_reader_keeps_what_it_opened(self):
        data = os.urandom(24 * MIB)
        self.put("k", data)
        answer = self.get("k")
        begun = answer["Body"].read(100)
        self.put("k", b"other")
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertTrue(begun + answer["Body"].read() == data)

    def test_parts_of_one_number_are_one_of_those_sent(self):
        where = {"Bucket": self.bucket, "Key": "k"}
        where["UploadId"] = self.s3.create_multipart_upload(**where)["UploadId"]
        bodies = [os.urandom(200_000 + number) for number in range(WRITERS)]
        send = lambda number: self.clients[number].upload_part(**where, PartNumber=1, Body=bodies[number])
        at_once([lambda number=number: send(number) for number in range(WRITERS)])
        part = self.s3.list_parts(**where)["Parts"][0]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        self.s3.complete_multipart_upload(**where, MultipartUpload=parts)
        body = self.body("k")
        self.assertIn(body, bodies)
        self.assertEqual(f'"{hashlib.md5(body).hexdigest()}"', part["ETag"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
