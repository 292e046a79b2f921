//! `sindri-agent doctor`: each fault has one diagnosis, and no two faults have the same.

use crate::support;
use crate::support::authority::{Authority, pem_file, self_signed_authority};
use crate::support::diagnoses;
use crate::support::front;
use crate::support::tinyproxy::Tinyproxy;
use crate::support::tls;
use crate::support::{Home, Setup, skip};
use draupnir_console::{Console, Personality, Upgrade};
use serde_json::Value;
use std::path::Path;

/// Verdict, check and text.
type Finding = (String, String, String);

fn doctor(setup: Setup) -> (Option<i32>, Value) {
    let output = setup.arg("doctor").arg("--json").output();
    let errors = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    (output.status.code(), found)
}

/// All warnings and failures.
fn findings(sheet: &Value) -> Vec<Finding> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let checks = sheet["checks"].as_array().expect("checks").iter();
    let noted = checks.filter(|check| matches!(check["verdict"].as_str(), Some("warn" | "fail")));
    noted.map(|check| (text(&check["verdict"]), text(&check["check"]), text(&check["text"]))).collect()
}

/// Checks that `doctor` reports this finding and no other.
#[track_caller]
fn finds(setup: Setup, verdict: &str, check: &str, words: &str) {
    let (status, sheet) = doctor(setup);
    let findings = findings(&sheet);
    let [(its_verdict, its_check, text)] = &findings[..] else { panic!("not one finding: {sheet:#}") };
    assert_eq!((&its_verdict[..], &its_check[..]), (verdict, check), "{text}");
    diagnoses::judge(verdict, check, words, text);
    assert_eq!(status, Some(i32::from(verdict == "fail")));
    assert_eq!(sheet["healthy"], verdict != "fail");
}

fn production() -> Console {
    Console::start(Personality::production())
}

fn trusting(console: &Console, file: &Path) -> Setup {
    Setup::new(console).env("SINDRI_AGENT_CA_FILE", file)
}

#[test]
fn all_is_well() {
    let console = production();
    let output = Setup::new(&console).arg("doctor").output();
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    for check in ["configuration", "state", "home", "pty", "shell", "descriptors", "limits", "disk"] {
        assert!(text.contains(&format!("ok    {check:<14} ")), "{check} is not in order:\n{text}");
    }
    for check in ["dns", "tcp", "registration", "websocket", "key"] {
        assert!(text.contains(&format!("ok    {check:<14} ")), "{check} is not in order:\n{text}");
    }
    let (status, sheet) = doctor(Setup::new(&console));
    assert_eq!((status, &sheet["healthy"], findings(&sheet)), (Some(0), &Value::Bool(true), vec![]));
    assert!(console.instance_ids().is_empty(), "nothing was registered");
}

#[test]
fn running_agent_keeps_its_connection() {
    let console = production();
    let agent = Setup::new(&console).spawn();
    console.frame("heartbeat");
    let home = agent.home().clone();
    let (status, sheet) = doctor(Setup::new(&console).home(&home));
    assert_eq!(status, Some(0), "{sheet:#}");
    // The running agent still answers on its first link.
    assert_eq!(console.browser().run("echo undisturbed")["stdout"], "undisturbed\n");
    assert!(console.connection(1).is_routed());
    assert_eq!(console.instance_ids().len(), 1, "nothing was registered");
    agent.drain();
}

#[test]
fn faults_of_the_configuration() {
    let console = Console::builder(Personality::production()).host("0.0.0.0").start();
    finds(
        Setup::new(&console).without("SINDRI_CONSOLE_API_KEY"),
        "fail",
        "configuration",
        "SINDRI_CONSOLE_API_KEY is not set",
    );
    finds(
        Setup::new(&console).env("HTTP_PROXY", "socks5://p:1"),
        "fail",
        "proxy",
        "HTTP_PROXY names a proxy that is not",
    );
    let output = Setup::new(&console).env("HTTP_PROXY", "socks5://p:1").arg("doctor").output();
    let text = String::from_utf8(output.stdout).expect("text");
    for check in ["dns", "tcp", "registration", "clock", "websocket", "key"] {
        assert!(
            text.contains(&format!("skip  {check:<14} not checked: the way to the console is not known")),
            "{text}"
        );
    }
}

#[test]
fn faults_of_the_shell() {
    let (home, console) = (Home::new(), production());
    let with = |shell: &Path| Setup::new(&console).home(&home).env("SINDRI_AGENT_SHELL", shell);
    finds(with(Path::new("/no/such/shell")), "fail", "shell", "/no/such/shell: not found");
    let text = home.path().join("text");
    std::fs::write(&text, "").expect("written");
    finds(with(&text), "fail", "shell", "Permission denied");
    let odd = home.path().join("odd");
    std::fs::write(&odd, "#!/bin/sh\nexit 3\n").expect("written");
    std::fs::set_permissions(&odd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    finds(with(&odd), "fail", "shell", "ran `exit 0` and exited with 3");
}

#[test]
fn faults_of_places() {
    let (home, console) = (Home::new(), production());
    let setup = || Setup::new(&console).home(&home);
    finds(setup().env("HOME", "/no/such/home"), "warn", "home", "/no/such/home is no directory");
    finds(setup().without("HOME"), "warn", "home", "HOME is not set");
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("written");
    finds(setup().env("SINDRI_AGENT_STATE_DIR", &file), "warn", "state", "Not a directory");
    std::fs::create_dir(home.state_dir()).expect("a directory");
    std::fs::write(home.state_dir().join("identity.json"), "{").expect("written");
    finds(setup(), "warn", "state", "is damaged");
}

#[test]
fn too_few_descriptors() {
    let console = production();
    let script = "ulimit -n 64; exec \"$0\" \"$@\"";
    let setup = Setup::new(&console).program("/bin/sh").arg("-c").arg(script).arg(support::agent_program());
    finds(setup, "warn", "descriptors", "only 64 may be open");
}

#[test]
fn connection_refused_fails_tcp() {
    let console = production();
    console.stop_listening();
    finds(Setup::new(&console), "fail", "tcp", "the console 127.0.0.1:");
}

#[test]
fn faults_of_certificates() {
    let (authority, stranger, impostor) = (Authority::new(), Authority::named("a stranger"), Authority::new());
    let both = rustls::DEFAULT_VERSIONS;
    let cases = [
        (stranger.valid(&["127.0.0.1"]), "signed by an issuer that this machine does not trust"),
        (impostor.valid(&["127.0.0.1"]), "does not fit the trusted authority of that name"),
        (authority.server(&["127.0.0.1"], (2000, 2001), both), "expired at 2001-01-01T00:00:00Z"),
        (authority.server(&["127.0.0.1"], (3999, 4000), both), "not valid before 3999-01-01T00:00:00Z"),
        (authority.valid(&["other.test"]), "is for other.test, not for 127.0.0.1"),
        (self_signed_authority(&["127.0.0.1"], (2000, 4000)).0, "it is a certificate of an authority (CA:TRUE)"),
    ];
    for (server, words) in cases {
        let console = tls::console(server).start();
        finds(trusting(&console, authority.file()), "fail", "tls", words);
    }
    let console = tls::valid_console(&authority);
    let (status, sheet) = doctor(trusting(&console, authority.file()));
    assert_eq!((status, findings(&sheet)), (Some(0), vec![]));
    assert!(
        sheet.to_string().contains(
            "TLS 1.3, the certificate is trusted, valid until 4000-01-01T00:00:00Z; it is for 127.0.0.1, signed by the \
             operator's own"
        ),
        "{sheet:#}"
    );
    assert!(sheet.to_string().contains("1 of them from SINDRI_AGENT_CA_FILE"), "{sheet:#}");
}

#[test]
fn self_signed_authority_named_itself_is_trusted() {
    let (server, file) = self_signed_authority(&["127.0.0.1"], (2000, 4000));
    let console = tls::console(server).start();
    let (status, sheet) = doctor(trusting(&console, file.path()));
    assert_eq!((status, findings(&sheet)), (Some(0), vec![]), "{sheet:#}");
    assert!(sheet.to_string().contains("valid until 4000-01-01T00:00:00Z; it is for 127.0.0.1"), "{sheet:#}");
}

#[test]
fn certificate_ending_tomorrow_warns() {
    let authority = Authority::new();
    let console = tls::console(authority.ending_tomorrow(&["127.0.0.1"])).start();
    finds(trusting(&console, authority.file()), "warn", "tls", "ends within two days; renew it");
}

#[test]
fn faults_of_the_files_of_certificates() {
    let console = tls::valid_console(&Authority::new());
    finds(
        trusting(&console, Path::new("/no/such/file")),
        "fail",
        "roots",
        "SINDRI_AGENT_CA_FILE: /no/such/file cannot be used",
    );
    let empty = pem_file("");
    finds(
        Setup::new(&console).env("SSL_CERT_FILE", empty.path()),
        "fail",
        "roots",
        "SSL_CERT_FILE and SSL_CERT_DIR name no",
    );
}

#[test]
fn clear_text_and_tls_taken_for_each_other() {
    let plain = production();
    let url = plain.url().replace("http://", "https://");
    finds(Setup::new(&plain).env("SINDRI_CONSOLE_URL", url), "fail", "tls", "it broke off the handshake");
    let secure = tls::valid_console(&Authority::new());
    let url = secure.url().replace("https://", "http://");
    finds(Setup::new(&secure).env("SINDRI_CONSOLE_URL", url), "fail", "registration", "speaks TLS on this port");
}

#[test]
fn faults_of_http_answers() {
    let console = production();
    let behind = |answer: &str| {
        let url = front::before(console.address().port(), answer);
        Setup::new(&console).env("SINDRI_CONSOLE_URL", url)
    };
    let elsewhere = "HTTP/1.1 308 Moved\r\nLocation: https://other.test/\r\nContent-Length: 0\r\n\r\n";
    finds(behind(elsewhere), "fail", "registration", "pointing to https://other.test/: redirects are not followed");
    finds(
        behind("HTTP/1.1 503 No\r\n\r\n{\"message\":\"maintenance\"}"),
        "fail",
        "registration",
        "it says: maintenance",
    );
    finds(behind("HTTP/1.1 429 No\r\n\r\n"), "warn", "registration", "too many requests");
    let portal = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Log in</html>";
    finds(behind(portal), "warn", "registration", "text/html instead of JSON");
    finds(behind("SSH-2.0-OpenSSH_9.9\r\n"), "fail", "registration", "does not speak HTTP on this port");
    finds(behind(""), "fail", "registration", "closed the connection without an answer");
    let past = "HTTP/1.1 405 No\r\nDate: Sat, 06 Nov 2010 08:49:37 GMT\r\n\r\n";
    finds(behind(past), "warn", "clock", "ahead of the console's (2010-11-06T08:49:37Z)");
    let future = "HTTP/1.1 405 No\r\nDate: Sat, 06 Nov 2100 08:49:37 GMT\r\n\r\n";
    finds(behind(future), "warn", "clock", "behind the console's (2100-11-06T08:49:37Z)");
}

#[test]
fn faults_of_the_websocket() {
    let console = production();
    let wrong_path = format!("{}/wrong", console.url());
    finds(
        Setup::new(&console).env("SINDRI_CONSOLE_URL", wrong_path),
        "fail",
        "websocket",
        "is the path in SINDRI_CONSOLE_URL right?",
    );
    let cases = [
        (Upgrade::status(502), "fail", "HTTP status 502"),
        (Upgrade::wrong_accept(), "fail", "without a valid Sec-WebSocket-Accept header"),
        (Upgrade::reset(), "fail", "broke the connection off"),
        (Upgrade::close(1013, "try again later"), "warn", "closed by the console with 1013 \"try again later\""),
    ];
    for (upgrade, verdict, words) in cases {
        console.answer_upgrade(upgrade);
        finds(Setup::new(&console), verdict, "websocket", words);
    }
    // A console that accepts any id and sends nothing.
    let console = Console::start(Personality::designed());
    std::thread::scope(|scope| {
        scope.spawn(|| console.connection(1).reset());
        finds(Setup::new(&console), "fail", "websocket", "upgraded, and then lost");
    });
}

#[test]
fn key_refused_before_or_after_upgrade_is_one_finding() {
    let (late, early) = (production(), Console::start(Personality::designed()));
    let words = "set a valid one in SINDRI_CONSOLE_API_KEY";
    finds(Setup::new(&late).key("drp_not_the_one"), "fail", "key", words);
    let (status, sheet) = doctor(Setup::new(&early).key("drp_not_the_one"));
    let [(_, check, text)] = &findings(&sheet)[..] else { panic!("not one finding: {sheet:#}") };
    assert!(status == Some(1) && check == "key" && text.contains(words), "{sheet:#}");
}

#[test]
fn refused_key_in_quotes_gives_a_hint() {
    let console = production();
    let setup = Setup::new(&console).key(&format!("'{}'", console.key()));
    finds(setup, "fail", "key", "it stands in quotes, and the agent sends them too");
}

#[test]
fn unknown_variable_is_a_warning() {
    let console = production();
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARBEAT", "1");
    finds(setup, "warn", "configuration", "did you mean SINDRI_AGENT_HEARTBEAT?");
}

#[test]
fn hanging_ca_file_fails_the_check() {
    let console = tls::valid_console(&Authority::new());
    let setup = Setup::new(&console);
    let path = setup.home_path().join("ca.pem");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is installed").success());
    finds(setup.env("SINDRI_AGENT_CA_FILE", path), "fail", "roots", "its file system did not answer within 5 s");
}

#[test]
fn faults_of_a_proxy() {
    if !Tinyproxy::is_there() {
        return skip("faults_of_a_proxy", "tinyproxy is not installed");
    }
    let console = Console::builder(Personality::production()).host("0.0.0.0").start();
    let proxy = Tinyproxy::start("BasicAuth agent s3cret");
    let through = |credentials: &str| Setup::new(&console).env("HTTP_PROXY", proxy.url(credentials));
    finds(through(""), "fail", "proxy", "demands credentials");
    finds(through("agent:wrong@"), "fail", "proxy", "it refuses the credentials in HTTP_PROXY");
    let (status, sheet) = doctor(through("agent:s3cret@"));
    assert_eq!((status, findings(&sheet)), (Some(0), vec![]), "{sheet:#}");
    assert!(!sheet.to_string().contains("s3cret"), "{sheet:#}");
    console.stop_listening();
    finds(through("agent:s3cret@"), "fail", "proxy", "it could not reach the server");
    let gone = proxy.url("");
    drop(proxy);
    finds(Setup::new(&console).env("HTTP_PROXY", gone), "fail", "tcp", "the proxy 127.0.0.1:");
}
