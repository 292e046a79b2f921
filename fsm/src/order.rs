//! What is to be done: the only things the machine ever wants, in the imperative.
//!
//! The agent performs them at once and in order, and reports their results as facts. An order about one attempt or link
//! carries its number. Like facts they hold no secret: they are the other half of every recording.

use crate::id::{CommandKey, LinkId, PortProbe, RegistrationAttempt, SessionKey};
use serde::{Deserialize, Serialize};

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
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
    },
    /// Resolve, connect and upgrade, once, with the id that is known now.
    Dial {
        /// The number that all facts of this link must carry.
        link: LinkId,
    },
    /// Give up the dial that is in flight.
    AbandonDial {
        /// The link to give up.
        link: LinkId,
    },
    /// Connect to the addresses that refused the last dial, and close what comes of it without sending anything.
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
    /// Drop the socket with a reset, without a word.
    DropLink {
        /// The link to drop.
        link: LinkId,
    },
    /// From now on these messages may be written to the link.
    OpenGate {
        /// The link whose gate opens.
        link: LinkId,
        /// Which messages may pass.
        gate: Gate,
    },
    /// Send a `registration` message.
    SendRegistration {
        /// The link to send it on.
        link: LinkId,
    },
    /// Send a `heartbeat`.
    SendHeartbeat {
        /// The link to send it on.
        link: LinkId,
    },
    /// Take a sample and send `metrics`.
    SendMetrics {
        /// The link to send it on.
        link: LinkId,
    },
    /// Send a keep-alive Ping.
    SendPing {
        /// The link to send it on.
        link: LinkId,
    },
    /// Report an event to the console, reliably.
    Emit {
        /// The event.
        event: ConsoleEvent,
    },
    /// Say something in the log, once.
    Report {
        /// What to say.
        problem: Problem,
    },
    /// The console does not know the id that it gave: forget it, use the configured one.
    ForgetIdentity,
    /// The machine may be another one now: read its host name again.
    ReadHostName,
    /// Send these signals to a session: SIGHUP and SIGCONT to its foreground group and its own.
    HangUpSession {
        /// The session.
        session: SessionKey,
    },
    /// Send SIGKILL to what is left of a session.
    KillSession {
        /// The session.
        session: SessionKey,
    },
    /// Report the end of a session to the console, after its last output, and free it. What comes of a start that is
    /// still under way is killed.
    FinishSession {
        /// The session.
        session: SessionKey,
        /// Why it ended.
        reason: SessionEnd,
        /// The exit code of its shell.
        exit_code: i32,
    },
    /// Start a command, and report [`Started`](crate::fact::CommandFact::Started) or
    /// [`Failed`](crate::fact::CommandFact::Failed).
    StartCommand {
        /// The command.
        command: CommandKey,
    },
    /// Answer a dispatch without running anything.
    RefuseCommand {
        /// The command.
        command: CommandKey,
        /// Why.
        refusal: Refusal,
    },
    /// Answer a repeated dispatch with the result of an earlier one.
    RepeatResult {
        /// The repeat, which needs no more answer than that.
        command: CommandKey,
        /// The command whose result is sent again.
        of: CommandKey,
    },
    /// Forget the result of a command: it is too old to be repeated.
    ForgetResult {
        /// The command.
        command: CommandKey,
    },
    /// Send SIGTERM to a command's processes.
    TerminateCommand {
        /// The command.
        command: CommandKey,
    },
    /// Send SIGKILL to what is left of a command.
    KillCommand {
        /// The command.
        command: CommandKey,
    },
    /// Report the result of a command to the console, with its output so far, and free it. What comes of a start that
    /// is still under way is killed.
    FinishCommand {
        /// The command.
        command: CommandKey,
        /// How it ended.
        end: CommandEnd,
        /// The reported exit code.
        exit_code: i32,
    },
    /// Leave the process; nothing more will be ordered.
    Exit,
}

/// The two paths of registration (CONSOLE.md, "Registration").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterPath {
    /// `/api/v1/instances/register`, as designed.
    Designed,
    /// `/api/v1/instances`, as the production console serves it.
    Observed,
}

/// How a registration names the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderName {
    /// As configured or detected.
    Configured,
    /// As the production console calls it: `kubernetes` for `k8s`, `ssh` where none is known.
    Alias,
}

/// Which messages a link may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// `registration`, `heartbeat`, `metrics`.
    State,
    /// Everything.
    All,
}

/// The reason in a close frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseText {
    /// `resync`
    Resync,
    /// `agent shutdown`
    Shutdown,
    /// `agent update`
    HandOver,
}

impl CloseText {
    /// The text as it stands in the frame.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resync => "resync",
            Self::Shutdown => "agent shutdown",
            Self::HandOver => "agent update",
        }
    }
}

/// An event of the connection that the agent reports to the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleEvent {
    /// `deploy`: this process registered for the first time.
    Deploy,
    /// `connect`: the console has accepted a link, by its first message or by not closing it until its gate opened.
    Connect {
        /// Dials since the last accepted link, this one included.
        attempts: u32,
        /// Milliseconds since the last accepted link was lost, or since the start.
        offline_ms: u64,
    },
    /// `disconnect`: an accepted link is gone or about to be closed.
    Disconnect {
        /// Why.
        cause: Disconnect,
        /// The close code, if a close frame was seen or will be sent.
        code: Option<u16>,
    },
    /// `error`: something is wrong that an operator should look at.
    Error {
        /// What.
        problem: Problem,
    },
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The console sent a close frame.
    Closed,
    /// The socket broke.
    Lost,
    /// No Pong came in time.
    PongTimeout,
    /// The socket took no byte for too long.
    WriteStalled,
    /// The agent closed it to cure the console's routing (`resync`).
    Resync,
    /// The agent stops.
    Shutdown,
    /// Another program takes the agent's place, with all that it has.
    HandOver,
}

/// Something that is wrong and who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The console refuses the key: the operator must set a valid one.
    KeyRefused,
    /// The console rejects the registration: its own words are in the log.
    RegistrationRejected,
    /// The console answered with a redirect: the URL must be corrected.
    Redirected,
    /// The console does not know the instance id.
    UnknownInstance,
    /// Two agents share this instance id.
    SharedInstanceId,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// Its shell exited by itself.
    Exited,
    /// The console closed it.
    Closed,
    /// The agent drained.
    Drained,
    /// No console came back to it.
    Orphaned,
    /// Its shell could not be started, or not in time.
    SpawnFailed,
    /// The process of the agent that had it died.
    Interrupted,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    /// By itself.
    Exited,
    /// It ran out of time: exit code 124.
    TimedOut,
    /// The console cancelled it: exit code 130.
    Cancelled,
    /// The agent drained: its own exit code, 128 + N where a signal ended it.
    Drained,
    /// The process of the agent that had it died: exit code 137.
    Interrupted,
}

/// Why a dispatch is answered without running anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait already, or results cannot be held.
    Busy,
    /// It ran before, and its result is no longer remembered.
    Forgotten,
    /// The agent is stopping.
    Draining,
}
