//! The driver, a network and a console, as small as they can be: every step of them is an action.

use crate::setting::{FRAMES_MAX, NOTES_MAX, Part, RETRY_AFTER_MS, SCHEDULE, Setting};
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Action as Do, Body, ByteSource, Chunk, ClockJump, CloseReason, ConsoleId, ConsoleMessage, Driver, Encode, Failure,
    Frame, IdSource, Input, LinkId, Loss, Message, NoteId, Notice, Output, PING_PAYLOAD_BYTES, PortProbe, PortState,
    RegistrationAttempt, SessionInput, SessionKey, StreamKey, Time,
};
use draupnir_fsm::machine::invariants::{InvariantViolation, Observer};
use draupnir_fsm::random::Random;
use draupnir_sim::planted::Planted;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

/// When the agent of a model starts: further back than any rule looks, so that its start makes no difference.
const START: Time = Time::from_ms(4_000_000);

/// The session of the model.
const SESSION: SessionKey = SessionKey(1);
const STREAM: StreamKey = StreamKey::Terminal(SESSION);

/// Where jitter is constant, the state of the generator whose every number is 0, and the greatest.
const LEAST: u64 = 0;
const GREATEST: u64 = 0xCF9A_04AF_FA6B_ADC0;

/// A machine that slept asks for a Pong: it sleeps no more while so many are unanswered, for the network is bounded.
const PINGS_MAX: usize = 2;

/// More outputs in one turn are a loop that does not end.
const OUTPUTS_MAX: u32 = 1_000;

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

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Nothing, until the driver's next deadline.
    TimePasses,
    /// The console answers the registration with this status.
    Answers(u16),
    /// It answers with this status and `Retry-After`.
    AsksToWait(u16),
    /// The registration or the dial fails.
    Fails,
    /// Every address of the console refuses the dial.
    Refuses,
    /// The probe of the port ends.
    PortIs(PortState),
    /// The console answers 101.
    Accepts,
    /// It answers the dial with 401.
    RefusesKey,
    /// It answers the dial with 503 and `Retry-After`.
    RefusesDial,
    /// A dial or registration that was given up succeeds after all.
    AcceptsLate,
    /// The console begins to listen, and says so.
    Greets,
    /// The console reads the oldest frame.
    Reads,
    /// The oldest Pong arrives.
    PongArrives,
    /// The console closes the link.
    Closes(u16, CloseReason),
    /// The connection is reset.
    Resets,
    /// The connection breaks unnoticed: nothing passes any more, and the socket takes nothing.
    Stalls,
    /// The socket of the last link is reported gone.
    SocketGone,
    /// The console reads a frame of the link before, late.
    ReadsOld,
    /// A Pong of the link before arrives.
    OldPongArrives,
    /// SIGTERM.
    Stops,
    /// The machine slept.
    Sleeps,
    /// Something happens that is reported as an event.
    Notes,
    /// The program in the terminal prints a frame.
    Prints,
    /// The program in the terminal ends.
    Exits,
}

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    /// Registration, heartbeat or metrics.
    State,
    /// A reliable message, numbered in the order in which they were made.
    Reliable(u8),
    /// The end of the session: a reliable message, behind its bytes.
    Closed(u8),
    /// Bytes of the stream.
    Bytes { from: u64, end: u64 },
}

impl Body for Text {
    fn size_bytes(&self) -> usize {
        100
    }
}

/// A Ping or its Pong.
#[derive(Clone, Copy, Debug)]
struct Ping([u8; PING_PAYLOAD_BYTES]);

impl Ping {
    fn number(self) -> u32 {
        u32::from_be_bytes(self.0[6..10].try_into().expect("four bytes"))
    }
}

#[derive(Clone, Copy, Debug)]
enum Up {
    Text(Text),
    Ping(Ping),
}

/// A connection as the agent sees it.
#[derive(Clone, Debug)]
struct Wire {
    link: LinkId,
    opened: Time,
    /// What the console hears; before, it reads and forgets.
    listens: bool,
    greeted: bool,
    up: VecDeque<Up>,
    down: VecDeque<Ping>,
    newest_ping: u32,
    silent: bool,
    stuck: bool,
}

/// What the console has.
#[derive(Clone, Debug, Default, Hash)]
struct Console {
    /// Which reliable messages, by number from 1.
    seen: Vec<u8>,
    bytes: u64,
}

/// What there is to deliver.
#[derive(Clone, Debug, Default, Hash)]
struct Work {
    notes: u8,
    /// How many reliable messages were made.
    made: u8,
    /// The number of the session's end among them.
    closed: Option<u8>,
    printed: u64,
    is_open: bool,
}

#[derive(Debug)]
struct Watched {
    observer: Observer,
    violation: Option<InvariantViolation>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) setting: Arc<Setting>,
    pub(crate) driver: Driver<Text>,
    watched: Rc<RefCell<Watched>>,
    pub(crate) now: Time,
    pub(crate) newest_link: LinkId,
    pub(crate) newest_attempt: RegistrationAttempt,
    registering: Option<RegistrationAttempt>,
    dialling: Option<LinkId>,
    /// The probe of the port that is in flight.
    probing: Option<PortProbe>,
    /// The attempt that is under way will never be answered.
    hung: bool,
    late_registration: Option<RegistrationAttempt>,
    late_dial: Option<LinkId>,
    wire: Option<Wire>,
    /// The socket whose end is not reported yet; whether it is closed.
    closing: Option<(LinkId, bool)>,
    old_up: VecDeque<Up>,
    old_down: VecDeque<Ping>,
    console: Console,
    work: Work,
    newest_ping: Option<[u8; PING_PAYLOAD_BYTES]>,
    stop_asked: bool,
    pub(crate) broken: Option<Broken>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.driver.hash(state);
        self.watched.borrow().observer.hash(state);
        (self.registering.is_some(), self.dialling.is_some(), self.probing.is_some(), self.hung).hash(state);
        (self.late_registration.is_some(), self.late_dial.is_some(), self.closing, self.stop_asked).hash(state);
        (&self.console, &self.work, self.broken.is_some()).hash(state);
        state.write_usize(self.old_down.len());
        hash_frames(&self.old_up, None, state);
        self.wire.is_some().hash(state);
        if let Some(wire) = &self.wire {
            (wire.listens, wire.greeted, wire.silent, wire.stuck).hash(state);
            if !wire.listens {
                wire.opened.hash(state);
            }
            hash_frames(&wire.up, Some(wire.newest_ping), state);
            state.write_usize(wire.down.len());
            wire.down.iter().for_each(|ping| hash_ping(*ping, wire.newest_ping, state));
        }
    }
}

/// A Ping of an old link is like any other: of the live one, its age tells which it is.
fn hash_frames<H: Hasher>(frames: &VecDeque<Up>, newest: Option<u32>, state: &mut H) {
    state.write_usize(frames.len());
    for frame in frames {
        match (frame, newest) {
            (Up::Text(text), _) => text.hash(state),
            (Up::Ping(ping), Some(newest)) => hash_ping(*ping, newest, state),
            (Up::Ping(_), None) => state.write_u8(u8::MAX),
        }
    }
}

fn hash_ping<H: Hasher>(ping: Ping, newest: u32, state: &mut H) {
    state.write_u8(u8::MAX);
    (newest.wrapping_sub(ping.number()), &ping.0[10..]).hash(state);
}

/// How the driver is asked to draw jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draws {
    /// Always the least.
    Least,
    /// Always the greatest.
    Greatest,
}

impl Draws {
    fn random(self) -> Random {
        Random::constant(match self {
            Self::Least => LEAST,
            Self::Greatest => GREATEST,
        })
    }
}

fn watch(driver: &mut Driver<Text>, watched: &Rc<RefCell<Watched>>) {
    let watched = Rc::clone(watched);
    driver.observe_machine(Box::new(move |now, fact, orders, seen| {
        let mut watched = watched.borrow_mut();
        if let Err(violation) = watched.observer.step(now, fact, orders, seen) {
            watched.violation.get_or_insert(violation);
        }
    }));
}

impl World {
    /// The agent has started. `seed` is for a driver that draws as the shipped one does.
    pub(crate) fn started(setting: &Arc<Setting>, seed: Option<u64>) -> Self {
        let observer = Observer::new(setting.sound.clone());
        let mut driver =
            Driver::new(setting.policy.clone(), SCHEDULE, seed.unwrap_or(0), false, Rc::new(Budget::new()));
        let watched = Rc::new(RefCell::new(Watched { observer, violation: None }));
        if seed.is_none() {
            driver = driver.fork(Draws::Least.random());
        }
        watch(&mut driver, &watched);
        Self {
            setting: Arc::clone(setting),
            driver,
            watched,
            now: START,
            newest_link: LinkId(0),
            newest_attempt: RegistrationAttempt(0),
            registering: None,
            dialling: None,
            probing: None,
            hung: false,
            late_registration: None,
            late_dial: None,
            wire: None,
            closing: None,
            old_up: VecDeque::new(),
            old_down: VecDeque::new(),
            console: Console::default(),
            work: Work::default(),
            newest_ping: None,
            stop_asked: false,
            broken: None,
        }
    }

    /// The first input, and for a model of the delivery all that precedes the first message.
    pub(crate) fn begin(&mut self) {
        let is_delivery = self.setting.part == Part::Delivery;
        self.turn(Input::Started { id: if is_delivery { IdSource::Remembered } else { IdSource::Configured } });
        if is_delivery {
            self.settle();
            let message =
                ConsoleMessage::Create { session: SESSION, id: ConsoleId(1), cols: 80, rows: 24, allowed: true };
            self.turn(Input::Received { link: self.newest_link, message });
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(action) = self.calm_action().filter(|_| !self.is_settled()) {
            self.step(action);
        }
    }

    /// Another world that goes on by itself.
    pub(crate) fn fork(&self, draws: Draws) -> Self {
        let mut driver = self.driver.fork(draws.random());
        let Watched { observer, violation } = &*self.watched.borrow();
        let watched = Rc::new(RefCell::new(Watched { observer: observer.clone(), violation: violation.clone() }));
        watch(&mut driver, &watched);
        Self {
            setting: Arc::clone(&self.setting),
            driver,
            watched,
            wire: self.wire.clone(),
            old_up: self.old_up.clone(),
            old_down: self.old_down.clone(),
            console: self.console.clone(),
            work: self.work.clone(),
            broken: self.broken.clone(),
            ..*self
        }
    }

    fn is_stopped(&self) -> bool {
        self.driver.is_stopped()
    }

    /// All that may happen now.
    pub(crate) fn actions(&self) -> Vec<Move> {
        let mut actions = Vec::with_capacity(16);
        if self.is_stopped() || self.broken.is_some() {
            return actions;
        }
        let connection = self.setting.part == Part::Connection;
        if self.registering.is_some() {
            actions.extend([201, 401, 404, 422, 410, 503].map(Move::Answers));
            actions.extend([Move::AsksToWait(429), Move::Fails]);
        }
        if self.dialling.is_some() {
            actions.extend([Move::Accepts, Move::Fails]);
            if connection {
                actions.extend([Move::RefusesKey, Move::RefusesDial, Move::Refuses]);
            }
        }
        if self.probing.is_some() {
            actions.extend([PortState::Open, PortState::Refused, PortState::Unreachable].map(Move::PortIs));
        }
        if self.late_dial.is_some() || self.late_registration.is_some() {
            actions.push(Move::AcceptsLate);
        }
        if let Some(wire) = &self.wire {
            if !wire.silent {
                if !wire.greeted {
                    actions.push(Move::Greets);
                }
                if !wire.up.is_empty() {
                    actions.push(Move::Reads);
                }
                if !wire.down.is_empty() {
                    actions.push(Move::PongArrives);
                }
                actions.push(Move::Closes(1001, CloseReason::Other));
                if connection {
                    actions.extend([
                        Move::Closes(1000, CloseReason::Other),
                        Move::Closes(1001, CloseReason::Replaced),
                        Move::Closes(1008, CloseReason::Authentication),
                        Move::Closes(1008, CloseReason::UnknownInstance),
                    ]);
                }
                if !connection {
                    actions.push(Move::Stalls);
                }
            }
            actions.push(Move::Resets);
        }
        if self.closing.is_some() {
            actions.push(Move::SocketGone);
        }
        if !self.old_up.is_empty() {
            actions.push(Move::ReadsOld);
        }
        if !self.old_down.is_empty() {
            actions.push(Move::OldPongArrives);
        }
        if !self.stop_asked {
            actions.push(Move::Stops);
        }
        if connection && self.wire.as_ref().is_some_and(|wire| wire.down.len() < PINGS_MAX) {
            actions.push(Move::Sleeps);
        }
        if !connection && !self.stop_asked {
            if self.work.notes < NOTES_MAX {
                actions.push(Move::Notes);
            }
            if self.work.is_open && self.work.printed < FRAMES_MAX {
                actions.push(Move::Prints);
            }
            if self.work.is_open {
                actions.push(Move::Exits);
            }
        }
        actions.push(Move::TimePasses);
        actions
    }

    /// Lets one thing happen.
    pub(crate) fn step(&mut self, action: Move) {
        match action {
            Move::TimePasses => self.time_passes(),
            Move::Answers(status) => self.answer(status, None),
            Move::AsksToWait(status) => self.answer(status, Some(RETRY_AFTER_MS)),
            Move::Fails => self.attempt_fails(Failure::Connect, None),
            Move::Refuses => self.attempt_fails(Failure::Refused, None),
            Move::PortIs(found) => {
                if let Some(probe) = self.probing.take() {
                    self.turn(Input::PortProbed { probe, found });
                }
            }
            Move::RefusesKey => self.attempt_fails(Failure::Unauthorized, None),
            Move::RefusesDial => self.attempt_fails(Failure::Status, Some(RETRY_AFTER_MS)),
            Move::Accepts => self.accept(),
            Move::AcceptsLate => {
                if let Some(link) = self.late_dial.take() {
                    self.turn(Input::LinkOpened { link });
                } else if let Some(attempt) = self.late_registration.take() {
                    self.turn(Input::RegistrationAnswered { attempt, status: 201, retry_after_ms: None });
                }
            }
            Move::Greets => {
                if let Some(wire) = &mut self.wire {
                    (wire.listens, wire.greeted) = (true, true);
                    let link = wire.link;
                    self.turn(Input::Received { link, message: ConsoleMessage::Other });
                }
            }
            Move::Reads => self.console_reads(),
            Move::PongArrives => self.pong_arrives(),
            Move::Closes(code, reason) => {
                self.end_wire(false, |link| Input::CloseReceived { link, code, reason });
            }
            Move::Resets => self.end_wire(true, |link| Input::LinkLost { link, cause: Loss::Reset }),
            Move::Stalls => self.break_unnoticed(true),
            Move::SocketGone => {
                if let Some((link, _)) = self.closing.take() {
                    self.turn(Input::LinkClosed { link });
                }
            }
            Move::ReadsOld => {
                if let Some(Up::Text(text)) = self.old_up.pop_front() {
                    self.read(text);
                }
                self.check();
            }
            Move::OldPongArrives => self.old_pong_arrives(),
            Move::Stops => {
                self.stop_asked = true;
                self.turn(Input::ShutdownRequested);
            }
            Move::Sleeps => self.turn(Input::ClockJumped { cause: ClockJump::Suspend, gap_ms: 60_000, entropy: 0 }),
            Move::Notes => {
                self.work.notes += 1;
                self.turn(Input::Noted { note: NoteId(self.work.notes.into()), cause: None });
            }
            Move::Prints => {
                self.work.printed += 1;
                self.turn(Input::Output { stream: STREAM, from: 0, end: self.work.printed });
            }
            Move::Exits => {
                self.work.is_open = false;
                let ends = [SessionInput::Exited { code: 0 }, SessionInput::EndOfOutput, SessionInput::Reaped];
                ends.into_iter()
                    .for_each(|what| self.driver.handle(self.now, Input::Session { session: SESSION, what }));
                self.polled();
            }
        }
    }

    fn time_passes(&mut self) {
        (self.late_dial, self.late_registration) = (None, None);
        let Some(next) = self.driver.next_deadline() else { return };
        self.now = self.now.max(next);
        let (now, within_ms) = (self.now, self.setting.listens_within_ms());
        if let Some(wire) = &mut self.wire {
            wire.listens |= now.ms_since(wire.opened) >= within_ms;
            if wire.stuck && self.setting.planted == Some(Planted::DoesNotSeeStalledWrites) {
                self.driver.handle(now, Input::WriteProgress { bytes: now.as_ms() });
            }
        }
        self.polled();
    }

    fn answer(&mut self, status: u16, retry_after_ms: Option<u64>) {
        if let Some(attempt) = self.registering.take() {
            self.turn(Input::RegistrationAnswered { attempt, status, retry_after_ms });
        }
    }

    fn attempt_fails(&mut self, cause: Failure, retry_after_ms: Option<u64>) {
        if let Some(attempt) = self.registering.take() {
            self.turn(Input::RegistrationFailed { attempt, cause });
        } else if let Some(link) = self.dialling.take() {
            self.turn(Input::DialFailed { link, cause, retry_after_ms });
        }
    }

    fn accept(&mut self) {
        let Some(link) = self.dialling.take() else { return };
        self.wire = Some(Wire {
            link,
            opened: self.now,
            listens: self.setting.part == Part::Connection,
            greeted: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            newest_ping: 0,
            silent: false,
            stuck: false,
        });
        self.turn(Input::LinkOpened { link });
    }

    /// What is left of a connection may be read late; of those before it, nothing will.
    fn leave(&mut self, up: VecDeque<Up>, down: VecDeque<Ping>) {
        if self.setting.part == Part::Delivery && !(up.is_empty() && down.is_empty()) {
            (self.old_up, self.old_down) = (up, down);
        }
    }

    fn end_wire(&mut self, is_closed: bool, input: impl FnOnce(LinkId) -> Input) {
        let Some(wire) = self.wire.take() else { return };
        self.leave(wire.up, wire.down);
        self.closing = Some((wire.link, is_closed));
        self.turn(input(wire.link));
    }

    /// Nothing passes any more; what was under way is read late or never.
    fn break_unnoticed(&mut self, is_stuck: bool) {
        if let Some(wire) = &mut self.wire {
            (wire.silent, wire.stuck) = (true, is_stuck);
            let (up, down) = (std::mem::take(&mut wire.up), std::mem::take(&mut wire.down));
            self.leave(up, down);
        }
    }

    fn console_reads(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        match wire.up.pop_front() {
            Some(Up::Ping(ping)) => wire.down.push_back(ping),
            Some(Up::Text(text)) if wire.listens => self.read(text),
            // An agent on its way out cannot wait for a console that does not greet: this loss is excused.
            Some(Up::Text(text)) if self.stop_asked => self.excuse(text),
            Some(Up::Text(_)) | None => {}
        }
        self.check();
    }

    fn read(&mut self, text: Text) {
        match text {
            Text::State => {}
            Text::Reliable(number) => {
                let first = (1..=self.work.made)
                    .find(|other| Some(*other) != self.work.closed && !self.console.seen.contains(other));
                let is_next = self.console.seen.contains(&number) || first == Some(number);
                self.require(is_next, Broken::Order);
                self.see(number);
            }
            Text::Closed(number) => {
                self.require(self.console.bytes == self.work.printed, Broken::Order);
                self.see(number);
            }
            Text::Bytes { from, end } => {
                self.require(from <= self.console.bytes, Broken::Order);
                self.console.bytes = self.console.bytes.max(end);
            }
        }
    }

    /// Counts as read what the console could not hear.
    fn excuse(&mut self, text: Text) {
        match text {
            Text::State => {}
            Text::Reliable(number) | Text::Closed(number) => self.see(number),
            Text::Bytes { end, .. } => self.console.bytes = self.console.bytes.max(end),
        }
    }

    fn see(&mut self, number: u8) {
        if !self.console.seen.contains(&number) {
            self.console.seen.push(number);
            self.console.seen.sort_unstable();
        }
    }

    fn pong_arrives(&mut self) {
        let planted = self.setting.planted;
        let Some(wire) = &mut self.wire else { return };
        let Some(Ping(mut payload)) = wire.down.pop_front() else { return };
        let link = wire.link;
        if planted == Some(Planted::AcknowledgesPastThePing) {
            payload = self.newest_ping.unwrap_or(payload);
        }
        self.turn(Input::Pong { link, payload });
    }

    fn old_pong_arrives(&mut self) {
        let Some(Ping(payload)) = self.old_down.pop_front() else { return };
        match (self.setting.planted, &self.wire, self.newest_ping) {
            (Some(Planted::AcceptsPongsOfOldLinks), Some(Wire { link, .. }), Some(payload)) => {
                self.turn(Input::Pong { link: *link, payload });
            }
            _ => {
                let link = LinkId(u32::from_be_bytes(payload[2..6].try_into().expect("four bytes")));
                self.turn(Input::Pong { link, payload });
            }
        }
    }

    fn turn(&mut self, input: Input) {
        self.driver.handle(self.now, input);
        self.polled();
    }

    /// Does what the driver wants until it wants nothing.
    fn polled(&mut self) {
        let mut outputs = 0;
        loop {
            let mut follow_up = Vec::new();
            let mut host = Host { part: self.setting.part, planted: self.setting.planted, work: &mut self.work };
            while let Some(output) = self.driver.poll(self.now, &mut host) {
                outputs += 1;
                if outputs > OUTPUTS_MAX {
                    self.require(false, Broken::Deadline);
                    return;
                }
                follow_up.extend(self.perform(output));
                host = Host { part: self.setting.part, planted: self.setting.planted, work: &mut self.work };
            }
            if follow_up.is_empty() {
                break;
            }
            follow_up.into_iter().for_each(|input| self.driver.handle(self.now, input));
        }
        self.check();
    }

    fn perform(&mut self, output: Output<Text>) -> Option<Input> {
        match output {
            Output::Write { link, frames } => return self.write(link, frames),
            Output::Append { append, .. } => return Some(Input::Appended { append }),
            Output::Do(Do::Register { attempt, .. }) => {
                (self.registering, self.newest_attempt, self.hung) = (Some(attempt), attempt, false);
            }
            Output::Do(Do::AbandonRegistration { attempt, .. }) => {
                (self.registering, self.late_registration) = (None, Some(attempt));
            }
            Output::Do(Do::Dial { link }) => {
                let is_open = self.wire.is_some() || self.closing.is_some_and(|(_, is_closed)| !is_closed);
                self.require(!is_open && self.dialling.is_none(), Broken::SecondLink);
                (self.dialling, self.newest_link, self.hung) = (Some(link), link, false);
            }
            Output::Do(Do::ProbePort { probe }) => (self.probing, self.hung) = (Some(probe), false),
            Output::Do(Do::AbandonPortProbe { .. }) => self.probing = None,
            Output::Do(Do::AbandonDial { link, .. }) => (self.dialling, self.late_dial) = (None, Some(link)),
            Output::Do(Do::CloseLink { link, .. }) => {
                if let Some(wire) = self.wire.take_if(|wire| wire.link == link) {
                    self.leave(wire.up, wire.down);
                    self.closing = Some((link, false));
                }
            }
            Output::Do(Do::DropLink { link }) => {
                let is_dropped = self.setting.planted != Some(Planted::KeepsDeadSockets);
                if let Some(wire) = self.wire.take_if(|wire| wire.link == link) {
                    self.leave(wire.up, wire.down);
                    self.closing = Some((link, is_dropped));
                } else if let Some((_, is_closed)) = self.closing.as_mut().filter(|(closing, _)| *closing == link) {
                    *is_closed |= is_dropped;
                }
            }
            Output::Do(Do::TakeSample { sample }) => return Some(Input::Sampled { sample }),
            Output::Do(Do::OpenSession { session, .. }) => {
                self.work.is_open = true;
                return Some(Input::Session { session, what: SessionInput::Opened });
            }
            Output::Do(Do::ReadCredit { keep_from: Some(acked), .. }) => {
                self.require(acked <= self.console.bytes, Broken::Acknowledged);
            }
            Output::Do(Do::Release { .. }) => {
                self.require(self.console.bytes == self.work.printed, Broken::Acknowledged);
            }
            Output::Do(Do::Log {
                notice: Notice::MessageDropped { .. } | Notice::PoisonDropped { .. } | Notice::ResultCut { .. },
            }) => self.require(false, Broken::Order),
            Output::Do(_) => {}
        }
        None
    }

    fn write(&mut self, link: LinkId, mut frames: Vec<Frame<Text>>) -> Option<Input> {
        let Some(wire) = self.wire.as_mut().filter(|wire| wire.link == link) else {
            self.require(false, Broken::SecondLink);
            return None;
        };
        if self.setting.planted == Some(Planted::ReversesBatches) {
            frames.reverse();
        }
        for frame in frames {
            match frame {
                Frame::Text(text) if self.setting.part == Part::Delivery => wire.up.push_back(Up::Text(text)),
                Frame::Text(_) => {}
                Frame::Ping(payload) => {
                    self.newest_ping = Some(payload);
                    wire.newest_ping = Ping(payload).number();
                    match self.setting.part {
                        Part::Delivery => wire.up.push_back(Up::Ping(Ping(payload))),
                        Part::Connection => wire.down.push_back(Ping(payload)),
                    }
                }
            }
        }
        if wire.silent {
            wire.up.clear();
            wire.down.clear();
        }
        (!wire.stuck).then_some(Input::Written { link })
    }

    fn require(&mut self, holds: bool, broken: Broken) {
        if !holds {
            self.broken.get_or_insert(broken);
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
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
    fn is_settled(&self) -> bool {
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
    fn calm_action(&self) -> Option<Move> {
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
    pub(crate) fn calms_down(&self, is_silent: bool) -> Result<(), Broken> {
        self.fork(Draws::Greatest).calm_down(is_silent)
    }

    /// The same for this world itself.
    pub(crate) fn calm_down(&mut self, is_silent: bool) -> Result<(), Broken> {
        let latest = self.now.after_ms(self.setting.calm_ms());
        if is_silent {
            self.hung = self.registering.is_some() || self.dialling.is_some() || self.probing.is_some();
            let is_stuck = self.wire.as_ref().is_some_and(|wire| wire.stuck);
            self.break_unnoticed(is_stuck);
        }
        while !self.is_settled() {
            let action = self.calm_action().ok_or(Broken::Calm)?;
            self.step(action);
            if let Some(broken) = &self.broken {
                return Err(broken.clone());
            }
            if self.now > latest {
                return Err(Broken::Calm);
            }
        }
        Ok(())
    }
}

/// What the driver asks for bodies and bytes.
struct Host<'a> {
    part: Part,
    planted: Option<Planted>,
    work: &'a mut Work,
}

impl Encode for Host<'_> {
    type Body = Text;

    fn encode(&mut self, message: &Message) -> Option<Text> {
        match message {
            Message::State(_) => Some(Text::State),
            // What the connection reports of itself is left out: it would be one more message for each link.
            Message::Event(_) => None,
            _ if self.part == Part::Connection => None,
            message => {
                self.work.made += 1;
                let is_end = matches!(message, Message::Closed { .. });
                if is_end {
                    self.work.closed = Some(self.work.made);
                }
                // The fault is the driver's: what was made is not kept.
                let is_lost = is_end && self.planted == Some(Planted::LosesResults);
                let text = if is_end { Text::Closed(self.work.made) } else { Text::Reliable(self.work.made) };
                (!is_lost).then_some(text)
            }
        }
    }
}

impl ByteSource for Host<'_> {
    fn held(&mut self, _: StreamKey) -> std::ops::Range<u64> {
        0..self.work.printed
    }

    fn cut(&mut self, _: StreamKey, chunk: Chunk) -> (usize, Option<Text>) {
        let Chunk::Bytes { from, .. } = chunk else { return (0, None) };
        let counted = 1 + usize::from(self.planted == Some(Planted::CountsBytesThatWereNotSent));
        (counted, Some(Text::Bytes { from, end: from + 1 }))
    }
}
