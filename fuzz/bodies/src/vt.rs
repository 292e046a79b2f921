//! A terminal as far as its modes go, and what it would answer or do, written from the control sequences' grammar: what
//! a snapshot is held to.
//!
//! It reads output as a whole, where the agent's parser reads it byte by byte, and it shares nothing with that. It
//! knows the modes that the agent remembers, and no screen.

use std::collections::BTreeSet;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const ENQUIRY: u8 = 0x05;

/// Either of these breaks a sequence off.
const CANCELS: [u8; 2] = [0x18, 0x1a];

/// The modes whose loss a user would notice.
const KNOWN: [u16; 14] = [1, 7, 25, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004];

const ALTERNATE: [u16; 3] = [47, 1047, 1049];

/// How many numbers of one sequence the agent reads.
const NUMBERS_MAX: usize = 16;

/// The longest control sequence that the agent gives a meaning, in bytes without its ends.
const SEQUENCE_BYTES_MAX: usize = 256;

/// A terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vt {
    on: BTreeSet<u16>,
    keypad: bool,
}

impl Default for Vt {
    /// As after a reset: lines wrap and the cursor is seen.
    fn default() -> Self {
        Self { on: [7, 25].into(), keypad: false }
    }
}

impl Vt {
    /// Reads output from its beginning; false where it ends within a sequence.
    pub(crate) fn read(&mut self, output: &[u8]) -> bool {
        let output = seven_bit(output);
        let mut at = 0;
        while let Some(escape) = output[at..].iter().position(|byte| *byte == ESC) {
            at += escape + 1;
            let Some((piece, length)) = piece(&output[at..]) else { return false };
            self.apply(&piece);
            at += length;
        }
        true
    }

    fn apply(&mut self, piece: &Piece<'_>) {
        let Piece::Control { said, last } = piece else {
            match piece {
                Piece::Escape([b'=']) => self.keypad = true,
                Piece::Escape([b'>']) => self.keypad = false,
                Piece::Escape([b'c']) => *self = Self::default(),
                _ => {}
            }
            return;
        };
        let only_numbers = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b';'));
        match (last, said.strip_prefix(b"?"), said.strip_suffix(b"!")) {
            (b'h' | b'l', Some(numbers), _) if only_numbers(numbers) => {
                for number in numbers.split(|byte| matches!(byte, b';' | b':')).take(NUMBERS_MAX) {
                    let text = std::str::from_utf8(number).expect("digits");
                    self.set(text.parse().unwrap_or(0), *last == b'h');
                }
            }
            (b'p', _, Some(numbers)) if only_numbers(numbers) => {
                self.on.extend([7, 25]);
                self.on.remove(&1);
                self.keypad = false;
            }
            _ => {}
        }
    }

    fn set(&mut self, mode: u16, on: bool) {
        if !on && ALTERNATE.contains(&mode) {
            self.on.retain(|mode| !ALTERNATE.contains(mode));
        } else if on && KNOWN.contains(&mode) {
            self.on.insert(mode);
        } else {
            self.on.remove(&mode);
        }
    }
}

/// Where in an output that begins between sequences something stands that a terminal answers, or acts on beyond its
/// screen. A command counts that another sequence breaks off, since some terminals take it all the same.
pub(crate) fn acts(output: &[u8]) -> Vec<usize> {
    let output = seven_bit(output);
    let mut found = Vec::new();
    let mut at = 0;
    while at < output.len() {
        let from = at;
        at += 1;
        if output[from] != ESC {
            found.extend([BEL, ENQUIRY].contains(&output[from]).then_some(from));
            continue;
        }
        let Some((piece, length)) = piece(&output[at..]) else { break };
        found.extend(piece.acts().then_some(from));
        // A control character takes effect where it stands, unless that is in a string.
        if !matches!(piece, Piece::String(..)) {
            found.extend((at..at + length).filter(|place| [BEL, ENQUIRY].contains(&output[*place])));
        }
        at += length;
    }
    found
}

/// What follows an ESC.
enum Piece<'a> {
    Escape(&'a [u8]),
    Control {
        /// What stands before the last byte.
        said: Vec<u8>,
        last: u8,
    },
    String(u8, &'a [u8]),
    /// Broken off, or nothing that has a meaning.
    BrokenOff,
}

impl Piece<'_> {
    fn acts(&self) -> bool {
        match self {
            Piece::BrokenOff => false,
            Piece::Escape(bytes) => matches!(bytes, [b'Z' | b'l' | b'm'] | [b' ' | b'%', ..]),
            Piece::String(b'X', _) => false,
            Piece::String(b']', text) => command_acts(text),
            Piece::String(..) => true,
            Piece::Control { said, last } => {
                let marker = said.first().copied().filter(|byte| (b'<'..=b'?').contains(byte));
                let intermediate = said.last().copied().filter(|byte| (b' '..=b'/').contains(byte));
                let focus = [b"1004".as_slice(), b"2048", b"3", b"40"];
                match (marker, intermediate, last) {
                    (Some(b'>'), None, b'n') => false,
                    (_, None, b'c' | b'n' | b't' | b'x' | b'i' | b'y' | b'q') => true,
                    (Some(b'?'), None, b'u' | b'm' | b'S') => true,
                    (Some(b'>'), None, b'T') => true,
                    (Some(b'?'), None, b'h') => said[1..].split(|byte| *byte == b';').any(|mode| focus.contains(&mode)),
                    (_, Some(b'$'), b'p' | b'u' | b'w') => true,
                    (_, Some(b'*'), b'y' | b'z') => true,
                    (_, Some(b'#'), b'R' | b'|') => true,
                    (_, Some(b'"'), b'p' | b'v') => true,
                    (_, Some(b' '), b't' | b'u') => true,
                    (_, Some(b'&'), _) | (_, Some(b'\''), b'w' | b'z' | b'{' | b'|') => true,
                    _ => false,
                }
            }
        }
    }
}

/// Does a terminal answer this operating system command, or act on it? 9999 is what the agent writes in place of one.
fn command_acts(text: &[u8]) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).expect("digits").parse::<u32>();
    match number {
        Ok(0..=2 | 8 | 9999) => false,
        Ok(4 | 5 | 10..=19 | 104 | 105 | 110..=119) => text.contains(&b'?'),
        // Nothing but an ESC followed.
        Err(_) => !text.is_empty(),
        Ok(_) => text.len() > digits,
    }
}

/// The C1 controls as what they stand for, which is as long.
fn seven_bit(output: &[u8]) -> Vec<u8> {
    let mut output = output.to_vec();
    for at in 1..output.len() {
        if output[at - 1] == 0xc2 && (0x80..=0x9f).contains(&output[at]) {
            output[at] -= 0x40;
            output[at - 1] = ESC;
        }
    }
    output
}

/// Reads what follows an ESC, and how long it is, if it is there as a whole. What another ESC breaks off ends there.
fn piece(bytes: &[u8]) -> Option<(Piece<'_>, usize)> {
    let start = bytes.iter().position(|byte| is_special(*byte) || !(*byte < 0x20 || *byte == 0x7f))?;
    let behind = start + 1;
    let rest = &bytes[behind..];
    match bytes[start] {
        ESC => Some((Piece::BrokenOff, start)),
        byte if CANCELS.contains(&byte) => Some((Piece::BrokenOff, behind)),
        b'[' => {
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte) || is_special(*byte))?;
            if is_special(rest[end]) {
                return Some((Piece::BrokenOff, behind + end + usize::from(rest[end] != ESC)));
            }
            let said: Vec<u8> = rest[..end].iter().copied().filter(|byte| *byte >= 0x20 && *byte != 0x7f).collect();
            let sound = said.len() <= SEQUENCE_BYTES_MAX && said.is_ascii() && in_order(&said);
            let piece = if sound { Piece::Control { said, last: rest[end] } } else { Piece::BrokenOff };
            Some((piece, behind + end + 1))
        }
        kind @ (b']' | b'P' | b'X' | b'^' | b'_') => {
            let ends = |byte: &u8| is_special(*byte) || (kind == b']' && *byte == BEL);
            let end = rest.iter().position(ends)?;
            let piece = if CANCELS.contains(&rest[end]) { Piece::BrokenOff } else { Piece::String(kind, &rest[..end]) };
            Some((piece, behind + end + usize::from(rest[end] != ESC)))
        }
        b' '..=b'/' => {
            let last = rest.iter().position(|byte| is_special(*byte) || (*byte >= 0x30 && *byte != 0x7f))?;
            if is_special(rest[last]) || rest[last] >= 0x80 {
                return Some((Piece::BrokenOff, behind + last + usize::from(rest[last] != ESC)));
            }
            Some((Piece::Escape(&bytes[start..=behind + last]), behind + last + 1))
        }
        _ => Some((Piece::Escape(&bytes[start..behind]), behind)),
    }
}

/// Does a marker stand first, and one intermediate last?
fn in_order(said: &[u8]) -> bool {
    let said = if let [b'<'..=b'?', rest @ ..] = said { rest } else { said };
    let (last, front) = said.split_last().map_or((b'0', said), |(last, front)| (*last, front));
    matches!(last, b' '..=b';') && front.iter().all(|byte| matches!(byte, b'0'..=b';'))
}

fn is_special(byte: u8) -> bool {
    byte == ESC || CANCELS.contains(&byte)
}
