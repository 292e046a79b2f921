//! What a dial leads to, and the wait before it: for the retry, for the old socket to be gone, and, while the console
//! refuses the connection, for its port to open.
//!
//! The retry stays armed beside the probes of the port: its dial looks the console's addresses up again.

use super::Context;
use super::chart::State;
use super::connection::{Connection, OldSocket};
use crate::fact::{Failure, PortState};
use crate::order::{Order, Problem};
use crate::timer::Timer;
use statig::prelude::{Handled, Outcome, Transition};

impl Connection {
    pub(super) fn wait_to_dial(&mut self, wait_ms: u64, context: &mut Context<'_>) {
        self.retry_at = context.now.after_ms(wait_ms);
        self.arm_retry(context);
    }

    pub(super) fn dial(&mut self, context: &mut Context<'_>) {
        self.link.id = self.link.id.next();
        self.link.dials = self.link.dials.saturating_add(1);
        context.order(Order::Dial { link: self.link.id });
        context.arm_in(Timer::DialDeadline, context.policy.dial_ms);
    }

    /// Arms the retry for when it is wanted and the old socket permits it. While that is not gone, its own deadline is
    /// what the state waits for.
    pub(super) fn arm_retry(&mut self, context: &mut Context<'_>) {
        let gap_over = match self.old_socket {
            OldSocket::Closing(_) | OldSocket::Dropped(_) => {
                context.timers.disarm(Timer::Retry);
                return;
            }
            OldSocket::Gone(at) => at.after_ms(context.policy.redial_gap_ms),
            OldSocket::None => context.now,
        };
        context.timers.arm(Timer::Retry, self.retry_at.max(gap_over));
    }

    pub(super) fn retry_is_due(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        if self.old_socket.is_left() {
            self.arm_retry(context);
            return Handled;
        }
        Transition(State::Dialling)
    }

    pub(super) fn dial_failed(
        &mut self,
        cause: Failure,
        retry_after_ms: Option<u64>,
        context: &mut Context<'_>,
    ) -> Outcome<State> {
        let wait_ms = match cause {
            Failure::Unauthorized => {
                context.order(Order::Report { problem: Problem::KeyRefused });
                self.backoff.after_refusal_ms(context.policy, context.random)
            }
            Failure::Resolve
            | Failure::Connect
            | Failure::Refused
            | Failure::Proxy
            | Failure::Tls
            | Failure::Protocol
            | Failure::Status
            | Failure::Local => self.retry_wait_ms(retry_after_ms, context),
        };
        if cause == Failure::Refused && self.backoff.has_port_probes(context.policy) {
            Transition(State::Probing { wait_ms })
        } else {
            Transition(State::Waiting { wait_ms })
        }
    }

    pub(super) fn wait_and_probe(&mut self, wait_ms: u64, context: &mut Context<'_>) {
        self.wait_to_dial(wait_ms, context);
        self.arm_port_probe(context);
    }

    fn arm_port_probe(&mut self, context: &mut Context<'_>) {
        let (low_ms, high_ms) = context.policy.port_probe_every_ms;
        let wait_ms = context.random.between(low_ms, high_ms);
        context.arm_in(Timer::PortProbe, wait_ms);
    }

    pub(super) fn probe_port(&mut self, context: &mut Context<'_>) {
        self.port_probe = self.port_probe.next();
        self.backoff.count_port_probe();
        context.order(Order::ProbePort { probe: self.port_probe });
        context.arm_in(Timer::PortProbeDeadline, context.policy.port_probe_ms);
    }

    pub(super) fn port_probed(&mut self, found: PortState, context: &mut Context<'_>) -> Outcome<State> {
        context.timers.disarm(Timer::PortProbeDeadline);
        match found {
            PortState::Refused if self.backoff.has_port_probes(context.policy) => {
                self.arm_port_probe(context);
                Handled
            }
            PortState::Open => {
                // A dial that fails now has another cause than a console that is not there yet.
                self.backoff.end_port_probes(context.policy);
                let wait_ms = context.random.between(0, context.policy.port_open_ms);
                Transition(State::Waiting { wait_ms })
            }
            PortState::Refused | PortState::Unreachable => {
                Transition(State::Waiting { wait_ms: left_of_retry_ms(context) })
            }
        }
    }

    pub(super) fn port_probe_overdue(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::AbandonPortProbe { probe: self.port_probe });
        Transition(State::Waiting { wait_ms: left_of_retry_ms(context) })
    }

    /// Gives up the probe that is in flight, if one is: then its deadline is armed.
    pub(super) fn abandon_port_probe(&mut self, context: &mut Context<'_>) {
        if context.timers.deadline(Timer::PortProbeDeadline).is_some() {
            context.order(Order::AbandonPortProbe { probe: self.port_probe });
        }
    }

    pub(super) fn dial_overdue(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::AbandonDial { link: self.link.id });
        let wait_ms = self.backoff.after_failure_ms(context.policy, context.random);
        Transition(State::Waiting { wait_ms })
    }

    /// The socket of the link that ended is gone.
    pub(super) fn socket_gone(&mut self, context: &mut Context<'_>) {
        if self.resync.closing && matches!(self.old_socket, OldSocket::Closing(_)) {
            self.resync.unanswered = 0;
        }
        self.old_socket = OldSocket::Gone(context.now);
        context.timers.disarm(Timer::CloseDeadline);
    }

    /// The close handshake took too long: the socket is dropped. If even that is not answered, it counts as gone, so
    /// that no lost report can keep the agent from dialling.
    pub(super) fn close_overdue(&mut self, context: &mut Context<'_>) {
        match self.old_socket {
            OldSocket::Closing(link) => {
                self.old_socket = OldSocket::Dropped(link);
                context.order(Order::DropLink { link });
                self.resync_failed(context);
                context.arm_in(Timer::CloseDeadline, context.policy.close_ms);
            }
            OldSocket::Dropped(_) | OldSocket::Gone(_) | OldSocket::None => self.socket_gone(context),
        }
    }

    /// A resync was not heard: what it should have cured is as it was, and the reset may not be heard either.
    fn resync_failed(&mut self, context: &Context<'_>) {
        if self.resync.closing {
            self.resync.unanswered = self.resync.unanswered.saturating_add(1);
            if self.resync.unanswered < context.policy.resync_tries_max {
                self.unclean(context);
            } else {
                self.resync.unanswered = 0;
            }
        }
    }

    /// Takes in a jump of the clock: clones of one snapshot go different ways, and may have other names.
    pub(super) fn handle_clock_jump(&mut self, entropy: u64, context: &mut Context<'_>) {
        context.random.stir(entropy);
        context.order(Order::ReadHostName);
        // Clones hold the same deadline; a retry must not come sooner than it was promised.
        if let Some(at) = context.timers.deadline(Timer::Retry) {
            let apart_ms = context.random.between(0, context.policy.first_retry_ms);
            self.retry_at = at.max(context.now).after_ms(apart_ms);
            context.timers.arm(Timer::Retry, self.retry_at);
        }
    }
}

/// How long it is until the retry is due.
fn left_of_retry_ms(context: &Context<'_>) -> u64 {
    context.timers.deadline(Timer::Retry).map_or(0, |at| at.ms_since(context.now))
}
