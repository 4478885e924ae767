//! `extract` and `cat`: a blob is rebuilt.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use cairn_formats::ChunkIndex;
use cairn_store::{ChunkStore, ChunkStoreExt as _};
use serde_json::json;

use crate::bar::Unit;
use crate::cli::{Cat, Extract};
use crate::context::Context;
use crate::engine::{self, ExtractOptions, ExtractReport, Seed};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Rebuilds a blob in a file or on a device.
pub(crate) fn extract(context: &Context, arguments: &Extract) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.sources.access)?;
    let store: Arc<dyn ChunkStore> = context.sources(&arguments.sources)?;
    let access = &arguments.sources.access;
    let seeds = context.seeds(&arguments.seeding, access, Some(&arguments.output), &index)?;
    if arguments.dry_run {
        return dry_run(context, arguments, &index, &*store, &seeds);
    }
    let options = ExtractOptions {
        in_place: arguments.in_place,
        sync: arguments.fsync,
        reflink: !arguments.no_reflink,
        sparse: !arguments.no_sparse,
        workers: arguments.effort.workers(),
    };
    let bar = context.bar("extracting", Unit::Bytes);
    let report = engine::extract(&index, &arguments.output, &*store, &seeds, &options, &context.progress)?;
    drop(bar);
    for seed in seeds.iter().filter(|seed| seed.bad_chunks() > 0) {
        let (bad, path) = (seed.bad_chunks(), seed.path().display());
        eprintln!("cairn: seed {path}: {bad} chunks are not what its index says; they were taken from elsewhere");
    }
    if !(arguments.print_stats || context.json || context.verbose) {
        return Ok(());
    }
    report_extract(context, &report, seeds.len(), None)
}

/// Tells what an extraction would take from where.
fn dry_run(
    context: &Context,
    arguments: &Extract,
    index: &ChunkIndex,
    store: &dyn ChunkStore,
    seeds: &[Seed],
) -> Outcome<()> {
    let path = &arguments.output;
    let held = match arguments.in_place {
        true if path.exists() => Some(File::open(path).map_err(|error| Failure::io(path.display(), "open", &error))?),
        _ => None,
    };
    let bar = context.bar("planning", Unit::Bytes);
    let mut missing = 0;
    let held = held.as_ref().map(|file| (file, path.as_path()));
    let report = engine::plan(index, held, seeds, &context.progress, &mut |ids| {
        missing += store.absent(ids)?.len() as u64;
        Ok(())
    })?;
    drop(bar);
    report_extract(context, &report, seeds.len(), Some(missing))
}

fn report_extract(context: &Context, report: &ExtractReport, seeds: usize, missing: Option<u64>) -> Outcome<()> {
    let mut object = json!({
        "bytes-total": report.bytes,
        "chunks-total": report.chunks,
        "chunks-from-store": report.chunks_store,
        "bytes-from-store": report.bytes_store,
        "bytes-copied-from-seeds": report.bytes_seeds - report.bytes_shared,
        "bytes-cloned-from-seeds": report.bytes_shared,
        "bytes-in-place": report.bytes_in_place,
        "bytes-from-self": report.bytes_self,
        "bytes-null": report.bytes_null,
        "seeds": seeds,
        "seed-chunks-bad": report.seed_chunks_bad,
    });
    let mut lines = format!(
        "{} in {} chunks: {} from the store, {} from seeds ({} shared), {} in place, {} repeated, {} zeros",
        human(report.bytes),
        report.chunks,
        human(report.bytes_store),
        human(report.bytes_seeds),
        human(report.bytes_shared),
        human(report.bytes_in_place),
        human(report.bytes_self),
        human(report.bytes_null)
    );
    if let Some(missing) = missing {
        object["chunks-missing"] = missing.into();
        lines += &format!("; {missing} chunks are missing in the store");
    }
    context.report(&object, &lines)
}

/// Writes a blob or a part of it.
pub(crate) fn cat(context: &Context, arguments: &Cat) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.sources.access)?;
    let store: Arc<dyn ChunkStore> = context.sources(&arguments.sources)?;
    let len = index.blob_len();
    if arguments.offset > len {
        return Err(Failure::new(format!(
            "{}: it has {len} bytes, there is no byte {}",
            arguments.index, arguments.offset
        )));
    }
    let end = match arguments.length {
        0 => len,
        wanted => arguments.offset.saturating_add(wanted).min(len),
    };
    let mut output: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(File::create(path).map_err(|error| Failure::io(path.display(), "create", &error))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let bar = context.bar("writing", Unit::Bytes);
    let workers = arguments.effort.workers();
    let result = engine::cat(
        &index,
        arguments.offset..end,
        &*store,
        workers,
        &mut *output,
        &context.progress,
    );
    drop(bar);
    match result {
        // `| head` has seen enough.
        Err(engine::Error::File { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
