//! The state chart: one `State` for each state of the README's diagram, one `Superstate` for each of its boxes.
//!
//! ```text
//! running                       root of all but draining and stopped
//! ├── unregistered              nothing known to the console yet, or it forgot us
//! ├── registering
//! │   ├── requesting            one exchange in flight
//! │   └── backing_off           waiting to send the next
//! ├── connecting
//! │   ├── waiting               for the retry, and for the old socket to be gone
//! │   ├── probing               waiting for the retry, and until the port that was refused opens
//! │   └── dialling              one dial in flight
//! └── connected
//!     ├── greeting              up, but the console may not listen yet
//!     └── ready                 everything may pass
//! draining                      received SIGTERM
//! ├── flushing                  sessions end, queues flush
//! ├── closing                   the close frame is out
//! └── unlinked                  no link: only the children are waited for
//! stopped
//! ```
//!
//! First the hierarchy and what is done on entry and exit, then a function for each state: where an event leads. What
//! is done on the way stands in the sibling files. Each timer is armed on entry or by a handler of its state and
//! disarmed on exit.
//!
//! The traits of statig are implemented by hand: its macro orders the states again in each compilation, and the same
//! source would never give the same program twice.

use super::connection::{Connection, OldSocket};
use super::{Context, Event};
use crate::fact::Fact;
use crate::order::{Gate, Order};
use crate::timer::Timer;
use statig::blocking::{self, IntoStateMachine};
use statig::prelude::{Handled, Outcome, Super, Transition};

/// Where the connection is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Nothing is known to the console yet, or it forgot us; goes on when [`Timer::Begin`] expires.
    Unregistered {
        /// How long that is.
        wait_ms: u64,
    },
    /// One registration is in flight.
    Requesting,
    /// Waiting to send the next registration.
    BackingOff {
        /// How long.
        wait_ms: u64,
    },
    /// Waiting for the retry, and for the old socket to be gone.
    Waiting {
        /// How long for the retry.
        wait_ms: u64,
    },
    /// Every address of the console refused the connection: waiting for the retry, and until the port opens.
    Probing {
        /// How long for the retry.
        wait_ms: u64,
    },
    /// One dial is in flight.
    Dialling,
    /// Up, but the console may not listen yet.
    Greeting,
    /// Everything may pass.
    Ready,
    /// Sessions and commands end, what they said goes out.
    Flushing,
    /// The close frame is out; its answer is waited for.
    Closing,
    /// Without a link there is nothing to do but to wait for the children.
    Unlinked,
    /// Over. Nothing is ordered any more.
    Stopped,
}

/// What several states have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Superstate {
    /// Root of all but `Draining` and `Stopped`.
    Running,
    /// The console is asked for an id.
    Registering,
    /// A link is wanted and not there.
    Connecting,
    /// A WebSocket is up.
    Connected,
    /// Received SIGTERM: ends by [`Timer::DrainExit`] at the latest.
    Draining,
}

impl IntoStateMachine for Connection {
    type Event<'event> = Event<'event>;
    type Context<'context> = Context<'context>;
    type State = State;
    type Superstate<'state> = Superstate;

    fn initial() -> State {
        State::Unregistered { wait_ms: 0 }
    }
}

impl blocking::State<Connection> for State {
    fn superstate(&mut self) -> Option<Superstate> {
        match self {
            Self::Unregistered { .. } => Some(Superstate::Running),
            Self::Requesting | Self::BackingOff { .. } => Some(Superstate::Registering),
            Self::Waiting { .. } | Self::Probing { .. } | Self::Dialling => Some(Superstate::Connecting),
            Self::Greeting | Self::Ready => Some(Superstate::Connected),
            Self::Flushing | Self::Closing | Self::Unlinked => Some(Superstate::Draining),
            Self::Stopped => None,
        }
    }

    fn call_entry_action(&mut self, connection: &mut Connection, context: &mut Context<'_>) {
        match self {
            Self::Unregistered { wait_ms } => connection.begin_unregistered(*wait_ms, context),
            Self::Requesting => connection.request(context),
            Self::BackingOff { wait_ms } => connection.back_off(*wait_ms, context),
            Self::Waiting { wait_ms } => connection.wait_to_dial(*wait_ms, context),
            Self::Probing { wait_ms } => connection.wait_and_probe(*wait_ms, context),
            Self::Dialling => connection.dial(context),
            Self::Greeting => connection.arm_gates(context),
            Self::Ready => connection.begin_ready(context),
            Self::Flushing => connection.begin_flush(context),
            Self::Closing => connection.begin_close(context),
            Self::Unlinked | Self::Stopped => {}
        }
    }

    fn call_exit_action(&mut self, connection: &mut Connection, context: &mut Context<'_>) {
        let timers: &[Timer] = match self {
            Self::Unregistered { .. } => &[Timer::Begin],
            Self::Requesting => &[Timer::RegistrationDeadline],
            Self::BackingOff { .. } | Self::Waiting { .. } => &[Timer::Retry],
            Self::Probing { .. } => {
                connection.abandon_port_probe(context);
                &[Timer::Retry, Timer::PortProbe, Timer::PortProbeDeadline]
            }
            Self::Dialling => &[Timer::DialDeadline],
            Self::Greeting => &[Timer::StateGate, Timer::AllGate],
            Self::Ready => &[Timer::Stable, Timer::StableAfterReplacement, Timer::Resync],
            Self::Flushing => &[Timer::DrainClose, Timer::StateGate],
            Self::Closing => &[Timer::CloseDeadline],
            Self::Unlinked | Self::Stopped => &[],
        };
        context.timers.disarm_all(timers);
    }

    fn call_handler(
        &mut self,
        connection: &mut Connection,
        event: &Event<'_>,
        context: &mut Context<'_>,
    ) -> Outcome<Self> {
        match self {
            Self::Unregistered { .. } => connection.unregistered(event, context),
            Self::Requesting => connection.requesting(event, context),
            Self::BackingOff { .. } => Connection::backing_off(event),
            Self::Waiting { .. } => connection.waiting(event, context),
            Self::Probing { .. } => connection.probing(event, context),
            Self::Dialling => connection.dialling(event, context),
            Self::Greeting => connection.greeting(event, context),
            Self::Ready => connection.ready(event, context),
            Self::Flushing => connection.flushing(event, context),
            Self::Closing => connection.closing(event, context),
            Self::Unlinked => connection.unlinked(event, context),
            Self::Stopped => connection.count(event),
        }
    }
}

impl blocking::Superstate<Connection> for Superstate {
    fn superstate(&mut self) -> Option<Self> {
        match self {
            Self::Registering | Self::Connecting | Self::Connected => Some(Self::Running),
            Self::Running | Self::Draining => None,
        }
    }

    fn call_entry_action(&mut self, connection: &mut Connection, context: &mut Context<'_>) {
        match self {
            Self::Connected => connection.begin_link(context),
            Self::Draining => connection.begin_drain(context),
            Self::Running | Self::Registering | Self::Connecting => {}
        }
    }

    fn call_exit_action(&mut self, connection: &mut Connection, context: &mut Context<'_>) {
        let timers: &[Timer] = match self {
            Self::Running => &[Timer::CloseDeadline],
            Self::Registering | Self::Connecting => &[],
            Self::Connected => {
                connection.end_link(context);
                &[Timer::Ping, Timer::PongDeadline, Timer::Heartbeat, Timer::Metrics]
            }
            Self::Draining => &[Timer::DrainStep, Timer::DrainExit],
        };
        context.timers.disarm_all(timers);
    }

    fn call_handler(
        &mut self,
        connection: &mut Connection,
        event: &Event<'_>,
        context: &mut Context<'_>,
    ) -> Outcome<State> {
        match self {
            Self::Running => connection.running(event, context),
            Self::Registering | Self::Connecting => Super,
            Self::Connected => connection.connected(event, context),
            Self::Draining => connection.draining(event, context),
        }
    }
}

impl Connection {
    fn running(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::ShutdownRequested) => Transition(State::Unlinked),
            Event::Fact(Fact::ClockJumped { entropy, .. }) => {
                self.handle_clock_jump(*entropy, context);
                Handled
            }
            // Even after it was given up for gone: it is the console's table that the next dial must not overtake.
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link.id => {
                self.socket_gone(context);
                Handled
            }
            Event::Expired(Timer::CloseDeadline) => {
                self.close_overdue(context);
                Handled
            }
            // Without a link there is nothing to close.
            Event::Fact(Fact::HandOverDue) => Handled,
            Event::Fact(Fact::DeliverySettled { settled }) => {
                self.settled = *settled;
                Handled
            }
            _ => self.count(event),
        }
    }

    fn unregistered(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::Started { id }) => {
                self.registration.done = id.is_dialled_first();
                Handled
            }
            Event::Fact(Fact::TakenOver { connection }) => {
                self.old_socket = OldSocket::Gone(context.now);
                self.take_over(*connection, context);
                Handled
            }
            Event::Expired(Timer::Begin) if self.registration.done => Transition(State::Waiting { wait_ms: 0 }),
            Event::Expired(Timer::Begin) => Transition(State::Requesting),
            _ => Super,
        }
    }

    fn requesting(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::RegistrationAnswered { attempt, status, retry_after_ms })
                if *attempt == self.registration.attempt =>
            {
                self.registration_answered(*status, *retry_after_ms, context)
            }
            Event::Fact(Fact::RegistrationFailed { attempt, .. }) if *attempt == self.registration.attempt => {
                self.registration_failed(context)
            }
            Event::Expired(Timer::RegistrationDeadline) => self.registration_overdue(context),
            Event::Fact(Fact::ShutdownRequested) => {
                context.order(Order::AbandonRegistration { attempt: self.registration.attempt });
                Super // the root drains
            }
            _ => Super,
        }
    }

    fn backing_off(event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::Retry) => Transition(State::Requesting),
            _ => Super,
        }
    }

    fn waiting(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::Retry) => self.retry_is_due(context),
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link.id => {
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

    fn probing(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::Retry) => self.retry_is_due(context),
            Event::Expired(Timer::PortProbe) => {
                self.probe_port(context);
                Handled
            }
            Event::Fact(Fact::PortProbed { probe, found }) if *probe == self.port_probe => {
                self.port_probed(*found, context)
            }
            Event::Expired(Timer::PortProbeDeadline) => self.port_probe_overdue(context),
            _ => Super,
        }
    }

    fn dialling(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::LinkOpened { link }) if *link == self.link.id => Transition(State::Greeting),
            Event::Fact(Fact::DialFailed { link, cause, retry_after_ms }) if *link == self.link.id => {
                self.dial_failed(*cause, *retry_after_ms, context)
            }
            Event::Expired(Timer::DialDeadline) => self.dial_overdue(context),
            Event::Fact(Fact::ShutdownRequested) => {
                context.order(Order::AbandonDial { link: self.link.id });
                Super // the root drains
            }
            _ => Super,
        }
    }

    fn connected(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::ShutdownRequested) => Transition(State::Flushing),
            Event::Fact(Fact::HandOverDue) => self.hand_over(context),
            Event::Fact(Fact::CloseReceived { link, code, reason }) if *link == self.link.id => {
                self.close_received(*code, *reason, context)
            }
            Event::Fact(Fact::LinkLost { link, .. }) if *link == self.link.id => self.link_lost(context),
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link.id => self.link_vanished(context),
            Event::Fact(Fact::WriteStalled { link }) if *link == self.link.id => self.write_stalled(context),
            Event::Expired(Timer::PongDeadline) => self.pong_overdue(context),
            Event::Fact(Fact::ClockJumped { entropy, .. }) => {
                self.handle_clock_jump(*entropy, context);
                self.probe(context);
                Handled
            }
            _ => self.keep_alive(event, context),
        }
    }

    fn greeting(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::Greeted { link }) if *link == self.link.id => Transition(State::Ready),
            Event::Expired(Timer::AllGate) => Transition(State::Ready),
            Event::Expired(Timer::StateGate) => {
                self.open_gate(Gate::State, context);
                Handled
            }
            _ => Super,
        }
    }

    fn ready(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Expired(Timer::Stable) => {
                self.backoff.reset();
                Handled
            }
            Event::Expired(Timer::StableAfterReplacement) => {
                self.forget_replacements();
                Handled
            }
            Event::Expired(Timer::Resync) => self.resync(context),
            _ => Super,
        }
    }

    fn draining(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
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

    fn flushing(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Reconsider if self.settled && context.children_are_gone() => Transition(State::Closing),
            Event::Expired(Timer::DrainClose) => Transition(State::Closing),
            Event::Fact(Fact::Greeted { link }) if *link == self.link.id => {
                self.open_gate_to_flush(context);
                Handled
            }
            Event::Expired(Timer::StateGate) => {
                self.open_gate_to_flush(context);
                Handled
            }
            Event::Fact(Fact::PingWritten { link } | Fact::PongReceived { link, .. }) if *link == self.link.id => {
                Handled
            }
            Event::Fact(Fact::CloseReceived { link, .. } | Fact::LinkLost { link, .. } | Fact::LinkClosed { link })
                if *link == self.link.id =>
            {
                Transition(State::Unlinked)
            }
            Event::Fact(Fact::WriteStalled { link }) if *link == self.link.id => {
                context.order(Order::DropLink { link: self.link.id });
                Transition(State::Unlinked)
            }
            _ => Super,
        }
    }

    fn closing(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link.id => Transition(State::Unlinked),
            Event::Expired(Timer::CloseDeadline) => {
                context.order(Order::DropLink { link: self.link.id });
                Transition(State::Unlinked)
            }
            Event::Fact(
                Fact::CloseReceived { link, .. }
                | Fact::LinkLost { link, .. }
                | Fact::Greeted { link }
                | Fact::PingWritten { link }
                | Fact::PongReceived { link, .. },
            ) if *link == self.link.id => Handled,
            _ => Super,
        }
    }

    fn unlinked(&mut self, event: &Event<'_>, context: &mut Context<'_>) -> Outcome<State> {
        match event {
            Event::Reconsider if context.children_are_gone() => self.leave(context),
            Event::Fact(Fact::LinkClosed { link }) if *link == self.link.id => Handled,
            _ => Super,
        }
    }
}

impl State {
    /// The path of the state, as logs, recordings and scenarios name it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unregistered { .. } => "unregistered",
            Self::Requesting => "registering.requesting",
            Self::BackingOff { .. } => "registering.backing_off",
            Self::Waiting { .. } => "connecting.waiting",
            Self::Probing { .. } => "connecting.probing",
            Self::Dialling => "connecting.dialling",
            Self::Greeting => "connected.greeting",
            Self::Ready => "connected.ready",
            Self::Flushing => "draining.flushing",
            Self::Closing => "draining.closing",
            Self::Unlinked => "draining.unlinked",
            Self::Stopped => "stopped",
        }
    }

    /// Whether a link is up, so that messages make sense.
    pub(crate) fn has_link(&self) -> bool {
        match self {
            Self::Greeting | Self::Ready | Self::Flushing => true,
            Self::Unregistered { .. }
            | Self::Requesting
            | Self::BackingOff { .. }
            | Self::Waiting { .. }
            | Self::Probing { .. }
            | Self::Dialling
            | Self::Closing
            | Self::Unlinked
            | Self::Stopped => false,
        }
    }

    /// Whether the agent is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self, Self::Flushing | Self::Closing | Self::Unlinked)
    }
}
