//! One pseudo-terminal: its master end on the reactor, its size, and the process groups behind it.
//!
//! The caller gets the slave end and starts the shell.

use async_io::Async;
use rustix::process::{Pid, Signal, getsid, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcsetattr, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

impl Size {
    fn to_pty(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.cols, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// The master end.
#[derive(Debug)]
pub(super) struct Pty {
    io: Async<OwnedFd>,
}

impl Pty {
    /// A new terminal of this size, and its slave end.
    pub(super) fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let master = open_master()?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = open_slave(&master)?;
        // macOS takes a size only once the slave end is open.
        tcsetwinsize(&master, size.to_pty())?;
        // With IUTF8 the kernel erases whole characters when it edits lines.
        if let Ok(mut attributes) = tcgetattr(&slave) {
            attributes.input_modes |= InputModes::IUTF8;
            let _ = tcsetattr(&slave, OptionalActions::Now, &attributes);
        }
        Ok((Self { io: Async::new(master)? }, slave))
    }

    /// Its descriptor, on the reactor.
    pub(super) const fn io(&self) -> &Async<OwnedFd> {
        &self.io
    }

    /// Reads the available output. 0 bytes mean the end: no process has the slave end open.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.io, &mut *into)) {
            // Linux reports the end of a terminal so.
            Err(rustix::io::Errno::IO) => Ok(0),
            read => Ok(read?),
        }
    }

    /// Writes as much as the terminal takes now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(&self.io, bytes))?)
    }

    /// Sets the size. The kernel sends SIGWINCH if it differs.
    pub(super) fn resize(&self, size: Size) {
        // It fails only for a terminal that is gone.
        let _ = tcsetwinsize(&self.io, size.to_pty());
    }

    /// Signals the process group in the foreground, if it is of this session.
    pub(super) fn signal_foreground(&self, session: Pid, signals: &[Signal]) {
        let Ok(group) = tcgetpgrp(self.io.as_fd()) else {
            return;
        };
        // `getsid` fails if the leader of the group is gone, and returns another session if its number was reused.
        if getsid(Some(group)).is_ok_and(|of| of != session) {
            return;
        }
        for signal in signals {
            let _ = kill_process_group(group, *signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn open_master() -> io::Result<OwnedFd> {
    Ok(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?)
}

/// macOS sets close-on-exec in a second step. Meanwhile no program starts: the same thread starts them.
#[cfg(not(target_os = "linux"))]
fn open_master() -> io::Result<OwnedFd> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
    Ok(master)
}

#[cfg(target_os = "linux")]
fn open_slave(master: &OwnedFd) -> io::Result<OwnedFd> {
    // It works even if the devpts of the terminal is not the one mounted for the agent.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).or_else(|_| open_slave_by_name(master))
}

#[cfg(not(target_os = "linux"))]
fn open_slave(master: &OwnedFd) -> io::Result<OwnedFd> {
    open_slave_by_name(master)
}

fn open_slave_by_name(master: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let name = ptsname(master, Vec::new())?;
    Ok(rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?)
}
