//! The gRPC door, asked by clients that we did not write. Each test starts a server of its own.
//!
//! The Python suite in `conformance/grpc` makes its stubs of the vendored `.proto` files; `tools/bootstrap test` makes `cairn-python`, which
//! has what it needs.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod clients;

use std::path::Path;

use cairn_conformance::s3::Door;
use cairn_conformance::support::run;

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

#[test]
fn every_call_is_as_the_protocol_says_and_random_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &settings());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = door.client("cairn-python", folder.path());
    command
        .args(["-B", "-W", "ignore", "-m", "unittest", "-v", "test_reapi"])
        .env("CAIRN_GRPC", format!("127.0.0.1:{}", door.internal))
        .env("CAIRN_GRPC_TOKEN", TOKEN)
        .env("CAIRN_APIS", root.join("../gateway/proto/apis"))
        .current_dir(root.join("grpc"));
    let output = run(&mut command);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let count = words.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(count > 10, "{count} tests were run\n{words}");
}
