//! A fleet: many drivers, one console with a limited accept rate, and the stories after which all come back at once.
//!
//! The agents have no terminals and no commands. Nothing is checked on the way; what is measured is reported, and
//! judged against the bounds of the README. Times are milliseconds.

mod console;
mod figures;
mod member;
mod plot;

pub use figures::{Figures, HEADINGS};
pub use plot::svg;

use crate::agenda::Agenda;
use console::{Admission, Console};
use draupnir_fsm::driver::{
    CloseReason, Failure, LinkId, Loss, PING_PAYLOAD_BYTES, Policy, PortProbe, PortState, RegistrationAttempt,
};
use draupnir_fsm::random::Random;
use member::{Member, Wish};

/// How long the fleet lives on before the story begins, once all are started: long enough for every backoff to be
/// forgotten.
const WARM_UP_MS: u64 = 60_000;

/// Within which the agents of a fleet are started, at least; a large one at half the pace that its console can take.
const STARTED_WITHIN_MS: u64 = 40_000;

/// A fleet that is not back by then is not waited for.
const PATIENCE_MS: u64 = 3_600_000;

/// What happens to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The console says that it restarts (close 1012) and is away for five seconds.
    Restart,
    /// The same, and it is away for a minute.
    LongRestart,
    /// The console vanishes without a word, every link with it, and is away for five seconds.
    Crash,
    /// The same, and it is away for a minute.
    LongCrash,
    /// Nothing passes between the agents and the console for two minutes.
    Partition,
    /// Four nodes behind one address restart one after the other, half a minute apart (close 1001).
    Rolling,
    /// The console restarts with a certificate that no agent accepts, for ten minutes.
    Certificate,
    /// The console restarts and does not know a single instance any more.
    Forgets,
    /// No agent has an id, and all are started within a second.
    ColdStart,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Restart,
        Self::LongRestart,
        Self::Crash,
        Self::LongCrash,
        Self::Partition,
        Self::Rolling,
        Self::Certificate,
        Self::Forgets,
        Self::ColdStart,
    ];

    /// Its name, as in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::LongRestart => "long_restart",
            Self::Crash => "crash",
            Self::LongCrash => "long_crash",
            Self::Partition => "partition",
            Self::Rolling => "rolling",
            Self::Certificate => "certificate",
            Self::Forgets => "forgets",
            Self::ColdStart => "cold_start",
        }
    }

    /// From the beginning of the story until the console listens again.
    const fn away_ms(self) -> u64 {
        match self {
            Self::Restart | Self::Crash | Self::Forgets => AWAY_MS,
            Self::LongRestart | Self::LongCrash => LONG_AWAY_MS,
            Self::Partition | Self::Rolling | Self::Certificate | Self::ColdStart => 0,
        }
    }

    /// From the beginning of the story until the last agent can be back.
    const fn trouble_ms(self) -> u64 {
        match self {
            Self::Restart | Self::Crash | Self::Forgets | Self::LongRestart | Self::LongCrash => self.away_ms(),
            Self::Partition => 120_000,
            Self::Rolling => 90_000,
            Self::Certificate => 600_000,
            Self::ColdStart => 0,
        }
    }
}

/// How long a console takes to restart.
const AWAY_MS: u64 = 5_000;

/// How long one takes that is updated meanwhile.
const LONG_AWAY_MS: u64 = 60_000;

/// How many nodes a rolling restart goes through, and how far apart.
const NODES: usize = 4;
const NODE_EVERY_MS: u64 = 30_000;

/// A fleet before its story.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// What all of its agents go by.
    pub policy: Policy,
    /// How many agents.
    pub agents: usize,
    /// How many connections the console can accept in a second.
    pub accepts_per_second: u64,
    /// How many agents share one address, and with it one limit of registrations.
    pub behind_one_address: usize,
    /// What all chances follow from.
    pub seed: u64,
}

/// What happens to one agent, or to all.
#[derive(Clone, Copy, Debug)]
enum Event {
    Starts { member: usize },
    Wakes { member: usize },
    Dialled { member: usize, link: LinkId },
    Greeted { member: usize, link: LinkId },
    Failed { member: usize, link: LinkId, cause: Failure },
    PortProbed { member: usize, probe: PortProbe, found: PortState },
    Refused { member: usize, link: LinkId },
    Ponged { member: usize, link: LinkId, payload: [u8; PING_PAYLOAD_BYTES] },
    Gone { member: usize, link: LinkId },
    Registered { member: usize, attempt: RegistrationAttempt, status: u16, retry_after_ms: Option<u64> },
    Trouble { node: Option<usize> },
}

struct World {
    fleet: Fleet,
    story: Story,
    random: Random,
    now_ms: u64,
    agenda: Agenda<Event>,
    members: Vec<Member>,
    console: Console,
    figures: Figures,
    began_ms: u64,
    away: usize,
}

impl Fleet {
    /// Lives through a story until all are back.
    pub fn live(self, story: Story) -> Figures {
        let mut world = World::new(self, story);
        world.run();
        world.figures.conclude();
        world.figures
    }
}

impl World {
    fn new(fleet: Fleet, story: Story) -> Self {
        let mut random = Random::new(fleet.seed);
        let mut agenda = Agenda::new();
        let cold = story == Story::ColdStart;
        let pace_ms = 2_000 * fleet.agents as u64 / fleet.accepts_per_second.max(1);
        let warm_ms = pace_ms.max(STARTED_WITHIN_MS);
        let (within_ms, began_ms) = if cold { (1_000, 0) } else { (warm_ms, warm_ms + WARM_UP_MS) };
        let members = (0..fleet.agents).map(|number| Member::new(number, &fleet.policy, &mut random)).collect();
        for member in 0..fleet.agents {
            agenda.note(random.between(0, within_ms), Event::Starts { member });
        }
        agenda.note(began_ms, Event::Trouble { node: None });
        Self {
            console: Console::new(&fleet, if cold { Some(began_ms) } else { None }),
            figures: Figures::new(fleet.agents, began_ms, story.trouble_ms(), story.away_ms()),
            away: if cold { fleet.agents } else { 0 },
            fleet,
            story,
            random,
            now_ms: 0,
            agenda,
            members,
            began_ms,
        }
    }

    fn run(&mut self) {
        while let Some((at_ms, event)) = self.agenda.take() {
            self.now_ms = at_ms;
            self.happen(event);
            let trouble_over = self.now_ms > self.began_ms + self.story.trouble_ms();
            if trouble_over && self.away == 0 || self.now_ms > self.began_ms + PATIENCE_MS {
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Starts { member } => {
                let remembered = self.story != Story::ColdStart;
                self.update(member, |agent, now| agent.start(now, remembered));
            }
            Event::Wakes { member } => {
                if self.members.get(member).is_some_and(|agent| agent.wake_ms() == Some(self.now_ms)) {
                    self.update(member, Member::tick);
                }
            }
            Event::Dialled { member, link } => self.arrive(member, link),
            Event::Greeted { member, link } => {
                if self.update(member, |agent, now| agent.greeted(now, link)) {
                    self.is_back(member);
                }
            }
            Event::Failed { member, link, cause } => {
                self.update(member, |agent, now| agent.dial_failed(now, link, cause));
            }
            Event::PortProbed { member, probe, found } => {
                self.update(member, |agent, now| agent.port_probed(now, probe, found));
            }
            Event::Refused { member, link } => {
                self.update(member, |agent, now| agent.closed(now, link, 1008, CloseReason::UnknownInstance));
                self.socket_goes(member, link);
            }
            Event::Ponged { member, link, payload } => {
                self.update(member, |agent, now| agent.ponged(now, link, payload));
            }
            Event::Gone { member, link } => {
                self.update(member, |agent, now| agent.gone(now, link));
            }
            Event::Registered { member, attempt, status, retry_after_ms } => {
                self.update(member, |agent, now| agent.registered(now, attempt, status, retry_after_ms));
            }
            Event::Trouble { node } => self.trouble(node),
        }
    }

    /// Gives an agent an input and grants its wishes. Returns whether it became ready.
    fn update(&mut self, member: usize, handle: impl FnOnce(&mut Member, u64)) -> bool {
        let now_ms = self.now_ms;
        let Some(agent) = self.members.get_mut(member) else { return false };
        let was_ready = agent.is_ready();
        handle(agent, now_ms);
        while let Some(wish) = self.members.get_mut(member).and_then(|agent| agent.next_wish()) {
            self.grant(member, wish);
        }
        let Some(agent) = self.members.get_mut(member) else { return false };
        if let Some(at_ms) = agent.plan_wake() {
            self.agenda.note(at_ms, Event::Wakes { member });
        }
        !was_ready && agent.is_ready()
    }

    fn grant(&mut self, member: usize, wish: Wish) {
        let way_ms = self.members.get(member).map_or(0, |agent| agent.way_ms);
        let cut_off = self.is_cut_off();
        match wish {
            Wish::Dial { link } => {
                self.figures.dialled(self.now_ms, member);
                if cut_off {
                    return;
                }
                let admission = self.console.admit(self.now_ms + way_ms);
                if admission != Admission::Absent {
                    self.figures.arrived(self.now_ms);
                }
                let (at_ms, event) = match admission {
                    Admission::Absent => (way_ms * 2, Event::Failed { member, link, cause: Failure::Refused }),
                    Admission::Refused => (way_ms * 2, Event::Failed { member, link, cause: Failure::Connect }),
                    Admission::BadCertificate => (way_ms * 4, Event::Failed { member, link, cause: Failure::Tls }),
                    Admission::After { wait_ms } => (way_ms * 4 + wait_ms, Event::Dialled { member, link }),
                };
                self.agenda.note(self.now_ms + at_ms, event);
            }
            Wish::ProbePort { probe } => {
                if cut_off {
                    return;
                }
                let found = match self.console.probe(self.now_ms + way_ms) {
                    Admission::Absent => PortState::Refused,
                    Admission::Refused => PortState::Unreachable,
                    Admission::BadCertificate | Admission::After { .. } => PortState::Open,
                };
                if found != PortState::Refused {
                    self.figures.probed(self.now_ms);
                }
                self.agenda.note(self.now_ms + way_ms * 2, Event::PortProbed { member, probe, found });
            }
            Wish::Ping { link, payload } => {
                if !cut_off {
                    self.agenda.note(self.now_ms + 2 * way_ms, Event::Ponged { member, link, payload });
                }
            }
            Wish::Drop { link } | Wish::Close { link } => {
                self.agenda.note(self.now_ms + 2 * way_ms, Event::Gone { member, link });
            }
            Wish::Register { attempt } => self.register(member, attempt, way_ms),
        }
    }

    /// Nothing passes.
    fn is_cut_off(&self) -> bool {
        let since_ms = self.now_ms.checked_sub(self.began_ms);
        self.story == Story::Partition && since_ms.is_some_and(|since_ms| since_ms < self.story.trouble_ms())
    }

    fn arrive(&mut self, member: usize, link: LinkId) {
        let way_ms = self.members.get(member).map_or(0, |agent| agent.way_ms);
        if !self.members.get(member).is_some_and(|agent| agent.dials(link)) {
            return;
        }
        self.figures.opened(self.now_ms);
        self.update(member, |agent, now| agent.opened(now, link));
        let knows = self.console.knows(member);
        let event = if knows { Event::Greeted { member, link } } else { Event::Refused { member, link } };
        self.agenda.note(self.now_ms + way_ms + 15, event);
    }

    fn register(&mut self, member: usize, attempt: RegistrationAttempt, way_ms: u64) {
        let address = member / self.fleet.behind_one_address.max(1);
        let (status, retry_after_ms) = self.console.register(self.now_ms, member, address);
        self.figures.registered(self.now_ms, address, status == 201);
        let in_ms = 2 * way_ms + self.random.between(5, 200);
        self.agenda.note(self.now_ms + in_ms, Event::Registered { member, attempt, status, retry_after_ms });
    }

    fn socket_goes(&mut self, member: usize, link: LinkId) {
        let in_ms = self.random.between(1, 30);
        self.agenda.note(self.now_ms + in_ms, Event::Gone { member, link });
    }

    /// The story begins, or goes on with the next node.
    fn trouble(&mut self, node: Option<usize>) {
        let until_ms = self.began_ms + self.story.trouble_ms();
        match self.story {
            Story::ColdStart => {}
            Story::Partition => {
                self.away = self.fleet.agents;
                self.members.iter_mut().for_each(|agent| agent.back = false);
            }
            Story::Rolling => {
                let node = node.unwrap_or(0);
                if node + 1 < NODES {
                    self.agenda.note(self.now_ms + NODE_EVERY_MS, Event::Trouble { node: Some(node + 1) });
                }
                self.cut_all(|member| member % NODES == node, Some(1001));
            }
            Story::Restart
            | Story::LongRestart
            | Story::Crash
            | Story::LongCrash
            | Story::Certificate
            | Story::Forgets => {
                match self.story {
                    Story::Certificate => self.console.bad_certificate_until_ms = until_ms,
                    Story::Forgets => self.console.forget_all(until_ms),
                    _ => self.console.away_until_ms = until_ms,
                }
                let code = (!matches!(self.story, Story::Crash | Story::LongCrash)).then_some(1012);
                self.cut_all(|_| true, code);
            }
        }
    }

    /// Ends the links of some members, with a close frame or without.
    fn cut_all(&mut self, is_hit: impl Fn(usize) -> bool, code: Option<u16>) {
        for member in (0..self.fleet.agents).filter(|member| is_hit(*member)) {
            let Some(link) = self.members.get(member).and_then(Member::link) else { continue };
            if self.members.get_mut(member).is_some_and(|agent| std::mem::replace(&mut agent.back, false)) {
                self.away += 1;
            }
            self.update(member, |agent, now| match code {
                Some(code) => agent.closed(now, link, code, CloseReason::Other),
                None => agent.lost(now, link, Loss::Reset),
            });
            self.socket_goes(member, link);
        }
    }

    fn is_back(&mut self, member: usize) {
        let Some(agent) = self.members.get_mut(member) else { return };
        if std::mem::replace(&mut agent.back, true) {
            return;
        }
        if self.now_ms >= self.began_ms {
            self.away = self.away.saturating_sub(1);
            self.figures.is_back(self.now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fleet of the bounds, and of the README's table.
    fn fleet(agents: usize) -> Fleet {
        Fleet { policy: Policy::default(), agents, accepts_per_second: 1_000, behind_one_address: 1, seed: 1 }
    }

    #[test]
    fn all_agents_are_back_after_every_story() {
        for story in Story::ALL {
            let figures = fleet(200).live(story);
            assert_eq!(figures.back(), 200, "{story:?}");
        }
    }

    #[test]
    fn hundred_agents_behind_one_address_all_register() {
        for story in [Story::Forgets, Story::ColdStart] {
            let fleet = Fleet { behind_one_address: 100, ..fleet(200) };
            let figures = fleet.live(story);
            assert_eq!(figures.back(), 200, "{story:?}");
            assert!(figures.accepted_to_limit() <= 2.0, "{story:?}: {}", figures.accepted_per_minute());
            let minutes = figures.registrations_by_minute();
            for (minute, sent) in (0..).map(f64::from).zip(minutes) {
                let waiting = (100.0 - 10.0 * minute).max(0.0);
                assert!(sent <= waiting + 5.0, "{story:?}: {sent} sent by {waiting} in minute {minute}");
            }
        }
    }

    #[test]
    fn agent_that_remembers_its_id_does_not_register() {
        for story in [Story::Restart, Story::LongCrash, Story::Partition, Story::Rolling, Story::Certificate] {
            assert_eq!(fleet(100).live(story).registrations_per_minute(), 0, "{story:?}");
        }
    }

    #[test]
    fn fleet_lives_the_same_story_twice() {
        let (one, other) = (fleet(50).live(Story::Crash), fleet(50).live(Story::Crash));
        assert_eq!(one.row(), other.row());
    }
}
