//! Descriptors that a library owns and lends as a bare number.
//!
//! It closes nothing that it did not open.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A duplicate of a descriptor, closed by an exec. The number is that of an open descriptor, or the result an error.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is not -1, and the kernel refuses a number that is not open.
    let lent = unsafe { BorrowedFd::borrow_raw(descriptor) };
    lent.try_clone_to_owned()
}
