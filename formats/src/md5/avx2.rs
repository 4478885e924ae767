//! MD5 on 8 messages at once, one in each 32-bit lane of a 256-bit vector (AVX2).
// Index loops walk several arrays at once.
#![allow(unsafe_code, clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::lanes::{Block, Kernel, ROUND_CONSTANTS, State};
use super::rounds::rounds;

/// Proof that this CPU has AVX2.
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Kernel<8> for Avx2 {
    const WORTHWHILE: usize = 2;

    fn compress(&self, state: &mut State<8>, data: [&[Block]; 8]) {
        // SAFETY: `self` exists, so `detect` saw AVX2.
        unsafe { compress(state, data) }
    }
}

// Plain loops and not `map` or `from_fn`: those are compiled without the feature, and a vector would pass through memory.
#[target_feature(enable = "avx2")]
fn compress(state: &mut State<8>, data: [&[Block]; 8]) {
    let mut sums = [_mm256_setzero_si256(); 4];
    for i in 0..4 {
        sums[i] = load(&state.0[i]);
    }
    for at in 0..data[0].len() {
        let mut words = [_mm256_setzero_si256(); 16];
        for half in 0..2 {
            let mut rows = [_mm256_setzero_si256(); 8];
            for lane in 0..8 {
                rows[lane] = load_message(&data[lane][at].as_chunks::<32>().0[half]);
            }
            let columns = transpose(rows);
            for i in 0..8 {
                words[half * 8 + i] = columns[i];
            }
        }
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
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    // Words of two neighbouring lanes, then pairs of those, then the 128-bit halves.
    let (p0, p1) = (_mm256_unpacklo_epi32(r0, r1), _mm256_unpackhi_epi32(r0, r1));
    let (p2, p3) = (_mm256_unpacklo_epi32(r2, r3), _mm256_unpackhi_epi32(r2, r3));
    let (p4, p5) = (_mm256_unpacklo_epi32(r4, r5), _mm256_unpackhi_epi32(r4, r5));
    let (p6, p7) = (_mm256_unpacklo_epi32(r6, r7), _mm256_unpackhi_epi32(r6, r7));
    let (q0, q1) = (_mm256_unpacklo_epi64(p0, p2), _mm256_unpackhi_epi64(p0, p2));
    let (q2, q3) = (_mm256_unpacklo_epi64(p1, p3), _mm256_unpackhi_epi64(p1, p3));
    let (q4, q5) = (_mm256_unpacklo_epi64(p4, p6), _mm256_unpackhi_epi64(p4, p6));
    let (q6, q7) = (_mm256_unpacklo_epi64(p5, p7), _mm256_unpackhi_epi64(p5, p7));
    [
        _mm256_permute2x128_si256::<0x20>(q0, q4),
        _mm256_permute2x128_si256::<0x20>(q1, q5),
        _mm256_permute2x128_si256::<0x20>(q2, q6),
        _mm256_permute2x128_si256::<0x20>(q3, q7),
        _mm256_permute2x128_si256::<0x31>(q0, q4),
        _mm256_permute2x128_si256::<0x31>(q1, q5),
        _mm256_permute2x128_si256::<0x31>(q2, q6),
        _mm256_permute2x128_si256::<0x31>(q3, q7),
    ]
}

/// Eight message words as numbers: they are stored little-endian, as this CPU reads them.
#[inline]
#[target_feature(enable = "avx2")]
fn load_message(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[u32; 8]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(words: &mut [u32; 8], vector: __m256i) {
    // SAFETY: 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(x: __m256i, y: __m256i) -> __m256i {
    _mm256_add_epi32(x, y)
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_constant(x: __m256i, constant: u32) -> __m256i {
    _mm256_add_epi32(x, _mm256_set1_epi32(constant as i32))
}

/// A rotation by `LEFT` whose other shift is `RIGHT = 32 - LEFT` (const arithmetic on parameters is not stable).
#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m256i) -> __m256i {
    const { assert!(LEFT + RIGHT == 32) };
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x), _mm256_srli_epi32::<RIGHT>(x))
}

/// `y` where `x`, else `z`.
#[inline]
#[target_feature(enable = "avx2")]
fn round_f(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_and_si256(_mm256_xor_si256(y, z), x), z)
}

/// `x` where `z`, else `y`. The halves share no bit: only the first waits for `x`, which is the newest word.
#[inline]
#[target_feature(enable = "avx2")]
fn round_g(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_and_si256(x, z), _mm256_andnot_si256(z, y))
}

#[inline]
#[target_feature(enable = "avx2")]
fn round_h(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_xor_si256(x, _mm256_xor_si256(y, z))
}

#[inline]
#[target_feature(enable = "avx2")]
fn round_i(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    let not_z = _mm256_xor_si256(z, _mm256_set1_epi32(-1));
    _mm256_xor_si256(y, _mm256_or_si256(x, not_z))
}
