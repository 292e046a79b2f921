//! All files of one root: finds them, reads what is new, and goes on with each where the console has it.
//!
//! It runs on the pool, one [`work`](Follower::work) after the other, since any call may wait for the file system.
//!
//! A log is a row of files (`log`). Files stay open until the console has them, as far as
//! [`OPEN_FILES_MAX`] permits, so that a file that is removed is still read, and its inode not used again.
//!
//! | what happened | what is seen | what follows |
//! |---|---|---|
//! | rotation by rename | a file under the name that is another, and not empty | old, between, new |
//! | more rotations than are kept | the old file is removed, and others came between | the same; a loss is reported |
//! | copy and truncate | shorter than what was seen, or another beginning | the copy, between, from the start |
//! | truncate without a copy | the same | read from the start; a loss is reported |
//! | removed | nothing under the name | the open file is read to its end; of a closed one a loss is reported |
//! | new file | a scan finds it | read from the start; at the first scan, its last lines |
//! | inode used again | another beginning than that of the position | as a new file |

use super::log::{Log, Reading};
use super::position::{HEAD_BYTES_MAX, Head, Position};
use super::record::Origin;
use super::root::{Root, id_of, open_file};
use super::segment::{Segment, first_offset};
use super::selection::Selection;
use super::time::Zone;
use super::watch::{Changes, Watch};
use litemap::LiteMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The most files that are open at once, of all roots together.
pub const OPEN_FILES_MAX: usize = 256;

/// Positions by the path of the log.
pub type Positions = LiteMap<Box<str>, Position>;

/// A place in a log: the line before it was read.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The place.
    pub position: Position,
    /// Which file of the log, as long as it is followed.
    pub segment: u32,
    /// The same in the system's journal, which has no files.
    pub cursor: Option<Box<str>>,
}

/// A line for the console.
#[derive(Clone, Debug)]
pub struct Line {
    /// Encoded.
    pub text: String,
    /// Its log.
    pub origin: Arc<Origin>,
    /// The place behind it.
    pub mark: Mark,
}

/// What is to be done besides reading.
#[derive(Debug, Default)]
pub struct Orders {
    /// The console has these logs up to here.
    pub acked: Vec<(Box<str>, Mark)>,
    /// Follow nothing any more; what is selected begins at its position again.
    pub restarts: bool,
    /// What was selected in between: what one of them does not want begins at its position again.
    pub between: Vec<Selection>,
    /// Follow these from now on; those that were not followed go on from these positions.
    pub select: Option<(Selection, Positions)>,
    /// Look at everything: nothing says what changed.
    pub polls: bool,
}

/// Selections that wait for a follower: one that does not answer must not pile them up.
const BETWEEN_MAX: usize = 16;

impl Orders {
    /// Follows these from now on.
    pub fn select(&mut self, selection: Selection, positions: Positions) {
        if let Some((before, _)) = self.select.replace((selection, positions)) {
            self.between.push(before);
        }
        if self.between.len() > BETWEEN_MAX {
            self.restart();
        }
    }

    /// Lets everything begin at its position again.
    pub fn restart(&mut self) {
        (self.restarts, self.between) = (true, Vec::new());
    }
}

/// How much may be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// How many lines.
    pub lines: usize,
    /// How many bytes of encoded lines; the last line may go beyond.
    pub bytes: usize,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was read, in order.
    pub lines: Vec<Line>,
    /// Where files begin that were not followed before.
    pub begun: Vec<(Arc<Origin>, Mark)>,
    /// There is more to read at once.
    pub has_more: bool,
    /// A record waits for lines that may belong to it.
    pub has_open_record: bool,
    /// Something was found that had changed.
    pub has_changed: bool,
    /// How many files are followed.
    pub files: usize,
    /// Why the directory cannot be read.
    pub problem: Option<String>,
    /// There are more files than are followed.
    pub is_cut: bool,
    /// Changes are not reported: it must be looked again and again.
    pub must_poll: bool,
}

/// One root.
#[derive(Debug)]
pub struct Follower {
    root: Root,
    /// Roots that come first: what they cover is theirs.
    earlier: Vec<Root>,
    selection: Selection,
    positions: Positions,
    logs: LiteMap<Box<str>, Log>,
    watch: Watch,
    needs_scan: bool,
    is_first_scan: bool,
    /// The log that was read last: the next one has its turn.
    last_read: Option<Box<str>>,
    open_max: usize,
    zone: Zone,
}

impl Follower {
    /// Follows nothing yet, and touches no file.
    pub fn new(root: Root, earlier: Vec<Root>, open_max: usize) -> Self {
        let watch = Watch::new(&root);
        Self {
            root,
            earlier,
            selection: Selection::default(),
            positions: Positions::new(),
            logs: LiteMap::new(),
            watch,
            needs_scan: false,
            is_first_scan: false,
            last_read: None,
            open_max,
            zone: Zone::default(),
        }
    }

    /// What says that there are changes, as long as something is followed.
    pub fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Does what is ordered, and reads what is new.
    pub fn work(&mut self, orders: Orders, credit: Credit, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        for (path, mark) in orders.acked {
            if let Some(log) = self.logs.get_mut(&path) {
                log.acknowledged(&mark);
            }
        }
        for (_, log) in self.logs.iter_mut() {
            log.is_wanted &= !orders.restarts
                && orders.between.iter().all(|selection| selection.wants(&log.origin.path, &self.root));
        }
        if let Some((selection, positions)) = orders.select {
            self.select(selection, positions);
        }
        if self.selection.is_empty() {
            return outcome;
        }
        let changes = if orders.polls { Changes::everything() } else { self.watch.changes() };
        outcome.has_changed = self.take(&changes);
        if self.needs_scan {
            self.scan(&mut outcome);
        }
        for (_, log) in self.logs.iter_mut() {
            log.is_dirty |= log.segments.back().is_some_and(|last| last.has_waited(now));
        }
        self.read(credit, now, &mut outcome);
        self.watch_files(&mut outcome);
        outcome.has_open_record = self.logs.values().any(|log| log.segments.back().is_some_and(Segment::waits));
        outcome.files = self.logs.values().filter(|log| log.is_wanted).count();
        outcome.must_poll = !self.watch.is_on();
        outcome
    }

    /// Lets the files be watched that are open now. What was written to one before its watch began is read again.
    fn watch_files(&mut self, outcome: &mut Outcome) {
        let wanted = self.logs.values().filter(|log| log.is_wanted);
        let new = self.watch.watch_files(wanted.map(|log| (log.below.as_path(), log.current_file())));
        for (_, log) in self.logs.iter_mut() {
            log.is_dirty |= new.contains(&log.below);
        }
        outcome.has_more |= !new.is_empty();
    }

    fn select(&mut self, selection: Selection, positions: Positions) {
        if selection.is_empty() {
            self.watch.stop();
        }
        for (_, log) in self.logs.iter_mut() {
            log.is_wanted &= selection.wants(&log.origin.path, &self.root);
        }
        (self.selection, self.positions) = (selection, positions);
        (self.needs_scan, self.is_first_scan) = (true, true);
    }

    /// Takes in what changed; whether anything did.
    fn take(&mut self, changes: &Changes) -> bool {
        self.needs_scan |= changes.needs_scan;
        let mut has_changed = changes.needs_scan && !changes.is_all;
        for (_, log) in self.logs.iter_mut() {
            let is_named = changes.is_all || changes.files.contains(&log.below);
            // The old file is written to under a name that is not its own any more.
            let may_be_it = log.is_moved && changes.files.iter().any(|file| file.parent() == log.below.parent());
            if log.is_wanted && (is_named || may_be_it) {
                log.is_dirty = true;
                has_changed |= !changes.is_all;
            }
        }
        has_changed
    }

    fn scan(&mut self, outcome: &mut Outcome) {
        self.needs_scan = false;
        // A directory that is watched after it was listed may have changed in between.
        let mut scanned = self.root.scan();
        for _ in 0..2 {
            let Ok(scan) = &scanned else { break };
            if !self.watch.add(&self.root, &scan.directories) {
                break;
            }
            scanned = self.root.scan();
        }
        let scan = match scanned {
            Ok(scan) => scan,
            Err(error) => {
                self.watch.add_parent(&self.root);
                if error.kind() != io::ErrorKind::NotFound {
                    outcome.problem = Some(format!("{}: {error}", self.root.directory().display()));
                }
                return;
            }
        };
        outcome.is_cut = scan.is_cut;
        let directory = self.root.directory();
        let mut open = self.logs.values().map(Log::open_files).sum::<usize>();
        for below in &scan.files {
            let origin = self.root.origin(below);
            let is_wanted = self.selection.wants(&origin.path, &self.root)
                && !self.earlier.iter().any(|root| root.covers(&directory.join(below)));
            let is_followed = self.logs.get(&origin.path).is_some_and(|log| log.is_wanted);
            if let Some(log) = self.logs.get_mut(&origin.path) {
                log.is_dirty |= log.is_wanted;
            }
            if !is_wanted || is_followed {
                continue;
            }
            let path = origin.path.clone();
            let before = self.logs.get(&path).map_or(0, Log::open_files);
            let begun = self.begin(below, origin);
            if let Some(log) = self.logs.get_mut(&path) {
                open = (open + log.open_files()).saturating_sub(before);
                open -= usize::from(open > self.open_max && log.close());
            }
            // What cannot be opened is not followed; the next scan tries again.
            if let Ok(begun) = begun {
                outcome.has_changed |= !self.is_first_scan;
                outcome.begun.extend(begun);
            }
        }
        self.is_first_scan = false;
        let is_there = |log: &Log| scan.files.binary_search(&log.below).is_ok();
        let over = self.logs.iter_mut().filter(|(_, log)| !is_there(log)).filter_map(|(path, log)| {
            log.is_dirty |= log.is_wanted;
            log.is_over().then(|| path.clone())
        });
        for path in over.collect::<Vec<_>>() {
            // What comes in its place is read from its start, and nothing of this one is missing.
            self.positions.remove(&path);
            let mark = Mark { position: Position::default(), segment: 0, cursor: None };
            outcome.begun.extend(self.logs.remove(&path).map(|log| (log.origin, mark)));
        }
    }

    /// Begins to follow a log, or goes on with it; where it begins, if that was not known.
    fn begin(&mut self, below: &Path, origin: Origin) -> io::Result<Option<(Arc<Origin>, Mark)>> {
        let parent = below.parent().unwrap_or(Path::new(""));
        let name = below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.root.open_directory(parent)?;
        let (file, found) = open_file(&directory, name)?;
        let id = id_of(&found);
        // Under its new name it would be read twice.
        if self.logs.values().any(|log| log.origin.path != origin.path && log.is_wanted && log.holds(id)) {
            return Ok(None);
        }
        let log = self.logs.entry(origin.path.clone()).or_insert_with(|| Log::new(below, Arc::new(origin)));
        (log.is_wanted, log.is_dirty) = (true, true);
        let position = self.positions.get(&log.origin.path).copied();
        // The same file under another name goes on, too.
        let by_file = || self.positions.values().find(|position| position.file == id).copied();
        let (is_new, position) = match position.or_else(by_file) {
            Some(position) => (false, position),
            None => {
                let offset = if self.is_first_scan { first_offset(&file)? } else { 0 };
                (true, Position { file: id, head: Head::of(&file, HEAD_BYTES_MAX)?, offset })
            }
        };
        if is_new {
            log.segments.clear();
            log.push(id, file, position.offset);
            let mark =
                Mark { position, segment: log.segments.back().map_or(0, |segment| segment.number), cursor: None };
            return Ok(Some((Arc::clone(&log.origin), mark)));
        }
        if let Some(place) = log.segments.iter().position(|segment| segment.is_at(&position)) {
            // It was followed before: what the console has not acknowledged is read again.
            log.segments.drain(..place);
            for (place, segment) in log.segments.iter_mut().enumerate() {
                segment.rewind(if place == 0 { position.offset } else { 0 });
            }
            // A console that has lines of a file has the report before them.
            if let Some(first) = log.segments.front_mut().filter(|first| first.acked > 0) {
                first.gap.lost_bytes = None;
            }
        } else {
            log.resume(&directory, name, (id, file), &position)?;
        }
        log.skip_backlog()?;
        Ok(None)
    }

    fn read(&mut self, credit: Credit, now: Instant, outcome: &mut Outcome) {
        let mut left = credit;
        let paths: Vec<Box<str>> =
            self.logs.iter().filter(|(_, log)| log.is_dirty && log.is_wanted).map(|(path, _)| path.clone()).collect();
        let first = self.last_read.as_ref().map_or(0, |last| paths.partition_point(|path| path <= last));
        let open = self.logs.values().map(Log::open_files).sum::<usize>();
        let mut room = self.open_max.saturating_sub(open);
        for path in paths.iter().cycle().skip(first).take(paths.len()) {
            if left.lines == 0 || left.bytes == 0 {
                outcome.has_more = true;
                return;
            }
            let Some(log) = self.logs.get_mut(path) else { continue };
            let before = log.open_files();
            let mut reading = Reading { zone: &mut self.zone, left: &mut left, now, lines: &mut outcome.lines };
            match log.read(&self.root, &mut reading) {
                Ok(is_done) => log.is_dirty = !is_done,
                // Nothing can be read of it until something changes.
                Err(_) => log.is_dirty = false,
            }
            outcome.has_more |= log.is_dirty;
            room = (room + before).saturating_sub(log.open_files());
            if room == 0 && log.close() {
                room += 1;
            }
            self.last_read = Some(path.clone());
        }
    }
}

#[cfg(test)]
mod tests;
