//! The demo's shell: the local terminal, raw, onto a terminal session of the agent.
//!
//! It reads and writes no bytes itself; the loop passes them on. The session outlives a visit: leaving it and coming
//! back attaches again, as a browser does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use draupnir_console::{Console, Record};

/// Ctrl-]: leaves the shell.
const LEAVE: u8 = 0x1d;

/// Output that may wait for a slow local terminal, in bytes; what comes beyond it is left out.
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
    /// None yet.
    pub(crate) fn new() -> Shell {
        Shell { session: String::new(), count: 0, visited: false, backlog: Arc::default() }
    }

    /// Whether the local terminal is its.
    pub(crate) fn is_visited(&self) -> bool {
        self.visited
    }

    /// Opens a session of this size, or attaches again to the one that lives. Its output comes to `emit`.
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

    /// So many bytes of output were shown.
    pub(crate) fn shown(&self, bytes: usize) {
        self.backlog.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Passes on what was typed; false when it was the key that leaves.
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

    /// The visit is over; the session lives on.
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
