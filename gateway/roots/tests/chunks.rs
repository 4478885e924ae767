//! A chunk root as clients see it, on a real folder: statuses, forms, tags, ranges, and what hostile uploads leave behind.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod client;

use std::sync::{Arc, Mutex};

use cairn_formats::{ChunkId, DigestAlgorithm, EncodedChunk, Level, StorableChunk, compress_frame, raw_frame};
use cairn_roots::{Access, ChunkRoot, ChunkRootOptions, Grant, Token, WorkerOptions, Workers};
use cairn_store::{ChunkStore, FlatOptions, FlatStore, PackOptions, PackStore, StoreName};
use client::{Sample, Server, files};
use tempfile::TempDir;

fn writable() -> Access {
    Access {
        read: Grant::Anyone,
        write: Grant::Anyone,
    }
}

fn start(access: Access) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let store = FlatStore::open(folder.path(), FlatOptions::default()).unwrap();
    let options = ChunkRootOptions {
        access,
        ..ChunkRootOptions::default()
    };
    let root = ChunkRoot::new(Arc::new(store), options, Workers::new(WorkerOptions::default()));
    (folder, Server::start(root))
}

#[test]
fn statuses_of_a_writable_root() {
    let (folder, server) = start(writable());
    let sample = Sample::new(b"some bytes");
    assert_eq!(server.status("GET", &sample.frame_path(), b""), 404);
    assert_eq!(server.status("HEAD", &sample.frame_path(), b""), 404);
    let put = server.ask("PUT", &sample.frame_path(), &[], &sample.frame);
    assert_eq!((put.status, &put.body[..]), (200, &b""[..]));
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!(server.status("PUT", &sample.frame_path(), &sample.frame), 200, "again");
    let get = server.ask("GET", &sample.frame_path(), &[], b"");
    assert_eq!((get.status, &get.body), (200, &sample.frame));
    let head = server.ask("HEAD", &sample.frame_path(), &[], b"");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(&sample.frame.len().to_string()[..]));
    for answer in [&get, &head] {
        assert_eq!(answer.header("etag"), Some(&format!("W/\"{}\"", sample.hex)[..]));
        assert_eq!(
            answer.header("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-security-policy"), Some("sandbox"));
    }
    for method in ["DELETE", "POST", "PATCH", "OPTIONS", "PROPFIND"] {
        let answer = server.ask(method, &sample.frame_path(), &[], b"");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD, PUT")),
            "{method}"
        );
    }
    let missing = server.ask("GET", &Sample::new(b"other").frame_path(), &[], b"");
    assert_eq!(
        missing.header("cache-control"),
        Some("no-store"),
        "a 404 must not outlive the PUT that mends it"
    );
}

/// What a store of frames makes of uploads: plain bytes become a frame, raw blocks where nothing is won; one frame stays as its
/// client made it; several become one.
#[test]
fn frames_are_chosen_as_chunks_come() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(PackStore::open(folder.path(), PackOptions::default()).unwrap().0);
    let options = ChunkRootOptions {
        access: writable(),
        frame_level: Some(Level::new(1)),
        ..ChunkRootOptions::default()
    };
    let root = ChunkRoot::new(store.clone(), options, Workers::new(WorkerOptions::default()));
    let server = Server::start(root);
    let stored = |sample: &Sample| store.get_many(&[sample.hex.parse().unwrap()]).remove(0).unwrap().bytes;
    let text = Sample::new(&b"some words, again and again; ".repeat(1000));
    assert_eq!(server.status("PUT", &text.plain_path(), &text.plain), 200);
    assert!(stored(&text).len() < 1000);
    let noise: Vec<u8> = (0..20_000_u64)
        .flat_map(|n| *DigestAlgorithm::Sha256.id(&n.to_le_bytes()).as_bytes())
        .collect();
    let noise = Sample::new(&noise);
    assert_eq!(server.status("PUT", &noise.plain_path(), &noise.plain), 200);
    assert_eq!(stored(&noise), raw_frame(&noise.plain));
    let client = Sample::new(&b"framed by its client ".repeat(500));
    let frame = compress_frame(&client.plain, Level::new(12));
    assert_eq!(server.status("PUT", &client.frame_path(), &frame), 200);
    assert_eq!(stored(&client), frame);
    let parts = Sample::new(&b"in two frames ".repeat(500));
    let (one, other) = parts.plain.split_at(3000);
    let frames = [
        compress_frame(one, Level::DEFAULT),
        compress_frame(other, Level::DEFAULT),
    ]
    .concat();
    assert_eq!(server.status("PUT", &parts.frame_path(), &frames), 200);
    assert_eq!(stored(&parts), compress_frame(&parts.plain, Level::new(1)));
}

#[test]
fn a_read_only_root_refuses_puts_with_400() {
    let (folder, server) = start(Access::default());
    let sample = Sample::new(b"some bytes");
    let answer = server.ask("PUT", &sample.frame_path(), &[], &sample.frame);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("read-only"));
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn hostile_and_wrong_paths_are_400() {
    let (_folder, server) = start(writable());
    let sample = Sample::new(b"some bytes");
    server.ask("PUT", &sample.frame_path(), &[], &sample.frame);
    let hex = &sample.hex;
    for path in [
        "/".to_owned(),
        "/..%2f..%2fetc%2fpasswd".to_owned(),
        "/../../../etc/passwd".to_owned(),
        format!("/{}", &hex[..4]),
        format!("/{}/", &hex[..4]),
        format!("/{hex}.cacnk"),
        format!("//{}/{hex}.cacnk", &hex[..4]),
        format!("/0000/{hex}.cacnk"),
        format!("/{}/{hex}.xz", &hex[..4]),
        format!("/{}/{hex}.cacnk/", &hex[..4]),
        format!("/{}/{hex}.cacnk%00", &hex[..4]),
        format!("/{}/{}.cacnk", &hex[..4], &hex[..63]),
        format!("/{}/%2e%2e{}.cacnk", &hex[..4], &hex[2..]),
        format!("/{}/{}zz.cacnk", &hex[..4], &hex[..62]),
        format!("/{}/{}.cacnk", hex[..4].to_uppercase() + "x", hex),
    ] {
        for method in ["GET", "HEAD", "PUT"] {
            assert_eq!(server.status(method, &path, b""), 400, "{method} {path}");
        }
    }
    let upper = hex.to_uppercase();
    assert_eq!(
        server.status("GET", &format!("/{}/{upper}.cacnk", &upper[..4]), b""),
        200
    );
    assert_eq!(
        server.status("GET", &format!("{}?version=1", sample.frame_path()), b""),
        200
    );
}

#[test]
fn uploads_that_are_not_the_chunk_leave_nothing() {
    let (folder, server) = start(writable());
    let sample = Sample::new(&b"some bytes ".repeat(1000));
    let other = Sample::new(b"other");
    let truncated = &sample.frame[..sample.frame.len() - 1];
    let mut flipped = sample.frame.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let bomb = compress_frame(&vec![0; 129 << 20], Level::DEFAULT);
    for (what, path, body) in [
        ("garbage", sample.frame_path(), &b"garbage"[..]),
        ("nothing", sample.frame_path(), b""),
        ("another chunk", sample.frame_path(), &other.frame),
        ("plain as frame", sample.frame_path(), &sample.plain),
        ("frame as plain", sample.plain_path(), &sample.frame),
        ("empty plain", sample.plain_path(), b""),
        ("truncated", sample.frame_path(), truncated),
        ("flipped", sample.frame_path(), &flipped),
        ("bomb", sample.frame_path(), &bomb),
    ] {
        let answer = server.ask("PUT", &path, &[], body);
        assert_eq!(answer.status, 400, "{what}");
        assert!(answer.text().contains(&sample.hex), "{what}: {}", answer.text());
        assert_eq!(files(folder.path()), Vec::<std::path::PathBuf>::new(), "{what}");
    }
}

#[test]
fn bodies_over_the_bound_are_413_before_they_are_read() {
    let (folder, server) = start(writable());
    let sample = Sample::new(b"some bytes");
    for path in [sample.frame_path(), sample.plain_path()] {
        for len in ["200000000", "9223372036854775807"] {
            let mut client = server.connect();
            client.send(format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len}\r\n\r\n").as_bytes());
            let answer = client.receive("PUT");
            assert_eq!(
                (answer.status, answer.header("connection")),
                (413, Some("close")),
                "{path} {len}"
            );
        }
    }
    // Without a length the bound holds while the body comes in.
    let mut client = server.connect();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n",
        sample.plain_path()
    );
    client.send(head.as_bytes());
    let mut piece = b"100000\r\n".to_vec();
    piece.resize(piece.len() + 0x10_0000, 0);
    piece.extend(b"\r\n");
    // One MiB a piece: the 129th is over. The server may close before all of it is sent.
    for _ in 0..129 {
        if !client.try_send(&piece) {
            break;
        }
    }
    if let Some(answer) = client.try_receive("PUT") {
        assert_eq!(answer.status, 413);
    }
    assert_eq!(files(folder.path()).len(), 0);
    assert_eq!(server.status("GET", &sample.plain_path(), b""), 404);
}

#[test]
fn a_cut_connection_leaves_nothing() {
    let (folder, server) = start(writable());
    let sample = Sample::new(&b"some bytes ".repeat(1000));
    let mut client = server.connect();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        sample.frame_path(),
        sample.frame.len()
    );
    client.send(head.as_bytes());
    client.send(&sample.frame[..sample.frame.len() - 1]);
    client.stop_sending();
    // The server ends the connection when it has seen the cut, so what it leaves is there by then.
    assert_ne!(client.try_receive("PUT").map(|answer| answer.status), Some(200));
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn either_form_is_served_whichever_is_stored() {
    let (folder, server) = start(writable());
    let compressed = Sample::new(&b"compressed ".repeat(5000));
    let plain = Sample::new(&b"plain ".repeat(5000));
    assert_eq!(server.status("PUT", &compressed.frame_path(), &compressed.frame), 200);
    assert_eq!(server.status("PUT", &plain.plain_path(), &plain.plain), 200);
    assert_eq!(files(folder.path()).len(), 2);
    for sample in [&compressed, &plain] {
        let got = server.ask("GET", &sample.plain_path(), &[], b"");
        assert_eq!((got.status, &got.body), (200, &sample.plain));
        assert_eq!(got.header("etag"), Some(&format!("\"{}\"", sample.hex)[..]));
        let got = server.ask("GET", &sample.frame_path(), &[], b"");
        assert_eq!(got.status, 200);
        assert_eq!(
            cairn_formats::decompress_frame(&got.body, 1 << 20).unwrap(),
            sample.plain
        );
        for (path, len) in [
            (sample.plain_path(), sample.plain.len()),
            (sample.frame_path(), got.body.len()),
        ] {
            let head = server.ask("HEAD", &path, &[], b"");
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, Some(&len.to_string()[..])),
                "{path}"
            );
        }
    }
    assert_eq!(files(folder.path()).len(), 2, "reading does not write");
}

#[test]
fn a_damaged_chunk_is_not_served_in_either_form() {
    let (folder, server) = start(writable());
    for (damage, sample) in [
        (Sample::new(b"other").frame, Sample::new(b"some bytes")),
        (vec![0], Sample::new(b"more bytes")),
        (vec![0; 100], Sample::new(b"yet more bytes")),
    ] {
        server.ask("PUT", &sample.frame_path(), &[], &sample.frame);
        std::fs::remove_file(folder.path().join(&sample.frame_path()[1..])).unwrap();
        std::fs::write(folder.path().join(&sample.frame_path()[1..]), damage).unwrap();
        for path in [sample.frame_path(), sample.plain_path()] {
            let answer = server.ask("GET", &path, &[], b"");
            assert_eq!(
                (answer.status, &answer.text()[..]),
                (500, "internal server error\n"),
                "{path}"
            );
        }
    }
}

/// A flat store that notes what is set aside. (The real one leaves files alone that a test has just written.)
#[derive(Debug)]
struct Noting {
    inner: FlatStore,
    aside: Mutex<Vec<ChunkId>>,
}

impl ChunkStore for Noting {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> cairn_store::Result<Vec<bool>> {
        self.inner.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<cairn_store::Result<EncodedChunk>> {
        self.inner.get_many(ids)
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> cairn_store::Result<()> {
        self.inner.put_many(chunks)
    }

    fn flush(&self) -> cairn_store::Result<()> {
        self.inner.flush()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> cairn_store::Result<bool> {
        self.aside.lock().unwrap().push(damaged.id);
        self.inner.set_aside(damaged)
    }
}

#[test]
fn only_damaged_chunks_are_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Noting {
        inner: FlatStore::open(folder.path(), FlatOptions::default()).unwrap(),
        aside: Mutex::default(),
    });
    let root = ChunkRoot::new(
        store.clone(),
        ChunkRootOptions::default(),
        Workers::new(WorkerOptions::default()),
    );
    let server = Server::start(root);
    let (sound, damaged) = (Sample::new(b"sound"), Sample::new(b"damaged"));
    let foreign = Sample::with_digest(DigestAlgorithm::Sha256, b"named by the other digest");
    for (sample, bytes) in [
        (&sound, &sound.frame),
        (&damaged, &sound.frame),
        (&foreign, &foreign.frame),
    ] {
        let path = folder.path().join(&sample.frame_path()[1..]);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for (sample, status) in [(&sound, 200), (&damaged, 500), (&foreign, 500)] {
        assert_eq!(server.status("GET", &sample.frame_path(), b""), status);
    }
    let aside: Vec<String> = store.aside.lock().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(aside, [damaged.hex]);
}

#[test]
fn conditions_and_ranges() {
    let (_folder, server) = start(writable());
    let sample = Sample::new(b"0123456789");
    server.ask("PUT", &sample.frame_path(), &[], &sample.frame);
    let (strong, weak) = (format!("\"{}\"", sample.hex), format!("W/\"{}\"", sample.hex));
    for path in [sample.frame_path(), sample.plain_path()] {
        for method in ["GET", "HEAD"] {
            for tag in [&strong, &weak, &format!("\"x\", {weak}"), "*"] {
                let answer = server.ask(method, &path, &[("If-None-Match", tag)], b"");
                assert_eq!((answer.status, answer.body.len()), (304, 0), "{method} {path} {tag}");
                assert!(answer.header("etag").is_some_and(|given| given.ends_with(&strong)));
            }
            assert_eq!(
                server.ask(method, &path, &[("If-None-Match", "\"x\"")], b"").status,
                200
            );
        }
    }
    let range = |path: &str, headers: &[(&str, &str)]| {
        let answer = server.ask("GET", path, headers, b"");
        let shown = answer.header("content-range").map(str::to_owned);
        (answer.status, shown, answer.body)
    };
    let plain = sample.plain_path();
    assert_eq!(
        range(&plain, &[("Range", "bytes=2-4")]),
        (206, Some("bytes 2-4/10".to_owned()), b"234".to_vec())
    );
    assert_eq!(
        range(&plain, &[("Range", "bytes=-3")]),
        (206, Some("bytes 7-9/10".to_owned()), b"789".to_vec())
    );
    let (status, shown, _) = range(&plain, &[("Range", "bytes=10-")]);
    assert_eq!((status, shown.as_deref()), (416, Some("bytes */10")));
    assert_eq!(
        range(&plain, &[("Range", "bytes=0-1,4-5")]),
        (200, None, sample.plain.clone())
    );
    assert_eq!(
        range(&plain, &[("Range", "bytes=2-4"), ("If-Range", "\"x\"")]),
        (200, None, sample.plain.clone())
    );
    assert_eq!(range(&plain, &[("Range", "bytes=2-4"), ("If-Range", &strong)]).0, 206);
    assert_eq!(
        range(&sample.frame_path(), &[("Range", "bytes=2-4")]),
        (200, None, sample.frame.clone())
    );
}

#[test]
fn tokens() {
    let access = Access {
        read: Grant::Tokens(vec![Token::new("reader"), Token::new("writer")]),
        write: Grant::Tokens(vec![Token::new("writer")]),
    };
    let (folder, server) = start(access);
    let sample = Sample::new(b"some bytes");
    let path = sample.frame_path();
    let ask = |method: &str, value: Option<&str>| {
        let headers: Vec<_> = value.map(|value| ("Authorization", value)).into_iter().collect();
        server.ask(
            method,
            &path,
            &headers,
            if method == "PUT" { &sample.frame } else { b"" },
        )
    };
    for (method, value) in [
        ("GET", None),
        ("HEAD", None),
        ("PUT", None),
        ("GET", Some("Bearer nobody")),
        ("GET", Some("Bearer ")),
        ("PUT", Some("Bearer reader")),
        ("PUT", Some("reader")),
        ("PUT", Some("Basic writer")),
    ] {
        let answer = ask(method, value);
        assert_eq!(answer.status, 401, "{method} {value:?}");
        assert!(
            answer
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Bearer"))
        );
    }
    assert_eq!(files(folder.path()).len(), 0);
    assert_eq!(ask("PUT", Some("Bearer writer")).status, 200);
    let got = ask("GET", Some("reader"));
    assert_eq!((got.status, &got.body), (200, &sample.frame));
    assert_eq!(
        got.header("cache-control"),
        Some("private, max-age=31536000, immutable")
    );
    assert_eq!(ask("GET", Some("Bearer writer")).status, 200);
}

#[test]
fn the_zero_chunk_needs_no_disk() {
    let (folder, server) = start(Access::default());
    for algorithm in [DigestAlgorithm::Sha512_256, DigestAlgorithm::Sha256] {
        let zero = Sample::with_digest(algorithm, &[0; 256 << 10]);
        let got = server.ask("GET", &zero.plain_path(), &[], b"");
        assert_eq!((got.status, &got.body), (200, &zero.plain));
        let got = server.ask("GET", &zero.frame_path(), &[], b"");
        assert_eq!(cairn_formats::decompress_frame(&got.body, 1 << 20).unwrap(), zero.plain);
        // A writer asks with HEAD whether to store it: other programs read the folder and need the file.
        assert_eq!(server.status("HEAD", &zero.frame_path(), b""), 404);
    }
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn a_connection_serves_many_requests_and_survives_refusals() {
    let (_folder, server) = start(writable());
    let sample = Sample::new(b"some bytes");
    let mut client = server.connect();
    assert_eq!(client.ask("PUT", &sample.frame_path(), &[], b"garbage").status, 400);
    assert_eq!(client.ask("PUT", &sample.frame_path(), &[], &sample.frame).status, 200);
    assert_eq!(
        client.ask("GET", &Sample::new(b"other").frame_path(), &[], b"").status,
        404
    );
    assert_eq!(client.ask("HEAD", &sample.frame_path(), &[], b"").status, 200);
    assert_eq!(client.ask("GET", &sample.frame_path(), &[], b"").body, sample.frame);
    // Pipelined.
    let get = format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", sample.plain_path());
    client.send(get.repeat(10).as_bytes());
    for _ in 0..10 {
        assert_eq!(client.receive("GET").body, sample.plain);
    }
}

#[test]
fn a_sha256_store_takes_sha256_chunks_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = FlatStore::open(folder.path(), FlatOptions::default()).unwrap();
    let options = ChunkRootOptions {
        digest: DigestAlgorithm::Sha256,
        access: writable(),
        ..ChunkRootOptions::default()
    };
    let root = ChunkRoot::new(Arc::new(store), options, Workers::new(WorkerOptions::default()));
    let server = Server::start(root);
    let right = Sample::with_digest(DigestAlgorithm::Sha256, b"some bytes");
    let wrong = Sample::new(b"some bytes");
    assert_eq!(server.status("PUT", &right.frame_path(), &right.frame), 200);
    assert_eq!(server.status("PUT", &wrong.frame_path(), &wrong.frame), 400);
    assert_eq!(files(folder.path()).len(), 1);
}
