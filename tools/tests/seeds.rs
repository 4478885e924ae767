//! Seeds that nobody indexed, what an update would cost, and partitions updated in place.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn cairn(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let output = Command::new(env!("CARGO_BIN_EXE_cairn"))
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .args(arguments)
        .output();
    output.expect("cairn is built")
}

#[track_caller]
fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = cairn(folder, arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A folder with `old`, `new` (a tenth of it changed, the rest moved by a byte) and the index and store of `new` alone.
fn versions() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut random = fastrand::Rng::with_seed(9);
    let old: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4 << 20).collect();
    let mut new = vec![7];
    new.extend_from_slice(&old[..old.len() - 1]);
    new[1 << 20..(1 << 20) + (400 << 10)].reverse();
    fs::write(folder.path().join("old"), &old).expect("a file");
    fs::write(folder.path().join("new"), &new).expect("a file");
    assert!(
        cairn(folder.path(), &["make", "-s", "store", "new.caibx", "new"])
            .status
            .success()
    );
    folder
}

fn same(folder: &Path, a: &str, b: &str) -> bool {
    fs::read(folder.join(a)).expect("a file") == fs::read(folder.join(b)).expect("a file")
}

#[test]
fn a_file_without_an_index_is_a_seed_and_the_cost_is_known_before() {
    let folder = versions();
    let folder = folder.path();
    let arguments = |more: &'static str| {
        vec![
            "--json",
            "extract",
            "-s",
            "store",
            "--seed",
            "old",
            "new.caibx",
            "out",
            more,
        ]
    };
    let planned = json(folder, &arguments("--dry-run"));
    assert!(!folder.join("out").exists());
    assert_eq!(planned["chunks-missing"], 0);
    let from_store = planned["bytes-from-store"].as_u64().expect("a number");
    assert!((400 << 10..900 << 10).contains(&from_store), "{planned}");

    let done = json(folder, &arguments("--no-reflink"));
    for key in [
        "bytes-from-store",
        "chunks-from-store",
        "bytes-copied-from-seeds",
        "bytes-total",
    ] {
        assert_eq!(done[key], planned[key], "{key}");
    }
    assert!(same(folder, "out", "new"));
}

#[test]
fn a_plan_counts_what_no_store_has() {
    let folder = versions();
    let folder = folder.path();
    fs::create_dir(folder.join("empty")).expect("a folder");
    let planned = json(
        folder,
        &["--json", "extract", "--dry-run", "-s", "empty", "new.caibx", "out"],
    );
    assert_eq!(planned["chunks-missing"], planned["chunks-from-store"]);
}

/// A file that looks like a block device to everyone; gone with the value.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Self {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        let output = output.expect("losetup is there (package mount)");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "losetup needs root and a loop device: {words}");
        Self(PathBuf::from(String::from_utf8(output.stdout).expect("text").trim()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Goal: slot B gets the new version, slot A (running, not indexed) gives what it can; a stop in the middle is gone on from.
#[test]
fn slots_are_updated_in_place_from_each_other() {
    let folder = versions();
    let folder = folder.path();
    for slot in ["a", "b"] {
        let mut file = File::create(folder.join(slot)).expect("a file");
        if slot == "a" {
            file.write_all(&fs::read(folder.join("old")).expect("a file"))
                .expect("written");
        }
        file.set_len(5 << 20).expect("a length");
    }
    let (a, b) = (Loop::over(&folder.join("a")), Loop::over(&folder.join("b")));
    let (a, b) = (a.0.to_str().expect("a path"), b.0.to_str().expect("a path"));
    let update = ["--json", "extract", "-k", "-s", "store", "--seed", a, "new.caibx", b];
    let planned = json(folder, &[&update[..], &["--dry-run"]].concat());
    let done = json(folder, &update);
    assert_eq!(done["bytes-from-store"], planned["bytes-from-store"]);
    assert!(
        done["bytes-copied-from-seeds"].as_u64().expect("a number") > 3 << 20,
        "{done}"
    );
    let slot = fs::read(b).expect("the device");
    assert!(slot.starts_with(&fs::read(folder.join("new")).expect("a file")));

    // Half of it is there, as after a power cut: only the other half is written, from the seed and the store.
    let mut damaged = slot;
    damaged[..2 << 20].fill(0);
    fs::write(b, &damaged).expect("written");
    let again = json(folder, &update);
    let in_place = again["bytes-in-place"].as_u64().expect("a number");
    assert!((1 << 20..3 << 20).contains(&in_place), "{again}");
    assert!(
        fs::read(b)
            .expect("the device")
            .starts_with(&fs::read(folder.join("new")).expect("a file"))
    );
}
