//! The server killed in the middle of a mixed load, again and again on one folder.

use std::path::Path;
use std::process::Command;

use cairn_conformance::s3::Door;
use cairn_conformance::support::{built, ok};

use crate::{is_full, suites};

/// Goal: what was acknowledged reads back after a kill at any moment, no object is half there, and each change has its event, once.
/// Method: writers of puts, overwrites, deletes, copies, tags and uploads in parts, in a bucket that keeps versions and one that does not;
/// the server is killed after a random number of answers. Then the events of the outbox are read from the folder, and a new server is
/// asked for everything (`conformance/s3/kills.py`). The full run has 100 kills.
#[test]
fn kills_under_a_mixed_load_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state, events) = (
        folder.path().join("data"),
        folder.path().join("state"),
        folder.path().join("events"),
    );
    let script = |door: &Door, words: &[&str]| {
        let mut command = door.client("cairn-python", folder.path());
        command.args(["-B", "-W", "ignore", "kills.py"]).args(words);
        String::from_utf8(ok(command.current_dir(suites())).stdout).unwrap()
    };
    let (state, events) = (state.to_str().unwrap(), events.to_str().unwrap());
    let mut key = None;
    let mut start = || {
        let mut door = Door::start(&data, &[]);
        let (id, secret) = key.get_or_insert_with(|| (door.key.clone(), door.secret.clone()));
        (door.key, door.secret) = (id.clone(), secret.clone());
        door
    };
    for kill in 0..if is_full() { 100 } else { 5 } {
        let door = start();
        script(&door, &["load", state, &door.pid().to_string(), &kill.to_string()]);
        door.kill();
        std::fs::write(events, events_of(&data)).unwrap();
        let told = script(&start(), &["check", state, events]);
        println!("kill {kill}: {}", told.trim());
    }
}

/// What is in the outbox, a line each, of a folder that no server uses.
fn events_of(data: &Path) -> Vec<u8> {
    ok(Command::new(built("cairnd"))
        .arg("--data")
        .arg(data)
        .args(["store", "events"]))
    .stdout
}
