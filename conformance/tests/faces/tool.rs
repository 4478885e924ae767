//! `cairn` with objects of this server as indexes, stores and inputs: `s3+http://…/bucket/key`.

use std::fs;
use std::process::Command;

use cairn_conformance::support::{args, cairn, input, ok, refused};

use super::{Ground, MIB};

/// Goal: each verb that reads or writes an index takes an object for it, and those that read a blob or an archive one for that.
#[test]
fn objects_are_indexes_stores_and_inputs_of_cairn() {
    let ground = Ground::start();
    let url = |key: &str| format!("{}/abc/{key}", ground.door.url.replacen("http", "s3+http", 1));
    let with_key = || {
        let mut command: Command = cairn();
        command
            .env("S3_ACCESS_KEY", &ground.door.key)
            .env("S3_SECRET_KEY", &ground.door.secret)
            .env("S3_REGION", "us-east-1")
            .env("HOME", ground.folder.path());
        command
    };
    // Longer than what is read ahead at once.
    let bytes = input(11, 40 * MIB + 12345);
    let file = ground.file("in", &bytes);
    ground.put("blobs/in", &file);
    ground.put("empty", &ground.file("empty", b""));
    let (local, store, out) = (ground.path("local.caibx"), ground.path("store"), ground.path("out"));
    ok(with_key().args(args!["make", "-s", store, local, file]));

    // An object as the input: the same index.
    let own = ground.path("own.caibx");
    ok(with_key().args(args!["make", "-s", ground.path("store2"), own, url("blobs/in")]));
    assert!(fs::read(&own).unwrap() == fs::read(&local).unwrap());
    ok(with_key().args(args!["make", own, url("empty")]));
    ok(with_key().args(args!["make", local.with_extension("empty"), ground.path("empty")]));
    assert!(fs::read(&own).unwrap() == fs::read(local.with_extension("empty")).unwrap());
    ok(with_key().args(args!["chop", "-s", ground.path("store3"), local, url("blobs/in")]));
    let lines = |input: std::ffi::OsString| {
        let chunked = ok(with_key().arg("chunk").args(["-S", "100000"]).arg(input));
        chunked.stdout
    };
    assert!(lines(url("blobs/in").into()) == lines(file.clone().into()));

    // An object as the index, a place in the bucket as the store.
    let (index, remote) = (url("indexes/in.caibx"), url("chunks"));
    ok(with_key().args(args!["make", "-s", remote, index, url("blobs/in")]));
    assert!(ground.get("indexes/in.caibx") == fs::read(&local).unwrap());
    ok(with_key().args(args!["extract", "-s", remote, index, out]));
    assert!(fs::read(&out).unwrap() == bytes);
    ok(with_key().args(args!["verify-index", index, out]));
    let listed = ok(with_key().args(args!["list-chunks", index])).stdout;
    assert!(listed == ok(with_key().args(args!["list-chunks", local])).stdout);
    let part = ok(with_key().args(args!["cat", "-o", "1000000", "-l", "5000", "-s", remote, index])).stdout;
    assert!(part == bytes[1_000_000..1_005_000]);
    ok(with_key().args(args!["info", "-s", remote, index]));

    // An archive.
    let (tree, catar) = (ground.path("tree"), ground.path("t.catar"));
    fs::create_dir_all(tree.join("a")).unwrap();
    fs::write(tree.join("a/file"), &bytes[..3 * MIB]).unwrap();
    ok(cairn().args(args!["tar", catar, tree]));
    ground.put("t.catar", &catar);
    let back = ground.path("back");
    fs::create_dir(&back).unwrap();
    ok(with_key().args(args!["untar", url("t.catar"), back]));
    ok(Command::new("diff").arg("-r").arg(&tree).arg(&back));

    let words = refused(with_key().args(args!["make", own, url("nothing")]));
    assert!(words.contains("there is no such object"), "{words}");
    let words = refused(
        with_key()
            .args(args!["make", own, url("blobs/in")])
            .env("S3_SECRET_KEY", "wrong-wrong"),
    );
    assert!(words.contains("abc/blobs/in"), "{words}");
}
