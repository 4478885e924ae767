//! `verify` and `verify-index`: what is there is checked.

use std::sync::Mutex;

use cairn_store::ChunkStore as _;
use serde_json::json;

use crate::bar::Unit;
use crate::cli::{Verify, VerifyIndex};
use crate::context::Context;
use crate::engine;
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Bad chunks that a JSON report lists at most.
const LISTED_MAX: usize = 10_000;

/// Checks a local store.
pub(crate) fn verify(context: &Context, arguments: &Verify) -> Outcome<()> {
    let store = context.local(&arguments.store, None)?;
    let bad = Mutex::new(Vec::new());
    let bar = context.bar("verifying", Unit::Chunks);
    let mut effort = arguments.effort.clone();
    effort.workers = effort.workers.or(arguments.concurrency);
    let on_bad = |error: &cairn_formats::ChunkError| {
        let mut bad = bad.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if bad.len() < LISTED_MAX {
            bad.push(error.to_string());
        }
    };
    let (repair, progress) = (arguments.repair, &context.progress);
    let check = engine::verify_store(&store, context.digest, repair, effort.workers(), progress, &on_bad)?;
    drop(bar);
    let mut bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    bad.sort();
    let mut lines: String = bad.iter().map(|line| format!("{line}\n")).collect();
    lines += &format!(
        "{} chunks, {} stored, {} plain: {} bad{}",
        check.chunks,
        human(check.bytes),
        human(check.bytes_plain),
        check.bad,
        if check.removed > 0 { ", removed" } else { "" }
    );
    let object = json!({
        "chunks": check.chunks,
        "bytes": check.bytes,
        "bytes-plain": check.bytes_plain,
        "bad": check.bad,
        "removed": check.removed,
        "bad-chunks": bad,
    });
    context.report(&object, &lines)?;
    if check.bad == 0 {
        return Ok(());
    }
    let failure = Failure::incomplete(format!(
        "{}: {} of {} chunks are bad",
        store.name(),
        check.bad,
        check.chunks
    ));
    Err(failure.try_this(if arguments.repair {
        "they were removed: store them again with `cairn chop` or `cairn cache`"
    } else {
        "remove them with -r, then store them again with `cairn chop` or `cairn cache`"
    }))
}

/// Checks a blob against its index.
pub(crate) fn verify_index(context: &Context, arguments: &VerifyIndex) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.access)?;
    let bar = context.bar("verifying", Unit::Bytes);
    let workers = arguments.effort.workers();
    let bad = engine::verify_blob(
        &index,
        &arguments.blob,
        arguments.keep_going,
        workers,
        &context.progress,
    )?;
    drop(bar);
    if context.json || arguments.keep_going {
        let list: Vec<_> = bad
            .iter()
            .map(|span| {
                json!({
                    "start": span.range.start,
                    "length": span.range.end - span.range.start,
                    "id": span.id.to_string(),
                    "found": span.found.map(|id| id.to_string()),
                })
            })
            .collect();
        let lines: String = bad
            .iter()
            .map(|span| format!("{}\t{}\n", span.range.start, span.id))
            .collect();
        let lines = format!("{lines}{} of {} chunks are bad", bad.len(), index.len());
        context.report(
            &json!({ "chunks": index.len(), "bad": bad.len(), "bad-chunks": list }),
            &lines,
        )?;
    }
    let Some(first) = bad.first() else { return Ok(()) };
    let found = first.found.map_or_else(
        || "the file ends before".to_owned(),
        |id| format!("the file holds {id}"),
    );
    let message = format!(
        "{}: at byte {} the index names chunk {}, {found}",
        arguments.blob.display(),
        first.range.start,
        first.id
    );
    let failure = if arguments.keep_going {
        Failure::incomplete(message)
    } else {
        Failure::new(message)
    };
    Err(failure.try_this("mend the file with `cairn extract -k`, or make a new index"))
}
