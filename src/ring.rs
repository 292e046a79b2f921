//! The last bytes of a stream, by their offset: what can still be sent, or sent again.
//!
//! It does not know what the bytes are. It grows as it fills, in steps that the owner has to grant (all buffers share
//! one budget); without a grant it drops its oldest bytes sooner.
//!
//! Invariants: it holds the bytes of one range without a gap, up to the last byte pushed; never more than its bound,
//! nor than it was granted or may hold without a grant.
//!
//! Units: offsets count bytes since the start of the stream.

use std::collections::VecDeque;
use std::ops::Range;

/// What the ring of a command's output may hold without a grant, in bytes: a screen of text.
pub const RING_BYTES_MIN: usize = 4 << 10;

/// The last bytes of a stream.
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
    bytes_min: usize,
    bytes_max: usize,
    granted: usize,
}

impl Ring {
    /// A ring that holds at most `bytes_max`, of which `bytes_min` need no grant.
    pub fn new(bytes_min: usize, bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), end: 0, bytes_min, bytes_max, granted: 0 }
    }

    /// Lets the stream begin at this offset. It must be empty.
    pub fn begin_at(&mut self, offset: u64) {
        self.end = offset;
    }

    /// Appends bytes. `grant` is asked for room, in bytes, and says whether there is any; `dropped` is given the bytes
    /// that are no longer held, in order.
    pub fn push(&mut self, bytes: &[u8], grant: impl FnMut(usize) -> bool, mut dropped: impl FnMut(&[u8])) {
        let room = self.grow(bytes.len(), grant);
        // More than it can ever hold passes through.
        let (through, kept) = bytes.split_at(bytes.len().saturating_sub(room));
        self.drop_oldest((self.bytes.len() + kept.len()).saturating_sub(room), &mut dropped);
        dropped(through);
        self.bytes.extend(kept);
        self.end = self.end.saturating_add(bytes.len() as u64);
    }

    /// The offsets of the bytes that are held.
    pub fn held(&self) -> Range<u64> {
        self.end - self.bytes.len() as u64..self.end
    }

    /// How many bytes are held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes from the offset `from` on, at most `bytes_max`, in two parts of which either may be empty. What is no
    /// longer held, or not there yet, is left out.
    pub fn slices(&self, from: u64, bytes_max: usize) -> (&[u8], &[u8]) {
        let held = self.held();
        let at = |offset: u64| usize::try_from(offset.clamp(held.start, held.end) - held.start).unwrap_or(usize::MAX);
        let start = at(from);
        let end = at(from.saturating_add(bytes_max as u64));
        let (older, newer) = self.bytes.as_slices();
        let part = |slice: &'_ [u8], base: usize| {
            let cut = |index: usize| index.saturating_sub(base).min(slice.len());
            cut(start)..cut(end)
        };
        let (one, other) = (part(older, 0), part(newer, older.len()));
        (older.get(one).unwrap_or_default(), newer.get(other).unwrap_or_default())
    }

    /// All bytes, in one piece.
    pub fn make_contiguous(&mut self) -> &[u8] {
        self.bytes.make_contiguous()
    }

    /// Gives back every grant above `bytes`, and drops the oldest bytes that no longer have room.
    pub fn shrink(&mut self, bytes: usize, mut dropped: impl FnMut(&[u8])) {
        self.granted = self.granted.min(bytes);
        self.drop_oldest(self.bytes.len().saturating_sub(self.room()), &mut dropped);
        self.bytes.shrink_to(self.room());
    }

    /// Lets it hold `bytes_max`, if that is more than before.
    pub fn raise_bound(&mut self, bytes_max: usize) {
        self.bytes_max = self.bytes_max.max(bytes_max);
    }

    /// Lets it hold no more than `bytes_max` from the next [`shrink`](Self::shrink) on.
    pub fn lower_bound(&mut self, bytes_max: usize) {
        self.bytes_max = self.bytes_max.min(bytes_max);
    }

    /// Makes room for `wanted` more bytes, as far as the bound and the grants go; the result is the room for all.
    pub fn grow(&mut self, wanted: usize, mut grant: impl FnMut(usize) -> bool) -> usize {
        let wanted = self.bytes.len().saturating_add(wanted).min(self.bytes_max);
        while self.room() < wanted {
            // Twice as much each time, so that bytes are moved a bounded number of times.
            let next = self.room().saturating_mul(2).min(self.bytes_max);
            if !grant(next - self.granted) {
                break;
            }
            self.granted = next;
        }
        let room = self.room();
        let target = wanted.min(room).next_power_of_two().min(room);
        self.bytes.reserve_exact(target.saturating_sub(self.bytes.len()));
        room
    }

    /// How much may be held now.
    fn room(&self) -> usize {
        self.granted.max(self.bytes_min).min(self.bytes_max)
    }

    fn drop_oldest(&mut self, count: usize, dropped: &mut impl FnMut(&[u8])) {
        let (front, back) = self.bytes.as_slices();
        let of_front = count.min(front.len());
        dropped(front.get(..of_front).unwrap_or_default());
        dropped(back.get(..count - of_front).unwrap_or_default());
        self.bytes.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn copy(ring: &Ring, from: u64, bytes_max: usize) -> Vec<u8> {
        let (one, other) = ring.slices(from, bytes_max);
        [one, other].concat()
    }

    #[test]
    fn ring_without_grant_holds_its_minimum() {
        let mut ring = Ring::new(RING_BYTES_MIN, 1 << 20);
        ring.push(&[1; 10_000], |_| false, |_| {});
        assert_eq!(ring.held(), 10_000 - RING_BYTES_MIN as u64..10_000);
        ring.push(&[2; 10_000], |_| true, |_| {});
        assert_eq!(ring.len(), RING_BYTES_MIN + 10_000);
        ring.shrink(0, |_| {});
        assert_eq!(copy(&ring, 0, usize::MAX), [2; RING_BYTES_MIN]);
    }

    #[test]
    fn ring_takes_no_more_memory_than_granted() {
        let (mut ring, mut granted) = (Ring::new(RING_BYTES_MIN, 64 << 10), 0);
        for _ in 0..100 {
            let grant = |bytes| {
                granted += bytes;
                true
            };
            ring.push(&[0; 3_000], grant, |_| {});
            assert!(ring.bytes.capacity() <= granted.max(RING_BYTES_MIN), "{} > {granted}", ring.bytes.capacity());
        }
        assert_eq!((granted, ring.len()), (64 << 10, 64 << 10));
    }

    proptest! {
        #[test]
        fn ring_holds_the_end_and_drops_the_rest(
            pushes in proptest::collection::vec((0_usize..9_000, any::<bool>()), 1..20),
            bytes_max in 0_usize..20_000, from in 0_u64..200_000, take in 0_usize..20_000,
        ) {
            let mut ring = Ring::new(RING_BYTES_MIN, bytes_max);
            let (mut all, mut dropped) = (Vec::<u8>::new(), Vec::new());
            for (length, granted) in pushes {
                let next: Vec<u8> = (0..length).map(|at| ((all.len() + at) % 251).to_le_bytes()[0]).collect();
                all.extend(&next);
                ring.push(&next, |_| granted, |bytes| dropped.extend_from_slice(bytes));
                prop_assert!(ring.len() <= bytes_max);
                prop_assert_eq!(ring.held(), dropped.len() as u64..all.len() as u64);
                prop_assert_eq!([&*dropped, &*copy(&ring, 0, usize::MAX)].concat(), &*all);
            }
            let held = ring.held();
            let start = usize::try_from(from.clamp(held.start, held.end)).expect("short");
            let until = usize::try_from((from + take as u64).clamp(held.start, held.end)).expect("short");
            prop_assert_eq!(copy(&ring, from, take), all[start..until].to_vec());
        }
    }
}
