//! The state of a terminal: both buffers, the cursor, the pen, and all modes.

use super::cell::{Cell, Clusters, Glyph};
use super::grid::{Charsets, Grid, Saved};
use super::modes::{Keyboard, Modes, Mouse};
use super::style::Style;
use super::{Size, modes};

/// How many addresses of links are kept, and their bytes together; cells with others have none.
const LINKS_MAX: usize = 512;
const LINKS_BYTES_MAX: usize = 64 << 10;

/// The longest title that is kept, in characters: more than a window shows.
const TITLE_CHARS_MAX: usize = 256;

/// A tab stop stands in every eighth column.
const TAB_COLUMNS: usize = 8;

/// What is known after a part of the output was missed.
#[derive(Clone, Copy, Debug)]
struct Known {
    column: bool,
    row: bool,
    /// Also the character sets; a cursor that was restored brings others.
    pen: bool,
    tabs: bool,
    /// Line feeds since the row was last set in another way.
    line_feeds: usize,
}

const ALL_KNOWN: Known = Known { column: true, row: true, pen: true, tabs: true, line_feeds: 0 };

/// Where a cell leads: the parameters and the address of an `OSC 8`.
pub(super) type Link = (Box<str>, Box<str>);

/// Everything that a program can set.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) size: Size,
    pub(super) main: Grid,
    pub(super) alternate: Grid,
    pub(super) is_alternate: bool,
    /// The column of the cursor; that behind the last one means: the next character is wrapped.
    pub(super) column: usize,
    pub(super) row: usize,
    pub(super) pen: Style,
    pub(super) charsets: Charsets,
    pub(super) modes: Modes,
    pub(super) mouse: Mouse,
    /// Of the main and of the alternate screen.
    pub(super) keyboards: [Keyboard; 2],
    pub(super) tabs: Vec<bool>,
    pub(super) cursor_shape: u16,
    pub(super) modified_keys: u16,
    pub(super) title: Option<String>,
    pub(super) icon: Option<String>,
    pub(super) links: Vec<Link>,
    pub(super) clusters: Clusters,
    /// The character that `ESC [ b` repeats.
    pub(super) last_printed: Option<char>,
    known: Known,
}

pub(super) fn is_default_tab(column: usize) -> bool {
    column.is_multiple_of(TAB_COLUMNS)
}

impl State {
    pub(super) fn new(size: Size) -> Self {
        Self {
            size,
            main: Grid::new(size, true),
            alternate: Grid::new(size, false),
            is_alternate: false,
            column: 0,
            row: 0,
            pen: Style::default(),
            charsets: Charsets::default(),
            modes: Modes::default(),
            mouse: Mouse::default(),
            keyboards: [Keyboard::default(), Keyboard::default()],
            tabs: (0..size.columns()).map(is_default_tab).collect(),
            cursor_shape: 0,
            modified_keys: 0,
            title: None,
            icon: None,
            links: Vec::new(),
            clusters: Clusters::default(),
            last_printed: None,
            known: ALL_KNOWN,
        }
    }

    /// The buffer in use.
    pub(super) fn grid(&mut self) -> &mut Grid {
        if self.is_alternate { &mut self.alternate } else { &mut self.main }
    }

    pub(super) fn keyboard(&mut self) -> &mut Keyboard {
        let [main, alternate] = &mut self.keyboards;
        if self.is_alternate { alternate } else { main }
    }

    pub(super) fn columns(&self) -> usize {
        self.main.columns
    }

    pub(super) fn rows(&self) -> usize {
        self.main.rows.len()
    }

    pub(super) fn resize(&mut self, size: Size) {
        if size == self.size {
            return;
        }
        let cursor = self.row;
        let other = |used: bool| if used { cursor } else { size.rows() };
        let moved =
            [self.main.resize(size, other(!self.is_alternate)), self.alternate.resize(size, other(self.is_alternate))];
        self.size = size;
        self.row = self.row.saturating_sub(moved[usize::from(self.is_alternate)]).min(size.rows() - 1);
        self.column = self.column.min(size.columns() - 1);
        let columns = self.tabs.len();
        self.tabs.truncate(size.columns());
        self.tabs.extend((columns..size.columns()).map(is_default_tab));
        self.known.line_feeds = 0;
    }
}

/// The cursor.
impl State {
    /// Puts it there; with origin mode rows count from the top of the scroll region.
    pub(super) fn go_to(&mut self, column: usize, row: usize) {
        let is_relative = self.modes.has(modes::ORIGIN);
        let (top, bottom) = (self.grid().top, self.grid().bottom);
        self.column = column.min(self.columns() - 1);
        self.row = if is_relative { (top + row).min(bottom) } else { row.min(self.rows() - 1) };
        (self.known.column, self.known.row, self.known.line_feeds) = (true, true, 0);
    }

    pub(super) fn go_to_column(&mut self, column: usize) {
        self.column = column.min(self.columns() - 1);
        self.known.column = true;
    }

    pub(super) fn go_to_row(&mut self, row: usize) {
        let is_column_known = self.known.column;
        self.go_to(self.column, row);
        self.known.column = is_column_known;
    }

    pub(super) fn carriage_return(&mut self) {
        self.column = 0;
        self.known.column = true;
    }

    /// Before something that needs it on a column.
    pub(super) fn end_pending_wrap(&mut self) {
        self.column = self.column.min(self.columns() - 1);
    }

    pub(super) fn up(&mut self, count: usize) {
        self.end_pending_wrap();
        let top = self.grid().top;
        let limit = if self.row >= top { top } else { 0 };
        self.row = self.row.saturating_sub(count).max(limit);
    }

    pub(super) fn down(&mut self, count: usize) {
        self.end_pending_wrap();
        let bottom = self.grid().bottom;
        let limit = if self.row <= bottom { bottom } else { self.rows() - 1 };
        self.row = (self.row + count).min(limit);
    }

    pub(super) fn line_feed(&mut self) {
        self.touch();
        let pen = self.pen;
        if self.row == self.grid().bottom {
            self.grid().scroll_up(pen);
        } else if self.row < self.rows() - 1 {
            self.row += 1;
        }
        if !(self.known.row && self.main.is_known) {
            self.count_line_feed();
        }
    }

    /// After line feeds for two screens without another way to a row, the cursor is at the bottom, and everything that
    /// was there before is gone: the first screen brings the cursor down, the second scrolls out what differs.
    fn count_line_feed(&mut self) {
        let rows = self.rows();
        let grid = self.grid();
        let scrolls_all = (grid.top, grid.bottom) == (0, rows - 1);
        self.known.line_feeds = if self.known.column && scrolls_all { self.known.line_feeds + 1 } else { 0 };
        if self.known.line_feeds > 2 * rows {
            self.known.row = true;
            self.grid().is_known = true;
        }
    }

    pub(super) fn reverse_line_feed(&mut self) {
        self.touch();
        self.end_pending_wrap();
        let (pen, row) = (self.pen, self.row);
        if row == self.grid().top {
            self.grid().insert_rows(row, 1, pen);
        } else {
            self.row = row.saturating_sub(1);
        }
    }

    pub(super) fn save_cursor(&mut self) {
        let saved = Saved {
            column: self.column,
            row: self.row,
            pen: self.pen,
            charsets: self.charsets,
            origin: self.modes.has(modes::ORIGIN),
        };
        let is_known = self.known.column && self.known.row && self.known.pen;
        let grid = self.grid();
        (grid.saved, grid.saved_is_known) = (saved, is_known);
    }

    pub(super) fn restore_cursor(&mut self) {
        let saved = self.grid().saved;
        (self.pen, self.charsets) = (saved.pen, saved.charsets);
        self.modes.set(modes::ORIGIN, false);
        self.go_to(saved.column, saved.row);
        self.column = saved.column.min(self.columns());
        self.modes.set(modes::ORIGIN, saved.origin);
        if saved.origin {
            self.row = self.row.clamp(self.grid().top, self.grid().bottom);
        }
        if !self.grid().saved_is_known {
            (self.known.column, self.known.row, self.known.pen) = (false, false, false);
        }
    }
}

/// What is known.
impl State {
    pub(super) fn forget(&mut self) {
        let rows = self.rows();
        for grid in [&mut self.main, &mut self.alternate] {
            grid.erase_rows(0, rows, Style::default());
            grid.forget_history();
            grid.is_known = false;
        }
        (self.column, self.row) = (0, self.grid().bottom);
        self.known = Known { column: false, row: false, ..ALL_KNOWN };
    }

    pub(super) fn is_known(&self) -> bool {
        let is_known = |grid: &Grid| grid.is_known && grid.saved_is_known;
        let grids = is_known(&self.main) && (is_known(&self.alternate) || !self.is_alternate);
        grids && self.known.column && self.known.row && self.known.pen && self.known.tabs
    }

    /// The tab stops are not known.
    pub(super) fn forget_tabs(&mut self) {
        self.known.tabs = false;
    }

    /// The cursor that was saved last is not known.
    pub(super) fn forget_saved(&mut self) {
        (self.main.saved_is_known, self.alternate.saved_is_known) = (false, false);
    }

    /// The pen was reset.
    pub(super) fn pen_is_known(&mut self) {
        self.known.pen = true;
    }

    /// Something is changed where the cursor is.
    pub(super) fn touch(&mut self) {
        if !(self.known.column && self.known.row && self.known.pen) {
            self.grid().is_known = false;
        }
    }

    /// The row was set otherwise than by a line feed.
    pub(super) fn end_line_feeds(&mut self) {
        self.known.line_feeds = 0;
    }

    /// Every cell of the buffer in use was erased or drawn.
    pub(super) fn is_redrawn(&mut self) {
        self.grid().is_known = true;
    }

    pub(super) fn cursor_is_known(&self) -> bool {
        self.known.column && self.known.row
    }
}

/// Titles and links.
impl State {
    pub(super) fn set_title(&mut self, number: &[u8], text: &[u8]) {
        let text = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(TITLE_CHARS_MAX).collect();
        match number {
            b"0" => (self.title, self.icon) = (Some(String::clone(&text)), Some(text)),
            b"1" => self.icon = Some(text),
            _ => self.title = Some(text),
        }
    }

    /// Cells that are printed from now on lead there; an empty address ends that.
    pub(super) fn set_link(&mut self, parameters: &[u8], address: &[u8]) {
        self.pen.link = 0;
        let texts = std::str::from_utf8(parameters).ok().zip(std::str::from_utf8(address).ok());
        let Some((parameters, address)) = texts.filter(|(_, address)| !address.is_empty()) else { return };
        if [parameters, address].iter().any(|text| text.chars().any(char::is_control)) {
            return;
        }
        let known = self.links.iter().rposition(|link| (&*link.0, &*link.1) == (parameters, address));
        let place = known.unwrap_or(self.links.len());
        if known.is_none() {
            let bytes: usize = self.links.iter().map(|link| link.0.len() + link.1.len()).sum();
            if place >= LINKS_MAX || bytes + parameters.len() + address.len() > LINKS_BYTES_MAX {
                return;
            }
            self.links.push((parameters.into(), address.into()));
        }
        self.pen.link = u16::try_from(place + 1).unwrap_or_default();
    }

    pub(super) fn link(&self, number: u16) -> Option<&Link> {
        self.links.get(usize::from(number).checked_sub(1)?)
    }
}

/// For tests.
impl State {
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let grids = |name: [&'static str; 2], one: &Grid, two: &Grid| {
            let rows = one.rows.iter().zip(&two.rows);
            let differ = one.rows.len() != two.rows.len()
                || rows.clone().any(|(a, b)| !self.rows_are_equal((a, other, b), one.columns))
                || rows.clone().skip(1).any(|(a, b)| a.continues != b.continues);
            let history = |grid: &'_ Grid| grid.history.iter().flatten().rev().cloned().collect::<Vec<_>>();
            let (old, older) = (history(one), history(two));
            let history_differs = old.iter().zip(&older).any(|(a, b)| !self.rows_are_equal((a, other, b), one.columns));
            let region = (one.top, one.bottom) != (two.top, two.bottom);
            [(differ, name[0]), (history_differs, "history"), (region, name[1])]
        };
        let saved = |one: Saved, two: Saved| {
            one.column != two.column
                || one.row != two.row
                || one.charsets != two.charsets
                || one.origin != two.origin
                || !self.styles_are_equal(one.pen, other, two.pen)
        };
        let alternate_saved = saved(self.alternate.saved, other.alternate.saved);
        let mut all = vec![
            (alternate_saved, "saved cursor of the alternate screen"),
            (self.is_alternate != other.is_alternate, "buffer"),
            ((self.column, self.row) != (other.column, other.row), "cursor"),
            (!self.styles_are_equal(self.pen, other, other.pen), "pen"),
            (self.charsets != other.charsets, "character sets"),
            (self.modes != other.modes, "modes"),
            (self.mouse != other.mouse, "mouse"),
            (self.tabs != other.tabs, "tab stops"),
            (self.cursor_shape != other.cursor_shape, "cursor shape"),
            (self.modified_keys != other.modified_keys, "modified keys"),
            ((&self.title, &self.icon) != (&other.title, &other.icon), "titles"),
            (saved(self.main.saved, other.main.saved), "saved cursor"),
            (self.keyboards[0] != other.keyboards[0], "keyboard"),
        ];
        all.extend(grids(["cells", "region"], &self.main, &other.main));
        if self.is_alternate {
            all.extend(grids(["cells of the alternate screen", "its region"], &self.alternate, &other.alternate));
            all.push((self.keyboards[1] != other.keyboards[1], "keyboard of the alternate screen"));
        }
        all.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }

    fn rows_are_equal(&self, (one, other, two): (&super::cell::Row, &Self, &super::cell::Row), columns: usize) -> bool {
        let text = |state: &Self, glyph: Glyph| {
            let mut text = vec![u8::from(glyph.is_wide()), u8::from(glyph == Glyph::TAIL)];
            state.clusters.write(glyph, &mut text);
            text
        };
        (0..columns).all(|column| {
            let (a, b): (Cell, Cell) = (one.cell(column), two.cell(column));
            text(self, a.glyph) == text(other, b.glyph) && self.styles_are_equal(a.style, other, b.style)
        })
    }

    fn styles_are_equal(&self, one: Style, other: &Self, two: Style) -> bool {
        let link = |state: &Self, style: Style| state.link(style.link).cloned();
        Style { link: 0, ..one } == Style { link: 0, ..two } && link(self, one) == link(other, two)
    }
}
