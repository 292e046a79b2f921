//! One agent of a fleet: the driver that ships, and the little that an agent without work does for it.
//!
//! It holds no rule. Outputs that concern no other part are done here at once; the others are wishes to the world.

use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Action, ByteSource, CloseReason, ConsoleMessage, Driver, Encode, Failure, Frame, IdSource, Input, LinkId, Loss,
    Message, Output, PING_PAYLOAD_BYTES, Policy, PortProbe, PortState, RegistrationAttempt, Schedule, Time,
};
use draupnir_fsm::random::Random;
use std::collections::VecDeque;
use std::rc::Rc;

/// What each message of an agent without work costs on the wire, about, in bytes.
const MESSAGE_BYTES: usize = 400;

/// What an agent wants of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Register { attempt: RegistrationAttempt },
    Dial { link: LinkId },
    ProbePort { probe: PortProbe },
    Ping { link: LinkId, payload: [u8; PING_PAYLOAD_BYTES] },
    Close { link: LinkId },
    Drop { link: LinkId },
}

/// One agent.
pub(super) struct Member {
    driver: Driver<usize>,
    wishes: VecDeque<Wish>,
    dialling: Option<LinkId>,
    link: Option<LinkId>,
    wake_ms: Option<u64>,
    started: bool,
    /// One way to the console.
    pub(super) way_ms: u64,
    /// It has a link, as far as the story goes.
    pub(super) back: bool,
}

/// An agent without terminals and commands: its messages have a length, and there are no streams.
struct Idle;

impl Encode for Idle {
    type Body = usize;

    fn encode(&mut self, _message: &Message) -> Option<usize> {
        Some(MESSAGE_BYTES)
    }
}

impl ByteSource for Idle {}

impl Member {
    pub(super) fn new(number: usize, policy: &Policy, random: &mut Random) -> Self {
        let seed = random.next_u64() ^ number as u64;
        Self {
            driver: Driver::new(policy.clone(), Schedule::default(), seed, false, Rc::new(Budget::new())),
            wishes: VecDeque::new(),
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
        self.handle(now_ms, Input::Started { id });
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        self.turn(now_ms, None);
    }

    pub(super) fn registered(
        &mut self,
        now_ms: u64,
        attempt: RegistrationAttempt,
        status: u16,
        retry_after_ms: Option<u64>,
    ) {
        self.handle(now_ms, Input::RegistrationAnswered { attempt, status, retry_after_ms });
    }

    pub(super) fn dials(&self, link: LinkId) -> bool {
        self.dialling == Some(link)
    }

    pub(super) fn dial_failed(&mut self, now_ms: u64, link: LinkId, cause: Failure) {
        if self.dialling.take_if(|dialling| *dialling == link).is_some() {
            self.handle(now_ms, Input::DialFailed { link, cause, retry_after_ms: None });
        }
    }

    pub(super) fn port_probed(&mut self, now_ms: u64, probe: PortProbe, found: PortState) {
        self.handle(now_ms, Input::PortProbed { probe, found });
    }

    pub(super) fn opened(&mut self, now_ms: u64, link: LinkId) {
        self.dialling = None;
        self.link = Some(link);
        self.handle(now_ms, Input::LinkOpened { link });
    }

    pub(super) fn greeted(&mut self, now_ms: u64, link: LinkId) {
        if self.link == Some(link) {
            self.handle(now_ms, Input::Received { link, message: ConsoleMessage::Other });
        }
    }

    pub(super) fn ponged(&mut self, now_ms: u64, link: LinkId, payload: [u8; PING_PAYLOAD_BYTES]) {
        if self.link == Some(link) {
            self.handle(now_ms, Input::Pong { link, payload });
        }
    }

    pub(super) fn closed(&mut self, now_ms: u64, link: LinkId, code: u16, reason: CloseReason) {
        if self.link.take_if(|current| *current == link).is_some() {
            self.handle(now_ms, Input::CloseReceived { link, code, reason });
        }
    }

    pub(super) fn lost(&mut self, now_ms: u64, link: LinkId, cause: Loss) {
        if self.link.take_if(|current| *current == link).is_some() {
            self.handle(now_ms, Input::LinkLost { link, cause });
        }
    }

    pub(super) fn gone(&mut self, now_ms: u64, link: LinkId) {
        self.link.take_if(|current| *current == link);
        self.handle(now_ms, Input::LinkClosed { link });
    }

    /// The link that is up.
    pub(super) fn link(&self) -> Option<LinkId> {
        self.link
    }

    pub(super) fn is_ready(&self) -> bool {
        self.driver.snapshot().connection.state == "connected.ready"
    }

    /// When the driver was last planned to wake.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        self.wake_ms
    }

    /// When it must be woken, if that is not planned yet.
    pub(super) fn plan_wake(&mut self) -> Option<u64> {
        let next_ms = self.driver.next_deadline().map(Time::as_ms);
        if !self.started || self.wake_ms == next_ms {
            return None;
        }
        self.wake_ms = next_ms;
        next_ms
    }

    /// The next wish that the fleet must grant.
    pub(super) fn next_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    fn handle(&mut self, now_ms: u64, input: Input) {
        self.turn(now_ms, Some(input));
    }

    /// A turn of the loop, and those that follow from what was done at once.
    fn turn(&mut self, now_ms: u64, input: Option<Input>) {
        let now = Time::from_ms(now_ms);
        let mut inputs = VecDeque::from_iter(input);
        // What is done at once is a write or a sample; neither leads to another without time that passes.
        loop {
            while let Some(input) = inputs.pop_front() {
                self.driver.handle(now, input);
            }
            while let Some(output) = self.driver.poll(now, &mut Idle) {
                inputs.extend(self.perform(output));
            }
            if inputs.is_empty() {
                break;
            }
        }
        if self.wake_ms.is_some_and(|wake_ms| wake_ms <= now_ms) {
            self.wake_ms = None;
        }
    }

    /// Does what concerns no other part, with what comes of it; the rest becomes a wish.
    fn perform(&mut self, output: Output<usize>) -> Option<Input> {
        let wish = match output {
            Output::Write { link, frames } => {
                let pings = frames.into_iter().filter_map(|frame| match frame {
                    Frame::Ping(payload) => Some(Wish::Ping { link, payload }),
                    Frame::Text(_) => None,
                });
                self.wishes.extend(pings);
                return Some(Input::Written { link });
            }
            Output::Append { append, .. } => return Some(Input::Appended { append }),
            Output::Do(Action::TakeSample { sample }) => return Some(Input::Sampled { sample }),
            Output::Do(Action::Register { attempt, .. }) => Wish::Register { attempt },
            Output::Do(Action::Dial { link }) => {
                self.dialling = Some(link);
                Wish::Dial { link }
            }
            Output::Do(Action::AbandonDial { .. }) => {
                self.dialling = None;
                return None;
            }
            Output::Do(Action::ProbePort { probe }) => Wish::ProbePort { probe },
            Output::Do(Action::CloseLink { link, .. }) => {
                self.link = None;
                Wish::Close { link }
            }
            Output::Do(Action::DropLink { link }) => {
                self.link = None;
                Wish::Drop { link }
            }
            Output::Do(_) => return None,
        };
        self.wishes.push_back(wish);
        None
    }
}
