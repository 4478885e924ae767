//! The S3 door, asked by clients that we did not write. Each test starts a server of its own.
//!
//! The suites in `conformance/s3` have a named test for each rule; they run here one file at a time. boto3 is pinned in
//! `conformance/tools/python`; `tools/bootstrap test` makes `cairn-python`, which has it.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod admin;
mod backups;
mod bounds;
mod kills;
mod library;
mod tools;
mod upkeep;

use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::s3::Door;
use cairn_conformance::support::{ok, run};

/// Whether this is the full run.
fn is_full() -> bool {
    std::env::var_os("CAIRN_FULL").is_some()
}

fn suites() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("s3")
}

/// Runs a suite of boto3 against a door; all of it has to pass.
fn suite(door: &Door, home: &Path, name: &str, ca: Option<&Path>) {
    let mut command = door.client("cairn-python", home);
    command
        .args(["-B", "-W", "ignore", "-m", "unittest", "-v", name])
        .current_dir(suites());
    if let Some(ca) = ca {
        command.env("CAIRN_S3_CA", ca);
    }
    let output = run(&mut command);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}\n{words}");
    let count = words.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(count > 5, "{name} has run {count} tests\n{words}");
}

fn plain(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    suite(&door, folder.path(), name, None);
}

#[test]
fn requests_follow_the_rules_for_every_request() {
    plain("test_requests");
}

#[test]
fn objects_have_their_digests_conditions_ranges_tags_and_copies() {
    plain("test_objects");
}

#[test]
fn listings_and_versions_are_as_documented() {
    plain("test_listing");
}

#[test]
fn uploads_in_parts_become_one_object() {
    plain("test_multipart");
}

#[test]
fn the_admin_api_sets_compares_restores_searches_and_keeps_tenants_apart() {
    plain("test_admin");
}

#[test]
fn every_error_is_a_row_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let mut command = door.client("cairn-python", folder.path());
    command.args(["-B", "-W", "ignore", "-m", "unittest", "-v", "test_errors"]);
    ok(command.current_dir(suites()));
}

#[test]
fn of_writers_of_one_key_one_wins_whole() {
    plain("test_races");
}

#[test]
fn equal_content_and_copies_cost_no_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let mut command = door.client("cairn-python", folder.path());
    command.args(["-B", "-W", "ignore", "-m", "unittest", "-v", "test_costs"]);
    ok(command.current_dir(suites()));
}

/// Goal: each row of the door's contract has its tests: the list names none that is not there.
#[test]
fn the_list_of_rows_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let list = std::fs::read_to_string(suites().join("README.md")).unwrap();
    let suite: String = std::fs::read_dir(suites())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut rows = 0;
    for row in list
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| row"))
    {
        rows += 1;
        let cells: Vec<&str> = row.split('`').collect();
        // What is in backquotes: tests, and behind one that is not of a suite its file.
        let names: Vec<&str> = cells.iter().skip(1).step_by(2).copied().collect();
        assert!(!names.is_empty(), "{row}");
        for (at, name) in names.iter().enumerate() {
            if name.contains('/') {
                continue;
            }
            let (what, text) = match names.get(at + 1).filter(|next| next.contains('/')) {
                Some(file) => ("fn ", std::fs::read_to_string(root.join(file)).unwrap()),
                None => ("def ", suite.clone()),
            };
            let is_suite = name.ends_with(".py") && suites().join(name).exists();
            assert!(
                is_suite || text.contains(&format!("{what}{name}(")),
                "{name} is no test: {row}"
            );
        }
    }
    assert!(rows > 50, "{rows} rows");
}

/// Goal: clients that are slow, cut off, lying or endless get the documented error and leave nothing, not even chunks.
#[test]
fn hostile_clients_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CAIRN_S3__BODY_IDLE_SECONDS", "2"),
        ("CAIRN_S3__LEASE_SECONDS", "2"),
        ("CAIRN_LIMITS__IDLE_SECONDS", "2"),
        ("CAIRN_COLLECT__INTERVAL_SECONDS", "1"),
        ("CAIRN_COLLECT__LEASE_SECONDS", "0"),
        ("CAIRN_COLLECT__GRACE_SECONDS", "0"),
    ];
    let door = Door::start(&folder.path().join("data"), &settings);
    suite(&door, folder.path(), "test_hostile", None);
}

/// Goal: over TLS, where clients send their bodies in another mode, all is the same.
#[test]
fn objects_and_uploads_go_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    ok(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    let settings = [
        ("CAIRN_TLS__CERTIFICATE", certificate.to_str().unwrap()),
        ("CAIRN_TLS__KEY", key.to_str().unwrap()),
    ];
    let door = Door::start(&folder.path().join("data"), &settings);
    assert!(door.url.starts_with("https://localhost:"), "{}", door.url);
    for name in ["test_objects", "test_multipart", "test_races"] {
        suite(&door, folder.path(), name, Some(&certificate));
    }
    // Each way in which boto3 sends bodies.
    let mut command = door.client("cairn-python", folder.path());
    command
        .env("CAIRN_S3_CA", &certificate)
        .args(["-B", "-W", "ignore", "-m", "unittest", "test_requests.Boto3"]);
    ok(command.current_dir(suites()));
}

/// Goal: behind a proxy that changes host and path, what clients signed holds where the proxy is trusted, and only there.
#[test]
fn a_trusted_proxy_may_change_host_and_path() {
    let program = "\
import door, sys
door.client().create_bucket(Bucket='abc')
asked = door.Signed('GET', '/some/where/abc', headers={'host': 'outside.example'})
headers = {**asked.headers(), 'host': door.host(), 'x-forwarded-host': 'outside.example', 'x-forwarded-prefix': '/some/where/'}
answer = door.send('GET', '/abc', headers)
assert answer.status == int(sys.argv[1]), answer
";
    for (trusted, status) in [("true", "200"), ("false", "403")] {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::start(&folder.path().join("data"), &[("CAIRN_S3__TRUST_FORWARDED", trusted)]);
        ok(door
            .client("cairn-python", folder.path())
            .args(["-B", "-c", program, status])
            .current_dir(suites()));
    }
}

/// Goal: the first key is made once, and what was acknowledged is there after the server was killed.
#[test]
fn objects_and_keys_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let first = Door::start(&data, &[]);
    let (key, secret) = (first.key.clone(), first.secret.clone());
    assert!(key.len() == 20 && secret.len() == 40, "{key} {secret}");
    let script = |door: &Door, words: &str| {
        let program = format!("import door; s3 = door.client(); {words}");
        ok(door
            .client("cairn-python", folder.path())
            .args(["-B", "-c", &program])
            .current_dir(suites()));
    };
    script(
        &first,
        "s3.create_bucket(Bucket='abc'); s3.put_object(Bucket='abc', Key='k', Body=b'x' * 3000000)",
    );
    first.kill();
    let mut second = Door::start(&data, &[]);
    assert_eq!(second.key, "", "a second key was made");
    (second.key, second.secret) = (key, secret);
    script(
        &second,
        "assert s3.get_object(Bucket='abc', Key='k')['Body'].read() == b'x' * 3000000",
    );
}
