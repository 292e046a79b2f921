//! Measures the cost of the agent for a command, from its dispatch to its result, and the part of the journal.
//!
//! `cargo bench --bench command`, or with another build of the agent in `DRAUPNIR_AGENT`. The same program is started
//! and waited for in a plain loop of this process, in turns with an agent that keeps a journal and one that keeps none,
//! since the machine is shared. The state directories are on the disk of the target directory. The console is this
//! process and only reads. It fails if a limit is exceeded.

#[path = "bare/mod.rs"]
mod bare;

use bare::Agent;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of one measurement. The medians of the quietest are compared, since the machine is shared.
const ROUNDS: usize = 10;
/// Commands of one round.
const COMMANDS: usize = 100;
/// How much later a result may come than from a plain spawn and wait, in the median.
const EXTRA_MAX: Duration = Duration::from_micros(500);
/// How much later than without a journal a result may come, in the middle, in percent.
const JOURNAL_PERCENT_MAX: u128 = 10;

fn main() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-command-{}", std::process::id()));
    let [with, without] = ["with", "without"].map(|name| scratch.join(name));
    [&with, &without].into_iter().for_each(|home| fs::create_dir_all(home).expect("a directory"));
    let mut agents = [Agent::start(&with), Agent::start_with(&without, &[("SINDRI_AGENT_JOURNAL", "off")])];
    let mut missed = Vec::new();
    compare(&mut agents, "true", "/bin/true", &["--"], &mut missed);
    compare(&mut agents, "sh -c true", "true", &[], &mut missed);
    drop(agents);
    let has_journal = |home: &Path| home.join("state").join("journal").exists();
    assert!(has_journal(&with) && !has_journal(&without), "one agent keeps a journal");
    fs::remove_dir_all(&scratch).expect("ours");
    assert!(missed.is_empty(), "missed: {}", missed.join("; "));
}

fn compare(agents: &mut [Agent; 2], what: &str, program: &str, args: &[&str], missed: &mut Vec<String>) {
    // Spawned and waited for, with a journal, without one.
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    let mut quietest = [Duration::MAX; 3];
    for round in 0..ROUNDS {
        let durations = measure(agents, round, program, args);
        for (at_most, of_round) in quietest.iter_mut().zip(&durations) {
            *at_most = at(of_round, 50).min(*at_most);
        }
        all.iter_mut().zip(durations).for_each(|(all, durations)| all.extend(durations));
    }
    all.iter_mut().for_each(|durations| durations.sort_unstable());
    let names = ["spawned and waited for", "with a journal", "without a journal"];
    for ((name, durations), quietest) in names.iter().zip(&all).zip(&quietest) {
        let quietest = quietest.as_micros();
        println!("{what:<12} {name:<23} {}, quietest round {quietest:>6} µs", quantiles(durations));
    }
    let [plain, with, without] = quietest;
    let extra = with.saturating_sub(plain);
    let percent = with.as_nanos() * 100 / without.as_nanos();
    println!("{:<12} {} µs more than spawned, {percent} % of without a journal", "", extra.as_micros());
    if extra > EXTRA_MAX {
        missed.push(format!("{what} comes {} µs later than from a plain spawn", extra.as_micros()));
    }
    if percent > 100 + JOURNAL_PERCENT_MAX {
        missed.push(format!("{what} takes {percent} % of what it takes without a journal"));
    }
}

/// One round, sorted.
fn measure(agents: &mut [Agent; 2], round: usize, program: &str, args: &[&str]) -> [Vec<Duration>; 3] {
    let mut durations = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..COMMANDS {
        let start = Instant::now();
        spawn_and_wait(program, args);
        durations[0].push(start.elapsed());
        // Each goes first as often as the other.
        for turn in [number % 2, (number + 1) % 2] {
            let console = &mut agents[turn].console;
            let id = format!("{program} {round} {number}");
            let start = Instant::now();
            console.dispatch(&id, program, args);
            console.until("a result", |heard| heard.is_success_of(&id));
            durations[1 + turn].push(start.elapsed());
        }
    }
    durations.iter_mut().for_each(|durations| durations.sort_unstable());
    durations
}

/// The same without the agent. Without arguments it is a line for the shell.
fn spawn_and_wait(program: &str, args: &[&str]) {
    let mut command = Command::new(if args.is_empty() { "/bin/sh" } else { program });
    if args.is_empty() {
        command.args(["-c", program]);
    } else {
        command.args(args);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("it runs").success());
}

fn quantiles(sorted: &[Duration]) -> String {
    format!("p50 {:>6} µs, p99 {:>6} µs", at(sorted, 50).as_micros(), at(sorted, 99).as_micros())
}

/// The duration of this percentile.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
