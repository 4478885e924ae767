//! The three chunk sizes, the dialects, and the divisor of the cut test that follows from both.
//!
//! Invariant: a [`ChunkSizes`] always holds `1 <= min <= avg <= max <= CHUNK_LEN_MAX`.

/// Longest chunk that any format here allows, in bytes (128 MiB). Source: casync.
pub const CHUNK_LEN_MAX: usize = 128 << 20;

/// Bytes in the rolling window. Source: casync.
pub(super) const WINDOW_LEN: usize = 48;

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

/// The sizes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk sizes {min}:{avg}:{max} break the rule {rule}")]
pub struct ChunkSizesError {
    /// Smallest, as given.
    pub min: u64,
    /// Average, as given.
    pub avg: u64,
    /// Largest, as given.
    pub max: u64,
    /// The rule that was broken, as a phrase.
    pub rule: &'static str,
}

impl ChunkSizes {
    /// casync's and desync's default: 16, 64 and 256 KiB.
    pub const DEFAULT: Self = Self {
        min: 16 << 10,
        avg: 64 << 10,
        max: 256 << 10,
    };

    /// Checks that the sizes fit together. Sizes of zero, out of order or above [`CHUNK_LEN_MAX`] are an error.
    pub fn new(min: u64, avg: u64, max: u64) -> Result<Self, ChunkSizesError> {
        if 1 <= min && min <= avg && avg <= max && max <= CHUNK_LEN_MAX as u64 {
            Ok(Self {
                min: min as usize,
                avg: avg as usize,
                max: max as usize,
            })
        } else {
            Err(ChunkSizesError {
                min,
                avg,
                max,
                rule: "1 <= min <= avg <= max <= 134217728",
            })
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

    /// Whether every chunk but the last has one size, so that nothing is hashed.
    pub fn is_fixed(self) -> bool {
        self.min == self.max
    }

    /// Refuses sizes that the dialect's own tool cannot cut with, so that nobody else could repeat our cuts.
    ///
    /// - casync fails where max is below its 48-byte window (but for fixed sizes, which are not hashed).
    /// - desync refuses a min below 48; an average at which its divisor wraps to zero would make it divide by zero.
    pub fn check(self, dialect: Dialect) -> Result<(), ChunkSizesError> {
        let rule = match dialect {
            Dialect::Casync if !self.is_fixed() && self.max < WINDOW_LEN => "max >= 48 unless all three are equal",
            Dialect::Desync if self.min < WINDOW_LEN => "min >= 48 in desync's dialect",
            Dialect::Desync if !self.is_fixed() && self.discriminator(dialect) == 0 => {
                "an average with a divisor in desync's dialect"
            }
            _ => return Ok(()),
        };
        Err(ChunkSizesError {
            min: self.min as u64,
            avg: self.avg as u64,
            max: self.max as u64,
            rule,
        })
    }

    /// Length of a chunk at which the hash is tested first.
    pub(super) fn first_tested(self, dialect: Dialect) -> usize {
        match dialect {
            Dialect::Casync => self.min.max(WINDOW_LEN),
            Dialect::Desync => self.min.max(WINDOW_LEN) + 1,
        }
    }

    /// The divisor of the cut test, `trunc(avg / (1.33237515 - 1.42888852e-7 * avg))` in double precision.
    ///
    /// The denominator falls below zero at 9324556. Both tools then convert a negative double to an unsigned integer, for
    /// which C and Go give no rule; on x86-64 both go through a signed 64-bit integer, which is what is done here: casync's
    /// value wraps to a huge one and is clamped to max (observed), desync keeps the low 32 bits. Zero means "no divisor".
    pub(super) fn discriminator(self, dialect: Dialect) -> u32 {
        let avg = self.avg as f64;
        let raw = (avg / (-1.428_888_52e-7 * avg + 1.332_375_15)) as i64;
        match dialect {
            Dialect::Casync => (raw as u64).clamp(self.min as u64, self.max as u64) as u32,
            Dialect::Desync => raw as u32,
        }
    }
}
