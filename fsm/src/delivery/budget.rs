//! The memory that all buffers of the agent share: 32 MiB, whoever asks.
//!
//! It allocates nothing and frees nothing: owners ask before they grow and say when they have shrunk. It is for one
//! thread, and shared by reference or `Rc`.
//!
//! The ledger's part is set aside from the start, so that a result never finds its place taken by output. When the rest
//! is used up, the scrollback that has been detached for longest shrinks first, down to [`SCROLLBACK_KEPT_BYTES`]; who
//! asked is granted the room at once, and the loop performs the [shrinking](Budget::take_shrink) in the same turn.
//! Where nothing can shrink the answer is no, and the owner does without: a scrollback drops its own oldest bytes, a
//! capture its middle, an input is refused.
//!
//! Invariant: what is granted, less what is yet to be shrunk, is never more than [`BUDGET_BYTES`].

use super::RELIABLE_BYTES_MAX;
use crate::fact::Key;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use core::cell::RefCell;

/// All buffers together, in bytes.
pub const BUDGET_BYTES: usize = 32 << 20;

/// What a detached scrollback keeps whoever else is short, in bytes: the last screens.
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
}

const USES: usize = 3;

/// An order to the owner of a scrollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// The session.
    pub session: Key,
    /// How long its scrollback may be from now on, in bytes, until it is granted more.
    pub to_bytes: usize,
}

/// The memory that is granted, and to whom.
#[derive(Debug, Default)]
pub struct Budget {
    books: RefCell<Books>,
}

#[derive(Debug, Default)]
struct Books {
    granted: usize,
    uses: [usize; USES],
    scrollbacks: BTreeMap<Key, Scrollback>,
    /// Detached scrollbacks, by the time at which they were.
    detached: BTreeSet<(Time, Key)>,
    to_shrink: BTreeSet<Key>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Scrollback {
    granted: usize,
    detached_at: Option<Time>,
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
    pub fn grant_scrollback(&self, session: Key, bytes: usize) -> bool {
        let mut books = self.books.borrow_mut();
        let granted = books.make_room(bytes, Some(session));
        if granted {
            books.granted += bytes;
            books.scrollbacks.entry(session).or_default().granted += bytes;
        }
        granted
    }

    /// The scrollback of a session is `bytes` long now, and no longer: takes back the rest of its grant.
    pub fn scrollback_is(&self, session: Key, bytes: usize) {
        self.books.borrow_mut().cut_grant(session, bytes);
    }

    /// The session is over and its scrollback freed.
    pub fn forget_scrollback(&self, session: Key) {
        let mut books = self.books.borrow_mut();
        books.cut_grant(session, 0);
        if let Some(Scrollback { detached_at: Some(at), .. }) = books.scrollbacks.remove(&session) {
            books.detached.remove(&(at, session));
        }
        books.to_shrink.remove(&session);
    }

    /// Nobody looks at the session since `now`, if somebody did before.
    pub fn detached(&self, session: Key, now: Time) {
        let mut books = self.books.borrow_mut();
        let scrollback = books.scrollbacks.entry(session).or_default();
        if scrollback.detached_at.is_none() {
            scrollback.detached_at = Some(now);
            books.detached.insert((now, session));
        }
    }

    /// Somebody looks at the session again.
    pub fn attached(&self, session: Key) {
        let mut books = self.books.borrow_mut();
        if let Some(at) = books.scrollbacks.get_mut(&session).and_then(|scrollback| scrollback.detached_at.take()) {
            books.detached.remove(&(at, session));
        }
    }

    /// Takes one order to shrink a scrollback, which is performed at once.
    pub fn take_shrink(&self) -> Option<Shrink> {
        let mut books = self.books.borrow_mut();
        let session = books.to_shrink.pop_first()?;
        let to_bytes = books.scrollbacks.get(&session)?.granted;
        Some(Shrink { session, to_bytes })
    }

    /// How long the scrollback of a session may be, in bytes.
    pub fn scrollback_granted(&self, session: Key) -> usize {
        self.books.borrow().scrollbacks.get(&session).map_or(0, |scrollback| scrollback.granted)
    }

    /// What is granted in all, the part set aside for the ledger included, in bytes.
    pub fn granted(&self) -> usize {
        self.books.borrow().granted + RELIABLE_BYTES_MAX
    }
}

impl Books {
    /// Finds room for `bytes` more, taking it from detached scrollbacks, oldest first, but not from that of `asker`.
    /// Takes nothing where it cannot find enough.
    fn make_room(&mut self, bytes: usize, asker: Option<Key>) -> bool {
        let free = BUDGET_BYTES - RELIABLE_BYTES_MAX - self.granted;
        let Some(mut missing) = bytes.checked_sub(free).filter(|missing| *missing > 0) else {
            return true;
        };
        let donors =
            || self.detached.iter().filter(|(_, session)| Some(*session) != asker).map(|(_, session)| *session);
        let spare = |session: Key| {
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
            self.to_shrink.insert(session);
        }
        true
    }

    fn cut_grant(&mut self, session: Key, to: usize) {
        if let Some(scrollback) = self.scrollbacks.get_mut(&session) {
            let back = scrollback.granted.saturating_sub(to);
            scrollback.granted -= back;
            self.granted -= back;
        }
    }
}
