//! Says each trouble once a minute: the limit on `error` events about capabilities that fail.
//!
//! It knows no texts, only a hash of each cause. Bounded: when more causes than it remembers appear within a minute,
//! the oldest is forgotten and may be told again.

use crate::time::Time;
use alloc::collections::VecDeque;

/// One cause is told at most once in this time.
pub const INTERVAL_MS: u64 = 60_000;

/// How many causes are remembered. More different troubles at once than this are not worth telling apart.
pub const CAUSES_MAX: usize = 64;

/// The causes told lately.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    told: VecDeque<(u64, Time)>,
}

impl Complaints {
    /// Whether `cause` may be told now; if so, it counts as told.
    pub fn admit(&mut self, now: Time, cause: u64) -> bool {
        while self.told.front().is_some_and(|(_, at)| now.ms_since(*at) >= INTERVAL_MS) {
            self.told.pop_front();
        }
        if self.told.iter().any(|(known, _)| *known == cause) {
            return false;
        }
        if self.told.len() == CAUSES_MAX {
            self.told.pop_front();
        }
        self.told.push_back((cause, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_a_minute_and_others_are_not_held_back() {
        let mut complaints = Complaints::default();
        assert!(complaints.admit(Time::START, 1));
        assert!(complaints.admit(Time::START, 2));
        assert!(!complaints.admit(Time::from_ms(59_999), 1));
        assert!(complaints.admit(Time::from_ms(60_000), 1));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut complaints = Complaints::default();
        for cause in 0..10_000 {
            assert!(complaints.admit(Time::START, cause));
            assert!(complaints.told.len() <= CAUSES_MAX);
        }
    }
}
