//! The memory that all buffers of the agent share: 32 MiB in sum.
//!
//! It allocates nothing and frees nothing: owners ask before they grow and say when they have shrunk. It is for one
//! thread, and shared by reference or `Rc`.
//!
//! The ledger's part is set aside from the start, so that a result never finds its place taken by output. When the rest
//! is used up, the scrollback that has been detached for longest shrinks first, down to [`SCROLLBACK_KEPT_BYTES`]; who
//! asked is granted the room at once, and the loop performs the [shrinking](Budget::take_shrink) in the same turn.
//! Where nothing can shrink the answer is no, and the owner does without: a scrollback drops its own oldest bytes, a
//! capture its middle, an input or a command is refused, a result is not remembered.
//!
//! Invariant: what is granted, less what is yet to be shrunk, is never more than [`BUDGET_BYTES`].

use super::RELIABLE_BYTES_MAX;
use crate::id::SessionKey;
use crate::time::Time;
use core::cell::RefCell;
use core::hash::{Hash, Hasher};
use litemap::LiteMap;

/// All buffers together, in bytes.
pub const BUDGET_BYTES: usize = 32 << 20;

/// What a detached scrollback keeps even if other buffers lack memory, in bytes: the last screens.
pub const SCROLLBACK_KEPT_BYTES: usize = 16 << 10;

/// What a buffer is for. The ledger is not among them: its part is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// What was typed into a terminal that does not read.
    Input,
    /// What a command printed.
    Captured,
    /// Results that may be asked for again.
    Remembered,
    /// Commands that wait for their turn.
    Waiting,
    /// Screens of quiet sessions.
    Screen,
}

const USES: usize = 5;

/// An order to the owner of a scrollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// The session.
    pub session: SessionKey,
    /// How long its scrollback may be from now on, in bytes, until it is granted more.
    pub to_bytes: usize,
}

/// The memory that is granted to each buffer.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    books: RefCell<Accounts>,
}

#[derive(Clone, Debug, Default, Hash)]
struct Accounts {
    granted: usize,
    uses: [usize; USES],
    scrollbacks: LiteMap<SessionKey, Scrollback>,
    /// Detached scrollbacks, by the time at which they were.
    detached: LiteMap<(Time, SessionKey), ()>,
    to_shrink: LiteMap<SessionKey, ()>,
}

#[derive(Clone, Copy, Debug, Default, Hash)]
struct Scrollback {
    granted: usize,
    detached_at: Option<Time>,
}

impl Hash for Budget {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.books.borrow().hash(state);
    }
}

impl Budget {
    /// Nothing is granted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants `bytes` more for this use; false where there is no room.
    pub fn grant(&self, to: Use, bytes: usize) -> bool {
        let mut books = self.books.borrow_mut();
        let granted = books.make_room(bytes, None);
        if granted {
            books.granted += bytes;
            books.uses[to as usize] += bytes;
        }
        granted
    }

    /// Takes back `bytes` that are no longer used.
    pub fn release(&self, from: Use, bytes: usize) {
        let mut books = self.books.borrow_mut();
        let held = books.uses[from as usize];
        debug_assert!(bytes <= held, "only what was granted is released");
        let bytes = bytes.min(held);
        books.uses[from as usize] -= bytes;
        books.granted -= bytes;
    }

    /// Grants the scrollback of a session `bytes` more; false where there is no room.
    pub fn grant_scrollback(&self, session: SessionKey, bytes: usize) -> bool {
        let mut books = self.books.borrow_mut();
        let granted = books.make_room(bytes, Some(session));
        if granted {
            books.granted += bytes;
            books.scrollbacks.entry(session).or_default().granted += bytes;
        }
        granted
    }

    /// Takes back what the scrollback of a session has beyond `to_bytes`; the loop shrinks it in the same turn.
    pub fn cut_scrollback(&self, session: SessionKey, to_bytes: usize) {
        self.books.borrow_mut().cut_grant(session, to_bytes);
    }

    /// The session is over and its scrollback freed.
    pub fn forget_scrollback(&self, session: SessionKey) {
        let mut books = self.books.borrow_mut();
        books.cut_grant(session, 0);
        if let Some(Scrollback { detached_at: Some(at), .. }) = books.scrollbacks.remove(&session) {
            books.detached.remove(&(at, session));
        }
        books.to_shrink.remove(&session);
    }

    /// The session is detached since `now`, unless it was before.
    pub fn detached(&self, session: SessionKey, now: Time) {
        let mut books = self.books.borrow_mut();
        let scrollback = books.scrollbacks.entry(session).or_default();
        if scrollback.detached_at.is_none() {
            scrollback.detached_at = Some(now);
            books.detached.insert((now, session), ());
        }
    }

    /// The session is attached again.
    pub fn attached(&self, session: SessionKey) {
        let mut books = self.books.borrow_mut();
        if let Some(at) = books.scrollbacks.get_mut(&session).and_then(|scrollback| scrollback.detached_at.take()) {
            books.detached.remove(&(at, session));
        }
    }

    /// Takes one order to shrink a scrollback, which is performed at once.
    pub fn take_shrink(&self) -> Option<Shrink> {
        let mut books = self.books.borrow_mut();
        let (&session, ()) = books.to_shrink.first()?;
        books.to_shrink.remove(&session);
        let to_bytes = books.scrollbacks.get(&session)?.granted;
        Some(Shrink { session, to_bytes })
    }

    /// How long the scrollback of a session may be, in bytes.
    pub fn scrollback_granted(&self, session: SessionKey) -> usize {
        self.books.borrow().scrollbacks.get(&session).map_or(0, |scrollback| scrollback.granted)
    }

    /// What is granted in all, the part set aside for the ledger included, in bytes.
    pub fn granted(&self) -> usize {
        self.books.borrow().granted + RELIABLE_BYTES_MAX
    }
}

impl Accounts {
    /// Finds room for `bytes` more, taking it from detached scrollbacks, oldest first, but not from that of `asker`.
    /// Takes nothing where it cannot find enough.
    fn make_room(&mut self, bytes: usize, asker: Option<SessionKey>) -> bool {
        let free = BUDGET_BYTES - RELIABLE_BYTES_MAX - self.granted;
        let Some(mut missing) = bytes.checked_sub(free).filter(|missing| *missing > 0) else {
            return true;
        };
        let donors =
            || self.detached.keys().filter(|(_, session)| Some(*session) != asker).map(|(_, session)| *session);
        let spare = |session: SessionKey| {
            self.scrollbacks
                .get(&session)
                .map_or(0, |scrollback| scrollback.granted.saturating_sub(SCROLLBACK_KEPT_BYTES))
        };
        if donors().map(spare).sum::<usize>() < missing {
            return false;
        }
        let mut donations = alloc::vec::Vec::new();
        for session in donors() {
            let part = spare(session).min(missing);
            missing -= part;
            donations.push((session, part));
            if missing == 0 {
                break;
            }
        }
        for (session, part) in donations.into_iter().filter(|(_, part)| *part > 0) {
            let left = self.scrollbacks.get(&session).map_or(0, |s| s.granted) - part;
            self.cut_grant(session, left);
            self.to_shrink.insert(session, ());
        }
        true
    }

    fn cut_grant(&mut self, session: SessionKey, to: usize) {
        if let Some(scrollback) = self.scrollbacks.get_mut(&session) {
            let back = scrollback.granted.saturating_sub(to);
            scrollback.granted -= back;
            self.granted -= back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHARED: usize = BUDGET_BYTES - RELIABLE_BYTES_MAX;

    #[test]
    fn detached_scrollback_gives_exactly_what_it_can_spare() {
        let full = || {
            let budget = Budget::new();
            assert!(
                budget.grant_scrollback(SessionKey(1), SCROLLBACK_KEPT_BYTES)
                    && budget.grant_scrollback(SessionKey(2), 100_000)
            );
            budget.detached(SessionKey(1), Time::START);
            budget.detached(SessionKey(2), Time::from_ms(1));
            assert!(budget.grant(Use::Captured, SHARED - SCROLLBACK_KEPT_BYTES - 100_000));
            budget
        };
        let spare = 100_000 - SCROLLBACK_KEPT_BYTES;
        assert!(!full().grant(Use::Captured, spare + 1));
        let budget = full();
        assert!(budget.grant(Use::Captured, spare));
        assert_eq!(budget.take_shrink(), Some(Shrink { session: SessionKey(2), to_bytes: SCROLLBACK_KEPT_BYTES }));
        assert_eq!(budget.take_shrink(), None, "the first had nothing to spare");
        assert_eq!(budget.granted(), BUDGET_BYTES);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "only what was granted is released")]
    fn memory_is_given_back_once() {
        let budget = Budget::new();
        assert!(budget.grant(Use::Input, 10));
        budget.release(Use::Input, 10);
        budget.release(Use::Input, 1);
    }

    #[test]
    fn grants_never_exceed_the_budget() {
        let budget = Budget::new();
        assert_eq!(budget.granted(), RELIABLE_BYTES_MAX);
        assert!(budget.grant(Use::Captured, SHARED - 10));
        assert!(!budget.grant(Use::Input, 11));
        assert!(budget.grant(Use::Input, 10));
        assert!(!budget.grant_scrollback(SessionKey(1), 1));
        budget.release(Use::Captured, 1_000);
        assert!(budget.grant_scrollback(SessionKey(1), 1_000));
        assert_eq!(budget.granted(), BUDGET_BYTES);
        assert_eq!(budget.take_shrink(), None, "an attached scrollback does not shrink");
    }

    #[test]
    fn the_oldest_detached_scrollback_shrinks_first() {
        let budget = Budget::new();
        let (old, young, attached) = (7, 3, 1);
        for session in [attached, young, old] {
            assert!(budget.grant_scrollback(SessionKey(session), 256 << 10));
        }
        budget.detached(SessionKey(young), Time::from_ms(20));
        budget.detached(SessionKey(old), Time::from_ms(10));
        budget.detached(SessionKey(old), Time::from_ms(30));
        assert!(budget.grant(Use::Captured, SHARED - (768 << 10)));
        assert!(budget.grant(Use::Input, 100 << 10));
        assert_eq!(budget.take_shrink(), Some(Shrink { session: SessionKey(old), to_bytes: 156 << 10 }));
        assert_eq!(budget.take_shrink(), None);
        // The old one keeps its last screens, the rest comes from the next.
        assert!(budget.grant(Use::Input, 200 << 10));
        assert_eq!(budget.take_shrink(), Some(Shrink { session: SessionKey(young), to_bytes: 196 << 10 }));
        assert_eq!(budget.take_shrink(), Some(Shrink { session: SessionKey(old), to_bytes: SCROLLBACK_KEPT_BYTES }));
        assert!(!budget.grant(Use::Input, 181 << 10), "all or nothing");
        assert_eq!(budget.scrollback_granted(SessionKey(young)), 196 << 10);
        budget.attached(SessionKey(young));
        assert!(!budget.grant(Use::Input, 1));
        budget.forget_scrollback(SessionKey(young));
        assert!(budget.grant(Use::Input, 196 << 10));
        assert_eq!(budget.granted(), BUDGET_BYTES);
    }

    #[test]
    fn a_scrollback_does_not_shrink_for_itself() {
        let budget = Budget::new();
        assert!(budget.grant_scrollback(SessionKey(1), SHARED));
        budget.detached(SessionKey(1), Time::START);
        assert!(!budget.grant_scrollback(SessionKey(1), 1));
        assert!(budget.grant_scrollback(SessionKey(2), 1));
    }

    proptest! {
        #[test]
        fn the_books_balance(steps in prop::collection::vec((0u8..6, 0u32..4, 0usize..(9 << 20)), 1..200)) {
            let budget = Budget::new();
            let (mut used, mut held) = (0, [0usize; 4]);
            for (at, (step, session, bytes)) in steps.into_iter().enumerate() {
                match step {
                    0 => used += if budget.grant(Use::Remembered, bytes) { bytes } else { 0 },
                    1 => {
                        let released = bytes.min(used);
                        used -= released;
                        budget.release(Use::Remembered, released);
                    }
                    2 if budget.grant_scrollback(SessionKey(session), bytes) => held[session as usize] += bytes,
                    2 => {}
                    3 => budget.detached(SessionKey(session), Time::from_ms(at as u64)),
                    4 => budget.attached(SessionKey(session)),
                    _ => {
                        budget.forget_scrollback(SessionKey(session));
                        held[session as usize] = 0;
                    }
                }
                while let Some(shrink) = budget.take_shrink() {
                    let session = &mut held[shrink.session.0 as usize];
                    prop_assert!(shrink.to_bytes < *session && shrink.to_bytes >= SCROLLBACK_KEPT_BYTES);
                    *session = shrink.to_bytes;
                }
                let sum = used + held.iter().sum::<usize>();
                prop_assert_eq!(budget.granted(), sum + RELIABLE_BYTES_MAX);
                prop_assert!(sum <= SHARED);
            }
        }
    }
}
