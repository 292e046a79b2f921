//! What the agent does when its link is refused, broken, closed, stalled or taken over: it reconnects once for each
//! cause, and not too soon.

use crate::support;
use std::time::Duration;

use crate::support::{Agent, Home, Setup};
use draupnir_console::{Console, End, Greeting, Personality, Record, Upgrade, What};
use serde_json::Value;

const FAST: (&str, &str) = ("SINDRI_AGENT_HEARTBEAT", "0.5");

/// The agent spreads its first retries over 10 and 20 s.
const RETRIES_MAX: Duration = Duration::from_secs(60);

/// An agent that is connected and has sent its first message.
#[track_caller]
fn connected(personality: Personality) -> (Console, Agent) {
    let console = Console::builder(personality).own_address().start();
    let agent = Agent::spawn(&console, &[FAST]);
    console.event("connect");
    (console, agent)
}

fn upgrades(console: &Console) -> usize {
    console.count(|record| matches!(record.what, What::Upgrade(_)))
}

fn registrations(console: &Console) -> usize {
    console.count(|record| matches!(record.what, What::Registration(..)))
}

/// An agent in this home, with a recording.
fn recorded(console: &Console, home: &Home) -> Setup {
    Setup::new(console).home(home).env("SINDRI_AGENT_RECORD", home.path().join("life.jsonl"))
}

/// The steps of that recording.
#[track_caller]
fn life(home: &Home) -> Vec<Value> {
    let life = std::fs::read_to_string(home.path().join("life.jsonl")).expect("it was recorded");
    life.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[track_caller]
fn at_ms(step: &Value) -> u64 {
    step["at_ms"].as_u64().expect("a time")
}

/// Closes the first link with this code and reason, and returns the milliseconds until the second is up.
#[track_caller]
fn closed_with(code: u16, reason: &str) -> u64 {
    let (console, agent) = connected(Personality::production());
    let registered = registrations(&console);
    console.connection(1).close(code, reason);
    let event = console.on(2).event("disconnect");
    assert_eq!(event.payload()["metadata"]["close_code"], code);
    console.on(2).frame("heartbeat");
    assert_eq!(console.ended(1), End::Closed);
    assert_eq!(console.browser().run("echo back")["stdout"], "back\n");
    assert_eq!((registrations(&console), console.instance_ids().len()), (registered, 1));
    let is_end = |record: &Record| record.connection == 1 && matches!(record.what, What::Ended(_));
    let (ended, dialled) = (console.wait("the end", is_end), console.upgrade(2));
    agent.drain();
    dialled.at_ms.checked_sub(ended.at_ms).expect("a connection is closed wholly before the next is dialled")
}

#[test]
fn console_starting_later_is_found() {
    let console = Console::builder(Personality::production()).own_address().start();
    console.stop_listening();
    let agent = Agent::spawn(&console, &[FAST]);
    agent.wait_log(|line| line["level"] == "WARN" && line.to_string().contains(&console.address().to_string()));
    console.listen();
    console.within(RETRIES_MAX).frame("heartbeat");
    agent.drain();
}

#[test]
fn a_reset_in_mid_life() {
    let (console, agent) = connected(Personality::production());
    let registered = registrations(&console);
    console.connection(1).reset();
    console.on(2).frame("heartbeat");
    let ids: Vec<_> = (1..=2).map(|number| console.connection_id(number)).collect();
    assert_eq!((ids[0].as_deref(), registrations(&console)), (ids[1].as_deref(), registered));
    agent.drain();
}

#[test]
fn an_end_without_a_close_frame() {
    let (console, agent) = connected(Personality::production());
    console.connection(1).finish();
    console.on(2).frame("heartbeat");
    agent.drain();
}

#[test]
fn a_link_cut_within_a_frame() {
    let (console, agent) = connected(Personality::production());
    console.connection(1).cut_after(3);
    console.on(2).frame("heartbeat");
    agent.drain();
}

#[test]
fn a_close_with_1000() {
    closed_with(1000, "");
}

#[test]
fn a_close_with_1011() {
    closed_with(1011, "internal error");
}

#[test]
fn close_1001_1012_1013_mean_the_console_goes_away() {
    std::thread::scope(|scope| {
        for code in [1001, 1012, 1013] {
            scope.spawn(move || closed_with(code, "going away"));
        }
    });
}

#[test]
fn a_close_with_1008_for_an_unknown_instance_registers_again() {
    let (console, agent) = connected(Personality::production());
    let old = console.instance_ids()[0].clone();
    console.forget(&old);
    console.connection(1).close(1008, &format!("Unknown instance ID: {old}"));
    let heartbeat = console.on(2).frame("heartbeat");
    let new = heartbeat.payload()["instance_id"].as_str().expect("an id").to_owned();
    assert_ne!(new, old);
    assert_eq!(console.instance_ids(), [new]);
    agent.drain();
}

/// The cases only wait, so all run at the same time, even with one test thread.
#[test]
fn long_waits() {
    let stories: [(&str, fn()); 4] = [
        (
            "a_close_with_1008_for_the_key_is_one_error_and_a_long_wait",
            a_close_with_1008_for_the_key_is_one_error_and_a_long_wait,
        ),
        ("shared_id_is_reported_at_third_replacement", shared_id_is_reported_at_third_replacement),
        ("a_stall_is_noticed_and_cured_by_one_resync", a_stall_is_noticed_and_cured_by_one_resync),
        (
            "thirty_seconds_of_a_good_connection_forget_the_failures_before",
            thirty_seconds_of_a_good_connection_forget_the_failures_before,
        ),
    ];
    std::thread::scope(|scope| {
        for (name, story) in stories {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn_scoped(scope, story).expect("a thread");
        }
    });
}

fn a_close_with_1008_for_the_key_is_one_error_and_a_long_wait() {
    let (console, agent) = connected(Personality::production());
    let registered = registrations(&console);
    console.connection(1).close(1008, "Authentication required. Use a WebSocket ticket");
    // 60 s, more or less by a half.
    console.within(Duration::from_secs(110)).upgrade(2);
    let (ended, dialled) =
        (console.on(1).wait("the end", |record| matches!(record.what, What::Ended(_))), console.upgrade(2));
    assert!(dialled.at_ms >= ended.at_ms + 29_000, "{} ms", dialled.at_ms - ended.at_ms);
    console.on(2).frame("heartbeat");
    let errors = agent.log().count(|line| line["level"] == "ERROR");
    assert_eq!((errors, registrations(&console)), (1, registered));
    agent.drain();
}

#[test]
fn replaced_link_waits_before_it_reconnects() {
    let (console, agent) = connected(Personality::designed().greeting(Greeting::Attached));
    console.connection(1).close(1001, "Replaced by new connection");
    let ended = console.on(1).wait("the end", |record| matches!(record.what, What::Ended(_)));
    let dialled = console.upgrade(2);
    assert!(dialled.at_ms >= ended.at_ms + 4_000, "{} ms", dialled.at_ms - ended.at_ms);
    console.on(2).frame("heartbeat");
    agent.drain();
}

fn shared_id_is_reported_at_third_replacement() {
    let (console, agent) = connected(Personality::designed().greeting(Greeting::Attached));
    for number in 1..=3 {
        console.within(RETRIES_MAX).on(number).frame("heartbeat");
        console.connection(number).close(1001, "Replaced by new connection");
    }
    let names_the_id = |text: &Value| text.as_str().is_some_and(|text| text.contains(support::INSTANCE_ID));
    agent.wait_log(|line| line["level"] == "ERROR" && names_the_id(&line["message"]));
    let event = console.within(RETRIES_MAX).event("error"); // after 5, 10 and 20 s
    assert!(names_the_id(&event.payload()["message"]), "{}", event.raw());
    assert_eq!(agent.log().count(|line| line["level"] == "ERROR"), 1);
    agent.drain();
}

fn a_stall_is_noticed_and_cured_by_one_resync() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let agent = recorded(&console, &home).env(FAST.0, FAST.1).spawn();
    console.event("connect");
    console.connection(1).stall();
    let event = console.within(RETRIES_MAX).on(2).event("disconnect");
    let cause = event.payload()["metadata"]["cause"].as_str().expect("text").to_owned();
    assert!(["pong_timeout", "write_stalled"].contains(&cause.as_str()), "{cause}");
    // Later the console gives up the stalled link and removes the new one from its table: then nothing reaches the
    // agent.
    assert_eq!(console.within(RETRIES_MAX).on(2).close_frame(), (Some(1000), "resync".to_owned()));
    console.on(3).frame("heartbeat");
    assert!(console.connection(3).is_routed());
    assert_eq!(console.browser().run("echo routed")["stdout"], "routed\n");
    assert_eq!(upgrades(&console), 3);
    agent.drain();
    // A Ping goes out within 10 s, and its Pong is overdue after 10 more, on the machine's clock and since its last
    // input.
    let steps = life(&home);
    let dropped = steps.iter().position(|step| step.to_string().contains(r#"{"drop_link":"#)).expect("it was dropped");
    let heard = |step: &&Value| ["received", "pong"].iter().any(|kind| support::has_input(step, kind));
    let last = steps[..dropped].iter().rfind(heard).expect("it was heard of");
    let noticed_ms = at_ms(&steps[dropped]) - at_ms(last);
    assert!(noticed_ms <= 20_000 + 2_000, "{noticed_ms} ms"); // the two seconds are for a loaded machine
}

#[test]
fn killed_console_coming_back_is_reconnected_within_ten_seconds() {
    let (console, home) = (Console::builder(Personality::production()).own_address().start(), Home::new());
    let agent = recorded(&console, &home).env(FAST.0, FAST.1).spawn();
    console.event("connect");
    let registered = registrations(&console);
    console.crash();
    let probed = |line: &Value| line["message"] == "probed the port of the console";
    agent.wait_log(|line| probed(line) && line["found"] == "Refused");
    console.listen();
    let view = console.from_now();
    view.within(RETRIES_MAX).frame("heartbeat");
    assert_eq!((registrations(&console), upgrades(&console)), (registered, 2));
    agent.drain();
    // What refused the agent last was the port before it listened. On the clock of the machine the next probe, or the
    // retry, comes within 2 s and the dial within 7 s more.
    let steps = life(&home);
    let refused = |step: &&Value| step["inputs"].to_string().contains(r#""refused""#);
    let last_refusal = steps.iter().rfind(refused).expect("it was refused");
    let opened = steps.iter().rfind(|step| support::has_input(step, "link_opened")).expect("it came back");
    let away_ms = at_ms(opened) - at_ms(last_refusal);
    assert!(away_ms <= 10_000 + 2_000, "{away_ms} ms"); // the two seconds are for a loaded machine
}

fn thirty_seconds_of_a_good_connection_forget_the_failures_before() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    for _ in 0..2 {
        console.answer_upgrade(Upgrade::status(503));
    }
    let agent = recorded(&console, &home).env("SINDRI_AGENT_HEARTBEAT", "4").spawn();
    let first = console.within(RETRIES_MAX).on(3).frame("heartbeat");
    let settled = |record: &Record| record.kind() == "heartbeat" && record.at_ms > first.at_ms + 32_000;
    console.within(RETRIES_MAX).wait("a heartbeat after more than 30 s", settled);
    console.connection(3).reset();
    console.on(4).frame("heartbeat");
    agent.drain();
    // The decision does not depend on the speed of this machine: the recording has the time at which the retry was due.
    let steps = life(&home);
    let lost = steps.iter().find(|step| support::has_input(step, "link_lost")).expect("it was lost");
    let closed = steps.iter().find(|step| support::has_input(step, "link_closed")).expect("its socket went");
    let wait_ms = closed["next"].as_u64().expect("a deadline") - at_ms(lost);
    assert!(wait_ms <= 2_000 + 1_000, "a first retry comes within 2 s, not in {wait_ms} ms");
}

/// Reads the instance id with which a connection was opened.
trait ConnectionId {
    fn connection_id(&self, number: u32) -> Option<String>;
}

impl ConnectionId for Console {
    fn connection_id(&self, number: u32) -> Option<String> {
        self.on(number).upgrade(1).request().header("X-Instance-ID").map(str::to_owned)
    }
}
