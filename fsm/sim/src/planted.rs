//! Deliberate faults, to test the simulation: what a broken agent would do, put between a sound one and the world.
//!
//! Nothing of it is in the agent. Each is either another policy, or an input, an output or an answer of the host that
//! is altered on its way; the host asks at the place where that happens.

use draupnir_fsm::limits::Policy;

/// A fault of the agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// All failures are forgotten as soon as a link is ready.
    BackoffResetAtOnce,
    /// The gates open without waiting for a sign that the console listens.
    GatesOpenAtOnce,
    /// The way out has no deadline.
    DrainWithoutDeadline,
    /// The next dial does not wait for the old socket's end to settle.
    RedialsAtOnce,
    /// A dead link is given a minute.
    PatientWithDeadLinks,
    /// Heartbeats come later than promised.
    BeatsTooLate,
    /// The console is never cured of a broken socket.
    NeverResyncs,
    /// A dial that is not answered is waited for.
    DialWithoutDeadline,
    /// The id is not remembered across restarts.
    RegistersAtEveryStart,
    /// `Retry-After` is not believed.
    DoesNotWait,
    /// A Pong of the link before counts.
    AcceptsPongsOfOldLinks,
    /// A Pong acknowledges what was sent after its Ping.
    AcknowledgesPastThePing,
    /// A jump of the clock is not noticed.
    DoesNotSeeJumps,
    /// A socket that takes nothing is not noticed.
    DoesNotSeeStalledWrites,
    /// Heartbeats are ordered and not sent.
    SkipsHeartbeats,
    /// A dead link's socket is not dropped.
    KeepsDeadSockets,
    /// The link is left without a close frame.
    LeavesWithoutGoodbye,
    /// The result of a command is not kept for delivery.
    LosesResults,
    /// A batch is written in the wrong order.
    ReversesBatches,
    /// The ledger hears of more bytes than were cut.
    CountsBytesThatWereNotSent,
    /// A command that is dispatched again runs again.
    RunsRepeats,
    /// It does not report output that it threw away.
    HidesGaps,
    /// The deadline of a Pong outlives its link and fires on the next one.
    KeepsStaleTimers,
    /// A session that is one too many is opened all the same.
    AdmitsTooMany,
    /// A command runs again when its result is asked for again.
    RunsRepeatsOfResults,
    /// A snapshot for a console that re-attached leaves out a part.
    SkipsOnReattach,
    /// It reports output that it threw away once, and not the next time.
    ReportsOneGap,
    /// A result that the console cannot take is resent for ever: the close codes are not heeded.
    ResendsPoison,
    /// It registers although the id that it is configured with is the console's own.
    RegistersDeployedIds,
    /// It registers under its host name, even where an id is configured.
    RegistersHostNames,
    /// It does not report that another agent has its id.
    HidesSharedId,
    /// The production console is sent the provider as it is configured.
    SendsConfiguredProvider,
    /// It takes a registration that the console accepted for a failure, and registers again at once.
    RegistersWithoutWait,
    /// Records are reported before they are written.
    ReportsUnwritten,
    /// The ids that the journal holds are not read after a death.
    ForgetsJournaledIds,
    /// The messages that the journal holds are not read after a death.
    LosesJournaledMessages,
    /// A command whose result the journal holds is taken for one that was interrupted.
    InterruptsEndedCommands,
    /// A usage record is kept for a batch that never goes.
    ForgetsUsage,
    /// The port is probed without a pause.
    ProbesPortAtOnce,
    /// A refusal by a proxy is taken for one by the console, and the port is probed.
    ProbesPortOfProxy,
    /// A dial that fails at an open port does not end the probes.
    ProbesPortAgain,
    /// A line of a log that was read and not sent when the link was lost is not read again.
    ForgetsUnsentLogs,
    /// The position in a log moves when a line is sent, not when the console has it.
    MovesLogsWhenSent,
    /// A buffer is given back with bytes that the console may still need.
    GivesBackTooMuch,
    /// A hand-over gives no session.
    ForgetsSessions,
    /// A hand-over gives sessions from their first byte on, as if the console had nothing.
    RepeatsBytes,
    /// A hand-over gives no message that waits for the console.
    ForgetsLedger,
    /// A hand-over does not give which commands ran.
    ForgetsCommandIds,
    /// A hand-over gives a command that runs as one that waits.
    RunsAgain,
    /// A hand-over does not give how long to wait.
    ForgetsWaits,
    /// A panic counts the scrollback that it lost as delivered.
    HidesLostScrollback,
    /// Something that was held to be impossible is not: it panics.
    Panics,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 52] = [
        Self::BackoffResetAtOnce,
        Self::GatesOpenAtOnce,
        Self::DrainWithoutDeadline,
        Self::RedialsAtOnce,
        Self::PatientWithDeadLinks,
        Self::BeatsTooLate,
        Self::NeverResyncs,
        Self::DialWithoutDeadline,
        Self::RegistersAtEveryStart,
        Self::DoesNotWait,
        Self::AcceptsPongsOfOldLinks,
        Self::AcknowledgesPastThePing,
        Self::DoesNotSeeJumps,
        Self::DoesNotSeeStalledWrites,
        Self::SkipsHeartbeats,
        Self::KeepsDeadSockets,
        Self::LeavesWithoutGoodbye,
        Self::LosesResults,
        Self::ReversesBatches,
        Self::CountsBytesThatWereNotSent,
        Self::RunsRepeats,
        Self::HidesGaps,
        Self::KeepsStaleTimers,
        Self::AdmitsTooMany,
        Self::RunsRepeatsOfResults,
        Self::SkipsOnReattach,
        Self::ReportsOneGap,
        Self::ResendsPoison,
        Self::RegistersDeployedIds,
        Self::RegistersHostNames,
        Self::HidesSharedId,
        Self::SendsConfiguredProvider,
        Self::RegistersWithoutWait,
        Self::ReportsUnwritten,
        Self::ForgetsJournaledIds,
        Self::LosesJournaledMessages,
        Self::InterruptsEndedCommands,
        Self::ForgetsUsage,
        Self::ProbesPortAtOnce,
        Self::ProbesPortOfProxy,
        Self::ProbesPortAgain,
        Self::ForgetsUnsentLogs,
        Self::MovesLogsWhenSent,
        Self::GivesBackTooMuch,
        Self::ForgetsSessions,
        Self::RepeatsBytes,
        Self::ForgetsLedger,
        Self::ForgetsCommandIds,
        Self::RunsAgain,
        Self::ForgetsWaits,
        Self::HidesLostScrollback,
        Self::Panics,
    ];

    /// The one that is called so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name)
    }

    /// The policy of an agent with this fault.
    pub fn policy(fault: Option<Self>) -> Policy {
        /// Longer than any world lasts, and small enough to be added to.
        const NEVER_MS: u64 = 1 << 40;
        let mut policy = Policy::default();
        match fault {
            Some(Self::BackoffResetAtOnce) => policy.stable_ms = 0,
            Some(Self::GatesOpenAtOnce) => (policy.state_gate_ms, policy.all_gate_ms) = (0, 0),
            Some(Self::DrainWithoutDeadline) => {
                (policy.drain_close_ms, policy.drain_exit_ms) = (NEVER_MS, NEVER_MS);
            }
            Some(Self::RedialsAtOnce) => policy.redial_gap_ms = 0,
            Some(Self::PatientWithDeadLinks) => policy.pong_ms = 60_000,
            Some(Self::BeatsTooLate) => policy.interval_percent = (100, 110),
            Some(Self::NeverResyncs) => policy.resync_ms = NEVER_MS,
            Some(Self::DialWithoutDeadline) => policy.dial_ms = NEVER_MS,
            Some(Self::DoesNotWait) => policy.retry_after_max_ms = 1_000,
            Some(Self::ProbesPortAtOnce) => policy.port_probe_every_ms = (0, 0),
            Some(Self::RegistersWithoutWait) => policy.retry_cap_ms = 0,
            Some(_) | None => {}
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_agent_has_the_production_policy() {
        assert_eq!(Planted::policy(None), Policy::default());
        assert_ne!(Planted::policy(Some(Planted::RedialsAtOnce)), Policy::default());
    }
}
