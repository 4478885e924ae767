//! The gRPC door, asked by clients that we did not write. Each test starts a server of its own.
//!
//! The Python suites in `conformance/grpc` make their stubs of the `.proto` files as `docs/examples/python` does; `tools/bootstrap test`
//! makes `cairn-python`, which has what they need.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod clients;

use std::path::Path;
use std::process::Command;

use cairn_conformance::s3::Door;
use cairn_conformance::support::{ok, run};

const TOKEN: &str = "a-token-for-the-tests";

/// Settings of a server with a token that may all.
fn settings() -> Vec<(&'static str, &'static str)> {
    vec![
        ("CAIRN_TOKENS__CI__TOKEN", TOKEN),
        ("CAIRN_TOKENS__CI__WRITABLE", "true"),
        ("CAIRN_TOKENS__CI__ACTION_CACHE", "true"),
        ("CAIRN_GRPC__DEFAULT_BUCKET", "main"),
    ]
}

/// Further tokens, for the suites that are refused: each is [`TOKEN`] with its name behind.
const CALLERS: [(&str, &str); 12] = [
    // Only reads.
    ("CAIRN_TOKENS__READER__TOKEN", "a-token-for-the-tests-reader"),
    // Writes in one bucket.
    ("CAIRN_TOKENS__NARROW__TOKEN", "a-token-for-the-tests-narrow"),
    ("CAIRN_TOKENS__NARROW__BUCKETS", "[\"other\"]"),
    ("CAIRN_TOKENS__NARROW__WRITABLE", "true"),
    // Writes, but no results of actions.
    ("CAIRN_TOKENS__CARELESS__TOKEN", "a-token-for-the-tests-careless"),
    ("CAIRN_TOKENS__CARELESS__WRITABLE", "true"),
    // Another owner's, and another tenant's.
    ("CAIRN_TOKENS__BERT__TOKEN", "a-token-for-the-tests-bert"),
    ("CAIRN_TOKENS__BERT__OWNER", "bert"),
    ("CAIRN_TOKENS__BERT__WRITABLE", "true"),
    ("CAIRN_TOKENS__STRANGER__TOKEN", "a-token-for-the-tests-stranger"),
    ("CAIRN_TOKENS__STRANGER__TENANT", "second"),
    ("CAIRN_TOKENS__STRANGER__WRITABLE", "true"),
];

/// Runs a suite of `conformance/grpc`: all of it passes.
///
/// - `least`: tests that it has, at least.
/// - `more`: further settings of the server.
fn suite(module: &str, least: usize, more: &[(&'static str, &'static str)]) {
    let folder = tempfile::tempdir().unwrap();
    let settings = [&settings(), &CALLERS[..], more].concat();
    let door = Door::start(&folder.path().join("data"), &settings);
    let mut command = door.client("cairn-python", folder.path());
    command
        .args(["-B", "-W", "ignore", "-m", "unittest", "-v", module])
        .env("CAIRN_GRPC", format!("127.0.0.1:{}", door.internal))
        .env("CAIRN_GRPC_TOKEN", TOKEN)
        .env("CAIRN_SEED", seed())
        .current_dir(root().join("conformance/grpc"));
    let output = run(&mut command);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let count = words.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(count >= least, "{count} tests were run\n{words}");
}

/// Of the random numbers of a suite: the same in each run, unless told otherwise.
fn seed() -> String {
    std::env::var("CAIRN_SEED").unwrap_or("1".to_owned())
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Goal: each call that reflection lists does what it says, and refuses with the right code, words and details.
#[test]
fn every_call_that_is_listed_answers_and_refuses() {
    suite("test_calls", 6, &[]);
}

#[test]
fn random_calls_of_the_cache_are_as_the_protocol_says() {
    suite("test_reapi", 12, &[]);
}

#[test]
fn random_calls_of_our_own_services_are_as_their_files_say() {
    suite("test_cairn", 10, &[]);
}

#[test]
fn random_sessions_make_what_was_sent_and_nothing_else() {
    suite("test_sessions", 3, &[]);
}

#[test]
fn a_stream_in_which_nothing_comes_is_ended() {
    suite("test_idle", 1, &[("CAIRN_GRPC__IDLE_SECONDS", "1")]);
}

/// Goal: what docs/examples/python has a newcomer type works as it stands, but for the server's address and installing packages.
#[test]
fn the_python_example_works_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let tree = folder.path().join("clone");
    std::fs::create_dir(&tree).unwrap();
    // A copy: it writes beside itself.
    ok(Command::new("cp")
        .current_dir(root())
        .args(["-r", "--parents", "docs/examples/python", "gateway/proto/apis"])
        .arg(&tree));
    let readme = std::fs::read_to_string(root().join("docs/examples/python/README.md")).unwrap();
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(commands.len() > 3, "{commands:?}");
    let typed: Vec<String> = commands
        .iter()
        .filter(|command| !command.contains(" pip install "))
        .map(|command| {
            command
                .replace("python3", "cairn-python")
                .replace("127.0.0.1:8001", &format!("127.0.0.1:{}", door.internal))
                .replace("../../../data", &folder.path().join("data").to_string_lossy())
        })
        .collect();
    // Twice: it finds its own bucket and goes on.
    for _ in 0..2 {
        let mut shell = door.client("sh", folder.path());
        let output = ok(shell.current_dir(&tree).args(["-exc", &typed.join("\n")]));
        let said = String::from_utf8_lossy(&output.stdout);
        for job in [
            "object notes.txt: ",
            "chunks: ",
            "search: notes.txt",
            "event object.created of notes.txt",
            "cache: ",
        ] {
            assert!(said.contains(job), "{said}");
        }
    }
}
