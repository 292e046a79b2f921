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

mod audit;
mod commands;
mod errors;
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
pub use vitals::LinkPhase;

use crate::clock::Watch;
use crate::delivery::{After, Delivery, Poison, PushError, Reliable};
use crate::fact::{CommandFact, Fact, SessionFact};
use crate::machine::{self, Machine};
use crate::order::Order;
use crate::random::Random;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use audit::Audits;
use budget::Budget;
use commands::Commands;
use core::hash::{Hash, Hasher};
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

/// How many ticks of the machine one turn may have. More than it has timers: one that re-arms itself in the past would
/// spin otherwise.
const TICKS_PER_TURN_MAX: u32 = 16;

/// Sees every step of the machine, for checks that are independent of it: when, what happened, what was ordered, and
/// how the machine looks after it.
pub type Observer = Box<dyn FnMut(Time, &Fact, &[Order], &machine::MachineSnapshot)>;

/// What can be seen of the driver from outside: for logs, tests and replays. It is never restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The connection.
    pub connection: machine::MachineSnapshot,
    /// Reliable messages that the console is not known to have.
    pub messages: usize,
    /// Their encoded bytes.
    pub message_bytes: usize,
    /// Encoded bytes of streams that are under way.
    pub stream_bytes_in_flight: u64,
    /// Sessions that are opening, open or ending.
    pub sessions: usize,
    /// Commands that run or wait.
    pub commands: usize,
}

/// What an operator asks about, see [`Driver::health`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What can be seen of the driver.
    pub snapshot: Snapshot,
    /// Whether the console can be reached.
    pub phase: LinkPhase,
    /// Since when the connection is in its state.
    pub state_since: Time,
    /// When the last link that the console accepted came or went; the start, before the first.
    pub online_changed_at: Time,
    /// When the last heartbeat was sent.
    pub heartbeat_at: Option<Time>,
    /// How long the last answered Ping took, in milliseconds.
    pub round_trip_ms: Option<u64>,
    /// Why links ended within the last hour, and how often; each cause once.
    pub reconnects_last_hour: Vec<(Disconnect, u32)>,
    /// How many links ended since the start.
    pub reconnects: u64,
    /// Reliable messages that were dropped since the start, as far as that is reported to the console.
    pub dropped: u64,
    /// Gaps in the output of streams since the start, likewise.
    pub gaps: u64,
    /// Usage records of AI tools that wait to be sent.
    pub usage_records: u32,
}

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

/// Between two turns, as the future depends on it: see [`canonical`](crate::canonical).
impl<B: Hash> Hash for Driver<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            machine,
            ledger,
            budget,
            clocks,
            link,
            sessions,
            commands,
            audits,
            journal,
            errors,
            usage,
            logs,
            rings,
            hand_over,
            snapshots,
            poison,
            room_for_results,
            // These are only shown; and between two turns nothing is left to do.
            vitals: _,
            ignored: _,
            todo: _,
            ready: _,
            is_performing: _,
            ticks: _,
            recording: _,
            observer: _,
        } = self;
        (machine, ledger, budget, clocks, link, sessions, commands).hash(state);
        (audits, journal, errors, usage, logs, rings, hand_over, snapshots, poison, room_for_results).hash(state);
    }
}

impl<B: Body> Driver<B> {
    /// A copy between two turns that goes on by itself, draws from `random` and is neither recorded nor observed: for a
    /// model that tries every way on.
    ///
    /// # Panics
    ///
    /// If something is left to [`poll`](Self::poll).
    #[doc(hidden)]
    #[must_use]
    pub fn fork(&self, random: Random) -> Self {
        assert!(self.todo.is_empty() && self.ready.is_empty(), "a turn is polled to its end");
        let mut machine = self.machine.clone();
        machine.set_random(random);
        Self {
            machine,
            ledger: self.ledger.clone(),
            budget: Rc::new((*self.budget).clone()),
            clocks: self.clocks.clone(),
            link: self.link.clone(),
            sessions: self.sessions.clone(),
            commands: self.commands.clone(),
            audits: self.audits.clone(),
            journal: self.journal.clone(),
            errors: self.errors.clone(),
            usage: self.usage,
            logs: self.logs.clone(),
            rings: self.rings.clone(),
            hand_over: self.hand_over.clone(),
            snapshots: self.snapshots.clone(),
            vitals: self.vitals.clone(),
            poison: self.poison,
            room_for_results: self.room_for_results,
            todo: VecDeque::new(),
            ready: VecDeque::new(),
            is_performing: false,
            ticks: 0,
            ignored: self.ignored,
            recording: None,
            observer: None,
        }
    }

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

    /// Whether the console can be reached.
    pub fn link_phase(&self) -> LinkPhase {
        match (self.machine.is_draining(), self.vitals.is_online) {
            (true, _) => LinkPhase::Draining,
            (false, true) => LinkPhase::Online,
            (false, false) => LinkPhase::Offline,
        }
    }

    /// What can be seen from outside.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connection: self.machine.snapshot(),
            messages: self.ledger.messages(),
            message_bytes: self.ledger.message_bytes(),
            stream_bytes_in_flight: self.ledger.stream_bytes_in_flight(),
            sessions: self.sessions.live(),
            commands: self.machine.commands(),
        }
    }

    /// What an operator asks about, at `now`.
    pub fn health(&self, now: Time) -> Health {
        Health {
            snapshot: self.snapshot(),
            phase: self.link_phase(),
            state_since: self.vitals.state_since,
            online_changed_at: self.vitals.online_changed_at,
            heartbeat_at: self.vitals.heartbeat_at,
            round_trip_ms: self.vitals.round_trip_ms,
            reconnects_last_hour: self.vitals.reconnects_last_hour(now),
            reconnects: self.vitals.reconnects,
            dropped: self.vitals.dropped,
            gaps: self.vitals.gaps,
            usage_records: self.usage.records(),
        }
    }

    fn next_output(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> Option<Output<B>> {
        self.journal.see(now);
        loop {
            if let Some(output) = self.ready.pop_front() {
                return Some(output);
            }
            let Some(todo) = self.todo.pop_front() else {
                if self.advance(now, host) {
                    continue;
                }
                break;
            };
            if let Todo::GoOn(waiter) = todo {
                // As from a report: what follows from it comes behind what was decided before.
                self.go_on(now, waiter);
                continue;
            }
            self.is_performing = true;
            match todo {
                Todo::Do(action) => self.out(action),
                Todo::Order(order) => self.perform(now, order, host),
                Todo::Send(message) => self.send(&message, host),
                Todo::Error(event) => self.send(&Message::Error(event), host),
                Todo::Restore(what) => self.restore(now, what, host),
                Todo::TakeOver(what) => self.take_over(now, what, host),
                Todo::Append { record, waiter } => self.append_queued(record, waiter),
                Todo::GoOn(_) => {}
            }
            self.is_performing = false;
        }
        let output = self.batch(now, host).or_else(|| self.read_credit(now));
        if output.is_none() {
            self.ticks = 0;
            self.end_snapshot_turn(now);
        }
        output
    }

    /// Lets one thing happen that time or the ledger brings; false where nothing is left.
    fn advance(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> bool {
        if let Some(link) = self.ledger.tick(now) {
            self.step(now, Fact::WriteStalled { link });
        } else if let Some(stream) = self.ledger.take_finished() {
            self.ledger.forget_stream(stream);
            self.release(stream);
        } else if let Some(gap) = self.ledger.take_gap() {
            // Each is reported: it takes a lost link or a lack of memory to make one.
            self.vitals.gaps += 1;
            self.todo.push_back(Todo::Error(ErrorEvent::Gap(gap)));
        } else if let Some(drops) = self.take_drops() {
            self.vitals.dropped += drops.total();
            self.todo.push_back(Todo::Error(ErrorEvent::Drops(drops)));
        } else if let Some(poison) = self.poison.take() {
            self.treat(poison, host);
        } else if !self.machine.is_stopped() && self.ledger.is_settled() != self.machine.believes_settled() {
            // Only now: what was ordered before may have been a message. A stopped machine believes nothing new.
            self.step(now, Fact::DeliverySettled { settled: self.ledger.is_settled() });
        } else if !self.room_for_results && self.ledger.promise(Kind::Result) {
            self.ledger.break_promise(Kind::Result);
            self.set_room(now, true);
        } else if let Some(subject) = self.audits.take_overdue(now) {
            self.unaudited(now, subject);
        } else if let Some(number) = self.ledger.take_removed() {
            self.journal.forget_message(number);
            self.append(Record::Done { number }, None, None);
        } else if let Some(waiter) = self.journal.take_overdue(now) {
            self.go_on(now, waiter);
        } else if self.journal.take_sync(now) {
            self.out(Action::SyncJournal);
        } else if self.advance_usage(now)
            || self.advance_logs(now)
            || self.check_rings(now, host)
            || self.advance_snapshots(now, host)
        {
            // It is queued.
        } else if self.ticks < TICKS_PER_TURN_MAX
            && self.machine.next_deadline().is_some_and(|deadline| deadline <= now)
        {
            self.ticks += 1;
            self.step(now, Fact::Tick);
        } else if let Some(shrink) = self.budget.take_shrink() {
            self.out(Action::ShrinkScrollback { session: shrink.session, to_bytes: shrink.to_bytes });
        } else if self.advance_hand_over(now) {
            // It is queued. Last, so that all else of this turn is done when the program is replaced.
        } else {
            return self.log_ignored();
        }
        true
    }

    /// Takes what was dropped, once there is room for the event that reports it: one that is dropped, or displaces
    /// another, would be reported in turn, and so on without end.
    fn take_drops(&mut self) -> Option<Drops> {
        if !self.ledger.has_room_for_event() {
            return None;
        }
        self.ledger.take_drops()
    }

    /// Hands one fact to the machine and queues what it orders.
    fn step(&mut self, now: Time, fact: Fact) {
        let before = self.machine.link();
        self.machine.handle(now, &fact);
        let orders = self.machine.take_orders();
        if let Some(observer) = &mut self.observer {
            observer(now, &fact, &orders, &self.machine.snapshot());
        }
        if let Some(recording) = &mut self.recording {
            recording.stepped(now);
        }
        self.follow_link(now, &fact, before, self.machine.link());
        self.vitals.note_state(now, self.machine.state_name());
        for order in orders {
            match order {
                // Both take effect before anything else that happens in this turn.
                Order::OpenGate { gate, .. } => {
                    self.vitals.note_online(now);
                    self.ledger.open_gate(now, gate);
                }
                Order::SendPing { .. } => self.ledger.request_ping(),
                Order::Emit { event: ConsoleEvent::Disconnect { cause, .. } } => self.vitals.note_offline(now, cause),
                _ => {}
            }
            self.todo.push_back(Todo::Order(order));
        }
    }

    fn perform(&mut self, now: Time, order: Order, host: &mut dyn ByteSource<Body = B>) {
        let late = !self.machine.is_draining();
        match order {
            Order::Register { attempt, path, provider } => self.out(Action::Register { attempt, path, provider }),
            Order::AbandonRegistration { attempt } => self.out(Action::AbandonRegistration { attempt, late }),
            Order::Dial { link } if self.hand_over.hold_dial(link) => {}
            Order::Dial { link } => self.out(Action::Dial { link }),
            Order::AbandonDial { link } => self.out(Action::AbandonDial { link, late }),
            Order::ProbePort { probe } => self.out(Action::ProbePort { probe }),
            Order::AbandonPortProbe { probe } => self.out(Action::AbandonPortProbe { probe }),
            Order::CloseLink { link, code, reason } => self.out(Action::CloseLink { link, code, reason }),
            Order::DropLink { link } => self.out(Action::DropLink { link }),
            Order::OpenGate { link, gate } => self.log(Notice::GateOpened { link, gate }),
            Order::SendPing { link: _ } => {}
            Order::SendRegistration { link: _ } => self.send(&Message::State(StateKind::Registration), host),
            Order::SendHeartbeat { link: _ } => self.out(Action::TakeSample { sample: StateKind::Heartbeat }),
            Order::SendMetrics { link: _ } => self.out(Action::TakeSample { sample: StateKind::Metrics }),
            Order::Emit { event } => self.send(&Message::Event(event), host),
            Order::Report { problem } => self.out(Action::Report { problem }),
            Order::ForgetIdentity => self.out(Action::ForgetIdentity),
            Order::ReadHostName => self.out(Action::ReadHostName),
            Order::HangUpSession { session } => self.out(Action::HangUpSession { session }),
            Order::KillSession { session } => self.out(Action::KillSession { session }),
            Order::FinishSession { session, reason, exit_code } => {
                self.finish_session(session, reason, exit_code, host);
            }
            Order::StartCommand { command } => self.start_command(now, command),
            Order::RefuseCommand { command, refusal } => self.refuse_command(command, refusal, host),
            Order::RepeatResult { command, of } => self.repeat_result(command, of, host),
            Order::ForgetResult { command } => self.forget_result(command),
            Order::TerminateCommand { command } => self.out(Action::TerminateCommand { command }),
            Order::KillCommand { command } => self.out(Action::KillCommand { command }),
            Order::FinishCommand { command, end, exit_code } => {
                self.finish_command(now, command, end, exit_code, host);
            }
            Order::Exit => {
                if self.journal.take_last_sync() {
                    self.out(Action::SyncJournal);
                }
                self.out(Action::Exit);
            }
        }
    }

    /// Wants this done: next, where something is being performed, else behind what was decided before.
    fn out(&mut self, action: Action) {
        if self.is_performing {
            self.ready.push_back(Output::Do(action));
        } else {
            self.todo.push_back(Todo::Do(action));
        }
    }

    fn log(&mut self, notice: Notice) {
        self.out(Action::Log { notice });
    }

    /// Encodes a message that needs nothing more than that, and gives it to the ledger.
    fn send(&mut self, message: &Message, host: &mut dyn ByteSource<Body = B>) {
        let kind = match message {
            Message::State(kind) => {
                if let Some(body) = self.ledger.has_link().then(|| host.encode(message)).flatten() {
                    self.ledger.set_state(*kind, body);
                }
                return;
            }
            Message::Event(_) | Message::Error(_) | Message::Restored { .. } | Message::Usage { .. } => Kind::Event,
            Message::Closed { .. } | Message::Unopened { .. } => Kind::Closed,
            Message::Result { .. } | Message::Unrun { .. } => Kind::Result,
        };
        if let Some(body) = host.encode(message) {
            self.push(kind, body, None, After::NOTHING, false, host);
        }
    }

    /// Gives a message to the ledger that reports the end of what has this id.
    fn push_of(
        &mut self,
        kind: Kind,
        body: B,
        of: Option<(ConsoleId, Option<CommandKey>)>,
        host: &mut dyn ByteSource<Body = B>,
    ) -> Option<u64> {
        self.push(kind, body, of, After::NOTHING, false, host)
    }

    /// Gives a reliable message to the ledger, which sends it once it is in the journal; its number, unless there was
    /// no room for it. `of` is the id whose end it reports.
    fn push(
        &mut self,
        kind: Kind,
        body: B,
        of: Option<(ConsoleId, Option<CommandKey>)>,
        after: After,
        promised: bool,
        host: &mut dyn ByteSource<Body = B>,
    ) -> Option<u64> {
        let reliable = |body: &B| Reliable { kind, size_bytes: body.size_bytes(), after, promised };
        let (pushed, body) = match self.ledger.push(reliable(&body), body.clone()) {
            Err(PushError::TooLong { room_bytes }) => match host.shorten(&body, room_bytes) {
                Some(shorter) => (self.ledger.push(reliable(&shorter), shorter.clone()), shorter),
                None => (Err(PushError::Dropped), body),
            },
            pushed => (pushed, body),
        };
        match pushed {
            Ok(pushed) => {
                let (of, command) = of.map_or((None, None), |(id, command)| (Some(id), command));
                self.append_message(pushed.number, kind, of, command, body);
                Some(pushed.number)
            }
            Err(PushError::TooLong { .. } | PushError::Dropped) => {
                self.log(Notice::MessageDropped { message: kind });
                None
            }
        }
    }

    /// Does what is to be done about a message that the console seems unable to take.
    fn treat(&mut self, poison: Poison, host: &mut dyn ByteSource<Body = B>) {
        match poison {
            Poison::CutResult { number } => {
                let shorter = self.ledger.body(number).and_then(|body| host.shorten(body, CUT_RESULT_BYTES));
                let replaced = shorter.filter(|body| self.ledger.replace(number, body.size_bytes(), body.clone()));
                if let Some(body) = replaced {
                    self.append_cut_result(number, body);
                    self.log(Notice::ResultCut { number });
                } else {
                    self.ledger.give_up(number);
                    self.log(Notice::PoisonDropped { number, message: Kind::Result });
                }
            }
            Poison::Dropped { number, kind } => self.log(Notice::PoisonDropped { number, message: kind }),
        }
    }

    fn set_room(&mut self, now: Time, room: bool) {
        if room != self.room_for_results {
            self.room_for_results = room;
            self.step(now, Fact::RoomForResults { room });
        }
    }

    /// Queues a line about facts that the machine had no use for; false where there were none.
    fn log_ignored(&mut self) -> bool {
        let totals = self.machine.ignored();
        if totals == self.ignored {
            return false;
        }
        self.ignored = totals;
        self.log(Notice::FactsIgnored { unhandled: totals.0, stale: totals.1 });
        true
    }

    fn tell_session(&mut self, now: Time, session: SessionKey, what: SessionFact) {
        self.step(now, Fact::Session { session, what });
    }

    fn tell_command(&mut self, now: Time, command: CommandKey, what: CommandFact) {
        self.step(now, Fact::Command { command, what });
    }
}
