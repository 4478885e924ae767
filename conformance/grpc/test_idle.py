"""Clients that begin a stream and send nothing more, on a server whose `grpc.idle_seconds` is 1: each such call ends."""

import concurrent.futures
import threading
import unittest

import grpc
from grpc import StatusCode as Code

import calls
import door
import test_calls
from door import BUCKET, SHOWN, Suite, bytestream, digest, reapi
from rows_cairn import OBJECTS, STORE, chunks, put_request

BEGINNINGS = {
    "google.bytestream.ByteStream/Write": lambda: list(door.messages(door.upload_name(digest(b"slow and late")), b"slow", finish=False)),
    "build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping": lambda: [
        reapi.RegisterChunkMappingRequest(instance_name=BUCKET, blob_digest=digest(b"slow"))
    ],
    STORE + "PutChunks": lambda: [chunks.PutChunksRequest(bucket=BUCKET)],
    OBJECTS + "PutObject": lambda: put_request("slow", b"what came"),
}


def setUpModule():
    door.make_bucket(BUCKET)


class Idle(Suite):
    def test_each_call_that_takes_a_stream_ends_when_nothing_comes(self):
        streams = {f"{name}/{one.name}" for name, of in test_calls.listed().items() for one in of.method if one.client_streaming}
        # Who asks what is served holds a place, and nothing else.
        self.assertEqual({name for name in streams if not name.startswith("grpc.reflection.")}, set(BEGINNINGS))
        cases = [(name, sent) for name, begin in BEGINNINGS.items() for sent in ([], begin())]
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as threads:
            for (name, sent), error in zip(cases, threads.map(stall, *zip(*cases))):
                with self.subTest(name, sent=len(sent)):
                    self.assertEqual((error.code(), error.details()), (Code.DEADLINE_EXCEEDED, "nothing was sent for too long"))


def stall(name, sent):
    """Sends this and nothing more; how the call ends."""
    hold = threading.Event()

    def stalled():
        yield from sent
        hold.wait()

    try:
        answer = calls.stub_of(name)(stalled(), metadata=SHOWN, timeout=calls.SECONDS)
        return list(answer) if isinstance(answer, grpc.Call) else answer
    except grpc.RpcError as error:
        return error
    finally:
        hold.set()


if __name__ == "__main__":
    unittest.main()
