//! Reads one output pipe of a command into its capture, and into the stream that the console watches.
//!
//! It never blocks. An output that is not streamed is read as it comes, since its capture is bounded. A streamed one is
//! read no faster than [`Pipe::grant`] permits, so that its command waits as it would for a slow terminal.

use super::capture::{Capture, Grant, Output};
use super::hand_over::{SavedOutput, SavedStream};
use crate::ring::{RING_BYTES_MIN, Ring};
use async_io::Async;
use draupnir_fsm::driver::budget::Budget;
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// How much is read at once, in bytes: what a pipe holds.
pub(super) const READ_BYTES: usize = 64 << 10;

/// How much is read of a pipe after its command has ended, in bytes: what it holds, with room for larger pipes. A
/// background program could fill the pipe for ever.
const REST_BYTES_MAX: usize = 1 << 20;

/// How much of a streamed output is kept to send it again, in bytes: as much as of a terminal.
pub(super) const STREAM_BYTES_MAX: usize = 256 << 10;

/// The streamed output that the console has not acknowledged; outlives its command.
#[derive(Debug)]
pub(super) struct Watched {
    ring: Ring,
    grant: Grant,
    /// No byte will follow.
    ended: bool,
}

impl Watched {
    pub(super) fn new(budget: Rc<Budget>) -> Self {
        Self { ring: Ring::new(RING_BYTES_MIN, STREAM_BYTES_MAX), grant: Grant::new(budget), ended: false }
    }

    /// What is kept of it, for the next program.
    pub(super) fn save(&self) -> SavedStream {
        let (older, newer) = self.ring.slices(0, usize::MAX);
        SavedStream { end: self.ring.held().end, has_ended: self.ended, kept: [older, newer].concat() }
    }

    /// What the program before this one kept, as far as the budget allows.
    pub(super) fn restore(budget: Rc<Budget>, saved: &SavedStream) -> Self {
        let mut watched = Self { ended: saved.has_ended, ..Self::new(budget) };
        watched.ring.begin_at(saved.end.saturating_sub(saved.kept.len() as u64));
        watched.push(&saved.kept);
        watched
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Has the output ended, so that an incomplete character at its end must be sent too?
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    fn push(&mut self, bytes: &[u8]) {
        self.ring.push(bytes, |step| self.grant.grow(step), |_| {});
    }
}

/// The reading end of an output.
#[derive(Debug)]
pub(super) struct Pipe {
    reads: Rc<Async<OwnedFd>>,
    capture: RefCell<Capture>,
    watched: Option<Rc<RefCell<Watched>>>,
    credit: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

/// The outcome of one attempt to read.
enum Progress {
    Read(usize),
    Nothing,
    End,
}

impl Pipe {
    pub(super) fn new(reads: Async<OwnedFd>, budget: Rc<Budget>, watched: Option<Rc<RefCell<Watched>>>) -> Self {
        let credit = if watched.is_some() { 0 } else { usize::MAX };
        Self {
            reads: Rc::new(reads),
            capture: RefCell::new(Capture::new(budget)),
            watched,
            credit: Cell::new(credit),
            waker: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    /// An output of a command of the program before this one; `None` if there is no descriptor left to stand for a pipe
    /// whose end was read.
    pub(super) fn restore(
        reads: Option<Async<OwnedFd>>,
        saved: &SavedOutput,
        budget: Rc<Budget>,
        watched: Option<Rc<RefCell<Watched>>>,
    ) -> Option<Self> {
        let closed = reads.is_none();
        let reads = match reads {
            Some(reads) => reads,
            // It is at its end at once.
            None => Async::new(OwnedFd::from(std::io::pipe().ok()?.0)).ok()?,
        };
        let pipe = Self::new(reads, Rc::clone(&budget), watched);
        pipe.capture.replace(Capture::restore(budget, saved.bytes, &saved.head, &saved.tail));
        pipe.closed.set(closed);
        Some(pipe)
    }

    /// Its descriptor and what was captured, for the next program.
    pub(super) fn save(&self) -> SavedOutput {
        let (bytes, head, tail) = self.capture.borrow().save();
        SavedOutput { bytes, head, tail, ..self.save_pipe() }
    }

    /// Its descriptor alone.
    pub(super) fn save_pipe(&self) -> SavedOutput {
        let pipe = (!self.closed.get()).then(|| self.reads.as_raw_fd());
        SavedOutput { pipe, ..SavedOutput::default() }
    }

    /// Sets how much of a streamed output may be read from now on, in bytes.
    pub(super) fn grant(&self, bytes: usize) {
        if self.watched.is_none() {
            return;
        }
        self.credit.set(bytes);
        if bytes > 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Reads once; true if there was output, false at the end. Yields to the reactor after each read, so that a command
    /// that prints without end does not starve the others.
    pub(super) async fn read(&self) -> bool {
        loop {
            if self.closed.get() {
                return false;
            }
            self.wait_for_credit().await;
            if self.reads.readable().await.is_err() {
                self.end();
                return false;
            }
            // The loop withdrew the permission meanwhile. A read of 0 bytes would look like the end.
            let credit = self.credit.get();
            if credit == 0 {
                continue;
            }
            match self.read_now(credit) {
                Progress::Read(bytes) => {
                    if self.watched.is_some() {
                        self.credit.set(self.credit.get().saturating_sub(bytes));
                    }
                    return true;
                }
                Progress::Nothing => {}
                Progress::End => return false,
            }
        }
    }

    /// Reads what is in the pipe now, without a permission: the command has ended and its result holds this output.
    /// Returns the pipe if another program may still write into it.
    pub(super) fn read_rest(&self) -> Option<Rc<Async<OwnedFd>>> {
        let mut left = REST_BYTES_MAX;
        while left > 0 && !self.closed.get() {
            match self.read_now(left) {
                Progress::Read(bytes) => left = left.saturating_sub(bytes),
                Progress::Nothing | Progress::End => break,
            }
        }
        let is_open = !self.closed.get();
        self.end();
        is_open.then(|| Rc::clone(&self.reads))
    }

    /// What is kept for the result.
    pub(super) fn take(&self) -> Output {
        self.capture.borrow_mut().take()
    }

    async fn wait_for_credit(&self) {
        poll_fn(|context| {
            if self.credit.get() > 0 {
                return Poll::Ready(());
            }
            self.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn read_now(&self, bytes_max: usize) -> Progress {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let room = buffer.get_mut(..bytes_max.min(READ_BYTES)).unwrap_or_default();
        match rustix::io::read(self.reads.as_fd(), room) {
            Ok(([], _)) => {
                self.end();
                Progress::End
            }
            Ok((bytes, _)) => {
                self.capture.borrow_mut().push(bytes);
                if let Some(watched) = &self.watched {
                    watched.borrow_mut().push(bytes);
                }
                Progress::Read(bytes.len())
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Nothing,
            Err(_) => {
                self.end();
                Progress::End
            }
        }
    }

    fn end(&self) {
        self.closed.set(true);
        if let Some(watched) = &self.watched {
            watched.borrow_mut().ended = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::io::Write as _;

    #[test]
    fn withdrawn_credit_is_not_the_end() {
        let (reads, mut writes) = std::io::pipe().expect("a pipe");
        let budget = Rc::new(Budget::new());
        let watched = Rc::new(RefCell::new(Watched::new(Rc::clone(&budget))));
        let reads = Async::new(OwnedFd::from(reads)).expect("it can be watched");
        let pipe = Pipe::new(reads, budget, Some(watched));
        pipe.grant(10);
        let mut read = Box::pin(pipe.read());
        assert_eq!(block_on(poll_once(&mut read)), None, "there is nothing yet");
        pipe.grant(0);
        writes.write_all(b"more").expect("there is room");
        block_on(pipe.reads.readable()).expect("it is readable");
        assert_eq!(block_on(poll_once(&mut read)), None, "nothing may be read");
        pipe.grant(10);
        assert!(block_on(read), "it has not ended");
        assert!(!pipe.closed.get());
    }
}
