//! Arbitrary output becomes a screen, and the screen a snapshot that brings another terminal to the same state.
//!
//! What must hold:
//! - a second model that reads the snapshot is in the same state, also for another size, and after more output;
//! - a snapshot ends outside every sequence, is bounded, and has no more history than it may have;
//! - nothing in it is what a terminal answers or acts on (`vt` reads it, which shares nothing with the model), but for
//!   the focus mode;
//! - the output is read the same however it is cut.
//!
//! How an input is read: columns and rows, columns and rows of the terminal that attaches, where the output is cut in
//! 256ths, and the output.

use crate::vt::{self, Vt};
use draupnir::terminal::screen::{HISTORY_BYTES_MAX, HISTORY_ROWS_MAX, SNAPSHOT_BYTES_MAX, Screen, Size};

/// The sequence that sets the focus mode: a terminal says at once whether it has the focus.
const FOCUS: &[u8] = b"\x1b[?1004h";

/// Sizes of the screens, in columns and rows: an input cannot fill larger ones.
const SIDE_MAX: u8 = 100;

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let Some(([columns, rows, new_columns, new_rows, cut], output)) = input.split_first_chunk() else { return };
    let size = |cols: u8, rows: u8| Size { cols: (cols % SIDE_MAX).into(), rows: (rows % SIDE_MAX).into() };
    let mut screen = Screen::new(size(*columns, *rows));
    screen.feed(output);

    let mut other = Screen::new(size(*columns, *rows));
    let (front, back) = output.split_at(output.len() * usize::from(*cut) / 256);
    other.feed(front);
    other.feed(back);
    assert_eq!(screen.difference(&other), None, "cut into {} and {} bytes", front.len(), back.len());

    check(&screen, size(*columns, *rows));
    screen.resize(size(*new_columns, *new_rows));
    check(&screen, size(*new_columns, *new_rows));
    screen.feed(back);
    check(&screen, size(*new_columns, *new_rows));
}

fn check(screen: &Screen, size: Size) {
    let (snapshot, bare) = (screen.snapshot(true), screen.snapshot(false));
    assert!(bare.len() <= snapshot.len() && snapshot.len() <= SNAPSHOT_BYTES_MAX);
    assert!(snapshot.len() - bare.len() <= HISTORY_BYTES_MAX + 32, "too much history");
    let rows = snapshot.iter().filter(|byte| **byte == b'\n').count();
    assert!(rows <= HISTORY_ROWS_MAX + 2 * usize::from(SIDE_MAX));
    assert!(Vt::default().read(&snapshot), "it ends within a sequence: {}", snapshot.escape_ascii());
    let acts = vt::acts(&snapshot);
    let mut others = acts.iter().filter(|at| !snapshot[**at..].starts_with(FOCUS));
    assert_eq!(others.next(), None, "it acts: {}", snapshot.escape_ascii());
    let mut other = Screen::new(size);
    other.feed(&snapshot);
    assert_eq!(other.difference(screen), None, "{}", snapshot.escape_ascii());
}
