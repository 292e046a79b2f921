//! Performs the driver's actions, and checks each of them against the rules.

use crate::doors::Text;
use crate::plan::Fault;
use crate::planted::Planted;
use crate::violation::Violation;
use crate::wire::Up;
use crate::work::{Source, Stage, Subject};
use crate::world::{Event, World};
use draupnir_fsm::driver::{
    Action, AppendId, AuditEntry, AuditId, CloseText, CommandKey, Frame, Gate, HandOverStep, Input, LinkId, Loss,
    Notice, Output, Policy, Problem, Record, SYNC_INTERVAL_MS, SessionKey, StateKind, StreamKey,
};

/// The length of a Ping on the wire, in bytes.
const PING_BYTES: u64 = 22;

/// How much a program prints to draw its screen again, in bytes.
const REDRAW_BYTES: u64 = 200;

impl World {
    pub(crate) fn perform(&mut self, output: Output<Text>) {
        match output {
            Output::Write { link, frames } => {
                let link = self.host.link_of_world(link);
                self.write(link, &frames);
            }
            Output::Append { append, record, body } => self.append(append, record, body),
            Output::Do(action) => self.act(action),
        }
    }

    fn act(&mut self, action: Action) {
        let own_ms = self.own_now().as_ms();
        let program = self.host.program;
        match action {
            Action::Register { attempt, path, provider } => {
                let checked = self.host.rules.registers(own_ms);
                self.check(checked);
                self.log(|| format!("registers ({attempt}, {path:?}, {provider:?})"));
                self.register(attempt, path, provider);
            }
            Action::AbandonRegistration { attempt, .. } => self.log(|| format!("gives up registration {attempt}")),
            Action::Dial { link } => {
                let link = self.host.link_of_world(link);
                self.dial_ordered(link);
            }
            Action::AbandonDial { link, .. } => {
                let link = self.host.link_of_world(link);
                self.log(|| format!("gives up dial {link}"));
                self.host.dialling = None;
                self.abandon(link);
            }
            Action::ProbePort { probe } => {
                let checked = self.host.rules.probes_port(own_ms);
                self.check(checked);
                self.log(|| format!("probes the port ({probe})"));
                self.host.probing = Some(probe);
                self.probe_port(probe);
            }
            Action::AbandonPortProbe { probe } => {
                self.log(|| format!("gives up port probe {probe}"));
                self.host.probing = None;
            }
            Action::CloseLink { link, code, reason } => {
                let link = self.host.link_of_world(link);
                if reason == CloseText::HandOver && self.host.hand_over != Some(HandOverStep::Flush) {
                    self.fail(Violation::ForgottenOrdered("hand-over"));
                }
                let checked = self.host.rules.closes(own_ms, reason);
                self.check(checked);
                self.console.refused = None;
                self.log(|| format!("closes link {link} with {code} ({reason:?})"));
                if self.calm.steady_since_ms.is_some() && reason == CloseText::Resync {
                    self.calm.resyncs += 1;
                }
                if self.storm && reason == CloseText::Resync {
                    let open = self.work.shells.values().filter(|shell| shell.stage == Stage::Open).count();
                    self.stats.sessions_ended += open as u64;
                }
                if self.planted != Some(Planted::LeavesWithoutGoodbye) {
                    self.transmit(link, &[(Up::Close(code), 20)], 0);
                }
            }
            Action::DropLink { link } => {
                let link = self.host.link_of_world(link);
                self.drop_ordered(link);
            }
            Action::TakeSample { sample } => {
                if sample == StateKind::Heartbeat {
                    if self.planted == Some(Planted::SkipsHeartbeats) && !own_ms.is_multiple_of(2) {
                        return;
                    }
                    self.host.rules.beat_ms = Some(own_ms);
                }
                self.note_in(1, Event::Sampled { program, sample });
            }
            Action::Report { problem } => {
                self.log(|| format!("reports {problem:?}"));
                let is_hidden = self.planted == Some(Planted::HidesSharedId);
                self.host.rules.reported_shared |= problem == Problem::SharedInstanceId && !is_hidden;
            }
            Action::ForgetIdentity => {
                self.identity.forget();
                self.host.rules.forgets_identity();
            }
            Action::OpenSession { session, .. } => self.open_ordered(session),
            Action::ResizeSession { session, .. } => self.expect_shell(session),
            Action::RedrawSession { session } => {
                self.expect_shell(session);
                self.echo(session, REDRAW_BYTES);
            }
            Action::KeepScreen { session } => self.expect_shell(session),
            Action::TakeInput { session } => self.take_input(session),
            Action::HangUpSession { session } => {
                self.expect_shell(session);
                if !self.meets(Fault::StubbornCommands) {
                    self.end_session_in(session, 10, 129);
                }
            }
            Action::KillSession { session } => {
                self.expect_shell(session);
                self.end_session_in(session, 1, 137);
            }
            Action::ForgetSession { session } => self.forget_session(session),
            Action::StartCommand { command } => self.start_ordered(command),
            Action::TerminateCommand { command } => {
                if !self.work.asked(command).is_some_and(|asked| asked.stubborn) {
                    self.end_command_in(command, 30, 143);
                }
            }
            Action::KillCommand { command } => self.end_command_in(command, 1, 137),
            Action::ForgetCommand { command } => {
                self.work.settle_audit(Subject::Command(command));
                let job = self.work.jobs.remove(&command);
                if job.is_some_and(|job| matches!(job.stage, Stage::Opening | Stage::Open)) {
                    self.fail(Violation::ForgottenOrdered("command"));
                }
            }
            Action::ReadCredit { stream: StreamKey::Logs, keep_from, .. } => {
                self.logs_acknowledged(keep_from.unwrap_or_default());
            }
            Action::FollowLogs { .. } => self.follow_logs(),
            Action::UnfollowLogs { .. } | Action::ForgetLogRequest { .. } => {}
            Action::AllowLogs { up_to_lines } => self.allow_logs(up_to_lines),
            Action::StopLogs { acked } => self.stop_logs(acked),
            Action::ReadCredit { stream, bytes, keep_from } => self.read_credit(stream, bytes, keep_from),
            Action::Release { stream } => {
                self.check_delivered(stream, None);
                if let Some(source) = self.work.sources.get_mut(&stream) {
                    source.finished = true;
                }
            }
            Action::Audit { audit, entry } => self.audit_ordered(audit, entry),
            Action::Log { notice } => self.noticed(notice),
            Action::SyncJournal => {
                let (now, last) = (self.own_now().as_ms(), self.host.synced_ms.replace(own_ms));
                if last.is_some_and(|last| now < last + SYNC_INTERVAL_MS) && self.host.rules.drains_since_ms.is_none() {
                    self.fail(Violation::SyncOutOfTime);
                }
                self.host.unsynced_since_ms = None;
            }
            Action::HandOver { step } => self.hand_over_ordered(step),
            Action::KillRemains { .. } => self.fail(Violation::ForgottenOrdered("remains")),
            Action::ShrinkScrollback { session, to_bytes } => self.shrink(session, to_bytes),
            Action::ReadHostName | Action::DropNote { .. } | Action::Listen => {}
            Action::Exit => self.exit(),
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::GateOpened { link, gate } => {
                let link = self.host.link_of_world(link);
                let own_ms = self.own_now().as_ms();
                let checked = self.host.rules.gate_opens(own_ms, link, gate);
                self.check(checked);
            }
            Notice::ResultRepeated { of } => {
                if let Some(place) = self.work.results.get(&of).copied() {
                    self.messages.may_repeat(place);
                    // The console requested it again, even if it cannot read it.
                    self.console.refused.take_if(|refused| refused.place == place);
                }
                if self.planted == Some(Planted::RunsRepeatsOfResults) {
                    self.start_ordered(of);
                }
            }
            Notice::ResultCut { .. } => self.record_rejection(),
            Notice::PoisonDropped { message, .. } => {
                self.log(|| format!("a message ({message:?}) is dropped as poison"));
                self.messages.lose();
                self.record_rejection();
            }
            Notice::MessageDropped { .. } => self.messages.lose(),
            Notice::HandOverRefused { why } => {
                self.log(|| format!("hand-over refused: {why:?}"));
                self.hand_over_refused();
            }
            Notice::Reattached { session } => self.log(|| format!("session {session} is attached to again")),
            Notice::Closing { .. }
            | Notice::DuplicateDispatch { .. }
            | Notice::CommandInterrupted { .. }
            | Notice::SessionInterrupted { .. }
            | Notice::HandOverCutsTools
            | Notice::FactsIgnored { .. } => {}
        }
    }

    /// The driver may cut or drop a message only after three links in a row ended because of it.
    fn record_rejection(&mut self) {
        if std::mem::take(&mut self.host.rules.rejecting_links) < 3 {
            self.fail(Violation::InnocentMessage);
        }
    }

    fn dial_ordered(&mut self, link: LinkId) {
        let own_ms = self.own_now().as_ms();
        let checked = self.host.rules.dials(own_ms);
        self.check(checked);
        if self.wires.iter().any(|wire| wire.agent_open) {
            self.fail(Violation::SecondSocket(link));
        }
        self.log(|| format!("dials ({link})"));
        self.host.dialling = Some(link);
        self.host.greeted = false;
        self.dial(link);
    }

    fn drop_ordered(&mut self, link: LinkId) {
        let own_ms = self.own_now().as_ms();
        self.log(|| format!("drops link {link}"));
        let live = self.host.rules.live == Some(link);
        let overslept = self.host.rules.is_probing(own_ms);
        if live && self.wire(link).is_some_and(|wire| !(wire.harmed || overslept && wire.is_too_long_to_probe())) {
            self.fail(Violation::HealthyLinkDropped(link));
        }
        self.host.rules.drops(own_ms, link);
        self.console.refused = None;
        if self.planted != Some(Planted::KeepsDeadSockets) {
            self.drop_socket(link);
        }
    }

    /// Plants a fault: the Pong deadline of the previous link expires, and the agent takes the current link for dead.
    pub(crate) fn fire_stale_timer(&mut self) {
        let own_ms = self.own_now().as_ms();
        let (Some(link), Some((of, until_ms))) = (self.host.rules.live, self.host.awaits_pong) else { return };
        if self.planted == Some(Planted::KeepsStaleTimers) && of != link && until_ms <= own_ms {
            self.host.awaits_pong = None;
            let of_program = self.host.link_of_program(link);
            self.handle(Input::LinkLost { link: of_program, cause: Loss::Eof });
            self.drop_ordered(link);
        }
    }

    fn exit(&mut self) {
        self.log(|| "the process leaves".to_owned());
        let pending = self.journal.pending();
        self.journal.die(pending);
        self.process_gone();
        self.check_farewell();
        if self.storm {
            let in_ms = self.between(3_000, 10_000);
            self.note_in(in_ms, Event::Begins);
        }
    }

    /// Checks a batch of frames, and passes it to the network.
    fn write(&mut self, link: LinkId, frames: &[Frame<Text>]) {
        if self.host.rules.live != Some(link) {
            return self.fail(Violation::WrittenToNoLink(link));
        }
        let own_ms = self.own_now().as_ms();
        let gate = self.host.rules.gate;
        let unsure = self.host.rules.drains_since_ms.is_some() && !self.host.greeted;
        let mut batch: Vec<(Up, u64)> = Vec::with_capacity(frames.len());
        for frame in frames {
            let (up, bytes) = match frame {
                Frame::Ping(payload) => {
                    self.host.newest_ping = Some(*payload);
                    self.host.awaits_pong = Some((link, own_ms + Policy::default().pong_ms));
                    (Up::Ping(*payload), PING_BYTES)
                }
                Frame::Text(text) => (text.up, draupnir_fsm::driver::Body::size_bytes(text) as u64),
            };
            let needs = match up {
                Up::State(_) => Some(Gate::State),
                Up::Message(_) | Up::Stream { .. } | Up::Lines { .. } => Some(Gate::All),
                Up::Ping(_) | Up::Close(_) | Up::Reset => None,
            };
            if gate < needs {
                return self.fail(Violation::WrittenBeforeItsGate(link));
            }
            if let Up::Message(place) = up {
                let sent = self.messages.sent(place, link, unsure);
                self.check(sent);
                if self.checks_records() {
                    let checked = self.journal.sends(place);
                    self.check(checked);
                }
            } else if let Up::Stream { stream, .. } = up
                && let Some(source) = self.work.sources.get_mut(&stream)
            {
                source.unsure |= unsure;
            }
            batch.push((up, bytes));
        }
        if self.planted == Some(Planted::ReversesBatches) {
            batch.reverse();
        }
        let bytes = batch.iter().map(|(_, bytes)| bytes).sum();
        self.transmit(link, &batch, bytes);
    }

    fn expect_shell(&mut self, session: SessionKey) {
        if !self.work.shells.contains_key(&session) {
            self.fail(Violation::ForgottenOrdered("session"));
        }
    }

    fn open_ordered(&mut self, session: SessionKey) {
        let program = self.host.program;
        let unaudited = self.work.audited && !self.work.settle_audit(Subject::Session(session));
        let prints_bytes = self.output_bytes();
        let Some(shell) = self.work.shells.get_mut(&session) else {
            return self.fail(Violation::ForgottenOrdered("session"));
        };
        if shell.stage != Stage::Requested {
            let terminal = shell.terminal;
            return self.fail(Violation::StartedTwice(terminal));
        }
        shell.stage = Stage::Opening;
        let prints_bytes = if shell.crowded { 40 } else { prints_bytes };
        self.work.sources.insert(StreamKey::Terminal(session), Source::new(prints_bytes));
        let in_ms = if self.meets(Fault::StartsSlowly) { self.between(100, 6_000) } else { self.between(1, 5) };
        self.note_in(in_ms, Event::ShellStarts { program, session });
        if unaudited {
            self.fail(Violation::Unaudited);
        }
    }

    fn forget_session(&mut self, session: SessionKey) {
        self.work.settle_audit(Subject::Session(session));
        let Some(shell) = self.work.shells.remove(&session) else { return };
        let unanswered = match shell.stage {
            Stage::Requested => {
                let draining = self.host.rules.drains_since_ms.is_some();
                !draining && self.host.rules.live == Some(shell.link) && !self.work.is_known(shell.terminal)
            }
            Stage::Opening | Stage::Open => self.planted != Some(Planted::AdmitsTooMany),
            Stage::Over => false,
        };
        if unanswered {
            self.fail(Violation::CreateUnanswered(shell.terminal));
        }
        if self.planted == Some(Planted::AdmitsTooMany) && shell.stage == Stage::Open {
            self.work.shells.insert(session, shell);
        }
    }

    /// Types or discards the oldest input, once for each input that arrived.
    fn take_input(&mut self, session: Option<SessionKey>) {
        let Some(terminal) = self.work.typed.pop_front() else {
            return self.fail(Violation::InputMisrouted);
        };
        let Some(session) = session else { return };
        if self.work.shells.get(&session).is_none_or(|shell| shell.terminal != terminal) {
            return self.fail(Violation::InputMisrouted);
        }
        self.echo(session, 12);
    }

    fn echo(&mut self, session: SessionKey, bytes: u64) {
        let (life, stream) = (self.host.life, StreamKey::Terminal(session));
        let is_open = self.work.shells.get(&session).is_some_and(|shell| shell.stage == Stage::Open);
        if let Some(source) = self.work.sources.get_mut(&stream).filter(|_| is_open) {
            source.to_print += bytes;
            self.note_in(2, Event::Prints { life, stream });
        }
    }

    /// Ends a shell after this time, as soon as it runs.
    pub(crate) fn end_session_in(&mut self, session: SessionKey, in_ms: u64, code: i32) {
        let life = self.host.life;
        match self.work.shells.get_mut(&session) {
            Some(shell) if shell.stage == Stage::Opening => shell.ends_with = Some(code),
            _ => self.note_in(in_ms, Event::SessionEnds { life, session, code }),
        }
    }

    fn start_ordered(&mut self, command: CommandKey) {
        let program = self.host.program;
        let unaudited = self.work.audited && !self.work.settle_audit(Subject::Command(command));
        let dispatch = match (self.work.jobs.get_mut(&command), self.work.results.get(&command)) {
            (Some(job), _) => {
                job.stage = Stage::Opening;
                job.dispatch
            }
            (None, Some(place)) => self.messages.message(*place).and_then(|message| message.dispatch).unwrap_or(0),
            (None, None) => return self.fail(Violation::ForgottenOrdered("command")),
        };
        let again =
            self.work.dispatches.get_mut(dispatch as usize).map(|asked| std::mem::replace(&mut asked.started, true));
        if again == Some(true) {
            return self.fail(Violation::StartedTwice(dispatch));
        }
        if unaudited {
            self.fail(Violation::Unaudited);
        }
        if self.checks_records() {
            let id = self.command_id(dispatch);
            let checked = self.journal.starts(id, dispatch);
            self.check(checked);
        }
        let in_ms = if self.meets(Fault::StartsSlowly) { self.between(100, 6_000) } else { self.between(1, 3) };
        self.note_in(in_ms, Event::CommandStarts { program, command });
    }

    /// Ends a command after this time, as soon as it runs.
    pub(crate) fn end_command_in(&mut self, command: CommandKey, in_ms: u64, code: i32) {
        let life = self.host.life;
        let holds = self.work.asked(command).is_some_and(|asked| asked.leaves_child);
        match self.work.jobs.get_mut(&command) {
            None => return self.fail(Violation::ForgottenOrdered("command")),
            // It still waits for its audit line.
            Some(job) if job.stage == Stage::Requested => return,
            Some(job) if job.stage == Stage::Opening => {
                job.ends_with = Some(code);
                return;
            }
            Some(_) => {}
        }
        self.note_in(in_ms, Event::CommandEnds { life, command, code });
        if !holds {
            self.note_in(in_ms, Event::OutputEnds { life, command });
        }
    }

    /// Sets how much a source may read from now on.
    fn read_credit(&mut self, stream: StreamKey, bytes: Option<usize>, keep_from: Option<u64>) {
        let program = self.host.program;
        if let Some(acked) = keep_from {
            self.check_delivered(stream, Some(acked));
        }
        let Some(source) = self.work.sources.get_mut(&stream) else { return };
        source.credit = bytes.map_or(u64::MAX, |bytes| bytes as u64);
        source.keep_from = keep_from;
        source.acked = keep_from.map_or(source.acked, |acked| source.acked.max(acked));
        if source.wants_to_read() {
            source.reading = true;
            self.note_in(1, Event::Read { program, stream });
        }
    }

    fn shrink(&mut self, session: SessionKey, to_bytes: usize) {
        let to_bytes = if self.planted == Some(Planted::GivesBackTooMuch) { to_bytes / 4 } else { to_bytes };
        let Some(source) = self.work.sources.get_mut(&StreamKey::Terminal(session)) else { return };
        source.retained = source.retained.max(source.end.saturating_sub(to_bytes as u64));
        if source.keep_from.is_some_and(|keep| source.retained > keep) {
            self.fail(Violation::GaveBackTooMuch(session));
        }
    }

    /// Checks that the console has every byte that counts as delivered: up to `acked`, or all.
    fn check_delivered(&mut self, stream: StreamKey, acked: Option<u64>) {
        let ahead = self.work.sources.get(&stream).is_some_and(|source| {
            let acked = acked.unwrap_or(source.end);
            !source.has(acked) && acked > source.retained
        });
        if ahead {
            self.fail(Violation::BytesAcknowledgedUnread(stream));
        }
    }

    /// Whether nothing may go on without its record: it always comes in time, or is reported to have failed.
    fn checks_records(&self) -> bool {
        let faults = self.plan.faults;
        let is_slow = faults.has(Fault::JournalSlow) || faults.has(Fault::JournalHangs);
        let repeats = self.planted == Some(Planted::RunsRepeats);
        self.plan.journaled && !is_slow && !repeats && !faults.has(Fault::Freeze)
    }

    fn append(&mut self, append: AppendId, record: Record, body: Option<Text>) {
        let mut place = body.and_then(|body| match body.up {
            Up::Message(place) => Some(place),
            Up::State(_) | Up::Stream { .. } | Up::Lines { .. } | Up::Ping(_) | Up::Close(_) | Up::Reset => None,
        });
        if !self.plan.journaled {
            return self.fail(Violation::ForgottenOrdered("journal"));
        }
        let own_ms = self.own_now().as_ms();
        if let Record::Logs { up_to } = record {
            place = Some(self.recorded_line(up_to));
        } else {
            self.host.unsynced_since_ms.get_or_insert(own_ms);
        }
        self.log(|| format!("record {append:?}: {record:?}"));
        let checked = self.journal.append(append, record, place);
        self.check(checked);
        if !record.is_awaited() {
            return;
        }
        let program = self.host.program;
        if self.planted == Some(Planted::ReportsUnwritten) {
            // The report comes at once, and the record only with the next one.
            self.journal.report(AppendId(append.0 - 1), true);
            return self.note_in(0, Event::Appended { program, append: AppendId(append.0), written: true });
        }
        let in_ms = if self.meets(Fault::JournalSlow) { self.between(500, 9_000) } else { self.between(0, 5) };
        let written = !self.meets(Fault::JournalFails);
        if !self.meets(Fault::JournalHangs) {
            self.note_in(in_ms, Event::Appended { program, append, written });
        }
    }

    fn audit_ordered(&mut self, audit: AuditId, entry: AuditEntry) {
        let program = self.host.program;
        if !self.work.audited {
            return self.fail(Violation::Unaudited);
        }
        let own_ms = self.own_now().as_ms();
        let subject = match entry {
            AuditEntry::TerminalOpened { session } => Some(Subject::Session(session)),
            AuditEntry::CommandStarted { command } => Some(Subject::Command(command)),
            AuditEntry::TerminalClosed { .. } | AuditEntry::CommandEnded { .. } | AuditEntry::LogsSubscribed { .. } => {
                None
            }
        };
        if let Some(subject) = subject {
            self.work.audits_waiting.insert(subject, own_ms);
        }
        let in_ms = if self.meets(Fault::AuditSlow) { self.between(500, 9_000) } else { self.between(0, 20) };
        let written = !self.meets(Fault::AuditFails);
        if !self.meets(Fault::AuditHangs) {
            self.note_in(in_ms, Event::Audited { program, audit, subject, written });
        }
    }
}
