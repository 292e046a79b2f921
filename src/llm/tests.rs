//! What is counted in answers of every provider, however they are cut and compressed.

use super::provider::PROVIDERS;
use super::usage::*;
use super::usage::{model, tokens};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use std::io::{self, Write};

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
    for body in ["", "{}", r#"{"error":{"type":"overloaded_error"}}"#, r#"{"input_tokens":14}"#, "nonsense", "\0\u{1}"]
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
    [&br#"{"messages":[{"model":"no"}],"mod"#[..], br#"el":"command-r","x":1}"#].iter().for_each(|p| finder.feed(p));
    assert_eq!(finder.take().as_deref(), Some("command-r"));
}
