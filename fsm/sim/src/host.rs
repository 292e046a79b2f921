//! The agent's process: the engine, the loop around it as the agent has it, and the clocks that it reads.
//!
//! It decides nothing. Like the agent's loop it compares the clocks when it wakes, hands over what is there, lets time
//! pass, performs orders until there are none, and feeds the link and the sources. Every deliberate fault that sits
//! between engine and world asks here whether it is the one.

use crate::breach::Breach;
use crate::planted::Planted;
use crate::rules::Rules;
use crate::watcher::Watcher;
use crate::wire::Up;
use crate::work::SCHEDULE;
use crate::world::{Event, World};
use draupnir_fsm::clock::Clocks;
use draupnir_fsm::delivery::ping::Payload;
use draupnir_fsm::delivery::{
    Cut, LINK_WINDOW_BYTES_MAX, Next, Poison, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX, StateKind, StreamKey,
};
use draupnir_fsm::engine::Engine;
use draupnir_fsm::fact::{Attempt, Fact};
use draupnir_fsm::order::Gate;
use draupnir_fsm::scenario::Step;
use draupnir_fsm::time::Time;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// How many bytes of frames make a batch, and how many frames: as in the agent.
const BATCH_BYTES: u64 = 64 << 10;
const BATCH_FRAMES_MAX: usize = 256;

/// How often the loop may wake for nothing but a deadline, in a second: a few timers, and markers and progress checks.
const WAKES_PER_SECOND_MAX: u32 = 40;

/// How long a dead link may go unnoticed: the next Ping, the time for its Pong or for the write to move, and the slack
/// with which both are looked at.
const DEAD_LINK_MS: u64 = 25_000;

/// More than one frame more than its window is never under way.
const IN_FLIGHT_BYTES_MAX: u64 = LINK_WINDOW_BYTES_MAX + (48 << 10);

/// The process, of whatever life.
pub(crate) struct Host {
    pub(crate) engine: Engine<u32>,
    watcher: Rc<RefCell<Watcher>>,
    pub(crate) rules: Rules,
    pub(crate) life: u32,
    pub(crate) running: bool,
    pub(crate) seed: u64,
    /// When this life began, and how long it has slept since: what its monotonic clock lacks.
    started_ms: u64,
    pub(crate) slept_ms: u64,
    /// By how much its real-time clock was set.
    pub(crate) real_step_ms: u64,
    /// Stopped, or asleep with the whole machine, since this moment.
    pub(crate) frozen: bool,
    pub(crate) asleep_since_ms: Option<u64>,
    pending: VecDeque<Event>,
    /// Reports that were taken in since time last passed.
    pub(crate) stirred: usize,
    pub(crate) knows_id: bool,
    pub(crate) dialling: Option<Attempt>,
    pub(crate) greeted: bool,
    pub(crate) stop_asked_ms: Option<u64>,
    entropy: u64,
    wakes: (u64, u32),
    /// The Pings of this link that were sent, for faults that need another's.
    pub(crate) newest_ping: Option<Payload>,
    pub(crate) old_ping: Option<Payload>,
    told_bytes: u64,
    keeps_steps: bool,
}

impl Host {
    /// No process yet.
    pub(crate) fn absent(seed: u64, keeps_steps: bool) -> Self {
        Self {
            engine: Engine::new(Planted::policy(None), SCHEDULE, seed),
            watcher: Rc::new(RefCell::new(Watcher::new(false))),
            rules: Rules::new(true),
            life: 0,
            running: false,
            seed,
            started_ms: 0,
            slept_ms: 0,
            real_step_ms: 0,
            frozen: false,
            asleep_since_ms: None,
            pending: VecDeque::new(),
            stirred: 0,
            knows_id: false,
            dialling: None,
            greeted: false,
            stop_asked_ms: None,
            entropy: 0,
            wakes: (0, 0),
            newest_ping: None,
            old_ping: None,
            told_bytes: 0,
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
        let own_ms = self.engine.next_deadline()?.as_ms();
        Some(own_ms.saturating_add(self.started_ms + self.slept_ms))
    }

    pub(crate) fn count_wake(&mut self, now_ms: u64) {
        let second = now_ms / 1_000;
        self.wakes = if self.wakes.0 == second { (second, self.wakes.1 + 1) } else { (second, 1) };
    }

    pub(crate) fn facts(&self) -> u64 {
        self.watcher.borrow().facts
    }

    pub(crate) fn take_steps(&self) -> Vec<Step> {
        self.watcher.borrow_mut().steps.take().unwrap_or_default()
    }
}

impl World {
    /// A process starts.
    pub(crate) fn begin_life(&mut self, remembered: bool) {
        self.tally.facts += self.host.facts();
        let host = &mut self.host;
        let life = host.life + 1;
        let mut next = Host::absent(host.seed.wrapping_add(u64::from(life) << 32), host.keeps_steps);
        next.life = life;
        next.running = true;
        next.started_ms = self.now_ms;
        next.knows_id = remembered;
        next.rules = Rules::new(remembered);
        let watcher = Rc::new(RefCell::new(Watcher::new(host.keeps_steps)));
        next.engine = Engine::new(Planted::policy(self.planted), SCHEDULE, next.seed);
        next.watcher = Rc::clone(&watcher);
        next.engine.watch(Box::new(move |now, fact, orders, seen| watcher.borrow_mut().see(now, fact, orders, seen)));
        self.host = next;
        self.messages.start_over();
        self.work.start_over();
        // Numbers of links begin anew; what the old process had open was closed with it.
        self.forget_connections();
        self.tell(|| format!("a process starts, {}", if remembered { "with its id" } else { "unknown" }));
        let remembered = remembered && self.planted != Some(Planted::RegistersAtEveryStart);
        self.wake();
        self.handle(Fact::Started { remembered });
    }

    pub(crate) fn own_now(&self) -> Time {
        self.host.own(self.now_ms)
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

    /// Whatever happened to the clocks is known before anything else.
    pub(crate) fn wake(&mut self) {
        if self.host.stirred > 0 {
            return;
        }
        self.host.stirred = 1;
        if self.planted == Some(Planted::DoesNotSeeJumps) {
            return;
        }
        let now = self.own_now();
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
        host.engine.observe(now, clocks, || entropy);
        if host.watcher.borrow().jumps != before {
            host.rules.jumped_ms = now.as_ms();
            self.tell(|| "the clocks jumped".to_owned());
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
        self.tell(|| "the process runs again".to_owned());
        self.wake();
        // What waited is there at once, before anything new; the loop takes it in as it would.
        for event in std::mem::take(&mut self.host.pending) {
            self.hand(event);
            self.host.stirred += 1;
            if self.host.stirred % 64 == 0 {
                self.turn();
                self.host.stirred = 1;
            }
        }
    }

    pub(crate) fn handle(&mut self, fact: Fact) {
        self.host.stirred += 1;
        let now = self.own_now();
        self.host.engine.handle(now, fact);
    }

    /// Lets time pass in the process and does all that is to be done, until nothing more is.
    pub(crate) fn turn(&mut self) {
        self.host.stirred = 0;
        if !self.host.running {
            return;
        }
        let now = self.own_now();
        loop {
            let bytes_written = self.bytes_written();
            self.host.engine.tick(now, bytes_written);
            let mut performed = false;
            while let Some(order) = self.host.engine.poll_order() {
                performed = true;
                self.perform(order);
            }
            self.follow_deliveries();
            if !performed || !self.host.running {
                break;
            }
        }
        self.feed_link();
        self.feed_sources();
        self.host.stirred = 0;
        self.check_turn();
    }

    fn bytes_written(&mut self) -> u64 {
        let now_ms = self.now_ms;
        let bytes = self.host.rules.live.and_then(|link| self.wire(link)).map_or(0, |wire| wire.taken_bytes(now_ms));
        if self.planted == Some(Planted::DoesNotSeeStalledWrites) {
            self.host.told_bytes += 1;
            return self.host.told_bytes;
        }
        bytes
    }

    /// Hands the link its next batch, if it is done with the last one.
    fn feed_link(&mut self) {
        let Some(link) = self.host.engine.machine().snapshot().link else { return };
        if self.host.engine.delivery.is_writing() {
            return;
        }
        let now = self.own_now();
        let mut frames: Vec<(Up, u64)> = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && frames.len() < BATCH_FRAMES_MAX {
            let Some(frame) = self.next_frame(now) else { break };
            bytes += frame.map_or(0, |(_, bytes)| bytes);
            frames.extend(frame);
        }
        if frames.is_empty() {
            return;
        }
        if self.planted == Some(Planted::ReversesBatches) {
            frames.reverse();
        }
        let bytes_written = self.bytes_written();
        self.host.engine.delivery.write_started(now, bytes_written);
        self.write(link, &frames, bytes);
    }

    /// The next frame and its bytes; `Some(None)` where a stream had nothing to cut after all.
    fn next_frame(&mut self, now: Time) -> Option<Option<(Up, u64)>> {
        let (stream, cut) = match self.host.engine.next_frame(now)? {
            Next::Ping { payload, .. } => {
                self.host.newest_ping = Some(payload);
                return Some(Some((Up::Ping(payload), 22)));
            }
            Next::State { kind, body: _ } => return Some(Some((Up::State(kind), 400))),
            Next::Reliable { body, .. } => {
                let place = *body;
                let bytes = self.messages.message(place).map_or(0, |message| message.size_bytes) as u64;
                return Some(Some((Up::Message(place), bytes)));
            }
            Next::Stream { stream, cut } => (stream, cut),
        };
        let bytes = self.cut(stream, cut);
        let told =
            if self.planted == Some(Planted::CountsBytesThatWereNotSent) && bytes > 3 { bytes + 1 } else { bytes };
        self.host.engine.delivery.cut(usize::try_from(told).unwrap_or(0));
        let is_frame = bytes > 0 || cut == Cut::Modes;
        let frame = Up::Stream { life: self.host.life, stream, cut, bytes };
        Some(is_frame.then_some((frame, bytes * 4 / 3 + 150)))
    }

    /// Checks a batch on its way to the socket, and gives it to the network.
    fn write(&mut self, link: Attempt, frames: &[(Up, u64)], bytes: u64) {
        let rules = &self.host.rules;
        if rules.live != Some(link) {
            return self.fail(Breach::WrittenToNoLink(link));
        }
        let gate = rules.gate;
        for (frame, _) in frames {
            let needs = match frame {
                Up::State(_) => Some(Gate::State),
                Up::Message(_) | Up::Stream { .. } => Some(Gate::All),
                Up::Ping(_) | Up::Close(_) | Up::Reset => None,
            };
            if gate < needs {
                return self.fail(Breach::WrittenBeforeItsGate(link));
            }
            let unsure = self.host.rules.drains_since_ms.is_some() && !self.host.greeted;
            match frame {
                Up::Message(place) => {
                    if let Some(message) = self.messages.message_mut(*place) {
                        message.unsure |= unsure;
                    }
                    let sent = self.messages.sent(*place, link);
                    self.check(sent);
                }
                Up::Stream { stream, .. } => {
                    if let Some(source) = self.work.sources.get_mut(stream) {
                        source.unsure |= unsure;
                    }
                }
                Up::State(_) | Up::Ping(_) | Up::Close(_) | Up::Reset => {}
            }
        }
        self.transmit(link, frames, bytes);
    }

    /// What the ledger has found out since the last turn.
    fn follow_deliveries(&mut self) {
        while let Some(stream) = self.host.engine.delivery.take_finished() {
            self.host.engine.delivery.forget_stream(stream);
            if let Some(source) = self.work.sources.get_mut(&stream) {
                source.finished = true;
            }
        }
        while let Some(gap) = self.host.engine.delivery.take_gap() {
            self.tell(|| format!("{} bytes of {:?} are lost", gap.lost_bytes, gap.stream));
            if self.planted == Some(Planted::HidesGaps) {
                continue;
            }
            if let Some(source) = self.work.sources.get_mut(&gap.stream) {
                source.gaps.push((gap.from, gap.to));
            }
            self.complain(1);
        }
        if self.host.engine.delivery.take_drops().is_some() {
            self.complain(2);
        }
        match self.host.engine.take_poison() {
            Some(Poison::CutResult { number }) => self.cut_poison(number),
            Some(Poison::Dropped { number, .. }) => self.drop_poison(number),
            None => {}
        }
    }

    /// Tells the console that something was lost, as often as it may hear the same.
    fn complain(&mut self, cause: u64) {
        let now = self.own_now();
        if self.host.engine.may_complain(now, cause) {
            self.push_event();
        }
    }

    /// Tells the sources how much they may read.
    fn feed_sources(&mut self) {
        while let Some((stream, bytes)) = self.host.engine.delivery.take_allowance() {
            self.allow(stream, bytes);
        }
    }

    /// What must hold after every turn.
    fn check_turn(&mut self) {
        let now = self.own_now();
        let host = &self.host;
        let ledger = &host.engine.delivery;
        let mut breach = host.watcher.borrow_mut().breach.take();
        if ledger.message_bytes() > RELIABLE_BYTES_MAX {
            breach = breach.or(Some(Breach::OverItsBound("bytes of messages")));
        }
        if ledger.messages() > RELIABLE_MESSAGES_MAX {
            breach = breach.or(Some(Breach::OverItsBound("messages")));
        }
        if ledger.stream_bytes_in_flight() > IN_FLIGHT_BYTES_MAX {
            breach = breach.or(Some(Breach::OverItsBound("bytes under way")));
        }
        if host.running && host.engine.next_deadline().is_some_and(|next| next <= now) {
            breach = breach.or(Some(Breach::Spins));
        }
        if host.wakes.1 > WAKES_PER_SECOND_MAX {
            breach = breach.or(Some(Breach::Busy));
        }
        let late = host.rules.beat_ms.is_some_and(|beat_ms| {
            now.as_ms() > beat_ms.max(host.rules.jumped_ms) + SCHEDULE.heartbeat_ms
                && host.rules.drains_since_ms.is_none()
        });
        if late && host.rules.live.is_some() {
            breach = breach.or(Some(Breach::HeartbeatLate));
        }
        if let Some(breach) = breach {
            self.fail(breach);
        }
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
            self.fail(Breach::DeadLinkKept(link));
        }
    }

    /// Puts a state message into the ledger.
    pub(crate) fn set_state(&mut self, kind: StateKind) {
        self.host.engine.delivery.set_state(kind, 0);
    }

    /// Cuts bytes of a stream, sometimes fewer than asked for: characters are not split.
    fn cut(&mut self, stream: StreamKey, cut: Cut) -> u64 {
        let few = self.between(0, 7);
        let Cut::Bytes { from, max, replay } = cut else { return 8 };
        let life = self.host.life;
        let Some(source) = self.work.sources.get_mut(&stream) else { return 0 };
        let there = source.end.saturating_sub(from.max(source.retained)).min(max as u64);
        if there > 8 {
            return there - few.min(3);
        }
        if few == 0 && !replay && !source.holds_back {
            // The beginning of a character: the rest of it, or the end of the wait for that, comes soon.
            source.holds_back = true;
            source.reading = true;
            self.note_in(20, Event::Read { life, stream });
            return 0;
        }
        there
    }
}
