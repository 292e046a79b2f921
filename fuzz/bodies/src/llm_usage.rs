//! Any bytes, as a provider's answer: what is counted in it.
//!
//! The first byte chooses the provider, the second the type, the compression and the pieces; the others are the body.
//! It promises (PROTOCOL.md, "llm_usage:batch") that
//!
//! - counting never panics, and what it holds is bounded, however long a body is or becomes;
//! - an answer that is not compressed means the same however it is cut;
//! - what is reported fits a record: no control characters, a bounded name, numbers of 31 bits;
//! - of a document that a JSON parser reads, the count of Google's tokens is what stands in the tree.

use crate::heap;
use draupnir::llm::provider::PROVIDERS;
use draupnir::llm::usage::{Counter, MODEL_BYTES_MAX, TOKENS_MAX, Usage};
use serde_json::Value;

/// Most bytes that counting holds at once: the state of a decompressor, its buffer and its window.
const BYTES_MAX: usize = 256 * 1024;

/// Deepest document that is compared with its tree: the counter follows no deeper.
const DEPTH_MAX: usize = 60;

const TYPES: [&str; 4] = ["application/json", "text/event-stream", "application/x-ndjson", "application/json"];

const CODINGS: [&str; 4] = ["", "", "gzip", "deflate"];

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let [provider, choice, body @ ..] = input else { return };
    let name = PROVIDERS[usize::from(*provider) % PROVIDERS.len()].name;
    let (content_type, coding) = (TYPES[usize::from(choice & 3)], CODINGS[usize::from(choice >> 2 & 3)]);
    let piece_bytes = [1, 2, 3, 7, 64, 1000, 4096, usize::MAX][usize::from(choice >> 4 & 7)];
    let (usage, taken) = heap::taken_by(|| counted(name, content_type, coding, body, piece_bytes));
    assert!(taken.at_once <= BYTES_MAX, "{} bytes held for {}", taken.at_once, body.len());
    if let Some(usage) = &usage {
        fits_a_record(usage);
    }
    if coding.is_empty() {
        assert_eq!(usage, counted(name, content_type, coding, body, usize::MAX), "in pieces of {piece_bytes} bytes");
        agrees_with_the_tree(body);
    }
}

fn counted(name: &str, content_type: &str, coding: &str, body: &[u8], piece_bytes: usize) -> Option<Usage> {
    let provider = PROVIDERS.iter().find(|provider| provider.name == name).expect("one of them");
    let mut counter = Counter::new(provider, content_type, coding).expect("all of these can be read");
    // The proxy's pieces are 64 KiB at most.
    body.chunks(piece_bytes.min(64 << 10)).for_each(|piece| counter.feed(piece));
    counter.usage()
}

fn fits_a_record(usage: &Usage) {
    let numbers =
        [Some(usage.input_tokens), Some(usage.output_tokens), usage.cache_read_tokens, usage.cache_write_tokens];
    assert!(numbers.into_iter().flatten().all(|number| number <= TOKENS_MAX), "{usage:?}");
    if let Some(model) = &usage.model {
        assert!(!model.is_empty() && model.len() <= MODEL_BYTES_MAX && !model.contains(char::is_control), "{model:?}");
    }
}

/// The document is written down again first: of a key that stands twice, a tree keeps one.
fn agrees_with_the_tree(body: &[u8]) {
    let Ok(tree) = serde_json::from_slice::<Value>(body) else { return };
    let elsewhere = ["usage", "x_groq", "response"];
    if !tree.is_object() || depth(&tree) > DEPTH_MAX || elsewhere.iter().any(|key| tree.get(key).is_some()) {
        return;
    }
    let text = tree.to_string();
    let usage = counted("google", "application/json", "", text.as_bytes(), usize::MAX).unwrap_or_default();
    let number = |name: &str| match &tree["usageMetadata"][name] {
        Value::Number(number) if number.is_u64() => number.as_u64(),
        Value::Number(number) => number
            .as_f64()
            .filter(|float| *float >= 0.0)
            .map(|float| format!("{:.0}", float.round()).parse().unwrap_or(u64::MAX)),
        _ => None,
    };
    let capped = |number: Option<u64>| number.unwrap_or(0).min(TOKENS_MAX);
    assert_eq!(usage.input_tokens, capped(number("promptTokenCount")), "{text}");
    let (output, thoughts) = (capped(number("candidatesTokenCount")), capped(number("thoughtsTokenCount")));
    assert_eq!(usage.output_tokens, (output + thoughts).min(TOKENS_MAX), "{text}");
}

fn depth(tree: &Value) -> usize {
    match tree {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
