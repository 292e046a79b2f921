//! The machine and the ledger on one tick, as the agent and the simulation use them.
//!
//! It holds no rule of its own but where one half must hear of the other: the ledger of links, gates and keep-alive
//! Pings, the machine of Pongs, stalled writes and whether everything is delivered. It also notices jumps of the clock,
//! limits complaints, and shows every step of the machine to a recorder.
//!
//! The contract of the loop around it: compare the clocks ([`Engine::observe`]) right after waking up, before anything is
//! handed over, so that a freeze is noticed first; hand over what happened ([`Engine::handle`], [`Engine::pong`],
//! [`Engine::written`], the ledger's own methods); [`tick`](Engine::tick); perform every [order](Engine::poll_order);
//! write what the ledger has [next](Delivery::next); wait until [`next_deadline`](Engine::next_deadline).

use crate::clock::{Clocks, Watch};
use crate::complaint::Complaints;
use crate::delivery::ping::Purpose;
use crate::delivery::{Delivery, Kind, LinkEnd, Next, Poison};
use crate::fact::{CommandFact, Fact, Jump};
use crate::id::{CommandKey, LinkId};
use crate::limits::{Policy, Schedule};
use crate::machine::{Machine, Snapshot};
use crate::order::Order;
use crate::scenario::Step;
use crate::time::Time;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString as _;

/// Pongs that leave others unanswered are told to the machine no more often than this: each gives the link ten seconds,
/// and a terminal in use brings several a second.
const PONG_NOTICE_MS: u64 = 1_000;

/// What is shown every step of the machine.
pub type Recorder = Box<dyn FnMut(&Step)>;

/// What is shown the same without a copy being made: when, what happened, what was ordered, how the machine looks.
pub type Watcher = Box<dyn FnMut(Time, &Fact, &[Order], &Snapshot)>;

/// What became of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// It waits or runs, and its own result will come.
    Taken,
    /// An order answers it: a refusal, or the result of an earlier one.
    Answered,
    /// It waits or runs already under another number; that one's result is the answer.
    Running,
}

/// The whole of what decides; `M` is the body of a message.
pub struct Engine<M> {
    machine: Machine,
    /// The ledger.
    pub delivery: Delivery<M>,
    watch: Watch,
    complaints: Complaints,
    watcher: Option<Watcher>,
    orders: VecDeque<Order>,
    poison: Option<Poison>,
    room_for_results: bool,
    pings_to_write: usize,
    pong_told_at: Option<Time>,
}

impl<M> Engine<M> {
    /// A new life. Its first fact is [`Fact::Started`].
    pub fn new(policy: Policy, schedule: Schedule, seed: u64) -> Self {
        Self {
            machine: Machine::new(policy, schedule, seed),
            delivery: Delivery::new(),
            watch: Watch::default(),
            complaints: Complaints::default(),
            watcher: None,
            orders: VecDeque::new(),
            poison: None,
            room_for_results: true,
            pings_to_write: 0,
            pong_told_at: None,
        }
    }

    /// Shows every step from now on to `recorder`.
    pub fn record(&mut self, mut recorder: Recorder) {
        self.watch(Box::new(move |at_ms, fact, orders, seen| {
            let (orders, state) = (orders.to_vec(), Some(seen.state.to_string()));
            recorder(&Step { at_ms, fact: *fact, orders, state, next: seen.next });
        }));
    }

    /// Shows every step from now on to `watcher`, in the place of whoever watched before.
    pub fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// Takes in one fact.
    pub fn handle(&mut self, now: Time, fact: Fact) {
        let before = self.machine.snapshot().link;
        self.machine.handle(now, &fact);
        let first = self.orders.len();
        self.orders.extend(core::iter::from_fn(|| self.machine.poll_order()));
        let seen = self.machine.snapshot();
        self.show(now, &fact, first, &seen);
        self.follow_link(now, &fact, before, seen.link);
        if matches!(fact, Fact::ShutdownRequested) {
            self.delivery.hurry();
        }
        for order in self.orders.range(first..) {
            match order {
                Order::OpenGate { gate, .. } => self.delivery.open_gate(now, *gate),
                Order::SendPing { .. } => self.delivery.request_ping(),
                _ => {}
            }
        }
    }

    /// Lets time pass up to `now`; `bytes_written` is how many bytes the socket of the current link has taken.
    pub fn tick(&mut self, now: Time, bytes_written: u64) {
        self.delivery.write_progress(now, bytes_written);
        if let Some(link) = self.delivery.tick(now) {
            self.handle(now, Fact::WriteStalled { link });
        }
        // What is ordered may be a message: nothing is settled before that is in the ledger.
        let settled = self.delivery.is_settled();
        if self.orders.is_empty() && settled != self.machine.believes_settled() {
            self.handle(now, Fact::DeliverySettled { settled });
        }
        if !self.room_for_results && self.delivery.promise(Kind::Result) {
            self.delivery.break_promise(Kind::Result);
            self.tell_room(now, true);
        }
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.handle(now, Fact::Tick);
        }
    }

    /// Compares the clocks with what was expected, before a tick; `entropy` is asked for only when they jumped.
    pub fn observe(&mut self, now: Time, clocks: Clocks, entropy: impl FnOnce() -> u64) {
        let jumped = self.watch.observe(clocks);
        if let Some(gap_ms) = self.machine.late_by_ms(now) {
            self.delivery.shift_ms(gap_ms);
            self.handle(now, Fact::ClockJumped { cause: Jump::LateTick, gap_ms, entropy: entropy() });
        } else if let Some((cause, gap_ms)) = jumped {
            self.handle(now, Fact::ClockJumped { cause, gap_ms, entropy: entropy() });
        }
    }

    /// The next thing to do. [`Order::OpenGate`] and [`Order::SendPing`] are done already; they are told to be seen.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When the next tick is due; `None` only when stopped.
    pub fn next_deadline(&self) -> Option<Time> {
        let machine = self.machine.next_deadline()?;
        Some(self.delivery.next_deadline().map_or(machine, |delivery| delivery.min(machine)))
    }

    /// The next frame for the link, if any.
    pub fn next_frame(&mut self, now: Time) -> Option<Next<'_, M>> {
        let next = self.delivery.next(now);
        if let Some(Next::Ping { purpose, .. }) = &next {
            match purpose {
                Purpose::KeepAlive | Purpose::Marker => self.pings_to_write += 1,
            }
        }
        next
    }

    /// The socket has taken the whole batch of frames.
    pub fn written(&mut self, now: Time, link: LinkId) {
        self.delivery.written();
        // One that was answered before the rest of its batch was taken awaits nothing.
        if core::mem::take(&mut self.pings_to_write) > 0 && self.delivery.unanswered_pings() > 0 {
            self.handle(now, Fact::PingWritten { link });
        }
    }

    /// A Pong arrived.
    pub fn pong(&mut self, now: Time, link: LinkId, payload: &[u8]) {
        if self.delivery.pong(now, link, payload).is_none() {
            return;
        }
        let lately = self.pong_told_at.is_some_and(|at| now.ms_since(at) < PONG_NOTICE_MS);
        // The time for a Pong starts when its Ping is written: what waits to be does not count yet.
        let last = self.delivery.unanswered_pings() <= self.pings_to_write;
        if last || !lately {
            self.pong_told_at = Some(now);
            self.handle(now, Fact::PongReceived { link, last });
        }
    }

    /// The console dispatched a command: room is kept for its result, or it is refused. A new one is refused too where it
    /// `may_wait` no more; one that is known already needs no room.
    pub fn command_requested(
        &mut self,
        now: Time,
        command: CommandKey,
        id_hash: u64,
        timeout_ms: u64,
        may_wait: bool,
    ) -> Requested {
        let room = may_wait && self.delivery.promise(Kind::Result);
        self.tell_room(now, room);
        let first = self.orders.len();
        self.handle(now, Fact::Command { command, what: CommandFact::Requested { id_hash, timeout_ms } });
        if self.machine.has_command(command) {
            return Requested::Taken;
        }
        // Whatever is not taken on is answered by another's result, or by a refusal that was never promised room.
        if room {
            self.delivery.break_promise(Kind::Result);
        }
        let is_answer = |order: &Order| match order {
            Order::RefuseCommand { command: answered, .. } | Order::RepeatResult { command: answered, .. } => {
                *answered == command
            }
            _ => false,
        };
        if self.orders.range(first..).any(is_answer) { Requested::Answered } else { Requested::Running }
    }

    /// A message that has ended so many links that it must be the cause.
    pub fn take_poison(&mut self) -> Option<Poison> {
        self.poison.take()
    }

    /// Whether a complaint about `cause` may be told now; if so it counts as told.
    pub fn may_complain(&mut self, now: Time, cause: u64) -> bool {
        self.complaints.admit(now, cause)
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    fn tell_room(&mut self, now: Time, room: bool) {
        if room != self.room_for_results {
            self.room_for_results = room;
            self.handle(now, Fact::RoomForResults { room });
        }
    }

    /// Tells the ledger of links that came up or ended.
    fn follow_link(&mut self, now: Time, fact: &Fact, before: Option<LinkId>, after: Option<LinkId>) {
        if before == after {
            return;
        }
        if before.is_some() {
            let end = match fact {
                Fact::CloseReceived { code, .. } => LinkEnd::Closed { code: *code },
                _ => LinkEnd::Broken,
            };
            self.poison = self.delivery.link_closed(now, end).or(self.poison.take());
            self.pings_to_write = 0;
            self.pong_told_at = None;
        }
        if let Some(link) = after {
            self.delivery.link_opened(now, link);
        }
    }

    fn show(&mut self, at: Time, fact: &Fact, first: usize, seen: &Snapshot) {
        if let Some(watcher) = &mut self.watcher {
            let orders = self.orders.make_contiguous().get(first..).unwrap_or_default();
            watcher(at, fact, orders, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::ping::Payload;
    use crate::delivery::{After, Reliable};
    use crate::fact::IdSource;
    use crate::order::Refusal;
    use alloc::vec::Vec;

    /// An engine whose link is ready and whose orders are all performed.
    fn ready() -> Engine<u32> {
        let mut engine = Engine::new(Policy::default(), Schedule::default(), 1);
        engine.handle(Time::START, Fact::Started { id: IdSource::Remembered });
        engine.tick(Time::START, 0);
        engine.tick(Time::START, 0);
        engine.handle(Time::START, Fact::LinkOpened { link: LinkId(1) });
        engine.handle(Time::START, Fact::Greeted { link: LinkId(1) });
        orders(&mut engine);
        engine
    }

    fn orders(engine: &mut Engine<u32>) -> Vec<Order> {
        core::iter::from_fn(|| engine.poll_order()).collect()
    }

    #[test]
    fn a_drain_does_not_close_before_its_last_event_is_in_the_ledger() {
        let mut engine = ready();
        let now = Time::from_ms(20_000);
        engine.handle(now, Fact::ShutdownRequested);
        engine.tick(now, 0);
        let ordered = orders(&mut engine);
        assert!(matches!(ordered[..], [Order::Emit { .. }]), "{ordered:?}");
        let event = Reliable { kind: Kind::Event, size_bytes: 10, after: After::NOTHING, promised: false };
        engine.delivery.push(event, 7).expect("there is room");
        engine.tick(now, 0);
        assert_eq!(orders(&mut engine), []);
        assert!(matches!(engine.next_frame(now), Some(Next::Reliable { body: 7, .. })));
        let Some(Next::Ping { payload, .. }) = engine.next_frame(now) else { panic!("a marker follows at once") };
        engine.pong(now, LinkId(1), &payload);
        engine.tick(now, 0);
        assert!(matches!(orders(&mut engine)[..], [Order::CloseLink { code: 1000, .. }]));
    }

    #[test]
    fn a_dispatch_is_taken_answered_or_running_already() {
        let mut engine = ready();
        assert_eq!(engine.command_requested(Time::START, CommandKey(1), 77, 0, true), Requested::Taken);
        assert_eq!(engine.command_requested(Time::START, CommandKey(2), 77, 0, true), Requested::Running);
        assert_eq!(
            engine.command_requested(Time::START, CommandKey(3), 77, 0, false),
            Requested::Running,
            "it needs no room"
        );
        let busy = |engine: &mut Engine<u32>, key| {
            let refusal = Order::RefuseCommand { command: key, refusal: Refusal::Busy };
            orders(engine).contains(&refusal)
        };
        assert!(!busy(&mut engine, CommandKey(3)));
        assert_eq!(engine.command_requested(Time::START, CommandKey(4), 78, 0, false), Requested::Answered);
        assert!(busy(&mut engine, CommandKey(4)));
        assert_eq!(
            engine.command_requested(Time::START, CommandKey(5), 78, 0, true),
            Requested::Taken,
            "room is there again"
        );
        engine.handle(Time::START, Fact::ShutdownRequested);
        assert_eq!(engine.command_requested(Time::START, CommandKey(6), 79, 0, true), Requested::Answered);
    }

    /// The keep-alive Ping that is due at `now`.
    fn ping(engine: &mut Engine<u32>, now: Time) -> Payload {
        engine.tick(now, 0);
        assert!(orders(engine).iter().any(|order| matches!(order, Order::SendPing { .. })));
        match engine.next_frame(now) {
            Some(Next::Ping { payload, purpose: Purpose::KeepAlive }) => payload,
            other => panic!("{other:?} instead of a Ping"),
        }
    }

    fn drops_link(engine: &mut Engine<u32>, now: Time) -> bool {
        engine.tick(now, 0);
        orders(engine).iter().any(|order| matches!(order, Order::DropLink { .. }))
    }

    #[test]
    fn the_time_for_a_pong_starts_when_its_ping_is_written_and_not_before() {
        let mut engine = ready();
        let payload = ping(&mut engine, Time::from_ms(10_000));
        engine.written(Time::from_ms(12_000), LinkId(1));
        // The next waits behind a long message when the Pong of the first arrives.
        ping(&mut engine, Time::from_ms(20_000));
        engine.pong(Time::from_ms(21_000), LinkId(1), &payload);
        assert!(!drops_link(&mut engine, Time::from_ms(31_000)), "nothing that was written is unanswered");
        engine.written(Time::from_ms(35_000), LinkId(1));
        assert!(!drops_link(&mut engine, Time::from_ms(44_999)));
        assert!(drops_link(&mut engine, Time::from_ms(45_000)));
    }

    #[test]
    fn a_ping_that_is_answered_before_its_batch_is_written_awaits_no_pong() {
        let mut engine = ready();
        let now = Time::from_ms(10_000);
        let payload = ping(&mut engine, now);
        engine.pong(now.after_ms(50), LinkId(1), &payload);
        engine.written(now.after_ms(900), LinkId(1));
        // The next Ping waits for its batch.
        ping(&mut engine, now.after_ms(10_000));
        assert!(!drops_link(&mut engine, now.after_ms(11_000)));
    }
}
