//! Life on a link: gates, keep-alive, heartbeats and metrics, resync, and all the ways in which it ends.

use super::chart::State;
use super::connection::{Connection, OldSocket, Replacements};
use super::{Context, Event};
use crate::fact::{CloseReason, Fact};
use crate::order::{CloseText, ConsoleEvent, Disconnect, Gate, Order, Problem};
use crate::time::Time;
use crate::timer::Timer;
use statig::prelude::{Handled, Outcome, Super, Transition};

/// The console, or what stands before it, goes away: all its agents come back at once.
const GOES_AWAY: [u16; 3] = [1001, 1012, 1013];

/// The close code of a hand-over: service restart.
const HAND_OVER_CODE: u16 = 1012;

impl Connection {
    pub(super) fn begin_link(&mut self, context: &mut Context<'_>) {
        self.link.gate = None;
        self.link.probing = false;
        context.arm_in(Timer::Ping, context.policy.ping_ms);
    }

    pub(super) fn arm_gates(&mut self, context: &mut Context<'_>) {
        context.arm_in(Timer::StateGate, context.policy.state_gate_ms);
        context.arm_in(Timer::AllGate, context.policy.all_gate_ms);
    }

    pub(super) fn begin_ready(&mut self, context: &mut Context<'_>) {
        self.open_gate(Gate::All, context);
        context.arm_in(Timer::Stable, context.policy.stable_ms);
        context.arm_in(Timer::StableAfterReplacement, context.policy.replaced_reset_ms);
        if self.resync.due {
            self.resync.due_since = None;
            context.arm_in(Timer::Resync, context.policy.resync_ms);
        }
    }

    /// Opens the gate as far as `gate`; what it lets through first goes out at once.
    pub(super) fn open_gate(&mut self, gate: Gate, context: &mut Context<'_>) {
        if self.link.gate >= Some(gate) {
            return;
        }
        let first = !self.is_accepted();
        self.link.gate = Some(gate);
        if first {
            let offline_ms = context.now.ms_since(self.link.offline_since);
            context.order(Order::Emit { event: ConsoleEvent::Connect { attempts: self.link.dials, offline_ms } });
            self.link.dials = 0;
        }
        context.order(Order::OpenGate { link: self.link.id, gate });
        if first {
            context.order(Order::SendRegistration { link: self.link.id });
            self.send_heartbeat(context);
            context.timers.arm(Timer::Metrics, self.due.metrics_at.max(context.now));
        }
    }

    /// Whether the console has accepted the key and the id: it answers every upgrade with 101, and refuses by a close
    /// before it sends anything.
    pub(super) const fn is_accepted(&self) -> bool {
        self.link.gate.is_some()
    }

    /// The link is no longer up.
    pub(super) fn end_link(&mut self, context: &Context<'_>) {
        if self.is_accepted() {
            self.link.offline_since = context.now;
        }
    }

    fn send_heartbeat(&mut self, context: &mut Context<'_>) {
        context.order(Order::SendHeartbeat { link: self.link.id });
        self.due.heartbeat_at = next_of(context.schedule.heartbeat_ms, context);
        context.timers.arm(Timer::Heartbeat, self.due.heartbeat_at);
    }

    /// What keeps a healthy link going.
    pub(super) fn keep_alive(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::Ping) => {
                context.order(Order::SendPing { link: self.link.id });
                context.arm_in(Timer::Ping, context.policy.ping_ms);
            }
            Event::Fact(Fact::PingWritten { link }) if *link == self.link.id => {
                let deadline = context.now.after_ms(context.policy.pong_ms);
                context.timers.arm_if_idle(Timer::PongDeadline, deadline);
            }
            Event::Fact(Fact::PongReceived { link, last }) if *link == self.link.id => {
                self.pong_received(*last, context);
            }
            Event::Expired(Timer::Heartbeat) => self.send_heartbeat(context),
            Event::Expired(Timer::Metrics) => {
                context.order(Order::SendMetrics { link: self.link.id });
                self.due.metrics_at = next_of(context.schedule.metrics_ms, context);
                context.timers.arm(Timer::Metrics, self.due.metrics_at);
            }
            // A first message is reported once, but a link may be ready without one and get it late.
            Event::Fact(Fact::Greeted { link }) if *link == self.link.id => {}
            // The machine has noted it already, for a resync that may be due.
            Event::Fact(Fact::TerminalInput) => {}
            _ => return Super,
        }
        Handled
    }

    fn pong_received(&mut self, last: bool, context: &mut Context<'_>) {
        if last {
            context.timers.disarm(Timer::PongDeadline);
        } else {
            context.arm_in(Timer::PongDeadline, context.policy.pong_ms);
        }
        if self.link.probing {
            self.link.probing = false;
            // The console may have counted us out meanwhile; a heartbeat heals that.
            if self.is_accepted() {
                self.send_heartbeat(context);
            }
        }
    }

    /// Asks the link for a sign of life after a jump of the clock.
    pub(super) fn probe(&mut self, context: &mut Context<'_>) {
        self.link.probing = true;
        context.order(Order::SendPing { link: self.link.id });
        context.arm_in(Timer::PongDeadline, context.policy.probe_ms);
    }

    pub(super) fn close_received(
        &mut self,
        code: u16,
        reason: CloseReason,
        context: &mut Context<'_>,
    ) -> Outcome<State> {
        self.ended(Disconnect::Closed, Some(code), context);
        // A clean close cures nothing while the console has yet to forget a socket that broke before it.
        self.resync.due &= context.now.ms_since(self.resync.unclean_at) < context.policy.resync_ms;
        match (code, reason) {
            (1008, CloseReason::Authentication) => {
                context.order(Order::Report { problem: Problem::KeyRefused });
                let wait_ms = self.backoff.after_refusal_ms(context.policy, context.random);
                Transition(State::Waiting { wait_ms })
            }
            (1008, CloseReason::UnknownInstance) => {
                self.registration.done = false;
                context.order(Order::Report { problem: Problem::UnknownInstance });
                context.order(Order::ForgetIdentity);
                let wait_ms = self.backoff.after_unknown_ms(context.policy, context.random);
                Transition(State::Unregistered { wait_ms })
            }
            (1001, CloseReason::Replaced) => {
                self.note_replacement(context);
                let wait_ms = self.backoff.after_replacement_ms(context.policy);
                Transition(State::Waiting { wait_ms })
            }
            (code, _) => self.retry_after_loss(GOES_AWAY.contains(&code), context),
        }
    }

    pub(super) fn link_lost(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.ended(Disconnect::Lost, None, context);
        self.unclean(context);
        self.retry_after_loss(false, context)
    }

    /// The socket is gone without a word before: nothing is left to close.
    pub(super) fn link_vanished(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.ended(Disconnect::Lost, None, context);
        self.unclean(context);
        self.socket_gone(context);
        self.retry_after_loss(false, context)
    }

    pub(super) fn pong_overdue(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.dead(Disconnect::PongTimeout, context)
    }

    pub(super) fn write_stalled(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.dead(Disconnect::WriteStalled, context)
    }

    /// A dead link is dropped with a reset, so that nothing lingers.
    fn dead(&mut self, cause: Disconnect, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::DropLink { link: self.link.id });
        self.ended(cause, None, context);
        self.old_socket = OldSocket::Dropped(self.link.id);
        self.unclean(context);
        self.retry_after_loss(false, context)
    }

    /// Cures the production console of a socket that broke: one clean reconnect, when it does the least harm.
    pub(super) fn resync(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        let due_since = *self.resync.due_since.get_or_insert(context.now);
        let proves_from = due_since.after_ms(context.policy.resync_proof_ms);
        if context.routed_at.is_some_and(|at| at >= proves_from) {
            self.resync.due = false;
            return Handled;
        }
        let may_wait = context.now.ms_since(due_since) < context.policy.resync_wait_max_ms;
        if may_wait && !(self.settled && context.sessions.is_empty()) {
            context.arm_in(Timer::Resync, context.policy.resync_poll_ms);
            return Handled;
        }
        self.ended(Disconnect::Resync, Some(1000), context);
        self.resync.due = false;
        self.resync.closing = true;
        context.order(Order::CloseLink { link: self.link.id, code: 1000, reason: CloseText::Resync });
        Transition(State::Waiting { wait_ms: 0 })
    }

    /// Closes the link, because another program takes this one's place and dials.
    pub(super) fn hand_over(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        self.ended(Disconnect::HandOver, Some(HAND_OVER_CODE), context);
        // Like a resync: what is not answered is unclean.
        self.resync.closing = true;
        let (link, code, reason) = (self.link.id, HAND_OVER_CODE, CloseText::HandOver);
        context.order(Order::CloseLink { link, code, reason });
        Transition(State::Waiting { wait_ms: 0 })
    }

    /// The console will hear of the end of this link late, and then forget the next one with it.
    pub(super) fn unclean(&mut self, context: &Context<'_>) {
        self.resync.due = true;
        self.resync.unclean_at = context.now;
    }

    pub(super) fn forget_replacements(&mut self) {
        self.backoff.reset_replacement();
        self.replacements = Replacements::default();
    }

    /// Notes that the link is over and its socket on its way out.
    fn ended(&mut self, cause: Disconnect, code: Option<u16>, context: &mut Context<'_>) {
        if self.is_accepted() {
            context.order(Order::Emit { event: ConsoleEvent::Disconnect { cause, code } });
        }
        self.old_socket = OldSocket::Closing(self.link.id);
        self.resync.closing = false;
        context.arm_in(Timer::CloseDeadline, context.policy.close_ms);
    }

    fn retry_after_loss(&mut self, goes_away: bool, context: &mut Context<'_>) -> Outcome<State> {
        let wait_ms = self.backoff.after_loss_ms(goes_away, context.policy, context.random);
        Transition(State::Waiting { wait_ms })
    }

    /// Reports once, at the second replacement within the window, that two agents share the id.
    fn note_replacement(&mut self, context: &mut Context<'_>) {
        let last = self.replacements.last.replace(context.now);
        let shared = last.is_some_and(|at| context.now.ms_since(at) <= context.policy.replaced_window_ms);
        if shared && !self.replacements.reported {
            self.replacements.reported = true;
            context.order(Order::Report { problem: Problem::SharedInstanceId });
            context.order(Order::Emit { event: ConsoleEvent::Error { problem: Problem::SharedInstanceId } });
        }
    }
}

/// When something that is due every `interval_ms` at the latest comes next.
fn next_of(interval_ms: u64, context: &mut Context<'_>) -> Time {
    let (low, high) = context.policy.interval_percent;
    let low_ms = interval_ms.saturating_mul(low) / 100;
    let high_ms = interval_ms.saturating_mul(high) / 100;
    // Never 0: that would be a busy loop.
    context.now.after_ms(context.random.between(low_ms, high_ms).max(1))
}
