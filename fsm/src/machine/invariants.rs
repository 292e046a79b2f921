//! What must hold after every step of the machine, whatever the facts: the observer of tests, simulation and fuzzing.
//!
//! It knows only facts, orders and snapshots, never the inside of the machine, so that one mistake cannot pass on both
//! sides. It does not say what the machine should have done, only what it must never do.

use super::MachineSnapshot;
use crate::fact::{Fact, Failure, PortState};
use crate::id::{LinkId, PortProbe, RegistrationAttempt};
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
    /// A probe of the port was ordered that the last dial gave no reason for, or beside another or a dial.
    NeedlessPortProbe(PortProbe),
    /// A probe of the port came sooner after the refusal before it than permitted.
    PortProbeTooSoon(PortProbe),
    /// More probes of the port than permitted since the last link.
    TooManyPortProbes(PortProbe),
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
    port: Port,
    gate_open: bool,
    draining_since: Option<Time>,
    exited: bool,
}

/// What is known of the console's port.
#[derive(Clone, Debug, Default)]
struct Port {
    /// When it last refused a connection, where nothing else was heard of it since.
    refused_at: Option<Time>,
    /// It was found open, and no link came of that yet.
    found_open: bool,
    /// The probe that is in flight.
    probed: Option<PortProbe>,
    /// Probes since the last link.
    probes: u32,
}

/// How long the refusal of a port can matter to the next probe, in milliseconds: more than any wait between the two.
const REFUSED_HASHED_MS: u32 = 2_000;

/// As what follows depends on it.
impl Hash for Port {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { refused_at, found_open, probed, probes } = self;
        (refused_at.is_some(), found_open, probed.is_some(), probes).hash(state);
        if let Some(refused_at) = refused_at {
            refused_at.hash_within(REFUSED_HASHED_MS, state);
        }
    }
}

/// How long the end of a socket can matter to the next dial, in milliseconds: more than any gap between the two.
const GONE_HASHED_MS: u32 = 1_000;

/// As what follows depends on it: see [`canonical`](crate::canonical). The policy does not change.
impl Hash for Observer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { policy: _, registering, dialling, live, closing, gone_at, port, .. } = self;
        let Self { gate_open, draining_since, exited, .. } = self;
        (registering, dialling, live, closing.map(|(link, _)| link), gate_open, draining_since, exited).hash(state);
        port.hash(state);
        if let Some((_, until)) = closing {
            until.hash_within(0, state);
        }
        // One that was gone long ago holds up no dial, and neither does none.
        gone_at.unwrap_or(Time::START).hash_within(GONE_HASHED_MS, state);
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
            port: Port::default(),
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

    /// The probe of the port that is in flight.
    pub fn probing(&self) -> Option<PortProbe> {
        self.port.probed
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
                    self.port = Port::default();
                }
            }
            Fact::DialFailed { link, cause, .. } => {
                if self.dialling.take_if(|current| current == link).is_some() {
                    self.port.refused_at = (*cause == Failure::Refused).then_some(now);
                }
            }
            Fact::PortProbed { probe, found } => {
                if self.port.probed.take_if(|current| current == probe).is_some() {
                    self.port.refused_at = (*found == PortState::Refused).then_some(now);
                    self.port.found_open |= *found == PortState::Open;
                }
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
            | Fact::HandOverDue
            | Fact::TakenOver { .. }
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
            Order::ProbePort { probe } => self.check_port_probe(now, probe)?,
            Order::AbandonPortProbe { probe } => {
                if self.port.probed.take() != Some(probe) {
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
        if let Some(probe) = self.port.probed {
            return Err(InvariantViolation::NeedlessPortProbe(probe));
        }
        if self.live.is_some() || socket_left || self.dialling.replace(link).is_some() {
            return Err(InvariantViolation::SecondLink(link));
        }
        if self.gone_at.is_some_and(|gone_at| now < gone_at.after_ms(self.policy.redial_gap_ms)) {
            return Err(InvariantViolation::RedialTooSoon(link));
        }
        self.closing = None;
        Ok(())
    }

    fn check_port_probe(&mut self, now: Time, probe: PortProbe) -> Result<(), InvariantViolation> {
        let Port { refused_at, found_open, probed, probes } = &mut self.port;
        let is_free = self.live.is_none() && self.dialling.is_none() && probed.replace(probe).is_none();
        // An unanswered probe says nothing of the port.
        let Some(refused_at) = refused_at.take().filter(|_| is_free && !*found_open) else {
            return Err(InvariantViolation::NeedlessPortProbe(probe));
        };
        if now < refused_at.after_ms(self.policy.port_probe_every_ms.0) {
            return Err(InvariantViolation::PortProbeTooSoon(probe));
        }
        *probes += 1;
        if *probes > self.policy.port_probes_max {
            return Err(InvariantViolation::TooManyPortProbes(probe));
        }
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
