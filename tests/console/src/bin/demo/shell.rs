//! The demo's shell: connects the local terminal, in raw mode, to a terminal session of the agent.
//!
//! The loop reads and writes the bytes. The session survives a visit: a second visit attaches to it again, as a browser
//! does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use draupnir_console::{Console, Record};

/// Ctrl-]: leaves the shell.
const LEAVE: u8 = 0x1d;

/// How much output may wait for a slow local terminal, in bytes; more is dropped.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// A session, visited or not.
#[derive(Debug)]
pub(crate) struct Shell {
    session: String,
    count: u32,
    visited: bool,
    backlog: Arc<AtomicUsize>,
}

impl Shell {
    /// No session yet.
    pub(crate) fn new() -> Shell {
        Shell { session: String::new(), count: 0, visited: false, backlog: Arc::default() }
    }

    /// Whether it has the local terminal.
    pub(crate) fn is_visited(&self) -> bool {
        self.visited
    }

    /// Opens a session of this size, or attaches again to the running one. Its output goes to `emit`.
    pub(crate) fn visit(
        &mut self,
        console: &Console,
        size: (u16, u16),
        emit: impl Fn(Vec<u8>) + Send + Sync + 'static,
    ) {
        if self.session.is_empty() {
            self.count += 1;
            self.session = format!("demo-{}-shell-{}", std::process::id(), self.count);
        }
        self.visited = true;
        let backlog = self.backlog.clone();
        backlog.store(0, Ordering::Relaxed);
        console.tap(&self.session, move |bytes| {
            let waiting = backlog.fetch_add(bytes.len(), Ordering::Relaxed);
            match waiting {
                0..BACKLOG_BYTES_MAX => emit(bytes.to_vec()),
                _ => drop(backlog.fetch_sub(bytes.len(), Ordering::Relaxed)),
            }
        });
        console.browser().create(&self.session, size.0, size.1);
    }

    /// Records that this many bytes of output were shown.
    pub(crate) fn shown(&self, bytes: usize) {
        self.backlog.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Passes typed bytes on; false after the key that leaves the shell.
    pub(crate) fn typed(&self, console: &Console, bytes: &[u8]) -> bool {
        let end = bytes.iter().position(|byte| *byte == LEAVE);
        let typed = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if !typed.is_empty() {
            console.browser().input(&self.session, typed);
        }
        end.is_none()
    }

    /// The local terminal has another size.
    pub(crate) fn resized(&self, console: &Console, size: (u16, u16)) {
        console.browser().resize(&self.session, size.0, size.1);
    }

    /// Ends the visit. The session goes on.
    pub(crate) fn leave(&mut self, console: &Console) {
        console.untap(&self.session);
        self.visited = false;
    }

    /// Whether this record is the session's end; the next visit then opens another one.
    pub(crate) fn ends_with(&mut self, record: &Record) -> bool {
        let ends = record.kind() == "terminal:closed" && record.payload()["session_id"] == self.session.as_str();
        if ends {
            self.session.clear();
        }
        ends
    }
}
