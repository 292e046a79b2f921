//! Makes the snapshot of a session from the output that it holds.
//!
//! It is exact where the output reaches back to the session's start, to a [kept](Screens::keep) screen or to something
//! that drew every cell, and if a cursor was saved before that, to the next one that was. Otherwise modes, colours and
//! title are right, and cells or cursors may not be.
//!
//! A *unit* is a character, a sequence or a string. A snapshot shows the screen between two units. Where the stream was
//! sent up to the middle of one, either its rest is sent before the snapshot, or the snapshot ends with its beginning.

use super::parser::{Kind, Parser, State};
use super::screen::{Screen, Size};
use super::scrollback::Scrollback;
use super::sticky::STRING_BYTES_MAX;
use crate::utf8::{incomplete_tail, is_continuation};
use draupnir_fsm::driver::budget::{Budget, Use};
use std::fmt;
use std::rc::Rc;

/// The longest state of a screen that is kept, in bytes.
pub(super) const KEPT_BYTES_MAX: usize = 10 << 10;

/// How much output is read at most for a snapshot, in bytes: twice what a session keeps when it does not flood.
const READ_BYTES_MAX: u64 = 512 << 10;

/// How many changes of the size are remembered: someone drags the edge of a window.
const SIZES_MAX: usize = 32;

/// How many bytes the search for the start of a line covers where output was dropped.
const LINE_BYTES_MAX: u64 = 8 << 10;

/// What was drawn, besides the output itself.
#[derive(Debug)]
pub(super) struct Screens {
    /// From which offset on the terminal had which size.
    sizes: Vec<(u64, Size)>,
    kept: Option<Kept>,
    /// Whether the program used the alternate screen when a snapshot was last made.
    pub(super) is_alternate: bool,
}

/// A snapshot that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// It shows the screen at this offset.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) exact: bool,
}

/// The state of the screen at an offset.
struct Kept {
    offset: u64,
    size: Size,
    sequences: Vec<u8>,
    budget: Rc<Budget>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.release(Use::Screen, self.sequences.len());
    }
}

impl Screens {
    pub(super) fn new(size: Size) -> Self {
        Self { sizes: vec![(0, size)], kept: None, is_alternate: false }
    }

    /// From which offset on the terminal had how many columns and rows.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u64, u16, u16)> {
        self.sizes.iter().map(|(offset, size)| (*offset, size.cols, size.rows))
    }

    /// From this offset on the terminal has another size.
    pub(super) fn resized(&mut self, offset: u64, size: Size) {
        match self.sizes.last_mut() {
            Some((at, last)) if *at == offset => *last = size,
            _ => self.sizes.push((offset, size)),
        }
        if self.sizes.len() > SIZES_MAX {
            self.sizes.remove(0);
        }
    }

    /// Keeps the screen as it is at the end of the output, so that a snapshot needs nothing older. Nothing is kept
    /// where it is not known, or too long.
    pub(super) fn keep(&mut self, scrollback: &Scrollback, budget: &Rc<Budget>) {
        let place = Place::at(scrollback, scrollback.held().end);
        let (screen, _) = self.screen(scrollback, place.open);
        self.kept = None;
        if !screen.is_known() {
            return;
        }
        let sequences = screen.snapshot(false);
        if sequences.len() <= KEPT_BYTES_MAX && budget.grant(Use::Screen, sequences.len()) {
            let (offset, size) = (place.open, screen.size());
            self.kept = Some(Kept { offset, size, sequences, budget: budget.clone() });
        }
    }

    /// The snapshot for a terminal of this size, where the stream was sent up to `from`.
    pub(super) fn make(&mut self, scrollback: &Scrollback, from: u64, size: Option<Size>) -> Made {
        let place = Place::at(scrollback, from);
        let (mut screen, at) = self.screen(scrollback, place.open);
        let (at, tail) = if at == place.open { (place.at, place.tail) } else { (at, Vec::new()) };
        self.is_alternate = screen.is_alternate();
        let exact = screen.is_known();
        if let Some(size) = size {
            screen.resize(size);
        }
        let bytes = [screen.snapshot(true), tail].concat();
        Made { at, bytes, exact }
    }

    /// The screen at the beginning of a unit; or, where it is not known there but is at a later one, at that.
    fn screen(&self, scrollback: &Scrollback, offset: u64) -> (Screen, u64) {
        let held = scrollback.held();
        let (mut screen, mut at) = self.beginning(scrollback, offset);
        let kept = self.kept.as_ref().filter(|kept| kept.offset >= at && kept.offset <= held.end);
        if let Some(kept) = kept.filter(|kept| kept.offset <= offset) {
            self.read(&mut screen, scrollback, at, kept.offset);
            screen.restore(&kept.sequences, kept.size);
            at = kept.offset;
        }
        self.read(&mut screen, scrollback, at, offset);
        screen.end_character();
        match kept.filter(|kept| kept.offset > offset && !screen.is_known()) {
            Some(kept) => {
                self.read(&mut screen, scrollback, offset, kept.offset);
                screen.restore(&kept.sequences, kept.size);
                (screen, kept.offset)
            }
            None => (screen, offset),
        }
    }

    /// The screen where reading begins, and where that is.
    fn beginning(&self, scrollback: &Scrollback, offset: u64) -> (Screen, u64) {
        let held = scrollback.held();
        let start = held.start.max(offset.saturating_sub(READ_BYTES_MAX)).min(offset);
        let size = |at: u64| self.sizes.iter().rev().find(|(from, _)| *from <= at).or(self.sizes.first());
        let mut screen = Screen::new(size(start).map_or(Size { cols: 80, rows: 24 }, |(_, size)| *size));
        if start == 0 {
            return (screen, 0);
        }
        let mut sticky = scrollback.sticky();
        scrollback.each_slice(held.start, start, |bytes| sticky.feed(bytes));
        // At the start of a line if one comes soon, so that no half line is shown.
        let begin = line_start(sticky.parser(), scrollback, start, offset);
        scrollback.each_slice(start, begin, |bytes| sticky.feed(bytes));
        sticky.apply(&mut screen);
        (screen, begin)
    }

    /// Lets a screen read the output between two offsets, with the sizes that the terminal had.
    fn read(&self, screen: &mut Screen, scrollback: &Scrollback, from: u64, to: u64) {
        let mut at = from;
        for (offset, size) in self.sizes.iter().filter(|(offset, _)| (from..=to).contains(offset)) {
            scrollback.each_slice(at, *offset, |bytes| screen.feed(bytes));
            screen.resize(*size);
            at = *offset;
        }
        scrollback.each_slice(at, to, |bytes| screen.feed(bytes));
    }
}

/// Where the first line starts between two offsets, or else the first unit.
fn line_start(parser: &Parser, scrollback: &Scrollback, from: u64, to: u64) -> u64 {
    let (mut parser, mut first, mut ends_line) = (parser.clone(), None, false);
    for (at, byte) in (from..to).zip(scrollback.bytes_from(from)) {
        if parser.is_in_text() && !is_continuation(byte) {
            if ends_line {
                return at;
            }
            first.get_or_insert(at);
        }
        if at - from > LINE_BYTES_MAX && first.is_some() {
            break;
        }
        ends_line = byte == b'\n';
        parser.step(byte);
    }
    first.unwrap_or(to)
}

/// An offset and the unit around it.
struct Place {
    /// Where the unit begins that lies across it; else the offset itself.
    open: u64,
    /// Where the stream goes on behind the snapshot.
    at: u64,
    /// What the snapshot ends with, so that the rest of the unit completes it.
    tail: Vec<u8>,
}

impl Place {
    fn at(scrollback: &Scrollback, offset: u64) -> Self {
        let held = scrollback.held();
        let offset = offset.clamp(held.start, held.end);
        let mut parser = scrollback.parser();
        let (mut at, mut open) = (held.start, held.start);
        scrollback.each_slice(held.start, offset, |mut bytes| {
            while let Some(first) = bytes.first() {
                // What comes before it may be the beginning of a character, and is not completed.
                if parser.state() == State::Ground && !is_continuation(*first) {
                    open = at;
                }
                let skip = parser.skippable(bytes);
                if skip == 0 {
                    parser.step(*first);
                }
                at += skip.max(1) as u64;
                bytes = bytes.get(skip.max(1)..).unwrap_or_default();
                if parser.is_in_text() {
                    open = at;
                }
            }
        });
        let last = |from: u64| scrollback.bytes_from(from).take(usize::try_from(offset - from).unwrap_or(0));
        if open == offset {
            let before: Vec<u8> = last(offset.saturating_sub(3).max(held.start)).collect();
            open -= incomplete_tail(&before) as u64;
        }
        if open == offset {
            return Self { open, at: offset, tail: Vec::new() };
        }
        if let Some(end) = unit_end(parser.clone(), scrollback, open, offset) {
            return Self { open: end, at: end, tail: Vec::new() };
        }
        let unit: Vec<u8> = last(open).take(STRING_BYTES_MAX + 1).collect();
        // Where the output that is held begins in the middle of it, its beginning is not known.
        let is_whole = open > held.start || scrollback.parser().is_in_text();
        Self { open, at: offset, tail: beginning_of(&parser, &unit, is_whole) }
    }
}

/// Where the unit ends that is open at an offset, if that is held and not far.
fn unit_end(mut parser: Parser, scrollback: &Scrollback, open: u64, offset: u64) -> Option<u64> {
    let mut unit: Vec<u8> = scrollback.bytes_from(open).take(usize::try_from(offset - open).ok()?).collect();
    let was_text = parser.is_in_text();
    for byte in scrollback.bytes_from(offset).take(STRING_BYTES_MAX) {
        if was_text && !is_continuation(byte) {
            // The character was never completed.
            return None;
        }
        unit.push(byte);
        parser.step(byte);
        if parser.is_in_text() && incomplete_tail(&unit) == 0 {
            return Some(open + unit.len() as u64);
        }
    }
    None
}

/// The controls that a terminal obeys at once in the middle of a sequence, but for the bell and the question for an
/// answer: backspace, tab, line feeds, carriage return, shifts, and the start of another sequence.
const OBEYED_WITHIN: &[u8] = b"\x08\t\n\x0b\x0c\r\x0e\x0f\x1b";

/// What brings a terminal into the middle of a unit, so that its rest is not shown as text. The rest of a command that
/// acts, or is too long, is ignored by every terminal.
fn beginning_of(parser: &Parser, unit: &[u8], is_whole: bool) -> Vec<u8> {
    let is_short = is_whole && unit.len() <= STRING_BYTES_MAX;
    let with = |controls: &[u8]| unit.iter().copied().filter(|byte| *byte >= 0x20 || controls.contains(byte)).collect();
    match parser.state() {
        State::Ground | State::Escape | State::Intermediate | State::Sequence if is_short => with(OBEYED_WITHIN),
        State::Ground | State::Escape | State::Intermediate => Vec::new(),
        State::Sequence => b"\x1b[0?".to_vec(),
        State::String(Kind::Command) | State::StringEscape(Kind::Command) if is_short && shows_text(unit) => {
            with(b"\x1b")
        }
        State::String(Kind::Command) => b"\x1b]9999;".to_vec(),
        State::String(Kind::Other) => b"\x1bX".to_vec(),
        State::StringEscape(_) => b"\x1b".to_vec(),
    }
}

/// Is it the beginning of a command for a title or a link?
fn shows_text(unit: &[u8]) -> bool {
    let command = unit.strip_prefix(b"\x1b]").or_else(|| unit.strip_prefix("\u{9d}".as_bytes())).unwrap_or_default();
    [b"0;", b"1;", b"2;", b"8;"].iter().any(|number| command.starts_with(*number))
}

#[cfg(test)]
mod tests;
