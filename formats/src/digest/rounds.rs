//! The 80 rounds of SHA-512 (FIPS 180-4 section 6.4.2) on vectors, once for every vector width.
//!
//! A macro and not a generic function: the vector operations must be inlined into a function that has the CPU's feature
//! switched on, which trait methods cannot ask for.

/// Runs the 80 rounds of one block and returns the eight working words, not yet added to the state.
///
/// - `$state`: the eight state vectors. `$schedule`: a `mut` array of the block's 16 message vectors, used up.
/// - Takes from the caller's scope: `add`, `add_constant` (a vector plus a round constant in every lane), `choose`,
///   `majority`, and the four functions of section 4.1.3 as `sum0`, `sum1`, `sigma0`, `sigma1`.
#[rustfmt::skip] // One line a round; and rustfmt indents nested macros further on every run.
macro_rules! rounds {
    ($state:expr, $schedule:ident) => {{
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = $state;
        // The roles of the words move round by round; eight rounds bring them back, and no register is copied.
        macro_rules! round {
            ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $i:expr, $at:expr) => {
                let keyed = add_constant($schedule[$i], &ROUND_CONSTANTS[$at + $i]);
                let sum = add(add($h, keyed), add(choose($e, $f, $g), sum1($e)));
                $d = add($d, sum);
                $h = add(sum, add(sum0($a), majority($a, $b, $c)));
            };
        }
        // The message word 16 rounds ahead, made as soon as its place is free, so that it is never waited for.
        macro_rules! extend {
            ($i:expr) => {
                $schedule[$i] = add(
                    add($schedule[$i], sigma0($schedule[($i + 1) % 16])),
                    add($schedule[($i + 9) % 16], sigma1($schedule[($i + 14) % 16])),
                );
            };
        }
        macro_rules! sixteen {
            ($at:expr, $then:ident) => {
                round!(a b c d e f g h, 0, $at); $then!(0);
                round!(h a b c d e f g, 1, $at); $then!(1);
                round!(g h a b c d e f, 2, $at); $then!(2);
                round!(f g h a b c d e, 3, $at); $then!(3);
                round!(e f g h a b c d, 4, $at); $then!(4);
                round!(d e f g h a b c, 5, $at); $then!(5);
                round!(c d e f g h a b, 6, $at); $then!(6);
                round!(b c d e f g h a, 7, $at); $then!(7);
                round!(a b c d e f g h, 8, $at); $then!(8);
                round!(h a b c d e f g, 9, $at); $then!(9);
                round!(g h a b c d e f, 10, $at); $then!(10);
                round!(f g h a b c d e, 11, $at); $then!(11);
                round!(e f g h a b c d, 12, $at); $then!(12);
                round!(d e f g h a b c, 13, $at); $then!(13);
                round!(c d e f g h a b, 14, $at); $then!(14);
                round!(b c d e f g h a, 15, $at); $then!(15);
            };
        }
        macro_rules! nothing {
            ($i:expr) => {};
        }
        for at in [0, 16, 32, 48] {
            sixteen!(at, extend);
        }
        sixteen!(64, nothing);
        [a, b, c, d, e, f, g, h]
    }};
}

pub(super) use rounds;
