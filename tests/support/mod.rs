//! Starts, watches and ends the real agent in a test.
//!
//! `draupnir-console` is the console. This module checks one rule for every agent: the key never appears in anything
//! that the agent wrote. Every wait has a deadline, and no wait sleeps. A test that includes this module (`mod
//! support;`) reads:
//!
//! ```ignore
//! let console = Console::start(Personality::production());
//! let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2")]);
//! console.frame("heartbeat");
//! assert_eq!(console.browser().run("echo hi")["stdout"], "hi\n");
//! agent.drain(); // SIGTERM, exit status 0 within the drain's time table
//! ```
//!
//! Invariants: the agent has a clean environment and its own home; it ends when its [`Agent`] is dropped; if the test
//! panics, its log is printed. `DRAUPNIR_AGENT` names another build of the agent to run the same tests against.

// Each of the programs that include this module uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod authority;
#[cfg(target_os = "linux")]
pub(crate) mod delayed;
pub(crate) mod diagnoses;
mod frames;
pub(crate) mod front;
#[cfg(target_os = "linux")]
pub(crate) mod group;
#[cfg(target_os = "linux")]
pub(crate) mod hung;
pub(crate) mod llm;
mod log;
#[cfg(target_os = "linux")]
pub(crate) mod namespace;
mod process;
mod skip;
pub(crate) mod stranger;
pub(crate) mod tinyproxy;
pub(crate) mod tls;
mod trace;

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use draupnir_console::Console;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use log::{Line, Log, mentions};
pub(crate) use process::{Process, Signal};
pub(crate) use skip::skip;
pub(crate) use trace::{Kind, Trace};

/// The longest wait for the agent unless a test sets another one.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(45);

/// The drain ends 4 s after SIGTERM at the latest; the rest is for a loaded machine.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(6);

/// The configured id of an agent unless a test sets another one.
pub(crate) const INSTANCE_ID: &str = "test-instance";

/// A fresh home directory. Clones share it; the last one removes it.
#[derive(Clone, Debug)]
pub(crate) struct Home(Arc<TempDir>);

impl Home {
    /// An empty home.
    pub(crate) fn new() -> Home {
        Home(Arc::new(tempfile::Builder::new().prefix("draupnir-").tempdir().expect("a temporary directory")))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The agent's state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }
}

/// Program, arguments, environment and home of an agent.
#[derive(Debug)]
pub(crate) struct Setup {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    home: Home,
    key: String,
    is_leak_planted: bool,
    /// The console whose records are kept for the check against the schema.
    console: Option<Console>,
}

impl Setup {
    /// An ordinary start against this console.
    pub(crate) fn new(console: &Console) -> Setup {
        let setup = Setup::alone().env("SINDRI_CONSOLE_URL", console.url()).key(&console.key());
        Setup { console: Some(console.clone()), ..setup }
    }

    /// The same without a console: for `--version`, `doctor` and faulty configurations.
    pub(crate) fn alone() -> Setup {
        let home = Home::new();
        let setup = Setup {
            program: agent_program(),
            arguments: vec![],
            environment: vec![],
            home,
            key: String::new(),
            is_leak_planted: false,
            console: None,
        };
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let home = setup.home.clone();
        setup
            .env("PATH", path)
            .env("SINDRI_INSTANCE_ID", INSTANCE_ID)
            .env("SINDRI_LOG_LEVEL", "debug") // so that the check for the key sees the most text
            .home(&home)
    }

    /// Uses this home, with the state that an earlier agent left there.
    pub(crate) fn home(mut self, home: &Home) -> Setup {
        self.home = home.clone();
        self.env("HOME", home.path()).env("SINDRI_AGENT_STATE_DIR", home.state_dir())
    }

    /// Uses this key, which must never appear in anything that it writes.
    pub(crate) fn key(mut self, key: &str) -> Setup {
        key.clone_into(&mut self.key);
        self.env("SINDRI_CONSOLE_API_KEY", key)
    }

    /// Marks a program that leaks its key on purpose, to test the tests. It does not count as an agent.
    pub(crate) fn planted(mut self) -> Setup {
        self.is_leak_planted = true;
        self
    }

    /// Sets a variable.
    pub(crate) fn env(self, name: &str, value: impl AsRef<OsStr>) -> Setup {
        let mut setup = self.without(name);
        setup.environment.push((name.into(), value.as_ref().to_owned()));
        setup
    }

    /// Leaves a variable unset.
    pub(crate) fn without(mut self, name: &str) -> Setup {
        self.environment.retain(|(set, _)| set != name);
        self
    }

    /// One more argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Setup {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Another program in the agent's place: for a wrapper (`nohup`, `unshare`, `strace`) with the agent as argument.
    pub(crate) fn program(mut self, program: impl AsRef<Path>) -> Setup {
        program.as_ref().clone_into(&mut self.program);
        self
    }

    /// Arguments in front of those that it has, for a wrapper.
    pub(crate) fn args_before<const N: usize>(mut self, arguments: [OsString; N]) -> Setup {
        self.arguments.splice(..0, arguments);
        self
    }

    /// The path of its home.
    pub(crate) fn home_path(&self) -> &Path {
        self.home.path()
    }

    /// The path of its program.
    pub(crate) fn program_path(&self) -> &Path {
        &self.program
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn spawn(self) -> Agent {
        let stdout = tempfile::tempfile().expect("a temporary file");
        let mut child = self
            .command()
            // Its parent is in another group of the same session. Otherwise the kernel would not let SIGTSTP stop it.
            .process_group(0)
            .stdout(stdout.try_clone().expect("there are descriptors"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let log = Log::follow(child.stderr.take().expect("the standard error is a pipe"));
        Agent { process: Process::new(child), log, stdout, setup: self }
    }

    /// Runs a program that does not connect, until it ends.
    #[track_caller]
    pub(crate) fn output(self) -> Output {
        let output = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.trace(&output.stdout, &output.stderr);
        output
    }

    /// Looks for the key in the output, and in every file that the agent may have written.
    #[track_caller]
    fn trace(&self, stdout: &[u8], stderr: &[u8]) {
        let mut trace = Trace::of(&self.key);
        trace.look(Kind::Printed, "the output", stdout);
        trace.look(Kind::Printed, "the log", stderr);
        let kinds = [
            ("SINDRI_AGENT_RECORD", Kind::Recorded),
            ("SINDRI_AGENT_AUDIT", Kind::Audited),
            ("SINDRI_AGENT_STATE_DIR", Kind::Remembered),
            ("HOME", Kind::Other),
        ];
        for (variable, kind) in kinds {
            if let Some((_, path)) = self.environment.iter().find(|(name, _)| name == variable) {
                trace.look_at(kind, Path::new(path));
            }
        }
        trace.look_at(Kind::Other, self.home.path());
        if self.is_leak_planted { trace.judge_planted() } else { trace.judge() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.home.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// The program under test.
pub(crate) fn agent_program() -> PathBuf {
    std::env::var_os("DRAUPNIR_AGENT").map_or_else(|| env!("CARGO_BIN_EXE_sindri-agent").into(), PathBuf::from)
}

/// A running agent, or one that has ended.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    log: Log,
    stdout: std::fs::File,
    setup: Setup,
}

impl Agent {
    /// Starts the agent against this console, with these variables beside the usual ones.
    #[track_caller]
    pub(crate) fn spawn(console: &Console, environment: &[(&str, &str)]) -> Agent {
        let with_environment = |setup: Setup, (name, value): &(&str, &str)| setup.env(name, value);
        environment.iter().fold(Setup::new(console), with_environment).spawn()
    }

    /// Its home, in which a test can start another agent.
    pub(crate) fn home(&self) -> &Home {
        &self.setup.home
    }

    /// The process: signals, exit status, figures of `/proc`.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for a log line that matches, and returns it.
    #[track_caller]
    pub(crate) fn wait_log(&self, matches: impl Fn(&Value) -> bool) -> Value {
        self.log.wait(WAIT_MAX, matches)
    }

    /// Sends a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait_exit(&self, patience: Duration) -> ExitStatus {
        let Some(status) = self.process.wait(patience) else { panic!("the agent still runs after {patience:?}") };
        status
    }

    /// Sends SIGTERM, and checks that it exits with status 0 within [`DRAIN_MAX`].
    #[track_caller]
    pub(crate) fn drain(&self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(DRAIN_MAX);
        assert!(status.success(), "a drain ends with status 0, this one with {status}");
    }

    /// Sends SIGKILL and waits for the end.
    #[track_caller]
    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill();
        // Descendants may hold the pipe open; then the log so far is all.
        self.log.wait_end(Duration::from_secs(2));
        if std::thread::panicking() {
            eprintln!("--- what the agent logged ---\n{}---", self.log.text());
            return;
        }
        let mut stdout = Vec::new();
        let read = self.stdout.rewind().and_then(|()| self.stdout.read_to_end(&mut stdout));
        read.expect("a temporary file can be read");
        self.setup.trace(&stdout, self.log.text().as_bytes());
        if let Some(console) = self.setup.console.as_ref().filter(|_| !self.setup.is_leak_planted) {
            frames::note(console);
        }
    }
}

/// Waits for a condition that shows only in `/proc`: checks it at each heartbeat that the console receives.
#[track_caller]
pub(crate) fn settles(console: &Console, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + WAIT_MAX;
    let mut view = console.from_now();
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never so: {what}");
        let heartbeat = view.frame("heartbeat");
        view = view.after(&heartbeat);
    }
}

/// Whether a step of a recording has an input of this kind.
pub(crate) fn has_input(step: &Value, kind: &str) -> bool {
    let is_it = |input: &Value| input == kind || input.get(kind).is_some();
    step["inputs"].as_array().is_some_and(|inputs| inputs.iter().any(is_it))
}
