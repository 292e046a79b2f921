//! How often a program that panics is restarted in place: beyond that the supervisor decides, which can wait longer.

/// So many panics within a minute end the process.
pub const PANICS_MAX: u32 = 5;

/// The time within which panics are counted, in seconds.
pub(super) const PANIC_WINDOW_S: u64 = 60;

/// The panics that led to this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicHistory {
    /// How many there were within the window.
    pub panics: u32,
    /// When the first of them was, in seconds of the real-time clock.
    pub first_unix_s: u64,
}

impl PanicHistory {
    /// Whether the process before this one ended in a panic.
    pub const fn is_restart(self) -> bool {
        self.panics > 0
    }

    /// With one more panic at this time; `None` where the process must end.
    #[must_use]
    pub fn after_panic(self, unix_s: u64) -> Option<Self> {
        let is_recent = self.panics > 0 && unix_s.saturating_sub(self.first_unix_s) < PANIC_WINDOW_S;
        let counted = if is_recent { self } else { Self { panics: 0, first_unix_s: unix_s } };
        (counted.panics < PANICS_MAX).then_some(Self { panics: counted.panics + 1, ..counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixth_panic_within_a_minute_ends_the_process() {
        let mut history = PanicHistory::default();
        for panics in 1..=PANICS_MAX {
            history = history.after_panic(1_000 + u64::from(panics)).expect("not too many yet");
            assert_eq!(history.panics, panics);
        }
        assert_eq!(history.after_panic(1_010), None);
        let later = history.after_panic(1_002 + PANIC_WINDOW_S).expect("the first is long ago");
        assert_eq!(later.panics, 1);
    }
}
