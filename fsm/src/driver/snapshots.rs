//! When the snapshot of a re-attached session is made, and when the state of a screen is kept for the next one.
//!
//! Both parse output, up to a whole ring, so a turn of the loop makes one of them. A session that has been quiet for
//! [`QUIET_MS`] after half a ring of output keeps its screen: a snapshot then needs no output that is older.

use super::output::Action;
use super::ports::{Body, ByteSource};
use super::{Driver, SCROLLBACK_BYTES_MAX};
use crate::delivery::StreamKey;
use crate::id::SessionKey;
use crate::time::Time;
use litemap::LiteMap;

/// How long a session prints nothing before its screen is kept, in milliseconds: a program that draws is done by then.
pub const QUIET_MS: u64 = 1_000;

/// How much output makes it worth to keep the screen again, in bytes: half of what a session keeps.
pub const KEEP_SCREEN_BYTES: u64 = (SCROLLBACK_BYTES_MAX / 2) as u64;

/// How soon the next turn comes where one has left something to parse, in milliseconds.
const NEXT_TURN_MS: u64 = 1;

/// Columns and rows.
type Size = (u16, u16);

/// What is known of each session.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Snapshots {
    /// The sizes of the consoles that wait for a snapshot.
    sizes: LiteMap<SessionKey, Size>,
    screens: LiteMap<SessionKey, Screen>,
    /// When a screen may be due to be kept.
    check_at: Option<Time>,
    /// This turn has parsed output.
    parsed: bool,
    /// When the next turn is due because this one left something to parse.
    next_at: Option<Time>,
}

/// How far a session has come since its screen was kept.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Screen {
    kept_at: u64,
    end: u64,
    grew_at: Time,
}

impl Screen {
    const fn is_worth_it(&self) -> bool {
        self.end.saturating_sub(self.kept_at) >= KEEP_SCREEN_BYTES
    }
}

impl Snapshots {
    pub(super) fn set_size(&mut self, session: SessionKey, size: Size) {
        self.sizes.insert(session, size);
    }

    /// Sets the size of a console that waits; false where none does.
    pub(super) fn replace_size(&mut self, session: SessionKey, size: Size) -> bool {
        let waits = self.sizes.contains_key(&session);
        if waits {
            self.sizes.insert(session, size);
        }
        waits
    }

    pub(super) fn grew(&mut self, now: Time, session: SessionKey, end: u64) {
        let screen = self.screens.entry(session).or_default();
        (screen.end, screen.grew_at) = (end.max(screen.end), now);
        if screen.is_worth_it() {
            self.check_at.get_or_insert(now.after_ms(QUIET_MS));
        }
    }

    pub(super) fn forget(&mut self, session: SessionKey) {
        self.sizes.remove(&session);
        self.screens.remove(&session);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.check_at.into_iter().chain(self.next_at).min()
    }

    /// Time that the process did not live through does not count.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.check_at = self.check_at.map(|at| at.after_ms(ms));
        self.screens.iter_mut().for_each(|(_, screen)| screen.grew_at = screen.grew_at.after_ms(ms));
    }

    /// The session whose screen is to be kept now, if one is.
    fn take_screen_due(&mut self, now: Time) -> Option<SessionKey> {
        self.check_at.take_if(|at| *at <= now)?;
        let worth_it = |(_, screen): &(&SessionKey, &Screen)| screen.is_worth_it();
        let quiet_at = |screen: &Screen| screen.grew_at.after_ms(QUIET_MS);
        let due = self.screens.iter().filter(worth_it).find(|(_, screen)| quiet_at(screen) <= now);
        let due = due.map(|(session, _)| *session);
        if let Some(screen) = due.and_then(|session| self.screens.get_mut(&session)) {
            screen.kept_at = screen.end;
        }
        self.check_at = self.screens.iter().filter(worth_it).map(|(_, screen)| quiet_at(screen)).min();
        due
    }
}

impl<B: Body> Driver<B> {
    /// Makes one snapshot, or has one screen kept; false where there is none to make, or this turn has made one.
    pub(super) fn advance_snapshots(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> bool {
        if self.snapshots.parsed {
            return false;
        }
        if let Some((stream, from)) = self.ledger.snapshot_due() {
            self.make_snapshot(stream, from, host);
        } else if let Some(session) = self.snapshots.take_screen_due(now) {
            self.out(Action::KeepScreen { session });
        } else {
            return false;
        }
        self.snapshots.parsed = true;
        true
    }

    fn make_snapshot(&mut self, stream: StreamKey, from: u64, host: &mut dyn ByteSource<Body = B>) {
        let StreamKey::Terminal(session) = stream else { return };
        let size = self.snapshots.sizes.remove(&session);
        // What was read since the last report counts too.
        let held = host.held(stream);
        self.source_holds(stream, held.start, held.end);
        let made = host.snapshot(session, from.max(held.start), size);
        self.ledger.snapshot_made(stream, made.at, made.bytes);
        if !self.machine.is_usable(session) {
            return;
        }
        if let Some((cols, rows)) = size {
            self.out(Action::ResizeSession { session, cols, rows });
        }
        if !made.exact {
            self.out(Action::RedrawSession { session });
        }
    }

    /// The turn is over.
    pub(super) fn end_snapshot_turn(&mut self, now: Time) {
        let parsed = core::mem::take(&mut self.snapshots.parsed);
        let next = now.after_ms(NEXT_TURN_MS);
        self.snapshots.next_at = (parsed && self.ledger.snapshot_due().is_some()).then_some(next);
        self.snapshots.check_at = self.snapshots.check_at.map(|at| if at <= now { next } else { at });
    }
}
