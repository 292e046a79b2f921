//! The agent's command line and environment: help, version, and all mistakes reported at once.

use std::process::Output;

use crate::support::{Agent, Setup};
use draupnir_console::{Console, Personality};

const KEY: &str = "drp_test_key_that_nobody_may_see";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_version() {
    for word in ["-V", "version"] {
        assert_eq!(Setup::alone().arg(word).output().stdout, Setup::alone().arg("--version").output().stdout);
    }
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
    for word in ["-h", "help"] {
        assert_eq!(Setup::alone().arg(word).output().stdout, Setup::alone().arg("--help").output().stdout);
    }
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
    for arguments in [&["--verbose"][..], &["run"], &["-x"], &["--version", "x"], &["replay"]] {
        let output = arguments.iter().fold(Setup::alone(), |setup, argument| setup.arg(argument)).output();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains("usage:") && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn unknown_flag_names_the_nearest_known_one() {
    let output = Setup::alone().arg("--verison").output();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        text(&output.stderr).starts_with("sindri-agent: \"--verison\" is not known; did you mean --version?\nusage:")
    );
}

#[test]
fn missing_required_variables_are_named() {
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
fn all_problems_are_reported_with_their_values() {
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
fn no_problem_shows_the_key() {
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
fn key_with_the_word_bearer_is_refused_at_the_start() {
    let output = Setup::alone().env("SINDRI_CONSOLE_URL", "http://127.0.0.1:1").key(&format!("Bearer {KEY}")).output();
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("without blanks and without the word Bearer"), "{}", said(&output));
}

#[test]
fn zone_id_in_the_url_is_refused_at_the_start() {
    let output = Setup::alone().env("SINDRI_CONSOLE_URL", "http://[fe80::1%25lo]:8080").key(KEY).output();
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("a URL without a zone id"), "{}", said(&output));
}

#[test]
fn unusable_ca_file_is_found_at_the_start() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (path, reason) in
        [("/no/such/file", "No such file"), (file.path().to_str().expect("text"), "no PEM certificate")]
    {
        let setup = Setup::alone().env("SINDRI_CONSOLE_URL", "https://127.0.0.1:1").key(KEY);
        let output = setup.env("SINDRI_AGENT_CA_FILE", path).output();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(
            said.contains(&format!("SINDRI_AGENT_CA_FILE: {path} cannot be used")) && said.contains(reason),
            "{said}"
        );
    }
}

/// A FIFO without a writer: opening it blocks, as on a file system that does not answer.
fn hanging_file(setup: &Setup, name: &str) -> std::path::PathBuf {
    let path = setup.home_path().join(name);
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is installed");
    assert!(made.success(), "{made}");
    path
}

#[test]
fn hanging_ca_file_is_an_error_and_no_end() {
    let console = Console::start(Personality::designed());
    let setup = Setup::new(&console).env("SINDRI_CONSOLE_URL", console.url().replace("http://", "https://"));
    let path = hanging_file(&setup, "ca.pem");
    let agent = setup.env("SINDRI_AGENT_CA_FILE", &path).spawn();
    let hangs = "its file system did not answer within 5 s";
    agent.wait_log(|line| line["level"] == "ERROR" && line["error"] == hangs);
    agent
        .wait_log(|line| line["level"] == "WARN" && line.to_string().contains("certificates cannot be read: its file"));
    agent.drain();
}

#[test]
fn hanging_list_of_programs_is_an_error_and_no_end() {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console);
    let path = hanging_file(&setup, "programs");
    let agent = setup.env("SINDRI_AGENT_COMMANDS", format!("allow:{}", path.display())).spawn();
    let line = agent.wait_log(|line| line["level"] == "ERROR");
    assert_eq!(line["error"], "its file system did not answer within 5 s", "{line}");
    console.frame("heartbeat");
    agent.drain();
}

#[test]
fn shell_that_cannot_be_started_is_a_warning() {
    let console = Console::start(Personality::designed());
    for shell in ["/no/such/shell", "no-such-shell", "/etc"] {
        let agent = Agent::spawn(&console, &[("SINDRI_AGENT_SHELL", shell)]);
        let line = agent.wait_log(|line| line["level"] == "WARN" && line["shell"] == shell);
        assert!(line["message"].as_str().is_some_and(|text| text.contains("SINDRI_AGENT_SHELL")), "{line}");
        agent.wait_log(|line| line["message"] == "connected");
        agent.drain();
    }
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_SHELL", "sh\r")]);
    agent.wait_log(|line| line["message"] == "connected");
    agent.drain();
    assert_eq!(agent.log().count(|line| line["level"] == "WARN"), 0);
}

#[test]
fn unknown_variable_is_a_warning_with_the_nearest_known_one() {
    let console = Console::start(Personality::designed());
    let of_sindri = [("SINDRI_LLM_ADAPTER", "none"), ("SINDRI_SCRIPT_B64", "eA==")];
    let unknown = [("SINDRI_AGENT_HEARTBEATS", "1"), ("SINDRI_AGENT_COLOR", "red")];
    let agent = Agent::spawn(&console, &[&of_sindri[..], &unknown[..]].concat());
    console.frame("heartbeat");
    agent.drain();
    let warnings: Vec<String> = agent
        .log()
        .lines()
        .into_iter()
        .map(|line| line.value)
        .filter_map(|line| (line["level"] == "WARN").then(|| line["message"].as_str().unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(
        warnings,
        [
            "SINDRI_AGENT_COLOR is not a variable of the agent and is ignored",
            "SINDRI_AGENT_HEARTBEATS is not a variable of the agent and is ignored; did you mean SINDRI_AGENT_HEARTBEAT?"
        ]
    );
    let output = Setup::alone().env("SINDRI_CONSOLE_URI", "http://c").key(KEY).output();
    assert!(said(&output).contains("did you mean SINDRI_CONSOLE_URL?"), "{}", said(&output));
}

#[test]
fn blanks_around_values_are_dropped() {
    let console = Console::start(Personality::designed());
    let url = format!("{}\r", console.url());
    let environment =
        [("SINDRI_CONSOLE_URL", url.as_str()), ("SINDRI_INSTANCE_ID", "db-7 \r"), ("SINDRI_PROVIDER", "fly\r")];
    let agent = Agent::spawn(&console, &environment);
    let body = console.registration(1).request().json();
    assert_eq!((&body["instance_id"], &body["provider"]), (&"db-7".into(), &"fly".into()));
    agent.drain();
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
