//! Writes a snapshot: a reset, the rows from the top, then everything else that is set.
//!
//! It writes these sequences alone: `ESC` with `c 7 H = n o ( ) * +`; `ESC [` with `C H G K X J g h l m r q u`; `ESC ]`
//! with `0 1 2 8`; and the control characters CR, LF, SO and SI.

use super::cell::{Cell, Glyph, Row};
use super::grid::{Charsets, Grid, Saved};
use super::modes::{self, Keyboard, PRIVATE};
use super::state::{State, is_default_tab};
use super::style::Style;
use std::io::Write;

/// The most of the history that a snapshot holds, in bytes.
pub const HISTORY_BYTES_MAX: usize = 64 << 10;

/// From this length on, cells are written without colours, attributes and links, in bytes: many times what any program
/// draws.
const STYLED_BYTES_MAX: usize = 256 << 10;

/// The longest snapshot, in bytes: the largest screen twice, each cell with a character and its marks.
pub const SNAPSHOT_BYTES_MAX: usize = 20 << 20;

struct Writer<'a> {
    state: &'a State,
    out: Vec<u8>,
    pen: Style,
}

/// What brings a terminal of this size to this state.
pub(super) fn snapshot(state: &State, with_history: bool) -> Vec<u8> {
    let mut writer = Writer { state, out: b"\x1bc".to_vec(), pen: Style::default() };
    writer.history(with_history);
    writer.rows(&state.main);
    let active = if state.is_alternate { &state.alternate } else { &state.main };
    if state.is_alternate {
        writer.keyboard(&state.keyboards[0]);
        writer.saved(&state.main);
        if writer.region(&state.main) {
            // The cursor went home, and must not be saved again.
            writer.put(format_args!("\x1b[?1047h"));
        } else {
            writer.put(format_args!("\x1b[?1049h"));
        }
        writer.forget_saved(state.main.saved);
        writer.put(format_args!("\x1b[H\x1b[2J"));
        writer.rows(&state.alternate);
    } else if state.alternate.saved != Saved::default() {
        writer.put(format_args!("\x1b[?1047h"));
        writer.saved(&state.alternate);
        writer.forget_saved(state.alternate.saved);
        writer.put(format_args!("\x1b[?1047l"));
    }
    writer.tabs();
    if active.saved != Saved::default() {
        writer.saved(active);
        writer.forget_saved(active.saved);
    }
    writer.region(active);
    writer.cursor(active);
    writer.style(state.pen);
    writer.charsets(state.charsets);
    writer.keyboard(&state.keyboards[usize::from(state.is_alternate)]);
    writer.modes();
    writer.titles();
    writer.out
}

/// What sets everything but cells, cursor and scroll region.
pub(super) fn settings(state: &State) -> Vec<u8> {
    let mut writer = Writer { state, out: Vec::new(), pen: Style::default() };
    writer.style(state.pen);
    writer.charsets(state.charsets);
    writer.keyboard(&state.keyboards[usize::from(state.is_alternate)]);
    writer.modes();
    writer.titles();
    if state.modes.has(modes::ORIGIN) {
        writer.put(format_args!("\x1b[?6h"));
    }
    writer.out
}

impl Writer<'_> {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a vector takes everything");
    }

    /// Writes the newest rows of the history, as many as fit.
    fn history(&mut self, is_wanted: bool) {
        let Some(history) = self.state.main.history.as_ref().filter(|_| is_wanted) else { return };
        let start = self.out.len();
        let mut room = HISTORY_BYTES_MAX;
        let mut below = self.state.main.rows.front();
        let mut parts = Vec::new();
        for row in history.iter().rev() {
            self.row(row);
            self.style(Style::default());
            if let Some(below) = below {
                self.next_row(row, below);
            }
            let part = self.out.split_off(start);
            let Some(left) = room.checked_sub(part.len()) else { break };
            (room, below) = (left, Some(row));
            parts.push(part);
        }
        parts.iter().rev().for_each(|part| self.out.extend_from_slice(part));
    }

    /// Writes the rows of a screen, from its first cell on.
    fn rows(&mut self, grid: &Grid) {
        let mut rows = grid.rows.iter().peekable();
        while let Some(row) = rows.next() {
            self.row(row);
            if let Some(below) = rows.peek() {
                self.next_row(row, below);
            }
        }
        self.style(Style::default());
    }

    /// Goes to the row below: by a wrap where that goes on with this one, for a terminal that wraps lines again.
    fn next_row(&mut self, row: &Row, below: &Row) {
        let columns = self.state.columns();
        let (last, first) = (row.cell(columns - 1), below.cell(0));
        let is_full = last.glyph != Glyph::EMPTY;
        let is_plain = first.style.background == Style::default().background;
        if below.continues && is_full && first.glyph != Glyph::EMPTY && is_plain {
            return; // its first character is wrapped
        }
        // A row that comes in has the background of the pen.
        if self.pen.background != Style::default().background {
            self.style(Style::default());
        }
        if !below.continues || !is_full && self.state.rows() == 1 {
            return self.out.extend_from_slice(b"\r\n");
        }
        // A character that is erased again is wrapped, if need be behind another one.
        if is_full {
            self.out.extend_from_slice(b" \r\x1b[X");
        } else {
            self.put(format_args!("\x1b[{columns}G  \r\x1b[X\x1b[A\x1b[{columns}G"));
            self.style(last.style);
            self.out.extend_from_slice(b"\x1b[X\x1b[B\r");
            self.style(Style::default());
        }
    }

    fn row(&mut self, row: &Row) {
        let (used, columns) = (row.used(), self.state.columns());
        let mut cells = row.cells.get(..used).unwrap_or_default();
        // Erased cells that the cursor has yet to pass.
        let mut skipped = 0;
        while let Some((cell, rest)) = cells.split_first() {
            cells = rest;
            if cell.glyph == Glyph::EMPTY {
                let alike = rest.iter().take_while(|next| *next == cell).count();
                cells = rest.get(alike..).unwrap_or_default();
                if cell.style != Style::default() {
                    self.forward(std::mem::take(&mut skipped));
                    self.style(cell.style);
                    self.put(format_args!("\x1b[{}X", alike + 1));
                }
                skipped += alike + 1;
            } else if cell.glyph != Glyph::TAIL {
                self.forward(std::mem::take(&mut skipped));
                self.glyph(*cell);
            }
        }
        if row.fill != Style::default() && used < columns {
            self.forward(skipped);
            self.style(row.fill);
            if row.continues && used == 0 {
                self.put(format_args!("\x1b[{columns}X")); // the other one ends what the row goes on with
            } else {
                self.out.extend_from_slice(b"\x1b[K");
            }
        }
    }

    fn forward(&mut self, columns: usize) {
        match columns {
            0 => {}
            1 => self.out.extend_from_slice(b"\x1b[C"),
            _ => self.put(format_args!("\x1b[{columns}C")),
        }
    }

    fn glyph(&mut self, cell: Cell) {
        self.style(cell.style);
        self.state.clusters.write(cell.glyph, &mut self.out);
    }

    fn style(&mut self, to: Style) {
        let to = if self.out.len() > STYLED_BYTES_MAX { Style::default() } else { to };
        if to.link != self.pen.link {
            let link = self.state.link(to.link).map_or(("", ""), |link| (&link.0, &link.1));
            self.put(format_args!("\x1b]8;{};{}\x1b\\", link.0, link.1));
        }
        to.write(self.pen, &mut self.out);
        self.pen = to;
    }

    /// Saves the cursor of a grid, and leaves everything as it is saved.
    fn saved(&mut self, grid: &Grid) {
        let (saved, last) = (grid.saved, self.state.columns() - 1);
        if saved.origin {
            // Rows count from the top of the region, which is still the whole screen.
            self.put(format_args!("\x1b[?6h"));
        }
        let row = grid.rows.get(saved.row).filter(|_| saved.column > last);
        let is_blank = row.is_some_and(|row| !self.behind(row, saved.row));
        match row {
            None => self.place(saved.column, saved.row),
            Some(_) if is_blank => self.out.push(b' '),
            Some(_) => {}
        }
        self.style(saved.pen);
        self.charsets(saved.charsets);
        self.put(format_args!("\x1b7"));
        if let Some(row) = row.filter(|_| is_blank) {
            self.place(last, saved.row);
            self.style(row.cell(last).style);
            self.put(format_args!("\x1b[X\x1b8"));
            self.pen = saved.pen;
        }
    }

    /// Goes to the last column of a row, and behind it if there is a character to be printed again.
    fn behind(&mut self, cells: &Row, row: usize) -> bool {
        let last = self.state.columns() - 1;
        let column = last - usize::from(cells.cell(last).glyph == Glyph::TAIL);
        self.place(column, row);
        let cell = cells.cell(column);
        if cell.glyph != Glyph::EMPTY {
            self.glyph(cell);
        }
        cell.glyph != Glyph::EMPTY
    }

    /// Resets what was set for a saved cursor.
    fn forget_saved(&mut self, saved: Saved) {
        if saved.origin {
            self.put(format_args!("\x1b[?6l"));
        }
        self.style(Style::default());
        self.forget_charsets(saved);
    }

    fn forget_charsets(&mut self, saved: Saved) {
        for (slot, set) in b"()*+".iter().zip(saved.charsets.sets) {
            if set != b'B' {
                self.out.extend_from_slice(&[0x1b, *slot, b'B']);
            }
        }
        if saved.charsets.in_use != 0 {
            self.out.push(0x0f);
        }
    }

    fn charsets(&mut self, charsets: Charsets) {
        for (slot, set) in b"()*+".iter().zip(charsets.sets) {
            if set != b'B' {
                self.out.extend_from_slice(&[0x1b, *slot, set]);
            }
        }
        let shift: &[u8] = match charsets.in_use {
            0 => b"",
            1 => b"\x0e",
            2 => b"\x1bn",
            _ => b"\x1bo",
        };
        self.out.extend_from_slice(shift);
    }

    /// Sets the scroll region, which brings the cursor home; false if it is the whole screen.
    fn region(&mut self, grid: &Grid) -> bool {
        let is_part = (grid.top, grid.bottom) != (0, grid.rows.len() - 1);
        if is_part {
            self.put(format_args!("\x1b[{};{}r", grid.top + 1, grid.bottom + 1));
        }
        is_part
    }

    fn place(&mut self, column: usize, row: usize) {
        self.put(format_args!("\x1b[{};{}H", row + 1, column + 1));
    }

    fn cursor(&mut self, grid: &Grid) {
        let (columns, mut row) = (self.state.columns(), self.state.row);
        if self.state.modes.has(modes::ORIGIN) {
            self.put(format_args!("\x1b[?6h"));
            row = row.saturating_sub(grid.top);
        }
        if self.state.column < columns {
            return self.place(self.state.column, row);
        }
        let Some(cells) = grid.rows.get(self.state.row) else { return };
        if self.behind(cells, row) {
            return;
        }
        let saved = grid.saved;
        if cells.used() == 0 {
            self.out.push(b' ');
            self.style(cells.fill);
            self.put(format_args!("\x1b[1K"));
        } else if (saved.column, saved.row) == (self.state.column, self.state.row) {
            self.put(format_args!("\x1b8"));
            self.pen = saved.pen;
            self.forget_charsets(saved);
        }
    }

    fn tabs(&mut self) {
        let tabs = &self.state.tabs;
        if tabs.iter().enumerate().all(|(column, stop)| *stop == is_default_tab(column)) {
            return;
        }
        self.put(format_args!("\x1b[3g"));
        for column in (0..tabs.len()).filter(|column| tabs.get(*column) == Some(&true)) {
            self.put(format_args!("\x1b[{}G\x1bH", column + 1));
        }
    }

    fn keyboard(&mut self, keyboard: &Keyboard) {
        let mut flags = 0;
        let next = keyboard.pushed.iter().skip(1).chain([&keyboard.flags]);
        for (pushed, next) in keyboard.pushed.iter().zip(next) {
            if flags != *pushed {
                self.put(format_args!("\x1b[={pushed}u"));
            }
            self.put(format_args!("\x1b[>{next}u"));
            flags = *next;
        }
        if flags != keyboard.flags {
            self.put(format_args!("\x1b[={}u", keyboard.flags));
        }
    }

    fn modes(&mut self) {
        let state = self.state;
        if state.modes.has(modes::INSERT) {
            self.put(format_args!("\x1b[4h"));
        }
        if state.modes.has(modes::NEW_LINE) {
            self.put(format_args!("\x1b[20h"));
        }
        if state.modes.has(modes::KEYPAD) {
            self.put(format_args!("\x1b="));
        }
        if state.cursor_shape != 0 {
            self.put(format_args!("\x1b[{} q", state.cursor_shape));
        }
        if state.modified_keys != 0 {
            self.put(format_args!("\x1b[>4;{}m", state.modified_keys));
        }
        for (number, bit, default) in PRIVATE {
            if state.modes.has(bit) != default && bit != modes::KEYPAD {
                self.put(format_args!("\x1b[?{number}{}", if default { 'l' } else { 'h' }));
            }
        }
        for number in [state.mouse.encoding, state.mouse.events].into_iter().filter(|number| *number != 0) {
            self.put(format_args!("\x1b[?{number}h"));
        }
    }

    fn titles(&mut self) {
        let (title, icon) = (&self.state.title, &self.state.icon);
        match (title, icon) {
            (Some(title), Some(icon)) if title == icon => self.put(format_args!("\x1b]0;{title}\x1b\\")),
            _ => {
                if let Some(icon) = icon {
                    self.put(format_args!("\x1b]1;{icon}\x1b\\"));
                }
                if let Some(title) = title {
                    self.put(format_args!("\x1b]2;{title}\x1b\\"));
                }
            }
        }
    }
}
