//! The streams as their sources see them: they grow, drop bytes, end, are attached, and get read credit.
//!
//! It does not hold bytes. The rules of one stream are in `stream`; here are the books about all of them.

use super::stream::{Gap, Position, Snapshot, Stream, StreamKey};
use super::{Delivery, UNLIMITED, is_sent};
use crate::order::Gate;
use core::ops::Bound;

/// A credit below this counts as none, in bytes: a read of a few bytes costs as much as a long one.
const CREDIT_BYTES_MIN: usize = 1 << 10;

/// Streams.
impl<M> Delivery<M> {
    /// A new stream, whose first byte has the offset 0. A key that is known is left as it is.
    pub fn open_stream(&mut self, stream: StreamKey) {
        self.streams.entry(stream).or_insert_with(|| Stream::new(stream, 0));
        self.refresh(stream);
    }

    /// A stream of an earlier program, of which the console has everything up to `at`.
    pub fn take_over_stream(&mut self, stream: StreamKey, at: u64) {
        self.streams.entry(stream).or_insert_with(|| Stream::new(stream, at));
        self.refresh(stream);
    }

    /// The outputs of which no byte will follow and that the console does not have yet.
    pub fn ended_streams(&self) -> impl Iterator<Item = StreamKey> {
        let is_output = |stream: &StreamKey| *stream != StreamKey::Logs;
        self.streams.iter().filter(move |(stream, entry)| entry.ended && is_output(stream)).map(|(stream, _)| *stream)
    }

    /// Whether a console that re-attached to this stream does not have all of its snapshot.
    pub fn owes_snapshot(&self, stream: StreamKey) -> bool {
        self.streams.get(&stream).is_some_and(|entry| entry.snapshot.is_some())
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

    /// Sends nothing of a stream that was not sent yet; what is under way may still be acknowledged.
    pub fn truncate(&mut self, stream: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.at.end = entry.at.sent.max(entry.at.retained);
            self.refresh(stream);
        }
    }

    /// No byte will follow. The source keeps what it holds until the stream is [finished](Delivery::take_finished).
    pub fn end_stream(&mut self, stream: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.ended = true;
            self.refresh(stream);
        }
    }

    /// A console re-attached that has seen nothing: it gets a snapshot, and then what was not sent. One that a link cut
    /// off is made again on the next; one that was made for an earlier console is acknowledged first.
    pub fn want_snapshot(&mut self, stream: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.want_snapshot();
            self.refresh(stream);
        }
    }

    /// The stream whose snapshot is to be made next, and from where on no console has shown it. None while the rest
    /// of another one waits, so that one at a time takes memory.
    pub fn snapshot_due(&self) -> Option<(StreamKey, u64)> {
        let is_possible = self.snapshot_under_way.is_none() && self.is_open(Gate::All);
        let stream = self.snapshots_wanted.first().filter(|_| is_possible)?;
        self.streams.get(stream).map(|entry| (*stream, entry.unseen_from()))
    }

    /// The snapshot is made: `bytes` of it, which show the screen at the offset `at`.
    pub fn snapshot_made(&mut self, stream: StreamKey, at: u64, bytes: usize) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.snapshot_made(at, bytes as u64);
            self.refresh(stream);
            self.unblock(stream);
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
    pub fn read_credit(&self, stream: StreamKey) -> usize {
        let Some(entry) = self.streams.get(&stream) else {
            return 0;
        };
        let Some(link) = &self.link else {
            return UNLIMITED;
        };
        let room = if link.has_room() { entry.room(self.share()) } else { entry.room_as_interactive() };
        usize::try_from(room).ok().filter(|bytes| *bytes >= CREDIT_BYTES_MIN).unwrap_or(0)
    }

    /// Takes one stream whose read credit may have changed, and the credit. Asked until `None` after each turn of the
    /// loop, it keeps the sources running without a look at all of them.
    pub fn poll_credit(&mut self) -> Option<(StreamKey, usize)> {
        let share = self.share();
        // A stream that is gone is passed over; the list is as long as there were changes.
        loop {
            let stream = self.credit_changes.pop_front()?;
            let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.credit_due) else {
                continue;
            };
            entry.credit_due = false;
            let link_is_full = self.link.as_ref().is_some_and(|link| !link.has_room());
            if link_is_full && !entry.starved && entry.room(share) > entry.room_as_interactive() {
                entry.starved = true;
                self.starved.push_back(stream);
            }
            return Some((stream, self.read_credit(stream)));
        }
    }

    /// Takes one gap that has not been reported.
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

    /// The most of a stream that was unacknowledged since this was last asked, in bytes; what is lost anyway does not
    /// count.
    pub fn take_unacknowledged_peak(&mut self, stream: StreamKey) -> u64 {
        self.streams.get_mut(&stream).map_or(0, Stream::take_unacknowledged_peak)
    }

    /// Encoded bytes of streams that are under way.
    pub fn stream_bytes_in_flight(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.in_flight)
    }
}

impl<M> Delivery<M> {
    /// Brings the books about one stream up to date: whether it may run, is settled, is finished, what it may read.
    pub(super) fn refresh(&mut self, stream: StreamKey) {
        let share = self.share();
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        let busy = entry.is_busy();
        if busy != core::mem::replace(&mut entry.busy, busy) {
            self.busy_streams = if busy { self.busy_streams + 1 } else { self.busy_streams - 1 };
        }
        let class = entry.class(share);
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
        let (wanted, under_way) =
            (entry.snapshot == Some(Snapshot::Wanted), matches!(entry.snapshot, Some(Snapshot::Made { .. })));
        if wanted {
            self.snapshots_wanted.insert(stream);
        } else {
            self.snapshots_wanted.remove(&stream);
        }
        if under_way {
            self.snapshot_under_way = Some(stream);
        } else if self.snapshot_under_way == Some(stream) {
            self.snapshot_under_way = None;
        }
        if entry.has_gap() {
            self.gaps.insert(stream);
        }
        if entry.ended && !unsettled && !entry.has_gap() {
            self.remove_stream(stream);
            self.finished.push_back(stream);
            self.unblock(stream);
        } else if !entry.credit_due {
            entry.credit_due = true;
            self.credit_changes.push_back(stream);
        }
    }

    pub(super) fn each_stream(&mut self, change: impl Fn(&mut Stream)) {
        let mut next = self.streams.keys().next().copied();
        while let Some(stream) = next {
            if let Some(entry) = self.streams.get_mut(&stream) {
                change(entry);
            }
            self.refresh(stream);
            next = self.streams.range((Bound::Excluded(stream), Bound::Unbounded)).next().map(|(stream, _)| *stream);
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
            self.busy_streams -= u64::from(entry.busy);
        }
        self.gaps.remove(&stream);
        self.snapshots_wanted.remove(&stream);
        self.snapshot_under_way.take_if(|under_way| *under_way == stream);
    }

    pub(super) fn unblock(&mut self, stream: StreamKey) {
        let streams = &self.streams;
        self.queue.unblock(stream, |stream, end| is_sent(streams, stream, end));
    }

    /// Streams that could read nothing because the link was full may do so again.
    pub(super) fn feed_starved(&mut self) {
        if !self.link.as_ref().is_some_and(super::link::Link::has_room) {
            return;
        }
        while let Some(stream) = self.starved.pop_front() {
            if let Some(entry) = self.streams.get_mut(&stream) {
                entry.starved = false;
                if !entry.credit_due {
                    entry.credit_due = true;
                    self.credit_changes.push_back(stream);
                }
            }
        }
    }
}
