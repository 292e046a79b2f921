//! Cuts the bytes of a log file into records: a line, and the lines of a stack trace that belong to it.
//!
//! A line belongs to the one before it if it is indented, begins with `Caused by`, or begins a Python traceback; the
//! first line behind the indented lines of a traceback names the exception and belongs to it, too. What is cut does not
//! depend on the pieces in which the bytes come, but for [`flush`](Splitter::flush).
//!
//! Bounds: a record holds [`RECORD_BYTES_MAX`] bytes of text; the bytes beyond are counted and dropped. Offsets are
//! those of the file.

use memchr::memchr;

/// The most text of a record that is kept, in bytes: the console takes lines of any length below 1 MB, and a stack
/// trace of 16 KiB has some 200 frames.
pub const RECORD_BYTES_MAX: usize = 16 << 10;

/// What begins a line that belongs to the one before it, besides a blank.
const CONTINUATIONS: [&[u8]; 2] = [b"Caused by", TRACEBACK];

const TRACEBACK: &[u8] = b"Traceback (most recent call last)";

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where its first byte stands in the file.
    pub start: u64,
    /// Where the next record begins.
    pub end: u64,
    /// Its text without the last line end, at most [`RECORD_BYTES_MAX`] bytes.
    pub text: Vec<u8>,
    /// How many bytes were dropped at its end.
    pub dropped_bytes: u64,
}

/// The records of one file, from an offset on.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Whole lines that may go on.
    open: Option<Record>,
    trace: Trace,
    /// The line that has no end yet.
    line: Record,
}

/// How far a Python traceback has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trace {
    #[default]
    None,
    /// Its first line was there.
    Begun,
    /// Its indented lines are there.
    Indented,
}

impl Splitter {
    /// Begins at this offset, which is the beginning of a line.
    pub fn at(offset: u64) -> Self {
        let line = Record { start: offset, end: offset, ..Record::default() };
        Self { open: None, trace: Trace::None, line }
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.line.end
    }

    /// Whether whole lines wait for one that may belong to them.
    pub fn has_open_record(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the next bytes, and gives each record that they complete to `emit`.
    pub fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Record)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            self.line.extend(line);
            self.line.end += 1;
            self.end_line(&mut emit);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.line.extend(bytes);
    }

    /// Passes over a hole of the file, in which there is nothing to read.
    pub fn skip(&mut self, bytes: u64) {
        self.line.end += bytes;
    }

    /// Gives up waiting for more lines of the record.
    pub fn flush(&mut self, emit: impl FnMut(Record)) {
        self.trace = Trace::None;
        self.open.take().into_iter().for_each(emit);
    }

    /// The file ends here for good: its last line may have no end.
    pub fn finish(&mut self, mut emit: impl FnMut(Record)) {
        if self.line.end > self.line.start {
            self.end_line(&mut emit);
        }
        self.flush(emit);
    }

    fn end_line(&mut self, emit: &mut impl FnMut(Record)) {
        let next = Record { start: self.line.end, end: self.line.end, ..Record::default() };
        let mut line = std::mem::replace(&mut self.line, next);
        if line.text.last() == Some(&b'\r') && line.dropped_bytes == 0 {
            line.text.pop();
        }
        let is_indented = matches!(line.text.first(), Some(b' ' | b'\t'));
        let ends_trace = self.trace == Trace::Indented && !is_indented && !line.text.is_empty();
        let goes_on = is_indented || ends_trace || CONTINUATIONS.iter().any(|begin| line.text.starts_with(begin));
        self.trace = match self.trace {
            _ if line.text.starts_with(TRACEBACK) => Trace::Begun,
            Trace::Begun | Trace::Indented if is_indented => Trace::Indented,
            Trace::None | Trace::Begun | Trace::Indented => Trace::None,
        };
        match &mut self.open {
            Some(open) if goes_on => open.append(&line),
            open => open.replace(line).into_iter().for_each(emit),
        }
    }
}

impl Record {
    fn extend(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        // Of a hole, which a writer leaves who goes on at his old place in a file that was truncated.
        while let ([0, rest @ ..], true) = (bytes, self.text.is_empty()) {
            bytes = rest;
        }
        self.keep(bytes);
    }

    /// Takes in the line behind its last one.
    fn append(&mut self, line: &Self) {
        self.end = line.end;
        self.keep(b"\n");
        self.keep(&line.text);
        self.dropped_bytes += line.dropped_bytes;
    }

    fn keep(&mut self, bytes: &[u8]) {
        // Once something was dropped nothing follows, or the text would have a hole.
        let room = if self.dropped_bytes == 0 { RECORD_BYTES_MAX - self.text.len() } else { 0 };
        let (kept, dropped) = bytes.split_at(room.min(bytes.len()));
        self.text.extend_from_slice(kept);
        self.dropped_bytes += dropped.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(text: &[u8], pieces: usize) -> Vec<Record> {
        let (mut splitter, mut records) = (Splitter::at(0), Vec::new());
        text.chunks(pieces.max(1)).for_each(|piece| splitter.push(piece, |record| records.push(record)));
        splitter.finish(|record| records.push(record));
        records
    }

    fn texts(text: &str) -> Vec<String> {
        let text_of = |record: Record| String::from_utf8(record.text).expect("it was UTF-8");
        records(text.as_bytes(), usize::MAX).into_iter().map(text_of).collect()
    }

    #[test]
    fn each_line_is_a_record_with_its_offsets() {
        let found = records(b"one\r\n\ntwo", 2);
        let of = |start, end, text: &[u8]| Record { start, end, text: text.to_vec(), dropped_bytes: 0 };
        assert_eq!(found, [of(0, 5, b"one"), of(5, 6, b""), of(6, 9, b"two")]);
    }

    #[test]
    fn stack_traces_stay_with_their_first_line() {
        let java = "ERROR failed\n\tat a.B(C.java:1)\nCaused by: java.io.IOException\n\tat d.E\nnext\n";
        assert_eq!(texts(java), [java.strip_suffix("\nnext\n").expect("it ends so"), "next"]);
        let python = "oops\nTraceback (most recent call last):\n  File \"a\", line 1\n    b()\nValueError: c\nnext\n";
        assert_eq!(texts(python), [python.strip_suffix("\nnext\n").expect("it ends so"), "next"]);
    }

    #[test]
    fn record_without_a_successor_waits_until_it_is_flushed() {
        let (mut splitter, mut found) = (Splitter::at(10), Vec::new());
        splitter.push(b"one\ntw", |record| found.push(record.text));
        assert!(found.is_empty() && splitter.has_open_record());
        splitter.flush(|record| found.push(record.text));
        assert_eq!((found.len(), splitter.has_open_record(), splitter.offset()), (1, false, 16));
        splitter.push(b"o\nthree\n", |record| found.push(record.text));
        assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn nuls_before_a_line_are_no_part_of_it() {
        let found = records(b"\0\0\0\0one\0\ntwo\n", 3);
        assert_eq!((found[0].start, found[0].end, found[0].text.as_slice()), (0, 9, &b"one\0"[..]));
        let mut splitter = Splitter::at(0);
        splitter.skip(1 << 40);
        splitter.push(b"\0one\n\n", |record| assert_eq!((record.start, record.text), (0, b"one".to_vec())));
    }

    #[test]
    fn long_record_is_cut_and_its_rest_counted() {
        let line = vec![b'x'; RECORD_BYTES_MAX + 5];
        let text = [&line[..], b"\n  more\nnext\n"].concat();
        let found = records(&text, 1000);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].text.len(), found[0].dropped_bytes), (RECORD_BYTES_MAX, 5 + 7));
        assert_eq!((found[1].start, found[1].text.as_slice()), (found[0].end, &b"next"[..]));
    }

    proptest! {
        #[test]
        fn records_cover_the_file_however_it_is_cut(text in "[ a\r\n\tC]{0,200}", pieces in 1usize..20) {
            let whole = records(text.as_bytes(), usize::MAX);
            prop_assert_eq!(&whole, &records(text.as_bytes(), pieces));
            let mut at = 0;
            for record in &whole {
                prop_assert_eq!(record.start, at);
                prop_assert!(record.end > at);
                at = record.end;
            }
            prop_assert_eq!(at, text.len() as u64);
        }
    }
}
