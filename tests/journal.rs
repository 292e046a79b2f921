//! A killed agent loses nothing and runs nothing twice: results, ids and sessions outlive the process.
//!
//! `DRAUPNIR_KILLS` says how often the longest test kills the agent; `tests/run --full` sets a thousand.

use crate::support;
use crate::support::{Agent, Home, Setup, Signal, skip};
use draupnir_console::{Console, Greeting, Personality, Pongs, Record, Upgrade, View, What};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the agent is killed unless `DRAUPNIR_KILLS` says otherwise.
const KILLS: u64 = 80;

/// How many heartbeats in turn nothing may be written: longer than a sync is ever put off, at 0.2 s each.
const IDLE_HEARTBEATS: usize = 10;

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
    let is_warning =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with("journal write failed"));
    let warning = agent.wait_log(is_warning);
    assert_eq!(warning["step"], "write", "{warning}");
    drop(faults);
    assert_eq!(console.browser().run("echo after")["stdout"], "after\n");
    agent.wait_log(|line| line["message"] == "journal written again");
    assert_eq!(agent.log().count(is_warning), 1);
    agent.drain();
}

/// What stands in the place of the journal, and how it comes there.
type Plant<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn unusable_file_is_said_once_and_a_new_journal_protects() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let head_of_version_2 = |path: &Path| {
        let mut bytes = fs::read(path).expect("there is a journal");
        bytes[8] = 2;
        fs::write(path, bytes).expect("writable");
    };
    let plants: [Plant<'_>; 6] = [
        ("foreign", &|path| fs::write(path, "a text of another program").expect("writable")),
        ("cut in its head", &|path| fs::write(path, &fs::read(path).expect("it is there")[..20]).expect("writable")),
        ("of a later version", &head_of_version_2),
        ("of 1 GiB", &|path| fs::File::create(path).and_then(|file| file.set_len(1 << 30)).expect("it is sparse")),
        ("a directory", &|path| {
            fs::remove_file(path).and_then(|()| fs::create_dir(path)).expect("writable");
        }),
        ("a FIFO", &|path| {
            fs::remove_file(path).expect("writable");
            mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("writable");
        }),
    ];
    for (what, plant) in plants {
        let console = console();
        let home = Home::new();
        let agent = setup(&console, &home).spawn();
        console.browser().run("true");
        agent.kill();
        plant(&home.state_dir().join("journal"));
        let before = console.from_now();
        let agent = setup(&console, &home).spawn();
        let is_warning =
            |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with("journal not readable"));
        agent.wait_log(is_warning);
        before.frame("heartbeat");
        console.browser().dispatch("c", "echo run >> ~/ran; sleep 1000");
        support::settles(&console, "it runs", || lines(&home, "ran").len() == 1);
        assert_eq!(agent.log().count(is_warning), 1, "{what}");
        agent.kill();
        let before = console.from_now();
        let agent = setup(&console, &home).spawn();
        assert_eq!(before.result("c")["reason"], "interrupted", "{what}");
        console.browser().dispatch("c", "echo run >> ~/ran");
        agent.drain();
        assert_eq!((lines(&home, "ran").len(), agent.log().count(is_warning)), (1, 0), "{what}");
    }
}

#[test]
fn damaged_tail_is_said_once_and_earlier_ids_do_not_run_again() {
    let console = console();
    let home = Home::new();
    let agent = setup(&console, &home).spawn();
    console.browser().dispatch("c", "echo run >> ~/ran");
    console.result("c");
    agent.kill();
    let path = home.state_dir().join("journal");
    let mut bytes = fs::read(&path).expect("there is a journal");
    let place = bytes.len() - 10;
    bytes[place] ^= 1;
    bytes.extend(b"more that is no record, and longer than the head of one");
    fs::write(&path, bytes).expect("writable");
    let before = console.from_now();
    let agent = setup(&console, &home).spawn();
    before.frame("heartbeat");
    console.browser().dispatch("c", "echo run >> ~/ran");
    before.result("c");
    agent.drain();
    assert_eq!(lines(&home, "ran"), ["run"]);
}

#[test]
fn idle_agent_neither_writes_nor_syncs() {
    const TEST: &str = "idle_agent_neither_writes_nor_syncs";
    if !can_trace() {
        return skip(TEST, "the agent cannot be traced here");
    }
    let console = console();
    let (home, traces) = (Home::new(), Home::new());
    let trace = traces.path().join("trace");
    let mut traced = setup(&console, &home).program("strace").arg("-D").arg("-fqq").arg("-o").arg(&trace);
    for file in ["journal", "journal.new"] {
        traced = traced.arg("-P").arg(home.state_dir().join(file));
    }
    let agent = traced.arg("-etrace=write,fsync,fdatasync").arg(support::agent_program()).spawn();
    console.browser().run("true");
    let calls = || {
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let count = |call: &str| text.matches(call).count();
        (count("write("), count("fdatasync("), text.trim_end().ends_with("= 0"))
    };
    // The last record is that the console has the result; then it is synced.
    wait_acknowledged(&console, &console.frame("command:result"));
    let (mut seen, mut same) = (calls(), 0);
    support::settles(&console, "all is written and synced", || {
        let now = calls();
        same = if now == seen && now.2 { same + 1 } else { 0 };
        seen = now;
        same == IDLE_HEARTBEATS
    });
    assert!(seen.0 > 2 && seen.1 > 0, "the trace shows calls: {seen:?}");
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

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[usize::try_from(self.below(all.len() as u64)).expect("small")]
    }
}

/// A line for a shell that kills its agent. Where that is dead already the shell has another parent.
const KILL_AGENT: &str = "read name < /proc/$PPID/comm; case $name in sindri-agent*) kill -9 $PPID;; esac";

/// What the console dispatches: each leaves its id once for each time that it runs.
fn line_of(id: &str, number: u64) -> String {
    match number % 8 {
        // Deaths find some of them running, between their effect and their end.
        0 => format!("echo {id} >> ~/ran; sleep 0.3; echo {id}"),
        // Some print much: the file is compacted under way.
        1 => format!("echo {id} >> ~/ran; head -c 120000 /dev/zero | tr '\\0' x; echo {id}"),
        // Some kill their agent, before their effect or after it.
        2 => format!("{KILL_AGENT}; echo {id} >> ~/ran; echo {id}"),
        3 => format!("echo {id} >> ~/ran; echo {id}; {KILL_AGENT}"),
        _ => format!("echo {id} >> ~/ran; echo {id}"),
    }
}

/// The system calls on the journal's files at which an agent is killed, or of which some fail.
const CALLS: [&str; 4] = ["write", "fsync,fdatasync", "rename", "openat,ftruncate"];

/// The system calls that may fail: an agent whose open fails has no journal, and promises nothing.
const FAILING_CALLS: [&str; 3] = ["write", "fsync,fdatasync", "rename"];

/// How an agent dies.
enum Death {
    /// At its n-th of these calls in one thread, while some of the others fail.
    AtCall { calls: &'static str, n: u64, failing: Option<(&'static str, u64)> },
    /// Once the console has read so many records of what follows the dispatches.
    AfterRecords(usize),
}

impl Death {
    fn draw(random: &mut Random, can_trace: bool) -> Death {
        if !can_trace || random.below(4) == 0 {
            return Death::AfterRecords(usize::try_from(random.below(8)).expect("small"));
        }
        let calls = random.one_of(&CALLS);
        let failing = random.one_of(&FAILING_CALLS);
        // A write that fails once is written again; a sync or a rename that fails costs nothing.
        // Few calls of one thread are a rename or a sync.
        let n_max = |calls| if calls == "write" { 5 } else { 2 };
        let failing = (failing != calls).then(|| (failing, 1 + random.below(n_max(failing)).min(1)));
        Death::AtCall { calls, n: 1 + random.below(n_max(calls)), failing }
    }

    /// The agent under strace, where it needs that. It writes to `trace` which calls failed.
    fn prepare(&self, setup: Setup, home: &Home, trace: &Path) -> Setup {
        let Death::AtCall { calls, n, failing } = self else { return setup };
        let mut setup = setup.program("strace").arg("-D").arg("-fqq").arg("-o").arg(trace);
        for file in ["journal", "journal.new"] {
            setup = setup.arg("-P").arg(home.state_dir().join(file));
        }
        setup = setup.arg(format!("-einject={calls}:signal=KILL:when={n}"));
        if let Some((calls, n)) = failing {
            setup = setup.arg(format!("-einject={calls}:error=EIO:when={n}+5"));
        }
        setup.arg(support::agent_program())
    }
}

/// Dispatches a command to an agent that may die meanwhile.
fn dispatch(console: &Console, id: &str, line: &str) {
    let payload = json!({"command_id": id, "command": line});
    if let Some(link) = console.current_link() {
        link.send(&json!({"protocol_version": "1.0", "type": "command:dispatch", "payload": payload}));
    }
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-fqq", "-o", "/dev/null", "true"]).status();
    traced.is_ok_and(|status| status.success())
}

fn is_result(record: &Record) -> bool {
    record.kind() == "command:result"
}

fn is_result_of(record: &Record, id: &str) -> bool {
    is_result(record) && record.payload()["command_id"] == id
}

/// Looks again and again until the agent is dead or this comes.
fn dies_before(agent: &Agent, view: &View, comes: impl Fn(&[Arc<Record>]) -> bool) -> bool {
    let deadline = Instant::now() + support::WAIT_MAX;
    loop {
        if !agent.process().runs() {
            return true;
        }
        let records = view.all(|_| true);
        if comes(&records) {
            return false;
        }
        assert!(Instant::now() < deadline, "the agent neither dies nor answers");
        // Until the next record, or long enough to see that the agent is dead.
        let _ = view.from_now().within(Duration::from_millis(20)).comes(|_| true);
    }
}

/// What was dispatched, and what must be true of all that the console was sent.
#[derive(Default)]
struct Model {
    lines: BTreeMap<String, String>,
}

impl Model {
    /// Dispatches a few commands, of which some were dispatched before.
    fn dispatch(&mut self, console: &Console, random: &mut Random) -> Vec<String> {
        let count = 1 + random.below(5);
        let one = |_| {
            let number = random.below(self.lines.len() as u64 + 3).min(self.lines.len() as u64);
            let id = format!("c{number}");
            let line = self.lines.entry(id.clone()).or_insert_with(|| line_of(&id, number));
            dispatch(console, &id, line);
            id
        };
        (0..count).map(one).collect()
    }

    /// Dispatches again what was on its way to an agent that died, until everything has a result.
    fn complete(&self, console: &Console, mut start: impl FnMut() -> Agent) -> Agent {
        let mut agent = start();
        for (id, line) in &self.lines {
            while console.all(|record| is_result_of(record, id)).is_empty() {
                let view = console.from_now();
                let is_linked = |records: &[Arc<Record>]| records.iter().any(|record| record.kind() == "heartbeat");
                if !dies_before(&agent, &view, is_linked) {
                    dispatch(console, id, line);
                    let is_there = |records: &[Arc<Record>]| records.iter().any(|record| is_result_of(record, id));
                    if !dies_before(&agent, &view, is_there) {
                        break;
                    }
                }
                agent = start();
            }
        }
        agent
    }

    /// How many commands were interrupted.
    fn check(&self, console: &Console, home: &Home) -> usize {
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        lines(home, "ran").into_iter().for_each(|id| *runs.entry(id).or_default() += 1);
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
        assert!(results.keys().eq(self.lines.keys()), "every result arrives");
        results.values().filter(|result| result["reason"] == "interrupted").count()
    }
}

#[test]
fn kills_at_random_points_lose_nothing_and_run_nothing_twice() {
    const TEST: &str = "kills_at_random_points_lose_nothing_and_run_nothing_twice";
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (kills, mut random) = (number("DRAUPNIR_KILLS").unwrap_or(KILLS), Random(number("DRAUPNIR_SEED").unwrap_or(1)));
    let can_trace = can_trace();
    if !can_trace {
        skip(TEST, "the agent cannot be traced here");
    }
    let console = Console::start(Personality::designed().greeting(Greeting::Attached).without_rate_limit());
    let (home, traces) = (Home::new(), Home::new());
    let trace = traces.path().join("trace");
    let mut model = Model::default();
    // By strace at a call, by itself, by the test; and how many calls of each kind failed.
    let (mut deaths, mut failed) = ([0_u64; 3], BTreeMap::from(FAILING_CALLS.map(|calls| (calls, 0))));
    // A thousand agents log a lot.
    let setup = || setup(&console, &home).env("SINDRI_LOG_LEVEL", "info");
    for kill in 0..kills {
        // The first must be able to make its journal.
        let death = Death::draw(&mut random, can_trace && kill > 0);
        let before = console.from_now();
        let agent = death.prepare(setup(), &home, &trace).spawn();
        let is_linked = |records: &[Arc<Record>]| records.iter().any(|record| record.kind() == "registration");
        let mut has_died = dies_before(&agent, &before, is_linked);
        if !has_died {
            let since = console.from_now();
            let ids = model.dispatch(&console, &mut random);
            has_died = match death {
                Death::AfterRecords(records) => dies_before(&agent, &since, |read| read.len() >= records),
                Death::AtCall { .. } => dies_before(&agent, &since, |read| {
                    ids.iter().all(|id| read.iter().any(|record| is_result_of(record, id)))
                }),
            };
        }
        agent.kill();
        let Death::AtCall { failing, .. } = death else {
            deaths[if has_died { 1 } else { 2 }] += 1;
            continue;
        };
        // A command that kills its agent is another death.
        let traced = fs::read_to_string(&trace).unwrap_or_default();
        let was_injected = traced.lines().any(|line| line.ends_with("= ?"));
        deaths[if !has_died {
            2
        } else if was_injected {
            0
        } else {
            1
        }] += 1;
        if let Some((calls, _)) = failing {
            *failed.entry(calls).or_default() += traced.matches("(INJECTED)").count();
        }
    }
    let agent = model.complete(&console, || setup().spawn());
    let interrupted = model.check(&console, &home);
    let [at_calls, by_commands, by_test] = deaths;
    println!(
        "{kills} kills: {at_calls} at a call, {by_commands} by a command, {by_test} by the test; failed calls {failed:?}; \
         {} commands, {interrupted} interrupted",
        model.lines.len()
    );
    if can_trace {
        assert!(at_calls >= kills / 5 && by_commands > 0, "it dies in each way: {deaths:?}");
        assert!(failed.values().all(|count| *count > 0), "strace lets calls fail: {failed:?}");
    }
    agent.signal(Signal::TERM);
    agent.wait_exit(support::DRAIN_MAX);
}
