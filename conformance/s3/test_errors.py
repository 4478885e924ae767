"""Every error that a client can provoke, with the code, status and text of the server's one table.

`ROWS` has a request for each row of the table in `gateway/src/s3/error.rs`; `ELSEWHERE` names those that no request alone provokes, and where
they are shown. A row that is in neither fails a test, and so does an answer that is not, word for word, its row.
"""

import base64
import datetime
import hashlib
import pathlib
import re
import unittest

import door
from door import EMPTY, Signed, Suite, crc32, host, presigned, send

TABLE = pathlib.Path(__file__).resolve().parents[2] / "gateway/src/s3/error.rs"

ELSEWHERE = {
    "BucketAlreadyExists": "wants a second owner: gateway/src/s3/ops/bucket.rs",
    "CopyTooLarge": "wants more than 5 GiB",
    "InternalError": "is our fault: gateway/src/pool.rs",
    "OperationAborted": "wants a race that is lost again and again: test_races.py",
    "ConditionalRequestConflict": "as that",
    "QuotaExceeded": "wants a quota: index/src/names/tests.rs",
    "RequestTimeout": "wants a slow client: test_hostile.py",
    "SlowDown": "wants load: conformance/tests/s3/bounds.rs",
    "StorageFull": "wants a full disk: index/src/small_disk.rs",
}


def table():
    """Row's name to status, code and message."""
    text = TABLE.read_text()
    text = text[text.index("codes! {") : text.index("\n}\n", text.index("codes! {"))]
    rows = re.findall(r'^    (\w+) (\d+) "(\w+)" "((?:[^"\\]|\\.)*)";$', text, re.MULTILINE)
    return {name: (int(status), code, message) for name, status, code, message in rows}


def ago(seconds):
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)


def md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


class Errors(Suite):
    def setUp(self):
        super().setUp()
        self.put("k", b"hello")

    def ask(self, method, key="k", query=None, body=b"", **more):
        return self.raw(method, key, query, body=body, **more).send()

    def put_with(self, key="k", body=b"1", **headers):
        return self.ask("PUT", key, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def begin(self, **headers):
        return self.ask("POST", "k", {"uploads": ""}, headers=headers)

    def upload(self, **more):
        return self.s3.create_multipart_upload(Bucket=self.bucket, Key="k", **more)["UploadId"]

    def linked(self, key="k", query=None, **more):
        return send("GET", presigned("GET", f"/{self.bucket}/{key}", query, **more), {"host": host()})

    def document(self, query, body, **headers):
        return self.ask("PUT", "k" if query == "tagging" else "", {query: ""}, body, headers=headers)

    def delete(self, body):
        return self.ask("POST", "", {"delete": ""}, body, headers={"content-md5": md5(body)})

    def complete(self, parts, upload=None, etag=None, **headers):
        """Parts: numbers and contents that are sent before."""
        upload = upload or self.upload()
        text = ""
        for number, data in parts:
            where = {"Bucket": self.bucket, "Key": "k", "UploadId": upload}
            sent = self.s3.upload_part(**where, PartNumber=number, Body=data)["ETag"]
            text += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag or sent}</ETag></Part>"
        body = f"<CompleteMultipartUpload>{text}</CompleteMultipartUpload>".encode()
        return self.ask("POST", "k", {"uploadId": upload}, body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def copied(self, source=None, key="copy", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("PUT", key, headers={"x-amz-copy-source": source or f"{self.bucket}/k", **headers})

    def copied_part(self, range_):
        headers = {"x-amz-copy-source": f"{self.bucket}/k", "x-amz-copy-source-range": range_}
        return self.ask("PUT", "k", {"partNumber": "1", "uploadId": self.upload()}, headers=headers)

    def streamed(self, body, len_, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER", **headers):
        asked = self.raw("PUT", "k", payload=payload, headers={"x-amz-decoded-content-length": str(len_), **headers})
        asked.body = body(asked) if callable(body) else body
        return asked.send()

    def signed_chunks(self, len_, step):
        pieces = [b"x" * min(step, len_ - at) for at in range(0, len_, step)]
        return self.streamed(lambda asked: asked.chunks(pieces), len_, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")

    def versions(self, status="Enabled"):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})

    def marker(self):
        self.versions()
        return self.s3.delete_object(Bucket=self.bucket, Key="k")["VersionId"]

    def signed_oddly(self, **change):
        asked = self.raw("GET")
        headers = asked.headers()
        for name, value in change.items():
            name = name.replace("_", "-")
            headers.pop(name)
            if value is not None:
                headers[name] = value
        return send("GET", asked.path, headers)

    def locked(self):
        name = self.bucket + "l"
        self.s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        body = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
        return Signed("PUT", "/" + name, {"versioning": ""}, body=body).send()

    def wrong_secret(self):
        asked = self.raw("GET")
        asked.secret = "wrong"
        return asked.send()

    def wrong_key(self):
        asked = self.raw("GET")
        asked.key = "AKIANOTTHERE"
        return asked.send()

    def wrong_region(self):
        asked = self.raw("GET")
        asked.region = "eu-west-1"
        return asked.send()

    def unsigned_header(self):
        asked = self.raw("PUT", "k")
        asked.unsigned["x-amz-meta-a"] = "1"
        return asked.send()

    def too_large(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        return send("PUT", asked.path, {**asked.headers(), "content-length": str((5 << 30) + 1)})

    def without_length(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        return send("PUT", asked.path, {**asked.headers(), "transfer-encoding": "chunked"}, b"0\r\n\r\n")

    def without_payload(self):
        asked = self.raw("GET")
        asked.own.pop("x-amz-content-sha256")
        authorization = f"AWS4-HMAC-SHA256 Credential={door.KEY}/{asked.scope},SignedHeaders=host;x-amz-date,Signature={'0' * 64}"
        return send("GET", asked.path, {**asked.own, "authorization": authorization})

    def link_without_date(self):
        link = re.sub(r"X-Amz-Date=[^&]*&", "", presigned("GET", f"/{self.bucket}/k"))
        return send("GET", link, {"host": host()})

    def tags(self, *pairs):
        tags = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
        return self.document("tagging", f"<Tagging><TagSet>{tags}</TagSet></Tagging>".encode())

    def of_other_algorithm(self):
        where = {"partNumber": "1", "uploadId": self.upload(ChecksumAlgorithm="SHA256")}
        return self.ask("PUT", "k", where, b"1", headers={"x-amz-checksum-crc32": crc32(b"1")})

    def bad_order(self):
        upload = self.upload()
        etags = [self.s3.upload_part(Bucket=self.bucket, Key="k", UploadId=upload, PartNumber=number, Body=b"1")["ETag"] for number in (1, 2)]
        text = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etags[number - 1]}</ETag></Part>" for number in (2, 1))
        body = f"<CompleteMultipartUpload>{text}</CompleteMultipartUpload>".encode()
        return self.ask("POST", "k", {"uploadId": upload}, body)

    def broken_archive(self):
        bucket = f"{self.bucket}-browsed"
        Signed("PUT", f"/{bucket}", headers={"x-cairn-browse": "true"}).send()
        Signed("PUT", f"/{bucket}/t.catar", body=b"this is none" * 100).send()
        return Signed("GET", f"/{bucket}/t.catar/x").send()

    ROWS = {
        "AccessDenied": lambda t: send("GET", "/", {"host": host()}),
        "RequestExpired": lambda t: t.linked(when=ago(100), expires=60),
        "NotYetValid": lambda t: t.linked(when=ago(-1000)),
        "HeadersNotSigned": lambda t: t.unsigned_header(),
        "DateMissing": lambda t: t.signed_oddly(x_amz_date=None),
        "ArchiveUnreadable": lambda t: t.broken_archive(),
        "AuthorizationHeaderMalformed": lambda t: t.wrong_region(),
        "AuthorizationQueryParametersError": lambda t: t.link_without_date(),
        "ExpiresNotANumber": lambda t: t.linked(expires="x"),
        "ExpiresTooSmall": lambda t: t.linked(expires=0),
        "ExpiresTooLarge": lambda t: t.linked(expires=604801),
        "BadDigest": lambda t: t.put_with(content_md5=md5(b"2")),
        "BadChecksum": lambda t: t.put_with(x_amz_checksum_crc32=crc32(b"2")),
        "BadRequestTags": lambda t: t.tags(*((str(number), "") for number in range(11))),
        "BucketAlreadyOwnedByYou": lambda t: t.ask("PUT", ""),
        "BucketNotEmpty": lambda t: t.ask("DELETE", ""),
        "EntityTooLarge": lambda t: t.too_large(),
        "EntityTooSmall": lambda t: t.complete([(1, b"1"), (2, b"2")]),
        "HeadersTooLarge": lambda t: t.put_with(cookie="x" * (16 << 10)),
        "IllegalVersioningConfiguration": lambda t: t.document("versioning", b"<VersioningConfiguration></VersioningConfiguration>"),
        "IncompleteBody": lambda t: t.streamed(b"5\r\nhello\r\n", 5),
        "InvalidAccessKeyId": lambda t: t.wrong_key(),
        "InvalidArgument": lambda t: Signed("GET", "/", {"max-buckets": "0"}).send(),
        "OneAuthMechanism": lambda t: send("GET", presigned("GET", f"/{t.bucket}/k"), t.raw("GET", "k").headers()),
        "UnsupportedAuthorization": lambda t: send("GET", f"/{t.bucket}", {"host": host(), "authorization": "Basic eDp5"}),
        "ContentSha256Invalid": lambda t: t.ask("PUT", payload="NONSENSE"),
        "PartNumberInvalid": lambda t: t.ask("PUT", "k", {"partNumber": "0", "uploadId": t.upload()}),
        "ContinuationTokenInvalid": lambda t: t.ask("GET", "", {"list-type": "2", "continuation-token": "x"}),
        "EncodingMethodInvalid": lambda t: t.ask("GET", "", {"list-type": "2", "encoding-type": "x"}),
        "MaxKeysInvalid": lambda t: t.ask("GET", "", {"list-type": "2", "max-keys": "-1"}),
        "VersionIdInvalid": lambda t: t.ask("GET", "k", {"versionId": "x"}),
        "VersionIdEmpty": lambda t: t.ask("GET", "k", {"versionId": ""}),
        "VersionMarkerAlone": lambda t: t.ask("GET", "", {"versions": "", "version-id-marker": "null"}),
        "CopySourceInvalid": lambda t: t.copied("nonsense"),
        "CopySourceRangeInvalid": lambda t: t.copied_part("0-1"),
        "CopySourceRangeOutside": lambda t: t.copied_part("bytes=0-5"),
        "MetadataDirectiveInvalid": lambda t: t.copied(x_amz_metadata_directive="X"),
        "TaggingDirectiveInvalid": lambda t: t.copied(x_amz_tagging_directive="X"),
        "TaggingHeaderInvalid": lambda t: t.put_with(x_amz_tagging="a=1&a=2"),
        "AttributesInvalid": lambda t: t.ask("GET", "k", {"attributes": ""}, headers={"x-amz-object-attributes": "Size"}),
        "AclInvalid": lambda t: t.put_with(x_amz_acl="nonsense"),
        "InvalidBucketName": lambda t: Signed("PUT", "/Abc").send(),
        "InvalidBucketState": lambda t: t.locked(),
        "InvalidChunkSize": lambda t: t.signed_chunks(8192, 4096),
        "ChunkTooLarge": lambda t: t.streamed(f"{17 << 20:x};chunk-signature={'0' * 64}\r\n".encode(), 17 << 20, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        "InvalidDigest": lambda t: t.put_with(content_md5="x"),
        "InvalidLocationConstraint": lambda t: Signed(
            "PUT", f"/{t.bucket}x", body=b"<CreateBucketConfiguration><LocationConstraint>x</LocationConstraint></CreateBucketConfiguration>"
        ).send(),
        "InvalidPart": lambda t: t.complete([(1, b"1")], etag="0" * 32),
        "InvalidPartNumber": lambda t: t.ask("GET", "k", {"partNumber": "2"}),
        "InvalidPartOrder": lambda t: t.bad_order(),
        "InvalidRange": lambda t: t.ask("GET", headers={"range": "bytes=5-"}),
        "SignatureV2": lambda t: send("GET", f"/{t.bucket}", {"host": host(), "authorization": f"AWS {door.KEY}:abc="}),
        "ContentSha256Missing": lambda t: t.without_payload(),
        "ContentMd5Missing": lambda t: t.ask("POST", "", {"delete": ""}, b"<Delete><Object><Key>a</Key></Object></Delete>"),
        "ResponseHeadersAnonymous": lambda t: send("GET", f"/{t.bucket}/k?response-content-type=a", {"host": host()}),
        "SeveralChecksums": lambda t: t.put_with(x_amz_checksum_crc32=crc32(b"1"), x_amz_checksum_sha1=base64.b64encode(hashlib.sha1(b"1").digest()).decode()),
        "ChecksumInvalid": lambda t: t.put_with(x_amz_checksum_crc32="x"),
        "ChecksumAlgorithmUnknown": lambda t: t.begin(**{"x-amz-checksum-algorithm": "MD4"}),
        "ChecksumAlgorithmMismatch": lambda t: t.put_with(x_amz_checksum_crc32=crc32(b"1"), x_amz_sdk_checksum_algorithm="SHA1"),
        "ChecksumTypeUnknown": lambda t: t.begin(**{"x-amz-checksum-type": "X", "x-amz-checksum-algorithm": "CRC32"}),
        "ChecksumTypeAlone": lambda t: t.begin(**{"x-amz-checksum-type": "FULL_OBJECT"}),
        "ChecksumTypeUnfit": lambda t: t.begin(**{"x-amz-checksum-type": "FULL_OBJECT", "x-amz-checksum-algorithm": "SHA256"}),
        "ChecksumTypeUnfitComposite": lambda t: t.begin(**{"x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-algorithm": "CRC64NVME"}),
        "ChecksumTypeMismatch": lambda t: t.complete([(1, b"1")], t.upload(ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"), x_amz_checksum_type="COMPOSITE"),
        "PartChecksumMismatch": lambda t: t.of_other_algorithm(),
        "CopyOntoItself": lambda t: t.copied(key="k"),
        "CopySourceDeleteMarker": lambda t: t.copied(f"{t.bucket}/k?versionId={t.marker()}"),
        "RangeAndPartNumber": lambda t: t.ask("GET", "k", {"partNumber": "1"}, headers={"range": "bytes=0-1"}),
        "MpObjectSizeInvalid": lambda t: t.complete([(1, b"1")], x_amz_mp_object_size="x"),
        "MpObjectSizeMismatch": lambda t: t.complete([(1, b"1")], x_amz_mp_object_size="2"),
        "InvalidStorageClass": lambda t: t.put_with(x_amz_storage_class="GLACIER"),
        "InvalidTag": lambda t: t.tags(("a" * 129, "")),
        "InvalidTagValue": lambda t: t.tags(("a", "b" * 257)),
        "InvalidTagSystem": lambda t: t.tags(("aws:a", "")),
        "InvalidTagTwice": lambda t: t.tags(("a", ""), ("a", "")),
        "InvalidToken": lambda t: t.put_with(x_amz_security_token="x"),
        "InvalidUri": lambda t: send("GET", f"/{t.bucket}/%ff", t.raw("GET", "k").headers()),
        "KeyTooLong": lambda t: t.ask("PUT", "k" * 1025),
        "MalformedTrailer": lambda t: t.streamed(b"5\r\nhello\r\n0\r\n\r\n", 5, **{"x-amz-trailer": "x-amz-checksum-crc32"}),
        "MalformedXml": lambda t: t.document("versioning", b"<nonsense"),
        "MetadataTooLarge": lambda t: t.put_with(**{"x-amz-meta-a": "x" * 2048}),
        "MethodNotAllowed": lambda t: t.ask("GET", "k", {"versionId": t.marker()}),
        "MissingContentLength": lambda t: t.without_length(),
        "NoSuchBucket": lambda t: Signed("GET", "/not-there-at-all").send(),
        "NoSuchKey": lambda t: t.ask("GET", "none"),
        "NoSuchUpload": lambda t: t.ask("DELETE", "k", {"uploadId": "x"}),
        "NoSuchVersion": lambda t: t.ask("GET", "k", {"versionId": "0" * 40}),
        "NotImplemented": lambda t: t.ask("DELETE", "", {"notification": ""}),
        "PreconditionFailed": lambda t: t.put_with(if_none_match="*"),
        "RequestTimeTooSkewed": lambda t: t.ask("GET", when=ago(1000)),
        "SignatureDoesNotMatch": lambda t: t.wrong_secret(),
        "XAmzContentSha256Mismatch": lambda t: t.ask("PUT", "k", body=b"1", payload=hashlib.sha256(b"2").hexdigest()),
    }

    def test_every_error_is_a_row_of_the_table(self):
        rows, wrong = table(), []
        self.assertGreater(len(rows), 90)
        for name, provoke in self.ROWS.items():
            with self.subTest(name):
                self.setUp()
                answer = provoke(self)
                self.assertEqual((answer.status, answer.code, answer.message), rows[name])
                self.assertEqual(answer.headers["content-type"], "application/xml")
                self.assertEqual(answer.element("RequestId"), answer.headers["x-amz-request-id"])
                self.assertEqual(answer.element("HostId"), answer.headers["x-amz-id-2"])

    def test_every_row_of_the_table_can_be_provoked_or_is_shown_elsewhere(self):
        self.assertEqual(set(self.ROWS) | set(ELSEWHERE), set(table()))
        self.assertFalse(set(self.ROWS) & set(ELSEWHERE))

    def test_an_error_names_what_it_is_about(self):
        for provoke, elements in (
            (lambda: self.wrong_region(), {"Region": "us-east-1"}),
            (lambda: self.ask("GET", headers={"range": "bytes=5-"}), {"ActualObjectSize": "5", "RangeRequested": "bytes=5-"}),
            (lambda: self.ask("GET", "none"), {"Key": "none"}),
            (lambda: Signed("GET", "/not-there-at-all").send(), {"BucketName": "not-there-at-all"}),
            (lambda: self.ask("GET", "k", {"versionId": "x"}), {"ArgumentName": "versionId", "ArgumentValue": "x"}),
            (lambda: self.ask("GET", headers={"if-match": "x"}), {"Condition": "if-match"}),
            (lambda: self.put_with(**{"x-amz-meta-a": "x" * 2048}), {"MaxSizeAllowed": "2048"}),
            (lambda: self.ask("DELETE", "k", {"uploadId": "x"}), {"UploadId": "x"}),
        ):
            answer = provoke()
            for name, value in elements.items():
                self.assertEqual((answer.element(name) or "").lower(), value.lower(), answer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
