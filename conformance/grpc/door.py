"""What the suites share: stubs made of the vendored .proto files, channels, blobs and their names."""

import hashlib
import importlib
import os
import random
import sys
import tempfile
import unittest
import urllib.request
import uuid
import json

import grpc
from grpc_tools import protoc

ADDRESS = os.environ["CAIRN_GRPC"]
TOKEN = os.environ["CAIRN_GRPC_TOKEN"]
APIS = os.environ["CAIRN_APIS"]
BUCKET = "main"

# Of others' files: what is served, and what that imports. Google's own come with the packages.
FILES = [
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "build/bazel/semver/semver.proto",
    "google/bytestream/bytestream.proto",
    "google/api/annotations.proto",
    "google/api/client.proto",
    "google/api/field_behavior.proto",
    "google/api/http.proto",
    "google/api/launch_stage.proto",
    "google/longrunning/operations.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
]
_stubs = tempfile.TemporaryDirectory()
_failed = protoc.main(
    [
        "protoc",
        f"-I{APIS}",
        f"-I{os.path.join(os.path.dirname(protoc.__file__), '_proto')}",
        f"--python_out={_stubs.name}",
        f"--grpc_python_out={_stubs.name}",
        *[os.path.join(APIS, file) for file in FILES],
    ]
)
assert _failed == 0, "the .proto files do not compile"
sys.path.insert(0, _stubs.name)
# `google.protobuf` is a package already: the rest of `google` lies beside it.
import google  # noqa: E402

google.__path__ = list(google.__path__) + [os.path.join(_stubs.name, "google")]

reapi = importlib.import_module("build.bazel.remote.execution.v2.remote_execution_pb2")
reapi_grpc = importlib.import_module("build.bazel.remote.execution.v2.remote_execution_pb2_grpc")
asset = importlib.import_module("build.bazel.remote.asset.v1.remote_asset_pb2")
asset_grpc = importlib.import_module("build.bazel.remote.asset.v1.remote_asset_pb2_grpc")
bytestream = importlib.import_module("google.bytestream.bytestream_pb2")
bytestream_grpc = importlib.import_module("google.bytestream.bytestream_pb2_grpc")
rpc_status = importlib.import_module("google.rpc.status_pb2")
error_details = importlib.import_module("google.rpc.error_details_pb2")

SHOWN = (("authorization", f"Bearer {TOKEN}"),)
SEED = int(os.environ.get("CAIRN_SEED", "0")) or random.randrange(1 << 32)
CHANNEL = grpc.insecure_channel(ADDRESS, options=[("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)])
CAS = reapi_grpc.ContentAddressableStorageStub(CHANNEL)
ACTIONS = reapi_grpc.ActionCacheStub(CHANNEL)
CAPABILITIES = reapi_grpc.CapabilitiesStub(CHANNEL)
BYTES = bytestream_grpc.ByteStreamStub(CHANNEL)
FETCH = asset_grpc.FetchStub(CHANNEL)
PUSH = asset_grpc.PushStub(CHANNEL)
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


def setUpModule():
    """Makes the bucket, through the admin API."""
    request = urllib.request.Request(
        os.environ["CAIRN_ADMIN_API"] + "/api/v1/admin/buckets",
        data=json.dumps({"name": BUCKET, "owner": "admin"}).encode(),
        headers={"Authorization": f"Bearer {os.environ['CAIRN_ADMIN_TOKEN']}", "Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
