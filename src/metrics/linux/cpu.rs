//! The use of the processors, as a share of what the instance may use, between two readings.
//!
//! Sources: [`super::processors`], [`super::load`] and `/sys/devices/system/cpu/online`.
//!
//! Where a quota binds, usage is the processor time of the group with that quota. No usage of single cores is reported
//! then, because the group shares the cores. In a container without a quota that binds, usage is the processor time of
//! the container. On a machine, usage is the busy share of the processors that the agent may use.
//!
//! Invariants: heartbeat and metrics each compare with their own previous reading, so neither shortens the other's
//! window; a window shorter than [`super::super::CPU_INTERVAL_MIN`] is not evaluated, because ticks are 10 ms long;
//! readings of different groups are never compared. Units: percent, cores.

use std::time::Duration;

use super::super::CPU_INTERVAL_MIN;
use super::super::roots::Roots;
use super::super::scan::CpuSet;
use super::cgroup::Lineages;
use super::kept::{Kept, Scratch};
use super::load::Load;
use super::processors::{Account, Allowance, AllowanceReader, Ticks, processors};
use crate::protocol::metrics::{Cpu, Percent, Ratio, Source};

/// Which message a reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `heartbeat`.
    Live,
    /// `metrics`.
    Sample,
}

/// Reads the counters, and keeps the previous readings.
#[derive(Debug)]
pub(crate) struct CpuReader {
    stat: Kept,
    online: Kept,
    allowance: AllowanceReader,
    now: Reading,
    live: Window,
    sample: Window,
}

impl CpuReader {
    /// A reader of the files below these roots and in these groups.
    pub(crate) fn new(roots: &Roots, lineages: &Lineages) -> Self {
        Self {
            stat: Kept::new(roots.proc.join("stat")),
            online: Kept::new(roots.sys.join("devices/system/cpu/online")),
            allowance: AllowanceReader::new(roots, lineages),
            now: Reading::default(),
            live: Window::default(),
            sample: Window::default(),
        }
    }

    /// Reads other groups from now on, and compares none of their readings with those of the old groups.
    pub(crate) fn move_to(&mut self, roots: &Roots, lineages: &Lineages) {
        self.allowance = AllowanceReader::new(roots, lineages);
        self.live.forget_account();
        self.sample.forget_account();
    }

    /// Whether a reading at `at` would end a window.
    pub(crate) fn is_due(&self, at: Duration) -> bool {
        self.sample.share.is_some() || self.sample.is_due(at)
    }

    /// Reads the counters at `at`. The very first reading starts both windows.
    pub(crate) fn read(&mut self, at: Duration, purpose: Purpose, scratch: &mut Scratch) {
        self.now.at = at;
        let all = self.stat.read(scratch).and_then(|text| processors(text, &mut self.now.cores));
        self.now.all = all.unwrap_or_default();
        if all.is_none() {
            self.now.cores.clear();
        }
        let set = self.allowance.set(scratch);
        self.now.online = self.online(set, scratch);
        self.now.allowance = self.allowance.read(set, usable(set, self.now.online), scratch);
        let (used, other) = match purpose {
            Purpose::Live => (&mut self.live, &mut self.sample),
            Purpose::Sample => (&mut self.sample, &mut self.live),
        };
        used.advance(&self.now);
        if other.base.is_none() {
            other.advance(&self.now);
        }
    }

    /// Whether the last reading had a source.
    pub(crate) fn knows(&self) -> bool {
        self.now.all.total > 0 || self.now.account().is_some()
    }

    /// The usage in the window of this purpose.
    pub(crate) fn usage(&self, purpose: Purpose) -> Percent {
        let window = match purpose {
            Purpose::Live => &self.live,
            Purpose::Sample => &self.sample,
        };
        window.share.unwrap_or_default().usage
    }

    /// The figures of the last sample.
    pub(crate) fn figures(&self, load: Option<Load>) -> Cpu {
        let share = self.sample.share.unwrap_or_default();
        let [load_avg_1, load_avg_5, load_avg_15] = load.unwrap_or_default().averages;
        let (cores, limited) = self.now.cores_allowed();
        Cpu {
            usage_percent: share.usage,
            load_avg_1,
            load_avg_5,
            load_avg_15,
            core_count: rounded_up(cores),
            per_core: if limited { Vec::new() } else { self.sample.per_core.clone() },
            cores: limited.then(|| Ratio::new(cores)),
            steal_percent: share.steal,
            source: share.source,
        }
    }

    /// How many processors there are.
    fn online(&mut self, allowed: Option<CpuSet>, scratch: &mut Scratch) -> u32 {
        if !self.now.cores.is_empty() {
            return u32::try_from(self.now.cores.len()).unwrap_or(u32::MAX);
        }
        let listed = self.online.read(scratch).and_then(CpuSet::parse).or(allowed);
        listed.map_or(0, |set| set.count())
    }
}

/// All counters at one time.
#[derive(Debug, Default)]
struct Reading {
    at: Duration,
    all: Ticks,
    cores: Vec<(usize, Ticks)>,
    online: u32,
    allowance: Allowance,
}

impl Reading {
    /// How many cores the instance may use, and whether a quota limits them.
    fn cores_allowed(&self) -> (f64, bool) {
        match self.allowance.quota {
            Some(quota) => (quota, true),
            None => (f64::from(usable(self.allowance.set, self.online)), false),
        }
    }

    /// Whether the instance may use this processor. If the file lists as many processors as the instance may use, all
    /// of them count: lxcfs lists only a container's own and numbers them from 0.
    fn is_ours(&self, core: usize) -> bool {
        self.allowance.set.is_none_or(|set| set.count() >= self.online || set.contains(core))
    }

    /// The account that measures usage, if the machine's ticks do not.
    fn account(&self) -> Option<Account> {
        self.allowance.account
    }

    fn copy_from(&mut self, other: &Self) {
        self.at = other.at;
        self.all = other.all;
        self.cores.clone_from(&other.cores);
        self.online = other.online;
        self.allowance = other.allowance;
    }
}

/// How many of the online processors this set allows.
fn usable(set: Option<CpuSet>, online: u32) -> u32 {
    set.map_or(online, |set| if online == 0 { set.count() } else { set.count().min(online) })
}

/// How the time between two readings was used.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    usage: Percent,
    steal: Option<Percent>,
    source: Source,
}

/// The window of one purpose.
#[derive(Debug, Default)]
struct Window {
    base: Option<Reading>,
    share: Option<Share>,
    per_core: Vec<Percent>,
}

impl Window {
    fn is_due(&self, at: Duration) -> bool {
        self.base.as_ref().is_some_and(|base| at.saturating_sub(base.at) >= CPU_INTERVAL_MIN)
    }

    fn forget_account(&mut self) {
        if let Some(base) = &mut self.base {
            base.allowance.account = None;
        }
    }

    /// Ends the window at this reading and starts the next, unless the window is still too short.
    fn advance(&mut self, now: &Reading) {
        let Some(base) = &mut self.base else {
            let mut base = Reading::default();
            base.copy_from(now);
            self.base = Some(base);
            return;
        };
        if now.at.saturating_sub(base.at) < CPU_INTERVAL_MIN {
            return;
        }
        if let Some(share) = share(base, now) {
            self.share = Some(share);
        }
        self.per_core.clear();
        for (index, ticks) in now.cores.iter().filter(|(index, _)| now.is_ours(*index)) {
            let earlier = base.cores.iter().find_map(|(other, ticks)| (other == index).then_some(*ticks));
            // A processor that has just come online has no earlier ticks.
            let spent = earlier.map_or(Ticks::default(), |earlier| ticks.since(earlier));
            self.per_core.push(Percent::of(spent.busy, spent.total));
        }
        base.copy_from(now);
    }
}

/// The share of the allowed time that was used; `None` if the two readings cannot be compared.
fn share(base: &Reading, now: &Reading) -> Option<Share> {
    let machine = now.all.since(base.all);
    let steal = (machine.total > 0).then(|| Percent::of(machine.stolen, machine.total));
    let Some(account) = now.account() else {
        return Some(Share { usage: busy_share(base, now), steal, source: Source::Host });
    };
    let earlier =
        base.account().filter(|earlier| earlier.group == account.group && earlier.source == account.source)?;
    let (cores, _) = now.cores_allowed();
    let elapsed_ns = now.at.saturating_sub(base.at).as_secs_f64() * 1e9;
    #[allow(clippy::cast_precision_loss)] // a day of 100 cores is 2^53 ns
    let used_ns = account.used_ns.saturating_sub(earlier.used_ns) as f64;
    let allowed_ns = elapsed_ns * cores;
    let usage = if allowed_ns > 0.0 { Percent::new(used_ns / allowed_ns * 100.0) } else { Percent::default() };
    Some(Share { usage, steal, source: account.source })
}

/// How busy the processors were that the instance may use.
fn busy_share(base: &Reading, now: &Reading) -> Percent {
    let mut spent = Ticks::default();
    for (index, ticks) in now.cores.iter().filter(|(index, _)| now.is_ours(*index)) {
        if let Some((_, earlier)) = base.cores.iter().find(|(other, _)| other == index) {
            let own = ticks.since(*earlier);
            spent.total = spent.total.saturating_add(own.total);
            spent.busy = spent.busy.saturating_add(own.busy);
        }
    }
    if spent.total == 0 {
        spent = now.all.since(base.all);
    }
    Percent::of(spent.busy, spent.total)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is within the type's range
fn rounded_up(cores: f64) -> u32 {
    cores.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_ms: u64, busy: u64, account: Option<(usize, u64)>, quota: Option<f64>) -> Reading {
        let ticks = Ticks { total: at_ms, busy, stolen: 0 };
        let account = account.map(|(group, used_ns)| Account { group, used_ns, source: Source::Cgroup2 });
        Reading {
            at: Duration::from_millis(at_ms),
            all: ticks,
            cores: vec![(0, ticks), (1, ticks)],
            online: 2,
            allowance: Allowance { quota, set: None, account },
        }
    }

    fn usage(window: &Window) -> Option<f64> {
        window.share.map(|share| share.usage.value())
    }

    #[test]
    fn first_reading_and_short_window_give_no_figure() {
        let mut window = Window::default();
        window.advance(&reading(1000, 0, None, None));
        assert_eq!(usage(&window), None);
        window.advance(&reading(1100, 100, None, None));
        assert_eq!(usage(&window), None);
        window.advance(&reading(2000, 500, None, None));
        assert_eq!(usage(&window), Some(50.0));
        assert_eq!(window.per_core.len(), 2);
    }

    #[test]
    fn a_quota_is_measured_by_its_own_group() {
        let mut window = Window::default();
        window.advance(&reading(1000, 0, Some((0, 0)), Some(0.5)));
        window.advance(&reading(2000, 1000, Some((0, 250_000_000)), Some(0.5)));
        assert_eq!(usage(&window), Some(50.0));
    }

    #[test]
    fn different_groups_are_not_compared() {
        let mut window = Window::default();
        window.advance(&reading(1000, 0, Some((0, 0)), Some(0.5)));
        window.advance(&reading(2000, 0, Some((1, 900_000_000)), Some(0.5)));
        assert_eq!(usage(&window), None);
        window.advance(&reading(3000, 0, Some((1, 1_000_000_000)), Some(0.5)));
        assert_eq!(usage(&window), Some(20.0));
    }

    #[test]
    fn counter_reset_counts_as_no_use() {
        let mut window = Window::default();
        window.advance(&reading(1000, 900, Some((0, 5)), None));
        window.advance(&reading(2000, 0, Some((0, 0)), None));
        assert_eq!(usage(&window), Some(0.0));
    }

    #[test]
    fn cores_are_those_of_the_quota_that_binds_or_of_the_set() {
        let mut now = reading(0, 0, None, Some(1.5));
        assert_eq!(now.cores_allowed(), (1.5, true));
        now.allowance.quota = None;
        assert_eq!(now.cores_allowed(), (2.0, false));
        now.allowance.set = CpuSet::parse(b"1");
        assert_eq!(now.cores_allowed(), (1.0, false));
        assert!(now.is_ours(1) && !now.is_ours(0));
        now.allowance.set = CpuSet::parse(b"4-5");
        assert!(now.is_ours(0), "lxcfs numbers a container's processors from 0");
        assert_eq!(rounded_up(0.25), 1);
    }
}
