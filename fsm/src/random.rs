//! The jitter generator: SplitMix64, seeded once per process and stirred with fresh entropy after a clock jump.
//!
//! It is not for secrets. It is deterministic, so that a recording with its seed replays to the millisecond.

/// A small deterministic generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// What the state grows by for each number.
    gamma: u64,
}

/// SplitMix64's own.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, gamma: GAMMA }
    }

    /// A generator whose every number is the one that follows from `state`: 0 for 0. For a model that has to know what
    /// is drawn.
    pub const fn constant(state: u64) -> Self {
        Self { state, gamma: 0 }
    }

    /// Mixes in entropy, so that clones of one snapshot go different ways.
    pub fn stir(&mut self, entropy: u64) {
        self.state ^= entropy;
        self.next_u64();
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(self.gamma);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`, each equally likely to within one part in 2³²; `low` where `high` is less.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = u128::from(high.saturating_sub(low)) + 1;
        let scaled = (u128::from(self.next_u64()) * span) >> 64;
        low.saturating_add(u64::try_from(scaled).expect("the product of a u64 and a span is below the span"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_reaches_both_ends_and_nothing_else() {
        let mut random = Random::new(1);
        let mut seen = [0u32; 4];
        for _ in 0..1_000 {
            seen[usize::try_from(random.between(10, 13)).expect("small") - 10] += 1;
        }
        assert!(seen.iter().all(|count| (150..350).contains(count)), "{seen:?}");
        assert_eq!(random.between(7, 7), 7);
        assert_eq!(random.between(7, 3), 7);
        let _ = random.between(0, u64::MAX);
    }

    #[test]
    fn entropy_parts_two_clones() {
        let mut one = Random::new(9);
        let mut other = one.clone();
        one.stir(1);
        other.stir(2);
        assert_ne!(one.next_u64(), other.next_u64());
    }
}
