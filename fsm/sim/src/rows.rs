//! The console's rows, one an instance: who made them, what they are called, and what a registration does to them
//! (CONSOLE.md, "Registration").
//!
//! Only the production console has them. A row that Mimir made goes by the id that the instance is deployed with; one
//! that a registration made goes by its name. The checks are of what becomes of rows; what an agent may register when
//! stands in `rules`.

use crate::identity::earlier_name;
use crate::plan::{InstanceId, Plan};
use crate::violation::Violation;

/// The place of a row in the table; it stands for the id that the console gave.
pub(crate) type RowId = usize;

/// The row that Mimir made when it deployed the instance.
pub(crate) const DEPLOYED: RowId = 0;

/// The id of that row, as the operator finds it in `SINDRI_INSTANCE_ID`.
pub(crate) const DEPLOYED_ID: &str = "cm3f9q2x70001la08h5d2k7vb";

/// How many registrations one address may send in a minute
const REGISTRATIONS_PER_MINUTE: usize = 10;

const MINUTE_MS: u64 = 60_000;

/// Which agent it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    Ours,
    /// Another one of the same host name.
    Twin,
}

/// What a row says of the software and the place of its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) distro: Option<&'static str>,
    pub(crate) extensions: &'static [&'static str],
    pub(crate) region: Option<&'static str>,
}

/// What Mimir wrote into the row that it made.
const DEPLOYED_FIELDS: Fields =
    Fields { distro: Some("ubuntu"), extensions: &["nodejs", "python"], region: Some("ord") };

/// What the agent of these worlds knows of itself.
const REGISTERED_FIELDS: Fields = Fields { distro: None, extensions: &[], region: None };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Running,
    Error,
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    fields: Fields,
    status: Status,
    of: Machine,
    deleted: bool,
    /// No agent could have kept it from being left behind.
    abandoned: bool,
}

impl Row {
    /// A row without a name, as a registration makes it.
    fn registered(of: Machine) -> Self {
        let (name, fields, status) = (String::new(), REGISTERED_FIELDS, Status::Running);
        Self { name, fields, status, of, deleted: false, abandoned: false }
    }
}

/// A registration, as far as a row depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) of: Machine,
    /// The id that the operator configured, if any.
    pub(crate) configured: Option<&'static str>,
    /// The `hostname` of the message.
    pub(crate) name: String,
    pub(crate) provider: Option<&'static str>,
    /// The console runs `docker exec <hostname>`: the configured id is not its name.
    pub(crate) runs_in_docker: bool,
}

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    /// The row by which our machine could be known.
    own: Option<RowId>,
    /// The agent does not know of it: its state directory is lost.
    own_is_lost: bool,
    /// When this process registered within the last minute.
    registrations: Vec<u64>,
}

impl Rows {
    /// The table as our machine finds it: with the row that it was deployed with, or registered in an earlier life.
    pub(crate) fn new(plan: &Plan) -> Self {
        let in_error = plan.instance_id == InstanceId::DeployedInError;
        let deployed = Row {
            name: "deployed".to_owned(),
            fields: DEPLOYED_FIELDS,
            status: if in_error { Status::Error } else { Status::Running },
            of: Machine::Ours,
            deleted: !plan.instance_id.is_deployed(),
            abandoned: false,
        };
        let own = plan.instance_id.is_deployed().then_some(DEPLOYED);
        let mut rows = Self { rows: vec![deployed], own, own_is_lost: false, registrations: Vec::new() };
        if plan.remembered && own.is_none() {
            rows.own = Some(rows.rows.len());
            rows.rows.push(Row { name: earlier_name(plan), ..Row::registered(Machine::Ours) });
        }
        rows
    }

    /// The row that a registration of our machine made or found, or that it was deployed with.
    pub(crate) const fn own(&self) -> Option<RowId> {
        self.own
    }

    /// Whether a connection with this id is welcome.
    pub(crate) fn knows(&self, row: Option<RowId>) -> bool {
        row.and_then(|row| self.rows.get(row)).is_some_and(|row| !row.deleted)
    }

    /// Makes an instance unknown.
    pub(crate) fn delete(&mut self, id: RowId) {
        self.own.take_if(|own| *own == id);
        if let Some(row) = self.rows.get_mut(id) {
            row.deleted = true;
        }
    }

    /// A container is made again without its state directory. The row that Mimir made can still be found by the
    /// configured id.
    pub(crate) fn state_is_lost(&mut self) {
        self.own_is_lost = self.own != Some(DEPLOYED);
    }

    /// A process starts, which cannot know how often the ones before it registered.
    pub(crate) fn process_starts(&mut self) {
        self.registrations.clear();
    }

    /// A heartbeat came from a connection with this id.
    pub(crate) fn heartbeat(&mut self, row: Option<RowId>) {
        self.set_status(row, Status::Running);
    }

    /// A connection with this id is over.
    pub(crate) fn disconnected(&mut self, row: Option<RowId>) {
        self.set_status(row, Status::Error);
    }

    fn set_status(&mut self, row: Option<RowId>, status: Status) {
        if let Some(row) = row.and_then(|row| self.rows.get_mut(row)) {
            row.status = status;
        }
    }

    /// How long the address of a registration has to wait, in milliseconds; `None` where this one counts.
    pub(crate) fn limited_ms(&mut self, now_ms: u64) -> Option<u64> {
        self.registrations.retain(|at_ms| now_ms < at_ms + MINUTE_MS);
        if self.registrations.len() < REGISTRATIONS_PER_MINUTE {
            self.registrations.push(now_ms);
            return None;
        }
        self.registrations.first().map(|at_ms| (at_ms + MINUTE_MS - now_ms).div_ceil(1_000) * 1_000)
    }

    /// Registers: the row that the instance goes by from then on, and the rule that was broken by it.
    pub(crate) fn register(&mut self, request: &Registration) -> (RowId, Option<Violation>) {
        let found = self.found_by(request);
        let (id, violation) = match found {
            Some(id) if self.rows.get(id).is_some_and(|row| row.status == Status::Running) => {
                (id, self.overwrite(id, request))
            }
            _ => self.add(request, found),
        };
        if request.of == Machine::Ours {
            (self.own, self.own_is_lost) = (Some(id), false);
        }
        (id, violation)
    }

    /// The row of that id, else one of that name, rather one that is not in ERROR.
    fn found_by(&self, request: &Registration) -> Option<RowId> {
        if request.configured == Some(DEPLOYED_ID) && self.knows(Some(DEPLOYED)) {
            return Some(DEPLOYED);
        }
        let named = self.rows.iter().enumerate().filter(|(_, row)| !row.deleted && row.name == request.name);
        named.max_by_key(|(id, row)| (row.status == Status::Running, *id)).map(|(id, _)| id)
    }

    fn overwrite(&mut self, id: RowId, request: &Registration) -> Option<Violation> {
        let row = self.rows.get_mut(id)?;
        row.fields = REGISTERED_FIELDS;
        let is_shared = row.of != request.of && has_a_name_of_its_own(request);
        if id == DEPLOYED {
            return Some(Violation::RowDamaged);
        }
        is_shared.then_some(Violation::RowShared)
    }

    /// Makes a row, the second of its name where one was `found` in ERROR.
    fn add(&mut self, request: &Registration, found: Option<RowId>) -> (RowId, Option<Violation>) {
        self.rows.push(Row { name: request.name.clone(), ..Row::registered(request.of) });
        let violation = if request.of == Machine::Ours { self.leave_own(request, found) } else { None };
        (self.rows.len() - 1, violation)
    }

    /// Our machine gets another row: could it have kept the one that it had?
    fn leave_own(&mut self, request: &Registration, found: Option<RowId>) -> Option<Violation> {
        let own_is_lost = self.own_is_lost;
        let doubled = found.and_then(|found| self.rows.get(found)).is_some_and(|row| !row.abandoned);
        let own = self.own.and_then(|own| self.rows.get_mut(own))?;
        // By its name alone it would have got the same one, were that not in ERROR.
        let is_inevitable = own_is_lost && (own.status == Status::Error || !has_a_name_of_its_own(request));
        if is_inevitable {
            own.abandoned = true;
            return None;
        }
        Some(if doubled { Violation::RowDoubled } else { Violation::GhostRow })
    }
}

/// Whether the operator gave this machine a name that the console uses and no other machine has.
fn has_a_name_of_its_own(request: &Registration) -> bool {
    request.configured.is_some() && !request.runs_in_docker
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(configured: Option<&'static str>, name: &str) -> Registration {
        let (of, provider, name) = (Machine::Ours, Some("fly"), name.to_owned());
        Registration { of, configured, name, provider, runs_in_docker: false }
    }

    fn rows(instance_id: InstanceId) -> Rows {
        Rows::new(&Plan { instance_id, remembered: false, ..Plan::of(0) })
    }

    #[test]
    fn registering_a_deployed_row_damages_or_doubles_it() {
        let request = registration(Some(DEPLOYED_ID), DEPLOYED_ID);
        assert_eq!(rows(InstanceId::Deployed).register(&request), (DEPLOYED, Some(Violation::RowDamaged)));
        assert_eq!(rows(InstanceId::DeployedInError).register(&request), (1, Some(Violation::RowDoubled)));
    }

    #[test]
    fn deleted_row_is_replaced_by_a_registered_one() {
        let mut rows = rows(InstanceId::Deployed);
        rows.delete(DEPLOYED);
        assert!(!rows.knows(Some(DEPLOYED)));
        assert_eq!(rows.register(&registration(Some(DEPLOYED_ID), DEPLOYED_ID)), (1, None));
        assert!(rows.knows(Some(1)));
    }

    #[test]
    fn lost_state_excuses_one_second_row() {
        let mut rows = rows(InstanceId::Named);
        let request = registration(Some("web-1"), "web-1");
        assert_eq!(rows.register(&request), (1, None));
        assert_eq!(rows.register(&request), (1, None), "it is running");
        rows.disconnected(Some(1));
        rows.state_is_lost();
        assert_eq!(rows.register(&request), (2, None));
        rows.disconnected(Some(2));
        assert_eq!(rows.register(&request), (3, Some(Violation::RowDoubled)));
    }

    #[test]
    fn named_machine_that_gets_a_row_of_another_name_leaves_a_ghost() {
        let mut rows = rows(InstanceId::Named);
        rows.register(&registration(Some("web-1"), "box-1"));
        rows.state_is_lost();
        assert_eq!(rows.register(&registration(Some("web-1"), "box-2")), (2, Some(Violation::GhostRow)));
    }

    #[test]
    fn two_named_machines_must_not_share_a_row() {
        let mut rows = rows(InstanceId::Named);
        let ours = registration(Some("web-1"), "box");
        let (row, _) = rows.register(&ours);
        let twin = Registration { of: Machine::Twin, configured: Some("web-2"), ..ours };
        assert_eq!(rows.register(&twin), (row, Some(Violation::RowShared)));
        let unnamed = Registration { configured: None, ..twin };
        assert_eq!(rows.register(&unnamed), (row, None));
    }

    #[test]
    fn eleventh_registration_of_a_minute_waits() {
        let mut rows = rows(InstanceId::Named);
        assert!((0..10).all(|second| rows.limited_ms(second * 1_000).is_none()));
        assert_eq!(rows.limited_ms(20_500), Some(40_000));
        assert_eq!(rows.limited_ms(60_000), None);
    }
}
