//! What each block device has read and written.
//!
//! Source: `/proc/diskstats`, proc_diskstats(5) and the kernel's iostats guide. Knows nothing of file systems.
//!
//! Units: the file counts sectors of 512 bytes whatever the device's own are; here it is bytes.

use super::super::scan::{lines, number, words};
use super::mounts::DeviceNumber;

const SECTOR_BYTES: u64 = 512;

/// The traffic of one device since it appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes read.
    pub(crate) read: u64,
    /// Bytes written.
    pub(crate) written: u64,
}

/// The devices of the file, each with its number and its name.
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

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = devices(&text).count();
        }
    }
}
