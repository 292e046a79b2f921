//! The link of the world and its console: frames, Pongs that may be missing, cuts.

use super::reference::{Frame, RefSnapshot};
use super::{Travelling, World};
use draupnir_fsm::delivery::ping::Purpose;
use draupnir_fsm::delivery::{Chunk, FRAME_BYTES_MAX, LinkEnd, MARKER_MS, OutboundFrame, StateKind, StreamKey};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::order::Gate;

/// The size of the frame around the bytes.
const FRAME_OVERHEAD_BYTES: u64 = 192;

/// How many markers may be unanswered.
const MARKERS_MAX: usize = 32;

impl World {
    /// The link takes some frames.
    pub(super) fn write(&mut self) {
        let frames = self.between(1, 40);
        let mut complete = false;
        for _ in 0..frames {
            if !self.write_one() {
                complete = true;
                break;
            }
        }
        if complete && self.reference.online {
            let late = self.unmarked_since.is_some_and(|since| self.now.ms_since(since) >= MARKER_MS);
            assert!(!late || self.reference.unanswered() >= MARKERS_MAX, "a marker is late");
        }
    }

    fn write_one(&mut self) -> bool {
        self.make_snapshot();
        let travelling = match self.ledger.next(self.now) {
            None => return false,
            Some(OutboundFrame::Ping { payload, purpose }) => {
                if purpose == Purpose::Marker {
                    assert!(self.reference.unmarked() > 0, "a marker for nothing");
                }
                self.reference.pinged(&payload);
                self.unmarked_since = None;
                Travelling::Ping(payload.to_vec())
            }
            Some(OutboundFrame::State { body, .. }) => {
                assert!(self.gates.0, "state before its gate");
                assert_eq!(body >> 32, u64::from(self.link), "state of another link");
                Travelling::State(u32::try_from(body >> 32).expect("32 bits"))
            }
            Some(OutboundFrame::Reliable { number, body }) => {
                assert!(self.gates.1, "a message before its gate");
                let body = *body;
                self.reference.sent_message(number);
                self.unmarked_since.get_or_insert(self.now);
                Travelling::Message(number, body)
            }
            Some(OutboundFrame::Stream { stream, cut }) => {
                assert!(self.gates.1, "bytes before their gate");
                return self.write_bytes(stream, cut);
            }
        };
        self.wire.push_back(travelling);
        true
    }

    /// The source makes a snapshot, if one is due, or takes its time.
    fn make_snapshot(&mut self) {
        let Some((stream, from)) = self.ledger.snapshot_due() else { return };
        let entry = self.reference.streams.get_mut(&stream).expect("known");
        assert_eq!(entry.snapshot, Some(RefSnapshot::Wanted));
        assert_eq!(from, entry.reached.max(entry.sent).max(entry.retained), "the snapshot is for another place");
        let (at, bytes) = (self.choices.between(from, entry.end.max(from)), self.choices.between(1, 100_000));
        if self.choices.between(0, 3) > 0 {
            entry.snapshot = Some(RefSnapshot::Made(at, bytes, bytes));
            self.ledger.snapshot_made(stream, at, usize::try_from(bytes).expect("small"));
        }
    }

    fn write_bytes(&mut self, stream: StreamKey, cut: Chunk) -> bool {
        let entry = self.reference.streams.get_mut(&stream).expect("known");
        let (bytes, to, travelling) = match cut {
            Chunk::Snapshot { max, .. } => {
                assert!(max > 0 && max <= FRAME_BYTES_MAX);
                self.tally.snapshots += 1;
                let bytes = self.choices.between(1, max as u64);
                let Some(RefSnapshot::Made(at, left, all)) = entry.snapshot else { panic!("no snapshot is made") };
                assert!(entry.sent >= at, "bytes before it are missing");
                entry.snapshot = Some(match left - bytes {
                    0 => RefSnapshot::Sent,
                    left => RefSnapshot::Made(at, left, all),
                });
                (bytes, 0, Travelling::Snapshot)
            }
            Chunk::Bytes { from, max } => {
                assert!(max > 0 && max <= FRAME_BYTES_MAX);
                assert!(from >= entry.retained, "the source no longer holds it");
                // Sometimes a character would be split.
                let bytes = self.choices.between(0, 1).max(max.saturating_sub(3) as u64);
                let to = from + bytes;
                assert!(to <= entry.end);
                assert_eq!(from, entry.sent, "bytes in their order");
                entry.sent = to;
                entry.reached = entry.reached.max(to);
                match &mut entry.snapshot {
                    Some(RefSnapshot::Wanted) => panic!("bytes before a snapshot that is not made"),
                    Some(RefSnapshot::Made(at, ..)) if bytes == 0 => *at = to,
                    _ => {}
                }
                (bytes, to, Travelling::Bytes { stream, from, to })
            }
        };
        self.ledger.cut(usize::try_from(bytes).expect("small"));
        if bytes == 0 {
            // The rest of the character arrives a moment later.
            let end = self.reference.streams[&stream].end;
            self.ledger.grew(stream, end);
            return true;
        }
        let encoded = bytes.div_ceil(3) * 4 + FRAME_OVERHEAD_BYTES;
        let ends_snapshot = matches!(cut, Chunk::Snapshot { .. })
            && self.reference.streams[&stream].snapshot == Some(RefSnapshot::Sent);
        self.reference.unacked.push(if ends_snapshot {
            Frame::SnapshotEnd(stream, encoded)
        } else {
            Frame::Bytes(stream, to, encoded)
        });
        self.unmarked_since.get_or_insert(self.now);
        self.wire.push_back(travelling);
        true
    }

    /// The console reads some of what was written.
    pub(super) fn deliver(&mut self) {
        let frames = self.between(1, 60);
        for _ in 0..frames {
            let Some(travelling) = self.wire.pop_front() else { return };
            match travelling {
                Travelling::Ping(payload) => self.pongs.push_back(payload),
                Travelling::State(link) => assert_eq!(link, self.link),
                Travelling::Snapshot => {}
                Travelling::Message(number, body) => {
                    assert_eq!(self.pushed.get(&number), Some(&body), "the body that was pushed");
                    if self.console.messages.insert(number, body).is_some() {
                        self.tally.duplicates += 1;
                    }
                }
                Travelling::Bytes { stream, from, to } => {
                    let (seen, unseen) = self.console.seen.entry(stream).or_default();
                    *unseen += from.saturating_sub(*seen);
                    *seen = (*seen).max(to);
                }
            }
        }
    }

    /// Some Pongs arrive; a console may leave out all but the latest.
    pub(super) fn answer(&mut self) {
        if self.pongs.len() > 1 && self.between(0, 3) == 0 {
            let skipped = self.between(1, self.pongs.len() as u64 - 1);
            self.pongs.drain(..usize::try_from(skipped).expect("small"));
        }
        let Some(payload) = self.pongs.pop_front() else { return };
        self.pong(&payload);
        self.old_pongs.push_back(payload);
        if self.old_pongs.len() > 20 {
            self.old_pongs.pop_front();
        }
    }

    fn pong(&mut self, payload: &[u8]) {
        let answers = self.reference.pong(payload);
        let ack = self.ledger.pong(self.now, LinkId(self.link), payload);
        assert_eq!(ack.is_some(), answers, "what counts as an answer");
        if let Some(ack) = ack {
            assert_eq!(ack.last, self.reference.unanswered() == 0);
            self.tally.acknowledged += u64::from(ack.messages + ack.frames);
        }
    }

    /// Repeats, Pongs of earlier links, unsolicited Pongs.
    pub(super) fn foreign_pong(&mut self) {
        let last = self.old_pongs.len() as u64;
        let place = usize::try_from(self.between(0, last)).expect("small");
        match self.old_pongs.get(place).cloned() {
            Some(payload) => {
                let earlier = self.link.saturating_sub(1);
                assert_eq!(self.ledger.pong(self.now, LinkId(earlier), &payload), None);
                self.pong(&payload);
            }
            None => {
                let length = usize::try_from(self.between(0, 125)).expect("small");
                let payload: Vec<u8> = (0..length).map(|_| self.choices.any_u64().to_le_bytes()[0]).collect();
                self.pong(&payload);
            }
        }
    }

    pub(super) fn set_state(&mut self) {
        let body = u64::from(self.link) << 32 | self.choices.any_u64() >> 32;
        let kept = self.ledger.set_state(StateKind::Heartbeat, body);
        assert_eq!(kept, self.reference.online, "no state is kept offline");
    }

    pub(super) fn open_gate(&mut self) {
        if !self.reference.online {
            return;
        }
        if self.gates.0 {
            self.gates.1 = true;
            self.ledger.open_gate(self.now, Gate::All);
        } else {
            self.gates.0 = true;
            self.ledger.open_gate(self.now, Gate::State);
        }
    }

    pub(super) fn connect_or_cut(&mut self) {
        if self.reference.online {
            if self.between(1, self.patience) == 1 {
                self.cut();
            }
        } else {
            self.connect();
        }
    }

    pub(super) fn connect(&mut self) {
        self.link += 1;
        self.tally.links += 1;
        self.gates = (false, false);
        self.reference.link(true);
        self.reference.skip_what_is_gone();
        self.ledger.link_opened(self.now, LinkId(self.link));
    }

    fn cut(&mut self) {
        // The console keeps what it has read; the rest is lost with the link.
        self.deliver();
        self.wire.clear();
        self.pongs.clear();
        self.unmarked_since = None;
        self.reference.link(false);
        assert_eq!(self.ledger.link_closed(self.now, LinkEnd::Broken), None);
    }
}
