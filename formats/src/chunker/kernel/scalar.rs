//! Portable kernel: the rolling hash in steps of four bytes, so that the chain from one hash to the next is two operations
//! (rotate, xor) per four bytes instead of per byte. Hot path.

use super::super::cut_test::CutTest;
use super::super::sizes::WINDOW_LEN;
use super::super::table::{TABLE, TABLE_LEAVING};
use super::{WORDS, hash};

/// Smallest candidate in `from..=to`.
pub(super) fn first(test: &CutTest, data: &[u8], from: usize, to: usize) -> Option<usize> {
    if test.is_odd() {
        first_with(data, from, to, |hash| test.hits_odd(hash))
    } else {
        first_with(data, from, to, |hash| test.hits(hash))
    }
}

/// What one slide adds to the rotated hash.
#[inline(always)]
fn slide(leaving: u8, entering: u8) -> u32 {
    TABLE_LEAVING[usize::from(leaving)] ^ TABLE[usize::from(entering)]
}

#[inline(always)]
fn first_with(data: &[u8], from: usize, to: usize, hits: impl Fn(u32) -> bool) -> Option<usize> {
    let mut h = hash(&data[from - WINDOW_LEN..from]);
    if hits(h) {
        return Some(from);
    }
    let (leaving, leaving_rest) = data[from - WINDOW_LEN..to - WINDOW_LEN].as_chunks::<4>();
    let (entering, entering_rest) = data[from..to].as_chunks::<4>();
    for (step, (out, into)) in leaving.iter().zip(entering).enumerate() {
        let one = slide(out[0], into[0]);
        let two = one.rotate_left(1) ^ slide(out[1], into[1]);
        let three = two.rotate_left(1) ^ slide(out[2], into[2]);
        let four = three.rotate_left(1) ^ slide(out[3], into[3]);
        let hashes = [
            h.rotate_left(1) ^ one,
            h.rotate_left(2) ^ two,
            h.rotate_left(3) ^ three,
            h.rotate_left(4) ^ four,
        ];
        h = hashes[3];
        let found = hashes.map(&hits);
        if found[0] | found[1] | found[2] | found[3] {
            let earliest = found.iter().position(|&hit| hit).unwrap_or(0);
            return Some(from + 4 * step + 1 + earliest);
        }
    }
    let rest = to - leaving_rest.len();
    for (step, (&out, &into)) in leaving_rest.iter().zip(entering_rest).enumerate() {
        h = h.rotate_left(1) ^ slide(out, into);
        if hits(h) {
            return Some(rest + step + 1);
        }
    }
    None
}

/// Bit `i` of `words`: whether `from + i` is a candidate, up to `to`; the rest is cleared.
pub(super) fn bits(test: &CutTest, data: &[u8], from: usize, to: usize, words: &mut [u64; WORDS]) {
    *words = [0; WORDS];
    let mut h = hash(&data[from - WINDOW_LEN..from]);
    words[0] = u64::from(test.hits(h));
    let last = to.min(from + WORDS * 64 - 1);
    let slides = data[from - WINDOW_LEN..].iter().zip(&data[from..last]);
    for (step, (&out, &into)) in slides.enumerate() {
        h = h.rotate_left(1) ^ slide(out, into);
        words[(step + 1) / 64] |= u64::from(test.hits(h)) << ((step + 1) % 64);
    }
}
