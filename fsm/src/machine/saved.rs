//! What one program gives the next of the connection in a hand-over.
//!
//! The next program waits as long as this one would have, and cures the console of what broke before. Ages are not
//! given: they count from the hand-over, which makes a wait longer and never shorter.

use super::Context;
use super::connection::Connection;
use crate::backoff::Backoff;
use crate::time::Time;
use crate::timer::{Timer, Timers};
use serde::{Deserialize, Serialize};

/// The part of the connection that goes on in the next program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SavedConnection {
    /// How far the waits have grown.
    backoff: Backoff,
    /// The console does not know this instance.
    is_unknown: bool,
    /// What is left of the wait for the next attempt, in milliseconds.
    retry_in_ms: u64,
    /// The console must be cured of a loss that was unclean.
    is_resync_due: bool,
    /// Resyncs in a row whose close was not answered.
    resyncs_unanswered: u8,
    /// Another connection took this one's place, and that counts still.
    was_replaced: bool,
    /// It was reported that two agents share the id.
    is_shared_id_reported: bool,
}

impl SavedConnection {
    /// Whether there is nothing to go on with.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Connection {
    pub(super) fn to_hand_over(&self, now: Time, timers: &Timers) -> SavedConnection {
        let deadlines = [timers.deadline(Timer::Retry), timers.deadline(Timer::Begin)];
        let retry_at = deadlines.into_iter().flatten().fold(self.retry_at, Time::max);
        SavedConnection {
            backoff: self.backoff,
            is_unknown: !self.registration.done,
            retry_in_ms: retry_at.ms_since(now),
            is_resync_due: self.resync.due,
            resyncs_unanswered: self.resync.unanswered,
            was_replaced: self.replacements.last.is_some(),
            is_shared_id_reported: self.replacements.reported,
        }
    }

    /// Goes on as the connection of the program before this one, before the first attempt.
    pub(super) fn take_over(&mut self, saved: SavedConnection, context: &mut Context<'_>) {
        self.backoff = saved.backoff;
        self.registration.done &= !saved.is_unknown;
        (self.resync.due, self.resync.unanswered) = (saved.is_resync_due, saved.resyncs_unanswered);
        self.resync.unclean_at = context.now;
        self.replacements.last = saved.was_replaced.then_some(context.now);
        self.replacements.reported = saved.is_shared_id_reported;
        context.arm_in(Timer::Begin, saved.retry_in_ms);
    }
}
