//! Real caches in front, set up as `docs/cdn.md` says, word for word but for ports and folders: what they keep, how they revalidate, and
//! how soon they know of a change.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_conformance::support::{Server, free_port};

use super::*;

/// What purges show, in the page's configurations.
const PURGE_SECRET: &str = "a-long-secret-of-purges";
/// A test that waits for longer has failed.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// A fenced block of the page, by its language.
fn from_page(language: &str) -> String {
    let page = include_str!("../../../docs/cdn.md");
    let (_, block) = page.split_once(&format!("```{language}\n")).expect("the page has it");
    let (block, _) = block.split_once("```").expect("it ends");
    block.to_owned()
}

/// A cache in front of a server.
struct Cache {
    port: u16,
    _server: Server,
}

/// nginx with the page's configuration.
fn nginx(ground: &Ground, port: u16) -> Cache {
    let folder = ground.path("nginx");
    std::fs::create_dir_all(&folder).unwrap();
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .collect();
    let own = from_page("nginx")
        .replace("listen 80;", &format!("listen 127.0.0.1:{port};"))
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{}", ground.door.public))
        .replace("/var/cache/nginx/cairn", &format!("{at}/cache"));
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    let whole = format!(
        "daemon off;\nmaster_process off;\n{user}pid {at}/pid;\nerror_log {at}/error;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{own}}}\n"
    );
    std::fs::write(folder.join("conf"), whole).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg(folder.join("error"))
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(folder.join("conf"));
    command.env("PATH", search_path());
    Cache {
        port,
        _server: Server::start(&mut command, port),
    }
}

/// Varnish with the page's configuration.
fn varnish(ground: &Ground, port: u16) -> Cache {
    let folder = ground.path("varnish");
    std::fs::create_dir_all(&folder).unwrap();
    let own = from_page("vcl").replace(".port = \"8000\"", &format!(".port = \"{}\"", ground.door.public));
    let file = folder.join("cairn.vcl");
    std::fs::write(&file, own).unwrap();
    let mut command = Command::new("varnishd");
    // Without its jail, which is for root alone.
    command.args([
        "-F",
        "-j",
        "none",
        "-a",
        &format!("127.0.0.1:{port}"),
        "-s",
        "malloc,256m",
        "-p",
        "vsl_space=4M",
    ]);
    command.arg("-n").arg(folder.join("work")).arg("-f").arg(&file);
    command.env("PATH", search_path()).stdout(Stdio::null());
    Cache {
        port,
        _server: Server::start(&mut command, port),
    }
}

/// Debian puts servers where only root's PATH looks.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

impl Cache {
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let (status, head, body) = request(self.port, "GET", path, headers, b"");
        Answer { status, head, body }
    }

    /// Waits until what is answered is this.
    fn until(&self, path: &str, expected: impl Fn(&Answer) -> bool) {
        let begun = Instant::now();
        loop {
            if expected(&self.get(path, &[])) {
                eprintln!("{path}: seen after {:?}", begun.elapsed());
                return;
            }
            assert!(begun.elapsed() < GIVEN_UP, "{path} stays as it was");
        }
    }
}

/// A server that tells a cache of changes.
fn ground_with(port: u16, kind: &str) -> Ground {
    let url = format!("http://127.0.0.1:{port}");
    let settings = [
        ("CAIRN_CDN__PURGE__front__URL", url.as_str()),
        ("CAIRN_CDN__PURGE__front__KIND", kind),
        ("CAIRN_CDN__PURGE__front__SECRET", PURGE_SECRET),
        ("CAIRN_OUTGOING__HOSTS", "[\"127.0.0.1\"]"),
        ("CAIRN_OUTGOING__PRIVATE", "[\"127.0.0.1\"]"),
        ("CAIRN_OUTGOING__PLAIN", "true"),
        // What nobody purges would stay for an hour.
        ("CAIRN_CDN__MAX_AGE_SECONDS", "3600"),
    ];
    Ground::start_with(&settings)
}

/// Requests that the server has answered with this status.
fn answered(ground: &Ground, status: u16) -> u64 {
    let name = |method: &str| {
        format!("http_requests_total{{method=\"{method}\",endpoint=\"/cdn/{{bucket}}/{{key}}\",status=\"{status}\"}}")
    };
    ground.door.metric(&name("GET")) + ground.door.metric(&name("HEAD"))
}

/// What every cache has to do.
fn keeps_and_forgets(ground: &Ground, cache: &Cache) {
    let bytes = input(77, 3 * MIB);
    ground.put("pub/k.bin", &bytes);
    let path = "/cdn/abc/pub/k.bin";
    // What is told of the writes above is over before anything is counted.
    cache.until(path, |answer| answer.status == 200);
    settle(ground);
    let first = cache.get(path, &[]);
    assert_eq!(first.status, 200);
    assert!(first.body == bytes);
    assert_eq!(first.header("surrogate-key"), None, "readers are not told of tags");

    // A second pull, ranges and conditions ask the server nothing.
    let before = answered(ground, 200) + answered(ground, 206) + answered(ground, 304);
    let tag = first.header("etag").unwrap().to_owned();
    for n in 0..20 {
        let again = cache.get(path, &[]);
        assert!(again.status == 200 && again.body == bytes, "pull {n}");
        let from = n * 100_000;
        let range = format!("bytes={from}-{}", from + 999);
        let part = cache.get(path, &[("range", &range)]);
        assert!(part.status == 206 && part.body == bytes[from..from + 1000], "{range}");
        assert_eq!(cache.get(path, &[("if-none-match", &tag)]).status, 304);
    }
    assert_eq!(
        answered(ground, 200) + answered(ground, 206) + answered(ground, 304),
        before
    );

    // Overwritten, it is another one at once.
    let newer = input(78, 2 * MIB);
    ground.put("pub/k.bin", &newer);
    cache.until(path, |answer| answer.body == newer);
    // And so is what is gone.
    ground.delete("pub/k.bin");
    cache.until(path, |answer| answer.status == 404);
    // And what comes back, though that it is missing is kept too.
    ground.put("pub/k.bin", &bytes);
    cache.until(path, |answer| answer.status == 200);

    // What is for one reader alone is kept for nobody.
    ground.put("secret", b"secret");
    let bearer = format!("Bearer {TOKEN}");
    let mine = cache.get("/cdn/abc/secret", &[("authorization", &bearer)]);
    assert_eq!((mine.status, mine.body.as_slice()), (200, &b"secret"[..]));
    assert_eq!(cache.get("/cdn/abc/secret", &[]).status, 401);
    assert_eq!(
        ground
            .door
            .metric("cdn_purges_total{target=\"front\",result=\"given_up\"}"),
        0
    );
}

/// Waits until all that was written so far has been told.
fn settle(ground: &Ground) {
    let told = || ground.door.metric("cdn_purges_total{target=\"front\",result=\"told\"}");
    let begun = Instant::now();
    while told() == 0 {
        assert!(begun.elapsed() < GIVEN_UP, "nothing is told");
    }
}

/// Goal: nginx as the page sets it up keeps, serves ranges of what it keeps, and learns of changes within a second.
#[test]
fn nginx_in_front_keeps_and_forgets() {
    let port = free_port();
    let ground = ground_with(port, "refresh");
    let cache = nginx(&ground, port);
    keeps_and_forgets(&ground, &cache);
}

/// Goal: Varnish as the page sets it up does so too, told by tags.
#[test]
fn varnish_in_front_keeps_and_forgets() {
    let port = free_port();
    let ground = ground_with(port, "ban");
    let cache = varnish(&ground, port);
    keeps_and_forgets(&ground, &cache);
}

/// Goal: what has become old is asked for by its tag, and not sent again.
#[test]
fn what_is_old_is_revalidated() {
    let port = free_port();
    let ground = Ground::start_with(&[("CAIRN_CDN__STALE_WHILE_REVALIDATE_SECONDS", "0")]);
    ground.set("abc", r#"{"cdn_max_age": 1}"#);
    ground.put("pub/k", b"k");
    let cache = nginx(&ground, port);
    assert_eq!(cache.get("/cdn/abc/pub/k", &[]).body, b"k");
    let whole = answered(&ground, 200);
    let begun = Instant::now();
    while answered(&ground, 304) == 0 {
        assert_eq!(cache.get("/cdn/abc/pub/k", &[]).body, b"k");
        assert!(begun.elapsed() < GIVEN_UP, "it is never asked for again");
    }
    assert_eq!(answered(&ground, 200), whole, "it was not sent again");
}

/// Goal: a thousand who ask a cache for what it does not have are one request.
#[test]
fn a_thousand_misses_of_a_cache_are_one_request() {
    let port = free_port();
    let ground = Ground::start();
    let bytes = input(5, 4 * MIB);
    ground.put("pub/k", &bytes);
    let cache = nginx(&ground, port);
    let barrier = std::sync::Barrier::new(50);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..20 {
                    assert!(cache.get("/cdn/abc/pub/k", &[]).body == bytes);
                }
            });
        }
    });
    assert_eq!(answered(&ground, 200), 1);
}

/// Goal: a link is kept by its whole address, and no longer than it opens.
#[test]
fn links_are_kept_by_their_whole_address() {
    let port = free_port();
    let ground = Ground::start();
    ground.put("k", b"k");
    let cache = nginx(&ground, port);
    let link = ground.sign(("new", NEW_SECRET), "/cdn/abc/k", &["--expires-in", "600"]);
    for _ in 0..3 {
        assert_eq!(cache.get(&link, &[]).body, b"k");
    }
    assert_eq!(answered(&ground, 200), 1);
    assert_eq!(cache.get("/cdn/abc/k", &[]).status, 401);
    assert_eq!(cache.get(&link.replace("exp=1", "exp=2"), &[]).status, 403);
}
