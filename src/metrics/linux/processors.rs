//! Reads how much processor time the instance may use and has used.
//!
//! Sources: for each visible group from the agent's own up, `cpu.max` and `cpu.stat` (unified, cgroup-v2 admin guide)
//! or `cpu.cfs_quota_us`, `cpu.cfs_period_us` and `cpuacct.usage` (legacy); `cpuset.cpus.effective` or
//! `cpuset.effective_cpus` of the agent's own group, else `Cpus_allowed_list` of `/proc/self/status`,
//! proc_pid_status(5); the `cpu` lines of `/proc/stat`, proc_stat(5). [`super::cpu`] compares two readings.
//!
//! Invariant: used time and allowed time belong to the same group. A quota of all usable processors or more never
//! binds, so it is treated as none. The time of a container is the time of a group that may use the same processors as
//! the agent.
//!
//! Units: cores, nanoseconds; ticks of the kernel, which are used in ratios only.

use std::path::Path;

use super::super::roots::Roots;
use super::super::scan::{CpuSet, first_number, keyed, line_of, lines, number, words};
use super::cgroup::{Lineage, Lineages, Version};
use super::kept::{Kept, Scratch};
use crate::protocol::metrics::Source;

/// The group whose processor time is the instance's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Account {
    /// The group's index, so that readings of different groups are never compared.
    pub(crate) group: usize,
    /// The time it has used since its creation, in nanoseconds.
    pub(crate) used_ns: u64,
    /// The interface that reports it.
    pub(crate) source: Source,
}

/// The processors that the instance may use, and the account of their use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Allowance {
    /// The smallest quota that binds, in cores; `None` without one.
    pub(crate) quota: Option<f64>,
    /// The processors that may be used; `None` when nothing says so.
    pub(crate) set: Option<CpuSet>,
    /// The group whose quota binds. In a container without such a quota, the outermost group with the same processors.
    /// `None` on a machine.
    pub(crate) account: Option<Account>,
}

/// Reads quotas, sets of processors and used time.
#[derive(Debug)]
pub(crate) struct AllowanceReader {
    quotas: Vec<Quota>,
    usages: Vec<Usage>,
    /// Whether the topmost group is a container's.
    contained: bool,
    sets: Vec<Kept>,
    status: Kept,
}

impl AllowanceReader {
    /// A reader of the files below these roots and in these groups.
    pub(crate) fn new(roots: &Roots, lineages: &Lineages) -> Self {
        let quotas = each(lineages.cpu.as_ref(), Quota::new);
        let usages = each(lineages.cpu_account.as_ref(), Usage::new);
        let sets = each(lineages.cpu_set.as_ref(), |place, version| {
            Kept::new(place.join(match version {
                Version::Unified => "cpuset.cpus.effective",
                Version::Legacy => "cpuset.effective_cpus",
            }))
        });
        let contained = lineages.cpu_account.as_ref().is_some_and(|lineage| lineage.contained);
        Self { quotas, usages, contained, sets, status: Kept::new(roots.proc.join("self/status")) }
    }

    /// The processors that may be used; `None` when nothing says so.
    pub(crate) fn set(&mut self, scratch: &mut Scratch) -> Option<CpuSet> {
        if let Some(own) = self.sets.first_mut()
            && let Some(set) = own.read(scratch).and_then(CpuSet::parse)
        {
            return Some(set);
        }
        self.status.read(scratch).and_then(|text| CpuSet::parse(line_of(text, b"Cpus_allowed_list")?))
    }

    /// What the instance may use and has used. `set` are the processors that it may use; `processors` is their number,
    /// or 0 if it is unknown.
    pub(crate) fn read(&mut self, set: Option<CpuSet>, processors: u32, scratch: &mut Scratch) -> Allowance {
        let mut quota: Option<(usize, f64)> = None;
        for (index, group) in self.quotas.iter_mut().enumerate() {
            if let Some(cores) = group.read(scratch)
                && (processors == 0 || cores < f64::from(processors))
                && quota.is_none_or(|(_, least)| cores <= least)
            {
                quota = Some((index, cores));
            }
        }
        let account = self.account(quota.map(|(index, _)| index), set, scratch);
        Allowance { quota: quota.map(|(_, cores)| cores), set, account }
    }

    fn account(&mut self, binding: Option<usize>, set: Option<CpuSet>, scratch: &mut Scratch) -> Option<Account> {
        let top = self.usages.len().checked_sub(1)?;
        let group = match binding {
            Some(index) => corresponding(index, self.quotas.len(), top),
            None if self.contained => corresponding(self.outermost_with(set, scratch), self.sets.len(), top),
            None => return None,
        };
        let usage = self.usages.get_mut(group)?;
        Some(Account { group, used_ns: usage.read(scratch)?, source: usage.version.source() })
    }

    /// The outermost group that may use the same processors as the agent. A group without such a file has those of its
    /// parent.
    fn outermost_with(&mut self, set: Option<CpuSet>, scratch: &mut Scratch) -> usize {
        let wider = self.sets.iter_mut().skip(1).position(|group| {
            let other = group.read(scratch).and_then(CpuSet::parse);
            other.is_some() && other != set
        });
        wider.unwrap_or_else(|| self.sets.len().saturating_sub(1))
    }
}

/// Maps a group of one hierarchy to a group of another. If quota, processors and accounting have separate hierarchies,
/// their groups correspond from the root down. `groups` is the number of groups of the other hierarchy, `top` the index
/// of the root of this one.
fn corresponding(index: usize, groups: usize, top: usize) -> usize {
    top.saturating_sub(groups.saturating_sub(1).saturating_sub(index))
}

fn each<T>(lineage: Option<&Lineage>, make: impl Fn(&Path, Version) -> T) -> Vec<T> {
    lineage.map_or_else(Vec::new, |lineage| lineage.groups.iter().map(|place| make(place, lineage.version)).collect())
}

/// The quota of one group.
#[derive(Debug)]
enum Quota {
    Unified { max: Kept },
    Legacy { quota: Kept, period: Kept },
}

impl Quota {
    fn new(place: &Path, version: Version) -> Self {
        match version {
            Version::Unified => Self::Unified { max: Kept::new(place.join("cpu.max")) },
            Version::Legacy => Self::Legacy {
                quota: Kept::new(place.join("cpu.cfs_quota_us")),
                period: Kept::new(place.join("cpu.cfs_period_us")),
            },
        }
    }

    fn read(&mut self, scratch: &mut Scratch) -> Option<f64> {
        match self {
            Self::Unified { max } => unified_quota(max.read(scratch)?),
            Self::Legacy { quota, period } => {
                // -1 means no quota, and does not parse as a number.
                let quota_us = quota.read(scratch).and_then(first_number)?;
                cores(quota_us, period.read(scratch).and_then(first_number)?)
            }
        }
    }
}

/// `50000 100000`, or `max 100000` for none.
fn unified_quota(text: &[u8]) -> Option<f64> {
    let mut fields = words(text);
    let quota_us = number(fields.next()?)?;
    cores(quota_us, fields.next().map_or(Some(PERIOD_DEFAULT_US), number)?)
}

/// The kernel's default.
const PERIOD_DEFAULT_US: u64 = 100_000;

#[allow(clippy::cast_precision_loss)] // quotas are millions at most
fn cores(quota_us: u64, period_us: u64) -> Option<f64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

/// The file with the time that one group has used.
#[derive(Debug)]
struct Usage {
    version: Version,
    file: Kept,
}

impl Usage {
    fn new(place: &Path, version: Version) -> Self {
        let name = match version {
            Version::Unified => "cpu.stat",
            Version::Legacy => "cpuacct.usage",
        };
        Self { version, file: Kept::new(place.join(name)) }
    }

    fn read(&mut self, scratch: &mut Scratch) -> Option<u64> {
        let text = self.file.read(scratch)?;
        match self.version {
            Version::Unified => keyed(text, b"usage_usec").map(|used_us| used_us.saturating_mul(1000)),
            Version::Legacy => first_number(text),
        }
    }
}

/// The time of one processor, or of all together, since a moment in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    /// All time that passed.
    pub(crate) total: u64,
    /// Time in which it ran this machine's work.
    pub(crate) busy: u64,
    /// Time that the hypervisor gave to other machines.
    pub(crate) stolen: u64,
}

impl Ticks {
    /// The time since `earlier`. A counter that went back, as iowait may, counts as unchanged.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            busy: self.busy.saturating_sub(earlier.busy),
            stolen: self.stolen.saturating_sub(earlier.stolen),
        }
    }
}

/// Reads the `cpu` lines: returns the ticks of all processors together, and puts each processor into `cores` with its
/// number.
pub(crate) fn processors(text: &[u8], cores: &mut Vec<(usize, Ticks)>) -> Option<Ticks> {
    cores.clear();
    let mut all = None;
    // They come first. The rest of the file can be long (one number for each interrupt).
    for line in lines(text) {
        let Some(rest) = line.strip_prefix(b"cpu") else { break };
        let mut fields = words(rest);
        if rest.first().is_some_and(u8::is_ascii_whitespace) {
            all = ticks(fields);
        } else if let Some(index) = fields.next().and_then(number).and_then(|index| usize::try_from(index).ok())
            && let Some(ticks) = ticks(fields)
        {
            cores.push((index, ticks));
        }
    }
    all
}

/// user, nice, system, idle, iowait, irq, softirq, steal. The guest times that follow are part of user and nice.
fn ticks<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<Ticks> {
    let mut ticks = Ticks::default();
    let mut read = 0;
    for (index, field) in fields.take(8).enumerate() {
        let value = number(field)?;
        ticks.total = ticks.total.saturating_add(value);
        match index {
            3 | 4 => {}
            7 => ticks.stolen = value,
            _ => ticks.busy = ticks.busy.saturating_add(value),
        }
        read += 1;
    }
    // Even the oldest kernels give the first four.
    (read >= 4).then_some(ticks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_of_two_hierarchies_correspond_from_the_root() {
        assert_eq!(corresponding(0, 3, 2), 0);
        assert_eq!(corresponding(1, 2, 2), 2, "the root of the shallower one");
        assert_eq!(corresponding(0, 4, 1), 0, "deeper than this one goes");
        assert_eq!(corresponding(0, 0, 2), 2, "there is no other hierarchy");
    }

    #[test]
    fn a_quota_is_cores() {
        assert_eq!(unified_quota(b"50000 100000\n"), Some(0.5));
        assert_eq!(unified_quota(b"250000"), Some(2.5));
        for none in [&b"max 100000\n"[..], b"", b"0 100000", b"5 0", b"5 x", b"-1 100000"] {
            assert_eq!(unified_quota(none), None, "{none:?}");
        }
    }

    #[test]
    fn work_idle_and_stolen_time_are_separate() {
        let text = b"cpu  10 1 5 100 20 2 3 7 4 0\ncpu0 10 1 5 100 20 2 3 7 4 0\ncpu3 1 1 1 1\nintr 5 cpu\n";
        let mut cores = Vec::new();
        let all = processors(text, &mut cores).expect("the first line is whole");
        assert_eq!(all, Ticks { total: 148, busy: 21, stolen: 7 });
        assert_eq!(cores, [(0, all), (3, Ticks { total: 4, busy: 3, stolen: 0 })]);
    }

    #[test]
    fn a_damaged_line_is_left_out() {
        let mut cores = Vec::new();
        assert_eq!(processors(b"cpu  1 2 x 4\ncpu0 1 2\ncpux 1 2 3 4\ncpu1 1 2 3 4\n", &mut cores), None);
        assert_eq!(cores.len(), 1);
    }

    proptest! {
        #[test]
        fn any_quota_is_a_positive_number_or_none(text in "[0-9a-z -]{0,40}") {
            if let Some(cores) = unified_quota(text.as_bytes()) {
                prop_assert!(cores > 0.0 && cores.is_finite());
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(text in "(cpu[0-9 ]{0,3}([ 0-9x]{0,30})\n){0,5}.{0,50}") {
            let mut cores = Vec::new();
            if let Some(all) = processors(text.as_bytes(), &mut cores) {
                prop_assert!(all.busy <= all.total && all.stolen <= all.total);
            }
        }
    }
}
