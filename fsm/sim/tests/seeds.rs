//! A fixed batch of seeds, small enough for a build without optimisation.

use draupnir_sim::batch::run_all;
use draupnir_sim::failure;
use draupnir_sim::plan::Plan;
use draupnir_sim::run::run;

/// `tests/run` runs many more, in an optimised build.
const SEEDS: u64 = 600;

#[test]
fn batch_of_seeds_keeps_every_rule() {
    let progress = run_all(0..SEEDS, None, 2, 1, |_| {});
    let failed = progress.failures.first().and_then(|(seed, _)| failure::report(*seed, None));
    assert!(failed.is_none(), "{}", failed.map(|failure| failure.story()).unwrap_or_default());
    assert_eq!(progress.seeds, SEEDS);
    let mean = |total: u64| total / SEEDS;
    assert!(mean(progress.stats.events) >= 500, "{progress:?}");
    assert!(mean(progress.stats.links) >= 3, "{progress:?}");
    assert!(mean(progress.stats.ms) >= 600_000, "{progress:?}");
}

#[test]
fn seed_runs_the_same_twice() {
    let (one, other) = (run(Plan::of(5), None, true), run(Plan::of(5), None, true));
    assert_eq!(one.story, other.story);
    assert_eq!(one.steps, other.steps);
    assert_eq!(one.stats, other.stats);
}
