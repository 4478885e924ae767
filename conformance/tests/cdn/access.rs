//! Who reads: everybody, a service, whoever has a signed link or cookie; and pages of which origins.

use std::process::Command;

use cairn_conformance::support::{cairn, ok};

use super::*;

impl Ground {
    /// `cairn sign`, with a key of the server; what it prints behind the address.
    pub(super) fn sign(&self, (id, secret): (&str, &str), path: &str, more: &[&str]) -> String {
        let secret_file = self.folder().join(format!("secret-{id}"));
        std::fs::write(&secret_file, format!("{secret}\n")).unwrap();
        let mut sign: Command = cairn();
        sign.args(["sign", &format!("http://127.0.0.1{path}"), "--key-id", id]);
        sign.arg("--secret-file").arg(secret_file).args(more);
        let line = String::from_utf8(ok(&mut sign).stdout).unwrap();
        let line = line.trim().strip_prefix("http://127.0.0.1").unwrap_or(line.trim());
        line.to_owned()
    }
}

const OLD: (&str, &str) = ("old", OLD_SECRET);
pub(super) const NEW: (&str, &str) = ("new", NEW_SECRET);

/// Goal: what is not shown to everybody is read with a token or an access key, and by nobody else; nobody learns what is there.
#[test]
fn what_is_private_needs_an_authorization() {
    let ground = Ground::start();
    ground.put("secret/k", b"secret");
    let path = "/cdn/abc/secret/k";
    let bearer = format!("Bearer {TOKEN}");
    let token = [("authorization", bearer.as_str())];
    let read = ground.get(path, &token);
    assert_eq!((read.status, read.body.as_slice()), (200, &b"secret"[..]));
    assert!(read.header("cache-control").unwrap().starts_with("private, "));
    let refused = ground.get(path, &[]);
    assert_eq!(
        (refused.status, refused.header("cache-control")),
        (401, Some("no-store"))
    );
    for other in ["/cdn/abc/secret/nothing", "/cdn/nosuchbucket/k"] {
        let answer = ground.get(other, &[]);
        assert_eq!((answer.status, &answer.body), (401, &refused.body), "{other}");
    }
    assert_eq!(ground.get(path, &[("authorization", "Bearer wrong")]).status, 401);
    assert_eq!(
        ground
            .get("/cdn/abc/pub/x", &[("authorization", "Bearer wrong")])
            .status,
        401
    );
    assert_eq!(
        ground.get("/cdn/other-bucket/k", &token).status,
        403,
        "it is for one bucket"
    );
    assert_eq!(ground.get("/cdn/abc/secret/nothing", &token).status, 404);
    ground.script("import door; door.client().create_bucket(Bucket='second')", &[]);
    ground.set("abc", r#"{"public_read": [""]}"#);
    assert_eq!(ground.get(path, &[]).status, 200, "all of it is shown now");
}

/// Goal: a link opens what it was signed for, with each key that counts; forged, widened, expired and misplaced ones are refused.
#[test]
fn links_open_what_they_were_signed_for_and_nothing_else() {
    let ground = Ground::start();
    for key in ["film/1 2.mp4", "film/2.mp4", "film2", "other"] {
        ground.put(key, key.as_bytes());
    }
    let one = "/cdn/abc/film/1%202.mp4";
    for key in [OLD, NEW] {
        let opened = ground.get(&ground.sign(key, one, &[]), &[]);
        assert_eq!((opened.status, opened.body.as_slice()), (200, &b"film/1 2.mp4"[..]));
        let said = opened.header("cache-control").unwrap();
        assert_eq!(said, "public, max-age=300");
    }
    let short = ground.get(&ground.sign(NEW, one, &["--expires-in", "100"]), &[]);
    let said = short.header("cache-control").unwrap();
    let seconds: u64 = said.strip_prefix("public, max-age=").unwrap().parse().unwrap();
    assert!(seconds <= 100, "{said}");
    let refused = |path: &str, status: u16| {
        let answer = ground.get(path, &[]);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    };
    let link = ground.sign(NEW, one, &[]);
    let words = link.split_once('?').unwrap().1;
    refused(&format!("/cdn/abc/film/2.mp4?{words}"), 403);
    refused(&link.replace("exp=1", "exp=2"), 403);
    refused(&format!("{link}&prefix=film"), 403);
    refused(&format!("{link}&versionId=null"), 403);
    refused(&format!("{link}&exp=9999999999"), 400);
    refused(&link.replace("kid=new", "kid=old"), 403);
    refused(&link.replace("kid=new", "kid=none"), 403);
    refused(&link[..link.len() - 1], 400);
    refused(&ground.sign(NEW, one, &["--expires-at", "1000000000"]), 403);
    refused(&ground.sign(("new", OLD_SECRET), one, &[]), 403);

    let under = ground.sign(NEW, "/cdn/abc/film/", &["--prefix"]);
    for (key, status) in [
        ("film/1%202.mp4", 200),
        ("film/2.mp4", 200),
        ("film2", 403),
        ("other", 403),
        ("film/no", 404),
    ] {
        assert_eq!(
            ground.get(&format!("/cdn/abc/{key}{under}"), &[]).status,
            status,
            "{key}"
        );
    }
    // A link only reads, whatever is asked with it.
    let port = ground.door.public;
    assert_eq!(request(port, "PUT", &link, &[], b"x").0, 405);
    assert_eq!(request(port, "DELETE", &link, &[], b"").0, 405);

    // The page says how anybody signs.
    let lines = "cairn-cdn-1\nnew\n9999999999\n\nkey\n\nabc\nother";
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-hmac", NEW_SECRET]).arg({
        let file = ground.path("lines");
        std::fs::write(&file, lines).unwrap();
        file
    });
    let digest = String::from_utf8(ok(&mut openssl).stdout).unwrap();
    let digest = digest.trim().rsplit(' ').next().unwrap();
    let opened = ground.get(&format!("/cdn/abc/other?kid=new&exp=9999999999&sig={digest}"), &[]);
    assert_eq!((opened.status, opened.body.as_slice()), (200, &b"other"[..]));
}

/// Goal: a link that is bound to an address opens from there alone, behind a trusted proxy too, and no shared cache keeps its answer.
#[test]
fn a_link_bound_to_an_address_opens_from_there_alone() {
    let ground = Ground::start();
    ground.put("k", b"k");
    let link = ground.sign(NEW, "/cdn/abc/k", &["--address", "192.0.2.0/24"]);
    let from = |address: &str| ground.get(&link, &[("x-forwarded-for", address)]);
    let opened = from("192.0.2.7");
    assert_eq!(opened.status, 200);
    assert!(opened.header("cache-control").unwrap().starts_with("private, "));
    assert_eq!(from("198.51.100.1").status, 403);
    assert_eq!(
        from("192.0.2.7, 198.51.100.1").status,
        403,
        "what is not said by a proxy says nothing"
    );
    assert_eq!(ground.get(&link, &[]).status, 403);
    let own = ground.sign(NEW, "/cdn/abc/k", &["--address", "127.0.0.1"]);
    assert_eq!(ground.get(&own, &[]).status, 200);
}

/// Goal: a cookie opens as a link does, is found among others, and harms nobody where it opens nothing but is not needed.
#[test]
fn cookies_open_as_links_do() {
    let ground = Ground::start();
    for key in ["film/1", "film/2", "other", "pub/k"] {
        ground.put(key, key.as_bytes());
    }
    let line = ground.sign(NEW, "/cdn/abc/film/", &["--prefix", "--cookie"]);
    let cookie = line.strip_prefix("Set-Cookie: ").unwrap();
    assert!(
        cookie.contains("; Path=/cdn/abc/film/; Max-Age=21600; HttpOnly"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap();
    let sent = format!("a=b; cairn-cdn=exp=1&kid=new&sig=0; {cookie}");
    let headers = [("cookie", sent.as_str())];
    for key in ["film/1", "film/2"] {
        let opened = ground.get(&format!("/cdn/abc/{key}"), &headers);
        assert_eq!(opened.status, 200);
        assert!(opened.header("cache-control").unwrap().starts_with("private, "));
    }
    assert_eq!(ground.get("/cdn/abc/other", &headers).status, 403);
    let public = ground.get("/cdn/abc/pub/k", &headers);
    assert_eq!(public.status, 200);
    assert!(public.header("cache-control").unwrap().starts_with("public, "));
}

/// Goal: scripts of the origins that a bucket names may read, their browsers are told so before, and caches know that answers differ.
#[test]
fn pages_of_named_origins_may_read() {
    let ground = Ground::start();
    ground.put("pub/k", b"k");
    ground.set("abc", r#"{"cors_origins": ["https://app.example.net"]}"#);
    let path = "/cdn/abc/pub/k";
    let asks = |origin| ground.get(path, &[("origin", origin)]);
    let allowed = asks("https://app.example.net");
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://app.example.net")
    );
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(allowed.header("vary"), Some("origin"));
    let other = asks("https://evil.example.net");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, None));
    assert_eq!(other.header("vary"), Some("origin"));
    let before = ground.ask(
        "OPTIONS",
        path,
        &[
            ("origin", "https://app.example.net"),
            ("access-control-request-method", "GET"),
        ],
    );
    assert_eq!(before.status, 204);
    assert_eq!(before.header("access-control-allow-methods"), Some("get, head"));
    assert!(before.header("access-control-allow-headers").unwrap().contains("range"));
    let missing = ground.get("/cdn/abc/pub/no", &[("origin", "https://app.example.net")]);
    assert_eq!(missing.status, 404);
    assert!(
        missing.header("access-control-allow-origin").is_some(),
        "a script sees why"
    );
}
