//! The modes that a program sets, besides those that decide where it prints.

/// A set of modes that are on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modes(u32);

/// A mode that `ESC [ ? number h` or `l` sets, the bit that keeps it, and whether it is on after a reset.
pub(super) const PRIVATE: [(u16, u32, bool); 12] = [
    (1, 1, false),
    (5, 1 << 1, false),
    (7, WRAP, true),
    (12, 1 << 3, false),
    (25, VISIBLE, true),
    (45, 1 << 5, false),
    (66, KEYPAD, false),
    (1004, 1 << 7, false),
    (1007, 1 << 8, false),
    (1034, 1 << 9, false),
    (2004, 1 << 10, false),
    (2027, 1 << 11, false),
];

pub(super) const WRAP: u32 = 1 << 2;
pub(super) const VISIBLE: u32 = 1 << 4;
pub(super) const KEYPAD: u32 = 1 << 6;
pub(super) const CURSOR_KEYS: u32 = 1;
/// `ESC [ 4 h`: characters push others to the right.
pub(super) const INSERT: u32 = 1 << 12;
/// `ESC [ 20 h`: a line feed returns, too.
pub(super) const NEW_LINE: u32 = 1 << 13;
/// `ESC [ ? 6 h`: rows count from the top of the scroll region.
pub(super) const ORIGIN: u32 = 1 << 14;

impl Default for Modes {
    fn default() -> Self {
        Self(PRIVATE.iter().filter(|(.., on)| *on).map(|(_, bit, _)| bit).sum())
    }
}

impl Modes {
    pub(super) const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    pub(super) fn set(&mut self, bits: u32, on: bool) {
        if on {
            self.0 |= bits;
        } else {
            self.0 &= !bits;
        }
    }
}

/// What a terminal reports of the mouse, and how: the number of the mode, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mouse {
    pub(super) events: u16,
    pub(super) encoding: u16,
}

impl Mouse {
    /// Sets or resets a mode of it; false for another one.
    pub(super) fn set(&mut self, number: u16, on: bool) -> bool {
        let of = match number {
            9 | 1000..=1003 => &mut self.events,
            1005 | 1006 | 1015 | 1016 => &mut self.encoding,
            _ => return false,
        };
        *of = if on { number } else { 0 };
        true
    }
}

/// How many sets of flags a program may push: as many as kitty keeps.
const PUSHED_MAX: usize = 16;

/// The flags of kitty's keyboard protocol in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keyboard {
    pub(super) pushed: Vec<u16>,
    pub(super) flags: u16,
}

impl Keyboard {
    /// `ESC [ > flags u`
    pub(super) fn push(&mut self, flags: u16) {
        if self.pushed.len() >= PUSHED_MAX {
            self.pushed.remove(0);
        }
        self.pushed.push(self.flags);
        self.flags = flags & 31;
    }

    /// `ESC [ < count u`
    pub(super) fn pop(&mut self, count: u16) {
        for _ in 0..count.min(64) {
            self.flags = self.pushed.pop().unwrap_or_default();
        }
    }

    /// `ESC [ = flags ; how u`
    pub(super) fn set(&mut self, flags: u16, how: u16) {
        let flags = flags & 31;
        self.flags = match how {
            0 | 1 => flags,
            2 => self.flags | flags,
            3 => self.flags & !flags,
            _ => self.flags,
        };
    }
}
