//! Which commands ran before: the same id is run once within one lifetime of the process, and with a journal across
//! its death.
//!
//! It does not hold ids or results, only a 128-bit hash of each id (keyed by the agent, so that a console cannot make
//! two meet) and the size of each result; the agent holds the results under the keys that are given here, and forgets
//! one when it is [asked to](Dedupe::take_forgotten).
//!
//! Bounds: the hashes of the last [`IDS_MAX`] ids, the results of the last [`RESULTS_MAX`] commands, of these no more
//! than [`RESULTS_BYTES_MAX`]. A command that runs is never forgotten; their number is bounded by the caller.

use crate::id::CommandKey;
use alloc::collections::{BTreeMap, VecDeque};

/// How many ids are known, those that run not counted among them once that many newer ones came.
pub const IDS_MAX: usize = 16_384;

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
#[derive(Clone, Debug, Default)]
pub struct Dedupe {
    ids: BTreeMap<u128, Life>,
    /// The hashes in the order in which they came; those of refused commands are gone from `ids`.
    order: VecDeque<u128>,
    running: BTreeMap<CommandKey, u128>,
    /// Hash, key and size of the results that are remembered, oldest first.
    results: VecDeque<(u128, CommandKey, usize)>,
    result_bytes: usize,
    forgotten: VecDeque<CommandKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running(CommandKey),
    Ended(CommandKey),
    Forgotten,
}

impl Dedupe {
    /// Nothing ran yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of the id with this hash.
    pub fn verdict(&self, id_hash: u128) -> Verdict {
        match self.ids.get(&id_hash) {
            None => Verdict::New,
            Some(Life::Running(command)) => Verdict::Running(*command),
            Some(Life::Ended(command)) => Verdict::Ended(*command),
            Some(Life::Forgotten) => Verdict::Forgotten,
        }
    }

    /// A new id was accepted, as the command with this key.
    pub fn accepted(&mut self, id_hash: u128, command: CommandKey) {
        debug_assert_eq!(self.verdict(id_hash), Verdict::New, "only new ids are accepted");
        self.ids.insert(id_hash, Life::Running(command));
        self.running.insert(command, id_hash);
        self.order.push_back(id_hash);
        self.bound_ids();
    }

    /// An earlier process ran the id with this hash, and its result is no longer remembered.
    pub fn restored(&mut self, id_hash: u128) {
        if self.verdict(id_hash) == Verdict::New {
            self.ids.insert(id_hash, Life::Forgotten);
            self.order.push_back(id_hash);
            self.bound_ids();
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
        self.bound_ids();
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

    /// How many ids are known.
    pub fn ids(&self) -> usize {
        self.ids.len()
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
            if let Some(life) = self.ids.get_mut(&id_hash) {
                *life = Life::Forgotten;
            }
        }
    }

    /// Forgets the oldest ids beyond the bound. One that runs goes to the back of the queue instead, and one whose
    /// result is remembered takes it along.
    fn bound_ids(&mut self) {
        for _ in 0..self.order.len() {
            if self.order.len() <= IDS_MAX {
                return;
            }
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            match self.ids.get(&oldest) {
                Some(Life::Running(_)) => self.order.push_back(oldest),
                Some(Life::Ended(_) | Life::Forgotten) | None => self.forget_id(oldest),
            }
        }
    }

    fn forget_id(&mut self, id_hash: u128) {
        if let Some(Life::Ended(_)) = self.ids.remove(&id_hash)
            && let Some(place) = self.results.iter().position(|(remembered, _, _)| *remembered == id_hash)
            && let Some((_, command, size)) = self.results.remove(place)
        {
            self.result_bytes -= size;
            self.forgotten.push_back(command);
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
    fn forgotten_id_drops_its_own_result_only() {
        let oldest = CommandKey(u32::MAX);
        let mut dedupe = Dedupe::new();
        dedupe.accepted(u128::MAX, oldest);
        for command in 1..u32::try_from(IDS_MAX).expect("small") {
            dedupe.accepted(u128::from(command), CommandKey(command));
            dedupe.ended(CommandKey(command), 1);
        }
        // The oldest id of all ends last.
        dedupe.ended(oldest, 5);
        while dedupe.take_forgotten().is_some() {}
        assert_eq!(dedupe.result_bytes(), RESULTS_MAX - 1 + 5);
        dedupe.accepted(u128::MAX - 1, CommandKey(u32::MAX - 1));
        assert_eq!((dedupe.take_forgotten(), dedupe.take_forgotten()), (Some(oldest), None));
        assert_eq!(dedupe.result_bytes(), RESULTS_MAX - 1);
    }
}
