//! Reads a simple answer line by line: HTTP/1.1, headers of letters and visible ASCII, each once, no header that
//! describes the body, and a body that ends with the stream and names one id.

use draupnir::config::{REDACTED, Secret};
use draupnir::link::Registered;
use serde_json::Value;

/// Headers that change the meaning of the body.
const NOT_PLAIN: [&str; 4] = ["transfer-encoding", "content-length", "content-type", "content-encoding"];

/// The parts of such an answer.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, &'a str)>,
    body: &'a str,
}

/// Reads an answer, if it is one of these.
pub(super) fn read(answer: &[u8]) -> Option<Plain<'_>> {
    let (head, body) = str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let (status, lines) = head.split_once("\r\n").unwrap_or((head, ""));
    let (status, reason) = status.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    let is_plain = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let status: u16 = status.parse().ok().filter(|_| status.len() == 3)?;
    if !is_plain(reason) || !(200..1000).contains(&status) || matches!(status, 204 | 304) {
        return None;
    }
    let mut headers: Vec<(String, &str)> = Vec::new();
    for line in lines.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        let name = name.to_ascii_lowercase();
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase());
        let is_new = headers.iter().all(|(known, _)| *known != name);
        if !is_name || !is_new || !is_plain(value) || NOT_PLAIN.contains(&name.as_str()) {
            return None;
        }
        headers.push((name, value.trim()));
    }
    if body.contains('\\') || body.matches("\"id\"").count() > 1 {
        return None;
    }
    // An empty line in the middle would end the head, and the agent refuses too many headers.
    (headers.len() <= 90 && !lines.contains("\r\n\r\n")).then_some(Plain { status, headers, body })
}

impl Plain<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Panics if the agent reports anything else.
    pub(super) fn is_same(&self, ours: Option<&Registered>, key: &Secret) {
        let Some(ours) = ours else { panic!("not understood: {self:?}") };
        assert_eq!(ours.status, self.status);
        let seconds = self.header("retry-after").filter(|text| !text.is_empty());
        if let Some(seconds) = seconds.filter(|text| text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            assert_eq!(ours.retry_after_ms, seconds.parse::<u64>().ok().map(|seconds| seconds * 1000), "{self:?}");
        }
        if self.header("retry-after").is_none() {
            assert_eq!(ours.retry_after_ms, None, "{self:?}");
        }
        let location = self.header("location").filter(|_| (300..400).contains(&self.status));
        assert_eq!(ours.location.is_some(), location.is_some(), "{self:?}");
        if let Ok(Value::Object(body)) = serde_json::from_str(self.body) {
            let id = body.get("id").and_then(Value::as_str);
            let id = id.filter(|id| (1..=100).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(ours.id.as_deref(), id, "{self:?}");
            let error = body.get("error").and_then(Value::as_str).filter(|error| error.len() <= 40);
            if let Some(error) = error.filter(|error| error.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
                let is_reported =
                    ours.console_text.starts_with(error) || key.is_in(error) || ours.console_text.contains(REDACTED);
                assert!(is_reported, "the console's own word {error:?} is not reported: {ours:?}");
            }
        } else {
            assert_eq!(ours.id, None, "{self:?}");
        }
    }
}
