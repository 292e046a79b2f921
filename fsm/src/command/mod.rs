//! The lifecycles of one-off commands: when one starts, when it is asked to end, and when its result is reported.
//!
//! A command is a number, its id a 128-bit hash, its result what the agent keeps for that number. The hash decides
//! whether a dispatch is a repeat, so the agent keys it with random bits. The probability that two remembered ids have
//! one hash is below 2⁻⁹⁹.
//!
//! Invariants:
//! - Each requested command is answered by exactly one order: [`FinishCommand`](Order::FinishCommand),
//!   [`RefuseCommand`](Order::RefuseCommand) or [`RepeatResult`](Order::RepeatResult). One exception: the repeat of a
//!   command that waits or runs is answered by that one's result, and no order ever names it.
//! - Nothing is ordered for a command after its answer but [`ForgetResult`](Order::ForgetResult).
//! - At most [`RUNNING_MAX`] run, at most [`WAITING_MAX`] wait, in the order in which they came.
//! - A command whose start was ordered always has a deadline. Its time-out counts from that order.
//! - A command that was asked to end before it had started is answered at once; the caller that starts it kills what
//!   comes of
//! it.
//! - A command that had started and was asked to end is answered only after what is left of it was killed.
//!
//! Units: milliseconds. Wire: `command:dispatch`, `command:cancel`, `command:result` (CONSOLE.md, "Commands").

mod lifecycle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::delivery::dedupe::{Dedupe, Verdict};
use crate::fact::CommandFact;
use crate::id::CommandKey;
use crate::order::{CommandEnd, Order, Refusal};
use crate::time::Time;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use lifecycle::{Command, Outcome};
use litemap::LiteMap;

/// Commands at once. More would compete with each other, and with what the machine is for.
pub const RUNNING_MAX: usize = 16;

/// Commands that wait for one of those. Beyond it the console is answered at once, rather than after minutes.
pub const WAITING_MAX: usize = 256;

/// How long a command may run where its payload does not say, as the production console assumes.
pub const TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// The longest that a command may run, whatever its payload says: what needs more than an hour is no command.
pub const TIMEOUT_MAX_MS: u64 = 3_600_000;

/// From SIGTERM to SIGKILL: time to remove temporary files, short enough for the console, which waits 5 s.
pub const KILL_AFTER_MS: u64 = 2_000;

/// How long after the exit of a command its pipes are read on: a background child may hold them open for ever.
pub const OUTPUT_DRAIN_TIMEOUT_MS: u64 = 500;

/// How long a killed process may take to end. One in an uninterruptible call is not waited for.
pub const KILL_TIMEOUT_MS: u64 = 500;

/// The exit code of a command that ran out of time, as of timeout(1).
pub const EXIT_TIMED_OUT: i32 = 124;

/// The exit code of a cancelled command: 128 + SIGINT.
pub const EXIT_CANCELLED: i32 = 130;

/// The exit code that stands for a command which could not be started, unless the agent knows better.
pub const EXIT_NOT_STARTED: i32 = 127;

/// The exit code of a command that ended without one that is known: 128 + SIGKILL.
pub const EXIT_KILLED: i32 = 137;

/// All commands of the agent.
#[derive(Clone, Debug, Hash)]
pub struct Commands {
    running: LiteMap<CommandKey, Command>,
    waiting: VecDeque<Waiting>,
    past: Dedupe,
    room: bool,
    draining: bool,
}

/// A command that has not been started.
#[derive(Clone, Copy, Debug, Hash)]
struct Waiting {
    command: CommandKey,
    timeout_ms: u64,
}

impl Default for Commands {
    fn default() -> Self {
        Self { running: LiteMap::new(), waiting: VecDeque::new(), past: Dedupe::new(), room: true, draining: false }
    }
}

impl Commands {
    /// Takes one fact about one command. A fact that fits none, or comes too late, changes nothing.
    pub fn handle(&mut self, now: Time, command: CommandKey, fact: &CommandFact, orders: &mut Vec<Order>) {
        match *fact {
            CommandFact::Requested { id_hash, timeout_ms } => self.request(now, command, id_hash, timeout_ms, orders),
            CommandFact::Started => self.with(command, orders, |command, _| command.started()),
            CommandFact::Failed => {
                self.with(command, orders, |_, _| Outcome::Over {
                    end: CommandEnd::Exited,
                    exit_code: EXIT_NOT_STARTED,
                });
            }
            CommandFact::Exited { code } => {
                self.with(command, orders, |command, orders| command.exited(now, code, orders));
            }
            CommandFact::EndOfOutput => {
                self.with(command, orders, Command::output_ended);
            }
            CommandFact::CancelRequested => self.cancel(now, command, orders),
            CommandFact::Answered { bytes } => {
                self.past.set_result_size(command, usize::try_from(bytes).unwrap_or(usize::MAX));
                self.forget_results(orders);
            }
        }
        self.start_waiting(now, orders);
    }

    /// Lets the deadlines fire that have passed.
    pub fn tick(&mut self, now: Time, orders: &mut Vec<Order>) {
        let due: Vec<CommandKey> =
            self.running.iter().filter(|(_, command)| command.deadline() <= now).map(|(command, _)| *command).collect();
        for command in due {
            self.with(command, orders, |command, orders| command.expired(now, orders));
        }
        self.start_waiting(now, orders);
    }

    /// When the next tick is due; `None` where no command runs.
    pub fn next_deadline(&self) -> Option<Time> {
        self.running.values().map(Command::deadline).min()
    }

    /// Moves every deadline `ms` later: time that the process did not live through does not count.
    pub fn shift_ms(&mut self, ms: u64) {
        for (_, command) in self.running.iter_mut() {
            command.shift_ms(ms);
        }
    }

    /// Says whether another result could be held. Where it could not, no command is taken; those that wait were taken
    /// while there was room for theirs, and are started.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Starts no command any more: those that wait, and those that come, are refused.
    pub fn drain_begin(&mut self, orders: &mut Vec<Order>) {
        self.draining = true;
        for waiting in core::mem::take(&mut self.waiting) {
            self.past.withdrawn(waiting.command);
            orders.push(Order::RefuseCommand { command: waiting.command, refusal: Refusal::Draining });
        }
    }

    /// Asks every command to end that was not asked before.
    pub fn drain_terminate(&mut self, now: Time, orders: &mut Vec<Order>) {
        for key in self.keys() {
            self.with(key, orders, |command, orders| command.stop(now, CommandEnd::Drained, EXIT_KILLED, orders));
        }
        self.start_waiting(now, orders);
    }

    /// Kills what is left of every command that was asked to end, or runs.
    pub fn drain_kill(&mut self, now: Time, orders: &mut Vec<Order>) {
        self.drain_terminate(now, orders);
        for (_, command) in self.running.iter_mut() {
            command.kill(now, orders);
        }
    }

    /// Whether every command that was requested is answered.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The command that waits or runs under this hash of its id.
    pub fn live(&self, id_hash: u128) -> Option<CommandKey> {
        match self.past.verdict(id_hash) {
            Verdict::Running(command) => Some(command),
            Verdict::New | Verdict::Ended(_) | Verdict::Forgotten => None,
        }
    }

    /// An earlier process ran the id with this hash. With a key the result is remembered for repeats under it.
    pub fn restore(&mut self, id_hash: u128, command: Option<CommandKey>) {
        match command {
            Some(command) if self.past.verdict(id_hash) == Verdict::New => {
                self.past.accepted(id_hash, command);
                self.past.ended(command, 0);
            }
            Some(_) | None => self.past.restored(id_hash),
        }
    }

    /// Takes over a command that an earlier program started, with the time that it has left. `end` is why it was asked
    /// to end, if it was. False for one whose id is known.
    pub fn take_over(
        &mut self,
        now: Time,
        command: CommandKey,
        id_hash: u128,
        timeout_ms: u64,
        end: Option<CommandEnd>,
    ) -> bool {
        let is_new = self.past.verdict(id_hash) == Verdict::New && !self.contains(command);
        if is_new {
            self.past.accepted(id_hash, command);
            self.running.insert(command, Command::taken_over(now, command, timeout_ms, end));
        }
        is_new
    }

    /// Takes over a command that an earlier program accepted and did not start. False for one whose id is known.
    pub fn take_over_waiting(&mut self, command: CommandKey, id_hash: u128, timeout_ms: u64) -> bool {
        let is_new = self.past.verdict(id_hash) == Verdict::New && !self.contains(command);
        if is_new {
            self.past.accepted(id_hash, command);
            self.waiting.push_back(Waiting { command, timeout_ms: effective_timeout_ms(timeout_ms) });
        }
        is_new
    }

    /// The deadline of a command that runs, and why it was asked to end, if it was.
    pub fn to_hand_over(&self, command: CommandKey) -> Option<(Time, Option<CommandEnd>)> {
        self.running.get(&command).map(Command::to_hand_over)
    }

    /// Those that wait, and their time-outs, in order.
    pub fn all_waiting(&self) -> impl Iterator<Item = (CommandKey, u64)> {
        self.waiting.iter().map(|waiting| (waiting.command, waiting.timeout_ms))
    }

    /// Whether the start of one was ordered and is not reported.
    pub fn is_starting(&self) -> bool {
        self.running.values().any(Command::is_starting)
    }

    /// Which commands ran before.
    pub const fn past(&self) -> &Dedupe {
        &self.past
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn request(&mut self, now: Time, command: CommandKey, id_hash: u128, timeout_ms: u64, orders: &mut Vec<Order>) {
        if self.contains(command) {
            return;
        }
        match self.past.verdict(id_hash) {
            Verdict::Running(_) => {}
            Verdict::Ended(of) => orders.push(Order::RepeatResult { command, of }),
            Verdict::Forgotten => orders.push(Order::RefuseCommand { command, refusal: Refusal::Forgotten }),
            Verdict::New => match self.refusal() {
                Some(refusal) => orders.push(Order::RefuseCommand { command, refusal }),
                None => {
                    self.past.accepted(id_hash, command);
                    self.waiting.push_back(Waiting { command, timeout_ms: effective_timeout_ms(timeout_ms) });
                    self.start_waiting(now, orders);
                }
            },
        }
    }

    /// Why a new command cannot be taken now.
    fn refusal(&self) -> Option<Refusal> {
        if self.draining {
            Some(Refusal::Draining)
        } else if !self.room || self.waiting.len() >= WAITING_MAX {
            Some(Refusal::Busy)
        } else {
            None
        }
    }

    fn can_start(&self) -> bool {
        !self.draining && self.running.len() < RUNNING_MAX
    }

    fn start_waiting(&mut self, now: Time, orders: &mut Vec<Order>) {
        while self.can_start() {
            let Some(next) = self.waiting.pop_front() else {
                return;
            };
            self.running.insert(next.command, Command::new(now, next.command, next.timeout_ms));
            orders.push(Order::StartCommand { command: next.command });
        }
    }

    fn cancel(&mut self, now: Time, command: CommandKey, orders: &mut Vec<Order>) {
        let place = self.waiting.iter().position(|waiting| waiting.command == command);
        if let Some(waiting) = place.and_then(|place| self.waiting.remove(place)) {
            let end = CommandEnd::Cancelled;
            self.finish(waiting.command, end, EXIT_CANCELLED, orders);
            return;
        }
        self.with(command, orders, |command, orders| command.stop(now, CommandEnd::Cancelled, EXIT_CANCELLED, orders));
    }

    /// Whether this command waits or runs.
    pub fn contains(&self, command: CommandKey) -> bool {
        self.running.contains_key(&command) || self.waiting.iter().any(|waiting| waiting.command == command)
    }

    /// Lets `change` act on a command that runs, and answers it if that was its end.
    fn with(
        &mut self,
        command: CommandKey,
        orders: &mut Vec<Order>,
        change: impl FnOnce(&mut Command, &mut Vec<Order>) -> Outcome,
    ) {
        let Some(found) = self.running.get_mut(&command) else { return };
        if let Outcome::Over { end, exit_code } = change(found, orders) {
            self.running.remove(&command);
            self.finish(command, end, exit_code, orders);
        }
    }

    fn finish(&mut self, command: CommandKey, end: CommandEnd, exit_code: i32, orders: &mut Vec<Order>) {
        orders.push(Order::FinishCommand { command, end, exit_code });
        self.past.ended(command, 0);
        self.forget_results(orders);
    }

    fn keys(&self) -> Vec<CommandKey> {
        self.running.keys().copied().collect()
    }

    fn forget_results(&mut self, orders: &mut Vec<Order>) {
        while let Some(command) = self.past.take_forgotten() {
            orders.push(Order::ForgetResult { command });
        }
    }
}

/// The time-out that follows from what a payload asks for, in milliseconds: at most [`TIMEOUT_MAX_MS`], and
/// [`TIMEOUT_DEFAULT_MS`] where it asks for none.
pub fn effective_timeout_ms(timeout_ms: u64) -> u64 {
    match timeout_ms {
        0 => TIMEOUT_DEFAULT_MS,
        asked => asked.min(TIMEOUT_MAX_MS),
    }
}
