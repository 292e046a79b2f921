//! The types of a reliable message and of its outcome.
//!
//! It holds no rule but what each kind is promised. Sizes are encoded bytes.

use super::stream::StreamKey;
use serde::{Deserialize, Serialize};

/// What a promise keeps free for a result: 16 running and 256 waiting commands take half of the bound.
pub const PROMISED_RESULT_BYTES: usize = 8 << 10;

/// What a promise keeps free for a `closed`: ids, an exit code and a short reason.
pub const PROMISED_CLOSED_BYTES: usize = 1 << 10;

/// What a reliable message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `command:result`
    Result,
    /// `terminal:closed`
    Closed,
    /// `event`
    Event,
}

/// What must have been sent before a message: the bytes of its own streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct After {
    streams: [Option<(StreamKey, u64)>; 2],
}

impl After {
    /// Nothing in particular.
    pub const NOTHING: Self = Self { streams: [None, None] };

    /// The bytes of `stream` up to `end`.
    pub const fn stream(stream: StreamKey, end: u64) -> Self {
        Self { streams: [Some((stream, end)), None] }
    }

    /// The bytes of two streams, as of a command that prints on both.
    pub const fn streams(one: (StreamKey, u64), other: (StreamKey, u64)) -> Self {
        Self { streams: [Some(one), Some(other)] }
    }

    /// What of it is still to be sent, by the judgement of `is_sent`.
    pub(super) fn waits_for(self, is_sent: impl Fn(StreamKey, u64) -> bool) -> Option<(StreamKey, u64)> {
        self.streams.into_iter().flatten().find(|(stream, end)| !is_sent(*stream, *end))
    }
}

/// A reliable message, but for its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reliable {
    /// What it is.
    pub kind: Kind,
    /// Its length on the wire, in bytes.
    pub size_bytes: usize,
    /// What must be sent first.
    pub after: After,
    /// Room was [promised](super::Delivery::promise) for it; the push uses the promise up.
    pub promised: bool,
}

/// A message was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its number, by which it is known from now on.
    pub number: u64,
    /// How many older events had to go.
    pub displaced: u32,
}

/// A message was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// A promised message is longer than what can be held: cut it to `room_bytes` (never less than was promised) and
    /// push it again. The promise still stands.
    TooLong {
        /// How long it may be.
        room_bytes: usize,
    },
    /// There is no room; the message is counted as dropped.
    Dropped,
}

/// How many messages were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drops {
    /// Results without reserved room, or that the console could not take even when cut.
    pub results: u64,
    /// `closed` of sessions, likewise.
    pub closed: u64,
    /// Events.
    pub events: u64,
}

impl Drops {
    /// Whether nothing was dropped.
    pub const fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// All of them together.
    pub const fn total(&self) -> u64 {
        self.results + self.closed + self.events
    }

    pub(super) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Result => self.results += 1,
            Kind::Closed => self.closed += 1,
            Kind::Event => self.events += 1,
        }
    }
}

/// What is done about a message that the console seems unable to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Poison {
    /// Cut this result to [`CUT_RESULT_BYTES`](super::CUT_RESULT_BYTES) and [replace](super::Delivery::replace) it; it
    /// is held back until then.
    CutResult {
        /// Its number.
        number: u64,
    },
    /// It was dropped, and counted as such.
    Dropped {
        /// Its number.
        number: u64,
        /// What it was.
        kind: Kind,
    },
}

/// How much a promise keeps free.
pub(super) const fn promised_bytes(kind: Kind) -> usize {
    match kind {
        Kind::Result => PROMISED_RESULT_BYTES,
        Kind::Closed | Kind::Event => PROMISED_CLOSED_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_kind_and_together() {
        let mut drops = Drops::default();
        for (kind, times) in [(Kind::Result, 2), (Kind::Closed, 3), (Kind::Event, 4)] {
            (0..times).for_each(|_| drops.count(kind));
        }
        assert_eq!((drops.results, drops.closed, drops.events, drops.total()), (2, 3, 4, 9));
    }
}
