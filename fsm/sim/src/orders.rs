//! Performs orders, as the agent does, and holds each of them against the rules.

use crate::breach::Breach;
use crate::plan::Fault;
use crate::planted::Planted;
use crate::wire::Up;
use crate::work::Source;
use crate::world::{Event, World};
use draupnir_fsm::delivery::{After, CUT_RESULT_BYTES, Kind, PushError, Reliable, StateKind, StreamKey, UNLIMITED};
use draupnir_fsm::fact::CommandFact;
use draupnir_fsm::id::{CommandKey, LinkId, SessionKey};
use draupnir_fsm::order::{CloseText, CommandEnd, Order};

impl World {
    pub(crate) fn perform(&mut self, order: Order) {
        let own_ms = self.own_now().as_ms();
        let life = self.host.life;
        match order {
            Order::Register { attempt, path, provider } => {
                let checked = self.host.rules.registers(own_ms);
                self.check(checked);
                self.tell(|| format!("registers ({attempt}, {path:?}, {provider:?})"));
                self.register(attempt, path, provider);
            }
            Order::AbandonRegistration { attempt } => self.tell(|| format!("gives up registration {attempt}")),
            Order::Dial { link } => self.dial_ordered(link),
            Order::AbandonDial { link } => {
                self.tell(|| format!("gives up dial {link}"));
                self.host.dialling = None;
                self.abandon(link);
            }
            Order::CloseLink { link, code, reason } => {
                let checked = self.host.rules.closes(own_ms);
                self.check(checked);
                self.tell(|| format!("closes link {link} with {code} ({reason:?})"));
                if self.calm.steady_since_ms.is_some() && reason == CloseText::Resync {
                    self.calm.resyncs += 1;
                }
                if self.planted != Some(Planted::LeavesWithoutGoodbye) {
                    self.transmit(link, &[(Up::Close(code), 20)], 0);
                }
            }
            Order::DropLink { link } => self.drop_ordered(link),
            Order::OpenGate { link, gate } => {
                let checked = self.host.rules.gate_opens(own_ms, link, gate);
                self.check(checked);
            }
            Order::SendPing { .. } => {}
            Order::SendRegistration { .. } => self.set_state(StateKind::Registration),
            Order::SendHeartbeat { .. } => {
                if self.planted != Some(Planted::SkipsHeartbeats) || own_ms.is_multiple_of(2) {
                    self.host.rules.beat_ms = Some(own_ms);
                    self.set_state(StateKind::Heartbeat);
                }
            }
            Order::SendMetrics { .. } => self.set_state(StateKind::Metrics),
            Order::Emit { .. } => self.push_event(),
            Order::Report { problem } => self.tell(|| format!("reports {problem:?}")),
            Order::ForgetIdentity => {
                self.host.knows_id = false;
                self.host.rules.forgets_identity();
            }
            Order::ReadHostName => {}
            Order::HangUpSession { session } => self.end_session_in(session, 10, 129),
            Order::KillSession { session } => self.note_in(1, Event::SessionEnds { life, session, code: 137 }),
            Order::FinishSession { session, .. } => self.finish_session(session),
            Order::StartCommand { command } => self.start_command(command),
            Order::RefuseCommand { command, .. } => self.refuse_command(command),
            Order::RepeatResult { command, of } => self.repeat_result(command, of),
            Order::ForgetResult { command } => {
                self.work.results.remove(&command);
            }
            Order::TerminateCommand { command } => {
                if !self.is_stubborn(command) {
                    self.end_command_in(command, 30, 143);
                }
            }
            Order::KillCommand { command } => self.end_command_in(command, 1, 137),
            Order::FinishCommand { command, end, .. } => self.finish_command(command, end),
            Order::Exit => self.exit(),
        }
    }

    fn dial_ordered(&mut self, link: LinkId) {
        let own_ms = self.own_now().as_ms();
        let checked = self.host.rules.dials(own_ms);
        self.check(checked);
        if self.wires.iter().any(|wire| wire.agent_open) {
            self.fail(Breach::SecondSocket(link));
        }
        self.tell(|| format!("dials ({link})"));
        self.host.dialling = Some(link);
        self.host.greeted = false;
        self.dial(link);
    }

    fn drop_ordered(&mut self, link: LinkId) {
        let own_ms = self.own_now().as_ms();
        self.tell(|| format!("drops link {link}"));
        let live = self.host.rules.live == Some(link);
        let overslept = self.host.rules.is_probing(own_ms);
        if live && self.wire(link).is_some_and(|wire| !(wire.harmed || overslept && wire.is_too_long_to_probe())) {
            self.fail(Breach::HealthyLinkDropped(link));
        }
        self.host.rules.drops(own_ms, link);
        if self.planted != Some(Planted::KeepsDeadSockets) {
            self.drop_socket(link);
        }
    }

    fn exit(&mut self) {
        self.tell(|| "the process leaves".to_owned());
        self.process_gone();
        self.check_farewell();
        if self.storm {
            let in_ms = self.between(3_000, 10_000);
            let remembered = self.host.knows_id;
            self.note_in(in_ms, Event::Begins { remembered });
        }
    }

    pub(crate) fn push_event(&mut self) {
        self.push(Kind::Event, 300, After::NOTHING, [None; 2], false, None);
    }

    /// Gives a message to the ledger; its place, unless it was dropped.
    fn push(
        &mut self,
        kind: Kind,
        size_bytes: usize,
        after: After,
        waits_for: [Option<(StreamKey, u64)>; 2],
        promised: bool,
        dispatch: Option<u32>,
    ) -> Option<u32> {
        let place = self.messages.next();
        let mut size_bytes = size_bytes;
        // Twice at most: what is too long is cut to what there is room for.
        loop {
            let message = Reliable { kind, size_bytes, after, promised };
            match self.host.engine.delivery.push(message, place) {
                Ok(pushed) => {
                    if pushed.displaced > 0 {
                        self.messages.displaced(&self.host.engine.delivery);
                    }
                    self.messages.pushed(self.host.life, pushed.number, size_bytes, waits_for, dispatch);
                    return Some(place);
                }
                Err(PushError::TooLong { room_bytes }) if room_bytes < size_bytes => size_bytes = room_bytes,
                Err(PushError::TooLong { .. } | PushError::Dropped) => {
                    // It will be told as a loss.
                    self.answered(dispatch);
                    return None;
                }
            }
        }
    }

    fn start_command(&mut self, command: CommandKey) {
        let Some(job) = self.work.jobs.get_mut(&command) else { return };
        job.runs = true;
        let dispatch = job.dispatch;
        let Some(asked) = self.work.dispatches.get_mut(dispatch as usize) else { return };
        let again = std::mem::replace(&mut asked.started, true);
        let asked = *asked;
        if again {
            return self.fail(Breach::StartedTwice(dispatch));
        }
        if asked.fails {
            return self.tell_command(command, CommandFact::Failed);
        }
        let life = self.host.life;
        if asked.streams {
            for (stream, bytes) in [(StreamKey::Stdout(command), asked.prints_bytes), (StreamKey::Stderr(command), 40)]
            {
                self.work.sources.insert(stream, Source::new(bytes));
                self.host.engine.delivery.open_stream(stream);
                self.note_in(3, Event::Prints { life, stream });
            }
        }
        self.tell_command(command, CommandFact::Started);
        self.end_command_in(command, asked.lasts_ms, 0);
    }

    fn is_stubborn(&self, command: CommandKey) -> bool {
        let job = self.work.jobs.get(&command);
        job.and_then(|job| self.work.dispatches.get(job.dispatch as usize)).is_some_and(|asked| asked.stubborn)
    }

    fn end_command_in(&mut self, command: CommandKey, in_ms: u64, code: i32) {
        let life = self.host.life;
        let job = self.work.jobs.get(&command);
        let holds =
            job.and_then(|job| self.work.dispatches.get(job.dispatch as usize)).is_some_and(|asked| asked.leaves_child);
        self.note_in(in_ms, Event::CommandEnds { life, command, code });
        if !holds {
            self.note_in(in_ms, Event::OutputEnds { life, command });
        }
    }

    fn finish_command(&mut self, command: CommandKey, end: CommandEnd) {
        let Some(job) = self.work.jobs.remove(&command) else { return };
        let Some(asked) = self.work.dispatches.get(job.dispatch as usize).copied() else { return };
        let streams = asked.streams && job.runs && !asked.fails;
        let (mut after, mut waits_for) = (After::NOTHING, [None; 2]);
        if streams {
            let (one, other) = (StreamKey::Stdout(command), StreamKey::Stderr(command));
            // What is in the pipes is read before the result is written.
            self.read_all(one);
            self.read_all(other);
            let end_of = |stream| self.work.sources.get(&stream).map_or(0, |source: &Source| source.end);
            let ends = [(one, end_of(one)), (other, end_of(other))];
            after = After::streams(ends[0], ends[1]);
            waits_for = ends.map(Some);
        }
        let size_bytes = usize::try_from(250 + if streams { 0 } else { asked.prints_bytes }).unwrap_or(250);
        let cancelled = end != CommandEnd::Exited;
        self.tell(|| format!("command {} ended{}", job.dispatch, if cancelled { ", told to" } else { "" }));
        let place = if self.planted == Some(Planted::LosesResults) && command.0 % 8 == 7 {
            None
        } else {
            self.push(Kind::Result, size_bytes, after, waits_for, true, Some(job.dispatch))
        };
        if streams {
            self.host.engine.delivery.end_stream(StreamKey::Stdout(command));
            self.host.engine.delivery.end_stream(StreamKey::Stderr(command));
        }
        self.work.results.insert(command, (job.dispatch, place));
        let bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        self.tell_command(command, CommandFact::Answered { bytes });
    }

    fn refuse_command(&mut self, command: CommandKey) {
        if let Some(job) = self.work.jobs.remove(&command) {
            self.push(Kind::Result, 250, After::NOTHING, [None; 2], false, Some(job.dispatch));
        }
    }

    fn repeat_result(&mut self, command: CommandKey, of: CommandKey) {
        self.work.jobs.remove(&command);
        let Some((dispatch, place)) = self.work.results.get(&of).copied() else { return };
        if let Some(place) = place {
            let number = self.messages.message(place).map_or(0, |message| message.number);
            self.messages.may_repeat(place);
            if self.host.engine.delivery.send_again(number) {
                return;
            }
        }
        let place = self.push(Kind::Result, 250, After::NOTHING, [None; 2], false, Some(dispatch));
        self.work.results.insert(of, (dispatch, place));
    }

    fn end_session_in(&mut self, session: SessionKey, in_ms: u64, code: i32) {
        let life = self.host.life;
        if !self.meets(Fault::StubbornCommands) {
            self.note_in(in_ms, Event::SessionEnds { life, session, code });
        }
    }

    fn finish_session(&mut self, session: SessionKey) {
        let stream = StreamKey::Terminal(session);
        self.read_all(stream);
        let end = self.work.sources.get(&stream).map_or(0, |source| source.end);
        let after = After::stream(stream, end);
        let closed = self.push(Kind::Closed, 250, after, [Some((stream, end)), None], true, None);
        self.host.engine.delivery.end_stream(stream);
        let place = self.work.sessions.remove(&session);
        if let Some(terminal) = place.and_then(|place| self.work.terminals.get_mut(place as usize)) {
            terminal.closed = closed;
        }
    }

    pub(crate) fn cut_poison(&mut self, number: u64) {
        self.blame(number);
        let Some(place) = self.messages.by_number(number) else { return };
        if let Some(message) = self.messages.message_mut(place) {
            message.size_bytes = CUT_RESULT_BYTES;
            message.out_of_turn = true;
        }
        self.host.engine.delivery.replace(number, CUT_RESULT_BYTES, place);
    }

    pub(crate) fn drop_poison(&mut self, number: u64) {
        self.blame(number);
        let message = self.messages.by_number(number).and_then(|place| self.messages.message_mut(place));
        let dispatch = message.and_then(|message| {
            message.dropped = true;
            message.dispatch
        });
        self.answered(dispatch);
        self.messages.displaced(&self.host.engine.delivery);
    }

    /// Three links in a row must have ended over it.
    fn blame(&mut self, number: u64) {
        let links = std::mem::take(&mut self.host.rules.blamed_links);
        if links < 3 {
            let place = self.messages.by_number(number).unwrap_or(u32::MAX);
            self.fail(Breach::InnocentMessage(place));
        }
    }

    /// A source may read so much from now on.
    pub(crate) fn allow(&mut self, stream: StreamKey, bytes: usize) {
        let life = self.host.life;
        let Some(source) = self.work.sources.get_mut(&stream) else { return };
        source.may_read = if bytes == UNLIMITED { u64::MAX } else { bytes as u64 };
        if source.unread > 0 && source.may_read > 0 && !source.reading {
            source.reading = true;
            self.note_in(1, Event::Read { life, stream });
        }
    }
}
