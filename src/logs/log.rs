//! One log: the row of files that were written under its name, and how far each was read.
//!
//! The file that stands under the name is the last of them; the files before were renamed or removed, and are read to
//! their end first.

use super::follower::{Credit, Line, Mark};
use super::position::{FileId, Position};
use super::record::Origin;
use super::root::{Root, id_of, length_of, open_file, stat};
use super::rotation;
use super::segment::{BACKLOG_BYTES_MAX, READ_BYTES, Segment, Stage, next_line};
use super::splitter::Record;
use super::time::Zone;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) below: PathBuf,
    pub(super) origin: Arc<Origin>,
    /// The oldest first.
    pub(super) segments: VecDeque<Segment>,
    next_segment: u32,
    pub(super) is_wanted: bool,
    pub(super) is_dirty: bool,
    /// Its last file no longer stands under its name.
    pub(super) is_moved: bool,
}

/// What reading one log needs.
pub(super) struct Reading<'a> {
    pub(super) zone: &'a mut Zone,
    pub(super) left: &'a mut Credit,
    pub(super) now: Instant,
    pub(super) lines: &'a mut Vec<Line>,
}

impl Reading<'_> {
    fn push(&mut self, origin: &Arc<Origin>, text: String, mark: Mark) {
        self.left.lines = self.left.lines.saturating_sub(1);
        self.left.bytes = self.left.bytes.saturating_sub(text.len());
        self.lines.push(Line { text, origin: Arc::clone(origin), mark });
    }
}

impl Log {
    pub(super) fn new(below: &Path, origin: Arc<Origin>) -> Self {
        let (segments, next_segment) = (VecDeque::new(), 0);
        Self { below: below.into(), origin, segments, next_segment, is_wanted: false, is_dirty: false, is_moved: false }
    }

    pub(super) fn push(&mut self, id: FileId, file: File, offset: u64) {
        if let Some(last) = self.segments.back_mut().filter(|last| last.stage == Stage::Current) {
            last.stage = Stage::Replaced;
        }
        self.segments.push_back(Segment::new(id, self.next_segment, file, offset));
        self.next_segment += 1;
    }

    pub(super) fn holds(&self, id: FileId) -> bool {
        self.segments.iter().any(|segment| segment.id == id)
    }

    pub(super) fn open_files(&self) -> usize {
        self.segments.iter().filter(|segment| segment.file.is_some()).count()
    }

    /// Closes its file, if nothing that was seen is left to read of it.
    pub(super) fn close(&mut self) -> bool {
        let last = self.segments.back_mut().filter(|last| last.offset() >= last.seen_bytes);
        last.is_some_and(|last| last.file.take().is_some())
    }

    pub(super) fn acknowledged(&mut self, mark: &Mark) {
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|first| first.number < mark.segment && first.stage == Stage::Read)
        {
            self.segments.pop_front();
        }
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.number == mark.segment) {
            segment.acked = segment.acked.max(mark.position.offset);
        }
    }

    /// Goes on from a position of an earlier process, or of a time when it was not followed.
    pub(super) fn resume(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        (id, file): (FileId, File),
        position: &Position,
    ) -> io::Result<()> {
        let length = length_of(&file)?;
        if id == position.file && position.head.is_of(&file)? && position.offset <= length {
            self.push(id, file, position.offset);
            return Ok(());
        }
        // It was renamed, or is gone, or was truncated.
        if let Some(rotated) = rotation::find(directory, position).filter(|rotated| rotated.id != id) {
            let between = rotation::between(directory, name, (rotated.id, Some(&rotated.file)), id);
            self.push(rotated.id, rotated.file, position.offset);
            for next in between {
                self.push(next.id, next.file, 0);
            }
        }
        self.push(id, file, 0);
        Ok(())
    }

    /// Passes over what is further back than [`BACKLOG_BYTES_MAX`], and says so.
    pub(super) fn skip_backlog(&mut self) -> io::Result<()> {
        let mut waiting = Vec::with_capacity(self.segments.len());
        for segment in &mut self.segments {
            waiting.push(segment.look()?);
        }
        let mut surplus = waiting.iter().sum::<u64>().saturating_sub(BACKLOG_BYTES_MAX);
        let mut skipped = 0;
        for (segment, waiting) in self.segments.iter_mut().zip(waiting) {
            if surplus == 0 {
                break;
            }
            let mut to = segment.offset() + surplus.min(waiting);
            surplus -= surplus.min(waiting);
            if surplus == 0
                && let Some(file) = &segment.file
            {
                to = next_line(file, to)?;
            }
            skipped += to - segment.offset();
            segment.rewind(to);
        }
        if let Some(first) = self.segments.front_mut().filter(|_| skipped > 0) {
            first.lost = Some(format!("skipped {skipped} bytes that were written while no console followed this log"));
        }
        Ok(())
    }

    /// Reads what is new, as far as there is credit; whether that is all.
    pub(super) fn read(&mut self, root: &Root, reading: &mut Reading<'_>) -> io::Result<bool> {
        self.look(root)?;
        let now_ms = unix_ms();
        for place in 0..self.segments.len() {
            let Some(segment) = self.segments.get_mut(place) else { break };
            if let Some(text) = segment.lost.take() {
                let mark = Mark { position: segment.position(segment.acked), segment: segment.number, cursor: None };
                let text = self.origin.remark(&text, now_ms);
                reading.push(&self.origin, text, mark);
            }
            while segment.stage != Stage::Read {
                if reading.left.lines == 0 || reading.left.bytes == 0 {
                    return Ok(false);
                }
                let mut records: Vec<Record> = Vec::new();
                let (lines, bytes) = (reading.left.lines, reading.left.bytes.clamp(1 << 10, READ_BYTES));
                let read = segment.read(reading.now, bytes, lines, |record| records.push(record))?;
                if read == 0 {
                    match segment.stage {
                        Stage::Replaced => segment.finish(|record| records.push(record)),
                        Stage::Current if segment.has_waited(reading.now) => {
                            segment.flush(|record| records.push(record));
                        }
                        Stage::Current | Stage::Read => {}
                    }
                }
                for record in records {
                    let mark = Mark { position: segment.position(record.end), segment: segment.number, cursor: None };
                    let text = self.origin.line(&record, now_ms, reading.zone);
                    reading.push(&self.origin, text, mark);
                }
                if read == 0 {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Looks what stands under its name now.
    fn look(&mut self, root: &Root) -> io::Result<()> {
        let directory = root.open_directory(self.below.parent().unwrap_or(Path::new("")));
        let Some(name) = self.below.file_name() else { return Ok(()) };
        let found = directory.as_ref().ok().and_then(|directory| stat(directory, name).ok());
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        self.is_moved = found.as_ref().is_none_or(|found| id_of(found) != last.id);
        let (Ok(directory), Some(found)) = (directory, found) else {
            last.look()?;
            return Ok(());
        };
        if !self.is_moved {
            if last.file.is_none() {
                let (file, found) = open_file(&directory, name)?;
                if id_of(&found) == last.id {
                    last.file = Some(file);
                }
            }
            let unread = last.seen_bytes.saturating_sub(last.offset());
            last.look()?;
            if last.is_truncated(last.seen_bytes)? {
                let Some(file) = last.file.take() else { return Ok(()) };
                let id = last.id;
                // What was in it can be read no more: without a file, this one has only what was read of it.
                self.push(id, file, 0);
                self.report_loss(unread);
            }
            return Ok(());
        }
        if last.file.is_none()
            && let Some(rotated) = rotation::find(&directory, &last.position(last.offset()))
        {
            last.file = Some(rotated.file);
        }
        last.look()?;
        // The program has not begun with the new one yet, and may go on with the old one.
        if found.st_size == 0 {
            return Ok(());
        }
        let (file, found) = open_file(&directory, name)?;
        let (old, new) = (last.id, id_of(&found));
        let is_lost = last.file.is_none();
        let unread = last.seen_bytes.saturating_sub(last.offset());
        for next in rotation::between(&directory, name, (old, last.file.as_ref()), new) {
            self.push(next.id, next.file, 0);
        }
        self.push(new, file, 0);
        self.is_moved = false;
        if is_lost {
            self.report_loss(unread);
        }
        Ok(())
    }

    fn report_loss(&mut self, bytes: u64) {
        if let Some(last) = self.segments.back_mut().filter(|_| bytes > 0) {
            last.lost =
                Some(format!("lost at least {bytes} bytes: the file was truncated or removed before they were read"));
        }
    }
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
