//! What an extraction would take from where, without doing it.
//!
//! Seeds are believed here (their chunks are hashed when they are used); what a target holds in place is read and hashed,
//! because nothing else tells. Memory: one batch and four bytes per index item.

use std::fs::File;
use std::path::Path;

use cairn_formats::{ChunkId, ChunkIndex, NullChunk};

use super::batch::{Batch, read_full_at};
use super::error::file;
use super::extract::{ExtractReport, Seed};
use super::fetch::batch_at;
use super::position::PositionTable;
use super::{Progress, Result};

/// Adds up where the bytes of a blob would come from.
///
/// - `held`: what is at the target now, when it would be mended in place.
/// - `on_fetch`: gets the chunks that would be asked of the store, a batch at a time.
/// - Errors: the target cannot be read, or `on_fetch` failed.
pub(crate) fn plan(
    index: &ChunkIndex,
    held: Option<(&File, &Path)>,
    seeds: &[Seed],
    progress: &Progress,
    on_fetch: &mut dyn FnMut(&[ChunkId]) -> Result<()>,
) -> Result<ExtractReport> {
    progress.set_total(index.blob_len());
    let null = NullChunk::of(index);
    let own = PositionTable::build(index).map_err(file(Path::new("the index"), "plan for"))?;
    let digest = index.digest_algorithm();
    let mut report = ExtractReport::default();
    let mut buffer = Vec::new();
    let mut next = 0;
    while let Some(items) = batch_at(index, next, index.len()) {
        progress.check()?;
        next = items.end;
        let batch = Batch::new(index, items);
        let mut there = vec![false; batch.spans.len()];
        if let Some((target, path)) = held {
            buffer.resize((batch.end - batch.start) as usize, 0);
            let read = read_full_at(target, &mut buffer, batch.start).map_err(file(path, "read"))?;
            let whole: Vec<usize> = (0..there.len()).filter(|&at| batch.slice(at).end <= read).collect();
            let slices: Vec<&[u8]> = whole.iter().map(|&at| &buffer[batch.slice(at)]).collect();
            for (at, id) in whole.into_iter().zip(digest.id_many(&slices)) {
                there[at] = id == batch.spans[at].id;
            }
        }
        let mut fetched = Vec::new();
        for (at, span) in batch.spans.iter().enumerate() {
            let len = batch.len(at);
            report.bytes += len;
            report.chunks += 1;
            let sum = if null.is(span) {
                &mut report.bytes_null
            } else if there[at] {
                &mut report.bytes_in_place
            } else if seeds.iter().any(|seed| seed.find(span.id, len).is_some()) {
                &mut report.bytes_seeds
            } else if own.find(span.id, index).is_some_and(|first| first < batch.first + at) {
                &mut report.bytes_self
            } else {
                fetched.push(span.id);
                report.chunks_store += 1;
                &mut report.bytes_store
            };
            *sum += len;
        }
        on_fetch(&fetched)?;
        progress.advance(batch.end - batch.start);
    }
    Ok(report)
}
