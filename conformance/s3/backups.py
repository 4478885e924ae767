"""A server that is backed up while it is written to: what the steps of the test ask of it. The step is the first argument.

fill      objects with overwrites, deletes, markers and tags in the bucket `kept`
show      prints all of `kept` as JSON: versions in order, with digests, tags and metadata
load N    writes to the bucket `busy` from three threads, asks for the backup N in the middle; prints how many keys of each thread had
          been acknowledged when the backup was asked for
check C   C is what `load` printed: those keys are there, each is whole, and the last ones of a thread may be missing but none between
"""

import hashlib
import http.client
import json
import os
import random
import sys
import threading
import urllib.parse

import door

THREADS = 3
LEAST = 15


def admin(method, path, body=None):
    url = urllib.parse.urlsplit(os.environ["CAIRN_ADMIN_API"])
    connection = http.client.HTTPConnection(url.hostname, url.port)
    headers = {"Authorization": "Bearer " + os.environ["CAIRN_ADMIN_TOKEN"]}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


def body(name, length):
    return random.Random(name).randbytes(length)


def fill(s3):
    s3.create_bucket(Bucket="kept")
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    for number in range(30):
        key = f"folder {number % 4}/ü{number:03}"
        for turn in range(1 + number % 3):
            s3.put_object(
                Bucket="kept",
                Key=key,
                Body=body(f"{key}{turn}", number * number * 3000 + turn),
                Metadata={"turn": str(turn)},
                Tagging=f"number={number}",
            )
        if number % 5 == 0:
            s3.delete_object(Bucket="kept", Key=key)


def show(s3):
    listed = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket="kept", PaginationConfig={"PageSize": 7}):
        for version in page.get("Versions", []):
            which = {"Bucket": "kept", "Key": version["Key"], "VersionId": version["VersionId"]}
            answer = s3.get_object(**which)
            listed.append(
                {
                    **which,
                    "latest": version["IsLatest"],
                    "etag": version["ETag"],
                    "modified": version["LastModified"].isoformat(),
                    "sha256": hashlib.sha256(answer["Body"].read()).hexdigest(),
                    "metadata": answer["Metadata"],
                    "tags": s3.get_object_tagging(**which)["TagSet"],
                }
            )
        for marker in page.get("DeleteMarkers", []):
            listed.append({"marker": marker["Key"], "id": marker["VersionId"], "latest": marker["IsLatest"]})
    assert len(listed) > 60, len(listed)
    print(json.dumps(listed))


def load(s3, name):
    s3.create_bucket(Bucket="busy")
    done, stop, failures = [0] * THREADS, threading.Event(), []

    def write(thread):
        own = door.client()
        try:
            while not stop.is_set():
                key = f"{thread}/{done[thread]:06}"
                own.put_object(Bucket="busy", Key=key, Body=body(key, 70_000 + 997 * done[thread]))
                done[thread] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()

    def wait_for(counts):
        while any(now < least for now, least in zip(done, counts)) and not failures:
            threads[0].join(0.01)

    try:
        wait_for([LEAST] * THREADS)
        acknowledged = list(done)
        status, answer = admin("POST", "/api/v1/admin/backups", {"name": name})
        wait_for([count + 1 for count in done])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert status == 201 and answer["name"] == name and answer["contents"]["objects"]["packs"] > 0, answer
    status, answer = admin("POST", "/api/v1/admin/backups", {"name": name})
    assert (status, answer["code"]) == (409, "backup_exists"), answer
    for bad in ["../x", "", ".x", "a/b"]:
        status, answer = admin("POST", "/api/v1/admin/backups", {"name": bad})
        assert (status, answer["field_errors"][0]["field"]) == (400, "name"), answer
    status, answer = admin("GET", "/api/v1/admin/backups")
    assert status == 200 and [backup["name"] for backup in answer["backups"]] == [name], answer
    print(json.dumps(acknowledged))


def check(s3, acknowledged):
    found = [[] for _ in range(THREADS)]
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="busy"):
        for listed in page["Contents"]:
            key = listed["Key"]
            thread, number = (int(part) for part in key.split("/"))
            whole = s3.get_object(Bucket="busy", Key=key)["Body"].read()
            assert whole == body(key, 70_000 + 997 * number), key
            found[thread].append(number)
    for numbers, least in zip(found, acknowledged):
        assert numbers == list(range(len(numbers))) and len(numbers) >= least, (numbers, least)


if __name__ == "__main__":
    step, s3 = sys.argv[1], door.client()
    if step == "load":
        load(s3, sys.argv[2])
    elif step == "check":
        check(s3, json.loads(sys.argv[2]))
    else:
        {"fill": fill, "show": show}[step](s3)
