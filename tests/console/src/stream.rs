//! Assembles the bytes of one terminal, or of one output of a command.
//!
//! Data with an offset is taken once, in order: repeated bytes are dropped, missing ones are recorded as a gap. Data
//! without an offset comes from the agent itself and is counted separately. Units: bytes since the stream's start.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64_simd::{AsOut, STANDARD};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// What is noted as a pause: longer than any that a program makes that prints all the time.
const PAUSE: Duration = Duration::from_millis(100);

/// So many pauses are noted.
const PAUSES_MAX: usize = 1_024;

/// Missing bytes: the stream continued at `offset + missing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the missing bytes begin.
    pub offset: u64,
    /// How many there are.
    pub missing: u64,
}

/// The state of one stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Frames of this stream, all of them.
    pub frames: u64,
    /// Frames marked `replay: true`.
    pub replays: u64,
    /// The offset after its last byte.
    pub end: u64,
    /// Bytes taken (without repeats and without gaps).
    pub bytes: u64,
    /// Bytes that came again.
    pub repeated_bytes: u64,
    /// Bytes without an offset: the agent's own, or all of an agent that sends no offsets.
    pub unnumbered_bytes: u64,
    /// The missing bytes.
    pub gaps: Vec<Gap>,
    /// Frames whose data was not whole UTF-8 by itself.
    pub ragged_frames: u64,
    /// Frames whose data was no base64.
    pub undecodable_frames: u64,
    /// When the first and the last frame came.
    pub first_and_last_at: Option<(Instant, Instant)>,
    /// The first times of at least a tenth of a second between two frames, in order.
    pub pauses: Vec<(Instant, Instant)>,
    /// The taken bytes, unless only counted.
    pub data: Vec<u8>,
    /// Everything as a terminal would show it, in order of arrival, with repeats and the agent's own bytes; empty if
    /// bytes are only counted.
    pub screen: Vec<u8>,
    hash: Sha256,
    scratch: Vec<u8>,
    tap: Option<Tap>,
}

/// A function that gets the bytes as they come.
#[derive(Clone)]
pub(crate) struct Tap(pub(crate) Arc<TapFn>);

type TapFn = dyn Fn(&[u8]) + Send + Sync;

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

impl Stream {
    /// SHA-256 of the taken bytes, in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&self.hash.clone().finalize())
    }

    /// The screen as text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.screen)
    }

    /// Passes the bytes to this tap as they come, or to none.
    pub(crate) fn tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    fn emit(&self, bytes: &[u8]) {
        if let Some(Tap(tap)) = &self.tap {
            tap(bytes);
        }
    }

    /// Takes one frame and returns by how many bytes the kept data grew.
    pub(crate) fn take(&mut self, base64: &str, offset: Option<u64>, replay: bool, keep: bool, now: Instant) -> usize {
        self.frames += 1;
        self.replays += u64::from(replay);
        let before = self.first_and_last_at.map(|(_, last)| last);
        if let Some(last) = before.filter(|last| now - *last >= PAUSE && self.pauses.len() < PAUSES_MAX) {
            self.pauses.push((last, now));
        }
        self.first_and_last_at = Some((self.first_and_last_at.map_or(now, |(first, _)| first), now));
        let mut scratch = std::mem::take(&mut self.scratch);
        let grew = match decode(base64, &mut scratch) {
            Some(data) => self.take_bytes(data, offset, replay, keep),
            None => {
                self.undecodable_frames += 1;
                0
            }
        };
        self.scratch = scratch;
        grew
    }

    fn take_bytes(&mut self, data: &[u8], offset: Option<u64>, replay: bool, keep: bool) -> usize {
        self.ragged_frames += u64::from(std::str::from_utf8(data).is_err());
        if keep {
            self.screen.extend_from_slice(data);
        }
        let Some(offset) = offset else {
            self.unnumbered_bytes += data.len() as u64;
            self.emit(data);
            return if keep { data.len() } else { 0 };
        };
        if offset > self.end {
            self.gaps.push(Gap { offset: self.end, missing: offset - self.end });
            self.end = offset;
        }
        let had = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(data.len());
        let (again, fresh) = data.split_at(had);
        self.repeated_bytes += again.len() as u64;
        self.bytes += fresh.len() as u64;
        self.end += fresh.len() as u64;
        self.hash.update(fresh);
        // A replay is shown again, after the reset before it; other repeats are not.
        self.emit(if replay { data } else { fresh });
        if !keep {
            return 0;
        }
        self.data.extend_from_slice(fresh);
        data.len() + fresh.len()
    }
}

/// Decodes into the scratch buffer, which is reused from frame to frame.
fn decode<'a>(base64: &str, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let len = STANDARD.estimated_decoded_length(base64.len());
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let decoded = STANDARD.decode(base64.as_bytes(), scratch.as_out()).ok()?;
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    fn take(stream: &mut Stream, data: &[u8], offset: Option<u64>) {
        stream.take(&BASE64.encode(data), offset, false, true, Instant::now());
    }

    #[test]
    fn bytes_are_taken_once_and_in_order() {
        let mut stream = Stream::default();
        take(&mut stream, b"hello ", Some(0));
        take(&mut stream, b"lo world", Some(3));
        take(&mut stream, b"hello", Some(0));
        assert_eq!(stream.data, b"hello world");
        assert_eq!((stream.bytes, stream.end, stream.repeated_bytes), (11, 11, 8));
        assert_eq!(stream.sha256(), HEXLOWER.encode(&Sha256::digest(b"hello world")));
        assert!(stream.gaps.is_empty());
    }

    #[test]
    fn a_gap_is_noted_and_the_stream_goes_on() {
        let mut stream = Stream::default();
        take(&mut stream, b"ab", Some(0));
        take(&mut stream, b"xy", Some(10));
        assert_eq!(stream.gaps, [Gap { offset: 2, missing: 8 }]);
        assert_eq!((stream.bytes, stream.end), (4, 12));
        assert_eq!(stream.data, b"abxy");
    }

    #[test]
    fn the_agents_own_words_are_shown_and_not_counted() {
        let mut stream = Stream::default();
        take(&mut stream, b"\x1bc", None);
        take(&mut stream, b"x", Some(0));
        assert_eq!(stream.screen, b"\x1bcx");
        assert_eq!((stream.data.as_slice(), stream.unnumbered_bytes), (b"x".as_slice(), 2));
    }

    #[test]
    fn half_a_character_and_bad_base64_are_seen() {
        let mut stream = Stream::default();
        take(&mut stream, &"é".as_bytes()[..1], Some(0));
        take(&mut stream, &"é".as_bytes()[1..], Some(1));
        stream.take("?", Some(2), false, true, Instant::now());
        assert_eq!((stream.ragged_frames, stream.undecodable_frames), (2, 1));
        assert_eq!(stream.data, "é".as_bytes());
    }

    #[test]
    fn counting_keeps_nothing() {
        let mut stream = Stream::default();
        stream.take(&BASE64.encode(b"abc"), Some(0), true, false, Instant::now());
        assert_eq!((stream.bytes, stream.replays, stream.data.len(), stream.screen.len()), (3, 1, 0, 0));
        assert_eq!(stream.sha256(), HEXLOWER.encode(&Sha256::digest(b"abc")));
    }
}
