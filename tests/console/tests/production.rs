//! Tests each habit of the production personality with a simple client.

mod client;

use std::time::Duration;

use async_tungstenite::tungstenite::{Error, Message};
use client::{connect, post, read, read_close, send, upgrade};
use draupnir_console::{Console, End, Personality, What};
use serde_json::{Value, json};

/// Registers on the production path and returns the id.
fn register(console: &Console, name: &str) -> String {
    let answer = post(console, "/api/v1/instances", &json!({"instance_id": name, "provider": "ssh"}));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

#[test]
fn registers_on_its_own_path_alone() {
    let console = Console::start(Personality::production().under("/prefix"));
    let body = json!({"instance_id": "i", "provider": "docker"});
    assert!(console.url().ends_with("/prefix"));
    assert!(post(&console, "/prefix/api/v1/instances/register", &body).starts_with("HTTP/1.1 404 "));
    let answer = post(&console, "/prefix/api/v1/instances", &body);
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.ends_with(r#","name":"i","provider":"docker"}"#), "{answer}");
    assert!(post(&console, "/prefix/api/v1/instances", &body).starts_with("HTTP/1.1 409 "));
    assert!(post(&console, "/prefix/api/v1/instances", &json!({})).starts_with("HTTP/1.1 422 "));
    console.set_key("another");
    let key = "Bearer wrong";
    let refused = upgrade(&console, "/prefix/ws/agent", &[("Authorization", key), ("X-Instance-ID", "i")]);
    let (code, reason) = read_close(&mut refused.expect("101 always"));
    assert_eq!(code, 1008);
    assert!(reason.starts_with("Authentication required. Use a WebSocket ticket (POST /api/v1/ws/ticket), API key"));
}

#[test]
fn the_eleventh_registration_in_a_minute_gets_429() {
    let console = Console::start(Personality::production());
    for n in 0..10 {
        register(&console, &format!("i{n}"));
    }
    let answer = post(&console, "/api/v1/instances", &json!({"instance_id": "late", "provider": "ssh"}));
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nRetry-After: "), "{answer}");
}

#[test]
fn frames_before_the_greeting_are_lost_and_pings_are_not() {
    let mut personality = Personality::production();
    personality.deaf_for = vec![Duration::from_millis(300)];
    let console = Console::start(personality);
    let id = register(&console, "i");
    let mut socket = connect(&console, &id);
    send(&mut socket, "heartbeat", &json!({"uptime_seconds": 0}));
    socket.send(Message::Ping((&b"early"[..]).into())).expect("sent");
    assert!(socket.read().expect("a pong before the greeting").is_pong());
    assert_eq!(read(&mut socket)["type"], "log:subscribe");
    send(&mut socket, "heartbeat", &json!({"uptime_seconds": 1}));
    let answer = read(&mut socket);
    assert_eq!((&answer["type"], &answer["channel"]), (&json!("heartbeat:pong"), &json!("heartbeat")));
    assert_eq!((&answer["protocolVersion"], &answer["instanceId"]), (&json!("1.0"), &json!(id)));
    assert_eq!(console.frames("heartbeat").len(), 1);
    assert_eq!(console.frame("heartbeat").payload()["uptime_seconds"], 1);
    let unheard = console.all(|record| matches!(record.what, What::Unheard(..)));
    assert_eq!(unheard.len(), 1);
}

#[test]
fn a_second_connection_replaces_the_first_and_loses_its_route() {
    let console = Console::start(Personality::production());
    let id = register(&console, "i");
    let mut first = connect(&console, &id);
    assert_eq!(read(&mut first)["type"], "log:subscribe");
    assert!(console.connection(1).is_routed());
    let mut second = connect(&console, &id);
    assert_eq!(read(&mut second)["type"], "log:subscribe");
    assert_eq!(read_close(&mut first), (1001, "Replaced by new connection".to_owned()));
    while first.read().is_ok() {}
    assert_eq!(console.ended(1), End::Closed);
    assert!(!console.connection(2).is_routed(), "the routing fault");
    assert!(console.is_error(&id));
    send(&mut second, "heartbeat", &json!({"uptime_seconds": 1}));
    assert_eq!(read(&mut second)["type"], "heartbeat:pong");
    assert!(!console.is_error(&id));
    second.close(None).expect("closed");
    while second.read().is_ok() {}
    console.ended(2);
    let mut third = connect(&console, &id);
    assert_eq!(read(&mut third)["type"], "log:subscribe");
    assert!(console.connection(3).is_routed());
}

#[test]
fn end_of_a_stalled_link_unroutes_the_next_one() {
    let mut personality = Personality::production();
    personality.gives_up_after = Duration::from_millis(200);
    let console = Console::start(personality);
    let id = register(&console, "i");
    let mut first = connect(&console, &id);
    assert_eq!(read(&mut first)["type"], "log:subscribe");
    console.connection(1).stall();
    drop(first);
    let mut second = connect(&console, &id);
    assert_eq!(read(&mut second)["type"], "log:subscribe");
    assert_eq!(console.ended(1), End::Ours);
    assert!(!console.connection(2).is_routed());
}

#[test]
fn unknown_ids_missing_ids_and_trailing_slashes() {
    let console = Console::start(Personality::production());
    let key = format!("Bearer {}", console.key());
    let authorization = ("Authorization", key.as_str());
    let mut unknown = connect(&console, "nope");
    assert_eq!(read_close(&mut unknown), (1008, "Unknown instance ID: nope".to_owned()));
    let slash = upgrade(&console, "/ws/agent/", &[authorization, ("X-Instance-ID", "i")]);
    assert!(matches!(slash, Err(error) if matches!(*error, Error::Io(_))), "the socket is destroyed");
    let mut browser = upgrade(&console, "/ws/agent", &[authorization]).expect("101");
    send(&mut browser, "heartbeat", &json!({"uptime_seconds": 1}));
    let unheard = console.wait("the frame", |record| matches!(record.what, What::Unheard(..)));
    assert_eq!(unheard.connection, 3);
    assert_eq!(console.connection(3).instance_id(), None);
}

#[test]
fn registering_a_name_in_error_makes_a_second_instance() {
    let console = Console::start(Personality::production());
    let first = register(&console, "i");
    let mut socket = connect(&console, &first);
    assert_eq!(read(&mut socket)["type"], "log:subscribe");
    drop(socket);
    console.ended(1);
    let second = register(&console, "i");
    assert_ne!(first, second);
    assert_eq!(console.instance_ids(), [first, second]);
}
