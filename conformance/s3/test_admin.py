"""The admin API beside the S3 door: settings that count, versions, search, and two tenants that find nothing of each other's."""

import hashlib
import http.client
import json
import os
import random
import urllib.parse
import uuid

from botocore.exceptions import ClientError

from door import Suite, client

ADMIN = urllib.parse.urlsplit(os.environ["CAIRN_ADMIN_API"])
TOKEN = os.environ["CAIRN_ADMIN_TOKEN"]


def ask(method, path, query=None, body=None):
    """Status and document of a request of the admin API."""
    way = http.client.HTTPConnection(ADMIN.hostname, ADMIN.port)
    target = "/api/v1/" + path + ("?" + urllib.parse.urlencode(query) if query else "")
    way.request(method, target, json.dumps(body) if body is not None else None, {"Authorization": "Bearer " + TOKEN})
    answer = way.getresponse()
    text = answer.read()
    way.close()
    return answer.status, json.loads(text) if text else None


def pages(path, name, query):
    """All entries of a listing, page by page."""
    entries, cursor = [], None
    while True:
        status, page = ask("GET", path, {**query, **({"cursor": cursor} if cursor else {})})
        assert status == 200, page
        entries += page[name]
        cursor = page["next_cursor"]
        if not cursor:
            return entries


def noise(seed, size):
    return random.Random(seed).randbytes(size)


class Admin(Suite):
    def ok(self, method, path, query=None, body=None, status=200):
        answered, document = ask(method, path, query, body)
        self.assertEqual(answered, status, document)
        return document

    def refused_by_api(self, method, path, query, body, status, code):
        answered, document = ask(method, path, query, body)
        self.assertEqual((answered, document and document.get("code")), (status, code), (path, query))

    def set(self, **settings):
        return self.ok("PATCH", f"admin/buckets/{self.bucket}", body={"settings": settings})["settings"]

    def test_quotas_count(self):
        self.set(quota_bytes=1000, quota_objects=2)
        self.put("a", b"x" * 900)
        with self.refused("QuotaExceeded", 403):
            self.put("b", b"x" * 101)
        self.put("b", b"x" * 100)
        with self.refused("QuotaExceeded", 403):
            self.put("c", b"")
        usage = self.ok("GET", f"admin/buckets/{self.bucket}/usage")
        self.assertEqual(usage["usage"], {"objects": 2, "versions": 2, "bytes": 1000})
        self.assertEqual(usage["quota"], {"bytes": 1000, "objects": 2})
        self.set(quota_bytes=None, quota_objects=None)
        self.put("c", b"x")

    def test_tags_are_md5_or_opaque(self):
        body = noise(1, 100_000)
        self.assertEqual(self.put("a", body)["ETag"], f'"{hashlib.md5(body).hexdigest()}"')
        self.set(etag="opaque")
        opaque = self.put("a", body)["ETag"]
        self.assertNotEqual(opaque, f'"{hashlib.md5(body).hexdigest()}"')
        self.assertEqual((self.head("a")["ETag"], self.body("a")), (opaque, body))

    def test_every_durability_class_reads_back(self):
        for number, durability in enumerate(["batch", "volatile", "sync"]):
            self.assertEqual(self.set(durability=durability)["durability"], durability)
            body = noise(number, 3_000_000)
            self.put(durability, body)
            self.put(durability + " small", b"x")
            self.assertEqual((self.body(durability), self.body(durability + " small")), (body, b"x"))
        for durability in ["batch", "volatile", "sync"]:
            self.s3.delete_object(Bucket=self.bucket, Key=durability)
        self.assertEqual(len(self.keys()), 3)

    def upload(self, key, parts):
        begun = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        sent = []
        for number, part in reversed(list(enumerate(parts, 1))):
            answer = self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=begun, PartNumber=number, Body=part)
            sent.insert(0, {"PartNumber": number, "ETag": answer["ETag"]})
        self.s3.complete_multipart_upload(
            Bucket=self.bucket, Key=key, UploadId=begun, MultipartUpload={"Parts": sent}
        )

    def test_fixed_and_close_chunk_sizes_are_cut_anew_at_complete(self):
        parts = [noise(7, 5 << 20), noise(8, (5 << 20) + 1), noise(9, 12345)]
        whole = b"".join(parts)
        for sizes in ["65536:65536:65536", "40000:50000:60000"]:
            self.set(chunk_sizes=sizes)
            self.put("whole", whole)
            self.upload("parts", parts)
            self.assertEqual(self.body("parts"), whole)
            diff = self.ok("GET", f"admin/buckets/{self.bucket}/diff", {"key": "whole", "other_key": "parts"})
            self.assertEqual(diff["from"]["only"], {"chunks": 0, "bytes": 0}, sizes)
            self.assertEqual(diff["to"]["only"], {"chunks": 0, "bytes": 0}, sizes)
            self.assertEqual(diff["shared"]["bytes"], len(whole))

    def test_settings_are_headers_of_create_and_head(self):
        name = "own-" + uuid.uuid4().hex[:20]
        said = {"x-cairn-chunk-sizes": "4096:16384:65536", "x-cairn-durability": "batch", "x-cairn-quota-bytes": "9999"}

        def add(params, **_):
            params["headers"].update(said)

        self.s3.meta.events.register("before-call.s3.CreateBucket", add)
        self.s3.create_bucket(Bucket=name)
        shown = self.s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPHeaders"]
        for header, value in {**said, "x-cairn-etag": "md5", "x-cairn-domain": "shared"}.items():
            self.assertEqual(shown[header], value)
        self.assertNotIn("x-cairn-level", shown)
        settings = self.ok("GET", f"admin/buckets/{name}")["settings"]
        self.assertEqual((settings["chunk_sizes"], settings["quota_bytes"]), ("4096:16384:65536", 9999))
        for header, value, code in [
            ("x-cairn-durability", "never", "InvalidArgument"),
            ("x-cairn-speed", "9", "InvalidArgument"),
            ("x-cairn-domain", "private", "NotImplemented"),
        ]:
            said.clear()
            said[header] = value
            with self.refused(code):
                self.s3.create_bucket(Bucket="own-" + uuid.uuid4().hex[:20])

    def test_versions_are_listed_compared_and_restored(self):
        self.set(versioning="enabled")
        same, old, new = noise(1, 1_000_000), noise(2, 500_000), noise(3, 300_000)
        ids = [self.put("k/ü", same + old, ContentType="text/x-a", Metadata={"m": "1"}, Tagging="t=1")["VersionId"]]
        ids += [self.put("k/ü", same + new)["VersionId"]]
        self.put("k/üx", b"another key")
        path = f"admin/buckets/{self.bucket}"
        listed = pages(path + "/versions", "versions", {"key": "k/ü", "limit": 1})
        self.assertEqual([version["version_id"] for version in listed], ids[::-1])
        self.assertEqual([version["latest"] for version in listed], [True, False])
        self.assertEqual(len(pages(path + "/versions", "versions", {"prefix": "k/", "limit": 2})), 3)
        diff = self.ok("GET", path + "/diff", {"key": "k/ü", "from": ids[0], "to": ids[1]})
        self.assertEqual((diff["from"]["size"], diff["to"]["size"]), (1_500_000, 1_300_000))
        for side in ["from", "to"]:
            self.assertEqual(diff[side]["only"]["bytes"] + diff["shared"]["bytes"], diff[side]["size"])
        self.assertGreater(diff["shared"]["bytes"], 500_000)
        self.assertEqual(self.ok("GET", path + "/diff", {"key": "k/ü"})["to"]["only"]["chunks"], 0)

        restored = self.ok("POST", path + "/restore", None, {"key": "k/ü", "version_id": ids[0]}, 201)
        self.assertEqual(restored["restored_from"], ids[0])
        self.assertNotIn(restored["version_id"], ids)
        head = self.head("k/ü")
        self.assertEqual(head["VersionId"], restored["version_id"])
        self.assertEqual((head["ContentType"], head["Metadata"]), ("text/x-a", {"m": "1"}))
        self.assertEqual(head["ETag"], f'"{hashlib.md5(same + old).hexdigest()}"')
        self.assertEqual(self.body("k/ü"), same + old)
        tags = self.s3.get_object_tagging(Bucket=self.bucket, Key="k/ü")["TagSet"]
        self.assertEqual(tags, [{"Key": "t", "Value": "1"}])
        self.assertEqual(len(pages(path + "/versions", "versions", {"key": "k/ü"})), 3)

        marker = self.s3.delete_object(Bucket=self.bucket, Key="k/ü")["VersionId"]
        restore = lambda body, status, code: self.refused_by_api("POST", path + "/restore", None, body, status, code)
        restore({"key": "k/ü", "version_id": marker}, 409, "delete_marker")
        restore({"key": "k/ü", "version_id": "0" * 40}, 404, "no_such_version")
        restore({"key": "other", "version_id": ids[0]}, 404, "no_such_version")
        restore({"key": "k/üx", "version_id": ids[0]}, 404, "no_such_version")
        restore({"key": "k/üx", "version_id": "nonsense"}, 400, "bad_request")
        self.ok("POST", path + "/restore", None, {"key": "k/ü", "version_id": ids[1]}, 201)
        self.assertEqual(self.body("k/ü"), same + new)
        restore({"key": "k/ü", "version_id": ids[0], "if_match": "nothing"}, 412, "precondition_failed")

    def test_search_finds_by_all_that_is_said(self):
        for number in range(30):
            self.put(
                f"{'ab'[number % 2]}/{number:02}",
                b"x" * (100 * number),
                ContentType=["text/plain", "image/png"][number % 2],
                Metadata={"color": ["red", "green", "blue"][number % 3]},
                Tagging=f"size={'big' if number >= 15 else 'small'}",
            )

        def find(**query):
            query = {name.replace("__", "."): value for name, value in query.items()}
            found = pages("objects/search", "objects", {"bucket": self.bucket, **query})
            return sorted(int(entry["key"][2:]) for entry in found)

        every = range(30)
        self.assertEqual(find(), list(every))
        for limit in [1, 7, 200]:
            self.assertEqual(find(limit=limit), list(every))
            self.assertEqual(find(prefix="a/", limit=limit), [n for n in every if n % 2 == 0])
            self.assertEqual(find(tag__size="big", limit=limit), list(range(15, 30)))
        self.assertEqual(find(content_type="image/png"), [n for n in every if n % 2])
        self.assertEqual(find(meta__color="red"), [n for n in every if n % 3 == 0])
        self.assertEqual(find(size_min=1000, size_max=1200), [10, 11, 12])
        self.assertEqual(find(owner="admin"), list(every))
        self.assertEqual(find(owner="nobody"), [])
        self.assertEqual(find(created_from="2020-01-01T00:00:00Z"), list(every))
        self.assertEqual(find(created_to="2020-01-01T00:00:00Z"), [])
        self.assertEqual(find(prefix="b/", meta__color="green", tag__size="small", size_max=700), [1, 7])
        # Of the whole tenant.
        other = "other-" + uuid.uuid4().hex[:20]
        self.s3.create_bucket(Bucket=other)
        mark = uuid.uuid4().hex
        for bucket in [self.bucket, other]:
            self.s3.put_object(Bucket=bucket, Key="marked", Body=b"", Tagging="mark=" + mark)
        found = pages("objects/search", "objects", {"tag.mark": mark, "limit": 1})
        self.assertEqual({entry["bucket"] for entry in found}, {self.bucket, other})
        self.s3.delete_object(Bucket=other, Key="marked")
        self.assertEqual(len(pages("objects/search", "objects", {"tag.mark": mark})), 1)

    def test_keys_are_made_switched_off_and_revoked(self):
        owner = "owner-" + uuid.uuid4().hex[:8]
        key = self.ok("POST", "admin/keys", None, {"owner": owner}, 201)
        own = client(secret=key["secret"], key=key["id"])
        bucket = "own-" + uuid.uuid4().hex[:20]
        own.create_bucket(Bucket=bucket)
        own.put_object(Bucket=bucket, Key="k", Body=b"x")
        with self.refused("AccessDenied", 403):
            self.s3.get_object(Bucket=bucket, Key="k")
        self.ok("PATCH", f"admin/keys/{key['id']}", None, {"enabled": False})
        with self.refused("InvalidAccessKeyId", 403):
            own.list_buckets()
        self.ok("PATCH", f"admin/keys/{key['id']}", None, {"enabled": True})
        self.assertEqual([entry["Name"] for entry in own.list_buckets()["Buckets"]], [bucket])
        self.ok("DELETE", f"admin/keys/{key['id']}", status=204)
        with self.refused("InvalidAccessKeyId", 403):
            own.list_buckets()

    def test_a_second_tenant_finds_nothing_by_the_ids_of_the_first(self):
        """Every id, name and cursor that the first tenant was given, in every operation that the second can ask for."""
        seed = int(os.environ.get("SEED", "1"))
        chance = random.Random(seed)
        tenant = "tenant-" + uuid.uuid4().hex[:12]
        key = self.ok("POST", "admin/keys", None, {"tenant": tenant, "owner": "admin"}, 201)
        other = client(secret=key["secret"], key=key["id"])
        theirs = "theirs-" + uuid.uuid4().hex[:16]
        other.create_bucket(Bucket=theirs)
        for bucket, door in [(self.bucket, self.s3), (theirs, other)]:
            door.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        secret = noise(seed, 200_000)
        mark = uuid.uuid4().hex
        versions, uploads = [], []
        for number in range(5):
            name = f"key-{number}"
            versions.append((name, self.put(name, secret, Tagging="mark=" + mark)["VersionId"]))
            begun = self.s3.create_multipart_upload(Bucket=self.bucket, Key=name)["UploadId"]
            self.s3.upload_part(Bucket=self.bucket, Key=name, UploadId=begun, PartNumber=1, Body=secret)
            uploads.append((name, begun))
            other.put_object(Bucket=theirs, Key=name, Body=b"theirs")
        token = self.s3.list_objects_v2(Bucket=self.bucket, MaxKeys=2)["NextContinuationToken"]
        cursors = [
            ask("GET", "objects/search", {"bucket": self.bucket, "limit": 1})[1]["next_cursor"],
            ask("GET", "objects/search", {"tag.mark": mark, "limit": 1})[1]["next_cursor"],
            ask("GET", f"admin/buckets/{self.bucket}/versions", {"limit": 1})[1]["next_cursor"],
            ask("GET", "admin/buckets", {"limit": 1})[1]["next_cursor"],
            ask("GET", "admin/keys", {"limit": 1})[1]["next_cursor"],
        ]
        theirs_only = {"bucket": theirs, "owner": "admin"}
        calls = 0

        def sees_nothing(call, **arguments):
            """What is answered is an error, or of the other tenant's own."""
            nonlocal calls
            calls += 1
            try:
                answer = getattr(other, call)(**arguments)
            except ClientError as error:
                self.assertLess(error.response["ResponseMetadata"]["HTTPStatusCode"], 500, (call, arguments))
                return
            body = answer["Body"].read() if "Body" in answer else b""
            self.assertEqual(body if body != b"theirs" else b"", b"", (call, arguments))
            # What they said themselves is said back to them.
            echoes = ["ResponseMetadata"] + [name for name in answer if answer[name] in list(arguments.values())]
            text = repr({name: value for name, value in answer.items() if name not in echoes})
            self.assertNotIn(self.bucket, text, (call, arguments))
            for _, id in versions + uploads:
                self.assertNotIn(id, text, (call, arguments))

        for _ in range(60):
            (name, version), (_, upload) = chance.choice(versions), chance.choice(uploads)
            bucket = chance.choice([self.bucket, theirs])
            of = {"Bucket": bucket, "Key": name}
            source = {"Bucket": self.bucket, "Key": name, "VersionId": version}
            call, arguments = chance.choice(
                [
                    ("get_object", {**of, "VersionId": version}),
                    ("head_object", {**of, "VersionId": version}),
                    ("get_object_tagging", {**of, "VersionId": version}),
                    ("get_object_attributes", {**of, "VersionId": version, "ObjectAttributes": ["ETag", "ObjectSize"]}),
                    ("list_parts", {**of, "UploadId": upload}),
                    ("list_multipart_uploads", {"Bucket": bucket, "KeyMarker": name, "UploadIdMarker": upload}),
                    ("list_multipart_uploads", {"Bucket": bucket}),
                    ("list_objects_v2", {"Bucket": bucket, "ContinuationToken": token}),
                    ("list_objects", {"Bucket": bucket, "Marker": name}),
                    ("list_object_versions", {"Bucket": bucket, "KeyMarker": name, "VersionIdMarker": version}),
                    ("copy_object", {"Bucket": theirs, "Key": "stolen", "CopySource": source}),
                    ("copy_object", {"Bucket": theirs, "Key": "stolen", "CopySource": {**source, "Bucket": theirs}}),
                    ("upload_part", {**of, "UploadId": upload, "PartNumber": 1, "Body": b"x"}),
                    ("abort_multipart_upload", {**of, "UploadId": upload}),
                    (
                        "complete_multipart_upload",
                        {**of, "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "x"}]}},
                    ),
                    ("delete_object", {**of, "VersionId": version}),
                    ("head_bucket", {"Bucket": self.bucket}),
                    ("delete_bucket", {"Bucket": self.bucket}),
                    ("list_buckets", {}),
                ]
            )
            sees_nothing(call, **arguments)
            cursor = chance.choice(cursors)
            path, name, query = chance.choice(
                [
                    ("objects/search", "objects", {"tag.mark": mark}),
                    ("objects/search", "objects", {"tag.mark": mark, "cursor": cursor}),
                    ("objects/search", "objects", {**theirs_only, "cursor": cursor}),
                    ("objects/search", "objects", {"bucket": self.bucket}),
                    (f"admin/buckets/{theirs}/versions", "versions", {"cursor": cursor}),
                    (f"admin/buckets/{self.bucket}/versions", "versions", {}),
                    (f"admin/buckets/{theirs}/diff", None, {"key": name, "from": version}),
                    ("admin/buckets", "buckets", {"cursor": cursor}),
                    ("admin/keys", "keys", {"cursor": cursor}),
                ]
            )
            status, page = ask("GET", path, {"tenant": tenant, **query})
            self.assertIn(status, (200, 400, 404), page)
            for entry in page.get(name, []) if name else []:
                self.assertIn(entry.get("bucket", theirs), (theirs,), (seed, path, query))
                self.assertEqual(entry.get("tenant", tenant), tenant, (seed, path, query))
        status, _ = ask(
            "POST", f"admin/buckets/{theirs}/restore", {"tenant": tenant}, {"key": "key-0", "version_id": versions[0][1]}
        )
        self.assertEqual(status, 404)
        # Nothing of the first was touched.
        for name, version in versions:
            self.assertEqual(self.body(name, VersionId=version), secret)
        listed = self.s3.list_multipart_uploads(Bucket=self.bucket)["Uploads"]
        self.assertEqual(len(listed), len(uploads))
        self.assertNotIn("stolen", [entry["Key"] for entry in other.list_objects_v2(Bucket=theirs).get("Contents", [])])
