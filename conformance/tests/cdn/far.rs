//! Chunks that lie far away, in packs of a bucket of S3: many who ask at once for what nobody has read yet are one read of each range.

use std::process::Command;
use std::sync::Barrier;

use cairn_conformance::support::{args, cairn, cairnd_with, input, ok};
use cairn_test_servers::{ACCESS_KEY, S3Server, SECRET_KEY};

use super::MIB;

/// Clients of the usual run, and of the full one (`CAIRN_FULL=1`).
const CLIENTS: (usize, usize) = (100, 1_000);
/// MiB of the object of these.
const LENS: (usize, usize) = (4, 64);

fn tool(home: &std::path::Path) -> Command {
    let mut cairn = cairn();
    cairn
        .env("HOME", home)
        .env("S3_ACCESS_KEY", ACCESS_KEY)
        .env("S3_SECRET_KEY", SECRET_KEY)
        .env("S3_REGION", "us-east-1");
    cairn
}

/// Goal: a crowd that pulls one object whose packs are in a bucket far away costs the bucket what one client does.
/// Method: all clients begin with the same chunk at the same moment, on a server that has read nothing; the bucket's server counts its answers.
#[test]
fn a_crowd_of_cold_pulls_is_one_read_of_each_range() {
    let full = std::env::var_os("CAIRN_FULL").is_some();
    let (clients, len) = if full { (CLIENTS.1, LENS.1) } else { (CLIENTS.0, LENS.0) };
    let folder = tempfile::tempdir().unwrap();
    let bucket = S3Server::start();
    let url = bucket.url("far");
    let (file, index) = (folder.path().join("file"), folder.path().join("file.caibx"));
    std::fs::write(&file, input(6, len * MIB)).unwrap();
    ok(tool(folder.path()).args(args!["store", "init", url]));
    ok(tool(folder.path()).args(args!["make", "-s", url, index, file]));
    let ids = String::from_utf8(ok(tool(folder.path()).args(args!["list-chunks", index])).stdout).unwrap();
    let mut ids: Vec<&str> = ids.lines().collect();
    ids.sort_unstable();
    ids.dedup();

    let upstream = format!("[\"{url}\"]");
    let settings = [
        ("CAIRN_STORES__FAR__UPSTREAM", upstream.as_str()),
        ("CAIRN_STORES__FAR__UPSTREAM_S3_ACCESS_KEY", ACCESS_KEY),
        ("CAIRN_STORES__FAR__UPSTREAM_S3_SECRET_KEY", SECRET_KEY),
        ("CAIRN_STORES__FAR__UPSTREAM_S3_REGION", "us-east-1"),
        ("CAIRN_STORES__FAR__MEMORY_CACHE", "134217728"),
    ];
    let path = |id: &str| format!("/store/far/{}/{id}.cacnk", &id[..4]);
    // Reads of the bucket while so many pull all of it from a server that knows nothing yet.
    let pull = |clients: usize| {
        let before = bucket.counts().get("get_object").copied().unwrap_or(0);
        let server = cairnd_with(&folder.path().join(format!("data-{clients}")), &settings);
        let begin = Barrier::new(clients);
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    begin.wait();
                    for id in &ids {
                        assert_eq!(server.request("GET", &path(id), &[], b"").0, 200, "{id}");
                    }
                });
            }
        });
        bucket.counts()["get_object"] - before
    };
    let (alone, together) = (pull(1), pull(clients));
    eprintln!(
        "{} chunks: {alone} reads of the bucket for one client, {together} for {clients}",
        ids.len()
    );
    assert_eq!(together, alone);
}
