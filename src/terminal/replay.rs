//! Filters replayed output, so that a terminal does not answer or execute an old sequence a second time.
//!
//! The filter has a list of what passes: characters, and known sequences that only draw or set modes. Everything else
//! is left out: queries, notifications, the clipboard, the bell, the title stack, pictures, printing, unknown
//! sequences. What passes is written in its 7-bit form, which all terminals read alike. An invalid byte becomes a
//! question mark. A string is at most [`UNIT_BYTES_MAX`] long.
//!
//! A *unit* is a character, a sequence or a string. It passes as a whole or not at all.

use super::modes::{Modes, Scanner};
use super::parser::{C1_LEAD, Kind, Sequence, State, Token};

/// The longest string that passes, in bytes: a link to an address twice as long as browsers accept.
const UNIT_BYTES_MAX: usize = 4 << 10;

/// Control characters that draw: backspace, tab, line feeds, carriage return, shifts of the character set.
const CONTROLS: [u8; 8] = [0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f];

/// `ESC` and these: save and restore the cursor, indices, tab stops, keypad, reset, shifts of the character set.
const ESCAPES: &[u8] = b"6789=>DEHMNOcno|}~";

/// `ESC`, one of these, and any last byte: sets of characters, and the size of a line.
const ESCAPE_INTERMEDIATES: &[u8] = b"()*+-./#";

/// `ESC [`: marker, intermediate (0 without), and the last bytes that pass with them. Sequences that are missing here
/// are queries (`c n q t x`, `$p`, `*y`), move the window (`t`), print (`i`), test the terminal (`y`), or are unknown.
const SEQUENCES: [(u8, u8, &[u8]); 12] = [
    (0, 0, b"@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu"), // cursor, erase, insert, delete, scroll, colours, ANSI modes
    (b'?', 0, b"JKhlrs"),                        // selective erase, private modes
    (b'>', 0, b"mnu"),                           // keyboard: modifiers, push
    (b'<', 0, b"u"),                             // keyboard: pop
    (b'=', 0, b"u"),                             // keyboard: set
    (0, b' ', b"@Aq"),                           // scroll sideways, shape of the cursor
    (0, b'!', b"p"),                             // soft reset
    (0, b'"', b"q"),                             // protection of characters
    (0, b'#', b"pq{}"),                          // colours saved and restored
    (0, b'$', b"rtvxz{"),                        // rectangles
    (0, b'*', b"x"),                             // extent of a rectangle
    (0, b'\'', b"}~"),                           // insert and delete columns
];

/// The private modes that pass. Modes that a terminal answers when they are set (1004 focus, 2048 size), modes that
/// resize the window (3, 40), and unknown modes are missing here.
const PRIVATE_MODES: [u16; 38] = [
    1, 4, 5, 6, 7, 8, 9, 12, 25, 45, 47, 66, 67, 69, 80, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1010, 1011, 1015,
    1016, 1034, 1035, 1036, 1039, 1045, 1047, 1048, 1049, 1070, 2004, 2026, 2027,
];

/// `ESC ]`: numbers of the commands that pass. A title and a link may hold any text; commands for colours pass, queries
/// for them do not.
const TEXT_COMMANDS: [u16; 4] = [0, 1, 2, 8];
const COLOUR_COMMANDS: [u16; 23] =
    [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 104, 105, 110, 111, 112, 113, 114, 115, 116, 117, 118];

/// Reads output byte by byte, and writes what passes.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    scanner: Scanner,
    /// The current unit, without its introducer (`ESC [`).
    unit: Vec<u8>,
    /// Whether the current unit cannot pass: it is too long, or its beginning is unknown.
    refused: bool,
}

impl Filter {
    /// A filter that continues from the state of the scanner.
    pub(super) fn new(scanner: Scanner) -> Self {
        let refused = !scanner.is_between_sequences();
        Self { scanner, unit: Vec::new(), refused }
    }

    /// The modes after the last byte, including modes whose sequences were left out.
    pub(super) fn modes(&self) -> Modes {
        self.scanner.modes()
    }

    /// Whether the last byte ended a unit.
    pub(super) fn is_between_units(&self) -> bool {
        self.scanner.is_between_sequences() && self.unit.is_empty()
    }

    /// Whether the current unit will pass; `None` while that depends on later bytes.
    pub(super) fn outlook(&self) -> Option<bool> {
        let is_open = match self.scanner.parser().state() {
            State::Ground if self.unit.last() == Some(&C1_LEAD) => true,
            State::Ground => return Some(true),
            State::Escape | State::Intermediate | State::StringEscape(_) => true,
            State::Sequence => !self.refused,
            State::String(Kind::Command) => !self.refused && self.may_pass(),
            State::String(Kind::Other) => false,
        };
        (!is_open || self.scanner.parser().sequence().malformed).then_some(false)
    }

    /// Whether the current unit will pass if these bytes follow. It reads each of them once, and of a string at most
    /// [`UNIT_BYTES_MAX`].
    pub(super) fn outlook_with(&self, rest: impl Iterator<Item = u8>) -> Option<bool> {
        let state = self.scanner.parser().state();
        let in_string = matches!(state, State::String(_));
        if let Some(outlook) = self.outlook() {
            return Some(outlook);
        }
        let mut ahead = self.clone();
        let mut shown = Vec::new();
        for byte in rest {
            shown.clear();
            ahead.push(byte, &mut shown);
            if ahead.is_between_units() {
                let ends_string = byte == b'\\' && matches!(state, State::StringEscape(_));
                // A string terminator alone has no effect.
                return Some(ends_string || if in_string { shown.starts_with(b"\x1b]") } else { !shown.is_empty() });
            }
            // The string is too long, or another sequence interrupts it.
            if in_string && (ahead.refused || ahead.unit.len() < self.unit.len()) {
                return Some(false);
            }
            // The text of a command is checked once, at its end.
            let is_text = matches!(ahead.scanner.parser().state(), State::String(Kind::Command));
            if !is_text && let Some(outlook) = ahead.outlook() {
                return Some(outlook);
            }
        }
        ahead.outlook()
    }

    /// Reads a byte, and appends the unit that it completes, if that passes.
    pub(super) fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        let in_text = self.scanner.is_between_sequences();
        let token = self.scanner.step(byte);
        let is_c1 = matches!(byte, 0x80..=0x9F) && !matches!(token, Token::Text(_) | Token::Part(_));
        if is_c1 && self.unit.last() == Some(&C1_LEAD) {
            self.unit.pop();
        }
        if let Token::Text(byte) = token {
            return self.text(byte, out);
        }
        if in_text {
            self.end_text(out);
        }
        let sequence = self.scanner.parser().sequence();
        match token {
            Token::Control(control) if CONTROLS.contains(&control) => out.push(control),
            Token::Begin => {
                self.unit.clear();
                self.refused = false;
            }
            Token::Part(byte) if self.unit.len() < UNIT_BYTES_MAX => self.unit.push(byte),
            Token::Part(_) => self.refused = true,
            Token::Escape(last) if !sequence.malformed && escape_passes(sequence, last) => {
                out.push(b'\x1b');
                out.extend((sequence.intermediate != 0).then_some(sequence.intermediate));
                out.push(last);
            }
            Token::Sequence(last) if !self.refused && !sequence.malformed => self.sequence(last, out),
            Token::Command if !self.refused && command_passes(&self.unit) => {
                write_all(out, &[b"\x1b]", &self.unit, b"\x1b\\"]);
            }
            Token::Nothing
            | Token::Text(_)
            | Token::Control(_)
            | Token::Escape(_)
            | Token::Sequence(_)
            | Token::Command => {}
        }
        if self.scanner.is_between_sequences() {
            self.unit.clear();
            self.refused = false;
        }
    }

    /// The bytes that bring a terminal into the middle of the current unit, so that the next bytes complete it.
    pub(super) fn opening(&self) -> Vec<u8> {
        let sequence = self.scanner.parser().sequence();
        match self.scanner.parser().state() {
            State::Ground => self.unit.clone(),
            State::StringEscape(Kind::Command) if !self.refused && command_passes(&self.unit) => {
                [b"\x1b]", &*self.unit, b"\x1b"].concat()
            }
            State::Escape | State::StringEscape(_) => b"\x1b".to_vec(),
            State::Intermediate => vec![b'\x1b', sequence.intermediate],
            State::Sequence => [b"\x1b[", &*self.unit].concat(),
            State::String(_) => [b"\x1b]", &*self.unit].concat(),
        }
    }

    /// The beginning of a unit of this kind that every terminal ignores, so that it does not show the next bytes.
    pub(super) fn harmless_opening(&self) -> &'static [u8] {
        match self.scanner.parser().state() {
            State::Ground | State::Escape | State::Intermediate | State::StringEscape(_) => b"",
            // A marker after a number is invalid: terminals ignore the sequence up to its end.
            State::Sequence => b"\x1b[0?",
            State::String(Kind::Command) => b"\x1b]9999;",
            State::String(Kind::Other) => b"\x1bX",
        }
    }

    /// Whether the current command may pass, as far as it has been read.
    fn may_pass(&self) -> bool {
        let valid = self.unit.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let rest = self.unit.len() - valid.len();
        let is_number = || rest == 0 && valid.bytes().all(|byte| byte.is_ascii_digit());
        rest < 4 && if valid.contains(';') { command_passes(valid.as_bytes()) } else { is_number() }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte.is_ascii() {
            self.end_text(out);
            return out.push(byte);
        }
        self.unit.push(byte);
        match std::str::from_utf8(&self.unit) {
            Ok(_) => out.append(&mut self.unit),
            Err(error) if error.error_len().is_none() => {}
            // Either all bytes but the last are invalid, or the last byte alone. That byte may begin another character.
            Err(_) => {
                self.unit.pop();
                self.end_text(out);
                match byte {
                    0xC2..=0xF4 => self.unit.push(byte),
                    _ => out.push(b'?'),
                }
            }
        }
    }

    /// Replaces an incomplete character by a question mark.
    fn end_text(&mut self, out: &mut Vec<u8>) {
        if !self.unit.is_empty() {
            self.unit.clear();
            out.push(b'?');
        }
    }

    fn sequence(&self, last: u8, out: &mut Vec<u8>) {
        let sequence = self.scanner.parser().sequence();
        let of_kind = |(marker, intermediate, _): &&(u8, u8, &[u8])| {
            (*marker, *intermediate) == (sequence.marker, sequence.intermediate)
        };
        if !SEQUENCES.iter().find(of_kind).is_some_and(|(_, _, lasts)| lasts.contains(&last)) {
            return;
        }
        if sequence.marker != b'?' || matches!(last, b'J' | b'K') {
            return write_all(out, &[b"\x1b[", &self.unit, &[last]]);
        }
        let modes = sequence.numbers().iter().filter(|mode| PRIVATE_MODES.contains(mode));
        let modes: Vec<String> = modes.map(u16::to_string).collect();
        if !modes.is_empty() {
            write_all(out, &[b"\x1b[?", modes.join(";").as_bytes(), &[last]]);
        }
    }
}

fn escape_passes(sequence: &Sequence, last: u8) -> bool {
    match sequence.intermediate {
        0 => ESCAPES.contains(&last),
        intermediate => ESCAPE_INTERMEDIATES.contains(&intermediate),
    }
}

fn command_passes(command: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(command) else { return false };
    let (number, rest) = text.split_once(';').unwrap_or((text, ""));
    let Some(number) = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit())) else {
        return false;
    };
    let is_colour = COLOUR_COMMANDS.contains(&number) && !rest.contains('?');
    !text.chars().any(char::is_control) && (TEXT_COMMANDS.contains(&number) || is_colour)
}

fn write_all(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(output: &[u8]) -> Vec<u8> {
        let mut filter = Filter::new(Scanner::default());
        let mut shown = Vec::new();
        output.iter().for_each(|byte| filter.push(*byte, &mut shown));
        shown
    }

    /// Sequences that a terminal answers or acts on. To refuse another one, add a line.
    const REFUSED: &[(&str, &[u8])] = &[
        ("primary device attributes", b"\x1b[c"),
        ("primary device attributes, with a number", b"\x1b[0c"),
        ("secondary device attributes", b"\x1b[>c"),
        ("tertiary device attributes", b"\x1b[=c"),
        ("identification (DECID)", b"\x1bZ"),
        ("device status", b"\x1b[5n"),
        ("cursor position", b"\x1b[6n"),
        ("cursor position with the page (DECXCPR)", b"\x1b[?6n"),
        ("printer, keys, keyboard, locator", b"\x1b[?15n\x1b[?25n\x1b[?26n\x1b[?55n\x1b[?62n\x1b[?63;1n"),
        ("colour scheme", b"\x1b[?996n"),
        ("mode (DECRQM)", b"\x1b[4$p\x1b[?2026$p"),
        ("terminal parameters (DECREQTPARM)", b"\x1b[x\x1b[1x"),
        ("terminal state (DECRQTSR, DECRQPSR)", b"\x1b[1$u\x1b[1$w\x1b[2$w"),
        ("checksum of a rectangle (DECRQCRA)", b"\x1b[1;1;1;1;9;9*y"),
        ("locator position (DECRQLP)", b"\x1b[1'|\x1b[1'z"),
        ("displayed extent (DECRQDE)", b"\x1b[\"v"),
        ("user-preferred set (DECRQUPSS)", b"\x1b[&u"),
        ("version (XTVERSION)", b"\x1b[>q\x1b[>0q"),
        ("keyboard protocol (kitty)", b"\x1b[?u"),
        ("modifiers of keys (XTQMODKEYS)", b"\x1b[?4m"),
        ("graphics (XTSMGRAPHICS)", b"\x1b[?1;1;0S"),
        ("title modes", b"\x1b[>2t\x1b[>2T"),
        ("stack of colours (XTREPORTCOLORS)", b"\x1b[#R"),
        ("reported style (XTREPORTSGR)", b"\x1b[1;1;2;2#|"),
        ("setting (DECRQSS)", b"\x1bP$qm\x1b\\"),
        ("capability (XTGETTCAP)", b"\x1bP+q544e\x1b\\"),
        ("resource (XTGETXRES)", b"\x1bP+Q41\x1b\\"),
        ("colours", b"\x1b]10;?\x07\x1b]11;?\x1b\\\x1b]12;?\x07\x1b]17;?\x07\x1b]19;?\x07"),
        ("several colours", b"\x1b]10;red;?\x07"),
        ("palette", b"\x1b]4;1;?\x07\x1b]4;1;red;2;?\x07\x1b]5;0;?\x07\x1b]0004;1;?\x07"),
        ("answer to ENQ", b"\x05"),
        ("window reports", b"\x1b[11t\x1b[13t\x1b[14t\x1b[14;2t\x1b[15t\x1b[16t\x1b[18t\x1b[19t\x1b[20t\x1b[21t"),
        ("window moves", b"\x1b[2t\x1b[3;0;0t\x1b[8;50;120t\x1b[9;1t"),
        ("title stack", b"\x1b[22t\x1b[22;0t\x1b[23;0t"),
        ("focus, reported at once", b"\x1b[?1004h"),
        ("size, reported at once", b"\x1b[?2048h"),
        ("width of the window", b"\x1b[?40h\x1b[?3h"),
        ("8-bit answers (S8C1T, DECSCL)", b"\x1b G\x1b[62;0\"p"),
        ("another encoding", b"\x1b%@"),
        ("bell", b"\x07"),
        ("bell within a sequence", b"\x1b[\x07c"),
        ("loudness of the bell", b"\x1b[1 t\x1b[1 u"),
        ("clipboard", b"\x1b]52;c;aGk=\x07\x1b]52;c;?\x1b\\\x1b]052;c;aGk=\x07"),
        ("notifications", b"\x1b]9;done\x07\x1b]777;notify;a;b\x07\x1b]99;i=1;done\x1b\\"),
        ("progress", b"\x1b]9;4;1;50\x07"),
        ("iTerm2", b"\x1b]1337;File=:AAAA\x07\x1b]1337;RequestAttention=yes\x07\x1b]1337;ReportCellSize\x07"),
        ("shell integration", b"\x1b]7;file://h/\x07\x1b]133;D;0\x07\x1b]633;A\x07"),
        ("property, log file, font, pointer", b"\x1b]3;A=b\x07\x1b]46;/f\x07\x1b]50;?\x07\x1b]22;?\x1b\\"),
        ("command without a number", b"\x1b];x\x07\x1b]x\x07\x1b]P0000000\x07\x1b]+4;1;red\x07"),
        ("command of a wrapped number", b"\x1b]65588;c;?\x07\x1b]4294967348;c;?\x07"),
        ("printing", b"\x1b[i\x1b[4i\x1b[5i\x1b[?5i\x1b[?1i"),
        ("self-test", b"\x1b[2;1y"),
        ("locked memory", b"\x1bl\x1bm"),
        ("pictures", b"\x1bPq#0~\x1b\\\x1b_Ga=q,i=1;AAAA\x1b\\"),
        ("keys, macros", b"\x1bP1;1|17/41\x1b\\\x1b[1*z"),
        ("pass-through of a multiplexer", b"\x1bPtmux;\x1b\x1b[c\x1b\\"),
        ("other strings", b"\x1bXc\x1b\\\x1b^c\x1b\\\x1b_c\x1b\\"),
        ("C1: attributes", b"\xc2\x9bc\xc2\x9b>c\xc2\x9a"),
        ("C1: commands", b"\xc2\x9d52;c;aGk=\xc2\x9c\xc2\x9d11;?\x07\x1b]11;?\xc2\x9c"),
        ("C1: device control", b"\xc2\x90$qm\xc2\x9c\xc2\x9f.\xc2\x9c\xc2\x98.\xc2\x9c\xc2\x9e.\xc2\x9c"),
        ("C1 within a sequence", b"\x1b[3\xc2\x9bc"),
        ("malformed", b"\x1b[1?c\x1b[6\xc3\xa9n\x1b[??6n\x1b[ 5n\x1b[$$p"),
        ("broken off", b"\x1b[6\x18\x1b]11;?\x1a\x1bP\x18"),
        ("invisible", b"\x00\x7f\x01\x11\x13\x18\x1a"),
    ];

    #[test]
    fn replay_leaves_out_queries_and_side_effects() {
        for (what, output) in REFUSED {
            let shown = filtered(&[b"a", *output, b"b"].concat());
            assert_eq!(shown, b"ab", "{what}: {:?}", String::from_utf8_lossy(&shown));
        }
    }

    #[test]
    fn replay_keeps_what_draws_and_sets_modes() {
        for output in [
            "text \u{e9}\u{20ac}\u{1f980}\r\n\t\u{8}\u{b}\u{c}\u{e}\u{f}",
            "\x1b[31m\x1b[1;38:2::1:2:3m\x1b[m\x1b[4:3m",
            "\x1b[H\x1b[2J\x1b[3;4H\x1b[K\x1b[5A\x1b[2;20r\x1b[3L\x1b[4@\x1b[5X\x1b[6b\x1b[3g\x1b[4h\x1b[s\x1b[u",
            "\x1b7\x1b8\x1bD\x1bM\x1bE\x1bH\x1b=\x1b>\x1bc\x1bN\x1bO",
            "\x1b(0lqk\x1b(B\x1b)A\x1b#8",
            "\x1b[?1049h\x1b[?25l\x1b[?1;1000;1006;2004h\x1b[?2026l",
            "\x1b[5 q\x1b[!p\x1b[1\"q\x1b[2'}\x1b[1;1;2;2$z",
            "\x1b[>4;2m\x1b[>4n\x1b[>1u\x1b[<u\x1b[=1;1u",
            "\x1b]0;title?\x1b\\\x1b]2;\u{e9}\x1b\\\x1b]8;id=1;https://a.example/?b=c\x1b\\link\x1b]8;;\x1b\\",
            "\x1b]4;1;rgb:ff/00/00\x1b\\\x1b]11;#000000\x1b\\\x1b]104\x1b\\\x1b]110\x1b\\",
        ] {
            assert_eq!(String::from_utf8_lossy(&filtered(output.as_bytes())), output, "{output:?}");
        }
    }

    #[test]
    fn replay_writes_what_it_keeps_in_one_form() {
        for (output, shown) in [
            (b"\x1b]0;a\x07b".as_slice(), b"\x1b]0;a\x1b\\b".as_slice()),
            (b"\xc2\x9b31mred\xc2\x85", b"\x1b[31mred\x1bE"),
            (b"\xc2\x9d2;a\xc2\x9cb", b"\x1b]2;a\x1b\\b"),
            (b"\x1b[?1004;25;3l", b"\x1b[?25l"),
            (b"\x1b[3\r1m", b"\r\x1b[31m"),
            (b"\x1b[3\x1b[1mx", b"\x1b[1mx"),
            (b"\x1b]0;a\x1b[1mx", b"\x1b[1mx"),
            (b"a\xffb\xe2\x82c\x9bc\xc2\x1b[m\xed\xa0\x80", b"a?b?c?c?\x1b[m???"),
            // The bytes before and after a unit that is left out do not join.
            (b"\xc2\x1b[c\x9b6n", b"??6n"),
            (b"\xc2\x07\x9b6n\x1b\x07[6n", b"??6n"),
        ] {
            let ours = filtered(output);
            assert_eq!(ours, shown, "{:?}: {:?}", output.escape_ascii(), ours.escape_ascii());
        }
    }

    #[test]
    fn replay_leaves_out_a_string_beyond_the_bound() {
        let title = |length: usize| [b"\x1b]2;".as_slice(), &vec![b'x'; length], b"\x1b\\b"].concat();
        assert_eq!(filtered(&title(UNIT_BYTES_MAX - 2)), title(UNIT_BYTES_MAX - 2));
        assert_eq!(filtered(&title(UNIT_BYTES_MAX - 1)), b"b");
    }
}
