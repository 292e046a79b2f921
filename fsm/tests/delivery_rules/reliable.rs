//! What is kept, in which order it goes, and what makes way at the bound.

use super::{Bench, Sent, T};
use draupnir_fsm::delivery::{
    After, CUT_RESULT_BYTES, Drops, Kind, LinkEnd, PROMISED_CLOSED_BYTES, PROMISED_RESULT_BYTES, Poison, PushError,
    RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX, Reliable, StateKind,
};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::order::Gate;

#[test]
fn unacknowledged_messages_go_again_before_newer_ones() {
    let mut bench = Bench::online();
    bench.push(Kind::Event, "one");
    bench.push(Kind::Result, "two");
    bench.drain();
    bench.acknowledge_all();
    bench.push(Kind::Event, "three");
    bench.push(Kind::Result, "four");
    bench.drain();
    bench.cut();
    bench.push(Kind::Event, "five");
    bench.connect();
    let again = [Sent::Message("three"), Sent::Message("four"), Sent::Message("five")];
    assert_eq!(bench.drain(), again);
}

#[test]
fn message_can_be_sent_again_on_the_same_link() {
    let mut bench = Bench::online();
    let number = bench.push(Kind::Closed, "closed");
    bench.drain();
    assert!(bench.ledger.send_again(number));
    assert_eq!(bench.drain(), [Sent::Message("closed")]);
    bench.acknowledge_all();
    assert!(!bench.ledger.send_again(number));
    assert!(bench.ledger.is_settled());
}

#[test]
fn only_the_newest_state_is_sent_and_none_outlives_its_link() {
    let mut bench = Bench::offline();
    assert!(!bench.ledger.set_state(StateKind::Heartbeat, "offline"));
    bench.link = LinkId(1);
    bench.ledger.link_opened(bench.now, LinkId(1));
    bench.ledger.set_state(StateKind::Metrics, "old metrics");
    bench.ledger.set_state(StateKind::Heartbeat, "old heartbeat");
    bench.ledger.set_state(StateKind::Heartbeat, "heartbeat");
    bench.ledger.set_state(StateKind::Registration, "registration");
    bench.ledger.set_state(StateKind::Metrics, "metrics");
    assert_eq!(bench.next(), None, "the gate is shut");
    bench.ledger.open_gate(bench.now, Gate::State);
    let expected = [
        Sent::State(StateKind::Registration, "registration"),
        Sent::State(StateKind::Heartbeat, "heartbeat"),
        Sent::State(StateKind::Metrics, "metrics"),
    ];
    assert_eq!(bench.drain(), expected);
    bench.ledger.set_state(StateKind::Heartbeat, "lost");
    bench.cut();
    bench.connect();
    assert_eq!(bench.drain(), []);
    assert!(bench.ledger.is_settled(), "state is not waited for");
}

#[test]
fn at_the_bound_the_oldest_events_make_way() {
    let mut bench = Bench::offline();
    let first = bench.push(Kind::Event, "first");
    for _ in 1..RELIABLE_MESSAGES_MAX {
        bench.push(Kind::Event, "event");
    }
    assert_eq!(bench.push_size(Kind::Result, 10, false), Ok(1));
    assert!(!bench.ledger.is_waiting(first));
    assert_eq!(bench.push_size(Kind::Event, 10, false), Ok(1), "for an event too");
    assert_eq!(bench.push_size(Kind::Closed, 300_000, false), Ok(1));
    assert_eq!(bench.ledger.messages(), RELIABLE_MESSAGES_MAX);
    // 4,096 messages of 100 bytes leave 3.5 MiB or so.
    assert_eq!(bench.push_size(Kind::Result, RELIABLE_BYTES_MAX - 300_010, false), Ok(4_094));
    assert_eq!(bench.ledger.message_bytes(), RELIABLE_BYTES_MAX);
    assert_eq!(bench.push_size(Kind::Event, 1, false), Err(PushError::Dropped), "nothing makes way for an event");
    assert_eq!(bench.ledger.take_drops(), None, "not while offline");
    bench.connect();
    assert_eq!(bench.ledger.take_drops(), Some(Drops { results: 0, closed: 0, events: 4_098 }));
    assert_eq!(bench.ledger.take_drops(), None, "reported once");
}

#[test]
fn room_that_was_promised_is_there() {
    let mut bench = Bench::offline();
    let mut promised = 0;
    while bench.ledger.promise(Kind::Result) {
        promised += 1;
    }
    assert_eq!(promised, RELIABLE_BYTES_MAX / PROMISED_RESULT_BYTES);
    assert!(!bench.ledger.promise(Kind::Closed));
    assert_eq!(bench.push_size(Kind::Result, 1, false), Err(PushError::Dropped));
    assert_eq!(bench.push_size(Kind::Event, RELIABLE_BYTES_MAX, false), Ok(0), "an event may stand on it");
    let too_long = PushError::TooLong { room_bytes: PROMISED_RESULT_BYTES };
    assert_eq!(bench.push_size(Kind::Result, PROMISED_RESULT_BYTES + 1, true), Err(too_long));
    assert_eq!(bench.push_size(Kind::Result, PROMISED_RESULT_BYTES, true), Ok(1), "and makes way");
    bench.ledger.break_promise(Kind::Result);
    assert!(bench.ledger.promise(Kind::Closed));
    let room_bytes = PROMISED_RESULT_BYTES;
    assert_eq!(bench.push_size(Kind::Closed, room_bytes + 1, true), Err(PushError::TooLong { room_bytes }));
    assert_eq!(bench.push_size(Kind::Closed, PROMISED_CLOSED_BYTES, true), Ok(0));
    bench.connect();
    let drops = bench.ledger.take_drops().expect("a result and an event");
    assert_eq!((drops.results, drops.events, drops.total()), (1, 1, 2));
}

#[test]
fn result_that_ended_three_links_is_cut_then_dropped() {
    let mut bench = Bench::offline();
    let message = Reliable { kind: Kind::Result, size_bytes: 700_000, after: After::NOTHING, promised: false };
    let number = bench.ledger.push(message, "long").expect("room").number;
    bench.push(Kind::Event, "event");
    let end = LinkEnd::Closed { code: 1009 };
    let both = vec![Sent::Message("long"), Sent::Message("event")];
    let alone = vec![Sent::Message("long")];
    for (sent, expected) in [(both, None), (alone.clone(), None), (alone, Some(Poison::CutResult { number }))] {
        bench.connect();
        assert_eq!(bench.drain(), sent);
        assert_eq!(bench.ledger.link_closed(bench.now, end), expected);
    }
    bench.connect();
    assert_eq!(bench.drain(), [Sent::Message("event")], "held back until it is cut");
    assert_eq!(bench.ledger.body(number), Some(&"long"));
    assert!(bench.ledger.replace(number, CUT_RESULT_BYTES, "short"));
    assert_eq!(bench.ledger.message_bytes(), CUT_RESULT_BYTES + 100);
    assert_eq!(bench.drain(), [Sent::Message("short")]);
    let dropped = Poison::Dropped { number, kind: Kind::Result };
    // On the first of these links the event went first, so it is suspected; on the next three the cut result is.
    for expected in [None, None, None, Some(dropped)] {
        assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1007 }), expected);
        bench.connect();
        bench.drain();
    }
    assert!(!bench.ledger.is_waiting(number));
    assert_eq!(bench.ledger.take_drops(), Some(Drops { results: 1, closed: 0, events: 0 }));
}

#[test]
fn result_too_short_to_cut_is_dropped() {
    for (size_bytes, is_cut) in [(16_384, false), (16_385, true)] {
        let mut bench = Bench::offline();
        let message = Reliable { kind: Kind::Result, size_bytes, after: After::NOTHING, promised: false };
        let number = bench.ledger.push(message, "x").expect("room").number;
        let mut end = None;
        for _ in 0..3 {
            bench.connect();
            bench.drain();
            end = bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1009 });
        }
        let dropped = Poison::Dropped { number, kind: Kind::Result };
        assert_eq!(end, Some(if is_cut { Poison::CutResult { number } } else { dropped }), "{size_bytes} bytes");
    }
}

#[test]
fn replacement_of_a_message_is_not_longer() {
    let mut bench = Bench::offline();
    let number = bench.push(Kind::Result, "of 100 bytes");
    assert!(!bench.ledger.replace(number, 101, "longer"));
    assert!(bench.ledger.replace(number, 100, "as long"));
    assert_eq!((bench.ledger.body(number), bench.ledger.message_bytes()), (Some(&"as long"), 100));
}

#[test]
fn shortened_event_leaves_room_for_promises() {
    let promises = |bench: &mut Bench| (0..).take_while(|_| bench.ledger.promise(Kind::Result)).count();
    let mut long = Bench::offline();
    let message = Reliable { kind: Kind::Event, size_bytes: 1_000_000, after: After::NOTHING, promised: false };
    let number = long.ledger.push(message, "long").expect("room").number;
    assert!(long.ledger.replace(number, 100, "short"));
    let mut short = Bench::offline();
    short.push(Kind::Event, "short");
    assert_eq!(promises(&mut long), promises(&mut short));
}

#[test]
fn message_that_just_fits_displaces_nothing() {
    let mut bench = Bench::offline();
    bench.push(Kind::Event, "of 100 bytes");
    assert_eq!(bench.push_size(Kind::Closed, RELIABLE_BYTES_MAX - 110, false), Ok(0));
    assert_eq!(bench.push_size(Kind::Result, 10, false), Ok(0));
    assert_eq!(bench.push_size(Kind::Result, 1, false), Ok(1));
}

#[test]
fn event_over_which_three_links_ended_is_dropped() {
    let mut bench = Bench::offline();
    let number = bench.push(Kind::Event, "event");
    for expected in [None, None, Some(Poison::Dropped { number, kind: Kind::Event })] {
        bench.connect();
        bench.drain();
        assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1003 }), expected);
    }
    assert!(bench.ledger.is_settled());
}

#[test]
fn only_three_links_in_a_row_blame_what_was_sent() {
    let mut bench = Bench::offline();
    bench.push(Kind::Event, "event");
    let end = LinkEnd::Closed { code: 1009 };
    let mut link_ends = |end, send: bool| {
        bench.connect();
        if send {
            bench.drain();
        }
        assert_eq!(bench.ledger.link_closed(bench.now, end), None);
    };
    for _ in 0..5 {
        link_ends(end, false);
    }
    for between in [LinkEnd::Broken, LinkEnd::Closed { code: 1001 }, LinkEnd::Closed { code: 1008 }] {
        link_ends(end, true);
        link_ends(end, true);
        link_ends(between, true);
    }
    // Another message was oldest meanwhile.
    let mut bench = Bench::offline();
    for body in ["one", "two", "three", "four"] {
        bench.push(Kind::Event, body);
        bench.connect();
        bench.drain();
        bench.acknowledge_all();
        bench.push(Kind::Event, "next");
        bench.drain();
        assert_eq!(bench.ledger.link_closed(bench.now, end), None);
    }
}

#[test]
fn result_that_cannot_be_cut_is_dropped_and_counted() {
    let mut bench = Bench::online();
    let number = bench.push(Kind::Result, "result");
    bench.ledger.give_up(number);
    bench.ledger.give_up(number);
    assert!(bench.ledger.is_settled());
    assert_eq!(bench.ledger.take_drops(), Some(Drops { results: 1, closed: 0, events: 0 }));
}

/// A console that cannot read "culprit" and answers only the newest Ping reads everything that the ledger sends.
/// Returns true if it closes the link.
fn reads_until_culprit(bench: &mut Bench) -> bool {
    loop {
        let sent: Vec<Sent> = std::iter::from_fn(|| bench.next()).collect();
        if sent.contains(&Sent::Message("culprit")) {
            return true;
        }
        let pings = sent.iter().rev().filter_map(|sent| match sent {
            Sent::Ping(_, payload) => Some(*payload),
            _ => None,
        });
        let Some(newest) = pings.into_iter().next() else { return false };
        assert!(bench.pong(&newest).is_some());
    }
}

#[test]
fn console_that_answers_only_newest_ping_rejects_culprit() {
    let mut bench = Bench::offline();
    for _ in 0..3 {
        bench.push(Kind::Event, "harmless");
    }
    let culprit = bench.push(Kind::Event, "culprit");
    bench.push(Kind::Event, "harmless");
    // On the first link the first message is suspected.
    for expected in [None, None, None, Some(Poison::Dropped { number: culprit, kind: Kind::Event })] {
        bench.connect();
        assert!(reads_until_culprit(&mut bench));
        assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1007 }), expected);
    }
    bench.connect();
    assert!(!reads_until_culprit(&mut bench));
    let settled = bench.drain();
    bench.acknowledge_all();
    assert_eq!(bench.ledger.take_drops(), Some(Drops { results: 0, closed: 0, events: 1 }), "{settled:?}");
}

#[test]
fn suspect_makes_messages_wait_for_each_others_pong() {
    let mut bench = Bench::offline();
    for body in ["one", "two"] {
        bench.push(Kind::Event, body);
    }
    bench.connect();
    assert_eq!(bench.drain(), [Sent::Message("one"), Sent::Message("two")], "nothing is suspected");
    assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1009 }), None);
    bench.connect();
    assert_eq!(bench.drain(), [Sent::Message("one")]);
    bench.acknowledge_all();
    assert_eq!(bench.drain(), [Sent::Message("two")]);
    bench.acknowledge_all();
    // The console has read all of them.
    for body in ["three", "four"] {
        bench.push(Kind::Event, body);
    }
    assert_eq!(bench.drain(), [Sent::Message("three"), Sent::Message("four")]);
}

#[test]
fn sixteen_messages_of_a_link_wait_for_each_other() {
    let mut bench = Bench::offline();
    for _ in 0..20 {
        bench.push(Kind::Event, "event");
    }
    bench.connect();
    bench.drain();
    assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1009 }), None);
    bench.connect();
    for _ in 0..15 {
        assert_eq!(bench.drain().len(), 1);
        bench.acknowledge_all();
    }
    assert_eq!(bench.drain().len(), 5, "the sixteenth, and all that wait");
}

#[test]
fn suspect_holds_up_no_drain() {
    let mut bench = Bench::offline();
    for body in ["one", "two"] {
        bench.push(Kind::Event, body);
    }
    bench.connect();
    bench.drain();
    assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1009 }), None);
    bench.connect();
    bench.ledger.begin_drain();
    assert_eq!(bench.drain(), [Sent::Message("one"), Sent::Message("two")]);
}

#[test]
fn message_sent_first_is_blamed_not_the_older_one() {
    let mut bench = Bench::offline();
    bench.open(T, 100);
    bench.push_after(Kind::Result, "waits for its output", After::stream(T, 100));
    let number = bench.push(Kind::Event, "first");
    for expected in [None, None, Some(Poison::Dropped { number, kind: Kind::Event })] {
        bench.connect();
        let sent = bench.drain();
        let first = sent.iter().find(|sent| matches!(sent, Sent::Message(_)));
        assert_eq!(first, Some(&Sent::Message("first")), "{sent:?}");
        assert_eq!(bench.ledger.link_closed(bench.now, LinkEnd::Closed { code: 1003 }), expected);
    }
}

#[test]
fn there_is_room_for_an_event_where_it_displaces_none() {
    let mut bench = Bench::online();
    assert!(bench.ledger.has_room_for_event());
    assert_eq!(bench.push_size(Kind::Closed, RELIABLE_BYTES_MAX - 10, false), Ok(0));
    assert!(!bench.ledger.has_room_for_event());
    bench.drain();
    bench.acknowledge_all();
    assert!(bench.ledger.has_room_for_event());
}
