//! Measures the cost of the agent for a terminal: throughput, keystroke echo, memory, the time to open one.
//!
//! `cargo bench --bench terminal [-- throughput|echo|memory]`, or with another build of the agent in `DRAUPNIR_AGENT`.
//! Each figure stands beside the same figure without the agent, measured in turns in the same run, since the machine is
//! shared: of a local terminal, and of a bare relay, which carries bytes between a terminal and a socket and does
//! nothing else. What lies between the two is the price of any agent. The console is this process and only counts
//! bytes. The run fails if a limit is exceeded.

#[path = "bare/mod.rs"]
mod bare;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bare::Agent;
use bare::console::Console;

/// Bytes through the terminal in one run.
const BULK_BYTES: u64 = 64 << 20;
/// Runs of it, of which the median counts.
const BULK_RUNS: usize = 7;
/// Keystrokes of one measurement.
const STROKES: usize = 1_000;
/// Keystrokes while another session floods.
const STROKES_IN_FLOOD: usize = 300;
/// Sessions that lie idle while their memory is measured.
const IDLE_SESSIONS: u64 = 200;

/// The least share of the throughput of a plain read loop, and the expected one.
const SHARE_MIN: f64 = 0.6;
const SHARE_GOAL: f64 = 0.8;
/// How much later than from a local terminal an echo may come, in the median.
const ECHO_EXTRA_MAX: Duration = Duration::from_micros(150);
/// How late 99 of 100 echoes may come while another session floods; on a busy machine, how many times as late as from a
/// local terminal beside a local flood.
const ECHO_IN_FLOOD_MAX: Duration = Duration::from_millis(10);
const ECHO_IN_FLOOD_TIMES_MAX: u32 = 4;
/// The most memory of an idle session.
const SESSION_BYTES_MAX: u64 = 24 << 10;

/// Measures in this directory and adds the exceeded limits.
type Part = fn(&Path, &mut Vec<String>);

fn main() {
    let scratch = std::env::temp_dir().join(format!("draupnir-bench-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a temporary directory");
    let mut missed = Vec::new();
    let parts: [(&str, Part); 3] = [("throughput", throughput), ("echo", echo), ("memory", memory)];
    // Cargo adds an option of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for (name, measure) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure(&scratch, &mut missed);
        }
    }
    fs::remove_dir_all(&scratch).expect("ours");
    assert!(missed.is_empty(), "missed: {}", missed.join("; "));
}

fn throughput(scratch: &Path, missed: &mut Vec<String>) {
    let file = scratch.join("bulk");
    let text: Vec<u8> = b"the quick brown fox jumps over the lazy dog, and then it rests for a while.\n".to_vec();
    let mut out = File::create(&file).expect("writable");
    let lines = BULK_BYTES / text.len() as u64;
    // The terminal ends each line with one more byte.
    let (size, shown) = (lines * text.len() as u64, lines * (text.len() as u64 + 1));
    let chunk = text.repeat(1_000);
    let mut left = usize::try_from(size).expect("fits");
    while left > 0 {
        let part = left.min(chunk.len());
        out.write_all(&chunk[..part]).expect("written");
        left -= part;
    }
    drop(out);
    let mut agent = Agent::start(scratch);
    let (mut raw, mut through, mut used, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut raw_used, mut relayed) = (Vec::new(), Vec::new());
    for run in 0..BULK_RUNS {
        await_quiet(&mut agent.console);
        let before = thread_seconds();
        raw.push(raw_seconds(&file, shown, |master| master));
        raw_used.push(thread_seconds() - before);
        relayed.push(raw_seconds(&file, shown, relay));
        let session = format!("bulk{run}");
        agent.quiet(&session);
        let before = agent.processor_time();
        let start = Instant::now();
        agent.console.input(&session, format!("exec cat {}\n", file.display()).as_bytes());
        let (mut bytes, mut frames) = (0, 0);
        agent.console.until("the end", |heard| {
            bytes += heard.output_bytes();
            frames += 1;
            heard.is_end()
        });
        sizes.push(bytes as f64 / f64::from(frames));
        through.push(start.elapsed().as_secs_f64());
        used.push((agent.processor_time() - before).as_secs_f64());
        assert_eq!(bytes, shown, "everything arrives");
    }
    let speed = |seconds: f64| size as f64 / 1e6 / seconds;
    // Pairs that were measured one right after the other, so that the load of the machine matters least.
    let shares: Vec<f64> = raw.iter().zip(&through).map(|(raw, through)| raw / through).collect();
    let list: Vec<String> = shares.iter().map(|share| format!("{share:.2}")).collect();
    let of_relay: Vec<f64> = relayed.iter().zip(&through).map(|(relayed, through)| relayed / through).collect();
    let (raw, relayed, through) = (median(raw), median(relayed), median(through));
    let (share, of_relay) = (median(shares), median(of_relay));
    println!("64 MiB, plain read loop   {:>8.1} MB/s; {:.2} s of a processor", speed(raw), median(raw_used));
    println!("64 MiB, a bare relay      {:>8.1} MB/s, {:.2} of it", speed(relayed), raw / relayed);
    println!(
        "64 MiB through the agent  {:>8.1} MB/s, {share:.2} of it, {of_relay:.2} of the relay; {:.2} s of a processor",
        speed(through),
        median(used)
    );
    println!("                          pair by pair: {}", list.join(" "));
    println!("                          in frames of {:.1} KiB", median(sizes) / 1024.0);
    if share < SHARE_GOAL {
        println!("                          short of the goal of {SHARE_GOAL}");
    }
    if share < SHARE_MIN {
        missed.push(format!("throughput is {share:.2} of a plain read loop"));
    }
}

/// The processor time of this thread so far, in seconds.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The same `cat` in a terminal that a plain loop reads, at the end of what `way` leads there.
fn raw_seconds<R: Read>(file: &Path, shown: u64, way: impl FnOnce(File) -> R) -> f64 {
    let (master, slave) = terminal();
    let mut end = way(master);
    let start = Instant::now();
    let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
    let mut child =
        Command::new("cat").arg(file).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("cat starts");
    drop(slave);
    let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
    // The end of a terminal is an error.
    while let Ok(length @ 1..) = end.read(&mut buffer) {
        bytes += length as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    child.wait().expect("it ran");
    assert_eq!(bytes, shown);
    seconds
}

/// Two threads that carry bytes between a terminal and a socket, until the terminal ends; the socket's other end.
fn relay(master: File) -> TcpStream {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (far, _) = listener.accept().expect("a connection");
    for socket in [&near, &far] {
        socket.set_nodelay(true).expect("a socket");
    }
    let (terminal, socket) = (master.try_clone().expect("a descriptor"), far.try_clone().expect("a descriptor"));
    std::thread::spawn(move || carry(socket, master));
    std::thread::spawn(move || {
        carry(terminal, &far);
        let _ = far.shutdown(Shutdown::Both);
    });
    near
}

fn carry(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer)
        && to.write_all(&buffer[..length]).is_ok()
    {}
}

fn echo(scratch: &Path, missed: &mut Vec<String>) {
    let mut agent = Agent::start(scratch);
    await_quiet(&mut agent.console);
    let (master, slave) = terminal();
    let local = local_strokes(master);
    drop(slave);
    let (master, slave) = terminal();
    let relayed = local_strokes(relay(master));
    drop(slave);
    // `cat` leaves the echo to the terminal, as the local one does.
    agent.console.create("idle", "/bin/cat");
    let stroke = |console: &mut Console| {
        console.input("idle", b"x");
        console.until("an echo", |heard| heard.is_of("idle") && heard.output_bytes() > 0);
    };
    stroke(&mut agent.console);
    let before = agent.processor_time();
    let idle = strokes(STROKES, || stroke(&mut agent.console));
    let spent = agent.processor_time() - before;
    agent.quiet("flood");
    agent.console.input("flood", b"exec yes 'a flood of lines that fills the link'\n");
    let console = &mut agent.console;
    let mut flooded = 0;
    let mut in_flood = Vec::new();
    for _ in 0..STROKES_IN_FLOOD {
        // The flood goes on between two keystrokes.
        let pause = Instant::now() + Duration::from_millis(5);
        while let Some(left) = pause.checked_duration_since(Instant::now()) {
            flooded += console.hear(left).map_or(0, |heard| heard.output_bytes());
        }
        let start = Instant::now();
        console.input("idle", b"x");
        console.until("an echo", |heard| {
            flooded += heard.output_bytes();
            heard.is_of("idle")
        });
        in_flood.push(start.elapsed());
    }
    in_flood.sort_unstable();
    drop(agent);
    let local_in_flood = local_strokes_in_flood();
    println!("echo, a local terminal    {}", quantiles(&local));
    println!("echo, a bare relay        {}", quantiles(&relayed));
    println!("echo through the agent    {}", quantiles(&idle));
    println!("                          {:.0} µs of a processor", spent.as_secs_f64() * 1e6 / STROKES as f64);
    println!("the same beside a flood   {}, a local terminal", quantiles(&local_in_flood));
    println!("                          {}; {} MB of flood meanwhile", quantiles(&in_flood), flooded / 1_000_000);
    let extra = at(&idle, 50).saturating_sub(at(&local, 50));
    if extra > ECHO_EXTRA_MAX {
        missed.push(format!("an echo comes {extra:?} later than from a local terminal"));
    }
    if at(&in_flood, 99) > ECHO_IN_FLOOD_MAX.max(at(&local_in_flood, 99) * ECHO_IN_FLOOD_TIMES_MAX) {
        missed.push(format!("an echo beside a flood takes {:?} in one of a hundred cases", at(&in_flood, 99)));
    }
}

/// Keystrokes at this end of a terminal, which echoes them.
fn local_strokes(mut end: impl Read + Write) -> Vec<Duration> {
    strokes(STROKES, || {
        end.write_all(b"x").expect("written");
        end.read_exact(&mut [0]).expect("echoed");
    })
}

/// Keystrokes in a local terminal while another one floods and is read by a thread.
fn local_strokes_in_flood() -> Vec<Duration> {
    let (mut flood, slave) = terminal();
    let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
    let line = "a flood of lines that fills the link";
    let mut child =
        Command::new("yes").arg(line).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("yes starts");
    drop(slave);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(1..) = flood.read(&mut buffer) {}
    });
    let (mut master, slave) = terminal();
    let mut times = Vec::new();
    for _ in 0..STROKES_IN_FLOOD {
        std::thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        master.write_all(b"x").expect("written");
        master.read_exact(&mut [0]).expect("echoed");
        times.push(start.elapsed());
    }
    drop(slave);
    child.kill().and_then(|()| child.wait()).expect("it ran");
    reader.join().expect("it ended");
    times.sort_unstable();
    times
}

fn memory(scratch: &Path, missed: &mut Vec<String>) {
    let mut agent = Agent::start(scratch);
    // The first session pays for what all share.
    agent.console.create("first", "/bin/sh");
    agent.console.until("a prompt", |heard| heard.output_bytes() > 0);
    let before = agent.private_dirty_bytes();
    let start = Instant::now();
    let names: Vec<String> = (0..IDLE_SESSIONS).map(|number| format!("s{number}-")).collect();
    for name in &names {
        agent.console.create(name, "/bin/sh");
    }
    for name in &names {
        // Each session prints its prompt once more, so that all are known to run.
        agent.console.input(name, b"\n");
    }
    let mut quiet: std::collections::BTreeSet<&str> = names.iter().map(String::as_str).collect();
    agent.console.until("all prompts", |heard| {
        quiet.retain(|name| !heard.is_of(name));
        quiet.is_empty()
    });
    let opened = start.elapsed();
    while agent.console.hear(Duration::from_millis(500)).is_some() {}
    let each = agent.private_dirty_bytes().saturating_sub(before) / IDLE_SESSIONS;
    println!("{IDLE_SESSIONS} sessions opened       {:>8.0} ms", opened.as_secs_f64() * 1e3);
    println!("memory, an idle session   {:>8.1} KiB", each as f64 / 1024.0);
    for name in &names {
        agent.console.close(name);
    }
    if each > SESSION_BYTES_MAX {
        missed.push(format!("an idle session costs {each} bytes"));
    }
}

/// The idle share of the machine before a measurement, how long it is observed, and the longest wait for it.
const IDLE_SHARE: f64 = 0.7;
const IDLE_WATCH: Duration = Duration::from_millis(300);
const IDLE_PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the machine is idle, and prints a line if other programs keep it busy.
fn await_quiet(console: &mut Console) {
    let times = || -> Option<(f64, f64)> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<f64> = stat.lines().next()?.split(' ').filter_map(|field| field.parse().ok()).collect();
        Some((*fields.get(3)?, fields.iter().sum()))
    };
    let deadline = Instant::now() + IDLE_PATIENCE;
    while Instant::now() < deadline {
        let Some((idle, all)) = times() else { return };
        // The link stays alive meanwhile.
        let watched = Instant::now() + IDLE_WATCH;
        while let Some(left) = watched.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            console.hear(left);
        }
        let Some((idle_now, all_now)) = times() else { return };
        if idle_now - idle >= IDLE_SHARE * (all_now - all) {
            return;
        }
    }
    println!("(the machine is busy with something else)");
}

/// A terminal of this process's own.
fn terminal() -> (File, OwnedFd) {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
    let name: PathBuf = ptsname(&master, Vec::new()).expect("a name").to_str().expect("text").into();
    let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opens");
    rustix::io::fcntl_setfd(slave.as_fd(), rustix::io::FdFlags::CLOEXEC).expect("a descriptor");
    rustix::io::fcntl_setfd(master.as_fd(), rustix::io::FdFlags::CLOEXEC).expect("a descriptor");
    (File::from(master), slave)
}

fn strokes(count: usize, mut stroke: impl FnMut()) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            stroke();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

fn quantiles(sorted: &[Duration]) -> String {
    format!("p50 {:>6.0} µs, p99 {:>6.0} µs", at(sorted, 50).as_secs_f64() * 1e6, at(sorted, 99).as_secs_f64() * 1e6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
