//! The output of a session without its terminal, for the fuzzer: bytes in, frames out.
//!
//! [`Terminals`](super::Terminals) uses the same parts. It has no clock: the caller ends the wait for the rest of a
//! character with [`release`](Stream::release).

use super::Replay;
use super::output::Output;
use super::scrollback::Scrollback;
use draupnir_fsm::driver::SessionKey;
use draupnir_fsm::driver::budget::Budget;
use std::ops::Range;
use std::rc::Rc;

/// What one session has printed.
#[derive(Debug)]
pub struct Stream {
    output: Output,
}

impl Stream {
    /// Nothing yet.
    pub fn new(session: SessionKey, budget: Rc<Budget>) -> Self {
        Self { output: Output::new(Scrollback::new(session, budget)) }
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

    /// See [`Terminals::replay`](super::Terminals::replay).
    pub fn replay(&self) -> Replay {
        self.output.replay()
    }

    /// See [`Terminals::replay_chunk`](super::Terminals::replay_chunk); the result is how many bytes are settled.
    pub fn replay_chunk(&mut self, from: u64, max: usize, into: &mut Vec<u8>) -> usize {
        self.output.replay_chunk(from, max, into)
    }

    /// See [`Terminals::epilogue`](super::Terminals::epilogue).
    pub fn epilogue(&mut self) -> Vec<u8> {
        self.output.epilogue()
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
