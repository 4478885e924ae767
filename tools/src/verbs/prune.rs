//! `prune`: chunks that no given index names are deleted.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use cairn_formats::ChunkId;
use serde_json::json;

use crate::bar::Unit;
use crate::cli::Prune;
use crate::context::{Context, Purpose};
use crate::engine::{Cancelled, Error, IdSet};
use crate::failure::{Failure, Outcome};

/// Chunks deleted together.
const BATCH_CHUNKS: usize = 1024;

/// Temporary files of this age belong to nobody: no writer keeps one open for a day.
const STALE_AFTER: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Packs of which less than this is still needed are written anew at once.
const LIVE_SHARE_MIN: f64 = 0.5;

/// Deletes what is not kept.
pub(crate) fn prune(context: &Context, arguments: &Prune) -> Outcome<()> {
    let mut kept = IdSet::default();
    for name in &arguments.indexes {
        kept.add(context.index(name, &arguments.access)?)?;
    }
    let purpose = if arguments.dry_run {
        Purpose::Read
    } else {
        Purpose::Change
    };
    let store = context.prunable(&arguments.store, &arguments.access, purpose)?;
    if !(arguments.yes || arguments.dry_run) {
        confirm(&kept, &store.chunks().name().to_string())?;
    }
    let packs = store.packs().filter(|_| !arguments.dry_run);
    let _owner = packs.map(|packs| packs.own(false)).transpose()?;
    let Sweep { chunks, deleted } = sweep(context, &kept, store.chunks(), arguments.dry_run)?;
    let mut stale = 0;
    if !arguments.dry_run {
        stale = store.chunks().remove_stale_temporaries(STALE_AFTER)?;
        if let Some(packs) = packs {
            packs.compact(LIVE_SHARE_MIN)?;
        }
    }
    if context.json || context.verbose || arguments.dry_run {
        let object = json!({
            "chunks": chunks,
            "deleted": deleted,
            "temporaries-deleted": stale,
            "dry-run": arguments.dry_run,
        });
        let done = if arguments.dry_run {
            "would be deleted"
        } else {
            "deleted"
        };
        context.report(&object, &format!("{deleted} of {chunks} chunks {done}"))?;
    }
    Ok(())
}

/// What was looked at and deleted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sweep {
    pub(crate) chunks: u64,
    pub(crate) deleted: u64,
}

/// Deletes every chunk that is not kept.
pub(crate) fn sweep(context: &Context, kept: &IdSet, store: &dyn cairn_store::Prune, dry_run: bool) -> Outcome<Sweep> {
    let bar = context.bar("pruning", Unit::Chunks);
    let (mut sweep, mut batch) = (Sweep::default(), Vec::new());
    let mut cancelled = false;
    store.for_each_id(&mut |id: ChunkId| {
        // Whatever was deleted so far was not wanted: stopping here leaves a sound store.
        cancelled |= context.progress.check().is_err();
        sweep.chunks += 1;
        context.progress.advance(1);
        if !cancelled && !kept.contains(id) {
            sweep.deleted += 1;
            batch.push(id);
        }
        if batch.len() == BATCH_CHUNKS {
            remove(store, &mut batch, dry_run)?;
        }
        Ok(())
    })?;
    remove(store, &mut batch, dry_run)?;
    drop(bar);
    if cancelled {
        return Err(Error::Cancelled(Cancelled).into());
    }
    Ok(sweep)
}

fn remove(store: &dyn cairn_store::Prune, batch: &mut Vec<ChunkId>, dry_run: bool) -> cairn_store::Result<()> {
    if !dry_run {
        store.remove_many(batch)?;
    }
    batch.clear();
    Ok(())
}

/// Asks.
pub(crate) fn confirm(kept: &IdSet, store: &str) -> Outcome<()> {
    let refused =
        || Failure::usage("nothing was deleted: confirm with -y").try_this("see what would go with --dry-run");
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    let count = kept.unique().count();
    eprint!("The given indexes name {count} chunks. Delete all others from {store}? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stderr()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.map_err(|error| Failure::io("standard input", "read the answer", &error))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(refused())
    }
}
