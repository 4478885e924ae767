//! An index root as clients see it, on a real folder.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod client;

use std::os::unix::fs::symlink;
use std::sync::Arc;

use cairn_formats::{ChunkId, ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder};
use cairn_roots::{
    Access, ChunkRoot, ChunkRootOptions, Grant, IndexNames, IndexRoot, IndexRootOptions, WorkerOptions, Workers,
};
use cairn_store::{ChunkStore, FlatOptions, FlatStore};
use client::{Sample, Server, files};
use tempfile::TempDir;

fn writable() -> Access {
    Access {
        read: Grant::Anyone,
        write: Grant::Anyone,
    }
}

fn start(options: IndexRootOptions) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let root = IndexRoot::new(folder.path(), options, Workers::new(WorkerOptions::default())).unwrap();
    (folder, Server::start(root))
}

fn start_writable() -> (TempDir, Server) {
    start(IndexRootOptions {
        access: writable(),
        ..IndexRootOptions::default()
    })
}

/// An index of `ids`, each a chunk of 1000 bytes.
fn index(ids: impl IntoIterator<Item = ChunkId>) -> Vec<u8> {
    let mut file = Vec::new();
    let flags = FeatureFlags::blob(DigestAlgorithm::Sha512_256);
    let mut encoder = IndexEncoder::start(flags, ChunkSizes::DEFAULT, &mut file);
    for id in ids {
        encoder.push(id, 1000, &mut file);
    }
    encoder.finish(&mut file);
    file
}

fn small_index() -> Vec<u8> {
    index([ChunkId::from_bytes([7; 32])])
}

#[test]
fn statuses_and_headers() {
    let (folder, server) = start_writable();
    let index = small_index();
    assert_eq!(server.status("GET", "/a.caibx", b""), 404);
    assert_eq!(server.status("HEAD", "/a.caibx", b""), 404);
    let put = server.ask("PUT", "/a.caibx", &[], &index);
    assert_eq!(put.status, 200);
    assert_eq!(files(folder.path()), ["a.caibx".as_ref()] as [&std::path::Path; 1]);
    let got = server.ask("GET", "/a.caibx", &[], b"");
    assert_eq!((got.status, &got.body), (200, &index));
    assert_eq!(got.header("etag"), put.header("etag"));
    assert_eq!(got.header("cache-control"), Some("no-cache"));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    let head = server.ask("HEAD", "/a.caibx", &[], b"");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some(&index.len().to_string()[..]))
    );
    let tag = got.header("etag").unwrap();
    assert_eq!(
        server.ask("GET", "/a.caibx", &[("If-None-Match", tag)], b"").status,
        304
    );
    let part = server.ask("GET", "/a.caibx", &[("Range", "bytes=0-47"), ("If-Range", tag)], b"");
    assert_eq!((part.status, &part.body[..]), (206, &index[..48]));
    assert_eq!(
        server.ask("GET", "/a.caibx", &[("Range", "bytes=9999-")], b"").status,
        416
    );
    assert_eq!(server.status("DELETE", "/a.caibx", b""), 405);

    let newer = self::index([ChunkId::from_bytes([8; 32])]);
    assert_eq!(server.status("PUT", "/a.caibx", &newer), 200);
    let got = server.ask("GET", "/a.caibx", &[("If-None-Match", tag)], b"");
    assert_eq!(
        (got.status, &got.body),
        (200, &newer),
        "a replaced index has another tag"
    );
}

#[test]
fn what_is_no_index_is_415_and_leaves_the_old_one() {
    let (folder, server) = start_writable();
    let index = small_index();
    server.ask("PUT", "/a.caibx", &[], &index);
    let mut trailing = index.clone();
    trailing.push(0);
    for (what, body) in [
        ("nothing", &b""[..]),
        ("garbage", b"garbage"),
        ("truncated", &index[..index.len() - 1]),
        ("an item short", &index[..index.len() - 40]),
        ("bytes behind", &trailing),
        ("html", b"<html><script>alert(1)</script></html>"),
    ] {
        for path in ["/a.caibx", "/new/b.caibx"] {
            let answer = server.ask("PUT", path, &[], body);
            assert_eq!(answer.status, 415, "{what}");
            assert!(answer.text().starts_with("not a chunk index"), "{what}");
        }
    }
    assert_eq!(server.ask("GET", "/a.caibx", &[], b"").body, index);
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn names_have_folders_and_cannot_leave_the_root() {
    let (folder, server) = start_writable();
    let outside = tempfile::tempdir().unwrap();
    let index = small_index();
    std::fs::write(outside.path().join("secret.caibx"), &index).unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    symlink(outside.path().join("secret.caibx"), folder.path().join("file.caibx")).unwrap();
    for path in ["/deep/er/a.caidx", "/%ff%20b.caibx", "/x%2fy.caibx"] {
        assert_eq!(server.status("PUT", path, &index), 200, "{path}");
        assert_eq!(server.ask("GET", path, &[], b"").body, index, "{path}");
    }
    assert!(folder.path().join("x/y.caibx").is_file());
    for path in [
        "/../secret.caibx",
        "/%2e%2e/secret.caibx",
        "/deep/../../secret.caibx",
        "/deep/%2e%2e%2f%2e%2e/secret.caibx",
        "//etc/a.caibx",
        "/%2fetc/a.caibx",
        "/a%00.caibx",
        "/a",
        "/",
        "/a.txt",
        "/deep/",
        "/.tmp-1.caibx",
    ] {
        assert_eq!(server.status("GET", path, b""), 400, "{path}");
        assert_eq!(server.status("PUT", path, &index), 400, "{path}");
    }
    // Links are followed by nobody; a PUT replaces the link itself, never what it points to.
    assert_eq!(server.status("GET", "/link/secret.caibx", b""), 404);
    assert_eq!(server.status("PUT", "/link/secret.caibx", &index), 400);
    assert_eq!(server.status("GET", "/file.caibx", b""), 404);
    let other = self::index([ChunkId::from_bytes([9; 32])]);
    assert_eq!(server.status("PUT", "/file.caibx", &other), 200);
    assert_eq!(std::fs::read(outside.path().join("secret.caibx")).unwrap(), index);
    assert_eq!(files(outside.path()).len(), 1);
    // A file is no folder and a folder no file.
    assert_eq!(server.status("PUT", "/file.caibx/a.caibx", &index), 400);
    assert_eq!(server.status("GET", "/file.caibx/a.caibx", b""), 404);
    std::fs::create_dir(folder.path().join("dir.caibx")).unwrap();
    assert_eq!(server.status("PUT", "/dir.caibx", &index), 400);
    assert_eq!(server.status("GET", "/dir.caibx", b""), 404);
}

#[test]
fn a_large_index_comes_in_pieces_and_goes_out_in_pieces() {
    let (folder, server) = start_writable();
    let large = index((0..100_000_u32).map(|at| {
        let mut id = [1; 32];
        id[..4].copy_from_slice(&at.to_le_bytes());
        ChunkId::from_bytes(id)
    }));
    assert!(large.len() > 3 << 20);
    // As desync sends it: no length announced.
    let mut client = server.connect();
    client.send(b"PUT /large.caibx HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in large.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len()).as_bytes());
        client.send(piece);
        client.send(b"\r\n");
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.receive("PUT").status, 200);
    assert_eq!(files(folder.path()).len(), 1, "no temporary file is left");
    assert_eq!(client.ask("GET", "/large.caibx", &[], b"").body, large);
    let part = client.ask("GET", "/large.caibx", &[("Range", "bytes=100-3000099")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &large[100..3_000_100]));
}

#[test]
fn uploads_are_bounded_and_cut_ones_leave_nothing() {
    let (folder, server) = start(IndexRootOptions {
        access: writable(),
        len_max: 1000,
        ..IndexRootOptions::default()
    });
    let ids = |count| index((0..count).map(|at| ChunkId::from_bytes([at; 32])));
    assert_eq!(server.status("PUT", "/a.caibx", &ids(22)), 200);
    let mut client = server.connect();
    client.send(b"PUT /b.caibx HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(client.receive("PUT").status, 413);
    let mut client = server.connect();
    client.send(b"PUT /b.caibx HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n");
    client.try_send(&[0; 0x400]);
    client.try_send(b"\r\n0\r\n\r\n");
    assert_eq!(client.receive("PUT").status, 413);
    let mut client = server.connect();
    client.send(b"PUT /b.caibx HTTP/1.1\r\nHost: test\r\nContent-Length: 144\r\n\r\n");
    client.send(&small_index()[..143]);
    client.stop_sending();
    assert_ne!(client.try_receive("PUT").map(|answer| answer.status), Some(200));
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn a_read_only_root_refuses_puts_with_400() {
    let (folder, server) = start(IndexRootOptions::default());
    assert_eq!(server.status("PUT", "/a.caibx", &small_index()), 400);
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn any_name_is_known_when_asked_for() {
    let (_folder, server) = start(IndexRootOptions {
        access: writable(),
        names: IndexNames::Any,
        ..IndexRootOptions::default()
    });
    assert_eq!(server.status("PUT", "/latest", &small_index()), 200);
    assert_eq!(server.status("GET", "/latest", b""), 200);
}

#[test]
fn an_index_is_refused_while_its_chunks_are_missing_if_so_asked() {
    let chunks = tempfile::tempdir().unwrap();
    let store: Arc<dyn ChunkStore> = Arc::new(FlatStore::open(chunks.path(), FlatOptions::default()).unwrap());
    let options = ChunkRootOptions {
        access: writable(),
        ..ChunkRootOptions::default()
    };
    let workers = Workers::new(WorkerOptions::default());
    let chunk_server = Server::start(ChunkRoot::new(Arc::clone(&store), options, workers));
    let (folder, server) = start(IndexRootOptions {
        access: writable(),
        required_in: Some(store),
        ..IndexRootOptions::default()
    });
    let sample = Sample::new(&[1; 1000]);
    let index = index([sample.hex.parse().unwrap()]);
    let refused = server.ask("PUT", "/a.caibx", &[], &index);
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains(&sample.hex));
    assert_eq!(files(folder.path()).len(), 0);
    assert_eq!(chunk_server.status("PUT", &sample.frame_path(), &sample.frame), 200);
    assert_eq!(server.status("PUT", "/a.caibx", &index), 200);
}
