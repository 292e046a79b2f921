//! The demo from outside: its verdicts, and what it shows, with a terminal and without.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The agent of the same build: `cargo test --workspace` makes it before any test runs.
fn agent() -> String {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_demo")).with_file_name("sindri-agent");
    assert!(agent.exists(), "no {}: cargo build --workspace", agent.display());
    agent.into_os_string().into_string().expect("text")
}

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments).output().expect("the demo starts")
}

#[test]
fn an_agent_that_does_what_it_is_for_passes_the_demo() {
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

/// `script` is the terminal; what it is told to type comes when the word before it is on the screen.
#[test]
fn on_a_terminal_it_draws_takes_a_command_and_a_shell_and_ends_at_q() {
    let line = format!("stty cols 100 rows 30; exec {} --agent {}", env!("CARGO_BIN_EXE_demo"), agent());
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
    let (command, shell) = (":echo sa''id\r", "echo ty''ped\r");
    let steps =
        [("agent started", command), ("said", "t"), ("leaves it", shell), ("typed", "\x1d"), ("\x1b[?1049h", "q")];
    for (word, typed) in steps {
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
    assert!(shown.contains("agent ended with exit status: 0; 1 registrations, 1 connections"), "{shown}");
}

#[test]
fn an_agent_that_never_registers_fails_the_demo() {
    let output = demo(&["--agent", "/bin/false", "--seconds", "60"]);
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "agent ended with exit status: 1; 0 registrations, 0 connections, 0 heartbeats, 0 messages\n");
}

#[test]
fn what_it_does_not_know_is_a_usage_error() {
    let output = demo(&["--frobnicate"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: cargo demo "));
}
