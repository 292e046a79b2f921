//! Makes the text of a console's answer fit for a log: printable, bounded and without the key.
//!
//! It interprets one field alone: the `id` that a registration returns.

use super::http::Head;
use crate::config::{REDACTED, Secret};
use crate::json;
use crate::protocol::InstanceId;
use serde::Deserialize;
use serde_json::Value;

/// How much of a console's text is kept, in bytes: enough for a sentence and its details, too little to flood a log.
const TEXT_BYTES_MAX: usize = 512;

/// The fields in which consoles and their proxies explain an error, in the order in which they are logged.
const EXPLANATIONS: [&str; 4] = ["error", "message", "detail", "details"];

/// A body as one line: the explaining fields of a JSON object, or else the whole body.
fn of_body(body: &[u8], key: &Secret) -> String {
    let text = match json::read::<Value>(body) {
        // Written again, JSON spells the key in one way only.
        Some(value) => explanation(&value).unwrap_or_else(|| value.to_string()),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    sanitize(&text, key)
}

/// The text of an answer; of a compressed body only its coding.
pub(super) fn of_answer(head: &Head, body: &[u8], key: &Secret) -> String {
    match head.compression().filter(|_| !body.is_empty()) {
        None => of_body(body, key),
        Some(coding) => sanitize(&format!("a body compressed with {coding}, which the agent did not ask for"), key),
    }
}

/// Where a redirect points.
pub(super) fn of_redirect(head: &Head, key: &Secret) -> Option<String> {
    let redirects = (300..400).contains(&head.status);
    head.header("location").filter(|_| redirects).map(|location| sanitize(location, key))
}

/// A body that names its id twice: decoders disagree on which one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AmbiguousId;

/// The identity that a registration returned (CONSOLE.md, "Registration"), if it can be used as one.
pub(super) fn id_of_body(body: &[u8]) -> Result<Option<String>, AmbiguousId> {
    #[derive(Deserialize)]
    struct Given {
        id: Option<Value>,
    }
    let Some(Value::Object(_)) = json::read::<Value>(body) else { return Ok(None) };
    // An object with one id of any kind, or none, is read; only a second one is not.
    let given: Given = json::read(body).ok_or(AmbiguousId)?;
    let id = given.id.as_ref().and_then(Value::as_str).filter(|id| InstanceId::new(id).is_ok());
    Ok(id.map(str::to_owned))
}

/// One line of printable text without the key, cut at the limit.
pub(super) fn sanitize(text: &str, key: &Secret) -> String {
    let visible: String = without(text, key).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    // A key with a space in it may only now stand there as it is.
    let line = without(&line, key);
    cut(&line, TEXT_BYTES_MAX).trim_end().to_owned()
}

/// Removes the key: a console may quote it as it is, or escaped as different JSON writers do.
fn without(text: &str, key: &Secret) -> String {
    if key.expose().is_empty() {
        return text.to_owned();
    }
    let mut text = text.replace(key.expose(), REDACTED);
    if key.expose().contains(['"', '\\', '/']) {
        let spelt = key.escaped(&['"', '\\']);
        for spelling in [spelt.escaped(&['/']), spelt] {
            text = text.replace(spelling.expose(), REDACTED);
        }
    }
    text
}

fn explanation(value: &Value) -> Option<String> {
    let fields: Vec<String> = EXPLANATIONS.iter().filter_map(|name| value.get(name)).filter_map(as_text).collect();
    (!fields.is_empty()).then(|| fields.join(": "))
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

/// The longest beginning of so many bytes that ends at a character.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sanitized(body: &str) -> String {
        of_body(body.as_bytes(), &Secret::new("sk-1"))
    }

    #[test]
    fn explanations_come_before_the_whole_body() {
        let body = r#"{"error":"VALIDATION","message":"bad provider","details":{"provider":["unknown"]},"x":1}"#;
        assert_eq!(sanitized(body), r#"VALIDATION: bad provider: {"provider":["unknown"]}"#);
        assert_eq!(sanitized("{\"x\":1}"), "{\"x\":1}");
        assert_eq!(sanitized("<h1>Bad\r\n\u{1b}[2J Gateway</h1>"), "<h1>Bad [2J Gateway</h1>");
        assert_eq!(sanitized(""), "");
    }

    #[test]
    fn text_is_bounded_and_never_holds_the_key() {
        assert_eq!(sanitized("the key sk-1 is expired"), "the key [redacted] is expired");
        assert_eq!(sanitized(r#"{"reason":"sk\u002d1 is expired"}"#), r#"{"reason":"[redacted] is expired"}"#);
        let long = sanitized(&"ä".repeat(10_000));
        assert_eq!(long.len(), TEXT_BYTES_MAX);
        let sentence = sanitized(&"word ".repeat(1000));
        assert!(sentence.len() <= TEXT_BYTES_MAX && sentence.starts_with("word word"));
    }

    #[test]
    fn key_is_hidden_in_every_spelling() {
        for (key, body) in [
            ("a key", "no: a\n\tkey"),
            ("a  key", "no: a  key"),
            ("a\"key", r#"{"details":{"got":"a\"key"}}"#),
            ("a\\key", r#"{"got":"a\\key"}"#),
            ("akey\"", r#"{"got":"akey\""}"#),
            ("a/key", r#"{"got":"a\/key"}"#),
            ("a/key", r#"{"got":"a\/key"#),
        ] {
            let text = of_body(body.as_bytes(), &Secret::new(key));
            assert!(text.contains(REDACTED) && !text.contains("key"), "{key:?}: {text:?}");
        }
    }

    #[test]
    fn an_id_is_taken_only_where_it_can_be_sent() {
        let id = |body: &str| id_of_body(body.as_bytes()).expect("one id at most");
        assert_eq!(id(r#"{"id":"inst-1","name":"a"}"#).as_deref(), Some("inst-1"));
        assert_eq!(id(&format!(r#"{{"id":"{}"}}"#, "x".repeat(100))).map(|id| id.len()), Some(100));
        for body in [r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"a b"}"#, r#"{"id":"ä"}"#, "[]", "", "null", "\"id\""] {
            assert_eq!(id(body), None, "{body}");
        }
        assert_eq!(id(&format!(r#"{{"id":"{}"}}"#, "x".repeat(101))), None);
        assert_eq!(id_of_body(br#"{"id":"a","id":"a"}"#), Err(AmbiguousId));
    }
}
