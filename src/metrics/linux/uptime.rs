//! How long the instance has been up.
//!
//! Sources: `/proc/uptime`, proc_uptime(5), and the start of process 1 in `/proc/1/stat`, proc_pid_stat(5): in a container
//! that is its first process, on a machine it is started with the machine.
//!
//! Units: seconds; the start is in ticks of 10 ms since boot (USER_HZ, which is 100 on every architecture we build for).

use super::super::roots::Roots;
use super::super::scan::{fraction, number, words};
use super::kept::{Kept, Scratch};

const TICKS_PER_SECOND: u64 = 100;

/// The reader. The start never changes and is read once.
#[derive(Debug)]
pub(crate) struct UptimeReader {
    uptime: Kept,
    init: Kept,
    start_ticks: Option<u64>,
}

impl UptimeReader {
    /// Reads below these roots.
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            uptime: Kept::new(roots.proc.join("uptime")),
            init: Kept::new(roots.proc.join("1/stat")),
            start_ticks: None,
        }
    }

    /// Whole seconds.
    pub(crate) fn read(&mut self, scratch: &mut Scratch) -> Option<u64> {
        if self.start_ticks.is_none() {
            // Where process 1 is hidden from us, the machine's uptime is the best that is known.
            self.start_ticks = Some(self.init.read(scratch).and_then(start_ticks).unwrap_or(0));
        }
        let machine = self.uptime.read(scratch).and_then(|text| fraction(words(text).next()?))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // fractions of seconds are dropped, and it is not negative
        let machine = machine as u64;
        let start = self.start_ticks.unwrap_or(0) / TICKS_PER_SECOND;
        // lxcfs serves the container's own uptime beside a start that is counted from the host's boot.
        Some(machine.checked_sub(start).unwrap_or(machine))
    }
}

/// The 22nd field; the second one is a name in parentheses and may hold anything.
fn start_ticks(text: &[u8]) -> Option<u64> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    number(words(text.get(end + 1..)?).nth(19)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = b"1 (a) b) (c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 73343 3133440 410\n";
        assert_eq!(start_ticks(text), Some(73343));
        assert_eq!(start_ticks(b"1 (init) S 0"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = start_ticks(&text);
        }
    }
}
