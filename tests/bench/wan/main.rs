//! Measures terminals over wide links: how much of the link they use, how they share it, and how quickly keys act.
//!
//! `cargo bench --bench wan [-- --check] [-- 100ms] [-- 10mbit]`, or with another build of the agent in
//! `DRAUPNIR_AGENT`. The words select cells. A relay in this process delays and limits (`relay`). The use of a link is
//! a ratio of two measurements in one run: 1.0 is what a plain TCP stream gets through the same relay. With `--check`
//! the run fails if a limit is exceeded.

#[path = "../bare/mod.rs"]
mod bare;
mod relay;

use bare::Agent;
use bare::console::{Console, Listener};
use relay::{Link, Relay};
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The round trips of the cells, in milliseconds, and their rates, in Mbit/s.
const ROUND_TRIPS_MS: [u64; 4] = [20, 50, 100, 200];
const RATES_MBIT: [u32; 2] = [10, 100];
/// The slow link: 100 KB/s.
const SLOW: Link = Link { round_trip: Duration::from_millis(50), bytes_per_second: 100e3 };

/// The least use of the link, by one session or by four.
const USE_MIN: f64 = 0.9;
/// How far each of four sessions may be from their mean.
const SHARE_OFF_MAX: f64 = 0.1;
/// How long after a round trip the far side may still see output of a flood that was interrupted.
const SILENCE_EXTRA_MAX: Duration = Duration::from_millis(250);
/// The same on the slow link, the round trip included.
const SILENCE_SLOW_MAX: Duration = Duration::from_millis(1500);
/// How long after a round trip 99 of 100 echoes come beside a flood.
const ECHO_EXTRA_MAX: Duration = Duration::from_millis(120);

/// A flood runs for this long and [`SETTLE_ROUND_TRIPS`] before it is measured for [`MEASURED`], [`MEASUREMENTS`]
/// times. The middle one counts: a shared machine may stand still during one.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_ROUND_TRIPS: u32 = 10;
const MEASURED: Duration = Duration::from_secs(2);
const MEASUREMENTS: usize = 3;
/// Interrupts of one cell, of which the slowest counts.
const INTERRUPTS: usize = 3;
/// Keystrokes of one cell beside a flood, and the time between two.
const STROKES: usize = 200;
const STROKE_EVERY: Duration = Duration::from_millis(20);
/// No output for a round trip and this long is silence.
const SILENCE: Duration = Duration::from_millis(400);
/// The sessions that share a link.
const SHARING: [&str; 4] = ["share0", "share1", "share2", "share3"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_check = words.iter().any(|word| word == "--check");
    // Cargo adds an option of its own.
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |round_trip_ms: u64, rate: &str| {
        let names = [format!("{round_trip_ms}ms"), rate.to_owned()];
        wanted.iter().all(|word| names.contains(word))
    };
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-wan-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a directory");
    let mut missed = Vec::new();
    println!(
        "round trip     rate   plain TCP   1 session  4 sessions  farthest share  Ctrl-C (slowest)  echo p50, p99"
    );
    for rate in RATES_MBIT {
        for round_trip_ms in ROUND_TRIPS_MS {
            if is_wanted(round_trip_ms, &format!("{rate}mbit")) {
                let link = Link {
                    round_trip: Duration::from_millis(round_trip_ms),
                    bytes_per_second: f64::from(rate) * 1e6 / 8.0,
                };
                cell(&scratch, link, &format!("{round_trip_ms:>7} ms {rate:>4} Mbit"), &mut missed);
            }
        }
    }
    if wanted.is_empty() || wanted.iter().all(|word| *word == "slow") {
        slow(&scratch, &mut missed);
    }
    fs::remove_dir_all(&scratch).expect("ours");
    for line in &missed {
        println!("missed: {line}");
    }
    assert!(!is_check || missed.is_empty(), "{} limits were exceeded", missed.len());
}

/// Measures everything on one link.
fn cell(scratch: &Path, link: Link, name: &str, missed: &mut Vec<String>) {
    let settle = SETTLE + link.round_trip * SETTLE_ROUND_TRIPS;
    let ceiling = plain_bytes(link);
    let (mut agent, relay) = start(scratch, link);
    let console = &mut agent.console;
    quiet(console, link, "flood");
    flood(console, "flood");
    hear_for(console, settle, |_, _| {});
    let one = share_of_link(console, &relay, ceiling, |_, _| {});

    // One byte of echo for each keystroke, in their order.
    console.create("echo", "/bin/cat");
    console.input("echo", b"x");
    console.until("an echo", |heard| heard.is_of("echo") && heard.output_bytes() > 0);
    let echoes = strokes(console);

    let silence = slowest_interrupt(console, link, "flood");

    for session in SHARING {
        quiet(console, link, session);
    }
    for session in SHARING {
        flood(console, session);
    }
    hear_for(console, settle, |_, _| {});
    let mut parts = [0; SHARING.len()];
    let four = share_of_link(console, &relay, ceiling, |place, bytes| parts[place] += bytes);
    let mean = parts.iter().sum::<u64>() as f64 / parts.len() as f64;
    let off = parts.iter().map(|part| (*part as f64 / mean - 1.0).abs()).fold(0.0, f64::max);

    let (p50, p99) = (at(&echoes, 50), at(&echoes, 99));
    println!(
        "{name}  {:>7.1} MB/s  {one:>8.2}  {four:>8.2}  {:>10.1} %  {:>12.3} s  {:>9.3} s, {:.3} s",
        ceiling / 1e6,
        off * 100.0,
        silence.as_secs_f64(),
        p50.as_secs_f64(),
        p99.as_secs_f64(),
    );
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut require = |holds: bool, what: String| {
        if !holds {
            missed.push(format!("{name}: {what}"));
        }
    };
    require(one >= USE_MIN, format!("one session uses {one:.2} of the link"));
    require(four >= USE_MIN, format!("four sessions use {four:.2} of the link"));
    require(off <= SHARE_OFF_MAX, format!("a session's share is {:.0} % off the mean", off * 100.0));
    require(silence <= link.round_trip + SILENCE_EXTRA_MAX, format!("silence {silence:.3?} after Ctrl-C"));
    require(p99 <= link.round_trip + ECHO_EXTRA_MAX, format!("an echo beside a flood takes {p99:.3?} at p99"));
}

/// Measures Ctrl-C on the slow link.
fn slow(scratch: &Path, missed: &mut Vec<String>) {
    let (mut agent, _relay) = start(scratch, SLOW);
    let console = &mut agent.console;
    quiet(console, SLOW, "flood");
    flood(console, "flood");
    hear_for(console, SETTLE + SLOW.round_trip * SETTLE_ROUND_TRIPS, |_, _| {});
    let silence = slowest_interrupt(console, SLOW, "flood");
    println!("     50 ms  100 KB/s: silence {:.3} s after Ctrl-C", silence.as_secs_f64());
    if silence > SILENCE_SLOW_MAX {
        missed.push(format!("100 KB/s: silence {silence:.3?} after Ctrl-C"));
    }
}

/// The agent behind a relay.
fn start(scratch: &Path, link: Link) -> (Agent, Relay) {
    let listener = Listener::new();
    let relay = Relay::start(link, listener.address());
    let agent = Agent::start_at(scratch, &format!("http://{}", relay.address()), &listener, &[]);
    (agent, relay)
}

/// Bytes a second of a plain TCP stream through the relay.
fn plain_bytes(link: Link) -> f64 {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let relay = Relay::start(link, listener.local_addr().expect("bound"));
    let mut near = TcpStream::connect(relay.address()).expect("the relay listens");
    let (mut far, _) = listener.accept().expect("a connection");
    let writer = std::thread::spawn(move || while near.write_all(&[0; 64 << 10]).is_ok() {});
    let mut buffer = vec![0; 256 << 10];
    let mut read_until = |deadline: Instant| {
        let mut bytes = 0;
        while Instant::now() < deadline {
            bytes += far.read(&mut buffer).expect("the relay runs");
        }
        bytes as f64
    };
    read_until(Instant::now() + link.round_trip * 3 + SETTLE / 2);
    let start = Instant::now();
    let bytes = read_until(start + MEASURED);
    let rate = bytes / start.elapsed().as_secs_f64();
    drop(far);
    drop(relay);
    writer.join().expect("it ended");
    rate
}

/// The share of the link that the agent uses from now on; `heard` is given the place in [`SHARING`] and the bytes of
/// each output.
fn share_of_link(console: &mut Console, relay: &Relay, ceiling: f64, mut heard: impl FnMut(usize, u64)) -> f64 {
    let mut shares = [0.0; MEASUREMENTS];
    for share in &mut shares {
        let (before, start) = (relay.delivered(), Instant::now());
        hear_for(console, MEASURED, &mut heard);
        *share = (relay.delivered() - before) as f64 / start.elapsed().as_secs_f64() / ceiling;
    }
    shares.sort_unstable_by(f64::total_cmp);
    shares[MEASUREMENTS / 2]
}

fn hear_for(console: &mut Console, time: Duration, mut heard: impl FnMut(usize, u64)) {
    let deadline = Instant::now() + time;
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if let Some(message) = console.hear(left)
            && let Some(place) = SHARING.iter().position(|session| message.is_of(session))
        {
            heard(place, message.output_bytes());
        }
    }
}

/// Opens a terminal without echo and waits until it is silent.
fn quiet(console: &mut Console, link: Link, session: &str) {
    console.create(session, "/bin/sh");
    console.input(session, b"stty -echo; PS1=; PS2=; echo; echo\n");
    let mut seen = 0;
    console.until("a quiet shell", |heard| {
        seen += if heard.is_of(session) { heard.output_bytes() } else { 0 };
        seen > 40
    });
    while console.hear(link.round_trip + SILENCE).is_some() {}
}

fn flood(console: &mut Console, session: &str) {
    console.input(session, b"yes 'a flood of lines that fills the link'\n");
}

/// Interrupts the running flood several times; the result is when the last output came after the slowest, counted from
/// the key. The flood does not run any more.
fn slowest_interrupt(console: &mut Console, link: Link, session: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0..INTERRUPTS {
        if number > 0 {
            flood(console, session);
            hear_for(console, SETTLE + link.round_trip * 2, |_, _| {});
        }
        let start = Instant::now();
        console.input(session, b"\x03");
        let mut last = start;
        while console.hear(link.round_trip + SILENCE).is_some() {
            last = Instant::now();
        }
        slowest = slowest.max(last - start);
    }
    slowest
}

/// Types at a steady pace, and matches the echoes with the keys in their order.
fn strokes(console: &mut Console) -> Vec<Duration> {
    let (mut typed, mut times) = (VecDeque::new(), Vec::new());
    let (mut left, mut next) = (STROKES, Instant::now());
    while times.len() < STROKES {
        let now = Instant::now();
        if left > 0 && now >= next {
            console.input("echo", b"x");
            typed.push_back(now);
            (left, next) = (left - 1, next + STROKE_EVERY);
        }
        let wait = if left > 0 { next.saturating_duration_since(Instant::now()) } else { STROKE_EVERY };
        if let Some(heard) = console.hear(wait)
            && heard.is_of("echo")
        {
            let arrived = Instant::now();
            for _ in 0..heard.output_bytes() {
                times.push(arrived - typed.pop_front().expect("one echo for each key"));
            }
        }
    }
    times.sort_unstable();
    times
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
