//! `extract` and `cat`: a blob is rebuilt.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use cairn_store::ChunkStore;
use serde_json::json;

use crate::bar::Unit;
use crate::cli::{Cat, Extract};
use crate::context::Context;
use crate::engine::{self, ExtractOptions};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Rebuilds a blob in a file or on a device.
pub(crate) fn extract(context: &Context, arguments: &Extract) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.sources.access)?;
    let store: Arc<dyn ChunkStore> = context.sources(&arguments.sources)?;
    let seeds = context.seeds(&arguments.seeding, &arguments.sources.access, Some(&arguments.output))?;
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
    let object = json!({
        "bytes-total": report.bytes,
        "chunks-total": report.chunks,
        "chunks-from-store": report.chunks_store,
        "bytes-from-store": report.bytes_store,
        "bytes-copied-from-seeds": report.bytes_seeds - report.bytes_shared,
        "bytes-cloned-from-seeds": report.bytes_shared,
        "bytes-in-place": report.bytes_in_place,
        "bytes-from-self": report.bytes_self,
        "bytes-null": report.bytes_null,
        "seeds": seeds.len(),
        "seed-chunks-bad": report.seed_chunks_bad,
    });
    let lines = format!(
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
