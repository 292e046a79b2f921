//! A group of processes that the kernel holds to a limit.
//!
//! A test that wants it says `#[path = "support/group.rs"] mod group;`.

// Every test that includes this is a crate of its own and uses a part of it.
#![allow(dead_code)]

use crate::support::WAIT_MAX;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A control group, gone with the test.
pub(crate) struct Group(PathBuf);

impl Group {
    /// One below the topmost group of this controller, with this limit in its file: in the unified hierarchy the first,
    /// in a legacy one the second. The reason where there can be none.
    pub(crate) fn new(controller: &str, file: [&str; 2], limit: &str) -> Result<Group, String> {
        let base = Path::new("/sys/fs/cgroup");
        let unified = std::fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
        let [in_unified, in_legacy] = file;
        let (parent, file) = match unified.split_whitespace().any(|given| given == controller) {
            true => (base.to_owned(), in_unified),
            false => (base.join(controller), in_legacy),
        };
        let place = parent.join(format!("draupnir-test-{}-{controller}", std::process::id()));
        std::fs::create_dir(&place).map_err(|error| format!("no group of processes can be made: {error}"))?;
        let group = Group(place);
        let set = std::fs::write(group.0.join(file), limit);
        set.map_err(|error| format!("the {controller} of a group cannot be limited: {error}"))?;
        Ok(group)
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + WAIT_MAX;
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::yield_now(); // the last process is on its way out
        }
    }
}
