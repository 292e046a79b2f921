//! Keeps a kernel file open and reads it at each sample.
//!
//! A file that cannot be read has no content this time, and the next reading tries again. So a control group that was
//! removed, or a file system that is mounted later, costs only its own figures.
//!
//! Invariants: it reads at most [`FILE_BYTES_MAX`] of a file; it allocates nothing once the scratch buffer is as large
//! as the largest file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// The most that is read of one file: the mount table of a busy container host has about 500 KiB.
pub(crate) const FILE_BYTES_MAX: usize = 2 << 20;

/// The buffer grows by this much. Most files fit into one step.
const STEP_BYTES: usize = 4 << 10;

/// The buffer that all readers share, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
}

/// One file, kept open between readings.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    file: Option<File>,
}

impl Kept {
    /// The file at `path`. It may be missing; the first reading opens it.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// The open file, for polling; `None` if it could not be opened.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// The content of the file now; `None` if it cannot be read.
    pub(crate) fn read<'a>(&mut self, scratch: &'a mut Scratch) -> Option<&'a [u8]> {
        if let Some(file) = &self.file
            && let Some(length) = fill(file, scratch)
        {
            return scratch.bytes.get(..length);
        }
        // It was not open yet, or its control group was removed. The old descriptor then gives ENODEV for ever, while a
        // new group of the same name may exist.
        self.file = File::open(&self.path).ok();
        let length = fill(self.file.as_ref()?, scratch);
        if length.is_none() {
            self.file = None;
        }
        scratch.bytes.get(..length?)
    }
}

/// Reads a file from its beginning and returns the length, or `None` after an error. Of a file that is too long it
/// keeps whole lines.
fn fill(file: &File, scratch: &mut Scratch) -> Option<usize> {
    let bytes = &mut scratch.bytes;
    let mut length = 0;
    loop {
        if length == bytes.len() {
            if length >= FILE_BYTES_MAX {
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                return Some(whole);
            }
            bytes.resize(length + STEP_BYTES.max(length), 0);
        }
        match file.read_at(bytes.get_mut(length..)?, length as u64) {
            Ok(0) => return Some(length),
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("draupnir-kept-{}-{name}", std::process::id()))
    }

    #[test]
    fn reading_gives_the_current_content() {
        let path = place("now");
        let (mut kept, mut scratch) = (Kept::new(path.clone()), Scratch::default());
        assert_eq!(kept.read(&mut scratch), None);
        fs::write(&path, "first").expect("the file is ours");
        assert_eq!(kept.read(&mut scratch), Some(&b"first"[..]));
        fs::write(&path, "2").expect("the file is ours");
        assert_eq!(kept.read(&mut scratch), Some(&b"2"[..]));
        fs::remove_file(&path).expect("the file is ours");
    }

    #[test]
    fn a_file_without_end_is_cut_at_a_line() {
        let path = place("long");
        fs::write(&path, "0123456789abcde\n".repeat(FILE_BYTES_MAX / 16 + 10) + "tail").expect("the file is ours");
        let (mut kept, mut scratch) = (Kept::new(path.clone()), Scratch::default());
        let text = kept.read(&mut scratch).expect("the file is there");
        assert!(text.len() <= FILE_BYTES_MAX && text.ends_with(b"\n"));
        fs::remove_file(&path).expect("the file is ours");
    }

    #[test]
    fn a_directory_is_not_a_file() {
        assert_eq!(Kept::new("/proc".into()).read(&mut Scratch::default()), None);
    }
}
