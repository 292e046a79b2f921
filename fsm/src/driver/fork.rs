//! A driver as a model checker needs it: as a number, and copied.

use super::Driver;
use super::ports::Body;
use crate::random::Random;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::hash::{Hash, Hasher};

/// Between two turns, as the future depends on it: see [`canonical`](crate::canonical).
impl<B: Hash> Hash for Driver<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            machine,
            ledger,
            budget,
            clocks,
            link,
            sessions,
            commands,
            audits,
            journal,
            errors,
            usage,
            logs,
            rings,
            hand_over,
            snapshots,
            poison,
            room_for_results,
            // These are only shown; and between two turns nothing is left to do.
            vitals: _,
            ignored: _,
            todo: _,
            ready: _,
            is_performing: _,
            ticks: _,
            recording: _,
            observer: _,
        } = self;
        (machine, ledger, budget, clocks, link, sessions, commands).hash(state);
        (audits, journal, errors, usage, logs, rings, hand_over, snapshots, poison, room_for_results).hash(state);
    }
}

impl<B: Body> Driver<B> {
    /// A copy between two turns that goes on by itself, draws from `random` and is neither recorded nor observed: for a
    /// model that tries every way on.
    ///
    /// # Panics
    ///
    /// If something is left to [`poll`](Self::poll).
    #[doc(hidden)]
    #[must_use]
    pub fn fork(&self, random: Random) -> Self {
        assert!(self.todo.is_empty() && self.ready.is_empty(), "a turn is polled to its end");
        let mut machine = self.machine.clone();
        machine.set_random(random);
        Self {
            machine,
            ledger: self.ledger.clone(),
            budget: Rc::new((*self.budget).clone()),
            clocks: self.clocks.clone(),
            link: self.link.clone(),
            sessions: self.sessions.clone(),
            commands: self.commands.clone(),
            audits: self.audits.clone(),
            journal: self.journal.clone(),
            errors: self.errors.clone(),
            usage: self.usage,
            logs: self.logs.clone(),
            rings: self.rings.clone(),
            hand_over: self.hand_over.clone(),
            snapshots: self.snapshots.clone(),
            vitals: self.vitals.clone(),
            poison: self.poison,
            room_for_results: self.room_for_results,
            todo: VecDeque::new(),
            ready: VecDeque::new(),
            is_performing: false,
            ticks: 0,
            ignored: self.ignored,
            recording: None,
            observer: None,
        }
    }
}
