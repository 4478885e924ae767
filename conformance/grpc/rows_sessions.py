"""Rows of sessions of chunk stores, what they end with, watching a bucket, and upkeep."""

import json

import grpc
from grpc import StatusCode as Code

from calls import BERT, OPERATOR, READER, STRANGER, Refused, Row, call
from door import BUCKET, SHOWN
from rows_cairn import ADMIN, NO_BUCKET, NOT_THE_ADMINS, STORE, admin, chunks, id_of, objects, put_chunk

NO_SESSION = "there is no such session, or no more"


def new_session():
    return call(STORE + "OpenSession", chunks.OpenSessionRequest(bucket=BUCKET), SHOWN).id


def rows():
    return rows_of_sessions() | rows_of_upkeep()


def rows_of_sessions():
    ended = new_session()
    call(STORE + "AbortSession", chunks.AbortSessionRequest(bucket=BUCKET, session=ended), SHOWN)
    here, absent = put_chunk(b"a chunk of an object"), id_of(b"nobody has put this")
    header = objects.PutObjectRequest.Header
    beat = lambda **more: chunks.HeartbeatRequest(**{"bucket": BUCKET, **more})
    abort = lambda **more: chunks.AbortSessionRequest(**{"bucket": BUCKET, **more})

    def commit(ids, lengths=(), key="committed", **more):
        return chunks.CommitManifestRequest(
            header=header(bucket=BUCKET, key=key, content_type="text/plain"),
            chunks=chunks.ChunkList(ids=b"".join(ids), lengths=lengths),
            **more,
        )

    def check_session(answer):
        return len(answer.id) == 16 and 0 < answer.idle_seconds <= answer.left_seconds

    def check_committed(answer):
        lacking = call(STORE + "CommitManifest", commit([here, absent]), SHOWN)
        assert not lacking.HasField("object") and (lacking.missing, lacking.missing_count) == (absent, 1), lacking
        return (answer.object.key, answer.object.size, answer.object.content_type) == ("committed", 40, "text/plain")

    return {
        STORE + "OpenSession": Row(
            chunks.OpenSessionRequest(bucket=BUCKET),
            check_session,
            [
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
                Refused("no such bucket", Code.NOT_FOUND, NO_BUCKET, chunks.OpenSessionRequest(bucket="nothing")),
            ],
        ),
        STORE + "Heartbeat": Row(
            lambda: beat(session=new_session()),
            check_session,
            [
                Refused("one that has ended", Code.NOT_FOUND, NO_SESSION, beat(session=ended)),
                Refused("an id that is none", Code.NOT_FOUND, NO_SESSION, beat(session=b"x")),
                Refused("another bucket's", Code.NOT_FOUND, NO_SESSION, lambda: beat(session=new_session(), bucket="other")),
                Refused("another owner", Code.PERMISSION_DENIED, "^access denied$", shown=BERT),
            ],
        ),
        STORE + "CommitManifest": Row(
            lambda: commit([here, here], session=new_session()),
            check_committed,
            [
                Refused("a session that has ended", Code.NOT_FOUND, NO_SESSION, commit([here], session=ended)),
                Refused("a length that lies", Code.INVALID_ARGUMENT, "has 20 bytes, and not 21", commit([here], [21])),
                Refused("lengths of some", Code.INVALID_ARGUMENT, "not as many lengths as chunks", commit([here, here], [20])),
                Refused("an id that is cut", Code.INVALID_ARGUMENT, "ids are 32 bytes each", commit([here[:-1]])),
                Refused(
                    "an index that is none",
                    Code.INVALID_ARGUMENT,
                    "index",
                    chunks.CommitManifestRequest(header=header(bucket=BUCKET, key="x"), index=b"no index"),
                ),
                Refused(
                    "neither chunks nor an index",
                    Code.INVALID_ARGUMENT,
                    "a commit has an index or a list of chunks",
                    chunks.CommitManifestRequest(header=header(bucket=BUCKET, key="x")),
                ),
                Refused("a key that is none", Code.INVALID_ARGUMENT, "1 to 1024 bytes", commit([here], key="")),
                Refused("nowhere to go", Code.NOT_FOUND, NO_BUCKET, chunks.CommitManifestRequest()),
            ],
        ),
        STORE + "AbortSession": Row(
            lambda: abort(session=new_session()),
            lambda answer: answer == chunks.AbortSessionResponse(),
            [
                Refused("one that has ended", Code.NOT_FOUND, NO_SESSION, abort(session=ended)),
                Refused("a token that reads", Code.PERMISSION_DENIED, "this token only reads", shown=READER),
            ],
        ),
        STORE + "Watch": Row(
            chunks.WatchRequest(bucket=BUCKET),
            lambda messages: {json.loads(one.event)["aggregate_id"].split("/")[0] for one in messages if one.event} == {BUCKET}
            and len({(one.shard, one.position) for one in messages}) == len(messages),
            [
                Refused(
                    "a shard that there is not",
                    Code.INVALID_ARGUMENT,
                    "a shard is a number from 0 to 15",
                    chunks.WatchRequest(bucket=BUCKET, cursor={16: 1}),
                ),
                Refused("a caller of another tenant", Code.NOT_FOUND, NO_BUCKET, shown=STRANGER),
                Refused("another owner", Code.PERMISSION_DENIED, "^access denied$", shown=BERT),
            ],
            shown=READER,
        ),
    }


def rows_of_upkeep():
    def begun_already():
        """The server waits for readers, for longer than these tests."""
        try:
            call(ADMIN + "StartCollection", admin.StartCollectionRequest(), OPERATOR)
        except grpc.RpcError:
            pass
        return admin.StartCollectionRequest()

    is_run = lambda run: len(run.begun_at) == 24 and run.state
    return {
        ADMIN + "StartCollection": Row(
            admin.StartCollectionRequest(),
            lambda answer: is_run(answer.running) and not answer.running.ended_at,
            [NOT_THE_ADMINS, Refused("one runs", Code.ABORTED, "\\(upkeep_running\\)$", begun_already)],
            shown=OPERATOR,
        ),
        ADMIN + "GetCollection": Row(
            admin.GetCollectionRequest(),
            lambda answer: not answer.HasField("running") or is_run(answer.running),
            [NOT_THE_ADMINS],
            shown=OPERATOR,
        ),
        ADMIN + "StartScrub": Row(
            admin.StartScrubRequest(),
            # Of so little it may have ended already.
            lambda answer: is_run(answer.running) or is_run(answer.last),
            [NOT_THE_ADMINS],
            shown=OPERATOR,
        ),
        ADMIN + "GetScrub": Row(
            admin.GetScrubRequest(),
            lambda answer: not answer.HasField("last") or answer.last.counts["damaged"] == 0,
            [NOT_THE_ADMINS],
            shown=OPERATOR,
        ),
    }
