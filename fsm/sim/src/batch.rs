//! Many seeds, on as many threads as there are cores.
//!
//! It prints nothing: it reports progress to the caller about four times a second.

use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Stats, run};
use crate::violation::Violation;
use rustix::time::{ClockId, clock_gettime};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many seeds a thread takes at a time.
const CHUNK: u64 = 64;

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// How far a batch has come, or how it ended.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Seeds that were run.
    pub seeds: u64,
    /// What was counted in them, all together.
    pub stats: Stats,
    /// Those that failed.
    pub failures: Vec<(u64, Violation)>,
    /// How long it took.
    pub took: Duration,
    /// How long the threads worked on it, all together: what was left to them of their cores.
    pub worked: Duration,
}

impl Progress {
    /// Events in a second of one core.
    pub fn events_per_second(&self) -> f64 {
        per_second(self.stats.events, self.worked)
    }

    /// Seeds in a second, by all threads.
    pub fn seeds_per_second(&self) -> f64 {
        per_second(self.seeds, self.took)
    }

    fn add(&mut self, seed: u64, stats: &Stats, violation: Option<Violation>) {
        self.seeds += 1;
        self.stats.add(stats);
        self.failures.extend(violation.map(|violation| (seed, violation)));
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for a reader")]
    let count = count as f64;
    count / took.as_secs_f64().max(f64::EPSILON)
}

/// Runs `seeds` on `jobs` threads; ends early once `failures_max` of them have failed.
pub fn run_all(
    seeds: Range<u64>,
    planted: Option<Planted>,
    jobs: usize,
    failures_max: usize,
    watch: impl Fn(&Progress) + Sync,
) -> Progress {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let shared = Mutex::new((Progress::default(), began));
    let work = || {
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= seeds.end {
                return;
            }
            let mut mine = Progress::default();
            let started = worked_so_far();
            for seed in from..(from + CHUNK).min(seeds.end) {
                let outcome = run(Plan::of(seed), planted, false);
                mine.add(seed, &outcome.stats, outcome.violation);
            }
            mine.worked = worked_so_far().saturating_sub(started);
            let mut shared = shared.lock().expect("no thread has panicked");
            let (progress, reported) = &mut *shared;
            merge(progress, mine);
            progress.took = began.elapsed();
            if progress.failures.len() >= failures_max {
                next.store(seeds.end, Ordering::Relaxed);
            }
            if reported.elapsed() >= REPORT_EVERY {
                *reported = Instant::now();
                watch(progress);
            }
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let (mut progress, _) = shared.into_inner().expect("no thread has panicked");
    progress.took = began.elapsed();
    progress.failures.sort_by_key(|(seed, _)| *seed);
    progress
}

/// The time that this thread has had a core for itself: what others take of it is none of ours.
fn worked_so_far() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn merge(all: &mut Progress, mut part: Progress) {
    all.seeds += part.seeds;
    all.stats.add(&part.stats);
    all.worked += part.worked;
    all.failures.append(&mut part.failures);
}
