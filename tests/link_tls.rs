//! The agent and a console behind TLS: trusted certificates, and each kind of untrusted ones.

use crate::support::authority::{Authority, self_signed, self_signed_authority};
use crate::support::namespace;
use crate::support::tls;
use crate::support::{Setup, skip};
use draupnir_console::Console;
use futures_rustls::TlsAcceptor;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;

fn trusting(console: &Console, file: &Path) -> Setup {
    Setup::new(console).env("SINDRI_AGENT_CA_FILE", file)
}

/// Waits until the agent has logged this text, and checks that it has sent nothing to the console.
#[track_caller]
fn refused(setup: Setup, console: &Console, words: &str) {
    let agent = setup.spawn();
    agent.wait_log(|line| says(line, words));
    assert_eq!(console.count(|_| true), 0, "the agent said something before it trusted:\n{}", console.story());
    agent.drain();
}

fn says(line: &Value, words: &str) -> bool {
    line.as_object()
        .is_some_and(|fields| fields.values().any(|value| value.as_str().is_some_and(|text| text.contains(words))))
}

#[test]
fn a_private_authority_is_trusted_in_both_versions_of_tls() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let authority = Authority::new();
        let console = tls::console(authority.server(&["127.0.0.1"], (2000, 4000), &[version])).start();
        let agent = trusting(&console, authority.file()).env("SINDRI_AGENT_HEARTBEAT", "0.2").spawn();
        console.frame("heartbeat");
        assert_eq!(console.browser().run("echo over TLS")["stdout"], "over TLS\n");
        console.link().reset();
        console.connection(2).hello();
        agent.drain();
    }
}

#[test]
fn untrusted_certificate_is_named_and_gets_no_data() {
    let (authority, impostor, stranger) = (Authority::new(), Authority::new(), Authority::named("a stranger"));
    let both = rustls::DEFAULT_VERSIONS;
    let cases: [(TlsAcceptor, &str); 7] = [
        (
            self_signed_authority(&["127.0.0.1"], (2000, 4000)).0,
            "it is a certificate of an authority (CA:TRUE), not of a server",
        ),
        (stranger.valid(&["127.0.0.1"]), "signed by an issuer that this machine does not trust"),
        (impostor.valid(&["127.0.0.1"]), "does not fit the trusted authority of that name"),
        (self_signed(&["127.0.0.1"]), "signed by an issuer that this machine does not trust"),
        (authority.server(&["127.0.0.1"], (2000, 2001), both), "its certificate expired at 2001-01-01T00:00:00Z"),
        (authority.server(&["127.0.0.1"], (3999, 4000), both), "is not valid before 3999-01-01T00:00:00Z"),
        (authority.valid(&["other.test"]), "is for other.test, not for 127.0.0.1"),
    ];
    for (server, words) in cases {
        let console = tls::console(server).start();
        refused(trusting(&console, authority.file()), &console, words);
    }
}

#[test]
fn self_signed_authority_named_itself_is_accepted() {
    let (server, file) = self_signed_authority(&["127.0.0.1"], (2000, 4000));
    let console = tls::console(server).start();
    let agent = trusting(&console, file.path()).spawn();
    console.frame("heartbeat");
    agent.drain();
}

#[test]
fn private_authority_without_file_is_not_trusted() {
    let console = tls::valid_console(&Authority::new());
    refused(Setup::new(&console), &console, "name its file in SINDRI_AGENT_CA_FILE");
}

#[test]
fn the_variables_of_openssl_are_honoured() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::copy(authority.file(), directory.path().join("ca.pem")).expect("copied");
    let places: [(&str, &OsStr); 2] =
        [("SSL_CERT_FILE", authority.file().as_ref()), ("SSL_CERT_DIR", directory.path().as_ref())];
    for (variable, place) in places {
        let console = tls::valid_console(&authority);
        let agent = Setup::new(&console).env(variable, place).spawn();
        console.frame("heartbeat");
        agent.drain();
    }
}

#[test]
fn tls_and_clear_text_mix_up_is_named() {
    let plain = Console::start(draupnir_console::Personality::production());
    let url = plain.url().replace("http://", "https://");
    refused(Setup::new(&plain).env("SINDRI_CONSOLE_URL", url), &plain, "perhaps it speaks no TLS on this port");
    let secure = tls::valid_console(&Authority::new());
    let url = secure.url().replace("https://", "http://");
    refused(Setup::new(&secure).env("SINDRI_CONSOLE_URL", url), &secure, "speaks TLS on this port");
}

#[cfg(target_os = "linux")]
#[test]
fn without_system_roots_built_in_and_private_ones_count() {
    const NAME: &str = "without_system_roots_built_in_and_private_ones_count";
    if !namespace::is_possible() {
        return skip(NAME, "no mount namespace can be had here");
    }
    let authority = Authority::new();
    let console = tls::valid_console(&authority);
    let bare = |setup| namespace::mounted(setup, &["mount -t tmpfs none /etc/ssl"]);
    let agent = bare(trusting(&console, authority.file())).spawn();
    let line = agent.wait_log(|line| says(line, "trusted roots read"));
    assert_eq!((&line["from"], &line["private"]), (&"Bundled".into(), &1.into()), "{line}");
    assert!(line["roots"].as_u64().is_some_and(|roots| roots > 100), "{line}");
    console.frame("heartbeat");
    agent.drain();
}

#[cfg(target_os = "linux")]
#[test]
fn root_found_only_in_a_directory_is_used() {
    const NAME: &str = "root_found_only_in_a_directory_is_used";
    if !namespace::is_possible() {
        return skip(NAME, "no mount namespace can be had here");
    }
    let (authority, other) = (Authority::new(), Authority::named("a stranger"));
    let console = tls::valid_console(&authority);
    let commands = [
        "mount -t tmpfs none /etc/ssl".to_owned(),
        "mkdir /etc/ssl/certs".to_owned(),
        format!("cp {} /etc/ssl/certs/ca-certificates.crt", other.file().display()),
        format!("cp {} /etc/ssl/certs/ours.pem", authority.file().display()),
    ];
    let agent = namespace::mounted(Setup::new(&console), &commands.each_ref().map(String::as_str)).spawn();
    agent.wait_log(|line| says(line, "does not trust"));
    console.frame("heartbeat");
    agent.drain();
}
