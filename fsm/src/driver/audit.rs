//! What waits for an audit line: nothing is opened or started before its line is written.
//!
//! A line that is not written within [`AUDIT_TIMEOUT_MS`] counts as one that cannot be: a disk that hangs must not keep
//! the console waiting.

use super::Driver;
use super::output::{Action, AuditEntry, AuditId, ErrorEvent};
use super::ports::Body;
use crate::id::{CommandKey, SessionKey};
use crate::time::Time;
use litemap::LiteMap;

/// How long a terminal or command waits for its audit line.
pub const AUDIT_TIMEOUT_MS: u64 = 5_000;

/// How many wait at once. More are refused: the disk does not keep up, and each holds memory.
pub const AUDITS_WAITING_MAX: usize = 32;

/// What waits for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Session(SessionKey),
    Command(CommandKey),
}

/// The lines that are asked for and not reported yet, but for those about what has ended.
#[derive(Clone, Debug, Hash)]
pub(super) struct Audits {
    enabled: bool,
    next: u32,
    /// By number, so that the oldest comes first.
    waiting: LiteMap<AuditId, (Subject, Time)>,
}

impl Audits {
    pub(super) const fn new(enabled: bool) -> Self {
        Self { enabled, next: 0, waiting: LiteMap::new() }
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= AUDITS_WAITING_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.waiting.values().map(|(_, deadline)| *deadline).min()
    }

    pub(super) fn shift_ms(&mut self, ms: u64) {
        for (_, (_, deadline)) in self.waiting.iter_mut() {
            *deadline = deadline.after_ms(ms);
        }
    }

    /// Takes one that has waited for too long.
    pub(super) fn take_overdue(&mut self, now: Time) -> Option<Subject> {
        let (audit, _) = self.waiting.iter().find(|(_, (_, deadline))| *deadline <= now)?;
        let audit = *audit;
        self.take(audit)
    }

    /// Nothing waits for the line about this command any more.
    pub(super) fn forget(&mut self, gone: Subject) {
        self.waiting.retain(|_, (subject, _)| *subject != gone);
    }

    fn take(&mut self, audit: AuditId) -> Option<Subject> {
        self.waiting.remove(&audit).map(|(subject, _)| subject)
    }

    fn number(&mut self) -> AuditId {
        self.next = self.next.wrapping_add(1);
        AuditId(self.next)
    }
}

impl<B: Body> Driver<B> {
    /// Asks for the line that `subject` waits for.
    pub(super) fn await_audit(&mut self, now: Time, subject: Subject) {
        let audit = self.audits.number();
        let entry = match subject {
            Subject::Session(session) => AuditEntry::TerminalOpened { session },
            Subject::Command(command) => AuditEntry::CommandStarted { command },
        };
        self.audits.waiting.insert(audit, (subject, now.after_ms(AUDIT_TIMEOUT_MS)));
        self.out(Action::Audit { audit, entry });
    }

    /// Asks for a line that nothing waits for.
    pub(super) fn audit(&mut self, entry: AuditEntry) {
        if self.audits.is_enabled() {
            let audit = self.audits.number();
            self.out(Action::Audit { audit, entry });
        }
    }

    pub(super) fn audited(&mut self, now: Time, audit: AuditId) {
        match self.audits.take(audit) {
            Some(Subject::Session(session)) => self.session_audited(now, session),
            Some(Subject::Command(command)) => self.command_audited(command),
            // About what has ended, or too late.
            None => {}
        }
    }

    pub(super) fn audit_failed(&mut self, now: Time, audit: AuditId) {
        match self.audits.take(audit) {
            Some(subject) => self.unaudited(now, subject),
            None => self.report(now, ErrorEvent::AuditUnavailable),
        }
    }

    /// Refuses what waited for a line that is not written.
    pub(super) fn unaudited(&mut self, now: Time, subject: Subject) {
        self.report(now, ErrorEvent::AuditUnavailable);
        match subject {
            Subject::Session(session) => self.session_unaudited(now, session),
            Subject::Command(command) => self.command_unaudited(now, command),
        }
    }
}
