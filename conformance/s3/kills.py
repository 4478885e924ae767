"""A mixed load that ends with the server's death, and what has to be there after it: a program for conformance/tests/s3/kills.rs.

    kills.py load STATE PID SEED     writes until so many answers have come, kills the server, notes in STATE what may be there
    kills.py check STATE EVENTS      compares a server on the same folder with STATE, and the lines of `cairnd store events` with it

Each key has one writer, so what it may have is known: what was acknowledged last, or what was asked for and never answered. Each acknowledged
change has exactly one event, under the id of its request; what was not answered has one exactly if it happened.
"""

import hashlib
import json
import os
import random
import signal
import sys
import threading

import door
from botocore.exceptions import BotoCoreError, ClientError

WRITERS = 6
KEYS = 6
MIB = 1 << 20
# The second keeps versions.
BUCKETS = ("kills", "kills-versions")


class State:
    """What is known, kept between kills."""

    def __init__(self, path):
        self.path = path
        # Bucket and key: what it may have, each `None` or an ETag and tags.
        self.keys = {}
        # Versions that were acknowledged, with their ETags; those that may have come about.
        self.versions, self.maybe = {}, []
        # Id of an acknowledged request: what its events are about.
        self.acknowledged = {}
        # Changes that were not answered.
        self.open = 0
        if os.path.exists(path):
            with open(path) as file:
                self.__dict__.update(json.load(file))

    def save(self):
        with open(self.path, "w") as file:
            json.dump({name: value for name, value in self.__dict__.items() if name != "path"}, file)


def etag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class Writer:
    """One of them: its keys, and its changes one after the other."""

    def __init__(self, number, state, seed, load):
        self.random = random.Random(f"{seed} {number}")
        self.names = [(bucket, f"{number}/{key}") for bucket in BUCKETS for key in range(KEYS)]
        self.state, self.load = state, load
        self.s3 = door.client()

    def may(self, where):
        return self.state.keys.setdefault("/".join(where), [None])

    def data(self):
        return self.random.randbytes(self.random.choice((0, 100, 3000, 40_000, 300_000)))

    def run(self):
        while True:
            try:
                self.step()
            except ClientError as error:
                # Refused, as nothing here should be.
                self.load.failed = f"{error.operation_name}: {error.response}"
                return
            except (BotoCoreError, OSError):
                return
            except Exception as error:
                self.load.failed = repr(error)
                return

    def change(self, ask, after, kinds=("object.created",)):
        """Asks for a change; `after`: bucket and key to what it has then."""
        before = {where: list(self.may(where)) for where in after}
        for where, value in after.items():
            self.may(where).append(value)
            if where[0] == BUCKETS[1] and value is not None:
                self.state.maybe.append(value[0])
        self.load.count(self.state, 1)
        answer = ask()
        for where, value in after.items():
            self.state.keys["/".join(where)] = [value]
            if where[0] == BUCKETS[1] and value is not None:
                self.state.maybe.remove(value[0])
                if "VersionId" in answer:
                    self.state.versions[answer["VersionId"]] = ["/".join(where), value[0]]
        # A delete of nothing is none.
        about = ["/".join(where) for where in after if before[where] != [None] or after[where] is not None or where[0] == BUCKETS[1]]
        self.state.acknowledged[answer["ResponseMetadata"]["RequestId"]] = [list(kinds), about]
        self.load.count(self.state, -1)
        self.load.answered()

    def step(self):
        where = self.random.choice(self.names)
        bucket, key = where
        at = {"Bucket": bucket, "Key": key}
        may = self.may(where)
        kind = self.random.choice(("put", "put", "put", "delete", "delete many", "parts", "copy", "tag", "get"))
        if kind == "put":
            data, tags = self.data(), self.random.choice(({}, {"a": "1"}))
            tagging = "&".join(f"{name}={value}" for name, value in tags.items())
            self.change(lambda: self.s3.put_object(**at, Body=data, Tagging=tagging), {where: [etag(data), tags]})
        elif kind == "delete":
            self.change(lambda: self.s3.delete_object(**at), {where: None}, ["object.deleted"])
        elif kind == "delete many":
            other = self.random.choice([name for name in self.names if name[0] == bucket and name != where])
            objects = [{"Key": key}, {"Key": other[1]}]
            self.change(lambda: self.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects}), {where: None, other: None}, ["object.deleted"])
        elif kind == "parts":
            parts = [self.random.randbytes(5 * MIB), self.data()] if self.random.random() < 0.2 else [self.data()]
            upload = {**at, "UploadId": self.s3.create_multipart_upload(**at)["UploadId"]}
            listed = [
                {"PartNumber": number, "ETag": self.s3.upload_part(**upload, PartNumber=number, Body=part)["ETag"]}
                for number, part in enumerate(parts, 1)
            ]
            whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
            after = {where: [f'"{whole}-{len(parts)}"', {}]}
            self.change(lambda: self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": listed}), after)
        elif kind == "copy" and len(may) == 1 and may[0]:
            other = self.random.choice([name for name in self.names if name != where])
            source = {"Bucket": bucket, "Key": key}
            self.change(lambda: self.s3.copy_object(Bucket=other[0], Key=other[1], CopySource=source), {other: may[0]})
        elif kind == "tag" and len(may) == 1 and may[0] and bucket == BUCKETS[0]:
            tags = {"n": str(self.random.randrange(10))}
            tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
            ask = lambda: self.s3.put_object_tagging(**at, Tagging={"TagSet": tag_set})
            self.change(ask, {where: [may[0][0], tags]}, ["object.updated"])
        elif kind == "get" and len(may) == 1 and may[0]:
            found = self.s3.get_object(**at)
            body = found["Body"].read()
            assert found["ETag"] == may[0][0], (where, found["ETag"], may)
            assert "-" in found["ETag"] or etag(body) == found["ETag"], where


class Load:
    """Kills the server after so many answers."""

    def __init__(self, pid, answers):
        self.pid, self.left, self.lock, self.failed = pid, answers, threading.Lock(), None

    def count(self, state, change):
        with self.lock:
            state.open += change

    def answered(self):
        with self.lock:
            self.left -= 1
            if self.left == 0:
                os.kill(self.pid, signal.SIGKILL)


def load(path, pid, seed):
    state = State(path)
    s3 = door.client()
    if not state.keys:
        for bucket in BUCKETS:
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=BUCKETS[1], VersioningConfiguration={"Status": "Enabled"})
    state.open = 0
    work = Load(pid, random.Random(seed).randrange(5, 150))
    threads = [threading.Thread(target=Writer(number, state, seed, work).run) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert work.failed is None, work.failed
    assert work.left <= 0, f"all writers ended, with {work.left} answers to come"
    state.save()


def found(s3, bucket, key):
    """What a key has, read whole."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchKey", error.response
        return None
    body = answer["Body"].read()
    assert len(body) == answer["ContentLength"], "half an object"
    assert "-" in answer["ETag"] or etag(body) == answer["ETag"], f"{bucket}/{key} is not what its tag says"
    tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] if answer.get("TagCount") else []
    return [answer["ETag"], {tag["Key"]: tag["Value"] for tag in tags}]


def check(path, events):
    state, s3 = State(path), door.client()
    for name, may in state.keys.items():
        bucket, key = name.split("/", 1)
        now = found(s3, bucket, key)
        assert now in may, f"{name} has {now}, and not one of {may}"
        state.keys[name] = [now]
    # Versions: all that were acknowledged, and others only of what was not answered.
    there = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=BUCKETS[1]):
        for version in page.get("Versions", []):
            there[version["VersionId"]] = [f"{BUCKETS[1]}/{version['Key']}", version["ETag"]]
    for id_, version in state.versions.items():
        assert there.get(id_) == version, f"version {id_} is {there.get(id_)}, and not {version}"
    for id_ in list(there.keys() - state.versions.keys()):
        name, tag = there[id_]
        assert tag in state.maybe, f"nobody made version {id_} of {name}"
        state.versions[id_] = [name, tag]
    latest = random.Random(len(there)).sample(sorted(there), min(20, len(there)))
    for id_ in latest:
        name, tag = there[id_]
        body = s3.get_object(Bucket=BUCKETS[1], Key=name.split("/", 1)[1], VersionId=id_)["Body"].read()
        assert "-" in tag or etag(body) == tag, f"version {id_} of {name} is not what its tag says"
    state.maybe = []

    # Events: each acknowledged change has its own, once; folded, they say what is there.
    with open(events) as file:
        events = [json.loads(line) for line in file]
    assert len({event["event_id"] for event in events}) == len(events), "an event is there twice"
    positions, by_request, now = {}, {}, {}
    for event in events:
        last = positions.get(event["shard"], 0)
        assert event["position"] == last + 1, f"behind {last} comes {event['position']} in shard {event['shard']}"
        positions[event["shard"]] = event["position"]
        by_request.setdefault(event["trace_id"], []).append((event["event_type"], event["aggregate_id"]))
        if event["event_type"] == "object.created":
            now[event["aggregate_id"]] = f'"{event["payload"]["etag"]}"'
        elif event["event_type"] == "object.deleted":
            now[event["aggregate_id"]] = None
    for id_, (kinds, about) in state.acknowledged.items():
        expected = sorted((kinds[0], name) for name in about)
        assert sorted(by_request.get(id_, [])) == expected, f"request {id_}: {by_request.get(id_)}, and not {expected}"
    strangers = [id_ for id_ in by_request if id_ not in state.acknowledged]
    assert len(strangers) <= state.open, f"{len(strangers)} requests have events that nobody asked for, {state.open} were not answered"
    for id_ in strangers:
        state.acknowledged[id_] = [[by_request[id_][0][0]], [name for _, name in by_request[id_]]]
    for name, (value,) in state.keys.items():
        assert now.get(name) == (value[0] if value else None), f"{name}: by its events it has {now.get(name)}, and not {value}"
    state.save()
    print(f"{len(state.acknowledged)} changes, {len(events)} events, {len(there)} versions")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load", path, pid, seed]:
            load(path, int(pid), int(seed))
        case ["check", path, events]:
            check(path, events)
        case _:
            sys.exit(__doc__)
