//! The journal: one append-only file by which a process that dies loses nothing and runs nothing twice.
//!
//! `draupnir_fsm::driver` decides what is recorded and what waits for it; this module frames, writes, syncs and reads.
//! All access to the file is off the loop's thread (`writer`). One write carries all records that wait. The loop waits
//! for it at most `HAND_OVER`; a write that takes longer is reported. Records that nothing waits for go with the next
//! that something waits for, or within 100 ms.
//!
//! **The file**, `journal` in the state directory, mode 0600 (`own_file`): a head, then frames to the end.
//!
//! | part | bytes |
//! |---|---|
//! | head | magic (8), version (4, little-endian), key (32), the first 8 of a SHA-256 over those |
//! | frame | magic (4), length of the payload (4), the first 8 bytes of an HMAC-SHA-256 over the payload, payload |
//!
//! The key is drawn at random for each file. It makes the checksums, and the 128-bit hashes of the console's ids, so
//! that no console can choose ids that meet. Bytes that are no frame are skipped up to the next frame: a torn or
//! damaged record costs itself. A file with another head (foreign, damaged, of a later version, too long, no regular
//! file) is set aside as `journal.unusable`, and a new one begins.
//!
//! **Owner**: each record carries a hash of the console's URL, the configured id and the console's id. Records of
//! another owner are kept as far as the bound permits and never sent.
//!
//! **Position**: the place in Sindri's status ledger up to which changes are reported, in one write with the events
//! about them: a process that dies reports each change once.
//!
//! **Positions of logs**: device, inode, offset and beginning of each file up to which the console has its lines, by
//! the path of the log. A file that has another beginning is another file, whatever its inode.
//!
//! **Lock**: `journal.lock` is locked as long as the process lives. A second process runs without a journal and warns.
//!
//! **Compaction** writes what still counts into `journal.new`, syncs it and renames it. Acknowledged output is gone
//! then. It happens once the file has outgrown what counted the last time, and after a start.
//!
//! Bounds: [`LIVE_BYTES_MAX`] of records that count, [`FILE_BYTES_MAX`] of file, [`COMMAND_IDS_MAX`] ended ids.
//!
//! [`COMMAND_IDS_MAX`]: draupnir_fsm::driver::COMMAND_IDS_MAX

mod file;
pub mod format;
mod frame;
mod key;
mod place;
mod record;
mod state;

pub use file::{FILE_BYTES_MAX, LIVE_BYTES_MAX};
pub use key::{Hash, Key};
pub use place::{Process, SessionRemains};
pub use record::{Body, Entry, What};
pub use state::{Found, Left};

use crate::report::{REPORTS_MAX, Reporter};
use crate::writer::{ANSWER_TIMEOUT, Answer, Writer};
use async_channel::Sender;
use file::JournalFile;
use smol::LocalExecutor;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The file within the state directory.
pub const FILE_NAME: &str = "journal";

/// How much may wait for the file, in bytes.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How long the loop waits at the end of a turn for its write. Waking the thread and a write into the kernel's cache
/// take some 25 µs, rarely more than 50; to be woken by a report instead costs the loop as much again, for each record
/// that a command waits for. A file system that takes longer delays the loop by no more than this.
const HAND_OVER: Duration = Duration::from_micros(100);

/// What a job counts in the queue of its thread, in bytes: the records wait beside it.
const JOB_BYTES: usize = 128;

/// What became of the records up to this one; only asked for where something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalReport {
    /// The number that the caller gave the last record of a turn.
    pub append: u64,
    /// Whether they are in the file.
    pub is_written: bool,
}

/// Why there is no journal. The operator may look at the directory; the agent goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No directory is configured and there is no home directory.
    #[error("there is no directory for state: set SINDRI_AGENT_STATE_DIR")]
    NoDirectory,
    /// Another process has it.
    #[error("{} is locked by another process: give each agent its own SINDRI_AGENT_STATE_DIR", .file.display())]
    Locked {
        /// The lock.
        file: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{} cannot be used: {cause}", .file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The one line that an operator looks for.
pub fn warn(error: &Error) {
    tracing::warn!(%error, "journal not available; results and ids of commands will not survive a crash");
}

/// The journal of this process, if it has one.
#[derive(Debug)]
pub struct Journal {
    key: Key,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Locked on the writer's thread alone.
    file: Arc<Mutex<JournalFile>>,
    writer: Writer,
    /// A sync may take long and delays no record: it has a thread of its own.
    syncer: Writer,
    reports: Sender<JournalReport>,
    /// Records of earlier turns that are not written yet.
    waiting: Arc<Mutex<Waiting>>,
    /// The records of this turn.
    turn: Vec<Entry>,
    turn_bytes: usize,
    append: u64,
    is_awaited: bool,
}

/// Records on their way to the file.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
    /// Whether the last write failed.
    has_failed: bool,
}

/// The reading of the file, which may take long.
#[derive(Debug)]
pub struct Opening {
    path: PathBuf,
    kept: Kept,
    answer: Answer<Result<(Key, Found), Error>>,
}

impl Opening {
    /// Waits until the file is read; without a journal, why not.
    pub fn wait(self, deadline: Instant) -> (Journal, Result<Found, Error>) {
        let Self { path, kept, answer } = self;
        let unusable = |cause| Err(Error::Unusable { file: path, cause });
        match answer.wait(deadline).unwrap_or_else(unusable) {
            Ok((key, found)) => (Journal { key, kept: Some(kept) }, Ok(found)),
            Err(error) => (Journal::absent(), Err(error)),
        }
    }
}

impl Journal {
    /// No journal. Ids are hashed under a key of this process alone.
    pub fn absent() -> Self {
        Self { key: Key::random(), kept: None }
    }

    /// Whether records are kept, in a few words.
    pub fn state(&self) -> &'static str {
        match &self.kept {
            None => "not available",
            Some(kept) if kept.writer.is_stalled(ANSWER_TIMEOUT) => "its file does not answer",
            Some(kept) if lock(&kept.waiting).has_failed => "not writable",
            Some(_) => "on",
        }
    }

    /// Begins to read what an earlier process left. Reports reach `reporter` by a task on the executor of the loop.
    ///
    /// # Errors
    /// No directory is known.
    pub fn open(
        state_dir: Option<&Path>,
        executor: &LocalExecutor<'static>,
        reporter: Reporter,
    ) -> Result<Opening, Error> {
        let (sender, reports) = async_channel::bounded(REPORTS_MAX);
        let opening = Self::reporting_to(state_dir, sender)?;
        let forward = async move {
            while let Ok(report) = reports.recv().await {
                reporter.report(report).await;
            }
        };
        executor.spawn(forward).detach();
        Ok(opening)
    }

    fn reporting_to(state_dir: Option<&Path>, reports: Sender<JournalReport>) -> Result<Opening, Error> {
        let path = state_dir.ok_or(Error::NoDirectory)?.join(FILE_NAME);
        let file = Arc::new(Mutex::new(JournalFile::at(path.clone())));
        let (writer, syncer) = (Writer::new("journal", QUEUE_BYTES_MAX), Writer::new("journal-sync", QUEUE_BYTES_MAX));
        let opened = Arc::clone(&file);
        let answer = writer.ask(move || lock(&opened).open());
        let (waiting, turn, turn_bytes, append, is_awaited) = (Arc::default(), Vec::new(), 0, 0, false);
        let kept = Kept { file, writer, syncer, reports, waiting, turn, turn_bytes, append, is_awaited };
        Ok(Opening { path, kept, answer })
    }

    /// Names the owners whose records are not given up for those of others, and lets go of what no longer counts.
    pub fn begin(&self, own: [Hash; 2]) {
        let Some(Kept { file, writer, .. }) = &self.kept else { return };
        let file = Arc::clone(file);
        // Without room or a thread the next compaction does it.
        let _ = writer.push(0, move || lock(&file).begin(own));
    }

    /// Without a journal, goes on with the key of the program before this one.
    pub fn keep_key(&mut self, bytes: &[u8]) {
        if let (None, Ok(bytes)) = (&self.kept, bytes.try_into()) {
            self.key = Key::of(bytes);
        }
    }

    /// The key under which the console's ids are hashed.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Adds a record to those of this turn.
    pub fn append(&mut self, append: u64, entry: Entry, is_awaited: bool) {
        if let Some(kept) = &mut self.kept {
            kept.turn_bytes += entry.bytes();
            kept.turn.push(entry);
            kept.append = append;
            kept.is_awaited |= is_awaited;
        }
    }

    /// Enqueues the records of this turn; the report on them, where it is known within `HAND_OVER`.
    pub fn end_turn(&mut self) -> Option<JournalReport> {
        let kept = self.kept.as_mut().filter(|kept| !kept.turn.is_empty())?;
        let (entries, bytes) = (std::mem::take(&mut kept.turn), std::mem::take(&mut kept.turn_bytes));
        let (append, is_awaited) = (kept.append, std::mem::take(&mut kept.is_awaited));
        let report = |is_written| is_awaited.then_some(JournalReport { append, is_written });
        if kept.writer.is_stalled(ANSWER_TIMEOUT) || !lock(&kept.waiting).add(entries, bytes) {
            return report(false);
        }
        let (file, waiting) = (Arc::clone(&kept.file), Arc::clone(&kept.waiting));
        if !is_awaited {
            // Without a thread they go with the next.
            let _ = kept.writer.push_lazily(JOB_BYTES, move || {
                write(&file, &waiting);
            });
            return None;
        }
        let is_busy = kept.writer.is_stalled(HAND_OVER) || !has_processor_for_writer();
        let reports = kept.reports.clone();
        let handover = Arc::new(Handover::default());
        let given = Arc::clone(&handover);
        let job = move || {
            let is_written = write(&file, &waiting);
            if !given.give(is_written) {
                // The loop drops the other end only when the process ends.
                let _ = reports.send_blocking(JournalReport { append, is_written });
            }
        };
        if kept.writer.push(JOB_BYTES, job).is_err() {
            return report(false);
        }
        report(handover.wait(if is_busy { Duration::ZERO } else { HAND_OVER })?)
    }

    /// Lets the disk take what was written, behind the records of earlier turns and without delaying later ones.
    pub fn sync(&self) {
        let Some(Kept { file, writer, syncer, .. }) = &self.kept else { return };
        let (file, syncer) = (Arc::clone(file), syncer.clone());
        // Without room or a thread the next one does it.
        let _ = writer.push(0, move || {
            let Some(sync) = lock(&file).sync() else { return };
            let _ = syncer.push(0, move || {
                let synced = sync.run();
                lock(&file).note("sync", 0, synced.as_ref().map(drop));
            });
        });
    }
}

impl Waiting {
    /// Adds the records of a turn, unless too much waits already.
    fn add(&mut self, entries: Vec<Entry>, bytes: usize) -> bool {
        if !self.entries.is_empty() && self.bytes.saturating_add(bytes) > QUEUE_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.entries.extend(entries);
        true
    }

    fn take(&mut self) -> Vec<Entry> {
        self.bytes = 0;
        let mut entries = std::mem::take(&mut self.entries);
        // Where a command has ended already, nothing is left of it: its process is not looked up.
        let ended: BTreeSet<Hash> = entries.iter().filter_map(|entry| entry.what.ends()).collect();
        entries.retain(|Entry { what, .. }| !matches!(what, What::Started { id, .. } if ended.contains(id)));
        entries
    }
}

/// Writes all that waits; whether it, or what an earlier job wrote of it, is in the file.
fn write(file: &Mutex<JournalFile>, waiting: &Mutex<Waiting>) -> bool {
    let mut file = lock(file);
    let entries = lock(waiting).take();
    if !entries.is_empty() {
        let has_failed = !file.append(&entries);
        lock(waiting).has_failed = has_failed;
    }
    !lock(waiting).has_failed
}

/// The answer to one write: the loop takes it, or has gone on and is sent a report.
#[derive(Debug, Default)]
struct Handover(AtomicU8);

impl Handover {
    const EXPECTED: u8 = 0;
    const ABANDONED: u8 = 1;
    const WRITTEN: u8 = 2;
    const FAILED: u8 = 3;

    /// Gives the answer; false if the loop has gone on.
    fn give(&self, is_written: bool) -> bool {
        let answer = if is_written { Self::WRITTEN } else { Self::FAILED };
        self.0.compare_exchange(Self::EXPECTED, answer, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The answer, if it comes within this time; else it must be reported.
    fn wait(&self, at_most: Duration) -> Option<bool> {
        let began = Instant::now();
        while self.0.load(Ordering::Acquire) == Self::EXPECTED && began.elapsed() < at_most {
            std::hint::spin_loop();
        }
        match self.0.compare_exchange(Self::EXPECTED, Self::ABANDONED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => None,
            Err(answer) => Some(answer == Self::WRITTEN),
        }
    }
}

/// Whether another processor can write while the loop waits.
fn has_processor_for_writer() -> bool {
    static HAS: LazyLock<bool> =
        LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|count| count.get() > 1));
    *HAS
}

/// No code that can panic runs under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
