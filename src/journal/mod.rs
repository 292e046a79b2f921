//! The journal: one append-only file by which a process that dies loses nothing and runs nothing twice.
//!
//! `draupnir_fsm::driver` decides what is recorded and what waits for it; this module frames, writes, syncs and reads.
//! All access to the file is off the loop's thread (`writer`). One write carries all records of a turn.
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
//! **Lock**: `journal.lock` is locked as long as the process lives. A second process runs without a journal and warns.
//!
//! **Compaction** writes what still counts into `journal.new`, syncs it and renames it. Acknowledged output is gone
//! then. It happens once the file has outgrown what counted the last time, and after a start.
//!
//! Bounds: [`LIVE_BYTES_MAX`] of records that count, [`FILE_BYTES_MAX`] of file, [`COMMAND_IDS_MAX`] ended ids.
//!
//! [`COMMAND_IDS_MAX`]: draupnir_fsm::driver::COMMAND_IDS_MAX

mod file;
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
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The file within the state directory.
pub const FILE_NAME: &str = "journal";

/// How much may wait for the file, in bytes.
const QUEUE_BYTES_MAX: usize = 4 << 20;

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
    /// The records of this turn.
    turn: Vec<Entry>,
    turn_bytes: usize,
    append: u64,
    is_awaited: bool,
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
        let (turn, turn_bytes, append, is_awaited) = (Vec::new(), 0, 0, false);
        Ok(Opening { path, kept: Kept { file, writer, syncer, reports, turn, turn_bytes, append, is_awaited }, answer })
    }

    /// Names the owners whose records are not given up for those of others, and lets go of what no longer counts.
    pub fn begin(&self, own: [Hash; 2]) {
        let Some(Kept { file, writer, .. }) = &self.kept else { return };
        let file = Arc::clone(file);
        // Without room or a thread the next compaction does it.
        let _ = writer.push(0, move || lock(&file).begin(own));
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

    /// Enqueues the records of this turn and returns at once; the report where they will not be written.
    pub fn end_turn(&mut self) -> Option<JournalReport> {
        let kept = self.kept.as_mut().filter(|kept| !kept.turn.is_empty())?;
        let entries = std::mem::take(&mut kept.turn);
        let (bytes, append) = (std::mem::take(&mut kept.turn_bytes), kept.append);
        let is_awaited = std::mem::take(&mut kept.is_awaited);
        let (file, reports) = (Arc::clone(&kept.file), kept.reports.clone());
        let refused = kept.writer.is_stalled(ANSWER_TIMEOUT)
            || kept
                .writer
                .push(bytes, move || {
                    let is_written = lock(&file).append(&entries);
                    if is_awaited {
                        // The loop drops the other end only when the process ends.
                        let _ = reports.send_blocking(JournalReport { append, is_written });
                    }
                })
                .is_err();
        (refused && is_awaited).then_some(JournalReport { append, is_written: false })
    }

    /// Lets the disk take what was written, behind the records of earlier turns and without delaying later ones.
    pub fn sync(&self) {
        let Some(Kept { file, writer, syncer, .. }) = &self.kept else { return };
        let (file, syncer) = (Arc::clone(file), syncer.clone());
        // Without room or a thread the next one does it.
        let _ = writer.push(0, move || {
            let Some(sync) = lock(&file).sync() else { return };
            let _ = syncer.push(0, move || {
                if let Err(error) = sync.run() {
                    lock(&file).warn_once("sync", &error);
                }
            });
        });
    }
}

/// No code that can panic runs under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
