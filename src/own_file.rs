//! Opens a file that the agent writes for its owner alone: the audit, the recording, its state; publishes a file for
//! others; and reads small files.
//!
//! It does not trust an existing file. Another user who may write to the directory may have put there a symbolic link,
//! so that root writes into a file of that user's choice; a FIFO, so that the open waits for ever; or a file that this
//! user owns and can read. It creates no directory but that of a file that it replaces.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Only the owner may read and write.
const MODE: u32 = 0o600;

/// Everyone may read.
const MODE_PUBLIC: u32 = 0o644;

/// Opens a file to append to it, or creates it. Devices, such as `/dev/full`, are allowed.
///
/// # Errors
/// The system refuses it; it is a symbolic link, or a FIFO without a reader; or another user owns it.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// It is not there, is no regular file but a link, a FIFO or a device, is longer, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let length = file.metadata()?;
    if !length.is_file() || length.len() > bytes_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file whole, and makes its directory: on the disk before it takes the old one's place, so that a crash
/// leaves the old one or the new one.
///
/// # Errors
/// The system refuses it; then the old one stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    replace_by(path, bytes, |new| new.sync_all())
}

/// Replaces a file whole that everyone may read; a reader sees the old one or the new one. Its directory must be there,
/// and a crash of the machine may lose it.
///
/// # Errors
/// The system refuses it; then the old one stays.
pub fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(path, bytes, |new| new.set_permissions(Permissions::from_mode(MODE_PUBLIC)))
}

fn replace_by(path: &Path, bytes: &[u8], finish: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = Path::new(&new);
    // A process with our number left a file of this name when it crashed.
    let _ = fs::remove_file(new);
    let opened = OpenOptions::new().write(true).create_new(true).mode(MODE).open(new);
    let written = opened.and_then(|mut file| {
        file.write_all(bytes)?;
        finish(&file)?;
        fs::rename(new, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_appended_to_and_its_mode_corrected() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        fs::write(&path, "a").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
        open(&path).and_then(|mut file| file.write_all(b"b")).expect("there is room");
        assert_eq!(fs::read(&path).expect("it is there"), b"ab");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, MODE);
    }

    #[test]
    fn link_and_fifo_are_refused_without_waiting() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [target, link, fifo] = ["target", "link", "fifo"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        assert!(open(&link).is_err() && open(&fifo).is_err());
        assert!(read(&link, 9).is_err() && read(&fifo, 9).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn replace_leaves_one_file_for_its_owner() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("new").join("file");
        for text in [&b"one"[..], b"two"] {
            replace(&path, text).expect("there is room");
            assert_eq!(read(&path, 3).expect("it is there"), text);
        }
        assert!(read(&path, 2).is_err(), "it is longer");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(directory.path().join("new")).expect("a directory").count(), 1);
        assert!(replace(&path.join("below"), b"x").is_err());
    }

    #[test]
    fn published_file_is_readable_and_leaves_no_other() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file.prom");
        for text in [&b"one"[..], b"two"] {
            publish(&path, text).expect("there is room");
            assert_eq!(fs::read(&path).expect("it is there"), text);
        }
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, MODE_PUBLIC);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        assert!(publish(&directory.path().join("none").join("file"), b"x").is_err(), "it makes no directory");
    }
}
