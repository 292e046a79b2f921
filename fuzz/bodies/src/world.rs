//! Bytes control the storm over a simulated agent: which faults happen and when, and what the agent must do meanwhile.
//!
//! The checkers of the simulation run after every step. After the storm comes the calm, in which the agent must
//! reconnect within its bound, deliver everything, be reachable, and exit cleanly.
//!
//! An input begins with fifteen bytes that describe the world: eight for its set of faults, a seed for the details, and
//! the speeds and sizes of the plan. The rest is the storm's script. Each decision of the storm takes one byte of it,
//! or two for more than 256 choices: when the next fault happens and which, how long it lasts, whether it hits a dial,
//! a registration, a frame or a Ping, what is dispatched, typed and cancelled. The storm ends with the script. So every
//! byte is a decision, next to the decisions before and after it, and a short input is a short storm. With a seed alone
//! the fuzzer could not build on earlier inputs; if every random number came from the input, unimportant details (how
//! much a program prints at a time) would use up its bytes.

use draupnir_sim::plan::{Fault, Faults, Plan};
use draupnir_sim::run::run as live;

/// The length of the description of the world.
const HEADER_BYTES: usize = 15;

/// The longest script: some hundred decisions, in a world that runs for milliseconds.
const SCRIPT_BYTES_MAX: usize = 512;

/// The longest storm, in milliseconds. Scripts end long before it.
const STORM_MS_MAX: u64 = 7_200_000;

/// How many lines of a failed story are printed.
const LINES_MAX: usize = 60;

/// Checks one input.
pub fn run(input: &[u8]) {
    let Some((header, script)) = input.split_first_chunk::<HEADER_BYTES>() else { return };
    if script.is_empty() {
        return;
    }
    let plan = plan(header, script);
    let Some(violation) = live(plan.clone(), None, false).violation else { return };
    let story = live(plan.clone(), None, true).story;
    let last = story.len().saturating_sub(LINES_MAX);
    let faults: Vec<_> = plan.faults.iter().collect();
    panic!("{violation}, in a world of {faults:?}:\n{}", story.get(last..).unwrap_or_default().join("\n"));
}

fn plan(header: &[u8; HEADER_BYTES], script: &[u8]) -> Plan {
    let [f0, f1, f2, f3, f4, f5, f6, f7, seed, flags, fault_every, percent, latency, speed, work] = *header;
    let faults = Faults::from_bits(u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]));
    // A crowd makes a world slow.
    let faults = if flags & 0xF0 == 0xF0 { faults } else { faults.without(Fault::Crowd) };
    Plan {
        seed: u64::from(seed),
        faults,
        storm_ms: STORM_MS_MAX,
        fault_every_ms: of(&[8_000, 30_000, 60_000, 120_000], fault_every),
        percent: of(&[5, 20, 50, 100], percent),
        latency_ms: of(&[0, 1, 20, 150], latency),
        bytes_per_ms: of(&[50_000, 5_000, 500, 50], speed),
        remembered: flags & 1 != 0,
        production: flags & 2 != 0,
        work_ms: of(&[1_000, 4_000, 20_000, 60_000], work),
        drains: flags & 4 != 0,
        audited: flags & 8 != 0,
        journaled: flags & 0x10 != 0,
        script: script.iter().copied().take(SCRIPT_BYTES_MAX).collect(),
        // The configured id and provider.
        ..Plan::of(u64::from(seed))
    }
}

fn of(list: &[u64; 4], choice: u8) -> u64 {
    list[usize::from(choice & 3)]
}
