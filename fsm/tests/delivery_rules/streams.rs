//! Offsets, gaps, replays: what is sent again and what is lost.

use super::{Bench, Sent, T};
use draupnir_fsm::delivery::{After, Kind};

#[test]
fn unacknowledged_bytes_are_sent_again_by_offset() {
    let mut bench = Bench::online();
    bench.open(T, 1_000);
    bench.drain();
    bench.acknowledge_all();
    bench.ledger.grew(T, 3_000);
    bench.drain();
    bench.cut();
    bench.ledger.grew(T, 4_000);
    bench.connect();
    assert_eq!(bench.drain(), [Sent::Bytes(T, 1_000, 4_000)]);
    assert_eq!(bench.ledger.take_gap(), None);
}

#[test]
fn bytes_dropped_by_the_source_are_reported_as_a_gap() {
    let mut bench = Bench::online();
    bench.open(T, 1_000);
    bench.drain();
    bench.cut();
    bench.ledger.grew(T, 10_000);
    bench.ledger.discarded(T, 5_000);
    bench.ledger.discarded(T, 6_000);
    assert_eq!(bench.ledger.take_gap(), None, "the console has not missed it yet");
    bench.connect();
    let gap = bench.ledger.take_gap().expect("a gap");
    assert_eq!((gap.stream, gap.from, gap.to, gap.lost_bytes), (T, 0, 6_000, 6_000));
    assert_eq!(bench.ledger.take_gap(), None);
    assert_eq!(bench.drain(), [Sent::Bytes(T, 6_000, 10_000)]);
}

#[test]
fn a_gap_before_unacknowledged_bytes_waits_for_their_fate() {
    let mut bench = Bench::online();
    bench.open(T, 1_000);
    bench.drain();
    bench.ledger.grew(T, 3_000);
    bench.ledger.discarded(T, 2_000);
    assert_eq!(bench.drain(), [], "what is under way may yet arrive");
    bench.acknowledge_all();
    assert_eq!(bench.ledger.take_gap().map(|gap| (gap.from, gap.to)), Some((1_000, 2_000)));
    assert_eq!(bench.drain(), [Sent::Bytes(T, 2_000, 3_000)]);
}

#[test]
fn incomplete_character_sends_no_frame() {
    let mut bench = Bench::online();
    bench.open(T, 2);
    assert_eq!(bench.next_cutting(0), Some(Sent::Bytes(T, 0, 0)));
    assert_eq!(bench.next(), None);
    assert_eq!(bench.ledger.stream_bytes_in_flight(), 0);
    bench.ledger.grew(T, 2);
    assert_eq!(bench.next(), Some(Sent::Bytes(T, 0, 2)), "the source let go of it");
}

#[test]
fn replay_repeats_held_bytes_and_changes_nothing_else() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.drain();
    bench.acknowledge_all();
    bench.ledger.grew(T, 4_000);
    bench.ledger.discarded(T, 500);
    bench.ledger.replay(T, 0);
    assert!(!bench.ledger.is_settled());
    let expected = [Sent::Reset(T), Sent::Repeat(T, 500, 3_000), Sent::Bytes(T, 3_000, 4_000), Sent::Modes(T)];
    assert_eq!(bench.drain(), expected);
    assert_eq!(bench.ledger.position(T).map(|at| at.acked), Some(3_000));
    bench.ledger.grew(T, 5_000);
    assert_eq!(bench.drain(), [Sent::Bytes(T, 4_000, 5_000)]);
    bench.acknowledge_all();
    assert!(bench.ledger.is_settled());
}

#[test]
fn replay_cut_off_by_a_link_starts_over() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.drain();
    bench.acknowledge_all();
    bench.ledger.replay(T, 1_000);
    let expected = [Sent::Reset(T), Sent::Repeat(T, 1_000, 3_000), Sent::Modes(T)];
    assert_eq!(bench.drain(), expected);
    bench.cut();
    bench.connect();
    assert_eq!(bench.drain(), expected);
    bench.acknowledge_all();
    bench.cut();
    bench.connect();
    assert_eq!(bench.drain(), []);
}

#[test]
fn replay_within_a_character_does_not_wait() {
    let mut bench = Bench::online();
    bench.open(T, 2);
    bench.ledger.replay(T, 0);
    assert_eq!(bench.next(), Some(Sent::Reset(T)));
    assert_eq!(bench.next_cutting(0), Some(Sent::Bytes(T, 0, 0)));
    assert_eq!(bench.next(), Some(Sent::Modes(T)));
    bench.ledger.grew(T, 3);
    assert_eq!(bench.next(), Some(Sent::Bytes(T, 0, 3)));
}

#[test]
fn forgotten_stream_delays_no_message() {
    let mut bench = Bench::online();
    bench.open(T, 500_000);
    bench.drain();
    bench.push_after(Kind::Closed, "closed", After::stream(T, 500_000));
    bench.ledger.forget_stream(T);
    assert_eq!(bench.drain(), [Sent::Message("closed")]);
    bench.acknowledge_all();
    assert!(bench.ledger.is_settled());
    assert_eq!(bench.ledger.stream_bytes_in_flight(), 0);
}
