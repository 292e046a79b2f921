//! What was acknowledged in the last second, and the window that follows from it.
//!
//! It does not know what the bytes are. A second is counted in slots of 100 ms, so the figure is exact to a tenth.
//! Units: encoded bytes, as [`encoded_bytes`] counts them.

use crate::time::Time;
use core::hash::{Hash, Hasher};

/// How long one slot counts, in milliseconds.
const SLOT_MS: u64 = 100;

/// How many slots make the second that a window looks back on.
const SLOTS: usize = 10;

/// What a frame costs beside its bytes: envelope, identifiers, offset, WebSocket header. The agent's frames need
/// 120–230 bytes; the figure only has to be near enough that a flood of single bytes is not taken for nothing.
const FRAME_OVERHEAD_BYTES: u64 = 192;

/// What `raw` bytes of a stream cost on the wire: base64 makes four of three, and the frame around them is added.
pub(super) const fn encoded_bytes(raw: u64) -> u64 {
    raw.div_ceil(3) * 4 + FRAME_OVERHEAD_BYTES
}

/// How many raw bytes fit into `encoded` encoded ones, leaving out the frame around them.
pub(super) const fn raw_bytes(encoded: u64) -> u64 {
    encoded / 4 * 3
}

/// Bytes acknowledged in the last second.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    slots: [u32; SLOTS],
    /// Number of the newest slot, counted from the start of time.
    newest: u64,
}

impl Rate {
    /// Counts `bytes` that were acknowledged at `now`.
    pub(super) fn acknowledged(&mut self, now: Time, bytes: u64) {
        self.advance(now);
        let slot = &mut self.slots[place(self.newest)];
        *slot = slot.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Bytes acknowledged in the second before `now`.
    pub(super) fn last_second(&self, now: Time) -> u64 {
        let newest = slot_number(now).max(self.newest);
        let passed = newest - self.newest;
        (passed..SLOTS as u64)
            .map(|age| age - passed)
            .filter(|age| *age <= self.newest)
            .map(|age| u64::from(self.slots[place(self.newest - age)]))
            .sum()
    }

    fn advance(&mut self, now: Time) {
        let newest = slot_number(now).max(self.newest);
        if newest - self.newest >= SLOTS as u64 {
            self.slots = [0; SLOTS];
        } else {
            for slot in self.newest + 1..=newest {
                self.slots[place(slot)] = 0;
            }
        }
        self.newest = newest;
    }
}

/// The slots by age, and the age of the newest.
impl Hash for Rate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Time::from_ms(self.newest * SLOT_MS).hash(state);
        (0..SLOTS as u64).map(|age| self.slots[place(self.newest + age)]).for_each(|slot| slot.hash(state));
    }
}

const fn slot_number(now: Time) -> u64 {
    now.as_ms() / SLOT_MS
}

/// Where a slot is kept.
#[allow(clippy::cast_possible_truncation)] // the remainder is below ten
const fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_remembered_and_no_more() {
        let mut rate = Rate::default();
        rate.acknowledged(Time::from_ms(1_000), 10);
        rate.acknowledged(Time::from_ms(1_950), 5);
        assert_eq!(rate.last_second(Time::from_ms(1_950)), 15);
        assert_eq!(rate.last_second(Time::from_ms(2_000)), 5);
        assert_eq!(rate.last_second(Time::from_ms(2_899)), 5);
        assert_eq!(rate.last_second(Time::from_ms(2_900)), 0);
        rate.acknowledged(Time::from_ms(9_000), 1);
        assert_eq!(rate.last_second(Time::from_ms(9_000)), 1);
    }

    #[test]
    fn time_that_seems_to_go_back_counts_in_the_newest_slot() {
        let mut rate = Rate::default();
        rate.acknowledged(Time::from_ms(5_000), 3);
        rate.acknowledged(Time::from_ms(10), 4);
        assert_eq!(rate.last_second(Time::from_ms(5_000)), 7);
        assert_eq!(rate.last_second(Time::START), 7);
    }

    #[test]
    fn encoding_is_counted_up_and_room_down() {
        assert_eq!(encoded_bytes(0), FRAME_OVERHEAD_BYTES);
        assert_eq!(encoded_bytes(1), 4 + FRAME_OVERHEAD_BYTES);
        assert_eq!(encoded_bytes(3), 4 + FRAME_OVERHEAD_BYTES);
        assert_eq!(raw_bytes(7), 3);
        assert_eq!(raw_bytes(3), 0);
    }

    /// Domain: every length up to the window of a link.
    #[test]
    fn every_length_fits_what_it_is_counted_for() {
        for bytes in 0..=crate::delivery::LINK_WINDOW_BYTES_MAX {
            assert!(raw_bytes(encoded_bytes(bytes)) >= bytes, "{bytes}");
            assert!(encoded_bytes(raw_bytes(bytes)) <= bytes + FRAME_OVERHEAD_BYTES, "{bytes}");
        }
    }
}
