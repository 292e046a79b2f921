//! Where the status ledger lies: what stands there, whether it may be asked without waiting, and its text.
//!
//! Invariant: all of it may wait for the file system, but for comparing a [`Place`] that is local.

use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where Sindri keeps its state, below the home directory.
pub(super) const FOLDER: &str = ".sindri";
pub(super) const LEDGER: &str = "status_ledger.jsonl";

/// A file or directory as it was: another one of these means other contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// A directory that is kept, and the name below it whose appearance or change is worth a look.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: &'static str,
    /// What stood there before the ledger was read.
    mark: Option<Mark>,
    /// Whether it can be asked without waiting.
    pub(super) is_local: bool,
}

/// The end of a regular file, at most `bytes_max` long, from the beginning of a line on. It follows no link and does
/// not wait for the other end of a FIFO.
pub(super) fn tail(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let skipped = found.len().saturating_sub(bytes_max as u64);
    file.seek(SeekFrom::Start(skipped))?;
    let mut text = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut text)?;
    if skipped > 0 {
        let first = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..first);
    }
    Ok(text)
}

impl Place {
    /// Opens Sindri's directory, or the home directory while there is none; `None` where neither can be opened.
    pub(super) fn open(home: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty()).ok();
        let (directory, name) =
            open(&home.join(FOLDER)).map(|inner| (inner, LEDGER)).or_else(|| Some((open(home)?, FOLDER)))?;
        let (mark, is_local) = (Mark::of(&directory, name), is_local(&directory));
        Some(Self { directory, name, mark, is_local })
    }

    /// What was seen, to be compared with another look.
    pub(super) fn seen(&self) -> (&'static str, Option<Mark>) {
        (self.name, self.mark)
    }

    /// Whether something else stands there now.
    pub(super) fn is_changed(&self) -> bool {
        let now = Mark::of(&self.directory, self.name);
        // A directory that was removed holds nothing for ever, while one of the same name may be there again.
        let is_removed = || rustix::fs::fstat(&self.directory).is_ok_and(|found| found.st_nlink == 0);
        now != self.mark || (now.is_none() && is_removed())
    }
}

impl Mark {
    #[allow(clippy::useless_conversion, clippy::cast_possible_wrap, clippy::unnecessary_cast, clippy::cast_sign_loss)]
    // the kernels' types differ in width and sign, and no value in use differs in them
    fn of(directory: &OwnedFd, name: &str) -> Option<Self> {
        let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let modified = (found.st_mtime as i64, found.st_mtime_nsec as i64);
        Some(Self { device: found.st_dev as u64, inode: found.st_ino, length: found.st_size as u64, modified })
    }
}

/// Whether the kernel itself answers for this file system, from a device or from memory: then a look costs no waiting.
#[cfg(target_os = "linux")]
fn is_local(directory: &OwnedFd) -> bool {
    /// `statfs(2)`: ext2–4, XFS, Btrfs, overlay, tmpfs, ZFS, F2FS.
    const LOCAL: &[u64] = &[0xEF53, 0x5846_5342, 0x9123_683E, 0x794C_7630, 0x0102_1994, 0x2FC1_2FC1, 0xF2F5_2010];
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // the type differs by architecture
    rustix::fs::fstatfs(directory).is_ok_and(|found| LOCAL.contains(&(found.f_type as u64 & 0xFFFF_FFFF)))
}

/// Elsewhere every look goes to the pool.
#[cfg(not(target_os = "linux"))]
fn is_local(_directory: &OwnedFd) -> bool {
    false
}
