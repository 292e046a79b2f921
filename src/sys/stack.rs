//! The stack of a child that borrows the agent's memory between its fork and its exec.
//!
//! It starts nothing (`exec.rs` does). Invariant: below the stack lies a page that nothing may touch, so that a child
//! which needs more than it has ends at once and overwrites nothing of the agent's.

use libc::c_void;
use std::io;

/// Bytes of the child's stack: a handful of frames of a few hundred bytes, and room for a libc that thinks otherwise.
const STACK_BYTES: usize = 64 * 1024;

/// The child's stack, with a page below it that nothing may touch.
pub(super) struct Stack {
    base: *mut c_void,
}

impl Stack {
    /// A fresh one.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping belongs to nobody else.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the first page lies within the mapping.
        if unsafe { libc::mprotect(base, rustix::param::page_size(), libc::PROT_NONE) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Where the child begins: stacks grow downwards on every machine Linux runs the agent on.
    pub(super) fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.cast::<u8>().add(STACK_BYTES).cast() }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the child has left it.
        unsafe { libc::munmap(self.base, STACK_BYTES) };
    }
}
