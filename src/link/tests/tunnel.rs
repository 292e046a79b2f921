//! The way through an HTTP proxy, which the test plays; `tests/` has real ones.

use super::*;
use crate::config::Proxies;
use draupnir_fsm::driver::{LinkId, RegistrationAttempt};

/// Aims at a console behind a proxy on the rig's own port, with this user and password.
fn behind(credentials: &'static str) -> impl FnOnce(&mut Target) {
    move |target| {
        let http = Some(format!("http://{credentials}127.0.0.1:{}", target.url.port()));
        let proxies = Proxies { http, ..Proxies::default() };
        target.proxy = proxy::choose(&proxies, false, "console.test", 8080).expect("a legal variable");
        target.url = url("http", "console.test", 8080);
    }
}

#[test]
fn both_exchanges_go_through_a_tunnel() {
    run_aimed(behind("user:p%40ss@"), async |mut rig| {
        rig.link.register(RegistrationAttempt(1), RegisterPath::Designed, "{}".to_owned());
        let mut stream = rig.accept().await;
        let request = read_request(&mut stream).await;
        assert!(request.starts_with("CONNECT console.test:8080 HTTP/1.1\r\nHost: console.test:8080\r\n"), "{request}");
        assert!(request.contains("\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n"), "{request}");
        assert!(!request.contains(KEY), "the proxy is not given the key: {request}");
        within(stream.write_all(b"HTTP/1.0 200 Connection established\r\n\r\n")).await.expect("answered");
        let request = read_request(&mut stream).await;
        assert!(request.starts_with("POST /mimir/api/v1/instances/register "), "{request}");
        assert!(!request.contains("Proxy-"), "the console is not given the credentials: {request}");
        within(stream.write_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")).await.expect("answered");
        assert!(matches!(rig.report().await, LinkReport::RegistrationAnswered { status: 409, .. }));

        rig.link.dial(LinkId(1), "inst-1");
        let mut stream = rig.accept().await;
        assert!(read_request(&mut stream).await.starts_with("CONNECT "));
        within(stream.write_all(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n")).await.expect("answered");
        accept_websocket(stream).await;
        assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(1) }));
    });
}

#[test]
fn proxy_that_refuses_a_tunnel_is_named_with_a_remedy() {
    let cases = [
        ("", "407 Auth\r\n\r\n", "it demands credentials: put user and password into HTTP_PROXY"),
        ("u:secret@", "407 Auth\r\n\r\n", "it refuses the credentials in HTTP_PROXY"),
        ("u:secret@", "401 Auth\r\n\r\n", "it refuses the credentials in HTTP_PROXY"),
        (
            "u:secret@",
            "403 No\r\n\r\n",
            "no tunnel to console.test:8080, but answered HTTP status 403; it must allow CONNECT",
        ),
        ("u:secret@", "503 No\r\n\r\n", "HTTP status 503; it could not reach the server"),
        ("u:secret@", "200 OK\r\n\r\nsurprise", "it sent data of its own into the tunnel"),
    ];
    for (credentials, answer, words) in cases {
        run_aimed(behind(credentials), async |mut rig| {
            rig.link.dial(LinkId(1), "inst-1");
            rig.answer(&format!("HTTP/1.1 {answer}")).await;
            let LinkReport::DialFailed { error, .. } = rig.report().await else { panic!() };
            assert_eq!(error.failure(), Failure::Proxy);
            let text = error.to_string();
            assert!(text.contains(words), "{text}\nlacks: {words}");
            assert!(text.starts_with("the proxy 127.0.0.1:"), "{text}");
            assert!(!format!("{text}{error:?}").contains("secret"), "{error:?}");
        });
    }
    run_aimed(behind(""), async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        rig.answer("").await;
        let LinkReport::DialFailed { error, .. } = rig.report().await else { panic!() };
        assert!(error.to_string().contains("it closed the connection without an answer"), "{error}");
    });
}
