//! Numbers as the console can store them.
//!
//! They are made safe where they are made, so that no message can hold one that is not: the production console goes
//! down on a fractional or negative byte count (CONSOLE.md, "Frames that bring it down").

use serde::{Deserialize, Serialize};

/// The largest whole number that every JSON reader understands exactly: 2⁵³ − 1.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// A number of bytes, packets or things: whole, and never above [`COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Count(#[cfg_attr(test, schemars(range(max = COUNT_MAX)))] u64);

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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Percent(#[cfg_attr(test, schemars(range(min = 0, max = 100)))] f64);

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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ratio(#[cfg_attr(test, schemars(range(min = 0, max = COUNT_MAX)))] f64);

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
    use super::super::encode::json;
    use super::*;

    #[test]
    fn a_percentage_is_a_number_from_0_to_100() {
        let text = |percent| json(&Percent::new(percent));
        assert_eq!(text(f64::NAN), "0.0");
        assert_eq!(text(f64::INFINITY), "100.0");
        assert_eq!(text(-3.0), "0.0");
        assert_eq!(text(12.345), "12.35");
    }

    #[test]
    fn a_count_stays_exact_for_every_reader() {
        assert_eq!(json(&Count::from(u64::MAX)), "9007199254740991");
        assert_eq!(json(&Count::from(7)), "7");
    }
}
