//! A simple ledger for comparison, without concern for time and memory: it searches whole lists.
//!
//! It knows what must be kept, acknowledged, blocked and lost. It does not choose the next frame, but checks the
//! choice.

use draupnir_fsm::delivery::{
    Drops, Kind, PROMISED_CLOSED_BYTES, PROMISED_RESULT_BYTES, PushError, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX,
    StreamKey,
};
use std::collections::BTreeMap;

/// The most unanswered Pings: beyond it the ledger forgets the oldest.
const PINGS_MAX: usize = 40;

/// A reliable message that must be kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) size: usize,
    pub(crate) after: Vec<(StreamKey, u64)>,
    pub(crate) sent: bool,
}

/// A stream whose bytes must arrive.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefStream {
    pub(crate) end: u64,
    pub(crate) retained: u64,
    pub(crate) sent: u64,
    /// Up to where it was sent on any link.
    pub(crate) reached: u64,
    pub(crate) acked: u64,
    pub(crate) lost_bytes: u64,
    pub(crate) snapshot: Option<RefSnapshot>,
    /// A console attached since the snapshot was made.
    pub(crate) again: bool,
}

/// A snapshot that the console must read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefSnapshot {
    Wanted,
    /// It shows the screen at an offset; so many bytes are left, of so many.
    Made(u64, u64, u64),
    Sent,
}

/// A frame that was sent on this link.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Message(u64),
    /// The offset of its end, and its bytes on the wire.
    Bytes(StreamKey, u64, u64),
    /// Likewise.
    SnapshotEnd(StreamKey, u64),
}

/// The expected state.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) kept: Vec<Kept>,
    pub(crate) promised: Vec<Kind>,
    pub(crate) streams: BTreeMap<StreamKey, RefStream>,
    pub(crate) drops: Drops,
    pub(crate) online: bool,
    /// The frames of this link that are not acknowledged, in the order in which they were sent.
    pub(crate) unacked: Vec<Frame>,
    acked_frames: usize,
    newest_mark: usize,
    /// The unanswered Pings of this link, and how many frames went before each.
    pings: Vec<(Vec<u8>, usize)>,
}

impl RefStream {
    /// Must a message wait for the bytes up to `end`?
    fn blocks(&self, end: u64) -> bool {
        self.sent < end || self.again || matches!(self.snapshot, Some(RefSnapshot::Wanted | RefSnapshot::Made(..)))
    }

    /// A console attaches: one that comes after a snapshot was made waits until that has arrived.
    pub(crate) fn attach(&mut self) {
        self.again = matches!(self.snapshot, Some(RefSnapshot::Made(..) | RefSnapshot::Sent));
        self.snapshot.get_or_insert(RefSnapshot::Wanted);
    }

    /// A snapshot is to be made instead of what there is of one.
    fn want_snapshot(&mut self) {
        (self.snapshot, self.again) = (Some(RefSnapshot::Wanted), false);
    }
}

impl Reference {
    pub(crate) fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.size).sum()
    }

    /// The expected result of a push. After a success the message is kept under the ledger's number.
    pub(crate) fn push(
        &mut self,
        kind: Kind,
        size: usize,
        after: &[(StreamKey, u64)],
        promised: bool,
    ) -> Result<u32, PushError> {
        if promised {
            let place = self.promised.iter().position(|one| *one == kind);
            self.promised.remove(place.expect("promised before"));
        }
        let promised_bytes: usize = self.promised.iter().map(|one| promise_bytes(*one)).sum();
        let lasting = |kept: &&Kept| kind_lasts(kept.kind);
        let mut bytes: usize = self.kept.iter().filter(lasting).map(|kept| kept.size).sum();
        let mut messages = self.kept.iter().filter(lasting).count();
        if kind_lasts(kind) {
            bytes += promised_bytes;
            messages += self.promised.len();
        }
        if messages >= RELIABLE_MESSAGES_MAX || bytes + size > RELIABLE_BYTES_MAX {
            if promised {
                self.promised.push(kind);
                return Err(PushError::TooLong { room_bytes: RELIABLE_BYTES_MAX - bytes });
            }
            self.count_drop(kind);
            return Err(PushError::Dropped);
        }
        let mut displaced = 0;
        while self.kept.len() >= RELIABLE_MESSAGES_MAX || self.bytes() + size > RELIABLE_BYTES_MAX {
            let oldest = self.kept.iter().position(|kept| kept.kind == Kind::Event);
            self.kept.remove(oldest.expect("an event makes way"));
            self.drops.events += 1;
            displaced += 1;
        }
        self.kept.push(Kept { number: 0, kind, size, after: after.to_vec(), sent: false });
        Ok(displaced)
    }

    pub(crate) fn may_promise(&self, kind: Kind) -> bool {
        let lasting = |kept: &&Kept| kind_lasts(kept.kind);
        let bytes: usize = self.kept.iter().filter(lasting).map(|kept| kept.size).sum();
        let promised: usize = self.promised.iter().map(|one| promise_bytes(*one)).sum();
        let messages = self.kept.iter().filter(lasting).count() + self.promised.len();
        messages < RELIABLE_MESSAGES_MAX && bytes + promised + promise_bytes(kind) <= RELIABLE_BYTES_MAX
    }

    pub(crate) fn count_drop(&mut self, kind: Kind) {
        match kind {
            Kind::Result => self.drops.results += 1,
            Kind::Closed => self.drops.closed += 1,
            Kind::Event => self.drops.events += 1,
        }
    }

    /// The bytes of streams in flight, as on the wire.
    pub(crate) fn stream_bytes_in_flight(&self) -> u64 {
        let bytes = |frame: &Frame| match frame {
            Frame::Bytes(_, _, encoded) | Frame::SnapshotEnd(_, encoded) => *encoded,
            Frame::Message(_) => 0,
        };
        self.unacked.iter().map(bytes).sum()
    }

    /// Checks that this message may be sent now: it waits for no bytes, and every older one is sent or waits for its
    /// own bytes.
    pub(crate) fn sent_message(&mut self, number: u64) {
        let place = self.kept.iter().position(|kept| kept.number == number);
        let place = place.expect("only what is kept is sent");
        for older in &self.kept[..place] {
            assert!(older.sent || self.is_blocked(older), "{number} went before {older:?}");
        }
        let kept = &self.kept[place];
        assert!(!kept.sent, "{number} went twice on one link");
        assert!(!self.is_blocked(kept), "{number} went before its own bytes");
        self.kept[place].sent = true;
        self.unacked.push(Frame::Message(number));
    }

    pub(crate) fn is_blocked(&self, kept: &Kept) -> bool {
        kept.after.iter().any(|(stream, end)| self.streams.get(stream).is_some_and(|stream| stream.blocks(*end)))
    }

    pub(crate) fn pinged(&mut self, payload: &[u8]) {
        self.newest_mark = self.acked_frames + self.unacked.len();
        if self.pings.len() == PINGS_MAX {
            self.pings.remove(0);
        }
        self.pings.push((payload.to_vec(), self.newest_mark));
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.pings.len()
    }

    /// Frames since the newest Ping.
    pub(crate) fn unmarked(&self) -> usize {
        self.acked_frames + self.unacked.len() - self.newest_mark
    }

    /// Whether a Pong with this payload answers a Ping. If so, all frames before that Ping have arrived.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> bool {
        let Some(place) = self.pings.iter().position(|(ping, _)| ping == payload) else {
            return false;
        };
        let (_, frames) = self.pings.drain(..=place).next_back().expect("found");
        let acked = frames.saturating_sub(self.acked_frames);
        for frame in self.unacked.drain(..acked).collect::<Vec<_>>() {
            match frame {
                Frame::Message(number) => self.kept.retain(|kept| kept.number != number),
                Frame::Bytes(stream, to, _) => {
                    if let Some(stream) = self.streams.get_mut(&stream) {
                        stream.acked = stream.acked.max(to);
                    }
                }
                Frame::SnapshotEnd(stream, _) => {
                    if let Some(stream) = self.streams.get_mut(&stream) {
                        assert_eq!(stream.snapshot, Some(RefSnapshot::Sent), "one at a time is under way");
                        stream.snapshot = None;
                        if stream.again {
                            stream.want_snapshot();
                        }
                    }
                }
            }
        }
        self.acked_frames += acked;
        true
    }

    /// Skips bytes that a source has dropped, once no byte of the stream is in flight.
    pub(crate) fn skip_what_is_gone(&mut self) {
        if !self.online {
            return;
        }
        for (key, stream) in &mut self.streams {
            if stream.sent >= stream.retained {
                continue;
            }
            let is_under_way =
                |frame: &Frame| matches!(frame, Frame::Bytes(of, ..) | Frame::SnapshotEnd(of, _) if of == key);
            if !self.unacked.iter().any(is_under_way) {
                stream.lost_bytes += stream.retained - stream.sent;
                stream.sent = stream.retained;
                stream.acked = stream.retained;
                if matches!(stream.snapshot, Some(RefSnapshot::Made(at, left, all)) if at < stream.sent && left == all)
                {
                    stream.want_snapshot();
                }
            }
        }
    }

    /// Records that a link is up, or gone.
    pub(crate) fn link(&mut self, online: bool) {
        self.online = online;
        self.unacked.clear();
        self.acked_frames = 0;
        self.newest_mark = 0;
        self.pings.clear();
        for kept in &mut self.kept {
            kept.sent = false;
        }
        for stream in self.streams.values_mut() {
            stream.sent = stream.acked;
            if stream.snapshot.is_some() {
                stream.want_snapshot();
            }
        }
    }
}

pub(crate) const fn promise_bytes(kind: Kind) -> usize {
    match kind {
        Kind::Result => PROMISED_RESULT_BYTES,
        Kind::Closed | Kind::Event => PROMISED_CLOSED_BYTES,
    }
}

fn kind_lasts(kind: Kind) -> bool {
    match kind {
        Kind::Result | Kind::Closed => true,
        Kind::Event => false,
    }
}
