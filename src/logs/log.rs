//! One log: the row of files that were written under its name, and how far each was read.
//!
//! The file that stands under the name is the last of them; the files before were renamed or removed, and are read to
//! their end first.

use super::follower::{Credit, Line, Mark};
use super::position::{FileId, Position};
use super::record::Origin;
use super::root::{Root, id_of, length_of, open_file, stat};
use super::rotation::{self, Rotated};
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

    /// The file that stands under its name, if that is open.
    pub(super) fn current_file(&self) -> Option<&File> {
        self.segments.back()?.file.as_ref().filter(|_| !self.is_moved)
    }

    /// Whether all of it was read and acknowledged, where nothing stands under its name any more.
    pub(super) fn is_over(&mut self) -> bool {
        let is_wanted = self.is_wanted;
        self.segments.iter_mut().all(|segment| {
            // Lines may have been written since, at the last before it was removed.
            let _ = segment.look();
            segment.is_settled() && !(is_wanted && segment.may_be_gone())
        })
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
        // A copy of a file goes by the file's own id.
        let known = std::mem::take(&mut self.segments).into_iter().find(|segment| segment.id == position.file);
        let seen_bytes = known.as_ref().map_or(0, |segment| segment.seen_bytes).max(position.offset);
        if id == position.file && position.head.is_of(&file)? && length_of(&file)? >= seen_bytes {
            self.push(id, file, position.offset);
            return Ok(());
        }
        // It was renamed, or is gone, or was truncated.
        let renamed = rotation::find(directory, position).filter(|rotated| rotated.id != id);
        let earlier = renamed.or_else(|| rotation::copy_of(directory, name, position));
        let lost = (earlier.is_none() && position.file != FileId::default()).then(|| seen_bytes - position.offset);
        if let Some(earlier) = earlier {
            let between = rotation::between(directory, name, (earlier.id, Some(&earlier.file)), id);
            self.push(position.file, earlier.file, position.offset);
            self.push_all(between);
        }
        if let Some(mut known) = known.filter(|_| lost.is_some()) {
            // It knows how much is lost until the console does.
            known.discard();
            self.segments.push_back(known);
        }
        self.push(id, file, 0);
        self.set_lost(self.segments.len() - 1, lost);
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
        if let Some(first) = self.segments.front_mut() {
            first.gap.skipped_bytes = skipped;
        }
        Ok(())
    }

    /// Reads what is new, as far as there is credit; whether that is all.
    pub(super) fn read(&mut self, root: &Root, reading: &mut Reading<'_>) -> io::Result<bool> {
        self.look(root)?;
        let now_ms = unix_ms();
        for place in 0..self.segments.len() {
            let Some(segment) = self.segments.get_mut(place) else { break };
            if let Some(text) = segment.gap.take_report() {
                let text = self.origin.remark(&text, now_ms);
                let mark = Mark { position: segment.position(segment.acked), segment: segment.number, cursor: None };
                reading.push(&self.origin, text, mark);
            }
            let mut lost = None;
            while segment.stage != Stage::Read {
                if reading.left.lines == 0 || reading.left.bytes == 0 {
                    return Ok(false);
                }
                let mut records: Vec<Record> = Vec::new();
                let (lines, bytes) = (reading.left.lines, reading.left.bytes.clamp(1 << 10, READ_BYTES));
                let read = segment.read(reading.now, bytes, lines, |record| records.push(record))?;
                if read == 0 {
                    match segment.stage {
                        Stage::Replaced => {
                            // It was emptied when it stood under its name no more.
                            lost = segment.file.as_ref().map(|_| segment.unread()).filter(|bytes| *bytes > 0);
                            segment.finish(|record| records.push(record));
                        }
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
            if lost.is_some() {
                self.set_lost(place + 1, lost);
            }
        }
        Ok(true)
    }

    /// Looks what stands under its name now.
    fn look(&mut self, root: &Root) -> io::Result<()> {
        let directory = root.open_directory(self.below.parent().unwrap_or(Path::new("")));
        let Some(name) = self.below.file_name().map(OsStr::to_owned) else { return Ok(()) };
        let found = match &directory {
            Ok(directory) => stat(directory, &name),
            Err(error) => Err(error.kind().into()),
        };
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        self.is_moved = found.as_ref().map_or(true, |found| id_of(found) != last.id);
        if self.is_moved
            && last.may_be_gone()
            && let Ok(directory) = &directory
        {
            last.file = rotation::find(directory, &last.position(last.offset())).map(|rotated| rotated.file);
        }
        let (directory, found) = match (directory, found) {
            (Ok(directory), Ok(found)) => (directory, found),
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound && last.may_be_gone() => {
                last.bury();
                return Ok(());
            }
            _ => return last.look().map(drop),
        };
        if !self.is_moved {
            if last.file.is_none() {
                let (file, found) = open_file(&directory, &name)?;
                if id_of(&found) == last.id {
                    last.file = Some(file);
                }
            }
            return if last.is_truncated()? {
                self.replace_truncated(&directory, &name)
            } else {
                last.look().map(drop)
            };
        }
        last.look()?;
        // The program has not begun with the new one yet, and may go on with the old one.
        if found.st_size == 0 {
            return Ok(());
        }
        let (file, found) = open_file(&directory, &name)?;
        let (old, new) = (last.id, id_of(&found));
        let between = rotation::between(&directory, &name, (old, last.file.as_ref()), new);
        // Files are removed in the order in which they were written: behind this one, others may have been.
        let is_removed =
            last.file.as_ref().is_some_and(|file| rustix::fs::fstat(file).is_ok_and(|at| at.st_nlink == 0));
        let lost =
            if last.may_be_gone() { Some(last.unread()) } else { (is_removed && !between.is_empty()).then_some(0) };
        let next = self.segments.len();
        self.push_all(between);
        self.push(new, file, 0);
        self.is_moved = false;
        self.set_lost(next, lost);
        Ok(())
    }

    /// Its file was truncated: what was in it is read from a copy, if there is one.
    fn replace_truncated(&mut self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        let Some(file) = last.file.take() else { return Ok(()) };
        let (id, unread) = (last.id, last.unread());
        let copy = rotation::copy_of(directory, name, &last.position(last.offset()));
        let lost = copy.is_none().then_some(unread);
        if let Some(copy) = copy {
            let between = rotation::between(directory, name, (copy.id, Some(&copy.file)), id);
            last.file = Some(copy.file);
            last.look()?;
            self.push_all(between);
        }
        self.push(id, file, 0);
        self.set_lost(self.segments.len() - 1, lost);
        Ok(())
    }

    fn push_all(&mut self, files: Vec<Rotated>) {
        for Rotated { id, file } in files {
            self.push(id, file, 0);
        }
    }

    /// At least so many bytes before this segment are lost.
    fn set_lost(&mut self, place: usize, bytes: Option<u64>) {
        if let Some(segment) = self.segments.get_mut(place) {
            segment.gap.lost_bytes = bytes;
        }
    }
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
