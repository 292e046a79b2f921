//! Turns reports of the modules into inputs of the driver.
//!
//! What is wrong with a message is reported to whom it concerns, and costs nothing but that message.

use super::Agent;
use super::host::Note;
use super::signals::SignalReport;
use crate::audit::{AuditReport, EntryId};
use crate::command::CommandReport;
use crate::identity::Identity;
use crate::link::LinkReport;
use crate::llm::{Counted, LlmReport};
use crate::protocol::{self, DecodeError, Ignored, Inbound, InstanceId, Metadata, TerminalMessage, UsageRecord};
use crate::report::Report;
use crate::terminal::TerminalReport;
use draupnir_fsm::driver::{
    AuditId, CommandInput, CommandKey, ConsoleId, ConsoleMessage, HandOverInput, Input, RegistrationAttempt,
    RegistrationOutcome, SessionInput, SessionKey, StreamKey,
};
use std::hash::BuildHasher as _;
use std::time::UNIX_EPOCH;

/// How many versions are remembered as warned of on one link; a console has one.
const VERSIONS_WARNED_MAX: usize = 8;

impl Agent {
    pub(super) fn take_in(&mut self, report: Report) {
        match report {
            Report::Link(report) => self.link_report(report),
            Report::Terminal(report) => self.terminal_report(report),
            Report::Command(report) => self.command_report(report),
            Report::Audit(report) => self.audit_report(report),
            Report::Journal(report) => self.handle(super::journal::input(report)),
            Report::Sample(report) => self.sample_report(report),
            Report::Signal(SignalReport::Stop) => self.handle(Input::ShutdownRequested),
            Report::Signal(SignalReport::HandOver) => {
                self.handle(Input::HandOver { what: HandOverInput::Requested });
            }
            Report::HandOver(what) => self.handle(Input::HandOver { what }),
            Report::Llm(report) => self.llm_report(report),
            Report::Status(report) => self.status_report(&report),
            Report::Logs(report) => {
                if let Some(input) = self.host.logs.report(report) {
                    self.handle(input);
                }
            }
        }
    }

    fn llm_report(&mut self, report: LlmReport) {
        match report {
            LlmReport::Counted(Counted { provider, model, operation, usage, at }) => {
                let Some(llm) = &self.host.config.llm else { return };
                let within_ms = llm.report_ms;
                let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
                let record = UsageRecord {
                    provider,
                    model,
                    operation,
                    input_tokens: usage.input_tokens,
                    output_tokens: usage.output_tokens,
                    cache_read_tokens: usage.cache_read_tokens,
                    cache_write_tokens: usage.cache_write_tokens,
                    trace_id: self.host.events.next_id(),
                    ts: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX).into(),
                };
                self.host.usage.push_back(record);
                self.handle(Input::UsageCounted { within_ms });
            }
            LlmReport::PortTaken(text) => {
                let note = self.host.keep(Note::PortTaken(text));
                self.handle(Input::PortTaken { note });
            }
        }
    }

    fn link_report(&mut self, report: LinkReport) {
        let input = match report {
            LinkReport::RegistrationAnswered { attempt, status, retry_after_ms, id, console_text, location } => {
                self.registration_answered(attempt, status, id, &console_text, location.as_deref());
                Input::RegistrationAnswered { attempt, status, retry_after_ms }
            }
            LinkReport::RegistrationFailed { attempt, error } => {
                self.host.connect_error(format!("registration failed: {error}"));
                Input::RegistrationFailed { attempt, cause: error.failure() }
            }
            LinkReport::Opened { link } => {
                (self.host.last_connect_error, self.host.console_text) = (None, None);
                Input::LinkOpened { link }
            }
            LinkReport::DialFailed { link, error, retry_after_ms } => {
                self.host.console_text = None;
                self.host.connect_error(format!("the console was not reached: {error}"));
                Input::DialFailed { link, cause: error.failure(), retry_after_ms }
            }
            LinkReport::PortProbed { probe, found } => {
                tracing::debug!(probe = probe.0, ?found, "probed the port of the console");
                Input::PortProbed { probe, found }
            }
            LinkReport::Text { link, text } => Input::Received { link, message: self.message(&text) },
            LinkReport::Binary { link, bytes } => {
                tracing::debug!(link = link.0, bytes, "ignored a binary message");
                Input::Received { link, message: ConsoleMessage::Other }
            }
            LinkReport::Pong { link, payload } => match payload.as_slice().try_into() {
                Ok(payload) => Input::Pong { link, payload },
                // Of another length it answers no Ping of ours.
                Err(_) => return,
            },
            LinkReport::Written { link } => Input::Written { link },
            LinkReport::CloseReceived { link, code, reason } => {
                tracing::info!(link = link.0, code, reason, "the console closes the connection");
                Input::CloseReceived { link, code, reason: protocol::close::reason(code, &reason) }
            }
            LinkReport::Lost { link, loss, error } => {
                tracing::warn!(link = link.0, ?loss, error, "connection lost");
                self.host.note_error(&format!("connection lost: {error}"));
                Input::LinkLost { link, cause: loss }
            }
            LinkReport::Closed { link } => Input::LinkClosed { link },
        };
        self.handle(input);
    }

    /// Notes what the console gave or said; what follows from the status is the driver's to say.
    fn registration_answered(
        &mut self,
        attempt: RegistrationAttempt,
        status: u16,
        id: Option<String>,
        console_text: &str,
        location: Option<&str>,
    ) {
        let host = &mut self.host;
        // What the console said before concerns another answer.
        host.console_text = None;
        match RegistrationOutcome::of(status) {
            RegistrationOutcome::Registered => {
                let id = id.and_then(|id| InstanceId::new(&id).ok());
                let id = id.unwrap_or_else(|| host.config.instance_id.clone());
                host.remember(Identity { id: Some(id), path: host.registering_at });
                tracing::info!(attempt = attempt.0, status, instance_id = %host.instance_id(), "registered");
            }
            RegistrationOutcome::Redirected => {
                tracing::error!(attempt = attempt.0, status, location, "the console answers with a redirect");
            }
            // Which of the two paths a console serves is found out by trying.
            RegistrationOutcome::WrongPath => {
                host.console_text = Some(console_text.to_owned()).filter(|console_text| !console_text.is_empty());
                let attempt = attempt.0;
                tracing::debug!(attempt, status, console_text, "the console does not register instances on this path");
            }
            RegistrationOutcome::KeyRefused
            | RegistrationOutcome::PayloadRefused
            | RegistrationOutcome::Rejected
            | RegistrationOutcome::Unavailable => {
                host.console_text = Some(console_text.to_owned()).filter(|console_text| !console_text.is_empty());
                let colon = if console_text.is_empty() { "" } else { ": " };
                host.connect_error(format!(
                    "the console answers the registration with status {status}{colon}{console_text}"
                ));
            }
        }
    }

    fn message(&mut self, text: &str) -> ConsoleMessage {
        match protocol::decode(text) {
            Ok(decoded) => {
                if let Some(version) = decoded.version_mismatch {
                    self.warn_of_version(version);
                }
                self.decoded(decoded.message)
            }
            Err(error) => self.unreadable(&error, text.len()),
        }
    }

    fn decoded(&mut self, message: Inbound) -> ConsoleMessage {
        match message {
            Inbound::TerminalCreate { session_id, cols, rows, shell } => {
                let id = self.console_id(session_id.as_str());
                let allowed = self.host.config.terminal == crate::config::TerminalPolicy::On;
                let session = self.host.sessions.add(session_id, shell, None);
                ConsoleMessage::Create { session, id, cols, rows, allowed }
            }
            Inbound::TerminalInput { session_id, data } => {
                self.host.sessions.typed(data);
                ConsoleMessage::Keys { id: self.console_id(session_id.as_str()) }
            }
            Inbound::TerminalResize { session_id, cols, rows } => {
                ConsoleMessage::Resize { id: self.console_id(session_id.as_str()), cols, rows }
            }
            Inbound::TerminalClose { session_id } => ConsoleMessage::Close { id: self.console_id(session_id.as_str()) },
            Inbound::CommandDispatch(dispatch) => {
                let id = self.console_id(dispatch.command_id.as_str());
                let (timeout_ms, streams) = (dispatch.timeout_ms, dispatch.stream);
                let (command, bytes, allowed) = self.host.commands.add(*dispatch);
                ConsoleMessage::Dispatch { command, id, timeout_ms, bytes, streams, allowed }
            }
            Inbound::CommandCancel { command_id } => {
                ConsoleMessage::Cancel { id: self.console_id(command_id.as_str()) }
            }
            // A request is answered; everything else becomes an event.
            Inbound::InvalidTerminal { message: TerminalMessage::Create, session_id: Some(session_id), faults } => {
                let id = self.console_id(session_id.as_str());
                let session = self.host.sessions.add(session_id, None, Some(faults.to_string()));
                ConsoleMessage::InvalidCreate { session, id }
            }
            Inbound::InvalidDispatch { command_id: Some(command_id), faults } => {
                let command = self.host.commands.add_invalid(command_id, faults.to_string());
                ConsoleMessage::InvalidDispatch { command }
            }
            Inbound::InvalidTerminal { message: _, session_id, faults } => {
                self.invalid(&faults, session_id.as_ref().map(|id| id.as_str()))
            }
            Inbound::InvalidDispatch { command_id: None, faults } | Inbound::InvalidCancel { faults } => {
                self.invalid(&faults, None)
            }
            Inbound::LogSubscribe { .. } | Inbound::LogUnsubscribe { .. } if self.host.logs.is_off() => {
                tracing::debug!("ignored a request for logs: there are none");
                ConsoleMessage::Other
            }
            Inbound::LogSubscribe { paths } => {
                ConsoleMessage::LogSubscribe { request: self.host.logs.add_request(paths) }
            }
            Inbound::LogUnsubscribe { paths } => {
                ConsoleMessage::LogUnsubscribe { request: self.host.logs.add_request(paths) }
            }
            Inbound::Ignored(ignored) => {
                log_ignored(&ignored);
                ConsoleMessage::Other
            }
        }
    }

    fn unreadable(&mut self, error: &DecodeError, bytes: usize) -> ConsoleMessage {
        let metadata = Metadata::new().with("bytes", bytes as u64).with("error", error.to_string());
        self.unusable("a message from the console cannot be read", metadata)
    }

    fn invalid(&mut self, faults: &protocol::Faults, session_id: Option<&str>) -> ConsoleMessage {
        let metadata = Metadata::new().with("error", faults.to_string());
        let metadata = session_id.into_iter().fold(metadata, |metadata, id| metadata.with("session_id", id));
        self.unusable("a message from the console cannot be followed", metadata)
    }

    fn unusable(&mut self, text: &'static str, metadata: Metadata) -> ConsoleMessage {
        let note = self.host.error_note("protocol", text.to_owned(), metadata);
        ConsoleMessage::Unusable { note, cause: self.hasher.hash_one(text) }
    }

    /// The keyed hash of an id that the console gave.
    fn console_id(&self, id: &str) -> ConsoleId {
        self.host.kept.console_id(id)
    }

    fn warn_of_version(&mut self, version: String) {
        let warned = &mut self.host.versions_warned;
        if warned.len() < VERSIONS_WARNED_MAX && !warned.contains(&version) {
            tracing::warn!(version, ours = protocol::VERSION, "the console speaks another version of the protocol");
            warned.push(version);
        }
    }

    fn terminal_report(&mut self, report: TerminalReport) {
        match report {
            TerminalReport::Opened { session } => {
                tracing::info!(session = session.0, "terminal opened");
                self.host.sessions.keep(session);
                self.session(session, SessionInput::Opened);
            }
            TerminalReport::OpenFailed { session, error } => {
                self.host.sessions.failed(session, error.to_string());
                self.session(session, SessionInput::OpenFailed { exit_code: error.exit_code() });
            }
            TerminalReport::Output { session } => self.note_output(StreamKey::Terminal(session)),
            TerminalReport::EndOfOutput { session } => {
                self.note_output(StreamKey::Terminal(session));
                self.session(session, SessionInput::EndOfOutput);
            }
            TerminalReport::Exited { session, code } => self.session(session, SessionInput::Exited { code }),
            TerminalReport::Reaped { session } => self.session(session, SessionInput::Reaped),
        }
    }

    fn command_report(&mut self, report: CommandReport) {
        match report {
            CommandReport::Started { command } => {
                tracing::info!(command = command.0, "command started");
                self.host.commands.keep(command);
                self.command(command, CommandInput::Started);
            }
            CommandReport::StartFailed { command, error } => {
                tracing::warn!(command = command.0, %error, "command could not be started");
                self.host.commands.failed(command, error.reason);
                self.command(command, CommandInput::StartFailed { exhausted: error.is_exhaustion });
            }
            CommandReport::Output { command } => self.note_command_output(command),
            CommandReport::EndOfOutput { command } => {
                self.note_command_output(command);
                self.command(command, CommandInput::EndOfOutput);
            }
            CommandReport::Exited { command, code } => self.command(command, CommandInput::Exited { code }),
        }
    }

    fn audit_report(&mut self, report: AuditReport) {
        let audit = |id: EntryId| AuditId(u32::try_from(id.0).unwrap_or(u32::MAX));
        self.host.is_audit_failing = matches!(report, AuditReport::Failed { .. });
        match report {
            AuditReport::Written { id } => self.handle(Input::Audited { audit: audit(id) }),
            AuditReport::Failed { id, error } => {
                self.host.audit_problem = error;
                self.handle(Input::AuditFailed { audit: audit(id) });
            }
        }
    }

    fn note_command_output(&mut self, command: CommandKey) {
        self.note_output(StreamKey::Stdout(command));
        self.note_output(StreamKey::Stderr(command));
    }

    /// Reports to the driver which offsets a source holds.
    fn note_output(&mut self, stream: StreamKey) {
        let held = draupnir_fsm::driver::ByteSource::held(&mut self.host, stream);
        self.handle(Input::Output { stream, from: held.start, end: held.end });
    }

    fn session(&mut self, session: SessionKey, what: SessionInput) {
        self.handle(Input::Session { session, what });
    }

    fn command(&mut self, command: CommandKey, what: CommandInput) {
        self.handle(Input::Command { command, what });
    }
}

fn log_ignored(ignored: &Ignored) {
    match ignored {
        Ignored::Native => tracing::debug!("ignored a frame in the console's native form"),
        Ignored::LogSubscription => tracing::debug!("ignored a request for logs that cannot be read"),
        Ignored::NonsenseSize => tracing::debug!("ignored invalid terminal size"),
        Ignored::Unknown(kind) => tracing::debug!(kind, "ignored a message of an unknown type"),
    }
}
