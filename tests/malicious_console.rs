//! A console that has turned against its instances: it can cost itself its link, but not the machine its memory, its CPU
//! or its disk, and the agent neither its life nor its heartbeats (PROTOCOL.md, what the agent refuses).
#![cfg(target_os = "linux")]

mod support;

use draupnir_console::{Connection, Console, Personality};
use serde_json::{Value, json};
use support::{Agent, Setup};

/// What a flood may leave behind in an agent's memory, in bytes: less than its buffers may take, far less than was sent.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

/// What a flood may leave behind in a log, in lines: an operator must still find his own.
const LINES_MAX: usize = 200;

struct Stage {
    console: Console,
    agent: Agent,
    link: Connection,
    resident_bytes: u64,
    lines: usize,
}

/// An agent as operators run it, that is connected and has run a command already.
#[track_caller]
fn stage() -> Stage {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_LOG_LEVEL", "info").env("SINDRI_AGENT_HEARTBEAT", "0.2");
    let agent = setup.spawn();
    let link = console.link();
    assert_eq!(console.browser().run("true")["exit_code"], 0);
    let (resident_bytes, lines) = (agent.process().resident_bytes(), agent.log().lines().len());
    Stage { console, agent, link, resident_bytes, lines }
}

impl Stage {
    /// Everything that was sent before has been dealt with, in the same life and on the same link, within the bounds.
    #[track_caller]
    fn survives(&self) {
        let answered = self.console.from_now();
        self.console.browser().dispatch("after the flood", "echo alive");
        assert_eq!(self.console.result("after the flood")["stdout"], "alive\n");
        answered.nth_frame(3, "heartbeat");
        assert_eq!(self.console.link().number(), self.link.number(), "the link was lost");
        let grown = self.agent.process().resident_bytes().saturating_sub(self.resident_bytes);
        assert!(grown <= GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
        let lines = self.agent.log().lines().len() - self.lines;
        assert!(lines <= LINES_MAX, "{lines} lines in the log");
        self.agent.drain();
    }

    fn flood(&self, count: usize, frame: &str) {
        for _ in 0..count {
            self.link.send_text(frame);
        }
    }
}

fn frame(kind: &str, payload: &Value) -> String {
    json!({"protocol_version": "1.0", "type": kind, "payload": payload}).to_string()
}

#[test]
fn a_flood_of_what_cannot_be_read() {
    let stage = stage();
    stage.flood(20_000, "{");
    stage.flood(20_000, "null");
    stage.flood(2_000, &"[".repeat(1_000));
    stage.survives();
}

#[test]
fn a_flood_of_what_cannot_be_followed() {
    let stage = stage();
    stage.flood(5_000, &frame("terminal:create", &json!({"session_id": "a\nb\u{1b}[2J"})));
    stage.flood(5_000, &frame("terminal:input", &json!({"session_id": "x", "data": "!"})));
    stage.flood(5_000, &frame("command:dispatch", &json!({"command": "id"})));
    stage.flood(5_000, &frame("command:cancel", &json!({"command_id": ["c"]})));
    stage.survives();
}

#[test]
fn a_flood_of_large_messages() {
    let stage = stage();
    let long = "x".repeat(1 << 19);
    stage.flood(64, &frame("terminal:input", &json!({"session_id": "x", "data": long})));
    stage.flood(64, &frame("command:cancel", &json!({"command_id": long})));
    let many = vec![""; 65_536];
    stage.flood(64, &frame("command:dispatch", &json!({"command_id": "c", "command": 7, "args": many})));
    for _ in 0..64 {
        stage.link.send_binary(long.as_bytes());
    }
    stage.survives();
}

#[test]
fn a_flood_of_pings() {
    let stage = stage();
    for _ in 0..50_000 {
        stage.link.send_ping(&[7; 125]);
    }
    stage.survives();
}
