//! After the storm everybody behaves: the link comes up in time and stays, every child is answered for, the agent
//! leaves.
//!
//! It tells the machine only what a good console, a good network and processes that do as they are told would; the
//! rules of every step hold as before.

use super::World;
use draupnir_fsm::fact::{CommandFact, Fact, SessionFact};
use draupnir_fsm::order::Order;

/// The longest row of the policy, in milliseconds: `Retry-After` of ten minutes and as much again, and what the end of
/// an old link and a new dial take.
const READY_MS: u64 = 21 * 60_000;

/// How long a link that is ready is watched, where it is, in milliseconds: beyond a resync that an old loss asks for.
const WATCHED_MS: u64 = 60_000;

/// More steps than any calm takes: one that does not end has no other mark.
const STEPS_MAX: u32 = 20_000;

impl World {
    pub(super) fn become_calm(&mut self, watched: bool) {
        self.facts = 0;
        self.tick_if_due();
        self.end_children();
        self.tell(Fact::DeliverySettled { settled: true });
        self.reach_an_end();
        if self.is_stopped() {
            return;
        }
        if watched {
            self.watch();
        }
        assert_eq!(self.children.unanswered(), None, "a child without an answer");
        self.leave();
    }

    /// All shells and commands are gone, and their last byte is read; so are those that were waiting for their turn.
    fn end_children(&mut self) {
        for session in self.children.live_sessions() {
            for what in [SessionFact::Exited { code: 0 }, SessionFact::EndOfOutput, SessionFact::Reaped] {
                self.tell(Fact::Session { session, what });
            }
        }
        loop {
            let running = self.children.running_commands();
            if running.is_empty() || self.is_stopped() {
                return;
            }
            for command in running {
                for what in [CommandFact::Started, CommandFact::Exited { code: 0 }, CommandFact::EndOfOutput] {
                    self.tell(Fact::Command { command, what });
                }
            }
        }
    }

    /// Lives on until the link is ready, or the agent has stopped where it was told to.
    fn reach_an_end(&mut self) {
        let since = self.now;
        // One that the storm left unanswered.
        if let Some(link) = self.observer.live() {
            self.tell(Fact::PongReceived { link, last: true });
        }
        let within_ms = READY_MS + self.jumps * self.policy.first_retry_ms;
        loop {
            self.console_behaves();
            let state = self.seen.state;
            if state == "stopped" || state == "connected.ready" {
                return;
            }
            let Some(next) = self.seen.next else { panic!("{state} waits for nothing") };
            self.now = self.now.max(next);
            self.tell(Fact::Tick);
            self.answer_ping();
            let taken_ms = self.now.ms_since(since);
            assert!(taken_ms <= within_ms, "still {state} after {taken_ms} ms of a good console");
            assert!(self.facts < STEPS_MAX, "no end of {state}");
        }
    }

    /// A Ping that was just ordered is written, and answered.
    pub(super) fn answer_ping(&mut self) {
        let pinged = self.orders.iter().any(|order| matches!(order, Order::SendPing { .. }));
        if let Some(link) = self.observer.live().filter(|_| pinged) {
            self.tell(Fact::PingWritten { link });
            self.tell(Fact::PongReceived { link, last: true });
        }
    }

    /// A link that is ready stays, but for one resync, which is heard.
    fn watch(&mut self) {
        let end = self.now.after_ms(WATCHED_MS);
        let link = self.latest_link;
        while let Some(next) = self.seen.next.filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.tell(Fact::Tick);
            let fails = |order: &Order| {
                matches!(order, Order::DropLink { .. } | Order::AbandonDial { .. } | Order::Register { .. })
            };
            assert!(!self.orders.iter().any(fails), "{:?} with a good console", self.orders);
            self.answer_ping();
            self.console_behaves();
            assert!(self.facts < STEPS_MAX, "no end of a calm link");
        }
        self.now = end;
        assert_eq!(self.seen.state, "connected.ready");
        assert!(self.latest_link <= link.next(), "more than one resync in a calm");
    }

    /// Told to stop, with nobody to wait for, the agent says goodbye and is gone at once.
    fn leave(&mut self) {
        let since = self.now;
        self.tick_if_due();
        self.tell(Fact::ShutdownRequested);
        self.tell(Fact::DeliverySettled { settled: true });
        assert_eq!(self.seen.state, "draining.closing");
        self.console_behaves();
        assert!(self.is_stopped(), "still {} after goodbye", self.seen.state);
        assert_eq!(self.now, since);
    }
}
