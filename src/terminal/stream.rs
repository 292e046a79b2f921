//! The output of a session without its terminal, for the fuzzer: bytes in, frames out.
//!
//! [`Terminals`](super::Terminals) uses the same parts. It has no clock: the caller ends the wait for the rest of a
//! character with [`release`](Stream::release).

use super::Snapshot;
use super::output::Output;
use super::screen::Size;
use super::scrollback::Scrollback;
use draupnir_fsm::driver::SessionKey;
use draupnir_fsm::driver::budget::Budget;
use std::ops::Range;
use std::rc::Rc;

/// What one session has printed.
#[derive(Debug)]
pub struct Stream {
    output: Output,
    budget: Rc<Budget>,
}

impl Stream {
    /// Nothing yet, in a terminal of this size.
    pub fn new(session: SessionKey, budget: Rc<Budget>, size: Size) -> Self {
        Self { output: Output::new(Scrollback::new(session, budget.clone()), size), budget }
    }

    /// Takes what was read; the caller reads no more than there is [room](Self::room) for.
    pub fn print(&mut self, bytes: &[u8]) {
        self.output.scrollback.append(bytes);
    }

    /// How many bytes may be read now, up to `wanted`.
    pub fn room(&mut self, wanted: usize) -> usize {
        self.output.room(wanted)
    }

    /// See [`Terminals::grant`](super::Terminals::grant).
    pub fn grant(&mut self, bytes: usize, keep_from: Option<u64>) {
        self.output.grant(bytes, keep_from);
    }

    /// Is there output that could be sent and that [`held`](Self::held) has not returned?
    pub fn has_news(&self) -> bool {
        self.output.has_news()
    }

    /// Does an incomplete character wait for its rest?
    pub fn waits_for_rest(&self) -> bool {
        self.output.waits_for_rest()
    }

    /// The wait is over.
    pub fn release(&mut self) {
        self.output.release();
    }

    /// See [`Terminals::held`](super::Terminals::held).
    pub fn held(&mut self) -> Range<u64> {
        self.output.held()
    }

    /// See [`Terminals::chunk`](super::Terminals::chunk); the result is the offset of the first byte.
    pub fn chunk(&mut self, from: u64, max: usize, into: &mut Vec<u8>) -> u64 {
        self.output.chunk(from, max, into)
    }

    /// See [`Terminals::snapshot`](super::Terminals::snapshot); with its bytes.
    pub fn snapshot(&mut self, from: u64, size: Option<Size>) -> (Snapshot, Vec<u8>) {
        let made = self.output.snapshot(from, size);
        (Snapshot { at: made.at, bytes: made.bytes.len(), exact: made.exact }, made.bytes)
    }

    /// See [`Terminals::keep_screen`](super::Terminals::keep_screen).
    pub fn keep_screen(&mut self) {
        self.output.keep_screen(&self.budget);
    }

    /// From now on the terminal has another size.
    pub fn resize(&mut self, size: Size) {
        self.output.resized(size);
    }

    /// See [`Terminals::shrink`](super::Terminals::shrink).
    pub fn shrink(&mut self, to_bytes: usize) {
        self.output.scrollback.shrink(to_bytes);
    }

    /// No more output will follow.
    pub fn end(&mut self) {
        self.output.ended = true;
    }
}
