//! What a model is of: the policy, the work, and the faults that may happen.

use draupnir_fsm::driver::{Policy, Schedule};
use draupnir_sim::planted::Planted;

/// Which part of the driver a model goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Registration, dial, close and drain, without a message to deliver.
    Connection,
    /// Messages and a stream over links that are cut.
    Delivery,
}

/// A model's bounds.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) part: Part,
    pub(crate) policy: Policy,
    /// The policy without the fault.
    pub(crate) sound: Policy,
    pub(crate) planted: Option<Planted>,
    /// Jitter is drawn as the least and as the greatest of its range, or as the least alone.
    pub(crate) draws_both: bool,
}

/// Events that are reported, in a model of the delivery.
pub(crate) const NOTES_MAX: u8 = 2;

/// Frames that the program in the terminal prints.
pub(crate) const FRAMES_MAX: u64 = 3;

/// What is said of the waits: no heartbeat and no metrics fall due by themselves, which would only multiply the states.
pub(crate) const SCHEDULE: Schedule = Schedule { heartbeat_ms: 1 << 40, metrics_ms: 1 << 40, log_lines_per_s: 500 };

/// What `Retry-After` asks for.
pub(crate) const RETRY_AFTER_MS: u64 = 2_000;

/// How long a socket may take nothing, and the slack with which that is looked at.
const STALL_MS: u64 = draupnir_fsm::delivery::WRITE_STALL_MS + 1_000;

impl Setting {
    /// The connection alone, with waits that are short enough to go through all of them.
    pub(crate) fn connection(planted: Option<Planted>) -> Self {
        let (policy, sound) = (short(Planted::policy(planted)), short(Policy::default()));
        Self { part: Part::Connection, policy, sound, planted, draws_both: true }
    }

    /// The connection and the delivery, with the policy that ships.
    pub(crate) fn delivery(planted: Option<Planted>) -> Self {
        let (policy, sound) = (Planted::policy(planted), Policy::default());
        Self { part: Part::Delivery, policy, sound, planted, draws_both: false }
    }

    /// The sound driver, to be recorded.
    pub(crate) fn shipped(part: Part) -> Self {
        let (policy, sound) = (Policy::default(), Policy::default());
        Self { part, policy, sound, planted: None, draws_both: false }
    }

    /// Further back than this no rule looks.
    pub(crate) fn past_ms(&self) -> u64 {
        let Policy { replaced_window_ms, resync_wait_max_ms, resync_ms, resync_proof_ms, .. } = self.policy;
        // The driver notes a Pong once a second, and the ledger looks a second back.
        let own_ms = if self.part == Part::Delivery { STALL_MS } else { 1_000 };
        let longest = [replaced_window_ms, resync_wait_max_ms, resync_ms, resync_proof_ms, own_ms];
        longest.into_iter().fold(0, u64::max) + 1
    }

    /// From so many failures on, the wait of each row of [`Backoff`](draupnir_fsm::backoff::Backoff) is at its cap.
    pub(crate) fn failures_max(&self) -> [u32; 5] {
        let Policy { retry_base_ms, retry_cap_ms, slow_cap_ms, .. } = self.policy;
        let Policy { refused_base_ms, unknown_base_ms, replaced_base_ms, .. } = self.policy;
        let doublings = |base_ms: u64, cap_ms: u64| (0..64).find(|times| base_ms << times >= cap_ms).unwrap_or(64);
        // A wait after a loss counts as one more than it doubles.
        [
            doublings(retry_base_ms.max(1), retry_cap_ms) + 1,
            doublings(refused_base_ms, slow_cap_ms),
            doublings(unknown_base_ms, slow_cap_ms),
            doublings(replaced_base_ms, slow_cap_ms),
            self.policy.port_probes_max,
        ]
    }

    /// Once faults end, the agent is connected and has delivered everything, or has stopped, within this: a dead link
    /// is noticed, its socket goes, the longest wait passes, and what was never answered is given up and tried again.
    pub(crate) fn calm_ms(&self) -> u64 {
        let p = &self.sound;
        let noticed = p.ping_ms + p.pong_ms.max(STALL_MS) + 2 * p.close_ms + p.redial_gap_ms;
        let waits =
            [p.slow_cap_ms * 3 / 2, 2 * p.retry_after_max_ms.min(RETRY_AFTER_MS), p.away_retry_ms, p.retry_cap_ms];
        let given_up = p.registration_ms.max(p.dial_ms) + p.retry_cap_ms;
        noticed + waits.into_iter().fold(0, u64::max) + given_up + p.all_gate_ms + 1_000
    }

    /// How long a console may accept links before it listens: what the agent waits.
    pub(crate) fn listens_within_ms(&self) -> u64 {
        self.sound.all_gate_ms
    }
}

/// The same policy in whole seconds, a few of each, with waits that do not grow; what a fault has changed stays so.
fn short(policy: Policy) -> Policy {
    let (shipped, mut short) = (Policy::default(), policy);
    macro_rules! set {
        ($($row:ident: $value:expr),* $(,)?) => { $(if short.$row == shipped.$row { short.$row = $value; })* };
    }
    set! {
        registration_ms: 2_000, dial_ms: 2_000, first_retry_ms: 2_000, away_retry_ms: 2_000, redial_gap_ms: 1_000,
        retry_base_ms: 2_000, retry_cap_ms: 2_000, port_probe_every_ms: (1_000, 1_000), port_probe_ms: 1_000,
        port_probes_max: 2, port_open_ms: 1_000, retry_after_max_ms: 2_000, stable_ms: 2_000,
        refused_base_ms: 2_000, slow_cap_ms: 2_000, unknown_base_ms: 2_000, replaced_base_ms: 2_000,
        replaced_reset_ms: 3_000, replaced_window_ms: 2_000, ping_ms: 2_000, pong_ms: 2_000, probe_ms: 1_000,
        all_gate_ms: 2_000, resync_ms: 3_000, resync_wait_max_ms: 2_000, resync_proof_ms: 1_000,
        drain_terminate_ms: 1_000, drain_kill_sessions_ms: 1_000, drain_kill_commands_ms: 1_000,
        drain_close_ms: 1_000, drain_exit_ms: 2_000,
    }
    short
}
