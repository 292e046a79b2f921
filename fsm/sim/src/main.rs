//! `draupnir-sim`: runs seeds, reports those that fail, and lets a fleet come back.
//!
//! It holds no rule; see the library. Exit status 0 where nothing failed, 1 where something did, 64 for bad usage.

mod fleet_command;
mod wide_command;

use draupnir_sim::batch::{Progress, run_all};
use draupnir_sim::failure;
use draupnir_sim::planted::Planted;
use draupnir_sim::resync;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: draupnir-sim [--seeds N] [--from S] [--jobs J] [--quiet] [--planted FAULT]
       draupnir-sim --seed S [--planted FAULT]                  prints the story of one seed, as it is
       draupnir-sim fleet [--agents N] [--accepts N] [--seed S] [--policy ours|exponential|wider|unprobed]
                          [--out FOLDER] [--check]
                                                                how fleets come back, with plots; are the bounds held
       draupnir-sim resync [--seeds N]                          what a resync costs each way, as a table
       draupnir-sim wide [--seeds N] [--from S]
                                                                floods over links of many speeds and lengths

  --seeds N   how many seeds (10000)        --jobs J   threads (one for each core)
  --from S    the first of them (0)         --quiet    only the last line, and what fails
  --planted FAULT   with this deliberate fault of `planted.rs` in the agent
";

/// Where the scenarios of failing seeds are put.
const FAILURES_FOLDER: &str = "target/seeds";

/// Hours that are observed for each line of the table of resyncs.
const RESYNC_SEEDS: u64 = 300;

/// A run ends early when so many seeds have failed: they are likely to fail alike.
const FAILURES_MAX: usize = 10;

/// What was asked for.
struct Options {
    seeds: u64,
    from: u64,
    jobs: usize,
    quiet: bool,
    one: Option<u64>,
    planted: Option<Planted>,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "fleet") {
        arguments.remove(0);
        return fleet_command::run(&arguments).unwrap_or_else(misused);
    }
    if arguments.first().is_some_and(|first| first == "wide") {
        return wide_command::run(&arguments[1..]).unwrap_or_else(misused);
    }
    if arguments.first().is_some_and(|first| first == "resync") {
        return measure_resync(&arguments).unwrap_or_else(misused);
    }
    match parse(&arguments) {
        Some(Options { one: Some(seed), planted, .. }) => tell_one(seed, planted),
        Some(options) => run_seeds(&options),
        None => misused(),
    }
}

/// What a resync costs, as a table.
fn measure_resync(arguments: &[String]) -> Option<ExitCode> {
    let seeds = match arguments {
        [_] => RESYNC_SEEDS,
        [_, flag, seeds] if flag == "--seeds" => seeds.parse().ok()?,
        _ => return None,
    };
    println!("{}", resync::HEADINGS);
    resync::measure(seeds).iter().for_each(|cost| println!("{cost}"));
    Some(ExitCode::SUCCESS)
}

fn misused() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(64)
}

fn parse(arguments: &[String]) -> Option<Options> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { seeds: 10_000, from: 0, jobs, quiet: false, one: None, planted: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => options.seeds = arguments.next()?.parse().ok()?,
            "--from" => options.from = arguments.next()?.parse().ok()?,
            "--jobs" => options.jobs = arguments.next()?.parse().ok()?,
            "--seed" => options.one = Some(arguments.next()?.parse().ok()?),
            "--planted" => options.planted = Some(Planted::named(arguments.next()?)?),
            "--quiet" => options.quiet = true,
            _ => return None,
        }
    }
    Some(options)
}

fn tell_one(seed: u64, planted: Option<Planted>) -> ExitCode {
    let outcome = draupnir_sim::run::run(draupnir_sim::plan::Plan::of(seed), planted, true);
    println!("{:?}", outcome.plan);
    outcome.story.iter().for_each(|line| println!("{line}"));
    println!("{:?}", outcome.stats);
    if outcome.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_seeds(options: &Options) -> ExitCode {
    let seeds = options.from..options.from.saturating_add(options.seeds);
    let shows = !options.quiet && std::io::stderr().is_terminal();
    let watch = |progress: &Progress| {
        if shows {
            eprint!("\r{}", bar(progress, options.seeds));
        } else if !options.quiet {
            eprintln!("{}", bar(progress, options.seeds));
        }
    };
    let progress = run_all(seeds, options.planted, options.jobs, FAILURES_MAX, watch);
    if shows {
        eprintln!();
    }
    for (seed, violation) in &progress.failures {
        println!("seed {seed} fails: {violation}");
    }
    if let Some((seed, _)) = progress.failures.first() {
        tell_failure(*seed, options.planted);
    }
    println!("{}", summary(&progress));
    if progress.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The story of a failing seed, and its scenario in a file.
fn tell_failure(seed: u64, planted: Option<Planted>) {
    let Some(failure) = failure::report(seed, planted) else { return };
    print!("\n{}", failure.story());
    match failure.write(Path::new(FAILURES_FOLDER)) {
        Ok(path) => println!("its scenario: {}\n", path.display()),
        Err(error) => println!("its scenario could not be written to {FAILURES_FOLDER}: {error}\n"),
    }
}

fn bar(progress: &Progress, seeds: u64) -> String {
    const CELLS: u64 = 40;
    let full = usize::try_from(progress.seeds * CELLS / seeds.max(1)).unwrap_or(0);
    let empty = usize::try_from(CELLS).unwrap_or(0).saturating_sub(full);
    format!(
        "[{}{}] {}/{seeds} seeds, {:.0} a second, {} failed ",
        "#".repeat(full),
        " ".repeat(empty),
        progress.seeds,
        progress.seeds_per_second(),
        progress.failures.len()
    )
}

fn summary(progress: &Progress) -> String {
    #[expect(clippy::cast_precision_loss, reason = "figures for a reader")]
    let mean = |total: u64| total as f64 / progress.seeds.max(1) as f64;
    let stats = &progress.stats;
    format!(
        "{} seeds, {} failed; a seed has on average {:.0} events, {:.0} facts, {:.1} links, {:.1} virtual minutes, {:.0} \
         messages; {:.1} s, {:.0} seeds a second, {:.2} million events a second and core",
        progress.seeds,
        progress.failures.len(),
        mean(stats.events),
        mean(stats.facts),
        mean(stats.links),
        mean(stats.ms) / 60_000.0,
        mean(stats.messages),
        progress.took.as_secs_f64(),
        progress.seeds_per_second(),
        progress.events_per_second() / 1e6,
    )
}
