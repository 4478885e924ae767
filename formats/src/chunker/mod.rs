//! Content-defined cuts as casync makes them: a 32-bit cyclic-polynomial hash (buzhash) over a 48-byte window.
//!
//! Invariants: the same stream gives the same cuts however it is sliced; the state starts anew at each cut, so a chunk's end
//! depends on the chunk's own bytes only. Source: casync's chunker (`formats/FORMATS.md`, "Chunker").

mod table;

use table::TABLE;

/// Longest chunk that any format here allows, in bytes (128 MiB). Source: casync.
pub const CHUNK_LEN_MAX: usize = 128 << 20;

/// Bytes in the rolling window.
const WINDOW_LEN: usize = 48;

/// Which tool's rule the cuts follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Dialect 1: casync 2, and desync after v1.1.0.
    #[default]
    Casync,
    /// Dialect 2: desync up to v1.1.0; no test at exactly min, no clamp of the discriminator, min at least 48.
    Desync,
}

/// Smallest, average and largest chunk, in bytes; `1 <= min <= avg <= max <= CHUNK_LEN_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    min: usize,
    avg: usize,
    max: usize,
}

/// The three sizes do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk sizes {min}:{avg}:{max} break the rule 1 <= min <= avg <= max <= 134217728")]
pub struct ChunkSizesError {
    /// Smallest, as given.
    pub min: u64,
    /// Average, as given.
    pub avg: u64,
    /// Largest, as given.
    pub max: u64,
}

impl ChunkSizes {
    /// casync's and desync's default: 16, 64 and 256 KiB.
    pub const DEFAULT: Self = Self {
        min: 16 << 10,
        avg: 64 << 10,
        max: 256 << 10,
    };

    /// Checks that the sizes fit together.
    pub fn new(min: u64, avg: u64, max: u64) -> Result<Self, ChunkSizesError> {
        if 1 <= min && min <= avg && avg <= max && max <= CHUNK_LEN_MAX as u64 {
            Ok(Self {
                min: min as usize,
                avg: avg as usize,
                max: max as usize,
            })
        } else {
            Err(ChunkSizesError { min, avg, max })
        }
    }

    /// Smallest chunk but for the last.
    pub fn min(self) -> usize {
        self.min
    }

    /// The average asked for.
    pub fn avg(self) -> usize {
        self.avg
    }

    /// Largest chunk.
    pub fn max(self) -> usize {
        self.max
    }

    /// The divisor of the cut test, `trunc(avg / (1.33237515 - 1.42888852e-7 * avg))`, clamped in dialect 1.
    fn discriminator(self, dialect: Dialect) -> u32 {
        let avg = self.avg as f64;
        let raw = (avg / (-1.428_888_52e-7 * avg + 1.332_375_15)) as u32;
        match dialect {
            Dialect::Casync => raw.clamp(self.min as u32, self.max as u32),
            Dialect::Desync => raw,
        }
    }
}

/// Finds the cuts of one stream, pushed in pieces of any size.
#[derive(Clone, Debug)]
pub struct Chunker {
    sizes: ChunkSizes,
    dialect: Dialect,
    discriminator: u32,
    window: [u8; WINDOW_LEN],
    hash: u32,
    /// Bytes of the open chunk so far.
    len: usize,
}

impl Chunker {
    /// A chunker at the start of a stream.
    pub fn new(sizes: ChunkSizes, dialect: Dialect) -> Self {
        Self {
            sizes,
            dialect,
            discriminator: sizes.discriminator(dialect),
            window: [0; WINDOW_LEN],
            hash: 0,
            len: 0,
        }
    }

    /// Takes the next bytes of the stream and finds where the current chunk ends.
    ///
    /// - `input`: any number of bytes, 0 included.
    /// - Returns how many bytes of `input` belong to the chunk, or `None` when all do and it is still open.
    /// - Same stream, same cuts, however it is sliced; chunks are `min..=max` bytes, only the last may be shorter. Cannot fail.
    /// - Source: casync buzhash chunker, 48-byte window (`formats/FORMATS.md`, "Chunker").
    pub fn cut(&mut self, input: &[u8]) -> Option<usize> {
        let first = self.sizes.min.max(WINDOW_LEN);
        let fixed = self.sizes.min == self.sizes.max;
        for (at, &byte) in input.iter().enumerate() {
            let slot = self.len % WINDOW_LEN;
            if self.len < first {
                self.hash = self.hash.rotate_left(1) ^ TABLE[usize::from(byte)];
                if self.len >= WINDOW_LEN {
                    self.hash ^= TABLE[usize::from(self.window[slot])].rotate_left(16);
                }
            } else {
                self.hash = self.hash.rotate_left(1)
                    ^ TABLE[usize::from(self.window[slot])].rotate_left(16)
                    ^ TABLE[usize::from(byte)];
            }
            self.window[slot] = byte;
            self.len += 1;
            let tested = !fixed
                && match self.dialect {
                    Dialect::Casync => self.len >= first,
                    Dialect::Desync => self.len > first,
                };
            if self.len == self.sizes.max
                || tested && self.hash % self.discriminator == self.discriminator.wrapping_sub(1)
            {
                self.len = 0;
                self.hash = 0;
                return Some(at + 1);
            }
        }
        None
    }
}
