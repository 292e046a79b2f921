//! The newest of many ids, as 128-bit hashes: a ring of them, and a hash table of the places in it.
//!
//! The hashes are keyed by the agent, so their low bits are as good as random.
//!
//! Invariants: a free place always ends a search in the table (linear probing; Knuth, The Art of Computer Programming,
//! volume 3, section 6.4, algorithms L and R); an id takes at most 22 bytes once there are many.

use alloc::vec::Vec;

/// How many ids are kept.
pub(super) const IDS_MAX: usize = 16_384;

/// The memory of one id where there are thousands, in bytes: its hash, and 2 bytes for each place of a table of which
/// between three eighths and three quarters are taken.
#[cfg(test)]
const ID_BYTES_MAX: usize = 22;

/// By how many ids the ring grows: 4 KiB, so that little of it is unused.
const STEP_IDS: usize = 256;

/// The places of the smallest table.
const TABLE_PLACES_MIN: usize = 64;

/// A place of the table that is not taken.
const FREE: u16 = u16::MAX;

const _: () = assert!(IDS_MAX <= FREE as usize);

/// The newest ids.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct IdRing {
    ids: Vec<u128>,
    /// Where the oldest is, once the ring is full.
    oldest: usize,
    /// Places in `ids`; the length is zero or a power of two.
    table: Vec<u16>,
}

impl IdRing {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = u128> {
        let (newer, older) = self.ids.split_at(self.oldest.min(self.ids.len()));
        older.iter().chain(newer).copied()
    }

    pub(super) fn contains(&self, id: u128) -> bool {
        !self.table.is_empty() && self.places_from(self.home(id)).any(|(_, slot)| self.ids.get(slot) == Some(&id))
    }

    /// Adds an id; the oldest goes if there are too many. An id that is there already stays where it is.
    pub(super) fn insert(&mut self, id: u128) {
        if self.contains(id) {
            return;
        }
        let slot = if self.ids.len() < IDS_MAX {
            if self.ids.len() == self.ids.capacity() {
                self.ids.reserve_exact(STEP_IDS);
            }
            self.ids.push(id);
            self.ids.len() - 1
        } else {
            let slot = self.oldest;
            self.oldest = (slot + 1) % IDS_MAX;
            self.free_place_of(slot);
            if let Some(oldest) = self.ids.get_mut(slot) {
                *oldest = id;
            }
            slot
        };
        if self.ids.len() * 4 > self.table.len() * 3 {
            self.grow_table();
        } else {
            self.take_place(slot);
        }
    }

    fn grow_table(&mut self) {
        let places = (self.table.len() * 2).max(TABLE_PLACES_MIN);
        self.table = Vec::new();
        self.table.resize(places, FREE);
        (0..self.ids.len()).for_each(|slot| self.take_place(slot));
    }

    fn take_place(&mut self, slot: usize) {
        let Some(id) = self.ids.get(slot) else { return };
        let mut at = self.home(*id);
        while self.slot_at(at).is_some() {
            at = self.next(at);
        }
        self.set(at, u16::try_from(slot).unwrap_or(FREE));
    }

    /// Frees the place of an id, and closes the gap, so that no search ends at it too soon.
    fn free_place_of(&mut self, slot: usize) {
        let Some(id) = self.ids.get(slot) else { return };
        let Some((mut gap, _)) = self.places_from(self.home(*id)).find(|(_, other)| *other == slot) else { return };
        let mut at = self.next(gap);
        while let Some((moved, id)) = self.slot_at(at).and_then(|slot| Some((slot, self.ids.get(slot)?))) {
            // One whose search begins behind the gap does not pass it.
            let from_home = at.wrapping_sub(self.home(*id)) & self.mask();
            if from_home >= at.wrapping_sub(gap) & self.mask() {
                self.set(gap, u16::try_from(moved).unwrap_or(FREE));
                gap = at;
            }
            at = self.next(at);
        }
        self.set(gap, FREE);
    }

    /// The places from one on, and what takes them, up to the first that is free.
    fn places_from(&self, home: usize) -> impl Iterator<Item = (usize, usize)> {
        core::iter::successors(Some(home), |at| Some(self.next(*at))).map_while(|at| Some((at, self.slot_at(at)?)))
    }

    fn slot_at(&self, at: usize) -> Option<usize> {
        self.table.get(at).filter(|slot| **slot != FREE).map(|slot| usize::from(*slot))
    }

    fn set(&mut self, at: usize, slot: u16) {
        if let Some(place) = self.table.get_mut(at) {
            *place = slot;
        }
    }

    /// Where the search for an id begins.
    fn home(&self, id: u128) -> usize {
        usize::try_from(id & self.mask() as u128).unwrap_or(0)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    fn mask(&self) -> usize {
        self.table.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Ids of which many share the beginning of their search.
    fn ids(count: usize) -> impl Iterator<Item = u128> {
        let mut random = Random::new(7);
        (0..count as u128).map(move |number| number << 64 | u128::from(random.next_u64() & 0x3ff8))
    }

    #[test]
    fn oldest_of_colliding_ids_goes_and_no_other() {
        let all: Vec<u128> = ids(IDS_MAX + 5_000).collect();
        let mut ring = IdRing::default();
        for (number, id) in all.iter().enumerate() {
            assert!(!ring.contains(*id));
            ring.insert(*id);
            ring.insert(*id);
            assert_eq!(ring.len(), (number + 1).min(IDS_MAX));
            if number % 3_000 == 0 || number + 1 == all.len() {
                let gone = (number + 1).saturating_sub(IDS_MAX);
                let known: Vec<bool> = all.iter().map(|id| ring.contains(*id)).collect();
                assert!(known.iter().enumerate().all(|(at, known)| *known == (gone..=number).contains(&at)));
            }
        }
    }

    #[test]
    fn memory_of_an_id_is_bounded() {
        let mut ring = IdRing::default();
        for (number, id) in ids(IDS_MAX + 1_000).enumerate() {
            ring.insert(id);
            let bytes = ring.ids.capacity() * size_of::<u128>() + ring.table.capacity() * size_of::<u16>();
            let steps_bytes = STEP_IDS * size_of::<u128>();
            assert!(number < 1_000 || bytes <= ring.len() * ID_BYTES_MAX + steps_bytes, "{bytes} for {}", ring.len());
        }
    }
}
