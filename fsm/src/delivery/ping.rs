//! The payload of our Pings, and which of them are unanswered: what turns a Pong into an acknowledgement.
//!
//! It does not know what was sent: a Ping carries only how many frames were put on its link before it. A Pong counts if
//! it repeats, byte for byte, a Ping of this link that is still unanswered; it answers the earlier ones too, since a
//! peer may answer only the latest (RFC 6455, section 5.5.3). Every other Pong is foreign and ignored.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | `0xD7`: a Ping of this agent |
//! | 1 | version (1) in the upper four bits; in the lower, 1 for a keep-alive, 2 for a marker |
//! | 2–5 | number of the link, big-endian |
//! | 6–9 | number of the Ping on its link, from 1, big-endian |
//! | 10–15 | how many reliable frames and stream frames of this link went before it, big-endian |

use crate::id::LinkId;
use crate::time::Time;
use alloc::collections::VecDeque;
use core::hash::{Hash, Hasher};

/// How long the payload of a Ping is, in bytes; RFC 6455 allows 125.
pub const PAYLOAD_BYTES: usize = 16;

/// The payload of a Ping.
pub type Payload = [u8; PAYLOAD_BYTES];

/// How many Pings may be unanswered before markers wait: enough for a full window with its sixteen, twice over.
const MARKERS_MAX: usize = 32;

/// How many Pings are remembered: markers, and the keep-alives that are sent regardless.
const PINGS_MAX: usize = MARKERS_MAX + 8;

const MAGIC: u8 = 0xD7;
const VERSION: u8 = 1;
const FRAMES_MAX: u64 = (1 << 48) - 1;

/// What a Ping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The machine asks whether the link is alive.
    KeepAlive,
    /// The ledger asks how far the console has read.
    Marker,
}

/// The unanswered Pings of one link.
#[derive(Clone, Debug)]
pub(super) struct Pings {
    link: LinkId,
    issued: u32,
    unanswered: VecDeque<Ping>,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    payload: Payload,
    frames: u64,
    issued_at: Time,
    /// Its number on its link.
    number: u32,
}

/// What a Pong says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Up to which frame it acknowledges.
    pub(super) frames: u64,
    /// When its Ping was issued.
    pub(super) issued_at: Time,
    /// The number of its Ping.
    pub(super) number: u32,
}

impl Pings {
    /// No Ping yet.
    pub(super) const fn new(link: LinkId) -> Self {
        Self { link, issued: 0, unanswered: VecDeque::new() }
    }

    /// May a marker be sent, or are too many unanswered?
    pub(super) fn room_for_marker(&self) -> bool {
        self.unanswered.len() < MARKERS_MAX
    }

    /// A new Ping, `frames` frames after the link opened. The oldest is forgotten when too many are unanswered: a later
    /// Pong says as much.
    pub(super) fn issue(&mut self, now: Time, purpose: Purpose, frames: u64) -> Payload {
        self.issued = self.issued.wrapping_add(1);
        let payload = encode(purpose, self.link, self.issued, frames);
        if self.unanswered.len() == PINGS_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Ping { payload, frames, issued_at: now, number: self.issued });
        payload
    }

    /// What a Pong says, if it answers a Ping of ours.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Option<Answer> {
        // A payload of another length equals none of ours.
        let place = self.unanswered.iter().position(|ping| ping.payload == *payload)?;
        let Ping { frames, issued_at, number, .. } = *self.unanswered.get(place)?;
        self.unanswered.drain(..=place);
        Some(Answer { frames, issued_at, number })
    }

    /// How many Pings are unanswered.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Time that the process did not live through does not count.
    pub(super) fn shift_ms(&mut self, ms: u64) {
        for ping in &mut self.unanswered {
            ping.issued_at = ping.issued_at.after_ms(ms);
        }
    }

    /// The number of the newest Ping.
    pub(super) const fn issued(&self) -> u32 {
        self.issued
    }
}

/// Those that are unanswered have the newest numbers of their link in a row: how many there are says which.
impl Hash for Pings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { link, issued: _, unanswered } = self;
        link.hash(state);
        state.write_usize(unanswered.len());
        unanswered
            .iter()
            .for_each(|Ping { payload, frames, issued_at, number: _ }| (payload[1], frames, issued_at).hash(state));
    }
}

fn encode(purpose: Purpose, link: LinkId, number: u32, frames: u64) -> Payload {
    let purpose = match purpose {
        Purpose::KeepAlive => 1,
        Purpose::Marker => 2,
    };
    let mut payload = [0; PAYLOAD_BYTES];
    payload[0] = MAGIC;
    payload[1] = VERSION << 4 | purpose;
    payload[2..6].copy_from_slice(&link.0.to_be_bytes());
    payload[6..10].copy_from_slice(&number.to_be_bytes());
    payload[10..].copy_from_slice(&frames.min(FRAMES_MAX).to_be_bytes()[2..]);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_remembered_and_the_oldest_is_forgotten_first() {
        let mut pings = Pings::new(LinkId(1));
        let payloads: alloc::vec::Vec<_> =
            (0..50).map(|frames| pings.issue(Time::from_ms(frames), Purpose::KeepAlive, frames)).collect();
        assert_eq!(pings.unanswered(), 40);
        let answer = |frames: u32| {
            let issued_at = Time::from_ms(frames.into());
            Some(Answer { frames: frames.into(), issued_at, number: frames + 1 })
        };
        assert_eq!((pings.answer(&payloads[9]), pings.answer(&payloads[10])), (None, answer(10)));
        assert_eq!(pings.answer(&payloads[49]), answer(49));
        assert_eq!(pings.unanswered(), 0);
    }

    #[test]
    fn markers_leave_room_for_keep_alives() {
        let mut pings = Pings::new(LinkId(1));
        for issued in 0..32 {
            assert!(pings.room_for_marker(), "{issued}");
            pings.issue(Time::START, Purpose::Marker, 0);
        }
        assert!(!pings.room_for_marker());
    }

    /// Domain: every value of every byte of a payload.
    #[test]
    fn no_payload_with_another_byte_is_an_answer() {
        let mut pings = Pings::new(LinkId(0x0102_0304));
        let payload = pings.issue(Time::from_ms(1), Purpose::Marker, 0x0506_0708_090A);
        for (place, value) in (0..PAYLOAD_BYTES).flat_map(|place| (0..=u8::MAX).map(move |value| (place, value))) {
            let mut other = payload;
            other[place] = value;
            let answer = pings.clone().answer(&other).map(|answer| answer.frames);
            assert_eq!(answer, (other == payload).then_some(0x0506_0708_090A), "byte {place}: {value}");
        }
        for bytes in 0..PAYLOAD_BYTES {
            assert_eq!(pings.clone().answer(&payload[..bytes]), None, "{bytes} bytes");
        }
    }
    /// Domain: each purpose; links, numbers and frames whose bits are the lowest so many, one, or all but one.
    #[test]
    fn every_field_stands_at_its_place() {
        let values = |bits: u32| {
            let all = u64::MAX >> (64 - bits);
            let ones = (0..bits).flat_map(move |bit| [1 << bit, (1 << bit) - 1, all ^ 1 << bit]);
            ones.chain([all])
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        for (purpose, sign) in [(Purpose::KeepAlive, 0x11), (Purpose::Marker, 0x12)] {
            for link in values(32) {
                let id = LinkId(u32::try_from(link).expect("32 bits"));
                for (issued, frames) in values(32).zip(values(48).cycle()).chain(values(48).map(|frames| (1, frames))) {
                    let payload = encode(purpose, id, u32::try_from(issued).expect("32 bits"), frames);
                    assert_eq!(payload[..2], [0xD7, sign]);
                    let read = [&payload[2..6], &payload[6..10], &payload[10..]].map(number);
                    assert_eq!(read, [link, issued, frames]);
                }
            }
        }
        let beyond = encode(Purpose::Marker, LinkId(1), 1, u64::MAX);
        assert_eq!(beyond[10..], [0xFF; 6], "what has no room is the most that has");
    }

    /// Domain: every number of Pings up to two more than are remembered, each of them answered, and then each other.
    #[test]
    fn every_pong_answers_its_ping_and_those_before() {
        for count in 0..=PINGS_MAX + 2 {
            let mut pings = Pings::new(LinkId(1));
            let frames = |place: usize| 1_000 + place as u64;
            let issue = |place| pings.issue(Time::from_ms(place as u64), Purpose::Marker, frames(place));
            let payloads: alloc::vec::Vec<_> = (0..count).map(issue).collect();
            let oldest = count.saturating_sub(PINGS_MAX);
            for (first, second) in (0..count).flat_map(|first| (0..count).map(move |second| (first, second))) {
                let mut left = pings.clone();
                let answered = left.answer(&payloads[first]).map(|answer| answer.frames);
                assert_eq!(answered, (first >= oldest).then(|| frames(first)), "{first} of {count}");
                let answered = left.answer(&payloads[second]).map(|answer| answer.frames);
                let is_left = second >= oldest && (first < oldest || second > first);
                assert_eq!(answered, is_left.then(|| frames(second)), "{first}, then {second} of {count}");
            }
        }
    }
}
