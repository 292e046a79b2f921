//! The last bytes of a stream, by their offset: what can still be sent, or sent again.
//!
//! It does not know what the bytes are and cuts no characters out of them. It grows as it fills, in steps that the owner
//! has to grant (all buffers share one budget); what is not granted it does without, and drops its oldest bytes sooner.
//!
//! Invariants: it holds the bytes of one range without a gap, up to the last byte pushed; never more than its bound.
//!
//! Units: offsets count bytes since the start of the stream.

use std::collections::VecDeque;
use std::ops::Range;

/// What a ring may hold without asking, in bytes: a screen of text.
pub const RING_BYTES_MIN: usize = 4 << 10;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
    bytes_max: usize,
    granted: usize,
}

impl Ring {
    /// A ring for a stream from `start` on, which holds at most `bytes_max`.
    pub fn new(start: u64, bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), end: start, bytes_max, granted: 0 }
    }

    /// Appends bytes. `grant` is asked for room, in bytes, and says whether there is any.
    pub fn push(&mut self, bytes: &[u8], grant: impl FnMut(usize) -> bool) {
        self.end = self.end.saturating_add(bytes.len() as u64);
        let wanted = self.bytes.len().saturating_add(bytes.len());
        let room = self.grow(wanted, grant);
        let kept = bytes.get(bytes.len().saturating_sub(room)..).unwrap_or_default();
        let excess = (self.bytes.len() + kept.len()).saturating_sub(room);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
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

    /// How many bytes were granted, and are to be given back with the ring.
    pub fn granted(&self) -> usize {
        self.granted
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

    /// Holds no more than `bytes` from now on until more is granted; the result is how much of the grant is given back.
    pub fn shrink(&mut self, bytes: usize) -> usize {
        let granted = self.granted.min(bytes.saturating_sub(RING_BYTES_MIN));
        let given_back = self.granted - granted;
        self.granted = granted;
        self.bytes.drain(..self.bytes.len().saturating_sub(self.room()));
        self.bytes.shrink_to(self.room());
        given_back
    }

    /// How much may be held now.
    fn room(&self) -> usize {
        (RING_BYTES_MIN + self.granted).min(self.bytes_max)
    }

    /// Makes room for `wanted` bytes, as far as the bound and the grants go; the result is the room.
    fn grow(&mut self, wanted: usize, mut grant: impl FnMut(usize) -> bool) -> usize {
        while self.room() < wanted.min(self.bytes_max) {
            // Twice as much each time, so that bytes are moved a bounded number of times.
            let step = self.room().min(self.bytes_max - self.room());
            if !grant(step) {
                break;
            }
            self.granted += step;
        }
        let room = self.room();
        let target = wanted.min(room).next_power_of_two().min(room);
        self.bytes.reserve_exact(target.saturating_sub(self.bytes.len()));
        room
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
    fn what_is_not_granted_is_not_held() {
        let mut ring = Ring::new(100, 1 << 20);
        ring.push(&[1; 10_000], |_| false);
        assert_eq!(ring.len(), RING_BYTES_MIN);
        assert_eq!(ring.held(), 10_100 - RING_BYTES_MIN as u64..10_100);
        assert_eq!(ring.granted(), 0);
        ring.push(&[2; 10_000], |_| true);
        assert_eq!(ring.len(), RING_BYTES_MIN + 10_000);
        assert!(ring.granted() >= 10_000);
        let granted = ring.granted();
        assert_eq!(ring.shrink(0), granted);
        assert_eq!(copy(&ring, 0, usize::MAX), [2; RING_BYTES_MIN]);
    }

    #[test]
    fn a_ring_takes_no_more_memory_than_was_granted() {
        let mut ring = Ring::new(0, 64 << 10);
        let mut granted = RING_BYTES_MIN;
        for _ in 0..100 {
            ring.push(&[0; 3_000], |bytes| {
                granted += bytes;
                true
            });
            assert!(ring.bytes.capacity() <= granted, "{} > {granted}", ring.bytes.capacity());
        }
        assert_eq!((granted, ring.len()), (64 << 10, 64 << 10));
    }

    proptest! {
        #[test]
        fn a_ring_is_the_end_of_what_was_pushed(
            pushes in proptest::collection::vec((0_usize..9_000, any::<bool>()), 1..20),
            bytes_max in 0_usize..20_000, from in 0_u64..200_000, take in 0_usize..20_000,
        ) {
            let mut ring = Ring::new(7, bytes_max);
            let mut all = vec![0_u8; 7];
            for (length, granted) in pushes {
                let next: Vec<u8> = (0..length).map(|at| ((all.len() + at) % 251).to_le_bytes()[0]).collect();
                all.extend(&next);
                ring.push(&next, |_| granted);
                prop_assert!(ring.len() <= bytes_max);
                prop_assert_eq!(ring.held().end, all.len() as u64);
                let held = all.split_off(all.len() - ring.len());
                prop_assert_eq!(copy(&ring, 0, usize::MAX), held.clone());
                all.extend(held);
            }
            let held = ring.held();
            let start = usize::try_from(from.clamp(held.start, held.end)).expect("short");
            let until = usize::try_from((from + take as u64).clamp(held.start, held.end)).expect("short");
            prop_assert_eq!(copy(&ring, from, take), all[start..until].to_vec());
        }
    }
}
