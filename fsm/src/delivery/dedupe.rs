//! Which commands ran before: the same id is run once within one lifetime of the process, and with a journal across
//! its death.
//!
//! It does not hold ids or results, only a 128-bit hash of each id (keyed by the agent, so that a console cannot make
//! two meet) and the size of each result; the agent holds the results under the keys that are given here, and forgets
//! one when it is [asked to](Dedupe::take_forgotten).
//!
//! Bounds: the results of the last [`RESULTS_MAX`] commands that ended, of these no more than [`RESULTS_BYTES_MAX`];
//! the last [`IDS_MAX`] ids whose results were forgotten. A command that runs is never forgotten; their number is
//! bounded by the caller.

use super::id_ring::{self, IdRing};
use crate::id::CommandKey;
use alloc::collections::VecDeque;
use litemap::LiteMap;

/// How many ids are known whose results are not remembered.
pub const IDS_MAX: usize = id_ring::IDS_MAX;

/// How many results are remembered.
pub const RESULTS_MAX: usize = 256;

/// How long they may be together, in encoded bytes.
pub const RESULTS_BYTES_MAX: usize = 8 << 20;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: run it.
    New,
    /// The command with this key runs, or waits to: nothing is to be done.
    Running(CommandKey),
    /// The command with this key has ended: its result is to be sent again.
    Ended(CommandKey),
    /// It has ended, and its result is no longer remembered.
    Forgotten,
}

/// The ids and results that are known.
#[derive(Clone, Debug, Default, Hash)]
pub struct Dedupe {
    /// The ids of commands that run, and of those whose results are remembered.
    ids: LiteMap<u128, Life>,
    running: LiteMap<CommandKey, u128>,
    /// Hash, key and size of the results that are remembered, oldest first.
    results: VecDeque<(u128, CommandKey, usize)>,
    result_bytes: usize,
    /// The ids of the others.
    past: IdRing,
    forgotten: VecDeque<CommandKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Running(CommandKey),
    Ended(CommandKey),
}

impl Dedupe {
    /// Nothing ran yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of the id with this hash.
    pub fn verdict(&self, id_hash: u128) -> Verdict {
        match self.ids.get(&id_hash) {
            Some(Life::Running(command)) => Verdict::Running(*command),
            Some(Life::Ended(command)) => Verdict::Ended(*command),
            None if self.past.contains(id_hash) => Verdict::Forgotten,
            None => Verdict::New,
        }
    }

    /// A new id was accepted, as the command with this key.
    pub fn accepted(&mut self, id_hash: u128, command: CommandKey) {
        debug_assert_eq!(self.verdict(id_hash), Verdict::New, "only new ids are accepted");
        self.ids.insert(id_hash, Life::Running(command));
        self.running.insert(command, id_hash);
    }

    /// An earlier process ran the id with this hash, and its result is no longer remembered.
    pub fn restored(&mut self, id_hash: u128) {
        if self.verdict(id_hash) == Verdict::New {
            self.past.insert(id_hash);
        }
    }

    /// A command has ended, with a result of this size.
    pub fn ended(&mut self, command: CommandKey, size_bytes: usize) {
        let Some(id_hash) = self.running.remove(&command) else {
            return;
        };
        self.ids.insert(id_hash, Life::Ended(command));
        self.results.push_back((id_hash, command, size_bytes));
        self.result_bytes += size_bytes;
        self.bound_results();
    }

    /// Corrects the size of the result of a command that has ended.
    pub fn set_result_size(&mut self, command: CommandKey, size_bytes: usize) {
        let remembered = self.results.iter_mut().rev().find(|(_, key, _)| *key == command);
        if let Some((_, _, size)) = remembered {
            self.result_bytes = self.result_bytes - *size + size_bytes;
            *size = size_bytes;
            self.bound_results();
        }
    }

    /// A command that was accepted is not run after all: its id may come again.
    pub fn withdrawn(&mut self, command: CommandKey) {
        if let Some(id_hash) = self.running.remove(&command) {
            self.ids.remove(&id_hash);
        }
    }

    /// Takes the key of one command whose result is no longer remembered.
    pub fn take_forgotten(&mut self) -> Option<CommandKey> {
        self.forgotten.pop_front()
    }

    /// The ids whose results are no longer remembered, the oldest first.
    pub fn forgotten(&self) -> impl Iterator<Item = u128> {
        self.past.iter()
    }

    /// The ids whose results are remembered, and their commands, the oldest first.
    pub fn remembered(&self) -> impl Iterator<Item = (u128, CommandKey)> {
        self.results.iter().map(|(id_hash, command, _)| (*id_hash, *command))
    }

    /// How many ids are known.
    pub fn ids(&self) -> usize {
        self.ids.len() + self.past.len()
    }

    /// How long the remembered results are together, in encoded bytes.
    pub const fn result_bytes(&self) -> usize {
        self.result_bytes
    }

    fn bound_results(&mut self) {
        while self.results.len() > RESULTS_MAX || self.result_bytes > RESULTS_BYTES_MAX {
            self.forget_oldest_result();
        }
    }

    fn forget_oldest_result(&mut self) {
        if let Some((id_hash, command, size)) = self.results.pop_front() {
            self.result_bytes -= size;
            self.forgotten.push_back(command);
            self.ids.remove(&id_hash);
            self.past.insert(id_hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands with these numbers that have ended with an estimated result of one byte.
    fn ended(commands: core::ops::Range<u32>) -> Dedupe {
        let mut dedupe = Dedupe::new();
        for command in commands {
            dedupe.accepted(u128::from(command), CommandKey(command));
            dedupe.ended(CommandKey(command), 1);
        }
        dedupe
    }

    #[test]
    fn result_counts_with_its_final_size() {
        let mut dedupe = ended(1..4);
        assert_eq!(dedupe.result_bytes(), 3);
        dedupe.set_result_size(CommandKey(2), 700);
        assert_eq!(dedupe.result_bytes(), 702);
        dedupe.set_result_size(CommandKey(2), 300);
        dedupe.set_result_size(CommandKey(9), 5_000);
        assert_eq!(dedupe.result_bytes(), 302, "another's, and an unknown one, do not count");
    }

    #[test]
    fn result_that_fills_the_bound_is_remembered() {
        let mut dedupe = ended(1..3);
        dedupe.set_result_size(CommandKey(2), RESULTS_BYTES_MAX - 1);
        assert_eq!(dedupe.take_forgotten(), None);
        dedupe.set_result_size(CommandKey(2), RESULTS_BYTES_MAX);
        assert_eq!((dedupe.take_forgotten(), dedupe.take_forgotten()), (Some(CommandKey(1)), None));
        assert_eq!(dedupe.result_bytes(), RESULTS_BYTES_MAX);
    }

    #[test]
    fn as_many_results_are_remembered_as_may_be() {
        let most = u32::try_from(RESULTS_MAX).expect("small");
        assert_eq!(ended(0..most).take_forgotten(), None);
        let mut dedupe = ended(0..most + 1);
        assert_eq!((dedupe.take_forgotten(), dedupe.take_forgotten()), (Some(CommandKey(0)), None));
    }

    #[test]
    fn ids_are_forgotten_in_the_order_of_their_ends() {
        let long = CommandKey(u32::MAX);
        let mut dedupe = Dedupe::new();
        dedupe.accepted(u128::MAX, long);
        let count = u32::try_from(IDS_MAX + RESULTS_MAX).expect("small");
        for command in 0..count {
            dedupe.accepted(u128::from(command), CommandKey(command));
            dedupe.ended(CommandKey(command), 1);
        }
        assert_eq!((dedupe.ids(), dedupe.verdict(0)), (IDS_MAX + RESULTS_MAX + 1, Verdict::Forgotten));
        // The oldest id of all ends last.
        dedupe.ended(long, 5);
        assert_eq!((dedupe.verdict(0), dedupe.verdict(1)), (Verdict::New, Verdict::Forgotten));
        assert_eq!(dedupe.verdict(u128::MAX), Verdict::Ended(long));
        assert_eq!(dedupe.result_bytes(), RESULTS_MAX - 1 + 5);
    }
}
