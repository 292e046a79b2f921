//! No session stops another: neither one that floods, nor one that does not read, nor one with a slow console.

use crate::support::Agent;
use draupnir_console::{Console, Keep, Personality};
use serde_json::json;

fn desk() -> (Console, Agent) {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    (console, agent)
}

fn open_quiet(console: &Console, session: &str) {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.browser().input(session, b"stty -echo; PS1=; PS2=; echo set''tled\n");
    console.wait_text(session, "settled\r\n");
}

fn line(console: &Console, session: &str, line: &str) {
    console.browser().input(session, format!("{line}\n").as_bytes());
}

#[test]
fn program_not_reading_delays_no_other_session() {
    let (console, agent) = desk();
    open_quiet(&console, "deaf");
    open_quiet(&console, "other");
    line(&console, "deaf", "stty raw; echo de''af; exec sleep 100");
    console.wait_text("deaf", "deaf");
    // More than the queue and the kernel hold together.
    let paste = vec![b'x'; 256 << 10];
    for _ in 0..6 {
        console.browser().input("deaf", &paste);
    }
    let event = console.event("error");
    assert!(event.payload()["message"].as_str().is_some_and(|text| text.contains("does not read")), "{event:?}");
    line(&console, "other", "echo $((6 * 7))");
    console.wait_text("other", "42\r\n");
    assert_eq!(console.browser().run("echo here")["stdout"], "here\n");
    console.browser().close("deaf");
    assert_eq!(console.closed("deaf")["reason"], "closed");
    agent.drain();
}

#[test]
fn a_flood_delays_neither_echo_nor_results_nor_heartbeats() {
    let (console, agent) = desk();
    console.keep(Keep::Bytes);
    open_quiet(&console, "other");
    open_quiet(&console, "flood");
    line(&console, "flood", "yes 'a flood of lines that fills the link'");
    console.wait_text("flood", "a flood");
    for round in 0..20 {
        line(&console, "other", &format!("echo round $(({round} + 100))"));
        console.wait_text("other", &format!("round {}\r\n", round + 100));
    }
    assert_eq!(console.browser().run("echo here")["stdout"], "here\n");
    console.from_now().nth_frame(3, "heartbeat");
    // The window makes the program wait, so the agent's memory does not grow and an interrupt works at once.
    console.browser().input("flood", b"\x03");
    line(&console, "flood", "echo qui''et");
    console.wait_text("flood", "quiet\r\n");
    assert!(console.stream("flood").gaps.is_empty());
    agent.drain();
}

#[test]
fn a_slow_console_keeps_the_program_waiting_and_memory_small() {
    let (console, agent) = desk();
    console.keep(Keep::Counts);
    open_quiet_counting(&console, "flood");
    let before = agent.process().resident_bytes();
    console.link().throttle(Some(200_000));
    line(&console, "flood", "yes 'a flood of lines that is read slowly'");
    console.wait_stream("flood", "a megabyte", |stream| stream.bytes > 1 << 20);
    let grown = agent.process().resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    assert!(console.stream("flood").gaps.is_empty());
    console.link().throttle(None);
    console.browser().close("flood");
    assert_eq!(console.closed("flood")["reason"], "closed");
    agent.drain();
}

/// The same on a console that keeps no text.
fn open_quiet_counting(console: &Console, session: &str) {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.wait_stream(session, "a prompt", |stream| stream.bytes > 0);
}
