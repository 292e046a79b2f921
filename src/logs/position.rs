//! A place in a log file that outlives the process: which file, how to know it again, and how far it was read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How much of a file's beginning tells it from another with the same inode, in bytes: two time stamps.
pub const HEAD_BYTES_MAX: usize = 256;

/// A file, as long as it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId {
    /// Its file system.
    pub device: u64,
    /// Its number there, which another file may have later.
    pub inode: u64,
}

/// The beginning of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many bytes.
    pub bytes: u16,
    /// Their FNV-1a hash.
    pub hash: u64,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The file.
    pub file: FileId,
    /// How it began when this was written down.
    pub head: Head,
    /// Up to where it was read.
    pub offset: u64,
}

impl Head {
    /// The beginning of a file as it is now, at most `bytes_max` of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(file: &File, bytes_max: usize) -> io::Result<Self> {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let wanted = bytes.get_mut(..bytes_max.min(HEAD_BYTES_MAX)).unwrap_or_default();
        let mut length = 0;
        while length < wanted.len() {
            match file.read_at(wanted.get_mut(length..).unwrap_or_default(), length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        let hash = wanted
            .iter()
            .take(length)
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        Ok(Self { bytes: u16::try_from(length).unwrap_or(u16::MAX), hash })
    }

    /// Whether this file begins so.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_of(self, file: &File) -> io::Result<bool> {
        Ok(self.bytes == 0 || Self::of(file, self.bytes.into())? == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn head_knows_a_file_that_has_grown() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        assert!(Head::default().bytes == 0 && Head::of(&file, 9).expect("it can be read").bytes == 0);
        file.write_all(b"one\n").expect("there is room");
        let head = Head::of(&file, HEAD_BYTES_MAX).expect("it can be read");
        assert_eq!(head.bytes, 4);
        file.write_all(&[b'x'; 1000]).expect("there is room");
        assert!(head.is_of(&file).expect("it can be read"));
        assert_eq!(usize::from(Head::of(&file, HEAD_BYTES_MAX).expect("it can be read").bytes), HEAD_BYTES_MAX);
        file.set_len(0).expect("truncated");
        assert!(!head.is_of(&file).expect("it can be read"));
        let mut other = tempfile::tempfile().expect("a temporary file");
        other.write_all(b"two\nand more").expect("there is room");
        assert!(Head::default().is_of(&other).expect("nothing is known of it"));
        assert!(!head.is_of(&other).expect("it can be read"));
    }
}
