//! What happened: the only things the machine ever learns, in the past tense.
//!
//! Facts do not interpret. A fact about one attempt or one link carries its number, and one with a stale number is
//! counted and ignored. They hold no secret, no terminal byte and no command text: identifiers are numbers given by the
//! agent.

use crate::id::{CommandKey, LinkId, PortProbe, RegistrationAttempt, SessionKey};
use crate::machine::SavedConnection;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The agent is up.
    Started {
        /// Where the instance id comes from, which decides whether the agent registers before it dials.
        id: IdSource,
    },
    /// The loop has handed over what was ready; deadlines that have passed fire now.
    Tick,
    /// The console answered a registration, with whatever HTTP status.
    RegistrationAnswered {
        /// The attempt that this answers.
        attempt: RegistrationAttempt,
        /// The HTTP status.
        status: u16,
        /// `Retry-After` in milliseconds, if the answer had one that could be read.
        retry_after_ms: Option<u64>,
    },
    /// A registration ended without an answer: no connection, no TLS, no HTTP.
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
        /// `Retry-After` in milliseconds, if the console answered with one.
        retry_after_ms: Option<u64>,
    },
    /// A probe of the console's port ended.
    PortProbed {
        /// The probe that ended.
        probe: PortProbe,
        /// What it found.
        found: PortState,
    },
    /// The first message of a link arrived: the console listens.
    Greeted {
        /// The link it came on.
        link: LinkId,
    },
    /// A Ping left for the socket.
    PingWritten {
        /// The link it went to.
        link: LinkId,
    },
    /// A Pong arrived that answers a Ping of this link.
    PongReceived {
        /// The link it came on.
        link: LinkId,
        /// No other Ping that was written to this link is unanswered.
        last: bool,
    },
    /// The socket took nothing for [`WRITE_STALL_MS`](crate::delivery::WRITE_STALL_MS).
    WriteStalled {
        /// The link that is stuck.
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
    /// The socket is gone, after [`CloseLink`](crate::order::Order::CloseLink),
    /// [`DropLink`](crate::order::Order::DropLink), a close by the console or a loss.
    LinkClosed {
        /// The link whose socket is gone.
        link: LinkId,
    },
    /// Everything that was sent is acknowledged, or no longer so.
    DeliverySettled {
        /// Nothing reliable and no stream byte waits for the console.
        settled: bool,
    },
    /// Another result could be held, or no longer so.
    RoomForResults {
        /// There is room.
        room: bool,
    },
    /// A terminal got input; reported only while
    /// [`Machine::wants_terminal_input`](crate::machine::Machine::wants_terminal_input).
    TerminalInput,
    /// The machine slept, was frozen, resumed from a snapshot, or its clock was set.
    ClockJumped {
        /// How that was noticed.
        cause: ClockJump,
        /// By how much, in milliseconds.
        gap_ms: u64,
        /// Fresh entropy, so that clones do not move in step.
        entropy: u64,
    },
    /// The process was asked to stop.
    ShutdownRequested,
    /// Another program takes this one's place as soon as the link is closed.
    HandOverDue,
    /// This program took another one's place, whose link was closed just now.
    TakenOver {
        /// What it gave of the connection.
        connection: SavedConnection,
    },
    /// Something happened to a terminal session.
    Session {
        /// The session.
        session: SessionKey,
        /// What happened to it.
        what: SessionFact,
    },
    /// Something happened to a command.
    Command {
        /// The command.
        command: CommandKey,
        /// What happened to it.
        what: CommandFact,
    },
}

/// Where the instance id comes from at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdSource {
    /// The operator's configuration, or the host name: the console has to be asked for an id.
    Configured,
    /// The configuration, but the console made it: it deployed this instance under an id of its own. A registration
    /// would overwrite what the console knows of the instance, so it waits until the console says that it does not know
    /// the id (CONSOLE.md, "The WebSocket").
    Assigned,
    /// The console gave this id in an earlier life, and it is still on disk.
    Remembered,
}

impl IdSource {
    /// The source of an id that was configured: the console's own ids are a `c` and 24 characters of `[a-z0-9]`.
    pub fn of_configured(id: &str) -> Self {
        let made_by_console = id.strip_prefix('c').is_some_and(|rest| {
            rest.len() == 24 && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        if made_by_console { Self::Assigned } else { Self::Configured }
    }

    /// Whether the agent dials with this id before it ever registers.
    pub const fn is_dialled_first(self) -> bool {
        match self {
            Self::Configured => false,
            Self::Assigned | Self::Remembered => true,
        }
    }
}

/// What the status of a registration's answer means: the one table of it (CONSOLE.md, "Registration").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationOutcome {
    /// 2xx, and 409 (already registered): the console knows this instance.
    Registered,
    /// 3xx: the console has another address.
    Redirected,
    /// 401, 403: the console refuses the key.
    KeyRefused,
    /// 404, 405: this console does not register instances on this path.
    WrongPath,
    /// 400, 422: the console refuses the payload, most likely its provider.
    PayloadRefused,
    /// Any other 4xx: the console does not register this instance.
    Rejected,
    /// 408, 425, 429, 5xx, and every status that HTTP does not define: retry later.
    Unavailable,
}

impl RegistrationOutcome {
    /// What this HTTP status means.
    pub const fn of(status: u16) -> Self {
        match status {
            200..=299 | 409 => Self::Registered,
            300..=399 => Self::Redirected,
            401 | 403 => Self::KeyRefused,
            404 | 405 => Self::WrongPath,
            400 | 422 => Self::PayloadRefused,
            408 | 425 | 429 => Self::Unavailable,
            402..=499 => Self::Rejected,
            _ => Self::Unavailable,
        }
    }
}

/// Why a registration or a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The name could not be resolved.
    Resolve,
    /// No address accepted a connection.
    Connect,
    /// Every address of the console itself, not of a proxy, refused the connection: nothing listens there yet.
    Refused,
    /// The proxy refused or failed.
    Proxy,
    /// The TLS handshake failed.
    Tls,
    /// The console spoke something other than HTTP, or broke off.
    Protocol,
    /// The console refused the upgrade because of the key (401, 403).
    Unauthorized,
    /// The console answered the upgrade with another status than 101.
    Status,
    /// This machine ran out of something: descriptors, memory, ports.
    Local,
}

/// How a link was found broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// End of stream without a close frame.
    Eof,
    /// The socket reported an error, such as a reset.
    Reset,
    /// The console broke the WebSocket protocol.
    Protocol,
    /// A message was over the limit; it was answered with close 1009.
    TooBig,
}

/// What a close reason is known to mean (CONSOLE.md, "The WebSocket").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// `Authentication required…`: the key is bad, missing or expired.
    Authentication,
    /// `Unknown instance ID: …`: the console does not know the id.
    UnknownInstance,
    /// `Replaced by new connection`: another agent has our id.
    Replaced,
    /// Anything else.
    Other,
}

/// What a probe found at the addresses that had refused the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// One of them accepted a connection, which was closed at once.
    Open,
    /// All of them refuse it still.
    Refused,
    /// None accepted it, and not all refused it.
    Unreachable,
}

/// How a jump of the clock was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockJump {
    /// A tick came late: the process was stopped or starved.
    LateTick,
    /// The real-time clock stepped against the monotonic one.
    RealTimeStep,
    /// The boot-time clock ran ahead of the monotonic one: the machine was suspended.
    Suspend,
}

/// What happens to a terminal session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFact {
    /// The console asked for it, it was admitted, and its shell is being started.
    Opening,
    /// Its shell runs.
    Opened,
    /// Its shell could not be started.
    OpenFailed {
        /// The exit code to report: 127 not found, 126 not executable.
        exit_code: i32,
    },
    /// A console uses it: a create, an input or a resize arrived. Input and resize are reported only while
    /// [`Sessions::is_orphan`](crate::session::Sessions::is_orphan).
    Attached,
    /// The console asked for its end.
    CloseRequested,
    /// Its shell is gone, with this exit code (128 + N for signal N).
    Exited {
        /// The exit code.
        code: i32,
    },
    /// The last byte of its PTY was read.
    EndOfOutput,
    /// No process and no terminal of it is left.
    Reaped,
}

/// What happens to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFact {
    /// The console dispatched it.
    Requested {
        /// A 128-bit hash of its id, by which a repeat is known.
        id_hash: u128,
        /// How long it may run, as the payload says; 0 where it does not.
        timeout_ms: u64,
    },
    /// Its process runs.
    Started,
    /// It could not be started; its result is ready.
    Failed,
    /// Its process is gone, with this exit code (128 + N for signal N).
    Exited {
        /// The exit code.
        code: i32,
    },
    /// The last byte of both its pipes was read.
    EndOfOutput,
    /// The console asked to cancel it.
    CancelRequested,
    /// Its result is written and held for repeats, with this length on the wire: old results make way by their length.
    Answered {
        /// Its encoded bytes.
        bytes: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_row_ids_are_dialled_first() {
        for id in ["cm4x8k2zq0000v8l5c3d1e9ab", "caaaaaaaaaaaaaaaaaaaaaaaa", "c000000000000000000000000"] {
            assert_eq!(IdSource::of_configured(id), IdSource::Assigned, "{id}");
        }
        for id in [
            "",
            "c",
            "web-1",
            "dm4x8k2zq0000v8l5c3d1e9ab",
            "cm4x8k2zq0000v8l5c3d1e9a",
            "cm4x8k2zq0000v8l5c3d1e9abc",
            "cM4X8K2ZQ0000V8L5C3D1E9AB",
            "cm4x8k2zq0000v8l5c3d1e9a-",
            "cäm4x8k2zq0000v8l5c3d1e9",
        ] {
            assert_eq!(IdSource::of_configured(id), IdSource::Configured, "{id}");
        }
    }
}
