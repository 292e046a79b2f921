//! The other files of a log: where a file that was renamed lies now, and what was written between it and the file that
//! stands in its place.

use super::position::{FileId, Position};
use super::root::{entries, id_of, is_compressed, open_file, stat};
use rustix::fs::FileType;
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

/// The files of the log `name` that were written after `after` and before `before`, the oldest first. Where `after` has
/// been removed, the time of its last change tells, if the file is open.
pub(super) fn between(
    directory: &OwnedFd,
    name: &OsStr,
    (after, open): (FileId, Option<&File>),
    before: FileId,
) -> Vec<Rotated> {
    let mut rotations: Vec<_> = regular(directory)
        .filter(|other| is_rotation(other.as_bytes(), name.as_bytes()))
        .filter_map(|other| {
            let found = stat(directory, &other).ok()?;
            Some((found.st_mtime, found.st_mtime_nsec, id_of(&found), other))
        })
        .take(ROTATIONS_MAX)
        .collect();
    // Of two with one time, the one with the higher number is the older: `.2` before `.1`.
    rotations.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)).then_with(|| other.3.cmp(&one.3)));
    let is_it = |(_, _, id, _): &(_, _, FileId, _)| *id == after;
    let changed = || rustix::fs::fstat(open?).ok().map(|found| (found.st_mtime, found.st_mtime_nsec));
    let first = rotations.iter().position(is_it).map(|place| place + 1).or_else(|| {
        let changed = changed()?;
        Some(rotations.partition_point(|(seconds, nanos, _, _)| (*seconds, *nanos) < changed))
    });
    let Some(first) = first else { return Vec::new() };
    let later = rotations.into_iter().skip(first).filter(|(_, _, id, _)| *id != before && *id != after);
    let opened = later.filter_map(|(_, _, id, other)| {
        let (file, found) = open_file(directory, &other).ok()?;
        (id_of(&found) == id).then_some(Rotated { id, file })
    });
    opened.collect()
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
