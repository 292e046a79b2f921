//! A host whose answers to the driver come from the input, within the contract of the two traits.

use crate::contract;
use draupnir_fsm::driver::{Body, ByteSource, Chunk, Encode, MadeSnapshot, Message, SessionKey, StreamKey, TakenOver};
use draupnir_fsm::random::Random;
use draupnir_sim::tap::Encoded;
use std::collections::BTreeMap;
use std::ops::Range;

/// Lengths of bodies, in bytes: empty, short, as promised, as a cut result, too long.
const BODY_BYTES: [usize; 8] = [0, 200, 300, 1 << 10, 8 << 10, 16 << 10, 100 << 10, 5 << 20];

/// Holds numbers of bytes, but no bytes.
pub(super) struct Host {
    random: Random,
    /// Whether it is calm: bodies are short, and everything is sent.
    pub(super) calm: bool,
    pub(super) held: BTreeMap<StreamKey, Range<u64>>,
}

impl Host {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), calm: false, held: BTreeMap::new() }
    }

    fn one_of(&mut self, count: u64) -> u64 {
        self.random.between(0, count - 1)
    }

    fn body(&mut self) -> Option<usize> {
        if self.calm {
            return Some(300);
        }
        let place = usize::try_from(self.one_of(16)).unwrap_or(0);
        if place == 15 { None } else { Some(BODY_BYTES[place % BODY_BYTES.len()]) }
    }
}

impl Encode for Host {
    type Body = usize;

    fn encode(&mut self, message: &Message) -> Option<usize> {
        contract::note_encoded("fsm_transitions", Encoded::Message(*message));
        self.body()
    }

    fn shorten(&mut self, body: &usize, bytes_max: usize) -> Option<usize> {
        (self.calm || self.one_of(8) > 0).then(|| body.size_bytes().min(bytes_max))
    }
}

impl ByteSource for Host {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        self.held.get(&stream).cloned().unwrap_or_default()
    }

    fn cut(&mut self, stream: StreamKey, cut: Chunk) -> (usize, Option<usize>) {
        let (from, max) = match cut {
            Chunk::Bytes { from, max } => (from, max),
            Chunk::Snapshot { max, .. } => return (max, Some(max + 100)),
        };
        let end = self.held(stream).end;
        let there = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX).min(max);
        let bytes = if self.calm || self.one_of(4) > 0 { there } else { there / 2 };
        (bytes, (bytes > 0).then_some(bytes + 100))
    }

    fn snapshot(&mut self, session: SessionKey, from: u64, _size: Option<(u16, u16)>) -> MadeSnapshot {
        let end = self.held(StreamKey::Terminal(session)).end;
        let at = if self.calm || self.one_of(4) > 0 { from } else { end.max(from) };
        MadeSnapshot { at, bytes: 100 << self.one_of(8), exact: self.one_of(2) > 0 }
    }
}

/// The host of the driver that takes over: it has what was given, and nothing else.
pub(super) struct NextHost {
    held: BTreeMap<StreamKey, Range<u64>>,
    /// By the numbers of their messages.
    bodies: BTreeMap<u64, usize>,
}

impl NextHost {
    pub(super) const fn new(held: BTreeMap<StreamKey, Range<u64>>) -> Self {
        Self { held, bodies: BTreeMap::new() }
    }

    /// Keeps the body of a message that was given.
    pub(super) fn keep(&mut self, what: &TakenOver, body: Option<usize>) {
        if let (TakenOver::Message { number, .. } | TakenOver::Result { number: Some(number), .. }, Some(body)) =
            (what, body)
        {
            self.bodies.insert(*number, body);
        }
    }
}

impl Encode for NextHost {
    type Body = usize;

    fn encode(&mut self, message: &Message) -> Option<usize> {
        match message {
            Message::Restored { number } => self.bodies.remove(number),
            _ => Some(300),
        }
    }

    fn shorten(&mut self, body: &usize, bytes_max: usize) -> Option<usize> {
        Some((*body).min(bytes_max))
    }
}

impl ByteSource for NextHost {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        self.held.get(&stream).cloned().unwrap_or_default()
    }
}
