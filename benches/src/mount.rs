//! Reads through `mount-index`, ours and desync's, of the same index and store.
//!
//! Every measurement has a mount of its own, so that neither program's memory nor the kernel's pages of the mount help it; the
//! store's files are in the page cache. Readers, mounts and kernel share the cores.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::process::{Server, cpu_seconds};
use crate::table::median;
use crate::tools::{Tool, ours};

/// Bytes of a sequential read.
const READ_LEN: usize = 1 << 20;
/// Bytes of a random read.
const PAGE_LEN: usize = 4096;
/// Random reads of one measurement, all readers together.
const RANDOM_READS: usize = 10_000;
/// A mount has to be there, and gone, within this.
const WITHIN: Duration = Duration::from_secs(20);

/// How a mounted blob is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// From its start to its end by one reader.
    Sequential,
    /// 4 KiB here and there by so many readers at a time, each with a file of its own.
    Random { readers: usize },
}

impl Reading {
    const ALL: [Self; 3] = [
        Self::Sequential,
        Self::Random { readers: 1 },
        Self::Random { readers: 8 },
    ];

    fn name(self) -> String {
        match self {
            Self::Sequential => "sequential".to_owned(),
            Self::Random { readers: 1 } => "random 4 KiB, 1 reader".to_owned(),
            Self::Random { readers } => format!("random 4 KiB, {readers} readers"),
        }
    }

    /// Reads; `check` gets the bytes of each read and where they are from. Returns how many bytes were read.
    fn run(self, file: &Path, check: &(dyn Fn(u64, &[u8]) -> Result<()> + Sync)) -> Result<u64> {
        match self {
            Self::Sequential => {
                let file = File::open(file)?;
                let (mut buffer, mut offset) = (vec![0; READ_LEN], 0);
                loop {
                    let read = file.read_at(&mut buffer, offset)?;
                    if read == 0 {
                        return Ok(offset);
                    }
                    check(offset, &buffer[..read])?;
                    offset += read as u64;
                }
            }
            Self::Random { readers } => {
                let pages = File::open(file)?.metadata()?.len() / PAGE_LEN as u64;
                std::thread::scope(|scope| {
                    let reader = |seed: usize| {
                        move || -> std::result::Result<u64, String> {
                            let file = File::open(file).map_err(|error| error.to_string())?;
                            let mut random = fastrand::Rng::with_seed(seed as u64);
                            let mut buffer = [0; PAGE_LEN];
                            for _ in 0..RANDOM_READS / readers {
                                let offset = random.u64(..pages) * PAGE_LEN as u64;
                                file.read_exact_at(&mut buffer, offset)
                                    .map_err(|error| format!("byte {offset}: {error}"))?;
                                check(offset, &buffer).map_err(|error| error.to_string())?;
                            }
                            Ok((RANDOM_READS / readers * PAGE_LEN) as u64)
                        }
                    };
                    let threads: Vec<_> = (0..readers).map(|seed| scope.spawn(reader(seed))).collect();
                    let mut read = 0;
                    for thread in threads {
                        read += thread.join().map_err(|_| "a reader panicked")??;
                    }
                    Ok(read)
                })
            }
        }
    }
}

/// A mount that ends with this.
struct Mount {
    server: Server,
    folder: PathBuf,
    file: PathBuf,
}

impl Mount {
    fn start(tool: Tool, scratch: &Path, store: &Path, index: &Path) -> Result<Self> {
        let folder = scratch.join(format!("mount-{}", tool.name()));
        std::fs::create_dir_all(&folder)?;
        let mut command = match tool {
            Tool::Cairn => Command::new(ours("cairn")?),
            Tool::Casync | Tool::Desync => Command::new(tool.name()),
        };
        command.arg("mount-index").arg("-s").arg(store).arg(index).arg(&folder);
        let log = scratch.join(format!("mount-{}.log", tool.name()));
        // The kernel tells by this file when something is mounted, from now on.
        let mounts = File::open("/proc/self/mountinfo")?;
        let server = Server::start(command, &log)?;
        let file = folder.join(index.file_stem().ok_or("the index has no name")?);
        let mut mount = Self { server, folder, file };
        let start = Instant::now();
        while !mount.file.exists() {
            let left = WITHIN.saturating_sub(start.elapsed());
            let changed = PollFd::new(&mounts, PollFlags::PRI);
            if left.is_zero() || mount.server.wait(Some(changed), left)? {
                let text = std::fs::read_to_string(&log)?;
                return Err(format!("{} does not mount: {}", tool.name(), text.trim()).into());
            }
        }
        Ok(mount)
    }

    fn end(&mut self) {
        if let Some(pid) = Pid::from_raw(self.server.pid() as i32) {
            let _ = kill_process(pid, Signal::INT);
        }
        // One that stays is killed when its server is dropped.
        let _ = self.server.wait(None, WITHIN);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.end();
        if self.file.exists() {
            // It would stay, and the scratch folder with it.
            let _ = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(&self.folder)
                .status();
        }
    }
}

/// What the runs of one tool at one kind of reading showed.
struct Line {
    reading: Reading,
    tool: Tool,
    seconds: Vec<f64>,
    cpu: Vec<f64>,
    read: u64,
}

/// Measures all kinds of reading.
///
/// - `blob`: the bytes that `index` describes, which the mounts have to show.
pub(crate) fn run(
    scratch: &Path,
    store: &Path,
    index: &Path,
    blob: &Path,
    tools: &[Tool],
    repeats: usize,
) -> Result<String> {
    let tools: Vec<Tool> = [Tool::Cairn, Tool::Desync]
        .into_iter()
        .filter(|tool| tools.contains(tool))
        .collect();
    let mut lines = Vec::new();
    let expected = File::open(blob)?;
    let right = |offset: u64, bytes: &[u8]| -> Result<()> {
        let mut other = vec![0; bytes.len()];
        expected.read_exact_at(&mut other, offset)?;
        if bytes != other {
            return Err(format!("the mount shows other bytes at {offset}").into());
        }
        Ok(())
    };
    for reading in Reading::ALL {
        let mut measured: Vec<Line> = Vec::new();
        for &tool in &tools {
            // Once without a clock, to compare and to warm the store.
            let mount = Mount::start(tool, scratch, store, index)?;
            let read = reading
                .run(&mount.file, &right)
                .map_err(|error| format!("{}: {error}", tool.name()))?;
            measured.push(Line {
                reading,
                tool,
                seconds: Vec::new(),
                cpu: Vec::new(),
                read,
            });
        }
        for _ in 0..repeats {
            for line in &mut measured {
                let mount = Mount::start(line.tool, scratch, store, index)?;
                let before = cpu_seconds(mount.server.pid())?;
                let start = Instant::now();
                reading.run(&mount.file, &|_, _| Ok(()))?;
                let seconds = start.elapsed().as_secs_f64();
                let cpu = cpu_seconds(mount.server.pid())? - before;
                eprintln!(
                    "mount, {}, {}: {seconds:.2} s, {cpu:.2} s CPU",
                    reading.name(),
                    line.tool.name()
                );
                line.seconds.push(seconds);
                line.cpu.push(cpu);
            }
        }
        lines.extend(measured);
    }
    Ok(section(&lines, repeats))
}

fn section(lines: &[Line], repeats: usize) -> String {
    let mut text = format!(
        "\n### Reads through mount-index\n\nMedian of {repeats}, interleaved, a new mount each; store in the page cache; {RANDOM_READS} random \
         reads. What was read was compared once. CPU is the mounting program's alone.\n\n\
         | reading | tool | seconds | MiB/s | µs per read | CPU-s | speed / desync | CPU / desync |\n|---|---|---|---|---|---|---|---|\n"
    );
    for line in lines {
        let (seconds, cpu) = (median(line.seconds.clone()), median(line.cpu.clone()));
        let reads = match line.reading {
            Reading::Sequential => line.read.div_ceil(READ_LEN as u64),
            Reading::Random { .. } => line.read / PAGE_LEN as u64,
        };
        let desync = lines
            .iter()
            .find(|other| other.reading == line.reading && other.tool == Tool::Desync);
        let ratio = |of: &dyn Fn(&Line) -> f64| desync.map_or(String::new(), |desync| format!("{:.2}", of(desync)));
        text += &format!(
            "| {} | {} | {seconds:.2} | {:.0} | {:.0} | {cpu:.2} | {} | {} |\n",
            line.reading.name(),
            line.tool.name(),
            line.read as f64 / seconds / f64::from(1 << 20),
            seconds / reads as f64 * 1e6,
            ratio(&|desync| median(desync.seconds.clone()) / seconds),
            ratio(&|desync| cpu / median(desync.cpu.clone())),
        );
    }
    text
}
