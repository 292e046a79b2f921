//! What an operator asks about the connection: since when its state lasts, why links ended, what was lost.
//!
//! It decides nothing. Memory is bounded: the last hour is kept as counts for each minute and cause.

use super::Driver;
use super::ports::Body;
use crate::machine::MachineSnapshot;
use crate::order::Disconnect;
use crate::time::Time;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// How long a link that ended counts as one of the last hour, in minutes.
const HOUR_MINUTES: u64 = 60;

const MINUTE_MS: u64 = 60_000;

/// Whether the console can be reached now, as far as the agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPhase {
    /// There is no link that the console accepted.
    Offline,
    /// The console has accepted the link.
    Online,
    /// The agent stops.
    Draining,
}

/// What can be seen of the driver from outside: for logs, tests and replays. It is never restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The connection.
    pub connection: MachineSnapshot,
    /// Reliable messages that the console is not known to have.
    pub messages: usize,
    /// Their encoded bytes.
    pub message_bytes: usize,
    /// Encoded bytes of streams that are under way.
    pub stream_bytes_in_flight: u64,
    /// Sessions that are opening, open or ending.
    pub sessions: usize,
    /// Commands that run or wait.
    pub commands: usize,
}

/// What an operator asks about, see [`Driver::health`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What can be seen of the driver.
    pub snapshot: Snapshot,
    /// Whether the console can be reached.
    pub phase: LinkPhase,
    /// Since when the connection is in its state.
    pub state_since: Time,
    /// When the last link that the console accepted came or went; the start, before the first.
    pub online_changed_at: Time,
    /// When the last heartbeat was sent.
    pub heartbeat_at: Option<Time>,
    /// How long the last answered Ping took, in milliseconds.
    pub round_trip_ms: Option<u64>,
    /// Why links ended within the last hour, and how often; each cause once.
    pub reconnects_last_hour: Vec<(Disconnect, u32)>,
    /// How many links ended since the start.
    pub reconnects: u64,
    /// Reliable messages that were dropped since the start, as far as that is reported to the console.
    pub dropped: u64,
    /// Gaps in the output of streams since the start, likewise.
    pub gaps: u64,
    /// Usage records of AI tools that wait to be sent.
    pub usage_records: u32,
}

/// What was seen of the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Vitals {
    pub(super) state_since: Time,
    state: &'static str,
    pub(super) is_online: bool,
    /// When the last link that the console accepted came or went; the start, before the first.
    pub(super) online_changed_at: Time,
    pub(super) heartbeat_at: Option<Time>,
    pub(super) round_trip_ms: Option<u64>,
    pub(super) dropped: u64,
    pub(super) gaps: u64,
    /// Links that ended, since the start.
    pub(super) reconnects: u64,
    /// Minute, cause and count, oldest first; each pair of minute and cause once.
    ends: VecDeque<(u64, Disconnect, u32)>,
}

impl Vitals {
    pub(super) fn note_state(&mut self, now: Time, state: &'static str) {
        if self.state != state {
            (self.state, self.state_since) = (state, now);
        }
    }

    /// The console has accepted the link. A link whose gate opens further changes nothing.
    pub(super) fn note_online(&mut self, now: Time) {
        if !core::mem::replace(&mut self.is_online, true) {
            self.online_changed_at = now;
        }
    }

    /// A link that the console had accepted has ended.
    pub(super) fn note_offline(&mut self, now: Time, cause: Disconnect) {
        (self.is_online, self.online_changed_at) = (false, now);
        if cause == Disconnect::Shutdown {
            return;
        }
        self.reconnects += 1;
        let minute = now.as_ms() / MINUTE_MS;
        self.ends.retain(|(ended, ..)| ended + HOUR_MINUTES > minute);
        match self.ends.iter_mut().find(|(ended, of, _)| (*ended, *of) == (minute, cause)) {
            Some((.., count)) => *count += 1,
            None => self.ends.push_back((minute, cause, 1)),
        }
    }

    /// Why links ended within the last hour, to the minute, and how often; each cause once.
    pub(super) fn reconnects_last_hour(&self, now: Time) -> Vec<(Disconnect, u32)> {
        let minute = now.as_ms() / MINUTE_MS;
        let mut causes: Vec<(Disconnect, u32)> = Vec::new();
        for (_, cause, count) in self.ends.iter().filter(|(ended, ..)| ended + HOUR_MINUTES > minute) {
            match causes.iter_mut().find(|(of, _)| of == cause) {
                Some((_, sum)) => *sum += count,
                None => causes.push((*cause, *count)),
            }
        }
        causes
    }
}

impl<B: Body> Driver<B> {
    /// Whether the console can be reached.
    pub fn link_phase(&self) -> LinkPhase {
        match (self.machine.is_draining(), self.vitals.is_online) {
            (true, _) => LinkPhase::Draining,
            (false, true) => LinkPhase::Online,
            (false, false) => LinkPhase::Offline,
        }
    }

    /// What can be seen from outside.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connection: self.machine.snapshot(),
            messages: self.ledger.messages(),
            message_bytes: self.ledger.message_bytes(),
            stream_bytes_in_flight: self.ledger.stream_bytes_in_flight(),
            sessions: self.sessions.live(),
            commands: self.machine.commands(),
        }
    }

    /// What an operator asks about, at `now`.
    pub fn health(&self, now: Time) -> Health {
        Health {
            snapshot: self.snapshot(),
            phase: self.link_phase(),
            state_since: self.vitals.state_since,
            online_changed_at: self.vitals.online_changed_at,
            heartbeat_at: self.vitals.heartbeat_at,
            round_trip_ms: self.vitals.round_trip_ms,
            reconnects_last_hour: self.vitals.reconnects_last_hour(now),
            reconnects: self.vitals.reconnects,
            dropped: self.vitals.dropped,
            gaps: self.vitals.gaps,
            usage_records: self.usage.records(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_last_hour_are_counted_by_cause() {
        let mut vitals = Vitals::default();
        let at = |minute: u64| Time::from_ms(minute * MINUTE_MS);
        for (minute, cause) in [
            (0, Disconnect::Lost),
            (0, Disconnect::Lost),
            (1, Disconnect::PongTimeout),
            (59, Disconnect::Lost),
            (59, Disconnect::Shutdown),
        ] {
            vitals.note_online(at(minute));
            vitals.note_offline(at(minute), cause);
        }
        assert_eq!(vitals.reconnects_last_hour(at(59)), [(Disconnect::Lost, 3), (Disconnect::PongTimeout, 1)]);
        assert_eq!(vitals.reconnects_last_hour(at(60)), [(Disconnect::PongTimeout, 1), (Disconnect::Lost, 1)]);
        assert_eq!(vitals.reconnects_last_hour(at(119)), []);
        assert_eq!(vitals.reconnects, 4);
    }

    #[test]
    fn link_that_flaps_for_a_day_keeps_an_hour() {
        let mut vitals = Vitals::default();
        for second in 0..86_400 {
            vitals.note_offline(Time::from_ms(second * 1_000), Disconnect::Closed);
        }
        assert_eq!(vitals.ends.len(), 60);
        assert_eq!(vitals.reconnects_last_hour(Time::from_ms(86_399_000)), [(Disconnect::Closed, 3_600)]);
    }

    #[test]
    fn a_wider_gate_does_not_restart_the_online_time() {
        let mut vitals = Vitals::default();
        vitals.note_online(Time::from_ms(1));
        vitals.note_online(Time::from_ms(5_000));
        assert_eq!(vitals.online_changed_at, Time::from_ms(1));
    }
}
