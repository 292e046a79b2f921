//! What the console does without a script.
//!
//! `registry` and `link` read it. Each field is one observed habit (CONSOLE.md), so that a test can change a single
//! habit of a personality. Durations are wall time.

use std::time::Duration;

/// When the first frame of a connection is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Never: the console sends only frames for a browser.
    Never,
    /// `log:subscribe`, as soon as the listener is attached.
    Attached,
    /// `log:subscribe`, this long after the upgrade; the listener is attached at the same moment.
    After(Duration),
}

/// The habits of a console. Start from [`Personality::designed`] or [`Personality::production`] and change fields.
#[derive(Clone, Debug)]
pub struct Personality {
    /// The prefix of `/api/…` and `/ws/agent` in every path: empty, or `/prefix` without a trailing slash.
    pub prefix: String,
    /// The one path that registrations are served on; every other path answers 404.
    pub registration_path: &'static str,
    /// Whether registrations are validated as in production (409, 422) and answered with an id.
    pub production_registry: bool,
    /// Registrations allowed within one minute; the next one gets 429 with `Retry-After`.
    pub registrations_per_minute: Option<u32>,
    /// Whether an upgrade is always answered 101 and a refusal follows as close 1008.
    pub refuses_after_upgrade: bool,
    /// Whether an id that was never given out is refused (an id that a test forgot always is).
    pub knows_only_its_ids: bool,
    /// How long after the upgrade frames are lost, connection by connection, in turn; empty means never.
    pub deaf_for: Vec<Duration>,
    /// When the first frame is sent.
    pub greeting: Greeting,
    /// Whether each heartbeat is answered by a native `heartbeat:pong`.
    pub answers_heartbeats: bool,
    /// Whether a second connection of an instance closes the first with 1001.
    pub replaces: bool,
    /// Whether the end of any connection takes the instance out of the routing table, even when a newer one is up:
    /// then no frame of a browser reaches the agent until it connects again.
    pub loses_routes: bool,
    /// After how long the console gives up on a connection that it does not read (a stalled one).
    pub gives_up_after: Duration,
    /// Whether frames that bring the production console down are fatal here too.
    pub dies_of_poison: bool,
    /// The largest message that is read; a larger one gets close 1009.
    pub message_bytes_max: usize,
}

impl Personality {
    /// The protocol as designed: `POST /api/v1/instances/register`, any id accepted, no greeting, no surprises.
    #[must_use]
    pub fn designed() -> Personality {
        Personality {
            prefix: String::new(),
            registration_path: "/api/v1/instances/register",
            production_registry: false,
            registrations_per_minute: None,
            refuses_after_upgrade: false,
            knows_only_its_ids: false,
            deaf_for: Vec::new(),
            greeting: Greeting::Never,
            answers_heartbeats: false,
            replaces: false,
            loses_routes: false,
            gives_up_after: Duration::from_secs(30),
            dies_of_poison: true,
            message_bytes_max: 100 << 20,
        }
    }

    /// The production console as it was observed: its own registration path and rules, refusals after the upgrade,
    /// frames lost until its listener is attached, greeting, native pongs, replacement and the routing fault.
    #[must_use]
    pub fn production() -> Personality {
        Personality {
            registration_path: "/api/v1/instances",
            production_registry: true,
            registrations_per_minute: Some(10),
            refuses_after_upgrade: true,
            knows_only_its_ids: true,
            deaf_for: [5, 12, 20].map(Duration::from_millis).to_vec(),
            greeting: Greeting::Attached,
            answers_heartbeats: true,
            replaces: true,
            loses_routes: true,
            ..Personality::designed()
        }
    }

    /// The same under a path prefix (`/console`, say).
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Personality {
        self.prefix = prefix.trim_end_matches('/').to_owned();
        self
    }

    /// The same without the limit on registrations a minute.
    #[must_use]
    pub fn without_rate_limit(mut self) -> Personality {
        self.registrations_per_minute = None;
        self
    }

    /// The same with another greeting.
    #[must_use]
    pub fn greeting(mut self, greeting: Greeting) -> Personality {
        self.greeting = greeting;
        self
    }
}
