//! A running command: its process, its two outputs, and the task that watches them.
//!
//! The process is not reaped before the run is dropped, so that its group can be signalled after its own exit.

use super::hand_over::SavedCommand;
use super::pipe::{Pipe, Watched};
use super::spec::{Feed, Started};
use super::{CommandReport, NotStarted};
use crate::report::Reporter;
use crate::sys::child::Child;
use crate::sys::session::{kill_sessions, terminate_others};
use crate::sys::spawn::Start;
use draupnir_fsm::driver::CommandKey;
use draupnir_fsm::driver::budget::Budget;
use futures_lite::future::{poll_fn, zip};
use rustix::process::Signal;
use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A command that starts, runs, or has just ended.
#[derive(Debug)]
pub(super) struct Run {
    command: CommandKey,
    child: Child,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
    /// Its script, until all of it is written.
    feed: RefCell<Option<Feed>>,
    started_at: Instant,
    ended_at: Cell<Option<Instant>>,
    /// The outcome of the start, once it is known.
    started: OnceCell<Result<(), NotStarted>>,
    exit_code: Cell<Option<i32>>,
    /// New output was reported, and the loop has not yet called [`CommandRunner::held`](super::CommandRunner::held).
    report_waits: Cell<bool>,
}

/// What is kept of both outputs of a streamed command.
pub(super) struct Streams {
    pub(super) stdout: Rc<RefCell<Watched>>,
    pub(super) stderr: Rc<RefCell<Watched>>,
}

impl Run {
    /// Takes over a starting process. Nothing is read before [`watch`] runs.
    pub(super) fn new(
        command: CommandKey,
        started: Started,
        budget: &Rc<Budget>,
        streams: Option<&Streams>,
    ) -> (Self, Start) {
        let Started { child, start, stdout, stderr, feed } = started;
        let watched = |pick: fn(&Streams) -> &Rc<RefCell<Watched>>| streams.map(|streams| Rc::clone(pick(streams)));
        let run = Self {
            command,
            child,
            stdout: Pipe::new(stdout, Rc::clone(budget), watched(|streams| &streams.stdout)),
            stderr: Pipe::new(stderr, Rc::clone(budget), watched(|streams| &streams.stderr)),
            feed: RefCell::new(feed),
            started_at: Instant::now(),
            ended_at: Cell::new(None),
            started: OnceCell::new(),
            exit_code: Cell::new(None),
            report_waits: Cell::new(false),
        };
        (run, start)
    }

    /// Goes on with a process that the program before this one started.
    pub(super) fn taken_over(
        command: CommandKey,
        child: Child,
        stdout: Pipe,
        stderr: Pipe,
        ran_ms: u64,
        feed: Option<Feed>,
    ) -> Self {
        let now = Instant::now();
        Self {
            command,
            child,
            stdout,
            stderr,
            feed: RefCell::new(feed),
            // Where the clock does not reach back so far, the time counts from here.
            started_at: now.checked_sub(Duration::from_millis(ran_ms)).unwrap_or(now),
            ended_at: Cell::new(None),
            started: OnceCell::from(Ok(())),
            exit_code: Cell::new(None),
            report_waits: Cell::new(false),
        }
    }

    /// Its process and its pipes, for the next program.
    pub(super) fn save(&self) -> SavedCommand {
        let outputs = [self.stdout.save(), self.stderr.save()];
        let script = self.feed.borrow().as_ref().map(|feed| feed.script.iter().copied().collect()).unwrap_or_default();
        SavedCommand { outputs, script, ..self.save_process() }
    }

    /// The same without what it printed and what it is to read.
    pub(super) fn save_process(&self) -> SavedCommand {
        let feed = self.feed.borrow();
        SavedCommand {
            pid: self.child.id().as_raw_nonzero().get().unsigned_abs(),
            ran_ms: self.duration_ms(),
            outputs: [self.stdout.save_pipe(), self.stderr.save_pipe()],
            stdin: feed.as_ref().map(|feed| feed.stdin.as_raw_fd()),
            script: Vec::new(),
        }
    }

    /// Its process, which leads its session.
    pub(super) fn pid(&self) -> rustix::process::Pid {
        self.child.id()
    }

    /// Sends SIGTERM to its whole session, and SIGCONT, since a stopped process cannot end.
    pub(super) fn terminate(&self) {
        for signal in [Signal::TERM, Signal::CONT] {
            self.child.signal_group(signal);
        }
        terminate_others(self.child.id());
    }

    /// Sends SIGKILL to its whole session.
    pub(super) fn kill(&self) {
        self.child.signal_group(Signal::KILL);
        kill_sessions(&[self.child.id()]);
    }

    /// Gives up a start that hangs and kills its process. True if the command had not started yet: its task must run on
    /// until the process can be reaped.
    pub(super) fn give_up_start(&self) -> bool {
        let starts = self.started.set(Ok(())).is_ok();
        if starts {
            self.kill();
        }
        starts
    }

    /// Why it could not be started.
    pub(super) fn failure(&self) -> Option<&NotStarted> {
        self.started.get()?.as_ref().err()
    }

    /// The exit code of its process, once that has exited.
    pub(super) fn exit_code(&self) -> Option<i32> {
        self.exit_code.get()
    }

    /// How long its process ran, or has run so far, in milliseconds.
    pub(super) fn duration_ms(&self) -> u64 {
        let ended_at = self.ended_at.get().unwrap_or_else(Instant::now);
        u64::try_from(ended_at.duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// The loop has looked at the output: the next output is reported again.
    pub(super) fn clear_report(&self) {
        self.report_waits.set(false);
    }

    /// Writes the script into standard input and closes it. Stops early if the command closes its end.
    async fn write_script(&self) {
        while let Some(progress) = self.write_some() {
            if progress.is_ready() {
                continue;
            }
            let writable = poll_fn(|cx| match &*self.feed.borrow() {
                Some(feed) => feed.stdin.poll_writable(cx).map(|ready| ready.is_ok()),
                None => Poll::Ready(false),
            });
            if !writable.await {
                break;
            }
        }
        self.feed.take();
    }

    /// Writes a part of the script, if there is room; `None` once there is nothing to write, or no reader.
    fn write_some(&self) -> Option<Poll<()>> {
        let mut feed = self.feed.borrow_mut();
        let Feed { script, stdin } = feed.as_mut().filter(|feed| !feed.script.is_empty())?;
        match rustix::io::write(stdin.as_fd(), script.as_slices().0) {
            Ok(written) => drop(script.drain(..written)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Some(Poll::Pending),
            Err(_) => return None,
        }
        Some(Poll::Ready(()))
    }

    /// Reads one output to its end. Reports new output of a streamed command, and its end: an incomplete character may
    /// then be sent.
    async fn read(&self, pipe: &Pipe, streams: bool, reporter: &Reporter) {
        loop {
            let goes_on = pipe.read().await;
            if streams && !self.report_waits.replace(true) {
                reporter.report(CommandReport::Output { command: self.command }).await;
            }
            if !goes_on {
                return;
            }
        }
    }
}

/// Watches a command from its start until its process is gone and both its outputs are at their end.
pub(super) async fn watch(run: Rc<Run>, start: Start, streams: bool, reporter: Reporter) {
    let started = start.done(&run.child).await.map_err(NotStarted::from);
    let command = run.command;
    if run.started.set(started).is_err() {
        // The start was given up and the process killed; it only had to be reaped.
        run.child.exited().await;
        return;
    }
    if let Some(error) = run.failure() {
        return reporter.report(CommandReport::StartFailed { command, error: error.clone() }).await;
    }
    reporter.report(CommandReport::Started { command }).await;
    watch_on(run, streams, reporter).await;
}

/// Watches a running command until its process is gone and both its outputs are at their end.
pub(super) async fn watch_on(run: Rc<Run>, streams: bool, reporter: Reporter) {
    let command = run.command;
    let output = async {
        zip(run.read(&run.stdout, streams, &reporter), run.read(&run.stderr, streams, &reporter)).await;
        reporter.report(CommandReport::EndOfOutput { command }).await;
    };
    let exit = async {
        let code = run.child.exited().await;
        run.ended_at.set(Some(Instant::now()));
        run.exit_code.set(Some(code));
        reporter.report(CommandReport::Exited { command, code }).await;
    };
    zip(zip(exit, output), run.write_script()).await;
}
