//! A malicious console: it can lose its own link, but cannot exhaust the machine's memory, CPU or disk, end the agent,
//! or stop its heartbeats (PROTOCOL.md, what the agent refuses).

use crate::support;
use crate::support::{Agent, Setup};
use draupnir_console::{Connection, Console, Personality};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How much an agent's memory may grow in a flood, in bytes: less than its buffers may hold, far less than the flood.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

/// The most log lines of a flood: an operator must still find other lines.
const LINES_MAX: usize = 200;

struct Stage {
    console: Console,
    agent: Agent,
    link: Connection,
    resident_bytes: u64,
    lines: usize,
}

/// An agent with the default configuration, connected, that has run a command already.
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
    /// Checks that the same process has handled everything so far, on the same link and within the bounds.
    #[track_caller]
    fn survives(&self) {
        let answered = self.console.from_now();
        self.console.browser().dispatch("after the flood", "echo alive");
        assert_eq!(self.console.result("after the flood")["stdout"], "alive\n");
        answered.nth_frame(3, "heartbeat");
        assert_eq!(self.console.link().number(), self.link.number(), "the link was lost");
        let grown = self.agent.process().peak_bytes().saturating_sub(self.resident_bytes);
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
fn flood_of_unreadable_messages() {
    let stage = stage();
    stage.flood(20_000, "{");
    stage.flood(20_000, "null");
    stage.flood(2_000, &"[".repeat(1_000));
    stage.survives();
}

#[test]
fn flood_of_invalid_messages() {
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
    let long = "x".repeat((1 << 20) - 200);
    stage.flood(48, &frame("terminal:input", &json!({"session_id": "x", "data": long})));
    stage.flood(16, &frame("command:cancel", &json!({"command_id": long})));
    let many = vec![""; 65_536];
    stage.flood(64, &frame("command:dispatch", &json!({"command_id": "c", "command": 7, "args": many})));
    for _ in 0..16 {
        stage.link.send_binary(long.as_bytes());
    }
    stage.survives();
}

#[test]
fn a_flood_of_pings() {
    let stage = stage();
    let began = Instant::now();
    for _ in 0..30_000 {
        stage.link.send_ping(&[7; 125]);
    }
    stage.survives();
    // The agent reads ten thousand at once and five thousand a second. The rest waited on the console's side.
    assert!(began.elapsed() >= Duration::from_secs(4), "all of it was read within {:?}", began.elapsed());
}

#[test]
fn a_storm_of_sizes() {
    let stage = stage();
    let browser = stage.console.browser();
    browser.create("s", 80, 24).input("s", b"echo re''ady\n");
    stage.console.wait_text("s", "ready");
    for n in 0..20_000_u32 {
        browser.resize("s", u16::try_from(n % 500).expect("small"), u16::try_from(n % 7).expect("small"));
    }
    for odd in ["0", "-1", "1e308", "-1e308", "1e999", "0.5", "70000", "null", "\"80\"", "[]"] {
        stage.link.send_text(&format!(
            r#"{{"protocol_version":"1.0","type":"terminal:resize","payload":{{"session_id":"s","cols":{odd},"rows":{odd}}}}}"#
        ));
    }
    browser.resize("s", 91, 17).input("s", b"stty size; echo do''ne\n");
    assert!(stage.console.wait_text("s", "done").text().contains("17 91"));
    browser.close("s");
    stage.survives();
}

#[test]
fn ten_thousand_sessions_and_too_many_at_once() {
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        let name = "ten_thousand_sessions_and_too_many_at_once";
        return support::skip(name, "quick: ten thousand shells take their time");
    }
    let stage = stage();
    let browser = stage.console.browser();
    // A program that ends at once, so that the test waits for no deadline of the agent.
    let (waves, width) = (100, 100);
    stage.console.frame("metrics"); // the agent opens the files for metrics once
    let held = stage.agent.process().shows_descriptors().then(|| stage.agent.process().descriptors().len());
    for wave in 0..waves {
        let ids: Vec<String> = (0..width).map(|n| format!("{wave}-{n}")).collect();
        for id in &ids {
            browser.create_with(id, &json!({"cols": 80, "rows": 24, "shell": "/bin/true"})).close(id);
        }
        for id in &ids {
            stage.console.closed(id);
        }
    }
    let view = stage.console.from_now();
    for n in 0..2_000 {
        browser.create_with(&format!("many-{n}"), &json!({"cols": 80, "rows": 24, "shell": "/bin/cat"}));
    }
    let busy =
        view.wait("a refusal", |record| record.kind() == "terminal:closed" && record.payload()["reason"] == "busy");
    assert!(busy.payload()["message"].as_str().is_some_and(|text| text.contains("256")), "{}", busy.raw());
    for n in 0..2_000 {
        browser.close(&format!("many-{n}"));
    }
    support::settles(&stage.console, "every shell is gone", || stage.agent.process().children().is_empty());
    if let Some(held) = held {
        let most = held + 10;
        support::settles(&stage.console, "no descriptor is lost", || stage.agent.process().descriptors().len() <= most);
    }
    stage.console.browser().dispatch("after", "echo alive");
    assert_eq!(stage.console.result("after")["stdout"], "alive\n");
    let grown = stage.agent.process().resident_bytes().saturating_sub(stage.resident_bytes);
    assert!(grown <= GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
    stage.agent.drain();
}

#[test]
fn ids_that_look_like_something_else() {
    let stage = stage();
    let browser = stage.console.browser();
    for id in
        ["../../etc/passwd", "/dev/null", "$(touch ~/ran)", "`touch ~/ran`", "a b'c\"d\\e", "-rf", "%s%n", "é", "."]
    {
        browser.dispatch(id, "echo on");
        assert_eq!(stage.console.result(id)["stdout"], "on\n", "{id}");
        let shell = json!({"cols": 80, "rows": 24, "shell": "/bin/sh"});
        browser.create_with(id, &shell).input(id, b"exit 7\n");
        assert_eq!(stage.console.closed(id)["exit_code"], 7, "{id}");
    }
    for id in ["", "a\u{0}b", "a\nb", "a\u{1b}[2Jb", "a\u{9b}b", &"x".repeat(129)] {
        stage.link.send_text(&frame("command:dispatch", &json!({"command_id": id, "command": "touch ~/ran"})));
        stage.link.send_text(&frame("terminal:create", &json!({"session_id": id, "shell": "/usr/bin/env"})));
    }
    let home = stage.agent.home().path().to_owned();
    stage.survives();
    let left: Vec<_> = std::fs::read_dir(&home).expect("a home").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["state"], "an id became a file, or a command");
}

#[test]
fn commands_with_odd_surroundings() {
    let stage = stage();
    let browser = stage.console.browser();
    for (id, timeout) in [("zero", json!(0)), ("negative", json!(-1)), ("huge", json!(1e308))] {
        browser.dispatch_with(id, &json!({"command": "echo on", "timeout_ms": timeout}));
        assert_eq!(stage.console.result(id)["stdout"], "on\n", "{id}");
    }
    // The smallest time limit. Whether the command ends before it depends on the machine.
    browser.dispatch_with("fraction", &json!({"command": "echo on", "timeout_ms": 0.001}));
    let result = stage.console.result("fraction");
    assert!(result["stdout"] == "on\n" || result["timed_out"] == true, "{result}");
    let long = "d/".repeat(4_000);
    for (n, directory) in ["/no/such", "/etc/passwd", "../../../../../../no", "\u{1b}[2J", &long].iter().enumerate() {
        browser.dispatch_with(&format!("at-{n}"), &json!({"command": "touch ~/ran", "working_dir": directory}));
        let result = stage.console.result(&format!("at-{n}"));
        assert_eq!((&result["reason"], &result["exit_code"]), (&"spawn_failed".into(), &126.into()), "{result}");
    }
    // Variables for a child do not change the agent.
    let names = [
        "SINDRI_CONSOLE_URL=http://127.0.0.1:1",
        "SINDRI_AGENT_PANICS=9@9",
        "SINDRI_AGENT_COMMANDS=off",
        "LD_PRELOAD=/no/such.so",
        "PATH=/no/such",
        "IFS=e",
        "HOME=/no",
        "PWD=/no",
        "SHELL=/no",
    ];
    browser.dispatch_with("env", &json!({"command": "/bin/echo", "args": ["on"], "env": names}));
    assert_eq!(stage.console.result("env")["stdout"], "on\n");
    browser.dispatch("next", "echo \"${SINDRI_AGENT_PANICS-unset} ${LD_PRELOAD-unset}\"");
    assert_eq!(stage.console.result("next")["stdout"], "unset unset\n");
    let many = vec!["A=x"; 65_000];
    browser.dispatch_with("many", &json!({"command": "/bin/echo", "args": vec!["x"; 65_000], "env": many}));
    stage.console.result("many");
    browser.dispatch_with("long", &json!({"command": "/bin/echo", "args": ["x".repeat(900_000)]}));
    assert_eq!(stage.console.result("long")["reason"], "spawn_failed", "no program takes an argument of that length");
    assert!(!stage.agent.home().path().join("ran").exists());
    stage.survives();
}

#[test]
fn a_flood_of_commands() {
    let stage = stage();
    let end = Instant::now() + 4 * support::WAIT_MAX;
    let mut unanswered: BTreeSet<String> = (0..3_000).map(|n| format!("c{n}")).collect();
    while !unanswered.is_empty() {
        let link = stage.console.link().number();
        for id in &unanswered {
            stage.console.browser().dispatch(id, "true");
        }
        // A busy machine may lose the link, and with it what was on its way; then a console asks again.
        while !unanswered.is_empty() && stage.console.link().number() == link {
            assert!(Instant::now() < end, "{} commands without a result", unanswered.len());
            stage.console.from_now().frame("heartbeat");
            for result in stage.console.frames("command:result") {
                unanswered.remove(result.payload()["command_id"].as_str().expect("an id"));
            }
        }
    }
    let answered = stage.console.from_now();
    answered.nth_frame(2, "heartbeat");
    let grown = stage.agent.process().resident_bytes().saturating_sub(stage.resident_bytes);
    assert!(grown <= GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
    stage.agent.drain();
}

#[test]
fn commands_that_wait_with_all_that_a_message_can_hold() {
    let stage = stage();
    let browser = stage.console.browser();
    for n in 0..16 {
        browser.dispatch(&format!("running-{n}"), "sleep 600");
    }
    let long = format!("SINDRI_SCRIPT_B64={}", data_encoding::BASE64.encode(&vec![b'#'; 600 << 10]));
    let many = vec![""; 65_536];
    for n in 0..64 {
        browser.dispatch_with(&format!("long-{n}"), &json!({"command": "/bin/sh", "args": ["-s"], "env": [long]}));
        browser.dispatch_with(&format!("many-{n}"), &json!({"command": "/bin/true", "args": many}));
    }
    // The last one finds no room; the first one waits for its turn.
    assert_eq!(stage.console.within(4 * support::WAIT_MAX).result("many-63")["reason"], "busy");
    // A command that already waits needs no more room.
    browser.dispatch_with("long-0", &json!({"command": "/bin/sh", "args": ["-s"], "env": [long]}));
    let grown = stage.agent.process().resident_bytes().saturating_sub(stage.resident_bytes);
    assert!(grown <= GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
    for n in 0..16 {
        browser.cancel(&format!("running-{n}"));
    }
    assert_eq!(stage.console.result("long-0")["exit_code"], 0);
    stage.survives();
    let results =
        stage.console.count(|record| record.kind() == "command:result" && record.payload()["command_id"] == "long-0");
    assert_eq!(results, 1, "the second dispatch was not answered by itself");
}

#[test]
fn storm_of_attaches_and_unread_input() {
    let stage = stage();
    let browser = stage.console.browser();
    browser.create_with("s", &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    browser.input("s", b"head -c 400000 /dev/zero | tr '\\0' x; stty raw -echo; echo re''ady; exec sleep 600\n");
    stage.console.wait_text("s", "ready");
    for _ in 0..2_000 {
        browser.create("s", 80, 24);
    }
    let typed = vec![b'x'; 200 << 10];
    for _ in 0..200 {
        browser.input("s", &typed);
    }
    let refused = stage.console.event("error");
    assert_eq!(refused.payload()["metadata"]["session_id"], "s", "{}", refused.raw());
    browser.close("s");
    stage.console.closed("s");
    stage.survives();
}
