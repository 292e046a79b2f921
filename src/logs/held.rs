//! The lines that were read and that the console does not have yet, and how far it has each log.
//!
//! Lines form one stream, in the order in which they were read: the driver knows them by offsets, which count bytes of
//! encoded lines since the first request on a link.

use super::follower::{Line, Mark, Positions};
use super::record::Origin;
use super::{LogPosition, LogPositions};
use crate::protocol::{LOG_LINES_MAX, log_batch};
use litemap::LiteMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The most bytes of encoded lines that are held, but for the last line.
pub(super) const HELD_BYTES_MAX: usize = 256 << 10;

/// The most logs whose positions are remembered.
const MARKS_MAX: usize = 8_192;

/// The lines, oldest first, and the positions.
#[derive(Debug, Default)]
pub(super) struct Held {
    lines: VecDeque<HeldLine>,
    /// The offsets of their bytes.
    offsets: Range<u64>,
    marks: LiteMap<Box<str>, Known>,
}

#[derive(Debug)]
struct HeldLine {
    line: Line,
    root: usize,
    /// The offset behind it.
    end: u64,
    /// The console still wants it.
    is_wanted: bool,
    /// It was sent, so that its acknowledgement counts.
    is_sent: bool,
}

/// How far the console has a log.
#[derive(Clone, Debug)]
struct Known {
    mark: Mark,
    root: usize,
    /// The journal does not have it.
    is_new: bool,
}

impl Held {
    /// Goes on from these positions.
    pub(super) fn new(positions: LogPositions) -> Self {
        let known = positions.into_iter().map(|LogPosition { path, position, cursor }| {
            (path, Known { mark: Mark { position, segment: 0, cursor }, root: usize::MAX, is_new: false })
        });
        Self { lines: VecDeque::new(), offsets: 0..0, marks: known.collect() }
    }

    /// The offsets of what is held.
    pub(super) fn offsets(&self) -> Range<u64> {
        self.offsets.clone()
    }

    /// How many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.offsets.end - self.offsets.start).unwrap_or(usize::MAX)
    }

    /// Takes in what was read.
    pub(super) fn push(&mut self, root: usize, lines: Vec<Line>, is_wanted: impl Fn(&Origin) -> bool) {
        for line in lines {
            self.offsets.end += line.text.len() as u64;
            let is_wanted = is_wanted(&line.origin);
            self.lines.push_back(HeldLine { line, root, end: self.offsets.end, is_wanted, is_sent: false });
        }
    }

    /// A log is followed from here on.
    pub(super) fn begin(&mut self, root: usize, origin: &Origin, mark: Mark) {
        self.mark(root, origin, mark);
    }

    fn mark(&mut self, root: usize, origin: &Origin, mark: Mark) {
        if self.marks.len() < MARKS_MAX || self.marks.contains_key(&origin.path) {
            self.marks.insert(origin.path.clone(), Known { mark, root, is_new: true });
        }
    }

    /// Lines that the console no longer wants are not sent, and their positions stay.
    pub(super) fn unwant(&mut self, is_wanted: impl Fn(usize, &Origin) -> bool) {
        for held in &mut self.lines {
            held.is_wanted &= held.is_sent || is_wanted(held.root, &held.line.origin);
        }
    }

    /// A batch of the lines from an offset on, of one log: how many bytes of the stream it is, and the message, unless
    /// none of them is wanted.
    pub(super) fn cut(&mut self, from: u64, bytes_max: usize) -> (usize, Option<String>) {
        let first = self.lines.partition_point(|held| held.end <= from);
        let Some(head) = self.lines.get(first) else { return (0, None) };
        let end = from + bytes_max as u64;
        let is_like = |held: &&HeldLine| {
            held.line.origin.path == head.line.origin.path && held.is_wanted == head.is_wanted && held.end <= end
        };
        // A line is sent whole, however long it is.
        let others = self.lines.iter().skip(first + 1).take(LOG_LINES_MAX - 1).take_while(is_like);
        let batch = std::iter::once(head).chain(others);
        let end = batch.clone().last().map_or(from, |held| held.end);
        let text = head.is_wanted.then(|| log_batch(&head.line.origin.path, batch.map(|held| held.line.text.as_str())));
        let batch = self.lines.iter_mut().skip(first).take_while(|held| held.end <= end);
        batch.for_each(|held| held.is_sent = true);
        (usize::try_from(end - from).unwrap_or(usize::MAX), text)
    }

    /// The console has everything before this offset: the positions that follow, by root.
    pub(super) fn acknowledged(&mut self, up_to: u64) -> Vec<(usize, Box<str>, Mark)> {
        let mut latest: Vec<(usize, Arc<Origin>, Mark)> = Vec::new();
        while let Some(HeldLine { line, root, end, is_wanted, is_sent: _ }) =
            self.lines.pop_front_if(|held| held.end <= up_to)
        {
            self.offsets.start = end;
            if !is_wanted {
                continue;
            }
            let Line { origin, mark, text: _ } = line;
            match latest.iter_mut().find(|(_, known, _)| known.path == origin.path) {
                Some(known) => known.2 = mark,
                None => latest.push((root, origin, mark)),
            }
        }
        let marks = latest.into_iter().map(|(root, origin, mark)| {
            self.mark(root, &origin, mark.clone());
            (root, origin.path.clone(), mark)
        });
        marks.collect()
    }

    /// The positions that the journal does not have.
    pub(super) fn take_new(&mut self) -> LogPositions {
        let new = self.marks.iter_mut().filter(|(_, known)| known.is_new).map(|(path, known)| {
            known.is_new = false;
            let Mark { position, segment: _, cursor } = known.mark.clone();
            LogPosition { path: path.clone(), position, cursor }
        });
        new.collect()
    }

    /// Discards what was read and not acknowledged; offsets start at 0 again.
    pub(super) fn clear(&mut self) {
        (self.lines, self.offsets) = (VecDeque::new(), 0..0);
    }

    /// The cursor in the system's journal.
    pub(super) fn cursor(&self, path: &str) -> Option<Box<str>> {
        self.marks.get(path)?.mark.cursor.clone()
    }

    /// All positions that may be of this root.
    pub(super) fn positions(&self, root: usize) -> Positions {
        let of_root = self.marks.iter().filter(|(_, known)| known.root == root || known.root == usize::MAX);
        of_root.map(|(path, known)| (path.clone(), known.mark.position)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::position::Position;
    use serde_json::Value;

    fn line(path: &str, number: u64) -> Line {
        let origin = Arc::new(Origin::below_logs(path));
        let position = Position { offset: number, ..Position::default() };
        Line { text: format!("{number:>10}"), origin, mark: Mark { position, segment: 0, cursor: None } }
    }

    fn lines(batch: &(usize, Option<String>)) -> Vec<u64> {
        let value: Value = serde_json::from_str(batch.1.as_deref().unwrap_or("{}")).expect("JSON");
        let numbers = value["payload"]["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        numbers.iter().map(|number| number.as_u64().expect("a number")).collect()
    }

    #[test]
    fn batch_holds_whole_lines_of_one_log() {
        let mut held = Held::default();
        held.push(0, [("a.log", 1), ("a.log", 2), ("a.log", 3), ("b.log", 4)].map(|(a, b)| line(a, b)).into(), |_| {
            true
        });
        assert_eq!((held.offsets(), held.bytes()), (0..40, 40));
        let batch = held.cut(0, 29);
        assert_eq!((batch.0, lines(&batch)), (20, vec![1, 2]));
        let batch = held.cut(20, 1_000);
        assert_eq!((batch.0, lines(&batch)), (10, vec![3]));
        let batch = held.cut(30, 3);
        assert_eq!((batch.0, lines(&batch)), (10, vec![4]), "however long it is");
        assert_eq!(held.cut(40, 10), (0, None));
        let many: Vec<Line> = (0..LOG_LINES_MAX as u64 + 1).map(|number| line("c.log", number)).collect();
        held.push(0, many, |_| true);
        assert_eq!(lines(&held.cut(40, usize::MAX >> 1)).len(), LOG_LINES_MAX);
    }

    #[test]
    fn acknowledgement_moves_positions_and_frees_lines() {
        let mut held = Held::default();
        held.push(1, [("a.log", 1), ("b.log", 2), ("a.log", 3)].map(|(a, b)| line(a, b)).into(), |_| true);
        let marks: Vec<_> =
            held.acknowledged(20).into_iter().map(|(root, path, mark)| (root, path, mark.position.offset)).collect();
        assert_eq!(marks, [(1, "a.log".into(), 1), (1, "b.log".into(), 2)]);
        assert_eq!(held.offsets(), 20..30);
        let new: Vec<_> = held.take_new().into_iter().map(|new| (new.path, new.position.offset)).collect();
        assert_eq!(new, [("a.log".into(), 1), ("b.log".into(), 2)]);
        assert!(held.take_new().is_empty());
        held.clear();
        assert_eq!((held.offsets(), held.positions(1).len(), held.positions(0).len()), (0..0, 2, 0));
    }

    #[test]
    fn unwanted_lines_are_not_sent_and_keep_their_position() {
        let mut held = Held::default();
        held.push(0, [("a.log", 1), ("b.log", 2)].map(|(a, b)| line(a, b)).into(), |_| true);
        assert_eq!(held.cut(0, 10).0, 10);
        held.unwant(|_, _| false);
        let marks: Vec<_> = held.acknowledged(10).into_iter().map(|(_, path, _)| path).collect();
        assert_eq!(marks, ["a.log".into()], "it was sent");
        assert_eq!(held.cut(10, 100), (10, None));
        assert!(held.acknowledged(20).is_empty());
    }
}
