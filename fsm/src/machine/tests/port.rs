//! While the console refuses the connection: when its port is probed, and what follows from what a probe finds.

use super::{Driver, Machine, is_dial};
use crate::fact::{Fact, Failure, IdSource, PortState};
use crate::id::{LinkId, PortProbe};
use crate::limits::{Policy, Schedule};
use crate::order::Order;
use crate::time::Time;
use alloc::vec::Vec;

/// How many seeds are tried where only some keep the retry back for long enough.
const SEEDS: u64 = 500;

/// A machine whose dials were all refused, `dials` of them.
fn refused(seed: u64, dials: u32) -> Driver {
    let mut driver = Driver::dialling(seed);
    for link in 1..=dials {
        assert_eq!(driver.observer.dialling(), Some(LinkId(link)));
        driver.fact(Fact::DialFailed { link: LinkId(link), cause: Failure::Refused, retry_after_ms: None });
        if link < dials {
            until_dial(&mut driver, PortState::Refused);
        }
    }
    driver
}

/// Goes on to the next dial; each probe finds the port like this. How many probes there were, and how long it took.
fn until_dial(driver: &mut Driver, found: PortState) -> (u32, u64) {
    let (from, mut probes) = (driver.now, 0);
    loop {
        let orders = driver.advance();
        if orders.iter().any(is_dial) {
            return (probes, driver.now.ms_since(from));
        }
        for order in orders {
            if let Order::ProbePort { probe } = order {
                probes += 1;
                driver.fact(Fact::PortProbed { probe, found });
            }
        }
    }
}

/// Machines that wait for so long for their retry that the port is probed before.
fn about_to_probe(dials: u32) -> impl Iterator<Item = Driver> {
    (0..SEEDS).map(move |seed| refused(seed, dials)).filter_map(|mut driver| {
        assert_eq!(driver.state(), "connecting.probing");
        let probes = driver.advance().iter().any(|order| matches!(order, Order::ProbePort { .. }));
        probes.then_some(driver)
    })
}

fn probed(driver: &mut Driver, found: PortState) -> Vec<Order> {
    let probe = driver.observer.probing().expect("a probe is in flight");
    driver.fact(Fact::PortProbed { probe, found })
}

#[test]
fn only_a_refusal_by_all_addresses_is_followed_by_probes() {
    for cause in [
        Failure::Resolve,
        Failure::Connect,
        Failure::Proxy,
        Failure::Tls,
        Failure::Protocol,
        Failure::Unauthorized,
        Failure::Status,
        Failure::Local,
    ] {
        let mut driver = Driver::dialling(1);
        driver.fact(Fact::DialFailed { link: LinkId(1), cause, retry_after_ms: None });
        assert_eq!(driver.state(), "connecting.waiting", "{cause:?}");
    }
    assert_eq!(refused(1, 1).state(), "connecting.probing");
}

#[test]
fn probes_come_one_to_two_seconds_after_the_last_refusal() {
    let mut waits = Vec::new();
    for mut driver in about_to_probe(3) {
        driver.now = driver.now.after_ms(300);
        probed(&mut driver, PortState::Refused);
        let from = driver.now;
        if driver.advance().iter().any(|order| matches!(order, Order::ProbePort { probe: PortProbe(_) })) {
            waits.push(driver.now.ms_since(from));
        }
    }
    assert!(waits.iter().all(|wait_ms| (1_000..=2_000).contains(wait_ms)), "{waits:?}");
    let (least, most) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
    assert!(*least < 1_050 && *most > 1_950, "{least} to {most}");
}

#[test]
fn open_port_is_dialled_within_seven_seconds() {
    let waits: Vec<u64> = about_to_probe(4)
        .map(|mut driver| {
            probed(&mut driver, PortState::Open);
            assert_eq!(driver.state(), "connecting.waiting");
            let (probes, waited_ms) = until_dial(&mut driver, PortState::Refused);
            assert_eq!(probes, 0);
            waited_ms
        })
        .collect();
    let (least, most) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
    assert!(*least < 100 && (6_900..=7_000).contains(most), "{least} to {most}");
}

#[test]
fn probes_do_not_take_a_dial_out_of_its_row() {
    for (dials, row_ms) in [(1, 10_000), (2, 20_000), (3, 30_000), (9, 30_000)] {
        for found in [PortState::Refused, PortState::Open, PortState::Unreachable] {
            let waits = (0..SEEDS).map(|seed| until_dial(&mut refused(seed, dials), found).1);
            assert!(waits.max() <= Some(row_ms), "{dials}, {found:?}");
        }
    }
}

/// What a machine orders in an hour in which every dial fails like this.
fn orders_of_an_hour(seed: u64, policy: Policy, cause: Failure) -> Vec<(u64, Order)> {
    let mut machine = Machine::new(policy, Schedule::default(), seed);
    let mut orders = Vec::new();
    machine.handle(Time::START, &Fact::Started { id: IdSource::Remembered });
    while let Some(now) = machine.next_deadline().filter(|now| now.as_ms() < 3_600_000) {
        machine.handle(now, &Fact::Tick);
        while let Some(order) = machine.poll_order() {
            orders.push((now.as_ms(), order));
            if let Order::Dial { link } = order {
                let retry_after_ms = (link.0 % 3 == 0).then_some(5_000);
                machine.handle(now, &Fact::DialFailed { link, cause, retry_after_ms });
            }
        }
    }
    orders
}

#[test]
fn other_failures_are_retried_as_if_there_were_no_probes() {
    let unprobed = Policy { port_probes_max: 0, ..Policy::default() };
    for cause in [Failure::Resolve, Failure::Connect, Failure::Proxy, Failure::Tls, Failure::Status, Failure::Protocol]
    {
        for seed in 0..20 {
            let orders = orders_of_an_hour(seed, Policy::default(), cause);
            assert!(orders.len() > 100, "{cause:?}: {}", orders.len());
            assert_eq!(orders, orders_of_an_hour(seed, unprobed.clone(), cause), "{cause:?}");
        }
    }
}

#[test]
fn dial_that_fails_at_an_open_port_ends_the_probes() {
    for mut driver in about_to_probe(2).take(20) {
        probed(&mut driver, PortState::Open);
        until_dial(&mut driver, PortState::Refused);
        for link in 3..6 {
            driver.fact(Fact::DialFailed { link: LinkId(link), cause: Failure::Refused, retry_after_ms: None });
            assert_eq!(driver.state(), "connecting.waiting");
            assert_eq!(until_dial(&mut driver, PortState::Refused).0, 0);
        }
        // Not before the connection was stable is there a new outage.
        let link = LinkId(6);
        driver.fact(Fact::LinkOpened { link });
        driver.fact(Fact::Greeted { link });
        driver.live_for_ms(30_000);
        driver.closed_by_console(1012, crate::fact::CloseReason::Other);
        driver.until(is_dial);
        driver.fact(Fact::DialFailed { link: LinkId(7), cause: Failure::Refused, retry_after_ms: None });
        assert_eq!(driver.state(), "connecting.probing");
    }
}

#[test]
fn unreachable_port_is_left_alone_until_the_next_refusal() {
    let mut driver = about_to_probe(3).next().expect("some wait for so long");
    probed(&mut driver, PortState::Unreachable);
    assert_eq!(driver.state(), "connecting.waiting");
    assert_eq!(until_dial(&mut driver, PortState::Refused).0, 0);
    driver.fact(Fact::DialFailed { link: LinkId(4), cause: Failure::Refused, retry_after_ms: None });
    assert_eq!(driver.state(), "connecting.probing");
}

#[test]
fn probe_without_a_result_is_given_up_after_two_seconds() {
    let overdue = about_to_probe(3).find_map(|mut driver| {
        let (from, orders) = (driver.now, driver.advance());
        (!orders.iter().any(is_dial)).then(|| (driver.now.ms_since(from), orders, driver.state()))
    });
    let (after_ms, orders, state) = overdue.expect("some wait for so long");
    assert_eq!((after_ms, state), (2_000, "connecting.waiting"));
    assert!(matches!(orders[..], [Order::AbandonPortProbe { .. }]), "{orders:?}");
}

#[test]
fn probe_in_flight_is_given_up_for_a_dial_and_for_a_shutdown() {
    let is_abandoned = |order: &Order| matches!(order, Order::AbandonPortProbe { .. });
    let mut stopped = about_to_probe(3).next().expect("some wait for so long");
    assert!(stopped.fact(Fact::ShutdownRequested).iter().any(is_abandoned));
    let dials = about_to_probe(1).filter_map(|mut driver| {
        let orders = driver.advance();
        orders.iter().any(is_dial).then_some((orders, driver))
    });
    let (orders, mut driver) = dials.last().expect("some retries are due while a probe is in flight");
    assert!(is_abandoned(&orders[0]) && is_dial(&orders[1]), "{orders:?}");
    let late = Fact::PortProbed { probe: PortProbe(1), found: PortState::Open };
    assert_eq!(driver.fact(late), []);
    assert_eq!((driver.state(), driver.snapshot().stale), ("connecting.dialling", 1));
}

#[test]
fn probes_of_one_outage_are_bounded_and_dials_go_on() {
    let mut driver = refused(5, 1);
    let began = driver.now;
    let (mut probes, mut dials) = (0, 0);
    while driver.now.ms_since(began) < 24 * 3_600_000 {
        let (some, _) = until_dial(&mut driver, PortState::Refused);
        (probes, dials) = (probes + some, dials + 1);
        let link = driver.observer.dialling().expect("a dial is in flight");
        driver.fact(Fact::DialFailed { link, cause: Failure::Refused, retry_after_ms: None });
    }
    assert_eq!(probes, Policy::default().port_probes_max);
    // Every 15 s on average, as without probes.
    assert!((5_000..6_600).contains(&dials), "{dials} dials");
    assert_eq!(driver.state(), "connecting.waiting");
}
