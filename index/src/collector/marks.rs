//! What the collector remembers in memory: which chunks are named (a filter), and which were asked for lately; and its answer to
//! the pack store, what is condemned.
//!
//! Both only ever err towards keeping: the filter takes about one in two hundred unnamed chunks for named, others in each
//! collection, since its seed is new; who was asked for and is forgotten is at worst sent once more.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_store::{ChunkKey, ChunkPlace, Liveness, LogPosition};

use crate::database::Engine;
use crate::liveness::{ChunkAt, condemned};

/// Bits of the filter for each chunk named.
const BITS_PER_CHUNK: u64 = 12;

/// Bits that each chunk sets, all within one block, which is a line of the processor's cache.
const PROBES: u32 = 6;

type Block = [u64; 8];

/// Chunks that were asked for, remembered at once; when there are more the oldest are forgotten.
const TOUCHES_MAX: usize = 1 << 20;

/// A set of chunks that may hold a few more than were put into it, never fewer.
#[derive(Debug)]
pub(super) struct NamedSet {
    blocks: Vec<Block>,
    seed: RandomState,
}

impl NamedSet {
    /// One with room for so many chunks in so much memory. With less room than it needs it takes more for named.
    pub(super) fn new(chunks: u64, bytes_max: usize) -> Self {
        let wanted = usize::try_from(chunks.saturating_mul(BITS_PER_CHUNK) / 8).unwrap_or(usize::MAX);
        let blocks = wanted.clamp(1 << 12, bytes_max.max(1 << 12)) / size_of::<Block>();
        Self {
            blocks: vec![Block::default(); blocks],
            seed: RandomState::new(),
        }
    }

    pub(super) fn insert(&mut self, key: &ChunkKey) {
        let hash = self.seed.hash_one(key);
        let at = self.block(hash);
        for (word, bit) in probes(hash) {
            self.blocks[at][word] |= bit;
        }
    }

    pub(super) fn contains(&self, key: &ChunkKey) -> bool {
        let hash = self.seed.hash_one(key);
        let block = &self.blocks[self.block(hash)];
        probes(hash).all(|(word, bit)| block[word] & bit != 0)
    }

    fn block(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize
    }
}

/// Words and bits of a block. The block is chosen by the hash's high bits, so these come from all bits, mixed.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash.rotate_left(32);
    (0..PROBES).map(move |n| {
        let bits = mixed >> (9 * n);
        ((bits & 7) as usize, 1 << (bits >> 3 & 63))
    })
}

/// What the pack store asks.
#[derive(Debug)]
pub(super) struct Marks<E> {
    /// The rows, read without the lane of commits: the log, which is the pack store, must not wait for itself.
    engine: Arc<E>,
    /// Whether there may be a mark at all.
    any: AtomicBool,
    window: Duration,
    touches: Mutex<Touches>,
}

/// Two spans of a window each: what was asked for is remembered for one window at least.
#[derive(Debug)]
struct Touches {
    since: Instant,
    now: HashSet<ChunkKey>,
    before: HashSet<ChunkKey>,
}

impl<E: Engine> Marks<E> {
    pub(super) fn new(engine: Arc<E>, window: Duration) -> Self {
        Self {
            engine,
            any: AtomicBool::new(true),
            window,
            touches: Mutex::new(Touches {
                since: Instant::now(),
                now: HashSet::new(),
                before: HashSet::new(),
            }),
        }
    }

    /// Says whether there may be marks: before the first is made, and after the last is gone.
    pub(super) fn set_any(&self, any: bool) {
        self.any.store(any, Ordering::SeqCst);
    }

    /// Whether somebody was told lately that a chunk is there.
    pub(super) fn is_touched(&self, key: &ChunkKey) -> bool {
        if self.window.is_zero() {
            return false;
        }
        let mut touches = self.touches.lock().unwrap_or_else(PoisonError::into_inner);
        touches.turn(self.window);
        touches.now.contains(key) || touches.before.contains(key)
    }
}

impl Touches {
    fn turn(&mut self, window: Duration) {
        let age = self.since.elapsed();
        if age >= window {
            self.before = std::mem::take(&mut self.now);
            if age >= window.saturating_mul(2) {
                self.before.clear();
            }
            self.since = Instant::now();
        }
    }
}

impl<E: Engine> Liveness for Marks<E> {
    fn condemned(&self, chunks: &[(ChunkKey, ChunkPlace)]) -> cairn_store::Result<Vec<bool>> {
        if !self.any.load(Ordering::SeqCst) {
            return Ok(vec![false; chunks.len()]);
        }
        let chunks: Vec<ChunkAt> = chunks.iter().map(|(key, place)| chunk_at(*key, place)).collect();
        condemned(self.engine.as_ref(), &chunks).map_err(|error| cairn_store::Error::Unavailable {
            store: cairn_store::StoreName::new("the index"),
            action: "tell what is condemned",
            source: error.into(),
        })
    }

    fn touched(&self, chunks: &[(ChunkKey, ChunkPlace)]) {
        if self.window.is_zero() {
            return;
        }
        let mut touches = self.touches.lock().unwrap_or_else(PoisonError::into_inner);
        touches.turn(self.window);
        for (key, _) in chunks {
            if touches.now.len() >= TOUCHES_MAX {
                touches.before = std::mem::take(&mut touches.now);
            }
            touches.now.insert(*key);
        }
    }
}

pub(super) fn chunk_at(key: ChunkKey, place: &ChunkPlace) -> ChunkAt {
    ChunkAt {
        key,
        at: LogPosition {
            pack: place.pack,
            offset: place.offset,
        },
    }
}

#[cfg(test)]
mod tests {
    use cairn_formats::{ChunkId, DomainId};

    use super::*;

    fn key(n: u64) -> ChunkKey {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        ChunkKey {
            domain: DomainId(0),
            id: ChunkId::from_bytes(id),
        }
    }

    /// Goal: what was put in is in, and few others are: at most 2 %, where 0.5 % are expected.
    #[test]
    fn the_filter_forgets_nothing_and_takes_few_others() {
        let mut named = NamedSet::new(100_000, 1 << 20);
        (0..100_000).for_each(|n| named.insert(&key(n)));
        assert!((0..100_000).all(|n| named.contains(&key(n))));
        let others = (100_000..200_000).filter(|&n| named.contains(&key(n))).count();
        assert!(others < 2000, "{others} of 100 000");
        let mut full = NamedSet::new(100_000, 1 << 12);
        (0..100_000).for_each(|n| full.insert(&key(n)));
        assert!(
            (0..100_000).all(|n| full.contains(&key(n))),
            "too little room keeps all"
        );
    }
}
