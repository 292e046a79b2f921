//! Performs orders: each of them at once, without waiting.
//!
//! It decides nothing. What becomes of an order is reported later, or told to the machine right here where it is known
//! at once.

use super::{Agent, LinkNotes};
use crate::config::host_name;
use crate::identity::Identity;
use crate::protocol::{Registration, Timestamp};
use draupnir_fsm::delivery::{After, Kind, Reliable};
use draupnir_fsm::order::{Event, Order, Problem, ProviderName, RegisterPath};

impl Agent {
    pub(super) fn perform(&mut self, order: Order) {
        match order {
            Order::Register { attempt, path, provider } => self.register(attempt, path, provider),
            Order::AbandonRegistration { attempt: _ } => {
                if !self.engine.machine().is_draining() {
                    self.trouble(format!(
                        "the console did not answer the registration in time{}",
                        self.link.by_way_of()
                    ));
                }
                self.link.abandon_registration();
            }
            Order::Dial { link } => {
                tracing::debug!(link, instance_id = %self.instance_id(), "dialling");
                let instance_id = self.instance_id().clone();
                self.seen = LinkNotes::default();
                self.link.dial(link, instance_id.as_str());
            }
            Order::AbandonDial { link: _ } => {
                if !self.engine.machine().is_draining() {
                    self.trouble(format!("the console was not reached in time{}", self.link.by_way_of()));
                }
                self.link.abandon_dial();
            }
            Order::CloseLink { link, code, reason } => self.link.close(link, code, reason.as_str()),
            Order::DropLink { link } => self.link.drop_now(link),
            Order::OpenGate { link, gate } => tracing::debug!(link, ?gate, "gate open"),
            // The engine has handed it to the ledger.
            Order::SendPing { .. } => {}
            Order::SendRegistration { link: _ } => self.send_registration(),
            Order::SendHeartbeat { link: _ } => self.sampling.want_heartbeat(),
            Order::SendMetrics { link: _ } => self.sampling.want_metrics(),
            Order::Emit { event } => self.emit(event),
            Order::Report { problem } => self.report_problem(problem),
            Order::ForgetIdentity => self.remember(Identity { id: None, path: self.identity.path }),
            Order::ReadHostName => self.hostname = host_name(),
            Order::HangUpSession { session } => self.sessions.hang_up(session),
            Order::KillSession { session } => self.sessions.kill(session),
            Order::FinishSession { session, reason, exit_code } => self.finish_session(session, reason, exit_code),
            Order::StartCommand { command } => self.start_command(command),
            Order::RefuseCommand { command, refusal } => self.refuse_command(command, refusal),
            Order::RepeatResult { command, of } => self.repeat_result(command, of),
            Order::ForgetResult { command } => self.commands.forget_result(command),
            Order::TerminateCommand { command } => self.commands.terminate(command),
            Order::KillCommand { command } => self.commands.kill(command),
            Order::FinishCommand { command, end, exit_code } => self.finish_command(command, end, exit_code),
            Order::Exit => tracing::debug!("nothing is left to do"),
        }
    }

    fn register(&mut self, attempt: u32, path: RegisterPath, provider: ProviderName) {
        self.registering_at = Some(path);
        tracing::debug!(attempt, ?path, ?provider, "registering");
        let body = self.registration(false).http_body(path, provider);
        self.link.register(attempt, path, body);
    }

    /// Keeps what is known of this instance, on disk too if that can be.
    pub(super) fn remember(&mut self, identity: Identity) {
        self.identity = identity;
        if let Err(error) = self.memory.remember(&self.identity) {
            tracing::warn!(%error, "nothing is remembered across restarts");
        }
    }

    /// What the instance says about itself: by the configured id to register, by the console's on the link.
    pub(super) fn registration(&self, on_link: bool) -> Registration<'_> {
        Registration {
            instance_id: if on_link { self.instance_id() } else { &self.config.instance_id },
            hostname: &self.hostname,
            name: self.is_named.then_some(&self.config.instance_id),
            provider: self.config.provider.as_deref(),
            region: self.config.region.as_deref(),
            tags: &self.config.tags,
            inventory: &self.inventory,
            timestamp: Timestamp::now(),
        }
    }

    fn emit(&mut self, event: Event) {
        match event {
            Event::Deploy => {}
            Event::Connect { attempts, offline_ms } => {
                tracing::info!(instance_id = %self.instance_id(), attempts, offline_ms, "connected");
            }
            Event::Disconnect { cause, code } => {
                tracing::info!(?cause, code, "disconnected");
                self.sessions.detached(self.start.elapsed());
            }
            Event::Error { problem } => tracing::debug!(?problem, "telling the console"),
        }
        let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
        let message = self.events.told(event, instance_id);
        self.push_event(message);
    }

    fn report_problem(&mut self, problem: Problem) {
        let text = super::events::problem_text(problem, self.instance_id().as_str());
        // Nothing where the console said nothing.
        tracing::error!(words = self.words.take(), "{text}");
    }

    /// Gives an event to the ledger.
    pub(super) fn push_event(&mut self, message: String) {
        let reliable =
            Reliable { kind: Kind::Event, size_bytes: message.len(), after: After::NOTHING, promised: false };
        if self.engine.delivery.push(reliable, message).is_err() {
            tracing::debug!("an event found no room and was dropped");
        }
    }
}
