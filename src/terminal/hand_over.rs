//! What one program gives the next of a session, and the session that the next makes of it.
//!
//! The shell stays a child of the process, and its terminal stays open: a descriptor keeps its number across an exec.
//! Whether the shell has exited or its output has ended is not given; the session finds it out again.

use super::input::Input;
use super::output::Output;
use super::pty::{Pty, Size};
use super::scrollback::Scrollback;
use super::session::Session;
use super::{Entry, Live, TerminalReport, Terminals};
use crate::sys::child::{Child, EXIT_CODE_UNKNOWN};
use crate::sys::descriptor::inherited;
use draupnir_fsm::driver::SessionKey;
use rustix::process::Pid;
use rustix::termios::isatty;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// Its shell, unless that is reaped.
    pub shell: Option<SavedShell>,
    /// Where its output ends.
    pub end: u64,
    /// The bytes at the end of its output.
    #[serde(skip)]
    pub kept: Vec<u8>,
    /// What was set in the terminal before them.
    #[serde(skip)]
    pub modes: Vec<u8>,
    /// The sizes that the terminal had: from which offset on, columns and rows.
    #[serde(default)]
    pub sizes: Vec<(u64, u16, u16)>,
    /// What was typed and the terminal has not taken.
    #[serde(skip)]
    pub typed: Vec<u8>,
}

/// The shell of a session, and its terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedShell {
    /// Its process.
    pub pid: u32,
    /// The descriptor of the terminal.
    pub terminal: RawFd,
    /// That of the slave end, which the agent holds open as long as the shell runs.
    pub slave: Option<RawFd>,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// It was asked to end.
    pub is_ending: bool,
}

impl SavedShell {
    /// The descriptors that must stay open across the exec.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        [self.terminal].into_iter().chain(self.slave)
    }
}

impl Terminals {
    /// A session for the next program.
    pub fn save(&self, key: SessionKey) -> Option<SavedSession> {
        let Entry { output, live } = self.sessions.get(&key)?;
        let output = output.borrow();
        let (end, kept, modes) = output.scrollback.save();
        let shell = live.as_ref().map(|live| live.session.save());
        let typed = live.as_ref().map(|live| live.session.typed()).unwrap_or_default();
        let sizes = output.screens.sizes().collect();
        Some(SavedSession { shell, end, kept, modes, sizes, typed })
    }

    /// The shell of a session, if it runs, for a panic.
    pub fn save_shell(&self, key: SessionKey) -> Option<SavedShell> {
        Some(self.sessions.get(&key)?.live.as_ref()?.session.save())
    }

    /// Goes on with a session of the program before this one. What it held is kept as far as the budget allows.
    ///
    /// The key must be new.
    pub fn take_over(&mut self, key: SessionKey, saved: SavedSession) {
        let SavedSession { shell, end, kept, modes, sizes, typed } = saved;
        let scrollback = Scrollback::restore(key, self.budget.clone(), end, &kept, &modes);
        let size =
            shell.as_ref().map_or(Size { cols: 80, rows: 24 }, |shell| Size { cols: shell.cols, rows: shell.rows });
        let mut output = Output::new(scrollback, size);
        for (offset, cols, rows) in sizes {
            output.screens.resized(offset, Size { cols, rows });
        }
        let output = Rc::new(RefCell::new(output));
        let live = shell.and_then(|shell| {
            let adopted = self.adopt(key, &shell, &typed, &output);
            if adopted.is_none() {
                tracing::error!(session = key.0, pid = shell.pid, "terminal not taken over");
            }
            adopted
        });
        if live.is_none() {
            output.borrow_mut().ended = true;
            let reports = self.reports.clone();
            let report = async move {
                reports.report(TerminalReport::EndOfOutput { session: key }).await;
                reports.report(TerminalReport::Exited { session: key, code: EXIT_CODE_UNKNOWN }).await;
            };
            self.executor.spawn(report).detach();
        }
        self.sessions.insert(key, Entry { output, live });
    }

    fn adopt(&self, key: SessionKey, shell: &SavedShell, typed: &[u8], output: &Rc<RefCell<Output>>) -> Option<Live> {
        let size = Size { cols: shell.cols, rows: shell.rows };
        let pid = Pid::from_raw(i32::try_from(shell.pid).ok()?)?;
        let terminal = inherited(shell.terminal).ok()?;
        // After a panic the number may stand for another file.
        isatty(&terminal).then_some(())?;
        let pty = Pty::over(terminal).ok()?;
        // The program before this one may have given it another size for a moment.
        pty.resize(size);
        let slave = shell.slave.and_then(|slave| inherited(slave).ok());
        let child = Child::take_over(pid).ok()?;
        let mut input = Input::new(self.budget.clone());
        // Without memory the user types it again.
        let _ = input.push(typed);
        let session = Session::new(key, pty, child, size, output.clone(), input, self.buffer.clone());
        session.resume(slave, shell.is_ending);
        let session = Rc::new(session);
        let (opened, wait_opened) = async_channel::bounded(1);
        let _ = opened.try_send(());
        let exit = session.await_exit(wait_opened, self.reports.clone(), self.sweeper.clone());
        let carry = session.clone().carry_on(self.reports.clone());
        Some(Live { session, exit: self.executor.spawn(exit), carry: self.executor.spawn(carry) })
    }
}
