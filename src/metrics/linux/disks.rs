//! One entry for each real file system.
//!
//! Sources: `/proc/self/mountinfo` by way of [`super::mounts`], statvfs(3), and `/proc/diskstats`. The reader polls the
//! mount table and reads it again after a change. If the kernel does not support that, it reads the table at every
//! [`TABLE_READINGS`]th sample.
//!
//! Two file systems count as one storage if they have the same size, the same number of inodes and almost the same free
//! space, and at least one of them is a layer. A container's root and its volumes look like that from inside if they
//! are on one disk of the host.
//!
//! Invariant: no reading waits for a server, because the reader never asks a file system that has one, except the root.

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

/// A mount table that cannot be polled is read again after this many samples.
pub(crate) const TABLE_READINGS: u32 = 16;

/// How much the free space of two views of one storage may differ: files are written between the two measurements.
const TWIN_BYTES_MAX: u64 = 16 << 20;
const TWIN_INODES_MAX: u64 = 512;

/// Measures file systems, and keeps the previous measurements.
pub(crate) struct DiskReader {
    table: Kept,
    readings_left: u32,
    /// The digest of the last table: the reader does not parse the same table again.
    table_digest: Option<u64>,
    traffic: Kept,
    measure: Measure,
    volumes: Vec<Volume>,
    left_out: Vec<String>,
}

/// A candidate with its last measurement.
#[derive(Debug)]
struct Volume {
    candidate: Candidate,
    /// The place that is measured, also as text, once one of its places has proved to be a directory.
    place: Option<(PathBuf, Arc<str>)>,
    space: Option<Space>,
    /// The use of the pool's other datasets, to be added to its own.
    pooled: u64,
    counts: bool,
    read: Rate,
    written: Rate,
}

impl DiskReader {
    /// A reader of the files below these roots.
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

    /// Reads the mount table if it may have changed, and returns its text then.
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

    /// Makes the next sample read the table again: something that depends on it has changed.
    pub(crate) fn expect_change(&mut self) {
        self.readings_left = 0;
        self.table_digest = None;
    }

    /// The mount points of the file systems that are not measured.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Measures all candidates.
    pub(crate) fn read(&mut self) {
        for volume in &mut self.volumes {
            volume.space = volume.measure(&self.measure);
        }
        self.merge();
    }

    /// Size and use of all file systems together.
    pub(crate) fn sum(&self) -> (Count, Count) {
        let mut sum = (0_u64, 0_u64);
        for (volume, space) in self.volumes.iter().filter_map(Volume::counted) {
            sum.0 = sum.0.saturating_add(volume.used(space));
            sum.1 = sum.1.saturating_add(volume.total(space));
        }
        (Count::new(sum.0), Count::new(sum.1))
    }

    /// Reads the traffic of the devices. It is not for containers, which share the devices with the host.
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

    /// Replaces the candidates, and keeps the measurements of those that stay.
    fn replace(&mut self, found: Found) {
        let mut old = std::mem::take(&mut self.volumes);
        self.left_out = found.left_out;
        for candidate in found.candidates {
            let known = old.iter().position(|volume| volume.candidate == candidate);
            let volume = known.map_or_else(|| Volume::new(candidate), |index| old.swap_remove(index));
            self.volumes.push(volume);
        }
    }

    /// Decides which file systems count: of several that are one storage, the first.
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

/// Whether this mount table has changed since the last poll: the kernel reports a change as an exceptional condition
/// (proc_pid_mounts(5)).
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

    /// Measures at the known place, or at the first place that is a directory.
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
        // A file system that creates inodes on demand reports 0, or derives the number from its free space (ZFS).
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

/// Measures at once. A place that is gone, or that the agent may not read, gives `None`.
fn measured(measure: &Measure, place: &Path) -> Option<Space> {
    loop {
        match measure(place) {
            Ok(space) => return Some(space).filter(is_real),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Whether it is a real file system: pseudo file systems have no size, and a mounted single file is none.
fn is_real(space: &Space) -> bool {
    space.directory && space.total_bytes > 0
}
