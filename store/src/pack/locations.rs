//! Where chunks lie: a cache of what the packs say, which can always be made again from them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use cairn_formats::{ChunkId, DomainId, PackEntry};

use super::{PackHeads, Restore};
use crate::Result;

/// A chunk in a domain: what the store looks chunks up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// Whose chunk.
    pub domain: DomainId,
    /// Its name.
    pub id: ChunkId,
}

/// Where a chunk's frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Number of the pack.
    pub pack: u32,
    /// Offset of the frame in the pack, a multiple of 8.
    pub offset: u64,
    /// Bytes of the frame.
    pub len: u32,
    /// Bytes of the plain chunk.
    pub plain_len: u32,
    /// CRC-32C of the frame.
    pub crc: u32,
    /// Kept even if no index names it.
    pub pinned: bool,
}

impl ChunkPlace {
    pub(super) fn of(pack: u32, entry: &PackEntry) -> Self {
        Self {
            pack,
            offset: entry.offset,
            len: entry.len,
            plain_len: entry.plain_len,
            crc: entry.crc,
            pinned: entry.pinned,
        }
    }

    /// Whether both are the same record.
    pub(super) fn is_at(&self, pack: u32, offset: u64) -> bool {
        (self.pack, self.offset) == (pack, offset)
    }
}

/// A place in the store's log, which is its packs in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogPosition {
    /// Number of the pack.
    pub pack: u32,
    /// Offset in it.
    pub offset: u64,
}

/// How much of the log has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watermark {
    /// Everything before this was.
    pub position: LogPosition,
    /// Number of the last batch of the index that was.
    pub commit: u64,
}

/// What the log says has happened, in its order.
#[derive(Clone, Debug)]
pub enum Change {
    /// A chunk is here now, wherever it was before.
    Put(ChunkKey, ChunkPlace),
    /// A chunk is gone.
    Remove(ChunkKey),
    /// A batch of the index, numbered from 1 on. One that was applied before comes again after a crash and is passed over by its number.
    Commit(u64, Bytes),
}

/// Chunk to place, and whatever else is made from the log.
///
/// What was applied and then lost (it is a cache) is applied again from the watermark on.
pub trait Locations: Send + Sync + fmt::Debug {
    /// Where these chunks are; one answer per key, in order.
    fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>>;

    /// Where these chunks are, as far as existence and removal need it: of an answer `pack`, `offset` and `pinned` are right, the
    /// rest need not be.
    fn find_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        self.get_many(keys)
    }

    /// The store whose chunks these are is being opened: what is not kept here can be read there.
    fn attach(&self, _heads: PackHeads) {}

    /// Where a chunk is, if that can be told without waiting for a disk; `None` says nothing about the chunk.
    fn get_resident(&self, _key: ChunkKey) -> Option<ChunkPlace> {
        None
    }

    /// Takes changes in order, all or none. Everything before `watermark` has then been applied.
    fn apply(&self, changes: &[Change], watermark: LogPosition) -> Result<()>;

    /// [`Locations::apply`] of what is not durable in the log yet, batches of the index among it. Until the next `apply` a power cut
    /// may leave more here than there, which [`Locations::fell_back`] tells when the store is opened.
    fn apply_ahead(&self, changes: &[Change], watermark: LogPosition) -> Result<()> {
        self.apply(changes, watermark)
    }

    /// The log ends before the watermark. Answers with an error if what was applied ahead may be here and not there: then all is to be
    /// made again from the packs.
    fn fell_back(&self) -> Result<()> {
        Ok(())
    }

    /// How much of the log has been applied, which after a crash may be less than before; the default if nothing was.
    fn watermark(&self) -> Result<Watermark>;

    /// Makes what was applied outlive a crash, where this is kept on a disk at all.
    fn persist(&self) -> Result<()>;

    /// Hears that a pack is gone, to which no place leads any more.
    fn pack_is_gone(&self, _number: u32) {}

    /// Whether this outlives the process, in the store's [`super::PLACES_FOLDER`].
    fn is_kept(&self) -> bool {
        false
    }

    /// Whether rows of the index are kept here too, so that they can be made from a snapshot.
    fn keeps_rows(&self) -> bool {
        false
    }

    /// A step of making the rows of the index from a snapshot. One that is not followed by the last counts for nothing: the next
    /// opening begins anew. Places stay as they are.
    fn restore(&self, _step: Restore) -> Result<()> {
        Ok(())
    }

    /// Visits every chunk, in no order, until an error, which is returned. Changes that come meanwhile may be seen or not.
    fn for_each(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()>;
}

/// Locations wholly in memory, about 100 bytes a chunk, made from the packs' footers when the store is opened: for packs whose
/// heads are far away.
#[derive(Debug)]
pub struct MemoryLocations {
    shards: Vec<RwLock<Shard>>,
    seed: u64,
}

type Shard = HashMap<ChunkKey, ChunkPlace, BuildHasherDefault<IdHasher>>;

/// Locks over the table; a power of two.
const SHARDS: usize = 64;

impl Default for MemoryLocations {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            seed: RandomState::new().hash_one(0),
        }
    }
}

impl MemoryLocations {
    fn shard(&self, key: &ChunkKey) -> &RwLock<Shard> {
        let word = u64::from_le_bytes(key.id.as_bytes()[8..16].try_into().expect("eight bytes"));
        &self.shards[(word ^ self.seed) as usize % SHARDS]
    }
}

impl Locations for MemoryLocations {
    fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<ChunkPlace>>> {
        let get = |key| {
            let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
            shard.get(key).copied()
        };
        Ok(keys.iter().map(get).collect())
    }

    fn get_resident(&self, key: ChunkKey) -> Option<ChunkPlace> {
        let shard = self.shard(&key).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&key).copied()
    }

    fn apply(&self, changes: &[Change], _watermark: LogPosition) -> Result<()> {
        for change in changes {
            match change {
                Change::Put(key, place) => {
                    let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
                    shard.insert(*key, *place);
                }
                Change::Remove(key) => {
                    let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
                    shard.remove(key);
                }
                Change::Commit(..) => {}
            }
        }
        Ok(())
    }

    fn watermark(&self) -> Result<Watermark> {
        Ok(Watermark::default())
    }

    fn persist(&self) -> Result<()> {
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(ChunkKey, ChunkPlace) -> Result<()>) -> Result<()> {
        for shard in &self.shards {
            // Copied, so that the visitor may change the table.
            let shard: Vec<_> = {
                let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
                shard.iter().map(|(key, place)| (*key, *place)).collect()
            };
            shard.into_iter().try_for_each(|(key, place)| visit(key, place))?;
        }
        Ok(())
    }
}

/// Takes eight bytes of an id for its hash: an id is a digest already. Who makes many ids that agree in them has to make chunks
/// that do, 2^32 times the work for each bit pattern of half the length, and gets one slow table.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(word) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*word);
        }
    }

    fn write_u32(&mut self, domain: u32) {
        self.0 ^= u64::from(domain).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
