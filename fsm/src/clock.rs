//! Notices that time did not pass as usual: a suspended machine, a frozen process, a clock that was set.
//!
//! It reads no clock: the agent reads three and this compares them. All readings are in milliseconds; only their
//! differences mean anything.

use crate::fact::ClockJump;

/// A step of the real-time clock against the monotonic one that is more than this is no slewing.
pub const REAL_TIME_STEP_MS: u64 = 5_000;

/// The boot-time clock running ahead of the monotonic one by more than this is a suspend and no jitter of the readings.
pub const SUSPEND_MS: u64 = 1_000;

/// One reading of the three clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC`, which stands still while the machine is suspended.
    pub monotonic_ms: u64,
    /// `CLOCK_BOOTTIME`, which does not; where there is none, the monotonic clock again.
    pub boot_time_ms: u64,
    /// `CLOCK_REALTIME`, which may be set.
    pub real_time_ms: u64,
}

/// Compares each reading with the one before.
#[derive(Clone, Debug, Default, Hash)]
pub struct Watch {
    last: Option<Clocks>,
}

impl Watch {
    /// Reads the clocks' values and returns which clock jumped since the last reading, and by how many milliseconds. A
    /// suspend moves the real-time clock, too, and is reported as a suspend.
    pub fn observe(&mut self, clocks: Clocks) -> Option<(ClockJump, u64)> {
        let last = self.last.replace(clocks)?;
        let lived_ms = clocks.monotonic_ms.saturating_sub(last.monotonic_ms);
        let slept_ms = clocks.boot_time_ms.saturating_sub(last.boot_time_ms).saturating_sub(lived_ms);
        if slept_ms > SUSPEND_MS {
            return Some((ClockJump::Suspend, slept_ms));
        }
        let expected_ms = last.real_time_ms.saturating_add(lived_ms);
        let stepped_ms = clocks.real_time_ms.abs_diff(expected_ms);
        (stepped_ms > REAL_TIME_STEP_MS).then_some((ClockJump::RealTimeStep, stepped_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ms: u64, boot_time_ms: u64, real_time_ms: u64) -> Clocks {
        Clocks { monotonic_ms, boot_time_ms, real_time_ms }
    }

    #[test]
    fn the_ordinary_passing_of_time_is_no_jump() {
        let mut watch = Watch::default();
        assert_eq!(watch.observe(at(1_000, 1_000, 50_000)), None);
        assert_eq!(watch.observe(at(61_000, 61_500, 114_900)), None);
    }

    #[test]
    fn suspend_is_reported_once_with_its_length() {
        let mut watch = Watch::default();
        watch.observe(at(1_000, 1_000, 50_000));
        assert_eq!(watch.observe(at(1_100, 3_601_100, 3_650_100)), Some((ClockJump::Suspend, 3_600_000)));
        assert_eq!(watch.observe(at(1_200, 3_601_200, 3_650_200)), None);
    }

    #[test]
    fn real_time_clock_step_is_reported_in_both_directions() {
        let mut watch = Watch::default();
        watch.observe(at(1_000, 1_000, 50_000));
        assert_eq!(watch.observe(at(2_000, 2_000, 40_000)), Some((ClockJump::RealTimeStep, 11_000)));
        assert_eq!(watch.observe(at(3_000, 3_000, 141_000)), Some((ClockJump::RealTimeStep, 100_000)));
    }
}
