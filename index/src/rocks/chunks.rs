//! Where chunks lie, as RocksDB keeps it: 36 bytes of key and 20 of place a chunk, no version.
//!
//! Hot path: has-many of thousands of ids. Ids that are not there cost a look at a filter; keep out everything else.

use rocksdb::{IteratorMode, ReadOptions};

use super::{CHUNKS, RocksEngine, malformed};
use crate::Result;

/// Bytes of a chunk's key: the dedup domain (u32, big-endian) and the chunk's id.
pub const CHUNK_KEY_LEN: usize = 4 + 32;

/// Bytes of a chunk's place.
pub const CHUNK_PLACE_LEN: usize = 20;

/// A chunk in a domain.
pub type ChunkKeyBytes = [u8; CHUNK_KEY_LEN];

/// Where it lies.
pub type ChunkPlaceBytes = [u8; CHUNK_PLACE_LEN];

impl RocksEngine {
    /// Where these chunks are; one answer per key, in order.
    pub fn chunk_places(&self, keys: &[ChunkKeyBytes]) -> Result<Vec<Option<ChunkPlaceBytes>>> {
        // Sorted here, where it is cheap: RocksDB then walks each file once.
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&n| &keys[n]);
        let sorted = order.iter().map(|&n| &keys[n]);
        let found = self.db.batched_multi_get_cf(self.family(CHUNKS), sorted, true);
        let mut places = vec![None; keys.len()];
        for (n, place) in order.into_iter().zip(found) {
            if let Some(place) = place.map_err(|source| self.failed("look chunks up", source))? {
                places[n] = Some(decode(&place)?);
            }
        }
        Ok(places)
    }

    /// Visits every chunk by ascending key, until an error, which is returned. What is written meanwhile is not seen.
    pub fn for_each_chunk<E: From<crate::Error>>(
        &self,
        mut visit: impl FnMut(ChunkKeyBytes, ChunkPlaceBytes) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for row in self
            .db
            .iterator_cf_opt(self.family(CHUNKS), options, IteratorMode::Start)
        {
            let (key, place) = row.map_err(|source| self.failed("list chunks", source))?;
            let key = key
                .as_ref()
                .try_into()
                .map_err(|_| malformed("a chunk's key has another length"))?;
            visit(key, decode(&place)?)?;
        }
        Ok(())
    }
}

fn decode(place: &[u8]) -> Result<ChunkPlaceBytes> {
    place
        .try_into()
        .map_err(|_| malformed("a chunk's place has another length"))
}
