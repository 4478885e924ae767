"""What the suites share: stubs made of the .proto files, channels, blobs and their names."""

import hashlib
import importlib
import json
import os
import pathlib
import random
import sys
import tempfile
import unittest
import urllib.request
import uuid

import grpc

# The stubs are made as docs/examples/python has it.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs" / "examples" / "python"))
from generate import APIS, generate  # noqa: E402

ADDRESS = os.environ["CAIRN_GRPC"]
TOKEN = os.environ["CAIRN_GRPC_TOKEN"]
ADMIN_TOKEN = os.environ["CAIRN_ADMIN_TOKEN"]
BUCKET = "main"

_stubs = tempfile.TemporaryDirectory()
generate(_stubs.name)
sys.path.insert(0, _stubs.name)


def made(file):
    """The modules of a .proto file: its messages, its services."""
    name = file.removesuffix(".proto").replace("/", ".")
    return importlib.import_module(f"{name}_pb2"), importlib.import_module(f"{name}_pb2_grpc")


FILES = sorted(str(file.relative_to(APIS)) for file in pathlib.Path(APIS).rglob("*.proto"))
reapi, reapi_grpc = made("build/bazel/remote/execution/v2/remote_execution.proto")
asset, asset_grpc = made("build/bazel/remote/asset/v1/remote_asset.proto")
bytestream, bytestream_grpc = made("google/bytestream/bytestream.proto")
rpc_status, _ = made("google/rpc/status.proto")
error_details, _ = made("google/rpc/error_details.proto")

SHOWN = (("authorization", f"Bearer {TOKEN}"),)
SEED = int(os.environ.get("CAIRN_SEED", "0")) or random.randrange(1 << 32)
CHANNEL = grpc.insecure_channel(ADDRESS, options=[("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)])
CAS = reapi_grpc.ContentAddressableStorageStub(CHANNEL)
BYTES = bytestream_grpc.ByteStreamStub(CHANNEL)
EMPTY = hashlib.sha256(b"").hexdigest()


def digest(blob):
    return reapi.Digest(hash=hashlib.sha256(blob).hexdigest(), size_bytes=len(blob))


def path(of):
    return f"{of.hash}/{of.size_bytes}"


def missing(*digests):
    request = reapi.FindMissingBlobsRequest(instance_name=BUCKET, blob_digests=digests)
    return list(CAS.FindMissingBlobs(request, metadata=SHOWN).missing_blob_digests)


def put(*blobs):
    requests = [reapi.BatchUpdateBlobsRequest.Request(digest=digest(blob), data=blob) for blob in blobs]
    request = reapi.BatchUpdateBlobsRequest(instance_name=BUCKET, requests=requests)
    answer = CAS.BatchUpdateBlobs(request, metadata=SHOWN)
    assert all(one.status.code == 0 for one in answer.responses), answer
    return [digest(blob) for blob in blobs]


def read(name, offset=0, limit=0):
    request = bytestream.ReadRequest(resource_name=name, read_offset=offset, read_limit=limit)
    return b"".join(message.data for message in BYTES.Read(request, metadata=SHOWN))


def upload_name(of, form="blobs"):
    return f"{BUCKET}/uploads/{uuid.uuid4()}/{form}/{path(of)}"


def messages(name, blob, first=0, cuts=None, finish=True):
    """Messages of a write, cut at these places."""
    cuts = [0, *(cuts or []), len(blob)]
    for at, end in zip(cuts, cuts[1:]):
        yield bytestream.WriteRequest(
            resource_name=name if at == cuts[0] else "",
            write_offset=first + at,
            data=blob[at:end],
            finish_write=finish and end == len(blob) and at == cuts[-2],
        )


def write(sent):
    return BYTES.Write(sent, metadata=SHOWN).committed_size


class Suite(unittest.TestCase):
    def refused(self, code, call, *arguments, **named):
        with self.assertRaises(grpc.RpcError) as caught:
            answer = call(*arguments, **named)
            if hasattr(answer, "__next__"):
                list(answer)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception


def make_bucket(name, **more):
    """Makes a bucket through the admin API, if there is none of the name."""
    request = urllib.request.Request(
        os.environ["CAIRN_ADMIN_API"] + "/api/v1/admin/buckets",
        data=json.dumps({"name": name, "owner": "admin", **more}).encode(),
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


def setUpModule():
    make_bucket(BUCKET)
