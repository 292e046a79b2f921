//! Looks at every step of the machine, between the engine and the world: the observer of the invariants, and the
//! machine's facts for a scenario.
//!
//! It decides nothing and keeps only the first breach.

use crate::breach::Breach;
use draupnir_fsm::fact::{Fact, Jump};
use draupnir_fsm::limits::Policy;
use draupnir_fsm::machine::Snapshot;
use draupnir_fsm::machine::invariants::Observer;
use draupnir_fsm::order::Order;
use draupnir_fsm::scenario::Step;
use draupnir_fsm::time::Time;

/// What is seen of one machine.
pub(crate) struct Watcher {
    observer: Observer,
    pub(crate) breach: Option<Breach>,
    pub(crate) steps: Option<Vec<Step>>,
    pub(crate) facts: u64,
    /// How often the clock jumped.
    pub(crate) jumps: u64,
    jumped_at: Option<Time>,
    drains: bool,
}

impl Watcher {
    pub(crate) fn new(keep_steps: bool) -> Self {
        Self {
            observer: Observer::new(Policy::default()),
            breach: None,
            steps: keep_steps.then(Vec::new),
            facts: 0,
            jumps: 0,
            jumped_at: None,
            drains: false,
        }
    }

    pub(crate) fn see(&mut self, now: Time, fact: &Fact, orders: &[Order], seen: &Snapshot) {
        self.facts += 1;
        self.jumps += u64::from(matches!(fact, Fact::ClockJumped { .. }));
        if let Some(steps) = &mut self.steps {
            let state = Some(seen.state.to_owned());
            steps.push(Step { at_ms: now, fact: *fact, orders: orders.to_vec(), state, next: seen.next });
        }
        let broken = self.observer.step(now, fact, orders, seen).err().map(Breach::Machine);
        let broken = broken.or_else(|| self.check_jump(now, fact, orders));
        if self.breach.is_none() {
            self.breach = broken;
        }
    }

    /// What the process did not live through fires nothing at once, whatever was due meanwhile.
    fn check_jump(&mut self, now: Time, fact: &Fact, orders: &[Order]) -> Option<Breach> {
        match fact {
            Fact::ClockJumped { cause: Jump::LateTick, .. } => self.jumped_at = Some(now),
            // A drain is not forgiven: whoever asked for it has lived through that time.
            Fact::Tick if self.jumped_at == Some(now) && !self.drains => {
                return orders.iter().find_map(|order| match order {
                    Order::AbandonDial { .. } => Some(Breach::DeadlineOnJump("dial")),
                    Order::AbandonRegistration { .. } => Some(Breach::DeadlineOnJump("registration")),
                    Order::DropLink { .. } => Some(Breach::DeadlineOnJump("link")),
                    _ => None,
                });
            }
            Fact::ShutdownRequested => self.drains = true,
            _ => {}
        }
        None
    }
}
