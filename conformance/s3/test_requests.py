"""Rules for every request (s3-surface, section 1)."""

import base64
import contextlib
import datetime
import hashlib
import io
import unittest
import urllib.parse
import urllib.request

import door
from door import Signed, Suite, client, crc32, host, presigned, send


class Addressing(Suite):
    def test_path_style_is_always_served(self):
        self.put("k", b"1")
        self.assertEqual(self.raw("GET", "k").send().body, b"1")

    def test_a_host_under_a_base_domain_is_a_bucket(self):
        self.put("a/b", b"1")
        for name in (f"{self.bucket}.s3.test", f"{self.bucket}.s3.test:1234", f"{self.bucket}.us-east-1.s3.test"):
            self.assertEqual(Signed("GET", "/a/b", headers={"host": name}).send().body, b"1", name)

    def test_any_other_host_is_path_style(self):
        self.put("k", b"1")
        for name in ("s3.test", f"{self.bucket}.example.net", "10.0.0.1", "us-east-1.s3.test"):
            answer = Signed("GET", f"/{self.bucket}/k", headers={"host": name}).send()
            self.assertEqual(answer.body, b"1", name)

    def test_bucket_names_follow_the_rules(self):
        for name in ("ab", "a" * 64, "Abc", "a_b", "-ab", "ab-", "a..b", "a.-b", "a-.b", "1.2.3.4", "xn--abc", "ab-s3alias"):
            self.assertRefused(Signed("PUT", f"/{name}").send(), 400, "InvalidBucketName")

    def test_keys_are_opaque(self):
        keys = ["a", "a/", "a/b", "a//b", "./a", "../a", "/a", "ä\u0001 +%", "a/../b"]
        for key in keys:
            self.assertEqual(self.raw("PUT", key, body=key.encode()).send().status, 200, key)
        for key in keys:
            self.assertEqual(self.raw("GET", key).send().body, key.encode(), key)
        listed = [urllib.parse.unquote(key) for key in self.keys(EncodingType="url")]
        self.assertEqual(sorted(listed), sorted(keys))

    def test_keys_have_1_to_1024_bytes(self):
        self.put("é" * 512)
        with self.refused("KeyTooLongError", 400):
            self.put("é" * 512 + "a")


class Signatures(Suite):
    def test_an_unknown_key_is_told(self):
        with self.refused("InvalidAccessKeyId", 403):
            client(key="AKIANOTTHERE").list_buckets()

    def test_a_wrong_secret_does_not_match(self):
        with self.refused("SignatureDoesNotMatch", 403):
            client(secret="wrong").list_buckets()

    def test_the_region_is_part_of_the_scope(self):
        asked = self.raw("GET")
        asked.region = "eu-west-1"
        answer = asked.send()
        self.assertRefused(answer, 400, "AuthorizationHeaderMalformed")
        self.assertIn(b"<Region>us-east-1</Region>", answer.body)

    def test_clocks_may_be_a_quarter_of_an_hour_apart(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        for minutes, expected in ((14, None), (-14, None), (16, "RequestTimeTooSkewed"), (-16, "RequestTimeTooSkewed")):
            answer = self.raw("GET", when=now + datetime.timedelta(minutes=minutes)).send()
            self.assertEqual(answer.code, expected, minutes)

    def test_every_amz_header_has_to_be_signed(self):
        asked = self.raw("PUT", "k")
        asked.unsigned["x-amz-meta-a"] = "1"
        self.assertRefused(asked.send(), 403, "AccessDenied")

    def test_version_2_is_refused(self):
        answer = send("GET", "/" + self.bucket, {"host": host(), "authorization": f"AWS {door.KEY}:abc="})
        self.assertRefused(answer, 400, "InvalidRequest")
        answer = send("GET", f"/{self.bucket}?AWSAccessKeyId={door.KEY}&Signature=a&Expires=1", {"host": host()})
        self.assertRefused(answer, 400, "InvalidRequest")

    def test_who_is_not_known_may_nothing(self):
        for method, path in (("GET", "/"), ("GET", f"/{self.bucket}"), ("PUT", f"/{self.bucket}/k"), ("DELETE", f"/{self.bucket}")):
            self.assertRefused(send(method, path, {"host": host()}), 403, "AccessDenied")
        self.assertEqual(self.keys(), [])

    def test_a_refused_request_is_told_before_its_body_is_asked_for(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        asked.secret = "wrong"
        headers = {**asked.headers(), "expect": "100-continue", "content-length": "1000000000"}
        answer = send("PUT", asked.path, headers)
        self.assertRefused(answer, 403, "SignatureDoesNotMatch")


    def test_who_waits_for_100_continue_and_sends_nothing_gets_another_connection(self):
        answer = self.raw("PUT", "k", headers={"expect": "100-continue"}).send()
        self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))


class PresignedLinks(Suite):
    def test_a_link_of_boto3_reads_and_writes(self):
        where = {"Bucket": self.bucket, "Key": "a b/ü"}
        link = self.s3.generate_presigned_url("put_object", Params=where)
        asked = urllib.request.Request(link, data=b"hello", method="PUT")
        urllib.request.urlopen(asked).read()
        link = self.s3.generate_presigned_url("get_object", Params={**where, "ResponseContentType": "text/x"})
        with urllib.request.urlopen(link) as answer:
            self.assertEqual((answer.read(), answer.headers["content-type"]), (b"hello", "text/x"))

    def link(self, **more):
        return send("GET", presigned("GET", f"/{self.bucket}/k", **more), {"host": host()})

    def test_a_link_expires(self):
        self.put("k", b"1")
        self.assertEqual(self.link().status, 200)
        ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=100)
        answer = self.link(when=ago, expires=60)
        self.assertRefused(answer, 403, "AccessDenied")
        self.assertIn(b"Request has expired", answer.body)
        self.assertEqual(self.link(when=ago, expires=600).status, 200)

    def test_a_link_is_for_1_second_to_a_week_and_from_now_on(self):
        for expires in (0, 604801, -1, "x"):
            self.assertRefused(self.link(expires=expires), 400, "AuthorizationQueryParametersError")
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=16)
        self.assertEqual(self.link(when=later).status, 403)

    def test_header_and_query_together_are_refused(self):
        asked = self.raw("GET", "k")
        answer = send("GET", presigned("GET", f"/{self.bucket}/k"), asked.headers())
        self.assertRefused(answer, 400, "InvalidArgument")

    def test_overrides_need_a_signature(self):
        answer = send("GET", f"/{self.bucket}/k?response-content-type=text%2Fhtml", {"host": host()})
        self.assertRefused(answer, 400, "InvalidRequest")


class Payloads(Suite):
    data = b"0123456789abcdef" * 4096

    def test_the_body_hashes_to_what_was_signed(self):
        other = hashlib.sha256(b"other").hexdigest()
        self.assertRefused(self.raw("PUT", "k", body=b"1", payload=other).send(), 400, "XAmzContentSHA256Mismatch")
        self.assertEqual(self.keys(), [])

    def test_other_words_are_refused(self):
        self.assertRefused(self.raw("PUT", "k", payload="NONSENSE").send(), 400, "InvalidArgument")
        answer = self.raw("PUT", "k", payload="STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD").send()
        self.assertRefused(answer, 501, "NotImplemented")
        asked = self.raw("PUT", "k")
        del asked.own["x-amz-content-sha256"]
        headers = {**asked.own, "authorization": f"AWS4-HMAC-SHA256 Credential={door.KEY}/{asked.scope},SignedHeaders=host;x-amz-date,Signature=00"}
        self.assertRefused(send("PUT", asked.path, headers), 400, "InvalidRequest")

    def streamed(self, payload, trailer=None, len_=None):
        headers = {"x-amz-decoded-content-length": str(len(self.data) if len_ is None else len_), "content-encoding": "aws-chunked,gzip"}
        if trailer:
            headers["x-amz-trailer"] = trailer
        return self.raw("PUT", "k", headers=headers, payload=payload)

    def pieces(self, step=8192):
        return [self.data[at : at + step] for at in range(0, len(self.data), step)]

    def test_signed_chunks_are_taken_and_the_coding_is_not_kept(self):
        asked = self.streamed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        asked.body = asked.chunks(self.pieces())
        self.assertEqual(asked.send().status, 200)
        self.assertEqual((self.body("k"), self.head("k")["ContentEncoding"]), (self.data, "gzip"))

    def test_signed_chunks_with_a_trailer_are_taken(self):
        asked = self.streamed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "x-amz-checksum-crc32")
        asked.body = asked.chunks(self.pieces(), ("x-amz-checksum-crc32", crc32(self.data)))
        answer = asked.send()
        self.assertEqual((answer.status, answer.headers["x-amz-checksum-crc32"]), (200, crc32(self.data)))

    def unsigned(self, value=None, announced="x-amz-checksum-crc32", end=b"\r\n"):
        asked = self.streamed("STREAMING-UNSIGNED-PAYLOAD-TRAILER", announced)
        body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in self.pieces())
        asked.body = body + f"0\r\nx-amz-checksum-crc32:{value or crc32(self.data)}\r\n".encode() + end
        return asked

    def test_unsigned_chunks_with_a_trailer_are_taken(self):
        self.assertEqual(self.unsigned().send().status, 200)
        self.assertEqual(self.body("k"), self.data)

    def test_a_stream_that_stops_early_is_incomplete(self):
        for payload in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "unsigned"):
            for cut in (1, 100, 5000, 8192 + 87, 20000, len(self.data) - 100):
                asked = self.unsigned() if payload == "unsigned" else self.streamed(payload)
                if payload != "unsigned":
                    asked.body = asked.chunks(self.pieces())
                asked.body = asked.body[:cut]
                self.assertRefused(asked.send(), 400, "IncompleteBody")
        # All chunks but the last one, of no bytes.
        asked = self.streamed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        body = asked.chunks(self.pieces())
        asked.body = body[: body.rindex(b"0;chunk-signature")]
        self.assertRefused(asked.send(), 400, "IncompleteBody")
        self.assertEqual(self.keys(), [])

    def test_a_changed_chunk_is_refused(self):
        asked = self.streamed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        body = bytearray(asked.chunks(self.pieces()))
        body[30000] ^= 1
        asked.body = bytes(body)
        self.assertRefused(asked.send(), 403, "SignatureDoesNotMatch")
        self.assertEqual(self.keys(), [])

    def test_chunks_are_not_tiny(self):
        asked = self.streamed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        asked.body = asked.chunks(self.pieces(4096))
        self.assertRefused(asked.send(), 400, "InvalidChunkSizeError")

    def test_the_announced_length_is_met(self):
        asked = self.streamed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", len_=5)
        asked.body = asked.chunks(self.pieces())
        self.assertRefused(asked.send(), 400, "IncompleteBody")
        asked = self.raw("PUT", "k", payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD", body=b"x")
        self.assertRefused(asked.send(), 411, "MissingContentLength")

    def test_trailers_are_those_announced_and_right(self):
        self.assertRefused(self.unsigned(announced="x-amz-checksum-sha1").send(), 400, "MalformedTrailerError")
        self.assertRefused(self.unsigned(value="AAAAAA==").send(), 400, "BadDigest")
        self.assertEqual(self.keys(), [])

    def test_a_body_has_a_length(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        headers = {**asked.headers(), "transfer-encoding": "chunked"}
        self.assertRefused(send("PUT", asked.path, headers, b"1\r\na\r\n0\r\n\r\n"), 411, "MissingContentLength")

    def test_a_body_over_5_gib_is_refused_unread(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        answer = send("PUT", asked.path, {**asked.headers(), "content-length": str((5 << 30) + 1)})
        self.assertRefused(answer, 400, "EntityTooLarge")

    def test_a_document_over_2_mib_is_refused(self):
        asked = self.raw("PUT", "", {"versioning": ""}, body=b" " * ((2 << 20) + 1))
        self.assertRefused(asked.send(), 400, "MalformedXML")

    def test_content_md5_is_held_to(self):
        md5 = lambda data: base64.b64encode(hashlib.md5(data).digest()).decode()
        send = lambda value: self.raw("PUT", "k", body=b"1", headers={"content-md5": value}).send()
        self.assertEqual(send(md5(b"1")).status, 200)
        self.assertRefused(send(md5(b"2")), 400, "BadDigest")
        self.assertRefused(send("x"), 400, "InvalidDigest")

    def test_a_connection_that_breaks_leaves_nothing(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        with contextlib.closing(door.connection()) as way:
            way.putrequest("PUT", asked.path, skip_host=True)
            for name, value in {**asked.headers(), "content-length": "1000000"}.items():
                way.putheader(name, value)
            way.endheaders()
            way.send(b"x" * 500000)
        self.assertEqual(self.keys(), [])


class Boto3(Suite):
    """Each way in which boto3 sends bodies; over TLS it chooses others."""

    data = bytes(range(256)) * 1024

    def modes(self):
        for when in ("when_supported", "when_required"):
            for signing in (True, False, None):
                s3 = {"addressing_style": "path"}
                if signing is not None:
                    s3["payload_signing_enabled"] = signing
                yield client(request_checksum_calculation=when, response_checksum_validation=when, s3=s3)

    def test_every_payload_mode_is_taken(self):
        where = {"Bucket": self.bucket, "Key": "k"}
        for s3 in self.modes():
            for more in ({}, {"ChecksumAlgorithm": "CRC32"}, {"ChecksumAlgorithm": "SHA1"}, {"ChecksumAlgorithm": "SHA256"}, {"ContentMD5": base64.b64encode(hashlib.md5(self.data).digest()).decode()}):
                for body in (self.data, b"", io.BytesIO(self.data)):
                    if body != self.data and "ContentMD5" in more and not isinstance(body, io.BytesIO):
                        continue
                    s3.put_object(**where, Body=body, **more)
                    expected = self.data if body != b"" else b""
                    self.assertTrue(s3.get_object(**where, ChecksumMode="ENABLED")["Body"].read() == expected)
            upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
            etag = s3.upload_part(**upload, PartNumber=1, Body=self.data)["ETag"]
            s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
            self.assertTrue(s3.get_object(**where)["Body"].read() == self.data)
            s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": "k"}]})

    def test_a_wrong_check_sum_is_refused_in_every_mode(self):
        for s3 in self.modes():
            with self.refused("BadDigest", 400):
                s3.put_object(Bucket=self.bucket, Key="k", Body=self.data, ChecksumSHA256=base64.b64encode(hashlib.sha256(b"other").digest()).decode())
        self.assertEqual(self.keys(), [])


class Metadata(Suite):
    def test_headers_come_back_as_sent(self):
        sent = {
            "content-type": "text/x; a=b",
            "content-encoding": "gzip",
            "content-language": "de",
            "content-disposition": 'attachment; filename="a"',
            "cache-control": "max-age=1",
            "expires": "whenever",
            "x-amz-website-redirect-location": "/x",
            "x-amz-meta-Some-Name": "value",
        }
        self.raw("PUT", "k", headers=sent).send()
        for method in ("GET", "HEAD"):
            answer = self.raw(method, "k").send()
            for name, value in sent.items():
                self.assertEqual(answer.headers[name.lower()], value, name)
        self.put("plain")
        self.assertEqual(self.head("plain")["ContentType"], "binary/octet-stream")

    def test_metadata_are_bounded(self):
        self.put("k", Metadata={"a": "x" * 2047})
        with self.refused("MetadataTooLarge", 400):
            self.put("k", Metadata={"a": "x" * 2048})
        answer = self.raw("PUT", "k", headers={"cookie": "x" * (16 << 10)}).send()
        self.assertEqual(answer.status, 400)

    def test_repeated_names_are_joined_and_beyond_ascii_is_encoded(self):
        asked = self.raw("PUT", "k")
        asked.own["x-amz-meta-a"] = "1,2"
        headers = list(asked.headers().items())
        with contextlib.closing(door.connection()) as way:
            way.putrequest("PUT", asked.path, skip_host=True)
            for name, value in headers:
                for value in value.split(",") if name == "x-amz-meta-a" else [value]:
                    way.putheader(name, value)
            way.putheader("content-length", "0")
            way.endheaders()
            self.assertEqual(door.Answer(way.getresponse()).status, 200)
        self.assertEqual(self.head("k")["Metadata"], {"a": "1,2"})
        asked = self.raw("PUT", "k", headers={"x-amz-meta-a": "ü"})
        headers = {name: value.encode() for name, value in asked.headers().items()}
        self.assertEqual(send("PUT", asked.path, headers).status, 200)
        self.assertEqual(self.raw("HEAD", "k").send().headers["x-amz-meta-a"], "=?UTF-8?B?w7w=?=")

    def test_another_owner_was_expected(self):
        self.put("k", b"1")
        owner = self.s3.list_buckets()["Owner"]["ID"]
        self.assertEqual(self.body("k", ExpectedBucketOwner=owner), b"1")
        with self.refused("AccessDenied", 403):
            self.get("k", ExpectedBucketOwner="123456789012")


class Errors(Suite):
    def test_an_error_is_a_document_with_ids(self):
        answer = self.raw("GET", "not there").send()
        self.assertRefused(answer, 404, "NoSuchKey")
        text = answer.body.decode()
        for part in (
            "<Message>The specified key does not exist.</Message>",
            f"<Resource>/{self.bucket}/not%20there</Resource>",
            f"<RequestId>{answer.headers['x-amz-request-id']}</RequestId>",
            f"<HostId>{answer.headers['x-amz-id-2']}</HostId>",
        ):
            self.assertIn(part, text)

    def test_head_has_no_body(self):
        answer = self.raw("HEAD", "not there").send()
        self.assertEqual((answer.status, answer.body), (404, b""))

    def test_an_absent_bucket_comes_before_the_key(self):
        answer = Signed("GET", "/not-there-at-all/" + "k" * 2000).send()
        self.assertRefused(answer, 404, "NoSuchBucket")

    def test_what_is_not_served_is_501_and_does_nothing(self):
        for sub_resource in ("notification", "policy", "lifecycle", "cors", "website", "anything", "versioning"):
            self.assertRefused(self.raw("DELETE", "", {sub_resource: ""}).send(), 501, "NotImplemented")
        self.put("k", b"1")
        for sub_resource in ("retention", "legal-hold", "acl", "anything"):
            self.assertRefused(self.raw("DELETE", "k", {sub_resource: ""}).send(), 501, "NotImplemented")
            self.assertRefused(self.raw("PUT", "k", {sub_resource: ""}, body=b"2").send(), 501, "NotImplemented")
        self.assertEqual(self.body("k"), b"1")
        form = {"content-type": "multipart/form-data; boundary=x"}
        self.assertRefused(self.raw("POST", "", headers=form, body=b"--x--").send(), 501, "NotImplemented")

    def test_what_asks_to_be_sealed_is_not_stored(self):
        with self.refused("NotImplemented", 501):
            self.put("k", b"1", ServerSideEncryption="AES256")
        self.assertEqual(self.keys(), [])

    def test_what_was_uploaded_can_do_nothing_on_our_origin(self):
        self.put("k", b"<script>", ContentType="text/html")
        answer = self.raw("GET", "k").send()
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        self.assertEqual(answer.headers["content-security-policy"], "sandbox")


if __name__ == "__main__":
    unittest.main(verbosity=2)
