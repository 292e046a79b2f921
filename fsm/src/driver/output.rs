//! The driver's outputs. The agent performs each [`Output`] at once and in order, and the result is an
//! [`Input`](super::Input) of a later turn.

use crate::delivery::ping::PAYLOAD_BYTES;
use crate::delivery::{Drops, Gap, Kind, StateKind, StreamKey};
use crate::driver::hand_over::{HandOverRefusal, HandOverStep};
use crate::driver::journal::{AppendId, Record, Remains};
use crate::driver::{Body, LogRequest, NoteId};
use crate::id::{CommandKey, LinkId, PortProbe, RegistrationAttempt, SessionKey};
use crate::order::{
    CloseText, CommandEnd, ConsoleEvent, Gate, Problem, ProviderName, Refusal, RegisterPath, SessionEnd,
};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize, Serializer};

/// Number of an audit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditId(pub u32);

/// Something to do; `B` is the body of a message, in recordings its length in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged, bound = "B: Body")]
pub enum Output<B> {
    /// Hand frames to the socket, in this order; then report [`Written`](super::Input::Written).
    Write {
        /// The link.
        #[serde(rename = "write")]
        link: LinkId,
        /// At least one.
        frames: Vec<Frame<B>>,
    },
    /// Write this record to the journal. What waits for it goes on after [`Appended`](super::Input::Appended) or
    /// [`AppendFailed`](super::Input::AppendFailed); a record that [nothing waits for](Record::is_awaited) needs
    /// neither.
    Append {
        /// Its number; they rise.
        append: AppendId,
        /// What it says.
        record: Record,
        /// The message, where it is one.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "length_of_some")]
        body: Option<B>,
    },
    /// Do this.
    Do(Action),
}

/// Everything to do but writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send one registration over HTTP; give it up when asked to, or when the next one starts.
    Register {
        /// The number that the answer must carry.
        attempt: RegistrationAttempt,
        /// Which of the two paths.
        path: RegisterPath,
        /// How to name the provider.
        provider: ProviderName,
    },
    /// Give up the registration that is in flight.
    AbandonRegistration {
        /// The attempt to give up.
        attempt: RegistrationAttempt,
        /// It was not answered in time, as opposed to no longer wanted.
        late: bool,
    },
    /// Resolve, connect and upgrade, once, with the id that is known now.
    Dial {
        /// The number that all inputs of this link must carry.
        link: LinkId,
    },
    /// Give up the dial that is in flight.
    AbandonDial {
        /// The link to give up.
        link: LinkId,
        /// The console was not reached in time, as opposed to no longer wanted.
        late: bool,
    },
    /// Connect to the addresses that refused the last dial, and close what comes of it without sending anything; then
    /// report [`PortProbed`](super::Input::PortProbed).
    ProbePort {
        /// The number that the result must carry.
        probe: PortProbe,
    },
    /// Give up the probe that is in flight.
    AbandonPortProbe {
        /// The probe to give up.
        probe: PortProbe,
    },
    /// Send a close frame and wait for the console's; then close the socket.
    CloseLink {
        /// The link to close.
        link: LinkId,
        /// The close code.
        code: u16,
        /// The reason to give.
        reason: CloseText,
    },
    /// Drop the socket with a reset.
    DropLink {
        /// The link to drop.
        link: LinkId,
    },
    /// Take a sample, then report [`Sampled`](super::Input::Sampled).
    TakeSample {
        /// What it is for.
        sample: StateKind,
    },
    /// Log this problem, once.
    Report {
        /// What is wrong.
        problem: Problem,
    },
    /// The console does not know the id that it gave: forget it, use the configured one.
    ForgetIdentity,
    /// The machine may be another one now: read its host name again.
    ReadHostName,
    /// Open a terminal; then report [`Opened`](super::SessionInput::Opened) or
    /// [`OpenFailed`](super::SessionInput::OpenFailed).
    OpenSession {
        /// The session.
        session: SessionKey,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Give the terminal another size.
    ResizeSession {
        /// The session.
        session: SessionKey,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Make the program of a re-attached session draw its screen again.
    RedrawSession {
        /// The session.
        session: SessionKey,
    },
    /// Keep the state of a session's screen, so that a snapshot needs no older output.
    KeepScreen {
        /// The session.
        session: SessionKey,
    },
    /// Type the oldest input that waits into this session, or discard it.
    TakeInput {
        /// The session; `None` where the id belongs to no open session.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<SessionKey>,
    },
    /// Send SIGHUP and SIGCONT to a session's foreground group and its own.
    HangUpSession {
        /// The session.
        session: SessionKey,
    },
    /// Send SIGKILL to what remains of a session.
    KillSession {
        /// The session.
        session: SessionKey,
    },
    /// The scrollback of a session may be at most so long from now on.
    ShrinkScrollback {
        /// The session.
        session: SessionKey,
        /// The bound in bytes.
        to_bytes: usize,
    },
    /// Nothing will be asked of this session again.
    ForgetSession {
        /// The session.
        session: SessionKey,
    },
    /// Start a command; then report [`Started`](super::CommandInput::Started) or
    /// [`StartFailed`](super::CommandInput::StartFailed).
    StartCommand {
        /// The command.
        command: CommandKey,
    },
    /// Send SIGTERM to a command's session.
    TerminateCommand {
        /// The command.
        command: CommandKey,
    },
    /// Send SIGKILL to a command's session.
    KillCommand {
        /// The command.
        command: CommandKey,
    },
    /// Nothing will be asked of this command again.
    ForgetCommand {
        /// The command.
        command: CommandKey,
    },
    /// This source may read so many bytes more.
    ReadCredit {
        /// The stream.
        stream: StreamKey,
        /// How many; `None`: no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<usize>,
        /// The console may still need the bytes from this offset on; `None`: the oldest may be overwritten.
        #[serde(skip_serializing_if = "Option::is_none")]
        keep_from: Option<u64>,
    },
    /// The console has every byte of a stream that has ended: free its source.
    Release {
        /// The stream.
        stream: StreamKey,
    },
    /// Write this audit line, then report [`Audited`](super::Input::Audited) or
    /// [`AuditFailed`](super::Input::AuditFailed).
    Audit {
        /// The number to report it with.
        audit: AuditId,
        /// What it says.
        entry: AuditEntry,
    },
    /// Let the machine's disk take what the journal holds. Nothing waits for it.
    SyncJournal,
    /// Send SIGKILL to what an earlier process left of this command: it is certainly the same session.
    KillRemains {
        /// The command.
        command: CommandKey,
    },
    /// Nothing is sent about this text: its cause was reported within the last minute.
    DropNote {
        /// The text.
        note: NoteId,
    },
    /// Follow the logs that this request names, from their acknowledged positions, beside those that are followed.
    FollowLogs {
        /// The request, of which nothing will be asked again.
        request: LogRequest,
    },
    /// Follow the logs that this request names no longer; their positions stay.
    UnfollowLogs {
        /// The request, of which nothing will be asked again.
        request: LogRequest,
    },
    /// Nothing will be asked of this request again.
    ForgetLogRequest {
        /// The request.
        request: LogRequest,
    },
    /// So many lines may have been read since the first request of this link.
    AllowLogs {
        /// How many in all.
        up_to_lines: u64,
    },
    /// Follow no log, discard what was read, and read from the acknowledged positions when asked again.
    StopLogs {
        /// Up to where the console has the stream.
        acked: u64,
    },
    /// Listen for AI tools where that failed before; report [`PortTaken`](super::Input::PortTaken) if it fails again.
    Listen,
    /// Do this for a hand-over, then report it.
    HandOver {
        /// What.
        step: HandOverStep,
    },
    /// Log this.
    Log {
        /// What.
        notice: Notice,
    },
    /// Leave the process; nothing more will be wanted.
    Exit,
}

/// One frame for the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", bound = "B: Body")]
pub enum Frame<B> {
    /// A message.
    #[serde(serialize_with = "length_of")]
    Text(B),
    /// A Ping.
    #[serde(serialize_with = "super::hex::serialize")]
    Ping([u8; PAYLOAD_BYTES]),
}

fn length_of<B: Body, S: Serializer>(body: &B, serializer: S) -> Result<S::Ok, S::Error> {
    body.size_bytes().serialize(serializer)
}

fn length_of_some<B: Body, S: Serializer>(body: &Option<B>, serializer: S) -> Result<S::Ok, S::Error> {
    body.as_ref().map(B::size_bytes).serialize(serializer)
}

/// A message for the adapter to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `registration`, `heartbeat` or `metrics`, the latter two from the sample that was taken last.
    State(StateKind),
    /// `event` about the connection.
    Event(ConsoleEvent),
    /// `event` of type `error`.
    Error(ErrorEvent),
    /// `terminal:closed` of a session that was opened. The adapter reads what is left and frees the shell.
    Closed {
        /// The session.
        session: SessionKey,
        /// Why it ended.
        end: SessionEnd,
        /// The exit code of its shell.
        exit_code: i32,
    },
    /// `terminal:closed` in answer to a `terminal:create` that opened nothing.
    Unopened {
        /// The number of the create.
        session: SessionKey,
        /// Why.
        refusal: SessionRefusal,
    },
    /// `command:result` of a command that was started, with what it printed so far. The adapter frees the process.
    Result {
        /// The command.
        command: CommandKey,
        /// How it ended.
        end: CommandEnd,
        /// The exit code, unless the adapter knows better.
        exit_code: i32,
    },
    /// A message of an earlier process, as the journal has it.
    Restored {
        /// Its number in the ledger.
        number: u64,
    },
    /// `command:result` in answer to a dispatch of which nothing ran.
    Unrun {
        /// The command.
        command: CommandKey,
        /// Why.
        refusal: CommandRefusal,
    },
    /// `llm_usage:batch` of the records that have waited longest.
    Usage {
        /// How many: 1 to [`USAGE_RECORDS_MAX`](super::USAGE_RECORDS_MAX).
        records: u32,
    },
}

/// What an `error` event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorEvent {
    /// The adapter's own text.
    Note(NoteId),
    /// A terminal was refused.
    SessionRefused(SessionKey, SessionRefusal),
    /// A shell could not be started.
    SpawnFailed(SessionKey),
    /// The operator's policy refused a command.
    CommandRefused(CommandKey),
    /// A command could not be started because this machine ran out of something.
    Exhausted(CommandKey),
    /// The audit log cannot be written.
    AuditUnavailable,
    /// Output was discarded before the console had it.
    Gap(Gap),
    /// Messages were dropped before the console had them.
    Drops(Drops),
}

/// Why a `terminal:create` opened nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionRefusal {
    /// The agent is stopping.
    Draining,
    /// The operator allows no terminals.
    Policy,
    /// Too many sessions are open, or too much waits for the console.
    Busy,
    /// The session that had this id has not ended yet.
    Ending,
    /// The console closed it before it was open.
    Closed,
    /// The audit log cannot be written.
    AuditUnavailable,
    /// The request has a fault.
    Invalid,
}

/// Why nothing ran for a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRefusal {
    /// The commands' own rules.
    Refused(Refusal),
    /// The operator does not allow it.
    Policy,
    /// The audit log cannot be written.
    AuditUnavailable,
    /// The request has a fault.
    Invalid,
}

/// What an audit line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEntry {
    /// A terminal will be opened.
    TerminalOpened {
        /// The session.
        session: SessionKey,
    },
    /// A terminal is closed.
    TerminalClosed {
        /// The session.
        session: SessionKey,
        /// The exit code of its shell.
        exit_code: i32,
        /// How much it printed.
        output_bytes: u64,
    },
    /// A command will be started.
    CommandStarted {
        /// The command.
        command: CommandKey,
    },
    /// A command has ended; the adapter knows with what.
    CommandEnded {
        /// The command.
        command: CommandKey,
    },
    /// The console asks for logs.
    LogsSubscribed {
        /// The request.
        request: LogRequest,
    },
}

/// Something to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// From now on these messages may be written to the link.
    GateOpened {
        /// The link.
        link: LinkId,
        /// Which messages may pass.
        gate: Gate,
    },
    /// The console attached to a live session again.
    Reattached {
        /// The session.
        session: SessionKey,
    },
    /// The console closes a session.
    Closing {
        /// The session.
        session: SessionKey,
    },
    /// A dispatch was received again while its command waits or runs: nothing follows from it.
    DuplicateDispatch {
        /// The command that waits or runs.
        of: CommandKey,
    },
    /// A dispatch was received again after its command ended: its result is sent again.
    ResultRepeated {
        /// The command whose result it is.
        of: CommandKey,
    },
    /// An earlier process died while it had this command; its result says so.
    CommandInterrupted {
        /// The command.
        command: CommandKey,
        /// What is left of it.
        remains: Remains,
    },
    /// An earlier process died while it had this session; its `closed` says so.
    SessionInterrupted {
        /// The session.
        session: SessionKey,
    },
    /// A result that the console seems unable to take was cut.
    ResultCut {
        /// Its number in the ledger.
        number: u64,
    },
    /// A message that the console seems unable to take was dropped.
    PoisonDropped {
        /// Its number in the ledger.
        number: u64,
        /// What it was.
        message: Kind,
    },
    /// A message was dropped because the ledger is full.
    MessageDropped {
        /// What it was.
        message: Kind,
    },
    /// The hand-over did not happen; the agent goes on.
    HandOverRefused {
        /// Why.
        why: HandOverRefusal,
    },
    /// Answers to AI tools are still in flight, and are cut.
    HandOverCutsTools,
    /// Facts that the machine had no use for; both are totals.
    FactsIgnored {
        /// Facts that no state had a use for.
        unhandled: u64,
        /// Facts about attempts and links that were over.
        stale: u64,
    },
}
