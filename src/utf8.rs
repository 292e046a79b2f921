//! Where bytes may be cut without splitting a UTF-8 character. A console decodes each frame by itself.
//!
//! It does not validate: what is not UTF-8 passes as it is.

/// The longest beginning of a character that is not a whole one, in bytes.
const BEGINNING_BYTES_MAX: usize = 3;

/// How many bytes at the end are the beginning of a character whose rest may still come: 0 to 3.
pub(crate) fn incomplete_tail(bytes: &[u8]) -> usize {
    let tails = (1..=BEGINNING_BYTES_MAX).map_while(|length| {
        let start = bytes.len().checked_sub(length)?;
        Some((length, bytes.get(start..)?))
    });
    for (length, tail) in tails {
        match tail.first() {
            // A continuation: the character began further in front, if anywhere.
            Some(0x80..=0xBF) => {}
            Some(_) => {
                let error = std::str::from_utf8(tail).err();
                let incomplete = error.is_some_and(|e| e.valid_up_to() == 0 && e.error_len().is_none());
                return if incomplete { length } else { 0 };
            }
            None => return 0,
        }
    }
    0
}

/// Does this byte continue a character?
pub(crate) const fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_characters_have_no_tail() {
        for text in ["", "a", "é", "€", "🦀", "aé€🦀"] {
            assert_eq!(incomplete_tail(text.as_bytes()), 0, "{text}");
        }
    }

    #[test]
    fn every_beginning_is_found() {
        for text in ["é", "€", "🦀"] {
            let bytes = text.as_bytes();
            for cut in 1..bytes.len() {
                let part = bytes.get(..cut).expect("within");
                assert_eq!(incomplete_tail(part), cut);
                let behind = [b"x".as_slice(), "ü".as_bytes(), part].concat();
                assert_eq!(incomplete_tail(&behind), cut);
            }
        }
    }

    /// Characters of one to four bytes, and what is none: continuations, beginnings, bytes that begin nothing, a
    /// surrogate, an overlong form, and one beyond the last character.
    const PIECES: [&[u8]; 16] = [
        b"a",
        "é".as_bytes(),
        "€".as_bytes(),
        "🦀".as_bytes(),
        b"\x80",
        b"\xbf\xbf",
        b"\xc3",
        b"\xe2",
        b"\xe2\x82",
        b"\xf0\x9f",
        b"\xf0\x9f\xa6",
        b"\xff",
        b"\xc0\x80",
        b"\xe0\x80",
        b"\xed\xa0",
        b"\xf4\x90",
    ];

    /// How many bytes at the end a decoder that reads from the beginning waits with.
    fn undecided(mut bytes: &[u8]) -> usize {
        while let Err(error) = std::str::from_utf8(bytes) {
            bytes = bytes.get(error.valid_up_to()..).expect("within");
            match error.error_len() {
                Some(length) => bytes = bytes.get(length..).expect("within"),
                None => return bytes.len(),
            }
        }
        0
    }

    /// Domain: every cut of every sequence of up to four pieces.
    #[test]
    fn every_cut_reads_as_the_whole_does() {
        let mut cuts = 0;
        let mut texts = vec![Vec::new()];
        for _ in 0..4 {
            let longer = texts.iter().flat_map(|text| PIECES.map(|piece| [text.as_slice(), piece].concat()));
            texts = longer.collect();
            for text in &texts {
                let whole = String::from_utf8_lossy(text);
                for cut in 0..=text.len() {
                    let (before, _) = text.split_at(cut);
                    let tail = incomplete_tail(before);
                    assert_eq!(tail, undecided(before), "{before:?}");
                    let (sent, kept) = text.split_at(cut - tail);
                    let parts = [String::from_utf8_lossy(sent), String::from_utf8_lossy(kept)].concat();
                    assert_eq!(parts, whole, "{text:?} cut at {cut}");
                    cuts += 1;
                }
            }
        }
        assert!(cuts > 400_000, "{cuts}");
    }

    #[test]
    fn invalid_bytes_pass_unchanged() {
        for garbage in [
            b"\xff".as_slice(),
            b"\x80",
            b"\x80\x80\x80\x80",
            b"\xc0",
            b"\xc3\xa9\xa9",
            b"\xe2\x28",
            b"\xed\xa0",     // a surrogate
            b"\xf4\x90\x80", // beyond the last character
            b"\xf8\x88",
        ] {
            assert_eq!(incomplete_tail(garbage), 0, "{garbage:?}");
        }
        assert_eq!(incomplete_tail(b"\xff\xf0\x9f"), 2);
    }
}
