//! The order of messages, which ones wait for others, and how much may be under way.

use super::{Bench, Sent, T, U, V};
use draupnir_fsm::delivery::ping::Purpose;
use draupnir_fsm::delivery::{After, FRAME_BYTES_MAX, Kind, StateKind, StreamKey, UNLIMITED};
use draupnir_fsm::id::{CommandKey, SessionKey};

#[test]
fn a_closed_follows_the_bytes_of_its_own_stream_and_of_no_other() {
    let mut bench = Bench::online();
    bench.open(T, 100_000);
    bench.open(U, 100_000);
    bench.push_after(Kind::Closed, "T closed", After::stream(T, 100_000));
    bench.push(Kind::Closed, "another closed");
    let mut sent = bench.drain();
    assert_eq!(sent.remove(0), Sent::Message("another closed"));
    assert!(!sent.contains(&Sent::Message("T closed")), "the window is shut before the last byte");
    for _ in 0..20 {
        bench.acknowledge_all();
        sent.extend(bench.drain());
    }
    let end_of =
        |of: StreamKey| sent.iter().position(|one| matches!(one, Sent::Bytes(stream, _, 100_000) if *stream == of));
    let closed = sent.iter().position(|one| *one == Sent::Message("T closed")).expect("sent");
    assert!(closed > end_of(T).expect("sent"));
}

#[test]
fn a_closed_waits_for_its_bytes_again_on_the_next_link() {
    let mut bench = Bench::online();
    bench.open(T, 3_000);
    bench.push_after(Kind::Closed, "closed", After::stream(T, 3_000));
    bench.ledger.end_stream(T);
    assert_eq!(bench.drain(), [Sent::Bytes(T, 0, 3_000), Sent::Message("closed")]);
    bench.cut();
    bench.connect();
    assert_eq!(bench.next_cutting(1_000), Some(Sent::Bytes(T, 0, 1_000)));
    assert_eq!(bench.drain(), [Sent::Bytes(T, 1_000, 3_000), Sent::Message("closed")]);
    assert_eq!(bench.ledger.take_finished(), None);
    bench.acknowledge_all();
    assert_eq!(bench.ledger.take_finished(), Some(T));
    assert!(bench.ledger.is_settled());
}

#[test]
fn a_streamed_result_waits_for_both_its_streams() {
    let (out, err) = (StreamKey::Stdout(CommandKey(9)), StreamKey::Stderr(CommandKey(9)));
    let mut bench = Bench::online();
    bench.open(out, 10);
    bench.open(err, 20);
    bench.push_after(Kind::Result, "result", After::streams((out, 10), (err, 20)));
    assert_eq!(bench.drain(), [Sent::Bytes(out, 0, 10), Sent::Bytes(err, 0, 20), Sent::Message("result")]);
}

#[test]
fn order_is_control_reliable_interactive_bulk() {
    let mut bench = Bench::online();
    bench.open(T, 100_000);
    bench.open(U, 10);
    bench.push(Kind::Event, "event");
    bench.ledger.set_state(StateKind::Heartbeat, "heartbeat");
    bench.ledger.request_ping();
    assert!(matches!(bench.next(), Some(Sent::Ping(Purpose::KeepAlive, _))));
    assert_eq!(bench.next(), Some(Sent::State(StateKind::Heartbeat, "heartbeat")));
    assert_eq!(bench.next(), Some(Sent::Message("event")));
    assert_eq!(bench.next(), Some(Sent::Bytes(U, 0, 10)));
    assert!(matches!(bench.next(), Some(Sent::Bytes(T, 0, _))));
}

#[test]
fn streams_of_a_class_take_turns() {
    let mut bench = Bench::online();
    for stream in [T, U, V] {
        bench.open(stream, 100_000);
    }
    let mut served = Vec::new();
    while let Some(sent) = bench.next() {
        if let Sent::Bytes(stream, ..) = sent {
            served.push(stream);
        }
    }
    assert!(served.len() >= 9);
    for (place, stream) in served.into_iter().enumerate() {
        assert_eq!(stream, [T, U, V][place % 3]);
    }
}

#[test]
fn bulk_goes_once_after_sixty_four_others() {
    let mut bench = Bench::online();
    bench.open(T, 1_000_000);
    for _ in 0..500 {
        bench.push(Kind::Event, "event");
    }
    let mut others = 0;
    let mut bulk = 0;
    for _ in 0..400 {
        match bench.next().expect("more") {
            Sent::Bytes(..) => {
                bulk += 1;
                others = 0;
            }
            _ => others += 1,
        }
        assert!(others <= 64);
        let payload = bench.ping();
        bench.pong(&payload);
        others += 1;
    }
    assert!(bulk >= 12, "{bulk}");
}

#[test]
fn a_stream_stops_at_its_window_and_goes_on_with_the_pong() {
    let mut bench = Bench::online();
    bench.open(T, 0);
    assert_eq!(bench.ledger.poll_credit(), Some((T, 49_152)), "64 KiB encoded");
    bench.ledger.grew(T, 200_000);
    bench.drain();
    let in_flight = bench.ledger.stream_bytes_in_flight();
    assert!((64 << 10..80 << 10).contains(&in_flight), "{in_flight}");
    while let Some((stream, bytes)) = bench.ledger.poll_credit() {
        assert_eq!((stream, bytes), (T, 0));
    }
    bench.acknowledge_all();
    assert_eq!(bench.ledger.stream_bytes_in_flight(), 0);
    assert!(!bench.drain().is_empty());
}

#[test]
fn window_grows_while_more_is_delivered_and_survives_silence() {
    let mut bench = Bench::online();
    bench.open(T, 50_000_000);
    bench.drain();
    assert!(bench.ledger.stream_bytes_in_flight() < 80 << 10);
    widen(&mut bench);
    bench.drain();
    let most = bench.ledger.stream_bytes_in_flight();
    assert!((4 << 20..(4 << 20) + (48 << 10)).contains(&most), "{most}");
    let payload = bench.ping();
    bench.pass_ms(30);
    bench.pong(&payload).expect("an answer");
    bench.pass_ms(60_000);
    bench.drain();
    assert!(bench.ledger.stream_bytes_in_flight() >= most, "the way is what it was");
}

/// Acknowledges everything each 30 ms, until the window is at its widest.
fn widen(bench: &mut Bench) {
    for _ in 0..12 {
        bench.drain();
        let payload = bench.ping();
        bench.pass_ms(30);
        bench.pong(&payload).expect("an answer");
    }
}

#[test]
fn each_flood_has_its_share_of_the_window() {
    let mut bench = Bench::online();
    bench.open(T, 50_000_000);
    widen(&mut bench);
    [U, V].into_iter().for_each(|stream| bench.open(stream, 50_000_000));
    let sent = bench.drain();
    let of = |wanted: StreamKey| -> u64 {
        let lengths = sent.iter().filter_map(|one| match one {
            Sent::Bytes(stream, from, to) if *stream == wanted => Some(to - from),
            _ => None,
        });
        lengths.sum()
    };
    let (least, most) = (of(T).min(of(U)).min(of(V)), of(T).max(of(U)).max(of(V)));
    assert!(least > 900_000 && most - least <= FRAME_BYTES_MAX as u64, "{least} to {most}");
}

#[test]
fn all_streams_together_stay_within_the_window_of_the_link() {
    let mut bench = Bench::online();
    for key in 1..=40 {
        bench.open(StreamKey::Terminal(SessionKey(key)), 3_000_000);
    }
    bench.drain();
    let at_first = bench.ledger.stream_bytes_in_flight();
    assert!((64 << 10..112 << 10).contains(&at_first), "{at_first}");
    widen(&mut bench);
    bench.drain();
    let at_most = bench.ledger.stream_bytes_in_flight();
    // More than a hundredth of the window for each: none is interactive.
    assert!((4 << 20..(4 << 20) + (48 << 10)).contains(&at_most), "{at_most}");
    // The echo of typed input is still sent.
    bench.open(StreamKey::Terminal(SessionKey(99)), 5);
    assert_eq!(bench.drain(), [Sent::Bytes(StreamKey::Terminal(SessionKey(99)), 0, 5)]);
    bench.ledger.open_stream(StreamKey::Terminal(SessionKey(100)));
    assert!(bench.ledger.read_credit(StreamKey::Terminal(SessionKey(100))) > 10_000);
}

#[test]
fn without_a_link_sources_read_into_their_scrollback() {
    let mut bench = Bench::offline();
    bench.open(T, 1_000_000);
    assert_eq!(bench.ledger.read_credit(T), UNLIMITED);
    bench.connect();
    bench.drain();
    assert_eq!(bench.ledger.read_credit(T), 0);
    assert_eq!(bench.ledger.read_credit(U), 0, "no such stream");
}

#[test]
fn frames_are_short_on_a_slow_link_and_full_on_a_fast_one() {
    let mut bench = Bench::online();
    bench.open(T, 50_000_000);
    assert_eq!(bench.next(), Some(Sent::Bytes(T, 0, 8 << 10)));
    widen(&mut bench);
    let longest = bench.drain().into_iter().map(|sent| match sent {
        Sent::Bytes(_, from, to) => to - from,
        _ => 0,
    });
    assert_eq!(longest.max(), Some(FRAME_BYTES_MAX as u64));
}

#[test]
fn batches_are_small_on_a_slow_link_and_large_on_a_fast_one() {
    let mut bench = Bench::online();
    assert_eq!(bench.ledger.batch_bytes(), 8 << 10);
    for key in 1..=8 {
        bench.open(StreamKey::Terminal(SessionKey(key)), 50_000_000);
    }
    widen(&mut bench);
    assert_eq!(bench.ledger.batch_bytes(), 64 << 10);
}

#[test]
fn blocked_stream_is_read_once_there_is_room() {
    let mut bench = Bench::online();
    bench.open(T, 100_000);
    bench.open(U, 100_000);
    bench.drain();
    let payload = bench.ping();
    bench.open(V, 16_000);
    let credits = |bench: &mut Bench| {
        let mut last = None;
        while let Some((stream, bytes)) = bench.ledger.poll_credit() {
            last = if stream == V { Some(bytes) } else { last };
        }
        last
    };
    assert_eq!(credits(&mut bench), Some(0), "the others fill the link");
    assert_eq!(credits(&mut bench), None);
    bench.pong(&payload).expect("an answer");
    assert!(credits(&mut bench) > Some(0));
}

#[test]
fn typing_goes_before_bulk_even_after_much_output() {
    let mut bench = Bench::online();
    bench.open(V, 20_000);
    bench.drain();
    bench.acknowledge_all();
    bench.open(T, 100_000);
    bench.ledger.grew(V, 20_010);
    assert_eq!(bench.next(), Some(Sent::Bytes(V, 20_000, 20_010)));
}

#[test]
fn streams_are_marked_before_the_window_is_full() {
    let mut bench = Bench::online();
    [T, U, V].into_iter().for_each(|stream| bench.open(stream, 100_000));
    let mut frames = 0;
    while !matches!(bench.next_cutting(1_000), Some(Sent::Ping(Purpose::Marker, _))) {
        frames += 1;
        assert!(frames <= 28, "half the window of the link is under way, and no marker");
    }
}
