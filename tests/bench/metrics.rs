//! Measures the cost of a sample: time, allocations, system calls, and growth over ten thousand samples; compared with
//! psutil.
//!
//! `cargo bench --bench metrics`; `tests/run` runs it without optimisation, within the same limits. It fails if a
//! sample exceeds a limit, or if memory grows. Without strace or psutil (in `target/venv`) it reports that their lines
//! are missing.

use std::alloc::System;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use draupnir::metrics::{Roots, Sampler};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most CPU time of one sample.
const SAMPLE_TIME_MAX: Duration = Duration::from_millis(1);

/// Making a sampler is part of the agent's start.
const NEW_TIME_MAX: Duration = Duration::from_micros(100);

/// The lists of the payload are new with each sample; nothing else is.
const SAMPLE_ALLOCATIONS_MAX: usize = 8;

/// How many tries; the fastest counts, because one that waits for a processor shows nothing.
const NEW_TRIES: u32 = 20;

const SAMPLES: u32 = 10_000;

/// After this many samples buffers have grown and every file is open.
const WARM_UP: u32 = 100;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--samples") {
        let count = arguments.next().and_then(|count| count.parse().ok()).expect("a number of samples");
        return samples(count);
    }
    let made = (0..NEW_TRIES).map(|_| time_of(|| drop(Sampler::new(Roots::default())))).min().unwrap_or_default();
    let mut sampler = Sampler::new(Roots::default());
    println!("a sampler made    {made:>10.1?}");
    sampler.prime();
    while !sampler.has_cpu_sample() {
        std::hint::spin_loop();
    }
    for _ in 0..WARM_UP {
        sampler.sample();
    }

    let mut times = vec![Duration::MAX; SAMPLES as usize];
    let (resident, used) = (resident_kib(), processor_time());
    let region = Region::new(ALLOCATOR);
    for time in &mut times {
        *time = time_of(|| drop(std::hint::black_box(sampler.sample())));
    }
    let change = region.change();
    let (grown_kib, used) = (resident_kib().saturating_sub(resident), processor_time().saturating_sub(used));
    let allocations = change.allocations / SAMPLES as usize;
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let each = used / SAMPLES;
    println!("a sample          {each:>10.1?} of a processor; p50 {:.1?}, p99 {:.1?}", at(50), at(99));
    println!("allocations       {allocations:>10} a sample");
    println!("growth            {kept:>10} bytes kept, {grown_kib} KiB resident, over {SAMPLES} samples");

    let start = Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(sampler.live());
    }
    println!("a heartbeat       {:>10.1?}", start.elapsed() / 1000);
    system_calls();
    psutil();

    assert!(made <= NEW_TIME_MAX, "a sampler takes {made:?} to make");
    assert!(each <= SAMPLE_TIME_MAX, "a sample costs {each:?}");
    assert!(allocations <= SAMPLE_ALLOCATIONS_MAX, "a sample allocates {allocations} times");
    // A buffer may grow once with the file that it reads; a leak is a byte of each sample at least.
    assert!(kept < SAMPLES as usize && grown_kib <= 128, "{kept} bytes and {grown_kib} KiB stay");
}

fn time_of(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn samples(count: u32) {
    let mut sampler = Sampler::new(Roots::default());
    for _ in 0..count {
        std::hint::black_box(sampler.sample());
    }
}

/// The resident memory of this process, by the kernel.
fn resident_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or(0), used.tv_nsec.try_into().unwrap_or(0))
}

/// Counts the system calls of a sample: the difference between 100 and 200 samples, so that the start does not count.
fn system_calls() {
    let (Some(few), Some(many)) = (counted_calls(100), counted_calls(200)) else {
        return println!("system calls      not counted: there is no strace, or it may not trace");
    };
    println!("system calls      {:>10.1} a sample", (many - few) / 100.0);
}

fn counted_calls(samples: u32) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-q"]).arg(program).args(["--samples", &samples.to_string()]);
    let report = String::from_utf8(command.output().ok()?.stderr).ok()?;
    let total = report.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

const PSUTIL: &str = "
import psutil, os, time
def sample():
    psutil.cpu_percent(percpu=True); psutil.cpu_times_percent(); psutil.getloadavg()
    psutil.virtual_memory(); psutil.swap_memory()
    for p in psutil.disk_partitions(): psutil.disk_usage(p.mountpoint)
    psutil.disk_io_counters(perdisk=True); psutil.net_io_counters(pernic=True); psutil.boot_time(); len(psutil.pids())
for _ in range(50): sample()
start = time.process_time()
for _ in range(500): sample()
print((time.process_time() - start) / 500 * 1e6)
";

fn psutil() {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python");
    let output = Command::new(python).args(["-c", PSUTIL]).output().ok();
    let time = output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<f64>().ok());
    match time {
        Some(time_us) => println!("psutil            {time_us:>8.1}µs of a processor for the same, or less"),
        None => println!("psutil            not measured: it is not in target/venv"),
    }
}
