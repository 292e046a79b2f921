//! Time as the machine knows it: milliseconds of the monotonic clock since the agent started.
//!
//! It does not read a clock. Durations are plain `u64` milliseconds with the unit in their name (`wait_ms`); arithmetic
//! saturates, because a recorded or fuzzed time may be anything.

use crate::canonical::{Origin, hash_relative};
use core::fmt;
use core::hash::{Hash, Hasher};
use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the agent started, on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(u64);

impl Time {
    /// The moment at which the agent started.
    pub const START: Self = Self(0);

    /// The moment `ms` milliseconds after the start.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The moment `ms` milliseconds later; saturates at the end of time.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` until this moment; 0 if that is not earlier.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Time {
    /// Hashes this moment for a state that no longer depends on it once it lies more than `horizon_ms` back.
    pub(crate) fn hash_within<H: Hasher>(self, horizon_ms: u32, state: &mut H) {
        hash_relative(Origin::Moment, horizon_ms, self.0, state);
    }
}

impl Hash for Time {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_within(u32::MAX, state);
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
