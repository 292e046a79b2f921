//! What the output that a session no longer holds has set: modes, pen, character sets, title, scroll region.
//!
//! It reads every byte that is dropped, so it goes over text at once and looks at sequences alone. It keeps no cell and
//! no cursor. Of tab stops it knows that they were changed, of the saved cursor that there is one.

use super::parser::{C1_LEAD, Parser, Token};
use super::screen::{Screen, Size};
use memchr::memrchr2;

/// The longest string that is read, in bytes: a link to an address twice as long as browsers accept.
pub(super) const STRING_BYTES_MAX: usize = 4 << 10;

/// How many bytes of sequences for colours are kept as they are, before they become a pen: a few of the longest.
const PEN_BYTES_MAX: usize = 128;

/// A model of the smallest size has all that is set, and no screen.
const SIZE: Size = Size { cols: 1, rows: 1 };

/// Reads output and keeps what stays set.
#[derive(Debug)]
pub(super) struct Sticky {
    parser: Parser,
    screen: Screen,
    /// Sequences for colours since the last that reset all of them: they are most of all sequences.
    pen: Vec<u8>,
    /// The last sequence that set the scroll region.
    region: Vec<u8>,
    /// A tab stop was set or cleared.
    sets_tabs: bool,
    /// A cursor was saved.
    saves_cursor: bool,
    /// The current sequence or string, without its introducer.
    unit: Vec<u8>,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            parser: Parser::default(),
            screen: Screen::new(SIZE),
            pen: Vec::new(),
            region: Vec::new(),
            sets_tabs: false,
            saves_cursor: false,
            unit: Vec::new(),
        }
    }
}

impl Sticky {
    /// Where the grammar is behind the last byte.
    pub(super) const fn parser(&self) -> &Parser {
        &self.parser
    }

    /// The same state again.
    pub(super) fn copy(&self) -> Self {
        Self::restore(&self.save()).unwrap_or_default()
    }

    /// Its state as bytes, for [`restore`](Self::restore): parts, each behind its length.
    pub(super) fn save(&self) -> Vec<u8> {
        let alternate: &[u8] = if self.screen.is_alternate() { b"\x1b[?1049h" } else { b"" };
        let set = [alternate, &self.screen.settings()].concat();
        let flags = [self.sets_tabs.then_some(b't'), self.saves_cursor.then_some(b's')];
        let flags: Vec<u8> = flags.into_iter().flatten().collect();
        let parts: [&[u8]; 6] = [&self.parser.save(), &set, &self.pen, &self.region, &flags, &self.unit];
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or_default().to_le_bytes();
        parts.iter().flat_map(|part| [&length(part), *part].concat()).collect()
    }

    /// The same state again; `None` for bytes that are none.
    pub(super) fn restore(saved: &[u8]) -> Option<Self> {
        let mut rest = saved;
        let mut next = || {
            let (length, behind) = rest.split_first_chunk()?;
            let (part, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            rest = behind;
            Some(part)
        };
        let parser = Parser::restore(next()?)?;
        let mut screen = Screen::new(SIZE);
        screen.feed(next()?);
        let (pen, region, flags) = (next()?.to_vec(), next()?.to_vec(), next()?);
        let (sets_tabs, saves_cursor) = (flags.contains(&b't'), flags.contains(&b's'));
        Some(Self { parser, screen, pen, region, sets_tabs, saves_cursor, unit: next()?.to_vec() })
    }

    /// Brings a screen into this state. Its cells and its cursor are unknown then.
    pub(super) fn apply(&self, screen: &mut Screen) {
        screen.feed(b"\x1bc");
        if self.screen.is_alternate() {
            screen.feed(b"\x1b[?1049h");
        }
        screen.feed(&self.region);
        screen.feed(&self.screen.settings());
        screen.feed(&self.pen);
        screen.forget();
        if self.sets_tabs {
            screen.forget_tabs();
        }
        if self.saves_cursor {
            screen.forget_saved();
        }
    }

    /// Reads more output.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            let skip = self.parser.skippable(bytes);
            let (skipped, behind) = bytes.split_at(skip);
            if skip == 0 {
                self.step(*first);
                bytes = rest;
            } else {
                if !self.parser.is_in_text() {
                    self.keep(skipped);
                } else if let Some(shift) = memrchr2(0x0e, 0x0f, skipped).and_then(|at| skipped.get(at)) {
                    self.screen.feed(&[*shift]);
                }
                bytes = behind;
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        // One that is too long is no title and no link.
        let room = (STRING_BYTES_MAX + 1).saturating_sub(self.unit.len());
        self.unit.extend(part.iter().take(room).filter(|byte| **byte >= 0x20));
    }

    fn step(&mut self, byte: u8) {
        let token = self.parser.step(byte);
        let (marker, intermediate, malformed) = self.parser.kind();
        let is_control = matches!(byte, 0x80..=0x9F) && !matches!(token, Token::Text(_) | Token::Part(_));
        if is_control && self.unit.last() == Some(&C1_LEAD) {
            // Both bytes are the control that ends the string.
            self.unit.pop();
        }
        match token {
            Token::Begin => self.unit.clear(),
            Token::Part(byte) => self.keep(&[byte]),
            _ if malformed || self.unit.len() > STRING_BYTES_MAX => {}
            Token::Escape(last) => self.escape(intermediate, last),
            Token::Sequence(last) => self.sequence(marker, intermediate, last),
            Token::Command => {
                let number = self.unit.split(|byte| *byte == b';').next();
                if matches!(number, Some(b"0" | b"1" | b"2" | b"8")) {
                    self.pass(b"\x1b]", b"\x1b\\");
                }
            }
            Token::Control(0x0e | 0x0f) => self.screen.feed(&[byte]),
            Token::Nothing | Token::Text(_) | Token::Control(_) => {}
        }
    }

    fn escape(&mut self, intermediate: u8, last: u8) {
        match (intermediate, last) {
            (0, b'c') => *self = Self { parser: self.parser.clone(), ..Self::default() },
            (0, b'7' | b'8' | b'=' | b'>' | b'n' | b'o') => {
                self.settle_pen();
                self.saves_cursor |= last == b'7';
                self.screen.feed(&[0x1b, last]);
            }
            (0, b'H') => self.sets_tabs = true,
            (b'('..=b'+', _) => self.screen.feed(&[0x1b, intermediate, last]),
            _ => {}
        }
    }

    fn sequence(&mut self, marker: u8, intermediate: u8, last: u8) {
        match (marker, intermediate, last) {
            (0, 0, b'm') => {
                if matches!(&*self.unit, [] | [b'0'] | [b'0', b';', ..]) {
                    self.pen.clear();
                }
                self.pen.extend_from_slice(b"\x1b[");
                self.pen.extend_from_slice(&self.unit);
                self.pen.push(b'm');
                if self.pen.len() > PEN_BYTES_MAX {
                    self.settle_pen();
                }
            }
            (0, 0, b'g') => self.sets_tabs = true,
            (0, 0, b'r') => {
                self.region = [b"\x1b[", &*self.unit, b"r"].concat();
            }
            (0 | b'?', 0, b'h' | b'l') | (0, 0, b's' | b'u') | (0, b'!', b'p') => {
                self.settle_pen();
                if last == b'p' {
                    self.region.clear();
                }
                let mut modes = self.unit.split(|byte| matches!(byte, b'?' | b';'));
                self.saves_cursor |= match (marker, last) {
                    (b'?', b'h') => modes.any(|mode| matches!(mode, b"1048" | b"1049")),
                    _ => last == b's',
                };
                self.pass(b"\x1b[", &[last]);
            }
            (0, b' ', b'q') | (b'>', 0, b'm' | b'n' | b'u') | (b'<' | b'=', 0, b'u') => self.pass(b"\x1b[", &[last]),
            _ => {}
        }
    }

    fn settle_pen(&mut self) {
        self.screen.feed(&self.pen);
        self.pen.clear();
    }

    fn pass(&mut self, begin: &[u8], end: &[u8]) {
        self.screen.feed(begin);
        self.screen.feed(&self.unit);
        self.screen.feed(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Size = Size { cols: 20, rows: 5 };

    /// What is set after output of which nothing is held, against what a screen has that has read it.
    fn assert_kept(output: &[u8]) {
        for cut in 0..=output.len() {
            let (front, back) = output.split_at(cut);
            let mut sticky = Sticky::default();
            sticky.feed(front);
            let mut sticky = sticky.copy();
            sticky.feed(back);
            let (mut kept, mut whole) = (Screen::new(SHOWN), Screen::new(SHOWN));
            sticky.apply(&mut kept);
            whole.feed(output);
            whole.forget();
            // The cursor that was saved last is unknown, too.
            let save = b"\x1b7";
            kept.feed(save);
            whole.feed(save);
            assert_eq!(kept.difference(&whole), None, "{:?}, cut at {cut}", output.escape_ascii());
            assert!(!kept.is_known());
        }
    }

    #[test]
    fn what_was_set_is_kept_without_its_output() {
        assert_kept(b"text\x1b[1;31mred\x1b[0;4mline");
        assert_kept(b"\x1b[?1049h\x1b[?25l\x1b[?1;1000;1006;2004h\x1b=\x1b[2;4r\x1b[44m screen");
        assert_kept(b"\x1b]0;title\x07\x1b]8;id=1;http://a/\x1b\\link\x1b]2;a;b\xc2\x9c");
        assert_kept(b"\x1b(0\x1b)A\x1b[4h\x1b[3 q\x1b[>1u\x1b[=5u\x1b[>4;1m\x1bn");
        assert_kept(b"\x1b[1m\x1b[2r\x1b[?2004h\x1bcx");
        assert_kept(b"\x1b[?1h\x1b[2;3r\x1b[!p\x1b[?7l");
        assert_kept(&b"\x1b[1m\x1b[38;2;100;200;100m\x1b[48;2;10;20;30m".repeat(9));
        assert_kept(b"\x1b)0\x0etext\x1b*A\x1b[\x0f1m\x0e");
        assert_kept("\u{9b}1m€\x1b[3".as_bytes());
    }

    #[test]
    fn bytes_that_are_no_state_are_refused() {
        let saved = Sticky::default().save();
        assert!(Sticky::restore(&saved).is_some());
        assert!((0..saved.len()).all(|length| Sticky::restore(&saved[..length]).is_none()));
        assert!(Sticky::restore(&[0xff; 64]).is_none());
    }

    #[test]
    fn similar_sequences_set_nothing() {
        for output in
            [b"\x1b]0;\x07[?25l".as_slice(), b"\x1b[?2\x18 5l", b"\x1b[?25$l", b"\x1bP\x07[?25l", b"\x9b?25l", b"[?25l"]
        {
            assert_kept(output);
        }
    }
}
