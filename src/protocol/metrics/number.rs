//! Numbers that the console can be sent: whole counts, percentages, ratios.
//!
//! Knows nothing of what they mean. Invariants, by construction: a [`Count`] is whole and exact in a double, a [`Percent`]
//! is finite and within 0–100, a [`Ratio`] is finite and not negative.

use serde::Serialize;

/// The largest whole number that every JSON reader understands exactly: 2⁵³ − 1.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// A number of bytes, packets or things: whole, and never above [`COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count(u64);

impl Count {
    /// The count, cut off at [`COUNT_MAX`].
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(value.min(COUNT_MAX))
    }

    /// The plain number.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

impl From<u64> for Count {
    fn from(value: u64) -> Self {
        Self::new(value)
    }
}

/// A percentage: finite, within 0–100, and rounded to hundredths, which is finer than any source is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Percent(f64);

impl Percent {
    /// The percentage, brought into 0–100; what is not a number becomes 0.
    #[must_use]
    pub fn new(value: f64) -> Self {
        Self(hundredths(value).min(100.0))
    }

    /// `part` of `whole`; 0 of nothing is 0.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // two decimals are kept of what a double holds to fifteen
    pub fn of(part: u64, whole: u64) -> Self {
        if whole == 0 { Self(0.0) } else { Self::new(part as f64 / whole as f64 * 100.0) }
    }

    /// The plain number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

/// A load average or a number of cores: finite, not negative, rounded to hundredths.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ratio(f64);

impl Ratio {
    /// The value; what is negative or not a number becomes 0, and what is endless [`COUNT_MAX`].
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // COUNT_MAX is exact in a double by its definition
    pub fn new(value: f64) -> Self {
        Self(hundredths(value).min(COUNT_MAX as f64))
    }

    /// The plain number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

/// Rounds to hundredths; anything below 0 or not a number becomes 0. Values beyond exact hundredths stay as they are.
fn hundredths(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 0.0;
    }
    let scaled = value * 100.0;
    if scaled.is_finite() { scaled.round() / 100.0 } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_nothing_are_nothing() {
        assert_eq!(Percent::of(5, 0).value(), 0.0);
        assert_eq!(Percent::of(1, 3).value(), 33.33);
        assert_eq!(Percent::of(3, 1).value(), 100.0);
    }

    proptest! {
        #[test]
        fn a_percentage_stays_within_its_bounds(bits: u64) {
            let value = Percent::new(f64::from_bits(bits)).value();
            prop_assert!((0.0..=100.0).contains(&value), "{}", value);
        }

        #[test]
        fn a_ratio_is_finite_and_not_negative(bits: u64) {
            let value = Ratio::new(f64::from_bits(bits)).value();
            prop_assert!(value.is_finite() && value >= 0.0, "{}", value);
        }

        #[test]
        fn a_count_is_exact_in_a_double(value: u64) {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let through = Count::new(value).value() as f64 as u64;
            prop_assert_eq!(through, Count::new(value).value());
        }
    }
}
