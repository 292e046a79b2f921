//! When the agent sends its first message on a new link, so that a console that does not listen yet loses nothing.

use std::time::Duration;

use crate::support::{Agent, Home, Setup};
use draupnir_console::{Console, Greeting, Personality, Record, What};

/// The console records times in whole milliseconds.
const ROUNDING_MS: u64 = 2;

#[track_caller]
fn opened_at_ms(console: &Console) -> u64 {
    console.wait("the 101", |record| matches!(record.what, What::Opened)).at_ms
}

fn is_unheard(record: &Record) -> bool {
    matches!(record.what, What::Unheard(..))
}

#[test]
fn nothing_is_said_before_the_greeting() {
    // The console does not listen for the first 5, 12 and 20 ms: one connection each.
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    for number in 1..=3 {
        let link = console.connection(number);
        assert_eq!(link.hello()["type"], "registration");
        assert_eq!(link.hello()["payload"]["eventType"], "CONNECT");
        link.view().frame("heartbeat");
        link.view().event("connect");
        if number < 3 {
            link.reset();
        }
    }
    assert_eq!(console.count(is_unheard), 0, "{}", console.story());
    agent.drain();
}

#[test]
fn console_without_first_message_gets_everything() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    let opened_ms = opened_at_ms(&console);
    let hello = console.connection(1).hello();
    assert_eq!(hello["type"], "registration");
    let heartbeat = console.frame("heartbeat");
    assert!(heartbeat.at_ms + ROUNDING_MS >= opened_ms + 1_000, "{} ms", heartbeat.at_ms - opened_ms);
    let event = console.event("connect");
    assert!(event.at_ms + ROUNDING_MS >= opened_ms + 5_000, "{} ms", event.at_ms - opened_ms);
    agent.drain();
}

#[test]
fn any_message_is_a_greeting() {
    let (console, home) = (Console::start(Personality::designed()), Home::new());
    let record = home.path().join("life.jsonl");
    let agent = Setup::new(&console).home(&home).env("SINDRI_AGENT_RECORD", &record).spawn();
    console.connection(1).send_text("not even JSON");
    console.event("connect");
    agent.drain();
    let life = std::fs::read_to_string(record).expect("it was recorded");
    let opened = |line: &str| line.contains(r#"{"received":{"#) && line.contains(r#""gate":"all""#);
    assert!(life.lines().any(opened), "{life}");
}

#[test]
fn events_wait_for_a_greeting_that_comes_late() {
    let late = Greeting::After(Duration::from_secs(2));
    let console = Console::start(Personality::production().greeting(late));
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "1")]);
    console.event("deploy");
    console.event("connect");
    console.frame("heartbeat"); // the console missed the first one, but not the next
    assert_eq!(console.count(|record| is_unheard(record) && record.value()["type"] == "event"), 0);
    agent.drain();
}
