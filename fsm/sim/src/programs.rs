//! One program takes another's place in the same process: a hand-over, and the restart after a panic.
//!
//! The process stays, and with it its children, their pipes and terminals, what the kernel holds of them, and the
//! moments of all of that: these events carry the number of the process (`life`). What is reported to a program carries
//! that of the program, and is lost with it. After a hand-over the next program goes on with what
//! [`Driver::inheritance`](draupnir_fsm::driver::Driver::inheritance) gives, in the form in which the agent writes it;
//! after a panic with the descriptors, processes, ids and sizes of what runs, and with the journal.

use crate::doors::Text;
use crate::host::Host;
use crate::plan::Fault;
use crate::planted::Planted;
use crate::rules::Rules;
use crate::violation::Violation;
use crate::wire::Up;
use crate::work::Stage;
use crate::world::{Event, World};
use draupnir_fsm::driver::{
    CommandKey, ConsoleId, Drops, HandOverInput, HandOverStep, Input, Restored, SavedConnection, SessionKey, StreamKey,
    TakenOver, effective_timeout_ms,
};

/// What is left of the time of a command whose time-out a panic hands over, in milliseconds: the program counts it
/// from the start of the process, which the world does not report.
const SLACK_MS: u64 = 10;

/// What one program gives the next, with the bodies of messages.
type Given = Vec<(TakenOver, Option<Text>)>;

impl World {
    /// An operator asks the agent to hand over.
    pub(crate) fn ask_to_hand_over(&mut self) {
        if self.host.running {
            self.log(|| "SIGUSR2".to_owned());
            let program = self.host.program;
            self.hand(Event::HandOver { program, what: HandOverInput::Requested });
        }
    }

    /// Does a step of a hand-over: most go well, others take too long, fail, or are never heard of.
    pub(crate) fn hand_over_ordered(&mut self, step: HandOverStep) {
        let program = self.host.program;
        self.host.hand_over = Some(step);
        let goes_well = !self.storm || self.chance(80);
        let (what, in_ms) = match step {
            HandOverStep::Ask if goes_well => (HandOverInput::Accepted, self.between(1, 300)),
            HandOverStep::Ask if self.chance(50) => (HandOverInput::Rejected, self.between(1, 4_000)),
            HandOverStep::Ask => (HandOverInput::Accepted, self.between(4_000, 8_000)),
            HandOverStep::AwaitTools if goes_well => (HandOverInput::ToolsDone, self.between(0, 100)),
            HandOverStep::AwaitTools => (HandOverInput::ToolsDone, self.between(100, 40_000)),
            HandOverStep::Flush if goes_well => (HandOverInput::Flushed, self.between(0, 20)),
            HandOverStep::Flush => (HandOverInput::Flushed, self.between(500, 3_000)),
            HandOverStep::Replace => return self.host.replaces = true,
        };
        self.log(|| format!("hand-over: {step:?}"));
        self.note_in(in_ms, Event::HandOver { program, what });
    }

    /// The hand-over is refused: all goes on, and a link that was closed for it comes back.
    pub(crate) fn hand_over_refused(&mut self) {
        self.host.hand_over = None;
        let own_ms = self.own_now().as_ms();
        self.host.rules.hand_over_refused(own_ms);
    }

    /// The turn that ordered it is over: the next program takes the place of this one.
    pub(crate) fn replace_program(&mut self) {
        self.host.replaces = false;
        if self.storm && self.chance(20) {
            self.log(|| "hand-over: the program is not replaced".to_owned());
            return self.handle(Input::HandOver { what: HandOverInput::Failed });
        }
        let (now, own_ms) = (self.program_now(), self.own_now().as_ms());
        let seed = self.host.driver.next_seed();
        let mut given = self.host.driver.inheritance(now);
        let before = self.host.driver.snapshot();
        self.plant_in_hand_over(&mut given);
        if let Some(link) = self.host.dialling {
            self.abandon(link);
        }
        if self.wires.iter().any(|wire| wire.agent_open) {
            return self.fail(Violation::HandOverLost("link"));
        }
        self.console.refused = None;
        self.journal.flush();
        let mut next = self.next_program(seed);
        next.rules = std::mem::replace(&mut self.host.rules, Rules::new(true));
        next.rules.taken_over(own_ms);
        next.unsynced_since_ms = self.host.unsynced_since_ms.map(|_| own_ms);
        self.log(|| format!("the program is replaced; it gives {} things", given.len()));
        self.start_program(next);
        self.logs.start_over(self.journal.found().log_line.into());
        self.resume_children();
        for (what, body) in given {
            self.take_over(what, body);
        }
        if self.plan.journaled {
            let numbers_up_to = self.journal.found().numbers_up_to;
            self.handle(Input::Restored { what: Restored::Begun { numbers_up_to } });
        }
        self.turn();
        let after = self.host.driver.snapshot();
        if self.host.running && (after.sessions, after.commands) != (before.sessions, before.commands) {
            self.log(|| format!("before: {before:?}, after: {after:?}"));
            self.fail(Violation::HandOverLost("session or command"));
        }
    }

    /// The program panics, and starts again in the same process.
    pub(crate) fn panic_restart(&mut self) {
        if !self.host.running || self.host.frozen || self.host.rules.drains_since_ms.is_some() {
            return;
        }
        let Some(history) = self.host.panics.after_panic(self.now_ms / 1_000) else {
            self.log(|| "one panic too many".to_owned());
            return self.crash();
        };
        let pending = self.journal.pending();
        let written = self.pick(pending + 1);
        self.journal.die(written);
        // The next program cannot know of what the console must be cured.
        self.console.lost_routing_unseen |= self.host.rules.wants_resync();
        let started = (self.host.slept_ms, self.host.real_step_ms);
        self.process_gone();
        let mut next = self.next_program(self.host.seed.wrapping_add(u64::from(self.host.program) << 40));
        (next.slept_ms, next.real_step_ms) = started;
        next.rules = Rules::new(self.identity.is_remembered());
        next.panics = history;
        self.log(|| "the program panics, and starts again".to_owned());
        self.start_program(next);
        self.forget_connections();
        self.messages.start_over();
        let given = self.kept_by_panic();
        self.resume_children();
        for what in given {
            self.take_over(what, None);
        }
        if self.plan.journaled {
            self.restore();
        }
    }

    /// The program that comes after this one in its process.
    fn next_program(&self, seed: u64) -> Host {
        let host = &self.host;
        let mut next = Host::absent(seed, host.keeps_steps);
        (next.life, next.panics, next.wakes) = (host.life, host.panics, host.wakes);
        (next.started_ms, next.slept_ms, next.real_step_ms) = (host.started_ms, host.slept_ms, host.real_step_ms);
        next.epoch_ms = host.own(self.now_ms).as_ms();
        next
    }

    /// The children go on; the program finds out again what the kernel knows of their ends.
    fn resume_children(&mut self) {
        let life = self.host.life;
        for source in self.work.sources.values_mut() {
            (source.credit, source.reading, source.holds_back) = (0, false, false);
        }
        let mut ends = Vec::new();
        for (session, shell) in &self.work.shells {
            ends.extend(shell.exit_code.map(|code| Event::SessionEnds { life, session: *session, code }));
        }
        for (command, job) in &self.work.jobs {
            let command = *command;
            ends.extend(job.exit_code.map(|code| Event::CommandEnds { life, command, code }));
            ends.extend(job.output_ended.then_some(Event::OutputEnds { life, command }));
        }
        ends.into_iter().for_each(|end| self.note_in(1, end));
    }

    fn take_over(&mut self, what: TakenOver, body: Option<Text>) {
        if let (
            TakenOver::Message { number, .. } | TakenOver::Result { number: Some(number), .. },
            Some(Text { up: Up::Message(place), .. }),
        ) = (what, body)
        {
            self.work.restored.insert(number, place);
        }
        self.handle(Input::TakenOver { what: read_again(what) });
    }

    /// What a panic leaves: the sessions and commands that run, without what was read of them. All else is gone.
    fn kept_by_panic(&mut self) -> Vec<TakenOver> {
        let own_ms = self.own_now().as_ms();
        let life = self.host.life;
        let hides = self.planted == Some(Planted::HidesLostScrollback);
        let work = &mut self.work;
        work.shells.retain(|_, shell| shell.stage == Stage::Open);
        work.jobs.retain(|_, job| job.stage == Stage::Open);
        let (shells, jobs) = (&work.shells, &work.jobs);
        work.sources.retain(|stream, source| match stream {
            StreamKey::Terminal(session) => shells.contains_key(session),
            StreamKey::Stdout(command) | StreamKey::Stderr(command) => jobs.contains_key(command) && !source.finished,
            StreamKey::Logs => false,
        });
        for source in work.sources.values_mut() {
            (source.retained, source.keep_from) = (source.end, None);
        }
        let is_kept = |dispatch: usize| jobs.values().any(|job| job.dispatch as usize == dispatch);
        for (place, asked) in work.dispatches.iter_mut().enumerate() {
            asked.taken_in_life.take_if(|taken| *taken == life && !is_kept(place));
        }
        let at = |stream: StreamKey| {
            let source = work.sources.get(&stream);
            source.map_or(0, |source| if hides { source.end } else { source.acked.min(source.end) })
        };
        let connection = SavedConnection::default();
        let mut given = vec![TakenOver::Begun { numbers_up_to: 0, connection, drops: Drops::default() }];
        given.extend(shells.iter().map(|(session, shell)| TakenOver::Session {
            session: *session,
            id: ConsoleId(shell.terminal.into()),
            at: at(StreamKey::Terminal(*session)),
            orphan_in_ms: None,
            end: None,
            replay: false,
        }));
        given.extend(jobs.iter().filter_map(|(command, job)| {
            let asked = work.dispatches.get(job.dispatch as usize)?;
            let until_ms = job.began_ms + effective_timeout_ms(asked.timeout_ms) + SLACK_MS;
            let streams = [StreamKey::Stdout(*command), StreamKey::Stderr(*command)];
            Some(TakenOver::Command {
                command: *command,
                id: ConsoleId(job.dispatch.into()),
                timeout_in_ms: until_ms.saturating_sub(own_ms),
                streams: asked.streams.then_some(streams.map(at)),
                end: None,
            })
        }));
        work.forget_program();
        given
    }

    /// Alters what one program gives the next.
    fn plant_in_hand_over(&self, given: &mut Given) {
        let Some(planted) = self.planted else { return };
        let drops = |what: &TakenOver| match planted {
            Planted::ForgetsSessions => matches!(what, TakenOver::Session { .. }),
            Planted::ForgetsLedger => matches!(what, TakenOver::Message { .. }),
            Planted::ForgetsCommandIds => matches!(what, TakenOver::Ended { .. } | TakenOver::Result { .. }),
            _ => false,
        };
        given.retain(|(what, _)| !drops(what));
        for (what, _) in given {
            match (planted, *what) {
                (Planted::RepeatsBytes, TakenOver::Session { session, id, at: _, orphan_in_ms, end, replay }) => {
                    *what = TakenOver::Session { session, id, at: 0, orphan_in_ms, end, replay };
                }
                (Planted::RunsAgain, TakenOver::Command { command, id, timeout_in_ms, streams, end: _ }) => {
                    let (timeout_ms, streams) = (timeout_in_ms, streams.is_some());
                    *what = TakenOver::Waiting { command, id, timeout_ms, bytes: 0, streams };
                }
                (Planted::ForgetsWaits, TakenOver::Begun { numbers_up_to, connection: _, drops }) => {
                    *what = TakenOver::Begun { numbers_up_to, connection: SavedConnection::default(), drops };
                }
                _ => {}
            }
        }
    }

    /// Whether the journal need not say what became of a command or session: a panic left it.
    pub(crate) fn is_kept(&self, command: Option<ConsoleId>, session: Option<ConsoleId>) -> bool {
        let is = |id: Option<ConsoleId>, number: u32| id == Some(ConsoleId(number.into()));
        self.work.jobs.values().any(|job| job.stage == Stage::Open && is(command, job.dispatch))
            || self.work.shells.values().any(|shell| shell.stage == Stage::Open && is(session, shell.terminal))
    }

    /// A child has ended, as the kernel keeps it for the program that comes next.
    pub(crate) fn session_ended(&mut self, session: SessionKey, code: i32) {
        if let Some(shell) = self.work.shells.get_mut(&session) {
            shell.exit_code = Some(code);
        }
    }

    /// The same of a command.
    pub(crate) fn command_ended(&mut self, command: CommandKey, code: Option<i32>) {
        if let Some(job) = self.work.jobs.get_mut(&command) {
            job.exit_code = code.or(job.exit_code);
            job.output_ended |= code.is_none();
        }
    }

    /// Whether the program panics in the middle of this turn.
    pub(crate) fn panics_now(&mut self) -> bool {
        /// Of so many outputs, one panics where programs panic at all.
        const PANICS_ONE_IN: u64 = 2_000;
        let may_panic = self.storm && self.host.rules.drains_since_ms.is_none();
        may_panic && self.plan.faults.has(Fault::PanicRestart) && self.random.between(1, PANICS_ONE_IN) == 1
    }
}

/// What the next program reads of what this one wrote.
fn read_again(what: TakenOver) -> TakenOver {
    let text = serde_json::to_string(&what).expect("it has a form");
    serde_json::from_str(&text).expect("a program reads what it wrote")
}
