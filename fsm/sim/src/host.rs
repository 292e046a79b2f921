//! The agent's process: the driver, the loop around it as the agent has it, and the clocks that it reads.
//!
//! It decides nothing. Like the agent's loop it compares the clocks when it wakes, before it hands over what is there;
//! then it does what the driver wants. Events wait while the process is stopped.

use crate::doors::Doors;
use crate::doors::Text;
use crate::plan::{Fault, Plan};
use crate::planted::Planted;
use crate::rules::Rules;
use crate::violation::Violation;
use crate::watcher::Watcher;
use crate::work::SCHEDULE;
use crate::world::{Event, World};
use draupnir_fsm::delivery::{
    LINK_WINDOW_BYTES_MAX, PROMISED_CLOSED_BYTES, PROMISED_RESULT_BYTES, RELIABLE_MESSAGES_MAX,
};
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Clocks, Driver, HandOverStep, INPUTS_PER_TURN_MAX, Input, LinkId, PING_PAYLOAD_BYTES, PanicHistory, Policy,
    PortProbe, RELIABLE_BYTES_MAX, SESSIONS_MAX, SYNC_INTERVAL_MS, Snapshot, Step, Time,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// How often the loop may wake for nothing but a deadline, in a second: a few timers, and markers and progress checks.
const WAKES_PER_SECOND_MAX: u32 = 40;

/// How long a dead link may go unnoticed: the next Ping, the time for its Pong or for the write to move, and the slack
/// with which both are looked at.
const DEAD_LINK_MS: u64 = 25_000;

/// The most that is in flight: the window of the link and one frame beyond it.
const IN_FLIGHT_BYTES_MAX: u64 = LINK_WINDOW_BYTES_MAX + (48 << 10);

/// Of so many outputs, one finds the process dead where processes die at all.
const DIES_ONE_IN: u64 = 400;

/// More outputs in one turn than this are a loop that does not end.
const OUTPUTS_MAX: u32 = 100_000;

/// The process, and the program in it. A restart replaces all of it; what another program keeps is in `programs`.
pub(crate) struct Host {
    pub(crate) driver: Driver<Text>,
    watcher: Rc<RefCell<Watcher>>,
    pub(crate) rules: Rules,
    /// The number of the process.
    pub(crate) life: u32,
    /// The number of the program, in all processes.
    pub(crate) program: u32,
    pub(crate) running: bool,
    pub(crate) seed: u64,
    /// When this life began, and how long it has slept since: what its monotonic clock lacks.
    pub(crate) started_ms: u64,
    pub(crate) slept_ms: u64,
    /// When the program began, in the process's own time.
    pub(crate) epoch_ms: u64,
    /// How many links earlier programs dialled, and the number of the program's own last one: the program counts from
    /// one, and the world goes on.
    links_before: u32,
    links: u32,
    /// The latest step of the hand-over that is under way, and whether this turn ends with it.
    pub(crate) hand_over: Option<HandOverStep>,
    pub(crate) replaces: bool,
    /// The driver gives up its link in this turn, for a hand-over.
    pub(crate) gives_up_link: bool,
    /// The panics of the process.
    pub(crate) panics: PanicHistory,
    /// By how much its real-time clock was set.
    pub(crate) real_step_ms: u64,
    /// Stopped, or asleep with the whole machine, since this moment.
    pub(crate) frozen: bool,
    pub(crate) asleep_since_ms: Option<u64>,
    pending: VecDeque<Event>,
    /// Reports that were taken in since time last passed.
    pub(crate) stirred: usize,
    pub(crate) dialling: Option<LinkId>,
    /// The probe of the console's port that is in flight.
    pub(crate) probing: Option<PortProbe>,
    pub(crate) greeted: bool,
    pub(crate) stop_asked_ms: Option<u64>,
    /// The driver's next deadline, as of the last turn.
    next: Option<Time>,
    entropy: u64,
    /// The second in which it last woke by itself, and how often it did in that.
    pub(crate) wakes: (u64, u32),
    /// The Pings of this link that were sent, for faults that need another's.
    pub(crate) newest_ping: Option<[u8; PING_PAYLOAD_BYTES]>,
    pub(crate) old_ping: Option<[u8; PING_PAYLOAD_BYTES]>,
    reported_bytes: u64,
    /// The inputs since the last turn ended. After a panic they are the last step of the recording.
    heard: Vec<Input>,
    steps: Rc<RefCell<Vec<Step>>>,
    /// When it last synced its journal, and since when there is something to sync, in its own time.
    pub(crate) synced_ms: Option<u64>,
    pub(crate) unsynced_since_ms: Option<u64>,
    /// The Ping of this link that no Pong has answered, and until when one may, for a fault that keeps the deadline.
    pub(crate) awaits_pong: Option<(LinkId, u64)>,
    pub(crate) keeps_steps: bool,
}

impl Host {
    /// No process yet.
    pub(crate) fn absent(seed: u64, keeps_steps: bool) -> Self {
        Self {
            driver: Driver::new(Policy::default(), SCHEDULE, seed, false, Rc::new(Budget::new())),
            watcher: Rc::default(),
            rules: Rules::new(true),
            life: 0,
            program: 0,
            running: false,
            seed,
            started_ms: 0,
            slept_ms: 0,
            epoch_ms: 0,
            links_before: 0,
            links: 0,
            hand_over: None,
            replaces: false,
            gives_up_link: false,
            panics: PanicHistory::default(),
            real_step_ms: 0,
            frozen: false,
            asleep_since_ms: None,
            pending: VecDeque::new(),
            stirred: 0,
            dialling: None,
            probing: None,
            greeted: false,
            stop_asked_ms: None,
            next: None,
            entropy: 0,
            wakes: (0, 0),
            newest_ping: None,
            old_ping: None,
            reported_bytes: 0,
            heard: Vec::new(),
            steps: Rc::default(),
            synced_ms: None,
            unsynced_since_ms: None,
            awaits_pong: None,
            keeps_steps,
        }
    }

    /// The world's time as the process counts it.
    pub(crate) fn own(&self, world_ms: u64) -> Time {
        Time::from_ms(world_ms.saturating_sub(self.started_ms + self.slept_ms))
    }

    /// When the loop wakes by itself.
    pub(crate) fn wake_ms(&self) -> Option<u64> {
        if !self.running || self.frozen {
            return None;
        }
        let own_ms = self.next?.as_ms();
        Some(own_ms.saturating_add(self.epoch_ms + self.started_ms + self.slept_ms))
    }

    /// The number that the world gives a link of this program.
    pub(crate) fn link_of_world(&mut self, link: LinkId) -> LinkId {
        self.links = self.links.max(link.0);
        LinkId(self.links_before + link.0)
    }

    /// The number that the program gave a link of its own.
    pub(crate) const fn link_of_program(&self, link: LinkId) -> LinkId {
        LinkId(link.0.saturating_sub(self.links_before))
    }

    pub(crate) fn count_wake(&mut self, now_ms: u64) {
        let second = now_ms / 1_000;
        self.wakes = if self.wakes.0 == second { (second, self.wakes.1 + 1) } else { (second, 1) };
    }

    pub(crate) fn facts(&self) -> u64 {
        self.watcher.borrow().facts
    }

    pub(crate) fn take_steps(&self) -> Vec<Step> {
        let mut steps = self.steps.take();
        if self.keeps_steps && !self.heard.is_empty() {
            let at_ms = steps.last().map_or(Time::START, |step| step.at_ms);
            steps.push(Step { at_ms, inputs: self.heard.clone(), ..Step::default() });
        }
        steps
    }
}

/// The driver of a new life.
fn driver(planted: Option<Planted>, seed: u64, plan: &Plan) -> Driver<Text> {
    let policy = Policy { resync_wait_max_ms: plan.resync_wait_max_ms, ..Planted::policy(planted) };
    Driver::new(policy, SCHEDULE, seed, plan.audited, Rc::new(Budget::new()))
}

impl World {
    /// A process starts.
    pub(crate) fn begin_life(&mut self) {
        let remembered = self.identity.is_remembered();
        let host = &self.host;
        let life = host.life + 1;
        let mut next = Host::absent(host.seed.wrapping_add(u64::from(life) << 32), host.keeps_steps);
        next.life = life;
        next.started_ms = self.now_ms;
        next.rules = Rules::new(remembered);
        self.messages.start_over();
        self.work.start_over();
        self.rows.process_starts();
        // What the old process had open was closed with it.
        self.forget_connections();
        self.log(|| format!("a process starts, {}", if remembered { "with its id" } else { "unknown" }));
        self.start_program(next);
        if self.plan.journaled {
            self.restore();
        }
    }

    /// A program starts, and hears that.
    pub(crate) fn start_program(&mut self, mut next: Host) {
        self.stats.facts += self.host.facts();
        next.program = self.host.program + 1;
        next.links_before = self.host.links_before + self.host.links;
        next.running = true;
        next.driver = driver(self.planted, next.seed, &self.plan);
        let watcher = Rc::clone(&next.watcher);
        next.driver.observe_machine(Box::new(move |now, fact, orders, seen| {
            watcher.borrow_mut().see(now, fact, orders, seen);
        }));
        if next.keeps_steps {
            let steps = Rc::clone(&next.steps);
            next.driver.record(Box::new(move |step| steps.borrow_mut().push(step)));
        }
        self.host = next;
        self.wake();
        let id = self.id_source();
        self.handle(Input::Started { id });
    }

    pub(crate) fn own_now(&self) -> Time {
        self.host.own(self.now_ms)
    }

    /// The same since the program began: the time of its driver.
    pub(crate) fn program_now(&self) -> Time {
        Time::from_ms(self.own_now().as_ms() - self.host.epoch_ms)
    }

    /// Gives the process something to hear, when it can.
    pub(crate) fn hand(&mut self, event: Event) {
        if !self.host.running {
            return;
        }
        if self.host.frozen {
            self.host.pending.push_back(event);
            return;
        }
        self.wake();
        self.take_in(event);
    }

    /// Compares the clocks before anything else.
    pub(crate) fn wake(&mut self) {
        if self.host.stirred > 0 {
            return;
        }
        self.host.stirred = 1;
        if self.planted == Some(Planted::DoesNotSeeJumps) {
            return;
        }
        let (now, own_ms) = (self.program_now(), self.own_now().as_ms());
        let boot_time_ms = self.now_ms;
        let clocks = Clocks {
            monotonic_ms: self.now_ms - self.host.slept_ms,
            boot_time_ms,
            real_time_ms: boot_time_ms + self.host.real_step_ms,
        };
        let host = &mut self.host;
        let before = host.watcher.borrow().jumps;
        host.entropy = host.entropy.wrapping_add(0x9E37);
        let entropy = host.entropy;
        host.driver.observe(now, clocks, || entropy);
        if host.watcher.borrow().jumps != before {
            host.rules.jumped_ms = own_ms;
            self.log(|| "the clocks jumped".to_owned());
        }
    }

    /// The process, or the machine under it, runs again.
    pub(crate) fn thaw(&mut self, life: u32) {
        if life != self.host.life || !self.host.frozen {
            return;
        }
        self.host.frozen = false;
        if let Some(since_ms) = self.host.asleep_since_ms.take() {
            self.host.slept_ms += self.now_ms - since_ms;
        }
        self.log(|| "the process runs again".to_owned());
        self.wake();
        // What waited is there at once, before anything new; the loop takes it in as it would.
        for (place, event) in std::mem::take(&mut self.host.pending).into_iter().enumerate() {
            if place > 0 && place.is_multiple_of(INPUTS_PER_TURN_MAX) {
                self.turn();
            }
            self.happen(event);
        }
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.host.stirred += 1;
        if self.host.keeps_steps {
            self.host.heard.push(input);
        }
        if self.planted == Some(Planted::Panics) && matches!(input, Input::LinkOpened { link } if link > LinkId(2)) {
            panic!("two links are enough for this agent");
        }
        let now = self.program_now();
        self.host.driver.handle(now, input);
    }

    /// Does what the driver wants, until nothing is left for this turn.
    pub(crate) fn turn(&mut self) {
        self.host.stirred = 0;
        if !self.host.running {
            return;
        }
        self.fire_stale_timer();
        self.note_progress();
        let now = self.program_now();
        for outputs in 0.. {
            let mut doors = Doors {
                life: self.host.life,
                program: self.host.program,
                now_ms: self.now_ms,
                link: self.host.rules.live,
                draining: self.host.rules.drains_since_ms.is_some(),
                planted: self.planted,
                random: &mut self.random,
                agenda: &mut self.agenda,
                work: &mut self.work,
                messages: &mut self.messages,
                logs: &mut self.logs,
                violation: &mut self.violation,
            };
            let Some(output) = self.host.driver.poll(now, &mut doors) else { break };
            if outputs > OUTPUTS_MAX {
                self.log(|| format!("no end of outputs: {output:?}"));
                return self.fail(Violation::Spins);
            }
            if self.dies_now() {
                return self.crash();
            }
            if self.panics_now() {
                return self.panic_restart();
            }
            self.perform(output);
        }
        self.host.heard.clear();
        (self.host.stirred, self.host.gives_up_link) = (0, false);
        self.check_turn();
        if self.host.replaces {
            self.replace_program();
        }
    }

    /// Whether the process dies in the middle of this turn.
    fn dies_now(&mut self) -> bool {
        self.storm
            && self.plan.journaled
            && self.plan.faults.has(Fault::Crash)
            && self.random.between(1, DIES_ONE_IN) == 1
    }

    /// Reports how many of the link's bytes the socket has taken.
    fn note_progress(&mut self) {
        let now_ms = self.now_ms;
        let bytes = match self.planted {
            Some(Planted::DoesNotSeeStalledWrites) => self.host.reported_bytes + 1,
            _ => self.host.rules.live.and_then(|link| self.wire(link)).map_or(0, |wire| wire.taken_bytes(now_ms)),
        };
        if bytes != std::mem::replace(&mut self.host.reported_bytes, bytes) {
            self.handle(Input::WriteProgress { bytes });
        }
    }

    /// What must hold after every turn.
    fn check_turn(&mut self) {
        let now = self.own_now();
        let host = &self.host;
        let seen = host.driver.snapshot();
        let next = host.driver.next_deadline();
        let mut violation = host.watcher.borrow_mut().violation.take().or_else(|| over_its_bound(&seen));
        if host.running && next.is_some_and(|next| next <= self.program_now()) {
            violation = violation.or(Some(Violation::Spins));
        }
        let unsynced_ms = host.unsynced_since_ms.map(|since_ms| since_ms.max(host.rules.jumped_ms));
        if host.running && unsynced_ms.is_some_and(|since_ms| now.as_ms() > since_ms + SYNC_INTERVAL_MS) {
            violation = violation.or(Some(Violation::SyncOutOfTime));
        }
        if host.wakes.1 > WAKES_PER_SECOND_MAX {
            violation = violation.or(Some(Violation::Busy));
        }
        let late = host.rules.beat_ms.is_some_and(|beat_ms| {
            now.as_ms() > beat_ms.max(host.rules.jumped_ms) + SCHEDULE.heartbeat_ms
                && host.rules.drains_since_ms.is_none()
        });
        if late && host.rules.live.is_some() {
            violation = violation.or(Some(Violation::HeartbeatLate));
        }
        if host.running && host.rules.is_dial_overdue(now.as_ms()) {
            violation = violation.or(Some(Violation::HandOverLost("time")));
        }
        self.host.next = next;
        if let Some(violation) = violation {
            self.log(|| format!("at {now}: {seen:?}"));
            self.fail(violation);
        }
        let promised_bytes =
            self.work.jobs.len() * PROMISED_RESULT_BYTES + self.work.shells.len() * PROMISED_CLOSED_BYTES;
        let kept = self.messages.check_kept(seen.messages, seen.message_bytes, promised_bytes);
        self.check(kept);
        self.check_children();
        self.check_dead_link(now);
    }

    /// A link that is dead must be noticed.
    fn check_dead_link(&mut self, now: Time) {
        let Some(link) = self.host.rules.live else { return };
        let jumped_ms = self.host.rules.jumped_ms;
        let Some(wire) = self.wire(link) else { return };
        let Some(since_ms) = wire.dead_since_ms else { return };
        // A Ping waits for the batch before it; a socket that moves on, however slowly, is not stalled.
        let writing = wire.stall.is_none() && wire.batch.is_some_and(|batch| batch.until_ms > batch.from_ms + 1_000);
        let since_ms = since_ms.max(wire.busy_until_ms);
        let own_since_ms = self.host.own(since_ms).as_ms().max(jumped_ms);
        if now.as_ms() > own_since_ms + DEAD_LINK_MS && !writing {
            self.fail(Violation::DeadLinkKept(link));
        }
    }
}

/// The first bound that is not kept.
fn over_its_bound(seen: &Snapshot) -> Option<Violation> {
    let bounds = [
        ("bytes of messages", seen.message_bytes > RELIABLE_BYTES_MAX),
        ("messages", seen.messages > RELIABLE_MESSAGES_MAX),
        ("bytes under way", seen.stream_bytes_in_flight > IN_FLIGHT_BYTES_MAX),
        ("sessions", seen.sessions > SESSIONS_MAX),
    ];
    bounds.into_iter().find(|(_, over)| *over).map(|(what, _)| Violation::OverItsBound(what))
}
