//! Takes in reports: what each module tells becomes a fact, a message for a session or command, or a line in the log.
//!
//! It decides nothing about what follows. What is wrong with a message is said once, to whom it concerns, and costs
//! nothing but that message (wire.md, part B).

use super::Agent;
use crate::identity::Identity;
use crate::link::{RegistrationOutcome, Report as LinkReport};
use crate::protocol::{self, DecodeError, Ignored, Inbound, TerminalMessage};
use crate::report::Report;
use draupnir_fsm::fact::{Attempt, Fact};

/// How many versions are remembered as warned of on one link; a console has one.
const VERSIONS_WARNED_MAX: usize = 8;

impl Agent {
    pub(super) fn take_in(&mut self, report: Report) {
        match report {
            Report::Link(report) => self.link_reports(report),
            Report::Terminal(report) => self.terminal_reports(report),
            Report::Command(report) => self.command_reports(report),
            Report::Sample(report) => self.sample_reports(report),
            Report::Signal(super::signals::Report::Stop) => self.tell(Fact::ShutdownRequested),
        }
    }

    fn link_reports(&mut self, report: LinkReport) {
        match report {
            LinkReport::RegistrationAnswered { attempt, status, retry_after_ms, id, words, location } => {
                self.registration_answered(attempt, status, id, &words, location.as_deref());
                self.tell(Fact::RegistrationAnswered { attempt, status, retry_after_ms });
            }
            LinkReport::RegistrationFailed { attempt, error } => {
                self.trouble(format!("registration failed: {error}"));
                self.tell(Fact::RegistrationFailed { attempt, cause: error.failure() });
            }
            LinkReport::Opened { link } => {
                (self.trouble, self.words) = (None, None);
                self.tell(Fact::LinkOpened { link });
            }
            LinkReport::DialFailed { link, error, retry_after_ms } => {
                self.words = None;
                self.trouble(format!("the console was not reached: {error}"));
                self.tell(Fact::DialFailed { link, cause: error.failure(), retry_after_ms });
            }
            LinkReport::Text { link, text } => self.text(link, &text),
            LinkReport::Binary { link, bytes } => {
                self.greeted(link);
                tracing::debug!(link, bytes, "a binary message was ignored");
            }
            LinkReport::Pong { link, payload } => {
                let now = self.start.elapsed();
                self.engine.pong(now, link, &payload);
            }
            LinkReport::Written { link } => {
                if self.live_link() == Some(link) {
                    let now = self.start.elapsed();
                    self.engine.written(now, link);
                }
            }
            LinkReport::CloseReceived { link, code, reason } => {
                tracing::info!(link, code, reason, "the console closes the connection");
                self.tell(Fact::CloseReceived { link, code, reason: protocol::close::reason(code, &reason) });
            }
            LinkReport::Lost { link, loss, error } => {
                tracing::warn!(link, ?loss, error, "the connection broke");
                self.tell(Fact::LinkLost { link, cause: loss });
            }
            LinkReport::Closed { link } => self.tell(Fact::LinkClosed { link }),
        }
    }

    /// Notes what the console gave or said; what follows from the status is the machine's to say.
    fn registration_answered(
        &mut self,
        attempt: Attempt,
        status: u16,
        id: Option<String>,
        words: &str,
        location: Option<&str>,
    ) {
        // What the console said before concerns another answer.
        self.words = None;
        match RegistrationOutcome::of(status) {
            RegistrationOutcome::Registered => {
                let id = id.and_then(|id| protocol::InstanceId::new(&id).ok());
                let id = id.unwrap_or_else(|| self.config.instance_id.clone());
                self.remember(Identity { id: Some(id), path: self.registering_at });
                tracing::info!(attempt, status, instance_id = %self.instance_id(), "registered");
            }
            RegistrationOutcome::Redirected => {
                tracing::error!(attempt, status, location, "the console answers with a redirect");
            }
            // Which of the two paths a console serves is found out by trying.
            RegistrationOutcome::WrongPath => {
                self.words = Some(words.to_owned()).filter(|words| !words.is_empty());
                tracing::debug!(attempt, status, words, "the console does not register instances on this path");
            }
            RegistrationOutcome::KeyRefused
            | RegistrationOutcome::PayloadRefused
            | RegistrationOutcome::Rejected
            | RegistrationOutcome::Unavailable => {
                self.words = Some(words.to_owned()).filter(|words| !words.is_empty());
                let colon = if words.is_empty() { "" } else { ": " };
                self.trouble(format!("the console answers the registration with status {status}{colon}{words}"));
            }
        }
    }

    /// Says what keeps the agent from the console, once for each cause and not for each retry.
    pub(super) fn trouble(&mut self, trouble: String) {
        if self.trouble.as_ref() == Some(&trouble) {
            return tracing::debug!("again: {trouble}");
        }
        tracing::warn!("{trouble}");
        self.trouble = Some(trouble);
    }

    /// Tells the machine of the first message of a link: the console listens.
    fn greeted(&mut self, link: Attempt) {
        if !std::mem::replace(&mut self.seen.greeted, true) {
            self.tell(Fact::Greeted { link });
        }
    }

    fn text(&mut self, link: Attempt, text: &str) {
        if self.live_link() != Some(link) {
            return;
        }
        self.greeted(link);
        match protocol::decode(text) {
            Ok(decoded) => {
                if let Some(version) = decoded.version_mismatch {
                    self.warn_of_version(version);
                }
                self.message(decoded.message);
            }
            Err(error) => self.unreadable(&error, text.len()),
        }
    }

    fn message(&mut self, message: Inbound) {
        match message {
            Inbound::TerminalCreate { session_id, cols, rows, shell } => {
                self.create_session(session_id, cols, rows, shell.as_deref());
            }
            Inbound::TerminalInput { session_id, data } => self.session_input(&session_id, data),
            Inbound::TerminalResize { session_id, cols, rows } => self.resize_session(&session_id, cols, rows),
            Inbound::TerminalClose { session_id } => self.close_session(&session_id),
            Inbound::CommandDispatch(dispatch) => self.dispatch(*dispatch),
            Inbound::CommandCancel { command_id } => self.cancel_command(&command_id),
            // Who can be answered is told by the answer, everybody else by an event.
            Inbound::InvalidTerminal { message, session_id, faults } => match (message, session_id) {
                (TerminalMessage::Create, Some(session_id)) => self.refuse_session(&session_id, &faults),
                (_, session_id) => self.invalid_message(&faults, session_id.as_ref().map(|id| id.as_str())),
            },
            Inbound::InvalidDispatch { command_id, faults } => match command_id {
                Some(command_id) => self.refuse_dispatch(command_id, &faults),
                None => self.invalid_message(&faults, None),
            },
            Inbound::InvalidCancel { faults } => self.invalid_message(&faults, None),
            Inbound::Ignored(ignored) => log_ignored(&ignored),
        }
    }

    fn unreadable(&mut self, error: &DecodeError, bytes: usize) {
        let metadata = protocol::Metadata::new().with("bytes", bytes).with("error", error.to_string());
        self.error_event("protocol", "a message from the console cannot be read", metadata);
    }

    fn invalid_message(&mut self, faults: &protocol::Faults, session_id: Option<&str>) {
        let metadata = protocol::Metadata::new().with("error", faults.to_string());
        let metadata = session_id.into_iter().fold(metadata, |metadata, id| metadata.with("session_id", id));
        self.error_event("protocol", "a message from the console cannot be followed", metadata);
    }

    fn warn_of_version(&mut self, version: String) {
        let warned = &mut self.seen.versions_warned;
        if warned.len() < VERSIONS_WARNED_MAX && !warned.contains(&version) {
            tracing::warn!(version, ours = protocol::VERSION, "the console speaks another version of the protocol");
            warned.push(version);
        }
    }
}

fn log_ignored(ignored: &Ignored) {
    match ignored {
        Ignored::Native => tracing::debug!("a frame in the console's native form was ignored"),
        Ignored::LogSubscription => tracing::debug!("there are no logs to subscribe to"),
        Ignored::NonsenseSize => tracing::debug!("a terminal size that is none was ignored"),
        Ignored::Unknown(kind) => tracing::debug!(kind, "a message of an unknown type was ignored"),
    }
}
