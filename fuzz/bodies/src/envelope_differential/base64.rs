//! A simple decoder for standard base64 with padding, strictly by RFC 4648, section 4.

/// The bytes, unless a character, the padding or an unused bit is wrong.
pub(super) fn read(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let characters: Vec<char> = text.chars().collect();
    if !characters.len().is_multiple_of(4) {
        return None;
    }
    let groups = characters.len() / 4;
    for (number, group) in characters.chunks(4).enumerate() {
        let padding = group.iter().rev().take_while(|character| **character == '=').count();
        if padding > 2 || (padding > 0 && number + 1 < groups) {
            return None;
        }
        let mut bits = 0_u32;
        for character in group.iter().take(4 - padding) {
            bits = bits << 6 | sextet(*character)?;
        }
        // n characters give n − 1 bytes. The remaining bits must be zero.
        bits <<= 6 * padding;
        let decoded = bits.to_be_bytes();
        let (kept, left_over) = decoded.split_at(4 - padding);
        if left_over.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend(kept.iter().skip(1));
    }
    Some(bytes)
}

fn sextet(character: char) -> Option<u32> {
    let code = u32::from(character);
    match character {
        'A'..='Z' => Some(code - u32::from('A')),
        'a'..='z' => Some(code - u32::from('a') + 26),
        '0'..='9' => Some(code - u32::from('0') + 52),
        '+' => Some(62),
        '/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_read() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(read(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
    }

    #[test]
    fn non_strict_base64_is_refused() {
        for text in ["Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9v", "Zm-_", "=Zg=", "Zg=a"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
