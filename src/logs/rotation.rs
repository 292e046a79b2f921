//! The other files of a log: where a file that was renamed or copied lies now, and what was written between it and the
//! file that stands in its place.

use super::position::{FileId, Position};
use super::root::{entries, id_of, is_compressed, length_of, open_file, stat};
use rustix::fs::{FileType, Stat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The most files of one log that are looked at.
const ROTATIONS_MAX: usize = 256;

/// A file that was renamed.
#[derive(Debug)]
pub(super) struct Rotated {
    pub(super) id: FileId,
    pub(super) file: File,
}

/// The file of this position in a directory, under whatever name.
pub(super) fn find(directory: &OwnedFd, position: &Position) -> Option<Rotated> {
    regular(directory).find_map(|name| {
        let id = id_of(&stat(directory, &name).ok()?);
        if id != position.file || is_compressed(Path::new(&name)) {
            return None;
        }
        let (file, found) = open_file(directory, &name).ok()?;
        let is_it = id_of(&found) == id && position.head.is_of(&file).unwrap_or(false);
        is_it.then_some(Rotated { id, file })
    })
}

/// The file of this position as it was before it was truncated: the newest copy of it under the name of a rotation.
pub(super) fn copy_of(directory: &OwnedFd, name: &OsStr, position: &Position) -> Option<Rotated> {
    if position.head.bytes == 0 {
        return None;
    }
    rotations(directory, name).into_iter().rev().filter_map(|other| other.open(directory)).find(
        |Rotated { id, file }| {
            *id != position.file
                && length_of(file).is_ok_and(|length| length >= position.offset)
                && position.head.is_of(file).unwrap_or(false)
        },
    )
}

/// The files of the log `name` that were written after `after` and before `before`, the oldest first. Where `after` has
/// been removed, the time of its last change tells, if the file is open.
pub(super) fn between(
    directory: &OwnedFd,
    name: &OsStr,
    (after, open): (FileId, Option<&File>),
    before: FileId,
) -> Vec<Rotated> {
    let rotations = rotations(directory, name);
    let changed = || rustix::fs::fstat(open?).ok().map(|found| changed_at(&found));
    let first = rotations.iter().position(|other| other.id == after).map(|place| place + 1).or_else(|| {
        let changed = changed()?;
        Some(rotations.partition_point(|other| other.changed < changed))
    });
    let Some(first) = first else { return Vec::new() };
    let later = rotations.into_iter().skip(first).filter(|other| other.id != before && other.id != after);
    later.filter_map(|other| other.open(directory)).collect()
}

/// A name of a rotation, and what stands under it.
struct Entry {
    /// Seconds and nanoseconds.
    changed: (i64, i64),
    id: FileId,
    name: OsString,
}

impl Entry {
    fn open(self, directory: &OwnedFd) -> Option<Rotated> {
        let (file, found) = open_file(directory, &self.name).ok()?;
        (id_of(&found) == self.id).then_some(Rotated { id: self.id, file })
    }
}

// Types differ between kernels.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast, clippy::cast_possible_wrap)]
fn changed_at(found: &Stat) -> (i64, i64) {
    (found.st_mtime as i64, found.st_mtime_nsec as i64)
}

/// All rotations of the log `name`, the oldest first.
fn rotations(directory: &OwnedFd, name: &OsStr) -> Vec<Entry> {
    let mut rotations: Vec<_> = regular(directory)
        .filter(|other| is_rotation(other.as_bytes(), name.as_bytes()))
        .filter_map(|other| {
            let found = stat(directory, &other).ok()?;
            Some(Entry { changed: changed_at(&found), id: id_of(&found), name: other })
        })
        .take(ROTATIONS_MAX)
        .collect();
    // Of two with one time, the one with the higher number is the older: `.2` before `.1`.
    rotations.sort_by(|one, other| one.changed.cmp(&other.changed).then_with(|| other.name.cmp(&one.name)));
    rotations
}

fn regular(directory: &OwnedFd) -> impl Iterator<Item = OsString> {
    entries(directory).into_iter().filter(|(_, kind)| *kind == FileType::RegularFile).map(|(name, _)| name)
}

/// Whether `name` is what a rotation calls an older file of the log `of`: `a.log.1`, `a.log-20261130`, `a.1.log`.
fn is_rotation(name: &[u8], of: &[u8]) -> bool {
    if is_compressed(Path::new(OsStr::from_bytes(name))) {
        return false;
    }
    if let Some(end) = name.strip_prefix(of) {
        return matches!(end.first(), Some(b'.' | b'-' | b'_'));
    }
    let Some(dot) = of.iter().rposition(|byte| *byte == b'.') else { return false };
    let (stem, extension) = of.split_at(dot);
    let number = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    number.is_some_and(|number| {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_' | b'T' | b':');
        matches!(number.first(), Some(b'.' | b'-' | b'_'))
            && number.len() > 1
            && number.iter().all(is_digit)
            && number.iter().any(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotations_are_known() {
        let is = |name: &str| is_rotation(name.as_bytes(), b"app.log");
        for name in ["app.log.1", "app.log-20261130", "app.log.old", "app.1.log", "app-2026-11-30.log"] {
            assert!(is(name), "{name}");
        }
        for name in ["app.log", "app.log.1.gz", "app-error.log", "app.log2", "other.log.1", "app..log", "app-.log"] {
            assert!(!is(name), "{name}");
        }
        assert!(is_rotation(b"syslog.1", b"syslog") && !is_rotation(b"sys.1log", b"syslog"));
    }
}
