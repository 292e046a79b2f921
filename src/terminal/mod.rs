//! Terminal sessions: a pseudo-terminal and its shell each, on the reactor.
//!
//! [`Terminals`] does what the loop orders and reports what happened. The output of a session is kept in a scrollback
//! with offsets since its start, from which the loop cuts frames. The loop sets how much may be read; a program whose
//! terminal is not read waits.
//!
//! Invariants:
//! - No call blocks, and no session delays another: sessions are read in turns, and input waits in a queue.
//! - At most one [`TerminalReport::Output`] of a session waits for the loop; [`Terminals::held`] is the answer to it.
//! - A snapshot holds no sequence that a terminal answers or that acts beyond the screen.
//! - A chunk never splits a UTF-8 character, unless its rest has not come for 20 ms or cannot come (CONSOLE.md,
//!   "Terminals").
//! - A session's shell is not reaped before [`Terminals::end`], so a signal cannot reach another process of its number.
//! - Bounds: [`SCROLLBACK_BYTES_MAX`] and [`INPUT_BYTES_MAX`] a session, within the budget that all buffers share.
//!
//! It keeps two times: the 20 ms above, and the 100 ms for which a program has another size, so that it draws again.
//!
//! Units: offsets and sizes are bytes of terminal output. Wire: `terminal:*` (CONSOLE.md, "Terminals").
//!
//! | file | what it does |
//! |---|---|
//! | `session` | the two tasks of a running session, and its operations |
//! | `pty`, `shell` | the terminal; the shell in it and its surroundings |
//! | `output`, `scrollback` | keep the output, cut it into chunks |
//! | `snapshot` | makes the snapshot for a console that re-attaches, and keeps the screen of a quiet session |
//! | [`screen`] | the model of a terminal, which a snapshot is made by |
//! | `parser`, `sticky` | the grammar of the output, and what the output has set that is no longer held |
//! | `hand_over` | what the next program gets of a session, and goes on with |
//! | `input` | the queue of typed bytes |
//! | `sweep` | ends the processes that remain when the shell is gone |
//! | [`trial`] | a terminal and a shell, for `doctor` and the fuzzer |
//! | [`stream`] | the output without a terminal, for the fuzzer |

mod hand_over;
mod input;
mod output;
mod parser;
mod pty;
pub mod screen;
mod scrollback;
mod session;
mod shell;
mod snapshot;
mod sticky;
pub mod stream;
mod sweep;
#[cfg(test)]
mod tests;
pub mod trial;

pub use crate::sys::spawn::SpawnError;
pub use hand_over::{SavedSession, SavedShell};
pub use input::{INPUT_BYTES_MAX, InputRefused};
pub use scrollback::SCROLLBACK_BYTES_MAX;

use crate::report::Reporter;
use crate::utf8::incomplete_tail;
use draupnir_fsm::driver::SessionKey;
use draupnir_fsm::driver::budget::Budget;
use input::Input;
use litemap::LiteMap;
use output::Output;
use pty::{Pty, Size};
use scrollback::Scrollback;
use session::{ReadBuffer, Session, read_buffer};
use shell::Shell;
use smol::{LocalExecutor, Task};
use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use sweep::Sweeper;

/// What a terminal reports to the loop.
#[derive(Debug)]
pub enum TerminalReport {
    /// The shell runs.
    Opened {
        /// The session.
        session: SessionKey,
    },
    /// The shell cannot be run. The only output of the session is a line with the reason. This is its last report.
    OpenFailed {
        /// The session.
        session: SessionKey,
        /// Why.
        error: SpawnError,
    },
    /// There is new output. At most one such report of a session waits.
    Output {
        /// The session.
        session: SessionKey,
    },
    /// The last byte was read.
    EndOfOutput {
        /// The session.
        session: SessionKey,
    },
    /// The shell is gone.
    Exited {
        /// The session.
        session: SessionKey,
        /// The exit code; 128 + N for signal N.
        code: i32,
    },
    /// No process of a session is left that was ordered to end. Never reported where the system cannot show it.
    Reaped {
        /// The session.
        session: SessionKey,
    },
}

/// The settings of all sessions.
#[derive(Clone, Debug)]
pub struct TerminalSettings {
    /// The shell where a session asks for none.
    pub shell: OsString,
    /// Where shells start; `None` for the home that the system knows of this user.
    pub home: Option<PathBuf>,
    /// Variables of the agent that no shell may see.
    pub secrets: Vec<String>,
}

/// What a session starts with.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// The shell that was asked for.
    pub shell: Option<&'a str>,
    /// The width, at least 1.
    pub cols: u16,
    /// The height, at least 1.
    pub rows: u16,
}

/// Output for one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where its first byte stands; later than was asked for where the beginning is gone.
    pub from: u64,
    /// The bytes; none where there is only the beginning of a character.
    pub bytes: &'a [u8],
}

/// A snapshot that was made, which shows the screen to a console that re-attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// It shows the screen at this offset.
    pub at: u64,
    /// Its length.
    pub bytes: usize,
    /// Whether it is certain to show what a terminal does that read everything.
    pub exact: bool,
}

/// All sessions.
pub struct Terminals {
    settings: TerminalSettings,
    executor: Rc<LocalExecutor<'static>>,
    reports: Reporter,
    budget: Rc<Budget>,
    sweeper: Sweeper,
    sessions: LiteMap<SessionKey, Entry>,
    buffer: ReadBuffer,
    chunk: Vec<u8>,
    /// The snapshot that is being sent. The driver has one made at a time.
    snapshot: Option<(SessionKey, Vec<u8>)>,
}

struct Entry {
    output: Rc<RefCell<Output>>,
    live: Option<Live>,
}

struct Live {
    session: Rc<Session>,
    exit: Task<()>,
    /// Ends when it is dropped.
    carry: Task<()>,
}

impl fmt::Debug for Terminals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminals").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

/// Opening and ending.
impl Terminals {
    /// No session yet.
    pub fn new(
        settings: TerminalSettings,
        executor: Rc<LocalExecutor<'static>>,
        reports: Reporter,
        budget: Rc<Budget>,
    ) -> Self {
        let sweeper = Sweeper::new(executor.clone(), reports.clone());
        Self {
            settings,
            executor,
            reports,
            budget,
            sweeper,
            sessions: LiteMap::new(),
            buffer: read_buffer(),
            chunk: Vec::new(),
            snapshot: None,
        }
    }

    /// Opens a terminal and begins to start a shell in it; [`TerminalReport::Opened`] or [`TerminalReport::OpenFailed`]
    /// follows. The session exists from now on: it takes input and can be ended while its shell starts. If the start
    /// fails, its only output is a line with the reason, which is sent and [finished](Self::finish) as any other.
    ///
    /// The key must be new.
    pub fn open(&mut self, key: SessionKey, open: Open<'_>) {
        let scrollback = Scrollback::new(key, self.budget.clone());
        let output = Rc::new(RefCell::new(Output::new(scrollback, Size { cols: open.cols, rows: open.rows })));
        let live = match self.start(key, open, &output) {
            Ok(live) => Some(live),
            Err(error) => {
                let reports = self.reports.clone();
                session::fail(&output, &error);
                let report = async move { reports.report(TerminalReport::OpenFailed { session: key, error }).await };
                self.executor.spawn(report).detach();
                None
            }
        };
        self.sessions.insert(key, Entry { output, live });
    }

    /// Sends SIGHUP and SIGCONT to the process group in the foreground and to that of the shell.
    pub fn hang_up(&mut self, key: SessionKey) {
        if let Some(session) = self.live(key) {
            session.hang_up(&self.sweeper);
        }
    }

    /// Sends SIGKILL to all remaining processes of the session.
    pub fn kill(&mut self, key: SessionKey) {
        if let Some(session) = self.live(key) {
            session.kill(&self.sweeper);
        }
    }

    /// Reads the remaining output, closes the terminal and reaps the shell; the output stays until
    /// [`finish`](Self::finish). A shell whose start still hangs is killed, and reaped once it can be. Returns the
    /// offset of the end of the output.
    pub fn end(&mut self, key: SessionKey) -> u64 {
        let Some(entry) = self.sessions.get_mut(&key) else {
            return 0;
        };
        if let Some(live) = &entry.live {
            live.session.read_rest();
        }
        entry.output.borrow_mut().ended = true;
        if let Some(live) = entry.live.take() {
            if live.session.give_up_start() {
                live.carry.detach();
            }
            // A shell that hangs in the kernel is reaped when it comes out.
            live.exit.detach();
        }
        let held = entry.output.borrow_mut().held();
        held.end
    }

    /// Frees everything.
    pub fn finish(&mut self, key: SessionKey) {
        self.end(key);
        self.sessions.remove(&key);
    }

    fn start(&self, key: SessionKey, open: Open<'_>, output: &Rc<RefCell<Output>>) -> Result<Live, SpawnError> {
        let size = Size { cols: open.cols, rows: open.rows };
        let (pty, slave) = Pty::open(size).map_err(SpawnError::Exhausted)?;
        let shell = Shell::new(open.shell, &self.settings);
        let (child, start) = shell.spawn(&[], &slave)?;
        let input = Input::new(self.budget.clone());
        let session = Session::new(key, pty, child, size, output.clone(), input, self.buffer.clone());
        session.hold_open(slave);
        let session = Rc::new(session);
        let (opened, wait_opened) = async_channel::bounded(1);
        let exit = session.await_exit(wait_opened, self.reports.clone(), self.sweeper.clone());
        let carry = session.clone().carry(start, opened, self.reports.clone());
        Ok(Live { session, exit: self.executor.spawn(exit), carry: self.executor.spawn(carry) })
    }

    fn live(&self, key: SessionKey) -> Option<&Session> {
        Some(&*self.sessions.get(&key)?.live.as_ref()?.session)
    }
}

/// Input.
impl Terminals {
    /// Types bytes. What the program does not read waits, up to [`INPUT_BYTES_MAX`]; input beyond it is refused whole.
    pub fn input(&mut self, key: SessionKey, bytes: &[u8]) -> Result<(), InputRefused> {
        self.live(key).ok_or(InputRefused::Gone)?.input(bytes)
    }

    /// Sets the size; neither may be 0.
    pub fn resize(&mut self, key: SessionKey, cols: u16, rows: u16) {
        if let Some(session) = self.live(key) {
            session.resize(Size { cols, rows });
        }
    }

    /// Makes a program that uses the whole screen draw it again, for a console that has re-attached.
    pub fn redraw(&mut self, key: SessionKey) {
        if let Some(session) = self.live(key) {
            session.redraw();
        }
    }
}

/// Output.
impl Terminals {
    /// Sets how many bytes may be read beyond what [`held`](Self::held) last returned, and from where on all output is
    /// kept because the console may still need it. `None`: no console waits, and new output replaces the oldest.
    pub fn grant(&mut self, key: SessionKey, bytes: usize, keep_from: Option<u64>) {
        let Some(entry) = self.sessions.get(&key) else {
            return;
        };
        let has_room = {
            let mut output = entry.output.borrow_mut();
            output.grant(bytes, keep_from);
            output.room(1) > 0
        };
        if let Some(live) = entry.live.as_ref().filter(|_| has_room) {
            live.session.wake();
        }
    }

    /// The offsets of the output held. The loop calls it at each [`TerminalReport::Output`]; the next report waits for
    /// it.
    pub fn held(&mut self, key: SessionKey) -> Range<u64> {
        self.sessions.get(&key).map_or(0..0, |entry| entry.output.borrow_mut().held())
    }

    /// Output from an offset on, at most `max` bytes of it, whole characters.
    pub fn chunk(&mut self, key: SessionKey, from: u64, max: usize) -> Chunk<'_> {
        self.chunk.clear();
        let from = match self.sessions.get(&key) {
            Some(entry) => entry.output.borrow_mut().chunk(from, max, &mut self.chunk),
            None => from,
        };
        Chunk { from, bytes: &self.chunk }
    }

    /// Makes the snapshot of a session for a console whose terminal has this size, or that of the session. The stream
    /// was sent up to `from`.
    pub fn snapshot(&mut self, key: SessionKey, from: u64, size: Option<(u16, u16)>) -> Snapshot {
        let Some(entry) = self.sessions.get(&key) else { return Snapshot { at: from, bytes: 0, exact: true } };
        let size = size.map(|(cols, rows)| Size { cols, rows });
        let made = entry.output.borrow_mut().snapshot(from, size);
        let snapshot = Snapshot { at: made.at, bytes: made.bytes.len(), exact: made.exact };
        self.snapshot = Some((key, made.bytes));
        snapshot
    }

    /// Bytes of the last snapshot from a place on, at most `max`, whole characters; none where it is not of this
    /// session. With its last byte it is freed.
    pub fn snapshot_chunk(&mut self, key: SessionKey, from: u64, max: usize) -> &[u8] {
        self.chunk.clear();
        let Some((_, bytes)) = self.snapshot.as_ref().filter(|(of, _)| *of == key) else { return &self.chunk };
        let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
        let part = rest.get(..max).unwrap_or(rest);
        let whole = part.len() - if part.len() < rest.len() { incomplete_tail(part) } else { 0 };
        self.chunk.extend_from_slice(part.get(..whole).filter(|whole| !whole.is_empty()).unwrap_or(part));
        if self.chunk.len() == rest.len() {
            self.snapshot = None;
        }
        &self.chunk
    }

    /// Keeps the screen of a session as it is, so that a snapshot needs no older output.
    pub fn keep_screen(&mut self, key: SessionKey) {
        if let Some(entry) = self.sessions.get(&key) {
            entry.output.borrow_mut().keep_screen(&self.budget);
        }
    }

    /// Shortens a scrollback to this many bytes, as the budget orders.
    pub fn shrink(&mut self, key: SessionKey, to_bytes: usize) {
        if let Some(entry) = self.sessions.get(&key) {
            entry.output.borrow_mut().scrollback.shrink(to_bytes);
        }
    }
}
