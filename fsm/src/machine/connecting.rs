//! What a dial leads to, and the wait before it: for the retry, and for the old socket to be gone.

use super::Context;
use super::chart::State;
use super::connection::{Connection, OldSocket};
use crate::fact::Failure;
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
            | Failure::Proxy
            | Failure::Tls
            | Failure::Protocol
            | Failure::Status
            | Failure::Local => self.retry_wait_ms(retry_after_ms, context),
        };
        Transition(State::Waiting { wait_ms })
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
