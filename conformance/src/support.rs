//! What the black-box tests share: finding the programs, running them, inputs, a server of our own.
//!
//! A program that is not there fails the test: nothing is skipped.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A program of this workspace, built beside the tests.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// Our tool.
pub fn cairn() -> Command {
    Command::new(built("cairn"))
}

/// The real casync.
pub fn casync() -> Command {
    Command::new("casync")
}

/// The real desync, v1.1.0.
pub fn desync() -> Command {
    let cache = std::env::var_os("CAIRN_TOOLS").map(PathBuf::from);
    Command::new(cache.map_or(PathBuf::from("desync"), |cache| cache.join("desync")))
}

/// Whole path of a command's program, for those who search elsewhere than this process.
///
/// # Panics
///
/// There is none.
#[track_caller]
pub fn whole_path(command: &Command) -> PathBuf {
    let mut which = Command::new("sh");
    let said = ok(which.args(["-c", "command -v \"$0\""]).arg(command.get_program()));
    PathBuf::from(String::from_utf8_lossy(&said.stdout).trim())
}

/// Runs a command to its end; it must succeed.
#[track_caller]
pub fn ok(command: &mut Command) -> Output {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A server that has not ended so long after it was asked to is killed.
const END_MAX: Duration = Duration::from_secs(20);

/// Runs a command that must refuse: exit code other than 0, and not by a crash. Its words on standard error.
#[track_caller]
pub fn refused(command: &mut Command) -> String {
    let output = run(command);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code != 0 && code != 101),
        "{command:?}\n{}\n{words}",
        output.status
    );
    assert!(!words.contains("panicked"), "{command:?}\n{words}");
    words
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?} cannot be run ({error}): install it with `tools/bootstrap test`"),
    }
}

/// An array of arguments of mixed kinds.
#[macro_export]
macro_rules! args {
    ($($argument:expr),* $(,)?) => { [$(std::ffi::OsString::from(&$argument)),*] };
}

/// Copies the program `cairn` to where anybody may run it.
pub fn copy_of_cairn(to: &Path) {
    // By another process: a child that another test has just forked holds what is open here for writing, and then it cannot be run.
    ok(Command::new("install").args(args!["-m", "755", built("cairn"), to]));
}

pub use crate::args;
pub use cairn_test_servers::free_port;

/// Bytes like real ones: pieces that compress, pieces that do not, repeats, runs of zeros. Same seed, same bytes.
pub fn input(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = Vec::with_capacity(len + (1 << 18));
    while bytes.len() < len {
        let piece = random.usize(1..1 << 17);
        match random.u8(..6) {
            0 => bytes.resize(bytes.len() + piece, 0),
            1 => bytes.extend(std::iter::repeat_with(|| random.alphanumeric() as u8).take(piece)),
            2 if bytes.len() > piece => {
                let from = random.usize(..bytes.len() - piece);
                bytes.extend_from_within(from..from + piece);
            }
            3 => {
                let period = random.usize(1..40);
                let word: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(period).collect();
                bytes.extend(word.iter().cycle().take(piece));
            }
            _ => bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(piece)),
        }
    }
    bytes.truncate(len);
    bytes
}

/// Every chunk file of a store folder, as (name, bytes), sorted.
pub fn chunk_files(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for prefix in std::fs::read_dir(store).expect("a store folder").flatten() {
        if !prefix.path().is_dir() {
            continue;
        }
        for file in std::fs::read_dir(prefix.path()).expect("a prefix folder").flatten() {
            let name = file.file_name().into_string().expect("chunk names are ASCII");
            files.push((name, std::fs::read(file.path()).expect("a chunk file")));
        }
    }
    files.sort();
    files
}

/// A program that serves until it is dropped; killed by its pid.
pub struct Server {
    /// The program.
    pub child: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    words: Mutex<Receiver<String>>,
}

impl Server {
    /// Starts a program and waits until its port answers or it has ended.
    pub fn start(command: &mut Command, port: u16) -> Self {
        let mut server = Self::spawn(command, port);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = server.child.try_wait().expect("our own child") {
                let words: Vec<String> = server.words.lock().expect("no test failed").iter().collect();
                panic!("{command:?} ended with {status}\n{}", words.join("\n"));
            }
            std::thread::yield_now();
        }
        server
    }

    /// Starts a program on a port of the system's choice, which it prints on standard error: `… http://127.0.0.1:<port>/`.
    pub fn start_printing(command: &mut Command) -> Self {
        let mut server = Self::spawn(command, 0);
        let line = server.line_with("://127.0.0.1:");
        let port = line
            .rsplit(':')
            .next()
            .and_then(|end| end.trim_end_matches('/').parse().ok());
        server.port = port.unwrap_or_else(|| panic!("no port in `{line}`"));
        server
    }

    fn spawn(command: &mut Command, port: u16) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{command:?} cannot be run ({error}): install it with `tools/bootstrap test`"),
        };
        // Its words are read on, so that it never blocks on a full pipe, and kept for a failure.
        let words = child.stderr.take().expect("it is piped");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(words).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            child,
            port,
            words: Mutex::new(receiver),
        }
    }

    /// Waits for a line on standard error that has these words.
    pub fn line_with(&self, words: &str) -> String {
        let mut before = Vec::new();
        for line in self.words.lock().expect("no test failed").iter() {
            if line.contains(words) {
                return line;
            }
            before.push(line);
        }
        panic!("the server ended without a word of `{words}`\n{}", before.join("\n"));
    }

    /// Asks it to end; its exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().expect("our own child")
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One request on a connection of its own; status, head and body.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String, Vec<u8>) {
        request(self.port, method, path, headers, body)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our own child");
    }
}

/// One request to a port of this machine, on a connection of its own; status, head and body.
pub fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "PUT" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    stream
        .write_all(format!("{head}\r\n").as_bytes())
        .expect("a request head");
    // A server that refuses early closes before it has read everything: its answer is what counts.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a whole response head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (status, head.to_lowercase(), answer[end + 4..].to_vec())
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a server to end, which lets it write what `make coverage` counts; one that does not hear is killed.
pub fn end(child: &mut Child) {
    // Already gone, if the test stopped it.
    if let Ok(None) = child.try_wait() {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
        let begun = Instant::now();
        while begun.elapsed() < END_MAX {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// `cairnd` on an embedded default in `data`, which keeps packs.
pub fn cairnd(data: &Path) -> Server {
    cairnd_with(data, &[])
}

/// How `cairnd` may keep chunks.
pub const KINDS: [&str; 2] = ["packs", "flat"];

/// `cairnd` with one writable store in `data`, of a kind.
pub fn cairnd_of_kind(data: &Path, kind: &str) -> Server {
    let settings = [
        ("CAIRN_STORES__DEFAULT__WRITABLE", "true"),
        ("CAIRN_STORES__DEFAULT__KIND", kind),
    ];
    cairnd_with(data, &settings)
}

/// `cairnd` in `data`, with settings as environment variables.
pub fn cairnd_with(data: &Path, settings: &[(&str, &str)]) -> Server {
    let (port, internal) = (free_port(), free_port());
    let mut command = Command::new(built("cairnd"));
    command
        .envs(settings.iter().copied())
        .arg("--data")
        .arg(data)
        .args([OsStr::new("--listen"), OsStr::new(&format!("127.0.0.1:{port}"))])
        .args([OsStr::new("--internal"), OsStr::new(&format!("127.0.0.1:{internal}"))])
        .args(["--s3", "127.0.0.1:0"]);
    Server::start(&mut command, port)
}
