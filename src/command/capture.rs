//! Keeps the output of a command for its result: the first and the last bytes, and the number of all bytes.
//!
//! `protocol` turns the bytes into text. The memory grows with the output, up to [`CAPTURE_BYTES_MAX`] for each output,
//! and counts against the budget of all buffers. When the budget is used up, the capture leaves out the middle.

use crate::protocol;
use crate::ring::{RING_BYTES_MIN, Ring};
use draupnir_fsm::driver::budget::{Budget, Use};
use std::rc::Rc;

/// The most bytes kept of one output: more than fits into a result, so that `protocol` can choose where to cut.
pub const CAPTURE_BYTES_MAX: usize = 1 << 20;

/// Each of the two ends of an output.
const END_BYTES_MAX: usize = CAPTURE_BYTES_MAX / 2;

/// What the beginning of an output may take without a grant of the budget, in bytes: most commands print less.
const HEAD_BYTES_MIN: usize = 4 << 10;

/// Memory granted to the output of a command, given back with it.
#[derive(Debug)]
pub(super) struct Grant {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Grant {
    pub(super) fn new(budget: Rc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Asks the budget for more; false if it has none left.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let granted = self.budget.grant(Use::Captured, bytes);
        if granted {
            self.bytes += bytes;
        }
        granted
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.budget.release(Use::Captured, self.bytes);
    }
}

/// One output of a command while it runs.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    head_bytes_max: usize,
    tail: Ring,
    bytes: u64,
    grant: Grant,
}

impl Capture {
    pub(super) fn new(budget: Rc<Budget>) -> Self {
        Self {
            head: Vec::new(),
            head_bytes_max: HEAD_BYTES_MIN,
            tail: Ring::new(RING_BYTES_MIN, END_BYTES_MAX),
            bytes: 0,
            grant: Grant::new(budget),
        }
    }

    /// Takes in what was printed.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Once something is not in the head it is closed.
        let is_whole = self.bytes == self.head.len() as u64;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let room = if is_whole { self.grow_head(bytes.len()) } else { 0 };
        let (head, tail) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        if !tail.is_empty() {
            self.tail.push(tail, |step| self.grant.grow(step), |_| {});
        }
    }

    /// How much was printed, and the two ends of it that are kept, for the next program.
    pub(super) fn save(&self) -> (u64, Vec<u8>, Vec<u8>) {
        let (older, newer) = self.tail.slices(0, usize::MAX);
        (self.bytes, self.head.clone(), [older, newer].concat())
    }

    /// What the program before this one captured, as far as the budget allows.
    pub(super) fn restore(budget: Rc<Budget>, bytes: u64, head: &[u8], tail: &[u8]) -> Self {
        let mut capture = Self::new(budget);
        capture.push(head);
        // What lies between the two, or was lost, counts as printed and is left out.
        capture.bytes = bytes.max(capture.bytes).saturating_sub(tail.len() as u64);
        capture.push(tail);
        capture
    }

    /// Takes out what was captured.
    pub(super) fn take(&mut self) -> Output {
        let fresh = Self::new(Rc::clone(&self.grant.budget));
        let Self { head, tail, bytes, grant, .. } = std::mem::replace(self, fresh);
        Output { head, tail, bytes, own_bytes: 0, grant }
    }

    /// Makes room in the head for `wanted` more bytes, as far as may be; the result is the room.
    fn grow_head(&mut self, wanted: usize) -> usize {
        let wanted = self.head.len().saturating_add(wanted).min(END_BYTES_MAX);
        while self.head_bytes_max < wanted {
            let step = self.head_bytes_max.min(END_BYTES_MAX - self.head_bytes_max);
            if !self.grant.grow(step) {
                break;
            }
            self.head_bytes_max += step;
        }
        let target = wanted.next_power_of_two().min(self.head_bytes_max);
        self.head.reserve_exact(target.saturating_sub(self.head.len()));
        self.head_bytes_max - self.head.len()
    }
}

/// One output of a command that is over.
#[derive(Debug)]
pub struct Output {
    head: Vec<u8>,
    tail: Ring,
    bytes: u64,
    /// Bytes of the lines that the agent appended.
    own_bytes: u64,
    grant: Grant,
}

impl Output {
    /// How much was printed, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a line from the agent, which does not count as output of the command.
    pub fn append_line(&mut self, line: &str) {
        let last = if self.tail.is_empty() { self.head.last() } else { self.tail.make_contiguous().last() };
        let separator = if last.is_none_or(|last| *last == b'\n') { "" } else { "\n" };
        let text = format!("{separator}{line}\n");
        self.own_bytes += text.len() as u64;
        if self.tail.is_empty() && self.bytes == self.head.len() as u64 {
            self.head.extend_from_slice(text.as_bytes());
        } else {
            self.tail.push(text.as_bytes(), |step| self.grant.grow(step), |_| {});
        }
    }

    /// What was kept of it.
    pub fn kept(&mut self) -> protocol::Captured<'_> {
        let all = self.bytes.saturating_add(self.own_bytes);
        let left_out = all.saturating_sub((self.head.len() + self.tail.len()) as u64);
        protocol::Captured { head: &self.head, left_out, tail: self.tail.make_contiguous() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses up the budget but for less than `left` bytes.
    fn use_up(budget: &Budget, left: usize) {
        let mut step = 16 << 20;
        while step >= left.max(1) {
            while budget.grant(Use::Input, step) {}
            step /= 2;
        }
    }

    #[test]
    fn little_is_kept_whole_and_asks_for_nothing() {
        let budget = Rc::new(Budget::new());
        let before = budget.granted();
        let mut capture = Capture::new(Rc::clone(&budget));
        capture.push(b"one ");
        capture.push(b"two");
        assert_eq!(budget.granted(), before);
        let mut output = capture.take();
        let kept = output.kept();
        assert_eq!((kept.head, kept.left_out, kept.tail), (&b"one two"[..], 0, &b""[..]));
    }

    #[test]
    fn much_is_kept_at_both_ends_within_the_bound() {
        let budget = Rc::new(Budget::new());
        let before = budget.granted();
        let mut capture = Capture::new(Rc::clone(&budget));
        let printed: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
        for part in printed.chunks(60_000) {
            capture.push(part);
            assert!(budget.granted() - before <= CAPTURE_BYTES_MAX);
        }
        let mut output = capture.take();
        assert_eq!(output.bytes(), 3_000_000);
        let kept = output.kept();
        assert!(kept.head == &printed[..END_BYTES_MAX]);
        assert!(kept.tail == &printed[printed.len() - END_BYTES_MAX..]);
        assert_eq!(kept.left_out, 3_000_000 - CAPTURE_BYTES_MAX as u64);
        drop((output, capture));
        assert_eq!(budget.granted(), before);
    }

    #[test]
    fn own_line_stands_alone_behind_the_output() {
        for (printed, expected) in [("", "line\n"), ("a\n", "a\nline\n"), ("a", "a\nline\n")] {
            let mut capture = Capture::new(Rc::new(Budget::new()));
            capture.push(printed.as_bytes());
            let mut output = capture.take();
            output.append_line("line");
            let kept = output.kept();
            assert_eq!((kept.head, kept.left_out, kept.tail), (expected.as_bytes(), 0, &b""[..]));
            assert_eq!(output.bytes(), printed.len() as u64);
        }
        let mut capture = Capture::new(Rc::new(Budget::new()));
        capture.push(&vec![b'x'; 3 * CAPTURE_BYTES_MAX]);
        let mut output = capture.take();
        output.append_line("line");
        let kept = output.kept();
        assert!(kept.tail.ends_with(b"x\nline\n"));
        assert_eq!(kept.left_out, 2 * CAPTURE_BYTES_MAX as u64 + 6);
    }

    #[test]
    fn when_the_budget_is_short_less_is_kept_and_nothing_fails() {
        let budget = Rc::new(Budget::new());
        use_up(&budget, 4 << 10);
        let mut capture = Capture::new(Rc::clone(&budget));
        for _ in 0..100 {
            capture.push(&[b'x'; 1_000]);
        }
        capture.push(b"the end");
        let mut output = capture.take();
        let kept = output.kept();
        assert_eq!(kept.head.len(), HEAD_BYTES_MIN);
        assert!(kept.tail.ends_with(b"the end"));
        assert!(kept.left_out > 0);
        assert_eq!(kept.head.len() as u64 + kept.left_out + kept.tail.len() as u64, 100_007);
    }
}
