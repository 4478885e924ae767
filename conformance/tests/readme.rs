//! The README's first session, run as it stands: each line a newcomer is told to type has to work.
//!
//! Only the server's address is another one, since a test takes a free port.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use cairn_conformance::s3::Door;
use cairn_conformance::support::ok;
use rustix::process::{Pid, Signal};

/// The server as the README has it.
const ADDRESS: &str = "127.0.0.1:8000";

#[test]
fn the_first_session_works_as_written() {
    let commands = commands_below("## A first session\n");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap());
    for command in &commands {
        let typed = command.replace(ADDRESS, &server.address);
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &typed])
            .current_dir(folder.path())
            .env("PATH", &path)
            .stdin(Stdio::null());
        let done = shell.output().unwrap();
        assert!(
            done.status.success(),
            "{typed}\n{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// Goal: the same of the session with aws, in one terminal, with the key that the server printed.
#[test]
fn the_first_session_with_s3_works_as_written() {
    let commands = commands_below("## A first session with S3\n");
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[]);
    let typed = commands
        .join("\n")
        .replace(ADDRESS, &format!("127.0.0.1:{}", door.public))
        .replace("http://127.0.0.1:9000", &door.url);
    let mut shell = door.client("sh", folder.path());
    shell.env_remove("AWS_DEFAULT_REGION").current_dir(folder.path());
    ok(shell.args(["-exc", &typed]));
}

/// The commands of the first block below a heading.
fn commands_below(heading: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, section) = readme.split_once(heading).expect("the README has this session");
    let block = section.split("```").nth(1).expect("the session is a fenced block");
    let commands = block.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands: Vec<String> = commands.map(str::to_owned).collect();
    assert!(commands.len() >= 4, "only {} commands: {block}", commands.len());
    commands
}

/// Where the programs lie: two folders above this test's own binary.
fn programs() -> &'static Path {
    static TEST: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    let test = TEST.get_or_init(|| std::env::current_exe().unwrap());
    test.parent()
        .and_then(Path::parent)
        .expect("tests lie in target/<profile>/deps")
}

/// A running `cairnd`, asked to leave at the end. Its pipe stays open, or its next line would fail.
struct Server {
    child: Child,
    address: String,
    _said: BufReader<ChildStdout>,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(programs().join("cairnd"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--internal",
                "127.0.0.1:0",
                "--s3",
                "127.0.0.1:0",
            ])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cairnd is built: `cargo build --workspace`");
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(
                said.read_line(&mut line).unwrap(),
                0,
                "cairnd ended without naming its address"
            );
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split('/').next().unwrap_or_default().to_owned();
            }
        };
        Self {
            child,
            address,
            _said: said,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let asked = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        let left = self.child.wait();
        if !std::thread::panicking() {
            asked.unwrap();
            assert!(left.unwrap().success(), "cairnd did not shut down in order");
        }
    }
}
