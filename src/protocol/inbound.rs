//! What the console says: one type for each message that means something to the agent.
//!
//! Nothing is done here. A frame that cannot be read at all is a [`DecodeError`]; one whose envelope is right and
//! whose payload is not becomes an `Invalid…` message with the id to answer; one that is not for us, or must not
//! act, is [`Ignored`]. Sizes are in character cells (CONSOLE.md, "Terminals").

use super::dispatch::{self, Dispatch};
use super::envelope::{DecodeError, Designed, Frame, quoted};
use super::fault::{Fault, Faults};
use super::id::{CommandId, SessionId};
use super::payload::{Fields, Text};
use crate::base64;
use std::fmt;

/// Columns of a terminal whose size is not given.
pub const COLS_DEFAULT: u16 = 80;

/// Rows of a terminal whose size is not given.
pub const ROWS_DEFAULT: u16 = 24;

/// One frame, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it says.
    pub message: Inbound,
    /// Its version if it is not ours, shortened: to be logged once per version and connection. Ignored native frames
    /// have none.
    pub version_mismatch: Option<String>,
}

/// A message of the console.
#[derive(PartialEq, Eq)]
pub enum Inbound {
    /// Open a terminal session, or attach to the live one of that id.
    TerminalCreate {
        /// The session.
        session_id: SessionId,
        /// Columns, at least 1.
        cols: u16,
        /// Rows, at least 1.
        rows: u16,
        /// The shell; the configured one where there is none.
        shell: Option<String>,
    },
    /// A user typed.
    TerminalInput {
        /// The session.
        session_id: SessionId,
        /// What was typed.
        data: Vec<u8>,
    },
    /// A terminal has a new size.
    TerminalResize {
        /// The session.
        session_id: SessionId,
        /// Columns, at least 1.
        cols: u16,
        /// Rows, at least 1.
        rows: u16,
    },
    /// End a session. Comes for sessions that ended long ago, too.
    TerminalClose {
        /// The session.
        session_id: SessionId,
    },
    /// Run a command.
    CommandDispatch(Box<Dispatch>),
    /// Stop a command.
    CommandCancel {
        /// The command.
        command_id: CommandId,
    },
    /// A terminal message that cannot be followed.
    InvalidTerminal {
        /// Which message.
        message: TerminalMessage,
        /// The session, if it is known.
        session_id: Option<SessionId>,
        /// What is wrong.
        faults: Faults,
    },
    /// A dispatch that cannot be run: it wants an error result.
    InvalidDispatch {
        /// The command, if it is known.
        command_id: Option<CommandId>,
        /// What is wrong.
        faults: Faults,
    },
    /// A cancel without a usable id.
    InvalidCancel {
        /// What is wrong.
        faults: Faults,
    },
    /// `log:subscribe`
    LogSubscribe {
        /// Which logs: `*`, or paths.
        paths: Vec<String>,
    },
    /// `log:unsubscribe`
    LogUnsubscribe {
        /// Which logs; none: all.
        paths: Vec<String>,
    },
    /// Not for us.
    Ignored(Ignored),
}

/// The terminal messages, for [`Inbound::InvalidTerminal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalMessage {
    /// `terminal:create`
    Create,
    /// `terminal:input`
    Input,
    /// `terminal:resize`
    Resize,
    /// `terminal:close`
    Close,
}

/// Why a frame is ignored. None of these ever causes anything but a debug line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// In the console's native form, or a forged hybrid: it may come from any browser.
    Native,
    /// `log:subscribe` or `log:unsubscribe` whose paths cannot be read.
    LogSubscription,
    /// `terminal:resize` with a size that is no number.
    NonsenseSize,
    /// A type that this agent does not know, shortened.
    Unknown(String),
}

/// Reads one text frame.
///
/// Time is linear in its length; memory is bounded by [`DECODE_ALLOCATION_FACTOR`](super::DECODE_ALLOCATION_FACTOR)
/// times it.
///
/// # Errors
/// The frame has no envelope that could be read. The link stays up; an error line is due.
pub fn decode(text: &str) -> Result<Decoded, DecodeError> {
    Ok(match Frame::read(text)? {
        Frame::Native => Decoded { message: Inbound::Ignored(Ignored::Native), version_mismatch: None },
        Frame::Designed(frame) => Decoded { message: message(&frame), version_mismatch: frame.version_mismatch() },
    })
}

fn message(frame: &Designed<'_>) -> Inbound {
    match frame.kind() {
        "terminal:create" => terminal(frame, TerminalMessage::Create, create),
        "terminal:input" => terminal(frame, TerminalMessage::Input, input),
        "terminal:resize" => terminal(frame, TerminalMessage::Resize, resize),
        "terminal:close" => terminal(frame, TerminalMessage::Close, close),
        "command:dispatch" => match Dispatch::read(frame) {
            Ok(dispatch) => Inbound::CommandDispatch(Box::new(dispatch)),
            Err((command_id, faults)) => Inbound::InvalidDispatch { command_id, faults },
        },
        "command:cancel" => match dispatch::cancelled(frame) {
            Ok(command_id) => Inbound::CommandCancel { command_id },
            Err(faults) => Inbound::InvalidCancel { faults },
        },
        "log:subscribe" => logs(frame, |paths| Inbound::LogSubscribe { paths }),
        "log:unsubscribe" => logs(frame, |paths| Inbound::LogUnsubscribe { paths }),
        unknown => Inbound::Ignored(Ignored::Unknown(quoted(unknown))),
    }
}

/// Reads the paths of a request for logs. One that cannot be read asks for nothing.
fn logs(frame: &Designed<'_>, of_paths: fn(Vec<String>) -> Inbound) -> Inbound {
    let mut fields = Fields::read(frame.payload(), &["paths"]);
    match (fields.take_faults().is_empty(), fields.texts("paths")) {
        (true, Ok(paths)) => of_paths(paths),
        (false, _) | (_, Err(_)) => Inbound::Ignored(Ignored::LogSubscription),
    }
}

const TERMINAL_FIELDS: &[&str] = &["session_id", "cols", "rows", "shell", "data"];

/// Reads what all terminal messages have in common, then the rest.
fn terminal(
    frame: &Designed<'_>,
    message: TerminalMessage,
    read: fn(&Fields<'_>, SessionId) -> Result<Inbound, Fault>,
) -> Inbound {
    let mut fields = Fields::read(frame.payload(), TERMINAL_FIELDS);
    let mut faults = fields.take_faults();
    let session_id = session_id(frame, &fields).map_err(|fault| faults.push(fault)).ok();
    if let Some(faults) = Faults::of(faults) {
        // A payload that cannot be trusted in one field may still name its session or command.
        return Inbound::InvalidTerminal { message, session_id, faults };
    }
    let Some(session_id) = session_id else {
        let faults = Fault::Missing { field: "session_id" }.into();
        return Inbound::InvalidTerminal { message, session_id, faults };
    };
    read(&fields, session_id.clone()).unwrap_or_else(|fault| Inbound::InvalidTerminal {
        message,
        session_id: Some(session_id),
        faults: fault.into(),
    })
}

/// The session: the payload's where it names one, else the envelope's.
fn session_id(frame: &Designed<'_>, fields: &Fields<'_>) -> Result<SessionId, Fault> {
    const FIELD: &str = "session_id";
    let of_payload = fields.text(FIELD)?;
    let of_envelope = || frame.session_id().and_then(Text::read).filter(|text| !text.is_empty());
    let text = of_payload.or_else(of_envelope).ok_or(Fault::Missing { field: FIELD })?;
    SessionId::new(&text).ok_or(Fault::IllegalId { field: FIELD })
}

fn create(fields: &Fields<'_>, session_id: SessionId) -> Result<Inbound, Fault> {
    let shell = fields.argument("shell")?;
    let size = |field, default| match fields.number(field) {
        // Nonsense in a size is no reason to refuse a terminal.
        Ok(Some(cells)) if cells > 0.0 => clamped(cells),
        Ok(_) | Err(_) => default,
    };
    Ok(Inbound::TerminalCreate {
        session_id,
        cols: size("cols", COLS_DEFAULT),
        rows: size("rows", ROWS_DEFAULT),
        shell,
    })
}

fn input(fields: &Fields<'_>, session_id: SessionId) -> Result<Inbound, Fault> {
    const FIELD: &str = "data";
    let raw = fields.raw(FIELD).ok_or(Fault::Missing { field: FIELD })?;
    let text = Text::read(raw).ok_or(Fault::WrongType { field: FIELD, wanted: "a string" })?;
    let data = base64::decode(&text).ok_or(Fault::NotBase64 { field: FIELD })?;
    Ok(Inbound::TerminalInput { session_id, data })
}

fn resize(fields: &Fields<'_>, session_id: SessionId) -> Result<Inbound, Fault> {
    match (fields.number("cols"), fields.number("rows")) {
        (Ok(Some(cols)), Ok(Some(rows))) => {
            Ok(Inbound::TerminalResize { session_id, cols: clamped(cols), rows: clamped(rows) })
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Ok(Inbound::Ignored(Ignored::NonsenseSize)),
    }
}

fn close(_: &Fields<'_>, session_id: SessionId) -> Result<Inbound, Fault> {
    Ok(Inbound::TerminalClose { session_id })
}

/// A size that a terminal can have: whole, at least 1, at most 65,535.
fn clamped(cells: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the type's own range")]
    let cells = cells.clamp(1.0, f64::from(u16::MAX)) as u16;
    cells
}

/// Shows everything but what was typed, which may be a password.
impl fmt::Debug for Inbound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TerminalCreate { session_id, cols, rows, shell } => {
                write!(formatter, "TerminalCreate({session_id:?}, {cols}×{rows}, {shell:?})")
            }
            Self::TerminalInput { session_id, data } => {
                write!(formatter, "TerminalInput({session_id:?}, {} bytes)", data.len())
            }
            Self::TerminalResize { session_id, cols, rows } => {
                write!(formatter, "TerminalResize({session_id:?}, {cols}×{rows})")
            }
            Self::TerminalClose { session_id } => {
                write!(formatter, "TerminalClose({session_id:?})")
            }
            Self::CommandDispatch(dispatch) => dispatch.fmt(formatter),
            Self::CommandCancel { command_id } => {
                write!(formatter, "CommandCancel({command_id:?})")
            }
            Self::LogSubscribe { paths } => write!(formatter, "LogSubscribe({paths:?})"),
            Self::LogUnsubscribe { paths } => write!(formatter, "LogUnsubscribe({paths:?})"),
            Self::InvalidTerminal { message, session_id, faults } => {
                write!(formatter, "InvalidTerminal({message:?}, {session_id:?}, {faults})")
            }
            Self::InvalidDispatch { command_id, faults } => {
                write!(formatter, "InvalidDispatch({command_id:?}, {faults})")
            }
            Self::InvalidCancel { faults } => write!(formatter, "InvalidCancel({faults})"),
            Self::Ignored(ignored) => ignored.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(frame: &str) -> Inbound {
        decode(frame).expect("an envelope").message
    }

    fn session(text: &str) -> SessionId {
        SessionId::new(text).expect("an id")
    }

    #[test]
    fn the_session_may_stand_in_either_place_and_the_payload_wins() {
        for (frame, expected) in [
            (r#"{"type":"terminal:close","session_id":"e"}"#, "e"),
            (r#"{"type":"terminal:close","session_id":"e","payload":null}"#, "e"),
            (r#"{"type":"terminal:close","payload":{"session_id":"p"}}"#, "p"),
            (r#"{"type":"terminal:close","session_id":"e","payload":{"session_id":"p"}}"#, "p"),
            (r#"{"type":"terminal:close","session_id":7,"payload":{"session_id":"p"}}"#, "p"),
            (r#"{"type":"terminal:close","session_id":"e","payload":{"session_id":null}}"#, "e"),
        ] {
            assert_eq!(read(frame), Inbound::TerminalClose { session_id: session(expected) }, "{frame}");
        }
    }

    #[test]
    fn a_terminal_message_without_a_session_is_invalid() {
        for frame in [
            r#"{"type":"terminal:close"}"#,
            r#"{"type":"terminal:close","session_id":"e","payload":{"session_id":7}}"#,
            r#"{"type":"terminal:close","session_id":"e","payload":{"session_id":"a","session_id":"b","x":0}}"#,
        ] {
            assert!(matches!(read(frame), Inbound::InvalidTerminal { .. }), "{frame}");
        }
    }

    #[test]
    fn sizes_of_a_create_have_defaults() {
        let size =
            |sizes: &str| match read(&format!(r#"{{"type":"terminal:create","payload":{{"session_id":"s"{sizes}}}}}"#))
            {
                Inbound::TerminalCreate { cols, rows, shell: None, .. } => (cols, rows),
                other => panic!("{other:?}"),
            };
        for (sizes, expected) in [
            ("", (80, 24)),
            (r#","cols":0,"rows":0"#, (80, 24)),
            (r#","cols":132.9,"rows":43"#, (132, 43)),
            (r#","cols":70000,"rows":1e999"#, (65535, 65535)),
            (r#","cols":-3,"rows":0.4"#, (80, 1)),
            (r#","cols":"a","rows":null"#, (80, 24)),
        ] {
            assert_eq!(size(sizes), expected, "{sizes}");
        }
    }

    #[test]
    fn sizes_of_a_resize_are_clamped_or_ignored() {
        let resize =
            |sizes: &str| read(&format!(r#"{{"type":"terminal:resize","payload":{{"session_id":"s",{sizes}}}}}"#));
        let size = |cols, rows| Inbound::TerminalResize { session_id: session("s"), cols, rows };
        assert_eq!(resize(r#""cols":80.7,"rows":0"#), size(80, 1));
        assert_eq!(resize(r#""cols":70000,"rows":-5"#), size(65535, 1));
        for nonsense in [r#""cols":"80","rows":24"#, r#""cols":80"#, r#""cols":null,"rows":[]"#] {
            assert_eq!(resize(nonsense), Inbound::Ignored(Ignored::NonsenseSize), "{nonsense}");
        }
    }

    #[test]
    fn input_is_strict_base64() {
        let input =
            |data: &str| read(&format!(r#"{{"type":"terminal:input","payload":{{"session_id":"s","data":{data}}}}}"#));
        let typed = |data: &[u8]| Inbound::TerminalInput { session_id: session("s"), data: data.to_vec() };
        assert_eq!(input(r#""bHMgLWwN""#), typed(b"ls -l\r"));
        assert_eq!(input(r#""""#), typed(b""));
        assert_eq!(input(r#""\/\/8=""#), typed(&[0xff, 0xff]));
        for nonsense in [r#""YQ""#, r#""YR==""#, r#""YQ==YQ==""#, r#""Y Q==""#, r#""_w==""#, "7", "null", r#"["YQ=="]"#]
        {
            match input(nonsense) {
                Inbound::InvalidTerminal { session_id, .. } => {
                    assert_eq!(session_id, Some(session("s")), "{nonsense}");
                }
                other => panic!("{nonsense}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_shell_must_be_a_text() {
        let create = |shell: &str| {
            read(&format!(r#"{{"type":"terminal:create","payload":{{"session_id":"s","shell":{shell}}}}}"#))
        };
        assert!(matches!(create("\"/bin/sh\""), Inbound::TerminalCreate { shell: Some(_), .. }));
        assert!(matches!(create("\"\""), Inbound::TerminalCreate { shell: None, .. }));
        assert!(matches!(create("7"), Inbound::InvalidTerminal { session_id: Some(_), .. }));
        assert!(matches!(create("\"\\u0000\""), Inbound::InvalidTerminal { session_id: Some(_), .. }));
    }

    #[test]
    fn cancel_names_a_command() {
        let command_id = CommandId::new("c").expect("an id");
        assert_eq!(
            read(r#"{"type":"command:cancel","payload":{"command_id":"c"}}"#),
            Inbound::CommandCancel { command_id }
        );
        assert!(matches!(read(r#"{"type":"command:cancel","payload":{}}"#), Inbound::InvalidCancel { .. }));
    }

    #[test]
    fn requests_for_logs_name_paths() {
        let paths = vec!["*".to_owned()];
        let subscribe = r#"{"type":"log:subscribe","payload":{"paths":["*"]}}"#;
        assert_eq!(read(subscribe), Inbound::LogSubscribe { paths });
        let unsubscribe = |payload: &str| read(&format!(r#"{{"type":"log:unsubscribe"{payload}}}"#));
        for all in ["", r#","payload":{}"#, r#","payload":{"paths":[]}"#, r#","payload":{"paths":null}"#] {
            assert_eq!(unsubscribe(all), Inbound::LogUnsubscribe { paths: Vec::new() }, "{all}");
        }
        for unreadable in [r#","payload":{"paths":"*"}"#, r#","payload":{"paths":[1]}"#, r#","payload":[]"#] {
            assert_eq!(unsubscribe(unreadable), Inbound::Ignored(Ignored::LogSubscription), "{unreadable}");
        }
    }

    #[test]
    fn unknown_and_foreign_types_are_ignored() {
        assert_eq!(read(r#"{"type":"tea:time","payload":[7]}"#), Inbound::Ignored(Ignored::Unknown("tea:time".into())));
        assert_eq!(
            read(r#"{"type":"Terminal:Close","session_id":"e"}"#),
            Inbound::Ignored(Ignored::Unknown("Terminal:Close".into()))
        );
    }

    #[test]
    fn a_wrong_version_is_still_processed() {
        let decoded =
            decode(r#"{"protocol_version":"3.0","type":"terminal:close","session_id":"s"}"#).expect("an envelope");
        assert_eq!(decoded.version_mismatch.as_deref(), Some("3.0"));
        assert_eq!(decoded.message, Inbound::TerminalClose { session_id: session("s") });
    }

    #[test]
    fn debug_output_hides_typed_bytes() {
        let message = read(r#"{"type":"terminal:input","session_id":"s","payload":{"data":"aHVudGVyMg=="}}"#);
        assert_eq!(format!("{message:?}"), "TerminalInput(SessionId(\"s\"), 7 bytes)");
    }

    proptest! {
        #[test]
        fn unknown_fields_change_nothing(name in "[a-z_]{1,12}", value in "[1-9][0-9]{0,4}|\"[a-z]*\"|null|\\[\\]") {
            prop_assume!(!["type", "payload", "channel", "session_id", "cols", "rows", "shell", "data"].contains(&name.as_str()));
            let plain = r#"{"type":"terminal:resize","payload":{"session_id":"s","cols":5,"rows":6}}"#;
            let more = format!(
                r#"{{"x{name}":{value},"type":"terminal:resize","payload":{{"{name}":{value},"session_id":"s","cols":5,"rows":6}}}}"#
            );
            prop_assert_eq!(read(plain), read(&more));
        }
    }
}
