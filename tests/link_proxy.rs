//! The agent behind a real HTTP proxy, for registration and WebSocket alike.

use crate::support::authority::Authority;
use crate::support::tinyproxy::Tinyproxy;
use crate::support::tls;
use crate::support::{Setup, WAIT_MAX, skip};
use draupnir_console::{Builder, Console, Personality};
use serde_json::Value;

/// An address of this machine outside of 127.0.0.0/8: the agent uses no proxy for loopback addresses.
const HERE: &str = "0.0.0.0";

fn plain_console() -> Builder {
    Console::builder(Personality::production()).host(HERE)
}

/// Whether the test can run; if not, it is recorded as skipped.
fn has_proxy(test: &str) -> bool {
    let there = Tinyproxy::is_there();
    if !there {
        skip(test, "tinyproxy is not installed");
    }
    there
}

fn says(line: &Value, words: &str) -> bool {
    ["message", "error"].iter().any(|field| line[field].as_str().is_some_and(|text| text.contains(words)))
}

/// Waits until the agent has logged why it cannot connect, and checks that its log has no password.
#[track_caller]
fn refused(setup: Setup, console: &Console, words: &str) {
    let agent = setup.spawn();
    agent.wait_log(|line| says(line, words));
    assert!(!agent.log().text().contains("s3cret"), "the log holds the password");
    assert_eq!(console.accepted(), 0, "{}", console.story());
    agent.drain();
}

#[test]
fn registration_and_websocket_go_through_the_proxy() {
    if !has_proxy("registration_and_websocket_go_through_the_proxy") {
        return;
    }
    let (proxy, console) = (Tinyproxy::start(""), plain_console().start());
    let agent = Setup::new(&console).env("HTTP_PROXY", proxy.url("")).spawn();
    console.frame("heartbeat");
    assert_eq!(console.browser().run("echo through")["stdout"], "through\n");
    // The production console knows one of the two paths: two registrations and a WebSocket.
    assert_eq!(proxy.tunnels(), 3);
    console.link().reset();
    console.connection(2).hello();
    agent.drain();
}

#[test]
fn tls_goes_through_a_proxy_that_demands_credentials() {
    if !has_proxy("tls_goes_through_a_proxy_that_demands_credentials") {
        return;
    }
    let authority = Authority::new();
    let console = tls::console(authority.valid(&[HERE])).host(HERE).start();
    let allowed = format!("BasicAuth agent s3cret\nConnectPort {}", console.address().port());
    let proxy = Tinyproxy::start(&allowed);
    let setup = || Setup::new(&console).env("SINDRI_AGENT_CA_FILE", authority.file());
    refused(
        setup().env("ALL_PROXY", proxy.url("")),
        &console,
        "demands credentials: put user and password into ALL_PROXY",
    );
    let wrong = setup().env("HTTPS_PROXY", proxy.url("agent:s3cret-not@"));
    refused(wrong, &console, "it refuses the credentials in HTTPS_PROXY");
    let agent = setup().env("https_proxy", proxy.url("ag%65nt:%733cret@")).spawn();
    console.frame("heartbeat");
    agent.drain();
    assert!(!agent.log().text().contains("s3cret"), "the log holds the password");
}

#[test]
fn failure_of_the_proxy_is_named() {
    if !has_proxy("failure_of_the_proxy_is_named") {
        return;
    }
    let console = plain_console().start();
    let strict = Tinyproxy::start("ConnectPort 443");
    let setup = || Setup::new(&console);
    refused(setup().env("HTTP_PROXY", strict.url("")), &console, "HTTP status 403; it must allow CONNECT to that port");
    let gone = strict.url("");
    drop(strict);
    refused(setup().env("HTTP_PROXY", gone), &console, "or correct HTTP_PROXY");
    let proxy = Tinyproxy::start("");
    console.stop_listening();
    refused(setup().env("HTTP_PROXY", proxy.url("")), &console, "it could not reach the server");
}

#[test]
fn exceptions_are_reached_directly() {
    if !has_proxy("exceptions_are_reached_directly") {
        return;
    }
    let (proxy, console) = (Tinyproxy::start(""), plain_console().start());
    let port = console.address().port();
    for exceptions in ["*", "0.0.0.0/8", "other.test, 0.0.0.0", &format!("0.0.0.0:{port}")] {
        let before = console.from_now();
        let agent = Setup::new(&console).env("HTTP_PROXY", proxy.url("")).env("NO_PROXY", exceptions).spawn();
        before.frame("heartbeat");
        agent.drain();
    }
    assert_eq!(proxy.tunnels(), 0);
}

#[test]
fn invalid_proxy_is_a_configuration_error() {
    let console = plain_console().start();
    for url in ["socks5://s3cret@127.0.0.1:1080", "http://u:s3cret@:99999"] {
        let agent = Setup::new(&console).env("HTTP_PROXY", url).spawn();
        agent.wait_log(|line| says(line, "HTTP_PROXY"));
        assert_eq!(agent.wait_exit(WAIT_MAX).code(), Some(78));
        assert!(!agent.log().text().contains("s3cret"), "the log holds the password");
    }
}

#[test]
fn silent_proxy_is_named() {
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        return skip("silent_proxy_is_named", "quick: it waits until an attempt is given up");
    }
    let (silent, console) = (std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback"), plain_console().start());
    let address = silent.local_addr().expect("an address");
    let words = format!("did not answer the registration in time, by way of the proxy {address} (ALL_PROXY)");
    refused(Setup::new(&console).env("ALL_PROXY", format!("http://{address}")), &console, &words);
}
