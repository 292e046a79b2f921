//! What the connection remembers from state to state.
//!
//! It decides nothing; what reads and changes it stands in the files of the states.

use super::Event;
use super::chart::State;
use crate::backoff::Backoff;
use crate::fact::Fact;
use crate::id::{LinkId, PortProbe, RegistrationAttempt};
use crate::order::{Gate, ProviderName, RegisterPath};
use crate::time::Time;
use core::hash::{Hash, Hasher};
use statig::prelude::{Handled, Outcome};

/// What outlives a state.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(super) registration: Registration,
    pub(super) link: Link,
    /// Number of the latest probe of the console's port.
    pub(super) port_probe: PortProbe,
    pub(super) old_socket: OldSocket,
    /// The waits as far as they have grown.
    pub(super) backoff: Backoff,
    /// When the next dial is wanted, the old socket permitting.
    pub(super) retry_at: Time,
    pub(super) replacements: Replacements,
    pub(super) resync: Resync,
    pub(super) due: Due,
    /// Everything sent is acknowledged.
    pub(super) settled: bool,
    pub(super) drain: Drain,
    /// Facts that no state had a use for.
    pub(super) unhandled: u64,
    /// Facts about attempts and links that were over.
    pub(super) stale: u64,
}

/// How the console is asked for an id, and what it answered.
#[derive(Clone, Debug, Hash)]
pub(super) struct Registration {
    /// Number of the latest attempt.
    pub(super) attempt: RegistrationAttempt,
    /// The console knows this instance, as far as the agent knows: it dials without registering.
    pub(super) done: bool,
    /// The `deploy` event of this process is out.
    pub(super) deployed: bool,
    /// The path of the next attempt.
    pub(super) path: RegisterPath,
    /// The other path was tried in this round.
    pub(super) path_changed: bool,
    /// How the next attempt names the provider.
    pub(super) provider: ProviderName,
}

/// The latest link, from its dial to its end.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// Dials since the last link that the console accepted.
    pub(super) dials: u32,
    /// Since when there is no link that the console accepted.
    pub(super) offline_since: Time,
    /// What may pass; nothing while the console may not listen yet, or may still refuse the key.
    pub(super) gate: Option<Gate>,
    /// It answers for a jump of the clock.
    pub(super) probing: bool,
}

/// The socket of the link that ended last. No link is dialled while it may still be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldSocket {
    /// There was none.
    None,
    /// The close handshake is under way.
    Closing(LinkId),
    /// It was dropped, and is not reported closed.
    Dropped(LinkId),
    /// It is closed, or was given up, since then.
    Gone(Time),
}

impl OldSocket {
    /// Whether it may still be open.
    pub(super) const fn is_left(self) -> bool {
        match self {
            Self::Closing(_) | Self::Dropped(_) => true,
            Self::None | Self::Gone(_) => false,
        }
    }
}

/// What is known of another connection under the same id.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Replacements {
    /// When the last one happened.
    pub(super) last: Option<Time>,
    /// It was reported that two agents share the id.
    pub(super) reported: bool,
}

/// The extra reconnect after an unclean loss.
#[derive(Clone, Debug)]
pub(super) struct Resync {
    /// A loss was unclean, and the console must be cured of it.
    pub(super) due: bool,
    /// When the last unclean loss was.
    pub(super) unclean_at: Time,
    /// The old socket was closed for a resync or a hand-over.
    pub(super) closing: bool,
    /// Resyncs in a row whose close was not answered.
    pub(super) unanswered: u8,
    /// Since when it could have happened on this link.
    pub(super) due_since: Option<Time>,
}

/// When the state messages are due; a reconnect does not change it.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) heartbeat_at: Time,
    pub(super) metrics_at: Time,
}

/// How far the drain has come.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    pub(super) began: Time,
    pub(super) next: DrainStep,
}

/// The signals of the drain's time table, after the SIGHUP at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DrainStep {
    /// SIGTERM to commands.
    TerminateCommands,
    /// SIGKILL to sessions.
    KillSessions,
    /// SIGKILL to commands.
    KillCommands,
}

/// How long the end of an old socket can matter to the next dial, in milliseconds: more than any gap between the two.
const GONE_HASHED_MS: u32 = 1_000;

impl Connection {
    /// Hashes what can still matter in this state.
    pub(super) fn hash_in<H: Hasher>(&self, now_in: &State, state: &mut H) {
        let Self {
            registration, link, old_socket, backoff, retry_at, replacements, resync, due, settled, drain, ..
        } = self; // the rest counts ignored facts, for the log, and probes of the port, of which one is in flight
        // How often it dialled, and since when, is only reported.
        let Link { id, dials: _, offline_since: _, gate, probing } = link;
        (id, settled).hash(state);
        if now_in.has_link() {
            (gate, probing).hash(state);
        }
        if now_in.is_draining() || matches!(now_in, State::Stopped) {
            // Nothing leads back.
            return (drain.began, drain.next).hash(state);
        }
        let Registration { attempt, done, deployed, path, path_changed, provider } = registration;
        (attempt, done, deployed, path, provider, backoff, replacements).hash(state);
        if matches!(now_in, State::Requesting) {
            // A round begins without it.
            path_changed.hash(state);
        }
        // What was due before is due at once, however long before that was.
        [*retry_at, due.heartbeat_at, due.metrics_at].into_iter().for_each(|at| at.hash_within(0, state));
        let Resync { due, unclean_at, closing, unanswered, due_since } = resync;
        (due, unanswered).hash(state);
        if *due {
            unclean_at.hash(state);
            // Another link begins without it.
            matches!(now_in, State::Ready).then_some(due_since).hash(state);
        }
        if now_in.has_link() {
            // The end of the link is another one's.
            return;
        }
        match old_socket {
            OldSocket::Closing(link) => (1_u8, link, closing).hash(state),
            OldSocket::Dropped(link) => (2_u8, link).hash(state),
            // One that was gone long ago holds up no dial, and neither does none.
            OldSocket::Gone(at) => at.hash_within(GONE_HASHED_MS, state),
            OldSocket::None => Time::START.hash_within(GONE_HASHED_MS, state),
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            registration: Registration {
                attempt: RegistrationAttempt(0),
                done: false,
                deployed: false,
                path: RegisterPath::Designed,
                path_changed: false,
                provider: ProviderName::Configured,
            },
            link: Link { id: LinkId(0), dials: 0, offline_since: Time::START, gate: None, probing: false },
            port_probe: PortProbe(0),
            old_socket: OldSocket::None,
            backoff: Backoff::default(),
            retry_at: Time::START,
            replacements: Replacements::default(),
            resync: Resync { due: false, unclean_at: Time::START, closing: false, unanswered: 0, due_since: None },
            due: Due { heartbeat_at: Time::START, metrics_at: Time::START },
            settled: true,
            drain: Drain { began: Time::START, next: DrainStep::TerminateCommands },
            unhandled: 0,
            stale: 0,
        }
    }
}

impl Connection {
    /// The root's last resort: an event that no state had a use for is counted, separately from a stale one.
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
                *attempt <= self.registration.attempt
            }
            Fact::PortProbed { probe, .. } => *probe <= self.port_probe,
            Fact::LinkOpened { link }
            | Fact::DialFailed { link, .. }
            | Fact::Greeted { link }
            | Fact::PingWritten { link }
            | Fact::PongReceived { link, .. }
            | Fact::WriteStalled { link }
            | Fact::CloseReceived { link, .. }
            | Fact::LinkLost { link, .. }
            | Fact::LinkClosed { link } => *link <= self.link.id,
            Fact::Started { .. }
            | Fact::Tick
            | Fact::DeliverySettled { .. }
            | Fact::RoomForResults { .. }
            | Fact::TerminalInput
            | Fact::ClockJumped { .. }
            | Fact::ShutdownRequested
            | Fact::HandOverDue
            | Fact::TakenOver { .. }
            | Fact::Session { .. }
            | Fact::Command { .. } => false,
        }
    }
}
