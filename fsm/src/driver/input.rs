//! What the driver receives: one [`Input`] for each thing that happened outside.
//!
//! Inputs are the vocabulary of recordings (`tests/scenarios`), so they hold no secret, no terminal byte and no command
//! text: the console's ids appear as keyed hashes, bodies as lengths.

use crate::delivery::{StateKind, StreamKey};
use crate::driver::hand_over::HandOverInput;
use crate::driver::journal::{AppendId, Restored};
use crate::driver::output::AuditId;
use crate::driver::take_over::TakenOver;
use crate::fact::{ClockJump, CloseReason, Failure, IdSource, Loss, PortState};
use crate::id::{CommandKey, LinkId, PortProbe, RegistrationAttempt, SessionKey};
use serde::{Deserialize, Serialize};

/// The console's id of a session or command, as a 128-bit hash. The adapter keys the hash with randomness of its own,
/// so that no peer can make two ids collide; by chance two of 16,384 do so once in 2¹⁰⁰ processes.
///
/// In recordings it is a number, or 32 hexadecimal digits where a JSON number would not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsoleId(pub u128);

/// Number of a text that the adapter keeps until the driver has decided what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NoteId(pub u32);

/// Number of a `log:subscribe` or `log:unsubscribe`, whose paths the adapter keeps until the driver has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogRequest(pub u32);

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Input {
    /// The agent is up. Always the first input.
    Started {
        /// Where the id that is known comes from.
        id: IdSource,
    },
    /// The console answered a registration, with whatever HTTP status.
    RegistrationAnswered {
        /// The attempt that this answers.
        attempt: RegistrationAttempt,
        /// The HTTP status.
        status: u16,
        /// `Retry-After` in milliseconds, where the answer had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// A registration ended without an answer.
    RegistrationFailed {
        /// The attempt that failed.
        attempt: RegistrationAttempt,
        /// What went wrong.
        cause: Failure,
    },
    /// The WebSocket is up: the console answered 101.
    LinkOpened {
        /// The link that is up.
        link: LinkId,
    },
    /// A dial ended without a WebSocket.
    DialFailed {
        /// The link that never came up.
        link: LinkId,
        /// What went wrong.
        cause: Failure,
        /// `Retry-After` in milliseconds, where the console answered with one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// A probe of the console's port ended.
    PortProbed {
        /// The probe that ended.
        probe: PortProbe,
        /// What it found.
        found: PortState,
    },
    /// A message arrived.
    Received {
        /// The link it came on; a message of another link than the live one has no effect.
        link: LinkId,
        /// What it asks for.
        message: ConsoleMessage,
    },
    /// A Pong arrived.
    Pong {
        /// The link it came on.
        link: LinkId,
        /// Its payload; one of another length is foreign and not handed over.
        #[serde(with = "super::hex")]
        payload: [u8; crate::delivery::ping::PAYLOAD_BYTES],
    },
    /// The kernel has taken so many bytes of the current link so far.
    WriteProgress {
        /// Bytes since the dial began.
        bytes: u64,
    },
    /// The socket has taken the whole of the last [`Write`](super::Output::Write).
    Written {
        /// The link that it went to.
        link: LinkId,
    },
    /// The console sent a close frame.
    CloseReceived {
        /// The link it closes.
        link: LinkId,
        /// The close code; 1005 where the frame had none.
        code: u16,
        /// What the reason says, as far as it is known.
        reason: CloseReason,
    },
    /// The link broke without a close frame.
    LinkLost {
        /// The link that broke.
        link: LinkId,
        /// How it was noticed.
        cause: Loss,
    },
    /// The socket is gone.
    LinkClosed {
        /// The link whose socket is gone.
        link: LinkId,
    },
    /// The machine slept, was frozen, resumed from a snapshot, or its clock was set. Made by
    /// [`Driver::observe`](super::Driver::observe).
    ClockJumped {
        /// How that was noticed.
        cause: ClockJump,
        /// By how much, in milliseconds.
        gap_ms: u64,
        /// Fresh entropy, so that clones do not move in step.
        entropy: u64,
    },
    /// The process received a signal that asks it to stop.
    ShutdownRequested,
    /// A sample is ready to be encoded.
    Sampled {
        /// What it is for.
        sample: StateKind,
    },
    /// Something happened to a terminal session.
    Session {
        /// The session.
        session: SessionKey,
        /// What happened to it.
        what: SessionInput,
    },
    /// Something happened to a command.
    Command {
        /// The command.
        command: CommandKey,
        /// What happened to it.
        what: CommandInput,
    },
    /// A stream's source holds these bytes now. Also reported when it lets go of the beginning of a character.
    Output {
        /// The stream.
        stream: StreamKey,
        /// The offset of the oldest byte that it holds.
        from: u64,
        /// The offset behind its newest byte.
        end: u64,
    },
    /// An audit line is written.
    Audited {
        /// Which.
        audit: AuditId,
    },
    /// An audit line cannot be written.
    AuditFailed {
        /// Which.
        audit: AuditId,
    },
    /// The records up to this one are in the journal.
    Appended {
        /// The last of them.
        append: AppendId,
    },
    /// The records up to this one that were not reported yet are not in the journal, or not all of them.
    AppendFailed {
        /// The last of them.
        append: AppendId,
    },
    /// The journal of an earlier process says this. Handed over before the first turn, or once the console's id is
    /// known.
    Restored {
        /// What it says.
        what: Restored,
    },
    /// Something happened during a hand-over to the program at the agent's own path.
    HandOver {
        /// What.
        what: HandOverInput,
    },
    /// The program before this one gave this, in a hand-over. Handed over before the first turn.
    TakenOver {
        /// What.
        what: TakenOver,
    },
    /// Something happened that the console should hear of, as an event.
    Noted {
        /// The adapter's text about it.
        note: NoteId,
        /// A hash of the cause: each cause is reported once a minute. Without one it is always reported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<u64>,
    },
    /// One more usage record of an AI tool waits at the adapter.
    UsageCounted {
        /// It is sent within this time, in milliseconds, with what waits besides.
        within_ms: u64,
    },
    /// The adapter has read lines of logs, as far as it was [allowed](super::Action::AllowLogs).
    LogsRead {
        /// Up to where it holds the stream of all lines.
        end: u64,
        /// How many lines that is more.
        lines: u32,
    },
    /// Another program has the port at which AI tools look for the agent.
    PortTaken {
        /// The text about it.
        note: NoteId,
    },
}

/// What a message from the console asks for. The adapter has decoded it and given numbers to what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ConsoleMessage {
    /// `terminal:create`. Answered by [`OpenSession`](super::Action::OpenSession), by a re-attach or by a refusal; the
    /// adapter keeps what it knows of `session` until [`ForgetSession`](super::Action::ForgetSession).
    Create {
        /// A number that no session had before.
        session: SessionKey,
        /// The id that the console gave.
        id: ConsoleId,
        /// Columns, 1 to 65,535.
        cols: u16,
        /// Rows, 1 to 65,535.
        rows: u16,
        /// The operator allows terminals.
        allowed: bool,
    },
    /// A `terminal:create` with an id and a fault.
    InvalidCreate {
        /// A number that no session had before.
        session: SessionKey,
        /// The id that the console gave.
        id: ConsoleId,
    },
    /// `terminal:input`. Answered by one [`TakeInput`](super::Action::TakeInput), in order.
    Keys {
        /// The session's id.
        id: ConsoleId,
    },
    /// `terminal:resize`
    Resize {
        /// The session's id.
        id: ConsoleId,
        /// Columns, 1 to 65,535.
        cols: u16,
        /// Rows, 1 to 65,535.
        rows: u16,
    },
    /// `terminal:close`
    Close {
        /// The session's id.
        id: ConsoleId,
    },
    /// `command:dispatch`. The adapter keeps what it knows of `command` until
    /// [`ForgetCommand`](super::Action::ForgetCommand).
    Dispatch {
        /// A number that no command had before.
        command: CommandKey,
        /// The id that the console gave.
        id: ConsoleId,
        /// How long it may run, as the payload says; 0 where it does not.
        timeout_ms: u64,
        /// The memory that it takes while it waits, in bytes.
        bytes: usize,
        /// Its output is sent while it runs.
        streams: bool,
        /// The operator allows it.
        allowed: bool,
    },
    /// A `command:dispatch` with an id and a fault.
    InvalidDispatch {
        /// A number that no command had before.
        command: CommandKey,
    },
    /// `command:cancel`
    Cancel {
        /// The command's id.
        id: ConsoleId,
    },
    /// `log:subscribe`
    LogSubscribe {
        /// A number that no request had before.
        request: LogRequest,
    },
    /// `log:unsubscribe`
    LogUnsubscribe {
        /// A number that no request had before.
        request: LogRequest,
    },
    /// A message that cannot be read or followed.
    Unusable {
        /// The adapter's text about it.
        note: NoteId,
        /// A hash of the cause.
        cause: u64,
    },
    /// A message that asks for nothing.
    Other,
}

/// What happens to a terminal session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionInput {
    /// Its shell runs.
    Opened,
    /// Its shell could not be started.
    OpenFailed {
        /// The exit code to report.
        exit_code: i32,
    },
    /// The last byte of its PTY was read.
    EndOfOutput,
    /// Its shell is gone, with this exit code (128 + N for signal N).
    Exited {
        /// The exit code.
        code: i32,
    },
    /// No process and no terminal of it is left.
    Reaped,
    /// It could not take what was typed.
    InputRefused {
        /// The adapter's text about it.
        note: NoteId,
    },
}

/// What happens to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CommandInput {
    /// Its process runs.
    Started,
    /// It could not be started.
    StartFailed {
        /// This machine ran out of something: processes, memory, descriptors.
        exhausted: bool,
    },
    /// The last byte of both its pipes was read.
    EndOfOutput,
    /// Its process is gone, with this exit code (128 + N for signal N).
    Exited {
        /// The exit code.
        code: i32,
    },
}

impl Serialize for ConsoleId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(number) => serializer.serialize_u64(number),
            Err(_) => serializer.collect_str(&format_args!("{:032x}", self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for ConsoleId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl serde::de::Visitor<'_> for Reader {
            type Value = ConsoleId;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a number, or 32 hexadecimal digits")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ConsoleId, E> {
                Ok(ConsoleId(number.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ConsoleId, E> {
                u128::from_str_radix(text, 16).map(ConsoleId).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
