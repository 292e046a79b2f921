//! Checks the arguments of cargo.

use std::process::Command;

#[test]
fn one_cargo_command_builds_both_and_shows_progress() {
    let mut launch = Command::new(env!("CARGO_BIN_EXE_draupnir-demo"));
    let output = launch.arg("--no-such-flag").env("CARGO", "/bin/echo").output().expect("it starts");
    let asked = String::from_utf8(output.stdout).expect("text");
    let (_, asked) = asked.split_once("Cargo.toml ").unwrap_or_else(|| panic!("no manifest: {asked}"));
    assert_eq!(asked, "--release --package draupnir --bin sindri-agent --package draupnir-console --bin demo\n");
    assert!(!include_str!("../../../.cargo/config.toml").contains("quiet"), "cargo's progress is to be seen");
}

#[test]
fn failed_build_starts_nothing() {
    let mut launch = Command::new(env!("CARGO_BIN_EXE_draupnir-demo"));
    let output = launch.env("CARGO", "/bin/false").output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "cargo demo: the agent and the demo do not build\n");
}
