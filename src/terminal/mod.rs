//! Terminal sessions: a pseudo-terminal and its shell each, on the reactor.
//!
//! It does not know the link, who looks at a session, or when one should end: [`Terminals`] does what the loop orders
//! and reports what happened. What a session prints is kept in a scrollback with offsets since its start, from which
//! the loop cuts frames; how much may be read is its to say, and a terminal that may not be read makes its program
//! wait.
//!
//! Invariants:
//! - No call blocks, and no session holds up another: reading goes in turns, input that is not taken waits.
//! - At most one [`Report::Output`] of a session waits for the loop; [`Terminals::held`] is the answer to it.
//! - A replay holds nothing that a terminal answers, or that acts beyond the screen.
//! - A chunk never splits a UTF-8 character, unless its rest has not come for 20 ms or cannot come (CONSOLE.md,
//!   "Terminals").
//! - A session has its shell's process number until [`Terminals::end`], so that a signal meets no stranger.
//! - Bounds: [`SCROLLBACK_BYTES_MAX`] and [`INPUT_BYTES_MAX`] a session, within the budget that all buffers share.
//!
//! Two times are its own, and decide nothing but when bytes and sizes go: the 20 ms above, and the 100 ms for which a
//! program has another size that makes it draw again.
//!
//! Units: offsets and sizes are bytes of terminal output. Wire: `terminal:*` (CONSOLE.md, "Terminals").
//!
//! | file | what it does |
//! |---|---|
//! | `session` | the two tasks of a live session, and what can be done to it |
//! | `pty`, `shell` | the terminal; the shell in it and its surroundings |
//! | `output`, `scrollback` | what was printed: kept, cut, replayed |
//! | `replay` | what a replay leaves out, since a terminal would answer or act |
//! | `parser`, `modes` | what must be known of the bytes for that |
//! | `input` | what was typed and waits |
//! | `sweep` | what remains when the shell is gone |
//! | [`trial`] | a terminal and a shell for whoever looks for faults |
//! | [`stream`] | the output alone, likewise |

mod input;
mod modes;
mod output;
mod parser;
mod pty;
mod replay;
mod scrollback;
mod session;
mod shell;
pub mod stream;
mod sweep;
#[cfg(test)]
mod tests;
pub mod trial;

pub use crate::sys::spawn::SpawnError;
pub use input::{INPUT_BYTES_MAX, InputRefused};
pub use scrollback::SCROLLBACK_BYTES_MAX;

use crate::report::Reporter;
use draupnir_fsm::driver::SessionKey;
use draupnir_fsm::driver::budget::Budget;
use input::Input;
use output::{Output, RESET};
use pty::{Pty, Size};
use scrollback::Scrollback;
use session::{ReadBuffer, Session, read_buffer};
use shell::Shell;
use smol::{LocalExecutor, Task};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use sweep::Sweeper;

/// What a terminal tells the loop.
#[derive(Debug)]
pub enum Report {
    /// The shell runs.
    Opened {
        /// The session.
        session: SessionKey,
    },
    /// The shell cannot be run. The only output of the session is a line that says why; nothing else is reported of it.
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
    /// No process of a session that was told to end is left. Not told where the system does not let it be known.
    Reaped {
        /// The session.
        session: SessionKey,
    },
}

/// What is the same for all sessions.
#[derive(Clone, Debug)]
pub struct Settings {
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

/// Output that may go into one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where its first byte stands; later than was asked for where the beginning is gone.
    pub from: u64,
    /// The bytes; none where there is only the beginning of a character.
    pub bytes: &'a [u8],
}

/// The beginning of a replay, which shows the screen to a console that re-attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Resets the terminal and sets the modes that hold at `from`; bytes of the agent's own.
    pub prelude: Vec<u8>,
    /// Where to begin: at the beginning of a line or sequence, never within a character.
    pub from: u64,
}

/// A part of a replay: what may be shown of some output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// How many bytes of output it stands for. None: wait until there is more output.
    pub settled: usize,
    /// Bytes that neither ask nor act; possibly none. They have no offset.
    pub bytes: &'a [u8],
}

/// All sessions.
pub struct Terminals {
    settings: Settings,
    executor: Rc<LocalExecutor<'static>>,
    reports: Reporter,
    budget: Rc<Budget>,
    sweeper: Sweeper,
    sessions: BTreeMap<SessionKey, Entry>,
    buffer: ReadBuffer,
    chunk: Vec<u8>,
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
        f.debug_struct("Terminals").field("sessions", &self.sessions.keys()).finish_non_exhaustive()
    }
}

/// Opening and ending.
impl Terminals {
    /// No session yet.
    pub fn new(
        settings: Settings,
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
            sessions: BTreeMap::new(),
            buffer: read_buffer(),
            chunk: Vec::new(),
        }
    }

    /// Begins to start a shell in a terminal of its own, which [`Report::Opened`] or [`Report::OpenFailed`] tells the
    /// end
    /// of. There is a session from now on: it takes input, can be hung up, killed and ended while its shell starts, and
    /// where
    /// that fails, its only output is a line that says why: it is sent and [finished](Self::finish) as any other.
    ///
    /// The key must be new.
    pub fn open(&mut self, key: SessionKey, open: Open<'_>) {
        let scrollback = Scrollback::new(key, self.budget.clone());
        let output = Rc::new(RefCell::new(Output::new(scrollback)));
        let live = match self.start(key, open, &output) {
            Ok(live) => Some(live),
            Err(error) => {
                let reports = self.reports.clone();
                session::fail(&output, &error);
                let report = async move { reports.report(Report::OpenFailed { session: key, error }).await };
                self.executor.spawn(report).detach();
                None
            }
        };
        self.sessions.insert(key, Entry { output, live });
    }

    /// SIGHUP and SIGCONT to the process group in the foreground and to that of the shell.
    pub fn hang_up(&mut self, key: SessionKey) {
        if let Some(session) = self.live(key) {
            session.hang_up(&self.sweeper);
        }
    }

    /// SIGKILL to whatever is left of the session.
    pub fn kill(&mut self, key: SessionKey) {
        if let Some(session) = self.live(key) {
            session.kill(&self.sweeper);
        }
    }

    /// Reads what is left, closes the terminal and lets the shell's number go; what was printed stays until
    /// [`finish`](Self::finish). A shell whose start still hangs is killed, and reaped once it can be. Returns where
    /// the
    /// output ends.
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
        let held = entry.output.borrow_mut().tell();
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
    /// Types. What the program does not read waits, up to [`INPUT_BYTES_MAX`]; input beyond it is refused as a whole.
    pub fn input(&mut self, key: SessionKey, bytes: &[u8]) -> Result<(), InputRefused> {
        self.live(key).ok_or(InputRefused::Gone)?.input(bytes)
    }

    /// Sets the size; neither may be 0.
    pub fn resize(&mut self, key: SessionKey, cols: u16, rows: u16) {
        if let Some(session) = self.live(key) {
            session.resize(Size { cols, rows });
        }
    }

    /// Makes a program that uses the whole screen draw it again, for somebody who has re-attached.
    pub fn redraw(&mut self, key: SessionKey) {
        if let Some(session) = self.live(key) {
            session.redraw();
        }
    }
}

/// Output.
impl Terminals {
    /// Says how many bytes more than [`held`](Self::held) last told may be read, and from where on everything is to be
    /// kept: what the console may still need. `None` where nobody waits for it, and the oldest makes room.
    pub fn allow(&mut self, key: SessionKey, bytes: usize, keep_from: Option<u64>) {
        let Some(entry) = self.sessions.get(&key) else {
            return;
        };
        let may_read = {
            let mut output = entry.output.borrow_mut();
            output.allow(bytes, keep_from);
            output.room(1) > 0
        };
        if let Some(live) = entry.live.as_ref().filter(|_| may_read) {
            live.session.wake();
        }
    }

    /// The offsets of what there is; to be asked at each [`Report::Output`], since the next one waits for it.
    pub fn held(&mut self, key: SessionKey) -> Range<u64> {
        self.sessions.get(&key).map_or(0..0, |entry| entry.output.borrow_mut().tell())
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

    /// Where to begin when a console re-attaches, and with what.
    pub fn replay(&self, key: SessionKey) -> Replay {
        match self.sessions.get(&key) {
            Some(entry) => entry.output.borrow().replay(),
            None => Replay { prelude: RESET.to_vec(), from: 0 },
        }
    }

    /// What a replay shows of the output from an offset on, at most `max` bytes of it.
    pub fn replay_chunk(&mut self, key: SessionKey, from: u64, max: usize) -> Shown<'_> {
        self.chunk.clear();
        let settled = match self.sessions.get(&key) {
            Some(entry) => entry.output.borrow_mut().replay_chunk(from, max, &mut self.chunk),
            None => 0,
        };
        Shown { settled, bytes: &self.chunk }
    }

    /// What follows the last chunk of a replay, or of what was printed until the console re-attached: sets the modes
    /// that
    /// hold there. Bytes of the agent's own.
    pub fn epilogue(&mut self, key: SessionKey) -> Vec<u8> {
        self.sessions.get(&key).map_or_else(Vec::new, |entry| entry.output.borrow_mut().epilogue())
    }

    /// Shortens a scrollback to this many bytes, as the budget orders.
    pub fn shrink(&mut self, key: SessionKey, to_bytes: usize) {
        if let Some(entry) = self.sessions.get(&key) {
            entry.output.borrow_mut().scrollback.shrink(to_bytes);
        }
    }
}
