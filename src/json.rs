//! Reads JSON from files, other programs and the console's HTTP answers.

use serde::Deserialize;

/// A value; `None` where the bytes are not UTF-8, or no such value.
///
/// All JSON is read from `str`: reading it from bytes, too, would put each type's reader into the program twice.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()
}
