//! A sample from `sysinfo` alone, for systems whose kernel has no files to read: macOS.
//!
//! Knows no control groups; there are none. What `sysinfo` does not know (cached memory, pressure, descriptors) is 0 or
//! left out.
//!
//! Invariants: as for the Linux readers, one entry for each real file system (the volumes of one APFS container share
//! its space and count once), loopback is not counted, and heartbeat and metrics each measure the processors over their
//! own time.

use std::time::Duration;

use sysinfo::{Disks, Networks, System};

use super::rate::{Rate, growth};
use super::roots::Roots;
use super::{CPU_INTERVAL_MIN, Figure};
use crate::protocol::metrics::{Count, Cpu, Disk, Instance, Live, Memory, Metrics, Network, Percent, Ratio, Source};

/// Interfaces that carry what others carry, too, or nothing that leaves the machine.
const DUPLICATES: &[&str] =
    &["lo", "bridge", "utun", "gif", "stf", "awdl", "llw", "anpi", "ap", "docker", "br-", "veth", "vmenet"];

/// The use of the processors over the time since its own last reading.
struct Processors {
    system: Option<System>,
    since: Option<Duration>,
    ready: bool,
}

/// Everything that is kept between readings.
pub(crate) struct Machine {
    roots: Roots,
    live: Processors,
    sample: Processors,
    memory: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    network: Totals,
}

/// Traffic that never goes back.
#[derive(Default)]
struct Totals {
    seen: Vec<(String, [u64; 4])>,
    total: [u64; 4],
    last: Option<Duration>,
    sent: Rate,
    received: Rate,
}

impl Machine {
    /// Reads nothing yet.
    pub(crate) fn new(roots: Roots) -> Self {
        Self {
            roots,
            live: Processors::new(),
            sample: Processors::new(),
            memory: None,
            disks: None,
            networks: None,
            network: Totals::default(),
        }
    }

    /// Whether a sample at present would have a figure for the processors.
    pub(crate) fn has_cpu_sample(&self) -> bool {
        self.sample.ready
            || self.sample.since.is_some_and(|since| (self.roots.clock)().saturating_sub(since) >= CPU_INTERVAL_MIN)
    }

    /// Takes the first of the two readings that a figure for the processors needs.
    pub(crate) fn prime(&mut self) {
        let at = (self.roots.clock)();
        self.live.advance(at);
        self.sample.advance(at);
    }

    /// All figures.
    pub(crate) fn sample(&mut self) -> Metrics {
        let at = (self.roots.clock)();
        self.sample.advance(at);
        let uptime = System::uptime().ok().map(Count::new);
        Metrics {
            cpu: self.sample.figures(),
            memory: self.memory(),
            disk: self.disks(),
            network: self.network(at),
            disk_io: None,
            pressure: None,
            instance: Instance { uptime_seconds: uptime, ..Instance::default() },
        }
    }

    /// The few figures of a heartbeat.
    pub(crate) fn live(&mut self) -> Live {
        self.live.advance((self.roots.clock)());
        let memory = self.memory();
        let disks = self.disks();
        let sum = |of: fn(&Disk) -> Count| {
            Count::new(disks.iter().fold(0, |sum: u64, disk| sum.saturating_add(of(disk).value())))
        };
        Live {
            cpu_percent: self.live.figures().usage_percent,
            memory_used: memory.used_bytes,
            memory_total: memory.total_bytes,
            disk_used: sum(|disk| disk.used_bytes),
            disk_total: sum(|disk| disk.total_bytes),
        }
    }

    /// Whether the last reading of this figure had a source.
    pub(crate) fn knows(&self, figure: Figure) -> bool {
        match figure {
            Figure::Processors => self.live.system.is_some() || self.sample.system.is_some(),
            Figure::Memory => self.memory.is_some(),
            Figure::FileSystems => self.disks.is_some(),
        }
    }

    /// Where the file systems are mounted that are not measured: all are.
    #[allow(clippy::unused_self, dead_code)] // the Linux readers have some, and the caller is the same
    pub(crate) fn left_out(&self) -> &[String] {
        &[]
    }

    fn memory(&mut self) -> Memory {
        if self.memory.is_none() {
            self.memory = System::new().ok();
        }
        let Some(system) = &mut self.memory else { return Memory::default() };
        system.refresh_memory();
        let (total, used) = (system.total_memory(), system.used_memory().min(system.total_memory()));
        Memory {
            total_bytes: Count::new(total),
            used_bytes: Count::new(used),
            free_bytes: Count::new(system.free_memory()),
            cached_bytes: Count::default(),
            usage_percent: Percent::of(used, total),
            swap_total_bytes: Count::new(system.total_swap()),
            swap_used_bytes: Count::new(system.used_swap()),
            source: Source::Host,
        }
    }

    fn disks(&mut self) -> Vec<Disk> {
        match &mut self.disks {
            Some(disks) => disks.refresh(true),
            none @ None => *none = Disks::new_with_refreshed_list().ok(),
        }
        let mut found: Vec<Disk> = Vec::new();
        for disk in self.disks.iter().flat_map(|disks| disks.iter()) {
            let (total, free) = (disk.total_space(), disk.available_space());
            // The volumes of one APFS container say the same size and the same free space.
            let shared = |other: &Disk| other.total_bytes == Count::new(total) && other.free_bytes == Count::new(free);
            if total == 0 || found.iter().any(shared) {
                continue;
            }
            let used = total.saturating_sub(free);
            found.push(Disk {
                mount_point: disk.mount_point().to_string_lossy().as_ref().into(),
                device: disk.name().to_string_lossy().as_ref().into(),
                fs_type: disk.file_system().to_string_lossy().as_ref().into(),
                total_bytes: Count::new(total),
                used_bytes: Count::new(used),
                free_bytes: Count::new(free),
                usage_percent: Percent::of(used, total),
                inodes_total: None,
                inodes_used: None,
                read_bytes_per_second: None,
                write_bytes_per_second: None,
            });
        }
        found.sort_by(|one, other| one.mount_point.cmp(&other.mount_point));
        found
    }

    fn network(&mut self, at: Duration) -> Network {
        match &mut self.networks {
            Some(networks) => networks.refresh(true),
            none @ None => *none = Networks::new_with_refreshed_list().ok(),
        }
        let mut now: Vec<(String, [u64; 4])> = self
            .networks
            .iter()
            .flat_map(|networks| networks.iter())
            .map(|(name, data)| (name.to_string_lossy(), data))
            .filter(|(name, _)| !DUPLICATES.iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, data)| {
                let counters = [
                    data.total_transmitted(),
                    data.total_received(),
                    data.total_packets_transmitted(),
                    data.total_packets_received(),
                ];
                (name.into_owned(), counters)
            })
            .collect();
        now.sort();
        self.network.advance(at, now)
    }
}

impl Processors {
    fn new() -> Self {
        Self { system: None, since: None, ready: false }
    }

    /// Ends a window at `at`, unless it is too short yet.
    fn advance(&mut self, at: Duration) {
        if self.since.is_some_and(|since| at.saturating_sub(since) < CPU_INTERVAL_MIN) {
            return;
        }
        if self.system.is_none() {
            self.system = System::new().ok();
        }
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            self.ready = self.since.is_some();
            self.since = Some(at);
        }
    }

    fn figures(&self) -> Cpu {
        let load = System::load_average().map_or([0.0; 3], |load| [load.one, load.five, load.fifteen]);
        let mut cpu = Cpu {
            load_avg_1: Ratio::new(load[0]),
            load_avg_5: Ratio::new(load[1]),
            load_avg_15: Ratio::new(load[2]),
            core_count: super::facts::core_count(),
            ..Cpu::default()
        };
        if let Some(system) = self.system.as_ref().filter(|_| self.ready) {
            cpu.usage_percent = Percent::new(f64::from(system.global_cpu_usage()));
            cpu.per_core = system.cpus().iter().map(|core| Percent::new(f64::from(core.usage()))).collect();
        }
        cpu
    }
}

impl Totals {
    fn advance(&mut self, at: Duration, now: Vec<(String, [u64; 4])>) -> Network {
        let elapsed = self.last.map(|last| at.saturating_sub(last));
        for (name, counters) in &now {
            let earlier = self.seen.iter().find_map(|(other, earlier)| (other == name).then_some(*earlier));
            // What was there before us is where the counts begin; what appears later counts from now on.
            let earlier = earlier.unwrap_or(if elapsed.is_none() { [0; 4] } else { *counters });
            for (index, sum) in self.total.iter_mut().enumerate() {
                let grown = elapsed.map_or(counters[index], |elapsed| growth(earlier[index], counters[index], elapsed));
                *sum = sum.saturating_add(grown);
            }
        }
        self.seen = now;
        self.last = Some(at);
        let [sent, received, packets_sent, packets_recv] = self.total;
        self.sent.advance(at, sent);
        self.received.advance(at, received);
        Network {
            bytes_sent: Count::new(sent),
            bytes_recv: Count::new(received),
            packets_sent: Count::new(packets_sent),
            packets_recv: Count::new(packets_recv),
            sent_bytes_per_second: self.sent.per_second().map(Count::new),
            recv_bytes_per_second: self.received.per_second().map(Count::new),
            errors: None,
            drops: None,
            tcp_connections: None,
        }
    }
}

/// Whether another machine or a program serves the file system at this path: not known here.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "for other systems"))]
pub(crate) fn is_path_served(_path: &std::path::Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn it_measures_whatever_machine_it_runs_on() {
        let now_s = Arc::new(AtomicU64::new(1));
        let clock = now_s.clone();
        let roots =
            Roots { clock: Arc::new(move || Duration::from_secs(clock.load(Ordering::SeqCst))), ..Roots::default() };
        let mut machine = Machine::new(roots);
        assert!(!machine.has_cpu_sample());
        machine.prime();
        assert!(!machine.has_cpu_sample());
        now_s.store(9, Ordering::SeqCst);
        assert!(machine.has_cpu_sample());
        let metrics = machine.sample();
        assert!(metrics.cpu.core_count >= 1 && !metrics.cpu.per_core.is_empty());
        assert!(
            metrics.memory.used_bytes <= metrics.memory.total_bytes && metrics.memory.total_bytes > Count::default()
        );
        assert!(metrics.instance.uptime_seconds.is_some());
        assert_eq!(machine.live().memory_total, metrics.memory.total_bytes);
        assert!(Figure::ALL.into_iter().all(|figure| machine.knows(figure)));
    }

    #[test]
    fn traffic_never_goes_back() {
        let mut totals = Totals::default();
        let at = Duration::from_secs;
        totals.advance(at(1), vec![("en0".into(), [100; 4])]);
        totals.advance(at(2), vec![("en0".into(), [150; 4]), ("en1".into(), [1 << 40; 4])]);
        let network = totals.advance(at(3), vec![("en0".into(), [5; 4])]);
        assert_eq!(network.bytes_sent, Count::new(150));
    }
}
