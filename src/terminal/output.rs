//! What one session has printed: the scrollback, what the loop was told of it, and what may be read next.
//!
//! It does not read the terminal. It holds an incomplete character at the end back, until the rest comes or
//! [`TAIL_MS`] have passed.

use super::Replay;
use super::scrollback::Scrollback;
use super::utf8::incomplete_tail;
use std::ops::Range;

/// How long the beginning of a character waits for its rest, in milliseconds: the next read has it if anything will,
/// and a user does not see so short a delay.
pub(super) const TAIL_MS: u64 = 20;

/// Everything in the terminal to its initial state, both screens cleared.
pub(super) const RESET: &[u8] = b"\x1bc";

/// The output of a session, from its program to the loop.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) scrollback: Scrollback,
    /// Up to where the loop knows of it.
    told: u64,
    /// Up to where it could send what it knows of.
    told_sendable: u64,
    /// The loop was told of more and has not asked yet.
    pub(super) report_waits: bool,
    /// Up to where a character that is not whole may go.
    released: u64,
    /// Up to where the terminal may be read.
    allowed: u64,
    /// From here on everything is kept; `None` where nobody waits for it.
    kept_from: Option<u64>,
    /// Nothing will follow.
    pub(super) ended: bool,
}

impl Output {
    pub(super) const fn new(scrollback: Scrollback) -> Self {
        Self {
            scrollback,
            told: 0,
            told_sendable: 0,
            report_waits: false,
            released: 0,
            allowed: 0,
            kept_from: Some(0),
            ended: false,
        }
    }

    /// The loop asks what there is.
    pub(super) fn tell(&mut self) -> Range<u64> {
        let held = self.scrollback.held();
        self.told = held.end;
        self.told_sendable = self.sendable_end();
        self.report_waits = false;
        held
    }

    /// `bytes` more than the loop knows of may be read, and nothing is discarded from `keep_from` on.
    pub(super) fn allow(&mut self, bytes: usize, keep_from: Option<u64>) {
        self.allowed = self.told.saturating_add(bytes as u64);
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

    /// Is there anything that the loop could send and does not know of?
    pub(super) fn has_news(&self) -> bool {
        self.sendable_end() > self.told_sendable
    }

    /// Does an incomplete character wait for its rest?
    pub(super) fn waits_for_rest(&self) -> bool {
        self.sendable_end() < self.scrollback.held().end
    }

    /// Lets an incomplete character go.
    pub(super) fn release(&mut self) {
        self.released = self.scrollback.held().end;
    }

    /// Copies what may be sent from an offset on; the result is the offset of the first byte.
    pub(super) fn chunk(&self, from: u64, max: usize, into: &mut Vec<u8>) -> u64 {
        into.clear();
        let from = self.scrollback.copy(from, max, into);
        let end = self.scrollback.held().end;
        let to = from.saturating_add(into.len() as u64);
        let goes = to == end && (self.ended || self.released >= end);
        if !goes {
            let whole = into.len() - incomplete_tail(into);
            // The rest comes, or is there and the loop is about to be told: it asks again. Anywhere else a cut within
            // the first character would never come to an end.
            if whole > 0 || to == end || to == self.told {
                into.truncate(whole);
            }
        }
        from
    }

    /// What to show somebody who re-attaches.
    pub(super) fn replay(&self) -> Replay {
        let start = self.scrollback.safe_start();
        let prelude = [RESET, &start.modes.sequences()].concat();
        Replay { prelude, from: start.offset, epilogue: self.scrollback.modes().sequences() }
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
    use draupnir_fsm::driver::SessionKey;
    use draupnir_fsm::driver::budget::Budget;
    use std::rc::Rc;

    fn output() -> Output {
        Output::new(Scrollback::new(SessionKey(1), Rc::new(Budget::new())))
    }

    fn chunk(output: &Output, from: u64, max: usize) -> String {
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
                let part = chunk(&output, at, max);
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
        assert_eq!(output.tell(), 0..3);
        assert!(!output.has_news());
        assert_eq!(chunk(&output, 0, 100), "x");
        assert_eq!(chunk(&output, 1, 100), "");
        output.scrollback.append(b"\xac");
        assert!(output.has_news() && !output.waits_for_rest());
        assert_eq!(chunk(&output, 1, 100), "€");
    }

    #[test]
    fn an_incomplete_character_goes_when_its_time_is_up_or_nothing_follows() {
        let mut output = output();
        output.scrollback.append(b"\xe2\x82");
        assert!(!output.has_news());
        output.tell();
        output.release();
        assert!(output.has_news() && !output.waits_for_rest());
        assert_eq!(chunk(&output, 0, 100), "\u{fffd}");
        output.tell();
        assert!(!output.has_news());
        output.scrollback.append(b"\xc3");
        assert!(output.waits_for_rest());
        output.ended = true;
        assert!(output.has_news() && !output.waits_for_rest());
    }

    #[test]
    fn what_the_loop_does_not_know_of_completes_no_character_that_it_asks_for() {
        let mut output = output();
        output.scrollback.append(b"x\xe2\x82");
        assert_eq!(output.tell(), 0..3);
        output.scrollback.append(b"\xac");
        // The rest is there, but the loop has not been told, and asks for what it knows of.
        assert_eq!(chunk(&output, 0, 3), "x");
        assert_eq!(chunk(&output, 1, 2), "");
        assert!(output.has_news());
        output.tell();
        assert_eq!(chunk(&output, 1, 3), "€");
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
    fn reading_stops_at_what_is_allowed_and_at_what_must_be_kept() {
        let mut output = output();
        assert_eq!(output.room(100), 0);
        output.allow(50, Some(0));
        assert_eq!(output.room(100), 50);
        output.scrollback.append(&[b'a'; 50]);
        assert_eq!(output.room(100), 0);
        // The allowance counts from what the loop knows.
        output.allow(60, Some(0));
        assert_eq!(output.room(100), 10);
        output.tell();
        output.allow(usize::MAX, Some(0));
        output.scrollback.append(&vec![b'a'; (256 << 10) - 60]);
        assert_eq!(output.room(100), 10, "nobody has seen the beginning");
        output.allow(usize::MAX, None);
        assert_eq!(output.room(100), 100);
        output.ended = true;
        assert_eq!(output.room(100), 0);
    }
}
