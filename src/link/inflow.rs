//! How much a console may send: no faster than it costs this machine little, and no more than the loop has room for.
//!
//! It reads nothing and drops nothing: while too much was sent, the socket is left alone, and TCP holds the console up.
//! One that sends on all the same has its own Pongs behind that, and loses its link.

use async_io::Timer;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future as _;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

/// While this much waits for the loop, in bytes, no further message is read. With one of the largest messages on top it is
/// the memory that a flood can take.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// What a message counts as, however short: 5,000 a second. To decode one and to log or answer it takes some ten
/// microseconds; sixty-four people who type make 2,000.
const MESSAGE_COST: Duration = Duration::from_micros(200);

/// What a byte counts as: 16 MiB a second, which take some percent of a processor. Nothing that people do comes near.
const BYTE_COST: Duration = Duration::from_nanos(60);

/// How much may come at once, as time that it counts as: 10,000 messages, or 32 MiB. A large paste passes undelayed.
const BURST: Duration = Duration::from_secs(2);

/// The least that a pause lasts: shorter ones would cost more than what they hold up.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// What has been read lately, counted as time, and the pause that follows from too much.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Until when what was read is paid for; in the past where little was.
    paid_until: Option<Instant>,
    pause: Option<Timer>,
}

impl Pace {
    /// Counts bytes that were read.
    pub(super) fn charge_bytes(&mut self, bytes: usize) {
        self.charge(Instant::now(), BYTE_COST.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    /// Counts a message, a Ping or a Pong.
    pub(super) fn charge_message(&mut self) {
        self.charge(Instant::now(), MESSAGE_COST);
    }

    /// Ready when more may be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn charge(&mut self, now: Instant, cost: Duration) {
        let paid_until = self.paid_until.map_or(now, |until| until.max(now)) + cost;
        self.paid_until = Some(paid_until);
        let excess = paid_until.saturating_duration_since(now).saturating_sub(BURST);
        if !excess.is_zero() {
            self.pause = Some(Timer::at(now + excess.max(PAUSE_MIN)));
        }
    }
}

/// What was read on one link and the loop has not taken in.
#[derive(Clone, Default)]
pub(super) struct Backlog(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    bytes: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl Backlog {
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

/// The text of a message, as long as somebody needs it.
pub struct Received {
    text: String,
    backlog: Backlog,
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

    /// How long nothing may be read after `messages` of `bytes` each, sent at once.
    fn pause_ms(messages: u32, bytes: usize) -> u128 {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..messages {
            pace.charge(now, MESSAGE_COST);
            pace.charge(now, BYTE_COST * u32::try_from(bytes).expect("small"));
        }
        let ready = block_on(poll_once(poll_fn(|cx| pace.poll_ready(cx)))).is_some();
        assert_eq!(ready, pace.pause.is_none());
        let paid = pace.paid_until.expect("something was read").duration_since(now);
        if pace.pause.is_some() { paid.saturating_sub(BURST).max(PAUSE_MIN).as_millis() } else { 0 }
    }

    #[test]
    fn what_people_do_is_never_held_up() {
        assert_eq!(pause_ms(10_000, 0), 0);
        assert_eq!(pause_ms(31, 1 << 20), 0);
    }

    #[test]
    fn a_flood_is_read_as_fast_as_it_may_be() {
        assert_eq!(pause_ms(10_001, 0), 50);
        assert_eq!(pause_ms(15_000, 0), 1_000);
        assert_eq!(pause_ms(64, 1 << 20), 2_039);
    }

    #[test]
    fn what_was_read_is_paid_by_and_by() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        for second in 0..10 {
            for _ in 0..5_000 {
                pace.charge(begin + Duration::from_secs(second), MESSAGE_COST);
            }
        }
        assert!(pace.pause.is_none());
    }

    #[test]
    fn no_more_is_read_than_the_loop_has_room_for() {
        let backlog = Backlog::default();
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
