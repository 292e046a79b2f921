//! Generates `src/protocol/schema/draupnir.schema.json` from the types of this module, in unit tests alone.
//!
//! The types say names, order, bounds and what may be left out; PROTOCOL.md gives the examples. What holds for the
//! whole wire is added here: nothing is null, no text holds a NUL, every whole number has bounds. The schema is open,
//! because unknown fields are ignored; `tests/scripts/contract.py` closes it to check what the agent sends.

use super::dispatch::SCRIPT_VARIABLE;
use super::echo::{self, Spoken};
use super::encode::Payload;
use super::envelope::KEYS_MAX;
use super::{
    COUNT_MAX, CommandOutput, EXTENSIONS_MAX, EventType, Heartbeat, MessageId, NAME_CHARACTERS_MAX, TerminalClosed,
    TerminalOutput, Timestamp, VERSION, event, log, metrics, registration, result, usage,
};
use crate::llm::provider::PROVIDERS;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/schema/draupnir.schema.json");

const DOCUMENT: &str = include_str!("PROTOCOL.md");

/// At least one character, and none of them a control character.
pub(super) const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]+$";

/// A number of a release, with what may follow it.
pub(super) const VERSION_NUMBER: &str = r"^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?$";

const NO_NUL: &str = r"^[^\u0000]*$";

/// Standard base64 with padding; the bits that its last character does not need are zero.
const BASE64: &str = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?";

/// Declares types that only a schema knows: a name, and what it stands for.
macro_rules! schema_type {
    ($($type:ty, $name:literal, $inline:literal, $schema:expr;)*) => {
        $(impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                $inline
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        })*
    };
}

/// The name of a distribution or an extension.
pub(super) struct Name;
/// Names, each once.
pub(super) struct Names;
/// Bytes.
pub(super) struct Base64;
/// Left out where it is not so.
pub(super) struct True;
/// What wrote a log.
pub(super) struct LogSourceName;
/// Entries of an environment.
pub(super) struct Environment;

fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX, "pattern": NO_CONTROLS})
}

fn script() -> Value {
    json!({"pattern": format!("^{SCRIPT_VARIABLE}={BASE64}$")})
}

schema_type! {
    Timestamp, "Timestamp", false, json_schema!({
        "description": "A moment: RFC 3339, UTC.", "type": "string", "format": "date-time",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z$",
    });
    MessageId, "MessageId", false, json_schema!({
        "description": "By which a receiver recognises a message that it has already seen: unique.",
        "type": "string", "pattern": "^[0-9a-f]{16}-[0-9]{1,20}$",
    });
    Base64, "Base64", false, json_schema!({
        "description": "Bytes in standard base64 with padding, unused bits being zero.",
        "type": "string", "contentEncoding": "base64", "pattern": format!("^{BASE64}$"),
    });
    Name, "Name", true, name().try_into().expect("an object");
    Names, "Names", true, json_schema!({
        "type": "array", "items": name(), "maxItems": EXTENSIONS_MAX, "uniqueItems": true,
    });
    LogSourceName, "LogSourceName", true, json_schema!({
        "type": "string", "pattern": r"^(agent|build|system|app|extension:[^\u0000]+)$",
    });
    True, "True", true, json_schema!({"type": "boolean", "const": true});
    Environment, "Environment", true, json_schema!({
        "type": "array",
        "items": {
            "type": "string",
            "pattern": r"^[^=\u0000]+=[^\u0000]*$",
            "anyOf": [script(), {"not": {"pattern": format!("^{SCRIPT_VARIABLE}=")}}],
        },
        "maxItems": super::payload::LIST_LENGTH_MAX,
    });
}

/// The names of events as the production console reads them.
pub(super) fn upper_case_event_type(generator: &mut SchemaGenerator) -> Schema {
    let types: Vec<String> = event_types(generator).iter().map(|name| name.to_ascii_uppercase()).collect();
    json_schema!({"type": "string", "enum": types})
}

fn event_types(generator: &mut SchemaGenerator) -> Vec<String> {
    let schema = EventType::json_schema(generator);
    let variants = schema.as_value()["oneOf"].as_array().expect("a documented variant each").iter();
    variants.map(|variant| variant["const"].as_str().expect("a name").to_owned()).collect()
}

/// The names of the providers that the proxy knows.
pub(super) fn llm_provider(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
    json_schema!({"type": "string", "enum": names})
}

/// Adds the fields that are the same in every usage record.
pub(super) fn usage_constants(schema: &mut Schema) {
    let constants = [
        ("costUsd", json!({"description": "The console computes the price.", "const": 0})),
        ("captureTier", json!({"description": "How it was counted.", "const": "proxy"})),
    ];
    let object = schema.ensure_object();
    for (name, constant) in constants {
        object["properties"][name] = constant;
        object["required"].as_array_mut().expect("a list").push(json!(name));
    }
}

/// What holds for an object that has both fields.
pub(super) fn both(fields: [&str; 2]) -> Value {
    json!({"properties": fields.map(|field| (field.to_owned(), json!(true))).into_iter().collect::<Map<_, _>>(),
        "required": fields})
}

/// Where the session of a message stands.
#[derive(Clone, Copy, PartialEq)]
enum Session {
    /// Nowhere: the production console would take it for the id of a command.
    Forbidden,
    /// On the envelope and in the payload.
    Twice,
    /// On one of them at least.
    Somewhere,
}

/// Collects the definitions.
struct Definitions {
    generator: SchemaGenerator,
    all: Map<String, Value>,
    of_agent: Vec<Value>,
    of_console: Vec<Value>,
}

impl Definitions {
    fn message<P: JsonSchema>(&mut self, kind: &str, session: Session) -> Value {
        let payload = self.generator.subschema_for::<P>();
        let name = format!("{}Message", P::schema_name());
        let session_id = match session {
            Session::Forbidden => json!(false),
            Session::Twice | Session::Somewhere => json!({"$ref": "#/$defs/SessionId"}),
        };
        let mut required = vec!["protocol_version", "type", "payload"];
        if session == Session::Twice {
            required.push("session_id");
        }
        let mut message = json!({
            "description": format!("`{kind}`"),
            "type": "object",
            "properties": {
                "protocol_version": {"const": VERSION},
                "type": {"const": kind},
                "session_id": session_id,
                "payload": payload,
                "channel": false,
                "protocolVersion": false,
            },
            "required": required,
            "examples": examples(kind),
        });
        if session == Session::Somewhere {
            let named = json!({"properties": {"session_id": true}, "required": ["session_id"]});
            let payload = json!({"type": "object", "properties": {"session_id": true}, "required": ["session_id"]});
            let in_payload = json!({"properties": {"payload": payload}, "required": ["payload"]});
            message["anyOf"] = json!([named, in_payload]);
            // A close may have no payload at all.
            if P::schema_name() == "TerminalClose" {
                message["required"] = json!(["protocol_version", "type"]);
            }
        }
        self.all.insert(name.clone(), message);
        json!({"$ref": format!("#/$defs/{name}")})
    }

    fn sent<P: JsonSchema>(&mut self, kind: &str, session: Session) {
        let reference = self.message::<P>(kind, session);
        self.of_agent.push(reference);
    }

    fn encoded<P: JsonSchema + Payload>(&mut self, session: Session) {
        self.sent::<P>(P::KIND, session);
    }

    fn spoken<P: JsonSchema + Spoken>(&mut self, session: Session) {
        let reference = self.message::<P>(P::KIND, session);
        let name = format!("{}Message", P::schema_name());
        self.all[&name]["maxProperties"] = json!(KEYS_MAX);
        self.of_console.push(reference);
    }

    fn take(&mut self) {
        self.all.append(&mut self.generator.take_definitions(true));
    }
}

/// The examples of a message in PROTOCOL.md.
fn examples(kind: &str) -> Vec<Value> {
    let blocks = DOCUMENT.split("```json ").skip(1).filter_map(|block| block.split_once("```"));
    blocks
        .filter_map(|(block, _)| block.split_once('\n'))
        .filter(|(word, _)| ["outbound", "inbound", "ignored"].contains(word))
        .map(|(_, example)| serde_json::from_str::<Value>(example).expect("JSON"))
        .filter(|example| example["type"] == kind && example.get("channel").is_none())
        .collect()
}

fn generated() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(wire_rules);
    let mut definitions = Definitions {
        generator: settings.clone().for_serialize().into_generator(),
        all: Map::new(),
        of_agent: Vec::new(),
        of_console: Vec::new(),
    };
    definitions.encoded::<registration::RegistrationWire<'_>>(Session::Forbidden);
    definitions.encoded::<Heartbeat<'_>>(Session::Forbidden);
    definitions.sent::<metrics::MetricsWire<'_>>(metrics::Stamped::KIND, Session::Forbidden);
    definitions.encoded::<event::EventWire<'_>>(Session::Forbidden);
    definitions.sent::<TerminalOutput<'_>>(TerminalOutput::KIND, Session::Twice);
    definitions.encoded::<TerminalClosed<'_>>(Session::Twice);
    definitions.encoded::<result::ResultWire<'_>>(Session::Forbidden);
    definitions.sent::<CommandOutput<'_>>(CommandOutput::KIND, Session::Forbidden);
    definitions.encoded::<usage::Batch<'_>>(Session::Forbidden);
    definitions.sent::<log::LogBatch<'_>>(log::KIND, Session::Forbidden);
    let event_types = event_types(&mut definitions.generator);
    definitions.take();

    definitions.generator = settings.for_deserialize().into_generator();
    definitions.spoken::<echo::TerminalCreate<'_>>(Session::Somewhere);
    definitions.spoken::<echo::TerminalInput<'_>>(Session::Somewhere);
    definitions.spoken::<echo::TerminalResize<'_>>(Session::Somewhere);
    definitions.spoken::<echo::TerminalClose<'_>>(Session::Somewhere);
    definitions.spoken::<echo::CommandDispatch<'_>>(Session::Forbidden);
    definitions.spoken::<echo::CommandCancel<'_>>(Session::Forbidden);
    definitions.spoken::<echo::LogSubscribe<'_>>(Session::Forbidden);
    definitions.spoken::<echo::LogUnsubscribe<'_>>(Session::Forbidden);
    definitions.take();

    let Definitions { mut all, of_agent, mut of_console, .. } = definitions;
    all["EventMessage"]["properties"]["payload"] = json!({"$ref": "#/$defs/Event"});
    let pairs = event_types.iter().map(|name| {
        json!({"properties": {"event_type": {"const": name}, "eventType": {"const": name.to_ascii_uppercase()}}})
    });
    all["Event"]["oneOf"] = pairs.collect();
    register(&mut all);
    for (name, schema) in ignored() {
        of_console.push(json!({"$ref": format!("#/$defs/{name}")}));
        all.insert(name.to_owned(), schema);
    }
    let unions =
        [("AgentMessage", "What the agent sends.", of_agent), ("ConsoleMessage", "What a console sends.", of_console)];
    for (name, description, messages) in unions {
        all.insert(name.to_owned(), json!({"description": description, "oneOf": messages}));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:draupnir:protocol:{VERSION}"),
        "title": "The protocol between the agent and the console",
        "description": "Generated from the types of the agent; PROTOCOL.md explains it. Unknown fields are ignored.",
        "oneOf": [{"$ref": "#/$defs/AgentMessage"}, {"$ref": "#/$defs/ConsoleMessage"}],
        "$defs": all,
    })
}

/// The HTTP exchange: the body of a registration is the message's payload without what the message is stored as.
fn register(all: &mut Map<String, Value>) {
    let mut request = all["Registration"].clone();
    request["description"] = json!("The body of `POST /api/v1/instances/register`.");
    request["properties"]["eventType"] = json!(false);
    all.insert("RegistrationRequest".to_owned(), request);
    all["Registration"]["required"].as_array_mut().expect("a list").push(json!("eventType"));
    let response = json!({
        "description": "The answer: the identity of the instance from then on, where it has one.",
        "type": "object",
        "properties": {"id": {"$ref": "#/$defs/InstanceId"}},
    });
    all.insert("RegistrationResponse".to_owned(), response);
}

/// What a console may send and the agent never acts upon.
fn ignored() -> [(&'static str, Value); 1] {
    let native = json!({
        "description": "A frame in the production console's own form, or a hybrid. The agent never acts upon one.",
        "type": "object",
        "properties": {"channel": true, "protocolVersion": true},
        "anyOf": [
            {"properties": {"channel": true}, "required": ["channel"]},
            {"properties": {"protocolVersion": true}, "required": ["protocolVersion"]},
        ],
    });
    [("NativeFrame", native)]
}

/// What holds for all of the wire, applied to each schema and to those in it.
fn wire_rules(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        let type_name = plain_type(object);
        match type_name.as_deref() {
            Some("integer") => bound(object),
            Some("number") => drop(object.remove("format")),
            Some("string") => {
                let is_bound = ["pattern", "enum", "const", "format"].iter().any(|word| object.contains_key(*word));
                if !is_bound {
                    object.insert("pattern".to_owned(), json!(NO_NUL));
                }
            }
            _ => {}
        }
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
        }
    }
    schemars::transform::transform_subschemas(&mut wire_rules, schema);
}

/// Nothing is ever null: the type without it.
fn plain_type(object: &mut Map<String, Value>) -> Option<String> {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        let [only] = types.as_slice() else { panic!("several types: {types:?}") };
        let only = only.clone();
        object.insert("type".to_owned(), only);
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
    object.get("type").and_then(Value::as_str).map(str::to_owned)
}

/// A whole number has the bounds of its type, in place of the type's name.
fn bound(object: &mut Map<String, Value>) {
    let Some(Value::String(format)) = object.remove("format") else { return };
    let (min, max) = match format.as_str() {
        "uint16" => (0, u64::from(u16::MAX)),
        "uint32" => (0, u64::from(u32::MAX)),
        "uint64" => (0, COUNT_MAX),
        "int32" => (i64::from(i32::MIN), i32::MAX.unsigned_abs().into()),
        other => panic!("no bounds for {other}"),
    };
    object.entry("minimum").or_insert_with(|| json!(min));
    object.entry("maximum").or_insert_with(|| json!(max));
}

/// Where two trees differ, a line each.
fn differences(path: &str, committed: &Value, generated: &Value, found: &mut Vec<String>) {
    match (committed, generated) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                match new.get(key) {
                    Some(other) => differences(&format!("{path}/{key}"), value, other, found),
                    None => found.push(format!("{path}/{key}: in the file alone: {value}")),
                }
            }
            let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
            found.extend(added.map(|(key, value)| format!("{path}/{key}: in the types alone: {value}")));
        }
        (old, new) if old != new => found.push(format!("{path}: the file says {old}, the types say {new}")),
        _ => {}
    }
}

#[test]
fn schema_file_is_what_the_types_say() {
    let generated = generated();
    if std::env::var_os("DRAUPNIR_WRITE_CONTRACT").is_some() {
        let text = serde_json::to_string_pretty(&generated).expect("JSON") + "\n";
        std::fs::write(FILE, text).expect("the schema can be written");
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_else(|_| "{}".to_owned());
    let mut found = Vec::new();
    differences("", &serde_json::from_str(&committed).expect("JSON"), &generated, &mut found);
    let how = "tests/scripts/contract writes the contract again; commit what it writes";
    assert!(found.is_empty(), "the schema differs from the types; {how}:\n{}", found.join("\n"));
}

#[test]
fn renamed_field_is_a_readable_difference() {
    let mut renamed = generated();
    let properties = &mut renamed["$defs"]["Heartbeat"]["properties"];
    properties["uptime"] = properties["uptime_seconds"].take();
    let mut found = Vec::new();
    differences("", &generated(), &renamed, &mut found);
    assert!(found.iter().any(|line| line.starts_with("/$defs/Heartbeat/properties/uptime: in the types alone")));
}
