//! Keeps the agent's own log file short: renames it to `.1` at a length, and opens it again.
//!
//! It renames only the file that is standard error, and only if no other program rotates it:
//! `~/.sindri/logs/draupnir.log`, or any file once `SINDRI_AGENT_LOG_MAX` is set. It must be a regular file of this
//! user with one link. All calls run off the loop's thread, because they may hang. Sizes are in bytes.

use rustix::fs::{FileType, Stat, fstat};
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The default length at which the file is renamed: days of ordinary logging, small beside any disk.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// The log of an agent that Sindri has started, below the home directory.
const OWN_LOG: &str = ".sindri/logs/draupnir.log";

/// The log file, once it is known.
#[derive(Debug)]
pub(crate) enum OwnLog {
    /// Standard error was not looked at yet.
    Unknown {
        /// The home directory of the agent's user.
        home: Option<PathBuf>,
        /// What the operator allows.
        bytes_max: Option<u64>,
    },
    /// Standard error is this file, which may have so many bytes.
    Kept {
        /// Where it is.
        path: PathBuf,
        /// The length at which it is renamed.
        bytes_max: u64,
    },
    /// Standard error is another kind of file, or another program has renamed it.
    Foreign,
}

impl OwnLog {
    /// Opens nothing yet.
    pub(crate) fn new(home: Option<&Path>, bytes_max: Option<u64>) -> Self {
        Self::Unknown { home: home.map(Path::to_owned), bytes_max }
    }

    /// A log that is left alone.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::Foreign
    }

    /// To be called before each write: puts a new file in the place of one that is too long.
    pub(crate) fn before_write(&mut self) {
        if let Self::Unknown { home, bytes_max } = self {
            *self = find(home.as_deref(), *bytes_max).unwrap_or(Self::Foreign);
        }
        let Self::Kept { path, bytes_max } = self else { return };
        let Some(open) = own_file() else { return *self = Self::Foreign };
        if u64::try_from(open.st_size).unwrap_or(0) < *bytes_max {
            return;
        }
        // Another program may have renamed it meanwhile, and then rotates it.
        if !is_at(&open, path) || replace(path, open.st_mode).is_err() {
            *self = Self::Foreign;
        }
    }
}

/// Whether standard error is a file to keep short.
fn find(home: Option<&Path>, bytes_max: Option<u64>) -> Option<OwnLog> {
    // For a pipe or a terminal it touches no file system, which may hang.
    let open = own_file()?;
    let path = path_of_standard_error()?;
    let configured = bytes_max.filter(|_| is_at(&open, &path));
    let (path, bytes_max) = match (configured, home.map(|home| home.join(OWN_LOG))) {
        (Some(bytes_max), _) => (path, bytes_max),
        (None, Some(own)) if path.file_name() == own.file_name() && is_at(&open, &own) => (own, LOG_BYTES_MAX),
        (None, _) => return None,
    };
    Some(OwnLog::Kept { path, bytes_max })
}

/// What standard error is, if that is a regular file of this user with one link.
fn own_file() -> Option<Stat> {
    let open = fstat(rustix::stdio::stderr()).ok()?;
    let is_own = FileType::from_raw_mode(open.st_mode) == FileType::RegularFile
        && open.st_nlink == 1
        && open.st_uid == rustix::process::geteuid().as_raw();
    is_own.then_some(open)
}

/// Whether this very file is at the path, and no link to it.
fn is_at(open: &Stat, path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|there| (there.st_dev, there.st_ino) == (open.st_dev, open.st_ino))
}

#[cfg(target_os = "linux")]
fn path_of_standard_error() -> Option<PathBuf> {
    fs::read_link("/proc/self/fd/2").ok()
}

#[cfg(not(target_os = "linux"))]
fn path_of_standard_error() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = rustix::fs::getpath(rustix::stdio::stderr()).ok()?;
    Some(std::ffi::OsString::from_vec(path.into_bytes()).into())
}

/// Renames the file to `.1`, and puts a new one at its path and in the place of standard error.
#[allow(clippy::useless_conversion, reason = "a mode has 16 bits on macOS")]
fn replace(path: &Path, mode: rustix::fs::RawMode) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    let previous = PathBuf::from(name);
    fs::rename(path, &previous)?;
    let replaced = open_new(path, u32::from(mode) & 0o777);
    if replaced.is_err() {
        // Lines still go to the old file, so it gets its name back.
        let _ = fs::rename(&previous, path);
    }
    replaced
}

fn open_new(path: &Path, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    // The mode without what the umask takes from it.
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(rustix::stdio::dup2_stderr(&file)?)
}
