//! One command from its start to its answer: the deadlines, the signals, and what its exit code becomes.
//!
//! It does not answer: it says when the command is over, and how. Each stage has a deadline, and each deadline leads to
//! a later stage, so that a command ends whatever its process does.

use super::{EXIT_KILLED, EXIT_TIMED_OUT, KILL_AFTER_MS, KILL_PATIENCE_MS, LINGER_MS};
use crate::id::CommandKey;
use crate::order::{CommandEnd, Order};
use crate::time::Time;
use alloc::vec::Vec;

/// A command that was started and is not answered.
#[derive(Clone, Debug)]
pub(super) struct Life {
    command: CommandKey,
    timeout_ms: u64,
    stage: Stage,
    deadline: Time,
    end: CommandEnd,
    /// What to tell; the command's own exit code takes its place unless it was told to end.
    exit_code: i32,
    output_ended: bool,
}

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its process runs; the deadline is its time-out.
    Running,
    /// It was sent SIGTERM; at the deadline its group is killed.
    Stopping,
    /// Its group was killed; at the deadline its process is given up.
    Killed,
    /// Its process is gone; at the deadline its output is given up.
    Lingering {
        /// What is left of its group was killed too, or is to live.
        settled: bool,
    },
}

/// Whether a command goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does.
    Lives,
    /// It does not: this is its result.
    Over { end: CommandEnd, exit_code: i32 },
}

impl Life {
    /// A command that is being started now.
    pub(super) fn new(now: Time, command: CommandKey, timeout_ms: u64) -> Self {
        Self {
            command,
            timeout_ms,
            stage: Stage::Running,
            deadline: now.after_ms(timeout_ms),
            end: CommandEnd::Exited,
            exit_code: EXIT_KILLED,
            output_ended: false,
        }
    }

    /// When its stage has lasted too long.
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    /// Moves its deadline.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.deadline = self.deadline.after_ms(ms);
    }

    /// Its process runs: its time begins to count.
    pub(super) fn started(&mut self, now: Time) {
        if self.stage == Stage::Running {
            self.deadline = now.after_ms(self.timeout_ms);
        }
    }

    /// Its process is gone. What it left in its pipes is still read, for a moment.
    pub(super) fn exited(&mut self, now: Time, code: i32, orders: &mut Vec<Order>) -> Phase {
        let settled = match self.stage {
            Stage::Running => {
                self.exit_code = code;
                true
            }
            Stage::Stopping => false,
            Stage::Killed => true,
            Stage::Lingering { .. } => return Phase::Lives,
        };
        self.stage = Stage::Lingering { settled };
        self.deadline = now.after_ms(LINGER_MS);
        if self.output_ended { self.over(orders) } else { Phase::Lives }
    }

    /// The last byte of both its pipes was read.
    pub(super) fn output_ended(&mut self, orders: &mut Vec<Order>) -> Phase {
        self.output_ended = true;
        match self.stage {
            Stage::Running | Stage::Stopping | Stage::Killed => Phase::Lives,
            Stage::Lingering { .. } => self.over(orders),
        }
    }

    /// Its deadline has passed.
    pub(super) fn expired(&mut self, now: Time, orders: &mut Vec<Order>) -> Phase {
        match self.stage {
            Stage::Running => {
                self.stop(now, CommandEnd::TimedOut, EXIT_TIMED_OUT, orders);
                Phase::Lives
            }
            Stage::Stopping => {
                self.kill(now, orders);
                Phase::Lives
            }
            Stage::Killed | Stage::Lingering { .. } => self.over(orders),
        }
    }

    /// Tells it to end, unless it was told so or has ended.
    pub(super) fn stop(&mut self, now: Time, end: CommandEnd, exit_code: i32, orders: &mut Vec<Order>) {
        if self.stage == Stage::Running {
            self.stage = Stage::Stopping;
            self.deadline = now.after_ms(KILL_AFTER_MS);
            self.end = end;
            self.exit_code = exit_code;
            orders.push(Order::TerminateCommand { command: self.command });
        }
    }

    /// Kills its group, if it was told to end and that did not help yet.
    pub(super) fn kill(&mut self, now: Time, orders: &mut Vec<Order>) {
        match self.stage {
            Stage::Stopping => {
                self.stage = Stage::Killed;
                self.deadline = now.after_ms(KILL_PATIENCE_MS);
                if self.end == CommandEnd::Drained {
                    self.exit_code = EXIT_KILLED;
                }
            }
            Stage::Lingering { settled: false } => {
                self.stage = Stage::Lingering { settled: true };
            }
            Stage::Running | Stage::Killed | Stage::Lingering { settled: true } => return,
        }
        orders.push(Order::KillCommand { command: self.command });
    }

    /// Ends it. Once a command that was told to end is gone itself, what remains of its group goes with it: the
    /// group's number is certainly its own only until the answer.
    fn over(&mut self, orders: &mut Vec<Order>) -> Phase {
        if self.stage == (Stage::Lingering { settled: false }) {
            orders.push(Order::KillCommand { command: self.command });
        }
        Phase::Over { end: self.end, exit_code: self.exit_code }
    }
}
