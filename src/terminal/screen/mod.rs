//! A model of the terminal that a session is shown in, and the snapshot that brings another terminal to its state.
//!
//! Nothing runs here while output passes: [`Screen`] reads it when a console attaches, or for a checkpoint. The crate
//! `vte` parses; what each sequence does follows xterm.js, the terminal of Mimir, and else xterm.
//!
//! Invariants:
//! - A snapshot holds text and the sequences of `write` alone: nothing that a terminal answers or that acts beyond it.
//!   Where a focus mode is on, setting it makes a terminal say whether it has the focus.
//! - A model that reads a snapshot is in the state of the model that wrote it, but for an older part of its history.
//! - Bounds: [`COLUMNS_MAX`] × [`ROWS_MAX`] cells, [`HISTORY_ROWS_MAX`] rows of history, links and titles as below.
//!
//! Not modelled, so that a snapshot may differ: pictures, colours that a program redefines,
//! protected cells, rectangles, left and right margins, and lines of double size.

mod cell;
mod grid;
mod interpret;
mod modes;
mod state;
mod style;
#[cfg(test)]
mod tests;
mod write;

pub use write::{HISTORY_BYTES_MAX, SNAPSHOT_BYTES_MAX};

use crate::utf8::incomplete_tail;
use memchr::memchr_iter;
use state::State;
use std::collections::VecDeque;
use std::fmt;

/// The widest screen that is modelled, in columns: a window over two displays in a small font.
pub const COLUMNS_MAX: u16 = 1_000;

/// The highest one, in rows.
pub const ROWS_MAX: u16 = 300;

/// How many rows of history are kept.
pub const HISTORY_ROWS_MAX: usize = 1_000;

/// How many cells the history has at most: as many as a thousand rows of 128 columns.
const HISTORY_CELLS_MAX: usize = 128 << 10;

/// The first byte of U+0080–U+00BF in UTF-8.
const C1_LEAD: u8 = 0xC2;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The width.
    pub cols: u16,
    /// The height.
    pub rows: u16,
}

impl Size {
    fn columns(self) -> usize {
        usize::from(self.cols.clamp(1, COLUMNS_MAX))
    }

    fn rows(self) -> usize {
        usize::from(self.rows.clamp(1, ROWS_MAX))
    }
}

/// How much the parser is given at once, in bytes: a line or two, so that binary output costs little more than text.
const PIECE_BYTES: usize = 512;

/// A terminal that shows nothing to anyone.
pub struct Screen {
    parser: vte::Parser,
    state: Box<State>,
    /// The beginning of a character, which the parser has not seen.
    tail: Vec<u8>,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// A terminal after a reset.
    pub fn new(size: Size) -> Self {
        Self { parser: vte::Parser::new(), state: Box::new(State::new(size)), tail: Vec::new() }
    }

    /// Reads output. What ends in the middle of a sequence goes on with the next call.
    pub fn feed(&mut self, output: &[u8]) {
        // The parser loses a character where another one is cut.
        let mut joined = std::mem::take(&mut self.tail);
        let output = if joined.is_empty() {
            output
        } else {
            joined.extend_from_slice(output);
            &joined
        };
        let (output, tail) = output.split_at(output.len() - incomplete_tail(output));
        self.tail = tail.to_vec();
        // The parser takes U+0080–U+009F for characters that do nothing; each stands for ESC and a letter.
        let mut read = 0;
        for lead in memchr_iter(C1_LEAD, output) {
            if let Some(control @ 0x80..=0x9F) = output.get(lead + 1) {
                self.parse(output.get(read..lead).unwrap_or_default());
                self.parser.advance(&mut *self.state, &[0x1b, control - 0x40]);
                read = lead + 2;
            }
        }
        self.parse(output.get(read..).unwrap_or_default());
    }

    /// A character of which only the beginning was read is not completed by what follows.
    pub fn end_character(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.parse(&tail);
            self.parse(b"\0"); // it does nothing else
        }
    }

    /// For each byte that is no text, the parser looks through all that it was given: so it gets pieces, of whole
    /// characters.
    fn parse(&mut self, mut output: &[u8]) {
        while let Some((piece, _)) = output.split_at_checked(PIECE_BYTES) {
            let (piece, rest) = output.split_at(PIECE_BYTES - incomplete_tail(piece));
            self.parser.advance(&mut *self.state, piece);
            output = rest;
        }
        self.parser.advance(&mut *self.state, output);
    }

    /// The cursor that was saved last is not known, so that nothing is certain until another one is saved.
    pub fn forget_saved(&mut self) {
        self.state.forget_saved();
    }

    /// Sets another size: columns are cut, rows above move to the history, nothing is wrapped again.
    pub fn resize(&mut self, size: Size) {
        self.state.resize(size);
    }

    /// Erases everything that is shown, since it is not known what a terminal shows that has read everything. The
    /// cursor is taken to be at the bottom, as in most shells.
    pub fn forget(&mut self) {
        self.state.forget();
    }

    /// The tab stops are not known, so that nothing is certain.
    pub fn forget_tabs(&mut self) {
        self.state.forget_tabs();
    }

    /// Brings it into the state of a screen of this size that wrote these sequences; its own size and history stay.
    pub fn restore(&mut self, sequences: &[u8], size: Size) {
        let own_size = self.size();
        let history = self.state.main.history.replace(VecDeque::new());
        self.resize(size);
        self.feed(sequences);
        self.state.main.history = history;
        self.resize(own_size);
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.state.size
    }

    /// Whether all cells, the cursor and the saved one are what a terminal shows that has read everything.
    pub fn is_known(&self) -> bool {
        self.state.is_known()
    }

    /// Whether a program uses the alternate screen.
    pub fn is_alternate(&self) -> bool {
        self.state.is_alternate
    }

    /// Writes what brings any terminal of this size to this state, with the newest part of the history before it.
    pub fn snapshot(&self, with_history: bool) -> Vec<u8> {
        write::snapshot(&self.state, with_history)
    }

    /// Writes what sets everything but cells, cursor and scroll region.
    pub fn settings(&self) -> Vec<u8> {
        write::settings(&self.state)
    }

    /// The first thing in which the two differ, for tests; the older part of the longer history does not count.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        self.state.difference(&other.state)
    }
}
