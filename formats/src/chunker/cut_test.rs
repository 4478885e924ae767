//! The cut test `hash mod d == d - 1` without a division. Hot path.
//!
//! With `d = odd * 2^k`, `hash + 1` is a multiple of `d` exactly when `(hash + 1) * odd^-1` (modulo 2^32), rotated right by
//! `k`, is at most `(2^32 - 1) / d`. The one exception is `hash = 2^32 - 1`, where `hash + 1` wraps to zero, a multiple of
//! everything, while only a power of two divides 2^32; `bias` moves zero out of the range for all other divisors.

/// The test for one divisor, ready to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutTest {
    /// Inverse of the divisor's odd part, modulo 2^32.
    pub(super) inverse: u32,
    /// How often two divides the divisor.
    pub(super) shift: u32,
    /// 0 for powers of two, else 1.
    pub(super) bias: u32,
    /// `(2^32 - 1) / d - bias`.
    pub(super) limit: u32,
}

impl CutTest {
    /// - `divisor`: 0 gives a test that never hits.
    pub(super) fn new(divisor: u32) -> Self {
        if divisor == 0 {
            return Self {
                inverse: 0,
                shift: 0,
                bias: 1,
                limit: 0,
            };
        }
        let shift = divisor.trailing_zeros();
        let odd = divisor >> shift;
        // Newton's iteration: odd is its own inverse modulo 8, and each step doubles the number of right bits.
        let mut inverse = odd;
        for _ in 0..4 {
            inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        let bias = u32::from(!divisor.is_power_of_two());
        Self {
            inverse,
            shift,
            bias,
            limit: u32::MAX / divisor - bias,
        }
    }

    /// Whether the divisor is odd (or there is none): then the rotation can be left out, see [`CutTest::hits_odd`].
    pub(super) fn is_odd(&self) -> bool {
        self.shift == 0
    }

    /// The test, for every divisor.
    #[inline(always)]
    pub(super) fn hits(&self, hash: u32) -> bool {
        let product = hash.wrapping_add(1).wrapping_mul(self.inverse);
        product.rotate_right(self.shift).wrapping_sub(self.bias) <= self.limit
    }

    /// The test where [`CutTest::is_odd`] holds: two operations fewer, as both additions are one constant.
    #[inline(always)]
    pub(super) fn hits_odd(&self, hash: u32) -> bool {
        hash.wrapping_mul(self.inverse)
            .wrapping_add(self.inverse.wrapping_sub(self.bias))
            <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_remainder() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut divisors = vec![
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            48,
            768,
            3075,
            3943,
            4096,
            12318,
            24680,
            49535,
            673_487,
            886_711,
            2_030_716,
            65535,
            65536,
            65537,
            1 << 27,
            (1 << 27) - 1,
            1 << 31,
            (1 << 31) - 1,
            (1 << 31) + 1,
            u32::MAX - 1,
            u32::MAX,
        ];
        divisors.extend(
            (0..200)
                .map(|_| random.u32(1..) >> random.u32(0..31))
                .filter(|&d| d > 0),
        );
        for divisor in divisors {
            let test = CutTest::new(divisor);
            let check = |hash: u32| {
                let expected = hash % divisor == divisor - 1;
                assert_eq!(test.hits(hash), expected, "hash {hash} divisor {divisor}");
                if test.is_odd() {
                    assert_eq!(test.hits_odd(hash), expected, "hash {hash} divisor {divisor}, odd form");
                }
            };
            for near in [
                0,
                divisor,
                divisor.wrapping_mul(2),
                u32::MAX,
                1 << 31,
                u32::MAX - divisor,
            ] {
                (0..8).for_each(|step: u32| check(near.wrapping_add(step).wrapping_sub(4)));
            }
            for _ in 0..20_000 {
                check(random.u32(..));
                check(random.u32(..=u32::MAX / divisor).wrapping_mul(divisor).wrapping_sub(1));
            }
        }
    }

    #[test]
    fn no_divisor_never_hits() {
        let test = CutTest::new(0);
        assert!(
            [0, 1, u32::MAX - 1, u32::MAX]
                .iter()
                .all(|&hash| !test.hits(hash) && !test.hits_odd(hash))
        );
    }
}
