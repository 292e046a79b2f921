//! Any bytes in the place of the state that one program gives the next in a hand-over.
//!
//! The input is a byte that chooses how the rest is read: as a whole state, or as the head of one that is cut into its
//! blobs. The target checks that
//!
//! - reading never panics, and holds at once no more than `BYTES_PER_BYTE` times the state and `SMALL_BYTES`;
//! - a state that is read is written, and read again as the same.

use crate::heap;
use draupnir::hand_over::state::{State, preface};

/// How much reading may hold at once for each byte of the state: a command without a process is short as JSON, and a
/// list that grows is there twice.
const BYTES_PER_BYTE: usize = 48;

/// What it may hold besides, in bytes.
const SMALL_BYTES: usize = 16 << 10;

/// Inputs that begin with this byte or a higher one are whole states.
const WHOLE: u8 = 0x80;

/// Checks one input.
pub fn run(input: &[u8]) {
    match input {
        [choice, state @ ..] if *choice >= WHOLE => check(state),
        [blobs, rest @ ..] => {
            let blobs = usize::from(*blobs);
            // The head ends with its last brace.
            let end = rest.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
            let (head, tail) = rest.split_at(end);
            let mut lengths = vec![tail.len() / blobs.max(1); blobs];
            if let Some(last) = lengths.last_mut() {
                *last += tail.len() % blobs;
            }
            let preface = preface(head.len(), &lengths).expect("an input is short");
            check(&[&preface, rest].concat());
        }
        [] => {}
    }
}

fn check(bytes: &[u8]) {
    let (read, taken) = heap::taken_by(|| State::decode(bytes));
    let bytes_max = BYTES_PER_BYTE * bytes.len() + SMALL_BYTES;
    assert!(taken.at_once <= bytes_max, "{} bytes at once for a state of {}", taken.at_once, bytes.len());
    let Ok(mut state) = read else { return };
    let mut written = Vec::new();
    let write = |part: &[u8]| {
        written.extend_from_slice(part);
        Ok(())
    };
    state.encode(write).expect("it was read");
    assert!(State::decode(&written).is_ok_and(|again| again == state), "it is written as it was read");
}
