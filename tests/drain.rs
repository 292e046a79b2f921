//! SIGTERM: at the first the agent drains and exits with status 0, at the second it exits at once, whatever hangs.

use crate::support;
use std::time::Duration;

use crate::support::{Agent, DRAIN_MAX, Home, Setup, Signal, WAIT_MAX};
use draupnir_console::{Answer, Console, Greeting, Personality, Record, Upgrade, What};
use serde_json::Value;

/// Between "at once" and the drain's last step at 3.5 s.
const AT_ONCE_MS: u64 = 3_000;

#[track_caller]
fn connected() -> (Console, Agent) {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.event("connect");
    (console, agent)
}

/// An agent with a recording.
fn recorded(console: &Console) -> (Agent, Home) {
    let home = Home::new();
    let agent = Setup::new(console).home(&home).env("SINDRI_AGENT_RECORD", home.path().join("life.jsonl")).spawn();
    (agent, home)
}

/// How long the drain took, by the recording.
#[track_caller]
fn drained_for_ms(home: &Home) -> u64 {
    let life = std::fs::read_to_string(home.path().join("life.jsonl")).expect("it was recorded");
    let steps: Vec<Value> = life.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let asked = steps.iter().find(|step| support::has_input(step, "shutdown_requested")).expect("SIGTERM is in it");
    let last = steps.last().expect("there is a last step");
    assert_eq!(last["state"], "stopped");
    last["at_ms"].as_u64().expect("a time") - asked["at_ms"].as_u64().expect("a time")
}

fn is_draining(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|text| text.contains("draining"))
}

#[test]
fn drain_signals_end_it_with_a_close_frame_and_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let console = Console::start(Personality::production());
        let (agent, home) = recorded(&console);
        console.event("connect");
        agent.signal(signal);
        assert!(agent.wait_exit(DRAIN_MAX).success());
        assert_eq!(console.close_frame(), (Some(1000), "agent shutdown".to_owned()));
        assert_eq!(console.ended(1), draupnir_console::End::Closed);
        let drained_ms = drained_for_ms(&home);
        assert!(drained_ms < AT_ONCE_MS, "{drained_ms} ms");
    }
}

#[test]
fn in_every_phase_without_a_link_it_ends_at_once() {
    let quiet = Console::start(Personality::designed());
    quiet.answer_registrations(Some(Answer::never()));
    let refusing = Console::start(Personality::designed());
    refusing.answer_registrations(Some(Answer::status(503).header("Retry-After", "60")));
    let hanging = Console::start(Personality::designed());
    hanging.answer_upgrades(Some(Upgrade::hang()));
    let closed = Console::start(Personality::designed());
    closed.answer_upgrades(Some(Upgrade::status(503).header("Retry-After", "60")));
    for (phase, console, log) in [
        ("registering", &quiet, "registering"),
        ("waiting to register again", &refusing, "503"),
        ("dialling", &hanging, "dialling"),
        ("waiting to dial again", &closed, "503"),
    ] {
        let (agent, home) = recorded(console);
        agent.wait_log(|line| support::mentions(line, log));
        agent.drain();
        let drained_ms = drained_for_ms(&home);
        assert!(drained_ms < AT_ONCE_MS, "{phase}: {drained_ms} ms");
        assert_eq!(console.count(|record| matches!(record.what, What::Closed(..))), 0, "{phase}");
    }
}

#[test]
fn drain_before_first_message_sends_all_and_closes() {
    let console = Console::start(Personality::designed().greeting(Greeting::Never));
    let agent = Agent::spawn(&console, &[]);
    agent.wait_log(|line| line["message"] == "connected");
    agent.drain();
    assert_eq!(console.close_frame(), (Some(1000), "agent shutdown".to_owned()));
    console.event("connect");
}

#[test]
fn hanging_console_delays_the_exit_by_4_s_at_most() {
    let console = Console::start(Personality::production());
    let (agent, home) = recorded(&console);
    console.event("connect");
    console.connection(1).stall();
    agent.drain();
    let drained_ms = drained_for_ms(&home);
    assert!(drained_ms <= 4_000 + 1_000, "{drained_ms} ms"); // the second is for a loaded machine
}

#[test]
fn withheld_pongs_do_not_delay_the_drain() {
    let (console, agent) = connected();
    console.connection(1).pongs(draupnir_console::Pongs::Withheld);
    agent.drain();
    assert_eq!(console.close_frame().0, Some(1000));
}

#[test]
fn a_second_signal_ends_it_at_once_with_its_own_status() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (console, agent) = connected();
        console.connection(1).stall(); // without this the agent would exit before the second signal
        agent.signal(Signal::TERM);
        agent.wait_log(is_draining);
        agent.signal(signal);
        assert_eq!(agent.wait_exit(WAIT_MAX).code(), Some(status));
    }
}

#[test]
fn drain_reports_all_ends_before_the_close_frame() {
    let (console, agent) = connected();
    console.browser().create("s1", 80, 24).input("s1", b"echo r''eady\r");
    console.wait_text("s1", "ready");
    console.browser().dispatch("c1", "sleep 600");
    agent.wait_log(|line| line["message"] == "command started");
    agent.drain();
    let result = console.result("c1");
    assert_eq!(result["cancelled"], true, "{result}");
    assert!(console.closed("s1")["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    let closed = console.wait("the close frame", |record| matches!(record.what, What::Closed(..)));
    let is_end = |record: &Record| ["command:result", "terminal:closed"].contains(&record.kind());
    assert!(console.all(is_end).iter().all(|record| record.seq < closed.seq));
}

#[test]
fn programs_that_ignore_signals_are_killed_in_time() {
    let (console, agent) = connected();
    console.browser().dispatch("c1", "trap '' TERM HUP INT; echo $$ >&2; while :; do sleep 1; done");
    agent.wait_log(|line| line["message"] == "command started");
    agent.drain();
    let result = console.result("c1");
    let pid = result["stderr"].as_str().expect("text").trim().to_owned();
    assert!(!pid.is_empty() && !std::path::Path::new(&format!("/proc/{pid}")).exists(), "{result}");
}

#[test]
fn nothing_new_is_begun() {
    let (console, agent) = connected();
    console.browser().dispatch("c1", "trap '' TERM; sleep 600");
    agent.wait_log(|line| line["message"] == "command started");
    agent.signal(Signal::TERM);
    agent.wait_log(is_draining);
    let mark = agent.home().path().join("mark");
    console.browser().dispatch("c2", &format!("touch {}", mark.display()));
    let refused = console.result("c2");
    assert_eq!((refused["exit_code"].as_i64(), refused["reason"].as_str()), (Some(126), Some("draining")), "{refused}");
    assert!(agent.wait_exit(DRAIN_MAX + Duration::from_secs(2)).success());
    assert!(!mark.exists());
}
