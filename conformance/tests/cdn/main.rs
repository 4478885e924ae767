//! The CDN's door: what is answered to whom, with which tag, for how long, in which ranges; and what is refused.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod access;
mod by_digest;
mod caches;
mod far;
mod players;
mod slow;

use std::path::{Path, PathBuf};

use cairn_conformance::s3::Door;
use cairn_conformance::support::{input, request};

const MIB: usize = 1 << 20;
/// Of the configuration.
const TOKEN: &str = "reader-0123456789abcdef";
const OLD_SECRET: &str = "old-0123456789abcdef0123456789abcdef";
const NEW_SECRET: &str = "new-0123456789abcdef0123456789abcdef";

/// An answer.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        Some(line.trim())
    }
}

/// A server with a bucket `abc`, of which `pub/` is for everybody, and a folder.
struct Ground {
    folder: tempfile::TempDir,
    door: Door,
}

impl Ground {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = vec![
            ("CAIRN_TOKENS__READER__TOKEN", TOKEN),
            ("CAIRN_TOKENS__READER__BUCKETS", "[\"abc\"]"),
            ("CAIRN_CDN__KEYS__old__SECRET", OLD_SECRET),
            ("CAIRN_CDN__KEYS__new__SECRET", NEW_SECRET),
            ("CAIRN_CDN__TRUSTED_PROXIES", "[\"127.0.0.1\"]"),
        ];
        settings.extend_from_slice(more);
        let door = Door::start(&folder.path().join("data"), &settings);
        let ground = Self { folder, door };
        ground.script("import door; door.client().create_bucket(Bucket='abc')", &[]);
        ground.set("abc", r#"{"public_read": ["pub/"]}"#);
        ground
    }

    /// Changes settings of a bucket, in JSON.
    fn set(&self, bucket: &str, settings: &str) {
        let port = self.door.admin.rsplit(':').next().unwrap().parse().unwrap();
        let token = format!("Bearer {}", self.door.admin_token);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let path = format!("/api/v1/admin/buckets/{bucket}");
        let body = format!("{{\"settings\": {settings}}}");
        let (status, _, words) = request(port, "PATCH", &path, &headers, body.as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&words));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, program: &str, arguments: &[&str]) -> String {
        self.door.script(self.folder.path(), program, arguments)
    }

    /// Puts bytes as an object, by boto3; its version's id, or nothing.
    fn put(&self, key: &str, bytes: &[u8]) -> String {
        self.put_with(key, bytes, "{}")
    }

    /// - `more`: arguments of `put_object`, in Python.
    fn put_with(&self, key: &str, bytes: &[u8], more: &str) -> String {
        let file = self.path("put");
        std::fs::write(&file, bytes).unwrap();
        let program = format!(
            "import door, sys; print(door.client().put_object(Bucket='abc', Key=sys.argv[1], Body=open(sys.argv[2], 'rb'), \
             **{more}).get('VersionId', ''))"
        );
        let id = self.script(&program, &[key, file.to_str().unwrap()]);
        id.trim().to_owned()
    }

    fn delete(&self, key: &str) {
        self.script(
            "import door, sys; door.client().delete_object(Bucket='abc', Key=sys.argv[1])",
            &[key],
        );
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let (status, head, body) = request(self.door.public, method, path, headers, b"");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(head.contains("content-security-policy: sandbox"), "{head}");
        Answer { status, head, body }
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Goal: bytes of every length come out as they went in, with length, tag, type and date; a HEAD says the same without them.
#[test]
fn objects_of_every_length_come_out_as_they_went_in() {
    let ground = Ground::start();
    for (key, len) in [
        ("pub/empty", 0),
        ("pub/row", 700),
        ("pub/chunk", 40_000),
        ("pub/some.mp4", 3 * MIB),
        ("pub/d\u{e9}ep/a b+c%.bin", 20 * MIB),
    ] {
        let bytes = input(len as u64, len);
        ground.put(key, &bytes);
        let path = format!(
            "/cdn/abc/{}",
            key.replace('%', "%25").replace(' ', "%20").replace('\u{e9}', "%C3%A9")
        );
        let whole = ground.get(&path, &[]);
        assert_eq!(whole.status, 200, "{key}");
        assert!(whole.body == bytes, "{key}");
        assert_eq!(whole.header("content-length"), Some(len.to_string().as_str()));
        let head = ground.ask("HEAD", &path, &[("range", "bytes=0-1")]);
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in [
            "etag",
            "last-modified",
            "content-length",
            "content-type",
            "cache-control",
            "cache-tag",
            "surrogate-key",
        ] {
            assert_eq!(head.header(name), whole.header(name), "{name} of {key}");
            assert!(whole.header(name).is_some(), "{name} of {key}");
        }
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        assert!(whole.header("server-timing").unwrap().starts_with("find;dur="));
    }
    assert_eq!(
        ground.get("/cdn/abc/pub/some.mp4", &[]).header("content-type"),
        Some("video/mp4")
    );
    let missing = ground.get("/cdn/abc/pub/nothing", &[]);
    assert_eq!(
        (missing.status, missing.header("cache-control")),
        (404, Some("public, max-age=5"))
    );
    for path in ["/cdn/", "/cdn/abc", "/cdn/abc/", "/cdn/ABC/x"] {
        assert!([400, 404].contains(&ground.get(path, &[]).status), "{path}");
    }
    let put = ground.ask("PUT", "/cdn/abc/pub/row", &[]);
    assert_eq!((put.status, put.header("allow")), (405, Some("get, head, options")));
}

/// A date that was put in lower case, as HTTP has it.
fn date_of(lower: &str) -> String {
    let word = |word: &str| match word {
        "gmt" => "GMT".to_owned(),
        word => word[..1].to_uppercase() + &word[1..],
    };
    lower.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Goal: one that is held already is not sent again, and one that changed is.
#[test]
fn what_is_held_is_not_sent_again() {
    let ground = Ground::start();
    ground.put("pub/k", b"first");
    let first = ground.get("/cdn/abc/pub/k", &[]);
    let (tag, date) = (
        first.header("etag").unwrap().to_owned(),
        date_of(first.header("last-modified").unwrap()),
    );
    let weak = format!("W/{tag}");
    for headers in [
        [("if-none-match", tag.as_str())],
        [("if-none-match", weak.as_str())],
        [("if-none-match", "*")],
        [("if-modified-since", date.as_str())],
    ] {
        let held = ground.get("/cdn/abc/pub/k", &headers);
        assert_eq!((held.status, held.body.len()), (304, 0), "{headers:?}");
        assert_eq!(held.header("etag"), Some(tag.as_str()));
        assert_eq!(held.header("cache-control"), first.header("cache-control"));
    }
    assert_eq!(ground.get("/cdn/abc/pub/k", &[("if-match", "\"other\"")]).status, 412);
    ground.put("pub/k", b"second");
    let second = ground.get("/cdn/abc/pub/k", &[("if-none-match", tag.as_str())]);
    assert_eq!((second.status, second.body.as_slice()), (200, &b"second"[..]));
    assert_ne!(second.header("etag"), Some(tag.as_str()));
}

/// Goal: each range is its bytes, several come in one body in the order asked for, and what lies is refused.
#[test]
fn ranges_are_answered_and_those_that_lie_refused() {
    let ground = Ground::start();
    let bytes = input(9, 5 * MIB + 17);
    let size = bytes.len();
    ground.put("pub/k", &bytes);
    let path = "/cdn/abc/pub/k";
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-3000000", 1_000_000, 3_000_001),
        ("bytes=5000000-", 5_000_000, size),
        ("bytes=-1", size - 1, size),
        ("bytes=0-99999999999999999999", 0, size),
        ("bytes=0-9,10-19", 0, 20),
    ] {
        let part = ground.get(path, &[("range", range)]);
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == bytes[from..to], "{range}");
        let shown = format!("bytes {from}-{}/{size}", to - 1);
        assert_eq!(part.header("content-range"), Some(shown.as_str()));
    }
    let several = ground.get(path, &[("range", "bytes=4000000-4000009, 0-4,-3")]);
    assert_eq!(several.status, 206);
    let kind = several.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap().to_owned();
    assert_eq!(
        several.header("content-length"),
        Some(several.body.len().to_string().as_str())
    );
    let mut expected = Vec::new();
    for (from, to) in [(4_000_000, 4_000_010), (0, 5), (size - 3, size)] {
        expected.extend_from_slice(
            format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {from}-{}/{size}\r\n\r\n",
                to - 1
            )
            .as_bytes(),
        );
        expected.extend_from_slice(&bytes[from..to]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(several.body == expected);

    let many = (0..17)
        .map(|n| format!("{}-{}", n * 10, n * 10 + 1))
        .collect::<Vec<_>>()
        .join(",");
    for range in [
        "bytes=9999999-",
        "bytes=5-2",
        "bytes=-0",
        "bytes=x",
        "bytes=0-9,0-9,0-9,0-9",
        &format!("bytes={many}"),
    ] {
        let refused = ground.get(path, &[("range", range)]);
        assert_eq!(refused.status, 416, "{range}");
        let shown = format!("bytes */{size}");
        assert_eq!(refused.header("content-range"), Some(shown.as_str()));
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    assert_eq!(ground.get(path, &[("range", "pages=1-2")]).status, 200);

    let whole = ground.get(path, &[]);
    let tag = whole.header("etag").unwrap();
    for (condition, status) in [
        (tag, 206),
        ("\"other\"", 200),
        (&format!("W/{tag}"), 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ] {
        let part = ground.get(path, &[("range", "bytes=0-0"), ("if-range", condition)]);
        assert_eq!(part.status, status, "{condition}");
    }
}

/// Goal: a path that names a version never changes, a playlist soon does, and a writer's own word goes first.
#[test]
fn answers_say_how_long_they_may_be_kept() {
    let ground = Ground::start();
    ground.put("pub/a.mp4", b"a");
    ground.put("pub/live.m3u8", b"#EXTM3U\n");
    ground.put_with("pub/own", b"o", "{'CacheControl': 'max-age=77'}");
    let said = |path: &str, token: bool| {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        let answer = ground.get(path, if token { &headers } else { &[] });
        assert_eq!(answer.status, 200, "{path}");
        answer.header("cache-control").unwrap().to_owned()
    };
    let usual = "public, max-age=300, stale-while-revalidate=30, stale-if-error=86400";
    assert_eq!(said("/cdn/abc/pub/a.mp4", false), usual);
    assert_eq!(said("/cdn/abc/pub/a.mp4", true), usual, "it is everybody's");
    assert_eq!(
        said("/cdn/abc/pub/live.m3u8", false),
        "public, max-age=5, stale-while-revalidate=5, stale-if-error=5"
    );
    assert_eq!(said("/cdn/abc/pub/own", false), "max-age=77");
    ground.set("abc", r#"{"versioning": "enabled", "cdn_max_age": 60}"#);
    let first = ground.put("pub/a.mp4", b"first");
    ground.put("pub/a.mp4", b"second");
    assert!(said("/cdn/abc/pub/a.mp4", false).starts_with("public, max-age=60, "));
    let path = format!("/cdn/abc/pub/a.mp4?versionId={first}");
    assert_eq!(said(&path, true), "private, max-age=31536000, immutable");
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(ground.get(&path, &[("authorization", bearer.as_str())]).body, b"first");
    assert_eq!(ground.get(&path, &[]).status, 401, "old versions are not everybody's");
    ground.delete("pub/a.mp4");
    assert_eq!(ground.get("/cdn/abc/pub/a.mp4", &[]).status, 404);
}

/// Goal: a form that was made before stands in for a text, to clients that take it, with a tag of its own, and never for other bytes.
#[test]
fn a_compressed_form_stands_in_for_a_text() {
    let ground = Ground::start();
    ground.put("pub/a.js", b"plain");
    ground.put("pub/a.js.gz", b"in gzip");
    let path = "/cdn/abc/pub/a.js";
    let takes = [("accept-encoding", "gzip, br")];
    let plain = ground.get(path, &takes);
    assert_eq!(
        (plain.body.as_slice(), plain.header("vary")),
        (&b"plain"[..], None),
        "it is off by default"
    );
    ground.set("abc", r#"{"cdn_precompressed": true}"#);
    let coded = ground.get(path, &takes);
    assert_eq!(coded.body, b"in gzip");
    assert_eq!(coded.header("content-encoding"), Some("gzip"));
    assert_eq!(coded.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(coded.header("accept-ranges"), Some("none"));
    let plain = ground.get(path, &[]);
    assert_eq!(
        (plain.body.as_slice(), plain.header("content-encoding")),
        (&b"plain"[..], None)
    );
    for answer in [&coded, &plain] {
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
    }
    assert_ne!(coded.header("etag"), plain.header("etag"));
    let tag = coded.header("etag").unwrap();
    assert_eq!(ground.get(path, &[takes[0], ("if-none-match", tag)]).status, 304);
    assert_eq!(ground.get(path, &[("if-none-match", tag)]).status, 200);
    assert_eq!(ground.get(path, &[takes[0], ("range", "bytes=0-1")]).body, b"pl");
    assert_eq!(ground.get(path, &[("accept-encoding", "gzip;q=0")]).body, b"plain");
    ground.put("pub/a.js", b"newer");
    assert_eq!(
        ground.get(path, &takes).body,
        b"newer",
        "the other form is of what was there before"
    );
}

/// Goal: stored frames go out as they are, to those who take them and where the bucket says so; zstd and curl read all of them, and the tag
/// is another one.
#[test]
fn stored_frames_are_a_form_of_their_own() {
    let ground = Ground::start_with(&[("CAIRN_S3__DEFERRED", "false")]);
    let bytes: Vec<u8> = (0..400_000_u32)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    ground.put("pub/a.txt", &bytes);
    ground.put("pub/short.txt", b"short");
    ground.put("pub/a.mp4", &bytes);
    let takes = [("accept-encoding", "gzip, zstd")];
    let path = "/cdn/abc/pub/a.txt";
    assert!(ground.get(path, &takes).body == bytes, "it is off by default");
    ground.set("abc", r#"{"cdn_zstd": true}"#);
    let plain = ground.get(path, &[]);
    let coded = ground.get(path, &takes);
    assert_eq!(coded.header("content-encoding"), Some("zstd"));
    assert_eq!(
        (coded.header("content-length"), coded.header("accept-ranges")),
        (None, Some("none"))
    );
    let frames = unchunked(&coded.body);
    assert!(frames.len() < bytes.len() / 2, "{} bytes of frames", frames.len());
    std::fs::write(ground.path("a.zst"), &frames).unwrap();
    let mut zstd = std::process::Command::new("zstd");
    let plain_of = cairn_conformance::support::ok(zstd.args(["-d", "-c"]).arg(ground.path("a.zst"))).stdout;
    assert!(plain_of == bytes);
    let url = format!("http://127.0.0.1:{}{path}", ground.door.public);
    let mut curl = std::process::Command::new("curl");
    let by_curl = cairn_conformance::support::ok(curl.args(["-sS", "--fail", "--compressed", &url])).stdout;
    assert!(by_curl == bytes, "curl reads all frames");
    for answer in [&plain, &coded] {
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
    }
    let tag = coded.header("etag").unwrap();
    assert!(tag.starts_with("w/") && Some(tag) != plain.header("etag"));
    assert_eq!(
        ground
            .get(path, &[takes[0], ("if-none-match", &tag.replace("w/", "W/"))])
            .status,
        304
    );
    assert_eq!(ground.get(path, &[("if-none-match", tag)]).status, 200);
    assert_eq!(ground.get(path, &[takes[0], ("range", "bytes=0-3")]).body, b"line");
    assert_eq!(ground.get("/cdn/abc/pub/short.txt", &takes).body, b"short");
    let film = ground.get("/cdn/abc/pub/a.mp4", &takes);
    assert_eq!((film.header("content-encoding"), film.header("vary")), (None, None));
}

/// The body of an answer in chunks of HTTP.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + len]);
        body = &body[end + 2 + len + 2..];
    }
}
