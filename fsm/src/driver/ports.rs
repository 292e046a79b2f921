//! The two doors through which the driver asks for what it does not hold: bodies of messages and bytes of streams.
//!
//! Both are answered at once and without side effects that the driver would have to know of. A recording holds the
//! answers as lengths, so that a replay needs neither.

use super::output::Message;
use crate::delivery::{Chunk, StreamKey};
use crate::id::SessionKey;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// The body of a message. Clones are cheap: the ledger keeps one until the console has it.
pub trait Body: Clone {
    /// Its length on the wire, in bytes.
    fn size_bytes(&self) -> usize;
}

/// Lengths stand for bodies in replays.
impl Body for usize {
    fn size_bytes(&self) -> usize {
        *self
    }
}

/// Encodes messages.
pub trait Encode {
    /// What it makes of them.
    type Body: Body;

    /// The body of a message; `None` if there is nothing to send.
    fn encode(&mut self, message: &Message) -> Option<Self::Body>;

    /// The same result with less output, at most `bytes_max` long; `None` where it cannot be cut to that.
    fn shorten(&mut self, _body: &Self::Body, _bytes_max: usize) -> Option<Self::Body> {
        None
    }
}

/// Holds the bytes of streams. As it stands here, it has none.
pub trait ByteSource: Encode {
    /// The offsets of the bytes that the source of this stream holds now.
    fn held(&mut self, _stream: StreamKey) -> Range<u64> {
        0..0
    }

    /// Cuts bytes from a stream: how many of its bytes that were, and the message that carries them. Fewer than asked
    /// for where a character would be split; no message where nothing is left but the beginning of one.
    fn cut(&mut self, _stream: StreamKey, _chunk: Chunk) -> (usize, Option<Self::Body>) {
        (0, None)
    }

    /// Makes the snapshot of a session for a console that has seen nothing, and keeps it until it is cut. No console
    /// has shown the stream from `from` on; the console's terminal has this size, or that of the session.
    fn snapshot(&mut self, _session: SessionKey, from: u64, _size: Option<(u16, u16)>) -> MadeSnapshot {
        MadeSnapshot { at: from, bytes: 0, exact: true }
    }
}

/// A snapshot that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeSnapshot {
    /// It shows the screen at this offset of the stream, `from` or a later one.
    pub at: u64,
    /// Its length in bytes.
    pub bytes: usize,
    /// Whether it is certain to show what a terminal does that read everything.
    pub exact: bool,
}
