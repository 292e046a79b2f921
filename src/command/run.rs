//! One command that runs: its process, its two outputs, and the task that watches them.
//!
//! It does not decide when a command ends. The process is not reaped before the run is dropped, so that its group can be
//! signalled when it is gone itself.

use super::Report;
use super::pipe::{Pipe, Watched};
use super::spec::{Feed, Started};
use crate::report::Reporter;
use crate::sys::child::Child;
use draupnir_fsm::delivery::budget::Budget;
use draupnir_fsm::id::CommandKey;
use futures_lite::future::zip;
use rustix::process::Signal;
use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

/// A command that runs, or has just ended.
#[derive(Debug)]
pub(super) struct Run {
    command: CommandKey,
    child: Child,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
    started_at: Instant,
    ended_at: Cell<Option<Instant>>,
    /// New output was told of, and nobody has looked yet.
    told: Cell<bool>,
}

/// What is kept of both outputs of a streamed command.
pub(super) struct Streams {
    pub(super) stdout: Rc<RefCell<Watched>>,
    pub(super) stderr: Rc<RefCell<Watched>>,
}

impl Run {
    /// Takes charge of a process. Nothing is read before [`watch`] runs.
    pub(super) fn new(
        command: CommandKey,
        started: Started,
        budget: &Rc<Budget>,
        streams: Option<&Streams>,
    ) -> (Self, Option<Feed>) {
        let Started { child, stdout, stderr, feed } = started;
        let watched = |pick: fn(&Streams) -> &Rc<RefCell<Watched>>| streams.map(|streams| Rc::clone(pick(streams)));
        let run = Self {
            command,
            child,
            stdout: Pipe::new(stdout, Rc::clone(budget), watched(|streams| &streams.stdout)),
            stderr: Pipe::new(stderr, Rc::clone(budget), watched(|streams| &streams.stderr)),
            started_at: Instant::now(),
            ended_at: Cell::new(None),
            told: Cell::new(false),
        };
        (run, feed)
    }

    /// SIGTERM to the group; and SIGCONT, for what is stopped cannot end.
    pub(super) fn terminate(&self) {
        self.child.signal_group(Signal::TERM);
        self.child.signal_group(Signal::CONT);
    }

    /// SIGKILL to the group.
    pub(super) fn kill(&self) {
        self.child.signal_group(Signal::KILL);
    }

    /// How long its process ran, or has run so far, in milliseconds.
    pub(super) fn duration_ms(&self) -> u64 {
        let ended_at = self.ended_at.get().unwrap_or_else(Instant::now);
        u64::try_from(ended_at.duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// Somebody looks at what was told: the next output is told again.
    pub(super) fn heard(&self) {
        self.told.set(false);
    }

    /// Reads one output to its end. New output is told of if somebody watches, and its end too: what was held back of it
    /// then is not.
    async fn read(&self, pipe: &Pipe, streams: bool, reporter: &Reporter) {
        loop {
            let goes_on = pipe.read().await;
            if streams && !self.told.replace(true) {
                reporter.report(Report::Output { command: self.command }).await;
            }
            if !goes_on {
                return;
            }
        }
    }
}

/// Watches a command until its process is gone and both its outputs are at their end.
pub(super) async fn watch(run: Rc<Run>, feed: Option<Feed>, streams: bool, reporter: Reporter) {
    let output = async {
        zip(run.read(&run.stdout, streams, &reporter), run.read(&run.stderr, streams, &reporter)).await;
        reporter.report(Report::EndOfOutput { command: run.command }).await;
    };
    let exit = async {
        let code = run.child.exited().await;
        run.ended_at.set(Some(Instant::now()));
        reporter.report(Report::Exited { command: run.command, code }).await;
    };
    let input = async {
        if let Some(feed) = feed {
            write_script(feed).await;
        }
    };
    zip(zip(exit, output), input).await;
}

/// Writes a script into standard input and closes it, as far as anybody reads it.
async fn write_script(Feed { script, stdin }: Feed) {
    let mut rest = script.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(stdin.as_fd(), rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                if stdin.writable().await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
