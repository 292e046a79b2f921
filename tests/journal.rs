//! A killed agent loses nothing and runs nothing twice: results, ids and sessions outlive the process.
//!
//! `DRAUPNIR_KILLS` says how often the longest test kills the agent; `tests/run --full` sets a thousand.
#![cfg(target_os = "linux")]

mod support;

use draupnir_console::{Console, Greeting, Personality, Pongs, Record, Upgrade, What};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Agent, Home, Setup, Signal, skip};

/// How often the agent is killed unless `DRAUPNIR_KILLS` says otherwise.
const KILLS: u64 = 40;

fn console() -> Console {
    Console::start(Personality::designed().greeting(Greeting::Attached))
}

fn setup(console: &Console, home: &Home) -> Setup {
    Setup::new(console).home(home).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_AGENT_SHELL", "/bin/sh")
}

fn lines(home: &Home, file: &str) -> Vec<String> {
    let text = fs::read_to_string(home.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until the agent knows that the console has this message, and has it in its journal.
fn wait_acknowledged(console: &Console, record: &Record) {
    let is_marker = |ping: &Record| matches!(&ping.what, What::Ping(payload) if payload.get(1) == Some(&0x12));
    console.on(record.connection).after(record).wait("a marker", is_marker);
    // This command is accepted, and recorded, after the Pong of that.
    console.browser().run("echo later");
}

#[test]
fn unacknowledged_result_is_sent_again_after_kill() {
    let console = console();
    console.answer_upgrade(Upgrade::usual().pongs(Pongs::Withheld));
    let home = Home::new();
    let agent = setup(&console, &home).spawn();
    console.browser().dispatch("c", "echo run >> ~/ran; echo out; exit 3");
    let first = console.result("c");
    agent.kill();
    let before = console.from_now();
    let agent = setup(&console, &home).spawn();
    assert_eq!(before.result("c"), first, "the very same");
    // Once it is acknowledged it is not sent again, and a repeat finds no more than that it ran.
    wait_acknowledged(&console, &before.frame("command:result"));
    agent.kill();
    let before = console.from_now();
    let agent = setup(&console, &home).spawn();
    before.frame("heartbeat");
    console.browser().dispatch("c", "echo run >> ~/ran");
    assert_eq!(before.result("c")["reason"], "forgotten");
    assert_eq!(lines(&home, "ran"), ["run"]);
    agent.drain();
}

#[test]
fn command_of_killed_agent_is_interrupted_and_its_rest_killed() {
    let console = console();
    let home = Home::new();
    let agent = setup(&console, &home).spawn();
    console.browser().dispatch("c", "echo $$ >> ~/ran; (sleep 1000) & exec sleep 1000");
    support::settles(&console, "it runs", || lines(&home, "ran").len() == 1);
    let pid = lines(&home, "ran").remove(0);
    let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    support::settles(&console, "its start is in the journal", || stat().contains("(sleep)"));
    console.browser().run("true");
    agent.kill();
    assert!(stat().contains("(sleep)"), "it outlives the agent");
    let before = console.from_now();
    let agent = setup(&console, &home).spawn();
    let result = before.result("c");
    assert_eq!((&result["exit_code"], &result["reason"]), (&json!(137), &json!("interrupted")), "{result}");
    support::settles(&console, "what was left of it is gone", || !stat().contains("(sleep)"));
    let again = console.from_now();
    console.browser().dispatch("c", "echo again >> ~/ran");
    assert_eq!(again.result("c")["exit_code"], 137);
    assert_eq!(lines(&home, "ran").len(), 1);
    agent.drain();
}

#[test]
fn terminal_of_a_killed_agent_is_closed_and_its_id_free() {
    let console = console();
    let home = Home::new();
    let agent = setup(&console, &home).spawn();
    console.browser().create("s", 80, 24).input("s", b"echo re''ady\n");
    console.wait_text("s", "ready");
    agent.kill();
    let before = console.from_now();
    let agent = setup(&console, &home).spawn();
    let closed = before.closed("s");
    assert_eq!((&closed["exit_code"], &closed["reason"]), (&json!(137), &json!("interrupted")), "{closed}");
    wait_acknowledged(&console, &before.frame("terminal:closed"));
    let shown = console.shown("s");
    console.browser().create("s", 80, 24).input("s", b"echo on''ward\n");
    console.wait_text_after("s", shown, "onward");
    agent.drain();
}

#[test]
fn second_agent_on_one_directory_warns_and_keeps_no_journal() {
    let (one, other) = (console(), console());
    let home = Home::new();
    let first = setup(&one, &home).spawn();
    one.browser().run("true");
    let second = setup(&other, &home).spawn();
    let line = second
        .wait_log(|line| line["message"].as_str().is_some_and(|message| message.starts_with("journal not available")));
    assert!(line["error"].as_str().is_some_and(|error| error.contains("locked by another process")), "{line}");
    assert_eq!(other.browser().run("echo on")["stdout"], "on\n");
    second.drain();
    first.drain();
}

#[test]
fn journal_switched_off_leaves_no_file() {
    let console = console();
    let home = Home::new();
    let agent = setup(&console, &home).env("SINDRI_AGENT_JOURNAL", "off").spawn();
    console.browser().run("true");
    agent.drain();
    assert!(!home.state_dir().join("journal").exists());
}

#[test]
fn records_of_another_console_are_kept_and_not_sent() {
    let home = Home::new();
    let (ours, theirs) = (console(), console());
    ours.answer_upgrade(Upgrade::usual().pongs(Pongs::Withheld));
    let agent = setup(&ours, &home).spawn();
    ours.browser().dispatch("c", "echo run >> ~/ran");
    let first = ours.result("c");
    agent.kill();
    let agent = setup(&theirs, &home).spawn();
    theirs.browser().run("true");
    assert!(theirs.all(|record| record.kind() == "command:result" && record.payload()["command_id"] == "c").is_empty());
    agent.drain();
    let before = ours.from_now();
    let agent = setup(&ours, &home).spawn();
    assert_eq!(before.result("c"), first);
    agent.drain();
}

#[test]
fn full_disk_under_the_journal_is_said_once_and_stops_nothing() {
    const TEST: &str = "full_disk_under_the_journal_is_said_once_and_stops_nothing";
    let console = console();
    let home = Home::new();
    let agent = setup(&console, &home).spawn();
    console.browser().run("echo before");
    let Some(faults) = Faults::attach(&agent, &home, "write:error=ENOSPC") else {
        return skip(TEST, "the agent cannot be traced here");
    };
    for _ in 0..3 {
        assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    }
    drop(faults);
    console.browser().run("echo after");
    let is_warning =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with("journal write failed"));
    agent.wait_log(is_warning);
    agent.wait_log(|line| line["message"] == "journal written again");
    let said = agent.log().text().lines().filter(|line| line.contains("journal write failed")).count();
    assert_eq!(said, 1);
    agent.drain();
}

/// Lets system calls on the journal fail in a running agent, until it is dropped.
struct Faults(Child);

impl Faults {
    fn attach(agent: &Agent, home: &Home, inject: &str) -> Option<Faults> {
        let strace = ["/usr/bin/strace", "/bin/strace"].into_iter().find(|path| Path::new(path).exists())?;
        let mut command = Command::new(strace);
        command.args(["-f", "-o", "/dev/null"]);
        for file in ["journal", "journal.new"] {
            command.arg("-P").arg(home.state_dir().join(file));
        }
        command.arg(format!("-einject={inject}")).arg("-p").arg(agent.process().pid().to_string());
        let mut child = command.stderr(Stdio::piped()).spawn().ok()?;
        let mut said = std::io::BufReader::new(child.stderr.take()?);
        let is_attached =
            std::io::BufRead::lines(&mut said).map_while(Result::ok).any(|line| line.contains("attached"));
        let faults = Faults(child);
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        is_attached.then_some(faults)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the console dispatches: each leaves its id once for each time that it runs.
fn line_of(id: &str, number: u64) -> String {
    match number % 8 {
        // Some take a while, some print much: the file is compacted, and deaths find them running.
        0 => format!("echo {id} >> ~/ran; sleep 0.3; echo {id}"),
        1 => format!("echo {id} >> ~/ran; head -c 120000 /dev/zero | tr '\\0' x; echo {id}"),
        _ => format!("echo {id} >> ~/ran; echo {id}"),
    }
}

#[test]
fn kills_at_random_points_lose_nothing_and_run_nothing_twice() {
    let kills = std::env::var("DRAUPNIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let is_long = kills > KILLS;
    let seed = std::env::var("DRAUPNIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let console = Console::start(Personality::designed().greeting(Greeting::Attached).without_rate_limit());
    let home = Home::new();
    let mut random = Random(seed);
    let mut dispatched: BTreeMap<String, String> = BTreeMap::new();
    let mut faulty = 0;
    let began = Instant::now();
    for kill in 0..kills {
        let before = console.from_now();
        // The log of a thousand agents would be all that is seen of them.
        let agent = setup(&console, &home).env("SINDRI_LOG_LEVEL", "info").spawn();
        // Some die while they start and read what the one before left.
        if random.below(6) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(4_000)));
            agent.kill();
            continue;
        }
        before.frame("registration");
        // A write that fails once is written again; a sync or a rename that fails costs nothing.
        let calls =
            ["write", "fsync,fdatasync", "rename", "ftruncate"][usize::try_from(random.below(4)).expect("small")];
        let inject = format!("{calls}:error=EIO:when={}+7", 1 + random.below(5));
        let faults = if is_long || kill % 10 == 9 { Faults::attach(&agent, &home, &inject) } else { None };
        faulty += u64::from(faults.is_some());
        for _ in 0..1 + random.below(5) {
            let number = random.below(dispatched.len() as u64 + 3);
            let id = format!("c{}", number.min(dispatched.len() as u64));
            let line = dispatched.entry(id.clone()).or_insert_with(|| line_of(&id, number)).clone();
            console.browser().dispatch(&id, &line);
        }
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        agent.kill();
        drop(faults);
    }
    // What was on its way to a dead agent is asked for again, until everything has a result.
    let agent = setup(&console, &home).env("SINDRI_LOG_LEVEL", "info").spawn();
    let is_result = |record: &Record| record.kind() == "command:result";
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answered: BTreeSet<String> = console
            .all(is_result)
            .iter()
            .filter_map(|record| record.payload()["command_id"].as_str().map(str::to_owned))
            .collect();
        let Some((id, line)) = dispatched.iter().find(|(id, _)| !answered.contains(*id)) else { break };
        assert!(Instant::now() < deadline, "{id} has no result");
        console.browser().dispatch(id, line);
        // What does not come is asked for in the next round.
        let comes = |record: &Record| is_result(record) && record.payload()["command_id"] == **id;
        let _ = console.within(Duration::from_secs(10)).comes(comes);
    }
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    lines(&home, "ran").into_iter().for_each(|id| *runs.entry(id).or_default() += 1);
    assert!(runs.values().all(|runs| *runs == 1), "each at most once: {runs:?}");
    let mut results: BTreeMap<String, Value> = BTreeMap::new();
    for record in console.all(is_result) {
        let payload = record.payload();
        let id = payload["command_id"].as_str().expect("an id").to_owned();
        if payload["reason"] == "forgotten" {
            assert!(results.contains_key(&id), "its result came first: {payload}");
            continue;
        }
        let is_whole = payload["exit_code"] == 0
            && payload["stdout"].as_str().is_some_and(|text| text.ends_with(&format!("{id}\n")))
            && runs.contains_key(&id);
        let is_interrupted = payload["exit_code"] == 137 && payload["reason"] == "interrupted";
        assert!(is_whole || is_interrupted, "{payload}");
        let first = results.entry(id).or_insert_with(|| payload.clone());
        assert_eq!(first, payload, "one result, however often it comes");
    }
    assert_eq!(results.len(), dispatched.len());
    let interrupted = results.values().filter(|result| result["reason"] == "interrupted").count();
    println!(
        "{kills} kills in {} s, {faulty} of them with faults; {} commands, {interrupted} interrupted",
        began.elapsed().as_secs(),
        results.len()
    );
    agent.signal(Signal::TERM);
    agent.wait_exit(support::DRAIN_MAX);
}
