//! Measures the cost of TLS at a start: time to the registration and to the WebSocket, and memory, compared with clear
//! text.
//!
//! `cargo bench --bench link`, or with another build of the agent in `DRAUPNIR_AGENT`. `tests/budgets` has the limits.
//! Times count from the start of the process: the best and the median of many. They include other load of the machine.

#[path = "../support/mod.rs"]
mod support;

use draupnir_console::{Console, Personality};
use std::time::{Duration, Instant};
use support::Setup;
use support::authority::Authority;
use support::tls;

const STARTS: usize = 30;

/// The cost of one start.
struct Cost {
    registered: Duration,
    connected: Duration,
    resident_bytes: u64,
    private_dirty_bytes: u64,
}

fn main() {
    let authority = Authority::new();
    let plain = || Console::start(Personality::production());
    let secure = || tls::valid_console(&authority);
    println!("{:<34}{:>24}{:>24}{:>12}{:>12}", "", "registered (ms)", "connected (ms)", "resident", "private");
    report("clear text", plain, |setup| setup);
    report("TLS, one root in SSL_CERT_FILE", secure, |setup| setup.env("SSL_CERT_FILE", authority.file()));
    report("TLS, this machine's roots and one", secure, |setup| setup.env("SINDRI_AGENT_CA_FILE", authority.file()));
}

fn report(what: &str, console: impl Fn() -> Console, change: impl Fn(Setup) -> Setup) {
    let costs: Vec<Cost> = (0..STARTS).map(|_| start(&console(), &change)).collect();
    let times = |of: fn(&Cost) -> Duration| {
        let mut times: Vec<Duration> = costs.iter().map(of).collect();
        times.sort_unstable();
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        format!("{:.1} best {:.1} median", ms(times.first()), ms(times.get(STARTS / 2)))
    };
    let least = |of: fn(&Cost) -> u64| costs.iter().map(of).min().unwrap_or_default() / 1024;
    let (registered, connected) = (times(|cost| cost.registered), times(|cost| cost.connected));
    let (resident, private) = (least(|cost| cost.resident_bytes), least(|cost| cost.private_dirty_bytes));
    println!("{what:<34}{registered:>24}{connected:>24}{resident:>8} KiB{private:>8} KiB");
}

fn start(console: &Console, change: impl Fn(Setup) -> Setup) -> Cost {
    let setup = change(Setup::new(console));
    let began = Instant::now();
    let agent = setup.spawn();
    // The production console serves the second of the two paths.
    let registered = console.registration(2).at.saturating_duration_since(began);
    let connected = console.upgrade(1).at.saturating_duration_since(began);
    console.frame("metrics");
    let process = agent.process();
    let cost = Cost {
        registered,
        connected,
        resident_bytes: process.resident_bytes(),
        private_dirty_bytes: process.private_dirty_bytes(),
    };
    agent.drain();
    cost
}
