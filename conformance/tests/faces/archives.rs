//! Archives that are browsed over S3: what is listed and read is the tree, and nothing was unpacked for it.

use std::fs;
use std::path::Path;

use cairn_conformance::support::{args, casync, chunk_files, input, ok};

use super::{Ground, WRITER, chunk_path};

/// Files of the tree.
const FILES: usize = 1000;

/// A bucket whose archives are browsed.
const BROWSED: &str = "\
import door, sys
answer = door.Signed('PUT', '/browsed', headers={'x-cairn-browse': 'true'}).send()
assert answer.status == 200, answer";

/// Compares what is listed and read below an archive's key with a tree: by pages, by directories, whole and in ranges.
const COMPARE: &str = r#"
import door, hashlib, os, sys
s3 = door.client()
tree, archive = sys.argv[1], sys.argv[2]
files = {}
for folder, _, names in os.walk(tree):
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            files[archive + "/" + os.path.relpath(path, tree)] = path
def listed(prefix, **more):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="browsed", Prefix=prefix, **more)
    keys, prefixes = [], []
    for page in pages:
        keys += page.get("Contents", [])
        prefixes += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
    return keys, prefixes
for size in (1000, 7):
    keys, _ = listed(archive + "/", PaginationConfig={"PageSize": size})
    assert [each["Key"] for each in keys] == sorted(files, key=str.encode), size
    assert all(each["Size"] == os.path.getsize(files[each["Key"]]) for each in keys)
# By directories, as people go through a tree.
seen, todo = [], [archive + "/"]
while todo:
    keys, prefixes = listed(todo.pop(), Delimiter="/", PaginationConfig={"PageSize": 3})
    seen += [each["Key"] for each in keys]
    todo += prefixes
    assert len(set(prefixes)) == len(prefixes)
assert sorted(seen) == sorted(files)
part = [each for each in sorted(files, key=str.encode) if each.startswith(archive + "/d1/f")]
assert part and [each["Key"] for each in listed(archive + "/d1/f")[0]] == part
after = part[len(part) // 2]
assert [each["Key"] for each in listed(archive + "/d1/f", StartAfter=after)[0]] == part[len(part) // 2 + 1:]
assert listed(archive + "/nothing/")[0] == [] and listed(archive + "/d1/f1x/")[0] == []
assert [each["Key"] for each in s3.list_objects(Bucket="browsed", Prefix=archive + "/d1/f")["Contents"]] == part
# Each file, whole.
tags = {}
for key, path in files.items():
    answer = s3.get_object(Bucket="browsed", Key=key)
    body = answer["Body"].read()
    with open(path, "rb") as file:
        assert body == file.read(), key
    tags[key] = answer["ETag"]
assert len(files) >= 1000 and sum(size for size in map(os.path.getsize, files.values())) > 1 << 20
# As an ordinary object has it: head, ranges, conditions, times.
key = max(files, key=lambda key: os.path.getsize(files[key]))
with open(files[key], "rb") as file:
    bytes_ = file.read()
head = s3.head_object(Bucket="browsed", Key=key)
assert head["ContentLength"] == len(bytes_) and head["ETag"] == tags[key] and head["AcceptRanges"] == "bytes"
assert abs(float(head["Metadata"]["mtime"]) - os.stat(files[key]).st_mtime) < 1e-3, head
ranged = s3.get_object(Bucket="browsed", Key=key, Range="bytes=1000-70000")
assert ranged["Body"].read() == bytes_[1000:70001] and ranged["ContentRange"] == f"bytes 1000-70000/{len(bytes_)}"
assert s3.get_object(Bucket="browsed", Key=key, Range="bytes=-9")["Body"].read() == bytes_[-9:]
for condition, status in (({"IfNoneMatch": tags[key]}, 304), ({"IfMatch": '"other"'}, 412), ({"Range": "bytes=99999999-"}, 416)):
    try:
        s3.get_object(Bucket="browsed", Key=key, **condition)
        assert False, condition
    except door.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status, error
for wrong in ("nothing", "d1", "d1/", "d1/f1/x", "", "../" + archive, "link"):
    try:
        s3.get_object(Bucket="browsed", Key=archive + "/" + wrong)
        assert False, wrong
    except door.ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchKey", (wrong, error)
"#;

/// A thousand files in a few directories, whose names sort otherwise as keys than as names, a link, and an empty directory. Returns
/// the bytes of the files.
///
/// - `content`: the bytes of a file, from its number and length.
fn write_tree(tree: &Path, content: fn(u64, usize) -> Vec<u8>) -> u64 {
    let mut bytes = 0;
    for n in 0..FILES {
        let folder = match n % 4 {
            0 => tree.to_owned(),
            1 => tree.join("d1"),
            2 => tree.join("d1-x"),
            _ => tree.join(format!("d1/deep/{}", n % 9)),
        };
        fs::create_dir_all(&folder).unwrap();
        let name = if n % 50 == 3 {
            format!("ü+ %{n}")
        } else {
            format!("f{n}")
        };
        let content = content(n as u64, if n % 100 == 1 { 300_000 } else { n % 3000 });
        bytes += content.len() as u64;
        fs::write(folder.join(name), content).unwrap();
    }
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(tree.join("d1.txt"), b"between").unwrap();
    std::os::unix::fs::symlink("f0", tree.join("link")).unwrap();
    bytes + 7
}

/// Goal: a thousand paths inside a `.caidx` and inside a `.catar` are those of the tree, and nothing is unpacked for it: no object is
/// made, of the archive's tables and records little is read, of its files what is asked for.
#[test]
fn a_thousand_paths_inside_an_archive_are_the_tree() {
    let ground = Ground::start();
    ground.script(BROWSED, &[]);
    let tree = ground.path("tree");
    let files_len = write_tree(&tree, input);
    let (index, store, catar) = (ground.path("t.caidx"), ground.path("store"), ground.path("t.catar"));
    ok(casync().args(args!["make", format!("--store={}", store.display()), index, tree]));
    ok(casync().args(args!["make", catar, tree]));
    for (name, frame) in &chunk_files(&store) {
        assert_eq!(ground.ask("PUT", &chunk_path("browsed", name), WRITER, frame).0, 200);
    }
    let put = "import door, sys; door.client().upload_file(sys.argv[2], 'browsed', sys.argv[1])";
    let list =
        "import door; print([each['Key'] for each in door.client().list_objects_v2(Bucket='browsed')['Contents']])";
    for (key, file) in [("some/where/t.caidx", &index), ("some/where/t.catar", &catar)] {
        ground.script(put, &[key, file.to_str().unwrap()]);
        let before = ground.script(list, &[]);
        let read = |of: &str| ground.door.metric(&format!("s3_archive_bytes_total{{of=\"{of}\"}}"));
        let (files, lookups) = (read("files"), read("lookups"));
        ground.script(COMPARE, &[tree.to_str().unwrap(), key]);
        assert_eq!(ground.script(list, &[]), before, "browsing has made objects");
        // Each file once, and the few ranges.
        let files = read("files") - files;
        assert!(
            (files_len..files_len + 200_000).contains(&files),
            "{files} of {files_len}"
        );
        // The archive is opened once; a directory's entries are read once, and kept.
        let lookups = read("lookups") - lookups;
        let archive_len = fs::metadata(&catar).unwrap().len();
        assert!(
            lookups < 8 * archive_len,
            "{lookups} bytes read to look about in {archive_len}"
        );
        println!("{key}: {lookups} bytes read for look-ups, {files} of files");
    }
    assert_eq!(ground.door.metric("s3_archives_opened_total"), 2);
}

/// Gets every file below an archive's key by its path, and compares it with the tree; then lists them all once.
const GET_ALL: &str = r#"
import door, os, sys
s3 = door.client()
tree, archive = sys.argv[1], sys.argv[2]
files = [os.path.join(folder, name) for folder, _, names in os.walk(tree) for name in names]
files = [path for path in files if not os.path.islink(path)]
for path in files:
    body = s3.get_object(Bucket="browsed", Key=archive + "/" + os.path.relpath(path, tree))["Body"].read()
    with open(path, "rb") as file:
        assert body == file.read(), path
if len(sys.argv) > 3:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="browsed", Prefix=archive + "/")
    assert sum(len(page["Contents"]) for page in pages) == len(files)
"#;

/// Goal: getting a thousand paths inside a `.caidx` reads the bytes of those files and no others, each chunk once, and to find and to list
/// them less than the archive; nothing is unpacked or stored anywhere else.
/// Method: the counters of a server that has just started.
#[test]
fn a_thousand_paths_cost_their_own_bytes() {
    let ground = Ground::start();
    ground.script(BROWSED, &[]);
    let tree = ground.path("tree");
    // All of it compresses: what was decoded is kept in memory, where frames of raw blocks are read again.
    let text = |seed, len| input(seed, len).into_iter().map(|byte| b'a' + byte % 16).collect();
    let files_len = write_tree(&tree, text);
    let (index, store, catar) = (ground.path("t.caidx"), ground.path("store"), ground.path("t.catar"));
    ok(casync().args(args!["make", format!("--store={}", store.display()), index, tree]));
    ok(casync().args(args!["make", catar, tree]));
    let chunks = chunk_files(&store);
    for (name, frame) in &chunks {
        assert_eq!(ground.ask("PUT", &chunk_path("browsed", name), WRITER, frame).0, 200);
    }
    let put = "import door, sys; door.client().upload_file(sys.argv[1], 'browsed', 't.caidx')";
    ground.script(put, &[index.to_str().unwrap()]);
    let stored = ground.door.metric("s3_ingest_bytes_total{what=\"stored\"}");
    let read = |what: &str, of: &str| ground.door.metric(&format!("s3_archive_{what}_total{{of=\"{of}\"}}"));
    let tree = tree.to_str().unwrap();

    ground.script(GET_ALL, &[tree, "t.caidx"]);
    assert_eq!(read("bytes", "files"), files_len);
    let (files, lookups) = (read("chunks", "files"), read("chunks", "lookups"));
    println!(
        "{files_len} bytes of files in {files} chunks; look-ups: {} bytes in {lookups} chunks; the archive has {}",
        read("bytes", "lookups"),
        chunks.len()
    );
    // Files lie side by side in chunks, and their names beside them: whoever comes first has a chunk read for all.
    let all = chunks.len() as u64;
    assert!(files + lookups <= all);
    let archive_len = fs::metadata(&catar).unwrap().len();
    let seen = read("bytes", "lookups");
    assert!(
        seen < archive_len,
        "{seen} bytes were read to find files in {archive_len}"
    );
    ground.script(GET_ALL, &[tree, "t.caidx", "and list"]);
    let again = read("bytes", "lookups") - seen;
    assert!(again < archive_len, "{again} bytes were read to list {archive_len}");
    assert_eq!(read("bytes", "files"), 2 * files_len);
    assert_eq!(
        ground.door.metric("s3_ingest_bytes_total{what=\"stored\"}"),
        stored,
        "something was stored"
    );
    assert_eq!(ground.door.metric("s3_archives_opened_total"), 1);
    // And each of these requests was measured where the work of all doors is.
    assert!(
        ground
            .door
            .metric("index_query_duration_seconds_count{domain=\"ordinary\"}")
            > 2 * FILES as u64
    );
}

/// Goal: an archive that breaks the rules is refused with an S3 error, one whose chunks are missing names one, real objects win, and
/// where the bucket does not say so nothing is browsed.
#[test]
fn what_cannot_be_browsed_is_an_error_of_s3() {
    let ground = Ground::start();
    ground.script(BROWSED, &[]);
    let tree = ground.path("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/file"), input(1, 200_000)).unwrap();
    let (index, store, catar) = (ground.path("t.caidx"), ground.path("store"), ground.path("t.catar"));
    ok(casync().args(args!["make", format!("--store={}", store.display()), index, tree]));
    ok(casync().args(args!["make", catar, tree]));
    ground.script(
        r#"
import door, sys
s3 = door.client()
index, catar = (open(path, "rb").read() for path in sys.argv[1:3])
def code(key, method="get_object", bucket="browsed"):
    try:
        getattr(s3, method)(Bucket=bucket, **({"Key": key} if method == "get_object" else {"Prefix": key}))
        return None
    except door.ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"].get("Reason", "")
put = lambda key, body, bucket="browsed": s3.put_object(Bucket=bucket, Key=key, Body=body)
# Chunks that are not there: one is named.
put("gone.caidx", index)
wrong, reason = code("gone.caidx/d/file")
assert wrong == "InvalidRequest" and "is not in the bucket's domain" in reason, (wrong, reason)
assert code("gone.caidx/", "list_objects_v2")[0] == "InvalidRequest"
# No archives, cut ones, and each byte of the tables and records turned.
for name, body in (("none.catar", b"x" * 1000), ("empty.catar", b""), ("cut.catar", catar[:-1]), ("none.caidx", catar), ("cut.caidx", index[:-1])):
    put(name, body)
    assert code(name + "/d/file")[0] == "InvalidRequest", name
    assert code(name + "/", "list_objects_v2")[0] == "InvalidRequest", name
for at in list(range(0, 500, 3)) + list(range(len(catar) - 400, len(catar), 3)):
    put("bad.catar", catar[:at] + bytes([catar[at] ^ 0x55]) + catar[at + 1:])
    for found in (code("bad.catar/d/file"), code("bad.catar/", "list_objects_v2")):
        assert found is None or found[0] in ("InvalidRequest", "NoSuchKey"), (at, found)
# Real objects win, whole listings too; a deleted one is deleted.
put("t.catar", catar)
assert len(s3.get_object(Bucket="browsed", Key="t.catar/d/file")["Body"].read()) == 200000
put("t.catar/d/file", b"real")
assert s3.get_object(Bucket="browsed", Key="t.catar/d/file")["Body"].read() == b"real"
assert [each["Size"] for each in s3.list_objects_v2(Bucket="browsed", Prefix="t.catar/")["Contents"]] == [4]
s3.delete_object(Bucket="browsed", Key="t.catar/d/file")
assert len(s3.get_object(Bucket="browsed", Key="t.catar/d/file")["Body"].read()) == 200000
# An index that was put as one makes the archive, which is browsed by either name.
assert len(s3.get_object(Bucket="browsed", Key="t.caidx/d/file")["Body"].read()) == 200000
# Only where the bucket says so.
put("t.catar", catar, "abc")
assert code("t.catar/d/file", bucket="abc")[0] == "NoSuchKey"
assert "Contents" not in s3.list_objects_v2(Bucket="abc", Prefix="t.catar/")
"#,
        &[index.to_str().unwrap(), catar.to_str().unwrap()],
    );
}
