//! What to run, and how it is started: a shell line or a program, in a session of its own.
//!
//! It does not watch what was started. Wire: `command:dispatch` (wire.md, part B).

use crate::protocol::Dispatch;
use crate::sys::child::Child;
use crate::sys::environment::Environment;
use crate::sys::spawn::{Program, SpawnError, spawn};
use async_io::Async;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The shell of command lines. POSIX knows it by this name only, and every system has it there.
const SHELL: &str = "/bin/sh";

/// What a command gets from the agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's own variables without its secrets.
    pub environment: Environment,
    /// The working directory where the console names none; one that is named is relative to it.
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

/// A process with the agent's ends of its pipes.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) stdout: Async<OwnedFd>,
    pub(super) stderr: Async<OwnedFd>,
    pub(super) feed: Option<Feed>,
}

/// A script on its way into standard input.
pub(super) struct Feed {
    pub(super) script: Vec<u8>,
    pub(super) stdin: Async<OwnedFd>,
}

/// Starts a command. Every end of a pipe that is not the agent's is closed when this is back.
pub(super) fn start(settings: &Settings, spec: Spec) -> Result<Started, SpawnError> {
    let Spec { line, env, script, directory, stream: _ } = spec;
    let (path, arguments) = match line {
        Line::Shell(line) => (SHELL.into(), vec![OsString::from("-c"), line.into()]),
        Line::Program { program, arguments } => (program, arguments.into_iter().map(OsString::from).collect()),
    };
    let directory = working_directory(&settings.home, directory);
    let mut environment = settings.environment.clone();
    match plain(&directory) {
        Some(directory) => environment.set("PWD", directory),
        None => environment.remove("PWD"),
    }
    for (name, value) in env {
        environment.set(name, value);
    }
    let (stdin, feed) = standard_input(script).map_err(SpawnError::Exhausted)?;
    let (stdout, stdout_writes) = output().map_err(SpawnError::Exhausted)?;
    let (stderr, stderr_writes) = output().map_err(SpawnError::Exhausted)?;
    let child = spawn(&Program {
        path: OsStr::new(&path),
        name: None,
        arguments: &arguments,
        environment: &environment,
        directory: &directory,
        stdio: [stdin.as_fd(), stdout_writes.as_fd(), stderr_writes.as_fd()],
        controlling_terminal: false,
    })?;
    Ok(Started { child, stdout, stderr, feed })
}

/// A directory that the console names must be there; the home directory of an image often is not.
fn working_directory(home: &Path, named: Option<PathBuf>) -> PathBuf {
    let home = if home.is_dir() { home } else { Path::new("/") };
    named.map_or_else(|| home.to_owned(), |named| home.join(named))
}

/// The directory as a shell would name it in `PWD`: absolute and without detours; else the shell finds out by itself.
fn plain(directory: &Path) -> Option<PathBuf> {
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    (directory.is_absolute() && directory.components().all(is_plain)).then(|| directory.components().collect())
}

fn standard_input(script: Option<Vec<u8>>) -> io::Result<(OwnedFd, Option<Feed>)> {
    let Some(script) = script else {
        return Ok((File::open("/dev/null")?.into(), None));
    };
    let (reads, writes): (PipeReader, PipeWriter) = io::pipe()?;
    let stdin = Async::new(OwnedFd::from(writes))?;
    Ok((reads.into(), Some(Feed { script, stdin })))
}

fn output() -> io::Result<(Async<OwnedFd>, PipeWriter)> {
    let (reads, writes) = io::pipe()?;
    Ok((Async::new(OwnedFd::from(reads))?, writes))
}
