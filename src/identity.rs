//! Remembers across restarts which id which console gave to this instance.
//!
//! It decides nothing about when to register. An agent that registers at every start litters the fleet with ghosts
//! (wire.md, part B), so that what is remembered is dialled first; but an agent that cannot remember still works:
//! every fault here is one warning and no more. The file is small, is read once, and is only ever replaced whole, so
//! that a crash leaves the old one or the new one.

use crate::protocol::InstanceId;
use draupnir_fsm::order::RegisterPath;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file within the state directory.
const FILE_NAME: &str = "identity.json";

/// Longest file that is read, in bytes: thrice what the longest that is written has.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Most identities that are kept. One instance seldom has more than one console; the oldest goes first.
const IDENTITIES_MAX: usize = 16;

/// Longest console URL that is kept, in bytes.
const CONSOLE_BYTES_MAX: usize = 1024;

/// Why nothing is remembered, or nothing more. The operator may look at the directory; the agent goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No directory is configured and there is no home directory.
    #[error("there is no directory for state: set SINDRI_AGENT_STATE_DIR")]
    NoDirectory,
    /// The file is there and cannot be read.
    #[error("{} cannot be read: {cause}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("{} is damaged and will be replaced", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be replaced.
    #[error("{} cannot be written: {cause}", .file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// What is known of this instance on one console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The id that the console gave; none if it forgot it again.
    pub id: Option<InstanceId>,
    /// The path on which it registers instances.
    pub path: Option<RegisterPath>,
}

/// All that is remembered for one instance id on one console, and the file behind it.
#[derive(Debug)]
pub struct Memory {
    file: Option<PathBuf>,
    entries: Vec<Entry>,
    key: (String, String),
    has_warned: bool,
}

impl Memory {
    /// Reads what is remembered for `configured` on `console`. A fault leaves an empty memory that works until the
    /// process ends; it is told once.
    pub fn open(state_dir: Option<&Path>, console: &str, configured: &InstanceId) -> (Self, Option<Error>) {
        let file = state_dir.map(|directory| directory.join(FILE_NAME));
        let read = file.as_deref().ok_or(Error::NoDirectory).and_then(read);
        let (entries, error) = match read {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let key = (console.to_owned(), configured.as_str().to_owned());
        (Self { file, entries, key, has_warned: error.is_some() }, error)
    }

    /// What is known.
    pub fn identity(&self) -> Identity {
        let (console, configured) = &self.key;
        let found = self.entries.iter().find(|entry| entry.console == *console && entry.configured == *configured);
        found.map(|entry| Identity { id: entry.id(), path: entry.path }).unwrap_or_default()
    }

    /// Keeps what is known now. Nothing is written where nothing changed.
    ///
    /// # Errors
    /// It could not be written, and nothing was said about this file before.
    pub fn remember(&mut self, identity: &Identity) -> Result<(), Error> {
        if self.identity() == *identity {
            return Ok(());
        }
        let (console, configured) = self.key.clone();
        self.entries.retain(|entry| entry.console != console || entry.configured != configured);
        self.entries.drain(..self.entries.len().saturating_sub(IDENTITIES_MAX - 1));
        let id = identity.id.as_ref().map(|id| id.as_str().to_owned());
        self.entries.push(Entry { console, configured, id, path: identity.path });
        match self.save() {
            Err(error) if !self.has_warned => {
                self.has_warned = true;
                Err(error)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn save(&self) -> Result<(), Error> {
        let file = self.file.as_deref().ok_or(Error::NoDirectory)?;
        replace(file, &self.entries).map_err(|cause| Error::Unwritable { file: file.to_owned(), cause })
    }
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    identities: Vec<Entry>,
}

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    console: String,
    configured: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<RegisterPath>,
}

impl Entry {
    fn id(&self) -> Option<InstanceId> {
        self.id.as_deref().and_then(|id| InstanceId::new(id).ok())
    }

    /// Whether this could have been written here: the id goes into a header.
    fn is_legal(&self) -> bool {
        let id_is_legal = self.id.is_none() || self.id().is_some();
        id_is_legal && self.console.len() <= CONSOLE_BYTES_MAX && InstanceId::new(&self.configured).is_ok()
    }
}

/// What the file remembers; nothing where there is none yet.
fn read(file: &Path) -> Result<Vec<Entry>, Error> {
    let unreadable = |cause| Error::Unreadable { file: file.to_owned(), cause };
    // A FIFO in its place must not hold up the start: without a writer, opening it would wait for one.
    let mut options = OpenOptions::new();
    let opened = match options.read(true).custom_flags(libc::O_NONBLOCK).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let damaged = || Error::Damaged { file: file.to_owned() };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged());
    }
    let content: Content = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let is_legal = content.version == VERSION
        && content.identities.len() <= IDENTITIES_MAX
        && content.identities.iter().all(Entry::is_legal);
    if is_legal { Ok(content.identities) } else { Err(damaged()) }
}

/// Replaces the file whole: readable by its owner alone, on the disk before it takes the old one's place.
fn replace(file: &Path, entries: &[Entry]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut text = serde_json::to_vec_pretty(&Content { version: VERSION, identities: entries.to_vec() })?;
    text.push(b'\n');
    let new = directory.join(format!("{FILE_NAME}.{}", std::process::id()));
    // One of that name is left from a crash of a process that had our number.
    let _ = fs::remove_file(&new);
    let written = write_new(&new, &text).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_new(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut new: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    new.write_all(text)?;
    new.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory that is gone after the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            Self(std::env::temp_dir().join(format!("draupnir-identity-{}-{number}", std::process::id())))
        }

        fn file(&self) -> PathBuf {
            self.0.join(FILE_NAME)
        }

        fn open(&self, console: &str, configured: &str) -> (Memory, Option<Error>) {
            Memory::open(Some(&self.0), console, &id(configured))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::new(text).expect("an id")
    }

    fn given(text: &str) -> Identity {
        Identity { id: Some(id(text)), path: Some(RegisterPath::Observed) }
    }

    #[test]
    fn what_is_remembered_is_there_after_a_restart() {
        let directory = Directory::new();
        let (mut memory, error) = directory.open("http://c", "web-1");
        assert!(error.is_none() && memory.identity() == Identity::default());
        memory.remember(&given("cmw1")).expect("written");
        let (mut memory, error) = directory.open("http://c", "web-1");
        assert!(error.is_none());
        assert_eq!(memory.identity(), given("cmw1"));
        let forgotten = Identity { id: None, ..given("cmw1") };
        memory.remember(&forgotten).expect("written");
        assert_eq!(directory.open("http://c", "web-1").0.identity(), forgotten);
    }

    #[test]
    fn consoles_and_configured_ids_are_told_apart() {
        let directory = Directory::new();
        directory.open("http://c", "web-1").0.remember(&given("a")).expect("written");
        directory.open("http://d", "web-1").0.remember(&given("b")).expect("written");
        directory.open("http://c", "web-2").0.remember(&given("c")).expect("written");
        for (console, configured, expected) in
            [("http://c", "web-1", "a"), ("http://d", "web-1", "b"), ("http://c", "web-2", "c")]
        {
            assert_eq!(directory.open(console, configured).0.identity(), given(expected));
        }
        assert_eq!(directory.open("http://d", "web-2").0.identity(), Identity::default());
    }

    #[test]
    fn the_oldest_goes_first() {
        let directory = Directory::new();
        for number in 0..=IDENTITIES_MAX {
            directory.open(&format!("http://c{number}"), "web-1").0.remember(&given("a")).expect("written");
        }
        assert_eq!(directory.open("http://c0", "web-1").0.identity(), Identity::default());
        assert_eq!(directory.open("http://c1", "web-1").0.identity(), given("a"));
    }

    #[test]
    fn only_its_owner_reads_it_and_nothing_is_left_beside_it() {
        let directory = Directory::new();
        directory.open("http://c", "web-1").0.remember(&given("a")).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&directory.0), mode(&directory.file())), (0o700, 0o600));
        assert_eq!(fs::read_dir(&directory.0).expect("a directory").count(), 1);
    }

    #[test]
    fn a_damaged_file_is_one_warning_and_is_replaced() {
        for content in [
            "",
            "{",
            "[]",
            r#"{"version":2,"identities":[]}"#,
            r#"{"version":1,"identities":[{"console":"http://c","configured":"web-1","id":"a\nb"}]}"#,
            &" ".repeat(100_000),
        ] {
            let directory = Directory::new();
            fs::create_dir_all(&directory.0).expect("a directory");
            fs::write(directory.file(), content).expect("a file");
            let (mut memory, error) = directory.open("http://c", "web-1");
            assert!(matches!(error, Some(Error::Damaged { .. })), "{content}");
            memory.remember(&given("a")).expect("written");
            assert_eq!(directory.open("http://c", "web-1").0.identity(), given("a"));
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_one_warning() {
        let directory = Directory::new();
        fs::write(&directory.0, "a file, not a directory").expect("a file");
        let (mut memory, error) = directory.open("http://c", "web-1");
        assert!(matches!(error, Some(Error::Unreadable { .. })), "{error:?}");
        memory.remember(&given("a")).expect("nothing more is said");
        assert_eq!(memory.identity(), given("a"));
        fs::remove_file(&directory.0).expect("removed");

        let below_a_file = Path::new("/proc/draupnir");
        let (mut memory, error) = Memory::open(Some(below_a_file), "http://c", &id("web-1"));
        assert!(error.is_none(), "{error:?}");
        assert!(matches!(memory.remember(&given("a")), Err(Error::Unwritable { .. })));
        memory.remember(&given("b")).expect("nothing more is said");

        let (mut memory, error) = Memory::open(None, "http://c", &id("web-1"));
        assert!(matches!(error, Some(Error::NoDirectory)));
        memory.remember(&given("a")).expect("nothing more is said");
    }

    #[test]
    fn a_fifo_does_not_hold_up_the_start() {
        let directory = Directory::new();
        fs::create_dir_all(&directory.0).expect("a directory");
        let made = std::process::Command::new("mkfifo").arg(directory.file()).status().expect("mkfifo");
        assert!(made.success());
        assert!(matches!(directory.open("http://c", "web-1").1, Some(Error::Damaged { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_content_is_read_without_panic(content: Vec<u8>) {
            let directory = Directory::new();
            fs::create_dir_all(&directory.0).expect("a directory");
            fs::write(directory.file(), content).expect("a file");
            prop_assert_eq!(directory.open("http://c", "web-1").0.identity(), Identity::default());
        }
    }
}
