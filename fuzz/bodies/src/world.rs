//! Bytes direct the storm over a simulated agent: what goes wrong, when and how, and what is asked of it meanwhile.
//!
//! It has no rules of its own: the checkers of the simulation run after every step, and after the storm comes the calm
//! in which the agent must be back within its bound, have everything delivered, be reachable, and leave cleanly.
//!
//! How an input is read: fifteen bytes say what world it is: eight for the set of faults that it knows,
//! a seed for the details, and the paces and sizes of the plan; the rest is the storm's script. Each decision of the
//! storm takes one byte of it, or two where it chooses among more than 256: when the next fault strikes and which, how
//! long it lasts, whether a dial, a registration, a frame or a Ping meets one, what is dispatched, typed and cancelled.
//! The storm is over when the script is. So every byte is a decision, its neighbours are the decisions before and after
//! it, and a short input is a short storm; a seed alone would give the fuzzer nothing to build upon, and bytes in place
//! of the whole generator would be used up by details (how much a program prints at a time) that decide nothing.

use draupnir_sim::plan::{Fault, Faults, Plan};
use draupnir_sim::run::run as live;

/// What says which world it is, before the script.
const HEADER_BYTES: usize = 15;

/// How long a script may be: some hundred decisions, and worlds that take milliseconds.
const SCRIPT_BYTES_MAX: usize = 512;

/// The longest storm, in milliseconds: scripts are over long before.
const STORM_MS_MAX: u64 = 7_200_000;

/// How much of a story that ended badly is printed.
const LINES_MAX: usize = 60;

/// Holds one input to what must be true.
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
        // What is configured as id and provider.
        ..Plan::of(u64::from(seed))
    }
}

fn of(list: &[u64; 4], choice: u8) -> u64 {
    list[usize::from(choice & 3)]
}
