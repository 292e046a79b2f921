//! Runs the agent in its own mount namespace, so that a test can change the files that it sees.

use crate::support::Setup;
use std::process::{Command, Stdio};

/// Whether this user may create a namespace here.
pub(crate) fn is_possible() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// The same agent in a namespace that these shell commands have changed.
pub(crate) fn mounted(setup: Setup, commands: &[&str]) -> Setup {
    let agent = setup.program_path().to_owned();
    let script = format!("{} && exec \"$0\" \"$@\"", commands.join(" && "));
    setup.program("unshare").args_before(["--mount".into(), "sh".into(), "-c".into(), script.into(), agent.into()])
}

/// Runs another test of this program, one marked `#[ignore]`, in its own network namespace: loopback, and the
/// interfaces that these shell commands create. Returns false if this machine does not allow it.
pub(crate) fn run_apart(test: &str, commands: &[&str]) -> bool {
    let apart = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-ec", script]);
        command
    };
    let prepare = format!("ip link set lo up\n{}\n", commands.join("\n"));
    let possible = apart(&prepare).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        return false;
    }
    let this = std::env::current_exe().expect("this program has a path");
    let script = format!("{prepare}exec \"$0\" --exact --ignored --nocapture {test}");
    let output = apart(&script).arg(this).output().expect("it could be started a moment ago");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    true
}
