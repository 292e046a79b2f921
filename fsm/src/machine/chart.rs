//! The state chart: one function a state, one `superstate` for each box of the README's diagram.
//!
//! ```text
//! running                       root of all but draining and stopped
//! ├── unregistered              nothing known to the console yet, or it forgot us
//! ├── registering
//! │   ├── requesting            one exchange in flight
//! │   └── backing_off           waiting to send the next
//! ├── connecting
//! │   ├── waiting               for the retry, and for the old socket to be gone
//! │   └── dialling              one dial in flight
//! └── connected
//!     ├── greeting              up, but the console may not listen yet
//!     └── ready                 everything may pass
//! draining                      told to stop
//! ├── flushing                  sessions end, queues flush
//! ├── closing                   the close frame is out
//! └── unlinked                  no link: only the children are waited for
//! stopped
//! ```
//!
//! The functions say where an event leads; what is done on the way stands in the sibling files. Each timer is armed on
//! entry or by a handler of its state and disarmed on exit.

use super::{Context, Event};
use crate::backoff::Backoff;
use crate::fact::{Attempt, Fact};
use crate::order::{Gate, Order, ProviderName, RegisterPath};
use crate::time::Time;
use crate::timer::Timer;
use statig::prelude::*;

/// What outlives a state.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// Number of the latest registration.
    pub(super) attempt: Attempt,
    /// Number of the latest link.
    pub(super) link: Attempt,
    /// The console has given us an id, now or in an earlier life.
    pub(super) registered: bool,
    /// The `deploy` event of this process is out.
    pub(super) deployed: bool,
    /// The path that is tried first.
    pub(super) path: RegisterPath,
    /// The other path was tried in this round.
    pub(super) path_changed: bool,
    /// How the provider is named.
    pub(super) provider: ProviderName,
    /// The waits as far as they have grown.
    pub(super) backoff: Backoff,
    /// When the last replacements happened, the newest first.
    pub(super) replacements: [Option<Time>; 3],
    /// It was said that two agents share the id.
    pub(super) sharing_reported: bool,
    /// A link whose socket is not gone yet.
    pub(super) closing: Option<Attempt>,
    /// That socket has been dropped, not only closed.
    pub(super) dropped: bool,
    /// When the last socket was gone.
    pub(super) gone_at: Option<Time>,
    /// When the next dial is wanted, the old socket permitting.
    pub(super) retry_at: Time,
    /// Dials since the last link.
    pub(super) dials: u32,
    /// Since when there is no link.
    pub(super) offline_since: Time,
    /// What may pass on the current link.
    pub(super) gate: Option<Gate>,
    /// The link answers for a jump of the clock.
    pub(super) probing: bool,
    /// A loss was unclean, and the console must be cured of it.
    pub(super) resync_due: bool,
    /// When the last unclean loss was.
    pub(super) unclean_at: Time,
    /// The link that is closing was closed for a resync.
    pub(super) resyncing: bool,
    /// Resyncs in a row whose close was not answered.
    pub(super) resyncs_unanswered: u8,
    /// When somebody last typed, as far as that was asked for.
    pub(super) typed_at: Option<Time>,
    /// Everything sent is acknowledged.
    pub(super) settled: bool,
    /// When the next heartbeat is due; a reconnect does not change it.
    pub(super) heartbeat_at: Time,
    /// When the next metrics are due; a reconnect does not change it.
    pub(super) metrics_at: Time,
    /// How many of the three signals of the drain are out.
    pub(super) drain_steps: u8,
    /// When the drain began.
    pub(super) drain_began: Time,
    /// Facts that no state had a use for.
    pub(super) unhandled: u64,
    /// Facts about attempts and links that were over.
    pub(super) stale: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            attempt: 0,
            link: 0,
            registered: false,
            deployed: false,
            path: RegisterPath::Designed,
            path_changed: false,
            provider: ProviderName::Configured,
            backoff: Backoff::default(),
            replacements: [None; 3],
            sharing_reported: false,
            closing: None,
            dropped: false,
            gone_at: None,
            retry_at: Time::START,
            dials: 0,
            offline_since: Time::START,
            gate: None,
            probing: false,
            resync_due: false,
            unclean_at: Time::START,
            resyncing: false,
            resyncs_unanswered: 0,
            typed_at: None,
            settled: true,
            heartbeat_at: Time::START,
            metrics_at: Time::START,
            drain_steps: 0,
            drain_began: Time::START,
            unhandled: 0,
            stale: 0,
        }
    }
}

#[state_machine(initial = "State::unregistered(0)", visibility = "pub(crate)", state(derive(Clone, Debug)))]
impl Connection {
    /// Root of all but `draining` and `stopped`.
    #[superstate(exit_action = "leave_running")]
    fn running(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::ShutdownRequested) => Transition(State::unlinked()),
            Event::Fact(Fact::ClockJumped { entropy, .. }) => {
                self.jumped(*entropy, context);
                Handled
            }
            // Even after it was given up for gone: it is the console's table that the next dial must not overtake.
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link => {
                self.socket_gone(context);
                Handled
            }
            Event::Expired(Timer::CloseDeadline) => {
                self.close_overdue(context);
                Handled
            }
            Event::Fact(Fact::DeliverySettled { settled }) => {
                self.settled = *settled;
                Handled
            }
            _ => self.count(event),
        }
    }

    #[action]
    fn leave_running(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::CloseDeadline);
    }

    /// Nothing is known to the console yet, or it forgot us; goes on when [`Timer::Begin`] expires.
    #[state(superstate = "running", entry_action = "enter_unregistered", exit_action = "leave_unregistered")]
    fn unregistered(&mut self, wait_ms: &u64, event: &Event<'_>) -> Outcome<State> {
        let _ = wait_ms;
        match event {
            Event::Fact(Fact::Started { remembered }) => {
                self.registered = *remembered;
                Handled
            }
            Event::Expired(Timer::Begin) if self.registered => Transition(State::waiting(0)),
            Event::Expired(Timer::Begin) => Transition(State::requesting()),
            _ => Super,
        }
    }

    #[action]
    fn enter_unregistered(&mut self, wait_ms: &u64, context: &mut Context<'_>) {
        self.path_changed = false;
        context.arm_in(Timer::Begin, *wait_ms);
    }

    #[action]
    fn leave_unregistered(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::Begin);
    }

    /// The console is asked for an id.
    #[superstate(superstate = "running")]
    fn registering(&mut self, event: &Event<'_>) -> Outcome<State> {
        let _ = event;
        Super
    }

    /// One exchange is in flight.
    #[state(superstate = "registering", entry_action = "enter_requesting", exit_action = "leave_requesting")]
    fn requesting(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::RegistrationAnswered { attempt, status, retry_after_ms }) if *attempt == self.attempt => {
                self.registration_answered(*status, *retry_after_ms, context)
            }
            Event::Fact(Fact::RegistrationFailed { attempt, .. }) if *attempt == self.attempt => {
                self.registration_failed(context)
            }
            Event::Expired(Timer::RegistrationDeadline) => self.registration_overdue(context),
            Event::Fact(Fact::ShutdownRequested) => {
                context.order(Order::AbandonRegistration { attempt: self.attempt });
                Super // the root drains
            }
            _ => Super,
        }
    }

    #[action]
    fn enter_requesting(&mut self, context: &mut Context<'_>) {
        self.attempt = self.attempt.wrapping_add(1);
        context.order(Order::Register { attempt: self.attempt, path: self.path, provider: self.provider });
        context.arm_in(Timer::RegistrationDeadline, context.policy.registration_ms);
    }

    #[action]
    fn leave_requesting(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::RegistrationDeadline);
    }

    /// Waiting to send the next registration.
    #[state(superstate = "registering", entry_action = "enter_backing_off", exit_action = "disarm_retry")]
    fn backing_off(&mut self, wait_ms: &u64, event: &Event<'_>) -> Outcome<State> {
        let _ = wait_ms;
        match event {
            Event::Expired(Timer::Retry) => Transition(State::requesting()),
            _ => Super,
        }
    }

    #[action]
    fn enter_backing_off(&mut self, wait_ms: &u64, context: &mut Context<'_>) {
        self.path_changed = false;
        context.arm_in(Timer::Retry, *wait_ms);
    }

    #[action]
    fn disarm_retry(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::Retry);
    }

    /// A link is wanted and not there.
    #[superstate(superstate = "running")]
    fn connecting(&mut self, event: &Event<'_>) -> Outcome<State> {
        let _ = event;
        Super
    }

    /// Waiting for the retry, and for the old socket to be gone.
    #[state(superstate = "connecting", entry_action = "enter_waiting", exit_action = "disarm_retry")]
    fn waiting(&mut self, wait_ms: &u64, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        let _ = wait_ms;
        match event {
            Event::Expired(Timer::Retry) => self.retry_is_due(context),
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link => {
                self.socket_gone(context);
                self.arm_retry(context);
                Handled
            }
            Event::Expired(Timer::CloseDeadline) => {
                self.close_overdue(context);
                self.arm_retry(context);
                Handled
            }
            _ => Super,
        }
    }

    #[action]
    fn enter_waiting(&mut self, wait_ms: &u64, context: &mut Context<'_>) {
        self.retry_at = context.now.after_ms(*wait_ms);
        self.arm_retry(context);
    }

    /// One dial is in flight.
    #[state(superstate = "connecting", entry_action = "enter_dialling", exit_action = "leave_dialling")]
    fn dialling(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::LinkOpened { link }) if *link == self.link => Transition(State::greeting()),
            Event::Fact(Fact::DialFailed { link, cause, retry_after_ms }) if *link == self.link => {
                self.dial_failed(*cause, *retry_after_ms, context)
            }
            Event::Expired(Timer::DialDeadline) => self.dial_overdue(context),
            Event::Fact(Fact::ShutdownRequested) => {
                context.order(Order::AbandonDial { link: self.link });
                Super // the root drains
            }
            _ => Super,
        }
    }

    #[action]
    fn enter_dialling(&mut self, context: &mut Context<'_>) {
        self.link = self.link.wrapping_add(1);
        self.dials = self.dials.saturating_add(1);
        context.order(Order::Dial { link: self.link });
        context.arm_in(Timer::DialDeadline, context.policy.dial_ms);
    }

    #[action]
    fn leave_dialling(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::DialDeadline);
    }

    /// A WebSocket is up.
    #[superstate(superstate = "running", entry_action = "enter_connected", exit_action = "leave_connected")]
    fn connected(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::ShutdownRequested) => Transition(State::flushing()),
            Event::Fact(Fact::CloseReceived { link, code, reason }) if *link == self.link => {
                self.close_received(*code, *reason, context)
            }
            Event::Fact(Fact::LinkLost { link, .. }) if *link == self.link => self.link_lost(context),
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link => self.link_vanished(context),
            Event::Fact(Fact::WriteStalled { link }) if *link == self.link => self.write_stalled(context),
            Event::Expired(Timer::PongDeadline) => self.pong_overdue(context),
            Event::Fact(Fact::ClockJumped { entropy, .. }) => {
                self.jumped(*entropy, context);
                self.probe(context);
                Handled
            }
            _ => self.keep_alive(event, context),
        }
    }

    #[action]
    fn enter_connected(&mut self, context: &mut Context<'_>) {
        self.begin_link(context);
    }

    #[action]
    fn leave_connected(&mut self, context: &mut Context<'_>) {
        self.end_link(context);
    }

    /// Up, but the console may not listen yet.
    #[state(superstate = "connected", entry_action = "enter_greeting", exit_action = "disarm_gates")]
    fn greeting(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::Greeted { link }) if *link == self.link => Transition(State::ready()),
            Event::Expired(Timer::AllGate) => Transition(State::ready()),
            Event::Expired(Timer::StateGate) => {
                self.open_gate(Gate::State, context);
                Handled
            }
            _ => Super,
        }
    }

    #[action]
    fn enter_greeting(&mut self, context: &mut Context<'_>) {
        self.arm_gates(context);
    }

    #[action]
    fn disarm_gates(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::StateGate);
        context.timers.disarm(Timer::AllGate);
    }

    /// Everything may pass.
    #[state(superstate = "connected", entry_action = "enter_ready", exit_action = "leave_ready")]
    fn ready(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::Stable) => {
                self.backoff.reset();
                Handled
            }
            Event::Expired(Timer::StableAfterReplacement) => {
                self.forget_replacements();
                Handled
            }
            Event::Fact(Fact::TerminalInput) => {
                self.typed_at = Some(context.now);
                Handled
            }
            Event::Expired(Timer::Resync) => self.resync(context),
            _ => Super,
        }
    }

    #[action]
    fn enter_ready(&mut self, context: &mut Context<'_>) {
        self.begin_ready(context);
    }

    #[action]
    fn leave_ready(&mut self, context: &mut Context<'_>) {
        context.timers.disarm(Timer::Stable);
        context.timers.disarm(Timer::StableAfterReplacement);
        context.timers.disarm(Timer::Resync);
    }

    /// Told to stop: ends by [`Timer::DrainExit`] whatever is left.
    #[superstate(entry_action = "enter_draining", exit_action = "leave_draining")]
    fn draining(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::DrainStep) => {
                self.drain_step(context);
                Handled
            }
            Event::Expired(Timer::DrainExit) => self.leave(context),
            Event::Fact(Fact::DeliverySettled { settled }) => {
                self.settled = *settled;
                Handled
            }
            Event::Fact(Fact::ClockJumped { .. } | Fact::ShutdownRequested) => Handled,
            _ => self.count(event),
        }
    }

    #[action]
    fn enter_draining(&mut self, context: &mut Context<'_>) {
        self.begin_drain(context);
    }

    #[action]
    fn leave_draining(&mut self, context: &mut Context<'_>) {
        self.end_drain(context);
    }

    /// Sessions and commands end, what they said goes out.
    #[state(superstate = "draining", entry_action = "enter_flushing", exit_action = "leave_flushing")]
    fn flushing(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Reconsider if self.settled && context.children_are_gone() => Transition(State::closing()),
            Event::Reconsider => Handled,
            Event::Expired(Timer::DrainClose) => Transition(State::closing()),
            Event::Fact(Fact::Greeted { link }) if *link == self.link => {
                self.open_gate_to_flush(context);
                Handled
            }
            Event::Expired(Timer::StateGate) => {
                self.open_gate_to_flush(context);
                Handled
            }
            Event::Fact(Fact::PingWritten { link } | Fact::PongReceived { link, .. }) if *link == self.link => Handled,
            Event::Fact(Fact::CloseReceived { link, .. } | Fact::LinkLost { link, .. } | Fact::LinkClosed { link })
                if *link == self.link =>
            {
                Transition(State::unlinked())
            }
            Event::Fact(Fact::WriteStalled { link }) if *link == self.link => {
                context.order(Order::DropLink { link: self.link });
                Transition(State::unlinked())
            }
            _ => Super,
        }
    }

    #[action]
    fn enter_flushing(&mut self, context: &mut Context<'_>) {
        self.begin_flush(context);
    }

    #[action]
    fn leave_flushing(&mut self, context: &mut Context<'_>) {
        self.end_flush(context);
    }

    /// The close frame is out; its answer is waited for.
    #[state(superstate = "draining", entry_action = "enter_closing", exit_action = "leave_closing")]
    fn closing(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link => Transition(State::unlinked()),
            Event::Expired(Timer::CloseDeadline) => {
                context.order(Order::DropLink { link: self.link });
                Transition(State::unlinked())
            }
            Event::Reconsider => Handled,
            Event::Fact(
                Fact::CloseReceived { link, .. }
                | Fact::LinkLost { link, .. }
                | Fact::Greeted { link }
                | Fact::PingWritten { link }
                | Fact::PongReceived { link, .. },
            ) if *link == self.link => Handled,
            _ => Super,
        }
    }

    #[action]
    fn enter_closing(&mut self, context: &mut Context<'_>) {
        self.begin_close(context);
    }

    #[action]
    fn leave_closing(&mut self, context: &mut Context<'_>) {
        self.end_close(context);
    }

    /// Without a link there is nothing to do but to wait for the children.
    #[state(superstate = "draining")]
    fn unlinked(&mut self, context: &mut Context<'_>, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Reconsider if context.children_are_gone() => self.leave(context),
            Event::Reconsider => Handled,
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link => Handled,
            _ => Super,
        }
    }

    /// Over. Nothing is ordered any more.
    #[state]
    fn stopped(&mut self, event: &Event<'_>) -> Outcome<State> {
        self.count(event)
    }
}

impl State {
    /// The path of the state, as logs, recordings and scenarios name it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unregistered { .. } => "unregistered",
            Self::Requesting {} => "registering.requesting",
            Self::BackingOff { .. } => "registering.backing_off",
            Self::Waiting { .. } => "connecting.waiting",
            Self::Dialling {} => "connecting.dialling",
            Self::Greeting {} => "connected.greeting",
            Self::Ready {} => "connected.ready",
            Self::Flushing {} => "draining.flushing",
            Self::Closing {} => "draining.closing",
            Self::Unlinked {} => "draining.unlinked",
            Self::Stopped {} => "stopped",
        }
    }

    /// Whether a link is up, so that messages make sense.
    pub(crate) fn has_link(&self) -> bool {
        match self {
            Self::Greeting {} | Self::Ready {} | Self::Flushing {} => true,
            Self::Unregistered { .. }
            | Self::Requesting {}
            | Self::BackingOff { .. }
            | Self::Waiting { .. }
            | Self::Dialling {}
            | Self::Closing {}
            | Self::Unlinked {}
            | Self::Stopped {} => false,
        }
    }

    /// Whether the agent is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self, Self::Flushing {} | Self::Closing {} | Self::Unlinked {})
    }
}

impl Connection {
    /// The root's last resort: an event that no state had a use for is counted, and told apart from a stale one.
    fn count(&mut self, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(fact) if self.is_stale(fact) => self.stale += 1,
            Event::Fact(_) => self.unhandled += 1,
            // The machine's own: a timer that was disarmed cannot expire, and there is nothing to reconsider here.
            Event::Expired(_) | Event::Reconsider => {}
        }
        Handled
    }

    fn is_stale(&self, fact: &Fact) -> bool {
        match fact {
            Fact::RegistrationAnswered { attempt, .. } | Fact::RegistrationFailed { attempt, .. } => {
                *attempt <= self.attempt
            }
            Fact::LinkOpened { link }
            | Fact::DialFailed { link, .. }
            | Fact::Greeted { link }
            | Fact::PingWritten { link }
            | Fact::PongReceived { link, .. }
            | Fact::WriteStalled { link }
            | Fact::CloseReceived { link, .. }
            | Fact::LinkLost { link, .. }
            | Fact::LinkClosed { link } => *link <= self.link,
            Fact::Started { .. }
            | Fact::Tick
            | Fact::DeliverySettled { .. }
            | Fact::RoomForResults { .. }
            | Fact::TerminalInput
            | Fact::ClockJumped { .. }
            | Fact::ShutdownRequested
            | Fact::Session { .. }
            | Fact::Command { .. } => false,
        }
    }
}
