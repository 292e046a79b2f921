//! One pseudo-terminal: its master end on the reactor, its size, and the process groups behind it.
//!
//! The caller gets the slave end and starts the shell. `portable-pty` opens; all else goes through a non-blocking
//! duplicate of its descriptor, which an earlier program may have opened.

pub(super) use super::screen::Size;
use crate::sys::descriptor::duplicate;
use crate::sys::session::session_of;
use async_io::Async;
use portable_pty::{MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcsetattr, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

fn to_pty(size: Size) -> PtySize {
    PtySize { rows: size.rows, cols: size.cols, pixel_width: 0, pixel_height: 0 }
}

/// The master end.
#[derive(Debug)]
pub(super) struct Pty {
    io: Async<OwnedFd>,
}

impl Pty {
    /// A new terminal of this size, and its slave end.
    pub(super) fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let pair = native_pty_system().openpty(to_pty(size)).map_err(in_words)?;
        let master = pair.master;
        let descriptor = master.as_raw_fd().ok_or_else(|| io::Error::other("a terminal without a descriptor"))?;
        let io = duplicate(descriptor)?;
        let slave = open_slave(&io, master.as_ref())?;
        // With IUTF8 the kernel erases whole characters when it edits lines.
        if let Ok(mut attributes) = tcgetattr(&slave) {
            attributes.input_modes |= InputModes::IUTF8;
            let _ = tcsetattr(&slave, OptionalActions::Now, &attributes);
        }
        Ok((Self::over(io)?, slave))
    }

    /// A terminal that is open already.
    pub(super) fn over(master: OwnedFd) -> io::Result<Self> {
        Ok(Self { io: Async::new(master)? })
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
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = tcsetwinsize(&self.io, size);
    }

    /// Signals the process group in the foreground, if it is of this session and not that of its leader.
    pub(super) fn signal_foreground(&self, session: Pid, signals: &[Signal]) {
        let Some(group) = tcgetpgrp(self.io.as_fd()).ok().filter(|group| *group != session) else {
            return;
        };
        // It fails if the leader of the group is gone, and is another session if its number was reused.
        if session_of(group).is_ok_and(|of| of != Some(session)) {
            return;
        }
        for signal in signals {
            let _ = kill_process_group(group, *signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn open_slave(master: &OwnedFd, pty: &dyn MasterPty) -> io::Result<OwnedFd> {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
    // It works even if the devpts of the terminal is not the one mounted for the agent.
    ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .or_else(|_| open_slave_by_name(pty))
}

#[cfg(not(target_os = "linux"))]
fn open_slave(_master: &OwnedFd, pty: &dyn MasterPty) -> io::Result<OwnedFd> {
    open_slave_by_name(pty)
}

fn open_slave_by_name(pty: &dyn MasterPty) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let name = pty.tty_name().ok_or_else(|| io::Error::other("a terminal without a name"))?;
    Ok(rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The library's error as an I/O error.
fn in_words(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
