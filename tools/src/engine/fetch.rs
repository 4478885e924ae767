//! Chunks from a store into a buffer, proven; and blobs streamed in order.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, DigestAlgorithm, EncodedChunk};
use cairn_store::ChunkStore;

use super::batch::{BATCH_LEN_MAX, Batch, lock};
use super::buffer::BufferPool;
use super::{Error, Progress, Result};

/// Chunks of a batch at most: bounds what one call asks of a store.
const BATCH_CHUNKS_MAX: usize = 128;

/// The items from `first` on that make one batch, or `None` at `end`.
pub(super) fn batch_at(index: &ChunkIndex, first: usize, end: usize) -> Option<Range<usize>> {
    if first >= end {
        return None;
    }
    let start = index.span(first).range.start;
    let mut last = first + 1;
    while last < end && last - first < BATCH_CHUNKS_MAX && index.span(last).range.end - start <= BATCH_LEN_MAX {
        last += 1;
    }
    Some(first..last)
}

/// Gets the `wanted` chunks of a batch and leaves their plain bytes in their places of `buffer`.
///
/// Errors: the first chunk that is missing, unreachable, damaged, or of another length than the index says.
pub(super) fn fetch(
    store: &dyn ChunkStore,
    digest: DigestAlgorithm,
    batch: &Batch,
    wanted: &[usize],
    buffer: &mut [u8],
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let ids: Vec<ChunkId> = wanted.iter().map(|&at| batch.spans[at].id).collect();
    let encoded = store
        .get_many(&ids)
        .into_iter()
        .collect::<cairn_store::Result<Vec<EncodedChunk>>>()?;
    let mut slots: Vec<&mut [u8]> = Vec::with_capacity(wanted.len());
    let (mut rest, mut cut) = (buffer, 0);
    for &at in wanted {
        let place = batch.slice(at);
        let (_, from_place) = rest.split_at_mut(place.start - cut);
        let (slot, after) = from_place.split_at_mut(place.len());
        (rest, cut) = (after, place.end);
        slots.push(slot);
    }
    for (&at, result) in wanted
        .iter()
        .zip(EncodedChunk::open_into_many(&encoded, digest, &mut slots))
    {
        result.map_err(|source| Error::Chunk {
            offset: batch.spans[at].range.start,
            source,
        })?;
    }
    Ok(())
}

/// Writes `range` of a blob in order, reading ahead: [`for_each`] into an output.
pub(crate) fn cat(
    index: &ChunkIndex,
    range: Range<u64>,
    store: &dyn ChunkStore,
    workers: usize,
    output: &mut dyn Write,
    progress: &Progress,
) -> Result<()> {
    for_each(index, range, store, workers, progress, &mut |bytes| {
        let written = output.write_all(&bytes);
        written.map_err(super::error::file("standard output".as_ref(), "write to"))
    })
}

/// Hands over `range` of a blob in order, reading ahead.
///
/// - `range`: bytes of the blob, inside it.
/// - `workers`: batches fetched at a time; twice as many may wait for their turn.
/// - `take`: gets pieces of up to a batch. They are proven.
/// - Errors: the first that a worker or `take` met; what was handed over until then was right.
pub(crate) fn for_each(
    index: &ChunkIndex,
    range: Range<u64>,
    store: &dyn ChunkStore,
    workers: usize,
    progress: &Progress,
    take: &mut dyn FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let (Some(first), false) = (index.find(range.start), range.is_empty()) else {
        return Ok(());
    };
    let end = index.find(range.end - 1).map_or(index.len(), |last| last + 1);
    progress.set_total(range.end - range.start);
    let turns = Turns {
        state: Mutex::new(TurnState {
            next_item: first,
            ..TurnState::default()
        }),
        moved: Condvar::new(),
    };
    let pool = BufferPool::default();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                while let Some((number, items)) = turns.take(index, end, 2 * workers.max(1)) {
                    let batch = Batch::new(index, items);
                    let len = (batch.end - batch.start) as usize;
                    let mut buffer = pool.take(len);
                    let all: Vec<usize> = (0..batch.spans.len()).collect();
                    let bytes = &mut buffer.bytes_mut()[..len];
                    let result = fetch(store, index.digest_algorithm(), &batch, &all, bytes);
                    let from = range.start.saturating_sub(batch.start) as usize;
                    let to = len - batch.end.saturating_sub(range.end) as usize;
                    turns.give(number, result.map(|()| Bytes::from_owner(buffer).slice(from..to)));
                }
            });
        }
        let result = turns.hand_over(take, progress);
        turns.stop();
        result
    })
}

/// Hands out batches and takes their bytes back in order.
struct Turns {
    state: Mutex<TurnState>,
    moved: Condvar,
}

#[derive(Default)]
struct TurnState {
    next_item: usize,
    taken: u64,
    written: u64,
    ready: BTreeMap<u64, Result<Bytes>>,
    finished: bool,
}

impl Turns {
    /// The next batch, once it is at most `ahead` before the one being written.
    fn take(&self, index: &ChunkIndex, end: usize, ahead: usize) -> Option<(u64, Range<usize>)> {
        let mut state = lock(&self.state);
        while !state.finished && state.taken >= state.written + ahead as u64 {
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let items = if state.finished {
            None
        } else {
            batch_at(index, state.next_item, end)
        };
        let Some(items) = items else {
            state.finished = true;
            self.moved.notify_all();
            return None;
        };
        state.next_item = items.end;
        state.taken += 1;
        Some((state.taken - 1, items))
    }

    fn give(&self, number: u64, bytes: Result<Bytes>) {
        lock(&self.state).ready.insert(number, bytes);
        self.moved.notify_all();
    }

    fn hand_over(&self, take: &mut dyn FnMut(Bytes) -> Result<()>, progress: &Progress) -> Result<()> {
        loop {
            progress.check()?;
            let bytes = {
                let mut state = lock(&self.state);
                loop {
                    let turn = state.written;
                    if let Some(bytes) = state.ready.remove(&turn) {
                        state.written += 1;
                        self.moved.notify_all();
                        break bytes?;
                    }
                    if state.finished && state.written == state.taken {
                        return Ok(());
                    }
                    state = self
                        .moved
                        .wait(state)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            };
            let len = bytes.len() as u64;
            take(bytes)?;
            progress.advance(len);
        }
    }

    fn stop(&self) {
        lock(&self.state).finished = true;
        self.moved.notify_all();
    }
}
