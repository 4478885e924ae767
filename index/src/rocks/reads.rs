//! What look-ups cost in blocks, as RocksDB itself counts: for benches and for people who look for what is slow.

use rocksdb::perf::{PerfContext, PerfStatsLevel, set_perf_stats};

use super::{CHUNKS, RocksEngine};
use crate::Result;

/// Blocks that one thread's look-ups needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockReads {
    /// Blocks of any kind that were not in memory and were read.
    pub read: u64,
    /// Of these, blocks of indexes.
    pub index_read: u64,
    /// Of these, blocks of filters.
    pub filter_read: u64,
    /// Blocks of indexes that were in memory.
    pub index_hits: u64,
}

/// Bytes of memory that look-ups of chunks have besides the cache of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacesMemory {
    /// What is held for each file whatever the cache's size: tops of indexes and filters.
    pub readers: u64,
    /// What the cache may not give up.
    pub pinned: u64,
    /// What the cache holds in all.
    pub cached: u64,
}

impl BlockReads {
    /// Counts what `work` needs on this thread.
    pub fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        set_perf_stats(PerfStatsLevel::EnableCount);
        let mut context = PerfContext::default();
        context.reset();
        let done = work();
        let report = context.report(true);
        set_perf_stats(PerfStatsLevel::Disable);
        let count = |name: &str| {
            let words = report.split(',').filter_map(|part| part.split_once('='));
            let mut counts = words.filter(|(word, _)| word.trim() == name);
            counts
                .next()
                .and_then(|(_, count)| count.trim().parse().ok())
                .unwrap_or(0)
        };
        let reads = Self {
            read: count("block_read_count"),
            index_read: count("index_block_read_count"),
            filter_read: count("filter_block_read_count"),
            index_hits: count("block_cache_index_hit_count"),
        };
        (done, reads)
    }
}

impl RocksEngine {
    /// Memory of the places of chunks.
    pub fn places_memory(&self) -> Result<PlacesMemory> {
        let property = |name: &rocksdb::properties::PropName| {
            let value = self.db.property_int_value_cf(self.family(CHUNKS), name);
            let value = value.map_err(|source| self.failed("tell its memory", source))?;
            Ok::<u64, crate::Error>(value.unwrap_or(0))
        };
        Ok(PlacesMemory {
            readers: property(rocksdb::properties::ESTIMATE_TABLE_READERS_MEM)?,
            pinned: property(rocksdb::properties::BLOCK_CACHE_PINNED_USAGE)?,
            cached: property(rocksdb::properties::BLOCK_CACHE_USAGE)?,
        })
    }

    /// Merges all files of places into as few as can be, as time does.
    pub fn merge_places(&self) {
        self.db
            .compact_range_cf(self.family(CHUNKS), None::<&[u8]>, None::<&[u8]>);
    }
}

#[cfg(test)]
mod tests {
    use cairn_formats::{DigestAlgorithm, DomainId};
    use cairn_store::{Change, ChunkKey, ChunkPlace, Locations as _, LogPosition};

    use super::*;
    use crate::RocksOptions;

    /// Goal: counts are RocksDB's: a look-up of what only a cold file has reads blocks, of what is in memory none.
    #[test]
    fn reads_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("index");
        let key = |n: u32| ChunkKey {
            domain: DomainId::default(),
            id: DigestAlgorithm::Sha256.id(&n.to_le_bytes()),
        };
        let lies_at = ChunkPlace {
            pack: 1,
            offset: 64,
            len: 1,
            plain_len: 1,
            crc: 0,
            pinned: false,
        };
        let puts: Vec<Change> = (0..1000).map(|n| Change::Put(key(n), lies_at)).collect();
        let engine = RocksEngine::open(&place, &RocksOptions::default()).unwrap();
        engine.apply(&puts, LogPosition::default()).unwrap();
        let (found, reads) = BlockReads::of(|| engine.get_many(&[key(1)]).unwrap());
        assert_eq!((found, reads), (vec![Some(lies_at)], BlockReads::default()));
        engine.flush().unwrap();
        drop(engine);
        let engine = RocksEngine::open(&place, &RocksOptions::default()).unwrap();
        engine.merge_places();
        let (found, reads) = BlockReads::of(|| engine.get_many(&[key(1)]).unwrap());
        assert_eq!(found, [Some(lies_at)]);
        assert!(
            reads.read >= 1 && reads.read + reads.index_hits >= reads.index_read,
            "{reads:?}"
        );
        assert!(engine.places_memory().unwrap().cached > 0);
    }
}
