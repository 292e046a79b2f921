//! The rules that every world must keep, and how a violation of one reads.
//!
//! It checks nothing; the checks stand where what they look at happens.

use crate::panics::Panic;
use draupnir_fsm::driver::{LinkId, SessionKey, SessionRefusal, StreamKey};
use draupnir_fsm::machine::invariants;
use std::fmt;
use std::mem::discriminant;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The machine did what it must never do.
    Machine(invariants::InvariantViolation),
    /// A frame was written to a link that was not up.
    WrittenToNoLink(LinkId),
    /// A frame was written before its gate was open.
    WrittenBeforeItsGate(LinkId),
    /// A gate opened before the first message and before its time.
    GateTooEarly(LinkId),
    /// A message counts as delivered that the console does not have.
    AcknowledgedUnread(u32),
    /// Bytes of a stream count as delivered that the console does not have.
    BytesAcknowledgedUnread(StreamKey),
    /// A buffer was given back with bytes that the console may still need.
    GaveBackTooMuch(SessionKey),
    /// A message is no longer kept though the console does not have it and no loss was reported.
    Forgotten(u32),
    /// A message arrived for the first time after one that was pushed later.
    OutOfOrder(u32),
    /// A message was sent twice on one link without a request.
    SentTwice(u32),
    /// The end of a stream was reported before its last bytes.
    EndBeforeBytes(u32),
    /// Bytes of a stream are missing and no gap was reported.
    Hole(StreamKey),
    /// More is kept or under way than its bound permits.
    OverItsBound(&'static str),
    /// A message was dropped as poison before three links in a row had ended over it.
    InnocentMessage,
    /// More dials or registrations in a minute than any policy would make.
    TooManyAttempts(&'static str),
    /// A probe of the port although the console had not just refused the connection, or beside a link.
    NeedlessPortProbe,
    /// A registration although the console had given an id and not taken it back.
    NeedlessRegistration,
    /// A registration overwrote the fields of a row that Mimir had made.
    RowDamaged,
    /// A registration made a second row beside one in ERROR that the agent could have gone on with.
    RowDoubled,
    /// A registration made another row although the agent's own was in use.
    GhostRow,
    /// Two machines of which each has an id of its own share a row.
    RowShared,
    /// Another connection took this one's place again and again, and no error was reported.
    SharedSilently,
    /// The console does not know the provider, by the name that it was sent.
    ProviderRefused(Option<&'static str>),
    /// An attempt sooner than the console had asked, or than its row of the policy permits.
    TooSoon(&'static str),
    /// A dial while the world still has an open socket of ours.
    SecondSocket(LinkId),
    /// A link was dead for longer than a Ping and its answer may take.
    DeadLinkKept(LinkId),
    /// A link that nothing was wrong with was dropped.
    HealthyLinkDropped(LinkId),
    /// A deadline fired on time during which the process did not run.
    DeadlineOnJump(&'static str),
    /// A resync that nothing had made necessary.
    NeedlessResync,
    /// The loop would run on without time passing.
    Spins,
    /// The loop woke too often for nothing.
    Busy,
    /// A heartbeat came later than promised.
    HeartbeatLate,
    /// A command was started twice.
    StartedTwice(u32),
    /// A dispatch was never answered.
    Unanswered(u32),
    /// The network was calm, and no link was ready in time.
    NotReady,
    /// The link was ready, and what waited was not delivered in time.
    NotDelivered,
    /// The link was ready, and the console could not reach the agent through it.
    Unreachable,
    /// A calm link did not last.
    CalmLinkLost,
    /// The process did not leave in time.
    ExitOverdue,
    /// A drain over a good link lost something, or did not say goodbye.
    UncleanExit,
    /// The world did not come to an end.
    Endless,
    /// A session or command was ordered about that the driver had no business with: forgotten, unknown, or running.
    ForgottenOrdered(&'static str),
    /// A terminal was refused for a reason that did not hold.
    WronglyRefused(SessionRefusal),
    /// A `terminal:create` was neither followed nor answered.
    CreateUnanswered(u32),
    /// Input was typed into another session than the one it was for, or was not asked for.
    InputMisrouted,
    /// A part of a snapshot is missing.
    SnapshotSkips(StreamKey),
    /// A snapshot was made while the one before was on its way.
    SnapshotTooSoon(StreamKey),
    /// Something was opened or started before its audit line was written.
    Unaudited,
    /// Something waited for its audit line for longer than it may.
    AuditOverdue,
    /// A command started whose record was not written, in a world with a journal.
    StartedUnrecorded(u32),
    /// A message was written to a link whose record was not written, in a world with a journal.
    SentUnrecorded(u32),
    /// The shorter form of a message was recorded with another id than the message.
    CutRecordDiffers(u64),
    /// The console has two different results of one command.
    TwoResults(u32),
    /// A sync came too late, or too soon after the one before.
    SyncOutOfTime,
    /// A batch of no usage records, of too many, or of more than wait.
    WrongBatch(u32),
    /// A usage record waited for longer than its interval.
    UsageOverdue,
    /// Lines of a log are missing.
    LogHole,
    /// Lines of a log went to a console that had not asked on that link.
    LogsUnasked(LinkId),
    /// Lines of a log count as delivered that the console does not have.
    LogsAcknowledgedUnread,
    /// A message that the console cannot take was sent to it again and again.
    PoisonResent(u32),
    /// A hand-over cost something: a session, a command, a link, or the time until the next one.
    HandOverLost(&'static str),
    /// Bytes of a stream were sent again that count as delivered.
    SentAgain(StreamKey),
    /// The driver panicked, or what looks after it.
    Panicked(Panic),
}

impl Violation {
    /// Is it the same rule that was broken, or the same panic? Which link or message it was about may differ.
    pub fn is_like(&self, other: &Self) -> bool {
        if let (Self::Machine(one), Self::Machine(other)) = (self, other) {
            return discriminant(one) == discriminant(other);
        }
        if let (Self::Panicked(one), Self::Panicked(other)) = (self, other) {
            return one.at == other.at;
        }
        discriminant(self) == discriminant(other)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
