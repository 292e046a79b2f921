//! After the storm: within a stated time the agent must be back, everything delivered, and the link stay.
//!
//! The bound follows from the policy's table and from which faults the world knew: only a refused key, a forgotten or
//! replaced instance and a `Retry-After` may make an agent wait for minutes. Times are milliseconds of the world.

use crate::plan::{Fault, Faults};
use crate::violation::Violation;
use crate::wire::{Down, Wire};
use crate::work::{Dispatch, Source};
use crate::world::{Event, World};

/// What may pass until a link is ready: the dead link is noticed (21 s), the longest ordinary wait (30 s), the
/// time-outs of a registration and a dial that were in flight (15 s, 10 s), a jump's jitter, sockets going, gates.
const READY_MS: u64 = 100_000;

/// What the slow rows of the policy may add.
const REFUSED_MS: u64 = 900_000;
const FORGOTTEN_MS: u64 = 600_000;
const REPLACED_MS: u64 = 600_000;
const RETRY_AFTER_MS: u64 = 1_200_000;

/// What may pass from there until everything is delivered: a full ledger and full scrollbacks over a calm network, the
/// longest command with its kill, and a write that began on a slow link.
const DELIVERED_MS: u64 = 120_000;

/// How long the calm link is watched: longer than a resync takes to come.
const STEADY_MS: u64 = 55_000;

/// How many resyncs a calm link may see: what the storm left in the network may swallow two of them.
const RESYNCS_MAX: u32 = 3;

/// By when the console must reach the agent: two lost resyncs and one that arrives (`resync_tries_max`), each after
/// `resync_ms` and the whole of `resync_wait_max_ms`, because a shell of the storm may stay open in the calm; and 30 s
/// for the dials between. It is no shorter because a resync that the network swallows counts as a new loss.
const REACHABLE_MS: u64 = 3 * 340_000 + 30_000;

/// How long a console waits for the answer to the last dispatch.
const PROBE_MS: u64 = 10_000;

/// How long a process may take to leave, and the slack of its last tick.
const EXIT_MS: u64 = 4_010;

/// How late a batch of usage records may be: the slack of the tick that sends it.
const USAGE_SLACK_MS: u64 = 10;

/// A way through the network on which a Ping, its Pong and a close frame fit into the time of a drain.
const FAREWELL_WAY_MS_MAX: u64 = 400;

/// What is known of the calm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calm {
    pub(crate) since_ms: Option<u64>,
    /// The storm ended between two lives.
    pub(crate) waits_for_life: bool,
    ready_ms: Option<u64>,
    /// Since when all is delivered and the link has to stay.
    pub(crate) steady_since_ms: Option<u64>,
    pub(crate) resyncs: u32,
    links_then: u64,
    /// The dispatch, when it was sent, and how many links there had been.
    probe: Option<(u32, u64, u64)>,
    drains: bool,
    /// When the console last heard a state message.
    pub(crate) heard_ms: u64,
    pub(crate) over: bool,
}

impl Calm {
    /// The console closes a link over a message: the next one must be ready in time again.
    pub(crate) fn wait_again(&mut self, now_ms: u64) {
        self.since_ms = self.since_ms.map(|_| now_ms);
        self.ready_ms = None;
    }
}

/// Until when a link must be ready after the storm: one wait of each row that this world may have grown.
fn ready_within_ms(faults: Faults) -> u64 {
    use Fault::{
        DialBusy, DialUnauthorized, Forgotten, KeyRefused, RegisterBroken, RegisterElsewhere, RegisterLimited,
        RegisterRefused, RegisterRejected, RegisterUnprocessable, Replaced, Twin,
    };
    let refusing = [DialUnauthorized, RegisterRefused, KeyRefused];
    let forgetting = [Forgotten, RegisterRejected, RegisterUnprocessable, RegisterElsewhere];
    let rows: [(&[Fault], u64); 4] = [
        (&refusing, REFUSED_MS),
        (&forgetting, FORGOTTEN_MS),
        (&[Replaced, Twin], REPLACED_MS),
        (&[RegisterLimited, RegisterBroken, DialBusy], RETRY_AFTER_MS),
    ];
    let known = rows.into_iter().filter(|(row, _)| row.iter().any(|fault| faults.has(*fault)));
    READY_MS + known.map(|(_, ms)| ms).sum::<u64>()
}

impl World {
    /// Looks at how far the calm has come, after every step.
    pub(crate) fn check_calm(&mut self) {
        self.check_exit();
        self.check_usage();
        let Some(since_ms) = self.calm.since_ms else { return };
        if self.calm.drains || self.calm.over || self.host.stirred > 0 {
            return;
        }
        if self.calm.waits_for_life {
            self.wait_for_life();
            return;
        }
        match (self.calm.steady_since_ms, self.calm.probe) {
            (None, _) => self.wait_until_delivered(since_ms),
            (Some(steady_ms), None) => self.watch_steady(steady_ms),
            (Some(_), Some((dispatch, sent_ms, links))) => self.wait_for_probe(dispatch, sent_ms, links),
        }
    }

    /// The process must be gone in time after the request to stop.
    fn check_exit(&mut self) {
        let Some(since_ms) = self.host.rules.drains_since_ms else { return };
        let own_ms = self.own_now().as_ms();
        if self.host.running && !self.host.frozen && self.host.stirred == 0 && own_ms > since_ms + EXIT_MS {
            self.fail(Violation::ExitOverdue);
        }
    }

    /// No usage record may wait for longer than its interval.
    fn check_usage(&mut self) {
        let own_ms = self.own_now().as_ms();
        let is_overdue = self.work.usage.front().is_some_and(|due_ms| *due_ms + USAGE_SLACK_MS < own_ms);
        if is_overdue && self.host.running && !self.host.frozen && self.host.stirred == 0 {
            self.fail(Violation::UsageOverdue);
        }
    }

    /// The storm ended while no process ran, or on its way out: the next one is what the calm is about.
    fn wait_for_life(&mut self) {
        if !self.host.running {
            self.calm.waits_for_life = false;
            self.begin_life();
            self.calm.since_ms = Some(self.now_ms);
        } else if self.host.stop_asked_ms.is_none() {
            self.calm.waits_for_life = false;
            self.calm.since_ms = Some(self.now_ms);
        }
    }

    fn wait_until_delivered(&mut self, since_ms: u64) {
        let ready = self.is_ready();
        let within_ms = ready_within_ms(self.plan.faults);
        if ready {
            self.calm.ready_ms.get_or_insert(self.now_ms);
        }
        let delivered = ready && self.host.hand_over.is_none() && self.is_delivered();
        match self.calm.ready_ms {
            None if self.now_ms > since_ms + within_ms => self.fail(Violation::NotReady),
            None => {}
            Some(_) if delivered => {
                self.calm.steady_since_ms = Some(self.now_ms);
                self.calm.links_then = self.stats.links;
                self.log(|| "all is delivered".to_owned());
                self.note_in(STEADY_MS, Event::Probes);
            }
            Some(ready_ms) if self.now_ms > ready_ms + DELIVERED_MS => {
                let seen = self.host.driver.snapshot();
                let left = format!("{seen:?}, commands: {:?}", self.work.jobs);
                self.log(|| left);
                self.fail(Violation::NotDelivered);
            }
            Some(_) => {}
        }
    }

    /// Does the console have everything that this process had to say?
    fn is_delivered(&mut self) -> bool {
        let delivers = |source: &Source| source.unread > 0 || source.reading || !source.has(source.end);
        let is_asked =
            |wire: &Wire| wire.agent_open && wire.down.iter().any(|(_, frame)| matches!(frame, Down::Dispatch(_)));
        if self.wires.iter().any(is_asked)
            || !self.is_settled()
            || !self.work.jobs.is_empty()
            || !self.work.usage.is_empty()
            || self.work.sources.values().any(delivers)
            || self.waits_for_lines()
        {
            return false;
        }
        if let Some(place) = self.messages.missing() {
            self.fail(Violation::Forgotten(place));
            return false;
        }
        let life = self.host.life;
        let known: Vec<bool> = (0..self.work.dispatches.len()).map(|place| self.is_recorded(place)).collect();
        let unanswered = |place: usize, asked: &Dispatch| {
            let is_due = asked.taken_in_life == Some(life) || known.get(place).is_some_and(|known| *known);
            is_due && !asked.answered
        };
        let all = || self.work.dispatches.iter().enumerate();
        let count = all().filter(|(place, asked)| unanswered(*place, asked)).count() as u64;
        if count > self.messages.results_dropped() {
            let place = all().find(|(place, asked)| unanswered(*place, asked)).map(|(place, _)| place);
            self.fail(Violation::Unanswered(place.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX)));
            return false;
        }
        true
    }

    /// Does the journal owe the result of this dispatch, whatever dies?
    fn is_recorded(&self, dispatch: usize) -> bool {
        let id = u32::try_from(dispatch).unwrap_or(u32::MAX);
        self.plan.journaled && self.journal.owes_result(self.command_id(id))
    }

    /// Is nothing kept and nothing under way?
    fn is_settled(&self) -> bool {
        let seen = self.host.driver.snapshot();
        seen.messages == 0 && seen.stream_bytes_in_flight == 0
    }

    /// Is a link ready that will last?
    fn is_ready(&self) -> bool {
        let sound = |link| self.wires.iter().any(|wire| wire.link == link && wire.is_sound(self.now_ms));
        self.host.driver.snapshot().connection.state == "connected.ready" && self.host.rules.live.is_some_and(sound)
    }

    /// A calm link stays, but for the resyncs that an earlier loss may have made necessary.
    fn watch_steady(&mut self, steady_ms: u64) {
        let live = self.host.rules.live.is_some();
        let links = self.stats.links - self.calm.links_then;
        let lost =
            !live && self.calm.resyncs == 0 || links > u64::from(self.calm.resyncs) || self.calm.resyncs > RESYNCS_MAX;
        if lost {
            self.fail(Violation::CalmLinkLost);
        }
        let quiet_since_ms = self.calm.heard_ms.max(steady_ms);
        if live && self.calm.resyncs == 0 && self.now_ms > quiet_since_ms + 31_000 {
            self.fail(Violation::HeartbeatLate);
        }
    }

    /// The console asks for one thing more.
    pub(crate) fn probe(&mut self) {
        if !self.is_ready() {
            // A resync is under way.
            return self.note_in(1_000, Event::Probes);
        }
        let Some(link) = self.routed() else {
            if self.console.lost_routing_unseen || self.host.rules.gave_up_resync {
                return self.end();
            }
            // A resync that was not heard is tried again.
            let since_ms = self.calm.steady_since_ms.unwrap_or(self.now_ms);
            if self.host.rules.wants_resync() && self.now_ms < since_ms + REACHABLE_MS {
                return self.note_in(1_000, Event::Probes);
            }
            return self.fail(Violation::Unreachable);
        };
        let dispatch = self.new_dispatch();
        if let Some(asked) = self.work.dispatches.get_mut(dispatch as usize) {
            (asked.lasts_ms, asked.fails, asked.timeout_ms, asked.poison) = (20, false, 30_000, None);
        }
        self.calm.probe = Some((dispatch, self.now_ms, self.stats.links));
        self.send_down(link, Down::Dispatch(dispatch));
    }

    fn wait_for_probe(&mut self, dispatch: u32, sent_ms: u64, links: u64) {
        let answered = self.work.dispatches.get(dispatch as usize).is_some_and(|asked| asked.answered);
        if answered && self.is_settled() {
            return self.end();
        }
        if self.now_ms <= sent_ms + PROBE_MS {
            return;
        }
        if links == self.stats.links {
            return self.fail(Violation::Unreachable);
        }
        // It was on its way when the agent closed that link: what the console sends is not delivered for certain.
        self.calm.probe = None;
        self.probe();
    }

    /// All is well; at the end the process may have to show how it leaves.
    fn end(&mut self) {
        if !self.plan.drains {
            self.calm.over = true;
            return;
        }
        self.calm.drains = true;
        self.shut_down();
    }

    /// The process has left in the calm: nothing may be missing.
    pub(crate) fn check_farewell(&mut self) {
        if !self.calm.drains {
            return;
        }
        self.calm.over = true;
        // On a slow way the goodbye is still under way when the time is up.
        if self.wires.iter().any(|wire| wire.latency_ms > FAREWELL_WAY_MS_MAX) {
            return;
        }
        if self.messages.missing().is_some() || !self.console.goodbye {
            self.fail(Violation::UncleanExit);
        }
    }
}
