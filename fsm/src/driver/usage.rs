//! When usage records of AI tools go to the console, and when a port that was taken is tried again.
//!
//! Records go together, so that a busy tool does not cost a message each time. A batch is a reliable message of the
//! same kind as events. The records themselves wait at the adapter, oldest first.

use super::output::{Action, Message};
use super::ports::Body;
use super::{Driver, NoteId, Todo};
use crate::time::Time;

/// Most records in one `llm_usage:batch`: about 25 KB. As many are sent at once, whatever the interval is.
pub const USAGE_RECORDS_MAX: u32 = 100;

/// After this, a port that was taken is tried again: an agent that stops holds it for 4 s at most.
pub const LISTEN_RETRY_MS: u64 = 5_000;

/// The records that wait at the adapter, and the port for which it waits.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Usage {
    /// Less than [`USAGE_RECORDS_MAX`].
    records: u32,
    send_at: Option<Time>,
    listen_at: Option<Time>,
    is_taken_port_reported: bool,
}

impl Usage {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.send_at.into_iter().chain(self.listen_at).min()
    }

    pub(super) const fn records(&self) -> u32 {
        self.records
    }

    /// One record more, to be sent within `within_ms`.
    fn add(&mut self, now: Time, within_ms: u64) {
        self.records += 1;
        let latest = now.after_ms(if self.records < USAGE_RECORDS_MAX { within_ms } else { 0 });
        self.send_at = Some(self.send_at.map_or(latest, |due| due.min(latest)));
    }

    /// How many to send now.
    fn take_due(&mut self, now: Time) -> Option<u32> {
        self.send_at.take_if(|due| *due <= now)?;
        Some(core::mem::take(&mut self.records))
    }
}

impl<B: Body> Driver<B> {
    pub(super) fn usage_counted(&mut self, now: Time, within_ms: u64) {
        // A drain has no time to wait for more, nor has a hand-over.
        let is_late = self.machine.is_draining() || self.hand_over.is_closing();
        self.usage.add(now, if is_late { 0 } else { within_ms });
        self.send_due_usage(now);
    }

    /// Reports a taken port once, and tries it again later.
    pub(super) fn port_taken(&mut self, now: Time, note: NoteId) {
        if core::mem::replace(&mut self.usage.is_taken_port_reported, true) {
            self.out(Action::DropNote { note });
        } else {
            self.note(now, note, None);
        }
        self.usage.listen_at = Some(now.after_ms(LISTEN_RETRY_MS));
    }

    /// Does what of all this is due; false where nothing is.
    pub(super) fn advance_usage(&mut self, now: Time) -> bool {
        if self.usage.listen_at.take_if(|due| *due <= now).is_some() {
            self.out(Action::Listen);
            return true;
        }
        self.send_due_usage(now)
    }

    fn send_due_usage(&mut self, now: Time) -> bool {
        let Some(records) = self.usage.take_due(now) else { return false };
        self.todo.push_back(Todo::Send(Message::Usage { records }));
        true
    }

    /// Sends what waits now, because the agent stops, and listens no more.
    pub(super) fn drain_usage(&mut self, now: Time) {
        self.usage.listen_at = None;
        self.send_usage_now(now);
    }

    /// Sends what waits.
    pub(super) fn send_usage_now(&mut self, now: Time) {
        if let Some(due) = &mut self.usage.send_at {
            *due = now;
            self.send_due_usage(now);
        }
    }
}
