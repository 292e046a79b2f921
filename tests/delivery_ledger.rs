//! Acknowledgements, and what the agent keeps while no console is connected. The agent ignores repeated and forged
//! acknowledgements. Without one it sends everything again, and a message after which the console drops the connection
//! three times at most.

use crate::support;
use crate::support::{Agent, Home, Setup};
use draupnir_console::{Answer, Console, Greeting, Personality, Pongs, Record, Upgrade, What};
use serde_json::json;
use std::time::Duration;

/// The longest wait for the next link: more than the longest of the policy's.
const NEXT_LINK: Duration = Duration::from_secs(60);

fn start() -> (Console, Agent) {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.5")]);
    (console, agent)
}

fn is_result_of(record: &Record, id: &str) -> bool {
    record.kind() == "command:result" && record.payload()["command_id"] == id
}

fn results_of(console: &Console, id: &str) -> usize {
    console.count(|record| is_result_of(record, id))
}

/// Waits for a marker Ping after the record. Its Pong acknowledges everything before it.
fn wait_marker(console: &Console, record: &Record) {
    let is_marker = |ping: &Record| matches!(&ping.what, What::Ping(payload) if payload.get(1) == Some(&0x12));
    console.on(record.connection).after(record).wait("a marker", is_marker);
}

#[test]
fn acknowledged_messages_are_not_resent_after_two_pongs() {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    console.answer_upgrades(Some(Upgrade::usual().pongs(Pongs::Twice)));
    let agent = Agent::spawn(&console, &[]);
    let browser = console.browser();
    browser.run("echo one");
    let one = console.wait("it", |record| is_result_of(record, "echo one"));
    wait_marker(&console, &one);
    // The agent runs the second command after it has received the Pongs that were sent before it.
    browser.run("echo two");
    console.link().reset();
    let attached = |record: &Record| matches!(record.what, What::Attached);
    console.within(NEXT_LINK).nth(2, "the next link", attached);
    browser.run("echo three");
    assert_eq!(results_of(&console, "echo one"), 1);
    agent.drain();
}

#[test]
fn unsolicited_pongs_acknowledge_nothing() {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    console.answer_upgrade(Upgrade::usual().pongs(Pongs::Withheld));
    let agent = Agent::spawn(&console, &[]);
    console.browser().run("echo one");
    let one = console.wait("it", |record| is_result_of(record, "echo one"));
    let link = console.link();
    // Payloads of the right form that were never sent, a real one with one bit changed, and noise.
    let ping = console.on(link.number()).after(&one).wait("a ping", |record| matches!(record.what, What::Ping(_)));
    let What::Ping(payload) = &ping.what else { panic!("a ping was waited for") };
    for byte in 0..payload.len() {
        let mut forged = payload.clone();
        forged[byte] ^= 1;
        link.send_pong(&forged);
    }
    link.send_pong(b"");
    link.send_pong(&[0xFF; 125]);
    console.browser().run("echo two");
    link.reset();
    let again = console.within(NEXT_LINK).nth(2, "it again", |record| is_result_of(record, "echo one"));
    let two = console.nth(2, "the other again", |record| is_result_of(record, "echo two"));
    assert!(again.seq < two.seq, "in order");
    agent.drain();
}

#[test]
fn console_without_pongs_gets_everything_again() {
    let (console, agent) = start();
    let first = console.link();
    first.pongs(Pongs::Withheld);
    for number in 0..20 {
        console.browser().run(&format!("echo {number}"));
    }
    // The agent gives up the link at its deadline; the console does not reset it.
    let attached = |record: &Record| matches!(record.what, What::Attached) && record.connection > first.number();
    let second = console.within(NEXT_LINK).wait("the next link", attached).connection;
    let mut places = Vec::new();
    for number in 0..20 {
        let id = format!("echo {number}");
        places.push(console.on(second).wait("it again", |record| is_result_of(record, &id)).seq);
    }
    assert!(places.is_sorted(), "in order: {places:?}");
    // Now the Pong acknowledges them.
    wait_marker(&console, console.on(second).frames("command:result").last().expect("twenty"));
    console.browser().run("echo done");
    console.link().reset();
    console
        .within(NEXT_LINK)
        .wait("a third link", |record| matches!(record.what, What::Attached) && record.connection > second);
    console.browser().run("echo third");
    assert_eq!(results_of(&console, "echo 0"), 2);
    agent.drain();
}

#[test]
fn offline_events_arrive_in_order_with_their_own_time() {
    let (console, agent) = start();
    let browser = console.browser();
    let home = agent.home().path().to_owned();
    let line = |name: &str| format!("mkfifo ~/{name}; read go < ~/{name}; date -u +%s.%N");
    for name in ["first", "second"] {
        browser.dispatch_with(name, &json!({"command": line(name), "timeout_ms": 120_000}));
        support::settles(&console, "it waits", || home.join(name).exists());
    }
    console.answer_upgrades(Some(Upgrade::status(503)));
    let link = console.link();
    link.reset();
    console.ended(link.number());
    std::fs::write(home.join("second"), "go\n").expect("it waits");
    let refused = |record: &Record| matches!(record.what, What::Upgrade(_)) && record.connection > link.number();
    let refused = console.within(NEXT_LINK).wait("a dial that the console refuses", refused);
    std::fs::write(home.join("first"), "go\n").expect("it waits");
    console.within(NEXT_LINK).after(&refused).wait("another", |record| matches!(record.what, What::Upgrade(_)));
    console.answer_upgrades(None);
    let first = console.within(NEXT_LINK).wait("it", |record| is_result_of(record, "first"));
    let second = console.wait("it", |record| is_result_of(record, "second"));
    assert!(second.seq < first.seq, "in the order in which they ended");
    let disconnect = console.event("disconnect");
    let connect = console.nth(2, "the second connect", |record| record.payload()["event_type"] == "connect");
    assert!(disconnect.seq < second.seq && first.seq < connect.seq.max(first.seq + 1));
    let happened = disconnect.payload()["timestamp"].as_str().expect("a time").to_owned();
    let later = connect.payload()["timestamp"].as_str().expect("a time").to_owned();
    assert!(happened < later, "{happened} is when it happened, not when it was sent ({later})");
    assert!(connect.payload()["metadata"]["offline_ms"].as_u64() > Some(0));
    // State is not queued: the new link begins with one registration and one heartbeat.
    let on = console.on(connect.connection);
    let before_results = on.all(|record| record.seq < second.seq && record.kind() == "heartbeat").len();
    assert!(before_results <= 1, "{before_results} heartbeats were kept");
    agent.drain();
}

#[test]
fn events_dropped_offline_are_counted_and_reported() {
    let (console, agent) = start();
    let browser = console.browser();
    let home = agent.home().path().to_owned();
    let names: Vec<String> = (0..12).map(|n| format!("long-{n}")).collect();
    for name in &names {
        let line = format!("mkfifo ~/{name}; read go < ~/{name}; head -c 700000 /dev/zero | tr '\\000' x");
        browser.dispatch_with(name, &json!({"command": line, "timeout_ms": 120_000}));
        support::settles(&console, "it waits", || home.join(name).exists());
    }
    console.answer_upgrades(Some(Upgrade::status(503)));
    let link = console.link();
    link.reset();
    console.ended(link.number());
    for name in &names {
        std::fs::write(home.join(name), "go\n").expect("it waits");
    }
    for command in 1..=names.len() {
        agent.log().wait(support::WAIT_MAX, |line| line["message"] == "command ended" && line["command"] == command);
    }
    console.answer_upgrades(None);
    let is_it = |record: &Record| record.kind() == "event" && record.payload()["metadata"]["source"] == "delivery";
    let event = console.within(NEXT_LINK).wait("what was dropped", is_it);
    assert_eq!(event.payload()["event_type"], "error");
    let lost = event.payload()["metadata"]["events"].as_u64().expect("a number");
    assert!(lost >= 1, "results displace events: {}", event.raw());
    // Every command has its answer, shortened if necessary.
    for name in &names {
        console.wait("its result", |record| is_result_of(record, name));
    }
    let disconnects = console.count(|record| record.payload()["event_type"] == "disconnect");
    assert_eq!(disconnects, 0, "it was among what was displaced");
    agent.drain();
}

#[test]
fn result_that_ended_three_links_is_cut_and_replays() {
    let mut personality = Personality::designed().greeting(Greeting::Attached);
    personality.message_bytes_max = 200_000;
    let (console, home) = (Console::start(personality), Home::new());
    let recording = home.path().join("life.jsonl");
    let agent = Setup::new(&console).home(&home).env("SINDRI_AGENT_RECORD", &recording).spawn();
    console.browser().create("s1", 80, 24).input("s1", b"echo a''b\r");
    console.wait_text("s1", "ab");
    console.connection(1).reset();
    console.on(2).frame("heartbeat");
    console.browser().run("true");
    console.browser().dispatch("long", "head -c 300000 /dev/zero | tr '\\000' x");
    let cut = console.within(NEXT_LINK * 2).wait("the cut result", |record| is_result_of(record, "long"));
    assert!(cut.raw().len() <= 16 << 10, "{} bytes", cut.raw().len());
    assert_eq!((&cut.payload()["stdout_truncated"], &cut.payload()["stdout_bytes"]), (&json!(true), &json!(300_000)));
    assert_eq!(cut.payload()["exit_code"], 0);
    // The second to the fourth connection ended because of it, or the agent first suspected another message on the
    // second.
    assert!((5..=6).contains(&cut.connection), "on connection {}", cut.connection);
    console.browser().run("echo it goes on");
    let deploys = console.count(|record| record.payload()["event_type"] == "deploy");
    assert!(deploys > 0, "what went before it was not dropped in its place");
    agent.drain();
    let life = std::fs::read_to_string(&recording).expect("it was recorded");
    assert_eq!((life.matches("result_cut").count(), life.matches("poison_dropped").count()), (1, 0));
    let replayed = Setup::alone().arg("replay").arg(&recording).output();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
}

#[test]
fn a_drain_waits_for_acknowledgements_and_no_longer_than_it_may() {
    let (console, agent) = start();
    console.browser().dispatch_with("running", &json!({"command": "echo begun; sleep 60", "timeout_ms": 120_000}));
    console.browser().run("echo one");
    agent.signal(support::Signal::TERM);
    let result = console.wait("its result", |record| is_result_of(record, "running"));
    assert_eq!(result.payload()["exit_code"], 143);
    let close = console.wait("the close frame", |record| matches!(record.what, What::Closed(..)));
    assert!(result.seq < close.seq);
    let pinged = console
        .count(|record| record.seq > result.seq && record.seq < close.seq && matches!(record.what, What::Ping(_)));
    assert!(pinged > 0, "it asked whether the result had arrived");
    assert!(agent.wait_exit(support::DRAIN_MAX).success());
}

#[test]
fn a_drain_without_acknowledgements_closes_by_its_deadline() {
    let (console, agent) = start();
    console.link().pongs(Pongs::Withheld);
    console.browser().run("echo one");
    let before = std::time::Instant::now();
    agent.signal(support::Signal::TERM);
    let close = console.wait("the close frame", |record| matches!(record.what, What::Closed(..)));
    assert!(agent.wait_exit(support::DRAIN_MAX).success());
    let waited = close.at.duration_since(before);
    assert!(waited > Duration::from_millis(3_400), "only {waited:?} for what was not acknowledged");
}

#[test]
fn an_idle_agent_sends_no_markers() {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    console.answer_registrations(Some(Answer::usual()));
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    let connect = console.event("connect");
    wait_marker(&console, &connect);
    let is_ping = |purpose: u8| {
        let is_so = move |payload: &[u8]| payload.get(1) == Some(&purpose);
        move |record: &Record| matches!(&record.what, What::Ping(payload) if is_so(payload))
    };
    let before = console.count(is_ping(0x12));
    // A keep-alive comes every ten seconds; until the next one the agent sends only heartbeats.
    console.from_now().wait("a keep-alive", is_ping(0x11));
    assert_eq!(console.count(is_ping(0x12)), before, "nothing waits for an acknowledgement");
    assert!(console.frames("heartbeat").len() > 5);
    agent.drain();
}
