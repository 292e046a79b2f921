//! Reads the figures of the whole instance: uptime, processes and tasks, descriptors, OOM kills.
//!
//! Sources: `/proc/uptime`, proc_uptime(5), and the start time of process 1 in `/proc/1/stat`, proc_pid_stat(5):
//! process 1 starts together with the container or the machine. `pids.current` and `pids.max` of a container's topmost
//! visible group (cgroup guides), else the number of tasks in `/proc/loadavg`; the names in the directory `/proc`: each
//! number is a process. `oom_kill` in `memory.events` of a container's topmost visible group, or in the legacy
//! `memory.oom_control`, which counts that group alone; on a machine in `/proc/vmstat`, proc_vmstat(5). The size of
//! `/proc/self/fd` (since Linux 6.2 it is the number of descriptors; before, the directory is listed) and
//! `/proc/self/limits`, proc_pid_limits(5), for the agent; `/proc/sys/fs/file-nr`, proc_sys_fs(5), for the machine.
//!
//! Invariants: it reads files of the agent's own process and of process 1 only; it lists the directory `/proc` only if
//! there are at most [`LISTED_TASKS_MAX`] tasks, so that a sample stays cheap on a busy machine.
//!
//! Units: seconds; the start of a process is in ticks of 10 ms since boot (USER_HZ, which is 100 on every architecture
//! we build for).

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawDir, open};
use rustix::io::retry_on_intr;

use super::super::roots::Roots;
use super::super::scan::{first_number, fraction, keyed, line_of, number, words};
use super::cgroup::{Lineage, Lineages, Version};
use super::kept::{Kept, Scratch};
use crate::protocol::metrics::{Count, Instance};

/// The most tasks with which `/proc` is listed. Listing this many costs about 0.3 ms.
pub(crate) const LISTED_TASKS_MAX: u64 = 1000;

/// The buffer of a directory listing: room for some hundred names.
const LISTING_BYTES: usize = 8 << 10;

const TICKS_PER_SECOND: u64 = 100;

/// A larger limit counts as none: the kernel's default is the largest signed number.
const LIMIT_MAX: u64 = 1 << 53;

/// No process has more descriptors: that is the kernel's own bound (fs.nr_open).
const PLAUSIBLE_MAX: u64 = 1 << 30;

/// Reads the figures, and keeps those that never change.
#[derive(Debug)]
pub(crate) struct InstanceReader {
    proc: PathBuf,
    uptime: Kept,
    init: Kept,
    /// The start time of process 1; it never changes and is read once.
    start_ticks: Option<u64>,
    /// A container's number of tasks and its limit.
    tasks: Option<[Kept; 2]>,
    oom: Kept,
    limits: Kept,
    /// The agent's own limit of descriptors. It is read once, because only a debugger changes it at run time.
    descriptor_limit: Option<Option<u64>>,
    /// The machine's descriptors, outside of containers.
    descriptors: Option<Kept>,
}

impl InstanceReader {
    /// A reader of the files below these roots and in these groups.
    pub(crate) fn new(roots: &Roots, lineages: &Lineages) -> Self {
        let proc = roots.proc.clone();
        let container = |lineage: &'_ Option<Lineage>| lineage.clone().filter(|lineage| lineage.contained);
        let tasks = container(&lineages.tasks);
        let tasks = tasks
            .as_ref()
            .and_then(Lineage::top)
            .map(|top| ["pids.current", "pids.max"].map(|name| Kept::new(top.join(name))));
        let memory = container(&lineages.memory);
        let oom = match memory.as_ref().and_then(|lineage| Some((lineage.top()?, lineage.version))) {
            Some((top, Version::Unified)) => top.join("memory.events"),
            Some((top, Version::Legacy)) => top.join("memory.oom_control"),
            None => proc.join("vmstat"),
        };
        Self {
            uptime: Kept::new(proc.join("uptime")),
            init: Kept::new(proc.join("1/stat")),
            start_ticks: None,
            tasks,
            oom: Kept::new(oom),
            limits: Kept::new(proc.join("self/limits")),
            descriptor_limit: None,
            descriptors: (!lineages.is_contained()).then(|| Kept::new(proc.join("sys/fs/file-nr"))),
            proc,
        }
    }

    /// The figures now; `machine_tasks` is the number of tasks in `/proc/loadavg`.
    pub(crate) fn read(&mut self, machine_tasks: Option<u64>, scratch: &mut Scratch) -> Instance {
        let group = self.tasks.as_mut().and_then(|[current, limit]| {
            let tasks = current.read(scratch).and_then(first_number)?;
            Some((tasks, limit.read(scratch).and_then(first_number)))
        });
        let tasks = group.map(|(tasks, _)| tasks).or(machine_tasks);
        let is_listed = tasks.is_some_and(|tasks| tasks <= LISTED_TASKS_MAX);
        let processes = is_listed.then(|| numbers_in(&self.proc)).flatten();
        // The second number of the file is always 0 since Linux 2.6.
        let machine = self.descriptors.as_mut().and_then(|file| {
            let mut numbers = words(file.read(scratch)?).map(number);
            Some((numbers.next()?, numbers.nth(1).flatten()))
        });
        let (machine_open, machine_limit) = machine.unwrap_or_default();
        let limits = &mut self.limits;
        let limit = *self.descriptor_limit.get_or_insert_with(|| limits.read(scratch).and_then(soft_limit));
        Instance {
            uptime_seconds: self.uptime(scratch).map(Count::new),
            process_count: processes.map(Count::new),
            task_count: tasks.map(Count::new),
            task_limit: group.and_then(|(_, limit)| limit).map(Count::new),
            oom_kill_count: self.oom.read(scratch).and_then(|text| keyed(text, b"oom_kill")).map(Count::new),
            open_descriptors: self.open_descriptors().map(Count::new),
            descriptor_limit: limit.map(Count::new),
            machine_open_descriptors: machine_open.map(Count::new),
            machine_descriptor_limit: machine_limit.filter(|limit| *limit < LIMIT_MAX).map(Count::new),
        }
    }

    /// The uptime in whole seconds.
    fn uptime(&mut self, scratch: &mut Scratch) -> Option<u64> {
        let init = &mut self.init;
        // If process 1 is hidden from the agent, the machine's uptime is the best figure there is.
        let start = *self.start_ticks.get_or_insert_with(|| init.read(scratch).and_then(start_ticks).unwrap_or(0));
        let machine = self.uptime.read(scratch).and_then(|text| fraction(words(text).next()?))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // fractions of seconds are dropped, and it is not negative
        let machine = machine as u64;
        // lxcfs serves the container's own uptime beside a start that is counted from the host's boot.
        Some(machine.checked_sub(start / TICKS_PER_SECOND).unwrap_or(machine))
    }

    /// The number of the agent's own descriptors.
    fn open_descriptors(&self) -> Option<u64> {
        let own = self.proc.join("self/fd");
        // A real file system gives its directories a size in blocks, and procfs before 6.2 gives none.
        let size = rustix::fs::stat(&own).ok().and_then(|found| u64::try_from(found.st_size).ok());
        let is_procfs = own.starts_with("/proc");
        size.filter(|size| is_procfs && (1..PLAUSIBLE_MAX).contains(size)).or_else(|| numbers_in(&own))
    }
}

/// Counts the names in a directory that are numbers.
fn numbers_in(directory: &Path) -> Option<u64> {
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

/// The 22nd field; the second one is a name in parentheses and may hold anything.
fn start_ticks(text: &[u8]) -> Option<u64> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    number(words(text.get(end + 1..)?).nth(19)?)
}

/// `Max open files            1024                 4096                 files`
fn soft_limit(text: &[u8]) -> Option<u64> {
    words(line_of(text, b"Max open files")?).next().and_then(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn we_are_among_the_processes() {
        assert!(numbers_in(Path::new("/proc")).is_some_and(|count| count >= 1));
        assert_eq!(numbers_in(Path::new("/no/such/place")), None);
    }

    #[test]
    fn a_crowd_is_not_listed() {
        let mut reader = InstanceReader::new(&Roots::default(), &Lineages::default());
        let found = reader.read(Some(LISTED_TASKS_MAX + 1), &mut Scratch::default());
        assert_eq!((found.process_count, found.task_count), (None, Some(Count::new(LISTED_TASKS_MAX + 1))));
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = b"1 (a) b) (c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 73343 3133440 410\n";
        assert_eq!(start_ticks(text), Some(73343));
        assert_eq!(start_ticks(b"1 (init) S 0"), None);
    }

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let text = b"Limit Soft Hard Units\nMax processes 5 6 processes\nMax open files            1024                 4096                 files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit(b"Max open files            unlimited            unlimited            files\n"), None);
    }

    #[test]
    fn opening_a_file_is_seen() {
        let reader = InstanceReader::new(&Roots::default(), &Lineages::default());
        let open = || reader.open_descriptors().expect("procfs is there");
        let before = open();
        let many: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").expect("it is always there")).collect();
        assert!(open() + 100 > before + many.len() as u64, "other tests open and close some, too");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = start_ticks(&text);
        }
    }
}
