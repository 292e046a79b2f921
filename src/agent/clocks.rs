//! Reads the clocks, and waits for them: the one place that asks what time it is.
//!
//! [`draupnir_fsm::driver`] compares the readings and notices a jump.

#[cfg(target_os = "linux")]
use async_io::{Async, ReadableOwned};
use draupnir_fsm::driver::{Clocks, Time};
use rustix::time::{ClockId, clock_gettime};
#[cfg(target_os = "linux")]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use smol::Timer;
use smol::future::yield_now;
use std::time::{Duration, Instant};
#[cfg(target_os = "linux")]
use std::{os::fd::OwnedFd, sync::Arc};

/// The start of the agent on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(Instant);

impl Epoch {
    /// Zero is now.
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    /// Whole milliseconds since then, as the machine counts them.
    pub(super) fn elapsed(self) -> Time {
        Time::from_ms(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The first instant at which [`Epoch::elapsed`] is `time`; `None` if the clock cannot count so far.
    pub(super) fn instant(self, time: Time) -> Option<Instant> {
        self.0.checked_add(Duration::from_millis(time.as_ms()))
    }
}

/// The loop's one timer. It is set only when nothing else is left to do, and never to where it stands.
#[derive(Debug)]
pub(super) struct DeadlineTimer {
    source: TimerSource,
    /// The instant to which it is set; `None` after it has expired.
    set_to: Option<Instant>,
}

/// What measures the time. Setting a timer of the reactor wakes the reactor's thread, at each Ping and each heartbeat.
/// Setting a descriptor wakes nothing before its time.
#[derive(Debug)]
enum TimerSource {
    Reactor(Timer),
    #[cfg(target_os = "linux")]
    Descriptor {
        descriptor: Arc<Async<OwnedFd>>,
        /// Kept between waits, so that the reactor registers it once.
        readable: Option<ReadableOwned<OwnedFd>>,
    },
}

impl DeadlineTimer {
    /// A timer that is not set.
    pub(super) fn new() -> Self {
        Self { source: TimerSource::new(), set_to: None }
    }

    /// Returns at `due`, or as soon after it as the executor has nothing else to run.
    pub(super) async fn wait_until(&mut self, due: Instant) {
        yield_now().await;
        if self.set_to != Some(due) {
            self.source.set(due);
            self.set_to = Some(due);
        }
        self.source.expired(due).await;
        self.set_to = None;
    }
}

impl TimerSource {
    /// A timer descriptor, or the reactor's timer if the kernel has no descriptor left.
    #[cfg(target_os = "linux")]
    fn new() -> Self {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(std::io::Error::from);
        match descriptor.and_then(Async::new_nonblocking) {
            Ok(descriptor) => Self::Descriptor { descriptor: Arc::new(descriptor), readable: None },
            Err(_) => Self::Reactor(Timer::never()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Self {
        Self::Reactor(Timer::never())
    }

    fn set(&mut self, due: Instant) {
        match self {
            Self::Reactor(timer) => timer.set_at(due),
            #[cfg(target_os = "linux")]
            Self::Descriptor { descriptor, .. } => {
                // Zero would unset it.
                let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
                let it_value = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
                let once = Itimerspec { it_interval: Timespec::default(), it_value };
                timerfd_settime(&**descriptor, TimerfdTimerFlags::empty(), &once).expect("the time is valid");
            }
        }
    }

    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))] // only a descriptor is ready too early
    async fn expired(&mut self, due: Instant) {
        match self {
            Self::Reactor(timer) => drop(timer.await),
            #[cfg(target_os = "linux")]
            Self::Descriptor { descriptor, readable } => {
                // The reactor may have seen the descriptor ready before the time was changed.
                loop {
                    let waited = readable.get_or_insert_with(|| Arc::clone(descriptor).readable_owned()).await;
                    *readable = None;
                    if waited.is_err() {
                        Timer::at(due).await;
                    }
                    if Instant::now() >= due {
                        return;
                    }
                }
            }
        }
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
        let epoch = Epoch::now();
        let begins = epoch.instant(Time::from_ms(5)).expect("near");
        assert_eq!(begins.duration_since(epoch.0), Duration::from_millis(5));
    }

    #[test]
    fn timer_that_was_moved_or_has_expired_can_be_set_again() {
        let mut timer = DeadlineTimer::new();
        let begin = Instant::now();
        let far = begin + Duration::from_secs(3_600);
        smol::future::block_on(async {
            let mut waiting = Box::pin(timer.wait_until(far));
            for polled in ["lets others run", "sets it"] {
                assert!(smol::future::poll_once(&mut waiting).await.is_none(), "an hour has not passed: {polled}");
            }
            drop(waiting);
            assert_eq!(timer.set_to, Some(far));
            for ms in [5, 5, 10] {
                let due = begin + Duration::from_millis(ms);
                timer.wait_until(due).await;
                assert!(Instant::now() >= due);
            }
        });
    }

    #[test]
    fn the_clocks_are_read_in_milliseconds() {
        let clocks = read();
        assert!(clocks.real_time_ms > 1_700_000_000_000, "{clocks:?}");
        assert!(clocks.boot_time_ms >= clocks.monotonic_ms, "{clocks:?}");
    }
}
