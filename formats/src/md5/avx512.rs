//! MD5 on 16 messages at once, one in each 32-bit lane of a 512-bit vector (AVX-512 F).
//!
//! Rotation and any function of three words are one instruction each: 5 operations a round, and all is in the 32 registers.
// Index loops walk several arrays at once.
#![allow(unsafe_code, clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::lanes::{Block, Kernel, ROUND_CONSTANTS, State};
use super::rounds::rounds;

/// Proof that this CPU has AVX-512 F.
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

impl Kernel<16> for Avx512 {
    const WORTHWHILE: usize = 2;

    fn compress(&self, state: &mut State<16>, data: [&[Block]; 16]) {
        // SAFETY: `self` exists, so `detect` saw AVX-512 F.
        unsafe { compress(state, data) }
    }
}

// Plain loops and not `map` or `from_fn`: those are compiled without the feature, and a vector would pass through memory.
#[target_feature(enable = "avx512f")]
fn compress(state: &mut State<16>, data: [&[Block]; 16]) {
    let mut sums = [_mm512_setzero_si512(); 4];
    for i in 0..4 {
        sums[i] = load(&state.0[i]);
    }
    for at in 0..data[0].len() {
        let mut rows = [_mm512_setzero_si512(); 16];
        for lane in 0..16 {
            rows[lane] = load_message(&data[lane][at]);
        }
        let words = transpose(rows);
        let worked = rounds!(sums, words);
        for i in 0..4 {
            sums[i] = add(sums[i], worked[i]);
        }
    }
    for i in 0..4 {
        store(&mut state.0[i], sums[i]);
    }
}

/// Rows to columns: `rows[lane][word]` becomes `columns[word][lane]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Within four neighbouring lanes: words of two, then pairs of those. `quads[4 * l + w]` has in its 128-bit quarter `q` word
    // `4 * q + w` of lanes `4 * l ..`.
    let mut quads = [_mm512_setzero_si512(); 16];
    for four in 0..4 {
        let [r0, r1, r2, r3] = [
            rows[four * 4],
            rows[four * 4 + 1],
            rows[four * 4 + 2],
            rows[four * 4 + 3],
        ];
        let (p0, p1) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (p2, p3) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        quads[four * 4] = _mm512_unpacklo_epi64(p0, p2);
        quads[four * 4 + 1] = _mm512_unpackhi_epi64(p0, p2);
        quads[four * 4 + 2] = _mm512_unpacklo_epi64(p1, p3);
        quads[four * 4 + 3] = _mm512_unpackhi_epi64(p1, p3);
    }
    // Then quarters of four vectors: 0x88 takes the even ones of two, 0xdd the odd ones.
    let mut columns = [_mm512_setzero_si512(); 16];
    for word in 0..4 {
        let [q0, q1, q2, q3] = [quads[word], quads[4 + word], quads[8 + word], quads[12 + word]];
        let (even01, odd01) = (
            _mm512_shuffle_i32x4::<0x88>(q0, q1),
            _mm512_shuffle_i32x4::<0xdd>(q0, q1),
        );
        let (even23, odd23) = (
            _mm512_shuffle_i32x4::<0x88>(q2, q3),
            _mm512_shuffle_i32x4::<0xdd>(q2, q3),
        );
        columns[word] = _mm512_shuffle_i32x4::<0x88>(even01, even23);
        columns[4 + word] = _mm512_shuffle_i32x4::<0x88>(odd01, odd23);
        columns[8 + word] = _mm512_shuffle_i32x4::<0xdd>(even01, even23);
        columns[12 + word] = _mm512_shuffle_i32x4::<0xdd>(odd01, odd23);
    }
    columns
}

/// Sixteen message words as numbers: they are stored little-endian, as this CPU reads them.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_message(bytes: &Block) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u32; 16]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut [u32; 16], vector: __m512i) {
    // SAFETY: 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    _mm512_add_epi32(x, y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_constant(x: __m512i, constant: u32) -> __m512i {
    _mm512_add_epi32(x, _mm512_set1_epi32(constant as i32))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m512i) -> __m512i {
    const { assert!(LEFT + RIGHT == 32) };
    _mm512_rol_epi32::<LEFT>(x)
}

/// `y` where `x`, else `z`: the truth table of `vpternlogd`, as the next three.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_f(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(x, y, z)
}

/// `x` where `z`, else `y`.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_g(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xe4>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn round_h(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(x, y, z)
}

/// `y ^ (x | !z)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_i(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x39>(x, y, z)
}
