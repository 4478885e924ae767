//! `cairnd`, started, signalled and asked by a test.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Answer, Client, HANG, Sample};

/// A server on a folder of its own.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    /// Gone when it was taken out to start another server on it.
    folder: Option<TempDir>,
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairnd"));
    command
        .current_dir(folder)
        .args([
            "--listen",
            "127.0.0.1:0",
            "--internal",
            "127.0.0.1:0",
            "--s3",
            "127.0.0.1:0",
        ])
        .stdin(Stdio::null());
    command
}

impl Daemon {
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    pub(crate) fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config, variables)
    }

    /// Starts on a folder that is there.
    pub(crate) fn start_in(folder: TempDir, config: &str, variables: &[(&str, &str)]) -> Self {
        std::fs::write(folder.path().join("cairnd.toml"), config).unwrap();
        let mut child = command(folder.path())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |word: &str| {
            let line = lines
                .find(|line| line.trim_start().starts_with(word))
                .unwrap_or_else(|| panic!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap()));
            let url = line.split_whitespace().nth(1).unwrap().to_owned();
            url.split('/').nth(2).unwrap().parse().unwrap()
        };
        let (public, internal) = (address("health"), address("metrics"));
        Self {
            child,
            public,
            internal,
            folder: Some(folder),
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Client::connect(self.public).ask(method, path, headers, body)
    }

    pub(crate) fn status(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.ask(method, path, &[], body).status
    }

    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.path().join("cairnd.toml"), config).unwrap();
        self.signal(Signal::HUP);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Seconds of the processors that it has used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the program's name, which may hold anything, fields 3 and on of proc(5): 14 and 15 are what we want.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        // Linux counts them in hundredths of a second, whatever it counts in itself.
        ticks / 100.0
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap()
    }

    /// Collections of the store `default` that have ended; those of the objects' are in the log, too.
    pub(crate) fn collections(&self) -> usize {
        let is_one = |line: &&str| line.contains("a collection ended") && line.contains("\"store\":\"default\"");
        self.log().lines().filter(is_one).count()
    }

    pub(crate) fn wait_for_log(&self, word: &str, count: usize) {
        wait_until(word, || self.log().matches(word).count() >= count);
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> String {
        Client::connect(self.internal).ask("GET", "/metrics", &[], b"").text()
    }

    /// `kill -9`; its folder.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.take().unwrap()
    }

    /// Ends it in order; its folder.
    pub(crate) fn leave(mut self) -> TempDir {
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
        self.folder.take().unwrap()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    /// Asks it to end, which lets it write what `make coverage` counts; one that does not hear is killed.
    fn drop(&mut self) {
        // Already gone, if the test stopped it.
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::TERM);
            // One that a test has stopped hears nothing.
            self.signal(Signal::CONT);
            let begun = Instant::now();
            while begun.elapsed() < HANG {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::yield_now();
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Looks again and again, without a pause that would be a guess.
pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_until_for(what, HANG, is_so);
}

/// The same, for as long as this at most.
pub(crate) fn wait_until_for(what: &str, most: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < most, "still waiting: {what}");
        std::thread::yield_now();
    }
}

/// An index of chunks, one after the other.
pub(crate) fn index_of(samples: &[&Sample]) -> Vec<u8> {
    let blob = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/testdata/data-0.1/index/default/blob.caibx"
    );
    let like = cairn_formats::ChunkIndex::parse(std::fs::read(blob).unwrap().into()).unwrap();
    let mut bytes = Vec::new();
    let mut index = cairn_formats::IndexEncoder::start(like.flags(), like.sizes(), &mut bytes);
    for sample in samples {
        index.push(sample.hex.parse().unwrap(), sample.plain.len(), &mut bytes);
    }
    index.finish(&mut bytes);
    bytes
}
