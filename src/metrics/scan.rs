//! Reads numbers and words out of the text of kernel files.
//!
//! Opens nothing and allocates nothing. Invariant: any bytes at all are accepted; what cannot be read is `None` or left
//! out, never a panic and never a guess.

/// How many processors a set of them can name; the kernel's own configuration stops at 8192 and no machine comes near.
pub(crate) const CPUS_MAX: usize = 1024;

const WORD_BITS: usize = 64;

/// An unsigned decimal number without sign, space or anything else around it.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// An unsigned decimal fraction such as `0.03`; exponents and signs are not the kernel's way.
pub(crate) fn fraction(text: &[u8]) -> Option<f64> {
    if !text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The words of a line, as the kernel separates them.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// The lines of a text, without their ends; the empty piece after the last one is no line.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// The first word of a text as a number: a file that holds one.
pub(crate) fn first_number(text: &[u8]) -> Option<u64> {
    words(text).next().and_then(number)
}

/// The lines `key value …` and `key: value …` of a text; lines of any other form are passed over.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    lines(text).filter_map(|line| {
        let mut words = words(line);
        let key = words.next()?;
        Some((key.strip_suffix(b":").unwrap_or(key), number(words.next()?)?))
    })
}

/// The value of one key among [`pairs`].
pub(crate) fn keyed(text: &[u8], key: &[u8]) -> Option<u64> {
    pairs(text).find_map(|(name, value)| (name == key).then_some(value))
}

/// The words after a first word `key`, the colon being optional.
pub(crate) fn line_of<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    lines(text).find_map(|line| {
        let rest = line.strip_prefix(key)?;
        match rest.first() {
            Some(b':' | b' ' | b'\t') => rest.get(1..),
            Some(_) | None => None,
        }
    })
}

/// A set of processors, as `0-3,7` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuSet {
    bits: [u64; CPUS_MAX / WORD_BITS],
}

impl CpuSet {
    /// Reads a list; `None` when it names no processor or is not a list. Processors beyond [`CPUS_MAX`] are left out.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut set = Self { bits: [0; CPUS_MAX / WORD_BITS] };
        for range in text.trim_ascii().split(|byte| *byte == b',') {
            let mut ends = range.splitn(2, |byte| *byte == b'-');
            let first = number(ends.next()?.trim_ascii())?;
            let last = ends.next().map_or(Some(first), |end| number(end.trim_ascii()))?;
            if last < first {
                return None;
            }
            for cpu in first..=last.min(CPUS_MAX as u64 - 1) {
                set.insert(usize::try_from(cpu).ok()?);
            }
        }
        (set.count() > 0).then_some(set)
    }

    /// How many processors it holds.
    pub(crate) fn count(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether it holds this one.
    pub(crate) fn contains(&self, cpu: usize) -> bool {
        self.bits.get(cpu / WORD_BITS).is_some_and(|word| word & (1 << (cpu % WORD_BITS)) != 0)
    }

    fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.bits.get_mut(cpu / WORD_BITS) {
            *word |= 1 << (cpu % WORD_BITS);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_digits_and_fit() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b"18446744073709551616", b"1.5", b" 1", b"0x10"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fractions_have_no_sign_and_no_exponent() {
        assert_eq!(fraction(b"0.25"), Some(0.25));
        for bad in [&b""[..], b"-1.0", b"1e9", b"nan", b"inf", b"1.2.3"] {
            assert_eq!(fraction(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn keys_match_whole_words_only() {
        let text = b"MemTotal:  12 kB\nMem 3\nMemFree: x\nodd\n";
        assert_eq!(keyed(text, b"MemTotal"), Some(12));
        assert_eq!(keyed(text, b"Mem"), Some(3));
        assert_eq!(keyed(text, b"MemFree"), None);
        assert_eq!(line_of(b"Cpus_allowed:\tff\nCpus_allowed_list:\t0-7\n", b"Cpus_allowed_list"), Some(&b"\t0-7"[..]));
    }

    #[test]
    fn a_cpu_list_is_ranges_and_single_ones() {
        let set = CpuSet::parse(b"0-3,7\n").expect("the kernel's own example parses");
        assert_eq!(set.count(), 5);
        assert!(set.contains(7) && !set.contains(4) && !set.contains(usize::MAX));
        for bad in [&b""[..], b"\n", b"3-1", b"a", b"1-", b"-", b"0,,1"] {
            assert_eq!(CpuSet::parse(bad), None, "{bad:?}");
        }
        assert_eq!(CpuSet::parse(b"0-18446744073709551615").map(|set| set.count()), Some(1024));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..400), key in "[a-z]{0,4}") {
            let _ = (number(&text), fraction(&text), first_number(&text));
            let _ = (keyed(&text, key.as_bytes()), line_of(&text, key.as_bytes()));
            if let Some(set) = CpuSet::parse(&text) {
                prop_assert!(set.count() >= 1);
            }
        }

        #[test]
        fn written_processor_set_parses_back(value: u64) {
            prop_assert_eq!(number(value.to_string().as_bytes()), Some(value));
        }
    }
}
