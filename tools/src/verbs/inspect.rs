//! `info`, `inspect-chunks`, `list-chunks` and `diff`: indexes are looked at.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use cairn_formats::{ChunkId, ChunkIndex};
use cairn_store::ChunkStore;
use serde_json::json;

use crate::cli::{Diff, Info, InfoFormat, InspectChunks, ListChunks};
use crate::context::{Context, Purpose, print};
use crate::engine::IdSet;
use crate::failure::{Failure, Outcome};
use crate::sizes::human;

/// Chunks asked about together.
const BATCH_CHUNKS: usize = 256;

/// Tells how big a blob is and where it is.
pub(crate) fn info(context: &Context, arguments: &Info) -> Outcome<()> {
    let access = &arguments.sources.access;
    let index = context.index(&arguments.index, access)?;
    let mut all = IdSet::default();
    all.add(index.clone())?;
    let mut seeds = IdSet::default();
    for seed in context.seeds(&arguments.seeding, access, None, &index)? {
        seeds.add(seed.into_index())?;
    }
    let store = match &arguments.sources.stores[..] {
        [] => None,
        stores => Some(context.chain(stores, access)?),
    };
    let cache = match &arguments.sources.cached.cache {
        None => None,
        Some(folder) => Some(context.local(folder, Purpose::Read)?),
    };
    let cache = cache.as_ref().map(cairn_store::LocalStore::chunks);
    let mut count = Counts::default();
    let mut batch = Vec::with_capacity(BATCH_CHUNKS);
    for span in all.unique() {
        batch.push((span.id, span.range.end - span.range.start));
        if batch.len() == BATCH_CHUNKS {
            count.add(&batch, &seeds, store.as_deref(), cache, arguments.chunks_info)?;
            batch.clear();
        }
    }
    count.add(&batch, &seeds, store.as_deref(), cache, arguments.chunks_info)?;
    let sizes = index.sizes();
    // Names and order are desync's.
    let rows: [(&str, &str, u64); 13] = [
        ("size", "Blob size", index.blob_len()),
        (
            "dedup-size-not-in-seed",
            "Size of deduplicated chunks not in seed",
            count.bytes_not_in_seed,
        ),
        (
            "dedup-size-not-in-seed-nor-cache",
            "Size of deduplicated chunks not in seed nor cache",
            count.bytes_not_in_seed_nor_cache,
        ),
        ("total", "Total chunks", index.len() as u64),
        ("unique", "Unique chunks", count.unique),
        ("in-store", "Chunks in store", count.in_store),
        ("in-seed", "Chunks in seed", count.in_seed),
        ("in-cache", "Chunks in cache", count.in_cache),
        (
            "not-in-seed-nor-cache",
            "Chunks not in seed nor cache",
            count.not_in_seed_nor_cache,
        ),
        (
            "dedup-size-not-in-seed-nor-cache-compressed",
            "Compressed chunks not in seed nor cache",
            count.bytes_not_in_seed_nor_cache_stored,
        ),
        ("chunk-size-min", "Chunk size min", sizes.min() as u64),
        ("chunk-size-avg", "Chunk size avg", sizes.avg() as u64),
        ("chunk-size-max", "Chunk size max", sizes.max() as u64),
    ];
    let object: serde_json::Map<_, _> = rows
        .iter()
        .map(|&(key, _, value)| (key.to_owned(), value.into()))
        .collect();
    match arguments.format {
        InfoFormat::Plain if !context.json => print(
            rows.iter()
                .map(|(_, label, value)| format!("{label}: {value}\n"))
                .collect::<String>()
                .as_bytes(),
        ),
        _ => {
            let text = serde_json::to_string_pretty(&object).expect("numbers are JSON");
            print(format!("{text}\n").as_bytes())
        }
    }
}

#[derive(Default)]
struct Counts {
    unique: u64,
    in_store: u64,
    in_seed: u64,
    in_cache: u64,
    not_in_seed_nor_cache: u64,
    bytes_not_in_seed: u64,
    bytes_not_in_seed_nor_cache: u64,
    bytes_not_in_seed_nor_cache_stored: u64,
}

impl Counts {
    fn add(
        &mut self,
        batch: &[(ChunkId, u64)],
        seeds: &IdSet,
        store: Option<&dyn ChunkStore>,
        cache: Option<&dyn cairn_store::Prune>,
        stored_sizes: bool,
    ) -> Outcome<()> {
        let ids: Vec<ChunkId> = batch.iter().map(|&(id, _)| id).collect();
        let nowhere = || vec![false; ids.len()];
        let in_store = store.map_or_else(|| Ok(nowhere()), |store| store.has_many(&ids))?;
        let in_cache = cache.map_or_else(|| Ok(nowhere()), |cache| cache.has_many(&ids))?;
        let mut fetched = Vec::new();
        for (at, &(id, len)) in batch.iter().enumerate() {
            let in_seed = seeds.contains(id);
            self.unique += 1;
            self.in_store += u64::from(in_store[at]);
            self.in_seed += u64::from(in_seed);
            self.in_cache += u64::from(in_cache[at]);
            if !in_seed {
                self.bytes_not_in_seed += len;
            }
            if !in_seed && !in_cache[at] {
                self.not_in_seed_nor_cache += 1;
                self.bytes_not_in_seed_nor_cache += len;
                fetched.push(id);
            }
        }
        if let (Some(store), true) = (store, stored_sizes) {
            for chunk in stored_lens(store, &fetched)? {
                self.bytes_not_in_seed_nor_cache_stored += chunk;
            }
        }
        Ok(())
    }
}

/// Stored bytes of chunks, read a few at a time.
fn stored_lens(store: &dyn ChunkStore, ids: &[ChunkId]) -> Outcome<Vec<u64>> {
    let mut lens = Vec::with_capacity(ids.len());
    for few in ids.chunks(32) {
        for chunk in store.get_many(few) {
            lens.push(chunk?.bytes.len() as u64);
        }
    }
    Ok(lens)
}

/// Prints ids in the order of the blob.
pub(crate) fn list_chunks(context: &Context, arguments: &ListChunks) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.access)?;
    let mut output = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let listed = if context.json {
        // Streamed: a list of sixteen million ids is not held.
        let mut first = true;
        output
            .write_all(b"[")
            .and_then(|()| {
                index.spans().try_for_each(|span| {
                    let comma = if std::mem::take(&mut first) { "" } else { "," };
                    write!(output, "{comma}\"{}\"", span.id)
                })
            })
            .and_then(|()| output.write_all(b"]\n"))
    } else {
        index.spans().try_for_each(|span| {
            let mut line = [b'\n'; 65];
            line[..64].copy_from_slice(&span.id.to_hex());
            output.write_all(&line)
        })
    };
    finish(listed.and_then(|()| output.flush()))
}

/// Prints plain and stored size of each chunk, as desync does.
pub(crate) fn inspect_chunks(context: &Context, arguments: &InspectChunks) -> Outcome<()> {
    let index = context.index(&arguments.index, &arguments.access)?;
    let store: Option<Arc<dyn ChunkStore>> = match &arguments.store {
        None => None,
        Some(store) => Some(context.chain(std::slice::from_ref(store), &arguments.access)?),
    };
    let mut output: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(File::create(path).map_err(|error| Failure::io(path.display(), "create", &error))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut output = BufWriter::new(&mut *output);
    let mut all = IdSet::default();
    all.add(index)?;
    let mut between = "[\n  ";
    for batch in batches(all.unique().map(|span| (span.id, span.range.end - span.range.start))) {
        let ids: Vec<ChunkId> = batch.iter().map(|&(id, _)| id).collect();
        let stored = match &store {
            Some(store) => stored_lens(&**store, &ids)?.into_iter().map(Some).collect(),
            None => vec![None; ids.len()],
        };
        for ((id, len), stored) in batch.iter().zip(stored) {
            context.progress.check().map_err(crate::engine::Error::from)?;
            let mut object = json!({ "id": id.to_string(), "uncompressed_size": len });
            if let Some(stored) = stored {
                object["compressed_size"] = stored.into();
            }
            let written = write!(output, "{between}{object}");
            finish(written)?;
            between = ",\n  ";
        }
    }
    let end = if between.starts_with('[') { "[]\n" } else { "\n]\n" };
    finish(output.write_all(end.as_bytes()).and_then(|()| output.flush()))
}

/// Tells what a download of `want` costs to somebody who has `have`.
pub(crate) fn diff(context: &Context, arguments: &Diff) -> Outcome<()> {
    let mut have = IdSet::default();
    have.add(context.index(&arguments.have, &arguments.access)?)?;
    let wanted: ChunkIndex = context.index(&arguments.want, &arguments.access)?;
    let store = match &arguments.store {
        None => None,
        Some(store) => Some(context.chain(std::slice::from_ref(store), &arguments.access)?),
    };
    let mut all = IdSet::default();
    all.add(wanted.clone())?;
    let (mut shared, mut shared_bytes, mut missing, mut missing_bytes, mut stored) = (0u64, 0u64, 0u64, 0u64, 0u64);
    for batch in batches(all.unique().map(|span| (span.id, span.range.end - span.range.start))) {
        let mut fetched = Vec::new();
        for (id, len) in batch {
            if have.contains(id) {
                shared += 1;
                shared_bytes += len;
            } else {
                missing += 1;
                missing_bytes += len;
                fetched.push(id);
            }
        }
        if let Some(store) = &store {
            stored += stored_lens(&**store, &fetched)?.iter().sum::<u64>();
        }
    }
    let object = json!({
        "size": wanted.blob_len(),
        "chunks": wanted.len(),
        "chunks-shared": shared,
        "bytes-shared": shared_bytes,
        "chunks-missing": missing,
        "bytes-missing": missing_bytes,
        "bytes-missing-stored": store.as_ref().map(|_| stored),
    });
    let to_fetch = match &store {
        Some(_) => format!(", {} to fetch", human(stored)),
        None => String::new(),
    };
    let lines = format!(
        "{} wanted: {shared} chunks shared ({}), {missing} missing ({} plain{to_fetch})",
        human(wanted.blob_len()),
        human(shared_bytes),
        human(missing_bytes)
    );
    context.report(&object, &lines)
}

/// Groups of [`BATCH_CHUNKS`].
fn batches<T>(mut items: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let batch: Vec<T> = items.by_ref().take(BATCH_CHUNKS).collect();
        (!batch.is_empty()).then_some(batch)
    })
}

/// A reader that has gone away (`| head`) has seen enough.
fn finish(written: std::io::Result<()>) -> Outcome<()> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::io(Path::new("the output").display(), "write", &error)),
    }
}
