//! A terminal and a shell on trial, for whoever looks for faults: the very steps of a session, without a session.
//!
//! The shell is told to exit at once. It is not watched, and nothing of it is read: that is the caller's.

use super::Settings;
use super::pty::{Pty, Size};
use super::shell::Shell;
use crate::sys::child::Child;
use crate::sys::spawn::{SpawnError, Start};
use std::io;
use std::os::fd::OwnedFd;

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
    /// It cannot even begin to start.
    pub fn start(&self, settings: &Settings) -> Result<(Child, Start), SpawnError> {
        Shell::new(None, settings).spawn(&["-c".into(), "exit 0".into()], &self.slave)
    }
}
