//! The proxy of AI tools changes nothing that a tool notices: HTTP/1.1 as it is on the wire, both ways.

use crate::support;
use crate::support::llm::{Provider, Rig, answer, chunk, post};
use crate::support::mentions;
use std::io::ErrorKind;
use std::net::SocketAddr;

const JSON: &str = "Content-Type: application/json\r\n";

/// Both directions of the largest body, in bytes.
const LARGE: usize = 100 << 20;

/// What the agent may take for it beyond what it takes anyway, in bytes: buffers, not bodies.
const GROWTH_MAX: u64 = 8 << 20;

#[test]
fn connections_are_kept_on_both_sides() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    for _ in 0..10 {
        client.say(post("/v1/openai/models", "{}")).expect("sent");
        assert_eq!(client.hear().status(), 200);
    }
    assert_eq!(provider.connections(), 1);
    drop(client);
    let mut client = rig.client();
    client.say(post("/v1/openai/models", "{}")).expect("sent");
    client.hear();
    assert_eq!(provider.connections(), 1, "another client goes on with it");
    rig.agent.drain();
}

#[test]
fn connection_that_the_provider_closed_is_replaced() {
    let provider = Provider::start(|asked| {
        asked.body();
        asked.peer.say(answer("200 OK", JSON, b"{}"))?;
        // It does not say that it closes, as servers do after their idle time.
        Err(ErrorKind::BrokenPipe.into())
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    for number in 1..=20 {
        client.say(post("/v1/openai/models", "{}")).expect("sent");
        assert_eq!(client.hear().status(), 200);
        assert_eq!(provider.connections(), number);
        // The next request comes at once: the agent may not have noticed the close by then.
        provider.wait_closed();
    }
    rig.agent.drain();
}

#[test]
fn errors_of_the_provider_pass_unchanged() {
    let statuses = ["400 Bad Request", "401 Unauthorized", "429 Slow", "500 Oh", "529 Overloaded", "302 Found"];
    let provider = Provider::start(move |asked| {
        asked.body();
        let number: usize = asked.head.split('/').nth(3).and_then(|n| n[..1].parse().ok()).expect("a number");
        let headers = format!("{JSON}Retry-After: 7\r\nLocation: /elsewhere\r\n");
        asked.peer.say(answer(statuses[number], &headers, br#"{"error":{"type":"of the provider"}}"#))
    });
    let rig = Rig::new(&provider);
    let (mut through, mut direct) = (rig.client(), provider.client());
    for number in 0..statuses.len() {
        through.say(post(&format!("/v1/openai/v1/x/{number}"), "{}")).expect("sent");
        direct.say(post(&format!("/v1/x/{number}"), "{}")).expect("sent");
        let (ours, theirs) = (through.hear(), direct.hear());
        assert_eq!((ours.lines(), &ours.body), (theirs.lines(), &theirs.body));
    }
    rig.agent.drain();
}

#[test]
fn client_that_waits_for_100_gets_it() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    let head = "POST /v1/openai/files HTTP/1.1\r\nHost: [::1]\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.say(head).expect("sent");
    assert_eq!(client.hear().status(), 100);
    client.say("abc").expect("sent");
    assert_eq!(client.hear().status(), 200);
    rig.agent.drain();
}

#[test]
fn chunked_request_and_head_request_pass() {
    let provider = Provider::start(|asked| {
        let body = asked.body();
        if asked.head.starts_with("HEAD ") {
            return asked.peer.say("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n");
        }
        asked.peer.say(answer("200 OK", JSON, &body))
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    let head = "POST /v1/openai/files HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.say(format!("{head}{}{}0\r\n\r\n", chunk("some "), chunk("words"))).expect("sent");
    assert_eq!(client.hear().body, b"some words");
    client.say("HEAD /v1/openai/files HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert!(client.until("\r\n\r\n").contains("17\r\n"));
    client.say(post("/v1/openai/files", "next")).expect("sent");
    assert_eq!(client.hear().body, b"next", "no body was waited for");
    rig.agent.drain();
}

#[test]
fn large_bodies_take_no_memory() {
    let provider = Provider::start(|asked| {
        let length = asked.body_length();
        let head = format!("HTTP/1.1 200 OK\r\nX-Length: {length}\r\nContent-Length: {LARGE}\r\n{JSON}\r\n[");
        asked.peer.say(head)?;
        // A list of long texts, which the counter reads from end to end.
        let piece = format!("\"{}\",\n", "x".repeat((64 << 10) - 4)).into_bytes();
        let mut left = LARGE - 1;
        while left > 0 {
            let count = left.min(piece.len());
            asked.peer.say(&piece[..count])?;
            left -= count;
        }
        Ok(())
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    client.say(post("/v1/openai/files", "{}")).expect("sent");
    client.hear_length();
    let before = rig.agent.process().peak_bytes();
    let head = "POST /v1/openai/files HTTP/1.1\r\nHost: localhost\r\n";
    client.say(format!("{head}Content-Length: {LARGE}\r\n\r\n[")).expect("sent");
    let piece = vec![b'x'; 64 << 10];
    let mut left = LARGE - 1;
    while left > 0 {
        let count = left.min(piece.len());
        client.say(&piece[..count]).expect("sent");
        left -= count;
    }
    assert_eq!(client.hear_length(), LARGE);
    // The kernel counts roughly: a peak may come out lower than before.
    let growth = rig.agent.process().peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    rig.agent.drain();
}

#[test]
fn both_loopback_addresses_lead_to_the_proxy() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let rig = Rig::new(&provider);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return support::skip("both_loopback_addresses_lead_to_the_proxy", "this machine has no IPv6");
    }
    rig.agent.wait_log(|line| mentions(line, &format!("[::1]:{}", rig.port)));
    let mut client = rig.client_at(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, rig.port)));
    client.say(post("/v1/openai/models", "{}")).expect("sent");
    assert_eq!(client.hear().status(), 200);
    rig.agent.drain();
}
