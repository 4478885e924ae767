//! Many uploads at once: what the server's memory comes to while 64 clients put the bodies of 8.
//!
//! Each client is a `cairn make` with one worker, so that all are at it together. One upload of each body is extracted again
//! and compared. The size of a body is the size of every input of this run.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::Result;
use crate::process::{Peak, cpu_seconds};
use crate::serve::{Program, start};
use crate::tools::ours;

/// Uploads at once, and how many of them differ, as the issue has it.
const UPLOADS: usize = 64;
const BODIES: usize = 8;

/// - `len`: bytes of a body.
pub(crate) fn run(folder: &Path, len: u64) -> Result<String> {
    let body = |n: usize| folder.join(format!("upload-{n}.bin"));
    (0..BODIES).try_for_each(|n| write_body(&body(n), n as u64, len))?;
    let store = folder.join("upload-store");
    let server = start(Program::CairndEmpty, folder, &store)?;
    let url = format!("http://{}/store/default/", server.address);
    let index = |n: usize| folder.join(format!("upload-{n}.caibx"));
    let client = |n: usize| -> Result<Child> {
        let mut command = Command::new(ours("cairn")?);
        command.args(["make", "--concurrency", "1", "-s", &url]);
        command.arg(index(n)).arg(body(n % BODIES));
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
    };

    let peak = Peak::watch(server.server.pid());
    let begun = Instant::now();
    let clients: Vec<Child> = (0..UPLOADS).map(client).collect::<Result<_>>()?;
    for (n, mut client) in clients.into_iter().enumerate() {
        let status = client.wait()?;
        if !status.success() {
            return Err(format!("upload {n} failed ({status})").into());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let memory = peak.end()?;
    let cpu = cpu_seconds(server.server.pid())?;

    for n in 0..BODIES {
        let output = folder.join("upload-check");
        let mut command = Command::new(ours("cairn")?);
        command.args(["extract", "-s", &url]).arg(index(n)).arg(&output);
        if !command.status()?.success() || !equal(&output, &body(n))? {
            return Err(format!("upload {n} does not come back as it was").into());
        }
        fs::remove_file(&output)?;
    }
    let gib = (UPLOADS as u64 * len) as f64 / f64::from(1 << 30);
    Ok(format!(
        "\n### Uploads at once\n\n{UPLOADS} `cairn make` of {} MiB each, {BODIES} of them different, into cairnd's packs; {BODIES} compared \
         after extraction.\n\n| peak anonymous MiB of cairnd | seconds | server CPU-s per GiB |\n|---|---|---|\n| {} | {seconds:.0} | {:.2} |\n",
        len >> 20,
        memory >> 20,
        cpu / gib,
    ))
}

/// Bytes that compress to about half, like no other body's.
fn write_body(path: &Path, seed: u64, len: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(0xb0d1e5 + seed);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for _ in 0..len / 16 {
        file.write_all(format!("{:016x}", random.u64(..)).as_bytes())?;
    }
    Ok(file.flush()?)
}

fn equal(one: &Path, other: &Path) -> Result<bool> {
    let open = |path| -> Result<_> { Ok(BufReader::with_capacity(1 << 20, File::open(path)?)) };
    let (mut one, mut other) = (open(one)?, open(other)?);
    let (mut here, mut there) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one.read(&mut here)?;
        if read == 0 {
            return Ok(other.read(&mut there)? == 0);
        }
        if other.read_exact(&mut there[..read]).is_err() || here[..read] != there[..read] {
            return Ok(false);
        }
    }
}
