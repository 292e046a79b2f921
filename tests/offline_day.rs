//! The agent's mind alone on a dead network for a virtual day, while things happen that it would tell: memory stays
//! flat, dials stay few, and time is not spent on nothing.
//!
//! No socket and no clock: the engine is driven from deadline to deadline. Units: bytes, virtual milliseconds.

use std::alloc::System;

use draupnir_fsm::delivery::{After, Kind, Reliable};
use draupnir_fsm::engine::Engine;
use draupnir_fsm::fact::{Fact, Failure, IdSource};
use draupnir_fsm::limits::{Policy, Schedule};
use draupnir_fsm::order::Order;
use draupnir_fsm::time::Time;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Something that the console should hear of happens this often: 8,640 times in a day, twice what the ledger keeps.
const EVENT_EVERY_MS: u64 = 10_000;

/// As long as an ordinary event.
const EVENT_BYTES: usize = 400;

/// A day of retries spread over 30 s has 5,760 of them, on average; the first are sooner.
const DIALS_MAX: usize = 7_000;

struct Day {
    engine: Engine<String>,
    now_ms: u64,
    next_event_ms: u64,
    ticks: usize,
    dials: usize,
}

impl Day {
    fn begin() -> Day {
        let mut engine = Engine::new(Policy::default(), Schedule::default(), 7);
        engine.handle(Time::START, Fact::Started { id: IdSource::Remembered });
        Day { engine, now_ms: 0, next_event_ms: EVENT_EVERY_MS, ticks: 0, dials: 0 }
    }

    /// Lives up to `until_ms`.
    fn live(&mut self, until_ms: u64) {
        while self.now_ms < until_ms {
            let now = Time::from_ms(self.now_ms);
            self.engine.tick(now, 0);
            self.ticks += 1;
            while let Some(order) = self.engine.poll_order() {
                self.perform(now, order);
            }
            while self.engine.delivery.take_drops().is_some() {}
            assert!(self.engine.next_frame(now).is_none(), "there is no link to write to");
            let due_ms = self.engine.next_deadline().expect("it is not stopped").as_ms();
            assert!(due_ms > self.now_ms || self.engine.machine().next_deadline().is_some());
            self.now_ms = due_ms.max(self.now_ms).min(self.next_event_ms);
            if self.now_ms == self.next_event_ms {
                self.next_event_ms += EVENT_EVERY_MS;
                self.something_happens();
            }
        }
    }

    fn perform(&mut self, now: Time, order: Order) {
        if let Order::Dial { link } = order {
            self.dials += 1;
            self.engine.handle(now, Fact::DialFailed { link, cause: Failure::Connect, retry_after_ms: None });
        }
    }

    fn something_happens(&mut self) {
        let event = Reliable { kind: Kind::Event, size_bytes: EVENT_BYTES, after: After::NOTHING, promised: false };
        // The oldest make room; that is counted and told when the console is back.
        let _ = self.engine.delivery.push(event, "x".repeat(EVENT_BYTES));
    }
}

fn memory_is_flat_dials_are_few_and_nothing_spins() {
    let everything = Region::new(ALLOCATOR);
    let held_bytes = || {
        let change = everything.change();
        change.bytes_allocated - change.bytes_deallocated
    };
    let mut day = Day::begin();
    day.live(DAY_MS / 2); // by now the ledger holds as much as it may
    let (noon_bytes, noon_dials) = (held_bytes(), day.dials);
    day.live(DAY_MS);
    let night_bytes = held_bytes();
    assert!(night_bytes <= noon_bytes + 64 * 1024, "{noon_bytes} bytes at noon, {night_bytes} at night");
    assert!(night_bytes < 8 << 20, "{night_bytes} bytes");
    assert!((2 * 60 * 24..DIALS_MAX).contains(&day.dials), "{} dials", day.dials);
    assert!(day.dials - noon_dials < DIALS_MAX / 2 + 500, "{} dials since noon", day.dials - noon_dials);
    let reasons = day.dials + usize::try_from(DAY_MS / EVENT_EVERY_MS).expect("it fits");
    assert!(day.ticks <= 3 * reasons, "{} turns for {reasons} reasons", day.ticks);
}

// One test at a time: the allocations of all threads are counted.
#[test]
fn a_day_without_a_network() {
    memory_is_flat_dials_are_few_and_nothing_spins();
    an_hour_without_dials_is_an_hour_asleep();
}

fn an_hour_without_dials_is_an_hour_asleep() {
    // A refused key waits for minutes: the loop has nothing to do in between.
    let mut engine: Engine<String> = Engine::new(Policy::default(), Schedule::default(), 7);
    engine.handle(Time::START, Fact::Started { id: IdSource::Remembered });
    let (mut now_ms, mut ticks) = (0, 0);
    while now_ms < HOUR_MS {
        let now = Time::from_ms(now_ms);
        engine.tick(now, 0);
        ticks += 1;
        while let Some(order) = engine.poll_order() {
            if let Order::Dial { link } = order {
                engine.handle(now, Fact::DialFailed { link, cause: Failure::Unauthorized, retry_after_ms: None });
            }
        }
        now_ms = engine.next_deadline().expect("it is not stopped").as_ms().max(now_ms);
    }
    assert!(ticks < 60, "{ticks} turns in an hour");
}
