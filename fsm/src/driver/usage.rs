//! When usage records of AI tools go to the console: together, so that a busy tool does not cost a message each time.
//!
//! A batch is a reliable message of the same kind as events. The records themselves wait at the adapter, oldest first.

use super::output::Message;
use super::ports::Body;
use super::{Driver, Todo};
use crate::time::Time;

/// Most records in one `llm_usage:batch`: about 25 KB. As many are sent at once, whatever the interval is.
pub const USAGE_RECORDS_MAX: u32 = 100;

/// The records that wait at the adapter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Less than [`USAGE_RECORDS_MAX`].
    records: u32,
    due: Option<Time>,
}

impl Waiting {
    pub(super) const fn next_deadline(&self) -> Option<Time> {
        self.due
    }

    /// One record more, to be sent within `within_ms`.
    fn add(&mut self, now: Time, within_ms: u64) {
        self.records += 1;
        let latest = now.after_ms(if self.records < USAGE_RECORDS_MAX { within_ms } else { 0 });
        self.due = Some(self.due.map_or(latest, |due| due.min(latest)));
    }

    /// How many to send now.
    fn take_due(&mut self, now: Time) -> Option<u32> {
        self.due.take_if(|due| *due <= now)?;
        Some(core::mem::take(&mut self.records))
    }
}

impl<B: Body> Driver<B> {
    pub(super) fn usage_counted(&mut self, now: Time, within_ms: u64) {
        // A drain has no time to wait for more.
        self.usage.add(now, if self.machine.is_draining() { 0 } else { within_ms });
        self.send_due_usage(now);
    }

    /// Queues the batch that is due; false where none is.
    pub(super) fn send_due_usage(&mut self, now: Time) -> bool {
        let Some(records) = self.usage.take_due(now) else { return false };
        self.todo.push_back(Todo::Send(Message::Usage { records }));
        true
    }

    /// Sends what waits now, because the agent stops.
    pub(super) fn drain_usage(&mut self, now: Time) {
        if let Some(due) = &mut self.usage.due {
            *due = now;
            self.send_due_usage(now);
        }
    }
}
