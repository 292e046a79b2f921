//! One-off commands: a process group each, on the reactor, their output bounded.
//!
//! It does not decide when a command starts, ends or is answered (`draupnir_fsm::command` does), gives no deadlines, and
//! knows neither ids nor the link. No method blocks longer than a spawn takes.
//!
//! Invariants:
//! - a command gets an empty standard input or its script, a session and process group of its own, and nothing of the
//!   agent (`sys`);
//! - its process stands for itself until [`Commands::finish`]: no signal can reach a stranger;
//! - what is kept of its output is bounded, whatever it prints, and drawn on the budget of all buffers.
//!
//! Units: bytes, milliseconds. Wire: `command:dispatch`, `command:output`, `command:result` (wire.md, parts A and B).

mod capture;
mod pipe;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use capture::{CAPTURE_BYTES_MAX, Output};
pub use spec::{Line, Settings, Spec};

use crate::protocol::OutputStream;
use crate::report::Reporter;
use crate::sys::spawn::SpawnError;
use crate::utf8::incomplete_tail;
use capture::Capture;
use draupnir_fsm::delivery::budget::Budget;
use draupnir_fsm::fact::Key;
use pipe::Watched;
use run::{Run, Streams};
use smol::{LocalExecutor, Task};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// What a command tells the loop.
#[derive(Debug)]
pub enum Report {
    /// There is new output of a command that streams, or what was held back of it is no longer. At most one such report
    /// of a command waits: the next one comes after [`Commands::held`].
    Output {
        /// The command.
        command: Key,
    },
    /// The last byte of both pipes was read.
    EndOfOutput {
        /// The command.
        command: Key,
    },
    /// The process is gone.
    Exited {
        /// The command.
        command: Key,
        /// The exit code; 128 + N for signal N.
        code: i32,
    },
}

/// Bytes of a streamed output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Where the first byte stands.
    pub offset: u64,
    /// The bytes; whole UTF-8 characters where the command wrote such. Empty if there is nothing but the beginning of a
    /// character.
    pub data: Vec<u8>,
}

/// A command could not be started: whoever dispatched it must name another program, or the operator give the machine
/// more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotStarted {
    /// 127 for a program that is not there, else 126.
    pub exit_code: i32,
    /// Why.
    pub reason: String,
    /// The machine lacks something: nothing is wrong with the command.
    pub is_exhaustion: bool,
}

/// What is left of a command that is over.
#[derive(Debug)]
pub struct Captured {
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error; the reason where it could not be started.
    pub stderr: Output,
    /// How long its process ran, in milliseconds.
    pub duration_ms: u64,
    /// Its exit code where it could not be started.
    pub not_started: Option<i32>,
}

/// All commands.
#[derive(Debug)]
pub struct Commands {
    settings: Settings,
    executor: Rc<LocalExecutor<'static>>,
    reporter: Reporter,
    budget: Rc<Budget>,
    running: BTreeMap<Key, Running>,
    failed: BTreeMap<Key, NotStarted>,
    streams: BTreeMap<(Key, OutputStream), Rc<RefCell<Watched>>>,
}

#[derive(Debug)]
struct Running {
    run: Rc<Run>,
    _watch: Task<()>,
}

impl Commands {
    /// Nothing runs.
    pub fn new(
        settings: Settings,
        executor: Rc<LocalExecutor<'static>>,
        reporter: Reporter,
        budget: Rc<Budget>,
    ) -> Self {
        Self {
            settings,
            executor,
            reporter,
            budget,
            running: BTreeMap::new(),
            failed: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Starts a command. What prevents it is the standard error of its result, too.
    ///
    /// # Errors
    /// The command does not run; [`Commands::finish`] tells why, too.
    pub fn start(&mut self, command: Key, spec: Spec) -> Result<(), NotStarted> {
        let is_streamed = spec.stream;
        match spec::start(&self.settings, spec) {
            Ok(started) => {
                let streams = is_streamed.then(|| self.open_streams(command));
                let (run, feed) = Run::new(command, started, &self.budget, streams.as_ref());
                let run = Rc::new(run);
                let watch = run::watch(Rc::clone(&run), feed, is_streamed, self.reporter.clone());
                let watch = self.executor.spawn(watch);
                self.running.insert(command, Running { run, _watch: watch });
                Ok(())
            }
            Err(error) => {
                let is_exhaustion = matches!(error, SpawnError::Exhausted(_));
                let failure = NotStarted { exit_code: error.exit_code(), reason: error.to_string(), is_exhaustion };
                self.failed.insert(command, failure.clone());
                Err(failure)
            }
        }
    }

    /// Sends SIGTERM to the process group of a command.
    pub fn terminate(&self, command: Key) {
        if let Some(running) = self.running.get(&command) {
            running.run.terminate();
        }
    }

    /// Sends SIGKILL to the process group of a command.
    pub fn kill(&self, command: Key) {
        if let Some(running) = self.running.get(&command) {
            running.run.kill();
        }
    }

    /// Says how much of a streamed output may be read from now on, in bytes; nothing before it is said.
    pub fn allow(&self, command: Key, stream: OutputStream, bytes: usize) {
        if let Some(running) = self.running.get(&command) {
            match stream {
                OutputStream::Stdout => running.run.stdout.allow(bytes),
                OutputStream::Stderr => running.run.stderr.allow(bytes),
            }
        }
    }

    /// The offsets of the bytes of a streamed output that can be sent; empty for any other.
    pub fn held(&self, command: Key, stream: OutputStream) -> Range<u64> {
        if let Some(running) = self.running.get(&command) {
            running.run.heard();
        }
        self.streams.get(&(command, stream)).map_or(0..0, |watched| watched.borrow().ring().held())
    }

    /// Bytes of a streamed output from the offset `from` on, or from the first that is held; at most `bytes_max`.
    pub fn chunk(&self, command: Key, stream: OutputStream, from: u64, bytes_max: usize) -> Chunk {
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
        // What never goes on, or is longer than what was asked for, is sent as it is.
        let is_sent = if is_last { watched.has_ended() } else { incomplete == data.len() };
        if !is_sent {
            data.truncate(data.len() - incomplete);
        }
        Chunk { offset, data }
    }

    /// Ends a command, whatever it does: reads what is left in its pipes, closes them, and reaps its process if it is
    /// gone. A command that was never started has printed nothing. What was streamed is held until it is
    /// [released](Self::release).
    pub fn finish(&mut self, command: Key) -> Captured {
        if let Some(Running { run, _watch }) = self.running.remove(&command) {
            run.stdout.read_rest();
            run.stderr.read_rest();
            return Captured {
                stdout: run.stdout.take(),
                stderr: run.stderr.take(),
                duration_ms: run.duration_ms(),
                not_started: None,
            };
        }
        let failure = self.failed.remove(&command);
        let (mut stdout, mut stderr) = (self.capture(), self.capture());
        if let Some(failure) = &failure {
            stderr.push(format!("{failure}\n").as_bytes());
        }
        Captured {
            stdout: stdout.take(),
            stderr: stderr.take(),
            duration_ms: 0,
            not_started: failure.map(|failure| failure.exit_code),
        }
    }

    /// Forgets a streamed output: the console has it, or never will.
    pub fn release(&mut self, command: Key, stream: OutputStream) {
        self.streams.remove(&(command, stream));
    }

    fn open_streams(&mut self, command: Key) -> Streams {
        let mut open = |stream| {
            let watched = Rc::new(RefCell::new(Watched::new(Rc::clone(&self.budget))));
            self.streams.insert((command, stream), Rc::clone(&watched));
            watched
        };
        Streams { stdout: open(OutputStream::Stdout), stderr: open(OutputStream::Stderr) }
    }

    fn capture(&self) -> Capture {
        Capture::new(Rc::clone(&self.budget))
    }
}

impl Captured {
    /// The exit code to tell: the one that was ordered, unless the command could not be started.
    pub fn exit_code(&self, ordered: i32) -> i32 {
        self.not_started.unwrap_or(ordered)
    }
}
