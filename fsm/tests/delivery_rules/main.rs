//! Tests each rule of the ledger by its public interface.

mod exhaustive;
mod pings;
mod reliable;
mod schedule;
mod streams;

use draupnir_fsm::delivery::ping::{Payload, Purpose};
use draupnir_fsm::delivery::{
    Ack, After, Chunk, Delivery, Kind, LinkEnd, OutboundFrame, PushError, Reliable, StateKind, StreamKey,
};
use draupnir_fsm::id::{LinkId, SessionKey};
use draupnir_fsm::order::Gate;
use draupnir_fsm::time::Time;

const T: StreamKey = StreamKey::Terminal(SessionKey(1));
const U: StreamKey = StreamKey::Terminal(SessionKey(2));
const V: StreamKey = StreamKey::Terminal(SessionKey(3));

/// A sent frame, in a form to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Ping(Purpose, Payload),
    State(StateKind, &'static str),
    Message(&'static str),
    Bytes(StreamKey, u64, u64),
    Snapshot(StreamKey, u64, u64),
}

/// A ledger on a link whose writer takes everything.
struct Bench {
    ledger: Delivery<&'static str>,
    now: Time,
    link: LinkId,
}

impl Bench {
    fn offline() -> Self {
        Self { ledger: Delivery::new(), now: Time::START, link: LinkId(0) }
    }

    fn online() -> Self {
        let mut bench = Self::offline();
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        self.link = self.link.next();
        self.ledger.link_opened(self.now, self.link);
        self.ledger.open_gate(self.now, Gate::All);
    }

    fn cut(&mut self) {
        assert_eq!(self.ledger.link_closed(self.now, LinkEnd::Broken), None);
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        assert_eq!(self.ledger.tick(self.now), None);
    }

    fn push(&mut self, kind: Kind, body: &'static str) -> u64 {
        self.push_after(kind, body, After::NOTHING)
    }

    fn push_after(&mut self, kind: Kind, body: &'static str, after: After) -> u64 {
        let message = Reliable { kind, size_bytes: 100, after, promised: false };
        self.ledger.push(message, body).expect("there is room").number
    }

    fn push_size(&mut self, kind: Kind, size_bytes: usize, promised: bool) -> Result<u32, PushError> {
        let message = Reliable { kind, size_bytes, after: After::NOTHING, promised };
        self.ledger.push(message, "x").map(|pushed| pushed.displaced)
    }

    fn open(&mut self, stream: StreamKey, bytes: u64) {
        self.ledger.open_stream(stream);
        self.ledger.grew(stream, bytes);
    }

    fn next(&mut self) -> Option<Sent> {
        self.next_cutting(usize::MAX)
    }

    fn next_cutting(&mut self, at_most: usize) -> Option<Sent> {
        let (stream, cut) = match self.ledger.next(self.now)? {
            OutboundFrame::Ping { payload, purpose } => return Some(Sent::Ping(purpose, payload)),
            OutboundFrame::State { kind, body } => return Some(Sent::State(kind, body)),
            OutboundFrame::Reliable { body, .. } => return Some(Sent::Message(body)),
            OutboundFrame::Stream { stream, cut } => (stream, cut),
        };
        Some(match cut {
            Chunk::Snapshot { from, max } => {
                let bytes = max.min(at_most);
                self.ledger.cut(bytes);
                Sent::Snapshot(stream, from, from + bytes as u64)
            }
            Chunk::Bytes { from, max } => {
                let bytes = max.min(at_most);
                self.ledger.cut(bytes);
                let to = from + bytes as u64;
                Sent::Bytes(stream, from, to)
            }
        })
    }

    /// Everything that can be sent now, Pings left out.
    fn drain(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(one) = self.next() {
            if !matches!(one, Sent::Ping(..)) {
                sent.push(one);
            }
        }
        sent
    }

    /// A keep-alive Ping, now.
    fn ping(&mut self) -> Payload {
        self.ledger.request_ping();
        match self.next() {
            Some(Sent::Ping(Purpose::KeepAlive, payload)) => payload,
            other => panic!("a ping goes first, not {other:?}"),
        }
    }

    fn pong(&mut self, payload: &[u8]) -> Option<Ack> {
        self.ledger.pong(self.now, self.link, payload)
    }

    fn acknowledge_all(&mut self) {
        let payload = self.ping();
        self.pong(&payload).expect("an answer");
    }
}
