//! What the agent's command line and environment do: help, version, and every mistake told at once.

mod support;

use std::process::Output;

use draupnir_console::{Console, Personality};
use support::{Agent, Setup};

const KEY: &str = "drp_test_key_that_nobody_may_see";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_version() {
    let output = Setup::alone().arg("--version").output();
    assert!(output.status.success());
    let version = text(&output.stdout);
    let first_words: Vec<&str> = version.split_whitespace().take(2).collect();
    assert_eq!(first_words, ["sindri-agent", env!("CARGO_PKG_VERSION")]);
    assert!(version.ends_with('\n') && version.lines().count() == 1, "{version:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_help_names_every_variable() {
    let output = Setup::alone().arg("--help").output();
    assert!(output.status.success());
    let help = text(&output.stdout);
    for name in draupnir::config::table().iter().map(|variable| variable.name) {
        assert!(help.contains(name), "{name}");
    }
    for name in ["SINDRI_CONSOLE_URL", "SINDRI_CONSOLE_API_KEY", "SINDRI_AGENT_STATE_DIR", "SINDRI_LOG_LEVEL"] {
        assert!(help.contains(name), "{name}");
    }
    assert!(help.ends_with('\n'));
}

#[test]
fn anything_else_is_the_usage() {
    for arguments in [&["--verbose"][..], &["run"], &["-h"], &["--version", "x"], &["replay"]] {
        let output = arguments.iter().fold(Setup::alone(), |setup, argument| setup.arg(argument)).output();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains("usage:") && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_is_required_is_asked_for() {
    let output = Setup::alone().output();
    assert_eq!(output.status.code(), Some(78));
    let said = said(&output);
    assert!(said.contains("SINDRI_CONSOLE_URL") && said.contains("SINDRI_CONSOLE_API_KEY"), "{said}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let output = Setup::alone().env("SINDRI_CONSOLE_URL", "").key(KEY).env("SINDRI_AGENT_HEARTBEAT", "").output();
    let said = said(&output);
    assert!(said.contains("SINDRI_CONSOLE_URL") && !said.contains("SINDRI_AGENT_HEARTBEAT"), "{said}");
}

#[test]
fn all_problems_are_told_at_once_each_with_its_value() {
    let wrong = [
        ("SINDRI_CONSOLE_URL", "ftp://console.example.com"),
        ("SINDRI_INSTANCE_ID", "two words"),
        ("SINDRI_AGENT_HEARTBEAT", "soon"),
        ("SINDRI_AGENT_METRICS", "0.01"),
        ("SINDRI_AGENT_TAGS", "lonely"),
        ("SINDRI_LOG_LEVEL", "loud"),
    ];
    let setup = wrong.iter().fold(Setup::alone().key(KEY), |setup, (name, value)| setup.env(name, value));
    let output = setup.output();
    assert_eq!(output.status.code(), Some(78));
    let said = said(&output);
    for (name, value) in wrong {
        assert!(said.lines().any(|line| line.contains(name) && line.contains(value)), "{name}: {said}");
    }
}

#[test]
fn the_key_is_told_in_no_problem() {
    // `Setup` checks that the key is in neither output.
    for url in [format!("ftp://{KEY}.example.com"), format!("https://user:{KEY}@console.example.com")] {
        let output = Setup::alone().key(KEY).env("SINDRI_CONSOLE_URL", url).env("SINDRI_AGENT_TAGS", KEY).output();
        assert_eq!(output.status.code(), Some(78));
        assert!(said(&output).contains("SINDRI_AGENT_TAGS"));
    }
    let illegal = format!("{KEY}\n{KEY}");
    let output = Setup::alone().key(KEY).env("SINDRI_CONSOLE_API_KEY", illegal).output();
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("SINDRI_CONSOLE_API_KEY"));
}

#[test]
fn white_space_around_the_key_is_dropped() {
    let console = Console::start(Personality::designed());
    let agent = Setup::new(&console).env("SINDRI_CONSOLE_API_KEY", format!("  {}\n", console.key())).spawn();
    console.registration_answered(1, 201);
    console.frame("heartbeat");
    agent.drain();
}

#[test]
fn an_unknown_provider_is_a_warning_and_goes_out_in_lower_case() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", "MyCloud")]);
    assert_eq!(console.registration(1).request().json()["provider"], "mycloud");
    agent.wait_log(|line| line["level"] == "WARN" && line.to_string().contains("SINDRI_PROVIDER"));
    agent.drain();
}
