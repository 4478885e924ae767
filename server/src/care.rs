//! The care of a folder of packs while it is served: collections, in a rooted store, and what they need to know.
//!
//! A thread collects when it is time: index files and manifests are made to agree (`keeper.rs`), then the collector runs, at the
//! rate and with the pauses of the settings, which are read anew with each signal. Another notes where the log was when, so that
//! what was stored within the lease time stays. Nothing is collected within one lease time of the start: what was asked for
//! before is not remembered. Who asks for a collection gets one at once; within that time it deletes no chunk. Both end with this. Not here: what may go (`index`).

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cairn_formats::Level;
use cairn_gateway::admin::{UpkeepError, UpkeepRun, UpkeepState};
use cairn_index::{
    CollectControl, CollectOptions, CollectReport, CollectStage, Collector, Database, Recompress, RocksEngine, Roots,
    open_schema,
};
use cairn_store::{ChunkStore, LogPosition, PackEngine};

use crate::backup::Part;
use crate::config::Collect;
use crate::keeper::{Keeper, Rows, unix_seconds};
use crate::routes::chain;
use crate::upkeep::Asked;

/// Notes of where the log was, in one lease time.
const NOTES: u32 = 16;
/// Longest time between two of them.
const NOTE_EVERY_MAX: Duration = Duration::from_secs(60);
/// Time after which a collection that failed is tried again, unless the interval is shorter.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Looks at changed settings.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The rows of a folder of packs and their collector.
#[derive(Debug)]
pub(crate) struct Care {
    shared: Arc<Shared>,
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// In the log and the metrics.
    name: String,
    rows: Arc<Rows>,
    packs: Arc<PackEngine>,
    collector: Collector<RocksEngine>,
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
struct Running {
    control: Arc<CollectControl>,
    /// Seconds since 1970 UTC.
    begun_at: u64,
}

/// Has a store collected when somebody asks for it. It does not keep the store open.
#[derive(Clone, Debug)]
pub(crate) struct Collections(Weak<Shared>);

#[derive(Debug)]
struct State {
    settings: Collect,
    keepers: BTreeMap<String, Arc<Keeper>>,
    /// The collection that runs.
    running: Option<Running>,
    /// Another is to begin as soon as that has ended.
    again: bool,
    /// Somebody wants one.
    asked: Asked,
    /// The last that has ended.
    last: Option<UpkeepRun>,
    /// Where the log was, and when, the oldest first.
    notes: VecDeque<(Instant, LogPosition)>,
    stopped: bool,
}

impl Care {
    /// The rows and the collector of packs that have just been opened, before anybody writes.
    ///
    /// - `rooted`: whether chunks are collected at all.
    /// - Errors, in words: the rows are of a later release.
    pub(crate) fn start(
        name: &str,
        packs: &Arc<PackEngine>,
        index: &Arc<RocksEngine>,
        rooted: bool,
        settings: &Collect,
    ) -> Result<Self, String> {
        let rows = Arc::new(Database::logged(Arc::clone(index), Arc::clone(packs) as Arc<_>));
        let lease = match rooted {
            true => Duration::from_secs(settings.lease_seconds),
            false => Duration::ZERO,
        };
        let collector = Collector::new(Arc::clone(&rows), Arc::clone(packs), lease).map_err(|error| chain(&error))?;
        let state = State {
            settings: settings.clone(),
            keepers: BTreeMap::new(),
            running: None,
            again: false,
            asked: Asked::default(),
            last: None,
            notes: VecDeque::from([(Instant::now(), packs.position())]),
            stopped: false,
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            rows,
            packs: Arc::clone(packs),
            collector,
            lease,
            state: Mutex::new(state),
        });
        let mut care = Self {
            shared,
            stop: Vec::new(),
            threads: Vec::new(),
        };
        if rooted {
            open_schema(&*care.shared.rows, packs.name().to_string().as_str()).map_err(|error| chain(&error))?;
            care.spawn("note", Shared::note)?;
            care.spawn("collect", Shared::collect)?;
            care.shared.state().asked.wake = care.stop.last().cloned();
        }
        Ok(care)
    }

    /// For those who ask for collections.
    pub(crate) fn collections(&self) -> Collections {
        Collections(Arc::downgrade(&self.shared))
    }

    /// The rows, whose one lane of commits this is.
    pub(crate) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.shared.rows)
    }

    /// What a backup needs of it.
    ///
    /// - `folder`: that of the packs.
    pub(crate) fn part(&self, folder: &Path) -> Part {
        Part {
            name: self.shared.name.clone(),
            folder: folder.to_owned(),
            rows: self.rows(),
            packs: Arc::clone(&self.shared.packs),
        }
    }

    fn spawn(&mut self, name: &str, work: fn(&Shared, &Receiver<()>)) -> Result<(), String> {
        let (stop, stopped) = channel();
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&shared, &stopped))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        self.stop.push(stop);
        self.threads.push(thread);
        Ok(())
    }

    /// The keeper of a store's indexes.
    pub(crate) fn keeper(&self, store: &str, folder: &Path, chunks: &Arc<dyn ChunkStore>) -> Arc<Keeper> {
        let mut state = self.shared.state();
        if let Some(keeper) = state.keepers.get(store).filter(|keeper| keeper.is_of(folder)) {
            return Arc::clone(keeper);
        }
        let keeper = Arc::new(Keeper::new(
            store,
            folder,
            Arc::clone(&self.shared.rows),
            Arc::clone(chunks),
        ));
        state.keepers.insert(store.to_owned(), Arc::clone(&keeper));
        keeper
    }

    /// Takes new settings; a pause or its end holds at once, and a collection that runs begins again with what is new otherwise.
    pub(crate) fn configure(&self, settings: &Collect) {
        let mut state = self.shared.state();
        if state.settings == *settings {
            return;
        }
        let is_only_paused = Collect {
            paused: settings.paused,
            ..state.settings.clone()
        } == *settings;
        if let Some(Running { control, .. }) = state.running.clone() {
            match settings.paused {
                true => control.pause(),
                false => control.resume(),
            }
            if !is_only_paused {
                state.again = true;
                control.stop();
            }
        }
        state.settings = settings.clone();
        drop(state);
        for stop in &self.stop {
            // A thread that has ended has said why.
            let _ = stop.send(());
        }
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.stopped = true;
            state.asked.wake = None;
            if let Some(running) = &state.running {
                running.control.stop();
            }
        }
        self.stop.clear();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where the log is, now and then.
    fn note(&self, stopped: &Receiver<()>) {
        let every = (self.lease / NOTES).clamp(Duration::from_millis(10), NOTE_EVERY_MAX);
        while stopped.recv_timeout(every) != Err(RecvTimeoutError::Disconnected) {
            let position = self.packs.position();
            let mut state = self.state();
            state.notes.push_back((Instant::now(), position));
            // The first stays that is old enough.
            while state.notes.get(1).is_some_and(|(when, _)| when.elapsed() >= self.lease) {
                state.notes.pop_front();
            }
        }
    }

    /// What lies here or behind was stored within the lease time.
    fn new_from(&self) -> LogPosition {
        let state = self.state();
        let old = state.notes.iter().rev().find(|(when, _)| when.elapsed() >= self.lease);
        old.or(state.notes.front())
            .map_or(LogPosition::default(), |(_, position)| *position)
    }

    /// Collects whenever it is time, and when somebody asks for it.
    fn collect(&self, stopped: &Receiver<()>) {
        let started = Instant::now();
        let mut last = started;
        // Not at once: what clients were told before the start is not remembered.
        let mut wait_max = self.lease;
        let mut is_first = true;
        loop {
            let (settings, is_asked) = {
                let state = self.state();
                (state.settings.clone(), state.asked.at.is_some())
            };
            let interval = Duration::from_secs(settings.interval_seconds);
            let wait = if is_first { wait_max } else { interval.min(wait_max) };
            let left = match settings.paused || interval.is_zero() {
                _ if is_asked => Duration::ZERO,
                true => LOOK_EVERY,
                false => wait.saturating_sub(last.elapsed()),
            };
            if !left.is_zero() {
                match stopped.recv_timeout(left.min(LOOK_EVERY)) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    _ => continue,
                }
            }
            // All that was there at the start may have been promised then.
            let is_early = started.elapsed() < self.lease;
            let new_from = match is_early {
                true => LogPosition::default(),
                false => self.new_from(),
            };
            let done = self.collect_once(&settings, new_from);
            let again = std::mem::take(&mut self.state().again);
            if again && is_asked {
                // New settings ended it: who asked for it has not had it.
                self.state().asked.at.get_or_insert_with(unix_seconds);
            }
            if !is_early {
                (last, is_first) = (Instant::now(), false);
                wait_max = if again { Duration::ZERO } else { Duration::MAX };
            }
            match done {
                Ok(report) => self.tell(&report),
                Err(error) => {
                    if !is_early {
                        wait_max = AGAIN_AFTER;
                    }
                    metrics::counter!("gc_runs_total", "store" => self.name.clone(), "result" => "failed").increment(1);
                    tracing::error!(store = self.name, error, "a collection failed, and will be tried again");
                }
            }
            // Between two, if they follow each other without a pause, whoever wants it ended is heard.
            if self.state().stopped {
                return;
            }
        }
    }

    fn collect_once(&self, settings: &Collect, new_from: LogPosition) -> Result<CollectReport, String> {
        let control = Arc::new(CollectControl::new());
        let (keepers, begun_at) = {
            let mut state = self.state();
            if state.stopped {
                control.stop();
            } else if state.settings.paused {
                control.pause();
            }
            let begun_at = state.asked.at.take().unwrap_or_else(unix_seconds);
            state.running = Some(Running {
                control: Arc::clone(&control),
                begun_at,
            });
            let keepers: Vec<Arc<Keeper>> = state.keepers.values().cloned().collect();
            (keepers, begun_at)
        };
        let running = metrics::gauge!("gc_running", "store" => self.name.clone());
        running.set(1.0);
        let collected = keepers
            .iter()
            .try_for_each(|keeper| keeper.reconcile().map(drop))
            .and_then(|()| {
                let options = options(settings, new_from);
                self.collector
                    .collect(&options, &control)
                    .map_err(|error| chain(&error))
            });
        running.set(0.0);
        let mut state = self.state();
        state.running = None;
        state.last = Some(shown(begun_at, collected.as_ref().ok()));
        drop(state);
        collected
    }

    fn tell(&self, report: &CollectReport) {
        let store = || self.name.clone();
        let result = if report.stopped { "stopped" } else { "done" };
        metrics::counter!("gc_runs_total", "store" => store(), "result" => result).increment(1);
        metrics::counter!("gc_chunks_deleted_total", "store" => store()).increment(report.swept.chunks);
        metrics::counter!("gc_bytes_deleted_total", "store" => store()).increment(report.swept.bytes);
        metrics::counter!("gc_pack_bytes_removed_total", "store" => store()).increment(report.compacted.bytes_removed);
        metrics::counter!("gc_bytes_moved_total", "store" => store()).increment(report.compacted.bytes_moved);
        metrics::gauge!("gc_last_seconds", "store" => store()).set(unix_seconds() as f64);
        let named = report.named.bytes + report.pinned.bytes + report.recent.bytes;
        metrics::gauge!("store_live_bytes", "store" => store()).set(named as f64);
        metrics::gauge!("store_logical_bytes", "store" => store()).set(report.logical_bytes as f64);
        if report.unique_bytes > 0 {
            let ratio = report.logical_bytes as f64 / report.unique_bytes as f64;
            metrics::gauge!("store_dedup_ratio", "store" => store()).set(ratio);
        }
        let recompressed = &report.recompressed;
        metrics::counter!("store_recompressed_bytes_total", "store" => store()).increment(recompressed.bytes_before);
        let saved = recompressed.bytes_before - recompressed.bytes_after;
        metrics::counter!("store_recompression_saved_bytes_total", "store" => store()).increment(saved);
        if recompressed.packs_removed > 0 {
            tracing::info!(
                store = self.name,
                packs = recompressed.packs_removed,
                bytes_before = recompressed.bytes_before,
                bytes_after = recompressed.bytes_after,
                "packs were compressed anew"
            );
        }
        tracing::info!(
            store = self.name,
            indexes = report.manifests,
            named = report.named.chunks,
            recent = report.recent.chunks,
            condemned = report.condemned_total().chunks,
            deleted = report.swept.chunks,
            deleted_bytes = report.swept.bytes,
            packs_removed = report.compacted.packs_removed,
            packs_removed_bytes = report.compacted.bytes_removed,
            moved_bytes = report.compacted.bytes_moved,
            stopped = report.stopped,
            mark_ms = report.took.mark.as_millis() as u64,
            condemn_ms = report.took.condemn.as_millis() as u64,
            remark_ms = report.took.remark.as_millis() as u64,
            sweep_ms = report.took.sweep.as_millis() as u64,
            compact_ms = report.took.compact.as_millis() as u64,
            recompress_ms = report.took.recompress.as_millis() as u64,
            "a collection ended"
        );
    }
}

impl Collections {
    /// Has a collection begin.
    pub(crate) fn start(&self) -> Result<(), UpkeepError> {
        let shared = self.0.upgrade().ok_or(UpkeepError::Leaving)?;
        let mut state = shared.state();
        let (is_running, is_paused) = (state.running.is_some(), state.settings.paused);
        state.asked.ask(is_running, is_paused)
    }

    /// What runs, and what the last one did.
    pub(crate) fn state(&self) -> UpkeepState {
        let Some(shared) = self.0.upgrade() else {
            return UpkeepState::default();
        };
        let state = shared.state();
        let waits = state.asked.at.map(|begun_at| (begun_at, CollectStage::Waiting));
        let runs = state.running.as_ref().map(|run| (run.begun_at, run.control.stage()));
        UpkeepState {
            running: runs.or(waits).map(|(begun_at, stage)| UpkeepRun {
                begun_at,
                ended_at: None,
                state: stage.word(),
                counts: BTreeMap::new(),
            }),
            last: state.last.clone(),
        }
    }
}

/// A collection that has ended.
///
/// - `report`: `None`: it failed.
fn shown(begun_at: u64, report: Option<&CollectReport>) -> UpkeepRun {
    let mut counts = BTreeMap::new();
    if let Some(report) = report {
        let condemned = report.condemned_total();
        counts.extend([
            ("manifests", report.manifests),
            ("named_chunks", report.named.chunks),
            ("named_bytes", report.named.bytes),
            ("recent_chunks", report.recent.chunks),
            ("recent_bytes", report.recent.bytes),
            ("condemned_chunks", condemned.chunks),
            ("condemned_bytes", condemned.bytes),
            ("deleted_chunks", report.swept.chunks),
            ("deleted_bytes", report.swept.bytes),
            ("packs_removed", report.compacted.packs_removed as u64),
            ("pack_bytes_removed", report.compacted.bytes_removed),
            ("bytes_moved", report.compacted.bytes_moved),
        ]);
    }
    UpkeepRun {
        begun_at,
        ended_at: Some(unix_seconds()),
        state: match report {
            None => "failed",
            Some(report) if report.stopped => "stopped",
            Some(_) => "done",
        },
        counts,
    }
}

/// How a collection of a rooted store goes.
///
/// - `new_from`: what lies here or behind stays.
pub(crate) fn options(settings: &Collect, new_from: LogPosition) -> CollectOptions {
    CollectOptions {
        roots: Roots::Rooted,
        // Pinned were those that came before the operator said that all indexes are here.
        keep_pinned: false,
        new_from,
        now: unix_seconds(),
        grace: Duration::from_secs(settings.grace_seconds),
        bytes_per_second: NonZeroU64::new(settings.bytes_per_second),
        dead_share_max: settings.dead_share,
        blob_days: NonZeroU32::new(settings.blob_days),
        recompress: (settings.recompress_level != 0).then(|| Recompress {
            level: Level::new(settings.recompress_level),
            bytes_per_second: NonZeroU64::new(settings.recompress_bytes_per_second),
        }),
        ..CollectOptions::default()
    }
}
