"""What the suites share: clients of boto3, and requests that are made by hand where boto3 would not make them."""

import base64
import contextlib
import datetime
import hashlib
import hmac
import html
import http.client
import os
import ssl
import time
import unittest
import urllib.parse
import urllib.request
import uuid
import zlib

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["CAIRN_S3"]
KEY = os.environ["AWS_ACCESS_KEY_ID"]
SECRET = os.environ["AWS_SECRET_ACCESS_KEY"]
CA = os.environ.get("CAIRN_S3_CA")
REGION = "us-east-1"
EMPTY = hashlib.sha256(b"").hexdigest()


def client(secret=SECRET, key=KEY, **config):
    config.setdefault("signature_version", "s3v4")
    return boto3.client(
        "s3",
        endpoint_url=ENDPOINT,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=REGION,
        verify=CA,
        config=Config(retries={"max_attempts": 0}, **config),
    )


def quote(text, safe="-_.~"):
    return urllib.parse.quote(text, safe=safe)


class Answer:
    def __init__(self, answer):
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.body = answer.read()

    @property
    def code(self):
        """The code of the error document."""
        return self.element("Code")

    @property
    def message(self):
        """Its message."""
        return self.element("Message")

    def element(self, name):
        text = self.body.decode(errors="replace")
        if f"<{name}>" not in text:
            return None
        return html.unescape(text.split(f"<{name}>")[1].split(f"</{name}>")[0])

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:2000]!r}"


def connection():
    url = urllib.parse.urlsplit(ENDPOINT)
    if url.scheme == "https":
        return http.client.HTTPSConnection(url.hostname, url.port, context=ssl.create_default_context(cafile=CA))
    return http.client.HTTPConnection(url.hostname, url.port)


def host():
    return urllib.parse.urlsplit(ENDPOINT).netloc


def hmac_sha256(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signing_key(secret, day, region=REGION, service="s3"):
    key = hmac_sha256(("AWS4" + secret).encode(), day)
    for part in (region, service, "aws4_request"):
        key = hmac_sha256(key, part)
    return key


class Signed:
    """A request that is signed by hand. Fields can be changed before `headers` is asked for."""

    def __init__(self, method, path, query=None, headers=None, body=b"", payload=None, when=None):
        self.method, self.path, self.query, self.body = method, path, query or {}, body
        self.when = when or datetime.datetime.now(datetime.timezone.utc)
        self.date = self.when.strftime("%Y%m%dT%H%M%SZ")
        self.region, self.key, self.secret = REGION, KEY, SECRET
        if payload is None:
            payload = hashlib.sha256(body).hexdigest()
        self.own = {"host": host(), "x-amz-date": self.date, "x-amz-content-sha256": payload}
        self.own.update({name.lower(): value for name, value in (headers or {}).items()})
        self.unsigned = {}
        self.signature = None

    @property
    def scope(self):
        return f"{self.date[:8]}/{self.region}/s3/aws4_request"

    def query_text(self):
        pairs = sorted((quote(name), quote(value)) for name, value in self.query.items())
        return "&".join(f"{name}={value}" for name, value in pairs)

    def headers(self):
        names = sorted(self.own)
        canonical = "\n".join(
            [self.method, quote(urllib.parse.unquote(self.path), "/-_.~"), self.query_text()]
            + [f"{name}:{' '.join(self.own[name].split())}" for name in names]
            + ["", ";".join(names), self.own["x-amz-content-sha256"]]
        )
        to_sign = "\n".join(["AWS4-HMAC-SHA256", self.date, self.scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = signing_key(self.secret, self.date[:8], self.region)
        self.signature = hmac_sha256(key, to_sign).hex()
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{self.scope},"
            f"SignedHeaders={';'.join(names)},Signature={self.signature}"
        )
        return {**self.own, **self.unsigned, "authorization": authorization}

    def send(self):
        headers = self.headers()
        return send(self.method, self.path + ("?" + self.query_text() if self.query else ""), headers, self.body)

    def chunks(self, pieces, trailer=None):
        """The body as signed chunks; `trailer` is a header and its value."""
        self.headers()
        key, previous, body = signing_key(self.secret, self.date[:8]), self.signature, b""

        def next_signature(kind, what):
            return hmac_sha256(key, "\n".join([kind, self.date, self.scope, previous, what])).hex()

        for piece in list(pieces) + [b""]:
            previous = next_signature("AWS4-HMAC-SHA256-PAYLOAD", f"{EMPTY}\n{hashlib.sha256(piece).hexdigest()}")
            body += f"{len(piece):x};chunk-signature={previous}\r\n".encode() + piece + (b"\r\n" if piece else b"")
        if trailer:
            name, value = trailer
            line = f"{name}:{value}\n"
            signature = next_signature("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(line.encode()).hexdigest())
            body += f"{name}:{value}\r\nx-amz-trailer-signature:{signature}\r\n".encode()
        return body + b"\r\n"


def send(method, target, headers, body=b""):
    with contextlib.closing(connection()) as way:
        way.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            way.putheader(name, value)
        if "content-length" not in headers and (body or method in ("PUT", "POST")) and "transfer-encoding" not in headers:
            way.putheader("content-length", str(len(body)))
        way.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            way.send(body)
        return Answer(way.getresponse())


def presigned(method, path, query=None, expires=60, when=None, headers=None):
    """Path and query of a presigned link."""
    when = when or datetime.datetime.now(datetime.timezone.utc)
    date = when.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{date[:8]}/{REGION}/s3/aws4_request"
    own = {"host": host(), **(headers or {})}
    query = {
        **(query or {}),
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{KEY}/{scope}",
        "X-Amz-Date": date,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": ";".join(sorted(own)),
    }
    text = "&".join(f"{quote(name)}={quote(value)}" for name, value in sorted(query.items()))
    canonical = "\n".join(
        [method, path, text]
        + [f"{name}:{own[name]}" for name in sorted(own)]
        + ["", ";".join(sorted(own)), "UNSIGNED-PAYLOAD"]
    )
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac_sha256(signing_key(SECRET, date[:8]), to_sign).hex()
    return f"{path}?{text}&X-Amz-Signature={signature}"


def metrics():
    """What the server's metrics page shows: name with labels, and value."""
    with urllib.request.urlopen(os.environ["CAIRN_S3_METRICS"]) as page:
        lines = page.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def sum_of(name, **labels):
    """The sum of all values of a metric that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for full, value in metrics().items()
        if full.split("{")[0] == name and all(label in full for label in wanted)
    )


def wait_until(what, seconds=60):
    """Asks again and again until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"it did not come in {seconds} s"
        time.sleep(0.05)


def crc32(data):
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


class Suite(unittest.TestCase):
    """Each test has a bucket of its own, `self.bucket`."""

    def setUp(self):
        self.s3 = client()
        self.bucket = "test-" + uuid.uuid4().hex[:20]
        self.s3.create_bucket(Bucket=self.bucket)

    def put(self, key, body=b"", **more):
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **more)

    def get(self, key, **more):
        return self.s3.get_object(Bucket=self.bucket, Key=key, **more)

    def body(self, key, **more):
        return self.get(key, **more)["Body"].read()

    def head(self, key, **more):
        return self.s3.head_object(Bucket=self.bucket, Key=key, **more)

    def keys(self, **more):
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=self.bucket, **more).get("Contents", [])]

    def raw(self, method, key="", query=None, **more):
        path = "/" + self.bucket + ("/" + quote(key, "/-_.~") if key else "")
        return Signed(method, path, query, **more)

    @contextlib.contextmanager
    def refused(self, code, status=None):
        with self.assertRaises(ClientError) as caught:
            yield caught
        error = caught.exception.response
        self.assertEqual(error["Error"]["Code"], code)
        if status:
            self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], status)

    def assertRefused(self, answer, status, code):
        self.assertEqual((answer.status, answer.code), (status, code), answer)
