//! A host whose answers to the driver come from the input, within the contract of the two traits.

use crate::contract;
use draupnir_fsm::driver::{Body, ByteSource, Chunk, Encode, MadeSnapshot, Message, SessionKey, StreamKey};
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
