//! Each dispatched id runs once and gets an answer, whatever happens to the link; and at most 16 commands run at once.

use crate::support;
use crate::support::{Agent, Setup};
use draupnir_console::{Console, Personality, Record};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn start() -> (Console, Agent) {
    let console = Console::builder(Personality::designed()).own_address().start();
    let agent = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.1").spawn();
    (console, agent)
}

fn is_result(record: &Record) -> bool {
    record.kind() == "command:result"
}

/// Waits until each of these ids has a result, and returns the ids that have one.
#[track_caller]
fn wait_for_all(console: &Console, ids: &BTreeSet<String>) {
    let view = console.within(Duration::from_secs(60));
    for id in ids {
        view.result(id);
    }
}

#[test]
fn a_repeat_starts_nothing_and_gets_the_same_result() {
    let (console, agent) = start();
    let browser = console.browser();
    let line = "echo run >> ~/ran; mkfifo ~/go; read go < ~/go; echo $go; exit 3";
    for _ in 0..3 {
        browser.dispatch("id", line);
    }
    // The answer to a later message shows that the agent has read them.
    browser.dispatch_with("malformed", &json!({"command": 1}));
    console.result("malformed");
    std::fs::write(agent.home().path().join("go"), "went\n").expect("it waits");
    let first = console.result("id");
    assert_eq!((&first["exit_code"], &first["stdout"]), (&json!(3), &json!("went\n")));
    for _ in 0..3 {
        let before = console.from_now();
        // The id has run, so another line with the same id does not run.
        browser.dispatch("id", "echo other >> ~/ran");
        assert_eq!(before.result("id"), first);
    }
    let ran = std::fs::read_to_string(agent.home().path().join("ran")).expect("it ran");
    assert_eq!(ran, "run\n");
    agent.drain();
}

#[test]
fn repeat_of_forgotten_result_fails_and_never_runs() {
    let (console, agent) = start();
    let browser = console.browser();
    browser.dispatch("old", "echo run >> ~/ran");
    console.result("old");
    for number in 0..256 {
        browser.dispatch_with(&format!("new {number}"), &json!({"command": "/bin/echo", "args": ["x"]}));
    }
    let all = (0..256).map(|number| format!("new {number}")).collect();
    wait_for_all(&console, &all);
    let before = console.from_now();
    browser.dispatch("old", "echo run >> ~/ran");
    let result = before.result("old");
    assert_eq!(result["reason"], "forgotten");
    assert_ne!(result["exit_code"], 0);
    assert!(result["stderr"].as_str().is_some_and(|text| text.contains("no longer remembered")), "{result}");
    let ran = std::fs::read_to_string(agent.home().path().join("ran")).expect("it ran");
    assert_eq!(ran, "run\n");
    agent.drain();
}

#[test]
fn repeated_dispatches_over_reconnects_run_once_each() {
    const IDS: usize = 300;
    const DISPATCHES: usize = 1_000;
    let (console, agent) = start();
    let mut ids = BTreeSet::new();
    let mut random = 1_u64;
    for number in 0..DISPATCHES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Each id comes at least once; many come again, soon or late.
        let id = if number % 4 == 0 { number / 4 } else { (random >> 33) as usize % IDS };
        let id = format!("command {id}");
        let line = format!("echo '{id}' >> ~/ran");
        // Waits for the answers to a third of them, so that never too many commands wait at once.
        console.browser().dispatch(&id, &line);
        if number % 3 == 0 {
            console.within(Duration::from_secs(60)).result(&id);
        }
        ids.insert(id);
        if number % 250 == 249 && number + 1 < DISPATCHES {
            let before = console.from_now();
            console.link().reset();
            before.upgrade(1);
            before.frame("registration");
        }
    }
    for number in 0..IDS {
        let id = format!("command {number}");
        if ids.insert(id.clone()) {
            console.browser().dispatch(&id, &format!("echo '{id}' >> ~/ran"));
        }
    }
    // A broken link loses messages. The console dispatches again what it has no answer to.
    for id in &ids {
        if !console
            .within(Duration::from_secs(5))
            .comes(|record| is_result(record) && record.payload()["command_id"] == *id)
        {
            console.browser().dispatch(id, &format!("echo '{id}' >> ~/ran"));
        }
    }
    wait_for_all(&console, &ids);
    let text = std::fs::read_to_string(agent.home().path().join("ran")).expect("they ran");
    let mut ran: Vec<&str> = text.lines().collect();
    ran.sort_unstable();
    let expected: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(ran, expected, "each side effect once");
    let mut answered = BTreeSet::new();
    for record in console.all(is_result) {
        let (id, code) = (&record.payload()["command_id"], &record.payload()["exit_code"]);
        let is_first = answered.insert(id.as_str().expect("an id").to_owned());
        // A late repeat is answered "forgotten"; the first answer is always the result.
        let forgotten = !is_first && record.payload()["reason"] == "forgotten";
        assert!(*code == 0 || forgotten, "{}", record.payload());
    }
    agent.drain();
}

#[test]
fn sixteen_run_at_once_256_wait_in_order_and_the_rest_is_busy() {
    let (console, agent) = start();
    let browser = console.browser();
    let home = agent.home().path().to_owned();
    std::fs::create_dir(home.join("up")).expect("the home is writable");
    let line = |number: usize| {
        format!(
            "echo {number} >> ~/started; touch ~/up/{number}; while [ ! -e ~/go ]; do sleep 0.05; done; rm ~/up/{number}"
        )
    };
    for number in 0..300 {
        browser.dispatch_with(&number.to_string(), &json!({"command": line(number), "timeout_ms": 120_000}));
    }
    let busy = console.nth(28, "refusals", |record| is_result(record) && record.payload()["reason"] == "busy");
    assert_eq!(busy.payload()["command_id"], "299");
    let up = || std::fs::read_dir(home.join("up")).expect("there").count();
    support::settles(&console, "sixteen are up", || up() == 16);
    // Neither heartbeats nor other messages wait for them.
    let before = console.from_now();
    before.nth_frame(3, "heartbeat");
    assert_eq!(up(), 16);
    browser.dispatch_with("0", &json!({"command": "touch ~/again"}));
    browser.cancel("20");
    assert_eq!(console.result("20")["exit_code"], 130, "what waits can be cancelled, too");
    std::fs::write(home.join("go"), "").expect("writable");
    let ids = (0..300).map(|number: usize| number.to_string()).collect();
    wait_for_all(&console, &ids);
    let started = std::fs::read_to_string(home.join("started")).expect("they ran");
    let started: Vec<usize> = started.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(started.len(), 271);
    // The kernel decides in which order the shells run. The agent's log shows in which order it started them.
    let text = agent.log().text();
    let begun: Vec<u64> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "starting command")
        .filter_map(|line| line["command"].as_u64())
        .collect();
    assert_eq!(begun.len(), 271);
    assert!(begun.is_sorted(), "they are started in order: {begun:?}");
    let refused: Vec<Value> =
        (272..300).map(|number: usize| console.result(&number.to_string())["reason"].clone()).collect();
    assert!(refused.iter().all(|reason| reason == "busy"), "{refused:?}");
    assert!(!home.join("again").exists());
    agent.drain();
}

#[test]
fn results_of_an_outage_come_after_the_reconnect() {
    let (console, agent) = start();
    let home = agent.home().path().to_owned();
    for number in 0..5 {
        let line = format!(
            "touch ~/up{number}; while [ ! -e ~/go ]; do sleep 0.05; done; echo out {number}; touch ~/end{number}"
        );
        console.browser().dispatch(&number.to_string(), &line);
    }
    support::settles(&console, "all are up", || (0..5).all(|number| home.join(format!("up{number}")).exists()));
    console.stop_listening();
    console.link().reset();
    console.ended(1);
    std::fs::write(home.join("go"), "").expect("writable");
    agent.wait_log(|line| line["message"] == "command ended");
    console.listen();
    for number in 0..5 {
        assert_eq!(console.result(&number.to_string())["stdout"], format!("out {number}\n"));
    }
    console.browser().run("true");
    assert!(console.count(is_result) <= 6 + 5, "at least once, and not again and again");
    agent.drain();
}
