//! Reads a frame by the protocol's public description alone.
//!
//! It shares only that description with the decoder. The description leaves three points open, which the decoder's
//! documentation decides: a missing or null payload has no fields; an empty text counts as absent, except `data`; a
//! known field that occurs twice is a fault, and has no value.

use super::base64;
use super::tree::Tree;

/// Why a frame is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooBig,
    TooDeep,
    NotJson,
    NotAnObject,
    KeyTwice,
    TooManyKeys,
    NoType,
}

/// The version of a frame. A native frame counts as the agent's version.
#[derive(Debug)]
pub(super) enum Version {
    Ours,
    Other(String),
    /// Not a string. The decoder quotes it as in the frame, which the tree does not keep.
    NoText,
}

impl Version {
    pub(super) fn is(&self, ours: Option<&str>) -> bool {
        match self {
            Self::Ours => ours.is_none(),
            Self::Other(version) => ours == Some(version),
            Self::NoText => ours.is_some(),
        }
    }
}

/// The content of a frame.
#[derive(Debug)]
pub(super) enum Reading {
    Native,
    /// Whether logs are wanted no longer, and the paths if they can be read.
    Logs {
        ends: bool,
        paths: Option<Vec<String>>,
    },
    NonsenseSize,
    /// The first 64 characters of an unknown type.
    Unknown {
        beginning: String,
    },
    /// A size that is `None` is the default.
    Create {
        session: String,
        cols: Option<Number>,
        rows: Option<Number>,
        shell: Option<String>,
    },
    Input {
        session: String,
        data: Vec<u8>,
    },
    Resize {
        session: String,
        cols: Number,
        rows: Number,
    },
    Close {
        session: String,
    },
    Dispatch(Box<Dispatch>),
    Cancel {
        command_id: String,
    },
    InvalidTerminal {
        kind: &'static str,
        session: Option<String>,
        flaws: Vec<Flaw>,
    },
    InvalidDispatch {
        command_id: Option<String>,
        flaws: Vec<Flaw>,
    },
    InvalidCancel {
        flaws: Vec<Flaw>,
    },
}

/// What to run.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) command_id: String,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) script: Option<Vec<u8>>,
    pub(super) timeout_ms: Option<Number>,
    pub(super) working_dir: Option<String>,
    pub(super) stream: bool,
}

/// One fault, with its field if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flaw {
    NotAnObject,
    Missing(&'static str),
    Twice(&'static str),
    WrongType(&'static str),
    IllegalId(&'static str),
    Nul(&'static str),
    NotBase64(&'static str),
    MalformedEnv,
}

/// A number of the frame. The parser of the tree may miss the nearest float by a little, so next to a limit both sides
/// count as right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(f64);

impl Number {
    fn nearby(self) -> [f64; 3] {
        [self.0 * (1.0 - 1e-15), self.0, self.0 * (1.0 + 1e-15)]
    }

    /// Clamped to 1–65535, without its fraction.
    pub(super) fn is_size(self, got: u16) -> bool {
        let clamped = |number: f64| number.floor().clamp(1.0, 65_535.0);
        self.nearby().into_iter().any(|number| clamped(number) == f64::from(got))
    }

    /// The same, with a default for a number that is not positive. A number close to zero may be either.
    pub(super) fn is_positive_size(self, got: u16, default: u16) -> bool {
        let is_next_to_nothing = self.0.abs() < 1e-300;
        (self.0 > 0.0 && self.is_size(got)) || (self.0 <= 0.0 && got == default) || (is_next_to_nothing && got == 1)
    }

    /// Whole milliseconds, rounded up; 0 for a number that is not positive.
    pub(super) fn is_timeout(self, got: u64) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let whole = |number: f64| number.ceil() as u64;
        let is_next_to_nothing = self.0.abs() < 1e-300;
        self.nearby().into_iter().any(|number| whole(number) == got) || (is_next_to_nothing && got <= 1)
    }
}

/// Reads a frame of this length: its content and version, or all reasons to refuse it, of which the decoder may give
/// any.
pub(super) fn read(tree: &Tree, bytes: usize) -> Result<(Reading, Version), Vec<Refusal>> {
    let mut refusals = Vec::new();
    if bytes > 1 << 20 {
        refusals.push(Refusal::TooBig);
    }
    if tree.depth() > 64 {
        refusals.push(Refusal::TooDeep);
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let Tree::Object(top) = tree else {
        return Err(vec![Refusal::NotAnObject]);
    };
    if top.iter().any(|(key, _)| key == "channel" || key == "protocolVersion") {
        return Ok((Reading::Native, Version::Ours));
    }
    if (1..top.len()).any(|end| top[..end].iter().any(|(key, _)| *key == top[end].0)) {
        refusals.push(Refusal::KeyTwice);
    }
    if top.len() > 256 {
        refusals.push(Refusal::TooManyKeys);
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let Some(Tree::Text(kind)) = value(top, "type") else {
        return Err(vec![Refusal::NoType]);
    };
    let reading = match kind.as_str() {
        "terminal:create" => terminal("terminal:create", top),
        "terminal:input" => terminal("terminal:input", top),
        "terminal:resize" => terminal("terminal:resize", top),
        "terminal:close" => terminal("terminal:close", top),
        "command:dispatch" => dispatch(top),
        "command:cancel" => cancel(top),
        "log:subscribe" => logs(top, false),
        "log:unsubscribe" => logs(top, true),
        unknown => Reading::Unknown { beginning: unknown.chars().take(64).collect() },
    };
    Ok((reading, version(top)))
}

/// The version as the log shows it, shortened, if it is not "1.0".
fn version(top: &[(String, Tree)]) -> Version {
    match value(top, "protocol_version") {
        None => Version::Other("none".to_owned()),
        Some(Tree::Text(version)) if version == "1.0" => Version::Ours,
        Some(Tree::Text(version)) => Version::Other(version.chars().take(64).collect()),
        Some(_) => Version::NoText,
    }
}

fn value<'a>(fields: &'a [(String, Tree)], name: &str) -> Option<&'a Tree> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The fields of a payload.
struct Payload<'a> {
    fields: &'a [(String, Tree)],
    flaws: Vec<Flaw>,
}

impl<'a> Payload<'a> {
    fn of(top: &'a [(String, Tree)], known: &[&'static str]) -> Self {
        let (fields, flaws): (&[_], Vec<Flaw>) = match value(top, "payload") {
            None | Some(Tree::Null) => (&[], Vec::new()),
            Some(Tree::Object(fields)) => {
                let count = |name: &str| fields.iter().filter(|(key, _)| key == name).count();
                (fields, known.iter().filter(|name| count(name) > 1).map(|name| Flaw::Twice(name)).collect())
            }
            Some(Tree::Flag(_) | Tree::Number(_) | Tree::Text(_) | Tree::List(_)) => (&[], vec![Flaw::NotAnObject]),
        };
        Self { fields, flaws }
    }

    /// The field, unless it is absent or null, or occurs twice.
    fn field(&self, name: &'static str) -> Option<&'a Tree> {
        if self.flaws.contains(&Flaw::Twice(name)) {
            return None;
        }
        value(self.fields, name).filter(|value| !matches!(value, Tree::Null))
    }

    fn text(&mut self, name: &'static str) -> Option<&'a str> {
        match self.field(name) {
            Some(Tree::Text(text)) if text.is_empty() => None,
            Some(Tree::Text(text)) => Some(text),
            Some(_) => self.wrong(name),
            None => None,
        }
    }

    fn text_without_nul(&mut self, name: &'static str) -> Option<&'a str> {
        let text = self.text(name)?;
        if text.contains('\0') {
            self.flaws.push(Flaw::Nul(name));
            return None;
        }
        Some(text)
    }

    fn list(&mut self, name: &'static str) -> Vec<&'a str> {
        let Some(field) = self.field(name) else {
            return Vec::new();
        };
        let texts = match field {
            Tree::List(items) if items.len() <= 65_536 => items
                .iter()
                .map(|item| if let Tree::Text(text) = item { Some(text.as_str()) } else { None })
                .collect::<Option<Vec<&str>>>(),
            _ => None,
        };
        texts.or_else(|| self.wrong(name)).unwrap_or_default()
    }

    fn wrong<T>(&mut self, name: &'static str) -> Option<T> {
        self.flaws.push(Flaw::WrongType(name));
        None
    }

    /// An id of 1–128 characters, none of them a control character.
    fn id(&mut self, name: &'static str, text: Option<&str>) -> Option<String> {
        let Some(text) = text else {
            let is_explained = self
                .flaws
                .iter()
                .any(|flaw| [Flaw::NotAnObject, Flaw::Twice(name), Flaw::WrongType(name)].contains(flaw));
            if !is_explained {
                self.flaws.push(Flaw::Missing(name));
            }
            return None;
        };
        if text.chars().count() > 128 || text.chars().any(char::is_control) {
            self.flaws.push(Flaw::IllegalId(name));
            return None;
        }
        Some(text.to_owned())
    }
}

fn terminal(kind: &'static str, top: &[(String, Tree)]) -> Reading {
    let mut payload = Payload::of(top, &["session_id", "cols", "rows", "shell", "data"]);
    let of_payload = payload.text("session_id");
    let is_wrong = payload.flaws.contains(&Flaw::WrongType("session_id"));
    let of_envelope = match value(top, "session_id") {
        Some(Tree::Text(text)) if !text.is_empty() && !is_wrong => Some(text.as_str()),
        _ => None,
    };
    let session = of_payload.or(of_envelope);
    if session.is_none() && !is_wrong {
        payload.flaws.push(Flaw::Missing("session_id"));
    }
    let session = session.and_then(|text| payload.id("session_id", Some(text)));
    let session = match session {
        Some(session) if payload.flaws.is_empty() => session,
        session => return Reading::InvalidTerminal { kind, session, flaws: payload.flaws },
    };
    let reading = match kind {
        "terminal:create" => {
            let shell = payload.text_without_nul("shell").map(str::to_owned);
            Some(Reading::Create {
                session: session.clone(),
                cols: number(payload.field("cols")),
                rows: number(payload.field("rows")),
                shell,
            })
        }
        "terminal:input" => input(&mut payload, session.clone()),
        "terminal:resize" => match (number(payload.field("cols")), number(payload.field("rows"))) {
            (Some(cols), Some(rows)) => Some(Reading::Resize { session: session.clone(), cols, rows }),
            _ => Some(Reading::NonsenseSize),
        },
        _ => Some(Reading::Close { session: session.clone() }),
    };
    match reading {
        Some(reading) if payload.flaws.is_empty() => reading,
        _ => Reading::InvalidTerminal { kind, session: Some(session), flaws: payload.flaws },
    }
}

fn number(value: Option<&Tree>) -> Option<Number> {
    if let Some(Tree::Number(number)) = value { Some(Number(*number)) } else { None }
}

fn input(payload: &mut Payload<'_>, session: String) -> Option<Reading> {
    match payload.field("data") {
        None => payload.flaws.push(Flaw::Missing("data")),
        Some(Tree::Text(text)) => match base64::read(text) {
            Some(data) => return Some(Reading::Input { session, data }),
            None => payload.flaws.push(Flaw::NotBase64("data")),
        },
        Some(_) => payload.flaws.push(Flaw::WrongType("data")),
    }
    None
}

fn cancel(top: &[(String, Tree)]) -> Reading {
    let mut payload = Payload::of(top, &["command_id"]);
    let text = payload.text("command_id");
    match payload.id("command_id", text) {
        Some(command_id) if payload.flaws.is_empty() => Reading::Cancel { command_id },
        _ => Reading::InvalidCancel { flaws: payload.flaws },
    }
}

fn logs(top: &[(String, Tree)], ends: bool) -> Reading {
    let mut payload = Payload::of(top, &["paths"]);
    let paths = payload.list("paths").into_iter().map(str::to_owned).collect();
    Reading::Logs { ends, paths: Some(paths).filter(|_| payload.flaws.is_empty()) }
}

fn dispatch(top: &[(String, Tree)]) -> Reading {
    let known = ["command_id", "command", "args", "env", "timeout_ms", "working_dir", "stream"];
    let mut payload = Payload::of(top, &known);
    let text = payload.text("command_id");
    let command_id = payload.id("command_id", text);
    let command = payload.text_without_nul("command");
    if command.is_none() {
        let named = [Flaw::NotAnObject, Flaw::Twice("command"), Flaw::WrongType("command"), Flaw::Nul("command")];
        if !payload.flaws.iter().any(|flaw| named.contains(flaw)) {
            payload.flaws.push(Flaw::Missing("command"));
        }
    }
    let args = payload.list("args");
    if args.iter().any(|argument| argument.contains('\0')) {
        payload.flaws.push(Flaw::Nul("args"));
    }
    let (env, script) = environment(&mut payload);
    let timeout_ms = match payload.field("timeout_ms") {
        None => None,
        field @ Some(Tree::Number(_)) => number(field),
        Some(_) => payload.wrong("timeout_ms"),
    };
    let working_dir = payload.text_without_nul("working_dir").map(str::to_owned);
    let stream = match payload.field("stream") {
        None => false,
        Some(Tree::Flag(flag)) => *flag,
        Some(_) => payload.wrong("stream").unwrap_or_default(),
    };
    match (command_id, command) {
        (Some(command_id), Some(command)) if payload.flaws.is_empty() => Reading::Dispatch(Box::new(Dispatch {
            command_id,
            command: command.to_owned(),
            args: args.into_iter().map(str::to_owned).collect(),
            env,
            script,
            timeout_ms,
            working_dir,
            stream,
        })),
        (command_id, _) => Reading::InvalidDispatch { command_id, flaws: payload.flaws },
    }
}

/// The environment without its script, and the script.
fn environment(payload: &mut Payload<'_>) -> (Vec<(String, String)>, Option<Vec<u8>>) {
    let entries = payload.list("env");
    let sound = entries.iter().filter(|entry| !entry.contains('\0'));
    let pairs: Vec<(&str, &str)> =
        sound.filter_map(|entry| entry.split_once('=')).filter(|(name, _)| !name.is_empty()).collect();
    if pairs.len() < entries.len() {
        payload.flaws.push(Flaw::MalformedEnv);
    }
    let (scripts, env): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| *name == "SINDRI_SCRIPT_B64");
    for _ in 1..scripts.len() {
        payload.flaws.push(Flaw::Twice("SINDRI_SCRIPT_B64"));
    }
    let script = scripts.last().and_then(|(_, text)| {
        let read = base64::read(text);
        if read.is_none() {
            payload.flaws.push(Flaw::NotBase64("SINDRI_SCRIPT_B64"));
        }
        read
    });
    (env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), script)
}
