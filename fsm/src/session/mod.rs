//! The lifecycles of terminal sessions: when one gets SIGHUP, when it is killed, and when its end is reported.
//!
//! A session is a number: it may be opened while another one of the same console id still ends, under a number of its
//! own. Admission is decided before [`Opening`](SessionFact::Opening) is reported here. The times of a drain are the
//! machine's; those of a single session are the constants below.
//!
//! Invariants:
//! - Each session that was opening is answered by exactly one [`FinishSession`](Order::FinishSession), and nothing is
//!   ordered for it afterwards.
//! - A start takes at most [`SESSION_START_TIMEOUT_MS`]. A session that is closed before its shell runs is
//! finished
//!   at once; the host that starts it kills what comes of it.
//! - A closed session is finished at most [`KILL_AFTER_MS`] + [`KILL_TIMEOUT_MS`] later.
//! - [`KillSession`](Order::KillSession) always comes after a [`HangUpSession`](Order::HangUpSession), and never for a
//!   session whose shell exited by itself: what ignores SIGHUP then is left alone.
//! - A session without a deadline is on a link, where a user may use it.
//! - At most [`SESSIONS_MAX`] are not finished.
//!
//! Units: milliseconds. Wire: `terminal:create`, `terminal:close`, `terminal:closed` (CONSOLE.md, "Terminals").

mod lifecycle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::fact::SessionFact;
use crate::id::SessionKey;
use crate::order::{Order, SessionEnd};
use crate::time::Time;
use alloc::vec::Vec;
use lifecycle::{Outcome, Session};
use litemap::LiteMap;

/// Sessions at once: more than a fleet's users ever open on one instance, and each costs descriptors.
pub const SESSIONS_MAX: usize = 256;

/// How long the start of a shell may take: a shell or a home directory on a mount that does not answer would take for
/// ever.
pub const SESSION_START_TIMEOUT_MS: u64 = 10_000;

/// From SIGHUP to SIGKILL: time for an editor to save what it has, short enough for a user who waits.
pub const KILL_AFTER_MS: u64 = 2_000;

/// How long a killed session may take to end. A process in an uninterruptible call is not waited for.
pub const KILL_TIMEOUT_MS: u64 = 500;

/// How long after the exit of its shell a terminal is read on: a background process may hold it open for ever.
pub const OUTPUT_DRAIN_TIMEOUT_MS: u64 = 500;

/// How long a shell may outlive the end of its output before it is hung up, as by a terminal window that closes.
/// Commonly its exit follows at once.
pub const EXIT_AFTER_EOF_TIMEOUT_MS: u64 = 2_000;

/// How long a session waits for a console to re-attach: time for a restart of the console and for a coffee.
pub const ORPHAN_MS: u64 = 600_000;

/// The exit code of a session whose shell did not start in time: as of a command that cannot be executed.
pub const EXIT_NOT_STARTED: i32 = 126;

/// The exit code of a shell that is finished before its own is known: 128 + SIGKILL.
pub const EXIT_KILLED: i32 = 137;

/// The exit code of a shell that was hung up for want of a terminal and went on: 128 + SIGHUP.
pub const EXIT_HUNG_UP: i32 = 129;

/// All sessions of the agent.
#[derive(Clone, Debug, Default, Hash)]
pub struct Sessions {
    sessions: LiteMap<SessionKey, Session>,
    linked: bool,
    draining: bool,
}

impl Sessions {
    /// No session, no link.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one fact about one session. A fact that fits none, or comes too late, changes nothing.
    pub fn handle(&mut self, now: Time, session: SessionKey, fact: &SessionFact, orders: &mut Vec<Order>) {
        match *fact {
            SessionFact::Opening => self.opening(now, session, orders),
            SessionFact::Opened => self.with(session, orders, |session, _| session.opened(now)),
            SessionFact::OpenFailed { exit_code } => {
                self.with(session, orders, |session, _| session.open_failed(exit_code));
            }
            SessionFact::Attached => {
                let orphan_at = self.orphan_at(now);
                self.with(session, orders, |session, _| session.attached(orphan_at));
            }
            SessionFact::CloseRequested => {
                self.with(session, orders, |session, orders| session.end(now, SessionEnd::Closed, orders));
            }
            SessionFact::Exited { code } => self.with(session, orders, |session, _| session.exited(now, code)),
            SessionFact::EndOfOutput => self.with(session, orders, |session, _| session.output_ended(now)),
            SessionFact::Reaped => self.with(session, orders, |session, _| session.reaped(now)),
        }
    }

    /// Lets the deadlines fire that have passed.
    pub fn tick(&mut self, now: Time, orders: &mut Vec<Order>) {
        let is_due = |session: &Session| session.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, session)| is_due(session)).map(|(session, _)| *session).collect();
        for session in due {
            self.with(session, orders, |session, orders| session.expired(now, orders));
        }
    }

    /// When the next tick is due; nothing where no session waits for anything.
    pub fn next_deadline(&self) -> Option<Time> {
        self.sessions.values().filter_map(Session::deadline).min()
    }

    /// Moves every deadline `ms` later: time that the process did not live through does not count.
    pub fn shift_ms(&mut self, ms: u64) {
        for (_, session) in self.sessions.iter_mut() {
            session.shift_ms(ms);
        }
    }

    /// A link is up. An orphan stays one until a console re-attaches.
    pub fn link_up(&mut self, _now: Time) {
        self.linked = true;
    }

    /// The link is gone: from now on no console can see any session.
    pub fn link_down(&mut self, now: Time) {
        self.linked = false;
        for (_, session) in self.sessions.iter_mut() {
            session.abandoned(now.after_ms(ORPHAN_MS));
        }
    }

    /// Draining: hangs up each session that does not end already.
    pub fn drain_hang_up(&mut self, now: Time, orders: &mut Vec<Order>) {
        self.draining = true;
        for session in self.keys() {
            self.with(session, orders, |session, orders| session.end(now, SessionEnd::Drained, orders));
        }
    }

    /// Draining: kills what is left, but not what outlives a shell that exited by itself.
    pub fn drain_kill(&mut self, now: Time, orders: &mut Vec<Order>) {
        for session in self.keys() {
            self.with(session, orders, |session, orders| session.kill(now, orders));
        }
    }

    /// Whether every session is finished.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many sessions are not finished.
    pub fn live(&self) -> usize {
        self.sessions.len()
    }

    /// Whether this session was not used since the link was last lost.
    pub fn is_orphan(&self, session: SessionKey) -> bool {
        self.sessions.get(&session).is_some_and(Session::is_orphan)
    }

    /// Takes over a session that an earlier program opened. It is an orphan in `orphan_in_ms`, or in [`ORPHAN_MS`];
    /// `end` is why it was asked to end, if it was.
    pub fn take_over(&mut self, now: Time, session: SessionKey, orphan_in_ms: Option<u64>, end: Option<SessionEnd>) {
        let orphan_at = now.after_ms(orphan_in_ms.unwrap_or(ORPHAN_MS).min(ORPHAN_MS));
        self.sessions.insert(session, Session::taken_over(now, session, orphan_at, end));
    }

    /// When a session is an orphan, where no console uses it, and why it was asked to end, if it was.
    pub fn to_hand_over(&self, session: SessionKey) -> (Option<Time>, Option<SessionEnd>) {
        self.sessions.get(&session).map_or((None, None), Session::to_hand_over)
    }

    /// Whether the start of a shell is not reported yet.
    pub fn is_starting(&self) -> bool {
        self.sessions.values().any(Session::is_starting)
    }

    /// Whether `session` can be attached to: its shell runs or is being started, and it was not closed.
    pub fn is_usable(&self, session: SessionKey) -> bool {
        self.sessions.get(&session).is_some_and(Session::is_usable)
    }

    fn opening(&mut self, now: Time, session: SessionKey, orders: &mut Vec<Order>) {
        if self.sessions.contains_key(&session) {
            return;
        }
        if self.sessions.len() >= SESSIONS_MAX {
            // Admission should have refused it. Its end is reported all the same, so that the console does not wait.
            let (reason, exit_code) = (SessionEnd::SpawnFailed, EXIT_NOT_STARTED);
            orders.push(Order::FinishSession { session, reason, exit_code });
            return;
        }
        self.sessions.insert(session, Session::new(now, session, self.orphan_at(now)));
        if self.draining {
            self.with(session, orders, |session, orders| session.end(now, SessionEnd::Drained, orders));
        }
    }

    /// When a session that is used now would be an orphan: never, as long as there is a link.
    fn orphan_at(&self, now: Time) -> Option<Time> {
        (!self.linked).then(|| now.after_ms(ORPHAN_MS))
    }

    fn keys(&self) -> Vec<SessionKey> {
        self.sessions.keys().copied().collect()
    }

    /// Changes one session, and finishes it if that was its end.
    fn with(
        &mut self,
        session: SessionKey,
        orders: &mut Vec<Order>,
        change: impl FnOnce(&mut Session, &mut Vec<Order>) -> Outcome,
    ) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        match change(found, orders) {
            Outcome::Continues => {}
            Outcome::Over { reason, exit_code } => {
                self.sessions.remove(&session);
                orders.push(Order::FinishSession { session, reason, exit_code });
            }
        }
    }
}
