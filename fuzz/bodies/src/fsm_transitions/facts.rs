//! Which fact a step tells: the lower five bits of its byte, and one byte more for what it says.
//!
//! It tells only what could be so: a number is the one in use or, by the upper two bits of the second byte, up to three
//! older. Statuses, codes and waits come from lists that hold every row of the policy and what lies beside it.

use super::children::IDS;
use super::{FACTS_MAX, World};
use draupnir_fsm::fact::{CloseReason, CommandFact, Fact, Failure, Jump, Loss, SessionFact};
use draupnir_fsm::id::{LinkId, RegistrationAttempt};

const STATUSES: [u16; 16] = [200, 201, 204, 409, 401, 403, 404, 405, 400, 422, 429, 408, 503, 302, 410, 100];

const RETRY_AFTER_MS: [Option<u64>; 4] = [None, Some(0), Some(60_000), Some(u64::MAX)];

const FAILURES: [Failure; 8] = [
    Failure::Resolve,
    Failure::Connect,
    Failure::Proxy,
    Failure::Tls,
    Failure::Protocol,
    Failure::Unauthorized,
    Failure::Status,
    Failure::Local,
];

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

/// How large a result may be, in encoded bytes: nothing, what is promised, more than all that is remembered.
const RESULTS_BYTES: [u32; 4] = [0, 8 << 10, 1 << 20, u32::MAX];

/// What the upper bits of a byte are that calls a crowd: not what a fuzzer likes to put anywhere.
const CROWD: u8 = 0x9E >> 1;

impl World {
    pub(super) fn choose_fact(&mut self, kind: u8, bytes: &mut impl Iterator<Item = u8>) {
        match kind {
            0 => self.tell(Fact::Tick),
            1 => self.tell(Fact::TerminalInput),
            2 => self.tell(Fact::ShutdownRequested),
            3..=6 => self.console_behaves(),
            _ => self.choose_telling_fact(kind, bytes.next().unwrap_or(0)),
        }
    }

    fn choose_telling_fact(&mut self, kind: u8, says: u8) {
        let attempt = RegistrationAttempt(older(self.observer.registering().unwrap_or(self.latest_attempt).0, says));
        let link = LinkId(older(self.link_in_use().0, says));
        match kind {
            7 | 8 => {
                let status = of(&STATUSES, says);
                let retry_after_ms = of(&RETRY_AFTER_MS, says >> 4);
                self.tell(Fact::RegistrationAnswered { attempt, status, retry_after_ms });
            }
            9 => self.tell(Fact::RegistrationFailed { attempt, cause: of(&FAILURES, says) }),
            10 | 11 => self.tell(Fact::LinkOpened { link }),
            12 | 13 => {
                let retry_after_ms = of(&RETRY_AFTER_MS, says >> 3);
                self.tell(Fact::DialFailed { link, cause: of(&FAILURES, says), retry_after_ms });
            }
            14 => self.tell(Fact::Greeted { link }),
            15 => self.tell(Fact::PingWritten { link }),
            16 => self.tell(Fact::PongReceived { link, last: says & 1 != 0 }),
            17 => self.tell(Fact::WriteStalled { link }),
            18 | 19 => {
                let (code, reason) = of(&CLOSES, says);
                self.tell(Fact::CloseReceived { link, code, reason });
            }
            20 => self.tell(Fact::LinkLost { link, cause: of(&LOSSES, says) }),
            21 | 22 => self.tell(Fact::LinkClosed { link }),
            23 => self.tell(Fact::DeliverySettled { settled: says & 1 != 0 }),
            24 => self.tell(Fact::RoomForResults { room: says & 1 != 0 }),
            25 => {
                let cause = if says & 1 == 0 { Jump::Suspend } else { Jump::RealTimeStep };
                self.tell(Fact::ClockJumped { cause, gap_ms: of(&GAPS_MS, says >> 1), entropy: u64::from(says) });
            }
            26 => self.open_session(),
            27 => self.choose_session_fact(says),
            28 => self.request(says),
            29 | 30 => self.choose_command_fact(says),
            _ => self.crowd(says),
        }
    }

    /// The number that a fact about a link most likely has.
    fn link_in_use(&self) -> LinkId {
        let observer = &self.observer;
        observer.live().or(observer.dialling()).or(observer.closing()).unwrap_or(self.latest_link)
    }

    /// Whatever is asked of the console or the network now is done.
    pub(super) fn console_behaves(&mut self) {
        if let Some(attempt) = self.observer.registering() {
            self.tell(Fact::RegistrationAnswered { attempt, status: 201, retry_after_ms: None });
        }
        if let Some(link) = self.observer.closing() {
            self.tell(Fact::LinkClosed { link });
        }
        if let Some(link) = self.observer.dialling() {
            self.tell(Fact::LinkOpened { link });
        }
        if let Some(link) = self.observer.live().filter(|_| self.seen.state == "connected.greeting") {
            self.tell(Fact::Greeted { link });
        }
    }

    fn open_session(&mut self) {
        let session = self.children.new_session();
        self.tell(Fact::Session { session, what: SessionFact::Opening });
        self.tell(Fact::Session { session, what: SessionFact::Opened });
    }

    /// Some at once; seldom, since that is slow, as many as the bounds of sessions and commands are about.
    fn crowd(&mut self, says: u8) {
        let many = if says >> 1 == CROWD { 0xFF } else { says >> 1 & 7 };
        for number in 0..many {
            match says & 1 {
                _ if self.facts >= FACTS_MAX => return,
                0 => self.open_session(),
                _ => self.request(number),
            }
        }
    }

    fn choose_session_fact(&mut self, says: u8) {
        let Some(session) = self.children.some_session(says >> 3) else { return };
        let what = match says & 7 {
            0 | 1 => SessionFact::Attached,
            2 => SessionFact::CloseRequested,
            3 | 4 => SessionFact::Exited { code: i32::from(says) },
            5 => SessionFact::EndOfOutput,
            _ => SessionFact::Reaped,
        };
        self.tell(Fact::Session { session, what });
    }

    fn request(&mut self, says: u8) {
        let id_hash = says & (IDS - 1);
        let timeout_ms = of(&TIMEOUTS_MS, says >> 6);
        let command = self.children.new_command();
        self.tell(Fact::Command { command, what: CommandFact::Requested { id_hash: u64::from(id_hash), timeout_ms } });
    }

    fn choose_command_fact(&mut self, says: u8) {
        let Some(command) = self.children.some_command(says >> 3) else { return };
        let what = match says & 7 {
            0 => CommandFact::Started,
            1 => CommandFact::Failed,
            2 => CommandFact::Exited { code: i32::from(says) },
            3 | 4 => CommandFact::EndOfOutput,
            5 | 6 => CommandFact::CancelRequested,
            _ => CommandFact::Answered { bytes: of(&RESULTS_BYTES, says >> 3) },
        };
        self.tell(Fact::Command { command, what });
    }
}

/// The number itself, or one that is up to three older.
fn older(number: u32, says: u8) -> u32 {
    number.saturating_sub(u32::from(says >> 6))
}

/// One of a list whose length is a power of two.
fn of<T: Copy>(list: &[T], says: u8) -> T {
    list[usize::from(says) % list.len()]
}
