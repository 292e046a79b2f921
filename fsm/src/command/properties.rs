//! Console, processes and clock act in any order; a model beside the machine checks every order it gives.

use super::*;
use crate::id::CommandKey;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use proptest::prelude::*;

/// One thing that can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A dispatch of one of a few ids.
    Request {
        id_hash: u128,
        timeout_ms: u64,
    },
    /// A fact about one of those that run.
    Running {
        choice: usize,
        fact: CommandFact,
    },
    /// A fact about any number, sensible or not.
    Any {
        command: CommandKey,
        fact: CommandFact,
    },
    /// Time passes, with a tick at its end.
    Pass {
        ms: u64,
    },
    /// Time passes in which nothing runs.
    Sleep {
        ms: u64,
    },
    /// Results can be held, or cannot.
    Room(bool),
    /// The three steps of a drain.
    DrainBegin,
    DrainTerminate,
    DrainKill,
}

fn fact() -> impl Strategy<Value = CommandFact> {
    prop_oneof![
        Just(CommandFact::Started),
        Just(CommandFact::Failed),
        (0..256).prop_map(|code| CommandFact::Exited { code }),
        Just(CommandFact::EndOfOutput),
        Just(CommandFact::CancelRequested),
        (0..1_000_000u32).prop_map(|bytes| CommandFact::Answered { bytes }),
    ]
}

/// An ordinary life, and then one with a drain somewhere.
fn life(ids: u128, turnover: u32, steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let ordinary = proptest::collection::vec(step(ids, turnover, 0), 1..steps_max);
    let draining = proptest::collection::vec(step(ids, turnover, 1), 0..100);
    (ordinary, draining).prop_map(|(mut steps, draining)| {
        steps.extend(draining);
        steps
    })
}

fn step(ids: u128, turnover: u32, drains: u32) -> impl Strategy<Value = Step> {
    let timeout_ms = prop_oneof![Just(0), Just(1), 2..5_000u64, any::<u64>()];
    prop_oneof![
        40 => (0..ids, timeout_ms)
            .prop_map(|(id_hash, timeout_ms)| Step::Request { id_hash, timeout_ms }),
        turnover => (0..RUNNING_MAX, fact()).prop_map(|(choice, fact)| Step::Running { choice, fact }),
        5 => (0..400u32, fact()).prop_map(|(command, fact)| Step::Any { command: CommandKey(command), fact }),
        12 => (0..3_000u64).prop_map(|ms| Step::Pass { ms }),
        1 => (0..100_000u64).prop_map(|ms| Step::Sleep { ms }),
        3 => (0..4).prop_map(|choice| Step::Room(choice > 0)),
        drains => Just(Step::DrainBegin),
        drains => Just(Step::DrainTerminate),
        drains => Just(Step::DrainKill),
    ]
}

/// What the model knows of one request.
#[derive(Debug)]
struct Request {
    id_hash: u128,
    /// Another command of this id waited or ran when it came.
    joined: bool,
    /// Its start was ordered.
    started: bool,
    /// Its process ran, as far as was reported.
    ran: bool,
    failed: bool,
    terminated: bool,
    killed: bool,
    answer: Option<Order>,
    forgotten: bool,
}

/// The machine, and what must be true of it.
struct World {
    commands: Commands,
    now: Time,
    room: bool,
    draining: bool,
    /// By number: the first request is command 0.
    requests: Vec<Request>,
    /// Taken and not started, in the order in which they came.
    waiting: VecDeque<CommandKey>,
    running: BTreeSet<CommandKey>,
    ids_started: BTreeSet<u128>,
}

impl World {
    fn new() -> Self {
        Self {
            commands: Commands::default(),
            now: Time::START,
            room: true,
            draining: false,
            requests: Vec::new(),
            waiting: VecDeque::new(),
            running: BTreeSet::new(),
            ids_started: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let mut orders = Vec::new();
        match step {
            Step::Request { id_hash, timeout_ms } => {
                let command = self.announce(id_hash);
                let fact = CommandFact::Requested { id_hash, timeout_ms };
                self.commands.handle(self.now, command, &fact, &mut orders);
            }
            Step::Running { choice, fact } => {
                let choice = choice % self.running.len().max(1);
                if let Some(command) = self.running.iter().nth(choice).copied() {
                    self.handle(command, fact, &mut orders);
                }
            }
            Step::Any { command, fact } => self.handle(command, fact, &mut orders),
            Step::Pass { ms } => {
                self.now = self.now.after_ms(ms);
                self.commands.tick(self.now, &mut orders);
            }
            Step::Sleep { ms } => {
                self.now = self.now.after_ms(ms);
                self.commands.shift_ms(ms);
            }
            Step::Room(room) => {
                self.room = room;
                self.commands.set_room(room);
            }
            Step::DrainBegin => {
                self.draining = true;
                self.commands.drain_begin(&mut orders);
            }
            Step::DrainTerminate => self.commands.drain_terminate(self.now, &mut orders),
            Step::DrainKill => self.commands.drain_kill(self.now, &mut orders),
        }
        for order in orders {
            self.check(order);
        }
        self.check_bounds();
    }

    /// Notes a request before the machine hears of it.
    fn announce(&mut self, id_hash: u128) -> CommandKey {
        let command = CommandKey(u32::try_from(self.requests.len()).expect("few"));
        let live = |key: &CommandKey| self.request(*key).id_hash == id_hash;
        let joined = self.waiting.iter().any(live) || self.running.iter().any(live);
        self.requests.push(Request {
            id_hash,
            joined,
            started: false,
            ran: false,
            failed: false,
            terminated: false,
            killed: false,
            answer: None,
            forgotten: false,
        });
        if !joined {
            self.waiting.push_back(command);
        }
        command
    }

    fn handle(&mut self, command: CommandKey, fact: CommandFact, orders: &mut Vec<Order>) {
        if self.running.contains(&command) {
            let request = self.request_mut(command);
            request.failed |= fact == CommandFact::Failed;
            request.ran |= matches!(fact, CommandFact::Started | CommandFact::Exited { .. });
        }
        self.commands.handle(self.now, command, &fact, orders);
    }

    fn request(&self, command: CommandKey) -> &Request {
        &self.requests[usize::try_from(command.0).expect("few")]
    }

    fn request_mut(&mut self, command: CommandKey) -> &mut Request {
        &mut self.requests[usize::try_from(command.0).expect("few")]
    }

    fn check(&mut self, order: Order) {
        match order {
            Order::StartCommand { command } => {
                assert!(!self.draining, "{order:?}");
                assert_eq!(self.waiting.pop_front(), Some(command), "out of order");
                assert!(self.running.insert(command));
                let request = self.request_mut(command);
                request.started = true;
                let id_hash = request.id_hash;
                assert!(self.ids_started.insert(id_hash), "{command} runs twice");
            }
            Order::TerminateCommand { command } => {
                assert!(self.running.contains(&command), "{order:?}");
                let request = self.request_mut(command);
                assert!(request.ran && !request.terminated && !request.killed, "{order:?}");
                request.terminated = true;
            }
            Order::KillCommand { command } => {
                assert!(self.running.contains(&command), "{order:?}");
                let request = self.request_mut(command);
                assert!(request.terminated && !request.killed, "{order:?}");
                request.killed = true;
            }
            Order::FinishCommand { command, end, .. } => self.check_finish(command, end, order),
            Order::RefuseCommand { command, refusal } => {
                self.check_refusal(command, refusal, order);
            }
            Order::RepeatResult { command, of } => {
                let original = self.request(of);
                assert!(!original.forgotten, "{order:?}");
                assert!(matches!(original.answer, Some(Order::FinishCommand { .. })));
                assert_eq!(original.id_hash, self.request(command).id_hash);
                self.waiting.retain(|waiting| *waiting != command);
                self.answer(command, order);
            }
            Order::ForgetResult { command } => {
                let request = self.request_mut(command);
                assert!(request.answer.is_some() && !request.forgotten);
                request.forgotten = true;
            }
            other => panic!("not an order about a command: {other:?}"),
        }
    }

    fn check_finish(&mut self, command: CommandKey, end: CommandEnd, order: Order) {
        if self.running.remove(&command) {
            let request = self.request(command);
            if request.terminated && !request.failed {
                assert!(request.killed, "{order:?} leaves its group alive");
                assert_ne!(end, CommandEnd::Exited);
            } else if request.ran {
                assert_eq!(end, CommandEnd::Exited);
            }
        } else {
            assert!(self.waiting.contains(&command), "{order:?}");
            assert_eq!(end, CommandEnd::Cancelled);
            self.waiting.retain(|waiting| *waiting != command);
        }
        self.answer(command, order);
    }

    fn check_refusal(&mut self, command: CommandKey, refusal: Refusal, order: Order) {
        assert!(self.waiting.contains(&command), "{order:?}");
        match refusal {
            // Its own place in the model's queue is one more.
            Refusal::Busy => assert!(!self.room || self.waiting.len() > WAITING_MAX),
            Refusal::Draining => assert!(self.draining),
            Refusal::Forgotten => {
                let id_hash = self.request(command).id_hash;
                let gone = |request: &Request| request.id_hash == id_hash && request.forgotten;
                assert!(self.requests.iter().any(gone), "{order:?}");
            }
        }
        self.waiting.retain(|waiting| *waiting != command);
        self.answer(command, order);
    }

    fn answer(&mut self, command: CommandKey, order: Order) {
        let request = self.request_mut(command);
        assert!(!request.joined, "{order:?}");
        assert_eq!(request.answer, None, "answered twice: {order:?}");
        request.answer = Some(order);
    }

    fn check_bounds(&self) {
        assert!(self.running.len() <= RUNNING_MAX);
        assert!(self.waiting.len() <= WAITING_MAX);
        assert_eq!(self.commands.running(), self.running.len());
        assert_eq!(self.commands.waiting(), self.waiting.len());
        let busy = !self.running.is_empty();
        assert!(!busy || self.commands.next_deadline().is_some());
    }

    /// Nothing more happens but that time passes: everything ends, within the longest time-out of each turn.
    fn calm(mut self) {
        self.take(Step::Room(true));
        let turns = self.waiting.len() / RUNNING_MAX + 2;
        let turn_ms = TIMEOUT_MAX_MS + KILL_AFTER_MS + KILL_TIMEOUT_MS;
        let mut bound_ms = turn_ms * u64::try_from(turns).expect("few");
        while let Some(deadline) = self.commands.next_deadline() {
            let ms = deadline.ms_since(self.now);
            bound_ms = bound_ms.checked_sub(ms).expect("commands never end");
            self.take(Step::Pass { ms });
        }
        assert!(self.commands.is_empty());
        for (command, request) in self.requests.iter().enumerate() {
            let answered = request.answer.is_some();
            assert_ne!(answered, request.joined, "{command}: {request:?}");
            assert!(!request.started || answered);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_once_and_runs_once(
        steps in prop_oneof![life(40, 40, 600), life(2_000, 40, 1_500), life(2_000, 2, 2_000)]
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.calm();
    }
}
