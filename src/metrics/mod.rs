//! Measures what the instance is doing.
//!
//! The agent's loop decides when to measure, adds the instance and the time, and sends the message.
//!
//! An instance is most often a container, so memory and processors are measured against the limits of the container.
//! Each file system counts once. On Linux small readers parse the kernel's files: that costs a tenth of a general
//! library, and such a library does not read the limits. Other systems, and facts that never change, come from
//! `sysinfo`.
//!
//! Invariants:
//! - A failing source does not stop the others.
//! - An unknown figure is 0, or left out if its field is optional; one that dashboards show is reported once
//!   ([`Figure`]).
//! - No reading waits for another machine or program: a file system served by one is left out and reported once.
//!
//! Units: bytes, percent, seconds. Wire: `metrics` and `heartbeat` in PROTOCOL.md.

mod facts;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod portable;
mod rate;
mod roots;
#[cfg(target_os = "linux")]
mod scan;

use std::fmt;
use std::time::Duration;

pub use self::facts::{Facts, facts};
pub use self::roots::{Clock, Measure, Roots, Space};
use crate::protocol::metrics::{Live, Metrics};

#[cfg(target_os = "linux")]
use self::linux::Machine;
#[cfg(target_os = "linux")]
pub(crate) use self::linux::is_path_served;
#[cfg(not(target_os = "linux"))]
use self::portable::Machine;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::portable::is_path_served;

/// The shortest window of a figure for the processors. The kernel counts in ticks of 10 ms, and with fewer than twenty
/// ticks the figure is noise.
pub const CPU_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// A figure that every machine should have; if it is unknown the payload says 0, which looks like a real value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// How busy the processors are.
    Processors,
    /// How much memory there is, and how much of it is used.
    Memory,
    /// How full the file systems are.
    FileSystems,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Processors, Self::Memory, Self::FileSystems];

    /// The name in log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Processors => "processors",
            Self::Memory => "memory",
            Self::FileSystems => "file systems",
        }
    }
}

/// Measures, and keeps the readings that the next measurement needs.
pub struct Sampler {
    machine: Machine,
    /// The missing figures that were reported.
    reported: Vec<Figure>,
    /// The mount points that were reported as left out.
    reported_left_out: Vec<String>,
}

impl Sampler {
    /// Opens no file yet, so that the start stays fast.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { machine: Machine::new(roots), reported: Vec::new(), reported_left_out: Vec::new() }
    }

    /// Takes the first of the two readings that a figure for the processors needs. [`Self::live`] and [`Self::sample`]
    /// do so, too, when they are the first.
    pub fn prime(&mut self) {
        self.machine.prime();
    }

    /// Whether a sample would have a figure for the processors now: there was a reading, [`CPU_INTERVAL_MIN`] ago or
    /// more.
    #[must_use]
    pub fn has_cpu_sample(&self) -> bool {
        self.machine.has_cpu_sample()
    }

    /// The figures for a `metrics` message. The use of the processors and all rates are over the time since the
    /// previous sample.
    pub fn sample(&mut self) -> Metrics {
        self.machine.sample()
    }

    /// The figures for a `heartbeat`. The use of the processors is over the time since the previous heartbeat.
    pub fn live(&mut self) -> Live {
        self.machine.live()
    }

    /// The figures whose sources could not be read at the last reading: each is returned once in the sampler's life.
    pub fn take_missing(&mut self) -> Vec<Figure> {
        let missing = |figure: &Figure| !self.machine.knows(*figure) && !self.reported.contains(figure);
        let missing: Vec<Figure> = Figure::ALL.into_iter().filter(missing).collect();
        self.reported.extend_from_slice(&missing);
        missing
    }

    /// The mount points of file systems that another machine or a program serves, which are not measured. Returned
    /// once, and again after a change.
    pub fn take_left_out(&mut self) -> Option<&[String]> {
        let left_out = self.machine.left_out();
        if self.reported_left_out == left_out {
            return None;
        }
        left_out.clone_into(&mut self.reported_left_out);
        Some(&self.reported_left_out).filter(|left_out| !left_out.is_empty()).map(Vec::as_slice)
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sampler").finish_non_exhaustive()
    }
}
