//! The agent treats messages of the console as the contract says. It follows a message that the schema allows; any
//! other message has the effect that PROTOCOL.md gives its class ("Messages that are not valid").

use crate::support::Agent;
use draupnir::protocol::{Ignored, Inbound, decode, echo};
use draupnir_console::{Console, Personality};
use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../src/protocol/schema/draupnir.schema.json")).expect("JSON"));

static VECTORS: LazyLock<Vec<Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("console/kit/vectors.json")).expect("JSON"));

/// The ids in the vectors. A test replaces them by its own ids.
const IDS: [&str; 2] = ["0dc35302-b8d0-4ee0-8530-e2a37d518a44", "f11f22b3-0085-415f-8392-1803e935e6ce"];

/// The types of messages that cause an action.
const KINDS: [&str; 6] =
    ["TerminalCreate", "TerminalInput", "TerminalResize", "TerminalClose", "CommandDispatch", "CommandCancel"];

fn vectors() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let of_console = VECTORS.iter().filter(|vector| vector["from"] == "console");
    of_console.map(|vector| {
        let text = |field: &str| vector[field].as_str().expect("a text");
        (text("note"), text("raw"), text("effect"))
    })
}

/// The effect of a frame, in the terms of the vectors.
fn effect(frame: &str) -> &'static str {
    match decode(frame).map(|decoded| decoded.message) {
        Ok(Inbound::Ignored(_)) => "ignored",
        Ok(Inbound::InvalidDispatch { command_id: Some(_), .. }) => "refused: command:result",
        Ok(Inbound::InvalidTerminal {
            message: draupnir::protocol::TerminalMessage::Create,
            session_id: Some(_),
            ..
        }) => "refused: terminal:closed",
        Ok(Inbound::InvalidDispatch { .. } | Inbound::InvalidTerminal { .. } | Inbound::InvalidCancel { .. })
        | Err(_) => "refused: event",
        Ok(_) => "followed",
    }
}

#[test]
fn each_vector_has_the_effect_that_it_names() {
    for (note, raw, named) in vectors() {
        // The decoder does not know which sessions exist, and does not report what it clamped.
        let expected = if named == "clamped" || note.ends_with("not there") { "followed" } else { named };
        assert_eq!(effect(raw), expected, "{note}: {raw}");
    }
}

#[test]
fn sizes_and_timeouts_are_clamped_as_documented() {
    let clamped: Vec<Inbound> = vectors()
        .filter(|(_, _, effect)| *effect == "clamped")
        .map(|(_, raw, _)| decode(raw).expect("an envelope").message)
        .collect();
    let sizes: Vec<(u16, u16)> = clamped
        .iter()
        .filter_map(|message| match message {
            Inbound::TerminalCreate { cols, rows, .. } | Inbound::TerminalResize { cols, rows, .. } => {
                Some((*cols, *rows))
            }
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [(80, 24), (80, 24), (80, 65_535), (132, 65_535), (1, 1)]);
    let timeouts: Vec<u64> = clamped
        .iter()
        .filter_map(|message| match message {
            Inbound::CommandDispatch(dispatch) => Some(dispatch.timeout_ms),
            _ => None,
        })
        .collect();
    // The machine turns 0 into 30,000 ms, and limits the rest to 3,600,000 ms.
    assert_eq!(timeouts, [1_501, 0, 3_600_001]);
}

#[test]
fn running_agent_answers_each_class_as_documented() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    console.event("connect");
    let link = console.link();
    for (number, (note, raw, effect)) in vectors().enumerate() {
        if note.starts_with("captured") || note.starts_with("PROTOCOL.md") {
            continue; // they run programs of another machine
        }
        let id = format!("vector-{number}");
        let raw = IDS.iter().fold(raw.to_owned(), |raw, known| raw.replace(known, &id));
        link.send_text(&raw);
        let kind = serde_json::from_str::<Value>(&raw).map(|frame| frame["type"].clone()).unwrap_or_default();
        match (effect, kind.as_str()) {
            ("refused: command:result", _) => {
                let result = console.result(&id);
                assert_eq!((&result["exit_code"], &result["reason"]), (&json!(126), &json!("invalid")), "{note}");
            }
            ("refused: terminal:closed", _) => assert_eq!(console.closed(&id)["reason"], "invalid", "{note}"),
            ("followed" | "clamped", Some("command:dispatch")) => {
                assert_eq!(console.result(&id)["exit_code"], 0, "{note}");
            }
            ("followed" | "clamped", Some("terminal:create")) => {
                let frame: Value = serde_json::from_str(&raw).expect("JSON");
                let session = frame["payload"]["session_id"].as_str().expect("a session");
                console.browser().close(session);
                assert_eq!(console.closed(session)["reason"], "closed", "{note}");
            }
            _ => {}
        }
    }
    // A fault that belongs to no request causes one event for its kind, however often it happens.
    for text in ["a message from the console cannot be read", "a message from the console cannot be followed"] {
        console.wait(text, |record| record.payload()["message"] == text);
    }
    assert_eq!(console.browser().run("true")["exit_code"], 0);
    assert_eq!(console.link().number(), link.number(), "the link is the same");
    link.send_text(&json!({"type": "x", "payload": "x".repeat(1 << 20)}).to_string());
    assert_eq!(link.view().close_frame().0, Some(1009));
    agent.drain();
}

/// Any value that a schema allows, as far as schemas of this contract go.
fn any_of(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return any_of(SCHEMA.pointer(&reference[1..]).expect("a definition"));
    }
    if let Some(value) = schema.get("const") {
        return Just(value.clone()).boxed();
    }
    let bound = |word: &str| schema[word].as_u64();
    let length = |word: &str| bound(word).and_then(|length| usize::try_from(length).ok());
    match schema["type"].as_str().expect("a type") {
        "object" => any_object(schema),
        "array" => prop::collection::vec(any_of(&schema["items"]), 0..4).prop_map(Value::from).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            let (low, high) = (bound("minimum").expect("a bound"), bound("maximum").expect("a bound"));
            prop_oneof![Just(low), Just(high), low..=high].prop_map(Value::from).boxed()
        }
        "string" => {
            let pattern = schema["pattern"].as_str().expect("a pattern").trim_matches(['^', '$']);
            let low = length("minLength").unwrap_or(0);
            let high = length("maxLength").unwrap_or(usize::MAX);
            let text = string_regex(pattern).expect("a pattern that can be made");
            text.prop_filter("a length within bounds", move |text| (low..=high).contains(&text.chars().count()))
                .prop_map(Value::from)
                .boxed()
        }
        other => panic!("no message of the console has {other}"),
    }
}

fn any_object(schema: &Value) -> BoxedStrategy<Value> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let mut object: BoxedStrategy<Map<String, Value>> = Just(Map::new()).boxed();
    for (name, field) in schema["properties"].as_object().expect("fields").clone() {
        if field == json!(false) {
            continue;
        }
        let value = any_of(&field);
        let value = if required(&name) { value.prop_map(Some).boxed() } else { prop::option::of(value).boxed() };
        object = (object, value)
            .prop_map(move |(mut object, value)| {
                object.extend(value.map(|value| (name.clone(), value)));
                object
            })
            .boxed();
    }
    object.prop_map(Value::from).boxed()
}

/// A valid message of any type that causes an action.
fn any_message() -> impl Strategy<Value = Value> {
    let kinds = KINDS.map(|kind| any_of(&SCHEMA["$defs"][format!("{kind}Message")]));
    prop::sample::select(kinds.to_vec()).prop_flat_map(|strategy| strategy).prop_filter("a session", |frame| {
        let is_terminal = frame["type"].as_str().is_some_and(|kind| kind.starts_with("terminal"));
        !is_terminal || frame.get("session_id").is_some() || frame["payload"].get("session_id").is_some()
    })
}

/// The effect of a payload field with a wrong type.
fn effect_of_wrong_type(kind: &str, field: &str) -> &'static str {
    match (kind, field) {
        ("terminal:create", "cols" | "rows") => "followed",
        ("terminal:resize", "cols" | "rows") => "ignored",
        ("terminal:create", "shell") => "refused: terminal:closed",
        (_, "session_id" | "command_id" | "data") => "refused: event",
        ("command:dispatch", _) => "refused: command:result",
        other => panic!("a field that PROTOCOL.md says nothing of: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_valid_by_the_schema_are_followed(frame in any_message()) {
        let message = decode(&frame.to_string()).expect("an envelope").message;
        let Some(plain) = echo(&message) else { panic!("{frame} is {message:?}") };
        let plain: Value = serde_json::from_str(&plain).expect("JSON");
        prop_assert_eq!(&plain["type"], &frame["type"]);
        for (name, value) in frame["payload"].as_object().into_iter().flatten() {
            prop_assert_eq!(&plain["payload"][name], value, "{}", name);
        }
    }

    #[test]
    fn a_field_of_a_wrong_type_has_its_effect(
        frame in any_message(), place in any::<prop::sample::Index>(), wrong in 0_usize..4,
    ) {
        let fields = frame["payload"].as_object().into_iter().flatten();
        let fields: Vec<String> = fields.map(|(name, _)| name.clone()).collect();
        prop_assume!(!fields.is_empty());
        let field = &fields[place.index(fields.len())];
        let old = &frame["payload"][field];
        let new = [json!({"x": 1}), json!([[]]), json!("no"), json!(7)][wrong].clone();
        // A value of the same JSON type belongs to another class.
        prop_assume!(!(old.is_string() && new.is_string() || old.is_number() && new.is_number()));
        let mut frame = frame;
        frame["payload"][field] = new;
        let kind = frame["type"].as_str().expect("a type").to_owned();
        prop_assert_eq!(effect(&frame.to_string()), effect_of_wrong_type(&kind, field), "{}", frame);
    }

    #[test]
    fn null_is_the_same_as_left_out(frame in any_message(), place in any::<prop::sample::Index>()) {
        let names = ["session_id", "cols", "rows", "shell", "data", "command", "args", "env", "timeout_ms", "stream"];
        let name = names[place.index(names.len())];
        prop_assume!(frame["payload"].is_object());
        let (mut null, mut without) = (frame.clone(), frame);
        null["payload"][name] = Value::Null;
        without["payload"].as_object_mut().expect("an object").remove(name);
        prop_assert_eq!(decode(&null.to_string()), decode(&without.to_string()));
    }

    #[test]
    fn a_native_key_makes_any_message_ignored(frame in any_message(), key in "channel|protocolVersion") {
        let mut frame = frame;
        frame[key] = json!("commands");
        let message = decode(&frame.to_string()).expect("an envelope").message;
        prop_assert_eq!(message, Inbound::Ignored(Ignored::Native));
    }
}
