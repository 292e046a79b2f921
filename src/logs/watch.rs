//! Says which files of a root have changed: inotify on Linux, one descriptor for a root and one watch for a directory.
//!
//! A file system that another machine or a program serves changes without the kernel's notice, and elsewhere than on
//! Linux there is no inotify here: then the root is polled.

use super::root::Root;
use std::path::PathBuf;

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
#[cfg(not(target_os = "linux"))]
pub use portable::Watch;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Changes, PathBuf, Root};
    use litemap::LiteMap;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use std::ffi::OsStr;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd as _, OwnedFd};
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

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

#[cfg(not(target_os = "linux"))]
mod portable {
    use super::{Changes, PathBuf, Root};
    use std::os::fd::OwnedFd;

    /// Nothing is watched here.
    #[derive(Debug)]
    pub struct Watch;

    impl Watch {
        pub(crate) fn new(_root: &Root) -> Self {
            Self
        }

        /// Whether changes are reported.
        pub fn is_on(&self) -> bool {
            false
        }

        /// A descriptor that is readable when there are changes, if it is another than when this was last asked.
        pub fn take_new(&mut self) -> Option<Option<OwnedFd>> {
            None
        }

        pub(crate) fn add(&mut self, _root: &Root, _directories: &[PathBuf]) -> bool {
            false
        }

        pub(crate) fn add_parent(&mut self, _root: &Root) {}

        pub(crate) fn stop(&mut self) {}

        pub(crate) fn changes(&mut self) -> Changes {
            Changes::default()
        }
    }
}
