//! Looks at the status ledger without waiting for its file system.
//!
//! The first look, and every read, runs on the pool of `blocking`. Between two reads the agent compares the file's metadata
//! with what it read last. Where the directory lies on a local file system, it does so on its own thread, because a thread of
//! the pool for each heartbeat would cost as many wake-ups as everything else at rest.
//!
//! Invariants: at most one look and one write are under way; each is waited for at most [`LOOK_TIMEOUT`], a look only by the
//! call that began it.

use super::entry::Change;
use super::ledger::{LEDGER_BYTES_MAX, Reading, read};
use super::os_release::distro;
use super::position::{FILE_NAME, Position};
use crate::protocol::Inventory;
use async_io::Timer;
use blocking::{Task, unblock};
use futures_lite::future::{or, poll_once};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a look is waited for: a disk answers within a few milliseconds.
pub const LOOK_TIMEOUT: Duration = Duration::from_millis(100);

/// Where Sindri keeps its state, below the home directory.
const FOLDER: &str = ".sindri";
const LEDGER: &str = "status_ledger.jsonl";

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The instance's software.
    pub inventory: Inventory,
    /// What is new, the oldest first.
    pub changes: Vec<Change>,
}

/// Watches the ledger of one home directory.
#[derive(Debug)]
pub struct Watch {
    home: Option<PathBuf>,
    /// Where the position is kept.
    file: Option<PathBuf>,
    distro: Option<String>,
    position: Option<Position>,
    /// What the file held last.
    kept: Option<Position>,
    base: Option<Base>,
    seen: Option<Mark>,
    looking: Option<Task<Finding>>,
    writing: Option<Task<io::Result<()>>>,
}

/// What one look on the pool found.
#[derive(Debug)]
struct Finding {
    distro: String,
    base: Option<Base>,
    seen: Option<Mark>,
    /// `None` where there is no ledger.
    reading: Option<Reading>,
    /// What the file of the position held, for the first look.
    kept: Option<Position>,
}

/// The file as it was: another one of these means other contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// A directory that is kept, and the name below it whose appearance or change is worth a look.
#[derive(Debug)]
struct Base {
    directory: OwnedFd,
    name: &'static str,
}

impl Watch {
    /// Touches nothing yet. Without a home directory there is no ledger, without a state directory no memory across restarts.
    pub fn new(home: Option<&Path>, state_dir: Option<&Path>) -> Self {
        Self {
            home: home.map(Path::to_path_buf),
            file: state_dir.map(|directory| directory.join(FILE_NAME)),
            distro: None,
            position: None,
            kept: None,
            base: None,
            seen: None,
            looking: None,
            writing: None,
        }
    }

    /// What is new, if the ledger changed since the last look.
    pub async fn look(&mut self) -> Option<News> {
        let finding = if let Some(looking) = &mut self.looking {
            poll_once(looking).await?
        } else {
            if self.distro.is_some() && !self.is_changed() {
                return None;
            }
            let (home, file, since) = (self.home.clone(), self.file.clone(), self.position.clone());
            let looking = self.looking.insert(unblock(move || Finding::make(home.as_deref(), file.as_deref(), since)));
            within(LOOK_TIMEOUT, looking).await?
        };
        self.looking = None;
        Some(self.take(finding))
    }

    /// Keeps the position on disk, if it moved: before the changes are reported, so that none is reported twice. A state directory that
    /// hangs is waited for no longer than a look.
    pub async fn keep(&mut self) {
        if self.writing.is_none()
            && self.kept != self.position
            && let (Some(file), Some(position)) = (self.file.clone(), self.position.clone())
        {
            self.kept = Some(position.clone());
            self.writing = Some(unblock(move || position.write(&file)));
        }
        let Some(writing) = &mut self.writing else { return };
        if let Some(written) = within(LOOK_TIMEOUT, writing).await {
            self.writing = None;
            if let Err(error) = written {
                tracing::debug!(%error, "position in the status ledger not written");
            }
        }
    }

    fn take(&mut self, finding: Finding) -> News {
        let Finding { distro, base, seen, reading, kept } = finding;
        (self.base, self.seen) = (base, seen);
        if self.position.is_none() {
            (self.position, self.kept) = (kept.clone(), kept);
        }
        let (extensions, changes) = match reading {
            Some(Reading { installed, changes, position }) => {
                self.position = Some(position);
                (Some(installed), changes)
            }
            None => {
                // What is written from now on is new.
                self.position.get_or_insert_with(|| Position::at(now()));
                self.kept = self.position.clone();
                (None, Vec::new())
            }
        };
        let inventory = Inventory::new(Some(&distro), extensions);
        self.distro = Some(distro);
        News { inventory, changes }
    }

    /// Whether there is something to read. A file system that may hang is asked on the pool alone.
    fn is_changed(&self) -> bool {
        self.home.is_some() && self.base.as_ref().is_none_or(|base| base.is_changed(self.seen))
    }
}

impl Finding {
    fn make(home: Option<&Path>, file: Option<&Path>, since: Option<Position>) -> Self {
        let distro = distro(Path::new("/"));
        let Some(home) = home else { return Self { distro, base: None, seen: None, reading: None, kept: None } };
        let base = Base::open(home);
        let kept = file.filter(|_| since.is_none()).and_then(Position::read);
        let since = since.or_else(|| kept.clone());
        let opened = open(&home.join(FOLDER).join(LEDGER));
        let (seen, text) = opened.map_or((None, None), |(file, mark)| (Some(mark), tail(file, mark.length).ok()));
        let reading = text.map(|text| read(&text, since.as_ref(), now()));
        Self { distro, base, seen, reading, kept }
    }
}

/// Opens the ledger, if it is a regular file: never through a link, and never waiting for the other end of a FIFO.
fn open(path: &Path) -> Option<(File, Mark)> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let modified = (found.mtime(), found.mtime_nsec());
    Some((file, Mark { device: found.dev(), inode: found.ino(), length: found.len(), modified }))
}

/// The end of a file, from the beginning of a line on.
fn tail(mut file: File, length: u64) -> io::Result<Vec<u8>> {
    let skipped = length.saturating_sub(LEDGER_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(skipped))?;
    let mut text = Vec::new();
    file.take(LEDGER_BYTES_MAX as u64).read_to_end(&mut text)?;
    if skipped > 0 {
        let first = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..first);
    }
    Ok(text)
}

impl Base {
    /// Opens Sindri's directory, or the home directory while there is none; `None` where it may hang or cannot be opened.
    fn open(home: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty()).ok();
        let (directory, name) =
            open(&home.join(FOLDER)).map(|inner| (inner, LEDGER)).or_else(|| Some((open(home)?, FOLDER)))?;
        is_local(&directory).then_some(Self { directory, name })
    }

    fn is_changed(&self, seen: Option<Mark>) -> bool {
        match rustix::fs::statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            // The home directory alone was there: now there is more.
            Ok(found) => self.name == FOLDER || Some(Mark::of(&found)) != seen,
            // A directory that was removed holds nothing for ever, while one of the same name may be there again.
            Err(_) => seen.is_some() || rustix::fs::fstat(&self.directory).is_ok_and(|found| found.st_nlink == 0),
        }
    }
}

impl Mark {
    #[allow(clippy::useless_conversion, clippy::cast_possible_wrap, clippy::unnecessary_cast, clippy::cast_sign_loss)]
    // the kernels' types differ in width and sign, and no value in use differs in them
    fn of(found: &Stat) -> Self {
        let modified = (found.st_mtime as i64, found.st_mtime_nsec as i64);
        Self { device: found.st_dev as u64, inode: found.st_ino, length: found.st_size as u64, modified }
    }
}

/// Whether the kernel itself answers for this file system, from a device or from memory: then a look costs no waiting.
#[cfg(target_os = "linux")]
fn is_local(directory: &OwnedFd) -> bool {
    /// `statfs(2)`: ext2–4, XFS, Btrfs, overlay, tmpfs, ZFS, F2FS.
    const LOCAL: &[u64] = &[0xEF53, 0x5846_5342, 0x9123_683E, 0x794C_7630, 0x0102_1994, 0x2FC1_2FC1, 0xF2F5_2010];
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // the type differs by architecture
    rustix::fs::fstatfs(directory).is_ok_and(|found| LOCAL.contains(&(found.f_type as u64 & 0xFFFF_FFFF)))
}

/// Elsewhere every look goes to the pool.
#[cfg(not(target_os = "linux"))]
fn is_local(_directory: &OwnedFd) -> bool {
    false
}

/// What a task yields within this time.
async fn within<T>(time: Duration, task: &mut Task<T>) -> Option<T> {
    let timeout = async {
        Timer::after(time).await;
        None
    };
    or(async { Some(task.await) }, timeout).await
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use serde_json::{Value, json};
    use std::fs;

    const ENTRY: &str = r#"{"event_id":"ID","timestamp":"2026-05-01T12:00:00Z","extension_name":"NAME","cli_version":"3.1.0","state_before":null,"state_after":"installed","event":{"type":"install_completed","version":"1.0.0"}}"#;

    /// An entry of a minute that grows with the number.
    fn entry(number: u32, name: &str) -> String {
        let time = format!("12:{number:02}:00");
        ENTRY.replace("ID", &format!("e{number}")).replace("NAME", name).replace("12:00:00", &time) + "\n"
    }

    struct Instance(tempfile::TempDir);

    impl Instance {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary directory"))
        }

        fn watch(&self) -> Watch {
            Watch::new(Some(self.0.path()), Some(&self.0.path().join("state")))
        }

        fn ledger(&self) -> PathBuf {
            self.0.path().join(FOLDER).join(LEDGER)
        }

        fn write(&self, text: &str) {
            fs::create_dir_all(self.0.path().join(FOLDER)).expect("a directory");
            fs::write(self.ledger(), text).expect("written");
        }
    }

    /// Looks until the look is done, however busy the machine is; then keeps the position until it is written.
    fn look(watch: &mut Watch) -> Option<News> {
        block_on(async {
            let mut news = watch.look().await;
            while news.is_none() && watch.looking.is_some() {
                news = watch.look().await;
            }
            watch.keep().await;
            if let Some(writing) = watch.writing.take() {
                writing.await.expect("written");
            }
            news
        })
    }

    fn extensions(news: &News) -> Value {
        serde_json::to_value(&news.inventory).expect("it encodes")["extensions"].clone()
    }

    fn names(news: &Option<News>) -> Vec<&str> {
        news.iter().flat_map(|news| &news.changes).map(|change| change.extension.as_str()).collect()
    }

    #[test]
    fn first_look_names_extensions_and_reports_no_change() {
        let instance = Instance::new();
        instance.write(&(entry(1, "python") + &entry(2, "node")));
        let mut watch = instance.watch();
        let news = look(&mut watch).expect("a first look");
        assert_eq!((extensions(&news), news.changes.len()), (json!(["node", "python"]), 0));
        assert_eq!(look(&mut watch), None, "nothing changed");
    }

    #[test]
    fn each_new_entry_is_reported_once_across_restarts() {
        let instance = Instance::new();
        instance.write(&entry(1, "python"));
        let mut watch = instance.watch();
        look(&mut watch);
        instance.write(&(entry(1, "python") + &entry(2, "node")));
        assert_eq!(names(&look(&mut watch)), ["node"]);
        assert_eq!(names(&look(&mut instance.watch())), Vec::<&str>::new(), "after a restart");
        instance.write(&(entry(2, "node") + &entry(3, "go")));
        assert_eq!(names(&look(&mut instance.watch())), ["go"], "written while no agent ran, in a shorter file");
    }

    #[test]
    fn a_damaged_position_reports_nothing() {
        let instance = Instance::new();
        instance.write(&entry(1, "python"));
        look(&mut instance.watch());
        fs::write(instance.0.path().join("state").join(FILE_NAME), "{").expect("written");
        instance.write(&(entry(1, "python") + &entry(2, "node")));
        assert_eq!(names(&look(&mut instance.watch())), Vec::<&str>::new());
    }

    #[test]
    fn a_ledger_may_come_and_go() {
        let instance = Instance::new();
        let mut watch = instance.watch();
        let news = look(&mut watch).expect("a first look");
        assert_eq!((extensions(&news), look(&mut watch)), (Value::Null, None));
        instance.write(&entry(1, "python"));
        let news = look(&mut watch);
        assert_eq!(names(&news), Vec::<&str>::new(), "it was written before the agent started");
        assert_eq!(extensions(&news.expect("a change")), json!(["python"]));
        fs::remove_dir_all(instance.0.path().join(FOLDER)).expect("removed");
        assert_eq!(extensions(&look(&mut watch).expect("a change")), Value::Null);
        assert_eq!(look(&mut watch), None);
        let later = entry(2, "node").replace("2026-05", "2999-05");
        instance.write(&later);
        assert_eq!(names(&look(&mut watch)), ["node"]);
    }

    #[test]
    fn a_replaced_file_is_read_again() {
        let instance = Instance::new();
        instance.write(&entry(1, "python"));
        let mut watch = instance.watch();
        look(&mut watch);
        let other = instance.0.path().join("other");
        fs::write(&other, entry(2, "nodejs")).expect("written"); // as long as the old one
        fs::rename(other, instance.ledger()).expect("renamed");
        let news = look(&mut watch);
        assert_eq!((names(&news), extensions(&news.clone().expect("a change"))), (vec!["nodejs"], json!(["nodejs"])));
    }

    #[test]
    fn only_a_regular_file_is_read_and_only_its_end() {
        let instance = Instance::new();
        instance.write("");
        fs::remove_file(instance.ledger()).expect("removed");
        let fifo = std::process::Command::new("mkfifo").arg(instance.ledger()).status().expect("mkfifo");
        assert!(fifo.success());
        assert_eq!(extensions(&look(&mut instance.watch()).expect("it does not wait")), Value::Null);
        fs::remove_file(instance.ledger()).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", instance.ledger()).expect("a link");
        assert_eq!(extensions(&look(&mut instance.watch()).expect("it does not follow")), Value::Null);
        fs::remove_file(instance.ledger()).expect("removed");
        let long = entry(1, "gone") + &"x".repeat(LEDGER_BYTES_MAX) + "\n" + &entry(2, "python");
        instance.write(&long);
        assert_eq!(extensions(&look(&mut instance.watch()).expect("a first look")), json!(["python"]));
    }

    #[test]
    fn without_a_home_directory_the_distribution_is_known() {
        let mut watch = Watch::new(None, None);
        let news = look(&mut watch).expect("a first look");
        let value = serde_json::to_value(&news.inventory).expect("it encodes");
        assert!(value["distro"].is_string() && value.get("extensions").is_none(), "{value}");
        assert_eq!(look(&mut watch), None);
    }
}
