//! Frames captured from a production console decode as their notes say. What the agent writes has the form of frames
//! that this console accepted.
//!
//! `tests/vectors` holds both: what the console sent, and what it accepted, with the rows that it stored.

use draupnir::protocol::metrics::{Disk, Live, Metrics, Stamped};
use draupnir::protocol::{
    Captured, ClosedReason, CommandId, CommandResult, Count, Event, EventType, Heartbeat, Ignored, Inbound, InstanceId,
    Inventory, MessageId, Metadata, Percent, SessionId, TerminalClosed, TerminalOutput, Timestamp, UsageRecord, close,
    decode,
};
use draupnir_fsm::fact::CloseReason;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

const FROM_CONSOLE: &str = include_str!("vectors/console_to_agent.jsonl");
const TO_CONSOLE: &str = include_str!("vectors/agent_to_console.jsonl");

/// Message types that the console accepts and this agent does not send.
const NOT_SENT: &[&str] = &["log:line", "log:batch", "heartbeat:ping"];

/// Fields of accepted frames that the agent leaves out, because they are not in the protocol or the console ignores
/// them.
const LEFT_OUT: &[&str] = &["agent_version", "type"];

fn lines(text: &str) -> impl Iterator<Item = (String, Value)> {
    text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("a vector is JSON");
        (line["note"].as_str().expect("a note").to_owned(), line)
    })
}

#[test]
fn captured_frames_decode_as_their_notes_say() {
    let mut frames = 0;
    for (note, line) in lines(FROM_CONSOLE) {
        let Some(raw) = line["raw"].as_str() else {
            continue;
        };
        let decoded = decode(raw).unwrap_or_else(|error| panic!("{note}: {error}"));
        assert_eq!(decoded.version_mismatch, None, "{note}");
        check(&note, &serde_json::from_str(raw).expect("JSON"), decoded.message);
        frames += 1;
    }
    assert_eq!(frames, 28);
}

/// Compares a message with a plain reading of its frame, chosen by the note.
fn check(note: &str, frame: &Value, message: Inbound) {
    let payload = &frame["payload"];
    let session = || payload["session_id"].as_str() == frame["session_id"].as_str();
    match (note.split_whitespace().next().expect("a word"), message) {
        ("on" | "browser" | "that", Inbound::LogSubscribe { paths }) => {
            assert_eq!((&frame["type"], &payload["paths"]), (&"log:subscribe".into(), &paths.into()), "{note}");
        }
        ("browser" | "that", Inbound::LogUnsubscribe { paths }) => {
            assert_eq!((&frame["type"], &payload["paths"]), (&"log:unsubscribe".into(), &paths.into()), "{note}");
        }
        ("answer" | "RAW", Inbound::Ignored(Ignored::Native)) => {
            assert!(frame.get("channel").is_some(), "{note}");
        }
        ("POST" | "GET", Inbound::CommandDispatch(dispatch)) => {
            assert_eq!(payload["command_id"], dispatch.command_id.as_str(), "{note}");
            assert_eq!(payload["command"], dispatch.command, "{note}");
            assert_eq!(payload["timeout_ms"], dispatch.timeout_ms, "{note}");
            let args: Vec<&str> = payload["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert_eq!(args, dispatch.args, "{note}");
            let script = note.ends_with("/script").then(|| b"echo hi".to_vec());
            assert_eq!(script, dispatch.script, "{note}");
            let env: Vec<String> = dispatch.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let expected: &[&str] = if note.contains("with args") { &["A=1", "B=x=y"] } else { &[] };
            assert_eq!(env, expected, "{note}");
        }
        ("browser", Inbound::TerminalCreate { cols: 80, rows: 24, shell: None, .. }) => {
            assert!(session() && note.contains("opened"), "{note}");
        }
        ("browser", Inbound::TerminalInput { data, .. }) => {
            assert!(session() && note.contains("typed"), "{note}");
            assert_eq!(data, b"ls -l\r", "{note}");
        }
        ("browser", Inbound::TerminalResize { cols: 132, rows: 43, .. }) => assert!(session(), "{note}"),
        ("the" | "STRAY:", Inbound::TerminalClose { session_id }) => {
            assert_eq!(payload["session_id"], session_id.as_str(), "{note}");
        }
        (_, other) => panic!("{note}: {other:?}"),
    }
}

#[test]
fn captured_closes_mean_what_their_notes_say() {
    let mut reasons = Vec::new();
    for (_, line) in lines(FROM_CONSOLE) {
        let Some(code) = line["close"]["code"].as_u64() else {
            continue;
        };
        let words = line["close"]["reason"].as_str().expect("a reason");
        reasons.push(close::reason(u16::try_from(code).expect("a close code"), words));
    }
    assert_eq!(reasons, [CloseReason::Replaced, CloseReason::Authentication, CloseReason::UnknownInstance]);
}

#[test]
fn agent_frames_have_the_form_of_accepted_ones() {
    let ours = ours();
    for (note, line) in lines(TO_CONSOLE) {
        let accepted: Value = serde_json::from_str(line["raw"].as_str().expect("a frame")).expect("JSON");
        let kind = accepted["type"].as_str().expect("a type");
        if NOT_SENT.contains(&kind) {
            continue;
        }
        let our = ours.iter().find(|frame| frame["type"] == kind).unwrap_or_else(|| panic!("{note}: no {kind}"));
        assert_has_form(our, &accepted, &note);
        assert_eq!(our.get("session_id").is_some(), accepted.get("session_id").is_some(), "{note}");
    }
}

/// Every field of `accepted` is in `our`, with the same type.
fn assert_has_form(our: &Value, accepted: &Value, path: &str) {
    match (our, accepted) {
        (Value::Object(our), Value::Object(accepted)) => {
            for (key, value) in accepted {
                // The content of an event's metadata is free.
                if path.ends_with("/metadata") || LEFT_OUT.contains(&key.as_str()) && path.ends_with("/payload") {
                    continue;
                }
                let our = our.get(key).unwrap_or_else(|| panic!("{path}/{key} is missing"));
                assert_has_form(our, value, &format!("{path}/{key}"));
            }
        }
        (Value::Number(our), Value::Number(accepted)) => {
            assert!(our.is_u64() || accepted.is_f64(), "{path}: {our} for {accepted}");
        }
        (Value::String(_), Value::String(_)) => {}
        (Value::Array(our), Value::Array(accepted)) => {
            let our = our.first().unwrap_or_else(|| panic!("{path} is empty"));
            accepted.iter().for_each(|entry| assert_has_form(our, entry, path));
        }
        _ => panic!("{path}: {our} for {accepted}"),
    }
}

/// One message of each type, as the agent writes it.
fn ours() -> Vec<Value> {
    let instance_id = &InstanceId::new("web-1").expect("an id");
    let session_id = &SessionId::new("0dc35302-b8d0-4ee0-8530-e2a37d518a44").expect("an id");
    let command_id = &CommandId::new("f11f22b3-0085-415f-8392-1803e935e6ce").expect("an id");
    let timestamp = Timestamp::from(UNIX_EPOCH + Duration::from_secs(1_795_211_178));
    let id = MessageId { process: 1, number: 1 };
    let inventory = &Inventory::new(Some("ubuntu"), Some(vec!["a".to_owned()]));
    let live = Live {
        cpu_percent: Percent::new(1.5),
        memory_used: Count::from(1),
        memory_total: Count::from(2),
        disk_used: Count::from(3),
        disk_total: Count::from(4),
    };
    let result = CommandResult {
        command_id,
        stdout: Captured::all(b"o\n"),
        stderr: Captured::all(b"e\n"),
        exit_code: 3,
        duration_ms: 5,
        timed_out: false,
        cancelled: false,
        reason: None,
    };
    let event = Event {
        instance_id,
        event_type: EventType::Connect,
        id,
        message: None,
        metadata: Metadata::new().with("attempts", 1_u64),
        timestamp,
    };
    let closed = TerminalClosed { session_id, exit_code: 0, reason: ClosedReason::Exited, message: None, id };
    let output = TerminalOutput { session_id, data: "hello é\r\n".as_bytes(), offset: None, replay: false };
    let disk = Disk {
        mount_point: "/".into(),
        device: "/dev/vda1".into(),
        fs_type: "ext4".into(),
        total_bytes: Count::new(20),
        used_bytes: Count::new(10),
        free_bytes: Count::new(10),
        usage_percent: Percent::of(10, 20),
        inodes_total: None,
        inodes_used: None,
        read_bytes_per_second: None,
        write_bytes_per_second: None,
    };
    let metrics = &Metrics { disk: vec![disk], ..Metrics::default() };
    let used = UsageRecord {
        provider: "anthropic",
        model: "claude-sonnet-4-5".to_owned(),
        operation: "chat",
        input_tokens: 10,
        output_tokens: 20,
        cache_read_tokens: Some(1),
        cache_write_tokens: Some(2),
        trace_id: id,
        ts: Count::new(1_795_211_222_103),
    };
    [
        Stamped { instance_id, timestamp, metrics }.message(),
        Heartbeat {
            instance_id,
            timestamp,
            uptime_seconds: Count::from(101),
            live: Some(live),
            inventory: Some(inventory),
        }
        .message(),
        event.message(),
        result.message(),
        output.message(),
        closed.message(),
        UsageRecord::batch(&[used]),
    ]
    .iter()
    .map(|frame| serde_json::from_str(frame).expect("JSON"))
    .collect()
}
