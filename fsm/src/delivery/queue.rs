//! The reliable messages: kept in order until the console is known to have them, and never more than the bound.
//!
//! It does not know of links, only of "this one": a message is ready (to be sent on it), blocked (until bytes of its
//! own stream were sent on it), sent on it, or held until its body has been cut. Numbers rise and are never reused.
//! Sizes are encoded bytes. A *promise* keeps room for one message that is sure to come (the result of an accepted
//! command, the `closed` of a session), so that it need not be refused when it does.

use super::message::{After, Drops, Kind, Poison, PushError, Pushed, Reliable, promised_bytes};
use super::stream::StreamKey;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most that is kept, in encoded bytes.
pub const RELIABLE_BYTES_MAX: usize = 4 << 20;

/// The most messages that are kept.
pub const RELIABLE_MESSAGES_MAX: usize = 4_096;

/// To what a result is cut that the console seems unable to take.
pub const CUT_RESULT_BYTES: usize = 16 << 10;

/// How many links in a row must end over the same message before it is taken for the cause.
const POISONED_LINKS: u32 = 3;

/// The messages.
#[derive(Clone, Debug, Hash)]
pub(super) struct Queue<M> {
    messages: BTreeMap<u64, Message<M>>,
    ready: BTreeSet<u64>,
    /// By the stream and the offset that they wait for.
    blocked: BTreeSet<(StreamKey, u64, u64)>,
    events: BTreeSet<u64>,
    next_number: u64,
    held: Load,
    held_events: Load,
    promised: Load,
    drops: Drops,
    suspect: Option<(u64, u32)>,
    /// Messages that are no longer kept, where the driver asks for them.
    removed: Option<VecDeque<u64>>,
}

#[derive(Clone, Debug, Hash)]
struct Message<M> {
    kind: Kind,
    size: usize,
    after: After,
    place: Place,
    cut: bool,
    body: M,
}

/// Where a message is in its life on this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Ready,
    Blocked(StreamKey, u64),
    Sent,
    /// Until its body has been replaced, or its record written.
    Held,
}

/// An amount of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Load {
    bytes: usize,
    messages: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.messages += 1;
    }

    fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.messages -= 1;
    }

    const fn with(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, messages: self.messages + other.messages }
    }

    const fn without(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, messages: self.messages - other.messages }
    }

    /// How long one more message may be.
    fn room(self) -> Option<usize> {
        if self.messages < RELIABLE_MESSAGES_MAX { RELIABLE_BYTES_MAX.checked_sub(self.bytes) } else { None }
    }
}

impl<M> Queue<M> {
    pub(super) fn new() -> Self {
        Self {
            messages: BTreeMap::new(),
            ready: BTreeSet::new(),
            blocked: BTreeSet::new(),
            events: BTreeSet::new(),
            next_number: 1,
            held: Load::default(),
            held_events: Load::default(),
            promised: Load::default(),
            drops: Drops::default(),
            suspect: None,
            removed: None,
        }
    }

    /// Keeps room for one message to come; false where there is none.
    pub(super) fn promise(&mut self, kind: Kind) -> bool {
        let bytes = promised_bytes(kind);
        let fits = self.firm().room().is_some_and(|room| room >= bytes);
        if fits {
            self.promised.add(bytes);
        }
        fits
    }

    /// Gives up a promise that nothing will come of.
    pub(super) fn break_promise(&mut self, kind: Kind) {
        debug_assert!(self.promised.messages > 0, "a promise is broken once");
        let bytes = promised_bytes(kind);
        self.promised.bytes = self.promised.bytes.saturating_sub(bytes);
        self.promised.messages = self.promised.messages.saturating_sub(1);
    }

    pub(super) fn push(
        &mut self,
        message: Reliable,
        body: M,
        is_sent: impl Fn(StreamKey, u64) -> bool,
    ) -> Result<Pushed, PushError> {
        self.check_room(&message)?;
        if message.promised {
            self.break_promise(message.kind);
        }
        let displaced = self.displace_events(message.size_bytes);
        let number = self.next_number;
        self.next_number += 1;
        self.insert(number, message, body);
        self.send_again(number, is_sent);
        Ok(Pushed { number, displaced })
    }

    /// Takes in a message of an earlier process, under the number that it had; false where there is no room for it.
    pub(super) fn restore(
        &mut self,
        number: u64,
        message: Reliable,
        body: M,
        is_sent: impl Fn(StreamKey, u64) -> bool,
    ) -> bool {
        let is_new = number < self.next_number && !self.contains(number);
        if !is_new || self.check_room(&message).is_err() {
            return false;
        }
        self.displace_events(message.size_bytes);
        self.insert(number, message, body);
        self.send_again(number, is_sent)
    }

    /// The last number that was given to a message.
    pub(super) const fn numbers_up_to(&self) -> u64 {
        self.next_number - 1
    }

    /// Every message that is kept, by number, with what must be sent before it.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, Kind, After, &M)> {
        self.messages.iter().map(|(number, message)| (*number, message.kind, message.after, &message.body))
    }

    /// Gives no number up to this one to a message from now on.
    pub(super) fn skip_numbers(&mut self, up_to: u64) {
        self.next_number = self.next_number.max(up_to.saturating_add(1));
    }

    /// Names each message from now on that is no longer kept.
    pub(super) fn track_removed(&mut self) {
        self.removed.get_or_insert_default();
    }

    /// Takes one message that is no longer kept: it was acknowledged, or dropped.
    pub(super) fn take_removed(&mut self) -> Option<u64> {
        self.removed.as_mut()?.pop_front()
    }

    /// Sends a message only after it was [released](Self::release).
    pub(super) fn hold(&mut self, number: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        match core::mem::replace(&mut message.place, Place::Held) {
            Place::Ready => {
                self.ready.remove(&number);
            }
            Place::Blocked(stream, end) => {
                self.blocked.remove(&(stream, end, number));
            }
            Place::Sent | Place::Held => {}
        }
    }

    /// Lets a message be sent that was held.
    pub(super) fn release(&mut self, number: u64, is_sent: impl Fn(StreamKey, u64) -> bool) {
        if let Some(message) = self.messages.get_mut(&number).filter(|message| message.place == Place::Held) {
            message.place = Place::Sent;
            self.send_again(number, is_sent);
        }
    }

    fn insert(&mut self, number: u64, message: Reliable, body: M) {
        self.held.add(message.size_bytes);
        if message.kind == Kind::Event {
            self.held_events.add(message.size_bytes);
            self.events.insert(number);
        }
        self.messages.insert(
            number,
            Message {
                kind: message.kind,
                size: message.size_bytes,
                after: message.after,
                place: Place::Sent,
                cut: false,
                body,
            },
        );
    }

    /// Could a short event be pushed that displaces no other?
    pub(super) fn has_room_for_event(&self) -> bool {
        self.held.with(self.promised).room().is_some_and(|room| room >= promised_bytes(Kind::Event))
    }

    /// The first message to send, if any.
    pub(super) fn first_ready(&mut self, is_sent: impl Fn(StreamKey, u64) -> bool) -> Option<u64> {
        // Each round either returns or takes one message out of those that are ready, so this ends.
        loop {
            let number = self.ready.first().copied()?;
            let message = self.messages.get_mut(&number)?;
            let Some((stream, end)) = message.after.waits_for(&is_sent) else {
                return Some(number);
            };
            // A console attaches again to a stream whose bytes none had waited for.
            self.ready.remove(&number);
            self.blocked.insert((stream, end, number));
            message.place = Place::Blocked(stream, end);
        }
    }

    /// Takes a ready message for sending.
    pub(super) fn send(&mut self, number: u64) -> Option<&M> {
        self.ready.remove(&number);
        let message = self.messages.get_mut(&number)?;
        message.place = Place::Sent;
        Some(&message.body)
    }

    /// How long a message is, in encoded bytes.
    pub(super) fn size(&self, number: u64) -> u64 {
        self.messages.get(&number).map_or(0, |message| message.size as u64)
    }

    /// Puts a message back among those to send on this link; false where it is not kept.
    pub(super) fn send_again(&mut self, number: u64, is_sent: impl Fn(StreamKey, u64) -> bool) -> bool {
        let Some(message) = self.messages.get_mut(&number) else {
            return false;
        };
        if message.place != Place::Sent {
            return true;
        }
        message.place = match message.after.waits_for(is_sent) {
            None => {
                self.ready.insert(number);
                Place::Ready
            }
            Some((stream, end)) => {
                self.blocked.insert((stream, end, number));
                Place::Blocked(stream, end)
            }
        };
        true
    }

    /// Lets go of the messages that waited for bytes of `stream` up to where it was sent by now.
    pub(super) fn unblock(&mut self, stream: StreamKey, is_sent: impl Fn(StreamKey, u64) -> bool) {
        while let Some(&(_, end, number)) = self.blocked.range((stream, 0, 0)..=(stream, u64::MAX, u64::MAX)).next() {
            if !is_sent(stream, end) {
                return;
            }
            self.blocked.remove(&(stream, end, number));
            if let Some(message) = self.messages.get_mut(&number) {
                message.place = Place::Sent;
            }
            self.send_again(number, &is_sent);
        }
    }

    /// Everything that is kept is to be sent on a new link.
    pub(super) fn start_over(&mut self, is_sent: impl Fn(StreamKey, u64) -> bool) {
        self.ready.clear();
        self.blocked.clear();
        for (number, message) in &mut self.messages {
            if message.place == Place::Held {
                continue;
            }
            message.place = match message.after.waits_for(&is_sent) {
                None => {
                    self.ready.insert(*number);
                    Place::Ready
                }
                Some((stream, end)) => {
                    self.blocked.insert((stream, end, *number));
                    Place::Blocked(stream, end)
                }
            };
        }
    }

    /// The console has read a message: it need not be kept. When it has read all of them, none of them is to blame.
    pub(super) fn acknowledged(&mut self, number: u64) {
        self.remove(number);
        if self.messages.is_empty() {
            self.clear_suspect();
        }
    }

    /// A link ended in a way that blames what was sent on it; `first` is what of that was sent first and is
    /// unacknowledged.
    pub(super) fn record_rejection(&mut self, first: Option<u64>) -> Option<Poison> {
        let number = first?;
        let links = match self.suspect {
            Some((suspect, links)) if suspect == number => links + 1,
            Some(_) | None => 1,
        };
        self.suspect = Some((number, links));
        if links < POISONED_LINKS {
            return None;
        }
        self.suspect = None;
        let message = self.messages.get_mut(&number)?;
        if message.kind == Kind::Result && !message.cut && message.size > CUT_RESULT_BYTES {
            self.ready.remove(&number);
            if let Place::Blocked(stream, end) = message.place {
                self.blocked.remove(&(stream, end, number));
            }
            message.place = Place::Held;
            return Some(Poison::CutResult { number });
        }
        let kind = message.kind;
        self.give_up(number);
        Some(Poison::Dropped { number, kind })
    }

    /// Drops a message for good, and counts it.
    pub(super) fn give_up(&mut self, number: u64) {
        if let Some(kind) = self.messages.get(&number).map(|message| message.kind) {
            self.remove(number);
            self.drops.count(kind);
        }
    }

    /// Did the last link end over some message?
    pub(super) const fn has_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// A link ended in another way: nothing is blamed.
    pub(super) fn clear_suspect(&mut self) {
        self.suspect = None;
    }

    /// A shorter body for a message, which may then be sent again; false where it is not kept or would be longer.
    pub(super) fn replace(
        &mut self,
        number: u64,
        size: usize,
        body: M,
        is_sent: impl Fn(StreamKey, u64) -> bool,
    ) -> bool {
        let Some(message) = self.messages.get_mut(&number) else {
            return false;
        };
        if size > message.size {
            return false;
        }
        let saved = message.size - size;
        message.size = size;
        message.body = body;
        message.cut = true;
        let held_back = message.place == Place::Held;
        self.held.bytes -= saved;
        if message.kind == Kind::Event {
            self.held_events.bytes -= saved;
        }
        if held_back {
            message.place = Place::Sent;
            self.send_again(number, is_sent);
        }
        true
    }

    /// What a message says, if it is kept.
    pub(super) fn body(&self, number: u64) -> Option<&M> {
        self.messages.get(&number).map(|message| &message.body)
    }

    /// Is a message kept?
    pub(super) fn contains(&self, number: u64) -> bool {
        self.messages.contains_key(&number)
    }

    /// Was a message sent on this link, and is it kept?
    pub(super) fn is_sent(&self, number: u64) -> bool {
        self.messages.get(&number).is_some_and(|message| message.place == Place::Sent)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.held.messages
    }

    pub(super) const fn bytes(&self) -> usize {
        self.held.bytes
    }

    pub(super) const fn unreported_drops(&self) -> Drops {
        self.drops
    }

    pub(super) fn take_over_drops(&mut self, drops: Drops) {
        self.drops = drops;
    }

    pub(super) fn take_drops(&mut self) -> Option<Drops> {
        let drops = core::mem::take(&mut self.drops);
        (drops != Drops::default()).then_some(drops)
    }

    /// What no event may displace: everything but events, and what was promised.
    const fn firm(&self) -> Load {
        self.held.without(self.held_events).with(self.promised)
    }

    fn check_room(&mut self, message: &Reliable) -> Result<(), PushError> {
        let mut firm = self.firm();
        match message.kind {
            // Events may stand on promised room: they make way when the promise is kept.
            Kind::Event => firm = firm.without(self.promised),
            Kind::Result | Kind::Closed if message.promised => {
                firm.bytes = firm.bytes.saturating_sub(promised_bytes(message.kind));
                firm.messages = firm.messages.saturating_sub(1);
            }
            Kind::Result | Kind::Closed => {}
        }
        let room = firm.room();
        if room.is_some_and(|room| message.size_bytes <= room) {
            return Ok(());
        }
        if message.promised {
            return Err(PushError::TooLong { room_bytes: room.unwrap_or(0) });
        }
        self.drops.count(message.kind);
        Err(PushError::Dropped)
    }

    /// Drops the oldest events until a message of `size` bytes fits.
    fn displace_events(&mut self, size: usize) -> u32 {
        let mut displaced = 0;
        while self.held.room().is_none_or(|room| room < size) {
            let Some(oldest) = self.events.first().copied() else {
                break;
            };
            self.remove(oldest);
            self.drops.count(Kind::Event);
            displaced += 1;
        }
        displaced
    }

    fn remove(&mut self, number: u64) {
        let Some(message) = self.messages.remove(&number) else {
            return;
        };
        if let Some(removed) = &mut self.removed {
            removed.push_back(number);
        }
        self.held.remove(message.size);
        match message.kind {
            Kind::Event => {
                self.held_events.remove(message.size);
                self.events.remove(&number);
            }
            Kind::Result | Kind::Closed => {}
        }
        match message.place {
            Place::Ready => {
                self.ready.remove(&number);
            }
            Place::Blocked(stream, end) => {
                self.blocked.remove(&(stream, end, number));
            }
            Place::Sent | Place::Held => {}
        }
    }
}
