//! Says which files of a root have changed: inotify on Linux, one descriptor for a root and one watch for a directory;
//! kqueue on macOS, one descriptor for a root, each directory and each file that is followed.
//!
//! A file system that another machine or a program serves changes without the kernel's notice: then the root is polled.
//! It is polled, too, where there is nothing left to watch with, and on macOS while a followed file is not open.
//!
//! What is for macOS is compiled on Linux (`tests/scripts/static-binaries`), and runs in the tests on macOS alone.

use super::root::Root;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These files, relative to the root.
    pub files: Vec<PathBuf>,
    /// Files or directories came or went.
    pub needs_scan: bool,
    /// It is not known which files.
    pub is_all: bool,
}

impl Changes {
    /// Anything may have changed.
    pub fn everything() -> Self {
        Self { files: Vec::new(), needs_scan: true, is_all: true }
    }
}

#[cfg(target_os = "linux")]
pub use linux::Watch;
#[cfg(target_os = "macos")]
pub use macos::Watch;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Changes, File, Path, PathBuf, Root};
    use litemap::LiteMap;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use std::ffi::OsStr;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd as _, OwnedFd};
    use std::os::unix::ffi::OsStrExt as _;

    /// What is asked for of a directory with files.
    const OF_FILES: WatchFlags = WatchFlags::MODIFY.union(OF_NAMES);

    /// What is asked for of a directory that may get one.
    const OF_NAMES: WatchFlags = WatchFlags::CREATE
        .union(WatchFlags::DELETE)
        .union(WatchFlags::MOVE)
        .union(WatchFlags::MOVE_SELF)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::ONLYDIR);

    /// Room for events: some hundred with names of usual length.
    const EVENTS_BYTES: usize = 8 << 10;

    /// Watches the directories of one root.
    #[derive(Debug)]
    pub struct Watch {
        /// Nothing where it does not work.
        descriptor: Option<OwnedFd>,
        /// Relative to the root; `None`: a directory above it.
        directories: LiteMap<i32, Option<PathBuf>>,
        is_served: bool,
        /// The descriptor is another than when it was last asked for.
        is_new: bool,
    }

    impl Watch {
        /// Watches nothing yet.
        pub(crate) fn new(_root: &Root) -> Self {
            Self { descriptor: None, directories: LiteMap::new(), is_served: false, is_new: false }
        }

        /// Whether changes are reported.
        pub fn is_on(&self) -> bool {
            self.descriptor.is_some() && !self.is_served
        }

        /// A descriptor that is readable when there are changes, if it is another than when this was last asked.
        pub fn take_new(&mut self) -> Option<Option<OwnedFd>> {
            let descriptor = || self.descriptor.as_ref().filter(|_| self.is_on())?.try_clone().ok();
            let new = self.is_new.then(descriptor);
            self.is_new = false;
            new
        }

        /// Watches these directories, relative to the root; whether one is new.
        pub(crate) fn add(&mut self, root: &Root, directories: &[PathBuf]) -> bool {
            if self.descriptor.is_none() {
                self.is_served = crate::metrics::is_path_served(&root.directory());
                self.descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
                self.is_new = true;
            }
            let mut has_new = false;
            if self.is_served {
                return false;
            }
            for below in directories {
                let added = root.open_directory(below).and_then(|directory| self.watch(&directory, OF_FILES));
                match added {
                    Ok(watch) => {
                        let before = self.directories.insert(watch, Some(below.clone()));
                        has_new |= before.flatten().as_ref() != Some(below);
                    }
                    // There are no more watches to be had, or no /proc.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => self.stop(),
                    Err(_) => {}
                }
            }
            has_new
        }

        /// The root is not there: watches the nearest directory above it that is.
        pub(crate) fn add_parent(&mut self, root: &Root) {
            self.add(root, &[]);
            let above = root.nearest_directory();
            let added = above.and_then(|directory| self.watch(&directory, OF_NAMES));
            match added {
                Ok(watch) => {
                    self.directories.insert(watch, None);
                }
                Err(_) => self.stop(),
            }
        }

        /// Watches these open files, relative to the root, instead of those before; which are new. On Linux the watch
        /// of their directory does that.
        #[allow(clippy::unused_self)] // macOS needs a watch for each file
        pub(crate) fn watch_files<'a>(
            &mut self,
            _files: impl Iterator<Item = (&'a Path, Option<&'a File>)>,
        ) -> Vec<PathBuf> {
            Vec::new()
        }

        /// By its descriptor, so that no link is followed on the way.
        fn watch(&self, directory: &OwnedFd, flags: WatchFlags) -> io::Result<i32> {
            let inotify = self.descriptor.as_ref().ok_or(io::ErrorKind::NotFound)?;
            Ok(inotify::add_watch(inotify, format!("/proc/self/fd/{}", directory.as_raw_fd()), flags)?)
        }

        /// Watches nothing.
        pub(crate) fn stop(&mut self) {
            (self.descriptor, self.directories, self.is_new) = (None, LiteMap::new(), true);
        }

        /// What has changed since this was last asked.
        pub(crate) fn changes(&mut self) -> Changes {
            let mut changes = Changes::default();
            let Some(descriptor) = &self.descriptor else { return changes };
            let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_BYTES];
            let mut reader = Reader::new(descriptor, &mut buffer);
            while let Ok(event) = reader.next() {
                let kind = event.events();
                if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
                    changes = Changes::everything();
                    continue;
                }
                if kind.contains(ReadFlags::IGNORED) {
                    self.directories.remove(&event.wd());
                    changes.needs_scan = true;
                    continue;
                }
                changes.needs_scan |= !kind.contains(ReadFlags::MODIFY);
                let Some(Some(directory)) = self.directories.get(&event.wd()) else { continue };
                if let Some(name) = event.file_name() {
                    let file = directory.join(Path::new(OsStr::from_bytes(name.to_bytes())));
                    if !changes.files.contains(&file) {
                        changes.files.push(file);
                    }
                }
            }
            changes
        }
    }
}

#[cfg(target_os = "macos")]
mod macos {
    use super::{Changes, File, Path, PathBuf, Root};
    use crate::sys::vnode::VnodeQueue;
    use litemap::LiteMap;
    use std::io;
    use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

    /// The most directories of a root that are watched, each of which takes a descriptor.
    const DIRECTORIES_MAX: usize = 64;

    /// No other machine serves the file system (`sys/mount.h`).
    const MNT_LOCAL: u32 = 0x1000;

    /// Watches the directories and the open files of one root.
    #[derive(Debug, Default)]
    pub struct Watch {
        /// Nothing where it does not work.
        queue: Option<VnodeQueue>,
        /// Relative to the root, `None`: a directory above it; open as long as it is watched.
        directories: LiteMap<RawFd, (Option<PathBuf>, OwnedFd)>,
        /// Relative to the root, by the descriptor of the follower.
        files: LiteMap<RawFd, PathBuf>,
        /// There is a file or directory that is not watched.
        is_partial: bool,
        /// The descriptor is another than when it was last asked for.
        is_new: bool,
    }

    impl Watch {
        /// Watches nothing yet.
        pub(crate) fn new(_root: &Root) -> Self {
            Self::default()
        }

        /// Whether changes are reported.
        pub fn is_on(&self) -> bool {
            self.queue.is_some() && !self.is_partial
        }

        /// A descriptor that is readable when there are changes, if it is another than when this was last asked.
        pub fn take_new(&mut self) -> Option<Option<OwnedFd>> {
            let descriptor = || self.queue.as_ref().filter(|_| self.is_on())?.descriptor().ok();
            let new = self.is_new.then(descriptor);
            self.is_new = false;
            new
        }

        /// Watches these directories, relative to the root; whether one is new.
        pub(crate) fn add(&mut self, root: &Root, directories: &[PathBuf]) -> bool {
            self.start();
            // Those that are gone are not listed any more.
            self.directories.retain(|_, (below, _)| below.as_ref().is_some_and(|below| directories.contains(below)));
            let is_known = |below: &PathBuf| self.directories.values().any(|(known, _)| known.as_ref() == Some(below));
            let new: Vec<PathBuf> = directories.iter().filter(|below| !is_known(below)).cloned().collect();
            let mut has_new = false;
            for below in new {
                let added = root.open_directory(&below).and_then(|directory| self.watch(Some(below), directory));
                match added {
                    Ok(()) => has_new = true,
                    Err(error) if error.kind() != io::ErrorKind::NotFound => self.stop(),
                    Err(_) => {}
                }
            }
            has_new
        }

        /// The root is not there: watches the nearest directory above it that is.
        pub(crate) fn add_parent(&mut self, root: &Root) {
            self.add(root, &[]);
            if root.nearest_directory().and_then(|directory| self.watch(None, directory)).is_err() {
                self.stop();
            }
        }

        /// Watches these open files, relative to the root, instead of those before; which are new.
        pub(crate) fn watch_files<'a>(
            &mut self,
            files: impl Iterator<Item = (&'a Path, Option<&'a File>)>,
        ) -> Vec<PathBuf> {
            let Some(queue) = &self.queue else { return Vec::new() };
            let (mut watched, mut new, mut is_partial) = (LiteMap::new(), Vec::new(), false);
            for (below, file) in files {
                let Some(file) = file.filter(|file| queue.watch(file.as_fd()).is_ok()) else {
                    is_partial = true;
                    continue;
                };
                let descriptor = file.as_raw_fd();
                if self.files.get(&descriptor).is_none_or(|known| known != below) {
                    new.push(below.to_owned());
                }
                watched.insert(descriptor, below.to_owned());
            }
            self.files = watched;
            self.is_new |= self.is_partial != is_partial;
            self.is_partial = is_partial;
            new
        }

        fn start(&mut self) {
            if self.queue.is_none() {
                self.queue = VnodeQueue::new().ok();
                self.is_new = true;
            }
        }

        fn watch(&mut self, below: Option<PathBuf>, directory: OwnedFd) -> io::Result<()> {
            let queue = self.queue.as_ref().ok_or(io::ErrorKind::NotFound)?;
            if self.directories.len() >= DIRECTORIES_MAX {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            if rustix::fs::fstatfs(&directory)?.f_flags & MNT_LOCAL == 0 {
                return Err(io::ErrorKind::Unsupported.into());
            }
            queue.watch(directory.as_fd())?;
            self.directories.insert(directory.as_raw_fd(), (below, directory));
            Ok(())
        }

        /// Watches nothing.
        pub(crate) fn stop(&mut self) {
            *self = Self { is_new: true, ..Self::default() };
        }

        /// What has changed since this was last asked.
        pub(crate) fn changes(&mut self) -> Changes {
            let mut changes = Changes::default();
            let Some(queue) = &self.queue else { return changes };
            let Ok(found) = queue.take_changes() else { return Changes::everything() };
            for change in found {
                if let Some(file) = self.files.get(&change.descriptor) {
                    changes.needs_scan |= change.is_moved;
                    changes.files.push(file.clone());
                    continue;
                }
                changes.needs_scan = true;
                if change.is_moved {
                    self.directories.remove(&change.descriptor);
                }
            }
            changes
        }
    }
}
