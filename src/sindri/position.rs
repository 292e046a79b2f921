//! The position in the status ledger up to which the agent has reported, and the file that keeps it across restarts.
//!
//! A position is a moment and the ids of the entries at that moment. It is no offset, because Sindri replaces the
//! ledger by a shorter one. The agent replaces its own file whole, so that a crash leaves the old one or the new one.
//! If the file is missing or damaged, the position is unknown and no earlier entry is reported.

use super::entry::{Entry, moment};
use crate::own_file;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// The file within the state directory.
pub(super) const FILE_NAME: &str = "extensions.json";

/// Longest file that is read, in bytes: more than [`IDS_MAX`] ids of the longest kind.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Most ids that are kept for one moment. Sindri writes nanoseconds, so that there is usually one.
const IDS_MAX: usize = 256;

const VERSION: u32 = 1;

/// All entries up to here were reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    newest: Duration,
    event_ids: Vec<String>,
}

impl Position {
    /// The position at this moment, since 1970: entries written later lie behind it.
    pub fn at(moment: Duration) -> Self {
        Self { newest: moment, event_ids: Vec::new() }
    }

    /// Whether an entry lies behind it.
    pub(super) fn is_before(&self, entry: &Entry) -> bool {
        entry.at > self.newest || (entry.at == self.newest && !self.event_ids.contains(&entry.event_id))
    }

    /// Moves it behind an entry.
    pub(super) fn pass(&mut self, entry: &Entry) {
        if entry.at > self.newest {
            *self = Self::at(entry.at);
        }
        if entry.at == self.newest && !self.event_ids.contains(&entry.event_id) && self.event_ids.len() < IDS_MAX {
            self.event_ids.push(entry.event_id.clone());
        }
    }

    /// What the file holds; `None` if it holds no position.
    pub fn read(file: &Path) -> Option<Self> {
        Self::parse(&own_file::read(file, FILE_BYTES_MAX).ok()?)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let Content { version, timestamp, event_ids } = serde_json::from_slice(bytes).ok()?;
        (version == VERSION && event_ids.len() <= IDS_MAX)
            .then(|| Some(Self { newest: moment(&timestamp)?, event_ids }))
            .flatten()
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        own_file::replace(file, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let timestamp = humantime::format_rfc3339_nanos(UNIX_EPOCH + self.newest).to_string();
        let content = Content { version: VERSION, timestamp, event_ids: self.event_ids.clone() };
        serde_json::to_vec(&content).expect("invariant: texts and numbers encode, and memory is no failing writer")
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    timestamp: String,
    event_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(at_s: u64, event_id: &str) -> Entry {
        let (at, event_id) = (Duration::from_secs(at_s), event_id.to_owned());
        Entry { at, event_id, extension: "x".into(), is_installed: true, change: None }
    }

    #[test]
    fn entries_of_one_moment_differ_by_id() {
        let mut position = Position::at(Duration::from_secs(5));
        position.pass(&entry(5, "a"));
        assert!(!position.is_before(&entry(5, "a")) && position.is_before(&entry(5, "b")));
        position.pass(&entry(7, "c"));
        position.pass(&entry(6, "d"));
        assert!(!position.is_before(&entry(5, "b")) && !position.is_before(&entry(7, "c")));
        assert!(position.is_before(&entry(7, "e")));
    }

    #[test]
    fn a_position_survives_a_restart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("new").join(FILE_NAME);
        assert_eq!(Position::read(&file), None);
        let mut position = Position::at(Duration::new(1_777_636_800, 5));
        position.pass(&entry(1_777_636_801, "a"));
        position.write(&file).expect("written");
        assert_eq!(Position::read(&file), Some(position));
    }

    #[test]
    fn a_damaged_file_is_an_unknown_position() {
        for bad in ["", "{", "[]", r#"{"version":2,"timestamp":"1970-01-01T00:00:01Z","event_ids":[]}"#] {
            assert_eq!(Position::parse(bad.as_bytes()), None, "{bad}");
        }
        let bad_time = r#"{"version":1,"timestamp":"yesterday","event_ids":[]}"#;
        assert_eq!(Position::parse(bad_time.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn written_position_is_read_back(
            seconds in 0_u64..253_402_300_799, nanos in 0_u32..1_000_000_000,
            ids in proptest::collection::vec("[ -~]{1,40}", 0..4),
        ) {
            let position = Position { newest: Duration::new(seconds, nanos), event_ids: ids };
            prop_assert_eq!(Position::parse(&position.encode()), Some(position));
        }
    }
}
