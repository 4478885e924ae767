//! The folders of chunks that the server keeps: packs, or a file per chunk, each opened once however often the settings are
//! read.
//!
//! A folder of packs is locked while it is open, so that a store whose tokens change keeps the one it has; what it was opened
//! with changes with a restart. Packs that are written to have an index of places (`places.rs`); of others it is in memory. A store of packs whose data folder still has a flat one of an older release serves both
//! while `convert.rs` takes the flat one over. Not here: roots, tokens (`routes.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cairn_formats::{ChunkForm, DigestAlgorithm, DomainId};
use cairn_index::RocksEngine;
use cairn_store::{
    Behind, ChunkStore, FlatOptions, FlatStore, MetricsStore, OpenReport, PackEngine, PackOptions, PackStore, Suspect,
    SyncPolicy,
};

use crate::backup::Part;
use crate::care::Care;
use crate::config::{self, Config, Kind};
use crate::convert::{Conversion, Job, OverFlat};
use crate::keeper::Keeper;
use crate::places::Packs;
use crate::routes::chain;
use crate::scrub::Scrubber;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    opened_as: OpenedAs,
    store: Arc<dyn ChunkStore>,
    /// Of packs that are written to: where the chunks lie.
    index: Option<Arc<RocksEngine>>,
    /// Ends with the folder, and before the packs do.
    care: Option<Care>,
    /// As that.
    scrubber: Option<Scrubber>,
    /// Ends with the folder.
    _conversion: Option<Conversion>,
}

/// What a folder was opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenedAs {
    kind: Kind,
    read_only: bool,
    sync: SyncPolicy,
    digest: DigestAlgorithm,
    pack_len: u64,
    queue_len: usize,
    places_cache: usize,
    rooted: bool,
    lease_seconds: u64,
    /// A flat folder of an older release that is taken over.
    flat: Option<PathBuf>,
    convert_rate: u64,
}

/// Folders that are open, by path.
pub(crate) type Folders = BTreeMap<PathBuf, Arc<Folder>>;

impl Folder {
    /// The folder of a store, made if it is missing and the store's own.
    ///
    /// - `open`: those of the settings that were in force until now, and of this one's stores so far; gets this one.
    pub(crate) fn open(
        config: &Config,
        name: &str,
        settings: &config::Store,
        open: &mut Folders,
    ) -> Result<Arc<Self>, String> {
        let path = config.chunk_folder(name, settings);
        let opened_as = OpenedAs::new(config, name, settings)?;
        // A read-only store of a folder that was given is not made up: a mistyped path should be noticed.
        if settings.writable || settings.path.is_none() {
            std::fs::create_dir_all(&path)
                .map_err(|error| format!("cannot make folder {}: {error}", path.display()))?;
        }
        let key = path
            .canonicalize()
            .map_err(|error| format!("cannot open folder {}: {error}", path.display()))?;
        if let Some(folder) = open.get(&key) {
            // Flat stores are cheap to open, and two may share a folder.
            // What was there to be taken over may be gone by now.
            let opened_as = OpenedAs {
                flat: folder.opened_as.flat.clone(),
                ..opened_as.clone()
            };
            if opened_as.kind == Kind::Packs && folder.opened_as != opened_as {
                tracing::warn!(
                    store = name,
                    "kind, sync, digest, pack_len, queue_len, places_cache, rooted, collect.lease_seconds and convert_rate of a \
                     store of packs change with a restart"
                );
            }
            if opened_as.kind == Kind::Packs || folder.opened_as == opened_as {
                return Ok(Arc::clone(folder));
            }
        }
        let folder = Arc::new(Self::open_as(&path, name, opened_as, config)?);
        open.insert(key, Arc::clone(&folder));
        Ok(folder)
    }

    /// Its chunks.
    pub(crate) fn store(&self) -> &Arc<dyn ChunkStore> {
        &self.store
    }

    /// Whether chunks that no index names are deleted from it.
    pub(crate) fn is_rooted(&self) -> bool {
        self.opened_as.rooted
    }

    /// Where its chunks lie, of packs that are written to.
    pub(crate) fn index(&self) -> Option<&RocksEngine> {
        self.index.as_deref()
    }

    /// Who keeps what the indexes of a store name, where chunks are collected.
    ///
    /// - `indexes`: the store's folder of indexes.
    pub(crate) fn keeper(&self, store: &str, indexes: &Path) -> Option<Arc<Keeper>> {
        let care = self.care.as_ref().filter(|_| self.opened_as.rooted)?;
        Some(care.keeper(store, indexes, &self.store))
    }

    /// What a backup needs of packs that are written to.
    ///
    /// - `path`: the folder's.
    pub(crate) fn backup_part(&self, path: &Path) -> Option<Part> {
        Some(self.care.as_ref()?.part(path))
    }

    /// Takes new settings as far as they do not need a restart.
    pub(crate) fn configure(&self, config: &Config) {
        if let Some(care) = &self.care {
            care.configure(&config.collect);
        }
        if let Some(scrubber) = &self.scrubber {
            scrubber.configure(&config.scrub);
        }
    }

    /// Damaged chunks are fetched from these.
    pub(crate) fn repair_from(&self, sources: Vec<Arc<dyn ChunkStore>>) {
        if let Some(scrubber) = &self.scrubber {
            scrubber.repair_from(sources);
        }
    }

    fn open_as(path: &Path, name: &str, opened_as: OpenedAs, config: &Config) -> Result<Self, String> {
        let (mut index, mut care, mut scrubber) = (None, None, None);
        let (store, conversion): (Arc<dyn ChunkStore>, _) = match opened_as.kind {
            Kind::Flat => (flat(path, &opened_as)?, None),
            Kind::Packs => {
                let (engine, opened) = open_packs(path, &opened_as)?;
                if let Some(index) = &opened {
                    care = Some(Care::start(name, &engine, index, opened_as.rooted, &config.collect)?);
                    scrubber = Some(Scrubber::start(name, path, &engine, &config.scrub)?);
                }
                index = opened;
                let packs = PackStore::new(engine, DomainId::default());
                // Where indexes may lie elsewhere, nothing that was put is ever collected.
                let packs = if opened_as.rooted { packs } else { packs.pinning() };
                match &opened_as.flat {
                    None => (metered(Arc::new(packs), "packs"), None),
                    Some(folder) => take_over(packs, folder, name, &opened_as)?,
                }
            }
        };
        Ok(Self {
            opened_as,
            store,
            index,
            care,
            scrubber,
            _conversion: conversion,
        })
    }
}

impl OpenedAs {
    fn new(config: &Config, name: &str, settings: &config::Store) -> Result<Self, String> {
        let kind = Config::kind(settings);
        let (packs, flat) = (config.own_packs(name), config.own_flat(name));
        if kind == Kind::Flat && settings.path.is_none() && PackStore::is_at(&packs) {
            return Err(format!(
                "kind is flat, but the chunks are in packs in {}; write them to {} with `cairnd store export --store {name}`, \
                 then move the packs away",
                packs.display(),
                flat.display()
            ));
        }
        let path = config.chunk_folder(name, settings);
        let is_here = |place: &String| Path::new(place) == path;
        let writes = |other: &config::Store| {
            other.writable && (other.path.as_ref() == Some(&path) || other.mirror.iter().any(is_here))
        };
        Ok(Self {
            kind,
            // Another store may write to the same folder.
            read_only: settings.path.is_some() && !config.stores.values().any(writes),
            sync: match settings.sync {
                config::Sync::Always => SyncPolicy::Sync,
                config::Sync::Batch => SyncPolicy::Batch,
                config::Sync::None => SyncPolicy::None,
            },
            digest: digest_of(settings),
            pack_len: settings.pack_len,
            queue_len: settings.queue_len,
            places_cache: settings.places_cache,
            rooted: settings.rooted,
            lease_seconds: config.collect.lease_seconds,
            flat: (kind == Kind::Packs && settings.path.is_none() && flat.is_dir()).then_some(flat),
            convert_rate: config.limits.convert_rate,
        })
    }
}

/// The digest that names a store's chunks.
pub(crate) fn digest_of(settings: &config::Store) -> DigestAlgorithm {
    match settings.digest {
        config::Digest::Sha512_256 => DigestAlgorithm::Sha512_256,
        config::Digest::Sha256 => DigestAlgorithm::Sha256,
    }
}

/// Logs that a place of a mirrored store is behind, or has caught up.
pub(crate) fn log_behind(store: &cairn_store::StoreName, behind: &Behind) {
    if behind.is_whole() {
        tracing::info!(%store, member = %behind.member, "a place of the mirror has caught up");
    } else {
        tracing::warn!(%store, "{behind}");
    }
}

/// Logs what is not whole in a store of packs.
pub(crate) fn log_suspect(store: &cairn_store::StoreName, suspect: &Suspect) {
    tracing::warn!(
        %store,
        file = suspect.file,
        what = suspect.what,
        "a pack is not whole; what it holds is left alone"
    );
}

/// Packs, and the index of them that is kept, if one is.
fn open_packs(path: &Path, opened_as: &OpenedAs) -> Result<(Arc<PackEngine>, Option<Arc<RocksEngine>>), String> {
    let options = PackOptions {
        algorithm: opened_as.digest,
        sync: opened_as.sync,
        pack_len: opened_as.pack_len,
        queue_len: opened_as.queue_len,
        read_only: opened_as.read_only,
        ..PackOptions::default()
    };
    let begun = Instant::now();
    let (engine, index, report) = if options.read_only {
        // Somebody else may write to it and keep its index.
        let (store, report) = PackStore::open(path, options).map_err(|error| chain(&error))?;
        (Arc::clone(store.engine()), None, report)
    } else {
        let (packs, report) = Packs::open(path, &options, opened_as.places_cache, None)?;
        if let Some(why) = packs.rebuilt {
            tracing::warn!(folder = %path.display(), why, "the index of places was built anew from the packs");
        }
        (packs.engine, Some(packs.index), report)
    };
    log_opened(path, &engine, &report, begun);
    Ok((engine, index))
}

pub(crate) fn log_opened(path: &Path, engine: &PackEngine, report: &OpenReport, begun: Instant) {
    for suspect in &report.suspects {
        log_suspect(engine.name(), suspect);
    }
    let (packs, unsealed) = (report.packs, report.unsealed);
    let milliseconds = begun.elapsed().as_millis() as u64;
    tracing::info!(folder = %path.display(), packs, unsealed, milliseconds, "packs are open");
}

fn open_flat(path: &Path, opened_as: &OpenedAs) -> Result<FlatStore, String> {
    let options = FlatOptions {
        form: ChunkForm::Compressed,
        read_only: opened_as.read_only,
        sync: opened_as.sync,
        ..FlatOptions::default()
    };
    FlatStore::open(path, options).map_err(|error| chain(&error))
}

fn flat(path: &Path, opened_as: &OpenedAs) -> Result<Arc<dyn ChunkStore>, String> {
    Ok(metered(Arc::new(open_flat(path, opened_as)?), "flat"))
}

fn metered(store: Arc<dyn ChunkStore>, backend: &'static str) -> Arc<dyn ChunkStore> {
    Arc::new(MetricsStore::new(store, backend))
}

fn take_over(
    packs: PackStore,
    folder: &Path,
    name: &str,
    opened_as: &OpenedAs,
) -> Result<(Arc<dyn ChunkStore>, Option<Conversion>), String> {
    // Two handles: what is served must not wait for the syncing of files that are about to go.
    let served = OpenedAs {
        read_only: true,
        ..opened_as.clone()
    };
    let job = Job {
        name: name.to_owned(),
        folder: folder.to_owned(),
        flat: open_flat(folder, opened_as)?,
        packs: packs.clone(),
        digest: opened_as.digest,
        rate: opened_as.convert_rate,
    };
    let served = flat(folder, &served)?;
    // It may have ended, and the folder be gone, a moment later.
    let conversion = Conversion::start(job)?;
    let store = OverFlat::new(metered(Arc::new(packs), "packs"), served, conversion.done());
    Ok((Arc::new(store), Some(conversion)))
}
