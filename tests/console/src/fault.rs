//! A byte stream with faults on demand: it reads slowly, ends after a number of bytes, or withholds pongs.
//!
//! It knows only where frames of the console begin, and never changes a byte that it passes on. Units: bytes, bytes a
//! second.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use smol::Timer;

/// How often a throttled stream may read; each time it reads what has become due.
const THROTTLE_STEP: Duration = Duration::from_millis(10);

/// The second nibble of a pong's first byte.
const OPCODE_PONG: u8 = 0xA;

/// The stream.
#[derive(Debug)]
pub(crate) struct Faults<S> {
    inner: S,
    /// Bytes that may still be read before the cut.
    pub(crate) cut_after: Option<u64>,
    rate: Option<Rate>,
    /// Whether pongs are dropped instead of written.
    pub(crate) withholds_pongs: bool,
    /// Bytes left of the frame that is being written.
    frame_left: u64,
    /// Bytes left of a pong that is being dropped.
    swallow_left: usize,
}

#[derive(Debug)]
struct Rate {
    bytes_per_second: u64,
    allowance: u64,
    last: Instant,
    timer: Timer,
}

impl<S> Faults<S> {
    pub(crate) fn new(inner: S) -> Faults<S> {
        Faults { inner, cut_after: None, rate: None, withholds_pongs: false, frame_left: 0, swallow_left: 0 }
    }

    /// Reads at most this many bytes a second from now on; `None`: as fast as they come.
    pub(crate) fn throttle(&mut self, bytes_per_second: Option<u64>) {
        self.rate = bytes_per_second.map(|bytes_per_second| Rate {
            bytes_per_second,
            allowance: 0,
            last: Instant::now(),
            timer: Timer::after(THROTTLE_STEP),
        });
    }

    /// The stream below, for bytes that are no frame.
    pub(crate) fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// How many bytes may be read now.
    fn poll_allowance(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut allowed = wanted;
        if let Some(left) = self.cut_after {
            if left == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, CUT)));
            }
            allowed = allowed.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if let Some(rate) = &mut self.rate {
            let due = std::task::ready!(rate.poll_due(cx));
            allowed = allowed.min(usize::try_from(due).unwrap_or(usize::MAX));
        }
        Poll::Ready(Ok(allowed))
    }
}

/// The error text that the reader gets at the cut.
const CUT: &str = "cut, as the test wanted";

/// Whether this error is the scripted cut.
pub(crate) fn is_cut(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionAborted && error.to_string() == CUT
}

impl Rate {
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        while self.allowance == 0 {
            std::task::ready!(Pin::new(&mut self.timer).poll(cx));
            let elapsed_us = u64::try_from(self.last.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.allowance = (self.bytes_per_second.saturating_mul(elapsed_us) / 1_000_000).min(self.bytes_per_second);
            if self.allowance > 0 {
                self.last = Instant::now();
            }
            self.timer.set_after(THROTTLE_STEP);
        }
        Poll::Ready(self.allowance)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Faults<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let allowed = std::task::ready!(self.poll_allowance(cx, buf.len()))?;
        let Some(window) = buf.get_mut(..allowed) else {
            return Poll::Ready(Err(io::Error::other("more is allowed than was asked for")));
        };
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, window))?;
        if let Some(left) = &mut self.cut_after {
            *left -= read as u64;
        }
        if let Some(rate) = &mut self.rate {
            rate.allowance -= read as u64;
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Faults<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallow_left > 0 || (self.frame_left == 0 && self.withholds_pongs && is_pong(buf)) {
            if self.swallow_left == 0 {
                self.swallow_left = 2 + usize::from(buf.get(1).copied().unwrap_or(0) & 0x7f);
            }
            let swallowed = self.swallow_left.min(buf.len());
            self.swallow_left -= swallowed;
            return Poll::Ready(Ok(swallowed));
        }
        if self.frame_left == 0 {
            self.frame_left = frame_len(buf);
        }
        let end = usize::try_from(self.frame_left).unwrap_or(usize::MAX).min(buf.len());
        let frame = buf.get(..end).unwrap_or(buf);
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, frame))?;
        self.frame_left -= written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

fn is_pong(frame: &[u8]) -> bool {
    frame.first().is_some_and(|byte| byte & 0x0f == OPCODE_PONG)
}

/// The length of the frame that begins here, header included (a server's frames carry no mask). The WebSocket library
/// hands over whole headers; anything shorter is passed on as it is.
fn frame_len(frame: &[u8]) -> u64 {
    let Some(short) = frame.get(1).map(|byte| u64::from(byte & 0x7f)) else {
        return frame.len() as u64;
    };
    let long = |bytes: Option<&[u8]>| {
        let bytes = bytes?;
        let payload = bytes.iter().fold(0, |len: u64, byte| len << 8 | u64::from(*byte));
        Some(2 + bytes.len() as u64 + payload)
    };
    match short {
        126 => long(frame.get(2..4)),
        127 => long(frame.get(2..10)),
        len => Some(2 + len),
    }
    .unwrap_or(frame.len() as u64)
}

#[cfg(test)]
mod tests {
    use futures_lite::{AsyncReadExt, AsyncWriteExt, io::Cursor};

    use super::*;

    #[test]
    fn lengths_of_frames() {
        assert_eq!(frame_len(&[0x81, 5, 0, 0]), 7);
        assert_eq!(frame_len(&[0x81, 126, 1, 0]), 4 + 256);
        assert_eq!(frame_len(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]), 10 + 65_536);
    }

    #[test]
    fn pongs_are_kept_back_and_nothing_else() {
        smol::block_on(async {
            let mut stream = Faults::new(Cursor::new(Vec::new()));
            stream.withholds_pongs = true;
            stream.write_all(b"\x81\x02hi\x8a\x03abc\x81\x02yo\x8a\x00\x81\x01!").await.expect("written");
            assert_eq!(stream.inner_mut().get_ref(), b"\x81\x02hi\x81\x02yo\x81\x01!");
        });
    }

    #[test]
    fn the_cut_comes_after_exactly_so_many_bytes() {
        smol::block_on(async {
            let mut stream = Faults::new(Cursor::new(vec![7_u8; 100]));
            stream.cut_after = Some(33);
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.expect_err("cut");
            assert!(is_cut(&error));
            assert_eq!(read.len(), 33);
        });
    }
}
