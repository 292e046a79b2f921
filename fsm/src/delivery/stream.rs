//! One stream: how far its source has come, how much of it is still held, sent, and known to have arrived.
//!
//! It does not hold the bytes. Offsets count bytes since the start of the stream; always
//! `acked ≤ sent ≤ end` and `retained ≤ end`. `acked` is where sending starts over on the next link.

use super::{
    COMMAND_WINDOW_BYTES_MAX, INTERACTIVE_BYTES_MAX, LINK_WINDOW_BYTES_MAX, LOG_WINDOW_BYTES_MAX,
    STREAM_WINDOW_BYTES_MIN,
};
use crate::id::{CommandKey, SessionKey};
use serde::{Deserialize, Serialize};

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKey {
    /// What a terminal session prints.
    Terminal(SessionKey),
    /// The standard output of a streamed command.
    Stdout(CommandKey),
    /// The standard error of a streamed command.
    Stderr(CommandKey),
    /// Encoded lines of logs. It ends with its link, and delays neither the end of a drain nor a resync.
    Logs,
}

/// What a frame costs beside its bytes: envelope, identifiers, offset, WebSocket header. The agent's frames need
/// 120–230 bytes; the figure only has to be near enough that a flood of single bytes is not taken for nothing.
const FRAME_OVERHEAD_BYTES: u64 = 192;

/// What `raw` bytes of a stream cost on the wire: base64 makes four of three, and the frame around them is added.
pub(super) const fn encoded_bytes(raw: u64) -> u64 {
    raw.div_ceil(3) * 4 + FRAME_OVERHEAD_BYTES
}

/// How many raw bytes fit into `encoded` encoded ones, leaving out the frame around them.
pub(super) const fn raw_bytes(encoded: u64) -> u64 {
    encoded / 4 * 3
}

impl StreamKey {
    /// The most that may be under way, in encoded bytes: as much as its source can hold.
    const fn window_bytes_max(self) -> u64 {
        match self {
            Self::Terminal(_) => LINK_WINDOW_BYTES_MAX,
            Self::Stdout(_) | Self::Stderr(_) => COMMAND_WINDOW_BYTES_MAX,
            Self::Logs => LOG_WINDOW_BYTES_MAX,
        }
    }
}

/// How far a stream has come, in bytes since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Where the source's last byte ends.
    pub end: u64,
    /// The oldest byte that the source still holds.
    pub retained: u64,
    /// Up to where it was sent on this link.
    pub sent: u64,
    /// Up to where the console is known to have it, or it is lost.
    pub acked: u64,
}

/// Bytes that were discarded before the console had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: StreamKey,
    /// Where the first lost byte stood.
    pub from: u64,
    /// Where the first byte after the last lost one stands.
    pub to: u64,
    /// How many bytes between the two are lost.
    pub lost_bytes: u64,
}

/// What the writer is to cut from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chunk {
    /// Bytes of the source, with their offset.
    Bytes {
        /// Where the first byte stands.
        from: u64,
        /// How many at most; fewer where a character would be split.
        max: usize,
    },
    /// A part of the snapshot for a console that re-attached: bytes of the agent's own, without an offset.
    Snapshot {
        /// Where the first byte stands in the snapshot.
        from: u64,
        /// How many at most; fewer where a character would be split.
        max: usize,
    },
}

/// The class of a stream in the queue for the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// Little of it is waiting or under way: a user types.
    Interactive,
    /// Lines of logs.
    Logs,
    /// Much of it is.
    Bulk,
}

/// The state of one stream.
#[derive(Clone, Debug, Hash)]
pub(super) struct Stream {
    pub(super) at: Position,
    /// Up to where it was sent on any link: a console may have shown that.
    reached: u64,
    /// Encoded bytes that were sent on this link and are not acknowledged, snapshots included.
    pub(super) in_flight: u64,
    /// Encoded bytes sent since the Ping with the number beside it.
    pub(super) unmarked: (u32, u64),
    /// The most of it that may be under way, in encoded bytes.
    window_max: u64,
    /// The most that was unacknowledged since this was last asked, in bytes.
    unacknowledged_peak: u64,
    /// It holds lines of logs.
    is_log: bool,
    /// No byte will follow.
    pub(super) ended: bool,
    /// The source holds back the beginning of a character; it will say when that has changed.
    pub(super) held_back: bool,
    pub(super) snapshot: Option<Snapshot>,
    /// Where it stands in the queue for the writer.
    pub(super) queued: Option<Class>,
    pub(super) unsettled: bool,
    /// Its read credit changed, and the source does not know it yet.
    pub(super) credit_due: bool,
    /// Its credit was reduced because the link as a whole was full.
    pub(super) starved: bool,
    /// It has more than an interactive one: the window of the link is shared among these.
    pub(super) busy: bool,
    gap: Option<(u64, u64, u64)>,
}

/// A snapshot for a console that re-attached. A console that attaches after it was made needs another one, which is
/// wanted once this one is acknowledged: attaches make at most one a round trip, however many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Snapshot {
    /// It is to be made; until then nothing of the stream is sent.
    Wanted,
    /// It is sent as soon as the stream was sent up to an offset: it shows the screen as it is there.
    Made {
        /// This offset.
        at: u64,
        /// Its length.
        bytes: u64,
        /// How much of it was sent.
        sent: u64,
        /// Another one is to follow.
        again: bool,
    },
    /// All of it is under way.
    Unconfirmed {
        /// Another one is to follow.
        again: bool,
    },
}

impl Stream {
    pub(super) fn new(key: StreamKey, start: u64) -> Self {
        Self {
            at: Position { end: start, retained: start, sent: start, acked: start },
            reached: start,
            in_flight: 0,
            unmarked: (0, 0),
            window_max: key.window_bytes_max(),
            unacknowledged_peak: 0,
            is_log: key == StreamKey::Logs,
            ended: false,
            held_back: false,
            snapshot: None,
            queued: None,
            unsettled: false,
            credit_due: false,
            starved: false,
            busy: false,
            gap: None,
        }
    }

    /// What may be under way, in encoded bytes, where this is its share of the link's window.
    pub(super) fn window(&self, share: u64) -> u64 {
        share.clamp(STREAM_WINDOW_BYTES_MIN, self.window_max)
    }

    /// The most that was unacknowledged, in bytes, since this was last asked. What is lost anyway does not count.
    pub(super) fn take_unacknowledged_peak(&mut self) -> u64 {
        let now = self.unacknowledged();
        core::mem::replace(&mut self.unacknowledged_peak, now)
    }

    fn unacknowledged(&self) -> u64 {
        if self.at.acked < self.at.retained { 0 } else { self.at.end - self.at.acked }
    }

    /// Encoded bytes that are held and not sent.
    pub(super) fn waiting(&self) -> u64 {
        let own = match self.snapshot {
            Some(Snapshot::Made { bytes, sent, .. }) => bytes - sent,
            Some(Snapshot::Wanted | Snapshot::Unconfirmed { .. }) | None => 0,
        };
        let new = self.at.end - self.at.sent.max(self.at.retained);
        if own + new == 0 { 0 } else { encoded_bytes(own + new) }
    }

    /// How many bytes the source may read, if its window alone decides.
    pub(super) fn room(&self, share: u64) -> u64 {
        raw_bytes(self.window(share).saturating_sub(self.in_flight + self.waiting()))
    }

    /// How many bytes the source may read whatever else is under way: as long as it stays interactive.
    pub(super) fn room_as_interactive(&self) -> u64 {
        raw_bytes(INTERACTIVE_BYTES_MAX.saturating_sub(self.in_flight + self.waiting()))
    }

    /// Where it should stand in the queue for the writer.
    pub(super) fn class(&self, share: u64) -> Option<Class> {
        self.next_cut(1)?;
        if self.in_flight >= self.window(share) {
            None
        } else if self.is_log {
            Some(Class::Logs)
        } else if !self.is_busy() {
            Some(Class::Interactive)
        } else {
            Some(Class::Bulk)
        }
    }

    /// Whether more of it is waiting and under way than of an interactive one.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight + self.waiting() > INTERACTIVE_BYTES_MAX
    }

    /// What comes next, at most `max` bytes of it.
    pub(super) fn next_cut(&self, max: usize) -> Option<Chunk> {
        let goal = match self.snapshot {
            Some(Snapshot::Wanted) => return None,
            Some(Snapshot::Made { at, bytes, sent, .. }) if self.at.sent >= at => {
                return Some(Chunk::Snapshot { from: sent, max: clamp_to(max, bytes - sent) });
            }
            Some(Snapshot::Made { at, .. }) => at,
            Some(Snapshot::Unconfirmed { .. }) | None => self.at.end,
        };
        // What is gone is skipped as soon as nothing is under way.
        let is_gone = self.at.sent < self.at.retained;
        (self.at.sent < goal && !self.held_back && !is_gone)
            .then(|| Chunk::Bytes { from: self.at.sent, max: clamp_to(max, goal - self.at.sent) })
    }

    /// Notes that `bytes` were cut as `cut` said; returns up to where an acknowledgement of them reaches.
    pub(super) fn cut(&mut self, cut: Chunk, bytes: u64) -> u64 {
        match cut {
            Chunk::Snapshot { .. } => {
                if let Some(Snapshot::Made { bytes: all, sent, again, .. }) = &mut self.snapshot {
                    *sent = (*sent + bytes).min(*all);
                    // A source that has no more of it has lost it.
                    if *sent == *all || bytes == 0 {
                        self.snapshot = Some(Snapshot::Unconfirmed { again: *again });
                    }
                }
                0
            }
            Chunk::Bytes { .. } => {
                self.at.sent = (self.at.sent + bytes).min(self.at.end);
                self.reached = self.reached.max(self.at.sent);
                self.held_back = bytes == 0;
                if self.held_back
                    && let Some(Snapshot::Made { at, .. }) = &mut self.snapshot
                {
                    // What is left before it is a part of a character, which may never become whole.
                    *at = self.at.sent;
                    self.held_back = false;
                }
                self.at.sent
            }
        }
    }

    /// The source holds more, or lets go of what it held back.
    pub(super) fn grew(&mut self, end: u64) {
        self.at.end = self.at.end.max(end);
        self.unacknowledged_peak = self.unacknowledged_peak.max(self.unacknowledged());
        self.held_back = false;
    }

    /// The source no longer holds what is before `offset`.
    pub(super) fn discarded(&mut self, offset: u64, online: bool) {
        // What is discarded was there: a source may say so before it says how far it has come.
        self.at.end = self.at.end.max(offset);
        self.at.retained = self.at.retained.max(offset);
        if online {
            self.skip_what_is_gone();
        }
    }

    /// Starts over on a new link.
    pub(super) fn reconnected(&mut self) {
        self.forget_link();
        self.skip_what_is_gone();
    }

    /// The link is gone, and with it what was under way.
    pub(super) fn forget_link(&mut self) {
        self.at.sent = self.at.acked;
        self.in_flight = 0;
        self.unmarked = (0, 0);
        self.held_back = false;
        self.starved = false;
        // What the console has not read as a whole is made again, for the screen as it will be then.
        self.snapshot = self.snapshot.map(|_| Snapshot::Wanted);
    }

    /// A console re-attached, and wants to see the screen.
    pub(super) fn want_snapshot(&mut self) {
        if let Some(Snapshot::Made { again, .. } | Snapshot::Unconfirmed { again }) = &mut self.snapshot {
            *again = true;
        } else {
            self.snapshot = Some(Snapshot::Wanted);
        }
    }

    /// The snapshot is made: `bytes` of it, which show the screen at the offset `at`.
    pub(super) fn snapshot_made(&mut self, at: u64, bytes: u64) {
        if self.snapshot == Some(Snapshot::Wanted) {
            let at = at.clamp(self.at.sent, self.at.end.max(self.at.sent));
            self.snapshot = (bytes > 0).then_some(Snapshot::Made { at, bytes, sent: 0, again: false });
            self.held_back = false;
        }
    }

    /// An acknowledgement of `encoded` bytes, which reaches up to `to`.
    pub(super) fn acknowledged(&mut self, to: u64, encoded: u64) {
        self.in_flight = self.in_flight.saturating_sub(encoded);
        self.at.acked = self.at.acked.max(to);
        self.skip_what_is_gone();
    }

    /// From where on no console has shown the stream: the place of a snapshot, so that none shows a byte twice behind
    /// it.
    pub(super) fn unseen_from(&self) -> u64 {
        self.reached.max(self.at.sent).max(self.at.retained)
    }

    pub(super) const fn has_snapshot_to_send(&self) -> bool {
        matches!(self.snapshot, Some(Snapshot::Wanted | Snapshot::Made { .. } | Snapshot::Unconfirmed { again: true }))
    }

    /// The console has read the end of a snapshot.
    pub(super) fn snapshot_acknowledged(&mut self) {
        if let Some(Snapshot::Unconfirmed { again }) = self.snapshot {
            self.snapshot = again.then_some(Snapshot::Wanted);
        }
    }

    /// Nothing of it waits for the console.
    pub(super) fn is_settled(&self) -> bool {
        self.is_log || (self.at.acked == self.at.end && self.snapshot.is_none())
    }

    /// Takes the bytes that were lost and not yet reported: from, to and how many.
    pub(super) fn take_gap(&mut self) -> Option<(u64, u64, u64)> {
        self.gap.take()
    }

    /// Whether a gap must be reported.
    pub(super) const fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Goes on after bytes that are gone, as soon as nothing is under way: until then an acknowledgement may still come
    /// for what stands before them, and only then is it known how much was lost.
    fn skip_what_is_gone(&mut self) {
        if self.in_flight == 0 && self.at.sent < self.at.retained {
            let (from, to) = (self.at.sent, self.at.retained);
            self.count_gap(from, to);
            self.at.sent = to;
            self.at.acked = to;
            if matches!(self.snapshot, Some(Snapshot::Made { at, sent: 0, .. }) if at < to) {
                // It shows a place that the stream has left.
                self.snapshot = Some(Snapshot::Wanted);
            }
        }
    }

    fn count_gap(&mut self, from: u64, to: u64) {
        let lost = to - from;
        self.gap = Some(match self.gap {
            Some((first, last, bytes)) => (first.min(from), last.max(to), bytes + lost),
            None => (from, to, lost),
        });
    }
}

fn clamp_to(max: usize, there: u64) -> usize {
    usize::try_from(there).map_or(max, |there| there.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_counted_up_and_room_down() {
        assert_eq!(encoded_bytes(0), FRAME_OVERHEAD_BYTES);
        assert_eq!(encoded_bytes(1), 4 + FRAME_OVERHEAD_BYTES);
        assert_eq!(encoded_bytes(3), 4 + FRAME_OVERHEAD_BYTES);
        assert_eq!(raw_bytes(7), 3);
        assert_eq!(raw_bytes(3), 0);
    }

    /// Domain: every length up to the window of a link.
    #[test]
    fn every_length_fits_what_it_is_counted_for() {
        for bytes in 0..=LINK_WINDOW_BYTES_MAX {
            assert!(raw_bytes(encoded_bytes(bytes)) >= bytes, "{bytes}");
            assert!(encoded_bytes(raw_bytes(bytes)) <= bytes + FRAME_OVERHEAD_BYTES, "{bytes}");
        }
    }
}
