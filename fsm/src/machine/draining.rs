//! The way out: signals to the children by the time table, then the close frame, then the end.

use super::Context;
use super::chart::State;
use super::connection::{Connection, Drain, DrainStep};
use crate::order::{CloseText, ConsoleEvent, Disconnect, Gate, Order};
use crate::timer::Timer;
use statig::prelude::{Outcome, Transition};

impl Connection {
    pub(super) fn begin_drain(&mut self, context: &mut Context<'_>) {
        self.drain = Drain { began: context.now, next: DrainStep::TerminateCommands };
        context.hang_up_sessions();
        context.arm_in(Timer::DrainStep, context.policy.drain_terminate_ms);
        context.arm_in(Timer::DrainExit, context.policy.drain_exit_ms);
    }

    pub(super) fn begin_flush(&mut self, context: &mut Context<'_>) {
        if self.is_accepted() {
            self.announce_shutdown(context);
        }
        context.arm_in(Timer::DrainClose, context.policy.drain_close_ms);
        if self.link.gate < Some(Gate::All) {
            context.arm_in(Timer::StateGate, context.policy.state_gate_ms);
        }
    }

    /// Lets everything through; nothing is due on this link besides.
    pub(super) fn open_gate_to_flush(&mut self, context: &mut Context<'_>) {
        let first = !self.is_accepted();
        self.open_gate(Gate::All, context);
        if first {
            self.announce_shutdown(context);
        }
        context.timers.disarm(Timer::Heartbeat);
        context.timers.disarm(Timer::Metrics);
    }

    /// Sends a `disconnect` event to a console that got a `connect` event of this link.
    fn announce_shutdown(&mut self, context: &mut Context<'_>) {
        context
            .order(Order::Emit { event: ConsoleEvent::Disconnect { cause: Disconnect::Shutdown, code: Some(1000) } });
    }

    pub(super) fn begin_close(&mut self, context: &mut Context<'_>) {
        context.order(Order::CloseLink { link: self.link.id, code: 1000, reason: CloseText::Shutdown });
        context.arm_in(Timer::CloseDeadline, context.policy.close_ms);
    }

    /// The next of the three signals of the time table.
    pub(super) fn drain_step(&mut self, context: &mut Context<'_>) {
        let (next, next_ms) = match self.drain.next {
            DrainStep::TerminateCommands => {
                context.terminate_commands();
                (DrainStep::KillSessions, context.policy.drain_kill_sessions_ms)
            }
            DrainStep::KillSessions => {
                context.kill_sessions();
                (DrainStep::KillCommands, context.policy.drain_kill_commands_ms)
            }
            DrainStep::KillCommands => return context.kill_commands(),
        };
        self.drain.next = next;
        context.timers.arm(Timer::DrainStep, self.drain.began.after_ms(next_ms));
    }

    /// Nothing is left to do, or no time to do it.
    pub(super) fn leave(&mut self, context: &mut Context<'_>) -> Outcome<State> {
        context.order(Order::Exit);
        Transition(State::Stopped)
    }
}
