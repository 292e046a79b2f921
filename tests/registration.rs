//! How the agent registers: paths, body, aliases, refusals, and its reaction to each answer (CONSOLE.md,
//! "Registration").

use std::time::Duration;

use crate::support::{Agent, INSTANCE_ID, Setup, WAIT_MAX};
use draupnir_console::{Answer, Console, Personality, What};
use serde_json::{Value, json};

/// The path of the protocol as designed.
const DESIGNED: &str = "/api/v1/instances/register";

/// The path that the production console serves.
const OBSERVED: &str = "/api/v1/instances";

/// The agent spreads the first retry over 10 s and the second over 20 s.
const RETRIES_MAX: Duration = Duration::from_secs(50);

fn is_error(line: &Value) -> bool {
    line["level"] == "ERROR"
}

#[test]
fn designed_path_carries_all_known_fields() {
    let console = Console::start(Personality::designed());
    let tags = "team=core,formula=a=b";
    let environment = [("SINDRI_PROVIDER", "fly"), ("SINDRI_REGION", "fra"), ("SINDRI_AGENT_TAGS", tags)];
    let agent = Agent::spawn(&console, &environment);
    let registration = console.registration(1);
    let request = registration.request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", DESIGNED));
    assert_eq!(request.header("Authorization"), Some(format!("Bearer {}", console.key()).as_str()));
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    let body = request.json();
    assert_eq!(body["instance_id"], INSTANCE_ID);
    assert_eq!((&body["provider"], &body["region"]), (&json!("fly"), &json!("fra")));
    assert_eq!(body["tags"], json!({"team": "core", "formula": "a=b"}));
    assert_eq!(body["agent_version"], env!("CARGO_PKG_VERSION"));
    assert!(["linux", "darwin"].contains(&body["os"].as_str().expect("text")));
    assert!(!["x86_64", "aarch64"].contains(&body["arch"].as_str().expect("text")));
    assert!(body["hostname"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(body["timestamp"].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')));
    assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(INSTANCE_ID));
    agent.drain();
}

#[test]
fn unknown_fields_are_left_out_and_tags_are_an_object() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    let body = console.registration(1).request().json();
    assert_eq!(body["tags"], json!({}));
    for field in ["provider", "region"] {
        assert!(body.get(field).is_none_or(|value| value.as_str().is_some_and(|text| !text.is_empty())), "{body}");
    }
    assert!(body.get("eventType").is_none(), "that belongs to the message: {body}");
    agent.drain();
}

#[test]
fn other_path_is_tried_on_404_and_its_id_dialled() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", "docker")]);
    assert_eq!(console.registration_answered(1, 404).request().path, DESIGNED);
    assert_eq!(console.registration_answered(1, 201).request().path, OBSERVED);
    let given = console.instance_ids().pop().expect("one was given");
    assert_ne!(given, INSTANCE_ID);
    assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(given.as_str()));
    assert_eq!(console.connection(1).hello()["payload"]["instance_id"], given.as_str());
    assert_eq!(console.frame("heartbeat").payload()["instance_id"], given.as_str());
    agent.drain();
}

#[test]
fn without_either_path_on_405_the_configured_id_is_dialled() {
    let console = Console::start(Personality::designed());
    console.answer_registration(Answer::status(405));
    let agent = Agent::spawn(&console, &[]);
    let first = console.registration_answered(1, 405);
    assert_eq!(first.request().path, DESIGNED);
    assert_eq!(console.after(&first).registration_answered(1, 404).request().path, OBSERVED);
    assert_eq!(console.connection(1).instance_id(), Some(INSTANCE_ID));
    agent.drain();
}

#[test]
fn observed_path_gets_the_provider_alias_at_once() {
    for (ours, theirs) in [("k8s", "kubernetes"), ("somewhere-else", "ssh"), ("hetzner", "ssh")] {
        let console = Console::start(Personality::production());
        let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", ours)]);
        assert_eq!(console.registration_answered(1, 404).request().json()["provider"], ours);
        assert_eq!(console.registration_answered(1, 201).request().json()["provider"], theirs);
        console.frame("heartbeat");
        agent.drain();
    }
}

#[test]
fn a_conflict_is_success_and_the_configured_id_stays() {
    let console = Console::start(Personality::production());
    console.know(INSTANCE_ID);
    let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", "fly")]);
    console.registration_answered(1, 409);
    assert_eq!(console.connection(1).instance_id(), Some(INSTANCE_ID));
    console.frame("heartbeat");
    assert_eq!(agent.log().count(is_error), 0);
    agent.drain();
}

#[test]
fn a_success_without_a_usable_id_keeps_the_configured_one() {
    let too_long = "x".repeat(101);
    for body in
        ["", "no JSON", "[]", r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"a\nb"}"#, &format!(r#"{{"id":"{too_long}"}}"#)]
    {
        let console = Console::start(Personality::designed());
        console.answer_registration(Answer::status(201).body(body));
        let agent = Agent::spawn(&console, &[]);
        assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(INSTANCE_ID), "{body}");
        agent.drain();
    }
}

/// An HTTP answer to a registration, byte for byte.
fn raw(text: &str) -> Answer {
    Answer::garbage(text.as_bytes())
}

#[test]
fn broken_success_is_a_failed_exchange_and_tried_again() {
    let cases = [
        ("Content-Length: 14\r\n\r\n{\"id\"", "ends before the length it announced"),
        ("Content-Length: -1\r\n\r\n{\"id\":\"wrong\"}", "whose Content-Length is not a number"),
        ("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{\"id\":\"wrong\"}", "a malformed chunk"),
        ("Content-Length: 27\r\n\r\n{\"id\":\"wrong\",\"id\":\"other\"}", "names \\\"id\\\" twice"),
    ];
    for (answer, words) in cases {
        let console = Console::start(Personality::designed());
        console.answer_registration(raw(&format!("HTTP/1.1 201 Created\r\n{answer}")));
        let agent = Agent::spawn(&console, &[]);
        let line = agent.wait_log(|line| line["level"] == "WARN" && line.to_string().contains(words));
        assert!(line.to_string().contains("registration failed"), "{line}");
        console.within(RETRIES_MAX).registration_answered(1, 201);
        assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(INSTANCE_ID), "{answer}");
        agent.drain();
    }
}

#[test]
fn captive_portal_page_is_a_refusal_with_the_reason() {
    let console = Console::start(Personality::designed());
    let page = Answer::status(200).header("Content-Type", "text/html; charset=utf-8").body("<html>Log in</html>");
    console.answer_registration(page);
    let agent = Agent::spawn(&console, &[]);
    agent.wait_log(|line| line["level"] == "WARN" && line.to_string().contains("text/html instead of JSON"));
    console.within(RETRIES_MAX).registration_answered(1, 201);
    console.frame("heartbeat");
    let is_registered = |line: &Value| line["message"] == "registered";
    agent.wait_log(is_registered);
    assert_eq!(agent.log().count(is_registered), 1);
    agent.drain();
}

#[test]
fn compressed_answer_is_a_warning_and_keeps_configured_id() {
    let console = Console::start(Personality::designed());
    let answer = Answer::status(201).header("Content-Encoding", "gzip").body("\u{1f}\u{8b}x");
    console.answer_registration(answer);
    let agent = Agent::spawn(&console, &[]);
    let taken = console.registration_answered(1, 201);
    assert_eq!(taken.request().header("Accept-Encoding"), Some("identity"));
    agent.wait_log(|line| line["level"] == "WARN" && line["coding"] == "gzip");
    assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(INSTANCE_ID));
    agent.drain();
}

#[test]
fn words_of_an_old_answer_are_not_repeated() {
    let console = Console::start(Personality::production());
    let agent = Setup::new(&console).env("SINDRI_PROVIDER", "fly").spawn();
    console.registration_answered(1, 404);
    console.frame("heartbeat");
    console.answer_upgrade(draupnir_console::Upgrade::close(1008, "Authentication required"));
    console.link().reset();
    let line = agent.wait_log(is_error);
    assert!(line["message"].as_str().is_some_and(|text| text.contains("SINDRI_CONSOLE_API_KEY")), "{line}");
    assert!(line["words"].is_null(), "{line}");
    agent.drain();
}

#[test]
fn retry_after_of_the_registration_is_kept() {
    for status in [429, 503] {
        let console = Console::start(Personality::designed());
        console.answer_registration(Answer::status(status).header("Retry-After", "1"));
        let agent = Agent::spawn(&console, &[]);
        let refused = console.registration_answered(1, status);
        let taken = console.registration_answered(1, 201);
        assert!(taken.at_ms >= refused.at_ms + 1_000, "{} ms", taken.at_ms - refused.at_ms);
        agent.drain();
    }
}

#[test]
fn answers_that_are_none_are_tried_again() {
    let console = Console::start(Personality::designed());
    console.answer_registration(Answer::garbage(b"SSH-2.0-OpenSSH_9.6\r\n"));
    console.answer_registration(Answer::reset_midway());
    let agent = Agent::spawn(&console, &[]);
    console.within(RETRIES_MAX).registration_answered(1, 201);
    assert_eq!(console.upgrade(1).request().header("X-Instance-ID"), Some(INSTANCE_ID));
    agent.drain();
}

#[test]
fn rejection_is_one_error_and_the_configured_id_is_dialled() {
    let console = Console::start(Personality::designed());
    let rejection = Answer::status(400).json(&json!({"error": "Bad Request", "message": "no such fleet"}));
    console.answer_registrations(Some(rejection));
    let agent = Agent::spawn(&console, &[]);
    assert_eq!(console.connection(1).instance_id(), Some(INSTANCE_ID));
    console.frame("heartbeat");
    let errors: Vec<Value> = agent.log().lines().into_iter().map(|line| line.value).filter(is_error).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains("no such fleet"), "{errors:?}");
    agent.drain();
}

#[test]
fn a_refused_key_is_one_error_and_no_end() {
    for status in [401, 403] {
        let console = Console::start(Personality::designed());
        console.answer_registrations(Some(Answer::status(status)));
        let agent = Agent::spawn(&console, &[]);
        let line = agent.wait_log(is_error);
        assert!(line["message"].as_str().is_some_and(|text| text.contains("SINDRI_CONSOLE_API_KEY")), "{line}");
        agent.drain();
        assert_eq!(agent.log().count(is_error), 1);
        // The next attempt is at least half a minute away.
        assert_eq!(console.count(|record| matches!(record.what, What::Registration(..) | What::Upgrade(_))), 1);
    }
}

#[test]
fn refused_key_in_quotes_gives_a_hint() {
    let console = Console::start(Personality::designed());
    let agent = Setup::new(&console).key(&format!("\"{}\"", console.key())).spawn();
    let line = agent.wait_log(is_error);
    assert!(line["hint"].as_str().is_some_and(|hint| hint.contains("it stands in quotes")), "{line}");
    agent.drain();
}

#[test]
fn a_redirect_is_said_and_not_followed() {
    let (console, elsewhere) = (Console::start(Personality::designed()), Console::start(Personality::designed()));
    let location = format!("{}{DESIGNED}", elsewhere.url());
    console.answer_registration(Answer::status(308).header("Location", &location));
    let agent = Agent::spawn(&console, &[]);
    agent.wait_log(|line| is_error(line) && line.to_string().contains(&location));
    agent.wait_log(|line| is_error(line) && line.to_string().contains("SINDRI_CONSOLE_URL"));
    console.within(RETRIES_MAX).registration_answered(1, 201);
    agent.drain();
    assert_eq!(elsewhere.accepted(), 0);
}

#[test]
fn slow_answer_is_waited_for_and_a_missing_one_given_up() {
    let console = Console::start(Personality::designed());
    console.answer_registration(Answer::never());
    console.answer_registration(Answer::usual().delay(Duration::from_secs(4)));
    let agent = Agent::spawn(&console, &[]);
    // 15 s without an answer, then a first retry within 10 s.
    let accepted = console.within(RETRIES_MAX + WAIT_MAX).registration_answered(1, 201);
    assert!(console.after(&accepted).upgrade(1).seq > accepted.seq);
    assert_eq!(console.count(|record| matches!(record.what, What::Registration(..))), 2);
    agent.drain();
}

#[test]
fn prefix_in_the_url_is_kept_without_trailing_slashes() {
    let console = Console::start(Personality::production().under("/fleet/console"));
    let setup = Setup::new(&console).env("SINDRI_CONSOLE_URL", format!("{}//", console.url()));
    let agent = setup.env("SINDRI_PROVIDER", "fly").spawn();
    let taken = console.registration_answered(1, 201);
    assert_eq!(taken.request().path, format!("/fleet/console{OBSERVED}"));
    assert_eq!(console.upgrade(1).request().path, "/fleet/console/ws/agent");
    console.frame("heartbeat");
    agent.drain();
}
