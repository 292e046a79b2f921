//! Any bytes, as the text of an inbound frame: the decoder compared with a simple reading of the same text.
//!
//! The target checks that both give the same verdict, the same fields and the same faults. The reading (`reading`) was
//! written from the protocol's public description alone, and is simple: it builds a tree, then looks up each field. It
//! skips texts that it cannot read (an escaped half of a surrogate pair, a number beyond any float); `envelope_decode`
//! covers these.

mod base64;
mod reading;
mod tree;

use crate::planted::decode;
use draupnir::protocol::{DecodeError, Fault, Faults, Ignored, Inbound, TerminalMessage};
use reading::{Flaw, Number, Reading, Refusal};
use tree::{Tree, Unread};

/// Checks one input.
pub fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let decoded = decode(text);
    match Tree::read(text) {
        Ok(tree) => compare(&tree, decoded.map(|decoded| (decoded.message, decoded.version_mismatch)), text),
        Err(Unread::NotJson) => assert!(decoded.is_err(), "not JSON, and decoded: {text}"),
        Err(Unread::BeyondThisReading) => {}
    }
}

fn compare(tree: &Tree, decoded: Result<(Inbound, Option<String>), DecodeError>, text: &str) {
    let reading = reading::read(tree, text.len());
    match (&reading, decoded) {
        (Err(refusals), Err(error)) => {
            assert!(refusals.contains(&refusal(&error)), "{error:?} where {refusals:?} was read: {text}");
        }
        (Ok((reading, version)), Ok((message, version_mismatch))) => {
            assert!(is_same(reading, &message), "{message:?} {} where {reading:?} was read: {text}", details(&message));
            let ours = version_mismatch.as_deref();
            assert!(version.is(ours), "the version {ours:?} where {version:?} was read: {text}");
        }
        (reading, decoded) => panic!("{decoded:?} where {reading:?} was read: {text}"),
    }
}

fn refusal(error: &DecodeError) -> Refusal {
    match error {
        DecodeError::TooBig { .. } => Refusal::TooBig,
        DecodeError::TooDeep => Refusal::TooDeep,
        DecodeError::Syntax { .. } => Refusal::NotJson,
        DecodeError::NotAnObject => Refusal::NotAnObject,
        DecodeError::DuplicateKey { .. } => Refusal::KeyTwice,
        DecodeError::TooManyKeys => Refusal::TooManyKeys,
        DecodeError::NoType => Refusal::NoType,
    }
}

/// Whether both have the same result, field by field.
fn is_same(reading: &Reading, message: &Inbound) -> bool {
    match (reading, message) {
        (
            Reading::Create { session, cols, rows, shell },
            Inbound::TerminalCreate { session_id, cols: columns, rows: lines, shell: program },
        ) => {
            let is_size = |read: &Option<Number>, got: u16, default: u16| match read {
                Some(number) => number.is_positive_size(got, default),
                None => got == default,
            };
            session == session_id.as_str()
                && is_size(cols, *columns, 80)
                && is_size(rows, *lines, 24)
                && shell == program
        }
        (Reading::Input { session, data }, Inbound::TerminalInput { session_id, data: typed }) => {
            session == session_id.as_str() && data == typed
        }
        (
            Reading::Resize { session, cols, rows },
            Inbound::TerminalResize { session_id, cols: columns, rows: lines },
        ) => session == session_id.as_str() && cols.is_size(*columns) && rows.is_size(*lines),
        (Reading::Close { session }, Inbound::TerminalClose { session_id }) => session == session_id.as_str(),
        (Reading::Dispatch(read), Inbound::CommandDispatch(dispatch)) => {
            read.command_id == dispatch.command_id.as_str()
                && read.command == dispatch.command
                && read.args == dispatch.args
                && read.env == dispatch.env
                && read.script == dispatch.script
                && read.timeout_ms.map_or(dispatch.timeout_ms == 0, |number| number.is_timeout(dispatch.timeout_ms))
                && read.working_dir == dispatch.working_dir
                && read.stream == dispatch.stream
        }
        (Reading::Cancel { command_id }, Inbound::CommandCancel { command_id: id }) => command_id == id.as_str(),
        (
            Reading::InvalidTerminal { kind, session, flaws },
            Inbound::InvalidTerminal { message, session_id, faults },
        ) => {
            *kind == name(*message)
                && session.as_deref() == session_id.as_ref().map(|id| id.as_str())
                && is_same_list(flaws, faults)
        }
        (Reading::InvalidDispatch { command_id, flaws }, Inbound::InvalidDispatch { command_id: id, faults }) => {
            command_id.as_deref() == id.as_ref().map(|id| id.as_str()) && is_same_list(flaws, faults)
        }
        (Reading::InvalidCancel { flaws }, Inbound::InvalidCancel { faults }) => is_same_list(flaws, faults),
        (Reading::Logs { ends: false, paths: Some(read) }, Inbound::LogSubscribe { paths })
        | (Reading::Logs { ends: true, paths: Some(read) }, Inbound::LogUnsubscribe { paths }) => read == paths,
        (Reading::Native, Inbound::Ignored(Ignored::Native))
        | (Reading::Logs { paths: None, .. }, Inbound::Ignored(Ignored::LogSubscription))
        | (Reading::NonsenseSize, Inbound::Ignored(Ignored::NonsenseSize)) => true,
        (Reading::Unknown { beginning }, Inbound::Ignored(Ignored::Unknown(kind))) => beginning == kind,
        (
            Reading::Create { .. }
            | Reading::Input { .. }
            | Reading::Resize { .. }
            | Reading::Close { .. }
            | Reading::Dispatch(_)
            | Reading::Cancel { .. }
            | Reading::InvalidTerminal { .. }
            | Reading::InvalidDispatch { .. }
            | Reading::InvalidCancel { .. }
            | Reading::Native
            | Reading::Logs { .. }
            | Reading::NonsenseSize
            | Reading::Unknown { .. },
            _,
        ) => false,
    }
}

fn name(message: TerminalMessage) -> &'static str {
    match message {
        TerminalMessage::Create => "terminal:create",
        TerminalMessage::Input => "terminal:input",
        TerminalMessage::Resize => "terminal:resize",
        TerminalMessage::Close => "terminal:close",
    }
}

/// Whether both have the same faults, in any order.
fn is_same_list(flaws: &[Flaw], faults: &Faults) -> bool {
    let mut read = flaws.to_vec();
    let mut ours: Vec<Flaw> = faults.iter().map(flaw).collect();
    read.sort_unstable();
    ours.sort_unstable();
    read == ours
}

fn flaw(fault: &Fault) -> Flaw {
    match fault {
        Fault::NotAnObject => Flaw::NotAnObject,
        Fault::Missing { field } => Flaw::Missing(field),
        Fault::Twice { field } => Flaw::Twice(field),
        Fault::WrongType { field, .. } => Flaw::WrongType(field),
        Fault::IllegalId { field } => Flaw::IllegalId(field),
        Fault::Nul { field } => Flaw::Nul(field),
        Fault::NotBase64 { field } => Flaw::NotBase64(field),
        Fault::MalformedEnv(_) => Flaw::MalformedEnv,
    }
}

/// The fields that the message's `Debug` hides, for a finding.
fn details(message: &Inbound) -> String {
    match message {
        Inbound::TerminalInput { data, .. } => format!("{data:?}"),
        Inbound::CommandDispatch(dispatch) => {
            format!("{:?} {:?} {:?} {:?}", dispatch.command, dispatch.args, dispatch.env, dispatch.script)
        }
        _ => String::new(),
    }
}
