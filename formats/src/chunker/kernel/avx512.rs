//! Kernel for AVX-512 with VBMI (Intel from Ice Lake on, AMD from Zen 4 on): 64 positions a step. Hot path.
//!
//! No rolling: with every table word turned into a common frame, `G(i) = XOR of ror(T[b_j], j mod 32) over j <= i`, a window's
//! hash is a difference, `H(i + 1) = rol(G(i) ^ G(i - 48), i mod 32)`, and 48 positions back is three registers ago. The
//! table lives in 16 registers as four planes of 256 bytes, read with byte permutes.
//!
//! `unsafe` is needed only to load from slices; the caller vouches for the processor (see [`super::Kernel`]).

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::cut_test::CutTest;
use super::super::sizes::WINDOW_LEN;
use super::super::table::TABLE;
use super::WORDS;

/// Bytes in a register, and positions in a step.
const STEP: usize = 64;

/// `PLANES[k][b]` is byte `k` of `TABLE[b]`.
static PLANES: [[u8; 256]; 4] = {
    let mut planes = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let word = TABLE[byte].to_le_bytes();
        let mut plane = 0;
        while plane < 4 {
            planes[plane][byte] = word[plane];
            plane += 1;
        }
        byte += 1;
    }
    planes
};

/// Order of groups of four bytes in which the unpacks of [`Search::words`] put every position in its place.
static GROUP_ORDER: [u32; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];

/// Positions modulo 32: the turn into the common frame.
static TURNS: [u32; 32] = {
    let mut turns = [0; 32];
    let mut at = 0;
    while at < 32 {
        turns[at] = at as u32;
        at += 1;
    }
    turns
};

/// A pass over one slice: the constants, and the last 48 values of `G`.
struct Search {
    planes: [[__m512i; 4]; 4],
    group_order: __m512i,
    turns: [__m512i; 2],
    inverse: __m512i,
    shift: __m512i,
    bias: __m512i,
    /// `inverse - bias`, the one addition where the divisor is odd.
    addend: __m512i,
    limit: __m512i,
    /// `G` of the last three registers.
    last: [__m512i; 3],
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(words: &[u32; 16]) -> __m512i {
    // SAFETY: the array is 64 readable bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(bytes: &[u8; STEP]) -> __m512i {
    // SAFETY: the array is 64 readable bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The bytes of a slice of at most 64, zeros behind them.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_part(bytes: &[u8]) -> __m512i {
    let mut block = [0; STEP];
    block[..bytes.len()].copy_from_slice(bytes);
    load_bytes(&block)
}

impl Search {
    /// Ready for the bytes from `data[from - 1]` on; `48 <= from <= data.len()`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn new(test: &CutTest, data: &[u8], from: usize) -> Self {
        let planes = PLANES.each_ref().map(|plane| {
            let (quarters, _) = plane.as_chunks::<STEP>();
            [
                load_bytes(&quarters[0]),
                load_bytes(&quarters[1]),
                load_bytes(&quarters[2]),
                load_bytes(&quarters[3]),
            ]
        });
        let (turns, _) = TURNS.as_chunks::<16>();
        let mut search = Self {
            planes,
            group_order: load_words(&GROUP_ORDER),
            turns: [load_words(&turns[0]), load_words(&turns[1])],
            inverse: _mm512_set1_epi32(test.inverse as i32),
            shift: _mm512_set1_epi32(test.shift as i32),
            bias: _mm512_set1_epi32(test.bias as i32),
            addend: _mm512_set1_epi32(test.inverse.wrapping_sub(test.bias) as i32),
            limit: _mm512_set1_epi32(test.limit as i32),
            last: [_mm512_setzero_si512(); 3],
        };
        // The 47 bytes before, at the end of a step, so that the next steps are whole words of positions. What stands in
        // front of them is in every later G and so in no difference.
        let mut before = [0; STEP];
        before[STEP - (WINDOW_LEN - 1)..].copy_from_slice(&data[from - WINDOW_LEN..from - 1]);
        search.hashes(load_bytes(&before));
        search
    }

    /// Table words of 64 bytes, in order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn words(&self, bytes: __m512i) -> [__m512i; 4] {
        let bytes = _mm512_permutexvar_epi32(self.group_order, bytes);
        let upper_half = _mm512_movepi8_mask(bytes);
        let [b0, b1, b2, b3] = self.planes.map(|[q0, q1, q2, q3]| {
            let lower = _mm512_permutex2var_epi8(q0, bytes, q1);
            let upper = _mm512_permutex2var_epi8(q2, bytes, q3);
            _mm512_mask_blend_epi8(upper_half, lower, upper)
        });
        let low_01 = _mm512_unpacklo_epi8(b0, b1);
        let high_01 = _mm512_unpackhi_epi8(b0, b1);
        let low_23 = _mm512_unpacklo_epi8(b2, b3);
        let high_23 = _mm512_unpackhi_epi8(b2, b3);
        [
            _mm512_unpacklo_epi16(low_01, low_23),
            _mm512_unpackhi_epi16(low_01, low_23),
            _mm512_unpacklo_epi16(high_01, high_23),
            _mm512_unpackhi_epi16(high_01, high_23),
        ]
    }

    /// Hashes of the windows that end with each of the next 64 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn hashes(&mut self, bytes: __m512i) -> [__m512i; 4] {
        let zero = _mm512_setzero_si512();
        let top_lane = _mm512_set1_epi32(15);
        let [w0, w1, w2, w3] = self.words(bytes);
        let [even, odd] = self.turns;
        let [g0, g1, g2, g3] = [(w0, even), (w1, odd), (w2, even), (w3, odd)].map(|(word, turn)| {
            let x = _mm512_rorv_epi32(word, turn);
            let x = _mm512_xor_si512(x, _mm512_alignr_epi32::<15>(x, zero));
            let x = _mm512_xor_si512(x, _mm512_alignr_epi32::<14>(x, zero));
            let x = _mm512_xor_si512(x, _mm512_alignr_epi32::<12>(x, zero));
            _mm512_xor_si512(x, _mm512_alignr_epi32::<8>(x, zero))
        });
        let [l1, l2, l3] = self.last;
        let g0 = _mm512_xor_si512(g0, _mm512_permutexvar_epi32(top_lane, l3));
        let g1 = _mm512_xor_si512(g1, _mm512_permutexvar_epi32(top_lane, g0));
        let g2 = _mm512_xor_si512(g2, _mm512_permutexvar_epi32(top_lane, g1));
        let g3 = _mm512_xor_si512(g3, _mm512_permutexvar_epi32(top_lane, g2));
        self.last = [g1, g2, g3];
        [
            _mm512_rolv_epi32(_mm512_xor_si512(g0, l1), even),
            _mm512_rolv_epi32(_mm512_xor_si512(g1, l2), odd),
            _mm512_rolv_epi32(_mm512_xor_si512(g2, l3), even),
            _mm512_rolv_epi32(_mm512_xor_si512(g3, g0), odd),
        ]
    }

    /// Bit `i`: whether the window that ends with byte `i` of the next 64 is a candidate.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn hits<const ODD: bool>(&mut self, bytes: __m512i) -> u64 {
        let [v0, v1, v2, v3] = self.hashes(bytes).map(|hash| {
            let product = _mm512_mullo_epi32(hash, self.inverse);
            if ODD {
                _mm512_add_epi32(product, self.addend)
            } else {
                let turned = _mm512_rorv_epi32(_mm512_add_epi32(product, self.inverse), self.shift);
                _mm512_sub_epi32(turned, self.bias)
            }
        });
        let least = _mm512_min_epu32(_mm512_min_epu32(v0, v1), _mm512_min_epu32(v2, v3));
        if _mm512_cmple_epu32_mask(least, self.limit) == 0 {
            return 0;
        }
        let [m0, m1, m2, m3] = [v0, v1, v2, v3].map(|value| u64::from(_mm512_cmple_epu32_mask(value, self.limit)));
        m0 | m1 << 16 | m2 << 32 | m3 << 48
    }
}

/// Smallest candidate in `from..=to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn first(test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
    if test.is_odd() {
        first_with::<true>(test, data, from, to)
    } else {
        first_with::<false>(test, data, from, to)
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn first_with<const ODD: bool>(test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
    let mut search = Search::new(test, data, from);
    let (steps, rest) = data[from - 1..to].as_chunks::<STEP>();
    for (step, bytes) in steps.iter().enumerate() {
        let hits = search.hits::<ODD>(load_bytes(bytes));
        if hits != 0 {
            return Some(from + step * STEP + hits.trailing_zeros() as usize);
        }
    }
    let hits = search.hits::<ODD>(load_part(rest)) & !(u64::MAX << rest.len());
    (hits != 0).then(|| from + steps.len() * STEP + hits.trailing_zeros() as usize)
}

/// Bit `i` of `words`: whether `from + i` is a candidate, up to `to`; the rest is cleared.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn bits(test: &CutTest, data: &[u8], from: usize, to: usize, words: &mut [u64; WORDS]) {
    let mut search = Search::new(test, data, from);
    let last = to.min(from + WORDS * STEP - 1);
    let (steps, rest) = data[from - 1..last].as_chunks::<STEP>();
    *words = [0; WORDS];
    for (bytes, word) in steps.iter().zip(words.iter_mut()) {
        *word = search.hits::<false>(load_bytes(bytes));
    }
    if !rest.is_empty() {
        words[steps.len()] = search.hits::<false>(load_part(rest)) & !(u64::MAX << rest.len());
    }
}
