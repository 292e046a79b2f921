//! Starts the agent, and ends it even if the demo is killed.
//!
//! The agent's log goes to a file in the demo's own directory.

use std::io::{self, ErrorKind, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use draupnir_console::Console;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Seconds between heartbeats, and between metrics: a demo lasts a minute.
const HEARTBEAT_SECONDS: &str = "2";
const METRICS_SECONDS: &str = "1";

/// The name of its recording, which the page follows.
const RECORDING: &str = "recording.jsonl";

/// The name of its log, by which the agent knows it as its own.
const LOG: &str = "draupnir.log";

/// How many lines of its log the demo shows if the agent fails.
const LOG_LINES: usize = 20;

/// A script that ends the agent ($1) and removes its directory ($2) if the demo is killed: its standard input then ends
/// without a line. The agent has twice the time of its drain, which is 4 s.
const KEEPER: &str = r#"
read -r _ && exit
kill -TERM "$1"
tries=80
while kill -0 "$1" 2>/dev/null && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
kill -KILL "$1" 2>/dev/null
rm -rf -- "$2"
"#;

/// The path of the agent from the same build.
pub(crate) fn built() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("sindri-agent");
    match program.exists() {
        true => Ok(program),
        false => Err(io::Error::new(ErrorKind::NotFound, format!("no {}: run `cargo demo`", program.display()))),
    }
}

/// The running agent.
pub(crate) struct Agent {
    pid: Pid,
    child: Option<Child>,
    directory: TempDir,
    keeper: Child,
    ended: bool,
}

impl Agent {
    /// Starts it with its own state directory and in its own process group, so that only the demo gets the terminal's
    /// Ctrl-C.
    pub(crate) fn start(program: &Path, console: &Console) -> io::Result<Agent> {
        let directory = tempfile::Builder::new().prefix("draupnir-demo-").tempdir()?;
        let log = std::fs::File::create(directory.path().join(LOG))?;
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
            .env("SINDRI_AGENT_TAGS", "purpose=demo")
            // The page shows what the agent logs.
            .env("SINDRI_AGENT_LOGS", directory.path().canonicalize()?.join(LOG))
            .env("SINDRI_AGENT_RECORD", directory.path().join(RECORDING))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        let pid = Pid::from_child(&child);
        let keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(child.id().to_string())
            .arg(directory.path())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .inspect_err(|_| kill_process(pid, Signal::KILL).unwrap_or_default())?;
        Ok(Agent { pid, child: Some(child), directory, keeper, ended: false })
    }

    /// Reports the agent's end, once, from a thread that waits for it.
    pub(crate) fn on_exit(&mut self, report: impl FnOnce(io::Result<ExitStatus>) + Send + 'static) {
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || report(child.wait()));
        }
    }

    /// The file of its recording. It is bounded, and removed with the demo.
    pub(crate) fn recording(&self) -> PathBuf {
        self.directory.path().join(RECORDING)
    }

    /// Asks it to drain.
    pub(crate) fn drain(&self) {
        self.signal(Signal::TERM);
    }

    /// Records that it has ended: another process may have its number now.
    pub(crate) fn has_ended(&mut self) {
        self.ended = true;
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(self.directory.path().join(LOG)).unwrap_or_default();
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
        // A line ends the script. An error means that it has ended already.
        let _ = self.keeper.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        let _ = self.keeper.wait();
    }
}
