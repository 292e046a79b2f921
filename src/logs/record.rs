//! Turns a record into a line of the wire: its text, time, level, source and metadata.
//!
//! Bounds: the text has [`RECORD_BYTES_MAX`] bytes at most, and the fields of a JSON line [`FIELDS_BYTES_MAX`].

use super::level::Level;
use super::splitter::{RECORD_BYTES_MAX, Record};
use super::time::{self, Zone};
use crate::protocol::{Count, LogLine, LogMetadata, LogSource};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The most that the fields of a JSON line may take in the metadata, in bytes: the line holds all of them.
pub const FIELDS_BYTES_MAX: usize = 4 << 10;

/// The name of this agent's own log, as Sindri starts it.
const OWN_LOG: &str = "draupnir.log";

/// What stands at the end of a text that was cut.
const CUT_MARK: char = '…';

/// The fields of a JSON line that say when it was written, the preferred one first.
const TIME_FIELDS: [&str; 3] = ["timestamp", "time", "ts"];

/// The fields that say its level.
const LEVEL_FIELDS: [&str; 3] = ["level", "severity", "lvl"];

/// Where lines are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The path as the console knows it.
    pub path: Box<str>,
    /// What writes it.
    pub source: LogSource,
}

impl Origin {
    /// A file below `~/.sindri/logs`, by its path there.
    pub fn below_logs(path: &str) -> Self {
        let source = match path.split_once('/') {
            Some((name, _)) => LogSource::Extension(name.into()),
            None if path == OWN_LOG => LogSource::Agent,
            None if path == "install.log" => LogSource::Build,
            None => LogSource::App,
        };
        Self { path: path.into(), source }
    }

    /// A file that the operator's configuration names, by its absolute path.
    pub fn configured(path: &str) -> Self {
        /// Files of the system's loggers.
        const OF_SYSTEM: [&str; 6] = ["syslog", "messages", "auth.log", "kern.log", "daemon.log", "secure"];
        let name = path.rsplit('/').next().unwrap_or(path);
        let source = match name {
            OWN_LOG => LogSource::Agent,
            name if OF_SYSTEM.contains(&name) => LogSource::System,
            _ => LogSource::App,
        };
        Self { path: path.into(), source }
    }

    /// The file as one line, encoded. `now_ms` is the time of reading.
    pub fn line(&self, record: &Record, now_ms: i64, zone: &mut Zone) -> String {
        let text = String::from_utf8_lossy(&record.text);
        let (text, cut_bytes) = cut(&text, record.dropped_bytes);
        let mut parsed = if cut_bytes == 0 { json_object(&text) } else { None };
        let ts =
            parsed.as_mut().and_then(|fields| take(fields, &TIME_FIELDS, |value| time::of_json(value, now_ms, zone)));
        let ts = ts.or_else(|| time::of_line(&text, now_ms, zone));
        let level = match &mut parsed {
            Some(fields) => take(fields, &LEVEL_FIELDS, level_of),
            None => Level::of_line(&text),
        };
        let fields = parsed.map(bounded).unwrap_or_default();
        let offset = Some(Count::new(record.start));
        self.encode(&text, ts.unwrap_or(now_ms), level.unwrap_or(Level::Info), offset, cut_bytes, fields)
    }

    /// A line that another program has read for the agent.
    pub(super) fn entry(&self, text: &str, ts: i64, now_ms: i64, level: Level, fields: Map<String, Value>) -> String {
        let (text, cut_bytes) = cut(text, 0);
        self.encode(&text, time::clamped(ts, now_ms), level, None, cut_bytes, bounded(fields))
    }

    /// A line of the agent about this log.
    pub fn remark(&self, text: &str, now_ms: i64) -> String {
        let of_agent = Self { path: self.path.clone(), source: LogSource::Agent };
        of_agent.encode(text, now_ms, Level::Warn, None, 0, Map::new())
    }

    fn encode(
        &self,
        line: &str,
        ts: i64,
        level: Level,
        offset: Option<Count>,
        cut_bytes: u64,
        fields: Map<String, Value>,
    ) -> String {
        let ts = Count::new(u64::try_from(ts).unwrap_or_default());
        let cut_bytes = (cut_bytes > 0).then(|| Count::new(cut_bytes));
        let metadata = LogMetadata { path: &self.path, offset, cut_bytes, fields };
        LogLine { line, ts, level: level.as_str(), source: &self.source, metadata }.encode()
    }
}

/// A text of at most [`RECORD_BYTES_MAX`] bytes, marked where it was cut, and how many bytes are missing.
fn cut(text: &str, dropped_bytes: u64) -> (Cow<'_, str>, u64) {
    // A NUL becomes a character of three bytes, as bytes that are no UTF-8 have.
    let nuls = text.bytes().filter(|byte| *byte == 0).count() * (CUT_MARK.len_utf8() - 1);
    if text.len() + nuls <= RECORD_BYTES_MAX && dropped_bytes == 0 {
        return (text.into(), 0);
    }
    let (mut end, mut length) = (0, CUT_MARK.len_utf8());
    for (at, character) in text.char_indices() {
        length += if character == '\0' { CUT_MARK.len_utf8() } else { character.len_utf8() };
        if length > RECORD_BYTES_MAX {
            break;
        }
        end = at + character.len_utf8();
    }
    let (kept, rest) = text.split_at(end);
    let mut marked = String::with_capacity(kept.len() + CUT_MARK.len_utf8());
    // A broken character at the cut is no character of the text.
    marked.push_str(kept.trim_end_matches(char::REPLACEMENT_CHARACTER));
    marked.push(CUT_MARK);
    (marked.into(), dropped_bytes + rest.len() as u64)
}

fn json_object(text: &str) -> Option<Map<String, Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Takes the first of these fields of which `read` makes something.
fn take<T>(fields: &mut Map<String, Value>, names: &[&str], mut read: impl FnMut(&Value) -> Option<T>) -> Option<T> {
    let (name, found) = names.iter().find_map(|name| Some((*name, read(fields.get(*name)?)?)))?;
    fields.remove(name);
    Some(found)
}

fn level_of(value: &Value) -> Option<Level> {
    match value {
        Value::String(name) => Level::named(name),
        Value::Number(number) => Level::numbered(number.as_u64()?),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Fields that take no more than [`FIELDS_BYTES_MAX`] together, the first ones that fit.
fn bounded(mut fields: Map<String, Value>) -> Map<String, Value> {
    struct Length(usize);
    impl std::fmt::Write for Length {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut left = FIELDS_BYTES_MAX;
    fields.retain(|name, value| {
        let mut length = Length(name.len());
        let _ = write!(length, "{value}");
        // A NUL takes less in its place, and quotes of a name no more than its length again.
        let fits = length.0 <= left;
        left -= if fits { length.0 } else { 0 };
        fits
    });
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2026-11-30T12:00:00Z
    const NOW_MS: i64 = 1_796_040_000_000;

    fn line(origin: &Origin, text: &[u8], dropped_bytes: u64) -> Value {
        let record = Record { start: 5, end: 9, text: text.to_vec(), dropped_bytes };
        serde_json::from_str(&origin.line(&record, NOW_MS, &mut Zone::default())).expect("JSON")
    }

    fn app() -> Origin {
        Origin::below_logs("app.log")
    }

    #[test]
    fn plain_line_has_time_level_and_place() {
        let found = line(&app(), b"2026-11-30T11:00:00Z ERROR failed \xff\0", 0);
        let expected = json!({
            "line": "2026-11-30T11:00:00Z ERROR failed \u{fffd}\u{fffd}", "ts": NOW_MS - 3_600_000, "level": "error",
            "source": "app", "metadata": {"path": "app.log", "offset": 5},
        });
        assert_eq!(found, expected);
        let found = line(&app(), b"hello", 0);
        assert_eq!((&found["ts"], &found["level"]), (&json!(NOW_MS), &json!("info")));
    }

    #[test]
    fn json_line_gives_time_level_and_fields() {
        let text = br#"{"time":"2026-11-30T11:00:00Z","level":"fatal","msg":"x\u0000","n":{"a":[1,2]}}"#;
        let found = line(&app(), text, 0);
        assert_eq!((&found["ts"], &found["level"]), (&json!(NOW_MS - 3_600_000), &json!("error")));
        assert_eq!(found["metadata"]["fields"], json!({"msg": "x\u{fffd}", "n": {"a": [1, 2]}}));
        assert_eq!(found["line"], json!(std::str::from_utf8(text).expect("UTF-8")));
        let found = line(&app(), br#"{"ts":1796036400,"severity":"WARNING"}"#, 0);
        assert_eq!((&found["ts"], &found["level"]), (&json!(NOW_MS - 3_600_000), &json!("warn")));
        assert!(line(&app(), br#"{"level":"warn""#, 0)["metadata"].get("fields").is_none());
    }

    #[test]
    fn fields_are_bounded_in_sum() {
        let long = "x".repeat(3_000);
        let text = json!({"a": long, "b": long, "c": 1}).to_string();
        let found = line(&app(), text.as_bytes(), 0);
        let names: Vec<&String> = found["metadata"]["fields"].as_object().expect("fields").keys().collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_marked() {
        for text in ["é".repeat(RECORD_BYTES_MAX / 2), "\0".repeat(RECORD_BYTES_MAX), "x".repeat(RECORD_BYTES_MAX)] {
            let found = line(&app(), text.as_bytes(), 3);
            let kept = found["line"].as_str().expect("a text");
            assert!(kept.len() <= RECORD_BYTES_MAX && kept.len() > RECORD_BYTES_MAX - 6 && kept.ends_with('…'));
            assert!(found["metadata"]["cut_bytes"].as_u64() >= Some(3));
        }
        let exact = "x".repeat(RECORD_BYTES_MAX);
        assert!(line(&app(), exact.as_bytes(), 0)["metadata"].get("cut_bytes").is_none());
        // A character that the bound has split is left out.
        let split = ["é".repeat(10).as_bytes(), b"\xc3"].concat();
        assert_eq!(line(&app(), &split, 1)["line"], json!("é".repeat(10) + "…"));
    }

    #[test]
    fn path_says_what_wrote_a_line() {
        let source = |origin: Origin| origin.source.to_string();
        let below = ["draupnir.log", "install.log", "node/out.log", "node/a/b.log", "my.log"];
        let sources = ["agent", "build", "extension:node", "extension:node", "app"];
        assert_eq!(below.map(|path| source(Origin::below_logs(path))), sources);
        let configured = ["/var/log/syslog", "/var/log/nginx/error.log", "/srv/draupnir.log"];
        assert_eq!(configured.map(|path| source(Origin::configured(path))), ["system", "app", "agent"]);
    }
}
