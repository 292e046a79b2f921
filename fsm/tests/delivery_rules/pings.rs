//! What a Pong acknowledges, when a Ping is sent, and when a write counts as stuck.

use super::{Bench, Sent, T, U};
use draupnir_fsm::delivery::ping::Purpose;
use draupnir_fsm::delivery::{Ack, After, Kind, Reliable};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::order::Gate;

#[test]
fn pong_acknowledges_only_what_went_before_its_ping() {
    let mut bench = Bench::online();
    let before = bench.push(Kind::Event, "before");
    bench.drain();
    let payload = bench.ping();
    let after = bench.push(Kind::Event, "after");
    bench.drain();
    assert_eq!(bench.pong(&payload), Some(Ack { last: true, messages: 1, frames: 0, round_trip_ms: 0 }));
    assert!(!bench.ledger.is_waiting(before));
    assert!(bench.ledger.is_waiting(after));
}

#[test]
fn pong_counts_acknowledged_frames_and_snapshots() {
    let mut bench = Bench::online();
    bench.open(T, 10);
    bench.drain();
    let payload = bench.ping();
    assert_eq!(bench.pong(&payload), Some(Ack { last: true, messages: 0, frames: 1, round_trip_ms: 0 }));
    bench.ledger.want_snapshot(T);
    bench.ledger.snapshot_made(T, 10, 20);
    let sent = [bench.next_cutting(15), bench.next()];
    assert_eq!(sent, [Some(Sent::Snapshot(T, 0, 15)), Some(Sent::Snapshot(T, 15, 20))]);
    let Some(Sent::Ping(Purpose::Marker, payload)) = bench.next() else { panic!("a marker follows at once") };
    assert_eq!(bench.next(), None);
    // Neighbours of one stream count as one.
    assert_eq!(bench.pong(&payload), Some(Ack { last: true, messages: 0, frames: 2, round_trip_ms: 0 }));
}

#[test]
fn pong_acknowledges_no_byte_after_its_ping() {
    let mut bench = Bench::online();
    bench.open(T, 10);
    bench.drain();
    let before = bench.ping();
    bench.ledger.grew(T, 30);
    bench.drain();
    bench.pong(&before).expect("an answer");
    assert_eq!(bench.ledger.position(T).expect("it is open").acked, 10);
}

#[test]
fn only_what_is_acknowledged_leaves_the_window() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    for _ in 0..3 {
        assert!(matches!(bench.next_cutting(1_000), Some(Sent::Bytes(T, ..))));
    }
    let three = bench.ledger.stream_bytes_in_flight();
    let payload = bench.ping();
    bench.open(U, 1_000);
    bench.drain();
    let others = bench.ledger.stream_bytes_in_flight() - three;
    assert!(others > 0);
    bench.pong(&payload).expect("an answer");
    assert_eq!(bench.ledger.stream_bytes_in_flight(), others);
}

#[test]
fn drain_marks_the_last_frame_at_once() {
    let mut bench = Bench::online();
    bench.ledger.begin_drain();
    bench.push(Kind::Event, "last");
    assert_eq!(bench.next(), Some(Sent::Message("last")));
    assert!(matches!(bench.next(), Some(Sent::Ping(Purpose::Marker, _))));
}

#[test]
fn frame_with_a_later_marker_needs_no_other() {
    let mut bench = Bench::online();
    bench.open(T, 100_000);
    let mut frames = 0;
    while !matches!(bench.next_cutting(1_000), Some(Sent::Ping(Purpose::Marker, _))) {
        frames += 1;
        assert!(frames <= 16, "half the window of the stream is under way, and no marker");
    }
    for _ in 0..frames / 2 {
        assert!(matches!(bench.next_cutting(1_000), Some(Sent::Bytes(..))), "a second marker too soon");
    }
}

#[test]
fn a_pong_answers_the_pings_before_its_own_too() {
    let mut bench = Bench::online();
    bench.push(Kind::Event, "one");
    bench.drain();
    let first = bench.ping();
    bench.push(Kind::Event, "two");
    bench.drain();
    let second = bench.ping();
    let third = bench.ping();
    assert_eq!(bench.pong(&second), Some(Ack { last: false, messages: 2, frames: 0, round_trip_ms: 0 }));
    assert_eq!(bench.pong(&first), None, "answered by the second");
    assert_eq!(bench.pong(&second), None, "a repeat");
    assert_eq!(bench.pong(&third), Some(Ack { last: true, messages: 0, frames: 0, round_trip_ms: 0 }));
}

#[test]
fn foreign_pongs_and_those_of_earlier_links_acknowledge_nothing() {
    let mut bench = Bench::online();
    bench.push(Kind::Event, "one");
    bench.drain();
    let old = bench.ping();
    bench.cut();
    assert_eq!(bench.pong(&old), None, "no link");
    bench.connect();
    bench.drain();
    let payload = bench.ping();
    assert_eq!(bench.pong(&old), None, "an earlier link's payload");
    assert_eq!(bench.ledger.pong(bench.now, LinkId(1), &payload), None, "an earlier link's Pong");
    assert_eq!(bench.pong(b""), None);
    assert_eq!(bench.pong(&payload[..15]), None);
    for place in 0..payload.len() {
        let mut forged = payload;
        forged[place] ^= 1;
        assert_eq!(bench.pong(&forged), None, "byte {place} differs");
    }
    assert_eq!(bench.ledger.messages(), 1);
    assert!(bench.pong(&payload).is_some());
    assert_eq!(bench.ledger.messages(), 0);
}

#[test]
fn a_ping_from_before_the_gate_acknowledges_nothing() {
    let mut bench = Bench::offline();
    bench.push(Kind::Event, "one");
    bench.link = LinkId(1);
    bench.ledger.link_opened(bench.now, LinkId(1));
    let payload = bench.ping();
    assert_eq!(bench.next(), None, "the gate is shut");
    bench.ledger.open_gate(bench.now, Gate::State);
    assert_eq!(bench.next(), None, "the gate is open for state alone");
    bench.ledger.open_gate(bench.now, Gate::All);
    assert_eq!(bench.next(), Some(Sent::Message("one")));
    assert_eq!(bench.pong(&payload), Some(Ack { last: true, messages: 0, frames: 0, round_trip_ms: 0 }));
    assert_eq!(bench.ledger.messages(), 1);
}

#[test]
fn the_payload_of_a_ping_is_as_documented() {
    let mut bench = Bench::offline();
    bench.link = LinkId(0x0102_0303);
    bench.connect();
    bench.push(Kind::Event, "one");
    bench.drain();
    assert_eq!(bench.ping(), [0xD7, 0x11, 1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    bench.push(Kind::Event, "two");
    bench.drain();
    bench.pass_ms(200);
    let payload = [0xD7, 0x12, 1, 2, 3, 4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2];
    assert_eq!(bench.next(), Some(Sent::Ping(Purpose::Marker, payload)));
}

#[test]
fn a_marker_follows_after_200_ms_and_only_while_something_waits() {
    let mut bench = Bench::online();
    bench.pass_ms(10_000);
    assert_eq!(bench.next(), None, "nothing waits");
    assert_eq!(bench.ledger.next_deadline(), None);
    bench.push(Kind::Event, "event");
    bench.next();
    assert_eq!(bench.ledger.next_deadline(), Some(bench.now.after_ms(200)));
    bench.pass_ms(199);
    assert_eq!(bench.next(), None);
    bench.pass_ms(1);
    assert!(matches!(bench.next(), Some(Sent::Ping(Purpose::Marker, _))));
    bench.pass_ms(10_000);
    assert_eq!(bench.next(), None, "what waits is marked");
    assert_eq!(bench.ledger.next_deadline(), None);
}

#[test]
fn a_marker_follows_after_64_kib() {
    let mut bench = Bench::online();
    for body in ["one", "two"] {
        let message = Reliable { kind: Kind::Result, size_bytes: 40_000, after: After::NOTHING, promised: false };
        bench.ledger.push(message, body).expect("room");
    }
    assert_eq!(bench.next(), Some(Sent::Message("one")));
    assert_eq!(bench.next(), Some(Sent::Message("two")));
    assert!(matches!(bench.next(), Some(Sent::Ping(Purpose::Marker, _))));
    assert_eq!(bench.next(), None);
}

#[test]
fn a_stream_is_marked_before_its_window_is_used_up() {
    let mut bench = Bench::online();
    bench.open(T, 1_000_000);
    let mut markers = 0;
    while let Some(sent) = bench.next() {
        markers += u32::from(matches!(sent, Sent::Ping(Purpose::Marker, _)));
    }
    assert!(markers >= 2, "or each window would cost 200 ms");
}

#[test]
fn markers_are_bounded_and_keep_alives_are_not_held_up_by_them() {
    let mut bench = Bench::online();
    let mut markers = 0;
    for _ in 0..100 {
        bench.push(Kind::Event, "event");
        bench.pass_ms(500);
        while let Some(sent) = bench.next() {
            markers += u32::from(matches!(sent, Sent::Ping(Purpose::Marker, _)));
        }
    }
    assert_eq!(markers, 32);
    assert_eq!(bench.ledger.next_deadline(), None, "a Pong must come first");
    let mut payloads: Vec<_> = (0..100).map(|_| bench.ping()).collect();
    let newest = payloads.pop().expect("a hundred");
    assert_eq!(bench.pong(&payloads[0]), None, "too many: forgotten");
    assert_eq!(bench.pong(&newest), Some(Ack { last: true, messages: 100, frames: 0, round_trip_ms: 0 }));
}

#[test]
fn write_stalled_for_ten_seconds_is_reported_once() {
    let mut bench = Bench::online();
    bench.ledger.write_started(bench.now, 500);
    assert!(bench.ledger.is_writing());
    let begun = bench.now;
    for second in 1..=9 {
        assert_eq!(bench.ledger.next_deadline(), Some(begun.after_ms(second * 1_000)));
        bench.now = begun.after_ms(second * 1_000);
        bench.ledger.write_progress(bench.now, if second < 4 { 500 } else { 501 });
        assert_eq!(bench.ledger.tick(bench.now), None);
    }
    for second in 10..=14 {
        bench.now = begun.after_ms(second * 1_000);
        bench.ledger.write_progress(bench.now, 501);
        let stalled = bench.ledger.tick(bench.now);
        assert_eq!(stalled, (second == 14).then_some(LinkId(1)), "ten seconds after the fourth");
    }
    assert_eq!(bench.ledger.tick(bench.now.after_ms(60_000)), None, "reported once");
    assert_eq!(bench.ledger.next_deadline(), None);
    bench.ledger.written();
    assert!(!bench.ledger.is_writing());
}

#[test]
fn time_that_was_not_lived_through_stalls_nothing() {
    let mut bench = Bench::online();
    bench.push(Kind::Event, "event");
    bench.next();
    bench.ledger.write_started(bench.now, 0);
    bench.pass_ms(5_000);
    bench.ledger.shift_ms(3_600_000);
    bench.pass_ms(3_600_000 + 4_999);
    assert_eq!(bench.ledger.tick(bench.now.after_ms(1)), Some(LinkId(1)));
}
