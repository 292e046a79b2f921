//! Logs of the instance on their way to the console.
//!
//! | file | what it does |
//! |---|---|
//! | [`root`] | where files are looked for, and how they are opened |
//! | [`watch`] | says which files have changed |
//! | [`follower`], `log`, `segment`, `rotation` | read what is new, across rotations and restarts |
//! | `task` | runs a follower beside the loop |
//! | [`journald`] | follows the system's journal |
//! | `held` | the lines that the console does not have yet |
//! | [`position`] | a place in a file that outlives the process |
//! | [`selection`] | which logs the console asked for |
//! | [`splitter`] | cuts bytes into records, stack traces included |
//! | [`record`] | turns a record into a line of the wire |
//! | [`time`], [`level`] | find the time and the level in a line |
//!
//! Wire: PROTOCOL.md, "log:batch".

pub mod follower;
mod held;
pub mod journald;
pub mod level;
mod log;
pub mod position;
pub mod record;
pub mod root;
mod rotation;
mod segment;
pub mod selection;
pub mod splitter;
mod task;
pub mod time;
pub mod watch;

pub use task::LogReport;

use crate::report::Reporter;
use crate::sys::environment::Environment;
use async_channel::{Receiver, Sender};
use draupnir_fsm::driver::{Input, LogRequest};
use follower::{Follower, OPEN_FILES_MAX, Positions};
use held::{HELD_BYTES_MAX, Held};
use journald::JOURNALD;
use litemap::LiteMap;
use position::Position;
use root::Root;
use selection::Selection;
use smol::LocalExecutor;
use std::ops::Range;
use std::rc::Rc;
use task::{Desk, Shared};

/// The most entries of `SINDRI_AGENT_LOGS`.
pub const ROOTS_MAX: usize = 16;

/// How far the console has a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The path by which the console knows it.
    pub path: Box<str>,
    /// Where in its file.
    pub position: Position,
    /// Where in the system's journal, which has no files.
    pub cursor: Option<Box<str>>,
}

/// How far the console has each log.
pub type LogPositions = Vec<LogPosition>;

/// What can be followed.
#[derive(Debug)]
pub enum LogRoot {
    /// Files.
    Files(Root),
    /// The system's journal, by a program with this environment.
    Journald(Environment),
}

/// The logs as the loop knows them.
#[derive(Debug)]
pub struct Logs {
    sources: Vec<Source>,
    shared: Rc<Shared>,
    selection: Selection,
    /// Paths of requests that the driver has not decided about.
    requests: LiteMap<u32, Vec<String>>,
    next_request: u32,
    held: Held,
    /// How many lines may have been read since the first request on this link.
    allowed_lines: u64,
    /// The console has asked for something on this link.
    is_open: bool,
}

/// One root.
#[derive(Debug)]
struct Source {
    /// Nothing for the system's journal.
    root: Option<Root>,
    desk: Rc<Desk>,
    calls: Sender<()>,
}

impl Logs {
    /// Follows nothing until it is asked to, then goes on from these positions.
    pub fn new(
        roots: Vec<LogRoot>,
        positions: LogPositions,
        executor: &LocalExecutor<'static>,
        reporter: &Reporter,
    ) -> Self {
        let shared = Rc::<Shared>::default();
        let open_max = OPEN_FILES_MAX / roots.len().max(1);
        let mut sources: Vec<Source> = Vec::with_capacity(roots.len());
        for root in roots {
            let desk = Rc::<Desk>::default();
            desk.has_answered.set(true);
            let (calls, called): (Sender<()>, Receiver<()>) = async_channel::bounded(1);
            let number = sources.len();
            let (shared, of_task, reporter) = (Rc::clone(&shared), Rc::clone(&desk), reporter.clone());
            let root = match root {
                LogRoot::Files(root) => {
                    let earlier = sources.iter().filter_map(|source| source.root.clone()).collect();
                    let follower = Box::new(Follower::new(root.clone(), earlier, open_max));
                    executor.spawn(task::run(number, follower, shared, of_task, called, reporter)).detach();
                    Some(root)
                }
                LogRoot::Journald(environment) => {
                    executor.spawn(journald::run(number, environment, shared, of_task, called, reporter)).detach();
                    None
                }
            };
            sources.push(Source { root, desk, calls });
        }
        Self {
            sources,
            shared,
            selection: Selection::default(),
            requests: LiteMap::new(),
            next_request: 1,
            held: Held::new(positions),
            allowed_lines: 0,
            is_open: false,
        }
    }

    /// Whether there is anything that a console may ask for.
    pub fn is_off(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether logs can be followed, in a few words.
    pub fn state(&self) -> &'static str {
        if self.is_off() {
            "off"
        } else if self.sources.iter().all(|source| source.desk.has_answered.get()) {
            "on"
        } else {
            "a file system does not answer"
        }
    }

    /// How many files are followed.
    pub fn files(&self) -> usize {
        self.sources.iter().map(|source| source.desk.files.get()).sum()
    }

    /// Keeps the paths of a request until the driver has decided about it.
    pub fn add_request(&mut self, paths: Vec<String>) -> LogRequest {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        self.requests.insert(request, paths);
        LogRequest(request)
    }

    /// The paths of a request, for the audit.
    pub fn paths(&self, request: LogRequest) -> Option<&[String]> {
        self.requests.get(&request.0).map(Vec::as_slice)
    }

    /// Nothing follows from a request.
    pub fn forget(&mut self, request: LogRequest) {
        self.requests.remove(&request.0);
    }

    /// Follows what a request names, too.
    pub fn follow(&mut self, request: LogRequest) {
        let paths = self.requests.remove(&request.0).unwrap_or_default();
        if !std::mem::replace(&mut self.is_open, true) {
            self.shared.bytes.set(HELD_BYTES_MAX);
        }
        if self.selection.add(&paths) {
            self.select();
        }
    }

    /// Follows what a request names no longer.
    pub fn unfollow(&mut self, request: LogRequest) {
        let paths = self.requests.remove(&request.0).unwrap_or_default();
        if self.selection.remove(&paths) {
            let (selection, sources) = (&self.selection, &self.sources);
            self.held.unwant(|root, origin| {
                sources.get(root).is_some_and(|source| source.is_wanted(selection, &origin.path))
            });
            self.select();
        }
    }

    /// So many lines may have been read since the first request on this link.
    pub fn allow(&mut self, up_to_lines: u64) {
        let more = up_to_lines.saturating_sub(self.allowed_lines);
        self.allowed_lines = self.allowed_lines.max(up_to_lines);
        self.shared.lines.set(self.shared.lines.get().saturating_add(more));
        self.call_all();
    }

    /// The console has the stream up to here.
    pub fn acknowledged(&mut self, up_to: u64) {
        let before = self.held.bytes();
        for (root, path, mark) in self.held.acknowledged(up_to) {
            if let Some(source) = self.sources.get(root) {
                let mut orders = source.desk.orders.borrow_mut();
                // The latest counts.
                orders.acked.retain(|(known, _)| *known != path);
                orders.acked.push((path, mark));
            }
        }
        let freed = before - self.held.bytes();
        if freed > 0 {
            let had_none = self.shared.bytes.get() == 0;
            self.shared.bytes.set(self.shared.bytes.get() + freed);
            if had_none {
                self.call_all();
            }
        }
    }

    /// Positions that the journal does not have, behind an acknowledgement.
    pub fn take_positions(&mut self, up_to: u64) -> LogPositions {
        self.acknowledged(up_to);
        self.held.take_new()
    }

    /// Follows nothing; what was read beyond `acked` is read again when it is asked for.
    pub fn stop(&mut self, acked: u64) {
        self.acknowledged(acked);
        self.held.clear();
        self.shared.epoch.set(self.shared.epoch.get().wrapping_add(1));
        (self.allowed_lines, self.is_open) = (0, false);
        self.shared.lines.set(0);
        self.shared.bytes.set(0);
        self.selection = Selection::default();
        for source in &self.sources {
            source.desk.orders.borrow_mut().restart();
        }
        self.select();
    }

    /// Takes in what a follower has read; the driver must know of lines.
    pub fn report(&mut self, report: LogReport) -> Option<Input> {
        let LogReport { root, epoch, outcome, given } = report;
        // What was read for an earlier link is read again.
        if epoch != self.shared.epoch.get() {
            return None;
        }
        let source = self.sources.get(root)?;
        for (origin, mark) in outcome.begun {
            self.held.begin(root, &origin, mark);
        }
        let selection = &self.selection;
        let lines = u32::try_from(outcome.lines.len()).unwrap_or(u32::MAX);
        let before = self.held.bytes();
        self.held.push(root, outcome.lines, |origin| source.is_wanted(selection, &origin.path));
        let bytes = self.held.bytes() - before;
        let unused = follower::Credit {
            lines: given.lines.saturating_sub(lines as usize),
            bytes: given.bytes.saturating_sub(bytes),
        };
        let had_none = self.shared.lines.get() == 0 || self.shared.bytes.get() == 0;
        self.shared.give_back(unused);
        // More than was given: the last line was long.
        let beyond = bytes.saturating_sub(given.bytes);
        self.shared.bytes.set(self.shared.bytes.get().saturating_sub(beyond));
        if had_none {
            self.call_all();
        }
        (lines > 0).then(|| Input::LogsRead { end: self.held.offsets().end, lines })
    }

    /// The offsets of what is held.
    pub fn offsets(&self) -> Range<u64> {
        self.held.offsets()
    }

    /// A batch of lines from an offset on: how many bytes of the stream it is, and the message.
    pub fn cut(&mut self, from: u64, bytes_max: usize) -> (usize, Option<String>) {
        self.held.cut(from, bytes_max)
    }

    /// Tells each root what the console wants of it.
    fn select(&mut self) {
        for (number, source) in self.sources.iter().enumerate() {
            let is_wanted = match &source.root {
                Some(root) => self.selection.may_want(root),
                None => self.selection.names(JOURNALD),
            };
            let selection = if is_wanted { self.selection.clone() } else { Selection::default() };
            let positions = if is_wanted { self.held.positions(number) } else { Positions::new() };
            source.desk.cursor.replace(self.held.cursor(JOURNALD));
            source.desk.orders.borrow_mut().select(selection, positions);
            source.call();
        }
    }

    fn call_all(&self) {
        self.sources.iter().for_each(Source::call);
    }
}

impl Source {
    fn is_wanted(&self, selection: &Selection, path: &str) -> bool {
        self.root.as_ref().map_or_else(|| selection.names(path), |root| selection.wants(path, root))
    }

    fn call(&self) {
        // Full: it is called already.
        let _ = self.calls.try_send(());
    }
}
