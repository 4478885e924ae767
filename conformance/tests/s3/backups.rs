//! Backups of a server that is written to, and of one that does not run; and the way back.

use std::path::Path;
use std::process::Command;

use cairn_conformance::s3::Door;
use cairn_conformance::support::{built, ok, run};

use super::suites;

fn cairnd(data: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(built("cairnd"));
    command.arg("--data").arg(data).args(words);
    command
}

/// Goal: what is restored has the same listing, versions, markers, tags and bytes, and all that was acknowledged before the backup was
/// asked for, whole, while others were writing; nothing is written over.
#[test]
fn a_backup_under_load_is_restored_with_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let word = |name: &str| path(name).to_str().unwrap().to_owned();
    let step = |door: &Door, words: &[&str]| {
        let mut command = door.client("cairn-python", folder.path());
        command.args(["-B", "backups.py"]).args(words).current_dir(suites());
        String::from_utf8(ok(&mut command).stdout).unwrap()
    };
    let refused = |command: &mut Command| {
        let output = run(command);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };

    let first = Door::start(&path("first"), &[("CAIRN_ADMIN__BACKUPS", &word("backups"))]);
    let (key, secret) = (first.key.clone(), first.secret.clone());
    step(&first, &["fill"]);
    let kept = step(&first, &["show"]);
    let acknowledged = step(&first, &["load", "busy"]);
    assert!(refused(&mut cairnd(&path("first"), &["backup", &word("x")])).contains("in use by process"));
    drop(first);

    let backup = word("backups/busy");
    ok(&mut cairnd(&path("second"), &["restore", &backup]));
    let again = refused(&mut cairnd(&path("second"), &["restore", &backup]));
    assert!(again.contains("has something in it"), "{again}");
    let open = |name: &str| {
        let mut door = Door::start(&path(name), &[]);
        assert_eq!(door.key, "", "a key was made though those of the backup are there");
        (door.key, door.secret) = (key.clone(), secret.clone());
        door
    };
    let second = open("second");
    assert_eq!(step(&second, &["show"]), kept);
    step(&second, &["check", acknowledged.trim()]);
    drop(second);

    // One that does not run; and one that was given up is no backup.
    ok(&mut cairnd(&path("second"), &["backup", &word("quiet")]));
    ok(&mut cairnd(&path("third"), &["restore", &word("quiet")]));
    let third = open("third");
    assert_eq!(step(&third, &["show"]), kept);
    step(&third, &["check", acknowledged.trim()]);
    drop(third);
    std::fs::remove_file(path("quiet/BACKUP")).unwrap();
    let half = refused(&mut cairnd(&path("fourth"), &["restore", &word("quiet")]));
    assert!(half.contains("no whole backup"), "{half}");
}
