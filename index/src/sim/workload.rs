//! What people, collector and scrub do to a store, all at once, and what has to be true of it then.
//!
//! Writers take the fence, send what is missing, and publish manifests under names, step by step; names are taken away; while a
//! collection, a compaction, a snapshot or a scrub goes on, all others do too. The store is closed, killed and loses power at any
//! operation of its disk, and its rows are lost now and then. The calls of all follow each other on one thread, in an order that the
//! seed gives. Not here: threads (the collector's own tests).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cairn_formats::{ChunkId, DomainId, StorableChunk};
use cairn_store::sim::runs::Simulated;
use cairn_store::sim::{Counts, Faults, chunks};
use cairn_store::{
    ChunkKey, ChunkStore as _, CompactOptions, LogPosition, PackEngine, PackOptions, PackStore, ScrubMemory,
    ScrubOptions, StoreName, SyncPolicy,
};

use super::bucket::SimBucket;
use super::process::{Crash, Machine, Outcome, Process, ensure, say};
use super::rows::{SimRows, check_pages};
use crate::collector::{CollectControl, CollectOptions, Collector, Roots, Run};
use crate::liveness::{Fence, ManifestChunk, NewManifest, Settled, drop_manifest, manifest, manifest_page};
use crate::sealed::{SnapshotPolicy, write_pieces};
use crate::{Database, Error, Tenant};

const CHUNKS: usize = 24;
const WRITERS: usize = 3;
/// Each name has one writer, who has two.
const NAMES: usize = 2 * WRITERS;
const PACK_LEN: u64 = 8 << 10;
/// Rows in a piece of a snapshot, in bytes.
const PIECE_LEN: usize = 600;
/// When all leases have run out, and nobody reads any more what was given up, in seconds since 1970 UTC.
const LATER: u64 = 10_000;
/// Works that may go on within each other.
const DEPTH: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Plan {
    sync: SyncPolicy,
    faults: Faults,
    damages: bool,
    fills_up: bool,
    rows_lost: bool,
    reserve: bool,
    steps: u32,
}

impl Plan {
    fn of(seed: u64, random: &mut fastrand::Rng) -> Self {
        let (faults, damages) = Faults::drawn(random, 3, [100, 200, 400, 800], 5);
        Self {
            sync: [SyncPolicy::Sync, SyncPolicy::Batch, SyncPolicy::None][(seed % 3) as usize],
            faults,
            damages,
            fills_up: random.u32(..3) == 0,
            rows_lost: random.bool(),
            reserve: random.bool(),
            steps: random.u32(30..140),
        }
    }
}

/// The store while it is open.
#[derive(Clone, Debug)]
struct Live {
    packs: Arc<PackEngine>,
    kv: Arc<Database<SimRows>>,
    store: PackStore,
    collector: Arc<Collector<SimRows>>,
}

/// How far a writer has come.
#[derive(Clone, Debug, Default)]
enum Writer {
    #[default]
    Idle,
    /// It knows what is there, and has sent the rest.
    Sent {
        name: usize,
        keys: Vec<usize>,
        fence: Fence,
    },
    Flushed {
        name: usize,
        keys: Vec<usize>,
        fence: Fence,
    },
}

/// What a name may have: its chunks, or nothing.
type Names = Option<Vec<usize>>;

pub(super) struct World {
    machine: Machine,
    plan: Plan,
    live: Option<Live>,
    /// All that each name may have, the last acknowledged first.
    names: Vec<Vec<Names>>,
    writers: Vec<Writer>,
    notes: Arc<ScrubMemory>,
    /// Works that go on within each other: nothing may end the process.
    depth: u32,
    collected: u64,
    sealed: u64,
}

/// The chunks of all runs.
fn chunk(n: usize) -> &'static StorableChunk {
    static ALL: OnceLock<Vec<StorableChunk>> = OnceLock::new();
    &ALL.get_or_init(|| chunks(CHUNKS, 2000))[n]
}

/// Of the two names of each writer one is an object's, the other a manifest's.
fn is_object(name: usize) -> bool {
    name % 2 == 1
}

fn key(name: usize) -> String {
    format!("name {name}")
}

fn pieces(keys: &[usize]) -> Vec<ManifestChunk> {
    let piece = |&n: &usize| ManifestChunk {
        id: chunk(n).id(),
        len: chunk(n).plain_len() as u32,
    };
    keys.iter().map(piece).collect()
}

fn send_again(live: &Live, ids: Vec<ChunkId>) -> crate::Result<()> {
    let gone = ids.into_iter().filter_map(number_of).map(|n| chunk(n).clone());
    live.store.put_many(&gone.collect::<Vec<_>>())?;
    Ok(live.store.flush()?)
}

fn number_of(id: ChunkId) -> Option<usize> {
    (0..CHUNKS).find(|&n| chunk(n).id() == id)
}

fn key_of(n: usize) -> ChunkKey {
    ChunkKey {
        domain: DomainId::default(),
        id: chunk(n).id(),
    }
}

fn text(name: usize) -> Vec<u8> {
    key(name).into_bytes()
}

impl Simulated for World {
    const COUNTED: &'static [&'static str] = &["openings", "collections", "snapshots"];

    fn new(seed: u64, talk: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::of(seed, &mut random);
        if talk {
            eprintln!("seed {seed}: {plan:?}");
        }
        Self {
            machine: Machine::new(random, plan.faults, talk),
            plan,
            live: None,
            names: vec![vec![None]; NAMES],
            writers: vec![Writer::Idle; WRITERS],
            notes: Arc::default(),
            depth: 0,
            collected: 0,
            sealed: 0,
        }
    }

    fn disk(&self) -> Counts {
        self.machine.disk.counts()
    }

    fn counts(&self) -> Vec<u64> {
        vec![self.machine.reopened, self.collected, self.sealed]
    }

    fn run(&mut self) -> Outcome {
        self.do_steps(self.plan.steps)?;
        self.finish()
    }
}

impl Process for World {
    type Opened = (PackEngine, Vec<String>);
    type Error = cairn_store::Error;

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn forget(&mut self) {
        self.live = None;
        self.writers.iter_mut().for_each(|writer| *writer = Writer::Idle);
    }

    fn crashed(&mut self, _crash: Crash) {
        self.notes = Arc::default();
    }

    fn rows_lost_in(&self) -> Option<u32> {
        self.plan.rows_lost.then_some(4)
    }

    fn try_open(&self) -> cairn_store::Result<Self::Opened> {
        self.open_packs(self.machine.rows.clone(), false)
    }

    fn take_up(&mut self, (packs, suspects): Self::Opened) -> Outcome {
        let packs = Arc::new(packs);
        let kv = Arc::new(Database::logged(self.machine.rows.clone(), packs.clone()));
        let collector = Collector::new(kv.clone(), packs.clone(), Duration::ZERO);
        self.live = Some(Live {
            store: PackStore::new(packs.clone(), DomainId::default()),
            collector: Arc::new(collector.map_err(|error| format!("{error:?}"))?),
            kv,
            packs,
        });
        say!(self, "opened: {suspects:?}");
        ensure!(
            suspects.is_empty() || self.is_damaged(),
            "suspects without damage: {suspects:?}"
        );
        self.look(true)?;
        if self.machine.random.u32(..3) == 0 {
            self.check_rebuilt()?;
        }
        Ok(())
    }

    fn one_step(&mut self) -> Outcome {
        match self.machine.random.u32(..100) {
            0..45 => self.write(),
            45..51 => self.unpublish(),
            51..59 => self.collect(),
            59..62 => self.compact(),
            62..67 => self.snapshot().map(drop),
            67..71 => self.scrub(),
            71..77 => self.look(false),
            77..79 => self.close(),
            79..82 => self.kill(),
            82..89 => {
                self.machine.disk.cut_soon(&mut self.machine.random, 150);
                Ok(())
            }
            89..91 => {
                self.machine.disk.wait_a_while(&mut self.machine.random);
                Ok(())
            }
            91..94 => {
                let room = self
                    .machine
                    .disk
                    .change_room(&mut self.machine.random, self.plan.fills_up);
                say!(self, "room for {room:?}");
                Ok(())
            }
            94 => {
                self.machine.disk.set_clock();
                Ok(())
            }
            _ if self.plan.damages => {
                let flipped = self.machine.disk.flip_bit();
                say!(self, "flipped {flipped:?}");
                Ok(())
            }
            _ => self.write(),
        }
    }
}

impl World {
    fn live(&self) -> Live {
        self.live.clone().expect("the store is open between openings")
    }

    /// Whether bytes that were durable may have changed.
    fn is_damaged(&self) -> bool {
        self.machine.disk.counts().damages > 0
    }

    /// What others do while something takes long.
    fn meanwhile(&mut self) -> Outcome {
        if self.depth > DEPTH {
            return Ok(());
        }
        let mut outcome = Ok(());
        while outcome.is_ok() && self.machine.random.bool() {
            outcome = match self.machine.random.u32(..20) {
                0..14 => self.write(),
                14..16 => self.unpublish(),
                16 => self.compact(),
                17 => self.snapshot().map(drop),
                18 => self.scrub(),
                _ => self.look(false),
            };
        }
        outcome
    }

    /// Something that takes long and is asked now and then what others do meanwhile.
    fn at_length<T>(&mut self, work: impl FnOnce(&mut Self, &Live) -> T) -> T {
        let live = self.live();
        self.depth += 1;
        let done = work(self, &live);
        self.depth -= 1;
        done
    }

    fn write(&mut self) -> Outcome {
        let writer = self.machine.random.usize(..WRITERS);
        let live = self.live();
        self.writers[writer] = match std::mem::take(&mut self.writers[writer]) {
            Writer::Idle => {
                let name = 2 * writer + self.machine.random.usize(..2);
                let count = self.machine.random.usize(1..6);
                let keys: BTreeSet<usize> = (0..count).map(|_| self.machine.random.usize(..CHUNKS)).collect();
                let keys: Vec<usize> = keys.into_iter().collect();
                match self.send(&live, &keys) {
                    Ok(fence) => Writer::Sent { name, keys, fence },
                    Err(error) => {
                        self.failed("sending failed", &error);
                        Writer::Idle
                    }
                }
            }
            Writer::Sent { name, keys, fence } => match live.store.flush() {
                Ok(()) => Writer::Flushed { name, keys, fence },
                Err(error) => {
                    self.failed("flushing failed", &error);
                    Writer::Idle
                }
            },
            Writer::Flushed { name, keys, fence } => {
                self.publish(&live, name, keys, fence);
                Writer::Idle
            }
        };
        Ok(())
    }

    fn send(&mut self, live: &Live, keys: &[usize]) -> crate::Result<Fence> {
        let fence = Fence::now(live.kv.as_ref())?;
        let ids: Vec<ChunkId> = keys.iter().map(|&n| chunk(n).id()).collect();
        let there = live.store.has_many(&ids)?;
        let absent: Vec<usize> = keys
            .iter()
            .zip(there)
            .filter(|(_, there)| !there)
            .map(|(&n, _)| n)
            .collect();
        say!(self, "send {absent:?} of {keys:?} at {}", fence.generation);
        live.store
            .put_many(&absent.iter().map(|&n| chunk(n).clone()).collect::<Vec<_>>())?;
        Ok(fence)
    }

    fn publish(&mut self, live: &Live, name: usize, keys: Vec<usize>, fence: Fence) {
        let outcome = self.try_publish(live, name, &keys, fence);
        say!(self, "publish {name} of {keys:?}: {outcome:?}");
        match outcome {
            Ok(true) => self.names[name] = vec![Some(keys)],
            Ok(false) => {}
            Err(error) => {
                self.names[name].push(Some(keys));
                self.failed("publishing failed", &error);
            }
        }
    }

    fn try_publish(&mut self, live: &Live, name: usize, keys: &[usize], mut fence: Fence) -> crate::Result<bool> {
        if is_object(name) {
            return self.put_object(live, name, keys, fence).map(|()| true);
        }
        let (tenant, kv) = (Tenant::default(), live.kv.as_ref());
        let before = manifest(kv, &tenant, &text(name))?;
        let mut id = [0; 16];
        self.machine.random.fill(&mut id);
        let mut new = NewManifest::begin(kv, &tenant, id, DomainId::default(), 1000)?;
        new.push(&pieces(keys))?;
        new.finish()?;
        loop {
            match new.settle(&live.store, &text(name), &fence, before.as_ref())? {
                Settled::Done(_) => return Ok(true),
                // By a commit of ours that had failed for want of room.
                Settled::NameTaken => return Ok(false),
                Settled::Missing { ids, fence: next } => {
                    say!(self, "{} have gone meanwhile", ids.len());
                    send_again(live, ids)?;
                    fence = next;
                }
            }
        }
    }

    fn put_object(&mut self, live: &Live, name: usize, keys: &[usize], fence: Fence) -> crate::Result<()> {
        let bucket = SimBucket::new(&live.kv, &live.store, self.machine.random.u64(..));
        let pages = self
            .machine
            .random
            .bool()
            .then(|| std::array::from_fn(|_| self.machine.random.u8(..)));
        let etag = format!("{:016x}", self.machine.random.u64(..));
        let send = &mut |ids: Vec<ChunkId>| send_again(live, ids);
        bucket.put(&key(name), &etag, &pieces(keys), fence, pages, send)
    }

    fn unpublish(&mut self) -> Outcome {
        let name = self.machine.random.usize(..NAMES);
        self.unpublish_name(name)
    }

    fn unpublish_name(&mut self, name: usize) -> Outcome {
        let (live, tenant) = (self.live(), Tenant::default());
        let dropped = if is_object(name) {
            SimBucket::new(&live.kv, &live.store, self.machine.random.u64(..)).delete(&key(name))
        } else {
            manifest(live.kv.as_ref(), &tenant, &text(name)).and_then(|found| match found {
                Some(found) => drop_manifest(live.kv.as_ref(), &tenant, &text(name), &found),
                None => Ok(false),
            })
        };
        say!(self, "unpublish {name}: {dropped:?}");
        match dropped {
            Ok(true) => self.names[name] = vec![None],
            Ok(false) => {}
            Err(error) => {
                self.names[name].push(None);
                self.failed("unpublishing failed", &error);
            }
        }
        Ok(())
    }

    fn collect_options(&self) -> CollectOptions {
        CollectOptions {
            roots: Roots::Rooted,
            now: 100,
            grace: Duration::ZERO,
            reserve: self.plan.reserve,
            snapshots: SnapshotPolicy {
                bytes_min: 2000,
                held_min: 2000,
                growth: 1.0,
            },
            ..CollectOptions::default()
        }
    }

    /// A collection, step by step.
    fn collect(&mut self) -> Outcome {
        if self.depth > 0 {
            return Ok(());
        }
        self.at_length(|world, live| -> Outcome {
            let (options, control) = (world.collect_options(), CollectControl::new());
            let mut run = Run::new(&live.collector, &options, &control);
            for stage in 0..5 {
                let done = match stage {
                    0 => run.mark(),
                    1 => run.condemn(),
                    2 => run.remark(),
                    3 => run.sweep(),
                    _ if world.plan.reserve => live.packs.keep_reserve().map_err(Error::from),
                    _ => Ok(()),
                };
                say!(world, "collect {stage}: {done:?}");
                match done {
                    Ok(()) => {}
                    // There is no room for the reserve.
                    Err(error) if stage == 4 && error.is_full() => {}
                    Err(error) => {
                        world.failed("collecting failed", &error);
                        return Ok(());
                    }
                }
                world.meanwhile()?;
                // Somebody wants no more.
                if world.machine.random.u32(..12) == 0 {
                    return Ok(());
                }
            }
            world.collected += 1;
            Ok(())
        })?;
        if self.machine.random.bool() {
            self.compact()
        } else {
            Ok(())
        }
    }

    fn compact(&mut self) -> Outcome {
        let dead = *self.machine.random.choice(&[0.0, 0.05, 0.5]).expect("not empty");
        self.at_length(|world, live| {
            let kept = LogPosition::default();
            let due = match live.packs.share_to_compact(dead, kept) {
                Ok(due) => due,
                Err(error) => {
                    world.failed("looking for what is dead failed", &error);
                    None
                }
            };
            let Some(live_share_min) = due else { return Ok(()) };
            let options = CompactOptions {
                live_share_min,
                commits_kept_from: kept,
            };
            let mut outcome = Ok(());
            let compacted = live.packs.compact_paced(&options, &mut |_| {
                if outcome.is_ok() {
                    outcome = world.meanwhile();
                }
                Ok(())
            });
            say!(world, "compact below {live_share_min}: {compacted:?}");
            outcome
        })
    }

    /// Writes a snapshot; returns whether it got to its end.
    fn snapshot(&mut self) -> Outcome<bool> {
        self.at_length(|world, live| {
            let mut outcome = Ok(());
            let written = write_pieces(live.kv.engine().as_ref(), &live.packs, PIECE_LEN, &mut |_| {
                if outcome.is_ok() {
                    outcome = world.meanwhile();
                }
                if !world.machine.disk.is_calm() && world.machine.random.u32(..12) == 0 {
                    Err(Error::Stopped)
                } else {
                    Ok(())
                }
            });
            say!(world, "snapshot: {written:?}");
            world.sealed += u64::from(matches!(written, Ok(Some(_))));
            outcome.map(|()| written.is_ok())
        })
    }

    fn scrub(&mut self) -> Outcome {
        let notes = self.notes.clone();
        self.at_length(|world, live| {
            let mut outcome = Ok(());
            let scrubbed = live
                .packs
                .scrub(&ScrubOptions::default(), &[], notes.as_ref(), &mut |_| {
                    if outcome.is_ok() {
                        outcome = world.meanwhile();
                    }
                    world.machine.random.u32(..20) > 0
                });
            say!(world, "scrub: {:?}", scrubbed.as_ref().map(|report| &report.damages));
            outcome
        })
    }

    /// Looks at every name and all it is made of.
    ///
    /// - `calm`: no fault can be the reason of an error.
    fn look(&mut self, calm: bool) -> Outcome {
        let live = self.live();
        for name in 0..NAMES {
            let found = match self.chunks_of(&live, name) {
                Ok(found) => found,
                Err(error) => {
                    ensure!(!calm || self.is_damaged(), "name {name} cannot be read: {error:?}");
                    continue;
                }
            };
            let may = &mut self.names[name];
            if self.machine.disk.counts().damages == 0 {
                ensure!(
                    may.contains(&found),
                    "name {name} has {found:?}, and not one of {may:?}"
                );
            }
            if calm {
                *may = vec![found.clone()];
            }
            let keys = found.unwrap_or_default();
            let ids: Vec<ChunkId> = keys.iter().map(|&n| chunk(n).id()).collect();
            let places = self.machine.rows.table().places;
            for (n, got) in keys.into_iter().zip(live.store.get_many(&ids)) {
                match got {
                    Ok(got) => ensure!(
                        got.bytes == chunk(n).bytes(),
                        "chunk {n} of name {name} reads as other bytes"
                    ),
                    Err(_) if self.is_damaged() => {}
                    Err(error) => {
                        let missing = matches!(error, cairn_store::Error::Missing { .. });
                        ensure!(!calm && !missing, "chunk {n} of name {name} is lost: {error:?}");
                    }
                }
                let place = places.get(&key_of(n));
                let pack = place.map(|place| place.pack);
                ensure!(
                    self.is_damaged() || pack.is_some_and(|pack| live.packs.pack_numbers().contains(&pack)),
                    "chunk {n} of name {name} is in pack {pack:?}, which is gone"
                );
            }
        }
        Ok(())
    }

    fn chunks_of(&self, live: &Live, name: usize) -> crate::Result<Names> {
        if is_object(name) {
            let found = SimBucket::new(&live.kv, &live.store, 0).find(&key(name))?;
            // An event is committed with its object, or not at all; damage takes commits out of the middle.
            assert!(
                self.is_damaged() || found.wrong.is_none(),
                "object {name}: {:?}",
                found.wrong
            );
            return Ok(found.ids.map(|ids| ids.into_iter().filter_map(number_of).collect()));
        }
        let tenant = Tenant::default();
        let Some(found) = manifest(live.kv.as_ref(), &tenant, &text(name))? else {
            return Ok(None);
        };
        let chunks = manifest_page(live.kv.as_ref(), &tenant, &found, 0)?;
        Ok(Some(chunks.iter().filter_map(|chunk| number_of(chunk.id)).collect()))
    }

    fn open_packs(&self, rows: Arc<SimRows>, read_only: bool) -> cairn_store::Result<(PackEngine, Vec<String>)> {
        let options = PackOptions {
            sync: self.plan.sync,
            pack_len: PACK_LEN,
            queue_len: 12 << 10,
            read_gap: 600,
            read_len: 4 << 10,
            read_only,
            ..PackOptions::default()
        };
        let (packs, report) = PackEngine::open_on(
            StoreName::new("sim"),
            Arc::new(self.machine.disk.clone()),
            options,
            rows,
        )?;
        let suspects = report
            .suspects
            .into_iter()
            .map(|suspect| format!("{}: {}", suspect.file, suspect.what));
        Ok((packs, suspects.collect()))
    }

    /// Makes rows and places again from the packs alone.
    fn check_rebuilt(&self) -> Outcome {
        let rows = Arc::<SimRows>::default();
        let (packs, suspects) = self
            .open_packs(rows.clone(), true)
            .map_err(|error| format!("making the index again failed: {error:?}"))?;
        if self.is_damaged() {
            return Ok(());
        }
        ensure!(
            suspects.is_empty(),
            "suspects when the index is made again: {suspects:?}"
        );
        let (live, rebuilt) = (self.machine.rows.table(), rows.table());
        ensure!(
            live.rows == rebuilt.rows,
            "other rows when the index is made again: {:?}, not {:?}",
            rebuilt.rows,
            live.rows
        );
        let store = PackStore::new(Arc::new(packs), DomainId::default());
        for n in 0..CHUNKS {
            let [is_live, is_rebuilt] = [&live, &rebuilt].map(|table| table.places.contains_key(&key_of(n)));
            // What a power cut took, acknowledged before it was durable, may lie once more in a pack that had been left before.
            let may_be_more = is_rebuilt && self.plan.sync != SyncPolicy::Sync;
            ensure!(
                is_live == is_rebuilt || may_be_more,
                "chunk {n} is there: {is_live}; when the index is made again: {is_rebuilt}"
            );
            if is_live {
                let got = store.get_many(&[chunk(n).id()]).pop().expect("one answer per id");
                let is_right = got.as_ref().is_ok_and(|got| got.bytes == chunk(n).bytes());
                ensure!(
                    is_right,
                    "chunk {n} when the index is made again: {:?}",
                    got.map(|_| ())
                );
            }
        }
        Ok(())
    }

    /// All faults are over: everything works, everything is still there, and space comes back within two collections.
    fn finish(&mut self) -> Outcome {
        self.machine.disk.set_room(None);
        self.machine.disk.set_calm(true);
        // The others have ended.
        self.depth = DEPTH + 1;
        self.close()?;
        self.machine.disk.set_calm(true);
        for _ in 0..NAMES {
            self.unpublish()?;
        }
        self.collect_twice()?;
        self.check_rebuilt()?;
        if self.is_damaged() {
            return Ok(());
        }
        let sealed = self.snapshot()?;
        ensure!(sealed, "no snapshot on a good disk");
        let named: BTreeSet<usize> = self.names.iter().flatten().flatten().flatten().copied().collect();
        let table = self.machine.rows.table();
        let stored: BTreeSet<usize> = table.places.keys().filter_map(|key| number_of(key.id)).collect();
        ensure!(named == stored, "{stored:?} are stored, and {named:?} are named");
        self.close()?;
        self.machine.disk.set_calm(true);
        let live = self.live();
        let options = CompactOptions {
            live_share_min: 0.5,
            commits_kept_from: LogPosition::default(),
        };
        let compacted = live.packs.compact(&options);
        compacted.map_err(|error| format!("compaction failed on a good disk: {error:?}"))?;
        drop(live);
        self.close()?;
        self.machine.disk.set_calm(true);
        let record = |place: &cairn_store::ChunkPlace| place.len as usize + 160;
        let chunks: usize = table.places.values().map(record).sum();
        let rows = table.rows.rows.iter();
        let rows: usize = rows.map(|(key, row)| key.len() + row.value.len() + 14).sum::<usize>() * 5 / 4 + 1000;
        let used = self.machine.disk.used();
        ensure!(
            used <= 2 * (chunks + rows) + 4 * PACK_LEN as usize,
            "{used} bytes are used, for {chunks} bytes of chunks and {rows} of rows"
        );
        self.look(true)?;
        self.check_rebuilt()?;
        for name in 0..NAMES {
            self.unpublish_name(name)?;
        }
        self.collect_twice()?;
        let table = self.machine.rows.table();
        let left = table.places.len();
        ensure!(left == 0, "{left} chunks are left that no name names");
        check_pages(&table.rows)
    }

    /// What the first one gives up may be read for a while, and goes with the second one.
    fn collect_twice(&mut self) -> Outcome {
        for now in [LATER, 2 * LATER] {
            let options = CollectOptions {
                now,
                ..self.collect_options()
            };
            let live = self.live();
            let collected = live.collector.collect(&options, &CollectControl::new());
            say!(self, "collect: {collected:?}");
            if let Err(error) = collected {
                ensure!(self.is_damaged(), "a collection failed on a good disk: {error:?}");
            }
            self.look(true)?;
        }
        Ok(())
    }
}
