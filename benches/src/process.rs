//! Runs a command and takes its measure: wall time, CPU time, peak anonymous memory, bytes written.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::Result;

/// Clock ticks of `/proc/PID/stat` per second: the kernel's USER_HZ, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Between two looks at a process's memory.
const SAMPLE_EVERY: Duration = Duration::from_millis(4);

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds from start to exit.
    pub(crate) wall: f64,
    /// Seconds of CPU, user and system, of the process and the children it waited for; in steps of 10 ms.
    pub(crate) cpu: f64,
    /// Largest anonymous memory seen, bytes.
    pub(crate) anonymous: u64,
    /// Bytes of file pages made dirty.
    pub(crate) written: u64,
}

/// Runs to the end. A command that fails is an error with the last lines it wrote to standard error.
pub(crate) fn measure(mut command: Command) -> Result<Usage> {
    let program = command.get_program().to_string_lossy().into_owned();
    let messages = tempfile::NamedTempFile::new()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.reopen()?);

    let start = Instant::now();
    let mut child = command
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    let pid = child.id();
    let mut usage = Usage::default();
    let peak = Peak::watch(pid);
    // Not reaped yet: a zombie's times and counters are final and can still be read.
    let waited = waitid(
        WaitId::Pid(Pid::from_child(&child)),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    );
    usage.wall = start.elapsed().as_secs_f64();
    usage.anonymous = peak.end()?;
    waited?;
    usage.cpu = cpu_seconds(pid)?;
    usage.written = written(pid)?;
    let status = child.wait()?;
    if !status.success() {
        let text = fs::read_to_string(messages.path())?;
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        return Err(format!(
            "{program} {} failed ({status}): {}",
            arguments.join(" "),
            last.join(" / ")
        )
        .into());
    }
    Ok(usage)
}

/// Looks at a process's anonymous memory again and again.
pub(crate) struct Peak {
    ended: Arc<AtomicBool>,
    sampler: JoinHandle<u64>,
}

impl Peak {
    pub(crate) fn watch(pid: u32) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let sampler = std::thread::spawn(move || {
            let mut peak = 0;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(anonymous(pid).unwrap_or(0));
                std::thread::sleep(SAMPLE_EVERY);
            }
            peak
        });
        Self { ended, sampler }
    }

    /// The most that was seen, bytes.
    pub(crate) fn end(self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        Ok(self.sampler.join().map_err(|_| "the memory sampler panicked")?)
    }
}

/// Seconds of CPU a process has used so far, with the children it waited for.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold spaces; utime is field 14, cstime field 17.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Anonymous memory of a running process, bytes.
fn anonymous(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

fn written(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let value = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(value.ok_or("/proc/PID/io has no write_bytes")?.trim().parse()?)
}

/// A server that runs until this is dropped.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(mut command: Command, log: &std::path::Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(
            command
                .spawn()
                .map_err(|error| format!("{program} does not start: {error}"))?,
        ))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended, `other` has an event, or `limit` has passed; whether it has ended.
    pub(crate) fn wait(&mut self, other: Option<PollFd<'_>>, limit: Duration) -> Result<bool> {
        let ended = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let mut events = vec![PollFd::new(&ended, PollFlags::IN)];
        events.extend(other);
        poll(&mut events, Some(&Timespec::try_from(limit)?))?;
        Ok(!matches!(self.0.try_wait(), Ok(None)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
