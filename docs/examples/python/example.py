"""The usual jobs over gRPC, one function each: `python3 example.py ADDRESS ADMIN_TOKEN_FILE`.

The modules that generate.py makes have to be in `stubs` beside it. Leaves the bucket `python-example` behind, and an access key.
"""

import base64
import hashlib
import json
import pathlib
import sys
import uuid

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent / "stubs"))
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset, remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi, remote_execution_pb2_grpc as reapi_grpc
from cairn.v1 import admin_pb2 as admin, admin_pb2_grpc as admin_grpc
from cairn.v1 import chunk_store_pb2 as chunks, chunk_store_pb2_grpc as chunks_grpc
from cairn.v1 import events_pb2 as events, events_pb2_grpc as events_grpc
from cairn.v1 import objects_pb2 as objects, objects_pb2_grpc as objects_grpc
from google.bytestream import bytestream_pb2 as bytestream, bytestream_pb2_grpc as bytestream_grpc

BUCKET = "python-example"
PIECE = 1 << 20


def pieces(data):
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


def make_bucket_and_key(channel, shown):
    """Both are the admin token's to make. What the key shows opens its owner's buckets."""
    try:
        admin_grpc.BucketsStub(channel).CreateBucket(admin.CreateBucketRequest(name=BUCKET, owner="python"), metadata=shown)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.ALREADY_EXISTS:
            raise
    key = admin_grpc.AdminStub(channel).CreateKey(admin.CreateKeyRequest(owner="python"), metadata=shown)
    return (("authorization", "Basic " + base64.b64encode(f"{key.id}:{key.secret}".encode()).decode()),)


def put_and_read_an_object(channel, shown, key, data):
    """The header first, then the bytes in pieces; read back whole, and a range of it."""
    stub, put = objects_grpc.ObjectsStub(channel), objects.PutObjectRequest
    header = put.Header(bucket=BUCKET, key=key, content_type="text/plain", metadata={"author": "python"}, tags={"kind": "example"})

    def messages():
        yield put(header=header)
        yield from (put(data=piece) for piece in pieces(data))

    made = stub.PutObject(messages(), metadata=shown)
    whole = stub.GetObject(objects.GetObjectRequest(bucket=BUCKET, key=key), metadata=shown)
    assert b"".join(message.data for message in whole) == data
    some = stub.GetObject(objects.GetObjectRequest(bucket=BUCKET, key=key, offset=10, length=20), metadata=shown)
    assert b"".join(message.data for message in some) == data[10:30]
    print(f"object {key}: {made.size} bytes, tag {made.etag}, version {made.version_id}")


def send_chunks(channel, shown, key, plain):
    """A chunk's id is the SHA-512/256 of its plain bytes. Only what is not there is sent; then an object is made of all."""
    stub, here = chunks_grpc.ChunkStoreStub(channel), dict(bucket=BUCKET)
    session = stub.OpenSession(chunks.OpenSessionRequest(**here), metadata=shown).id
    ids = [hashlib.new("sha512_256", chunk).digest() for chunk in plain]
    present = stub.HasChunks(chunks.HasChunksRequest(ids=b"".join(ids), session=session, **here), metadata=shown).present
    absent = {id: chunk for at, (id, chunk) in enumerate(zip(ids, plain)) if not present[at // 8] >> at % 8 & 1}

    def messages():
        yield chunks.PutChunksRequest(session=session, **here)
        for id, chunk in absent.items():
            yield chunks.PutChunksRequest(id=id, encoding=chunks.CHUNK_ENCODING_PLAIN, data=chunk)

    stored = max((ack.stored for ack in stub.PutChunks(messages(), metadata=shown)), default=0)
    header = objects.PutObjectRequest.Header(key=key, **here)
    request = chunks.CommitManifestRequest(session=session, header=header, chunks=chunks.ChunkList(ids=b"".join(ids)))
    made = stub.CommitManifest(request, metadata=shown)
    assert made.missing_count == 0 and made.object.size == sum(map(len, plain))
    got = stub.GetChunks(chunks.GetChunksRequest(ids=b"".join(ids), plain=True, **here), metadata=shown)
    assert [message.data for message in got] == plain
    print(f"chunks: {len(ids)} named, {stored} sent, object {made.object.key} made of them")


def search(channel, shown):
    request = admin.SearchRequest(bucket=BUCKET, tags={"kind": "example"}, size_min=1)
    found = admin_grpc.IndexStub(channel).Search(request, metadata=shown).objects
    print("search:", ", ".join(one.key for one in found))


def follow_events(channel, shown, key):
    """From the oldest event on; a program that goes on keeps the last position of each shard as its cursor."""
    cursor, call = {}, events_grpc.EventsStub(channel).Subscribe(events.SubscribeRequest(follow=True), metadata=shown)
    for message in call:
        cursor[message.shard] = message.position
        event = json.loads(message.event)
        if event["payload"].get("key") == key:
            print(f"event {event['event_type']} of {key}, in shard {message.shard} at {message.position}")
            call.cancel()
            return cursor


def use_the_cache(channel, shown):
    """The Remote Execution API: blobs are named by digest and size, results by the digest of their action."""
    cas, here = reapi_grpc.ContentAddressableStorageStub(channel), dict(instance_name=BUCKET)
    digest = lambda blob: reapi.Digest(hash=hashlib.sha256(blob).hexdigest(), size_bytes=len(blob))
    command = reapi.Command(arguments=["cc", "main.c"]).SerializeToString(deterministic=True)
    action = reapi.Action(command_digest=digest(command)).SerializeToString(deterministic=True)
    output = b"what the compiler made\n" * 100_000
    asked = reapi.FindMissingBlobsRequest(blob_digests=[digest(blob) for blob in (command, action, output)], **here)
    absent = [one.hash for one in cas.FindMissingBlobs(asked, metadata=shown).missing_blob_digests]
    small = [reapi.BatchUpdateBlobsRequest.Request(digest=digest(blob), data=blob) for blob in (command, action)]
    answer = cas.BatchUpdateBlobs(reapi.BatchUpdateBlobsRequest(requests=small, **here), metadata=shown)
    assert all(one.status.code == 0 for one in answer.responses), "each blob has a status of its own"

    stream, path = bytestream_grpc.ByteStreamStub(channel), f"blobs/{digest(output).hash}/{len(output)}"
    write = lambda at: bytestream.WriteRequest(
        resource_name=f"{BUCKET}/uploads/{uuid.uuid4()}/{path}" if at == 0 else "",
        write_offset=at,
        data=output[at : at + PIECE],
        finish_write=at + PIECE >= len(output),
    )
    stream.Write(map(write, range(0, len(output), PIECE)), metadata=shown)
    read = stream.Read(bytestream.ReadRequest(resource_name=f"{BUCKET}/{path}"), metadata=shown)
    assert b"".join(message.data for message in read) == output

    results, result = reapi_grpc.ActionCacheStub(channel), reapi.ActionResult(exit_code=0)
    result.output_files.add(path="main.o", digest=digest(output))
    update = reapi.UpdateActionResultRequest(action_digest=digest(action), action_result=result, **here)
    results.UpdateActionResult(update, metadata=shown)
    assert results.GetActionResult(reapi.GetActionResultRequest(action_digest=digest(action), **here), metadata=shown) == result

    uris = ["https://example.net/main.o"]
    asset_grpc.PushStub(channel).PushBlob(asset.PushBlobRequest(uris=uris, blob_digest=digest(output), **here), metadata=shown)
    fetched = asset_grpc.FetchStub(channel).FetchBlob(asset.FetchBlobRequest(uris=uris, **here), metadata=shown)
    assert fetched.status.code == 0 and fetched.blob_digest == digest(output)
    print(f"cache: {len(absent)} blobs were missing; a result and an asset name {digest(output).hash[:12]}…")


def main(address, token_file):
    operator = (("authorization", "Bearer " + pathlib.Path(token_file).read_text().strip()),)
    with grpc.insecure_channel(address) as channel:
        shown = make_bucket_and_key(channel, operator)
        put_and_read_an_object(channel, shown, "notes.txt", b"a line of text\n" * 200_000)
        send_chunks(channel, shown, "numbers.txt", [b"%d is a number\n" % n * 1000 for n in range(20)])
        search(channel, operator)
        follow_events(channel, operator, "notes.txt")
        use_the_cache(channel, shown)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
