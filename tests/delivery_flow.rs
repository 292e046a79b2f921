//! A console that reads slowly or not at all slows down only the flood: the agent's memory does not grow, Ctrl-C works,
//! and heartbeats and other sessions go on when the console reads again.

use crate::support;
use crate::support::{Agent, skip};
use draupnir_console::{Console, Greeting, Keep, Personality, Record, Upgrade, View, What};
use serde_json::json;
use std::time::{Duration, Instant};

/// How much the agent's memory may grow while the console does not read.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// The speed of a slow link.
const SLOW_BYTES_PER_SECOND: u64 = 100_000;

/// How much of a flood may arrive before more urgent messages: three seconds of a slow link.
const FLOOD_BEFORE_BYTES_MAX: u64 = 3 * SLOW_BYTES_PER_SECOND;

/// How soon the agent must notice a half-open link, also on a loaded machine.
const NOTICED: Duration = Duration::from_secs(30);

fn start(heartbeat: &str) -> (Console, Agent) {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    console.keep(Keep::Bytes);
    let agent = Agent::spawn(&console, &[("SINDRI_LOG_LEVEL", "info"), ("SINDRI_AGENT_HEARTBEAT", heartbeat)]);
    (console, agent)
}

/// A terminal with a shell that shows when it is ready for the next line.
fn open(console: &Console, session: &str) {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.wait_stream(session, "a prompt", |stream| stream.end > 0);
    console.browser().input(session, b"PS1='rea''dy> '\r");
    console.wait_text(session, "ready> ");
}

/// Types a line and waits for its output.
fn echo(console: &Console, session: &str, word: &str) {
    let shown = console.shown(session);
    let (head, tail) = word.split_at(1);
    console.browser().input(session, format!("echo {head}''{tail}\r").as_bytes());
    console.wait_text_after(session, shown, word);
}

fn flood(console: &Console, session: &str) {
    let shown = console.stream(session).end;
    console.browser().input(session, b"yes 'some sixty characters of text, or so, over and over and over'\r");
    console.wait_stream(session, "a flood", |stream| stream.end > shown + 200_000);
}

/// A shell that floods a slow link, long enough for the buffers on the way to fill up.
fn flood_slowly(console: &Console, bytes: u64) {
    console.keep(Keep::Everything);
    open(console, "flood");
    console.link().throttle(Some(SLOW_BYTES_PER_SECOND));
    let begun = console.stream("flood").end;
    console.browser().input("flood", b"yes 'some sixty characters of text, or so, over and over and over'\r");
    let long = console.within(Duration::from_secs(30));
    long.wait_stream("flood", "a slow flood", |stream| stream.end > begun + bytes);
}

/// How many bytes of the flood arrived between the records for which `ends` is true; the last count still grows. On a
/// slow link this count measures time, independently of the load of the machine.
fn flood_between(view: &View, ends: impl Fn(&Record) -> bool) -> Vec<u64> {
    let mut stretches = vec![0];
    for record in view.all(|_| true) {
        if ends(&record) {
            stretches.push(0);
        } else if record.kind() == "terminal:output" && record.payload()["session_id"] == "flood" {
            let data = record.payload()["data"].as_str().map_or(0, str::len);
            *stretches.last_mut().expect("there is one") += data as u64;
        }
    }
    stretches
}

#[test]
#[cfg(target_os = "linux")]
fn console_not_reading_for_a_minute_costs_no_memory() {
    const NAME: &str = "console_not_reading_for_a_minute_costs_no_memory";
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        return skip(NAME, "quick: it takes the minute that it speaks of");
    }
    let (console, agent) = start("1");
    open(&console, "quiet");
    open(&console, "flood");
    flood(&console, "flood");
    let before = agent.process().resident_bytes();
    // The console answers no upgrade for a minute.
    console.answer_upgrades(Some(Upgrade::hang()));
    let link = console.link();
    link.stall();
    let until = Instant::now() + Duration::from_secs(60);
    let mut most = before;
    // While the link counts as up, the program waits; without a link it prints on into the scrollback.
    let _ = console.within(Duration::from_secs(1)).from_now().comes(|_| false);
    let cpu_before = agent.process().cpu_time();
    let _ = console.within(Duration::from_secs(5)).from_now().comes(|_| false);
    let cpu = agent.process().cpu_time() - cpu_before;
    assert!(cpu < Duration::from_millis(500), "{cpu:?} of CPU in five seconds of standing still");
    while Instant::now() < until {
        // A pause between two samples: a stalled console records no event to wait for.
        let _ = console.within(Duration::from_millis(250)).from_now().comes(|_| false);
        most = most.max(agent.process().resident_bytes());
    }
    println!("{} KiB more at most, {cpu:?} of CPU while the link was up", (most - before) >> 10);
    assert!(most - before < GROWTH_BYTES_MAX, "{before} bytes resident, then {most}");
    let is_timeout = |line: &serde_json::Value| line.to_string().contains("PongTimeout");
    agent.wait_log(is_timeout);
    assert_eq!(agent.log().count(is_timeout), 1, "noticed by its deadline, once");
    let from_now = console.within(Duration::from_secs(60)).from_now();
    console.answer_upgrades(None);
    let attached = from_now.wait("the next link", |record| matches!(record.what, What::Attached));
    from_now.after(&attached).frame("heartbeat");
    echo(&console, "quiet", "alive");
    console.browser().input("flood", b"\x03");
    console.wait_text_after("flood", console.shown("flood"), "ready> ");
    agent.drain();
}

#[test]
fn after_a_short_stall_everything_goes_on_at_once() {
    let (console, agent) = start("1");
    open(&console, "quiet");
    open(&console, "flood");
    flood(&console, "flood");
    let link = console.link();
    let marked = console.stream("flood").end;
    link.stall();
    let _ = console.within(Duration::from_secs(4)).from_now().comes(|_| false);
    let from_now = console.from_now();
    link.resume();
    from_now.frame("heartbeat");
    echo(&console, "quiet", "alive");
    console.wait_stream("flood", "more", |stream| stream.end > marked + 1_000_000);
    assert!(console.stream("flood").gaps.is_empty());
    assert_eq!(console.count(|record| matches!(record.what, What::Attached)), 1, "the same link");
    console.browser().input("flood", b"\x03");
    agent.drain();
}

#[test]
fn flood_on_a_slow_link_ends_soon_after_ctrl_c() {
    let (console, agent) = start("1");
    open(&console, "quiet");
    flood_slowly(&console, 700_000);
    // Another terminal still gets its turn.
    let from_now = console.from_now();
    echo(&console, "quiet", "other");
    let is_quiet = |record: &Record| record.kind() == "terminal:output" && record.payload()["session_id"] == "quiet";
    let mut before = flood_between(&from_now, is_quiet);
    before.pop();
    let other: u64 = before.iter().sum();
    let (shown, from_now) = (console.shown("flood"), console.from_now());
    console.browser().input("flood", b"\x03");
    console.wait_text_after("flood", shown, "ready> ");
    let own: u64 = flood_between(&from_now, |_| false).iter().sum();
    println!("{own} bytes of the flood came after Ctrl-C, {other} before another session's echo");
    assert!(own < FLOOD_BEFORE_BYTES_MAX, "{own} bytes came after Ctrl-C");
    assert!(other < FLOOD_BEFORE_BYTES_MAX, "{other} bytes came before another session's echo");
    agent.drain();
}

#[test]
fn heartbeats_and_results_pass_a_flood_on_a_slow_link() {
    let (console, agent) = start("0.5");
    flood_slowly(&console, 300_000);
    let from_now = console.from_now();
    for number in 0..5 {
        assert_eq!(console.browser().run(&format!("echo {number}"))["exit_code"], 0);
    }
    let of_results = flood_between(&from_now, |record| record.kind() == "command:result");
    let of_beats = flood_between(&from_now, |record| record.kind() == "heartbeat");
    println!("bytes of the flood between results {of_results:?}, between heartbeats {of_beats:?}");
    assert!(of_beats.len() > 1, "a heartbeat came");
    for bytes in of_results.iter().chain(&of_beats) {
        assert!(*bytes < FLOOD_BEFORE_BYTES_MAX, "{bytes} bytes came before a result or a heartbeat");
    }
    agent.drain();
}

#[test]
fn half_open_link_is_noticed_and_its_messages_resent() {
    let (console, agent) = start("1");
    let home = agent.home().path().to_owned();
    let line = "mkfifo ~/go; read go < ~/go; echo $go";
    console.browser().dispatch_with("waits", &json!({"command": line, "timeout_ms": 120_000}));
    support::settles(&console, "it waits", || home.join("go").exists());
    let link = console.link();
    link.stall();
    std::fs::write(home.join("go"), "went\n").expect("it waits");
    let from_now = console.within(NOTICED).from_now();
    let attached = from_now.wait("the next link", |record| matches!(record.what, What::Attached));
    assert_ne!(attached.connection, link.number());
    let is_disconnect = |record: &Record| {
        record.kind() == "event"
            && record.payload()["event_type"] == "disconnect"
            && record.payload()["metadata"]["cause"] == "pong_timeout"
    };
    from_now.wait("why", is_disconnect);
    // The agent wrote the result to the half-open link, where the console did not read it.
    assert_eq!(console.on(attached.connection).result("waits")["stdout"], "went\n");
    agent.drain();
}
