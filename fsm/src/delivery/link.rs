//! The link that is up: its gate, its Pings, what is under way on it, and what a Pong does to that.
//!
//! It does not choose frames. All its state ends with the link.

use super::path::PathModel;
use super::ping::Pings;
use super::schedule::{RoundRobin, STATE_KINDS};
use super::stall::Write;
use super::stream::{Chunk, Stream, StreamKey};
use super::{Delivery, Poison, is_sent};
use crate::id::LinkId;
use crate::order::Gate;
use crate::time::Time;
use alloc::collections::VecDeque;
use core::hash::{Hash, Hasher};

/// The most that should be handed to the socket at once, in bytes: as much as keeps it busy while the loop turns.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// A batch is this part of the link's window.
const BATCHES_IN_WINDOW: u64 = 8;

/// How a link ended: whether the console may have rejected a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The console closed it with this code.
    Closed {
        /// The close code.
        code: u16,
    },
    /// In any other way.
    Broken,
}

impl LinkEnd {
    /// Unsupported data, invalid text, too big: the console could not take what it was sent.
    const fn rejects_a_message(self) -> bool {
        matches!(self, Self::Closed { code: 1003 | 1007 | 1009 })
    }
}

/// What a Pong acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// No other Ping of this link is unanswered.
    pub last: bool,
    /// How many reliable messages the console is now known to have.
    pub messages: u32,
    /// How many frames of streams.
    pub frames: u32,
    /// How long the answer took from when the Ping was handed out, in milliseconds.
    pub round_trip_ms: u64,
}

/// What is known of the link that is up.
#[derive(Clone, Debug)]
pub(super) struct Link<M> {
    pub(super) number: LinkId,
    pub(super) gate: Option<Gate>,
    pub(super) pings: Pings,
    pub(super) state: [Option<M>; STATE_KINDS],
    pub(super) keep_alive_wanted: bool,
    /// What was sent and is not acknowledged, in the order in which it was.
    pub(super) flights: VecDeque<Flight>,
    /// How many of them are reliable messages.
    pub(super) messages_in_flight: usize,
    /// How many reliable messages were sent on it.
    pub(super) messages_sent: u32,
    pub(super) frames_sent: u64,
    pub(super) frames_acked: u64,
    /// Frames sent when the newest Ping was.
    pub(super) frames_marked: u64,
    pub(super) unmarked_bytes: u64,
    pub(super) unmarked_since: Option<Time>,
    pub(super) marker_wanted: bool,
    /// Encoded bytes of streams under way.
    pub(super) in_flight: u64,
    pub(super) path: PathModel,
    pub(super) turns: RoundRobin,
    /// The stream frame that was handed out and not yet cut.
    pub(super) uncut: Option<(StreamKey, Chunk)>,
    pub(super) write: Option<Write>,
}

/// One frame that an acknowledgement will be for.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Flight {
    Message(u64),
    Bytes { stream: StreamKey, to: u64, encoded: u64 },
    SnapshotEnd { stream: StreamKey, encoded: u64 },
}

impl<M: Hash> Hash for Link<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { number, gate, pings, state: messages, keep_alive_wanted, flights, messages_in_flight, .. } = self;
        let Self { messages_sent, frames_sent, frames_acked, frames_marked, unmarked_bytes, unmarked_since, .. } = self;
        let Self { marker_wanted, in_flight, path, turns, uncut, write, .. } = self;
        (number, gate, pings, messages, keep_alive_wanted, flights, messages_in_flight).hash(state);
        (messages_sent, frames_sent, frames_acked, frames_marked, unmarked_bytes, unmarked_since).hash(state);
        (marker_wanted, in_flight, path, turns, uncut, write).hash(state);
        path.hash_times(*in_flight, state);
    }
}

impl<M> Link<M> {
    fn new(number: LinkId) -> Self {
        Self {
            number,
            gate: None,
            pings: Pings::new(number),
            state: [const { None }; STATE_KINDS],
            keep_alive_wanted: false,
            flights: VecDeque::new(),
            messages_in_flight: 0,
            messages_sent: 0,
            frames_sent: 0,
            frames_acked: 0,
            frames_marked: 0,
            unmarked_bytes: 0,
            unmarked_since: None,
            marker_wanted: false,
            in_flight: 0,
            path: PathModel::default(),
            turns: RoundRobin::default(),
            uncut: None,
            write: None,
        }
    }

    /// How much may be under way on it, in encoded bytes.
    pub(super) fn window(&self) -> u64 {
        self.path.window()
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.window()
    }
}

/// The link.
impl<M> Delivery<M> {
    /// A link is up. Everything unacknowledged will be sent on it, once its gate is open.
    pub fn link_opened(&mut self, now: Time, link: LinkId) {
        self.link_closed(now, LinkEnd::Broken);
        self.link = Some(Link::new(link));
        self.each_stream(Stream::reconnected);
        let streams = &self.streams;
        self.queue.start_over(|stream, end| is_sent(streams, stream, end));
    }

    /// The link may carry these messages from now on. A Pong acknowledges nothing that went before.
    pub fn open_gate(&mut self, now: Time, gate: Gate) {
        self.see(now);
        if let Some(link) = &mut self.link {
            link.gate = link.gate.max(Some(gate));
        }
    }

    /// The link is gone, and with it the state messages and every Ping. Returns a message that has now ended so many
    /// links that it must be the cause.
    pub fn link_closed(&mut self, now: Time, end: LinkEnd) -> Option<Poison> {
        self.see(now);
        let link = self.link.take()?;
        self.each_stream(Stream::forget_link);
        self.starved.clear();
        if !end.rejects_a_message() {
            self.queue.clear_suspect();
            return None;
        }
        // The first that was sent: one that waited for its stream has a lower number and was sent later.
        let first = link.flights.iter().find_map(|flight| match flight {
            Flight::Message(number) if self.queue.contains(*number) => Some(*number),
            Flight::Message(_) | Flight::Bytes { .. } | Flight::SnapshotEnd { .. } => None,
        });
        self.queue.record_rejection(first)
    }

    /// Is a link up?
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// Is a link up and its gate open for these messages?
    pub fn is_open(&self, gate: Gate) -> bool {
        self.link.as_ref().is_some_and(|link| link.gate >= Some(gate))
    }

    /// A Pong arrived. `None` where it answers no Ping of this link that is unanswered: it is foreign, or a repeat.
    pub fn pong(&mut self, now: Time, link: LinkId, payload: &[u8]) -> Option<Ack> {
        self.see(now);
        let current = self.link.as_mut().filter(|current| current.number == link)?;
        let answer = current.pings.answer(payload)?;
        let round_trip_ms = now.ms_since(answer.issued_at);
        let mut ack = Ack { last: current.pings.unanswered() == 0, messages: 0, frames: 0, round_trip_ms };
        while let Some(flight) = self.next_acknowledged(answer.frames) {
            match flight {
                Flight::Message(number) => {
                    ack.messages += 1;
                    self.queue.acknowledged(number);
                }
                Flight::Bytes { stream, to, encoded } => {
                    ack.frames += 1;
                    self.bytes_acknowledged(stream, to, encoded);
                }
                Flight::SnapshotEnd { stream, encoded } => {
                    ack.frames += 1;
                    if let Some(entry) = self.streams.get_mut(&stream) {
                        entry.snapshot_acknowledged();
                    }
                    self.bytes_acknowledged(stream, 0, encoded);
                }
            }
        }
        if let Some(link) = &mut self.link {
            link.path.ponged(now, answer.number, answer.issued_at, link.in_flight);
        }
        self.feed_starved();
        Some(ack)
    }

    /// How many Pings of this link are unanswered, those that are yet to be written among them.
    pub fn unanswered_pings(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.pings.unanswered())
    }

    /// A batch of frames was handed to the socket, which has taken `bytes_written` bytes of this link so far.
    pub fn write_started(&mut self, now: Time, bytes_written: u64) {
        self.see(now);
        if let Some(link) = &mut self.link {
            link.write = Some(Write::started(now, bytes_written));
        }
    }

    /// How many bytes the socket has taken by now; reported before every [`tick`](Self::tick).
    pub fn write_progress(&mut self, now: Time, bytes_written: u64) {
        if let Some(write) = self.link.as_mut().and_then(|link| link.write.as_mut()) {
            write.progress(now, bytes_written);
        }
    }

    /// The socket has taken the whole batch.
    pub fn written(&mut self) {
        if let Some(link) = &mut self.link {
            link.write = None;
        }
    }

    /// How many bytes of frames should go to the socket at once: what comes later cannot overtake them, so that on a
    /// slow link they are few.
    pub fn batch_bytes(&self) -> usize {
        let window = self.link.as_ref().map_or(0, Link::window);
        usize::try_from(window / BATCHES_IN_WINDOW).map_or(BATCH_BYTES_MAX, |bytes| bytes.min(BATCH_BYTES_MAX))
    }

    /// Is a batch under way?
    pub fn is_writing(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.write.is_some())
    }

    /// Lets time pass. Returns, once, the link whose socket has taken nothing for
    /// [`WRITE_STALL_MS`](super::WRITE_STALL_MS).
    pub fn tick(&mut self, now: Time) -> Option<LinkId> {
        self.see(now);
        let link = self.link.as_mut()?;
        let stalled = link.write.as_mut().is_some_and(|write| write.take_stalled(now));
        stalled.then_some(link.number)
    }

    /// When [`tick`](Self::tick) and [`next`](Self::next) should be asked again at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let link = self.link.as_ref()?;
        let check = link.write.as_ref().and_then(Write::next_check);
        let marker = (check.is_none()).then(|| link.marker_due()).flatten();
        check.into_iter().chain(marker).min()
    }

    /// Moves every deadline `ms` later: time that the process did not live through does not count.
    pub fn shift_ms(&mut self, ms: u64) {
        if let Some(link) = &mut self.link {
            link.unmarked_since = link.unmarked_since.map(|since| since.after_ms(ms));
            link.pings.shift_ms(ms);
            link.path.shift_ms(ms);
            if let Some(write) = &mut link.write {
                write.shift_ms(ms);
            }
        }
    }
}

impl<M> Delivery<M> {
    /// The oldest frame under way, if it is one of the first `frames` of this link.
    fn next_acknowledged(&mut self, frames: u64) -> Option<Flight> {
        let link = self.link.as_mut()?;
        if link.frames_acked >= frames {
            return None;
        }
        let flight = link.flights.pop_front()?;
        link.messages_in_flight -= usize::from(matches!(flight, Flight::Message(_)));
        link.frames_acked += 1;
        Some(flight)
    }

    fn bytes_acknowledged(&mut self, stream: StreamKey, to: u64, encoded: u64) {
        if let Some(link) = &mut self.link {
            link.in_flight = link.in_flight.saturating_sub(encoded);
            link.path.acknowledged(self.now, encoded);
        }
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.acknowledged(to, encoded);
            self.refresh(stream);
            self.unblock(stream);
        }
    }
}
