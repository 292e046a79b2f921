//! Reads the load averages and the pressure stall information.
//!
//! Sources: `/proc/loadavg`, proc_loadavg(5), which is the machine's, or the container's if lxcfs serves it; pressure
//! stall information (the kernel's PSI guide) in `cpu.pressure`, `memory.pressure`, `io.pressure` of a container's
//! topmost visible group in the unified hierarchy, else in `/proc/pressure/`. Some kernels have no such files.

use std::path::Path;

use super::super::roots::Roots;
use super::super::scan::{fraction, lines, number, words};
use super::kept::{Kept, Scratch};
use crate::protocol::metrics::{Percent, Pressure, Ratio, Source, Stall};

/// The content of `/proc/loadavg`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Over one, five and fifteen minutes.
    pub(crate) averages: [Ratio; 3],
    /// Processes and threads, running or not.
    pub(crate) tasks: Option<u64>,
}

/// `0.20 0.18 0.12 1/80 11206`
pub(crate) fn loadavg(text: &[u8]) -> Option<Load> {
    let mut fields = words(text);
    let mut average = || fields.next().and_then(fraction).map(Ratio::new);
    let averages = [average()?, average()?, average()?];
    let tasks = fields.next().and_then(|word| number(word.splitn(2, |byte| *byte == b'/').nth(1)?));
    Some(Load { averages, tasks })
}

/// Reads the pressure of processors, memory and I/O.
#[derive(Debug)]
pub(crate) struct PressureReader {
    cpu: Kept,
    memory: Kept,
    io: Kept,
    source: Source,
}

impl PressureReader {
    /// A reader of the group's files, or of the machine's for `None`.
    pub(crate) fn new(roots: &Roots, group: Option<&Path>) -> Self {
        let file = |name: &str| match group {
            Some(group) => Kept::new(group.join(format!("{name}.pressure"))),
            None => Kept::new(roots.proc.join("pressure").join(name)),
        };
        let source = if group.is_some() { Source::Cgroup2 } else { Source::Host };
        Self { cpu: file("cpu"), memory: file("memory"), io: file("io"), source }
    }

    /// The figures now; `None` if no file can be read.
    pub(crate) fn read(&mut self, scratch: &mut Scratch) -> Option<Pressure> {
        let mut of = |file: &mut Kept| file.read(scratch).and_then(stall);
        let (cpu, memory, io) = (of(&mut self.cpu), of(&mut self.memory), of(&mut self.io));
        let any = cpu.is_some() || memory.is_some() || io.is_some();
        any.then_some(Pressure { cpu, memory, io, source: self.source })
    }
}

/// `some avg10=0.00 avg60=0.20 avg300=0.68 total=7906251`, and a line `full` of the same form.
fn stall(text: &[u8]) -> Option<Stall> {
    let average = |kind: &[u8]| {
        let line = lines(text).find(|line| words(line).next() == Some(kind))?;
        words(line).find_map(|word| word.strip_prefix(b"avg10=")).and_then(fraction).map(Percent::new)
    };
    Some(Stall { some_avg10: average(b"some")?, full_avg10: average(b"full") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_manual_s_example_is_read() {
        let load = loadavg(b"0.20 0.18 0.12 1/80 11206\n").expect("the line is whole");
        assert_eq!(load.averages.map(Ratio::value), [0.2, 0.18, 0.12]);
        assert_eq!(load.tasks, Some(80));
        assert_eq!(loadavg(b"1.00 2.00 3.00\n").map(|load| load.tasks), Some(None));
        assert_eq!(loadavg(b"1.00 2.00\n"), None);
    }

    #[test]
    fn some_and_full_pressure_are_separate() {
        let text = b"some avg10=1.25 avg60=0.20 avg300=0.68 total=79\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=0\n";
        let stall = stall(text).expect("the text is whole");
        assert_eq!((stall.some_avg10.value(), stall.full_avg10.map(Percent::value)), (1.25, Some(0.5)));
        assert_eq!(super::stall(b"full avg10=0.50\n"), None);
        assert_eq!(super::stall(b"some avg60=0.50\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = loadavg(&text);
            let _ = stall(&text);
        }
    }
}
