//! The delivery ledger: what is sent when, what the console is known to have, what is kept until then.
//!
//! It does not hold terminal bytes, encode anything, or touch a socket: the loop that owns it asks for the
//! [next](Delivery::next) frame while a batch has room, encodes it, and tells the ledger of Pongs. It reads no clock.
//!
//! Three kinds of message go through it. **State** (`registration`, `heartbeat`, `metrics`): the newest replaces the
//! older, and none outlives its link. **Reliable** messages (`command:result`, `terminal:closed`, `event`): kept until a
//! Pong shows that the console has read them, sent again in order after a reconnect. **Streams** (`terminal:output`,
//! `command:output`): bytes with offsets, in a window that is also the flow control of their source.
//!
//! What a Pong proves is that the console's WebSocket endpoint, or a proxy that terminates it, has read what went before
//! its Ping; not that anything was stored.
//!
//! Invariants, at every step:
//! - the reliable messages kept are within [`RELIABLE_BYTES_MAX`] and [`RELIABLE_MESSAGES_MAX`];
//! - they are sent in the order in which they were pushed; only past one that waits for the bytes of its own stream may
//!   newer ones go, and after a reconnect all of them start over, so that the console sees each at least once;
//! - for each stream `acked ≤ sent ≤ end`, and what is under way is within its window but for one frame;
//! - nothing is acknowledged that went after the Ping, or before the gate opened, or on another link.
//!
//! Units: sizes of messages and windows are *encoded* bytes, those on the wire (for streams four for three, and an
//! allowance for the frame around them); offsets and [allowances](Delivery::may_read) are raw bytes of the source.
//!
//! | file | what it decides |
//! |---|---|
//! | `queue` | the reliable messages: order, bounds, promises, poison |
//! | `stream`, `rate` | offsets, replays, gaps; windows |
//! | [`ping`] | the payload of Pings, and what a Pong answers |
//! | `schedule` | which frame is next |
//! | `stall` | when a write counts as stuck |
//! | [`budget`] | the memory that all buffers share |
//! | [`dedupe`] | which commands ran before |

pub mod budget;
pub mod dedupe;
pub mod ping;
mod queue;
mod rate;
mod schedule;
mod stall;
mod stream;

pub use queue::{
    After, CUT_RESULT_BYTES, Drops, Kind, PROMISED_CLOSED_BYTES, PROMISED_RESULT_BYTES, Poison, PushError, Pushed,
    RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX, Reliable,
};
pub use schedule::{Next, StateKind};
pub use stream::{Cut, Gap, Position, StreamKey};

use crate::fact::Attempt;
use crate::order::Gate;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use ping::Pings;
use queue::Queue;
use rate::Rate;
use schedule::Turns;
use stall::Write;
use stream::{Class, Stream};

/// The least that a stream may have under way, in encoded bytes: a link that has shown nothing yet still gets some.
pub const STREAM_WINDOW_BYTES_MIN: u64 = 32 << 10;

/// The most that a stream may have under way: less than a scrollback holds, so that it can all be sent again.
pub const STREAM_WINDOW_BYTES_MAX: u64 = 256 << 10;

/// The least that all streams together may have under way, in encoded bytes.
pub const LINK_WINDOW_BYTES_MIN: u64 = 64 << 10;

/// The most that all streams together may have under way.
pub const LINK_WINDOW_BYTES_MAX: u64 = 1 << 20;

/// A stream with no more than this waiting and under way counts as interactive, in encoded bytes: a full screen redrawn.
pub const INTERACTIVE_BYTES_MAX: u64 = 16 << 10;

/// The most bytes of a stream in one frame.
pub const FRAME_BYTES_MAX: usize = 32 << 10;

/// How much may be unacknowledged since the last Ping before a marker follows, in encoded bytes.
pub const MARKER_BYTES: u64 = 64 << 10;

/// How long something may be unacknowledged since the last Ping before a marker follows, in milliseconds.
pub const MARKER_MS: u64 = 200;

/// How long a write may make no progress, in milliseconds.
pub const WRITE_STALL_MS: u64 = 10_000;

/// An allowance below this is none, in bytes: a source is not read by the crumb.
const ALLOWANCE_BYTES_MIN: usize = 1 << 10;

/// What [`Delivery::may_read`] says to a source whose bytes go nowhere but into its scrollback.
pub const UNLIMITED: usize = usize::MAX;

/// How a link ended, as far as what was sent on it may be to blame.
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
    const fn blames_a_message(self) -> bool {
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
}

/// The ledger; `M` is the body of a message, whatever the owner writes to the link.
#[derive(Clone, Debug)]
pub struct Delivery<M> {
    now: Time,
    queue: Queue<M>,
    streams: BTreeMap<StreamKey, Stream>,
    /// Streams that have something to send and room in their window, by class.
    runnable: BTreeSet<(Class, StreamKey)>,
    unsettled_streams: usize,
    /// Streams whose allowance may have changed since it was last told.
    allowances: BTreeSet<StreamKey>,
    /// Streams that were last told to read nothing because the link as a whole was full.
    starved: BTreeSet<StreamKey>,
    gaps: BTreeSet<StreamKey>,
    finished: VecDeque<StreamKey>,
    link: Option<Link<M>>,
}

/// What is known of the link that is up.
#[derive(Clone, Debug)]
struct Link<M> {
    number: Attempt,
    gate: Option<Gate>,
    pings: Pings,
    state: [Option<M>; schedule::STATE_KINDS],
    keep_alive_wanted: bool,
    /// What was sent and is not acknowledged, in the order in which it was.
    flights: VecDeque<Flight>,
    frames_sent: u64,
    frames_acked: u64,
    /// Frames sent when the newest Ping was.
    frames_marked: u64,
    unmarked_bytes: u64,
    unmarked_since: Option<Time>,
    marker_wanted: bool,
    /// Encoded bytes of streams under way.
    in_flight: u64,
    rate: Rate,
    turns: Turns,
    /// The stream frame that was handed out and not yet cut.
    uncut: Option<(StreamKey, Cut)>,
    write: Option<Write>,
}

/// One frame that an acknowledgement will be for.
#[derive(Clone, Copy, Debug)]
enum Flight {
    Message(u64),
    Bytes { stream: StreamKey, to: u64, encoded: u64 },
    ReplayEnd { stream: StreamKey, encoded: u64 },
}

impl<M> Link<M> {
    fn new(number: Attempt) -> Self {
        Self {
            number,
            gate: None,
            pings: Pings::new(number),
            state: [const { None }; schedule::STATE_KINDS],
            keep_alive_wanted: false,
            flights: VecDeque::new(),
            frames_sent: 0,
            frames_acked: 0,
            frames_marked: 0,
            unmarked_bytes: 0,
            unmarked_since: None,
            marker_wanted: false,
            in_flight: 0,
            rate: Rate::default(),
            turns: Turns::default(),
            uncut: None,
            write: None,
        }
    }

    fn window(&self, now: Time) -> u64 {
        self.rate.last_second(now).clamp(LINK_WINDOW_BYTES_MIN, LINK_WINDOW_BYTES_MAX)
    }

    fn has_room(&self, now: Time) -> bool {
        self.in_flight < self.window(now)
    }
}

impl<M> Default for Delivery<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Reliable messages.
impl<M> Delivery<M> {
    /// Nothing to send, no link.
    pub fn new() -> Self {
        Self {
            now: Time::START,
            queue: Queue::new(),
            streams: BTreeMap::new(),
            runnable: BTreeSet::new(),
            unsettled_streams: 0,
            allowances: BTreeSet::new(),
            starved: BTreeSet::new(),
            gaps: BTreeSet::new(),
            finished: VecDeque::new(),
            link: None,
        }
    }

    /// Keeps room for one message to come, so that it will not be refused: for the result of a command before it is
    /// accepted, for the `closed` of a session before it is opened. False where there is no room: refuse it as busy.
    pub fn promise(&mut self, kind: Kind) -> bool {
        self.queue.promise(kind)
    }

    /// Gives up a promise of which nothing will come.
    pub fn break_promise(&mut self, kind: Kind) {
        self.queue.break_promise(kind);
    }

    /// Takes in a reliable message. At the bound the oldest events make way, for events too; what finds no room even so
    /// is dropped and counted, unless room was promised for it.
    pub fn push(&mut self, message: Reliable, body: M) -> Result<Pushed, PushError> {
        let streams = &self.streams;
        self.queue.push(message, body, |stream, end| is_sent(streams, stream, end))
    }

    /// Sends a message again that the console may have missed, if it is still unacknowledged: true.
    pub fn send_again(&mut self, number: u64) -> bool {
        let streams = &self.streams;
        self.queue.send_again(number, |stream, end| is_sent(streams, stream, end))
    }

    /// Puts a shorter body in place of a message's; false where that is gone or was shorter.
    pub fn replace(&mut self, number: u64, size_bytes: usize, body: M) -> bool {
        let streams = &self.streams;
        self.queue.replace(number, size_bytes, body, |stream, end| is_sent(streams, stream, end))
    }

    /// What a message says, as long as it is unacknowledged.
    pub fn body(&self, number: u64) -> Option<&M> {
        self.queue.body(number)
    }

    /// Is this message still unacknowledged?
    pub fn is_waiting(&self, number: u64) -> bool {
        self.queue.contains(number)
    }

    /// How many reliable messages are unacknowledged.
    pub const fn messages(&self) -> usize {
        self.queue.len()
    }

    /// Their encoded bytes.
    pub const fn message_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// What was dropped since this was last asked, once a link is ready for everything: to be told by an `error` event.
    pub fn take_drops(&mut self) -> Option<Drops> {
        self.is_open(Gate::All).then(|| self.queue.take_drops()).flatten()
    }

    /// Nothing reliable and no byte of a stream waits for the console.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.unsettled_streams == 0
    }
}

/// Streams.
impl<M> Delivery<M> {
    /// A new stream, whose first byte has the offset 0. A key that is known is left as it is.
    pub fn open_stream(&mut self, stream: StreamKey) {
        self.streams.entry(stream).or_insert_with(|| Stream::new(0));
        self.refresh(stream);
    }

    /// The source holds bytes up to `end`. Also called with the same `end` when it lets go of the beginning of a
    /// character that it held back.
    pub fn grew(&mut self, stream: StreamKey, end: u64) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.grew(end);
            self.refresh(stream);
        }
    }

    /// The source no longer holds the bytes before `offset`.
    pub fn discarded(&mut self, stream: StreamKey, offset: u64) {
        let online = self.link.is_some();
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.discarded(offset, online);
            self.refresh(stream);
            self.unblock(stream);
        }
    }

    /// No byte will follow. The source keeps what it holds until the stream is [finished](Delivery::take_finished).
    pub fn end_stream(&mut self, stream: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.ended = true;
            self.refresh(stream);
        }
    }

    /// Nobody looks at it: its bytes stay in the scrollback, and nothing waits for them.
    pub fn detach(&mut self, stream: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.attached = false;
            entry.replay = None;
            self.refresh(stream);
            self.unblock(stream);
        }
    }

    /// Somebody looks at it again, and has seen what came before.
    pub fn attach(&mut self, stream: StreamKey) {
        let online = self.link.is_some();
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.attached = true;
            entry.discarded(0, online);
            self.refresh(stream);
        }
    }

    /// Somebody re-attached who has seen nothing: repeats what the source holds from `from` on, between a reset and the
    /// modes, then goes on. A replay that a link cut off starts over on the next one.
    pub fn replay(&mut self, stream: StreamKey, from: u64) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.begin_replay(from);
            self.refresh(stream);
        }
    }

    /// Forgets a stream whatever became of its bytes.
    pub fn forget_stream(&mut self, stream: StreamKey) {
        self.remove_stream(stream);
        self.unblock(stream);
    }

    /// Takes one stream that has ended and of which the console has every byte: its source may be freed.
    pub fn take_finished(&mut self) -> Option<StreamKey> {
        self.finished.pop_front()
    }

    /// How many bytes of its source may be read now: what fits into the windows beside that which is under way or read
    /// already. Without a link everything: it goes to the scrollback.
    pub fn may_read(&self, stream: StreamKey) -> usize {
        let Some(entry) = self.streams.get(&stream) else {
            return 0;
        };
        let Some(link) = &self.link else {
            return UNLIMITED;
        };
        if !entry.attached {
            return UNLIMITED;
        }
        let room = if link.has_room(self.now) { entry.room(self.now) } else { entry.room_as_interactive() };
        usize::try_from(room).ok().filter(|bytes| *bytes >= ALLOWANCE_BYTES_MIN).unwrap_or(0)
    }

    /// Takes one stream whose allowance may have changed, and the allowance. Asked until `None` after each turn of the
    /// loop, it keeps the sources running without a look at all of them.
    pub fn take_allowance(&mut self) -> Option<(StreamKey, usize)> {
        let stream = self.allowances.pop_first()?;
        let bytes = self.may_read(stream);
        if bytes == 0 {
            self.starved.insert(stream);
        }
        Some((stream, bytes))
    }

    /// Takes one gap that has not been told of.
    pub fn take_gap(&mut self) -> Option<Gap> {
        while let Some(stream) = self.gaps.pop_first() {
            let gap = self.streams.get_mut(&stream).and_then(Stream::take_gap);
            self.refresh(stream);
            if let Some((from, to, lost_bytes)) = gap {
                return Some(Gap { stream, from, to, lost_bytes });
            }
        }
        None
    }

    /// How far a stream has come.
    pub fn position(&self, stream: StreamKey) -> Option<Position> {
        self.streams.get(&stream).map(|entry| entry.at)
    }

    /// Encoded bytes of streams that are under way.
    pub fn stream_bytes_in_flight(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.in_flight)
    }
}

/// The link.
impl<M> Delivery<M> {
    /// A link is up. Everything unacknowledged will be sent on it, once its gate is open.
    pub fn link_opened(&mut self, now: Time, link: Attempt) {
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

    /// The link is gone, and with it the state messages and every Ping. Tells of a message that has now ended so many
    /// links that it must be the cause.
    pub fn link_closed(&mut self, now: Time, end: LinkEnd) -> Option<Poison> {
        self.see(now);
        let link = self.link.take()?;
        self.each_stream(Stream::forget_link);
        if !end.blames_a_message() {
            self.queue.absolve();
            return None;
        }
        let oldest = link
            .flights
            .iter()
            .filter_map(|flight| match flight {
                Flight::Message(number) if self.queue.contains(*number) => Some(*number),
                Flight::Message(_) | Flight::Bytes { .. } | Flight::ReplayEnd { .. } => None,
            })
            .min();
        self.queue.blame(oldest)
    }

    /// Is a link up and its gate open for these messages?
    pub fn is_open(&self, gate: Gate) -> bool {
        self.link.as_ref().is_some_and(|link| link.gate >= Some(gate))
    }

    /// A Pong arrived. `None` where it answers no Ping of this link that is unanswered: it is foreign, or a repeat.
    pub fn pong(&mut self, now: Time, link: Attempt, payload: &[u8]) -> Option<Ack> {
        self.see(now);
        let current = self.link.as_mut().filter(|current| current.number == link)?;
        let frames = current.pings.answer(payload)?;
        let mut ack = Ack { last: current.pings.unanswered() == 0, messages: 0, frames: 0 };
        while let Some(flight) = self.next_acknowledged(frames) {
            match flight {
                Flight::Message(number) => {
                    ack.messages += 1;
                    self.queue.acknowledged(number);
                }
                Flight::Bytes { stream, to, encoded } => {
                    ack.frames += 1;
                    self.bytes_acknowledged(stream, to, encoded);
                }
                Flight::ReplayEnd { stream, encoded } => {
                    ack.frames += 1;
                    if let Some(entry) = self.streams.get_mut(&stream) {
                        entry.replay_acknowledged();
                    }
                    self.bytes_acknowledged(stream, 0, encoded);
                }
            }
        }
        self.feed_starved();
        Some(ack)
    }

    /// A batch of frames was handed to the socket, which has taken `bytes_written` bytes of this link so far.
    pub fn write_started(&mut self, now: Time, bytes_written: u64) {
        self.see(now);
        if let Some(link) = &mut self.link {
            link.write = Some(Write::started(now, bytes_written));
        }
    }

    /// How many bytes the socket has taken by now; to be told before every [`tick`](Self::tick).
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

    /// Is a batch under way?
    pub fn is_writing(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.write.is_some())
    }

    /// Lets time pass. Tells, once, of the link whose socket has taken nothing for [`WRITE_STALL_MS`].
    pub fn tick(&mut self, now: Time) -> Option<Attempt> {
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
            if let Some(write) = &mut link.write {
                write.shift_ms(ms);
            }
        }
    }
}

impl<M> Delivery<M> {
    fn see(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Brings the books about one stream up to date: whether it may run, is settled, is finished, what it may read.
    fn refresh(&mut self, stream: StreamKey) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        let class = entry.class(self.now);
        if class != entry.queued {
            if let Some(old) = entry.queued {
                self.runnable.remove(&(old, stream));
            }
            if let Some(new) = class {
                self.runnable.insert((new, stream));
            }
            entry.queued = class;
        }
        let unsettled = !entry.is_settled();
        if unsettled != entry.unsettled {
            if unsettled {
                self.unsettled_streams += 1;
            } else {
                self.unsettled_streams -= 1;
            }
            entry.unsettled = unsettled;
        }
        if entry.has_gap() {
            self.gaps.insert(stream);
        }
        if entry.ended && !unsettled && !entry.has_gap() {
            self.remove_stream(stream);
            self.finished.push_back(stream);
            self.unblock(stream);
        } else {
            self.allowances.insert(stream);
        }
    }

    fn each_stream(&mut self, change: impl Fn(&mut Stream)) {
        let mut next = self.streams.keys().next().copied();
        while let Some(stream) = next {
            if let Some(entry) = self.streams.get_mut(&stream) {
                change(entry);
            }
            self.refresh(stream);
            next = self
                .streams
                .range((core::ops::Bound::Excluded(stream), core::ops::Bound::Unbounded))
                .next()
                .map(|(stream, _)| *stream);
        }
    }

    fn remove_stream(&mut self, stream: StreamKey) {
        if let Some(entry) = self.streams.remove(&stream) {
            if let Some(class) = entry.queued {
                self.runnable.remove(&(class, stream));
            }
            if entry.unsettled {
                self.unsettled_streams -= 1;
            }
        }
        self.allowances.remove(&stream);
        self.starved.remove(&stream);
        self.gaps.remove(&stream);
    }

    fn unblock(&mut self, stream: StreamKey) {
        let streams = &self.streams;
        self.queue.unblock(stream, |stream, end| is_sent(streams, stream, end));
    }

    /// The oldest frame under way, if it is one of the first `frames` of this link.
    fn next_acknowledged(&mut self, frames: u64) -> Option<Flight> {
        let link = self.link.as_mut()?;
        if link.frames_acked >= frames {
            return None;
        }
        let flight = link.flights.pop_front()?;
        link.frames_acked += 1;
        Some(flight)
    }

    fn bytes_acknowledged(&mut self, stream: StreamKey, to: u64, encoded: u64) {
        if let Some(link) = &mut self.link {
            link.in_flight = link.in_flight.saturating_sub(encoded);
            link.rate.acknowledged(self.now, encoded);
        }
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.acknowledged(self.now, to, encoded);
            self.refresh(stream);
            self.unblock(stream);
        }
    }

    /// Streams that could read nothing because the link was full may do so again.
    fn feed_starved(&mut self) {
        if self.link.as_ref().is_some_and(|link| link.has_room(self.now)) {
            self.allowances.append(&mut self.starved);
        }
    }
}

/// Have the bytes of `stream` before `end` been sent on this link, or acknowledged, or will they never be?
fn is_sent(streams: &BTreeMap<StreamKey, Stream>, stream: StreamKey, end: u64) -> bool {
    streams.get(&stream).is_none_or(|entry| !entry.attached || entry.at.sent >= end)
}
