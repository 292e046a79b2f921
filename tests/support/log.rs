//! Keeps the JSON lines that the agent writes to standard error, and waits for lines.
//!
//! A line that is no JSON has the value `Null`. It keeps at most [`LOG_BYTES_MAX`].

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest log (64 MiB); an agent that logs more fails the test.
const LOG_BYTES_MAX: usize = 64 << 20;

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// When it was read.
    pub(crate) at: Instant,
    /// Its text.
    pub(crate) raw: String,
    /// As JSON.
    pub(crate) value: Value,
}

/// Whether a field of this line holds the text. The timestamp does not count: it holds every short number at some time.
pub(crate) fn mentions(line: &Value, text: &str) -> bool {
    let fields = line.as_object().into_iter().flatten().filter(|(name, _)| *name != "timestamp");
    fields.into_iter().any(|(_, value)| value.to_string().contains(text))
}

/// All lines. Clones share one log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    shared: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    bytes: usize,
    ended: bool,
}

impl Log {
    /// Reads lines on its own thread until the end.
    pub(crate) fn follow(source: impl Read + Send + 'static) -> Log {
        let log = Log::default();
        let reader = log.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
                reader.push(&String::from_utf8_lossy(&line));
                line.clear();
            }
            reader.lock().ended = true;
            reader.shared.1.notify_all();
        });
        log
    }

    /// Waits for a line that matches, from the first one on.
    ///
    /// # Panics
    /// At the deadline, or when the log has ended without it.
    #[track_caller]
    pub(crate) fn wait(&self, patience: Duration, matches: impl Fn(&Value) -> bool) -> Value {
        self.wait_nth(1, patience, matches)
    }

    /// Waits for the n-th line that matches, from 1.
    ///
    /// # Panics
    /// At the deadline, or when the log has ended without it.
    #[track_caller]
    pub(crate) fn wait_nth(&self, nth: usize, patience: Duration, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + patience;
        let (mut lines, mut next, mut found) = (self.lock(), 0, 0);
        loop {
            for line in lines.lines.iter().skip(next).filter(|line| matches(&line.value)) {
                found += 1;
                if found == nth {
                    return line.value.clone();
                }
            }
            next = lines.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.ended, "the log ended without the line that was waited for");
            assert!(!left.is_zero(), "no such line in the log within {patience:?}");
            lines = self.shared.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until every writer has closed it; false at the deadline.
    pub(crate) fn wait_end(&self, patience: Duration) -> bool {
        let waited = self.shared.1.wait_timeout_while(self.lock(), patience, |lines| !lines.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// How many lines so far match.
    pub(crate) fn count(&self, matches: impl Fn(&Value) -> bool) -> usize {
        self.lock().lines.iter().filter(|line| matches(&line.value)).count()
    }

    /// The whole text so far.
    pub(crate) fn text(&self) -> String {
        self.lock().lines.iter().map(|line| line.raw.as_str()).collect()
    }

    fn push(&self, raw: &str) {
        let mut lines = self.lock();
        lines.bytes += raw.len();
        assert!(lines.bytes <= LOG_BYTES_MAX, "the agent logs without end");
        let value = serde_json::from_str(raw).unwrap_or(Value::Null);
        lines.lines.push(Line { at: Instant::now(), raw: raw.to_owned(), value });
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A test that panics inside a predicate must not hide its message behind a second panic.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
