//! Smaller frames for packs that have come to rest: their chunks are written anew at a higher level, under the same ids.
//!
//! What comes in is compressed quickly or kept as its client framed it; this takes the time later. A pack is tried first: if a
//! sample of its chunks hardly shrinks (media, or done before) it is left, and not tried again while the store is open. A frame is
//! only replaced by a shorter one that decodes to the chunk of its name; the rest moves as it is. Order and safety are those of
//! `compact.rs`. Not here: when to run.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, Level, PackFooter, RecordKind, compress_frame, decompress_frame,
};

use super::bug::{Bug, is_planted};
use super::queue::Item;
use super::{ChunkKey, ChunkPlace, LogPosition, Pack, PackEngine};
use crate::Result;

/// Chunks of a pack that are tried.
pub(crate) const SAMPLE_CHUNKS: usize = 32;

/// How packs are compressed anew.
#[derive(Clone, Copy, Debug)]
pub struct RecompressOptions {
    /// zstd's level.
    pub level: Level,
    /// A pack is left unless a sample of it shrinks by this share, 0 to 1.
    pub gain_min: f64,
    /// Packs of this number and later ones are left: they may not have come to rest.
    pub below: u32,
    /// As [`super::CompactOptions::commits_kept_from`].
    pub commits_kept_from: LogPosition,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecompressReport {
    /// Packs that were written anew, and are gone.
    pub packs_removed: usize,
    /// Packs that were left, since a sample of them hardly shrinks.
    pub packs_left: usize,
    /// Bytes of the chunks of the packs that are gone, before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Bytes of packs that stay as they are only since batches of the index in them are needed.
    pub bytes_held: u64,
}

impl PackEngine {
    /// Writes packs anew with smaller frames. May run beside readers and writers; can be run again after any error.
    ///
    /// - `pace`: called with the bytes of each chunk before it is compressed, also of those tried, and with 0 before each pack.
    ///   It may wait; an error ends the work and is returned.
    pub fn recompress(
        &self,
        options: &RecompressOptions,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<RecompressReport> {
        self.writable()?;
        self.settle_all()?;
        let mut report = RecompressReport::default();
        let below = options.below.min(self.open_number());
        let mut numbers = self.pack_numbers();
        numbers.retain(|&number| number < below);
        self.tried().retain(|number, _| numbers.contains(number));
        for number in numbers {
            let Some(pack) = self.pack(number) else {
                continue;
            };
            if self.tried().get(&number).is_some_and(|level| *level >= options.level) {
                report.packs_left += 1;
                continue;
            }
            let commits_kept_from = options.commits_kept_from.max(self.snapshots().rest());
            if self.snapshots().has_commits_from(number, commits_kept_from) {
                report.bytes_held += self.pack_len(&pack)?;
                continue;
            }
            let Some((footer, removals)) = self.movable(&pack, options.commits_kept_from)? else {
                continue;
            };
            pace(0)?;
            if !self.would_shrink(&pack, &footer, options, pace)? {
                self.tried().insert(number, options.level);
                report.packs_left += 1;
                continue;
            }
            let copies = self.copies(&removals)?;
            if is_planted(Bug::SqueezeFirst) {
                self.unlink(&pack)?;
            }
            let mut bytes = (0, 0);
            self.move_out(&pack, &footer, &copies, pace, &mut |key, place, frame| {
                let len = frame.len() as u64;
                let item = self.smaller(key, place, frame, options.level);
                bytes = (bytes.0 + len, bytes.1 + item.len() as u64);
                item
            })?;
            self.unlink(&pack)?;
            report.packs_removed += 1;
            report.bytes_before += bytes.0;
            report.bytes_after += bytes.1;
        }
        Ok(report)
    }

    fn tried(&self) -> MutexGuard<'_, HashMap<u32, Level>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn would_shrink(
        &self,
        pack: &Arc<Pack>,
        footer: &PackFooter,
        options: &RecompressOptions,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<bool> {
        let chunks: Vec<_> = footer
            .entries
            .iter()
            .filter(|entry| entry.kind == RecordKind::Chunk)
            .collect();
        // Entries are in the order of their ids, so in none of their places.
        let (mut before, mut after) = (0, 0);
        for entry in chunks.iter().step_by(chunks.len().div_ceil(SAMPLE_CHUNKS).max(1)) {
            let place = ChunkPlace::of(pack.number, entry);
            let (domain, id) = (entry.domain, entry.id);
            let key = ChunkKey { domain, id };
            if !self.is_at(key, place)? {
                continue;
            }
            // What cannot be read is for who moves it to find.
            let Ok(frame) = self.read_place(pack, key, place) else {
                continue;
            };
            pace(frame.len() as u64)?;
            before += frame.len();
            after += self.smaller(key, place, frame, options.level).len();
        }
        Ok((after as f64) < before as f64 * (1.0 - options.gain_min))
    }

    /// The chunk to be written anew, in a shorter frame if there is one.
    fn smaller(&self, key: ChunkKey, place: ChunkPlace, frame: Bytes, level: Level) -> Item {
        // Chunks of another digest, which nothing was checked by here, stay as they are.
        match smaller_frame(key.id, &frame, place.plain_len, level, self.options.algorithm) {
            Some(smaller) => Item::moved_as(key, place, smaller),
            None => Item::moved(key, place, frame),
        }
    }
}

/// A shorter frame of the same chunk, if this level gives one that decodes to it.
pub(crate) fn smaller_frame(
    id: ChunkId,
    frame: &Bytes,
    plain_len: u32,
    level: Level,
    algorithm: DigestAlgorithm,
) -> Option<Bytes> {
    let encoded = EncodedChunk {
        id,
        form: ChunkForm::Compressed,
        bytes: frame.clone(),
    };
    let chunk = encoded.open_exact(algorithm, plain_len as usize).ok()?;
    let smaller = compress_frame(chunk.plain(), level);
    let is_right =
        |smaller: &[u8]| decompress_frame(smaller, chunk.plain().len()).is_ok_and(|plain| plain == chunk.plain()[..]);
    (smaller.len() < frame.len() && is_right(&smaller)).then(|| smaller.into())
}
