//! One session from its start to its end: the stages, their deadlines, the signals.
//!
//! It does not finish the session: it says when it is over, and how. Every stage but [`Stage::Running`] has a deadline,
//! and each deadline leads to a later stage, so that a closed session ends, whatever its processes do.

use super::{
    EXIT_AFTER_EOF_TIMEOUT_MS, EXIT_HUNG_UP, EXIT_KILLED, EXIT_NOT_STARTED, KILL_AFTER_MS, KILL_TIMEOUT_MS,
    OUTPUT_DRAIN_TIMEOUT_MS, SESSION_START_TIMEOUT_MS,
};
use crate::id::SessionKey;
use crate::order::{Order, SessionEnd};
use crate::time::Time;
use alloc::vec::Vec;

/// A session that is not finished.
#[derive(Clone, Debug, Hash)]
pub(super) struct Session {
    key: SessionKey,
    stage: Stage,
    /// When it ends because no console re-attached; `None` while it is in use.
    orphan_at: Option<Time>,
    /// The exit code of its shell, once that is gone.
    exit_code: Option<i32>,
    output_ended: bool,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Its shell is being started; at the deadline the start has failed.
    Starting(Time),
    /// Its shell runs.
    Running,
    /// Its shell runs, but no process has the terminal open any more; at the deadline it is hung up.
    OutputClosed(Time),
    /// It was hung up for that; at the deadline the session is over.
    OutputClosedHungUp(Time),
    /// Its shell exited by itself; at the deadline the rest of its output is given up.
    DrainingOutput(Time),
    /// It was closed and got SIGHUP; at the deadline its remaining processes are killed.
    HungUp(SessionEnd, Time),
    /// It was closed, and its processes are gone or were killed; at the deadline the rest of its output,
    /// and a process that does not end, are given up.
    Terminating(SessionEnd, Time),
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It does.
    Continues,
    /// It is over, with this end to report.
    Over { reason: SessionEnd, exit_code: i32 },
}

impl Session {
    /// A session whose shell is being started.
    pub(super) const fn new(now: Time, key: SessionKey, orphan_at: Option<Time>) -> Self {
        let stage = Stage::Starting(now.after_ms(SESSION_START_TIMEOUT_MS));
        Self { key, stage, orphan_at, exit_code: None, output_ended: false }
    }

    /// A session that an earlier program opened.
    pub(super) const fn taken_over(now: Time, key: SessionKey, orphan_at: Time, end: Option<SessionEnd>) -> Self {
        let stage = match end {
            None => Stage::Running,
            // It got SIGHUP. Whatever its stage was, what is left of it is killed now at the latest.
            Some(end) => Stage::HungUp(end, now.after_ms(KILL_AFTER_MS)),
        };
        Self { key, stage, orphan_at: Some(orphan_at), exit_code: None, output_ended: false }
    }

    /// When it is an orphan, where no console uses it, and why it was asked to end, if it was.
    pub(super) const fn to_hand_over(&self) -> (Option<Time>, Option<SessionEnd>) {
        let end = match self.stage {
            Stage::Starting(_)
            | Stage::Running
            | Stage::OutputClosed(_)
            | Stage::OutputClosedHungUp(_)
            | Stage::DrainingOutput(_) => None,
            Stage::HungUp(end, _) | Stage::Terminating(end, _) => Some(end),
        };
        (self.orphan_at, end)
    }

    pub(super) const fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting(_))
    }

    /// When it wants a tick.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Running => self.orphan_at,
            Stage::Starting(at)
            | Stage::OutputClosed(at)
            | Stage::OutputClosedHungUp(at)
            | Stage::DrainingOutput(at)
            | Stage::HungUp(_, at)
            | Stage::Terminating(_, at) => Some(at),
        }
    }

    /// Moves its deadlines.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.orphan_at = self.orphan_at.map(|at| at.after_ms(ms));
        match &mut self.stage {
            Stage::Running => {}
            Stage::Starting(at)
            | Stage::OutputClosed(at)
            | Stage::OutputClosedHungUp(at)
            | Stage::DrainingOutput(at)
            | Stage::HungUp(_, at)
            | Stage::Terminating(_, at) => *at = at.after_ms(ms),
        }
    }

    pub(super) const fn is_orphan(&self) -> bool {
        self.orphan_at.is_some()
    }

    /// Whether its shell takes input: it was not closed and has not exited.
    pub(super) const fn is_usable(&self) -> bool {
        match self.stage {
            Stage::Starting(_) | Stage::Running | Stage::OutputClosed(_) => true,
            Stage::OutputClosedHungUp(_) | Stage::DrainingOutput(_) | Stage::HungUp(..) | Stage::Terminating(..) => {
                false
            }
        }
    }

    /// Its shell runs.
    pub(super) fn opened(&mut self, now: Time) -> Outcome {
        if let Stage::Starting(_) = self.stage {
            self.stage = Stage::Running;
            if self.output_ended {
                return self.output_ended(now);
            }
        }
        Outcome::Continues
    }

    /// Its shell could not be started.
    pub(super) fn open_failed(&mut self, exit_code: i32) -> Outcome {
        match self.stage {
            Stage::Starting(_) => Outcome::Over { reason: SessionEnd::SpawnFailed, exit_code },
            Stage::Running
            | Stage::OutputClosed(_)
            | Stage::OutputClosedHungUp(_)
            | Stage::DrainingOutput(_)
            | Stage::HungUp(..)
            | Stage::Terminating(..) => Outcome::Continues,
        }
    }

    /// It is in use; `orphan_at` if the link is gone again already.
    pub(super) fn attached(&mut self, orphan_at: Option<Time>) -> Outcome {
        self.orphan_at = orphan_at;
        Outcome::Continues
    }

    /// The link is gone, so no console can use it. A clock that runs already runs on.
    pub(super) fn abandoned(&mut self, orphan_at: Time) {
        self.orphan_at.get_or_insert(orphan_at);
    }

    /// It is to end, unless it does already.
    pub(super) fn end(&mut self, now: Time, reason: SessionEnd, orders: &mut Vec<Order>) -> Outcome {
        match self.stage {
            // There is no process yet to signal.
            Stage::Starting(_) => return self.over(reason, EXIT_KILLED),
            Stage::Running | Stage::OutputClosed(_) => orders.push(Order::HangUpSession { session: self.key }),
            Stage::OutputClosedHungUp(_) => {}
            Stage::DrainingOutput(_) | Stage::HungUp(..) | Stage::Terminating(..) => return Outcome::Continues,
        }
        self.stage = Stage::HungUp(reason, now.after_ms(KILL_AFTER_MS));
        Outcome::Continues
    }

    /// Kills its remaining processes, if it was closed.
    pub(super) fn kill(&mut self, now: Time, orders: &mut Vec<Order>) -> Outcome {
        let Stage::HungUp(reason, _) = self.stage else {
            return Outcome::Continues;
        };
        orders.push(Order::KillSession { session: self.key });
        self.stage = Stage::Terminating(reason, now.after_ms(KILL_TIMEOUT_MS));
        self.outcome()
    }

    /// Its shell is gone.
    pub(super) fn exited(&mut self, now: Time, code: i32) -> Outcome {
        self.exit_code.get_or_insert(code);
        match self.stage {
            Stage::Starting(_) | Stage::Running | Stage::OutputClosed(_) | Stage::OutputClosedHungUp(_) => {
                self.stage = Stage::DrainingOutput(now.after_ms(OUTPUT_DRAIN_TIMEOUT_MS));
            }
            Stage::DrainingOutput(_) | Stage::HungUp(..) | Stage::Terminating(..) => {}
        }
        self.outcome()
    }

    /// The last byte of its terminal was read.
    pub(super) fn output_ended(&mut self, now: Time) -> Outcome {
        self.output_ended = true;
        if self.stage == Stage::Running {
            self.stage = Stage::OutputClosed(now.after_ms(EXIT_AFTER_EOF_TIMEOUT_MS));
        }
        self.outcome()
    }

    /// No process of it is left; reported only of a closed session.
    pub(super) fn reaped(&mut self, now: Time) -> Outcome {
        if let Stage::HungUp(reason, _) = self.stage {
            self.stage = Stage::Terminating(reason, now.after_ms(OUTPUT_DRAIN_TIMEOUT_MS));
        }
        self.outcome()
    }

    /// Its deadline has passed.
    pub(super) fn expired(&mut self, now: Time, orders: &mut Vec<Order>) -> Outcome {
        match self.stage {
            Stage::Starting(_) => self.open_failed(EXIT_NOT_STARTED),
            Stage::Running => self.end(now, SessionEnd::Orphaned, orders),
            Stage::OutputClosed(_) => {
                orders.push(Order::HangUpSession { session: self.key });
                self.stage = Stage::OutputClosedHungUp(now.after_ms(KILL_AFTER_MS));
                Outcome::Continues
            }
            // What ignores that is left alone, as a program is that was started to outlive its terminal.
            Stage::OutputClosedHungUp(_) => self.over(SessionEnd::Exited, EXIT_HUNG_UP),
            Stage::DrainingOutput(_) => self.over(SessionEnd::Exited, EXIT_KILLED),
            Stage::HungUp(..) => self.kill(now, orders),
            Stage::Terminating(reason, _) => self.over(reason, EXIT_KILLED),
        }
    }

    /// Over once its shell is gone and its last byte is read, in the stages that wait for nothing else.
    fn outcome(&self) -> Outcome {
        let done = self.exit_code.is_some() && self.output_ended;
        match self.stage {
            Stage::DrainingOutput(_) if done => self.over(SessionEnd::Exited, EXIT_KILLED),
            Stage::Terminating(reason, _) if done => self.over(reason, EXIT_KILLED),
            Stage::Starting(_)
            | Stage::Running
            | Stage::OutputClosed(_)
            | Stage::OutputClosedHungUp(_)
            | Stage::DrainingOutput(_)
            | Stage::HungUp(..)
            | Stage::Terminating(..) => Outcome::Continues,
        }
    }

    fn over(&self, reason: SessionEnd, exit_code_unless_known: i32) -> Outcome {
        Outcome::Over { reason, exit_code: self.exit_code.unwrap_or(exit_code_unless_known) }
    }
}
