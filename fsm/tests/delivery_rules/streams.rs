//! Offsets, gaps, snapshots: what is sent again and what is lost.

use super::{Bench, Sent, T, U};
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
fn snapshot_goes_before_what_was_not_sent() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.drain();
    bench.acknowledge_all();
    bench.ledger.want_snapshot(T);
    bench.ledger.grew(T, 4_000);
    assert!(!bench.ledger.is_settled());
    assert_eq!(bench.drain(), [], "nothing is sent before it is made");
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 3_000)));
    bench.ledger.snapshot_made(T, 3_500, 2_000);
    let expected = [Sent::Bytes(T, 3_000, 3_500), Sent::Snapshot(T, 0, 2_000), Sent::Bytes(T, 3_500, 4_000)];
    assert_eq!(bench.drain(), expected);
    bench.acknowledge_all();
    assert!(bench.ledger.is_settled());
}

#[test]
fn snapshot_cut_off_by_a_link_is_made_again() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.drain();
    bench.acknowledge_all();
    bench.ledger.want_snapshot(T);
    bench.ledger.snapshot_made(T, 3_000, 2_000);
    assert_eq!(bench.drain(), [Sent::Snapshot(T, 0, 2_000)]);
    bench.cut();
    assert_eq!(bench.ledger.snapshot_due(), None, "there is no link");
    bench.connect();
    assert_eq!(bench.drain(), []);
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 3_000)));
    bench.ledger.snapshot_made(T, 3_000, 1_000);
    assert_eq!(bench.drain(), [Sent::Snapshot(T, 0, 1_000)]);
    bench.acknowledge_all();
    bench.cut();
    bench.connect();
    assert_eq!((bench.drain(), bench.ledger.snapshot_due()), (vec![], None));
}

#[test]
fn snapshot_comes_behind_what_a_console_may_have_shown() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.drain();
    bench.cut();
    bench.ledger.grew(T, 4_000);
    bench.connect();
    bench.ledger.want_snapshot(T);
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 3_000)));
    bench.ledger.snapshot_made(T, 3_000, 100);
    let expected = [Sent::Bytes(T, 0, 3_000), Sent::Snapshot(T, 0, 100), Sent::Bytes(T, 3_000, 4_000)];
    assert_eq!(bench.drain(), expected, "behind the snapshot no byte is repeated");
}

#[test]
fn one_snapshot_is_made_at_a_time() {
    let mut bench = Bench::online();
    let streams = [T, U];
    for stream in streams {
        bench.open(stream, 10);
    }
    bench.drain();
    streams.iter().for_each(|stream| bench.ledger.want_snapshot(*stream));
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 10)));
    bench.ledger.snapshot_made(T, 10, 100_000);
    assert_eq!(bench.ledger.snapshot_due(), None, "the other one is not sent yet");
    bench.ledger.forget_stream(T);
    assert_eq!(bench.ledger.snapshot_due(), Some((streams[1], 10)));
}

#[test]
fn storm_of_attaches_makes_one_snapshot_a_round_trip() {
    let mut bench = Bench::online();
    bench.open(T, 1_000);
    bench.drain();
    bench.acknowledge_all();
    let (mut made, mut shown) = (0, 0);
    for attaches in 1..=2_000 {
        bench.ledger.want_snapshot(T);
        if let Some((_, from)) = bench.ledger.snapshot_due() {
            made += 1;
            bench.ledger.snapshot_made(T, from, 2_000);
        }
        shown += bench.drain().len();
        if attaches % 500 == 0 {
            bench.acknowledge_all();
        }
    }
    assert_eq!((made, shown), (4, 4));
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 1_000)), "the last console has seen nothing");
}

#[test]
fn attach_behind_a_snapshot_delays_the_closed() {
    let mut bench = Bench::online();
    bench.open(T, 10);
    bench.drain();
    bench.ledger.want_snapshot(T);
    bench.ledger.snapshot_made(T, 10, 50);
    assert_eq!(bench.drain(), [Sent::Snapshot(T, 0, 50)]);
    bench.ledger.want_snapshot(T);
    bench.push_after(Kind::Closed, "closed", After::stream(T, 10));
    assert_eq!((bench.drain(), bench.ledger.snapshot_due()), (vec![], None), "the first has not arrived");
    bench.cut();
    bench.connect();
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 10)));
    bench.ledger.snapshot_made(T, 10, 60);
    let expected = [Sent::Bytes(T, 0, 10), Sent::Snapshot(T, 0, 60), Sent::Message("closed")];
    assert_eq!(bench.drain(), expected, "one is enough for both");
}

#[test]
fn snapshot_of_a_place_that_is_gone_is_made_again() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.drain();
    bench.acknowledge_all();
    bench.ledger.grew(T, 9_000);
    bench.ledger.want_snapshot(T);
    bench.ledger.snapshot_made(T, 4_000, 100);
    bench.ledger.discarded(T, 5_000);
    assert_eq!(bench.ledger.snapshot_due(), Some((T, 5_000)));
    bench.ledger.snapshot_made(T, 5_000, 100);
    assert_eq!(bench.drain(), [Sent::Snapshot(T, 0, 100), Sent::Bytes(T, 5_000, 9_000)]);
}

#[test]
fn closed_waits_for_the_snapshot_of_its_stream() {
    let mut bench = Bench::online();
    bench.open(T, 10);
    bench.drain();
    bench.ledger.want_snapshot(T);
    bench.push_after(Kind::Closed, "closed", After::stream(T, 10));
    assert_eq!(bench.drain(), []);
    bench.ledger.snapshot_made(T, 10, 50);
    assert_eq!(bench.drain(), [Sent::Snapshot(T, 0, 50), Sent::Message("closed")]);
}

#[test]
fn snapshot_within_a_character_does_not_wait() {
    let mut bench = Bench::online();
    bench.open(T, 2);
    bench.ledger.want_snapshot(T);
    bench.ledger.snapshot_made(T, 2, 5);
    assert_eq!(bench.next_cutting(0), Some(Sent::Bytes(T, 0, 0)));
    assert_eq!(bench.next(), Some(Sent::Snapshot(T, 0, 5)));
    assert!(matches!(bench.next(), Some(Sent::Ping(..))));
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
