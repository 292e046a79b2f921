//! The simulation finds what it is for: each deliberate fault is caught by one of the seeds that every run of the tests
//! runs.

use draupnir_sim::plan::{Fault, InstanceId, Plan};
use draupnir_sim::planted::Planted;
use draupnir_sim::run::run;

/// As many seeds as `tests/run` runs.
const SEEDS: u64 = 20_000;

/// The first seed that catches a fault, and how it does.
fn caught(fault: Planted) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let violation = run(Plan::of(seed), Some(fault), false).violation?;
        Some((seed, violation.to_string()))
    })
}

/// A rule about the console's rows, with a fault that breaks it in a world of this kind.
struct RowRule {
    fault: Planted,
    breaks: &'static str,
    in_world: fn(&Plan) -> bool,
}

const ROW_RULES: [RowRule; 8] = [
    RowRule {
        fault: Planted::RegistersDeployedIds,
        breaks: "RowDamaged",
        in_world: |plan| plan.instance_id == InstanceId::Deployed,
    },
    RowRule {
        fault: Planted::RegistersDeployedIds,
        breaks: "RowDoubled",
        in_world: |plan| plan.instance_id == InstanceId::DeployedInError,
    },
    RowRule {
        fault: Planted::RegistersHostNames,
        breaks: "GhostRow",
        in_world: |plan| plan.instance_id == InstanceId::Named && plan.faults.has(Fault::Recreated),
    },
    RowRule {
        fault: Planted::RegistersHostNames,
        breaks: "RowShared",
        in_world: |plan| plan.instance_id == InstanceId::Named && plan.faults.has(Fault::Twin),
    },
    RowRule { fault: Planted::HidesSharedId, breaks: "SharedSilently", in_world: |plan| plan.faults.has(Fault::Twin) },
    RowRule {
        fault: Planted::SendsConfiguredProvider,
        breaks: "ProviderRefused(Some(\"k8s\"))",
        in_world: |plan| plan.provider == Some("k8s"),
    },
    RowRule {
        fault: Planted::SendsConfiguredProvider,
        breaks: "ProviderRefused(None)",
        in_world: |plan| plan.provider.is_none(),
    },
    RowRule {
        fault: Planted::RegistersWithoutWait,
        breaks: "TooManyAttempts(\"registrations of one address\")",
        in_world: |plan| !plan.remembered,
    },
];

#[test]
fn every_rule_about_rows_can_be_broken() {
    for RowRule { fault, breaks, in_world } in ROW_RULES {
        let plans = (0..SEEDS).map(Plan::of).filter(|plan| plan.production && in_world(plan));
        let found = plans
            .filter_map(|plan| Some((plan.seed, run(plan, Some(fault), false).violation?)))
            .find(|(_, violation)| violation.to_string() == breaks);
        let (seed, _) = found.unwrap_or_else(|| panic!("{fault:?} never breaks {breaks}"));
        println!("{fault:?}: seed {seed}, {breaks}");
    }
}

#[test]
#[ignore = "minutes where it is not optimised; tests/scripts/simulation runs it"]
fn every_planted_fault_is_caught() {
    let mut missed = Vec::new();
    for fault in Planted::ALL {
        match caught(fault) {
            Some((seed, violation)) => println!("{fault:?}: seed {seed}, {violation}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not caught by {SEEDS} seeds: {missed:?}");
}
