//! `cairn` as somebody at a terminal has it: a progress bar, Ctrl-C.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn");

fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(CAIRN);
    command
        .current_dir(folder)
        .args(arguments)
        .env("HOME", folder)
        .env_remove("XDG_CONFIG_HOME");
    command
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Goal: no index, no output and no temporary is left, and the exit code says what happened.
/// Method: work that cannot end (a pipe kept open, a server that never answers) is interrupted once it has begun.
#[test]
fn ctrl_c_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut make = command(folder, &["make", "-s", "store", "index.caibx", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = make.stdin.take().unwrap();
    pipe.write_all(&noise(8 << 20)).unwrap();
    interrupt(&make);
    // As in a shell, where Ctrl-C also ends the program that fills the pipe.
    drop(pipe);
    let output = make.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(!folder.join("index.caibx").exists());
    let left = files(&folder.join("store"));
    assert!(
        left.iter()
            .all(|path| path.extension().is_some_and(|ending| ending == "cacnk")),
        "{left:?}"
    );
    assert!(command(folder, &["verify", "-s", "store"]).status().unwrap().success());

    fs::write(folder.join("blob"), noise(1 << 20)).unwrap();
    assert!(
        command(folder, &["make", "index.caibx", "blob"])
            .status()
            .unwrap()
            .success()
    );
    for signals in [1, 2] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = format!("http://{}/", silent.local_addr().unwrap());
        let extract = command(folder, &["extract", "-s", &store, "index.caibx", "out"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (mut asked, _) = silent.accept().unwrap();
        asked.read_exact(&mut [0; 3]).unwrap();
        let before = files(folder).len();
        (0..signals).for_each(|_| interrupt(&extract));
        let status = extract.wait_with_output().unwrap().status;
        assert_eq!(status.code(), Some(130));
        assert!(!folder.join("out").exists());
        assert!(signals == 2 || files(folder).len() < before, "the temporary stayed");
    }
}

/// Method: a pipe that is kept open until the bar is seen, on a terminal that `script` gives.
#[test]
fn long_work_shows_a_bar_on_a_terminal_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(
        Command::new("mkfifo")
            .arg(folder.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let typed = format!("'{CAIRN}' make -s store index.caibx - <pipe");
    let mut terminal = Command::new("script")
        .args(["-qec", &typed, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = File::options().write(true).open(folder.join("pipe")).unwrap();
    pipe.write_all(&noise(4 << 20)).unwrap();
    let (mut shown, mut screen) = (Vec::new(), terminal.stdout.take().unwrap());
    while !String::from_utf8_lossy(&shown).contains("left") {
        let mut piece = [0; 4096];
        let len = screen.read(&mut piece).unwrap();
        assert!(len > 0, "it ended without a bar: {}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&piece[..len]);
    }
    let bar = String::from_utf8_lossy(&shown).into_owned();
    assert!(bar.contains("B/s"), "{bar}");
    drop(pipe);
    std::io::copy(&mut screen, &mut std::io::sink()).unwrap();
    assert!(terminal.wait().unwrap().success());

    // The same through a pipe says nothing, unless a program asks for lines.
    fs::write(folder.join("blob"), noise(4 << 20)).unwrap();
    let make = ["make", "-s", "other", "index.caibx", "blob"];
    let output = command(folder, &make).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let lines = command(folder, &make)
        .env("DESYNC_ENABLE_PARSABLE_PROGRESS", "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&lines.stderr).contains(": 100%"), "{lines:?}");
}
