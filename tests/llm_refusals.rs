//! What the proxy of AI tools does not do, and where it is not there at all (SECURITY.md).

use crate::support::llm;
use crate::support::llm::{Provider, Rig, answer, free_port, post};
use crate::support::{Agent, Setup, mentions};
use draupnir_console::{Console, Personality};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn web_pages_and_foreign_hosts_are_refused() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let rig = Rig::new(&provider);
    let ask = |line: &str, headers: &str| {
        let mut client = rig.client();
        client.say(format!("{line} HTTP/1.1\r\n{headers}\r\n")).expect("sent");
        client.hear()
    };
    let models = "GET /v1/openai/models";
    for (line, headers, status) in [
        (models, "Host: localhost\r\n", 200),
        (models, "Host: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n", 200),
        (models, "Host: localhost\r\nOrigin: https://evil.test\r\n", 403),
        (models, "Host: localhost\r\nOrigin: null\r\n", 403),
        (models, "Host: evil.test\r\n", 403),
        (models, "Host: localhost.evil.test:9090\r\n", 403),
        (models, "Host: localhost\r\nHost: evil.test\r\n", 403),
        (models, "", 403),
        ("GET http://evil.test/v1/openai/models", "Host: localhost\r\n", 403),
        (models, "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", 501),
        ("CONNECT localhost:443", "Host: localhost\r\n", 501),
        ("GET /", "Host: localhost\r\n", 404),
        ("GET /v1/unknown/models", "Host: localhost\r\n", 404),
    ] {
        let answer = ask(line, headers);
        assert_eq!(answer.status(), status, "{line} {headers}: {answer:?}");
        if status != 200 {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(body["error"]["type"], "sindri_agent", "{body}");
        }
    }
    assert_eq!(provider.heads().len(), 2, "the others never left");
    rig.agent.drain();
}

#[test]
fn provider_that_is_not_there_is_a_502_with_a_sentence() {
    let port = free_port();
    let rig = Rig::with(|setup| setup.env("SINDRI_LLM_UPSTREAM_OPENAI", format!("https://127.0.0.1:{port}")));
    let mut client = rig.client();
    for (path, words) in [
        ("/v1/openai/models", format!("127.0.0.1:{port} cannot be connected to")),
        ("/v1/azure/openai/x", "set SINDRI_LLM_UPSTREAM_AZURE to its address".to_owned()),
    ] {
        client.say(post(path, "{}")).expect("sent");
        let answer = client.hear();
        assert_eq!(answer.status(), 502);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains(&words)), "{body}");
    }
    rig.agent.drain();
}

#[test]
fn provider_without_tls_is_named_with_its_variable() {
    let provider = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = provider.local_addr().expect("an address");
    let answers = std::thread::spawn(move || {
        let (mut asking, _) = provider.accept().expect("the agent connects");
        asking.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("sent");
    });
    let rig = Rig::with(|setup| setup.env("SINDRI_LLM_UPSTREAM_OPENAI", format!("https://{address}")));
    let mut client = rig.client();
    client.say(post("/v1/openai/models", "{}")).expect("sent");
    let answer = client.hear();
    assert_eq!(answer.status(), 502);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let expected = format!(
        "the agent got no answer from openai: no TLS with {address}: it answers in clear text, not TLS: the port is \
         wrong, or SINDRI_LLM_UPSTREAM_OPENAI should begin with http"
    );
    assert_eq!(body["error"]["message"], expected);
    answers.join().expect("no panic");
    rig.agent.drain();
}

#[test]
fn port_in_use_is_one_error_and_the_agent_goes_on() {
    let console = Console::start(Personality::production());
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("an address").port().to_string();
    let agent = Agent::spawn(&console, &[("SINDRI_LLM_ADAPTER", "proxy"), ("SINDRI_LLM_PROXY_PORT", &port)]);
    let event = console.event("error");
    assert_eq!(event.payload()["metadata"]["source"], "llm");
    assert!(event.payload()["message"].as_str().is_some_and(|text| text.contains(&format!("127.0.0.1:{port}"))));
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    assert_eq!(agent.log().count(|line| line["level"] == "ERROR"), 1, "{}", agent.log().text());
    // The agent before this one may only have been slow to go.
    drop(taken);
    agent.wait_log(|line| mentions(line, "counting the usage") && mentions(line, &format!("127.0.0.1:{port}")));
    agent.drain();
}

#[test]
fn doctor_tells_who_listens_for_tools() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let rig = Rig::new(&provider);
    let doctor = |port: u16| {
        let setup = Setup::new(&rig.console).arg("doctor").env("SINDRI_LLM_ADAPTER", "proxy");
        let output = setup.env("SINDRI_LLM_PROXY_PORT", port.to_string()).output();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.contains(" llm ")).map(str::to_owned).expect("a line about it")
    };
    let (other, free) = (TcpListener::bind("127.0.0.1:0").expect("loopback"), free_port());
    let foreign_port = other.local_addr().expect("an address").port();
    let foreign = std::thread::spawn(move || drop(other.accept().expect("the doctor asks")));
    for (port, words) in [
        (rig.port, "ok    llm            the agent counts the usage of AI tools at"),
        (foreign_port, "fail  llm            another program listens at"),
        (free, "warn  llm            no program listens at"),
    ] {
        let line = doctor(port);
        assert!(line.starts_with(words), "{line}");
    }
    foreign.join().expect("no panic");
    rig.agent.drain();
}

#[test]
fn connections_are_bounded() {
    let provider = Provider::answering(answer("200 OK", JSON, b"{}"));
    let rig = Rig::new(&provider);
    let mut open: Vec<llm::Peer> = (0..256).map(|_| rig.client()).collect();
    // All of them are served, the last one too.
    for client in &mut open {
        client.say(post("/v1/openai/models", "{}")).expect("sent");
        assert_eq!(client.hear().status(), 200);
    }
    let mut refused = rig.client();
    assert_eq!(refused.hear().status(), 503);
    assert!(refused.sees_the_end());
    rig.agent.wait_log(|line| mentions(line, "too many are open"));
    rig.agent.drain();
}

#[test]
fn proxy_is_there_only_where_tools_are_pointed_at_it() {
    let port = free_port();
    let at = |host: &str| format!("http://{host}:{port}/v1/openai");
    for (variables, listens) in [
        (vec![("OPENAI_BASE_URL", at("localhost"))], true),
        (
            vec![("AZURE_OPENAI_ENDPOINT", at("127.0.0.1")), ("CO_API_URL", "https://gateway.test/v1/cohere".into())],
            true,
        ),
        (vec![("SINDRI_LLM_ADAPTER", "ebpf".into()), ("SINDRI_LLM_PROXY_PORT", port.to_string())], true),
        (vec![("OPENAI_BASE_URL", at("localhost")), ("SINDRI_LLM_ADAPTER", "none".into())], false),
        (vec![("OPENAI_BASE_URL", at("10.0.0.1"))], false),
        (vec![("OPENAI_BASE_URL", at("localhost")), ("GROQ_BASE_URL", "http://localhost:1/v1/groq".into())], false),
        (vec![("SINDRI_LLM_PROXY_PORT", port.to_string())], false),
    ] {
        let console = Console::start(Personality::production());
        let set = |setup: Setup, (name, value): &(&str, String)| setup.env(name, value);
        let agent = variables.iter().fold(Setup::new(&console), set).spawn();
        console.frame("heartbeat");
        if listens {
            agent.wait_log(|line| mentions(line, "counting the usage") && mentions(line, "127.0.0.1"));
        }
        let reached = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok();
        assert_eq!(reached, listens, "{variables:?}");
        agent.drain();
    }
}
