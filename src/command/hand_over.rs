//! What one program gives the next of a command, and the command that the next makes of it.
//!
//! Its process stays a child, and its pipes stay open: a descriptor keeps its number across an exec. Whether it has
//! exited or its output has ended is not given; that is found out again.

use super::pipe::{Pipe, Watched};
use super::run::{Run, watch_on};
use super::spec::Feed;
use super::{CommandReport, CommandRunner, Running, Spec};
use crate::protocol::OutputStream;
use crate::sys::child::{Child, EXIT_CODE_UNKNOWN};
use crate::sys::descriptor::inherited;
use async_io::Async;
use draupnir_fsm::driver::CommandKey;
use rustix::fs::{FileType, fstat};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

/// A command whose process was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCommand {
    /// Its process.
    pub pid: u32,
    /// How long it has run, in milliseconds.
    pub ran_ms: u64,
    /// Its standard output and its standard error.
    pub outputs: [SavedOutput; 2],
    /// The pipe to its standard input, as long as a part of its script waits.
    pub stdin: Option<RawFd>,
    /// That part.
    #[serde(skip)]
    pub script: Vec<u8>,
}

/// An output of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOutput {
    /// The pipe, unless its end was read.
    pub pipe: Option<RawFd>,
    /// How much was printed, in bytes.
    pub bytes: u64,
    /// The first bytes that are kept for the result.
    #[serde(skip)]
    pub head: Vec<u8>,
    /// The last of them, if some lie between.
    #[serde(skip)]
    pub tail: Vec<u8>,
}

/// What is kept of a streamed output, to send it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedStream {
    /// Where it ends.
    pub end: u64,
    /// No byte will follow.
    pub has_ended: bool,
    /// The last bytes.
    #[serde(skip)]
    pub kept: Vec<u8>,
}

impl SavedCommand {
    /// The descriptors that must stay open across the exec.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.outputs.iter().filter_map(|output| output.pipe).chain(self.stdin)
    }
}

impl Spec {
    /// Its parts for the next program: a line of words, and the script.
    pub fn save(&self) -> (SavedSpec, Vec<u8>) {
        let (is_line, words) = match &self.line {
            super::Line::Shell(line) => (true, vec![line.clone()]),
            super::Line::Program { program, arguments } => {
                (false, std::iter::once(program).chain(arguments).cloned().collect())
            }
        };
        let directory = self.directory.as_ref().map(|directory| directory.to_string_lossy().into_owned());
        let (env, has_script, stream) = (self.env.clone(), self.script.is_some(), self.stream);
        (SavedSpec { is_line, words, env, directory, has_script, stream }, self.script.clone().unwrap_or_default())
    }

    /// What to run, as the program before this one would have; `None` where there is no word.
    pub fn restore(saved: SavedSpec, script: Vec<u8>) -> Option<Self> {
        let SavedSpec { is_line, words, env, directory, has_script, stream } = saved;
        let mut words = words.into_iter();
        let first = words.next()?;
        let line = if is_line {
            super::Line::Shell(first)
        } else {
            super::Line::Program { program: first, arguments: words.collect() }
        };
        Some(Self { line, env, script: has_script.then_some(script), directory: directory.map(Into::into), stream })
    }
}

/// A command that waits for its start. A console's texts are UTF-8, so nothing is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSpec {
    is_line: bool,
    words: Vec<String>,
    env: Vec<(String, String)>,
    directory: Option<String>,
    has_script: bool,
    stream: bool,
}

impl CommandRunner {
    /// A command for the next program.
    pub fn save(&self, command: CommandKey) -> Option<SavedCommand> {
        Some(self.running.get(&command)?.run.save())
    }

    /// The process of a command, without what it printed, for a panic.
    pub fn save_process(&self, command: CommandKey) -> Option<SavedCommand> {
        Some(self.running.get(&command)?.run.save_process())
    }

    /// Whether the output of a command is sent while it runs.
    pub fn is_streamed(&self, command: CommandKey) -> bool {
        self.streams.contains_key(&(command, OutputStream::Stdout))
    }

    /// Every streamed output that is kept, of commands that have ended too.
    pub fn save_streams(&self) -> impl Iterator<Item = (CommandKey, OutputStream, SavedStream)> {
        self.streams.iter().map(|((command, stream), watched)| (*command, *stream, watched.borrow().save()))
    }

    /// Goes on with what the program before this one kept of a streamed output. Before its command is taken over.
    pub fn take_over_stream(&mut self, command: CommandKey, stream: OutputStream, saved: &SavedStream) {
        let watched = Watched::restore(Rc::clone(&self.budget), saved);
        self.streams.insert((command, stream), Rc::new(RefCell::new(watched)));
    }

    /// The outputs of ended commands that are read and discarded.
    pub fn save_discarded(&self) -> Vec<RawFd> {
        self.discarded.save()
    }

    /// Goes on with the outputs that the program before this one discarded.
    pub fn take_over_discarded(&mut self, outputs: &[RawFd]) {
        for output in outputs {
            if let Some(reads) = inherited(*output).ok().and_then(|reads| Async::new(reads).ok()) {
                self.discarded.push(&self.executor, Rc::new(reads));
            }
        }
    }

    /// Goes on with a command of the program before this one. The key must be new.
    pub fn take_over(&mut self, command: CommandKey, saved: SavedCommand) {
        let pid = saved.pid;
        match self.adopt(command, saved) {
            Some(running) => drop(self.running.insert(command, running)),
            None => {
                tracing::error!(command = command.0, pid, "command not taken over");
                let reporter = self.reporter.clone();
                let report = async move {
                    reporter.report(CommandReport::EndOfOutput { command }).await;
                    reporter.report(CommandReport::Exited { command, code: EXIT_CODE_UNKNOWN }).await;
                };
                self.executor.spawn(report).detach();
            }
        }
    }

    fn adopt(&self, command: CommandKey, saved: SavedCommand) -> Option<Running> {
        let SavedCommand { pid, ran_ms, outputs: [stdout, stderr], stdin, script } = saved;
        let child = Child::take_over(Pid::from_raw(i32::try_from(pid).ok()?)?).ok()?;
        let open = |descriptor: RawFd| {
            let pipe = inherited(descriptor).ok()?;
            // After a panic the number may stand for another file.
            let is_pipe = FileType::from_raw_mode(fstat(&pipe).ok()?.st_mode) == FileType::Fifo;
            is_pipe.then(|| Async::new(pipe).ok()).flatten()
        };
        let watched = |stream| self.streams.get(&(command, stream)).map(Rc::clone);
        let pipe = |saved: SavedOutput, stream| {
            let reads = saved.pipe.and_then(open);
            Pipe::restore(reads, &saved, Rc::clone(&self.budget), watched(stream))
        };
        let (stdout, stderr) = (pipe(stdout, OutputStream::Stdout)?, pipe(stderr, OutputStream::Stderr)?);
        let streams = self.streams.contains_key(&(command, OutputStream::Stdout));
        let feed = stdin.and_then(open).map(|stdin| Feed { script: script.into(), stdin });
        let run = Rc::new(Run::taken_over(command, child, stdout, stderr, ran_ms, feed));
        let watch = watch_on(Rc::clone(&run), streams, self.reporter.clone());
        Some(Running { run, watch: self.executor.spawn(watch) })
    }
}
