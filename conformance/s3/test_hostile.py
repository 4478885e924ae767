"""Clients that are slow, cut off, lying or endless: the documented error, nothing that can be seen, and no leak after the next collection.

The server runs with short patience, and collects all the time. Each row of `Liars` is a kind of client; it is met once as an object and once
as a part of an upload, and all of them once more where the bytes that the server keeps are counted.
"""

import base64
import hashlib
import http.client
import os
import select
import socket
import unittest
import urllib.parse

import door
from botocore.exceptions import ClientError
from door import EMPTY, Suite, crc32, sum_of, wait_until

MIB = 1 << 20
# Several blocks of the server, so that some of it is stored before anything is found out.
LEN = 3 * MIB


class Wire:
    """A connection of which every byte is ours."""

    def __init__(self):
        url = urllib.parse.urlsplit(door.ENDPOINT)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Whether the server still listened."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def begin(self, asked, **more):
        """The head of a request."""
        target = asked.path + ("?" + asked.query_text() if asked.query else "")
        headers = {**asked.headers(), **{name.replace("_", "-"): str(value) for name, value in more.items()}}
        lines = [f"{asked.method} {target} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
        return self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def is_told(self):
        """Whether there is something to read: the server goes on taking bytes then, for a while, and drops them."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def answer(self):
        """The answer; `None`: the connection ended without one."""
        answer = http.client.HTTPResponse(self.socket)
        try:
            answer.begin()
            return door.Answer(answer)
        except (http.client.BadStatusLine, ConnectionResetError):
            return None


class Liars:
    """Kinds of clients: each sends bytes of its own, and returns what it was told."""

    def ask(self, payload="UNSIGNED-PAYLOAD", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return door.Signed("PUT", self.path, dict(self.query), headers=headers, payload=payload)

    def plain(self, data, payload="UNSIGNED-PAYLOAD", **headers):
        with Wire() as wire:
            wire.begin(self.ask(payload, **headers), content_length=len(data))
            wire.send(data)
            return wire.answer()

    def chunked(self, data, decoded=LEN, trailer=None, signed=False):
        """A body in the coding aws-chunked, of bytes that are encoded already."""
        payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        if signed:
            payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
        headers = {"x-amz-decoded-content-length": str(decoded), "content-encoding": "aws-chunked"}
        if trailer:
            headers["x-amz-trailer"] = trailer
        asked = self.ask(payload, **headers)
        with Wire() as wire:
            body = data(asked) if callable(data) else data
            wire.begin(asked, content_length=len(body))
            wire.send(body)
            return wire.answer()

    @staticmethod
    def pieces(data, step=64 << 10):
        return [data[at : at + step] for at in range(0, len(data), step)]

    def unsigned(self, data, end=b"0\r\n\r\n"):
        return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in self.pieces(data)) + end

    # Lies.

    def whose_body_is_not_what_was_signed(self):
        return self.plain(os.urandom(LEN), hashlib.sha256(b"other").hexdigest())

    whose_body_is_not_what_was_signed.told = (400, "XAmzContentSHA256Mismatch")

    def whose_md5_is_wrong(self):
        return self.plain(os.urandom(LEN), content_md5=base64.b64encode(hashlib.md5(b"other").digest()).decode())

    whose_md5_is_wrong.told = (400, "BadDigest")

    def whose_checksum_is_wrong(self):
        return self.plain(os.urandom(LEN), x_amz_checksum_crc32=crc32(b"other"))

    whose_checksum_is_wrong.told = (400, "BadDigest")

    def whose_trailing_checksum_is_wrong(self):
        end = f"0\r\nx-amz-checksum-crc32:{crc32(b'other')}\r\n\r\n".encode()
        return self.chunked(self.unsigned(os.urandom(LEN), end), trailer="x-amz-checksum-crc32")

    whose_trailing_checksum_is_wrong.told = (400, "BadDigest")

    def whose_chunk_has_a_wrong_signature(self):
        def body(asked):
            body = bytearray(asked.chunks(self.pieces(os.urandom(LEN))))
            body[2 * MIB] ^= 1
            return bytes(body)

        return self.chunked(body, signed=True)

    whose_chunk_has_a_wrong_signature.told = (403, "SignatureDoesNotMatch")

    def whose_trailer_has_a_wrong_signature(self):
        def body(asked):
            data = os.urandom(LEN)
            body = bytearray(asked.chunks(self.pieces(data), ("x-amz-checksum-crc32", crc32(data))))
            at = body.rindex(b"x-amz-trailer-signature:") + 24
            body[at] = ord("0") if body[at] != ord("0") else ord("1")
            return bytes(body)

        return self.chunked(body, trailer="x-amz-checksum-crc32", signed=True)

    whose_trailer_has_a_wrong_signature.told = (403, "SignatureDoesNotMatch")

    def who_sends_less_than_the_coding_said(self):
        return self.chunked(self.unsigned(os.urandom(LEN - 1)))

    who_sends_less_than_the_coding_said.told = (400, "IncompleteBody")

    def who_sends_more_than_the_coding_said(self):
        return self.chunked(self.unsigned(os.urandom(LEN + 1)))

    who_sends_more_than_the_coding_said.told = (400, "IncompleteBody")

    def who_leaves_out_the_last_chunk(self):
        return self.chunked(self.unsigned(os.urandom(LEN), b""))

    who_leaves_out_the_last_chunk.told = (400, "IncompleteBody")

    def whose_chunk_is_longer_than_it_said(self):
        piece = os.urandom(MIB)
        return self.chunked(f"{MIB - 1:x}\r\n".encode() + piece + b"\r\n" + self.unsigned(os.urandom(2 * MIB)))

    whose_chunk_is_longer_than_it_said.told = (400, "IncompleteBody")

    def who_announces_a_chunk_that_nobody_holds(self):
        head = f"{17 * MIB:x};chunk-signature={'0' * 64}\r\n".encode()
        return self.chunked(head + os.urandom(LEN), decoded=17 * MIB, signed=True)

    who_announces_a_chunk_that_nobody_holds.told = (400, "InvalidChunkSizeError")

    # Cut off.

    def who_goes_away_in_the_middle(self):
        with Wire() as wire:
            wire.begin(self.ask(), content_length=2 * LEN)
            wire.send(os.urandom(LEN))

    who_goes_away_in_the_middle.told = None

    def who_ends_its_side_in_the_middle(self):
        with Wire() as wire:
            wire.begin(self.ask(), content_length=2 * LEN)
            wire.send(os.urandom(LEN))
            wire.socket.shutdown(socket.SHUT_WR)
            return wire.answer()

    who_ends_its_side_in_the_middle.told = None

    def who_goes_away_in_a_signed_chunk(self):
        asked = self.ask("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", **{"x-amz-decoded-content-length": str(LEN)})
        with Wire() as wire:
            body = asked.chunks(self.pieces(os.urandom(LEN), MIB))
            wire.begin(asked, content_length=len(body))
            wire.send(body[: 2 * MIB + MIB // 2])

    who_goes_away_in_a_signed_chunk.told = None

    # Slow.

    def who_stops_sending(self):
        with Wire() as wire:
            wire.begin(self.ask(), content_length=2 * LEN)
            wire.send(os.urandom(LEN))
            return wire.answer()

    who_stops_sending.told = (400, "RequestTimeout")

    def who_never_begins_to_send(self):
        with Wire() as wire:
            wire.begin(self.ask(), content_length=LEN)
            return wire.answer()

    who_never_begins_to_send.told = (400, "RequestTimeout")

    def who_brings_a_byte_now_and_then(self):
        with Wire() as wire:
            wire.begin(self.ask(), content_length=LEN)
            wire.socket.settimeout(0.2)
            for _ in range(200):
                wire.send(b"x")
                try:
                    if wire.socket.recv(1, socket.MSG_PEEK) is not None:
                        break
                except TimeoutError:
                    continue
                except ConnectionResetError:
                    break
            wire.socket.settimeout(60)
            return wire.answer()

    who_brings_a_byte_now_and_then.told = (400, "RequestTimeout")

    # Endless: each goes on until it is told, or for what would be far too much.

    def endlessly(self, first, again, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER", most=64 * MIB, **headers):
        headers = {"x-amz-decoded-content-length": str(LEN), "transfer-encoding": "chunked", **headers}
        framed = lambda data: f"{len(data):x}\r\n".encode() + data + b"\r\n"
        with Wire() as wire:
            wire.begin(self.ask(payload, **headers))
            wire.send(framed(first))
            sent = 0
            while sent < most and not wire.is_told() and wire.send(framed(again)):
                sent += len(again)
            self.assertLess(sent, most)
            return wire.answer()

    def who_sends_chunks_for_ever(self):
        piece = os.urandom(MIB)
        return self.endlessly(self.unsigned(os.urandom(LEN), b""), f"{MIB:x}\r\n".encode() + piece + b"\r\n")

    who_sends_chunks_for_ever.told = (400, "IncompleteBody")

    def whose_head_of_a_chunk_has_no_end(self):
        return self.endlessly(self.unsigned(os.urandom(MIB), b"1"), b";" + b"x" * 65535)

    whose_head_of_a_chunk_has_no_end.told = (400, "IncompleteBody")

    def whose_trailers_have_no_end(self):
        first = self.unsigned(os.urandom(LEN), b"0\r\nx-amz-checksum-crc32:")
        return self.endlessly(first, b"A" * 65536, **{"x-amz-trailer": "x-amz-checksum-crc32"})

    whose_trailers_have_no_end.told = (400, "MalformedTrailerError")

    @classmethod
    def all(cls):
        return [name for name, kind in vars(cls).items() if hasattr(kind, "told")]


class Clients(Suite, Liars):
    """Each kind, as an object and as a part."""

    def as_object(self):
        self.path, self.query = f"/{self.bucket}/k", {}

    def as_part(self):
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key="k")["UploadId"]
        self.path, self.query = f"/{self.bucket}/k", {"partNumber": "1", "uploadId": upload}
        return upload

    def meet(self, name):
        answer = getattr(self, name)()
        told = getattr(type(self), name).told
        if told is None:
            # Nobody may be left to be told.
            self.assertTrue(answer is None or answer.status >= 400, answer)
        else:
            self.assertIsNotNone(answer, f"{name}: it was told nothing")
            self.assertRefused(answer, *told)
            self.assertEqual(answer.headers["connection"], "close")

    def both(self, name):
        self.as_object()
        self.meet(name)
        self.assertEqual(self.keys(), [])
        upload = self.as_part()
        self.meet(name)
        parts = self.s3.list_parts(Bucket=self.bucket, Key="k", UploadId=upload)
        self.assertNotIn("Parts", parts)
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload)


for _name in Liars.all():
    setattr(Clients, f"test_a_client_{_name}_is_told_and_leaves_nothing", lambda self, name=_name: self.both(name))


class Heads(Suite):
    """What comes before a body."""

    def test_headers_without_an_end_are_refused(self):
        with Wire() as wire:
            wire.send(b"GET / HTTP/1.1\r\nhost: x\r\n")
            sent = 0
            while sent < 8 * MIB and not wire.is_told() and wire.send(b"x-amz-meta-a: " + b"x" * 4000 + b"\r\n"):
                sent += 4000
            answer = wire.answer()
        self.assertLess(sent, 8 * MIB)
        self.assertEqual(answer.status, 431)

    def test_a_head_that_does_not_come_ends_the_connection(self):
        with Wire() as wire:
            wire.send(b"GET / HTTP/1.1\r\nhost: x\r\n")
            answer = wire.answer()
        self.assertIn(answer.status if answer else None, (None, 408))

    def test_what_is_no_request_is_refused(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500), b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            with Wire() as wire:
                wire.send(data)
                wire.socket.shutdown(socket.SHUT_WR)
                answer = wire.answer()
            self.assertTrue(answer is None or answer.status in (400, 505), answer)

    def test_two_lengths_are_not_taken(self):
        asked = self.raw("PUT", "k", payload="UNSIGNED-PAYLOAD")
        with Wire() as wire:
            headers = asked.headers()
            lines = [f"PUT {asked.path} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
            wire.send(("\r\n".join(lines + ["content-length: 5", "content-length: 6"]) + "\r\n\r\nhello").encode())
            answer = wire.answer()
        self.assertTrue(answer is None or answer.status == 400, answer)
        self.assertEqual(self.keys(), [])

    def test_a_document_without_an_end_is_refused(self):
        asked = self.raw("POST", "", {"delete": ""}, payload="UNSIGNED-PAYLOAD", headers={"content-md5": base64.b64encode(hashlib.md5(b"").digest()).decode()})
        with Wire() as wire:
            wire.begin(asked, content_length=1 << 40)
            while not wire.is_told() and wire.send(b"<Object>" * 8192):
                pass
            answer = wire.answer()
        self.assertIn((answer.status, answer.code), ((400, "MalformedXML"), (400, "EntityTooLarge")))

    def test_a_document_that_is_deep_or_has_entities_is_refused(self):
        self.put("a", b"1")
        bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'
        deep = b"<Delete>" + b"<Object>" * 100_000
        file = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&a;</Key></Object></Delete>'
        for document in (bomb, deep, file):
            headers = {"content-md5": base64.b64encode(hashlib.md5(document).digest()).decode()}
            answer = self.raw("POST", "", {"delete": ""}, body=document, headers=headers).send()
            self.assertRefused(answer, 400, "MalformedXML")
        self.assertEqual(self.keys(), ["a"])


class Leaks(Clients):
    """Last of all: what all of them have left behind goes with the next collection."""

    def collected(self):
        """Waits for two more collections: one of them began after now."""
        before = sum_of("gc_runs_total", store="objects", result="done")
        wait_until(lambda: sum_of("gc_runs_total", store="objects", result="done") >= before + 2)

    def test_what_they_have_left_is_collected(self):
        kept = os.urandom(LEN)
        self.put("kept", kept)
        live = lambda: sum_of("store_live_bytes", store="objects")
        wait_until(lambda: (self.collected(), live() >= LEN)[1])
        # Until what the other tests have left has gone.
        before = None
        while before != live():
            before = live()
            self.collected()
        for name in Liars.all():
            self.as_object()
            self.meet(name)
            upload = self.as_part()
            self.meet(name)
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key="k", UploadId=upload)
        wait_until(lambda: (self.collected(), live() == before)[1])
        self.assertEqual(self.keys(), ["kept"])
        self.assertEqual(self.body("kept"), kept)
        # And the packs give the room back.
        room = lambda: sum_of("store_bytes", store="objects")
        wait_until(lambda: (self.collected(), LEN <= room() < before + 4 * MIB)[1])
        self.assertEqual(sum_of("s3_bodies"), 0, "bodies that nobody reads any more")


# Its parent's tests have run as its parent's.
for _name in [name for name in dir(Clients) if name.startswith("test_a_client_")]:
    setattr(Leaks, _name, None)


if __name__ == "__main__":
    unittest.main(verbosity=2)
