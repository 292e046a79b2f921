//! Programs whose start hangs on a file system that does not answer: nothing else waits for them.

use crate::support::hung::Hung;
use crate::support::{Agent, DRAIN_MAX, Setup, Signal, settles, skip};
use draupnir_console::{Console, Personality, What};
use serde_json::{Value, json};

fn setup(console: &Console, hung: &Hung) -> Setup {
    hung.within(Setup::new(console)).env("SINDRI_AGENT_HEARTBEAT", "0.2")
}

/// The mount; `None` if the host does not allow it.
fn hung(test: &str) -> Option<Hung> {
    Hung::mount().map_err(|reason| skip(test, &reason)).ok()
}

/// Checks that heartbeats and a Pong come, and that another command runs.
#[track_caller]
fn assert_goes_on(console: &Console, home: &std::path::Path) {
    let from_now = console.from_now();
    console.link().send_ping(b"goes on");
    from_now.wait("a Pong", |record| matches!(&record.what, What::Pong(pong) if pong == b"goes on"));
    from_now.nth_frame(3, "heartbeat");
    let other = json!({"command": "echo on", "working_dir": home});
    let id = format!("other {}", console.frames("command:result").len());
    console.browser().dispatch_with(&id, &other);
    assert_eq!(console.result(&id)["stdout"], "on\n");
}

/// Dispatches a command whose start hangs, and returns its result.
#[track_caller]
fn hangs(console: &Console, agent: &Agent, hung: &Hung, fields: &Value) -> Value {
    console.browser().dispatch_with("hangs", fields);
    hung.wait_kept(1);
    assert_goes_on(console, agent.home().path());
    console.result("hangs")
}

#[track_caller]
fn assert_timed_out(result: &Value) {
    assert_eq!((&result["exit_code"], &result["timed_out"]), (&json!(124), &json!(true)), "{result}");
    assert_eq!(result["stderr"], "timed out after 2000 ms\n", "{result}");
}

#[test]
fn hung_working_dir_times_out_and_delays_nothing() {
    let Some(hung) = hung("hung_working_dir_times_out_and_delays_nothing") else { return };
    let console = Console::start(Personality::production());
    let agent = setup(&console, &hung).spawn();
    let fields = json!({"command": "touch ~/ran", "working_dir": hung.place(), "timeout_ms": 2_000});
    assert_timed_out(&hangs(&console, &agent, &hung, &fields));
    // The agent kills and reaps the child whose start it gave up.
    assert_eq!(agent.process().children().len(), 1);
    hung.answer();
    settles(&console, "the late start is reaped", || agent.process().children().is_empty());
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}

#[test]
fn hung_program_times_out_and_delays_nothing() {
    let Some(hung) = hung("hung_program_times_out_and_delays_nothing") else { return };
    let console = Console::start(Personality::production());
    let agent = setup(&console, &hung).spawn();
    let program = hung.place().join("program");
    assert_timed_out(&hangs(&console, &agent, &hung, &json!({"command": program, "args": ["x"], "timeout_ms": 2_000})));
    agent.drain();
}

#[test]
fn hung_shell_is_closed_and_delays_nothing() {
    let Some(hung) = hung("hung_shell_is_closed_and_delays_nothing") else { return };
    let console = Console::start(Personality::production());
    let agent = setup(&console, &hung).spawn();
    console.browser().create("other", 80, 24);
    let shell = hung.place().join("shell");
    console.browser().create_with("hangs", &json!({"cols": 80, "rows": 24, "shell": shell}));
    hung.wait_kept(1);
    assert_goes_on(&console, agent.home().path());
    console.browser().input("other", b"echo st''ill\n");
    console.wait_text("other", "still");
    console.browser().close("hangs");
    assert_eq!(console.closed("hangs")["reason"], "closed");
    hung.answer();
    console.browser().close("other");
    console.closed("other");
    settles(&console, "the late start is reaped", || agent.process().children().is_empty());
    agent.drain();
}

#[test]
fn hung_home_delays_only_starts_in_it() {
    let Some(hung) = hung("hung_home_delays_only_starts_in_it") else { return };
    let console = Console::start(Personality::production());
    let agent = setup(&console, &hung).env("HOME", hung.place()).spawn();
    console.browser().create("hangs", 80, 24);
    assert_timed_out(&hangs(&console, &agent, &hung, &json!({"command": "true", "timeout_ms": 2_000})));
    console.browser().close("hangs");
    assert_eq!(console.closed("hangs")["reason"], "closed");
    agent.drain();
}

#[test]
fn sigterm_ends_the_agent_while_starts_hang() {
    let Some(hung) = hung("sigterm_ends_the_agent_while_starts_hang") else { return };
    let console = Console::start(Personality::production());
    let agent = setup(&console, &hung).env("HOME", hung.place()).spawn();
    console.browser().create("session", 80, 24).dispatch("command", "true");
    hung.wait_kept(2);
    agent.signal(Signal::TERM);
    assert!(agent.wait_exit(DRAIN_MAX).success());
    assert_eq!(console.closed("session")["reason"], "drained");
    let result = console.result("command");
    assert_eq!(result["cancelled"], true, "{result}");
    assert_eq!(console.close_frame().0, Some(1000));
}
