//! Looks at every step of the machine, inside the driver: the observer of the invariants.
//!
//! It decides nothing and keeps only the first violation.

use crate::violation::Violation;
use draupnir_fsm::fact::{ClockJump, Fact};
use draupnir_fsm::limits::Policy;
use draupnir_fsm::machine::MachineSnapshot;
use draupnir_fsm::machine::invariants::Observer;
use draupnir_fsm::order::Order;
use draupnir_fsm::time::Time;

/// What is seen of one machine.
pub(crate) struct Watcher {
    observer: Observer,
    pub(crate) violation: Option<Violation>,
    pub(crate) facts: u64,
    /// How often the clock jumped.
    pub(crate) jumps: u64,
    jumped_at: Option<Time>,
    drains: bool,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            observer: Observer::new(Policy::default()),
            violation: None,
            facts: 0,
            jumps: 0,
            jumped_at: None,
            drains: false,
        }
    }
}

impl Watcher {
    pub(crate) fn see(&mut self, now: Time, fact: &Fact, orders: &[Order], seen: &MachineSnapshot) {
        self.facts += 1;
        self.jumps += u64::from(matches!(fact, Fact::ClockJumped { .. }));
        let broken = self.observer.step(now, fact, orders, seen).err().map(Violation::Machine);
        let broken = broken.or_else(|| self.check_jump(now, fact, orders));
        if self.violation.is_none() {
            self.violation = broken;
        }
    }

    /// Time during which the process did not run fires nothing at once, even what was due meanwhile.
    fn check_jump(&mut self, now: Time, fact: &Fact, orders: &[Order]) -> Option<Violation> {
        match fact {
            Fact::ClockJumped { cause: ClockJump::LateTick, .. } => self.jumped_at = Some(now),
            // A drain's deadlines fire all the same: they count for the operator, whose time went on.
            Fact::Tick if self.jumped_at == Some(now) && !self.drains => {
                return orders.iter().find_map(|order| match order {
                    Order::AbandonDial { .. } => Some(Violation::DeadlineOnJump("dial")),
                    // For a dial a probe is given up at any time.
                    Order::AbandonPortProbe { .. }
                        if !orders.iter().any(|order| matches!(order, Order::Dial { .. })) =>
                    {
                        Some(Violation::DeadlineOnJump("probe of the port"))
                    }
                    Order::AbandonRegistration { .. } => Some(Violation::DeadlineOnJump("registration")),
                    Order::DropLink { .. } => Some(Violation::DeadlineOnJump("link")),
                    _ => None,
                });
            }
            Fact::ShutdownRequested => self.drains = true,
            _ => {}
        }
        None
    }
}
