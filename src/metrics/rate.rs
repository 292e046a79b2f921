//! Counters that grow, and how fast.
//!
//! Reads nothing. Invariants: a rate is never negative and never absurd; a counter that went back, or jumped further
//! than any hardware can, was reset, and counts on from there.
//!
//! Units: the counter's own, per second.

use std::time::Duration;

/// No link and no disk carries more in a second: 100 GB.
const PER_SECOND_MAX: u64 = 100_000_000_000;

/// A window shorter than this says more about the clock than about the counter.
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// Counters of 32 bits wrap here.
const NARROW: u64 = 1 << 32;

/// How much a counter grew from one reading to the next.
///
/// It went back: either it is 32 bits wide and wrapped, which is believed only when it was near its end and is near its
/// beginning, or it was reset, and then what it counted meanwhile is unknown and counts as 0.
pub(crate) fn growth(earlier: u64, now: u64, elapsed: Duration) -> u64 {
    const MARGIN: u64 = NARROW / 8;
    let grown = if now >= earlier {
        now - earlier
    } else if (NARROW - MARGIN..NARROW).contains(&earlier) && now < MARGIN {
        now + NARROW - earlier
    } else {
        0
    };
    // One second more, so that a burst in a short window is not taken for nonsense.
    let believable = PER_SECOND_MAX.saturating_mul(elapsed.as_secs().saturating_add(1));
    if grown > believable { 0 } else { grown }
}

/// The rate of one counter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    last: Option<(Duration, u64)>,
    per_second: Option<u64>,
}

impl Rate {
    /// The counter says `value` at `at`.
    pub(crate) fn advance(&mut self, at: Duration, value: u64) {
        if let Some((since, earlier)) = self.last {
            let elapsed = at.saturating_sub(since);
            if elapsed < WINDOW_MIN {
                return;
            }
            self.per_second = Some(per_second(growth(earlier, value, elapsed), elapsed));
        }
        self.last = Some((at, value));
    }

    /// The rate between the last two readings; `None` before there were two.
    pub(crate) fn per_second(&self) -> Option<u64> {
        self.per_second
    }
}

fn per_second(grown: u64, elapsed: Duration) -> u64 {
    let scaled = u128::from(grown) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn counter_of_32_bits_wraps_and_others_restart() {
        assert_eq!(growth(NARROW - 10, 5, SECOND), 15);
        assert_eq!(growth(3_000_000_000, 5, SECOND), 0);
        assert_eq!(growth(NARROW + 10, 5, SECOND), 0);
        assert_eq!(growth(5, NARROW - 10, SECOND), NARROW - 15);
        assert_eq!(growth(0, u64::MAX, SECOND), 0);
    }

    #[test]
    fn a_rate_needs_two_readings_apart() {
        let mut rate = Rate::default();
        rate.advance(SECOND, 100);
        assert_eq!(rate.per_second(), None);
        rate.advance(SECOND + Duration::from_millis(1), 900);
        assert_eq!(rate.per_second(), None);
        rate.advance(SECOND * 3, 300);
        assert_eq!(rate.per_second(), Some(100));
        rate.advance(SECOND * 4, 0);
        assert_eq!(rate.per_second(), Some(0));
    }

    proptest! {
        #[test]
        fn no_rate_is_absurd(values in proptest::collection::vec(any::<u64>(), 2..9), step_ms in 100_u64..100_000) {
            let mut rate = Rate::default();
            for (index, value) in values.into_iter().enumerate() {
                rate.advance(Duration::from_millis(step_ms * index as u64), value);
                prop_assert!(rate.per_second().is_none_or(|rate| rate <= 20 * PER_SECOND_MAX));
            }
        }
    }
}
