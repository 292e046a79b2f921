//! One command from its start to its answer: the deadlines, the signals, and which exit code it reports.
//!
//! It does not answer: it says when the command is over, and how. Each stage has a deadline, and each deadline leads to
//! a later stage, so that a command ends whatever its process does.

use super::{EXIT_CANCELLED, EXIT_KILLED, EXIT_TIMED_OUT, KILL_AFTER_MS, KILL_TIMEOUT_MS, OUTPUT_DRAIN_TIMEOUT_MS};
use crate::id::CommandKey;
use crate::order::{CommandEnd, Order};
use crate::time::Time;
use alloc::vec::Vec;

/// A command whose start was ordered and which is not answered.
#[derive(Clone, Debug, Hash)]
pub(super) struct Command {
    key: CommandKey,
    stage: Stage,
    deadline: Time,
    end: CommandEnd,
    /// What it reports; its own exit code takes the place of this where `end` leaves it that.
    exit_code: i32,
    output_ended: bool,
}

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Its process is being started; the deadline is its time-out.
    Starting,
    /// Its process runs; the deadline is its time-out.
    Running,
    /// It was sent SIGTERM; at the deadline its processes are killed.
    Terminating,
    /// Its processes were killed; at the deadline it is not waited for any longer.
    Killed,
    /// Its process is gone; at the deadline the rest of its output is given up.
    DrainingOutput {
        /// It was asked to end, and what it left behind is still to be killed.
        kill_rest: bool,
    },
}

/// Whether a command goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It does.
    Continues,
    /// It is over, with this result to report.
    Over { end: CommandEnd, exit_code: i32 },
}

impl Command {
    /// A command whose start is ordered now. Its time counts from here, because a start can hang as well.
    pub(super) fn new(now: Time, key: CommandKey, timeout_ms: u64) -> Self {
        Self {
            key,
            stage: Stage::Starting,
            deadline: now.after_ms(timeout_ms),
            end: CommandEnd::Exited,
            exit_code: EXIT_KILLED,
            output_ended: false,
        }
    }

    /// A command that an earlier program started.
    pub(super) fn taken_over(now: Time, key: CommandKey, timeout_ms: u64, end: Option<CommandEnd>) -> Self {
        let command = Self { stage: Stage::Running, ..Self::new(now, key, timeout_ms) };
        let exit_code = match end {
            None => return command,
            Some(CommandEnd::TimedOut) => EXIT_TIMED_OUT,
            Some(CommandEnd::Cancelled) => EXIT_CANCELLED,
            Some(CommandEnd::Exited | CommandEnd::Drained | CommandEnd::Interrupted) => EXIT_KILLED,
        };
        // It got SIGTERM. Whatever its stage was, what is left of it is killed now at the latest.
        let (stage, end) = (Stage::Terminating, end.unwrap_or(CommandEnd::Exited));
        Self { stage, end, exit_code, deadline: now.after_ms(KILL_AFTER_MS), ..command }
    }

    /// Its deadline, and why it was asked to end, if it was.
    pub(super) fn to_hand_over(&self) -> (Time, Option<CommandEnd>) {
        (self.deadline, (self.end != CommandEnd::Exited).then_some(self.end))
    }

    pub(super) fn is_starting(&self) -> bool {
        self.stage == Stage::Starting
    }

    /// When its stage has lasted too long.
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    /// Moves its deadline.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.deadline = self.deadline.after_ms(ms);
    }

    /// Its process runs.
    pub(super) fn started(&mut self) -> Outcome {
        if self.stage == Stage::Starting {
            self.stage = Stage::Running;
        }
        Outcome::Continues
    }

    /// Its process is gone. What it left in its pipes is still read, for a moment.
    pub(super) fn exited(&mut self, now: Time, code: i32, orders: &mut Vec<Order>) -> Outcome {
        let kill_rest = match self.stage {
            Stage::Starting | Stage::Running | Stage::Killed => false,
            Stage::Terminating => true,
            Stage::DrainingOutput { .. } => return Outcome::Continues,
        };
        match self.end {
            CommandEnd::Exited | CommandEnd::Drained => self.exit_code = code,
            CommandEnd::TimedOut | CommandEnd::Cancelled | CommandEnd::Interrupted => {}
        }
        self.stage = Stage::DrainingOutput { kill_rest };
        self.deadline = now.after_ms(OUTPUT_DRAIN_TIMEOUT_MS);
        if self.output_ended { self.over(orders) } else { Outcome::Continues }
    }

    /// The last byte of both its pipes was read.
    pub(super) fn output_ended(&mut self, orders: &mut Vec<Order>) -> Outcome {
        self.output_ended = true;
        match self.stage {
            Stage::Starting | Stage::Running | Stage::Terminating | Stage::Killed => Outcome::Continues,
            Stage::DrainingOutput { .. } => self.over(orders),
        }
    }

    /// Its deadline has passed.
    pub(super) fn expired(&mut self, now: Time, orders: &mut Vec<Order>) -> Outcome {
        match self.stage {
            Stage::Starting | Stage::Running => self.stop(now, CommandEnd::TimedOut, EXIT_TIMED_OUT, orders),
            Stage::Terminating => {
                self.kill(now, orders);
                Outcome::Continues
            }
            Stage::Killed | Stage::DrainingOutput { .. } => self.over(orders),
        }
    }

    /// Asks it to end, unless it was asked already or has ended. One that has not started yet is over: there is no
    /// process to signal.
    pub(super) fn stop(&mut self, now: Time, end: CommandEnd, exit_code: i32, orders: &mut Vec<Order>) -> Outcome {
        match self.stage {
            Stage::Starting => return Outcome::Over { end, exit_code },
            Stage::Running => {}
            Stage::Terminating | Stage::Killed | Stage::DrainingOutput { .. } => return Outcome::Continues,
        }
        self.stage = Stage::Terminating;
        self.deadline = now.after_ms(KILL_AFTER_MS);
        self.end = end;
        self.exit_code = exit_code;
        orders.push(Order::TerminateCommand { command: self.key });
        Outcome::Continues
    }

    /// Kills what is left of it, if it was asked to end.
    pub(super) fn kill(&mut self, now: Time, orders: &mut Vec<Order>) {
        match self.stage {
            Stage::Terminating => {
                self.stage = Stage::Killed;
                self.deadline = now.after_ms(KILL_TIMEOUT_MS);
            }
            Stage::DrainingOutput { kill_rest: true } => self.stage = Stage::DrainingOutput { kill_rest: false },
            Stage::Starting | Stage::Running | Stage::Killed | Stage::DrainingOutput { kill_rest: false } => return,
        }
        orders.push(Order::KillCommand { command: self.key });
    }

    /// Ends it. What a command that was asked to end has left behind is killed before the answer: until then the number
    /// of its session is certainly its own.
    fn over(&mut self, orders: &mut Vec<Order>) -> Outcome {
        if self.stage == (Stage::DrainingOutput { kill_rest: true }) {
            orders.push(Order::KillCommand { command: self.key });
        }
        Outcome::Over { end: self.end, exit_code: self.exit_code }
    }
}
