//! What lies in the packs: sums a pack, and the chunks in the order of the disk.

use std::collections::BTreeMap;

use cairn_formats::{PackEntry, PackUuid, RecordKind};

use super::recover::in_order;
use super::{ChunkKey, ChunkPlace, Pack, PackEngine};
use crate::Result;

/// Chunks looked up together.
const LOOKUP_CHUNKS: usize = 4096;

/// One pack in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackStat {
    /// Its place in the log.
    pub number: u32,
    /// Its name.
    pub uuid: PackUuid,
    /// Bytes of its file.
    pub bytes: u64,
    /// It has its footer.
    pub sealed: bool,
    /// Chunks in it that count.
    pub live_chunks: u64,
    /// Bytes of their frames.
    pub live_bytes: u64,
    /// Bytes of the chunks themselves.
    pub live_bytes_plain: u64,
}

impl PackEngine {
    /// The packs in figures, in the order of their numbers.
    pub fn pack_stats(&self) -> Result<Vec<PackStat>> {
        let mut stats = BTreeMap::new();
        for number in self.pack_numbers() {
            let Some(pack) = self.pack(number) else { continue };
            let stat = PackStat {
                number,
                uuid: pack.uuid,
                bytes: self.pack_len(&pack)?,
                sealed: self.footer(&pack)?.is_some(),
                live_chunks: 0,
                live_bytes: 0,
                live_bytes_plain: 0,
            };
            stats.insert(number, stat);
        }
        self.locations().for_each(&mut |_, place| {
            // A pack that was begun since the list was made is left out.
            if let Some(stat) = stats.get_mut(&place.pack) {
                stat.live_chunks += 1;
                stat.live_bytes += u64::from(place.len);
                stat.live_bytes_plain += u64::from(place.plain_len);
            }
            Ok(())
        })?;
        Ok(stats.into_values().collect())
    }

    /// Visits every chunk in the order in which they lie, until an error, which is returned. One that is moved meanwhile may
    /// come twice, one that is put meanwhile not at all. Memory: the entries of one pack.
    pub fn for_each_in_order(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
        let mut done = None;
        // Asked anew each time: what is moved goes to later packs.
        while let Some(number) = self.pack_numbers().into_iter().find(|&number| Some(number) > done) {
            done = Some(number);
            let Some(pack) = self.pack(number) else { continue };
            let mut chunks = match self.footer(&pack)? {
                Some(footer) => {
                    let entries = in_order(footer.entries).into_iter();
                    let chunks = entries.filter(|entry| entry.kind == RecordKind::Chunk);
                    chunks
                        .map(|entry| (key_of(&entry), ChunkPlace::of(number, &entry)))
                        .collect()
                }
                None => self.places_in(number)?,
            };
            for chunks in chunks.chunks_mut(LOOKUP_CHUNKS) {
                let keys: Vec<ChunkKey> = chunks.iter().map(|(key, _)| *key).collect();
                let places = self.locations().find_many(&keys)?;
                for ((key, place), now) in chunks.iter().zip(places) {
                    if now.is_some_and(|now| now.is_at(place.pack, place.offset)) {
                        visit(*key, *place)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Places in a pack that has no footer yet, in order.
    fn places_in(&self, number: u32) -> Result<Vec<(ChunkKey, ChunkPlace)>> {
        let mut places = Vec::new();
        self.locations().for_each(&mut |key, place| {
            if place.pack == number {
                places.push((key, place));
            }
            Ok(())
        })?;
        places.sort_unstable_by_key(|(_, place)| place.offset);
        Ok(places)
    }

    pub(super) fn pack_len(&self, pack: &Pack) -> Result<u64> {
        let len = pack.file.len();
        len.map_err(|error| self.unavailable("read a pack", error))
    }
}

fn key_of(entry: &PackEntry) -> ChunkKey {
    ChunkKey {
        domain: entry.domain,
        id: entry.id,
    }
}
