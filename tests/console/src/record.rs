//! The records of what the console received: one for each event, in order.
//!
//! A record never changes. What the console sent is not recorded.

use std::time::Instant;

use serde_json::Value;

use crate::http::Request;

/// One event.
#[derive(Debug)]
pub struct Record {
    /// Its place among all records of this console, from 0.
    pub seq: usize,
    /// When it happened.
    pub at: Instant,
    /// The same in milliseconds since the console was started.
    pub at_ms: u64,
    /// The connection, counted from 1 in the order of the upgrade requests; 0 for an event without one.
    pub connection: u32,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// A registration request on any path, and the status of the answer (0: no answer).
    Registration(Request, u16),
    /// Any other HTTP request; it was answered 404.
    Other(Request),
    /// An upgrade request.
    Upgrade(Request),
    /// The upgrade was answered with 101.
    Opened,
    /// The console began to listen (frames before that are lost) and sent its first message, if it sends one.
    Attached,
    /// A text frame that the console heard. The value is `Null` when it is not JSON.
    Text(String, Value),
    /// A text frame that came before the console listened, or after it forgot the connection's instance.
    Unheard(String, Value),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping with this payload; the pong went out unless the test withheld it.
    Ping(Vec<u8>),
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// The agent's close frame (its own, or its echo of ours).
    Closed(Option<u16>, String),
    /// The connection is over. Exactly one a connection, its last record.
    Ended(End),
    /// The agent sent a frame that brings the production console down.
    Poison(String),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Close frames went both ways.
    Closed,
    /// The agent ended the stream without a close frame.
    Finished,
    /// The agent reset the connection.
    Reset,
    /// The test, or the personality, ended it without a close frame.
    Ours,
    /// The agent broke the WebSocket protocol or a limit; the text says how.
    Broken(String),
}

impl Record {
    /// The envelope's `type`; empty if the record is no JSON text frame.
    #[must_use]
    pub fn kind(&self) -> &str {
        match &self.what {
            What::Text(_, value) => value["type"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    /// The whole frame as JSON; `Null` for what is no text frame.
    #[must_use]
    pub fn value(&self) -> &Value {
        match &self.what {
            What::Text(_, value) | What::Unheard(_, value) => value,
            _ => &Value::Null,
        }
    }

    /// The frame's `payload`; `Null` where there is none.
    #[must_use]
    pub fn payload(&self) -> &Value {
        &self.value()["payload"]
    }

    /// The frame as it came over the wire; empty for what is no text frame.
    #[must_use]
    pub fn raw(&self) -> &str {
        match &self.what {
            What::Text(raw, _) | What::Unheard(raw, _) => raw,
            _ => "",
        }
    }

    /// The HTTP request of a registration, an upgrade or anything else.
    ///
    /// # Panics
    /// When the record is of no request.
    #[must_use]
    #[track_caller]
    pub fn request(&self) -> &Request {
        match &self.what {
            What::Registration(request, _) | What::Other(request) | What::Upgrade(request) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    /// A line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let what = match &self.what {
            What::Registration(request, status) => {
                format!("{} -> {status} {}", request.line(), request.body_text())
            }
            What::Other(request) => format!("{} -> 404", request.line()),
            What::Upgrade(request) => format!("{} (upgrade)", request.line()),
            What::Opened => "opened".to_owned(),
            What::Attached => "listening".to_owned(),
            What::Text(raw, _) => cut(raw),
            What::Unheard(raw, _) => format!("unheard {}", cut(raw)),
            What::Binary(bytes) => format!("binary, {} bytes", bytes.len()),
            What::Ping(payload) => format!("ping {}", data_encoding::HEXLOWER.encode(payload)),
            What::Pong(payload) => format!("pong {}", data_encoding::HEXLOWER.encode(payload)),
            What::Closed(code, reason) => format!("close {code:?} {reason:?}"),
            What::Ended(end) => format!("ended: {end:?}"),
            What::Poison(what) => format!("POISON: {what}"),
        };
        format!("{:>8} ms #{} {what}", self.at_ms, self.connection)
    }

    /// The approximate memory of this record, in bytes.
    pub(crate) fn cost(&self) -> usize {
        const FIXED: usize = 160; // the record, its Arc and the vectors' headers
        FIXED
            + match &self.what {
                What::Registration(request, _) | What::Other(request) | What::Upgrade(request) => {
                    request.body.len() + request.headers.len() * 64
                }
                What::Text(raw, _) | What::Unheard(raw, _) => raw.len() * 3, // the tree is about twice the text
                What::Binary(bytes) | What::Ping(bytes) | What::Pong(bytes) => bytes.len(),
                What::Opened | What::Attached | What::Closed(..) | What::Ended(_) | What::Poison(_) => 0,
            }
    }
}

/// The beginning of a long frame.
fn cut(raw: &str) -> String {
    const SHOWN_CHARS: usize = 400;
    match raw.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}… ({} bytes)", &raw[..end], raw.len()),
        None => raw.to_owned(),
    }
}
