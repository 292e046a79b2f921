//! Which of many open files and directories change: one kqueue of macOS for all of them.
//!
//! Nothing on Linux can run it: `tests/scripts/static-binaries` compiles it, and only the tests on macOS try it.

use rustix::event::kqueue::{Event, EventFilter, EventFlags, VnodeEvents, kevent, kqueue};
use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// How many events are taken at once.
const EVENTS_MAX: usize = 64;

/// What is asked for: writing, truncating, renaming and removing. A directory is written to when a name in it changes.
const EVENTS: VnodeEvents = VnodeEvents::WRITE
    .union(VnodeEvents::EXTEND)
    .union(VnodeEvents::ATTRIBUTES)
    .union(VnodeEvents::RENAME)
    .union(VnodeEvents::DELETE);

/// What moves a file or directory away from its name.
const MOVES: VnodeEvents = VnodeEvents::RENAME.union(VnodeEvents::DELETE);

/// One kqueue.
#[derive(Debug)]
pub struct VnodeQueue(OwnedFd);

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnodeChange {
    /// The descriptor by which it is watched.
    pub descriptor: RawFd,
    /// It was renamed or removed.
    pub is_moved: bool,
}

impl VnodeQueue {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn new() -> io::Result<Self> {
        let queue = kqueue()?;
        fcntl_setfd(&queue, FdFlags::CLOEXEC)?;
        Ok(Self(queue))
    }

    /// A descriptor that is readable when there are changes.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Watches this file or directory until its descriptor is closed; once more is no error.
    ///
    /// # Errors
    /// Its file system cannot tell.
    pub fn watch(&self, vnode: BorrowedFd<'_>) -> io::Result<()> {
        let filter = EventFilter::Vnode { vnode: vnode.as_raw_fd(), flags: EVENTS };
        let change = Event::new(filter, EventFlags::ADD | EventFlags::CLEAR, std::ptr::null_mut());
        // SAFETY: the descriptor is open during the call, and the kernel forgets the filter when it is closed.
        unsafe { kevent(&self.0, &[change], &mut [MaybeUninit::uninit(); 0], Some(Duration::ZERO)) }?;
        Ok(())
    }

    /// What has changed since this was last asked, in no order.
    ///
    /// # Errors
    /// The kernel is out of memory.
    pub fn take_changes(&self) -> io::Result<Vec<VnodeChange>> {
        let mut changes = Vec::new();
        loop {
            let mut buffer = [MaybeUninit::uninit(); EVENTS_MAX];
            // SAFETY: nothing is added to the queue, so that no descriptor is named.
            let (events, _) = unsafe { kevent(&self.0, &[], &mut buffer, Some(Duration::ZERO)) }?;
            changes.extend(events.iter().filter_map(|event| match event.filter() {
                EventFilter::Vnode { vnode, flags } => {
                    Some(VnodeChange { descriptor: vnode, is_moved: flags.intersects(MOVES) })
                }
                _ => None,
            }));
            if events.len() < EVENTS_MAX {
                return Ok(changes);
            }
        }
    }
}
