//! The state that the server's thread writes and the tests read: records, streams, scripts and tables under one lock.
//!
//! Invariants: each change of the state through [`Shared::change`] wakes every waiter; no lock is held over an await;
//! the kept output is bounded by [`KEPT_BYTES_MAX`].

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_channel::Sender;
use serde::Deserialize;

use crate::order::Ordered;
use crate::personality::Personality;
use crate::record::{Record, What};
use crate::registry::Registry;
use crate::script::{Answer, Upgrade};
use crate::stream::Stream;

/// Most bytes of records and stream data that are kept (512 MiB); beyond it nothing more is kept and every wait fails.
pub const KEPT_BYTES_MAX: usize = 512 << 20;

/// What is kept of `terminal:output` and `command:output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// A record of every frame, and the assembled bytes.
    #[default]
    Everything,
    /// The assembled bytes, without a record of each frame.
    Bytes,
    /// Counts and a hash alone: the memory does not grow with the output.
    Counts,
}

/// The state and its waiters.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Everything the console knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) personality: Personality,
    pub(crate) key: String,
    pub(crate) started: Instant,
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) keep: Keep,
    kept_bytes: usize,
    pub(crate) streams: BTreeMap<String, Stream>,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) usual_answer: Option<Answer>,
    pub(crate) upgrades: VecDeque<Upgrade>,
    pub(crate) usual_upgrade: Option<Upgrade>,
    pub(crate) registry: Registry,
    /// The live connections, by number.
    pub(crate) links: BTreeMap<u32, LinkEntry>,
    pub(crate) last_connection: u32,
    /// Connections of any kind that were accepted.
    pub(crate) accepted: u64,
    pub(crate) poison: Option<String>,
}

/// A live connection as the tests see it.
#[derive(Clone, Debug)]
pub(crate) struct LinkEntry {
    pub(crate) orders: Sender<Ordered>,
    /// The instance id; `None` if the console takes it for a browser.
    pub(crate) id: Option<String>,
    pub(crate) attached: bool,
}

impl Shared {
    pub(crate) fn new(personality: Personality, key: String) -> Shared {
        let state = State {
            personality,
            key,
            started: Instant::now(),
            records: Vec::new(),
            keep: Keep::default(),
            kept_bytes: 0,
            streams: BTreeMap::new(),
            answers: VecDeque::new(),
            usual_answer: None,
            upgrades: VecDeque::new(),
            usual_upgrade: None,
            registry: Registry::default(),
            links: BTreeMap::new(),
            last_connection: 0,
            accepted: 0,
            poison: None,
        };
        Shared { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The state, to look at.
    pub(crate) fn look(&self) -> MutexGuard<'_, State> {
        // A test that panics inside a predicate must not hide its message behind a second panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes every waiter.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.look());
        self.changed.notify_all();
        result
    }

    /// Repeats the check after every change until it returns something, or until the deadline (`None`).
    pub(crate) fn wait_until<T>(&self, deadline: Instant, mut check: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut state = self.look();
        loop {
            if let Some(found) = check(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Keeps one record.
    pub(crate) fn push(&mut self, connection: u32, what: What) {
        if self.is_overfull() {
            return;
        }
        let at = Instant::now();
        let at_ms = u64::try_from(at.duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        let record = Record { seq: self.records.len(), at, at_ms, connection, what };
        self.kept_bytes += record.cost();
        self.records.push(Arc::new(record));
    }

    /// Whether the bound was exceeded.
    pub(crate) fn is_overfull(&self) -> bool {
        self.kept_bytes > KEPT_BYTES_MAX
    }

    /// Takes the bytes of an output frame. Returns false if the frame must be recorded like any other.
    pub(crate) fn take_output(&mut self, raw: &str) -> bool {
        let Some(output) = Output::read(raw) else {
            return false;
        };
        let keep = self.keep != Keep::Counts && !self.is_overfull();
        let stream = self.streams.entry(output.stream_name()).or_default();
        let payload = &output.payload;
        self.kept_bytes += stream.take(&payload.data, payload.offset, payload.replay, keep, Instant::now());
        self.keep != Keep::Everything
    }
}

/// An output frame, read without building a tree, because megabytes of them arrive.
#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    payload: OutputPayload<'a>,
}

#[derive(Deserialize)]
struct OutputPayload<'a> {
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    command_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    offset: Option<u64>,
    #[serde(default)]
    replay: bool,
}

impl<'a> Output<'a> {
    fn read(raw: &'a str) -> Option<Output<'a>> {
        // The agent writes the type near the beginning of a frame. Other agents may not; then the whole frame is
        // parsed, which only costs time.
        const HEAD_BYTES: usize = 128;
        let head = raw.get(..HEAD_BYTES).unwrap_or(raw);
        if head.contains("\"type\"") && !head.contains(":output\"") {
            return None;
        }
        let output: Output<'a> = serde_json::from_str(raw).ok()?;
        matches!(&*output.kind, "terminal:output" | "command:output").then_some(output)
    }

    fn stream_name(&self) -> String {
        let payload = &self.payload;
        match &payload.command_id {
            Some(id) => format!("{id}/{}", payload.stream.as_deref().unwrap_or_default()),
            None => payload.session_id.as_deref().unwrap_or_default().to_owned(),
        }
    }
}
