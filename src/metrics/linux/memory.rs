//! Reads the use of memory and the limit that applies to it.
//!
//! Sources: `/proc/meminfo`, proc_meminfo(5), whose values are in KiB whatever the unit says;
//! `/proc/spl/kstat/zfs/arcstats`; and, for each visible group from our own up, `memory.max`, `memory.current`,
//! `memory.stat`, `memory.swap.max`, `memory.swap.current` (unified, cgroup-v2 admin guide) or `memory.limit_in_bytes`,
//! `memory.usage_in_bytes`, `memory.stat`, `memory.memsw.limit_in_bytes` (legacy, cgroup-v1 memory guide).
//!
//! The group with the smallest limit below the machine's memory binds: the OOM killer acts when that group exceeds its
//! limit. All figures are those of this group. If no limit binds, a container reports the use of its topmost group and
//! the memory of the machine, and a machine reports its own figures. "Used" is usage without inactive file pages, as
//! `kubectl top` counts. On a machine it is also without the part of the ZFS cache that ZFS gives back.
//!
//! Invariants: used and free are each at most total. Units: bytes.

use std::path::Path;

use super::super::roots::Roots;
use super::super::scan::{first_number, lines, number, pairs, words};
use super::cgroup::{Lineage, Version};
use super::kept::{Kept, Scratch};
use crate::protocol::metrics::{Count, Memory, Percent, Source};

/// The files of one group, each opened when it is first needed.
#[derive(Debug)]
struct Group {
    limit: Kept,
    usage: Kept,
    stat: Kept,
    swap_limit: Kept,
    swap_usage: Option<Kept>,
}

/// The figures in a group's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GroupFigures {
    usage: u64,
    inactive_file: u64,
    cached: u64,
    swap_used: Option<u64>,
}

/// Reads the memory of the machine and of all groups.
#[derive(Debug)]
pub(crate) struct MemoryReader {
    machine: Kept,
    /// ZFS's cache; `None` in containers, where `/proc/spl` shows the host's.
    arc: Option<Kept>,
    lineage: Option<(Version, bool)>,
    groups: Vec<Group>,
    /// Whether the last reading gave figures.
    knows: bool,
}

impl MemoryReader {
    /// A reader of the files below these roots and in these groups.
    pub(crate) fn new(roots: &Roots, lineage: Option<&Lineage>) -> Self {
        let groups = lineage.map_or_else(Vec::new, |lineage| {
            lineage.groups.iter().map(|place| Group::new(place, lineage.version)).collect()
        });
        let is_contained = lineage.is_some_and(|lineage| lineage.contained);
        let lineage = lineage.map(|lineage| (lineage.version, lineage.contained));
        let arc = (!is_contained).then(|| Kept::new(roots.proc.join("spl/kstat/zfs/arcstats")));
        Self { machine: Kept::new(roots.proc.join("meminfo")), arc, lineage, groups, knows: false }
    }

    /// The figures now; `None` if neither the machine nor a group can be read.
    pub(crate) fn read(&mut self, scratch: &mut Scratch) -> Option<Memory> {
        let mut machine = self.machine.read(scratch).and_then(meminfo);
        if let (Some(machine), Some(arc)) = (&mut machine, &mut self.arc) {
            machine.can_drop(arc.read(scratch).map_or(0, reclaimable));
        }
        let memory = self.group(machine, scratch).or_else(|| machine.map(of_machine));
        self.knows = memory.is_some();
        memory
    }

    /// Whether the last reading had a source.
    pub(crate) fn knows(&self) -> bool {
        self.knows
    }

    /// The group whose limit binds, as an index from the agent's own group up, with that limit.
    fn binding(&mut self, machine_total: Option<u64>, scratch: &mut Scratch) -> Option<(usize, u64)> {
        let (version, _) = self.lineage?;
        let mut smallest: Option<(usize, u64)> = None;
        for (index, group) in self.groups.iter_mut().enumerate() {
            let own = group.limit(version, scratch);
            // A legacy group also reports the limit of its invisible ancestors.
            let inherited =
                (version == Version::Legacy && index == 0).then(|| group.hierarchical_limit(scratch)).flatten();
            if let Some(limit) = own.into_iter().chain(inherited).min()
                && machine_total.is_none_or(|total| limit < total)
                // Of two groups with the same limit the outer one binds, because it contains more processes.
                && smallest.is_none_or(|(_, least)| limit <= least)
            {
                smallest = Some((index, limit));
            }
        }
        smallest
    }

    fn group(&mut self, machine: Option<Meminfo>, scratch: &mut Scratch) -> Option<Memory> {
        let (version, contained) = self.lineage?;
        let total = machine.map(|machine| machine.total);
        let (index, limit) = match self.binding(total, scratch) {
            Some(binding) => binding,
            // A container without a limit: its own use, and the memory of the machine.
            None if contained => (self.groups.len().checked_sub(1)?, total?),
            None => return None,
        };
        let swap_limit = self.swap_limit(version, limit, scratch);
        let figures = self.groups.get_mut(index)?.figures(version, scratch)?;
        Some(of_group(figures, limit, swap_limit, machine, version.source()))
    }

    /// The smallest swap limit of the groups; `None` without a limit.
    fn swap_limit(&mut self, version: Version, memory_limit: u64, scratch: &mut Scratch) -> Option<u64> {
        self.groups
            .iter_mut()
            .filter_map(|group| group.swap_limit.read(scratch).and_then(first_number))
            .map(|limit| match version {
                Version::Unified => limit,
                // The legacy limit is for the sum of memory and swap.
                Version::Legacy => limit.saturating_sub(memory_limit),
            })
            .min()
    }
}

impl Group {
    fn new(place: &Path, version: Version) -> Self {
        let file = |name: &str| Kept::new(place.join(name));
        match version {
            Version::Unified => Self {
                limit: file("memory.max"),
                usage: file("memory.current"),
                stat: file("memory.stat"),
                swap_limit: file("memory.swap.max"),
                swap_usage: Some(file("memory.swap.current")),
            },
            Version::Legacy => Self {
                limit: file("memory.limit_in_bytes"),
                usage: file("memory.usage_in_bytes"),
                stat: file("memory.stat"),
                swap_limit: file("memory.memsw.limit_in_bytes"),
                swap_usage: None, // it stands in memory.stat
            },
        }
    }

    /// The group's own limit. `max`, and the legacy value for "no limit" (the largest page-aligned number), give
    /// `None`.
    fn limit(&mut self, version: Version, scratch: &mut Scratch) -> Option<u64> {
        let limit = self.limit.read(scratch).and_then(first_number)?;
        (version == Version::Unified || limit < LEGACY_UNLIMITED).then_some(limit)
    }

    fn hierarchical_limit(&mut self, scratch: &mut Scratch) -> Option<u64> {
        let text = self.stat.read(scratch)?;
        let limit = pairs(text).find_map(|(key, value)| (key == b"hierarchical_memory_limit").then_some(value))?;
        (limit < LEGACY_UNLIMITED).then_some(limit)
    }

    fn figures(&mut self, version: Version, scratch: &mut Scratch) -> Option<GroupFigures> {
        let usage = self.usage.read(scratch).and_then(first_number)?;
        let mut figures = self.stat.read(scratch).map(|text| stat(text, version)).unwrap_or_default();
        figures.usage = usage;
        if let Some(file) = &mut self.swap_usage {
            figures.swap_used = file.read(scratch).and_then(first_number);
        }
        Some(figures)
    }
}

/// A larger legacy limit means "no limit": the kernel writes the largest signed number, rounded down to a page.
const LEGACY_UNLIMITED: u64 = 1 << 62;

/// Reads `memory.stat`. The legacy file has each figure twice: for the group alone, and with its descendants
/// (`total_…`).
fn stat(text: &[u8], version: Version) -> GroupFigures {
    let mut own = GroupFigures::default();
    let mut whole = None::<GroupFigures>;
    for (key, value) in pairs(text) {
        match (version, key) {
            (Version::Unified | Version::Legacy, b"inactive_file") => own.inactive_file = value,
            (Version::Unified, b"file") | (Version::Legacy, b"cache") => own.cached = value,
            (Version::Legacy, b"swap") => own.swap_used = Some(value),
            (Version::Legacy, b"total_inactive_file") => whole.get_or_insert_default().inactive_file = value,
            (Version::Legacy, b"total_cache") => whole.get_or_insert_default().cached = value,
            (Version::Legacy, b"total_swap") => whole.get_or_insert_default().swap_used = Some(value),
            (Version::Unified | Version::Legacy, _) => {}
        }
    }
    whole.unwrap_or(own)
}

fn of_group(
    group: GroupFigures,
    limit: u64,
    swap_limit: Option<u64>,
    machine: Option<Meminfo>,
    source: Source,
) -> Memory {
    let total = machine.map_or(limit, |machine| limit.min(machine.total));
    let used = group.usage.saturating_sub(group.inactive_file).min(total);
    let unused = total.saturating_sub(group.usage);
    // A group cannot use more than the machine has free.
    let free = machine.map_or(unused, |machine| unused.min(machine.available));
    let swap_machine = machine.map_or(0, |machine| machine.swap_total);
    // Without swap accounting the group's swap is unknown, and the figure is 0.
    let swap_total = group.swap_used.map_or(0, |_| swap_limit.map_or(swap_machine, |limit| limit.min(swap_machine)));
    Memory {
        total_bytes: Count::new(total),
        used_bytes: Count::new(used),
        free_bytes: Count::new(free),
        cached_bytes: Count::new(group.cached),
        usage_percent: Percent::of(used, total),
        swap_total_bytes: Count::new(swap_total),
        swap_used_bytes: Count::new(group.swap_used.unwrap_or(0).min(swap_total)),
        source,
    }
}

fn of_machine(machine: Meminfo) -> Memory {
    let used = machine.total.saturating_sub(machine.available);
    Memory {
        total_bytes: Count::new(machine.total),
        used_bytes: Count::new(used),
        free_bytes: Count::new(machine.free.min(machine.total)),
        cached_bytes: Count::new(machine.cached),
        usage_percent: Percent::of(used, machine.total),
        swap_total_bytes: Count::new(machine.swap_total),
        swap_used_bytes: Count::new(machine.swap_total.saturating_sub(machine.swap_free)),
        source: Source::Host,
    }
}

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meminfo {
    /// All memory that the kernel manages.
    total: u64,
    /// Memory that holds nothing.
    free: u64,
    /// Memory that is available without swapping, by the kernel's own estimate.
    available: u64,
    /// Buffers, page cache and reclaimable kernel objects: what free(1) calls buff/cache.
    cached: u64,
    /// All swap.
    swap_total: u64,
    /// Swap that is free.
    swap_free: u64,
}

impl Meminfo {
    /// Counts memory as available that the kernel counts as used.
    fn can_drop(&mut self, bytes: u64) {
        let bytes = bytes.min(self.total.saturating_sub(self.available));
        self.available = self.available.saturating_add(bytes);
        self.cached = self.cached.saturating_add(bytes);
    }
}

/// How much ZFS's cache (ARC) gives back when memory is short: all but its minimum size. Each line of `arcstats` is a
/// name, a type and a value, in bytes.
fn reclaimable(arcstats: &[u8]) -> u64 {
    let value = |name: &[u8]| {
        lines(arcstats).find_map(|line| {
            let mut fields = words(line);
            if fields.next()? == name { number(fields.nth(1)?) } else { None }
        })
    };
    value(b"size").zip(value(b"c_min")).map_or(0, |(size, least)| size.saturating_sub(least))
}

/// Reads the text of `/proc/meminfo`; `None` if it has no total.
fn meminfo(text: &[u8]) -> Option<Meminfo> {
    let mut memory = Meminfo::default();
    let (mut available, mut shared) = (None, 0);
    for (key, kibibytes) in pairs(text) {
        let bytes = kibibytes.saturating_mul(1024);
        match key {
            b"MemTotal" => memory.total = bytes,
            b"MemFree" => memory.free = bytes,
            b"MemAvailable" => available = Some(bytes),
            b"Buffers" | b"Cached" | b"SReclaimable" => memory.cached = memory.cached.saturating_add(bytes),
            b"Shmem" => shared = bytes,
            b"SwapTotal" => memory.swap_total = bytes,
            b"SwapFree" => memory.swap_free = bytes,
            _ => {}
        }
    }
    // Kernels before 3.14, and some sandboxes, give no estimate. Then it is free and cached memory without shared
    // memory, which counts as cache but cannot be dropped.
    let estimate = memory.free.saturating_add(memory.cached.saturating_sub(shared));
    memory.available = available.unwrap_or(estimate).min(memory.total);
    (memory.total > 0).then_some(memory)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_legacy_file_is_read_with_its_descendants() {
        let text = b"cache 1\ninactive_file 2\nswap 3\ntotal_cache 10\ntotal_inactive_file 20\ntotal_swap 30\n";
        let expected = GroupFigures { usage: 0, inactive_file: 20, cached: 10, swap_used: Some(30) };
        assert_eq!(stat(text, Version::Legacy), expected);
        let alone = GroupFigures { usage: 0, inactive_file: 2, cached: 1, swap_used: Some(3) };
        assert_eq!(stat(b"cache 1\ninactive_file 2\nswap 3\n", Version::Legacy), alone);
        assert_eq!(stat(b"file 5\ninactive_file 4\nswap 9\n", Version::Unified).cached, 5);
    }

    #[test]
    fn reclaimable_zfs_cache_is_not_used() {
        let text = b"9 1 0x01 147 39984 5 6\nname type data\nhits 4 99\nc_min 4 100\nc_max 4 900\nsize 4 700\n";
        assert_eq!(reclaimable(text), 600);
        for none in [&b""[..], b"size 4 700\n", b"c_min 4 800\nsize 4 700\n", b"c_min 4\nsize 4 x\n"] {
            assert_eq!(reclaimable(none), 0);
        }
        let mut machine = Meminfo { total: 1000, available: 300, cached: 50, ..Meminfo::default() };
        machine.can_drop(600);
        assert_eq!((machine.available, machine.cached), (900, 650));
        machine.can_drop(600);
        assert_eq!(machine.available, 1000, "never above the total");
    }

    #[test]
    fn machine_memory_caps_a_larger_group_limit() {
        let machine = Meminfo { total: 1000, free: 10, available: 50, cached: 40, swap_total: 100, swap_free: 100 };
        let group = GroupFigures { usage: 300, inactive_file: 100, cached: 120, swap_used: Some(7) };
        let memory = of_group(group, 5000, Some(500), Some(machine), Source::Cgroup2);
        assert_eq!(memory.total_bytes, Count::new(1000));
        assert_eq!(memory.used_bytes, Count::new(200));
        assert_eq!(memory.free_bytes, Count::new(50));
        assert_eq!((memory.swap_total_bytes, memory.swap_used_bytes), (Count::new(100), Count::new(7)));
    }

    #[test]
    fn the_estimate_of_the_kernel_is_used_when_there_is_one() {
        let text = b"MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 60 kB\nBuffers: 1 kB\nCached: 50 kB\nSReclaimable: 9 kB\nShmem: 20 kB\n";
        let memory = meminfo(text).expect("the total is there");
        assert_eq!((memory.available, memory.cached), (60 * 1024, 60 * 1024));
        let old =
            meminfo(b"MemTotal: 100 kB\nMemFree: 10 kB\nCached: 50 kB\nShmem: 20 kB\n").expect("the total is there");
        assert_eq!(old.available, 40 * 1024);
    }

    #[test]
    fn without_a_total_nothing_is_known() {
        assert_eq!(meminfo(b"MemFree: 10 kB\n"), None);
        assert_eq!(meminfo(b""), None);
    }

    proptest! {
        #[test]
        fn any_stat_gives_figures_within_their_total(
            text in proptest::collection::vec(any::<u8>(), 0..300), usage: u64, limit in 1_u64.., total in 1_u64..
        ) {
            let group = GroupFigures { usage, ..stat(&text, Version::Legacy) };
            let machine = Meminfo { total, ..Meminfo::default() };
            for machine in [None, Some(machine)] {
                let memory = of_group(group, limit, None, machine, Source::Cgroup1);
                prop_assert!(memory.used_bytes <= memory.total_bytes && memory.free_bytes <= memory.total_bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (meminfo(&text), reclaimable(&text));
        }

        #[test]
        fn available_is_never_above_the_total(total in 1_u64.., free: u64, cached: u64, shared: u64) {
            let text = format!("MemTotal: {total} kB\nMemFree: {free} kB\nCached: {cached} kB\nShmem: {shared} kB\n");
            let memory = meminfo(text.as_bytes()).expect("the total is there");
            prop_assert!(memory.available <= memory.total);
        }
    }
}
