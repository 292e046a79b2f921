//! A text that must not be seen: the key.
//!
//! It prints as `[redacted]` whatever the format and is overwritten when it is dropped. It does not protect the pages
//! that it lies in, nor copies that others make of [`Secret::expose`]; the one place that needs it is the header of a
//! request.

use std::fmt;
use std::hint::black_box;

/// What stands where a secret would.
pub const REDACTED: &str = "[redacted]";

/// A secret text.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes a text in. The caller's copy stays the caller's to overwrite.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// The text itself: for the header, and for looking where it must not be.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).expect("invariant: it was made of a text")
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
pub(super) fn wipe(bytes: &mut [u8]) {
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
    fn wiping_leaves_nothing() {
        let mut bytes = *b"hunter2";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 7]);
    }

    /// Looks at memory past the language, at an address that is nobody's any more.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_dropped_is_gone_from_memory() {
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
