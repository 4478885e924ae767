"""Rows of the Remote Execution API's cache, of health and of reflection."""

import random

from grpc import StatusCode as Code

import door
from calls import BERT, CARELESS, NARROW, NOBODY, READER, STRANGER, WRONG, Refused, Row, health, reflection
from door import BUCKET, asset, bytestream, digest, path, reapi

HERE = dict(instance_name=BUCKET)
CAS = "build.bazel.remote.execution.v2.ContentAddressableStorage/"
RESULTS = "build.bazel.remote.execution.v2.ActionCache/"
ASSETS = "build.bazel.remote.asset.v1."
BYTES = "google.bytestream.ByteStream/"
NO_BUCKET = "no bucket goes with this instance name"


def rows():
    R = reapi
    large, other = random.Random(1).randbytes(3_000_000), b"other"
    door.write(door.messages(door.upload_name(digest(large)), large))
    command = R.Command(arguments=["true"]).SerializeToString()
    action = R.Action(command_digest=digest(command)).SerializeToString()
    orphan = R.Action(command_digest=digest(b"no command")).SerializeToString()
    small, *_ = door.put(other, command, action, orphan)
    root = R.Directory(files=[R.FileNode(name="f", digest=small)]).SerializeToString()
    door.put(root)
    absent = digest(b"absent")
    cut = R.Digest(hash=small.hash[:-1], size_bytes=5)
    lying = R.Digest(hash=small.hash, size_bytes=1 << 40)
    name = f"{BUCKET}/blobs/{path(small)}"
    result = R.ActionResult(exit_code=7, stdout_raw=b"said")
    batch = lambda **more: R.BatchUpdateBlobsRequest(**{**HERE, **more})
    entry = R.BatchUpdateBlobsRequest.Request
    update = lambda of, **more: R.UpdateActionResultRequest(action_digest=of, action_result=result, **{**HERE, **more})
    mapping = R.RegisterChunkMappingRequest
    half = door.upload_name(digest(b"half of it"))
    door.write(door.messages(half, b"half", finish=False))
    hex_rule = "a digest is lower-case hexadecimal digits of its function, and a size from 0 on"
    no_function = "this digest function is not served here: see the capabilities"
    return {
        "build.bazel.remote.execution.v2.Capabilities/GetCapabilities": Row(
            R.GetCapabilitiesRequest(**HERE),
            lambda answer: answer.cache_capabilities.action_cache_update_capabilities.update_enabled
            and R.DigestFunction.BLAKE3 in answer.cache_capabilities.digest_functions
            and 0 < answer.cache_capabilities.max_batch_total_size_bytes < 4 << 20,
            [
                Refused("an instance without a bucket", Code.INVALID_ARGUMENT, NO_BUCKET, R.GetCapabilitiesRequest(instance_name="nothing")),
                Refused("a reserved word", Code.INVALID_ARGUMENT, "or a reserved word", R.GetCapabilitiesRequest(instance_name="main/blobs/x")),
            ],
        ),
        CAS + "FindMissingBlobs": Row(
            R.FindMissingBlobsRequest(blob_digests=[small, absent, digest(b"")], **HERE),
            lambda answer: list(answer.missing_blob_digests) == [absent],
            [
                Refused("a digest that is cut", Code.INVALID_ARGUMENT, hex_rule, R.FindMissingBlobsRequest(blob_digests=[small, cut], **HERE)),
                Refused("another tenant's bucket", Code.INVALID_ARGUMENT, NO_BUCKET, shown=STRANGER),
            ],
        ),
        CAS + "BatchUpdateBlobs": Row(
            batch(requests=[entry(digest=small, data=other), entry(digest=absent, data=other)]),
            lambda answer: [one.status.code for one in answer.responses] == [0, Code.INVALID_ARGUMENT.value[0]]
            and "the bytes are not those of" in answer.responses[1].status.message,
            [
                Refused("no such digest function", Code.INVALID_ARGUMENT, no_function, batch(digest_function=99)),
                Refused("more than a call takes", Code.INVALID_ARGUMENT, "bytes in one call; the limit is", batch(requests=[entry(digest=lying)])),
                Refused(
                    "a message that is too long",
                    Code.OUT_OF_RANGE,
                    "message length too large",
                    lambda: batch(requests=[entry(digest=absent, data=bytes(17 << 20))]),
                ),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        CAS + "BatchReadBlobs": Row(
            R.BatchReadBlobsRequest(digests=[small, absent], **HERE),
            lambda answer: (answer.responses[0].data, answer.responses[1].status.code) == (other, Code.NOT_FOUND.value[0]),
            [
                Refused("more than an answer takes", Code.INVALID_ARGUMENT, "bytes in one call", R.BatchReadBlobsRequest(digests=[lying], **HERE)),
                Refused("a token for another bucket", Code.PERMISSION_DENIED, "this token is not for this bucket", shown=NARROW),
            ],
        ),
        CAS + "GetTree": Row(
            R.GetTreeRequest(root_digest=digest(root), **HERE),
            lambda pages: [one.files[0].name for page in pages for one in page.directories] == ["f"],
            [
                Refused("no root", Code.NOT_FOUND, "the root of the tree is not there", R.GetTreeRequest(root_digest=absent, **HERE)),
                Refused(
                    "a token of somebody's own",
                    Code.INVALID_ARGUMENT,
                    "this page token was not given out here",
                    R.GetTreeRequest(root_digest=digest(root), page_token="next", **HERE),
                ),
                Refused("no directory", Code.INVALID_ARGUMENT, "should be a directory is none", R.GetTreeRequest(root_digest=small, **HERE)),
            ],
        ),
        CAS + "SplitBlob": Row(
            R.SplitBlobRequest(blob_digest=digest(large), **HERE),
            lambda answer: len(answer.chunk_digests) > 1 and sum(one.size_bytes for one in answer.chunk_digests) == len(large),
            [
                Refused("no such blob", Code.NOT_FOUND, "there is no such blob", R.SplitBlobRequest(blob_digest=absent, **HERE)),
                Refused("no digest", Code.INVALID_ARGUMENT, "a digest is missing", R.SplitBlobRequest(**HERE)),
            ],
        ),
        CAS + "GetChunkMapping": Row(
            R.GetChunkMappingRequest(blob_digest=digest(large), **HERE),
            lambda pages: sum(one.size_bytes for page in pages for one in page.chunk_digests) == len(large),
            [
                Refused("no such blob", Code.NOT_FOUND, "there is no such blob", R.GetChunkMappingRequest(blob_digest=absent, **HERE)),
                Refused("another owner", Code.PERMISSION_DENIED, "access denied", shown=BERT),
            ],
        ),
        CAS + "SpliceBlob": Row(
            R.SpliceBlobRequest(blob_digest=digest(other * 2), chunk_digests=[small, small], **HERE),
            lambda answer: answer.blob_digest == digest(other * 2),
            [
                Refused(
                    "chunks of another length",
                    Code.INVALID_ARGUMENT,
                    "not as many bytes as the blob",
                    R.SpliceBlobRequest(blob_digest=absent, chunk_digests=[small], **HERE),
                ),
                Refused(
                    "chunks of another blob",
                    Code.INVALID_ARGUMENT,
                    "the bytes are not those of",
                    R.SpliceBlobRequest(blob_digest=digest(b"x" * 10), chunk_digests=[small, small], **HERE),
                ),
                Refused(
                    "a chunk that is not there",
                    Code.NOT_FOUND,
                    f"chunk .*{absent.hash}.* is not there",
                    R.SpliceBlobRequest(blob_digest=digest(b"absent too."), chunk_digests=[absent, small], **HERE),
                ),
            ],
        ),
        CAS + "RegisterChunkMapping": Row(
            [mapping(blob_digest=digest(other * 3), chunk_digests=[small], **HERE), mapping(chunk_digests=[small, small])],
            lambda answer: answer.blob_digest == digest(other * 3),
            [
                Refused("nothing", Code.INVALID_ARGUMENT, "a mapping without a message", []),
                Refused(
                    "a chunk that is too large",
                    Code.INVALID_ARGUMENT,
                    "a chunk of more than 16777216 bytes",
                    [mapping(blob_digest=absent, **HERE), mapping(chunk_digests=[lying])],
                ),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        BYTES + "Read": Row(
            bytestream.ReadRequest(resource_name=name, read_offset=2, read_limit=2),
            lambda messages: b"".join(message.data for message in messages) == other[2:4],
            [
                Refused(
                    "behind the end", Code.OUT_OF_RANGE, "the blob has 5 bytes", bytestream.ReadRequest(resource_name=name, read_offset=6)
                ),
                Refused(
                    "a limit of what is compressed",
                    Code.INVALID_ARGUMENT,
                    "no read limit",
                    bytestream.ReadRequest(resource_name=f"{BUCKET}/compressed-blobs/zstd/{path(small)}", read_limit=1),
                ),
                Refused(
                    "another compressor",
                    Code.INVALID_ARGUMENT,
                    "only zstd is served",
                    bytestream.ReadRequest(resource_name=f"{BUCKET}/compressed-blobs/deflate/{path(small)}"),
                ),
                Refused(
                    "no such blob", Code.NOT_FOUND, "there is no such blob", bytestream.ReadRequest(resource_name=f"{BUCKET}/blobs/{path(absent)}")
                ),
            ],
        ),
        BYTES + "Write": Row(
            lambda: list(door.messages(door.upload_name(small), other)),
            lambda answer: answer.committed_size == len(other),
            [
                Refused(
                    "other bytes",
                    Code.INVALID_ARGUMENT,
                    "the bytes are not those of",
                    lambda: list(door.messages(door.upload_name(absent), b"tnesba")),
                ),
                Refused(
                    "another place than where it stopped",
                    Code.INVALID_ARGUMENT,
                    "the upload goes on at offset 4, and not at 7",
                    lambda: list(door.messages(half, b"it", first=7)),
                ),
                Refused(
                    "an upload that there is not",
                    Code.INVALID_ARGUMENT,
                    "no upload of this name",
                    lambda: list(door.messages(door.upload_name(absent), b"sent", first=2)),
                ),
                Refused(
                    "the name of a blob",
                    Code.INVALID_ARGUMENT,
                    "is no name of a blob or an upload",
                    [bytestream.WriteRequest(resource_name=name, data=other, finish_write=True)],
                ),
                Refused("nothing", Code.INVALID_ARGUMENT, "a write without a message", []),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        BYTES + "QueryWriteStatus": Row(
            bytestream.QueryWriteStatusRequest(resource_name=half),
            lambda answer: (answer.committed_size, answer.complete) == (4, False),
            [
                Refused(
                    "an upload that nobody began",
                    Code.NOT_FOUND,
                    "there is no such upload",
                    lambda: bytestream.QueryWriteStatusRequest(resource_name=door.upload_name(absent)),
                ),
                Refused("another tenant", Code.INVALID_ARGUMENT, NO_BUCKET, shown=STRANGER),
            ],
        ),
        RESULTS + "UpdateActionResult": Row(
            update(digest(action)),
            lambda answer: answer == result,
            [
                Refused(
                    "an action that was not sent",
                    Code.FAILED_PRECONDITION,
                    "have to be sent before its result",
                    update(absent),
                    details={"PreconditionFailure": {f"MISSING blobs/{path(absent)}"}},
                ),
                Refused(
                    "a command that was not sent",
                    Code.FAILED_PRECONDITION,
                    "have to be sent before its result",
                    update(digest(orphan)),
                    details={"PreconditionFailure": {f"MISSING blobs/{path(digest(b'no command'))}"}},
                ),
                Refused(
                    "no result",
                    Code.INVALID_ARGUMENT,
                    "the result is missing",
                    R.UpdateActionResultRequest(action_digest=digest(action), **HERE),
                ),
                Refused("a token that writes, but no results", Code.PERMISSION_DENIED, "writes no results of actions", shown=CARELESS),
            ],
        ),
        RESULTS + "GetActionResult": Row(
            R.GetActionResultRequest(action_digest=digest(action), **HERE),
            lambda answer: answer == result,
            [
                Refused(
                    "an action without a result",
                    Code.NOT_FOUND,
                    "there is no result of this action",
                    R.GetActionResultRequest(action_digest=absent, **HERE),
                ),
                Refused(
                    "another instance of the bucket",
                    Code.NOT_FOUND,
                    "there is no result of this action",
                    R.GetActionResultRequest(instance_name=f"{BUCKET}/other", action_digest=digest(action)),
                ),
            ],
        ),
        ASSETS + "Push/PushBlob": Row(
            asset.PushBlobRequest(uris=["urn:x"], blob_digest=small, **HERE),
            lambda answer: answer == asset.PushBlobResponse(),
            [
                Refused(
                    "a blob that was not sent",
                    Code.FAILED_PRECONDITION,
                    "has to be sent before it",
                    asset.PushBlobRequest(uris=["urn:x"], blob_digest=absent, references_blobs=[digest(b"no command")], **HERE),
                    details={"PreconditionFailure": {f"MISSING blobs/{path(of)}" for of in (absent, digest(b"no command"))}},
                ),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        ASSETS + "Push/PushDirectory": Row(
            asset.PushDirectoryRequest(uris=["urn:x"], root_directory_digest=digest(root), **HERE),
            lambda answer: answer == asset.PushDirectoryResponse(),
            [
                Refused(
                    "no address", Code.INVALID_ARGUMENT, "address", asset.PushDirectoryRequest(root_directory_digest=digest(root), **HERE)
                ),
                Refused("another owner", Code.PERMISSION_DENIED, "access denied", shown=BERT),
            ],
        ),
        ASSETS + "Fetch/FetchBlob": Row(
            asset.FetchBlobRequest(uris=["urn:nothing", "urn:x"], **HERE),
            lambda answer: (answer.status.code, answer.uri, answer.blob_digest) == (0, "urn:x", small),
            [
                Refused("no address", Code.INVALID_ARGUMENT, "address", asset.FetchBlobRequest(**HERE)),
                Refused("a token for another bucket", Code.PERMISSION_DENIED, "this token is not for this bucket", shown=NARROW),
            ],
        ),
        ASSETS + "Fetch/FetchDirectory": Row(
            asset.FetchDirectoryRequest(uris=["urn:x"], **HERE),
            lambda answer: (answer.status.code, answer.root_directory_digest) == (0, digest(root)),
            [
                Refused(
                    "no such digest function",
                    Code.INVALID_ARGUMENT,
                    no_function,
                    asset.FetchDirectoryRequest(uris=["urn:x"], digest_function=99, **HERE),
                ),
                Refused("another tenant", Code.INVALID_ARGUMENT, NO_BUCKET, shown=STRANGER),
            ],
        ),
        "grpc.health.v1.Health/Check": Row(
            health.HealthCheckRequest(),
            lambda answer: answer.status == health.HealthCheckResponse.SERVING,
            [Refused("no such service", Code.NOT_FOUND, "service not registered", health.HealthCheckRequest(service="nothing"))],
            shown=NOBODY,
            is_open=True,
        ),
        "grpc.health.v1.Health/Watch": Row(
            health.HealthCheckRequest(),
            lambda messages: messages[0].status == health.HealthCheckResponse.SERVING,
            [Refused("no such service", Code.NOT_FOUND, "service not registered", health.HealthCheckRequest(service="nothing"))],
            shown=WRONG,
            first=1,
            is_open=True,
        ),
        **{f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": of_reflection() for version in ("v1", "v1alpha")},
    }


def of_reflection():
    ask = reflection.ServerReflectionRequest
    return Row(
        [ask(list_services=""), ask(file_containing_symbol="google.bytestream.ByteStream.Read")],
        lambda answers: "google.bytestream.ByteStream" in {one.name for one in answers[0].list_services_response.service}
        and len(answers[1].file_descriptor_response.file_descriptor_proto) == 1,
        [
            Refused("no such symbol", Code.NOT_FOUND, "symbol 'cairn.v0' not found", [ask(file_containing_symbol="cairn.v0")]),
            Refused("no such file", Code.NOT_FOUND, "file 'secret.proto' not found", [ask(file_by_filename="secret.proto")]),
            Refused("no question", Code.INVALID_ARGUMENT, "invalid MessageRequest", [ask()]),
        ],
        shown=NOBODY,
        is_open=True,
    )
