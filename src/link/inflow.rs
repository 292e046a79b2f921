//! Pauses reading while the read limit demands it, and while the loop has no room for more.
//!
//! Nothing is dropped: during a pause the socket is not read, and TCP slows the console down. A console that goes on
//! sending delays its own Pongs and so loses its link.

use async_io::Timer;
use draupnir_fsm::driver::ReadLimiter;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future as _;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

/// While this many bytes wait for the loop, no further message is read. A flood takes this much memory and one of the
/// largest messages.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// Pauses reading for as long as the [`ReadLimiter`] says.
#[derive(Debug)]
pub(super) struct ReadPause {
    limiter: ReadLimiter,
    start: Instant,
    pause: Option<Timer>,
}

impl Default for ReadPause {
    fn default() -> Self {
        Self { limiter: ReadLimiter::default(), start: Instant::now(), pause: None }
    }
}

impl ReadPause {
    /// Counts bytes that were read.
    pub(super) fn charge_bytes(&mut self, bytes: usize) {
        self.charge(0, bytes as u64);
    }

    /// Counts a message, a Ping or a Pong.
    pub(super) fn charge_message(&mut self) {
        self.charge(1, 0);
    }

    /// Ready when more may be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn charge(&mut self, messages: u64, bytes: u64) {
        let now_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(pause_ns) = self.limiter.charge(now_ns, messages, bytes) {
            self.pause = Some(Timer::after(Duration::from_nanos(pause_ns)));
        }
    }
}

/// The messages that were read on one link and that the loop has not handled.
#[derive(Clone, Default)]
pub(super) struct InboundQueue(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    bytes: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl InboundQueue {
    /// A message for the loop, which makes room when it is dropped.
    pub(super) fn hold(&self, text: String) -> Received {
        self.0.bytes.set(self.0.bytes.get() + text.len());
        Received { text, backlog: self.clone() }
    }

    /// Ready when there is room for another.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.bytes.get() < WAITING_BYTES_MAX {
            return Poll::Ready(());
        }
        self.0.reader.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// The text of a message; counts as waiting until it is dropped.
pub struct Received {
    text: String,
    backlog: InboundQueue,
}

impl Deref for Received {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let waiting = &self.backlog.0;
        waiting.bytes.set(waiting.bytes.get() - self.text.len());
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_fn, poll_once};

    #[test]
    fn no_more_is_read_than_the_loop_has_room_for() {
        let backlog = InboundQueue::default();
        let room = || block_on(poll_once(poll_fn(|cx| backlog.poll_room(cx)))).is_some();
        let first = backlog.hold("x".repeat(WAITING_BYTES_MAX - 1));
        assert!(room());
        let second = backlog.hold("xy".to_owned());
        assert!(!room());
        drop(first);
        assert!(room());
        assert_eq!(&*second, "xy");
    }
}
