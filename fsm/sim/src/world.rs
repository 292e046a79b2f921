//! One world: an agent, a network and a console on one virtual clock that jumps to the earliest event.
//!
//! It moves time and hands events to those whom they concern. What the agent's process does with them stands in `host`,
//! what the network and the console do in `network` and `console`, what goes wrong in `storm`, what must hold at the
//! end in `calm`. Times are milliseconds of the world unless they are called the agent's own.

use crate::agenda::Agenda;
use crate::calm::Calm;
use crate::console::Console;
use crate::host::Host;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::logs::Logs;
use crate::messages::Messages;
use crate::panics::Panic;
use crate::plan::{Fault, Plan};
use crate::planted::Planted;
use crate::rows::{RowId, Rows};
use crate::violation::Violation;
use crate::wire::Wire;
use crate::work::Subject;
use crate::work::Work;
use draupnir_fsm::driver::{
    AppendId, AuditId, CommandKey, Failure, HandOverInput, INPUTS_PER_TURN_MAX, LinkId, PortProbe, PortState,
    RegistrationAttempt, SessionKey, StateKind, StreamKey,
};
use draupnir_fsm::random::Random;

/// A world that has seen more than this is one that does not end.
const EVENTS_MAX: u64 = 2_000_000;

/// A world that is older than this is one that does not end, either: two days.
const WORLD_MS_MAX: u64 = 172_800_000;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    // What the process hears: reports to one of its programs, and what outlives that.
    Answered {
        program: u32,
        attempt: RegistrationAttempt,
        status: u16,
        retry_after_ms: Option<u64>,
        row: Option<RowId>,
    },
    RegistrationFailed {
        program: u32,
        attempt: RegistrationAttempt,
        cause: Failure,
    },
    Opened {
        program: u32,
        link: LinkId,
    },
    DialFailed {
        program: u32,
        link: LinkId,
        cause: Failure,
        retry_after_ms: Option<u64>,
    },
    PortProbed {
        program: u32,
        probe: PortProbe,
        found: PortState,
    },
    Arrives {
        life: u32,
        link: LinkId,
    },
    Written {
        life: u32,
        link: LinkId,
    },
    Closed {
        program: u32,
        link: LinkId,
    },
    Read {
        program: u32,
        stream: StreamKey,
    },
    Sampled {
        program: u32,
        sample: StateKind,
    },
    Audited {
        program: u32,
        audit: AuditId,
        subject: Option<Subject>,
        written: bool,
    },
    Appended {
        program: u32,
        append: AppendId,
        written: bool,
    },
    ShellStarts {
        program: u32,
        session: SessionKey,
    },
    CommandStarts {
        program: u32,
        command: CommandKey,
    },
    CommandEnds {
        life: u32,
        command: CommandKey,
        code: i32,
    },
    OutputEnds {
        life: u32,
        command: CommandKey,
    },
    SessionEnds {
        life: u32,
        session: SessionKey,
        code: i32,
    },
    Counted {
        program: u32,
    },
    LogsRead {
        program: u32,
    },
    HandOver {
        program: u32,
        what: HandOverInput,
    },
    Stop,
    // What happens to the process.
    Thaws {
        life: u32,
    },
    Begins,
    // What happens elsewhere.
    Prints {
        life: u32,
        stream: StreamKey,
    },
    Accepts {
        life: u32,
        link: LinkId,
    },
    Reaches {
        life: u32,
        link: LinkId,
    },
    Greets {
        life: u32,
        link: LinkId,
    },
    Heals {
        life: u32,
        link: LinkId,
    },
    GivesUp {
        life: u32,
        link: LinkId,
    },
    RefusesLink {
        life: u32,
        link: LinkId,
    },
    Works,
    InjectFault,
    TwinComes,
    Calms,
    Probes,
}

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events of the world and wake-ups of the agent.
    pub events: u64,
    /// Links that came up.
    pub links: u64,
    /// Milliseconds of the world.
    pub ms: u64,
    /// Facts that the machine took in.
    pub facts: u64,
    /// Reliable messages that reached the console.
    pub messages: u64,
    /// Links that were lost in the storm without a close frame.
    pub unclean_losses: u64,
    /// Terminals that were open when the agent ended a link of the storm to cure the console.
    pub sessions_ended: u64,
    /// What users asked in the storm while the console did not reach the agent though its link was up.
    pub requests_lost: u64,
}

impl Stats {
    /// Counts what was counted elsewhere too.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.links += other.links;
        self.ms += other.ms;
        self.facts += other.facts;
        self.messages += other.messages;
        self.unclean_losses += other.unclean_losses;
        self.sessions_ended += other.sessions_ended;
        self.requests_lost += other.requests_lost;
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) planted: Option<Planted>,
    pub(crate) random: Random,
    /// What is left of the plan's.
    script: std::vec::IntoIter<u8>,
    pub(crate) now_ms: u64,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) storm: bool,
    pub(crate) host: Host,
    pub(crate) identity: Identity,
    pub(crate) console: Console,
    pub(crate) rows: Rows,
    pub(crate) wires: Vec<Wire>,
    pub(crate) work: Work,
    pub(crate) messages: Messages,
    pub(crate) journal: Journal,
    pub(crate) logs: Logs,
    pub(crate) calm: Calm,
    pub(crate) violation: Option<Violation>,
    pub(crate) stats: Stats,
    pub(crate) story: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(plan: Plan, planted: Option<Planted>, with_story: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let host = Host::absent(random.next_u64(), with_story);
        let rows = Rows::new(&plan);
        Self {
            identity: Identity::new(&plan, rows.own()),
            console: Console::new(plan.remembered || plan.instance_id.is_deployed()),
            rows,
            calm: Calm::default(),
            planted,
            random,
            script: plan.script.clone().into_iter(),
            now_ms: 0,
            agenda: Agenda::new(),
            storm: true,
            host,
            wires: Vec::new(),
            work: Work { audited: plan.audited, ..Work::default() },
            messages: Messages::default(),
            journal: Journal::default(),
            logs: Logs::new(plan.seed),
            violation: None,
            stats: Stats::default(),
            story: with_story.then(Vec::new),
            plan,
        }
    }

    /// Lives until all is checked, or something is broken.
    pub(crate) fn run(&mut self) {
        self.begin_life();
        self.note_in(self.plan.storm_ms, Event::Calms);
        self.next_fault();
        self.next_work();
        while self.violation.is_none() && !self.calm.over {
            if self.stats.events > EVENTS_MAX || self.now_ms > WORLD_MS_MAX {
                self.fail(Violation::Endless);
            } else {
                self.step();
            }
        }
        self.conclude();
    }

    /// It panicked on the way.
    pub(crate) fn break_off(&mut self, panic: Panic) {
        self.fail(Violation::Panicked(panic));
        self.conclude();
    }

    fn conclude(&mut self) {
        self.stats.ms = self.now_ms;
        self.stats.facts += self.host.facts();
    }

    fn step(&mut self) {
        self.stats.events += 1;
        let event_at = self.agenda.next_at();
        if self.host.stirred > 0 && (self.host.stirred >= INPUTS_PER_TURN_MAX || event_at != Some(self.now_ms)) {
            self.turn();
            return self.check_calm();
        }
        let wake_at = self.host.wake_ms();
        match (event_at, wake_at) {
            (None, None) => self.fail(Violation::Endless),
            (event_at, Some(wake_at)) if event_at.is_none_or(|event_at| wake_at < event_at) => {
                self.now_ms = self.now_ms.max(wake_at);
                self.host.count_wake(self.now_ms);
                self.wake();
                self.turn();
            }
            _ => {
                let Some((at_ms, event)) = self.agenda.take() else { return };
                self.now_ms = at_ms;
                self.happen(event);
            }
        }
        self.check_calm();
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Answered { program, .. }
            | Event::RegistrationFailed { program, .. }
            | Event::Opened { program, .. }
            | Event::DialFailed { program, .. }
            | Event::PortProbed { program, .. }
            | Event::Closed { program, .. }
            | Event::Read { program, .. }
            | Event::Sampled { program, .. }
            | Event::Audited { program, .. }
            | Event::Appended { program, .. }
            | Event::ShellStarts { program, .. }
            | Event::CommandStarts { program, .. }
            | Event::Counted { program }
            | Event::LogsRead { program }
            | Event::HandOver { program, .. } => {
                if program == self.host.program {
                    self.hand(event);
                }
            }
            Event::Arrives { life, .. }
            | Event::Written { life, .. }
            | Event::CommandEnds { life, .. }
            | Event::OutputEnds { life, .. }
            | Event::SessionEnds { life, .. } => {
                if life == self.host.life {
                    self.hand(event);
                }
            }
            Event::Stop => self.hand(event),
            Event::Thaws { life } => self.thaw(life),
            Event::Begins => {
                if !self.host.running {
                    self.begin_life();
                }
            }
            Event::Prints { life, stream } => {
                if life == self.host.life {
                    self.print(stream);
                }
            }
            Event::Accepts { life, link } => self.accept(life, link),
            Event::Reaches { life, link } => self.reach_console(life, link),
            Event::Greets { life, link } => self.greet(life, link),
            Event::Heals { life, link } => self.heal(life, link),
            Event::GivesUp { life, link } => self.console_notices_end(life, link),
            Event::RefusesLink { life, link } => self.refuse_link(life, link),
            Event::Works => self.do_work(),
            Event::InjectFault => self.inject_fault(),
            Event::TwinComes => self.twin_comes(),
            Event::Calms if self.storm => self.become_calm(),
            Event::Calms => {}
            Event::Probes => self.probe(),
        }
    }

    pub(crate) fn note_in(&mut self, in_ms: u64, event: Event) {
        self.agenda.note(self.now_ms + in_ms, event);
    }

    pub(crate) fn note_at(&mut self, at_ms: u64, event: Event) {
        self.agenda.note(at_ms.max(self.now_ms), event);
    }

    /// Notes the first violation; what follows it means nothing.
    pub(crate) fn fail(&mut self, violation: Violation) {
        if self.violation.is_none() {
            self.log(|| format!("BROKEN: {violation}"));
            self.violation = Some(violation);
        }
    }

    pub(crate) fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.fail(violation);
        }
    }

    /// Adds a line to the story, if one is kept.
    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} s  {}", std::time::Duration::from_millis(self.now_ms).as_secs_f64(), line()));
        }
    }

    /// Does a fault that waits for its moment act now?
    pub(crate) fn meets(&mut self, fault: Fault) -> bool {
        self.storm && self.plan.faults.has(fault) && self.chance(self.plan.percent)
    }

    /// One of those that act now, if any.
    pub(crate) fn meets_one_of(&mut self, faults: &[Fault]) -> Option<Fault> {
        if !self.storm {
            return None;
        }
        let known = faults.iter().filter(|fault| self.plan.faults.has(**fault)).count();
        if known == 0 || !self.chance(self.plan.percent) {
            return None;
        }
        let place = self.pick(known);
        faults.iter().copied().filter(|fault| self.plan.faults.has(*fault)).nth(place)
    }

    /// A place in a list of `length` entries.
    pub(crate) fn pick(&mut self, length: usize) -> usize {
        let last = u64::try_from(length).unwrap_or(1).saturating_sub(1);
        usize::try_from(self.between(0, last)).unwrap_or(0)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// A decision of the storm, `low..=high`: by the script, as long as there is one, in as few bytes as can say it.
    /// What decides nothing is drawn from the generator itself.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        let said = if self.storm && span > 0 { self.script.next() } else { None };
        let Some(said) = said.map(u64::from) else { return self.random.between(low, high) };
        if span < 256 {
            return low + said % (span + 1);
        }
        let more = self.script.next().map_or(0, u64::from);
        low + (said << 8 | more) * span / 65_535
    }

    /// The storm follows a script, and that is at its end.
    pub(crate) fn script_is_over(&self) -> bool {
        !self.plan.script.is_empty() && self.script.len() == 0
    }

    /// The connection of a link.
    pub(crate) fn wire(&mut self, link: LinkId) -> Option<&mut Wire> {
        self.wires.iter_mut().find(|wire| wire.link == link)
    }
}
