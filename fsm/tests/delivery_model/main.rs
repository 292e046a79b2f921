//! Compares the ledger with a simple and slow model over millions of steps.
//!
//! Whenever a link breaks, every message that was not reported as dropped is delivered, in order, within the bounds, no
//! message counts as acknowledged before it arrived, and at the end no message is left.

mod world;

use draupnir_fsm::delivery::RELIABLE_MESSAGES_MAX;
use draupnir_fsm::random::Random;
use proptest::prelude::*;
use world::{Stats, World};

/// Steps of the long run without an optimised build: enough to notice a slip. `DRAUPNIR_STEPS` asks for another number.
const STEPS: u64 = 100_000;

/// How many steps each world runs before its link stops breaking.
const STEPS_IN_LIFE: u64 = 5_000;

#[test]
fn millions_of_steps_agree_with_the_model() {
    let mut all = Stats::default();
    let steps = std::env::var("DRAUPNIR_STEPS").map_or(STEPS, |steps| steps.parse().expect("a number of steps"));
    for seed in 0..steps / STEPS_IN_LIFE {
        let mut choices = Random::new(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS_IN_LIFE {
            world.step(u16::try_from(choices.between(0, 65_535)).expect("16 bits"));
        }
        world.heal();
        all.add(&world.tally);
    }
    println!("{steps} steps: {all:?}");
    // Every rule was tested.
    assert!(all.links > steps / 500 && all.acknowledged > steps / 20, "{all:?}");
    assert!(all.duplicates > 0 && all.gaps > 0 && all.finished > 0 && all.snapshots > 0, "{all:?}");
    assert!(all.displaced > 0 && all.too_long > 0 && all.dropped > 0, "{all:?}");
    assert_eq!(all.most_messages, RELIABLE_MESSAGES_MAX as u64, "{all:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_steps_agree_with_the_model(seed: u64, bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        let mut world = World::of(seed, bytes);
        while world.step_as_chosen() {}
        world.heal();
    }
}
