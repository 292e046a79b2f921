//! The machine: facts and a time in, orders out.
//!
//! `chart.rs` is the state chart of the README in code; what the four active states do has a file each, and what they
//! remember is `connection.rs`. This file holds what is around the chart: the timers, the jitter, the lifecycles of
//! sessions and commands, and the tick.
//!
//! It does not carry bytes and does not know what messages look like. Invariants, checked by the exhaustive and the
//! property tests: at most one live link; a deadline in every state but `Stopped`; no order about a stale attempt;
//! `Draining` reaches `Stopped` within [`Policy::drain_exit_ms`]; only a tick fires timers; an unhandled fact is
//! counted.

use crate::command::Commands;
use crate::fact::{ClockJump, CommandFact, Fact, SessionFact};
use crate::id::{CommandKey, LinkId, SessionKey};
use crate::limits::{Policy, Schedule};
use crate::order::{CommandEnd, Order, SessionEnd};
use crate::random::Random;
use crate::session::Sessions;
use crate::time::Time;
use crate::timer::{Timer, Timers};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use chart::State;
use connection::Connection;
use core::hash::{Hash, Hasher};
pub use saved::SavedConnection;
use statig::blocking::{IntoStateMachineExt as _, StateMachine};

mod chart;
mod connected;
mod connecting;
mod connection;
mod draining;
pub mod invariants;
mod registering;
mod saved;

#[cfg(test)]
mod tests;

/// How many timers one tick may fire. More than there are: a timer that re-arms itself in the past would spin
/// otherwise.
const EXPIRIES_PER_TICK_MAX: usize = 64;

/// The whole machine.
#[derive(Clone)]
pub struct Machine {
    connection: StateMachine<Connection>,
    sessions: Sessions,
    commands: Commands,
    /// When the console last sent something for a session or a command.
    routed_at: Option<Time>,
    timers: Timers,
    random: Random,
    policy: Policy,
    schedule: Schedule,
    /// When the machine last received anything.
    lived_until: Time,
    orders: VecDeque<Order>,
    batch: Vec<Order>,
}

/// What the state chart hears: a fact, or that one of its timers expired.
pub(crate) enum Event<'a> {
    Fact(&'a Fact),
    Expired(Timer),
    /// Draining, and something changed: perhaps nothing is left to do.
    Reconsider,
}

/// What the state chart works with besides its own storage.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) policy: &'a Policy,
    pub(crate) schedule: Schedule,
    pub(crate) timers: &'a mut Timers,
    pub(crate) random: &'a mut Random,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) commands: &'a mut Commands,
    /// When the console last sent something for a session or a command.
    pub(crate) routed_at: Option<Time>,
    pub(crate) orders: &'a mut Vec<Order>,
}

impl Context<'_> {
    pub(crate) fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    pub(crate) fn arm_in(&mut self, timer: Timer, ms: u64) {
        self.timers.arm(timer, self.now.after_ms(ms));
    }

    pub(crate) fn children_are_gone(&self) -> bool {
        self.sessions.is_empty() && self.commands.is_empty()
    }

    pub(crate) fn hang_up_sessions(&mut self) {
        self.sessions.drain_hang_up(self.now, self.orders);
        self.commands.drain_begin(self.orders);
    }

    pub(crate) fn terminate_commands(&mut self) {
        self.commands.drain_terminate(self.now, self.orders);
    }

    pub(crate) fn kill_sessions(&mut self) {
        self.sessions.drain_kill(self.now, self.orders);
    }

    pub(crate) fn kill_commands(&mut self) {
        self.commands.drain_kill(self.now, self.orders);
    }
}

/// What can be seen of the machine from outside: for logs, tests and replays. It is never restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSnapshot {
    /// The path of the state, such as `connected.ready`.
    pub state: &'static str,
    /// The link that is up or being dialled.
    pub link: Option<LinkId>,
    /// The earliest deadline.
    pub next: Option<Time>,
    /// Facts that no state had a use for.
    pub unhandled: u64,
    /// Facts about attempts and links that were over.
    pub stale: u64,
}

impl Machine {
    /// A machine at its start; its first fact is [`Fact::Started`].
    pub fn new(policy: Policy, schedule: Schedule, seed: u64) -> Self {
        let mut machine = Self {
            connection: Connection::default().state_machine(),
            sessions: Sessions::default(),
            commands: Commands::default(),
            routed_at: None,
            timers: Timers::default(),
            random: Random::new(seed),
            policy,
            schedule,
            lived_until: Time::START,
            orders: VecDeque::new(),
            batch: Vec::new(),
        };
        // Explicitly, or statig would run the first entry action only with the first event.
        machine.with_context(Time::START, |connection, context| connection.init_with_context(context));
        machine
    }

    /// Takes in one fact. [`Fact::Tick`] fires every timer that has expired.
    pub fn handle(&mut self, now: Time, fact: &Fact) {
        let was_linked = self.has_link();
        let lived_until = core::mem::replace(&mut self.lived_until, now);
        if is_routed(fact) {
            self.routed_at = Some(now);
        }
        match fact {
            // Nothing more is ordered, by the lifecycles either: every later fact is counted.
            fact if self.is_stopped() => self.dispatch(now, &Event::Fact(fact)),
            Fact::Tick => self.tick(now),
            Fact::Session { session, what } => self.sessions.handle(now, *session, what, &mut self.batch),
            Fact::Command { command, what } => self.commands.handle(now, *command, what, &mut self.batch),
            Fact::RoomForResults { room } => self.commands.set_room(*room),
            fact => {
                if let Fact::ClockJumped { cause: ClockJump::LateTick, .. } = fact {
                    self.forgive_lateness(now, lived_until);
                }
                self.dispatch(now, &Event::Fact(fact));
            }
        }
        self.note_link(now, was_linked);
        if self.connection.state().is_draining() {
            // Each order may bring a message; once all are done, the driver says whether one is left to deliver.
            if self.connection.inner().settled && !self.batch.is_empty() {
                self.dispatch(now, &Event::Fact(&Fact::DeliverySettled { settled: false }));
            }
            self.dispatch(now, &Event::Reconsider);
        }
        self.orders.extend(self.batch.drain(..));
    }

    /// The next thing to do; `None` until the next fact.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Everything that was ordered since the last fact.
    pub fn take_orders(&mut self) -> Vec<Order> {
        core::mem::take(&mut self.orders).into()
    }

    /// When the next tick is due; `None` only in `Stopped`.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.is_stopped() {
            return None;
        }
        [self.timers.next(), self.sessions.next_deadline(), self.commands.next_deadline()].into_iter().flatten().min()
    }

    /// Whether a tick at `now` would be so late that it is a jump of the clock, and by how many milliseconds.
    pub fn late_by_ms(&self, now: Time) -> Option<u64> {
        let late_ms = now.ms_since(self.next_deadline()?);
        (late_ms > self.policy.late_tick_ms).then_some(late_ms)
    }

    /// Whether facts about terminal input are wanted now, because they could show that a resync is not needed.
    pub fn wants_terminal_input(&self) -> bool {
        self.timers.deadline(Timer::Resync).is_some()
    }

    /// Whether facts about the input and size of `session` are wanted now, because no console is known to use it.
    pub fn is_orphan(&self, session: SessionKey) -> bool {
        self.sessions.is_orphan(session)
    }

    /// The command that waits or runs under this hash of its id.
    pub fn live_command(&self, id_hash: u128) -> Option<CommandKey> {
        self.commands.live(id_hash)
    }

    /// An earlier process ran the command with this hash of its id. With a key its result is remembered for repeats.
    pub fn restore_command(&mut self, id_hash: u128, command: Option<CommandKey>) {
        self.commands.restore(id_hash, command);
    }

    /// Takes over a session that an earlier program opened.
    pub fn take_over_session(
        &mut self,
        now: Time,
        session: SessionKey,
        orphan_in_ms: Option<u64>,
        end: Option<SessionEnd>,
    ) {
        self.sessions.take_over(now, session, orphan_in_ms, end);
    }

    /// Takes over a command that an earlier program started; false for one whose id is known.
    pub fn take_over_command(
        &mut self,
        now: Time,
        command: CommandKey,
        id_hash: u128,
        timeout_ms: u64,
        end: Option<CommandEnd>,
    ) -> bool {
        self.commands.take_over(now, command, id_hash, timeout_ms, end)
    }

    /// Takes over a command that an earlier program accepted and did not start; false for one whose id is known.
    pub fn take_over_waiting(&mut self, command: CommandKey, id_hash: u128, timeout_ms: u64) -> bool {
        self.commands.take_over_waiting(command, id_hash, timeout_ms)
    }

    /// When a session is an orphan, where no console uses it, and why it was asked to end, if it was.
    pub fn session_to_hand_over(&self, session: SessionKey) -> (Option<Time>, Option<SessionEnd>) {
        self.sessions.to_hand_over(session)
    }

    /// The deadline of a command that runs, and why it was asked to end, if it was.
    pub fn command_to_hand_over(&self, command: CommandKey) -> Option<(Time, Option<CommandEnd>)> {
        self.commands.to_hand_over(command)
    }

    /// The commands that wait for their start, and their time-outs, in order.
    pub fn waiting_commands(&self) -> impl Iterator<Item = (CommandKey, u64)> {
        self.commands.all_waiting()
    }

    /// The hashes of the ids whose results are no longer remembered, the oldest first.
    pub fn forgotten_commands(&self) -> impl Iterator<Item = u128> {
        self.commands.past().forgotten()
    }

    /// The hashes of the ids whose results are remembered, and their commands, the oldest first.
    pub fn remembered_commands(&self) -> impl Iterator<Item = (u128, CommandKey)> {
        self.commands.past().remembered()
    }

    /// The hash of the id of a command whose result is remembered.
    pub fn command_id(&self, command: CommandKey) -> Option<u128> {
        self.remembered_commands().find(|(_, of)| *of == command).map(|(id_hash, _)| id_hash)
    }

    /// What the next program needs of the connection.
    pub fn connection_to_hand_over(&self, now: Time) -> SavedConnection {
        self.connection.inner().to_hand_over(now, &self.timers)
    }

    /// Whether the socket of an earlier link may still be open.
    pub fn has_old_socket(&self) -> bool {
        self.connection.inner().old_socket.is_left()
    }

    /// Whether a shell or a command is being started.
    pub fn is_starting_a_child(&self) -> bool {
        self.sessions.is_starting() || self.commands.is_starting()
    }

    /// A number from the jitter.
    pub fn draw(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// How many commands wait or run.
    pub fn commands(&self) -> usize {
        self.commands.running() + self.commands.waiting()
    }

    /// Whether `session` can be attached to: its shell runs or is being started, and it was not asked to end.
    pub fn is_usable(&self, session: SessionKey) -> bool {
        self.sessions.is_usable(session)
    }

    /// Whether this command waits or runs, so that its own result will come.
    pub fn has_command(&self, command: CommandKey) -> bool {
        self.commands.contains(command)
    }

    /// Whether the machine believes everything to be delivered; the driver corrects it.
    pub fn believes_settled(&self) -> bool {
        self.connection.inner().settled
    }

    /// Whether a link is up.
    pub fn has_link(&self) -> bool {
        self.connection.state().has_link()
    }

    /// The link that is up.
    pub fn link(&self) -> Option<LinkId> {
        self.has_link().then_some(self.connection.inner().link.id)
    }

    /// How many facts no state had a use for, and how many were about attempts and links that were over.
    pub fn ignored(&self) -> (u64, u64) {
        let connection = self.connection.inner();
        (connection.unhandled, connection.stale)
    }

    /// Whether new work is to be refused because the agent is on its way out.
    pub fn is_draining(&self) -> bool {
        self.connection.state().is_draining() || self.is_stopped()
    }

    /// Whether nothing more will be ordered.
    pub fn is_stopped(&self) -> bool {
        matches!(self.connection.state(), State::Stopped)
    }

    /// The path of the state, such as `connected.ready`.
    pub fn state_name(&self) -> &'static str {
        self.connection.state().name()
    }

    /// What can be seen from outside.
    pub fn snapshot(&self) -> MachineSnapshot {
        let connection = self.connection.inner();
        MachineSnapshot {
            state: self.state_name(),
            link: self.link(),
            next: self.next_deadline(),
            unhandled: connection.unhandled,
            stale: connection.stale,
        }
    }

    /// Draws from `random` from now on.
    pub fn set_random(&mut self, random: Random) {
        self.random = random;
    }

    /// Fires what has expired at `now`, each timer at most a bounded number of times.
    fn tick(&mut self, now: Time) {
        for _ in 0..EXPIRIES_PER_TICK_MAX {
            let Some(timer) = self.timers.take_expired(now) else { break };
            self.dispatch(now, &Event::Expired(timer));
        }
        if !self.is_stopped() {
            self.sessions.tick(now, &mut self.batch);
            self.commands.tick(now, &mut self.batch);
        }
    }

    /// Moves every deadline by the time that was not lived through, so that each keeps what it had left when the
    /// machine last received anything. A drain is not forgiven: its caller has lived through that time.
    fn forgive_lateness(&mut self, now: Time, lived_until: Time) {
        if self.next_deadline().is_none_or(|next| next >= now) {
            return;
        }
        let lost_ms = now.ms_since(lived_until);
        if !self.is_draining() {
            self.timers.shift_ms(lost_ms);
        }
        self.sessions.shift_ms(lost_ms);
        self.commands.shift_ms(lost_ms);
    }

    /// Sessions are orphans only while no console could reach them.
    fn note_link(&mut self, now: Time, was_linked: bool) {
        match (was_linked, self.has_link()) {
            (false, true) => self.sessions.link_up(now),
            (true, false) => self.sessions.link_down(now),
            (false, false) | (true, true) => {}
        }
    }

    fn dispatch(&mut self, now: Time, event: &Event<'_>) {
        self.with_context(now, |connection, context| connection.handle_with_context(event, context));
    }

    fn with_context(&mut self, now: Time, act: impl FnOnce(&mut StateMachine<Connection>, &mut Context<'_>)) {
        let mut context = Context {
            now,
            policy: &self.policy,
            schedule: self.schedule,
            timers: &mut self.timers,
            random: &mut self.random,
            sessions: &mut self.sessions,
            commands: &mut self.commands,
            routed_at: self.routed_at,
            orders: &mut self.batch,
        };
        act(&mut self.connection, &mut context);
    }
}

/// Between two turns: no order waits, the policy does not change, and the jitter is [set](Machine::set_random).
impl Hash for Machine {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What a state carries was needed at its entry alone.
        core::mem::discriminant(self.connection.state()).hash(state);
        self.connection.inner().hash_in(self.connection.state(), state);
        (&self.sessions, &self.commands, self.routed_at, &self.timers, self.lived_until).hash(state);
    }
}

/// Whether this is a message that the console sent for one session or command, which it can only while it knows the
/// link.
fn is_routed(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::TerminalInput
            | Fact::Session { what: SessionFact::Attached | SessionFact::CloseRequested, .. }
            | Fact::Command { what: CommandFact::Requested { .. } | CommandFact::CancelRequested, .. }
    )
}
