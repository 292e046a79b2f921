//! The position in the status ledger up to which the agent has reported. The journal keeps it across restarts.
//!
//! A position is a moment and the ids of the entries at that moment. It is no offset, because Sindri replaces the
//! ledger by a shorter one. Without a journal the position is unknown at the start, and no earlier entry is reported.

use super::entry::{Entry, moment};
use crate::json;
use serde::{Deserialize, Serialize};
use std::time::{Duration, UNIX_EPOCH};

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

    /// Reads a text; `None` if it is no position.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let Content { version, timestamp, event_ids } = json::read(bytes)?;
        (version == VERSION && event_ids.len() <= IDS_MAX)
            .then(|| Some(Self { newest: moment(&timestamp)?, event_ids }))
            .flatten()
    }

    /// Its text, at most 64 KiB.
    pub fn encode(&self) -> String {
        let timestamp = humantime::format_rfc3339_nanos(UNIX_EPOCH + self.newest).to_string();
        let content = Content { version: VERSION, timestamp, event_ids: self.event_ids.clone() };
        serde_json::to_string(&content).expect("invariant: texts and numbers encode, and memory is no failing writer")
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
    fn a_damaged_text_is_no_position() {
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
            prop_assert_eq!(Position::parse(position.encode().as_bytes()), Some(position));
        }
    }
}
