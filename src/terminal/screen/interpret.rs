//! What each character and sequence does, as xterm.js does it, and else xterm.

use super::cell::{Cell, Glyph};
use super::grid::{Charsets, Grid};
use super::modes;
use super::state::State;
use super::style::Style;
use std::iter::repeat_n;
use std::mem::replace;
use unicode_width::UnicodeWidthChar;
use vte::{Params, Perform};

/// What the bytes 0x60–0x7E stand for in the set of lines and symbols (`ESC ( 0`).
const SYMBOLS: [char; 31] = [
    '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├', '┤', '┴',
    '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

impl State {
    fn translated(&self, character: char) -> char {
        match self.charsets.sets.get(self.charsets.in_use) {
            Some(b'0') => u32::from(character)
                .checked_sub(0x60)
                .and_then(|place| SYMBOLS.get(usize::try_from(place).ok()?).copied())
                .unwrap_or(character),
            Some(b'A') if character == '#' => '£',
            _ => character,
        }
    }

    fn put(&mut self, character: char, width: usize) {
        let columns = self.columns();
        if width > columns {
            return;
        }
        self.touch();
        if self.column + width > columns {
            if self.modes.has(modes::WRAP) {
                self.line_feed();
                self.column = 0;
                let row = self.row;
                if let Some(row) = self.grid().rows.get_mut(row) {
                    row.continues = true;
                }
            } else {
                self.column = columns - width;
            }
        }
        let (row, column, pen) = (self.row, self.column, self.pen);
        let inserts = self.modes.has(modes::INSERT);
        let grid = self.grid();
        if inserts && let Some(row) = grid.rows.get_mut(row) {
            row.insert(column, width, columns, pen);
        }
        grid.put(row, column, Cell { glyph: Glyph::of(character, width == 2), style: pen });
        self.column += width;
    }

    fn tab(&mut self, count: usize, is_back: bool) {
        let columns = self.columns();
        for _ in 0..count.min(columns) {
            if self.column >= columns {
                return;
            }
            let stop = if is_back {
                self.tabs.get(..self.column).unwrap_or_default().iter().rposition(|stop| *stop)
            } else {
                let behind = self.tabs.get(self.column + 1..).unwrap_or_default();
                Some(behind.iter().position(|stop| *stop).map_or(columns - 1, |stop| self.column + 1 + stop))
            };
            self.column = stop.unwrap_or(0);
        }
    }

    fn erase_display(&mut self, what: usize) {
        self.touch();
        let (rows, columns, row, pen) = (self.rows(), self.columns(), self.row, self.pen);
        let (column, is_certain) = (self.column, self.cursor_is_known());
        let grid = self.grid();
        match what {
            0 => {
                grid.erase(row, column, columns, pen);
                if column == 0 {
                    grid.begin_line(row);
                }
                grid.erase_rows(row + 1, rows, pen);
                if is_certain && (row, column) == (0, 0) {
                    self.is_redrawn();
                }
            }
            1 => {
                grid.erase_rows(0, row, pen);
                grid.erase(row, 0, column + 1, pen);
                grid.begin_line(row);
                if column + 1 >= columns {
                    grid.begin_line(row + 1);
                }
            }
            2 => {
                grid.erase_rows(0, rows, pen);
                self.is_redrawn();
            }
            3 => grid.forget_history(),
            _ => {}
        }
    }

    fn erase_line(&mut self, what: usize) {
        self.touch();
        let (columns, row, column, pen) = (self.columns(), self.row, self.column, self.pen);
        let grid = self.grid();
        match what {
            0 => grid.erase(row, column, columns, pen),
            1 => grid.erase(row, 0, column + 1, pen),
            2 => grid.erase(row, 0, columns, pen),
            _ => {}
        }
        if what == 2 || what == 0 && column == 0 {
            grid.begin_line(row);
        }
    }

    /// Changes the row of the cursor at the column of the cursor.
    fn edit(&mut self, change: impl FnOnce(&mut super::cell::Row, usize, usize, Style)) {
        self.touch();
        self.end_pending_wrap();
        let (columns, row, column, pen) = (self.columns(), self.row, self.column, self.pen);
        if let Some(row) = self.grid().rows.get_mut(row) {
            change(row, column, columns, pen);
        }
    }

    /// Changes rows from that of the cursor on, if it is in the scroll region.
    fn edit_rows(&mut self, count: usize, change: fn(&mut Grid, usize, usize, Style)) {
        self.touch();
        let (row, pen) = (self.row, self.pen);
        let grid = self.grid();
        if (grid.top..=grid.bottom).contains(&row) {
            change(grid, row, count, pen);
            self.carriage_return();
        }
    }

    /// Scrolls the region without the cursor.
    fn scroll(&mut self, count: usize, change: fn(&mut Grid, usize, usize, Style)) {
        self.end_pending_wrap();
        let pen = self.pen;
        let grid = self.grid();
        change(grid, grid.top, count, pen);
    }

    fn set_region(&mut self, top: usize, bottom: usize) {
        let rows = self.rows();
        let bottom = if bottom == 0 { rows } else { bottom.min(rows) };
        let top = top.max(1);
        if top < bottom {
            let grid = self.grid();
            (grid.top, grid.bottom) = (top - 1, bottom - 1);
            self.go_to(0, 0);
        }
    }

    fn use_alternate(&mut self, on: bool) {
        if on == self.is_alternate {
            return;
        }
        self.end_pending_wrap();
        self.is_alternate = on;
        if on {
            let (size, pen, rows) = (self.size, self.pen, self.rows());
            let old = replace(&mut self.alternate, Grid::new(size, false));
            // What was saved there stays, as in xterm.js.
            (self.alternate.saved, self.alternate.saved_is_known) = (old.saved, old.saved_is_known);
            self.alternate.erase_rows(0, rows, pen);
            self.keyboards[1] = modes::Keyboard::default();
        }
    }

    fn set_private_mode(&mut self, number: u16, on: bool) {
        if let Some((_, bit, _)) = modes::PRIVATE.iter().find(|(known, ..)| *known == number) {
            return self.modes.set(*bit, on);
        }
        if self.mouse.set(number, on) {
            return;
        }
        match number {
            6 => {
                self.modes.set(modes::ORIGIN, on);
                self.go_to(0, 0);
            }
            47 | 1047 => self.use_alternate(on),
            1048 if on => self.save_cursor(),
            1048 => self.restore_cursor(),
            1049 if on => {
                self.save_cursor();
                self.use_alternate(true);
            }
            1049 => {
                self.use_alternate(false);
                self.restore_cursor();
            }
            _ => {}
        }
    }

    fn set_mode(&mut self, number: u16, on: bool) {
        match number {
            4 => self.modes.set(modes::INSERT, on),
            20 => self.modes.set(modes::NEW_LINE, on),
            _ => {}
        }
    }

    fn reset_softly(&mut self) {
        let reset = modes::ORIGIN | modes::INSERT | modes::CURSOR_KEYS | modes::KEYPAD;
        self.modes.set(reset, false);
        self.modes.set(modes::WRAP | modes::VISIBLE, true);
        self.pen = Style { link: self.pen.link, ..Style::default() };
        self.charsets = Charsets::default();
        // Behind the last column it could have been brought by the saved one alone, which is gone.
        self.end_pending_wrap();
        let bottom = self.rows() - 1;
        let grid = self.grid();
        (grid.top, grid.bottom) = (0, bottom);
        (grid.saved, grid.saved_is_known) = (super::grid::Saved::default(), true);
    }

    /// A control sequence without a marker and an intermediate.
    fn plain_sequence(&mut self, action: char, params: &Params) {
        let mut groups = params.iter().map(|group| usize::from(group.first().copied().unwrap_or_default()));
        let first = groups.next().unwrap_or_default();
        let second = groups.next().unwrap_or_default();
        let count = first.max(1);
        match action {
            '@' => self.edit(|row, column, columns, pen| row.insert(column, count, columns, pen)),
            'A' => self.up(count),
            'B' | 'e' => self.down(count),
            'C' | 'a' => {
                self.end_pending_wrap();
                self.column = (self.column + count).min(self.columns() - 1);
            }
            'D' => {
                self.end_pending_wrap();
                self.column = self.column.saturating_sub(count);
            }
            'E' => {
                self.down(count);
                self.carriage_return();
            }
            'F' => {
                self.up(count);
                self.carriage_return();
            }
            'G' | '`' => self.go_to_column(count - 1),
            'H' | 'f' => self.go_to(second.max(1) - 1, count - 1),
            'I' => self.tab(count, false),
            'J' => self.erase_display(first),
            'K' => self.erase_line(first),
            'L' => self.edit_rows(count, Grid::insert_rows),
            'M' => self.edit_rows(count, Grid::delete_rows),
            'P' => self.edit(|row, column, columns, pen| row.delete(column, count, columns, pen)),
            'S' => self.scroll(count, Grid::delete_rows),
            // As in xterm.js, these rows come in without the background of the pen.
            'T' if params.len() == 1 => {
                self.scroll(count, |grid, row, count, _| grid.insert_rows(row, count, Style::default()));
            }
            'X' => self.edit(|row, column, columns, pen| row.erase(column, column + count, columns, pen)),
            'Z' => self.tab(count, true),
            'b' => {
                let cells = self.columns() * self.rows();
                if let Some(character) = self.last_printed {
                    repeat_n(character, count.min(cells)).for_each(|character| self.print(character));
                }
            }
            'd' => self.go_to_row(count - 1),
            'g' if first == 0 => {
                let column = self.column;
                if let Some(stop) = self.tabs.get_mut(column) {
                    *stop = false;
                }
            }
            'g' if first == 3 => self.tabs.fill(false),
            'h' | 'l' => params.iter().flatten().for_each(|number| self.set_mode(*number, action == 'h')),
            'm' => {
                if first == 0 {
                    self.pen_is_known();
                }
                self.pen.apply(params.iter());
            }
            'r' => self.set_region(first, second),
            's' => self.save_cursor(),
            'u' => self.restore_cursor(),
            _ => {}
        }
    }
}

impl Perform for State {
    fn print(&mut self, character: char) {
        let character = self.translated(character);
        let width = if character < '\u{7f}' { 1 } else { character.width().unwrap_or_default() };
        if width == 0 {
            self.touch();
            let (row, column) = (self.row, self.column);
            let (grid, clusters) =
                (if self.is_alternate { &mut self.alternate } else { &mut self.main }, &mut self.clusters);
            return grid.mark(row, column, character, clusters);
        }
        self.put(character, width);
        self.last_printed = Some(character);
    }

    fn execute(&mut self, byte: u8) {
        self.last_printed = None;
        match byte {
            0x08 => self.column = self.column.min(self.columns() - 1).saturating_sub(1),
            b'\t' => self.tab(1, false),
            b'\n' | 0x0b | 0x0c => {
                let above = self.row;
                self.line_feed();
                // As in xterm.js, a line feed behind the last column goes to the next row and leaves the column.
                self.end_pending_wrap();
                let row = self.row;
                if row != above {
                    self.grid().begin_line(row);
                }
                if self.modes.has(modes::NEW_LINE) {
                    self.carriage_return();
                }
            }
            b'\r' => self.carriage_return(),
            0x0e => self.charsets.in_use = 1,
            0x0f => self.charsets.in_use = 0,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        if !matches!(action, '@' | 'C' | 'D' | 'G' | 'K' | 'P' | 'X' | 'm' | 'h' | 'l') {
            self.end_line_feeds();
        }
        if action != 'b' || !intermediates.is_empty() {
            self.last_printed = None;
        }
        let mut numbers = params.iter().map(|group| group.first().copied().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        match (intermediates, action) {
            ([], _) => self.plain_sequence(action, params),
            (b"?", 'h' | 'l') => {
                params.iter().flatten().for_each(|number| self.set_private_mode(*number, action == 'h'));
            }
            (b"?", 'J') => self.erase_display(next().into()),
            (b"?", 'K') => self.erase_line(next().into()),
            (b" ", 'q') => self.cursor_shape = Some(next()).filter(|shape| *shape <= 6).unwrap_or_default(),
            (b"!", 'p') => self.reset_softly(),
            (b">", 'm') if next() == 4 => self.modified_keys = next().min(2),
            (b">", 'n') if next() == 4 => self.modified_keys = 0,
            (b">", 'u') => self.keyboard().push(next()),
            (b"<", 'u') => self.keyboard().pop(next().max(1)),
            (b"=", 'u') => {
                let flags = next();
                self.keyboard().set(flags, next());
            }
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        if ignore {
            return;
        }
        self.end_line_feeds();
        self.last_printed = None;
        match (intermediates, byte) {
            ([], b'7') => self.save_cursor(),
            ([], b'8') => self.restore_cursor(),
            ([], b'=' | b'>') => self.modes.set(modes::KEYPAD, byte == b'='),
            ([], b'D') => {
                self.end_pending_wrap();
                self.line_feed();
            }
            ([], b'E') => {
                self.carriage_return();
                self.line_feed();
            }
            ([], b'H') => {
                let column = self.column;
                if let Some(stop) = self.tabs.get_mut(column) {
                    *stop = true;
                }
            }
            ([], b'M') => self.reverse_line_feed(),
            ([], b'c') => {
                // What stands in older cells is in these tables.
                let old = replace(self, Self::new(self.size));
                (self.links, self.clusters) = (old.links, old.clusters);
            }
            ([], b'n') => self.charsets.in_use = 2,
            ([], b'o') => self.charsets.in_use = 3,
            ([slot @ b'('..=b'+'], set) => {
                if let Some(place) = self.charsets.sets.get_mut(usize::from(slot - b'(')) {
                    *place = if matches!(set, b'0' | b'A') { set } else { b'B' };
                }
            }
            ([b'#'], b'8') => self.fill_with_e(),
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        match params {
            [number @ (b"0" | b"1" | b"2"), text @ ..] => self.set_title(number, &text.join(&b';')),
            [b"8", parameters, address @ ..] => self.set_link(parameters, &address.join(&b';')),
            _ => {}
        }
    }
}

impl State {
    /// Fills the screen for an adjustment of the display.
    fn fill_with_e(&mut self) {
        let (rows, columns, pen) = (self.rows(), self.columns(), self.pen);
        self.is_redrawn();
        self.grid().erase_rows(0, rows, pen);
        for row in 0..rows {
            for column in 0..columns {
                self.grid().put(row, column, Cell { glyph: Glyph::of('E', false), style: pen });
            }
        }
        self.go_to(0, 0);
    }
}
