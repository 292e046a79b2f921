//! Who our machine is: what is configured, what its state directory holds, how it is called. And its twin: another
//! machine of the same host name, whose agent registers and connects as the policy has it, and does nothing else.
//!
//! How a registration names them is decided by the driver's functions, as in the agent.

use crate::journal::Journal;
use crate::plan::{InstanceId, Plan};
use crate::planted::Planted;
use crate::rows::{DEPLOYED, DEPLOYED_ID, Machine, Registration, RowId};
use crate::world::{Event, World};
use draupnir_fsm::driver::{
    CloseReason, IdSource, Policy, ProviderName, RegisterPath, registered_name, registered_provider,
};

/// What our machine and its twin know of themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// The state directory holds an id for this console.
    is_remembered: bool,
    /// The row of that id, on a console that has rows.
    row: Option<RowId>,
    /// How often the container was recreated: each time it gets another host name.
    containers: u32,
    twin: Twin,
}

#[derive(Clone, Debug, Default)]
struct Twin {
    row: Option<RowId>,
    /// The console reaches the instance of that row by the twin's connection.
    is_connected: bool,
    replaced: u32,
}

impl Identity {
    pub(crate) fn new(plan: &Plan, registered: Option<RowId>) -> Self {
        Self { is_remembered: plan.remembered, row: registered, ..Self::default() }
    }

    pub(crate) const fn is_remembered(&self) -> bool {
        self.is_remembered
    }

    /// The console accepted a registration.
    pub(crate) fn remember(&mut self, row: Option<RowId>) {
        (self.is_remembered, self.row) = (true, row);
    }

    /// The console does not know the id.
    pub(crate) fn forget(&mut self) {
        (self.is_remembered, self.row) = (false, None);
    }
}

/// The name under which an earlier life of our machine registered.
pub(crate) fn earlier_name(plan: &Plan) -> String {
    let configured = configured(Machine::Ours, plan.instance_id);
    registered_name(configured, Some("box-0"), plan.provider).unwrap_or_default().to_owned()
}

/// What is configured on a machine.
fn configured(machine: Machine, id: InstanceId) -> Option<&'static str> {
    match (machine, id) {
        (_, InstanceId::Unset) => None,
        (Machine::Ours, InstanceId::Named) => Some("web-1"),
        (Machine::Ours, InstanceId::Deployed | InstanceId::DeployedInError | InstanceId::DeployedAndDeleted) => {
            Some(DEPLOYED_ID)
        }
        (Machine::Twin, _) => Some("web-2"),
    }
}

impl World {
    /// Where the id of a process comes from that starts now.
    pub(crate) fn id_source(&self) -> IdSource {
        match configured(Machine::Ours, self.plan.instance_id) {
            _ if self.planted == Some(Planted::RegistersAtEveryStart) => IdSource::Configured,
            _ if self.identity.is_remembered => IdSource::Remembered,
            Some(_) if self.planted == Some(Planted::RegistersDeployedIds) => IdSource::Configured,
            Some(id) => IdSource::of_configured(id),
            None => IdSource::Configured,
        }
    }

    /// The row whose id our agent sends with a dial.
    pub(crate) fn dialled_row(&self) -> Option<RowId> {
        let is_deployed = configured(Machine::Ours, self.plan.instance_id) == Some(DEPLOYED_ID);
        self.identity.row.or(is_deployed.then_some(DEPLOYED))
    }

    pub(crate) fn registration(&self, of: Machine, path: RegisterPath, provider: ProviderName) -> Registration {
        let configured = configured(of, self.plan.instance_id);
        let host_name = format!("box-{}", self.identity.containers);
        let named = configured.filter(|_| self.planted != Some(Planted::RegistersHostNames));
        let name = registered_name(named, Some(&host_name), self.plan.provider).unwrap_or_default().to_owned();
        let provider = match self.planted {
            Some(Planted::SendsConfiguredProvider) => self.plan.provider,
            Some(_) | None => registered_provider(self.plan.provider, path, provider),
        };
        Registration { of, configured, name, provider, runs_in_docker: self.plan.provider == Some("docker") }
    }

    /// The container is recreated: without its state directory, under another host name.
    pub(crate) fn recreate(&mut self) {
        self.identity.forget();
        self.identity.containers += 1;
        self.journal = Journal::default();
        self.rows.state_is_lost();
        self.log(|| "the container is recreated".to_owned());
    }

    /// The twin connects, and registers first where it has no row.
    pub(crate) fn twin_comes(&mut self) {
        if !self.storm || !self.plan.production || self.now_ms < self.console.away_until_ms {
            return;
        }
        let known = self.identity.twin.row.filter(|row| self.rows.knows(Some(*row)));
        let row = match known {
            Some(row) => row,
            None => {
                let request = self.registration(Machine::Twin, RegisterPath::Observed, ProviderName::Alias);
                let (row, violation) = self.rows.register(&request);
                self.check(violation.map_or(Ok(()), Err));
                row
            }
        };
        self.log(|| format!("the twin connects as row {row}"));
        self.identity.twin.row = Some(row);
        self.identity.twin.is_connected = true;
        self.rows.heartbeat(Some(row));
        if let Some(link) = self.console.table
            && self.wire(link).is_some_and(|wire| wire.row == Some(row))
        {
            self.console_closes(link, 1001, CloseReason::Replaced);
        }
    }

    /// Our agent connects: a twin that went by the same row comes back after the wait of the policy.
    pub(crate) fn replace_twin(&mut self, row: Option<RowId>) {
        let twin = &mut self.identity.twin;
        if row.is_none() || twin.row != row || !std::mem::take(&mut twin.is_connected) {
            return;
        }
        let policy = Policy::default();
        let wait_ms = policy.replaced_base_ms.saturating_mul(1 << twin.replaced.min(16)).min(policy.slow_cap_ms);
        twin.replaced += 1;
        self.note_in(wait_ms, Event::TwinComes);
    }
}
