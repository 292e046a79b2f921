//! Runs the driver alone, without a network, for a virtual day in which events happen: memory stays flat, dials stay
//! few, and the driver does not wake up without work.
//!
//! There is no socket and no clock: the test polls the driver at each deadline. Units: bytes, virtual milliseconds.

use std::alloc::System;
use std::rc::Rc;

use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Action, ByteSource, Driver, Encode, Failure, IdSource, Input, Message, NoteId, Output, Policy, Schedule, Time,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// How often an event for the console happens: 8,640 times in a day, twice as many as the ledger keeps.
const EVENT_EVERY_MS: u64 = 10_000;

/// The length of an ordinary event.
const EVENT_BYTES: usize = 400;

/// A day of retries spread over 30 s has 5,760 of them, on average; the first are sooner.
const DIALS_MAX: usize = 7_000;

/// A body that uses as much memory as it reports.
#[derive(Clone)]
struct Filler(Box<[u8]>);

impl draupnir_fsm::driver::Body for Filler {
    fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

/// Encodes every message at the length of an ordinary event, and has no stream.
struct Events;

impl Encode for Events {
    type Body = Filler;

    fn encode(&mut self, _message: &Message) -> Option<Filler> {
        Some(Filler(vec![b'x'; EVENT_BYTES].into()))
    }
}

impl ByteSource for Events {}

struct Day {
    driver: Driver<Filler>,
    cause: Failure,
    now_ms: u64,
    next_event_ms: u64,
    turns: usize,
    dials: usize,
}

impl Day {
    /// Starts a day on which every dial fails for this cause.
    fn begin(cause: Failure) -> Day {
        let budget = Rc::new(Budget::new());
        let mut driver = Driver::new(Policy::default(), Schedule::default(), 7, false, budget);
        driver.handle(Time::START, Input::Started { id: IdSource::Remembered });
        Day { driver, cause, now_ms: 0, next_event_ms: EVENT_EVERY_MS, turns: 0, dials: 0 }
    }

    /// Runs until `until_ms`, with or without events.
    fn run(&mut self, until_ms: u64, events: bool) {
        while self.now_ms < until_ms {
            let now = Time::from_ms(self.now_ms);
            self.turns += 1;
            let mut dialled = None;
            while let Some(output) = self.driver.poll(now, &mut Events) {
                match output {
                    Output::Do(Action::Dial { link }) => dialled = Some(link),
                    Output::Append { .. } | Output::Do(_) => {}
                    Output::Write { .. } => panic!("there is no link to write to"),
                }
            }
            if let Some(link) = dialled {
                self.dials += 1;
                self.driver.handle(now, Input::DialFailed { link, cause: self.cause, retry_after_ms: None });
            }
            let due_ms = self.driver.next_deadline().expect("it is not stopped").as_ms();
            self.now_ms = due_ms.max(self.now_ms);
            if events && self.next_event_ms <= self.now_ms {
                self.now_ms = self.next_event_ms;
                self.next_event_ms += EVENT_EVERY_MS;
                // The oldest events make room. The agent counts them and reports the count when the console is back.
                self.driver.handle(Time::from_ms(self.now_ms), Input::Noted { note: NoteId(1), cause: None });
            }
        }
    }
}

fn memory_is_flat_dials_are_few_and_nothing_spins() {
    let everything = Region::new(ALLOCATOR);
    let held_bytes = || {
        let change = everything.change();
        change.bytes_allocated - change.bytes_deallocated
    };
    let mut day = Day::begin(Failure::Connect);
    day.run(DAY_MS / 2, true); // by now the ledger holds as much as it may
    let (noon_bytes, noon_dials) = (held_bytes(), day.dials);
    day.run(DAY_MS, true);
    let night_bytes = held_bytes();
    assert!(night_bytes <= noon_bytes + 64 * 1024, "{noon_bytes} bytes at noon, {night_bytes} at night");
    assert!(night_bytes < 8 << 20, "{night_bytes} bytes");
    assert!((2 * 60 * 24..DIALS_MAX).contains(&day.dials), "{} dials", day.dials);
    assert!(day.dials - noon_dials < DIALS_MAX / 2 + 500, "{} dials since noon", day.dials - noon_dials);
    let reasons = day.dials + usize::try_from(DAY_MS / EVENT_EVERY_MS).expect("it fits");
    assert!(day.turns <= 3 * reasons, "{} turns for {reasons} reasons", day.turns);
}

// One test at a time: the allocations of all threads are counted.
#[test]
fn a_day_without_a_network() {
    memory_is_flat_dials_are_few_and_nothing_spins();
    an_hour_without_dials_is_an_hour_asleep();
}

fn an_hour_without_dials_is_an_hour_asleep() {
    // After a refused key the driver waits for minutes, and the loop has nothing to do meanwhile.
    let mut day = Day::begin(Failure::Unauthorized);
    day.run(HOUR_MS, false);
    assert!(day.turns < 60, "{} turns in an hour", day.turns);
}
