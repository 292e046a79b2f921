//! Descriptors as bare numbers: those that a library owns and lends, and those that an exec leaves open.
//!
//! It closes nothing that is not its caller's.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Takes a descriptor that the program before this one left open across the exec. It is closed by the next one.
///
/// # Errors
/// It is not open, is a standard stream, or belongs to this program already. An exec closes everything that this
/// program opens, so a descriptor that would stay open is inherited.
pub fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: a plain system call on a number; one that is not open is an error.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and no code of this program has it, because it would close it at an exec. From now on it does
    // so, too, and cannot be taken twice.
    let taken = unsafe { OwnedFd::from_raw_fd(descriptor) };
    leave_open(descriptor, false)?;
    Ok(taken)
}

/// Sets whether a descriptor stays open across the next exec.
///
/// # Errors
/// It is not open.
pub fn leave_open(descriptor: RawFd, stays: bool) -> io::Result<()> {
    let flags = if stays { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: a plain system call on a number; one that is not open is an error.
    match unsafe { libc::fcntl(descriptor, libc::F_SETFD, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A duplicate of a descriptor, closed by an exec. The number is that of an open descriptor, or the result an error.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is not -1, and the kernel refuses a number that is not open.
    let lent = unsafe { BorrowedFd::borrow_raw(descriptor) };
    lent.try_clone_to_owned()
}
