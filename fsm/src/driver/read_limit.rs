//! How fast the console's messages are read: no faster than it costs this machine little.
//!
//! A token bucket whose unit is time: each message and each byte costs some, and two seconds of it may be spent at
//! once. While more was spent, the socket is left alone, and TCP slows the console down. One per connection.

/// What a message costs, however short, in nanoseconds: 5,000 a second. To decode one and to log or answer it takes
/// some ten microseconds; sixty-four people who type make 2,000.
pub(super) const MESSAGE_COST_NS: u64 = 200_000;

/// What a byte costs, in nanoseconds: 16 MiB a second, which take some percent of a processor.
pub(super) const BYTE_COST_NS: u64 = 60;

/// How much may be spent at once, in nanoseconds: 10,000 messages, or 32 MiB. A large paste passes undelayed.
pub(super) const BURST_NS: u64 = 2_000_000_000;

/// The shortest pause, in nanoseconds: a shorter one would cost more than what it holds up.
pub(super) const PAUSE_MIN_NS: u64 = 50_000_000;

/// What was read on one connection, counted as time.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadLimiter {
    /// When the bucket is full again.
    full_at_ns: u64,
}

impl ReadLimiter {
    /// Counts messages and bytes that were read at `now_ns` of any clock that does not go back; for how long nothing
    /// more may be read then, in nanoseconds.
    pub fn charge(&mut self, now_ns: u64, messages: u64, bytes: u64) -> Option<u64> {
        let cost = messages.saturating_mul(MESSAGE_COST_NS).saturating_add(bytes.saturating_mul(BYTE_COST_NS));
        self.full_at_ns = self.full_at_ns.max(now_ns).saturating_add(cost);
        let excess = (self.full_at_ns - now_ns).saturating_sub(BURST_NS);
        (excess > 0).then(|| excess.max(PAUSE_MIN_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long nothing may be read after `messages` of `bytes` each, sent at once, in milliseconds.
    fn pause_ms(messages: u64, bytes: u64) -> u64 {
        let mut limiter = ReadLimiter::default();
        let pauses = (0..messages).map(|_| limiter.charge(0, 1, bytes)).last();
        pauses.flatten().unwrap_or(0) / 1_000_000
    }

    #[test]
    fn typing_is_not_delayed() {
        assert_eq!(pause_ms(10_000, 0), 0);
        assert_eq!(pause_ms(31, 1 << 20), 0);
    }

    #[test]
    fn flood_is_delayed_by_its_excess() {
        assert_eq!(pause_ms(10_001, 0), 50);
        assert_eq!(pause_ms(15_000, 0), 1_000);
        assert_eq!(pause_ms(64, 1 << 20), 2_039);
    }

    #[test]
    fn steady_load_within_the_rate_is_not_delayed() {
        let mut limiter = ReadLimiter::default();
        for second in 0..10 {
            for _ in 0..5_000 {
                assert_eq!(limiter.charge(second * 1_000_000_000, 1, 0), None);
            }
        }
    }
}
