//! The load: one operation after the other by several clients, as fast as they are answered (closed loop) or at a rate (open loop).
//!
//! In an open loop the time of an operation counts from the moment when it was due, so that a server that stalls is not asked less.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::Result;
use crate::objects::process_time;
use crate::s3::body::{Bodies, mix};
use crate::s3::client::{Client, Source};
use crate::s3::servers::{BUCKET, Peer};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    Put,
    Get,
    Head,
    /// Pages of up to a thousand keys, from the first on.
    List,
    Delete,
    /// Uploads in parts, of which each operation is a whole one.
    Multipart,
    /// Of twenty: ten reads, four writes, three HEADs, two pages, one write that is deleted at once.
    Mixed,
}

/// A load.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) operation: Operation,
    pub(crate) clients: usize,
    /// How many operations.
    pub(crate) count: u64,
    /// Objects that are there to be read, `PREFIX/0` and so on; operations take turns on them.
    pub(crate) objects: u64,
    /// So many of them in a folder each, `PREFIX/0/0` and so on; 0: in none.
    pub(crate) keys_per_folder: u64,
    /// Of keys.
    pub(crate) prefix: &'a str,
    /// Added to an object's number for its bytes: runs that are to write new bytes differ in it.
    pub(crate) first: u64,
    pub(crate) len: u64,
    pub(crate) part_len: u64,
    pub(crate) bodies: &'a Bodies,
    /// Operations a second; none: a closed loop.
    pub(crate) rate: Option<f64>,
}

/// What a load showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) count: u64,
    /// Bytes of bodies, both ways.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Seconds of CPU of the server, and of the load.
    pub(crate) cpu: f64,
    pub(crate) load_cpu: f64,
    /// The most anonymous memory of the server.
    pub(crate) memory: u64,
    /// Seconds of each operation, ascending.
    pub(crate) latencies: Vec<f64>,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    pub(crate) fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.seconds
    }

    /// CPU-seconds of the server a GiB.
    pub(crate) fn cpu_per_gib(&self) -> f64 {
        self.cpu / (self.bytes as f64 / f64::from(1 << 30))
    }

    /// CPU-seconds of the server a thousand operations.
    pub(crate) fn cpu_per_thousand(&self) -> f64 {
        self.cpu / self.count as f64 * 1e3
    }

    /// Seconds within which this share of the operations was answered.
    pub(crate) fn latency(&self, share: f64) -> f64 {
        let at = (self.latencies.len() as f64 * share) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(at.min(last)).copied().unwrap_or(0.0)
    }
}

/// Puts a load on a server. An answer that is not what it has to be ends it.
pub(crate) fn run(peer: &Peer, load: &Load<'_>) -> Result<Seen> {
    let next = AtomicU64::new(0);
    let clients: Vec<Client> = (0..load.clients).map(|_| peer.client()).collect::<Result<_>>()?;
    let (meter, own, begun) = (peer.meter()?, process_time(), Instant::now());
    let results: Vec<Result<(Vec<f64>, u64)>> = std::thread::scope(|scope| {
        let work = |mut client: Client| {
            let next = &next;
            scope.spawn(move || {
                let mut work = || -> Result<(Vec<f64>, u64)> {
                    let (mut latencies, mut bytes) = (Vec::new(), 0);
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= load.count {
                            return Ok((latencies, bytes));
                        }
                        let mut since = Instant::now();
                        if let Some(rate) = load.rate {
                            let due = begun + Duration::from_secs_f64(n as f64 / rate);
                            std::thread::sleep(due.saturating_duration_since(since));
                            since = due;
                        }
                        bytes += load.one(&mut client, n)?;
                        latencies.push(since.elapsed().as_secs_f64());
                    }
                };
                // The others are not to go on for long with what is no measurement any more.
                work().map_err(|error| {
                    next.store(load.count, Ordering::Relaxed);
                    error.to_string()
                })
            })
        };
        let threads: Vec<_> = clients.into_iter().map(work).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, std::result::Result<_, String>>| {
            Ok(thread.join().map_err(|_| "a client panicked")??)
        };
        threads.into_iter().map(join).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (cpu, memory) = meter.end()?;
    let mut seen = Seen {
        count: load.count,
        seconds,
        cpu,
        load_cpu: (process_time() - own).as_secs_f64(),
        memory,
        ..Seen::default()
    };
    for result in results {
        let (latencies, bytes) = result.map_err(|error| format!("{}: {error}", peer.name))?;
        seen.latencies.extend(latencies);
        seen.bytes += bytes;
    }
    seen.latencies.sort_by(f64::total_cmp);
    Ok(seen)
}

impl Load<'_> {
    /// One operation. Returns the bytes of bodies.
    fn one(&self, client: &mut Client, n: u64) -> Result<u64> {
        let operation = match (self.operation, mix(n) % 20) {
            (Operation::Mixed, 0..10) => Operation::Get,
            (Operation::Mixed, 10..14) => Operation::Put,
            (Operation::Mixed, 14..17) => Operation::Head,
            (Operation::Mixed, 17..19) => Operation::List,
            (Operation::Mixed, _) => Operation::Delete,
            (operation, _) => operation,
        };
        let is_mixed = self.operation == Operation::Mixed;
        let there = if self.objects == 0 {
            n
        } else {
            mix(n ^ 0x0b1ec7) % self.objects
        };
        let key = |number: u64| match number.checked_div(self.keys_per_folder) {
            Some(folder) => format!("{}/{folder}/{number}", self.prefix),
            None => format!("{}/{number}", self.prefix),
        };
        let new = || format!("{}-new/{n}", self.prefix);
        match operation {
            Operation::Put => {
                let key = if is_mixed { new() } else { key(n) };
                client.put(BUCKET, &key, self.source(n))?;
                Ok(self.len)
            }
            Operation::Get => {
                client.get(BUCKET, &key(there), self.source(there))?;
                Ok(self.len)
            }
            Operation::Head => client.head(BUCKET, &key(there), self.len).map(|()| 0),
            Operation::List => {
                client.list(BUCKET, &format!("{}/", self.prefix), "", None)?;
                Ok(0)
            }
            Operation::Delete if is_mixed => {
                client.put(BUCKET, &new(), self.source(n))?;
                client.delete(BUCKET, &new())?;
                Ok(self.len)
            }
            Operation::Delete => client.delete(BUCKET, &key(n)).map(|()| 0),
            Operation::Multipart => {
                let key = key(n);
                let id = client.begin_upload(BUCKET, &key)?;
                let mut etags = Vec::new();
                for at in (0..self.len).step_by(self.part_len.max(1) as usize) {
                    let source = Source {
                        at,
                        len: self.part_len.min(self.len - at),
                        ..self.source(n)
                    };
                    etags.push(client.put_part(BUCKET, &key, &id, etags.len() as u64 + 1, source)?);
                }
                client.complete(BUCKET, &key, &id, &etags)?;
                Ok(self.len)
            }
            Operation::Mixed => unreachable!("it was one of the others above"),
        }
    }

    fn source(&self, object: u64) -> Source<'_> {
        Source {
            bodies: self.bodies,
            object: self.first + object,
            at: 0,
            len: self.len,
        }
    }
}
