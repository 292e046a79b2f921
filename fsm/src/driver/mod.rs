//! The driver: everything that decides, behind one way in and one way out.
//!
//! The agent, the simulation, the replay and the fuzz targets run this same object, so that what ships is what is
//! tested. It owns the connection's machine, the delivery ledger, the lifecycles of sessions and commands, admission,
//! repeats, error-rate limits, batches and windows, and which of the console's ids is which key. It holds no byte of a
//! stream and encodes nothing: it asks its [host](ByteSource) for both.
//!
//! The [crate's documents](crate) describe the loop around it. No input is handed over between the polls of one turn.
//!
//! | file | what it decides |
//! |---|---|
//! | `input`, `output`, `ports` | nothing: the vocabulary |
//! | `link` | when a link lives, what is written to it, what a Pong means |
//! | `sessions` | which terminals are opened, re-attached, refused, closed |
//! | `commands` | which commands run, are refused, or are answered with an earlier result |
//! | `audit` | what waits for an audit line, and for how long |
//! | `journal` | what is recorded against the death of the process, what waits for it, and what follows from it |
//! | `hand_over`, `take_over` | when another program takes this one's place, and with what |
//! | `turn` | what happens next in a turn |
//! | `messages` | how a message enters the ledger, and what follows where the console cannot take it |
//! | `errors` | how often an error is reported |
//! | `logs` | which logs are sent, how fast, and how far the console has them |
//! | `naming` | how a registration names the instance and its provider |
//! | `usage` | when usage records of AI tools are sent, and a taken port is tried again |
//! | `read_limit` | how fast the console's messages are read |
//! | `panics` | how often a program that panics is restarted |
//! | `vitals` | nothing: what operators ask about the connection |
//! | `service` | when a service manager hears of the agent |
//! | `snapshots` | when a snapshot is made, and the state of a screen kept |
//! | `rings` | when the buffer of a terminal that has flooded is given back |
//! | `record` | nothing: what a recorder sees |
//! | `fork` | nothing: a driver as a model checker copies and counts it |

mod audit;
mod commands;
mod errors;
mod fork;
mod hand_over;
#[cfg(test)]
mod hand_over_tests;
pub(crate) mod hex;
mod input;
mod journal;
#[cfg(test)]
mod journal_tests;
mod link;
mod logs;
#[cfg(test)]
mod logs_tests;
mod messages;
mod naming;
mod output;
mod panics;
mod ports;
mod read_limit;
mod record;
mod rings;
mod service;
mod sessions;
mod snapshots;
mod take_over;
#[cfg(test)]
mod tests;
mod turn;
mod usage;
mod vitals;

pub use crate::clock::Clocks;
pub use crate::command::{
    RUNNING_MAX as COMMANDS_RUNNING_MAX, TIMEOUT_MAX_MS as COMMAND_TIMEOUT_MAX_MS, WAITING_MAX as COMMANDS_WAITING_MAX,
    effective_timeout_ms,
};
pub use crate::delivery::budget;
pub use crate::delivery::dedupe::IDS_MAX as COMMAND_IDS_MAX;
pub use crate::delivery::ping::PAYLOAD_BYTES as PING_PAYLOAD_BYTES;
pub use crate::delivery::{
    CUT_RESULT_BYTES, Chunk, Drops, FRAME_BYTES_MAX, Gap, Kind, RELIABLE_BYTES_MAX, StateKind, StreamKey,
};
pub use crate::fact::{ClockJump, CloseReason, Failure, IdSource, Loss, PortState, RegistrationOutcome};
pub use crate::id::{CommandKey, LinkId, PortProbe, RegistrationAttempt, SessionKey};
pub use crate::limits::{Policy, Schedule};
pub use crate::machine::SavedConnection;
pub use crate::order::{
    CloseText, CommandEnd, ConsoleEvent, Disconnect, Gate, Problem, ProviderName, Refusal, RegisterPath, SessionEnd,
};
pub use crate::session::SESSIONS_MAX;
pub use crate::time::Time;
pub use audit::{AUDIT_TIMEOUT_MS, AUDITS_WAITING_MAX};
pub use errors::{CAUSES_MAX, ERROR_INTERVAL_MS};
pub use hand_over::{
    HAND_OVER_ASK_MS, HAND_OVER_FLUSH_MS, HAND_OVER_SETTLE_MS, HAND_OVER_TOOLS_MS, HandOverInput, HandOverRefusal,
    HandOverStep,
};
pub use input::{CommandInput, ConsoleId, ConsoleMessage, Input, LogRequest, NoteId, SessionInput};
pub use journal::{
    APPEND_TIMEOUT_DRAINING_MS, APPEND_TIMEOUT_MS, AppendId, Record, Remains, Restored, SYNC_INTERVAL_MS,
};
pub use logs::{LOG_BURST_SECONDS, LOG_DELAY_MS, LOG_LINES_PER_SECOND};
pub use naming::{PROVIDERS_KNOWN, registered_name, registered_provider};
pub use output::{
    Action, AuditEntry, AuditId, CommandRefusal, ErrorEvent, Frame, Message, Notice, Output, SessionRefusal,
};
pub use panics::{PANICS_MAX, PanicHistory};
pub use ports::{Body, ByteSource, Encode, MadeSnapshot};
pub use read_limit::ReadLimiter;
pub use record::{Answer, RecordedOutput, Recorder, Step};
pub use rings::{RING_BYTES_MAX, RING_CHECK_MS, SCROLLBACK_BYTES_MAX};
pub use service::{READY_MS, RETRY_MS, SIGN_INTERVAL_MIN_MS, ServiceNotice, ServiceNotifier};
pub use snapshots::{KEEP_SCREEN_BYTES, QUIET_MS};
pub use take_over::TakenOver;
pub use usage::{LISTEN_RETRY_MS, USAGE_RECORDS_MAX};
pub use vitals::{Health, LinkPhase, Snapshot};

use crate::clock::Watch;
use crate::delivery::{Delivery, Poison};
use crate::fact::Fact;
use crate::machine::{self, Machine};
use crate::order::Order;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use audit::Audits;
use budget::Budget;
use commands::Commands;
use errors::ErrorRateLimiter;
use hand_over::HandOver;
use journal::{Journal, Waiter};
use link::LinkState;
use record::{Answering, Recording};
use rings::Rings;
use sessions::Sessions;
use snapshots::Snapshots;
use vitals::Vitals;

/// How many inputs are handled before time is allowed to pass: a flood must not keep deadlines from firing.
pub const INPUTS_PER_TURN_MAX: usize = 64;

/// Sees every step of the machine, for checks that are independent of it: when, what happened, what was ordered, and
/// how the machine looks after it.
pub type Observer = Box<dyn FnMut(Time, &Fact, &[Order], &machine::MachineSnapshot)>;

/// What was decided and is not done yet, in order.
enum Todo {
    Order(Order),
    Send(Message),
    Error(ErrorEvent),
    Restore(Restored),
    TakeOver(TakenOver),
    Append { record: Record, waiter: Option<Waiter> },
    GoOn(Waiter),
    Do(Action),
}

/// The whole of what decides; `B` is the body of a message.
pub struct Driver<B> {
    machine: Machine,
    ledger: Delivery<B>,
    budget: Rc<Budget>,
    clocks: Watch,
    link: LinkState,
    sessions: Sessions,
    commands: Commands<B>,
    audits: Audits,
    journal: Journal,
    errors: ErrorRateLimiter,
    usage: usage::Usage,
    logs: logs::Logs,
    vitals: Vitals,
    rings: Rings,
    hand_over: HandOver,
    snapshots: Snapshots,
    poison: Option<Poison>,
    room_for_results: bool,
    todo: VecDeque<Todo>,
    /// What the thing that is being performed wants, before what was decided later.
    ready: VecDeque<Output<B>>,
    is_performing: bool,
    ticks: u32,
    /// Totals of ignored facts as they were last logged.
    ignored: (u64, u64),
    recording: Option<Recording>,
    observer: Option<Observer>,
}

impl<B: Body> Driver<B> {
    /// A new life. Its first input is [`Input::Started`]. With `audited`, nothing is opened or started before its audit
    /// line is written.
    pub fn new(policy: Policy, schedule: Schedule, seed: u64, audited: bool, budget: Rc<Budget>) -> Self {
        Self {
            machine: Machine::new(policy, schedule, seed),
            ledger: Delivery::new(),
            budget,
            clocks: Watch::default(),
            link: LinkState::default(),
            sessions: Sessions::default(),
            commands: Commands::default(),
            audits: Audits::new(audited),
            journal: Journal::default(),
            errors: ErrorRateLimiter::default(),
            usage: usage::Usage::default(),
            logs: logs::Logs::new(schedule.log_lines_per_s),
            vitals: Vitals::default(),
            rings: Rings::default(),
            hand_over: HandOver::default(),
            snapshots: Snapshots::default(),
            poison: None,
            room_for_results: true,
            todo: VecDeque::new(),
            ready: VecDeque::new(),
            is_performing: false,
            ticks: 0,
            ignored: (0, 0),
            recording: None,
            observer: None,
        }
    }

    /// Shows every turn from now on to `recorder`.
    pub fn record(&mut self, recorder: Recorder) {
        self.recording = Some(Recording::new(recorder));
    }

    /// Shows every step of the machine from now on to `observer`.
    pub fn observe_machine(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Compares the clocks with what was expected; `entropy` is asked for only when they jumped. To be called first in
    /// a turn.
    pub fn observe(&mut self, now: Time, clocks: Clocks, entropy: impl FnOnce() -> u64) {
        let jumped = self.clocks.observe(clocks);
        let late = self.machine.late_by_ms(now).map(|gap_ms| (ClockJump::LateTick, gap_ms));
        if let Some((cause, gap_ms)) = late.or(jumped) {
            self.handle(now, Input::ClockJumped { cause, gap_ms, entropy: entropy() });
        }
    }

    /// Takes in one thing that happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        if let Some(recording) = &mut self.recording {
            recording.input(now, input);
        }
        self.journal.see(now);
        match input {
            Input::Started { id } => self.step(now, Fact::Started { id }),
            Input::RegistrationAnswered { attempt, status, retry_after_ms } => {
                self.step(now, Fact::RegistrationAnswered { attempt, status, retry_after_ms });
            }
            Input::RegistrationFailed { attempt, cause } => {
                self.step(now, Fact::RegistrationFailed { attempt, cause });
            }
            Input::LinkOpened { link } => self.step(now, Fact::LinkOpened { link }),
            Input::DialFailed { link, cause, retry_after_ms } => {
                self.step(now, Fact::DialFailed { link, cause, retry_after_ms });
            }
            Input::PortProbed { probe, found } => self.step(now, Fact::PortProbed { probe, found }),
            Input::Received { link, message } => self.received(now, link, message),
            Input::Pong { link, payload } => self.pong(now, link, &payload),
            Input::WriteProgress { bytes } => self.write_progress(now, bytes),
            Input::Written { link } => self.written(now, link),
            Input::CloseReceived { link, code, reason } => {
                self.step(now, Fact::CloseReceived { link, code, reason });
            }
            Input::LinkLost { link, cause } => self.step(now, Fact::LinkLost { link, cause }),
            Input::LinkClosed { link } => {
                self.step(now, Fact::LinkClosed { link });
                self.hand_over.link_closed(link);
            }
            Input::ClockJumped { cause, gap_ms, entropy } => {
                if cause == ClockJump::LateTick {
                    self.ledger.shift_ms(gap_ms);
                    self.audits.shift_ms(gap_ms);
                    self.journal.shift_ms(gap_ms);
                    self.rings.shift_ms(gap_ms);
                    self.hand_over.shift_ms(gap_ms);
                    self.snapshots.shift_ms(gap_ms);
                }
                self.step(now, Fact::ClockJumped { cause, gap_ms, entropy });
            }
            Input::ShutdownRequested => {
                self.hand_over.cancel();
                self.step(now, Fact::ShutdownRequested);
                self.drain_usage(now);
                self.drain_logs();
                self.ledger.begin_drain();
                self.journal.begin_drain(now);
            }
            // A link that went meanwhile gets nothing: the next one asks for a sample of its own.
            Input::Sampled { sample } => {
                if sample == StateKind::Heartbeat && self.ledger.has_link() {
                    self.vitals.heartbeat_at = Some(now);
                }
                self.todo.push_back(Todo::Send(Message::State(sample)));
            }
            Input::Session { session, what } => self.session_input(now, session, what),
            Input::Command { command, what } => self.command_input(now, command, what),
            Input::Output { stream, from, end } => self.source_grew(now, stream, from, end),
            Input::Audited { audit } => self.audited(now, audit),
            Input::AuditFailed { audit } => self.audit_failed(now, audit),
            Input::Appended { append } | Input::AppendFailed { append } => self.append_reported(now, append),
            Input::Restored { what } => self.restored(what),
            Input::HandOver { what } => self.hand_over_input(now, what),
            Input::TakenOver { what } => self.taken_over(now, what),
            Input::Noted { note, cause } => self.note(now, note, cause),
            Input::UsageCounted { within_ms } => self.usage_counted(now, within_ms),
            Input::PortTaken { note } => self.port_taken(now, note),
            Input::LogsRead { end, lines } => self.logs_read(now, end, lines),
        }
    }

    /// The next thing to do; `None` when nothing is left for this turn. Fires what is due by `now`.
    pub fn poll(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> Option<Output<B>> {
        let mut host = Answering { host, answers: self.recording.as_mut().map(Recording::take_answers) };
        let output = self.next_output(now, &mut host);
        if let (Some(recording), Some(answers)) = (&mut self.recording, host.answers) {
            recording.put_answers(answers);
            match &output {
                Some(output) => recording.output(now, output),
                None => recording.end_turn(now, &self.machine.snapshot()),
            }
        }
        output
    }

    /// When the next turn is due at the latest; `None` only when stopped.
    pub fn next_deadline(&self) -> Option<Time> {
        let machine = self.machine.next_deadline()?;
        let others = [
            self.ledger.next_deadline(),
            self.audits.next_deadline(),
            self.journal.next_deadline(),
            self.usage.next_deadline(),
            self.logs.next_deadline(),
            self.rings.next_deadline(),
            self.hand_over.next_deadline(),
            self.snapshots.next_deadline(),
        ];
        Some(others.into_iter().flatten().fold(machine, Time::min))
    }

    /// Whether nothing more will be wanted.
    pub fn is_stopped(&self) -> bool {
        self.machine.is_stopped() && self.todo.is_empty() && self.ready.is_empty()
    }
}
