//! What is sent of logs, when, and how much may be read.

use super::tests::{Rig, has};
use super::*;
use alloc::vec::Vec;

type Outputs = Vec<Output<usize>>;

const REQUEST: LogRequest = LogRequest(1);

const BURST: u64 = LOG_LINES_PER_SECOND as u64 * LOG_BURST_SECONDS;

/// A rig whose console has asked for logs.
fn asked() -> Rig {
    let mut rig = Rig::ready(true);
    let outputs = rig.receive(ConsoleMessage::LogSubscribe { request: REQUEST });
    let audit = Action::Audit { audit: AuditId(1), entry: AuditEntry::LogsSubscribed { request: REQUEST } };
    assert!(has(&outputs, audit) && has(&outputs, Action::FollowLogs { request: REQUEST }), "{outputs:?}");
    assert!(has(&outputs, Action::AllowLogs { up_to_lines: BURST }), "{outputs:?}");
    rig
}

fn read(rig: &mut Rig, end: u64, lines: u32) -> Outputs {
    rig.turn(Input::LogsRead { end, lines })
}

/// The lengths of the messages that were written.
fn texts(outputs: &Outputs) -> Vec<usize> {
    let frames = outputs.iter().flat_map(|output| match output {
        Output::Write { frames, .. } => frames.as_slice(),
        Output::Append { .. } | Output::Do(_) => &[],
    });
    let texts = frames.filter_map(|frame| match frame {
        Frame::Text(bytes) => Some(*bytes),
        Frame::Ping(_) => None,
    });
    texts.collect()
}

fn allowed(outputs: &Outputs) -> Option<u64> {
    outputs.iter().rev().find_map(|output| match output {
        Output::Do(Action::AllowLogs { up_to_lines }) => Some(*up_to_lines),
        Output::Write { .. } | Output::Append { .. } | Output::Do(_) => None,
    })
}

#[test]
fn nothing_is_sent_to_a_console_that_did_not_ask() {
    let mut rig = Rig::ready(false);
    let outputs = read(&mut rig, 1_000, 5);
    rig.now = rig.now.after_ms(1_000);
    assert!(texts(&outputs).is_empty() && texts(&rig.poll()).is_empty());
    let unsubscribed = rig.receive(ConsoleMessage::LogUnsubscribe { request: REQUEST });
    assert!(has(&unsubscribed, Action::ForgetLogRequest { request: REQUEST }));
}

#[test]
fn lines_wait_for_others_but_not_for_long() {
    let mut rig = asked();
    assert!(texts(&read(&mut rig, 1_000, 5)).is_empty());
    rig.now = rig.now.after_ms(LOG_DELAY_MS - 1);
    assert!(texts(&read(&mut rig, 2_000, 5)).is_empty());
    assert_eq!(rig.driver.next_deadline(), Some(rig.now.after_ms(1)));
    rig.now = rig.now.after_ms(1);
    assert_eq!(texts(&rig.poll()), [2_000]);
    // A whole frame waits for nothing.
    rig.turn(Input::Written { link: LinkId(1) });
    let full = 2_000 + FRAME_BYTES_MAX as u64;
    assert!(!texts(&read(&mut rig, full, 5)).is_empty());
}

#[test]
fn quiet_logs_have_no_deadline() {
    let mut rig = asked();
    rig.settle();
    let machine = rig.driver.snapshot().connection.next;
    assert_eq!(rig.driver.next_deadline(), machine);
}

#[test]
fn lines_are_allowed_by_the_rate_and_the_burst() {
    let mut rig = asked();
    let all = u32::try_from(BURST).expect("it fits");
    assert_eq!(allowed(&read(&mut rig, 1_000, all)), None, "all are used up");
    rig.now = rig.now.after_ms(100);
    assert_eq!(allowed(&rig.poll()), Some(BURST + 50));
    rig.now = rig.now.after_ms(100);
    assert_eq!(allowed(&rig.poll()), None, "what is allowed is not used");
    assert_eq!(allowed(&read(&mut rig, 2_000, 50)), Some(BURST + 100));
    // A new link gets no other burst.
    rig.turn(Input::LinkLost { link: LinkId(1), cause: Loss::Reset });
    rig.turn(Input::LinkClosed { link: LinkId(1) });
    let mut bucket = Vec::new();
    rig.driver.subscribe_logs(rig.now, LogRequest(2));
    bucket.extend(rig.poll());
    assert_eq!(allowed(&bucket), Some(50));
    // After a long time the burst is full again, and not more.
    rig.now = rig.now.after_ms(3_600_000);
    assert_eq!(allowed(&read(&mut rig, 100, 50)), Some(50 + BURST - 50));
}

#[test]
fn lost_link_stops_logs_at_what_is_acknowledged() {
    let mut rig = asked();
    read(&mut rig, 1_000, 5);
    rig.settle();
    read(&mut rig, 3_000, 5);
    rig.now = rig.now.after_ms(LOG_DELAY_MS);
    assert_eq!(texts(&rig.poll()), [2_000]);
    let lost = rig.turn(Input::LinkLost { link: LinkId(1), cause: Loss::Reset });
    assert!(has(&lost, Action::StopLogs { acked: 1_000 }), "{lost:?}");
    let later = read(&mut rig, 4_000, 5);
    assert!(later.is_empty(), "what the adapter read before it was stopped: {later:?}");
}

#[test]
fn acknowledged_positions_are_recorded_behind_their_pong() {
    let mut rig = Rig::new(false);
    rig.driver.handle(rig.now, Input::Started { id: IdSource::Remembered });
    rig.turn(Input::Restored { what: Restored::Begun { numbers_up_to: 0 } });
    rig.turn(Input::LinkOpened { link: LinkId(1) });
    rig.receive(ConsoleMessage::LogSubscribe { request: REQUEST });
    rig.turn(Input::Appended { append: AppendId(9) });
    rig.settle();
    let before = read(&mut rig, 1_000, 5);
    assert!(!before.iter().any(|output| matches!(output, Output::Append { .. })));
    rig.now = rig.now.after_ms(LOG_DELAY_MS);
    rig.poll();
    // Its marker and its Pong.
    rig.turn(Input::Written { link: LinkId(1) });
    rig.now = rig.now.after_ms(300);
    let ping = rig.poll().into_iter().find_map(|output| match output {
        Output::Write { frames, .. } => frames.into_iter().find_map(|frame| match frame {
            Frame::Ping(payload) => Some(payload),
            Frame::Text(_) => None,
        }),
        Output::Append { .. } | Output::Do(_) => None,
    });
    let acknowledged = rig.turn(Input::Pong { link: LinkId(1), payload: ping.expect("a marker") });
    let is_record =
        |output: &Output<usize>| matches!(output, Output::Append { record: Record::Logs { up_to: 1_000 }, .. });
    assert!(acknowledged.iter().any(is_record), "{acknowledged:?}");
}

#[test]
fn drain_sends_no_more_lines_and_waits_for_none() {
    let mut rig = asked();
    read(&mut rig, 1_000, 5);
    let drain = rig.turn(Input::ShutdownRequested);
    rig.now = rig.now.after_ms(LOG_DELAY_MS);
    let later = rig.poll();
    assert!(!texts(&drain).contains(&1_000) && !texts(&later).contains(&1_000));
    let late = rig.receive(ConsoleMessage::LogSubscribe { request: LogRequest(2) });
    assert!(has(&late, Action::ForgetLogRequest { request: LogRequest(2) }));
}
