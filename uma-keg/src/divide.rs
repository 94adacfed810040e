//! Division by a number known in advance, as a multiplication.

/// Divides by a fixed number. Exact for dividends below 2^31, which [`SlabLayout`] ensures.
///
/// Let `bits` be the bit length of the divisor `d`, and `k = 31 + bits`. The factor `f` is
/// `floor(2^k / d) + 1`, so `f * d = 2^k + e` with `0 < e <= d`, and `n * f / 2^k` is
/// `n / d + (n * e / 2^k) / d`. As `n < 2^31` and `e < 2^bits`, the second term is below `1 / d`: too
/// little to reach the next integer. The product stays below `2^31 * (2^32 + 2)`.
///
/// [`SlabLayout`]: crate::SlabLayout
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reciprocal {
    factor: u64,
    shift: u32,
}

/// Dividends must be below this.
pub(crate) const DIVIDENDS: usize = 1 << 31;

impl Reciprocal {
    /// For `divisor` from 1 to 2^31.
    pub(crate) const fn new(divisor: usize) -> Self {
        assert!(divisor != 0 && divisor <= DIVIDENDS);
        let divisor = divisor as u64;
        // At most 31 + 32, and the factor at most 2^32 + 1, because 2^(bits - 1) <= divisor.
        let shift = 31 + (u64::BITS - divisor.leading_zeros());
        Self { factor: (1_u64 << shift) / divisor + 1, shift }
    }

    /// The quotient, rounded down.
    #[inline]
    pub(crate) const fn divide(self, dividend: usize) -> usize {
        debug_assert!(dividend < DIVIDENDS);
        // Not above the dividend.
        ((dividend as u64 * self.factor) >> self.shift) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{DIVIDENDS, Reciprocal};

    #[test]
    fn quotients_are_exact_at_every_multiple() {
        let mut divisors = std::vec::Vec::from_iter(1..=1500_usize);
        for power in 10..=30 {
            divisors.extend([(1 << power) - 1, 1 << power, (1 << power) + 1]);
        }
        divisors.extend([12_345, 65_535, 1_000_003, DIVIDENDS - 1, DIVIDENDS]);
        for divisor in divisors {
            let by = Reciprocal::new(divisor);
            // A wrong quotient shows first just below or at a multiple; the steps near the top are
            // where the error is largest.
            let mut multiple = 0;
            while multiple < DIVIDENDS {
                for n in multiple.saturating_sub(1)..(multiple + 2).min(DIVIDENDS) {
                    assert_eq!(by.divide(n), n / divisor, "{n} / {divisor}");
                }
                multiple += divisor * (1 + multiple / divisor / 1000);
            }
            for n in DIVIDENDS - 2000..DIVIDENDS {
                assert_eq!(by.divide(n), n / divisor, "{n} / {divisor}");
            }
        }
    }
}
