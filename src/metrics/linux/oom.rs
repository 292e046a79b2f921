//! How often the kernel killed a process for want of memory.
//!
//! Sources: `oom_kill` in `memory.events` of a container's topmost visible group, or in the legacy `memory.oom_control`, which
//! counts that group alone; on a machine in `/proc/vmstat`, proc_vmstat(5).

use super::super::roots::Roots;
use super::super::scan::keyed;
use super::cgroup::{Lineage, Version};
use super::kept::{Kept, Scratch};

/// The reader.
#[derive(Debug)]
pub(crate) struct OomReader {
    file: Kept,
}

impl OomReader {
    /// Reads a container's group, or below these roots.
    pub(crate) fn new(roots: &Roots, lineage: Option<&Lineage>) -> Self {
        let group =
            lineage.filter(|lineage| lineage.contained).and_then(|lineage| Some((lineage.top()?, lineage.version)));
        let path = match group {
            Some((top, Version::Unified)) => top.join("memory.events"),
            Some((top, Version::Legacy)) => top.join("memory.oom_control"),
            None => roots.proc.join("vmstat"),
        };
        Self { file: Kept::new(path) }
    }

    /// The count since the group was made or the machine started.
    pub(crate) fn read(&mut self, scratch: &mut Scratch) -> Option<u64> {
        self.file.read(scratch).and_then(|text| keyed(text, b"oom_kill"))
    }
}
