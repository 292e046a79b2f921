//! A terminal as far as its modes go, written anew from the control sequences' grammar: what a replay is held to.
//!
//! It reads output as a whole, where the agent's scanner reads it byte by byte, and it shares nothing with that. It
//! knows the modes that the agent remembers, and no screen.

use std::collections::BTreeSet;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// Either of these breaks a sequence off.
const CANCELS: [u8; 2] = [0x18, 0x1a];

/// The modes whose loss a user would notice.
const KNOWN: [u16; 14] = [1, 7, 25, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004];

const ALTERNATE: [u16; 3] = [47, 1047, 1049];

/// How many numbers of one sequence the agent reads.
const NUMBERS_MAX: usize = 16;

/// A terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vt {
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
    pub(super) fn read(&mut self, mut output: &[u8]) -> bool {
        while let Some(escape) = output.iter().position(|byte| *byte == ESC) {
            output = &output[escape + 1..];
            let Some(length) = self.sequence(output) else { return false };
            output = &output[length..];
        }
        true
    }

    /// Reads what follows an ESC: how long it is, if it is there as a whole. One that another ESC breaks off ends
    /// there.
    fn sequence(&mut self, bytes: &[u8]) -> Option<usize> {
        // Control characters within a sequence take effect and do not end it.
        let start = bytes.iter().position(|byte| !(*byte < 0x20 && *byte != ESC) || CANCELS.contains(byte))?;
        let behind = start + 1;
        match bytes[start] {
            ESC => Some(start),
            b'[' => Some(behind + self.control(&bytes[behind..])?),
            b']' | b'P' | b'X' | b'^' | b'_' => Some(behind + string(&bytes[behind..])?),
            b' '..=b'/' => {
                let more = &bytes[behind..];
                let last = more.iter().position(|byte| *byte >= 0x20 || *byte == ESC || CANCELS.contains(byte))?;
                Some(behind + last + usize::from(more[last] != ESC))
            }
            b'=' | b'>' => {
                self.keypad = bytes[start] == b'=';
                Some(behind)
            }
            b'c' => {
                *self = Self::default();
                Some(behind)
            }
            _ => Some(behind),
        }
    }

    /// Reads what follows `ESC [`.
    fn control(&mut self, bytes: &[u8]) -> Option<usize> {
        let end =
            bytes.iter().position(|byte| (0x40..=0x7e).contains(byte) || *byte == ESC || CANCELS.contains(byte))?;
        let last = bytes[end];
        if last == ESC {
            return Some(end);
        }
        // What takes effect by itself, and what no terminal knows, is not part of it.
        let said: Vec<u8> = bytes[..end].iter().copied().filter(|byte| (0x20..0x40).contains(byte)).collect();
        let numbers = said.strip_prefix(b"?").unwrap_or(&said);
        let only_numbers = numbers.iter().all(|byte| matches!(byte, b'0'..=b';'));
        match (last, said.first()) {
            (b'h' | b'l', Some(b'?')) if only_numbers => {
                for number in numbers.split(|byte| matches!(byte, b';' | b':')).take(NUMBERS_MAX) {
                    let text = std::str::from_utf8(number).expect("digits");
                    self.set(text.parse().unwrap_or(0), last == b'h');
                }
            }
            (b'p', _)
                if said.strip_suffix(b"!").is_some_and(|front| front.iter().all(|b| matches!(b, b'0'..=b';'))) =>
            {
                self.on.extend([7, 25]);
                self.on.remove(&1);
                self.keypad = false;
            }
            _ => {}
        }
        Some(end + 1)
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

/// How long a title, a device string or the like is, with its end; an ESC ends it and begins what follows.
fn string(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| [BEL, ESC].contains(byte) || CANCELS.contains(byte))?;
    Some(end + usize::from(bytes[end] != ESC))
}
