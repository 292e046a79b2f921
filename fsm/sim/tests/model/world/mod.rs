//! The driver, a network and a console, as small as they can be: every step of them is a move.
//!
//! | file | what it is |
//! |---|---|
//! | `moves` | what may happen next, and what it does |
//! | `wire` | a connection as the agent sees it |
//! | `work` | what there is to deliver, and what the console has of it |
//! | `outputs` | what the driver wants, done |
//! | `calm` | what must hold after every step, and once nothing more goes wrong |

mod calm;
mod moves;
mod outputs;
mod wire;
mod work;

pub(crate) use calm::{Broken, CalmTimes};
pub(crate) use moves::Move;
pub(crate) use work::Text;

use crate::setting::{Part, SCHEDULE, Setting};
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    ConsoleId, ConsoleMessage, Driver, IdSource, Input, LinkId, PING_PAYLOAD_BYTES, PortProbe, RegistrationAttempt,
    SessionKey, StreamKey, Time,
};
use draupnir_fsm::machine::invariants::{InvariantViolation, Observer};
use draupnir_fsm::random::Random;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use wire::{Ping, Up, Wire, hash_frames, hash_ping};
use work::{Console, Work};

/// When the agent of a model starts: further back than any rule looks, so that its start makes no difference.
const START: Time = Time::from_ms(4_000_000);

/// The session of the model.
const SESSION: SessionKey = SessionKey(1);
const STREAM: StreamKey = StreamKey::Terminal(SESSION);

/// Where jitter is constant, the state of the generator whose every number is 0, and the greatest.
const LEAST: u64 = 0;
const GREATEST: u64 = 0xCF9A_04AF_FA6B_ADC0;

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
        (self.late_registration.is_some(), self.late_dial.is_some(), self.stop_asked).hash(state);
        // That a link before the newest is gone is no news, whichever it was.
        self.closing.map(|(link, is_closed)| (link == self.newest_link, is_closed)).hash(state);
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
}
