//! How a driver is hashed so that two with the same future are equal: for a model checker, which counts states.
//!
//! Moments and the numbers of links and attempts grow for ever, and only their distance to the present matters. Their
//! `Hash` writes one `i128`, which nothing else in this crate does: a hasher that knows the present recognises it by
//! [`relative`] and hashes the distance. Counters of failures are written as `u128`, so that it can hash them up to the
//! value from which they change nothing. What cannot change a decision is left out, with the reason beside it.

use core::hash::Hasher;

/// What a number counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Milliseconds: the distance to now.
    Moment,
    /// Links: the distance to the newest.
    Link,
    /// Registration attempts: the distance to the newest.
    Attempt,
}

const ORIGINS: [Origin; 3] = [Origin::Moment, Origin::Link, Origin::Attempt];

/// Where the origin stands in the number that is hashed; below it the horizon, and then the value.
const ORIGIN_SHIFT: u32 = 96;
const HORIZON_SHIFT: u32 = 64;

/// Where the row stands in a count that is hashed.
const ROW_SHIFT: u32 = 64;

/// Hashes a number of which only the distance to the newest one matters, and not by how much it is further back than
/// `horizon`.
pub(crate) fn hash_relative<H: Hasher>(origin: Origin, horizon: u32, value: u64, state: &mut H) {
    let number = (origin as i128) << ORIGIN_SHIFT | i128::from(horizon) << HORIZON_SHIFT | i128::from(value);
    state.write_i128(number);
}

/// Hashes how often the wait of this row has grown, as a `u128`: only a hasher that knows the policy knows from where
/// on it grows no more.
pub(crate) fn hash_count<H: Hasher>(row: u32, count: u32, state: &mut H) {
    state.write_u128(u128::from(row) << ROW_SHIFT | u128::from(count));
}

/// What a hasher was given by `hash_count`: the row, in the order of the fields of `Backoff`, and the count.
pub fn counted(number: u128) -> Option<(usize, u32)> {
    let row = usize::try_from(number >> ROW_SHIFT).ok()?;
    Some((row, u32::try_from(number & u128::from(u64::MAX)).ok()?))
}

/// What a hasher was given by `hash_relative`: the origin, the horizon and the value.
pub fn relative(number: i128) -> Option<(Origin, u32, u64)> {
    let origin = *ORIGINS.get(usize::try_from(number >> ORIGIN_SHIFT).ok()?)?;
    let horizon = u32::try_from(number >> HORIZON_SHIFT & i128::from(u32::MAX)).ok()?;
    let value = u64::try_from(number & i128::from(u64::MAX)).ok()?;
    Some((origin, horizon, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LinkId, RegistrationAttempt};
    use crate::time::Time;
    use alloc::vec::Vec;
    use core::hash::Hash;

    /// Keeps what is hashed as a relative number.
    #[derive(Default)]
    struct Seen(Vec<Option<(Origin, u32, u64)>>);

    impl Hasher for Seen {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, _: &[u8]) {
            self.0.push(None);
        }

        fn write_i128(&mut self, number: i128) {
            self.0.push(relative(number));
        }
    }

    #[test]
    fn moments_links_and_attempts_are_hashed_as_relative() {
        let mut seen = Seen::default();
        Time::from_ms(u64::MAX).hash(&mut seen);
        Time::from_ms(5).hash_within(7, &mut seen);
        LinkId(3).hash(&mut seen);
        RegistrationAttempt(u32::MAX).hash(&mut seen);
        4_u32.hash(&mut seen);
        let expected = [
            Some((Origin::Moment, u32::MAX, u64::MAX)),
            Some((Origin::Moment, 7, 5)),
            Some((Origin::Link, u32::MAX, 3)),
            Some((Origin::Attempt, u32::MAX, u32::MAX.into())),
            None,
        ];
        assert_eq!(seen.0, expected);
    }
}
