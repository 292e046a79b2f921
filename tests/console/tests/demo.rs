//! The demo's verdict on an agent that does nothing.

use std::process::Command;

#[test]
fn an_agent_that_never_registers_fails_the_demo() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).args(["--agent", "/bin/false", "--seconds", "60"]).output();
    let output = output.expect("the demo starts");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "agent ended with exit status: 1; 0 registrations, 0 connections, 0 heartbeats, 0 messages\n");
}

#[test]
fn what_it_does_not_know_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).arg("--frobnicate").output().expect("the demo starts");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: cargo demo "));
}
