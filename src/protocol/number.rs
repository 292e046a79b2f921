//! Numbers as the console can store them.
//!
//! They are made safe where they are made, so that no message can hold one that is not: the production console goes
//! down on a fractional or negative byte count (wire.md, part B).

use serde::{Serialize, Serializer};

/// Largest integer that a JSON reader with floating-point numbers keeps exactly.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// A percentage, 0–100. What is not a number is 0: what the platform cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// Clamps and wraps.
    pub fn new(percent: f64) -> Self {
        if percent.is_nan() { Self(0.0) } else { Self(percent.clamp(0.0, 100.0)) }
    }

    /// The percentage.
    pub fn as_f64(self) -> f64 {
        self.0
    }
}

/// To two decimals: more is noise, and costs bytes in every beat.
impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.0 * 100.0).round() / 100.0)
    }
}

/// A count of bytes or packets: a whole number from 0 to 2⁵³ − 1; larger ones are sent as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(u64);

impl From<u64> for Count {
    fn from(count: u64) -> Self {
        Self(count.min(COUNT_MAX))
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
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
