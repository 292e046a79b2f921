//! A world around the ledger: sources that grow and forget, a link that breaks anywhere, a console that reads, answers
//! some of the Pings and sees duplicates; and the [reference](reference::Reference) beside it, compared at every step.

pub mod reference;

use draupnir_fsm::delivery::ping::Purpose;
use draupnir_fsm::delivery::{
    After, Cut, Delivery, FRAME_BYTES_MAX, INTERACTIVE_BYTES_MAX, Kind, LINK_WINDOW_BYTES_MAX, LinkEnd, MARKER_MS,
    Next, PushError, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX, Reliable, StateKind, StreamKey, UNLIMITED,
};
use draupnir_fsm::order::Gate;
use draupnir_fsm::random::Random;
use draupnir_fsm::time::Time;
use reference::{Frame, Reference};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How much a source holds.
const SCROLLBACK_BYTES: u64 = 256 << 10;

/// How many streams are open at most.
const STREAMS_MAX: usize = 8;

/// How many markers may be unanswered.
const MARKERS_MAX: usize = 32;

/// What travels on the wire.
#[derive(Clone, Debug)]
enum Travelling {
    Ping(Vec<u8>),
    State(u32),
    Message(u64, u64),
    Bytes {
        stream: StreamKey,
        from: u64,
        to: u64,
        replay: bool,
    },
    /// Bytes of the agent's own, around a replay.
    Extra,
}

/// What the console has seen.
#[derive(Default)]
pub struct Console {
    /// Bodies by number; a repeat must be the same.
    messages: BTreeMap<u64, u64>,
    /// Up to where each stream was seen, and how much of it was not.
    seen: BTreeMap<StreamKey, (u64, u64)>,
    pub duplicates: u64,
}

/// The world.
pub struct World {
    pub ledger: Delivery<u64>,
    pub reference: Reference,
    pub console: Console,
    random: Random,
    now: Time,
    link: u32,
    gates: (bool, bool),
    wire: VecDeque<Travelling>,
    pongs: VecDeque<Vec<u8>>,
    /// Payloads that were seen before: repeats, and those of other links.
    old_pongs: VecDeque<Vec<u8>>,
    pushed: BTreeMap<u64, u64>,
    ended: BTreeSet<StreamKey>,
    gaps_told: BTreeMap<StreamKey, u64>,
    lost: BTreeMap<StreamKey, u64>,
    next_key: u32,
    /// When the oldest frame since the newest Ping was sent.
    unmarked_since: Option<Time>,
    pub links: u64,
    pub acknowledged: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            ledger: Delivery::new(),
            reference: Reference::default(),
            console: Console::default(),
            random: Random::new(seed),
            now: Time::START,
            link: 0,
            gates: (false, false),
            wire: VecDeque::new(),
            pongs: VecDeque::new(),
            old_pongs: VecDeque::new(),
            pushed: BTreeMap::new(),
            ended: BTreeSet::new(),
            gaps_told: BTreeMap::new(),
            lost: BTreeMap::new(),
            next_key: 1,
            unmarked_since: None,
            links: 0,
            acknowledged: 0,
        }
    }

    /// One step, chosen by `choice`; the details are the generator's.
    pub fn step(&mut self, choice: u16) {
        match choice % 64 {
            0..=5 => self.push(Kind::Event),
            6..=9 => self.push(Kind::Result),
            10..=11 => self.promise(),
            12..=19 => self.grow(),
            20 => self.discard(),
            21 => self.open_stream(),
            22 => self.end_stream(),
            23 => self.look(),
            24..=27 => self.pass_time(),
            28..=39 => self.write(),
            40..=49 => self.deliver(),
            50..=57 => self.answer(),
            58..=59 => self.foreign_pong(),
            60 => self.set_state(),
            61 => self.ledger.request_ping(),
            62 => self.open_gate(),
            _ => self.connect_or_cut(),
        }
        self.check();
    }

    /// From now on nothing breaks: everything must arrive.
    pub fn heal(&mut self) {
        if !self.reference.online {
            self.connect();
        }
        self.open_gate();
        self.open_gate();
        for _ in 0..20_000 {
            let before = self.wire.len();
            self.write();
            while !self.wire.is_empty() {
                self.deliver();
            }
            while !self.pongs.is_empty() {
                self.answer();
            }
            self.now = self.now.after_ms(20);
            self.check();
            if self.ledger.is_settled() && before == 0 {
                break;
            }
        }
        self.check_healed();
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.random.between(low, high)
    }

    fn pick_stream(&mut self) -> Option<StreamKey> {
        let streams = self.reference.streams.len() as u64;
        let place = self.between(0, streams.checked_sub(1)?);
        self.reference.streams.keys().nth(usize::try_from(place).expect("small")).copied()
    }

    /// Mostly short messages, now and then one that fills the bound in a few.
    fn size(&mut self) -> usize {
        let (low, high) = match self.between(0, 9) {
            0 => (100_000, 800_000),
            1..=4 => (1_000, 20_000),
            _ => (100, 500),
        };
        usize::try_from(self.between(low, high)).expect("small")
    }

    fn push(&mut self, kind: Kind) {
        let size = self.size();
        let promised = self.reference.promised.contains(&kind) && self.between(0, 1) == 0;
        let after = match (kind, self.pick_stream()) {
            (Kind::Result, Some(stream)) if self.between(0, 1) == 0 => {
                let end = self.reference.streams[&stream].end;
                vec![(stream, end)]
            }
            _ => Vec::new(),
        };
        self.push_after(kind, size, after, promised);
    }

    fn push_after(&mut self, kind: Kind, size: usize, after: Vec<(StreamKey, u64)>, promised: bool) {
        let body = self.random.next();
        let order = match after.as_slice() {
            [] => After::NOTHING,
            [(stream, end)] => After::stream(*stream, *end),
            [one, other, ..] => After::streams(*one, *other),
        };
        let message = Reliable { kind, size_bytes: size, after: order, promised };
        let expected = self.reference.push(kind, size, &after, promised);
        match (self.ledger.push(message, body), expected) {
            (Ok(pushed), Ok(displaced)) => {
                assert_eq!(pushed.displaced, displaced);
                self.reference.kept.last_mut().expect("just kept").number = pushed.number;
                self.pushed.insert(pushed.number, body);
            }
            (Err(PushError::TooLong { room_bytes }), Err(PushError::TooLong { room_bytes: room })) => {
                assert_eq!(room_bytes, room);
                assert!(room >= reference::promise_bytes(kind), "a promise is kept");
                self.push_after(kind, room, after, true);
            }
            (Err(PushError::Dropped), Err(PushError::Dropped)) => {}
            (got, expected) => panic!("got {got:?}, expected {expected:?}"),
        }
    }

    fn promise(&mut self) {
        let kind = if self.between(0, 1) == 0 { Kind::Result } else { Kind::Closed };
        let place = self.reference.promised.iter().position(|one| *one == kind);
        match place {
            Some(place) if self.between(0, 3) == 0 => {
                self.ledger.break_promise(kind);
                self.reference.promised.remove(place);
            }
            _ => {
                let may = self.reference.may_promise(kind);
                assert_eq!(self.ledger.promise(kind), may);
                if may {
                    self.reference.promised.push(kind);
                }
            }
        }
    }

    fn open_stream(&mut self) {
        if self.reference.streams.len() >= STREAMS_MAX {
            return;
        }
        let key = self.next_key;
        self.next_key += 1;
        let stream = match self.between(0, 2) {
            0 => StreamKey::Stdout(key),
            1 => StreamKey::Stderr(key),
            _ => StreamKey::Terminal(key),
        };
        self.ledger.open_stream(stream);
        let attached = reference::RefStream { attached: true, ..Default::default() };
        self.reference.streams.insert(stream, attached);
    }

    /// The source reads as much as it may, or less.
    fn grow(&mut self) {
        let Some(stream) = self.pick_stream().filter(|stream| !self.ended.contains(stream)) else {
            return;
        };
        let may = match self.ledger.may_read(stream) {
            UNLIMITED => 300_000,
            bytes => {
                assert!(bytes as u64 <= 192 << 10, "more than the window");
                bytes as u64
            }
        };
        let wanted = if self.between(0, 2) == 0 { 300_000 } else { 3_000 };
        let bytes = self.between(0, may.min(wanted));
        let entry = self.reference.streams.get_mut(&stream).expect("picked");
        entry.end += bytes;
        let kept_from = entry.end.saturating_sub(SCROLLBACK_BYTES);
        entry.retained = entry.retained.max(kept_from);
        let (end, retained) = (entry.end, entry.retained);
        self.ledger.grew(stream, end);
        self.ledger.discarded(stream, retained);
    }

    /// The budget is short: a source must let go of something.
    fn discard(&mut self) {
        if let Some(stream) = self.pick_stream() {
            let entry = &self.reference.streams[&stream];
            let offset = self.random.between(entry.retained, entry.end);
            self.reference.streams.get_mut(&stream).expect("picked").retained = offset;
            self.ledger.discarded(stream, offset);
        }
    }

    fn end_stream(&mut self) {
        let Some(stream) = self.pick_stream() else { return };
        if self.ended.insert(stream) {
            let end = self.reference.streams[&stream].end;
            let promised = self.reference.promised.contains(&Kind::Closed);
            self.push_after(Kind::Closed, 300, vec![(stream, end)], promised);
            self.ledger.end_stream(stream);
        }
    }

    /// Somebody leaves a terminal, or comes back.
    fn look(&mut self) {
        let Some(stream) = self.pick_stream() else { return };
        let entry = self.reference.streams.get_mut(&stream).expect("picked");
        match self.random.between(0, 5) {
            0 => {
                entry.attached = false;
                self.ledger.detach(stream);
            }
            1 => {
                entry.attached = true;
                self.ledger.attach(stream);
            }
            _ if self.reference.online => {
                entry.attached = true;
                self.ledger.replay(stream, self.random.between(0, entry.end));
            }
            _ => {}
        }
    }

    fn pass_time(&mut self) {
        let ms = self.between(0, 300);
        self.now = self.now.after_ms(ms);
        assert_eq!(self.ledger.tick(self.now), None, "nothing is being written");
    }

    /// The link takes some frames.
    fn write(&mut self) {
        let frames = self.between(1, 40);
        let mut complete = false;
        for _ in 0..frames {
            if !self.write_one() {
                complete = true;
                break;
            }
        }
        if complete && self.reference.online {
            let late = self.unmarked_since.is_some_and(|since| self.now.ms_since(since) >= MARKER_MS);
            assert!(!late || self.reference.unanswered() >= MARKERS_MAX, "a marker is late");
        }
    }

    fn write_one(&mut self) -> bool {
        let travelling = match self.ledger.next(self.now) {
            None => return false,
            Some(Next::Ping { payload, purpose }) => {
                if purpose == Purpose::Marker {
                    assert!(self.reference.unmarked() > 0, "a marker for nothing");
                }
                self.reference.pinged(&payload);
                self.unmarked_since = None;
                Travelling::Ping(payload.to_vec())
            }
            Some(Next::State { body, .. }) => {
                assert!(self.gates.0, "state before its gate");
                assert_eq!(body >> 32, u64::from(self.link), "state of another link");
                Travelling::State(u32::try_from(body >> 32).expect("32 bits"))
            }
            Some(Next::Reliable { number, body }) => {
                assert!(self.gates.1, "a message before its gate");
                self.reference.sent_message(number);
                self.unmarked_since.get_or_insert(self.now);
                Travelling::Message(number, *body)
            }
            Some(Next::Stream { stream, cut }) => {
                assert!(self.gates.1, "bytes before their gate");
                return self.write_bytes(stream, cut);
            }
        };
        self.wire.push_back(travelling);
        true
    }

    fn write_bytes(&mut self, stream: StreamKey, cut: Cut) -> bool {
        let entry = self.reference.streams.get_mut(&stream).expect("known");
        assert!(entry.attached);
        let (bytes, to, travelling) = match cut {
            Cut::Reset | Cut::Modes => (self.random.between(0, 20), 0, Travelling::Extra),
            Cut::Bytes { from, max, replay } => {
                assert!(max > 0 && max <= FRAME_BYTES_MAX);
                assert!(from >= entry.retained, "the source no longer holds it");
                // Now and then a character would be split.
                let bytes = self.random.between(0, 1).max(max.saturating_sub(3) as u64);
                let to = from + bytes;
                assert!(to <= entry.end);
                if replay {
                    assert!(to <= entry.sent, "only what was sent is a replay");
                } else {
                    assert_eq!(from, entry.sent, "bytes in their order");
                    entry.sent = to;
                }
                let acked = if replay { 0 } else { to };
                (bytes, acked, Travelling::Bytes { stream, from, to, replay })
            }
        };
        self.ledger.cut(usize::try_from(bytes).expect("small"));
        if bytes == 0 && cut != Cut::Modes {
            // The rest of the character is there a moment later.
            let end = self.reference.streams[&stream].end;
            if cut != Cut::Reset {
                self.ledger.grew(stream, end);
            }
            return true;
        }
        self.reference.unacked.push(Frame::Bytes(stream, to));
        self.unmarked_since.get_or_insert(self.now);
        self.wire.push_back(travelling);
        true
    }

    /// The console reads some of what was written.
    fn deliver(&mut self) {
        let frames = self.between(1, 60);
        for _ in 0..frames {
            let Some(travelling) = self.wire.pop_front() else { return };
            match travelling {
                Travelling::Ping(payload) => self.pongs.push_back(payload),
                Travelling::State(link) => assert_eq!(link, self.link),
                Travelling::Extra => {}
                Travelling::Message(number, body) => {
                    assert_eq!(self.pushed.get(&number), Some(&body), "the body that was pushed");
                    if self.console.messages.insert(number, body).is_some() {
                        self.console.duplicates += 1;
                    }
                }
                Travelling::Bytes { stream, from, to, replay } => {
                    let (seen, unseen) = self.console.seen.entry(stream).or_default();
                    *unseen += from.saturating_sub(*seen);
                    assert!(!replay || to <= *seen + *unseen || from <= *seen);
                    *seen = (*seen).max(to);
                }
            }
        }
    }

    /// Some Pongs arrive; a console may leave out all but the latest.
    fn answer(&mut self) {
        if self.pongs.len() > 1 && self.between(0, 3) == 0 {
            let skipped = self.between(1, self.pongs.len() as u64 - 1);
            self.pongs.drain(..usize::try_from(skipped).expect("small"));
        }
        let Some(payload) = self.pongs.pop_front() else { return };
        self.pong(&payload);
        self.old_pongs.push_back(payload);
        if self.old_pongs.len() > 20 {
            self.old_pongs.pop_front();
        }
    }

    fn pong(&mut self, payload: &[u8]) {
        let answers = self.reference.pong(payload);
        let ack = self.ledger.pong(self.now, self.link, payload);
        assert_eq!(ack.is_some(), answers, "what counts as an answer");
        if let Some(ack) = ack {
            assert_eq!(ack.last, self.reference.unanswered() == 0);
            self.acknowledged += u64::from(ack.messages + ack.frames);
        }
    }

    /// Repeats, Pongs of earlier links, Pongs that nobody asked for.
    fn foreign_pong(&mut self) {
        let last = self.old_pongs.len() as u64;
        let place = usize::try_from(self.between(0, last)).expect("small");
        match self.old_pongs.get(place).cloned() {
            Some(payload) => {
                let earlier = self.link.saturating_sub(1);
                assert_eq!(self.ledger.pong(self.now, earlier, &payload), None);
                self.pong(&payload);
            }
            None => {
                let length = usize::try_from(self.between(0, 125)).expect("small");
                let payload: Vec<u8> = (0..length).map(|_| self.random.next().to_le_bytes()[0]).collect();
                self.pong(&payload);
            }
        }
    }

    fn set_state(&mut self) {
        let body = u64::from(self.link) << 32 | self.random.next() >> 32;
        let kept = self.ledger.set_state(StateKind::Heartbeat, body);
        assert_eq!(kept, self.reference.online, "no state is kept offline");
    }

    fn open_gate(&mut self) {
        if !self.reference.online {
            return;
        }
        if self.gates.0 {
            self.gates.1 = true;
            self.ledger.open_gate(self.now, Gate::All);
        } else {
            self.gates.0 = true;
            self.ledger.open_gate(self.now, Gate::State);
        }
    }

    fn connect_or_cut(&mut self) {
        if self.reference.online {
            self.cut();
        } else {
            self.connect();
        }
    }

    fn connect(&mut self) {
        self.link += 1;
        self.links += 1;
        self.gates = (false, false);
        self.reference.link(true);
        self.ledger.link_opened(self.now, self.link);
    }

    fn cut(&mut self) {
        // What the console has read it has read; the rest is gone with the link.
        self.deliver();
        self.wire.clear();
        self.pongs.clear();
        self.unmarked_since = None;
        self.reference.link(false);
        assert_eq!(self.ledger.link_closed(self.now, LinkEnd::Broken), None);
    }
}

/// What holds at every step.
impl World {
    fn check(&mut self) {
        self.reference.skip_what_is_gone();
        self.take_what_is_told();
        let ledger = &self.ledger;
        assert!(ledger.messages() <= RELIABLE_MESSAGES_MAX);
        assert!(ledger.message_bytes() <= RELIABLE_BYTES_MAX);
        assert_eq!(ledger.messages(), self.reference.kept.len());
        let interactive = STREAMS_MAX as u64 * INTERACTIVE_BYTES_MAX;
        let frame = FRAME_BYTES_MAX as u64 * 2;
        assert!(ledger.stream_bytes_in_flight() <= LINK_WINDOW_BYTES_MAX + interactive + frame);
        for (stream, expected) in &self.reference.streams {
            let at = ledger.position(*stream).expect("known");
            assert_eq!(
                (at.end, at.retained, at.sent, at.acked),
                (expected.end, expected.retained, expected.sent, expected.acked),
                "{stream:?}"
            );
        }
        // A look at everything costs too much to be had at every step.
        if self.random.next().is_multiple_of(64) {
            assert_eq!(ledger.message_bytes(), self.reference.bytes());
            assert!(self.reference.kept.iter().all(|kept| ledger.is_waiting(kept.number)));
        }
    }

    fn take_what_is_told(&mut self) {
        while let Some(gap) = self.ledger.take_gap() {
            assert!(gap.from < gap.to && gap.lost_bytes <= gap.to - gap.from);
            *self.gaps_told.entry(gap.stream).or_default() += gap.lost_bytes;
        }
        if let Some(drops) = self.ledger.take_drops() {
            assert!(self.gates.1, "drops are told when they can be sent on");
            assert_eq!(drops, core::mem::take(&mut self.reference.drops));
        }
        while let Some((stream, bytes)) = self.ledger.take_allowance() {
            assert_eq!(bytes, self.ledger.may_read(stream));
        }
        while let Some(stream) = self.ledger.take_finished() {
            let entry = self.reference.streams.remove(&stream).expect("known");
            assert!(self.ended.remove(&stream), "only what has ended is finished");
            assert!(!entry.attached || entry.acked == entry.end);
            self.check_stream(stream, &entry);
        }
    }

    /// Every byte was seen, but for those that were told of as lost or that nobody looked at.
    fn check_stream(&mut self, stream: StreamKey, entry: &reference::RefStream) {
        let told = self.gaps_told.get(&stream).copied().unwrap_or(0);
        assert_eq!(told, entry.lost_bytes, "every lost byte is told of, once");
        let (seen, unseen) = self.console.seen.get(&stream).copied().unwrap_or((0, 0));
        assert!(unseen <= told, "what was not seen was told of");
        if entry.attached {
            assert!(seen + told >= entry.end, "seen to the end, or lost");
        }
        self.lost.insert(stream, told);
    }

    fn check_healed(&mut self) {
        assert!(self.ledger.is_settled(), "everything is acknowledged");
        assert_eq!(self.ledger.messages(), 0);
        assert!(self.reference.kept.is_empty());
        for (stream, entry) in self.reference.streams.clone() {
            assert!(!entry.attached || entry.acked == entry.end);
            self.check_stream(stream, &entry);
        }
    }

    /// How many messages were pushed, and how many of them the console has.
    pub fn delivered(&self) -> (usize, usize) {
        (self.pushed.len(), self.console.messages.len())
    }
}
