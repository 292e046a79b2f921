//! Every fact in every state, to a bounded depth: the observer must never object, and the way out must stay open.

use super::Driver;
use crate::fact::{ClockJump, CloseReason, Fact, Failure, IdSource, Loss, PortState};
use crate::id::{LinkId, PortProbe, RegistrationAttempt};
use crate::order::Order;
use alloc::vec::Vec;

/// How many facts are tried one after another from each starting point. One more would take minutes.
const DEPTH: usize = 3;

/// Something that may happen next.
enum Step {
    Fact(Fact),
    /// Time passes until the next deadline.
    Advance,
    /// The process was frozen for an hour, and the loop notices.
    Frozen,
}

/// All that could happen now, about the current attempt or link, the one before and one that never was.
fn alphabet(driver: &Driver) -> Vec<Step> {
    let observer = &driver.observer;
    let attempt = observer.registering().unwrap_or(RegistrationAttempt(1));
    let link = observer.live().or(observer.dialling()).or(observer.closing()).unwrap_or(LinkId(1));
    let earlier = LinkId(link.0.saturating_sub(1));
    let mut facts = alloc::vec![
        Fact::Started { id: IdSource::Configured },
        Fact::Tick,
        Fact::RegistrationFailed { attempt, cause: Failure::Connect },
        Fact::LinkOpened { link },
        Fact::LinkOpened { link: link.next() },
        Fact::DialFailed { link, cause: Failure::Connect, retry_after_ms: None },
        Fact::DialFailed { link, cause: Failure::Unauthorized, retry_after_ms: None },
        Fact::DialFailed { link, cause: Failure::Refused, retry_after_ms: None },
        Fact::PortProbed { probe: PortProbe(1), found: PortState::Open },
        Fact::PortProbed { probe: PortProbe(1), found: PortState::Refused },
        Fact::PortProbed { probe: PortProbe(2), found: PortState::Unreachable },
        Fact::Greeted { link },
        Fact::PingWritten { link },
        Fact::PongReceived { link, last: true },
        Fact::PongReceived { link, last: false },
        Fact::WriteStalled { link },
        Fact::LinkLost { link, cause: Loss::Reset },
        Fact::LinkLost { link: earlier, cause: Loss::Reset },
        Fact::LinkClosed { link },
        Fact::LinkClosed { link: link.next() },
        Fact::DeliverySettled { settled: false },
        Fact::DeliverySettled { settled: true },
        Fact::TerminalInput,
        Fact::ClockJumped { cause: ClockJump::Suspend, gap_ms: 3_600_000, entropy: 2 },
        Fact::ShutdownRequested,
    ];
    for status in [100, 201, 302, 401, 404, 409, 422, 429, 503] {
        facts.push(Fact::RegistrationAnswered { attempt, status, retry_after_ms: None });
    }
    facts.push(Fact::RegistrationAnswered { attempt, status: 429, retry_after_ms: Some(u64::MAX) });
    for (code, reason) in [
        (1000, CloseReason::Other),
        (1001, CloseReason::Replaced),
        (1008, CloseReason::Authentication),
        (1008, CloseReason::UnknownInstance),
        (1012, CloseReason::Other),
    ] {
        facts.push(Fact::CloseReceived { link, code, reason });
    }
    facts.into_iter().map(Step::Fact).chain([Step::Advance, Step::Frozen]).collect()
}

fn explore(driver: &Driver, depth: usize, steps: &mut u64) {
    if driver.machine.is_stopped() {
        return;
    }
    for step in alphabet(driver) {
        let mut next = driver.clone();
        match step {
            Step::Fact(fact) => drop(next.fact(fact)),
            Step::Advance => drop(next.advance()),
            Step::Frozen => next.frozen_for_ms(3_600_000),
        }
        *steps += 1;
        if depth > 1 {
            explore(&next, depth - 1, steps);
        } else {
            stops_in_time(next);
        }
    }
}

/// From anywhere, a shutdown ends in `stopped` within its time, whether or not the console answers.
fn stops_in_time(mut driver: Driver) {
    if driver.machine.is_stopped() {
        return;
    }
    let began = driver.now;
    let already_draining = driver.state().starts_with("draining");
    driver.fact(Fact::ShutdownRequested);
    for _ in 0..16 {
        if driver.machine.is_stopped() {
            break;
        }
        driver.advance();
    }
    assert!(driver.machine.is_stopped(), "still {} after a shutdown", driver.state());
    let taken_ms = driver.now.ms_since(began);
    assert!(already_draining || taken_ms <= 4_000, "took {taken_ms} ms");
}

/// One driver in each state and sub-state, and in the awkward places between them.
fn starting_points() -> Vec<Driver> {
    let fresh = Driver::new(11);
    let mut requesting = Driver::new(12);
    requesting.fact(Fact::Started { id: IdSource::Configured });
    requesting.tick();
    let mut backing_off = requesting.clone();
    backing_off.fact(Fact::RegistrationAnswered { attempt: RegistrationAttempt(1), status: 503, retry_after_ms: None });
    let dialling = Driver::dialling(13);
    let mut waiting = dialling.clone();
    waiting.fact(Fact::DialFailed { link: LinkId(1), cause: Failure::Resolve, retry_after_ms: None });
    let mut probing = dialling.clone();
    probing.fact(Fact::DialFailed { link: LinkId(1), cause: Failure::Refused, retry_after_ms: None });
    let mut probed = probing.clone();
    assert!(probed.advance().contains(&Order::ProbePort { probe: PortProbe(1) }));
    let mut greeting = dialling.clone();
    greeting.fact(Fact::LinkOpened { link: LinkId(1) });
    let ready = Driver::ready(14);
    let mut losing = ready.clone();
    losing.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Eof });
    let mut closing = ready.clone();
    closing.fact(Fact::CloseReceived { link: LinkId(1), code: 1012, reason: CloseReason::Other });
    let mut forgotten = ready.clone();
    forgotten.fact(Fact::CloseReceived { link: LinkId(1), code: 1008, reason: CloseReason::UnknownInstance });
    let mut recovered = losing.clone();
    recovered.fact(Fact::LinkClosed { link: LinkId(1) });
    recovered.reconnect();
    let mut resyncing = recovered.clone();
    let resync = |order: &Order| matches!(order, Order::CloseLink { code: 1000, .. });
    while !resync_ordered(&mut resyncing, resync) {}
    let mut flushing = ready.clone();
    flushing.fact(Fact::ShutdownRequested);
    let mut drain_closing = flushing.clone();
    drain_closing.fact(Fact::DeliverySettled { settled: true });
    assert_eq!(drain_closing.state(), "draining.closing");
    alloc::vec![
        fresh,
        requesting,
        backing_off,
        dialling,
        waiting,
        probing,
        probed,
        greeting,
        ready,
        losing,
        closing,
        forgotten,
        recovered,
        resyncing,
        flushing,
        drain_closing,
    ]
}

/// Lives on by one deadline with a console that answers Pings; true once a resync is ordered.
fn resync_ordered(driver: &mut Driver, resync: impl Fn(&Order) -> bool) -> bool {
    let orders = driver.advance();
    let pinged = orders.iter().any(|order| matches!(order, Order::SendPing { .. }));
    if let Some(link) = driver.observer.live().filter(|_| pinged) {
        driver.fact(Fact::PingWritten { link });
        driver.fact(Fact::PongReceived { link, last: true });
    }
    orders.iter().any(resync)
}

#[test]
fn no_sequence_of_facts_breaks_an_invariant() {
    let mut steps = 0;
    for driver in starting_points() {
        explore(&driver, DEPTH, &mut steps);
    }
    assert!(steps > 500_000, "only {steps} steps were explored");
}

#[test]
fn every_state_is_a_starting_point() {
    let states: alloc::collections::BTreeSet<_> = starting_points().iter().map(Driver::state).collect();
    let expected = [
        "connected.greeting",
        "connected.ready",
        "connecting.dialling",
        "connecting.probing",
        "connecting.waiting",
        "draining.closing",
        "draining.flushing",
        "registering.backing_off",
        "registering.requesting",
        "unregistered",
    ];
    assert_eq!(states.into_iter().collect::<Vec<_>>(), expected);
}
