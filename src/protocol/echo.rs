//! Writes a decoded message back as the frame that says it, in the plainest form.
//!
//! The agent never does that: this is how tests and fuzzing check that nothing is lost or made up in decoding, and how
//! a console for tests could say what it means. The schema of what the console sends is generated from these types.
//! Invalid and ignored messages have no such form.

use super::VERSION;
use super::dispatch::{Dispatch, SCRIPT_VARIABLE};
use super::encode::json;
use super::id::{CommandId, SessionId};
use super::inbound::Inbound;
#[cfg(test)]
use super::inbound::{COLS_DEFAULT, ROWS_DEFAULT};
#[cfg(test)]
use super::payload::LIST_LENGTH_MAX;
#[cfg(test)]
use super::schema;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
#[cfg(test)]
use draupnir_fsm::driver::{COMMAND_TIMEOUT_MAX_MS, effective_timeout_ms};
use serde::Serialize;

/// The frame of a message that acts; `None` for one that does not.
///
/// Decoding the frame gives the message again, but for timeouts over 2⁵³ ms, which JSON readers round.
pub fn echo(message: &Inbound) -> Option<String> {
    Some(match message {
        Inbound::TerminalCreate { session_id, cols, rows, shell } => {
            let shell = shell.as_deref();
            frame(&TerminalCreate { session_id: Some(session_id), cols: *cols, rows: *rows, shell })
        }
        Inbound::TerminalInput { session_id, data } => {
            frame(&TerminalInput { session_id: Some(session_id), data: BASE64.encode(data) })
        }
        Inbound::TerminalResize { session_id, cols, rows } => {
            frame(&TerminalResize { session_id: Some(session_id), cols: *cols, rows: *rows })
        }
        Inbound::TerminalClose { session_id } => frame(&TerminalClose { session_id: Some(session_id) }),
        Inbound::CommandDispatch(dispatch) => frame(&CommandDispatch::of(dispatch)),
        Inbound::CommandCancel { command_id } => frame(&CommandCancel { command_id }),
        Inbound::LogSubscribe { paths } => frame(&LogSubscribe { paths }),
        Inbound::LogUnsubscribe { paths } => frame(&LogUnsubscribe { paths }),
        Inbound::InvalidTerminal { .. }
        | Inbound::InvalidDispatch { .. }
        | Inbound::InvalidCancel { .. }
        | Inbound::Ignored(_) => return None,
    })
}

fn frame<P: Spoken>(payload: &P) -> String {
    json(&Frame { protocol_version: VERSION, kind: P::KIND, payload })
}

/// The payload of a message of the console.
pub(super) trait Spoken: Serialize {
    /// The message type.
    const KIND: &'static str;
}

#[derive(Serialize)]
struct Frame<'a, P> {
    protocol_version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    payload: &'a P,
}

/// Opens a session, or attaches to the live one of that id: its size is applied and its screen is sent again.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TerminalCreate<'a> {
    session_id: Option<&'a SessionId>,
    /// Columns.
    #[cfg_attr(test, schemars(range(min = 1), default = "cols_default"))]
    cols: u16,
    /// Rows.
    #[cfg_attr(test, schemars(range(min = 1), default = "rows_default"))]
    rows: u16,
    /// A program; the configured one, else `$SHELL`, `/bin/bash` or `/bin/sh` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    shell: Option<&'a str>,
}

#[cfg(test)]
fn cols_default() -> u16 {
    COLS_DEFAULT
}

#[cfg(test)]
fn rows_default() -> u16 {
    ROWS_DEFAULT
}

/// What was typed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TerminalInput<'a> {
    session_id: Option<&'a SessionId>,
    /// The bytes.
    #[cfg_attr(test, schemars(with = "schema::Base64"))]
    data: String,
}

/// A new size.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TerminalResize<'a> {
    session_id: Option<&'a SessionId>,
    /// Columns.
    #[cfg_attr(test, schemars(range(min = 1)))]
    cols: u16,
    /// Rows.
    #[cfg_attr(test, schemars(range(min = 1)))]
    rows: u16,
}

/// Ends a session. A session that is not there is ignored.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TerminalClose<'a> {
    session_id: Option<&'a SessionId>,
}

/// Runs a command. It runs once, however often its id is dispatched to one process of the agent.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CommandDispatch<'a> {
    command_id: &'a CommandId,
    /// Without `args` a line for `/bin/sh -c`, with `args` a program.
    #[cfg_attr(test, schemars(length(min = 1)))]
    command: &'a str,
    /// Given to the program as they are.
    #[cfg_attr(test, schemars(default, length(max = LIST_LENGTH_MAX)))]
    args: &'a [String],
    /// Added to the agent's environment. The value of `SINDRI_SCRIPT_B64` is decoded and fed to standard input instead.
    #[cfg_attr(test, schemars(with = "schema::Environment", default))]
    env: Vec<String>,
    /// How long it may run, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(test, schemars(range(min = 1, max = COMMAND_TIMEOUT_MAX_MS), default = "timeout_default_ms"))]
    timeout_ms: u64,
    /// Where it runs, relative to the home directory; the home directory where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    working_dir: Option<&'a str>,
    /// Whether `command:output` is wanted while it runs.
    #[cfg_attr(test, schemars(default))]
    stream: bool,
}

#[cfg(test)]
fn timeout_default_ms() -> u64 {
    effective_timeout_ms(0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> CommandDispatch<'a> {
    fn of(dispatch: &'a Dispatch) -> Self {
        let script = dispatch.script.iter().map(|script| format!("{SCRIPT_VARIABLE}={}", BASE64.encode(script)));
        let entries = dispatch.env.iter().map(|(name, value)| format!("{name}={value}"));
        Self {
            command_id: &dispatch.command_id,
            command: &dispatch.command,
            args: &dispatch.args,
            env: entries.chain(script).collect(),
            timeout_ms: dispatch.timeout_ms,
            working_dir: dispatch.working_dir.as_deref(),
            stream: dispatch.stream,
        }
    }
}

/// Stops a command as if its time were up.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CommandCancel<'a> {
    command_id: &'a CommandId,
}

/// Asks for logs, from where the console has them, or from their last lines. The agent sends none before.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LogSubscribe<'a> {
    /// `*`, paths below `~/.sindri/logs`, or paths and patterns of the operator's configuration; others name nothing.
    #[cfg_attr(test, schemars(length(max = LIST_LENGTH_MAX), default = "no_paths"))]
    paths: &'a [String],
}

/// Asks for logs no longer; the agent keeps their positions.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LogUnsubscribe<'a> {
    /// As when they were asked for; none: all.
    #[cfg_attr(test, schemars(length(max = LIST_LENGTH_MAX), default = "no_paths"))]
    paths: &'a [String],
}

#[cfg(test)]
const fn no_paths() -> &'static [String] {
    &[]
}

macro_rules! spoken {
    ($($name:ident $kind:literal)*) => {
        $(impl Spoken for $name<'_> {
            const KIND: &'static str = $kind;
        })*
    };
}

spoken! {
    TerminalCreate "terminal:create"
    TerminalInput "terminal:input"
    TerminalResize "terminal:resize"
    TerminalClose "terminal:close"
    CommandDispatch "command:dispatch"
    CommandCancel "command:cancel"
    LogSubscribe "log:subscribe"
    LogUnsubscribe "log:unsubscribe"
}
#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use proptest::prelude::*;

    fn comes_back(message: &Inbound) -> bool {
        let frame = echo(message).expect("an action");
        decode(&frame).expect("an envelope").message == *message
    }

    proptest! {
        #[test]
        fn a_dispatch_comes_back(
            id in "[ -~é]{1,128}", command in "[^\\x00]{1,20}", args in proptest::collection::vec("[^\\x00]{0,9}", 0..4),
            names in proptest::collection::vec("[A-Z_]{1,9}", 0..4), script: Option<Vec<u8>>, timeout_ms in 0_u64..1 << 53,
            working_dir in proptest::option::of("[^\\x00]{1,9}"), stream: bool,
        ) {
            let command_id = CommandId::new(&id).expect("an id");
            let env = names.into_iter().map(|name| (name, "a=b".to_owned())).collect();
            let dispatch = Dispatch { command_id, command, args, env, script, timeout_ms, working_dir, stream };
            prop_assert!(comes_back(&Inbound::CommandDispatch(Box::new(dispatch))));
        }

        #[test]
        fn a_terminal_message_comes_back(
            id in "[ -~é]{1,128}", cols in 1_u16.., rows in 1_u16.., data: Vec<u8>,
            shell in proptest::option::of("[^\\x00]{1,9}"),
        ) {
            let session_id = SessionId::new(&id).expect("an id");
            let messages = [
                Inbound::TerminalResize { session_id: session_id.clone(), cols, rows },
                Inbound::TerminalInput { session_id: session_id.clone(), data },
                Inbound::TerminalCreate { session_id: session_id.clone(), cols, rows, shell },
                Inbound::TerminalClose { session_id },
            ];
            prop_assert!(messages.iter().all(comes_back));
        }
    }
}
