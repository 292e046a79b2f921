//! Which ids were dispatched before, as far as that is remembered.

use crate::fact::Key;
use alloc::collections::{BTreeMap, VecDeque};

const RESULTS_MAX: usize = 256;
const HASHES_MAX: usize = 16_384;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it may run.
    New,
    /// It waits or runs, as this command.
    Running(Key),
    /// It has ended, as this command, whose result is still held.
    Ended(Key),
    /// It has ended, and its result is not held any more.
    Forgotten,
}

/// The ids that were dispatched.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    known: BTreeMap<u64, Verdict>,
    live: BTreeMap<Key, u64>,
    results: VecDeque<(Key, u64)>,
    forgotten: VecDeque<u64>,
}

impl Seen {
    /// What is known of an id.
    pub(super) fn verdict(&self, id_hash: u64) -> Verdict {
        self.known.get(&id_hash).copied().unwrap_or(Verdict::New)
    }

    /// A command of this id was taken.
    pub(super) fn begin(&mut self, id_hash: u64, command: Key) {
        self.known.insert(id_hash, Verdict::Running(command));
        self.live.insert(command, id_hash);
    }

    /// A command was not run after all: its id may come again.
    pub(super) fn abandon(&mut self, command: Key) {
        if let Some(id_hash) = self.live.remove(&command) {
            self.known.remove(&id_hash);
        }
    }

    /// A command has ended and its result is held; gives the one whose result is forgotten for it.
    pub(super) fn end(&mut self, command: Key) -> Option<Key> {
        let id_hash = self.live.remove(&command)?;
        self.known.insert(id_hash, Verdict::Ended(command));
        self.results.push_back((command, id_hash));
        if self.results.len() <= RESULTS_MAX {
            return None;
        }
        let (forgotten, id_hash) = self.results.pop_front()?;
        self.known.insert(id_hash, Verdict::Forgotten);
        self.forgotten.push_back(id_hash);
        if self.forgotten.len() > HASHES_MAX
            && let Some(id_hash) = self.forgotten.pop_front()
        {
            self.known.remove(&id_hash);
        }
        Some(forgotten)
    }
}
