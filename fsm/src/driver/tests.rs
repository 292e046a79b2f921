//! Rules of the driver that one sequence shows; combinations are the simulation's, real sequences `tests/scenarios`.

use super::*;
use crate::delivery::ping::Payload;
use alloc::vec::Vec;

/// Encodes everything as 300 bytes, but a result as long as it is set, and holds nothing.
#[derive(Default)]
pub(super) struct Host {
    encoded: Vec<Message>,
    pub(super) result_bytes: Option<usize>,
}

impl Encode for Host {
    type Body = usize;

    fn encode(&mut self, message: &Message) -> Option<usize> {
        self.encoded.push(*message);
        let of_its_own = self.result_bytes.filter(|_| matches!(message, Message::Result { .. }));
        Some(of_its_own.unwrap_or(300))
    }

    fn shorten(&mut self, body: &usize, bytes_max: usize) -> Option<usize> {
        Some((*body).min(bytes_max))
    }
}

impl ByteSource for Host {
    /// Holds lines of logs alone.
    fn cut(&mut self, stream: StreamKey, chunk: Chunk) -> (usize, Option<usize>) {
        match (stream, chunk) {
            (StreamKey::Logs, Chunk::Bytes { max, .. }) => (max, Some(max)),
            (_, Chunk::Bytes { .. } | Chunk::Snapshot { .. }) => (0, None),
        }
    }
}

pub(super) struct Rig {
    pub(super) driver: Driver<usize>,
    pub(super) host: Host,
    pub(super) now: Time,
}

impl Rig {
    pub(super) fn new(audited: bool) -> Self {
        let budget = Rc::new(Budget::new());
        let driver = Driver::new(Policy::default(), Schedule::default(), 1, audited, budget);
        Self { driver, host: Host::default(), now: Time::START }
    }

    /// One whose link is ready, with nothing left to do and nothing unacknowledged.
    pub(super) fn ready(audited: bool) -> Self {
        let mut rig = Self::new(audited);
        rig.turn(Input::Started { id: IdSource::Remembered });
        rig.turn(Input::LinkOpened { link: LinkId(1) });
        rig.receive(ConsoleMessage::Other);
        rig.settle();
        rig
    }

    pub(super) fn turn(&mut self, input: Input) -> Vec<Output<usize>> {
        self.driver.handle(self.now, input);
        self.poll()
    }

    pub(super) fn receive(&mut self, message: ConsoleMessage) -> Vec<Output<usize>> {
        self.turn(Input::Received { link: LinkId(1), message })
    }

    pub(super) fn poll(&mut self) -> Vec<Output<usize>> {
        core::iter::from_fn(|| self.driver.poll(self.now, &mut self.host)).collect()
    }

    pub(super) fn at(&mut self, ms: u64) -> Vec<Output<usize>> {
        self.now = Time::from_ms(ms);
        self.poll()
    }

    /// Everything written is acknowledged.
    pub(super) fn settle(&mut self) {
        self.now = self.now.after_ms(300);
        let mut pings = pings_of(&self.poll());
        for _ in 0..4 {
            pings.extend(pings_of(&self.turn(Input::Written { link: LinkId(1) })));
            for payload in core::mem::take(&mut pings) {
                pings.extend(pings_of(&self.turn(Input::Pong { link: LinkId(1), payload })));
            }
            self.now = self.now.after_ms(300);
            pings.extend(pings_of(&self.poll()));
        }
        assert_eq!(self.driver.snapshot().messages, 0);
    }

    pub(super) fn create(&mut self, session: u32, id: u64) -> Vec<Output<usize>> {
        let (session, id) = (SessionKey(session), ConsoleId(id.into()));
        self.receive(ConsoleMessage::Create { session, id, cols: 80, rows: 24, allowed: true })
    }

    pub(super) fn dispatch(&mut self, command: u32, id: u64) -> Vec<Output<usize>> {
        let (command, id) = (CommandKey(command), ConsoleId(id.into()));
        let dispatch =
            ConsoleMessage::Dispatch { command, id, timeout_ms: 0, bytes: 100, streams: false, allowed: true };
        self.receive(dispatch)
    }

    pub(super) fn was_encoded(&self, wanted: impl Fn(&Message) -> bool) -> usize {
        self.host.encoded.iter().filter(|message| wanted(message)).count()
    }
}

pub(super) fn pings_of(outputs: &[Output<usize>]) -> Vec<Payload> {
    let mut pings = Vec::new();
    for output in outputs {
        if let Output::Write { frames, .. } = output {
            pings.extend(frames.iter().filter_map(|frame| match frame {
                Frame::Ping(payload) => Some(*payload),
                Frame::Text(_) => None,
            }));
        }
    }
    pings
}

pub(super) fn has(outputs: &[Output<usize>], wanted: Action) -> bool {
    outputs.contains(&Output::Do(wanted))
}

fn drops_link(outputs: &[Output<usize>]) -> bool {
    has(outputs, Action::DropLink { link: LinkId(1) })
}

#[test]
fn drain_closes_only_after_its_last_event_is_acknowledged() {
    let mut rig = Rig::ready(false);
    let outputs = rig.turn(Input::ShutdownRequested);
    let is_close = |output: &Output<usize>| matches!(output, Output::Do(Action::CloseLink { code: 1000, .. }));
    assert!(!outputs.iter().any(is_close), "{outputs:?}");
    let marker = pings_of(&outputs).pop().expect("a marker follows the event at once");
    rig.turn(Input::Written { link: LinkId(1) });
    assert!(rig.turn(Input::Pong { link: LinkId(1), payload: marker }).iter().any(is_close));
}

#[test]
fn dispatch_is_accepted_repeated_or_refused() {
    let mut rig = Rig::ready(false);
    assert!(has(&rig.dispatch(1, 77), Action::StartCommand { command: CommandKey(1) }));
    let again = rig.dispatch(2, 77);
    assert!(has(&again, Action::Log { notice: Notice::DuplicateDispatch { of: CommandKey(1) } }));
    assert!(has(&again, Action::ForgetCommand { command: CommandKey(2) }));
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Started });
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::EndOfOutput });
    rig.turn(Input::Command { command: CommandKey(1), what: CommandInput::Exited { code: 0 } });
    assert_eq!(rig.was_encoded(|message| matches!(message, Message::Result { .. })), 1);
    rig.settle();
    let repeat = rig.dispatch(3, 77);
    assert!(has(&repeat, Action::Log { notice: Notice::ResultRepeated { of: CommandKey(1) } }));
    assert!(repeat.iter().any(|output| matches!(output, Output::Write { .. })), "{repeat:?}");
    assert_eq!(rig.was_encoded(|message| matches!(message, Message::Result { .. })), 1, "it is kept");
    rig.turn(Input::ShutdownRequested);
    rig.dispatch(4, 78);
    let refusal = CommandRefusal::Refused(Refusal::Draining);
    assert_eq!(rig.was_encoded(|it| *it == Message::Unrun { command: CommandKey(4), refusal }), 1);
}

#[test]
fn pong_timeout_starts_when_the_ping_is_written() {
    let mut rig = Rig::ready(false);
    let first = pings_of(&rig.at(12_000)).pop().expect("a keep-alive Ping is due");
    rig.now = Time::from_ms(13_000);
    rig.turn(Input::Written { link: LinkId(1) });
    let second = rig.at(22_000);
    assert!(!pings_of(&second).is_empty());
    // The second waits behind a long message when the Pong of the first arrives.
    rig.now = Time::from_ms(22_500);
    rig.turn(Input::Pong { link: LinkId(1), payload: first });
    rig.now = Time::from_ms(31_000);
    rig.driver.handle(rig.now, Input::WriteProgress { bytes: 1 });
    assert!(!drops_link(&rig.poll()), "nothing that was written is unanswered");
    rig.turn(Input::Written { link: LinkId(1) });
    assert!(!drops_link(&rig.at(40_999)));
    assert!(drops_link(&rig.at(41_000)));
}

#[test]
fn create_for_a_live_id_attaches_again() {
    let mut rig = Rig::ready(false);
    assert!(has(&rig.create(1, 5), Action::OpenSession { session: SessionKey(1), cols: 80, rows: 24 }));
    rig.turn(Input::Session { session: SessionKey(1), what: SessionInput::Opened });
    let outputs = rig.create(2, 5);
    assert!(has(&outputs, Action::ResizeSession { session: SessionKey(1), cols: 80, rows: 24 }));
    assert!(!has(&outputs, Action::RedrawSession { session: SessionKey(1) }), "the snapshot is exact");
    assert!(has(&outputs, Action::ForgetSession { session: SessionKey(2) }));
}

#[test]
fn attaches_make_one_snapshot_a_turn() {
    let mut rig = Rig::ready(false);
    for session in 1..=3 {
        rig.create(session, u64::from(session));
        rig.turn(Input::Session { session: SessionKey(session), what: SessionInput::Opened });
    }
    rig.turn(Input::Output { stream: StreamKey::Terminal(SessionKey(2)), from: 0, end: 100 });
    for number in 1..=3 {
        let (session, id) = (SessionKey(10 + number), ConsoleId(number.into()));
        let message = ConsoleMessage::Create { session, id, cols: 80, rows: 24, allowed: true };
        rig.driver.handle(rig.now, Input::Received { link: LinkId(1), message });
    }
    let resized = |outputs: &[Output<usize>]| {
        outputs.iter().filter(|output| matches!(output, Output::Do(Action::ResizeSession { .. }))).count()
    };
    for _ in 0..3 {
        let outputs = rig.poll();
        assert_eq!(resized(&outputs), 1, "{outputs:?}");
    }
    assert_eq!(resized(&rig.poll()), 0);
}

#[test]
fn quiet_session_keeps_its_screen_once() {
    let mut rig = Rig::ready(false);
    rig.create(1, 5);
    let session = SessionKey(1);
    rig.turn(Input::Session { session, what: SessionInput::Opened });
    let kept = |outputs: &[Output<usize>]| has(outputs, Action::KeepScreen { session });
    let at = rig.now;
    rig.turn(Input::Output { stream: StreamKey::Terminal(session), from: 0, end: KEEP_SCREEN_BYTES - 1 });
    assert!(!kept(&rig.at(at.as_ms() + QUIET_MS)), "less than half a ring");
    rig.turn(Input::Output { stream: StreamKey::Terminal(session), from: 0, end: KEEP_SCREEN_BYTES });
    let at = rig.now.as_ms();
    assert!(!kept(&rig.at(at + QUIET_MS - 1)));
    rig.turn(Input::Output { stream: StreamKey::Terminal(session), from: 0, end: KEEP_SCREEN_BYTES + 1 });
    assert!(!kept(&rig.at(at + QUIET_MS)), "it printed meanwhile");
    assert!(kept(&rig.at(at + 2 * QUIET_MS - 1)));
    assert!(!kept(&rig.at(at + 9 * QUIET_MS)));
}

#[test]
fn create_behind_a_close_is_refused_and_types_nowhere() {
    let mut rig = Rig::ready(false);
    rig.create(1, 5);
    rig.turn(Input::Session { session: SessionKey(1), what: SessionInput::Opened });
    rig.receive(ConsoleMessage::Close { id: ConsoleId(5) });
    rig.create(2, 5);
    let refusal = SessionRefusal::Ending;
    assert_eq!(rig.was_encoded(|it| *it == Message::Unopened { session: SessionKey(2), refusal }), 1);
    let typed = rig.receive(ConsoleMessage::Keys { id: ConsoleId(5) });
    assert!(has(&typed, Action::TakeInput { session: None }));
}

#[test]
fn session_over_the_limit_is_refused() {
    let mut rig = Rig::ready(false);
    let limit = u32::try_from(SESSIONS_MAX).expect("small");
    for session in 1..=limit {
        assert!(has(
            &rig.create(session, u64::from(session)),
            Action::OpenSession { session: SessionKey(session), cols: 80, rows: 24 }
        ));
    }
    rig.create(limit + 1, 1_000);
    let refusal = SessionRefusal::Busy;
    assert_eq!(rig.was_encoded(|it| *it == Message::Unopened { session: SessionKey(limit + 1), refusal }), 1);
}

#[test]
fn audited_command_starts_after_its_line_is_written() {
    let mut rig = Rig::ready(true);
    let outputs = rig.dispatch(1, 77);
    let entry = AuditEntry::CommandStarted { command: CommandKey(1) };
    let audit = AuditId(1);
    assert!(has(&outputs, Action::Audit { audit, entry }), "{outputs:?}");
    let start = Action::StartCommand { command: CommandKey(1) };
    assert!(!has(&outputs, start));
    assert!(has(&rig.turn(Input::Audited { audit }), start));
}

#[test]
fn audit_line_that_never_comes_refuses_after_its_timeout() {
    let mut rig = Rig::ready(true);
    let began = rig.now;
    rig.dispatch(1, 77);
    rig.create(1, 5);
    rig.at(began.as_ms() + AUDIT_TIMEOUT_MS - 1);
    let is_refusal = |message: &Message| {
        matches!(
            message,
            Message::Unrun { refusal: CommandRefusal::AuditUnavailable, .. }
                | Message::Unopened { refusal: SessionRefusal::AuditUnavailable, .. }
        )
    };
    assert_eq!(rig.was_encoded(is_refusal), 0);
    rig.at(began.as_ms() + AUDIT_TIMEOUT_MS);
    assert_eq!(rig.was_encoded(is_refusal), 2);
    // A line that is written too late starts nothing.
    let late = rig.turn(Input::Audited { audit: AuditId(1) });
    assert!(!has(&late, Action::StartCommand { command: CommandKey(1) }), "{late:?}");
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Error(ErrorEvent::AuditUnavailable))), 1, "once a minute");
}

#[test]
fn command_cancelled_in_the_turn_of_its_audit_starts_nothing() {
    let mut rig = Rig::ready(true);
    rig.dispatch(1, 77);
    let cancel = ConsoleMessage::Cancel { id: ConsoleId(77) };
    rig.driver.handle(rig.now, Input::Received { link: LinkId(1), message: cancel });
    let outputs = rig.turn(Input::Audited { audit: AuditId(1) });
    assert!(!has(&outputs, Action::StartCommand { command: CommandKey(1) }), "{outputs:?}");
    assert_eq!(rig.was_encoded(|message| matches!(message, Message::Result { .. })), 1);
}

#[test]
fn message_of_a_dead_link_has_no_effect() {
    let mut rig = Rig::ready(false);
    let message = ConsoleMessage::Dispatch {
        command: CommandKey(1),
        id: ConsoleId(1),
        timeout_ms: 0,
        bytes: 1,
        streams: false,
        allowed: true,
    };
    let outputs = rig.turn(Input::Received { link: LinkId(7), message });
    assert_eq!(outputs, [Output::Do(Action::ForgetCommand { command: CommandKey(1) })]);
}

#[test]
fn usage_waits_for_its_interval_and_goes_together() {
    let mut rig = Rig::ready(false);
    let start = rig.now;
    let counted = Input::UsageCounted { within_ms: 30_000 };
    rig.turn(counted);
    rig.now = start.after_ms(10_000);
    rig.turn(counted);
    rig.now = start.after_ms(29_999);
    rig.poll();
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Usage { .. })), 0);
    assert!(rig.driver.next_deadline().is_some_and(|due| due <= start.after_ms(30_000)));
    rig.now = start.after_ms(30_000);
    rig.poll();
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Usage { records: 2 })), 1);
    rig.now = start.after_ms(90_000);
    rig.poll();
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Usage { .. })), 1, "nothing waits any more");
}

#[test]
fn taken_port_is_reported_once_and_tried_again() {
    let mut rig = Rig::ready(false);
    let is_listen = |output: &Output<usize>| matches!(output, Output::Do(Action::Listen));
    for note in 0..3 {
        let start = rig.now;
        let taken = rig.turn(Input::PortTaken { note: NoteId(note) });
        assert!(!taken.iter().any(is_listen));
        assert_eq!(taken.contains(&Output::Do(Action::DropNote { note: NoteId(note) })), note > 0);
        rig.now = start.after_ms(LISTEN_RETRY_MS - 1);
        assert!(!rig.poll().iter().any(is_listen));
        assert!(rig.driver.next_deadline().is_some_and(|due| due <= start.after_ms(LISTEN_RETRY_MS)));
        rig.now = start.after_ms(LISTEN_RETRY_MS);
        assert_eq!(rig.poll().iter().filter(|output| is_listen(output)).count(), 1);
    }
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Error(ErrorEvent::Note(NoteId(0))))), 1);
    rig.turn(Input::PortTaken { note: NoteId(3) });
    rig.turn(Input::ShutdownRequested);
    rig.now = rig.now.after_ms(LISTEN_RETRY_MS);
    assert!(!rig.poll().iter().any(is_listen), "an agent that stops listens no more");
}

#[test]
fn full_batch_and_shutdown_send_usage_at_once() {
    let mut rig = Rig::ready(false);
    let counted = Input::UsageCounted { within_ms: 86_400_000 };
    (0..USAGE_RECORDS_MAX + 3).for_each(|_| drop(rig.turn(counted)));
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Usage { records: USAGE_RECORDS_MAX })), 1);
    rig.turn(Input::ShutdownRequested);
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Usage { records: 3 })), 1);
    rig.turn(counted);
    assert_eq!(rig.was_encoded(|it| matches!(it, Message::Usage { records: 1 })), 1, "a drain does not wait");
}

/// The longest silence of a loop without a link: the key is refused, and dials are minutes apart.
#[test]
fn hour_without_a_console_restarts_nothing() {
    const WATCHDOG_MS: u64 = 20_000;
    const HOUR_MS: u64 = 3_600_000;
    let mut rig = Rig::new(false);
    let mut notifier = ServiceNotifier::new(Some(WATCHDOG_MS));
    let mut outputs = rig.turn(Input::Started { id: IdSource::Remembered });
    let (mut signed_at, mut dials, mut is_ready) = (Time::START, 0, false);
    while rig.now.as_ms() < HOUR_MS {
        if let Some(notice) = notifier.poll(rig.now, rig.driver.link_phase()) {
            if notice.watchdog {
                assert!(rig.now.ms_since(signed_at) <= WATCHDOG_MS / 5 * 3, "silent until {}", rig.now);
                signed_at = rig.now;
            }
            is_ready |= notice.ready;
            notifier.sent(rig.now, notice);
        }
        for output in core::mem::take(&mut outputs) {
            if let Output::Do(Action::Dial { link }) = output {
                dials += 1;
                let cause = Failure::Unauthorized;
                outputs.extend(rig.turn(Input::DialFailed { link, cause, retry_after_ms: None }));
            }
        }
        let deadlines = rig.driver.next_deadline().into_iter().chain(notifier.next_deadline());
        rig.now = deadlines.min().expect("it runs on").max(rig.now);
        outputs.extend(rig.poll());
    }
    assert!(is_ready && dials > 4 && !rig.driver.is_stopped(), "{dials} dials");
    let health = rig.driver.health(rig.now);
    assert_eq!((health.phase, health.online_changed_at), (LinkPhase::Offline, Time::START));
}

#[test]
fn health_follows_the_link() {
    let mut rig = Rig::ready(false);
    let health = rig.driver.health(rig.now);
    assert_eq!((health.phase, health.online_changed_at), (LinkPhase::Online, Time::START));
    assert_eq!((health.heartbeat_at, health.reconnects), (None, 0));
    let sampled_at = rig.now;
    rig.turn(Input::Sampled { sample: StateKind::Heartbeat });
    assert_eq!(rig.driver.health(rig.now).heartbeat_at, Some(sampled_at));
    rig.settle();
    let round_trip_ms = rig.driver.health(rig.now).round_trip_ms;
    assert!(round_trip_ms.is_some(), "its Pings are answered");
    let lost_at = rig.now;
    rig.turn(Input::LinkLost { link: LinkId(1), cause: Loss::Reset });
    rig.turn(Input::Sampled { sample: StateKind::Heartbeat });
    let health = rig.driver.health(rig.now);
    assert_eq!((health.phase, health.online_changed_at), (LinkPhase::Offline, lost_at));
    assert_eq!((health.reconnects, health.reconnects_last_hour), (1, [(Disconnect::Lost, 1)].to_vec()));
    assert_eq!((health.snapshot.connection.state, health.state_since), ("connecting.waiting", lost_at));
    assert_eq!(health.heartbeat_at, Some(sampled_at), "none is sent without a link");
    rig.turn(Input::ShutdownRequested);
    assert_eq!(rig.driver.link_phase(), LinkPhase::Draining);
}
