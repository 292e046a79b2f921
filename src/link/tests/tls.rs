//! TLS as it should be, and every certificate that is none.

use super::*;
use authority::{Authority, pem_file, self_signed, self_signed_authority};
use draupnir_fsm::driver::{LinkId, RegistrationAttempt};
use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use rustls::HandshakeKind;
use std::path::{Path, PathBuf};

#[path = "../../../tests/support/authority.rs"]
mod authority;

async fn accept_tls(rig: &Rig, server: &TlsAcceptor) -> TlsStream<Async<TcpStream>> {
    let stream = rig.accept().await;
    within(server.accept(stream)).await.expect("a handshake")
}

/// The words of a dial that failed in TLS.
async fn refusal(rig: &mut Rig, server: &TlsAcceptor) -> String {
    rig.link.dial(LinkId(1), "inst-1");
    let stream = rig.accept().await;
    let (shaken, report) = future::zip(within(server.accept(stream)), rig.report()).await;
    drop(shaken);
    let LinkReport::DialFailed { link: LinkId(1), error, .. } = report else { panic!("{report:?}") };
    assert_eq!(error.failure(), Failure::Tls);
    error.to_string()
}

fn trusting(file: &Path) -> impl FnOnce(&mut Target) {
    let ca_file = Some(file.to_owned());
    move |target| {
        with_tls(target);
        target.trust = Trust { ca_file, ..Trust::default() };
    }
}

#[test]
fn registration_and_websocket_run_over_both_versions_of_tls() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let authority = Authority::new();
        let server = authority.server(&["127.0.0.1"], (2000, 4000), &[version]);
        run_aimed(trusting(authority.file()), async |mut rig| {
            rig.link.register(RegistrationAttempt(1), RegisterPath::Designed, "{}".to_owned());
            let mut stream = accept_tls(&rig, &server).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let request = read_request(&mut stream).await;
            assert!(request.starts_with("POST /mimir/api/v1/instances/register "), "{request}");
            within(stream.write_all(b"HTTP/1.1 201 Created\r\n\r\n{\"id\":\"inst-1\"}")).await.expect("answered");
            within(stream.close()).await.expect("closed");
            let LinkReport::RegistrationAnswered { status: 201, id, .. } = rig.report().await else { panic!() };
            assert_eq!(id.as_deref(), Some("inst-1"));

            rig.link.dial(LinkId(1), "inst-1");
            let stream = accept_tls(&rig, &server).await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            let mut console = accept_websocket(stream).await;
            assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(1) }));
            let frames: Vec<WsFrame> = (0..10).map(|_| WsFrame::Text("x".repeat(100_000).into())).collect();
            rig.link.write(LinkId(1), frames);
            for _ in 0..10 {
                assert_eq!(hear(&mut console).await.len(), 100_000);
            }
            assert!(matches!(rig.report().await, LinkReport::Written { link: LinkId(1) }));
            say(&mut console, Message::text("news")).await;
            assert!(matches!(rig.report().await, LinkReport::Text { .. }));
            rig.link.close(LinkId(1), 1000, "resync");
            assert!(matches!(hear(&mut console).await, Message::Close(Some(_))));
            assert!(within(console.next()).await.is_none());
            drop(console);
            assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));
        });
    }
}

#[test]
fn untrusted_certificate_gives_its_reason() {
    let (authority, stranger, impostor) = (Authority::new(), Authority::named("a stranger"), Authority::new());
    let both = rustls::DEFAULT_VERSIONS;
    let cases = [
        (stranger.valid(&["127.0.0.1"]), "signed by an issuer that this machine does not trust"),
        (impostor.valid(&["127.0.0.1"]), "does not fit the trusted authority of that name"),
        (self_signed(&["127.0.0.1"]), "signed by an issuer that this machine does not trust"),
        (
            authority.server(&["127.0.0.1"], (2000, 2001), both),
            "expired at 2001-01-01T00:00:00Z, and this machine's clock says 2",
        ),
        (
            authority.server(&["127.0.0.1"], (3999, 4000), both),
            "not valid before 3999-01-01T00:00:00Z, and this machine's clock says 2",
        ),
        (authority.server(&["a.test", "b.test"], (2000, 4000), both), "is for a.test, b.test, not for 127.0.0.1;"),
    ];
    run_aimed(trusting(authority.file()), async |mut rig| {
        for (server, words) in cases {
            let text = refusal(&mut rig, &server).await;
            assert!(text.contains(words), "{text}\nlacks: {words}");
            assert!(text.starts_with("no TLS with 127.0.0.1:"), "{text}");
        }
        // And the one that is right is still believed.
        rig.link.dial(LinkId(2), "inst-1");
        accept_websocket(accept_tls(&rig, &authority.valid(&["127.0.0.1"])).await).await;
        assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(2) }));
    });
}

#[test]
fn self_signed_authority_named_itself_is_accepted() {
    let names = ["127.0.0.1"];
    let (named, file) = self_signed_authority(&names, (2000, 4000));
    let other = self_signed_authority(&names, (2000, 4000)).0;
    run_aimed(trusting(file.path()), async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        accept_websocket(accept_tls(&rig, &named).await).await;
        assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(1) }));
    });
    // Another certificate with the same names is refused.
    run_aimed(trusting(file.path()), async |mut rig| {
        let text = refusal(&mut rig, &other).await;
        assert!(text.contains("it is a certificate of an authority (CA:TRUE), not of a server"), "{text}");
    });
    for (names, years, words) in [
        (["127.0.0.1"], (2000, 2001), "expired at 2001-01-01T00:00:00Z"),
        (["127.0.0.1"], (3999, 4000), "not valid before 3999-01-01T00:00:00Z"),
        (["other.test"], (2000, 4000), "is for other.test, not for 127.0.0.1;"),
    ] {
        let (server, file) = self_signed_authority(&names, years);
        run_aimed(trusting(file.path()), async |mut rig| {
            let text = refusal(&mut rig, &server).await;
            assert!(text.contains(words), "{text}\nlacks: {words}");
        });
    }
}

#[test]
fn a_system_without_the_private_authority_does_not_trust_it() {
    let authority = Authority::new();
    run_aimed(with_tls, async |mut rig| {
        let text = refusal(&mut rig, &authority.valid(&["127.0.0.1"])).await;
        assert!(text.contains("SINDRI_AGENT_CA_FILE"), "{text}");
    });
}

#[test]
fn the_variables_of_openssl_replace_the_roots() {
    let authority = Authority::new();
    let file = authority.file().to_owned();
    let trust = |target: &mut Target| {
        with_tls(target);
        target.trust = Trust { cert_file: Some(file), ..Trust::default() };
    };
    run_aimed(trust, async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        accept_websocket(accept_tls(&rig, &authority.valid(&["127.0.0.1"])).await).await;
        assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(1) }));
    });
}

#[test]
fn files_that_hold_no_certificate_are_named_with_their_variable() {
    let (empty, garbage) =
        (pem_file("nothing\n"), pem_file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
    let missing = PathBuf::from("/nonexistent/ca.pem");
    let ca = |path: &Path| Trust { ca_file: Some(path.into()), ..Trust::default() };
    let roots = |path: &Path| Trust { cert_file: Some(path.into()), ..Trust::default() };
    let dirs = Trust { cert_dirs: vec![missing.clone()], ..Trust::default() };
    let cases = [
        (ca(&missing), "SINDRI_AGENT_CA_FILE: /nonexistent/ca.pem cannot be used: No such file"),
        (ca(empty.path()), "it holds no PEM certificate"),
        (ca(garbage.path()), "it holds a certificate that cannot be read"),
        (roots(&missing), "SSL_CERT_FILE and SSL_CERT_DIR name no readable certificate: "),
        (roots(empty.path()), "SSL_CERT_FILE and SSL_CERT_DIR name no readable certificate"),
        (dirs, "SSL_CERT_FILE and SSL_CERT_DIR name no readable certificate: "),
    ];
    for (trust, words) in cases {
        let aim = |target: &mut Target| {
            with_tls(target);
            target.trust = trust;
        };
        run_aimed(aim, async |mut rig| {
            rig.link.dial(LinkId(1), "inst-1");
            let LinkReport::DialFailed { error, .. } = rig.report().await else { panic!() };
            assert_eq!(error.failure(), Failure::Tls);
            assert!(error.to_string().contains(words), "{error}\nlacks: {words}");
        });
    }
}

#[test]
fn clear_text_and_tls_mix_up_is_named_on_both_sides() {
    run_aimed(with_tls, async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        let mut stream = rig.accept().await;
        within(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await.expect("answered");
        let LinkReport::DialFailed { error, .. } = rig.report().await else { panic!() };
        assert_eq!(error.failure(), Failure::Tls);
        assert!(error.to_string().contains("answers in clear text"), "{error}");

        rig.link.dial(LinkId(2), "inst-1");
        drop(rig.accept().await);
        let LinkReport::DialFailed { error, .. } = rig.report().await else { panic!() };
        assert!(error.to_string().contains("broke off the handshake"), "{error}");
    });
    let authority = Authority::new();
    run(async |mut rig| {
        rig.link.dial(LinkId(1), "inst-1");
        let stream = rig.accept().await;
        let (shaken, report) = future::zip(within(authority.valid(&["127.0.0.1"]).accept(stream)), rig.report()).await;
        assert!(shaken.is_err());
        let LinkReport::DialFailed { error, .. } = report else { panic!("{report:?}") };
        assert!(error.to_string().contains("speaks TLS on this port"), "{error}");
    });
}

#[test]
fn a_tls_link_is_lost_and_dropped_like_any_other() {
    let authority = Authority::new();
    let server = authority.valid(&["127.0.0.1"]);
    run_aimed(trusting(authority.file()), async |mut rig| {
        // The stream ends without TLS's own goodbye, as it does when a console dies.
        rig.link.dial(LinkId(1), "inst-1");
        let console = accept_websocket(accept_tls(&rig, &server).await).await;
        assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(1) }));
        drop(console);
        assert!(matches!(rig.report().await, LinkReport::Lost { loss: Loss::Eof, .. }));
        assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));

        rig.link.dial(LinkId(2), "inst-1");
        let console = accept_websocket(accept_tls(&rig, &server).await).await;
        assert!(matches!(rig.report().await, LinkReport::Opened { link: LinkId(2) }));
        rig.link.drop_now(LinkId(2));
        let error = console.get_ref().get_ref().0.get_ref().peek(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(2) }));
    });
}
