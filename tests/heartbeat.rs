//! What a heartbeat contains and when it comes (PROTOCOL.md, "heartbeat"; CONSOLE.md, "Heartbeats").

use crate::support::{Agent, INSTANCE_ID};
use draupnir_console::{Console, Personality, Record};
use serde_json::Value;

const FAST: (&str, &str) = ("SINDRI_AGENT_HEARTBEAT", "0.5");

fn uptime(heartbeat: &Record) -> u64 {
    heartbeat.payload()["uptime_seconds"].as_u64().expect("an integer")
}

#[test]
fn heartbeat_has_the_fields_the_console_shows() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    let heartbeat = console.frame("heartbeat");
    let (frame, payload) = (heartbeat.value(), heartbeat.payload());
    assert_eq!(frame["protocol_version"], "1.0");
    assert_eq!(frame.get("session_id"), None, "the console would take it for a command's id");
    assert_eq!(payload["instance_id"], INSTANCE_ID);
    assert!(payload["timestamp"].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')));
    assert!(payload["uptime_seconds"].is_u64());
    assert!((0.0..=100.0).contains(&payload["cpuPercent"].as_f64().unwrap_or(0.0)), "{payload}");
    for field in ["memoryUsed", "memoryTotal", "diskUsed", "diskTotal"] {
        assert!(payload.get(field).is_none_or(Value::is_u64), "{payload}");
    }
    assert!(payload["memoryTotal"].as_u64() > Some(0) && payload["diskTotal"].as_u64() > Some(0), "{payload}");
    for breaking in ["sindri_version", "cli_target"] {
        assert_eq!(payload.get(breaking), None);
    }
    agent.drain();
}

#[test]
fn first_heartbeat_has_a_figure_for_the_processors() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let console = Console::start(Personality::designed());
    let is_over = AtomicBool::new(false);
    let heartbeat = std::thread::scope(|scope| {
        // A busy processor, so that there is something to measure.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let agent = Agent::spawn(&console, &[]);
        let heartbeat = console.frame("heartbeat");
        is_over.store(true, Ordering::Relaxed);
        agent.drain();
        heartbeat
    });
    assert!(heartbeat.payload()["cpuPercent"].as_f64() > Some(0.0), "{}", heartbeat.raw());
}

#[test]
fn the_interval_is_a_maximum_and_jittered() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[FAST]);
    let heartbeats: Vec<_> = (1..=9).map(|n| console.nth_frame(n, "heartbeat")).collect();
    // The machine's unit tests check how late a heartbeat may come; on a loaded machine this test cannot. Eight times
    // 80 %:
    let spread_ms = heartbeats[8].at_ms - heartbeats[0].at_ms;
    assert!(spread_ms >= 8 * 400 - 100, "{spread_ms} ms for nine heartbeats");
    assert!(heartbeats.windows(2).all(|pair| uptime(&pair[1]) >= uptime(&pair[0])));
    agent.drain();
}

#[test]
fn it_comes_at_once_after_a_reconnect_and_heals_the_instance() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "3600")]);
    let first = console.frame("heartbeat");
    let id = first.payload()["instance_id"].as_str().expect("an id").to_owned();
    console.connection(1).close(1012, "restart");
    console.ended(1);
    assert!(console.is_error(&id));
    let second = console.on(2).frame("heartbeat");
    assert!(uptime(&second) >= uptime(&first), "the uptime is the process's");
    assert!(!console.is_error(&id));
    agent.drain();
    assert_eq!(console.frames("heartbeat").len(), 2);
}
