//! Packs are read from end to end while they are served, before somebody needs what is damaged.
//!
//! A thread for each folder of packs: what was not verified within the interval is, at the rate of the settings, the longest
//! unread first; a stop at any moment is gone on from. Damaged chunks are taken out, and fetched from the other places of a
//! mirror where there are some; else the next upload heals them. Who asks for a scrub gets one of all packs at once. Not here: what is checked (`store`).

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use cairn_gateway::admin::{UpkeepError, UpkeepRun, UpkeepState};
use cairn_store::{ChunkStore, PackEngine, RateLimit, ScrubFile, ScrubOptions, ScrubReport};

use crate::config::Scrub;
use crate::keeper::unix_seconds;
use crate::routes::chain;
use crate::upkeep::Asked;

/// Longest time between two looks for packs whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Time after the start, in which there is other work.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Damaged places that one pass logs; all are counted.
const LOGGED_MAX: usize = 1000;

/// The scrub of a folder of packs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Scrubber {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// In the log and the metrics.
    name: String,
    folder: PathBuf,
    packs: Arc<PackEngine>,
    state: Mutex<State>,
    /// A pass is to end: the settings have changed, or the server leaves.
    interrupted: AtomicBool,
    /// Bytes that the pass which runs has read.
    read: AtomicU64,
}

/// Has packs scrubbed when somebody asks for it. It does not keep them open.
#[derive(Clone, Debug)]
pub(crate) struct Scrubs(Weak<Shared>);

#[derive(Debug)]
struct State {
    settings: Scrub,
    sources: Vec<Arc<dyn ChunkStore>>,
    /// Somebody wants all to be read.
    asked: Asked,
    /// Since when a pass runs.
    running: Option<u64>,
    /// The last that has ended.
    last: Option<UpkeepRun>,
}

impl Scrubber {
    pub(crate) fn start(name: &str, folder: &Path, packs: &Arc<PackEngine>, settings: &Scrub) -> Result<Self, String> {
        let (stop, stopped) = channel();
        let state = State {
            settings: settings.clone(),
            sources: Vec::new(),
            asked: Asked {
                at: None,
                wake: Some(stop.clone()),
            },
            running: None,
            last: None,
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            folder: folder.to_owned(),
            packs: Arc::clone(packs),
            state: Mutex::new(state),
            interrupted: AtomicBool::new(false),
            read: AtomicU64::new(0),
        });
        let thread_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("scrub".to_owned())
            .spawn(move || thread_shared.run(&stopped))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// For those who ask for scrubs.
    pub(crate) fn scrubs(&self) -> Scrubs {
        Scrubs(Arc::downgrade(&self.shared))
    }

    /// Damaged chunks are fetched from these from now on.
    pub(crate) fn repair_from(&self, sources: Vec<Arc<dyn ChunkStore>>) {
        self.shared.state().sources = sources;
    }

    /// Takes new settings. A pass that is under way goes on with them.
    pub(crate) fn configure(&self, settings: &Scrub) {
        let mut state = self.shared.state();
        if state.settings == *settings {
            return;
        }
        state.settings = settings.clone();
        drop(state);
        self.shared.interrupted.store(true, Ordering::Relaxed);
        if let Some(stop) = &self.stop {
            // A thread that has ended has said why.
            let _ = stop.send(());
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.shared.interrupted.store(true, Ordering::Relaxed);
        self.shared.state().asked.wake = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, stopped: &Receiver<()>) {
        let mut wait = FIRST_AFTER;
        loop {
            let interval = Duration::from_secs(self.state().settings.interval_seconds);
            let pause = if interval.is_zero() { wait } else { wait.min(interval) };
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) | Ok(()) => {}
            }
            wait = LOOK_EVERY;
            // Before the settings are read: what changes after that is seen.
            self.interrupted.store(false, Ordering::Relaxed);
            let (settings, sources, asked_at) = {
                let state = self.state();
                (state.settings.clone(), state.sources.clone(), state.asked.at)
            };
            if settings.paused || (settings.interval_seconds == 0 && asked_at.is_none()) {
                continue;
            }
            // Who asks wants all to be read that was not read since.
            let verified_before =
                asked_at.unwrap_or_else(|| unix_seconds().saturating_sub(settings.interval_seconds) + 1);
            self.read.store(0, Ordering::Relaxed);
            let begun_at = *self.state().running.insert(asked_at.unwrap_or_else(unix_seconds));
            let done = self.pass(&settings, &sources, verified_before);
            self.note(begun_at, asked_at, &done);
            match done {
                Ok(report) if report.stopped => wait = Duration::ZERO,
                Ok(report) => self.tell(&report),
                Err(error) => {
                    self.count("failed");
                    tracing::error!(store = self.name, error, "packs could not be scrubbed");
                }
            }
        }
    }

    /// Remembers what a pass did, for whoever wants to know. One that was stopped goes on if it was asked for.
    fn note(&self, begun_at: u64, asked_at: Option<u64>, done: &Result<ScrubReport, String>) {
        let mut state = self.state();
        state.running = None;
        let is_stopped = done.as_ref().is_ok_and(|report| report.stopped);
        if asked_at.is_some() && !is_stopped {
            state.asked.at = None;
        }
        let is_idle = done.as_ref().is_ok_and(|report| report.packs == 0) && asked_at.is_none();
        if is_stopped || is_idle {
            return;
        }
        state.last = Some(UpkeepRun {
            begun_at,
            ended_at: Some(unix_seconds()),
            state: if done.is_ok() { "done" } else { "failed" },
            counts: done.as_ref().map(counts).unwrap_or_default(),
        });
    }

    fn pass(
        &self,
        settings: &Scrub,
        sources: &[Arc<dyn ChunkStore>],
        verified_before: u64,
    ) -> Result<ScrubReport, String> {
        let options = ScrubOptions {
            rate: NonZeroU64::new(settings.bytes_per_second).map(|rate| Arc::new(RateLimit::new(rate))),
            verified_before,
            ..ScrubOptions::default()
        };
        let running = metrics::gauge!("store_scrub_running", "store" => self.name.clone());
        running.set(1.0);
        let mut go_on = |bytes| {
            self.read.fetch_add(bytes, Ordering::Relaxed);
            !self.interrupted.load(Ordering::Relaxed)
        };
        let done = self
            .packs
            .scrub(&options, sources, &ScrubFile::in_folder(&self.folder), &mut go_on);
        running.set(0.0);
        let report = done.map_err(|error| chain(&error))?;
        for damage in report.damages.iter().take(LOGGED_MAX) {
            let chunk = damage.id.map(|id| id.to_string());
            let fate = format!("{:?}", damage.fate);
            tracing::warn!(
                store = self.name,
                file = damage.pack,
                offset = damage.offset,
                chunk,
                what = damage.what.word(),
                fate,
                "a pack is damaged"
            );
        }
        for error in &report.errors {
            tracing::warn!(store = self.name, error = chain(error), "a scrub could not do all");
        }
        Ok(report)
    }

    fn count(&self, result: &'static str) {
        metrics::counter!("verify_runs_total", "store" => self.name.clone(), "result" => result).increment(1);
    }

    fn tell(&self, report: &ScrubReport) {
        if report.packs > 0 {
            self.count(if report.damaged > 0 { "damaged" } else { "clean" });
        }
        metrics::gauge!("store_scrub_last_seconds", "store" => self.name.clone()).set(unix_seconds() as f64);
        if report.packs > 0 {
            tracing::info!(
                store = self.name,
                packs = report.packs,
                bytes = report.bytes,
                chunks = report.chunks,
                damaged = report.damaged,
                healed = report.healed,
                "packs were scrubbed"
            );
        }
    }
}

impl Scrubs {
    /// Has all packs read.
    pub(crate) fn start(&self) -> Result<(), UpkeepError> {
        let shared = self.0.upgrade().ok_or(UpkeepError::Leaving)?;
        let mut state = shared.state();
        let (is_running, is_paused) = (state.running.is_some(), state.settings.paused);
        state.asked.ask(is_running, is_paused)
    }

    /// What runs, and what the last one found.
    pub(crate) fn state(&self) -> UpkeepState {
        let Some(shared) = self.0.upgrade() else {
            return UpkeepState::default();
        };
        let state = shared.state();
        let run = |begun_at, word, read| UpkeepRun {
            begun_at,
            ended_at: None,
            state: word,
            counts: BTreeMap::from([("bytes", read)]),
        };
        let runs = state
            .running
            .map(|begun_at| run(begun_at, "read", shared.read.load(Ordering::Relaxed)));
        UpkeepState {
            running: runs.or(state.asked.at.map(|begun_at| run(begun_at, "waiting", 0))),
            last: state.last.clone(),
        }
    }
}

fn counts(report: &ScrubReport) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("packs", report.packs as u64),
        ("bytes", report.bytes),
        ("chunks", report.chunks),
        ("damaged", report.damaged),
        ("healed", report.healed),
        ("unused_damaged", report.unused),
    ])
}
