//! Notices that the socket takes nothing: a batch that was handed over and makes no progress.
//!
//! The caller reports how many bytes the socket has taken, once a second while a batch is under way.

use super::WRITE_STALL_MS;
use crate::time::Time;

/// How often progress is asked for while a batch is under way, in milliseconds: the stall is noticed that much late.
const CHECK_MS: u64 = 1_000;

/// The batch that is under way.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Write {
    bytes_written: u64,
    progressed_at: Time,
    check_at: Time,
    reported: bool,
}

impl Write {
    /// A batch was handed over, when the socket had taken `bytes_written` bytes.
    pub(super) const fn started(now: Time, bytes_written: u64) -> Self {
        Self { bytes_written, progressed_at: now, check_at: now.after_ms(CHECK_MS), reported: false }
    }

    /// The socket has taken `bytes_written` bytes by now.
    pub(super) fn progress(&mut self, now: Time, bytes_written: u64) {
        if bytes_written != self.bytes_written {
            self.bytes_written = bytes_written;
            self.progressed_at = now;
        }
        self.check_at = now.after_ms(CHECK_MS);
    }

    /// When to ask for progress again.
    pub(super) fn next_check(&self) -> Option<Time> {
        (!self.reported).then(|| self.check_at.min(self.deadline()))
    }

    /// Has there been none for too long? True once.
    pub(super) fn take_stalled(&mut self, now: Time) -> bool {
        if now >= self.check_at {
            self.check_at = now.after_ms(CHECK_MS);
        }
        let stalled = !self.reported && now >= self.deadline();
        self.reported |= stalled;
        stalled
    }

    /// Time that the process did not live through does not count.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        self.progressed_at = self.progressed_at.after_ms(ms);
        self.check_at = self.check_at.after_ms(ms);
    }

    fn deadline(&self) -> Time {
        self.progressed_at.after_ms(WRITE_STALL_MS)
    }
}
