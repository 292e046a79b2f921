//! A fixed batch of seeds, small enough for a build without optimisation, and the story of one that fails.

use draupnir_fsm::scenario::{parse, replay};
use draupnir_sim::batch::run_all;
use draupnir_sim::failure;
use draupnir_sim::plan::Plan;
use draupnir_sim::planted::Planted;
use draupnir_sim::run::run;

/// `tests/run` lives through many more, in an optimised build.
const SEEDS: u64 = 600;

#[test]
fn a_batch_of_seeds_keeps_every_rule() {
    let progress = run_all(0..SEEDS, None, 2, 1, |_| {});
    let told = progress.failures.first().and_then(|(seed, _)| failure::tell(*seed, None));
    assert!(told.is_none(), "{}", told.map(|failure| failure.story()).unwrap_or_default());
    assert_eq!(progress.seeds, SEEDS);
    let mean = |total: u64| total / SEEDS;
    assert!(mean(progress.tally.events) >= 500, "{progress:?}");
    assert!(mean(progress.tally.links) >= 3, "{progress:?}");
    assert!(mean(progress.tally.ms) >= 600_000, "{progress:?}");
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    let (one, other) = (run(Plan::of(5), None, true), run(Plan::of(5), None, true));
    assert_eq!(one.story, other.story);
    assert_eq!(one.steps, other.steps);
    assert_eq!(one.tally, other.tally);
}

#[test]
fn a_failing_seed_is_told_and_leaves_a_scenario() {
    let fault = Some(Planted::RedialsAtOnce);
    let seed = (0..20_000).find(|seed| run(Plan::of(*seed), fault, false).breach.is_some()).expect("one is caught");
    let failure = failure::tell(seed, fault).expect("it fails again");
    let whole = Plan::of(seed).faults.iter().count();
    assert!(failure.outcome.plan.faults.iter().count() <= whole);
    let story = failure.story();
    assert!(story.contains("BROKEN: "), "{story}");
    let scenario = parse(&failure.scenario.to_string()).expect("a scenario is well-formed");
    assert!(scenario.header.about.contains(&seed.to_string()), "{}", scenario.header.about);
    // The fault was planted outside the machine, which itself is sound.
    replay(&scenario).expect("the machine's part is true");
}
