"""Listings and versions (s3-surface, sections 3 and 4)."""

import unittest

from door import Suite


class Objects(Suite):
    def fill(self, keys):
        for key in keys:
            self.put(key, b"x")

    def listed(self, **more):
        page = self.s3.list_objects_v2(Bucket=self.bucket, **more)
        keys = [entry["Key"] for entry in page.get("Contents", [])]
        prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        return keys, prefixes, page

    def test_keys_are_in_the_order_of_their_bytes(self):
        keys = ["a", "B", "b", "é", "z", "~", "a/b", "a-b", "a.b", "0", "\U0001f600"]
        self.fill(keys)
        self.assertEqual(self.keys(), sorted(keys, key=str.encode))

    def test_prefix_and_delimiter(self):
        self.fill(["a/1", "a/2", "b", "c/d/1", "c/e", "c/"])
        self.assertEqual(self.listed(Delimiter="/")[:2], (["b"], ["a/", "c/"]))
        self.assertEqual(self.listed(Delimiter="/", Prefix="c/")[:2], (["c/", "c/e"], ["c/d/"]))
        self.assertEqual(self.listed(Prefix="a")[:2], (["a/1", "a/2"], []))
        self.assertEqual(self.listed(Delimiter="d/1")[:2], (["a/1", "a/2", "b", "c/", "c/e"], ["c/d/1"]))

    def test_pages_never_repeat_a_prefix(self):
        self.fill(["a/1", "a/2", "b", "c/1", "c/2", "d"])
        for size in (1, 2, 3, 4):
            keys, prefixes, token = [], [], {}
            while True:
                more_keys, more_prefixes, page = self.listed(Delimiter="/", MaxKeys=size, **token)
                self.assertLessEqual(page["KeyCount"], size)
                keys += more_keys
                prefixes += more_prefixes
                if not page["IsTruncated"]:
                    break
                token = {"ContinuationToken": page["NextContinuationToken"]}
            self.assertEqual((keys, prefixes), (["b", "d"], ["a/", "c/"]), size)

    def test_the_first_version_goes_on_by_marker(self):
        self.fill(["a/1", "a/2", "b", "c/1", "d"])
        found, marker = [], ""
        while True:
            page = self.s3.list_objects(Bucket=self.bucket, Delimiter="/", MaxKeys=1, Marker=marker)
            found += [entry["Key"] for entry in page.get("Contents", [])]
            found += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            if not page["IsTruncated"]:
                break
            marker = page["NextMarker"]
        self.assertEqual(found, ["a/", "b", "c/", "d"])
        page = self.s3.list_objects(Bucket=self.bucket, Marker="b", MaxKeys=1)
        self.assertEqual([entry["Key"] for entry in page["Contents"]], ["c/1"])
        self.assertIn("Owner", page["Contents"][0])
        self.assertNotIn("NextMarker", page)

    def test_start_after_and_owners(self):
        self.fill(["a", "b", "c"])
        self.assertEqual(self.listed(StartAfter="a")[0], ["b", "c"])
        page = self.listed(FetchOwner=True)[2]
        self.assertIn("ID", page["Contents"][0]["Owner"])
        self.assertNotIn("Owner", self.listed()[2]["Contents"][0])
        token = self.listed(MaxKeys=1)[2]["NextContinuationToken"]
        self.assertEqual(self.listed(ContinuationToken=token, StartAfter="b")[0], ["b", "c"])

    def test_arguments_are_checked(self):
        self.assertEqual(self.listed(MaxKeys=0)[2]["KeyCount"], 0)
        self.assertEqual(self.listed(MaxKeys=5000)[2]["MaxKeys"], 1000)
        for query in ({"max-keys": "-1"}, {"max-keys": "x"}, {"continuation-token": "x"}, {"encoding-type": "x"}):
            answer = self.raw("GET", "", {"list-type": "2", **query}).send()
            self.assertRefused(answer, 400, "InvalidArgument")

    def test_names_are_encoded_when_asked(self):
        self.fill(["a b/+c&d\u0001"])
        answer = self.raw("GET", "", {"list-type": "2", "encoding-type": "url", "prefix": "a b"}).send()
        self.assertIn(b"<Key>a%20b/%2Bc%26d%01</Key>", answer.body)
        self.assertIn(b"<Prefix>a%20b</Prefix>", answer.body)

    def test_writes_are_seen_at_once(self):
        self.put("k", b"1")
        self.assertEqual(self.keys(), ["k"])
        self.put("k", b"22")
        page = self.listed()[2]
        self.assertEqual([entry["Size"] for entry in page["Contents"]], [2])
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertEqual(self.keys(), [])


    def test_the_first_version_encodes_names_and_heeds_prefixes(self):
        self.fill(["a b/+1", "a b/+2", "c"])
        answer = self.raw("GET", "", {"encoding-type": "url", "prefix": "a b", "delimiter": "+", "marker": "a"}).send()
        for part in (b"<Prefix>a%20b</Prefix>", b"<Delimiter>%2B</Delimiter>", b"<CommonPrefixes><Prefix>a%20b/%2B</Prefix>", b"<Marker>a</Marker>"):
            self.assertIn(part, answer.body)

    def test_of_many_keys_below_a_prefix_none_is_read(self):
        # More than a page of a scan has, below each of few prefixes: what is skipped by a seek costs nothing.
        self.fill([f"{prefix}/{number}" for prefix in "abc" for number in range(30)])
        self.assertEqual(self.listed(Delimiter="/", MaxKeys=3)[:2], ([], ["a/", "b/", "c/"]))
        self.assertEqual(self.listed(Delimiter="/", StartAfter="a/zzz")[1], ["b/", "c/"])


class Versions(Suite):
    def set(self, status):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})

    def listed(self, **more):
        page = self.s3.list_object_versions(Bucket=self.bucket, **more)
        entries = [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in page.get("Versions", [])]
        markers = [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in page.get("DeleteMarkers", [])]
        return entries, markers, page

    def test_a_bucket_has_three_states_and_never_goes_back_to_the_first(self):
        self.assertNotIn("Status", self.s3.get_bucket_versioning(Bucket=self.bucket))
        for status in ("Enabled", "Suspended", "Enabled"):
            self.set(status)
            self.assertEqual(self.s3.get_bucket_versioning(Bucket=self.bucket)["Status"], status)
        body = b"<VersioningConfiguration><Status>Off</Status></VersioningConfiguration>"
        self.assertRefused(self.raw("PUT", "", {"versioning": ""}, body=body).send(), 400, "MalformedXML")

    def test_each_write_makes_a_version_and_a_delete_makes_a_marker(self):
        self.set("Enabled")
        first = self.put("k", b"1")["VersionId"]
        second = self.put("k", b"2")["VersionId"]
        self.assertNotEqual(first, second)
        answer = self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertTrue(answer["DeleteMarker"])
        marker = answer["VersionId"]
        self.assertEqual(self.listed()[:2], ([("k", second, False), ("k", first, False)], [("k", marker, True)]))
        self.assertEqual((self.body("k", VersionId=first), self.body("k", VersionId=second)), (b"1", b"2"))
        answer = self.raw("GET", "k").send()
        self.assertEqual((answer.status, answer.headers["x-amz-delete-marker"]), (404, "true"))
        answer = self.raw("GET", "k", {"versionId": marker}).send()
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "DELETE"))
        answer = self.s3.delete_object(Bucket=self.bucket, Key="k", VersionId=marker)
        self.assertTrue(answer["DeleteMarker"])
        self.assertEqual(self.body("k"), b"2")

    def test_deleting_the_newest_brings_back_the_one_before(self):
        self.set("Enabled")
        first = self.put("k", b"1")["VersionId"]
        second = self.put("k", b"2")["VersionId"]
        self.s3.delete_object(Bucket=self.bucket, Key="k", VersionId=second)
        self.assertEqual((self.body("k"), self.listed()[0]), (b"1", [("k", first, True)]))

    def test_a_suspended_bucket_replaces_the_version_null(self):
        self.put("k", b"0")
        self.set("Enabled")
        first = self.put("k", b"1")["VersionId"]
        self.set("Suspended")
        self.assertEqual(self.put("k", b"2")["VersionId"], "null")
        self.put("k", b"3")
        self.assertEqual(self.listed()[0], [("k", "null", True), ("k", first, False)])
        answer = self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertEqual(answer["VersionId"], "null")
        self.assertEqual(self.listed()[:2], ([("k", first, False)], [("k", "null", True)]))

    def test_a_bucket_without_versions_keeps_none(self):
        self.put("k", b"1")
        answer = self.put("k", b"2")
        self.assertNotIn("VersionId", answer)
        self.assertEqual(self.listed()[0], [("k", "null", True)])
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.assertEqual(self.listed()[:2], ([], []))

    def test_ids_that_are_none_and_ids_that_are_not_there(self):
        self.set("Enabled")
        self.put("k", b"1")
        with self.refused("InvalidArgument", 400):
            self.get("k", VersionId="nonsense")
        with self.refused("NoSuchVersion", 404):
            self.get("k", VersionId="0" * 40)
        with self.refused("NoSuchVersion", 404):
            self.get("k", VersionId="null")

    def test_a_version_is_named_by_its_id_everywhere(self):
        self.set("Enabled")
        first = self.put("k", b"1", Tagging="n=1", ChecksumAlgorithm="SHA256")["VersionId"]
        self.put("k", b"22", Tagging="n=2")
        of = {"Bucket": self.bucket, "Key": "k", "VersionId": first}
        self.assertEqual((self.head("k", VersionId=first)["ContentLength"], self.body("k", VersionId=first)), (1, b"1"))
        self.assertEqual(self.s3.get_object_tagging(**of)["TagSet"], [{"Key": "n", "Value": "1"}])
        self.assertEqual(self.s3.get_object_attributes(**of, ObjectAttributes=["ObjectSize"])["ObjectSize"], 1)
        self.s3.delete_object_tagging(**of)
        self.assertEqual(self.s3.get_object_tagging(**of)["TagSet"], [])
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": "k", "VersionId": first}]})
        self.assertEqual(answer["Deleted"][0]["VersionId"], first)
        self.assertEqual(self.body("k"), b"22")
        self.assertEqual(len(self.listed()[0]), 1)

    def test_ids_are_not_to_be_guessed_and_in_the_order_of_time(self):
        self.set("Enabled")
        ids = [self.put("k", str(number).encode())["VersionId"] for number in range(10)]
        self.assertEqual(len(set(ids)), 10)
        self.assertEqual([entry[1] for entry in self.listed()[0]], ids[::-1])
        # What two of them share is not all but a counter.
        self.assertTrue(all(sum(a != b for a, b in zip(one, next_)) >= 8 for one, next_ in zip(ids, ids[1:])), ids)

    def test_names_of_versions_are_encoded_when_asked(self):
        self.set("Enabled")
        self.put("a b+")
        answer = self.raw("GET", "", {"versions": "", "encoding-type": "url", "prefix": "a "}).send()
        self.assertIn(b"<Key>a%20b%2B</Key>", answer.body)
        self.assertIn(b"<Prefix>a%20</Prefix>", answer.body)

    def test_markers_are_between_the_versions_they_came_between(self):
        self.set("Enabled")
        self.put("k", b"1")
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        self.put("k", b"2")
        self.s3.delete_object(Bucket=self.bucket, Key="k")
        text = self.raw("GET", "", {"versions": ""}).send().body.decode()
        kinds = [piece.split(">")[0] for piece in text.split("<")]
        self.assertEqual([kind for kind in kinds if kind in ("Version", "DeleteMarker")], ["DeleteMarker", "Version"] * 2)

    def test_pages_of_versions(self):
        self.set("Enabled")
        for key in ("a", "b/1", "b/2", "c"):
            for _ in range(3):
                self.put(key)
        self.s3.delete_object(Bucket=self.bucket, Key="a")
        whole = self.listed()
        self.assertEqual((len(whole[0]), len(whole[1])), (12, 1))
        for size in (1, 2, 5):
            entries, markers, place = [], [], {}
            while True:
                more_entries, more_markers, page = self.listed(MaxKeys=size, **place)
                entries += more_entries
                markers += more_markers
                if not page["IsTruncated"]:
                    break
                place = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
            self.assertEqual((entries, markers), whole[:2], size)
        page = self.listed(Delimiter="/")[2]
        self.assertEqual([entry["Prefix"] for entry in page["CommonPrefixes"]], ["b/"])
        answer = self.raw("GET", "", {"versions": "", "version-id-marker": "null"}).send()
        self.assertRefused(answer, 400, "InvalidArgument")


if __name__ == "__main__":
    unittest.main(verbosity=2)
