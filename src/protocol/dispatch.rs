//! Reads `command:dispatch`: what to run, with which arguments, environment and input (CONSOLE.md, "Commands").
//!
//! It runs nothing and sets no limits on time: the machine clamps `timeout_ms`. All faults of a dispatch are
//! collected, so that its one answer names them all.

use super::envelope::Designed;
use super::fault::{Fault, Faults, MalformedEntries};
use super::id::CommandId;
use super::payload::Fields;
use crate::base64;
use std::fmt;

/// The environment entry that carries a script for standard input.
pub(super) const SCRIPT_VARIABLE: &str = "SINDRI_SCRIPT_B64";

const FIELDS: &[&str] = &["command_id", "command", "args", "env", "timeout_ms", "working_dir", "stream"];

/// A command that the console wants run.
#[derive(Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The console's id of it.
    pub command_id: CommandId,
    /// A program if there are `args`, else a shell command line.
    pub command: String,
    /// The arguments, to be given as they are; empty for a shell command line.
    pub args: Vec<String>,
    /// Names and values to add to the environment, in order; a later one wins.
    pub env: Vec<(String, String)>,
    /// What to feed to standard input; empty standard input where there is none.
    pub script: Option<Vec<u8>>,
    /// How long it may run, in milliseconds; 0 where the payload does not say.
    pub timeout_ms: u64,
    /// Where to run it; the home directory where there is none.
    pub working_dir: Option<String>,
    /// Whether its output is wanted while it runs.
    pub stream: bool,
}

/// Shows lengths and names only: commands, arguments and values may hold secrets.
impl fmt::Debug for Dispatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Dispatch")
            .field("command_id", &self.command_id)
            .field("command_bytes", &self.command.len())
            .field("args", &self.args.len())
            .field("env", &names)
            .field("script_bytes", &self.script.as_ref().map(Vec::len))
            .field("timeout_ms", &self.timeout_ms)
            .field("working_dir", &self.working_dir)
            .field("stream", &self.stream)
            .finish()
    }
}

impl Dispatch {
    /// Reads the payload of a `command:dispatch`; on a fault also gives the id, so that the fault can be answered.
    pub(super) fn read(frame: &Designed<'_>) -> Result<Self, (Option<CommandId>, Faults)> {
        let mut fields = Fields::read(frame.payload(), FIELDS);
        let mut reader = Reader { faults: fields.take_faults() };
        let command_id = reader.keep(command_id(&fields));
        let command = reader.keep(command(&fields));
        let args = reader.keep(arguments(&fields)).unwrap_or_default();
        let (env, script) = reader.environment(&fields);
        let timeout_ms = reader.keep(timeout_ms(&fields)).unwrap_or_default();
        let working_dir = reader.keep(fields.argument("working_dir")).flatten();
        let stream = reader.keep(fields.flag("stream")).unwrap_or_default();
        match (Faults::of(reader.faults), command_id, command) {
            (None, Some(command_id), Some(command)) => {
                Ok(Self { command_id, command, args, env, script, timeout_ms, working_dir, stream })
            }
            (Some(faults), command_id, _) => Err((command_id, faults)),
            // A field that is not there has left its fault; this arm keeps the types honest.
            (None, command_id, _) => Err((command_id, Fault::Missing { field: "command" }.into())),
        }
    }
}

/// Reads the id of a `command:cancel`.
pub(super) fn cancelled(frame: &Designed<'_>) -> Result<CommandId, Faults> {
    let mut fields = Fields::read(frame.payload(), &["command_id"]);
    let mut reader = Reader { faults: fields.take_faults() };
    let command_id = reader.keep(command_id(&fields));
    match (Faults::of(reader.faults), command_id) {
        (None, Some(command_id)) => Ok(command_id),
        (Some(faults), _) => Err(faults),
        (None, None) => Err(Fault::Missing { field: "command_id" }.into()),
    }
}

/// Collects faults while reading on.
struct Reader {
    faults: Vec<Fault>,
}

impl Reader {
    fn keep<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.add(fault)).ok()
    }

    /// Adds a fault, unless it only follows from another one: what is given twice, or has no payload to stand in, is
    /// missing too.
    fn add(&mut self, fault: Fault) {
        if let Fault::Missing { field } = fault {
            let is_explained = |known: &Fault| matches!(known, Fault::NotAnObject) || *known == Fault::Twice { field };
            if self.faults.iter().any(is_explained) {
                return;
            }
        }
        self.faults.push(fault);
    }

    /// The environment, and the script that travels in it.
    fn environment(&mut self, fields: &Fields<'_>) -> (Vec<(String, String)>, Option<Vec<u8>>) {
        let entries = self.keep(fields.texts("env")).unwrap_or_default();
        // A list that grew beside the entries would take more than decoding may.
        let mut env = Vec::with_capacity(entries.len());
        let mut script = None;
        let mut malformed = MalformedEntries::default();
        for mut entry in entries {
            match entry.find('=') {
                Some(end) if end > 0 && !entry.contains('\0') => {
                    let value = entry.split_off(end + 1);
                    entry.truncate(end);
                    if entry != SCRIPT_VARIABLE {
                        env.push((entry, value));
                    } else if script.replace(value).is_some() {
                        self.add(Fault::Twice { field: SCRIPT_VARIABLE });
                    }
                }
                _ => malformed.add(&entry),
            }
        }
        if !malformed.is_empty() {
            self.add(Fault::MalformedEnv(malformed));
        }
        let script =
            script.and_then(|text| self.keep(base64::decode(&text).ok_or(Fault::NotBase64 { field: SCRIPT_VARIABLE })));
        (env, script)
    }
}

fn command_id(fields: &Fields<'_>) -> Result<CommandId, Fault> {
    const FIELD: &str = "command_id";
    let text = fields.text(FIELD)?.ok_or(Fault::Missing { field: FIELD })?;
    CommandId::new(&text).ok_or(Fault::IllegalId { field: FIELD })
}

fn command(fields: &Fields<'_>) -> Result<String, Fault> {
    fields.argument("command")?.ok_or(Fault::Missing { field: "command" })
}

fn arguments(fields: &Fields<'_>) -> Result<Vec<String>, Fault> {
    let args = fields.texts("args")?;
    if args.iter().any(|argument| argument.contains('\0')) {
        return Err(Fault::Nul { field: "args" });
    }
    Ok(args)
}

/// Whole milliseconds, part of one counting as one; 0 where none is given or it is not positive.
fn timeout_ms(fields: &Fields<'_>) -> Result<u64, Fault> {
    let timeout_ms = fields.number("timeout_ms")?.unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is wanted")]
    Ok(timeout_ms.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::{Inbound, decode};
    use super::*;

    fn dispatch(payload: &str) -> Result<Dispatch, (Option<CommandId>, String)> {
        let frame = format!(r#"{{"protocol_version":"1.0","type":"command:dispatch","payload":{payload}}}"#);
        match decode(&frame).expect("an envelope").message {
            Inbound::CommandDispatch(dispatch) => Ok(*dispatch),
            Inbound::InvalidDispatch { command_id, faults } => Err((command_id, faults.to_string())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_optional_may_be_left_out() {
        let dispatch = dispatch(r#"{"command_id":"c","command":"echo ~ | wc"}"#).expect("a dispatch");
        assert_eq!(dispatch.command, "echo ~ | wc");
        assert!(dispatch.args.is_empty() && dispatch.env.is_empty() && dispatch.script.is_none());
        assert_eq!((dispatch.timeout_ms, dispatch.working_dir, dispatch.stream), (0, None, false));
    }

    #[test]
    fn the_environment_is_split_at_the_first_equals_sign() {
        let dispatch = dispatch(r#"{"command_id":"c","command":"ls","env":["A=1","B=x=y","C="]}"#).expect("a dispatch");
        let expected = [("A", "1"), ("B", "x=y"), ("C", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(dispatch.env, expected);
    }

    #[test]
    fn the_script_is_taken_out_of_the_environment() {
        let payload =
            r#"{"command_id":"c","command":"/bin/bash","args":["-s"],"env":["A=1","SINDRI_SCRIPT_B64=ZWNobyBoaQ=="]}"#;
        let dispatch = dispatch(payload).expect("a dispatch");
        assert_eq!(dispatch.script.as_deref(), Some(b"echo hi".as_slice()));
        assert_eq!(dispatch.env, [("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn timeouts_are_numbers_of_any_kind() {
        let timeout_ms = |number: &str| {
            dispatch(&format!(r#"{{"command_id":"c","command":"x","timeout_ms":{number}}}"#))
                .expect("a dispatch")
                .timeout_ms
        };
        for (number, expected) in [("0", 0), ("-5", 0), ("0.2", 1), ("1500.5", 1501), ("null", 0), ("1e999", u64::MAX)]
        {
            assert_eq!(timeout_ms(number), expected, "{number}");
        }
    }

    #[test]
    fn all_faults_are_named_with_the_id() {
        let payload = r#"{"command_id":"c","command":7,"args":"x","env":["A","=b","C=1"],"timeout_ms":"1","working_dir":[],"stream":1}"#;
        let (id, faults) = dispatch(payload).expect_err("faults");
        assert_eq!(id, CommandId::new("c"));
        for field in ["command must", "args must", "\"A\"", "timeout_ms must", "working_dir must", "stream must"] {
            assert!(faults.contains(field), "{field}: {faults}");
        }
        assert!(!faults.contains("missing"), "{faults}");
    }

    #[test]
    fn unreadable_id_is_none() {
        for id in ["null", "7", "\"\"", "\"a\\u0000\"", &format!("\"{}\"", "x".repeat(129))] {
            let (id_of, _) = dispatch(&format!(r#"{{"command_id":{id},"command":"x"}}"#)).expect_err("a fault");
            assert_eq!(id_of, None, "{id}");
        }
        assert_eq!(dispatch(r#"{"command_id":"a","command_id":"b","command":"x"}"#).expect_err("twice").0, None);
        assert_eq!(dispatch("null").expect_err("no payload").1, "command_id is missing; command is missing");
        assert_eq!(dispatch("[]").expect_err("no object").1, "payload must be an object");
    }

    #[test]
    fn unusable_dispatches_are_refused() {
        for payload in [
            r#"{"command_id":"c","command":"a\u0000b"}"#,
            r#"{"command_id":"c","command":"x","args":["\u0000"]}"#,
            r#"{"command_id":"c","command":"x","env":["A=\u0000"]}"#,
            r#"{"command_id":"c","command":"x","env":["SINDRI_SCRIPT_B64=!"]}"#,
            r#"{"command_id":"c","command":"x","env":["SINDRI_SCRIPT_B64=","SINDRI_SCRIPT_B64="]}"#,
            r#"{"command_id":"c","command":""}"#,
        ] {
            assert_eq!(dispatch(payload).expect_err(payload).0, CommandId::new("c"), "{payload}");
        }
    }

    #[test]
    fn debug_output_keeps_secrets() {
        let dispatch =
            dispatch(r#"{"command_id":"c","command":"login hunter2","env":["P=hunter2"]}"#).expect("a dispatch");
        assert!(!format!("{dispatch:?}").contains("hunter2"));
    }
}
