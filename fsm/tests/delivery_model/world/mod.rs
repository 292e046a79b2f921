//! A world around the ledger: sources that grow and forget, a link that breaks anywhere, a console that reads, answers
//! some of the Pings and sees duplicates; and the reference beside it, compared at every step.

mod check;
mod choices;
mod link;
pub(crate) mod reference;

use choices::Choices;
use draupnir_fsm::delivery::{After, Delivery, Kind, PushError, Reliable, StreamKey, UNLIMITED};
use draupnir_fsm::id::{CommandKey, SessionKey};
use draupnir_fsm::time::Time;
use reference::Reference;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How much a source holds.
const SCROLLBACK_BYTES: u64 = 256 << 10;

/// How many streams are open at most.
const STREAMS_MAX: usize = 8;

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
    },
    /// A part of a snapshot.
    Snapshot,
}

/// What the console has seen.
#[derive(Default)]
pub(crate) struct Console {
    /// Bodies by number; a repeat must be the same.
    messages: BTreeMap<u64, u64>,
    /// For each stream: the last offset that the console has seen, and how many bytes it has missed.
    seen: BTreeMap<StreamKey, (u64, u64)>,
}

/// Counts of a world, which show that it tested every rule.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) links: u64,
    pub(crate) acknowledged: u64,
    pub(crate) displaced: u64,
    pub(crate) too_long: u64,
    pub(crate) dropped: u64,
    pub(crate) gaps: u64,
    pub(crate) finished: u64,
    pub(crate) snapshots: u64,
    pub(crate) most_messages: u64,
    pub(crate) duplicates: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.links += other.links;
        self.acknowledged += other.acknowledged;
        self.displaced += other.displaced;
        self.too_long += other.too_long;
        self.dropped += other.dropped;
        self.gaps += other.gaps;
        self.finished += other.finished;
        self.snapshots += other.snapshots;
        self.most_messages = self.most_messages.max(other.most_messages);
        self.duplicates += other.duplicates;
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) ledger: Delivery<u64>,
    pub(crate) reference: Reference,
    pub(crate) console: Console,
    choices: Choices,
    now: Time,
    link: u32,
    gates: (bool, bool),
    wire: VecDeque<Travelling>,
    pongs: VecDeque<Vec<u8>>,
    /// Payloads of earlier Pongs, for repeats and Pongs of other links.
    old_pongs: VecDeque<Vec<u8>>,
    pushed: BTreeMap<u64, u64>,
    ended: BTreeSet<StreamKey>,
    gaps_reported: BTreeMap<StreamKey, u64>,
    next_key: u32,
    /// When the oldest frame since the newest Ping was sent.
    unmarked_since: Option<Time>,
    /// One push in a step becomes this many short ones.
    pushes: u64,
    /// A link is cut once in this many steps.
    patience: u64,
    pub(crate) tally: Stats,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(seed, Vec::new())
    }

    /// A world whose steps and details `bytes` choose, until the last byte.
    pub(crate) fn of(seed: u64, bytes: Vec<u8>) -> Self {
        Self {
            ledger: Delivery::new(),
            reference: Reference::default(),
            console: Console::default(),
            choices: Choices::new(seed, bytes),
            now: Time::START,
            link: 0,
            gates: (false, false),
            wire: VecDeque::new(),
            pongs: VecDeque::new(),
            old_pongs: VecDeque::new(),
            pushed: BTreeMap::new(),
            ended: BTreeSet::new(),
            gaps_reported: BTreeMap::new(),
            next_key: 1,
            unmarked_since: None,
            // Some worlds have many small messages, some are mostly offline, some mostly online.
            pushes: if seed.is_multiple_of(20) { 12 } else { 1 },
            patience: [1, 4, 16][usize::try_from(seed % 3).expect("small")],
            tally: Stats::default(),
        }
    }

    /// Makes the next step that the bytes choose; false after the last byte.
    pub(crate) fn step_as_chosen(&mut self) -> bool {
        let choice = self.choices.next_byte();
        choice.map(|choice| self.step(u16::from(choice))).is_some()
    }

    /// One step, chosen by `choice`; the details are the generator's.
    pub(crate) fn step(&mut self, choice: u16) {
        match choice % 64 {
            0..=5 => (0..self.pushes).for_each(|_| self.push(Kind::Event)),
            6..=9 => (0..self.pushes).for_each(|_| self.push(Kind::Result)),
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
            58 => self.foreign_pong(),
            59 => self.set_state(),
            60 => self.ledger.request_ping(),
            61..=62 => self.open_gate(),
            _ => self.connect_or_cut(),
        }
        self.check();
    }

    /// Stops breaking the link: now everything must arrive.
    pub(crate) fn heal(&mut self) {
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
        self.choices.between(low, high)
    }

    fn pick_stream(&mut self) -> Option<StreamKey> {
        let streams = self.reference.streams.len() as u64;
        let place = self.between(0, streams.checked_sub(1)?);
        self.reference.streams.keys().nth(usize::try_from(place).expect("small")).copied()
    }

    /// Mostly short messages, sometimes a long one, a few of which reach the bound.
    fn size(&mut self) -> usize {
        let (low, high) = match self.between(0, 9) {
            _ if self.pushes > 1 => (100, 300),
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
        let body = self.choices.any_u64();
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
                self.tally.displaced += u64::from(displaced);
                self.reference.kept.last_mut().expect("just kept").number = pushed.number;
                self.pushed.insert(pushed.number, body);
            }
            (Err(PushError::TooLong { room_bytes }), Err(PushError::TooLong { room_bytes: room })) => {
                assert_eq!(room_bytes, room);
                self.tally.too_long += 1;
                assert!(room >= reference::promise_bytes(kind), "a promise is kept");
                self.push_after(kind, room, after, true);
            }
            (Err(PushError::Dropped), Err(PushError::Dropped)) => self.tally.dropped += 1,
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
            0 => StreamKey::Stdout(CommandKey(key)),
            1 => StreamKey::Stderr(CommandKey(key)),
            _ => StreamKey::Terminal(SessionKey(key)),
        };
        self.ledger.open_stream(stream);
        self.reference.streams.insert(stream, reference::RefStream::default());
    }

    /// The source reads as much as it may, or less.
    fn grow(&mut self) {
        let Some(stream) = self.pick_stream().filter(|stream| !self.ended.contains(stream)) else {
            return;
        };
        let may = match self.ledger.read_credit(stream) {
            UNLIMITED => 300_000,
            bytes => {
                let most = if matches!(stream, StreamKey::Terminal(_)) { 3 << 20 } else { 192 << 10 };
                assert!(bytes as u64 <= most, "more than the window");
                // The sources here hold no more.
                bytes.min(192 << 10) as u64
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

    /// The budget is short: a source must drop bytes.
    fn discard(&mut self) {
        if let Some(stream) = self.pick_stream() {
            let entry = &self.reference.streams[&stream];
            let offset = self.choices.between(entry.retained, entry.end);
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

    /// A console that has seen nothing attaches to a session.
    fn look(&mut self) {
        let Some(stream) = self.pick_stream() else { return };
        self.reference.streams.get_mut(&stream).expect("picked").attach();
        self.ledger.want_snapshot(stream);
    }

    fn pass_time(&mut self) {
        let ms = self.between(0, 300);
        self.now = self.now.after_ms(ms);
        assert_eq!(self.ledger.tick(self.now), None, "nothing is being written");
    }
}
