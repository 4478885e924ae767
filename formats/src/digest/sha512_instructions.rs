//! SHA-512 on the SHA512 instructions of Intel's Arrow Lake, Lunar Lake and later, two messages interleaved.
//!
//! `vsha512rnds2` does two rounds of one message, but a message's next two need its result: a second message fills the wait.
//! No machine of ours has them yet. So the rounds are written over three operations, and the tests run them over a model of
//! the instructions taken from Intel's manual (order of words and rounds is proved, the silicon is not), and over the
//! instructions themselves where the CPU has them.
// Index loops walk several arrays at once.
#![allow(unsafe_code, clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::lanes::{Block, Kernel, ROUND_CONSTANTS, State};

/// Proof that this CPU has the SHA512 instructions, with the AVX2 that moves words between them.
pub(super) struct Sha512Instructions(());

impl Sha512Instructions {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("sha512") && is_x86_feature_detected!("avx2")).then_some(Self(()))
    }
}

impl Kernel<2> for Sha512Instructions {
    const WORTHWHILE: usize = 1;

    fn compress(&self, state: &mut State<2>, data: [&[Block]; 2]) {
        // SAFETY: `self` exists, so `detect` saw both features.
        unsafe { silicon::compress(state, data) }
    }
}

/// Writes `compress` over the operations `rounds2`, `schedule1` and `schedule2` of the scope, with `$features` switched on.
macro_rules! compress {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn compress(state: &mut State<2>, data: [&[Block]; 2]) {
            // The instructions want the state as (a, b, e, f) and (c, d, g, h), highest word first.
            let zero = _mm256_setzero_si256();
            let (mut abef, mut cdgh) = ([zero; 2], [zero; 2]);
            for lane in 0..2 {
                let word = |i: usize| state.0[i][lane] as i64;
                abef[lane] = _mm256_set_epi64x(word(0), word(1), word(4), word(5));
                cdgh[lane] = _mm256_set_epi64x(word(2), word(3), word(6), word(7));
            }
            for at in 0..data[0].len() {
                let (abef_before, cdgh_before) = (abef, cdgh);
                let mut schedule = [[zero; 4]; 2];
                for lane in 0..2 {
                    for quarter in 0..4 {
                        schedule[lane][quarter] = load_message(&data[lane][at].as_chunks::<32>().0[quarter]);
                    }
                }
                // Four rounds at a time; each of the first 16 fours also makes the words of the four 16 rounds on.
                for four in 0..20 {
                    let constants = load_constants(&ROUND_CONSTANTS.as_chunks::<4>().0[four]);
                    for lane in 0..2 {
                        let w = &mut schedule[lane];
                        let keyed = _mm256_add_epi64(w[four % 4], constants);
                        // Each call also renames (a, b, e, f) of before to (c, d, g, h), so the two swap places.
                        cdgh[lane] = rounds2(cdgh[lane], abef[lane], _mm256_castsi256_si128(keyed));
                        abef[lane] = rounds2(abef[lane], cdgh[lane], _mm256_extracti128_si256::<1>(keyed));
                        if four < 16 {
                            let [w0, w4, w8, w12] = [0, 1, 2, 3].map(|i| w[(four + i) % 4]);
                            // Words 9 to 12 of the 16: the upper three of words 8 to 11 and the lowest of the next.
                            let w9 = _mm256_permute4x64_epi64::<0x39>(_mm256_blend_epi32::<0x03>(w8, w12));
                            let partial = schedule1(w0, _mm256_castsi256_si128(w4));
                            w[four % 4] = schedule2(_mm256_add_epi64(partial, w9), w12);
                        }
                    }
                }
                for lane in 0..2 {
                    abef[lane] = _mm256_add_epi64(abef[lane], abef_before[lane]);
                    cdgh[lane] = _mm256_add_epi64(cdgh[lane], cdgh_before[lane]);
                }
            }
            for lane in 0..2 {
                let ([f, e, b, a], [h, g, d, c]) = (words(abef[lane]), words(cdgh[lane]));
                for (word, value) in [a, b, c, d, e, f, g, h].into_iter().enumerate() {
                    state.0[word][lane] = value;
                }
            }
        }
    };
}

/// The instructions themselves.
mod silicon {
    use super::*;

    compress!("avx2,sha512");

    #[inline]
    #[target_feature(enable = "avx2,sha512")]
    fn rounds2(cdgh: __m256i, abef: __m256i, keyed: __m128i) -> __m256i {
        _mm256_sha512rnds2_epi64(cdgh, abef, keyed)
    }

    #[inline]
    #[target_feature(enable = "avx2,sha512")]
    fn schedule1(w0: __m256i, w4: __m128i) -> __m256i {
        _mm256_sha512msg1_epi64(w0, w4)
    }

    #[inline]
    #[target_feature(enable = "avx2,sha512")]
    fn schedule2(partial: __m256i, w12: __m256i) -> __m256i {
        _mm256_sha512msg2_epi64(partial, w12)
    }
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
fn load_constants(constants: &[u64; 4]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(constants.as_ptr().cast()) }
}

/// The words of a vector, lowest first.
#[inline]
#[target_feature(enable = "avx2")]
fn words(vector: __m256i) -> [u64; 4] {
    let mut words = [0; 4];
    // SAFETY: 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
    words
}

/// The three instructions in plain arithmetic, word for word as the operation sections of Intel's manual define them
/// (Intel SDM volume 2: VSHA512RNDS2, VSHA512MSG1, VSHA512MSG2).
#[cfg(test)]
pub(super) mod model {
    use super::*;

    /// Proof that this CPU has the AVX2 around the modelled instructions.
    pub(in super::super) struct Model(());

    impl Model {
        pub(in super::super) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Self(()))
        }
    }

    impl Kernel<2> for Model {
        const WORTHWHILE: usize = 1;

        fn compress(&self, state: &mut State<2>, data: [&[Block]; 2]) {
            // SAFETY: `self` exists, so `detect` saw AVX2.
            unsafe { compress(state, data) }
        }
    }

    compress!("avx2");

    #[target_feature(enable = "avx2")]
    fn rounds2(cdgh: __m256i, abef: __m256i, keyed: __m128i) -> __m256i {
        let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut b, mut a]) = (words(cdgh), words(abef));
        for wk in [_mm_extract_epi64::<0>(keyed), _mm_extract_epi64::<1>(keyed)] {
            let sum1 = e.rotate_right(14) ^ e.rotate_right(18) ^ e.rotate_right(41);
            let sum0 = a.rotate_right(28) ^ a.rotate_right(34) ^ a.rotate_right(39);
            let t = ((e & f) ^ (!e & g))
                .wrapping_add(sum1)
                .wrapping_add(wk as u64)
                .wrapping_add(h);
            let t_and_more = t.wrapping_add((a & b) ^ (a & c) ^ (b & c)).wrapping_add(sum0);
            (a, b, c, d, e, f, g, h) = (t_and_more, a, b, c, t.wrapping_add(d), e, f, g);
        }
        vector([f, e, b, a])
    }

    #[target_feature(enable = "avx2")]
    fn schedule1(w0: __m256i, w4: __m128i) -> __m256i {
        let sigma0 = |w: u64| w.rotate_right(1) ^ w.rotate_right(8) ^ (w >> 7);
        let [a, b, c, d] = words(w0);
        let e = _mm_extract_epi64::<0>(w4) as u64;
        vector([(a, b), (b, c), (c, d), (d, e)].map(|(w, next)| w.wrapping_add(sigma0(next))))
    }

    #[target_feature(enable = "avx2")]
    fn schedule2(partial: __m256i, w12: __m256i) -> __m256i {
        let sigma1 = |w: u64| w.rotate_right(19) ^ w.rotate_right(61) ^ (w >> 6);
        let ([a, b, c, d], [_, _, w14, w15]) = (words(partial), words(w12));
        let (w16, w17) = (a.wrapping_add(sigma1(w14)), b.wrapping_add(sigma1(w15)));
        vector([w16, w17, c.wrapping_add(sigma1(w16)), d.wrapping_add(sigma1(w17))])
    }

    #[target_feature(enable = "avx2")]
    fn vector(words: [u64; 4]) -> __m256i {
        let [a, b, c, d] = words.map(|word| word as i64);
        _mm256_set_epi64x(d, c, b, a)
    }
}
