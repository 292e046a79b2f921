//! Keeps the last output of one session, addressed by offsets since the session's start.
//!
//! The buffer grows with the output up to [`SCROLLBACK_BYTES_MAX`], and up to [`RING_BYTES_MAX`] for what a console
//! has not acknowledged, as far as the budget grants it. When it is full, it drops the oldest bytes, and keeps what
//! they have set in the terminal.
//!
//! Invariant: it holds at most as many bytes as the budget granted, or as need no grant.

use super::parser::Parser;
use super::sticky::Sticky;
use crate::ring::Ring;
use crate::utf8::incomplete_tail;
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{RING_BYTES_MAX, SessionKey};
use std::ops::Range;
use std::rc::Rc;

pub use draupnir_fsm::driver::SCROLLBACK_BYTES_MAX;

/// The bytes that a session may hold even if the budget is used up: a prompt and a few commands. Output passes through
/// the buffer, so a session without it could show nothing.
const SCROLLBACK_BYTES_MIN: usize = 1 << 10;

/// The kept output of a session.
#[derive(Debug)]
pub(super) struct Scrollback {
    session: SessionKey,
    budget: Rc<Budget>,
    ring: Ring,
    /// What was set before the oldest byte; nothing while every byte is held.
    discarded: Option<Box<Sticky>>,
}

impl Scrollback {
    pub(super) fn new(session: SessionKey, budget: Rc<Budget>) -> Self {
        Self { session, budget, ring: Ring::new(SCROLLBACK_BYTES_MIN, SCROLLBACK_BYTES_MAX), discarded: None }
    }

    /// Where it ends, what it holds, and what was set before that, for the next program.
    pub(super) fn save(&self) -> (u64, Vec<u8>, Vec<u8>) {
        (self.held().end, self.bytes_from(0).collect(), self.sticky().save())
    }

    /// The scrollback of a session of the program before this one, as much of it as the budget allows.
    pub(super) fn restore(session: SessionKey, budget: Rc<Budget>, end: u64, kept: &[u8], set: &[u8]) -> Self {
        let mut scrollback = Self::new(session, budget);
        let start = end.saturating_sub(kept.len() as u64);
        if start > 0 {
            scrollback.discarded = Some(Box::new(Sticky::restore(set).unwrap_or_default()));
        }
        scrollback.ring.begin_at(start);
        scrollback.ring.raise_bound(kept.len().min(RING_BYTES_MAX));
        scrollback.append(kept);
        scrollback
    }

    /// The offsets of the bytes in the buffer.
    pub(super) fn held(&self) -> Range<u64> {
        self.ring.held()
    }

    /// How many more bytes fit, up to `wanted`, if all bytes from the offset `keep` on must stay. The buffer grows for
    /// them as far as the budget allows.
    pub(super) fn room(&mut self, keep: u64, wanted: usize) -> usize {
        let held = self.held();
        let kept = usize::try_from(held.end.saturating_sub(keep.max(held.start))).unwrap_or(usize::MAX);
        // By doubling, so that bytes are moved a bounded number of times.
        let bound = kept.saturating_add(wanted).checked_next_power_of_two().unwrap_or(RING_BYTES_MAX);
        self.ring.raise_bound(bound.min(RING_BYTES_MAX));
        let room = self.ring.grow(wanted, |step| self.budget.grant_scrollback(self.session, step));
        room.saturating_sub(kept).min(wanted)
    }

    /// Appends new output, and drops the oldest bytes if there is no room.
    pub(super) fn append(&mut self, output: &[u8]) {
        let grant = |step| self.budget.grant_scrollback(self.session, step);
        self.ring.push(output, grant, |bytes| discard(&mut self.discarded, bytes));
    }

    /// Copies at most `max` bytes from an offset on into `into`. Returns the offset of the first copied byte, which is
    /// later if the beginning has been dropped.
    pub(super) fn copy(&self, from: u64, max: usize, into: &mut Vec<u8>) -> u64 {
        let held = self.held();
        let from = from.clamp(held.start, held.end);
        let (front, back) = self.ring.slices(from, max);
        into.extend_from_slice(front);
        into.extend_from_slice(back);
        from
    }

    /// What was set before the oldest byte.
    pub(super) fn sticky(&self) -> Sticky {
        self.discarded.as_ref().map_or_else(Sticky::default, |sticky| sticky.copy())
    }

    /// Where the grammar is at the oldest byte.
    pub(super) fn parser(&self) -> Parser {
        self.discarded.as_ref().map_or_else(Parser::default, |sticky| sticky.parser().clone())
    }

    /// Hands out the bytes between two offsets, in up to two pieces.
    pub(super) fn each_slice(&self, from: u64, to: u64, mut each: impl FnMut(&[u8])) {
        let bytes = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let (front, back) = self.ring.slices(from, bytes);
        each(front);
        each(back);
    }

    /// The bytes in the buffer from an offset on.
    pub(super) fn bytes_from(&self, offset: u64) -> impl Iterator<Item = u8> {
        let (front, back) = self.ring.slices(offset, usize::MAX);
        front.iter().chain(back).copied()
    }

    /// How many bytes at the end are an incomplete character.
    pub(super) fn incomplete_tail(&self) -> usize {
        let (front, back) = self.ring.slices(self.held().end.saturating_sub(3), 3);
        if front.is_empty() { incomplete_tail(back) } else { incomplete_tail(&[front, back].concat()) }
    }

    /// Keeps only this many bytes, the newest, until the budget grants more again.
    pub(super) fn shrink(&mut self, to_bytes: usize) {
        self.ring.lower_bound(SCROLLBACK_BYTES_MAX);
        self.ring.shrink(to_bytes, |bytes| discard(&mut self.discarded, bytes));
    }
}

fn discard(discarded: &mut Option<Box<Sticky>>, bytes: &[u8]) {
    if !bytes.is_empty() {
        discarded.get_or_insert_default().feed(bytes);
    }
}

impl Drop for Scrollback {
    fn drop(&mut self) {
        self.budget.forget_scrollback(self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::driver::budget::{BUDGET_BYTES, Use};
    use proptest::prelude::*;

    fn scrollback() -> Scrollback {
        Scrollback::new(SessionKey(1), Rc::new(Budget::new()))
    }

    fn all(scrollback: &Scrollback) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(scrollback.copy(0, usize::MAX, &mut bytes), scrollback.held().start);
        bytes
    }

    #[test]
    fn it_allocates_as_it_fills() {
        let mut scrollback = scrollback();
        scrollback.append(b"$ ");
        assert_eq!(scrollback.budget.scrollback_granted(SessionKey(1)), 0);
        scrollback.append(&[b'x'; 5_000]);
        assert_eq!(scrollback.budget.scrollback_granted(SessionKey(1)), 8_192);
        scrollback.append(&vec![b'y'; 1 << 20]);
        assert_eq!(scrollback.budget.scrollback_granted(SessionKey(1)), SCROLLBACK_BYTES_MAX);
        assert_eq!(scrollback.held(), 5_002 + (1 << 20) - 262_144..5_002 + (1 << 20));
        let budget = scrollback.budget.clone();
        drop(scrollback);
        assert_eq!(budget.scrollback_granted(SessionKey(1)), 0);
    }

    #[test]
    fn without_a_grant_the_oldest_makes_room() {
        let mut scrollback = scrollback();
        let budget = scrollback.budget.clone();
        let all_of_it = BUDGET_BYTES - budget.granted();
        assert!(budget.grant(Use::Captured, all_of_it));
        scrollback.append(&[b'a'; 1_000]);
        scrollback.append(&[b'b'; 1_000]);
        assert_eq!(scrollback.held(), 2_000 - SCROLLBACK_BYTES_MIN as u64..2_000);
        assert_eq!(scrollback.room(1_900, 5_000), SCROLLBACK_BYTES_MIN - 100);
        assert_eq!(scrollback.room(0, 5_000), 0, "nothing that is to be kept is pushed out");
        budget.release(Use::Captured, all_of_it);
        assert_eq!(scrollback.room(0, 5_000), 5_000);
    }

    #[test]
    fn buffer_that_grew_for_a_window_shrinks_to_the_usual() {
        let mut scrollback = scrollback();
        assert_eq!(scrollback.room(0, 1 << 20), 1 << 20);
        scrollback.append(&vec![b'a'; 1 << 20]);
        assert_eq!(scrollback.held(), 0..1 << 20);
        scrollback.shrink(SCROLLBACK_BYTES_MAX);
        scrollback.append(&vec![b'b'; 1 << 20]);
        assert_eq!(scrollback.held(), (2 << 20) - SCROLLBACK_BYTES_MAX as u64..2 << 20);
    }

    #[test]
    fn shrinking_keeps_the_newest() {
        let mut scrollback = scrollback();
        scrollback.append(&[b'a'; 40_000]);
        scrollback.append(b"end");
        scrollback.shrink(16 << 10);
        assert_eq!(scrollback.held(), 40_003 - 16_384..40_003);
        assert!(all(&scrollback).ends_with(b"aend"));
    }

    #[test]
    fn an_incomplete_character_at_the_end_is_seen_across_the_seam() {
        let mut scrollback = scrollback();
        scrollback.append(b"x");
        assert_eq!(scrollback.incomplete_tail(), 0);
        scrollback.append(b"\xf0");
        scrollback.append(b"\x9f");
        assert_eq!(scrollback.incomplete_tail(), 2);
        scrollback.append(b"\xa6");
        assert_eq!(scrollback.incomplete_tail(), 3);
        scrollback.append(b"\x80");
        assert_eq!(scrollback.incomplete_tail(), 0);
    }

    proptest! {
        #[test]
        fn ring_keeps_the_newest_bytes(
            parts in prop::collection::vec((0_usize..60_000, any::<u8>()), 1..30),
        ) {
            let mut scrollback = scrollback();
            let mut model = Vec::new();
            for (length, byte) in parts {
                let part = vec![byte; length];
                scrollback.append(&part);
                model.extend_from_slice(&part);
                let held = scrollback.held();
                prop_assert_eq!(held.end, model.len() as u64);
                prop_assert!(held.end - held.start <= SCROLLBACK_BYTES_MAX as u64);
                prop_assert!(model.len() > SCROLLBACK_BYTES_MAX || held.start == 0);
                prop_assert_eq!(all(&scrollback), &model[usize::try_from(held.start).expect("small")..]);
            }
        }
    }
}
