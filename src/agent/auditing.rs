//! Audit lines under way: a terminal or command begins once its line is reported written.

use super::Agent;
use crate::audit::{Accepted, Audit, Entry, EntryId, Report};
use crate::protocol::{Inbound, Metadata, SessionId};
use draupnir_fsm::fact::Key;
use std::collections::BTreeMap;

/// How many messages wait for one session that waits for its line. A console sends few before the first output.
const HELD_MESSAGES_MAX: usize = 64;

/// What a line is about.
#[derive(Debug)]
pub(super) enum Subject {
    /// This command is to be started.
    Command(Key),
    /// This terminal is to be opened.
    Session(Box<Request>),
    /// Something has ended.
    End,
}

/// A terminal that the console wants.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: SessionId,
    pub(super) cols: u16,
    pub(super) rows: u16,
    pub(super) shell: Option<String>,
    /// What the console sent for it meanwhile.
    pub(super) held: Vec<Inbound>,
}

/// The audit, and the lines whose report is awaited.
#[derive(Debug)]
pub(super) struct Auditing {
    audit: Audit,
    next_id: u64,
    waiting: BTreeMap<EntryId, Subject>,
}

impl Auditing {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, next_id: 0, waiting: BTreeMap::new() }
    }

    /// Enqueues a line. Gives the subject back where it is decided at once.
    pub(super) fn write(&mut self, entry: Entry<'_>, subject: Subject) -> Option<(Subject, Result<(), String>)> {
        let id = EntryId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        match self.audit.write(id, entry) {
            Ok(Accepted::Queued) => {
                self.waiting.insert(id, subject);
                None
            }
            Ok(Accepted::NotConfigured) => Some((subject, Ok(()))),
            Err(unavailable) => Some((subject, Err(unavailable.to_string()))),
        }
    }

    /// How many terminals wait for their line.
    pub(super) fn sessions(&self) -> usize {
        self.waiting.values().filter(|subject| matches!(subject, Subject::Session(_))).count()
    }

    /// Keeps a message for a terminal that waits for its line; gives any other back.
    pub(super) fn hold(&mut self, message: Inbound) -> Option<Inbound> {
        let id = match &message {
            Inbound::TerminalCreate { session_id, .. }
            | Inbound::TerminalInput { session_id, .. }
            | Inbound::TerminalResize { session_id, .. }
            | Inbound::TerminalClose { session_id } => session_id,
            Inbound::CommandDispatch(_)
            | Inbound::CommandCancel { .. }
            | Inbound::InvalidTerminal { .. }
            | Inbound::InvalidDispatch { .. }
            | Inbound::InvalidCancel { .. }
            | Inbound::Ignored(_) => return Some(message),
        };
        let waits = self.waiting.values_mut().find_map(|subject| match subject {
            Subject::Session(request) if request.id == *id => Some(request),
            Subject::Session(_) | Subject::Command(_) | Subject::End => None,
        });
        let Some(request) = waits else { return Some(message) };
        if request.held.len() < HELD_MESSAGES_MAX {
            request.held.push(message);
        }
        None
    }
}

impl Agent {
    pub(super) fn audit_reports(&mut self, report: Report) {
        let (id, written) = match report {
            Report::Written { id } => (id, Ok(())),
            Report::Failed { id, error } => (id, Err(error)),
        };
        if let Some(subject) = self.auditing.waiting.remove(&id) {
            self.audited(subject, written);
        }
    }

    /// Does what waited for a line, or refuses it.
    pub(super) fn audited(&mut self, subject: Subject, written: Result<(), String>) {
        if let Err(problem) = &written {
            self.error_event("audit", problem, Metadata::new());
        }
        match subject {
            Subject::Command(command) => self.command_audited(command, written),
            Subject::Session(mut request) => {
                let held = std::mem::take(&mut request.held);
                self.session_audited(*request, written);
                held.into_iter().for_each(|message| self.message(message));
            }
            Subject::End => {}
        }
    }
}
