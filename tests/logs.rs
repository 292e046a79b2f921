//! What the agent logs: JSON lines on standard error, only at the configured level, once for each cause, never the key.

use crate::support;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Agent, Setup, mentions};
use draupnir_console::{Answer, Console, Personality};
use serde_json::{Value, json};

fn is_level(level: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["level"] == level
}

#[test]
fn every_line_is_json_with_a_time_and_a_level() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.event("connect");
    agent.drain();
    let lines = agent.log().lines();
    assert!(lines.len() > 3);
    for line in lines {
        assert!(line.value["level"].is_string() && line.value["timestamp"].is_string(), "{}", line.raw);
        assert!(line.value["message"].is_string(), "{}", line.raw);
    }
}

#[test]
fn healthy_agent_logs_only_a_few_info_lines() {
    let console = Console::start(Personality::production());
    let environment = [
        ("SINDRI_LOG_LEVEL", "info"),
        ("SINDRI_AGENT_HEARTBEAT", "0.1"),
        ("SINDRI_AGENT_METRICS", "0.1"),
        ("SINDRI_PROVIDER", "fly"),
    ];
    let agent = Agent::spawn(&console, &environment);
    console.nth_frame(20, "heartbeat");
    console.nth_frame(5, "metrics");
    agent.drain();
    let (all, information) = (agent.log().lines().len(), agent.log().count(is_level("INFO")));
    assert_eq!(all, information, "{}", agent.log().text());
    assert!(all <= 6, "heartbeats are not logged: {}", agent.log().text());
}

#[test]
fn the_level_is_obeyed() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_LOG_LEVEL", "error")]);
    console.event("connect");
    console.connection(1).reset();
    console.on(2).frame("heartbeat");
    agent.drain();
    assert_eq!(agent.log().text(), "");
}

#[test]
fn one_cause_is_one_warning_and_not_one_for_each_retry() {
    let console = Console::start(Personality::designed());
    for _ in 0..3 {
        console.answer_registration(Answer::status(503).header("Retry-After", "1").body("busy"));
    }
    let agent = Agent::spawn(&console, &[]);
    console.within(Duration::from_secs(40)).registration_answered(1, 201);
    agent.wait_log(|line| line["message"] == "registered");
    assert_eq!(agent.log().count(|line| line["level"] == "WARN" && mentions(line, "503")), 1);
    agent.drain();
}

#[test]
fn key_echoed_by_the_console_is_not_logged() {
    // `Agent` checks everything that was written when it is dropped.
    let console = Console::start(Personality::designed());
    let words = format!("the key {} is not one of ours", console.key());
    console.answer_registrations(Some(Answer::status(400).json(&json!({"message": words}))));
    let agent = Agent::spawn(&console, &[]);
    agent.wait_log(|line| line["level"] == "ERROR" && line.to_string().contains("is not one of ours"));
    console.connection(1).close(1011, &format!("bad {}", &console.key()));
    agent.wait_log(|line| line["code"] == 1011);
    agent.drain();
}

#[test]
fn words_of_the_console_cannot_break_a_line() {
    let console = Console::start(Personality::designed());
    let words = "one\nline\u{1b}[31m {\"level\":\"ERROR\"}";
    console.answer_registrations(Some(Answer::status(400).json(&json!({"message": words}))));
    let agent = Agent::spawn(&console, &[]);
    agent.wait_log(is_level("ERROR"));
    agent.drain();
    assert!(agent.log().lines().iter().all(|line| line.value.is_object() && !line.raw.contains('\u{1b}')));
}

/// The agent with its standard error in this file.
fn into_file(setup: Setup, log: &Path) -> Setup {
    setup.program("/bin/sh").arg("-c").arg(format!("exec {} 2>>{}", support::agent_program().display(), log.display()))
}

/// The log file, and the path that it is renamed to.
fn log_at(path: PathBuf) -> (PathBuf, PathBuf) {
    let previous = PathBuf::from(format!("{}.1", path.display()));
    (path, previous)
}

#[test]
fn own_log_of_8_mib_is_renamed_and_opened_again() {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console);
    let (log, previous) = log_at(setup.home_path().join(".sindri/logs/draupnir.log"));
    std::fs::create_dir_all(log.parent().expect("it has one")).expect("the home is ours");
    std::fs::write(&log, vec![b'\n'; 8 << 20]).expect("there is room");
    std::fs::set_permissions(&log, Permissions::from_mode(0o640)).expect("it is ours");
    // The agent does not follow a symlink at the new path.
    let target = setup.home_path().join("target");
    std::fs::write(&target, "precious").expect("there is room");
    std::os::unix::fs::symlink(&target, &previous).expect("a link");
    let agent = into_file(setup, &log).spawn();
    console.frame("heartbeat");
    agent.drain();
    assert_eq!(std::fs::symlink_metadata(&previous).expect("it was renamed").len(), 8 << 20);
    assert_eq!(std::fs::read_to_string(&target).expect("it is there"), "precious");
    let text = std::fs::read_to_string(&log).expect("it was opened again");
    assert!(text.starts_with('{') && text.contains("\"started\"") && text.contains("\"stopped\""), "{text}");
    for file in [&log, &previous] {
        assert_eq!(std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o640);
    }
}

#[test]
fn any_log_with_a_bound_stays_below_it() {
    const BYTES_MAX: u64 = 4_096;
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_LOG_MAX", BYTES_MAX.to_string());
    let (log, previous) = log_at(setup.home_path().join("any"));
    let agent = into_file(setup, &log).spawn();
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    for _ in 0..50 {
        console.browser().run("true");
    }
    agent.drain();
    let longest_line = 1_024;
    for file in [&log, &previous] {
        assert!((1..BYTES_MAX + longest_line).contains(&length(file)), "{}: {}", file.display(), length(file));
    }
    assert!(length(&previous) >= BYTES_MAX);
    let names = std::fs::read_dir(agent.home().path()).expect("it is there").flatten().map(|entry| entry.file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("any")).count(), 2);
}

#[test]
fn other_long_logs_are_left_alone() {
    let console = Console::start(Personality::production());
    let own = ".sindri/logs/draupnir.log";
    for (n, (name, has_two_links)) in (1..).zip([("draupnir.log", false), ("log", false), (own, true)]) {
        let setup = Setup::new(&console);
        let (log, previous) = log_at(setup.home_path().join(name));
        std::fs::create_dir_all(log.parent().expect("it has one")).expect("the home is ours");
        std::fs::write(&log, vec![b'\n'; 8 << 20]).expect("there is room");
        if has_two_links {
            std::fs::hard_link(&log, setup.home_path().join("second")).expect("a link");
        }
        let agent = into_file(setup, &log).spawn();
        console.on(n).frame("heartbeat");
        agent.drain();
        assert!(!previous.exists(), "{name}");
        assert!(std::fs::metadata(&log).expect("it is there").len() > 8 << 20, "{name}");
    }
}

#[test]
fn closed_standard_error_does_not_stop_the_agent() {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2").program("/bin/sh").arg("-c");
    let agent = setup.arg(format!("exec {} 2>&-", support::agent_program().display())).spawn();
    console.nth_frame(3, "heartbeat");
    agent.drain();
}
