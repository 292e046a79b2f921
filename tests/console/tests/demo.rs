//! Tests the demo as a process: its exit status and its screen, with a terminal and without.

mod packages;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The agent of the same build: `cargo test --workspace` builds it before any test runs.
fn agent() -> String {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_demo")).with_file_name("sindri-agent");
    assert!(agent.exists(), "no {}: cargo build --workspace", agent.display());
    agent.into_os_string().into_string().expect("text")
}

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments).output().expect("the demo starts")
}

#[test]
fn working_agent_passes_the_demo() {
    let output = demo(&["--agent", &agent(), "--seconds", "3"]);
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut rest = said.as_str();
    for word in ["registered", "connected", "heartbeat", "metrics", "draining", "close        1000", "agent ended with"]
    {
        let (_, after) = rest.split_once(word).unwrap_or_else(|| panic!("no {word} in its place: {said}"));
        rest = after;
    }
    assert!(rest.starts_with(" exit status: 0; 1 registrations, 1 connections"), "{said}");
}

/// Runs the demo on a terminal that `script` creates. It types each text when the word before it is on the screen, and
/// `q` at the first heartbeat after them. Returns the output after that.
fn play(steps: &[(&str, &str)]) -> String {
    play_with("", steps)
}

fn play_with(arguments: &str, steps: &[(&str, &str)]) -> String {
    let line = format!("stty cols 80 rows 30; exec {} --agent {} {arguments}", env!("CARGO_BIN_EXE_demo"), agent());
    let mut script = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is part of every Debian");
    let mut keys = script.stdin.take().expect("a pipe");
    let mut screen = script.stdout.take().expect("a pipe");
    let mut shown = String::new();
    let mut piece = [0; 4096];
    for (word, typed) in steps.iter().chain(&[(" s ago", "q")]) {
        while !shown.contains(word) {
            let count = screen.read(&mut piece).expect("it can be read");
            assert!(count > 0, "it ended before it showed {word:?}: {shown}");
            shown.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        shown.clear();
        keys.write_all(typed.as_bytes()).expect("it takes keys");
    }
    screen.read_to_string(&mut shown).expect("text to the end");
    assert!(script.wait().expect("it ends").success(), "{shown}");
    shown
}

#[test]
fn terminal_demo_runs_a_command_and_a_shell_until_q() {
    let shown = play(&[
        ("agent started", ":echo sa''id\r"),
        ("said", "t"),
        ("leaves it", "echo ty''ped\r"),
        ("typed", "\x1d"),
        ("\x1b[?1049h", ""),
    ]);
    assert!(shown.contains("agent ended with exit status: 0; 1 registrations, 1 connections"), "{shown}");
}

#[test]
fn arrow_key_keeps_the_line_and_colours_are_shown() {
    let command = r":printf '\033[31mre''d\033[0m\n'";
    play(&[("agent started", command), (": ", "\x1b[A"), (": ", "\r"), ("\x1b[0;31mred\x1b[0m", "")]);
}

#[test]
fn keys_cut_the_link_and_restart_the_console() {
    let shown = play(&[("agent started", "x"), ("connection 2 is up", "r"), ("connection 3 is up", "")]);
    assert!(shown.contains("agent ended with exit status: 0; 1 registrations, 3 connections"), "{shown}");
}

#[test]
fn key_w_and_option_web_show_the_address_of_a_page() {
    let packages = packages::stand_ins();
    let arguments = format!("--packages {}", packages.path().display());
    play_with(&arguments, &[("agent started", "w"), ("http://127.0.0.1:", "")]);
    play_with(&format!("{arguments} --web"), &[("http://127.0.0.1:", "")]);
}

#[test]
fn scroll_region_of_the_shell_is_reset() {
    let line = r"printf '\033[5;10r'; echo do''ne";
    let shown = play(&[("agent started", "t"), ("leaves it", &format!("{line}\r")), ("done", "\x1d"), ("\x1b[r", "")]);
    assert!(shown.contains("\x1b[r"), "{shown:?}");
}

/// The demo cannot handle SIGKILL. Nevertheless the agent and all its children must end.
#[cfg(target_os = "linux")]
#[test]
fn killed_demo_leaves_no_agent_and_no_directory() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--agent", &agent(), "--seconds", "3600"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let mut said = BufReader::new(demo.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("heartbeat") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended early");
    }
    let left = || folder.path().read_dir().expect("it is there").flatten().map(|entry| entry.path());
    assert_eq!(left().count(), 1);
    let children = format!("/proc/{0}/task/{0}/children", demo.id());
    let children = std::fs::read_to_string(children).expect("Linux tells");
    let pids: Vec<Pid> = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
    assert_eq!(pids.len(), 2, "the agent and its keeper");
    let ends: Vec<_> = pids.iter().map(|pid| pidfd_open(*pid, PidfdFlags::empty()).expect("it runs")).collect();
    demo.kill().expect("it runs");
    demo.wait().expect("it ends");
    for end in &ends {
        let mut ended = [PollFd::new(end, PollFlags::IN)];
        let limit = Timespec { tv_sec: 45, tv_nsec: 0 };
        assert_eq!(poll(&mut ended, Some(&limit)).expect("a descriptor"), 1, "it outlives the demo");
    }
    assert_eq!(left().count(), 0);
}

#[test]
fn agent_without_registration_fails_the_demo() {
    let output = demo(&["--agent", "/bin/false", "--seconds", "60"]);
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "agent ended with exit status: 1; 0 registrations, 0 connections, 0 heartbeats, 0 messages\n");
}

#[test]
fn separator_given_twice_is_no_usage_error() {
    assert_eq!(demo(&["--", "--agent", "/bin/false", "--seconds", "60"]).status.code(), Some(1));
}

#[test]
fn unknown_argument_is_a_usage_error() {
    let output = demo(&["--frobnicate"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: cargo demo "));
}
