//! Finds the control groups of the agent, and those of their ancestors that it can see.
//!
//! Sources: `/proc/self/cgroup` (cgroups(7)) gives the agent's group in each hierarchy; the mount table gives the
//! directory of a hierarchy, or of the part of it that a container may see. The readers of limits and usage are
//! elsewhere.
//!
//! Invariants: the groups of a hierarchy go from the agent's own to the topmost visible one: at least one, at most
//! [`DEPTH_MAX`]. Any bytes are accepted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::super::roots::Roots;
use super::super::scan::lines;
use super::mounts::{Mount, mounts};
use crate::protocol::metrics::Source;

/// The most groups of one hierarchy that are read: Kubernetes inside a container inside a user's systemd slice has
/// about 12.
pub(crate) const DEPTH_MAX: usize = 24;

/// The controllers that the readers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    /// Memory limits and usage.
    Memory,
    /// Processor quotas.
    Cpu,
    /// Processor time used; a controller of its own in legacy hierarchies only.
    CpuAccount,
    /// Which processors may be used.
    CpuSet,
    /// The number of tasks, and its limit.
    Tasks,
    /// Block device traffic.
    Io,
}

impl Controller {
    /// The name in legacy hierarchies.
    fn legacy_name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::CpuAccount => "cpuacct",
            Self::CpuSet => "cpuset",
            Self::Tasks => "pids",
            Self::Io => "blkio",
        }
    }
}

/// The version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy for each controller.
    Legacy,
    /// One hierarchy for all.
    Unified,
}

impl Version {
    /// Its name on the wire.
    pub(crate) fn source(self) -> Source {
        match self {
            Self::Legacy => Source::Cgroup1,
            Self::Unified => Source::Cgroup2,
        }
    }
}

/// The agent's groups in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// It decides which files a group has.
    pub(crate) version: Version,
    /// The agent's own group first, then its ancestors.
    pub(crate) groups: Vec<PathBuf>,
    /// Whether the topmost visible group is not the machine's root. Then the agent is in a container, and that group is
    /// the instance.
    pub(crate) contained: bool,
}

impl Lineage {
    /// The topmost visible group.
    pub(crate) fn top(&self) -> Option<&Path> {
        self.groups.last().map(PathBuf::as_path)
    }
}

/// The agent's groups for each controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lineages {
    pub(crate) memory: Option<Lineage>,
    pub(crate) cpu: Option<Lineage>,
    pub(crate) cpu_account: Option<Lineage>,
    pub(crate) cpu_set: Option<Lineage>,
    pub(crate) tasks: Option<Lineage>,
    pub(crate) io: Option<Lineage>,
    /// The unified hierarchy, whatever controllers it has: it always has pressure and processor time.
    pub(crate) unified: Option<Lineage>,
}

impl Lineages {
    /// Finds them in the texts of `/proc/self/cgroup` (empty if the file is missing) and the mount table.
    pub(crate) fn find(roots: &Roots, membership: &[u8], mount_table: &[u8]) -> Self {
        let views = views(roots, mount_table);
        let unified = lineage(&views, membership, None);
        let of = |controller: Controller| {
            // A controller is either in a legacy hierarchy or in the unified one.
            lineage(&views, membership, Some(controller.legacy_name())).or_else(|| unified.clone())
        };
        Self {
            memory: of(Controller::Memory),
            cpu: of(Controller::Cpu),
            cpu_account: of(Controller::CpuAccount),
            cpu_set: of(Controller::CpuSet),
            tasks: of(Controller::Tasks),
            io: of(Controller::Io),
            unified,
        }
    }

    /// Whether the agent is in a container, as far as control groups show it.
    pub(crate) fn is_contained(&self) -> bool {
        [&self.memory, &self.cpu, &self.unified].into_iter().flatten().any(|lineage| lineage.contained)
    }
}

/// A mount of a hierarchy, or of a part of one.
#[derive(Debug)]
struct View {
    /// `None` for the unified hierarchy; else the legacy controllers.
    controllers: Option<Vec<String>>,
    /// The group at the root of the mount.
    root: PathBuf,
    /// The directory of that group.
    place: PathBuf,
}

fn views(roots: &Roots, mount_table: &[u8]) -> Vec<View> {
    let found: Vec<View> = mounts(mount_table).filter_map(|mount| view(roots, &mount)).collect();
    if !found.is_empty() {
        return found;
    }
    // Some sandboxes serve the files but do not list the mounts: try the usual directories.
    let base = roots.sys.join("fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![View { controllers: None, root: "/".into(), place: base }];
    }
    ["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio"]
        .into_iter()
        .map(|name| View { controllers: Some(vec![name.to_owned()]), root: "/".into(), place: base.join(name) })
        .filter(|view| view.place.is_dir())
        .collect()
}

fn view(roots: &Roots, mount: &Mount<'_>) -> Option<View> {
    let controllers = match mount.fs_type {
        b"cgroup2" => None,
        b"cgroup" => {
            let options = mount.options.split(|byte| *byte == b',');
            Some(options.map(|option| String::from_utf8_lossy(option).into_owned()).collect())
        }
        _ => return None,
    };
    let root = PathBuf::from(OsStr::from_bytes(&mount.root));
    Some(View { controllers, root, place: roots.place(mount.path()) })
}

/// The agent's groups in the hierarchy of a legacy controller, or in the unified one for `None`.
fn lineage(views: &[View], membership: &[u8], controller: Option<&str>) -> Option<Lineage> {
    let fits = |view: &&View| match (&view.controllers, controller) {
        (None, None) => true,
        (Some(names), Some(name)) => names.iter().any(|other| other == name),
        (None, Some(_)) | (Some(_), None) => false,
    };
    let candidates: Vec<&View> = views.iter().filter(fits).collect();
    let path = membership_path(membership, controller);
    if path.is_none() && !membership.is_empty() {
        return None; // The kernel lists no group for this hierarchy.
    }
    let path = path.unwrap_or_else(|| PathBuf::from("/"));
    // The same hierarchy can be mounted several times. Read the mount that shows the agent's own group.
    let direct = candidates.iter().find_map(|view| Some((*view, below(&path, &view.root)?)));
    let (view, own) = direct.or_else(|| candidates.first().map(|view| (*view, PathBuf::new())))?;
    let version = if controller.is_some() { Version::Legacy } else { Version::Unified };
    let groups: Vec<PathBuf> = own
        .ancestors()
        .map(|relative| if relative.as_os_str().is_empty() { view.place.clone() } else { view.place.join(relative) })
        .filter(|group| group.is_dir())
        .take(DEPTH_MAX)
        .collect();
    let top = groups.last()?;
    let contained = match version {
        // `release_agent` exists in a root only, `cgroup.type` in every group but the root.
        Version::Legacy => !top.join("release_agent").exists(),
        Version::Unified => top.join("cgroup.type").exists(),
    };
    Some(Lineage { version, groups, contained })
}

/// The path of `4:memory:/path`, or of `0::/path` for the unified hierarchy.
fn membership_path(membership: &[u8], controller: Option<&str>) -> Option<PathBuf> {
    lines(membership).find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match controller {
            None => names.is_empty(),
            Some(name) => names.split(|byte| *byte == b',').any(|other| other == name.as_bytes()),
        };
        fits.then(|| PathBuf::from(OsStr::from_bytes(path)))
    })
}

/// `path` relative to `root`, if it lies below it. A path that leads out of the agent's namespace (`/../…`) lies below
/// no root.
fn below(path: &Path, root: &Path) -> Option<PathBuf> {
    let outside = |place: &Path| place.components().any(|part| part == Component::ParentDir);
    if outside(path) || outside(root) || !root.is_absolute() {
        return None;
    }
    path.strip_prefix(root).ok().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> PathBuf {
        PathBuf::from(text)
    }

    #[test]
    fn our_place_is_found_by_controller() {
        let text = b"12:cpu,cpuacct:/a\n4:memory:/docker/x:y\n1:name=systemd:/s\n0::/u\n";
        assert_eq!(membership_path(text, Some("cpuacct")), Some(path("/a")));
        assert_eq!(membership_path(text, Some("memory")), Some(path("/docker/x:y")));
        assert_eq!(membership_path(text, None), Some(path("/u")));
        assert_eq!(membership_path(text, Some("pids")), None);
    }

    #[test]
    fn a_path_is_taken_from_where_the_mount_begins() {
        assert_eq!(below(Path::new("/docker/x/y"), Path::new("/docker/x")), Some(path("y")));
        assert_eq!(below(Path::new("/docker/x"), Path::new("/docker/x")), Some(path("")));
        assert_eq!(below(Path::new("/"), Path::new("/docker/x")), None);
        assert_eq!(below(Path::new("/../other"), Path::new("/")), None);
        assert_eq!(below(Path::new("/dockerx"), Path::new("/docker")), None);
        assert_eq!(below(Path::new("/a"), Path::new("")), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            membership in proptest::collection::vec(any::<u8>(), 0..200),
            table in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let roots = Roots { sys: "/nowhere".into(), proc: "/nowhere".into(), ..Roots::default() };
            let _ = Lineages::find(&roots, &membership, &table);
        }

        #[test]
        fn any_path_stays_inside_its_mount(path in "(/(\\.\\.|[a-z]{1,3})){0,5}", root in "(/(\\.\\.|[a-z]{1,3})){0,3}") {
            if let Some(inner) = below(Path::new(&path), Path::new(&root)) {
                prop_assert!(inner.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir)));
                prop_assert!(inner.is_relative(), "{:?}", inner);
            }
        }
    }
}
