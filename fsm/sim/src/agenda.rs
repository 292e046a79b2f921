//! The virtual clock's agenda: what happens when, in the order in which it was noted where that is the same moment.
//!
//! It knows nothing of what its entries mean. Times are milliseconds of the world.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    noted: u64,
}

#[derive(Clone, Debug)]
struct Entry<E> {
    at_ms: u64,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), noted: 0 }
    }

    /// Notes that `event` happens at `at_ms`.
    pub(crate) fn note(&mut self, at_ms: u64, event: E) {
        self.noted += 1;
        self.heap.push(Entry { at_ms, number: self.noted, event });
    }

    /// When the next event happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at_ms)
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|entry| (entry.at_ms, entry.event))
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (u64, u64) {
        (self.at_ms, self.number)
    }
}

/// Turned round, because the heap gives its greatest first.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_then_in_order_of_entry() {
        let mut agenda = Agenda::new();
        for (at_ms, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.note(at_ms, event);
        }
        let order: String = std::iter::from_fn(|| agenda.take()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }
}
