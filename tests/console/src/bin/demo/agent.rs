//! Builds the agent, starts it, and sees to it that it ends.
//!
//! It neither reads the agent's log nor judges its exit status; the log goes to a file of the demo's own directory.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use draupnir_console::Console;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Seconds between heartbeats, and between metrics: a demo is looked at for a minute, not for a day.
const HEARTBEAT_SECONDS: &str = "2";
const METRICS_SECONDS: &str = "1";

/// Lines of its log that are shown when the agent fails.
const LOG_LINES: usize = 20;

/// Builds the release binary with the cargo that runs the demo, which shows its own progress; says where it is.
pub(crate) fn build() -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut build = Command::new(cargo)
        .args(["build", "--release", "--package", "draupnir", "--bin", "sindri-agent"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace)
        .stdout(Stdio::piped())
        .spawn()?;
    let messages = build.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    let mut program = None;
    for message in messages.map_while(Result::ok) {
        let message: Value = serde_json::from_str(&message).unwrap_or_default();
        if message["reason"] == "compiler-artifact" && message["target"]["name"] == "sindri-agent" {
            program = message["executable"].as_str().map(PathBuf::from);
        }
    }
    if !build.wait()?.success() {
        return Err(io::Error::other("the agent does not build"));
    }
    program.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "cargo did not say where the agent is"))
}

/// The running agent.
pub(crate) struct Agent {
    pid: Pid,
    child: Option<Child>,
    directory: TempDir,
    ended: bool,
}

impl Agent {
    /// Starts it with a state directory of its own, in a process group of its own: the terminal's Ctrl-C is the demo's
    /// to interpret.
    pub(crate) fn start(program: &Path, console: &Console) -> io::Result<Agent> {
        let directory = tempfile::Builder::new().prefix("draupnir-demo-").tempdir()?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SINDRI_")) {
            command.env_remove(name);
        }
        let child = command
            .env("SINDRI_CONSOLE_URL", console.url())
            .env("SINDRI_CONSOLE_API_KEY", console.key())
            .env("SINDRI_AGENT_STATE_DIR", directory.path().join("state"))
            .env("SINDRI_AGENT_HEARTBEAT", HEARTBEAT_SECONDS)
            .env("SINDRI_AGENT_METRICS", METRICS_SECONDS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        Ok(Agent { pid: Pid::from_child(&child), child: Some(child), directory, ended: false })
    }

    /// Tells of the agent's end, once, from a thread that waits for it.
    pub(crate) fn on_exit(&mut self, tell: impl FnOnce(io::Result<ExitStatus>) + Send + 'static) {
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || tell(child.wait()));
        }
    }

    /// Asks it to drain.
    pub(crate) fn drain(&self) {
        self.signal(Signal::TERM);
    }

    /// It has ended: its number may be another's by now.
    pub(crate) fn has_ended(&mut self) {
        self.ended = true;
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(self.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }

    fn signal(&self, signal: Signal) {
        if !self.ended {
            let _ = kill_process(self.pid, signal); // it may end at this moment
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
