//! The basic story against a console that shares no code with the agent: Python's aiohttp.

use crate::support;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::support::{Log, Setup, WAIT_MAX, skip};
use serde_json::{Value, json};

const KEY: &str = "drp_test_foreign_6d1f0b7e";

/// After a restart of the console, agents spread their reconnects over ten seconds.
const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// The Python console: a child process that speaks JSON lines.
struct Foreign {
    child: Child,
    orders: ChildStdin,
    said: Log,
}

impl Foreign {
    /// Starts it on any free port, or on the port of an earlier console.
    fn start(python: &Path, port: Option<u64>) -> Foreign {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/console.py");
        let mut child = Command::new(python)
            .arg(program)
            .args(port.map(|port| port.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let orders = child.stdin.take().expect("its standard input is a pipe");
        let said = Log::follow(child.stdout.take().expect("its standard output is a pipe"));
        Foreign { child, orders, said }
    }

    fn port(&self) -> u64 {
        let listening = self.said.wait(WAIT_MAX, |line| line["is"] == "listening");
        listening["port"].as_u64().expect("a port")
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Waits for a text frame of this type on this connection.
    #[track_caller]
    fn frame(&self, connection: u32, kind: &str) -> Value {
        let is_it = |line: &Value| line["connection"] == connection && line["frame"]["type"] == kind;
        self.said.wait(WAIT_MAX, is_it)["frame"].clone()
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.orders, "{order}").expect("it reads its orders");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what the foreign console said ---\n{}---", self.said.text());
        }
    }
}

/// The Python of the virtual environment that `tests/run` creates.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    python.exists().then_some(python)
}

#[test]
fn registers_connects_beats_reconnects_and_drains() {
    let Some(python) = python() else {
        return skip("foreign_console", "no Python environment under target/venv");
    };
    let mut console = Foreign::start(&python, None);
    let agent = Setup::alone().env("SINDRI_CONSOLE_URL", console.url()).key(KEY).spawn();

    let registration = console.said.wait(WAIT_MAX, |line| line["is"] == "registration");
    assert_eq!(registration["headers"]["Authorization"], format!("Bearer {KEY}"));
    let body: Value = serde_json::from_str(registration["body"].as_str().expect("text")).expect("JSON");
    assert_eq!(body["instance_id"], support::INSTANCE_ID);

    let upgrade = console.said.wait(WAIT_MAX, |line| line["is"] == "upgrade");
    let id = format!("foreign-{}", support::INSTANCE_ID);
    assert_eq!(upgrade["headers"]["X-Instance-ID"], id.as_str());
    assert_eq!(console.frame(1, "registration")["protocol_version"], "1.0");
    assert!(console.frame(1, "heartbeat")["payload"]["uptime_seconds"].is_u64());
    assert!(console.frame(1, "metrics")["payload"]["memory"]["total_bytes"].is_u64());

    let dispatch = json!({"command_id": "c1", "command": "printf 'a b' | wc -c"});
    console.order(&json!({"do": "send", "frame": {
        "protocol_version": "1.0", "type": "command:dispatch", "payload": dispatch,
    }}));
    let result = console.frame(1, "command:result");
    assert_eq!((&result["payload"]["command_id"], &result["payload"]["exit_code"]), (&json!("c1"), &json!(0)));
    assert_eq!(result["payload"]["stdout"].as_str().map(str::trim), Some("3"));

    console.order(&json!({"do": "close", "code": 1012, "reason": "restart"}));
    let again = console.said.wait(RECONNECT_MAX, |line| line["is"] == "upgrade" && line["connection"] == 2);
    assert_eq!(again["headers"]["X-Instance-ID"], id.as_str());
    console.frame(2, "heartbeat");

    agent.drain();
    let closed = console.said.wait(WAIT_MAX, |line| line["is"] == "closed" && line["connection"] == 2);
    assert_eq!(closed["code"], 1000);
    assert_eq!(console.said.count(|line| line["is"] == "binary"), 0);
}

#[test]
fn restarted_console_process_is_found_again() {
    let Some(python) = python() else {
        return skip("foreign_console", "no Python environment under target/venv");
    };
    let mut console = Foreign::start(&python, None);
    let port = console.port();
    let agent = Setup::alone().env("SINDRI_CONSOLE_URL", console.url()).key(KEY).spawn();
    console.frame(1, "heartbeat");
    console.child.kill().expect("it runs");
    console.child.wait().expect("it was killed");
    agent.wait_log(|line| line["message"] == "connection lost");
    let next = Foreign::start(&python, Some(port));
    let upgrade = next.said.wait(RECONNECT_MAX, |line| line["is"] == "upgrade");
    assert_eq!(upgrade["headers"]["X-Instance-ID"], format!("foreign-{}", support::INSTANCE_ID));
    let event = next.said.wait(WAIT_MAX, |line| line["frame"]["payload"]["event_type"] == "disconnect");
    assert!(event["frame"]["payload"]["metadata"]["cause"].is_string(), "{event}");
    next.frame(1, "heartbeat");
    assert_eq!(next.said.count(|line| line["is"] == "registration"), 0, "the id was remembered");
    agent.drain();
}
