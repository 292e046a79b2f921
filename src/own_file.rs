//! Opens a file that the agent writes for its owner alone: the audit, the recording.
//!
//! It does not trust what stands there. Where others may write to the directory, one of them may have put a symbolic link
//! there, so that root writes into a file of his choice; a FIFO, so that opening it waits for ever; or a file of his own,
//! to read and change what is written. It makes no directory.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Readable and writable by the owner, and by nobody else.
const MODE: u32 = 0o600;

/// Opens a file to append to, or makes it. Devices, such as `/dev/full`, are as good.
///
/// # Errors
/// The system refuses it; it is a symbolic link, or a FIFO that nobody reads; or it belongs to another user.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn it_is_appended_to_and_its_mode_corrected() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "a").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
        open(&path).and_then(|mut file| file.write_all(b"b")).expect("there is room");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"ab");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, MODE);
    }

    #[test]
    fn a_link_and_a_fifo_are_refused_and_nobody_waits() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [target, link, fifo] = ["target", "link", "fifo"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        assert!(open(&link).is_err() && open(&fifo).is_err());
        assert!(!target.exists());
    }
}
