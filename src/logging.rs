//! Logging: where lines go, which ones, and what must not be in them.
//!
//! Lines go to standard error: JSON, or readable ones where that is a terminal. Nothing in the agent logs the key; the
//! writer here is the last line of defence against what a library might put into an error: it replaces the key in a
//! line. The caller formats a line and enqueues it; a thread of its own writes it (`writer`). While standard error
//! takes nothing, lines beyond the bound are dropped and counted. The agent keeps its own log file short (`own_log`).

use crate::config::{Config, LogLevel, REDACTED, Secret};
use crate::own_log::OwnLog;
use crate::writer::{Refused, Writer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Shortest key that is looked for, in bytes: a shorter one would take ordinary words with it, and is no secret.
const KEY_BYTES_MIN: usize = 6;

/// How much may wait for standard error, in bytes: some 1,000 lines, a burst of a busy second.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// What the queue counts for a line besides its text, in bytes.
const LINE_OVERHEAD_BYTES: usize = 64;

/// The log of the process, once it is started.
static LOG: OnceLock<Redacting> = OnceLock::new();

/// Starts logging, once per process. No thread is started before the first line.
///
/// # Errors
/// It was started before.
pub fn start(config: &Config) -> Result<(), TryInitError> {
    let own_log = OwnLog::new(config.home.as_deref(), config.log_max_bytes);
    let log = LOG.get_or_init(|| Redacting::new(&config.api_key, Sink::standard_error(own_log)));
    let format = tracing_subscriber::fmt::layer().with_writer(log.clone());
    let is_terminal = io::stderr().is_terminal();
    let layer = if is_terminal { format.with_ansi(false).boxed() } else { format.json().flatten_event(true).boxed() };
    tracing_subscriber::registry().with(layer.with_filter(filter(config.log_level))).try_init()
}

/// Enqueues a line past the formatting, which may be what panicked; without a log it is written at once.
pub fn write_line(line: &str) {
    let line = [line.as_bytes(), b"\n"].concat();
    match LOG.get() {
        Some(log) => log.log(&line),
        // Where that fails, no other place is left.
        None => drop(io::stderr().write_all(&line)),
    }
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

/// Enqueues lines without the key. Clones are the same log.
#[derive(Clone)]
struct Redacting {
    needles: Arc<[Secret]>,
    /// Locked on the writer's thread alone.
    sink: Arc<Mutex<Sink>>,
    /// Lines that were not written, and not reported yet.
    dropped: Arc<AtomicU64>,
    /// A notice of them is in the queue.
    has_notice: Arc<AtomicBool>,
    writer: Writer,
}

impl Redacting {
    fn new(key: &Secret, sink: Sink) -> Self {
        let needles = if key.expose().len() < KEY_BYTES_MIN { Vec::new() } else { spellings(key) };
        let (sink, writer) = (Arc::new(Mutex::new(sink)), Writer::new("log", QUEUE_BYTES_MAX));
        Self { needles: needles.into(), sink, dropped: Arc::default(), has_notice: Arc::default(), writer }
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

    /// Enqueues a line, or counts it. Lines that were dropped leave one notice at the end of the queue, which says how
    /// many there were once the lines before it are written.
    fn log(&self, line: &[u8]) {
        let line: Arc<[u8]> = self.redacted(line).into();
        let (sink, dropped, queued) = (Arc::clone(&self.sink), Arc::clone(&self.dropped), Arc::clone(&line));
        let write = move || {
            if !sink.lock().unwrap_or_else(PoisonError::into_inner).write(&queued) {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        };
        match self.writer.push(line.len() + LINE_OVERHEAD_BYTES, write) {
            Ok(()) => {}
            // A machine without threads is what the line may be about.
            Err(Refused::NoThread(_))
                if self.sink.try_lock().is_ok_and(|mut sink| sink.has_room() && sink.write(&line)) => {}
            Err(Refused::NoThread(_) | Refused::Full) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.dropped.load(Ordering::Relaxed) > 0 {
            self.enqueue_notice();
        }
    }

    fn enqueue_notice(&self) {
        if self.has_notice.swap(true, Ordering::Relaxed) {
            return;
        }
        let Self { sink, dropped, has_notice, .. } = self.clone();
        let notice = move || {
            has_notice.store(false, Ordering::Relaxed);
            let count = dropped.swap(0, Ordering::Relaxed);
            let line = format!("{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"count\":{count}}}\n");
            let is_written = count == 0 || sink.lock().unwrap_or_else(PoisonError::into_inner).write(line.as_bytes());
            if !is_written {
                dropped.fetch_add(count, Ordering::Relaxed);
            }
        };
        if self.writer.push_beyond_bound(notice).is_err() {
            self.has_notice.store(false, Ordering::Relaxed);
        }
    }
}

/// Every line is one call: the layer formats it whole first.
impl Write for Redacting {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Redacting {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Where lines go, as the writer's thread knows it.
struct Sink {
    descriptor: BorrowedFd<'static>,
    own_log: OwnLog,
}

impl Sink {
    /// The descriptor, not the standard library's handle: a write that blocks must not hold a lock that a panic needs.
    fn standard_error(own_log: OwnLog) -> Self {
        Self { descriptor: rustix::stdio::stderr(), own_log }
    }

    /// Writes a line, and waits as long as that takes; false where it was not written whole.
    fn write(&mut self, mut line: &[u8]) -> bool {
        self.own_log.before_write();
        while !line.is_empty() {
            match rustix::io::write(self.descriptor, line) {
                Ok(written) => line = line.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                // Another process may have made the description non-blocking for us, too.
                Err(Errno::AGAIN) => {
                    self.wait_for_room(None);
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether a short line can be written now, as far as the system knows: it errs about terminals.
    fn has_room(&self) -> bool {
        self.wait_for_room(Some(&Timespec::default()))
    }

    fn wait_for_room(&self, timeout: Option<&Timespec>) -> bool {
        let mut descriptors = [PollFd::from_borrowed_fd(self.descriptor, PollFlags::OUT)];
        poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
    }
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

/// Whether a text holds the key in one of its spellings.
pub(crate) fn holds_key(key: &Secret, text: &str) -> bool {
    spellings(key).iter().any(|spelling| spelling.is_in(text))
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{PipeReader, PipeWriter, Read, pipe};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    /// A log into a pipe, and its other end.
    fn redacting(key: &str) -> (Redacting, PipeReader) {
        let (reader, writer) = pipe().expect("a pipe");
        // The log of a process lives as long as that: so does this end.
        let writer: &'static PipeWriter = Box::leak(Box::new(writer));
        (Redacting::new(&Secret::new(key), Sink { descriptor: writer.as_fd(), own_log: OwnLog::none() }), reader)
    }

    fn flush(log: &Redacting) {
        assert!(log.writer.flush(Instant::now() + Duration::from_secs(30)));
    }

    /// What is in the pipe now.
    fn written(log: &Redacting, reader: &mut PipeReader) -> String {
        flush(log);
        rustix::io::ioctl_fionbio(&*reader, true).expect("a pipe");
        let mut text = Vec::new();
        let error = reader.read_to_end(&mut text).expect_err("the other end is open");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        String::from_utf8(text).expect("UTF-8")
    }

    fn logged(key: &str, log: impl FnOnce()) -> String {
        let (writer, mut reader) = redacting(key);
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(LogLevel::Info)));
        tracing::subscriber::with_default(subscriber, log);
        written(&writer, &mut reader)
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
    fn unread_pipe_drops_lines_and_says_how_many() {
        let (log, mut reader) = redacting("sk-0123456789");
        let line = [&[b'x'; 999][..], b"\n"].concat();
        while log.dropped.load(Ordering::Relaxed) < 3 {
            log.log(&line);
        }
        // The pipe is read until the notice has come: it stands behind the lines that waited.
        let mut text = Vec::new();
        while !text.ends_with(b"\"count\":3}\n") {
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("the other end is open");
            text.extend(byte);
        }
        log.log(b"last\n");
        assert_eq!(written(&log, &mut reader), "last\n");
        let lines = text.split_inclusive(|byte| *byte == b'\n').count();
        assert!(lines > 200 && text.len() < QUEUE_BYTES_MAX + (128 << 10), "{lines} lines, {} bytes", text.len());
    }

    #[test]
    fn closed_pipe_counts_lines_and_is_no_fault() {
        let (log, reader) = redacting("sk-0123456789");
        drop(reader);
        log.log(b"line\n");
        flush(&log);
        assert_eq!(log.dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn non_blocking_pipe_loses_nothing() {
        let (log, mut reader) = redacting("sk-0123456789");
        let descriptor = log.sink.lock().expect("not poisoned").descriptor;
        rustix::io::ioctl_fionbio(descriptor, true).expect("a pipe");
        let long = vec![b'x'; 200 << 10];
        log.log(&long);
        let mut read = vec![0; long.len()];
        reader.read_exact(&mut read).expect("the other end is open");
        assert_eq!(read, long);
    }

    #[test]
    fn key_equal_to_its_replacement_ends() {
        let (writer, _reader) = redacting("redacted");
        assert_eq!(&*writer.redacted(b"a redacted b"), b"a [redacted] b");
    }

    #[test]
    fn every_spelling_of_the_key_is_found() {
        let key = Secret::new("sk-\"0123");
        for text in ["no sk-\"0123", "no sk-\\\"0123", "no sk-\\\\\\\"0123", "NO SK-\"0123"] {
            assert!(holds_key(&key, text), "{text}");
        }
        assert!(!holds_key(&key, "sk-0123"));
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
