//! One file of a log, read from an offset on: records come out, and a position with each.

use super::position::{FileId, HEAD_BYTES_MAX, Head, Position};
use super::root::length_of;
use super::splitter::{Record, Splitter};
use memchr::memchr_iter;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// How many of the last lines of a file are sent to a console that has none of it.
pub(super) const FIRST_LINES: usize = 200;

/// How much of what the console has not seen is read at most, in bytes, when it asks.
pub(super) const BACKLOG_BYTES_MAX: u64 = 1 << 20;

/// How long a record waits for a line that may belong to it.
pub(super) const RECORD_WAIT: Duration = Duration::from_millis(100);

/// How much is read at once, in bytes.
pub(super) const READ_BYTES: usize = 16 << 10;

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: FileId,
    /// Rises from one file of a log to the next.
    pub(super) number: u32,
    /// Closed where too many are open, and nothing is left to read.
    pub(super) file: Option<File>,
    head: Head,
    splitter: Splitter,
    /// Since when a record waits.
    waits_since: Option<Instant>,
    /// The console has everything before this.
    pub(super) acked: u64,
    /// How long it was when it was last looked at, in bytes.
    pub(super) seen_bytes: u64,
    pub(super) stage: Stage,
    /// What is missing before the next line.
    pub(super) gap: Gap,
}

/// What a console does not get of a log, before a line.
#[derive(Debug, Default)]
pub(super) struct Gap {
    /// At least so many bytes before the first line of a file could not be read; 0: how many is not known.
    pub(super) lost_bytes: Option<u64>,
    /// So many are too far back.
    pub(super) skipped_bytes: u64,
    pub(super) is_reported: bool,
}

/// Whether more may be written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is the log.
    Current,
    /// Another one stands in its place: what is left is read.
    Replaced,
    /// That was done.
    Read,
}

impl Segment {
    pub(super) fn new(id: FileId, number: u32, file: File, offset: u64) -> Self {
        Self {
            id,
            number,
            file: Some(file),
            head: Head::default(),
            splitter: Splitter::at(offset),
            waits_since: None,
            acked: offset,
            seen_bytes: offset,
            stage: Stage::Current,
            gap: Gap::default(),
        }
    }

    /// Up to where it was read.
    pub(super) fn offset(&self) -> u64 {
        self.splitter.offset()
    }

    /// The position of a place in this file.
    pub(super) fn position(&self, offset: u64) -> Position {
        Position { file: self.id, head: self.head, offset }
    }

    /// Reads from this offset on, and forgets what was read.
    pub(super) fn rewind(&mut self, offset: u64) {
        self.gap = Gap { lost_bytes: self.gap.lost_bytes, ..Gap::default() };
        (self.splitter, self.waits_since, self.acked) = (Splitter::at(offset), None, offset);
        if self.stage == Stage::Read {
            self.stage = Stage::Replaced;
        }
    }

    /// Everything that is there was read, and the console has it.
    pub(super) fn is_settled(&self) -> bool {
        !self.gap.is_open() && self.acked >= self.offset() && self.offset() >= self.seen_bytes
    }

    /// How many bytes were seen and not read.
    pub(super) fn unread(&self) -> u64 {
        self.seen_bytes.saturating_sub(self.offset())
    }

    /// Whether its file was removed while it was closed, unless that was reported.
    pub(super) fn may_be_gone(&self) -> bool {
        self.file.is_none() && self.stage == Stage::Current
    }

    /// What is left of it can be read no more.
    pub(super) fn discard(&mut self) {
        (self.file, self.stage, self.splitter) = (None, Stage::Read, Splitter::at(self.acked));
    }

    /// Its file is gone, and what was written to it since it was closed.
    pub(super) fn bury(&mut self) {
        let gap = Gap { lost_bytes: Some(self.unread()), ..Gap::default() };
        // Where another file comes in its place, nothing more is lost.
        (self.id, self.head, self.splitter, self.stage) =
            (FileId::default(), Head::default(), Splitter::at(0), Stage::Read);
        (self.acked, self.seen_bytes, self.gap) = (0, 0, gap);
    }

    pub(super) fn has_waited(&self, now: Instant) -> bool {
        self.waits_since.is_some_and(|since| now.duration_since(since) >= RECORD_WAIT)
    }

    pub(super) fn waits(&self) -> bool {
        self.waits_since.is_some()
    }

    /// How many bytes are there and not read. The file must be open.
    pub(super) fn look(&mut self) -> io::Result<u64> {
        let Some(file) = &self.file else { return Ok(0) };
        self.seen_bytes = length_of(file)?;
        Ok(self.unread())
    }

    /// Whether it has become shorter than it was, or begins otherwise.
    pub(super) fn is_truncated(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        Ok(length_of(file)? < self.seen_bytes.max(self.offset()) || !self.head.is_of(file)?)
    }

    /// Whether this is the file of a position.
    pub(super) fn is_at(&self, position: &Position) -> bool {
        let is_whole = |file: &File| length_of(file).is_ok_and(|length| length >= self.seen_bytes.max(position.offset));
        let is_it = |file: &File| is_whole(file) && position.head.is_of(file).unwrap_or(false);
        self.id == position.file && self.file.as_ref().is_none_or(is_it)
    }

    /// Reads at most `bytes_max` bytes and `lines_max` lines; how many bytes that was. Records go to `emit`.
    pub(super) fn read(
        &mut self,
        now: Instant,
        bytes_max: usize,
        lines_max: usize,
        mut emit: impl FnMut(Record),
    ) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        if usize::from(self.head.bytes) < HEAD_BYTES_MAX {
            self.head = Head::of(file, HEAD_BYTES_MAX)?;
        }
        let mut buffer = [0; READ_BYTES];
        let wanted = buffer.get_mut(..bytes_max.min(READ_BYTES)).unwrap_or_default();
        let read = file.read_at(wanted, self.splitter.offset())?;
        let mut bytes = wanted.get(..read).unwrap_or_default();
        if read > 0 && bytes.iter().all(|byte| *byte == 0) {
            let hole = hole_at(file, self.splitter.offset());
            if hole > 0 {
                self.splitter.skip(hole);
                return Ok(read);
            }
        }
        // What is beyond the last line that may be read is read again.
        if let Some(end) = memchr_iter(b'\n', bytes).nth(lines_max.saturating_sub(1)) {
            bytes = bytes.get(..=end).unwrap_or_default();
        }
        let mut had_records = false;
        self.splitter.push(bytes, |record| {
            had_records = true;
            emit(record);
        });
        // The wait begins with the last whole line.
        let had_line = had_records || self.waits_since.is_none();
        self.waits_since = self.splitter.has_open_record().then(|| {
            let since = self.waits_since.filter(|_| !had_line);
            since.unwrap_or(now)
        });
        Ok(bytes.len())
    }

    /// Gives up waiting for more lines of a record.
    pub(super) fn flush(&mut self, emit: impl FnMut(Record)) {
        self.waits_since = None;
        self.splitter.flush(emit);
    }

    /// Nothing will follow.
    pub(super) fn finish(&mut self, emit: impl FnMut(Record)) {
        (self.stage, self.waits_since) = (Stage::Read, None);
        self.splitter.finish(emit);
    }
}

impl Gap {
    /// There is something that the console is to know.
    fn is_open(&self) -> bool {
        !self.is_reported && (self.lost_bytes.is_some() || self.skipped_bytes > 0)
    }

    /// What the console is to know, once.
    pub(super) fn take_report(&mut self) -> Option<String> {
        if !self.is_open() {
            return None;
        }
        self.is_reported = true;
        let lost = self.lost_bytes.map(|bytes| match bytes {
            0 => "may have lost lines: the file was truncated or removed, and how much was written to it since the \
                  agent last looked is not known"
                .to_owned(),
            _ => format!("lost at least {bytes} bytes: the file was truncated or removed before they were read"),
        });
        let skipped = Some(self.skipped_bytes).filter(|bytes| *bytes > 0);
        let skipped =
            skipped.map(|bytes| format!("skipped {bytes} bytes that were written while no console followed this log"));
        Some(lost.into_iter().chain(skipped).collect::<Vec<_>>().join("; "))
    }
}

/// How long the hole at this offset is, in bytes; 0 where there is none, or the file system does not know.
fn hole_at(file: &File, offset: u64) -> u64 {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{SeekFrom, seek};
        match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data.saturating_sub(offset),
            // There is a hole to the end.
            Err(rustix::io::Errno::NXIO) => length_of(file).unwrap_or_default().saturating_sub(offset),
            Err(_) => 0,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, offset);
        0
    }
}

/// Where the last [`FIRST_LINES`] lines of a file begin, but no more than [`BACKLOG_BYTES_MAX`] before its end.
pub(super) fn first_offset(file: &File) -> io::Result<u64> {
    let length = length_of(file)?;
    let floor = length.saturating_sub(BACKLOG_BYTES_MAX);
    let mut buffer = [0; READ_BYTES];
    let (mut end, mut lines) = (length, 0);
    while end > floor {
        let start = floor.max(end.saturating_sub(READ_BYTES as u64));
        let wanted = usize::try_from(end - start).unwrap_or(READ_BYTES);
        let read = file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), start)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        for at in memchr::memrchr_iter(b'\n', bytes) {
            // The end of the last line is not the beginning of one.
            let begin = start + at as u64 + 1;
            if begin < length {
                lines += 1;
                if lines == FIRST_LINES {
                    return Ok(begin);
                }
            }
        }
        end = start;
    }
    if floor == 0 { Ok(0) } else { next_line(file, floor) }
}

/// Where the first line at or behind this offset begins; the offset itself where that is far.
pub(super) fn next_line(file: &File, offset: u64) -> io::Result<u64> {
    let mut buffer = [0; READ_BYTES];
    // The byte before says whether a line begins here.
    let start = offset.saturating_sub(1);
    let read = file.read_at(&mut buffer, start)?;
    let found = memchr::memchr(b'\n', buffer.get(..read).unwrap_or_default());
    Ok(found.map_or(offset, |at| start + at as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(text).expect("there is room");
        file
    }

    fn read(segment: &mut Segment, lines_max: usize) -> Vec<String> {
        let mut found = Vec::new();
        let emit = |record: Record| found.push(String::from_utf8(record.text).expect("UTF-8"));
        segment.read(Instant::now(), READ_BYTES, lines_max, emit).expect("it can be read");
        found
    }

    #[test]
    fn first_lines_are_the_last_of_the_file() {
        let numbered = |count: usize| (0..count).map(|number| format!("line {number}\n")).collect::<String>();
        assert_eq!(first_offset(&file(b"")).expect("it can be read"), 0);
        assert_eq!(first_offset(&file(numbered(200).as_bytes())).expect("it can be read"), 0);
        let text = numbered(5_000);
        let offset = first_offset(&file(text.as_bytes())).expect("it can be read");
        assert!(text[usize::try_from(offset).expect("it fits")..].starts_with("line 4800\n"));
        let long = [&vec![b'x'; 3 << 20][..], b"\nlast\n"].concat();
        let offset = first_offset(&file(&long)).expect("it can be read");
        assert!(offset >= long.len() as u64 - BACKLOG_BYTES_MAX, "no further back");
    }

    #[test]
    fn lines_beyond_the_credit_are_read_later() {
        let mut segment = Segment::new(FileId::default(), 0, file(b"1\n2\n3\n4\n"), 0);
        assert_eq!(read(&mut segment, 2), ["1"]);
        assert_eq!(segment.offset(), 4);
        assert_eq!(read(&mut segment, 9), ["2", "3"]);
        assert!(segment.waits() && segment.look().expect("it is open") == 0);
        let mut found = 0;
        segment.flush(|_| found += 1);
        assert!(found == 1 && !segment.waits());
    }

    #[test]
    fn hole_of_gigabytes_is_passed_over() {
        const HOLE_BYTES: u64 = 10 << 30;
        let mut sparse = file(b"one\n");
        sparse.set_len(HOLE_BYTES).expect("a sparse file");
        sparse.write_all_at(b"two\n", HOLE_BYTES).expect("there is room");
        let _ = sparse.flush();
        let mut segment = Segment::new(FileId::default(), 0, sparse, 0);
        let mut found = Vec::new();
        // At most so many reads: the rest of a block, the hole, the text.
        for _ in 0..8 {
            found.extend(read(&mut segment, 9));
        }
        segment.flush(|record| found.push(String::from_utf8(record.text).expect("UTF-8")));
        assert_eq!(segment.offset(), HOLE_BYTES + 4);
        assert!(found.len() == 2 && found[0] == "one" && found[1] == "two", "{found:?}");
    }
}
