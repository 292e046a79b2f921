//! Any file in the place of the journal: what a start finds in it, and what a compaction leaves of it.
//!
//! The input is a byte that chooses how the rest is read: as the bytes of a file, as those behind a sound head, or as
//! decisions: records, and damage to the file that they make. The target checks that
//!
//! - reading never panics, and holds at once no more than `BYTES_PER_BYTE` times the file and `SMALL_BYTES`;
//! - a compacted file says what the file said, and a second compaction changes nothing;
//! - each message that was written, and is neither over nor damaged, is found with its text.

use crate::heap;
use arbitrary::{Arbitrary as _, Unstructured};
use draupnir::journal::{Entry, Left, Process, What, format};
use draupnir::logs::position::{FileId, Head, Position};
use draupnir_fsm::driver::Kind;
use std::collections::BTreeMap;

/// How much reading and compacting may hold at once for each byte of the file: maps of records, and two copies of it.
const BYTES_PER_BYTE: usize = 48;

/// What they may hold besides, in bytes.
const SMALL_BYTES: usize = 64 << 10;

/// Ids and numbers of records are below this, so that records meet.
const NUMBERS: u8 = 8;

/// Checks one input.
pub fn run(input: &[u8]) {
    match input {
        [choice, file @ ..] if choice % 3 == 0 => check(file),
        [choice, rest @ ..] if choice % 3 == 1 => check(&[format::file(&[]), rest.to_vec()].concat()),
        [_, decisions @ ..] => {
            // An input that is too short decides nothing more.
            let _ = records(&mut Unstructured::new(decisions));
        }
        [] => {}
    }
}

fn check(file: &[u8]) {
    let (read, taken) = heap::taken_by(|| format::read(file));
    let bytes_max = BYTES_PER_BYTE * file.len() + SMALL_BYTES;
    assert!(taken.at_once <= bytes_max, "{} bytes at once for a file of {}", taken.at_once, file.len());
    let Some((found, compacted)) = read else { return };
    let (again, twice) = format::read(&compacted).expect("a compacted file has a head");
    assert_eq!(again, found, "a compacted file says the same");
    assert_eq!(twice, compacted, "a second compaction changes nothing");
}

fn records(decisions: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let damage = Option::<(u16, u8)>::arbitrary(decisions)?;
    let mut entries = Vec::new();
    // Messages by number that wait, in so far as records of other kinds do not concern them.
    let mut waiting: BTreeMap<u64, String> = BTreeMap::new();
    while !decisions.is_empty() {
        let entry = entry(decisions)?;
        match &entry.what {
            What::Message { number, kind, of, body, .. } => {
                // The result of an id takes the place of an earlier one.
                if *kind == Kind::Result && of.is_some() {
                    waiting.clear();
                }
                waiting.insert(*number, body.as_str().to_owned());
            }
            What::Done { number } => {
                waiting.remove(number);
            }
            What::Began { .. }
            | What::Accepted { .. }
            | What::Started { .. }
            | What::Ended { .. }
            | What::Withdrawn { .. }
            | What::Opened { .. }
            | What::Unopened { .. }
            | What::Position { .. }
            | What::LogPosition { .. } => {}
        }
        entries.push(entry);
    }
    let mut file = format::file(&entries);
    if let Some((place, change)) = damage {
        let place = usize::from(place) % file.len();
        file[place] ^= change;
        check(&file);
        file.truncate(place);
        check(&file);
        return Ok(());
    }
    check(&file);
    let (found, _) = format::read(&file).expect("a sound file");
    for (number, text) in &waiting {
        let is_it = |left: &Left| match left {
            Left::Message { number: found, body, .. } => (found, body.as_str()) == (number, text.as_str()),
            Left::Ended { .. }
            | Left::Command { .. }
            | Left::Session { .. }
            | Left::Position { .. }
            | Left::LogPosition { .. } => false,
        };
        assert!(found.left.iter().any(|(_, left)| is_it(left)), "message {number} is lost");
    }
    Ok(())
}

fn entry(decisions: &mut Unstructured<'_>) -> arbitrary::Result<Entry> {
    let kind = decisions.int_in_range(0..=10_u8)?;
    let owner = u128::from(decisions.int_in_range(0..=1_u8)?);
    let number = u64::from(decisions.int_in_range(0..=NUMBERS)?);
    let id = u128::from(number % 3);
    let what = match kind {
        0 => What::Began { machine: id },
        1 => What::Accepted { id, text: text(decisions)?.into() },
        // No process has this number, so that no state of the machine is looked at.
        2 => What::Started { id, process: Process::of(0) },
        3 => What::Ended { id, exit_code: i32::arbitrary(decisions)? },
        4 => What::Withdrawn { id },
        5 => What::Opened { id, text: text(decisions)?.into() },
        6 => What::Unopened { id },
        7 => {
            // One number is always one message: of one kind, one owner and one id.
            let kind = match number % 6 {
                0..4 => Kind::Result,
                4 => Kind::Closed,
                _ => Kind::Event,
            };
            let of = bool::arbitrary(decisions)?.then_some(id);
            let (exit_code, body) = (i32::arbitrary(decisions)?, text(decisions)?.into());
            return Ok(Entry {
                owner: u128::from(number % 2),
                what: What::Message { number, kind, of, exit_code, body },
            });
        }
        8 => What::Position { text: text(decisions)?.into() },
        9 => {
            let file = FileId { device: number, inode: number };
            let position = Position { file, head: Head { bytes: 1, hash: number }, offset: number };
            let cursor = bool::arbitrary(decisions)?.then(|| "s=1;i=2".into());
            What::LogPosition { position, path: text(decisions)?.replace('\0', "").into(), cursor }
        }
        _ => What::Done { number },
    };
    Ok(Entry { owner, what })
}

fn text<'a>(decisions: &mut Unstructured<'a>) -> arbitrary::Result<&'a str> {
    let length = decisions.int_in_range(0..=40_usize)?.min(decisions.len());
    let bytes = decisions.bytes(length)?;
    Ok(std::str::from_utf8(bytes).unwrap_or("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_inputs_of_every_kind_hold() {
        let mut state = 1_u64;
        for length in 0..3_000_usize {
            let mut input = vec![0; length % 300];
            for byte in &mut input {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = state.to_be_bytes()[0];
            }
            run(&input);
        }
    }
}
