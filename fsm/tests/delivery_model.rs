//! The ledger beside a model of it that is too slow to be wrong, over millions of steps.
//!
//! Whatever breaks and whenever: every message that was not told of as dropped is delivered, in order, within the bounds,
//! nothing counts as acknowledged that need not have arrived, and when all is well again nothing is left.

mod delivery_world;

use delivery_world::World;
use draupnir_fsm::random::Random;
use proptest::prelude::*;

/// Steps of the long run: millions where the compiler has optimised, enough to notice a slip where it has not.
const STEPS: u64 = if cfg!(debug_assertions) { 100_000 } else { 3_000_000 };

/// How many steps each world lives before it heals.
const STEPS_IN_LIFE: u64 = 5_000;

#[test]
fn millions_of_steps_agree_with_the_model() {
    let (mut links, mut acknowledged, mut duplicates) = (0, 0, 0);
    for seed in 0..STEPS / STEPS_IN_LIFE {
        let mut choices = Random::new(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS_IN_LIFE {
            world.step(u16::try_from(choices.between(0, 65_535)).expect("16 bits"));
        }
        world.heal();
        links += world.links;
        acknowledged += world.acknowledged;
        duplicates += world.console.duplicates;
    }
    println!("{STEPS} steps, {links} links, {acknowledged} frames acknowledged, {duplicates} messages seen twice");
    assert!(links > STEPS / 200, "links broke");
    assert!(duplicates > 0, "acknowledgements were cut off");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_steps_agree_with_the_model(seed: u64, choices in prop::collection::vec(any::<u16>(), 0..400)) {
        let mut world = World::new(seed);
        for choice in choices {
            world.step(choice);
        }
        world.heal();
    }
}
