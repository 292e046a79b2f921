//! Bytes become facts with time between them for the machine: whatever is told when, its invariants hold and the way
//! back stays open.
//!
//! It does not say what the machine should order, only what it must never order: after every step the [`Observer`] of
//! the exhaustive test looks at the connection, and `children` at sessions and commands. When the bytes are used up the
//! world becomes calm (`calm`): from then on everybody answers, and the machine must reach `connected.ready`, or
//! `stopped` where it was told to stop. In the end it is told to, and must have answered for every child before that.
//!
//! How an input is read: a byte for the seed of the jitter, a byte of flags (`World::new`), then for each step one
//! byte, whose upper three bits say what time does (`World::pass`) before the fact in the lower five, and up to two
//! more, for a duration (`DURATIONS_MS`) and for what the fact says (`facts`). The bytes choose only what the contract
//! of the engine permits: the loop says that it woke late before it hands anything over, it ticks before it waits
//! again, and numbers are those in use or older ones, as reports that were under way when an attempt was given up.
//! Draining ends by itself: the observer knows by when.

mod calm;
mod children;
mod facts;

use children::Children;
use draupnir_fsm::fact::{Fact, IdSource, Jump};
use draupnir_fsm::id::{LinkId, RegistrationAttempt};
use draupnir_fsm::limits::{Policy, Schedule};
use draupnir_fsm::machine::invariants::Observer;
use draupnir_fsm::machine::{Machine, Snapshot};
use draupnir_fsm::order::Order;
use draupnir_fsm::time::Time;

/// Facts of one storm: more make an input slow, not telling.
const FACTS_MAX: u32 = 1_000;

/// How many facts the loop hands over before it ticks, as the agent's does.
const BATCH_MAX: u32 = 64;

/// How late a tick may be without being a jump of the clock, in milliseconds.
const LATE_MS_MAX: u64 = 2_000;

/// The durations that a byte chooses from, in milliseconds: those of the policy, and what lies about them.
const DURATIONS_MS: [u64; 32] = [
    0, 1, 2, 5, 10, 50, 100, 249, 250, 251, 499, 500, 999, 1_000, 1_001, 1_500, 1_999, 2_000, 2_001, 2_500, 4_000,
    5_000, 10_000, 15_000, 30_000, 40_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000,
];

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let mut bytes = input.iter().copied();
    let (Some(seed), Some(flags)) = (bytes.next(), bytes.next()) else { return };
    let mut world = World::new(seed, flags);
    while world.facts < FACTS_MAX {
        let Some(step) = bytes.next() else { break };
        world.step(step, &mut bytes);
    }
    world.become_calm(flags >= 0xF0);
}

/// The machine, who watches it, and what must be known of it to tell it only what could be true.
struct World {
    machine: Machine,
    observer: Observer,
    children: Children,
    policy: Policy,
    now: Time,
    /// The orders of the latest step.
    orders: Vec<Order>,
    facts: u32,
    /// Facts that were handed over since the last tick.
    batch: u32,
    /// How the machine looked after the latest step.
    seen: Snapshot,
    latest_attempt: RegistrationAttempt,
    latest_link: LinkId,
    /// Jumps of the clock, each of which may make a retry wait a little longer.
    jumps: u64,
}

impl World {
    /// A life: its id is remembered where bit 0 of `flags` is set, its heartbeats come as often as the configuration
    /// permits where bit 1 is.
    fn new(seed: u8, flags: u8) -> Self {
        let policy = Policy::default();
        let schedule =
            if flags & 2 == 0 { Schedule::default() } else { Schedule { heartbeat_ms: 5_000, metrics_ms: 5_000 } };
        let machine = Machine::new(policy.clone(), schedule, u64::from(seed));
        let mut world = Self {
            seen: machine.snapshot(),
            machine,
            observer: Observer::new(policy.clone()),
            children: Children::default(),
            policy,
            now: Time::START,
            orders: Vec::new(),
            facts: 0,
            batch: 0,
            latest_attempt: RegistrationAttempt(0),
            latest_link: LinkId(0),
            jumps: 0,
        };
        let id = if flags & 1 != 0 { IdSource::Remembered } else { IdSource::Configured };
        world.tell(Fact::Started { id });
        world
    }

    fn step(&mut self, step: u8, bytes: &mut impl Iterator<Item = u8>) {
        self.pass(step >> 5, bytes);
        self.choose_fact(step & 31, bytes);
    }

    /// Lets time do what the upper bits of a step say.
    fn pass(&mut self, how: u8, bytes: &mut impl Iterator<Item = u8>) {
        if how == 0 && self.batch < BATCH_MAX {
            return; // One more that was ready at the same time.
        }
        self.tick_if_due();
        match how {
            2 => self.live(duration(bytes), false),
            3 => self.live(duration(bytes), true),
            // What is ready at a deadline comes before the tick.
            4 => self.sleep_until_deadline(0),
            5 => self.sleep_until_deadline(duration(bytes).min(LATE_MS_MAX)),
            6 => {
                self.now = self.now.after_ms(duration(bytes));
                self.wake();
            }
            7 => {
                self.sleep_until_deadline(0);
                self.tick_if_due();
            }
            _ => {}
        }
    }

    /// Time passes, and the loop wakes for every deadline; in a `good` world the console answers Pings.
    fn live(&mut self, ms: u64, good: bool) {
        let end = self.now.after_ms(ms);
        while let Some(next) = self.seen.next.filter(|next| *next <= end) {
            if self.facts >= FACTS_MAX {
                return;
            }
            self.now = self.now.max(next);
            self.tell(Fact::Tick);
            if good {
                self.answer_ping();
            }
        }
        self.now = end;
    }

    fn sleep_until_deadline(&mut self, late_ms: u64) {
        if let Some(next) = self.seen.next {
            self.now = self.now.max(next.after_ms(late_ms));
            self.wake();
        }
    }

    /// What the loop does first when it wakes: it notices that it was stopped.
    fn wake(&mut self) {
        if let Some(gap_ms) = self.machine.late_by_ms(self.now) {
            let entropy = self.now.as_ms();
            self.tell(Fact::ClockJumped { cause: Jump::LateTick, gap_ms, entropy });
        }
    }

    fn is_stopped(&self) -> bool {
        self.seen.state == "stopped"
    }

    fn tick_if_due(&mut self) {
        self.batch = 0;
        if self.seen.next.is_some_and(|next| next <= self.now) {
            self.tell(Fact::Tick);
        }
    }

    /// Tells the machine of something and looks at what it makes of it.
    fn tell(&mut self, fact: Fact) {
        self.facts += 1;
        self.batch += 1;
        self.jumps += u64::from(matches!(fact, Fact::ClockJumped { .. }));
        self.children.learn(&fact);
        self.machine.handle(self.now, &fact);
        self.orders.clear();
        self.orders.extend(std::iter::from_fn(|| self.machine.poll_order()));
        let seen = self.machine.snapshot();
        if let Err(violation) = self.observer.step(self.now, &fact, &self.orders, &seen) {
            panic!("{violation:?} at {} after {fact:?}: {:?}, {seen:?}", self.now, self.orders);
        }
        let before = std::mem::replace(&mut self.seen, seen);
        let counted = self.seen.stale + self.seen.unhandled - before.stale - before.unhandled;
        assert!(counted <= 1, "{fact:?} was counted {counted} times");
        for order in &self.orders {
            if let Order::Register { attempt, .. } = order {
                self.latest_attempt = *attempt;
            } else if let Order::Dial { link } = order {
                self.latest_link = *link;
            }
            self.children.see(order);
        }
    }
}

fn duration(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let byte = bytes.next().unwrap_or(0);
    DURATIONS_MS[usize::from(byte & 31)] + u64::from(byte >> 5)
}
