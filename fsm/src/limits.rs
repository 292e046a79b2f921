//! Every number that the connection depends on: one table, with the reason beside it.
//!
//! Production uses [`Policy::default`] and nothing can change it from outside; tests and simulations may build another.
//! All durations are in milliseconds. Bounds of queues and buffers stand with what they bound ([`delivery`],
//! [`session`], [`command`]).
//!
//! [`delivery`]: crate::delivery
//! [`session`]: crate::session
//! [`command`]: crate::command

/// The table of constants of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A registration has this long for its answer: the console looks up geography, which takes seconds.
    pub registration_ms: u64,
    /// Name look-up, TCP, TLS and upgrade together have this long.
    pub dial_ms: u64,
    /// The first retry after a loss comes within this: most losses are blips.
    pub first_retry_ms: u64,
    /// The first retry after the console said that it goes away comes within this: it restarts, and all come back.
    pub away_retry_ms: u64,
    /// No dial sooner than this after the old socket is gone: the console removes the newest connection when the
    /// close of an older one reaches it late.
    pub redial_gap_ms: u64,
    /// Later retries are uniform in 0 … min(`retry_cap_ms`, `retry_base_ms` · 2ⁿ).
    pub retry_base_ms: u64,
    /// See `retry_base_ms`. A fleet of 10,000 comes back with a peak of three times the mean.
    pub retry_cap_ms: u64,
    /// While every address of the console refuses the connection, its port is probed after a wait that is uniform in
    /// this range. A refused connection costs the console nothing, and the machine before it two packets.
    pub port_probe_every_ms: (u64, u64),
    /// A probe has this long, then it is given up: a refusal comes within one round trip.
    pub port_probe_ms: u64,
    /// So many probes at the most between two resets of the backoff: ten minutes, more than a restart takes. What is
    /// away for longer is dialled as before, which costs one connection in 15 s.
    pub port_probes_max: u32,
    /// Once a probe finds the port open, the agent dials within this. With the wait for the probe a fleet is spread
    /// over nine seconds, and a lone agent is back within ten.
    pub port_open_ms: u64,
    /// `Retry-After` below this is not a wait; it is given in whole seconds.
    pub retry_after_min_ms: u64,
    /// `Retry-After` is believed up to this, plus up to as much again at random.
    pub retry_after_max_ms: u64,
    /// A connection that was ready for this long forgets all failures but replacement.
    pub stable_ms: u64,
    /// After a refused key: this, doubling up to `slow_cap_ms`, ± 50 %. Only a person can mend it.
    pub refused_base_ms: u64,
    /// The longest wait of the slow rows: refused key, unknown instance, replaced.
    pub slow_cap_ms: u64,
    /// After the console forgot us: uniform in 0 … this, doubling up to `slow_cap_ms`.
    pub unknown_base_ms: u64,
    /// After being replaced: this, doubling up to `slow_cap_ms`.
    pub replaced_base_ms: u64,
    /// A connection that was ready for this long forgets that it was replaced.
    pub replaced_reset_ms: u64,
    /// Two replacements within this mean that two agents share one id: of two that replace each other, each sees its
    /// second after 10 to 20 s. One alone is a restart whose old process had not gone yet.
    pub replaced_window_ms: u64,
    /// A keep-alive Ping goes out this often, whatever else is sent.
    pub ping_ms: u64,
    /// The link is dead when no Pong has come for this long while a Ping is unanswered.
    pub pong_ms: u64,
    /// After a jump of the clock the link has this long to answer.
    pub probe_ms: u64,
    /// The close handshake has this long, then the socket is dropped; and as long again to be gone.
    pub close_ms: u64,
    /// A console that has not greeted gets state messages after this.
    pub state_gate_ms: u64,
    /// A console that has not greeted gets everything after this.
    pub all_gate_ms: u64,
    /// A resync comes this long after the link became ready: the production console forgets a broken socket after 30
    /// s. A loss that is so long past has been forgotten.
    pub resync_ms: u64,
    /// A resync waits for the open sessions to end, but no longer than this once it is due. Both cost something on the
    /// production console. While it waits, no command and no new terminal reaches the agent. When it comes, a user
    /// who looks at a terminal is thrown out, and the page does not connect again. So a session that is only watched
    /// gets five minutes; without one, or when the last one ends, the resync comes at once. With terminals of ten
    /// minutes and a request in ten seconds that ends 29 of a hundred terminals, not 71, and loses 15 requests a
    /// loss, not one (`draupnir-sim resync`).
    pub resync_wait_max_ms: u64,
    /// A message for a session or a command that arrives this long after the resync became due proves that the console
    /// still reaches the agent: no resync is needed then. What was sent before the console forgot the link is not
    /// under way for so long, because a link that is silent for `ping_ms` and `pong_ms` is dead.
    pub resync_proof_ms: u64,
    /// A resync that had to wait looks again after this.
    pub resync_poll_ms: u64,
    /// A resync whose close is not answered is due again, so often in a row: on a way that takes longer than the close
    /// handshake it never is.
    pub resync_tries_max: u8,
    /// A tick later than this is a jump of the clock.
    pub late_tick_ms: u64,
    /// Heartbeats and metrics come after a share of their interval drawn from this range, in percent: strictly more
    /// often than promised.
    pub interval_percent: (u64, u64),
    /// Draining: SIGTERM to commands.
    pub drain_terminate_ms: u64,
    /// Draining: SIGKILL to what is left of the sessions.
    pub drain_kill_sessions_ms: u64,
    /// Draining: SIGKILL to what is left of the commands.
    pub drain_kill_commands_ms: u64,
    /// Draining: the close frame, even if work is left.
    pub drain_close_ms: u64,
    /// Draining: the end, even if work is left. Fly.io kills after 5 s.
    pub drain_exit_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            registration_ms: 15_000,
            dial_ms: 10_000,
            first_retry_ms: 2_000,
            away_retry_ms: 10_000,
            redial_gap_ms: 250,
            retry_base_ms: 10_000,
            retry_cap_ms: 30_000,
            port_probe_every_ms: (1_000, 2_000),
            port_probe_ms: 2_000,
            port_probes_max: 400,
            port_open_ms: 7_000,
            retry_after_min_ms: 1_000,
            retry_after_max_ms: 600_000,
            stable_ms: 30_000,
            refused_base_ms: 60_000,
            slow_cap_ms: 600_000,
            unknown_base_ms: 5_000,
            replaced_base_ms: 5_000,
            replaced_reset_ms: 1_800_000,
            replaced_window_ms: 900_000,
            ping_ms: 10_000,
            pong_ms: 10_000,
            probe_ms: 5_000,
            close_ms: 1_000,
            state_gate_ms: 1_000,
            all_gate_ms: 5_000,
            resync_ms: 40_000,
            resync_wait_max_ms: 300_000,
            resync_proof_ms: 20_000,
            resync_poll_ms: 1_000,
            resync_tries_max: 3,
            late_tick_ms: 2_000,
            interval_percent: (80, 95),
            drain_terminate_ms: 1_500,
            drain_kill_sessions_ms: 2_000,
            drain_kill_commands_ms: 2_500,
            drain_close_ms: 3_500,
            drain_exit_ms: 4_000,
        }
    }
}

/// What the operator chose: part of a recording, because the machine depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The longest time between two heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// The longest time between two metrics, in milliseconds.
    pub metrics_ms: u64,
    /// How many lines of logs are read a second, on average; 0: no limit.
    #[serde(default = "log_lines_per_s", skip_serializing_if = "is_log_lines_per_s")]
    pub log_lines_per_s: u32,
}

const fn log_lines_per_s() -> u32 {
    crate::driver::LOG_LINES_PER_SECOND
}

const fn is_log_lines_per_s(lines: &u32) -> bool {
    *lines == log_lines_per_s()
}

impl Default for Schedule {
    fn default() -> Self {
        Self { heartbeat_ms: 30_000, metrics_ms: 60_000, log_lines_per_s: log_lines_per_s() }
    }
}
