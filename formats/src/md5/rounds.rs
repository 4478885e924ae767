//! The 64 rounds of MD5 (RFC 1321 section 3.4) on vectors, once for every vector width.
//!
//! A macro and not a generic function, as for SHA-512: the vector operations have to be inlined into a function that has the
//! CPU's feature switched on.

/// Runs the 64 rounds of one block and returns the four working words, not yet added to the state.
///
/// - `$state`: the four state vectors. `$words`: an array of the block's 16 message vectors.
/// - Takes from the caller's scope: `add`, `add_constant`, `rotate::<LEFT, RIGHT>` with `RIGHT = 32 - LEFT`, and the four functions
///   of section 3.4 as `round_f`, `round_g`, `round_h`, `round_i`.
#[rustfmt::skip] // Four rounds a line.
macro_rules! rounds {
    ($state:expr, $words:ident) => {{
        let [mut a, mut b, mut c, mut d] = $state;
        // What does not wait for the round before is added first.
        macro_rules! step {
            ($round:ident $a:ident $b:ident $c:ident $d:ident, $word:expr, $at:expr, $left:literal $right:literal) => {
                let keyed = add($a, add_constant($words[$word], ROUND_CONSTANTS[$at]));
                $a = add($b, rotate::<$left, $right>(add(keyed, $round($b, $c, $d))));
            };
        }
        step!(round_f a b c d, 0, 0, 7 25); step!(round_f d a b c, 1, 1, 12 20); step!(round_f c d a b, 2, 2, 17 15); step!(round_f b c d a, 3, 3, 22 10);
        step!(round_f a b c d, 4, 4, 7 25); step!(round_f d a b c, 5, 5, 12 20); step!(round_f c d a b, 6, 6, 17 15); step!(round_f b c d a, 7, 7, 22 10);
        step!(round_f a b c d, 8, 8, 7 25); step!(round_f d a b c, 9, 9, 12 20); step!(round_f c d a b, 10, 10, 17 15); step!(round_f b c d a, 11, 11, 22 10);
        step!(round_f a b c d, 12, 12, 7 25); step!(round_f d a b c, 13, 13, 12 20); step!(round_f c d a b, 14, 14, 17 15); step!(round_f b c d a, 15, 15, 22 10);
        step!(round_g a b c d, 1, 16, 5 27); step!(round_g d a b c, 6, 17, 9 23); step!(round_g c d a b, 11, 18, 14 18); step!(round_g b c d a, 0, 19, 20 12);
        step!(round_g a b c d, 5, 20, 5 27); step!(round_g d a b c, 10, 21, 9 23); step!(round_g c d a b, 15, 22, 14 18); step!(round_g b c d a, 4, 23, 20 12);
        step!(round_g a b c d, 9, 24, 5 27); step!(round_g d a b c, 14, 25, 9 23); step!(round_g c d a b, 3, 26, 14 18); step!(round_g b c d a, 8, 27, 20 12);
        step!(round_g a b c d, 13, 28, 5 27); step!(round_g d a b c, 2, 29, 9 23); step!(round_g c d a b, 7, 30, 14 18); step!(round_g b c d a, 12, 31, 20 12);
        step!(round_h a b c d, 5, 32, 4 28); step!(round_h d a b c, 8, 33, 11 21); step!(round_h c d a b, 11, 34, 16 16); step!(round_h b c d a, 14, 35, 23 9);
        step!(round_h a b c d, 1, 36, 4 28); step!(round_h d a b c, 4, 37, 11 21); step!(round_h c d a b, 7, 38, 16 16); step!(round_h b c d a, 10, 39, 23 9);
        step!(round_h a b c d, 13, 40, 4 28); step!(round_h d a b c, 0, 41, 11 21); step!(round_h c d a b, 3, 42, 16 16); step!(round_h b c d a, 6, 43, 23 9);
        step!(round_h a b c d, 9, 44, 4 28); step!(round_h d a b c, 12, 45, 11 21); step!(round_h c d a b, 15, 46, 16 16); step!(round_h b c d a, 2, 47, 23 9);
        step!(round_i a b c d, 0, 48, 6 26); step!(round_i d a b c, 7, 49, 10 22); step!(round_i c d a b, 14, 50, 15 17); step!(round_i b c d a, 5, 51, 21 11);
        step!(round_i a b c d, 12, 52, 6 26); step!(round_i d a b c, 3, 53, 10 22); step!(round_i c d a b, 10, 54, 15 17); step!(round_i b c d a, 1, 55, 21 11);
        step!(round_i a b c d, 8, 56, 6 26); step!(round_i d a b c, 15, 57, 10 22); step!(round_i c d a b, 6, 58, 15 17); step!(round_i b c d a, 13, 59, 21 11);
        step!(round_i a b c d, 4, 60, 6 26); step!(round_i d a b c, 11, 61, 10 22); step!(round_i c d a b, 2, 62, 15 17); step!(round_i b c d a, 9, 63, 21 11);
        [a, b, c, d]
    }};
}

pub(super) use rounds;
