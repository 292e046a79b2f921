//! What to run, a shell line or a program, and how it is started in its own session.
//!
//! Wire: `command:dispatch` (CONSOLE.md, "Commands").

use crate::protocol::Dispatch;
use crate::sys::child::Child;
use crate::sys::environment::Environment;
use crate::sys::spawn::{Program, SpawnError, Start, spawn};
use async_io::Async;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// The shell of command lines. POSIX knows it by this name only, and every system has it there.
const SHELL: &str = "/bin/sh";

/// The longest argument that every system takes, in bytes without its end: Linux has 32 pages.
const ARGUMENT_BYTES_MAX: usize = (128 << 10) - 1;

/// What a command gets from the agent.
#[derive(Clone, Debug)]
pub struct CommandSettings {
    /// The agent's own variables without its secrets.
    pub environment: Environment,
    /// The working directory where the console names none; one that is named is relative to it. `/` where it cannot be
    /// entered.
    pub home: PathBuf,
}

/// One command.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    /// What to run.
    pub line: Line,
    /// Variables beside those of the agent; a later one wins.
    pub env: Vec<(String, String)>,
    /// Standard input; empty where there is none.
    pub script: Option<Vec<u8>>,
    /// The working directory.
    pub directory: Option<PathBuf>,
    /// Its output is wanted while it runs.
    pub stream: bool,
}

/// What to run.
#[derive(Clone, PartialEq, Eq)]
pub enum Line {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments, as they are.
    Program {
        /// A path, or a name to look for.
        program: String,
        /// The arguments behind its name.
        arguments: Vec<String>,
    },
}

impl Spec {
    /// The memory it takes while it waits, in bytes: a list of empty texts takes its room too.
    pub fn bytes(&self) -> usize {
        let text = |text: &String| size_of::<String>() + text.len();
        let line = match &self.line {
            Line::Shell(line) => line.len(),
            Line::Program { program, arguments } => program.len() + arguments.iter().map(text).sum::<usize>(),
        };
        let env = self.env.iter().map(|(name, value)| text(name) + text(value)).sum::<usize>();
        line + env + self.script.as_ref().map_or(0, Vec::len)
    }
}

impl From<Dispatch> for Spec {
    fn from(dispatch: Dispatch) -> Self {
        let Dispatch { command, args, env, script, working_dir, stream, .. } = dispatch;
        let line =
            if args.is_empty() { Line::Shell(command) } else { Line::Program { program: command, arguments: args } };
        Self { line, env, script, directory: working_dir.map(PathBuf::from), stream }
    }
}

/// A starting process, with the agent's ends of its pipes.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) start: Start,
    pub(super) stdout: Async<OwnedFd>,
    pub(super) stderr: Async<OwnedFd>,
    pub(super) feed: Option<Feed>,
}

/// A script to be written into standard input.
#[derive(Debug)]
pub(super) struct Feed {
    /// The part that is not written yet.
    pub(super) script: VecDeque<u8>,
    pub(super) stdin: Async<OwnedFd>,
}

/// Starts a command and returns while it starts, with only the agent's ends of the pipes open.
pub(super) fn start(settings: &CommandSettings, spec: Spec) -> Result<Started, SpawnError> {
    let Spec { line, env, script, directory, stream: _ } = spec;
    let (path, arguments) = match line {
        Line::Shell(line) => (SHELL.into(), shell_arguments(line)),
        Line::Program { program, arguments } => (program, arguments.into_iter().map(OsString::from).collect()),
    };
    let mut environment = settings.environment.clone();
    for (name, value) in env {
        environment.set(name, value);
    }
    let (stdin, feed) = standard_input(script).map_err(SpawnError::Exhausted)?;
    let (stdout, stdout_writes) = output().map_err(SpawnError::Exhausted)?;
    let (stderr, stderr_writes) = output().map_err(SpawnError::Exhausted)?;
    let (child, start) = spawn(&Program {
        path: OsStr::new(&path),
        name: None,
        arguments: &arguments,
        environment: &environment,
        home: &settings.home,
        directory: directory.as_deref(),
        stdio: [stdin.as_fd(), stdout_writes.as_fd(), stderr_writes.as_fd()],
        controlling_terminal: false,
    })?;
    Ok(Started { child, start, stdout, stderr, feed })
}

/// The shell's arguments to run a line. A line that is too long for one argument is passed in parts. The shell joins
/// the parts and removes them from its parameters before it runs the line.
fn shell_arguments(line: String) -> Vec<OsString> {
    if line.len() <= ARGUMENT_BYTES_MAX {
        return vec!["-c".into(), line.into()];
    }
    let (mut parts, mut rest) = (Vec::new(), line.as_str());
    while !rest.is_empty() {
        let (part, others) = rest.split_at(rest.floor_char_boundary(ARGUMENT_BYTES_MAX));
        parts.push(OsString::from(part));
        rest = others;
    }
    let together: String = (1..=parts.len()).map(|number| format!("${{{number}}}")).collect();
    let line = format!("eval \"shift {}\n{together}\"", parts.len());
    ["-c".into(), line.into(), SHELL.into()].into_iter().chain(parts).collect()
}

fn standard_input(script: Option<Vec<u8>>) -> io::Result<(OwnedFd, Option<Feed>)> {
    let Some(script) = script else {
        return Ok((File::open("/dev/null")?.into(), None));
    };
    let (reads, writes): (PipeReader, PipeWriter) = io::pipe()?;
    let stdin = Async::new(OwnedFd::from(writes))?;
    Ok((reads.into(), Some(Feed { script: script.into(), stdin })))
}

fn output() -> io::Result<(Async<OwnedFd>, PipeWriter)> {
    let (reads, writes) = io::pipe()?;
    Ok((Async::new(OwnedFd::from(reads))?, writes))
}
