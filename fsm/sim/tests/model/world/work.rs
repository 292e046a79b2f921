//! What there is to deliver, and what the console has of it.

use super::World;
use super::calm::Broken;
use super::wire::Up;
use crate::setting::Part;
use draupnir_fsm::driver::{Body, ByteSource, Chunk, Encode, Message, StreamKey};
use draupnir_sim::planted::Planted;

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    /// Registration, heartbeat or metrics.
    State,
    /// A reliable message, numbered in the order in which they were made.
    Reliable(u8),
    /// The end of the session: a reliable message, behind its bytes.
    Closed(u8),
    /// Bytes of the stream.
    Bytes { from: u64, end: u64 },
}

impl Body for Text {
    fn size_bytes(&self) -> usize {
        100
    }
}

/// What the console has.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Console {
    /// Which reliable messages, by number from 1.
    pub(super) seen: Vec<u8>,
    pub(super) bytes: u64,
}

/// What there is to deliver.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Work {
    pub(super) notes: u8,
    /// How many reliable messages were made.
    pub(super) made: u8,
    /// The number of the session's end among them.
    pub(super) closed: Option<u8>,
    pub(super) printed: u64,
    pub(super) is_open: bool,
}

/// What the driver asks for bodies and bytes.
pub(super) struct Host<'a> {
    pub(super) part: Part,
    pub(super) planted: Option<Planted>,
    pub(super) work: &'a mut Work,
}

impl World {
    pub(super) fn console_reads(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        match wire.up.pop_front() {
            Some(Up::Ping(ping)) => wire.down.push_back(ping),
            Some(Up::Text(text)) if wire.listens => self.read(text),
            // An agent on its way out cannot wait for a console that does not greet: this loss is excused.
            Some(Up::Text(text)) if self.stop_asked => self.excuse(text),
            Some(Up::Text(_)) | None => {}
        }
        self.check();
    }

    pub(super) fn read(&mut self, text: Text) {
        match text {
            Text::State => {}
            Text::Reliable(number) => {
                let first = (1..=self.work.made)
                    .find(|other| Some(*other) != self.work.closed && !self.console.seen.contains(other));
                let is_next = self.console.seen.contains(&number) || first == Some(number);
                self.require(is_next, Broken::Order);
                self.see(number);
            }
            Text::Closed(number) => {
                self.require(self.console.bytes == self.work.printed, Broken::Order);
                self.see(number);
            }
            Text::Bytes { from, end } => {
                self.require(from <= self.console.bytes, Broken::Order);
                self.console.bytes = self.console.bytes.max(end);
            }
        }
    }

    /// Counts as read what the console could not hear.
    pub(super) fn excuse(&mut self, text: Text) {
        match text {
            Text::State => {}
            Text::Reliable(number) | Text::Closed(number) => self.see(number),
            Text::Bytes { end, .. } => self.console.bytes = self.console.bytes.max(end),
        }
    }

    pub(super) fn see(&mut self, number: u8) {
        if !self.console.seen.contains(&number) {
            self.console.seen.push(number);
            self.console.seen.sort_unstable();
        }
    }
}

impl Encode for Host<'_> {
    type Body = Text;

    fn encode(&mut self, message: &Message) -> Option<Text> {
        match message {
            Message::State(_) => Some(Text::State),
            // What the connection reports of itself is left out: it would be one more message for each link.
            Message::Event(_) => None,
            _ if self.part == Part::Connection => None,
            message => {
                self.work.made += 1;
                let is_end = matches!(message, Message::Closed { .. });
                if is_end {
                    self.work.closed = Some(self.work.made);
                }
                // The fault is the driver's: what was made is not kept.
                let is_lost = is_end && self.planted == Some(Planted::LosesResults);
                let text = if is_end { Text::Closed(self.work.made) } else { Text::Reliable(self.work.made) };
                (!is_lost).then_some(text)
            }
        }
    }
}

impl ByteSource for Host<'_> {
    fn held(&mut self, _: StreamKey) -> std::ops::Range<u64> {
        0..self.work.printed
    }

    fn cut(&mut self, _: StreamKey, chunk: Chunk) -> (usize, Option<Text>) {
        let Chunk::Bytes { from, .. } = chunk else { return (0, None) };
        let counted = 1 + usize::from(self.planted == Some(Planted::CountsBytesThatWereNotSent));
        (counted, Some(Text::Bytes { from, end: from + 1 }))
    }
}
