//! Many of something: small objects, keys, clients.

use std::time::Instant;

use crate::Result;
use crate::s3::Bench;
use crate::s3::body::{Bodies, Kind};
use crate::s3::report::{OTHER, Report, Runs};
use crate::s3::servers::{BUCKET, Peer, Which};
use crate::s3::work::{Load, Operation, Seen, run};

const SMALL_LEN: u64 = 4 << 10;
const CLIENTS: usize = 64;
/// Of a folder of the listing by delimiter.
const KEYS_PER_FOLDER: u64 = 1000;
/// HEADs whose slowest hundredth is told.
const HEADS: u64 = 5000;
/// What each of the clients puts that come at once.
const AT_ONCE_LEN: u64 = 8 << 20;

fn load<'a>(bodies: &'a Bodies, operation: Operation, prefix: &'a str, count: u64) -> Load<'a> {
    Load {
        operation,
        clients: CLIENTS,
        count,
        objects: count,
        keys_per_folder: 0,
        prefix,
        first: 0,
        len: SMALL_LEN,
        part_len: 0,
        bodies,
        rate: None,
    }
}

/// PUT and GET of 4 KiB.
pub(super) fn small(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let peers = bench.start(&[Which::cairnd()])?;
    let bodies = Bodies::new(Kind::Random);
    let (mut puts, mut gets) = (Runs::default(), Runs::default());
    for repeat in 0..bench.repeats {
        let prefix = format!("small-{repeat}");
        for peer in &peers {
            let put = Load {
                first: (repeat as u64) << 24,
                ..load(&bodies, Operation::Put, &prefix, bench.options.s3_small)
            };
            puts.add(peer.name, run(peer, &put)?);
            let operation = Operation::Get;
            gets.add(peer.name, run(peer, &Load { operation, ..put })?);
        }
    }
    for (what, runs, goal) in [("PUT", &puts, 3.0), ("GET", &gets, 2.0)] {
        report.table(&format!("{what} of 4 KiB, {CLIENTS} clients"), runs);
        let what = format!("{what} of 4 KiB, {CLIENTS} clients");
        report.at_least(
            &format!("{what}: operations/s / MinIO"),
            runs.ratio("cairnd", OTHER, Seen::per_second),
            goal,
        );
        let per_cpu = |seen: &Seen| 1.0 / seen.cpu_per_thousand();
        report.at_least(
            &format!("{what}: operations per CPU-s / MinIO"),
            runs.ratio("cairnd", OTHER, per_cpu),
            goal,
        );
    }
    Ok(())
}

/// Listings, flat and by delimiter, and HEAD among so many keys.
pub(super) fn list(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let bodies = Bodies::new(Kind::Random);
    let keys = bench.options.s3_keys;
    let peers = bench.start(&[Which::cairnd()])?;
    let (mut flat, mut by_folder, mut heads) = (Runs::default(), Runs::default(), Runs::default());
    for peer in &peers {
        fill(peer, &bodies, keys)?;
    }
    let many = bench.options.s3_many_keys;
    let more = format!("cairnd, {many} keys");
    let more_peer = match many {
        0 => None,
        _ => Some(Peer::start(&Which::cairnd(), bench.folder)?),
    };
    if let Some(peer) = &more_peer {
        fill(peer, &bodies, many)?;
    }
    let few = peers.iter().map(|peer| (peer, peer.name, keys));
    let all: Vec<_> = few
        .chain(more_peer.iter().map(|peer| (peer, more.as_str(), many)))
        .collect();
    for _ in 0..bench.repeats {
        for &(peer, name, keys) in &all {
            flat.add(name, listed(peer, keys, "")?);
            by_folder.add(name, listed(peer, keys, "/")?);
            heads.add(name, head_all(peer, &bodies, keys)?);
        }
    }
    report.table(&format!("Listing of {keys} keys, flat; keys are operations"), &flat);
    report.table(
        &format!("Listing of {keys} keys by delimiter, {KEYS_PER_FOLDER} a folder"),
        &by_folder,
    );
    report.table("HEAD among them, one client", &heads);
    for (what, runs) in [("flat", &flat), ("by delimiter", &by_folder)] {
        let ratio = runs.ratio("cairnd", OTHER, Seen::per_second);
        report.at_least(&format!("listing of {keys} keys, {what}: keys/s / MinIO"), ratio, 10.0);
        let per_cpu = |seen: &Seen| 1.0 / seen.cpu_per_thousand();
        let ratio = runs.ratio("cairnd", OTHER, per_cpu);
        report.at_least(
            &format!("listing of {keys} keys, {what}: keys per CPU-s / MinIO"),
            ratio,
            10.0,
        );
        let ratio = runs.ratio(&more, "cairnd", Seen::per_second);
        report.at_least(
            &format!("listing of {many} keys, {what}: keys/s / of {keys}"),
            ratio,
            0.9,
        );
    }
    let name = if many > 0 { more.as_str() } else { "cairnd" };
    let p99 = heads.of(name, |seen| seen.latency(0.99) * 1e3);
    report.at_most(&format!("HEAD among {} keys: p99, ms", many.max(keys)), p99, 2.0);
    Ok(())
}

fn fill(peer: &Peer, bodies: &Bodies, keys: u64) -> Result<()> {
    let load = Load {
        keys_per_folder: KEYS_PER_FOLDER,
        len: 1,
        ..load(bodies, Operation::Put, "keys", keys)
    };
    run(peer, &load).map(drop)
}

fn head_all(peer: &Peer, bodies: &Bodies, keys: u64) -> Result<Seen> {
    let load = Load {
        keys_per_folder: KEYS_PER_FOLDER,
        len: 1,
        clients: 1,
        objects: keys,
        ..load(bodies, Operation::Head, "keys", HEADS)
    };
    run(peer, &load)
}

/// Lists all keys once, each of which counts as an operation; pages are what took time.
fn listed(peer: &Peer, keys: u64, delimiter: &str) -> Result<Seen> {
    let mut client = peer.client()?;
    let (meter, own, begun) = (peer.meter()?, crate::objects::process_time(), Instant::now());
    let mut latencies = Vec::new();
    let mut count = 0;
    let mut list = |prefix: &str| -> Result<usize> {
        let (mut next, mut prefixes) = (None, 0);
        loop {
            let since = Instant::now();
            let page = client.list(BUCKET, prefix, delimiter, next.as_deref())?;
            latencies.push(since.elapsed().as_secs_f64());
            count += page.keys as u64;
            prefixes += page.prefixes;
            if page.next.is_none() {
                return Ok(prefixes);
            }
            next = page.next;
        }
    };
    let folders = list("keys/")?;
    for folder in 0..folders {
        list(&format!("keys/{folder}/"))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    if count != keys {
        return Err(format!("{} lists {count} keys of {keys}", peer.name).into());
    }
    let (cpu, memory) = meter.end()?;
    latencies.sort_by(f64::total_cmp);
    Ok(Seen {
        count,
        bytes: 0,
        seconds,
        cpu,
        load_cpu: (crate::objects::process_time() - own).as_secs_f64(),
        memory,
        latencies,
    })
}

/// A thousand clients at once.
pub(super) fn memory(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let peers = bench.start(&[Which::cairnd()])?;
    let bodies = Bodies::new(Kind::Text);
    let clients = bench.options.s3_memory_clients;
    let mut runs = Runs::default();
    for peer in &peers {
        let load = Load {
            clients,
            len: AT_ONCE_LEN,
            ..load(&bodies, Operation::Put, "at-once", clients as u64)
        };
        runs.add(peer.name, run(peer, &load)?);
    }
    let what = format!("PUT of 8 MiB by {clients} clients at once");
    report.table(&what, &runs);
    let mib = runs.of("cairnd", |seen| seen.memory as f64 / f64::from(1 << 20));
    report.at_most(&format!("{what}: anonymous MiB"), mib, 768.0);
    Ok(())
}
