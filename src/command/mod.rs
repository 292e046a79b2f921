//! One-off commands: a process group each, on the reactor, their output bounded.
//!
//! `draupnir_fsm::driver` decides when a command starts and ends, and keeps the deadlines. No method blocks, even on a
//! file system that does not answer.
//!
//! Invariants:
//! - a start that hangs can be ended and given up like a running command; a process that appears later is killed and
//!   reaped;
//! - a command gets an empty standard input or its script, its own session and process group, and no descriptor or
//!   secret of the agent (`sys`);
//! - background processes of an ended command can print on for a while; their output is read and discarded (`discard`);
//! - the process is not reaped before [`CommandRunner::finish`], so a signal cannot reach another process of its
//!   number;
//! - the captured output is bounded and counts against the budget of all buffers.
//!
//! Units: bytes, milliseconds. Wire: `command:dispatch`, `command:output`, `command:result` (CONSOLE.md, "Commands").

mod capture;
mod discard;
mod hand_over;
mod pipe;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use capture::{CAPTURE_BYTES_MAX, Output};
pub use hand_over::{SavedCommand, SavedOutput, SavedSpec, SavedStream};
pub use spec::{CommandSettings, Line, Spec};

use crate::protocol::OutputStream;
use crate::report::Reporter;
use crate::sys::spawn::SpawnError;
use crate::utf8::incomplete_tail;
use capture::Capture;
use discard::Discarded;
use draupnir_fsm::driver::CommandKey;
use draupnir_fsm::driver::budget::Budget;
use litemap::LiteMap;
use pipe::Watched;
use run::{Run, Streams};
use smol::{LocalExecutor, Task};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// What a command reports to the loop.
#[derive(Debug)]
pub enum CommandReport {
    /// The program runs.
    Started {
        /// The command.
        command: CommandKey,
    },
    /// The program cannot be run. This is the last report of the command.
    StartFailed {
        /// The command.
        command: CommandKey,
        /// Why.
        error: NotStarted,
    },
    /// A streamed command has new output, or an incomplete character may now be sent. At most one such report of a
    /// command waits: the next one comes after [`CommandRunner::held`].
    Output {
        /// The command.
        command: CommandKey,
    },
    /// The last byte of both pipes was read.
    EndOfOutput {
        /// The command.
        command: CommandKey,
    },
    /// The process is gone.
    Exited {
        /// The command.
        command: CommandKey,
        /// The exit code; 128 + N for signal N.
        code: i32,
    },
}

/// Bytes of a streamed output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Where the first byte stands.
    pub offset: u64,
    /// The bytes; whole UTF-8 characters where the command wrote such. Empty if there is nothing but the beginning of
    /// a character.
    pub data: Vec<u8>,
}

/// A command could not be started. The caller must name another program, or the operator must give the machine more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotStarted {
    /// 127 for a program that is not there, else 126.
    pub exit_code: i32,
    /// Why.
    pub reason: String,
    /// The machine is out of processes, descriptors or memory; the command itself may be right.
    pub is_exhaustion: bool,
}

impl From<SpawnError> for NotStarted {
    fn from(error: SpawnError) -> Self {
        Self { exit_code: error.exit_code(), is_exhaustion: error.is_exhaustion(), reason: error.to_string() }
    }
}

/// The output and the exit code of an ended command.
#[derive(Debug)]
pub struct Captured {
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error, or the reason why it could not be started.
    pub stderr: Output,
    /// How long its process ran, in milliseconds, its start included.
    pub duration_ms: u64,
    /// The exit code of its process, if that is gone.
    pub exited: Option<i32>,
    /// Its exit code where it could not be started.
    pub not_started: Option<i32>,
}

/// Runs commands, and holds those that run.
#[derive(Debug)]
pub struct CommandRunner {
    settings: CommandSettings,
    executor: Rc<LocalExecutor<'static>>,
    reporter: Reporter,
    budget: Rc<Budget>,
    running: LiteMap<CommandKey, Running>,
    failed: LiteMap<CommandKey, NotStarted>,
    streams: LiteMap<(CommandKey, OutputStream), Rc<RefCell<Watched>>>,
    discarded: Discarded,
}

#[derive(Debug)]
struct Running {
    run: Rc<Run>,
    watch: Task<()>,
}

impl CommandRunner {
    /// Nothing runs.
    pub fn new(
        settings: CommandSettings,
        executor: Rc<LocalExecutor<'static>>,
        reporter: Reporter,
        budget: Rc<Budget>,
    ) -> Self {
        Self {
            settings,
            executor,
            reporter,
            budget,
            running: LiteMap::new(),
            failed: LiteMap::new(),
            streams: LiteMap::new(),
            discarded: Discarded::default(),
        }
    }

    /// Begins to start a command; [`CommandReport::Started`] or [`CommandReport::StartFailed`] follows. The reason of a
    /// failure is also the standard error of the result.
    pub fn start(&mut self, command: CommandKey, spec: Spec) {
        let is_streamed = spec.stream;
        match spec::start(&self.settings, spec) {
            Ok(started) => {
                let streams = is_streamed.then(|| self.open_streams(command));
                let (run, start) = Run::new(command, started, &self.budget, streams.as_ref());
                let run = Rc::new(run);
                let watch = run::watch(Rc::clone(&run), start, is_streamed, self.reporter.clone());
                self.running.insert(command, Running { run, watch: self.executor.spawn(watch) });
            }
            Err(error) => {
                let error = NotStarted::from(error);
                self.failed.insert(command, error.clone());
                let reporter = self.reporter.clone();
                let report = async move { reporter.report(CommandReport::StartFailed { command, error }).await };
                self.executor.spawn(report).detach();
            }
        }
    }

    /// The process of a command that runs, which leads its session.
    pub fn pid(&self, command: CommandKey) -> Option<u32> {
        let pid = self.running.get(&command)?.run.pid();
        Some(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends SIGTERM to every process in the session of a command, even while the command is starting.
    pub fn terminate(&self, command: CommandKey) {
        if let Some(running) = self.running.get(&command) {
            running.run.terminate();
        }
    }

    /// Sends SIGKILL to every process in the session of a command.
    pub fn kill(&self, command: CommandKey) {
        if let Some(running) = self.running.get(&command) {
            running.run.kill();
        }
    }

    /// Sets how much of a streamed output may be read from now on, in bytes; before the first call it is none.
    pub fn grant(&self, command: CommandKey, stream: OutputStream, bytes: usize) {
        if let Some(running) = self.running.get(&command) {
            match stream {
                OutputStream::Stdout => running.run.stdout.grant(bytes),
                OutputStream::Stderr => running.run.stderr.grant(bytes),
            }
        }
    }

    /// The offsets of the bytes of a streamed output that can be sent; empty for any other.
    pub fn held(&self, command: CommandKey, stream: OutputStream) -> Range<u64> {
        if let Some(running) = self.running.get(&command) {
            running.run.clear_report();
        }
        self.streams.get(&(command, stream)).map_or(0..0, |watched| watched.borrow().ring().held())
    }

    /// Bytes of a streamed output from the offset `from` on, or from the first that is held; at most `bytes_max`.
    pub fn chunk(&self, command: CommandKey, stream: OutputStream, from: u64, bytes_max: usize) -> Chunk {
        let Some(watched) = self.streams.get(&(command, stream)) else {
            return Chunk::default();
        };
        let watched = watched.borrow();
        let (one, other) = watched.ring().slices(from, bytes_max);
        let mut data = [one, other].concat();
        let held = watched.ring().held();
        let offset = from.clamp(held.start, held.end);
        let is_last = offset.saturating_add(data.len() as u64) == held.end;
        let incomplete = incomplete_tail(&data);
        // A character that will not be completed, or is longer than `bytes_max`, is sent in parts.
        let is_sent = if is_last { watched.has_ended() } else { incomplete == data.len() };
        if !is_sent {
            data.truncate(data.len() - incomplete);
        }
        Chunk { offset, data }
    }

    /// Ends a command in any state: reads the rest of its pipes and reaps its process if that has exited. A command
    /// whose start still hangs is killed, and reaped as soon as possible. Streamed output is held until it is
    /// [released](Self::release).
    pub fn finish(&mut self, command: CommandKey) -> Captured {
        let Some(Running { run, watch }) = self.running.remove(&command) else {
            let failure = self.failed.remove(&command);
            return self.nothing_printed(failure.as_ref());
        };
        if run.give_up_start() {
            watch.detach();
        }
        if let Some(failure) = run.failure() {
            return self.nothing_printed(Some(failure));
        }
        for pipe in [&run.stdout, &run.stderr] {
            if let Some(reads) = pipe.read_rest() {
                self.discarded.push(&self.executor, reads);
            }
        }
        Captured {
            stdout: run.stdout.take(),
            stderr: run.stderr.take(),
            duration_ms: run.duration_ms(),
            exited: run.exit_code(),
            not_started: None,
        }
    }

    fn nothing_printed(&self, failure: Option<&NotStarted>) -> Captured {
        let capture = || Capture::new(Rc::clone(&self.budget));
        let (mut stdout, mut stderr) = (capture(), capture());
        if let Some(failure) = failure {
            stderr.push(format!("{failure}\n").as_bytes());
        }
        Captured {
            stdout: stdout.take(),
            stderr: stderr.take(),
            duration_ms: 0,
            exited: None,
            not_started: failure.map(|failure| failure.exit_code),
        }
    }

    /// Frees a streamed output: the console has acknowledged it, or never will.
    pub fn release(&mut self, command: CommandKey, stream: OutputStream) {
        self.streams.remove(&(command, stream));
    }

    fn open_streams(&mut self, command: CommandKey) -> Streams {
        let mut open = |stream| {
            let watched = Rc::new(RefCell::new(Watched::new(Rc::clone(&self.budget))));
            self.streams.insert((command, stream), Rc::clone(&watched));
            watched
        };
        Streams { stdout: open(OutputStream::Stdout), stderr: open(OutputStream::Stderr) }
    }
}

impl Captured {
    /// The exit code for the result: `ordered`, unless the command could not be started.
    pub fn exit_code(&self, ordered: i32) -> i32 {
        self.not_started.unwrap_or(ordered)
    }

    /// Says in its standard error that its agent died.
    pub fn note_interruption(&mut self) {
        self.stderr.append_line("the agent died while it had this command: whether and how far it ran is not known");
    }

    /// Appends a line to standard error that the command ran into its timeout.
    pub fn note_timeout(&mut self, timeout_ms: u64) {
        self.stderr.append_line(&format!("timed out after {timeout_ms} ms"));
    }
}
