//! Cells and rows.

use super::style::Style;
use litemap::LiteMap;

/// How many different combinations of a character and its marks are kept; marks beyond them are dropped.
const CLUSTERS_MAX: usize = 4_096;

/// How many marks a character keeps: more than any script stacks.
const CLUSTER_BYTES_MAX: usize = 32;

/// What stands in a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Glyph(u32);

/// The right half of a wide character.
const TAIL: u32 = 1 << 31;
/// The number of a cluster, not of a character.
const CLUSTER: u32 = 1 << 30;
/// The left half of a wide character.
const WIDE: u32 = 1 << 29;

impl Glyph {
    /// Nothing was printed there, or it was erased.
    pub(super) const EMPTY: Self = Self(0);
    pub(super) const TAIL: Self = Self(TAIL);

    pub(super) fn of(character: char, is_wide: bool) -> Self {
        Self(u32::from(character) | if is_wide { WIDE } else { 0 })
    }

    pub(super) const fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    const fn number(self) -> u32 {
        self.0 & !(WIDE | CLUSTER)
    }
}

/// One place of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) glyph: Glyph,
    pub(super) style: Style,
}

/// One line of the screen: the cells up to the last that was printed, and how the others were erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// The style of the cells behind.
    pub(super) fill: Style,
    /// It goes on with what did not fit into the row above.
    pub(super) continues: bool,
}

impl Row {
    pub(super) fn erased(fill: Style) -> Self {
        Self { fill, ..Self::default() }
    }

    pub(super) fn cell(&self, column: usize) -> Cell {
        self.cells.get(column).copied().unwrap_or(Cell { glyph: Glyph::EMPTY, style: self.fill })
    }

    /// Puts a character there; what it covers half of is erased.
    pub(super) fn put(&mut self, column: usize, cell: Cell, columns: usize) {
        let end = column + 1 + usize::from(cell.glyph.is_wide());
        if end > columns {
            return;
        }
        if column == self.cells.len() && !cell.glyph.is_wide() {
            // The usual case: text goes on.
            return self.cells.push(cell);
        }
        self.split_wide(column, cell.style);
        self.split_wide(end, cell.style);
        self.reach(end);
        if let Some([first, rest @ ..]) = self.cells.get_mut(column..end) {
            *first = cell;
            rest.fill(Cell { glyph: Glyph::TAIL, ..cell });
        }
    }

    /// Erases the cells of a range.
    pub(super) fn erase(&mut self, from: usize, to: usize, columns: usize, pen: Style) {
        let (to, fill) = (to.min(columns), pen.erased());
        if from >= to {
            return;
        }
        self.split_wide(from, fill);
        self.split_wide(to, fill);
        if to == columns {
            self.reach(from);
            self.cells.truncate(from);
            self.fill = fill;
        } else {
            self.reach(to);
            let erased = Cell { glyph: Glyph::EMPTY, style: fill };
            self.cells.get_mut(from..to).unwrap_or_default().fill(erased);
        }
    }

    /// Moves what stands from a column on to the right by `count` erased cells.
    pub(super) fn insert(&mut self, column: usize, count: usize, columns: usize, pen: Style) {
        let count = count.min(columns - column.min(columns));
        if count == 0 {
            return;
        }
        let erased = Cell { glyph: Glyph::EMPTY, style: pen.erased() };
        self.split_wide(column, erased.style);
        self.split_wide(columns - count, erased.style);
        self.reach(column);
        self.cells.splice(column..column, std::iter::repeat_n(erased, count));
        self.cells.truncate(columns);
        self.split_wide(columns, erased.style);
    }

    /// Deletes `count` cells from a column on; erased ones follow at the end.
    pub(super) fn delete(&mut self, column: usize, count: usize, columns: usize, pen: Style) {
        let count = count.min(columns - column.min(columns));
        if count == 0 {
            return;
        }
        let fill = pen.erased();
        self.split_wide(column, fill);
        self.split_wide(column + count, fill);
        if self.fill == fill {
            self.reach(column);
            self.cells.drain(column..self.cells.len().min(column + count));
        } else {
            self.reach(columns);
            self.cells.drain(column..column + count);
            self.fill = fill;
        }
    }

    /// Cuts or widens it.
    pub(super) fn resize(&mut self, columns: usize) {
        if self.cells.len() > columns {
            self.split_wide(columns, self.fill);
            self.cells.truncate(columns);
        }
    }

    /// How many cells differ from what follows them.
    pub(super) fn used(&self) -> usize {
        let erased = Cell { glyph: Glyph::EMPTY, style: self.fill };
        self.cells.iter().rposition(|cell| *cell != erased).map_or(0, |last| last + 1)
    }

    /// Makes it so long that the cell before `end` exists.
    fn reach(&mut self, end: usize) {
        if self.cells.len() < end {
            self.cells.resize(end, Cell { glyph: Glyph::EMPTY, style: self.fill });
        }
    }

    /// Erases both halves of a wide character that lies across the left edge of a column. As in xterm.js, they get all
    /// of the style; an erased cell can have a background alone, so with more it is a blank.
    fn split_wide(&mut self, column: usize, style: Style) {
        if self.cells.get(column).is_none_or(|cell| cell.glyph != Glyph::TAIL) {
            return;
        }
        let glyph = if style == style.erased() { Glyph::EMPTY } else { Glyph::of(' ', false) };
        let erased = Cell { glyph, style };
        self.cells.get_mut(column - 1..=column).unwrap_or_default().fill(erased);
    }
}

/// The characters with marks that stand somewhere, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Clusters {
    texts: Vec<Box<str>>,
    numbers: LiteMap<Box<str>, u32>,
}

impl Clusters {
    /// Writes what stands in a cell.
    pub(super) fn write(&self, glyph: Glyph, out: &mut Vec<u8>) {
        if glyph.0 & CLUSTER != 0 {
            let text = usize::try_from(glyph.number()).ok().and_then(|number| self.texts.get(number));
            out.extend_from_slice(text.map_or("", |text| text).as_bytes());
        } else if let Some(character) = char::from_u32(glyph.number()) {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// The same with a mark more.
    pub(super) fn marked(&mut self, glyph: Glyph, mark: char) -> Glyph {
        let mut text = Vec::new();
        self.write(glyph, &mut text);
        text.extend_from_slice(mark.encode_utf8(&mut [0; 4]).as_bytes());
        let Some(text) = String::from_utf8(text).ok().filter(|text| text.len() <= CLUSTER_BYTES_MAX) else {
            return glyph;
        };
        let known = self.numbers.get(text.as_str()).copied();
        let Some(number) = known.or_else(|| u32::try_from(self.texts.len()).ok()) else { return glyph };
        if known.is_none() {
            if self.texts.len() >= CLUSTERS_MAX {
                return glyph;
            }
            self.texts.push(text.clone().into());
            self.numbers.insert(text.into(), number);
        }
        Glyph(number | CLUSTER | glyph.0 & WIDE)
    }
}
