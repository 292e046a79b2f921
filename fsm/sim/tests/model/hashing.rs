//! A world as a number: equal for two worlds with the same future.

use crate::world::World;
use draupnir_fsm::canonical::{Origin, counted, relative};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Hashes moments, links, attempts and Pings by their distance to the newest, and counters up to their cap.
pub(crate) struct Present {
    inner: DefaultHasher,
    now: u64,
    link: u64,
    attempt: u64,
    /// Further back than this, in milliseconds, no rule of the policy looks.
    past_ms: u64,
    /// From so many failures on, no wait of the policy grows.
    failures: [u32; 5],
}

/// Further ahead than this, in milliseconds, is never: a year.
const FUTURE_MS: u64 = 365 * 86_400_000;

impl Hasher for Present {
    fn finish(&self) -> u64 {
        self.inner.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.inner.write(bytes);
    }

    fn write_u8(&mut self, number: u8) {
        self.inner.write_u8(number);
    }

    fn write_u32(&mut self, number: u32) {
        self.inner.write_u32(number);
    }

    fn write_u64(&mut self, number: u64) {
        self.inner.write_u64(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.inner.write_usize(number);
    }

    fn write_u128(&mut self, failures: u128) {
        let (row, count) = counted(failures).expect("only counts of failures are hashed as `u128`");
        self.inner.write_u32(count.min(self.failures[row]));
    }

    fn write_i128(&mut self, number: i128) {
        let (origin, horizon, value) = relative(number).expect("only relative numbers are hashed as `i128`");
        let (newest, horizon) = match origin {
            Origin::Moment => (self.now, u64::from(horizon).min(self.past_ms)),
            Origin::Link => (self.link, horizon.into()),
            Origin::Attempt => (self.attempt, horizon.into()),
        };
        let (behind, ahead) = (newest.saturating_sub(value).min(horizon), value.saturating_sub(newest).min(FUTURE_MS));
        self.inner.write_u64(behind << 1 | u64::from(ahead > 0));
        self.inner.write_u64(ahead);
    }
}

/// What tells this world from those with another future; never 0.
pub(crate) fn fingerprint(world: &World) -> u64 {
    let mut hasher = Present {
        inner: DefaultHasher::new(),
        now: world.now.as_ms(),
        link: world.newest_link.0.into(),
        attempt: world.newest_attempt.0.into(),
        past_ms: world.setting.past_ms(),
        failures: world.setting.failures_max(),
    };
    world.hash(&mut hasher);
    hasher.finish().max(1)
}
