//! Finds the mounts that are separate file systems.
//!
//! Source: `/proc/self/mountinfo`, proc_pid_mountinfo(5). A mount table goes in, a list of candidates comes out. Only a
//! measurement shows whether the place is a directory, and whether two of them are one storage. Invariant: any bytes
//! are accepted; a line that has not the documented form is left out.
//!
//! - The root is always a candidate, whatever its type, unless it is a read-only image.
//! - A block device (and a ZFS dataset) counts once, by its number, where most of it is mounted.
//! - File systems in memory, pseudo file systems and read-only images do not count.
//! - An overlay counts only as the root; elsewhere it shows storage that counts already.
//! - A file system that another machine or a program serves is left out, and its mount point is reported. If its server
//!   is dead, statfs(2) does not return, and not even SIGKILL ends the process.

use litemap::LiteMap;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::scan::{lines, number, words};

/// The most candidates: real instances have about five, and each costs two system calls a sample.
pub(crate) const CANDIDATES_MAX: usize = 64;

/// The most mount points that are reported as left out: as many as a log line should hold.
const LEFT_OUT_MAX: usize = 16;

/// The most places of one file system that are tried: all but the first few are files and sub-directories of a volume.
const PLACES_MAX: usize = 8;

/// The kind of a file system, which decides how it is measured and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On a block device of this machine: one candidate a device number.
    Local,
    /// A dataset of a pool: it shares its free space with the pool's others.
    Pooled,
    /// The root, on storage that may also be mounted elsewhere. It is measured even if a server serves it: if that
    /// server is dead, the agent cannot run either.
    Layered,
}

/// A mount that may be a file system of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) kind: Kind,
    pub(crate) number: DeviceNumber,
    /// Its mount points, the best one first.
    pub(crate) places: Vec<PathBuf>,
    pub(crate) device: Arc<str>,
    pub(crate) fs_type: Arc<str>,
}

/// The result of reading a mount table.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The root first, then by mount point.
    pub(crate) candidates: Vec<Candidate>,
    /// The mount points of file systems that are served.
    pub(crate) left_out: Vec<String>,
}

/// Reads a mount table.
pub(crate) fn file_systems(mount_table: &[u8]) -> Found {
    // A later mount covers an earlier one at the same place.
    let mut visible: LiteMap<Vec<u8>, Mount<'_>> = LiteMap::new();
    for mount in mounts(mount_table) {
        visible.insert(mount.mount_point.to_vec(), mount);
    }
    let served = visible.values().filter(|mount| !is_root(mount) && is_served(mount)).take(LEFT_OUT_MAX);
    let left_out = served.map(|mount| String::from_utf8_lossy(&mount.mount_point).into_owned()).collect();
    let mut ordered: Vec<(Kind, Mount<'_>)> =
        visible.into_iter().map(|(_, mount)| mount).filter_map(|mount| Some((kind(&mount)?, mount))).collect();
    // A mount of the whole file system comes before one of a part, and a short path before a long one: users look
    // there.
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
    Found { candidates: found, left_out }
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
            _ => stored(mount).unwrap_or(Kind::Layered),
        });
    }
    if is_made_up(fs_type) || is_single_file(mount) {
        return None;
    }
    stored(mount)
}

fn stored(mount: &Mount<'_>) -> Option<Kind> {
    let fs_type = mount.fs_type;
    if fs_type == b"zfs" {
        return Some(Kind::Pooled);
    }
    if is_served(mount) {
        return None;
    }
    // An anonymous device number means that there is no block device. But a file system over several devices (btrfs,
    // bcachefs) has one, too, and names a device as its source.
    (mount.number.0 != 0 || mount.source.starts_with(b"/dev/")).then_some(Kind::Local)
}

/// Whether the file system at this path is served. It reads the mount table only: a thread that waits for the file
/// system itself may make the process unkillable.
pub(crate) fn is_path_served(mount_table: &[u8], path: &Path) -> bool {
    // Of several mounts at one place the last is the visible one.
    let holds = mounts(mount_table).filter(|mount| path.starts_with(mount.path()));
    holds.max_by_key(|mount| mount.mount_point.len()).is_some_and(|mount| is_served(&mount))
}

/// Whether another machine, the host of a virtual machine, or a program serves it.
fn is_served(mount: &Mount<'_>) -> bool {
    let fs_type = mount.fs_type;
    let is_served = REMOTE.contains(&fs_type) || fs_type.starts_with(b"fuse");
    is_served && !IMAGES.contains(&fs_type) && !is_made_up(fs_type) && !is_single_file(mount)
}

fn is_single_file(mount: &Mount<'_>) -> bool {
    SINGLE_FILES.contains(&&*mount.mount_point)
}

/// Whether it is in memory, a pseudo file system of the kernel or a desktop, or shows storage that counts elsewhere.
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

/// Types of read-only images, which are always full.
const IMAGES: &[&[u8]] =
    &[b"squashfs", b"erofs", b"iso9660", b"cramfs", b"romfs", b"udf", b"fuse.snapfuse", b"fuse.squashfuse"];

/// Types that another machine, the host of a virtual machine, or a program serves.
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

/// Files that container engines mount one by one. They are left out by their names.
const SINGLE_FILES: &[&[u8]] =
    &[b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf", b"/dev/termination-log", b"/.dockerenv", b"/init"];

/// The device number of a file system; an anonymous one has the major number 0.
pub(crate) type DeviceNumber = (u32, u32);

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// `st_dev` of the files on it.
    pub(crate) number: DeviceNumber,
    /// The directory of the file system that is mounted here; `/` is the whole file system.
    pub(crate) root: Cow<'a, [u8]>,
    /// The mount point.
    pub(crate) mount_point: Cow<'a, [u8]>,
    /// The type of the file system, with its subtype if it has one.
    pub(crate) fs_type: &'a [u8],
    /// The name of the device, server or image.
    pub(crate) source: Cow<'a, [u8]>,
    /// Options of the file system itself; legacy control groups name their controllers here.
    pub(crate) options: &'a [u8],
}

impl Mount<'_> {
    /// The mount point as a path.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.mount_point))
    }
}

/// The mounts in the kernel's order: a later one covers an earlier one at the same place.
pub(crate) fn mounts(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    lines(text).filter_map(mount)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = words(line);
    let mut numbers = fields.nth(2)?.splitn(2, |byte| *byte == b':');
    let mut half = || numbers.next().and_then(number).and_then(|half| u32::try_from(half).ok());
    let number = (half()?, half()?);
    let (root, mount_point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    // Skip the mount options and the optional fields, which end at a dash.
    fields.by_ref().skip(1).find(|word| *word == b"-")?;
    let fs_type = fields.next()?;
    let source = fields.next().map_or(Cow::Borrowed(&b""[..]), unescaped);
    Some(Mount { number, root, mount_point, fs_type, source, options: fields.next().unwrap_or_default() })
}

/// Decodes the kernel's escapes: space, tab, newline, backslash and `#` are a backslash and three octal digits.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'\\'
            && let Some((digits, beyond)) = after.split_at_checked(3)
            && let Some(byte) = octal(digits)
        {
            plain.push(byte);
            rest = beyond;
        } else {
            plain.push(*first);
        }
    }
    Cow::Owned(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |sum, byte| {
        let digit = (b'0'..=b'7').contains(byte).then(|| byte - b'0')?;
        sum.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(table: &str) -> Vec<(Kind, String)> {
        let first = |candidate: &Candidate| candidate.places.first().map(|place| place.display().to_string());
        file_systems(table.as_bytes())
            .candidates
            .iter()
            .map(|candidate| (candidate.kind, first(candidate).unwrap_or_default()))
            .collect()
    }

    #[test]
    fn path_is_served_by_its_deepest_visible_mount() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:70 / /home rw - nfs4 host:/home rw\n\
            3 2 8:2 / /home/me rw - ext4 /dev/sdb1 rw\n4 3 0:71 / /home/me rw - fuse.sshfs me@host: rw\n";
        for (path, served) in [("/root", false), ("/home/you", true), ("/home/me/.sindri", true), ("/homes", false)] {
            assert_eq!(is_path_served(table, Path::new(path)), served, "{path}");
        }
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
    fn served_file_systems_are_left_out_and_named() {
        let table = "1 0 0:70 / /n rw - nfs4 host:/export rw\n2 0 0:71 / /s rw - fuse.sshfs me@host: rw\n\
                     3 0 0:33 /@ /b rw - btrfs /dev/sda1 rw\n4 0 0:40 / /z rw - zfs tank/data rw\n";
        let expected = [(Kind::Local, "/b"), (Kind::Pooled, "/z")];
        assert_eq!(places(table), expected.map(|(kind, place)| (kind, place.to_owned())));
        assert_eq!(file_systems(table.as_bytes()).left_out, ["/n", "/s"]);
        let root = "1 0 0:10 / / rw - 9p none rw,trans=fd\n2 1 0:14 / /etc/hosts rw - 9p none rw,trans=fd\n";
        assert_eq!(places(root), [(Kind::Layered, "/".into())]);
        assert!(file_systems(root.as_bytes()).left_out.is_empty());
        assert_eq!(pool("tank/data/x"), "tank");
    }

    #[test]
    fn the_manual_s_example_is_read() {
        let line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n";
        let all: Vec<_> = mounts(line).collect();
        let expected = Mount {
            number: (98, 0),
            root: Cow::Borrowed(b"/mnt1"),
            mount_point: Cow::Borrowed(b"/mnt2"),
            fs_type: b"ext3",
            source: Cow::Borrowed(b"/dev/root"),
            options: b"rw,errors=continue",
        };
        assert_eq!(all, [expected]);
    }

    #[test]
    fn names_with_spaces_are_restored() {
        let line = br"41 35 0:40 / /mnt/my\040disk\134x rw - 9p C:\134 rw,aname=drvfs";
        let mount = mounts(line).next().expect("the line is whole");
        assert_eq!(mount.mount_point.as_ref(), br"/mnt/my disk\x");
        assert_eq!(mount.source.as_ref(), br"C:\");
        assert_eq!(unescaped(br"\04"), &br"\04"[..]);
        assert_eq!(unescaped(br"\777"), &br"\777"[..]);
    }

    #[test]
    fn incomplete_lines_are_left_out() {
        let text = b"\n1 2\n1 2 3 / / rw - ext4 x rw\n1 2 3:x / / rw - ext4 x rw\n1 2 3:4 / / rw ext4 x rw\n1 2 3:4 / / rw -\n";
        assert_eq!(mounts(text).count(), 0);
        assert_eq!(mounts(b"1 2 3:4 / / rw - tmpfs").count(), 1);
    }

    proptest! {
        #[test]
        fn any_table_gives_a_bounded_list(text in proptest::collection::vec(any::<u8>(), 0..400), count in 0_u32..200) {
            let mut table = text;
            for index in 0..count {
                table.extend(format!("\n1 0 8:{index} / /{index} rw - ext4 /dev/x rw\n").bytes());
            }
            let found = file_systems(&table).candidates;
            prop_assert!(found.len() <= CANDIDATES_MAX);
            prop_assert!(found.iter().all(|candidate| !candidate.places.is_empty()));
        }

        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            for mount in mounts(&text) {
                let _ = mount.path();
            }
        }

        #[test]
        fn any_words_in_the_right_places_are_read(words in proptest::collection::vec("[0-9a-z:/,\\\\-]{1,8}", 0..14)) {
            let _ = mounts(words.join(" ").as_bytes()).count();
        }
    }
}
