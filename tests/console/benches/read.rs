//! Measures how fast the console reads terminal output if it only counts bytes: the limit of every throughput measured
//! with it.
//!
//! One thread writes prepared frames over loopback; no agent runs.
//!
//!     cargo bench -p draupnir-console

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use draupnir_console::{Console, Keep, Personality};

/// Terminal bytes of a frame, and of all frames.
const FRAME_BYTES: usize = 32 << 10;
const ALL_BYTES: usize = 256 << 20;

/// Runs, of which the best counts: the machine is shared.
const RUNS: usize = 5;

fn main() {
    for keep in [Keep::Counts, Keep::Bytes] {
        let runs: Vec<(f64, f64)> = (0..RUNS).map(|_| megabytes_per_second(keep)).collect();
        let best = |of: fn(&(f64, f64)) -> f64| runs.iter().map(of).fold(0.0, f64::max);
        let (wall, cpu) = (best(|run| run.0), best(|run| run.1));
        println!("{keep:?}: {wall:.0} MB of terminal bytes a second, {cpu:.0} MB a second of the console's own CPU");
    }
}

/// The throughput by the clock, and by the CPU time of the console's thread, which does not depend on other load.
fn megabytes_per_second(keep: Keep) -> (f64, f64) {
    let all_bytes = if keep == Keep::Counts { ALL_BYTES } else { ALL_BYTES / 4 };
    let console = Console::builder(Personality::designed()).keep(keep).start();
    let mut stream = TcpStream::connect(console.address()).expect("the console listens");
    let head = format!(
        "GET /ws/agent HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nX-Instance-ID: i\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
        console.key()
    );
    stream.write_all(head.as_bytes()).expect("written");
    console.connection(1);
    let wire = frames(all_bytes);
    let (began, cpu_began) = (Instant::now(), console_cpu_seconds());
    let writer = std::thread::spawn(move || stream.write_all(&wire).map(|()| stream));
    let taken = console
        .within(Duration::from_secs(120))
        .wait_stream("s", "all bytes", |stream| stream.bytes == all_bytes as u64);
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), console_cpu_seconds() - cpu_began);
    assert!(taken.gaps.is_empty());
    drop(writer.join().expect("the writer lives").expect("written"));
    let megabytes = u32::try_from(all_bytes >> 10).map_or(0.0, f64::from) * 1024.0 / 1e6;
    (megabytes / seconds, megabytes / cpu_seconds)
}

/// The CPU time of the thread named `console` from `/proc`; zero on systems without it.
fn console_cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0; // fixed by the kernel's interface to user space
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let ticks = stats.filter(|stat| stat.contains("(console)")).flat_map(|stat| {
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
        fields.filter_map(|field| field.parse::<f64>().ok()).collect::<Vec<_>>()
    });
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// All frames as bytes of the wire. The mask is zero, so that the payload is readable.
fn frames(all_bytes: usize) -> Vec<u8> {
    let line: Vec<u8> = (0..FRAME_BYTES).map(|n| b"the quick brown fox jumps over the lazy dog\r\n"[n % 45]).collect();
    let data = BASE64.encode(&line);
    let mut wire = Vec::with_capacity(all_bytes / 2 * 3);
    for offset in (0..all_bytes).step_by(FRAME_BYTES) {
        let text = format!(
            r#"{{"protocol_version":"1.0","type":"terminal:output","session_id":"s","payload":{{"session_id":"s","data":"{data}","offset":{offset}}}}}"#
        );
        wire.extend_from_slice(&[0x81, 0xff]);
        wire.extend_from_slice(&(text.len() as u64).to_be_bytes());
        wire.extend_from_slice(&[0; 4]);
        wire.extend_from_slice(text.as_bytes());
    }
    wire
}
