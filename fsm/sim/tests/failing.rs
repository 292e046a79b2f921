//! A seed that fails leaves its number, its story, and a scenario file that replays.

use draupnir_fsm::driver::{CommandInput, Input, RecordedOutput};
use draupnir_fsm::scenario::{Scenario, Step, parse, replay};
use draupnir_sim::plan::{Fault, Plan};
use draupnir_sim::planted::Planted;
use draupnir_sim::{failure, run::run};
use std::path::{Path, PathBuf};
use std::process::{self, Command};

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
fn fault_outside_the_driver_leaves_scenario_that_replays() {
    let fault = Planted::AcceptsPongsOfOldLinks;
    // Where every fault of a seed is needed, none can be removed.
    let is_shorter = |seed: u64, failure: &failure::Failure| {
        failure.outcome.plan.faults.iter().count() < Plan::of(seed).faults.iter().count()
    };
    let failures = (0..1_000).filter_map(|seed| Some((seed, failure::report(seed, Some(fault))?)));
    let shorter = failures.take(10).find(|(seed, failure)| is_shorter(*seed, failure));
    let (seed, failure) = shorter.expect("faults that are not needed are removed");
    let story = failure.story();
    assert!(story.contains("BROKEN: "), "{story}");
    let scenario = read(&failure.write(&folder("outside")).expect("it can be written"));
    assert_eq!(scenario, failure.scenario);
    assert!(scenario.header.about.contains(&format!("Seed {seed} ")), "{}", scenario.header.about);
    replay::<usize>(&scenario).expect("the driver's part is true");
}

#[test]
fn scenario_of_a_planted_fault_fails_on_the_sound_driver() {
    let fault = Planted::DrainWithoutDeadline;
    let seed = first(fault);
    let failure = failure::report(seed, Some(fault)).expect("it fails again");
    let scenario = read(&failure.write(&folder("policy")).expect("it can be written"));
    assert!(scenario.header.about.contains("DrainOverdue"), "{}", scenario.header.about);
    replay::<usize>(&scenario).expect_err("a sound driver has a deadline there");
}

/// Whether a recording holds all that a replay must follow: terminals, commands, cuts and a poisoned result.
fn is_rich(steps: &[Step]) -> bool {
    let has_input = |is_wanted: fn(&Input) -> bool| steps.iter().flat_map(|step| &step.inputs).any(is_wanted);
    let outputs: Vec<String> = steps.iter().flat_map(|step| &step.outputs).map(RecordedOutput::to_string).collect();
    let has_output = |wanted: &str| outputs.iter().any(|output| output.contains(wanted));
    has_output("open_session")
        && has_output("reattached")
        && has_input(|input| matches!(input, Input::Command { what: CommandInput::Started, .. }))
        && has_input(|input| matches!(input, Input::LinkLost { .. }))
        && has_output("result_cut")
}

/// Whether a world may have such a recording, which holds the last life alone.
fn may_be_rich(plan: &Plan) -> bool {
    let ends = [Fault::Crash, Fault::Shutdown, Fault::Recreated];
    plan.faults.has(Fault::Poison) && plan.faults.has(Fault::Reattach) && !ends.iter().any(|end| plan.faults.has(*end))
}

#[test]
fn recorded_seed_replays_bit_exact() {
    let rich = (0..100_000).map(Plan::of).filter(may_be_rich).map(|plan| run(plan, None, true));
    let rich = rich.into_iter().find(|outcome| is_rich(&outcome.steps));
    let outcome = rich.expect("one has a terminal, a command, a cut and a poisoned result");
    assert_eq!(outcome.violation, None);
    let text = failure::scenario(&outcome, "a recorded seed".to_owned()).to_string();
    let scenario = parse(&text).expect("a scenario is well-formed");
    assert_eq!(scenario.to_string(), text);
    let path = replay::<usize>(&scenario).unwrap_or_else(|difference| panic!("{difference}"));
    assert!(path.outputs > 100, "{path}");
}

fn simulate(folder: &Path, arguments: &[&str]) -> process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_draupnir-sim"));
    command.current_dir(folder).args(arguments).output().expect("it starts")
}

#[test]
fn seed_that_panics_leaves_its_story_and_scenario() {
    let folder = folder("panic");
    let output = simulate(&folder, &["--planted", "Panics", "--seeds", "64", "--jobs", "1", "--quiet"]);
    let printed = String::from_utf8(output.stdout).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_eq!(output.stderr, b"", "what is caught is not printed");
    let seed = first(Planted::Panics);
    assert!(printed.contains(&format!("seed {seed} fails: Panicked")), "{printed}");
    assert!(printed.contains("BROKEN: Panicked"), "{printed}");
    assert!(printed.contains("two links are enough"), "{printed}");
    let failure = failure::report(seed, Some(Planted::Panics)).expect("it fails again");
    assert!(failure.outcome.plan.storm_ms < Plan::of(seed).storm_ms, "{printed}");
    let scenario = read(&folder.join(format!("target/seeds/seed_{seed}.jsonl")));
    let (_, last) = scenario.steps.last().expect("it has steps");
    assert!(last.to_line().contains("link_opened"), "{last:?}");
}

#[test]
fn sound_seeds_leave_no_files() {
    let folder = folder("sound");
    let output = simulate(&folder, &["--seeds", "64", "--quiet"]);
    let printed = String::from_utf8(output.stdout).expect("it is text");
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.starts_with("64 seeds, 0 failed;"), "{printed}");
    assert!(!folder.join("target").exists());
    assert_eq!(simulate(&folder, &["--planted", "Nothing"]).status.code(), Some(64));
}
