"""The cache of the Remote Execution API as a client made of its .proto files sees it: random calls, held to a model.

A failure of a random test prints its seed: CAIRN_SEED=… runs it again.
"""

import concurrent.futures
import hashlib
import random
import threading
import unittest

import grpc
from grpc import StatusCode as Code

import door
from door import BUCKET, BYTES, CAS, SEED, SHOWN
from door import Suite, bytestream, digest, path, put, read, reapi, write
from door import setUpModule  # noqa: F401


def frame(plain):
    """A frame of zstd whose blocks are raw (RFC 8878, 3.1.1)."""
    blocks = [plain[at : at + 100_000] for at in range(0, len(plain), 100_000)] or [b""]
    header = lambda n, block: (len(block) << 3 | (n == len(blocks) - 1)).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\xa0" + len(plain).to_bytes(4, "little") + b"".join(header(n, block) + block for n, block in enumerate(blocks))


class Random(Suite):
    """Random blobs, names, cuts and places, held to what the protocol says."""

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")
        self.addCleanup(lambda: None)

    def blob(self):
        kind = self.random.random()
        length = self.random.choice([0, 1, 4095, 4096, 4097, 65536, 200_000, 3_000_000])
        length += self.random.randrange(20) if length else 0
        if kind < 0.5:
            return self.random.randbytes(length)
        return (b"%d a line of text\n" % self.random.randrange(1 << 30)) * (length // 20)

    def cuts(self, blob):
        count = min(self.random.randrange(9), max(len(blob) - 1, 0))
        return sorted(self.random.sample(range(1, len(blob)), count)) if count else []

    def test_blobs_of_any_size_read_back_from_any_place(self):
        for _ in range(25):
            blob = self.blob()
            of = digest(blob)
            with self.subTest(seed=SEED, size=len(blob)):
                if len(blob) < 1 << 20 and self.random.random() < 0.5:
                    put(blob)
                else:
                    sent = write(door.messages(door.upload_name(of), blob, cuts=self.cuts(blob)))
                    self.assertEqual(sent, len(blob))
                self.assertEqual(door.missing(of), [])
                for _ in range(4):
                    at = self.random.randrange(len(blob) + 1)
                    limit = self.random.choice([0, 1, 1000, 1 << 20, 1 << 40])
                    expected = blob[at : at + limit] if limit else blob[at:]
                    self.assertEqual(read(f"{BUCKET}/blobs/{path(of)}", at, limit), expected)
                self.refused(Code.OUT_OF_RANGE, read, f"{BUCKET}/blobs/{path(of)}", len(blob) + 1)
                self.refused(Code.OUT_OF_RANGE, read, f"{BUCKET}/blobs/{path(of)}", -1)

    def test_streams_that_stop_anywhere_go_on_or_begin_anew(self):
        for _ in range(15):
            blob = self.blob() + self.random.randbytes(10)
            of = digest(blob)
            name = door.upload_name(of)
            with self.subTest(seed=SEED, size=len(blob)):
                sent = 0
                while True:
                    until = self.random.randrange(sent, len(blob) + 1)
                    part = blob[sent:until]
                    if until == len(blob) or self.random.random() < 0.3:
                        self.assertEqual(write(door.messages(name, blob[sent:], sent, self.cuts(blob[sent:]))), len(blob))
                        break
                    cuts = self.cuts(part)
                    self.assertEqual(write(door.messages(name, part, sent, cuts, finish=False)), until)
                    status = BYTES.QueryWriteStatus(bytestream.QueryWriteStatusRequest(resource_name=name), metadata=SHOWN)
                    self.assertEqual((status.committed_size, status.complete), (until, False))
                    wrong = until + 1 + self.random.randrange(5)
                    self.refused(Code.INVALID_ARGUMENT, write, door.messages(name, b"x", wrong))
                    sent = until if self.random.random() < 0.8 else 0
                self.assertEqual(read(f"{BUCKET}/blobs/{path(of)}"), blob)

    def test_a_stream_that_is_cut_off_can_be_gone_on_with(self):
        blob = self.random.randbytes(2_000_000)
        of = digest(blob)
        name = door.upload_name(of)
        sent, hold = threading.Event(), threading.Event()

        def half():
            yield from door.messages(name, blob[:1_000_000], cuts=[300_000, 600_000], finish=False)
            sent.set()
            hold.wait()

        call = BYTES.Write.future(half(), metadata=SHOWN)
        sent.wait()
        call.cancel()
        hold.set()
        status = bytestream.QueryWriteStatusRequest(resource_name=name)
        for _ in range(10_000):
            try:
                # What was on its way may have come or not; the server says.
                at = BYTES.QueryWriteStatus(status, metadata=SHOWN).committed_size
                self.assertLessEqual(at, 1_000_000)
                self.assertEqual(write(door.messages(name, blob[at:], at)), len(blob))
                break
            except grpc.RpcError as error:
                # Not begun yet, or still held by the call that was cut off.
                self.assertIn(error.code(), [Code.NOT_FOUND, Code.UNAVAILABLE, Code.INVALID_ARGUMENT])
        self.assertEqual(read(f"{BUCKET}/blobs/{path(of)}"), blob)

    def frames(self, plain):
        """zstd, as anybody may write it: of raw blocks, in frames of any length, some of them empty."""
        places = sorted(self.random.choices(range(len(plain) + 1), k=self.random.randrange(1, 4)))
        return b"".join(frame(plain[at:end]) for at, end in zip([0, *places], [*places, len(plain)]))

    def test_compressed_streams_that_stop_anywhere_go_on_with_a_new_frame(self):
        for _ in range(12):
            blob = self.blob() + self.random.randbytes(10)
            of = digest(blob)
            name = door.upload_name(of, "compressed-blobs/zstd")
            status = bytestream.QueryWriteStatusRequest(resource_name=name)
            with self.subTest(seed=SEED, size=len(blob)):
                sent = 0
                while self.random.random() < 0.7:
                    encoded = self.frames(blob[sent:])
                    # In the middle of a frame, of a block, of a header.
                    encoded = encoded[: self.random.randrange(len(encoded))]
                    at = write(door.messages(name, encoded, sent, self.cuts(encoded), finish=False))
                    answer = BYTES.QueryWriteStatus(status, metadata=SHOWN)
                    self.assertEqual((answer.committed_size, answer.complete), (at, False))
                    self.assertLessEqual(sent, at)
                    self.assertLessEqual(at - sent, len(encoded))
                    self.refused(Code.INVALID_ARGUMENT, write, door.messages(name, frame(b"x"), at + 1))
                    sent = at
                encoded = self.frames(blob[sent:])
                self.assertEqual(write(door.messages(name, encoded, sent, self.cuts(encoded))), sent + len(encoded))
                self.assertEqual(read(f"{BUCKET}/blobs/{path(of)}"), blob)
                self.assertEqual(write(door.messages(name, frame(blob[:1]))), -1, "it is there already")

    def test_a_blob_is_found_by_the_function_that_it_was_sent_under_and_no_other(self):
        functions = ("sha256", "sha1", "md5", "sha384", "sha512")
        for _ in range(20):
            blob = self.random.randbytes(1 + self.random.randrange(5000))
            of = {name: reapi.Digest(hash=hashlib.new(name, blob).hexdigest(), size_bytes=len(blob)) for name in functions}
            chosen = self.random.choice(functions)
            with self.subTest(seed=SEED, function=chosen):
                write(door.messages(f"{BUCKET}/uploads/{self.random.random()}/blobs/{path(of[chosen])}", blob))
                for name, one in of.items():
                    if name == chosen:
                        self.assertEqual((door.missing(one), read(f"{BUCKET}/blobs/{path(one)}")), ([], blob))
                    else:
                        self.assertEqual(door.missing(one), [one])
                        self.refused(Code.NOT_FOUND, read, f"{BUCKET}/blobs/{path(one)}")
                # What is said has to be what it is: another length, another function, digits that are not lower-case.
                wrong = reapi.Digest(hash=of[chosen].hash, size_bytes=len(blob) + 1)
                self.assertEqual(door.missing(wrong), [wrong])
                for bad in (of[chosen].hash.upper(), of[chosen].hash[1:], of[chosen].hash + "0", "g" * 64, ""):
                    if bad != of[chosen].hash:
                        self.refused(Code.INVALID_ARGUMENT, door.missing, reapi.Digest(hash=bad, size_bytes=len(blob)))
                other = reapi.DigestFunction.SHA512 if chosen != "sha512" else reapi.DigestFunction.SHA256
                request = reapi.FindMissingBlobsRequest(instance_name=BUCKET, blob_digests=[of[chosen]], digest_function=other)
                self.refused(Code.INVALID_ARGUMENT, CAS.FindMissingBlobs, request, metadata=SHOWN)

    def test_bytes_that_are_not_their_digests_are_never_kept(self):
        for _ in range(15):
            blob = self.random.randbytes(1 + self.random.randrange(300_000))
            of = digest(blob)
            at = self.random.randrange(len(blob))
            wrong = [blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :], blob[:-1], blob + b"x"]
            with self.subTest(seed=SEED, size=len(blob)):
                for sent in wrong:
                    if sent:
                        self.refused(Code.INVALID_ARGUMENT, write, door.messages(door.upload_name(of), sent, cuts=self.cuts(sent)))
                    request = reapi.BatchUpdateBlobsRequest.Request(digest=of, data=sent)
                    request = reapi.BatchUpdateBlobsRequest(instance_name=BUCKET, requests=[request])
                    status = CAS.BatchUpdateBlobs(request, metadata=SHOWN).responses[0].status
                    self.assertEqual(status.code, Code.INVALID_ARGUMENT.value[0])
                self.assertEqual(door.missing(of), [of])

    def test_names_that_are_none_are_refused(self):
        [of] = put(b"known")
        parts = ["blobs", "uploads", "compressed-blobs", "zstd", "blake3", "sha256", of.hash, "5", "6", "", "main", "x" * 300, "-1"]
        for _ in range(400):
            name = "/".join(self.random.choice(parts) for _ in range(self.random.randrange(1, 8)))
            with self.subTest(seed=SEED, name=name):
                try:
                    self.assertEqual(read(name), b"known")
                    self.assertRegex(name, f"^main/(main/)*blobs/{of.hash}/5$")
                except grpc.RpcError as error:
                    self.assertIn(error.code(), [Code.INVALID_ARGUMENT, Code.NOT_FOUND])

    def test_many_write_the_same_blob_at_once(self):
        blob = self.random.randbytes(1_500_000)
        of = digest(blob)
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            sent = [threads.submit(write, door.messages(door.upload_name(of), blob, cuts=[500_000])) for _ in range(16)]
            self.assertEqual({one.result() for one in sent}, {len(blob)})
        self.assertEqual(read(f"{BUCKET}/blobs/{path(of)}"), blob)

    def test_ten_thousand_digests_are_asked_for_in_one_call(self):
        blobs = [b"%d of many" % n for n in range(0, 10_000, 100)]
        put(*blobs)
        asked = [digest(b"%d of many" % n) for n in range(10_000)]
        self.assertEqual(len(door.missing(*asked)), 9_900)


class Limits(Suite):
    def test_a_message_that_is_too_long_is_refused_and_one_that_is_not_is_taken(self):
        blob = random.Random(2).randbytes(15 << 20)
        put(blob)
        large = reapi.BatchUpdateBlobsRequest.Request(digest=digest(b"x"), data=bytes(17 << 20))
        request = reapi.BatchUpdateBlobsRequest(instance_name=BUCKET, requests=[large])
        self.refused(Code.OUT_OF_RANGE, CAS.BatchUpdateBlobs, request, metadata=SHOWN)
        self.assertEqual(door.missing(digest(blob)), [])

    def test_a_call_ends_with_its_time(self):
        hold = threading.Event()

        def stalled():
            hold.wait()
            yield from ()

        with self.assertRaises(grpc.RpcError) as caught:
            BYTES.Write(stalled(), metadata=SHOWN, timeout=0.2)
        hold.set()
        self.assertEqual(caught.exception.code(), Code.DEADLINE_EXCEEDED)

    def test_the_empty_blob_is_always_there(self):
        empty = reapi.Digest(hash=hashlib.sha256(b"").hexdigest(), size_bytes=0)
        self.assertEqual(door.missing(empty), [])
        self.assertEqual(read(f"{BUCKET}/blobs/{path(empty)}"), b"")
        self.assertEqual(read(f"{BUCKET}/compressed-blobs/zstd/{path(empty)}"), b"")


if __name__ == "__main__":
    unittest.main()
