//! The agent's process: the engine, the loop around it as the agent has it, and the clocks that it reads.
//!
//! It decides nothing. Like the agent's loop it compares the clocks when it wakes, before it hands over what is there;
//! what follows stands in `turn`. Whatever comes while the process is stopped waits.

use crate::breach::Breach;
use crate::planted::Planted;
use crate::rules::Rules;
use crate::watcher::Watcher;
use crate::work::SCHEDULE;
use crate::world::{Event, REPORTS_PER_TURN_MAX, World};
use draupnir_fsm::clock::Clocks;
use draupnir_fsm::delivery::ping::Payload;
use draupnir_fsm::engine::Engine;
use draupnir_fsm::fact::{Fact, IdSource};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::scenario::Step;
use draupnir_fsm::time::Time;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

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
    pub(crate) dialling: Option<LinkId>,
    pub(crate) greeted: bool,
    pub(crate) stop_asked_ms: Option<u64>,
    entropy: u64,
    /// The second in which it last woke by itself, and how often it did in that.
    pub(crate) wakes: (u64, u32),
    /// The Pings of this link that were sent, for faults that need another's.
    pub(crate) newest_ping: Option<Payload>,
    pub(crate) old_ping: Option<Payload>,
    pub(crate) told_bytes: u64,
    /// What the machine is about to learn, and when: where it panics over that, it is the last step.
    pub(crate) hearing: Option<(Time, Fact)>,
    /// The Ping of this link that no Pong has answered, and until when one may, for a fault that keeps the deadline.
    pub(crate) awaits_pong: Option<(LinkId, u64)>,
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
            hearing: None,
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

    pub(crate) fn take_breach(&self) -> Option<Breach> {
        self.watcher.borrow_mut().breach.take()
    }

    pub(crate) fn take_steps(&self) -> Vec<Step> {
        let Some(mut steps) = self.watcher.borrow_mut().steps.take() else { return Vec::new() };
        let last = self.hearing.map(|(at_ms, fact)| Step { at_ms, fact, orders: Vec::new(), state: None, next: None });
        steps.extend(last);
        steps
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
        let id = if remembered { IdSource::Remembered } else { IdSource::Configured };
        self.handle(Fact::Started { id });
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
        for (place, event) in std::mem::take(&mut self.host.pending).into_iter().enumerate() {
            if place > 0 && place.is_multiple_of(REPORTS_PER_TURN_MAX) {
                self.turn();
            }
            self.hand(event);
        }
    }

    pub(crate) fn handle(&mut self, fact: Fact) {
        self.host.stirred += 1;
        let now = self.own_now();
        self.host.hearing = Some((now, fact));
        if self.planted == Some(Planted::Panics) && matches!(fact, Fact::LinkOpened { link } if link > LinkId(2)) {
            panic!("two links are enough for this agent");
        }
        self.host.engine.handle(now, fact);
        self.host.hearing = None;
    }
}
