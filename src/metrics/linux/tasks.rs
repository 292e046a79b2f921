//! How many processes and tasks there are.
//!
//! Sources: `pids.current` and `pids.max` of a container's topmost visible group (cgroup guides), else the number of tasks in
//! `/proc/loadavg`; and the names in the directory `/proc`, of which the numbers are processes. No process is looked into.
//!
//! Invariant: the directory is listed only where there are at most [`LISTED_TASKS_MAX`] tasks, so that a sample stays cheap on
//! a crowded machine; there the number of tasks must do.

use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, RawDir, open};
use rustix::io::retry_on_intr;

use super::super::roots::Roots;
use super::super::scan::{first_number, number};
use super::cgroup::Lineage;
use super::kept::{Kept, Scratch};

/// Listing this many costs about 0.3 ms.
pub(crate) const LISTED_TASKS_MAX: u64 = 1000;

/// Room for some hundred names at a time.
const LISTING_BYTES: usize = 8 << 10;

/// The reader.
#[derive(Debug)]
pub(crate) struct TaskReader {
    group: Option<(Kept, Kept)>,
    directory: PathBuf,
}

/// What it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) processes: Option<u64>,
    pub(crate) tasks: Option<u64>,
    pub(crate) limit: Option<u64>,
}

impl TaskReader {
    /// Reads below these roots, and a container's group.
    pub(crate) fn new(roots: &Roots, lineage: Option<&Lineage>) -> Self {
        let top = lineage.filter(|lineage| lineage.contained).and_then(Lineage::top);
        let group = top.map(|top| (Kept::new(top.join("pids.current")), Kept::new(top.join("pids.max"))));
        Self { group, directory: roots.proc.clone() }
    }

    /// The figures now; `machine_tasks` is what the machine says of itself.
    pub(crate) fn read(&mut self, machine_tasks: Option<u64>, scratch: &mut Scratch) -> Tasks {
        let group = self.group.as_mut().and_then(|(current, limit)| {
            let tasks = current.read(scratch).and_then(first_number)?;
            Some((tasks, limit.read(scratch).and_then(first_number)))
        });
        let tasks = group.map(|(tasks, _)| tasks).or(machine_tasks);
        let few = tasks.is_some_and(|tasks| tasks <= LISTED_TASKS_MAX);
        let processes = few.then(|| self.listed()).flatten();
        Tasks { processes, tasks, limit: group.and_then(|(_, limit)| limit) }
    }

    fn listed(&self) -> Option<u64> {
        numbers_in(&self.directory)
    }
}

/// How many names in a directory are numbers.
pub(crate) fn numbers_in(directory: &std::path::Path) -> Option<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = retry_on_intr(|| open(directory, flags, Mode::empty())).ok()?;
    let mut room = [std::mem::MaybeUninit::uninit(); LISTING_BYTES];
    let mut names = RawDir::new(directory, &mut room);
    let mut count = 0;
    while let Some(entry) = names.next() {
        count += u64::from(number(entry.ok()?.file_name().to_bytes()).is_some());
    }
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn we_are_among_the_processes() {
        assert!(numbers_in(Path::new("/proc")).is_some_and(|count| count >= 1));
        assert_eq!(numbers_in(Path::new("/no/such/place")), None);
    }

    #[test]
    fn a_crowd_is_not_listed() {
        let mut reader = TaskReader::new(&Roots::default(), None);
        let tasks = reader.read(Some(LISTED_TASKS_MAX + 1), &mut Scratch::default());
        assert_eq!(tasks, Tasks { processes: None, tasks: Some(LISTED_TASKS_MAX + 1), limit: None });
    }
}
