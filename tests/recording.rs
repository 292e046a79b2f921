//! The recording of a real agent replays exactly, the replay names the first difference, and the recording has no
//! secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Agent, Home, Setup};
use draupnir_console::{Console, Personality, Upgrade};

/// Records an agent to which many things happen. The key is the console's.
fn recorded(home: &Home) -> PathBuf {
    let console = Console::start(Personality::production());
    let file = home.path().join("life.jsonl");
    let setup = Setup::new(&console).home(home).env("SINDRI_AGENT_RECORD", &file).env("SINDRI_AGENT_HEARTBEAT", "0.3");
    let agent: Agent = setup.spawn();
    console.event("connect");
    console.browser().create("s1", 80, 24).input("s1", b"echo sec''ret-output\r");
    console.wait_text("s1", "secret-output");
    console.browser().run("echo sec''ret-result");
    console.answer_upgrade(Upgrade::status(503).header("Retry-After", "1"));
    console.connection(1).reset();
    console.on(3).frame("heartbeat");
    console.connection(3).close(1012, "restart");
    console.on(4).frame("heartbeat");
    agent.drain();
    file
}

fn replay(file: &Path) -> Output {
    Setup::alone().arg("replay").arg(file).output()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn recording_replays_and_a_change_is_named_by_line() {
    let home = Home::new();
    let file = recorded(&home);
    let life = std::fs::read_to_string(&file).expect("it was recorded");
    let replayed = replay(&file);
    assert!(replayed.status.success(), "{}", said(&replayed));
    assert!(life.lines().last().is_some_and(|line| line.contains("\"stopped\"")), "the last step is in it");

    let (place, line) =
        (1..).zip(life.lines()).find(|(_, line)| line.contains(r#"{"close_link":"#)).expect("it closed");
    let changed = home.path().join("changed.jsonl");
    std::fs::write(&changed, life.replace(line, &line.replace("close_link", "drop_link"))).expect("written");
    let differs = replay(&changed);
    assert_eq!(differs.status.code(), Some(1));
    assert!(said(&differs).contains(&format!("line {place}")), "{}", said(&differs));
}

#[test]
fn it_holds_no_secret_and_is_for_its_owner_alone() {
    let home = Home::new();
    let file = recorded(&home); // `Agent` looks for the key in every file of this home
    let life = std::fs::read_to_string(&file).expect("it was recorded");
    for secret in ["secret", "ret-output", "ret-result", "echo"] {
        assert!(!life.contains(secret), "{secret}");
    }
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn file_without_a_recording_is_an_error() {
    let home = Home::new();
    let file = home.path().join("none.jsonl");
    std::fs::write(&file, "{\"scenario\":3}\nnot a step\n").expect("written");
    for path in [file.as_path(), Path::new("/nonexistent/life.jsonl")] {
        let output = replay(path);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(&path.display().to_string()));
    }
}

#[test]
fn unwritable_recording_is_only_a_warning() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_RECORD", "/nonexistent/life.jsonl")]);
    console.frame("heartbeat");
    agent.wait_log(|line| line["level"] == "WARN" && line.to_string().contains("/nonexistent/life.jsonl"));
    agent.drain();
}
