"""Rows of our own services, `cairn.v1`."""

import base64
import hashlib
import json
import random
import uuid

from grpc import StatusCode as Code

import door
from calls import BERT, NARROW, OPERATOR, READER, STRANGER, Refused, Row, call
from door import BUCKET, SHOWN

admin, _ = door.made("cairn/v1/admin.proto")
chunks, _ = door.made("cairn/v1/chunk_store.proto")
events, _ = door.made("cairn/v1/events.proto")
objects, _ = door.made("cairn/v1/objects.proto")

STORE, OBJECTS, BUCKETS, ADMIN = (f"cairn.v1.{name}/" for name in ("ChunkStore", "Objects", "Buckets", "Admin"))
NO_BUCKET, NO_OBJECT = "^there is no such bucket$", "^there is no such object$"
NO_VERSION_ID = "a version's id is null, or 40 of 0-9 and a-f"
BAD_TOKEN = "the page token is none that was given out for this"
NOT_THE_ADMINS = Refused("a token that is not the server's own", Code.UNAUTHENTICATED, "the server's admin token.*\\(unauthorized\\)$", shown=SHOWN)


def id_of(plain):
    return hashlib.new("sha512_256", plain).digest()


def put_request(key, data=b"", bucket=BUCKET, **header):
    """Messages of a put, its bytes in two."""
    make = objects.PutObjectRequest
    half = len(data) // 2
    return [make(header=make.Header(bucket=bucket, key=key, **header)), make(data=data[:half]), make(data=data[half:])]


def put(key, data=b"", **more):
    return call(OBJECTS + "PutObject", put_request(key, data, **more), SHOWN)


def put_chunk(plain):
    request = [chunks.PutChunksRequest(bucket=BUCKET, id=id_of(plain), encoding=chunks.CHUNK_ENCODING_PLAIN, data=plain)]
    call(STORE + "PutChunks", request, SHOWN)
    return id_of(plain)


def new_bucket(**more):
    name = f"b-{uuid.uuid4()}"
    call(BUCKETS + "CreateBucket", admin.CreateBucketRequest(name=name, **more), OPERATOR)
    return name


def new_key(**more):
    return call(ADMIN + "CreateKey", admin.CreateKeyRequest(owner="admin", **more), OPERATOR)


def settings(**of):
    """A `google.protobuf.Struct`."""
    request = admin.ChangeBucketRequest()
    request.settings.update(of)
    return request.settings


def wrong(*fields):
    return {"BadRequest": set(fields)}


def rows():
    return rows_of_chunks() | rows_of_objects() | rows_of_the_admin_api()


def rows_of_chunks():
    here, absent = put_chunk(b"a chunk of the rows"), id_of(b"nobody has this")
    large = random.Random(3).randbytes(500_000)
    put("cut", large)
    put_chunks = chunks.PutChunksRequest
    plain = dict(encoding=chunks.CHUNK_ENCODING_PLAIN)
    new = f"chunk {uuid.uuid4()}".encode()
    resolve = lambda **more: chunks.ResolveRangeRequest(**{"bucket": BUCKET, "key": "cut", **more})

    def check_extents(messages):
        extents = [extent for message in messages for extent in message.extents]
        for one in extents:
            assert id_of(large[one.offset : one.offset + one.length]) == one.id, "its id is of other bytes"
        return extents[0].offset <= 200_000 < extents[0].offset + extents[0].length and extents[-1].offset <= 299_999

    return {
        STORE + "HasChunks": Row(
            chunks.HasChunksRequest(bucket=BUCKET, ids=absent + here + absent),
            lambda answer: answer.present == b"\x02",
            [
                Refused(
                    "an id that is cut",
                    Code.INVALID_ARGUMENT,
                    "ids are 32 bytes each",
                    chunks.HasChunksRequest(bucket=BUCKET, ids=here + absent[:-1]),
                ),
                Refused(
                    "too many ids",
                    Code.INVALID_ARGUMENT,
                    "65536 at most",
                    lambda: chunks.HasChunksRequest(bucket=BUCKET, ids=bytes(32 * 65_537)),
                ),
                Refused("another tenant's bucket", Code.NOT_FOUND, NO_BUCKET, chunks.HasChunksRequest(bucket="elsewhere", ids=here)),
                Refused(
                    "a session that nobody opened",
                    Code.NOT_FOUND,
                    "there is no such session",
                    chunks.HasChunksRequest(bucket=BUCKET, ids=here, session=bytes(16)),
                ),
                Refused("a token for another bucket", Code.PERMISSION_DENIED, "this token is not for this bucket", shown=NARROW),
            ],
        ),
        STORE + "PutChunks": Row(
            [put_chunks(bucket=BUCKET), put_chunks(id=id_of(new), data=new, **plain), put_chunks(id=here, data=b"a chunk of the rows", **plain)],
            lambda acks: acks[-1].stored == 2
            and [ack.stored for ack in acks] == sorted({ack.stored for ack in acks})
            and {ack.durability for ack in acks} == {chunks.DURABILITY_SYNC},
            [
                Refused(
                    "bytes that are not its id's",
                    Code.INVALID_ARGUMENT,
                    f"chunk {absent.hex()}: its bytes have digest {id_of(b'lie').hex()}",
                    [put_chunks(bucket=BUCKET, id=absent, data=b"lie", **plain)],
                ),
                Refused(
                    "bytes that are no frame",
                    Code.INVALID_ARGUMENT,
                    f"chunk {absent.hex()}: ",
                    [put_chunks(bucket=BUCKET, id=absent, data=b"no frame of zstd")],
                ),
                Refused("an id that is cut", Code.INVALID_ARGUMENT, "an id is 32 bytes", [put_chunks(bucket=BUCKET, id=here[:-1], data=b"x")]),
                Refused(
                    "an encoding that is none",
                    Code.INVALID_ARGUMENT,
                    "an encoding that is not known",
                    [put_chunks(bucket=BUCKET, id=here, data=b"x", encoding=9)],
                ),
                Refused(
                    "another bucket on the way",
                    Code.INVALID_ARGUMENT,
                    "the first message names the bucket of all",
                    [put_chunks(bucket=BUCKET), put_chunks(bucket="other", id=here, data=b"x", **plain)],
                ),
                Refused(
                    "a message that is too long",
                    Code.OUT_OF_RANGE,
                    "message length too large",
                    lambda: [put_chunks(bucket=BUCKET), put_chunks(id=absent, data=bytes(17 << 20), **plain)],
                ),
                Refused("nothing", Code.INVALID_ARGUMENT, "a put without a message", []),
                Refused(
                    "a session that is none",
                    Code.NOT_FOUND,
                    "there is no such session",
                    [put_chunks(bucket=BUCKET, session=b"mine"), put_chunks(id=here, data=b"a chunk of the rows", **plain)],
                ),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        STORE + "GetChunks": Row(
            chunks.GetChunksRequest(bucket=BUCKET, ids=absent + here, plain=True),
            lambda messages: [(one.id, one.missing, one.data) for one in messages]
            == [(absent, True, b""), (here, False, b"a chunk of the rows")],
            [
                Refused(
                    "an id that is cut", Code.INVALID_ARGUMENT, "ids are 32 bytes each", chunks.GetChunksRequest(bucket=BUCKET, ids=here[1:])
                ),
                Refused("a caller of another tenant", Code.NOT_FOUND, NO_BUCKET, shown=STRANGER),
                Refused("another owner", Code.PERMISSION_DENIED, "^access denied$", shown=BERT),
            ],
        ),
        STORE + "ResolveRange": Row(
            resolve(offset=200_000, length=100_000),
            check_extents,
            [
                Refused("behind the end", Code.OUT_OF_RANGE, "the object has 500000 bytes", resolve(offset=500_001)),
                Refused("a version's id that is none", Code.INVALID_ARGUMENT, NO_VERSION_ID, resolve(version_id="newest")),
                Refused("no such version", Code.NOT_FOUND, NO_OBJECT, resolve(version_id="0" * 40)),
                Refused("no such key", Code.NOT_FOUND, NO_OBJECT, resolve(key="nothing")),
            ],
        ),
    }


def rows_of_objects():
    data = b"0123456789" * 1000
    door.make_bucket("versioned", settings={"versioning": "enabled"})
    door.make_bucket("small", settings={"quota_bytes": 100})
    first = put("read", data, metadata={"author": "me"}, tags={"kind": "row"}, content_type="text/plain")
    put("folder/one"), put("folder/two")
    gone = put("gone", b"x", bucket="versioned")
    marker = call(OBJECTS + "DeleteObject", objects.DeleteObjectRequest(bucket="versioned", key="gone"), SHOWN)
    key = new_key()
    by_key = (("authorization", "Basic " + base64.b64encode(f"{key.id}:{key.secret}".encode()).decode()),)
    wrong_secret = (("authorization", "Basic " + base64.b64encode(f"{key.id}:guessed".encode()).decode()),)
    get = lambda **more: objects.GetObjectRequest(**{"bucket": BUCKET, "key": "read", **more})
    head = lambda **more: objects.HeadObjectRequest(**{"bucket": BUCKET, "key": "read", **more})
    copy = lambda **more: objects.CopyObjectRequest(**{"from_bucket": BUCKET, "from_key": "read", "bucket": BUCKET, "key": "copy", **more})
    make = objects.PutObjectRequest

    def deleted():
        put("to be deleted")
        return objects.DeleteObjectRequest(bucket=BUCKET, key="to be deleted")

    return {
        OBJECTS + "HeadObject": Row(
            head(),
            lambda answer: answer == first
            and (answer.size, answer.content_type, dict(answer.metadata), dict(answer.tags), answer.etag.strip('"'))
            == (len(data), "text/plain", {"author": "me"}, {"kind": "row"}, hashlib.md5(data).hexdigest()),
            [
                Refused("no such object", Code.NOT_FOUND, NO_OBJECT, head(key="nothing")),
                Refused("a delete marker", Code.NOT_FOUND, NO_OBJECT, head(bucket="versioned", key="gone")),
                Refused("a version's id that is none", Code.INVALID_ARGUMENT, NO_VERSION_ID, head(version_id="ABC")),
                Refused("a key that is too long", Code.INVALID_ARGUMENT, "1 to 1024 bytes", head(key="k" * 1025)),
                Refused("a secret that is guessed", Code.UNAUTHENTICATED, "this authorization opens nothing here", shown=wrong_secret),
            ],
            shown=by_key,
        ),
        OBJECTS + "GetObject": Row(
            get(offset=5, length=20),
            lambda messages: messages[0].object == first and b"".join(one.data for one in messages[1:]) == data[5:25],
            [
                Refused("behind the end", Code.OUT_OF_RANGE, f"the object has {len(data)} bytes", get(offset=len(data) + 1)),
                Refused("a version that is a marker", Code.NOT_FOUND, NO_OBJECT, get(bucket="versioned", key="gone", version_id=marker.version_id)),
                Refused("no key", Code.INVALID_ARGUMENT, "1 to 1024 bytes", get(key="")),
                Refused("another owner", Code.PERMISSION_DENIED, "^access denied$", shown=BERT),
            ],
            shown=READER,
        ),
        OBJECTS + "PutObject": Row(
            lambda: put_request("put", data, tags={"kind": "put"}),
            lambda answer: (answer.key, answer.size, dict(answer.tags)) == ("put", len(data), {"kind": "put"}),
            [
                Refused(
                    "an object that is there already",
                    Code.FAILED_PRECONDITION,
                    "the object is not the one that was meant",
                    put_request("read", data, if_absent=True),
                ),
                Refused(
                    "another tag than it has",
                    Code.FAILED_PRECONDITION,
                    "the object is not the one that was meant",
                    put_request("read", data, if_match="0" * 32),
                ),
                Refused("bytes before the header", Code.INVALID_ARGUMENT, "the first message is the header", [make(data=b"x")]),
                Refused("two headers", Code.INVALID_ARGUMENT, "the header comes once", put_request("two")[:1] * 2),
                Refused("nothing", Code.INVALID_ARGUMENT, "the first message is the header", []),
                Refused(
                    "metadata that is too long", Code.INVALID_ARGUMENT, "metadata has 2048 bytes at most", put_request("put", metadata={"a": "b" * 2048})
                ),
                Refused("too many tags", Code.INVALID_ARGUMENT, "10 tags at most", put_request("put", tags={f"{n}": "" for n in range(11)})),
                Refused("over the quota", Code.RESOURCE_EXHAUSTED, "quota of 100 bytes", put_request("put", data, bucket="small")),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        OBJECTS + "ListObjects": Row(
            objects.ListObjectsRequest(bucket=BUCKET, prefix="fold", delimiter="/"),
            lambda answer: (list(answer.prefixes), list(answer.objects), answer.next_page_token) == (["folder/"], [], ""),
            [
                Refused(
                    "a token of somebody's own", Code.INVALID_ARGUMENT, BAD_TOKEN, objects.ListObjectsRequest(bucket=BUCKET, page_token="read")
                ),
                Refused(
                    "a page that is too long", Code.INVALID_ARGUMENT, "1000 entries at most", objects.ListObjectsRequest(bucket=BUCKET, page_size=1001)
                ),
                Refused("another tenant's bucket", Code.NOT_FOUND, NO_BUCKET, objects.ListObjectsRequest(bucket="elsewhere")),
            ],
        ),
        OBJECTS + "ListVersions": Row(
            objects.ListVersionsRequest(bucket="versioned", prefix="gone"),
            lambda answer: [(one.version_id, one.delete_marker) for one in answer.versions][-2:]
            == [(marker.version_id, True), (gone.version_id, False)],
            [
                Refused(
                    "a token of somebody's own",
                    Code.INVALID_ARGUMENT,
                    BAD_TOKEN,
                    objects.ListVersionsRequest(bucket="versioned", page_token="gone"),
                ),
                Refused("a name that no bucket has", Code.NOT_FOUND, NO_BUCKET, objects.ListVersionsRequest(bucket="Not/A bucket")),
            ],
        ),
        OBJECTS + "DeleteObject": Row(
            deleted,
            lambda answer: (answer.deleted, answer.marker_put) == (True, False),
            [
                Refused(
                    "a version's id that is none",
                    Code.INVALID_ARGUMENT,
                    NO_VERSION_ID,
                    objects.DeleteObjectRequest(bucket=BUCKET, key="read", version_id="all"),
                ),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        OBJECTS + "CopyObject": Row(
            copy(),
            lambda answer: (answer.key, answer.size, answer.etag, dict(answer.metadata)) == ("copy", len(data), first.etag, {"author": "me"}),
            [
                Refused("nothing to copy", Code.NOT_FOUND, NO_OBJECT, copy(from_key="nothing")),
                Refused("from another tenant's bucket", Code.NOT_FOUND, NO_BUCKET, copy(from_bucket="elsewhere")),
                Refused("to a bucket that the token is not for", Code.PERMISSION_DENIED, "not for this bucket", copy(from_bucket="other"), NARROW),
                Refused("over the quota", Code.RESOURCE_EXHAUSTED, "quota of 100 bytes", copy(bucket="small")),
            ],
        ),
    }


def rows_of_the_admin_api():
    create = lambda **more: admin.CreateBucketRequest(**{"name": f"b-{uuid.uuid4()}", **more})
    change = lambda **of: admin.ChangeBucketRequest(name="other", settings=settings(**of))
    put("found", b"found by its tag", tags={"kind": "searched"})
    subscribe = events.SubscribeRequest
    key = new_key()
    return {
        BUCKETS + "ListBuckets": Row(
            admin.ListBucketsRequest(prefix="oth"),
            lambda answer: [(one.name, one.tenant, one.owner) for one in answer.buckets] == [("other", "default", "admin")],
            [
                NOT_THE_ADMINS,
                Refused(
                    "a page that is too long",
                    Code.INVALID_ARGUMENT,
                    "\\(bad_request\\)$",
                    admin.ListBucketsRequest(page_size=201),
                    details=wrong("page_size"),
                ),
            ],
            shown=OPERATOR,
        ),
        BUCKETS + "CreateBucket": Row(
            lambda: create(settings=settings(versioning="enabled", level=3)),
            lambda answer: (answer.settings["versioning"], answer.settings["level"]) == ("enabled", 3),
            [
                Refused("a name that none may have", Code.INVALID_ARGUMENT, "\\(bad_request\\)$", create(name="A"), details=wrong("name")),
                Refused("a name that is there", Code.ALREADY_EXISTS, "\\(bucket_exists\\)$", create(name="other")),
                Refused("a name of another tenant's", Code.ALREADY_EXISTS, "\\(bucket_name_taken\\)$", create(name="elsewhere")),
                Refused(
                    "settings that there are not",
                    Code.INVALID_ARGUMENT,
                    "\\(bad_request\\)$",
                    lambda: create(settings=settings(colour="red", level=99)),
                    details=wrong("settings.colour", "settings.level"),
                ),
                Refused("what is not made yet", Code.UNIMPLEMENTED, "\\(not_implemented\\)$", lambda: create(settings=settings(domain="private"))),
            ],
            shown=OPERATOR,
        ),
        BUCKETS + "GetBucket": Row(
            admin.GetBucketRequest(name=BUCKET),
            lambda answer: answer.name == BUCKET and answer.usage.objects > 0 and answer.usage.bytes > 0,
            [
                Refused("another tenant's", Code.NOT_FOUND, "\\(no_such_bucket\\)$", admin.GetBucketRequest(name="elsewhere")),
                Refused("a name that is a path", Code.INVALID_ARGUMENT, "\\(bad_request\\)$", admin.GetBucketRequest(name="../keys"), details=wrong("name")),
            ],
            shown=OPERATOR,
        ),
        BUCKETS + "ChangeBucket": Row(
            change(quota_objects=7),
            lambda answer: answer.settings["quota_objects"] == 7,
            [
                Refused(
                    "what is said when it is made",
                    Code.INVALID_ARGUMENT,
                    "\\(bad_request\\)$",
                    change(domain="own"),
                    details=wrong("settings.domain"),
                ),
                Refused("half an object", Code.INVALID_ARGUMENT, "settings.quota_objects is no text, whole number", change(quota_objects=0.5)),
                Refused("no such bucket", Code.NOT_FOUND, "\\(no_such_bucket\\)$", admin.ChangeBucketRequest(name="nothing")),
            ],
            shown=OPERATOR,
        ),
        BUCKETS + "DeleteBucket": Row(
            lambda: admin.DeleteBucketRequest(name=new_bucket()),
            lambda answer: answer == admin.DeleteBucketResponse(),
            [
                Refused("one that is not empty", Code.FAILED_PRECONDITION, "\\(bucket_not_empty\\)$", admin.DeleteBucketRequest(name="versioned")),
                Refused("no such tenant's", Code.NOT_FOUND, "\\(no_such_bucket\\)$", admin.DeleteBucketRequest(name=BUCKET, tenant="third")),
            ],
            shown=OPERATOR,
        ),
        "cairn.v1.Index/Search": Row(
            admin.SearchRequest(bucket=BUCKET, tags={"kind": "searched"}, size_min=1, size_max=100),
            lambda answer: [(one.key, dict(one.tags)) for one in answer.objects] == [("found", {"kind": "searched"})],
            [
                Refused(
                    "a time that is none",
                    Code.INVALID_ARGUMENT,
                    "\\(bad_request\\)$",
                    admin.SearchRequest(created_from="yesterday"),
                    details=wrong("created_from"),
                ),
                Refused("a token of somebody's own", Code.INVALID_ARGUMENT, "\\(bad_cursor\\)$", admin.SearchRequest(page_token="next page")),
                Refused("no such bucket", Code.NOT_FOUND, "\\(no_such_bucket\\)$", admin.SearchRequest(bucket="elsewhere")),
                NOT_THE_ADMINS,
            ],
            shown=OPERATOR,
        ),
        ADMIN + "GetStats": Row(
            admin.GetStatsRequest(),
            lambda answer: 0 < answer.objects <= answer.versions and answer.bytes > 0,
            [
                Refused("no such tenant", Code.NOT_FOUND, "\\(no_such_tenant\\)$", admin.GetStatsRequest(tenant="third")),
                Refused("no tenant's name", Code.INVALID_ARGUMENT, "\\(bad_request\\)$", admin.GetStatsRequest(tenant="A b"), details=wrong("tenant")),
            ],
            shown=OPERATOR,
        ),
        ADMIN + "ListKeys": Row(
            admin.ListKeysRequest(page_size=200),
            lambda answer: key.id in {one.id for one in answer.keys} and not any(one.secret for one in answer.keys),
            [
                Refused("a token of somebody's own", Code.INVALID_ARGUMENT, "\\(bad_cursor\\)$", admin.ListKeysRequest(page_token="?")),
                NOT_THE_ADMINS,
            ],
            shown=OPERATOR,
        ),
        ADMIN + "CreateKey": Row(
            admin.CreateKeyRequest(owner="row", tenant="second"),
            lambda answer: (answer.owner, answer.tenant, answer.enabled) == ("row", "second", True) and len(answer.secret) > 20,
            [
                Refused("no owner", Code.INVALID_ARGUMENT, "\\(bad_request\\)$", admin.CreateKeyRequest(), details=wrong("owner")),
                Refused(
                    "an owner that is none", Code.INVALID_ARGUMENT, "\\(bad_request\\)$", admin.CreateKeyRequest(owner="a b"), details=wrong("owner")
                ),
            ],
            shown=OPERATOR,
        ),
        ADMIN + "ChangeKey": Row(
            lambda: admin.ChangeKeyRequest(id=new_key().id, enabled=False),
            lambda answer: (answer.enabled, answer.secret) == (False, ""),
            [
                Refused("another tenant's", Code.NOT_FOUND, "\\(no_such_key\\)$", admin.ChangeKeyRequest(id=key.id, tenant="second")),
                NOT_THE_ADMINS,
            ],
            shown=OPERATOR,
        ),
        ADMIN + "DeleteKey": Row(
            lambda: admin.DeleteKeyRequest(id=new_key().id),
            lambda answer: answer == admin.DeleteKeyResponse(),
            [
                Refused("no such key", Code.NOT_FOUND, "\\(no_such_key\\)$", admin.DeleteKeyRequest(id="AKNOBODY")),
                Refused(
                    "an id that is none", Code.INVALID_ARGUMENT, "\\(bad_request\\)$", admin.DeleteKeyRequest(id="../x"), details=wrong("id")
                ),
            ],
            shown=OPERATOR,
        ),
        "cairn.v1.Events/Subscribe": Row(
            subscribe(),
            lambda messages: "found" in {json.loads(one.event)["payload"].get("key") for one in messages}
            and len({(one.shard, one.position) for one in messages}) == len(messages),
            [
                Refused("a shard that there is not", Code.INVALID_ARGUMENT, "a shard is a number from 0 to 15", subscribe(cursor={16: 1})),
                Refused("no tenant's name", Code.INVALID_ARGUMENT, "is no name of a tenant", subscribe(tenant="A b")),
                NOT_THE_ADMINS,
            ],
            shown=OPERATOR,
        ),
    }
