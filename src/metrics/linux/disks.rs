//! One entry for each real file system.
//!
//! Sources: `/proc/self/mountinfo` by way of [`super::mounts`], statvfs(3), and `/proc/diskstats`. The mount table is
//! read again when the kernel says that it changed (it can be polled for that), and every [`TABLE_READINGS`]th time
//! where it cannot say so.
//!
//! Two file systems are one storage when they say the same size, the same number of inodes and, within what a moment's
//! writing changes, the same free space, and at least one of them is a layer: that is how a container's root and the
//! volumes beside it, on one disk of the host, look from inside.
//!
//! Invariant: nothing here waits for a server, because no file system that has one is asked, but for the root.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::rate::Rate;
use super::super::roots::{Measure, Roots, Space};
use super::kept::{Kept, Scratch};
use super::mounts::{Candidate, Found, Kind, file_systems, pool};
use super::traffic::{Traffic, devices};
use crate::protocol::metrics::{Count, Disk, Percent};

/// A table that cannot be polled is read again after so many readings.
pub(crate) const TABLE_READINGS: u32 = 16;

/// By how much two views of one storage may differ, for files are written between the two measurements.
const TWIN_BYTES_MAX: u64 = 16 << 20;
const TWIN_INODES_MAX: u64 = 512;

/// The reader, and what it remembers of its previous readings.
pub(crate) struct DiskReader {
    table: Kept,
    readings_left: u32,
    /// What the table said last, so that one that says the same is not taken apart again.
    table_digest: Option<u64>,
    traffic: Kept,
    measure: Measure,
    volumes: Vec<Volume>,
    left_out: Vec<String>,
}

/// A candidate as it was measured last.
#[derive(Debug)]
struct Volume {
    candidate: Candidate,
    /// Its place as text, once it is known which of them is a directory.
    place: Option<(PathBuf, Arc<str>)>,
    space: Option<Space>,
    /// What to add to its use for others of the same pool.
    pooled: u64,
    counts: bool,
    read: Rate,
    written: Rate,
}

impl DiskReader {
    /// Reads below these roots.
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            table: Kept::new(roots.proc.join("self/mountinfo")),
            readings_left: 0,
            table_digest: None,
            traffic: Kept::new(roots.proc.join("diskstats")),
            measure: roots.measure.clone(),
            volumes: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Reads the mount table if it may have changed; its text if so.
    pub(crate) fn table<'a>(&mut self, scratch: &'a mut Scratch) -> Option<&'a [u8]> {
        if self.readings_left > 0 && !self.table.file().is_some_and(has_changed) {
            self.readings_left -= 1;
            return None;
        }
        self.readings_left = TABLE_READINGS;
        let text = self.table.read(scratch).unwrap_or_default();
        let mut digest = DefaultHasher::new();
        text.hash(&mut digest);
        let digest = Some(digest.finish());
        if self.table_digest == digest {
            return None;
        }
        self.table_digest = digest;
        self.replace(file_systems(text));
        Some(text)
    }

    /// Whether the mount table could be read.
    pub(crate) fn knows(&self) -> bool {
        self.table.file().is_some()
    }

    /// The table must be read again: what else depends on it has changed.
    pub(crate) fn expect_change(&mut self) {
        self.readings_left = 0;
        self.table_digest = None;
    }

    /// Where the file systems are mounted that are not measured.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Measures.
    pub(crate) fn read(&mut self) {
        for volume in &mut self.volumes {
            volume.space = volume.measure(&self.measure);
        }
        self.merge();
    }

    /// The size and the use of all together.
    pub(crate) fn sum(&self) -> (Count, Count) {
        let mut sum = (0_u64, 0_u64);
        for (volume, space) in self.volumes.iter().filter_map(Volume::counted) {
            sum.0 = sum.0.saturating_add(volume.used(space));
            sum.1 = sum.1.saturating_add(volume.total(space));
        }
        (Count::new(sum.0), Count::new(sum.1))
    }

    /// Reads what the devices have read and written. Not for containers: the devices are not theirs.
    pub(crate) fn read_traffic(&mut self, at: Duration, scratch: &mut Scratch) {
        let Some(text) = self.traffic.read(scratch) else { return };
        for volume in &mut self.volumes {
            if volume.candidate.kind != Kind::Local {
                continue;
            }
            let name = volume.candidate.device.rsplit('/').next().unwrap_or_default().as_bytes();
            let number = volume.candidate.number;
            let found = devices(text).find(|(device, other, _)| *device == number || (number.0 == 0 && *other == name));
            let Some((_, _, Traffic { read, written })) = found else { continue };
            volume.read.advance(at, read);
            volume.written.advance(at, written);
        }
    }

    /// The traffic of all counted devices together, per second: read and written.
    pub(crate) fn traffic(&self) -> Option<(u64, u64)> {
        self.volumes
            .iter()
            .filter(|volume| volume.counts)
            .filter_map(|volume| Some((volume.read.per_second()?, volume.written.per_second()?)))
            .reduce(|one, other| (one.0.saturating_add(other.0), one.1.saturating_add(other.1)))
    }

    /// The entries.
    pub(crate) fn figures(&self) -> Vec<Disk> {
        self.volumes.iter().filter_map(Volume::counted).filter_map(|(volume, space)| volume.figures(space)).collect()
    }

    /// The candidates are these from now on; what was measured of those that stay is kept.
    fn replace(&mut self, found: Found) {
        let mut old = std::mem::take(&mut self.volumes);
        self.left_out = found.left_out;
        for candidate in found.candidates {
            let known = old.iter().position(|volume| volume.candidate == candidate);
            let volume = known.map_or_else(|| Volume::new(candidate), |index| old.swap_remove(index));
            self.volumes.push(volume);
        }
    }

    /// Decides which of the measured ones count, the first of those that are the same storage.
    fn merge(&mut self) {
        for index in 0..self.volumes.len() {
            let Some((earlier, [volume, ..])) = self.volumes.split_at_mut_checked(index) else { return };
            volume.counts = false;
            volume.pooled = 0;
            let Some(space) = volume.space else { continue };
            let mut others = earlier.iter_mut().filter(|other| other.counts);
            volume.counts = match volume.candidate.kind {
                Kind::Pooled => {
                    let name = pool(&volume.candidate.device);
                    let same = |other: &&mut Volume| {
                        other.candidate.kind == Kind::Pooled && pool(&other.candidate.device) == name
                    };
                    let first = others.find(same);
                    let used = space.total_bytes.saturating_sub(space.free_bytes);
                    first.map(|first| first.pooled = first.pooled.saturating_add(used)).is_none()
                }
                Kind::Local | Kind::Layered => !others.any(|other| other.is_twin(volume)),
            };
        }
    }
}

/// Whether the kernel says that this mount table changed since it was asked last: it answers with an "exceptional"
/// event.
fn has_changed(table: &std::fs::File) -> bool {
    let mut asked = [PollFd::new(table, PollFlags::PRI)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut asked, Some(&at_once)) {
        Ok(_) => asked.iter().any(|answer| answer.revents().intersects(PollFlags::PRI | PollFlags::ERR)),
        Err(_) => true,
    }
}

impl Volume {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            place: None,
            space: None,
            pooled: 0,
            counts: false,
            read: Rate::default(),
            written: Rate::default(),
        }
    }

    /// Measures at the place that is known to be a directory, or finds one.
    fn measure(&mut self, measure: &Measure) -> Option<Space> {
        if let Some((place, _)) = &self.place
            && let Some(space) = measured(measure, place)
        {
            return Some(space);
        }
        let (place, space) = self.candidate.places.iter().find_map(|place| Some((place, measured(measure, place)?)))?;
        let text = place.to_string_lossy().as_ref().into();
        self.place = Some((place.clone(), text));
        Some(space)
    }

    fn counted(&self) -> Option<(&Self, Space)> {
        if self.counts { Some((self, self.space?)) } else { None }
    }

    fn is_twin(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (self.space, other.space) else { return false };
        if self.candidate.kind != Kind::Layered && other.candidate.kind != Kind::Layered {
            return false;
        }
        (one.id != 0 && one.id == two.id && one.total_bytes == two.total_bytes)
            || (one.total_bytes == two.total_bytes
                && one.inodes_total == two.inodes_total
                && one.free_bytes.abs_diff(two.free_bytes) <= TWIN_BYTES_MAX
                && one.inodes_free.abs_diff(two.inodes_free) <= TWIN_INODES_MAX)
    }

    fn used(&self, space: Space) -> u64 {
        space.total_bytes.saturating_sub(space.free_bytes).saturating_add(self.pooled)
    }

    fn total(&self, space: Space) -> u64 {
        space.total_bytes.saturating_add(self.pooled)
    }

    fn figures(&self, space: Space) -> Option<Disk> {
        let (_, place) = self.place.as_ref()?;
        let (used, free) = (self.used(space), space.available_bytes);
        // A file system that makes inodes as it needs them says 0, or counts them against its free space (ZFS).
        let fixed = space.inodes_total > 0 && self.candidate.kind != Kind::Pooled;
        let inodes = |count: u64| fixed.then(|| Count::new(count));
        Some(Disk {
            mount_point: place.clone(),
            device: self.candidate.device.clone(),
            fs_type: self.candidate.fs_type.clone(),
            total_bytes: Count::new(self.total(space)),
            used_bytes: Count::new(used),
            free_bytes: Count::new(free),
            usage_percent: Percent::of(used, used.saturating_add(free)),
            inodes_total: inodes(space.inodes_total),
            inodes_used: inodes(space.inodes_total.saturating_sub(space.inodes_free)),
            read_bytes_per_second: self.read.per_second().map(Count::new),
            write_bytes_per_second: self.written.per_second().map(Count::new),
        })
    }
}

/// A measurement on the spot. A place that we may not look into is passed over, as one that is gone.
fn measured(measure: &Measure, place: &Path) -> Option<Space> {
    loop {
        match measure(place) {
            Ok(space) => return Some(space).filter(is_real),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// What the kernel makes up has no size, and a single file is no file system.
fn is_real(space: &Space) -> bool {
    space.directory && space.total_bytes > 0
}
