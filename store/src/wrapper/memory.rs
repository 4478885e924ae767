//! Stored bytes of chunks kept in memory, in front of any store.
//!
//! Which are kept is decided by how often they are asked for (S3-FIFO, as `quick_cache` has it): one pass over everything does
//! not push out what is asked for again and again. What is kept is what the store within answered; who decodes or sends it
//! proves it as before. Existence is always asked of the store within, so that a chunk that was deleted is not told to be there.
//!
//! Hot path: a hit is one look-up in one of many tables and a counted reference; a chunk that comes in is copied once, since it
//! may be a slice of a longer read.

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkForm, ChunkId, EncodedChunk, StorableChunk};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::{ChunkStat, ChunkStore, Result, StoreName};

/// Bytes that a chunk takes besides its own, about.
const ENTRY_COST: u64 = 128;

/// Mean bytes of a stored chunk, for the first size of the tables.
const CHUNK_LEN_MEAN: u64 = 24 << 10;

/// A store with a cache in memory.
#[derive(Debug)]
pub struct MemoryCacheStore {
    inner: Arc<dyn ChunkStore>,
    frames: Cache<(ChunkId, ChunkForm), Bytes, Stored>,
}

#[derive(Clone, Debug)]
struct Stored;

impl Weighter<(ChunkId, ChunkForm), Bytes> for Stored {
    fn weight(&self, _key: &(ChunkId, ChunkForm), bytes: &Bytes) -> u64 {
        bytes.len() as u64 + ENTRY_COST
    }
}

impl MemoryCacheStore {
    /// Keeps at most `bytes_max` bytes of what `inner` answers, what the tables take included.
    pub fn new(inner: Arc<dyn ChunkStore>, bytes_max: u64) -> Self {
        let chunks = usize::try_from(bytes_max / CHUNK_LEN_MEAN).unwrap_or(usize::MAX);
        Self {
            inner,
            frames: Cache::with_weighter(chunks.max(1), bytes_max, Stored),
        }
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> u64 {
        self.frames.weight()
    }

    /// The chunk in whichever form it is kept.
    fn kept(&self, id: ChunkId) -> Option<EncodedChunk> {
        [ChunkForm::Compressed, ChunkForm::Plain]
            .into_iter()
            .find_map(|form| self.kept_as(id, form))
    }

    fn kept_as(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        let bytes = self.frames.get(&(id, form))?;
        Some(EncodedChunk { id, form, bytes })
    }

    fn keep(&self, chunk: &EncodedChunk) {
        let bytes = Bytes::copy_from_slice(&chunk.bytes);
        self.frames.insert((chunk.id, chunk.form), bytes);
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for MemoryCacheStore {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.inner.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let mut answers: Vec<Option<Result<EncodedChunk>>> = ids.iter().map(|&id| self.kept(id).map(Ok)).collect();
        let missing: Vec<usize> = (0..ids.len()).filter(|&n| answers[n].is_none()).collect();
        count("hit", ids.len() - missing.len());
        if !missing.is_empty() {
            count("miss", missing.len());
            let wanted: Vec<ChunkId> = missing.iter().map(|&n| ids[n]).collect();
            for (n, answer) in missing.into_iter().zip(self.inner.get_many(&wanted)) {
                if let Ok(chunk) = &answer {
                    self.keep(chunk);
                }
                answers[n] = Some(answer);
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.expect("kept or asked for"))
            .collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.inner.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        self.inner.stat(id, form)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        if let Some(chunk) = self.kept_as(id, form) {
            count("hit", 1);
            return Some(chunk);
        }
        let chunk = self.inner.get_resident(id, form)?;
        count("miss", 1);
        self.keep(&chunk);
        Some(chunk)
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        let _ = self.frames.remove(&(damaged.id, damaged.form));
        self.inner.set_aside(damaged)
    }
}

fn count(result: &'static str, chunks: usize) {
    metrics::counter!("cache_requests_total", "cache" => "memory", "result" => result).increment(chunks as u64);
}

#[cfg(test)]
mod tests {
    use cairn_formats::{Chunk, DigestAlgorithm, Level};

    use super::*;
    use crate::{FlatOptions, FlatStore, Prune as _, contract};

    fn flat() -> (tempfile::TempDir, Arc<FlatStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = FlatStore::open(folder.path(), FlatOptions::default()).unwrap();
        (folder, Arc::new(store))
    }

    #[test]
    fn the_contract_is_kept() {
        let (_folder, flat) = flat();
        contract::writable(&MemoryCacheStore::new(flat, 1 << 20));
    }

    /// Goal: one pass over ten times what the cache holds leaves what was asked for often.
    /// Method: what the cache does not have is gone, since its store has been emptied.
    #[test]
    fn a_scan_does_not_push_out_what_is_hot() {
        const CHUNK_LEN: usize = 10_000;
        const CACHE: u64 = 4 << 20;
        let (_folder, flat) = flat();
        let mut random = fastrand::Rng::with_seed(1);
        let chunks: Vec<StorableChunk> = (0..10 * CACHE as usize / CHUNK_LEN)
            .map(|_| {
                let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(CHUNK_LEN).collect();
                let chunk = Chunk::from_plain(DigestAlgorithm::default(), plain.into());
                chunk.encode(ChunkForm::Compressed, Level::DEFAULT)
            })
            .collect();
        flat.put_many(&chunks).unwrap();
        flat.flush().unwrap();
        let ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
        let (hot, cold) = ids.split_at(CACHE as usize / CHUNK_LEN / 3);
        let cache = MemoryCacheStore::new(flat.clone(), CACHE);
        let asked = |ids: &[ChunkId]| cache.get_many(ids).iter().filter(|answer| answer.is_ok()).count();
        for _ in 0..5 {
            assert_eq!(asked(hot), hot.len());
        }
        for some in cold.chunks(100) {
            assert_eq!(asked(some), some.len());
            assert!(cache.bytes() <= CACHE);
        }
        flat.remove_many(&ids).unwrap();
        let left = asked(hot);
        assert!(left * 100 >= hot.len() * 98, "{left} of {}", hot.len());
        assert!(cache.bytes() > CACHE / 2);
    }

    #[test]
    fn what_is_set_aside_is_forgotten() {
        let (_folder, flat) = flat();
        let chunk = Chunk::from_plain(DigestAlgorithm::default(), Bytes::from_static(b"plain"));
        flat.put_many(&[chunk.encode(ChunkForm::Compressed, Level::DEFAULT)])
            .unwrap();
        flat.flush().unwrap();
        let cache = MemoryCacheStore::new(flat.clone(), 1 << 20);
        let kept = cache.get_many(&[chunk.id()]).remove(0).unwrap();
        flat.remove_many(&[chunk.id()]).unwrap();
        assert!(cache.get_many(&[chunk.id()])[0].is_ok());
        cache.set_aside(&kept).unwrap();
        assert!(cache.get_many(&[chunk.id()])[0].is_err());
    }
}
