//! Reads the clocks: the one place that asks what time it is.
//!
//! It compares nothing; what a jump is stands in [`draupnir_fsm::clock`].

use draupnir_fsm::clock::Clocks;
use draupnir_fsm::time::Time;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The agent's own zero on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start(Instant);

impl Start {
    /// Zero is now.
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    /// Whole milliseconds since then, as the machine counts them.
    pub(super) fn elapsed(self) -> Time {
        Time::from_ms(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The first instant at which [`Start::elapsed`] is `time`; none where that lies beyond what the clock can count.
    pub(super) fn instant(self, time: Time) -> Option<Instant> {
        self.0.checked_add(Duration::from_millis(time.as_ms()))
    }
}

/// One reading of the three clocks.
pub(super) fn read() -> Clocks {
    Clocks {
        monotonic_ms: read_ms(ClockId::Monotonic),
        boot_time_ms: boot_time_ms(),
        real_time_ms: read_ms(ClockId::Realtime),
    }
}

#[cfg(target_os = "linux")]
fn boot_time_ms() -> u64 {
    read_ms(ClockId::Boottime)
}

/// macOS has no clock of this kind that rustix knows: a sleep is seen as a step of the real-time clock.
#[cfg(not(target_os = "linux"))]
fn boot_time_ms() -> u64 {
    read_ms(ClockId::Monotonic)
}

fn read_ms(clock: ClockId) -> u64 {
    let reading = clock_gettime(clock);
    // Neither part is ever negative on clocks that count from the start of the machine or of the epoch.
    let seconds = u64::try_from(reading.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(reading.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instant_of_a_time_is_when_it_begins() {
        let start = Start::now();
        let begins = start.instant(Time::from_ms(5)).expect("near");
        assert_eq!(begins.duration_since(start.0), Duration::from_millis(5));
    }

    #[test]
    fn the_clocks_are_read_in_milliseconds() {
        let clocks = read();
        assert!(clocks.real_time_ms > 1_700_000_000_000, "{clocks:?}");
        assert!(clocks.boot_time_ms >= clocks.monotonic_ms, "{clocks:?}");
    }
}
