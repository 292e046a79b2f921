//! The console: what it answers, what it stores, and the ways of the production one (CONSOLE.md, "Registration").
//!
//! It stores what it reads and drops what it has already seen, by number or offset. It judges only what a receiver
//! can
//! see: order, holes, ends that come before their bytes.

use crate::messages::Message;
use crate::plan::Fault;
use crate::rows::{Machine, RowId};
use crate::violation::Violation;
use crate::wire::{Down, Up, Wire};
use crate::world::{Event, World};
use draupnir_fsm::delivery::ping::Payload;
use draupnir_fsm::driver::{
    CUT_RESULT_BYTES, Chunk, CloseReason, Failure, LinkId, PROVIDERS_KNOWN, ProviderName, RegisterPath,
    RegistrationAttempt, StateKind, StreamKey,
};

/// A console that does not greet listens at the latest when the gate opens for everything.
const LISTENS_MS_MAX: u64 = 4_900;

/// How often in a row the console may see a message that it cannot take: on one link what went before it seems to be to
/// blame, on three it is until it is cut, and on three until it is dropped; on a few more, where more messages waited
/// before it than are sent one at a time.
const REFUSALS_MAX: u32 = 12;

/// What the console knows.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    /// It knows the instance.
    pub(crate) knows: bool,
    /// It is not there until then.
    pub(crate) away_until_ms: u64,
    pub(crate) key_refused_until_ms: u64,
    /// The link by which it reaches the agent.
    pub(crate) table: Option<LinkId>,
    /// Its routing was lost in a way that the agent could not have noticed.
    pub(crate) lost_routing_unseen: bool,
    /// The message that the latest link ended over, as far as the agent can know.
    pub(crate) refused: Option<Refused>,
    /// The agent has closed its last link with a close frame.
    pub(crate) goodbye: bool,
    old_pong: Option<Payload>,
    last_pong: Option<Payload>,
}

/// A message that the console could not take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) place: u32,
    /// How often in a row.
    times: u32,
    /// The link that it closed over it.
    pub(crate) link: LinkId,
}

impl Console {
    pub(crate) fn new(knows: bool) -> Self {
        Self {
            knows,
            away_until_ms: 0,
            key_refused_until_ms: 0,
            table: None,
            lost_routing_unseen: false,
            refused: None,
            goodbye: false,
            old_pong: None,
            last_pong: None,
        }
    }
}

impl World {
    /// A process of the agent is new: no connection of an older one reaches it.
    pub(crate) fn forget_connections(&mut self) {
        for wire in std::mem::take(&mut self.wires) {
            if !wire.end_noticed {
                self.rows.disconnected(wire.row);
            }
        }
        self.console.table = None;
        (self.console.old_pong, self.console.last_pong) = (None, None);
    }

    /// A registration over HTTP.
    pub(crate) fn register(&mut self, attempt: RegistrationAttempt, path: RegisterPath, provider: ProviderName) {
        let program = self.host.program;
        let in_ms = 2 * self.plan.latency_ms + self.between(1, 300);
        let mut row = None;
        let (status, retry_after_ms) = match self.meets_one_of(&Fault::REGISTRATIONS) {
            Some(Fault::RegisterHangs) => return,
            _ if self.now_ms < self.console.away_until_ms => {
                return self.note_in(in_ms, Event::RegistrationFailed { program, attempt, cause: Failure::Connect });
            }
            Some(Fault::RegisterReset) => {
                return self.note_in(in_ms, Event::RegistrationFailed { program, attempt, cause: Failure::Protocol });
            }
            _ if self.now_ms < self.console.key_refused_until_ms => (401, None),
            Some(Fault::RegisterRefused) => (self.one_of(&[401, 403]), None),
            Some(Fault::RegisterElsewhere) => (self.one_of(&[404, 405]), None),
            Some(Fault::RegisterUnprocessable) if provider == ProviderName::Configured => (422, None),
            Some(Fault::RegisterRejected) => (self.one_of(&[400, 402, 410, 422]), None),
            Some(Fault::RegisterLimited) => (429, self.retry_after_ms()),
            Some(Fault::RegisterBroken) => (self.one_of(&[500, 502, 503, 408]), self.retry_after_ms()),
            Some(Fault::RegisterRedirected) => (self.one_of(&[301, 302, 308]), None),
            _ if self.plan.production && path == RegisterPath::Designed => (404, None),
            known => {
                row = match self.register_row(path, provider) {
                    Ok(row) => row,
                    Err((status, retry_after_ms)) => {
                        return self.note_in(in_ms, Event::Answered { program, attempt, status, retry_after_ms, row });
                    }
                };
                (if known == Some(Fault::RegisterKnown) { 409 } else { self.one_of(&[200, 201]) }, None)
            }
        };
        self.note_in(in_ms, Event::Answered { program, attempt, status, retry_after_ms, row });
    }

    /// Takes a registration in; the row that it is answered with, on a console that has rows, or the refusal.
    fn register_row(
        &mut self,
        path: RegisterPath,
        provider: ProviderName,
    ) -> Result<Option<RowId>, (u16, Option<u64>)> {
        if !self.plan.production {
            self.console.knows = true;
            return Ok(None);
        }
        if let Some(wait_ms) = self.rows.limited_ms(self.now_ms) {
            self.fail(Violation::TooManyAttempts("registrations of one address"));
            return Err((429, Some(wait_ms)));
        }
        let request = self.registration(Machine::Ours, path, provider);
        if request.provider.is_none_or(|provider| !PROVIDERS_KNOWN.contains(&provider)) {
            self.fail(Violation::ProviderRefused(request.provider));
            return Err((422, None));
        }
        let (row, violation) = self.rows.register(&request);
        self.log(|| format!("{request:?} is row {row}"));
        self.check(violation.map_or(Ok(()), Err));
        Ok(Some(row))
    }

    /// Whether the console knows the id of a dial.
    pub(crate) fn is_known(&self, row: Option<RowId>) -> bool {
        if self.plan.production { self.rows.knows(row) } else { self.console.knows }
    }

    /// The console forgets our instance.
    pub(crate) fn forget_instance(&mut self) {
        self.console.knows = false;
        if let Some(row) = self.dialled_row() {
            self.rows.delete(row);
        }
    }

    fn one_of(&mut self, statuses: &[u16]) -> u16 {
        let place = self.pick(statuses.len());
        statuses.get(place).copied().unwrap_or(500)
    }

    /// What a console in trouble asks for, silly values among it.
    pub(crate) fn retry_after_ms(&mut self) -> Option<u64> {
        match self.between(0, 9) {
            0..=3 => None,
            4 => Some(0),
            5 => Some(u64::MAX),
            _ => Some(self.between(1, 60) * 1_000),
        }
    }

    /// When the console listens on a new connection, and when it greets.
    pub(crate) fn greeting_of(&mut self, wire: &mut Wire) {
        let now_ms = self.now_ms;
        if self.meets(Fault::GreetsNever) {
            wire.listens_ms = now_ms + self.between(5, LISTENS_MS_MAX);
            return;
        }
        let late = self.meets(Fault::GreetsLate);
        let in_ms = if late { self.between(500, LISTENS_MS_MAX) } else { self.between(5, 20) };
        wire.listens_ms = now_ms + in_ms;
        wire.greets_ms = Some(wire.listens_ms);
    }

    /// One connection an instance: a new one takes the place of the one before.
    pub(crate) fn console_accepts(&mut self, link: LinkId) {
        if let Some(old) = self.console.table.replace(link)
            && self.wire(old).is_some_and(|wire| wire.console_open)
        {
            self.console_closes(old, 1001, CloseReason::Replaced);
        }
        let row = self.wire(link).and_then(|wire| wire.row);
        self.replace_twin(row);
        self.console.goodbye = false;
        self.console.old_pong = self.console.last_pong.take();
    }

    pub(crate) fn greet(&mut self, life: u32, link: LinkId) {
        if life == self.host.life && self.wire(link).is_some_and(|wire| wire.console_open) {
            self.send_down(link, Down::Text);
            self.ask_for_logs(link);
        }
    }

    /// The upgrade is always answered 101; what is wrong is said after it.
    pub(crate) fn refuse_link(&mut self, life: u32, link: LinkId) {
        if life != self.host.life {
            return;
        }
        let Some(row) = self.wire(link).filter(|wire| wire.console_open).map(|wire| wire.row) else { return };
        if self.now_ms < self.console.key_refused_until_ms {
            self.console_closes(link, 1008, CloseReason::Authentication);
        } else if !self.is_known(row) {
            self.console_closes(link, 1008, CloseReason::UnknownInstance);
        } else {
            self.send_down(link, Down::Text);
            self.ask_for_logs(link);
        }
    }

    pub(crate) fn console_closes(&mut self, link: LinkId, code: u16, reason: CloseReason) {
        let Some(wire) = self.wire(link).filter(|wire| wire.console_open) else { return };
        // Until its close frame has arrived, nothing is answered.
        (wire.console_open, wire.harmed) = (false, true);
        let row = wire.row;
        self.rows.disconnected(row);
        self.console.table.take_if(|current| *current == link);
        self.send_down(link, Down::Close(code, reason));
    }

    /// The console hears that a connection is over. The production one then forgets whichever is current.
    pub(crate) fn console_notices_end(&mut self, life: u32, link: LinkId) {
        let production = self.plan.production;
        if life != self.host.life {
            if production {
                // A process of its own could not know of that socket.
                self.console.lost_routing_unseen = true;
                self.console.table = None;
            }
            return;
        }
        // It may have closed that socket long ago, and hears only now that it is gone.
        let Some(wire) = self.wires.iter_mut().find(|wire| wire.link == link && !wire.end_noticed) else { return };
        (wire.console_open, wire.end_noticed) = (false, true);
        let row = wire.row;
        self.rows.disconnected(row);
        if production {
            self.console.table = None;
        } else {
            self.console.table.take_if(|current| *current == link);
        }
    }

    pub(crate) fn console_reads(&mut self, link: LinkId, frame: Up) {
        let now_ms = self.now_ms;
        let listens = self.wire(link).is_some_and(|wire| wire.listens_ms <= now_ms);
        let life = self.host.life;
        match frame {
            Up::Ping(payload) => self.answer_ping(link, payload),
            Up::Close(code) => {
                self.console.goodbye = code == 1000;
                self.console_notices_end(life, link);
                self.send_down(link, Down::CloseAnswered);
            }
            Up::Reset => self.console_notices_end(life, link),
            _ if !listens => {}
            Up::State(kind) => {
                self.calm.heard_ms = now_ms;
                if kind == StateKind::Heartbeat {
                    let row = self.wire(link).and_then(|wire| wire.row);
                    self.rows.heartbeat(row);
                }
            }
            Up::Message(place) => self.store(link, place),
            Up::Lines { life, first, lines } => {
                if life == self.host.life {
                    self.store_lines(link, first, lines);
                }
            }
            Up::Stream { life, stream, cut, bytes } => {
                if life == self.host.life {
                    self.store_bytes(link, stream, cut, bytes);
                }
            }
        }
    }

    /// Takes in bytes of a stream: none may be missing that no gap reported, and no part of a snapshot.
    fn store_bytes(&mut self, link: LinkId, stream: StreamKey, cut: Chunk, bytes: u64) {
        let Some(source) = self.work.sources.get_mut(&stream) else { return };
        match cut {
            Chunk::Snapshot { from, .. } => {
                if !source.shown(link, from, bytes) {
                    self.fail(Violation::SnapshotSkips(stream));
                }
            }
            Chunk::Bytes { from, .. } => {
                if !source.receive(from, bytes) && !source.unsure {
                    let (received, gaps) = (source.received, source.gaps.clone());
                    self.log(|| {
                        format!("{bytes} bytes of {stream:?} from {from} on, up to {received}; reported gaps: {gaps:?}")
                    });
                    self.fail(Violation::Hole(stream));
                }
            }
        }
    }

    fn answer_ping(&mut self, link: LinkId, payload: Payload) {
        let skips = self.meets(Fault::PongsSkipped);
        let Some(wire) = self.wire(link).filter(|wire| wire.answers_pings) else { return };
        // Of several Pings only the newest need be answered (RFC 6455, section 5.5.3).
        if skips && wire.up.iter().any(|(_, frame)| matches!(frame, Up::Ping(_))) {
            // With a long way on top of it, that is too late for a probe.
            wire.harmed |= wire.latency_ms > 400;
            return;
        }
        if self.meets(Fault::PongsOfOldLinks)
            && let Some(old) = self.console.old_pong
        {
            self.send_down(link, Down::Pong(old));
        }
        self.send_down(link, Down::Pong(payload));
        self.console.last_pong = Some(payload);
        if self.meets(Fault::PongsRepeated) {
            self.send_down(link, Down::Pong(payload));
        }
    }

    /// No command has two different results, whatever died meanwhile.
    fn check_one_result(&mut self, message: &Message, place: u32) {
        let asked = message.dispatch.and_then(|dispatch| self.work.dispatches.get_mut(dispatch as usize));
        let faults = self.plan.faults;
        // Where a record failed or is lost, the next process cannot know that this result was sent.
        let unsure = [Fault::JournalFails, Fault::JournalSlow, Fault::JournalHangs, Fault::Recreated];
        let is_sure = !unsure.iter().any(|fault| faults.has(*fault));
        let Some(asked) = asked.filter(|_| message.is_final && is_sure && self.plan.journaled) else { return };
        if asked.result.replace(place).is_some_and(|before| before != place) {
            self.fail(Violation::TwoResults(message.dispatch.unwrap_or(u32::MAX)));
        }
    }

    /// A dispatch needs no other answer than the one it has now.
    pub(crate) fn answered(&mut self, dispatch: Option<u32>) {
        if let Some(asked) = dispatch.and_then(|dispatch| self.work.dispatches.get_mut(dispatch as usize)) {
            asked.answered = true;
        }
    }

    /// The console cannot take a message, and closes the link over it.
    fn refuse_message(&mut self, link: LinkId, place: u32, code: u16) {
        self.log(|| format!("link {link}: the console cannot take message {place}"));
        if self.host.rules.live != Some(link) {
            // The agent gave the link up, and will not hear of it.
            return self.console_closes(link, code, CloseReason::Other);
        }
        let times =
            self.console.refused.filter(|refused| refused.place == place).map_or(1, |refused| refused.times + 1);
        self.console.refused = Some(Refused { place, times, link });
        if times > REFUSALS_MAX {
            return self.fail(Violation::PoisonResent(place));
        }
        self.calm.wait_again(self.now_ms);
        self.console_closes(link, code, CloseReason::Other);
    }

    fn store(&mut self, link: LinkId, place: u32) {
        let Some(message) = self.messages.message(place).copied() else { return };
        let poison = message.dispatch.and_then(|dispatch| self.work.dispatches.get(dispatch as usize)?.poison);
        if let Some(poison) = poison.filter(|poison| message.size_bytes > CUT_RESULT_BYTES || !poison.only_long) {
            return self.refuse_message(link, place, poison.code);
        }
        self.log(|| format!("link {link}: message {place} answers {:?} after {:?}", message.dispatch, message.after));
        match self.messages.store(place) {
            Ok(true) => {}
            Ok(false) => return,
            Err(violation) => return self.fail(violation),
        }
        self.stats.messages += 1;
        self.check_one_result(&message, place);
        self.answered(message.dispatch);
        if message.life != self.host.life {
            return;
        }
        for (stream, end) in message.after.into_iter().flatten() {
            if self.work.sources.get(&stream).is_some_and(|source| !source.has(end)) {
                self.fail(Violation::EndBeforeBytes(place));
            }
        }
    }
}
