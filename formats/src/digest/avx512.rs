//! SHA-512 on 8 messages at once, one in each 64-bit lane of a 512-bit vector (AVX-512 F and BW).
//!
//! Rotation (`vprorq`) and any function of three words (`vpternlogq`) are one instruction each: 28 operations a round
//! with its share of the message schedule, and state and schedule stay in the 32 registers.
// Index loops walk several arrays at once.
#![allow(unsafe_code, clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::lanes::{Block, Kernel, ROUND_CONSTANTS, State};
use super::rounds::rounds;

/// Proof that this CPU has AVX-512 F and BW.
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")).then_some(Self(()))
    }
}

impl Kernel<8> for Avx512 {
    const WORTHWHILE: usize = 2;

    fn compress(&self, state: &mut State<8>, data: [&[Block]; 8]) {
        // SAFETY: `self` exists, so `detect` saw both features.
        unsafe { compress(state, data) }
    }
}

// Plain loops and not `map` or `from_fn`: those are compiled without the features, and a vector would pass through memory.
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut State<8>, data: [&[Block]; 8]) {
    let mut words = [_mm512_setzero_si512(); 8];
    for i in 0..8 {
        words[i] = load(&state.0[i]);
    }
    for at in 0..data[0].len() {
        let mut schedule = [_mm512_setzero_si512(); 16];
        for half in 0..2 {
            let mut rows = [_mm512_setzero_si512(); 8];
            for lane in 0..8 {
                rows[lane] = load_message(&data[lane][at].as_chunks::<64>().0[half]);
            }
            let columns = transpose(rows);
            for i in 0..8 {
                schedule[half * 8 + i] = columns[i];
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
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    // Even and odd words of two neighbouring lanes.
    let (p0, p1) = (_mm512_unpacklo_epi64(r0, r1), _mm512_unpackhi_epi64(r0, r1));
    let (p2, p3) = (_mm512_unpacklo_epi64(r2, r3), _mm512_unpackhi_epi64(r2, r3));
    let (p4, p5) = (_mm512_unpacklo_epi64(r4, r5), _mm512_unpackhi_epi64(r4, r5));
    let (p6, p7) = (_mm512_unpacklo_epi64(r6, r7), _mm512_unpackhi_epi64(r6, r7));
    // 128-bit quarters: 0x88 takes the even ones of both, 0xdd the odd ones.
    let (q0, q1) = (
        _mm512_shuffle_i64x2::<0x88>(p0, p2),
        _mm512_shuffle_i64x2::<0xdd>(p0, p2),
    );
    let (q2, q3) = (
        _mm512_shuffle_i64x2::<0x88>(p1, p3),
        _mm512_shuffle_i64x2::<0xdd>(p1, p3),
    );
    let (q4, q5) = (
        _mm512_shuffle_i64x2::<0x88>(p4, p6),
        _mm512_shuffle_i64x2::<0xdd>(p4, p6),
    );
    let (q6, q7) = (
        _mm512_shuffle_i64x2::<0x88>(p5, p7),
        _mm512_shuffle_i64x2::<0xdd>(p5, p7),
    );
    [
        _mm512_shuffle_i64x2::<0x88>(q0, q4),
        _mm512_shuffle_i64x2::<0x88>(q2, q6),
        _mm512_shuffle_i64x2::<0x88>(q1, q5),
        _mm512_shuffle_i64x2::<0x88>(q3, q7),
        _mm512_shuffle_i64x2::<0xdd>(q0, q4),
        _mm512_shuffle_i64x2::<0xdd>(q2, q6),
        _mm512_shuffle_i64x2::<0xdd>(q1, q5),
        _mm512_shuffle_i64x2::<0xdd>(q3, q7),
    ]
}

/// Eight message words as numbers: they are stored big-endian.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_message(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    let words = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    let reverse = _mm512_broadcast_i32x4(_mm_set_epi64x(0x08090a0b0c0d0e0f, 0x0001020304050607));
    _mm512_shuffle_epi8(words, reverse)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u64; 8]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut [u64; 8], vector: __m512i) {
    // SAFETY: 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    _mm512_add_epi64(x, y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_constant(x: __m512i, constant: &u64) -> __m512i {
    _mm512_add_epi64(x, _mm512_set1_epi64(*constant as i64))
}

/// `x ^ y ^ z`: the truth table of `vpternlogq`, as the next two.
#[inline]
#[target_feature(enable = "avx512f")]
fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn choose(e: __m512i, f: __m512i, g: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xca>(e, f, g)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xe8>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sum0(a: __m512i) -> __m512i {
    xor(
        _mm512_ror_epi64::<28>(a),
        _mm512_ror_epi64::<34>(a),
        _mm512_ror_epi64::<39>(a),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sum1(e: __m512i) -> __m512i {
    xor(
        _mm512_ror_epi64::<14>(e),
        _mm512_ror_epi64::<18>(e),
        _mm512_ror_epi64::<41>(e),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sigma0(w: __m512i) -> __m512i {
    xor(
        _mm512_ror_epi64::<1>(w),
        _mm512_ror_epi64::<8>(w),
        _mm512_srli_epi64::<7>(w),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sigma1(w: __m512i) -> __m512i {
    xor(
        _mm512_ror_epi64::<19>(w),
        _mm512_ror_epi64::<61>(w),
        _mm512_srli_epi64::<6>(w),
    )
}
