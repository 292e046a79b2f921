//! Bytes become inputs for the driver, times between them, and answers of its host. In every order its invariants hold,
//! and it can always connect again.
//!
//! The target checks what the driver must never do. After every step the [`Observer`] of the exhaustive test checks the
//! connection, and `children` checks sessions and commands. After the last byte the world becomes calm: everything
//! answers, and the driver must reach `connected.ready` with everything delivered, or `stopped` after SIGTERM. At the
//! end every run stops the driver, which must have answered for every child.
//!
//! An input is one byte for the seed of the jitter and of the host's answers, one byte of flags (`World::new`), and
//! then one byte for each step. Its upper three bits choose how time passes (`World::pass`), its lower five the input.
//! Up to two more bytes follow: a duration (`DURATIONS_MS`) and the content of the input (`inputs`).

mod children;
mod host;
mod inputs;

use children::Children;
use draupnir_fsm::delivery::RELIABLE_MESSAGES_MAX;
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Action, AuditId, Clocks, CommandInput, CommandKey, Driver, Frame, INPUTS_PER_TURN_MAX, IdSource, Input, LinkId,
    Output, PING_PAYLOAD_BYTES, Policy, PortProbe, RELIABLE_BYTES_MAX, RegistrationAttempt, SESSIONS_MAX, Schedule,
    SessionInput, SessionKey, StreamKey, TakenOver, Time,
};
use draupnir_fsm::machine::invariants::Observer;
use host::{Host, NextHost};
use std::cell::RefCell;
use std::rc::Rc;

/// The most inputs of one storm: more make it slow and find nothing new.
const INPUTS_MAX: u32 = 1_000;

/// The most outputs in a turn: more are an endless loop.
const OUTPUTS_MAX: u32 = 20_000;

/// How late a tick may be without being a jump of the clock, in milliseconds.
const LATE_MS_MAX: u64 = 2_000;

/// The longest way back to `connected.ready`, in milliseconds: a `Retry-After` of ten minutes and its jitter of the
/// same length, the end of an old link, a new dial, and the delivery of everything.
const READY_MS: u64 = 25 * 60_000;

/// The durations that a byte chooses from, in milliseconds: those of the policy, and values next to them.
const DURATIONS_MS: [u64; 32] = [
    0, 1, 2, 5, 10, 50, 100, 249, 250, 251, 499, 500, 999, 1_000, 1_001, 1_500, 1_999, 2_000, 2_001, 2_500, 4_000,
    5_000, 10_000, 15_000, 30_000, 40_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000,
];

/// Checks one input.
pub fn run(input: &[u8]) {
    let mut bytes = input.iter().copied();
    let (Some(seed), Some(flags)) = (bytes.next(), bytes.next()) else { return };
    let mut world = World::new(seed, flags);
    while world.inputs < INPUTS_MAX && !world.exited {
        let Some(step) = bytes.next() else { break };
        world.step(step, &mut bytes);
    }
    world.hand_over();
    world.become_calm();
}

/// What is given but for what the clock and the lack of a link change.
fn without_clock(what: TakenOver) -> TakenOver {
    match what {
        TakenOver::Session { session, id, at, end, replay, orphan_in_ms: _ } => {
            TakenOver::Session { session, id, at, end, replay, orphan_in_ms: None }
        }
        TakenOver::Command { command, id, streams, end, timeout_in_ms: _ } => {
            TakenOver::Command { command, id, streams, end, timeout_in_ms: 0 }
        }
        what => what,
    }
}

/// Checks every step of the machine inside the driver.
struct Watch {
    observer: Observer,
    children: Children,
}

/// The numbers of the current link and attempt.
struct InUse {
    registering: Option<RegistrationAttempt>,
    probing: Option<PortProbe>,
    dialling: Option<LinkId>,
    live: Option<LinkId>,
    closing: Option<LinkId>,
}

/// The driver, its checkers, and the state that is necessary to give it plausible inputs.
struct World {
    driver: Driver<usize>,
    host: Host,
    watch: Rc<RefCell<Watch>>,
    now: Time,
    inputs: u32,
    /// Inputs since the last turn.
    batch: usize,
    latest_attempt: RegistrationAttempt,
    latest_link: LinkId,
    latest_probe: PortProbe,
    latest_audit: AuditId,
    newest_ping: Option<[u8; PING_PAYLOAD_BYTES]>,
    next_key: u32,
    sessions: Vec<SessionKey>,
    commands: Vec<CommandKey>,
    /// Jumps of the clock, each of which may make a retry wait a little longer.
    jumps: u64,
    exited: bool,
}

impl World {
    /// A new driver. By `flags`: bit 0: it remembers its id; bit 1: the heartbeat interval is the shortest that the
    /// configuration allows; bit 2: an audit log is configured.
    fn new(seed: u8, flags: u8) -> Self {
        let policy = Policy::default();
        let schedule = if flags & 2 == 0 {
            Schedule::default()
        } else {
            Schedule { heartbeat_ms: 5_000, metrics_ms: 5_000, ..Schedule::default() }
        };
        let watch = Watch { observer: Observer::new(policy.clone()), children: Children::default() };
        let watch = Rc::new(RefCell::new(watch));
        let mut driver = Driver::new(policy, schedule, u64::from(seed), flags & 4 != 0, Rc::new(Budget::new()));
        let watching = Rc::clone(&watch);
        driver.observe_machine(Box::new(move |now, fact, orders, seen| {
            let Watch { observer, children } = &mut *watching.borrow_mut();
            if let Err(violation) = observer.step(now, fact, orders, seen) {
                panic!("{violation:?} at {now} after {fact:?}: {orders:?}, {seen:?}");
            }
            children.learn(fact);
            orders.iter().for_each(|order| children.see(order));
        }));
        let mut world = Self {
            driver,
            host: Host::new(u64::from(seed)),
            watch,
            now: Time::START,
            inputs: 0,
            batch: 0,
            latest_attempt: RegistrationAttempt(0),
            latest_link: LinkId(0),
            latest_probe: PortProbe(0),
            latest_audit: AuditId(0),
            newest_ping: None,
            next_key: 0,
            sessions: Vec::new(),
            commands: Vec::new(),
            jumps: 0,
            exited: false,
        };
        let id = if flags & 1 != 0 { IdSource::Remembered } else { IdSource::Configured };
        world.handle(Input::Started { id });
        world.turn();
        world
    }

    fn step(&mut self, step: u8, bytes: &mut impl Iterator<Item = u8>) {
        self.pass(step >> 5, bytes);
        self.choose_input(step & 31, bytes);
    }

    /// Lets time pass as the upper bits of a step say.
    fn pass(&mut self, how: u8, bytes: &mut impl Iterator<Item = u8>) {
        if how == 0 && self.batch < INPUTS_PER_TURN_MAX {
            return; // Another input at the same time.
        }
        self.turn();
        match how {
            2 | 3 => self.live(duration(bytes), how == 3),
            4 => self.wake_at_deadline(0),
            5 => self.wake_at_deadline(duration(bytes).min(LATE_MS_MAX)),
            6 => {
                self.now = self.now.after_ms(duration(bytes));
                self.wake();
            }
            7 => {
                self.wake_at_deadline(0);
                self.turn();
            }
            _ => {}
        }
    }

    /// Lets time pass and wakes at every deadline. In a `good` world the console answers.
    fn live(&mut self, ms: u64, good: bool) {
        let end = self.now.after_ms(ms);
        while self.driver.next_deadline().is_some_and(|next| next <= end) && self.inputs < INPUTS_MAX {
            self.inputs += 1;
            self.wake_at_deadline(0);
            self.turn();
            if good {
                self.console_behaves();
            }
        }
        self.now = self.now.max(end);
        self.wake();
    }

    fn wake_at_deadline(&mut self, late_ms: u64) {
        if let Some(next) = self.driver.next_deadline() {
            self.now = self.now.max(next.after_ms(late_ms));
            self.wake();
        }
    }

    /// Compares the clocks, as the loop does first when it wakes.
    fn wake(&mut self) {
        let ms = self.now.as_ms();
        let mut jumps = 0;
        let clocks = Clocks { monotonic_ms: ms, boot_time_ms: ms, real_time_ms: ms };
        self.driver.observe(self.now, clocks, || {
            jumps = 1;
            ms
        });
        self.jumps += jumps;
    }

    fn handle(&mut self, input: Input) {
        if self.exited {
            return;
        }
        if self.batch >= INPUTS_PER_TURN_MAX {
            self.turn();
        }
        self.inputs += 1;
        self.batch += 1;
        self.jumps += u64::from(matches!(input, Input::ClockJumped { .. }));
        self.driver.handle(self.now, input);
    }

    /// Performs the driver's outputs, and checks what must hold after them.
    fn turn(&mut self) {
        self.batch = 0;
        let mut outputs = 0;
        while let Some(output) = self.driver.poll(self.now, &mut self.host) {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "no end of {output:?}");
            let writes = matches!(output, Output::Write { .. });
            assert!(!(self.exited && writes), "{output:?} after the exit");
            self.perform(&output);
        }
        let next = self.driver.next_deadline();
        let seen = self.driver.snapshot();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} is over at {}: {seen:?}", self.now);
        let kept = seen.messages <= RELIABLE_MESSAGES_MAX && seen.message_bytes <= RELIABLE_BYTES_MAX;
        assert!(kept && seen.sessions <= SESSIONS_MAX, "{seen:?}");
    }

    fn perform(&mut self, output: &Output<usize>) {
        match output {
            Output::Write { link, frames } => {
                assert_eq!(self.in_use().live, Some(*link), "{output:?}");
                let mut pings = frames.iter().filter_map(|frame| match frame {
                    Frame::Ping(payload) => Some(*payload),
                    Frame::Text(_) => None,
                });
                self.newest_ping = pings.next_back().or(self.newest_ping);
            }
            Output::Do(Action::Register { attempt, .. }) => self.latest_attempt = *attempt,
            Output::Do(Action::Dial { link }) => (self.latest_link, self.newest_ping) = (*link, None),
            Output::Do(Action::ProbePort { probe }) => self.latest_probe = *probe,
            Output::Do(Action::Audit { audit, .. }) => self.latest_audit = *audit,
            Output::Do(Action::StopLogs { .. }) => {
                self.host.held.remove(&StreamKey::Logs);
            }
            Output::Do(Action::Exit) => self.exited = true,
            // It keeps no journal; the worlds of the simulation do.
            Output::Append { .. } | Output::Do(_) => {}
        }
    }

    fn in_use(&self) -> InUse {
        let observer = &self.watch.borrow().observer;
        InUse {
            registering: observer.registering(),
            probing: observer.probing(),
            dialling: observer.dialling(),
            live: observer.live(),
            closing: observer.closing(),
        }
    }

    /// Gives everything to a new driver, which must give on what it was given. This one goes on.
    fn hand_over(&mut self) {
        self.turn();
        let given = |driver: &Driver<usize>, now| {
            let all = driver.inheritance(now).into_iter().map(|(what, _)| what);
            // An output that has ended and has no byte left is finished at once.
            all.filter(|what| !matches!(what, TakenOver::Begun { .. } | TakenOver::Stream { .. }))
                .map(without_clock)
                .collect::<Vec<_>>()
        };
        let budget = Rc::new(Budget::new());
        let mut next = Driver::new(Policy::default(), Schedule::default(), 0, false, budget);
        let mut host = NextHost::new(self.host.held.clone());
        next.handle(Time::START, Input::Started { id: IdSource::Remembered });
        for (what, body) in self.driver.inheritance(self.now) {
            host.keep(&what, body);
            next.handle(Time::START, Input::TakenOver { what });
        }
        while next.poll(Time::START, &mut host).is_some() {}
        assert_eq!(given(&next, Time::START), given(&self.driver, self.now));
    }

    /// From now on nothing fails: the link comes up in time, every child ends, everything is delivered, and the agent
    /// exits after SIGTERM.
    fn become_calm(&mut self) {
        self.turn();
        self.host.calm = true;
        let since = self.now;
        let within_ms = READY_MS + self.jumps * Policy::default().first_retry_ms;
        loop {
            self.end_children();
            self.console_behaves();
            let seen = self.driver.snapshot();
            let is_done = seen.messages == 0 && seen.stream_bytes_in_flight == 0 && seen.sessions + seen.commands == 0;
            if seen.connection.state == "connected.ready" && is_done || self.driver.is_stopped() {
                break;
            }
            assert!(self.now.ms_since(since) <= within_ms, "still {seen:?} after {within_ms} ms of a good console");
            let next = self.driver.next_deadline().expect("a driver that has not stopped waits for something");
            // Children that were started meanwhile end at once.
            self.now = self.now.max(next);
            self.wake();
            self.turn();
        }
        if !self.driver.is_stopped() {
            assert_eq!(self.watch.borrow().children.unanswered(), None, "a child without an answer");
            self.leave();
        }
    }

    /// Ends all shells and commands, reads their last bytes and writes their audit lines.
    fn end_children(&mut self) {
        for audit in self.latest_audit.0.saturating_sub(64)..=self.latest_audit.0 {
            self.driver.handle(self.now, Input::Audited { audit: AuditId(audit) });
        }
        self.turn();
        for session in self.sessions.clone() {
            for what in [
                SessionInput::Opened,
                SessionInput::Exited { code: 0 },
                SessionInput::EndOfOutput,
                SessionInput::Reaped,
            ] {
                self.driver.handle(self.now, Input::Session { session, what });
            }
        }
        for command in self.commands.clone() {
            for what in [CommandInput::Started, CommandInput::Exited { code: 0 }, CommandInput::EndOfOutput] {
                self.driver.handle(self.now, Input::Command { command, what });
            }
        }
        self.turn();
    }

    /// After SIGTERM with nothing to wait for, the agent closes the link and exits within the time of a drain.
    fn leave(&mut self) {
        let since = self.now;
        self.handle(Input::ShutdownRequested);
        self.turn();
        while !self.driver.is_stopped() {
            self.console_behaves();
            let Some(next) = self.driver.next_deadline() else { break };
            self.now = self.now.max(next);
            self.wake();
            self.turn();
            assert!(self.now.ms_since(since) <= Policy::default().drain_exit_ms, "{:?}", self.driver.snapshot());
        }
        assert!(self.exited, "stopped without leaving");
    }
}

fn duration(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let byte = bytes.next().unwrap_or(0);
    DURATIONS_MS[usize::from(byte & 31)] + u64::from(byte >> 5)
}
