//! The stack of a child that borrows the agent's memory between its fork and its exec.
//!
//! `exec.rs` starts the child. Invariant: a guard page lies below the stack, so that a child that overflows it ends at
//! once and overwrites no memory of the agent.

use libc::c_void;
use std::io;

/// Bytes of the child's stack: a handful of frames of a few hundred bytes, and room for a libc that needs more.
const STACK_BYTES: usize = 64 * 1024;

/// The child's stack with the guard page below it.
pub(super) struct Stack {
    base: *mut c_void,
}

impl Stack {
    /// Maps a new stack.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no other code uses a fresh anonymous mapping.
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
