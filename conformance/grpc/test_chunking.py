"""buildbox-casd with chunking in front of the server: what of a second version goes over the wire."""

import importlib
import os
import random
import socket
import subprocess
import tempfile
import threading
import unittest

import grpc
from grpc_tools import protoc

import door
from door import BUCKET, Suite, digest, reapi
from door import setUpModule  # noqa: F401

LEN = 50_000_000
FOLDER = os.environ["CAIRN_TEST_FOLDER"]


class Counted:
    """A proxy that counts bytes to the server and back."""

    def __init__(self, server):
        self.server = server
        self.counts = [0, 0]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.server)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, way in ((client, server, 0), (server, client, 1)):
                threading.Thread(target=self.pump, args=(source, sink, way), daemon=True).start()

    def pump(self, source, sink, way):
        try:
            while piece := source.recv(1 << 16):
                self.counts[way] += len(piece)
                sink.sendall(piece)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def local_cas():
    """buildbox's own protocol, of its .proto file."""
    stubs = tempfile.mkdtemp(dir=FOLDER)
    here = os.path.join(os.path.dirname(__file__), "apis")
    file = os.path.join(here, "build/buildgrid/local_cas.proto")
    google = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    failed = protoc.main(
        ["protoc", f"-I{here}", f"-I{door.APIS}", f"-I{google}", f"--python_out={stubs}", f"--grpc_python_out={stubs}", file]
    )
    assert failed == 0
    import build

    build.__path__ = list(build.__path__) + [os.path.join(stubs, "build")]
    return [importlib.import_module(f"build.buildgrid.local_cas_pb2{kind}") for kind in ("", "_grpc")]


class Chunking(Suite):
    def casd(self, name, wire):
        """A casd with an empty cache, as a client of its own protocol."""
        address = f"unix:{FOLDER}/{name}.sock"
        words = ["buildbox-casd", f"--cas-remote=http://127.0.0.1:{wire.port}", f"--cas-instance={BUCKET}"]
        words += [f"--proxy-instance=proxy:{BUCKET}", "--enable-chunking-for-instance=proxy", f"--bind={address}"]
        process = subprocess.Popen([*words, f"{FOLDER}/{name}"], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(channel).result(timeout=60)
        return channel

    def test_a_second_version_costs_the_chunks_that_changed(self):
        messages, services = local_cas()
        host, port = door.ADDRESS.split(":")
        wire = Counted((host, int(port)))
        first = random.Random(door.SEED).randbytes(LEN)
        at = LEN // 2 + 3
        versions = [first, first[:at] + b"inserted" * 125 + first[at:]]
        lists, sent, read = [], [], []
        writer = services.LocalContentAddressableStorageStub(self.casd("writer", wire))
        for n, version in enumerate(versions):
            file = f"{FOLDER}/version{n}"
            with open(file, "wb") as out:
                out.write(version)
            before = wire.counts[0]
            captured = writer.CaptureFiles(messages.CaptureFilesRequest(instance_name="proxy", path=[file]))
            of = captured.responses[0].digest
            self.assertEqual(of.hash, digest(version).hash)
            writer.UploadMissingBlobs(messages.UploadMissingBlobsRequest(instance_name="proxy", blob_digests=[of]))
            self.assertEqual(door.missing(digest(version)), [])
            sent.append(wire.counts[0] - before)
            split = reapi.SplitBlobRequest(instance_name=BUCKET, blob_digest=digest(version))
            lists.append({one.hash: one.size_bytes for one in door.CAS.SplitBlob(split, metadata=door.SHOWN).chunk_digests})
        reader = services.LocalContentAddressableStorageStub(self.casd("reader", wire))
        for version in versions:
            before = wire.counts[1]
            fetch = messages.FetchMissingBlobsRequest(instance_name="proxy", blob_digests=[digest(version)])
            self.assertEqual(len(reader.FetchMissingBlobs(fetch).responses), 0)
            read.append(wire.counts[1] - before)
        changed = sum(size for name, size in lists[1].items() if name not in lists[0])
        self.assertGreater(changed, 0)
        self.assertLess(changed, LEN // 10)
        print(f"changed chunks {changed}, sent {sent}, read {read}")
        self.assertGreater(sent[0], LEN)
        self.assertLess(sent[1], 1.1 * changed)
        self.assertLess(read[1], 1.1 * changed)


if __name__ == "__main__":
    unittest.main()
