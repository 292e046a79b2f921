//! How the agent requests its WebSocket, and its reaction to refusals (CONSOLE.md, "The WebSocket").

use std::time::Duration;

use crate::support::{Agent, INSTANCE_ID};
use draupnir_console::{Console, Personality, Upgrade, What};
use serde_json::Value;

/// The first retry of a dial comes within 10 s, the second within 20 s.
const RETRIES_MAX: Duration = Duration::from_secs(50);

fn is_error(line: &Value) -> bool {
    line["level"] == "ERROR"
}

#[test]
fn the_request_names_the_instance_and_carries_the_key() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    let upgrade = console.upgrade(1);
    let request = upgrade.request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/ws/agent"));
    assert_eq!(request.header("Authorization"), Some(format!("Bearer {}", console.key()).as_str()));
    assert_eq!(request.header("X-Instance-ID"), Some(INSTANCE_ID));
    assert_eq!(request.header("Sec-WebSocket-Version"), Some("13"));
    assert_eq!(request.header("Sec-WebSocket-Extensions"), None);
    let host = console.address().to_string();
    assert_eq!(request.header("Host"), Some(host.as_str()));
    agent.drain();
}

#[test]
fn refused_key_error_names_the_variable() {
    let after_101 = Upgrade::close(1008, "Authentication required. Use a WebSocket ticket, API key header, or sign in");
    for refusal in [after_101, Upgrade::status(401), Upgrade::status(403)] {
        let console = Console::start(Personality::designed());
        console.answer_upgrades(Some(refusal));
        let agent = Agent::spawn(&console, &[]);
        agent.wait_log(|line| is_error(line) && line.to_string().contains("SINDRI_CONSOLE_API_KEY"));
        agent.drain();
        assert_eq!(agent.log().count(is_error), 1);
        // The next attempt is at least half a minute away.
        assert_eq!(console.count(|record| matches!(record.what, What::Upgrade(_))), 1);
    }
}

#[test]
fn retry_after_of_the_upgrade_is_kept() {
    let console = Console::start(Personality::designed());
    console.answer_upgrade(Upgrade::status(503).header("Retry-After", "2"));
    let agent = Agent::spawn(&console, &[]);
    let (refused, next) = (console.upgrade(1), console.upgrade(2));
    assert!(next.at_ms >= refused.at_ms + 2_000, "{} ms", next.at_ms - refused.at_ms);
    console.frame("heartbeat");
    agent.drain();
}

#[test]
fn invalid_upgrade_answer_is_retried() {
    let console = Console::start(Personality::designed());
    console.answer_upgrade(Upgrade::wrong_accept());
    console.answer_upgrade(Upgrade::reset());
    let agent = Agent::spawn(&console, &[]);
    console.within(RETRIES_MAX).upgrade(3);
    console.frame("heartbeat");
    agent.drain();
}

#[test]
fn unanswered_upgrade_is_given_up() {
    let console = Console::start(Personality::designed());
    console.answer_upgrade(Upgrade::hang());
    let agent = Agent::spawn(&console, &[]);
    console.within(RETRIES_MAX).upgrade(2);
    console.frame("heartbeat");
    agent.drain();
}

#[test]
fn a_redirect_is_said_and_not_followed() {
    let (console, elsewhere) = (Console::start(Personality::designed()), Console::start(Personality::designed()));
    let location = format!("{}/ws/agent", elsewhere.url());
    console.answer_upgrade(Upgrade::status(302).header("Location", &location));
    let agent = Agent::spawn(&console, &[]);
    agent.wait_log(|line| line["level"] != "DEBUG" && line.to_string().contains(&location));
    console.within(RETRIES_MAX).upgrade(2);
    agent.drain();
    assert_eq!(elsewhere.accepted(), 0);
}
