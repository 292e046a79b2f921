//! The steps of a hand-over, and that the next program has what this one had.

use super::tests::{Rig, has};
use super::*;
use alloc::vec::Vec;

type Outputs = Vec<Output<usize>>;

const LINK: LinkId = LinkId(1);
const CLOSE: Action = Action::CloseLink { link: LINK, code: 1012, reason: CloseText::HandOver };

fn report(rig: &mut Rig, what: HandOverInput) -> Outputs {
    rig.turn(Input::HandOver { what })
}

const fn step(step: HandOverStep) -> Action {
    Action::HandOver { step }
}

fn is_refused(outputs: &Outputs, why: HandOverRefusal) -> bool {
    has(outputs, Action::Log { notice: Notice::HandOverRefused { why } })
}

/// Lets `ms` pass.
fn wait(rig: &mut Rig, ms: u64) -> Outputs {
    rig.now = rig.now.after_ms(ms);
    rig.poll()
}

/// Everything up to the close of the link.
fn close(rig: &mut Rig) -> Outputs {
    report(rig, HandOverInput::Requested);
    report(rig, HandOverInput::Accepted);
    report(rig, HandOverInput::ToolsDone);
    report(rig, HandOverInput::Flushed)
}

fn dials(outputs: &Outputs) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Do(Action::Dial { .. })))
}

#[test]
fn steps_come_one_after_the_other() {
    let mut rig = Rig::ready(false);
    assert!(has(&report(&mut rig, HandOverInput::Requested), step(HandOverStep::Ask)));
    assert_eq!(report(&mut rig, HandOverInput::Requested), [], "a second request");
    assert_eq!(report(&mut rig, HandOverInput::Flushed), [], "an answer out of place");
    assert!(has(&report(&mut rig, HandOverInput::Accepted), step(HandOverStep::AwaitTools)));
    assert!(has(&report(&mut rig, HandOverInput::ToolsDone), step(HandOverStep::Flush)));
    let closing = report(&mut rig, HandOverInput::Flushed);
    assert!(has(&closing, CLOSE) && !has(&closing, step(HandOverStep::Replace)), "{closing:?}");
    let closed = rig.turn(Input::LinkClosed { link: LINK });
    assert_eq!(closed.last(), Some(&Output::Do(step(HandOverStep::Replace))), "{closed:?}");
    assert!(!dials(&closed));
}

#[test]
fn overdue_step_ends_the_hand_over() {
    let mut rig = Rig::ready(false);
    report(&mut rig, HandOverInput::Requested);
    assert!(is_refused(&wait(&mut rig, HAND_OVER_ASK_MS), HandOverRefusal::NoAnswer));
    report(&mut rig, HandOverInput::Requested);
    assert!(is_refused(&report(&mut rig, HandOverInput::Rejected), HandOverRefusal::Rejected));
    report(&mut rig, HandOverInput::Requested);
    report(&mut rig, HandOverInput::Accepted);
    report(&mut rig, HandOverInput::ToolsDone);
    assert!(is_refused(&wait(&mut rig, HAND_OVER_FLUSH_MS), HandOverRefusal::NotFlushed));
    assert_eq!(report(&mut rig, HandOverInput::Flushed), []);
    assert!(rig.driver.machine.has_link(), "nothing was given up");
}

#[test]
fn answers_to_tools_are_cut_after_their_time() {
    let mut rig = Rig::ready(false);
    report(&mut rig, HandOverInput::Requested);
    report(&mut rig, HandOverInput::Accepted);
    rig.driver.hand_over.shift_ms(0);
    let deadline = rig.driver.hand_over.next_deadline().expect("it waits");
    assert_eq!(deadline, rig.now.after_ms(HAND_OVER_TOOLS_MS));
    rig.now = deadline;
    let outputs = rig.poll();
    assert!(has(&outputs, Action::Log { notice: Notice::HandOverCutsTools }));
    assert!(has(&outputs, step(HandOverStep::Flush)));
}

#[test]
fn start_under_way_is_waited_for() {
    let mut rig = Rig::ready(false);
    rig.create(1, 5);
    close(&mut rig);
    assert!(!has(&rig.turn(Input::LinkClosed { link: LINK }), step(HandOverStep::Replace)));
    let opened = rig.turn(Input::Session { session: SessionKey(1), what: SessionInput::Opened });
    assert!(has(&opened, step(HandOverStep::Replace)), "{opened:?}");
}

#[test]
fn start_that_hangs_ends_the_hand_over_and_the_agent_dials() {
    let mut rig = Rig::ready(false);
    rig.dispatch(1, 77);
    close(&mut rig);
    rig.turn(Input::LinkClosed { link: LINK });
    let waited = wait(&mut rig, HAND_OVER_SETTLE_MS);
    assert!(is_refused(&waited, HandOverRefusal::NotSettled), "{waited:?}");
    assert!(dials(&waited), "{waited:?}");
}

#[test]
fn console_that_does_not_close_delays_no_longer_than_its_time() {
    let mut rig = Rig::ready(false);
    close(&mut rig);
    assert!(is_refused(&wait(&mut rig, HAND_OVER_SETTLE_MS), HandOverRefusal::NotSettled));
}

#[test]
fn agent_goes_on_where_the_program_is_not_replaced() {
    let mut rig = Rig::ready(false);
    close(&mut rig);
    rig.turn(Input::LinkClosed { link: LINK });
    wait(&mut rig, 1_000);
    let failed = report(&mut rig, HandOverInput::Failed);
    assert!(is_refused(&failed, HandOverRefusal::Failed) && dials(&failed), "{failed:?}");
}

#[test]
fn agent_that_stops_hands_nothing_over() {
    let mut rig = Rig::ready(false);
    report(&mut rig, HandOverInput::Requested);
    rig.turn(Input::ShutdownRequested);
    assert_eq!(rig.driver.hand_over.next_deadline(), None);
    assert!(is_refused(&report(&mut rig, HandOverInput::Requested), HandOverRefusal::Draining));
}

#[test]
fn agent_without_a_link_hands_over_at_once() {
    let mut rig = Rig::new(false);
    rig.turn(Input::Started { id: IdSource::Remembered });
    assert!(has(&close(&mut rig), step(HandOverStep::Replace)));
}

/// A driver that has two sessions, of which one was closed, and 17 commands, of which one waits and one has ended.
fn busy() -> Rig {
    let mut rig = Rig::ready(false);
    for session in 1..=2 {
        rig.create(session, session.into());
        rig.turn(Input::Session { session: SessionKey(session), what: SessionInput::Opened });
    }
    rig.receive(ConsoleMessage::Close { id: ConsoleId(2) });
    for command in 1..=18 {
        rig.dispatch(command, 100 + u64::from(command));
        rig.turn(Input::Command { command: CommandKey(command), what: CommandInput::Started });
    }
    for what in [CommandInput::EndOfOutput, CommandInput::Exited { code: 0 }] {
        rig.turn(Input::Command { command: CommandKey(1), what });
    }
    // It had waited for that.
    rig.turn(Input::Command { command: CommandKey(17), what: CommandInput::Started });
    rig.receive(ConsoleMessage::Cancel { id: ConsoleId(103) });
    rig
}

fn given(rig: &Rig) -> Vec<TakenOver> {
    rig.driver.inheritance(rig.now).into_iter().map(|(what, _)| what).collect()
}

/// The next program, with all that this one gave.
fn next(rig: &Rig) -> Rig {
    let mut next = Rig::new(false);
    next.driver.handle(next.now, Input::Started { id: IdSource::Remembered });
    for what in given(rig) {
        next.driver.handle(next.now, Input::TakenOver { what });
    }
    next.poll();
    next
}

#[test]
fn next_program_gives_on_what_it_was_given() {
    let rig = busy();
    let all = given(&rig);
    let count = |is_it: fn(&TakenOver) -> bool| all.iter().filter(|what| is_it(what)).count();
    assert_eq!(count(|what| matches!(what, TakenOver::Session { .. })), 2);
    assert_eq!(count(|what| matches!(what, TakenOver::Session { end: Some(SessionEnd::Closed), .. })), 1);
    assert_eq!(count(|what| matches!(what, TakenOver::Command { .. })), 16);
    assert_eq!(count(|what| matches!(what, TakenOver::Command { end: Some(CommandEnd::Cancelled), .. })), 1);
    assert_eq!(count(|what| matches!(what, TakenOver::Waiting { .. })), 1);
    assert_eq!(count(|what| matches!(what, TakenOver::Result { .. })), 1);
    let result =
        |what: &TakenOver| matches!(what, TakenOver::Message { command: Some(CommandKey(1)), of: Some(_), .. });
    assert_eq!(count(result), 1, "{all:?}");
    // Without a link each session is an orphan.
    let is_other = |what: &&TakenOver| !matches!(what, TakenOver::Session { .. } | TakenOver::Begun { .. });
    let mut again = next(&rig);
    assert_eq!(
        given(&again).iter().filter(is_other).collect::<Vec<_>>(),
        all.iter().filter(is_other).collect::<Vec<_>>()
    );
    let orphans = given(&again);
    let orphans = orphans.iter().filter(|what| matches!(what, TakenOver::Session { orphan_in_ms: Some(_), .. }));
    assert_eq!(orphans.count(), 2);
    // And so on: it is the same driver after any number of hand-overs.
    let twice = next(&again);
    assert_eq!(given(&twice), given(&again));
    // A repeat of what runs, waits or has ended runs nothing.
    assert!(dials(&wait(&mut again, 250)), "the old socket is gone for long enough");
    again.turn(Input::LinkOpened { link: LINK });
    for id in [101, 102, 118] {
        let outputs = again.dispatch(40 + u32::try_from(id).expect("small"), id);
        let is_answer = |output: &Output<usize>| {
            let log =
                |notice: &Notice| matches!(notice, Notice::DuplicateDispatch { .. } | Notice::ResultRepeated { .. });
            matches!(output, Output::Do(Action::Log { notice }) if log(notice))
        };
        assert!(outputs.iter().any(is_answer), "{outputs:?}");
        assert!(!outputs.iter().any(|output| matches!(output, Output::Do(Action::StartCommand { .. }))), "{outputs:?}");
    }
    // A console attaches to the session that it had.
    let attached = again.create(9, 1);
    assert!(has(&attached, Action::Log { notice: Notice::Reattached { session: SessionKey(1) } }), "{attached:?}");
}

#[test]
fn commands_and_sessions_end_as_if_they_had_begun_here() {
    let mut rig = next(&busy());
    let exited = |code| CommandInput::Exited { code };
    for (command, code) in [(2, 7), (3, 143)] {
        rig.turn(Input::Command { command: CommandKey(command), what: CommandInput::EndOfOutput });
        rig.turn(Input::Command { command: CommandKey(command), what: exited(code) });
    }
    let results = |end, exit_code, command| {
        move |message: &Message| *message == Message::Result { command: CommandKey(command), end, exit_code }
    };
    assert_eq!(rig.was_encoded(results(CommandEnd::Exited, 7, 2)), 1);
    assert_eq!(rig.was_encoded(results(CommandEnd::Cancelled, 130, 3)), 1);
    for session in 1..=2 {
        rig.turn(Input::Session { session: SessionKey(session), what: SessionInput::EndOfOutput });
        rig.turn(Input::Session { session: SessionKey(session), what: SessionInput::Exited { code: 1 } });
    }
    wait(&mut rig, 3_000);
    wait(&mut rig, 1_000);
    let closed = |end, session| {
        move |message: &Message| *message == Message::Closed { session: SessionKey(session), end, exit_code: 1 }
    };
    assert_eq!(rig.was_encoded(closed(SessionEnd::Exited, 1)), 1);
    assert_eq!(rig.was_encoded(closed(SessionEnd::Closed, 2)), 1);
}

#[test]
fn time_out_goes_on_across_a_hand_over() {
    let mut rig = Rig::ready(false);
    rig.dispatch(1, 77);
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Started });
    let left_ms = crate::command::TIMEOUT_DEFAULT_MS - 1_000;
    rig.now = rig.now.after_ms(1_000);
    let mut next = next(&rig);
    let deadline = next.driver.machine.command_to_hand_over(CommandKey(1)).expect("it runs").0;
    assert_eq!(deadline, next.now.after_ms(left_ms));
    next.now = deadline;
    assert!(has(&next.poll(), Action::TerminateCommand { command: CommandKey(1) }));
}

/// Lets time pass until the next dial; how long that is, in milliseconds.
fn ms_until_dial(rig: &mut Rig) -> u64 {
    let began = rig.now;
    loop {
        rig.now = rig.driver.next_deadline().expect("it goes on");
        if dials(&rig.poll()) {
            return rig.now.ms_since(began);
        }
    }
}

fn refuse_key(rig: &mut Rig, link: u32) {
    let (link, cause) = (LinkId(link), Failure::Unauthorized);
    rig.turn(Input::DialFailed { link, cause, retry_after_ms: None });
}

#[test]
fn wait_goes_on_after_a_hand_over() {
    let mut rig = Rig::new(false);
    rig.turn(Input::Started { id: IdSource::Remembered });
    for link in 1..=3 {
        refuse_key(&mut rig, link);
        if link < 3 {
            ms_until_dial(&mut rig);
        }
    }
    // The third wait is 120 to 360 s.
    wait(&mut rig, 1_000);
    let mut next = next(&rig);
    let waited_ms = ms_until_dial(&mut next);
    assert_eq!(waited_ms, ms_until_dial(&mut rig));
    assert!((119_000..=359_000).contains(&waited_ms), "{waited_ms}");
    // The fourth is 240 to 720 s.
    refuse_key(&mut next, 1);
    let waited_ms = ms_until_dial(&mut next);
    assert!((240_000..=720_000).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn console_is_cured_of_a_loss_before_the_hand_over() {
    let mut rig = Rig::ready(false);
    rig.turn(Input::LinkLost { link: LINK, cause: Loss::Reset });
    rig.turn(Input::LinkClosed { link: LINK });
    assert_resyncs(next(&rig));
}

/// Checks that a program that has begun cures the console.
fn assert_resyncs(mut rig: Rig) {
    ms_until_dial(&mut rig);
    rig.turn(Input::LinkOpened { link: LINK });
    rig.receive(ConsoleMessage::Other);
    rig.settle();
    let resync = Action::CloseLink { link: LINK, code: 1000, reason: CloseText::Resync };
    let outputs = wait(&mut rig, Policy::default().resync_ms);
    assert!(has(&outputs, resync), "{outputs:?}");
}

#[test]
fn link_that_opens_before_the_replacement_is_closed_too() {
    let mut rig = Rig::ready(false);
    rig.dispatch(1, 77);
    rig.turn(Input::LinkLost { link: LINK, cause: Loss::Reset });
    rig.turn(Input::LinkClosed { link: LINK });
    ms_until_dial(&mut rig);
    close(&mut rig);
    let second = LinkId(2);
    let opened = rig.turn(Input::LinkOpened { link: second });
    let close = Action::CloseLink { link: second, code: 1012, reason: CloseText::HandOver };
    assert!(has(&opened, close), "{opened:?}");
    let started = rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Started });
    assert!(!has(&started, step(HandOverStep::Replace)), "{started:?}");
    assert!(has(&rig.turn(Input::LinkClosed { link: second }), step(HandOverStep::Replace)));
}

#[test]
fn console_is_cured_of_a_close_that_it_did_not_answer() {
    let mut rig = Rig::ready(false);
    close(&mut rig);
    assert!(has(&wait(&mut rig, Policy::default().close_ms), Action::DropLink { link: LINK }));
    assert!(has(&rig.turn(Input::LinkClosed { link: LINK }), step(HandOverStep::Replace)));
    assert_resyncs(next(&rig));
}

#[test]
fn usage_counted_before_the_replacement_is_handed_over() {
    let mut rig = Rig::ready(false);
    close(&mut rig);
    rig.turn(Input::UsageCounted { within_ms: 30_000 });
    assert!(has(&rig.turn(Input::LinkClosed { link: LINK }), step(HandOverStep::Replace)));
    assert_eq!(rig.was_encoded(|message| *message == Message::Usage { records: 1 }), 1);
}

#[test]
fn records_before_the_hand_over_are_synced_in_time() {
    let begun = |numbers_up_to| Input::Restored { what: Restored::Begun { numbers_up_to } };
    let mut next = Rig::new(false);
    next.driver.handle(next.now, Input::Started { id: IdSource::Remembered });
    let what = TakenOver::Begun { numbers_up_to: 1, connection: SavedConnection::default(), drops: Drops::default() };
    next.driver.handle(next.now, Input::TakenOver { what });
    next.turn(begun(1));
    assert!(has(&wait(&mut next, SYNC_INTERVAL_MS), Action::SyncJournal));
}

#[test]
fn drops_without_a_link_are_reported_by_the_next_program() {
    let mut rig = Rig::ready(false);
    rig.dispatch(1, 77);
    rig.turn(Input::LinkLost { link: LINK, cause: Loss::Reset });
    rig.turn(Input::LinkClosed { link: LINK });
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::StartFailed { exhausted: false } });
    let is_result = |what: &TakenOver| matches!(what, TakenOver::Message { kind: Kind::Result, .. });
    let given = given(&rig);
    let Some(TakenOver::Message { number, .. }) = given.iter().find(|what| is_result(what)) else {
        panic!("{given:?}");
    };
    rig.driver.ledger.give_up(*number);
    let mut next = next(&rig);
    ms_until_dial(&mut next);
    next.turn(Input::LinkOpened { link: LINK });
    next.receive(ConsoleMessage::Other);
    let is_report =
        |message: &Message| matches!(message, Message::Error(ErrorEvent::Drops(drops)) if drops.results == 1);
    assert_eq!(next.was_encoded(is_report), 1);
}

#[test]
fn closed_of_an_earlier_session_hides_none_that_a_panic_left() {
    let mut rig = Rig::new(false);
    let (session, id, of) = (SessionKey(1), ConsoleId(5), SessionKey(2));
    rig.driver.handle(rig.now, Input::Started { id: IdSource::Remembered });
    let begun = TakenOver::Begun { numbers_up_to: 0, connection: SavedConnection::default(), drops: Drops::default() };
    let left = TakenOver::Session { session, id, at: 0, orphan_in_ms: None, end: None, replay: false };
    for what in [begun, left] {
        rig.driver.handle(rig.now, Input::TakenOver { what });
    }
    for what in [Restored::Begun { numbers_up_to: 4 }, Restored::Closed { number: 4, session: of, id }] {
        rig.driver.handle(rig.now, Input::Restored { what });
    }
    assert!(has(&rig.poll(), Action::ForgetSession { session: of }));
    ms_until_dial(&mut rig);
    rig.turn(Input::LinkOpened { link: LINK });
    assert!(has(&rig.create(3, 5), Action::Log { notice: Notice::Reattached { session } }));
}

#[test]
fn forgotten_instance_is_registered_by_the_next_program() {
    let mut rig = Rig::ready(false);
    rig.turn(Input::CloseReceived { link: LINK, code: 1008, reason: CloseReason::UnknownInstance });
    rig.turn(Input::LinkClosed { link: LINK });
    let mut next = next(&rig);
    let began = next.now;
    let registers = |output: &Output<usize>| matches!(output, Output::Do(Action::Register { .. }));
    while !next.poll().iter().any(registers) {
        next.now = next.driver.next_deadline().expect("it goes on");
        assert!(next.now.ms_since(began) <= Policy::default().unknown_base_ms);
    }
}
