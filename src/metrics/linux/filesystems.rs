//! Which mounts are file systems of their own.
//!
//! Measures nothing; a list of mounts goes in, a list of candidates comes out. What remains to be seen when they are
//! measured: whether the place is a directory, and whether two of them are the same storage after all.
//!
//! - The root is always a candidate, whatever its type, unless it is a read-only image.
//! - A block device (and a ZFS dataset) counts once, by its number, where most of it is mounted.
//! - What the kernel keeps in memory, makes up, or reads from an image does not count.
//! - An overlay counts as the root only; elsewhere it is a view of storage that counts already.
//! - What is served from elsewhere counts once, too, but is never asked on the agent's own thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::mounts::{DeviceNumber, Mount, mounts};

/// How many candidates are kept: real instances have a handful, and each one costs two system calls a sample.
pub(crate) const CANDIDATES_MAX: usize = 64;

/// How many places of one file system are tried: all but the first few are files and sub-directories of a volume.
const PLACES_MAX: usize = 8;

/// How a file system must be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On a block device of this machine: measured at once, and never two of the same number.
    Local,
    /// A dataset of a pool: measured at once; it shares its free space with the pool's others.
    Pooled,
    /// The root of a container, over storage that may be mounted elsewhere, too.
    Layered,
    /// Served by another machine or by a program: may hang, and may be the same storage as another.
    Remote,
}

/// A mount that may be a file system of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) kind: Kind,
    pub(crate) number: DeviceNumber,
    /// Where it is mounted: the best place first.
    pub(crate) places: Vec<PathBuf>,
    pub(crate) device: Arc<str>,
    pub(crate) fs_type: Arc<str>,
}

/// The candidates of a mount table, the root first, then by place.
pub(crate) fn candidates(mount_table: &[u8]) -> Vec<Candidate> {
    // A later mount covers an earlier one at the same place.
    let mut visible: BTreeMap<Vec<u8>, Mount<'_>> = BTreeMap::new();
    for mount in mounts(mount_table) {
        visible.insert(mount.mount_point.to_vec(), mount);
    }
    let mut ordered: Vec<(Kind, Mount<'_>)> =
        visible.into_values().filter_map(|mount| Some((kind(&mount)?, mount))).collect();
    // The whole of a file system rather than a part, and near the root rather than deep, is where its user looks for it.
    ordered.sort_by_key(|(_, mount)| (!is_root(mount), *mount.root != *b"/", mount.mount_point.len()));
    let mut found: Vec<Candidate> = Vec::new();
    for (kind, mount) in ordered {
        let place = mount.path().to_path_buf();
        if let Some(known) = found.iter_mut().find(|known| known.kind == kind && known.number == mount.number) {
            if known.places.len() < PLACES_MAX {
                known.places.push(place);
            }
        } else if found.len() < CANDIDATES_MAX {
            found.push(Candidate {
                kind,
                number: mount.number,
                places: vec![place],
                device: shared(&mount.source),
                fs_type: shared(mount.fs_type),
            });
        }
    }
    found.sort_by(|one, other| one.places.first().cmp(&other.places.first()));
    found
}

/// The pool of a dataset `pool/data/set`.
pub(crate) fn pool(device: &str) -> &str {
    device.split('/').next().unwrap_or(device)
}

fn shared(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

fn is_root(mount: &Mount<'_>) -> bool {
    *mount.mount_point == *b"/"
}

fn kind(mount: &Mount<'_>) -> Option<Kind> {
    let fs_type = mount.fs_type;
    if IMAGES.contains(&fs_type) {
        return None;
    }
    if is_root(mount) {
        return Some(match fs_type {
            b"overlay" | b"aufs" | b"tmpfs" | b"ramfs" | b"rootfs" => Kind::Layered,
            _ => stored(mount).unwrap_or(Kind::Remote),
        });
    }
    if is_made_up(fs_type) || SINGLE_FILES.contains(&&*mount.mount_point) {
        return None;
    }
    stored(mount)
}

fn stored(mount: &Mount<'_>) -> Option<Kind> {
    let fs_type = mount.fs_type;
    if fs_type == b"zfs" {
        return Some(Kind::Pooled);
    }
    if REMOTE.contains(&fs_type) || fs_type.starts_with(b"fuse") {
        return Some(Kind::Remote);
    }
    // An anonymous number means that there is no block device, unless the file system spans several (btrfs, bcachefs),
    // which then names one as its source.
    (mount.number.0 != 0 || mount.source.starts_with(b"/dev/")).then_some(Kind::Local)
}

/// Kept in memory, made up by the kernel or by a desktop, or a view of what counts elsewhere.
fn is_made_up(fs_type: &[u8]) -> bool {
    const MADE_UP: &[&[u8]] = &[
        b"autofs",
        b"binder",
        b"binfmt_misc",
        b"bpf",
        b"cgroup",
        b"cgroup2",
        b"configfs",
        b"debugfs",
        b"devpts",
        b"devtmpfs",
        b"efivarfs",
        b"fuse.gvfsd-fuse",
        b"fuse.lxcfs",
        b"fuse.portal",
        b"fusectl",
        b"hugetlbfs",
        b"mqueue",
        b"nsfs",
        b"overlay",
        b"aufs",
        b"proc",
        b"pstore",
        b"ramfs",
        b"rootfs",
        b"rpc_pipefs",
        b"securityfs",
        b"selinuxfs",
        b"sysfs",
        b"tmpfs",
        b"tracefs",
    ];
    MADE_UP.contains(&fs_type)
}

/// Read-only by nature: as full as they were made.
const IMAGES: &[&[u8]] =
    &[b"squashfs", b"erofs", b"iso9660", b"cramfs", b"romfs", b"udf", b"fuse.snapfuse", b"fuse.squashfuse"];

/// Served by another machine, by the host of a virtual machine, or by a program.
const REMOTE: &[&[u8]] = &[
    b"9p",
    b"afs",
    b"beegfs",
    b"ceph",
    b"cifs",
    b"coda",
    b"drvfs",
    b"gfs2",
    b"glusterfs",
    b"gofer",
    b"gpfs",
    b"lustre",
    b"ncpfs",
    b"nfs",
    b"nfs4",
    b"ocfs2",
    b"orangefs",
    b"prl_fs",
    b"smb3",
    b"smbfs",
    b"vboxsf",
    b"virtiofs",
    b"vmhgfs",
];

/// Files that container engines mount one by one; where they can be told by name they need not be asked.
const SINGLE_FILES: &[&[u8]] =
    &[b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf", b"/dev/termination-log", b"/.dockerenv", b"/init"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(table: &str) -> Vec<(Kind, String)> {
        let first = |candidate: &Candidate| candidate.places.first().map(|place| place.display().to_string());
        candidates(table.as_bytes())
            .iter()
            .map(|candidate| (candidate.kind, first(candidate).unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_device_counts_once_where_most_of_it_is() {
        let table = "1 0 8:1 /var/x /a rw - ext4 /dev/sda1 rw\n2 0 8:1 / /long/way rw - ext4 /dev/sda1 rw\n\
                     3 0 8:1 /y /b rw - ext4 /dev/sda1 rw\n4 0 8:2 / /c rw - xfs /dev/sda2 rw\n";
        assert_eq!(places(table), [(Kind::Local, "/c".into()), (Kind::Local, "/long/way".into())]);
    }

    #[test]
    fn a_container_s_root_counts_and_its_single_files_do_not() {
        let table = "1 0 0:50 / / rw - overlay overlay rw\n2 1 8:1 /x/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
                     3 1 0:51 / /proc rw - proc proc rw\n4 1 0:52 / /dev rw - tmpfs tmpfs rw\n\
                     5 1 0:53 / /opt rw - overlay overlay rw\n6 1 7:0 / /snap/a ro - squashfs /dev/loop0 ro\n";
        assert_eq!(places(table), [(Kind::Layered, "/".into())]);
    }

    #[test]
    fn only_the_mount_on_top_is_seen() {
        let table = "1 0 8:1 / /data rw - ext4 /dev/sda1 rw\n2 0 0:60 / /data rw - tmpfs tmpfs rw\n";
        assert_eq!(places(table), []);
    }

    #[test]
    fn what_may_hang_is_told_apart() {
        let table = "1 0 0:70 / /n rw - nfs4 host:/export rw\n2 0 0:71 / /s rw - fuse.sshfs me@host: rw\n\
                     3 0 0:33 /@ /b rw - btrfs /dev/sda1 rw\n4 0 0:40 / /z rw - zfs tank/data rw\n";
        let expected = [(Kind::Local, "/b"), (Kind::Remote, "/n"), (Kind::Remote, "/s"), (Kind::Pooled, "/z")];
        assert_eq!(places(table), expected.map(|(kind, place)| (kind, place.to_owned())));
        assert_eq!(pool("tank/data/x"), "tank");
    }

    proptest! {
        #[test]
        fn any_table_gives_a_bounded_list(text in proptest::collection::vec(any::<u8>(), 0..400), count in 0_u32..200) {
            let mut table = text;
            for index in 0..count {
                table.extend(format!("\n1 0 8:{index} / /{index} rw - ext4 /dev/x rw\n").bytes());
            }
            let found = candidates(&table);
            prop_assert!(found.len() <= CANDIDATES_MAX);
            prop_assert!(found.iter().all(|candidate| !candidate.places.is_empty()));
        }
    }
}
