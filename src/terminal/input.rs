//! The queue of typed bytes that the terminal has not taken yet.
//!
//! Bounded by [`INPUT_BYTES_MAX`] and by the budget. Input over the bound is refused whole, never cut.

use draupnir_fsm::driver::budget::{Budget, Use};
use std::collections::VecDeque;
use std::rc::Rc;

/// The most input that may wait for a program which does not read, in bytes: a large paste, many times over.
pub const INPUT_BYTES_MAX: usize = 1 << 20;

/// Why input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputRefused {
    /// The user must wait until the program reads: it has not for a mebibyte.
    #[error("the program does not read its input, and 1 MiB waits for it already")]
    Full,
    /// The user must wait until other terminals need less: the agent's memory for buffers is used up.
    #[error("the agent has no memory left for input that waits")]
    NoMemory,
    /// There is no such session, or its program is gone.
    #[error("the session is over")]
    Gone,
}

/// A queue of bytes.
#[derive(Debug)]
pub(super) struct Input {
    budget: Rc<Budget>,
    bytes: VecDeque<u8>,
}

impl Input {
    pub(super) fn new(budget: Rc<Budget>) -> Self {
        Self { budget, bytes: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends all of it, or nothing.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), InputRefused> {
        if self.bytes.len().saturating_add(bytes.len()) > INPUT_BYTES_MAX {
            return Err(InputRefused::Full);
        }
        if !self.budget.grant(Use::Input, bytes.len()) {
            return Err(InputRefused::NoMemory);
        }
        self.bytes.extend(bytes);
        Ok(())
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }

    /// What comes next, as far as it lies in one piece.
    pub(super) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// The first `count` bytes are taken.
    pub(super) fn taken(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        self.budget.release(Use::Input, count);
        if self.bytes.is_empty() {
            // A session that is idle holds nothing for input.
            self.bytes = VecDeque::new();
        }
    }

    /// Discards all input: no process will read it.
    pub(super) fn clear(&mut self) {
        self.taken(self.bytes.len());
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::driver::budget::BUDGET_BYTES;

    #[test]
    fn it_is_taken_in_order_and_given_back() {
        let budget = Rc::new(Budget::new());
        let before = budget.granted();
        let mut input = Input::new(budget.clone());
        assert_eq!(input.push(b"abc"), Ok(()));
        assert_eq!(input.push(b"def"), Ok(()));
        assert_eq!(budget.granted(), before + 6);
        input.taken(2);
        assert_eq!(input.front(), b"cdef");
        input.taken(4);
        assert!(input.is_empty());
        assert_eq!(input.push(b"ghi"), Ok(()));
        drop(input);
        assert_eq!(budget.granted(), before);
    }

    #[test]
    fn input_over_the_bound_is_refused_whole() {
        let budget = Rc::new(Budget::new());
        let mut input = Input::new(budget.clone());
        assert_eq!(input.push(&vec![0; INPUT_BYTES_MAX - 1]), Ok(()));
        assert_eq!(input.push(b"ab"), Err(InputRefused::Full));
        assert_eq!(input.push(b"a"), Ok(()));
        input.clear();
        let rest = BUDGET_BYTES - budget.granted();
        assert!(budget.grant(Use::Captured, rest));
        assert_eq!(input.push(b"a"), Err(InputRefused::NoMemory));
        assert!(input.is_empty());
        budget.release(Use::Captured, rest);
    }
}
