//! What the driver makes of one input about the console: the next thing it does there, and how long it waits before.
//!
//! A fresh driver with the policy of production is brought as far as the input needs, watched by the observer of
//! `draupnir_fsm`, and gets nothing afterwards but the time. All waits are in milliseconds.

use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Action, ByteSource, ConsoleMessage, Driver, Encode, IdSource, Input, LinkId, Message, Output, Policy, Schedule,
    Time,
};
use draupnir_fsm::machine::invariants::Observer;
use std::rc::Rc;

/// How many deadlines may pass before the driver does something about the console. It has few timers.
const DEADLINES_MAX: usize = 16;

/// A driver and its time.
pub(crate) struct Aftermath {
    driver: Driver<usize>,
    now: Time,
}

/// What the driver does next about the console.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) action: Action,
    pub(crate) waited_ms: u64,
}

/// Encodes each message as 300 bytes, and has no stream.
struct Host;

impl Encode for Host {
    type Body = usize;

    fn encode(&mut self, _message: &Message) -> Option<usize> {
        Some(300)
    }
}

impl ByteSource for Host {}

impl Aftermath {
    /// A driver that has just started, and its first action about the console.
    pub(crate) fn of_start(remembered: bool, seed: u64) -> (Self, Action) {
        let mut driver = Driver::new(Policy::default(), Schedule::default(), seed, false, Rc::new(Budget::new()));
        let mut observer = Observer::new(Policy::default());
        driver.observe_machine(Box::new(move |now, fact, orders, seen| {
            assert_eq!(observer.step(now, fact, orders, seen), Ok(()), "after {fact:?}");
        }));
        let mut aftermath = Self { driver, now: Time::START };
        let id = if remembered { IdSource::Remembered } else { IdSource::Configured };
        let first = aftermath.next_after(Input::Started { id });
        (aftermath, first.action)
    }

    /// A driver whose first link is up and greeted.
    pub(crate) fn of_ready_link(seed: u64) -> (Self, LinkId) {
        let (mut aftermath, action) = Self::of_start(true, seed);
        let Action::Dial { link } = action else { panic!("not a dial but {action:?} where an id is remembered") };
        aftermath.handle(Input::LinkOpened { link });
        aftermath.handle(Input::Received { link, message: ConsoleMessage::Other });
        (aftermath, link)
    }

    /// Hands over one input; the actions that follow at once.
    pub(crate) fn handle(&mut self, input: Input) -> Vec<Action> {
        self.driver.handle(self.now, input);
        self.turn()
    }

    fn turn(&mut self) -> Vec<Action> {
        let outputs = std::iter::from_fn(|| self.driver.poll(self.now, &mut Host));
        let actions = outputs.filter_map(|output| match output {
            Output::Do(action) => Some(action),
            Output::Write { .. } | Output::Append { .. } => None,
        });
        actions.collect()
    }

    /// Hands over one input, and lets time pass until the driver registers or dials, which may be at once.
    pub(crate) fn next_after(&mut self, input: Input) -> Next {
        let since = self.now;
        let mut actions = self.handle(input);
        for _ in 0..DEADLINES_MAX {
            let next =
                actions.into_iter().find(|action| matches!(action, Action::Register { .. } | Action::Dial { .. }));
            if let Some(action) = next {
                return Next { action, waited_ms: self.now.ms_since(since) };
            }
            self.now = self.driver.next_deadline().expect("a driver that has not stopped has a deadline").max(self.now);
            actions = self.turn();
        }
        panic!("after {DEADLINES_MAX} deadlines the driver has neither registered nor dialled");
    }
}
