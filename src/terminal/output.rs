//! The output of one session: the scrollback, what the loop knows of it, and how much may be read.
//!
//! `session` reads the terminal. An incomplete character at the end is held back until its rest comes or [`TAIL_MS`]
//! have passed.

use super::Replay;
use super::replay::Filter;
use super::scrollback::Scrollback;
use crate::utf8::incomplete_tail;
use std::ops::Range;

/// How long the beginning of a character waits for its rest, in milliseconds: the next read usually has it, and a user
/// does not see so short a delay.
pub(super) const TAIL_MS: u64 = 20;

/// Resets the terminal and clears both screens.
pub(super) const RESET: &[u8] = b"\x1bc";

/// The output of a session, from its program to the loop.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) scrollback: Scrollback,
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
    /// The end of the last chunk, of a replay or not.
    cut: u64,
    /// During a replay: the state of its filter at an offset.
    filter: Option<(u64, Filter)>,
}

impl Output {
    pub(super) const fn new(scrollback: Scrollback) -> Self {
        Self {
            scrollback,
            known: 0,
            known_sendable: 0,
            report_waits: false,
            released: 0,
            allowed: 0,
            kept_from: Some(0),
            ended: false,
            cut: 0,
            filter: None,
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
        if !into.is_empty() {
            self.cut = from.saturating_add(into.len() as u64);
        }
        from
    }

    /// Where a replay begins, and with what.
    pub(super) fn replay(&self) -> Replay {
        let start = self.scrollback.safe_start();
        let mut prelude = [RESET, &start.modes.unanswered().sequences()].concat();
        if start.offset == self.scrollback.held().end {
            // There is nothing but the middle of one sequence, the rest of which is not to be shown as text.
            prelude.extend_from_slice(self.scrollback.filter_at(start.offset, None).harmless_opening());
        }
        Replay { prelude, from: start.offset }
    }

    /// Writes what a replay may show of the `max` bytes from an offset on; the result is how many of them that settles:
    /// fewer where a unit would be cut, none while it depends on bytes to come what the last unit is.
    pub(super) fn replay_chunk(&mut self, from: u64, max: usize, into: &mut Vec<u8>) -> usize {
        into.clear();
        let gone = self.scrollback.held().start.saturating_sub(from);
        if gone > 0 {
            return usize::try_from(gone).unwrap_or(usize::MAX).min(max);
        }
        let mut filter = self.scrollback.filter_at(from, self.filter.take());
        self.filter = Some((from, filter.clone()));
        if !filter.is_between_units() {
            // The last chunk ended with an opening, and this one, unlike the live stream, does not go on with it.
            into.extend_from_slice(b"\x1b\\");
        }
        let (mut read, mut settled, mut shown) = (0, 0, into.len());
        for byte in self.scrollback.bytes_from(from).take(max) {
            filter.push(byte, into);
            read += 1;
            if filter.is_between_units() {
                (settled, shown) = (read, into.len());
            }
        }
        into.truncate(shown);
        if settled == 0 && read > 0 {
            let Some(opening) = self.opening(&filter, from.saturating_add(read as u64)) else {
                return 0;
            };
            into.extend_from_slice(&opening);
            settled = read;
        }
        self.cut = from.saturating_add(settled as u64);
        settled
    }

    /// What follows a replay: what sets the modes that hold behind the last chunk, and the beginning of the unit that
    /// the next one goes on with.
    pub(super) fn epilogue(&mut self) -> Vec<u8> {
        let held = self.scrollback.held();
        let at = self.cut.clamp(held.start, held.end);
        let filter = self.scrollback.filter_at(at, self.filter.take());
        let opening = self.opening(&filter, at).unwrap_or_else(|| filter.opening());
        [filter.modes().sequences(), opening].concat()
    }

    /// What brings a terminal to the unit that a filter is in, so that what goes on at an offset is shown as it should;
    /// `None` while that is not known.
    fn opening(&self, filter: &Filter, at: u64) -> Option<Vec<u8>> {
        match filter.outlook_with(self.scrollback.bytes_from(at)) {
            Some(true) => Some(filter.opening()),
            Some(false) => Some(filter.harmless_opening().to_vec()),
            None => self.ended.then(Vec::new),
        }
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
    use draupnir_fsm::driver::budget::Budget;
    use draupnir_fsm::driver::{RING_BYTES_MAX, SessionKey};
    use std::rc::Rc;

    fn output() -> Output {
        Output::new(Scrollback::new(SessionKey(1), Rc::new(Budget::new())))
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

    /// What a console is shown that re-attaches when all up to `until` was sent, in chunks of `max` bytes, and how much
    /// of that came before the epilogue.
    fn shown(output: &mut Output, until: usize, max: usize) -> Option<(Vec<u8>, usize)> {
        let Replay { prelude, from } = output.replay();
        let (mut shown, mut part, mut at) = (prelude, Vec::new(), from.min(until as u64));
        while at < until as u64 {
            let settled = output.replay_chunk(at, max.min(until - usize::try_from(at).expect("small")), &mut part);
            if settled == 0 {
                return None;
            }
            at += settled as u64;
            shown.extend_from_slice(&part);
        }
        let before = shown.len();
        shown.extend(output.epilogue());
        Some((shown, before))
    }

    fn printed(bytes: &[u8]) -> Output {
        let mut output = output();
        output.scrollback.append(bytes);
        output
    }

    #[test]
    fn replay_cut_into_chunks_shows_the_same() {
        let bytes = "a\x1b[c\x1b[?1;1004h\x1b]0;title\x07é€🦀\x1b]52;c;aGk=\x07\x1bPq#0~\x1b\\z\r\n".as_bytes();
        let whole = shown(&mut printed(bytes), bytes.len(), usize::MAX);
        for max in 17..bytes.len() {
            assert_eq!(shown(&mut printed(bytes), bytes.len(), max), whole, "{max}");
        }
        // A unit that is longer than a chunk is begun again, and what was begun is closed.
        let (screen, _) = shown(&mut printed(b"\x1b]52;c;\x07\x1b[31mx"), 14, 5).expect("it is there");
        assert_eq!(screen, b"\x1bc\x1b[?25h\x1b]9999;\x1b\\\x1b[31mx\x1b[?25h");
    }

    /// Units of which a part was sent, and what the epilogue sends so that the rest completes them.
    #[test]
    fn unit_cut_between_replay_and_live_is_completed_or_ignored() {
        for (sent, rest, opening) in [
            (b"\x1b[3".as_slice(), b"1m".as_slice(), b"\x1b[3".as_slice()),
            (b"\x1b", b"[31m", b"\x1b"),
            (b"\x1b]8;;https://a", b".example\x07", b"\x1b]8;;https://a"),
            (b"\x1b]0;t\x1b", b"\\", b"\x1b]0;t\x1b"),
            (b"\x1b(", b"0", b"\x1b("),
            (b"\xe2\x82", b"\xac", b"\xe2\x82"),
            (b"\xc2", b"\xa7", b"\xc2"),
            (b"\x1b[", b"c", b"\x1b[0?"),
            (b"\x1b[?6", b"n", b"\x1b[0?"),
            (b"\x1b[3\x07", b"1m", b"\x1b[3"),
            (b"\x1b]1", b"1;?\x07", b"\x1b]9999;"),
            (b"\x1b]52;c;aG", b"k=\x07", b"\x1b]9999;"),
            (b"\x1b]52;c;aG", b"\x1b[31m", b"\x1b]9999;"),
            (b"\x1b]52;c;aGk=\x1b", b"[31m", b"\x1b"),
            (b"\x1b]52;c;aGk=\x1b", b"\\", b"\x1b"),
            (b"\x1bPq\x1b", b"\\", b"\x1b"),
            (b"\x1bPq\x1b", b"Z", b""),
            (b"\x1b]52;c;aG", b"\x1b]0;t\x07", b"\x1b]9999;"),
            (b"\x1bP$", b"qm\x1b\\", b"\x1bX"),
            (b"\x1b", b"Z", b""),
            (b"\xc2", b"\x9bc", b""),
            (b"\xc2\x9b", b"c", b"\x1b[0?"),
        ] {
            let mut output = printed(&[b"a", sent, rest].concat());
            let (screen, before) = shown(&mut output, 1 + sent.len(), 100).expect("the rest is there");
            assert_eq!(
                screen,
                [b"\x1bc\x1b[?25ha", opening, b"\x1b[?25h", opening].concat(),
                "{:?}",
                sent.escape_ascii()
            );
            assert!(screen.get(before..).expect("within").ends_with(opening));
        }
    }

    #[test]
    fn replay_waits_while_a_unit_might_ask() {
        for sent in [b"a\x1b".as_slice(), b"a\x1b[", b"a\x1b[6", b"a\x1b]", b"a\x1b]8;;https://a", b"a\xc2"] {
            let mut output = printed(sent);
            assert_eq!(shown(&mut output, sent.len(), 100), None, "{:?}", sent.escape_ascii());
            output.ended = true;
            let (screen, _) = shown(&mut output, sent.len(), 100).expect("nothing follows");
            assert_eq!(screen, b"\x1bc\x1b[?25ha\x1b[?25h", "{:?}", sent.escape_ascii());
        }
        for sent in [b"a\xe2".as_slice(), b"a\x1b]52;", b"a\x1b]11;?", b"a\x1bP", b"a\x1b[1?"] {
            assert!(shown(&mut printed(sent), sent.len(), 100).is_some(), "{:?}", sent.escape_ascii());
        }
    }

    #[test]
    fn replay_of_the_middle_of_a_string_hides_its_rest() {
        let mut output = printed(&[b"\x1b]52;c;".as_slice(), &[b'A'; 300 << 10]].concat());
        let end = output.held().end;
        assert_eq!(output.replay().prelude, b"\x1bc\x1b[?25h\x1b]9999;");
        output.cut = end;
        assert_eq!(output.epilogue(), b"\x1b[?25h\x1b]9999;");
        let mut shown = Vec::new();
        assert_eq!(output.replay_chunk(end - 10, 10, &mut shown), 10, "the beginning is not known");
        assert_eq!(shown, b"\x1b\\\x1b]9999;");
        assert_eq!(output.replay_chunk(0, 10, &mut shown), 10, "that is gone");
        assert_eq!(shown, b"");
    }
}
