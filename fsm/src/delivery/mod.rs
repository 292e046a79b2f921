//! The delivery ledger: what is sent when, what the console is known to have, what is kept until then.
//!
//! It does not hold terminal bytes, encode anything, or touch a socket: the loop that owns it asks for the
//! [next](Delivery::next) frame while a batch has room, encodes it, and reports Pongs to the ledger. It reads no clock.
//!
//! Three kinds of message go through it. **State** (`registration`, `heartbeat`, `metrics`): the newest replaces the
//! older, and none outlives its link. **Reliable** messages (`command:result`, `terminal:closed`, `event`): kept until
//! a Pong shows that the console has read them, sent again in order after a reconnect. **Streams** (`terminal:output`,
//! `command:output`): bytes with offsets, in a window that is also the flow control of their source.
//!
//! What a Pong proves is that the console's WebSocket endpoint, or a proxy that terminates it, has read what went
//! before its Ping; not that anything was stored.
//!
//! Invariants, at every step:
//! - the reliable messages kept are within [`RELIABLE_BYTES_MAX`] and [`RELIABLE_MESSAGES_MAX`];
//! - they are sent in the order in which they were pushed; only past one that waits for the bytes of its own stream may
//!   newer ones go, and after a reconnect all of them start over, so that the console sees each at least once;
//! - for each stream `acked ≤ sent ≤ end`, and what is under way is within its window but for one frame;
//! - nothing is acknowledged that went after the Ping, or before the gate opened, or on another link.
//!
//! Units: sizes of messages and windows are *encoded* bytes, those on the wire (for streams four for three, and an
//! allowance for the frame around them); offsets and [read credit](Delivery::read_credit) are raw bytes of the source.
//!
//! | file | what it decides |
//! |---|---|
//! | `message`, `queue` | the reliable messages: order, bounds, promises, poison |
//! | `link` | what a Pong acknowledges, what ends with a link |
//! | `stream`, `sources` | offsets, snapshots, gaps; read credit |
//! | `path` | how much may be under way on this link |
//! | [`ping`] | the payload of Pings, and what a Pong answers |
//! | `schedule` | which frame is next |
//! | `stall` | when a write counts as stuck |
//! | [`budget`] | the memory that all buffers share |
//! | [`dedupe`], `id_ring` | which commands ran before |

pub mod budget;
pub mod dedupe;
mod id_ring;
mod link;
mod message;
mod path;
pub mod ping;
mod queue;
mod schedule;
mod sources;
mod stall;
mod stream;

pub use link::{Ack, LinkEnd};
pub use message::{
    After, Drops, Kind, PROMISED_CLOSED_BYTES, PROMISED_RESULT_BYTES, Poison, PushError, Pushed, Reliable,
};
pub use path::{QUEUE_TARGET_MS, SEARCH_BYTES_MIN};
pub use queue::{CUT_RESULT_BYTES, RELIABLE_BYTES_MAX, RELIABLE_MESSAGES_MAX};
pub use schedule::{OutboundFrame, StateKind};
pub use stream::{Chunk, Gap, Position, StreamKey};

use crate::order::Gate;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use link::Link;
use queue::Queue;
use stream::{Class, Stream};

/// The least that a stream may have under way, in encoded bytes: a link that has shown nothing yet still gets some.
pub const STREAM_WINDOW_BYTES_MIN: u64 = 32 << 10;

/// The most that an output of a command may have under way: less than its buffer holds, so that it can all be sent
/// again. The buffer of a terminal grows.
pub const COMMAND_WINDOW_BYTES_MAX: u64 = 256 << 10;

/// The most of the lines of logs that may be under way, in encoded bytes: what the agent holds of them in memory.
pub const LOG_WINDOW_BYTES_MAX: u64 = 256 << 10;

/// The least that all streams together may have under way, in encoded bytes.
pub const LINK_WINDOW_BYTES_MIN: u64 = 64 << 10;

/// The most that all streams together may have under way: 100 Mbit/s over 200 ms, and some queue.
pub const LINK_WINDOW_BYTES_MAX: u64 = 4 << 20;

/// A stream with no more than this waiting and under way counts as interactive, in encoded bytes: a full screen
/// redrawn.
pub const INTERACTIVE_BYTES_MAX: u64 = 16 << 10;

/// The most bytes of a stream in one frame.
pub const FRAME_BYTES_MAX: usize = 32 << 10;

/// How much may be unacknowledged since the last Ping before a marker follows, in encoded bytes.
pub const MARKER_BYTES: u64 = 64 << 10;

/// A flood has so many markers in a full window, so that what one Pong lets go is little beside the queue. A window
/// lasts for a round trip and 50 ms, so these are at most 320 Pings and Pongs a second.
const MARKERS_IN_WINDOW: u64 = 16;

/// But in a small window a flood has no more than one for so much, in encoded bytes.
const STREAM_MARKER_BYTES_MIN: u64 = 16 << 10;

/// How long something may be unacknowledged since the last Ping before a marker follows, in milliseconds.
pub const MARKER_MS: u64 = 200;

/// How long a write may make no progress, in milliseconds.
pub const WRITE_STALL_MS: u64 = 10_000;

/// What [`Delivery::read_credit`] says to a source whose bytes go nowhere but into its scrollback.
pub const UNLIMITED: usize = usize::MAX;

/// The ledger; `M` is the body of a message, whatever the owner writes to the link.
#[derive(Clone, Debug, Hash)]
pub struct Delivery<M> {
    now: Time,
    queue: Queue<M>,
    streams: BTreeMap<StreamKey, Stream>,
    /// Streams that have something to send and room in their window, by class.
    runnable: BTreeSet<(Class, StreamKey)>,
    unsettled_streams: usize,
    /// Streams that share the window of the link.
    busy_streams: u64,
    /// Streams whose read credit may have changed since the last report; each says itself whether it is among them.
    credit_changes: VecDeque<StreamKey>,
    /// Streams that were asked to read less because the link as a whole was full, likewise.
    starved: VecDeque<StreamKey>,
    gaps: BTreeSet<StreamKey>,
    /// Streams whose snapshot is to be made.
    snapshots_wanted: BTreeSet<StreamKey>,
    /// The stream whose snapshot is made and not sent as a whole.
    snapshot_under_way: Option<StreamKey>,
    finished: VecDeque<StreamKey>,
    /// The agent stops: what is unacknowledged is asked for as soon as nothing is left to send.
    draining: bool,
    link: Option<Link<M>>,
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
            busy_streams: 0,
            credit_changes: VecDeque::new(),
            starved: VecDeque::new(),
            gaps: BTreeSet::new(),
            snapshots_wanted: BTreeSet::new(),
            snapshot_under_way: None,
            finished: VecDeque::new(),
            draining: false,
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

    /// Gives up a message, counted as dropped: one that was to be cut and cannot be.
    pub fn give_up(&mut self, number: u64) {
        self.queue.give_up(number);
    }

    /// Takes in a message of an earlier process, under the number that it had; false where there is no room for it.
    pub fn restore(&mut self, number: u64, message: Reliable, body: M) -> bool {
        let streams = &self.streams;
        self.queue.restore(number, message, body, |stream, end| is_sent(streams, stream, end))
    }

    /// The last number that was given to a message.
    pub const fn numbers_up_to(&self) -> u64 {
        self.queue.numbers_up_to()
    }

    /// Every message that is kept, by number, with what must be sent before it.
    pub fn messages_to_hand_over(&self) -> impl Iterator<Item = (u64, Kind, After, &M)> {
        self.queue.all()
    }

    /// Gives no number up to this one to a message from now on: an earlier process used them.
    pub fn skip_numbers(&mut self, up_to: u64) {
        self.queue.skip_numbers(up_to);
    }

    /// Names each message from now on that is no longer kept, by [`take_removed`](Self::take_removed).
    pub fn track_removed(&mut self) {
        self.queue.track_removed();
    }

    /// Takes one message that is no longer kept: it was acknowledged, or dropped.
    pub fn take_removed(&mut self) -> Option<u64> {
        self.queue.take_removed()
    }

    /// Sends a message only after it was [released](Self::release).
    pub fn hold(&mut self, number: u64) {
        self.queue.hold(number);
    }

    /// Lets a message be sent that was held.
    pub fn release(&mut self, number: u64) {
        let streams = &self.streams;
        self.queue.release(number, |stream, end| is_sent(streams, stream, end));
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

    /// Was this message sent on this link, and is it unacknowledged?
    pub fn is_under_way(&self, number: u64) -> bool {
        self.link.is_some() && self.queue.is_sent(number)
    }

    /// What was dropped since this was last asked, once a link is ready for everything: an `error` event reports it.
    pub fn take_drops(&mut self) -> Option<Drops> {
        self.is_open(Gate::All).then(|| self.queue.take_drops()).flatten()
    }

    /// What was dropped and is not reported yet.
    pub const fn unreported_drops(&self) -> Drops {
        self.queue.unreported_drops()
    }

    /// An earlier program dropped these and did not report it.
    pub fn take_over_drops(&mut self, drops: Drops) {
        self.queue.take_over_drops(drops);
    }

    /// Could a short event be pushed that displaces no other?
    pub fn has_room_for_event(&self) -> bool {
        self.queue.has_room_for_event()
    }

    /// Nothing reliable and no byte of a stream waits for the console.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.unsettled_streams == 0
    }
}

impl<M> Delivery<M> {
    /// The share of the link's window that a stream has, in encoded bytes.
    fn share(&self) -> u64 {
        let window = self.link.as_ref().map_or(LINK_WINDOW_BYTES_MIN, Link::window);
        window / self.busy_streams.max(1)
    }

    fn see(&mut self, now: Time) {
        self.now = self.now.max(now);
    }
}

/// Have the bytes of `stream` before `end` been sent on this link, or acknowledged, or will they never be? A snapshot
/// that waits goes before what follows them.
fn is_sent(streams: &BTreeMap<StreamKey, Stream>, stream: StreamKey, end: u64) -> bool {
    streams.get(&stream).is_none_or(|entry| entry.at.sent >= end && !entry.has_snapshot_to_send())
}
