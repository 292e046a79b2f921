//! Arbitrary bytes of a terminal, cut arbitrarily, become frames: nothing is lost, split or kept beyond its bound.
//!
//! It does not start a shell: it plays the terminal that prints and the loop that sends, with the very parts that stand
//! between them. What must hold:
//! - the frames put together are what was printed, but for what was reported as gone, and only while no console waits
//!   for it;
//! - no frame ends within a character that was printed whole, unless the wait for its rest was declared over, or the
//!   frame may not be as long as one character;
//! - what can be sent and is not known of is announced, and whatever is printed can be sent in the end;
//! - a snapshot with the live output behind it leaves a model in the state that the whole output leaves it in, where
//!   the snapshot says that it is exact;
//! - nothing in a snapshot is what a terminal answers or acts on;
//! - the scrollback holds no more than its bound, and no more than the least where the budget is used up.
//!
//! How an input is read: a byte whose bit 0 says that the budget is used up (the scrollback is tiny then and forgets
//! soon), then for each step one byte, the lower three bits of which say what, the others how much: print the bytes
//! that follow (a second byte is their number), print the last ones again and again, send, with or without a question
//! before what there is, declare the wait over, leave or come back, shrink, make a snapshot or keep the screen, or
//! print one of the sequences (`SEQUENCES`) that matter.

use crate::vt;
use draupnir::terminal::screen::{SNAPSHOT_BYTES_MAX, Screen, Size};
use draupnir::terminal::stream::Stream;
use draupnir_fsm::delivery::budget::{BUDGET_BYTES, Budget, Use};
use draupnir_fsm::driver::RING_BYTES_MAX;
use draupnir_fsm::id::SessionKey;
use std::rc::Rc;

/// The longest character, in bytes.
const CHARACTER_BYTES_MAX: usize = 4;

/// How much is printed at most: some scrollbacks full.
const PRINTED_BYTES_MAX: usize = 600 << 10;

/// How many frames the bytes that were ever printed make: single bytes of a full scrollback would take seconds.
const FRAMES_MAX: usize = 4_096;

/// How often a snapshot is looked at: each reads everything that was ever printed.
const SNAPSHOTS_MAX: u32 = 4;

/// The size of the terminal.
const SIZE: Size = Size { cols: 20, rows: 5 };

/// Sequences that bear on a snapshot, whole and in parts.
const SEQUENCES: [&[u8]; 32] = [
    b"\x1b[?1049h",
    b"\x1b[?1049l",
    b"\x1b[?25l",
    b"\x1b[?1;1000;2004h",
    b"\x1b[?47h",
    b"\x1b=",
    b"\x1bc",
    b"\x1b[!p",
    b"\x1b]0;title\x07",
    b"\x1b]0;",
    b"\x1bP",
    b"\x1b\\",
    b"\x1b[?2",
    b"\x1b(",
    b"\xe2\x82\xac\xf0\x9f\xa6\x80",
    b"\r\n",
    b"\x1b[c",
    b"\x1b[?6n",
    b"\x1b]11;?\x07",
    b"\x1b]52;c;aGk=\x1b\\",
    b"\x1bP$qm\x1b\\",
    b"\xc2\x9b>q",
    b"\xc2\x9d9;done\xc2\x9c",
    b"\x05\x07",
    b"\x1b[22t\x1bZ",
    b"\x1b[?1004;2026$",
    b"\x1b[",
    b"\x1b]1",
    b"\xc2",
    b"\x9b",
    b"1;?",
    b"p",
];

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let Some((flags, mut rest)) = input.split_first() else { return };
    let mut play = Play::new(flags & 1 != 0);
    while let Some((step, more)) = rest.split_first() {
        rest = play.step(step & 7, usize::from(step >> 3), more);
        play.check();
    }
    play.finish();
}

/// The terminal and the loop.
struct Play {
    stream: Stream,
    budget: Rc<Budget>,
    /// Everything that was ever printed.
    printed: Vec<u8>,
    /// What is printed again and again.
    last: Vec<u8>,
    /// Up to where the loop knows of it.
    heard: u64,
    /// Up to where it was sent.
    sent: u64,
    /// Where frames ended that had to end between characters.
    cuts: Vec<u64>,
    /// Up to where the wait for the rest of a character was declared over.
    released: u64,
    /// A console is attached, so that nothing unsent may be forgotten.
    attached: bool,
    starved: bool,
    snapshots: u32,
    frame: Vec<u8>,
}

impl Play {
    fn new(starved: bool) -> Self {
        let budget = Rc::new(Budget::new());
        if starved {
            let left = BUDGET_BYTES - budget.granted();
            assert!(budget.grant(Use::Captured, left));
        }
        let mut stream = Stream::new(SessionKey(1), budget.clone(), SIZE);
        stream.grant(usize::MAX, Some(0));
        Self {
            stream,
            budget,
            printed: Vec::new(),
            last: Vec::new(),
            heard: 0,
            sent: 0,
            cuts: Vec::new(),
            released: 0,
            attached: true,
            starved,
            snapshots: 0,
            frame: Vec::new(),
        }
    }

    /// One step; the result is what is left of the input.
    fn step<'a>(&mut self, what: u8, how: usize, rest: &'a [u8]) -> &'a [u8] {
        match what {
            0 | 1 => {
                let Some((length, rest)) = rest.split_first() else { return rest };
                let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                self.print(bytes);
                self.last = bytes.to_vec();
                return rest;
            }
            2 => {
                let again = self.last.repeat(1 << (how & 15).min(12));
                self.print(&again);
            }
            3 => {
                if how & 1 == 0 {
                    self.hear();
                }
                self.send(1 << (how >> 1));
            }
            4 if how & 1 == 0 => self.release(),
            // Only what no console looks at makes room for others.
            4 if self.attached => {}
            4 => self.stream.shrink(how << 8),
            5 => {
                self.attached = how & 1 == 0;
                self.sent = self.sent.max(self.held_from());
                self.allow();
            }
            6 if how & 1 == 0 => self.stream.keep_screen(),
            6 => self.snapshot(),
            _ => {
                self.print(SEQUENCES[how & 31]);
                self.last = SEQUENCES[how & 31].to_vec();
            }
        }
        rest
    }

    /// The program prints, and the terminal is read as far as it may be; what may not be read waits in it, here for
    /// ever.
    fn print(&mut self, bytes: &[u8]) {
        let may = PRINTED_BYTES_MAX.saturating_sub(self.printed.len());
        let bytes = &bytes[..self.stream.room(bytes.len().min(may)).min(bytes.len())];
        self.stream.print(bytes);
        self.printed.extend_from_slice(bytes);
    }

    /// The loop asks what there is, as it does after a report of news.
    fn hear(&mut self) {
        let held = self.stream.held();
        assert_eq!(held, self.held_from()..self.printed.len() as u64);
        assert!(!self.stream.has_news(), "news that were just reported");
        self.heard = held.end;
    }

    /// The loop sends what it knows of, in frames of up to `max` bytes, until there is nothing whole left.
    fn send(&mut self, max: usize) {
        let max = max.max(self.printed.len() / FRAMES_MAX);
        while self.sent < self.heard {
            let asked = place(self.heard - self.sent).min(max);
            let from = self.stream.chunk(self.sent, asked, &mut self.frame);
            let gone = !self.attached && from == self.held_from();
            assert!(from == self.sent || gone, "{from} instead of {}", self.sent);
            if self.frame.is_empty() {
                break;
            }
            assert!(self.frame.len() <= asked);
            let to = from + self.frame.len() as u64;
            assert_eq!(self.frame, self.printed[place(from)..place(to)], "other bytes than were printed");
            self.sent = to;
            // A frame that is shorter than a character has no choice.
            if max >= CHARACTER_BYTES_MAX && self.released < to {
                self.cuts.push(to);
            }
        }
        let left = self.printed.len() as u64 - self.sent.min(self.printed.len() as u64);
        let announced = self.stream.has_news() || self.stream.waits_for_rest();
        assert!(left == 0 || announced, "{left} bytes are left, and no report says so");
        assert!(announced || self.heard <= self.sent, "nothing whole, and nothing to wait for");
        self.allow();
    }

    fn allow(&mut self) {
        self.stream.grant(usize::MAX, self.attached.then_some(self.sent));
    }

    fn release(&mut self) {
        self.released = self.printed.len() as u64;
        self.stream.release();
        assert!(!self.stream.waits_for_rest());
    }

    /// A console re-attaches: what it is shown must leave its terminal as if it had seen the beginning, and make it
    /// answer nothing but what is asked live.
    fn snapshot(&mut self) {
        self.snapshots += 1;
        if self.snapshots > SNAPSHOTS_MAX {
            return;
        }
        let (held_from, end) = (self.held_from(), self.printed.len() as u64);
        let sent = self.sent.clamp(held_from, end);
        let (made, bytes) = self.stream.snapshot(sent, None);
        assert!((sent..=end).contains(&made.at) && made.bytes == bytes.len());
        assert!(bytes.len() <= SNAPSHOT_BYTES_MAX);
        let acts = vt::acts(&bytes).into_iter().find(|at| !bytes[*at..].starts_with(b"\x1b[?1004h"));
        assert_eq!(acts, None, "a snapshot acts: {}", bytes.escape_ascii());
        let (mut whole, mut seen) = (Screen::new(SIZE), Screen::new(SIZE));
        whole.feed(&self.printed);
        seen.feed(&bytes);
        seen.feed(&self.printed[place(made.at)..]);
        // What was saved, and the rest of a title that is too long, may be gone with the output before.
        let restores = |part: &[u8]| part.starts_with(b"\x1b8") || part.ends_with(b"u") || part.ends_with(b"l");
        if made.exact && (held_from == 0 || !self.printed.windows(2).any(restores)) {
            let may_differ = ["saved cursor", "saved cursor of the alternate screen", "history", "pen"];
            let difference = seen.difference(&whole).filter(|what| held_from == 0 || !may_differ.contains(what));
            let difference = difference.filter(|what| *what != "titles");
            assert_eq!(difference, None, "{}", bytes.escape_ascii());
        }
    }

    fn check(&mut self) {
        let from = self.held_from();
        let bytes = self.printed.len() - place(from);
        // What no console has acknowledged may take more than the usual.
        let bound = if self.starved { 1 << 10 } else { RING_BYTES_MAX };
        assert!(bytes <= bound, "{bytes} bytes are held");
        let granted = self.budget.scrollback_granted(SessionKey(1));
        assert!(bytes <= granted.max(1 << 10), "{bytes} bytes are held, {granted} granted");
        assert!(!self.attached || from <= self.sent, "what was not sent is forgotten");
    }

    /// The offset of the oldest byte that is held.
    fn held_from(&mut self) -> u64 {
        self.stream.chunk(0, 0, &mut Vec::new())
    }

    /// Nothing follows: whatever was held back goes, and no frame ended where it should not have.
    fn finish(&mut self) {
        self.snapshot();
        self.stream.end();
        self.released = self.printed.len() as u64;
        self.hear();
        self.send(RING_BYTES_MAX);
        assert_eq!(self.sent, self.printed.len() as u64, "not everything went");
        for cut in std::mem::take(&mut self.cuts) {
            assert!(!self.splits_character(cut), "a frame ended within a character, at {cut}");
        }
    }

    /// Does this offset lie within a character that was printed whole?
    fn splits_character(&self, offset: u64) -> bool {
        let offset = place(offset);
        (1..=3).any(|back| {
            let begins = offset.checked_sub(back);
            let character = |begins: usize| {
                (back + 1..=4).any(|length| {
                    let bytes = self.printed.get(begins..begins + length);
                    bytes
                        .and_then(|bytes| std::str::from_utf8(bytes).ok())
                        .is_some_and(|text| text.chars().count() == 1)
                })
            };
            begins.is_some_and(character)
        })
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("less than was printed")
}
