//! What a command costs on its way through the agent: from its dispatch to its result.
//!
//! `cargo bench --bench command`, or with another build of the agent in `DRAUPNIR_AGENT`. The same program is started
//! and waited for in a plain loop of this process, in turns with the agent, since the machine is shared. The console is
//! this process and only reads. Fails when a bar is missed.

#[path = "bare/mod.rs"]
mod bare;

use bare::Agent;
use bare::console::Console;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Commands of one measurement.
const COMMANDS: usize = 1_000;
/// How much later than from a plain spawn and wait a result may come, in the middle.
const EXTRA_MAX: Duration = Duration::from_micros(500);

fn main() {
    let scratch = std::env::temp_dir().join(format!("draupnir-bench-command-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a temporary directory");
    let mut agent = Agent::start(&scratch);
    let mut missed = Vec::new();
    compare(&mut agent.console, "true", "/bin/true", &["--"], &mut missed);
    compare(&mut agent.console, "sh -c true", "true", &[], &mut missed);
    drop(agent);
    fs::remove_dir_all(&scratch).expect("ours");
    assert!(missed.is_empty(), "missed: {}", missed.join("; "));
}

fn compare(console: &mut Console, what: &str, program: &str, args: &[&str], missed: &mut Vec<String>) {
    let (mut plain, mut through) = (Vec::new(), Vec::new());
    for number in 0..COMMANDS {
        let start = Instant::now();
        spawn_and_wait(program, args);
        plain.push(start.elapsed());
        let id = format!("{what} {number}");
        let start = Instant::now();
        console.dispatch(&id, program, args);
        console.until("a result", |heard| heard.is_success_of(&id));
        through.push(start.elapsed());
    }
    plain.sort_unstable();
    through.sort_unstable();
    println!("{what:<12} spawned and waited for  {}", quantiles(&plain));
    println!("{what:<12} dispatched to result    {}", quantiles(&through));
    let extra = at(&through, 50).saturating_sub(at(&plain, 50));
    println!("{:<12} in the middle, {} µs more", "", extra.as_micros());
    if extra > EXTRA_MAX {
        missed.push(format!("{what} comes {} µs later than from a plain spawn", extra.as_micros()));
    }
}

/// The same without the agent. Without arguments it is a line for the shell.
fn spawn_and_wait(program: &str, args: &[&str]) {
    let mut command = Command::new(if args.is_empty() { "/bin/sh" } else { program });
    if args.is_empty() {
        command.args(["-c", program]);
    } else {
        command.args(args);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("it runs").success());
}

fn quantiles(sorted: &[Duration]) -> String {
    format!("p50 {:>6} µs, p99 {:>6} µs", at(sorted, 50).as_micros(), at(sorted, 99).as_micros())
}

/// The duration that this many of a hundred do not exceed.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
