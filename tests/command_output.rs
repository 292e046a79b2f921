//! The output of a command: bounded text in its result, with the end kept; and streamed while it runs.

use crate::support::Agent;
use draupnir_console::{Console, Personality, Record};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest encoded result.
const RESULT_BYTES_MAX: usize = 768 << 10;

fn start() -> (Console, Agent) {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    (console, agent)
}

/// Splits a text at the line about bytes left out: the text before it, the number in it, and the text after it.
#[track_caller]
fn parts(text: &Value) -> (&str, u64, &str) {
    let text = text.as_str().expect("text");
    let (head, rest) = text.rsplit_once("\n[").expect("a marker line");
    let (number, tail) = rest.split_once(" bytes left out]\n").expect("a marker line");
    (head, number.parse().expect("a number"), tail)
}

#[test]
fn long_output_keeps_its_beginning_and_its_end() {
    let (console, agent) = start();
    let result = console.browser().run("seq 1 1000000; seq 5 >&2");
    assert_eq!(result["exit_code"], 0);
    assert_eq!(result["stdout_truncated"], true);
    assert_eq!(result["stdout_bytes"], 6_888_896);
    assert_eq!((&result["stderr"], &result["stderr_bytes"]), (&json!("1\n2\n3\n4\n5\n"), &json!(10)));
    assert_eq!(result["stderr_truncated"], Value::Null);
    let (head, left_out, tail) = parts(&result["stdout"]);
    assert!(head.starts_with("1\n2\n3\n") && tail.ends_with("\n999999\n1000000\n"));
    assert_eq!(head.len() as u64 + left_out + tail.len() as u64, 6_888_896);
    // Head and tail each get half of the message. A line break takes two bytes there.
    assert!(head.len().abs_diff(tail.len()) < head.len() / 20, "{} and {}", head.len(), tail.len());
    agent.drain();
}

#[test]
fn invalid_text_is_replaced_and_controls_fit_the_message() {
    let (console, agent) = start();
    let result = console.browser().run(r"printf 'a\000b\377c\303'; printf '\001\033[m\n' >&2");
    assert_eq!(result["stdout"], "a\u{fffd}b\u{fffd}c\u{fffd}");
    assert_eq!(result["stderr"], "\u{1}\u{1b}[m\n");
    let line = r"head -c 1000000 /dev/zero | tr '\000' '\001'; head -c 1000000 /dev/zero >&2";
    console.browser().dispatch("control", line);
    let is_it = |record: &Record| record.kind() == "command:result" && record.payload()["command_id"] == "control";
    let record = console.wait("the result", is_it);
    assert!(record.raw().len() <= RESULT_BYTES_MAX, "{}", record.raw().len());
    assert!(record.raw().len() > RESULT_BYTES_MAX - 4096, "{}", record.raw().len());
    for field in ["stdout", "stderr"] {
        let (head, left_out, tail) = parts(&record.payload()[field]);
        assert_eq!(head.chars().count() as u64 + left_out + tail.chars().count() as u64, 1_000_000);
        assert_eq!(record.payload()[format!("{field}_bytes")], 1_000_000);
    }
    agent.drain();
}

#[test]
#[cfg(target_os = "linux")]
fn a_gigabyte_costs_no_memory() {
    let (console, agent) = start();
    console.browser().run("seq 1 300000 >&2; seq 1 300000");
    let before = agent.process().resident_bytes();
    let line = "yes | head -c 1G; grep VmRSS /proc/$PPID/status >&2";
    console.browser().dispatch_with("gigabyte", &json!({"command": line, "timeout_ms": 120_000}));
    let result = console.within(Duration::from_secs(120)).result("gigabyte");
    assert_eq!(result["stdout_bytes"], 1 << 30);
    let during = result["stderr"].as_str().and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    let grown = (during.expect("a number") << 10).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more while it printed");
    let after = agent.process().resident_bytes();
    assert!(after.saturating_sub(before) < 8 << 20, "{before} then {after}");
    agent.drain();
}

#[test]
fn streamed_output_comes_at_once_and_before_the_result() {
    let (console, agent) = start();
    let line = "mkfifo ~/go; printf 'one é'; read go < ~/go; echo two; echo problem >&2; seq 1 20000";
    console.browser().dispatch_with("s", &json!({"command": line, "stream": true}));
    console.wait_text("s/stdout", "one é");
    assert_eq!(console.count(|record| record.kind() == "command:result"), 0);
    std::fs::write(agent.home().path().join("go"), "go\n").expect("it waits");
    let result = console.result("s");
    let (stdout, stderr) = (console.stream("s/stdout"), console.stream("s/stderr"));
    assert_eq!(stderr.data, b"problem\n", "all output comes before the result");
    assert_eq!(result["stdout"].as_str().map(str::as_bytes), Some(stdout.data.as_slice()));
    assert_eq!(result["stdout_bytes"], stdout.end);
    assert_eq!((stdout.ragged_frames, stdout.gaps.len(), stdout.repeated_bytes), (0, 0, 0));
    agent.drain();
}

#[test]
fn large_streamed_output_is_whole_before_its_result() {
    const BYTES: u64 = 32 << 20;
    let (console, agent) = start();
    let line = format!("seq 1 10000000 | head -c {BYTES}; seq 1 10000000 | head -c {BYTES} | sha256sum >&2");
    console.browser().dispatch_with("s", &json!({"command": line, "stream": true, "timeout_ms": 120_000}));
    let result = console.result("s");
    let stream = console.stream("s/stdout");
    assert_eq!((stream.end, stream.gaps.as_slice(), stream.bytes), (BYTES, &[][..], BYTES));
    let sum = result["stderr"].as_str().and_then(|text| text.split(' ').next());
    assert_eq!(sum, Some(stream.sha256().as_str()));
    agent.drain();
}

#[test]
fn output_goes_only_to_streamed_commands() {
    let (console, agent) = start();
    for fields in [json!({}), json!({"stream": false}), json!({"stream": null})] {
        let mut fields = fields;
        fields["command"] = json!("echo quiet; echo silent >&2");
        let id = fields.to_string();
        console.browser().dispatch_with(&id, &fields);
        assert_eq!(console.result(&id)["stdout"], "quiet\n");
    }
    assert_eq!(console.frames("command:output").len(), 0);
    agent.drain();
}

#[test]
fn a_streamed_output_survives_a_reset_of_the_link() {
    let (console, agent) = start();
    let line = "mkfifo ~/go; seq 1 3000; read go < ~/go; seq 3001 6000";
    console.browser().dispatch_with("s", &json!({"command": line, "stream": true}));
    console.wait_text("s/stdout", "\n3000\n");
    console.link().reset();
    std::fs::write(agent.home().path().join("go"), "go\n").expect("it waits");
    let result = console.result("s");
    let stream = console.stream("s/stdout");
    assert_eq!(result["stdout"].as_str().map(str::as_bytes), Some(stream.data.as_slice()));
    assert!(stream.gaps.is_empty(), "{:?}", stream.gaps);
    agent.drain();
}
