//! Writes a decoded message back as the frame that says it, in the plainest form.
//!
//! The agent never does that: this is how tests and fuzzing check that nothing is lost or made up in decoding, and how
//! a console for tests could say what it means. Invalid and ignored messages have no such form.

use super::VERSION;
use super::dispatch::{Dispatch, SCRIPT_VARIABLE};
use super::encode::json;
use super::inbound::Inbound;
use data_encoding::BASE64;
use serde_json::{Value, json as value};

/// The frame of a message that acts; `None` for one that does not.
///
/// Decoding the frame gives the message again, but for timeouts over 2⁵³ ms, which JSON readers round.
pub fn echo(message: &Inbound) -> Option<String> {
    let (kind, payload) = match message {
        Inbound::TerminalCreate { session_id, cols, rows, shell } => {
            ("terminal:create", value!({"session_id": session_id, "cols": cols, "rows": rows, "shell": shell}))
        }
        Inbound::TerminalInput { session_id, data } => {
            ("terminal:input", value!({"session_id": session_id, "data": BASE64.encode(data)}))
        }
        Inbound::TerminalResize { session_id, cols, rows } => {
            ("terminal:resize", value!({"session_id": session_id, "cols": cols, "rows": rows}))
        }
        Inbound::TerminalClose { session_id } => ("terminal:close", value!({"session_id": session_id})),
        Inbound::CommandDispatch(dispatch) => ("command:dispatch", payload(dispatch)),
        Inbound::CommandCancel { command_id } => ("command:cancel", value!({"command_id": command_id})),
        Inbound::InvalidTerminal { .. }
        | Inbound::InvalidDispatch { .. }
        | Inbound::InvalidCancel { .. }
        | Inbound::Ignored(_) => return None,
    };
    Some(json(&value!({"protocol_version": VERSION, "type": kind, "payload": payload})))
}

fn payload(dispatch: &Dispatch) -> Value {
    let script = dispatch.script.iter().map(|script| format!("{SCRIPT_VARIABLE}={}", BASE64.encode(script)));
    let entries = dispatch.env.iter().map(|(name, value)| format!("{name}={value}"));
    value!({
        "command_id": dispatch.command_id,
        "command": dispatch.command,
        "args": dispatch.args,
        "env": entries.chain(script).collect::<Vec<_>>(),
        "timeout_ms": dispatch.timeout_ms,
        "working_dir": dispatch.working_dir,
        "stream": dispatch.stream,
    })
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
            let command_id = super::super::CommandId::new(&id).expect("an id");
            let env = names.into_iter().map(|name| (name, "a=b".to_owned())).collect();
            let dispatch = Dispatch { command_id, command, args, env, script, timeout_ms, working_dir, stream };
            prop_assert!(comes_back(&Inbound::CommandDispatch(Box::new(dispatch))));
        }

        #[test]
        fn a_terminal_message_comes_back(
            id in "[ -~é]{1,128}", cols in 1_u16.., rows in 1_u16.., data: Vec<u8>,
            shell in proptest::option::of("[^\\x00]{1,9}"),
        ) {
            let session_id = super::super::SessionId::new(&id).expect("an id");
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
