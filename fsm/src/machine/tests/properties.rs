//! Random facts at random times: the observer never objects, and a console that behaves again is always reached.

use super::Driver;
use crate::fact::{ClockJump, CloseReason, Fact, Failure, IdSource, Loss, PortState};
use crate::id::{LinkId, PortProbe, RegistrationAttempt};
use crate::order::Order;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A fact whose numbers are near the current ones.
fn facts() -> impl Strategy<Value = Fact> {
    let near = 0u32..6;
    let reason = prop_oneof![
        Just(CloseReason::Authentication),
        Just(CloseReason::UnknownInstance),
        Just(CloseReason::Replaced),
        Just(CloseReason::Other),
    ];
    let failure =
        prop::sample::select(vec![Failure::Resolve, Failure::Unauthorized, Failure::Status, Failure::Refused]);
    let found = prop::sample::select(vec![PortState::Open, PortState::Refused, PortState::Unreachable]);
    let jump = prop_oneof![Just(ClockJump::LateTick), Just(ClockJump::RealTimeStep), Just(ClockJump::Suspend)];
    let asked = proptest::option::of(any::<u64>());
    prop_oneof![
        4 => Just(Fact::Tick),
        1 => prop::sample::select(vec![IdSource::Configured, IdSource::Assigned, IdSource::Remembered])
            .prop_map(|id| Fact::Started { id }),
        2 => (near.clone(), 100u16..600, asked.clone()).prop_map(|(attempt, status, retry_after_ms)| {
            Fact::RegistrationAnswered { attempt: RegistrationAttempt(attempt), status, retry_after_ms }
        }),
        4 => near.clone().prop_map(|link| Fact::LinkOpened { link: LinkId(link) }),
        1 => (near.clone(), failure, asked).prop_map(|(link, cause, retry_after_ms)| {
            Fact::DialFailed { link: LinkId(link), cause, retry_after_ms }
        }),
        2 => (near.clone(), found).prop_map(|(probe, found)| Fact::PortProbed { probe: PortProbe(probe), found }),
        2 => near.clone().prop_map(|link| Fact::Greeted { link: LinkId(link) }),
        1 => near.clone().prop_map(|link| Fact::PingWritten { link: LinkId(link) }),
        1 => (near.clone(), any::<bool>()).prop_map(|(link, last)| Fact::PongReceived { link: LinkId(link), last }),
        1 => near.clone().prop_map(|link| Fact::WriteStalled { link: LinkId(link) }),
        1 => (near.clone(), 1000u16..1015, reason).prop_map(|(link, code, reason)| {
            Fact::CloseReceived { link: LinkId(link), code, reason }
        }),
        1 => near.clone().prop_map(|link| Fact::LinkLost { link: LinkId(link), cause: Loss::Eof }),
        2 => near.prop_map(|link| Fact::LinkClosed { link: LinkId(link) }),
        1 => any::<bool>().prop_map(|settled| Fact::DeliverySettled { settled }),
        1 => (jump, any::<u64>(), any::<u64>()).prop_map(|(cause, gap_ms, entropy)| {
            Fact::ClockJumped { cause, gap_ms: gap_ms % 10_000_000, entropy }
        }),
    ]
}

/// Plays a console that does everything right until the link is ready; panics if that takes over `within_ms`.
fn heal(driver: &mut Driver, within_ms: u64) {
    let end = driver.now.after_ms(within_ms);
    let mut pending: Vec<Fact> = Vec::new();
    if let Some(attempt) = driver.observer.registering() {
        pending.push(Fact::RegistrationAnswered { attempt, status: 201, retry_after_ms: None });
    }
    let awaited: Option<LinkId> = driver.observer.dialling();
    pending.extend(awaited.map(|link| Fact::LinkOpened { link }));
    pending.extend(driver.observer.live().map(|link| Fact::Greeted { link }));
    pending.extend(driver.observer.probing().map(|probe| Fact::PortProbed { probe, found: PortState::Open }));
    while driver.state() != "connected.ready" {
        assert!(driver.now <= end, "still {} after {within_ms} ms of a good console", driver.state());
        let orders = if pending.is_empty() { driver.advance() } else { driver.fact(pending.remove(0)) };
        for order in orders {
            match order {
                Order::Register { attempt, .. } => {
                    pending.push(Fact::RegistrationAnswered { attempt, status: 201, retry_after_ms: None });
                }
                Order::Dial { link } => pending.extend([Fact::LinkOpened { link }, Fact::Greeted { link }]),
                Order::ProbePort { probe } => pending.push(Fact::PortProbed { probe, found: PortState::Open }),
                Order::CloseLink { link, .. } | Order::DropLink { link } => pending.push(Fact::LinkClosed { link }),
                Order::SendPing { link } => {
                    pending.extend([Fact::PingWritten { link }, Fact::PongReceived { link, last: true }]);
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn invariants_hold_for_any_facts_at_any_time(
        seed: u64,
        steps in proptest::collection::vec((facts(), 0u64..5_000), 1..200),
    ) {
        let mut driver = Driver::new(seed);
        for (fact, gap_ms) in steps {
            driver.now = driver.now.after_ms(gap_ms);
            driver.fact(fact);
        }
        // The longest row of the policy: Retry-After of ten minutes and as much again.
        heal(&mut driver, 21 * 60_000);
    }

    #[test]
    fn an_outage_of_a_day_costs_few_dials(seed: u64) {
        let mut driver = Driver::ready(seed);
        driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Reset });
        driver.fact(Fact::LinkClosed { link: LinkId(1) });
        let end = driver.now.after_ms(24 * 3_600_000);
        let (mut dials, mut wakes) = (0, 0);
        while driver.now < end {
            wakes += 1;
            let orders = driver.advance();
            if let Some(link) = super::dialled(&orders) {
                dials += 1;
                driver.fact(Fact::DialFailed { link, cause: Failure::Connect, retry_after_ms: None });
            }
        }
        // Every 15 s on average, in the long run.
        prop_assert!((5_000..6_600).contains(&dials), "{dials} dials");
        prop_assert!(wakes <= dials + 10, "{wakes} wake-ups for {dials} dials");
    }
}
