//! What a seed makes of the world: which faults it knows, how often they strike, how fast its network is.
//!
//! It applies nothing. Each seed switches some faults off entirely (a swarm), because faults hide each other: a link
//! that is reset every ten seconds never lives long enough for a stall to be noticed. All durations are milliseconds.

use draupnir_fsm::limits::Policy;
use draupnir_fsm::random::Random;

/// What may go wrong, one line each that says what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Nothing listens: the dial is refused at once.
    DialRefused,
    /// The name cannot be resolved, after a while.
    DialUnresolved,
    /// The proxy refuses.
    DialProxy,
    /// The certificate is no good.
    DialTls,
    /// The peer does not speak HTTP.
    DialProtocol,
    /// The answer to the dial takes seconds.
    DialSlow,
    /// The dial is never answered.
    DialHangs,
    /// The upgrade is answered 503, perhaps with `Retry-After`.
    DialBusy,
    /// The upgrade is answered 401.
    DialUnauthorized,
    /// A registration is answered 401 or 403.
    RegisterRefused,
    /// The path of a registration is not served.
    RegisterElsewhere,
    /// A registration is answered 409: known already.
    RegisterKnown,
    /// A registration is answered 422.
    RegisterUnprocessable,
    /// A registration is answered 400 or another refusal.
    RegisterRejected,
    /// A registration is answered 429 with `Retry-After`.
    RegisterLimited,
    /// A registration is answered 500 or 503.
    RegisterBroken,
    /// A registration is answered with a redirect.
    RegisterRedirected,
    /// A registration is never answered.
    RegisterHangs,
    /// A registration breaks off.
    RegisterReset,
    /// The link is reset, in the middle of what is under way.
    Reset,
    /// The link ends without a close frame.
    Eof,
    /// The console breaks the protocol, or sends what is too big.
    Garbage,
    /// The agent's socket breaks and the console hears nothing of it.
    OneSidedReset,
    /// Nothing passes any more, either way, and neither side hears of it.
    StallForEver,
    /// Nothing passes for some seconds.
    StallBriefly,
    /// The link takes a few bytes a millisecond.
    SlowLink,
    /// Everything takes up to two seconds to arrive.
    LongDelay,
    /// The console closes with any code.
    CloseCodes,
    /// Another connection takes our place.
    Replaced,
    /// The console forgets the instance: close 1008.
    Forgotten,
    /// The key is refused after the upgrade: close 1008.
    KeyRefused,
    /// The console restarts: it closes, or breaks, everything and is away for a while.
    Restart,
    /// The console greets seconds after the upgrade.
    GreetsLate,
    /// The console never greets.
    GreetsNever,
    /// The console answers only the newest of several Pings.
    PongsSkipped,
    /// The console answers a Ping twice.
    PongsRepeated,
    /// The console sends Pongs that answer nothing.
    PongsForeign,
    /// The console repeats Pongs of the link before.
    PongsOfOldLinks,
    /// The console stops answering Pings.
    PongsSwallowed,
    /// The console cannot take some results: it closes the link over each, every time.
    Poison,
    /// The socket is gone late, or its end is not reported.
    ClosesLate,
    /// The process is stopped for a while.
    Freeze,
    /// The machine sleeps.
    Suspend,
    /// The real-time clock is set.
    ClockStep,
    /// The process gets SIGTERM and is started again.
    Shutdown,
    /// The process vanishes and is started again.
    Crash,
    /// Much is printed.
    BulkOutput,
    /// The console dispatches the same command again.
    RepeatedDispatch,
    /// Commands ignore SIGTERM.
    StubbornCommands,
    /// The console re-attaches to a session, or opens it again right after it closed it.
    Reattach,
    /// More sessions, or more commands, are asked for at once than there may be.
    Crowd,
    /// A shell or a command takes seconds to start.
    StartsSlowly,
    /// A shell cannot be started.
    StartsFail,
    /// An audit line takes seconds to be written.
    AuditSlow,
    /// An audit line cannot be written.
    AuditFails,
    /// Nothing is heard of an audit line.
    AuditHangs,
    /// A container is recreated without its state directory, under another host name.
    Recreated,
    /// Another machine of the same host name runs an agent.
    Twin,
    /// A record takes seconds to be written.
    JournalSlow,
    /// A record cannot be written.
    JournalFails,
    /// Nothing is heard of a record.
    JournalHangs,
    /// Some addresses refuse the dial, and no route leads to another.
    DialUnreachable,
    /// An operator asks for a hand-over.
    HandOver,
    /// The program panics, and starts again in the same process.
    PanicRestart,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 64] = [
        Self::DialRefused,
        Self::DialUnresolved,
        Self::DialProxy,
        Self::DialTls,
        Self::DialProtocol,
        Self::DialSlow,
        Self::DialHangs,
        Self::DialBusy,
        Self::DialUnauthorized,
        Self::RegisterRefused,
        Self::RegisterElsewhere,
        Self::RegisterKnown,
        Self::RegisterUnprocessable,
        Self::RegisterRejected,
        Self::RegisterLimited,
        Self::RegisterBroken,
        Self::RegisterRedirected,
        Self::RegisterHangs,
        Self::RegisterReset,
        Self::Reset,
        Self::Eof,
        Self::Garbage,
        Self::OneSidedReset,
        Self::StallForEver,
        Self::StallBriefly,
        Self::SlowLink,
        Self::LongDelay,
        Self::CloseCodes,
        Self::Replaced,
        Self::Forgotten,
        Self::KeyRefused,
        Self::Restart,
        Self::GreetsLate,
        Self::GreetsNever,
        Self::PongsSkipped,
        Self::PongsRepeated,
        Self::PongsForeign,
        Self::PongsOfOldLinks,
        Self::PongsSwallowed,
        Self::Poison,
        Self::ClosesLate,
        Self::Freeze,
        Self::Suspend,
        Self::ClockStep,
        Self::Shutdown,
        Self::Crash,
        Self::BulkOutput,
        Self::RepeatedDispatch,
        Self::StubbornCommands,
        Self::Reattach,
        Self::Crowd,
        Self::StartsSlowly,
        Self::StartsFail,
        Self::AuditSlow,
        Self::AuditFails,
        Self::AuditHangs,
        Self::Recreated,
        Self::Twin,
        Self::JournalSlow,
        Self::JournalFails,
        Self::JournalHangs,
        Self::DialUnreachable,
        Self::HandOver,
        Self::PanicRestart,
    ];

    /// What a dial may meet.
    pub(crate) const DIALS: [Self; 10] = [
        Self::DialRefused,
        Self::DialUnreachable,
        Self::DialUnresolved,
        Self::DialProxy,
        Self::DialTls,
        Self::DialProtocol,
        Self::DialSlow,
        Self::DialHangs,
        Self::DialBusy,
        Self::DialUnauthorized,
    ];

    /// What a probe of the port may meet.
    pub(crate) const PORT_PROBES: [Self; 3] = [Self::DialRefused, Self::DialUnreachable, Self::DialHangs];

    /// What a registration may meet.
    pub(crate) const REGISTRATIONS: [Self; 10] = [
        Self::RegisterRefused,
        Self::RegisterElsewhere,
        Self::RegisterKnown,
        Self::RegisterUnprocessable,
        Self::RegisterRejected,
        Self::RegisterLimited,
        Self::RegisterBroken,
        Self::RegisterRedirected,
        Self::RegisterHangs,
        Self::RegisterReset,
    ];

    /// What strikes by itself, at a moment of the storm.
    pub(crate) const INJECTED: [Self; 23] = [
        Self::Reset,
        Self::Eof,
        Self::Garbage,
        Self::OneSidedReset,
        Self::StallForEver,
        Self::StallBriefly,
        Self::SlowLink,
        Self::CloseCodes,
        Self::Replaced,
        Self::Forgotten,
        Self::KeyRefused,
        Self::Restart,
        Self::PongsSwallowed,
        Self::PongsForeign,
        Self::Freeze,
        Self::Suspend,
        Self::ClockStep,
        Self::Shutdown,
        Self::Crash,
        Self::Recreated,
        Self::Twin,
        Self::HandOver,
        Self::PanicRestart,
    ];
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u64);

impl Faults {
    /// The faults whose places in [`Fault::ALL`] are those of the bits that are set; the others mean nothing.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & (u64::MAX >> (u64::BITS as usize - Fault::ALL.len())))
    }

    /// Is this one of them?
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u8) != 0
    }

    /// Adds one.
    pub const fn add(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u8;
    }

    /// The set without one.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u8))
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

/// What stands in `SINDRI_INSTANCE_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceId {
    /// Nothing: the host name takes its place.
    Unset,
    /// A name that the operator chose.
    Named,
    /// The id of the row that Mimir made when it deployed the instance.
    Deployed,
    /// The same, while that row is in ERROR.
    DeployedInError,
    /// The same, after that row was deleted.
    DeployedAndDeleted,
}

impl InstanceId {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Unset, Self::Named, Self::Deployed, Self::DeployedInError, Self::DeployedAndDeleted];

    /// Whether Mimir has a row of that id.
    pub(crate) const fn is_deployed(self) -> bool {
        match self {
            Self::Deployed | Self::DeployedInError => true,
            Self::Unset | Self::Named | Self::DeployedAndDeleted => false,
        }
    }
}

/// What `SINDRI_PROVIDER` may be: names that Mimir knows, and others.
pub const PROVIDERS: [Option<&str>; 6] = [Some("fly"), Some("k8s"), Some("docker"), Some("ssh"), Some("hetzner"), None];

/// Which terminals the users of a world open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminals {
    /// Three in all, of which some exit within a minute.
    Few,
    /// One after the other.
    OneAtATime {
        /// How long each is open at the most, in milliseconds.
        open_ms_max: u64,
    },
}

/// One world, as its seed has it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all of it follows from.
    pub seed: u64,
    /// The faults that this world knows.
    pub faults: Faults,
    /// How long the storm lasts.
    pub storm_ms: u64,
    /// A fault strikes within this, each time again.
    pub fault_every_ms: u64,
    /// How often, in percent, a dial, a registration or a frame meets a fault that waits for it.
    pub percent: u64,
    /// One way through the network, at least.
    pub latency_ms: u64,
    /// What the network takes in a millisecond.
    pub bytes_per_ms: u64,
    /// The agent knows an id when it starts, from an earlier life.
    pub remembered: bool,
    /// The console serves the second path only, greets, and loses the routing of a socket that broke (CONSOLE.md, "The
    /// WebSocket").
    pub production: bool,
    /// What the operator, or Mimir, configured as the instance's id.
    pub instance_id: InstanceId,
    /// What the operator configured as its provider.
    pub provider: Option<&'static str>,
    /// Something is dispatched within this, each time again.
    pub work_ms: u64,
    /// At the end the agent gets SIGTERM, and the way out is checked.
    pub drains: bool,
    /// Nothing is opened or started before its audit line is written.
    pub audited: bool,
    /// Which terminals there are.
    pub terminals: Terminals,
    /// How long a resync waits for terminals at the most.
    pub resync_wait_max_ms: u64,
    /// There is a journal: what it holds outlives the process.
    pub journaled: bool,
    /// What goes wrong when, in place of the generator: the storm takes its decisions from here, and is over when none
    /// are left. Empty in a world of a seed.
    pub script: Vec<u8>,
}

/// Drawn last, so that worlds without them stay as they were.
const DRAWN_LAST: [Fault; 2] = [Fault::HandOver, Fault::PanicRestart];

/// A crowd is so much rarer than other faults: hundreds of sessions or commands make a world slow.
const CROWDED_SHARE: u64 = 6;

impl Plan {
    /// Whether the console asks for logs: in a third of the worlds with a journal, without a draw, so that the others
    /// stay as they were.
    pub(crate) const fn has_logs(&self) -> bool {
        self.journaled && self.seed.is_multiple_of(3)
    }

    /// The world of a seed.
    pub fn of(seed: u64) -> Self {
        // Neighbouring seeds must not be neighbouring worlds.
        let mut random = Random::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5EED);
        let mut faults = Faults::default();
        let share = [8, 25, 50, 75][pick(&mut random, 4)];
        for fault in Fault::ALL.into_iter().filter(|fault| !DRAWN_LAST.contains(fault)) {
            let share = if fault == Fault::Crowd { share / CROWDED_SHARE } else { share };
            if random.between(1, 100) <= share {
                faults.add(fault);
            }
        }
        let mut plan = Self {
            seed,
            faults,
            storm_ms: random.between(300_000, 780_000),
            fault_every_ms: [8_000, 30_000, 60_000, 120_000][pick(&mut random, 4)],
            percent: [5, 20, 50][pick(&mut random, 3)],
            latency_ms: [0, 1, 20, 150][pick(&mut random, 4)],
            bytes_per_ms: [50_000, 5_000, 500][pick(&mut random, 3)],
            remembered: random.between(0, 1) == 0,
            production: random.between(0, 1) == 0,
            work_ms: [4_000, 20_000, 60_000][pick(&mut random, 3)],
            drains: random.between(0, 3) == 0,
            audited: random.between(0, 3) == 0,
            instance_id: InstanceId::ALL[pick(&mut random, InstanceId::ALL.len())],
            provider: PROVIDERS[pick(&mut random, PROVIDERS.len())],
            terminals: Terminals::Few,
            resync_wait_max_ms: Policy::default().resync_wait_max_ms,
            journaled: random.between(0, 3) != 0,
            script: Vec::new(),
        };
        for fault in DRAWN_LAST {
            if random.between(1, 100) <= share {
                plan.faults.add(fault);
            }
        }
        plan
    }
}

/// A place in a list of `length` entries.
fn pick(random: &mut Random, length: usize) -> usize {
    let last = u64::try_from(length).unwrap_or(1).saturating_sub(1);
    usize::try_from(random.between(0, last)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed_once() {
        let mut all = Faults::default();
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place);
            assert!(!all.has(fault));
            all.add(fault);
        }
        assert_eq!(all.iter().count(), Fault::ALL.len());
        assert_eq!(Faults::from_bits(u64::MAX), all);
        assert!(!all.without(Fault::Reset).has(Fault::Reset));
    }

    #[test]
    fn seed_always_has_the_same_world() {
        assert_eq!(format!("{:?}", Plan::of(7)), format!("{:?}", Plan::of(7)));
        assert_ne!(Plan::of(7).faults, Plan::of(8).faults);
        let kinds: std::collections::BTreeSet<u32> =
            (0..200).map(|seed| Plan::of(seed).faults.0.count_ones()).collect();
        assert!(kinds.len() > 20, "{kinds:?}");
    }
}
