//! A control group with a limit.

use crate::support::WAIT_MAX;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many groups this process has made: each has a name of its own.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A control group that the test removes at its end.
pub(crate) struct Group(PathBuf);

impl Group {
    /// Creates a group below the topmost group of this controller and writes this limit: into the first file in the
    /// unified hierarchy, into the second in a legacy one. Returns the reason if that is not possible.
    pub(crate) fn new(controller: &str, file: [&str; 2], limit: &str) -> Result<Group, String> {
        let base = Path::new("/sys/fs/cgroup");
        let unified = std::fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
        let [in_unified, in_legacy] = file;
        let (parent, file) = match unified.split_whitespace().any(|given| given == controller) {
            true => (base.to_owned(), in_unified),
            false => (base.join(controller), in_legacy),
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = parent.join(format!("draupnir-test-{}-{number}-{controller}", std::process::id()));
        std::fs::create_dir(&place).map_err(|error| format!("no group of processes can be made: {error}"))?;
        let group = Group(place);
        let set = std::fs::write(group.0.join(file), limit);
        set.map_err(|error| format!("the {controller} of a group cannot be limited: {error}"))?;
        Ok(group)
    }

    /// Its directory.
    pub(crate) fn place(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + WAIT_MAX;
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::yield_now(); // the last process is still exiting
        }
    }
}
