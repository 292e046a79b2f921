//! `log:batch`: lines of one log.
//!
//! Each line is encoded when it is read, and a batch is put together from encoded lines. The console loses a whole
//! batch over one NUL, and takes `ts` in milliseconds alone (CONSOLE.md, "Logs"): no text holds a NUL, and `ts` is a
//! whole number.

use super::VERSION;
use super::encode::{json, push_text};
use super::number::Count;
#[cfg(test)]
use super::schema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// The most lines of a batch: what the console stores within a quarter of a second.
pub const LOG_LINES_MAX: usize = 500;

/// One line.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogLine<'a> {
    /// Its text, a stack trace included, without the last line end.
    pub line: &'a str,
    /// When it was written, in milliseconds since 1970.
    pub ts: Count,
    /// `debug`, `info`, `warn` or `error`.
    #[cfg_attr(test, schemars(extend("enum" = ["debug", "info", "warn", "error"])))]
    pub level: &'static str,
    /// What wrote it.
    #[cfg_attr(test, schemars(with = "schema::LogSourceName"))]
    pub source: &'a LogSource,
    /// Where it stands.
    pub metadata: LogMetadata<'a>,
}

/// Where a line stands, and what else it says.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogMetadata<'a> {
    /// The path of its file, as in the batch.
    pub path: &'a str,
    /// Where its first byte stands in the file; none for what stands in no file.
    #[cfg_attr(test, schemars(skip_serializing_if = "Option::is_none"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Count>,
    /// How many bytes of it are missing at its end.
    #[cfg_attr(test, schemars(skip_serializing_if = "Option::is_none"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_bytes: Option<Count>,
    /// The other fields of a line that is JSON.
    #[cfg_attr(test, schemars(skip_serializing_if = "Map::is_empty"))]
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// What wrote a log, as the console groups it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// This agent.
    Agent,
    /// An extension of this name.
    Extension(Box<str>),
    /// The installation of the instance.
    Build,
    /// The operating system.
    System,
    /// Anything else.
    App,
}

impl fmt::Display for LogSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => formatter.write_str("agent"),
            Self::Extension(name) => write!(formatter, "extension:{name}"),
            Self::Build => formatter.write_str("build"),
            Self::System => formatter.write_str("system"),
            Self::App => formatter.write_str("app"),
        }
    }
}

impl Serialize for LogSource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl LogLine<'_> {
    /// The line as it stands in a batch.
    pub fn encode(&self) -> String {
        json(self)
    }
}

/// The type of a batch.
pub(super) const KIND: &str = "log:batch";

/// A batch, as the schema knows it.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code)] // the schema alone knows its fields
pub(super) struct LogBatch<'a> {
    /// The path below `~/.sindri/logs`, or as the operator's configuration has it.
    path: &'a str,
    /// In the order of the file.
    #[schemars(length(min = 1, max = LOG_LINES_MAX))]
    lines: Vec<LogLine<'a>>,
}

/// The batch of these encoded lines of one path.
pub fn log_batch<'a>(path: &str, lines: impl Iterator<Item = &'a str> + Clone) -> String {
    /// Bytes beside the path and the lines.
    const FRAME_BYTES: usize = 96;
    let bytes: usize = lines.clone().map(|line| line.len() + 1).sum();
    let mut frame = String::with_capacity(FRAME_BYTES + path.len() + bytes);
    for part in ["{\"protocol_version\":\"", VERSION, "\",\"type\":\"", KIND, "\",\"payload\":{\"path\":"] {
        frame.push_str(part);
    }
    push_text(&mut frame, path);
    frame.push_str(",\"lines\":[");
    for (place, line) in lines.enumerate() {
        if place > 0 {
            frame.push(',');
        }
        frame.push_str(line);
    }
    frame.push_str("]}}");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn batch_holds_what_the_console_takes() {
        let mut fields = Map::new();
        fields.insert("a\0".to_owned(), json!({"b": "c\0"}));
        let metadata = LogMetadata { path: "a.log", offset: Some(Count::new(7)), cut_bytes: None, fields };
        let source = LogSource::Extension("node".into());
        let line =
            LogLine { line: "x\0\ny", ts: Count::new(1_796_040_000_000), level: "warn", source: &source, metadata };
        let encoded = line.encode();
        let frame: Value = serde_json::from_str(&log_batch("a.log", [&*encoded, &*encoded].into_iter())).expect("JSON");
        assert_eq!((&frame["protocol_version"], &frame["type"]), (&json!(VERSION), &json!("log:batch")));
        let expected = json!({
            "line": "x\u{fffd}\ny", "ts": 1_796_040_000_000_u64, "level": "warn", "source": "extension:node",
            "metadata": {"path": "a.log", "offset": 7, "fields": {"a\u{fffd}": {"b": "c\u{fffd}"}}},
        });
        assert_eq!(frame["payload"], json!({"path": "a.log", "lines": [expected, expected]}));
    }
}
