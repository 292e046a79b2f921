//! Measures the cost of the agent for logs: the reader alone, echoes and memory beside a flood of lines, and the
//! processor time of a line beside `tail -F`.
//!
//! `cargo bench --bench logs [-- reader|flood]`, or with another build of the agent in `DRAUPNIR_AGENT`. The console is
//! this process and only counts lines. The run fails if a limit is exceeded.

#[path = "bare/mod.rs"]
mod bare;

use bare::Agent;
use draupnir::logs::follower::{Credit, Follower, Orders, Positions};
use draupnir::logs::root::Root;
use draupnir::logs::selection::Selection;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Lines that the reader alone reads.
const READER_LINES: usize = 1_000_000;

/// What it reads at once, as in the agent.
const CREDIT: Credit = Credit { lines: 500, bytes: 64 << 10 };

/// Keystrokes of one measurement.
const STROKES: usize = 500;

/// Lines that are written at once, and how often: 20,000 a second, forty times the rate that is the default.
const FLOOD_LINES: usize = 200;
const FLOOD_PAUSE: Duration = Duration::from_millis(10);

/// The least that the reader alone reads in a second.
const READER_LINES_MIN: f64 = 100_000.0;

/// How much later 99 of 100 echoes may come beside a flood of lines.
const ECHO_EXTRA_MAX: Duration = Duration::from_millis(10);

/// How much memory the flood may cost.
const MEMORY_MAX: u64 = 2 << 20;

fn main() {
    let scratch = std::env::temp_dir().join(format!("draupnir-bench-{}", std::process::id()));
    fs::create_dir_all(scratch.join(".sindri/logs")).expect("a temporary directory");
    let mut missed = Vec::new();
    // Cargo adds an option of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    if is_wanted("reader") {
        reader(&scratch, &mut missed);
    }
    if is_wanted("flood") {
        flood(&scratch, &mut missed);
    }
    fs::remove_dir_all(&scratch).expect("ours");
    assert!(missed.is_empty(), "missed: {}", missed.join("; "));
}

fn log(scratch: &Path) -> PathBuf {
    scratch.join(".sindri/logs/app.log")
}

fn line(number: usize) -> String {
    format!("2026-11-30T12:00:00.{:03}Z INFO request {number} answered in 12 ms with status 200\n", number % 1_000)
}

fn reader(scratch: &Path, missed: &mut Vec<String>) {
    let mut file = File::create(log(scratch)).expect("writable");
    let mut follower = Follower::new(Root::of_home(scratch), Vec::new(), 256);
    let mut selection = Selection::default();
    selection.add(&["*".to_owned()]);
    let select = Orders { select: Some((selection, Positions::new())), ..Orders::default() };
    follower.work(select, CREDIT, Instant::now());
    let text: String = (0..READER_LINES).map(line).collect();
    file.write_all(text.as_bytes()).expect("there is room");
    let (mut lines, start) = (0, Instant::now());
    let mut orders = Orders { polls: true, ..Orders::default() };
    // The last record waits for another line.
    while lines < READER_LINES - 1 {
        lines += follower.work(std::mem::take(&mut orders), CREDIT, Instant::now()).lines.len();
    }
    let rate = lines as f64 / start.elapsed().as_secs_f64();
    println!(
        "the reader alone          {rate:>8.0} lines/s, {:.0} MB/s",
        rate * text.len() as f64 / lines as f64 / 1e6
    );
    if rate < READER_LINES_MIN {
        missed.push(format!("the reader reads {rate:.0} lines a second"));
    }
    fs::remove_file(log(scratch)).expect("ours");
}

fn flood(scratch: &Path, missed: &mut Vec<String>) {
    fs::write(log(scratch), line(0)).expect("writable");
    let mut agent = Agent::start_with(scratch, &[("SINDRI_AGENT_LOG_RATE", "off")]);
    // `cat` leaves the echo to the terminal.
    agent.console.create("idle", "/bin/cat");
    let mut lines = 0;
    strokes(&mut agent, 20, &mut lines);
    while agent.console.hear(Duration::from_millis(300)).is_some() {}
    let quiet = strokes(&mut agent, STROKES, &mut lines);
    let before = agent.private_dirty_bytes();
    let mut tail =
        Command::new("tail").arg("-F").arg(log(scratch)).stdout(Stdio::piped()).spawn().expect("tail starts");
    let mut output = tail.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let (agent_before, is_over) = (agent.processor_time(), Arc::new(AtomicBool::new(false)));
    let (over, path) = (Arc::clone(&is_over), log(scratch));
    let writer = std::thread::spawn(move || {
        let mut file = OpenOptions::new().append(true).open(path).expect("it is there");
        let mut written = 0;
        while !over.load(Ordering::Relaxed) {
            let text: String = (written..written + FLOOD_LINES).map(line).collect();
            file.write_all(text.as_bytes()).expect("there is room");
            written += FLOOD_LINES;
            std::thread::sleep(FLOOD_PAUSE);
        }
        written
    });
    lines = 0;
    let flooded = strokes(&mut agent, STROKES, &mut lines);
    is_over.store(true, Ordering::Relaxed);
    let written = writer.join().expect("it ended");
    let peak = agent.private_dirty_bytes();
    while let Some(heard) = agent.console.hear(Duration::from_secs(1)) {
        lines += heard.log_lines();
    }
    let used = agent.processor_time() - agent_before;
    let of_tail = processor_time(tail.id());
    end(tail);
    let _ = reader.join().expect("it ended");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / written as f64;
    println!("echo, no lines            {}", quantiles(&quiet));
    println!("echo beside {written:>7} lines {}", quantiles(&flooded));
    println!("lines that arrived        {lines:>8} of {written}");
    println!("processor, of a line      {:>8.2} µs; tail -F {:.2} µs", each(used), each(of_tail));
    println!("memory beside the flood   {:>8.0} KiB more", peak.saturating_sub(before) as f64 / 1024.0);
    if at(&flooded, 99) > at(&quiet, 99) + ECHO_EXTRA_MAX {
        missed.push(format!("an echo beside lines takes {:?} in one of a hundred cases", at(&flooded, 99)));
    }
    if peak > before + MEMORY_MAX {
        missed.push(format!("lines cost {} bytes of memory", peak - before));
    }
    if lines < written as u64 {
        missed.push(format!("{lines} of {written} lines arrived"));
    }
}

fn strokes(agent: &mut Agent, count: usize, lines: &mut u64) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let pause = Instant::now() + Duration::from_millis(5);
            while let Some(left) = pause.checked_duration_since(Instant::now()) {
                *lines += agent.console.hear(left).map_or(0, |heard| heard.log_lines());
            }
            let start = Instant::now();
            agent.console.input("idle", b"x");
            agent.console.until("an echo", |heard| {
                *lines += heard.log_lines();
                heard.is_of("idle") && heard.output_bytes() > 0
            });
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("readable");
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(10 * fields.map(|field| field.parse::<u64>().expect("a number")).sum::<u64>())
}

fn end(mut child: std::process::Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

fn quantiles(sorted: &[Duration]) -> String {
    format!("p50 {:>6.0} µs, p99 {:>6.0} µs", at(sorted, 50).as_secs_f64() * 1e6, at(sorted, 99).as_secs_f64() * 1e6)
}
