//! Looks at the status ledger without waiting for its file system.
//!
//! The first look, and every read, runs on the pool of `blocking`. Between two reads the agent compares the file's
//! metadata with what it read last. Where the directory lies on a local file system, it does so on its own thread,
//! because a thread of the pool for each heartbeat would cost as many wake-ups as everything else at rest.
//!
//! Invariants: at most one look is under way; only the call that began it waits for it, at most [`LOOK_TIMEOUT`].

use super::entry::Change;
use super::ledger::{LEDGER_BYTES_MAX, Reading, read};
use super::os_release::distro;
use super::place::{FOLDER, LEDGER, Mark, Place, tail};
use super::position::Position;
use crate::protocol::Inventory;
use async_io::Timer;
use blocking::{Task, unblock};
use futures_lite::future::{or, poll_once};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a look is waited for: a disk answers within a few milliseconds.
pub const LOOK_TIMEOUT: Duration = Duration::from_millis(100);

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The instance's software.
    pub inventory: Inventory,
    /// What is new, the oldest first.
    pub changes: Vec<Change>,
    /// The position behind them, if it moved.
    pub position: Option<Position>,
}

/// Watches the ledger of one home directory.
#[derive(Debug)]
pub struct Watch {
    home: Option<PathBuf>,
    distro: Option<String>,
    position: Option<Position>,
    place: Option<Place>,
    looking: Option<Task<Finding>>,
}

/// What one look on the pool found.
#[derive(Debug)]
struct Finding {
    place: Option<Place>,
    /// `None` where nothing changed.
    contents: Option<Contents>,
}

/// What a look read.
#[derive(Debug)]
struct Contents {
    distro: String,
    /// `None` where there is no ledger.
    reading: Option<Reading>,
}

impl Watch {
    /// Touches no file yet. Without a home directory there is no ledger; one that another machine or a program serves
    /// counts as none. Without a position nothing that is there counts as new.
    pub fn new(home: Option<&Path>, position: Option<Position>) -> Self {
        let home = home.filter(|home| !is_served(home)).map(Path::to_path_buf);
        Self { home, distro: None, position, place: None, looking: None }
    }

    /// What is new, if the ledger changed since the last look.
    pub async fn look(&mut self) -> Option<News> {
        let finding = if let Some(looking) = &mut self.looking {
            poll_once(looking).await?
        } else {
            if self.distro.is_some() && !self.may_be_changed() {
                return None;
            }
            let (home, since) = (self.home.clone(), self.position.clone());
            let seen = self.place.as_ref().map(Place::seen);
            let look = move || Finding::make(home.as_deref(), since.as_ref(), seen);
            let looking = self.looking.insert(unblock(look));
            within(LOOK_TIMEOUT, looking).await?
        };
        self.looking = None;
        self.take(finding)
    }

    fn take(&mut self, finding: Finding) -> Option<News> {
        self.place = finding.place;
        let Contents { distro, reading } = finding.contents?;
        let (extensions, changes, position) = match reading {
            Some(Reading { installed, changes, position }) => {
                let moved = self.position.as_ref() != Some(&position);
                self.position = Some(position.clone());
                (Some(installed), changes, moved.then_some(position))
            }
            None => {
                // What is written from now on is new.
                self.position.get_or_insert_with(|| Position::at(now()));
                (None, Vec::new(), None)
            }
        };
        let inventory = Inventory::new(Some(&distro), extensions);
        self.distro = Some(distro);
        Some(News { inventory, changes, position })
    }

    /// Whether a look may find something. A file system that may hang is asked on the pool alone.
    fn may_be_changed(&self) -> bool {
        self.home.is_some() && self.place.as_ref().is_none_or(|place| !place.is_local || place.is_changed())
    }
}

impl Finding {
    fn make(home: Option<&Path>, since: Option<&Position>, seen: Option<(&'static str, Option<Mark>)>) -> Self {
        let place = home.and_then(Place::open);
        if seen.is_some() && place.as_ref().map(Place::seen) == seen {
            return Self { place, contents: None };
        }
        let text = home.and_then(|home| tail(&home.join(FOLDER).join(LEDGER), LEDGER_BYTES_MAX).ok());
        let reading = text.map(|text| read(&text, since, now()));
        Self { place, contents: Some(Contents { distro: distro(Path::new("/")), reading }) }
    }
}

/// Whether a file system that may never answer holds this directory.
fn is_served(directory: &Path) -> bool {
    let is_served = crate::metrics::is_path_served(directory);
    if is_served {
        tracing::info!(directory = %directory.display(), "not watched for extensions: another machine or a program serves it");
    }
    is_served
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
            Watch::new(Some(self.0.path()), None)
        }

        fn ledger(&self) -> PathBuf {
            self.0.path().join(FOLDER).join(LEDGER)
        }

        fn write(&self, text: &str) {
            fs::create_dir_all(self.0.path().join(FOLDER)).expect("a directory");
            fs::write(self.ledger(), text).expect("written");
        }
    }

    /// Looks until the look is done, however busy the machine is.
    fn look(watch: &mut Watch) -> Option<News> {
        block_on(async {
            let mut news = watch.look().await;
            while news.is_none() && watch.looking.is_some() {
                news = watch.look().await;
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
        // A file system that may hang is looked at on the pool, and read after a change alone, too.
        watch.place.as_mut().expect("it can be opened").is_local = false;
        assert_eq!(look(&mut watch), None, "nothing changed");
    }

    #[test]
    fn each_new_entry_is_reported_once_across_restarts() {
        let instance = Instance::new();
        instance.write(&entry(1, "python"));
        let mut watch = instance.watch();
        let first = look(&mut watch).expect("a first look");
        instance.write(&(entry(1, "python") + &entry(2, "node")));
        let second = look(&mut watch);
        assert_eq!(names(&second), ["node"]);
        let again = |position| look(&mut Watch::new(Some(instance.0.path()), position));
        assert_eq!(names(&again(first.position)), ["node"], "the process died before it was recorded");
        let position = second.and_then(|news| news.position);
        assert_eq!(names(&again(position.clone())), Vec::<&str>::new(), "after a restart");
        assert_eq!(names(&again(None)), Vec::<&str>::new(), "nothing is remembered");
        instance.write(&(entry(2, "node") + &entry(3, "go")));
        assert_eq!(names(&again(position)), ["go"], "written while no agent ran, in a shorter file");
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
