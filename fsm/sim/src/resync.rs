//! What a resync costs each way: the terminals that it ends, and the requests that are lost while it waits for them.
//!
//! The worlds have the production console and one fault, a socket that breaks without the console's knowledge. Users
//! ask for something every ten seconds on average: a command, a terminal when none is open, or input to it.

use crate::plan::{Fault, Faults, InstanceId, Plan, Terminals};
use crate::world::{Stats, World};
use draupnir_fsm::limits::Policy;
use std::fmt;

/// The longest waits for open terminals that are compared, in milliseconds; the last one stands for ever.
const WAITS_MS: [u64; 5] = [0, 60_000, 300_000, 900_000, STORM_MS];

/// How long terminals are open at the most, in milliseconds; half of it on average.
const SESSIONS_MS: [u64; 3] = [120_000, 1_200_000, 7_200_000];

/// How long each world is observed.
const STORM_MS: u64 = 3_600_000;

/// One way of waiting, with terminals of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    wait_ms: u64,
    session_ms: u64,
    stats: Stats,
}

/// Measures all ways in the worlds of so many seeds.
pub fn measure(seeds: u64) -> Vec<Cost> {
    let ways = WAITS_MS.into_iter().flat_map(|wait_ms| SESSIONS_MS.map(|session_ms| (wait_ms, session_ms)));
    ways.map(|(wait_ms, session_ms)| {
        let mut stats = Stats::default();
        for seed in 0..seeds {
            let mut world = World::new(plan(seed, wait_ms, session_ms), None, false);
            world.run();
            stats.add(&world.stats);
        }
        Cost { wait_ms, session_ms, stats }
    })
    .collect()
}

fn plan(seed: u64, resync_wait_max_ms: u64, session_ms: u64) -> Plan {
    let mut faults = Faults::default();
    faults.add(Fault::OneSidedReset);
    Plan {
        faults,
        storm_ms: STORM_MS,
        fault_every_ms: 1_200_000,
        latency_ms: 20,
        bytes_per_ms: 5_000,
        remembered: true,
        production: true,
        instance_id: InstanceId::Unset,
        work_ms: 20_000,
        drains: false,
        audited: false,
        journaled: false,
        terminals: Terminals::OneAtATime { open_ms_max: session_ms },
        resync_wait_max_ms,
        ..Plan::of(seed)
    }
}

/// What stands above the lines of the table.
pub const HEADINGS: &str = "\
| the resync waits for terminals | terminals are open for | losses | terminals ended, of 100 losses | requests lost, \
of 100 losses |
|---|---|---|---|---|";

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wait_ms, session_ms, stats } = *self;
        let wait = match wait_ms {
            0 => "not at all".to_owned(),
            STORM_MS => "for ever".to_owned(),
            _ => format!("{} min", wait_ms / 60_000),
        };
        let ours = if wait_ms == Policy::default().resync_wait_max_ms { " (the agent's)" } else { "" };
        let share = |count: u64| count * 100 / stats.unclean_losses.max(1);
        let (losses, ended, lost) = (stats.unclean_losses, share(stats.sessions_ended), share(stats.requests_lost));
        write!(f, "| {wait}{ours} | {} min | {losses} | {ended} | {lost} |", session_ms / 120_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_saves_terminals_and_loses_requests() {
        let costs = measure(3);
        let of = |wait_ms: u64| {
            let stats = costs.iter().filter(|cost| cost.wait_ms == wait_ms).map(|cost| cost.stats);
            stats.fold((0, 0), |(ended, lost), stats| (ended + stats.sessions_ended, lost + stats.requests_lost))
        };
        let (at_once, never) = (of(0), of(STORM_MS));
        assert!(at_once.0 > never.0 && at_once.1 < never.1, "{at_once:?} {never:?}");
    }
}
