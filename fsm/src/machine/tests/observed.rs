//! The observer itself: each rule is seen when it is broken, and at the very edge of being kept.

use crate::fact::{CloseReason, Fact, Failure, PortState};
use crate::id::{LinkId, PortProbe, RegistrationAttempt};
use crate::limits::Policy;
use crate::machine::MachineSnapshot;
use crate::machine::invariants::{InvariantViolation, Observer};
use crate::order::{Gate, Order};
use crate::time::Time;

/// An observer, and what a machine says of itself that does nothing wrong by standing still.
struct Watch {
    observer: Observer,
    state: &'static str,
    next: Option<u64>,
}

impl Watch {
    fn new() -> Self {
        Self { observer: Observer::new(Policy::default()), state: "connecting.waiting", next: Some(1_000_000) }
    }

    /// One that saw link 1 come up.
    fn linked() -> Self {
        let mut watch = Self::new();
        assert_eq!(watch.orders(0, &[Order::Dial { link: LinkId(1) }]), Ok(()));
        assert_eq!(watch.fact(0, Fact::LinkOpened { link: LinkId(1) }), Ok(()));
        watch
    }

    fn fact(&mut self, at_ms: u64, fact: Fact) -> Result<(), InvariantViolation> {
        self.step(at_ms, fact, &[])
    }

    fn orders(&mut self, at_ms: u64, orders: &[Order]) -> Result<(), InvariantViolation> {
        self.step(at_ms, Fact::TerminalInput, orders)
    }

    fn step(&mut self, at_ms: u64, fact: Fact, orders: &[Order]) -> Result<(), InvariantViolation> {
        let next = self.next.map(Time::from_ms);
        let seen = MachineSnapshot { state: self.state, link: None, next, unhandled: 0, stale: 0 };
        self.observer.step(Time::from_ms(at_ms), &fact, orders, &seen)
    }
}

fn dial(link: LinkId) -> Order {
    Order::Dial { link }
}

#[test]
fn there_is_one_registration_and_one_link_at_a_time() {
    use crate::order::{ProviderName, RegisterPath};
    let register =
        |attempt| Order::Register { attempt, path: RegisterPath::Designed, provider: ProviderName::Configured };
    let mut watch = Watch::new();
    assert_eq!(watch.orders(0, &[register(RegistrationAttempt(1))]), Ok(()));
    assert_eq!(watch.observer.registering(), Some(RegistrationAttempt(1)));
    assert_eq!(
        watch.orders(0, &[register(RegistrationAttempt(2))]),
        Err(InvariantViolation::SecondRegistration(RegistrationAttempt(2)))
    );
    let mut watch = Watch::new();
    assert_eq!(watch.orders(0, &[dial(LinkId(1))]), Ok(()));
    assert_eq!((watch.observer.dialling(), watch.observer.live()), (Some(LinkId(1)), None));
    assert_eq!(watch.orders(0, &[dial(LinkId(2))]), Err(InvariantViolation::SecondLink(LinkId(2))));
    assert_eq!(Watch::linked().orders(0, &[dial(LinkId(2))]), Err(InvariantViolation::SecondLink(LinkId(2))));
}

#[test]
fn old_socket_is_waited_for_within_a_bound() {
    let Policy { close_ms, redial_gap_ms, .. } = Policy::default();
    let closed = || {
        let mut watch = Watch::linked();
        let close = Fact::CloseReceived { link: LinkId(1), code: 1000, reason: CloseReason::Other };
        assert_eq!(watch.fact(100, close), Ok(()));
        watch
    };
    let until_ms = 100 + 2 * close_ms;
    assert_eq!(closed().orders(until_ms - 1, &[dial(LinkId(2))]), Err(InvariantViolation::SecondLink(LinkId(2))));
    assert_eq!(closed().orders(until_ms, &[dial(LinkId(2))]), Ok(()));
    let gone = || {
        let mut watch = closed();
        assert_eq!(watch.fact(200, Fact::LinkClosed { link: LinkId(1) }), Ok(()));
        watch
    };
    assert_eq!(
        gone().orders(200 + redial_gap_ms - 1, &[dial(LinkId(2))]),
        Err(InvariantViolation::RedialTooSoon(LinkId(2)))
    );
    assert_eq!(gone().orders(200 + redial_gap_ms, &[dial(LinkId(2))]), Ok(()));
    // One that goes without a word is gone as well; a fact of another link does not count for this one.
    let mut vanished = Watch::linked();
    assert_eq!(vanished.fact(200, Fact::LinkClosed { link: LinkId(7) }), Ok(()));
    assert_eq!(vanished.clone_orders(1_000, &[dial(LinkId(2))]), Err(InvariantViolation::SecondLink(LinkId(2))));
    assert_eq!(vanished.fact(200, Fact::LinkClosed { link: LinkId(1) }), Ok(()));
    assert_eq!(
        vanished.orders(200 + redial_gap_ms - 1, &[dial(LinkId(2))]),
        Err(InvariantViolation::RedialTooSoon(LinkId(2)))
    );
}

impl Watch {
    /// The same for a copy, so that what was broken is not taken in.
    fn clone_orders(&self, at_ms: u64, orders: &[Order]) -> Result<(), InvariantViolation> {
        self.cloned().orders(at_ms, orders)
    }

    fn cloned(&self) -> Self {
        Self { observer: self.observer.clone(), ..*self }
    }
}

#[test]
fn order_for_unknown_link_or_closed_gate_is_a_violation() {
    let watch = Watch::linked();
    for order in [
        Order::AbandonRegistration { attempt: RegistrationAttempt(1) },
        Order::AbandonDial { link: LinkId(1) },
        Order::DropLink { link: LinkId(2) },
        Order::SendPing { link: LinkId(2) },
        Order::OpenGate { link: LinkId(2), gate: Gate::All },
    ] {
        assert_eq!(watch.clone_orders(0, &[order]), Err(InvariantViolation::StaleOrder(order)));
    }
    let heartbeat = Order::SendHeartbeat { link: LinkId(1) };
    assert_eq!(watch.clone_orders(0, &[heartbeat]), Err(InvariantViolation::ClosedGate(heartbeat)));
    assert_eq!(watch.clone_orders(0, &[Order::OpenGate { link: LinkId(1), gate: Gate::State }, heartbeat]), Ok(()));
    assert_eq!(
        watch.clone_orders(0, &[Order::DropLink { link: LinkId(1) }, Order::DropLink { link: LinkId(1) }]),
        Ok(())
    );
}

#[test]
fn port_is_probed_only_after_refusals_and_within_bounds() {
    let Policy { port_probe_every_ms: (least_ms, _), port_probes_max, .. } = Policy::default();
    let probe = |number| Order::ProbePort { probe: PortProbe(number) };
    let needless = |number| Err(InvariantViolation::NeedlessPortProbe(PortProbe(number)));
    let failed = |cause| {
        let mut watch = Watch::new();
        assert_eq!(watch.orders(0, &[dial(LinkId(1))]), Ok(()));
        assert_eq!(watch.clone_orders(9_000, &[probe(1)]), needless(1), "beside a dial");
        assert_eq!(watch.fact(0, Fact::DialFailed { link: LinkId(1), cause, retry_after_ms: None }), Ok(()));
        watch
    };
    assert_eq!(Watch::new().orders(9_000, &[probe(1)]), needless(1), "before any dial");
    assert_eq!(failed(Failure::Connect).orders(9_000, &[probe(1)]), needless(1));
    let mut watch = failed(Failure::Refused);
    assert_eq!(watch.clone_orders(least_ms - 1, &[probe(1)]), Err(InvariantViolation::PortProbeTooSoon(PortProbe(1))));
    assert_eq!(watch.orders(least_ms, &[probe(1)]), Ok(()));
    assert_eq!(watch.observer.probing(), Some(PortProbe(1)));
    assert_eq!(watch.clone_orders(9_000, &[probe(2)]), needless(2), "beside another");
    assert_eq!(watch.clone_orders(9_000, &[dial(LinkId(2))]), needless(1), "left in flight");
    let stale = Order::AbandonPortProbe { probe: PortProbe(2) };
    assert_eq!(watch.clone_orders(9_000, &[stale]), Err(InvariantViolation::StaleOrder(stale)));
    assert_eq!(watch.clone_orders(9_000, &[Order::AbandonPortProbe { probe: PortProbe(1) }, probe(2)]), needless(2));
    let found = |watch: &Watch, found| {
        let mut watch = watch.cloned();
        assert_eq!(watch.fact(9_000, Fact::PortProbed { probe: PortProbe(1), found }), Ok(()));
        watch
    };
    assert_eq!(found(&watch, PortState::Refused).orders(9_000 + least_ms, &[probe(2)]), Ok(()));
    assert_eq!(found(&watch, PortState::Unreachable).orders(90_000, &[probe(2)]), needless(2));
    let mut open = found(&watch, PortState::Open);
    assert_eq!(open.orders(9_000, &[dial(LinkId(2))]), Ok(()));
    let refused = Fact::DialFailed { link: LinkId(2), cause: Failure::Refused, retry_after_ms: None };
    assert_eq!(open.fact(9_000, refused), Ok(()));
    assert_eq!(open.orders(90_000, &[probe(2)]), needless(2), "after it was open");
    for number in 1..port_probes_max {
        let fact = Fact::PortProbed { probe: PortProbe(number), found: PortState::Refused };
        assert_eq!(watch.fact(u64::from(number) * least_ms, fact), Ok(()));
        assert_eq!(watch.orders(u64::from(number + 1) * least_ms, &[probe(number + 1)]), Ok(()));
    }
    let last = PortProbe(port_probes_max);
    assert_eq!(watch.fact(1_000_000, Fact::PortProbed { probe: last, found: PortState::Refused }), Ok(()));
    assert_eq!(watch.orders(2_000_000, &[probe(last.0 + 1)]), Err(InvariantViolation::TooManyPortProbes(last.next())));
}

#[test]
fn tick_never_leaves_a_deadline_behind() {
    let mut watch = Watch::new();
    watch.next = None;
    assert_eq!(watch.fact(0, Fact::TerminalInput), Err(InvariantViolation::NoDeadline("connecting.waiting")));
    watch.next = Some(50);
    assert_eq!(watch.fact(50, Fact::TerminalInput), Ok(()), "it is the tick's to fire it");
    assert_eq!(watch.fact(49, Fact::Tick), Ok(()));
    assert_eq!(watch.fact(50, Fact::Tick), Err(InvariantViolation::DeadlineMissed("connecting.waiting")));
}

#[test]
fn a_drain_ends_in_time_and_with_an_exit() {
    let exit_ms = Policy::default().drain_exit_ms;
    let mut watch = Watch::new();
    watch.next = Some(10 + exit_ms);
    assert_eq!(watch.fact(10, Fact::ShutdownRequested), Ok(()));
    watch.next = Some(10 + exit_ms + 1);
    assert_eq!(watch.fact(20, Fact::TerminalInput), Err(InvariantViolation::DrainOverdue));
    watch.state = "stopped";
    watch.next = None;
    assert_eq!(watch.fact(20, Fact::TerminalInput), Err(InvariantViolation::ExitUnordered));
    assert_eq!(watch.orders(20, &[Order::Exit]), Ok(()));
    assert_eq!(
        watch.orders(21, &[Order::ForgetIdentity]),
        Err(InvariantViolation::OrderAfterExit(Order::ForgetIdentity))
    );
    watch.state = "draining.unlinked";
    assert_eq!(watch.fact(21, Fact::TerminalInput), Err(InvariantViolation::ExitUnordered));
}
