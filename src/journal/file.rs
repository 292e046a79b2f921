//! The file as the writer's thread knows it: opened, appended to, compacted.

use super::Error;
use super::frame::{self, Frames, HEAD_BYTES, NoHead};
use super::key::{Hash, Key};
use super::place;
use super::record::{Entry, What};
use super::state::{Found, State};
use crate::own_file;
use rustix::fs::{FlockOperation, fcntl_lock};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most that a compacted file holds, in bytes.
pub const LIVE_BYTES_MAX: usize = 8 << 20;

/// The longest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file is compacted when it is twice as long as after the last time, and this much longer, in bytes.
const SLACK_BYTES: u64 = 1 << 20;

/// A file of no more than this is not compacted at the start, in bytes: the beginnings of a few processes.
const SMALL_BYTES: u64 = 256;

/// After a compaction that failed, the next is tried when the file has grown by this, in bytes.
const RETRY_BYTES: u64 = 1 << 20;

/// The file, once it is open.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    key: Key,
    /// Locked as long as this process lives.
    _lock: File,
    file: Arc<File>,
    /// Whole records so far.
    bytes: u64,
    /// When to compact.
    compact_at: u64,
    /// What follows the whole records may be a part of one.
    is_torn: bool,
    /// Owners of what this process wrote: theirs is not given up for others.
    own: BTreeSet<Hash>,
    trouble: Trouble,
}

/// What failed and has not worked since: the step, and for a write its bytes. It is said once. On a disk that is nearly
/// full short records fit and long ones do not, so that a shorter write proves nothing.
#[derive(Debug, Default)]
struct Trouble(Option<(&'static str, u64)>);

impl Trouble {
    /// Notes a failure; whether it is to be said.
    fn begins(&mut self, step: &'static str, bytes: u64) -> bool {
        let is_new = self.0.is_none();
        self.0.get_or_insert((step, bytes));
        is_new
    }

    /// Notes what worked; whether that ends what was said.
    fn ends(&mut self, step: &'static str, bytes: u64) -> bool {
        self.0.take_if(|(failed, failed_bytes)| *failed == step && *failed_bytes <= bytes).is_some()
    }
}

/// A sync that is due.
pub(super) struct Sync(Arc<File>);

impl Sync {
    pub(super) fn run(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl JournalFile {
    pub(super) const fn at(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Locks the file, reads it and leaves it open. What is not a journal is set aside.
    pub(super) fn open(&mut self) -> Result<(Key, Found), Error> {
        let unusable = |cause| Error::Unusable { file: self.path.clone(), cause };
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        }
        let lock = self.lock()?;
        let _ = fs::remove_file(beside(&self.path, "new"));
        let (key, bytes) = self.read().map_err(unusable)?;
        let mut frames = Frames::of(&key, &bytes);
        let state = State::read(&mut frames);
        if frames.skipped > 0 {
            tracing::warn!(bytes = frames.skipped, "journal damaged; the records there are lost");
        }
        if !state.is_of_this_machine(&key) {
            tracing::warn!(
                file = %self.path.display(),
                "the journal is from another machine: a clone of this one may send the same results"
            );
        }
        let sound_to = frames.sound_to as u64;
        let is_torn = sound_to < bytes.len() as u64;
        let found = state.found(&key, &bytes);
        let file = Arc::new(own_file::open(&self.path).map_err(unusable)?);
        let mut open = Open {
            key: key.clone(),
            _lock: lock,
            file,
            bytes: sound_to,
            compact_at: SLACK_BYTES,
            is_torn,
            own: BTreeSet::new(),
            trouble: Trouble::default(),
        };
        let began = Entry { owner: 0, what: What::Began { machine: place::machine(&key) } };
        let frames = open.frames(&[began]);
        open.write(&frames).map_err(unusable)?;
        self.open = Some(open);
        Ok((key, found))
    }

    fn lock(&self) -> Result<File, Error> {
        let path = beside(&self.path, "lock");
        let lock = own_file::open(&path).map_err(|cause| Error::Unusable { file: path.clone(), cause })?;
        match fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Err(Error::Locked { file: path }),
            Err(error) => Err(Error::Unusable { file: path, cause: error.into() }),
        }
    }

    /// The key and the bytes of the file; a new one where there is none that can be read.
    fn read(&self) -> io::Result<(Key, Vec<u8>)> {
        let fault = match own_file::read(&self.path, FILE_BYTES_MAX) {
            Ok(bytes) => match frame::read_head(&bytes) {
                Ok(key) => return Ok((key, bytes)),
                // A process died before it had written the head.
                Err(NoHead::Foreign) if bytes.is_empty() => None,
                Err(fault) => Some(fault.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Some(format!("it is no regular file of at most {FILE_BYTES_MAX} bytes"))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(fault) = fault {
            let aside = beside(&self.path, "unusable");
            let _ = fs::remove_file(&aside);
            fs::rename(&self.path, &aside)?;
            tracing::warn!(
                fault,
                set_aside = %aside.display(),
                "journal not readable; its records are lost, and a new one begins"
            );
        }
        let key = Key::random();
        let head = frame::head(&key);
        // Whole or not at all, or the next start would find a damaged head. It reaches the disk with the first record:
        // the start waits for no disk.
        self.replace(std::slice::from_ref(&head), false)?;
        Ok((key, head))
    }

    /// Replaces the file whole, on the disk first where `is_synced`; the new one is open to append to.
    fn replace(&self, parts: &[Vec<u8>], is_synced: bool) -> io::Result<File> {
        let new = beside(&self.path, "new");
        let _ = fs::remove_file(&new);
        let replaced = (|| {
            let mut file = own_file::open(&new)?;
            let mut buffer = io::BufWriter::with_capacity(64 << 10, &mut file);
            parts.iter().try_for_each(|part| buffer.write_all(part))?;
            buffer.flush()?;
            drop(buffer);
            if is_synced {
                file.sync_all()?;
            }
            fs::rename(&new, &self.path)?;
            Ok(file)
        })();
        if replaced.is_err() {
            let _ = fs::remove_file(&new);
        } else if let Some(directory) = self.path.parent().filter(|_| is_synced) {
            // The name is on the disk once its directory is. Some file systems cannot sync one and keep the order.
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        replaced
    }

    /// Writes these records, all or none; false where that fails, which is said once.
    pub(super) fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(open) = &mut self.open else { return false };
        open.own.extend(entries.iter().map(|entry| entry.owner));
        if open.bytes >= open.compact_at {
            self.compact();
        }
        let Some(open) = &mut self.open else { return false };
        let frames = open.frames(entries);
        let written = open.write(&frames);
        self.note("write", frames.len() as u64, written.as_ref().map(drop));
        written.is_ok()
    }

    /// Leaves out what no longer counts. Where that fails the file stays as it is.
    fn compact(&mut self) {
        let Some(open) = &self.open else { return };
        let compacted = own_file::read(&self.path, FILE_BYTES_MAX).and_then(|bytes| {
            let state = State::read(&mut Frames::of(&open.key, &bytes));
            let mut parts = vec![frame::head(&open.key)];
            parts.extend(state.parts(&open.key, &bytes, &open.own, LIVE_BYTES_MAX));
            let file = self.replace(&parts, true)?;
            Ok((file, parts.iter().map(Vec::len).sum::<usize>() as u64))
        });
        self.note("compaction", 0, compacted.as_ref().map(drop));
        let Some(open) = &mut self.open else { return };
        match compacted {
            Ok((file, bytes)) => {
                (open.file, open.bytes, open.is_torn) = (Arc::new(file), bytes, false);
                open.compact_at = (2 * bytes + SLACK_BYTES).min(FILE_BYTES_MAX - SLACK_BYTES);
            }
            Err(_) => open.compact_at = open.bytes + RETRY_BYTES,
        }
    }

    /// These owners' records are not given up for those of others. What the process before no longer needed goes now.
    pub(super) fn begin(&mut self, own: [Hash; 2]) {
        let Some(open) = &mut self.open else { return };
        open.own.extend(own);
        if open.bytes > HEAD_BYTES as u64 + SMALL_BYTES {
            self.compact();
        }
    }

    /// What is to be synced now.
    pub(super) fn sync(&self) -> Option<Sync> {
        Some(Sync(Arc::clone(&self.open.as_ref()?.file)))
    }

    /// The one line that an operator looks for when a step fails, and the one when it works again.
    pub(super) fn note(&mut self, step: &'static str, bytes: u64, outcome: Result<(), &io::Error>) {
        let Some(open) = &mut self.open else { return };
        let file = self.path.display();
        match outcome {
            Ok(()) if open.trouble.ends(step, bytes) => tracing::info!(%file, "journal written again"),
            Err(error) if open.trouble.begins(step, bytes) => {
                tracing::warn!(%file, step, %error, "journal write failed; a crash now may lose results and run commands again");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Open {
    fn frames(&self, entries: &[Entry]) -> Vec<u8> {
        let mut frames = Vec::new();
        for entry in entries {
            frame::push(&self.key, &entry.encode(&self.key), &mut frames);
        }
        frames
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let bytes = frames.len() as u64;
        if self.bytes + bytes > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // A fault may be of the moment; what it left of a record goes first.
        self.try_write(frames).or_else(|_| self.try_write(frames))?;
        self.bytes += bytes;
        Ok(())
    }

    fn try_write(&mut self, frames: &[u8]) -> io::Result<()> {
        // Where it cannot be cut off, readers skip it.
        if self.is_torn && self.file.set_len(self.bytes).is_ok() {
            self.is_torn = false;
        }
        let written = (&*self.file).write_all(frames);
        self.is_torn |= written.is_err();
        written
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    path.with_extension(extension)
}

#[cfg(test)]
impl JournalFile {
    /// Another descriptor in the place of the file's: for tests of writes that fail.
    pub(super) fn swap(&mut self, file: Arc<File>) -> Arc<File> {
        let open = self.open.as_mut().expect("it is open");
        std::mem::replace(&mut open.file, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_full_disk_is_said_once() {
        let mut trouble = Trouble::default();
        assert!(trouble.begins("write", 20_000));
        for _ in 0..50 {
            assert!(!trouble.ends("write", 100), "short records fit");
            assert!(!trouble.ends("sync", 0) && !trouble.begins("write", 20_000));
        }
        assert!(trouble.ends("write", 20_000) && !trouble.ends("write", 20_000));
        assert!(trouble.begins("sync", 0) && !trouble.ends("write", 1 << 20) && trouble.ends("sync", 0));
    }
}
