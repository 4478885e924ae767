//! Large objects: what writing and reading them costs, what they take of a disk, and how an upload in parts ends.

use std::time::{Duration, Instant};

use crate::Result;
use crate::releases;
use crate::s3::Bench;
use crate::s3::body::{Bodies, Kind};
use crate::s3::client::Source;
use crate::s3::report::{OTHER, Report, Runs};
use crate::s3::servers::{BUCKET, Peer, Which};
use crate::s3::work::{Load, Operation, Seen, run};

const LEN: u64 = 16 << 20;
const CLIENTS: usize = 8;
const PART_LEN: u64 = 5 << 20;
/// Text that is read again and again, less than the cache of plain chunks.
const CACHED: u64 = 4;
/// Bytes that wait to be compressed and are not worth it.
const WAITING_MAX: f64 = (1 << 20) as f64;
/// They are to be compressed within this.
const REST_WITHIN: Duration = Duration::from_secs(600);

const INLINE: &str = "deferred = false\nframe_level = 1";

impl Bench<'_> {
    fn large<'a>(&self, bodies: &'a Bodies, operation: Operation, prefix: &'a str) -> Load<'a> {
        let count = (self.options.s3_mib << 20).div_ceil(LEN).max(1);
        Load {
            operation,
            clients: CLIENTS,
            count,
            objects: count,
            keys_per_folder: 0,
            prefix,
            first: 0,
            len: LEN,
            part_len: PART_LEN,
            bodies,
            rate: None,
        }
    }

    /// PUT of bodies that nobody has seen, each repeat of other ones.
    fn put_new(&self, peers: &[Peer], bodies: &Bodies) -> Result<Runs> {
        let mut runs = Runs::default();
        for repeat in 0..self.repeats {
            let prefix = format!("new-{repeat}");
            for peer in peers {
                let load = Load {
                    first: (repeat as u64) << 20,
                    ..self.large(bodies, Operation::Put, &prefix)
                };
                runs.add(peer.name, run(peer, &load)?);
            }
        }
        Ok(runs)
    }

    fn rest(&self) {
        std::thread::sleep(Duration::from_secs(self.options.s3_idle));
    }
}

/// PUT of text: new at first, then the same again and again.
pub(super) fn text(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let ours = [Which::cairnd(), Which::cairnd_with("cairnd, level 1 at once", INLINE)];
    let peers = bench.start(&ours)?;
    let before: Vec<u64> = peers.iter().map(Peer::disk).collect::<Result<_>>()?;
    let bodies = Bodies::new(Kind::Text);
    let runs = bench.put_new(&peers, &bodies)?;
    report.table("PUT of new text, 16 MiB, 8 clients", &runs);
    let at_once: Vec<u64> = peers.iter().map(Peer::disk).collect::<Result<_>>()?;
    bench.rest();
    let disks: Vec<u64> = peers.iter().map(Peer::disk).collect::<Result<_>>()?;
    let plain = bench.repeats as u64 * bench.large(&bodies, Operation::Put, "").count * LEN;
    let mut text = format!(
        "Disk as a share of {} MiB of it, at once, and after the pause:\n",
        plain >> 20
    );
    let share = |bytes: u64, n: usize| (bytes.saturating_sub(before[n])) as f64 / plain as f64;
    for (n, peer) in peers.iter().enumerate() {
        text += &format!(
            "- {}: {:.3}, {:.3}\n",
            peer.name,
            share(at_once[n], n),
            share(disks[n], n)
        );
    }
    report.text(&text);

    let same = Bodies::new(Kind::Same);
    let mut repeated = Runs::default();
    for repeat in 0..bench.repeats {
        let prefix = format!("same-{repeat}");
        for peer in &peers {
            repeated.add(peer.name, run(peer, &bench.large(&same, Operation::Put, &prefix))?);
        }
    }
    report.table("PUT of the same text again, 16 MiB, 8 clients", &repeated);

    let what = "PUT of new text, 16 MiB, 8 clients";
    let (speed, per_cpu) = (Seen::mib_per_second, |seen: &Seen| 1.0 / seen.cpu_per_gib());
    report.at_least(
        &format!("{what}: bytes/s / MinIO"),
        runs.ratio("cairnd", OTHER, speed),
        1.0,
    );
    report.at_least(
        &format!("{what}: bytes per CPU-s / MinIO"),
        runs.ratio("cairnd", OTHER, per_cpu),
        1.0,
    );
    if let Some(other) = peers.iter().position(|peer| !peer.is_ours) {
        let disk = share(disks[0], 0) / share(disks[other], other);
        report.at_most(
            &format!("{what}: disk after {} s / MinIO", bench.options.s3_idle),
            Some(disk),
            0.5,
        );
    }
    let inline = "cairnd, level 1";
    report.at_least(
        &format!("{what}, level 1 at once: bytes/s / MinIO"),
        runs.ratio(inline, OTHER, speed),
        0.6,
    );
    report.at_least(
        &format!("{what}, level 1 at once: bytes per CPU-s / MinIO"),
        runs.ratio(inline, OTHER, per_cpu),
        0.6,
    );
    let what = "PUT of the same text again";
    report.at_least(
        &format!("{what}: bytes/s / MinIO"),
        repeated.ratio("cairnd", OTHER, speed),
        2.0,
    );
    report.at_least(
        &format!("{what}: bytes per CPU-s / MinIO"),
        repeated.ratio("cairnd", OTHER, per_cpu),
        2.0,
    );
    Ok(())
}

/// PUT of bytes that do not compress.
pub(super) fn random(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let ours = [Which::cairnd(), Which::cairnd_with("cairnd, level 1 at once", INLINE)];
    let peers = bench.start(&ours)?;
    let bodies = Bodies::new(Kind::Random);
    let runs = bench.put_new(&peers, &bodies)?;
    let what = "PUT of noise, 16 MiB, 8 clients";
    report.table(what, &runs);
    let (speed, per_cpu) = (Seen::mib_per_second, |seen: &Seen| 1.0 / seen.cpu_per_gib());
    report.at_least(
        &format!("{what}: bytes/s / MinIO"),
        runs.ratio("cairnd", OTHER, speed),
        1.2,
    );
    report.at_least(
        &format!("{what}: bytes per CPU-s / MinIO"),
        runs.ratio("cairnd", OTHER, per_cpu),
        1.2,
    );
    Ok(())
}

/// GET of text out of frames, of text out of the cache, and of noise.
pub(super) fn get(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let decoding = Which::cairnd_with("cairnd, decoding", &format!("{INLINE}\nplain_cache = 0"));
    let peers = bench.start(&[Which::cairnd(), decoding])?;
    let (text, noise) = (Bodies::new(Kind::Text), Bodies::new(Kind::Random));
    let texts = |operation| Load {
        objects: CACHED,
        ..bench.large(&text, operation, "text")
    };
    let noises = |operation| bench.large(&noise, operation, "noise");
    for peer in &peers {
        run(
            peer,
            &Load {
                count: CACHED,
                ..texts(Operation::Put)
            },
        )?;
        run(peer, &noises(Operation::Put))?;
    }
    at_rest(&peers[0])?;
    let mut runs = [Runs::default(), Runs::default()];
    // Once without a clock, to fill caches.
    for peer in &peers {
        run(peer, &texts(Operation::Get))?;
        run(peer, &noises(Operation::Get))?;
    }
    for _ in 0..bench.repeats {
        for peer in &peers {
            runs[0].add(peer.name, run(peer, &texts(Operation::Get))?);
            runs[1].add(peer.name, run(peer, &noises(Operation::Get))?);
        }
    }
    report.table(
        "GET of text, 16 MiB, 8 clients (cairnd: from the cache of plain chunks)",
        &runs[0],
    );
    report.table("GET of noise, 16 MiB, 8 clients", &runs[1]);
    let per_cpu = |seen: &Seen| 1.0 / seen.cpu_per_gib();
    let what = "GET of 16 MiB, bytes per CPU-s / MinIO";
    report.at_least(
        &format!("{what}: text, decoded"),
        runs[0].ratio("cairnd, decoding", OTHER, per_cpu),
        0.7,
    );
    report.at_least(
        &format!("{what}: text, from the cache"),
        runs[0].ratio("cairnd", OTHER, per_cpu),
        1.5,
    );
    report.at_least(&format!("{what}: noise"), runs[1].ratio("cairnd", OTHER, per_cpu), 2.0);
    Ok(())
}

/// Waits until what was put is compressed.
fn at_rest(peer: &Peer) -> Result<()> {
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(2));
        if peer.metric("s3_deferred_bytes")? < WAITING_MAX {
            return Ok(());
        }
        if begun.elapsed() > REST_WITHIN {
            return Err("what waits to be compressed is not".into());
        }
    }
}

/// What ten releases of a package take.
pub(super) fn releases(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let folder = bench.folder.join("releases");
    std::fs::create_dir(&folder)?;
    let tars = releases::tars(&folder)?;
    let peers = bench.start(&[Which::cairnd()])?;
    let mut disks = Vec::new();
    let mut plain = 0;
    for peer in &peers {
        let (before, mut client) = (peer.disk()?, peer.client()?);
        plain = 0;
        for (n, tar) in tars.iter().enumerate() {
            let bytes = std::fs::read(tar)?;
            plain += bytes.len() as u64;
            client.put_bytes(BUCKET, &format!("release-{n}.tar"), &bytes)?;
        }
        disks.push((before, peer.disk()?));
    }
    bench.rest();
    let mut text = format!("Ten releases of a package, tars of {} MiB together:\n", plain >> 20);
    let mut stored = Vec::new();
    for (peer, (before, at_once)) in peers.iter().zip(&disks) {
        let after = peer.disk()?.saturating_sub(*before);
        text += &format!(
            "- {}: {} bytes of disk at once, {after} after {} s\n",
            peer.name,
            at_once - before,
            bench.options.s3_idle
        );
        stored.push(after as f64);
        let mut client = peer.client()?;
        for (n, tar) in tars.iter().enumerate() {
            if client.get_bytes(BUCKET, &format!("release-{n}.tar"))? != std::fs::read(tar)? {
                return Err(format!("{}: a release comes back with other bytes", peer.name).into());
            }
        }
    }
    let alone = disks[0].1.saturating_sub(disks[0].0) as f64 / plain as f64;
    text += &format!("- deduplication alone (before anything is compressed): {alone:.3} of the plain bytes\n");
    report.text(&text);
    if let [ours, theirs] = stored[..] {
        report.at_most("ten releases of a package: disk / MinIO", Some(ours / theirs), 0.15);
    }
    Ok(())
}

/// The end of a long upload, whose parts have come in order, and in any.
pub(super) fn complete(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let peer = Peer::start(&Which::cairnd(), bench.folder)?;
    let bodies = Bodies::new(Kind::Random);
    let (parts, mut client) = (bench.options.s3_parts, peer.client()?);
    let size = parts * PART_LEN;
    let mut text = format!("Upload of {parts} parts of 5 MiB:\n");
    let read = || -> Result<(f64, f64)> {
        let seams = peer.metric("s3_seam_read_bytes_total")?;
        Ok((peer.metric("s3_complete_read_bytes_total")?, seams))
    };
    for (object, order) in ["in order", "in any order"].into_iter().enumerate() {
        let key = format!("parts-{object}");
        let mut numbers: Vec<u64> = (0..parts).collect();
        if object > 0 {
            fastrand::Rng::with_seed(7).shuffle(&mut numbers);
        }
        let before = read()?;
        let id = client.begin_upload(BUCKET, &key)?;
        let mut etags = vec![String::new(); parts as usize];
        for number in numbers {
            let source = Source {
                bodies: &bodies,
                object: object as u64,
                at: number * PART_LEN,
                len: PART_LEN,
            };
            etags[number as usize] = client.put_part(BUCKET, &key, &id, number + 1, source)?;
        }
        let (meter, begun) = (peer.meter()?, Instant::now());
        client.complete(BUCKET, &key, &id, &etags)?;
        let seconds = begun.elapsed().as_secs_f64();
        let (cpu, memory) = meter.end()?;
        let after = read()?;
        let (end, seams) = (after.0 - before.0, after.1 - before.1);
        text += &format!(
            "- {order}: completed in {seconds:.3} s, {cpu:.2} CPU-s, {} MiB anonymous; {end} bytes read for it, {seams} for seams before\n",
            memory >> 20
        );
        let what = format!("Complete of {} MiB in {parts} parts that came {order}", size >> 20);
        match object {
            0 => {
                report.at_most(&format!("{what}: seconds"), Some(seconds), 1.0);
                report.at_most(&format!("{what}: bytes read"), Some(end), 0.0);
            }
            _ => report.at_most(
                &format!("{what}: bytes read, share"),
                Some((end + seams) / size as f64),
                0.05,
            ),
        }
        let all = Source {
            bodies: &bodies,
            object: object as u64,
            at: 0,
            len: size,
        };
        client.get(BUCKET, &key, all)?;
    }
    report.text(&text);
    Ok(())
}
