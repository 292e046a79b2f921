//! Text with styles, cut to a width, and numbers in readable form.
//!
//! Control characters become dots, so that text from the agent cannot control the terminal.

use std::time::Duration;

/// The style of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

impl Style {
    /// The escape sequence that sets it, after any other style.
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "\x1b[0m",
            Style::Bold => "\x1b[0;1m",
            Style::Dim => "\x1b[0;2m",
            Style::Good => "\x1b[0;32m",
            Style::Warning => "\x1b[0;33m",
            Style::Bad => "\x1b[0;31m",
        }
    }

    /// The style that a program's SGR code asks for after this one; a code without a style here changes nothing.
    fn after(self, code: &str) -> Style {
        match code.parse().unwrap_or(0) {
            0 | 22 | 39 => Style::Plain,
            1 => Style::Bold,
            2 => Style::Dim,
            31 | 91 => Style::Bad,
            32 | 92 => Style::Good,
            33 | 93 => Style::Warning,
            _ => self,
        }
    }
}

/// One line of pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row(Vec<(Style, String)>);

impl Row {
    /// An empty one.
    pub(crate) fn new() -> Row {
        Row::default()
    }

    /// A line of a program's output. Its colours are shown, its other control sequences are left out, and a carriage
    /// return begins the line again.
    pub(crate) fn of_output(line: &str) -> Row {
        let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let mut pieces = line.split('\x1b');
        let plain = Row::new().with(Style::Plain, pieces.next().unwrap_or_default());
        let colour = |(row, style): (Row, Style), piece| {
            let (codes, text) = split_sequence(piece);
            let style = codes.map_or(style, |codes| codes.split(';').fold(style, Style::after));
            (row.with(style, text), style)
        };
        pieces.fold((plain, Style::Plain), colour).0
    }

    /// The same in rows of at most so many columns.
    pub(crate) fn wrapped(self, columns: usize) -> Vec<Row> {
        let (mut rows, mut row, mut used) = (Vec::new(), Row::new(), 0);
        for (style, text) in self.0 {
            let mut piece = String::new();
            for character in text.chars() {
                if used == columns.max(1) {
                    row.0.push((style, std::mem::take(&mut piece)));
                    rows.push(std::mem::take(&mut row));
                    used = 0;
                }
                piece.push(character);
                used += 1;
            }
            row.0.push((style, piece));
        }
        rows.push(row);
        rows
    }

    /// The same with one more piece.
    pub(crate) fn with(mut self, style: Style, text: impl AsRef<str>) -> Row {
        let clean = text.as_ref().chars().map(|c| if c.is_control() { '·' } else { c });
        self.0.push((style, clean.collect()));
        self
    }

    /// The same with a bar of so many cells.
    pub(crate) fn with_bar(self, percent: f64, cells: usize) -> Row {
        const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
        let style = match percent {
            p if p < 70.0 => Style::Good,
            p if p < 90.0 => Style::Warning,
            _ => Style::Bad,
        };
        let filled = eighths(percent, cells);
        let mut bar = "█".repeat(filled / 8);
        bar.extend(EIGHTHS.get(filled % 8).filter(|_| !filled.is_multiple_of(8)));
        let rest = cells.saturating_sub(bar.chars().count());
        self.with(style, bar).with(Style::Dim, "·".repeat(rest))
    }

    /// The escape sequences and characters, at most so many columns. A character counts as one column.
    pub(crate) fn render(&self, columns: usize) -> String {
        let (mut out, mut left) = (String::new(), columns);
        for (style, text) in &self.0 {
            let cut: String = text.chars().take(left).collect();
            left -= cut.chars().count();
            out.push_str(style.code());
            out.push_str(&cut);
        }
        out.push_str(Style::Plain.code());
        out
    }
}

/// Splits the text after an ESC into the codes of a colour sequence (SGR), if it is one, and the text after the
/// sequence.
fn split_sequence(piece: &str) -> (Option<&str>, &str) {
    let after = |end: Option<usize>| end.and_then(|end| piece.get(end + 1..)).unwrap_or_default();
    match piece.chars().next() {
        Some('[') => {
            let end = piece.char_indices().skip(1).find(|(_, c)| ('@'..='~').contains(c));
            let codes = end.filter(|(_, last)| *last == 'm').and_then(|(end, _)| piece.get(1..end));
            (codes, after(end.map(|(end, _)| end)))
        }
        Some(']') => (None, after(piece.find('\x07'))), // or ESC and a backslash, which is the next piece
        Some('(' | ')') => (None, after(Some(1))),
        first => (None, piece.get(first.map_or(0, char::len_utf8)..).unwrap_or_default()),
    }
}

/// How many eighths of a cell this percentage of the cells fills.
fn eighths(percent: f64, cells: usize) -> usize {
    let all = cells * 8;
    (0..=all).rev().find(|n| percent.clamp(0.0, 100.0) * to_f64(all) >= to_f64(*n) * 100.0).unwrap_or(0)
}

fn to_f64(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

/// A size in the largest unit with at least one.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut tenths = u128::from(n) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).copied().unwrap_or_default())
}

/// A duration in seconds.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// A duration in readable form.
pub(crate) fn long(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_clean() {
        let row = Row::new().with(Style::Bold, "ab\x1b").with(Style::Plain, "cdef");
        assert_eq!(row.render(5), "\x1b[0;1mab·\x1b[0mcd\x1b[0m");
        assert_eq!(row.render(1), "\x1b[0;1ma\x1b[0m\x1b[0m");
    }

    #[test]
    fn output_keeps_colours_and_drops_other_sequences() {
        let ls = "\x1b[0m\x1b[01;31ma.tar\x1b[0m \x1b]0;title\x07b\x1b]8;;x\x1b\\c\x1b(B\x1b[Kd\x07\r";
        let shown: String = Row::of_output(ls).0.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(shown, "a.tar bcd·");
        assert!(Row::of_output(ls).0.contains(&(Style::Bad, "a.tar".to_owned())));
        assert_eq!(Row::of_output("10 %\r20 %"), Row::new().with(Style::Plain, "20 %"));
        for cut in ["", "\x1b", "\x1b[", "\x1b[1;3", "\x1b]0;", "\x1b(", "\x1bé"] {
            assert!(Row::of_output(cut).0.iter().all(|(_, text)| text.is_empty()), "{cut:?}");
        }
    }

    #[test]
    fn wrapped_rows_keep_every_character() {
        let row = Row::new().with(Style::Bold, "abcde").with(Style::Plain, "fgh");
        for columns in 0..10 {
            let rows = row.clone().wrapped(columns);
            assert!(rows.iter().all(|row| row.0.iter().map(|(_, text)| text.len()).sum::<usize>() <= columns.max(1)));
            let all: String = rows.iter().flat_map(|row| &row.0).map(|(_, text)| text.as_str()).collect();
            assert_eq!(all, "abcdefgh");
        }
        assert_eq!(Row::new().wrapped(5).len(), 1);
    }

    #[test]
    fn bars_are_always_as_wide_as_asked() {
        for percent in [-1.0, 0.0, 0.1, 33.3, 50.0, 99.9, 100.0, 1e9, f64::NAN] {
            let row = Row::new().with_bar(percent, 10);
            let cells: usize = row.0.iter().map(|(_, text)| text.chars().count()).sum();
            assert_eq!(cells, 10, "{percent}");
        }
        assert_eq!(eighths(50.0, 10), 40);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(long(Duration::from_secs(3_700)), "1 h 01 min");
    }
}
