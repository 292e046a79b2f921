//! Arbitrary bytes of a terminal, cut arbitrarily, become frames: nothing is lost, split or kept beyond its bound.
//!
//! It does not start a shell: it plays the terminal that prints and the loop that sends, with the very parts that stand
//! between them. What must hold:
//! - the frames put together are what was printed, but for what was reported as gone, and only while no console waits
//!   for it;
//! - no frame ends within a character that was printed whole, unless the wait for its rest was declared over, or the
//!   frame may not be as long as one character;
//! - what can be sent and is not known of is announced, and whatever is printed can be sent in the end;
//! - a replay starts outside every sequence and character, or has nothing to show, and leaves a terminal (`vt`) in the
//!   modes in which the whole output would have left it;
//! - nothing in a replay is what a terminal answers or acts on, nor does what goes on live complete such a thing; a
//!   replay waits only behind the beginning of a sequence that is not there as a whole;
//! - the scrollback holds no more than its bound, and no more than the least where the budget is used up.
//!
//! How an input is read: a byte whose bit 0 says that the budget is used up (the scrollback is tiny then and forgets
//! soon), then for each step one byte, the lower three bits of which say what, the others how much: print the bytes
//! that follow (a second byte is their number), print the last ones again and again, send, with or without a question
//! before what there is, declare the wait over, leave or come back, shrink, replay, or print one of the sequences
//! (`SEQUENCES`) that matter.

use crate::vt::{self, Vt};
use draupnir::terminal::Replay;
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

/// How many chunks a replay is cut into at most: each reads on in the string that it is cut in, by up to 4 KiB.
const REPLAY_CHUNKS_MAX: usize = 512;

/// How often a replay is looked at: each reads everything that was ever printed.
const REPLAYS_MAX: u32 = 4;

/// Sequences that bear on a replay, whole and in parts.
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
    replays: u32,
    frame: Vec<u8>,
}

impl Play {
    fn new(starved: bool) -> Self {
        let budget = Rc::new(Budget::new());
        if starved {
            let left = BUDGET_BYTES - budget.granted();
            assert!(budget.grant(Use::Captured, left));
        }
        let mut stream = Stream::new(SessionKey(1), budget.clone());
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
            replays: 0,
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
            6 => self.replay(how),
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
    fn replay(&mut self, how: usize) {
        self.replays += 1;
        if self.replays > REPLAYS_MAX {
            return;
        }
        let replay = self.stream.replay();
        let (held_from, end) = (self.held_from(), self.printed.len() as u64);
        assert!((held_from..=end).contains(&replay.from));
        if replay.from < end {
            assert!(!self.splits_character(replay.from), "a replay starts within a character");
            let before = &self.printed[..place(replay.from)];
            assert!(Vt::default().read(before), "a replay starts within a sequence");
            assert!(Vt::default().read(&replay.prelude), "the prelude ends within a sequence");
        }
        self.check_nothing_to_show(replay.from);
        let until = self.sent.clamp(held_from, end);
        let Some(mut shown) = self.repeat(replay, until, 1 << (how & 15)) else { return };
        assert!(vt::acts(&shown).is_empty(), "a replay acts: {}", shown.escape_ascii());
        let repeated = shown.len();
        // What was not sent comes live.
        self.attached = true;
        self.sent = until;
        self.hear();
        self.send(RING_BYTES_MAX);
        shown.extend_from_slice(&self.printed[place(until)..place(self.sent)]);
        let early = vt::acts(&shown).into_iter().find(|at| *at < repeated);
        assert_eq!(early, None, "live output makes a replay act: {}", shown.escape_ascii());
        let (mut whole, mut seen) = (Vt::default(), Vt::default());
        whole.read(&self.printed[..place(self.sent)]);
        seen.read(&shown);
        // Where it begins within a sequence, that is gone, and with it what it sets.
        if repeated > 0 || Vt::default().read(&self.printed[..place(until)]) {
            assert_eq!(seen.clone().unfocused(), whole.clone().unfocused(), "the modes behind what was shown");
        }
        let epilogue = self.stream.epilogue();
        let mut after = Vt::default();
        after.read(&epilogue);
        assert!(!epilogue.is_empty());
        assert_eq!(after, whole, "the modes that the epilogue sets");
    }

    /// The bytes of a replay up to what was sent, in parts of `max` output bytes; `None` where it waits.
    fn repeat(&mut self, replay: Replay, until: u64, max: usize) -> Option<Vec<u8>> {
        let Replay { prelude: mut shown, from } = replay;
        let max = max.max(self.printed.len() / REPLAY_CHUNKS_MAX);
        let mut at = from.min(until);
        while at < until {
            let asked = place(until - at).min(max);
            let settled = self.stream.replay_chunk(at, asked, &mut self.frame);
            assert!(settled <= asked);
            if settled == 0 {
                let is_open = !Vt::default().read(&self.printed) || self.printed.ends_with(b"\xc2");
                assert!(is_open, "it waits: {}", self.printed[place(at)..].escape_ascii());
                return None;
            }
            shown.extend_from_slice(&self.frame);
            at += settled as u64;
        }
        Some(shown)
    }

    /// A replay that shows nothing had no line to begin with.
    fn check_nothing_to_show(&mut self, from: u64) {
        let first = place(self.held_from());
        let held = &self.printed[first..];
        if place(from) < self.printed.len() || held.len() < 2 {
            return;
        }
        let lines = held[..held.len() - 1].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        for (line, _) in lines.take(4) {
            let before = &self.printed[..=first + line];
            assert!(!Vt::default().read(before), "a replay of nothing, with a line to begin with");
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
        self.replay(15);
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
