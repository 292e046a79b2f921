//! Which events the agent sends, and when; and that the console stores each with its type (CONSOLE.md, "Events").

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::{Agent, Home, Setup};
use draupnir_console::{Console, Personality, Record, What};
use serde_json::json;

const FAST: (&str, &str) = ("SINDRI_AGENT_HEARTBEAT", "0.2");

fn kinds(events: &[Arc<Record>]) -> Vec<&str> {
    events.iter().map(|event| event.payload()["event_type"].as_str().expect("text")).collect()
}

/// The next event of this type that is not `known`: the agent repeats an event that was not acknowledged before a loss.
#[track_caller]
fn next_of(console: &Console, known: &Record, event_type: &str) -> Arc<Record> {
    let id = &known.payload()["id"];
    let is_it = |record: &Record| record.payload()["event_type"] == event_type && record.payload()["id"] != *id;
    console.after(known).wait(&format!("another event {event_type}"), is_it)
}

#[test]
fn a_first_start_is_a_deploy_and_a_connect() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    let connect = console.event("connect");
    let events = console.frames("event");
    assert_eq!(kinds(&events), ["deploy", "connect"]);
    for event in &events {
        let payload = event.payload();
        let upper = payload["event_type"].as_str().expect("text").to_uppercase();
        assert_eq!(payload["eventType"], upper.as_str());
        assert_eq!(payload["instance_id"], console.instance_ids()[0].as_str());
        assert!(payload["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')));
        assert!(payload["id"].as_str().is_some_and(|id| !id.is_empty()));
        assert_eq!(event.value().get("session_id"), None);
    }
    assert_eq!(connect.payload()["metadata"]["attempts"], 1);
    assert!(connect.payload()["metadata"]["offline_ms"].is_u64());
    agent.drain();
}

#[test]
fn a_restart_with_a_remembered_id_is_no_deploy() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let agent = Setup::new(&console).home(&home).spawn();
    console.event("connect");
    agent.drain();
    let view = console.from_now();
    let agent = Setup::new(&console).home(&home).spawn();
    view.event("connect");
    agent.drain();
    assert_eq!(kinds(&console.frames("event")), ["deploy", "connect", "disconnect", "connect", "disconnect"]);
}

#[test]
fn disconnect_is_sent_after_reconnect_with_cause() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[FAST]);
    let first = console.event("connect");
    console.connection(1).close(1012, "service restart");
    let closed = console.on(2).event("disconnect");
    assert_eq!(
        (&closed.payload()["metadata"]["cause"], &closed.payload()["metadata"]["close_code"]),
        (&json!("closed"), &json!(1012))
    );
    let connect = next_of(&console, &first, "connect");
    assert!(closed.seq < connect.seq, "in the order in which it happened");
    console.connection(2).reset();
    let lost = next_of(&console, &closed, "disconnect");
    assert_eq!(lost.connection, 3);
    assert_eq!(lost.payload()["metadata"]["cause"], "lost");
    assert_eq!(lost.payload()["metadata"].get("close_code"), None);
    next_of(&console, &connect, "connect");
    agent.drain();
}

#[test]
fn the_attempts_and_the_time_without_a_link_are_counted() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    let first = console.event("connect");
    console.answer_upgrade(draupnir_console::Upgrade::status(503).header("Retry-After", "1"));
    console.connection(1).reset();
    let connect = next_of(&console, &first, "connect");
    assert_eq!(connect.payload()["metadata"]["attempts"], 2);
    let offline_ms = connect.payload()["metadata"]["offline_ms"].as_u64().expect("an integer");
    assert!(offline_ms >= 1_000, "{offline_ms}");
    agent.drain();
}

#[test]
fn drain_sends_disconnect_before_the_close_frame() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.event("connect");
    agent.drain();
    let event = console.event("disconnect");
    assert_eq!(event.payload()["metadata"]["cause"], "shutdown");
    let closed = console.wait("the close frame", |record| matches!(record.what, What::Closed(..)));
    assert!(event.seq < closed.seq);
}

#[test]
fn failing_capability_is_one_error_a_minute() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.event("connect");
    for id in ["s1", "s2", "s3"] {
        console.browser().create_with(id, &json!({"cols": 80, "rows": 24, "shell": "/nonexistent/shell"}));
        console.closed(id);
    }
    let error = console.event("error");
    assert_eq!(error.payload()["eventType"], "ERROR");
    assert!(error.payload()["message"].as_str().is_some_and(|text| !text.is_empty()));
    // The agent still reports another cause. All reports of the first cause have arrived by then.
    console.link().send_text("no JSON");
    let is_of =
        |source: &str, record: &Record| record.kind() == "event" && record.payload()["metadata"]["source"] == source;
    console.wait("the other error", |record| is_of("protocol", record));
    assert_eq!(console.count(|record| is_of("terminal", record)), 1);
    agent.drain();
}

#[test]
fn events_have_distinct_ids() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    for _ in 0..2 {
        let view = console.from_now();
        let agent = Setup::new(&console).home(&home).spawn();
        view.event("connect");
        agent.drain();
    }
    let events = console.frames("event");
    let ids: BTreeSet<&str> = events.iter().filter_map(|event| event.payload()["id"].as_str()).collect();
    assert_eq!(ids.len(), events.len());
}
