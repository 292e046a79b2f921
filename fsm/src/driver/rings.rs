//! When the buffer of a terminal that has flooded is given back.
//!
//! What the console is not known to have must stay in the buffer, so that of an attached terminal grows with its window
//! beyond [`SCROLLBACK_BYTES_MAX`], as far as the budget goes: a credit allows it, and the source asks the budget. When
//! a flood is over, the buffer shrinks to that again; within [`RING_CHECK_MS`] twice over.

use super::Driver;
use super::output::Action;
use super::ports::{Body, ByteSource};
use crate::delivery::{LINK_WINDOW_BYTES_MAX, STREAM_WINDOW_BYTES_MIN, StreamKey};
use crate::id::SessionKey;
use crate::time::Time;
use alloc::vec::Vec;

/// The most output that one session keeps, in bytes: some thousands of lines.
pub const SCROLLBACK_BYTES_MAX: usize = 256 << 10;

/// The most that the buffer of an attached session holds, in bytes: a full window of the link (four encoded bytes stand
/// for three), and what is read beyond it.
#[expect(clippy::cast_possible_truncation, reason = "4 MiB fit everywhere")]
pub const RING_BYTES_MAX: usize = (LINK_WINDOW_BYTES_MAX / 4 * 3 + STREAM_WINDOW_BYTES_MIN) as usize;

/// How often a buffer that has grown is looked at, in milliseconds: what was not needed since the last time is given
/// back, so in less than ten seconds.
pub const RING_CHECK_MS: u64 = 4_000;

/// The buffers that may have grown.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Rings {
    check_at: Option<Time>,
}

impl Rings {
    pub(super) const fn next_deadline(&self) -> Option<Time> {
        self.check_at
    }

    /// Time that the process did not live through does not count.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.check_at = self.check_at.map(|at| at.after_ms(ms));
    }

    /// A source may hold so many bytes that the console does not have.
    pub(super) fn granted(&mut self, now: Time, stream: StreamKey, bytes: u64) {
        if matches!(stream, StreamKey::Terminal(_)) && bytes > SCROLLBACK_BYTES_MAX as u64 {
            self.check_at.get_or_insert(now.after_ms(RING_CHECK_MS));
        }
    }

    fn take_due(&mut self, now: Time) -> bool {
        self.check_at.take_if(|at| *at <= now).is_some()
    }
}

impl<B: Body> Driver<B> {
    /// Shrinks the buffers that have grown and were not needed since the last look; false where none was due.
    pub(super) fn check_rings(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> bool {
        if !self.rings.take_due(now) {
            return false;
        }
        let sessions: Vec<SessionKey> = self.sessions.keys().collect();
        for session in sessions {
            let stream = StreamKey::Terminal(session);
            let peak = self.ledger.take_unacknowledged_peak(stream);
            let may_grow = self.ledger.position(stream).is_some_and(|at| at.end - at.retained > KEPT);
            if !may_grow {
                continue;
            }
            // What was read since the last report counts too.
            let held = host.held(stream);
            self.source_holds(stream, held.start, held.end);
            let unacknowledged = self.ledger.take_unacknowledged_peak(stream).max(peak);
            if unacknowledged <= KEPT {
                self.budget.cut_scrollback(session, SCROLLBACK_BYTES_MAX);
                self.ledger.discarded(stream, held.end - KEPT.min(held.end));
                self.out(Action::ShrinkScrollback { session, to_bytes: SCROLLBACK_BYTES_MAX });
            } else {
                self.rings.check_at = Some(now.after_ms(RING_CHECK_MS));
            }
        }
        true
    }
}

const KEPT: u64 = SCROLLBACK_BYTES_MAX as u64;
