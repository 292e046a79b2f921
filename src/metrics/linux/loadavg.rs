//! The load averages, and how many tasks there are.
//!
//! Source: `/proc/loadavg`, proc_loadavg(5). The load is the machine's unless something like lxcfs puts the container's there.

use super::super::scan::{fraction, number, words};
use crate::protocol::metrics::Ratio;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Over one, five and fifteen minutes.
    pub(crate) averages: [Ratio; 3],
    /// Processes and threads, running or not.
    pub(crate) tasks: Option<u64>,
}

/// `0.20 0.18 0.12 1/80 11206`
pub(crate) fn loadavg(text: &[u8]) -> Option<Load> {
    let mut fields = words(text);
    let mut average = || fields.next().and_then(fraction).map(Ratio::new);
    let averages = [average()?, average()?, average()?];
    let tasks = fields.next().and_then(|word| number(word.splitn(2, |byte| *byte == b'/').nth(1)?));
    Some(Load { averages, tasks })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_manual_s_example_is_read() {
        let load = loadavg(b"0.20 0.18 0.12 1/80 11206\n").expect("the line is whole");
        assert_eq!(load.averages.map(Ratio::value), [0.2, 0.18, 0.12]);
        assert_eq!(load.tasks, Some(80));
        assert_eq!(loadavg(b"1.00 2.00 3.00\n").map(|load| load.tasks), Some(None));
        assert_eq!(loadavg(b"1.00 2.00\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = loadavg(&text);
        }
    }
}
