//! Finds short values in JSON that streams by, with the path to each.
//!
//! It builds no tree: memory is bounded however long a document, a text or a list is, and it may be cut anywhere. It
//! takes any sequence of values, so that JSON lines need nothing else. What is no JSON is skipped up to the end of its
//! line; what looks like JSON and breaks a rule that does not matter here (`tru`, a comma too many) is let pass.
//!
//! A path is the keys with dots between them: `usage.input_tokens`. Elements of a list have `[]` in their path, but for
//! a list that is the whole document: some providers stream one.

use memchr::memchr2;

/// Longest text or number that is kept, in bytes as they stand in the document. Names of models are a tenth of it.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Deepest nesting that is followed, as many as `serde_json` follows by half.
pub const DEPTH_MAX: usize = 64;

/// Longest path that is reported, in bytes; a key that does not fit stands as `?`, which is no key that is looked for.
const PATH_BYTES_MAX: usize = 96;

/// A value that is neither list nor object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A text as it stands between its quotes, escapes and all.
    Text(&'a str),
    /// A number, `true`, `false` or `null`.
    Literal(&'a str),
}

/// The state between two pieces of a document.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    path: String,
    open: Vec<Container>,
    token: Vec<u8>,
    is_token_too_long: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A value may begin, or a list end.
    #[default]
    Value,
    /// A key may begin, or an object end.
    Key,
    Colon,
    AfterValue,
    Text {
        is_key: bool,
        is_escaped: bool,
    },
    Literal,
    /// Until the end of the line.
    Broken,
}

#[derive(Clone, Copy, Debug)]
struct Container {
    is_object: bool,
    /// How long the path to it is, in bytes.
    path_bytes: usize,
}

impl Scanner {
    /// Forgets what was begun.
    pub fn reset(&mut self) {
        self.state = State::Value;
        self.open.clear();
        self.path.clear();
        self.clear_token();
    }

    /// Takes the next piece, and gives each value that is complete to `found`, with its path.
    pub fn feed(&mut self, piece: &[u8], found: &mut impl FnMut(&str, Scalar<'_>)) {
        let mut rest = piece;
        while let Some((byte, after)) = rest.split_first() {
            rest = match self.state {
                State::Text { is_key, is_escaped: true } => {
                    self.keep(&[*byte]);
                    self.state = State::Text { is_key, is_escaped: false };
                    after
                }
                State::Text { is_key, is_escaped: false } => self.text(rest, is_key, found),
                State::Literal => match byte {
                    b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' => {
                        self.tell(found, false);
                        self.state = self.after_value();
                        rest
                    }
                    _ => {
                        self.keep(&[*byte]);
                        after
                    }
                },
                State::Broken => match memchr::memchr(b'\n', rest) {
                    Some(end) => {
                        self.reset();
                        rest.get(end..).unwrap_or_default()
                    }
                    None => return,
                },
                State::Value | State::Key | State::Colon | State::AfterValue => {
                    self.structure(*byte);
                    after
                }
            };
        }
    }

    /// What stands up to the next quote or escape.
    fn text<'a>(&mut self, rest: &'a [u8], is_key: bool, found: &mut impl FnMut(&str, Scalar<'_>)) -> &'a [u8] {
        let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(end);
        self.keep(text);
        match tail.split_first() {
            Some((b'"', after)) if is_key => {
                self.enter();
                self.state = State::Colon;
                after
            }
            Some((b'"', after)) => {
                self.tell(found, true);
                self.state = self.after_value();
                after
            }
            Some((escape, after)) => {
                self.keep(&[*escape]);
                self.state = State::Text { is_key, is_escaped: true };
                after
            }
            None => tail,
        }
    }

    fn structure(&mut self, byte: u8) {
        let within = self.open.last().map(|container| container.is_object);
        self.state = match (self.state, byte) {
            (state, b' ' | b'\t' | b'\r' | b'\n') => state,
            (State::Key, b'"') => State::Text { is_key: true, is_escaped: false },
            (State::Colon, b':') => State::Value,
            (State::Key | State::AfterValue, b'}') if within == Some(true) => self.close(),
            (State::Value | State::AfterValue, b']') if within == Some(false) => self.close(),
            (State::AfterValue, b',') if within == Some(true) => State::Key,
            (State::AfterValue, b',') => State::Value,
            (State::Value, b'{') => self.open(true),
            (State::Value, b'[') => self.open(false),
            (State::Value, b'"') => State::Text { is_key: false, is_escaped: false },
            (State::Value, b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                self.keep(&[byte]);
                State::Literal
            }
            (_, _) => State::Broken,
        };
    }

    /// What follows a value; with no container open, one document follows another.
    fn after_value(&self) -> State {
        if self.open.is_empty() { State::Value } else { State::AfterValue }
    }

    fn open(&mut self, is_object: bool) -> State {
        if self.open.len() >= DEPTH_MAX {
            return State::Broken;
        }
        if !is_object && !self.open.is_empty() {
            self.push("[]");
        }
        self.open.push(Container { is_object, path_bytes: self.path.len() });
        if is_object { State::Key } else { State::Value }
    }

    fn close(&mut self) -> State {
        self.open.pop();
        self.leave();
        self.after_value()
    }

    /// Makes the path that of the container that is open.
    fn leave(&mut self) {
        self.path.truncate(self.open.last().map_or(0, |container| container.path_bytes));
    }

    /// Makes the path that of the key that was read.
    fn enter(&mut self) {
        self.leave();
        let token = std::mem::take(&mut self.token);
        let key = std::str::from_utf8(&token).ok().filter(|key| !self.is_token_too_long && !key.contains(['.', '\\']));
        self.push(key.unwrap_or("?"));
        self.token = token;
        self.clear_token();
    }

    fn push(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(if self.path.len() + key.len() <= PATH_BYTES_MAX { key } else { "?" });
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = TOKEN_BYTES_MAX - self.token.len();
        self.is_token_too_long |= bytes.len() > room;
        self.token.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn tell(&mut self, found: &mut impl FnMut(&str, Scalar<'_>), is_text: bool) {
        if let Some(token) = std::str::from_utf8(&self.token).ok().filter(|_| !self.is_token_too_long) {
            found(&self.path, if is_text { Scalar::Text(token) } else { Scalar::Literal(token) });
        }
        self.clear_token();
    }

    fn clear_token(&mut self) {
        self.token.clear();
        self.is_token_too_long = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(pieces: &[&[u8]]) -> Vec<String> {
        let (mut scanner, mut values) = (Scanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(piece, &mut |path, value| {
                values.push(match value {
                    Scalar::Text(text) => format!("{path}=\"{text}\""),
                    Scalar::Literal(text) => format!("{path}={text}"),
                });
            });
        }
        values
    }

    #[test]
    fn values_are_found_with_their_paths() {
        let text = br#" {"a":1,"b":{"c":"x\"y","d":[2,{"e":null}],"f":{}},"g":[],"h":true} "#;
        let expected = ["a=1", r#"b.c="x\"y""#, "b.d.[]=2", "b.d.[].e=null", "h=true"].map(str::to_owned);
        assert_eq!(found(&[text]), expected);
    }

    #[test]
    fn documents_follow_each_other() {
        assert_eq!(found(&[b"{\"a\":1}\n{\"a\":2}{\"a\":3}"]), ["a=1", "a=2", "a=3"]);
        assert_eq!(found(&[b"[{\"a\":1},\r\n{\"a\":2}]"]), ["a=1", "a=2"], "a list that is the whole document");
        assert_eq!(found(&[b"[DONE] oh\n{\"a\":2}"]), ["a=2"], "what is no JSON ends with its line");
    }

    #[test]
    fn keys_cannot_imitate_a_path() {
        assert_eq!(found(&[br#"{"usage.x":1,"\u0061":2}"#]), ["?=1", "?=2"]);
    }

    #[test]
    fn long_and_deep_documents_take_bounded_memory() {
        let mut scanner = Scanner::default();
        let mut count = 0;
        let key = "k".repeat(1_000);
        scanner.feed(format!("{{\"{key}\":\"{key}\",\"a\":1").as_bytes(), &mut |_, _| count += 1);
        assert_eq!(count, 0, "a text that is too long is not reported, and a number only once it has ended");
        scanner.feed(b"}", &mut |path, _| count += usize::from(path == "a"));
        assert_eq!(count, 1);
        scanner.feed("{\"k\":".repeat(100_000).as_bytes(), &mut |_, _| count += 1);
        assert!(scanner.open.len() <= DEPTH_MAX && scanner.path.len() <= PATH_BYTES_MAX + 2 * DEPTH_MAX);
        assert!(scanner.token.capacity() <= 2 * TOKEN_BYTES_MAX);
        assert_eq!(count, 1);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            text in "([\\[\\]{}:, \n]|\"[a-c.\\\\]{0,3}\"|\"usage\":|[0-9]{1,3}|null){0,40}", cut in 0..200_usize, size in 1..9_usize,
        ) {
            let bytes = text.as_bytes();
            let whole = found(&[bytes]);
            let (before, after) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(&found(&[before, after]), &whole);
            prop_assert_eq!(&found(&bytes.chunks(size).collect::<Vec<_>>()), &whole);
        }
    }
}
