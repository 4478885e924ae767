//! Collection in `cairnd`: what indexes name stays, the rest goes, whatever stops the server and whoever uploads meanwhile.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../../gateway/roots/tests/client/mod.rs"]
mod client;
mod daemon;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Client, Sample, files};
use daemon::{Daemon, command, index_of, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

/// A rooted store with small packs. With `seconds` between collections, 0 for none.
fn rooted(seconds: u64) -> String {
    format!(
        "[stores.default]\nwritable = true\nrooted = true\npack_len = 1048576\n\
         [collect]\ninterval_seconds = {seconds}\nlease_seconds = 1\ngrace_seconds = 0\n"
    )
}

fn sample(seed: u64) -> Sample {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = random.usize(1..20_000);
    let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
    Sample::new(&plain)
}

fn samples(seeds: std::ops::Range<u64>) -> Vec<Sample> {
    seeds.map(sample).collect()
}

fn path(sample: &Sample) -> String {
    format!("/store/default{}", sample.frame_path())
}

fn put_all(client: &mut Client, samples: &[Sample]) {
    for sample in samples {
        assert_eq!(client.ask("PUT", &path(sample), &[], &sample.frame).status, 200);
    }
}

/// Puts an index; chunks that it lacks are sent and it is put again. Returns how often.
fn put_index(client: &mut Client, name: &str, samples: &[Sample]) -> usize {
    let refs: Vec<&Sample> = samples.iter().collect();
    let index = index_of(&refs);
    for again in 0.. {
        let answer = client.ask("PUT", &format!("/index/default/{name}.caibx"), &[], &index);
        match answer.status {
            200 => return again,
            409 => {
                let text = answer.text();
                let missing: Vec<&Sample> = refs
                    .iter()
                    .filter(|sample| text.contains(&sample.hex))
                    .copied()
                    .collect();
                assert!(!missing.is_empty(), "{text}");
                for sample in missing {
                    assert_eq!(client.ask("PUT", &path(sample), &[], &sample.frame).status, 200);
                }
            }
            status => panic!("{status}: {}", answer.text()),
        }
    }
    unreachable!()
}

#[track_caller]
fn assert_all(client: &mut Client, samples: &[Sample], expected: u16) {
    for (n, sample) in samples.iter().enumerate() {
        let answer = client.ask("GET", &path(sample), &[], b"");
        assert_eq!(answer.status, expected, "chunk {n}, {}", sample.hex);
        assert!(expected != 200 || answer.body == sample.frame);
    }
}

/// Waits for a collection that began when all leases on what was put or asked for before had ended: a touch is remembered for two
/// lease times, and there is a second between two collections.
fn wait_for_collections(daemon: &Daemon) {
    let before = daemon.collections();
    wait_until("collections", || daemon.collections() >= before + 4);
}

fn pack_bytes(data: &Path) -> u64 {
    let store = data.join("packs/default");
    let packs = files(&store)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "pack"));
    // One may go at any moment.
    packs
        .map(|file| store.join(file).metadata().map_or(0, |pack| pack.len()))
        .sum()
}

fn index_file(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(format!("data/index/default/{name}.caibx"))
}

#[test]
fn what_indexes_name_stays_and_the_rest_goes() {
    let daemon = Daemon::start(&rooted(0));
    let all = samples(0..620);
    let mut client = Client::connect(daemon.public);
    put_all(&mut client, &all[..600]);
    assert_eq!(put_index(&mut client, "a", &all[..40]), 0);
    assert_eq!(put_index(&mut client, "deep/b", &all[30..560]), 0);
    // An index whose chunks are not there is refused, and names them.
    let refused = client.ask("PUT", "/index/default/c.caibx", &[], &index_of(&[&all[0], &all[610]]));
    let text = refused.text();
    assert_eq!(refused.status, 409, "{text}");
    assert!(text.contains(&all[610].hex) && !text.contains(&all[0].hex), "{text}");
    assert_eq!(daemon.status("GET", "/index/default/c.caibx", b""), 404);

    daemon.configure(&rooted(1));
    wait_for_collections(&daemon);
    assert_all(&mut client, &all[..560], 200);
    assert_all(&mut client, &all[560..600], 404);
    let page = daemon.metrics();
    assert!(page.contains("gc_chunks_deleted_total{store=\"default\"} 40"), "{page}");
    let bytes = |samples: &[Sample]| samples.iter().map(|sample| sample.plain.len()).sum::<usize>() as f64;
    let logical = bytes(&all[..40]) + bytes(&all[30..560]);
    for (name, value) in [
        ("store_logical_bytes", logical),
        ("store_dedup_ratio", logical / bytes(&all[..560])),
    ] {
        let line = format!("{name}{{store=\"default\"}} {value}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    assert_eq!(daemon.status("HEAD", &path(&all[570]), b""), 404);
    let before = pack_bytes(&daemon.data());

    // One is replaced, one deleted: what neither names goes, and its room comes back.
    assert_eq!(put_index(&mut client, "a", &all[..10]), 0);
    assert_eq!(daemon.status("DELETE", "/index/default/deep/b.caibx", b""), 200);
    assert_eq!(daemon.status("DELETE", "/index/default/deep/b.caibx", b""), 404);
    assert_eq!(daemon.status("DELETE", "/index/default/none/b.caibx", b""), 404);
    wait_for_collections(&daemon);
    assert_all(&mut client, &all[..10], 200);
    assert_all(&mut client, &all[10..600], 404);
    // A mebibyte may be held by batches of the index that are in no snapshot yet.
    let after = pack_bytes(&daemon.data());
    assert!(after * 3 < before, "{after} of {before} bytes are left");
    // What is gone can be put again, and named.
    assert!(put_index(&mut client, "b", &all[50..100]) > 0);
    wait_for_collections(&daemon);
    assert_all(&mut client, &all[50..100], 200);
    // Paused is paused.
    daemon.configure(&(rooted(1) + "paused = true\n"));
    daemon.wait_for_log("was read again", 2);
    assert_eq!(daemon.status("DELETE", "/index/default/a.caibx", b""), 200);
    assert_all(&mut client, &all[..10], 200);
    daemon.configure(&rooted(1));
    wait_until("the rest goes", || daemon.status("GET", &path(&all[0]), b"") == 404);
}

/// Goal: index files that come and go by hand count too; one that is none stops collections.
#[test]
fn files_that_come_and_go_by_hand_count() {
    let daemon = Daemon::start(&rooted(0));
    let all = samples(0..40);
    let mut client = Client::connect(daemon.public);
    put_all(&mut client, &all);
    put_index(&mut client, "a", &all[..20]);
    let folder = daemon.leave();
    let refs: Vec<&Sample> = all[20..30].iter().collect();
    fs::write(index_file(&folder, "by-hand"), index_of(&refs)).unwrap();
    fs::write(index_file(&folder, "broken"), "no index").unwrap();
    let daemon = Daemon::start_in(folder, &rooted(1), &[]);
    daemon.wait_for_log("broken.caibx", 1);
    let mut client = Client::connect(daemon.public);
    assert_all(&mut client, &all, 200);
    let folder = daemon.leave();
    fs::remove_file(index_file(&folder, "broken")).unwrap();
    let daemon = Daemon::start_in(folder, &rooted(1), &[]);
    wait_for_collections(&daemon);
    let mut client = Client::connect(daemon.public);
    assert_all(&mut client, &all[..30], 200);
    assert_all(&mut client, &all[30..], 404);
    fs::remove_file(daemon.data().join("index/default/a.caibx")).unwrap();
    wait_for_collections(&daemon);
    assert_all(&mut client, &all[..20], 404);
    assert_all(&mut client, &all[20..30], 200);
}

/// Goal: a wiped index comes back from packs and index files, and nothing that was deleted does.
#[test]
fn a_wiped_index_brings_nothing_back_that_was_deleted() {
    let daemon = Daemon::start(&rooted(1));
    let all = samples(0..300);
    let mut client = Client::connect(daemon.public);
    for n in 0..6 {
        put_index(&mut client, &format!("{n}"), &all[50 * n..50 * (n + 1)]);
    }
    for n in [1, 3, 4] {
        assert_eq!(daemon.status("DELETE", &format!("/index/default/{n}.caibx"), b""), 200);
    }
    wait_for_collections(&daemon);
    let check = |client: &mut Client| {
        for n in 0..6 {
            let expected = if [1, 3, 4].contains(&n) { 404 } else { 200 };
            assert_all(client, &all[50 * n..50 * (n + 1)], expected);
        }
    };
    check(&mut client);
    let mut folder = daemon.leave();
    for _again in 0..2 {
        fs::remove_dir_all(folder.path().join("data/packs/default/places")).unwrap();
        let daemon = Daemon::start_in(folder, &rooted(1), &[]);
        assert!(daemon.log().contains("built anew from the packs"), "{}", daemon.log());
        let mut client = Client::connect(daemon.public);
        check(&mut client);
        wait_for_collections(&daemon);
        check(&mut client);
        assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
        folder = daemon.leave();
    }
}

/// Goal: an index that was acknowledged has its chunks, whenever the server is killed while it collects without a pause.
/// Method: clients put chunks and indexes of overlapping parts, and delete some; the server is killed after a random number of
/// answers and started again. `CAIRN_KILLS` sets how often.
#[test]
fn kills_while_it_collects_lose_no_chunk_that_an_index_names() {
    let kills: u64 = std::env::var("CAIRN_KILLS").map_or(4, |text| text.parse().expect("CAIRN_KILLS is a number"));
    let all = samples(0..60);
    let mut random = fastrand::Rng::with_seed(11);
    let config = rooted(1);
    let mut folder = tempfile::tempdir().unwrap();
    // What each name was said to have last: `None` where an answer did not come, and both may be.
    let known: Mutex<BTreeMap<String, Option<std::ops::Range<usize>>>> = Mutex::default();
    for kill in 0..kills {
        let daemon = Daemon::start_in(folder, &config, &[]);
        let answers = Mutex::new(0);
        let (done, wanted) = (AtomicBool::new(false), random.usize(20..200));
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (daemon, all, known, answers, done) = (&daemon, &all, &known, &answers, &done);
                let mut random = fastrand::Rng::with_seed(kill * 100 + writer as u64);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let name = format!("{writer}-{}", random.u8(..3));
                        known.lock().unwrap().insert(name.clone(), None);
                        let from = random.usize(..50);
                        let part = from..from + 10;
                        let is_delete = random.u8(..3) == 0;
                        let Some(answered) = try_write(daemon, &name, &all[part.clone()], is_delete) else {
                            return;
                        };
                        let mut known = known.lock().unwrap();
                        match is_delete {
                            true => drop(known.remove(&name)),
                            false => drop(known.insert(name, Some(part))),
                        }
                        *answers.lock().unwrap() += answered;
                    }
                });
            }
            let begun = Instant::now();
            while *answers.lock().unwrap() < wanted && begun.elapsed() < client::HANG {
                std::thread::yield_now();
            }
            daemon.signal(Signal::KILL);
            done.store(true, Ordering::Relaxed);
        });
        folder = daemon.kill();
        let daemon = Daemon::start_in(folder, &config, &[]);
        wait_for_collections(&daemon);
        let mut client = Client::connect(daemon.public);
        for (name, part) in known.lock().unwrap().iter() {
            let answer = client.ask("GET", &format!("/index/default/{name}.caibx"), &[], b"");
            if let Some(part) = part {
                let refs: Vec<&Sample> = all[part.clone()].iter().collect();
                assert!(answer.body == index_of(&refs), "{name}: {}", answer.status);
            }
            if answer.status == 200 {
                let index = cairn_formats::ChunkIndex::parse(answer.body.into()).unwrap();
                for span in index.spans() {
                    let id = span.id.to_string();
                    let status = client
                        .ask("GET", &format!("/store/default/{}/{id}.cacnk", &id[..4]), &[], b"")
                        .status;
                    assert_eq!(status, 200, "{name}: {id} after kill {kill}");
                }
            }
        }
        assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
        folder = daemon.leave();
    }
}

/// Puts chunks and index, or deletes the index; how many answers that took, `None` when the server went away.
fn try_write(daemon: &Daemon, name: &str, samples: &[Sample], is_delete: bool) -> Option<usize> {
    let refs: Vec<&Sample> = samples.iter().collect();
    let index = index_of(&refs);
    let mut client = Client::try_connect(daemon.public)?;
    let target = format!("/index/default/{name}.caibx");
    let mut answers = 0;
    loop {
        let (method, body) = if is_delete {
            ("DELETE", &[][..])
        } else {
            ("PUT", &index[..])
        };
        let answer = client.try_ask(method, &target, body)?;
        answers += 1;
        match answer.status {
            200 | 404 => return Some(answers),
            409 => {
                let text = answer.text();
                for sample in refs.iter().filter(|sample| text.contains(&sample.hex)) {
                    assert_eq!(client.try_ask("PUT", &path(sample), &sample.frame)?.status, 200);
                    answers += 1;
                }
            }
            status => panic!("{status}: {}", answer.text()),
        }
    }
}

/// Goal: a folder of packs has one server, whatever data folder it is reached from.
#[test]
fn a_second_server_on_the_packs_is_refused() {
    let daemon = Daemon::start(&rooted(0));
    let put = sample(1);
    assert_eq!(daemon.status("PUT", &path(&put), &put.frame), 200);
    let other = tempfile::tempdir().unwrap();
    let packs = daemon.data().join("packs/default");
    let config = format!("[stores.default]\nwritable = true\npath = {packs:?}\n");
    fs::write(other.path().join("cairnd.toml"), config).unwrap();
    let output = command(other.path()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("open for writing"), "{words}");
    assert_eq!(daemon.status("GET", &path(&put), b""), 200);
}

/// Clients that write at once.
const WRITERS: usize = 8;

/// Bytes of a pack while they do.
const PACK_LEN: u64 = 4 << 20;

/// Bytes of packs at which the server that does not collect is replaced by an empty one.
const UNCOLLECTED_MAX: u64 = 2 << 30;

/// What one writer has published: parts of its chunks, by the name of their index.
type Published = BTreeMap<String, Vec<Sample>>;

/// Uploads, deletes and uploads again until told to stop. Returns the bytes of chunks that it sent.
///
/// - `seed`: another one for each call.
/// - `published`: what it left the last time.
fn write_on(
    daemon: &Daemon,
    writer: usize,
    seed: u64,
    shared: &[Sample],
    published: &mut Published,
    done: &AtomicBool,
) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Client::connect(daemon.public);
    let (mut sent, mut fresh) = (0, (seed + 1) << 32);
    while !done.load(Ordering::Relaxed) {
        let name = format!("{writer}-{}", random.u8(..4));
        if random.u8(..3) == 0 {
            let status = client
                .try_ask("DELETE", &format!("/index/default/{name}.caibx"), b"")
                .unwrap()
                .status;
            assert_eq!(status, if published.remove(&name).is_some() { 200 } else { 404 });
            continue;
        }
        // Half of it is what everybody uploads, half of it new.
        let from = random.usize(..shared.len() - 20);
        let mut part: Vec<Sample> = shared[from..from + 20]
            .iter()
            .map(|one| Sample::new(&one.plain))
            .collect();
        part.extend((0..20).map(|n| sample(fresh + n)));
        fresh += 20;
        for (n, one) in part.iter().enumerate() {
            if n >= 20 || client.ask("HEAD", &path(one), &[], b"").status == 404 {
                assert_eq!(client.try_ask("PUT", &path(one), &one.frame).unwrap().status, 200);
                sent += one.frame.len() as u64;
            }
        }
        let index = index_of(&part.iter().collect::<Vec<_>>());
        loop {
            let answer = client
                .try_ask("PUT", &format!("/index/default/{name}.caibx"), &index)
                .unwrap();
            if answer.status == 200 {
                break;
            }
            assert_eq!(answer.status, 409, "{}", answer.text());
            let text = answer.text();
            for one in part.iter().filter(|one| text.contains(&one.hex)) {
                assert_eq!(client.try_ask("PUT", &path(one), &one.frame).unwrap().status, 200);
                sent += one.frame.len() as u64;
            }
        }
        published.insert(name, part);
    }
    sent
}

/// One of the two servers that eight write to in turns.
struct Side {
    config: String,
    daemon: Daemon,
    /// What each writer has published here.
    published: Vec<Published>,
    /// Of each turn: bytes sent a second.
    rates: Vec<f64>,
    sent: u64,
    cpu_seconds: f64,
}

impl Side {
    fn new(interval: u64, lease: u64) -> Self {
        let config = format!(
            "[stores.default]\nwritable = true\nrooted = true\npack_len = {PACK_LEN}\n[collect]\ninterval_seconds = {interval}\n\
             lease_seconds = {lease}\ngrace_seconds = 0\nbytes_per_second = 0\n"
        );
        let side = Self {
            daemon: Daemon::start(&config),
            config,
            published: (0..WRITERS).map(|_| Published::new()).collect(),
            rates: Vec::new(),
            sent: 0,
            cpu_seconds: 0.0,
        };
        side.daemon.signal(Signal::STOP);
        side
    }

    /// Wakes the server, has all write to it for some time, and stops it where it is.
    fn turn(&mut self, shared: &[Sample], number: u64, time: Duration) {
        self.daemon.signal(Signal::CONT);
        let (daemon, done) = (&self.daemon, &AtomicBool::new(false));
        let (begun, cpu) = (Instant::now(), daemon.cpu_seconds());
        let sent: u64 = std::thread::scope(|scope| {
            // Nothing is ever sent: it tells that a writer has ended.
            let (alive, ended) = std::sync::mpsc::channel::<()>();
            let write = |(writer, published)| {
                let (alive, seed) = (alive.clone(), number * WRITERS as u64 + writer as u64);
                scope.spawn(move || {
                    let _alive = alive;
                    write_on(daemon, writer, seed, shared, published, done)
                })
            };
            let writers: Vec<_> = self.published.iter_mut().enumerate().map(write).collect();
            drop(alive);
            // All of them end early only if all have failed.
            let _ = ended.recv_timeout(time);
            done.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        self.rates.push(sent as f64 / begun.elapsed().as_secs_f64());
        self.sent += sent;
        self.cpu_seconds += self.daemon.cpu_seconds() - cpu;
        self.daemon.signal(Signal::STOP);
    }

    /// Goes on with an empty server if this one's packs have grown too long.
    fn renew(&mut self) {
        if pack_bytes(&self.daemon.data()) < UNCOLLECTED_MAX {
            return;
        }
        self.daemon.signal(Signal::CONT);
        self.check();
        self.published.fill_with(Published::new);
        self.daemon = Daemon::start(&self.config);
        self.daemon.signal(Signal::STOP);
    }

    /// Everything that was published reads as it was put. Returns its bytes, each chunk counted once, and those of the packs.
    fn check(&self) -> (u64, u64) {
        let mut client = Client::connect(self.daemon.public);
        let mut live = BTreeMap::new();
        for (name, part) in self.published.iter().flatten() {
            let answer = client.ask("GET", &format!("/index/default/{name}.caibx"), &[], b"");
            assert!(answer.body == index_of(&part.iter().collect::<Vec<_>>()), "{name}");
            assert_all(&mut client, part, 200);
            live.extend(part.iter().map(|one| (one.hex.clone(), one.frame.len() as u64)));
        }
        assert!(!self.daemon.log().contains("ERROR"), "{}", self.daemon.log());
        (live.values().sum(), pack_bytes(&self.daemon.data()))
    }
}

/// Goal: eight writers who upload, delete and upload the same data again lose nothing while the server collects without a pause; two
/// collections later its packs are at most 5 % longer than what is named (and a pack, at the size of CI); they upload at 0.7 times the
/// rate of a server that does not collect, at least.
/// Method: the same writers at both servers in turns, the other one stopped meanwhile, so that whatever else the machine does falls
/// on both; the rate that counts is the median of the turns' ratios. `CAIRN_COLLECT_SECONDS` sets how long each is written to; the
/// full run is 600, which also holds the rate (twenty minutes, some 3 GB of disk).
#[test]
fn eight_writers_lose_nothing_and_space_comes_back() {
    let full = std::env::var("CAIRN_COLLECT_SECONDS").ok();
    let seconds: u64 = full
        .as_ref()
        .map_or(4, |text| text.parse().expect("CAIRN_COLLECT_SECONDS is a number"));
    let lease = if full.is_some() { 5 } else { 1 };
    let turn = (seconds / 6).clamp(1, 30);
    let shared = samples(0..400);
    let mut sides = [Side::new(0, lease), Side::new(1, lease)];
    for number in 0..seconds.div_ceil(turn) {
        for n in 0..2 {
            // First the one, then the other.
            let side = &mut sides[(n + number as usize) % 2];
            side.turn(&shared, number, Duration::from_secs(turn));
            side.renew();
        }
    }
    let [without, with] = sides;
    let mut ratios: Vec<f64> = with
        .rates
        .iter()
        .zip(&without.rates)
        .map(|(with, without)| with / without)
        .collect();
    println!("ratios of {turn} s each: {ratios:.2?}");
    ratios.sort_unstable_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    for (side, name) in [(&without, "without"), (&with, "with")] {
        let mean = side.rates.iter().sum::<f64>() / side.rates.len() as f64;
        println!(
            "{name} collection: {:.1} MB/s, {:.2} CPU-seconds of the server for 100 MB, {} bytes sent",
            mean / 1e6,
            side.cpu_seconds / side.sent as f64 * 1e8,
            side.sent,
        );
    }
    println!("upload rate with collection: {ratio:.2} times that without");

    without.daemon.signal(Signal::CONT);
    let (live, stored) = without.check();
    println!("without collection: {live} bytes named, {stored} in packs");
    drop(without);
    with.daemon.signal(Signal::CONT);
    // Some may have been asked for a moment ago: that is remembered for up to two lease times and a collection, which has to end
    // first; then two more.
    let ended = || with.daemon.collections();
    let before = ended();
    wait_until("collections", || ended() >= before + 3 * lease as usize + 4);
    let (live, stored) = with.check();
    println!(
        "with collection: {live} bytes named, {stored} in packs, {} collections",
        ended()
    );
    // So few bytes are live at the size of CI that the log of the index, which comes back later, is a good part of them.
    let log = if full.is_some() { 0 } else { PACK_LEN };
    assert!(
        stored * 100 <= live * 105 + log * 100,
        "{stored} bytes in packs for {live}"
    );
    assert!(full.is_none() || ratio >= 0.7, "{ratio}");
}
