//! The keys that the targets work with, and what must be true of every text that reports a console's text.

use draupnir::config::Secret;

/// Keys of the kinds that there are: plain, with spaces, with what JSON escapes, in base64.
const KEYS: [&str; 4] =
    ["sk-live-0123456789abcdef", "two words  and more", r#"quote"back\slash"#, "MTIz+/NDU2Nzg5MA=="];

/// The longest text that reports a console's text, in bytes.
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

/// One line of bounded length, fit for a log and without the key, in whatever spelling.
pub(crate) fn assert_loggable(text: &str, key: &Secret) {
    assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes of text", text.len());
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
    assert_eq!(text.trim(), text, "white space around the text");
    // As it is, and as one or another writer of JSON spells it.
    let quoted = serde_json::Value::from(key.expose()).to_string();
    let spelt = quoted.trim_start_matches('"').strip_suffix('"').expect("a JSON text ends with a quotation mark");
    for spelling in [key.expose(), spelt, &spelt.replace('/', "\\/")] {
        assert!(!text.contains(spelling), "the key in {text:?}");
    }
}
