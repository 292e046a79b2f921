//! The scripts of a test for the next registrations and upgrades.
//!
//! `server` and `link` execute them. Each queued script is used once, in order; after the last one the personality
//! decides again. Delays are wall time.

use std::time::Duration;

use serde_json::Value;

use crate::personality::Greeting;

/// The answer to one registration, instead of the personality's.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub(crate) delay: Duration,
    pub(crate) kind: AnswerKind,
}

/// The answer after the delay.
#[derive(Clone, Debug, Default)]
pub(crate) enum AnswerKind {
    /// The personality's answer.
    #[default]
    Usual,
    /// This response.
    Response(Response),
    /// These bytes, then the end of the stream.
    Garbage(Vec<u8>),
    /// Nothing; the connection stays open.
    Silence,
    /// The first half of this response, then a reset.
    ResetMidway(Response),
}

/// One HTTP response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Response {
        Response {
            status,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: body.to_string().into_bytes(),
        }
    }
}

impl Answer {
    /// The personality's answer (with [`Answer::delay`]: late).
    #[must_use]
    pub fn usual() -> Answer {
        Answer::default()
    }

    /// A response with this status and no body.
    #[must_use]
    pub fn status(status: u16) -> Answer {
        Answer { kind: AnswerKind::Response(Response::new(status)), ..Answer::default() }
    }

    /// 201 with this id, as the production console answers.
    #[must_use]
    pub fn created(id: &str) -> Answer {
        Answer::status(201).json(&serde_json::json!({"id": id, "name": id, "provider": "ssh"}))
    }

    /// These bytes in place of a response, then the end of the stream.
    #[must_use]
    pub fn garbage(bytes: &[u8]) -> Answer {
        Answer { kind: AnswerKind::Garbage(bytes.to_vec()), ..Answer::default() }
    }

    /// Never an answer; the connection stays open.
    #[must_use]
    pub fn never() -> Answer {
        Answer { kind: AnswerKind::Silence, ..Answer::default() }
    }

    /// Half of a response, then a reset.
    #[must_use]
    pub fn reset_midway() -> Answer {
        let body = serde_json::json!({"id": "never-sent", "name": "x", "provider": "ssh"});
        Answer { kind: AnswerKind::ResetMidway(Response::json(201, &body)), ..Answer::default() }
    }

    /// One more header on the response.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        if let AnswerKind::Response(response) | AnswerKind::ResetMidway(response) = &mut self.kind {
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The response's body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        if let AnswerKind::Response(response) | AnswerKind::ResetMidway(response) = &mut self.kind {
            response.body = body.into();
        }
        self
    }

    /// The response's body as JSON, with its content type.
    #[must_use]
    pub fn json(self, body: &Value) -> Answer {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// Answers this much later.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Answer {
        self.delay = delay;
        self
    }
}

/// How a connection answers pings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pongs {
    /// One pong for each ping, at once.
    #[default]
    Once,
    /// Two for each.
    Twice,
    /// None: they are withheld and never sent.
    Withheld,
}

/// The answer to one upgrade, instead of the personality's.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    pub(crate) delay: Duration,
    pub(crate) kind: UpgradeKind,
    pub(crate) greeting: Option<Greeting>,
    pub(crate) pongs: Pongs,
}

/// The answer after the delay.
#[derive(Clone, Debug, Default)]
pub(crate) enum UpgradeKind {
    /// The personality's answer.
    #[default]
    Usual,
    /// This response instead of 101.
    Refuse(Response),
    /// Nothing; the connection stays open.
    Hang,
    /// A reset.
    Reset,
    /// 101, then this close.
    Close(u16, String),
    /// 101 with a `Sec-WebSocket-Accept` that is wrong.
    WrongAccept,
}

impl Upgrade {
    /// The personality's answer (with the modifiers below: late, with another greeting, …).
    #[must_use]
    pub fn usual() -> Upgrade {
        Upgrade::default()
    }

    /// This status instead of 101.
    #[must_use]
    pub fn status(status: u16) -> Upgrade {
        Upgrade { kind: UpgradeKind::Refuse(Response::new(status)), ..Upgrade::default() }
    }

    /// Never an answer; the connection stays open.
    #[must_use]
    pub fn hang() -> Upgrade {
        Upgrade { kind: UpgradeKind::Hang, ..Upgrade::default() }
    }

    /// A reset instead of an answer.
    #[must_use]
    pub fn reset() -> Upgrade {
        Upgrade { kind: UpgradeKind::Reset, ..Upgrade::default() }
    }

    /// 101, then a close frame with this code and reason.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Upgrade {
        Upgrade { kind: UpgradeKind::Close(code, reason.to_owned()), ..Upgrade::default() }
    }

    /// 101 with a wrong `Sec-WebSocket-Accept`.
    #[must_use]
    pub fn wrong_accept() -> Upgrade {
        Upgrade { kind: UpgradeKind::WrongAccept, ..Upgrade::default() }
    }

    /// One more header on a refusal.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Upgrade {
        if let UpgradeKind::Refuse(response) = &mut self.kind {
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Answers this much later.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Upgrade {
        self.delay = delay;
        self
    }

    /// Sends another greeting than the personality's.
    #[must_use]
    pub fn greeting(mut self, greeting: Greeting) -> Upgrade {
        self.greeting = Some(greeting);
        self
    }

    /// Answers pings like this from the first one on.
    #[must_use]
    pub fn pongs(mut self, pongs: Pongs) -> Upgrade {
        self.pongs = pongs;
        self
    }
}
