//! Queries records, and waits for records.
//!
//! A view is a part of a console's records: all of them, those after a record, or those of one connection. Every wait
//! ends at its deadline with a panic that names the expected record and lists what came instead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::record::{End, Record, What};
use crate::store::{Shared, State};
use crate::stream::Stream;

/// The deadline of a wait unless the test sets another one.
pub const WAIT_MAX: Duration = Duration::from_secs(45);

/// A part of the records.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) shared: Arc<Shared>,
    from: usize,
    connection: Option<u32>,
    patience: Duration,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>) -> View {
        View { shared, from: 0, connection: None, patience: WAIT_MAX }
    }

    /// The same with another deadline for its waits.
    #[must_use]
    pub fn within(&self, patience: Duration) -> View {
        View { patience, ..self.clone() }
    }

    /// Only records after this one.
    #[must_use]
    pub fn after(&self, record: &Record) -> View {
        View { from: record.seq + 1, ..self.clone() }
    }

    /// Only records from now on.
    #[must_use]
    pub fn from_now(&self) -> View {
        View { from: self.shared.look().records.len(), ..self.clone() }
    }

    /// Only records of this connection.
    #[must_use]
    pub fn on(&self, connection: u32) -> View {
        View { connection: Some(connection), ..self.clone() }
    }

    /// Everything so far that matches, in order.
    #[must_use]
    pub fn all(&self, matches: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let state = self.shared.look();
        let mine = state.records.iter().skip(self.from).filter(|record| self.is_mine(record));
        mine.filter(|record| matches(record)).cloned().collect()
    }

    /// How many records so far match.
    #[must_use]
    pub fn count(&self, matches: impl Fn(&Record) -> bool) -> usize {
        self.all(matches).len()
    }

    /// Waits for the first record that matches. `what` names it in the panic.
    ///
    /// # Panics
    /// At the deadline; and at once if the agent sent a frame that brings the production console down.
    #[track_caller]
    pub fn wait(&self, what: &str, matches: impl Fn(&Record) -> bool) -> Arc<Record> {
        self.nth(1, what, matches)
    }

    /// Waits for the n-th record (from 1) that matches.
    ///
    /// # Panics
    /// As [`View::wait`].
    #[track_caller]
    pub fn nth(&self, n: usize, what: &str, matches: impl Fn(&Record) -> bool) -> Arc<Record> {
        let (mut next, mut left) = (self.from, n);
        self.until(&format!("{what} (number {n})"), |state| {
            for record in state.records.iter().skip(next) {
                next += 1;
                if self.is_mine(record) && matches(record) {
                    left = left.saturating_sub(1);
                    if left == 0 {
                        return Some(record.clone());
                    }
                }
            }
            None
        })
    }

    /// Whether such a record comes within the view's deadline. It does not panic.
    #[must_use]
    pub fn comes(&self, matches: impl Fn(&Record) -> bool) -> bool {
        let deadline = Instant::now() + self.patience;
        let mut next = self.from;
        let found = self.shared.wait_until(deadline, |state| {
            let fresh = state.records.get(next..).unwrap_or_default();
            next = state.records.len().max(next);
            fresh.iter().any(|record| self.is_mine(record) && matches(record)).then_some(())
        });
        found.is_some()
    }

    /// The next record, after which the view continues; `None` at the view's deadline. It never panics, because the
    /// demo uses it.
    #[must_use]
    pub fn take_next(&mut self) -> Option<Arc<Record>> {
        let deadline = Instant::now() + self.patience;
        let (from, connection) = (self.from, self.connection);
        let record = self.shared.wait_until(deadline, |state| {
            let mine = |record: &&Arc<Record>| connection.is_none_or(|number| record.connection == number);
            state.records.iter().skip(from).find(mine).cloned()
        })?;
        self.from = record.seq + 1;
        Some(record)
    }

    /// The first frame of this type.
    #[track_caller]
    pub fn frame(&self, kind: &str) -> Arc<Record> {
        self.nth_frame(1, kind)
    }

    /// The n-th frame (from 1) of this type.
    #[track_caller]
    pub fn nth_frame(&self, n: usize, kind: &str) -> Arc<Record> {
        self.nth(n, kind, |record| record.kind() == kind)
    }

    /// All frames of this type so far.
    #[must_use]
    pub fn frames(&self, kind: &str) -> Vec<Arc<Record>> {
        self.all(|record| record.kind() == kind)
    }

    /// The first `event` with this `event_type`.
    #[track_caller]
    pub fn event(&self, event_type: &str) -> Arc<Record> {
        let is_it = |record: &Record| record.kind() == "event" && record.payload()["event_type"] == event_type;
        self.wait(&format!("an event {event_type}"), is_it)
    }

    /// The payload of the first `command:result` for this id.
    #[track_caller]
    pub fn result(&self, command_id: &str) -> Value {
        let is_it = |record: &Record| record.kind() == "command:result" && record.payload()["command_id"] == command_id;
        self.wait(&format!("the result of {command_id}"), is_it).payload().clone()
    }

    /// The payload of the first `terminal:closed` for this session.
    #[track_caller]
    pub fn closed(&self, session_id: &str) -> Value {
        let is_it =
            |record: &Record| record.kind() == "terminal:closed" && record.payload()["session_id"] == session_id;
        self.wait(&format!("the end of terminal {session_id}"), is_it).payload().clone()
    }

    /// The n-th registration request (from 1), on any path. It is recorded with its answer.
    #[track_caller]
    pub fn registration(&self, n: usize) -> Arc<Record> {
        self.nth(n, "a registration", |record| matches!(record.what, What::Registration(..)))
    }

    /// The n-th registration (from 1) that was answered with this status.
    #[track_caller]
    pub fn registration_answered(&self, n: usize, status: u16) -> Arc<Record> {
        let is_it = |record: &Record| matches!(record.what, What::Registration(_, said) if said == status);
        self.nth(n, &format!("a registration answered {status}"), is_it)
    }

    /// The n-th upgrade request (from 1).
    #[track_caller]
    pub fn upgrade(&self, n: usize) -> Arc<Record> {
        self.nth(n, "an upgrade", |record| matches!(record.what, What::Upgrade(_)))
    }

    /// The n-th ping (from 1).
    #[track_caller]
    pub fn ping(&self, n: usize) -> Arc<Record> {
        self.nth(n, "a ping", |record| matches!(record.what, What::Ping(_)))
    }

    /// Waits for the agent's close frame, its own or its answer.
    #[track_caller]
    pub fn close_frame(&self) -> (Option<u16>, String) {
        let record = self.wait("a close frame", |record| matches!(record.what, What::Closed(..)));
        match &record.what {
            What::Closed(code, reason) => (*code, reason.clone()),
            other => panic!("waited for a close frame, got {other:?}"),
        }
    }

    /// Waits until this connection is over and says how it ended.
    #[track_caller]
    pub fn ended(&self, connection: u32) -> End {
        let is_it = |record: &Record| record.connection == connection && matches!(record.what, What::Ended(_));
        let record = self.wait(&format!("the end of connection {connection}"), is_it);
        match &record.what {
            What::Ended(end) => end.clone(),
            other => panic!("waited for an end, got {other:?}"),
        }
    }

    /// The state of a stream: a terminal by its session id, a command's output as `"<command id>/stdout"`.
    #[must_use]
    pub fn stream(&self, name: &str) -> Stream {
        self.shared.look().streams.get(name).cloned().unwrap_or_default()
    }

    /// Waits until a stream matches, and returns it.
    #[track_caller]
    pub fn wait_stream(&self, name: &str, what: &str, is_so: impl Fn(&Stream) -> bool) -> Stream {
        self.until(&format!("{what} on {name}"), |state| {
            state.streams.get(name).filter(|stream| is_so(stream)).cloned()
        })
    }

    /// Waits until a stream has reached this offset. Returns false if the view's connection ends before.
    ///
    /// # Panics
    /// As [`View::wait`]; and for a view that is not [of one connection](View::on).
    #[track_caller]
    pub fn reaches(&self, name: &str, offset: u64) -> bool {
        let connection = self.connection.expect("a view of one connection");
        self.until(&format!("offset {offset} of {name}"), |state| {
            let has = state.streams.get(name).is_some_and(|stream| stream.end >= offset);
            (has || !state.links.contains_key(&connection)).then_some(has)
        })
    }

    /// Waits until a terminal has shown this text, anywhere.
    #[track_caller]
    pub fn wait_text(&self, name: &str, text: &str) -> Stream {
        self.wait_text_after(name, 0, text)
    }

    /// Waits until a terminal has shown this text after its first `shown` bytes ([`View::shown`] before typing).
    #[track_caller]
    pub fn wait_text_after(&self, name: &str, shown: usize, text: &str) -> Stream {
        let mut looked = shown;
        self.until(&format!("{text:?} on {name}"), |state| {
            let stream = state.streams.get(name)?;
            let unseen = stream.screen.get(looked..).unwrap_or_default();
            let found = unseen.windows(text.len().max(1)).any(|window| window == text.as_bytes());
            looked = stream.screen.len().saturating_sub(text.len()).max(shown);
            found.then(|| stream.clone())
        })
    }

    /// How many bytes a terminal has shown so far.
    #[must_use]
    pub fn shown(&self, name: &str) -> usize {
        self.shared.look().streams.get(name).map_or(0, |stream| stream.screen.len())
    }

    /// How many connections of any kind were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.look().accepted
    }

    /// The frame of the agent that brings the production console down, if it sent one.
    #[must_use]
    pub fn poison(&self) -> Option<String> {
        self.shared.look().poison.clone()
    }

    /// The view's records as text, one line each.
    #[must_use]
    pub fn story(&self) -> String {
        story(&self.shared.look(), self)
    }

    /// Waits until the check returns something.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, mut check: impl FnMut(&State) -> Option<T>) -> T {
        let found = self.shared.wait_until(Instant::now() + self.patience, |state| {
            if let Some(why) = &state.poison {
                return Some(Err(format!("the production console would be down: {why}")));
            }
            if state.is_overfull() {
                return Some(Err("the console keeps more than it may; use Keep::Bytes or Keep::Counts".to_owned()));
            }
            check(state).map(Ok)
        });
        match found {
            Some(Ok(found)) => found,
            Some(Err(why)) => panic!("waiting for {what}: {why}"),
            None => panic!("waited {:?} for {what}; what came instead:\n{}", self.patience, self.story()),
        }
    }

    fn is_mine(&self, record: &Record) -> bool {
        self.connection.is_none_or(|connection| record.connection == connection)
    }
}

/// The newest records of a view, as text.
fn story(state: &State, view: &View) -> String {
    const LINES_MAX: usize = 200;
    let mine: Vec<_> = state.records.iter().skip(view.from).filter(|record| view.is_mine(record)).collect();
    let skipped = mine.len().saturating_sub(LINES_MAX);
    let mut lines: Vec<String> = mine.iter().skip(skipped).map(|record| record.summary()).collect();
    if skipped > 0 {
        lines.insert(0, format!("… {skipped} records before"));
    }
    for (name, stream) in &state.streams {
        lines.push(format!(
            "stream {name}: {} bytes in {} frames, {} gaps",
            stream.bytes,
            stream.frames,
            stream.gaps.len()
        ));
    }
    lines.join("\n")
}
