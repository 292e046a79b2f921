//! One test for each row of the policy table, through the machine.

use super::{Driver, is_dial, is_register};
use crate::fact::{ClockJump, CloseReason, CommandFact, Fact, Failure, IdSource, Loss, SessionFact};
use crate::id::{CommandKey, LinkId, RegistrationAttempt, SessionKey};
use crate::order::{CloseText, CommandEnd, ConsoleEvent, Disconnect, Gate, Order, Problem, ProviderName, RegisterPath};
use alloc::vec::Vec;

const SEEDS: u64 = 300;

/// Asserts that over many seeds `measure` stays in `low..=high` and comes near both ends.
#[track_caller]
fn assert_fills(low: u64, high: u64, measure: impl Fn(u64) -> u64) {
    let measured: Vec<u64> = (0..SEEDS).map(measure).collect();
    let (least, most) = (*measured.iter().min().expect("some"), *measured.iter().max().expect("some"));
    let slack = (high - low) / 20 + 1;
    assert!(least >= low && least <= low + slack, "{least} is not near {low}");
    assert!(most <= high && most + slack >= high, "{most} is not near {high}");
}

fn registering(seed: u64) -> Driver {
    let mut driver = Driver::new(seed);
    driver.fact(Fact::Started { id: IdSource::Configured });
    let orders = driver.tick();
    let expected = Order::Register {
        attempt: RegistrationAttempt(1),
        path: RegisterPath::Designed,
        provider: ProviderName::Configured,
    };
    assert_eq!(orders, [expected]);
    driver
}

fn answered(driver: &mut Driver, status: u16, retry_after_ms: Option<u64>) -> Vec<Order> {
    let attempt = driver.observer.registering().expect("a registration is in flight");
    driver.fact(Fact::RegistrationAnswered { attempt, status, retry_after_ms })
}

#[test]
fn a_registration_has_fifteen_seconds_and_a_dial_ten() {
    let mut driver = registering(1);
    let waited = driver.until(|order| matches!(order, Order::AbandonRegistration { attempt: RegistrationAttempt(1) }));
    assert_eq!(waited, 15_000);
    let mut driver = Driver::dialling(1);
    assert_eq!(driver.until(|order| matches!(order, Order::AbandonDial { link: LinkId(1) })), 10_000);
}

#[test]
fn first_retry_comes_in_2_s_and_250_ms_after_the_socket() {
    let measure = |seed| {
        let mut driver = Driver::ready(seed);
        driver.live_for_ms(31_000);
        driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Reset });
        driver.fact(Fact::LinkClosed { link: LinkId(1) });
        driver.until(is_dial)
    };
    assert_fills(250, 2_000, measure);
}

#[test]
fn console_going_away_gets_ten_seconds() {
    for code in [1001, 1012, 1013] {
        let measure = |seed| {
            let mut driver = Driver::ready(seed);
            driver.closed_by_console(code, CloseReason::Other);
            driver.until(is_dial)
        };
        assert_fills(250, 10_000, measure);
    }
    for code in [1000, 1005, 1011, 4000] {
        let mut driver = Driver::ready(9);
        driver.closed_by_console(code, CloseReason::Other);
        assert!(driver.until(is_dial) <= 2_000, "{code}");
    }
}

#[test]
fn a_dial_waits_for_the_old_socket_and_drops_it_in_the_end() {
    let mut driver = Driver::ready(2);
    driver.fact(Fact::CloseReceived { link: LinkId(1), code: 1000, reason: CloseReason::Other });
    assert_eq!(driver.until(|order| matches!(order, Order::DropLink { link: LinkId(1) })), 1_000);
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    assert!(driver.until(is_dial) >= 250);
}

#[test]
fn unanswered_drop_does_not_prevent_a_dial() {
    let mut driver = Driver::ready(2);
    driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Reset });
    assert!(driver.until(is_dial) <= 2_000 + 2_000 + 250);
}

#[test]
fn later_retries_grow_to_thirty_seconds() {
    for (failures, high) in [(1, 10_000), (2, 20_000), (3, 30_000), (9, 30_000)] {
        let measure = |seed| {
            let mut driver = Driver::dialling(seed);
            let mut waited = 0;
            for _ in 0..failures {
                let link = driver.observer.dialling().expect("a dial is in flight");
                driver.fact(Fact::DialFailed { link, cause: Failure::Connect, retry_after_ms: None });
                waited = driver.until(is_dial);
            }
            waited
        };
        assert_fills(0, high, measure);
    }
}

#[test]
fn retry_after_is_honoured_up_to_ten_minutes_and_spread() {
    for (asked, low) in [(7_000, 7_000), (86_400_000, 600_000), (u64::MAX, 600_000)] {
        let measure = |seed| {
            let mut driver = registering(seed);
            answered(&mut driver, 429, Some(asked));
            driver.until(is_register)
        };
        assert_fills(low, 2 * low, measure);
    }
    let mut driver = Driver::dialling(3);
    driver.fact(Fact::DialFailed { link: LinkId(1), cause: Failure::Status, retry_after_ms: Some(60_000) });
    assert!((60_000..=120_000).contains(&driver.until(is_dial)));
}

#[test]
fn the_backoff_is_reset_only_by_thirty_ready_seconds() {
    let after = |ready_ms: u64| {
        move |seed| {
            let mut driver = Driver::dialling(seed);
            for _ in 0..4 {
                let link = driver.observer.dialling().expect("a dial is in flight");
                driver.fact(Fact::DialFailed { link, cause: Failure::Connect, retry_after_ms: None });
                driver.until(is_dial);
            }
            let link = driver.observer.dialling().expect("a dial is in flight");
            driver.fact(Fact::LinkOpened { link });
            driver.fact(Fact::Greeted { link });
            driver.live_for_ms(ready_ms);
            driver.closed_by_console(1000, CloseReason::Other);
            driver.until(is_dial)
        }
    };
    assert_fills(250, 30_000, after(29_999));
    assert_fills(250, 2_000, after(30_000));
}

#[test]
fn a_refused_key_is_tried_slowly_and_said_each_time() {
    let slow = |refuse: &dyn Fn(&mut Driver) -> Vec<Order>, base: &dyn Fn(u64) -> Driver| {
        let measure = |seed| {
            let mut driver = base(seed);
            let orders = refuse(&mut driver);
            assert!(orders.contains(&Order::Report { problem: Problem::KeyRefused }), "{orders:?}");
            driver.until(|order| is_dial(order) || is_register(order))
        };
        assert_fills(30_000, 90_000, measure);
    };
    for status in [401, 403] {
        slow(&|driver| answered(driver, status, None), &registering);
    }
    let unauthorized = Fact::DialFailed { link: LinkId(1), cause: Failure::Unauthorized, retry_after_ms: None };
    slow(&|driver| driver.fact(unauthorized), &Driver::dialling);
    slow(&|driver| driver.closed_by_console(1008, CloseReason::Authentication), &Driver::ready);
    let fifth = |seed| {
        let mut driver = registering(seed);
        (0..5).map(|_| (answered(&mut driver, 401, None), driver.until(is_register))).last().expect("five").1
    };
    assert_fills(300_000, 900_000, fifth);
}

#[test]
fn unknown_instance_registers_again_within_five_seconds() {
    let measure = |seed| {
        let mut driver = Driver::ready(seed);
        let orders = driver.closed_by_console(1008, CloseReason::UnknownInstance);
        assert!(orders.contains(&Order::ForgetIdentity));
        assert_eq!(driver.state(), "unregistered");
        driver.until(is_register)
    };
    assert_fills(0, 5_000, measure);
}

#[test]
fn registration_tries_other_path_and_name_then_goes_on() {
    let mut driver = registering(4);
    let orders = answered(&mut driver, 404, None);
    let path = RegisterPath::Observed;
    assert_eq!(orders, [Order::Register { attempt: RegistrationAttempt(2), path, provider: ProviderName::Alias }]);
    let orders = answered(&mut driver, 422, None);
    assert_eq!(orders, [Order::Report { problem: Problem::RegistrationRejected }]);
    assert_eq!(driver.until(is_dial), 0);
}

#[test]
fn registration_422_on_designed_path_sends_alias() {
    let mut driver = registering(4);
    let (path, provider) = (RegisterPath::Designed, ProviderName::Alias);
    let orders = answered(&mut driver, 422, None);
    assert_eq!(orders, [Order::Register { attempt: RegistrationAttempt(2), path, provider }]);
    let orders = answered(&mut driver, 422, None);
    assert_eq!(orders, [Order::Report { problem: Problem::RegistrationRejected }]);
}

#[test]
fn console_row_id_dials_first_and_registers_when_unknown() {
    let mut driver = Driver::new(4);
    driver.fact(Fact::Started { id: IdSource::Assigned });
    assert_eq!(driver.until(is_dial), 0);
    driver.fact(Fact::LinkOpened { link: LinkId(1) });
    let orders = driver.closed_by_console(1008, CloseReason::UnknownInstance);
    assert_eq!(orders, [Order::Report { problem: Problem::UnknownInstance }, Order::ForgetIdentity]);
    assert!(driver.until(is_register) <= 5_000);
    assert_eq!(answered(&mut driver, 201, None), [Order::Emit { event: ConsoleEvent::Deploy }]);
    assert_eq!(driver.until(is_dial), 0);
}

#[test]
fn refused_link_emits_neither_connect_nor_disconnect() {
    let is_event = |order: &Order| matches!(order, Order::Emit { .. });
    let mut driver = Driver::dialling(4);
    assert_eq!(driver.fact(Fact::LinkOpened { link: LinkId(1) }), []);
    let orders = driver.closed_by_console(1008, CloseReason::Authentication);
    assert_eq!(orders, [Order::Report { problem: Problem::KeyRefused }]);
    driver.until(is_dial);
    driver.fact(Fact::LinkOpened { link: LinkId(2) });
    let offline_ms = driver.now.as_ms();
    let orders = driver.fact(Fact::Greeted { link: LinkId(2) });
    assert_eq!(orders.first(), Some(&Order::Emit { event: ConsoleEvent::Connect { attempts: 2, offline_ms } }));
    assert!(driver.closed_by_console(1000, CloseReason::Other).iter().any(is_event));
}

#[test]
fn without_either_path_the_configured_id_is_dialled() {
    let mut driver = registering(4);
    answered(&mut driver, 405, None);
    assert_eq!(answered(&mut driver, 404, None), [Order::Report { problem: Problem::RegistrationRejected }]);
    assert_eq!(driver.state(), "connecting.waiting");
}

#[test]
fn working_path_is_kept() {
    let mut driver = registering(4);
    answered(&mut driver, 404, None);
    assert_eq!(answered(&mut driver, 201, None), [Order::Emit { event: ConsoleEvent::Deploy }]);
    driver.reconnect();
    driver.closed_by_console(1008, CloseReason::UnknownInstance);
    driver.until(is_register);
    assert_eq!(driver.observer.registering(), Some(RegistrationAttempt(3)));
    // Registered again, but deployed only once.
    assert_eq!(answered(&mut driver, 409, None), []);
}

#[test]
fn a_redirect_is_said_and_retried() {
    let mut driver = registering(4);
    assert_eq!(answered(&mut driver, 302, None), [Order::Report { problem: Problem::Redirected }]);
    assert_eq!(driver.state(), "registering.backing_off");
}

#[test]
fn replacement_doubles_and_second_is_reported_once() {
    let mut driver = Driver::ready(5);
    let shared = Order::Report { problem: Problem::SharedInstanceId };
    let mut said = Vec::new();
    for wait_ms in [5_000, 10_000, 20_000, 40_000, 80_000] {
        let orders = driver.closed_by_console(1001, CloseReason::Replaced);
        said.push(orders.contains(&shared));
        assert_eq!(driver.reconnect(), wait_ms);
    }
    assert_eq!(said, [false, true, false, false, false]);
    driver.live_for_ms(1_800_000);
    driver.closed_by_console(1001, CloseReason::Replaced);
    assert_eq!(driver.reconnect(), 5_000);
}

#[test]
fn replacements_16_minutes_apart_are_not_reported() {
    let mut driver = Driver::ready(5);
    for _ in 0..4 {
        let orders = driver.closed_by_console(1001, CloseReason::Replaced);
        assert!(!orders.contains(&Order::Report { problem: Problem::SharedInstanceId }));
        driver.reconnect();
        driver.live_for_ms(900_001);
    }
}

#[test]
fn ping_every_10_s_and_silence_of_10_s_ends_the_link() {
    let mut driver = Driver::ready(6);
    let is_ping = |order: &Order| matches!(order, Order::SendPing { .. });
    assert_eq!(driver.until(is_ping), 10_000);
    driver.now = driver.now.after_ms(1_500);
    driver.fact(Fact::PingWritten { link: LinkId(1) });
    let died = driver.until(|order| matches!(order, Order::DropLink { link: LinkId(1) }));
    assert_eq!(died, 10_000);
    let lost = ConsoleEvent::Disconnect { cause: Disconnect::PongTimeout, code: None };
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    driver.reconnect();
    assert_eq!(lost, ConsoleEvent::Disconnect { cause: Disconnect::PongTimeout, code: None });
}

#[test]
fn any_pong_gives_the_link_ten_more_seconds() {
    let mut driver = Driver::ready(6);
    driver.until(|order| matches!(order, Order::SendPing { .. }));
    driver.fact(Fact::PingWritten { link: LinkId(1) });
    driver.now = driver.now.after_ms(9_000);
    driver.fact(Fact::PongReceived { link: LinkId(1), last: false });
    assert_eq!(driver.until(|order| matches!(order, Order::DropLink { .. })), 10_000);
}

#[test]
fn a_stalled_write_kills_the_link() {
    let mut driver = Driver::ready(6);
    let orders = driver.fact(Fact::WriteStalled { link: LinkId(1) });
    let lost = ConsoleEvent::Disconnect { cause: Disconnect::WriteStalled, code: None };
    assert_eq!(orders, [Order::DropLink { link: LinkId(1) }, Order::Emit { event: lost }]);
}

#[test]
fn unclean_loss_is_resynced_once_after_40_s() {
    let mut driver = Driver::ready(7);
    driver.fact(Fact::LinkLost { link: LinkId(1), cause: Loss::Eof });
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    driver.reconnect();
    let ready_at = driver.now;
    driver.live_for_ms(39_999);
    assert_eq!(driver.state(), "connected.ready");
    let orders = driver.advance();
    let close = Order::CloseLink { link: LinkId(2), code: 1000, reason: CloseText::Resync };
    assert!(orders.contains(&close), "{orders:?}");
    assert_eq!(driver.now.ms_since(ready_at), 40_000);
    driver.fact(Fact::LinkClosed { link: LinkId(2) });
    assert_eq!(driver.reconnect(), 250);
    driver.live_for_ms(600_000);
    assert_eq!(driver.snapshot().link, Some(LinkId(3)), "a resync is not followed by another");
}

/// A machine whose link broke with one session open, and is ready again: a resync is due in 40 s.
fn broken_with_session(seed: u64) -> Driver {
    let mut driver = Driver::ready(seed);
    driver.fact(session(SessionFact::Opening));
    driver.fact(session(SessionFact::Opened));
    driver.fact(Fact::WriteStalled { link: LinkId(1) });
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    driver.reconnect();
    driver
}

fn session(what: SessionFact) -> Fact {
    Fact::Session { session: SessionKey(1), what }
}

fn is_close(order: &Order) -> bool {
    matches!(order, Order::CloseLink { .. })
}

#[test]
fn resync_waits_until_everything_is_delivered() {
    let mut driver = Driver::ready(7);
    driver.fact(Fact::WriteStalled { link: LinkId(1) });
    driver.fact(Fact::LinkClosed { link: LinkId(1) });
    driver.reconnect();
    driver.fact(Fact::DeliverySettled { settled: false });
    driver.live_for_ms(45_000);
    assert_eq!(driver.state(), "connected.ready");
    driver.fact(Fact::DeliverySettled { settled: true });
    assert!(driver.until(is_close) <= 1_000);
}

#[test]
fn resync_waits_for_watched_session_to_end() {
    let mut driver = broken_with_session(7);
    driver.live_for_ms(300_000);
    assert_eq!(driver.snapshot().link, Some(LinkId(2)));
    driver.fact(session(SessionFact::EndOfOutput));
    driver.fact(session(SessionFact::Exited { code: 0 }));
    assert!(driver.until(is_close) <= 1_000);
}

#[test]
fn resync_waits_at_most_five_minutes_for_sessions() {
    let mut driver = broken_with_session(7);
    driver.live_for_ms(339_999);
    assert_eq!(driver.snapshot().link, Some(LinkId(2)));
    let close = Order::CloseLink { link: LinkId(2), code: 1000, reason: CloseText::Resync };
    assert!(driver.advance().contains(&close));
}

#[test]
fn message_for_session_after_a_minute_makes_resync_needless() {
    for (typed_after_ms, needless) in [(30_000, false), (59_999, false), (60_000, true), (200_000, true)] {
        let mut driver = broken_with_session(7);
        driver.live_for_ms(typed_after_ms);
        assert!(driver.machine.wants_terminal_input());
        driver.fact(Fact::TerminalInput);
        driver.live_for_ms(400_000 - typed_after_ms);
        assert_eq!(driver.snapshot().link == Some(LinkId(2)), needless, "{typed_after_ms}");
    }
}

#[test]
fn a_clean_loss_needs_no_resync() {
    let mut driver = Driver::ready(7);
    driver.closed_by_console(1012, CloseReason::Other);
    driver.reconnect();
    driver.live_for_ms(600_000);
    assert_eq!(driver.snapshot().link, Some(LinkId(2)));
}

#[test]
fn heartbeats_come_at_80_to_95_percent_of_the_interval() {
    let measure = |seed| {
        let mut driver = Driver::ready(seed);
        let is_beat = |order: &Order| matches!(order, Order::SendHeartbeat { .. });
        driver.until(|order| matches!(order, Order::SendPing { .. }));
        driver.fact(Fact::PingWritten { link: LinkId(1) });
        driver.fact(Fact::PongReceived { link: LinkId(1), last: true });
        driver.until(|order| matches!(order, Order::SendPing { .. }));
        driver.fact(Fact::PingWritten { link: LinkId(1) });
        driver.fact(Fact::PongReceived { link: LinkId(1), last: true });
        20_000 + driver.until(is_beat)
    };
    assert_fills(24_000, 28_500, measure);
}

#[test]
fn metrics_keep_their_schedule_over_a_reconnect() {
    let mut driver = Driver::ready(8);
    let is_metrics = |order: &Order| matches!(order, Order::SendMetrics { .. });
    assert_eq!(driver.until(is_metrics), 0);
    let first = driver.now;
    driver.closed_by_console(1000, CloseReason::Other);
    driver.reconnect();
    driver.until(is_metrics);
    assert!((48_000..=57_000).contains(&driver.now.ms_since(first)));
}

#[test]
fn gate_opens_after_1_s_and_5_s_or_at_the_greeting() {
    let mut driver = Driver::dialling(9);
    assert_eq!(driver.fact(Fact::LinkOpened { link: LinkId(1) }), []);
    let connect = Order::Emit { event: ConsoleEvent::Connect { attempts: 1, offline_ms: 0 } };
    let state = Order::OpenGate { link: LinkId(1), gate: Gate::State };
    let all = Order::OpenGate { link: LinkId(1), gate: Gate::All };
    let mut silent = driver.clone();
    assert_eq!(silent.until(|order| *order == state), 1_000);
    assert_eq!(silent.until(|order| *order == all), 4_000);
    let orders = driver.fact(Fact::Greeted { link: LinkId(1) });
    assert_eq!(
        orders,
        [connect, all, Order::SendRegistration { link: LinkId(1) }, Order::SendHeartbeat { link: LinkId(1) }]
    );
}

#[test]
fn clock_jump_fires_nothing_and_probes_the_link() {
    let mut driver = Driver::ready(10);
    driver.tick();
    driver.now = driver.now.after_ms(3_600_000);
    let gap_ms = driver.machine.late_by_ms(driver.now).expect("an hour is late");
    let orders = driver.fact(Fact::ClockJumped { cause: ClockJump::LateTick, gap_ms, entropy: 1 });
    assert_eq!(orders, [Order::ReadHostName, Order::SendPing { link: LinkId(1) }]);
    let overdue = driver.tick();
    assert!(!overdue.iter().any(|order| matches!(order, Order::DropLink { .. })), "{overdue:?}");
    let mut healthy = driver.clone();
    healthy.fact(Fact::PingWritten { link: LinkId(1) });
    let orders = healthy.fact(Fact::PongReceived { link: LinkId(1), last: true });
    assert_eq!(orders, [Order::SendHeartbeat { link: LinkId(1) }]);
    assert!(driver.until(|order| matches!(order, Order::DropLink { .. })) <= 5_000);
}

#[test]
fn the_drain_follows_its_time_table() {
    let mut driver = Driver::ready(11);
    let orders = driver.fact(Fact::ShutdownRequested);
    let event = ConsoleEvent::Disconnect { cause: Disconnect::Shutdown, code: Some(1000) };
    assert_eq!(orders, [Order::Emit { event }]);
    let close = Order::CloseLink { link: LinkId(1), code: 1000, reason: CloseText::Shutdown };
    let mut flushed = driver.clone();
    assert_eq!(flushed.fact(Fact::DeliverySettled { settled: true }), [close]);
    assert_eq!(flushed.fact(Fact::LinkClosed { link: LinkId(1) }), [Order::Exit]);
    assert_eq!(driver.until(|order| *order == close), 3_500);
    assert_eq!(driver.until(|order| *order == Order::Exit), 500);
    assert!(driver.machine.next_deadline().is_none());
}

#[test]
fn last_result_is_delivered_before_the_close_frame() {
    let mut driver = Driver::ready(11);
    let handle = |driver: &mut Driver, what| driver.fact(Fact::Command { command: CommandKey(1), what });
    handle(&mut driver, CommandFact::Requested { id_hash: 1, timeout_ms: 0 });
    handle(&mut driver, CommandFact::Started);
    driver.fact(Fact::ShutdownRequested);
    driver.fact(Fact::DeliverySettled { settled: false });
    assert_eq!(driver.fact(Fact::DeliverySettled { settled: true }), [], "a command runs");
    driver.until(|order| *order == Order::TerminateCommand { command: CommandKey(1) });
    handle(&mut driver, CommandFact::EndOfOutput);
    let finish = Order::FinishCommand { command: CommandKey(1), end: CommandEnd::Drained, exit_code: 143 };
    let over = handle(&mut driver, CommandFact::Exited { code: 143 });
    assert_eq!(over, [Order::KillCommand { command: CommandKey(1) }, finish], "its result is still to be delivered");
    let close = Order::CloseLink { link: LinkId(1), code: 1000, reason: CloseText::Shutdown };
    assert_eq!(driver.fact(Fact::DeliverySettled { settled: true }), [close]);
}

#[test]
fn a_drain_without_a_link_ends_at_once_and_does_not_redial() {
    let mut driver = Driver::dialling(11);
    let orders = driver.fact(Fact::ShutdownRequested);
    assert_eq!(orders, [Order::AbandonDial { link: LinkId(1) }, Order::Exit]);
    let mut driver = registering(11);
    let orders = driver.fact(Fact::ShutdownRequested);
    assert_eq!(orders, [Order::AbandonRegistration { attempt: RegistrationAttempt(1) }, Order::Exit]);
}

#[test]
fn a_drain_in_the_greeting_opens_the_gate_to_flush() {
    let mut driver = Driver::dialling(12);
    driver.fact(Fact::LinkOpened { link: LinkId(1) });
    let mut idle = driver.clone();
    let close = Order::CloseLink { link: LinkId(1), code: 1000, reason: CloseText::Shutdown };
    assert_eq!(idle.fact(Fact::ShutdownRequested), [close], "nothing waits to be delivered");
    driver.fact(Fact::DeliverySettled { settled: false });
    driver.fact(Fact::ShutdownRequested);
    let mut greeted = driver.clone();
    assert!(
        greeted.fact(Fact::Greeted { link: LinkId(1) }).contains(&Order::OpenGate { link: LinkId(1), gate: Gate::All })
    );
    assert_eq!(driver.until(|order| *order == Order::OpenGate { link: LinkId(1), gate: Gate::All }), 1_000);
}

#[test]
fn facts_of_an_ended_link_are_counted_and_ignored() {
    let mut driver = Driver::ready(13);
    driver.closed_by_console(1000, CloseReason::Other);
    driver.reconnect();
    let before = driver.snapshot().stale;
    for fact in [
        Fact::LinkLost { link: LinkId(1), cause: Loss::Reset },
        Fact::PongReceived { link: LinkId(1), last: true },
        Fact::CloseReceived { link: LinkId(1), code: 1008, reason: CloseReason::UnknownInstance },
    ] {
        assert_eq!(driver.fact(fact), []);
    }
    assert_eq!(driver.snapshot().stale, before + 3);
    let before = driver.snapshot().unhandled;
    driver.fact(Fact::Started { id: IdSource::Configured });
    assert_eq!(driver.snapshot().unhandled, before + 1);
}
