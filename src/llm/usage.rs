//! Counts the tokens of an answer while it streams by.
//!
//! Plain answers, server-sent events and JSON lines are read by the same tables: a path in a document, and what stands
//! there. What comes later counts, because the numbers of a stream are cumulative. Nothing of an answer is kept but
//! these numbers and the model's name. Compressed answers are decompressed for it alone.
//!
//! The tables follow the providers' documentation of their answers; what each number means is theirs, too: OpenAI's
//! input tokens hold the cached ones, Anthropic's do not.

use super::provider::Provider;
use super::scan::{Scalar, Scanner};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use std::io::{self, Write};

/// Longest name of a model that is kept, in bytes: the column of the console's page is no wider.
pub const MODEL_BYTES_MAX: usize = 128;

/// Most tokens that the console takes in one number; one that is larger loses the whole batch.
pub const TOKENS_MAX: u64 = i32::MAX as u64;

/// How much one piece of a compressed answer may become, in bytes. A piece is 64 KiB at most, and what an answer
/// really says is not 64 times as long: this is a bomb, and it would hold the loop up.
const EXPANDED_BYTES_MAX: usize = 4 << 20;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The model's name.
    Model,
    /// Input tokens.
    Input,
    /// Output tokens.
    Output,
    /// Output tokens that are not among [`Field::Output`].
    Thoughts,
    /// Input tokens, where [`Field::Input`] does not stand.
    InputElse,
    /// Output tokens, where [`Field::Output`] does not stand.
    OutputElse,
    /// Input tokens that were read from the provider's cache.
    CacheRead,
    /// Input tokens that were written to the provider's cache.
    CacheWrite,
}

/// How many fields hold a number.
const FIELDS: usize = Field::CacheWrite as usize + 1;

/// Paths, and what stands there.
pub(super) type Table = &'static [(&'static str, Field)];

/// Messages, whole and as events.
pub(super) const ANTHROPIC: Table = &[
    ("model", Field::Model),
    ("message.model", Field::Model),
    ("usage.input_tokens", Field::Input),
    ("usage.output_tokens", Field::Output),
    ("usage.cache_read_input_tokens", Field::CacheRead),
    ("usage.cache_creation_input_tokens", Field::CacheWrite),
    ("message.usage.input_tokens", Field::Input),
    ("message.usage.output_tokens", Field::Output),
    ("message.usage.cache_read_input_tokens", Field::CacheRead),
    ("message.usage.cache_creation_input_tokens", Field::CacheWrite),
];

/// Chat completions, embeddings and responses, whole and as events; Groq's own place for usage.
pub(super) const OPENAI: Table = &[
    ("model", Field::Model),
    ("response.model", Field::Model),
    ("usage.prompt_tokens", Field::Input),
    ("usage.completion_tokens", Field::Output),
    ("usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
    ("usage.input_tokens", Field::Input),
    ("usage.output_tokens", Field::Output),
    ("usage.input_tokens_details.cached_tokens", Field::CacheRead),
    ("response.usage.input_tokens", Field::Input),
    ("response.usage.output_tokens", Field::Output),
    ("response.usage.input_tokens_details.cached_tokens", Field::CacheRead),
    ("x_groq.usage.prompt_tokens", Field::Input),
    ("x_groq.usage.completion_tokens", Field::Output),
    ("x_groq.usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
];

/// Generated content, whole, as events and as a list.
pub(super) const GOOGLE: Table = &[
    ("modelVersion", Field::Model),
    ("usageMetadata.promptTokenCount", Field::Input),
    ("usageMetadata.candidatesTokenCount", Field::Output),
    ("usageMetadata.thoughtsTokenCount", Field::Thoughts),
    ("usageMetadata.cachedContentTokenCount", Field::CacheRead),
];

/// Chats of both versions, whole and as events. What is billed counts before what was read and written.
pub(super) const COHERE: Table = &[
    ("meta.billed_units.input_tokens", Field::Input),
    ("meta.billed_units.output_tokens", Field::Output),
    ("meta.tokens.input_tokens", Field::InputElse),
    ("meta.tokens.output_tokens", Field::OutputElse),
    ("response.meta.billed_units.input_tokens", Field::Input),
    ("response.meta.billed_units.output_tokens", Field::Output),
    ("response.meta.tokens.input_tokens", Field::InputElse),
    ("response.meta.tokens.output_tokens", Field::OutputElse),
    ("usage.billed_units.input_tokens", Field::Input),
    ("usage.billed_units.output_tokens", Field::Output),
    ("usage.tokens.input_tokens", Field::InputElse),
    ("usage.tokens.output_tokens", Field::OutputElse),
    ("delta.usage.billed_units.input_tokens", Field::Input),
    ("delta.usage.billed_units.output_tokens", Field::Output),
    ("delta.usage.tokens.input_tokens", Field::InputElse),
    ("delta.usage.tokens.output_tokens", Field::OutputElse),
];

/// Its own chats and completions.
pub(super) const OLLAMA: Table =
    &[("model", Field::Model), ("prompt_eval_count", Field::Input), ("eval_count", Field::Output)];

/// What an answer told of its usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model, as the answer names it.
    pub model: Option<String>,
    /// Input tokens, in the provider's own sense.
    pub input_tokens: u64,
    /// Output tokens, thoughts included.
    pub output_tokens: u64,
    /// Input tokens that came from the provider's cache, where it tells them.
    pub cache_read_tokens: Option<u64>,
    /// Input tokens that went into the provider's cache, where it tells them.
    pub cache_write_tokens: Option<u64>,
}

/// The numbers so far.
#[derive(Debug, Default)]
struct Tally {
    model: Option<String>,
    numbers: [Option<u64>; FIELDS],
}

impl Tally {
    fn take(&mut self, tables: &[Table], path: &str, value: Scalar<'_>) {
        let field = tables.iter().copied().flatten().find_map(|(known, field)| (*known == path).then_some(*field));
        match (field, value) {
            (Some(Field::Model), Scalar::Text(text)) => self.model = model(text).or(self.model.take()),
            (Some(Field::Model) | None, _) | (Some(_), Scalar::Text(_)) => {}
            (Some(field), Scalar::Literal(text)) => {
                if let (Some(number), Some(place)) = (tokens(text), self.numbers.get_mut(field as usize)) {
                    *place = Some(number);
                }
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        let number = |field: Field| self.numbers.get(field as usize).copied().flatten();
        let input = number(Field::Input).or(number(Field::InputElse));
        let output = match (number(Field::Output).or(number(Field::OutputElse)), number(Field::Thoughts)) {
            (None, None) => None,
            (output, thoughts) => Some((output.unwrap_or(0) + thoughts.unwrap_or(0)).min(TOKENS_MAX)),
        };
        (input.is_some() || output.is_some()).then(|| Usage {
            model: self.model.clone(),
            input_tokens: input.unwrap_or(0),
            output_tokens: output.unwrap_or(0),
            cache_read_tokens: number(Field::CacheRead),
            cache_write_tokens: number(Field::CacheWrite),
        })
    }
}

/// A name as it stood between quotes, without control characters and within its bound.
pub(super) fn model(quoted: &str) -> Option<String> {
    let text: String = serde_json::from_str(&format!("\"{quoted}\"")).ok()?;
    let text = text.strip_prefix("models/").unwrap_or(&text);
    let mut name: String = text.chars().filter(|c| !c.is_control()).collect();
    if name.len() > MODEL_BYTES_MAX {
        name.truncate(name.floor_char_boundary(MODEL_BYTES_MAX));
    }
    (!name.is_empty()).then_some(name)
}

/// A number of tokens; Cohere's have a fraction of 0.
fn tokens(text: &str) -> Option<u64> {
    let whole = text.parse::<u64>().ok();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    let rounded = || text.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number.round() as u64);
    whole.or_else(rounded).map(|number| number.min(TOKENS_MAX))
}

/// Finds one text in a document that streams by: the model that a request asks for.
#[derive(Debug, Default)]
pub(super) struct ModelFinder {
    scanner: Scanner,
    model: Option<String>,
}

impl ModelFinder {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        if self.model.is_none() {
            self.scanner.feed(piece, &mut |path, value| {
                if let ("model", Scalar::Text(text)) = (path, value) {
                    self.model = model(text);
                }
            });
        }
    }

    pub(super) fn take(&mut self) -> Option<String> {
        self.model.take()
    }
}

/// Counts one answer.
#[derive(Debug)]
pub struct Counter(Coding);

#[derive(Debug)]
enum Coding {
    Plain(Box<Reader>),
    Gzip(Box<MultiGzDecoder<Reader>>),
    Zlib(Box<ZlibDecoder<Reader>>),
}

/// Why an answer is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncounted {
    /// It is no JSON.
    OtherType,
    /// It is compressed in a way that the agent cannot read.
    Compressed(String),
}

impl Counter {
    /// A counter for an answer of this provider with these headers.
    ///
    /// # Errors
    /// It cannot tell its usage.
    pub fn new(provider: &Provider, content_type: &str, content_encoding: &str) -> Result<Self, Uncounted> {
        let content_type = content_type.to_ascii_lowercase();
        let events = content_type.starts_with("text/event-stream").then(Lines::default);
        if events.is_none() && !content_type.contains("json") {
            return Err(Uncounted::OtherType);
        }
        let reader = Reader {
            events,
            scanner: Scanner::default(),
            tally: Tally::default(),
            tables: provider.tables,
            room_bytes: EXPANDED_BYTES_MAX,
        };
        match content_encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self(Coding::Plain(Box::new(reader)))),
            "gzip" | "x-gzip" => Ok(Self(Coding::Gzip(Box::new(MultiGzDecoder::new(reader))))),
            "deflate" => Ok(Self(Coding::Zlib(Box::new(ZlibDecoder::new(reader))))),
            other => Err(Uncounted::Compressed(other.chars().filter(char::is_ascii_graphic).take(32).collect())),
        }
    }

    /// Takes the next piece of the body. One that cannot be decompressed ends the counting.
    pub fn feed(&mut self, piece: &[u8]) {
        let reader = match &mut self.0 {
            Coding::Plain(reader) => return reader.feed(piece),
            Coding::Gzip(decoder) => decoder.get_mut(),
            Coding::Zlib(decoder) => decoder.get_mut(),
        };
        if reader.room_bytes == 0 {
            return;
        }
        reader.room_bytes = EXPANDED_BYTES_MAX;
        // Flushed, because the decoder holds back what a cancelled answer would never make it give.
        let outcome = match &mut self.0 {
            Coding::Plain(_) => Ok(()),
            Coding::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Coding::Zlib(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        };
        if outcome.is_err() {
            self.reader_mut().room_bytes = 0;
        }
    }

    /// What the answer has told so far, if it told anything.
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            Coding::Plain(reader) => reader.tally.usage(),
            Coding::Gzip(decoder) => decoder.get_ref().tally.usage(),
            Coding::Zlib(decoder) => decoder.get_ref().tally.usage(),
        }
    }

    fn reader_mut(&mut self) -> &mut Reader {
        match &mut self.0 {
            Coding::Plain(reader) => reader,
            Coding::Gzip(decoder) => decoder.get_mut(),
            Coding::Zlib(decoder) => decoder.get_mut(),
        }
    }
}

/// Reads what is not compressed, or is no longer.
#[derive(Debug)]
struct Reader {
    /// Where it is in the lines of server-sent events; nothing for other answers.
    events: Option<Lines>,
    scanner: Scanner,
    tally: Tally,
    tables: &'static [Table],
    /// How much more the piece in hand may become, in bytes; 0 once something was wrong.
    room_bytes: usize,
}

impl Reader {
    fn feed(&mut self, piece: &[u8]) {
        let Self { events, scanner, tally, tables, room_bytes: _ } = self;
        let mut found = |path: &str, value: Scalar<'_>| tally.take(tables, path, value);
        match events {
            None => scanner.feed(piece, &mut found),
            Some(lines) => lines.feed(piece, |part| match part {
                Part::Data(data) => scanner.feed(data, &mut found),
                Part::End => scanner.reset(),
            }),
        }
    }
}

impl Write for Reader {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let Some(room_bytes) = self.room_bytes.checked_sub(piece.len()) else {
            return Err(io::Error::other("it becomes too long"));
        };
        self.room_bytes = room_bytes;
        self.feed(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Server-sent events: the data of `data:` lines, and where an event ends. (HTML standard, section 9.2.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lines {
    /// So many bytes of `data:` have come; at 0, a line begins.
    Begun(usize),
    Data,
    /// In a line that is no data.
    Other,
    /// After a CR: a line begins, unless an LF belongs to it.
    AfterCr,
    #[default]
    Start,
}

enum Part<'a> {
    Data(&'a [u8]),
    /// The event is over.
    End,
}

const FIELD: &[u8] = b"data:";

impl Lines {
    fn feed(&mut self, piece: &[u8], mut take: impl FnMut(Part<'_>)) {
        let mut rest = piece;
        while let Some((byte, after)) = rest.split_first() {
            let is_end = matches!(byte, b'\n' | b'\r');
            (*self, rest) = match *self {
                Self::AfterCr if *byte == b'\n' => (Self::Start, after),
                Self::AfterCr => (Self::Start, rest),
                Self::Start if is_end => {
                    take(Part::End);
                    (Self::of_end(*byte), after)
                }
                Self::Start => (Self::Begun(0), rest),
                Self::Begun(_) | Self::Other if is_end => (Self::of_end(*byte), after),
                Self::Begun(count) if FIELD.get(count) == Some(byte) => {
                    (if count + 1 == FIELD.len() { Self::Data } else { Self::Begun(count + 1) }, after)
                }
                Self::Begun(_) => (Self::Other, after),
                Self::Other => (Self::Other, rest.get(end_of_line(rest)..).unwrap_or_default()),
                Self::Data => {
                    let (data, tail) = rest.split_at(end_of_line(rest));
                    take(Part::Data(data));
                    match tail.split_first() {
                        None => (Self::Data, tail),
                        Some((end, after)) => {
                            // Lines of one event belong together; within JSON the break is a blank.
                            take(Part::Data(b"\n"));
                            (Self::of_end(*end), after)
                        }
                    }
                }
            };
        }
    }

    fn of_end(byte: u8) -> Self {
        if byte == b'\r' { Self::AfterCr } else { Self::Start }
    }
}

/// Where the line ends, in bytes; behind the piece where it does not.
fn end_of_line(rest: &[u8]) -> usize {
    memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::super::provider::PROVIDERS;
    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream; charset=utf-8";

    fn counted(provider: &str, content_type: &str, coding: &str, pieces: &[&[u8]]) -> Option<Usage> {
        let provider = PROVIDERS.iter().find(|known| known.name == provider).expect(provider);
        let mut counter = Counter::new(provider, content_type, coding).expect("it can be read");
        pieces.iter().for_each(|piece| counter.feed(piece));
        counter.usage()
    }

    /// An answer, and what it tells: model, input, output, read from and written to the cache.
    type Case = (&'static str, &'static str, &'static str, (&'static str, u64, u64, Option<u64>, Option<u64>));

    const CASES: &[Case] = &[
        (
            "anthropic",
            JSON,
            r#"{"id":"msg_1","model":"claude-sonnet-4-5","content":[{"type":"text","text":"{\"usage\":{\"input_tokens\":9}}"}],
               "usage":{"input_tokens":25,"cache_creation_input_tokens":3,"cache_read_input_tokens":7,"output_tokens":12}}"#,
            ("claude-sonnet-4-5", 25, 12, Some(7), Some(3)),
        ),
        (
            "anthropic",
            EVENTS,
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-x\",\"usage\":\
             {\"input_tokens\":25,\"cache_read_input_tokens\":7,\"cache_creation_input_tokens\":0,\"output_tokens\":1}}}\n\n\
             event: ping\ndata: {\"type\":\"ping\"}\n\n: a comment\n\n\
             event: content_block_delta\r\ndata: {\"delta\":{\"text\":\"data: {\\\"usage\\\":1}\\n\"}}\r\n\r\n\
             event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n",
            ("claude-x", 25, 15, Some(7), Some(0)),
        ),
        (
            "openai",
            JSON,
            r#"{"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":4}}}"#,
            ("gpt-4o", 11, 5, Some(4), None),
        ),
        (
            "azure",
            JSON,
            r#"{"model":"gpt-5","output":[],"usage":{"input_tokens":11,"input_tokens_details":{"cached_tokens":0},"output_tokens":5}}"#,
            ("gpt-5", 11, 5, Some(0), None),
        ),
        (
            "openai",
            EVENTS,
            "data: {\"model\":\"gpt-4o\",\"choices\":[{\"delta\":{\"content\":\"usage\"}}],\"usage\":null}\n\n\
             data: {\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n",
            ("gpt-4o", 8, 3, None, None),
        ),
        (
            "openai",
            EVENTS,
            "event: response.created\ndata: {\"response\":{\"model\":\"gpt-5\",\"usage\":null}}\n\n\
             event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt-5-2\",\
             \"usage\":{\"input_tokens\":36,\"input_tokens_details\":{\"cached_tokens\":2},\"output_tokens\":87}}}\n\n",
            ("gpt-5-2", 36, 87, Some(2), None),
        ),
        (
            "groq",
            EVENTS,
            "data: {\"model\":\"llama\",\"choices\":[]}\n\n\
             data: {\"model\":\"llama\",\"x_groq\":{\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":6}}}\n\n",
            ("llama", 4, 6, None, None),
        ),
        (
            "google",
            JSON,
            r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"modelVersion":"gemini-2.5-flash","usageMetadata":
               {"promptTokenCount":4,"candidatesTokenCount":6,"thoughtsTokenCount":20,"cachedContentTokenCount":1,"totalTokenCount":30}}"#,
            ("gemini-2.5-flash", 4, 26, Some(1), None),
        ),
        (
            "google",
            EVENTS,
            "data: {\"usageMetadata\":{\"promptTokenCount\":4},\"modelVersion\":\"g\"}\r\n\r\n\
             data: {\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":9},\"modelVersion\":\"g\"}\r\n\r\n",
            ("g", 4, 9, None, None),
        ),
        (
            "google",
            JSON,
            "[{\"usageMetadata\":{\"promptTokenCount\":4},\"modelVersion\":\"g\"}\n,\r\n\
             {\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":9},\"modelVersion\":\"g\"}\n]",
            ("g", 4, 9, None, None),
        ),
        (
            "cohere",
            JSON,
            r#"{"text":"hi","meta":{"api_version":{"version":"1"},"billed_units":{"input_tokens":5.0,"output_tokens":2.0},"tokens":{"input_tokens":71.0,"output_tokens":2.0}}}"#,
            ("", 5, 2, None, None),
        ),
        (
            "cohere",
            "application/stream+json",
            "{\"event_type\":\"text-generation\",\"text\":\"x\"}\n\
             {\"event_type\":\"stream-end\",\"response\":{\"meta\":{\"billed_units\":{\"input_tokens\":3,\"output_tokens\":4}}}}\n",
            ("", 3, 4, None, None),
        ),
        (
            "cohere",
            JSON,
            r#"{"message":{},"usage":{"tokens":{"input_tokens":6,"output_tokens":7}}}"#,
            ("", 6, 7, None, None),
        ),
        (
            "cohere",
            EVENTS,
            "event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"usage\":{\"billed_units\":{\"input_tokens\":1,\
             \"output_tokens\":2},\"tokens\":{\"input_tokens\":8,\"output_tokens\":2}}}}\n\n",
            ("", 1, 2, None, None),
        ),
        (
            "ollama",
            "application/x-ndjson",
            "{\"model\":\"llama3\",\"done\":false}\n{\"model\":\"llama3\",\"done\":true,\"prompt_eval_count\":26,\"eval_count\":298}\n",
            ("llama3", 26, 298, None, None),
        ),
    ];

    #[test]
    fn every_shape_of_answer_is_counted_however_it_is_cut() {
        for (provider, content_type, body, (model, input, output, read, write)) in CASES {
            let expected = Usage {
                model: Some(*model).filter(|model| !model.is_empty()).map(str::to_owned),
                input_tokens: *input,
                output_tokens: *output,
                cache_read_tokens: *read,
                cache_write_tokens: *write,
            };
            let body = body.as_bytes();
            let zlib = compressed(ZlibEncoder::new(Vec::new(), Compression::default()), body, ZlibEncoder::finish);
            let gzip = compressed(GzEncoder::new(Vec::new(), Compression::default()), body, GzEncoder::finish);
            for (coding, bytes) in [("", body), ("gzip", &gzip), ("Deflate", &zlib)] {
                for size in [1, 7, bytes.len()] {
                    let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                    let usage = counted(provider, content_type, coding, &pieces);
                    assert_eq!(usage.as_ref(), Some(&expected), "{provider} {content_type} {coding:?} {size}");
                }
                for cut in 0..=bytes.len() {
                    let (before, after) = bytes.split_at(cut);
                    let usage = counted(provider, content_type, coding, &[before, after]);
                    assert_eq!(usage.as_ref(), Some(&expected), "{provider} {content_type} {coding:?} cut at {cut}");
                }
            }
        }
    }

    fn compressed<E: Write>(mut encoder: E, body: &[u8], finish: fn(E) -> io::Result<Vec<u8>>) -> Vec<u8> {
        encoder.write_all(body).and_then(|()| finish(encoder)).expect("memory takes it")
    }

    #[test]
    fn answer_without_usage_tells_none() {
        for body in
            ["", "{}", r#"{"error":{"type":"overloaded_error"}}"#, r#"{"input_tokens":14}"#, "nonsense", "\0\u{1}"]
        {
            assert_eq!(counted("anthropic", JSON, "", &[body.as_bytes()]), None, "{body}");
        }
        let openai = &PROVIDERS[1];
        assert_eq!(Counter::new(openai, "image/png", "").err(), Some(Uncounted::OtherType));
        assert_eq!(Counter::new(openai, JSON, "br").err(), Some(Uncounted::Compressed("br".to_owned())));
        assert_eq!(counted("openai", JSON, "gzip", &[b"no gzip", b"at all"]), None);
    }

    #[test]
    fn numbers_and_names_stay_within_what_the_console_takes() {
        let body = r#"{"model":"a\u0000b\nc","usage":{"prompt_tokens":99999999999999999999,"completion_tokens":-5,"total_tokens":1}}"#;
        let usage = counted("openai", JSON, "", &[body.as_bytes()]).expect("usage");
        assert_eq!((usage.model.as_deref(), usage.input_tokens, usage.output_tokens), (Some("abc"), TOKENS_MAX, 0));
        let long = model(&"é".repeat(100)).expect("a name");
        assert_eq!(long.len(), MODEL_BYTES_MAX);
        assert_eq!((model("models/gemini"), model(""), model("\\u000")), (Some("gemini".to_owned()), None, None));
        assert_eq!(
            (tokens("1e3"), tokens("12.0"), tokens("null"), tokens("1e99")),
            (Some(1000), Some(12), None, Some(TOKENS_MAX))
        );
    }

    #[test]
    fn compressed_bomb_ends_the_counting() {
        let blanks = vec![b' '; 8 << 20];
        let gzip = compressed(GzEncoder::new(Vec::new(), Compression::best()), &blanks, GzEncoder::finish);
        assert!(gzip.len() < 64 << 10, "one piece: {}", gzip.len());
        let end = br#"{"usage":{"prompt_tokens":1}}"#;
        let more = compressed(GzEncoder::new(Vec::new(), Compression::best()), end, GzEncoder::finish);
        assert_eq!(counted("openai", JSON, "gzip", &[&gzip, &more]), None);
        assert!(counted("openai", JSON, "gzip", &[&more]).is_some());
    }

    #[test]
    fn model_of_a_request_is_found_once() {
        let mut finder = ModelFinder::default();
        [&br#"{"messages":[{"model":"no"}],"mod"#[..], br#"el":"command-r","x":1}"#]
            .iter()
            .for_each(|p| finder.feed(p));
        assert_eq!(finder.take().as_deref(), Some("command-r"));
    }
}
