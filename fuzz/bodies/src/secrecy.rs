//! The keys that the targets use, and the check of every text from a console that the agent logs.

use draupnir::config::Secret;

/// Keys of several kinds: plain, with spaces, with characters that JSON escapes, in base64.
const KEYS: [&str; 4] =
    ["sk-live-0123456789abcdef", "two words  and more", r#"quote"back\slash"#, "MTIz+/NDU2Nzg5MA=="];

/// The longest text of a console in the log, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// One of the keys.
pub(crate) fn key(choice: u8) -> Secret {
    let [plain, spaced, escaped, base64] = KEYS;
    Secret::new(match choice & 3 {
        0 => plain,
        1 => spaced,
        2 => escaped,
        _ => base64,
    })
}

/// Checks that it is one printable line of bounded length, without the key in any spelling.
pub(crate) fn assert_loggable(text: &str, key: &Secret) {
    assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes of text", text.len());
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
    assert_eq!(text.trim(), text, "white space around the text");
    // The key itself, and as different JSON writers escape it.
    let quoted = serde_json::Value::from(key.expose()).to_string();
    let spelt = quoted.trim_start_matches('"').strip_suffix('"').expect("a JSON text ends with a quotation mark");
    for spelling in [key.expose(), spelt, &spelt.replace('/', "\\/")] {
        assert!(!text.contains(spelling), "the key in {text:?}");
    }
}
