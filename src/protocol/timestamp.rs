//! Moments as the wire writes them: RFC 3339, UTC, milliseconds.
//!
//! Only [`Timestamp::now`] reads a clock. Clocks of new machines are often wrong: a moment is clamped to the years 1970
//! to 9999, which is what the format can hold.

use serde::{Serialize, Serializer};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds from 1970 to the last second of 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// A moment of the real-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The moment of the call.
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since_epoch.min(Duration::from_secs(SECONDS_MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(UNIX_EPOCH + self.0).fmt(formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc() {
        let moment = UNIX_EPOCH + Duration::from_millis(1_795_211_178_135);
        assert_eq!(Timestamp::from(moment).to_string(), "2026-11-20T21:46:18.135Z");
    }

    #[test]
    fn clock_far_off_is_clamped() {
        let before = UNIX_EPOCH - Duration::from_secs(86_400);
        assert_eq!(Timestamp::from(before).to_string(), "1970-01-01T00:00:00.000Z");
        let after = UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        assert_eq!(Timestamp::from(after).to_string(), "9999-12-31T23:59:59.000Z");
    }
}
