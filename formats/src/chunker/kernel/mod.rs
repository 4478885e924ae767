//! Search for candidates: positions whose 48-byte window passes the cut test. Hot path: no allocation per position.
//!
//! A position `p` of `data` is the end of its window `data[p - 48..p]`; whether it is a candidate depends on these bytes
//! alone, so every kernel is a pure function of a slice. One file a kernel; all give the same answer, the choice is made
//! once at run time ([`Kernel::best`]). This file drives them and jumps over runs of one byte value, whose hash is constant.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::ops::ControlFlow;

use super::cut_test::CutTest;
use super::sizes::WINDOW_LEN;
use super::table::TABLE;

/// Positions between two looks for a run of one byte value: small enough to leave a run's rest to the jump, large enough
/// that a kernel's start-up (48 bytes) does not show.
const STRIDE: usize = 4096;

/// Words of the bitmap that [`Kernel::each`] asks a kernel for where candidates may be dense.
const WORDS: usize = 16;

/// Candidates as [`Kernel::each`] reports them, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hits {
    /// Position `from + i` is a candidate where bit `i` of `bits` is set.
    Word { from: usize, bits: u64 },
    /// Every position in `from..=to` is a candidate: a run of one byte value whose hash passes the test.
    Run { from: usize, to: usize },
}

/// One implementation of the search. Holding a value is the proof that this processor can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Which);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
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
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            let all = &[Self::SCALAR, Self(Which::Avx2), Self(Which::Avx512)];
            let vbmi = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi");
            return if vbmi { all } else { &all[..2] };
        }
        &[Self::SCALAR]
    }

    /// Short name for benches and logs.
    pub fn name(self) -> &'static str {
        match self.0 {
            Which::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Which::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Which::Avx512 => "avx512",
        }
    }

    /// Smallest candidate in `from..=to`, by this kernel alone. `48 <= from`, `to <= data.len()`.
    #[allow(unsafe_code)]
    fn first_in_stride(self, test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
        match self.0 {
            Which::Scalar => scalar::first(test, data, from, to),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` makes this value only where the processor has the features.
            Which::Avx512 => unsafe { avx512::first(test, data, from, to) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise.
            Which::Avx2 => unsafe { avx2::first(test, data, from, to) },
        }
    }

    /// Sets bit `i` of `words` where `from + i` is a candidate, up to `to`, and clears the rest.
    #[allow(unsafe_code)]
    fn bits(self, test: &CutTest, data: &[u8], from: usize, to: usize, words: &mut [u64; WORDS]) {
        match self.0 {
            Which::Scalar => scalar::bits(test, data, from, to, words),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `first_in_stride`.
            Which::Avx512 => unsafe { avx512::bits(test, data, from, to, words) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise.
            Which::Avx2 => unsafe { avx2::bits(test, data, from, to, words) },
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

    /// Reports every candidate in `from..=to`, ascending, until `report` breaks.
    ///
    /// Work is linear in the positions and there is no memory, however dense the candidates are: behind each one found, the
    /// next thousand positions are read as a bitmap. `48 <= from`, `to <= data.len()`.
    pub(super) fn each<T>(
        self,
        test: &CutTest,
        data: &[u8],
        from: usize,
        to: usize,
        mut report: impl FnMut(Hits) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        let mut at = from;
        while let Some(found) = (at <= to).then(|| self.first(test, data, at, to)).flatten() {
            if let Some(run_end) = run_end(data, found, to) {
                report(Hits::Run {
                    from: found,
                    to: run_end,
                })?;
                at = run_end + 1;
                continue;
            }
            let mut words = [0; WORDS];
            self.bits(test, data, found, to, &mut words);
            for (word, &bits) in words.iter().enumerate() {
                if bits != 0 {
                    report(Hits::Word {
                        from: found + word * 64,
                        bits,
                    })?;
                }
            }
            at = found + WORDS * 64;
        }
        ControlFlow::Continue(())
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
