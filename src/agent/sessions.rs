//! Terminal sessions as the console knows them: which id is which number, and what the console hears of them.
//!
//! The terminals themselves are [`crate::terminal`]'s, their lifecycles the machine's, the bytes under way the ledger's;
//! this joins the three. A session whose `closed` is not acknowledged is still known, so that a `create` for it gets that
//! `closed` again.

use super::Agent;
use crate::audit::{Entry, Unavailable};
use crate::config::{Config, TerminalPolicy};
use crate::protocol::{ClosedReason, Faults, Metadata, SessionId, TerminalClosed, TerminalOutput};
use crate::report::Reporter;
use crate::terminal::{Open, Report, Terminals};
use draupnir_fsm::delivery::budget::Budget;
use draupnir_fsm::delivery::{After, Cut, Kind, Reliable, StreamKey};
use draupnir_fsm::fact::{Fact, SessionFact};
use draupnir_fsm::id::SessionKey;
use draupnir_fsm::order::SessionEnd;
use draupnir_fsm::session::SESSIONS_MAX;
use draupnir_fsm::time::Time;
use smol::LocalExecutor;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// The exit code of a terminal that this instance does not open.
const EXIT_REFUSED: i32 = 126;

/// Where the bytes of a stream come from.
pub(super) trait Source {
    /// Cuts what the ledger asks for; how many bytes of the stream that is, and the message that carries them.
    fn cut(&mut self, stream: StreamKey, cut: Cut) -> (usize, Option<String>);
}

/// All sessions that the console may still ask for.
pub(super) struct Sessions {
    terminals: Terminals,
    keys: HashMap<SessionId, SessionKey>,
    sessions: BTreeMap<SessionKey, Session>,
    next_key: SessionKey,
    budget: Rc<Budget>,
}

struct Session {
    id: SessionId,
    /// The number of its `closed` in the ledger, once it is over.
    closed: Option<u64>,
    /// How much was typed.
    input_bytes: u64,
}

impl Sessions {
    pub(super) fn new(
        config: &Config,
        executor: &Rc<LocalExecutor<'static>>,
        reporter: &Reporter,
        budget: &Rc<Budget>,
    ) -> Self {
        Self {
            terminals: Terminals::new(
                super::settings::terminals(config),
                Rc::clone(executor),
                reporter.clone(),
                Rc::clone(budget),
            ),
            keys: HashMap::new(),
            sessions: BTreeMap::new(),
            next_key: SessionKey(1),
            budget: Rc::clone(budget),
        }
    }

    /// The console's id of a session.
    pub(super) fn id(&self, session: SessionKey) -> Option<&SessionId> {
        self.sessions.get(&session).map(|session| &session.id)
    }

    pub(super) fn hang_up(&mut self, session: SessionKey) {
        self.terminals.hang_up(session);
    }

    pub(super) fn kill(&mut self, session: SessionKey) {
        self.terminals.kill(session);
    }

    /// Lets a session read, and keep what the console may still need.
    pub(super) fn allow(&mut self, session: SessionKey, bytes: usize, keep_from: Option<u64>) {
        self.terminals.allow(session, bytes, keep_from);
    }

    /// Shortens the scrollbacks that the budget wants shorter.
    pub(super) fn shrink(&mut self) {
        while let Some(shrink) = self.budget.take_shrink() {
            self.terminals.shrink(shrink.session, shrink.to_bytes);
        }
    }

    /// Notes for the budget that nobody can look at any session.
    pub(super) fn detached(&self, now: Time) {
        self.sessions.keys().for_each(|session| self.budget.detached(*session, now));
    }

    /// The console has every byte of a session that is over.
    pub(super) fn free(&mut self, session: SessionKey) {
        self.terminals.finish(session);
    }

    fn live(&self) -> usize {
        self.sessions.values().filter(|session| session.closed.is_none()).count()
    }

    fn key(&self, id: &SessionId) -> Option<SessionKey> {
        self.keys.get(id).copied()
    }

    fn add(&mut self, id: SessionId) -> SessionKey {
        let key = self.next_key;
        self.next_key = self.next_key.next();
        self.keys.insert(id.clone(), key);
        self.sessions.insert(key, Session { id, closed: None, input_bytes: 0 });
        key
    }

    fn forget(&mut self, session: SessionKey) {
        if let Some(session) = self.sessions.remove(&session) {
            self.keys.remove(&session.id);
        }
    }
}

impl Source for Sessions {
    fn cut(&mut self, stream: StreamKey, cut: Cut) -> (usize, Option<String>) {
        let StreamKey::Terminal(key) = stream else { return (0, None) };
        let Some(session) = self.sessions.get(&key) else { return (0, None) };
        let session_id = &session.id;
        match cut {
            Cut::Bytes { from, max, replay } => {
                let chunk = self.terminals.chunk(key, from, max);
                let (data, offset) = (chunk.bytes, Some(chunk.from));
                let message = (!data.is_empty()).then(|| TerminalOutput { session_id, data, offset, replay }.message());
                (data.len(), message)
            }
            Cut::Reset => own_bytes(session_id, &self.terminals.replay(key).prelude),
            Cut::Modes => own_bytes(session_id, &self.terminals.replay(key).epilogue),
        }
    }
}

/// Bytes of the agent's own, which stand nowhere in the session's output.
fn own_bytes(session_id: &SessionId, data: &[u8]) -> (usize, Option<String>) {
    (data.len(), Some(TerminalOutput { session_id, data, offset: None, replay: true }.message()))
}

impl Agent {
    pub(super) fn terminal_reports(&mut self, report: Report) {
        match report {
            Report::Output { session } => self.note_output(session),
            Report::EndOfOutput { session } => {
                self.note_output(session);
                self.tell_session(session, SessionFact::EndOfOutput);
            }
            Report::Exited { session, code } => self.tell_session(session, SessionFact::Exited { code }),
            Report::Reaped { session } => self.tell_session(session, SessionFact::Reaped),
        }
    }

    /// Tells the ledger how far a session's output has come, and from where on it is still held.
    fn note_output(&mut self, session: SessionKey) {
        let held = self.sessions.terminals.held(session);
        let stream = StreamKey::Terminal(session);
        self.engine.delivery.discarded(stream, held.start);
        self.engine.delivery.grew(stream, held.end);
    }

    pub(super) fn create_session(&mut self, id: SessionId, cols: u16, rows: u16, shell: Option<&str>) {
        if let Some(key) = self.sessions.key(&id) {
            match self.sessions.sessions.get(&key).and_then(|session| session.closed) {
                None => return self.reattach(key, cols, rows),
                Some(closed) if self.engine.delivery.send_again(closed) => return,
                // The console has that `closed`: the id is free again.
                Some(_) => self.sessions.forget(key),
            }
        }
        if self.engine.machine().is_draining() {
            return self.close_unopened(&id, ClosedReason::Drained, 0, None);
        }
        if self.config.terminal == TerminalPolicy::Off {
            let text = "this instance opens no terminals (SINDRI_AGENT_TERMINAL=off)";
            self.close_unopened(&id, ClosedReason::RefusedByPolicy, EXIT_REFUSED, Some(text));
            return self.error_event("terminal", text, Metadata::new().with("session_id", id.as_str()));
        }
        if self.sessions.live() >= SESSIONS_MAX || !self.engine.delivery.promise(Kind::Closed) {
            let text = format!("{SESSIONS_MAX} sessions are open, or too much waits for the console");
            self.close_unopened(&id, ClosedReason::Busy, 0, Some(&text));
            return self.error_event("terminal", &text, Metadata::new().with("session_id", id.as_str()));
        }
        let started = shell.filter(|shell| !shell.is_empty()).map(Cow::from);
        let started = started.unwrap_or_else(|| self.config.shell.to_string_lossy());
        if let Err(problem) = self.audit.write(Entry::TerminalOpened { session_id: id.as_str(), shell: &started }) {
            self.engine.delivery.break_promise(Kind::Closed);
            let text = self.unaudited(&problem);
            return self.close_unopened(&id, ClosedReason::AuditUnavailable, EXIT_REFUSED, Some(&text));
        }
        let key = self.sessions.add(id);
        let opened = self.sessions.terminals.open(key, Open { shell, cols, rows });
        self.engine.delivery.open_stream(StreamKey::Terminal(key));
        match opened {
            Ok(()) => {
                tracing::info!(session = %key, cols, rows, "terminal opened");
                self.tell_session(key, SessionFact::Opening);
                self.tell_session(key, SessionFact::Opened);
            }
            Err(error) => {
                let text = error.to_string();
                self.close_opened(key, ClosedReason::SpawnFailed, error.exit_code(), Some(&text));
                self.error_event("terminal", &text, Metadata::new());
            }
        }
    }

    fn reattach(&mut self, key: SessionKey, cols: u16, rows: u16) {
        tracing::debug!(session = %key, "terminal re-attached");
        self.tell_session(key, SessionFact::Attached);
        self.sessions.terminals.resize(key, cols, rows);
        self.sessions.budget.attached(key);
        let from = self.sessions.terminals.replay(key).from;
        self.engine.delivery.replay(StreamKey::Terminal(key), from);
        self.sessions.terminals.redraw(key);
    }

    /// Tells the console that a session which it wants does not exist, and why.
    fn close_unopened(&mut self, session_id: &SessionId, reason: ClosedReason, exit_code: i32, text: Option<&str>) {
        let id = self.events.next_id();
        let message = TerminalClosed { session_id, exit_code, reason, message: text, id }.message();
        self.push_closed(message);
    }

    fn push_closed(&mut self, message: String) {
        let reliable =
            Reliable { kind: Kind::Closed, size_bytes: message.len(), after: After::NOTHING, promised: false };
        if self.engine.delivery.push(reliable, message).is_err() {
            tracing::debug!("the end of a session found no room and was dropped");
        }
    }

    pub(super) fn refuse_session(&mut self, id: &SessionId, faults: &Faults) {
        if self.sessions.key(id).is_none() {
            self.close_unopened(id, ClosedReason::Invalid, 0, Some(&faults.to_string()));
        }
    }

    pub(super) fn session_input(&mut self, id: &SessionId, data: Vec<u8>) {
        if self.engine.machine().wants_terminal_input() {
            self.tell(Fact::TerminalInput);
        }
        let Some(key) = self.live_session(id) else { return };
        self.note_use(key);
        if let Some(session) = self.sessions.sessions.get_mut(&key) {
            session.input_bytes += data.len() as u64;
        }
        if let Err(refused) = self.sessions.terminals.input(key, &data) {
            let text = refused.to_string();
            let metadata = Metadata::new().with("session_id", id.as_str());
            self.error_event_about(Some(key), "terminal", &text, metadata);
        }
    }

    pub(super) fn resize_session(&mut self, id: &SessionId, cols: u16, rows: u16) {
        let Some(key) = self.live_session(id) else { return };
        self.note_use(key);
        self.sessions.terminals.resize(key, cols, rows);
    }

    pub(super) fn close_session(&mut self, id: &SessionId) {
        let Some(key) = self.live_session(id) else { return };
        tracing::info!(session = %key, "the console closes a terminal");
        self.tell_session(key, SessionFact::CloseRequested);
    }

    /// The session of this id, if it is not over. One that nobody knows is no error: the console asks for sessions long
    /// after their end (wire.md, part B).
    fn live_session(&self, id: &SessionId) -> Option<SessionKey> {
        let key = self.sessions.key(id)?;
        self.sessions.sessions.get(&key).filter(|session| session.closed.is_none()).map(|_| key)
    }

    /// An orphan that is used has found somebody.
    fn note_use(&mut self, key: SessionKey) {
        self.sessions.budget.attached(key);
        if self.engine.machine().is_orphan(key) {
            self.tell_session(key, SessionFact::Attached);
        }
    }

    pub(super) fn finish_session(&mut self, key: SessionKey, end: SessionEnd, exit_code: i32) {
        let reason = match end {
            SessionEnd::Exited => ClosedReason::Exited,
            SessionEnd::Closed => ClosedReason::Closed,
            SessionEnd::Drained => ClosedReason::Drained,
            SessionEnd::Orphaned => ClosedReason::Orphaned,
            SessionEnd::SpawnFailed => ClosedReason::SpawnFailed,
        };
        tracing::info!(session = %key, ?reason, exit_code, "terminal closed");
        self.close_opened(key, reason, exit_code, None);
    }

    /// Ends a session and tells the console so, after its last byte.
    fn close_opened(&mut self, key: SessionKey, reason: ClosedReason, exit_code: i32, text: Option<&str>) {
        let Some(session_id) = self.sessions.id(key).cloned() else { return };
        let stream = StreamKey::Terminal(key);
        let ends_at = self.sessions.terminals.end(key);
        self.note_output(key);
        let input_bytes = self.sessions.sessions.get(&key).map_or(0, |session| session.input_bytes);
        let session_text = session_id.as_str();
        let entry = Entry::TerminalClosed { session_id: session_text, exit_code, output_bytes: ends_at, input_bytes };
        if let Err(problem) = self.audit.write(entry) {
            self.unaudited(&problem);
        }
        let id = self.events.next_id();
        let message = TerminalClosed { session_id: &session_id, exit_code, reason, message: text, id }.message();
        let after = After::stream(stream, ends_at);
        let reliable = Reliable { kind: Kind::Closed, size_bytes: message.len(), after, promised: true };
        let pushed = self.engine.delivery.push(reliable, message);
        self.engine.delivery.end_stream(stream);
        match (pushed, self.sessions.sessions.get_mut(&key)) {
            (Ok(pushed), Some(session)) => session.closed = Some(pushed.number),
            (Ok(_) | Err(_), _) => self.sessions.forget(key),
        }
        self.forget_acknowledged();
    }

    /// Forgets the sessions whose `closed` the console has.
    fn forget_acknowledged(&mut self) {
        let delivery = &self.engine.delivery;
        let known = |session: &Session| session.closed.is_none_or(|number| delivery.is_waiting(number));
        let over: Vec<SessionKey> =
            self.sessions.sessions.iter().filter(|(_, session)| !known(session)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| self.sessions.forget(key));
    }

    /// Says that the audit cannot be written; the text for whoever is refused because of it.
    pub(super) fn unaudited(&mut self, problem: &Unavailable) -> String {
        let text = problem.to_string();
        self.error_event("audit", &text, Metadata::new());
        text
    }

    fn tell_session(&mut self, session: SessionKey, what: SessionFact) {
        self.tell(Fact::Session { session, what });
    }
}
