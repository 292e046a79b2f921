//! What the process hears: each event becomes inputs of the driver, as the agent makes them of its reports.

use crate::plan::{Fault, Terminals};
use crate::planted::Planted;
use crate::violation::Violation;
use crate::wire::Down;
use crate::work::{Job, Shell, Source, Stage, Terminal, USAGE_WITHIN_MS};
use crate::world::{Event, World};
use draupnir_fsm::driver::{
    CommandInput, CommandKey, ConsoleId, ConsoleMessage, Failure, HandOverInput, Input, Kind, LinkId,
    PING_PAYLOAD_BYTES, PortState, Remains, Restored, SESSIONS_MAX, SessionInput, SessionKey, StreamKey,
};

/// What a dispatch takes in memory while it waits, in bytes.
const DISPATCH_BYTES: usize = 400;

impl World {
    pub(crate) fn take_in(&mut self, event: Event) {
        let own_ms = self.own_now().as_ms();
        match event {
            Event::Answered { attempt, status, retry_after_ms, row, .. } => {
                let is_accepted = matches!(status, 200..=299 | 409);
                if is_accepted && self.planted == Some(Planted::RegistersWithoutWait) {
                    return self.handle(Input::RegistrationFailed { attempt, cause: Failure::Protocol });
                }
                if is_accepted {
                    self.identity.remember(row);
                }
                self.host.rules.answered(own_ms, status, retry_after_ms);
                self.handle(Input::RegistrationAnswered { attempt, status, retry_after_ms });
            }
            Event::RegistrationFailed { attempt, cause, .. } => {
                self.handle(Input::RegistrationFailed { attempt, cause });
            }
            Event::Opened { link, .. } => self.opened(link),
            Event::DialFailed { link, cause, retry_after_ms, .. } => {
                if self.host.dialling.take_if(|dialling| *dialling == link).is_some() {
                    self.log(|| format!("dial {link} failed: {cause:?}"));
                    self.host.rules.dial_failed(own_ms, cause, retry_after_ms);
                    let is_mistaken = self.planted == Some(Planted::ProbesPortOfProxy) && cause == Failure::Connect;
                    let cause = if is_mistaken { Failure::Refused } else { cause };
                    let link = self.host.link_of_program(link);
                    self.handle(Input::DialFailed { link, cause, retry_after_ms });
                }
            }
            Event::PortProbed { probe, found, .. } => {
                if self.host.probing.take_if(|probing| *probing == probe).is_some() {
                    self.log(|| format!("port probe {probe}: {found:?}"));
                    self.host.rules.port_probed(found);
                    let is_hidden = self.planted == Some(Planted::ProbesPortAgain) && found == PortState::Open;
                    let found = if is_hidden { PortState::Unreachable } else { found };
                    self.handle(Input::PortProbed { probe, found });
                }
            }
            Event::Arrives { link, .. } => self.arrive(link),
            Event::Written { link, .. } => self.written(link),
            Event::Closed { link, .. } => {
                if let Some(wire) = self.wire(link) {
                    wire.agent_open = false;
                }
                self.host.rules.gone(own_ms, link);
                let link = self.host.link_of_program(link);
                self.handle(Input::LinkClosed { link });
            }
            Event::Sampled { sample, .. } => self.handle(Input::Sampled { sample }),
            Event::Read { stream, .. } => self.read(stream),
            Event::Audited { audit, subject, written, .. } => {
                if let Some(subject) = subject.filter(|_| written) {
                    self.work.audit_written(subject);
                }
                self.handle(if written { Input::Audited { audit } } else { Input::AuditFailed { audit } });
            }
            Event::Appended { append, written, .. } => {
                self.log(|| format!("records up to {append:?}: {written}"));
                // That agent reports what stays on its way until the next record.
                if self.planted != Some(Planted::ReportsUnwritten) {
                    self.journal.report(append, written);
                }
                self.handle(if written { Input::Appended { append } } else { Input::AppendFailed { append } });
            }
            Event::ShellStarts { session, .. } => self.shell_starts(session),
            Event::SessionEnds { session, code, .. } => {
                let stream = StreamKey::Terminal(session);
                self.session_ended(session, code);
                if let Some(source) = self.work.sources.get_mut(&stream) {
                    source.read_all();
                }
                self.session(session, SessionInput::Exited { code });
                self.note_output(stream);
                self.session(session, SessionInput::EndOfOutput);
                self.session(session, SessionInput::Reaped);
            }
            Event::CommandStarts { command, .. } => self.command_starts(command),
            Event::CommandEnds { command, code, .. } => {
                self.command_ended(command, Some(code));
                self.command(command, CommandInput::Exited { code });
            }
            Event::OutputEnds { command, .. } => {
                self.command_ended(command, None);
                self.command(command, CommandInput::EndOfOutput);
            }
            Event::HandOver { what, .. } => {
                self.host.gives_up_link |= what == HandOverInput::Flushed;
                self.handle(Input::HandOver { what });
            }
            Event::Counted { .. } => {
                self.work.usage.push_back(own_ms + USAGE_WITHIN_MS);
                if self.planted != Some(Planted::ForgetsUsage) {
                    self.handle(Input::UsageCounted { within_ms: USAGE_WITHIN_MS });
                }
            }
            Event::LogsRead { .. } => self.logs_read(),
            Event::Stop => {
                self.host.rules.drains_since_ms.get_or_insert(own_ms);
                self.handle(Input::ShutdownRequested);
            }
            Event::Thaws { .. }
            | Event::Begins
            | Event::Prints { .. }
            | Event::Accepts { .. }
            | Event::Reaches { .. }
            | Event::Greets { .. }
            | Event::Heals { .. }
            | Event::GivesUp { .. }
            | Event::RefusesLink { .. }
            | Event::Works
            | Event::InjectFault
            | Event::TwinComes
            | Event::Calms
            | Event::Probes => {}
        }
    }

    fn opened(&mut self, link: LinkId) {
        if self.host.dialling.take_if(|dialling| *dialling == link).is_none() {
            return;
        }
        let own_ms = self.own_now().as_ms();
        self.stats.links += 1;
        self.host.rules.opened(own_ms, link);
        self.host.old_ping = self.host.newest_ping.take();
        let link = self.host.link_of_program(link);
        self.handle(Input::LinkOpened { link });
    }

    fn written(&mut self, link: LinkId) {
        let now_ms = self.now_ms;
        let Some(wire) = self.wire(link) else { return };
        let done = wire.batch.is_some_and(|batch| batch.until_ms <= now_ms) && wire.agent_open;
        if done && (wire.stalled_until(now_ms).is_none() || wire.fits_the_buffer()) {
            wire.end_batch();
            let link = self.host.link_of_program(link);
            self.handle(Input::Written { link });
        }
    }

    /// The next frame of the console's, or the end of the link.
    fn arrive(&mut self, link: LinkId) {
        let (now_ms, own_ms) = (self.now_ms, self.own_now().as_ms());
        let Some(wire) = self.wire(link).filter(|wire| wire.agent_open) else { return };
        if let Some(until_ms) = wire.stalled_until(now_ms) {
            if until_ms < u64::MAX {
                let life = self.host.life;
                self.note_at(until_ms, Event::Arrives { life, link });
            }
            return;
        }
        let Some(frame) = wire.take_down(now_ms) else { return };
        let live = self.host.rules.live == Some(link);
        match frame {
            Down::Close(code, reason) => {
                self.log(|| format!("link {link}: the console closes it with {code} ({reason:?})"));
                let checked = self.host.rules.closed_by_console(own_ms, link, code, reason);
                self.check(checked);
                self.console.refused.take_if(|refused| refused.link != link);
                let rejects = matches!(code, 1003 | 1007 | 1009);
                let code = if rejects && self.planted == Some(Planted::ResendsPoison) { 1011 } else { code };
                let of_program = self.host.link_of_program(link);
                self.handle(Input::CloseReceived { link: of_program, code, reason });
                self.socket_ends(link);
            }
            Down::Lost(cause) => {
                self.log(|| format!("link {link}: lost ({cause:?})"));
                // A socket that breaks while it closes is gone like any other: nothing shows that it was not answered.
                self.console.lost_routing_unseen |= !live;
                self.host.rules.broke(own_ms, link);
                self.stats.unclean_losses += u64::from(live && self.storm);
                self.console.refused = None;
                let of_program = self.host.link_of_program(link);
                self.handle(Input::LinkLost { link: of_program, cause });
                self.socket_ends(link);
            }
            Down::CloseAnswered => self.socket_ends(link),
            Down::Pong(payload) => self.pong(link, payload),
            Down::Text => self.receive(link, ConsoleMessage::Other),
            Down::Subscribe => self.subscribed(link),
            Down::Dispatch(dispatch) => self.dispatched(link, dispatch),
            Down::Cancel(dispatch) => self.receive(link, ConsoleMessage::Cancel { id: self.command_id(dispatch) }),
            Down::Create(terminal) => self.create(link, terminal),
            Down::Input(terminal) => {
                self.work.typed.push_back(terminal);
                self.receive(link, ConsoleMessage::Keys { id: terminal_id(terminal) });
            }
            Down::Resize(terminal) => {
                self.receive(link, ConsoleMessage::Resize { id: terminal_id(terminal), cols: 132, rows: 43 });
            }
            Down::EndSession(terminal) => {
                if live {
                    let shells = self.work.shells.values_mut().filter(|shell| shell.terminal == terminal);
                    shells.for_each(|shell| shell.closing = true);
                }
                self.receive(link, ConsoleMessage::Close { id: terminal_id(terminal) });
            }
        }
    }

    pub(crate) fn receive(&mut self, link: LinkId, message: ConsoleMessage) {
        if self.host.rules.live == Some(link) && !std::mem::replace(&mut self.host.greeted, true) {
            self.host.rules.greeted();
        }
        let link = self.host.link_of_program(link);
        self.handle(Input::Received { link, message });
    }

    fn pong(&mut self, link: LinkId, payload: [u8; PING_PAYLOAD_BYTES]) {
        let payload = match self.planted {
            Some(Planted::AcknowledgesPastThePing) => self.host.newest_ping.unwrap_or(payload),
            Some(Planted::AcceptsPongsOfOldLinks) if Some(payload) == self.host.old_ping => {
                self.host.newest_ping.unwrap_or(payload)
            }
            Some(_) | None => payload,
        };
        self.host.awaits_pong.take_if(|(of, _)| *of == link);
        let link = self.host.link_of_program(link);
        self.handle(Input::Pong { link, payload });
    }

    /// The id of a command, as the console gave it.
    pub(crate) fn command_id(&self, dispatch: u32) -> ConsoleId {
        let unique = if self.planted == Some(Planted::RunsRepeats) { u64::from(self.work.next_key) << 32 } else { 0 };
        ConsoleId((u64::from(dispatch) | unique).into())
    }

    fn dispatched(&mut self, link: LinkId, dispatch: u32) {
        let life = self.host.life;
        let live = self.host.rules.live == Some(link) && !self.host.gives_up_link;
        self.log(|| format!("link {link}: dispatch {dispatch}"));
        let id = self.command_id(dispatch);
        let is_known = self.journal.remembers(id);
        let command = CommandKey(self.work.next_key());
        let Some(asked) = self.work.dispatches.get_mut(dispatch as usize) else { return };
        if live && asked.taken_in_life != Some(life) {
            asked.taken_in_life = Some(life);
            // A repeat of what the journal knows is no new command.
            if !is_known {
                (asked.started, asked.answered, asked.result) = (false, false, None);
            }
        }
        let (timeout_ms, streams) = (asked.timeout_ms, asked.streams);
        self.work.jobs.insert(command, Job::new(dispatch));
        let message =
            ConsoleMessage::Dispatch { command, id, timeout_ms, bytes: DISPATCH_BYTES, streams, allowed: true };
        self.receive(link, message);
    }

    /// A new process reads its journal.
    pub(crate) fn restore(&mut self) {
        // Which message ended its links no process knows of the one before.
        self.console.refused = None;
        // What was handed over behind the order to leave was written on the way out.
        self.journal.die(self.journal.pending());
        let found = self.journal.found();
        self.logs.start_over(found.log_line.into());
        self.restored(Restored::Begun { numbers_up_to: found.numbers_up_to });
        let is_planted = |this: &Self, fault| this.planted == Some(fault);
        if !is_planted(self, Planted::ForgetsJournaledIds) {
            found.ended.iter().for_each(|id| self.restored(Restored::Ended { id: *id }));
        }
        let loses = is_planted(self, Planted::LosesJournaledMessages);
        for (number, (kind, of, place)) in found.messages.into_iter().filter(|_| !loses) {
            let message = self.messages.message(place).copied();
            let what = match (kind, of) {
                (Kind::Result, Some(id)) if is_planted(self, Planted::InterruptsEndedCommands) => {
                    self.interrupted(id);
                    continue;
                }
                (Kind::Result, Some(id)) => {
                    let command = CommandKey(self.work.next_key());
                    self.work.results.insert(command, place);
                    Restored::Result { number, command, id }
                }
                (Kind::Closed, Some(id)) => {
                    let session = self.add_over_session(id);
                    Restored::Closed { number, session, id }
                }
                (Kind::Result | Kind::Closed | Kind::Event, _) => Restored::Message { number, kind },
            };
            self.log(|| format!("message {place} is restored: {message:?}"));
            self.work.restored.insert(number, place);
            self.restored(what);
        }
        if !is_planted(self, Planted::ForgetsJournaledIds) {
            let commands = found.commands.into_iter().filter(|id| !self.is_kept(Some(*id), None));
            commands.collect::<Vec<_>>().into_iter().for_each(|id| self.interrupted(id));
        }
        for id in found.sessions {
            if self.is_kept(None, Some(id)) {
                continue;
            }
            let session = self.add_over_session(id);
            self.restored(Restored::Session { session, id });
        }
    }

    fn interrupted(&mut self, id: ConsoleId) {
        let command = CommandKey(self.work.next_key());
        let dispatch = u32::try_from(id.0).unwrap_or(u32::MAX);
        self.work.jobs.insert(command, Job { stage: Stage::Over, is_interrupted: true, ..Job::new(dispatch) });
        self.restored(Restored::Command { command, id, remains: Remains::None });
    }

    /// A session of an earlier process whose end is to be reported.
    fn add_over_session(&mut self, id: ConsoleId) -> SessionKey {
        let session = SessionKey(self.work.next_key());
        let terminal = u32::try_from(id.0).unwrap_or(u32::MAX);
        let crowded = self.work.terminals.get(terminal as usize).is_some_and(|terminal| terminal.crowded);
        let (stage, had_room, closing, ends_with, exit_code) = (Stage::Over, true, false, None, None);
        let link = LinkId(0);
        let shell = Shell { terminal, crowded, stage, had_room, link, closing, ends_with, exit_code };
        self.work.shells.insert(session, shell);
        session
    }

    fn restored(&mut self, what: Restored) {
        self.log(|| format!("restored: {what:?}"));
        self.handle(Input::Restored { what });
    }

    fn create(&mut self, link: LinkId, terminal: u32) {
        let Some(Terminal { crowded, .. }) = self.work.terminals.get(terminal as usize).copied() else { return };
        let session = SessionKey(self.work.next_key());
        let had_room = self.work.shells.len() < SESSIONS_MAX || self.work.live_shells() < SESSIONS_MAX;
        let (stage, closing, ends_with, exit_code) = (Stage::Requested, false, None, None);
        let shell = Shell { terminal, crowded, stage, had_room, link, closing, ends_with, exit_code };
        self.work.shells.insert(session, shell);
        let id = terminal_id(terminal);
        self.receive(link, ConsoleMessage::Create { session, id, cols: 80, rows: 24, allowed: true });
    }

    /// A shell runs now, or could not be started.
    fn shell_starts(&mut self, session: SessionKey) {
        let (life, stream) = (self.host.life, StreamKey::Terminal(session));
        let fails = self.meets(Fault::StartsFail);
        let Some(shell) = self.work.shells.get_mut(&session) else {
            return self.session(session, SessionInput::Opened);
        };
        if fails {
            return self.session(session, SessionInput::OpenFailed { exit_code: 126 });
        }
        let (terminal, ends_with) = (shell.terminal, shell.ends_with);
        if shell.stage == Stage::Opening {
            shell.stage = Stage::Open;
        }
        self.session(session, SessionInput::Opened);
        self.note_in(5, Event::Prints { life, stream });
        if let Some(code) = ends_with {
            self.end_session_in(session, 1, code);
        } else if self.work.terminals.get(terminal as usize).is_some_and(|terminal| terminal.exits) {
            let open_ms_max = match self.plan.terminals {
                Terminals::Few => 60_000,
                Terminals::OneAtATime { open_ms_max } => open_ms_max,
            };
            let in_ms = self.between(1_000, open_ms_max);
            self.end_session_in(session, in_ms, 0);
        }
    }

    /// A command runs now, or could not be started.
    fn command_starts(&mut self, command: CommandKey) {
        let (life, own_ms) = (self.host.life, self.own_now().as_ms());
        let exhausted = self.chance(20);
        let asked = self.work.asked(command);
        let (Some(job), Some(asked)) = (self.work.jobs.get_mut(&command), asked) else {
            return self.command(command, CommandInput::Started);
        };
        if asked.fails {
            return self.command(command, CommandInput::StartFailed { exhausted });
        }
        let ends_with = job.ends_with;
        if job.stage == Stage::Opening {
            (job.stage, job.began_ms) = (Stage::Open, own_ms);
            if asked.streams {
                for (stream, bytes) in
                    [(StreamKey::Stdout(command), asked.prints_bytes), (StreamKey::Stderr(command), 40)]
                {
                    self.work.sources.insert(stream, Source::new(bytes));
                    self.note_in(3, Event::Prints { life, stream });
                }
            }
        }
        self.command(command, CommandInput::Started);
        match ends_with {
            Some(code) => self.end_command_in(command, 1, code),
            None => self.end_command_in(command, asked.lasts_ms, 0),
        }
    }

    /// Reads what the program has printed, as much as is allowed.
    fn read(&mut self, stream: StreamKey) {
        let life = self.host.life;
        let Some(source) = self.work.sources.get_mut(&stream) else { return };
        source.read();
        if source.to_print > 0 && source.unread == 0 {
            self.note_in(10, Event::Prints { life, stream });
        }
        self.note_output(stream);
    }

    fn note_output(&mut self, stream: StreamKey) {
        if let Some(Source { retained, end, .. }) = self.work.sources.get(&stream) {
            let (from, end) = (*retained, *end);
            self.handle(Input::Output { stream, from, end });
        }
    }

    fn session(&mut self, session: SessionKey, what: SessionInput) {
        self.handle(Input::Session { session, what });
    }

    fn command(&mut self, command: CommandKey, what: CommandInput) {
        self.handle(Input::Command { command, what });
    }

    /// What must hold of the children after every turn.
    pub(crate) fn check_children(&mut self) {
        use draupnir_fsm::driver::{AUDIT_TIMEOUT_MS, AUDITS_WAITING_MAX, COMMANDS_RUNNING_MAX, COMMANDS_WAITING_MAX};
        let own_ms = self.own_now().as_ms();
        let runs = |stage: Stage| matches!(stage, Stage::Opening | Stage::Open);
        let work = &self.work;
        let over = |what: &'static str| Some(Violation::OverItsBound(what));
        let mut violation = None;
        if work.shells.len() > SESSIONS_MAX
            && work.shells.values().filter(|shell| runs(shell.stage)).count() > SESSIONS_MAX
        {
            violation = over("sessions");
        }
        if work.jobs.len() > COMMANDS_RUNNING_MAX {
            let running = work.jobs.values().filter(|job| runs(job.stage)).count();
            let waiting = work.jobs.values().filter(|job| job.stage == Stage::Requested).count();
            if running > COMMANDS_RUNNING_MAX || waiting > COMMANDS_WAITING_MAX + COMMANDS_RUNNING_MAX {
                violation = over("commands");
            }
        }
        // What is written and waits for its record is over for the audit.
        let audits = work.audits_waiting.iter().filter(|(subject, _)| !work.audits_written.contains(subject));
        if audits.clone().count() > AUDITS_WAITING_MAX {
            violation = over("audits");
        }
        let jumped_ms = self.host.rules.jumped_ms;
        if audits.clone().any(|(_, since_ms)| own_ms > *since_ms.max(&jumped_ms) + AUDIT_TIMEOUT_MS) {
            violation = Some(Violation::AuditOverdue);
        }
        if let Some(violation) = violation {
            self.fail(violation);
        }
    }
}

/// The id of a terminal, as the console gave it.
fn terminal_id(terminal: u32) -> ConsoleId {
    ConsoleId(terminal.into())
}
