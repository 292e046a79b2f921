//! Counts the tokens of an answer while it streams by.
//!
//! Plain answers, server-sent events and JSON lines are read by the same tables: a path in a document, and what stands
//! there. What comes later counts, because the numbers of a stream are cumulative. Nothing of an answer is kept but
//! these numbers and the model's name. Compressed answers are decompressed for it alone.
//!
//! The tables follow the providers' documentation of their answers; what each number means is theirs, too: OpenAI's
//! input tokens hold the cached ones, Anthropic's do not.

use super::events::{Lines, Part};
use super::inflate::Inflater;
use super::provider::Provider;
use super::scan::{Scalar, Scanner};

/// Longest name of a model that is kept, in bytes: the column of the console's page is no wider.
pub const MODEL_BYTES_MAX: usize = 128;

/// Most tokens that the console takes in one number; one that is larger loses the whole batch.
pub const TOKENS_MAX: u64 = i32::MAX as u64;

/// How much one piece of a compressed answer may become, in bytes. A piece is 64 KiB at most, and what an answer
/// really says is not 64 times as long: this is a bomb, and it would hold the loop up.
const EXPANDED_BYTES_MAX: usize = 4 << 20;

/// How much of an unknown compression's name is logged.
const CODING_CHARACTERS_MAX: usize = 32;

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

/// What an answer says of its usage.
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
pub(super) fn tokens(text: &str) -> Option<u64> {
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
pub struct Counter {
    reader: Reader,
    /// Nothing for an answer that is not compressed.
    inflater: Option<Inflater>,
    /// It is not what its headers say; what was counted before stands.
    is_broken: bool,
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
        let inflater = match content_encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(Inflater::gzip()),
            "deflate" => Some(Inflater::zlib()),
            other => {
                let coding = other.chars().filter(char::is_ascii_graphic).take(CODING_CHARACTERS_MAX).collect();
                return Err(Uncounted::Compressed(coding));
            }
        };
        let (scanner, tally) = (Scanner::default(), Tally::default());
        Ok(Self { reader: Reader { events, scanner, tally, tables: provider.tables }, inflater, is_broken: false })
    }

    /// Takes the next piece of the body. One that cannot be decompressed ends the counting.
    pub fn feed(&mut self, piece: &[u8]) {
        let Self { reader, inflater, is_broken } = self;
        match inflater {
            None => reader.feed(piece),
            Some(_) if *is_broken => {}
            Some(inflater) => {
                *is_broken = inflater.feed(piece, EXPANDED_BYTES_MAX, |part| reader.feed(part)).is_err();
            }
        }
    }

    /// What the answer has said so far, if it said anything.
    pub fn usage(&self) -> Option<Usage> {
        self.reader.tally.usage()
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
}

impl Reader {
    fn feed(&mut self, piece: &[u8]) {
        let Self { events, scanner, tally, tables } = self;
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
