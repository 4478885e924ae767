//! Search for candidates: positions whose 48-byte window passes the cut test. Hot path: no allocation per position.
//!
//! A position `p` of `data` is the end of its window `data[p - 48..p]`; whether it is a candidate depends on these bytes
//! alone, so every kernel is a pure function of a slice. One file a kernel; all give the same answer, the choice is made
//! once at run time ([`Kernel::best`]). This file drives them and jumps over runs of one byte value, whose hash is constant.

mod scalar;

use super::cut_test::CutTest;
use super::sizes::WINDOW_LEN;
use super::table::TABLE;

/// Positions between two looks for a run of one byte value: small enough to leave a run's rest to the jump, large enough
/// that a kernel's start-up (48 bytes) does not show.
const STRIDE: usize = 4096;

/// Positions in one bitmap step of [`Kernel::for_each_word`].
const WORDS: usize = 16;

/// One implementation of the search. Holding a value is the proof that this processor can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Which);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Scalar,
}

impl Kernel {
    /// Portable code, four bytes a step.
    pub const SCALAR: Self = Self(Which::Scalar);

    /// The fastest one for this processor.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// Every one that this processor can run, slowest first.
    pub fn available() -> &'static [Self] {
        &[Self::SCALAR]
    }

    /// Short name for benches and logs.
    pub fn name(self) -> &'static str {
        match self.0 {
            Which::Scalar => "scalar",
        }
    }

    /// Smallest candidate in `from..=to`, by this kernel alone. `48 <= from`, `to <= data.len()`.
    fn first_in_stride(self, test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
        match self.0 {
            Which::Scalar => scalar::first(test, data, from, to),
        }
    }

    /// Sets bit `i` of `words` where `from + i` is a candidate, up to `to`, and clears the rest.
    fn bits(self, test: &CutTest, data: &[u8], from: usize, to: usize, words: &mut [u64; WORDS]) {
        match self.0 {
            Which::Scalar => scalar::bits(test, data, from, to, words),
        }
    }

    /// Smallest candidate in `from..=to`, or `None`.
    ///
    /// `48 <= from`, `to <= data.len()`: a position without a whole window is nobody's candidate.
    pub(super) fn first(self, test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
        let mut at = from;
        while at <= to {
            if let Some(run_end) = run_end(data, at, to) {
                if test.hits(hash(&data[at - WINDOW_LEN..at])) {
                    return Some(at);
                }
                at = run_end + 1;
            } else {
                let stride_end = to.min(at + STRIDE - 1);
                if let Some(found) = self.first_in_stride(test, data, at, stride_end) {
                    return Some(found);
                }
                at = stride_end + 1;
            }
        }
        None
    }
}

/// Last position up to `to` whose window holds one byte value only, all the way from `at`'s; `None` where `at`'s does not.
fn run_end(data: &[u8], at: usize, to: usize) -> Option<usize> {
    let window = &data[at - WINDOW_LEN..at];
    let value = window[0];
    if !is_run(window, value) {
        return None;
    }
    let rest = &data[at..to];
    // Blocks first: the compiler makes this a vector compare.
    let blocks = rest.chunks_exact(64).take_while(|block| is_run(block, value)).count() * 64;
    let tail = rest[blocks..].iter().take_while(|&&byte| byte == value).count();
    Some(at + blocks + tail)
}

/// Whether all bytes are `value`.
#[inline(always)]
fn is_run(bytes: &[u8], value: u8) -> bool {
    bytes.iter().fold(0, |differing, &byte| differing | (byte ^ value)) == 0
}

/// Hash of one whole window.
#[inline]
pub(super) fn hash(window: &[u8]) -> u32 {
    debug_assert_eq!(window.len(), WINDOW_LEN);
    window
        .iter()
        .fold(0u32, |hash, &byte| hash.rotate_left(1) ^ TABLE[usize::from(byte)])
}
