//! One session from its opening to its end: the stages, their deadlines, the signals.
//!
//! It does not answer: it says when the session is over, and how. Every stage but the first has a deadline, and each
//! deadline leads to a later stage, so that a session which is told to end does, whatever its processes do.

use super::{EXIT_HUNG_UP, EXIT_KILLED, KILL_AFTER_MS, KILL_PATIENCE_MS, LINGER_MS, MUTE_MS};
use crate::id::SessionKey;
use crate::order::{Order, SessionEnd};
use crate::time::Time;
use alloc::vec::Vec;

/// A session that was opened and is not finished.
#[derive(Clone, Debug)]
pub(super) struct Life {
    session: SessionKey,
    stage: Stage,
    /// When nobody will have come back to it; `None` while somebody is there.
    orphan_at: Option<Time>,
    /// The exit code of its shell, once that is gone.
    exit_code: Option<i32>,
    output_ended: bool,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its shell runs.
    Lives,
    /// Its shell runs, but nobody has the terminal open any more; at the deadline it is hung up.
    Mute(Time),
    /// It was hung up for that; at the deadline it is let go.
    MuteHungUp(Time),
    /// Its shell exited by itself; at the deadline its output is given up.
    Lingers(Time),
    /// It was told to end and hung up; at the deadline whatever is left is killed.
    HungUp(SessionEnd, Time),
    /// It was told to end, and either nothing of it is left or that was killed; at the deadline the rest of its output,
    /// and a process that will not go, are given up.
    Settles(SessionEnd, Time),
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does.
    GoesOn,
    /// It does not: this is to be told.
    Over { reason: SessionEnd, exit_code: i32 },
}

impl Life {
    /// A session whose shell runs.
    pub(super) const fn new(session: SessionKey, orphan_at: Option<Time>) -> Self {
        Self { session, stage: Stage::Lives, orphan_at, exit_code: None, output_ended: false }
    }

    /// When it wants a tick.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Lives => self.orphan_at,
            Stage::Mute(at)
            | Stage::MuteHungUp(at)
            | Stage::Lingers(at)
            | Stage::HungUp(_, at)
            | Stage::Settles(_, at) => Some(at),
        }
    }

    /// Moves its deadlines.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.orphan_at = self.orphan_at.map(|at| at.after_ms(ms));
        match &mut self.stage {
            Stage::Lives => {}
            Stage::Mute(at)
            | Stage::MuteHungUp(at)
            | Stage::Lingers(at)
            | Stage::HungUp(_, at)
            | Stage::Settles(_, at) => *at = at.after_ms(ms),
        }
    }

    pub(super) const fn is_orphan(&self) -> bool {
        self.orphan_at.is_some()
    }

    /// Somebody uses it; `orphan_at` where the link is gone again already.
    pub(super) fn attached(&mut self, orphan_at: Option<Time>) -> Verdict {
        self.orphan_at = orphan_at;
        Verdict::GoesOn
    }

    /// Nobody can look at it. A clock that runs already runs on.
    pub(super) fn abandoned(&mut self, orphan_at: Time) {
        self.orphan_at.get_or_insert(orphan_at);
    }

    /// It is to end, unless it does already.
    pub(super) fn end(&mut self, now: Time, reason: SessionEnd, orders: &mut Vec<Order>) -> Verdict {
        match self.stage {
            Stage::Lives | Stage::Mute(_) => orders.push(Order::HangUpSession { session: self.session }),
            Stage::MuteHungUp(_) => {}
            Stage::Lingers(_) | Stage::HungUp(..) | Stage::Settles(..) => return Verdict::GoesOn,
        }
        self.stage = Stage::HungUp(reason, now.after_ms(KILL_AFTER_MS));
        Verdict::GoesOn
    }

    /// Kills whatever is left, if it was told to end.
    pub(super) fn kill(&mut self, now: Time, orders: &mut Vec<Order>) -> Verdict {
        let Stage::HungUp(reason, _) = self.stage else {
            return Verdict::GoesOn;
        };
        orders.push(Order::KillSession { session: self.session });
        self.stage = Stage::Settles(reason, now.after_ms(KILL_PATIENCE_MS));
        self.is_over()
    }

    /// Its shell is gone.
    pub(super) fn exited(&mut self, now: Time, code: i32) -> Verdict {
        self.exit_code.get_or_insert(code);
        if let Stage::Lives | Stage::Mute(_) | Stage::MuteHungUp(_) = self.stage {
            self.stage = Stage::Lingers(now.after_ms(LINGER_MS));
        }
        self.is_over()
    }

    /// The last byte of its terminal was read.
    pub(super) fn output_ended(&mut self, now: Time) -> Verdict {
        self.output_ended = true;
        if self.stage == Stage::Lives {
            self.stage = Stage::Mute(now.after_ms(MUTE_MS));
        }
        self.is_over()
    }

    /// No process of it is left, which is told only of one that was told to end.
    pub(super) fn reaped(&mut self, now: Time) -> Verdict {
        if let Stage::HungUp(reason, _) = self.stage {
            self.stage = Stage::Settles(reason, now.after_ms(LINGER_MS));
        }
        self.is_over()
    }

    /// Its deadline has passed.
    pub(super) fn expired(&mut self, now: Time, orders: &mut Vec<Order>) -> Verdict {
        match self.stage {
            Stage::Lives => self.end(now, SessionEnd::Orphaned, orders),
            Stage::Mute(_) => {
                orders.push(Order::HangUpSession { session: self.session });
                self.stage = Stage::MuteHungUp(now.after_ms(KILL_AFTER_MS));
                Verdict::GoesOn
            }
            // What ignores that is left alone, as a program is that was started to outlive its terminal.
            Stage::MuteHungUp(_) => self.over(SessionEnd::Exited, EXIT_HUNG_UP),
            Stage::Lingers(_) => self.over(SessionEnd::Exited, EXIT_KILLED),
            Stage::HungUp(..) => self.kill(now, orders),
            Stage::Settles(reason, _) => self.over(reason, EXIT_KILLED),
        }
    }

    /// Is there nothing more to wait for?
    fn is_over(&self) -> Verdict {
        match self.stage {
            Stage::Lingers(_) if self.is_silent() => self.over(SessionEnd::Exited, EXIT_KILLED),
            Stage::Settles(reason, _) if self.is_silent() => self.over(reason, EXIT_KILLED),
            Stage::Lives
            | Stage::Mute(_)
            | Stage::MuteHungUp(_)
            | Stage::Lingers(_)
            | Stage::HungUp(..)
            | Stage::Settles(..) => Verdict::GoesOn,
        }
    }

    /// Its shell is gone, and its last byte is read.
    fn is_silent(&self) -> bool {
        self.exit_code.is_some() && self.output_ended
    }

    fn over(&self, reason: SessionEnd, exit_code_unless_known: i32) -> Verdict {
        Verdict::Over { reason, exit_code: self.exit_code.unwrap_or(exit_code_unless_known) }
    }
}
