//! The output of one session: the scrollback, what the loop knows of it, how much may be read, and the screen.
//!
//! `session` reads the terminal. An incomplete character at the end is held back until its rest comes or [`TAIL_MS`]
//! have passed.

use super::pty::Size;
use super::scrollback::Scrollback;
use super::snapshot::{Made, Screens};
use crate::utf8::incomplete_tail;
use draupnir_fsm::driver::budget::Budget;
use std::ops::Range;
use std::rc::Rc;

/// How long the beginning of a character waits for its rest, in milliseconds: the next read usually has it, and a user
/// does not see so short a delay.
pub(super) const TAIL_MS: u64 = 20;

/// The output of a session, from its program to the loop.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) scrollback: Scrollback,
    pub(super) screens: Screens,
    /// Where the output ends that the loop knows of.
    known: u64,
    /// Where the part of it ends that could be sent.
    known_sendable: u64,
    /// More output was reported, and the loop has not asked for it yet.
    pub(super) report_waits: bool,
    /// Up to this offset an incomplete character may be sent.
    released: u64,
    /// Up to this offset the terminal may be read.
    allowed: u64,
    /// All output from this offset on is kept; `None` if no console waits for it.
    kept_from: Option<u64>,
    /// No more output will follow.
    pub(super) ended: bool,
}

impl Output {
    pub(super) fn new(scrollback: Scrollback, size: Size) -> Self {
        Self {
            scrollback,
            screens: Screens::new(size),
            known: 0,
            known_sendable: 0,
            report_waits: false,
            released: 0,
            allowed: 0,
            kept_from: Some(0),
            ended: false,
        }
    }

    /// The offsets of the output held, which the loop knows from now on.
    pub(super) fn held(&mut self) -> Range<u64> {
        let held = self.scrollback.held();
        self.known = held.end;
        self.known_sendable = self.sendable_end();
        self.report_waits = false;
        held
    }

    /// `bytes` more than the loop knows of may be read, and nothing is discarded from `keep_from` on.
    pub(super) fn grant(&mut self, bytes: usize, keep_from: Option<u64>) {
        self.allowed = self.known.saturating_add(bytes as u64);
        self.kept_from = keep_from;
    }

    /// How many bytes may be read now, up to `wanted`.
    pub(super) fn room(&mut self, wanted: usize) -> usize {
        let left = self.allowed.saturating_sub(self.scrollback.held().end);
        self.room_beyond(usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
    }

    /// How many bytes may be read now, up to `wanted`, where the loop will not allow any more.
    pub(super) fn room_beyond(&mut self, wanted: usize) -> usize {
        match self.kept_from {
            _ if self.ended => 0,
            Some(keep) if wanted > 0 => self.scrollback.room(keep, wanted),
            Some(_) | None => wanted,
        }
    }

    /// Is there output that the loop could send and does not know of?
    pub(super) fn has_news(&self) -> bool {
        self.sendable_end() > self.known_sendable
    }

    /// Does an incomplete character wait for its rest?
    pub(super) fn waits_for_rest(&self) -> bool {
        self.sendable_end() < self.scrollback.held().end
    }

    /// Lets an incomplete character be sent.
    pub(super) fn release(&mut self) {
        self.released = self.scrollback.held().end;
    }

    /// Copies what may be sent from an offset on; the result is the offset of the first byte.
    pub(super) fn chunk(&mut self, from: u64, max: usize, into: &mut Vec<u8>) -> u64 {
        into.clear();
        let from = self.scrollback.copy(from, max, into);
        let end = self.scrollback.held().end;
        let to = from.saturating_add(into.len() as u64);
        let goes = to == end && (self.ended || self.released >= end);
        if !goes {
            let whole = into.len() - incomplete_tail(into);
            // The rest of the first character will be reported, and the loop asks again. Elsewhere it would ask for the
            // same part of a character for ever.
            if whole > 0 || to == end || to == self.known {
                into.truncate(whole);
            }
        }
        from
    }

    /// Makes a snapshot, see [`Terminals::snapshot`](super::Terminals::snapshot).
    pub(super) fn snapshot(&mut self, from: u64, size: Option<Size>) -> Made {
        self.screens.make(&self.scrollback, from, size)
    }

    /// Keeps the screen as it is.
    pub(super) fn keep_screen(&mut self, budget: &Rc<Budget>) {
        self.screens.keep(&self.scrollback, budget);
    }

    /// From now on the terminal has another size.
    pub(super) fn resized(&mut self, size: Size) {
        self.screens.resized(self.scrollback.held().end, size);
    }

    /// Up to where it may be sent now.
    fn sendable_end(&self) -> u64 {
        let end = self.scrollback.held().end;
        if self.ended || self.released >= end {
            return end;
        }
        end.saturating_sub(self.scrollback.incomplete_tail() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::driver::{RING_BYTES_MAX, SessionKey};

    fn output() -> Output {
        Output::new(Scrollback::new(SessionKey(1), Rc::new(Budget::new())), Size { cols: 80, rows: 24 })
    }

    fn chunk(output: &mut Output, from: u64, max: usize) -> String {
        let mut bytes = Vec::new();
        output.chunk(from, max, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn characters_are_never_split_by_a_chunk() {
        let text = "aé€🦀".repeat(50);
        for max in 4..12 {
            let mut output = output();
            output.scrollback.append(text.as_bytes());
            let (mut at, mut seen) = (0, String::new());
            while at < text.len() as u64 {
                let part = chunk(&mut output, at, max);
                assert!(!part.is_empty() && part.len() <= max && !part.contains('\u{fffd}'));
                at += part.len() as u64;
                seen.push_str(&part);
            }
            assert_eq!(seen, text);
        }
    }

    #[test]
    fn an_incomplete_character_waits_for_its_rest() {
        let mut output = output();
        output.scrollback.append(b"x\xe2\x82");
        assert!(output.has_news() && output.waits_for_rest());
        assert_eq!(output.held(), 0..3);
        assert!(!output.has_news());
        assert_eq!(chunk(&mut output, 0, 100), "x");
        assert_eq!(chunk(&mut output, 1, 100), "");
        output.scrollback.append(b"\xac");
        assert!(output.has_news() && !output.waits_for_rest());
        assert_eq!(chunk(&mut output, 1, 100), "€");
    }

    #[test]
    fn incomplete_character_goes_at_its_deadline_or_the_end() {
        let mut output = output();
        output.scrollback.append(b"\xe2\x82");
        assert!(!output.has_news());
        output.held();
        output.release();
        assert!(output.has_news() && !output.waits_for_rest());
        assert_eq!(chunk(&mut output, 0, 100), "\u{fffd}");
        output.held();
        assert!(!output.has_news());
        output.scrollback.append(b"\xc3");
        assert!(output.waits_for_rest());
        output.ended = true;
        assert!(output.has_news() && !output.waits_for_rest());
    }

    #[test]
    fn unreported_bytes_complete_no_requested_character() {
        let mut output = output();
        output.scrollback.append(b"x\xe2\x82");
        assert_eq!(output.held(), 0..3);
        output.scrollback.append(b"\xac");
        // The rest is there, but the loop does not know of it yet.
        assert_eq!(chunk(&mut output, 0, 3), "x");
        assert_eq!(chunk(&mut output, 1, 2), "");
        assert!(output.has_news());
        output.held();
        assert_eq!(chunk(&mut output, 1, 3), "€");
    }

    #[test]
    fn garbage_flows() {
        let mut output = output();
        output.scrollback.append(&[0xff; 1000]);
        let mut bytes = Vec::new();
        assert_eq!(output.chunk(0, 300, &mut bytes), 0);
        assert_eq!(bytes.len(), 300);
        output.scrollback.append(&[0xf0; 10]);
        output.chunk(1000, 3, &mut bytes);
        assert_eq!(bytes.len(), 2, "the last one might begin a character");
        output.chunk(1005, 1, &mut bytes);
        assert_eq!(bytes.len(), 1, "and yet it comes to an end");
    }

    #[test]
    fn reading_stops_without_credit_and_at_bytes_to_keep() {
        let mut output = output();
        assert_eq!(output.room(100), 0);
        output.grant(50, Some(0));
        assert_eq!(output.room(100), 50);
        output.scrollback.append(&[b'a'; 50]);
        assert_eq!(output.room(100), 0);
        // Credit counts from the last offset that the loop knows.
        output.grant(60, Some(0));
        assert_eq!(output.room(100), 10);
        output.held();
        output.grant(usize::MAX, Some(0));
        let room = output.room(usize::MAX);
        assert_eq!(room, RING_BYTES_MAX - 50, "the buffer grows for what the console has not seen");
        output.scrollback.append(&vec![b'a'; room]);
        assert_eq!(output.held(), 0..RING_BYTES_MAX as u64);
        assert_eq!(output.room(100), 0);
        output.grant(usize::MAX, None);
        assert_eq!(output.room(100), 100);
        output.ended = true;
        assert_eq!(output.room(100), 0);
    }
}
