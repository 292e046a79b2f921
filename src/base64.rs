//! Standard base64 with padding (RFC 4648, section 4).
//!
//! Every byte of every terminal is encoded, in a program that is compiled for size. There the crate's own loop takes a
//! third of the processor's time in a flood; this one computes eight characters at once in a register.

use ::base64::Engine as _;
use ::base64::prelude::BASE64_STANDARD;

/// So many bytes become [`GROUP_CHARS`] characters.
const GROUP_BYTES: usize = 6;
const GROUP_CHARS: usize = 8;

/// Groups that are encoded before their text is appended: 768 characters on the stack.
const BLOCK_GROUPS: usize = 96;

/// Appends the text of `data`.
pub(crate) fn encode(data: &[u8], text: &mut String) {
    text.reserve(data.len().div_ceil(3) * 4);
    for block in data.chunks(BLOCK_GROUPS * GROUP_BYTES) {
        let mut encoded = [[0; GROUP_CHARS]; BLOCK_GROUPS];
        let (groups, rest) = block.as_chunks();
        for (group, place) in groups.iter().zip(&mut encoded) {
            *place = characters(*group);
        }
        if let Some(last) = encoded.get_mut(groups.len()).filter(|_| !rest.is_empty()) {
            let mut group = [0; GROUP_BYTES];
            group[..rest.len()].copy_from_slice(rest);
            *last = characters(group);
            last[(rest.len() * 8).div_ceil(6)..].fill(b'=');
        }
        let characters = &encoded.as_flattened()[..block.len().div_ceil(3) * 4];
        text.push_str(std::str::from_utf8(characters).expect("invariant: base64 is ASCII"));
    }
}

/// The bytes of a text that is padded, and whose unused bits are zero.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

/// The characters of six bytes, one in each byte of a register: the bits are spread in three steps, and each group of
/// six is moved to its place in ASCII.
#[expect(clippy::inline_always, reason = "a compiler that saves space calls it for each six bytes")]
#[inline(always)]
fn characters([a, b, c, d, e, f]: [u8; GROUP_BYTES]) -> [u8; GROUP_CHARS] {
    let halves = u64::from_be_bytes([0, a, b, c, 0, d, e, f]);
    let quarters = (halves & 0x00FF_F000_00FF_F000) << 4 | halves & 0x0000_0FFF_0000_0FFF;
    let values = (quarters & 0x0FC0_0FC0_0FC0_0FC0) << 2 | quarters & 0x003F_003F_003F_003F;
    // 1 in each byte whose value is at least `least`: no value is over 63, so only then the highest bit is set.
    let from = |least: u64| ((values + EACH * (0x80 - least)) & (EACH * 0x80)) >> 7;
    let text = values + EACH * u64::from(b'A') // A to Z
        + from(26) * 6 - from(52) * 75 // a to z, 0 to 9
        - from(62) * 15
        + from(63) * 3; // + and /
    text.to_be_bytes()
}

/// 1 in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(data: &[u8]) -> String {
        let mut text = "x".to_owned();
        encode(data, &mut text);
        text.split_off(1)
    }

    /// Domain: at each place of a group each byte, beside zeros and beside ones, and every length up to two blocks.
    #[test]
    fn every_byte_at_every_place_is_encoded() {
        for (place, other) in (0..GROUP_BYTES).flat_map(|place| [(place, 0), (place, 0xFF)]) {
            for byte in 0..=u8::MAX {
                let mut group = [other; GROUP_BYTES];
                group[place] = byte;
                assert_eq!(encoded(&group), BASE64_STANDARD.encode(group), "{group:?}");
            }
        }
        let numbers = 0..u16::try_from(2 * BLOCK_GROUPS * GROUP_BYTES).expect("short");
        let bytes: Vec<u8> = numbers.map(|number| number.wrapping_mul(197).to_be_bytes()[0]).collect();
        for length in 0..=bytes.len() {
            let (data, _) = bytes.split_at(length);
            assert_eq!(encoded(data), BASE64_STANDARD.encode(data), "{length} bytes");
        }
    }

    #[test]
    fn text_ends_at_its_padding() {
        assert_eq!(decode("YQ==").as_deref(), Some(b"a".as_slice()));
        assert_eq!(decode("YWI=").as_deref(), Some(b"ab".as_slice()));
        for nonsense in ["YQ==YQ==", "YWI=YWJj", "YQ==YWJj", "=", "==", "===", "===="] {
            assert_eq!(decode(nonsense), None, "{nonsense}");
        }
    }

    /// Domain: every text of up to eight characters, of which up to four are any of 14 and the first four are whole.
    #[test]
    fn every_short_text_is_base64_or_refused() {
        const SIGNS: &[u8; 14] = b"AQgwBEZz09+/=-";
        let mut accepted = 0;
        for (front, length) in [("", 0), ("", 1), ("", 2), ("", 3), ("", 4), ("YWJj", 3), ("YWJj", 4)] {
            for number in 0..SIGNS.len().pow(length) {
                let digits = (0..length).map(|place| number / SIGNS.len().pow(place) % SIGNS.len());
                let text = front.to_owned() + &digits.map(|sign| char::from(SIGNS[sign])).collect::<String>();
                let (data, padding) = text.split_at(text.trim_end_matches('=').len());
                let is_alphabet = data.bytes().all(|sign| sign.is_ascii_alphanumeric() || b"+/".contains(&sign));
                // The bits that the last character does not need are zero.
                let is_last_exact = match (data.len() % 4, data.as_bytes().last()) {
                    (0, _) => true,
                    (2, Some(last)) => b"AQgw".contains(last),
                    (3, Some(last)) => b"AEIMQUYcgkosw048".contains(last),
                    _ => false,
                };
                let is_padded = padding.len() == (4 - data.len() % 4) % 4;
                let expected = (is_alphabet && is_last_exact && is_padded).then(|| data.len() * 3 / 4);
                assert_eq!(decode(&text).map(|bytes| bytes.len()), expected, "{text}");
                accepted += u32::from(expected.is_some());
            }
        }
        assert!(accepted > 20_000, "{accepted}");
    }

    /// Domain: every number of bytes up to 64, and every cut of their text.
    #[test]
    fn text_that_was_cut_is_refused_or_a_beginning() {
        let bytes: Vec<u8> = (0..64).map(|number: u8| number.wrapping_mul(37).wrapping_add(11)).collect();
        for length in 0..=bytes.len() {
            let (data, _) = bytes.split_at(length);
            let text = encoded(data);
            for cut in 0..=text.len() {
                let (part, _) = text.split_at(cut);
                let beginning = (cut % 4 == 0).then(|| data.split_at(length.min(cut / 4 * 3)).0);
                assert_eq!(decode(part).as_deref(), beginning, "{length} bytes cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(data: Vec<u8>) {
            prop_assert_eq!(decode(&encoded(&data)), Some(data));
        }
    }
}
