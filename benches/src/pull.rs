//! An update over HTTP from a server that is 20 ms away: `cairn`, which asks for many chunks at once, beside desync.
//!
//! Both read index and chunks from the same `cairnd` through the same link, with ten requests in flight at most (the default of both),
//! connections kept, and the old version as seed. The link holds back each byte by half the round trip in each direction, however
//! many are under way, and a connection costs one round trip before its first byte. Requests are counted by the server.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Result;
use crate::blobs::same;
use crate::data::Inputs;
use crate::far::{ROUND_TRIP, later};
use crate::process::measure;
use crate::serve::{START_WITHIN, free_address};
use crate::table::median;
use crate::tools::ours;

/// Passes on connections to `server` for as long as the program runs; where it listens.
fn link(server: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                std::thread::sleep(ROUND_TRIP);
                let Ok(server) = TcpStream::connect(server) else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let pair = (client.try_clone(), server.try_clone());
                if let (Ok(back), Ok(forth)) = pair {
                    std::thread::spawn(move || pass(forth, back));
                    pass(client, server);
                }
            });
        }
    });
    Ok(address)
}

fn pass(from: TcpStream, to: TcpStream) {
    let Ok(out) = to.try_clone() else { return };
    later(from, &out);
    let _ = to.shutdown(Shutdown::Write);
}

/// A server that ends with its owner.
struct Cairnd {
    child: std::process::Child,
    public: SocketAddr,
    internal: SocketAddr,
}

impl Drop for Cairnd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cairnd {
    fn start(folder: &Path) -> Result<Self> {
        let (public, internal) = (free_address()?, free_address()?);
        let child = Command::new(ours("cairnd")?)
            .env("CAIRN_STORES__DEFAULT__WRITABLE", "true")
            .arg("--data")
            .arg(folder.join("pull-data"))
            .args(["--listen", &public.to_string(), "--internal", &internal.to_string()])
            .args(["--s3", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            child,
            public,
            internal,
        };
        let begun = Instant::now();
        while TcpStream::connect(server.public).is_err() || TcpStream::connect(server.internal).is_err() {
            if begun.elapsed() > START_WITHIN {
                return Err("cairnd does not listen".into());
            }
            std::thread::sleep(crate::serve::CONNECT_EVERY);
        }
        Ok(server)
    }

    /// Requests for chunks and indexes so far.
    fn requests(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(self.internal)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: cairnd\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let lines = page.lines().filter(|line| {
            line.starts_with("http_requests_total{") && (line.contains("\"/store/") || line.contains("\"/index/"))
        });
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum())
    }
}

/// Writes what is as long as `like`, waits until the disk has it and removes it: pages that a virtual machine has to ask its host for,
/// and a disk that is busy with the run before, cost as much as the extraction and fall on whoever comes first.
fn take_pages(output: &Path, like: &Path) -> Result<()> {
    std::fs::copy(like, output)?;
    File::open(output)?.sync_all()?;
    Ok(std::fs::remove_file(output)?)
}

/// Measures and returns a section.
pub(crate) fn run(folder: &Path, inputs: &Inputs, repeats: usize) -> Result<String> {
    let server = Cairnd::start(folder)?;
    let near = format!("http://{}", server.public);
    let far = format!("http://{}", link(server.public)?);
    let old = folder.join("pull-old.caibx");
    let new = format!("{near}/index/default/new.caibx");
    for (index, blob) in [(old.as_os_str(), &inputs.tree), (new.as_ref(), &inputs.edited)] {
        let mut make = Command::new(ours("cairn")?);
        make.args(["make", "-s", &format!("{near}/store/default/")])
            .arg(index)
            .arg(blob);
        measure(make)?;
    }
    let remote = format!("{far}/index/default/new.caibx");

    let store = format!("{far}/store/default/");
    let seed = format!("{}:{}", old.display(), inputs.tree.display());
    let output = folder.join("pull.out");
    let ways = ["cairn, seed", "desync, seed", "cairn, nothing", "desync, nothing"];
    let mut figures: Vec<(Vec<f64>, Vec<f64>, Vec<f64>)> = vec![Default::default(); ways.len()];
    for _ in 0..repeats {
        for (way, (walls, cpus, requests)) in ways.iter().zip(&mut figures) {
            let mut command = match way.starts_with("cairn") {
                true => Command::new(ours("cairn")?),
                false => Command::new("desync"),
            };
            command.args(["extract", "-s", &store]);
            if way.ends_with("seed") {
                command.args(["--seed", &seed]);
            }
            command.arg(&remote).arg(&output);
            take_pages(&output, &inputs.edited)?;
            let before = server.requests()?;
            let usage = measure(command)?;
            let cost = server.requests()? - before;
            eprintln!("{way}: {:.2} s, {cost} requests", usage.wall);
            same(&output, &inputs.edited)?;
            std::fs::remove_file(&output)?;
            walls.push(usage.wall);
            cpus.push(usage.cpu);
            requests.push(cost as f64);
        }
    }
    let figures: Vec<[f64; 3]> = figures
        .into_iter()
        .map(|(walls, cpus, requests)| [median(walls), median(cpus), median(requests)])
        .collect();
    let mut text = format!(
        "\n### Pull over HTTP, {} ms round trip\n\nA blob of {} MiB extracted from `cairnd` (packs), index and chunks, of which about a tenth is new beside the seed; ten requests in flight at most, connections kept; median of {repeats}, interleaved, outputs compared. Before each a file of that length was written, synced and removed.\n\n\
         | way | seconds | CPU s | requests | desync's seconds / | desync's requests / |\n|---|---|---|---|---|---|\n",
        ROUND_TRIP.as_millis(),
        std::fs::metadata(&inputs.edited)?.len() >> 20,
    );
    for (at, (way, [wall, cpu, requests])) in ways.iter().zip(&figures).enumerate() {
        let [their_wall, _, their_requests] = figures[at | 1];
        text += &format!(
            "| {way} | {wall:.2} | {cpu:.2} | {requests} | {:.1} | {:.1} |\n",
            their_wall / wall,
            their_requests / requests
        );
    }
    Ok(text)
}
