//! The lifecycles of terminal sessions: when one is told to end, when it is killed, and when its end is told.
//!
//! It opens nothing, reads nothing and knows no id: a session is a number, and its output is the ledger's and the
//! terminal's. Who may open one is decided before it is told here. The times of a drain are the machine's; those of a
//! single session are the constants below.
//!
//! Invariants:
//! - Each session that was opened is answered by exactly one [`FinishSession`](Order::FinishSession), and nothing is
//!   ordered for it afterwards.
//! - A session that was told to end is finished at most [`KILL_AFTER_MS`] + [`KILL_PATIENCE_MS`] later.
//! - [`KillSession`](Order::KillSession) always comes after a [`HangUpSession`](Order::HangUpSession), and never for a
//!   session whose shell exited by itself: what ignores SIGHUP then is left alone.
//! - A session without a deadline has somebody who looks at it, or could.
//! - At most [`SESSIONS_MAX`] live.
//!
//! Units: milliseconds. Wire: `terminal:create`, `terminal:close`, `terminal:closed` (wire.md, part A and B).

mod life;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::fact::SessionFact;
use crate::id::SessionKey;
use crate::order::{Order, SessionEnd};
use crate::time::Time;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use life::{Life, Verdict};

/// Sessions that live at once: more than a fleet's users ever open on one instance, and each costs descriptors.
pub const SESSIONS_MAX: usize = 256;

/// From SIGHUP to SIGKILL: time for an editor to save what it has, short enough for a user who waits.
pub const KILL_AFTER_MS: u64 = 2_000;

/// How long a killed session may take to go. A process that sits in an uninterruptible call is not waited for.
pub const KILL_PATIENCE_MS: u64 = 500;

/// How long after the exit of its shell a terminal is read on: a background process may hold it open for ever.
pub const LINGER_MS: u64 = 500;

/// How long a shell may outlive the end of its output before it is hung up, as by a terminal window that closes.
/// Commonly its exit follows at once.
pub const MUTE_MS: u64 = 2_000;

/// How long a session waits for somebody to come back to it: time for a restart of the console and for a coffee.
pub const ORPHAN_MS: u64 = 600_000;

/// The exit code of a shell that is finished before its own is known: 128 + SIGKILL.
pub const EXIT_KILLED: i32 = 137;

/// The exit code of a shell that was hung up for want of a terminal and went on: 128 + SIGHUP.
pub const EXIT_HUNG_UP: i32 = 129;

/// All sessions of the agent.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    lives: BTreeMap<SessionKey, Life>,
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
            SessionFact::Opening | SessionFact::Opened => self.opened(now, session, orders),
            SessionFact::OpenFailed { exit_code } => {
                if self.lives.remove(&session).is_some() {
                    orders.push(Order::FinishSession { session, reason: SessionEnd::SpawnFailed, exit_code });
                }
            }
            SessionFact::Attached => {
                let orphan_at = self.orphan_at(now);
                self.with(session, orders, |life, _| life.attached(orphan_at));
            }
            SessionFact::CloseRequested => {
                self.with(session, orders, |life, orders| life.end(now, SessionEnd::Closed, orders));
            }
            SessionFact::Exited { code } => self.with(session, orders, |life, _| life.exited(now, code)),
            SessionFact::EndOfOutput => self.with(session, orders, |life, _| life.output_ended(now)),
            SessionFact::Reaped => self.with(session, orders, |life, _| life.reaped(now)),
        }
    }

    /// Lets the deadlines fire that have passed.
    pub fn tick(&mut self, now: Time, orders: &mut Vec<Order>) {
        let is_due = |life: &Life| life.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<SessionKey> =
            self.lives.iter().filter(|(_, life)| is_due(life)).map(|(session, _)| *session).collect();
        for session in due {
            self.with(session, orders, |life, orders| life.expired(now, orders));
        }
    }

    /// When the next tick is due; nothing where no session waits for anything.
    pub fn next_deadline(&self) -> Option<Time> {
        self.lives.values().filter_map(Life::deadline).min()
    }

    /// Moves every deadline `ms` later: time that the process did not live through does not count.
    pub fn shift_ms(&mut self, ms: u64) {
        for life in self.lives.values_mut() {
            life.shift_ms(ms);
        }
    }

    /// A link is up. Who was an orphan stays one until somebody comes back to it.
    pub fn link_up(&mut self, _now: Time) {
        self.linked = true;
    }

    /// The link is gone: from now on nobody can look at any session.
    pub fn link_down(&mut self, now: Time) {
        self.linked = false;
        for life in self.lives.values_mut() {
            life.abandoned(now.after_ms(ORPHAN_MS));
        }
    }

    /// Draining: hangs up whatever does not end already.
    pub fn drain_hang_up(&mut self, now: Time, orders: &mut Vec<Order>) {
        self.draining = true;
        for session in self.keys() {
            self.with(session, orders, |life, orders| life.end(now, SessionEnd::Drained, orders));
        }
    }

    /// Draining: kills what is left, but not what outlives a shell that exited by itself.
    pub fn drain_kill(&mut self, now: Time, orders: &mut Vec<Order>) {
        for session in self.keys() {
            self.with(session, orders, |life, orders| life.kill(now, orders));
        }
    }

    /// Does no session live?
    pub fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }

    /// How many sessions live.
    pub fn live(&self) -> usize {
        self.lives.len()
    }

    /// Does this session wait for somebody to come back to it?
    pub fn is_orphan(&self, session: SessionKey) -> bool {
        self.lives.get(&session).is_some_and(Life::is_orphan)
    }

    fn opened(&mut self, now: Time, session: SessionKey, orders: &mut Vec<Order>) {
        if self.lives.contains_key(&session) {
            return;
        }
        if self.lives.len() >= SESSIONS_MAX {
            // Whoever opened it had to look first. Its end is told all the same, so that nobody waits for it.
            orders.extend([
                Order::HangUpSession { session },
                Order::KillSession { session },
                Order::FinishSession { session, reason: SessionEnd::Closed, exit_code: EXIT_KILLED },
            ]);
            return;
        }
        self.lives.insert(session, Life::new(session, self.orphan_at(now)));
        if self.draining {
            self.with(session, orders, |life, orders| life.end(now, SessionEnd::Drained, orders));
        }
    }

    /// When a session that is used now would be an orphan: never, as long as there is a link.
    fn orphan_at(&self, now: Time) -> Option<Time> {
        (!self.linked).then(|| now.after_ms(ORPHAN_MS))
    }

    fn keys(&self) -> Vec<SessionKey> {
        self.lives.keys().copied().collect()
    }

    /// Changes one session, and finishes it if that was its end.
    fn with(
        &mut self,
        session: SessionKey,
        orders: &mut Vec<Order>,
        change: impl FnOnce(&mut Life, &mut Vec<Order>) -> Verdict,
    ) {
        let Some(life) = self.lives.get_mut(&session) else { return };
        match change(life, orders) {
            Verdict::GoesOn => {}
            Verdict::Over { reason, exit_code } => {
                self.lives.remove(&session);
                orders.push(Order::FinishSession { session, reason, exit_code });
            }
        }
    }
}
