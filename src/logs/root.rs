//! Where log files are looked for, and how they are opened.
//!
//! A root is a directory and a pattern below it. The home directory is opened as it is; every component below it, and
//! every component of a configured path, is opened without following a link. Only regular files are opened. A file with
//! more than one name is opened only where it and its directory are the agent's user's own: another user could give a
//! file of root a name in a directory of his own.
//!
//! Bounds: [`FILES_MAX`], [`DIRECTORIES_MAX`], [`DEPTH_MAX`]; what lies beyond is not followed.

use super::position::FileId;
use super::record::Origin;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// The most files of one root.
pub const FILES_MAX: usize = 4_096;

/// The most directories of one root that are looked into.
pub const DIRECTORIES_MAX: usize = 1_024;

/// How deep below its directory a pattern is followed.
pub const DEPTH_MAX: usize = 16;

/// The directory of Sindri's logs, below the home directory.
const LOGS_OF_HOME: [&str; 2] = [".sindri", "logs"];

/// Ends of names of compressed files, which are left alone.
const COMPRESSED: [&[u8]; 8] = [b".gz", b".xz", b".bz2", b".zst", b".lz4", b".Z", b".zip", b".br"];

/// Where files are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// As the operator wrote it; `None`: the logs of Sindri.
    text: Option<Box<str>>,
    /// Opened as it is.
    start: PathBuf,
    /// Directories below it.
    base: Vec<OsString>,
    pattern: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `**`: any number of directories.
    Directories,
    /// A name, with `*` and `?`.
    Name(OsString),
}

/// What a look at all directories found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that the pattern names, in order, relative to the root.
    pub files: Vec<PathBuf>,
    /// The directories that may hold such files, relative to the root.
    pub directories: Vec<PathBuf>,
    /// There was more than the bounds allow.
    pub is_cut: bool,
}

impl Root {
    /// The logs of Sindri.
    pub fn of_home(home: &Path) -> Self {
        let pattern = vec![Part::Directories, Part::Name("*.log".into())];
        Self { text: None, start: home.into(), base: LOGS_OF_HOME.map(OsString::from).into(), pattern }
    }

    /// A path or pattern of the configuration; `None` where it is not absolute or has a `..`.
    pub fn configured(text: &str) -> Option<Self> {
        let path = Path::new(text);
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) if name == "**" => parts.push(Part::Directories),
                Component::Normal(name) => parts.push(Part::Name(name.into())),
                Component::CurDir | Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        if !path.is_absolute() || !matches!(parts.last(), Some(Part::Name(_))) {
            return None;
        }
        let is_plain = |part: &Part| matches!(part, Part::Name(name) if !has_wildcard(name));
        let plain = parts.iter().take(parts.len() - 1).take_while(|part| is_plain(part)).count();
        let pattern = parts.split_off(plain);
        let base = parts.into_iter().filter_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Directories => None,
        });
        Some(Self { text: Some(text.into()), start: "/".into(), base: base.collect(), pattern })
    }

    /// The text of the configuration; `None` for the logs of Sindri.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The directory below which its files are.
    pub fn directory(&self) -> PathBuf {
        let mut path = self.start.clone();
        path.extend(&self.base);
        path
    }

    /// Whether its pattern names this absolute path.
    pub fn covers(&self, path: &Path) -> bool {
        path.strip_prefix(self.directory()).is_ok_and(|below| {
            let names: Vec<&OsStr> = below.iter().collect();
            names.len() <= DEPTH_MAX && matches(&self.pattern, &names) && !is_compressed(below)
        })
    }

    /// What a file of this root is called, and what writes it.
    pub fn origin(&self, below: &Path) -> Origin {
        match self.text {
            None => Origin::below_logs(&below.to_string_lossy()),
            Some(_) => Origin::configured(&self.directory().join(below).to_string_lossy()),
        }
    }

    /// Opens a directory below the root.
    ///
    /// # Errors
    /// It is not there, is no directory but a link, or may not be read.
    pub fn open_directory(&self, below: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = rustix::fs::open(&self.start, flags, Mode::empty())?;
        for name in self.base.iter().map(OsString::as_os_str).chain(below) {
            directory = rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(directory)
    }

    /// The deepest directory on the way to the root that is there.
    ///
    /// # Errors
    /// None can be opened.
    pub(super) fn nearest_directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = rustix::fs::open(&self.start, flags, Mode::empty())?;
        for name in &self.base {
            match rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(inner) => directory = inner,
                Err(_) => break,
            }
        }
        Ok(directory)
    }

    /// Looks for files and directories.
    ///
    /// # Errors
    /// The root's directory cannot be opened.
    pub fn scan(&self) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let directory = self.open_directory(Path::new(""))?;
        self.scan_directory(&directory, &mut PathBuf::new(), &mut scan);
        scan.files.sort_unstable();
        Ok(scan)
    }

    fn scan_directory(&self, directory: &OwnedFd, below: &mut PathBuf, scan: &mut Scan) {
        if scan.directories.len() >= DIRECTORIES_MAX || below.iter().count() >= DEPTH_MAX {
            scan.is_cut = true;
            return;
        }
        scan.directories.push(below.clone());
        for (name, kind) in entries(directory) {
            below.push(&name);
            let names: Vec<&OsStr> = below.iter().collect();
            match kind {
                FileType::RegularFile if matches(&self.pattern, &names) && !is_compressed(below) => {
                    scan.is_cut |= scan.files.len() >= FILES_MAX;
                    if scan.files.len() < FILES_MAX {
                        scan.files.push(below.clone());
                    }
                }
                FileType::Directory if may_lead_on(&self.pattern, &names) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                    if let Ok(inner) = rustix::fs::openat(directory, &name, flags, Mode::empty()) {
                        self.scan_directory(&inner, below, scan);
                    }
                }
                _ => {}
            }
            below.pop();
        }
    }
}

/// Names and kinds in a directory; a kind that the file system does not say is asked for.
pub(super) fn entries(directory: &OwnedFd) -> Vec<(OsString, FileType)> {
    let Ok(listing) = Dir::read_from(directory) else { return Vec::new() };
    let named = listing.flatten().filter_map(|entry| {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if matches!(name.as_bytes(), b"." | b"..") {
            return None;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(&stat(directory, name).ok()?),
            known => known,
        };
        Some((name.to_owned(), kind))
    });
    named.collect()
}

/// What stands in a directory under this name, without following a link.
pub(super) fn stat(directory: &OwnedFd, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn kind_of(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

/// Opens a file to read it.
///
/// # Errors
/// It is not there, is no regular file, has several names, or may not be read.
pub(super) fn open_file(directory: &OwnedFd, name: &OsStr) -> io::Result<(File, Stat)> {
    // Before it is opened, which some devices notice.
    if kind_of(&stat(directory, name)?) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if kind_of(&found) != FileType::RegularFile || !is_trusted(&found, &rustix::fs::fstat(directory)?) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((File::from(file), found))
}

fn is_trusted(file: &Stat, directory: &Stat) -> bool {
    let own = rustix::process::geteuid().as_raw();
    file.st_nlink <= 1 || (file.st_uid == own && directory.st_uid == own)
}

/// Which file this is.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast, clippy::cast_sign_loss)] // types differ between kernels
pub(super) fn id_of(found: &Stat) -> FileId {
    FileId { device: found.st_dev as u64, inode: found.st_ino as u64 }
}

/// How long a file is, in bytes.
pub(super) fn length_of(file: &impl AsFd) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or_default())
}

pub(super) fn is_compressed(path: &Path) -> bool {
    COMPRESSED.iter().any(|end| path.as_os_str().as_bytes().ends_with(end))
}

fn has_wildcard(name: &OsStr) -> bool {
    name.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// Whether the pattern names this path.
fn matches(pattern: &[Part], names: &[&OsStr]) -> bool {
    match (pattern, names) {
        ([], []) => true,
        ([Part::Directories, rest @ ..], _) => {
            matches(rest, names) || names.split_first().is_some_and(|(_, names)| matches(pattern, names))
        }
        ([Part::Name(glob), rest @ ..], [name, names @ ..]) => {
            is_like(glob.as_bytes(), name.as_bytes()) && matches(rest, names)
        }
        ([], _) | (_, []) => false,
    }
}

/// Whether the pattern may name something below this directory.
fn may_lead_on(pattern: &[Part], names: &[&OsStr]) -> bool {
    match (pattern, names) {
        ([Part::Directories, ..], _) => true,
        ([Part::Name(glob), rest @ ..], [name, names @ ..]) => {
            is_like(glob.as_bytes(), name.as_bytes()) && may_lead_on(rest, names)
        }
        ([_, ..], []) => true,
        ([], _) => false,
    }
}

/// Whether a name is like a glob: `*` stands for any bytes, `?` for one. A name that begins with a dot needs a dot.
fn is_like(glob: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && glob.first() != Some(&b'.') {
        return false;
    }
    // The usual two places to go back to: linear but for the last star.
    let (mut at, mut in_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at + 1, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(in_name) => {
                at += 1;
                in_name += 1;
            }
            Some(_) | None => {
                let Some((after_star, taken)) = star else { return false };
                star = Some((after_star, taken + 1));
                (at, in_name) = (after_star, taken + 1);
            }
        }
    }
    glob.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn patterns_name_what_a_shell_would() {
        let covers = |text: &str, path: &str| Root::configured(text).expect("it is legal").covers(Path::new(path));
        for (text, path, expected) in [
            ("/var/log/syslog", "/var/log/syslog", true),
            ("/var/log/syslog", "/var/log/syslog.1", false),
            ("/var/log/*.log", "/var/log/a.log", true),
            ("/var/log/*.log", "/var/log/x/a.log", false),
            ("/var/log/**/*.log", "/var/log/a.log", true),
            ("/var/log/**/*.log", "/var/log/x/y/a.log", true),
            ("/var/log/*/er?or*", "/var/log/x/errors", true),
            ("/var/log/*/er?or*", "/var/log/x/error.gz", false),
            ("/var/log/*a*b", "/var/log/xaab", true),
            ("/var/log/*", "/var/log/.hidden", false),
        ] {
            assert_eq!(covers(text, path), expected, "{text} {path}");
        }
        assert!(["relative/a.log", "/a/../b", "/", "/a/**"].iter().all(|text| Root::configured(text).is_none()));
    }

    #[test]
    fn scan_finds_files_without_following_links() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let logs = home.path().join(".sindri/logs");
        fs::create_dir_all(logs.join("node/deep")).expect("directories");
        for name in ["b.log", "a.log", "a.log.1", "c.log.gz", "node/deep/out.log"] {
            fs::write(logs.join(name), "x").expect("written");
        }
        symlink("/etc/passwd", logs.join("link.log")).expect("a link");
        symlink("/etc", logs.join("etc")).expect("a link");
        assert!(std::process::Command::new("mkfifo").arg(logs.join("fifo.log")).status().expect("mkfifo").success());
        let root = Root::of_home(home.path());
        let found = root.scan().expect("it can be read");
        let names = ["a.log", "b.log", "node/deep/out.log"].map(PathBuf::from);
        assert_eq!((found.files, found.directories.len(), found.is_cut), (names.into(), 3, false));
        let directory = root.open_directory(Path::new("")).expect("it is there");
        for name in ["link.log", "fifo.log", "node"] {
            assert!(open_file(&directory, OsStr::new(name)).is_err(), "{name}");
        }
        assert!(root.open_directory(Path::new("etc")).is_err(), "a link");
        fs::rename(&logs, home.path().join("real")).expect("renamed");
        symlink(home.path().join("real"), &logs).expect("a link");
        assert!(root.scan().is_err(), "the directory itself is a link");
    }

    #[test]
    fn second_name_of_a_file_is_opened_in_an_own_directory_alone() {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::write(home.path().join("a"), "x").expect("written");
        fs::hard_link(home.path().join("a"), home.path().join("b.log")).expect("linked");
        let directory = Root::configured("/x/y").expect("legal");
        let directory = Root { start: home.path().into(), base: Vec::new(), ..directory };
        let directory = directory.open_directory(Path::new("")).expect("it is there");
        let (_, file) = open_file(&directory, OsStr::new("b.log")).expect("both are ours");
        let own = rustix::fs::fstat(&directory).expect("it is open");
        let mut foreign = own;
        foreign.st_uid = own.st_uid.wrapping_add(1);
        assert!(is_trusted(&file, &own) && !is_trusted(&file, &foreign));
        let mut file_of_another = file;
        file_of_another.st_uid = own.st_uid.wrapping_add(1);
        assert!(!is_trusted(&file_of_another, &own));
    }
}
