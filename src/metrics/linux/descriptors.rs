//! How many descriptors are open, against how many may be.
//!
//! Sources: the size of `/proc/self/fd` (since Linux 6.2 it is the number of descriptors; before, the directory is listed) and
//! `/proc/self/limits`, proc_pid_limits(5), for the agent; `/proc/sys/fs/file-nr`, proc_sys_fs(5), for the machine.

use std::path::PathBuf;

use super::super::roots::Roots;
use super::super::scan::{line_of, number, words};
use super::kept::{Kept, Scratch};
use super::tasks::numbers_in;

/// Above this a limit is no limit: the kernel's default is the largest signed number.
const LIMIT_MAX: u64 = 1 << 53;

/// What it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptors {
    pub(crate) open: Option<u64>,
    pub(crate) limit: Option<u64>,
}

/// The reader.
#[derive(Debug)]
pub(crate) struct DescriptorReader {
    own: PathBuf,
    limits: Kept,
    machine: Kept,
    /// Nobody but a debugger changes it under us: read once.
    limit: Option<Option<u64>>,
}

impl DescriptorReader {
    /// Reads below these roots.
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            own: roots.proc.join("self/fd"),
            limits: Kept::new(roots.proc.join("self/limits")),
            machine: Kept::new(roots.proc.join("sys/fs/file-nr")),
            limit: None,
        }
    }

    /// The agent's own.
    pub(crate) fn read(&mut self, scratch: &mut Scratch) -> Descriptors {
        let limits = &mut self.limits;
        let limit = *self.limit.get_or_insert_with(|| limits.read(scratch).and_then(soft_limit));
        // A real file system gives its directories a size in blocks, and procfs before 6.2 gives none.
        let size = rustix::fs::stat(&self.own).ok().and_then(|found| u64::try_from(found.st_size).ok());
        let counted = size.filter(|size| (1..PLAUSIBLE_MAX).contains(size) && self.is_procfs());
        Descriptors { open: counted.or_else(|| numbers_in(&self.own)), limit }
    }

    /// The machine's. The file's second number has been 0 for twenty years.
    pub(crate) fn machine(&mut self, scratch: &mut Scratch) -> Descriptors {
        let mut numbers = self.machine.read(scratch).into_iter().flat_map(words).map(number);
        let open = numbers.next().flatten();
        let limit = numbers.nth(1).flatten().filter(|limit| *limit < LIMIT_MAX);
        Descriptors { open, limit }
    }

    fn is_procfs(&self) -> bool {
        self.own.starts_with("/proc")
    }
}

/// No process has more: the kernel's own bound (fs.nr_open) is 2³⁰.
const PLAUSIBLE_MAX: u64 = 1 << 30;

/// `Max open files            1024                 4096                 files`
fn soft_limit(text: &[u8]) -> Option<u64> {
    words(line_of(text, b"Max open files")?).next().and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let text = b"Limit Soft Hard Units\nMax processes 5 6 processes\nMax open files            1024                 4096                 files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit(b"Max open files            unlimited            unlimited            files\n"), None);
    }

    #[test]
    fn opening_a_file_is_seen() {
        let (mut reader, mut scratch) = (DescriptorReader::new(&Roots::default()), Scratch::default());
        let open =
            |reader: &mut DescriptorReader, scratch: &mut Scratch| reader.read(scratch).open.expect("procfs is there");
        let before = open(&mut reader, &mut scratch);
        let many: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").expect("it is always there")).collect();
        assert!(
            open(&mut reader, &mut scratch) + 100 > before + many.len() as u64,
            "other tests open and close some, too"
        );
    }
}
