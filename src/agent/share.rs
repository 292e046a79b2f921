//! A part of the budget of buffers that is given back when it is dropped.
//!
//! It holds no bytes; it stands beside those that it is for.

use draupnir_fsm::delivery::budget::{Budget, Use};
use std::rc::Rc;

/// Some bytes of the budget.
pub(super) struct Share {
    budget: Rc<Budget>,
    of: Use,
    bytes: usize,
}

impl Share {
    /// So many bytes for this use; nothing where there is no room.
    pub(super) fn take(budget: &Rc<Budget>, of: Use, bytes: usize) -> Option<Self> {
        budget.grant(of, bytes).then(|| Self { budget: Rc::clone(budget), of, bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.release(self.of, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::delivery::budget::BUDGET_BYTES;

    #[test]
    fn it_is_given_back_and_not_taken_where_there_is_none() {
        let budget = Rc::new(Budget::new());
        let before = budget.granted();
        let share = Share::take(&budget, Use::Remembered, 1_000);
        assert_eq!(budget.granted(), before + 1_000);
        assert!(Share::take(&budget, Use::Waiting, BUDGET_BYTES).is_none());
        drop(share);
        assert_eq!(budget.granted(), before);
    }
}
