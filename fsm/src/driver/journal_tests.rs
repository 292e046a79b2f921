//! What waits for a record, what is recorded when, and what follows from what an earlier process left.

use super::tests::{Rig, has};
use super::*;
use crate::delivery::Kind;
use alloc::vec::Vec;

type Outputs = Vec<Output<usize>>;

const START: Action = Action::StartCommand { command: CommandKey(1) };

/// A rig whose link is ready and which keeps a journal that has answered everything so far.
fn ready(audited: bool) -> Rig {
    let mut rig = Rig::new(audited);
    rig.driver.handle(rig.now, Input::Started { id: IdSource::Remembered });
    rig.turn(Input::Restored { what: Restored::Begun { numbers_up_to: 0 } });
    rig.turn(Input::LinkOpened { link: LinkId(1) });
    let greeted = rig.receive(ConsoleMessage::Other);
    report(&mut rig, &greeted);
    rig.settle();
    rig
}

fn records(outputs: &Outputs) -> Vec<(AppendId, Record)> {
    let appends = outputs.iter().filter_map(|output| match output {
        Output::Append { append, record, .. } => Some((*append, *record)),
        Output::Write { .. } | Output::Do(_) => None,
    });
    appends.collect()
}

/// Reports the records among these outputs as written.
fn report(rig: &mut Rig, outputs: &Outputs) -> Outputs {
    records(outputs).last().map_or_else(Vec::new, |(append, _)| rig.turn(Input::Appended { append: *append }))
}

fn texts(outputs: &Outputs) -> usize {
    let frames = outputs.iter().map(|output| match output {
        Output::Write { frames, .. } => frames.iter().filter(|frame| matches!(frame, Frame::Text(_))).count(),
        Output::Append { .. } | Output::Do(_) => 0,
    });
    frames.sum()
}

/// Starts command 1, whose id is 77, with all its records written.
fn start(rig: &mut Rig) {
    let dispatched = rig.dispatch(1, 77);
    report(rig, &dispatched);
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Started });
}

fn end(rig: &mut Rig) -> Outputs {
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::EndOfOutput });
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Exited { code: 0 } })
}

#[test]
fn command_starts_after_its_record_is_written() {
    let mut rig = ready(false);
    let outputs = rig.dispatch(1, 77);
    let accepted = Record::Accepted { command: CommandKey(1), id: ConsoleId(77) };
    assert_eq!(records(&outputs).iter().map(|(_, record)| *record).collect::<Vec<_>>(), [accepted]);
    assert!(!has(&outputs, START));
    assert!(has(&report(&mut rig, &outputs), START));
    let started = rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Started });
    assert!(matches!(records(&started)[..], [(_, Record::Started { .. })]), "{started:?}");
}

#[test]
fn both_records_of_a_start_leave_in_one_turn() {
    let mut rig = ready(true);
    let outputs = rig.dispatch(1, 77);
    let audit = AuditId(1);
    assert!(has(&outputs, Action::Audit { audit, entry: AuditEntry::CommandStarted { command: CommandKey(1) } }));
    let (append, _) = records(&outputs)[0];
    assert!(!has(&rig.turn(Input::Appended { append }), START));
    assert!(has(&rig.turn(Input::Audited { audit }), START));
}

#[test]
fn session_opens_after_its_record_is_written() {
    let mut rig = ready(false);
    let outputs = rig.create(1, 5);
    let open = Action::OpenSession { session: SessionKey(1), cols: 80, rows: 24 };
    assert!(!has(&outputs, open));
    assert!(has(&report(&mut rig, &outputs), open));
}

#[test]
fn session_closed_before_its_record_is_written_never_opens() {
    let mut rig = ready(false);
    let outputs = rig.create(1, 5);
    rig.receive(ConsoleMessage::Close { id: ConsoleId(5) });
    let closed = Message::Unopened { session: SessionKey(1), refusal: SessionRefusal::Closed };
    assert_eq!(rig.was_encoded(|message| *message == closed), 1);
    assert!(!has(&report(&mut rig, &outputs), Action::OpenSession { session: SessionKey(1), cols: 80, rows: 24 }));
}

#[test]
fn result_is_sent_after_its_record_and_done_after_its_pong() {
    let mut rig = ready(false);
    start(&mut rig);
    let ended = end(&mut rig);
    let message =
        Record::Message { number: 2, kind: Kind::Result, of: Some(ConsoleId(77)), command: Some(CommandKey(1)) };
    let written = records(&ended);
    assert_eq!(written.last().map(|(_, record)| *record), Some(message), "{ended:?}");
    assert_eq!(texts(&ended), 0);
    let sent = report(&mut rig, &ended);
    assert_eq!(texts(&sent), 1, "{sent:?}");
    rig.turn(Input::Written { link: LinkId(1) });
    rig.now = rig.now.after_ms(300);
    let ping = tests::pings_of(&rig.poll()).pop().expect("a marker");
    rig.turn(Input::Written { link: LinkId(1) });
    let done = rig.turn(Input::Pong { link: LinkId(1), payload: ping });
    assert_eq!(records(&done).iter().map(|(_, record)| *record).collect::<Vec<_>>(), [Record::Done { number: 2 }]);
}

#[test]
fn cut_result_is_recorded_with_its_id() {
    let mut rig = ready(false);
    rig.host.result_bytes = Some(2 * CUT_RESULT_BYTES);
    start(&mut rig);
    let ended = end(&mut rig);
    let full = *records(&ended).last().expect("the result is recorded");
    // The disk is full: the shorter form may be all that a new process finds.
    rig.turn(Input::AppendFailed { append: full.0 });
    let mut shorter = Vec::new();
    for link in 1..=3 {
        let rejected = Input::CloseReceived { link: LinkId(link), code: 1009, reason: CloseReason::Other };
        shorter = records(&rig.turn(rejected));
        rig.turn(Input::LinkClosed { link: LinkId(link) });
        rig.now = rig.driver.next_deadline().expect("it dials again").after_ms(60_000);
        rig.poll();
        rig.turn(Input::LinkOpened { link: LinkId(link + 1) });
        rig.turn(Input::Received { link: LinkId(link + 1), message: ConsoleMessage::Other });
    }
    let message = |(_, record): &(AppendId, Record)| matches!(record, Record::Message { kind: Kind::Result, .. });
    assert_eq!(shorter.iter().find(|it| message(it)).map(|it| it.1), Some(full.1), "{shorter:?}");
}

#[test]
fn failed_record_stops_nothing() {
    let mut rig = ready(false);
    let (append, _) = records(&rig.dispatch(1, 77))[0];
    assert!(has(&rig.turn(Input::AppendFailed { append }), START));
}

#[test]
fn silent_journal_is_waited_for_once() {
    let mut rig = ready(false);
    let began = rig.now.as_ms();
    let first = rig.dispatch(1, 77);
    rig.driver.handle(Time::from_ms(began + 2_000), Input::WriteProgress { bytes: 1 });
    assert!(!has(&rig.at(began + APPEND_TIMEOUT_MS - 1), START));
    assert!(has(&rig.at(began + APPEND_TIMEOUT_MS), START));
    let second = rig.dispatch(2, 78);
    assert!(has(&second, Action::StartCommand { command: CommandKey(2) }), "it is not waited for again");
    // It answers: what comes next waits again.
    report(&mut rig, &first);
    assert!(!has(&rig.dispatch(3, 79), Action::StartCommand { command: CommandKey(3) }));
}

#[test]
fn records_are_synced_within_a_second_at_most_once_a_second() {
    let mut rig = ready(false);
    let quiet = rig.now.as_ms() + 3_000;
    rig.at(quiet - 2_000);
    rig.at(quiet);
    let mut syncs = Vec::new();
    for ms in quiet..quiet + 4_000 {
        // A record each 100 ms, for two seconds; a turn each millisecond.
        rig.now = Time::from_ms(ms);
        let at = u32::try_from(ms - quiet).expect("small");
        let outputs = if at % 100 == 0 && at < 2_000 { rig.create(1_000 + at, at.into()) } else { rig.poll() };
        if has(&outputs, Action::SyncJournal) {
            syncs.push(ms - quiet);
        }
    }
    assert_eq!(syncs, [500, 1_500, 2_500], "{syncs:?}");
}

#[test]
fn sync_wakes_an_idle_loop_within_a_second_and_not_again() {
    let mut rig = ready(false);
    let now = rig.now.as_ms() + 3_000;
    rig.at(now - 2_000);
    rig.at(now);
    rig.create(1, 5);
    assert_eq!(rig.driver.next_deadline(), Some(Time::from_ms(now + 900)));
    assert!(has(&rig.at(now + 900), Action::SyncJournal));
    // What is left is the time-out of the record, which was not reported.
    assert!(rig.driver.next_deadline() >= Some(Time::from_ms(now + APPEND_TIMEOUT_MS)));
}

#[test]
fn interrupted_command_is_answered_once_and_never_runs() {
    let mut rig = ready(false);
    let what = Restored::Command { command: CommandKey(1), id: ConsoleId(77), remains: Remains::Certain };
    let outputs = rig.turn(Input::Restored { what });
    assert!(has(&outputs, Action::KillRemains { command: CommandKey(1) }));
    let end = CommandEnd::Interrupted;
    let result = Message::Result { command: CommandKey(1), end, exit_code: 137 };
    assert_eq!(rig.was_encoded(|message| *message == result), 1);
    assert_eq!(texts(&outputs), 0, "its result is recorded first");
    assert_eq!(texts(&report(&mut rig, &outputs)), 1);
    let again = rig.dispatch(2, 77);
    assert!(has(&again, Action::Log { notice: Notice::ResultRepeated { of: CommandKey(1) } }), "{again:?}");
    assert!(!has(&again, Action::StartCommand { command: CommandKey(2) }));
}

#[test]
fn doubtful_remains_are_left_alone() {
    let mut rig = ready(false);
    let what = Restored::Command { command: CommandKey(1), id: ConsoleId(77), remains: Remains::Doubtful };
    let outputs = rig.turn(Input::Restored { what });
    assert!(!has(&outputs, Action::KillRemains { command: CommandKey(1) }));
    let notice = Notice::CommandInterrupted { command: CommandKey(1), remains: Remains::Doubtful };
    assert!(has(&outputs, Action::Log { notice }));
}

#[test]
fn restored_result_is_sent_and_answers_repeats() {
    let mut rig = Rig::new(false);
    rig.driver.handle(rig.now, Input::Started { id: IdSource::Remembered });
    rig.driver.handle(rig.now, Input::Restored { what: Restored::Begun { numbers_up_to: 41 } });
    let what = Restored::Result { number: 41, command: CommandKey(1), id: ConsoleId(77) };
    rig.driver.handle(rig.now, Input::Restored { what });
    rig.driver.handle(rig.now, Input::Restored { what: Restored::Ended { id: ConsoleId(78) } });
    let outputs = rig.poll();
    assert!(records(&outputs).is_empty(), "it is recorded already: {outputs:?}");
    rig.turn(Input::LinkOpened { link: LinkId(1) });
    let greeted = rig.receive(ConsoleMessage::Other);
    assert_eq!(rig.was_encoded(|message| *message == Message::Restored { number: 41 }), 1);
    assert!(texts(&greeted) >= 1, "{greeted:?}");
    assert!(has(&rig.dispatch(2, 77), Action::Log { notice: Notice::ResultRepeated { of: CommandKey(1) } }));
    rig.dispatch(3, 78);
    let refusal = CommandRefusal::Refused(Refusal::Forgotten);
    assert_eq!(rig.was_encoded(|it| *it == Message::Unrun { command: CommandKey(3), refusal }), 1);
}

#[test]
fn restored_sessions_are_closed_and_their_ids_free_again() {
    let mut rig = ready(false);
    let what = Restored::Session { session: SessionKey(1), id: ConsoleId(5) };
    let outputs = rig.turn(Input::Restored { what });
    let closed = Message::Closed { session: SessionKey(1), end: SessionEnd::Interrupted, exit_code: 137 };
    assert_eq!(rig.was_encoded(|message| *message == closed), 1);
    report(&mut rig, &outputs);
    rig.settle();
    let created = rig.create(2, 5);
    let opened = report(&mut rig, &created);
    assert!(has(&opened, Action::OpenSession { session: SessionKey(2), cols: 80, rows: 24 }));
}

#[test]
fn withdrawn_command_may_come_again() {
    let mut rig = ready(false);
    for command in 1..=17 {
        let outputs = rig.dispatch(command, command.into());
        report(&mut rig, &outputs);
    }
    let outputs = rig.turn(Input::ShutdownRequested);
    let withdrawn = Record::Withdrawn { id: ConsoleId(17) };
    assert!(records(&outputs).iter().any(|(_, record)| *record == withdrawn), "{outputs:?}");
}

#[test]
fn drain_does_not_wait_for_a_silent_journal() {
    let mut rig = ready(false);
    start(&mut rig);
    let ended = end(&mut rig);
    assert_eq!(texts(&ended), 0);
    let began = rig.now.as_ms();
    rig.turn(Input::ShutdownRequested);
    assert!(texts(&rig.at(began + APPEND_TIMEOUT_DRAINING_MS)) >= 1);
}

#[test]
fn long_ids_survive_a_recording() {
    for id in [ConsoleId(7), ConsoleId(u64::MAX.into()), ConsoleId(u128::MAX - 1), ConsoleId(1 << 64)] {
        let text = serde_json::to_string(&id).expect("it can be written");
        assert_eq!(serde_json::from_str::<ConsoleId>(&text).expect("it can be read"), id, "{text}");
    }
}

#[test]
fn record_is_recorded_with_the_length_of_its_message() {
    let record = Record::Message { number: 3, kind: Kind::Result, of: None, command: None };
    let output = Output::Append { append: AppendId(4), record, body: Some(300) };
    let text = serde_json::to_string(&output).expect("it can be written");
    assert_eq!(text, r#"{"append":4,"record":{"message":{"number":3,"kind":"result"}},"body":300}"#);
}
