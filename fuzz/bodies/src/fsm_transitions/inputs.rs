//! Chooses the input of a step: by the lower five bits of its byte, and one more byte for its content.
//!
//! A number is the current one or, by the upper two bits of the second byte, one of the three before. Statuses, codes
//! and waits come from lists with every row of the policy and the values next to it.

use super::children::IDS;
use super::{INPUTS_MAX, World};
use draupnir_fsm::driver::{
    AuditId, ClockJump, CloseReason, CommandInput, CommandKey, ConsoleId, ConsoleMessage, Failure, Input, LinkId,
    LogRequest, Loss, NoteId, PING_PAYLOAD_BYTES, PortProbe, PortState, RegistrationAttempt, SessionInput, SessionKey,
    StateKind, StreamKey,
};

const STATUSES: [u16; 16] = [200, 201, 204, 409, 401, 403, 404, 405, 400, 422, 429, 408, 503, 302, 410, 100];

const RETRY_AFTER_MS: [Option<u64>; 4] = [None, Some(0), Some(60_000), Some(u64::MAX)];

const FAILURES: [Failure; 9] = [
    Failure::Resolve,
    Failure::Connect,
    Failure::Proxy,
    Failure::Tls,
    Failure::Protocol,
    Failure::Unauthorized,
    Failure::Status,
    Failure::Local,
    Failure::Refused,
];

const PORT_STATES: [PortState; 3] = [PortState::Open, PortState::Refused, PortState::Unreachable];

const CLOSES: [(u16, CloseReason); 16] = [
    (1000, CloseReason::Other),
    (1001, CloseReason::Other),
    (1001, CloseReason::Replaced),
    (1002, CloseReason::Other),
    (1003, CloseReason::Other),
    (1005, CloseReason::Other),
    (1006, CloseReason::Replaced),
    (1007, CloseReason::Other),
    (1008, CloseReason::Authentication),
    (1008, CloseReason::UnknownInstance),
    (1008, CloseReason::Other),
    (1009, CloseReason::Other),
    (1011, CloseReason::Other),
    (1012, CloseReason::Other),
    (1013, CloseReason::Other),
    (4999, CloseReason::Authentication),
];

const LOSSES: [Loss; 4] = [Loss::Eof, Loss::Reset, Loss::Protocol, Loss::TooBig];

const GAPS_MS: [u64; 4] = [0, 3_000, 3_600_000, u64::MAX];

const TIMEOUTS_MS: [u64; 4] = [0, 1, 60_000, u64::MAX];

/// The second byte that starts a crowd: a value that a fuzzer rarely chooses.
const CROWD: u8 = 0x9E;

/// The size of a crowd: more than the bounds of sessions and commands.
const CROWD_SIZE: u32 = 300;

impl World {
    pub(super) fn choose_input(&mut self, kind: u8, bytes: &mut impl Iterator<Item = u8>) {
        match kind {
            0 => self.turn(),
            1 => self.handle(Input::WriteProgress { bytes: self.now.as_ms() }),
            2 => self.handle(Input::ShutdownRequested),
            3..=6 => self.console_behaves(),
            _ => self.choose_telling_input(kind, bytes.next().unwrap_or(0)),
        }
    }

    fn choose_telling_input(&mut self, kind: u8, says: u8) {
        let in_use = self.in_use();
        let attempt = RegistrationAttempt(older(in_use.registering.map_or(self.latest_attempt.0, |it| it.0), says));
        let link = in_use.live.or(in_use.dialling).or(in_use.closing).unwrap_or(self.latest_link);
        let link = LinkId(older(link.0, says));
        let input = match kind {
            7 | 8 => {
                let retry_after_ms = of(&RETRY_AFTER_MS, says >> 4);
                Input::RegistrationAnswered { attempt, status: of(&STATUSES, says), retry_after_ms }
            }
            9 => Input::RegistrationFailed { attempt, cause: of(&FAILURES, says) },
            10 | 11 => Input::LinkOpened { link },
            12 => {
                Input::DialFailed { link, cause: of(&FAILURES, says), retry_after_ms: of(&RETRY_AFTER_MS, says >> 3) }
            }
            13 => {
                let probe = PortProbe(older(in_use.probing.map_or(self.latest_probe.0, |it| it.0), says));
                Input::PortProbed { probe, found: of(&PORT_STATES, says) }
            }
            14 => Input::Received { link, message: self.message(says) },
            15 => Input::Written { link },
            16 => Input::Pong { link, payload: self.payload(says) },
            17 => Input::Sampled { sample: if says & 1 == 0 { StateKind::Heartbeat } else { StateKind::Metrics } },
            18 | 19 => {
                let (code, reason) = of(&CLOSES, says);
                Input::CloseReceived { link, code, reason }
            }
            20 => Input::LinkLost { link, cause: of(&LOSSES, says) },
            21 | 22 => Input::LinkClosed { link },
            23 => {
                let audit = AuditId(older(self.latest_audit.0, says));
                if says & 1 == 0 { Input::Audited { audit } } else { Input::AuditFailed { audit } }
            }
            24 => return self.print(says),
            25 => {
                let cause = if says & 1 == 0 { ClockJump::Suspend } else { ClockJump::RealTimeStep };
                Input::ClockJumped { cause, gap_ms: of(&GAPS_MS, says >> 1), entropy: u64::from(says) }
            }
            26 => Input::Received { link, message: self.create(says) },
            27 => {
                let Some(session) = choose(&self.sessions, says >> 3) else { return };
                Input::Session { session, what: session_input(says) }
            }
            28 => Input::Received { link, message: self.dispatch(says) },
            29 | 30 => {
                let Some(command) = choose(&self.commands, says >> 3) else { return };
                Input::Command { command, what: command_input(says) }
            }
            _ if says == CROWD || says == CROWD + 1 => return self.crowd(link, says),
            _ if says & 15 == 14 => return self.read_logs(says),
            _ if says & 15 == 15 => Input::PortTaken { note: NoteId(u32::from(says)) },
            _ if says & 7 == 7 => Input::UsageCounted { within_ms: u64::from(says) * 100 },
            _ => Input::Noted { note: NoteId(u32::from(says)), cause: (says & 1 == 0).then_some(u64::from(says >> 4)) },
        };
        self.handle(input);
    }

    /// The console and the network do everything that is requested now.
    pub(super) fn console_behaves(&mut self) {
        let in_use = self.in_use();
        if let Some(attempt) = in_use.registering {
            self.handle(Input::RegistrationAnswered { attempt, status: 201, retry_after_ms: None });
        }
        if let Some(probe) = in_use.probing {
            self.handle(Input::PortProbed { probe, found: PortState::Open });
        }
        if let Some(link) = in_use.closing {
            self.handle(Input::LinkClosed { link });
        }
        if let Some(link) = in_use.dialling {
            self.handle(Input::LinkOpened { link });
        }
        if let Some(link) = in_use.live {
            self.handle(Input::Received { link, message: ConsoleMessage::Other });
            self.handle(Input::Written { link });
            if let Some(payload) = self.newest_ping {
                self.handle(Input::Pong { link, payload });
            }
        }
        self.turn();
    }

    fn next_key(&mut self) -> u32 {
        self.next_key += 1;
        self.next_key
    }

    fn create(&mut self, says: u8) -> ConsoleMessage {
        let session = SessionKey(self.next_key());
        self.sessions.push(session);
        ConsoleMessage::Create { session, id: id(says), cols: 80, rows: 24, allowed: says != 0xFF }
    }

    fn dispatch(&mut self, says: u8) -> ConsoleMessage {
        let command = CommandKey(self.next_key());
        self.commands.push(command);
        let (timeout_ms, bytes) = (of(&TIMEOUTS_MS, says >> 6), usize::from(says) << 12);
        ConsoleMessage::Dispatch {
            command,
            id: id(says),
            timeout_ms,
            bytes,
            streams: says & 1 == 0,
            allowed: says != 0xFF,
        }
    }

    fn message(&mut self, says: u8) -> ConsoleMessage {
        let id = id(says >> 3);
        match says & 7 {
            0 if says >> 3 == 31 => ConsoleMessage::LogSubscribe { request: LogRequest(u32::from(says)) },
            0 if says >> 3 == 30 => ConsoleMessage::LogUnsubscribe { request: LogRequest(u32::from(says)) },
            0 => ConsoleMessage::Other,
            1 => ConsoleMessage::Keys { id },
            2 => ConsoleMessage::Resize { id, cols: 1, rows: 1 },
            3 => ConsoleMessage::Close { id },
            4 => ConsoleMessage::Cancel { id },
            5 => ConsoleMessage::Unusable { note: NoteId(u32::from(says)), cause: u64::from(says >> 5) },
            6 => ConsoleMessage::InvalidCreate { session: SessionKey(self.next_key()), id },
            _ => ConsoleMessage::InvalidDispatch { command: CommandKey(self.next_key()) },
        }
    }

    fn payload(&self, says: u8) -> [u8; PING_PAYLOAD_BYTES] {
        match self.newest_ping {
            Some(payload) if says & 1 == 0 => payload,
            Some(_) | None => [says; PING_PAYLOAD_BYTES],
        }
    }

    /// The reader of logs has more lines, of a hundred bytes each.
    fn read_logs(&mut self, says: u8) {
        let lines = u32::from(says) << 2;
        let held = self.host.held.entry(StreamKey::Logs).or_default();
        held.end += u64::from(lines) * 100;
        let end = held.end;
        self.handle(Input::LogsRead { end, lines });
    }

    /// A source gets more bytes, or drops its oldest ones.
    fn print(&mut self, says: u8) {
        let terminal = choose(&self.sessions, says >> 4).map(StreamKey::Terminal);
        let stdout = choose(&self.commands, says >> 4).map(StreamKey::Stdout);
        let Some(stream) = (if says & 1 == 0 { terminal } else { stdout }) else { return };
        let held = self.host.held.entry(stream).or_default();
        held.end += u64::from(says) << 8;
        if says & 2 != 0 {
            held.start = held.end - (held.end - held.start) / 2;
        }
        let (from, end) = (held.start, held.end);
        self.handle(Input::Output { stream, from, end });
    }

    /// Starts more sessions or commands at once than the bounds allow.
    fn crowd(&mut self, link: LinkId, says: u8) {
        for number in 0..CROWD_SIZE {
            if self.inputs >= INPUTS_MAX {
                return;
            }
            let mut message = if says == CROWD { self.create(0) } else { self.dispatch(0) };
            if let ConsoleMessage::Create { id, .. } = &mut message {
                *id = ConsoleId(u128::from(number));
            }
            self.handle(Input::Received { link, message });
        }
    }
}

fn session_input(says: u8) -> SessionInput {
    match says & 7 {
        0 | 1 => SessionInput::Opened,
        2 => SessionInput::OpenFailed { exit_code: 126 },
        3 | 4 => SessionInput::Exited { code: i32::from(says) },
        5 => SessionInput::EndOfOutput,
        6 => SessionInput::InputRefused { note: NoteId(u32::from(says)) },
        _ => SessionInput::Reaped,
    }
}

fn command_input(says: u8) -> CommandInput {
    match says & 7 {
        0 | 1 => CommandInput::Started,
        2 => CommandInput::StartFailed { exhausted: says & 8 != 0 },
        3 | 4 => CommandInput::Exited { code: i32::from(says) },
        _ => CommandInput::EndOfOutput,
    }
}

fn id(says: u8) -> ConsoleId {
    ConsoleId(u128::from(says) & (IDS - 1))
}

/// An element of a list; 0 is the newest.
fn choose<T: Copy>(list: &[T], choice: u8) -> Option<T> {
    list.iter().rev().nth(usize::from(choice)).or(list.first()).copied()
}

/// The number itself, or one of the three before.
fn older(number: u32, says: u8) -> u32 {
    number.saturating_sub(u32::from(says >> 6))
}

/// An element of a list whose length is a power of two.
fn of<T: Copy>(list: &[T], says: u8) -> T {
    list[usize::from(says) % list.len()]
}
