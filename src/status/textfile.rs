//! The figures of a metrics message and of the agent itself as OpenMetrics, for a collector of text files such as that
//! of node_exporter.
//!
//! The figures are read out of the encoded message, so that both say the same. Names are those of PROTOCOL.md with
//! `sindri_` in front, but for what OpenMetrics and `promtool check metrics` ask: shares of 1 in the place of percent,
//! `_total` at counters and at nothing else. Counters have no type: OpenMetrics wants it under the name without
//! `_total`, and the format that node_exporter reads under the whole name. The file is replaced as a whole, off the
//! loop, and anyone may read it.

use crate::own_file;
use crate::writer::Writer;
use draupnir_fsm::driver::Health;
use serde_json::{Map, Number, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much may wait for the file, in bytes: a few samples of a machine with many file systems.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Figures that only grow while the agent runs.
const COUNTERS: [&str; 7] =
    ["bytes_sent", "bytes_recv", "packets_sent", "packets_recv", "errors", "drops", "oom_kill_count"];

/// Names with an ending that OpenMetrics keeps for another kind of figure, and the names in their place.
const RENAMED: [(&str, &str); 5] = [
    ("core_count", "usable_cores"),
    ("process_count", "processes"),
    ("task_count", "tasks"),
    ("oom_kill_count", "oom_kills"),
    ("inodes_total", "inodes"),
];

/// The file, as long as the agent lives.
pub(crate) struct Textfile {
    path: PathBuf,
    writer: Writer,
    /// The last write failed, which was logged.
    is_failing: Arc<AtomicBool>,
}

impl Textfile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, writer: Writer::new("textfile", QUEUE_BYTES_MAX), is_failing: Arc::default() }
    }

    /// Writes the figures of this message and of the agent.
    pub(crate) fn write(&self, message: &str, health: &Health) {
        let text = render(message, health);
        let (path, is_failing) = (self.path.clone(), Arc::clone(&self.is_failing));
        // A file system that does not answer gets no more: the next sample is as good.
        let _ = self.writer.push(text.len(), move || {
            let written = own_file::publish(&path, text.as_bytes());
            let failed_before = is_failing.swap(written.is_err(), Ordering::Relaxed);
            if let Some(error) = written.err().filter(|_| !failed_before) {
                tracing::warn!(file = %path.display(), %error, "SINDRI_AGENT_TEXTFILE not writable");
            }
        });
    }
}

/// A figure, and its samples.
struct Family {
    name: String,
    is_counter: bool,
    help: String,
    lines: String,
}

/// All figures, in the order in which they were found.
#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, name: &str, help: &str, is_counter: bool, labels: &str, value: &str) {
        let total = if is_counter { "_total" } else { "" };
        let name = format!("{name}{total}");
        let line = format!("{name}{labels} {value}\n");
        match self.0.iter_mut().find(|family| family.name == name) {
            Some(family) => family.lines.push_str(&line),
            None => self.0.push(Family { name, is_counter, help: help.to_owned(), lines: line }),
        }
    }

    fn walk(&mut self, path: &str, fields: &Map<String, Value>, labels: &str) {
        for (field, value) in fields {
            // Columns of the production console repeat others.
            if field.contains(|letter: char| letter.is_ascii_uppercase()) {
                continue;
            }
            let below = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            match value {
                Value::Object(fields) => self.walk(&below, fields, labels),
                Value::Number(number) => self.figure(&below, field, labels, number.as_f64(), &number.to_string()),
                Value::Array(entries) => {
                    for (index, entry) in entries.iter().enumerate() {
                        match entry {
                            Value::Object(fields) => self.walk(&below, fields, &disk_labels(fields)),
                            Value::Number(number) => {
                                let labels = format!("{{core=\"{index}\"}}");
                                self.figure(&below, "percent", &labels, number.as_f64(), &number.to_string());
                            }
                            _ => {}
                        }
                    }
                }
                Value::Null | Value::Bool(_) | Value::String(_) => {}
            }
        }
    }

    fn figure(&mut self, path: &str, field: &str, labels: &str, number: Option<f64>, text: &str) {
        let head = path.strip_suffix(field).unwrap_or(path);
        let renamed = RENAMED.iter().find(|(from, _)| *from == field).map_or(field, |(_, to)| to);
        let is_share = field.ends_with("percent") || field.ends_with("_avg10");
        let mut name = format!("sindri_{head}{renamed}").replace('.', "_");
        let mut value = text.to_owned();
        if is_share {
            name = format!("{}_ratio", name.trim_end_matches("_percent"));
            value = Number::from_f64(number.unwrap_or_default() / 100.0)
                .map_or_else(String::new, |share| share.to_string());
        }
        let help = format!("{path} of the metrics message");
        self.add(&name, &help, COUNTERS.contains(&field), labels, &value);
    }
}

fn disk_labels(fields: &Map<String, Value>) -> String {
    let labels: Vec<String> = ["mount_point", "device", "fs_type"]
        .iter()
        .filter_map(|name| {
            let value = fields.get(*name)?.as_str()?;
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            Some(format!("{name}=\"{value}\""))
        })
        .collect();
    format!("{{{}}}", labels.join(","))
}

fn render(message: &str, health: &Health) -> String {
    let mut families = Families::default();
    let message: Value = serde_json::from_slice(message.as_bytes()).unwrap_or_default();
    if let Some(Value::Object(payload)) = message.get("payload") {
        families.walk("", payload, "");
    }
    let seen = &health.snapshot;
    let unacknowledged_bytes = seen.message_bytes as u64 + seen.stream_bytes_in_flight;
    let own = [
        ("reconnects", "connections to the console that ended", true, health.reconnects),
        ("unacknowledged_messages", "messages that the console is not known to have", false, seen.messages as u64),
        ("unacknowledged_bytes", "bytes that the console is not known to have", false, unacknowledged_bytes),
        ("dropped_messages", "messages that were given up", true, health.dropped),
        ("output_gaps", "gaps in the output of terminals and commands", true, health.gaps),
    ];
    for (name, help, is_counter, value) in own {
        families.add(&format!("sindri_agent_{name}"), help, is_counter, "", &value.to_string());
    }
    if let Some(ms) = health.round_trip_ms {
        let seconds = format!("{}.{:03}", ms / 1_000, ms % 1_000);
        families.add("sindri_agent_round_trip_seconds", "time of the last answered Ping", false, "", &seconds);
    }
    let mut text = String::new();
    for Family { name, is_counter, help, lines } in &families.0 {
        if !is_counter {
            text.push_str(&format!("# TYPE {name} gauge\n"));
        }
        text.push_str(&format!("# HELP {name} {help}\n{lines}"));
    }
    text + "# EOF\n"
}
