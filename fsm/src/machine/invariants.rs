//! What must hold after every step of the machine, whatever the facts: the observer of tests, simulation and fuzzing.
//!
//! It knows only facts, orders and snapshots, never the inside of the machine, so that one mistake cannot pass on both
//! sides. It does not say what the machine should have done, only what it must never do.

use super::MachineSnapshot;
use crate::fact::Fact;
use crate::id::{LinkId, RegistrationAttempt};
use crate::limits::Policy;
use crate::order::Order;
use crate::time::Time;
use core::hash::{Hash, Hasher};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvariantViolation {
    /// A dial was ordered while a link was up, being dialled, or its socket not gone.
    SecondLink(LinkId),
    /// A dial came sooner after the end of the old socket than permitted.
    RedialTooSoon(LinkId),
    /// A registration was ordered while another was in flight.
    SecondRegistration(RegistrationAttempt),
    /// An order named an attempt or a link that it could not be about.
    StaleOrder(Order),
    /// A message was ordered on a link before its gate was open.
    ClosedGate(Order),
    /// A state other than `stopped` had no deadline.
    NoDeadline(&'static str),
    /// A tick left a deadline that had passed.
    DeadlineMissed(&'static str),
    /// The agent had not stopped in time.
    DrainOverdue,
    /// Something was ordered after [`Order::Exit`].
    OrderAfterExit(Order),
    /// The state was `stopped` without [`Order::Exit`], or the other way round.
    ExitUnordered,
}

/// Watches one machine.
#[derive(Clone, Debug)]
pub struct Observer {
    policy: Policy,
    registering: Option<RegistrationAttempt>,
    dialling: Option<LinkId>,
    live: Option<LinkId>,
    /// A socket that is going away, and when it can be waited for no longer.
    closing: Option<(LinkId, Time)>,
    gone_at: Option<Time>,
    gate_open: bool,
    draining_since: Option<Time>,
    exited: bool,
}

/// How long the end of a socket can matter to the next dial, in milliseconds: more than any gap between the two.
const GONE_HASHED_MS: u32 = 1_000;

/// As what follows depends on it: see [`canonical`](crate::canonical). The policy does not change.
impl Hash for Observer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { policy: _, registering, dialling, live, closing, gone_at, gate_open, draining_since, exited } = self;
        (registering, dialling, live, closing.map(|(link, _)| link), gate_open, draining_since, exited).hash(state);
        if let Some((_, until)) = closing {
            until.hash_within(0, state);
        }
        gone_at.is_some().hash(state);
        if let Some(gone_at) = gone_at {
            gone_at.hash_within(GONE_HASHED_MS, state);
        }
    }
}

impl Observer {
    /// An observer of a machine at its start.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            registering: None,
            dialling: None,
            live: None,
            closing: None,
            gone_at: None,
            gate_open: false,
            draining_since: None,
            exited: false,
        }
    }

    /// The link that is up.
    pub fn live(&self) -> Option<LinkId> {
        self.live
    }

    /// The link that is being dialled.
    pub fn dialling(&self) -> Option<LinkId> {
        self.dialling
    }

    /// The registration that is in flight.
    pub fn registering(&self) -> Option<RegistrationAttempt> {
        self.registering
    }

    /// The link whose socket is not gone yet.
    pub fn closing(&self) -> Option<LinkId> {
        self.closing.map(|(link, _)| link)
    }

    /// Takes in one step: a fact, what the machine ordered in answer, and how it looks now.
    pub fn step(
        &mut self,
        now: Time,
        fact: &Fact,
        orders: &[Order],
        seen: &MachineSnapshot,
    ) -> Result<(), InvariantViolation> {
        self.take_in(now, fact);
        for order in orders {
            self.check(now, *order)?;
        }
        self.check_snapshot(now, fact, seen)
    }

    fn take_in(&mut self, now: Time, fact: &Fact) {
        match fact {
            Fact::RegistrationAnswered { attempt, .. } | Fact::RegistrationFailed { attempt, .. } => {
                self.registering.take_if(|current| current == attempt);
            }
            Fact::LinkOpened { link } => {
                if self.dialling.take_if(|current| current == link).is_some() {
                    self.live = Some(*link);
                    self.gate_open = false;
                }
            }
            Fact::DialFailed { link, .. } => {
                self.dialling.take_if(|current| current == link);
            }
            Fact::CloseReceived { link, .. } | Fact::LinkLost { link, .. } => {
                if self.live.take_if(|current| current == link).is_some() {
                    self.expect_close(now, *link);
                }
            }
            Fact::LinkClosed { link } => {
                let was_live = self.live.take_if(|current| current == link).is_some();
                let was_closing = self.closing.take_if(|(current, _)| current == link).is_some();
                if was_live || was_closing {
                    self.gone_at = Some(now);
                }
            }
            Fact::ShutdownRequested => {
                self.draining_since.get_or_insert(now);
            }
            Fact::Started { .. }
            | Fact::Tick
            | Fact::Greeted { .. }
            | Fact::PingWritten { .. }
            | Fact::PongReceived { .. }
            | Fact::WriteStalled { .. }
            | Fact::DeliverySettled { .. }
            | Fact::RoomForResults { .. }
            | Fact::TerminalInput
            | Fact::ClockJumped { .. }
            | Fact::Session { .. }
            | Fact::Command { .. } => {}
        }
    }

    /// A socket may take its time to close, and as long again to be dropped; after that it need not be waited for.
    fn expect_close(&mut self, now: Time, link: LinkId) {
        self.closing = Some((link, now.after_ms(2 * self.policy.close_ms)));
    }

    fn expect_drop(&mut self, now: Time, link: LinkId) {
        self.live = None;
        self.closing = Some((link, now.after_ms(self.policy.close_ms)));
    }

    fn check(&mut self, now: Time, order: Order) -> Result<(), InvariantViolation> {
        if self.exited {
            return Err(InvariantViolation::OrderAfterExit(order));
        }
        match order {
            Order::Register { attempt, .. } => {
                if self.registering.replace(attempt).is_some() {
                    return Err(InvariantViolation::SecondRegistration(attempt));
                }
            }
            Order::AbandonRegistration { attempt } => {
                if self.registering.take() != Some(attempt) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
            }
            Order::Dial { link } => self.check_dial(now, link)?,
            Order::AbandonDial { link } => {
                if self.dialling.take() != Some(link) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
            }
            Order::CloseLink { link, .. } => {
                if self.live.take() != Some(link) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
                self.expect_close(now, link);
            }
            Order::DropLink { link } => {
                if self.live != Some(link) && self.closing() != Some(link) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
                self.expect_drop(now, link);
            }
            Order::OpenGate { link, .. } => {
                if self.live != Some(link) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
                self.gate_open = true;
            }
            Order::SendRegistration { link } | Order::SendHeartbeat { link } | Order::SendMetrics { link } => {
                if self.live != Some(link) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
                if !self.gate_open {
                    return Err(InvariantViolation::ClosedGate(order));
                }
            }
            Order::SendPing { link } => {
                if self.live != Some(link) {
                    return Err(InvariantViolation::StaleOrder(order));
                }
            }
            Order::Exit => self.exited = true,
            Order::Emit { .. }
            | Order::Report { .. }
            | Order::ForgetIdentity
            | Order::ReadHostName
            | Order::HangUpSession { .. }
            | Order::KillSession { .. }
            | Order::FinishSession { .. }
            | Order::StartCommand { .. }
            | Order::RefuseCommand { .. }
            | Order::RepeatResult { .. }
            | Order::ForgetResult { .. }
            | Order::TerminateCommand { .. }
            | Order::KillCommand { .. }
            | Order::FinishCommand { .. } => {}
        }
        Ok(())
    }

    fn check_dial(&mut self, now: Time, link: LinkId) -> Result<(), InvariantViolation> {
        let socket_left = self.closing.is_some_and(|(_, until)| now < until);
        if self.live.is_some() || socket_left || self.dialling.replace(link).is_some() {
            return Err(InvariantViolation::SecondLink(link));
        }
        if self.gone_at.is_some_and(|gone_at| now < gone_at.after_ms(self.policy.redial_gap_ms)) {
            return Err(InvariantViolation::RedialTooSoon(link));
        }
        self.closing = None;
        Ok(())
    }

    fn check_snapshot(&self, now: Time, fact: &Fact, seen: &MachineSnapshot) -> Result<(), InvariantViolation> {
        let stopped = seen.state == "stopped";
        if stopped != self.exited {
            return Err(InvariantViolation::ExitUnordered);
        }
        if stopped {
            return Ok(());
        }
        let Some(next) = seen.next else { return Err(InvariantViolation::NoDeadline(seen.state)) };
        if matches!(fact, Fact::Tick) && next <= now {
            return Err(InvariantViolation::DeadlineMissed(seen.state));
        }
        let latest = self.draining_since.map(|since| since.after_ms(self.policy.drain_exit_ms));
        if latest.is_some_and(|latest| next > latest) {
            return Err(InvariantViolation::DrainOverdue);
        }
        Ok(())
    }
}
