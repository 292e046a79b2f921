//! Starts a shell on a terminal by the same steps as a session, for `doctor` and the fuzzer.
//!
//! The shell runs `exit 0`. The caller waits for its end and reads its output.

use super::TerminalSettings;
use super::pty::{Pty, Size};
use super::shell::Shell;
use crate::sys::child::Child;
use crate::sys::spawn::{SpawnError, Start};
use std::io;
use std::os::fd::OwnedFd;

/// The size of a terminal, as a console asks for by default.
const SIZE: Size = Size { cols: 80, rows: 24 };

/// An open terminal on which to start a shell.
pub struct Trial {
    /// Held open: the kernel sends SIGHUP to the shell when the master end is closed.
    _master: Pty,
    slave: OwnedFd,
}

impl Trial {
    /// Opens a terminal.
    ///
    /// # Errors
    /// The system opens no terminal.
    pub fn open() -> io::Result<Self> {
        let (master, slave) = Pty::open(SIZE)?;
        Ok(Self { _master: master, slave })
    }

    /// Starts the default shell on the terminal with the command `exit 0`.
    ///
    /// # Errors
    /// The system refuses to start a process.
    pub fn start(&self, settings: &TerminalSettings) -> Result<(Child, Start), SpawnError> {
        Shell::new(None, settings).spawn(&["-c".into(), "exit 0".into()], &self.slave)
    }
}
