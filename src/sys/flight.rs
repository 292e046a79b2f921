//! Keeps the memory that a child uses between its start and its exec, and bounds the sum of it.
//!
//! Invariant: the memory is freed only after the child has left it, which the end of its pipe shows.

use super::exec::{ERROR_BYTES, Memory};
use async_io::Async;
use rustix::io::Errno;
use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many programs may be starting at once: all 256 sessions and 16 commands, and 48 given-up starts that hang on a
/// file system that does not answer.
pub const STARTS_MAX: usize = 320;

/// The memory that programs which are about to start may hold, in bytes of arguments and variables: 16 commands of the
/// longest message there is, and as much again.
pub const STARTS_BYTES_MAX: usize = 32 << 20;

thread_local! {
    /// Children that were killed before their exec and may still run. Each start checks whether they have ended.
    static ABANDONED: RefCell<Vec<Flight>> = const { RefCell::new(Vec::new()) };
}

/// What a child uses until its exec.
pub(super) struct Flight {
    /// Only the child has its writing end. The exec or the end of the child closes it, after the child has left the
    /// memory.
    pipe: Async<OwnedFd>,
    memory: ManuallyDrop<Box<Memory>>,
    has_left: bool,
    _share: Share,
}

impl Flight {
    /// That of a child whose pipe this is.
    pub(super) fn new(pipe: Async<OwnedFd>, memory: Box<Memory>, share: Share) -> Self {
        Self { pipe, memory: ManuallyDrop::new(memory), has_left: false, _share: share }
    }

    /// Whether the child has left the memory, as far as was read.
    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.pipe.readable().await
    }

    /// Keeps it until the killed child has left it.
    pub(super) fn abandon(self) {
        // At the end of the thread there is no list any more, and the memory stays.
        let _ = ABANDONED.try_with(|abandoned| abandoned.borrow_mut().push(self));
    }

    /// Reads the pipe; true at its end, when the child has left the memory.
    pub(super) fn hear(&mut self, said: &mut Vec<u8>) -> bool {
        let mut bytes = [0; ERROR_BYTES];
        while !self.has_left {
            match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(0) => self.has_left = true,
                Ok(count) => said.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.has_left
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.has_left {
            // SAFETY: the child has left the memory, and it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

/// What all starts together hold.
#[derive(Debug, Default)]
struct InFlight {
    starts: usize,
    bytes: usize,
}

static IN_FLIGHT: Mutex<InFlight> = Mutex::new(InFlight { starts: 0, bytes: 0 });

fn in_flight() -> MutexGuard<'static, InFlight> {
    IN_FLIGHT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The share of one start.
#[derive(Debug)]
pub(super) struct Share {
    bytes: usize,
}

impl Share {
    /// `None` if too many starts hang.
    pub(super) fn take(bytes: usize) -> Option<Self> {
        ABANDONED.with_borrow_mut(|abandoned| abandoned.retain_mut(|flight| !flight.hear(&mut Vec::new())));
        let mut all = in_flight();
        if all.starts >= STARTS_MAX || all.bytes.saturating_add(bytes) > STARTS_BYTES_MAX {
            return None;
        }
        all.starts += 1;
        all.bytes += bytes;
        Some(Self { bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = in_flight();
        all.starts -= 1;
        all.bytes -= self.bytes;
    }
}
