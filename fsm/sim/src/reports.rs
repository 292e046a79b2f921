//! What the process hears: each event becomes facts, as the agent's loop makes them of its reports.

use crate::planted::Planted;
use crate::wire::Down;
use crate::work::{Job, SCROLLBACK_BYTES, Source};
use crate::world::{Event, World};
use draupnir_fsm::delivery::ping::Payload;
use draupnir_fsm::delivery::{Kind, StreamKey};
use draupnir_fsm::engine::Requested;
use draupnir_fsm::fact::{CommandFact, Fact, SessionFact};
use draupnir_fsm::id::{CommandKey, LinkId, SessionKey};

impl World {
    pub(crate) fn take_in(&mut self, event: Event) {
        let own_ms = self.own_now().as_ms();
        match event {
            Event::Answered { attempt, status, retry_after_ms, .. } => {
                self.host.knows_id |= matches!(status, 200..=299 | 409);
                self.host.rules.answered(own_ms, status, retry_after_ms);
                self.handle(Fact::RegistrationAnswered { attempt, status, retry_after_ms });
            }
            Event::RegistrationFailed { attempt, cause, .. } => {
                self.handle(Fact::RegistrationFailed { attempt, cause });
            }
            Event::Opened { link, .. } => self.opened(link),
            Event::DialFailed { link, cause, retry_after_ms, .. } => {
                if self.host.dialling.take_if(|dialling| *dialling == link).is_some() {
                    self.tell(|| format!("dial {link} failed: {cause:?}"));
                    self.host.rules.dial_failed(own_ms, cause, retry_after_ms);
                    self.handle(Fact::DialFailed { link, cause, retry_after_ms });
                }
            }
            Event::Arrives { link, .. } => self.arrive(link),
            Event::Written { link, .. } => self.written(link),
            Event::Closed { link, .. } => {
                if let Some(wire) = self.wire(link) {
                    wire.agent_open = false;
                }
                self.host.rules.gone(own_ms, link);
                self.handle(Fact::LinkClosed { link });
            }
            Event::Read { stream, .. } => self.read(stream),
            Event::CommandEnds { command, code, .. } => self.tell_command(command, CommandFact::Exited { code }),
            Event::OutputEnds { command, .. } => self.tell_command(command, CommandFact::EndOfOutput),
            Event::SessionEnds { session, code, .. } => {
                self.read_all(StreamKey::Terminal(session));
                self.tell_session(session, SessionFact::Exited { code });
                self.tell_session(session, SessionFact::EndOfOutput);
                self.tell_session(session, SessionFact::Reaped);
            }
            Event::Stop => {
                self.host.rules.drains_since_ms.get_or_insert(own_ms);
                self.handle(Fact::ShutdownRequested);
            }
            Event::Thaws { .. }
            | Event::Begins { .. }
            | Event::Prints { .. }
            | Event::Accepts { .. }
            | Event::Reaches { .. }
            | Event::Greets { .. }
            | Event::Heals { .. }
            | Event::GivesUp { .. }
            | Event::RefusesLink { .. }
            | Event::Works
            | Event::Strikes
            | Event::Calms
            | Event::Probes => {}
        }
    }

    fn opened(&mut self, link: LinkId) {
        if self.host.dialling.take_if(|dialling| *dialling == link).is_none() {
            return;
        }
        let own_ms = self.own_now().as_ms();
        self.tally.links += 1;
        self.host.rules.opened(own_ms, link);
        self.host.old_ping = self.host.newest_ping.take();
        self.handle(Fact::LinkOpened { link });
    }

    fn written(&mut self, link: LinkId) {
        let now_ms = self.now_ms;
        let Some(wire) = self.wire(link) else { return };
        let done = wire.batch.is_some_and(|batch| batch.until_ms <= now_ms) && wire.agent_open;
        if !done || (wire.stalled_until(now_ms).is_some() && !wire.fits_the_buffer()) {
            return;
        }
        wire.end_batch();
        if self.host.rules.live == Some(link) {
            let now = self.own_now();
            self.host.stirred += 1;
            self.host.engine.written(now, link);
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
                self.tell(|| format!("link {link}: the console closes it with {code} ({reason:?})"));
                self.host.rules.closed_by_console(own_ms, link, code, reason);
                self.handle(Fact::CloseReceived { link, code, reason });
                self.socket_ends(link);
            }
            Down::Lost(cause) => {
                self.tell(|| format!("link {link}: lost ({cause:?})"));
                // A socket that breaks while it closes is gone like any other: nobody can tell that it was not answered.
                self.console.lost_routing_unseen |= !live;
                self.host.rules.broke(own_ms, link);
                self.handle(Fact::LinkLost { link, cause });
                self.socket_ends(link);
            }
            Down::CloseAnswered => self.socket_ends(link),
            Down::Pong(payload) => self.pong(link, payload),
            Down::Text
            | Down::Dispatch(_)
            | Down::Cancel(_)
            | Down::Create(_)
            | Down::Input(_)
            | Down::EndSession(_)
                if !live => {}
            Down::Text => self.greeted(link),
            Down::Dispatch(dispatch) => {
                self.greeted(link);
                self.dispatched(dispatch);
            }
            Down::Cancel(dispatch) => {
                self.greeted(link);
                let job = self.work.jobs.iter().find(|(_, job)| job.dispatch == dispatch).map(|(command, _)| *command);
                if let Some(command) = job {
                    self.tell_command(command, CommandFact::CancelRequested);
                }
            }
            Down::Create(terminal) => {
                self.greeted(link);
                self.create(terminal);
            }
            Down::Input(terminal) => {
                self.greeted(link);
                self.input(terminal);
            }
            Down::EndSession(terminal) => {
                self.greeted(link);
                if let Some(session) = self.live_session(terminal) {
                    self.tell_session(session, SessionFact::CloseRequested);
                }
            }
        }
    }

    fn greeted(&mut self, link: LinkId) {
        if !std::mem::replace(&mut self.host.greeted, true) {
            self.host.rules.greeted();
            self.handle(Fact::Greeted { link });
        }
    }

    fn pong(&mut self, link: LinkId, payload: Payload) {
        let payload = match self.planted {
            Some(Planted::AcknowledgesPastThePing) => self.host.newest_ping.unwrap_or(payload),
            Some(Planted::AcceptsPongsOfOldLinks) if Some(payload) == self.host.old_ping => {
                self.host.newest_ping.unwrap_or(payload)
            }
            Some(_) | None => payload,
        };
        let now = self.own_now();
        self.host.stirred += 1;
        self.host.awaits_pong.take_if(|(of, _)| *of == link);
        self.host.engine.pong(now, link, &payload);
        let acknowledged = self.messages.acknowledged(&self.host.engine.delivery);
        self.check(acknowledged);
        self.check_streams();
    }

    /// No byte counts as delivered that the console does not have.
    fn check_streams(&mut self) {
        let ledger = &self.host.engine.delivery;
        let ahead = self.work.sources.iter().find(|(stream, source)| {
            let acked = ledger.position(**stream).map_or(0, |position| position.acked);
            acked > source.received
                && !source.unsure
                && !source.is_told(source.received, acked)
                && acked > source.retained
        });
        if let Some((stream, _)) = ahead {
            let stream = *stream;
            self.fail(crate::breach::Breach::BytesAcknowledgedUnread(stream));
        }
    }

    fn dispatched(&mut self, dispatch: u32) {
        let Some(asked) = self.work.dispatches.get_mut(dispatch as usize) else { return };
        if asked.taken_in_life != Some(self.host.life) {
            asked.taken_in_life = Some(self.host.life);
            asked.started = false;
            asked.answered = false;
        }
        let timeout_ms = asked.timeout_ms;
        let command = CommandKey(self.next_key());
        self.work.jobs.insert(command, Job { dispatch, runs: false });
        let unique = if self.planted == Some(Planted::RunsRepeats) { u64::from(command.0) << 32 } else { 0 };
        let now = self.own_now();
        self.host.stirred += 1;
        let id_hash = u64::from(dispatch) | unique;
        let what = CommandFact::Requested { id_hash, timeout_ms };
        self.host.hearing = Some((now, Fact::Command { command, what }));
        let requested = self.host.engine.command_requested(now, command, id_hash, timeout_ms, true);
        self.host.hearing = None;
        match requested {
            Requested::Taken | Requested::Answered => {}
            Requested::Running => {
                self.work.jobs.remove(&command);
            }
        }
    }

    pub(crate) fn next_key(&mut self) -> u32 {
        let key = self.work.next_key;
        self.work.next_key += 1;
        key
    }

    fn create(&mut self, place: u32) {
        let life = self.host.life;
        let Some(terminal) = self.work.terminals.get(place as usize).copied() else { return };
        if let Some(key) = terminal.key.filter(|_| terminal.life == life) {
            let Some(closed) = terminal.closed else { return self.reattach(key) };
            let number = self.messages.message(closed).map_or(0, |message| message.number);
            self.messages.may_repeat(closed);
            if self.host.engine.delivery.send_again(number) {
                return;
            }
        }
        if self.host.engine.machine().is_draining() || !self.host.engine.delivery.promise(Kind::Closed) {
            return;
        }
        let key = SessionKey(self.next_key());
        let stream = StreamKey::Terminal(key);
        if let Some(terminal) = self.work.terminals.get_mut(place as usize) {
            (terminal.key, terminal.life, terminal.closed) = (Some(key), life, None);
        }
        self.work.sessions.insert(key, place);
        let prints_bytes = self.output_bytes();
        self.work.sources.insert(stream, Source::new(prints_bytes));
        self.host.engine.delivery.open_stream(stream);
        self.tell_session(key, SessionFact::Opening);
        self.tell_session(key, SessionFact::Opened);
        self.note_in(5, Event::Prints { life, stream });
        if terminal.exits {
            let in_ms = self.between(1_000, 60_000);
            self.note_in(in_ms, Event::SessionEnds { life, session: key, code: 0 });
        }
    }

    fn reattach(&mut self, key: SessionKey) {
        self.tell_session(key, SessionFact::Attached);
        let stream = StreamKey::Terminal(key);
        let from = self.work.sources.get(&stream).map_or(0, |source| source.retained);
        self.host.engine.delivery.replay(stream, from);
    }

    fn input(&mut self, terminal: u32) {
        if self.host.engine.machine().wants_terminal_input() {
            self.handle(Fact::TerminalInput);
        }
        let Some(session) = self.live_session(terminal) else { return };
        if self.host.engine.machine().is_orphan(session) {
            self.tell_session(session, SessionFact::Attached);
        }
        let (life, stream) = (self.host.life, StreamKey::Terminal(session));
        if let Some(source) = self.work.sources.get_mut(&stream) {
            // The echo.
            source.to_print += 12;
            self.note_in(2, Event::Prints { life, stream });
        }
    }

    fn live_session(&self, terminal: u32) -> Option<SessionKey> {
        let terminal = self.work.terminals.get(terminal as usize)?;
        terminal.key.filter(|_| terminal.life == self.host.life && terminal.closed.is_none())
    }

    /// Reads what the program has printed, as much as is allowed.
    pub(crate) fn read(&mut self, stream: StreamKey) {
        let online = self.host.engine.machine().has_link();
        let acked = self.host.engine.delivery.position(stream).map(|position| position.acked);
        let Some(source) = self.work.sources.get_mut(&stream) else { return };
        source.reading = false;
        let bytes = source.unread.min(source.may_read);
        source.unread -= bytes;
        source.may_read -= bytes;
        source.end += bytes;
        let mut retained = source.end.saturating_sub(SCROLLBACK_BYTES);
        if online {
            retained = retained.min(acked.unwrap_or(retained));
        }
        source.retained = source.retained.max(retained);
        let (end, retained) = (source.end, source.retained);
        let life = self.host.life;
        if source.to_print > 0 && source.unread == 0 {
            self.note_in(10, Event::Prints { life, stream });
        }
        self.host.stirred += 1;
        self.host.engine.delivery.discarded(stream, retained);
        self.host.engine.delivery.grew(stream, end);
    }

    /// Reads what is left once the program is gone.
    pub(crate) fn read_all(&mut self, stream: StreamKey) {
        if let Some(source) = self.work.sources.get_mut(&stream) {
            source.to_print = 0;
            source.may_read = u64::MAX;
        }
        self.read(stream);
    }

    pub(crate) fn tell_command(&mut self, command: CommandKey, what: CommandFact) {
        self.handle(Fact::Command { command, what });
    }

    pub(crate) fn tell_session(&mut self, session: SessionKey, what: SessionFact) {
        self.handle(Fact::Session { session, what });
    }
}
