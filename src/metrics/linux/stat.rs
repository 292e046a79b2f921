//! The time that each processor spent on what.
//!
//! Source: `/proc/stat`, proc_stat(5); only its `cpu` lines. Keeps nothing between readings and compares nothing.
//!
//! Units: the kernel's ticks, of which only ratios matter here.

use super::super::scan::{lines, number, words};

/// The time of one processor, or of all together, since some point in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    /// All time there was.
    pub(crate) total: u64,
    /// Time in which it worked for us.
    pub(crate) busy: u64,
    /// Time that the hypervisor gave to others.
    pub(crate) stolen: u64,
}

impl Ticks {
    /// What passed since `earlier`. A counter that went back (iowait does) adds nothing.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            busy: self.busy.saturating_sub(earlier.busy),
            stolen: self.stolen.saturating_sub(earlier.stolen),
        }
    }
}

/// Reads the `cpu` lines: all processors together come back, and each one is put into `cores` with its number.
pub(crate) fn processors(text: &[u8], cores: &mut Vec<(usize, Ticks)>) -> Option<Ticks> {
    cores.clear();
    let mut all = None;
    // They are the first lines; behind them the file can be long (one number for each interrupt).
    for line in lines(text) {
        let Some(rest) = line.strip_prefix(b"cpu") else { break };
        let mut fields = words(rest);
        if rest.first().is_some_and(u8::is_ascii_whitespace) {
            all = ticks(fields);
        } else if let Some(index) = fields.next().and_then(number).and_then(|index| usize::try_from(index).ok())
            && let Some(ticks) = ticks(fields)
        {
            cores.push((index, ticks));
        }
    }
    all
}

/// user, nice, system, idle, iowait, irq, softirq, steal; what follows (guest) is contained in user and nice already.
fn ticks<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<Ticks> {
    let mut ticks = Ticks::default();
    let mut read = 0;
    for (index, field) in fields.take(8).enumerate() {
        let value = number(field)?;
        ticks.total = ticks.total.saturating_add(value);
        match index {
            3 | 4 => {}
            7 => ticks.stolen = value,
            _ => ticks.busy = ticks.busy.saturating_add(value),
        }
        read += 1;
    }
    // Even the oldest kernels give the first four.
    (read >= 4).then_some(ticks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn work_idleness_and_theft_are_told_apart() {
        let text = b"cpu  10 1 5 100 20 2 3 7 4 0\ncpu0 10 1 5 100 20 2 3 7 4 0\ncpu3 1 1 1 1\nintr 5 cpu\n";
        let mut cores = Vec::new();
        let all = processors(text, &mut cores).expect("the first line is whole");
        assert_eq!(all, Ticks { total: 148, busy: 21, stolen: 7 });
        assert_eq!(cores, [(0, all), (3, Ticks { total: 4, busy: 3, stolen: 0 })]);
    }

    #[test]
    fn a_damaged_line_is_left_out() {
        let mut cores = Vec::new();
        assert_eq!(processors(b"cpu  1 2 x 4\ncpu0 1 2\ncpux 1 2 3 4\ncpu1 1 2 3 4\n", &mut cores), None);
        assert_eq!(cores.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in "(cpu[0-9 ]{0,3}([ 0-9x]{0,30})\n){0,5}.{0,50}") {
            let mut cores = Vec::new();
            if let Some(all) = processors(text.as_bytes(), &mut cores) {
                prop_assert!(all.busy <= all.total && all.stolen <= all.total);
            }
        }
    }
}
