//! Checks that the ledger's memory stays within its bound, however long the console is away.
//!
//! A counting allocator replaces the system's, so the figures are those of the heap, not of the ledger's own accounts.

use draupnir_fsm::delivery::dedupe::{Dedupe, Verdict};
use draupnir_fsm::delivery::{
    After, Chunk, Delivery, Kind, LinkEnd, OutboundFrame, PushError, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX,
    Reliable, StreamKey,
};
use draupnir_fsm::id::{CommandKey, LinkId, SessionKey};
use draupnir_fsm::order::Gate;
use draupnir_fsm::random::Random;
use draupnir_fsm::time::Time;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn bytes_on_heap() -> isize {
    let stats = HEAP.stats();
    stats.bytes_allocated.cast_signed() - stats.bytes_deallocated.cast_signed()
}

fn allocations() -> usize {
    HEAP.stats().allocations
}

/// The memory of a message beside its body: entries in four ordered tables.
const BOOKS_BYTES_PER_MESSAGE: usize = 400;

const SECOND_MS: u64 = 1_000;

#[test]
fn an_hour_offline_at_the_bound_costs_nothing_beyond_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ledger: Delivery<Vec<u8>> = Delivery::new();
    let mut past = Dedupe::new();
    let mut random = Random::new(3);
    let before = bytes_on_heap();
    let mut most = 0;
    let mut after_ten_minutes = 0;
    let (mut refused, mut accepted, mut displaced) = (0, 0, 0);
    // Commands from before the loss end one by one, a session prints, and events go on. Sometimes a link comes up and
    // breaks before any acknowledgement.
    ledger.open_stream(StreamKey::Terminal(SessionKey(1)));
    for second in 0..3_600u32 {
        let now = Time::from_ms(u64::from(second) * SECOND_MS);
        for part in 0..5u32 {
            let key = second * 5 + part;
            let id_hash = u128::from(random.next_u64());
            assert_eq!(past.verdict(id_hash), Verdict::New);
            if ledger.promise(Kind::Result) {
                past.accepted(id_hash, CommandKey(key));
                accepted += 1;
                let size = usize::try_from(random.between(100, 20_000)).expect("small");
                push_result(&mut ledger, size);
                past.ended(CommandKey(key), size);
            } else {
                refused += 1;
            }
            while past.take_forgotten().is_some() {}
            let size = usize::try_from(random.between(200, 600)).expect("small");
            let event = Reliable { kind: Kind::Event, size_bytes: size, after: After::NOTHING, promised: false };
            displaced += ledger.push(event, vec![0; size]).map_or(0, |pushed| pushed.displaced);
        }
        ledger.grew(StreamKey::Terminal(SessionKey(1)), u64::from(second + 1) << 20);
        ledger.discarded(StreamKey::Terminal(SessionKey(1)), (u64::from(second + 1) << 20) - (256 << 10));
        while ledger.poll_credit().is_some() {}
        if second.is_multiple_of(60) {
            break_a_link(&mut ledger, now, second / 60 + 1);
        }
        let held = bytes_on_heap() - before;
        most = most.max(held);
        if second == 600 {
            after_ten_minutes = most;
        }
    }
    assert!(ledger.message_bytes() <= RELIABLE_BYTES_MAX);
    println!("{accepted} accepted, {refused} refused, {displaced} events displaced, most on the heap {most}");
    assert!(refused > 1_000 && displaced > 1_000, "the bound was reached");
    let bound = RELIABLE_BYTES_MAX + RELIABLE_MESSAGES_MAX * BOOKS_BYTES_PER_MESSAGE;
    assert!(most < bound.cast_signed(), "{most} over {bound}");
    // Lists may round their capacity up once more. A leak would be fifty times larger.
    let growth = most - after_ten_minutes;
    assert!(growth < 64 << 10, "grew by {growth} in 50 minutes at the bound");
}

fn push_result(ledger: &mut Delivery<Vec<u8>>, size: usize) {
    let mut message = Reliable { kind: Kind::Result, size_bytes: size, after: After::NOTHING, promised: true };
    match ledger.push(message, vec![1; size]) {
        Ok(_) => {}
        Err(PushError::TooLong { room_bytes }) => {
            message.size_bytes = room_bytes;
            ledger.push(message, vec![1; room_bytes]).expect("what was promised fits");
        }
        Err(PushError::Dropped) => panic!("a promised result was dropped"),
    }
}

fn break_a_link(ledger: &mut Delivery<Vec<u8>>, now: Time, link: u32) {
    ledger.link_opened(now, LinkId(link));
    ledger.open_gate(now, Gate::All);
    while let Some(next) = ledger.next(now) {
        if let OutboundFrame::Stream { cut: Chunk::Bytes { max, .. }, .. } = next {
            ledger.cut(max);
        }
    }
    while ledger.take_gap().is_some() {}
    assert_eq!(ledger.link_closed(now, LinkEnd::Broken), None);
}

/// What the agent remembers of a command for good: the 128-bit hash of its id, and its place in a table.
const BYTES_PER_ID_MAX: isize = 24;

#[test]
fn remembered_id_costs_a_few_bytes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut past = Dedupe::new();
    let mut random = Random::new(9);
    let mut run = |past: &mut Dedupe, keys: std::ops::Range<u32>| {
        for key in keys {
            let id_hash = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
            past.accepted(id_hash, CommandKey(key));
            past.ended(CommandKey(key), 100);
            while past.take_forgotten().is_some() {}
        }
    };
    // From here on as many results are remembered as may be.
    run(&mut past, 0..1_000);
    let before = bytes_on_heap();
    run(&mut past, 1_000..11_000);
    let each = (bytes_on_heap() - before) / 10_000;
    println!("{each} bytes an id");
    assert_eq!(past.ids(), 11_000);
    assert!(each <= BYTES_PER_ID_MAX, "{each} bytes an id");
}

#[test]
fn frames_of_running_streams_cost_no_allocation_each() {
    const STREAMS: u32 = 256;
    const ROUNDS: u64 = 2_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ledger: Delivery<()> = Delivery::new();
    ledger.link_opened(Time::START, LinkId(1));
    ledger.open_gate(Time::START, Gate::All);
    for key in 0..STREAMS {
        ledger.open_stream(StreamKey::Terminal(SessionKey(key)));
        ledger.grew(StreamKey::Terminal(SessionKey(key)), 1 << 40);
    }
    let mut frames = 0u64;
    let mut before = 0;
    for round in 0..ROUNDS {
        if round == ROUNDS / 10 {
            // The lists have reached their final capacity.
            (frames, before) = (0, allocations());
        }
        let now = Time::from_ms(round);
        let mut newest = None;
        while let Some(next) = ledger.next(now) {
            match next {
                OutboundFrame::Ping { payload, .. } => newest = Some(payload),
                OutboundFrame::Stream { cut: Chunk::Bytes { max, .. }, .. } => {
                    ledger.cut(max);
                    frames += 1;
                }
                other => panic!("{other:?} was not expected"),
            }
        }
        ledger.pong(now, LinkId(1), &newest.expect("a marker")).expect("an answer");
        while ledger.poll_credit().is_some() {}
    }
    let allocations = allocations() - before;
    println!("{frames} frames of {STREAMS} streams, {allocations} allocations");
    assert!((allocations as u64) < frames / 100, "{allocations} allocations for {frames} frames");
}
