//! Runs the agent as a user who is not root, because limits and permissions do not bind root.

use crate::support::{Setup, agent_program};
use draupnir_console::Console;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

/// A command that runs a program as a user id that no distribution assigns.
pub(crate) const STRANGER: [&str; 4] = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];

/// The agent behind this wrapper command, as a user without a name; only root can start it. The directory holds a copy
/// of its program.
pub(crate) fn as_stranger(console: &Console, words: &[&str]) -> (Setup, TempDir) {
    // Another user may not read the build directory of a developer, so the program is copied.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = directory.path().join("sindri-agent");
    std::fs::copy(agent_program(), &program).expect("there is room");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let setup = with_fast_heartbeats(console).env("SINDRI_AGENT_STATE_DIR", "/nonexistent").env("HOME", "/nonexistent");
    let setup = setup.program(STRANGER[0]);
    (STRANGER[1..].iter().chain(words).fold(setup, |setup, word| setup.arg(word)).arg(&program), directory)
}

/// The agent behind this wrapper command, as a user with limits: another user if the tests run as root.
pub(crate) fn as_limited_user(console: &Console, words: &[&str]) -> (Setup, Option<TempDir>) {
    if rustix::process::geteuid().is_root() {
        let (setup, program) = as_stranger(console, words);
        return (setup, Some(program));
    }
    let setup = words.iter().fold(with_fast_heartbeats(console).program("env"), |setup, word| setup.arg(word));
    (setup.arg(agent_program()), None)
}

fn with_fast_heartbeats(console: &Console) -> Setup {
    Setup::new(console).env("SINDRI_AGENT_HEARTBEAT", "0.2")
}
