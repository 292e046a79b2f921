//! One of the two buffers of a terminal: its rows, scroll region and saved cursor. The main one has a history.

use super::cell::{Cell, Clusters, Glyph, Row};
use super::style::Style;
use super::{HISTORY_CELLS_MAX, HISTORY_ROWS_MAX, Size};
use std::collections::VecDeque;

/// The four character sets that a program may choose from, as the byte that designates each, and the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charsets {
    pub(super) sets: [u8; 4],
    pub(super) in_use: usize,
}

impl Default for Charsets {
    fn default() -> Self {
        Self { sets: [b'B'; 4], in_use: 0 }
    }
}

/// What `ESC 7` saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) column: usize,
    pub(super) row: usize,
    pub(super) pen: Style,
    pub(super) charsets: Charsets,
    pub(super) origin: bool,
}

/// A buffer.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub(super) columns: usize,
    pub(super) rows: VecDeque<Row>,
    /// The first and the last row that scroll.
    pub(super) top: usize,
    pub(super) bottom: usize,
    pub(super) saved: Saved,
    pub(super) saved_is_known: bool,
    /// Rows that were scrolled out, the oldest first; `None` in the alternate buffer.
    pub(super) history: Option<VecDeque<Row>>,
    history_cells: usize,
    /// Whether every cell is what a terminal shows that read the session from its start.
    pub(super) is_known: bool,
}

impl Grid {
    pub(super) fn new(size: Size, has_history: bool) -> Self {
        Self {
            columns: size.columns(),
            rows: std::iter::repeat_n(Row::default(), size.rows()).collect(),
            top: 0,
            bottom: size.rows() - 1,
            saved: Saved::default(),
            saved_is_known: true,
            history: has_history.then(VecDeque::new),
            history_cells: 0,
            is_known: true,
        }
    }

    /// Puts a character into a cell.
    pub(super) fn put(&mut self, row: usize, column: usize, cell: Cell) {
        let columns = self.columns;
        if let Some(row) = self.rows.get_mut(row) {
            row.put(column, cell, columns);
        }
    }

    /// Adds a mark to the character before a column.
    pub(super) fn mark(&mut self, row: usize, column: usize, mark: char, clusters: &mut Clusters) {
        let Some(row) = self.rows.get_mut(row) else { return };
        let is_tail = |at: usize| row.cell(at).glyph == Glyph::TAIL;
        let Some(at) = column.checked_sub(1).and_then(|at| at.checked_sub(usize::from(is_tail(at)))) else { return };
        if let Some(cell) = row.cells.get_mut(at).filter(|cell| cell.glyph != Glyph::EMPTY) {
            cell.glyph = clusters.marked(cell.glyph, mark);
        }
    }

    /// Erases the cells of a range in one row.
    pub(super) fn erase(&mut self, row: usize, from: usize, to: usize, pen: Style) {
        let columns = self.columns;
        if let Some(row) = self.rows.get_mut(row) {
            row.erase(from, to, columns, pen);
        }
    }

    /// What stands in this row no longer goes on with what stands above it.
    pub(super) fn begin_line(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.continues = false;
        }
    }

    /// Erases whole rows.
    pub(super) fn erase_rows(&mut self, from: usize, to: usize, pen: Style) {
        for row in self.rows.range_mut(from.min(to)..to.min(self.rows.len())) {
            row.cells.clear();
            (row.fill, row.continues) = (pen.erased(), false);
        }
    }

    /// Scrolls the region up by a row; what leaves at the top of the screen goes into the history.
    pub(super) fn scroll_up(&mut self, pen: Style) {
        let keeps = self.top == 0 && self.history.is_some();
        let Some(gone) = self.rows.remove(self.top) else { return };
        let mut fresh = if keeps { self.remember(gone) } else { gone };
        fresh.cells.clear();
        (fresh.fill, fresh.continues) = (pen.erased(), false);
        self.rows.insert(self.bottom.min(self.rows.len()), fresh);
    }

    /// Keeps a row in the history; the result is one to use again.
    fn remember(&mut self, row: Row) -> Row {
        let Some(history) = &mut self.history else { return row };
        self.history_cells += row.cells.len();
        history.push_back(row);
        let mut spare = Row::default();
        while history.len() > HISTORY_ROWS_MAX || self.history_cells > HISTORY_CELLS_MAX {
            spare = history.pop_front().unwrap_or_default();
            self.history_cells -= spare.cells.len();
        }
        spare
    }

    pub(super) fn forget_history(&mut self) {
        self.history_cells = 0;
        if let Some(history) = &mut self.history {
            history.clear();
        }
    }

    /// Deletes rows from one on; erased rows come in at the bottom of the region.
    pub(super) fn delete_rows(&mut self, row: usize, count: usize, pen: Style) {
        for _ in 0..count.min((self.bottom + 1).saturating_sub(row)) {
            self.rows.remove(row);
            self.rows.insert(self.bottom.min(self.rows.len()), Row::erased(pen.erased()));
        }
    }

    /// Inserts erased rows; those at the bottom of the region are lost.
    pub(super) fn insert_rows(&mut self, row: usize, count: usize, pen: Style) {
        for _ in 0..count.min((self.bottom + 1).saturating_sub(row)) {
            self.rows.remove(self.bottom);
            self.rows.insert(row.min(self.rows.len()), Row::erased(pen.erased()));
        }
    }

    /// Sets another size, and returns by how many rows the content moved up. Nothing is wrapped again: columns are cut.
    /// Rows are taken from those below the cursor that are empty, then from the top, where they go into the history.
    pub(super) fn resize(&mut self, size: Size, cursor_row: usize) -> usize {
        let mut moved = 0;
        let columns = size.columns();
        while self.rows.len() > size.rows() {
            let is_empty = self.rows.back().is_some_and(|row| row.used() == 0 && row.fill == Style::default());
            if is_empty && self.rows.len() - 1 > cursor_row.saturating_sub(moved) {
                self.rows.pop_back();
            } else if let Some(gone) = self.rows.pop_front() {
                moved += 1;
                self.remember(gone);
            }
        }
        self.rows.resize_with(size.rows(), Row::default);
        if columns < self.columns {
            self.rows.iter_mut().for_each(|row| row.resize(columns));
            // A row of the history is shown as it would be had it always been so narrow.
            self.history.iter_mut().flatten().for_each(|row| row.resize(columns));
            self.history_cells = self.history.iter().flatten().map(|row| row.cells.len()).sum();
        }
        self.columns = columns;
        (self.top, self.bottom) = (0, size.rows() - 1);
        self.saved.column = self.saved.column.min(columns - 1);
        self.saved.row = self.saved.row.saturating_sub(moved).min(size.rows() - 1);
        moved
    }
}
