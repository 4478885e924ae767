//! What `mount-index` and `mount` share: the ready line, signals, the end; and stores that can be swapped meanwhile.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};
use cairn_store::{ChunkStat, ChunkStore, StoreName};
use crossbeam_channel::{Receiver, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::{Mounting, ReloadableSources};
use crate::context::Context;
use crate::engine::BlobOptions;
use crate::engine::mount::{MountOptions, Mounted, Report, Unmounted};
use crate::failure::{Exit, Failure, Outcome};
use crate::verbs::serve::sources_now;

/// How much a mounted blob keeps and fetches ahead.
pub(super) fn blob_options(mounting: &Mounting) -> BlobOptions {
    let standard = BlobOptions::default();
    BlobOptions {
        cache_len: mounting.memory_limit,
        // What is fetched ahead has to stay until it is read.
        readahead_len: standard.readahead_len.min(mounting.memory_limit / 2),
        ..standard
    }
}

pub(super) fn mount_options(mounting: &Mounting, writable: bool) -> MountOptions {
    MountOptions {
        allow_other: mounting.allow_other,
        writable,
    }
}

/// Says on standard output that the mount is there.
pub(super) fn say_ready(context: &Context, object: &serde_json::Value, line: &str) {
    let text = if context.json {
        object.to_string()
    } else {
        line.to_owned()
    };
    let mut output = std::io::stdout().lock();
    // Whoever started us may have closed it; the mount serves all the same.
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// A line, or an object, on standard error for what went wrong under a mount.
pub(super) fn report(json: bool) -> Report {
    Report::new(move |message| eprintln!("{}", Failure::new(message).line(json)))
}

/// Signals from now on: to be called before anything is mounted, so that none is missed.
pub(super) fn signals() -> Outcome<Receiver<i32>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])
        .map_err(|error| Failure::io("signals", "listen for them", &error))?;
    let (sender, receiver) = crossbeam_channel::unbounded();
    std::thread::spawn(move || signals.forever().try_for_each(|signal| sender.send(signal)));
    Ok(receiver)
}

/// Stays until the mount ends: by SIGINT or SIGTERM, or because somebody unmounted it.
pub(super) fn stay(
    context: &Context,
    mut mounted: Mounted,
    folder: &Path,
    signals: &Receiver<i32>,
    hangup: &dyn Fn(),
) -> Outcome<()> {
    let mut told_to_end = false;
    loop {
        select! {
            recv(mounted.ended()) -> end => {
                let end = end.unwrap_or_else(|_| Err(std::io::Error::other("its threads are gone")));
                // Nobody waits any more for what is still being fetched.
                context.progress.cancel_flag().store(true, Ordering::Relaxed);
                return end.map_err(|error| Failure::io(folder.display(), "serve the mount", &error));
            }
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => hangup(),
                _ if told_to_end => {
                    context.progress.cancel_flag().store(true, Ordering::Relaxed);
                    return Err(Failure {
                        exit: Exit::Interrupted,
                        message: format!("{}: ended while files were open", folder.display()),
                        hint: None,
                    });
                }
                _ => {
                    told_to_end = true;
                    context.say(|| format!("unmounting {}", folder.display()));
                    if mounted.unmount()? == Unmounted::InUse {
                        eprintln!(
                            "cairn: {}: unmounted, but files are open and are served until they are closed; another signal ends it now",
                            folder.display()
                        );
                    }
                }
            },
        }
    }
}

/// The stores of a mount, which a store file may change under load.
#[derive(Debug)]
pub(super) struct SwapStore {
    name: StoreName,
    store: RwLock<Arc<dyn ChunkStore>>,
}

impl SwapStore {
    pub(super) fn open(context: &Context, sources: &ReloadableSources) -> Outcome<Arc<Self>> {
        let store = context.sources(&sources_now(sources)?)?;
        Ok(Arc::new(Self {
            name: store.name().clone(),
            store: RwLock::new(store),
        }))
    }

    /// Opens the stores again that a store file names; those before them stay when that fails.
    pub(super) fn reload(&self, context: &Context, sources: &ReloadableSources) {
        if sources.store_file.is_none() {
            return;
        }
        match sources_now(sources).and_then(|sources| context.sources(&sources)) {
            Ok(new) => *self.store.write().unwrap_or_else(PoisonError::into_inner) = new,
            Err(failure) => eprintln!("{}; the stores before it stay", failure.line(context.json)),
        }
    }

    fn now(&self) -> Arc<dyn ChunkStore> {
        Arc::clone(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for SwapStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> cairn_store::Result<Vec<bool>> {
        self.now().has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<cairn_store::Result<EncodedChunk>> {
        self.now().get_many(ids)
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> cairn_store::Result<()> {
        self.now().put_many(chunks)
    }

    fn flush(&self) -> cairn_store::Result<()> {
        self.now().flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> cairn_store::Result<Option<ChunkStat>> {
        self.now().stat(id, form)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.now().get_resident(id, form)
    }

    fn is_far(&self) -> bool {
        self.now().is_far()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> cairn_store::Result<bool> {
        self.now().set_aside(damaged)
    }
}
