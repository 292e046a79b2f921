//! Every way that the driver, a small network and a console can take, instead of some: the driver that ships, explored
//! breadth first by `stateright`.
//!
//! `DRAUPNIR_STATES` says how many states of the delivery to go through, and lets the connection be closed; without it
//! there are few, and few of the deliberate faults, for an unoptimised build. With it, `UPDATE_SCENARIOS=1` writes the
//! shortest ways to the faults, as the sound driver takes them, to `tests/scenarios`.
//!
//! | file | what it is |
//! |---|---|
//! | `world` | the driver, the network and the console; what may happen, and the rules |
//! | `setting` | policy, work and bounds of a model |
//! | `hashing` | a world as a number |
//! | `checker` | the world as a model of `stateright` |
//! | `faults` | which deliberate faults a model rejects |
//! | `story` | a way as a scenario |

mod checker;
mod faults;
mod hashing;
mod setting;
mod story;
mod world;

use checker::{Found, compare_twins, explore};
use draupnir_sim::planted::Planted;
use faults::{OUT_OF_REACH, REJECTED};
use setting::{Part, Setting};

/// How many states of each model an unoptimised build goes through.
const STATES_DEFAULT: usize = 3_000;

/// Within so many states each fault must be found.
const STATES_OF_FAULTS_MAX: usize = 100_000;

/// Among so many states worlds with one number are compared.
const STATES_OF_TWINS_MAX: usize = 10_000;

/// As many as the machine of a workflow has cores.
const THREADS: usize = 2;

/// How many faults it looks for.
const FAULTS_DEFAULT: usize = 3;

fn states_asked() -> Option<usize> {
    let asked = std::env::var("DRAUPNIR_STATES").ok();
    asked.map(|states| states.parse().expect("DRAUPNIR_STATES is a number"))
}

fn states_max() -> usize {
    states_asked().unwrap_or(STATES_DEFAULT)
}

fn report(what: &str, found: &Found) {
    #[expect(clippy::cast_precision_loss, reason = "figures for a reader")]
    let states = found.states as f64;
    println!(
        "{what}: {} states, depth {}, {:.1} s, {:.0} a second{}",
        found.states,
        found.depth,
        found.took.as_secs_f64(),
        states / found.took.as_secs_f64(),
        if found.is_closed { ", closed" } else { "" }
    );
    if let Some(rejection) = &found.rejection {
        println!("  {rejection:?}");
    }
}

fn setting(part: Part, planted: Option<Planted>) -> Setting {
    match part {
        Part::Connection => Setting::connection(planted),
        Part::Delivery => Setting::delivery(planted),
    }
}

/// Where it is asked for any number of states, it goes through all that there are.
#[test]
fn connection_keeps_the_rules() {
    let states_max = states_asked().map_or(STATES_DEFAULT, |_| usize::MAX);
    let found = explore(Setting::connection(None), states_max, THREADS);
    report("connection", &found);
    assert_eq!(found.rejection, None);
    assert_eq!(found.is_closed, states_max == usize::MAX);
}

#[test]
fn delivery_keeps_the_rules() {
    let found = explore(Setting::delivery(None), states_max(), THREADS);
    report("delivery", &found);
    assert_eq!(found.rejection, None);
}

#[test]
fn worlds_with_one_number_have_one_future() {
    for part in [Part::Connection, Part::Delivery] {
        let twins = compare_twins(setting(part, None), states_max().min(STATES_OF_TWINS_MAX));
        println!("{part:?}: {twins} pairs of worlds with one number");
        assert!(twins > 100, "{twins} pairs");
    }
}

#[test]
fn deliberate_faults_are_rejected() {
    let faults = states_asked().map_or(FAULTS_DEFAULT, |_| REJECTED.len());
    for (fault, part) in REJECTED.into_iter().take(faults) {
        // Two threads could find a way that is not the shortest.
        let found = explore(setting(part, Some(fault)), STATES_OF_FAULTS_MAX, 1);
        report(&format!("{fault:?}"), &found);
        let rejection = found.rejection.unwrap_or_else(|| panic!("{fault:?} breaks no rule"));
        story::check(fault, part, &rejection);
    }
}

#[test]
fn every_deliberate_fault_is_judged_once() {
    let rejected = REJECTED.iter().map(|(fault, _)| fault);
    let judged: Vec<_> = rejected.chain(OUT_OF_REACH.iter().map(|(fault, _)| fault)).collect();
    for fault in Planted::ALL {
        let times = judged.iter().filter(|judged| ***judged == fault).count();
        assert_eq!(times, 1, "{fault:?}");
    }
    assert_eq!(judged.len(), Planted::ALL.len());
}
