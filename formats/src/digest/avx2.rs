//! SHA-512 on 4 messages at once, one in each 64-bit lane of a 256-bit vector (AVX2).
//!
//! A rotation is two shifts whose results share no bit, so they join the same exclusive or as the rest of their function:
//! about 51 operations a round. The message schedule does not fit the 16 registers beside the state and lies on the stack.
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

impl Kernel<4> for Avx2 {
    const WORTHWHILE: usize = 3;

    fn compress(&self, state: &mut State<4>, data: [&[Block]; 4]) {
        // SAFETY: `self` exists, so `detect` saw AVX2.
        unsafe { compress(state, data) }
    }
}

// Plain loops and not `map` or `from_fn`: those are compiled without the feature, and a vector would pass through memory.
#[target_feature(enable = "avx2")]
fn compress(state: &mut State<4>, data: [&[Block]; 4]) {
    let mut words = [_mm256_setzero_si256(); 8];
    for i in 0..8 {
        words[i] = load(&state.0[i]);
    }
    for at in 0..data[0].len() {
        let mut schedule = [_mm256_setzero_si256(); 16];
        for quarter in 0..4 {
            let mut rows = [_mm256_setzero_si256(); 4];
            for lane in 0..4 {
                rows[lane] = load_message(&data[lane][at].as_chunks::<32>().0[quarter]);
            }
            let columns = transpose(rows);
            for i in 0..4 {
                schedule[quarter * 4 + i] = columns[i];
            }
        }
        let worked = rounds!(words, schedule);
        for i in 0..8 {
            words[i] = add(words[i], worked[i]);
        }
    }
    for i in 0..8 {
        store(&mut state.0[i], words[i]);
    }
}

/// Rows to columns: `rows[lane][word]` becomes `columns[word][lane]`.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 4]) -> [__m256i; 4] {
    let [r0, r1, r2, r3] = rows;
    // Even and odd words of two neighbouring lanes, then the 128-bit halves of both pairs.
    let (p0, p1) = (_mm256_unpacklo_epi64(r0, r1), _mm256_unpackhi_epi64(r0, r1));
    let (p2, p3) = (_mm256_unpacklo_epi64(r2, r3), _mm256_unpackhi_epi64(r2, r3));
    [
        _mm256_permute2x128_si256::<0x20>(p0, p2),
        _mm256_permute2x128_si256::<0x20>(p1, p3),
        _mm256_permute2x128_si256::<0x31>(p0, p2),
        _mm256_permute2x128_si256::<0x31>(p1, p3),
    ]
}

/// Four message words as numbers: they are stored big-endian.
#[inline]
#[target_feature(enable = "avx2")]
fn load_message(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    let words = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    let reverse = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x08090a0b0c0d0e0f, 0x0001020304050607));
    _mm256_shuffle_epi8(words, reverse)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[u64; 4]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(words: &mut [u64; 4], vector: __m256i) {
    // SAFETY: 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(x: __m256i, y: __m256i) -> __m256i {
    _mm256_add_epi64(x, y)
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_constant(x: __m256i, constant: &u64) -> __m256i {
    _mm256_add_epi64(x, _mm256_set1_epi64x(*constant as i64))
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor(x: __m256i, y: __m256i) -> __m256i {
    _mm256_xor_si256(x, y)
}

/// A rotation by `RIGHT` whose other shift is `LEFT = 64 - RIGHT` (const arithmetic on parameters is not stable).
#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const RIGHT: i32, const LEFT: i32>(x: __m256i) -> __m256i {
    const { assert!(RIGHT + LEFT == 64) };
    xor(_mm256_srli_epi64::<RIGHT>(x), _mm256_slli_epi64::<LEFT>(x))
}

#[inline]
#[target_feature(enable = "avx2")]
fn choose(e: __m256i, f: __m256i, g: __m256i) -> __m256i {
    xor(_mm256_and_si256(xor(f, g), e), g)
}

/// The compiler shares `b ^ c` with the round before, where it was `a ^ b`.
#[inline]
#[target_feature(enable = "avx2")]
fn majority(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    xor(_mm256_and_si256(xor(a, b), xor(b, c)), b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum0(a: __m256i) -> __m256i {
    xor(rotate::<28, 36>(a), xor(rotate::<34, 30>(a), rotate::<39, 25>(a)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum1(e: __m256i) -> __m256i {
    xor(rotate::<14, 50>(e), xor(rotate::<18, 46>(e), rotate::<41, 23>(e)))
}

/// Rotation by whole bytes is one shuffle.
#[inline]
#[target_feature(enable = "avx2")]
fn sigma0(w: __m256i) -> __m256i {
    let by_a_byte = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x080f0e0d0c0b0a09, 0x0007060504030201));
    xor(
        rotate::<1, 63>(w),
        xor(_mm256_shuffle_epi8(w, by_a_byte), _mm256_srli_epi64::<7>(w)),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn sigma1(w: __m256i) -> __m256i {
    xor(rotate::<19, 45>(w), xor(rotate::<61, 3>(w), _mm256_srli_epi64::<6>(w)))
}
