//! `draupnir-sim wide`: floods over links of many speeds and lengths, as a table and then with many seeds.
//!
//! It measures nothing itself; see [`draupnir_sim::wide`].

use draupnir_sim::wide::{self, Cell};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds beside the table, where nothing else is asked for: as many as take a few seconds.
const SEEDS: u64 = 100;

/// So many failing seeds are shown.
const FAILURES_MAX: usize = 10;

const HEADINGS: &str = "\
| link | used (%) | uneven (%) | queue (ms) | echo, 99 % (ms) | Ctrl-C (ms) | buffer (KiB) | Pings/s | |
|---|---|---|---|---|---|---|---|---|";

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Option<ExitCode> {
    let (mut seeds, mut from) = (SEEDS, 0);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => seeds = arguments.next()?.parse().ok()?,
            "--from" => from = arguments.next()?.parse().ok()?,
            _ => return None,
        }
    }
    println!("{HEADINGS}");
    let mut failed = false;
    for cell in wide::table() {
        let (figures, bound) = match wide::run(cell, from) {
            Ok(figures) => (figures, "kept".to_owned()),
            Err(broken) => (broken.figures, format!("BROKEN: {}", broken.bound)),
        };
        failed |= bound != "kept";
        println!(
            "| {cell} | {}.{} | {}.{} | {} | {} | {} | {} | {} | {bound} |",
            figures.used_permille / 10,
            figures.used_permille % 10,
            figures.uneven_permille / 10,
            figures.uneven_permille % 10,
            figures.queue_ms,
            figures.echo_ms,
            figures.ctrl_c_ms,
            figures.ring_bytes >> 10,
            figures.pings,
        );
    }
    let mut failures = fails(from..from.saturating_add(seeds));
    failures.sort_unstable_by_key(|(seed, _)| *seed);
    for (seed, line) in failures.iter().take(FAILURES_MAX) {
        println!("seed {seed} fails: {line}");
    }
    println!("{seeds} seeds, {} failed", failures.len());
    Some(if failed || !failures.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs the seeds on every core; those that fail, with their cell, bound and figures.
fn fails(seeds: std::ops::Range<u64>) -> Vec<(u64, String)> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        let worker = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return failures;
                }
                let cell = Cell::of_seed(seed);
                if let Err(broken) = wide::run(cell, seed) {
                    failures.push((seed, format!("{cell}: {}; {:?}", broken.bound, broken.figures)));
                }
            }
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker that panics ends the run")).collect()
    })
}
