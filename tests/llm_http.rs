//! Corners of HTTP/1.1 (RFC 9110, RFC 9112) at the proxy of AI tools: framing that contradicts itself, old versions,
//! answers without a body, messages that break off, and limits.

use crate::support;
use crate::support::llm::{Peer, Provider, Rig, answer, chunk, post};
use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;

const JSON: &str = "Content-Type: application/json\r\n";

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// More than all buffers between a provider and a client that does not read, in bytes: those of four sockets, and the
/// agent's own.
const ENDLESS: usize = 256 << 20;

/// What the agent may take for such a client, in bytes.
const GROWTH_MAX: u64 = 2 << 20;

/// Says back the body of each request.
fn echoing() -> Provider {
    Provider::start(|asked| {
        let body = asked.body();
        asked.peer.say(answer("200 OK", JSON, &body))
    })
}

/// Says this to each request, whatever it is, and nothing more where it is to hang up.
fn saying(text: impl Into<String>, hangs_up: bool) -> Provider {
    let text = text.into();
    Provider::start(move |asked| {
        asked.body();
        asked.peer.say(&text)?;
        if hangs_up {
            asked.peer.end();
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(())
    })
}

fn get(client: &mut Peer, headers: &str) {
    client.say(format!("GET /v1/openai/x HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).expect("sent");
}

#[test]
fn request_with_length_and_chunks_leaves_as_chunks_alone() {
    let provider = echoing();
    let rig = Rig::new(&provider);
    for framing in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"]
    {
        let mut client = rig.client();
        // Who goes by the length takes the rest for a request of its own.
        let smuggled = "GET /v1/openai/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let head = format!("POST /v1/openai/x HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n");
        client.say(format!("{head}{}0\r\n\r\n", chunk(smuggled))).expect("sent");
        assert_eq!(client.hear().body, smuggled.as_bytes(), "{framing}");
    }
    for head in provider.heads() {
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /v1/x ") && !head.contains("content-length"), "{head}");
    }
    rig.agent.drain();
}

#[test]
fn framing_that_cannot_be_understood_is_refused() {
    let provider = echoing();
    let rig = Rig::new(&provider);
    for (version, framing, statuses) in [
        ("1.1", "Content-Length: 3\r\nContent-Length: 4\r\n", [400, 400]),
        ("1.1", "Content-Length: 3, 4\r\n", [400, 400]),
        ("1.1", "Content-Length: +3\r\n", [400, 400]),
        ("1.1", "Content-Length : 3\r\n", [400, 400]),
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n", [501, 501]),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", [400, 501]),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n", [400, 501]),
        ("1.0", "Transfer-Encoding: chunked\r\n", [400, 400]),
    ] {
        let mut client = rig.client();
        client.say(format!("POST /v1/openai/x HTTP/{version}\r\nHost: localhost\r\n{framing}\r\n")).expect("sent");
        let status = client.hear().status();
        assert!(statuses.contains(&status), "{framing}: {status}");
    }
    assert_eq!(provider.heads(), Vec::<String>::new(), "none of them left");
    rig.agent.drain();
}

#[test]
fn answer_with_length_and_chunks_arrives_whole() {
    let said = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{CHUNKED}{JSON}\r\n{}0\r\n\r\n", chunk("[1,2,3]"));
    let provider = saying(said, false);
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    for _ in 0..2 {
        get(&mut client, "");
        assert_eq!(client.hear().body, b"[1,2,3]");
    }
    rig.agent.drain();
}

#[test]
fn client_of_http_1_0_gets_no_chunks() {
    let provider =
        saying(format!("HTTP/1.1 200 OK\r\n{CHUNKED}{JSON}\r\n{}{}0\r\n\r\n", chunk("[1,"), chunk("2]")), false);
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    client.say("GET /v1/openai/x HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
    let heard = client.rest();
    let (head, body) = heard.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && !head.to_ascii_lowercase().contains("chunked"), "{head}");
    assert_eq!(body, "[1,2]");
    rig.agent.drain();
}

#[test]
fn answers_without_a_body_keep_the_connection() {
    let provider = Provider::start(|asked| {
        asked.body();
        let said = match asked.head.split(' ').nth(1) {
            Some("/v1/204") => "HTTP/1.1 204 No Content\r\nX-Is: 204\r\n\r\n",
            Some("/v1/304") => "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        asked.peer.say(said)
    });
    let rig = Rig::new(&provider);
    let (mut through, mut direct) = (rig.client(), provider.client());
    for status in [204, 304, 200] {
        through.say(format!("GET /v1/openai/v1/{status} HTTP/1.1\r\nHost: localhost\r\n\r\n")).expect("sent");
        direct.say(format!("GET /v1/{status} HTTP/1.1\r\nHost: localhost\r\n\r\n")).expect("sent");
        let (ours, theirs) = (through.hear(), direct.hear());
        assert_eq!((ours.status(), ours.lines(), &ours.body), (status, theirs.lines(), &theirs.body));
    }
    assert_eq!(provider.connections(), 2, "one direct, and one of the agent");
    rig.agent.drain();
}

#[test]
fn interim_answers_of_the_provider_are_passed_over() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let provider = saying(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{JSON}\r\n{{}}"), false);
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    for _ in 0..2 {
        get(&mut client, "");
        assert_eq!(client.hear().status(), 200);
    }
    rig.agent.drain();
}

#[test]
fn answer_that_no_client_may_get_is_a_502() {
    for said in [
        // No upgrade was asked for.
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nxyz",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        let provider = saying(said, true);
        let rig = Rig::new(&provider);
        let mut client = rig.client();
        get(&mut client, "");
        let answer = client.hear();
        assert_eq!(answer.status(), 502, "{said}");
        assert!(String::from_utf8_lossy(&answer.body).contains("sindri_agent"), "{answer:?}");
        // The connection of the tool goes on.
        client.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        assert_eq!(client.hear().status(), 404);
        rig.agent.drain();
    }
}

#[test]
fn trailers_harm_neither_body_nor_connection() {
    let provider = Provider::start(|asked| {
        let body = asked.chunked_body_with_trailers();
        asked.peer.say(format!(
            "HTTP/1.1 200 OK\r\n{CHUNKED}{JSON}Trailer: X-Sum\r\n\r\n{}0\r\nX-Sum: 7\r\n\r\n",
            chunk(&String::from_utf8_lossy(&body))
        ))
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    for _ in 0..2 {
        client
            .say(format!(
                "POST /v1/openai/x HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Own\r\n{CHUNKED}\r\n{}0\r\nX-Own: 1\r\n\r\n",
                chunk("[1]")
            ))
            .expect("sent");
        client.until("\r\n\r\n");
        let body = client.until("0\r\n");
        assert!(body.contains("[1]"), "{body}");
        let trailers = client.until("\r\n");
        assert!(trailers == "\r\n" || client.until("\r\n") == "\r\n", "{trailers}");
    }
    rig.agent.drain();
}

#[test]
fn answer_that_breaks_off_never_looks_whole() {
    for (framing, body, is_whole) in [
        ("Content-Length: 9\r\n", "[1,2".to_owned(), false),
        (CHUNKED, chunk("[1,2"), false),
        (CHUNKED, format!("{}zz\r\n", chunk("[1,2")), false),
        // Here the end of the connection is the end of the answer.
        ("", "[1,2".to_owned(), true),
    ] {
        let provider = saying(format!("HTTP/1.1 200 OK\r\n{framing}{JSON}\r\n{body}"), true);
        let rig = Rig::new(&provider);
        let mut client = rig.client();
        get(&mut client, "Connection: close\r\n");
        let heard = client.rest();
        let (head, body) = heard.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body.contains("[1,2"), "{heard}");
        assert_eq!(body.ends_with("0\r\n\r\n"), is_whole, "{heard}");
        rig.agent.drain();
    }
}

#[test]
fn refusal_of_a_long_request_arrives_before_its_end() {
    let provider = Provider::start(|asked| {
        asked.peer.say(answer("413 Too Large", &format!("Connection: close\r\n{JSON}"), b"{}"))?;
        asked.body_length();
        Ok(())
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    let head = "POST /v1/openai/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    client.say(format!("{head}{}", "x".repeat(1000))).expect("sent");
    assert_eq!(client.hear().status(), 413);
    rig.agent.drain();
}

#[test]
fn client_that_ends_its_direction_has_given_up() {
    let (news, heard) = mpsc::channel();
    let news = Mutex::new(news);
    let provider = Provider::start(move |asked| {
        asked.body();
        let tell = |is_over| news.lock().expect("no panic").send(is_over).expect("the test waits");
        tell(false);
        tell(asked.peer.sees_the_end());
        Err(ErrorKind::BrokenPipe.into())
    });
    let rig = Rig::new(&provider);
    let mut client = TcpStream::connect(("127.0.0.1", rig.port)).expect("it listens");
    client.write_all(post("/v1/openai/x", "{}").as_bytes()).expect("sent");
    assert!(!heard.recv_timeout(support::WAIT_MAX).expect("the provider is asked"));
    client.shutdown(std::net::Shutdown::Write).expect("sent");
    assert!(heard.recv_timeout(support::WAIT_MAX).expect("the provider sees the end"));
    rig.agent.drain();
}

#[test]
fn client_that_does_not_read_stops_the_provider() {
    let (stopped, seen) = mpsc::channel();
    let stopped = Mutex::new(stopped);
    let provider = Provider::start(move |asked| {
        asked.body();
        asked.peer.say(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: {ENDLESS}\r\n\r\n"))?;
        let piece = vec![b'x'; 64 << 10];
        let mut sent = 0;
        // It fails once the client is gone.
        while sent < ENDLESS && asked.peer.say(&piece).is_ok() {
            sent += piece.len();
        }
        stopped.lock().expect("no panic").send(sent).expect("the test waits");
        Err(ErrorKind::BrokenPipe.into())
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    get(&mut client, "");
    client.until("\r\n\r\n");
    let before = rig.agent.process().peak_bytes();
    // Another client is served meanwhile, as often as it takes to fill whatever could be filled.
    let mut other = rig.client();
    for _ in 0..1000 {
        other.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        assert_eq!(other.hear().status(), 404);
    }
    drop(client);
    let sent = seen.recv_timeout(support::WAIT_MAX).expect("it ends");
    assert!(sent < ENDLESS, "nothing held the provider back");
    // The kernel counts roughly: a peak may come out lower than before.
    let growth = rig.agent.process().peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    rig.agent.drain();
}

#[test]
fn requests_in_one_piece_are_answered_in_order() {
    let provider = echoing();
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    let all: String = (0..20).map(|number| post("/v1/openai/x", &format!("[{number}]"))).collect();
    client.say(all).expect("sent");
    for number in 0..20 {
        assert_eq!(client.hear().body, format!("[{number}]").as_bytes());
    }
    rig.agent.drain();
}

#[test]
fn whole_url_in_the_first_line_leads_to_the_provider() {
    let provider = echoing();
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    let url = format!("http://localhost:{}/v1/openai/v1/x?a=b", rig.port);
    client.say(format!("POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}")).expect("sent");
    assert_eq!(client.hear().body, b"{}");
    assert!(provider.heads()[0].starts_with("POST /v1/x?a=b HTTP/1.1\r\n"), "{:?}", provider.heads());
    rig.agent.drain();
}

#[test]
fn large_heads_pass_and_larger_ones_are_refused() {
    let long = "v".repeat(40 << 10);
    let said = long.clone();
    let provider = Provider::start(move |asked| {
        asked.body();
        let (size, count) = if asked.head.contains("/larger") { (8, 1) } else { (1, 40) };
        let many: String = (0..count).map(|number| format!("X-{number}: v\r\n")).collect();
        asked.peer.say(format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n{many}Content-Length: 0\r\n\r\n", said.repeat(size)))
    });
    let rig = Rig::new(&provider);
    let ask = |path: &str, headers: &str| {
        let mut client = rig.client();
        client.say(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).expect("sent");
        client.hear()
    };
    let passed = ask("/v1/openai/x", &format!("X-Long: {long}\r\n"));
    assert_eq!((passed.status(), passed.header("x-long")), (200, Some(long.as_str())));
    assert!(provider.heads()[0].contains(&long));
    assert_eq!(ask("/v1/openai/x", &format!("X-Long: {}\r\n", long.repeat(8))).status(), 431);
    let many: String = (0..200).map(|number| format!("X-{number}: v\r\n")).collect();
    assert_eq!(ask("/v1/openai/x", &many).status(), 431);
    assert_eq!(ask("/v1/openai/larger", "").status(), 502);
    rig.agent.drain();
}

#[test]
fn path_that_becomes_too_long_is_refused() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let gateway = format!("https://{}/{}", provider.address, "gateway/".repeat(100));
    let rig = Rig::with(|setup| {
        let setup = setup.env("SINDRI_AGENT_CA_FILE", provider.authority.file());
        setup.env("SINDRI_LLM_UPSTREAM_OPENAI", gateway)
    });
    let mut client = rig.client();
    // A URI of the library has less than 64 KiB.
    client.say(format!("GET /v1/openai/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(65_000))).expect("sent");
    assert_eq!(client.hear().status(), 414);
    assert_eq!(provider.heads(), Vec::<String>::new());
    rig.agent.drain();
}

#[test]
fn open_streams_do_not_hold_up_the_end_of_the_agent() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let provider = Provider::start(move |asked| {
        asked.body();
        asked.peer.say(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{CHUNKED}\r\n"))?;
        asked.peer.say(chunk("data: {}\n\n"))?;
        // It ends when the test does.
        let _ = wait.lock().expect("no panic").recv();
        Ok(())
    });
    let rig = Rig::new(&provider);
    let mut client = rig.client();
    client.say(post("/v1/openai/chat/completions", "{}")).expect("sent");
    client.until("data: {}\n\n");
    rig.agent.drain();
    assert!(client.sees_the_end(), "and nothing else holds its connection");
    drop(go);
}
