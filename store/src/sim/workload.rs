//! What people do to a store, all at once, and what they then know: the promises that every later look is held to.
//!
//! Several writers put, flush and commit; chunks are removed, set aside and compacted; snapshots of the index are written, packs
//! are scrubbed; while these long works go on, the others do too. The store is closed, killed and loses
//! power at any operation, also while it is being opened. The calls of all follow each other on one thread, in an order that
//! the seed gives. Not here: threads (the engine's own tests), what deletes chunks (`index`).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{DomainId, StorableChunk};

use super::disk::{Counts, Disk, Faults};
use super::rows::{Rows, encode_commits};
use super::runs::Simulated;
use super::trouble::chunks;
use crate::pack::{
    ChunkKey, CompactOptions, DamageKind, LogPosition, OpenReport, PackEngine, PackOptions, PackStore, ScrubMemory,
    ScrubOptions,
};
use crate::{ChunkStore as _, Error, Prune as _, StoreName, SyncPolicy};

/// What is wrong, in words.
pub(super) type Outcome<T = ()> = Result<T, String>;

const CHUNKS: usize = 24;
const DOMAINS: usize = 2;
const WRITERS: usize = 3;
const KEYS: usize = CHUNKS * DOMAINS;

/// As the engine's.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// What a seed decides before anything happens.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sync: SyncPolicy,
    /// The locations outlive the process, more or less.
    rows_kept: bool,
    /// They are lost now and then, whole; then no batch is ever given up without a snapshot.
    rows_lost: bool,
    faults: Faults,
    /// The disk changes bytes in silence.
    damages: bool,
    fills_up: bool,
    rows_fail: bool,
    /// Batches of the index are acknowledged before they are durable, now and then.
    early: bool,
    steps: u32,
}

impl Plan {
    fn of(seed: u64, random: &mut fastrand::Rng) -> Self {
        let (faults, damages) = Faults::drawn(random, 4, [200, 400, 800, 1500], 4);
        Self {
            sync: [SyncPolicy::Sync, SyncPolicy::Batch, SyncPolicy::None][(seed % 3) as usize],
            rows_kept: random.bool(),
            faults,
            damages,
            fills_up: random.u32(..3) == 0,
            rows_fail: random.u32(..6) == 0,
            rows_lost: random.bool(),
            early: random.bool(),
            steps: random.u32(20..140),
        }
    }
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum There {
    No,
    Maybe,
    /// While the machine runs; acknowledged at this time by a store that syncs later.
    UntilPowerCut(Duration),
    Yes,
}

#[derive(Clone, Copy, Debug)]
struct Fact {
    there: There,
    /// Its last removal was acknowledged, and nobody has put it since.
    removed: bool,
    /// The step in which it may have been removed last.
    removed_at: u64,
}

/// A batch of the index.
#[derive(Debug)]
struct Batch {
    bytes: Bytes,
    /// The chunks that it names.
    keys: Vec<usize>,
    step: u64,
    acknowledged: bool,
    /// A power cut may take it, and not what the system does else.
    until_power_cut: bool,
    /// It was not there after a crash: it must not come later.
    gone: bool,
}

/// One run.
pub(super) struct World {
    random: fastrand::Rng,
    plan: Plan,
    disk: Disk,
    rows: Arc<Rows>,
    stores: Vec<PackStore>,
    facts: Vec<Fact>,
    /// Put, and not flushed since.
    queued: BTreeSet<usize>,
    /// What each writer has put since its last commit.
    written: Vec<BTreeSet<usize>>,
    batches: Vec<Batch>,
    step: u64,
    /// Batches may be gone with their packs.
    forgets_batches: bool,
    suspects: usize,
    notes: Arc<ScrubMemory>,
    /// Something that takes long goes on: nothing may end the process.
    is_busy: bool,
    talk: bool,
    reopened: u64,
}

macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(format!($($why)*));
        }
    };
}

macro_rules! say {
    ($world:expr, $($what:tt)*) => {
        if $world.talk {
            eprintln!("{:4} {:6} {}", $world.step, $world.disk.counts().operations, format!($($what)*));
        }
    };
}

// Behind the macros, which it uses.
mod promises;

/// The chunks of all runs.
fn chunk(n: usize) -> &'static StorableChunk {
    static ALL: OnceLock<Vec<StorableChunk>> = OnceLock::new();
    &ALL.get_or_init(|| chunks(CHUNKS, 2500))[n]
}

fn chunk_of(key: usize) -> &'static StorableChunk {
    chunk(key % CHUNKS)
}

fn key_of(key: usize) -> ChunkKey {
    ChunkKey {
        domain: DomainId((key / CHUNKS) as u32),
        id: chunk_of(key).id(),
    }
}

impl Simulated for World {
    const COUNTED: &'static [&'static str] = &["openings"];

    fn new(seed: u64, talk: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::of(seed, &mut random);
        if talk {
            eprintln!("seed {seed}: {plan:?}");
        }
        Self {
            disk: Disk::new(random.fork(), plan.faults),
            rows: Arc::new(Rows::new(plan.rows_kept)),
            random,
            plan,
            stores: Vec::new(),
            facts: vec![
                Fact {
                    there: There::No,
                    removed: false,
                    removed_at: 0,
                };
                KEYS
            ],
            queued: BTreeSet::new(),
            written: vec![BTreeSet::new(); WRITERS],
            batches: Vec::new(),
            step: 0,
            forgets_batches: false,
            suspects: 0,
            notes: Arc::default(),
            is_busy: false,
            talk,
            reopened: 0,
        }
    }

    fn run(&mut self) -> Outcome {
        self.open()?;
        for _ in 0..self.plan.steps {
            self.step += 1;
            self.one_step()?;
            if self.disk.is_off() {
                say!(self, "the power went");
                self.stores.clear();
                self.lose_power();
                self.open()?;
            }
        }
        self.finish()
    }

    fn disk(&self) -> Counts {
        self.disk.counts()
    }

    fn counts(&self) -> Vec<u64> {
        vec![self.reopened]
    }
}

impl World {
    fn engine(&self) -> &Arc<PackEngine> {
        self.stores[0].engine()
    }

    /// Whether bytes that were durable may have changed.
    fn is_damaged(&self) -> bool {
        self.disk.counts().damages > 0
    }

    fn one_step(&mut self) -> Outcome {
        match self.random.u32(..100) {
            0..28 => self.put(),
            28..42 => self.flush(),
            42..54 => self.commit(),
            54..63 => self.remove(),
            63..65 => self.set_aside(),
            65..70 => self.compact(),
            70..74 => self.snapshot(),
            74..76 => self.scrub(),
            76..80 => self.read(),
            80..82 => self.sync(),
            82..84 => self.close(),
            84..86 => self.kill(),
            86..92 => {
                self.disk.cut_soon(&mut self.random, 80);
                Ok(())
            }
            92..95 => {
                self.disk.wait_a_while(&mut self.random);
                Ok(())
            }
            95..97 => {
                let room = self.disk.change_room(&mut self.random, self.plan.fills_up);
                say!(self, "room for {room:?}");
                Ok(())
            }
            97 => {
                self.disk.set_clock();
                Ok(())
            }
            98 if self.plan.rows_fail => {
                self.rows.fail_in(self.random.u32(..10));
                Ok(())
            }
            _ if self.plan.damages => {
                let flipped = self.disk.flip_bit();
                say!(self, "flipped {flipped:?}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Any keys of one domain.
    fn some_keys(&mut self, most: usize) -> (usize, Vec<usize>) {
        let domain = self.random.usize(..DOMAINS);
        let count = self.random.usize(1..=most);
        let keys: BTreeSet<usize> = (0..count)
            .map(|_| domain * CHUNKS + self.random.usize(..CHUNKS))
            .collect();
        (domain, keys.into_iter().collect())
    }

    fn put(&mut self) -> Outcome {
        let (domain, keys) = self.some_keys(6);
        let writer = self.random.usize(..WRITERS);
        let chunks: Vec<StorableChunk> = keys.iter().map(|&key| chunk_of(key).clone()).collect();
        let store = self.stores[domain].clone();
        let is_relaxed = self.plan.early && self.random.bool();
        let store = if is_relaxed { store.relaxed() } else { store };
        let answer = store.put_many(&chunks);
        say!(self, "put {keys:?} relaxed: {is_relaxed} {answer:?}");
        for key in keys {
            let fact = &mut self.facts[key];
            fact.removed = false;
            if fact.there == There::No {
                fact.there = There::Maybe;
            }
            if answer.is_ok() {
                self.queued.insert(key);
                self.written[writer].insert(key);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        let before = (self.disk.counts().writes, self.now());
        let answer = self.stores[0].flush();
        say!(self, "flush {answer:?}");
        if let Err(error) = answer {
            // As the server does: a store that refuses to go on is opened again.
            let refuses = format!("{error:?}").contains("open the store again") && !self.is_busy;
            return if refuses && self.random.bool() {
                self.close()
            } else {
                Ok(())
            };
        }
        let wrote = self.disk.counts().writes > before.0;
        let now = self.now();
        for key in std::mem::take(&mut self.queued) {
            let there = &mut self.facts[key].there;
            let is_durable = matches!(there, There::UntilPowerCut(_)) && self.plan.sync == SyncPolicy::Sync;
            if is_durable || matches!(there, There::No | There::Maybe) {
                *there = match self.plan.sync {
                    SyncPolicy::Sync => There::Yes,
                    SyncPolicy::Batch | SyncPolicy::None => There::UntilPowerCut(now),
                };
            }
        }
        if wrote && self.plan.sync == SyncPolicy::Batch {
            for fact in &mut self.facts {
                if let There::UntilPowerCut(since) = fact.there
                    && since + BATCH_TIME <= before.1
                {
                    fact.there = There::Yes;
                }
            }
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        crate::pack::Host::now(&self.disk)
    }

    /// All that was put is durable.
    fn all_durable(&mut self) {
        for key in std::mem::take(&mut self.queued) {
            self.facts[key].there = There::Yes;
        }
        for fact in &mut self.facts {
            if let There::UntilPowerCut(_) = fact.there {
                fact.there = There::Yes;
            }
        }
        for batch in &mut self.batches {
            batch.until_power_cut = false;
        }
    }

    fn commit(&mut self) -> Outcome {
        let writer = self.random.usize(..WRITERS);
        let keys: Vec<usize> = std::mem::take(&mut self.written[writer]).into_iter().collect();
        let mut bytes = (self.batches.len() as u64).to_le_bytes().to_vec();
        let len = self.random.usize(..200);
        bytes.extend(std::iter::repeat_with(|| self.random.u8(..)).take(len));
        let bytes = Bytes::from(bytes);
        let sync = match self.plan.early {
            true => *self
                .random
                .choice(&[SyncPolicy::Sync, SyncPolicy::Batch, SyncPolicy::None])
                .expect("not empty"),
            false => SyncPolicy::Sync,
        };
        let answer = self.engine().commit_as(bytes.clone(), sync);
        say!(self, "commit {} of {keys:?} as {sync:?} {answer:?}", self.batches.len());
        let is_early = sync != SyncPolicy::Sync;
        self.batches.push(Batch {
            bytes,
            keys,
            step: self.step,
            acknowledged: answer.is_ok(),
            until_power_cut: is_early,
            gone: false,
        });
        match answer {
            Ok(()) if is_early => self.all_there(),
            Ok(()) => self.all_durable(),
            Err(_) => {}
        }
        self.check_batches()
    }

    /// All that was put is there, for as long as the machine runs.
    fn all_there(&mut self) {
        let now = self.now();
        for key in std::mem::take(&mut self.queued) {
            let there = &mut self.facts[key].there;
            if matches!(there, There::No | There::Maybe) {
                *there = There::UntilPowerCut(now);
            }
        }
    }

    fn sync(&mut self) -> Outcome {
        if self.plan.early && self.random.bool() {
            let answer = self.engine().sync_early();
            say!(self, "sync early {answer:?}");
            return Ok(());
        }
        let answer = self.engine().sync();
        say!(self, "sync {answer:?}");
        if answer.is_ok() {
            self.all_durable();
        }
        Ok(())
    }

    fn remove(&mut self) -> Outcome {
        let (domain, mut keys) = self.some_keys(5);
        let before = self.talk.then(|| self.rows.places());
        let before = before.map(|places| {
            keys.iter()
                .map(|&key| Some(places.get(&key_of(key))?).map(|at| (at.pack, at.offset)))
                .collect::<Vec<_>>()
        });
        let by_place = self.random.bool();
        let answer = if !by_place {
            let ids: Vec<_> = keys.iter().map(|&key| chunk_of(key).id()).collect();
            self.stores[domain].remove_many(&ids)
        } else {
            let places = self.rows.places();
            keys.retain(|&key| places.contains_key(&key_of(key)));
            let chunks: Vec<_> = keys.iter().map(|&key| (key_of(key), places[&key_of(key)])).collect();
            self.engine().remove_at(&chunks)
        };
        say!(self, "remove {keys:?} from {before:?} {answer:?}");
        let places = self.rows.places();
        for key in keys {
            // What was on its way elsewhere is left.
            if by_place && answer.is_ok() && places.contains_key(&key_of(key)) {
                continue;
            }
            self.removed(key, answer.is_ok());
        }
        Ok(())
    }

    fn removed(&mut self, key: usize, acknowledged: bool) {
        let fact = &mut self.facts[key];
        fact.removed_at = self.step;
        if acknowledged {
            // Of one that was not there nothing is written down.
            fact.removed = matches!(fact.there, There::Yes | There::UntilPowerCut(_));
            fact.there = There::No;
        } else {
            fact.there = There::Maybe;
        }
        self.queued.remove(&key);
        for written in &mut self.written {
            written.remove(&key);
        }
    }

    fn set_aside(&mut self) -> Outcome {
        let (domain, keys) = self.some_keys(1);
        let id = chunk_of(keys[0]).id();
        let Some(Ok(chunk)) = self.stores[domain].get_many(&[id]).pop() else {
            return Ok(());
        };
        let answer = self.stores[domain].set_aside(&chunk);
        say!(self, "set aside {keys:?} {answer:?}");
        match answer {
            Ok(true) => self.removed(keys[0], true),
            // It could not be read again.
            Ok(false) => {}
            Err(_) => self.removed(keys[0], false),
        }
        Ok(())
    }

    fn compact(&mut self) -> Outcome {
        let forget = self.may_forget() && self.random.u32(..8) == 0;
        let options = CompactOptions {
            live_share_min: *self.random.choice(&[0.2, 0.5, 0.8, 1.0]).expect("not empty"),
            commits_kept_from: LogPosition {
                pack: if forget { u32::MAX } else { 0 },
                offset: 0,
            },
        };
        self.forgets_batches |= forget;
        let engine = self.engine().clone();
        let mut outcome = Ok(());
        let answer = engine.compact_paced(&options, &mut |_| {
            outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| self.meanwhile());
            Ok(())
        });
        say!(self, "compact {} {answer:?}", options.live_share_min);
        outcome
    }

    /// Whether batches may be given up without a snapshot.
    fn may_forget(&self) -> bool {
        self.plan.rows_kept && !self.plan.rows_lost && !self.plan.early
    }

    /// What others do while something takes long.
    fn meanwhile(&mut self) -> Outcome {
        if self.is_busy || self.random.u32(..3) > 0 {
            return Ok(());
        }
        self.is_busy = true;
        self.step += 1;
        let outcome = match self.random.u32(..12) {
            0..4 => self.put(),
            4..6 => self.flush(),
            6..8 => self.commit(),
            8 => self.remove(),
            9 => self.compact(),
            10 => self.snapshot(),
            _ => self.read(),
        };
        self.step += 1;
        self.is_busy = false;
        outcome
    }

    /// Writes a snapshot, if it gets so far. Returns whether it did.
    fn snapshot(&mut self) -> Outcome {
        self.try_snapshot().map(drop)
    }

    fn try_snapshot(&mut self) -> Outcome<bool> {
        let engine = self.engine().clone();
        let (watermark, commits) = self.rows.frozen();
        let mut snapshot = match engine.begin_snapshot(watermark.commit, watermark.position) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                say!(self, "no snapshot: {error:?}");
                return Ok(false);
            }
        };
        say!(self, "snapshot of {watermark:?}");
        for piece in commits.chunks(4) {
            self.meanwhile()?;
            if let Err(error) = snapshot.push(&encode_commits(piece)) {
                say!(self, "a piece: {error:?}");
                return Ok(false);
            }
        }
        self.meanwhile()?;
        if !self.disk.is_calm() && self.random.u32(..5) == 0 {
            return Ok(false);
        }
        let answer = snapshot.finish(b"");
        say!(self, "snapshot {answer:?}");
        if answer.is_ok() {
            self.all_durable();
        }
        Ok(answer.is_ok())
    }

    fn scrub(&mut self) -> Outcome {
        let (engine, notes) = (self.engine().clone(), self.notes.clone());
        let mut outcome = Ok(());
        let answer = engine.scrub(&ScrubOptions::default(), &[], notes.as_ref(), &mut |_| {
            outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| self.meanwhile());
            self.random.u32(..20) > 0
        });
        say!(self, "scrub {answer:?}");
        outcome?;
        if let Ok(report) = answer {
            let wrong = report.damages.iter().find(|damage| damage.what == DamageKind::Chunk);
            ensure!(wrong.is_none() || self.is_damaged(), "the scrub found {wrong:?}");
        }
        Ok(())
    }

    fn read(&mut self) -> Outcome {
        let (_, keys) = self.some_keys(8);
        for key in keys {
            self.look(key, false)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Outcome {
        say!(self, "close");
        self.stores.clear();
        if self.disk.is_off() {
            self.lose_power();
        }
        // What waited may or may not have been written; nobody was told.
        self.forget_queued();
        self.open()
    }

    fn kill(&mut self) -> Outcome {
        say!(self, "kill");
        self.disk.stop();
        self.stores.clear();
        self.disk.go_on();
        self.lose_process();
        self.forget_queued();
        self.open()
    }

    fn lose_power(&mut self) {
        self.disk.lose_power();
        self.lose_process();
        for fact in &mut self.facts {
            if let There::UntilPowerCut(_) = fact.there {
                fact.there = There::Maybe;
            }
        }
        for batch in &mut self.batches {
            batch.acknowledged &= !batch.until_power_cut;
        }
        self.forget_queued();
    }

    fn lose_process(&mut self) {
        self.rows.lose_process(&mut self.random);
        self.notes = Arc::default();
        if self.plan.rows_kept && self.plan.rows_lost && self.random.u32(..4) == 0 {
            say!(self, "the rows are lost");
            self.rows = Arc::new(Rows::new(true));
        }
    }

    fn forget_queued(&mut self) {
        for key in std::mem::take(&mut self.queued) {
            let there = &mut self.facts[key].there;
            if *there == There::No {
                *there = There::Maybe;
            }
        }
        self.written.iter_mut().for_each(BTreeSet::clear);
    }

    fn options(&self) -> PackOptions {
        PackOptions {
            sync: self.plan.sync,
            pack_len: 8 << 10,
            queue_len: 12 << 10,
            read_gap: 600,
            read_len: 4 << 10,
            ..PackOptions::default()
        }
    }

    /// Opens the store, however often it takes, and looks at everything.
    fn open(&mut self) -> Outcome {
        let mut attempts = 0;
        let report = loop {
            attempts += 1;
            if attempts > 5 {
                self.disk.set_calm(true);
                self.rows.calm();
            } else if self.random.u32(..4) == 0 {
                self.disk.cut_after(self.random.u64(..40));
            }
            if !self.plan.rows_kept {
                self.rows = Arc::new(Rows::new(false));
            }
            let faults = self.disk.counts().faults + self.rows.faults();
            match self.try_open(self.rows.clone(), self.options()) {
                Ok((engine, report)) if !self.disk.is_off() => {
                    self.disk.set_calm(true);
                    self.rows.calm();
                    let engine = Arc::new(engine);
                    self.stores = (0..DOMAINS as u32)
                        .map(|domain| PackStore::new(engine.clone(), DomainId(domain)))
                        .collect();
                    break report;
                }
                // In the middle of something that may fail.
                Ok(opened) => {
                    drop(opened);
                    self.lose_power();
                }
                Err(error) if self.disk.is_off() => {
                    say!(self, "the power went while opening: {error:?}");
                    self.lose_power();
                }
                Err(error) if self.rows.has_fallen_back() => {
                    say!(
                        self,
                        "the log fell back behind the rows, which are made anew: {error:?}"
                    );
                    self.rows = Arc::new(Rows::new(true));
                }
                Err(error) => {
                    let told = self.disk.counts().faults + self.rows.faults() > faults;
                    ensure!(told, "opening failed: {error:?}");
                    say!(self, "opening failed: {error:?}");
                }
            }
        };
        say!(self, "opened: {report:?}");
        self.reopened += 1;
        self.suspects += report.suspects.len();
        ensure!(
            report.suspects.is_empty() || self.is_damaged(),
            "suspects without damage: {:?}",
            report.suspects
        );
        self.check(true)?;
        if self.random.u32(..3) == 0 {
            self.check_rebuilt()?;
        }
        self.disk.set_calm(false);
        Ok(())
    }

    fn try_open(&self, rows: Arc<Rows>, options: PackOptions) -> crate::Result<(PackEngine, OpenReport)> {
        PackEngine::open_on(StoreName::new("sim"), Arc::new(self.disk.clone()), options, rows)
    }
}
