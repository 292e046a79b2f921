//! The readers of the Linux kernel's files, and how their figures make one sample.
//!
//! Each reader has its own file and names its sources there. A figure that a reader cannot read is left out or 0, and
//! stops no other reader. The agent's loop decides when to measure.
//!
//! Invariants: nothing waits; of single processes, only files of the agent's own and of process 1 are read; every list
//! is bounded.

mod cgroup;
mod cpu;
mod disks;
mod instance;
mod kept;
mod load;
mod memory;
mod mounts;
mod network;
mod processors;
mod traffic;

use std::time::Duration;

use self::cgroup::Lineages;
use self::cpu::{CpuReader, Purpose};
use self::disks::DiskReader;
use self::instance::InstanceReader;
use self::kept::{Kept, Scratch};
use self::load::{PressureReader, loadavg};
use self::memory::MemoryReader;
use self::network::NetworkReader;
use self::traffic::IoReader;
use super::Figure;
use super::facts::core_count;
use super::roots::Roots;
use crate::protocol::metrics::{Count, Cpu, DiskIo, Live, Metrics, Source};

/// All readers, and the agent's control groups.
pub(crate) struct Machine {
    roots: Roots,
    scratch: Scratch,
    membership: Kept,
    /// The last text of `/proc/self/cgroup`.
    member_text: Vec<u8>,
    lineages: Lineages,
    cpu: CpuReader,
    load: Kept,
    memory: MemoryReader,
    disks: DiskReader,
    io: Option<IoReader>,
    network: NetworkReader,
    pressure: PressureReader,
    instance: InstanceReader,
}

impl Machine {
    /// Opens nothing yet.
    pub(crate) fn new(roots: Roots) -> Self {
        let lineages = Lineages::default();
        Self {
            scratch: Scratch::default(),
            membership: Kept::new(roots.proc.join("self/cgroup")),
            member_text: Vec::new(),
            cpu: CpuReader::new(&roots, &lineages),
            load: Kept::new(roots.proc.join("loadavg")),
            memory: MemoryReader::new(&roots, None),
            disks: DiskReader::new(&roots),
            io: None,
            network: NetworkReader::new(&roots),
            pressure: PressureReader::new(&roots, None),
            instance: InstanceReader::new(&roots, &lineages),
            lineages,
            roots,
        }
    }

    /// Whether a sample now would have a figure for the processors.
    pub(crate) fn has_cpu_sample(&self) -> bool {
        self.cpu.is_due((self.roots.clock)())
    }

    /// Takes the first of the two readings that usage of the processors needs.
    pub(crate) fn prime(&mut self) {
        let at = self.locate();
        self.cpu.read(at, Purpose::Live, &mut self.scratch);
    }

    /// All figures.
    pub(crate) fn sample(&mut self) -> Metrics {
        let at = self.locate();
        let scratch = &mut self.scratch;
        self.cpu.read(at, Purpose::Sample, scratch);
        let load = self.load.read(scratch).and_then(loadavg);
        let memory = self.memory.read(scratch).unwrap_or_default();
        let network = self.network.read(at, scratch);
        let pressure = self.pressure.read(scratch);
        let instance = self.instance.read(load.and_then(|load| load.tasks), scratch);
        let cpu = known_cores(self.cpu.figures(load));
        self.disks.read();
        let disk_io = self.disk_io(at);
        Metrics { cpu, memory, disk: self.disks.figures(), network, disk_io, pressure, instance }
    }

    /// The figures of a heartbeat.
    pub(crate) fn live(&mut self) -> Live {
        let at = self.locate();
        self.cpu.read(at, Purpose::Live, &mut self.scratch);
        let memory = self.memory.read(&mut self.scratch).unwrap_or_default();
        self.disks.read();
        let (disk_used, disk_total) = self.disks.sum();
        Live {
            cpu_percent: self.cpu.usage(Purpose::Live),
            memory_used: memory.used_bytes,
            memory_total: memory.total_bytes,
            disk_used,
            disk_total,
        }
    }

    /// Whether the last reading of this figure had a source.
    pub(crate) fn knows(&self, figure: Figure) -> bool {
        match figure {
            Figure::Processors => self.cpu.knows(),
            Figure::Memory => self.memory.knows(),
            Figure::FileSystems => self.disks.knows(),
        }
    }

    /// The mount points of the file systems that are not measured.
    pub(crate) fn left_out(&self) -> &[String] {
        self.disks.left_out()
    }

    /// Finds the agent's control groups again if the agent was moved or control groups were mounted, and returns the
    /// time of the reading.
    fn locate(&mut self) -> Duration {
        let text = self.membership.read(&mut self.scratch).unwrap_or_default();
        if text != self.member_text {
            text.clone_into(&mut self.member_text);
            self.disks.expect_change();
        }
        if let Some(table) = self.disks.table(&mut self.scratch) {
            let lineages = Lineages::find(&self.roots, &self.member_text, table);
            if lineages != self.lineages {
                self.lineages = lineages;
                self.move_readers();
            }
        }
        (self.roots.clock)()
    }

    fn move_readers(&mut self) {
        let (roots, lineages) = (&self.roots, &self.lineages);
        self.cpu.move_to(roots, lineages);
        self.memory = MemoryReader::new(roots, lineages.memory.as_ref());
        self.io = IoReader::new(lineages.io.as_ref());
        let container = lineages.unified.as_ref().filter(|lineage| lineage.contained);
        self.pressure = PressureReader::new(roots, container.and_then(|lineage| lineage.top()));
        self.instance = InstanceReader::new(roots, lineages);
    }

    /// The traffic of the container's group, or on a machine that of the devices of its file systems.
    fn disk_io(&mut self, at: Duration) -> Option<DiskIo> {
        if let Some(io) = &mut self.io {
            return io.read(at, &mut self.scratch);
        }
        if self.lineages.is_contained() {
            return None;
        }
        self.disks.read_traffic(at, &mut self.scratch);
        let (read, written) = self.disks.traffic()?;
        Some(DiskIo {
            read_bytes_per_second: Count::new(read),
            write_bytes_per_second: Count::new(written),
            source: Source::Host,
        })
    }
}

/// Fills in the number of processors if no file of the kernel gives it.
fn known_cores(cpu: Cpu) -> Cpu {
    Cpu { core_count: if cpu.core_count == 0 { core_count() } else { cpu.core_count }, ..cpu }
}

/// Whether another machine or a program serves the file system at this path, by the mount table.
pub(crate) fn is_path_served(path: &std::path::Path) -> bool {
    std::fs::read("/proc/self/mountinfo").is_ok_and(|table| mounts::is_path_served(&table, path))
}
