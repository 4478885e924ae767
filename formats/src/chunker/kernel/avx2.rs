//! Kernel for AVX2: table words by ordinary loads, everything else eight positions at a time. Hot path.
//!
//! The arithmetic is that of the AVX-512 kernel: with every table word turned into a common frame, `G(i) = XOR of
//! ror(T[b_j], j mod 32) over j <= i`, a window's hash is `H(i + 1) = rol(G(i) ^ G(i - 48), i mod 32)`. Of a turn by `8 g + l`
//! the part `l` is done by the choice among eight tables, the part `8 g` by a byte shuffle. Words are written a block ahead
//! of their use, as a vector load right behind the scalar stores that it needs would wait for them.
//!
//! `unsafe` is needed only for loads from slices; the caller vouches for the processor (see [`super::Kernel`]).

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::cut_test::CutTest;
use super::super::sizes::WINDOW_LEN;
use super::super::table::TABLE;
use super::WORDS;

/// Positions between a table word's store and its load, and in a block.
const BLOCK: usize = 256;
/// Positions after which the turns repeat.
const FRAME: usize = 32;
/// Positions in a register.
const LANES: usize = 8;
/// Registers of `G` that make 48 positions.
const BACK: usize = WINDOW_LEN / LANES;

/// `TABLES[l][b]` is `ror(TABLE[b], l)`.
static TABLES: [[u32; 256]; LANES] = {
    let mut tables = [TABLE; LANES];
    let mut lane = 0;
    while lane < LANES {
        let mut byte = 0;
        while byte < 256 {
            tables[lane][byte] = TABLE[byte].rotate_right(lane as u32);
            byte += 1;
        }
        lane += 1;
    }
    tables
};

/// Shuffles that turn each 32-bit word right by a number of whole bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn turn_right_bytes(bytes: i32) -> __m256i {
    let word = |first: i32| {
        let at = |step: i32| first + (bytes + step) % 4;
        at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24
    };
    _mm256_setr_epi32(word(0), word(4), word(8), word(12), word(0), word(4), word(8), word(12))
}

/// A pass over one slice: the constants, and the last 48 values of `G`.
struct Search {
    /// Shuffles for a turn by 0, 1, 2 and 3 bytes to the right; to the left it is the same list backwards.
    turns: [__m256i; 4],
    lanes: __m256i,
    lanes_complement: __m256i,
    inverse: __m256i,
    shift: __m128i,
    shift_complement: __m128i,
    bias: __m256i,
    /// `inverse - bias`, the one addition where the divisor is odd.
    addend: __m256i,
    limit: __m256i,
    last: [__m256i; BACK],
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[u32; LANES]) -> __m256i {
    // SAFETY: the array is 32 readable bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

impl Search {
    /// Ready for the bytes from `data[from - 1]` on; `48 <= from <= data.len()`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(test: &CutTest, data: &[u8], from: usize) -> Self {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mut search = Self {
            turns: [
                turn_right_bytes(0),
                turn_right_bytes(1),
                turn_right_bytes(2),
                turn_right_bytes(3),
            ],
            lanes,
            lanes_complement: _mm256_sub_epi32(_mm256_set1_epi32(32), lanes),
            inverse: _mm256_set1_epi32(test.inverse as i32),
            shift: _mm_cvtsi32_si128(test.shift as i32),
            shift_complement: _mm_cvtsi32_si128(32 - test.shift as i32),
            bias: _mm256_set1_epi32(test.bias as i32),
            addend: _mm256_set1_epi32(test.inverse.wrapping_sub(test.bias) as i32),
            limit: _mm256_set1_epi32(test.limit as i32),
            last: [_mm256_setzero_si256(); BACK],
        };
        // The 47 bytes before, at the end of a frame. What stands in front of them is in every later G and so in no difference.
        let mut before = [0; 2 * FRAME];
        before[2 * FRAME - (WINDOW_LEN - 1)..].copy_from_slice(&data[from - WINDOW_LEN..from - 1]);
        let words = words(&before);
        for frame in words.as_chunks::<FRAME>().0 {
            search.hashes(frame);
        }
        search
    }

    /// Hashes of the windows that end with each of the next 32 bytes, of which the table words are given.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn hashes(&mut self, words: &[u32; FRAME]) -> [__m256i; 4] {
        let (groups, _) = words.as_chunks::<LANES>();
        let mut hashes = [_mm256_setzero_si256(); 4];
        let mut sums = [_mm256_setzero_si256(); 4];
        let mut before = self.last[BACK - 1];
        for group in 0..4 {
            let x = _mm256_shuffle_epi8(load(&groups[group]), self.turns[group]);
            // Prefix sums in each half, the lower half's total into the upper, the total so far into both.
            let x = _mm256_xor_si256(x, _mm256_slli_si256::<4>(x));
            let x = _mm256_xor_si256(x, _mm256_slli_si256::<8>(x));
            let lower_total = _mm256_shuffle_epi32::<0xff>(_mm256_permute2x128_si256::<0x08>(x, x));
            let x = _mm256_xor_si256(x, lower_total);
            let x = _mm256_xor_si256(x, _mm256_permutevar8x32_epi32(before, _mm256_set1_epi32(7)));
            before = x;
            sums[group] = x;
            let turned = _mm256_shuffle_epi8(_mm256_xor_si256(x, self.last[group]), self.turns[(4 - group) % 4]);
            hashes[group] = _mm256_or_si256(
                _mm256_sllv_epi32(turned, self.lanes),
                _mm256_srlv_epi32(turned, self.lanes_complement),
            );
        }
        self.last = [self.last[4], self.last[5], sums[0], sums[1], sums[2], sums[3]];
        hashes
    }

    /// Bit `i`: whether the window that ends with byte `i` of the next 32 is a candidate.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn hits<const ODD: bool>(&mut self, words: &[u32; FRAME]) -> u32 {
        let passes = self.hashes(words).map(|hash| {
            let product = _mm256_mullo_epi32(hash, self.inverse);
            let value = if ODD {
                _mm256_add_epi32(product, self.addend)
            } else {
                let sum = _mm256_add_epi32(product, self.inverse);
                let turned = _mm256_or_si256(
                    _mm256_srl_epi32(sum, self.shift),
                    _mm256_sll_epi32(sum, self.shift_complement),
                );
                _mm256_sub_epi32(turned, self.bias)
            };
            _mm256_cmpeq_epi32(_mm256_min_epu32(value, self.limit), value)
        });
        let any = _mm256_or_si256(
            _mm256_or_si256(passes[0], passes[1]),
            _mm256_or_si256(passes[2], passes[3]),
        );
        if _mm256_testz_si256(any, any) != 0 {
            return 0;
        }
        let bits = passes.map(|pass| _mm256_movemask_ps(_mm256_castsi256_ps(pass)) as u32);
        bits[0] | bits[1] << 8 | bits[2] << 16 | bits[3] << 24
    }
}

/// Table words of bytes, turned by their position modulo eight.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8; N]) -> [u32; N] {
    let mut words = [0; N];
    let (groups, _) = bytes.as_chunks::<LANES>();
    let (word_groups, _) = words.as_chunks_mut::<LANES>();
    for (group, out) in groups.iter().zip(word_groups) {
        for lane in 0..LANES {
            out[lane] = TABLES[lane][usize::from(group[lane])];
        }
    }
    words
}

/// Calls `found` with the offset behind `from` of each frame of 32 positions that holds candidates, and their bits, until it
/// says stop.
#[inline]
#[target_feature(enable = "avx2")]
fn search<const ODD: bool>(
    test: &CutTest,
    data: &[u8],
    from: usize,
    to: usize,
    mut found: impl FnMut(usize, u32) -> bool,
) {
    let mut search = Search::new(test, data, from);
    let (blocks, rest) = data[from - 1..to].as_chunks::<BLOCK>();
    for (block, bytes) in blocks.iter().enumerate() {
        let words = words(bytes);
        for (frame, words) in words.as_chunks::<FRAME>().0.iter().enumerate() {
            let bits = search.hits::<ODD>(words);
            if bits != 0 && found(block * BLOCK + frame * FRAME, bits) {
                return;
            }
        }
    }
    let (frames, rest) = rest.as_chunks::<FRAME>();
    let mut padded = [0; FRAME];
    padded[..rest.len()].copy_from_slice(rest);
    for (frame, bytes) in frames.iter().chain([&padded]).enumerate() {
        let mut bits = search.hits::<ODD>(&words(bytes));
        if frame == frames.len() {
            bits &= !(u32::MAX << rest.len());
        }
        if bits != 0 && found(blocks.len() * BLOCK + frame * FRAME, bits) {
            return;
        }
    }
}

/// Smallest candidate in `from..=to`.
#[target_feature(enable = "avx2")]
pub(super) fn first(test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
    let mut first = None;
    let found = |offset: usize, bits: u32| {
        first = Some(from + offset + bits.trailing_zeros() as usize);
        true
    };
    if test.is_odd() {
        search::<true>(test, data, from, to, found);
    } else {
        search::<false>(test, data, from, to, found);
    }
    first
}

/// Bit `i` of `words`: whether `from + i` is a candidate, up to `to`; the rest is cleared.
#[target_feature(enable = "avx2")]
pub(super) fn bits(test: &CutTest, data: &[u8], from: usize, to: usize, words: &mut [u64; WORDS]) {
    *words = [0; WORDS];
    let last = to.min(from + WORDS * 64 - 1);
    search::<false>(test, data, from, last, |offset, bits| {
        words[offset / 64] |= u64::from(bits) << (offset % 64);
        false
    });
}
