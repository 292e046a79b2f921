//! What AI tools use is counted on the way, and what they get is what their provider said.
//!
//! Wire: PROTOCOL.md, "llm_usage:batch".

use crate::support;
use crate::support::llm::{Provider, Rig, TOOL_KEY, answer, chunk, post};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc;

const ANTHROPIC: &str = r#"{"id":"msg_1","model":"claude-sonnet-4-5","content":[{"type":"text","text":"hello"}],"usage":{"input_tokens":25,"cache_creation_input_tokens":3,"cache_read_input_tokens":7,"output_tokens":12}}"#;
const OPENAI: &str = r#"{"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#;
const GOOGLE: &str = r#"{"modelVersion":"gemini-2.5-flash","usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"thoughtsTokenCount":20}}"#;
const COHERE: &str = r#"{"message":{},"usage":{"billed_units":{"input_tokens":5.0,"output_tokens":2.0}}}"#;

/// What is compared of a record.
fn compared(record: &Value) -> Value {
    let text = |name: &str| record[name].clone();
    json!([text("provider"), text("model"), text("inputTokens"), text("outputTokens"), text("cacheReadTokens")])
}

#[test]
fn answers_equal_direct_ones_and_are_counted() {
    let gzip = |body: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish()).expect("memory takes it")
    };
    let deflate = |body: &str| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish()).expect("memory takes it")
    };
    let json = "Content-Type: application/json\r\nX-Request-ID: req_1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
    let chunked = |coding: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{coding}{json}\r\n");
    let cut = |body: &str| {
        let (before, after) = body.split_at(body.len() / 2);
        format!("{}{}0\r\n\r\n", chunk(before), chunk(after))
    };
    let events = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n";
    let stream = format!("{events}{}0\r\n\r\n", chunk(&format!("data: {OPENAI}\n\ndata: [DONE]\n\n")));
    let of_anthropic = json!(["anthropic", "claude-sonnet-4-5", 25, 12, 7]);
    let cases: [(&str, Vec<u8>, Value); 8] = [
        ("anthropic/v1/messages", answer("200 OK", json, ANTHROPIC.as_bytes()), of_anthropic.clone()),
        ("anthropic/v1/messages", format!("{}{}", chunked(""), cut(ANTHROPIC)).into(), of_anthropic.clone()),
        (
            "anthropic/v1/messages",
            answer("200 OK", &format!("Content-Encoding: gzip\r\n{json}"), &gzip(ANTHROPIC)),
            of_anthropic,
        ),
        (
            "openai/chat/completions",
            answer("200 Fine", &format!("content-encoding: deflate\r\n{json}"), &deflate(OPENAI)),
            json!(["openai", "gpt-4o", 11, 5, 4]),
        ),
        ("groq/openai/v1/chat/completions", stream.into(), json!(["groq", "gpt-4o", 11, 5, 4])),
        (
            "google/v1beta/models/g:generateContent?alt=json&key=k",
            answer("200 OK", json, GOOGLE.as_bytes()),
            json!(["google", "gemini-2.5-flash", 4, 26, null]),
        ),
        // Cohere's answers name no model; the request does.
        ("cohere/v2/chat", answer("200 OK", json, COHERE.as_bytes()), json!(["cohere", "command-a", 5, 2, null])),
        (
            "azure/openai/deployments/d/x",
            answer("200 OK", json, OPENAI.as_bytes()),
            json!(["azure", "gpt-4o", 11, 5, 4]),
        ),
    ];
    let mut expected = Vec::new();
    let answers: Vec<Vec<u8>> = cases.iter().map(|(_, answer, _)| answer.clone()).collect();
    let turn = Mutex::new(0_usize);
    // Each is asked for twice: through the agent and directly.
    let provider = Provider::start(move |asked| {
        asked.body();
        let mut turn = turn.lock().expect("no panic");
        *turn += 1;
        asked.peer.say(&answers[(*turn - 1) / 2])
    });
    let rig = Rig::new(&provider);
    let (mut through, mut direct) = (rig.client(), provider.client());
    for (path, _, record) in cases {
        let body = r#"{"messages":[{"content":"hi"}],"model":"command-a"}"#;
        through.say(post(&format!("/v1/{path}"), body)).expect("it listens");
        let ours = through.hear();
        direct.say(post(&format!("/{path}"), body)).expect("it listens");
        let theirs = direct.hear();
        assert_eq!((ours.lines(), &ours.body), (theirs.lines(), &theirs.body), "{path}");
        expected.push(record);
    }
    let records = rig.records(expected.len());
    assert_eq!(records.iter().map(compared).collect::<Vec<_>>(), expected);
    for record in &records {
        assert_eq!((&record["costUsd"], &record["captureTier"]), (&json!(0), &json!("proxy")));
        assert!(record["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000), "{record}");
    }
    let ids: std::collections::BTreeSet<&str> =
        records.iter().filter_map(|record| record["traceId"].as_str()).collect();
    assert_eq!(ids.len(), records.len(), "each has an id of its own");
    let sent = provider.heads().concat();
    assert!(sent.contains("POST /v1/messages HTTP/1.1\r\n") && sent.contains("POST /v1/chat/completions HTTP/1.1\r\n"));
    assert!(sent.contains("POST /v1beta/models/g:generateContent?alt=json&key=k HTTP/1.1\r\n"), "{sent}");
    rig.agent.drain();
}

#[test]
fn events_arrive_one_by_one() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let provider = Provider::start(move |asked| {
        asked.body();
        asked.peer.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for number in 0..5 {
            asked.peer.say(chunk(&format!("data: {{\"usage\":{{\"prompt_tokens\":{number}}}}}\n\n")))?;
            // The next one only once this one was seen.
            wait.lock().expect("no panic").recv().expect("the test goes on");
        }
        asked.peer.say("0\r\n\r\n")
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    client.say(post("/v1/openai/chat/completions", r#"{"stream":true,"model":"m"}"#)).expect("it listens");
    client.until("\r\n\r\n");
    for number in 0..5 {
        client.until(&format!("{{\"prompt_tokens\":{number}}}}}\n\n"));
        go.send(()).expect("the provider waits");
    }
    client.until("0\r\n\r\n");
    assert_eq!(compared(&rig.records(1)[0]), json!(["openai", "m", 4, 0, null]));
    rig.agent.drain();
}

#[test]
fn cancelled_stream_ends_at_the_provider_and_is_counted() {
    let (gone, seen) = mpsc::channel();
    let gone = Mutex::new(gone);
    let provider = Provider::start(move |asked| {
        asked.body();
        asked.peer.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let start =
            r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":9,"output_tokens":1}}}"#;
        asked.peer.say(chunk(&format!("event: message_start\ndata: {start}\n\n")))?;
        gone.lock().expect("no panic").send(asked.peer.sees_the_end()).expect("the test waits");
        Err(std::io::ErrorKind::BrokenPipe.into())
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    client.say(post("/v1/anthropic/v1/messages", "{}")).expect("it listens");
    client.until("message_start\"");
    drop(client);
    assert!(seen.recv_timeout(support::WAIT_MAX).expect("the provider sees the end"));
    assert_eq!(compared(&rig.records(1)[0]), json!(["anthropic", "claude-x", 9, 1, null]));
    rig.agent.drain();
}

#[test]
fn answer_without_usage_sends_no_record() {
    let provider = Provider::start(|asked| {
        asked.body();
        let body = if asked.head.contains("/models ") { r#"{"data":[]}"# } else { OPENAI };
        asked.peer.say(answer("200 OK", "Content-Type: application/json\r\n", body.as_bytes()))
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    for path in ["/v1/openai/models", "/v1/openai/chat/completions"] {
        client.say(post(path, "{}")).expect("it listens");
        assert_eq!(client.hear().status(), 200);
    }
    assert_eq!(rig.records(1).iter().map(compared).collect::<Vec<_>>(), [json!(["openai", "gpt-4o", 11, 5, 4])]);
    rig.agent.drain();
    assert_eq!(rig.records(1).len(), 1, "the drain sends no other");
}

#[test]
fn records_that_wait_are_sent_when_the_agent_stops() {
    let provider = Provider::answering(answer("200 OK", "Content-Type: application/json\r\n", OPENAI.as_bytes()));
    let upstream = format!("https://{}", provider.address);
    let rig = Rig::with(|setup| {
        let setup = setup.env("SINDRI_AGENT_CA_FILE", provider.authority.file());
        setup.env("SINDRI_LLM_UPSTREAM_OPENAI", upstream).env("SINDRI_LLM_REPORT_INTERVAL", "86400")
    });
    rig.console.event("connect");
    let mut client = rig.client();
    for _ in 0..3 {
        client.say(post("/v1/openai/responses", "{}")).expect("it listens");
        client.hear();
    }
    rig.agent.drain();
    let batches = rig.console.frames("llm_usage:batch");
    let sizes: Vec<Option<usize>> =
        batches.iter().map(|batch| batch.payload()["records"].as_array().map(Vec::len)).collect();
    assert_eq!(sizes, [Some(3)]);
}

#[test]
fn key_of_a_tool_is_seen_by_its_provider_alone() {
    let provider = Provider::answering(answer("401 No", "Content-Type: application/json\r\n", OPENAI.as_bytes()));
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    client.say(post(&format!("/v1/openai/x?key={TOOL_KEY}"), &format!("{{\"model\":\"{TOOL_KEY}x\"}}"))).expect("sent");
    client.hear();
    // One that cannot be passed on, and one that is refused.
    client.say(post(&format!("/v1/unknown/{TOOL_KEY}"), TOOL_KEY)).expect("sent");
    client.hear();
    rig.records(1);
    rig.agent.drain();
    assert!(provider.heads().concat().contains(TOOL_KEY));
    assert!(!rig.agent.log().text().contains(TOOL_KEY), "a log line holds it");
    let frames = rig.console.all(|record| format!("{record:?}").contains(TOOL_KEY));
    assert!(frames.is_empty(), "{frames:?}");
}
