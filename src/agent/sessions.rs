//! What the agent keeps of terminal sessions beside the terminals: the console's ids and what was said about each.

use super::host::ErrorNote;
use crate::audit::AuditLine;
use crate::config::Config;
use crate::hand_over::state::Session as Saved;
use crate::hand_over::table;
use crate::protocol::{ClosedReason, MessageId, Metadata, SessionId, TerminalClosed, TerminalOutput};
use crate::report::Reporter;
use crate::terminal::{INPUT_BYTES_MAX, InputRefused, Open, Snapshot, Terminals};
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{Chunk, MadeSnapshot, SESSIONS_MAX, SessionEnd, SessionKey, SessionRefusal};
use litemap::LiteMap;
use smol::LocalExecutor;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// The exit code of a terminal that this instance does not open.
const EXIT_REFUSED: i32 = 126;

/// All sessions that the driver may still ask about.
pub(super) struct Sessions {
    pub(super) terminals: Terminals,
    entries: LiteMap<SessionKey, Entry>,
    /// What was typed, until the driver says into which session.
    typed: VecDeque<Vec<u8>>,
    next_key: SessionKey,
    default_shell: String,
}

struct Entry {
    id: SessionId,
    shell: Option<String>,
    /// Why it was not opened.
    failure: Option<String>,
    /// What was typed before the terminal was asked for; `None` from then on.
    early: Option<Vec<u8>>,
    input_bytes: u64,
    /// What a panic hands over of it, as long as its shell runs.
    kept: Option<table::Kept>,
}

impl Sessions {
    pub(super) fn new(
        config: &Config,
        executor: &Rc<LocalExecutor<'static>>,
        reporter: &Reporter,
        budget: &Rc<Budget>,
    ) -> Self {
        let settings = super::settings::terminals(config);
        Self {
            terminals: Terminals::new(settings, Rc::clone(executor), reporter.clone(), Rc::clone(budget)),
            entries: LiteMap::new(),
            typed: VecDeque::new(),
            next_key: SessionKey::default().next(),
            default_shell: config.shell.to_string_lossy().into_owned(),
        }
    }

    /// Keeps what a `terminal:create` says, under a number of its own.
    pub(super) fn add(&mut self, id: SessionId, shell: Option<String>, failure: Option<String>) -> SessionKey {
        let key = self.next_key();
        let shell = shell.filter(|shell| !shell.is_empty());
        self.entries.insert(key, Entry { id, shell, failure, early: Some(Vec::new()), input_bytes: 0, kept: None });
        key
    }

    /// A number that no session of this process had before.
    pub(super) fn next_key(&mut self) -> SessionKey {
        let key = self.next_key;
        self.next_key = key.next();
        key
    }

    /// The number of the next session, and all of them, for the next program.
    pub(super) fn save(&self) -> (SessionKey, Vec<Saved>) {
        let saved = self.entries.iter().map(|(key, entry)| {
            let (id, terminal) = (entry.id.as_str().to_owned(), self.terminals.save(*key));
            Saved { key: *key, id, input_bytes: entry.input_bytes, terminal }
        });
        (self.next_key, saved.collect())
    }

    /// Whether a session of this id is there.
    pub(super) fn is_known(&self, id: &str) -> bool {
        self.entries.values().any(|entry| entry.id.as_str() == id)
    }

    /// Lets a panic hand over a session whose shell runs.
    pub(super) fn keep(&mut self, session: SessionKey) {
        let shell = self.terminals.save_shell(session);
        if let (Some(entry), Some(shell)) = (self.entries.get_mut(&session), shell) {
            entry.kept = table::Kept::session(session, entry.id.as_str(), &shell);
        }
        self.held(session);
    }

    /// What a panic would hand over of a session.
    pub(super) fn kept(&self, session: SessionKey) -> Option<&table::Kept> {
        self.entries.get(&session)?.kept.as_ref()
    }

    /// Goes on with the sessions of the program before this one.
    pub(super) fn take_over(&mut self, next: SessionKey, saved: Vec<Saved>) {
        self.next_key = next;
        for Saved { key, id, input_bytes, terminal } in saved {
            let Some(id) = SessionId::new(&id) else { continue };
            self.entries.insert(key, Entry { id, shell: None, failure: None, early: None, input_bytes, kept: None });
            if let Some(terminal) = terminal {
                self.terminals.take_over(key, terminal);
                self.keep(key);
            }
        }
    }

    pub(super) fn forget(&mut self, session: SessionKey) {
        self.entries.remove(&session);
    }

    /// The console's id of a session.
    pub(super) fn id(&self, session: SessionKey) -> Option<&SessionId> {
        self.entries.get(&session).map(|entry| &entry.id)
    }

    /// Keeps what was typed until the driver says into which session.
    pub(super) fn typed(&mut self, data: Vec<u8>) {
        self.typed.push_back(data);
    }

    /// Types the oldest input that waits into a session; `None` discards it.
    pub(super) fn take_input(&mut self, session: Option<SessionKey>) -> Result<(), (SessionKey, InputRefused)> {
        let Some((session, data)) = session.zip(self.typed.pop_front()) else { return Ok(()) };
        let Some(entry) = self.entries.get_mut(&session) else { return Ok(()) };
        entry.input_bytes += data.len() as u64;
        let taken = match &mut entry.early {
            Some(early) if early.len() + data.len() > INPUT_BYTES_MAX => Err(InputRefused::Full),
            Some(early) => {
                early.extend_from_slice(&data);
                Ok(())
            }
            None => self.terminals.input(session, &data),
        };
        taken.map_err(|refused| (session, refused))
    }

    pub(super) fn open(&mut self, session: SessionKey, cols: u16, rows: u16) {
        let Some(entry) = self.entries.get_mut(&session) else { return };
        let shell = entry.shell.as_deref();
        self.terminals.open(session, Open { shell, cols, rows });
        let early = entry.early.take().unwrap_or_default();
        // It is within the bound that the terminal has.
        let _ = self.terminals.input(session, &early);
    }

    /// The terminal could not be opened, for this reason.
    pub(super) fn failed(&mut self, session: SessionKey, failure: String) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.failure = Some(failure);
        }
    }

    /// The audit line about the begin of a session.
    pub(super) fn opened_entry(&self, session: SessionKey) -> Option<AuditLine<'_>> {
        let entry = self.entries.get(&session)?;
        let shell = entry.shell.as_deref().unwrap_or(&self.default_shell);
        Some(AuditLine::TerminalOpened { session_id: entry.id.as_str(), shell })
    }

    /// The audit line about its end.
    pub(super) fn closed_entry(&self, session: SessionKey, exit_code: i32, output_bytes: u64) -> Option<AuditLine<'_>> {
        let Entry { id, input_bytes, .. } = self.entries.get(&session)?;
        let (session_id, input_bytes) = (id.as_str(), *input_bytes);
        Some(AuditLine::TerminalClosed { session_id, exit_code, output_bytes, input_bytes })
    }

    /// The `terminal:closed` of a session that was opened.
    pub(super) fn closed(
        &mut self,
        session: SessionKey,
        end: SessionEnd,
        exit_code: i32,
        id: MessageId,
    ) -> Option<String> {
        let entry = self.entries.get_mut(&session)?;
        entry.kept = None;
        self.terminals.end(session);
        let reason = match end {
            SessionEnd::Exited => ClosedReason::Exited,
            SessionEnd::Closed => ClosedReason::Closed,
            SessionEnd::Drained => ClosedReason::Drained,
            SessionEnd::Orphaned => ClosedReason::Orphaned,
            SessionEnd::SpawnFailed => ClosedReason::SpawnFailed,
            SessionEnd::Interrupted => ClosedReason::Interrupted,
        };
        tracing::info!(session = session.0, ?reason, exit_code, "terminal closed");
        let message = entry.failure.as_deref();
        Some(TerminalClosed { session_id: &entry.id, exit_code, reason, message, id }.message())
    }

    /// The `terminal:closed` in answer to a `terminal:create` that opened nothing.
    pub(super) fn unopened(
        &self,
        session: SessionKey,
        refusal: SessionRefusal,
        audit_problem: &str,
        id: MessageId,
    ) -> Option<String> {
        let entry = self.entries.get(&session)?;
        let (reason, exit_code, text) = match refusal {
            SessionRefusal::Draining => (ClosedReason::Drained, 0, None),
            SessionRefusal::Closed => (ClosedReason::Closed, 0, None),
            SessionRefusal::Policy => (ClosedReason::RefusedByPolicy, EXIT_REFUSED, Some(refusal_text(refusal))),
            SessionRefusal::Busy | SessionRefusal::Ending => (ClosedReason::Busy, 0, Some(refusal_text(refusal))),
            SessionRefusal::AuditUnavailable => {
                (ClosedReason::AuditUnavailable, EXIT_REFUSED, Some(audit_problem.into()))
            }
            SessionRefusal::Invalid => (ClosedReason::Invalid, 0, entry.failure.as_deref().map(Cow::from)),
        };
        let message = text.as_deref();
        Some(TerminalClosed { session_id: &entry.id, exit_code, reason, message, id }.message())
    }

    pub(super) fn refused_note(&self, session: SessionKey, refusal: SessionRefusal) -> ErrorNote {
        self.note(session, refusal_text(refusal).into_owned())
    }

    pub(super) fn failed_note(&self, session: SessionKey) -> ErrorNote {
        let failure = self.entries.get(&session).and_then(|entry| entry.failure.clone());
        self.note(session, failure.unwrap_or_default())
    }

    fn note(&self, session: SessionKey, text: String) -> ErrorNote {
        ErrorNote { source: "terminal", text, metadata: self.metadata(session) }
    }

    pub(super) fn metadata(&self, session: SessionKey) -> Metadata {
        self.id(session).into_iter().fold(Metadata::new(), |data, id| data.with("session_id", id.as_str()))
    }

    pub(super) fn held(&mut self, session: SessionKey) -> Range<u64> {
        let held = self.terminals.held(session);
        if let Some(kept) = self.kept(session) {
            kept.set_end(0, held.end);
        }
        held
    }

    pub(super) fn snapshot(&mut self, session: SessionKey, from: u64, size: Option<(u16, u16)>) -> MadeSnapshot {
        let Snapshot { at, bytes, exact } = self.terminals.snapshot(session, from, size);
        tracing::debug!(session = session.0, at, bytes, exact, "snapshot of a screen");
        MadeSnapshot { at, bytes, exact }
    }

    pub(super) fn cut(&mut self, session: SessionKey, cut: Chunk) -> (usize, Option<String>) {
        let Some(Entry { id: session_id, .. }) = self.entries.get(&session) else { return (0, None) };
        match cut {
            Chunk::Bytes { from, max } => {
                let chunk = self.terminals.chunk(session, from, max);
                let (data, offset) = (chunk.bytes, Some(chunk.from));
                let message =
                    (!data.is_empty()).then(|| TerminalOutput { session_id, data, offset, replay: false }.message());
                (data.len(), message)
            }
            Chunk::Snapshot { from, max } => {
                let data = self.terminals.snapshot_chunk(session, from, max);
                let output = TerminalOutput { session_id, data, offset: None, replay: true };
                (data.len(), (!data.is_empty()).then(|| output.message()))
            }
        }
    }
}

fn refusal_text(refusal: SessionRefusal) -> Cow<'static, str> {
    match refusal {
        SessionRefusal::Draining => "the agent is stopping".into(),
        SessionRefusal::Policy => "this instance opens no terminals (SINDRI_AGENT_TERMINAL=off)".into(),
        SessionRefusal::Busy => {
            format!("{SESSIONS_MAX} sessions are open, or too much waits for the console: try later").into()
        }
        SessionRefusal::Ending => "the session that had this id has not ended yet: try again".into(),
        SessionRefusal::Closed => "the console closed it before it was open".into(),
        SessionRefusal::AuditUnavailable => "the audit log cannot be written".into(),
        SessionRefusal::Invalid => "the request is not valid".into(),
    }
}
