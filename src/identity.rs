//! Keeps across restarts the id that each console gave to this instance.
//!
//! An agent that registers at every start leaves dead instances in the fleet (CONSOLE.md, "Registration"), so the agent
//! dials with the stored id first. An agent whose file cannot be read or written still works and logs one warning. The
//! file is small and read once. It is replaced whole, so a crash leaves the old file or the new one. All access to it
//! is off the loop's thread (`writer`).

use crate::json;
use crate::protocol::InstanceId;
use crate::writer::{Answer, Writer};
use draupnir_fsm::driver::RegisterPath;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How much may wait for the file, in bytes. Only a notice waits: the newest identity stands beside the queue.
const QUEUE_BYTES_MAX: usize = 1 << 10;

/// The file within the state directory.
const FILE_NAME: &str = "identity.json";

/// Longest file that is read, in bytes: three times what the longest that is written has.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Most identities that are kept. One instance seldom has more than one console; the oldest goes first.
const IDENTITIES_MAX: usize = 16;

/// Longest console URL that is kept, in bytes.
const CONSOLE_BYTES_MAX: usize = 1024;

/// Why the file cannot be used. The operator should check the directory; the agent goes on without it.
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

/// What is remembered for one instance id on one console, and the writer of the file behind it.
#[derive(Debug)]
pub struct IdentityStore {
    identity: Identity,
    /// The newest identity that waits to be written.
    waiting: Arc<Mutex<Option<Identity>>>,
    /// Locked on the writer's thread alone.
    file: Arc<Mutex<StateFile>>,
    writer: Writer,
}

/// The reading of the file, which may take long.
#[derive(Debug)]
pub struct Opening {
    store: IdentityStore,
    path: Option<PathBuf>,
    answer: Answer<Result<Identity, Error>>,
}

impl Opening {
    /// Waits until the file is read. A fault leaves an empty store that works until the process ends.
    pub fn wait(self, deadline: Instant) -> (IdentityStore, Option<Error>) {
        let Self { mut store, path, answer } = self;
        let unreadable = |cause| Err(Error::Unreadable { file: path.unwrap_or_default(), cause });
        match answer.wait(deadline).unwrap_or_else(unreadable) {
            Ok(identity) => {
                store.identity = identity;
                (store, None)
            }
            Err(error) => (store, Some(error)),
        }
    }
}

impl IdentityStore {
    /// Begins to read what is remembered for `configured` on `console`.
    pub fn open(state_dir: Option<&Path>, console: &str, configured: &InstanceId) -> Opening {
        let path = state_dir.map(|directory| directory.join(FILE_NAME));
        let key = (console.to_owned(), configured.as_str().to_owned());
        let file = StateFile { path: path.clone(), key, entries: None, has_warned: false };
        let (file, writer) = (Arc::new(Mutex::new(file)), Writer::new("state", QUEUE_BYTES_MAX));
        let read = Arc::clone(&file);
        let answer = writer.ask(move || lock(&read).load());
        Opening { store: Self { identity: Identity::default(), waiting: Arc::default(), file, writer }, path, answer }
    }

    /// What is known.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Keeps what is known now, and enqueues it for the file unless nothing changed. Of several that wait the last is
    /// written. A file that cannot be written is one warning in the log.
    pub fn save(&mut self, identity: Identity) {
        if self.identity == identity {
            return;
        }
        self.identity = identity.clone();
        let waits_already = lock(&self.waiting).replace(identity).is_some();
        if waits_already {
            return;
        }
        let (waiting, file) = (Arc::clone(&self.waiting), Arc::clone(&self.file));
        let job = move || {
            let newest = lock(&waiting).take();
            newest.into_iter().for_each(|identity| lock(&file).save(&identity));
        };
        if let Err(refused) = self.writer.push(1, job) {
            lock(&self.waiting).take();
            warn(&refused);
        }
    }

    /// Waits until the newest identity is on the disk; false at the deadline.
    pub fn flush(&self, deadline: Instant) -> bool {
        self.writer.flush(deadline)
    }
}

/// No code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one line that an operator looks for.
pub fn warn(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "state directory not writable; instance id will not survive a restart");
}

/// The file, as the writer's thread knows it.
#[derive(Debug)]
struct StateFile {
    path: Option<PathBuf>,
    /// The console and the configured id that the agent runs with.
    key: (String, String),
    /// What is in the file; none before it was read.
    entries: Option<Vec<Entry>>,
    /// A fault is worth one line.
    has_warned: bool,
}

impl StateFile {
    fn load(&mut self) -> Result<Identity, Error> {
        let read = self.path.as_deref().ok_or(Error::NoDirectory).and_then(read);
        self.has_warned = read.is_err();
        let (entries, error) = match read {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let (console, configured) = &self.key;
        let found = entries.iter().find(|entry| entry.console == *console && entry.configured == *configured);
        let identity = found.map(|entry| Identity { id: entry.id(), path: entry.path }).unwrap_or_default();
        self.entries = Some(entries);
        error.map_or(Ok(identity), Err)
    }

    fn save(&mut self, identity: &Identity) {
        let (console, configured) = self.key.clone();
        let entries = self.entries.get_or_insert_default();
        entries.retain(|entry| entry.console != console || entry.configured != configured);
        entries.drain(..entries.len().saturating_sub(IDENTITIES_MAX - 1));
        let id = identity.id.as_ref().map(|id| id.as_str().to_owned());
        entries.push(Entry { console, configured, id, path: identity.path });
        let Some(file) = self.path.as_deref() else { return };
        let Err(cause) = replace(file, entries) else { return };
        if !std::mem::replace(&mut self.has_warned, true) {
            warn(&Error::Unwritable { file: file.to_owned(), cause });
        }
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
    let content: Content = json::read(&bytes).ok_or_else(damaged)?;
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
        return written;
    }
    // The name is on the disk once its directory is. Some file systems cannot sync one; they keep the order themselves.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
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

        fn open(&self, console: &str, configured: &str) -> (IdentityStore, Option<Error>) {
            open(Some(&self.0), console, configured)
        }

        /// Opens, saves, and waits for the disk.
        fn save(&self, console: &str, configured: &str, identity: Identity) {
            save(&mut self.open(console, configured).0, identity);
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn in_time() -> Instant {
        Instant::now() + std::time::Duration::from_secs(30)
    }

    fn open(state_dir: Option<&Path>, console: &str, configured: &str) -> (IdentityStore, Option<Error>) {
        IdentityStore::open(state_dir, console, &id(configured)).wait(in_time())
    }

    fn save(store: &mut IdentityStore, identity: Identity) {
        store.save(identity);
        assert!(store.flush(in_time()));
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::new(text).expect("an id")
    }

    fn given(text: &str) -> Identity {
        Identity { id: Some(id(text)), path: Some(RegisterPath::Observed) }
    }

    #[test]
    fn saved_identity_is_there_after_a_restart() {
        let directory = Directory::new();
        let (mut store, error) = directory.open("http://c", "web-1");
        assert!(error.is_none() && *store.identity() == Identity::default());
        save(&mut store, given("cmw1"));
        let (mut store, error) = directory.open("http://c", "web-1");
        assert!(error.is_none());
        assert_eq!(*store.identity(), given("cmw1"));
        let forgotten = Identity { id: None, ..given("cmw1") };
        save(&mut store, forgotten.clone());
        assert_eq!(*directory.open("http://c", "web-1").0.identity(), forgotten);
    }

    #[test]
    fn of_several_that_wait_the_last_is_written() {
        let directory = Directory::new();
        let (mut store, _) = directory.open("http://c", "web-1");
        let file = Arc::clone(&store.file);
        let hung = file.lock().expect("no test panics with it");
        for number in 0..1_000 {
            store.save(given(&format!("cmw{number}")));
        }
        drop(hung);
        assert!(store.flush(in_time()));
        assert_eq!(*directory.open("http://c", "web-1").0.identity(), given("cmw999"));
    }

    #[test]
    fn consoles_and_configured_ids_are_kept_apart() {
        let directory = Directory::new();
        directory.save("http://c", "web-1", given("a"));
        directory.save("http://d", "web-1", given("b"));
        directory.save("http://c", "web-2", given("c"));
        for (console, configured, expected) in
            [("http://c", "web-1", "a"), ("http://d", "web-1", "b"), ("http://c", "web-2", "c")]
        {
            assert_eq!(*directory.open(console, configured).0.identity(), given(expected));
        }
        assert_eq!(*directory.open("http://d", "web-2").0.identity(), Identity::default());
    }

    #[test]
    fn oldest_identity_goes_first() {
        let directory = Directory::new();
        for number in 0..=IDENTITIES_MAX {
            directory.save(&format!("http://c{number}"), "web-1", given("a"));
        }
        assert_eq!(*directory.open("http://c0", "web-1").0.identity(), Identity::default());
        assert_eq!(*directory.open("http://c1", "web-1").0.identity(), given("a"));
    }

    #[test]
    fn file_is_private_and_nothing_is_left_beside_it() {
        let directory = Directory::new();
        directory.save("http://c", "web-1", given("a"));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&directory.0), mode(&directory.file())), (0o700, 0o600));
        assert_eq!(fs::read_dir(&directory.0).expect("a directory").count(), 1);
    }

    #[test]
    fn damaged_file_is_an_error_and_is_replaced() {
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
            let (mut store, error) = directory.open("http://c", "web-1");
            assert!(matches!(error, Some(Error::Damaged { .. })), "{content}");
            save(&mut store, given("a"));
            assert_eq!(*directory.open("http://c", "web-1").0.identity(), given("a"));
        }
    }

    #[test]
    fn unwritable_place_is_one_warning_and_the_store_works() {
        let directory = Directory::new();
        fs::write(&directory.0, "a file, not a directory").expect("a file");
        let (mut store, error) = directory.open("http://c", "web-1");
        assert!(matches!(error, Some(Error::Unreadable { .. })), "{error:?}");
        save(&mut store, given("a"));
        assert_eq!(*store.identity(), given("a"));
        fs::remove_file(&directory.0).expect("removed");

        let below_a_file = Path::new("/proc/draupnir");
        let (mut store, error) = open(Some(below_a_file), "http://c", "web-1");
        assert!(error.is_none() && !lock(&store.file).has_warned, "{error:?}");
        save(&mut store, given("a"));
        assert!(lock(&store.file).has_warned);

        let (mut store, error) = open(None, "http://c", "web-1");
        assert!(matches!(error, Some(Error::NoDirectory)));
        save(&mut store, given("a"));
        assert_eq!(*store.identity(), given("a"));
    }

    #[test]
    fn file_that_does_not_answer_leaves_an_empty_store() {
        let directory = Directory::new();
        let opening = IdentityStore::open(Some(&directory.0), "http://c", &id("web-1"));
        let file = Arc::clone(&opening.store.file);
        // The writer's thread waits here, as it does in a read that does not return; or it has read already.
        let hung = file.lock().expect("no test panics with it");
        let has_read = hung.entries.is_some();
        let (store, error) = opening.wait(Instant::now());
        assert!(has_read || error.is_some_and(|error| error.to_string().ends_with("does not answer")));
        assert_eq!(*store.identity(), Identity::default());
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
            let (store, _) = directory.open("http://c", "web-1");
            prop_assert_eq!(store.identity(), &Identity::default());
        }
    }
}
