//! `cairnd store gc`: the chunks that no index names, and the space of what was deleted, while no server uses the folder.
//!
//! Packs are collected as the server collects those of a rooted store, with the indexes of the store and the given ones as what is
//! named; a dry run tells what that would delete and writes nothing. Flat folders are listed and deleted from.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, DomainId};
use cairn_index::{
    CollectControl, CollectOptions, CollectReport, Collector, Database, Engine, MemoryEngine, SnapshotPolicy,
};
use cairn_store::{ChunkKey, ChunkStore, CompactOptions, CompactReport, LogPosition, PackEngine, PackStore, Prune};
use serde_json::json;

use crate::care;
use crate::config::{Config, Store};
use crate::keeper::Keeper;
use crate::routes::chain;
use crate::store_verbs::{Own, Say};

/// What is asked for.
pub(crate) struct Gc<'a> {
    /// Delete what no index names, these and those of the store; `None`: only get space back.
    pub(crate) prune: Option<&'a [PathBuf]>,
    pub(crate) dry_run: bool,
    /// Packs are written anew when less than this share of them is needed.
    pub(crate) live_share: f64,
    /// Also those that are kept because of their damage.
    pub(crate) release_damaged: bool,
}

impl Gc<'_> {
    pub(crate) fn run(
        &self,
        config: &Config,
        name: &str,
        settings: &Store,
        own: &Own,
        say: &Say<'_>,
    ) -> Result<ExitCode, String> {
        if !(0.0..=1.0).contains(&self.live_share) {
            return Err(format!("--live-share: {} is not from 0 to 1", self.live_share));
        }
        if let (Some(_), Some(flat)) = (&own.packs, &own.flat) {
            return Err(format!(
                "{} is not taken over into packs yet; start cairnd and let it do that first",
                flat.name()
            ));
        }
        // All stores whose chunks lie in the folder.
        let sharing = config
            .stores
            .iter()
            .filter(|(other, of)| *other == name || config.chunk_folder(other, of) == own.folder)
            .map(|(other, of)| (other.as_str(), config.index_folder(other, of)));
        let sharing: Vec<(&str, PathBuf)> = sharing.collect();
        let kept = match self.prune {
            None => None,
            Some(named) => {
                let mut kept = HashSet::new();
                sharing
                    .iter()
                    .try_for_each(|(_, folder)| add_folder(folder, &mut kept))?;
                named.iter().try_for_each(|file| add_index(file, &mut kept))?;
                Some(kept)
            }
        };
        if let Some(packs) = own.packs.as_ref().filter(|_| self.release_damaged) {
            packs.engine().release_damaged();
        }
        let (mut chunks, mut deleted) = (0, 0);
        let mut space = CompactReport::default();
        match (&own.packs, &kept) {
            (None, Some(kept)) => {
                for part in own.parts() {
                    let (seen, gone) = self.prune_flat(part, kept)?;
                    (chunks, deleted) = (chunks + seen, deleted + gone);
                }
            }
            (Some(packs), Some(kept)) => {
                let report = self.collect(config, settings, own, packs, &sharing, kept)?;
                let condemned = report.condemned_total();
                deleted = if self.dry_run {
                    condemned.chunks
                } else {
                    report.swept.chunks
                };
                chunks = report.named.chunks + report.pinned.chunks + report.recent.chunks + condemned.chunks;
                space = report.compacted;
            }
            (_, None) => {}
        }
        if let Some(packs) = own.packs.as_ref().filter(|_| !self.dry_run) {
            let options = CompactOptions {
                live_share_min: self.live_share,
                // Batches of the index stay, unless a snapshot has them.
                commits_kept_from: LogPosition::default(),
            };
            let more = packs.engine().compact(&options).map_err(|error| chain(&error))?;
            space.packs_removed += more.packs_removed;
            space.bytes_removed += more.bytes_removed;
            space.bytes_moved += more.bytes_moved;
        }
        let done = if self.dry_run { "would be deleted" } else { "deleted" };
        let (removed, bytes, moved) = (space.packs_removed, space.bytes_removed, space.bytes_moved);
        say(
            json!({
                "chunks": chunks, "deleted": deleted, "packs-removed": removed, "bytes-removed": bytes,
                "bytes-moved": moved, "dry-run": self.dry_run,
            }),
            &format!("{deleted} chunks {done}, {removed} packs removed ({bytes} bytes), {moved} bytes written anew"),
        )?;
        Ok(ExitCode::SUCCESS)
    }

    fn collect(
        &self,
        config: &Config,
        settings: &Store,
        own: &Own,
        packs: &PackStore,
        sharing: &[(&str, PathBuf)],
        kept: &HashSet<ChunkId>,
    ) -> Result<CollectReport, String> {
        let key = |id: &ChunkId| ChunkKey {
            domain: DomainId::default(),
            id: *id,
        };
        let options = CollectOptions {
            dry_run: self.dry_run,
            also_named: kept.iter().map(key).collect(),
            // Nobody reads or writes.
            grace: Duration::ZERO,
            bytes_per_second: None,
            reserve: false,
            // That may take days, and is the server's.
            recompress: None,
            // The last of it is `compact`'s, by what was asked for.
            dead_share_max: f64::MAX,
            snapshots: SnapshotPolicy {
                bytes_min: 0,
                held_min: 0,
                growth: 0.0,
            },
            ..care::options(
                &config.collect,
                LogPosition {
                    pack: u32::MAX,
                    offset: 0,
                },
            )
        };
        let engine = packs.engine();
        let Some(index) = own.index.as_ref().filter(|_| !self.dry_run) else {
            // What is named is in the files: no row has to be known.
            return collect(Arc::new(Database::new(Arc::new(MemoryEngine::new()))), engine, &options);
        };
        let rows = Arc::new(Database::logged(Arc::clone(index), Arc::clone(engine) as Arc<_>));
        if settings.rooted {
            // Manifests of files that are gone would keep their chunks.
            let chunks: Arc<dyn ChunkStore> = Arc::new(packs.clone());
            for (store, folder) in sharing {
                Keeper::new(store, folder, Arc::clone(&rows), Arc::clone(&chunks)).reconcile()?;
            }
        }
        collect(rows, engine, &options)
    }

    /// Deletes what is not kept; how many chunks there are, and how many go.
    fn prune_flat(&self, part: &dyn Prune, kept: &HashSet<ChunkId>) -> Result<(u64, u64), String> {
        let mut chunks = 0;
        let mut unwanted = Vec::new();
        let listed = part.for_each_id(&mut |id| {
            chunks += 1;
            if !kept.contains(&id) {
                unwanted.push(id);
            }
            Ok(())
        });
        listed.map_err(|error| chain(&error))?;
        if !self.dry_run {
            part.remove_many(&unwanted).map_err(|error| chain(&error))?;
        }
        Ok((chunks, unwanted.len() as u64))
    }
}

fn collect<E: Engine + 'static>(
    rows: Arc<Database<E>>,
    packs: &Arc<PackEngine>,
    options: &CollectOptions,
) -> Result<CollectReport, String> {
    Collector::new(rows, Arc::clone(packs), Duration::ZERO)
        .and_then(|collector| collector.collect(options, &CollectControl::new()))
        .map_err(|error| chain(&error))
}

/// Adds the chunks of every index in a folder. One that cannot be read is an error: nothing may be deleted on the word of the
/// others.
fn add_folder(folder: &Path, kept: &mut HashSet<ChunkId>) -> Result<(), String> {
    crate::keeper::index_files(folder)?
        .iter()
        .try_for_each(|file| add_index(file, kept))
}

fn add_index(file: &Path, kept: &mut HashSet<ChunkId>) -> Result<(), String> {
    let bytes = match fs::read(file) {
        // A link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_symlink() => return Ok(()),
        bytes => bytes.map_err(|error| format!("cannot read {}: {error}", file.display()))?,
    };
    let index = ChunkIndex::parse(Bytes::from(bytes))
        .map_err(|error| format!("{}: {error}; nothing was deleted", file.display()))?;
    kept.extend(index.spans().map(|span| span.id));
    Ok(())
}
