//! The object path over the simulated disk: objects are put, copied, sent in parts and deleted while the store is collected, closed,
//! killed and loses power at any operation; a plain map says what may be there.
//!
//! What was acknowledged reads back, whole and by its chunks as the chunker over the whole cuts it; what was not is there whole or
//! not at all; each change has one event, and the events say what is there; the rows of digests are those of what is there; parts stay while their upload goes on; in the end nothing
//! is left that no name names. The calls follow each other
//! on one thread; a body may wait, stored and not yet named, while others collect. Not here: damage of what was durable, full disks
//! (`workload.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{ChecksumAlgorithm, ChunkSizes, Chunker, DigestAlgorithm, Level};
use cairn_store::sim::runs::Simulated;
use cairn_store::sim::{Counts, Faults};
use cairn_store::{PackEngine, PackOptions, RangeOptions, StoreName, SyncPolicy};

use super::process::{Crash, Machine, Outcome, Process, ensure, say};
use super::rows::{SimRows, check_pages};
use crate::collector::{CollectControl, CollectOptions, Collector, Roots, squeeze};
use crate::names::{
    Bucket, BucketName, Cause, Condition, Current, Deleted, DigestFunction, Durability, FixedSurroundings, List,
    Listed, Names, NewBucket, ObjectKey, Owner, PartNumber, Shard, Upload, UploadRecord, check_digests,
};
use crate::{
    Body, Compression, Database, DigestsWanted, Error, ListedPart, ObjectOptions, Objects, SnapshotPolicy, Tenant,
};

const KEYS: usize = 6;
/// Keys from here on are in the bucket that is acknowledged early.
const EARLY_FROM: usize = 4;
const BODIES: usize = 3;
const UPLOADS: usize = 2;
const PACK_LEN: u64 = 32 << 10;
/// When all happens, and when all leases have run out, in seconds since 1970 UTC.
const NOW: u64 = 1000;
const LATER: u64 = 1_000_000;
/// Longer than a run takes: no chunk that an upload was told of is condemned while the process lives. Runs without it may be told
/// that chunks have gone.
const LEASE_WINDOW: Duration = Duration::from_secs(3600);

/// The store while it is open.
#[derive(Clone, Debug)]
pub(super) struct Live {
    packs: Arc<PackEngine>,
    kv: Arc<Database<SimRows>>,
    objects: Arc<Objects>,
    collector: Arc<Collector<SimRows>>,
    /// The one that is durable when it is acknowledged, and the one that is not.
    buckets: [Bucket; 2],
}

impl Live {
    /// Where a key is.
    fn bucket(&self, key: usize) -> &Bucket {
        &self.buckets[usize::from(is_early(key))]
    }
}

/// A body that waits to be named.
struct Waiting {
    key: usize,
    bytes: Bytes,
    body: Body,
}

/// An upload as its sender knows it: parts that were acknowledged, and those of which nobody knows.
struct Sending {
    key: usize,
    upload: Upload,
    parts: BTreeMap<u64, Option<Bytes>>,
}

/// What a key may have.
type May = Vec<Option<Bytes>>;

pub(super) struct World {
    machine: Machine,
    sync: SyncPolicy,
    /// Of the bucket that is acknowledged early.
    early: Durability,
    compression: Compression,
    steps: u32,
    window: Duration,
    live: Option<Live>,
    keys: Vec<May>,
    /// What keys had before changes that a power cut may take.
    before: Vec<May>,
    bodies: Vec<Waiting>,
    uploads: Vec<Sending>,
    collected: u64,
    completed: u64,
    squeezed: u64,
    /// Changes that were acknowledged and are durable, those that a power cut may take, and those of which nobody knows.
    changes: u64,
    early_changes: u64,
    doubts: u64,
}

fn sizes() -> ChunkSizes {
    ChunkSizes::new(64, 256, 1024).expect("they fit together")
}

/// Bytes of all runs, whose pieces are contents: equal pieces come again and again.
fn stream() -> &'static Bytes {
    static ALL: OnceLock<Bytes> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut bytes = vec![0; 24 << 10];
        fastrand::Rng::with_seed(5).fill(&mut bytes);
        bytes[4000..9000].fill(0);
        // Some of it shrinks.
        bytes[12_000..20_000]
            .iter_mut()
            .for_each(|byte| *byte = b'a' + *byte % 8);
        bytes.into()
    })
}

fn key(n: usize) -> ObjectKey {
    ObjectKey::new(format!("folder/{n}")).expect("a short key")
}

/// Whether a key is in the bucket that is acknowledged early.
fn is_early(n: usize) -> bool {
    n >= EARLY_FROM
}

fn owner() -> Owner {
    Owner::new("me").expect("a short name")
}

impl Simulated for World {
    const COUNTED: &'static [&'static str] = &["openings", "collections", "completed uploads", "squeezed packs"];

    fn new(seed: u64, talk: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (faults, _) = Faults::drawn(&mut random, 3, [50, 100, 200, 400], 2);
        let faults = Faults {
            misdirected: 0,
            ..faults
        };
        Self {
            sync: [SyncPolicy::Sync, SyncPolicy::Batch, SyncPolicy::None][(seed % 3) as usize],
            early: [Durability::Batch, Durability::Volatile][(seed / 3 % 2) as usize],
            compression: match seed % 5 {
                0..3 => Compression::Deferred,
                _ => Compression::Level(1),
            },
            steps: random.u32(20..90),
            window: if seed % 4 < 2 { Duration::ZERO } else { LEASE_WINDOW },
            machine: Machine::new(random, faults, talk),
            live: None,
            keys: vec![vec![None]; KEYS],
            before: vec![Vec::new(); KEYS],
            bodies: Vec::new(),
            uploads: Vec::new(),
            collected: 0,
            completed: 0,
            squeezed: 0,
            changes: 0,
            early_changes: 0,
            doubts: 0,
        }
    }

    fn disk(&self) -> Counts {
        self.machine.disk.counts()
    }

    fn counts(&self) -> Vec<u64> {
        vec![self.machine.reopened, self.collected, self.completed, self.squeezed]
    }

    fn run(&mut self) -> Outcome {
        self.do_steps(self.steps)?;
        self.finish()
    }
}

impl Process for World {
    type Opened = Live;
    type Error = Error;

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn forget(&mut self) {
        self.bodies.clear();
        self.live = None;
    }

    /// A power cut may take what was acknowledged early, back to any change since something was synced; uploads of that bucket are given up.
    fn crashed(&mut self, crash: Crash) {
        if crash == Crash::Killed {
            return;
        }
        for (may, before) in self.keys.iter_mut().zip(&mut self.before) {
            may.append(before);
        }
        self.uploads.retain(|sending| !is_early(sending.key));
        self.doubts += std::mem::take(&mut self.early_changes);
    }

    fn rows_lost_in(&self) -> Option<u32> {
        Some(6)
    }

    fn try_open(&self) -> crate::Result<Live> {
        self.opened()
    }

    fn take_up(&mut self, live: Live) -> Outcome {
        self.live = Some(live);
        say!(self, "opened");
        self.look(true)
    }

    fn one_step(&mut self) -> Outcome {
        match self.machine.random.u32(..100) {
            0..25 => self.store(),
            25..40 => self.name(),
            40..45 => self.delete(),
            45..50 => self.copy(),
            50..67 => self.send_part(),
            67..72 => self.complete(),
            72..74 => self.abort(),
            74..83 => self.collect(),
            83..86 => self.squeeze(),
            86..88 => self.sync_early(),
            88..91 => self.look(false),
            91..92 => self.close(),
            92..94 => self.kill(),
            _ => {
                self.machine.disk.cut_soon(&mut self.machine.random, 120);
                Ok(())
            }
        }
    }
}

impl World {
    fn live(&self) -> Live {
        self.live.clone().expect("the store is open between openings")
    }

    /// Bytes of some content: inlined, one chunk, some chunks, more than a row names.
    fn content(&mut self, least: usize) -> Bytes {
        let most = [40, 300, 3000, 20_000][self.machine.random.usize(..4)];
        let len = self.machine.random.usize(least..=most.max(least + 1));
        let from = self.machine.random.usize(..=(stream().len() - len) / 256) * 256;
        stream().slice(from..from + len)
    }

    fn write(&mut self, live: &Live, key: usize, bytes: &[u8], of_part: bool) -> crate::Result<Body> {
        let wanted = DigestsWanted {
            md5: true,
            checksums: vec![ChecksumAlgorithm::Sha256],
        };
        let mut writer = match of_part {
            true => live.objects.part_writer(live.bucket(key), &wanted)?,
            false => live.objects.writer(live.bucket(key), &wanted)?,
        };
        let piece = self.machine.random.usize(1..5000);
        for piece in bytes.chunks(piece) {
            writer.push(piece)?;
            if self.machine.random.u32(..60) == 0 {
                return Err(Error::Stopped);
            }
        }
        writer.finish()
    }

    fn store(&mut self) -> Outcome {
        let (live, key, bytes) = (self.live(), self.machine.random.usize(..KEYS), self.content(0));
        match self.write(&live, key, &bytes, false) {
            Ok(body) => {
                say!(self, "stored {} bytes for {key}", bytes.len());
                if self.bodies.len() == BODIES {
                    self.bodies.remove(0);
                }
                self.bodies.push(Waiting { key, bytes, body });
                // What fences are for: what it found is collected before it is named.
                if self.window.is_zero() && self.machine.random.u32(..6) == 0 {
                    self.collect()?;
                    return self.name();
                }
                if self.machine.random.bool() {
                    self.name()
                } else {
                    Ok(())
                }
            }
            Err(error) => {
                self.failed("storing failed", &error);
                Ok(())
            }
        }
    }

    /// A body that waits is named, and what it replaces may still be there if that fails.
    fn name(&mut self) -> Outcome {
        let Some(Waiting { key: n, bytes, body }) = self.bodies.pop() else {
            return Ok(());
        };
        let named = body.put(&key(n), &owner(), |_| {}, &Condition::Always, &Cause::default());
        self.become_of(n, Some(bytes), named.map(|_| 1))
    }

    /// - `value`: what the key has if it worked.
    /// - `done`: how many events that made.
    fn become_of(&mut self, n: usize, value: Option<Bytes>, done: crate::Result<u64>) -> Outcome {
        let len = value.as_ref().map(Bytes::len);
        match done {
            Ok(events) => {
                say!(self, "{n} has {len:?} bytes");
                let before = std::mem::replace(&mut self.keys[n], vec![value]);
                if is_early(n) {
                    self.before[n].extend(before);
                    self.early_changes += events;
                } else {
                    self.changes += events;
                    // What is nothing is not written.
                    if events > 0 {
                        self.note_sync(n);
                    }
                }
            }
            Err(Error::ChunksMissing { ids }) => {
                ensure!(
                    self.window.is_zero(),
                    "{} chunks of an upload that goes on were collected",
                    ids.len()
                );
            }
            Err(error) => {
                self.failed("naming failed", &error);
                self.doubts += 1;
                self.keys[n].push(value);
            }
        }
        Ok(())
    }

    /// What was acknowledged before a change of this key is durable, if that is.
    fn note_sync(&mut self, n: usize) {
        if !is_early(n) {
            self.note_synced();
        }
    }

    fn note_synced(&mut self) {
        self.before.iter_mut().for_each(Vec::clear);
        self.changes += std::mem::take(&mut self.early_changes);
    }

    /// What a server does a moment after it has acknowledged something early.
    fn sync_early(&mut self) -> Outcome {
        match self.live().packs.sync_early() {
            Ok(()) if self.early == Durability::Batch => self.note_synced(),
            Ok(()) => {}
            Err(error) => self.failed("syncing failed", &error),
        }
        Ok(())
    }

    /// Compresses what came in raw blocks, as a server does when nobody writes.
    fn squeeze(&mut self) -> Outcome {
        let (live, level) = (self.live(), Level::new(3));
        let squeezed = squeeze(
            &live.kv,
            &live.packs,
            level,
            &|_| Duration::ZERO,
            &CollectControl::new(),
        );
        say!(self, "squeeze: {squeezed:?}");
        match squeezed {
            Ok(report) => self.squeezed += report.packs_removed as u64,
            Err(error) => self.failed("squeezing failed", &error),
        }
        Ok(())
    }

    fn delete(&mut self) -> Outcome {
        let (live, n) = (self.live(), self.machine.random.usize(..KEYS));
        let objects = live.objects.names().objects(live.bucket(n));
        let deleted = objects.delete(&key(n), None, &owner(), &Condition::Always, &Cause::default());
        let events = |deleted: Deleted| u64::from(deleted != Deleted::Nothing);
        self.become_of(n, None, deleted.map(events))
    }

    fn copy(&mut self) -> Outcome {
        let (live, from, to) = (
            self.live(),
            self.machine.random.usize(..KEYS),
            self.machine.random.usize(..KEYS),
        );
        let copied = || -> crate::Result<Option<Body>> {
            let version = match live.objects.names().objects(live.bucket(from)).get(&key(from))? {
                Current::Object(version) => version,
                Current::Deleted(_) | Current::Nothing => return Ok(None),
            };
            live.objects
                .copy(live.bucket(from), &version, live.bucket(to))
                .map(Some)
        };
        match copied() {
            Ok(Some(body)) => {
                let [Some(bytes)] = &self.keys[from][..] else {
                    return Ok(());
                };
                let bytes = bytes.clone();
                let named = body.put(&key(to), &owner(), |_| {}, &Condition::Always, &Cause::default());
                self.become_of(to, Some(bytes), named.map(|_| 1))
            }
            Ok(None) => Ok(()),
            Err(error) => {
                self.failed("copying failed", &error);
                Ok(())
            }
        }
    }

    fn send_part(&mut self) -> Outcome {
        let live = self.live();
        if self.uploads.len() < UPLOADS && self.machine.random.u32(..3) == 0 || self.uploads.is_empty() {
            let n = self.machine.random.usize(..KEYS);
            match live
                .objects
                .names()
                .uploads(live.bucket(n))
                .begin(&key(n), UploadRecord::of(owner()))
            {
                Ok(upload) => self.uploads.push(Sending {
                    key: n,
                    upload,
                    parts: BTreeMap::new(),
                }),
                Err(error) => {
                    self.failed("beginning failed", &error);
                    return Ok(());
                }
            }
        }
        let (at, number) = (
            self.machine.random.usize(..self.uploads.len()),
            self.machine.random.u64(1..6),
        );
        let bytes = self.content(100);
        let (key, upload) = (self.uploads[at].key, self.uploads[at].upload.clone());
        let sent = self.write(&live, key, &bytes, true).and_then(|body| {
            let number = PartNumber::new(number).expect("it is in range");
            body.put_part(&upload, number, None)
        });
        match sent {
            Ok(part) => {
                say!(self, "part {number} of {} has {} bytes", upload.id, part.size);
                self.uploads[at].parts.insert(number, Some(bytes));
                self.note_sync(key);
            }
            Err(Error::ChunksMissing { ids }) => {
                ensure!(
                    self.window.is_zero(),
                    "{} chunks of a part that goes on were collected",
                    ids.len()
                );
            }
            // Nothing was asked to become a part.
            Err(Error::Stopped) => {}
            Err(error) => {
                self.failed("sending a part failed", &error);
                self.uploads[at].parts.insert(number, None);
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Outcome {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let (live, at) = (self.live(), self.machine.random.usize(..self.uploads.len()));
        let sending = self.uploads.remove(at);
        let sure: Vec<(u64, Bytes)> = sending
            .parts
            .iter()
            .filter_map(|(number, bytes)| Some((*number, bytes.clone()?)))
            .collect();
        if sure.is_empty() {
            self.uploads.push(sending);
            return Ok(());
        }
        let listed: Vec<ListedPart> = sure
            .iter()
            .map(|(number, _)| ListedPart {
                number: PartNumber::new(*number).expect("it is in range"),
                etag: None,
                checksum: None,
            })
            .collect();
        let whole: Vec<u8> = sure.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        let (condition, cause) = (Condition::Always, Cause::default());
        let done = live.objects.complete(
            live.bucket(sending.key),
            &sending.upload,
            &listed,
            |_| {},
            &condition,
            &cause,
        );
        say!(self, "completed {:?}", done.as_ref().map(|done| done.bytes_read));
        match done {
            Err(Error::NoPart { number }) => return Err(format!("part {number} is lost")),
            Err(Error::NoUpload { upload, .. }) => return Err(format!("upload {upload} is lost")),
            _ => {}
        }
        self.completed += u64::from(done.is_ok());
        self.become_of(sending.key, Some(whole.into()), done.map(|_| 1))
    }

    fn abort(&mut self) -> Outcome {
        if let Some(sending) = self.uploads.pop() {
            let live = self.live();
            let uploads = live.objects.names().uploads(live.bucket(sending.key));
            if let Err(error) = uploads.abort(&sending.upload.key, sending.upload.id) {
                self.failed("giving up failed", &error);
            }
        }
        Ok(())
    }

    fn collect_options(now: u64) -> CollectOptions {
        CollectOptions {
            roots: Roots::Rooted,
            now,
            grace: Duration::ZERO,
            reserve: false,
            dead_share_max: 0.1,
            snapshots: SnapshotPolicy {
                bytes_min: 4000,
                held_min: 4000,
                growth: 1.0,
            },
            ..CollectOptions::default()
        }
    }

    fn collect(&mut self) -> Outcome {
        let live = self.live();
        let collected = live
            .collector
            .collect(&Self::collect_options(NOW), &CollectControl::new());
        say!(self, "collect: {collected:?}");
        match collected {
            Ok(_) => self.collected += 1,
            Err(error) => self.failed("collecting failed", &error),
        }
        Ok(())
    }

    /// Looks at every key, and at the chunks of what it has.
    ///
    /// - `calm`: no fault can be the reason of an error.
    fn look(&mut self, calm: bool) -> Outcome {
        let live = self.live();
        for n in 0..KEYS {
            let found = match read(&live, n) {
                Ok(found) => found,
                Err(error) => {
                    ensure!(!calm, "key {n} cannot be read: {error:?}");
                    self.failed("reading failed", &error);
                    continue;
                }
            };
            let bytes = found.as_ref().map(|(bytes, _)| bytes.clone());
            let lens = |may: &May| may.iter().map(|may| may.as_ref().map(Bytes::len)).collect::<Vec<_>>();
            ensure!(
                self.keys[n].contains(&bytes),
                "key {n} has {:?} bytes, and not those of {:?}",
                bytes.as_ref().map(Bytes::len),
                lens(&self.keys[n])
            );
            if let Some((bytes, chunks)) = found {
                ensure!(
                    chunks == cut(&bytes),
                    "key {n} is cut into other chunks than its bytes are"
                );
            }
            if calm {
                self.keys[n] = vec![bytes];
            }
        }
        if calm {
            let rows = check_digests(live.objects.names().kv().as_ref());
            rows.map_err(|error| format!("rows cannot be read: {error:?}"))??;
            self.look_at_events(&live)?;
        }
        Ok(())
    }

    /// Each change that was acknowledged has one event, and the last of a key says what it has.
    fn look_at_events(&self, live: &Live) -> Outcome {
        let words = |error: Error| format!("events cannot be read: {error:?}");
        let tenant = Tenant::default();
        let outbox = live.objects.names().outbox(&tenant);
        let (mut count, mut told) = (0, BTreeMap::new());
        for shard in Shard::all() {
            let mut after = 0;
            loop {
                let events = outbox.read(shard, after, 1000).map_err(words)?;
                let Some((last, _)) = events.last() else { break };
                after = *last;
                for (_, event) in events {
                    count += 1;
                    let etag = event.payload.get("etag").and_then(|etag| etag.as_str());
                    told.insert(event.aggregate_id.clone(), etag.map(str::to_owned));
                }
            }
        }
        let sure = self.changes + self.early_changes;
        let expected = sure..=sure + self.doubts;
        ensure!(expected.contains(&count), "{count} events of {expected:?} changes");
        for n in 0..KEYS {
            let bucket = live.bucket(n);
            let objects = live.objects.names().objects(bucket);
            let etag = match objects.get(&key(n)).map_err(words)? {
                Current::Object(version) => version.object().map(|record| record.etag.to_string()),
                Current::Deleted(_) | Current::Nothing => None,
            };
            let told = told.get(&format!("{}/{}", bucket.name(), key(n)));
            let told = told.cloned().flatten();
            ensure!(etag == told, "key {n} has {etag:?}, and {told:?} by its events");
        }
        Ok(())
    }

    fn opened(&self) -> crate::Result<Live> {
        let pack_options = PackOptions {
            sync: self.sync,
            pack_len: PACK_LEN,
            queue_len: 12 << 10,
            read_gap: 600,
            read_len: 4 << 10,
            ..PackOptions::default()
        };
        let disk = Arc::new(self.machine.disk.clone());
        let (packs, _) = PackEngine::open_on(StoreName::new("sim"), disk, pack_options, self.machine.rows.clone())?;
        let packs = Arc::new(packs);
        let kv = Arc::new(Database::logged(self.machine.rows.clone(), packs.clone()));
        let collector = Arc::new(Collector::new(kv.clone(), packs.clone(), self.window)?);
        // Ids would come again if chance did.
        let chance = self.machine.step ^ self.machine.disk.counts().operations << 20;
        let surroundings = Arc::new(FixedSurroundings::new(NOW * 1000, chance));
        let options = ObjectOptions {
            compression: self.compression,
            block_len: (2048, 2048),
            digest_here_len: 1 << 20,
            part_len_min: 1,
            ranges: RangeOptions {
                ahead: 0,
                pages: 8,
                proven_for: None,
                ..RangeOptions::default()
            },
            ..ObjectOptions::default()
        };
        let names = Names::with_surroundings(kv.clone(), surroundings);
        let objects = Objects::new(names, packs.clone(), options);
        let tenant = Tenant::default();
        let bucket = |name: &str, durability: Durability| {
            let (buckets, name) = (objects.names().buckets(&tenant), BucketName::new(name)?);
            match buckets.get(&name) {
                Err(Error::NoBucket { .. }) => {
                    let mut new = NewBucket::of(owner());
                    new.settings.chunk_sizes = sizes();
                    new.settings.inline_len = 50;
                    new.settings.durability = durability;
                    // Those in parts wait for theirs in rows of their own.
                    new.settings.digests = vec![DigestFunction::Blake3];
                    buckets.create(&name, new)
                }
                bucket => bucket,
            }
        };
        let buckets = [bucket("bucket", Durability::Sync)?, bucket("early", self.early)?];
        Ok(Live {
            packs,
            kv,
            objects,
            collector,
            buckets,
        })
    }

    /// All faults are over: everything is still there, and in the end nothing is left.
    fn finish(&mut self) -> Outcome {
        self.machine.disk.set_calm(true);
        self.close()?;
        self.machine.disk.set_calm(true);
        while !self.uploads.is_empty() {
            if self.uploads[0].parts.values().all(Option::is_none) {
                self.uploads.remove(0);
                continue;
            }
            self.complete()?;
        }
        self.look(true)?;
        let live = self.live();
        let words = |error: Error| format!("on a good disk: {error:?}");
        for bucket in &live.buckets {
            let uploads = live.objects.names().uploads(bucket);
            let list = List {
                limit: 1000,
                ..List::default()
            };
            for listed in uploads.list(&list, None).map_err(words)?.0 {
                if let Listed::Item(upload) = listed {
                    uploads.abort(&upload.key, upload.id).map_err(words)?;
                }
            }
        }
        for n in 0..KEYS {
            let objects = live.objects.names().objects(live.bucket(n));
            let deleted = objects.delete(&key(n), None, &owner(), &Condition::Always, &Cause::default());
            self.changes += u64::from(deleted.map_err(words)? != Deleted::Nothing);
        }
        drop(live);
        self.keys = vec![vec![None]; KEYS];
        // What was asked for lately is forgotten.
        self.close()?;
        self.machine.disk.set_calm(true);
        let live = self.live();
        // What the first one gives up may be read for a while.
        for now in [LATER, 2 * LATER] {
            let collected = live
                .collector
                .collect(&Self::collect_options(now), &CollectControl::new());
            say!(self, "collect: {collected:?}");
            collected.map_err(words)?;
        }
        let table = self.machine.rows.table();
        let left = table.places.len();
        ensure!(left == 0, "{left} chunks are left that no name names");
        check_pages(&table.rows)?;
        let used = live
            .objects
            .names()
            .buckets(&Tenant::default())
            .usage()
            .map_err(words)?;
        ensure!(
            (used.objects, used.versions, used.bytes) == (0, 0, 0),
            "counters of nothing say {used:?}"
        );
        Ok(())
    }
}

type Chunks = Vec<(cairn_formats::ChunkId, u32)>;

/// What a key has, whole, and its chunks.
fn read(live: &Live, n: usize) -> crate::Result<Option<(Bytes, Chunks)>> {
    let bucket = live.bucket(n);
    let version = match live.objects.names().objects(bucket).get(&key(n))? {
        Current::Object(version) => version,
        Current::Deleted(_) | Current::Nothing => return Ok(None),
    };
    let tenant = bucket.tenant();
    let Some(record) = version.object() else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    for piece in live.objects.read(tenant, &record.content, 0..record.size)? {
        bytes.extend_from_slice(&piece?);
    }
    let chunks = live.objects.chunks(tenant, &record.content)?;
    let chunks = chunks.into_iter().map(|chunk| (chunk.id, chunk.len)).collect();
    Ok(Some((bytes.into(), chunks)))
}

/// The chunks that the chunker makes of the whole.
fn cut(bytes: &[u8]) -> Chunks {
    let (mut chunker, mut rest, mut chunks) = (Chunker::new(sizes(), Default::default()), bytes, Vec::new());
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(chunker.cut(rest).unwrap_or(rest.len()));
        chunks.push((DigestAlgorithm::default().id(chunk), chunk.len() as u32));
        rest = behind;
    }
    chunks
}
