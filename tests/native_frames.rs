//! A malformed message, or one that is not for the agent, has no effect beyond itself. Frames in the console's native
//! form never cause an action, whatever else they contain (CONSOLE.md, "What it sends").

use std::path::Path;

use crate::support::{Agent, Home, Setup, mentions};
use draupnir_console::{Connection, Console, Personality, Record};
use serde_json::{Value, json};

/// The largest message that the agent reads.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

struct Stage {
    console: Console,
    home: Home,
    agent: Agent,
    link: Connection,
}

/// An agent that is connected and has sent its first message.
#[track_caller]
fn stage() -> Stage {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let agent = Setup::new(&console).home(&home).spawn();
    console.event("connect");
    let link = console.link();
    Stage { console, home, agent, link }
}

impl Stage {
    /// Returns when the agent has handled everything that was sent before, and checks that the link is still the same.
    #[track_caller]
    fn settle(&self) {
        assert_eq!(self.console.browser().run("true")["exit_code"], 0);
        assert_eq!(self.console.link().number(), self.link.number());
    }

    /// Waits until the log has the end of the agent's command `number`, and with it every earlier line.
    #[track_caller]
    fn logged_up_to_end(&self, number: u64) {
        self.agent.wait_log(|line| line["message"] == "command ended" && line["command"] == number);
    }

    fn warnings(&self, of: &str) -> usize {
        self.agent.log().count(|line| line["level"] == "WARN" && mentions(line, of))
    }
}

/// A dispatch of a command that creates the file `mark`.
fn dispatch(id: &str, mark: &Path) -> Value {
    json!({
        "protocol_version": "1.0", "type": "command:dispatch",
        "payload": {"command_id": id, "command": format!("touch {}", mark.display()), "timeout_ms": 5_000},
    })
}

fn with(mut frame: Value, key: &str, value: Value) -> Value {
    frame[key] = value;
    frame
}

#[test]
fn native_and_hybrid_frames_do_nothing() {
    let stage = stage();
    let mark = stage.home.path().join("mark");
    let create = json!({"protocol_version": "1.0", "type": "terminal:create", "session_id": "s", "payload": {"session_id": "s", "cols": 80, "rows": 24}});
    for native in [
        json!({"protocolVersion": "1.0", "channel": "heartbeat", "type": "heartbeat:pong", "data": {"ok": true}, "ts": 1}),
        with(dispatch("channel", &mark), "channel", json!("commands")),
        with(dispatch("null", &mark), "channel", Value::Null),
        with(dispatch("version", &mark), "protocolVersion", json!("1.0")),
        with(dispatch("odd", &mark), "protocolVersion", json!({})),
        with(with(dispatch("both", &mark), "protocolVersion", json!("1.0")), "channel", json!("commands")),
        with(create, "channel", json!("terminal")),
    ] {
        stage.link.send(&native);
    }
    // An escaped key is the same key.
    stage.link.send_text(&dispatch("escaped", &mark).to_string().replacen('{', r#"{"ch\u0061nnel":1,"#, 1));
    stage.settle();
    assert!(!mark.exists());
    let answers = stage.console.frames("command:result");
    assert_eq!(answers.len(), 1, "only the one that was asked for: {}", stage.console.story());
    let of_terminal = |record: &Record| record.kind().starts_with("terminal:");
    assert_eq!(stage.console.count(of_terminal), 0);
    stage.agent.drain();
}

/// Every message that causes an action, as the members of its frame.
fn actions(mark: &Path) -> Vec<[String; 3]> {
    let mark = mark.display();
    let messages = [
        ("terminal:create", json!({"session_id": "forged", "cols": 80, "rows": 24})),
        ("terminal:create", json!({"session_id": "live", "cols": 3, "rows": 3})),
        ("terminal:input", json!({"session_id": "live", "data": data_encoding::BASE64.encode(b"touch ~/mark\n")})),
        ("terminal:resize", json!({"session_id": "live", "cols": 3, "rows": 3})),
        ("terminal:close", json!({"session_id": "live"})),
        ("command:dispatch", json!({"command_id": "forged", "command": format!("touch {mark}")})),
        ("command:dispatch", json!({"command_id": "args", "command": "/bin/touch", "args": [mark.to_string()]})),
        ("command:cancel", json!({"command_id": "running"})),
    ];
    let members = |(kind, payload): (&str, Value)| {
        [r#""protocol_version":"1.0""#.to_owned(), format!(r#""type":"{kind}""#), format!(r#""payload":{payload}"#)]
    };
    messages.into_iter().map(members).collect()
}

/// Every spelling of a member that makes a frame native.
fn native_members() -> Vec<String> {
    let escaped = |key: &str| key.chars().map(|letter| format!("\\u{:04x}", u32::from(letter))).collect::<String>();
    let keys = ["channel", "ch\\u0061nnel", "protocolVersion", "protocol\\u0056ersion"].map(str::to_owned);
    let keys = keys.into_iter().chain([escaped("channel"), escaped("protocolVersion")]);
    let values = ["\"commands\"", "null", "\"\"", "false", "0", "{\"a\":[{}]}", "[\"1.0\"]"];
    let mut members: Vec<String> =
        keys.flat_map(|key| values.map(|value| format!(" \"{key}\"\t:\n{value} "))).collect();
    members.push(r#""channel":1,"channel":2"#.to_owned()); // twice: native before it is malformed
    members.push(r#""channel":1,"type":"command:dispatch""#.to_owned());
    members.push(format!("{},\"channel\":0", (0..1_000).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",")));
    members
}

#[test]
fn no_action_survives_a_native_key_in_any_place_or_spelling() {
    let stage = stage();
    let (browser, mark) = (stage.console.browser(), stage.home.path().join("mark"));
    browser.create("live", 80, 24).input("live", b"stty -echo; echo re''ady\n");
    stage.console.wait_text("live", "ready");
    browser.dispatch("running", "read forever </dev/zero || sleep 600");
    let mut sent = 0;
    for action in actions(&mark) {
        for native in native_members() {
            for place in 0..=action.len() {
                let mut members = action.to_vec();
                members.insert(place, native.clone());
                stage.link.send_text(&format!("{{{}}}", members.join(",")));
                sent += 1;
            }
        }
    }
    assert_eq!(sent, 8 * 45 * 4);
    stage.settle();
    // No frame has typed into, resized or closed the session, or cancelled the command.
    browser.input("live", b"stty size; echo still he''re\n");
    let stream = stage.console.wait_text("live", "still here");
    let shown = stream.text();
    assert!(shown.contains("24 80"), "{shown}");
    assert!(!mark.exists());
    let answers = stage.console.frames("command:result");
    assert_eq!(answers.len(), 1, "only the one that was asked for: {}", stage.console.story());
    assert_eq!(stage.console.frames("terminal:closed").len(), 0);
    // The same key below the top level is no key of the envelope.
    let nested =
        json!({"command_id": "nested", "command": "echo on", "channel": "commands", "x": {"protocolVersion": 1}});
    stage.link.send(&json!({"protocol_version": "1.0", "type": "command:dispatch", "payload": nested}));
    assert_eq!(stage.console.result("nested")["stdout"], "on\n");
    browser.cancel("running");
    assert_eq!(stage.console.result("running")["cancelled"], true);
    stage.agent.drain();
}

#[test]
fn duplicate_key_is_refused() {
    let stage = stage();
    let mark = stage.home.path().join("mark");
    let twice = dispatch("twice", &mark).to_string().replacen('{', r#"{"type":"heartbeat:ack","#, 1);
    stage.link.send_text(&twice);
    stage.settle();
    assert!(!mark.exists());
    stage.agent.drain();
}

#[test]
fn an_unknown_type_is_a_debug_line() {
    let stage = stage();
    stage.link.send(&json!({"protocol_version": "1.0", "type": "fleet:dance", "payload": {"x": 1}}));
    stage.link.send(&json!({"protocol_version": "1.0", "type": "log:unsubscribe", "payload": {"paths": []}}));
    stage.settle();
    stage.agent.wait_log(|line| line["level"] == "DEBUG" && mentions(line, "fleet:dance"));
    assert_eq!(stage.warnings("fleet:dance"), 0);
    stage.agent.drain();
}

#[test]
fn unknown_fields_are_ignored() {
    let stage = stage();
    let mark = stage.home.path().join("mark");
    let mut frame = with(dispatch("more", &mark), "trace", json!({"id": 7}));
    frame["payload"]["priority"] = json!("high");
    stage.link.send(&frame);
    assert_eq!(stage.console.result("more")["exit_code"], 0);
    assert!(mark.exists());
    stage.agent.drain();
}

#[test]
fn another_version_is_one_warning_a_connection_and_is_followed() {
    let stage = stage();
    let mark = stage.home.path().join("mark");
    for id in ["a", "b"] {
        stage.link.send(&with(dispatch(id, &mark), "protocol_version", json!("2.7")));
        assert_eq!(stage.console.result(id)["exit_code"], 0);
    }
    stage.logged_up_to_end(2);
    assert_eq!(stage.warnings("2.7"), 1);
    stage.link.reset();
    let again = stage.console.connection(2);
    again.view().frame("heartbeat");
    again.send(&with(dispatch("c", &mark), "protocol_version", json!("2.7")));
    stage.console.result("c");
    stage.logged_up_to_end(3);
    assert_eq!(stage.warnings("2.7"), 2);
    stage.agent.drain();
}

#[test]
fn malformed_frame_is_a_warning_and_no_disconnect() {
    let stage = stage();
    for bad in [
        "",
        "{",
        "null",
        "[]",
        "7",
        "\"text\"",
        "{}",
        r#"{"type":7,"payload":{}}"#,
        r#"{"type":"command:dispatch"}"#,
        r#"{"type":"command:dispatch","payload":null}"#,
        "\u{0}",
    ] {
        stage.link.send_text(bad);
    }
    stage.link.send_text(&"[".repeat(100_000));
    stage.settle();
    stage.agent.wait_log(|line| line["level"] == "WARN");
    stage.agent.drain();
}

#[test]
fn a_binary_message_is_ignored() {
    let stage = stage();
    let mark = stage.home.path().join("mark");
    stage.link.send_binary(dispatch("binary", &mark).to_string().as_bytes());
    stage.link.send_binary(&[0xff; 1000]);
    stage.settle();
    assert!(!mark.exists());
    stage.agent.drain();
}

#[test]
fn message_above_the_limit_closes_with_1009() {
    let stage = stage();
    let frame = |bytes: usize| {
        let bare = json!({"protocol_version": "1.0", "type": "fleet:filler", "payload": {"x": ""}}).to_string();
        bare.replacen(r#""x":"""#, &format!(r#""x":"{}""#, "y".repeat(bytes - bare.len())), 1)
    };
    assert_eq!(frame(MESSAGE_BYTES_MAX).len(), MESSAGE_BYTES_MAX);
    stage.link.send_text(&frame(MESSAGE_BYTES_MAX));
    stage.settle();
    stage.link.send_text(&frame(MESSAGE_BYTES_MAX + 1));
    assert_eq!(stage.link.view().close_frame().0, Some(1009));
    stage.agent.wait_log(|line| line["level"] == "WARN" && mentions(line, "over 1 MiB"));
    stage.console.on(2).frame("heartbeat");
    stage.agent.drain();
}

#[test]
fn text_that_is_no_utf_8_ends_the_connection_with_1007() {
    let stage = stage();
    stage.link.send_raw(&[0x81, 2, 0xc3, 0x28]);
    assert_eq!(stage.link.view().close_frame().0, Some(1007));
    stage.console.on(2).frame("heartbeat");
    stage.agent.drain();
}

#[test]
fn websocket_protocol_error_ends_the_connection() {
    for broken in [&[0xf1, 0][..], &[0x83, 0], &[0x81, 0x80, 1, 2, 3, 4], &[0x80, 1, b'x']] {
        let stage = stage();
        stage.link.send_raw(broken);
        stage.console.ended(1);
        stage.console.on(2).frame("heartbeat");
        stage.agent.drain();
    }
}

#[test]
fn a_ping_of_the_console_is_answered() {
    let stage = stage();
    stage.link.send_ping(b"are you there?");
    let is_it =
        |record: &Record| matches!(&record.what, draupnir_console::What::Pong(payload) if payload == b"are you there?");
    stage.console.wait("the pong", is_it);
    stage.agent.drain();
}
