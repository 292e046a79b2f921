//! Which frame is next: control, then what is reliable, then interactive output, then logs, then bulk.
//!
//! It does not encode, and does not know how long a batch is. Within a class streams take turns; one frame of bulk goes
//! after [`OTHERS_BEFORE_BULK`] others even when those never end. A `closed` or a final result waits for the bytes of
//! its own stream, in the queue.

use super::link::{Flight, Link};
use super::ping::{Payload, Purpose};
use super::stream::{Chunk, Class, Snapshot, StreamKey, encoded_bytes};
use super::{Delivery, FRAME_BYTES_MAX, MARKER_BYTES, MARKER_MS, MARKERS_IN_WINDOW, STREAM_MARKER_BYTES_MIN, is_sent};
use crate::id::SessionKey;
use crate::order::Gate;
use crate::time::Time;
use core::ops::Bound;
use serde::{Deserialize, Serialize};

/// How many frames of other kinds may pass one of bulk.
pub(super) const OTHERS_BEFORE_BULK: u32 = 64;

/// A frame is at most this part of its stream's window: on a slow link one frame must not take a second.
const FRAMES_IN_WINDOW: u64 = 8;

/// The least that a frame may be cut to, in bytes.
const FRAME_BYTES_MIN: usize = 4 << 10;

/// How many messages of a link wait for each other's Pong after a link that ended over one. The culprit is most likely
/// among the oldest; more would hold everything up on a slow way.
const MESSAGES_ALONE_MAX: u32 = 16;

/// How many kinds of state there are.
pub(super) const STATE_KINDS: usize = 3;

/// A message that describes the present, so that only the newest counts; sent in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// `registration`
    Registration,
    /// `heartbeat`
    Heartbeat,
    /// `metrics`
    Metrics,
}

/// The next frame for the link.
#[derive(Debug, PartialEq, Eq)]
pub enum OutboundFrame<'a, M> {
    /// A Ping with this payload.
    Ping {
        /// Its payload.
        payload: Payload,
        /// What it is for.
        purpose: Purpose,
    },
    /// A state message; the ledger does not keep it.
    State {
        /// What it is.
        kind: StateKind,
        /// Its body.
        body: M,
    },
    /// A reliable message.
    Reliable {
        /// Its number.
        number: u64,
        /// Its body.
        body: &'a M,
    },
    /// Bytes of a stream. The owner cuts them from the source and says with [`cut`](Delivery::cut) how many they were,
    /// before it asks again.
    Stream {
        /// The stream.
        stream: StreamKey,
        /// What to cut.
        cut: Chunk,
    },
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct RoundRobin {
    interactive: Option<StreamKey>,
    bulk: Option<StreamKey>,
    /// What went out since, while a stream of bulk waited.
    others_since_bulk: u32,
}

enum Choice {
    Ping(Purpose),
    State(StateKind),
    Reliable(u64),
    Stream(Class, StreamKey, Chunk),
}

impl<M> Link<M> {
    /// When the next marker is due; `None` while nothing waits for one, or too many are unanswered.
    pub(super) fn marker_due(&self) -> Option<Time> {
        if !self.pings.room_for_marker() {
            return None;
        }
        let since = self.unmarked_since?;
        if self.marker_wanted || self.unmarked_bytes >= MARKER_BYTES.max(self.window() / MARKERS_IN_WINDOW) {
            Some(since)
        } else {
            Some(since.after_ms(MARKER_MS))
        }
    }

    fn sent(&mut self, now: Time, flight: Flight, bytes: u64) {
        self.unmarked_since.get_or_insert(now);
        self.unmarked_bytes += bytes;
        if let (
            Some(Flight::Bytes { stream: last, to: last_to, encoded: last_encoded }),
            Flight::Bytes { stream, to, encoded },
        ) = (self.flights.back_mut(), flight)
            && *last == stream
            && self.frames_marked < self.frames_sent
        {
            // No Ping went between them, so that they can only be acknowledged together.
            *last_to = to.max(*last_to);
            *last_encoded += encoded;
            return;
        }
        if let Flight::Message(_) = flight {
            self.messages_in_flight += 1;
            self.messages_sent = self.messages_sent.saturating_add(1);
        }
        self.flights.push_back(flight);
        self.frames_sent += 1;
    }

    fn ping(&mut self, now: Time, purpose: Purpose) -> Payload {
        self.frames_marked = self.frames_sent;
        self.unmarked_bytes = 0;
        self.unmarked_since = None;
        self.marker_wanted = false;
        let payload = self.pings.issue(now, purpose, self.frames_sent);
        self.path.pinged(self.pings.issued(), self.in_flight);
        payload
    }
}

impl<M> Delivery<M> {
    /// Puts a state message in the place of an older one of its kind. False without a link: it is not kept.
    pub fn set_state(&mut self, kind: StateKind, body: M) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        link.state[kind as usize] = Some(body);
        true
    }

    /// Asks for a keep-alive Ping; it goes before everything else.
    pub fn request_ping(&mut self) {
        if let Some(link) = &mut self.link {
            link.keep_alive_wanted = true;
        }
    }

    /// The agent stops, and waits for nothing but acknowledgements: from now on a marker follows the last frame at
    /// once.
    pub fn begin_drain(&mut self) {
        self.draining = true;
    }

    /// The next frame for the link, in the order in which they must be written; `None` while there is none to send.
    pub fn next(&mut self, now: Time) -> Option<OutboundFrame<'_, M>> {
        self.see(now);
        let choice = self.choose()?;
        let bulk_waits = self.runnable.last().is_some_and(|(class, _)| *class == Class::Bulk);
        let link = self.link.as_mut()?;
        if matches!(choice, Choice::Stream(Class::Bulk, ..)) {
            link.turns.others_since_bulk = 0;
        } else if bulk_waits {
            link.turns.others_since_bulk += 1;
        }
        match choice {
            Choice::Ping(purpose) => {
                if purpose == Purpose::KeepAlive {
                    link.keep_alive_wanted = false;
                }
                Some(OutboundFrame::Ping { payload: link.ping(now, purpose), purpose })
            }
            Choice::State(kind) => {
                let body = link.state.get_mut(kind as usize)?.take()?;
                Some(OutboundFrame::State { kind, body })
            }
            Choice::Reliable(number) => {
                let size = self.queue.size(number);
                link.sent(self.now, Flight::Message(number), size);
                // Each waits for its own Pong.
                link.marker_wanted |= self.queue.has_suspect();
                let body = self.queue.send(number)?;
                Some(OutboundFrame::Reliable { number, body })
            }
            Choice::Stream(_, stream, cut) => {
                link.uncut = Some((stream, cut));
                Some(OutboundFrame::Stream { stream, cut })
            }
        }
    }

    /// Says how many bytes were cut for the stream frame that [`next`](Self::next) gave last. With none (all that is
    /// left is the beginning of a character) no frame is sent, and the stream waits until it [grew](Self::grew).
    pub fn cut(&mut self, bytes: usize) {
        let (now, share) = (self.now, self.share());
        let Some(link) = &mut self.link else {
            return;
        };
        let Some((stream, cut)) = link.uncut.take() else {
            return;
        };
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        let bytes = bytes as u64;
        let to = entry.cut(cut, bytes);
        let ends_snapshot =
            matches!(cut, Chunk::Snapshot { .. }) && matches!(entry.snapshot, Some(Snapshot::Unconfirmed { .. }));
        let frame = bytes > 0 || ends_snapshot;
        if frame {
            let encoded = encoded_bytes(bytes);
            entry.in_flight += encoded;
            link.in_flight += encoded;
            link.path.sent(now, encoded, link.in_flight, entry.waiting() * self.busy_streams.max(1));
            let ping = link.pings.issued();
            let unmarked = if entry.unmarked.0 == ping { entry.unmarked.1 + encoded } else { encoded };
            entry.unmarked = (ping, unmarked);
            // Half a window without a marker: the other half must not run out before the Pong is back. And what a Pong
            // lets go at once should be little beside the queue.
            link.marker_wanted |= unmarked >= entry.window(share) / 2;
            let marker_bytes = (link.window() / MARKERS_IN_WINDOW).max(STREAM_MARKER_BYTES_MIN);
            link.marker_wanted |= link.unmarked_bytes + encoded >= marker_bytes;
            link.marker_wanted |= link.path.wants_ping(link.in_flight);
            // Another console may wait for its own.
            link.marker_wanted |= ends_snapshot;
            let flight = if ends_snapshot {
                Flight::SnapshotEnd { stream, encoded }
            } else {
                Flight::Bytes { stream, to, encoded }
            };
            link.sent(now, flight, encoded);
        }
        self.refresh(stream);
        self.unblock(stream);
    }

    fn choose(&mut self) -> Option<Choice> {
        let link = self.link.as_mut()?;
        // What was handed out and never cut was not sent.
        link.uncut = None;
        if link.keep_alive_wanted {
            return Some(Choice::Ping(Purpose::KeepAlive));
        }
        if link.marker_due().is_some_and(|due| due <= self.now) {
            return Some(Choice::Ping(Purpose::Marker));
        }
        if link.gate >= Some(Gate::State) {
            for kind in [StateKind::Registration, StateKind::Heartbeat, StateKind::Metrics] {
                if link.state[kind as usize].is_some() {
                    return Some(Choice::State(kind));
                }
            }
        }
        if link.gate < Some(Gate::All) {
            return None;
        }
        if link.turns.others_since_bulk >= OTHERS_BEFORE_BULK
            && let Some(choice) = self.choose_stream(Class::Bulk)
        {
            return Some(choice);
        }
        if self.may_send_message() {
            let streams = &self.streams;
            if let Some(number) = self.queue.first_ready(|stream, end| is_sent(streams, stream, end)) {
                return Some(Choice::Reliable(number));
            }
        }
        let stream =
            [Class::Interactive, Class::Logs, Class::Bulk].into_iter().find_map(|class| self.choose_stream(class));
        stream.or_else(|| {
            let link = self.link.as_ref()?;
            let asked = self.draining && link.unmarked_since.is_some() && link.pings.room_for_marker();
            asked.then_some(Choice::Ping(Purpose::Marker))
        })
    }

    /// After a link that ended over a message the next one waits until the last is acknowledged, so that another such
    /// end blames the right one. A marker behind each is not enough: the console may answer only the newest Ping (RFC
    /// 6455, section 5.5.3), or close before it has sent a Pong. A drain has no time for that.
    fn may_send_message(&self) -> bool {
        let Some(link) = &self.link else { return false };
        let may_be_culprit = self.queue.has_suspect() && link.messages_sent < MESSAGES_ALONE_MAX;
        link.messages_in_flight == 0 || !may_be_culprit || self.draining
    }

    /// The stream of a class whose turn it is, and what to cut from it.
    fn choose_stream(&mut self, class: Class) -> Option<Choice> {
        // Each round either chooses or takes one stream out of those that may run, so this ends.
        loop {
            let link = self.link.as_mut()?;
            if class != Class::Interactive && !link.has_room() {
                return None;
            }
            let last = match class {
                Class::Interactive => link.turns.interactive,
                Class::Logs => None,
                Class::Bulk => link.turns.bulk,
            };
            let stream = self.after(class, last)?;
            let entry = self.streams.get(&stream)?;
            let share = self.share();
            if entry.class(share) != Some(class) {
                // Its window has shrunk since it was put there.
                self.refresh(stream);
                continue;
            }
            let max = usize::try_from(entry.window(share) / FRAMES_IN_WINDOW)
                .map_or(FRAME_BYTES_MAX, |max| max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX));
            let cut = entry.next_cut(max)?;
            let link = self.link.as_mut()?;
            match class {
                Class::Interactive => link.turns.interactive = Some(stream),
                Class::Logs => {}
                Class::Bulk => link.turns.bulk = Some(stream),
            }
            return Some(Choice::Stream(class, stream, cut));
        }
    }

    /// The stream of a class after the one that was served last, round-robin.
    fn after(&self, class: Class, last: Option<StreamKey>) -> Option<StreamKey> {
        let first = Bound::Included((class, StreamKey::Terminal(SessionKey(0))));
        let end = Bound::Included((class, StreamKey::Logs));
        let start = last.map_or(first, |last| Bound::Excluded((class, last)));
        self.runnable
            .range((start, end))
            .next()
            .or_else(|| self.runnable.range((first, end)).next())
            .map(|(_, stream)| *stream)
    }
}
