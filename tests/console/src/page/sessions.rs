//! The terminals and commands of the pages, and what the console's records mean for a page.
//!
//! Terminals belong to all pages: their output goes to each of them, and any may type. Where a page attaches to one,
//! the agent gets `terminal:create` again, as soon as there is a connection, and restores the screen.

use std::cell::RefCell;
use std::sync::Arc;

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::console::Console;
use crate::record::{Record, What};

use super::buttons::Buttons;
use super::hub::{Hub, Topic};
use super::now_ms;

/// Most terminals at a time.
const TERMINALS_MAX: usize = 16;

/// Largest size of a terminal, in cells: a wall of screens.
const CELLS_MAX: u64 = 1000;

/// How long a command may run, in milliseconds.
const COMMAND_TIMEOUT_MS: u64 = 300_000;

/// The terminals, the commands and the buttons of all pages.
#[derive(Debug)]
pub(super) struct Sessions {
    console: Console,
    hub: Arc<Hub>,
    buttons: Buttons,
    terminals: RefCell<Vec<Terminal>>,
    count: RefCell<u32>,
}

/// One terminal.
#[derive(Debug)]
struct Terminal {
    id: String,
    cols: u64,
    rows: u64,
    pending: Pending,
    /// Whether output came since the last `terminal:create`. If none did, it is sent again on the next connection.
    is_answered: bool,
}

/// What the agent must still get for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Size,
    Create,
}

impl Sessions {
    pub(super) fn new(console: Console, hub: Arc<Hub>) -> Sessions {
        let buttons = Buttons::new(console.clone(), hub.clone());
        let sessions = Sessions { console, hub, buttons, terminals: RefCell::default(), count: RefCell::default() };
        sessions.publish_terminals();
        sessions
    }

    /// Handles one message of a page. What is malformed is ignored.
    pub(super) async fn take(&self, message: &Value) {
        let text = |key: &str| message[key].as_str().unwrap_or_default();
        let size = |key: &str| message[key].as_u64().unwrap_or(0).clamp(1, CELLS_MAX);
        match text("type") {
            "open" => self.open(size("cols"), size("rows")),
            "attach" => self.want(text("id"), size("cols"), size("rows"), Pending::Create),
            "resize" => self.want(text("id"), size("cols"), size("rows"), Pending::Size),
            "input" if self.has(text("id")) => {
                // Without a connection typed text is lost, as in Mimir.
                self.send("terminal:input", text("id"), json!({"data": BASE64.encode(text("text").as_bytes())}));
            }
            "close" if self.has(text("id")) => {
                self.send("terminal:close", text("id"), json!({}));
            }
            "run" if !text("line").trim().is_empty() => self.run(text("line")),
            "cancel" => {
                let payload = json!({"command_id": text("id")});
                self.send_frame(&json!({"protocol_version": "1.0", "type": "command:cancel", "payload": payload}));
            }
            "fault" => self.buttons.press(text("what")).await,
            _ => {}
        }
    }

    /// Handles one record of the console.
    pub(super) fn take_record(&self, record: &Record) {
        self.buttons.take_record(record);
        match &record.what {
            What::Attached => {
                let mut terminals = self.terminals.borrow_mut();
                let unanswered = terminals.iter_mut().filter(|terminal| !terminal.is_answered);
                unanswered.for_each(|terminal| terminal.pending = Pending::Create);
                drop(terminals);
                self.catch_up();
            }
            What::Text(..) if record.kind() == "terminal:output" => {
                let id = record.payload()["session_id"].as_str().unwrap_or_default();
                if let Some(terminal) = self.terminals.borrow_mut().iter_mut().find(|terminal| terminal.id == id) {
                    terminal.is_answered = true;
                }
            }
            What::Text(..) if record.kind() == "terminal:closed" => {
                let id = record.payload()["session_id"].as_str().unwrap_or_default();
                self.console.untap(id);
                self.terminals.borrow_mut().retain(|terminal| terminal.id != id);
                self.publish_terminals();
            }
            What::Text(..) if record.kind() == "command:result" => {
                let id = record.payload()["command_id"].as_str().unwrap_or_default();
                self.hub.end_command(id, record.payload());
            }
            _ => {}
        }
        publish(&self.hub, record);
    }

    /// Lets the agent restore all terminals, and sends commands again, for a page that lost output.
    pub(super) fn repeat(&self, page: u64) {
        self.terminals.borrow_mut().iter_mut().for_each(|terminal| terminal.pending = Pending::Create);
        self.catch_up();
        self.hub.repeat_commands(page);
    }

    fn open(&self, cols: u64, rows: u64) {
        if self.terminals.borrow().len() >= TERMINALS_MAX {
            return;
        }
        let id = self.next_id("terminal");
        let (hub, tapped) = (self.hub.clone(), id.clone());
        self.console.tap(&id, move |bytes| hub.output(&tapped, None, bytes));
        self.terminals.borrow_mut().push(Terminal { id, cols, rows, pending: Pending::Create, is_answered: false });
        self.publish_terminals();
        self.catch_up();
    }

    fn want(&self, id: &str, cols: u64, rows: u64, pending: Pending) {
        if let Some(terminal) = self.terminals.borrow_mut().iter_mut().find(|terminal| terminal.id == id) {
            (terminal.cols, terminal.rows) = (cols, rows);
            if terminal.pending != Pending::Create {
                terminal.pending = pending;
            }
        }
        self.catch_up();
    }

    /// Sends what the agent must still get for each terminal, if there is a connection.
    fn catch_up(&self) {
        for terminal in self.terminals.borrow_mut().iter_mut() {
            let size = json!({"cols": terminal.cols, "rows": terminal.rows});
            let sent = match terminal.pending {
                Pending::Nothing => continue,
                Pending::Size => self.send("terminal:resize", &terminal.id, size),
                Pending::Create => self.send("terminal:create", &terminal.id, size),
            };
            if sent {
                terminal.is_answered &= terminal.pending == Pending::Size;
                terminal.pending = Pending::Nothing;
            }
        }
    }

    fn run(&self, line: &str) {
        if !self.console.has_link() {
            self.hub.note("no connection: the command was not sent");
            return;
        }
        let id = self.next_id("command");
        for surplus in self.hub.begin_command(&id, line) {
            ["stdout", "stderr"].iter().for_each(|stream| self.console.untap(&format!("{surplus}/{stream}")));
        }
        for stream in ["stdout", "stderr"] {
            let (hub, tapped) = (self.hub.clone(), id.clone());
            self.console.tap(&format!("{id}/{stream}"), move |bytes| hub.output(&tapped, Some(stream), bytes));
        }
        let payload = json!({"command_id": id, "command": line, "timeout_ms": COMMAND_TIMEOUT_MS, "stream": true});
        self.send_frame(&json!({"protocol_version": "1.0", "type": "command:dispatch", "payload": payload}));
    }

    fn next_id(&self, kind: &str) -> String {
        let mut count = self.count.borrow_mut();
        *count += 1;
        format!("page-{}-{kind}-{count}", std::process::id())
    }

    fn has(&self, id: &str) -> bool {
        self.terminals.borrow().iter().any(|terminal| terminal.id == id)
    }

    /// The list of terminals, which a page gets at its beginning.
    fn publish_terminals(&self) {
        let ids: Vec<String> = self.terminals.borrow().iter().map(|terminal| terminal.id.clone()).collect();
        self.hub.publish_newest("terminals", &json!({"type": "terminals", "ids": ids}));
    }

    fn send(&self, kind: &str, id: &str, fields: Value) -> bool {
        let mut payload: Map<String, Value> = fields.as_object().cloned().unwrap_or_default();
        payload.insert("session_id".to_owned(), id.into());
        self.send_frame(&json!({"protocol_version": "1.0", "type": kind, "session_id": id, "payload": payload}))
    }

    /// Sends a frame to the agent. Returns false if there is no connection now.
    fn send_frame(&self, frame: &Value) -> bool {
        let link = self.console.current_link().filter(crate::Connection::is_routed);
        link.map(|link| link.send(frame)).is_some()
    }
}

/// Sends a record to the pages.
fn publish(hub: &Hub, record: &Record) {
    let wall_ms = now_ms().saturating_sub(u64::try_from(record.at.elapsed().as_millis()).unwrap_or(0));
    let event = |what: &str, fields: Value| {
        let connection = record.connection;
        let frame =
            json!({"type": "event", "what": what, "wall_ms": wall_ms, "connection": connection, "fields": fields});
        hub.publish(Topic::Events, &frame);
    };
    match &record.what {
        What::Registration(request, status) => {
            hub.publish_newest("tags", &json!({"type": "tags", "tags": request.json()["tags"]}));
            event("registration", json!({"status": status}));
        }
        What::Upgrade(request) => event("upgrade", json!({"id": request.header("X-Instance-ID")})),
        What::Opened => event("opened", Value::Null),
        What::Closed(code, reason) => event("closed", json!({"code": code, "reason": reason})),
        What::Ended(end) => event("ended", json!({"how": format!("{end:?}")})),
        What::Poison(why) => event("poison", json!({"why": why})),
        What::Text(_, frame) => {
            let payload = &frame["payload"];
            let frame = |kind: &str| json!({"type": kind, "wall_ms": wall_ms, "payload": payload});
            match record.kind() {
                "registration" => hub.publish_newest("registration", &frame("registration")),
                "heartbeat" => hub.publish_newest("heartbeat", &frame("heartbeat")),
                "metrics" => hub.publish(Topic::Metrics, &frame("metrics")),
                "log:batch" | "log:line" => hub.publish(Topic::Logs, &frame("log")),
                "event" => event("event", json!({"event_type": payload["event_type"], "message": payload["message"]})),
                "terminal:closed" | "command:result" => {
                    let id = payload.get("session_id").or(payload.get("command_id"));
                    event(record.kind(), json!({"id": id, "exit_code": payload["exit_code"]}));
                }
                _ => {}
            }
        }
        What::Other(_) | What::Attached | What::Unheard(..) | What::Binary(_) | What::Ping(_) | What::Pong(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn frames(what: What) -> Vec<Value> {
        let hub = Hub::new();
        publish(&hub, &Record { seq: 0, at: Instant::now(), at_ms: 0, connection: 1, what });
        let (_, frames) = hub.enter();
        let mut texts: Vec<_> = std::iter::from_fn(|| frames.try_recv().ok()).collect();
        texts.pop(); // `live`
        texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    }

    fn text(kind: &str, payload: &Value) -> What {
        let frame = json!({"protocol_version": "1.0", "type": kind, "payload": payload});
        What::Text(frame.to_string(), frame)
    }

    #[test]
    fn logs_reach_a_page_and_pings_and_output_do_not() {
        let payload = json!({"path": "a.log", "lines": [{"line": "x", "level": "info", "source": "app"}]});
        for kind in ["log:batch", "log:line"] {
            let frames = frames(text(kind, &payload));
            assert_eq!((frames.len(), &frames[0]["type"], &frames[0]["payload"]), (1, &json!("log"), &payload));
        }
        for what in [What::Ping(vec![1]), What::Attached, text("terminal:output", &json!({"data": ""}))] {
            assert_eq!(frames(what), Vec::<Value>::new());
        }
    }

    #[test]
    fn fields_of_another_type_are_passed_on_or_left_out() {
        let event = frames(text("event", &json!({"event_type": 7})));
        assert_eq!(event[0]["fields"], json!({"event_type": 7, "message": null}));
        let result = frames(text("command:result", &Value::Null));
        assert_eq!(result[0]["what"], "command:result");
    }
}
