//! Which modes a program has set in the terminal, read from its output.
//!
//! It is no terminal: it knows no screen, no cursor and no colours, but `ESC [ ? … h/l`, the keypad's `ESC =` and
//! `ESC >`, and the two resets. It takes bytes as they come, cut anywhere, and its state has a fixed size.

use super::parser::{Parser, State, Token};
use std::io::Write;

/// The modes that are remembered, as bits: those whose loss a user would notice after a re-attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modes(u16);

/// A private mode: its number and its bit.
const PRIVATE: [(u16, u16); 14] = [
    (47, 1),         // alternate screen
    (1047, 1 << 1),  // the same, cleared on leaving
    (1049, 1 << 2),  // the same, with the cursor saved
    (1, 1 << 3),     // cursor keys for applications
    (7, 1 << 4),     // lines wrap
    (25, 1 << 5),    // cursor is seen
    (1000, 1 << 6),  // mouse: buttons
    (1002, 1 << 7),  // mouse: drags
    (1003, 1 << 8),  // mouse: every movement
    (1004, FOCUS),   // focus, which is reported at once
    (1006, 1 << 10), // mouse coordinates as text
    (1015, 1 << 11), // the same, older
    (1005, 1 << 12), // the same, as UTF-8
    (2004, 1 << 13), // bracketed paste
];
const KEYPAD: u16 = 1 << 14;
const ALTERNATE: u16 = 0b111;
const FOCUS: u16 = 1 << 9;
const WRAP: u16 = 1 << 4;
const CURSOR_SEEN: u16 = 1 << 5;
const CURSOR_KEYS: u16 = 1 << 3;

impl Default for Modes {
    /// As a terminal is after a reset.
    fn default() -> Self {
        Self(WRAP | CURSOR_SEEN)
    }
}

impl Modes {
    /// Does the program use the whole screen?
    pub(super) const fn is_full_screen(self) -> bool {
        self.0 & ALTERNATE != 0
    }

    /// What sets these modes in a terminal that was just reset. Never empty: whether the cursor is seen is always said.
    pub(super) fn sequences(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bit) in PRIVATE {
            let differs = (self.0 ^ Self::default().0) & bit != 0;
            if differs || bit == CURSOR_SEEN {
                let set = if self.0 & bit != 0 { 'h' } else { 'l' };
                write!(out, "\x1b[?{number}{set}").expect("a vector takes everything");
            }
        }
        if self.0 & KEYPAD != 0 {
            out.extend_from_slice(b"\x1b=");
        }
        out
    }

    /// The same without the mode that a terminal answers at once when it is set.
    pub(super) const fn unanswered(self) -> Self {
        Self(self.0 & !FOCUS)
    }

    fn set(&mut self, bits: u16, on: bool) {
        if on {
            self.0 |= bits;
        } else {
            self.0 &= !bits;
        }
    }

    fn set_private(&mut self, number: u16, on: bool) {
        let Some((_, bit)) = PRIVATE.iter().find(|(known, _)| *known == number) else {
            return;
        };
        // Leaving the alternate screen by any of its numbers leaves it.
        let bits = if bit & ALTERNATE != 0 && !on { ALTERNATE } else { *bit };
        self.set(bits, on);
    }
}

/// Reads output and keeps the modes. `Default` is a terminal after a reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    modes: Modes,
    parser: Parser,
}

impl Scanner {
    /// Its state as bytes, for [`restore`](Self::restore).
    pub(super) fn save(&self) -> Vec<u8> {
        [&self.modes.0.to_le_bytes()[..], &self.parser.save()].concat()
    }

    /// A scanner in this state; `None` for bytes that are none.
    pub(super) fn restore(state: &[u8]) -> Option<Self> {
        let (modes, parser) = state.split_first_chunk()?;
        Some(Self { modes: Modes(u16::from_le_bytes(*modes)), parser: Parser::restore(parser)? })
    }

    /// The modes as they are behind the last byte.
    pub(super) const fn modes(&self) -> Modes {
        self.modes
    }

    pub(super) const fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Is the last byte the end of a sequence, or text?
    pub(super) fn is_between_sequences(&self) -> bool {
        self.parser.state() == State::Ground
    }

    /// Reads more output.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            // Text and strings are most of all output: go over them at once.
            let skip = self.parser.skippable(bytes);
            if skip > 0 {
                bytes = bytes.get(skip..).unwrap_or_default();
            } else {
                self.step(*first);
                bytes = rest;
            }
        }
    }

    /// Reads one byte.
    pub(super) fn step(&mut self, byte: u8) -> Token {
        let token = self.parser.step(byte);
        let sequence = self.parser.sequence();
        match (token, sequence.marker, sequence.intermediate) {
            _ if sequence.malformed => {}
            (Token::Escape(b'=' | b'>'), 0, 0) => self.modes.set(KEYPAD, token == Token::Escape(b'=')),
            (Token::Escape(b'c'), 0, 0) => self.modes = Modes::default(),
            (Token::Sequence(b'h' | b'l'), b'?', 0) => {
                for number in sequence.numbers() {
                    self.modes.set_private(*number, token == Token::Sequence(b'h'));
                }
            }
            (Token::Sequence(b'p'), 0, b'!') => {
                self.modes.set(CURSOR_SEEN | WRAP, true);
                self.modes.set(CURSOR_KEYS | KEYPAD, false);
            }
            _ => {}
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(output: &[u8]) -> String {
        let mut scanner = Scanner::default();
        scanner.feed(output);
        String::from_utf8(scanner.modes().sequences()).expect("text")
    }

    const RESET: &str = "\x1b[?25h";

    #[test]
    fn modes_are_set_and_reset() {
        assert_eq!(after(b"hello"), RESET);
        assert_eq!(after(b"\x1b[?2004h$ "), "\x1b[?25h\x1b[?2004h");
        assert_eq!(after(b"\x1b[?2004h$ \x1b[?2004l"), RESET);
        assert_eq!(after(b"\x1b[?25l"), "\x1b[?25l");
        assert_eq!(after(b"\x1b[?7l"), "\x1b[?7l\x1b[?25h");
        assert_eq!(after(b"\x1b[?1000;1006h"), "\x1b[?25h\x1b[?1000h\x1b[?1006h");
        assert_eq!(after(b"\x1b[?1h\x1b="), "\x1b[?1h\x1b[?25h\x1b=");
        assert_eq!(after(b"\x1b[?1h\x1b=\x1b[?1l\x1b>"), RESET);
    }

    #[test]
    fn saved_scanner_goes_on_in_the_middle_of_anything() {
        let output = "\x1b[?1049h\x1b[?1;2004h\x1b]0;title\x1b\\\x1bP1q\x18\u{9b}?25l\x1b[?1000;1006h\x1b(0é\x1b=";
        for cut in 0..=output.len() {
            let (before, after) = output.as_bytes().split_at(cut);
            let mut whole = Scanner::default();
            whole.feed(before);
            let mut restored = Scanner::restore(&whole.save()).expect("it was saved");
            whole.feed(after);
            restored.feed(after);
            assert_eq!(restored.save(), whole.save(), "{cut}");
        }
        assert!(Scanner::restore(b"").is_none());
        assert!(Scanner::restore(&[0xff; 64]).is_none());
    }

    #[test]
    fn the_alternate_screen_is_left_by_any_of_its_numbers() {
        assert_eq!(after(b"\x1b[?1049h"), "\x1b[?1049h\x1b[?25h");
        assert_eq!(after(b"\x1b[?47h"), "\x1b[?47h\x1b[?25h");
        assert_eq!(after(b"\x1b[?1049h\x1b[?47l"), RESET);
        let mut scanner = Scanner::default();
        scanner.feed(b"\x1b[?1047h");
        assert!(scanner.modes().is_full_screen());
        scanner.feed(b"\x1b[?1047l");
        assert!(!scanner.modes().is_full_screen());
    }

    #[test]
    fn resets_reset() {
        assert_eq!(after(b"\x1b[?1049;25;2004l\x1b[?1003h\x1bc"), RESET);
        assert_eq!(after(b"\x1b[?25l\x1b[?1h\x1b[?2004h\x1b[!p"), "\x1b[?25h\x1b[?2004h");
    }

    #[test]
    fn similar_sequences_are_no_mode() {
        for other in [
            b"\x1b[25l".as_slice(),
            b"\x1b[>25l",
            b"\x1b[?25$l",
            b"\x1b[?25x",
            b"\x1b[2?5l",
            b"\x1b[??25l",
            b"[?25l",
            b"\x1b]0;\x07[?25l",
            b"\x1b[?2\x18 5l",
            b"\x1b[?99999999925l",
            b"\x1b[?25\xc3\xa9l",
            b"\x9b?25l",
        ] {
            assert_eq!(after(other), RESET, "{other:?}");
        }
    }

    #[test]
    fn only_a_soft_reset_resets_softly() {
        for other in [b"\x1b[?1h\x1b[?2!p".as_slice(), b"\x1b[?1h\x1b[!1p", b"\x1b[?1h\x1b[!!p", b"\x1b[?1h\x1b[>!p"] {
            assert_eq!(after(other), "\x1b[?1h\x1b[?25h", "{other:?}");
        }
        assert_eq!(after(b"\x1b[?1h\x1b[0!p"), RESET);
    }

    #[test]
    fn strings_hide_what_is_in_them_until_their_end() {
        assert_eq!(after(b"\x1b]0;title[?25l\x07\x1b[?25l"), "\x1b[?25l");
        assert_eq!(after(b"\x1bPdevice\x1b\\\x1b[?25l"), "\x1b[?25l");
        assert_eq!(after(b"\x1bPdevice\x07[?25l"), RESET, "BEL ends a title, and no other string");
        assert_eq!(after(b"\xc2\x9d0;title\xc2\x9c\xc2\x9b?25l"), "\x1b[?25l");
        assert_eq!(after(b"\x1b(0\x1b[?25l"), "\x1b[?25l");
    }

    #[test]
    fn aborted_string_ends_however_it_is_split() {
        for end in [0x18, 0x1a, 0x07] {
            let mut scanner = Scanner::default();
            scanner.feed(&[b"\x1b]0;title".as_slice(), &[end], b"text"].concat());
            assert!(scanner.is_between_sequences(), "{end:#x}");
        }
    }

    #[test]
    fn a_cut_anywhere_changes_nothing() {
        let output = b"a\x1b[?1049h\x1b[2J\x1b]0;t\x1b\\\x1b[?1;1000;1006h\xe2\x82\xac\x1b=\x1b[?25l\x1b[?2004hz";
        let whole = after(output);
        assert!(whole.contains("1049"));
        for cut in 0..=output.len() {
            let (front, back) = output.split_at(cut);
            let mut scanner = Scanner::default();
            scanner.feed(front);
            scanner.feed(back);
            assert_eq!(scanner.modes().sequences(), whole.as_bytes(), "cut at {cut}");
        }
        let mut scanner = Scanner::default();
        for byte in output {
            scanner.step(*byte);
        }
        assert_eq!(scanner.modes().sequences(), whole.as_bytes());
    }
}
