"""Sessions of a chunk store and watching a bucket under random calls, held to a model. Seeds as in test_cairn."""

import json
import random
import threading
import unittest

from grpc import StatusCode as Code

import door
import rows_cairn
from calls import READER, call, stub_of
from door import BUCKET, SEED, SHOWN, Suite
from rows_cairn import STORE, chunks, id_of, objects
from rows_sessions import new_session
from test_cairn import get, present


def setUpModule():
    for name in (BUCKET, "other", "watched"):
        door.make_bucket(name)


def commit(ids, lengths, key, session=b"", keep=False):
    request = chunks.CommitManifestRequest(
        session=session,
        header=objects.PutObjectRequest.Header(bucket=BUCKET, key=key),
        chunks=chunks.ChunkList(ids=b"".join(ids), lengths=lengths),
        keep_session=keep,
    )
    return call(STORE + "CommitManifest", request, SHOWN)


def put_chunks(plain, session):
    request = [chunks.PutChunksRequest(id=id_of(one), encoding=chunks.CHUNK_ENCODING_PLAIN, data=one) for one in plain]
    call(STORE + "PutChunks", [chunks.PutChunksRequest(bucket=BUCKET, session=session), *request], SHOWN)


class Sessions(Suite):
    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")

    def test_a_commit_names_what_is_missing_and_is_done_once_that_is_there(self):
        for n in range(12):
            plain = [self.random.randbytes(self.random.randrange(1, 30_000)) for _ in range(self.random.randrange(1, 20))]
            # Some of them again.
            plain += self.random.choices(plain, k=self.random.randrange(5))
            ids, key = [id_of(one) for one in plain], f"session {SEED} {n} {self.random.random()}"
            lengths = [len(one) for one in plain] if self.random.random() < 0.5 else []
            session, keep = new_session(), self.random.random() < 0.5
            first = self.random.sample(plain, self.random.randrange(len(plain)))
            if first:
                put_chunks(first, session)
            absent = {id for id, there in zip(ids, present(ids)) if not there}
            self.assertEqual(absent, set(ids) - {id_of(one) for one in first})
            with self.subTest(seed=SEED, n=n, chunks=len(ids), absent=len(absent)):
                if absent:
                    answer = commit(ids, lengths, key, session)
                    named = [answer.missing[at : at + 32] for at in range(0, len(answer.missing), 32)]
                    self.assertEqual((sorted(named), answer.missing_count), (sorted(absent), len(absent)))
                    self.assertFalse(answer.HasField("object"))
                    self.refused(Code.NOT_FOUND, get, key)
                    put_chunks([one for one in plain if id_of(one) in absent], session)
                answer = commit(ids, lengths, key, session, keep)
                self.assertEqual((answer.missing, answer.missing_count, answer.object.key), (b"", 0, key))
                self.assertEqual(get(key), b"".join(plain))
                request = chunks.HeartbeatRequest(bucket=BUCKET, session=session)
                if keep:
                    self.assertEqual(call(STORE + "Heartbeat", request, SHOWN).id, session)
                else:
                    self.refused(Code.NOT_FOUND, call, STORE + "Heartbeat", request, SHOWN)

    def test_extents_of_an_object_make_it_again(self):
        data = self.random.randbytes(700_000)
        rows_cairn.put("to be made again", data)
        request = chunks.ResolveRangeRequest(bucket=BUCKET, key="to be made again")
        extents = [one for message in call(STORE + "ResolveRange", request, SHOWN) for one in message.extents]
        made = commit([one.id for one in extents], [one.length for one in extents], "made again")
        self.assertEqual(made.object.size, len(data))
        self.assertEqual(get("made again"), data)


class Watch(Suite):
    def watched(self, cursor, follow=False, until=None):
        """Keys that are told, and the cursor behind them."""
        keys, cursor = [], dict(cursor)
        request = chunks.WatchRequest(bucket="watched", cursor=cursor, follow=follow)
        running = stub_of(STORE + "Watch")(request, metadata=READER, timeout=60)
        for message in running:
            self.assertGreater(message.position, cursor.get(message.shard, 0))
            cursor[message.shard] = message.position
            if message.event:
                payload = json.loads(message.event)["payload"]
                self.assertEqual(payload["bucket"], "watched")
                keys.append(payload["key"])
            if until and until <= set(keys):
                running.cancel()
                break
        return keys, cursor

    def test_who_watches_a_bucket_is_told_of_it_alone_and_goes_on_from_a_cursor(self):
        _, begun = self.watched({})
        for n in range(30):
            rows_cairn.put(f"watched {n}", bucket=("watched", "other")[n % 2])
        mine = {f"watched {n}" for n in range(0, 30, 2)}
        keys, end = self.watched(begun)
        self.assertEqual(sorted(keys), sorted(mine))
        self.assertEqual(self.watched(end)[0], [])
        more = {f"while {n}" for n in range(10)}
        putting = threading.Thread(target=lambda: [rows_cairn.put(key, bucket=of) for key in more for of in ("other", "watched")])
        putting.start()
        keys, _ = self.watched(end, follow=True, until=more)
        putting.join()
        self.assertEqual(sorted(keys), sorted(more))


if __name__ == "__main__":
    unittest.main()
