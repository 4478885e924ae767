//! `prune`: chunks that no given index names are deleted.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use cairn_formats::ChunkId;
use serde_json::json;

use crate::bar::Unit;
use crate::cli::Prune;
use crate::context::Context;
use crate::engine::{Cancelled, Error, IdSet};
use crate::failure::{Failure, Outcome};

/// Chunks deleted together.
const BATCH_CHUNKS: usize = 1024;

/// Temporary files of this age belong to nobody: no writer keeps one open for a day.
const STALE_AFTER: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Deletes what is not kept.
pub(crate) fn prune(context: &Context, arguments: &Prune) -> Outcome<()> {
    let mut kept = IdSet::default();
    for name in &arguments.indexes {
        kept.add(context.index(name, &arguments.access)?)?;
    }
    let store = context.prunable(&arguments.store, &arguments.access)?;
    if !(arguments.yes || arguments.dry_run) {
        confirm(&kept, &store.name().to_string())?;
    }
    let bar = context.bar("pruning", Unit::Chunks);
    let (mut chunks, mut deleted, mut batch) = (0u64, 0u64, Vec::new());
    let mut cancelled = false;
    store.for_each_id(&mut |id: ChunkId| {
        // Whatever was deleted so far was not wanted: stopping here leaves a sound store.
        cancelled |= context.progress.check().is_err();
        chunks += 1;
        context.progress.advance(1);
        if !cancelled && !kept.contains(id) {
            deleted += 1;
            batch.push(id);
        }
        if batch.len() == BATCH_CHUNKS {
            remove(&*store, &mut batch, arguments.dry_run)?;
        }
        Ok(())
    })?;
    remove(&*store, &mut batch, arguments.dry_run)?;
    let stale = if arguments.dry_run {
        0
    } else {
        store.remove_stale_temporaries(STALE_AFTER)?
    };
    drop(bar);
    if cancelled {
        return Err(Error::Cancelled(Cancelled).into());
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

fn remove(store: &dyn cairn_store::Prune, batch: &mut Vec<ChunkId>, dry_run: bool) -> cairn_store::Result<()> {
    if !dry_run {
        store.remove_many(batch)?;
    }
    batch.clear();
    Ok(())
}

fn confirm(kept: &IdSet, store: &str) -> Outcome<()> {
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
