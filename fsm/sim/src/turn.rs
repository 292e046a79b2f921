//! A turn of the process: time passes, orders are performed, the link and the sources are fed; as in the agent's loop.
//!
//! It decides nothing, and checks after each turn what must hold whatever happened.

use crate::breach::Breach;
use crate::planted::Planted;
use crate::wire::Up;
use crate::work::SCHEDULE;
use crate::world::{Event, World};
use draupnir_fsm::delivery::ping::Purpose;
use draupnir_fsm::delivery::{
    Cut, LINK_WINDOW_BYTES_MAX, Next, Poison, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX, StateKind, StreamKey,
};
use draupnir_fsm::fact::Fact;
use draupnir_fsm::id::LinkId;
use draupnir_fsm::limits::Policy;
use draupnir_fsm::order::Gate;
use draupnir_fsm::time::Time;

/// How many bytes of frames make a batch, and how many frames: as in the agent.
const BATCH_BYTES: u64 = 64 << 10;
const BATCH_FRAMES_MAX: usize = 256;

/// How often the loop may wake for nothing but a deadline, in a second: a few timers, and markers and progress checks.
const WAKES_PER_SECOND_MAX: u32 = 40;

/// How long a dead link may go unnoticed: the next Ping, the time for its Pong or for the write to move, and the slack
/// with which both are looked at.
const DEAD_LINK_MS: u64 = 25_000;

/// More than one frame more than its window is never under way.
const IN_FLIGHT_BYTES_MAX: u64 = LINK_WINDOW_BYTES_MAX + (48 << 10);

impl World {
    /// Lets time pass in the process and does all that is to be done, until nothing more is.
    pub(crate) fn turn(&mut self) {
        self.host.stirred = 0;
        if !self.host.running {
            return;
        }
        let now = self.own_now();
        self.fire_stale_timer(now);
        loop {
            let bytes_written = self.bytes_written();
            self.host.hearing = Some((now, Fact::Tick));
            self.host.engine.tick(now, bytes_written);
            self.host.hearing = None;
            let mut performed = false;
            while let Some(order) = self.host.engine.poll_order() {
                performed = true;
                self.perform(order);
            }
            self.follow_deliveries();
            if !performed || !self.host.running {
                break;
            }
        }
        self.feed_link();
        self.feed_sources();
        self.host.stirred = 0;
        self.check_turn();
    }

    /// The time for a Pong of the link before is over, and an agent that kept its timer takes this one for dead.
    fn fire_stale_timer(&mut self, now: Time) {
        let (Some(link), Some((of, until_ms))) = (self.host.rules.live, self.host.awaits_pong) else { return };
        if self.planted == Some(Planted::KeepsStaleTimers) && of != link && until_ms <= now.as_ms() {
            self.host.awaits_pong = None;
            self.handle(Fact::WriteStalled { link });
        }
    }

    fn bytes_written(&mut self) -> u64 {
        let now_ms = self.now_ms;
        let bytes = self.host.rules.live.and_then(|link| self.wire(link)).map_or(0, |wire| wire.taken_bytes(now_ms));
        if self.planted == Some(Planted::DoesNotSeeStalledWrites) {
            self.host.told_bytes += 1;
            return self.host.told_bytes;
        }
        bytes
    }

    /// Hands the link its next batch, if it is done with the last one.
    fn feed_link(&mut self) {
        let Some(link) = self.host.engine.machine().snapshot().link else { return };
        if self.host.engine.delivery.is_writing() {
            return;
        }
        let now = self.own_now();
        let mut frames: Vec<(Up, u64)> = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && frames.len() < BATCH_FRAMES_MAX {
            let Some(frame) = self.next_frame(now) else { break };
            bytes += frame.map_or(0, |(_, bytes)| bytes);
            frames.extend(frame);
        }
        if frames.is_empty() {
            return;
        }
        if self.planted == Some(Planted::ReversesBatches) {
            frames.reverse();
        }
        let bytes_written = self.bytes_written();
        self.host.engine.delivery.write_started(now, bytes_written);
        self.write(link, &frames, bytes);
    }

    /// The next frame and its bytes; `Some(None)` where a stream had nothing to cut after all.
    fn next_frame(&mut self, now: Time) -> Option<Option<(Up, u64)>> {
        let (stream, cut) = match self.host.engine.next_frame(now)? {
            Next::Ping { payload, purpose } => {
                self.host.newest_ping = Some(payload);
                if purpose == Purpose::KeepAlive {
                    let until_ms = now.as_ms() + Policy::default().pong_ms;
                    self.host.awaits_pong = self.host.rules.live.map(|link| (link, until_ms));
                }
                return Some(Some((Up::Ping(payload), 22)));
            }
            Next::State { kind, body: _ } => return Some(Some((Up::State(kind), 400))),
            Next::Reliable { body, .. } => {
                let place = *body;
                let bytes = self.messages.message(place).map_or(0, |message| message.size_bytes) as u64;
                return Some(Some((Up::Message(place), bytes)));
            }
            Next::Stream { stream, cut } => (stream, cut),
        };
        let bytes = self.cut(stream, cut);
        let told =
            if self.planted == Some(Planted::CountsBytesThatWereNotSent) && bytes > 3 { bytes + 1 } else { bytes };
        self.host.engine.delivery.cut(usize::try_from(told).unwrap_or(0));
        let is_frame = bytes > 0 || cut == Cut::Modes;
        let frame = Up::Stream { life: self.host.life, stream, cut, bytes };
        Some(is_frame.then_some((frame, bytes * 4 / 3 + 150)))
    }

    /// Checks a batch on its way to the socket, and gives it to the network.
    fn write(&mut self, link: LinkId, frames: &[(Up, u64)], bytes: u64) {
        let rules = &self.host.rules;
        if rules.live != Some(link) {
            return self.fail(Breach::WrittenToNoLink(link));
        }
        let gate = rules.gate;
        for (frame, _) in frames {
            let needs = match frame {
                Up::State(_) => Some(Gate::State),
                Up::Message(_) | Up::Stream { .. } => Some(Gate::All),
                Up::Ping(_) | Up::Close(_) | Up::Reset => None,
            };
            if gate < needs {
                return self.fail(Breach::WrittenBeforeItsGate(link));
            }
            let unsure = self.host.rules.drains_since_ms.is_some() && !self.host.greeted;
            match frame {
                Up::Message(place) => {
                    if let Some(message) = self.messages.message_mut(*place) {
                        message.unsure |= unsure;
                    }
                    let sent = self.messages.sent(*place, link);
                    self.check(sent);
                }
                Up::Stream { stream, .. } => {
                    if let Some(source) = self.work.sources.get_mut(stream) {
                        source.unsure |= unsure;
                    }
                }
                Up::State(_) | Up::Ping(_) | Up::Close(_) | Up::Reset => {}
            }
        }
        self.transmit(link, frames, bytes);
    }

    /// What the ledger has found out since the last turn.
    fn follow_deliveries(&mut self) {
        while let Some(stream) = self.host.engine.delivery.take_finished() {
            self.host.engine.delivery.forget_stream(stream);
            if let Some(source) = self.work.sources.get_mut(&stream) {
                source.finished = true;
            }
        }
        while let Some(gap) = self.host.engine.delivery.take_gap() {
            self.tell(|| format!("{} bytes of {:?} are lost", gap.lost_bytes, gap.stream));
            if self.planted == Some(Planted::HidesGaps) {
                continue;
            }
            if let Some(source) = self.work.sources.get_mut(&gap.stream) {
                source.gaps.push((gap.from, gap.to));
            }
            self.complain(1);
        }
        if self.host.engine.delivery.take_drops().is_some() {
            self.complain(2);
        }
        match self.host.engine.take_poison() {
            Some(Poison::CutResult { number }) => self.cut_poison(number),
            Some(Poison::Dropped { number, .. }) => self.drop_poison(number),
            None => {}
        }
    }

    /// Tells the console that something was lost, as often as it may hear the same.
    fn complain(&mut self, cause: u64) {
        let now = self.own_now();
        if self.host.engine.may_complain(now, cause) {
            self.push_event();
        }
    }

    /// Tells the sources how much they may read.
    fn feed_sources(&mut self) {
        while let Some((stream, bytes)) = self.host.engine.delivery.take_allowance() {
            self.allow(stream, bytes);
        }
    }

    /// What must hold after every turn.
    fn check_turn(&mut self) {
        let now = self.own_now();
        let host = &self.host;
        let ledger = &host.engine.delivery;
        let mut breach = host.take_breach();
        if ledger.message_bytes() > RELIABLE_BYTES_MAX {
            breach = breach.or(Some(Breach::OverItsBound("bytes of messages")));
        }
        if ledger.messages() > RELIABLE_MESSAGES_MAX {
            breach = breach.or(Some(Breach::OverItsBound("messages")));
        }
        if ledger.stream_bytes_in_flight() > IN_FLIGHT_BYTES_MAX {
            breach = breach.or(Some(Breach::OverItsBound("bytes under way")));
        }
        if host.running && host.engine.next_deadline().is_some_and(|next| next <= now) {
            breach = breach.or(Some(Breach::Spins));
        }
        if host.wakes.1 > WAKES_PER_SECOND_MAX {
            breach = breach.or(Some(Breach::Busy));
        }
        let late = host.rules.beat_ms.is_some_and(|beat_ms| {
            now.as_ms() > beat_ms.max(host.rules.jumped_ms) + SCHEDULE.heartbeat_ms
                && host.rules.drains_since_ms.is_none()
        });
        if late && host.rules.live.is_some() {
            breach = breach.or(Some(Breach::HeartbeatLate));
        }
        if let Some(breach) = breach {
            self.fail(breach);
        }
        self.check_dead_link(now);
    }

    /// A link that is dead must be noticed.
    fn check_dead_link(&mut self, now: Time) {
        let Some(link) = self.host.rules.live else { return };
        let jumped_ms = self.host.rules.jumped_ms;
        let Some(wire) = self.wire(link) else { return };
        let Some(since_ms) = wire.dead_since_ms else { return };
        // A Ping waits for the batch before it; a socket that moves on, however slowly, is not stalled.
        let writing = wire.stall.is_none() && wire.batch.is_some_and(|batch| batch.until_ms > batch.from_ms + 1_000);
        let since_ms = since_ms.max(wire.busy_until_ms);
        let own_since_ms = self.host.own(since_ms).as_ms().max(jumped_ms);
        if now.as_ms() > own_since_ms + DEAD_LINK_MS && !writing {
            self.fail(Breach::DeadLinkKept(link));
        }
    }

    /// Puts a state message into the ledger.
    pub(crate) fn set_state(&mut self, kind: StateKind) {
        self.host.engine.delivery.set_state(kind, 0);
    }

    /// Cuts bytes of a stream, sometimes fewer than asked for: characters are not split.
    fn cut(&mut self, stream: StreamKey, cut: Cut) -> u64 {
        let few = self.random.between(0, 7);
        let Cut::Bytes { from, max, replay } = cut else { return 8 };
        let life = self.host.life;
        let Some(source) = self.work.sources.get_mut(&stream) else { return 0 };
        let there = source.end.saturating_sub(from.max(source.retained)).min(max as u64);
        if there > 8 {
            return there - few.min(3);
        }
        if few == 0 && !replay && !source.holds_back {
            // The beginning of a character: the rest of it, or the end of the wait for that, comes soon.
            source.holds_back = true;
            source.reading = true;
            self.note_in(20, Event::Read { life, stream });
            return 0;
        }
        there
    }
}
