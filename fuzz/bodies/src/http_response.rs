//! Any bytes, as the console's answer to a registration: what the agent reports of it, and what the driver does then.
//!
//! The first byte chooses key, jitter, the size of the pieces, and whether the stream ends or breaks; the other bytes
//! are the answer. The target checks (CONSOLE.md, "Registration") that
//!
//! - reading an answer never panics, never holds more memory than a bounded multiple of it, and gives the same result
//!   for all sizes of pieces;
//! - its reported text is one printable line of bounded length without the key, and so is a redirect's target;
//! - an id is 1–100 visible ASCII characters;
//! - for an answer that can be read without a parser, that reading gives the same result;
//! - the next attempt comes when the public description says so: `Retry-After` is honoured and clamped.

mod plain;

use crate::aftermath::{Aftermath, Next};
use crate::{heap, secrecy};
use draupnir::link::{Registered, exchange_registration};
use draupnir::protocol::InstanceId;
use draupnir_fsm::driver::{Action, Input, ProviderName, RegisterPath};
use futures_lite::future;
use futures_lite::io::{AsyncRead, AsyncWrite};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The most bytes of memory for each byte of an answer. The worst case is a list of small objects in the body, each of
/// which becomes a node of a tree.
const FACTOR: usize = 128;

/// The memory beyond that, in bytes: one read from the socket, the head, the text.
const BASE_BYTES: usize = 64 * 1024;

/// An answer of this length, in bytes, or less reaches no limit of the reader.
const SHORT_BYTES_MAX: usize = 16 * 1024;

/// How long the reading of one answer may take on a busy machine, in milliseconds.
const CLOCK_MS_MAX: u64 = 60_000;

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let Some((choice, answer)) = input.split_first() else { return };
    let key = secrecy::key(*choice);
    let read = |piece_bytes, breaks| {
        let mut stream = Answering { answer, piece_bytes, breaks };
        future::block_on(exchange_registration(&mut stream, b"POST / HTTP/1.1\r\n\r\n", &key))
    };
    let (whole, taken) = heap::taken_by(|| read(usize::MAX, false));
    assert!(taken.at_once <= answer.len() * FACTOR + BASE_BYTES, "{} bytes for {}", taken.at_once, answer.len());
    let whole = whole.ok();
    if answer.len() <= SHORT_BYTES_MAX {
        let piece_bytes = [1, 2, 3, 5, 16, 64, 1000, 4096][usize::from(choice >> 2 & 7)];
        let pieces = read(piece_bytes, choice >> 5 & 1 == 1).ok();
        is_same(whole.as_ref(), pieces.as_ref(), piece_bytes);
        if let Some(plain) = plain::read(answer) {
            plain.is_same(whole.as_ref(), &key);
        }
    }
    if let Some(registered) = whole {
        secrecy::assert_loggable(&registered.console_text, &key);
        if let Some(location) = &registered.location {
            assert!((300..400).contains(&registered.status), "a redirect with status {}", registered.status);
            secrecy::assert_loggable(location, &key);
        }
        assert!(registered.id.as_deref().is_none_or(|id| InstanceId::new(id).is_ok()), "{:?}", registered.id);
        assert!(matches!(registered.status, 101 | 200..=999), "status {}", registered.status);
        acts_as_described(&registered, u64::from(*choice));
    }
}

/// An answer gives the same result for all sizes of pieces. If the answer has no `Date`, a date in `Retry-After` is
/// compared with the clock of this machine, which advances meanwhile.
fn is_same(whole: Option<&Registered>, pieces: Option<&Registered>, piece_bytes: usize) {
    let without_wait = |answer: Option<&Registered>| {
        answer.map(|ours| (ours.status, ours.id.clone(), ours.console_text.clone(), ours.location.clone()))
    };
    assert_eq!(without_wait(whole), without_wait(pieces), "in pieces of {piece_bytes} bytes");
    match (whole.and_then(|ours| ours.retry_after_ms), pieces.and_then(|ours| ours.retry_after_ms)) {
        (None, None) => {}
        (Some(first_ms), Some(then_ms)) => assert!(first_ms.abs_diff(then_ms) <= CLOCK_MS_MAX, "{first_ms}, {then_ms}"),
        (first_ms, then_ms) => panic!("{first_ms:?} ms, and in pieces of {piece_bytes} bytes {then_ms:?}"),
    }
}

/// Checks the next action and its delay, by the public description.
fn acts_as_described(answer: &Registered, seed: u64) {
    let (mut aftermath, first) = Aftermath::of_start(false, seed);
    let Action::Register { attempt, path: RegisterPath::Designed, provider: ProviderName::Configured } = first else {
        panic!("{first:?} where nothing is remembered");
    };
    let (status, retry_after_ms) = (answer.status, answer.retry_after_ms);
    let next = aftermath.next_after(Input::RegistrationAnswered { attempt, status, retry_after_ms });
    let is_within = |next: &Next, from: u64, to: u64| (from..=to).contains(&next.waited_ms);
    let is_next = match (status, next.action) {
        // Registered, or already known: the agent dials.
        (200..=299 | 409, Action::Dial { .. }) => next.waited_ms == 0,
        // Only a person can correct the key.
        (401 | 403, Action::Register { .. }) => is_within(&next, 30_000, 90_000),
        (404 | 405, Action::Register { path, .. }) => path == RegisterPath::Observed && next.waited_ms == 0,
        (400 | 422, Action::Register { provider, .. }) => provider == ProviderName::Alias && next.waited_ms == 0,
        (402 | 406 | 407 | 410..=421 | 423 | 424 | 426..=428 | 430..=499, Action::Dial { .. }) => next.waited_ms == 0,
        (101 | 300..=399 | 408 | 425 | 429 | 500..=999, Action::Register { .. }) => match retry_after_ms {
            Some(asked_ms @ 1_000..) => {
                let believed_ms = asked_ms.min(600_000);
                is_within(&next, believed_ms, 2 * believed_ms)
            }
            Some(0..1_000) | None => is_within(&next, 0, 10_000),
        },
        (_, _) => false,
    };
    assert!(is_next, "{next:?} after {answer:?}");
}

/// A console that answers every request with these bytes.
struct Answering<'a> {
    answer: &'a [u8],
    piece_bytes: usize,
    /// Breaks instead of ending.
    breaks: bool,
}

impl AsyncRead for Answering<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = buffer.len().min(self.piece_bytes).min(self.answer.len());
        if count == 0 && self.breaks {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let (piece, rest) = self.answer.split_at(count);
        buffer[..count].copy_from_slice(piece);
        self.answer = rest;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Answering<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
