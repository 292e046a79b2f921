//! Reads one line of the status ledger.
//!
//! Invariant: any bytes are accepted; a line that is not an entry is `None`. A type that is not known changes what is
//! installed, and causes no event.

use crate::json;
use serde_json::Value;
use std::time::Duration;

/// Longest id of an entry, in bytes; Sindri writes UUIDs.
const EVENT_ID_BYTES_MAX: usize = 128;

/// One entry, as far as the agent needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// When Sindri wrote it, since 1970.
    pub(super) at: Duration,
    pub(super) event_id: String,
    pub(super) extension: String,
    /// Whether the extension is installed after it.
    pub(super) is_installed: bool,
    /// What to report to the console.
    pub(super) change: Option<Change>,
}

/// What Sindri did to an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub kind: ChangeKind,
    /// When, since 1970.
    pub at: Duration,
    /// The ledger's own id of it: the same for every agent that reads the ledger.
    pub event_id: String,
    /// The extension.
    pub extension: String,
    /// Its version afterwards; before its removal for [`ChangeKind::Removed`].
    pub version: Option<String>,
    /// Its version before an upgrade.
    pub from_version: Option<String>,
    /// How long it took, in seconds.
    pub duration_s: Option<u64>,
    /// The version of Sindri's command line that did it.
    pub cli_version: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The kinds of change that are reported to the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was installed.
    Installed,
    /// It was replaced by another version.
    Upgraded,
    /// It was removed.
    Removed,
    /// This failed: the installation, the upgrade, the removal, the validation.
    Failed(&'static str),
}

impl Entry {
    /// Reads one line.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Value = json::read(line)?;
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let at = moment(line.get("timestamp")?.as_str()?)?;
        let event_id = text(&line, "event_id").filter(|id| (1..=EVENT_ID_BYTES_MAX).contains(&id.len()))?;
        let extension = text(&line, "extension_name").filter(|name| !name.is_empty())?;
        let is_installed = matches!(line.get("state_after")?.as_str()?, "installed" | "outdated");
        let event = line.get("event")?;
        let change = event.get("type").and_then(Value::as_str).and_then(kind).map(|kind| Change {
            kind,
            at,
            event_id: event_id.clone(),
            extension: extension.clone(),
            version: text(event, "version").or_else(|| text(event, "to_version")),
            from_version: text(event, "from_version"),
            duration_s: event.get("duration_secs").and_then(Value::as_u64),
            cli_version: text(&line, "cli_version"),
            error: text(event, "error_message"),
        });
        Some(Self { at, event_id, extension, is_installed, change })
    }
}

fn kind(event_type: &str) -> Option<ChangeKind> {
    match event_type {
        "install_completed" => Some(ChangeKind::Installed),
        "upgrade_completed" => Some(ChangeKind::Upgraded),
        "remove_completed" => Some(ChangeKind::Removed),
        "install_failed" => Some(ChangeKind::Failed("installation")),
        "upgrade_failed" => Some(ChangeKind::Failed("upgrade")),
        "remove_failed" => Some(ChangeKind::Failed("removal")),
        "validation_failed" => Some(ChangeKind::Failed("validation")),
        // Started, outdated, validated, and what later versions of Sindri write.
        _ => None,
    }
}

/// RFC 3339 in UTC, with up to nine digits of a fraction; UTC may be written as `Z` or `+00:00`.
pub(super) fn moment(text: &str) -> Option<Duration> {
    let utc = text.strip_suffix("+00:00").map(|local| format!("{local}Z"));
    let time = humantime::parse_rfc3339(utc.as_deref().unwrap_or(text)).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UPGRADE: &str = r#"{"event_id":"e1","timestamp":"2026-05-01T12:00:00.5Z","extension_name":"python","cli_version":"3.1.0",
        "state_before":"outdated","state_after":"installed","event":{"type":"upgrade_completed","extension_name":"python",
        "from_version":"1.0.0","to_version":"1.1.0","duration_secs":12,"log_file":"/x"}}"#;

    #[test]
    fn an_upgrade_has_both_versions() {
        let entry = Entry::parse(UPGRADE.as_bytes()).expect("an entry");
        assert!(entry.is_installed);
        let change = entry.change.expect("a change");
        assert_eq!(change.kind, ChangeKind::Upgraded);
        assert_eq!((change.from_version.as_deref(), change.version.as_deref()), (Some("1.0.0"), Some("1.1.0")));
        assert_eq!((change.duration_s, change.cli_version.as_deref()), (Some(12), Some("3.1.0")));
        assert_eq!(change.at, Duration::from_millis(1_777_636_800_500));
    }

    #[test]
    fn every_type_of_the_ledger_is_known() {
        use ChangeKind::{Failed, Installed, Removed, Upgraded};
        for (event_type, expected) in [
            ("install_started", None),
            ("install_completed", Some(Installed)),
            ("install_failed", Some(Failed("installation"))),
            ("upgrade_started", None),
            ("upgrade_completed", Some(Upgraded)),
            ("upgrade_failed", Some(Failed("upgrade"))),
            ("remove_started", None),
            ("remove_completed", Some(Removed)),
            ("remove_failed", Some(Failed("removal"))),
            ("outdated_detected", None),
            ("validation_succeeded", None),
            ("validation_failed", Some(Failed("validation"))),
            ("of_a_later_version", None),
        ] {
            let line = UPGRADE.replace("upgrade_completed", event_type);
            let entry = Entry::parse(line.as_bytes()).expect("an entry of any type");
            assert_eq!(entry.change.map(|change| change.kind), expected, "{event_type}");
        }
    }

    #[test]
    fn outdated_counts_as_installed_and_nothing_else_does() {
        for (state, expected) in [
            ("installed", true),
            ("outdated", true),
            ("failed", false),
            ("installing", false),
            ("removing", false),
            ("removed", false),
            ("of_a_later_version", false),
        ] {
            let line = UPGRADE.replace(r#""state_after":"installed""#, &format!(r#""state_after":"{state}""#));
            assert_eq!(Entry::parse(line.as_bytes()).map(|entry| entry.is_installed), Some(expected), "{state}");
        }
    }

    #[test]
    fn lines_without_an_entry_are_skipped() {
        let half = UPGRADE.get(..UPGRADE.len() / 2).expect("ASCII");
        for line in ["", "null", "[]", "{}", half, &UPGRADE.replace("2026", "none"), &UPGRADE.replace("e1", "")] {
            assert_eq!(Entry::parse(line.as_bytes()), None, "{line}");
        }
        let odd = UPGRADE.replace("12,", "\"soon\",").replace("\"3.1.0\"", "null");
        let change = Entry::parse(odd.as_bytes()).and_then(|entry| entry.change).expect("an entry all the same");
        assert_eq!((change.duration_s, change.cli_version), (None, None));
    }

    #[test]
    fn utc_is_written_in_two_ways() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Some(Duration::from_secs(1)));
        assert_eq!(moment("1970-01-01T00:00:01.000000001+00:00"), Some(Duration::new(1, 1)));
        for bad in ["", "1970-01-01", "1970-01-01T00:00:01+02:00", "1969-12-31T23:59:59Z"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(line in proptest::collection::vec(any::<u8>(), 0..200), time in "[0-9T:.Z+-]{0,40}") {
            let _ = (Entry::parse(&line), moment(&time));
        }
    }
}
