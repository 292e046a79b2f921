//! Logging: where lines go, which ones, and what must not be in them.
//!
//! It writes to standard error: JSON lines, or readable ones where that is a terminal. Nothing in the agent logs the
//! key; the writer here is the last line of defence, against what a library might put into an error: a line that holds
//! the key is written without it. And it never holds up the loop: where nobody reads standard error, lines are dropped
//! and counted.

use crate::config::{LogLevel, REDACTED, Secret};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Shortest key that is looked for, in bytes: a shorter one would take ordinary words with it, and is no secret.
const KEY_BYTES_MIN: usize = 6;

/// Most bytes that a pipe with any room takes without blocking (PIPE_BUF on Linux; POSIX promises 512, macOS has 512
/// too, but reports a pipe writable only when that much fits).
const CHUNK_BYTES_MAX: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// How long a line waits for a reader of standard error, in milliseconds; once one was dropped, the next do not wait.
const WAIT_MS_MAX: i64 = 100;

/// Starts logging, once per process.
///
/// # Errors
/// It was started before.
pub fn start(level: LogLevel, key: &Secret) -> Result<(), TryInitError> {
    let is_terminal = io::stderr().is_terminal();
    let writer = Redacting::new(key, io::stderr());
    let format = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = if is_terminal { format.with_ansi(false).boxed() } else { format.json().flatten_event(true).boxed() };
    tracing_subscriber::registry().with(layer.with_filter(filter(level))).try_init()
}

/// Our own lines at the level that is asked for, those of libraries from warnings on.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let ours = ["draupnir", "draupnir_fsm", "sindri_agent"];
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours.map(|target| (target, level)))
}

/// Writes lines without the key.
struct Redacting<W> {
    needles: Arc<[Secret]>,
    sink: Arc<Mutex<Sink<W>>>,
}

impl<W: Write + AsFd> Redacting<W> {
    fn new(key: &Secret, writer: W) -> Self {
        let needles = if key.expose().len() < KEY_BYTES_MIN { Vec::new() } else { spellings(key) };
        Self { needles: needles.into(), sink: Arc::new(Mutex::new(Sink { writer, dropped: 0 })) }
    }

    fn redacted<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let mut line = Cow::Borrowed(line);
        for needle in &*self.needles {
            let needle = needle.expose().as_bytes();
            let mut searched = 0;
            while let Some(start) = line.get(searched..).and_then(|rest| find(rest, needle)) {
                let start = searched + start;
                line.to_mut().splice(start..start + needle.len(), REDACTED.bytes());
                // What was put in is not searched: a key may be part of it.
                searched = start + REDACTED.len();
            }
        }
        line
    }
}

/// Every line is one call: the layer formats it whole first.
impl<W: Write + AsFd> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let redacted = self.redacted(line);
        // A panic elsewhere while a line was written leaves at worst half a line.
        self.sink.lock().unwrap_or_else(PoisonError::into_inner).write(&redacted);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + AsFd + 'static> MakeWriter<'_> for Redacting<W> {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self { needles: Arc::clone(&self.needles), sink: Arc::clone(&self.sink) }
    }
}

/// Where lines go, and how many did not get there.
struct Sink<W> {
    writer: W,
    dropped: u64,
}

impl<W: Write + AsFd> Sink<W> {
    /// Writes a line, or counts it where nobody reads.
    fn write(&mut self, line: &[u8]) {
        if self.dropped > 0 {
            let words =
                format!("{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"count\":{}}}\n", self.dropped);
            if !self.write_chunks(words.as_bytes(), 0) {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.dropped = 0;
        }
        if !self.write_chunks(line, WAIT_MS_MAX) {
            self.dropped = 1;
        }
    }

    /// Writes pieces that cannot block, each when there is room; `false` where there was none or the other end is gone.
    fn write_chunks(&mut self, line: &[u8], wait_ms_max: i64) -> bool {
        line.chunks(CHUNK_BYTES_MAX)
            .all(|chunk| has_room(&self.writer, wait_ms_max) && self.writer.write_all(chunk).is_ok())
    }
}

/// Whether a descriptor takes a piece now, or within the time given.
fn has_room(descriptor: &impl AsFd, wait_ms_max: i64) -> bool {
    let wait = Timespec { tv_sec: 0, tv_nsec: wait_ms_max * 1_000_000 };
    let mut descriptors = [PollFd::new(descriptor, PollFlags::OUT)];
    poll(&mut descriptors, Some(&wait)).is_ok_and(|ready| ready > 0)
}

/// The key as it is, as it stands within a JSON text or a Rust literal, and within one of these within the other; the
/// longest first, since it may hold the beginning of a shorter one.
fn spellings(key: &Secret) -> Vec<Secret> {
    let marks = ['\\', '"'];
    let once = key.escaped(&marks);
    let mut spellings = vec![once.escaped(&marks), once, key.clone()];
    spellings.dedup_by(|a, b| a.expose() == b.expose());
    spellings
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{PipeReader, PipeWriter, Read, pipe};

    fn redacting(key: &str) -> (Redacting<PipeWriter>, PipeReader) {
        let (reader, writer) = pipe().expect("a pipe");
        (Redacting::new(&Secret::new(key), writer), reader)
    }

    fn logged(key: &str, log: impl FnOnce()) -> String {
        let (writer, mut reader) = redacting(key);
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer);
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(LogLevel::Info)));
        tracing::subscriber::with_default(subscriber, log);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("UTF-8");
        text
    }

    #[test]
    fn the_key_is_taken_out_of_a_line() {
        let key = r#"sk-"quoted\key"#;
        let text = logged(key, || {
            tracing::info!(target: "draupnir", error = %format!("refused {key}"), "again {key} and {key:?}");
        });
        assert!(!text.contains("quoted"), "{text}");
        assert_eq!(text.matches(REDACTED).count(), 3, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["error"], "refused [redacted]");
    }

    #[test]
    fn libraries_are_heard_from_warnings_on() {
        let text = logged("sk-0123456789", || {
            tracing::info!(target: "draupnir::link", "ours");
            tracing::debug!(target: "draupnir::link", "too much");
            tracing::info!(target: "rustls", "chatter");
            tracing::warn!(target: "rustls", "warning");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("ours") && text.contains("warning"), "{text}");
    }

    #[test]
    fn a_reader_that_is_stuck_loses_lines_and_learns_how_many() {
        let (mut writer, mut reader) = redacting("sk-0123456789");
        let line = [b'x'; 1000];
        let mut dropped = 0;
        while dropped < 3 {
            writer.write_all(&line).expect("never fails");
            dropped = writer.sink.lock().expect("not poisoned").dropped;
        }
        let mut piece = vec![0; 32 * 1024];
        reader.read_exact(&mut piece).expect("what was written");
        writer.write_all(b"last\n").expect("never fails");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("UTF-8");
        assert!(rest.ends_with("\"log lines dropped\",\"count\":3}\nlast\n"), "{rest}");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_fault() {
        let (mut writer, reader) = redacting("sk-0123456789");
        drop(reader);
        writer.write_all(b"line\n").expect("never fails");
    }

    #[test]
    fn a_key_that_looks_like_its_replacement_is_no_trap() {
        let (writer, _reader) = redacting("redacted");
        assert_eq!(&*writer.redacted(b"a redacted b"), b"a [redacted] b");
    }

    proptest! {
        #[test]
        fn no_line_holds_the_key(key in "[!-~]{6,20}", before in "[ -~]{0,30}", after in "[ -~]{0,30}") {
            prop_assume!(!REDACTED.contains(&key));
            let (writer, _reader) = redacting(&key);
            let line = format!("{before}{key}{after}{key}");
            let redacted = writer.redacted(line.as_bytes());
            prop_assert!(!String::from_utf8_lossy(&redacted).contains(&key));
        }
    }
}
