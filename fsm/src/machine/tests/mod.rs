//! Tests of the machine: a driver that observes every step, and four ways to use it.

mod edges;
mod exhaustive;
mod leftovers;
mod observed;
mod policy;
mod port;
mod properties;

use super::invariants::Observer;
use super::{Machine, MachineSnapshot};
use crate::fact::{ClockJump, CloseReason, Fact, IdSource};
use crate::id::LinkId;
use crate::limits::{Policy, Schedule};
use crate::order::Order;
use crate::time::Time;
use crate::timer::{self, Timer};
use alloc::vec::Vec;

/// A machine with its observer and a clock that only the test moves.
#[derive(Clone)]
pub(super) struct Driver {
    pub(super) machine: Machine,
    pub(super) observer: Observer,
    pub(super) now: Time,
}

impl Driver {
    /// A machine before its first fact.
    pub(super) fn new(seed: u64) -> Self {
        let policy = Policy::default();
        let observer = Observer::new(policy.clone());
        Self { machine: Machine::new(policy, Schedule::default(), seed), observer, now: Time::START }
    }

    /// A machine whose link is ready.
    pub(super) fn ready(seed: u64) -> Self {
        let mut driver = Self::dialling(seed);
        driver.fact(Fact::LinkOpened { link: LinkId(1) });
        driver.fact(Fact::Greeted { link: LinkId(1) });
        driver
    }

    /// A machine that dials for the first time, with a remembered id.
    pub(super) fn dialling(seed: u64) -> Self {
        let mut driver = Self::new(seed);
        driver.fact(Fact::Started { id: IdSource::Remembered });
        driver.tick();
        driver.tick();
        assert_eq!(driver.state(), "connecting.dialling");
        driver
    }

    /// Hands over a fact now, checks the invariants, and returns the orders.
    #[track_caller]
    pub(super) fn fact(&mut self, fact: Fact) -> Vec<Order> {
        self.machine.handle(self.now, &fact);
        let orders: Vec<_> = core::iter::from_fn(|| self.machine.poll_order()).collect();
        let seen = self.snapshot();
        if let Err(violation) = self.observer.step(self.now, &fact, &orders, &seen) {
            panic!("{violation:?} at {} after {fact:?}: {orders:?}, {seen:?}", self.now);
        }
        let own = timers_of(seen.state);
        for timer in timer::ALL {
            let is_armed = self.machine.timers.deadline(timer).is_some();
            assert!(!is_armed || own.contains(&timer), "{timer:?} is armed in {} after {fact:?}", seen.state);
        }
        for needed in deadlines_of(seen.state) {
            let is_armed = needed.iter().any(|timer| self.machine.timers.deadline(*timer).is_some());
            assert!(is_armed, "none of {needed:?} is armed in {} after {fact:?}", seen.state);
        }
        orders
    }

    #[track_caller]
    pub(super) fn tick(&mut self) -> Vec<Order> {
        self.fact(Fact::Tick)
    }

    /// Goes to the next deadline and ticks there.
    #[track_caller]
    pub(super) fn advance(&mut self) -> Vec<Order> {
        let next = self.machine.next_deadline().expect("only a stopped machine has no deadline");
        self.now = self.now.max(next);
        self.tick()
    }

    /// Goes on from deadline to deadline until an order satisfies `wanted`; returns when that was, from now.
    #[track_caller]
    pub(super) fn until(&mut self, wanted: impl Fn(&Order) -> bool) -> u64 {
        let from = self.now;
        for _ in 0..10_000 {
            if self.advance().iter().any(&wanted) {
                return self.now.ms_since(from);
            }
        }
        panic!("never ordered");
    }

    /// Goes on for `ms`, answering every Ping as a healthy console does.
    #[track_caller]
    pub(super) fn live_for_ms(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        while self.machine.next_deadline().is_some_and(|next| next <= end) {
            for order in self.advance() {
                if let Order::SendPing { link } = order {
                    self.fact(Fact::PingWritten { link });
                    self.fact(Fact::PongReceived { link, last: true });
                }
            }
        }
        self.now = end;
    }

    /// The process is stopped for `ms`; the loop notices and says so before it ticks.
    #[track_caller]
    pub(super) fn frozen_for_ms(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        if let Some(gap_ms) = self.machine.late_by_ms(self.now) {
            self.fact(Fact::ClockJumped { cause: ClockJump::LateTick, gap_ms, entropy: ms });
        }
        self.tick();
    }

    pub(super) fn state(&self) -> &'static str {
        self.snapshot().state
    }

    pub(super) fn snapshot(&self) -> MachineSnapshot {
        self.machine.snapshot()
    }

    /// The console closes the link, and the socket goes.
    #[track_caller]
    pub(super) fn closed_by_console(&mut self, code: u16, reason: CloseReason) -> Vec<Order> {
        let link = self.observer.live().expect("a link is up");
        let orders = self.fact(Fact::CloseReceived { link, code, reason });
        self.fact(Fact::LinkClosed { link });
        orders
    }

    /// Dials until the link is ready; the console answers at once.
    #[track_caller]
    pub(super) fn reconnect(&mut self) -> u64 {
        let waited_ms = self.until(is_dial);
        let link = self.observer.dialling().expect("a dial was ordered");
        self.fact(Fact::LinkOpened { link });
        self.fact(Fact::Greeted { link });
        waited_ms
    }
}

/// The timers that may be armed in a state; each other was left behind by a state that is over.
fn timers_of(state: &str) -> &'static [Timer] {
    use Timer::*;
    match state {
        "unregistered" => &[Begin, CloseDeadline],
        "registering.requesting" => &[RegistrationDeadline, CloseDeadline],
        "registering.backing_off" => &[Retry, CloseDeadline],
        "connecting.waiting" => &[Retry, CloseDeadline],
        "connecting.probing" => &[Retry, PortProbe, PortProbeDeadline],
        "connecting.dialling" => &[DialDeadline],
        "connected.greeting" => &[StateGate, AllGate, Ping, PongDeadline, Heartbeat, Metrics],
        "connected.ready" => &[Ping, PongDeadline, Heartbeat, Metrics, Stable, StableAfterReplacement, Resync],
        "draining.flushing" => &[StateGate, DrainStep, DrainClose, DrainExit],
        "draining.closing" => &[CloseDeadline, DrainStep, DrainExit],
        "draining.unlinked" => &[DrainStep, DrainExit],
        "stopped" => &[],
        other => panic!("no state is called {other}"),
    }
}

/// The deadlines of a state: of each list one timer is armed as long as the state lasts.
fn deadlines_of(state: &str) -> &'static [&'static [Timer]] {
    use Timer::*;
    match state {
        "unregistered" => &[&[Begin]],
        "registering.requesting" => &[&[RegistrationDeadline]],
        "registering.backing_off" => &[&[Retry]],
        // The retry is armed once the old socket is gone.
        "connecting.waiting" => &[&[Retry, CloseDeadline]],
        "connecting.probing" => &[&[Retry]],
        "connecting.dialling" => &[&[DialDeadline]],
        "connected.greeting" => &[&[AllGate], &[Ping, PongDeadline]],
        "connected.ready" => &[&[Ping, PongDeadline], &[Heartbeat], &[Metrics]],
        "draining.flushing" => &[&[DrainClose], &[DrainExit]],
        "draining.closing" => &[&[CloseDeadline], &[DrainExit]],
        "draining.unlinked" => &[&[DrainExit]],
        "stopped" => &[],
        other => panic!("no state is called {other}"),
    }
}

pub(super) fn is_dial(order: &Order) -> bool {
    matches!(order, Order::Dial { .. })
}

pub(super) fn is_register(order: &Order) -> bool {
    matches!(order, Order::Register { .. })
}

/// The number of the link that a step dialled.
pub(super) fn dialled(orders: &[Order]) -> Option<LinkId> {
    orders.iter().find_map(|order| match order {
        Order::Dial { link } => Some(*link),
        _ => None,
    })
}
