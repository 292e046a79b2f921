//! What is left of a seed that fails, by whatever cause: its number, its story, and a scenario file that replays.

use draupnir_fsm::scenario::{Scenario, parse, replay};
use draupnir_sim::plan::Plan;
use draupnir_sim::planted::Planted;
use draupnir_sim::{failure, run::run};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The first seed that fails with this fault.
fn first(fault: Planted) -> u64 {
    (0..1_000).find(|seed| run(Plan::of(*seed), Some(fault), false).violation.is_some()).expect("one is caught")
}

/// A folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the folder of tests can be written");
    folder
}

fn read(path: &Path) -> Scenario {
    let text = std::fs::read_to_string(path).expect("the scenario was written");
    parse(&text).expect("a scenario is well-formed")
}

#[test]
fn a_fault_outside_the_machine_leaves_a_scenario_that_is_true() {
    let fault = Planted::AcceptsPongsOfOldLinks;
    let seed = first(fault);
    let failure = failure::tell(seed, Some(fault)).expect("it fails again");
    assert!(failure.outcome.plan.faults.iter().count() < Plan::of(seed).faults.iter().count());
    let story = failure.story();
    assert!(story.contains("BROKEN: "), "{story}");
    let scenario = read(&failure.write(&folder("outside")).expect("it can be written"));
    assert_eq!(scenario, failure.scenario);
    assert!(scenario.header.about.contains(&format!("Seed {seed} ")), "{}", scenario.header.about);
    replay(&scenario).expect("the machine's part is true");
}

#[test]
fn a_fault_of_the_machine_leaves_a_short_scenario_that_a_sound_one_does_not_follow() {
    let fault = Planted::DrainWithoutDeadline;
    let seed = first(fault);
    let failure = failure::tell(seed, Some(fault)).expect("it fails again");
    let scenario = read(&failure.write(&folder("machine")).expect("it can be written"));
    assert!(scenario.header.about.contains("DrainOverdue"), "{}", scenario.header.about);
    assert!(scenario.steps.len() < failure.outcome.steps.len(), "{} steps", scenario.steps.len());
    replay(&scenario).expect_err("a sound machine has a deadline there");
}

fn simulate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_draupnir-sim"));
    command.current_dir(folder).args(arguments).output().expect("it starts")
}

#[test]
fn a_seed_that_panics_is_named_told_and_left_as_a_scenario() {
    let folder = folder("panic");
    let output = simulate(&folder, &["--planted", "Panics", "--seeds", "64", "--jobs", "1", "--quiet"]);
    let told = String::from_utf8(output.stdout).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(output.stderr, b"", "what is caught is not printed");
    let seed = first(Planted::Panics);
    assert!(told.contains(&format!("seed {seed} fails: Panicked")), "{told}");
    assert!(told.contains("BROKEN: Panicked"), "{told}");
    assert!(told.contains("two links are enough"), "{told}");
    let failure = failure::tell(seed, Some(Planted::Panics)).expect("it fails again");
    assert!(failure.outcome.plan.storm_ms < Plan::of(seed).storm_ms, "{told}");
    let scenario = read(&folder.join(format!("target/seeds/seed_{seed}.jsonl")));
    let (_, last) = scenario.steps.last().expect("it has steps");
    assert!(last.to_line().contains("link_opened"), "{last:?}");
    replay(&scenario).expect("the machine itself has no such fault");
}

#[test]
fn seeds_without_a_fault_leave_nothing() {
    let folder = folder("sound");
    let output = simulate(&folder, &["--seeds", "64", "--quiet"]);
    let told = String::from_utf8(output.stdout).expect("it is text");
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.starts_with("64 seeds, 0 failed;"), "{told}");
    assert!(!folder.join("target").exists());
    assert_eq!(simulate(&folder, &["--planted", "Nothing"]).status.code(), Some(64));
}
