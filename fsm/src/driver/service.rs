//! When a service manager hears of the agent: READY, STATUS, STOPPING and WATCHDOG of sd_notify(3).
//!
//! The loop asks after each turn, so that a loop that hangs sends nothing. While connected the turn of each Ping brings
//! the sign for the watchdog. Without a link a turn comes when that is due, which no other timer would bring in time.
//! An agent without a service manager has no deadline here.

use super::vitals::LinkPhase;
use crate::time::Time;

/// READY is sent after the first connect, or after this time: a console that is away must not fail the start of the
/// service.
pub const READY_MS: u64 = 10_000;

/// No sign for the watchdog follows another sooner than this: a terminal in use makes many turns. It is short, so that
/// a sign just before a Ping does not make the next one due before the next Ping.
pub const SIGN_INTERVAL_MIN_MS: u64 = 1_000;

/// A manager that did not take a notice gets it again after this.
pub const RETRY_MS: u64 = 5_000;

/// Decides what the service manager hears of, and when.
#[derive(Clone, Debug)]
pub struct ServiceNotifier {
    /// The time after which the manager ends an agent that sent no sign.
    watchdog_ms: Option<u64>,
    is_ready: bool,
    signed_at: Option<Time>,
    phase: Option<LinkPhase>,
    /// Nothing is sent before this: the manager did not take the last notice.
    retry_at: Time,
}

/// What the service manager hears of, in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceNotice {
    /// `READY=1`
    pub ready: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `WATCHDOG=1`
    pub watchdog: bool,
    /// What `STATUS=` is about.
    pub phase: LinkPhase,
}

impl ServiceNotifier {
    /// For a manager that waits so long for a sign, in milliseconds; `None` for one that does not watch.
    pub const fn new(watchdog_ms: Option<u64>) -> Self {
        Self { watchdog_ms, is_ready: false, signed_at: None, phase: None, retry_at: Time::START }
    }

    /// What to send now. Report by [`sent`](Self::sent) or [`failed`](Self::failed) what became of it.
    pub fn poll(&self, now: Time, phase: LinkPhase) -> Option<ServiceNotice> {
        if now < self.retry_at {
            return None;
        }
        let is_due = match phase {
            LinkPhase::Online | LinkPhase::Draining => true,
            LinkPhase::Offline => now.as_ms() >= READY_MS,
        };
        let ready = !self.is_ready && is_due;
        let has_new_phase = self.phase != Some(phase);
        let stopping = has_new_phase && phase == LinkPhase::Draining;
        let is_silent = self.signed_at.is_none_or(|at| now.ms_since(at) >= self.sign_interval_min_ms());
        let watchdog = self.watchdog_ms.is_some() && is_silent;
        (ready || has_new_phase || watchdog).then_some(ServiceNotice { ready, stopping, watchdog, phase })
    }

    /// The manager has the notice.
    pub const fn sent(&mut self, now: Time, notice: ServiceNotice) {
        self.is_ready |= notice.ready;
        if notice.watchdog {
            self.signed_at = Some(now);
        }
        self.phase = Some(notice.phase);
    }

    /// The manager did not take the notice: it is asked for again, later.
    pub const fn failed(&mut self, now: Time) {
        self.retry_at = now.after_ms(RETRY_MS);
    }

    /// When the next turn is due at the latest for a notice of its own.
    pub fn next_deadline(&self) -> Option<Time> {
        let ready_at = (!self.is_ready).then_some(Time::from_ms(READY_MS));
        let sign_at = self.watchdog_ms.map(|ms| self.signed_at.unwrap_or(Time::START).after_ms(sign_after_ms(ms)));
        ready_at.into_iter().chain(sign_at).min().map(|due| due.max(self.retry_at))
    }

    const fn sign_interval_min_ms(&self) -> u64 {
        match self.watchdog_ms {
            Some(ms) if sign_after_ms(ms) < SIGN_INTERVAL_MIN_MS => sign_after_ms(ms),
            Some(_) | None => SIGN_INTERVAL_MIN_MS,
        }
    }
}

/// When a sign is due that no other turn has brought: after three fifths of the time of the watchdog. With the 20 s of
/// the units that is 12 s, and each Ping comes before. Never 0, which would be a busy loop.
const fn sign_after_ms(watchdog_ms: u64) -> u64 {
    let ms = watchdog_ms / 5 * 3;
    if ms == 0 { 1 } else { ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHDOG_MS: u64 = 20_000;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    /// Polls, and takes everything as sent.
    fn turn(notifier: &mut ServiceNotifier, ms: u64, phase: LinkPhase) -> Option<ServiceNotice> {
        let notice = notifier.poll(at(ms), phase)?;
        notifier.sent(at(ms), notice);
        Some(notice)
    }

    #[test]
    fn ready_comes_with_the_first_connect() {
        let mut notifier = ServiceNotifier::new(None);
        assert!(!turn(&mut notifier, 0, LinkPhase::Offline).expect("a status").ready);
        assert!(turn(&mut notifier, 5, LinkPhase::Online).expect("ready").ready);
        assert_eq!(turn(&mut notifier, 60_000, LinkPhase::Online), None);
        assert_eq!(notifier.next_deadline(), None);
    }

    #[test]
    fn ready_comes_after_10_s_without_a_console() {
        let mut notifier = ServiceNotifier::new(None);
        turn(&mut notifier, 0, LinkPhase::Offline);
        assert_eq!(turn(&mut notifier, READY_MS - 1, LinkPhase::Offline), None);
        assert_eq!(notifier.next_deadline(), Some(at(READY_MS)));
        assert!(turn(&mut notifier, READY_MS, LinkPhase::Offline).expect("ready").ready);
        assert_eq!(notifier.next_deadline(), None);
    }

    /// While connected the watchdog asks for no turn of its own, whatever other turns there are.
    #[test]
    fn turns_of_pings_carry_the_watchdog() {
        const PING_MS: u64 = 10_000;
        for other_ms in (0..PING_MS).step_by(100) {
            let mut notifier = ServiceNotifier::new(Some(WATCHDOG_MS));
            turn(&mut notifier, 0, LinkPhase::Online);
            let mut signed_at = 0;
            for ping in (1..20).map(|number| 7 + number * PING_MS) {
                // Its Pong, and a heartbeat or a keystroke at any other time.
                for at_ms in [ping, ping + 50, ping + 50 + other_ms.min(PING_MS - 100)] {
                    if turn(&mut notifier, at_ms, LinkPhase::Online).is_some_and(|notice| notice.watchdog) {
                        assert!(at_ms - signed_at <= WATCHDOG_MS / 2 + SIGN_INTERVAL_MIN_MS);
                        signed_at = at_ms;
                    }
                    assert!(notifier.next_deadline() >= Some(at(ping + PING_MS)), "{other_ms}: {notifier:?}");
                }
            }
        }
    }

    #[test]
    fn offline_the_watchdog_has_its_own_deadline() {
        let mut notifier = ServiceNotifier::new(Some(WATCHDOG_MS));
        turn(&mut notifier, 0, LinkPhase::Offline);
        for _ in 0..100 {
            let due = notifier.next_deadline().expect("a deadline").as_ms();
            assert!(turn(&mut notifier, due, LinkPhase::Offline).is_some());
            assert!(notifier.next_deadline().expect("a deadline").ms_since(at(due)) <= WATCHDOG_MS / 5 * 3);
        }
    }

    #[test]
    fn notice_that_failed_is_sent_later() {
        let mut notifier = ServiceNotifier::new(Some(WATCHDOG_MS));
        let first = notifier.poll(at(READY_MS), LinkPhase::Offline);
        assert!(first.is_some_and(|notice| notice.ready && notice.watchdog));
        notifier.failed(at(READY_MS));
        assert_eq!(notifier.poll(at(READY_MS + 1), LinkPhase::Offline), None);
        // A deadline in the past would be a busy loop.
        assert_eq!(notifier.next_deadline(), Some(at(READY_MS + RETRY_MS)));
        assert_eq!(notifier.poll(at(READY_MS + RETRY_MS), LinkPhase::Offline), first);
    }

    #[test]
    fn drain_is_reported_once_as_stopping() {
        let mut notifier = ServiceNotifier::new(None);
        turn(&mut notifier, 0, LinkPhase::Online);
        assert!(turn(&mut notifier, 5, LinkPhase::Draining).expect("stopping").stopping);
        assert_eq!(turn(&mut notifier, 6, LinkPhase::Draining), None);
    }

    #[test]
    fn shortest_watchdog_makes_no_busy_loop() {
        let mut notifier = ServiceNotifier::new(Some(1));
        turn(&mut notifier, 5, LinkPhase::Online);
        assert_eq!(notifier.next_deadline(), Some(at(6)));
        assert_eq!(turn(&mut notifier, 5, LinkPhase::Online), None);
    }
}
