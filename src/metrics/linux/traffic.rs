//! Reads how many bytes block devices, or a container, have read and written.
//!
//! Sources: for the devices `/proc/diskstats`, proc_diskstats(5) and the kernel's iostats guide; for a container
//! `io.stat` of its topmost visible group (unified, cgroup-v2 admin guide), or
//! `blkio.throttle.io_service_bytes_recursive` (legacy).
//!
//! Units: bytes. diskstats counts sectors of 512 bytes, whatever sectors the device has.

use std::time::Duration;

use super::super::rate::Rate;
use super::super::scan::{lines, number, words};
use super::cgroup::{Lineage, Version};
use super::kept::{Kept, Scratch};
use super::mounts::DeviceNumber;
use crate::protocol::metrics::{Count, DiskIo};

const SECTOR_BYTES: u64 = 512;

/// The traffic of one device since it appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes read.
    pub(crate) read: u64,
    /// Bytes written.
    pub(crate) written: u64,
}

/// The devices in the file, each with its number and name.
pub(crate) fn devices(text: &[u8]) -> impl Iterator<Item = (DeviceNumber, &[u8], Traffic)> {
    lines(text).filter_map(|line| {
        let mut fields = words(line);
        let mut half = || fields.next().and_then(number).and_then(|half| u32::try_from(half).ok());
        let device = (half()?, half()?);
        let name = fields.next()?;
        // Reads, merged reads, sectors read, ms; writes, merged writes, sectors written.
        let read = number(fields.nth(2)?)?.saturating_mul(SECTOR_BYTES);
        let written = number(fields.nth(3)?)?.saturating_mul(SECTOR_BYTES);
        Some((device, name, Traffic { read, written }))
    })
}

/// Reads the traffic of a container's group.
#[derive(Debug)]
pub(crate) struct IoReader {
    version: Version,
    file: Kept,
    read: Rate,
    written: Rate,
}

impl IoReader {
    /// A reader of the container's group; `None` outside of containers.
    pub(crate) fn new(lineage: Option<&Lineage>) -> Option<Self> {
        let lineage = lineage.filter(|lineage| lineage.contained)?;
        let name = match lineage.version {
            Version::Unified => "io.stat",
            Version::Legacy => "blkio.throttle.io_service_bytes_recursive",
        };
        let file = Kept::new(lineage.top()?.join(name));
        Some(Self { version: lineage.version, file, read: Rate::default(), written: Rate::default() })
    }

    /// The traffic since the previous reading; `None` at the first.
    pub(crate) fn read(&mut self, at: Duration, scratch: &mut Scratch) -> Option<DiskIo> {
        let text = self.file.read(scratch)?;
        let traffic = match self.version {
            Version::Unified => unified(text),
            Version::Legacy => legacy(text),
        };
        self.read.advance(at, traffic.read);
        self.written.advance(at, traffic.written);
        Some(DiskIo {
            read_bytes_per_second: Count::new(self.read.per_second()?),
            write_bytes_per_second: Count::new(self.written.per_second()?),
            source: self.version.source(),
        })
    }
}

/// `8:16 rbytes=1459200 wbytes=314773504 rios=192 …`, one line a device.
fn unified(text: &[u8]) -> Traffic {
    let mut traffic = Traffic::default();
    for word in lines(text).flat_map(words) {
        if let Some(value) = word.strip_prefix(b"rbytes=").and_then(number) {
            traffic.read = traffic.read.saturating_add(value);
        } else if let Some(value) = word.strip_prefix(b"wbytes=").and_then(number) {
            traffic.written = traffic.written.saturating_add(value);
        }
    }
    traffic
}

/// `8:0 Read 4096`, one line a device and direction; `Total` is their sum.
fn legacy(text: &[u8]) -> Traffic {
    let mut traffic = Traffic::default();
    for line in lines(text) {
        let mut fields = words(line).skip(1);
        let (Some(direction), Some(value)) = (fields.next(), fields.next().and_then(number)) else { continue };
        match direction {
            b"Read" => traffic.read = traffic.read.saturating_add(value),
            b"Write" => traffic.written = traffic.written.saturating_add(value),
            _ => {}
        }
    }
    traffic
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sectors_become_bytes() {
        let text = b"   8       1 sda1 16695 8170 2674194 21253 3178 18659 4047712 15039 0 5436 36525\n 8 2 sda2 1 2\n";
        let found: Vec<_> = devices(text).collect();
        assert_eq!(found, [((8, 1), &b"sda1"[..], Traffic { read: 2_674_194 * 512, written: 4_047_712 * 512 })]);
    }

    #[test]
    fn devices_are_added_up() {
        let text = b"8:16 rbytes=1 wbytes=20 rios=5 wios=6 dbytes=7 dios=8\n8:0 rbytes=300 wbytes=4000\n8:1\n";
        assert_eq!(unified(text), Traffic { read: 301, written: 4020 });
        let text = b"8:0 Read 1\n8:0 Write 20\n8:0 Sync 5\n8:0 Total 21\n8:16 Read 300\nTotal 321\n";
        assert_eq!(legacy(text), Traffic { read: 301, written: 20 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = devices(&text).count();
            let _ = (unified(&text), legacy(&text));
        }
    }
}
