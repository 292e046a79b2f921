//! What must hold after every step, and once nothing more goes wrong.

use super::moves::Move;
use super::{Draws, World};
use crate::hashing::fingerprint;
use draupnir_fsm::driver::{PortState, Time};
use draupnir_fsm::machine::invariants::InvariantViolation;
use std::collections::HashMap;

/// How long it takes from a world, by its fingerprint, until it has calmed down, in milliseconds. Worlds with the same
/// future take the same time, and most ways into the calm meet soon.
pub(crate) type CalmTimes = HashMap<u64, u32>;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A link beside another, or beside a socket that is open.
    SecondLink,
    /// A state without a deadline, or one whose deadline has passed.
    Deadline,
    /// The driver takes for delivered what the console has not read.
    Acknowledged,
    /// A message or a byte was skipped, dropped, or first read out of order.
    Order,
    /// Without further faults the agent is neither connected, with everything delivered, nor stopped.
    Calm,
    /// Another invariant of the machine.
    Machine(InvariantViolation),
}

impl World {
    pub(super) fn require(&mut self, holds: bool, broken: Broken) {
        if !holds {
            self.broken.get_or_insert(broken);
        }
    }

    /// What must hold after every step.
    pub(super) fn check(&mut self) {
        let violation = self.watched.borrow_mut().violation.take();
        if let Some(violation) = violation {
            self.require(
                false,
                match violation {
                    InvariantViolation::SecondLink(_) => Broken::SecondLink,
                    InvariantViolation::NoDeadline(_) | InvariantViolation::DeadlineMissed(_) => Broken::Deadline,
                    other => Broken::Machine(other),
                },
            );
        }
        let has_deadline = self.is_stopped() || self.driver.next_deadline().is_some_and(|next| next > self.now);
        self.require(has_deadline, Broken::Deadline);
        let kept = self.driver.snapshot().messages;
        let acknowledged = usize::from(self.work.made).saturating_sub(kept);
        self.require(acknowledged <= self.console.seen.len(), Broken::Acknowledged);
    }

    /// Whether the agent is where it should be once faults have ended.
    pub(super) fn is_settled(&self) -> bool {
        let seen = self.driver.snapshot();
        let is_idle = self.wire.as_ref().is_some_and(|wire| !wire.silent && wire.up.is_empty() && wire.down.is_empty());
        self.is_stopped()
            || seen.connection.state == "connected.ready"
                && is_idle
                && seen.messages == 0
                && seen.stream_bytes_in_flight == 0
                && self.console.seen.len() == usize::from(self.work.made)
                && self.console.bytes == self.work.printed
    }

    /// What happens next where nothing goes wrong.
    pub(super) fn calm_action(&self) -> Option<Move> {
        let wire = self.wire.as_ref().filter(|wire| !wire.silent);
        if self.is_stopped() {
            return None;
        }
        let answers = !self.hung;
        Some(match wire {
            _ if self.registering.is_some() && answers => Move::Answers(201),
            _ if self.dialling.is_some() && answers => Move::Accepts,
            _ if self.probing.is_some() && answers => Move::PortIs(PortState::Open),
            _ if self.closing.is_some() => Move::SocketGone,
            Some(wire) if !wire.greeted => Move::Greets,
            Some(wire) if !wire.up.is_empty() => Move::Reads,
            Some(wire) if !wire.down.is_empty() => Move::PongArrives,
            _ => Move::TimePasses,
        })
    }

    /// Lets nothing go wrong any more, but for the attempt or the link that is there: it works or, if `is_silent`,
    /// never answers. Within the stated time the agent must be connected, with everything delivered, or stopped.
    pub(crate) fn calms_down(&self, is_silent: bool, known: &mut CalmTimes) -> Result<(), Broken> {
        let mut world = self.fork(Draws::Greatest);
        let latest = world.begin_calm(is_silent);
        let mut passed = Vec::new();
        let settled_at = loop {
            let fingerprint = fingerprint(&world);
            if let Some(rest_ms) = known.get(&fingerprint) {
                break world.now.after_ms((*rest_ms).into());
            }
            passed.push((fingerprint, world.now));
            if world.is_settled() {
                break world.now;
            }
            world.calm_step(latest)?;
        };
        if settled_at > latest {
            return Err(Broken::Calm);
        }
        let rest_ms = |at| u32::try_from(settled_at.ms_since(at)).expect("less than the stated time");
        known.extend(passed.into_iter().map(|(fingerprint, at)| (fingerprint, rest_ms(at))));
        Ok(())
    }

    /// The same for this world itself.
    pub(crate) fn calm_down(&mut self, is_silent: bool) -> Result<(), Broken> {
        let latest = self.begin_calm(is_silent);
        while !self.is_settled() {
            self.calm_step(latest)?;
        }
        Ok(())
    }

    /// When it must be calm at the latest.
    fn begin_calm(&mut self, is_silent: bool) -> Time {
        if is_silent {
            self.hung = self.registering.is_some() || self.dialling.is_some() || self.probing.is_some();
            let is_stuck = self.wire.as_ref().is_some_and(|wire| wire.stuck);
            self.break_unnoticed(is_stuck);
        }
        self.now.after_ms(self.setting.calm_ms())
    }

    fn calm_step(&mut self, latest: Time) -> Result<(), Broken> {
        let action = self.calm_action().ok_or(Broken::Calm)?;
        self.step(action);
        match &self.broken {
            Some(broken) => Err(broken.clone()),
            None if self.now > latest => Err(Broken::Calm),
            None => Ok(()),
        }
    }
}
