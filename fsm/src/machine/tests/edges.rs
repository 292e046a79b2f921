//! Moments and numbers at the edge of a rule, where the next millisecond or attempt means something else.

use super::{Driver, is_dial};
use crate::fact::{CloseReason, Fact, IdSource, Loss};
use crate::id::{LinkId, RegistrationAttempt};
use crate::limits::Policy;
use crate::order::{CloseText, Order};

fn is_resync(order: &Order) -> bool {
    matches!(order, Order::CloseLink { reason: CloseText::Resync, .. })
}

/// A link that came up after one that broke, so that a resync is due.
fn after_a_loss(seed: u64) -> Driver {
    let mut driver = Driver::ready(seed);
    driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Reset });
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    driver.reconnect();
    driver
}

/// Goes on as a healthy link until the resync that is due; whether it came within twice its time.
fn resyncs(driver: &mut Driver) -> bool {
    let end = driver.now.after_ms(2 * Policy::default().resync_ms);
    while driver.now < end {
        for order in driver.advance() {
            if let Order::SendPing { link } = order {
                driver.fact(Fact::PingWritten { link });
                driver.fact(Fact::PongReceived { link, last: true });
            }
            if is_resync(&order) {
                return true;
            }
        }
    }
    false
}

/// The socket of an unanswered resync is dropped, and then gone; the next link comes up.
fn unanswered(driver: &mut Driver) {
    let link = driver.observer.closing().expect("it is closing");
    driver.until(|order| *order == Order::DropLink { link });
    driver.fact(Fact::LinkClosed { link });
    driver.reconnect();
}

fn answered(driver: &mut Driver) {
    let link = driver.observer.closing().expect("it is closing");
    driver.fact(Fact::LinkClosed { link });
    driver.reconnect();
}

#[test]
fn unanswered_resync_is_tried_three_times() {
    let mut driver = after_a_loss(3);
    for attempt in 1..=Policy::default().resync_tries_max {
        assert!(resyncs(&mut driver), "the {attempt}. try");
        unanswered(&mut driver);
    }
    assert!(!resyncs(&mut driver), "a fourth try");
}

#[test]
fn answered_resync_restarts_the_count() {
    let mut driver = after_a_loss(3);
    for _ in 1..Policy::default().resync_tries_max {
        assert!(resyncs(&mut driver));
        unanswered(&mut driver);
    }
    assert!(resyncs(&mut driver));
    answered(&mut driver);
    let link = driver.observer.live().expect("a link is up");
    driver.fact(Fact::LinkLost { link, cause: Loss::Reset });
    driver.fact(Fact::LinkClosed { link });
    driver.reconnect();
    for attempt in 1..=Policy::default().resync_tries_max {
        assert!(resyncs(&mut driver), "the {attempt}. try after it");
        unanswered(&mut driver);
    }
    assert!(!resyncs(&mut driver));
}

#[test]
fn clean_close_needs_no_resync() {
    for (after_ms, due) in [(Policy::default().resync_ms - 1, true), (Policy::default().resync_ms, false)] {
        let mut driver = Driver::ready(4);
        driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Reset });
        let broke = driver.now;
        driver.fact(Fact::LinkClosed { link: LinkId(1) });
        driver.until(is_dial);
        driver.fact(Fact::LinkOpened { link: LinkId(2) });
        // It stays in greeting until the close: no resync comes before it.
        driver.now = broke.after_ms(after_ms);
        driver.closed_by_console(1000, CloseReason::Other);
        driver.reconnect();
        assert_eq!(resyncs(&mut driver), due, "{after_ms} ms after the loss");
    }
}

#[test]
fn expected_facts_while_connected_are_not_counted() {
    let mut greeting = Driver::dialling(5);
    greeting.fact(Fact::LinkOpened { link: LinkId(1) });
    greeting.fact(Fact::TerminalInput);
    let mut ready = Driver::ready(5);
    ready.fact(Fact::Greeted { link: LinkId(1) });
    ready.fact(Fact::TerminalInput);
    for driver in [greeting, ready] {
        assert_eq!((driver.snapshot().unhandled, driver.snapshot().stale), (0, 0), "in {}", driver.state());
    }
}

#[test]
fn earlier_attempt_is_stale_and_unknown_one_is_not() {
    let mut driver = Driver::new(6);
    driver.fact(Fact::Started { id: IdSource::Configured });
    driver.tick();
    driver.fact(Fact::RegistrationAnswered { attempt: RegistrationAttempt(1), status: 201, retry_after_ms: None });
    driver.fact(Fact::RegistrationAnswered { attempt: RegistrationAttempt(1), status: 201, retry_after_ms: None });
    assert_eq!((driver.snapshot().unhandled, driver.snapshot().stale), (0, 1));
    driver.fact(Fact::RegistrationAnswered { attempt: RegistrationAttempt(2), status: 201, retry_after_ms: None });
    assert_eq!((driver.snapshot().unhandled, driver.snapshot().stale), (1, 1));
}
