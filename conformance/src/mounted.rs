//! A program that has mounted something, and what must be left when it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::Signal;

/// A program that has mounted something; killed by its pid, and its mount taken away, when a test fails.
pub struct Mount {
    /// The program.
    pub child: Child,
    /// Where it has mounted.
    pub folder: PathBuf,
    /// Reads standard error until the program ends.
    pub words: Option<JoinHandle<String>>,
}

impl Mount {
    /// Starts `cairn` and waits until it says that the mount is there.
    #[track_caller]
    pub fn start(command: &mut Command, folder: &Path) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let words = child.stderr.take().expect("it is piped");
        let words = std::thread::spawn(move || std::io::read_to_string(words).unwrap_or_default());
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("standard output");
        let mut mount = Self {
            child,
            folder: folder.to_owned(),
            words: Some(words),
        };
        if !line.contains("mounted") {
            let words = mount.words();
            panic!("{command:?} did not mount: {line}{words}");
        }
        mount
    }

    /// The file of a mounted blob.
    pub fn blob(&self) -> PathBuf {
        self.folder.join("blob")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("our own child");
    }

    /// What it said on standard error, once it has ended.
    pub fn words(&mut self) -> String {
        let words = self.words.take().expect("asked for once");
        words.join().expect("the reader of standard error")
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("our own child")
    }

    /// Ends it as a user would: nothing is left of the mount. Returns what it said on standard error.
    #[track_caller]
    pub fn end(mut self) -> String {
        self.signal(Signal::TERM);
        let (status, words) = (self.wait(), self.words());
        assert!(status.success(), "{status}\n{words}");
        assert_gone(&self.folder);
        words
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if mounts()
            .lines()
            .any(|line| line.contains(&*self.folder.to_string_lossy()))
        {
            let _ = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(&self.folder)
                .status();
        }
    }
}

/// What is mounted, as the kernel lists it.
pub fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("the mounts of this process")
}

/// Nothing is mounted on the folder any more, and it is as empty as before.
#[track_caller]
pub fn assert_gone(folder: &Path) {
    assert!(
        !mounts().contains(&*folder.to_string_lossy()),
        "{} is still mounted",
        folder.display()
    );
    assert_eq!(fs::read_dir(folder).expect("the folder is still there").count(), 0);
}
