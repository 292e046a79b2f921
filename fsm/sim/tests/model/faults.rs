//! Which deliberate faults a model must reject, and why it cannot see the others.

use crate::setting::Part;
use draupnir_sim::planted::Planted;

/// Those that break a rule of the model, with the part in which they do. The first are found soonest.
pub(crate) const REJECTED: [(Planted, Part); 13] = [
    (Planted::DrainWithoutDeadline, Part::Delivery),
    (Planted::RedialsAtOnce, Part::Connection),
    (Planted::PatientWithDeadLinks, Part::Connection),
    (Planted::DialWithoutDeadline, Part::Connection),
    (Planted::AcceptsPongsOfOldLinks, Part::Delivery),
    (Planted::AcknowledgesPastThePing, Part::Delivery),
    (Planted::DoesNotSeeStalledWrites, Part::Delivery),
    (Planted::KeepsDeadSockets, Part::Connection),
    (Planted::LosesResults, Part::Delivery),
    (Planted::ReversesBatches, Part::Delivery),
    (Planted::CountsBytesThatWereNotSent, Part::Delivery),
    (Planted::GatesOpenAtOnce, Part::Delivery),
    (Planted::ProbesPortAtOnce, Part::Connection),
];

/// Why a model does not see the others.
const WAITS: &str =
    "it shortens or lengthens a wait within the bound; how long each wait is, no rule of the model says";
const HEARTBEATS: &str = "no heartbeat falls due in the model";
const LIVES: &str = "the model has one process, and it keeps no journal";
const ROWS: &str = "the console of the model keeps no rows, and takes every name and provider";
const ROUTING: &str = "the console of the model never loses its routing";
const COMMANDS: &str = "the model has no command";
const SESSIONS: &str = "the model has one session, to which no console attaches again";
const GAPS: &str = "the scrollback of the model is never too short";
const POISON: &str = "the console of the model can take every message";
const CLOCKS: &str = "a jump of the clock is an input of the model; the clocks themselves are not read";
const HEALTHY: &str = "it drops a healthy link, and is back within the bound";
const GOODBYE: &str = "how a link is closed, no rule of the model says";
const USAGE: &str = "the model has no usage record";
const LOGS: &str = "the model follows no log";
const PORT: &str = "what it hears of the port is false; the observer of the model hears the same";
const PANICS: &str = "a panic ends the checker itself";

/// The others, with the reason.
pub(crate) const OUT_OF_REACH: [(Planted, &str); 39] = [
    (Planted::BackoffResetAtOnce, WAITS),
    (Planted::DoesNotWait, WAITS),
    (Planted::RegistersWithoutWait, WAITS),
    (Planted::BeatsTooLate, HEARTBEATS),
    (Planted::SkipsHeartbeats, HEARTBEATS),
    (Planted::NeverResyncs, ROUTING),
    (Planted::RegistersAtEveryStart, LIVES),
    (Planted::ReportsUnwritten, LIVES),
    (Planted::ForgetsJournaledIds, LIVES),
    (Planted::LosesJournaledMessages, LIVES),
    (Planted::InterruptsEndedCommands, LIVES),
    (Planted::ForgetsSessions, LIVES),
    (Planted::RepeatsBytes, LIVES),
    (Planted::ForgetsLedger, LIVES),
    (Planted::ForgetsCommandIds, LIVES),
    (Planted::RunsAgain, LIVES),
    (Planted::ForgetsWaits, LIVES),
    (Planted::HidesLostScrollback, LIVES),
    (Planted::RegistersDeployedIds, ROWS),
    (Planted::RegistersHostNames, ROWS),
    (Planted::HidesSharedId, ROWS),
    (Planted::SendsConfiguredProvider, ROWS),
    (Planted::RunsRepeats, COMMANDS),
    (Planted::RunsRepeatsOfResults, COMMANDS),
    (Planted::AdmitsTooMany, SESSIONS),
    (Planted::SkipsOnReattach, SESSIONS),
    (Planted::HidesGaps, GAPS),
    (Planted::ReportsOneGap, GAPS),
    (Planted::GivesBackTooMuch, GAPS),
    (Planted::ResendsPoison, POISON),
    (Planted::DoesNotSeeJumps, CLOCKS),
    (Planted::KeepsStaleTimers, HEALTHY),
    (Planted::LeavesWithoutGoodbye, GOODBYE),
    (Planted::ForgetsUsage, USAGE),
    (Planted::ForgetsUnsentLogs, LOGS),
    (Planted::MovesLogsWhenSent, LOGS),
    (Planted::ProbesPortOfProxy, PORT),
    (Planted::ProbesPortAgain, PORT),
    (Planted::Panics, PANICS),
];
