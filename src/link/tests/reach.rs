//! Registrations and dials that succeed, are refused, fail or are given up.

use super::*;
use crate::config::Proxies;
use draupnir_fsm::driver::{LinkId, PortProbe, PortState, RegistrationAttempt};
use rustix::net::{self, AddressFamily, SocketType};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

#[test]
fn registration_follows_the_wire_and_reports_the_answer() {
    run(async |mut rig| {
        rig.link.register(RegistrationAttempt(7), RegisterPath::Designed, "{\"a\":1}".to_owned());
        let body = r#"{"id":"inst-9","name":"x"}"#;
        let request =
            rig.answer(&format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        assert!(request.starts_with("POST /mimir/api/v1/instances/register HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nAuthorization: Bearer {KEY}\r\n")), "{request}");
        assert!(request.contains("\r\nContent-Type: application/json\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
        let LinkReport::RegistrationAnswered { attempt: RegistrationAttempt(7), status: 201, id, .. } =
            rig.report().await
        else {
            panic!()
        };
        assert_eq!(id.as_deref(), Some("inst-9"));

        rig.link.register(RegistrationAttempt(8), RegisterPath::Observed, String::new());
        let refusal = "HTTP/1.1 429 Too Many\r\nRetry-After: 30\r\n\r\n{\"error\":\"SLOW\",\"message\":\"not sk-test-0123456789\"}";
        let request = rig.answer(refusal).await;
        assert!(request.starts_with("POST /mimir/api/v1/instances HTTP/1.1\r\n"), "{request}");
        let report = rig.report().await;
        let LinkReport::RegistrationAnswered { status: 429, retry_after_ms: Some(30_000), console_text, .. } = report
        else {
            panic!("{report:?}")
        };
        assert_eq!(console_text, "SLOW: not [redacted]");

        rig.link.register(RegistrationAttempt(9), RegisterPath::Designed, String::new());
        rig.answer("HTTP/1.1 308 Permanent\r\nLocation: https://console.test/\r\n\r\n").await;
        let LinkReport::RegistrationAnswered { status: 308, location, .. } = rig.report().await else { panic!() };
        assert_eq!(location.as_deref(), Some("https://console.test/"));
    });
}

#[test]
fn failed_registration_names_the_fault() {
    run(async |mut rig| {
        let faults = [
            ("", Failure::Protocol, "closed the connection without an answer"),
            ("SSH-2.0-x\r\n", Failure::Protocol, "does not speak HTTP on this port"),
            ("\u{15}\u{3}\u{1}\0\u{2}\u{2}F", Failure::Protocol, "speaks TLS on this port"),
        ];
        for (answer, failure, words) in faults {
            rig.link.register(RegistrationAttempt(1), RegisterPath::Designed, String::new());
            rig.answer(answer).await;
            let LinkReport::RegistrationFailed { attempt: RegistrationAttempt(1), error } = rig.report().await else {
                panic!()
            };
            assert_eq!(error.failure(), failure);
            assert!(error.to_string().contains(words), "{error}");
        }
    });
}

#[test]
fn connection_refused_fails_the_dial() {
    let executor = Rc::new(LocalExecutor::new());
    let Rig { mut link, reports, listener } = Rig::new(&executor);
    drop(listener);
    block_on(executor.run(async {
        link.dial(LinkId(1), "inst-1");
        let report = within(reports.recv()).await.expect("reported");
        let report::Report::Link(LinkReport::DialFailed { link: LinkId(1), error, retry_after_ms: None }) = report
        else {
            panic!("{report:?}")
        };
        assert_eq!(error.failure(), Failure::Refused);
        assert!(error.to_string().contains("Connection refused"), "{error}");
    }));
}

/// A socket that is bound and does not listen yet, and its port: no other process gets it, and it refuses connections.
fn closed_port() -> (OwnedFd, u16) {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
    let address = net::getsockname(&socket).expect("an address");
    let port = SocketAddr::try_from(address).expect("of IPv4").port();
    (socket, port)
}

#[test]
fn port_that_refused_a_dial_is_probed_without_a_byte() {
    let (socket, port) = closed_port();
    let aim = |target: &mut Target| target.url = url("http", "127.0.0.1", port);
    run_aimed(aim, async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        assert!(matches!(rig.report().await, LinkReport::DialFailed { link: LinkId(1), .. }));
        rig.link.probe_port(PortProbe(1));
        let refused = LinkReport::PortProbed { probe: PortProbe(1), found: PortState::Refused };
        assert_eq!(format!("{:?}", rig.report().await), format!("{refused:?}"));
        net::listen(&socket, 1).expect("it listens");
        rig.link.probe_port(PortProbe(2));
        rig.link.abandon_port_probe();
        rig.link.probe_port(PortProbe(3));
        let open = LinkReport::PortProbed { probe: PortProbe(3), found: PortState::Open };
        assert_eq!(format!("{:?}", rig.report().await), format!("{open:?}"));
        let (mut accepted, _) = TcpListener::from(socket).accept().expect("a connection");
        assert_eq!(std::io::copy(&mut accepted, &mut std::io::sink()).expect("closed in good order"), 0);
    });
}

#[test]
fn refusal_by_a_proxy_is_none_by_the_console() {
    let (_socket, port) = closed_port();
    let aim = |target: &mut Target| {
        let address = format!("http://127.0.0.1:{port}");
        let proxies = Proxies { http: Some(address), ..Proxies::default() };
        target.proxy = proxy::choose(&proxies, false, "console.test", 8080).expect("a legal variable");
    };
    run_aimed(aim, async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        let LinkReport::DialFailed { error, .. } = rig.report().await else { panic!() };
        assert_eq!(error.failure(), Failure::Connect);
        assert!(error.to_string().contains("Connection refused"), "{error}");
        // There is no address of the console that refused, so nothing is connected to.
        rig.link.probe_port(PortProbe(1));
        let LinkReport::PortProbed { found, .. } = rig.report().await else { panic!() };
        assert_eq!(found, PortState::Unreachable);
    });
}

#[test]
fn a_refused_upgrade_reports_its_status_and_text() {
    run(async |mut rig| {
        let cases = [
            ("401 No\r\nContent-Length: 3\r\n\r\nbad", Failure::Unauthorized, None, "HTTP status 401: bad"),
            ("403 No\r\n\r\n", Failure::Unauthorized, None, "HTTP status 403); set a valid one"),
            (
                "503 No\r\nRetry-After: 5\r\n\r\n{\"message\":\"later\"}",
                Failure::Status,
                Some(5000),
                "status 503: later",
            ),
            ("302 No\r\nLocation: /login\r\n\r\n", Failure::Status, None, "pointing to /login"),
            ("200 OK\r\n\r\n<html>", Failure::Status, None, "status 200: <html>"),
            (
                "101 Sure\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                Failure::Protocol,
                None,
                "Sec-WebSocket-Accept",
            ),
        ];
        for (answer, failure, wait, words) in cases {
            rig.link.dial(LinkId(3), "inst-1");
            rig.answer(&format!("HTTP/1.1 {answer}")).await;
            let LinkReport::DialFailed { link: LinkId(3), error, retry_after_ms } = rig.report().await else {
                panic!()
            };
            assert_eq!((error.failure(), retry_after_ms), (failure, wait), "{answer}");
            assert!(error.to_string().contains(words), "{error}");
        }
        for id in ["", "a b", "a\r\nX-Forged: 1", "ä", &"x".repeat(101)] {
            rig.link.dial(LinkId(4), id);
            let LinkReport::DialFailed { link: LinkId(4), error, .. } = rig.report().await else { panic!() };
            assert!(matches!(error, Error::InstanceId(_)), "{error}");
        }
    });
}

#[test]
fn abandoned_attempt_reports_nothing_and_is_closed() {
    run(async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        rig.link.register(RegistrationAttempt(1), RegisterPath::Designed, String::new());
        let (mut first, mut second) = (rig.accept().await, rig.accept().await);
        rig.link.abandon_dial();
        rig.link.abandon_registration();
        for stream in [&mut first, &mut second] {
            let mut rest = Vec::new();
            // The end of the stream is the proof that the other descriptor is closed.
            within(stream.read_to_end(&mut rest)).await.expect("ended");
        }
        assert!(rig.reports.is_empty());
    });
}
