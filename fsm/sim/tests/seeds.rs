//! A fixed batch of seeds, small enough for a build without optimisation.

use draupnir_sim::batch::run_all;
use draupnir_sim::failure;
use draupnir_sim::plan::Plan;
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
    assert!(mean(progress.stats.events) >= 500, "{progress:?}");
    assert!(mean(progress.stats.links) >= 3, "{progress:?}");
    assert!(mean(progress.stats.ms) >= 600_000, "{progress:?}");
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    let (one, other) = (run(Plan::of(5), None, true), run(Plan::of(5), None, true));
    assert_eq!(one.story, other.story);
    assert_eq!(one.steps, other.steps);
    assert_eq!(one.stats, other.stats);
}

#[test]
fn a_process_that_leaves_by_itself_as_the_storm_ends_is_started_again() {
    // Nothing else was to happen in this world for years, so that nobody looked.
    let outcome = run(Plan::of(149_694), None, true);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
    assert!(outcome.stats.ms < 3_600_000, "{:?}", outcome.stats);
}
