//! The checks of a scrub, of packs in a folder and of those behind a network alike: frames against their names, heads of records against
//! what was written, and good copies of what is damaged.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{
    CHUNK_LEN_MAX, ChunkId, DigestAlgorithm, EncodedChunk, PackEntry, PackUuid, RECORD_HEAD_LEN, RecordKind,
    RecordSpan, StorableChunk, find_record, skippable_head,
};

use crate::{ChunkStore, Error, StoreName};

/// Bytes of chunks that are decoded together, unless one is longer: a window of what compresses well holds many.
const PLAIN_LEN: u64 = 64 << 20;

/// Frames that are worth a thread of their own.
const FRAMES_MIN: usize = 8;

/// Good copies of chunks, with the store that each came from.
///
/// - `errors`: takes what kept a store from answering, one a store.
pub(crate) fn fetch(
    sources: &[Arc<dyn ChunkStore>],
    algorithm: DigestAlgorithm,
    ids: &[ChunkId],
    errors: &mut Vec<Error>,
) -> HashMap<ChunkId, (StorableChunk, StoreName)> {
    let mut good = HashMap::new();
    for source in sources {
        let mut failure = None;
        for &id in ids {
            if good.contains_key(&id) {
                continue;
            }
            // One by one: damage is rare, and chunks may be long.
            for answer in source.get_many(&[id]) {
                let name = source.name().clone();
                let verified = answer.and_then(|chunk| {
                    let store = name.clone();
                    let verified = chunk.verify(algorithm, CHUNK_LEN_MAX);
                    verified.map_err(|source| Error::Corrupt { store, source })
                });
                match verified {
                    Ok(chunk) => drop(good.insert(id, (chunk, name))),
                    Err(Error::Missing { .. }) => {}
                    Err(error) => drop(failure.get_or_insert(error)),
                }
            }
        }
        errors.extend(failure);
    }
    good
}

/// Which frames are those of the chunks of their names, of so many plain bytes each.
///
/// - `workers`: threads that decode and hash.
pub(crate) fn proven(frames: &[(EncodedChunk, u32)], algorithm: DigestAlgorithm, workers: usize) -> Vec<bool> {
    let workers = workers.min(frames.len() / FRAMES_MIN).max(1);
    let prove = |frames: &[(EncodedChunk, u32)]| {
        let mut proven = Vec::with_capacity(frames.len());
        let mut rest = frames;
        while !rest.is_empty() {
            let mut len = 0;
            let fits = rest.iter().take_while(|(_, plain_len)| {
                len += u64::from(*plain_len);
                len <= PLAIN_LEN / workers as u64
            });
            let (these, others) = rest.split_at(fits.count().max(1));
            let encoded: Vec<EncodedChunk> = these.iter().map(|(chunk, _)| chunk.clone()).collect();
            let opened = EncodedChunk::open_many(&encoded, algorithm, CHUNK_LEN_MAX);
            proven.extend(opened.into_iter().map(|chunk| chunk.is_ok()));
            rest = others;
        }
        proven
    };
    if workers == 1 {
        return prove(frames);
    }
    let prove = &prove;
    std::thread::scope(|scope| {
        let shares = frames.chunks(frames.len().div_ceil(workers));
        let threads: Vec<_> = shares
            .map(|share| (share.len(), scope.spawn(move || prove(share))))
            .collect();
        let proven = threads.into_iter();
        // A thread that panicked has proven nothing: each of its chunks is looked at once more.
        proven
            .flat_map(|(len, thread)| thread.join().unwrap_or_else(|_| vec![false; len]))
            .collect()
    })
}

pub(crate) fn end_of(entry: &PackEntry) -> u64 {
    entry.offset + u64::from(entry.len)
}

/// Up to which entry a window of `len` bytes goes that begins with entry `from`, at least one.
pub(crate) fn window(entries: &[PackEntry], from: usize, at: u64, len: u64) -> usize {
    let fits = entries[from..].iter().take_while(|entry| end_of(entry) <= at + len);
    from + fits.count().max(1)
}

/// Whether what stands in front of a payload is as it was written.
///
/// - `bytes`: the pack from `at` on.
/// - `start`: where the record before ends, if known.
pub(crate) fn head_is_right(pack: &PackUuid, at: u64, start: Option<u64>, entry: &PackEntry, bytes: &Bytes) -> bool {
    let Some(head_at) = entry
        .offset
        .checked_sub(RECORD_HEAD_LEN as u64)
        .filter(|&head_at| head_at >= at)
    else {
        // The window begins in the middle of it, which only records that lie inside each other would make.
        return false;
    };
    let range = (head_at - at) as usize..(entry.offset - at) as usize;
    let Some(head) = bytes.get(range) else { return false };
    let found = find_record(pack, head_at, head);
    if !found.is_some_and(|(head, span)| head.entry(span) == *entry) {
        return false;
    }
    // Where a crash left bytes of no record in between, they are one frame with the head.
    let Some(start) = start.filter(|&start| RecordSpan::at(start, 0).payload == entry.offset) else {
        return true;
    };
    let skipped_to = match entry.kind {
        RecordKind::Chunk => entry.offset,
        RecordKind::Commit | RecordKind::Removals | RecordKind::Snapshot => end_of(entry),
    };
    let Some(frame) = skippable_head(skipped_to - start) else {
        return false;
    };
    let (frame_at, head_at) = ((start - at) as usize, (head_at - at) as usize);
    bytes[frame_at..].starts_with(&frame) && bytes[frame_at + frame.len()..head_at].iter().all(|&byte| byte == 0)
}
