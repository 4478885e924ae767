//! Reading: many chunks at once, in the order in which they lie.
//!
//! Chunks that lie near each other are read together; every frame is checked against the sum that its place carries, which
//! finds flipped bits and bytes that a disk took from somewhere else. Hot path: one lookup and one read a run of chunks.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cairn_formats::payload_crc;

use super::bug::{Bug, is_planted};
use super::{ChunkKey, ChunkPlace, Pack, PackEngine, checksum_error};
use crate::{Buffers, Error, Result};

/// Times that a chunk is looked up anew because its pack went away between the lookup and the read.
const LOOKUPS_MAX: usize = 4;

/// Longer frames are read by a thread that may wait: copying them would hold up other connections.
const RESIDENT_LEN_MAX: u32 = 1 << 20;

/// Frames that are read with one call.
struct Run {
    pack: u32,
    start: u64,
    end: u64,
    /// Which of the asked.
    members: Vec<usize>,
}

impl PackEngine {
    /// Frames of chunks; one answer per key, in order.
    pub(super) fn read_many(&self, keys: &[ChunkKey]) -> Vec<Result<Bytes>> {
        let mut answers: Vec<Option<Result<Bytes>>> = keys.iter().map(|_| None).collect();
        for _ in 0..LOOKUPS_MAX {
            let asked: Vec<usize> = (0..keys.len()).filter(|&n| answers[n].is_none()).collect();
            if asked.is_empty() {
                break;
            }
            let asked_keys: Vec<ChunkKey> = asked.iter().map(|&n| keys[n]).collect();
            match self.places(&asked_keys) {
                Err(error) if asked.len() == 1 => answers[asked[0]] = Some(Err(error)),
                // One error for many: each asks for itself.
                Err(_) => asked.iter().for_each(|&n| answers[n] = Some(self.read_one(keys[n]))),
                Ok(found) => {
                    let mut places = Vec::with_capacity(asked.len());
                    for (n, place) in asked.into_iter().zip(found) {
                        match place {
                            Some(place) => places.push((n, place)),
                            None => answers[n] = Some(Err(self.missing(keys[n]))),
                        }
                    }
                    self.read_places(keys, places, &mut answers);
                }
            }
        }
        let missing =
            |(answer, key): (Option<Result<Bytes>>, &ChunkKey)| answer.unwrap_or_else(|| Err(self.missing(*key)));
        answers.into_iter().zip(keys).map(missing).collect()
    }

    /// The frame of a chunk, if it is in memory and right.
    pub(super) fn read_resident(&self, key: ChunkKey) -> Option<Bytes> {
        let place = self.locations.get_resident(key)?;
        if place.len > RESIDENT_LEN_MAX {
            return None;
        }
        let pack = self.pack(place.pack)?;
        let mut frame = vec![0; place.len as usize];
        let right = pack.file.read_resident(place.offset, &mut frame) && payload_crc(&frame) == place.crc;
        right.then(|| Bytes::from(frame))
    }

    fn read_one(&self, key: ChunkKey) -> Result<Bytes> {
        self.read_many(&[key]).pop().expect("one answer per key")
    }

    /// Reads what is at places. What is in a pack that is gone gets no answer.
    fn read_places(
        &self,
        keys: &[ChunkKey],
        mut places: Vec<(usize, ChunkPlace)>,
        answers: &mut [Option<Result<Bytes>>],
    ) {
        places.sort_unstable_by_key(|(_, place)| (place.pack, place.offset));
        for run in self.runs(&places) {
            let Some(pack) = self.pack(run.pack) else {
                continue;
            };
            let read = self.read_range(&pack, run.start, run.end);
            for member in run.members {
                let (n, place) = places[member];
                let answer = match &read {
                    Ok(bytes) => {
                        let from = (place.offset - run.start) as usize;
                        let frame = bytes.slice(from.min(bytes.len())..(from + place.len as usize).min(bytes.len()));
                        self.checked(&pack, keys[n], place, frame)
                    }
                    // Perhaps only a part of it cannot be read.
                    Err(_) => {
                        let alone = self.read_range(&pack, place.offset, place.offset + u64::from(place.len));
                        alone.and_then(|frame| self.checked(&pack, keys[n], place, frame))
                    }
                };
                answers[n] = Some(answer);
            }
        }
    }

    fn runs(&self, places: &[(usize, ChunkPlace)]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (member, (_, place)) in places.iter().enumerate() {
            let end = place.offset + u64::from(place.len);
            match runs.last_mut() {
                Some(run)
                    if run.pack == place.pack
                        && place.offset <= run.end.saturating_add(self.options.read_gap)
                        && end - run.start <= self.options.read_len =>
                {
                    run.end = run.end.max(end);
                    run.members.push(member);
                }
                _ => runs.push(Run {
                    pack: place.pack,
                    start: place.offset,
                    end,
                    members: vec![member],
                }),
            }
        }
        runs
    }

    /// Bytes of a pack; fewer where it ends before.
    pub(super) fn read_range(&self, pack: &Pack, start: u64, end: u64) -> Result<Bytes> {
        let read = pack.file.read_vec(start, (end - start) as usize);
        Ok(Bytes::from(
            read.map_err(|error| self.unavailable("read a pack", error))?,
        ))
    }

    /// Bytes of a pack, all of them, if the pack is there and they can be read.
    pub(crate) fn read_extent(&self, pack: u32, range: Range<u64>, buffers: &Buffers) -> Option<Bytes> {
        let len = (range.end - range.start) as usize;
        let mut buffer = buffers.lend(len);
        self.read_exact(pack, range.start, buffer.space(len))
            .then(|| buffer.into_bytes())
    }

    /// Has the disk begin with bytes of a pack that will be read soon.
    pub(crate) fn announce(&self, pack: u32, range: Range<u64>) {
        if let Some(pack) = self.pack(pack) {
            pack.file.announce(range);
        }
    }

    /// Fills a buffer with bytes of a pack; whether that could be done.
    pub(crate) fn read_exact(&self, pack: u32, offset: u64, buffer: &mut [u8]) -> bool {
        let read = self.pack(pack).map(|pack| pack.file.read_at(offset, buffer));
        read.is_some_and(|read| read.is_ok_and(|len| len == buffer.len()))
    }

    /// The frame, if it is the one that was written. What is damaged is taken out of the store, so that it is missing and can
    /// be put again; its bytes stay where they are.
    fn checked(&self, pack: &Arc<Pack>, key: ChunkKey, place: ChunkPlace, frame: Bytes) -> Result<Bytes> {
        let is_right = |frame: &Bytes| {
            frame.len() == place.len as usize && (payload_crc(frame) == place.crc || is_planted(Bug::UncheckedFrame))
        };
        if is_right(&frame) {
            return Ok(frame);
        }
        // Once more: what went wrong may have gone wrong on the way.
        let again = self.read_range(pack, place.offset, place.offset + u64::from(place.len))?;
        if is_right(&again) {
            return Ok(again);
        }
        if !self.options.read_only {
            // If it cannot be taken out now, the next reader will.
            let _ = self.remove_at(&[(key, place)]);
        }
        Err(checksum_error(&self.name, key.id))
    }

    /// The frame at a place, checked.
    pub(super) fn read_place(&self, pack: &Arc<Pack>, key: ChunkKey, place: ChunkPlace) -> Result<Bytes> {
        let frame = self.read_range(pack, place.offset, place.offset + u64::from(place.len))?;
        self.checked(pack, key, place, frame)
    }

    fn missing(&self, key: ChunkKey) -> Error {
        Error::Missing {
            id: key.id,
            store: self.name.clone(),
        }
    }

    /// Numbers of the packs that are there.
    pub fn pack_numbers(&self) -> Vec<u32> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.keys().copied().collect()
    }
}
