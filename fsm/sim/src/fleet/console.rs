//! The console of a fleet, which accepts connections and registrations at a limited rate.
//!
//! Connections queue. A connection that is accepted after the agent has given up is wasted. Registrations are limited
//! as in production: a number a minute for each address, and `Retry-After` gives the end of the minute.

use super::Fleet;
use std::collections::BTreeMap;

/// The most registrations of one address in a minute (CONSOLE.md, "Registration").
pub(super) const REGISTRATIONS_PER_MINUTE: u32 = 10;

/// The most connections that wait to be accepted; the next one is refused. It is the longest queue of a listening
/// socket on Linux.
const BACKLOG: u64 = 4_096;

/// So many connections without TLS cost a console as much as one with it: 50 µs of a core against 1 ms.
const PROBES_PER_ACCEPT: u64 = 20;

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The console does not listen.
    Absent,
    /// Too many connections wait.
    Refused,
    /// TLS fails.
    BadCertificate,
    /// It is accepted after this.
    After {
        /// How long it waits, in milliseconds.
        wait_ms: u64,
    },
}

/// The state of the console.
pub(super) struct Console {
    pub(super) away_until_ms: u64,
    pub(super) bad_certificate_until_ms: u64,
    unknown: Vec<bool>,
    accept_us: u64,
    free_us: u64,
    /// For each address: the start of its minute, and its registrations since then.
    windows: BTreeMap<usize, (u64, u32)>,
}

impl Console {
    pub(super) fn new(fleet: &Fleet, knows_nobody: Option<u64>) -> Self {
        Self {
            away_until_ms: 0,
            bad_certificate_until_ms: 0,
            unknown: vec![knows_nobody.is_some(); fleet.agents],
            accept_us: 1_000_000 / fleet.accepts_per_second.max(1),
            free_us: 0,
            windows: BTreeMap::new(),
        }
    }

    pub(super) fn admit(&mut self, at_ms: u64) -> Admission {
        if at_ms < self.away_until_ms {
            return Admission::Absent;
        }
        let at_us = at_ms * 1_000;
        let waits_us = self.free_us.saturating_sub(at_us);
        if waits_us / self.accept_us > BACKLOG {
            return Admission::Refused;
        }
        self.free_us = self.free_us.max(at_us) + self.accept_us;
        if at_ms < self.bad_certificate_until_ms {
            return Admission::BadCertificate;
        }
        Admission::After { wait_ms: waits_us / 1_000 }
    }

    /// The same for a connection that is closed without a byte: without TLS it costs a fraction.
    pub(super) fn probe(&mut self, at_ms: u64) -> Admission {
        let free_us = self.free_us.max(at_ms * 1_000);
        let admission = self.admit(at_ms);
        if self.free_us > free_us {
            self.free_us = free_us + self.accept_us / PROBES_PER_ACCEPT;
        }
        admission
    }

    pub(super) fn knows(&self, member: usize) -> bool {
        self.unknown.get(member) != Some(&true)
    }

    /// Stops the console until then. Afterwards it knows no instance.
    pub(super) fn forget_all(&mut self, until_ms: u64) {
        self.away_until_ms = until_ms;
        self.unknown.fill(true);
    }

    /// The answer to a registration.
    pub(super) fn register(&mut self, now_ms: u64, member: usize, address: usize) -> (u16, Option<u64>) {
        let (since_ms, count) = self.windows.entry(address).or_insert((now_ms, 0));
        if now_ms >= *since_ms + 60_000 {
            (*since_ms, *count) = (now_ms, 0);
        }
        if *count >= REGISTRATIONS_PER_MINUTE {
            let left_ms = *since_ms + 60_000 - now_ms;
            return (429, Some(left_ms.div_ceil(1_000) * 1_000));
        }
        *count += 1;
        if let Some(unknown) = self.unknown.get_mut(member) {
            *unknown = false;
        }
        (201, None)
    }
}
