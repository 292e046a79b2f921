//! The bytes of a file without the file: for the fuzz target.

use super::file::LIVE_BYTES_MAX;
use super::frame::{self, Frames};
use super::key::{KEY_BYTES, Key};
use super::record::Entry;
use super::state::{Found, State};
use std::collections::BTreeSet;

/// A file of these records under a key that anyone can know.
pub fn file(entries: &[Entry]) -> Vec<u8> {
    let key = Key::of([0; KEY_BYTES]);
    let mut bytes = frame::head(&key);
    entries.iter().for_each(|entry| frame::push(&key, &entry.encode(&key), &mut bytes));
    bytes
}

/// What a start finds in a file of these bytes, and the file as it is after a compaction; `None` where the start sets
/// it aside.
pub fn read(bytes: &[u8]) -> Option<(Found, Vec<u8>)> {
    let key = frame::read_head(bytes).ok()?;
    let state = State::read(&mut Frames::of(&key, bytes));
    let parts = state.parts(&key, bytes, &BTreeSet::new(), LIVE_BYTES_MAX);
    Some((state.found(&key, bytes), [frame::head(&key)].into_iter().chain(parts).collect::<Vec<_>>().concat()))
}
