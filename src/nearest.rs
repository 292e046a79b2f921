//! Finds the known name closest to a mistyped one.

/// Most edits (inserted, deleted or replaced letters) between a mistyped name and the known one.
const EDITS_MAX: usize = 2;

/// The known name closest to `word`, if one is close; case does not matter.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let with_edits = known.into_iter().filter(|name| name.len().abs_diff(word.len()) <= EDITS_MAX);
    let with_edits = with_edits.map(|name| (edits(word.as_bytes(), name.to_ascii_lowercase().as_bytes()), name));
    let is_close = |(edits, name): &(usize, &str)| *edits <= EDITS_MAX && edits * 2 < name.len();
    with_edits.filter(is_close).min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

/// The Levenshtein distance, in bytes.
fn edits(word: &[u8], name: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (letters, letter) in word.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], letters + 1);
        for (at, other) in name.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_name_is_found_and_distant_one_is_not() {
        let known = ["--version", "--help", "doctor", "-h"];
        let found = |word| nearest(word, known);
        for (word, expected) in [
            ("--verison", Some("--version")),
            ("--HELP", Some("--help")),
            ("-help", Some("--help")),
            ("docter", Some("doctor")),
            ("--verbose", None),
            ("", None),
            ("-x", None),
            ("dörtor", None),
        ] {
            assert_eq!(found(word), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
        assert_eq!((edits(b"kitten", b"sitting"), edits(b"", b"abc"), edits(b"abc", b"")), (3, 3, 3));
    }
}
