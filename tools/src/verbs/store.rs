//! `store`: a store as a whole. Packs are read by their footers.

use std::io::{BufWriter, Write as _};
use std::num::NonZeroU64;
use std::thread;

use cairn_formats::{ChunkForm, ChunkId, Level};
use cairn_store::{
    ChunkStore, ChunkStoreExt as _, CompactReport, Location, LogPosition, PackStore, RateLimit, RecompressOptions,
    RecompressReport,
};
use serde_json::json;

use super::copy::carry;
use super::prune;
use crate::bar::Unit;
use crate::cli::{
    Access, StoreArgs, StoreCopy, StoreExport, StoreGc, StoreInit, StoreKind, StoreLs, StoreStat, StoreVerb,
    StoreVerify,
};
use crate::context::{Context, Packs, Prunable, Purpose, make_folder, print};
use crate::engine::{CopyOptions, IdSet};
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Chunks asked for together.
const BATCH_CHUNKS: usize = 1024;

/// Does what is asked with a store.
pub(crate) fn store(context: &Context, arguments: &StoreArgs) -> Outcome<()> {
    match &arguments.verb {
        StoreVerb::Init(arguments) => init(context, arguments),
        StoreVerb::Stat(arguments) => stat(context, arguments),
        StoreVerb::Ls(arguments) => ls(context, arguments),
        StoreVerb::Verify(arguments) => verify(context, arguments),
        StoreVerb::Copy(arguments) => copy(context, arguments),
        StoreVerb::Gc(arguments) => gc(context, arguments),
        StoreVerb::Export(arguments) => export(context, arguments),
    }
}

fn init(context: &Context, arguments: &StoreInit) -> Outcome<()> {
    let StoreInit { store, kind, access } = arguments;
    match kind {
        StoreKind::Packs => context.make_packs(store, access)?,
    }
    context.report(
        &json!({ "store": store, "kind": "packs" }),
        &format!("{store} is a pack store"),
    )
}

/// What `stat` tells.
#[derive(Default)]
struct Stat {
    chunks: u64,
    bytes_plain: Option<u64>,
    bytes_frames: u64,
    bytes_stored: u64,
    packs: Option<usize>,
}

fn stat(context: &Context, arguments: &StoreStat) -> Outcome<()> {
    let store = context.prunable(&arguments.store, &arguments.access, Purpose::Read)?;
    let stat = match store.packs() {
        Some(packs) => packs_stat(packs)?,
        None => flat_stat(context, &store, &arguments.store)?,
    };
    let live = share(stat.bytes_frames, stat.bytes_stored);
    let mut object = json!({
        "store": arguments.store,
        "kind": if stat.packs.is_some() { "packs" } else { "flat" },
        "chunks": stat.chunks,
        "bytes-unique": stat.bytes_plain,
        "bytes-frames": stat.bytes_frames,
        "bytes-stored": stat.bytes_stored,
        "packs": stat.packs,
        "live-share": live,
    });
    let mut lines = format!("chunks: {}\n", stat.chunks);
    if let Some(bytes) = stat.bytes_plain {
        lines += &format!("unique: {} ({bytes} bytes, plain)\n", human(bytes));
    }
    lines += &format!("stored: {} ({} bytes)\n", human(stat.bytes_stored), stat.bytes_stored);
    if let Some(packs) = stat.packs {
        lines += &format!("packs: {packs}, of which {:.1} % is needed\n", live * 100.0);
    }
    let mut missing = 0;
    if !arguments.indexes.is_empty() {
        let named = named(context, &arguments.indexes, &arguments.access)?;
        missing = count_missing(&named.ids, store.chunks())?;
        object["bytes-logical"] = json!(named.bytes);
        object["chunks-named"] = json!(named.chunks);
        object["chunks-missing"] = json!(missing);
        lines += &format!(
            "logical: {} ({} bytes in {} chunks, repeats counted)\nmissing: {missing}\n",
            human(named.bytes),
            named.bytes,
            named.chunks
        );
    }
    context.report(&object, &lines)?;
    if missing > 0 {
        return Err(Failure::incomplete(format!(
            "{}: {missing} chunks that the indexes name are not there",
            arguments.store
        )));
    }
    Ok(())
}

/// - `name`: the store's, as written.
fn flat_stat(context: &Context, store: &Prunable, name: &str) -> Outcome<Stat> {
    let mut stat = Stat::default();
    let bar = context.bar("counting", Unit::Chunks);
    let is_flat = store.for_each_file(&mut |_, len| {
        stat.chunks += 1;
        stat.bytes_frames += len;
        context.progress.advance(1);
        Ok(())
    })?;
    drop(bar);
    stat.bytes_stored = stat.bytes_frames;
    if is_flat { Ok(stat) } else { Err(one_alone(name)) }
}

/// The stores of a mirror are not counted together.
fn one_alone(store: &str) -> Failure {
    Failure::usage(format!("{store}: this works on one store alone")).try_this("name one store of the mirror")
}

fn packs_stat(packs: Packs<'_>) -> Outcome<Stat> {
    let packs = packs.stats()?;
    let sum = |of: fn(&cairn_store::PackStat) -> u64| packs.iter().map(of).sum();
    Ok(Stat {
        chunks: sum(|pack| pack.live_chunks),
        bytes_plain: Some(sum(|pack| pack.live_bytes_plain)),
        bytes_frames: sum(|pack| pack.live_bytes),
        bytes_stored: sum(|pack| pack.bytes),
        packs: Some(packs.len()),
    })
}

/// A share; that of nothing is all.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// What indexes name.
struct Named {
    ids: IdSet,
    chunks: u64,
    bytes: u64,
}

fn named(context: &Context, indexes: &[String], access: &Access) -> Outcome<Named> {
    let mut named = Named {
        ids: IdSet::default(),
        chunks: 0,
        bytes: 0,
    };
    for name in indexes {
        let index = context.index(name, access)?;
        named.chunks += index.len() as u64;
        named.bytes += index.blob_len();
        named.ids.add(index)?;
    }
    Ok(named)
}

fn count_missing(ids: &IdSet, store: &dyn ChunkStore) -> Outcome<u64> {
    let mut missing = 0;
    let mut batch: Vec<ChunkId> = Vec::with_capacity(BATCH_CHUNKS);
    let mut ask = |batch: &mut Vec<ChunkId>| -> Outcome<()> {
        missing += store.absent(batch)?.len() as u64;
        batch.clear();
        Ok(())
    };
    for span in ids.unique() {
        batch.push(span.id);
        if batch.len() == BATCH_CHUNKS {
            ask(&mut batch)?;
        }
    }
    ask(&mut batch)?;
    Ok(missing)
}

fn ls(context: &Context, arguments: &StoreLs) -> Outcome<()> {
    let store = context.prunable(&arguments.store, &arguments.access, Purpose::Read)?;
    let mut page = Page::new(context);
    match (store.packs(), arguments.packs) {
        (None, true) => {
            return Err(Failure::usage(format!(
                "{} is a flat store, without packs",
                arguments.store
            )));
        }
        (Some(packs), true) => {
            for pack in packs.stats()? {
                let live = share(pack.live_bytes, pack.bytes);
                page.line(
                    || {
                        json!({
                            "number": pack.number, "uuid": pack.uuid.to_string(), "bytes": pack.bytes, "sealed": pack.sealed,
                            "live-chunks": pack.live_chunks, "live-bytes": pack.live_bytes, "live-share": live,
                        })
                    },
                    || {
                        let sealed = if pack.sealed { "" } else { " open" };
                        format!(
                            "{:08x} {} {} {} {:.3}{sealed}",
                            pack.number, pack.uuid, pack.bytes, pack.live_chunks, live
                        )
                    },
                );
            }
        }
        (Some(packs), false) => packs.for_each_in_order(&mut |key, place| {
            page.line(
                || {
                    json!({
                        "id": key.id.to_string(), "bytes": place.len, "bytes-plain": place.plain_len, "pack": place.pack,
                        "offset": place.offset, "domain": key.domain.0, "pinned": place.pinned,
                    })
                },
                || format!("{} {} {} {:08x}:{}", key.id, place.len, place.plain_len, place.pack, place.offset),
            );
            page.written()
        })?,
        (None, false) => {
            let is_flat = store.for_each_file(&mut |chunk, len| {
                let form = match chunk.form {
                    ChunkForm::Compressed => "compressed",
                    ChunkForm::Plain => "plain",
                };
                page.line(
                    || json!({ "id": chunk.id.to_string(), "bytes": len, "form": form }),
                    || format!("{} {len} {form}", chunk.id),
                );
                page.written()
            })?;
            if !is_flat {
                return Err(one_alone(&arguments.store));
            }
        }
    }
    page.end()
}

/// Lines on standard output, objects with `--json`, gathered.
struct Page<'a> {
    json: bool,
    context: &'a Context,
    text: BufWriter<Vec<u8>>,
}

/// Bytes of lines that are gathered.
const PAGE_LEN: usize = 1 << 16;

impl<'a> Page<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            json: context.json,
            context,
            text: BufWriter::new(Vec::new()),
        }
    }

    fn line(&mut self, object: impl FnOnce() -> serde_json::Value, line: impl FnOnce() -> String) {
        let line = if self.json { object().to_string() } else { line() };
        // Into memory.
        let _ = writeln!(self.text, "{line}");
    }

    /// Lets out what was gathered; an error ends the walk through the store and is told by [`Page::end`].
    fn written(&mut self) -> cairn_store::Result<()> {
        if self.text.get_ref().len() >= PAGE_LEN && self.context.progress.check().is_ok() {
            // Told at the end, when it fails again.
            let _ = self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        let text = std::mem::replace(&mut self.text, BufWriter::new(Vec::new()));
        print(&text.into_inner().unwrap_or_default())
    }

    fn end(mut self) -> Outcome<()> {
        self.context.progress.check().map_err(crate::engine::Error::from)?;
        self.flush()
    }
}

fn verify(context: &Context, arguments: &StoreVerify) -> Outcome<()> {
    let arguments = crate::cli::Verify {
        store: arguments.store.clone(),
        mending: arguments.mending.clone(),
        with_desync: None,
        concurrency: None,
        effort: arguments.effort.clone(),
    };
    super::verify::verify(context, &arguments)
}

fn copy(context: &Context, arguments: &StoreCopy) -> Outcome<()> {
    let storing = &arguments.storing;
    if arguments.packs && !arguments.dry_run {
        let written = context.config.written(&arguments.to)?;
        let is_packs = matches!(Location::parse(written), Ok(Location::Local(folder)) if PackStore::is_at(&folder));
        if !is_packs {
            context.make_packs(&arguments.to, &storing.access)?;
        }
    }
    let (to, _) = context.target(&arguments.to, &storing.access, &storing.writing)?;
    let mut options = CopyOptions {
        digest: context.digest,
        encode: None,
        keep_going: arguments.keep_going,
        dry_run: arguments.dry_run,
        workers: storing.effort.workers(),
    };
    if !arguments.index.is_empty() {
        let mut wanted = IdSet::default();
        for name in &arguments.index {
            let index = context.index(name, &storing.access)?;
            options.digest = index.digest_algorithm();
            wanted.add(index)?;
        }
        let from = context.chain(std::slice::from_ref(&arguments.from), &storing.access)?;
        let mut ids = |take: &mut dyn FnMut(ChunkId) -> cairn_store::Result<()>| {
            wanted.unique().map(|span| span.id).try_for_each(take)
        };
        return carry(context, "copying", &*from, &*to, options, &mut ids);
    }
    if let Ok(Location::Http(_) | Location::Ssh(_)) = Location::parse(context.config.written(&arguments.from)?) {
        let failure = Failure::usage(format!("{}: chunks of such a store cannot be listed", arguments.from));
        return Err(failure.try_this("name what to copy with --index"));
    }
    let from = context.prunable(&arguments.from, &storing.access, Purpose::Read)?;
    let from = from.chunks();
    carry(context, "copying", from, &*to, options, &mut |take| {
        from.for_each_id(take)
    })
}

fn export(context: &Context, arguments: &StoreExport) -> Outcome<()> {
    let from = context.prunable(&arguments.store, &arguments.access, Purpose::Read)?;
    if PackStore::is_at(&arguments.folder) {
        let failure = Failure::new(format!("{} is a pack store", arguments.folder.display()));
        return Err(failure.try_this("name another folder, or copy into it with `cairn store copy`"));
    }
    make_folder(&arguments.folder)?;
    let to = context.local(&arguments.folder, Purpose::Change)?;
    let options = CopyOptions {
        digest: context.digest,
        encode: None,
        keep_going: arguments.keep_going,
        dry_run: false,
        workers: arguments.effort.workers(),
    };
    let from = from.chunks();
    carry(context, "exporting", from, to.chunks(), options, &mut |take| {
        from.for_each_id(take)
    })
}

fn gc(context: &Context, arguments: &StoreGc) -> Outcome<()> {
    let purpose = if arguments.dry_run {
        Purpose::Read
    } else {
        Purpose::Change
    };
    let store = context.prunable(&arguments.store, &arguments.access, purpose)?;
    let packs = store.packs().filter(|_| !arguments.dry_run);
    let _owner = packs.map(|packs| packs.own(arguments.take_over)).transpose()?;
    if arguments.recompress.is_some() && store.packs().is_none() {
        return Err(Failure::usage(
            "only packs are compressed anew; `cairn store copy --packs` makes packs of a flat store",
        ));
    }
    let sweep = match (&arguments.indexes[..], store.packs()) {
        ([], None) => {
            return Err(Failure::usage(
                "a flat store holds nothing but its chunks: name the indexes whose chunks are kept",
            ));
        }
        ([], Some(_)) => prune::Sweep::default(),
        (indexes, _) => {
            let kept = named(context, indexes, &arguments.access)?.ids;
            if !(arguments.yes || arguments.dry_run) {
                prune::confirm(&kept, &store.chunks().name().to_string())?;
            }
            prune::sweep(context, &kept, store.chunks(), arguments.dry_run)?
        }
    };
    let space = match packs {
        Some(packs) => packs.compact(arguments.live_share)?,
        None => CompactReport::default(),
    };
    let smaller = match (packs, arguments.recompress) {
        (Some(packs), Some(level)) => recompress(packs, level, arguments.recompress_rate)?,
        _ => RecompressReport::default(),
    };
    let object = json!({
        "chunks": sweep.chunks,
        "deleted": sweep.deleted,
        "packs-removed": space.packs_removed,
        "bytes-removed": space.bytes_removed,
        "bytes-moved": space.bytes_moved,
        "packs-recompressed": smaller.packs_removed,
        "bytes-before": smaller.bytes_before,
        "bytes-after": smaller.bytes_after,
        "dry-run": arguments.dry_run,
    });
    let done = if arguments.dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    let mut lines = format!(
        "{} of {} chunks {done}, {} packs removed ({}), {} written anew",
        sweep.deleted,
        sweep.chunks,
        space.packs_removed,
        human(space.bytes_removed),
        human(space.bytes_moved)
    );
    if arguments.recompress.is_some() {
        lines += &format!(
            ", {} packs compressed anew ({} before, {} after)",
            smaller.packs_removed,
            human(smaller.bytes_before),
            human(smaller.bytes_after)
        );
    }
    context.report(&object, &lines)
}

/// Compresses the packs anew where that makes them smaller.
///
/// - `rate`: bytes a second, 0 for no limit.
fn recompress(packs: Packs<'_>, level: i32, rate: u64) -> Outcome<RecompressReport> {
    /// A pack of which a sample shrinks by less is left.
    const GAIN_MIN: f64 = 0.02;
    let options = RecompressOptions {
        level: Level::new(level),
        gain_min: GAIN_MIN,
        below: u32::MAX,
        commits_kept_from: LogPosition::default(),
    };
    let limit = NonZeroU64::new(rate).map(RateLimit::new);
    let pace = &mut |bytes| {
        if let Some(limit) = &limit {
            thread::sleep(limit.take(bytes as usize));
        }
        Ok(())
    };
    packs.recompress(&options, pace)
}
