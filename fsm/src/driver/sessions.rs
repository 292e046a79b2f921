//! Terminal sessions as the console knows them: which are opened, attached to again, refused and forgotten.
//!
//! A session whose `closed` is not acknowledged is still known, so that a `create` for it is answered with that
//! `closed`.

use super::audit::Subject;
use super::input::{ConsoleId, SessionInput};
use super::journal::{Needs, Record, Waiter};
use super::output::{Action, AuditEntry, ErrorEvent, Message, Notice, SessionRefusal};
use super::ports::{Body, ByteSource};
use super::{Driver, Todo};
use crate::delivery::{After, Kind, StreamKey};
use crate::fact::{Fact, SessionFact};
use crate::id::SessionKey;
use crate::order::SessionEnd;
use crate::session::SESSIONS_MAX;
use crate::time::Time;
use alloc::vec::Vec;
use litemap::LiteMap;

/// All sessions that the console may still ask for.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Sessions {
    keys: LiteMap<ConsoleId, SessionKey>,
    entries: LiteMap<SessionKey, Session>,
}

#[derive(Clone, Debug, Hash)]
struct Session {
    id: ConsoleId,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Its audit line or its record is not written yet.
    Admitted { size: Size, needs: Needs },
    /// It is being opened, is open, or ends.
    Open,
    /// It is over; the number of its `closed` in the ledger.
    Closed { number: u64 },
}

/// Columns and rows.
type Size = (u16, u16);

impl Sessions {
    /// Sessions that are not over.
    pub(super) fn live(&self) -> usize {
        self.entries.values().filter(|session| !matches!(session.state, State::Closed { .. })).count()
    }

    /// Those that the console may still ask for.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.entries.keys().copied()
    }

    /// Whether one waits for its audit line or its record.
    pub(super) fn is_admitting(&self) -> bool {
        self.entries.values().any(|session| matches!(session.state, State::Admitted { .. }))
    }

    /// Those whose shell was started, and their ids.
    pub(super) fn open(&self) -> impl Iterator<Item = (SessionKey, ConsoleId)> {
        let open = self.entries.iter().filter(|(_, session)| matches!(session.state, State::Open));
        open.map(|(key, session)| (*key, session.id))
    }

    /// The id of a session.
    pub(super) fn id(&self, session: SessionKey) -> Option<ConsoleId> {
        self.entries.get(&session).map(|session| session.id)
    }

    /// The session whose `closed` has this number in the ledger.
    pub(super) fn closed_by(&self, number: u64) -> Option<SessionKey> {
        let is_it = |session: &Session| matches!(session.state, State::Closed { number: of } if of == number);
        self.entries.iter().find(|(_, session)| is_it(session)).map(|(key, _)| *key)
    }

    /// Adds a session whose shell an earlier program started; false for one that is known.
    pub(super) fn take_over(&mut self, session: SessionKey, id: ConsoleId) -> bool {
        let is_new = self.is_new(id) && !self.entries.contains_key(&session);
        if is_new {
            self.add(session, id, State::Open);
        }
        is_new
    }

    /// Whether no session of this id is known.
    pub(super) fn is_new(&self, id: ConsoleId) -> bool {
        !self.keys.contains_key(&id)
    }

    fn known(&self, id: ConsoleId) -> Option<(SessionKey, State)> {
        let key = self.keys.get(&id).copied()?;
        self.entries.get(&key).map(|session| (key, session.state))
    }

    fn add(&mut self, session: SessionKey, id: ConsoleId, state: State) {
        self.keys.insert(id, session);
        self.entries.insert(session, Session { id, state });
    }

    /// Puts back a session of an earlier process whose `closed` has this number in the ledger.
    pub(super) fn restore(&mut self, session: SessionKey, id: ConsoleId, number: u64) {
        self.add(session, id, State::Closed { number });
    }

    fn meet(&mut self, session: SessionKey, change: impl FnOnce(&mut Needs)) {
        if let Some(Session { state: State::Admitted { needs, .. }, .. }) = self.entries.get_mut(&session) {
            change(needs);
        }
    }

    fn set(&mut self, session: SessionKey, state: State) {
        if let Some(session) = self.entries.get_mut(&session) {
            session.state = state;
        }
    }

    fn remove(&mut self, session: SessionKey) -> Option<Session> {
        let removed = self.entries.remove(&session)?;
        if self.keys.get(&removed.id) == Some(&session) {
            self.keys.remove(&removed.id);
        }
        Some(removed)
    }
}

impl<B: Body> Driver<B> {
    pub(super) fn create(&mut self, now: Time, session: SessionKey, id: ConsoleId, size: Size, allowed: bool) {
        match self.sessions.known(id) {
            Some((key, State::Admitted { needs, .. })) => {
                self.sessions.set(key, State::Admitted { size, needs });
                return self.out(Action::ForgetSession { session });
            }
            Some((key, State::Open)) if self.machine.is_usable(key) => {
                self.reattach(now, key, size);
                return self.out(Action::ForgetSession { session });
            }
            Some((_, State::Open)) => return self.refuse(now, session, SessionRefusal::Ending),
            Some((_, State::Closed { number })) if self.ledger.is_under_way(number) => {
                // Whether the console has read that `closed` already is not known: a repeat could be taken for it.
                return self.refuse(now, session, SessionRefusal::Ending);
            }
            Some((_, State::Closed { number })) if self.ledger.is_waiting(number) => {
                // It will be sent on this link.
                return self.out(Action::ForgetSession { session });
            }
            Some((key, State::Closed { .. })) => self.forget_session(key),
            None => {}
        }
        match self.admit(allowed) {
            Err(refusal) => self.refuse(now, session, refusal),
            Ok(()) => {
                let audit = self.audits.is_enabled();
                if audit {
                    self.await_audit(now, Subject::Session(session));
                }
                let record = self.append(Record::Opened { session, id }, None, Some(Waiter::Session(session)));
                self.sessions.add(session, id, State::Admitted { size, needs: Needs { audit, record } });
                self.open_admitted(now, session);
            }
        }
    }

    /// Whether one more session may be opened; then room for its `closed` is promised.
    fn admit(&mut self, allowed: bool) -> Result<(), SessionRefusal> {
        if self.machine.is_draining() {
            Err(SessionRefusal::Draining)
        } else if !allowed {
            Err(SessionRefusal::Policy)
        } else if self.audits.is_full() {
            Err(SessionRefusal::AuditUnavailable)
        } else if self.sessions.live() >= SESSIONS_MAX || !self.ledger.promise(Kind::Closed) {
            Err(SessionRefusal::Busy)
        } else {
            Ok(())
        }
    }

    fn refuse(&mut self, now: Time, session: SessionKey, refusal: SessionRefusal) {
        self.todo.push_back(Todo::Send(Message::Unopened { session, refusal }));
        match refusal {
            SessionRefusal::Policy | SessionRefusal::Busy => {
                self.report(now, ErrorEvent::SessionRefused(session, refusal));
            }
            // Reported where it failed, or the console's own doing.
            SessionRefusal::AuditUnavailable
            | SessionRefusal::Draining
            | SessionRefusal::Ending
            | SessionRefusal::Closed
            | SessionRefusal::Invalid => {}
        }
        self.out(Action::ForgetSession { session });
    }

    pub(super) fn invalid_create(&mut self, session: SessionKey, id: ConsoleId) {
        if self.sessions.known(id).is_none() {
            self.todo.push_back(Todo::Send(Message::Unopened { session, refusal: SessionRefusal::Invalid }));
        }
        self.out(Action::ForgetSession { session });
    }

    pub(super) fn session_audited(&mut self, now: Time, session: SessionKey) {
        self.sessions.meet(session, |needs| needs.audit = false);
        self.open_admitted(now, session);
    }

    pub(super) fn session_recorded(&mut self, now: Time, session: SessionKey) {
        self.sessions.meet(session, |needs| needs.record = false);
        self.open_admitted(now, session);
    }

    /// Opens a session that waits for nothing more.
    fn open_admitted(&mut self, now: Time, session: SessionKey) {
        let Some(Session { state: State::Admitted { size, needs }, .. }) = self.sessions.entries.get(&session) else {
            return;
        };
        let (size, needs) = (*size, *needs);
        if !needs.is_met() {
            return;
        }
        if self.machine.is_draining() {
            return self.withdraw(now, session, SessionRefusal::Draining);
        }
        self.sessions.set(session, State::Open);
        self.open(now, session, size);
    }

    pub(super) fn session_unaudited(&mut self, now: Time, session: SessionKey) {
        self.withdraw(now, session, SessionRefusal::AuditUnavailable);
    }

    /// Refuses a session that was admitted and is not open.
    fn withdraw(&mut self, now: Time, session: SessionKey, refusal: SessionRefusal) {
        if let Some(Session { id, .. }) = self.sessions.remove(session) {
            self.append(Record::Unopened { id }, None, None);
            self.ledger.break_promise(Kind::Closed);
            self.refuse(now, session, refusal);
        }
    }

    fn open(&mut self, now: Time, session: SessionKey, (cols, rows): Size) {
        self.ledger.open_stream(StreamKey::Terminal(session));
        self.out(Action::OpenSession { session, cols, rows });
        self.tell_session(now, session, SessionFact::Opening);
    }

    fn reattach(&mut self, now: Time, session: SessionKey, (cols, rows): Size) {
        self.log(Notice::Reattached { session });
        self.tell_session(now, session, SessionFact::Attached);
        self.budget.attached(session);
        // The snapshot is for this size, and is made before the terminal gets it.
        self.snapshots.set_size(session, (cols, rows));
        self.ledger.want_snapshot(StreamKey::Terminal(session));
    }

    pub(super) fn keys(&mut self, now: Time, id: ConsoleId) {
        if self.machine.wants_terminal_input() {
            self.step(now, Fact::TerminalInput);
        }
        let session = self.usable(id).map(|(session, _)| session);
        if let Some(session) = session {
            self.note_use(now, session);
        }
        self.out(Action::TakeInput { session });
    }

    pub(super) fn resize(&mut self, now: Time, id: ConsoleId, size: Size) {
        let Some((session, state)) = self.usable(id) else { return };
        if let State::Admitted { needs, .. } = state {
            return self.sessions.set(session, State::Admitted { size, needs });
        }
        self.note_use(now, session);
        if !self.snapshots.replace_size(session, size) {
            self.out(Action::ResizeSession { session, cols: size.0, rows: size.1 });
        }
    }

    pub(super) fn close(&mut self, now: Time, id: ConsoleId) {
        match self.usable(id) {
            Some((session, State::Admitted { .. })) => self.withdraw(now, session, SessionRefusal::Closed),
            Some((session, State::Open)) => {
                self.log(Notice::Closing { session });
                self.tell_session(now, session, SessionFact::CloseRequested);
            }
            Some((_, State::Closed { .. })) | None => {}
        }
    }

    /// The session of this id, if it takes input. An unknown id is no error: the console asks for sessions long after
    /// their end.
    fn usable(&self, id: ConsoleId) -> Option<(SessionKey, State)> {
        self.sessions.known(id).filter(|(session, state)| match state {
            State::Admitted { .. } => true,
            State::Open => self.machine.is_usable(*session),
            State::Closed { .. } => false,
        })
    }

    /// A session that is used is no orphan.
    fn note_use(&mut self, now: Time, session: SessionKey) {
        self.budget.attached(session);
        if self.machine.is_orphan(session) {
            self.tell_session(now, session, SessionFact::Attached);
        }
    }

    /// No console looks at any session.
    pub(super) fn detach_sessions(&mut self, now: Time) {
        for session in self.sessions.entries.keys() {
            self.budget.detached(*session, now);
        }
    }

    pub(super) fn session_input(&mut self, now: Time, session: SessionKey, what: SessionInput) {
        let state = self.sessions.entries.get(&session).map(|session| session.state);
        if !matches!(state, Some(State::Open)) {
            // A start that comes after its session was finished is ignored: it would begin a second life.
            return;
        }
        match what {
            SessionInput::Opened => self.tell_session(now, session, SessionFact::Opened),
            SessionInput::OpenFailed { exit_code } => {
                self.tell_session(now, session, SessionFact::OpenFailed { exit_code });
                self.report(now, ErrorEvent::SpawnFailed(session));
            }
            SessionInput::EndOfOutput => self.tell_session(now, session, SessionFact::EndOfOutput),
            SessionInput::Exited { code } => self.tell_session(now, session, SessionFact::Exited { code }),
            SessionInput::Reaped => self.tell_session(now, session, SessionFact::Reaped),
            SessionInput::InputRefused { note } => {
                // Each session is a cause of its own.
                self.note(now, note, Some(INPUT_REFUSED ^ u64::from(session.0)));
            }
        }
    }

    /// The source of a stream holds these bytes now.
    pub(super) fn source_holds(&mut self, stream: StreamKey, from: u64, end: u64) {
        self.ledger.discarded(stream, from);
        self.ledger.grew(stream, end);
    }

    /// The same, as reported at `now`.
    pub(super) fn source_grew(&mut self, now: Time, stream: StreamKey, from: u64, end: u64) {
        self.source_holds(stream, from, end);
        if let StreamKey::Terminal(session) = stream
            && self.sessions.entries.contains_key(&session)
        {
            self.snapshots.grew(now, session, end);
        }
    }

    /// Ends a session and reports its end to the console, after its last byte.
    pub(super) fn finish_session(
        &mut self,
        session: SessionKey,
        end: SessionEnd,
        exit_code: i32,
        host: &mut dyn ByteSource<Body = B>,
    ) {
        let Some(id) = self.sessions.entries.get(&session).map(|session| session.id) else { return };
        let stream = StreamKey::Terminal(session);
        let body = host.encode(&Message::Closed { session, end, exit_code });
        // Only now: with its `closed` the last bytes were read.
        let held = host.held(stream);
        self.source_holds(stream, held.start, held.end);
        let after = After::stream(stream, held.end);
        let number = body.and_then(|body| self.push(Kind::Closed, body, Some((id, None)), after, true, host));
        if number.is_none() {
            self.append(Record::Unopened { id }, None, None);
        }
        self.audit(AuditEntry::TerminalClosed { session, exit_code, output_bytes: held.end });
        self.ledger.end_stream(stream);
        match number {
            Some(number) => self.sessions.set(session, State::Closed { number }),
            None => self.forget_session(session),
        }
    }

    /// Forgets the sessions whose `closed` the console has.
    pub(super) fn forget_closed_sessions(&mut self) {
        let is_known = |session: &Session| match session.state {
            State::Closed { number } => self.ledger.is_waiting(number),
            State::Admitted { .. } | State::Open => true,
        };
        let over = self.sessions.entries.iter().filter(|(_, session)| !is_known(session));
        let over: Vec<SessionKey> = over.map(|(key, _)| *key).collect();
        over.into_iter().for_each(|session| self.forget_session(session));
    }

    fn forget_session(&mut self, session: SessionKey) {
        self.sessions.remove(session);
        self.snapshots.forget(session);
        self.out(Action::ForgetSession { session });
    }
}

/// Identifies the cause "refused input"; the session's number becomes part of it.
const INPUT_REFUSED: u64 = 1 << 63;
