//! Chunks over casync's protocol from a far end that is 20 ms away.
//!
//! The way there is this program itself in ssh's place: it runs the command here and holds back what passes, each byte by half
//! the round trip in each direction, however many are under way.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::Result;
use crate::process::measure;
use crate::table::median;
use crate::tools::{Tool, ours};

/// First argument that makes this program the way to the far end.
pub(crate) const AS_SSH: &str = "as-ssh";
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(20);
/// Blocks under way: more than any link holds.
const UNDER_WAY: usize = 1 << 16;
const BLOCK_LEN: usize = 64 << 10;
/// MiB of the blob.
const BLOB_MIB: u64 = 64;

/// What `ssh HOST COMMAND…` does, a little later.
pub(crate) fn as_ssh(arguments: &[String]) -> Result<ExitCode> {
    // The host comes after options, which desync gives some of.
    let words = arguments
        .iter()
        .skip_while(|argument| argument.starts_with('-'))
        .skip(1);
    let command = words.map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut child = Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (to, from) = (child.stdin.take(), child.stdout.take());
    let (Some(to), Some(from)) = (to, from) else {
        return Err("the pipes are not there".into());
    };
    std::thread::spawn(move || later(std::io::stdin(), to));
    later(from, std::io::stdout());
    let _ = child.kill();
    child.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// Passes on what comes, half a round trip later. casync's pipes do not block.
pub(crate) fn later(from: impl AsFd + Send + 'static, to: impl AsFd) {
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    std::thread::spawn(move || {
        let mut block = vec![0; BLOCK_LEN];
        loop {
            match rustix::io::read(&from, &mut block) {
                Ok(0) => return,
                Ok(len) => {
                    let due = Instant::now() + ROUND_TRIP / 2;
                    if sender.send((due, block[..len].to_vec())).is_err() {
                        return;
                    }
                }
                Err(Errno::AGAIN) => ready(&from, PollFlags::IN),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    for (due, block) in receiver {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&to, rest) {
                Ok(len) => rest = &rest[len..],
                Err(Errno::AGAIN) => ready(&to, PollFlags::OUT),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn ready(fd: &impl AsFd, flags: PollFlags) {
    let _ = poll(&mut [PollFd::new(fd, flags)], None);
}

/// Measures and returns a section. `input`: a file of at least 64 MiB.
pub(crate) fn run(folder: &Path, input: &Path, repeats: usize) -> Result<String> {
    let ssh = folder.join("ssh");
    let program = std::env::current_exe()?;
    fs::write(&ssh, format!("#!/bin/sh\nexec {} {AS_SSH} \"$@\"\n", program.display()))?;
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755))?;
    let blob = folder.join("far-blob");
    std::io::copy(
        &mut fs::File::open(input)?.take(BLOB_MIB << 20),
        &mut fs::File::create(&blob)?,
    )?;
    let (store, index) = (folder.join("far-store"), folder.join("far.caibx"));
    fs::create_dir(&store)?;
    measure(Tool::Casync.make(&store, &index, &blob, crate::tools::Sync::Default)?)?;

    let us = ours("cairn")?;
    let casync = Path::new("casync");
    let url = format!("ssh://far{}", store.display());
    let ways = [
        ("cairn from cairn", "cairn", us.as_path()),
        ("cairn from casync", "cairn", casync),
        ("casync from casync", "casync", casync),
        ("desync from casync", "desync", casync),
    ];
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for _ in 0..repeats {
        for ((name, tool, remote), seconds) in ways.iter().zip(&mut seconds) {
            let output = folder.join("far.out");
            let mut command = match *tool {
                "cairn" => Command::new(&us),
                tool => Command::new(tool),
            };
            command.arg("extract");
            match *tool {
                "casync" => command.arg(format!("--store=far:{}", store.display())),
                _ => command.arg("-s").arg(&url),
            };
            command.arg(&index).arg(&output);
            command.env("CASYNC_SSH_PATH", &ssh).env("CASYNC_REMOTE_PATH", remote);
            let usage = measure(command)?;
            eprintln!("{name}: {:.2} s", usage.wall);
            crate::blobs::same(&output, &blob)?;
            fs::remove_file(output)?;
            seconds.push(usage.wall);
        }
    }
    let seconds: Vec<f64> = seconds.into_iter().map(median).collect();
    let mut text = format!(
        "\n### Pull over SSH, {} ms round trip\n\nA blob of {BLOB_MIB} MiB extracted through casync's protocol; median of {repeats}, interleaved, outputs compared.\n\n\
         | way | seconds | / casync |\n|---|---|---|\n",
        ROUND_TRIP.as_millis()
    );
    for ((name, ..), seconds_of) in ways.iter().zip(&seconds) {
        text += &format!("| {name} | {seconds_of:.2} | {:.2} |\n", seconds_of / seconds[2]);
    }
    Ok(text)
}
