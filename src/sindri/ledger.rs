//! What the text of the status ledger says: which extensions are installed, and what changed since a position.
//!
//! Pure: text and position in, state and changes out. It works on whole lines, so that a line which Sindri is writing
//! at this moment is read at the next look.

use super::entry::{Change, Entry};
use super::position::Position;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most that is read of the ledger, in bytes, from its end. Sindri drops entries after 90 days, and one has some
/// 400 bytes: this is 50 a day.
pub const LEDGER_BYTES_MAX: usize = 2 << 20;

/// Most changes that one look yields, the newest: a profile of 60 extensions is installed between two heartbeats, and
/// what the agent missed while it did not run must not fill the queue of reliable messages.
pub(super) const CHANGES_MAX: usize = 128;

/// What the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The names of what is installed.
    pub(super) installed: Vec<String>,
    /// What is new since the position, the oldest first.
    pub(super) changes: Vec<Change>,
    /// The position behind everything that was read.
    pub(super) position: Position,
}

/// Reads a text. Without a position nothing counts as new; in an empty ledger the next position is `now`, so that what
/// was written long ago and comes into sight later (a volume that is mounted) is not new.
pub(super) fn read(text: &[u8], since: Option<&Position>, now: Duration) -> Reading {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
    let mut newest: BTreeMap<String, (Duration, bool)> = BTreeMap::new();
    let (mut changes, mut position) = (Vec::<Change>::new(), since.cloned());
    for entry in lines.filter_map(Entry::parse) {
        position.get_or_insert_with(|| Position::at(entry.at)).pass(&entry);
        let is_new = since.is_some_and(|since| since.is_before(&entry));
        let Entry { at, extension, is_installed, change, .. } = entry;
        let known = newest.entry(extension).or_insert((at, is_installed));
        if at >= known.0 {
            *known = (at, is_installed);
        }
        if let Some(change) = change.filter(|_| is_new)
            && !changes.iter().any(|other| other.event_id == change.event_id)
        {
            changes.push(change);
        }
    }
    changes.sort_by_key(|change| change.at);
    changes.drain(..changes.len().saturating_sub(CHANGES_MAX));
    let installed = newest.into_iter().filter_map(|(name, (_, is_installed))| is_installed.then_some(name)).collect();
    Reading { installed, changes, position: position.unwrap_or_else(|| Position::at(now)) }
}

#[cfg(test)]
mod tests {
    use super::super::entry::ChangeKind;
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn line(id: u64, at_s: u64, name: &str, event: &str, state: &str) -> String {
        let at = humantime::format_rfc3339_nanos(std::time::UNIX_EPOCH + Duration::from_secs(at_s));
        format!(
            "{{\"event_id\":\"e{id}\",\"timestamp\":\"{at}\",\"extension_name\":\"{name}\",\"cli_version\":\"3.1.0\",\
             \"state_before\":null,\"state_after\":\"{state}\",\"event\":{{\"type\":\"{event}\",\"version\":\"1.0.0\"}}}}\n"
        )
    }

    fn installed(id: u64, at_s: u64, name: &str) -> String {
        line(id, at_s, name, "install_completed", "installed")
    }

    fn ids(reading: &Reading) -> Vec<&str> {
        reading.changes.iter().map(|change| change.event_id.as_str()).collect()
    }

    #[test]
    fn an_unknown_position_reports_nothing() {
        let text = installed(1, 10, "python") + &installed(2, 20, "node");
        let reading = read(text.as_bytes(), None, NOW);
        assert_eq!((reading.installed.as_slice(), ids(&reading)), (&["node".into(), "python".into()][..], vec![]));
        let again = read(text.as_bytes(), Some(&reading.position), NOW);
        assert_eq!((ids(&again), &again.position), (vec![], &reading.position));
    }

    #[test]
    fn entries_after_the_position_are_reported_once() {
        let first = read(installed(1, 10, "python").as_bytes(), None, NOW);
        let text = installed(1, 10, "python")
            + &line(2, 20, "python", "remove_started", "removing")
            + &line(3, 21, "python", "remove_completed", "removed")
            + &line(4, 21, "node", "install_failed", "failed");
        let second = read(text.as_bytes(), Some(&first.position), NOW);
        assert_eq!(ids(&second), ["e3", "e4"]);
        let kinds: Vec<_> = second.changes.iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [ChangeKind::Removed, ChangeKind::Failed("installation")]);
        assert!(second.installed.is_empty());
        let text = text + &installed(5, 21, "go");
        assert_eq!(ids(&read(text.as_bytes(), Some(&second.position), NOW)), ["e5"], "at the moment of the position");
    }

    #[test]
    fn a_compacted_file_repeats_nothing() {
        let long = installed(1, 10, "python") + &installed(2, 20, "python") + &installed(3, 30, "node");
        let position = read(long.as_bytes(), None, NOW).position;
        let short = installed(2, 20, "python") + &installed(3, 30, "node") + &installed(4, 40, "go");
        let reading = read(short.as_bytes(), Some(&position), NOW);
        assert_eq!(ids(&reading), ["e4"]);
        assert_eq!(reading.installed, ["go", "node", "python"]);
    }

    #[test]
    fn half_a_line_is_read_when_it_is_whole() {
        let (first, second) = (installed(1, 10, "python"), installed(2, 20, "node"));
        let position = read(first.as_bytes(), None, NOW).position;
        for end in 0..second.len() {
            let text = first.clone() + second.get(..end).expect("ASCII");
            let reading = read(text.as_bytes(), Some(&position), NOW);
            assert_eq!((ids(&reading), &reading.position), (vec![], &position), "{text}");
        }
        assert_eq!(ids(&read((first + &second).as_bytes(), Some(&position), NOW)), ["e2"]);
    }

    #[test]
    fn an_empty_ledger_makes_later_entries_new() {
        let position = read(b"", None, NOW).position;
        let text = installed(1, 10, "python") + &installed(2, 2_000, "node");
        assert_eq!(ids(&read(text.as_bytes(), Some(&position), NOW)), ["e2"], "the other was written before");
    }

    #[test]
    fn newest_event_of_a_name_counts_in_any_order() {
        let text = line(2, 20, "python", "remove_completed", "removed") + &installed(1, 10, "python");
        assert!(read(text.as_bytes(), None, NOW).installed.is_empty());
        let text = installed(1, 10, "python") + &line(2, 20, "python", "outdated_detected", "outdated");
        assert_eq!(read(text.as_bytes(), None, NOW).installed, ["python"]);
    }

    #[test]
    fn unknown_types_and_damaged_lines_stop_nothing() {
        let first = read(installed(1, 10, "python").as_bytes(), None, NOW);
        let text = "no JSON\n\n{}\n".to_owned()
            + &line(2, 20, "node", "of_a_later_version", "installed")
            + &installed(3, 30, "go");
        let reading = read(text.as_bytes(), Some(&first.position), NOW);
        assert_eq!((ids(&reading), reading.installed.as_slice()), (vec!["e3"], &["go".into(), "node".into()][..]));
    }

    #[test]
    fn a_flood_of_changes_yields_the_newest() {
        let text: String = (0..CHANGES_MAX as u64 + 5).map(|number| installed(number, number + 1, "python")).collect();
        let reading = read(text.as_bytes(), Some(&Position::at(Duration::ZERO)), NOW);
        assert_eq!((reading.changes.len(), ids(&reading).first().copied()), (CHANGES_MAX, Some("e5")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let reading = read(&text, Some(&Position::at(Duration::ZERO)), NOW);
            prop_assert!(reading.changes.len() <= CHANGES_MAX);
        }

        #[test]
        fn a_growing_file_reports_every_change_once(times in proptest::collection::vec(1_u64..6, 1..12)) {
            // Time never goes back in a ledger; several entries may share a moment.
            let mut sorted = times;
            sorted.sort_unstable();
            let (mut text, mut reported) = (String::new(), Vec::new());
            let mut position = Position::at(Duration::ZERO);
            for (number, at_s) in sorted.iter().enumerate() {
                text += &installed(number as u64, *at_s, "python");
                let reading = read(text.as_bytes(), Some(&position), NOW);
                reported.extend(reading.changes.into_iter().map(|change| change.event_id));
                position = reading.position;
            }
            let expected: Vec<String> = (0..sorted.len()).map(|number| format!("e{number}")).collect();
            prop_assert_eq!(reported, expected);
        }
    }
}
