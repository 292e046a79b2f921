//! A user of the console: opens terminals, types, runs commands.
//!
//! The test chooses the ids. Frames take the connection in the console's routing table; without a connection a call
//! waits for one. It does not model the protocol between console and browser.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::connection::Connection;
use crate::console::Console;

/// The user. Calls can be chained.
#[derive(Clone, Debug)]
pub struct Browser {
    console: Console,
}

impl Browser {
    pub(crate) fn new(console: Console) -> Browser {
        Browser { console }
    }

    /// Opens a terminal, or re-attaches to one that lives.
    #[track_caller]
    pub fn create(&self, session_id: &str, cols: u16, rows: u16) -> &Browser {
        self.create_with(session_id, &json!({"cols": cols, "rows": rows}))
    }

    /// The same with these payload fields beside the id.
    #[track_caller]
    pub fn create_with(&self, session_id: &str, fields: &Value) -> &Browser {
        self.terminal("terminal:create", session_id, fields)
    }

    /// Types.
    #[track_caller]
    pub fn input(&self, session_id: &str, bytes: &[u8]) -> &Browser {
        self.terminal("terminal:input", session_id, &json!({"data": BASE64.encode(bytes)}))
    }

    /// Resizes.
    #[track_caller]
    pub fn resize(&self, session_id: &str, cols: u16, rows: u16) -> &Browser {
        self.terminal("terminal:resize", session_id, &json!({"cols": cols, "rows": rows}))
    }

    /// Ends a terminal.
    #[track_caller]
    pub fn close(&self, session_id: &str) -> &Browser {
        self.terminal("terminal:close", session_id, &json!({}))
    }

    /// Runs a shell line.
    #[track_caller]
    pub fn dispatch(&self, command_id: &str, command: &str) -> &Browser {
        self.dispatch_with(command_id, &json!({"command": command, "timeout_ms": 30_000}))
    }

    /// Runs a command given by these payload fields: `command`, `args`, `env`, `timeout_ms`, `stream`, `working_dir`.
    #[track_caller]
    pub fn dispatch_with(&self, command_id: &str, fields: &Value) -> &Browser {
        let payload = merged(json!({"command_id": command_id}), fields);
        self.send(&json!({"protocol_version": "1.0", "type": "command:dispatch", "payload": payload}))
    }

    /// Cancels a command.
    #[track_caller]
    pub fn cancel(&self, command_id: &str) -> &Browser {
        self.send(&json!({"protocol_version": "1.0", "type": "command:cancel", "payload": {"command_id": command_id}}))
    }

    /// Runs a shell line and waits for its result; the id is the line itself.
    #[track_caller]
    pub fn run(&self, command: &str) -> Value {
        let before = self.console.from_now();
        self.dispatch(command, command);
        before.result(command)
    }

    /// Sends any frame to the agent, and waits for a connection if there is none.
    ///
    /// A frame that the console's routing fault drops is lost silently, as in production.
    #[track_caller]
    pub fn send(&self, frame: &Value) -> &Browser {
        let link = self.link();
        if link.is_routed() {
            link.send(frame);
        }
        self
    }

    /// The connection that frames are sent on.
    #[track_caller]
    fn link(&self) -> Connection {
        self.console.link()
    }

    #[track_caller]
    fn terminal(&self, kind: &str, session_id: &str, fields: &Value) -> &Browser {
        let payload = merged(json!({"session_id": session_id}), fields);
        self.send(&json!({"protocol_version": "1.0", "type": kind, "session_id": session_id, "payload": payload}))
    }
}

/// The fields of both; those of the second replace those of the first.
fn merged(base: Value, more: &Value) -> Value {
    let mut fields: Map<String, Value> = base.as_object().cloned().unwrap_or_default();
    fields.extend(more.as_object().cloned().unwrap_or_default());
    Value::Object(fields)
}
