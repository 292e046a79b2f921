//! Follows the system's journal through `journalctl`, where the operator's configuration names it and it exists.
//!
//! The program is started when the console asks for the journal, behind the cursor of the last entry that the console
//! has, or with the last entries; and ends when no console wants it. What it prints is read as far as there is credit:
//! it waits meanwhile, and the journal keeps its entries. One task on the loop's executor; nothing in it blocks.
//!
//! Bounds: an entry of more than `ENTRY_BYTES_MAX` is left out.

use super::follower::{Credit, Line, Mark, Outcome};
use super::level::Level;
use super::position::Position;
use super::record::Origin;
use super::segment::FIRST_LINES;
use super::task::{Desk, LogReport, Shared};
use crate::json;
use crate::protocol::LogSource;
use crate::report::Reporter;
use crate::sys::child::Child;
use crate::sys::environment::Environment;
use crate::sys::spawn::{Program, spawn};
use async_channel::Receiver;
use async_io::{Async, Timer};
use futures_lite::FutureExt as _;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the console and the configuration call the journal.
pub const JOURNALD: &str = "journald";

/// The longest entry that is read, in bytes of JSON: one with a core dump has more.
const ENTRY_BYTES_MAX: usize = 256 << 10;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// How long after its end the program is started again.
const RESTART: Duration = Duration::from_secs(10);

/// The program, and what it has printed of an entry so far.
#[derive(Debug)]
struct Running {
    child: Child,
    output: Async<OwnedFd>,
    read: Vec<u8>,
    /// The rest of the entry is passed over.
    is_too_long: bool,
    is_over: bool,
}

/// An entry, as far as it is sent.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: Box<str>,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    realtime_us: Value,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Value,
    #[serde(rename = "_PID", default)]
    pid: Value,
    #[serde(rename = "_SYSTEMD_UNIT", default)]
    unit: Value,
}

/// The origin of all entries.
pub(super) fn origin() -> Origin {
    Origin { path: JOURNALD.into(), source: LogSource::System }
}

pub(super) async fn run(
    root: usize,
    environment: Environment,
    shared: Rc<Shared>,
    desk: Rc<Desk>,
    calls: Receiver<()>,
    reporter: Reporter,
) {
    let origin = Arc::new(origin());
    let (mut running, mut is_wanted, mut has_failed): (Option<Running>, bool, bool) = (None, false, false);
    let mut cursor: Option<Box<str>> = None;
    loop {
        let orders = desk.orders.take();
        if orders.restarts || orders.between.iter().any(|selection| !selection.names(JOURNALD)) {
            running = None;
        }
        if let Some((selection, _)) = orders.select {
            is_wanted = selection.names(JOURNALD);
            cursor = if running.is_some() { cursor } else { desk.cursor.take() };
        }
        if !is_wanted {
            running = None;
        }
        desk.files.set(usize::from(running.is_some()));
        if is_wanted && running.is_none() {
            match Running::start(&environment, cursor.as_deref()).await {
                Ok(started) => running = Some(started),
                Err(error) if !has_failed => {
                    tracing::warn!(error, "journal of the system not followed");
                    has_failed = true;
                }
                Err(_) => {}
            }
        }
        let given = if running.is_some() { shared.take() } else { Credit::default() };
        let called = async { calls.recv().await.is_ok() };
        let printed = async {
            match &running {
                Some(running) if given.lines > 0 => drop(running.output.readable().await),
                // It has not started, or has no credit.
                Some(_) => std::future::pending().await,
                None if is_wanted => drop(Timer::after(RESTART).await),
                None => std::future::pending().await,
            }
            true
        };
        let epoch = shared.epoch.get();
        let is_called = async { (called.await, true) }.or(async { (printed.await, false) }).await;
        let mut lines = Vec::new();
        match (is_called, &mut running) {
            ((false, _), _) => return,
            ((true, false), Some(program)) => {
                program.read(given.lines, |entry| lines.extend(line(&origin, entry)));
                if let Some(last) = lines.last() {
                    cursor.clone_from(&last.mark.cursor);
                }
                if program.is_over {
                    running = None;
                    // Behind what it printed last, and not at once.
                    Timer::after(RESTART).await;
                }
            }
            ((true, _), _) => {}
        }
        if epoch == shared.epoch.get() && given != Credit::default() {
            let outcome = Outcome { lines, ..Outcome::default() };
            reporter.report(LogReport { root, epoch, outcome, given }).await;
        }
    }
}

impl Running {
    async fn start(environment: &Environment, cursor: Option<&str>) -> Result<Self, String> {
        let position = match cursor {
            Some(cursor) => format!("--after-cursor={cursor}"),
            None => format!("--lines={FIRST_LINES}"),
        };
        let arguments = ["--output=json", "--follow", "--quiet", "--no-pager", &position].map(OsString::from);
        let (reads, writes) = io::pipe().map_err(|error| error.to_string())?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(|error| error.to_string())?;
        let program = Program {
            path: OsStr::new("journalctl"),
            name: None,
            arguments: &arguments,
            environment,
            home: Path::new("/"),
            directory: None,
            stdio: [null.as_fd(), writes.as_fd(), null.as_fd()],
            controlling_terminal: false,
        };
        let (child, start) = spawn(&program).map_err(|error| error.to_string())?;
        drop(writes);
        start.done(&child).await.map_err(|error| error.to_string())?;
        let output = Async::new(OwnedFd::from(reads)).map_err(|error| error.to_string())?;
        Ok(Self { child, output, read: Vec::new(), is_too_long: false, is_over: false })
    }

    /// Reads entries, at most `lines_max` and what came with the last of them.
    fn read(&mut self, lines_max: usize, mut emit: impl FnMut(&[u8])) {
        let (mut buffer, mut lines) = ([0; READ_BYTES], 0);
        while lines < lines_max {
            match rustix::io::read(self.output.get_ref(), &mut buffer) {
                Ok(0) => self.is_over = true,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                Err(_) => self.is_over = true,
                Ok(length) => {
                    for part in buffer.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
                        self.is_too_long |= self.read.len() + part.len() > ENTRY_BYTES_MAX;
                        if !self.is_too_long {
                            self.read.extend_from_slice(part);
                        }
                        if part.ends_with(b"\n") {
                            if !std::mem::replace(&mut self.is_too_long, false) {
                                emit(&self.read);
                                lines += 1;
                            }
                            self.read.clear();
                        }
                    }
                }
            }
            if self.is_over {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.signal_group(Signal::KILL);
    }
}

/// The line of an entry; nothing where it is none.
fn line(origin: &Arc<Origin>, entry: &[u8]) -> Option<Line> {
    let Entry { cursor, realtime_us, message, priority, identifier, pid, unit } = json::read(entry)?;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let message = match &message {
        // What is no UTF-8 comes as numbers.
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    };
    let text = match (identifier.as_str(), pid.as_str()) {
        (Some(identifier), Some(pid)) => format!("{identifier}[{pid}]: {message}"),
        (Some(identifier), None) => format!("{identifier}: {message}"),
        (None, _) => message,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let ts = number(&realtime_us).and_then(|us| i64::try_from(us / 1_000).ok());
    let level = number(&priority).and_then(Level::numbered).unwrap_or(Level::Info);
    let mut fields = Map::new();
    for (name, value) in [("unit", unit), ("identifier", identifier), ("pid", pid)] {
        if value.is_string() {
            fields.insert(name.to_owned(), value);
        }
    }
    let text = origin.entry(&text, ts.unwrap_or(now_ms), now_ms, level, fields);
    let mark = Mark { position: Position::default(), segment: 0, cursor: Some(cursor) };
    Some(Line { text, origin: Arc::clone(origin), mark })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entry_becomes_a_line_of_the_system() {
        let entry = json!({
            "__CURSOR": "s=1;i=2", "__REALTIME_TIMESTAMP": "1796040000123456", "MESSAGE": "it failed\u{0}",
            "PRIORITY": "3", "SYSLOG_IDENTIFIER": "sshd", "_PID": "7", "_SYSTEMD_UNIT": "ssh.service", "OTHER": [1],
        });
        let line = line(&Arc::new(origin()), entry.to_string().as_bytes()).expect("an entry");
        let value: Value = serde_json::from_str(&line.text).expect("JSON");
        let expected = json!({
            "line": "sshd[7]: it failed\u{fffd}", "ts": 1_796_040_000_123_u64, "level": "error", "source": "system",
            "metadata": {
                "path": "journald", "fields": {"unit": "ssh.service", "identifier": "sshd", "pid": "7"},
            },
        });
        assert_eq!((value, line.mark.cursor.as_deref()), (expected, Some("s=1;i=2")));
    }

    #[test]
    fn odd_entries_are_read_as_far_as_possible() {
        let text = |entry: &str| {
            let line = line(&Arc::new(origin()), entry.as_bytes())?;
            let value: Value = serde_json::from_str(&line.text).expect("JSON");
            Some(value["line"].as_str().expect("a text").to_owned())
        };
        assert_eq!(text(r#"{"__CURSOR":"c","MESSAGE":[104,255,105]}"#), Some("h\u{fffd}i".to_owned()));
        assert_eq!(text(r#"{"__CURSOR":"c","MESSAGE":null}"#), Some(String::new()));
        assert_eq!((text(r#"{"MESSAGE":"no cursor"}"#), text("-- No entries --")), (None, None));
    }
}
