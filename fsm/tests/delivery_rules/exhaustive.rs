//! Every short life of a stream: offsets, gaps and acknowledgements beside a model of what the console has.

use super::{T, U};
use draupnir_fsm::delivery::{Chunk, Delivery, LinkEnd, OutboundFrame};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::order::Gate;
use draupnir_fsm::time::Time;

/// How many steps a life has.
const STEPS: usize = 7;

/// A stream of at most 32 bytes; sets of bytes are numbers.
#[derive(Clone)]
struct Life {
    ledger: Delivery<()>,
    link: LinkId,
    end: u64,
    retained: u64,
    /// What the console has read.
    seen: u32,
    /// What was reported lost.
    lost: u32,
}

fn bits(from: u64, to: u64) -> u32 {
    (from..to).map(|place| 1 << place).sum()
}

impl Life {
    fn new() -> Self {
        let mut life = Self { ledger: Delivery::new(), link: LinkId(0), end: 0, retained: 0, seen: 0, lost: 0 };
        life.ledger.open_stream(T);
        life.ledger.open_stream(U);
        life.connect();
        life
    }

    fn connect(&mut self) {
        self.link = self.link.next();
        self.ledger.link_opened(Time::START, self.link);
        self.ledger.open_gate(Time::START, Gate::All);
    }

    /// Sends at most one frame of at most so many bytes, and the Pings before it.
    fn send(&mut self, at_most: usize) -> bool {
        while let Some(frame) = self.ledger.next(Time::START) {
            match frame {
                OutboundFrame::Ping { .. } => {}
                OutboundFrame::Stream { cut: Chunk::Bytes { from, max }, .. } => {
                    let bytes = max.min(at_most);
                    self.ledger.cut(bytes);
                    self.seen |= bits(from, from + bytes as u64);
                    return true;
                }
                other => panic!("{other:?}"),
            }
        }
        false
    }

    fn acknowledge(&mut self) {
        self.ledger.request_ping();
        let Some(OutboundFrame::Ping { payload, .. }) = self.ledger.next(Time::START) else {
            panic!("a Ping goes first");
        };
        assert!(self.ledger.pong(Time::START, self.link, &payload).is_some());
    }

    fn step(&mut self, number: usize) {
        match number {
            0 | 1 => {
                self.end += 1 + number as u64;
                self.ledger.grew(T, self.end);
            }
            2 => {
                self.retained = self.end.min(self.retained + 1);
                self.ledger.discarded(T, self.retained);
            }
            3 => drop(self.send(1)),
            4 => self.acknowledge(),
            _ => {
                self.ledger.link_closed(Time::START, LinkEnd::Broken);
                self.connect();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        while let Some(gap) = self.ledger.take_gap() {
            assert_eq!(gap.lost_bytes, gap.to - gap.from, "all in a row");
            assert!(gap.to <= self.retained, "{gap:?} is still held from {}", self.retained);
            self.lost |= bits(gap.from, gap.to);
        }
        let at = self.ledger.position(T).expect("it is open");
        assert!(at.acked <= at.sent && at.sent <= at.end && at.end == self.end, "{at:?}");
        let missing = bits(0, at.acked) & !(self.seen | self.lost);
        assert_eq!(missing, 0, "{at:?} counts bytes as delivered that are not");
    }
}

fn live(life: &Life, steps: usize, lives: &mut u32) {
    if steps == 0 {
        let mut last = life.clone();
        while last.send(usize::MAX) {}
        last.acknowledge();
        // What was gone while something was under way is skipped only now.
        while last.send(usize::MAX) {}
        last.acknowledge();
        last.check();
        assert_eq!(last.seen | last.lost, bits(0, last.end), "all bytes arrive or are reported");
        assert!(last.ledger.is_settled());
        *lives += 1;
        return;
    }
    for number in 0..6 {
        let mut next = life.clone();
        next.step(number);
        live(&next, steps - 1, lives);
    }
}

/// Domain: every sequence of seven steps: the source grows by one byte or two, drops its oldest, a byte is sent, all is
/// acknowledged, the link breaks.
#[test]
fn every_short_life_delivers_or_reports_each_byte() {
    let mut lives = 0;
    live(&Life::new(), STEPS, &mut lives);
    assert_eq!(lives, 6_u32.pow(u32::try_from(STEPS).expect("few")));
}
