//! The agent as a user who is not root: whatever root may do is no limit, and no lock.
//!
//! A test that wants it says `#[path = "support/stranger.rs"] mod stranger;`.

// Every test that includes this is a crate of its own and uses a part of it.
#![allow(dead_code)]

use crate::support::{Setup, agent_program};
use draupnir_console::Console;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

/// What makes a process one of a user of no name. The number is none that a distribution gives.
pub(crate) const STRANGER: [&str; 4] = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];

/// The agent, behind these words, as a user whom the system does not know, to be started by root; the directory holds
/// its program.
pub(crate) fn as_stranger(console: &Console, words: &[&str]) -> (Setup, TempDir) {
    // The build directory of a developer may be closed to strangers; the program itself is copied to where it is not.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = directory.path().join("sindri-agent");
    std::fs::copy(agent_program(), &program).expect("there is room");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let setup = beating(console).env("SINDRI_AGENT_STATE_DIR", "/nonexistent").env("HOME", "/nonexistent");
    let setup = setup.program(STRANGER[0]);
    (STRANGER[1..].iter().chain(words).fold(setup, |setup, word| setup.arg(word)).arg(&program), directory)
}

/// The agent, behind these words, as a user for whom limits hold: a stranger where we are root.
pub(crate) fn as_somebody(console: &Console, words: &[&str]) -> (Setup, Option<TempDir>) {
    if rustix::process::geteuid().is_root() {
        let (setup, program) = as_stranger(console, words);
        return (setup, Some(program));
    }
    let setup = words.iter().fold(beating(console).program("env"), |setup, word| setup.arg(word));
    (setup.arg(agent_program()), None)
}

fn beating(console: &Console) -> Setup {
    Setup::new(console).env("SINDRI_AGENT_HEARTBEAT", "0.2")
}
