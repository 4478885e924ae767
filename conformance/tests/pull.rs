//! Smart pull: what `cairn` asks of a server of its own kind in one request, desync asks for chunk by chunk; and from servers that
//! know nothing of it the same comes out.
//!
//! Requests are counted by the server. Times are the benches' (`cairn-benches --only pull`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::support::{Server, args, built, cairn, desync, free_port, input, ok, request};

const MIB: usize = 1 << 20;

/// `cairnd` with a writable store, and where it counts.
struct Counted {
    server: Server,
    internal: u16,
    folder: tempfile::TempDir,
}

impl Counted {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, internal) = (free_port(), free_port());
        let mut command = Command::new(built("cairnd"));
        command
            .env("CAIRN_STORES__DEFAULT__WRITABLE", "true")
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
            .args(["--internal".to_owned(), format!("127.0.0.1:{internal}")])
            .args(["--s3", "127.0.0.1:0"]);
        let server = Server::start(&mut command, port);
        Self {
            server,
            internal,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> String {
        format!("{}/store/default/", self.server.url())
    }

    fn index(&self, name: &str) -> String {
        format!("{}/index/default/{name}", self.server.url())
    }

    /// Requests for chunks and indexes that the server has answered.
    fn requests(&self) -> u64 {
        let (status, _, page) = request(self.internal, "GET", "/metrics", &[], b"");
        assert_eq!(status, 200);
        let page = String::from_utf8(page).expect("text");
        let lines = page.lines().filter(|line| {
            line.starts_with("http_requests_total{") && (line.contains("\"/store/") || line.contains("\"/index/"))
        });
        let counts = lines.map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()));
        counts.map(|count| count.expect("a count")).sum()
    }

    /// Requests that a command costs.
    fn cost(&self, command: &mut Command) -> u64 {
        let before = self.requests();
        ok(command);
        self.requests() - before
    }
}

fn assert_same(one: &Path, other: &Path) {
    ok(Command::new("cmp").arg(one).arg(other));
}

/// Goal: an update of which a tenth is new costs at most a twentieth of desync's requests.
/// Method: a few bytes changed in every tenth stretch of a chunk's length; the old version is the seed; both tools read index and
/// chunks from the same server, which counts.
#[test]
fn an_update_costs_a_twentieth_of_desyncs_requests() {
    let counted = Counted::start();
    let mut random = fastrand::Rng::with_seed(7);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(64 * MIB).collect();
    let (old, new) = (counted.path("old"), counted.path("new"));
    fs::write(&old, &bytes).expect("a file");
    for at in (0..bytes.len()).step_by((10 * 72) << 10) {
        bytes[at..at + 8].fill(7);
    }
    fs::write(&new, &bytes).expect("a file");
    let index = |name: &str| counted.path(name).with_extension("caibx");
    for name in ["old", "new"] {
        ok(cairn().args(args!["make", "-s", counted.store(), index(name), counted.path(name)]));
    }
    let remote = counted.index("new.caibx");
    let bytes = fs::read(index("new")).expect("an index");
    let (status, ..) = counted.server.request("PUT", "/index/default/new.caibx", &[], &bytes);
    assert_eq!(status, 200);
    let seed = format!("{}:{}", index("old").display(), old.display());
    let extract = |tool: Command, out: &Path| {
        let mut tool = tool;
        tool.args(args!["extract", "-s", counted.store(), "--seed", seed, remote, out]);
        counted.cost(&mut tool)
    };
    let (ours, theirs) = (counted.path("ours"), counted.path("theirs"));
    let our_cost = extract(cairn(), &ours);
    let their_cost = extract(desync(), &theirs);
    assert_same(&ours, &new);
    assert_same(&theirs, &new);
    println!("{our_cost} requests of cairn, {their_cost} of desync");
    assert!(
        our_cost * 20 <= their_cost,
        "{our_cost} requests of cairn, {their_cost} of desync"
    );

    // The same into the old version itself.
    fs::copy(&old, &ours).expect("a copy");
    let mut command = cairn();
    command.args(args!["extract", "-k", "-s", counted.store(), remote, ours]);
    let in_place = counted.cost(&mut command);
    assert_same(&ours, &new);
    assert!(in_place * 20 <= their_cost, "{in_place} requests of cairn in place");

    // And all of it into a cache.
    let cache = counted.path("cache");
    fs::create_dir(&cache).expect("a folder");
    let mut command = cairn();
    command.args(args!["cache", "-s", counted.store(), "-c", cache, remote]);
    let cached = counted.cost(&mut command);
    assert!(cached <= 8, "{cached} requests for a cache of all");
    ok(cairn().args(args!["extract", "-s", cache, index("new"), theirs]));
    assert_same(&theirs, &new);
}

/// Goal: the same comes out wherever it comes from: repeats and zeros, with and without seeds, in place, one worker or many.
/// Method: bytes with repeats, from our server, and from desync's and nginx's kind, which know nothing of such requests.
#[test]
fn what_comes_out_does_not_depend_on_the_server() {
    let counted = Counted::start();
    let (blob, other) = (counted.path("blob"), counted.path("other"));
    let bytes = input(91, 12 * MIB);
    fs::write(&blob, &bytes).expect("a file");
    fs::write(&other, &bytes[3 * MIB..]).expect("a file");
    let folder = counted.path("store");
    fs::create_dir(&folder).expect("a folder");
    let index = |name: &str| counted.path(name).with_extension("caibx");
    for store in [counted.store(), folder.display().to_string()] {
        ok(cairn().args(args!["make", "-s", store, index("blob"), blob]));
    }
    ok(cairn().args(args!["make", "-s", folder, index("other"), other]));
    let port = free_port();
    let mut command = desync();
    command.args(args!["chunk-server", "-s", folder, "-l", format!("127.0.0.1:{port}")]);
    let theirs = Server::start(&mut command, port);
    let ours = Server::start_printing(cairn().args(args!["chunk-server", "-s", folder, "-l", "127.0.0.1:0"]));
    let seed = format!("{}:{}", index("other").display(), other.display());
    let out = counted.path("out");
    for store in [counted.store(), theirs.url(), ours.url()] {
        for seeds in [vec![], vec!["--seed", &seed]] {
            for in_place in [false, true] {
                if in_place {
                    fs::write(&out, &bytes[..5 * MIB + 3]).expect("a file");
                }
                let mut command = cairn();
                command.args(["extract", "-s", &store]).args(&seeds);
                if in_place {
                    command.arg("-k");
                }
                ok(command.args(args![index("blob"), out]));
                assert_same(&out, &blob);
                fs::remove_file(&out).expect("it is there");
            }
        }
        let cat = ok(cairn().args(args!["cat", "-s", store, index("blob")]));
        assert!(cat.stdout == bytes, "{store}");
    }
}
