//! What an agent may do when: the reference beside the machine, written independently of it.
//!
//! It knows facts, orders and the policy's table, not the machine. It says only what must never be: an attempt before
//! its time, an attempt too many, a registration without a cause. All times are the agent's own, in milliseconds.

use crate::violation::Violation;
use draupnir_fsm::driver::{CloseReason, CloseText, Failure, Gate, LinkId, Policy, PortState};
use std::collections::VecDeque;

/// More attempts than this in a minute, of either kind, are a flood: by chance alone the waits of the policy, which are
/// 15 s on average once they have grown, give so many once in 10¹⁰ minutes.
const ATTEMPTS_PER_MINUTE_MAX: usize = 20;

/// More probes of the port than this in a minute are a flood: one comes a second after the refusal before it at the
/// soonest.
const PORT_PROBES_PER_MINUTE_MAX: usize = 60;

/// What is remembered of one process, and of the link that is up.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    policy: Policy,
    may_register: bool,
    not_before: Option<(u64, &'static str)>,
    refusals: u32,
    replacements: u32,
    dials: VecDeque<u64>,
    registrations: VecDeque<u64>,
    port_probes: VecDeque<u64>,
    /// The last dial, or the last probe after it, found that every address of the console refuses the connection.
    is_refused: bool,
    /// Probes of the port since a link was ready for long enough to forget failures.
    port_probes_spent: u32,
    /// The link that is up.
    pub(crate) live: Option<LinkId>,
    opened_ms: u64,
    greeted: bool,
    pub(crate) gate: Option<Gate>,
    ready_ms: Option<u64>,
    /// When a link last ended without a close handshake, where no resync has cured the console of it.
    unclean_ms: Option<u64>,
    /// The link that is closing was closed for a resync.
    resyncing: bool,
    /// Resyncs in a row that were not answered; at the policy's bound the agent gives up curing the console.
    resyncs_unheard: u8,
    pub(crate) gave_up_resync: bool,
    pub(crate) beat_ms: Option<u64>,
    /// When the clock last jumped.
    pub(crate) jumped_ms: u64,
    /// When it got SIGTERM.
    pub(crate) drains_since_ms: Option<u64>,
    /// Links in a row that ended with a code that blames a message.
    pub(crate) rejecting_links: u32,
    /// When another connection last took the place of this one.
    replaced_ms: Option<u64>,
    /// That happened twice within the policy's window, so that two agents share the id.
    is_shared: bool,
    /// It was reported.
    pub(crate) reported_shared: bool,
    /// A link was closed for a hand-over, and no program has dialled since.
    handed_over: bool,
    /// By when the next dial must come.
    dial_due_ms: Option<u64>,
}

impl Rules {
    pub(crate) fn new(remembered: bool) -> Self {
        Self {
            policy: Policy::default(),
            may_register: !remembered,
            not_before: None,
            refusals: 0,
            replacements: 0,
            dials: VecDeque::new(),
            registrations: VecDeque::new(),
            port_probes: VecDeque::new(),
            is_refused: false,
            port_probes_spent: 0,
            live: None,
            opened_ms: 0,
            greeted: false,
            gate: None,
            ready_ms: None,
            unclean_ms: None,
            resyncing: false,
            resyncs_unheard: 0,
            gave_up_resync: false,
            beat_ms: None,
            jumped_ms: 0,
            drains_since_ms: None,
            rejecting_links: 0,
            replaced_ms: None,
            is_shared: false,
            reported_shared: false,
            handed_over: false,
            dial_due_ms: None,
        }
    }

    pub(crate) fn registers(&mut self, now_ms: u64) -> Result<(), Violation> {
        if !self.may_register {
            return Err(Violation::NeedlessRegistration);
        }
        self.attempt(now_ms, "registrations", |rules| &mut rules.registrations)
    }

    pub(crate) fn dials(&mut self, now_ms: u64) -> Result<(), Violation> {
        (self.handed_over, self.dial_due_ms) = (false, None);
        self.attempt(now_ms, "dials", |rules| &mut rules.dials)
    }

    fn attempt(
        &mut self,
        now_ms: u64,
        what: &'static str,
        list: impl Fn(&mut Self) -> &mut VecDeque<u64>,
    ) -> Result<(), Violation> {
        if let Some((_, row)) = self.not_before.take_if(|(not_before_ms, _)| now_ms < *not_before_ms) {
            return Err(Violation::TooSoon(row));
        }
        self.not_before = None;
        let attempts = count_in_minute(list(self), now_ms);
        if attempts > ATTEMPTS_PER_MINUTE_MAX { Err(Violation::TooManyAttempts(what)) } else { Ok(()) }
    }

    /// The agent probes the console's port.
    pub(crate) fn probes_port(&mut self, now_ms: u64) -> Result<(), Violation> {
        let is_refused = std::mem::take(&mut self.is_refused);
        self.port_probes_spent += 1;
        let probes = count_in_minute(&mut self.port_probes, now_ms);
        if !is_refused || self.live.is_some() {
            Err(Violation::NeedlessPortProbe)
        } else if probes > PORT_PROBES_PER_MINUTE_MAX || self.port_probes_spent > self.policy.port_probes_max {
            Err(Violation::TooManyAttempts("probes of the port"))
        } else {
            Ok(())
        }
    }

    /// A probe of the port ended; an open port ends all probing until a link was stable.
    pub(crate) fn port_probed(&mut self, found: PortState) {
        self.is_refused = found == PortState::Refused;
        if found == PortState::Open {
            self.port_probes_spent = self.policy.port_probes_max;
        }
    }

    pub(crate) fn answered(&mut self, now_ms: u64, status: u16, retry_after_ms: Option<u64>) {
        match status {
            200..=299 | 409 => self.may_register = false,
            401 | 403 => self.refused(now_ms),
            300..=399 | 408 | 425 | 429 | 500..=599 => self.asked_to_wait(now_ms, retry_after_ms),
            _ => {}
        }
    }

    pub(crate) fn dial_failed(&mut self, now_ms: u64, cause: Failure, retry_after_ms: Option<u64>) {
        self.is_refused = cause == Failure::Refused;
        if cause == Failure::Unauthorized {
            self.refused(now_ms);
        } else {
            self.asked_to_wait(now_ms, retry_after_ms);
        }
    }

    fn refused(&mut self, now_ms: u64) {
        let wait_ms = doubled(self.policy.refused_base_ms, self.refusals, self.policy.slow_cap_ms);
        self.refusals += 1;
        self.not_before = Some((now_ms + wait_ms / 2, "refused key"));
    }

    fn asked_to_wait(&mut self, now_ms: u64, retry_after_ms: Option<u64>) {
        let asked_ms = retry_after_ms.unwrap_or(0).min(self.policy.retry_after_max_ms);
        if asked_ms >= self.policy.retry_after_min_ms {
            self.not_before = Some((now_ms + asked_ms, "Retry-After"));
        }
    }

    pub(crate) fn opened(&mut self, now_ms: u64, link: LinkId) {
        self.live = Some(link);
        (self.resyncing, self.is_refused) = (false, false);
        self.opened_ms = now_ms;
        self.greeted = false;
        self.gate = None;
        self.ready_ms = None;
        self.beat_ms = None;
    }

    pub(crate) fn greeted(&mut self) {
        self.greeted = true;
    }

    pub(crate) fn closed_by_console(
        &mut self,
        now_ms: u64,
        link: LinkId,
        code: u16,
        reason: CloseReason,
    ) -> Result<(), Violation> {
        if self.live != Some(link) {
            return Ok(());
        }
        self.ended(now_ms);
        let forgets_ms = self.policy.resync_ms;
        self.unclean_ms.take_if(|unclean_ms| now_ms - *unclean_ms >= forgets_ms);
        self.rejecting_links = if matches!(code, 1003 | 1007 | 1009) { self.rejecting_links + 1 } else { 0 };
        match (code, reason) {
            (1008, CloseReason::Authentication) => self.refused(now_ms),
            (1001, CloseReason::Replaced) => {
                let wait_ms = doubled(self.policy.replaced_base_ms, self.replacements, self.policy.slow_cap_ms);
                self.replacements += 1;
                self.not_before = Some((now_ms + wait_ms, "replaced"));
                return self.replaced(now_ms);
            }
            _ => {}
        }
        Ok(())
    }

    /// Another connection took this one's place: the second time within the window it is reported at once.
    fn replaced(&mut self, now_ms: u64) -> Result<(), Violation> {
        let is_silent = self.is_shared && !self.reported_shared && self.drains_since_ms.is_none();
        let last_ms = self.replaced_ms.replace(now_ms);
        self.is_shared |= last_ms.is_some_and(|last_ms| now_ms - last_ms <= self.policy.replaced_window_ms);
        if is_silent { Err(Violation::SharedSilently) } else { Ok(()) }
    }

    /// The link broke, or the agent dropped it.
    pub(crate) fn broke(&mut self, now_ms: u64, link: LinkId) {
        if self.live == Some(link) {
            self.ended(now_ms);
            self.unclean_ms = Some(now_ms);
            self.rejecting_links = 0;
        }
    }

    /// Whether the agent may be waiting for a link that answers for a jump of the clock.
    pub(crate) fn is_probing(&self, own_ms: u64) -> bool {
        own_ms.saturating_sub(self.jumped_ms) <= self.policy.probe_ms
    }

    /// The agent resets a socket; the close handshake of a resync was not answered then.
    pub(crate) fn drops(&mut self, now_ms: u64, link: LinkId) {
        if std::mem::take(&mut self.resyncing) {
            self.resyncs_unheard += 1;
            if self.resyncs_unheard < self.policy.resync_tries_max {
                self.unclean_ms = Some(now_ms);
            } else {
                self.resyncs_unheard = 0;
                self.gave_up_resync = true;
            }
        }
        self.broke(now_ms, link);
    }

    /// The socket of a link is gone.
    pub(crate) fn gone(&mut self, now_ms: u64, link: LinkId) {
        if std::mem::take(&mut self.resyncing) {
            self.resyncs_unheard = 0;
        }
        self.broke(now_ms, link);
    }

    /// Another program goes on. It waits as this one would have; ages count from now.
    pub(crate) fn taken_over(&mut self, now_ms: u64) {
        (self.resyncing, self.is_refused, self.rejecting_links) = (false, false, 0);
        self.unclean_ms = self.unclean_ms.map(|_| now_ms);
        self.replaced_ms = self.replaced_ms.map(|_| now_ms);
        self.expect_dial(now_ms, 0);
    }

    /// The hand-over did not happen. The socket that was closed for it may take its time.
    pub(crate) fn hand_over_refused(&mut self, now_ms: u64) {
        self.expect_dial(now_ms, 2 * self.policy.close_ms);
    }

    fn expect_dial(&mut self, now_ms: u64, in_ms: u64) {
        if self.handed_over {
            self.dial_due_ms = Some(now_ms + in_ms + self.policy.redial_gap_ms);
        }
    }

    /// A link that was closed for a hand-over is not dialled again in time. Less than a jump of the clock is not seen.
    pub(crate) fn is_dial_overdue(&self, now_ms: u64) -> bool {
        let has_jumped = |due_ms: u64| self.jumped_ms + self.policy.late_tick_ms >= due_ms;
        self.drains_since_ms.is_none()
            && self.dial_due_ms.is_some_and(|due_ms| now_ms > due_ms + self.policy.late_tick_ms && !has_jumped(due_ms))
    }

    /// A resync is due.
    pub(crate) fn wants_resync(&self) -> bool {
        self.unclean_ms.is_some()
    }

    /// The agent closes a link that is up, to cure the console or to leave.
    pub(crate) fn closes(&mut self, now_ms: u64, reason: CloseText) -> Result<(), Violation> {
        self.handed_over = reason == CloseText::HandOver;
        let needless = !self.handed_over && self.drains_since_ms.is_none() && self.unclean_ms.is_none();
        self.ended(now_ms);
        if !self.handed_over {
            self.unclean_ms = None;
        }
        self.resyncing = true;
        self.rejecting_links = 0;
        if needless { Err(Violation::NeedlessResync) } else { Ok(()) }
    }

    fn ended(&mut self, now_ms: u64) {
        self.live = None;
        // Generous where the machine's own timer stood still for a jump: then its waits are longer, never shorter.
        let ready_ms = self.ready_ms.take().map_or(0, |since_ms| now_ms - since_ms);
        if ready_ms >= self.policy.stable_ms {
            (self.refusals, self.port_probes_spent) = (0, 0);
        }
        if ready_ms >= self.policy.replaced_reset_ms {
            self.replacements = 0;
            (self.replaced_ms, self.is_shared, self.reported_shared) = (None, false, false);
        }
    }

    pub(crate) fn gate_opens(&mut self, now_ms: u64, link: LinkId, gate: Gate) -> Result<(), Violation> {
        let wait_ms = match gate {
            Gate::All if self.drains_since_ms.is_none() => self.policy.all_gate_ms,
            Gate::State | Gate::All => self.policy.state_gate_ms,
        };
        self.gate = self.gate.max(Some(gate));
        if gate == Gate::All && self.drains_since_ms.is_none() {
            self.ready_ms = Some(now_ms);
        }
        let too_early = !self.greeted && now_ms < self.opened_ms + wait_ms;
        if too_early { Err(Violation::GateTooEarly(link)) } else { Ok(()) }
    }

    pub(crate) fn forgets_identity(&mut self) {
        self.may_register = true;
    }
}

/// Adds a moment to those of the last minute; how many there are.
fn count_in_minute(moments: &mut VecDeque<u64>, now_ms: u64) -> usize {
    moments.push_back(now_ms);
    while moments.front().is_some_and(|first| now_ms - first > 60_000) {
        moments.pop_front();
    }
    moments.len()
}

fn doubled(base_ms: u64, times: u32, cap_ms: u64) -> u64 {
    base_ms.saturating_mul(1 << times.min(32)).min(cap_ms)
}
