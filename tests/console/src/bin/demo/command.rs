//! The demo's command line: one line to type, and the output of the last command as it streams.
//!
//! The output is bounded: the end of a long output is kept. Each command gets its own id. `dashboard` draws.

use std::time::{Duration, Instant};

use draupnir_console::{Console, Record};
use serde_json::{Value, json};

/// Most output that is kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Longest line that can be typed, in characters.
const LINE_CHARS_MAX: usize = 1000;

/// The result of typing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// The line is not complete.
    More,
    /// Run this line.
    Run(String),
    /// The line was given up.
    Left,
}

/// A line being typed.
#[derive(Debug, Default)]
pub(crate) struct Line {
    text: String,
    partial: Vec<u8>,
    escape: Escape,
}

/// How much was read of the sequence of a special key (an arrow: `ESC [ A` or `ESC O A`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// ESC.
    Begun,
    /// ESC and `[`: parameters follow, then a letter or `~`.
    Parameters,
    /// ESC and `O`: one letter follows.
    Letter,
}

impl Line {
    /// The text so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Reads typed bytes. Special keys do nothing; a single ESC at the end cancels the line.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Typed {
        for byte in bytes {
            self.escape = match (self.escape, byte) {
                (Escape::None, 0x1b) => Escape::Begun,
                (Escape::Begun, b'[') | (Escape::Parameters, 0x20..0x40) => Escape::Parameters,
                (Escape::Begun, b'O') => Escape::Letter,
                (Escape::Begun | Escape::Parameters | Escape::Letter, _) => Escape::None,
                (Escape::None, b'\r' | b'\n') if self.text.trim().is_empty() => return Typed::Left,
                (Escape::None, b'\r' | b'\n') => return Typed::Run(self.text.trim().to_owned()),
                (Escape::None, 0x03) => return Typed::Left,
                (Escape::None, _) => {
                    self.take_plain(*byte);
                    Escape::None
                }
            };
        }
        if self.escape == Escape::Begun { Typed::Left } else { Typed::More }
    }

    fn take_plain(&mut self, byte: u8) {
        match byte {
            0x08 | 0x7f => drop(self.text.pop()),
            0x15 => self.text.clear(),
            0x00..0x20 => {}
            _ => self.take_byte(byte),
        }
    }

    /// Reads a byte of a character, which may be incomplete.
    fn take_byte(&mut self, byte: u8) {
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) if self.text.chars().count() < LINE_CHARS_MAX => self.text.push_str(text),
            Err(error) if error.error_len().is_none() => return,
            Ok(_) | Err(_) => {}
        }
        self.partial.clear();
    }
}

/// The last command.
#[derive(Debug, Default)]
pub(crate) struct Command {
    id: String,
    /// Its line; empty before the first command.
    pub(crate) line: String,
    output: Vec<u8>,
    streamed: bool,
    result: Option<Value>,
    began: Option<Instant>,
    count: u32,
}

impl Command {
    /// Runs a line through the agent; its output comes to `emit` as it streams, with the command's id.
    pub(crate) fn run(
        &mut self,
        console: &Console,
        line: &str,
        emit: impl Fn(&str, &[u8]) + Clone + Send + Sync + 'static,
    ) {
        let count = self.count + 1;
        let id = format!("demo-{}-{count}", std::process::id());
        for stream in ["stdout", "stderr"] {
            console.untap(&format!("{}/{stream}", self.id));
            let (emit, emitted_id) = (emit.clone(), id.clone());
            console.tap(&format!("{id}/{stream}"), move |bytes| {
                emit(&emitted_id, bytes);
            });
        }
        *self = Command { id, line: line.to_owned(), began: Some(Instant::now()), count, ..Command::default() };
        console.browser().dispatch_with(&self.id, &json!({"command": line, "timeout_ms": 300_000, "stream": true}));
    }

    /// Asks the agent to cancel it. Returns false if no command runs.
    pub(crate) fn cancel(&self, console: &Console) -> bool {
        let runs = self.began.is_some() && self.result.is_none();
        if runs {
            console.browser().cancel(&self.id);
        }
        runs
    }

    /// Output came. Late output of an earlier command is dropped.
    pub(crate) fn take_output(&mut self, id: &str, bytes: &[u8]) {
        if id == self.id {
            self.streamed = true;
            self.keep(bytes);
        }
    }

    /// Reads a record that may be its result, which has the whole output if the agent does not stream.
    pub(crate) fn take_record(&mut self, record: &Record) {
        if record.kind() != "command:result" || record.payload()["command_id"] != self.id.as_str() {
            return;
        }
        let payload = record.payload();
        let texts = ["stdout", "stderr"].map(|key| payload[key].as_str().unwrap_or_default());
        if !self.streamed {
            texts.iter().for_each(|text| self.keep(text.as_bytes()));
        }
        self.result = Some(payload.clone());
    }

    /// Its status as text.
    pub(crate) fn status(&self, now: Instant) -> String {
        let Some(result) = &self.result else {
            let runs = self.began.map(|began| now.saturating_duration_since(began));
            return runs.map_or(String::new(), |runs| format!("runs for {} s", runs.as_secs()));
        };
        let took = Duration::from_millis(result["duration_ms"].as_u64().unwrap_or_default());
        format!("exit {} after {:.3} s", result["exit_code"], took.as_secs_f64())
    }

    /// The last lines of its output.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.output);
        let lines: Vec<String> = text.lines().map(|line| line.replace('\t', "    ")).collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().to_vec()
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        if self.output.len() > 2 * OUTPUT_BYTES_MAX {
            self.output.drain(..self.output.len() - OUTPUT_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_edited_and_run() {
        let mut line = Line::default();
        assert_eq!(line.take("echo hé".as_bytes()), Typed::More);
        assert_eq!(line.take(&[0x7f]), Typed::More);
        let cut = "é!".as_bytes();
        assert_eq!(line.take(&cut[..1]), Typed::More);
        assert_eq!(line.take(&cut[1..]), Typed::More);
        assert_eq!(line.text(), "echo hé!");
        assert_eq!(line.take(b"\r"), Typed::Run("echo hé!".to_owned()));
        assert_eq!(Line::default().take(b"\x1b"), Typed::Left);
        assert_eq!(Line::default().take(b"abc\x15  \r"), Typed::Left);
    }

    #[test]
    fn special_keys_keep_the_typed_line() {
        let mut line = Line::default();
        for key in ["\x1b[A", "\x1bOD", "\x1b[3~", "\x1b[1;5C", "\x1bf"] {
            assert_eq!(line.take(format!("x{key}").as_bytes()), Typed::More, "{key:?}");
        }
        assert_eq!(line.take(b"\x1b["), Typed::More);
        assert_eq!(line.take(b"B"), Typed::More);
        assert_eq!(line.text(), "xxxxx");
        assert_eq!(line.take(b"\x1b"), Typed::Left);
    }

    #[test]
    fn output_is_bounded_and_ends_last() {
        let mut command = Command { id: "c".to_owned(), ..Command::default() };
        command.take_output("other", b"no\n");
        for n in 0..100_000 {
            command.take_output("c", format!("{n}\n").as_bytes());
        }
        assert!(command.output.len() <= 2 * OUTPUT_BYTES_MAX);
        assert_eq!(command.lines(2), ["99998", "99999"]);
    }
}
