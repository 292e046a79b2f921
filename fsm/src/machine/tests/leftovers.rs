//! What is over has no effect, what a state armed goes with it, and what the loop asks of the machine is so.

use super::{Driver, is_dial, is_register};
use crate::fact::{ClockJump, CloseReason, CommandFact, Fact, Failure, IdSource, Loss, SessionFact};
use crate::id::{CommandKey, LinkId, RegistrationAttempt, SessionKey};
use crate::limits::Policy;
use crate::order::{CommandEnd, Order};
use alloc::vec::Vec;

/// One machine in each state in which something is under way, all on their second attempt and link.
fn one_in_each_state() -> Vec<Driver> {
    let mut requesting = Driver::new(3);
    requesting.fact(Fact::Started { id: IdSource::Configured });
    requesting.tick();
    requesting.fact(Fact::RegistrationFailed { attempt: RegistrationAttempt(1), cause: Failure::Connect });
    let backing_off = requesting.clone();
    requesting.until(is_register);

    let mut dialling = Driver::ready(3);
    dialling.closed_by_console(1000, CloseReason::Other);
    dialling.until(is_dial);
    let mut greeting = dialling.clone();
    greeting.fact(Fact::LinkOpened { link: LinkId(2) });
    let mut flushing_early = greeting.clone();
    flushing_early.fact(Fact::DeliverySettled { settled: false });
    flushing_early.fact(Fact::ShutdownRequested);
    let mut ready = greeting.clone();
    ready.fact(Fact::Greeted { link: LinkId(2) });
    let mut waiting = ready.clone();
    waiting.fact(Fact::LinkLost { link: LinkId(2), cause: Loss::Reset });
    let mut flushing = ready.clone();
    flushing.fact(Fact::ShutdownRequested);
    let mut closing = flushing.clone();
    closing.fact(Fact::DeliverySettled { settled: true });
    let mut unlinked = ready.clone();
    run_command(&mut unlinked, CommandKey(1));
    unlinked.fact(Fact::ShutdownRequested);
    unlinked.fact(Fact::LinkLost { link: LinkId(2), cause: Loss::Reset });

    let all = [
        (requesting, "registering.requesting"),
        (backing_off, "registering.backing_off"),
        (waiting, "connecting.waiting"),
        (dialling, "connecting.dialling"),
        (greeting, "connected.greeting"),
        (ready, "connected.ready"),
        (flushing_early, "draining.flushing"),
        (flushing, "draining.flushing"),
        (closing, "draining.closing"),
        (unlinked, "draining.unlinked"),
    ];
    all.into_iter()
        .map(|(driver, state)| {
            assert_eq!(driver.state(), state);
            driver
        })
        .collect()
}

fn run_command(driver: &mut Driver, command: CommandKey) {
    driver.fact(Fact::Command { command, what: CommandFact::Requested { id_hash: 9, timeout_ms: 60_000 } });
    driver.fact(Fact::Command { command, what: CommandFact::Started });
}

/// Every fact about an attempt or a link.
fn facts_about(number: u32) -> [Fact; 12] {
    [
        Fact::RegistrationAnswered { attempt: RegistrationAttempt(number), status: 201, retry_after_ms: None },
        Fact::RegistrationFailed { attempt: RegistrationAttempt(number), cause: Failure::Connect },
        Fact::LinkOpened { link: LinkId(number) },
        Fact::DialFailed { link: LinkId(number), cause: Failure::Unauthorized, retry_after_ms: Some(1) },
        Fact::Greeted { link: LinkId(number) },
        Fact::PingWritten { link: LinkId(number) },
        Fact::PongReceived { link: LinkId(number), last: true },
        Fact::PongReceived { link: LinkId(number), last: false },
        Fact::WriteStalled { link: LinkId(number) },
        Fact::CloseReceived { link: LinkId(number), code: 1008, reason: CloseReason::UnknownInstance },
        Fact::LinkLost { link: LinkId(number), cause: Loss::Reset },
        Fact::LinkClosed { link: LinkId(number) },
    ]
}

#[test]
fn fact_of_another_attempt_has_no_effect_in_any_state() {
    for driver in one_in_each_state() {
        for fact in [1, 7].into_iter().flat_map(facts_about) {
            let mut next = driver.clone();
            let before = next.snapshot();
            assert_eq!(next.fact(fact), [], "{fact:?} in {}", before.state);
            let after = next.snapshot();
            assert_eq!((after.state, after.link, after.next), (before.state, before.link, before.next), "{fact:?}");
            assert_eq!(after.unhandled + after.stale, before.unhandled + before.stale + 1, "{fact:?} was not counted");
        }
    }
}

#[test]
fn orderly_life_leaves_no_unexpected_fact() {
    let mut driver = Driver::ready(5);
    driver.live_for_ms(120_000);
    driver.fact(Fact::DeliverySettled { settled: true });
    driver.fact(Fact::ClockJumped { cause: ClockJump::Suspend, gap_ms: 3_600_000, entropy: 1 });
    driver.fact(Fact::PongReceived { link: LinkId(1), last: true });
    driver.closed_by_console(1001, CloseReason::Other);
    driver.reconnect();
    driver.fact(Fact::ShutdownRequested);
    driver.fact(Fact::ShutdownRequested);
    driver.fact(Fact::ClockJumped { cause: ClockJump::RealTimeStep, gap_ms: 10, entropy: 1 });
    driver.fact(Fact::PingWritten { link: LinkId(2) });
    driver.fact(Fact::PongReceived { link: LinkId(2), last: true });
    driver.tick();
    driver.fact(Fact::DeliverySettled { settled: true });
    assert_eq!(driver.fact(Fact::LinkClosed { link: LinkId(2) }), [Order::Exit]);
    assert_eq!((driver.snapshot().unhandled, driver.snapshot().stale), (0, 0));
}

#[test]
fn reports_of_the_own_link_while_draining_are_expected() {
    let mut flushing = Driver::ready(5);
    run_command(&mut flushing, CommandKey(1));
    flushing.fact(Fact::ShutdownRequested);
    let mut closing = Driver::ready(5);
    closing.fact(Fact::ShutdownRequested);
    closing.fact(Fact::DeliverySettled { settled: true });
    let [.., ping, pong, part, _, close, lost, closed] = facts_about(1);
    let greeted = Fact::Greeted { link: LinkId(1) };
    let becomes = |driver: &Driver, fact, state, orders: &[Order]| {
        let mut next = driver.clone();
        assert_eq!(next.fact(fact), orders, "{fact:?} in {}", driver.state());
        let seen = next.snapshot();
        assert_eq!((seen.state, seen.unhandled, seen.stale), (state, 0, 0), "{fact:?} in {}", driver.state());
        next
    };
    for fact in [ping, pong, part] {
        becomes(&flushing, fact, "draining.flushing", &[]);
    }
    for fact in [close, lost] {
        let unlinked = becomes(&flushing, fact, "draining.unlinked", &[]);
        becomes(&unlinked, closed, "draining.unlinked", &[]);
    }
    becomes(&flushing, closed, "draining.unlinked", &[]);
    let stalled = Fact::WriteStalled { link: LinkId(1) };
    becomes(&flushing, stalled, "draining.unlinked", &[Order::DropLink { link: LinkId(1) }]);
    for fact in [greeted, ping, pong, part, close, lost] {
        becomes(&closing, fact, "draining.closing", &[]);
    }
    becomes(&closing, closed, "stopped", &[Order::Exit]);
    assert_eq!(closing.advance(), [Order::DropLink { link: LinkId(1) }, Order::Exit], "its deadline");
}

#[test]
fn lingering_socket_is_dropped_in_any_next_state() {
    let mut driver = Driver::ready(6);
    driver.live_for_ms(31_000);
    driver.fact(Fact::CloseReceived { link: LinkId(1), code: 1008, reason: CloseReason::UnknownInstance });
    assert_eq!(driver.state(), "unregistered");
    let waited_ms = driver.until(|order| *order == Order::DropLink { link: LinkId(1) });
    assert_eq!(waited_ms, Policy::default().close_ms);
}

#[test]
fn a_drain_ends_sessions_and_commands_by_the_time_table() {
    let mut driver = Driver::ready(7);
    driver.fact(Fact::Session { session: SessionKey(1), what: SessionFact::Opening });
    driver.fact(Fact::Session { session: SessionKey(1), what: SessionFact::Opened });
    run_command(&mut driver, CommandKey(2));
    let orders = driver.fact(Fact::ShutdownRequested);
    assert!(orders.contains(&Order::HangUpSession { session: SessionKey(1) }), "{orders:?}");
    let policy = Policy::default();
    let began = driver.now;
    let mut at = |wanted: Order| {
        driver.until(|order| *order == wanted);
        driver.now.ms_since(began)
    };
    assert_eq!(at(Order::TerminateCommand { command: CommandKey(2) }), policy.drain_terminate_ms);
    assert_eq!(at(Order::KillSession { session: SessionKey(1) }), policy.drain_kill_sessions_ms);
    assert_eq!(at(Order::KillCommand { command: CommandKey(2) }), policy.drain_kill_commands_ms);
    assert_eq!(at(Order::Exit), policy.drain_exit_ms);
}

#[test]
fn the_clocks_of_sessions_and_commands_run_on_the_same_ticks() {
    let mut driver = Driver::ready(8);
    driver
        .fact(Fact::Command { command: CommandKey(2), what: CommandFact::Requested { id_hash: 2, timeout_ms: 3_000 } });
    driver.fact(Fact::Command { command: CommandKey(2), what: CommandFact::Started });
    assert_eq!(driver.until(|order| *order == Order::TerminateCommand { command: CommandKey(2) }), 3_000);
    driver.fact(Fact::Command { command: CommandKey(2), what: CommandFact::EndOfOutput });
    let orders = driver.fact(Fact::Command { command: CommandKey(2), what: CommandFact::Exited { code: 143 } });
    let finish = Order::FinishCommand { command: CommandKey(2), end: CommandEnd::TimedOut, exit_code: 124 };
    assert!(orders.contains(&finish), "{orders:?}");
}

#[test]
fn unreachable_session_ends_at_its_limit() {
    let mut driver = Driver::ready(9);
    driver.fact(Fact::Session { session: SessionKey(1), what: SessionFact::Opening });
    driver.fact(Fact::Session { session: SessionKey(1), what: SessionFact::Opened });
    assert!(!driver.machine.is_orphan(SessionKey(1)));
    driver.closed_by_console(1000, CloseReason::Other);
    assert!(driver.machine.is_orphan(SessionKey(1)));
    driver.until(|order| *order == Order::HangUpSession { session: SessionKey(1) });
}

#[test]
fn queries_of_the_loop_give_the_current_state() {
    let policy = Policy::default();
    let mut driver = Driver::dialling(10);
    assert!(!driver.machine.has_link() && !driver.machine.is_draining() && !driver.machine.is_stopped());
    driver.fact(Fact::LinkOpened { link: LinkId(1) });
    assert!(driver.machine.has_link());
    assert!(!driver.machine.wants_terminal_input(), "no resync is due");
    driver.fact(Fact::DeliverySettled { settled: true });
    assert!(driver.machine.believes_settled());
    driver.fact(Fact::DeliverySettled { settled: false });
    assert!(!driver.machine.believes_settled());

    let next = driver.machine.next_deadline().expect("it is linked");
    let late_by = |ms| driver.machine.late_by_ms(next.after_ms(ms));
    assert_eq!(late_by(0), None);
    assert_eq!(late_by(policy.late_tick_ms), None);
    assert_eq!(late_by(policy.late_tick_ms + 1), Some(policy.late_tick_ms + 1));

    driver.fact(Fact::Greeted { link: LinkId(1) });
    driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Reset });
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    assert!(!driver.machine.has_link());
    driver.reconnect();
    assert!(driver.machine.wants_terminal_input(), "the loss was unclean");
}
