//! Checks what must hold at every step, and at the end.

use super::reference::RefStream;
use super::{STREAMS_MAX, World};
use draupnir_fsm::delivery::{
    FRAME_BYTES_MAX, INTERACTIVE_BYTES_MAX, LINK_WINDOW_BYTES_MAX, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX, StreamKey,
};

impl World {
    pub(super) fn check(&mut self) {
        self.reference.skip_what_is_gone();
        self.take_reported_gaps();
        let ledger = &self.ledger;
        assert!(ledger.messages() <= RELIABLE_MESSAGES_MAX);
        assert!(ledger.message_bytes() <= RELIABLE_BYTES_MAX);
        assert_eq!(ledger.messages(), self.reference.kept.len());
        self.tally.most_messages = self.tally.most_messages.max(ledger.messages() as u64);
        let interactive = STREAMS_MAX as u64 * INTERACTIVE_BYTES_MAX;
        let frame = FRAME_BYTES_MAX as u64 * 2;
        assert!(ledger.stream_bytes_in_flight() <= LINK_WINDOW_BYTES_MAX + interactive + frame);
        if self.choices.any_u64().is_multiple_of(8) {
            assert_eq!(ledger.stream_bytes_in_flight(), self.reference.stream_bytes_in_flight());
        }
        for (stream, expected) in &self.reference.streams {
            let at = ledger.position(*stream).expect("known");
            assert_eq!(
                (at.end, at.retained, at.sent, at.acked),
                (expected.end, expected.retained, expected.sent, expected.acked),
                "{stream:?}"
            );
        }
        // A complete check at every step would be too slow.
        if self.choices.any_u64().is_multiple_of(64) {
            assert_eq!(ledger.message_bytes(), self.reference.bytes());
            assert!(self.reference.kept.iter().all(|kept| ledger.is_waiting(kept.number)));
        }
    }

    fn take_reported_gaps(&mut self) {
        while let Some(gap) = self.ledger.take_gap() {
            assert!(gap.from < gap.to && gap.lost_bytes <= gap.to - gap.from);
            self.tally.gaps += 1;
            *self.gaps_reported.entry(gap.stream).or_default() += gap.lost_bytes;
        }
        if let Some(drops) = self.ledger.take_drops() {
            assert!(self.gates.1, "drops are reported when they can be sent on");
            assert_eq!(drops, core::mem::take(&mut self.reference.drops));
        }
        while let Some((stream, bytes)) = self.ledger.poll_credit() {
            assert_eq!(bytes, self.ledger.read_credit(stream));
        }
        while let Some(stream) = self.ledger.take_finished() {
            let entry = self.reference.streams.remove(&stream).expect("known");
            self.tally.finished += 1;
            assert!(self.ended.remove(&stream), "only what has ended is finished");
            assert!(entry.acked == entry.end);
            self.check_stream(stream, &entry);
        }
    }

    /// Every byte was seen, except those reported as lost.
    fn check_stream(&mut self, stream: StreamKey, entry: &RefStream) {
        let reported = self.gaps_reported.get(&stream).copied().unwrap_or(0);
        assert_eq!(reported, entry.lost_bytes, "every lost byte is reported once");
        let (seen, unseen) = self.console.seen.get(&stream).copied().unwrap_or((0, 0));
        assert!(unseen <= reported, "bytes not seen were reported");
        assert!(seen + reported >= entry.end, "seen to the end, or lost");
    }

    pub(super) fn check_healed(&mut self) {
        assert!(self.ledger.is_settled(), "everything is acknowledged");
        assert_eq!(self.ledger.messages(), 0);
        assert!(self.reference.kept.is_empty());
        for (stream, entry) in self.reference.streams.clone() {
            assert!(entry.acked == entry.end);
            self.check_stream(stream, &entry);
        }
    }
}
