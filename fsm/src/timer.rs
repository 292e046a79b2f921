//! The deadlines of the machine: one entry for each timer, the least of which is the next wake-up.
//!
//! It fires nothing by itself: the machine asks, on a tick, which have expired. Each timer belongs to a state, which
//! disarms it on exit.

use crate::time::Time;

/// A deadline of the connection machine, and when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Timer {
    /// At once after the entry of `Unregistered`, since entry actions cannot transition.
    Begin,
    /// When a registration has had no answer for too long.
    RegistrationDeadline,
    /// When it is time to dial or to register again.
    Retry,
    /// When a dial has not come up for too long.
    DialDeadline,
    /// When the port that was refused is probed next.
    PortProbe,
    /// When a probe of the port has had no result for too long.
    PortProbeDeadline,
    /// When a close handshake, or the end of a dropped socket, has taken too long.
    CloseDeadline,
    /// When a silent console may get state messages.
    StateGate,
    /// When a silent console may get everything.
    AllGate,
    /// When the next keep-alive Ping is due.
    Ping,
    /// When a Ping has been unanswered for too long.
    PongDeadline,
    /// When the next heartbeat is due.
    Heartbeat,
    /// When the next metrics are due.
    Metrics,
    /// When the link has been ready for long enough to forget past failures.
    Stable,
    /// When the link has been ready for long enough to forget that it was replaced.
    StableAfterReplacement,
    /// When a resync may happen, and again while it waits for sessions to end.
    Resync,
    /// When the sessions and commands of a draining agent are given the next signal.
    DrainStep,
    /// When a draining agent closes its link, even if work is left.
    DrainClose,
    /// When a draining agent exits, even if work is left.
    DrainExit,
}

/// How many timers there are.
const TIMERS: usize = Timer::DrainExit as usize + 1;

/// All timers, in the order in which those that expire together fire.
pub const ALL: [Timer; TIMERS] = [
    Timer::Begin,
    Timer::RegistrationDeadline,
    Timer::Retry,
    Timer::DialDeadline,
    Timer::PortProbe,
    Timer::PortProbeDeadline,
    Timer::CloseDeadline,
    Timer::StateGate,
    Timer::AllGate,
    Timer::Ping,
    Timer::PongDeadline,
    Timer::Heartbeat,
    Timer::Metrics,
    Timer::Stable,
    Timer::StableAfterReplacement,
    Timer::Resync,
    Timer::DrainStep,
    Timer::DrainClose,
    Timer::DrainExit,
];

/// The table of deadlines.
#[derive(Clone, Debug, Default, Hash)]
pub struct Timers {
    deadlines: [Option<Time>; TIMERS],
}

impl Timers {
    /// Fires `timer` at `at`, and not before; replaces an earlier deadline.
    pub fn arm(&mut self, timer: Timer, at: Time) {
        self.deadlines[timer as usize] = Some(at);
    }

    /// Fires `timer` at `at` unless it is armed already.
    pub fn arm_if_idle(&mut self, timer: Timer, at: Time) {
        self.deadlines[timer as usize].get_or_insert(at);
    }

    /// Lets `timer` not fire.
    pub fn disarm(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    /// Lets none of `timers` fire.
    pub fn disarm_all(&mut self, timers: &[Timer]) {
        for timer in timers {
            self.disarm(*timer);
        }
    }

    /// When `timer` fires.
    pub fn deadline(&self, timer: Timer) -> Option<Time> {
        self.deadlines[timer as usize]
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes one timer that has expired at `now`: the earliest, and of several the first in [`ALL`].
    pub fn take_expired(&mut self, now: Time) -> Option<Timer> {
        let armed = ALL.into_iter().filter_map(|timer| Some((self.deadline(timer)?, timer)));
        // Of equals the first.
        let (_, timer) = armed.min_by_key(|(at, _)| *at).filter(|(at, _)| *at <= now)?;
        self.disarm(timer);
        Some(timer)
    }

    /// Moves every deadline `ms` later: time that the process did not live through does not count.
    pub fn shift_ms(&mut self, ms: u64) {
        for deadline in self.deadlines.iter_mut().flatten() {
            *deadline = deadline.after_ms(ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_every_timer_at_its_place() {
        for (place, timer) in ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }

    #[test]
    fn timers_expire_by_deadline_then_by_order() {
        let mut timers = Timers::default();
        timers.arm(Timer::Metrics, Time::from_ms(5));
        timers.arm(Timer::Ping, Time::from_ms(5));
        timers.arm(Timer::Stable, Time::from_ms(4));
        timers.arm(Timer::Heartbeat, Time::from_ms(6));
        assert_eq!(timers.next(), Some(Time::from_ms(4)));
        let now = Time::from_ms(5);
        assert_eq!(timers.take_expired(now), Some(Timer::Stable));
        assert_eq!(timers.take_expired(now), Some(Timer::Ping));
        assert_eq!(timers.take_expired(now), Some(Timer::Metrics));
        assert_eq!(timers.take_expired(now), None);
        timers.shift_ms(10);
        assert_eq!(timers.next(), Some(Time::from_ms(16)));
    }

    /// Domain: every pair of timers with deadlines of 1 to 3 ms, at every moment up to 4 ms.
    #[test]
    fn every_pair_of_timers_expires_in_order() {
        let times = || (1..=3).map(Time::from_ms);
        for (first, second) in ALL.into_iter().flat_map(|first| ALL.map(|second| (first, second))) {
            for (at, later) in times().flat_map(|at| times().map(move |later| (at, later))) {
                for now in (0..=4).map(Time::from_ms) {
                    let mut timers = Timers::default();
                    timers.arm(first, at);
                    timers.arm(second, later);
                    // A timer that is armed again has its later deadline alone.
                    let mut due = if first == second {
                        [Some((later, second)), None]
                    } else {
                        [Some((at, first)), Some((later, second))]
                    };
                    due.sort_unstable_by_key(|armed| armed.map_or((Time::from_ms(9), Timer::DrainExit), |armed| armed));
                    let expected = due.into_iter().flatten().filter(|(at, _)| *at <= now).map(|(_, timer)| timer);
                    let fired = core::iter::from_fn(|| timers.take_expired(now));
                    assert!(fired.eq(expected), "{first:?} at {at}, {second:?} at {later}, {now}");
                }
            }
        }
    }
}
