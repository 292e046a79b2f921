//! The inputs of the readers: the roots of the kernel's file trees, the function to measure a file system, the clock.
//!
//! A sample depends on nothing else, so that a recorded tree with recorded sizes and times gives the same figures on
//! any machine.
//!
//! Units: bytes; the clock counts from any fixed point and never goes back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measures how full the file system at a path is. It may block for ever, as a network mount can.
pub type Measure = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// The time since some fixed point, monotonic.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The inputs of the readers.
#[derive(Clone)]
pub struct Roots {
    /// The path of `/proc`.
    pub proc: PathBuf,
    /// The path of `/sys`. Mount points below `/sys` are looked up here.
    pub sys: PathBuf,
    /// Measures a file system.
    pub measure: Measure,
    /// The clock.
    pub clock: Clock,
}

impl Roots {
    /// Maps a path of the mount table: a path below `/sys` becomes one below [`Roots::sys`].
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))] // only Linux has cgroups
    pub(crate) fn place(&self, mount_point: &Path) -> PathBuf {
        mount_point.strip_prefix("/sys").map_or_else(|_| mount_point.to_path_buf(), |rest| self.sys.join(rest))
    }
}

impl Default for Roots {
    /// The machine that the agent runs on.
    fn default() -> Self {
        let start = Instant::now();
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            measure: Arc::new(Space::of),
            clock: Arc::new(move || start.elapsed()),
        }
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Roots").field("proc", &self.proc).field("sys", &self.sys).finish_non_exhaustive()
    }
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that are free, those reserved for root among them.
    pub free_bytes: u64,
    /// Bytes that an ordinary user may take.
    pub available_bytes: u64,
    /// Its inodes; 0 where their number is not fixed.
    pub inodes_total: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// The file system's own identifier; 0 when it has none.
    pub id: u64,
    /// Whether the place is a directory: a single file that was bind-mounted is not a file system of its own.
    pub directory: bool,
}

impl Space {
    /// Measures the file system at `path` by statvfs(3); blocks as long as the file system does.
    ///
    /// # Errors
    /// The kernel's error: the path does not exist, is not accessible, or does not answer.
    pub fn of(path: &Path) -> io::Result<Self> {
        let directory = std::fs::metadata(path)?.is_dir();
        let space = rustix::fs::statvfs(path)?;
        Ok(Self {
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            free_bytes: space.f_bfree.saturating_mul(space.f_frsize),
            available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            inodes_total: space.f_files,
            inodes_free: space.f_ffree,
            id: space.f_fsid,
            directory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_this_machine_has_a_size() {
        let space = Space::of(Path::new("/")).expect("the root can be measured");
        assert!(space.directory && space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
        assert!(Space::of(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn only_paths_below_sys_move() {
        let roots = Roots { sys: "/tree/sys".into(), ..Roots::default() };
        assert_eq!(roots.place(Path::new("/sys/fs/cgroup")), Path::new("/tree/sys/fs/cgroup"));
        assert_eq!(roots.place(Path::new("/system")), Path::new("/system"));
    }
}
