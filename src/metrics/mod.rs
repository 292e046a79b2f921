//! Measures what the instance is doing.
//!
//! Decides nothing about when, and sends nothing: the agent's loop asks, adds the instance and the time, and sends.
//!
//! An instance is most often a container, and everything is measured against what the container may have: memory and
//! processors by the limits that bind, file systems once each, its own interfaces. On Linux the kernel's files are read
//! directly, one small reader each, for that costs a tenth of what a general library needs and can see what a general one
//! does not; everywhere else, and for what never changes, `sysinfo` is asked.
//!
//! Invariants: a source that fails never stops the others; what cannot be told is 0, or left out where the field is optional;
//! [`Sampler::live`] never waits, and [`Sampler::sample`] for at most a tenth of a second, for file systems that may hang.
//!
//! Units: bytes, percent, seconds. Wire: `metrics` in part A, the live figures of `heartbeat` in part B.

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
#[cfg(not(target_os = "linux"))]
use self::portable::Machine;

/// The shortest time over which the use of the processors is measured: the kernel counts in ticks of 10 ms, and below
/// twenty of them the figure is noise.
pub const CPU_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// Measures, and remembers what it needs for the next time.
pub struct Sampler {
    machine: Machine,
}

impl Sampler {
    /// Opens nothing yet, so that it costs next to nothing at the start.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { machine: Machine::new(roots) }
    }

    /// Takes the first of the two readings that a figure for the processors needs. [`Self::live`] and [`Self::sample`] do so,
    /// too, when they are the first.
    pub fn prime(&mut self) {
        self.machine.prime();
    }

    /// Whether a sample would have a figure for the processors now: there was a reading, [`CPU_INTERVAL_MIN`] ago or more.
    #[must_use]
    pub fn has_cpu_sample(&self) -> bool {
        self.machine.has_cpu_sample()
    }

    /// Everything for a `metrics` message. The use of the processors, and all rates, are over the time since the sample
    /// before.
    pub async fn sample(&mut self) -> Metrics {
        self.machine.sample().await
    }

    /// The live figures for a `heartbeat`: the same ones, but for the processors, whose use is over the time since the
    /// heartbeat before. File systems that may hang are taken as the last sample found them.
    pub fn live(&mut self) -> Live {
        self.machine.live()
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sampler").finish_non_exhaustive()
    }
}
