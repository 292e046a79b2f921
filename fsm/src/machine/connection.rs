//! What the connection remembers from state to state.
//!
//! It decides nothing; what reads and changes it stands in the files of the states.

use super::Event;
use super::chart::State;
use crate::backoff::Backoff;
use crate::fact::Fact;
use crate::id::{LinkId, RegistrationAttempt};
use crate::order::{Gate, ProviderName, RegisterPath};
use crate::time::Time;
use statig::prelude::{Handled, Outcome};

/// What outlives a state.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// Number of the latest registration.
    pub(super) attempt: RegistrationAttempt,
    /// Number of the latest link.
    pub(super) link: LinkId,
    /// The console has given us an id, now or in an earlier life.
    pub(super) registered: bool,
    /// The `deploy` event of this process is out.
    pub(super) deployed: bool,
    /// The path that is tried first.
    pub(super) path: RegisterPath,
    /// The other path was tried in this round.
    pub(super) path_changed: bool,
    /// How the provider is named.
    pub(super) provider: ProviderName,
    /// The waits as far as they have grown.
    pub(super) backoff: Backoff,
    /// When the last replacements happened, the newest first.
    pub(super) replacements: [Option<Time>; 3],
    /// It was said that two agents share the id.
    pub(super) sharing_reported: bool,
    /// A link whose socket is not gone yet.
    pub(super) closing: Option<LinkId>,
    /// That socket has been dropped, not only closed.
    pub(super) dropped: bool,
    /// When the last socket was gone.
    pub(super) gone_at: Option<Time>,
    /// When the next dial is wanted, the old socket permitting.
    pub(super) retry_at: Time,
    /// Dials since the last link.
    pub(super) dials: u32,
    /// Since when there is no link.
    pub(super) offline_since: Time,
    /// What may pass on the current link.
    pub(super) gate: Option<Gate>,
    /// The link answers for a jump of the clock.
    pub(super) probing: bool,
    /// A loss was unclean, and the console must be cured of it.
    pub(super) resync_due: bool,
    /// When the last unclean loss was.
    pub(super) unclean_at: Time,
    /// The link that is closing was closed for a resync.
    pub(super) resyncing: bool,
    /// Resyncs in a row whose close was not answered.
    pub(super) resyncs_unanswered: u8,
    /// When somebody last typed, as far as that was asked for.
    pub(super) typed_at: Option<Time>,
    /// Everything sent is acknowledged.
    pub(super) settled: bool,
    /// When the next heartbeat is due; a reconnect does not change it.
    pub(super) heartbeat_at: Time,
    /// When the next metrics are due; a reconnect does not change it.
    pub(super) metrics_at: Time,
    /// How many of the three signals of the drain are out.
    pub(super) drain_steps: u8,
    /// When the drain began.
    pub(super) drain_began: Time,
    /// Facts that no state had a use for.
    pub(super) unhandled: u64,
    /// Facts about attempts and links that were over.
    pub(super) stale: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            attempt: RegistrationAttempt(0),
            link: LinkId(0),
            registered: false,
            deployed: false,
            path: RegisterPath::Designed,
            path_changed: false,
            provider: ProviderName::Configured,
            backoff: Backoff::default(),
            replacements: [None; 3],
            sharing_reported: false,
            closing: None,
            dropped: false,
            gone_at: None,
            retry_at: Time::START,
            dials: 0,
            offline_since: Time::START,
            gate: None,
            probing: false,
            resync_due: false,
            unclean_at: Time::START,
            resyncing: false,
            resyncs_unanswered: 0,
            typed_at: None,
            settled: true,
            heartbeat_at: Time::START,
            metrics_at: Time::START,
            drain_steps: 0,
            drain_began: Time::START,
            unhandled: 0,
            stale: 0,
        }
    }
}

impl Connection {
    /// The root's last resort: an event that no state had a use for is counted, and told apart from a stale one.
    pub(super) fn count(&mut self, event: &Event<'_>) -> Outcome<State> {
        match event {
            Event::Fact(fact) if self.is_stale(fact) => self.stale += 1,
            Event::Fact(_) => self.unhandled += 1,
            // The machine's own: a timer that was disarmed cannot expire, and there is nothing to reconsider here.
            Event::Expired(_) | Event::Reconsider => {}
        }
        Handled
    }

    fn is_stale(&self, fact: &Fact) -> bool {
        match fact {
            Fact::RegistrationAnswered { attempt, .. } | Fact::RegistrationFailed { attempt, .. } => {
                *attempt <= self.attempt
            }
            Fact::LinkOpened { link }
            | Fact::DialFailed { link, .. }
            | Fact::Greeted { link }
            | Fact::PingWritten { link }
            | Fact::PongReceived { link, .. }
            | Fact::WriteStalled { link }
            | Fact::CloseReceived { link, .. }
            | Fact::LinkLost { link, .. }
            | Fact::LinkClosed { link } => *link <= self.link,
            Fact::Started { .. }
            | Fact::Tick
            | Fact::DeliverySettled { .. }
            | Fact::RoomForResults { .. }
            | Fact::TerminalInput
            | Fact::ClockJumped { .. }
            | Fact::ShutdownRequested
            | Fact::Session { .. }
            | Fact::Command { .. } => false,
        }
    }
}
