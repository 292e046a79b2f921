//! A terminal and a shell on trial, for whoever looks for faults: the very steps of a session, without a session.
//!
//! The shell is told to exit at once. It is not watched, and nothing of it is read: that is the caller's.

use super::Settings;
use super::pty::{Pty, Size};
use super::shell::Shell;
use crate::sys::child::Child;
use crate::sys::spawn::{Program, SpawnError, spawn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The size that a console asks for when it does not know better.
const SIZE: Size = Size { cols: 80, rows: 24 };

/// A terminal in which a shell may be tried.
pub struct Trial {
    /// Held open: without a master end the shell would be hung up.
    _master: Pty,
    slave: OwnedFd,
}

impl Trial {
    /// Opens a terminal.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn open() -> io::Result<Self> {
        let (master, slave) = Pty::open(SIZE)?;
        Ok(Self { _master: master, slave })
    }

    /// Starts the default shell in it, with a command line that only exits, and with status 0.
    ///
    /// # Errors
    /// It cannot be started, neither in its home nor, if that is missing, in `/`.
    pub fn start(&self, settings: &Settings) -> Result<Child, SpawnError> {
        let shell = Shell::new(None, settings);
        let at = |directory: &Path| {
            spawn(&Program {
                path: &shell.path,
                name: Some(&shell.name),
                arguments: &["-c".into(), "exit 0".into()],
                environment: &shell.environment,
                directory,
                stdio: [self.slave.as_fd(), self.slave.as_fd(), self.slave.as_fd()],
                controlling_terminal: true,
            })
        };
        match at(&shell.home) {
            Err(SpawnError::Directory { .. }) => at(Path::new("/")),
            started => started,
        }
    }
}
