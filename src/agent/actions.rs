//! Does what the driver wants: each action at once, without waiting.
//!
//! What becomes of it is a report, and reports become inputs.

use super::host::{Host, Note, problem_text};
use crate::audit::{Accepted, AuditLine, EntryId};
use crate::config::host_name;
use crate::identity::Identity;
use crate::link::WsFrame;
use draupnir_fsm::driver::{
    Action, AuditEntry, AuditId, Frame, HandOverRefusal, Input, Notice, Output, Problem, ProviderName, RegisterPath,
    RegistrationAttempt, Remains, SessionInput, StateKind, StreamKey,
};

impl Host {
    /// Does one thing; what is known of it at once goes into `inputs`.
    pub(super) fn perform(&mut self, output: Output<super::host::Text>, inputs: &mut Vec<Input>) {
        let action = match output {
            Output::Write { link, frames } => {
                let frames = frames.into_iter().map(|frame| match frame {
                    Frame::Text(text) => WsFrame::Text(text.text),
                    Frame::Ping(payload) => WsFrame::Ping(payload.to_vec()),
                });
                return self.link.write(link, frames.collect());
            }
            Output::Append { append, record, body } => return self.append(append, record, body),
            Output::Do(action) => action,
        };
        match action {
            Action::Register { attempt, path, provider } => self.register(attempt, path, provider),
            Action::AbandonRegistration { attempt: _, late } => {
                if late {
                    let way = self.link.by_way_of();
                    self.connect_error(format!("the console did not answer the registration in time{way}"));
                }
                self.link.abandon_registration();
            }
            Action::Dial { link } => {
                tracing::debug!(link = link.0, instance_id = %self.instance_id(), "dialling");
                let instance_id = self.instance_id().clone();
                self.versions_warned.clear();
                self.inventory_sent = false;
                self.link.dial(link, instance_id.as_str());
            }
            Action::AbandonDial { link: _, late } => {
                if late {
                    let way = self.link.by_way_of();
                    self.connect_error(format!("the console was not reached in time{way}"));
                }
                self.link.abandon_dial();
            }
            Action::ProbePort { probe } => self.link.probe_port(probe),
            Action::AbandonPortProbe { probe: _ } => self.link.abandon_port_probe(),
            Action::CloseLink { link, code, reason } => self.link.close(link, code, reason.as_str()),
            Action::DropLink { link } => self.link.drop_now(link),
            Action::TakeSample { sample: StateKind::Metrics } => self.sampling.want_metrics(),
            // The registration needs no sample.
            Action::TakeSample { sample: StateKind::Heartbeat | StateKind::Registration } => {
                self.sampling.want_heartbeat();
            }
            Action::Report { problem } => {
                let text = problem_text(problem, self.instance_id());
                let hint = (problem == Problem::KeyRefused).then(|| self.config.api_key.likely_mistake()).flatten();
                tracing::error!(console_text = self.console_text.take(), hint, "{text}");
                self.note_error(&text);
            }
            Action::ForgetIdentity => self.remember(Identity { id: None, path: self.identity.path }),
            Action::ReadHostName => self.hostname = host_name(),
            Action::OpenSession { session, cols, rows } => self.sessions.open(session, cols, rows),
            Action::ResizeSession { session, cols, rows } => {
                self.sessions.terminals.resize(session, cols, rows);
                if let Some(kept) = self.sessions.kept(session) {
                    kept.set_size(cols, rows);
                }
            }
            Action::RedrawSession { session } => self.sessions.terminals.redraw(session),
            Action::KeepScreen { session } => self.sessions.terminals.keep_screen(session),
            Action::TakeInput { session } => {
                if let Err((session, refused)) = self.sessions.take_input(session) {
                    let metadata = self.sessions.metadata(session);
                    let note = self.error_note("terminal", refused.to_string(), metadata);
                    inputs.push(Input::Session { session, what: SessionInput::InputRefused { note } });
                }
            }
            Action::HangUpSession { session } => self.sessions.terminals.hang_up(session),
            Action::KillSession { session } => self.sessions.terminals.kill(session),
            Action::ShrinkScrollback { session, to_bytes } => self.sessions.terminals.shrink(session, to_bytes),
            Action::ForgetSession { session } => self.sessions.forget(session),
            Action::StartCommand { command } => {
                tracing::debug!(command = command.0, "starting command");
                self.commands.start(command);
            }
            Action::TerminateCommand { command } => self.commands.runner.terminate(command),
            Action::KillCommand { command } => self.commands.runner.kill(command),
            Action::ForgetCommand { command } => self.commands.forget(command),
            Action::ReadCredit { stream: StreamKey::Terminal(session), bytes, keep_from } => {
                self.sessions.terminals.grant(session, bytes.unwrap_or(usize::MAX), keep_from);
                if let (Some(kept), Some(at)) = (self.sessions.kept(session), keep_from) {
                    kept.set_acknowledged(0, at);
                }
            }
            // What is held bounds what is read.
            Action::ReadCredit { stream: StreamKey::Logs, bytes: _, keep_from } => {
                self.logs.acknowledged(keep_from.unwrap_or_default());
            }
            Action::FollowLogs { request } => self.logs.follow(request),
            Action::UnfollowLogs { request } => self.logs.unfollow(request),
            Action::ForgetLogRequest { request } => self.logs.forget(request),
            Action::AllowLogs { up_to_lines } => self.logs.allow(up_to_lines),
            Action::StopLogs { acked } => self.logs.stop(acked),
            Action::ReadCredit { stream, bytes, keep_from } => {
                if let (Some((kept, output)), Some(at)) = (self.commands.kept(stream), keep_from) {
                    kept.set_acknowledged(output, at);
                }
                self.commands.give_credit(stream, bytes.unwrap_or(usize::MAX));
            }
            Action::Release { stream: StreamKey::Terminal(session) } => self.sessions.terminals.finish(session),
            Action::Release { stream } => self.commands.release(stream),
            Action::Audit { audit, entry } => inputs.extend(self.write_audit(audit, entry)),
            Action::SyncJournal => {
                inputs.extend(self.kept.end_turn());
                self.kept.journal.sync();
            }
            Action::KillRemains { command } => {
                if let Some(process) = self.commands.take_remains(command) {
                    let killed = process.kill_session();
                    tracing::info!(
                        command = command.0,
                        session = process.pid,
                        killed,
                        "killed processes that an interrupted command left"
                    );
                }
            }
            Action::DropNote { note } => {
                if let Some(Note::Error(note)) = self.notes.remove(&note) {
                    tracing::debug!(source = note.source, metadata = %note.metadata, cause = note.text, "still failing");
                }
            }
            Action::Listen => {
                if let Some(listeners) = &mut self.listeners {
                    listeners.listen();
                }
            }
            Action::HandOver { step } => self.hand_over.wanted = Some(step),
            Action::Log { notice } => log(notice),
            Action::Exit => tracing::debug!("nothing is left to do"),
        }
    }

    fn register(&mut self, attempt: RegistrationAttempt, path: RegisterPath, provider: ProviderName) {
        self.registering_at = Some(path);
        tracing::debug!(attempt = attempt.0, ?path, ?provider, "registering");
        let body = self.registration(false).http_body(path, provider);
        self.link.register(attempt, path, body);
    }

    /// Keeps what is known of this instance, on disk too where that can be.
    pub(super) fn remember(&mut self, identity: Identity) {
        self.kept.rename(&self.config, identity.id.as_ref());
        self.identity = identity.clone();
        self.store.save(identity);
    }

    /// Logs what keeps the agent from the console, once for each cause and not for each retry.
    pub(super) fn connect_error(&mut self, error: String) {
        if self.last_connect_error.as_ref() == Some(&error) {
            return tracing::debug!(cause = error, "still failing");
        }
        tracing::warn!("{error}");
        self.note_error(&error);
        self.last_connect_error = Some(error);
    }

    /// Queues an audit line; what is known of it at once, else its report will say.
    fn write_audit(&mut self, audit: AuditId, entry: AuditEntry) -> Option<Input> {
        let line = match entry {
            AuditEntry::TerminalOpened { session } => self.sessions.opened_entry(session),
            AuditEntry::TerminalClosed { session, exit_code, output_bytes } => {
                self.sessions.closed_entry(session, exit_code, output_bytes)
            }
            AuditEntry::CommandStarted { command } => self.commands.started_entry(command),
            AuditEntry::CommandEnded { command } => self.commands.ended_entry(command),
            AuditEntry::LogsSubscribed { request } => {
                self.logs.paths(request).map(|paths| AuditLine::LogsSubscribed { paths })
            }
        };
        // What has no line any more needs none.
        let Some(line) = line else { return Some(Input::Audited { audit }) };
        match self.audit.write(EntryId(audit.0.into()), line) {
            Ok(Accepted::Queued) => None,
            Ok(Accepted::NotConfigured) => Some(Input::Audited { audit }),
            Err(problem) => {
                self.audit_problem = problem.to_string();
                Some(Input::AuditFailed { audit })
            }
        }
    }
}

fn log(notice: Notice) {
    match notice {
        Notice::GateOpened { link, gate } => tracing::debug!(link = link.0, ?gate, "gate open"),
        Notice::Reattached { session } => tracing::debug!(session = session.0, "terminal re-attached"),
        Notice::Closing { session } => tracing::info!(session = session.0, "the console closes a terminal"),
        Notice::DuplicateDispatch { of } => tracing::debug!(command = of.0, "dispatched again while it runs"),
        Notice::ResultRepeated { of } => tracing::debug!(command = of.0, "dispatched again: its result is sent again"),
        Notice::CommandInterrupted { command, remains: Remains::Doubtful } => {
            tracing::warn!(
                command = command.0,
                "command interrupted: the agent died while it ran; processes that may be its own are left alone"
            );
        }
        Notice::CommandInterrupted { command, remains: Remains::None | Remains::Certain } => {
            tracing::warn!(command = command.0, "command interrupted: the agent died while it ran");
        }
        Notice::SessionInterrupted { session } => {
            tracing::warn!(session = session.0, "terminal interrupted: the agent died while it was open");
        }
        Notice::ResultCut { number } => {
            let bytes = draupnir_fsm::driver::CUT_RESULT_BYTES;
            tracing::error!(number, bytes, "cut a result that the console cannot take");
        }
        Notice::PoisonDropped { number, message } => {
            tracing::error!(number, ?message, "dropped a message that the console cannot take");
        }
        Notice::MessageDropped { message } => tracing::debug!(?message, "dropped a message: delivery queue full"),
        Notice::HandOverRefused { why } => {
            tracing::warn!(why = hand_over_refusal(why), "hand-over refused; the agent goes on");
        }
        Notice::HandOverCutsTools => tracing::warn!("answers to AI tools are cut: they took too long"),
        Notice::FactsIgnored { unhandled, stale } => tracing::debug!(unhandled, stale, "facts ignored"),
    }
}

fn hand_over_refusal(why: HandOverRefusal) -> &'static str {
    match why {
        HandOverRefusal::Draining => "the agent is stopping",
        HandOverRefusal::Rejected => "the new program cannot take over",
        HandOverRefusal::NoAnswer => "the new program does not answer",
        HandOverRefusal::NotFlushed => "a file is not written",
        HandOverRefusal::NotSettled => "the start of a shell or command takes too long",
        HandOverRefusal::Failed => "the program was not replaced",
    }
}
