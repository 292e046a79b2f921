//! How long to wait before trying again: one growing wait for each kind of failure.
//!
//! It draws from the jitter generator that it is given and keeps nothing but how far each wait has grown. What counts
//! as which failure is the machine's decision. All waits are in milliseconds.

use crate::canonical::hash_count;
use crate::limits::Policy;
use crate::random::Random;
use core::hash::{Hash, Hasher};
use serde::{Deserialize, Serialize};

/// The waits, as far as they have grown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// Ordinary waits since the last stable connection: 0 for none, 1 after the first retry after a loss.
    retries: u32,
    refused: u32,
    unknown: u32,
    replaced: u32,
    /// Probes of the port since the last stable connection; at their bound there are no more.
    port_probes: u32,
}

impl Backoff {
    /// After a loss: short the first time, since most losses are blips; longer when the console said that it
    /// `goes_away`.
    pub fn after_loss_ms(&mut self, goes_away: bool, policy: &Policy, random: &mut Random) -> u64 {
        if self.retries > 0 {
            return self.after_failure_ms(policy, random);
        }
        self.retries = 1;
        random.between(0, if goes_away { policy.away_retry_ms } else { policy.first_retry_ms })
    }

    /// After a registration or dial that came to nothing.
    pub fn after_failure_ms(&mut self, policy: &Policy, random: &mut Random) -> u64 {
        let step = self.retries.max(1) - 1;
        self.retries = step.saturating_add(2);
        random.between(0, doubled(policy.retry_base_ms, step, policy.retry_cap_ms))
    }

    /// After an answer with `Retry-After`: what it asks for, as far as that is believed, and up to as much again. Less
    /// than a second is not a wait but a slip of the console, and the ordinary row holds.
    pub fn after_request_ms(&mut self, asked_ms: u64, policy: &Policy, random: &mut Random) -> u64 {
        let ordinary_ms = self.after_failure_ms(policy, random);
        if asked_ms < policy.retry_after_min_ms {
            return ordinary_ms;
        }
        let asked_ms = asked_ms.min(policy.retry_after_max_ms);
        asked_ms + random.between(0, asked_ms)
    }

    /// After the console refused the key.
    pub fn after_refusal_ms(&mut self, policy: &Policy, random: &mut Random) -> u64 {
        let wait_ms = doubled(policy.refused_base_ms, self.refused, policy.slow_cap_ms);
        self.refused = self.refused.saturating_add(1);
        random.between(wait_ms / 2, wait_ms + wait_ms / 2)
    }

    /// After the console said that it does not know us.
    pub fn after_unknown_ms(&mut self, policy: &Policy, random: &mut Random) -> u64 {
        let wait_ms = doubled(policy.unknown_base_ms, self.unknown, policy.slow_cap_ms);
        self.unknown = self.unknown.saturating_add(1);
        random.between(0, wait_ms)
    }

    /// After another connection took our place.
    pub fn after_replacement_ms(&mut self, policy: &Policy) -> u64 {
        let wait_ms = doubled(policy.replaced_base_ms, self.replaced, policy.slow_cap_ms);
        self.replaced = self.replaced.saturating_add(1);
        wait_ms
    }

    /// Whether a port that was refused may be probed.
    pub const fn has_port_probes(&self, policy: &Policy) -> bool {
        self.port_probes < policy.port_probes_max
    }

    /// The port is probed.
    pub fn count_port_probe(&mut self) {
        self.port_probes = self.port_probes.saturating_add(1);
    }

    /// No more probes until the connection is stable.
    pub fn end_port_probes(&mut self, policy: &Policy) {
        self.port_probes = policy.port_probes_max;
    }

    /// The connection is stable: resets every wait but the one after a replacement.
    pub fn reset(&mut self) {
        *self = Self { replaced: self.replaced, ..Self::default() };
    }

    /// The connection has been stable for long: resets the wait after a replacement too.
    pub fn reset_replacement(&mut self) {
        self.replaced = 0;
    }
}

/// A hasher that knows the policy takes all failures at the cap for the same.
impl Hash for Backoff {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { retries, refused, unknown, replaced, port_probes } = self;
        (0..)
            .zip([retries, refused, unknown, replaced, port_probes])
            .for_each(|(row, failures)| hash_count(row, *failures, state));
    }
}

/// `base_ms` doubled `times` times, at most `cap_ms`.
fn doubled(base_ms: u64, times: u32, cap_ms: u64) -> u64 {
    // Beyond 2³² any base is over any cap.
    base_ms.saturating_mul(1 << times.min(32)).min(cap_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY_DRAWS: usize = 2_000;

    /// The least and the greatest of many draws of what the given steps lead to.
    fn range(steps: impl Fn(&mut Backoff, &Policy, &mut Random) -> u64) -> (u64, u64) {
        let policy = Policy::default();
        let mut random = Random::new(3);
        let draws = (0..POLICY_DRAWS).map(|_| steps(&mut Backoff::default(), &policy, &mut random));
        draws.fold((u64::MAX, 0), |(low, high), draw| (low.min(draw), high.max(draw)))
    }

    #[track_caller]
    fn assert_fills(drawn: (u64, u64), low: u64, high: u64) {
        let slack = (high - low) / 50;
        assert!(drawn.0 >= low && drawn.0 <= low + slack, "{drawn:?} does not start at {low}");
        assert!(drawn.1 <= high && drawn.1 + slack >= high, "{drawn:?} does not end at {high}");
    }

    #[test]
    fn the_first_retry_after_a_loss_comes_within_two_seconds() {
        assert_fills(range(|backoff, policy, random| backoff.after_loss_ms(false, policy, random)), 0, 2_000);
    }

    #[test]
    fn the_first_retry_after_going_away_comes_within_ten_seconds() {
        assert_fills(range(|backoff, policy, random| backoff.after_loss_ms(true, policy, random)), 0, 10_000);
    }

    #[test]
    fn later_retries_double_from_ten_seconds_to_thirty() {
        for (failures, high) in [(0, 10_000), (1, 20_000), (2, 30_000), (3, 30_000), (200, 30_000)] {
            let drawn = range(|backoff, policy, random| {
                backoff.after_loss_ms(false, policy, random);
                for _ in 0..failures {
                    backoff.after_failure_ms(policy, random);
                }
                backoff.after_failure_ms(policy, random)
            });
            assert_fills(drawn, 0, high);
        }
    }

    #[test]
    fn a_cold_start_begins_with_the_later_row() {
        assert_fills(range(|backoff, policy, random| backoff.after_failure_ms(policy, random)), 0, 10_000);
    }

    #[test]
    fn an_unstable_connection_keeps_the_backoff() {
        let drawn = range(|backoff, policy, random| {
            backoff.after_loss_ms(false, policy, random);
            backoff.after_loss_ms(false, policy, random)
        });
        assert_fills(drawn, 0, 10_000);
    }

    #[test]
    fn retry_after_is_honoured_and_clamped() {
        assert_fills(range(|b, p, r| b.after_request_ms(7_000, p, r)), 7_000, 14_000);
        assert_fills(range(|b, p, r| b.after_request_ms(u64::MAX, p, r)), 600_000, 1_200_000);
        assert_fills(range(|b, p, r| b.after_request_ms(0, p, r)), 0, 10_000);
        assert_fills(range(|b, p, r| b.after_request_ms(999, p, r)), 0, 10_000);
        assert_fills(range(|b, p, r| b.after_request_ms(1_000, p, r)), 1_000, 2_000);
    }

    #[test]
    fn the_slow_rows_double_to_ten_minutes() {
        for (times, middle) in [(0, 60_000), (1, 120_000), (2, 240_000), (3, 480_000), (4, 600_000), (90, 600_000)] {
            let drawn = range(|b, p, r| (0..=times).map(|_| b.after_refusal_ms(p, r)).last().unwrap_or(0));
            assert_fills(drawn, middle / 2, middle + middle / 2);
        }
        for (times, high) in [(0, 5_000), (1, 10_000), (6, 320_000), (7, 600_000)] {
            let drawn = range(|b, p, r| (0..=times).map(|_| b.after_unknown_ms(p, r)).last().unwrap_or(0));
            assert_fills(drawn, 0, high);
        }
        for (times, exact) in [(0, 5_000), (1, 10_000), (6, 320_000), (7, 600_000), (40, 600_000)] {
            let drawn = range(|b, p, _| (0..=times).map(|_| b.after_replacement_ms(p)).last().unwrap_or(0));
            assert_eq!(drawn, (exact, exact));
        }
    }

    #[test]
    fn a_reset_forgets_all_but_replacement() {
        let policy = Policy::default();
        let mut random = Random::new(5);
        let mut backoff = Backoff { retries: 9, refused: 9, unknown: 9, replaced: 1, port_probes: 400 };
        assert!(!backoff.has_port_probes(&policy));
        backoff.reset();
        assert!(backoff.after_loss_ms(false, &policy, &mut random) <= 2_000);
        assert!(backoff.after_refusal_ms(&policy, &mut random) <= 90_000);
        assert!(backoff.after_unknown_ms(&policy, &mut random) <= 5_000);
        assert!(backoff.has_port_probes(&policy));
        assert_eq!(backoff.after_replacement_ms(&policy), 10_000);
        backoff.reset_replacement();
        assert_eq!(backoff.after_replacement_ms(&policy), 5_000);
    }

    #[test]
    fn port_probes_are_bounded_until_a_reset() {
        let policy = Policy::default();
        let mut backoff = Backoff::default();
        for _ in 0..policy.port_probes_max {
            assert!(backoff.has_port_probes(&policy));
            backoff.count_port_probe();
        }
        assert!(!backoff.has_port_probes(&policy));
        backoff.reset();
        assert!(backoff.has_port_probes(&policy));
        backoff.end_port_probes(&policy);
        assert!(!backoff.has_port_probes(&policy));
    }

    /// Domain: every number of failures up to 40 in a row, and the least and the greatest draw.
    #[test]
    fn every_wait_is_within_its_row_after_any_failures() {
        let policy = Policy::default();
        let draws = [(0, false), (0xCF9A_04AF_FA6B_ADC0, true)]; // what leads to 0 and to the greatest number
        for (state, is_greatest) in draws {
            let mut random = Random::constant(state);
            let pick = |low: u64, high: u64| if is_greatest { high } else { low };
            let mut backoff = Backoff::default();
            for failures in 0..40_u32 {
                let slow = |base_ms: u64| (u128::from(base_ms) << failures).min(policy.slow_cap_ms.into());
                let slow = |base_ms| u64::try_from(slow(base_ms)).expect("at most the cap");
                let retry_ms = policy.retry_cap_ms.min(policy.retry_base_ms << failures.min(20));
                assert_eq!(backoff.after_failure_ms(&policy, &mut random), pick(0, retry_ms), "{failures}");
                let refused_ms = slow(policy.refused_base_ms);
                let expected_ms = pick(refused_ms / 2, refused_ms + refused_ms / 2);
                assert_eq!(backoff.after_refusal_ms(&policy, &mut random), expected_ms, "{failures}");
                let unknown_ms = slow(policy.unknown_base_ms);
                assert_eq!(backoff.after_unknown_ms(&policy, &mut random), pick(0, unknown_ms), "{failures}");
                assert_eq!(backoff.after_replacement_ms(&policy), slow(policy.replaced_base_ms), "{failures}");
            }
        }
    }
    /// Domain: every number of failures up to 40, the greatest that is counted, and the least and the greatest draw; of
    /// what `Retry-After` asks for, every second up to twelve minutes, its bounds, and the greatest number.
    #[test]
    fn first_and_requested_waits_are_within_their_rows() {
        let policy = Policy::default();
        let bounds = [policy.retry_after_min_ms, policy.retry_after_max_ms].map(|ms| [ms - 1, ms, ms + 1]);
        let asked = (0..720).map(|second| second * 1_000).chain(bounds.into_iter().flatten()).chain([u64::MAX]);
        for (state, is_greatest) in [(0, false), (0xCF9A_04AF_FA6B_ADC0, true)] {
            let mut random = Random::constant(state);
            for retries in (0..40).chain([u32::MAX]) {
                let later_ms = policy.retry_cap_ms.min(policy.retry_base_ms << retries.saturating_sub(1).min(20));
                for (goes_away, first_ms) in [(false, policy.first_retry_ms), (true, policy.away_retry_ms)] {
                    let mut backoff = Backoff { retries, ..Backoff::default() };
                    let most_ms = if retries == 0 { first_ms } else { later_ms };
                    let expected_ms = if is_greatest { most_ms } else { 0 };
                    assert_eq!(backoff.after_loss_ms(goes_away, &policy, &mut random), expected_ms, "{retries}");
                    assert!(backoff.retries > retries || retries == u32::MAX, "it never goes back");
                }
            }
            for asked_ms in asked.clone() {
                let believed_ms = asked_ms.min(policy.retry_after_max_ms);
                let expected_ms = match (asked_ms < policy.retry_after_min_ms, is_greatest) {
                    (true, false) => 0,
                    (true, true) => policy.retry_base_ms,
                    (false, false) => believed_ms,
                    (false, true) => 2 * believed_ms,
                };
                let waited_ms = Backoff::default().after_request_ms(asked_ms, &policy, &mut random);
                assert_eq!(waited_ms, expected_ms, "{asked_ms}");
            }
        }
        let mut worn = Backoff { retries: 9, refused: u32::MAX, unknown: u32::MAX, replaced: u32::MAX, port_probes: 9 };
        let mut random = Random::constant(0);
        let waits = [
            worn.after_refusal_ms(&policy, &mut random),
            worn.after_unknown_ms(&policy, &mut random),
            worn.after_replacement_ms(&policy),
        ];
        assert_eq!(waits, [policy.slow_cap_ms / 2, 0, policy.slow_cap_ms]);
    }
}
