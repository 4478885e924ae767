//! Objects by a digest of their bytes: who finds them, what is said of them, and that nobody learns of what is not for them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::access::NEW;
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn sha256_path(bytes: &[u8]) -> String {
    format!("/cdn/-/sha256/{}", hex(&Sha256::digest(bytes)))
}

fn blake3_path(bytes: &[u8]) -> String {
    format!("/cdn/-/blake3/{}", blake3::hash(bytes).to_hex())
}

/// After which it will never come.
const GIVEN_UP: std::time::Duration = std::time::Duration::from_secs(60);

const WITH_SHA256: &str = "{'ChecksumAlgorithm': 'SHA256'}";

/// Goal: what everybody reads is read by its digest too, for ever as caches see it, with one tag wherever its bytes are, in
/// ranges; by another digest nothing is.
#[test]
fn what_is_shown_is_read_by_its_digest() {
    let ground = Ground::start();
    let bytes = input(7, 3 * MIB);
    let path = sha256_path(&bytes);
    let missing = ground.get(&path, &[]);
    assert_eq!(
        (missing.status, missing.header("cache-control")),
        (404, Some("no-store"))
    );
    ground.put_with("pub/app.js", &bytes, WITH_SHA256);
    let read = ground.get(&path, &[]);
    assert_eq!(read.status, 200);
    assert!(read.body == bytes);
    let tag = format!("\"sha256-{}\"", hex(&Sha256::digest(&bytes)));
    for (name, value) in [
        ("cache-control", "public, max-age=31536000, immutable"),
        ("etag", tag.as_str()),
        ("content-type", "application/octet-stream"),
        ("access-control-allow-origin", "*"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(read.header(name), Some(value), "{name}");
    }
    let object = ground.get("/cdn/abc/pub/app.js", &[]);
    assert_ne!(read.header("cache-tag"), object.header("cache-tag"), "it is nobody's");
    assert_eq!(ground.get(&path, &[("if-none-match", tag.as_str())]).status, 304);
    let part = ground.get(&path, &[("range", "bytes=5-9"), ("if-range", tag.as_str())]);
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[5..10]));
    let head = ground.ask("HEAD", &path, &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("3145728")));

    for other in [
        path.replace("sha256", "blake3"),
        format!("{}0", &path[..path.len() - 1]),
        sha256_path(b"other"),
    ] {
        let missing = ground.get(&other, &[]);
        assert_eq!(
            (missing.status, missing.header("cache-control")),
            (404, Some("no-store")),
            "{other}"
        );
    }
    for wrong in [
        path.to_uppercase().replace("/CDN/-/SHA256", "/cdn/-/sha256"),
        path.replace("sha256", "md5"),
        path[..path.len() - 1].to_owned(),
        format!("{path}/"),
        "/cdn/-/sha256".to_owned(),
    ] {
        assert_eq!(ground.get(&wrong, &[]).status, 400, "{wrong}");
    }
    assert_eq!(ground.ask("PUT", &path, &[]).status, 405);

    // The same bytes elsewhere are the same answer, while one of them is there.
    ground.put_with("pub/z", &bytes, WITH_SHA256);
    ground.delete("pub/app.js");
    let read = ground.get(&path, &[]);
    assert_eq!((read.status, read.header("etag")), (200, Some(tag.as_str())));
    ground.put("pub/z", b"other bytes");
    assert_eq!(ground.get(&path, &[]).status, 404);
}

/// Goal: a bucket that asks for digests gives them to what comes in one piece, copies keep them, and a bucket that does not has none.
#[test]
fn a_bucket_has_digests_worked_out_if_it_says_so() {
    let ground = Ground::start();
    let (small, large) = (input(1, 700), input(2, 9 * MIB));
    ground.put("pub/before", &small);
    ground.set("abc", r#"{"digests": ["blake3", "sha256"]}"#);
    assert_eq!(ground.get(&blake3_path(&small), &[]).status, 404, "put before");
    for (key, bytes) in [("pub/small", &small), ("pub/large", &large), ("pub/empty", &Vec::new())] {
        ground.put(key, bytes);
        for path in [sha256_path(bytes), blake3_path(bytes)] {
            let read = ground.get(&path, &[]);
            assert_eq!(read.status, 200, "{key}");
            assert!(read.body == *bytes, "{key}");
        }
    }
    // A check sum that nobody asked for is not told.
    let told = ground.script(
        "import door; print(sorted(name for name in door.client().head_object(Bucket='abc', Key='pub/small', \
         ChecksumMode='ENABLED') if name.startswith('Checksum')))",
        &[],
    );
    assert!(!told.contains("SHA256"), "{told}");
    ground.set("abc", r#"{"digests": []}"#);
    ground.script(
        "import door; door.client().copy_object(Bucket='abc', Key='pub/copy', CopySource={'Bucket': 'abc', 'Key': 'pub/large'})",
        &[],
    );
    ground.delete("pub/large");
    assert_eq!(ground.get(&blake3_path(&large), &[]).status, 200, "the copy");
    ground.delete("pub/copy");
    assert_eq!(ground.get(&blake3_path(&large), &[]).status, 404);
    ground.put("pub/large", &large);
    assert_eq!(ground.get(&blake3_path(&large), &[]).status, 404, "put behind");
}

/// Goal: what came in parts is found by its digests, too, when it has been read back, and whoever looks at changes sees none.
#[test]
fn what_came_in_parts_gets_its_digests_when_the_server_has_time() {
    let ground = Ground::start();
    ground.set("abc", r#"{"digests": ["blake3", "sha256"]}"#);
    let bytes = input(3, 12 * MIB);
    let file = ground.path("parts");
    std::fs::write(&file, &bytes).unwrap();
    ground.script(
        "import door, sys; from boto3.s3.transfer import TransferConfig; \
         door.client().upload_file(sys.argv[1], 'abc', 'pub/parts', Config=TransferConfig(multipart_threshold=5 << 20))",
        &[file.to_str().unwrap()],
    );
    let object = ground.get("/cdn/abc/pub/parts", &[]);
    assert!(object.header("etag").unwrap().ends_with("-2\""), "it came in parts");
    let begun = std::time::Instant::now();
    while ground.door.metric("s3_digests_total{result=\"done\"}") == 0 {
        assert!(begun.elapsed() < GIVEN_UP, "nothing is worked out");
    }
    for path in [sha256_path(&bytes), blake3_path(&bytes)] {
        let read = ground.get(&path, &[]);
        assert_eq!(read.status, 200, "{path}");
        assert!(read.body == bytes, "{path}");
    }
    let now = ground.get("/cdn/abc/pub/parts", &[]);
    for name in ["etag", "last-modified"] {
        assert_eq!(now.header(name), object.header(name), "{name}");
    }
    assert_eq!(ground.door.metric("s3_digest_bytes_total"), 12 << 20);
}

/// Goal: what is private is found by who may read it, and for all others it is as if it were not there: other buckets' tokens,
/// another tenant, nobody.
#[test]
fn what_is_private_is_found_by_who_may_read_it_alone() {
    let ground = Ground::start();
    ground.put_with("secret/k", b"secret", WITH_SHA256);
    let path = sha256_path(b"secret");
    let bearer = format!("Bearer {TOKEN}");
    let token = [("authorization", bearer.as_str())];
    let read = ground.get(&path, &token);
    assert_eq!((read.status, read.body.as_slice()), (200, &b"secret"[..]));
    assert_eq!(
        read.header("cache-control"),
        Some("private, max-age=31536000, immutable")
    );
    let nobody = ground.get(&path, &[]);
    let nothing = ground.get(&sha256_path(b"nothing"), &[]);
    assert_eq!((nobody.status, &nobody.body), (404, &nothing.body));
    assert_eq!(nobody.header("cache-tag"), None);
    assert_eq!(ground.get(&path, &[("authorization", "Bearer wrong")]).status, 401);

    // Of the same owner, in a bucket that the token is not for.
    ground.script(
        "import door; s3 = door.client(); s3.create_bucket(Bucket='second'); \
         s3.put_object(Bucket='second', Key='k', Body=b'of second', ChecksumAlgorithm='SHA256'); \
         s3.put_object(Bucket='second', Key='also', Body=b'secret', ChecksumAlgorithm='SHA256')",
        &[],
    );
    let second = sha256_path(b"of second");
    assert_eq!(ground.get(&second, &token).status, 404);
    assert_eq!(ground.get(&path, &token).status, 200, "its own is found beside it");
    let basic = |id: &str, secret: &str| {
        let program = "import base64, sys; print(base64.b64encode(f'{sys.argv[1]}:{sys.argv[2]}'.encode()).decode())";
        format!("Basic {}", ground.script(program, &[id, secret]).trim())
    };
    let owner = basic(&ground.door.key, &ground.door.secret);
    assert_eq!(ground.get(&second, &[("authorization", &owner)]).status, 200);

    // Another tenant, with an owner of the same name.
    let port = ground.door.admin.rsplit(':').next().unwrap().parse().unwrap();
    let admin = format!("Bearer {}", ground.door.admin_token);
    let (status, _, key) = request(
        port,
        "POST",
        "/api/v1/admin/keys",
        &[("authorization", &admin), ("content-type", "application/json")],
        br#"{"tenant": "other", "owner": "admin"}"#,
    );
    assert_eq!(status, 201);
    let key: serde_json::Value = serde_json::from_slice(&key).unwrap();
    let word = |name: &str| key[name].as_str().unwrap().to_owned();
    let other = basic(&word("id"), &word("secret"));
    for path in [&path, &second] {
        let answer = ground.get(path, &[("authorization", &other)]);
        assert_eq!((answer.status, &answer.body), (404, &nothing.body));
    }
    // What is shown to everybody is so to them too, as nobody's own.
    ground.put_with("pub/k", b"secret", WITH_SHA256);
    for (headers, scope) in [
        (&[][..], "public"),
        (&[("authorization", other.as_str())], "public"),
        (&token, "private"),
    ] {
        let (read, control) = (
            ground.get(&path, headers),
            format!("{scope}, max-age=31536000, immutable"),
        );
        assert_eq!((read.status, read.header("cache-control")), (200, Some(&*control)));
    }
    ground.set("abc", r#"{"public_read": []}"#);
    assert_eq!(ground.get(&path, &[]).status, 404);
}

/// Goal: a link opens the digest that it was signed for, from the URL or a cookie, and no other.
#[test]
fn a_link_opens_the_digest_that_it_was_signed_for() {
    let ground = Ground::start();
    for bytes in ["one", "two"] {
        ground.put_with(&format!("secret/{bytes}"), bytes.as_bytes(), WITH_SHA256);
    }
    let (one, two) = (sha256_path(b"one"), sha256_path(b"two"));
    let link = ground.sign(NEW, &one, &["--expires-in", "100"]);
    let read = ground.get(&link, &[]);
    assert_eq!((read.status, read.body.as_slice()), (200, &b"one"[..]));
    let said = read.header("cache-control").unwrap();
    let seconds = said.strip_prefix("public, max-age=").unwrap();
    let seconds: u64 = seconds.strip_suffix(", immutable").unwrap().parse().unwrap();
    assert!(seconds <= 100, "{said}");
    let words = link.split_once('?').unwrap().1;
    assert_eq!(ground.get(&format!("{two}?{words}"), &[]).status, 403);
    let of_key = ground.sign(NEW, "/cdn/abc/secret/one", &[]);
    let words = of_key.split_once('?').unwrap().1;
    assert_eq!(ground.get(&format!("{one}?{words}"), &[]).status, 403);
    let cookie = ground.sign(NEW, "/cdn/-/sha256/", &["--prefix", "--cookie"]);
    let cookie = cookie.strip_prefix("Set-Cookie: ").unwrap().split(';').next().unwrap();
    for path in [&one, &two] {
        assert_eq!(ground.get(path, &[("cookie", cookie)]).status, 200);
    }
    assert_eq!(ground.get(&sha256_path(b"none"), &[("cookie", cookie)]).status, 404);
    assert_eq!(ground.get(&blake3_path(b"one"), &[("cookie", cookie)]).status, 403);
}

/// Goal: whoever has the same bytes in a bucket that is shown says nothing of them to others: neither a type nor a coding nor who may read.
#[test]
fn another_holder_of_the_same_bytes_says_nothing_of_them() {
    let ground = Ground::start();
    ground.put_with("pub/app.js", b"the same", WITH_SHA256);
    ground.script(
        "import door; s3 = door.client(); s3.create_bucket(Bucket='000'); \
         s3.put_object(Bucket='000', Key='x.html', Body=b'the same', ChecksumAlgorithm='SHA256', ContentType='text/html', \
         ContentEncoding='gzip', ContentDisposition='attachment', CacheControl='no-store')",
        &[],
    );
    ground.set(
        "000",
        r#"{"public_read": [""], "cors_origins": ["https://other.example.net"]}"#,
    );
    let read = ground.get(&sha256_path(b"the same"), &[]);
    assert_eq!((read.status, read.body.as_slice()), (200, &b"the same"[..]));
    for (name, value) in [
        ("cache-control", Some("public, max-age=31536000, immutable")),
        ("content-type", Some("application/octet-stream")),
        ("content-encoding", None),
        ("content-disposition", None),
        ("access-control-allow-origin", Some("*")),
    ] {
        assert_eq!(read.header(name), value, "{name}");
    }
}

/// Goal: pages of every origin read what everybody reads, and of what is private those that its bucket names.
#[test]
fn pages_read_by_digest_what_everybody_does() {
    let ground = Ground::start();
    ground.set("abc", r#"{"cors_origins": ["https://app.example.net"]}"#);
    ground.put_with("pub/k", b"k", WITH_SHA256);
    ground.put_with("secret/k", b"secret", WITH_SHA256);
    let bearer = format!("Bearer {TOKEN}");
    let allowed = |method: &str, bytes: &[u8], origin: &str| {
        let headers = [
            ("origin", origin),
            ("authorization", bearer.as_str()),
            ("access-control-request-method", "GET"),
        ];
        let shown = if bytes == b"k" {
            [headers[0], headers[2], headers[2]]
        } else {
            headers
        };
        let told = ground.ask(method, &sha256_path(bytes), &shown);
        told.header("access-control-allow-origin").map(str::to_owned)
    };
    let (named, other) = ("https://app.example.net", "https://other.example.net");
    for origin in [named, other] {
        for method in ["GET", "OPTIONS"] {
            assert_eq!(allowed(method, b"k", origin).as_deref(), Some("*"), "{method}");
        }
        assert_eq!(allowed("OPTIONS", b"secret", origin).as_deref(), Some("*"));
    }
    assert_eq!(allowed("GET", b"secret", named).as_deref(), Some(named));
    assert_eq!(allowed("GET", b"secret", other), None);
}
