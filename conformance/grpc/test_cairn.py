"""Our own services under random calls, held to a model: names, places, pages, chunks, streams that end early, cursors of events.

A failure prints its seed: CAIRN_SEED=… runs it again.
"""

import json
import random
import sys
import threading
import unittest

import grpc
from grpc import StatusCode as Code

import door
import rows_cairn
from calls import OPERATOR, STRANGER, call, stub_of
from door import BUCKET, SEED, SHOWN, Suite
from rows_cairn import OBJECTS, STORE, admin, chunks, events, id_of, objects, put_request

EVENTS = "cairn.v1.Events/Subscribe"


def setUpModule():
    print(f"CAIRN_SEED={SEED}", file=sys.stderr)
    for name in (BUCKET, "other", "names", "events"):
        door.make_bucket(name)
    door.make_bucket("elsewhere", tenant="second")


def get(key, offset=0, length=0, bucket=BUCKET):
    request = objects.GetObjectRequest(bucket=bucket, key=key, offset=offset, length=length)
    return b"".join(message.data for message in call(OBJECTS + "GetObject", request, SHOWN))


def present(ids, bucket=BUCKET, shown=SHOWN):
    request = chunks.HasChunksRequest(bucket=bucket, ids=b"".join(ids))
    bits = call(STORE + "HasChunks", request, shown).present
    assert len(bits) == (len(ids) + 7) // 8
    return [bool(bits[at // 8] >> at % 8 & 1) for at in range(len(ids))]


class Random(Suite):
    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")

    def blob(self):
        length = self.random.choice([0, 1, 2047, 2048, 2049, 65_536, 300_000, 3_000_000])
        length += self.random.randrange(20) if length else 0
        if self.random.random() < 0.5:
            return self.random.randbytes(length)
        return (b"%d a line of text\n" % self.random.randrange(1 << 30)) * (length // 20)

    def cut(self, data):
        """The messages of a put, some of them empty."""
        places = sorted(self.random.choices(range(len(data) + 1), k=self.random.randrange(6)))
        places = [0, *places, len(data)]
        return [objects.PutObjectRequest(data=data[at:end]) for at, end in zip(places, places[1:])]

    def key(self):
        letters = ["a", "b", "/", "//", ".", "..", "%2F", " ", "\t", "\n", "ä", "a\u0308", "日", "😀", "\x7f", "&", "?", "#", "\\"]
        return "".join(self.random.choices(letters, k=self.random.randrange(1, 12)))

    def test_objects_read_back_from_any_place_however_they_were_sent(self):
        for _ in range(20):
            data = self.blob()
            with self.subTest(seed=SEED, size=len(data)):
                [header, *_] = put_request("random")
                made = call(OBJECTS + "PutObject", [header, *self.cut(data)], SHOWN)
                self.assertEqual(made.size, len(data))
                self.assertEqual(get("random"), data)
                for _ in range(4):
                    at = self.random.randrange(len(data) + 1)
                    length = self.random.choice([0, 1, 1000, 1 << 20, (1 << 64) - 1])
                    self.assertEqual(get("random", at, length), data[at : at + length] if length else data[at:])
                for at in (len(data) + 1, (1 << 64) - 1):
                    self.refused(Code.OUT_OF_RANGE, get, "random", at)

    def test_extents_of_any_range_are_its_bytes(self):
        data = self.random.randbytes(1_500_000)
        rows_cairn.put("extents", data)
        for _ in range(15):
            at = self.random.randrange(len(data))
            length = self.random.choice([1, 1000, 300_000, 1 << 40])
            request = chunks.ResolveRangeRequest(bucket=BUCKET, key="extents", offset=at, length=length)
            extents = [one for message in call(STORE + "ResolveRange", request, SHOWN) for one in message.extents]
            with self.subTest(seed=SEED, at=at, length=length):
                wanted = chunks.GetChunksRequest(bucket=BUCKET, ids=b"".join(one.id for one in extents), plain=True)
                read = b"".join(one.data for one in call(STORE + "GetChunks", wanted, SHOWN))
                begins = extents[0].offset
                self.assertEqual(read, data[begins : begins + len(read)])
                self.assertLessEqual(begins, at)
                end = min(len(data), at + length)
                self.assertLess(begins + len(read) - extents[-1].length, end, "the last is of the range")
                self.assertGreaterEqual(begins + len(read), end)

    def test_keys_are_any_letters_and_pages_of_any_size_list_them_once_in_order(self):
        model = {}
        for _ in range(60):
            key = self.key()
            if self.random.random() < 0.2:
                call(OBJECTS + "DeleteObject", objects.DeleteObjectRequest(bucket="names", key=key), SHOWN)
                model.pop(key, None)
            else:
                model[key] = rows_cairn.put(key, key.encode(), bucket="names").etag
            with self.subTest(seed=SEED, key=key):
                if key in model:
                    self.assertEqual(get(key, bucket="names"), key.encode())
                else:
                    self.refused(Code.NOT_FOUND, get, key, bucket="names")
        for _ in range(6):
            prefix = self.random.choice(["", "a", "/", ".", "日"])
            listed, token = [], ""
            while True:
                request = objects.ListObjectsRequest(
                    bucket="names", prefix=prefix, page_size=self.random.randrange(1, 20), page_token=token
                )
                page = call(OBJECTS + "ListObjects", request, SHOWN)
                self.assertLessEqual(len(page.objects), request.page_size)
                listed += [(one.key, one.etag) for one in page.objects]
                token = page.next_page_token
                if not token:
                    break
            expected = sorted(((key, tag) for key, tag in model.items() if key.startswith(prefix)), key=lambda pair: pair[0].encode())
            self.assertEqual(listed, expected, f"seed {SEED}")
        self.refused(Code.INVALID_ARGUMENT, get, "", bucket="names")
        self.refused(Code.INVALID_ARGUMENT, get, "ä" * 513, bucket="names")

    def test_what_is_acknowledged_is_there_and_a_lie_never_is(self):
        for _ in range(8):
            good = [self.random.randbytes(self.random.randrange(1, 50_000)) for _ in range(self.random.randrange(1, 90))]
            lie = id_of(self.random.randbytes(20))
            place = self.random.randrange(len(good) + 1)
            put = [chunks.PutChunksRequest(id=id_of(one), encoding=chunks.CHUNK_ENCODING_PLAIN, data=one) for one in good]
            put.insert(place, chunks.PutChunksRequest(id=lie, encoding=chunks.CHUNK_ENCODING_PLAIN, data=b"lie"))
            put[0].bucket = BUCKET
            with self.subTest(seed=SEED, chunks=len(good), lie=place):
                stored = 0
                with self.assertRaises(grpc.RpcError) as caught:
                    for ack in stub_of(STORE + "PutChunks")(iter(put), metadata=SHOWN):
                        self.assertGreater(ack.stored, stored)
                        stored = ack.stored
                self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
                self.assertIn(lie.hex(), caught.exception.details())
                self.assertLessEqual(stored, place)
                there = present([id_of(one) for one in good] + [lie])
                self.assertTrue(all(there[:stored]))
                self.assertFalse(there[-1])
                self.assertFalse(any(present([id_of(one) for one in good], "elsewhere", STRANGER)), "of another tenant's domain")

    def test_frames_come_as_they_were_sent_and_are_their_chunks(self):
        line = b"a line that is there again\n" * 5000
        rows_cairn.put_chunk(line)
        [kept] = call(STORE + "GetChunks", chunks.GetChunksRequest(bucket=BUCKET, ids=id_of(line)), SHOWN)
        self.assertEqual((kept.encoding, kept.data[:4]), (chunks.CHUNK_ENCODING_ZSTD, b"\x28\xb5\x2f\xfd"))
        sent = chunks.PutChunksRequest(bucket="other", id=id_of(line), data=kept.data)
        call(STORE + "PutChunks", [sent], SHOWN)
        broken = bytearray(kept.data)
        broken[self.random.randrange(len(broken))] ^= 1 << self.random.randrange(8)
        sent = chunks.PutChunksRequest(bucket=BUCKET, id=id_of(b"other"), data=bytes(broken))
        self.refused(Code.INVALID_ARGUMENT, call, STORE + "PutChunks", [sent], SHOWN)

    def test_a_put_that_is_cut_off_leaves_what_was_there(self):
        before = rows_cairn.put("cut off", b"what was there")
        [header, *_] = put_request("cut off")
        for size in (0, 10, 5_000_000):
            sent, hold = threading.Event(), threading.Event()

            def half():
                yield header
                yield objects.PutObjectRequest(data=self.random.randbytes(size))
                sent.set()
                hold.wait()

            running = stub_of(OBJECTS + "PutObject").future(half(), metadata=SHOWN)
            sent.wait()
            running.cancel()
            hold.set()
            self.assertEqual(call(OBJECTS + "HeadObject", objects.HeadObjectRequest(bucket=BUCKET, key="cut off"), SHOWN), before)
        self.assertEqual(get("cut off"), b"what was there")

    def test_one_of_many_puts_of_what_must_not_be_there_wins(self):
        key = f"once {self.random.random()}"
        made, refused = [], []

        def put(n):
            try:
                made.append(rows_cairn.put(key, b"%d" % n, if_absent=True))
            except grpc.RpcError as error:
                refused.append(error.code())

        threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]
        [one.start() for one in threads]
        [one.join() for one in threads]
        self.assertEqual((len(made), set(refused)), (1, {Code.FAILED_PRECONDITION}))
        self.assertEqual(call(OBJECTS + "HeadObject", objects.HeadObjectRequest(bucket=BUCKET, key=key), SHOWN), made[0])


class Events(Suite):
    """Events from any cursor on: each once, those of a shard in their order, and what happens while somebody follows."""

    def told(self, cursor, follow=False, until=None):
        found = []
        running = stub_of(EVENTS)(events.SubscribeRequest(cursor=cursor, follow=follow), metadata=OPERATOR, timeout=60)
        for message in running:
            event = json.loads(message.event)
            found.append((message.shard, message.position, event["event_type"], event["payload"].get("key")))
            if until and until <= {key for *_, key in found}:
                running.cancel()
                break
        return found

    def test_events_go_on_from_a_cursor_and_are_each_told_once(self):
        for n in range(40):
            rows_cairn.put(f"event {n}", b"", bucket="events")
        told = self.told({})
        for stop in (0, 1, len(told) // 2, len(told) - 1, len(told)):
            cursor = {shard: position for shard, position, *_ in told[:stop]}
            self.assertEqual(sorted(self.told(cursor)), sorted(told[stop:]))
        positions = {}
        for shard, position, *_ in told:
            self.assertEqual(position, positions.get(shard, position - 1) + 1, "no gap, and in order")
            positions[shard] = position

    def test_who_follows_is_told_what_happens(self):
        told = self.told({})
        cursor = {shard: position for shard, position, *_ in told}
        keys = {f"followed {n}" for n in range(20)}
        putting = threading.Thread(target=lambda: [rows_cairn.put(key, bucket="events") for key in keys])
        putting.start()
        found = self.told(cursor, follow=True, until=keys)
        putting.join()
        self.assertLessEqual({("object.created", key) for key in keys}, {(kind, key) for *_, kind, key in found})
        self.assertEqual(len(found), len(set(found)))


class Search(Suite):
    def test_pages_of_a_search_are_all_that_was_asked_for(self):
        for n in range(23):
            rows_cairn.put(f"page {n:02}", b"x" * n, tags={"of": "pages"})
        found, token = [], ""
        while True:
            request = admin.SearchRequest(bucket=BUCKET, tags={"of": "pages"}, size_min=3, page_size=5, page_token=token)
            page = call("cairn.v1.Index/Search", request, OPERATOR)
            found += [one.key for one in page.objects]
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(sorted(found), [f"page {n:02}" for n in range(3, 23)])


if __name__ == "__main__":
    unittest.main()
