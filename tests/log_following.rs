//! Logs of the instance reach a console that asks for them: each line at least once, in the order of its file, across
//! rotations, lost links and deaths of the agent.
//!
//! Wire: PROTOCOL.md, "log:batch".

use crate::support;
use crate::support::hung;
use crate::support::{Agent, Home, Setup};
use draupnir_console::{Console, Greeting, Personality, View};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A home with logs, and the console that asks for them.
struct Stage {
    console: Console,
    home: Home,
}

impl Stage {
    fn new() -> Stage {
        let stage =
            Stage { console: Console::start(Personality::production().without_rate_limit()), home: Home::new() };
        fs::create_dir_all(stage.logs()).expect("directories");
        stage
    }

    fn logs(&self) -> PathBuf {
        self.home.path().join(".sindri/logs")
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.console).home(&self.home).env("SINDRI_AGENT_LOG_RATE", "off")
    }

    fn spawn(&self) -> Agent {
        self.setup().spawn()
    }

    fn append(&self, name: &str, text: &str) {
        append(&self.logs().join(name), text);
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a log file");
    file.write_all(text.as_bytes()).expect("there is room");
}

/// All lines of a log, in the order in which the console received them.
fn lines(view: &View, path: &str) -> Vec<Value> {
    let batches = view.frames("log:batch").into_iter().filter(|batch| batch.payload()["path"] == path);
    batches.flat_map(|batch| batch.payload()["lines"].as_array().expect("a list").clone()).collect()
}

fn texts(view: &View, path: &str) -> Vec<String> {
    lines(view, path).iter().map(|line| line["line"].as_str().expect("a text").to_owned()).collect()
}

fn holds(batch: &Value, path: &str, text: &str) -> bool {
    let is_it = |line: &Value| line["line"] == text;
    batch["path"] == path && batch["lines"].as_array().is_some_and(|lines| lines.iter().any(is_it))
}

/// Waits until the console has this line.
#[track_caller]
fn wait_line(view: &View, path: &str, text: &str) {
    let is_it = |record: &draupnir_console::Record| record.kind() == "log:batch" && holds(record.payload(), path, text);
    view.wait(&format!("{path}: {text}"), is_it);
}

fn numbered(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("line {number}\n")).collect()
}

/// Checks that the console has each of these lines, and in order but for what was sent again.
#[track_caller]
fn assert_complete(found: &[String], count: u32) {
    let numbers: Vec<u32> = found.iter().map(|text| text["line ".len()..].parse().expect("a number")).collect();
    let all: BTreeSet<u32> = numbers.iter().copied().collect();
    let missing: Vec<u32> = (0..count).filter(|number| !all.contains(number)).collect();
    assert!(missing.is_empty(), "{} of {count} are missing: {:?}", missing.len(), &missing[..missing.len().min(9)]);
    let mut next = 0;
    for number in numbers {
        assert!(number <= next, "{number} came when {next} was expected");
        next = next.max(number + 1);
    }
}

#[test]
fn lines_arrive_with_time_level_and_source() {
    let stage = Stage::new();
    fs::create_dir_all(stage.logs().join("node")).expect("a directory");
    stage.append("app.log", "2026-01-02T03:04:05.678Z ERROR it failed\n\tat somewhere\n");
    stage.append("node/out.log", "{\"ts\":1767323045,\"level\":\"warn\",\"msg\":\"x\"}\n");
    stage.append("install.log", "done\n");
    fs::write(stage.logs().join("old.log.gz"), "x\n").expect("written");
    let _agent = stage.spawn();
    wait_line(&stage.console, "app.log", "2026-01-02T03:04:05.678Z ERROR it failed\n\tat somewhere");
    let expected = json!({
        "line": "2026-01-02T03:04:05.678Z ERROR it failed\n\tat somewhere", "ts": 1_767_323_045_678_u64,
        "level": "error", "source": "app", "metadata": {"path": "app.log", "offset": 0},
    });
    assert_eq!(lines(&stage.console, "app.log"), [expected]);
    wait_line(&stage.console, "install.log", "done");
    wait_line(&stage.console, "node/out.log", "{\"ts\":1767323045,\"level\":\"warn\",\"msg\":\"x\"}");
    let of_node = &lines(&stage.console, "node/out.log")[0];
    assert_eq!(of_node["source"], "extension:node");
    assert_eq!((&of_node["ts"], &of_node["metadata"]["fields"]), (&json!(1_767_323_045_000_u64), &json!({"msg": "x"})));
    assert_eq!(lines(&stage.console, "install.log")[0]["source"], "build");
    // A line that is written in pieces, and one that comes later.
    stage.append("app.log", "in pie");
    stage.append("install.log", "again\n");
    wait_line(&stage.console, "install.log", "again");
    stage.append("app.log", "ces\n");
    wait_line(&stage.console, "app.log", "in pieces");
    assert!(stage.console.poison().is_none());
}

#[test]
fn first_subscription_starts_with_the_last_200_lines() {
    let stage = Stage::new();
    stage.append("app.log", &numbered(0..1_000));
    let _agent = stage.spawn();
    wait_line(&stage.console, "app.log", "line 999");
    let found = texts(&stage.console, "app.log");
    assert_eq!((found.len(), found[0].as_str()), (200, "line 800"));
    // A file that appears later is read from its start.
    stage.append("new.log", &numbered(0..300));
    wait_line(&stage.console, "new.log", "line 299");
    assert_eq!(texts(&stage.console, "new.log").len(), 300);
}

#[test]
fn console_that_does_not_ask_gets_no_log() {
    let stage = Stage::new();
    stage.console.set_personality(|personality| personality.greeting = Greeting::Never);
    stage.append("app.log", "one\n");
    stage.append("other.log", "one\n");
    let _agent = stage.setup().env("SINDRI_AGENT_HEARTBEAT", "0.1").spawn();
    stage.console.nth_frame(5, "heartbeat");
    assert_eq!(stage.console.frames("log:batch").len(), 0);
    let send = |kind: &str, paths: &[&str]| {
        let frame = json!({"protocol_version": "1.0", "type": kind, "payload": {"paths": paths}});
        stage.console.link().send(&frame);
    };
    send("log:subscribe", &["app.log", "/etc/passwd", "../../../../etc/passwd"]);
    wait_line(&stage.console, "app.log", "one");
    stage.append("other.log", "two\n");
    stage.append("app.log", "two\n");
    wait_line(&stage.console, "app.log", "two");
    send("log:subscribe", &["app.log"]);
    send("log:unsubscribe", &[]);
    // The answer to a later message shows that the agent has read them.
    stage.console.browser().run("true");
    stage.append("app.log", "three\n");
    let before = stage.console.from_now();
    before.nth_frame(5, "heartbeat");
    assert_eq!(before.frames("log:batch").len(), 0, "unsubscribed");
    send("log:subscribe", &["*"]);
    wait_line(&stage.console, "app.log", "three");
    wait_line(&stage.console, "other.log", "two");
    assert_eq!(texts(&stage.console, "app.log"), ["one", "two", "three"]);
    assert!(stage.console.frames("log:batch").iter().all(|batch| batch.payload()["path"] != "/etc/passwd"));
}

#[test]
fn rotation_by_rename_loses_no_line() {
    let stage = Stage::new();
    stage.append("app.log", &numbered(0..10));
    let _agent = stage.spawn();
    wait_line(&stage.console, "app.log", "line 9");
    let path = stage.logs().join("app.log");
    for round in 1..6_u32 {
        append(&path, &numbered(round * 10..round * 10 + 5));
        let old = OpenOptions::new().append(true).open(&path).expect("it is there");
        for number in (1..5).rev() {
            let _ = fs::rename(
                stage.logs().join(format!("app.log.{number}")),
                stage.logs().join(format!("app.log.{}", number + 1)),
            );
        }
        fs::rename(&path, stage.logs().join("app.log.1")).expect("renamed");
        // The program goes on with the old file for a while.
        (&old).write_all(numbered(round * 10 + 5..round * 10 + 8).as_bytes()).expect("there is room");
        append(&path, &numbered(round * 10 + 8..round * 10 + 10));
    }
    wait_line(&stage.console, "app.log", "line 59");
    assert_complete(&texts(&stage.console, "app.log"), 60);
}

#[test]
fn truncated_file_is_read_from_its_start() {
    let stage = Stage::new();
    stage.append("app.log", "one\ntwo\n");
    let _agent = stage.spawn();
    wait_line(&stage.console, "app.log", "two");
    let path = stage.logs().join("app.log");
    fs::copy(&path, stage.logs().join("app.log.1")).expect("copied");
    let file = OpenOptions::new().write(true).open(&path).expect("it is there");
    file.set_len(0).expect("truncated");
    append(&path, "three\n");
    wait_line(&stage.console, "app.log", "three");
    // Longer than before at once, and with another beginning.
    file.set_len(0).expect("truncated");
    append(&path, &numbered(0..100));
    wait_line(&stage.console, "app.log", "line 99");
    let found = texts(&stage.console, "app.log");
    // The first time there was a copy, which shows that nothing is missing.
    assert_eq!(found[..3], ["one", "two", "three"]);
    assert!(found[3].starts_with("may have lost lines: "), "{}", found[3]);
    assert_complete(&found[4..], 100);
}

#[test]
fn truncation_while_no_agent_runs_is_reported() {
    let stage = Stage::new();
    let path = stage.logs().join("app.log");
    stage.append("app.log", "one\n");
    let agent = stage.spawn();
    wait_line(&stage.console, "app.log", "one");
    agent.drain();
    // What was written to a file that was copied first is read from the copy.
    stage.append("app.log", "two\n");
    fs::copy(&path, stage.logs().join("app.log.1")).expect("copied");
    fs::write(&path, "three\n").expect("written");
    let agent = stage.spawn();
    wait_line(&stage.console, "app.log", "three");
    assert_eq!(texts(&stage.console, "app.log"), ["one", "two", "three"]);
    agent.drain();
    stage.append("app.log", "four\n");
    fs::write(&path, "five\n").expect("written");
    let before = stage.console.from_now();
    let _agent = stage.spawn();
    wait_line(&before, "app.log", "five");
    let found = lines(&before, "app.log");
    let remark = &found[0];
    assert_eq!((&remark["source"], &remark["level"]), (&json!("agent"), &json!("warn")));
    let text = remark["line"].as_str().expect("a text");
    assert!(found.len() == 2 && text.starts_with("may have lost lines: "), "{found:?}");
}

#[test]
fn removed_file_and_new_file_of_its_name_are_both_read() {
    let stage = Stage::new();
    stage.append("app.log", "one\n");
    let _agent = stage.spawn();
    wait_line(&stage.console, "app.log", "one");
    let path = stage.logs().join("app.log");
    let mut held = OpenOptions::new().append(true).open(&path).expect("it is there");
    held.write_all(b"two\n").expect("there is room");
    fs::remove_file(&path).expect("removed");
    wait_line(&stage.console, "app.log", "two");
    // The inode is likely to be used again.
    drop(held);
    append(&path, "three\n");
    wait_line(&stage.console, "app.log", "three");
    assert_eq!(texts(&stage.console, "app.log"), ["one", "two", "three"]);
}

#[test]
fn restart_goes_on_where_the_console_has_the_log() {
    let stage = Stage::new();
    stage.append("app.log", &numbered(0..10));
    let agent = stage.spawn();
    wait_line(&stage.console, "app.log", "line 9");
    agent.drain();
    // While no agent runs: more lines, two rotations.
    let path = stage.logs().join("app.log");
    append(&path, &numbered(10..20));
    fs::rename(&path, stage.logs().join("app.log.1")).expect("renamed");
    append(&path, &numbered(20..320));
    fs::rename(stage.logs().join("app.log.1"), stage.logs().join("app.log.2")).expect("renamed");
    fs::rename(&path, stage.logs().join("app.log.1")).expect("renamed");
    append(&path, &numbered(320..330));
    let before = stage.console.from_now();
    let _agent = stage.spawn();
    wait_line(&before, "app.log", "line 329");
    let found = texts(&stage.console, "app.log");
    assert_complete(&found, 330);
    assert_eq!(found.len(), 330, "nothing is sent twice after an orderly end");
}

#[test]
fn backlog_of_more_than_a_mebibyte_is_skipped_and_reported() {
    let stage = Stage::new();
    stage.append("app.log", "first\n");
    let agent = stage.spawn();
    wait_line(&stage.console, "app.log", "first");
    agent.drain();
    let line = "x".repeat(1_023) + "\n";
    stage.append("app.log", &line.repeat(3 * 1_024));
    stage.append("app.log", "last\n");
    let before = stage.console.from_now();
    let _agent = stage.spawn();
    wait_line(&before, "app.log", "last");
    let found = lines(&before, "app.log");
    let remark = &found[0];
    assert_eq!((&remark["source"], &remark["level"]), (&json!("agent"), &json!("warn")));
    let text = remark["line"].as_str().expect("a text");
    assert!(text.starts_with("skipped 20") && text.contains(" bytes that were written while"), "{text}");
    assert!((1_020..=1_026).contains(&found.len()), "{} lines of a KiB", found.len());
}

#[test]
fn cut_links_and_killed_agents_lose_no_line() {
    const ROUNDS: u32 = 24;
    const LINES: u32 = 500;
    let stage = Stage::new();
    run_through_cuts(&stage, ROUNDS, LINES, 6, 4);
}

/// 10⁶ lines over 70 cuts and 20 kills, with a rotation every 14,286 lines.
#[test]
#[ignore = "takes minutes; tests/run --full runs it"]
fn million_lines_survive_cuts_kills_and_rotations() {
    let stage = Stage::new();
    run_through_cuts(&stage, 140, 7_143, 7, 2);
}

/// Writes lines in rounds. After every second round the link is cut; after every `kill_every`th the agent is killed;
/// after every `rotate_every`th the file is rotated.
fn run_through_cuts(stage: &Stage, rounds: u32, lines_a_round: u32, kill_every: u32, rotate_every: u32) {
    let path = stage.logs().join("app.log");
    append(&path, &numbered(0..1));
    let mut agent = stage.spawn();
    wait_line(&stage.console, "app.log", "line 0");
    let mut view = stage.console.from_now();
    let (mut found, mut count, mut rotations) = (vec!["line 0".to_owned()], 1, 0);
    for round in 1..=rounds {
        append(&path, &numbered(count..count + lines_a_round / 2));
        if round % 2 == 0 {
            // In the middle of what is on its way.
            stage.console.link().cut_after(20_000);
        }
        if round % kill_every == 0 {
            agent.kill();
        }
        if round % rotate_every == 0 {
            rotations += 1;
            fs::rename(&path, stage.logs().join(format!("app.log.{rotations}"))).expect("renamed");
        }
        append(&path, &numbered(count + lines_a_round / 2..count + lines_a_round));
        count += lines_a_round;
        if round % kill_every == 0 {
            agent = stage.spawn();
        }
        wait_line(&view.within(std::time::Duration::from_secs(120)), "app.log", &format!("line {}", count - 1));
        found.extend(texts(&view, "app.log"));
        view = stage.console.from_now();
    }
    let duplicates = found.len() - usize::try_from(count).expect("it fits");
    println!("{count} lines, {duplicates} of them again, {rotations} rotations");
    assert_complete(&found, count);
    drop(agent);
}

#[cfg(target_os = "linux")]
#[test]
fn hand_over_loses_no_line() {
    let stage = Stage::new();
    stage.append("app.log", &numbered(0..10));
    let agent = stage.spawn();
    wait_line(&stage.console, "app.log", "line 9");
    for number in 1..=3 {
        stage.append("app.log", &numbered(number * 200 - 190..number * 200));
        agent.signal(support::Signal::USR2);
        stage.append("app.log", &numbered(number * 200..number * 200 + 10));
        stage.console.on(number + 1).frame("heartbeat");
        wait_line(&stage.console, "app.log", &format!("line {}", number * 200 + 9));
    }
    assert_complete(&texts(&stage.console, "app.log"), 610);
}

#[test]
fn many_files_are_followed_at_once() {
    const FILES: u32 = 2_000;
    let stage = Stage::new();
    for number in 0..FILES {
        let directory = stage.logs().join(format!("d{}", number % 10));
        fs::create_dir_all(&directory).expect("a directory");
        append(&directory.join(format!("{number}.log")), "one\n");
    }
    let agent = stage.spawn();
    let all = |text: &str| {
        for number in 0..FILES {
            wait_line(&stage.console, &format!("d{}/{number}.log", number % 10), text);
        }
    };
    all("one");
    let open = agent.process().descriptors().len();
    assert!(open < 256 + 64, "{open} descriptors");
    for number in 0..FILES {
        append(&stage.logs().join(format!("d{}/{number}.log", number % 10)), "two\n");
    }
    all("two");
}

#[test]
fn quiet_files_keep_no_thread_and_no_line_waits() {
    let stage = Stage::new();
    for number in 0..20 {
        stage.append(&format!("{number}.log"), "one\n");
    }
    // At the level debug each heartbeat has a line, and the thread that writes lines would not end.
    let agent = stage.setup().env("SINDRI_AGENT_HEARTBEAT", "0.1").env("SINDRI_LOG_LEVEL", "info").spawn();
    for number in 0..20 {
        wait_line(&stage.console, &format!("{number}.log"), "one");
    }
    // The loop's and the reactor's: those of the pool have ended.
    support::settles(&stage.console, "two threads", || agent.process().threads() <= 2);
    stage.append("7.log", "two\n");
    wait_line(&stage.console, "7.log", "two");
}

#[test]
fn sparse_file_of_ten_gigabytes_is_no_burden() {
    let stage = Stage::new();
    let file = File::create(stage.logs().join("app.log")).expect("created");
    file.set_len(10 << 30).expect("a sparse file");
    let _agent = stage.spawn();
    stage.append("other.log", "one\n");
    wait_line(&stage.console, "other.log", "one");
    stage.append("app.log", "two\n");
    wait_line(&stage.console, "app.log", "two");
}

#[test]
fn rate_is_limited_and_the_rest_waits_in_its_file() {
    let stage = Stage::new();
    stage.append("app.log", "first\n");
    let _agent = stage.setup().env("SINDRI_AGENT_LOG_RATE", "100").env("SINDRI_AGENT_HEARTBEAT", "0.1").spawn();
    wait_line(&stage.console, "app.log", "first");
    stage.append("app.log", &numbered(0..1_300));
    // Ten seconds of the rate come at once, then a hundred a second.
    wait_line(&stage.console, "app.log", "line 900");
    let early = texts(&stage.console, "app.log").len();
    wait_line(&stage.console, "app.log", "line 1299");
    let found = texts(&stage.console, "app.log");
    assert!(early < 1_301 && found.len() == 1_301, "{early} of {}", found.len());
}

#[test]
fn logs_can_be_switched_off_for_good() {
    let stage = Stage::new();
    stage.append("app.log", "one\n");
    let _agent = stage.setup().env("SINDRI_AGENT_LOGS", "off").env("SINDRI_AGENT_HEARTBEAT", "0.1").spawn();
    stage.console.nth_frame(3, "heartbeat");
    for paths in [json!(["*"]), json!(["app.log"]), json!(["/etc/passwd"])] {
        let frame = json!({"protocol_version": "1.0", "type": "log:subscribe", "payload": {"paths": paths}});
        stage.console.link().send(&frame);
    }
    stage.append("app.log", "two\n");
    stage.console.from_now().nth_frame(5, "heartbeat");
    assert_eq!(stage.console.frames("log:batch").len(), 0);
}

#[test]
fn configured_paths_are_followed_and_subscriptions_audited() {
    let stage = Stage::new();
    let directory = stage.home.path().canonicalize().expect("it is there").join("srv");
    fs::create_dir_all(&directory).expect("a directory");
    for name in ["a.txt", "b.txt", "secret.key"] {
        append(&directory.join(name), "one\n");
    }
    std::os::unix::fs::symlink(directory.join("secret.key"), directory.join("link.txt")).expect("a link");
    let audit = stage.home.path().join("audit.jsonl");
    let pattern = directory.join("*.txt").to_str().expect("UTF-8").to_owned();
    let _agent = stage.setup().env("SINDRI_AGENT_LOGS", &pattern).env("SINDRI_AGENT_AUDIT", &audit).spawn();
    for name in ["a.txt", "b.txt"] {
        wait_line(&stage.console, directory.join(name).to_str().expect("UTF-8"), "one");
    }
    let paths: BTreeSet<String> =
        stage.console.frames("log:batch").iter().map(|batch| batch.payload()["path"].to_string()).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    let text = fs::read_to_string(&audit).expect("it is there");
    let line: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&line["what"], &line["paths"]), (&json!("logs_subscribed"), &json!(["*"])));
}

#[cfg(target_os = "linux")]
#[test]
fn hung_file_system_delays_no_other_log() {
    let stage = Stage::new();
    let hung = match hung::Hung::mount() {
        Ok(hung) => hung,
        Err(why) => return support::skip("hung_file_system_delays_no_other_log", &why),
    };
    stage.append("app.log", "one\n");
    let pattern = hung.place().join("**/*.log").to_str().expect("UTF-8").to_owned();
    let setup = stage.setup().env("SINDRI_AGENT_LOGS", pattern).env("SINDRI_AGENT_HEARTBEAT", "0.1");
    let agent = hung.within(setup).spawn();
    hung.wait_kept(1);
    wait_line(&stage.console, "app.log", "one");
    agent.wait_log(|line| line["message"] == "logs not readable: their file system does not answer");
    stage.append("app.log", "two\n");
    wait_line(&stage.console, "app.log", "two");
    stage.console.from_now().nth_frame(5, "heartbeat");
    // No process ends whose thread waits for such a file system.
    hung.answer();
    agent.drain();
}

/// Prints the entries behind a cursor, which is a number here, and stays.
const JOURNALCTL: &str = r#"#!/bin/sh
echo "$@" >> "$HOME/asked"
next=1
for argument; do
  case $argument in --after-cursor=*) next=$((${argument#--after-cursor=} + 1)) ;; esac
done
while [ "$next" -le "$(cat "$HOME/entries")" ]; do
  printf '{"__CURSOR":"%s","__REALTIME_TIMESTAMP":"1767323045678000","MESSAGE":"entry %s","PRIORITY":"4"}\n' $next $next
  next=$((next + 1))
done
exec sleep 1000
"#;

/// An agent whose system has a journal of three entries.
fn journal(stage: &Stage) -> impl Fn() -> Setup {
    use std::os::unix::fs::PermissionsExt as _;
    let programs = stage.home.path().join("bin");
    fs::create_dir(&programs).expect("a directory");
    fs::write(programs.join("journalctl"), JOURNALCTL).expect("written");
    fs::set_permissions(programs.join("journalctl"), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(stage.home.path().join("entries"), "3").expect("written");
    move || {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
        stage.setup().env("SINDRI_AGENT_LOGS", "journald").env("PATH", path)
    }
}

#[cfg(target_os = "linux")]
#[test]
fn hand_over_leaves_no_journalctl_and_no_zombie() {
    let stage = Stage::new();
    let agent = journal(&stage)().env("SINDRI_AGENT_HEARTBEAT", "0.2").spawn();
    wait_line(&stage.console, "journald", "entry 3");
    assert_eq!(agent.process().children().len(), 1);
    // A console that asks for no logs: nothing is started that would reap it by the way.
    stage.console.set_personality(|personality| personality.greeting = Greeting::Never);
    agent.signal(support::Signal::USR2);
    stage.console.on(2).frame("heartbeat");
    support::settles(&stage.console, "it is reaped", || agent.process().children().is_empty());
    agent.drain();
}

#[test]
fn journal_of_the_system_goes_on_behind_its_cursor() {
    let stage = Stage::new();
    let setup = journal(&stage);
    let agent = setup().spawn();
    wait_line(&stage.console, "journald", "entry 3");
    let line = &lines(&stage.console, "journald")[0];
    let expected = (&json!("system"), &json!("warn"), &json!(1_767_323_045_678_u64));
    assert_eq!((&line["source"], &line["level"], &line["ts"]), expected, "{line}");
    agent.drain();
    fs::write(stage.home.path().join("entries"), "5").expect("written");
    let _agent = setup().spawn();
    wait_line(&stage.console, "journald", "entry 5");
    let all: Vec<String> = (1..=5).map(|number| format!("entry {number}")).collect();
    assert_eq!(texts(&stage.console, "journald"), all);
    let asked = fs::read_to_string(stage.home.path().join("asked")).expect("it was started");
    assert!(asked.lines().last().is_some_and(|line| line.ends_with("--after-cursor=3")), "{asked}");
}

/// The agent's own log is one of the logs: a line about a batch would be the next batch.
#[test]
fn own_log_is_at_rest_for_a_minute() {
    /// So many heartbeats take a minute at least: one comes after 80 to 95 % of the interval of 0.5 s.
    const HEARTBEATS: usize = 150;
    let stage = Stage::new();
    // Its answers would be a debug line each.
    stage.console.set_personality(|personality| personality.answers_heartbeats = false);
    let setup = stage.setup().env("SINDRI_AGENT_HEARTBEAT", "0.5").env("SINDRI_LOG_LEVEL", "debug");
    let agent_path = setup.program_path().to_owned();
    let script = "exec \"$0\" 2>> \"$HOME/.sindri/logs/draupnir.log\"";
    let _agent = setup.program("sh").args_before(["-c".into(), script.into(), agent_path.into()]).spawn();
    wait_line_like(&stage.console, "draupnir.log", "connected");
    // What it logged at the start arrives; from then on heartbeats come and no batch does.
    stage.console.nth_frame(8, "heartbeat");
    let quiet = stage.console.from_now().within(std::time::Duration::from_secs(120));
    quiet.nth_frame(HEARTBEATS, "heartbeat");
    let later = quiet.frames("log:batch");
    assert!(later.is_empty(), "batches while nothing happened: {later:?}");
    let line = &lines(&stage.console, "draupnir.log")[0];
    assert_eq!(
        (&line["source"], &line["metadata"]["fields"]["message"]),
        (&json!("agent"), &json!("started")),
        "{line}"
    );
}

#[track_caller]
fn wait_line_like(view: &View, path: &str, text: &str) {
    view.wait(text, |record| {
        record.kind() == "log:batch" && record.payload()["path"] == path && record.payload().to_string().contains(text)
    });
}
