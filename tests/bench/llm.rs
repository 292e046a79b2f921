//! What the proxy of AI tools costs a tool: time to the first byte and throughput beside the direct way, in one run,
//! and the memory of the agent with many streams.
//!
//! `cargo bench --bench llm`, or with another build of the agent in `DRAUPNIR_AGENT`. The provider is in this process,
//! behind TLS, and so is the client: directly it does the TLS, otherwise the agent does. Both ways are measured in
//! turns, since the machine is shared. The run fails if a limit is exceeded.

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use support::llm::{Peer, Provider, Rig, chunk, post};

const REQUESTS: usize = 500;

/// One large answer, in bytes.
const LARGE: usize = 64 << 20;

const LARGE_ANSWERS: usize = 5;

const STREAMS: usize = 50;

/// How much later than directly the first byte may come, in the median.
const FIRST_BYTE_EXTRA_MAX: Duration = Duration::from_millis(1);

/// The least share of the direct throughput. Through the agent every byte is decrypted, scanned for usage and written
/// again by a process more, on the same cores.
const SHARE_MIN: f64 = 0.25;

/// The most memory of one stream: hyper's buffers of both sides, TLS, and the two sockets' tasks.
const STREAM_BYTES_MAX: u64 = 80 << 10;

fn main() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let provider = Provider::start(move |asked| {
        asked.body();
        if asked.head.contains("/large ") {
            let json = "Content-Type: application/json\r\n";
            asked.peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n{json}\r\n"))?;
            let piece = format!("\"{}\",\n", "x".repeat((64 << 10) - 4)).into_bytes();
            return (0..LARGE / piece.len()).try_for_each(|_| asked.peer.say(&piece));
        }
        let events = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
        let event = chunk("data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n");
        asked.peer.say(format!("HTTP/1.1 200 OK\r\n{events}\r\n{event}"))?;
        if asked.head.contains("/held ") {
            let (is_open, news) = &*opened;
            let guard = news.wait_while(is_open.lock().expect("no panic"), |is_open| !*is_open);
            drop(guard.expect("no panic"));
        }
        asked.peer.say("0\r\n\r\n")
    });
    let rig = Rig::new(&provider);
    let mut missed = Vec::new();
    latency(&mut rig.client(), &mut provider.client(), &mut missed);
    throughput(&mut rig.client(), &mut provider.client(), &mut missed);
    memory(&rig, &gate, &mut missed);
    rig.agent.drain();
    assert!(missed.is_empty(), "missed: {}", missed.join("; "));
}

fn latency(through: &mut Peer, direct: &mut Peer, missed: &mut Vec<String>) {
    let first_byte = |peer: &mut Peer, path: &str| {
        let request = post(path, "{\"stream\":true}");
        let began = Instant::now();
        peer.say(request).expect("sent");
        peer.until("hello");
        let took = began.elapsed();
        peer.until("0\r\n\r\n");
        took
    };
    // The first request opens the connection, and is not counted.
    first_byte(through, "/v1/openai/x");
    first_byte(direct, "/v1/x");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        ours.push(first_byte(through, "/v1/openai/x"));
        theirs.push(first_byte(direct, "/v1/x"));
    }
    for (what, times) in [("through the agent", &mut ours), ("direct", &mut theirs)] {
        times.sort_unstable();
        let us = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
        println!("first byte, {what:<20} p50 {:>6} µs   p99 {:>6} µs", us(50), us(99));
    }
    let extra = ours[ours.len() / 2].saturating_sub(theirs[theirs.len() / 2]);
    println!("first byte, in the median {} µs later", extra.as_micros());
    if extra > FIRST_BYTE_EXTRA_MAX {
        missed.push(format!("the first byte comes {} µs later than directly", extra.as_micros()));
    }
}

fn throughput(through: &mut Peer, direct: &mut Peer, missed: &mut Vec<String>) {
    let once = |peer: &mut Peer, path: &str| {
        let began = Instant::now();
        peer.say(post(path, "{}")).expect("sent");
        assert_eq!(peer.hear_length(), LARGE);
        began.elapsed()
    };
    let rate = |took: Option<Duration>| LARGE as f64 / 1e6 / took.expect("some").as_secs_f64();
    let turns: Vec<(Duration, Duration)> =
        (0..LARGE_ANSWERS).map(|_| (once(through, "/v1/openai/large"), once(direct, "/v1/large"))).collect();
    let ours = rate(turns.iter().map(|(ours, _)| *ours).min());
    let theirs = rate(turns.iter().map(|(_, theirs)| *theirs).min());
    let share = ours / theirs;
    println!("64 MiB of JSON, through the agent {ours:.0} MB/s, direct {theirs:.0} MB/s, {share:.2} of it");
    if share < SHARE_MIN {
        missed.push(format!("{share:.2} of the direct throughput"));
    }
}

fn memory(rig: &Rig, gate: &(Mutex<bool>, Condvar), missed: &mut Vec<String>) {
    let before = rig.agent.process().resident_bytes();
    let mut streams: Vec<Peer> = (0..STREAMS).map(|_| rig.client()).collect();
    for stream in &mut streams {
        stream.say(post("/v1/openai/held", "{}")).expect("sent");
        stream.until("hello");
    }
    let during = rig.agent.process().resident_bytes();
    *gate.0.lock().expect("no panic") = true;
    gate.1.notify_all();
    streams.iter_mut().for_each(|stream| drop(stream.until("0\r\n\r\n")));
    let kib = |bytes: u64| bytes / 1024;
    let each = during.saturating_sub(before) / STREAMS as u64;
    println!("resident {} KiB, with {STREAMS} streams {} KiB: {} KiB each", kib(before), kib(during), kib(each));
    if each > STREAM_BYTES_MAX {
        missed.push(format!("a stream takes {} KiB", kib(each)));
    }
}
