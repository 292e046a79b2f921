//! One agent of a fleet: the machine, and the little that an agent without work does for it.
//!
//! It holds no rule. Orders that concern no other part are done here at once; the others are wishes to the world.

use draupnir_fsm::fact::{CloseReason, Fact, Failure, IdSource, Loss};
use draupnir_fsm::id::{LinkId, RegistrationAttempt};
use draupnir_fsm::limits::{Policy, Schedule};
use draupnir_fsm::machine::Machine;
use draupnir_fsm::order::Order;
use draupnir_fsm::random::Random;
use draupnir_fsm::time::Time;

/// What an agent wants of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Register { attempt: RegistrationAttempt },
    Dial { link: LinkId },
    Ping { link: LinkId },
    Close { link: LinkId },
    Drop { link: LinkId },
}

/// One agent.
pub(super) struct Member {
    machine: Machine,
    dialling: Option<LinkId>,
    link: Option<LinkId>,
    wake_ms: Option<u64>,
    started: bool,
    /// One way to the console.
    pub(super) way_ms: u64,
    /// It has a link, as far as the story goes.
    pub(super) back: bool,
}

impl Member {
    pub(super) fn new(number: usize, policy: &Policy, random: &mut Random) -> Self {
        let seed = random.next_u64() ^ number as u64;
        Self {
            machine: Machine::new(policy.clone(), Schedule::default(), seed),
            dialling: None,
            link: None,
            wake_ms: None,
            started: false,
            way_ms: random.between(5, 60),
            back: false,
        }
    }

    pub(super) fn start(&mut self, now_ms: u64, remembered: bool) {
        self.started = true;
        let id = if remembered { IdSource::Remembered } else { IdSource::Configured };
        self.handle(now_ms, Fact::Started { id });
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        self.handle(now_ms, Fact::Tick);
    }

    pub(super) fn registered(
        &mut self,
        now_ms: u64,
        attempt: RegistrationAttempt,
        status: u16,
        retry_after_ms: Option<u64>,
    ) {
        self.handle(now_ms, Fact::RegistrationAnswered { attempt, status, retry_after_ms });
    }

    pub(super) fn dials(&self, link: LinkId) -> bool {
        self.dialling == Some(link)
    }

    pub(super) fn dial_failed(&mut self, now_ms: u64, link: LinkId, cause: Failure) {
        if self.dialling.take_if(|dialling| *dialling == link).is_some() {
            self.handle(now_ms, Fact::DialFailed { link, cause, retry_after_ms: None });
        }
    }

    pub(super) fn opened(&mut self, now_ms: u64, link: LinkId) {
        self.dialling = None;
        self.link = Some(link);
        self.handle(now_ms, Fact::LinkOpened { link });
    }

    pub(super) fn greeted(&mut self, now_ms: u64, link: LinkId) {
        if self.link == Some(link) {
            self.handle(now_ms, Fact::Greeted { link });
        }
    }

    pub(super) fn ponged(&mut self, now_ms: u64, link: LinkId) {
        if self.link == Some(link) {
            self.handle(now_ms, Fact::PongReceived { link, last: true });
        }
    }

    pub(super) fn closed(&mut self, now_ms: u64, link: LinkId, code: u16, reason: CloseReason) {
        if self.link.take_if(|current| *current == link).is_some() {
            self.handle(now_ms, Fact::CloseReceived { link, code, reason });
        }
    }

    pub(super) fn lost(&mut self, now_ms: u64, link: LinkId, cause: Loss) {
        if self.link.take_if(|current| *current == link).is_some() {
            self.handle(now_ms, Fact::LinkLost { link, cause });
        }
    }

    pub(super) fn gone(&mut self, now_ms: u64, link: LinkId) {
        self.link.take_if(|current| *current == link);
        self.handle(now_ms, Fact::LinkClosed { link });
    }

    /// The link that is up.
    pub(super) fn link(&self) -> Option<LinkId> {
        self.link
    }

    pub(super) fn is_ready(&self) -> bool {
        self.machine.snapshot().state == "connected.ready"
    }

    /// When the machine was last planned to wake.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        self.wake_ms
    }

    /// When it must be woken, if that is not planned yet.
    pub(super) fn plan_wake(&mut self) -> Option<u64> {
        let next_ms = self.machine.next_deadline().map(Time::as_ms);
        if !self.started || self.wake_ms == next_ms {
            return None;
        }
        self.wake_ms = next_ms;
        next_ms
    }

    /// The next wish that the fleet must grant.
    pub(super) fn next_wish(&mut self, now_ms: u64) -> Option<Wish> {
        // Each round takes an order, so this ends.
        loop {
            match self.machine.poll_order()? {
                Order::Register { attempt, .. } => return Some(Wish::Register { attempt }),
                Order::Dial { link } => {
                    self.dialling = Some(link);
                    return Some(Wish::Dial { link });
                }
                Order::SendPing { link } => {
                    self.handle(now_ms, Fact::PingWritten { link });
                    return Some(Wish::Ping { link });
                }
                Order::AbandonDial { .. } => self.dialling = None,
                Order::CloseLink { link, .. } => {
                    self.link = None;
                    return Some(Wish::Close { link });
                }
                Order::DropLink { link } => {
                    self.link = None;
                    return Some(Wish::Drop { link });
                }
                _ => {}
            }
        }
    }

    fn handle(&mut self, now_ms: u64, fact: Fact) {
        self.machine.handle(Time::from_ms(now_ms), &fact);
        if self.wake_ms.is_some_and(|wake_ms| wake_ms <= now_ms) {
            self.wake_ms = None;
        }
    }
}
