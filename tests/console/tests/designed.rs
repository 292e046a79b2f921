//! Tests the designed personality, scripted answers and upgrades, faults of a live connection, and waits with a simple
//! client.

mod client;

use std::io::Read;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::{Error, Message};
use client::{connect, post, read, read_close, send, tcp, upgrade};
use data_encoding::BASE64;
use draupnir_console::{Answer, Console, End, Greeting, Keep, Personality, Pongs, Upgrade, What};
use serde_json::json;

const REGISTER: &str = "/api/v1/instances/register";

#[test]
fn the_whole_story() {
    let console = Console::start(Personality::designed());
    assert!(post(&console, REGISTER, &json!({"instance_id": "i1"})).starts_with("HTTP/1.1 201 "));
    assert_eq!(console.registration(1).request().json()["instance_id"], "i1");
    let mut socket = connect(&console, "i1");
    send(&mut socket, "registration", &json!({"instance_id": "i1"}));
    let link = console.connection(1);
    assert_eq!(link.hello()["type"], "registration");
    assert_eq!(link.instance_id(), Some("i1"));
    console.browser().create("s1", 100, 30).input("s1", b"ls\r").dispatch("c1", "true").cancel("c1");
    let create = read(&mut socket);
    assert_eq!(create["type"], "terminal:create");
    assert_eq!((&create["session_id"], &create["payload"]["session_id"]), (&json!("s1"), &json!("s1")));
    assert_eq!(create["payload"]["cols"], 100);
    assert_eq!(read(&mut socket)["payload"]["data"], BASE64.encode(b"ls\r"));
    assert_eq!(read(&mut socket)["payload"]["command"], "true");
    assert_eq!(read(&mut socket)["type"], "command:cancel");
    send(&mut socket, "command:result", &json!({"command_id": "c1", "exit_code": 0}));
    assert_eq!(console.result("c1")["exit_code"], 0);
    socket.close(None).expect("closed");
    assert!(matches!(socket.read(), Ok(Message::Close(_)) | Err(Error::ConnectionClosed)));
    assert_eq!(console.ended(1), End::Closed);
}

#[test]
fn scripted_answers_are_used_in_order_and_once() {
    let console = Console::start(Personality::designed());
    console.answer_registration(Answer::status(503).header("Retry-After", "7").body("no"));
    console.answer_registration(Answer::garbage(b"not http"));
    console.answer_registration(Answer::created("elsewhere"));
    let body = json!({"instance_id": "i"});
    let first = post(&console, REGISTER, &body);
    assert!(first.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n"), "{first}");
    assert_eq!(post(&console, REGISTER, &body), "not http");
    assert!(post(&console, REGISTER, &body).ends_with(r#"{"id":"elsewhere","name":"elsewhere","provider":"ssh"}"#));
    assert!(post(&console, REGISTER, &body).ends_with(r#"{"status":"registered"}"#));
    assert!(post(&console, "/api/v1/instances", &body).starts_with("HTTP/1.1 404 "));
    assert!(post(&console, "/elsewhere", &body).starts_with("HTTP/1.1 404 "));
    let statuses = console.all(|record| matches!(record.what, What::Registration(..)));
    assert_eq!(statuses.len(), 5);
    assert_eq!(console.registration_answered(1, 404).request().path, "/api/v1/instances");
}

#[test]
fn an_answer_can_break_off_or_never_come() {
    let console = Console::start(Personality::designed());
    console.answer_registration(Answer::reset_midway());
    console.answer_registration(Answer::never());
    for n in 0..2 {
        let mut stream = tcp(&console);
        std::io::Write::write_all(
            &mut stream,
            b"POST /api/v1/instances/register HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        )
        .expect("written");
        console.registration(n + 1);
        if n == 0 {
            assert!(stream.read_to_end(&mut Vec::new()).is_err(), "a reset");
        } else {
            stream.set_nonblocking(true).expect("non-blocking");
            assert!(stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        }
    }
}

#[test]
fn upgrades_are_refused_as_scripted() {
    let console = Console::start(Personality::designed());
    let key = format!("Bearer {}", console.key());
    let good = [("Authorization", key.as_str()), ("X-Instance-ID", "i")];
    console.answer_upgrade(Upgrade::status(503));
    console.answer_upgrade(Upgrade::reset());
    console.answer_upgrade(Upgrade::wrong_accept());
    assert!(matches!(upgrade(&console, "/ws/agent", &good), Err(error) if matches!(*error, Error::Http(_))));
    for _ in 0..2 {
        assert!(upgrade(&console, "/ws/agent", &good).is_err());
    }
    assert!(upgrade(&console, "/ws/agent/", &good).is_err(), "404");
    assert!(upgrade(&console, "/ws/agent", &[("X-Instance-ID", "i")]).is_err(), "401");
    console.answer_upgrade(Upgrade::close(1013, "later"));
    let mut socket = upgrade(&console, "/ws/agent", &good).expect("101");
    assert_eq!(read_close(&mut socket), (1013, "later".to_owned()));
    console.forget("i");
    let mut socket = upgrade(&console, "/ws/agent", &good).expect("101");
    assert_eq!(read_close(&mut socket), (1008, "Unknown instance ID: i".to_owned()));
    console.answer_upgrade(Upgrade::usual().greeting(Greeting::Attached));
    console.know("i");
    let mut socket = upgrade(&console, "/ws/agent", &good).expect("101");
    assert_eq!(read(&mut socket)["type"], "log:subscribe");
    assert_eq!(console.upgrade(1).request().header("x-instance-id"), Some("i"));
}

#[test]
fn every_close_code_goes_out_and_the_echo_is_recorded() {
    let console = Console::start(Personality::designed());
    for (n, code) in (1_u32..).zip([1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999]) {
        let mut socket = connect(&console, "i");
        console.connection(n).close(code, "because");
        assert_eq!(read_close(&mut socket), (code, "because".to_owned()));
        while socket.read().is_ok() {}
        assert_eq!(console.ended(n), End::Closed);
        assert_eq!(console.on(n).close_frame().0, Some(code));
    }
}

#[test]
fn resets_ends_and_cuts() {
    let console = Console::start(Personality::designed());
    let mut socket = connect(&console, "i");
    console.connection(1).reset();
    assert!(matches!(socket.read(), Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset));
    assert_eq!(console.ended(1), End::Ours);

    let mut socket = connect(&console, "i");
    console.connection(2).finish();
    assert!(matches!(socket.read(), Err(Error::Protocol(_))), "the end of the stream without a close frame");
    drop(socket);
    assert_eq!(console.ended(2), End::Ours);

    let mut socket = connect(&console, "i");
    console.connection(3).cut_after(1000);
    let frame = Message::text("x".repeat(700));
    socket.send(frame.clone()).expect("sent");
    console.on(3).wait("the whole frame", |record| record.raw().len() == 700);
    let _ = socket.send(frame); // may already fail
    assert_eq!(console.ended(3), End::Ours);
    assert_eq!(console.on(3).count(|record| !record.raw().is_empty()), 1, "the second frame was cut in two");
    assert!(socket.read().is_err());

    drop(connect(&console, "i"));
    assert_eq!(console.ended(4), End::Finished);
}

#[test]
fn pongs_are_given_once_twice_or_never() {
    let console = Console::start(Personality::designed());
    let mut socket = connect(&console, "i");
    let link = console.connection(1);
    let mut pongs_for = |pongs: Pongs, payload: &'static [u8]| {
        link.pongs(pongs);
        link.send_text("now"); // orders are in order: when this is here, the pongs are as wanted
        while !socket.read().expect("a message").is_text() {}
        socket.send(Message::Ping(payload.into())).expect("sent");
        link.view().wait("the ping", |record| matches!(&record.what, What::Ping(bytes) if bytes == payload));
        // Frames are handled in order: when the next one is here, the ping has its answer.
        socket.send(Message::text(format!("after {payload:?}"))).expect("sent");
        link.view().wait("what follows", |record| record.raw() == format!("after {payload:?}"));
        link.send_text("done");
        let mut count = 0;
        loop {
            match socket.read().expect("a message") {
                Message::Pong(echoed) if echoed == payload => count += 1,
                Message::Text(_) => break count,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(pongs_for(Pongs::Once, b"a"), 1);
    assert_eq!(pongs_for(Pongs::Twice, b"b"), 2);
    assert_eq!(pongs_for(Pongs::Withheld, b"c"), 0);
    assert_eq!(pongs_for(Pongs::Once, b"d"), 1);
}

#[test]
fn a_stalled_link_says_nothing_until_it_is_resumed() {
    let console = Console::start(Personality::designed());
    let mut socket = connect(&console, "i");
    let link = console.connection(1);
    link.stall();
    socket.send(Message::Ping((&b"p"[..]).into())).expect("sent");
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    assert!(matches!(socket.read(), Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock));
    assert_eq!(console.count(|record| matches!(record.what, What::Ping(_))), 0);
    link.resume();
    console.ping(1);
    socket.get_ref().set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    assert!(socket.read().expect("the pong").is_pong());
}

#[test]
fn a_throttled_link_takes_its_time() {
    let console = Console::start(Personality::designed());
    let mut socket = connect(&console, "i");
    console.connection(1).throttle(Some(100_000));
    let sent_at = Instant::now();
    socket.send(Message::text("x".repeat(60_000))).expect("sent");
    let record = console.wait("the frame", |record| record.raw().len() == 60_000);
    let took = record.at.duration_since(sent_at);
    assert!(took >= Duration::from_millis(400), "{took:?} for 60 kB at 100 kB/s");
}

#[test]
fn raw_bytes_go_out_as_they_are() {
    let console = Console::start(Personality::designed());
    let mut socket = connect(&console, "i");
    let link = console.connection(1);
    link.send_text("before");
    link.send_raw(&[0x83, 0x00]); // a reserved opcode
    assert_eq!(socket.read().expect("text").to_text().expect("text"), "before");
    assert!(matches!(socket.read(), Err(Error::Protocol(_))));
}

#[test]
fn the_port_closes_and_opens_again() {
    let console = Console::builder(Personality::designed()).own_address().start();
    let mut socket = connect(&console, "i");
    console.connection(1);
    console.crash();
    assert!(socket.read().is_err());
    assert!(std::net::TcpStream::connect(console.address()).is_err());
    console.listen();
    let _socket = connect(&console, "i");
    console.connection(2);
}

#[test]
fn a_message_over_the_limit_is_answered_with_1009() {
    let mut personality = Personality::designed();
    personality.message_bytes_max = 1000;
    let console = Console::start(personality);
    let mut socket = connect(&console, "i");
    socket.send(Message::text("x".repeat(2000))).expect("sent");
    match socket.read().expect("a close frame") {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1009),
        other => panic!("{other:?}"),
    }
    drop(socket);
    assert!(matches!(console.ended(1), End::Broken(_)));
}

#[test]
fn output_is_assembled_counted_or_recorded() {
    for (keep, frames, data) in
        [(Keep::Everything, 3, &b"abcdef"[..]), (Keep::Bytes, 0, b"abcdef"), (Keep::Counts, 0, b"")]
    {
        let console = Console::builder(Personality::designed()).keep(keep).start();
        let mut socket = connect(&console, "i");
        console.connection(1);
        for (offset, bytes) in [(0, "abc"), (2, "cd"), (4, "ef")] {
            let data = BASE64.encode(bytes.as_bytes());
            send(&mut socket, "terminal:output", &json!({"session_id": "s", "data": data, "offset": offset}));
        }
        let payload = json!({"command_id": "c", "stream": "stderr", "data": "IQ==", "offset": 0});
        send(&mut socket, "command:output", &payload);
        assert_eq!(console.wait_stream("c/stderr", "a byte", |stream| stream.bytes == 1).frames, 1);
        let stream = console.stream("s");
        assert_eq!((stream.bytes, stream.repeated_bytes, stream.frames), (6, 1, 3));
        assert_eq!(stream.data, data);
        assert_eq!(console.frames("terminal:output").len(), frames, "{keep:?}");
        if keep == Keep::Everything {
            assert_eq!(console.wait_text("s", "ccd").screen, b"abccdef");
        }
    }
}

#[test]
#[should_panic(expected = "waited 10ms for heartbeat (number 1); what came instead")]
fn a_wait_ends_at_its_deadline() {
    let console = Console::start(Personality::designed());
    console.within(Duration::from_millis(10)).frame("heartbeat");
}

#[test]
#[should_panic(expected = "the production console would be down: payload is null")]
fn poison_fails_every_wait() {
    let console = Console::start(Personality::designed());
    let mut socket = connect(&console, "i");
    console.connection(1);
    send(&mut socket, "heartbeat", &json!(null));
    console.nth_frame(2, "heartbeat");
}

#[test]
fn an_acceptor_stands_in_front_of_every_connection() {
    struct Greeter;
    impl draupnir_console::Acceptor for Greeter {
        fn accept(&self, mut tcp: async_net::TcpStream) -> draupnir_console::Accepting {
            Box::pin(async move {
                futures_lite::AsyncWriteExt::write_all(&mut tcp, b"hello first\n").await?;
                Ok(Box::new(tcp) as Box<dyn draupnir_console::Wire>)
            })
        }
    }
    let console = Console::builder(Personality::designed()).acceptor(std::sync::Arc::new(Greeter), "https").start();
    assert!(console.url().starts_with("https://127.0.0.1:"));
    assert!(post(&console, REGISTER, &json!({"instance_id": "i"})).starts_with("hello first\nHTTP/1.1 201 "));
}
