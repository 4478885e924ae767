//! `cache` and `convert`: chunks go from one store to another.

use std::sync::Mutex;

use cairn_store::ChunkStore;
use serde_json::json;

use crate::bar::Unit;
use crate::cli::{Access, CacheArgs, Convert};
use crate::context::{Context, Purpose};
use crate::engine::{self, CopyOptions, CopyReport, IdSet};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Chunks that could not be had, listed at most.
const LISTED_MAX: usize = 10_000;

/// Copies the chunks of indexes.
pub(crate) fn cache(context: &Context, arguments: &CacheArgs) -> Outcome<()> {
    let storing = &arguments.storing;
    let mut wanted = IdSet::default();
    let mut digest = None;
    for name in &arguments.indexes {
        let index = context.index(name, &storing.access)?;
        if digest
            .replace(index.digest_algorithm())
            .is_some_and(|before| before != index.digest_algorithm())
        {
            return Err(Failure::new(format!(
                "{name}: it uses another digest than the indexes before it"
            )));
        }
        wanted.add(index)?;
    }
    let ignored = super::make::ignored(context, &arguments.ignoring, &storing.access)?;
    let from = context.chain(&arguments.stores, &storing.access)?;
    let (to, _) = context.target(&arguments.cache, &storing.access, &storing.writing)?;
    let options = CopyOptions {
        digest: digest.unwrap_or(context.digest),
        encode: None,
        keep_going: arguments.keep_going,
        dry_run: arguments.dry_run,
        workers: storing.effort.workers(),
    };
    context.progress.set_total(wanted.unique().count() as u64);
    let mut ids = |take: &mut dyn FnMut(cairn_formats::ChunkId) -> cairn_store::Result<()>| {
        wanted
            .unique()
            .map(|span| span.id)
            .filter(|&id| !ignored.contains(id))
            .try_for_each(take)
    };
    carry(context, "copying", &*from, &*to, options, &mut ids)
}

/// Writes a store's chunks anew.
pub(crate) fn convert(context: &Context, arguments: &Convert) -> Outcome<()> {
    let access = Access::default();
    let from = context.prunable(&arguments.store, &access, Purpose::Read)?;
    let from = from.chunks();
    let (to, form) = context.target(&arguments.target, &access, &arguments.writing)?;
    let options = CopyOptions {
        digest: context.digest,
        encode: Some((form, arguments.writing.level())),
        keep_going: arguments.keep_going,
        dry_run: false,
        workers: arguments.effort.workers(),
    };
    carry(context, "converting", from, &*to, options, &mut |take| {
        from.for_each_id(take)
    })
}

pub(crate) type Ids<'a> =
    &'a mut dyn FnMut(&mut dyn FnMut(cairn_formats::ChunkId) -> cairn_store::Result<()>) -> cairn_store::Result<()>;

/// Copies chunks and says how it went.
pub(crate) fn carry(
    context: &Context,
    what: &'static str,
    from: &dyn ChunkStore,
    to: &dyn ChunkStore,
    options: CopyOptions,
    ids: Ids<'_>,
) -> Outcome<()> {
    let bad = Mutex::new(Vec::new());
    let bar = context.bar(what, Unit::Chunks);
    let report = engine::copy(from, to, options, &context.progress, ids, &|error| {
        let mut bad = bad.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if bad.len() < LISTED_MAX {
            bad.push(crate::failure::chain(error));
        }
    })?;
    drop(bar);
    let bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if context.json || context.verbose || options.dry_run || !bad.is_empty() {
        say(context, &report, &bad, options.dry_run)?;
    }
    match report.failed {
        0 => Ok(()),
        failed => Err(
            Failure::incomplete(format!("{failed} of {} chunks could not be had", report.chunks))
                .try_this("name another store with -s"),
        ),
    }
}

fn say(context: &Context, report: &CopyReport, bad: &[String], dry_run: bool) -> Outcome<()> {
    let object = json!({
        "chunks": report.chunks,
        "present": report.present,
        "copied": report.copied,
        "bytes-copied": report.bytes,
        "failed": report.failed,
        "bad-chunks": bad,
        "dry-run": dry_run,
    });
    let mut lines: String = bad.iter().map(|line| format!("{line}\n")).collect();
    lines += &format!(
        "{} chunks: {} there already, {} {} ({}), {} could not be had",
        report.chunks,
        report.present,
        report.copied,
        if dry_run { "to copy" } else { "copied" },
        human(report.bytes),
        report.failed
    );
    context.report(&object, &lines)
}
