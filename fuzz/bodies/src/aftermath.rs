//! Runs the machine after one fact about the console: what it does next there, and how long it waits before.
//!
//! A fresh machine with the production policy is brought into the state that the fact needs, and gets only the time
//! afterwards. The observer of `draupnir_fsm` checks each step. All waits are in milliseconds.

use draupnir_fsm::fact::{Fact, IdSource};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::limits::{Policy, Schedule};
use draupnir_fsm::machine::Machine;
use draupnir_fsm::machine::invariants::Observer;
use draupnir_fsm::order::Order;
use draupnir_fsm::time::Time;

/// The most deadlines before the machine registers or dials. It has few timers.
const DEADLINES_MAX: usize = 16;

/// A machine and its time.
pub(crate) struct Aftermath {
    machine: Machine,
    observer: Observer,
    now: Time,
}

/// The next registration or dial of the machine.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) order: Order,
    pub(crate) waited_ms: u64,
}

impl Aftermath {
    /// A machine that has just started, and its first order about the console.
    pub(crate) fn of_start(remembered: bool, seed: u64) -> (Self, Order) {
        let machine = Machine::new(Policy::default(), Schedule::default(), seed);
        let mut aftermath = Self { machine, observer: Observer::new(Policy::default()), now: Time::START };
        let id = if remembered { IdSource::Remembered } else { IdSource::Configured };
        aftermath.handle(&Fact::Started { id });
        let first = aftermath.next();
        (aftermath, first.order)
    }

    /// A machine whose first link is ready.
    pub(crate) fn of_ready_link(seed: u64) -> (Self, LinkId) {
        let (mut aftermath, order) = Self::of_start(true, seed);
        let Order::Dial { link } = order else { panic!("not a dial but {order:?} where an id is remembered") };
        aftermath.handle(&Fact::LinkOpened { link });
        aftermath.handle(&Fact::Greeted { link });
        (aftermath, link)
    }

    /// Handles one fact and returns the orders that follow at once.
    pub(crate) fn handle(&mut self, fact: &Fact) -> Vec<Order> {
        self.machine.handle(self.now, fact);
        let orders: Vec<Order> = std::iter::from_fn(|| self.machine.poll_order()).collect();
        let held = self.observer.step(self.now, fact, &orders, &self.machine.snapshot());
        assert_eq!(held, Ok(()), "after {fact:?}");
        orders
    }

    /// Lets time pass until the machine registers or dials.
    pub(crate) fn next(&mut self) -> Next {
        let since = self.now;
        for _ in 0..DEADLINES_MAX {
            self.now =
                self.machine.next_deadline().expect("a machine that has not stopped has a deadline").max(self.now);
            let orders = self.handle(&Fact::Tick);
            let next = orders.into_iter().find(|order| matches!(order, Order::Register { .. } | Order::Dial { .. }));
            if let Some(order) = next {
                return Next { order, waited_ms: self.now.ms_since(since) };
            }
        }
        panic!("after {DEADLINES_MAX} deadlines the machine has neither registered nor dialled");
    }

    /// The same after a fact, which may lead to it at once.
    pub(crate) fn next_after(&mut self, fact: &Fact) -> (Vec<Order>, Next) {
        let orders = self.handle(fact);
        let at_once = orders.iter().find(|order| matches!(order, Order::Register { .. } | Order::Dial { .. })).copied();
        let next = at_once.map_or_else(|| self.next(), |order| Next { order, waited_ms: 0 });
        (orders, next)
    }
}
