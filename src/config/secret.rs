//! A secret text, such as the API key, which is never printed and is overwritten after use.
//!
//! It prints as `[redacted]` in every format and is overwritten when it is dropped, as is every text built from it: a
//! request is a secret, too. It does not protect its memory pages, nor copies of [`Secret::expose`], which the sending
//! of a request and the search for a leaked key need.

use std::fmt;
use std::hint::black_box;

/// The text that is shown instead of a secret.
pub const REDACTED: &str = "[redacted]";

/// A secret text.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Copies a text. The caller must overwrite its own copy.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// These texts, one behind the other. The memory is asked for once: what grows leaves copies behind.
    pub fn joined<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut bytes = vec![0; texts.clone().map(str::len).sum()].into_boxed_slice();
        let mut rest = &mut *bytes;
        for text in texts {
            let (place, after) = rest.split_at_mut(text.len());
            place.copy_from_slice(text.as_bytes());
            rest = after;
        }
        Self(bytes)
    }

    /// The text itself: for the header, and for looking where it must not be.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).expect("invariant: it was made of a text")
    }

    /// A likely mistake in an API key that is legal: quotes around it, or the scheme in front of it.
    pub fn likely_mistake(&self) -> Option<&'static str> {
        const MARKS: [char; 3] = ['"', '\'', '`'];
        let key = self.expose();
        if key.starts_with(MARKS) || key.ends_with(MARKS) {
            return Some("it stands in quotes, and the agent sends them too; remove the quotes");
        }
        let begins_with_scheme = key.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("bearer"));
        begins_with_scheme.then_some("it begins with the word Bearer, which the agent adds; remove the word")
    }

    /// The same with a backslash before each of these marks, as it stands within a JSON text, say.
    pub fn escaped(&self, marks: &[char]) -> Self {
        let pieces = self.expose().split_inclusive(marks).flat_map(|piece| match piece.strip_suffix(marks) {
            Some(before) => [before, "\\", piece.strip_prefix(before).unwrap_or_default()],
            None => [piece, "", ""],
        });
        Self::joined(pieces)
    }

    /// Whether a text holds it, in whatever case: values are shown in lower case here and there. An empty secret is in
    /// no text.
    pub fn is_in(&self, text: &str) -> bool {
        !self.0.is_empty() && text.as_bytes().windows(self.0.len()).any(|part| part.eq_ignore_ascii_case(&self.0))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

/// Overwrites bytes in a way that the compiler cannot leave out as pointless.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret)),
            "[redacted] [redacted] [redacted] Some([redacted])"
        );
        assert_eq!(secret.clone().expose(), "hunter2");
    }

    #[test]
    fn mistake_in_a_key_is_named() {
        let mistake = |key: &str| Secret::new(key).likely_mistake();
        for quoted in ["\"sk-1\"", "'sk-1'", "`sk-1", "sk-1\""] {
            assert!(mistake(quoted).is_some_and(|text| text.contains("quotes")), "{quoted}");
        }
        for named in ["Bearer:sk-1", "bearer_sk-1"] {
            assert!(mistake(named).is_some_and(|text| text.contains("Bearer")), "{named}");
        }
        for right in ["sk-1", "bear", "s\"k", ""] {
            assert_eq!(mistake(right), None, "{right}");
        }
    }

    #[test]
    fn joined_secret_holds_all_parts() {
        let key = Secret::new("hunter2");
        assert_eq!(Secret::joined(["Bearer ", key.expose(), "", "\r\n"].into_iter()).expose(), "Bearer hunter2\r\n");
        assert_eq!(Secret::joined([].into_iter()).expose(), "");
        assert_eq!(Secret::new(r#"a"b\\c"#).escaped(&['"', '\\']).expose(), r#"a\"b\\\\c"#);
        assert_eq!(key.escaped(&['"']).expose(), "hunter2");
    }

    #[test]
    fn wiping_leaves_nothing() {
        let mut bytes = *b"hunter2";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 7]);
    }

    /// Reads freed memory through `/proc/self/mem`.
    #[cfg(target_os = "linux")]
    #[test]
    fn dropped_secret_is_gone_from_memory() {
        use std::io::{Read as _, Seek as _, SeekFrom};
        // Long enough that what an allocator writes at the beginning of a free block leaves most of it as it was.
        let text = "squeamish-".repeat(20);
        let secret = Secret::new(&text);
        let at = secret.expose().as_ptr() as u64;
        let mut memory = std::fs::File::open("/proc/self/mem").expect("Linux shows it");
        // Made before: what is allocated later may lie where the secret lay.
        let mut bytes = vec![0; text.len()];
        let mut look = |bytes: &mut [u8]| memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read_exact(bytes));
        look(&mut bytes).expect("it is mapped");
        assert_eq!(bytes, text.as_bytes());
        drop(secret);
        look(&mut bytes).expect("it is mapped still");
        let left = String::from_utf8_lossy(&bytes);
        assert!(!left.contains("squeamish"), "{left}");
    }
}
