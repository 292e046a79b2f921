//! Which id the agent uses across reconnects and restarts, with and without its state (CONSOLE.md, "Registration").

use crate::support;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Agent, Home, INSTANCE_ID, Setup};
use draupnir_console::{Console, Personality, What};
use serde_json::Value;

const FLY: (&str, &str) = ("SINDRI_PROVIDER", "fly");

/// Starts an agent in this home, and returns the id in its first heartbeat.
#[track_caller]
fn lives(console: &Console, home: &Home) -> (Agent, String) {
    let view = console.from_now();
    let agent = Setup::new(console).home(home).env(FLY.0, FLY.1).env("SINDRI_AGENT_HEARTBEAT", "0.2").spawn();
    let id = view.frame("heartbeat").payload()["instance_id"].as_str().expect("an id").to_owned();
    (agent, id)
}

fn registrations(console: &Console) -> usize {
    console.count(|record| matches!(record.what, What::Registration(..)))
}

fn is_memory_warning(line: &Value) -> bool {
    line["level"] == "WARN" && line["message"] == "state directory not writable; instance id will not survive a restart"
}

#[test]
fn restart_dials_the_remembered_id() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, id) = lives(&console, &home);
    agent.drain();
    console.ended(1);
    assert!(console.is_error(&id), "registering now would make a second instance");
    let registered = registrations(&console);
    let (agent, again) = lives(&console, &home);
    assert_eq!(again, id);
    assert_eq!(console.upgrade(2).request().header("X-Instance-ID"), Some(id.as_str()));
    assert_eq!((registrations(&console), console.instance_ids()), (registered, vec![id]));
    agent.drain();
}

#[test]
fn a_restart_without_the_state_registers_again() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, id) = lives(&console, &home);
    agent.drain();
    console.ended(1);
    std::fs::remove_dir_all(home.state_dir()).expect("it was there");
    let (agent, another) = lives(&console, &home);
    assert_ne!(another, id);
    assert_eq!(console.instance_ids(), [id, another]);
    agent.drain();
}

#[test]
fn a_killed_agent_remembers_as_well() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, id) = lives(&console, &home);
    let is_saved =
        || std::fs::read_to_string(home.state_dir().join("identity.json")).is_ok_and(|text| text.contains(&id));
    support::settles(&console, "the id is on the disk", is_saved);
    agent.kill();
    console.ended(1);
    let (agent, again) = lives(&console, &home);
    assert_eq!((again, console.instance_ids().len()), (id, 1));
    agent.drain();
}

#[test]
fn a_reconnect_does_not_register() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, id) = lives(&console, &home);
    let registered = registrations(&console);
    console.connection(1).reset();
    assert_eq!(console.on(2).frame("heartbeat").payload()["instance_id"], id.as_str());
    assert_eq!(registrations(&console), registered);
    agent.drain();
}

#[test]
fn forgotten_id_is_replaced_and_remembered() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, id) = lives(&console, &home);
    agent.drain();
    console.ended(1);
    console.forget(&id);
    let (agent, another) = lives(&console, &home); // refused with 1008, registered within five seconds
    assert_ne!(another, id);
    agent.wait_log(|line| line["level"] == "ERROR" && line.to_string().contains(&id));
    agent.drain();
    let (agent, again) = lives(&console, &home);
    assert_eq!(again, another);
    agent.drain();
}

#[test]
fn id_of_one_console_is_not_sent_to_another() {
    let (first, second, home) =
        (Console::start(Personality::production()), Console::start(Personality::designed()), Home::new());
    let (agent, id) = lives(&first, &home);
    agent.drain();
    let (agent, other) = lives(&second, &home);
    assert_eq!(other, INSTANCE_ID);
    agent.drain();
    let (agent, again) = lives(&first, &home);
    assert_eq!(again, id);
    agent.drain();
}

#[test]
fn the_state_is_for_its_owner_alone() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, _) = lives(&console, &home);
    agent.drain();
    // The socket has a test of its own (tests/status.rs).
    let is_file = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let entries = std::fs::read_dir(home.state_dir()).expect("it was made").flatten();
    let files: Vec<_> = entries.filter(is_file).collect();
    assert_eq!(files.len(), 3, "the identity, the journal and its lock: {files:?}");
    for file in files {
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn a_damaged_state_is_one_warning_and_is_mended() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let (agent, _) = lives(&console, &home);
    agent.drain();
    let file = home.state_dir().join("identity.json");
    std::fs::write(&file, b"{\"version\":1,\"identities\":[{\"cons").expect("written");
    let (agent, id) = lives(&console, &home);
    agent.wait_log(is_memory_warning);
    assert_eq!(agent.log().count(is_memory_warning), 1);
    agent.drain();
    let (agent, again) = lives(&console, &home);
    assert_eq!((again, agent.log().count(is_memory_warning)), (id, 0));
    agent.drain();
}

#[test]
fn unwritable_state_is_one_warning() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[FLY, ("SINDRI_AGENT_STATE_DIR", "/dev/null/state")]);
    console.frame("heartbeat");
    console.connection(1).reset();
    console.on(2).frame("heartbeat");
    agent.wait_log(is_memory_warning);
    assert_eq!(agent.log().count(is_memory_warning), 1);
    assert_eq!(console.instance_ids().len(), 1);
    agent.drain();
}

#[test]
fn console_row_id_dials_first_and_registers_when_unknown() {
    let id = "cm4x8k2zq0000v8l5c3d1e9ab";
    let console = Console::start(Personality::production());
    console.know(id);
    let agent = Agent::spawn(&console, &[("SINDRI_INSTANCE_ID", id)]);
    assert_eq!(console.connection(1).instance_id(), Some(id));
    console.frame("heartbeat");
    assert_eq!(registrations(&console), 0);
    agent.drain();

    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_INSTANCE_ID", id)]);
    assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(id));
    console.frame("heartbeat");
    assert!(registrations(&console) > 0);
    agent.drain();
}
