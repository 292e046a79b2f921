//! Runs a follower beside the loop: wakes it for orders, for changes and for more credit, and reports what it read.
//!
//! One task a root, on the loop's executor; the follower itself works on the pool of `blocking`. A file system that
//! does not answer stops the task of its root and no other. A root that nothing is followed of has no thread, no watch
//! and no timer.

use super::follower::{Credit, Follower, Orders, Outcome};
use super::segment::RECORD_WAIT;
use crate::protocol::LOG_LINES_MAX;
use crate::report::Reporter;
use async_channel::Receiver;
use async_io::{Async, Timer};
use blocking::unblock;
use futures_lite::FutureExt as _;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long changes are collected before they are read: a program that writes line by line causes no read for each.
const COLLECT: Duration = Duration::from_millis(20);

/// How often a root is looked at that cannot be watched; the interval doubles while nothing changes.
const POLL_MIN: Duration = Duration::from_secs(1);
const POLL_MAX: Duration = Duration::from_secs(10);

/// How long a file system may take before that is logged.
const SLOW: Duration = Duration::from_secs(5);

/// How much one work may read, in bytes of encoded lines.
const WORK_BYTES_MAX: usize = 64 << 10;

/// What all tasks and the loop share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// How many lines may be read.
    pub(super) lines: Cell<u64>,
    /// How many bytes of encoded lines.
    pub(super) bytes: Cell<usize>,
    /// Rises when everything that was read is to be read again: what was read before does not count.
    pub(super) epoch: Cell<u32>,
}

/// What the loop and the task of one root share.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) orders: RefCell<Orders>,
    /// How many files are followed.
    pub(super) files: Cell<usize>,
    pub(super) has_answered: Cell<bool>,
    /// Where the system's journal goes on.
    pub(super) cursor: RefCell<Option<Box<str>>>,
}

/// What a task reports.
#[derive(Debug)]
pub struct LogReport {
    /// Which root.
    pub(super) root: usize,
    pub(super) epoch: u32,
    pub(super) outcome: Outcome,
    /// What of the credit it was given.
    pub(super) given: Credit,
}

impl Shared {
    /// Takes as much credit as one work may use.
    pub(super) fn take(&self) -> Credit {
        let lines = self.lines.get().min(LOG_LINES_MAX as u64);
        let bytes = self.bytes.get().min(WORK_BYTES_MAX);
        if lines == 0 || bytes == 0 {
            return Credit::default();
        }
        self.lines.set(self.lines.get() - lines);
        self.bytes.set(self.bytes.get() - bytes);
        Credit { lines: usize::try_from(lines).unwrap_or(LOG_LINES_MAX), bytes }
    }

    /// Gives back what was not used.
    pub(super) fn give_back(&self, credit: Credit) {
        self.lines.set(self.lines.get().saturating_add(credit.lines as u64));
        self.bytes.set(self.bytes.get().saturating_add(credit.bytes));
    }
}

/// Why a task woke up.
enum Wake {
    /// Orders, or credit.
    Called,
    /// Files have changed.
    Changed,
    /// It is time: for a record that waits, or to poll.
    Due,
    /// The loop has ended.
    Over,
}

pub(super) async fn run(
    root: usize,
    mut follower: Box<Follower>,
    shared: Rc<Shared>,
    desk: Rc<Desk>,
    calls: Receiver<()>,
    reporter: Reporter,
) {
    let mut watched: Option<Async<OwnedFd>> = None;
    // There is something to read, for which there was no credit.
    let (mut has_more, mut has_open_record, mut is_on) = (false, false, false);
    let mut poll = None;
    let mut logged = Logged::default();
    loop {
        let can_read = shared.lines.get() > 0 && shared.bytes.get() > 0;
        let wake = if has_more && can_read {
            Wake::Called
        } else {
            let changes = watched.as_ref().filter(|_| !has_more);
            // A record that is complete by time still needs credit.
            let due = [has_open_record.then_some(RECORD_WAIT).filter(|_| can_read), poll.filter(|_| can_read)];
            wait(&calls, changes, due.into_iter().flatten().min()).await
        };
        let polls = match wake {
            Wake::Over => return,
            Wake::Called => false,
            Wake::Changed => {
                Timer::after(COLLECT).await;
                false
            }
            Wake::Due => poll.is_some() && !has_open_record,
        };
        // Acknowledgements alone are worth no work.
        let selects = desk.orders.borrow().select.as_ref().map(|(selection, _)| !selection.is_empty());
        is_on = selects.unwrap_or(is_on);
        if !is_on && selects.is_none() {
            continue;
        }
        let (given, epoch) = (shared.take(), shared.epoch.get());
        if given == Credit::default() && selects.is_none() {
            has_more |= matches!(wake, Wake::Changed);
            continue;
        }
        let orders = Orders { polls, ..desk.orders.take() };
        let working = unblock(move || {
            let outcome = follower.work(orders, given, Instant::now());
            let descriptor = follower.watch().take_new();
            (follower, outcome, descriptor)
        });
        let (back, mut outcome, descriptor) = answered(working, &desk, &mut logged).await;
        follower = back;
        if let Some(descriptor) = descriptor {
            watched = descriptor.and_then(|descriptor| Async::new_nonblocking(descriptor).ok());
        }
        (has_more, has_open_record) = (outcome.has_more && is_on, outcome.has_open_record && is_on);
        poll = (is_on && outcome.must_poll).then(|| match poll {
            Some(interval) if polls && !outcome.has_changed => POLL_MAX.min(interval * 2),
            Some(interval) if !polls => interval,
            Some(_) | None => POLL_MIN,
        });
        desk.files.set(outcome.files);
        logged.note(&mut outcome);
        reporter.report(LogReport { root, epoch, outcome, given }).await;
    }
}

async fn wait(calls: &Receiver<()>, changes: Option<&Async<OwnedFd>>, due: Option<Duration>) -> Wake {
    let called = async { calls.recv().await.map_or(Wake::Over, |()| Wake::Called) };
    let changed = async {
        match changes {
            // An error is a change, too: the next work finds it.
            Some(descriptor) => drop(descriptor.readable().await),
            None => std::future::pending().await,
        }
        Wake::Changed
    };
    let timed = async {
        match due {
            Some(due) => drop(Timer::after(due).await),
            None => std::future::pending().await,
        }
        Wake::Due
    };
    called.or(changed).or(timed).await
}

/// Waits for a work, and logs that it takes long.
async fn answered<T>(working: blocking::Task<T>, desk: &Desk, logged: &mut Logged) -> T {
    let mut working = working;
    let slow = async {
        Timer::after(SLOW).await;
        None
    };
    desk.has_answered.set(true);
    if let Some(done) = async { Some((&mut working).await) }.or(slow).await {
        return done;
    }
    desk.has_answered.set(false);
    logged.slow();
    let done = working.await;
    desk.has_answered.set(true);
    done
}

/// What was logged: each once, since a log line may be read as a line of a log.
#[derive(Debug, Default)]
struct Logged {
    is_slow: bool,
    is_cut: bool,
    problem: Option<String>,
}

impl Logged {
    fn slow(&mut self) {
        if !std::mem::replace(&mut self.is_slow, true) {
            tracing::warn!("logs not readable: their file system does not answer");
        }
    }

    fn note(&mut self, outcome: &mut Outcome) {
        if outcome.is_cut && !std::mem::replace(&mut self.is_cut, true) {
            tracing::warn!("more log files or directories than are followed; the others are left out");
        }
        if let Some(problem) = outcome.problem.take().filter(|problem| self.problem.as_ref() != Some(problem)) {
            tracing::warn!(problem, "log directory not readable");
            self.problem = Some(problem);
        }
    }
}
