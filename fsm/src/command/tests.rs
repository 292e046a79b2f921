//! One rule each; what combinations of facts can do is in `properties`.

use super::*;
use crate::id::CommandKey;
use alloc::vec;

/// The commands and a clock that the test moves.
struct Bench {
    commands: Commands,
    now: Time,
}

impl Bench {
    fn new() -> Self {
        Self { commands: Commands::default(), now: Time::from_ms(1_000) }
    }

    fn handle(&mut self, command: u32, fact: CommandFact) -> Vec<Order> {
        let mut orders = Vec::new();
        self.commands.handle(self.now, CommandKey(command), &fact, &mut orders);
        orders
    }

    /// Requests a command whose id is like no other's.
    fn request(&mut self, command: u32) -> Vec<Order> {
        self.request_as(command, u128::from(command), 0)
    }

    fn request_as(&mut self, command: u32, id_hash: u128, timeout_ms: u64) -> Vec<Order> {
        self.handle(command, CommandFact::Requested { id_hash, timeout_ms })
    }

    /// Requests a command and lets it run.
    fn run(&mut self, command: u32, timeout_ms: u64) {
        let orders = self.request_as(command, u128::from(command), timeout_ms);
        assert_eq!(orders, [Order::StartCommand { command: CommandKey(command) }]);
        assert_eq!(self.handle(command, CommandFact::Started), []);
    }

    /// Lets a command run and end by itself.
    fn run_through(&mut self, command: u32) -> Vec<Order> {
        self.run(command, 0);
        self.exit(command, 0)
    }

    fn exit(&mut self, command: u32, code: i32) -> Vec<Order> {
        assert_eq!(self.handle(command, CommandFact::EndOfOutput), []);
        self.handle(command, CommandFact::Exited { code })
    }

    fn pass_ms(&mut self, ms: u64) -> Vec<Order> {
        self.now = self.now.after_ms(ms);
        let mut orders = Vec::new();
        self.commands.tick(self.now, &mut orders);
        orders
    }

    fn drain(&mut self, step: impl FnOnce(&mut Commands, Time, &mut Vec<Order>)) -> Vec<Order> {
        let mut orders = Vec::new();
        step(&mut self.commands, self.now, &mut orders);
        orders
    }
}

fn finish(command: u32, end: CommandEnd, exit_code: i32) -> Order {
    Order::FinishCommand { command: CommandKey(command), end, exit_code }
}

fn refuse(command: u32, refusal: Refusal) -> Order {
    Order::RefuseCommand { command: CommandKey(command), refusal }
}

#[test]
fn a_command_ends_with_its_exit_and_its_output_in_either_order() {
    let mut bench = Bench::new();
    bench.run(1, 0);
    assert_eq!(bench.handle(1, CommandFact::EndOfOutput), []);
    let over = bench.handle(1, CommandFact::Exited { code: 3 });
    assert_eq!(over, [finish(1, CommandEnd::Exited, 3)]);

    bench.run(2, 0);
    assert_eq!(bench.handle(2, CommandFact::Exited { code: 139 }), []);
    let over = bench.handle(2, CommandFact::EndOfOutput);
    assert_eq!(over, [finish(2, CommandEnd::Exited, 139)]);
    assert!(bench.commands.is_empty());
    assert_eq!(bench.commands.next_deadline(), None);
}

#[test]
fn a_command_that_cannot_be_started_is_answered_at_once() {
    let mut bench = Bench::new();
    bench.request(1);
    let over = bench.handle(1, CommandFact::Failed);
    assert_eq!(over, [finish(1, CommandEnd::Exited, EXIT_NOT_STARTED)]);
    assert!(bench.commands.is_empty());
}

#[test]
fn background_child_delays_the_result_by_500_ms_and_lives() {
    let mut bench = Bench::new();
    bench.run(1, 0);
    assert_eq!(bench.handle(1, CommandFact::Exited { code: 0 }), []);
    assert_eq!(bench.pass_ms(OUTPUT_DRAIN_TIMEOUT_MS - 1), []);
    assert_eq!(bench.pass_ms(1), [finish(1, CommandEnd::Exited, 0)]);
}

#[test]
fn timeout_counts_from_start_order_terminates_then_kills() {
    let mut bench = Bench::new();
    bench.request_as(1, 1, 5_000);
    assert_eq!(bench.pass_ms(4_000), []);
    assert_eq!(bench.handle(1, CommandFact::Started), []);
    assert_eq!(bench.pass_ms(999), []);
    let terminate = Order::TerminateCommand { command: CommandKey(1) };
    assert_eq!(bench.pass_ms(1), [terminate]);
    assert_eq!(bench.pass_ms(KILL_AFTER_MS - 1), []);
    assert_eq!(bench.pass_ms(1), [Order::KillCommand { command: CommandKey(1) }]);
    assert_eq!(bench.handle(1, CommandFact::Exited { code: 137 }), []);
    assert_eq!(bench.handle(1, CommandFact::EndOfOutput), [finish(1, CommandEnd::TimedOut, EXIT_TIMED_OUT)]);
}

#[test]
fn rest_of_a_terminated_command_is_killed_before_its_result() {
    let mut bench = Bench::new();
    let killed = [Order::KillCommand { command: CommandKey(1) }, finish(1, CommandEnd::TimedOut, EXIT_TIMED_OUT)];
    bench.run(1, 1);
    bench.pass_ms(1);
    assert_eq!(bench.handle(1, CommandFact::Exited { code: 143 }), []);
    assert_eq!(bench.pass_ms(OUTPUT_DRAIN_TIMEOUT_MS), killed);

    let mut bench = Bench::new();
    bench.run(1, 1);
    bench.pass_ms(1);
    assert_eq!(bench.exit(1, 143), killed);
}

#[test]
fn process_that_survives_sigkill_is_given_up() {
    let mut bench = Bench::new();
    bench.run(1, 1);
    bench.pass_ms(1);
    assert_eq!(bench.pass_ms(KILL_AFTER_MS).len(), 1);
    assert_eq!(bench.pass_ms(KILL_TIMEOUT_MS), [finish(1, CommandEnd::TimedOut, EXIT_TIMED_OUT)]);
    assert_eq!(bench.handle(1, CommandFact::Exited { code: 137 }), []);
}

#[test]
fn timeouts_are_clamped() {
    for (asked_ms, given_ms) in
        [(0, TIMEOUT_DEFAULT_MS), (1, 1), (TIMEOUT_MAX_MS, TIMEOUT_MAX_MS), (u64::MAX, TIMEOUT_MAX_MS)]
    {
        let mut bench = Bench::new();
        bench.run(1, asked_ms);
        let deadline = bench.commands.next_deadline();
        assert_eq!(deadline, Some(bench.now.after_ms(given_ms)));
    }
}

#[test]
fn cancel_ends_a_running_command_and_answers_a_waiting_one() {
    let mut bench = Bench::new();
    for command in 0..=16 {
        bench.request(command);
    }
    assert_eq!(bench.handle(16, CommandFact::CancelRequested), [finish(16, CommandEnd::Cancelled, EXIT_CANCELLED)]);
    let terminate = Order::TerminateCommand { command: CommandKey(3) };
    bench.handle(3, CommandFact::Started);
    assert_eq!(bench.handle(3, CommandFact::CancelRequested), [terminate]);
    assert_eq!(bench.handle(3, CommandFact::CancelRequested), []);
    assert_eq!(
        bench.exit(3, 0),
        [Order::KillCommand { command: CommandKey(3) }, finish(3, CommandEnd::Cancelled, EXIT_CANCELLED),]
    );
    assert_eq!(bench.handle(3, CommandFact::CancelRequested), []);
    assert_eq!(
        bench.request_as(17, 16, 0),
        [Order::RepeatResult { command: CommandKey(17), of: CommandKey(16) }],
        "a command that was cancelled while it waited is not run by a repeat"
    );
}

#[test]
fn a_cancel_after_the_exit_changes_nothing() {
    let mut bench = Bench::new();
    bench.run(1, 0);
    bench.handle(1, CommandFact::Exited { code: 5 });
    assert_eq!(bench.handle(1, CommandFact::CancelRequested), []);
    assert_eq!(bench.pass_ms(OUTPUT_DRAIN_TIMEOUT_MS), [finish(1, CommandEnd::Exited, 5)]);
}

#[test]
fn sixteen_run_the_rest_waits_in_order_and_too_many_are_refused() {
    let mut bench = Bench::new();
    let bound = u32::try_from(RUNNING_MAX).expect("small");
    let full = bound + u32::try_from(WAITING_MAX).expect("small");
    for command in 0..bound {
        assert_eq!(bench.request(command), [Order::StartCommand { command: CommandKey(command) }]);
    }
    for command in bound..full {
        assert_eq!(bench.request(command), []);
    }
    assert_eq!(bench.request(full), [refuse(full, Refusal::Busy)]);
    for command in 0..full - bound {
        let over = bench.exit(command, 0);
        let next = command + bound;
        let start = Order::StartCommand { command: CommandKey(next) };
        assert!(over.ends_with(&[start]), "{over:?}");
    }
    assert_eq!(bench.request_as(full + 1, u128::from(full), 0), [], "what was refused has not run, and may come again");
    assert_eq!(bench.commands.waiting(), 1);
}

#[test]
fn a_repeat_starts_nothing_and_gets_the_same_result() {
    let mut bench = Bench::new();
    bench.run(1, 0);
    assert_eq!(bench.request_as(2, 1, 0), []);
    assert_eq!(bench.exit(1, 0), [finish(1, CommandEnd::Exited, 0)]);
    for repeat in [3, 4] {
        let again = Order::RepeatResult { command: CommandKey(repeat), of: CommandKey(1) };
        assert_eq!(bench.request_as(repeat, 1, 0), [again]);
    }
}

#[test]
fn the_oldest_result_is_forgotten_and_its_repeat_never_runs() {
    let mut bench = Bench::new();
    for command in 0..256 {
        let over = bench.run_through(command);
        assert_eq!(over, [finish(command, CommandEnd::Exited, 0)]);
    }
    assert_eq!(
        bench.run_through(256),
        [finish(256, CommandEnd::Exited, 0), Order::ForgetResult { command: CommandKey(0) },]
    );
    let refused = bench.request_as(257, 0, 0);
    assert_eq!(refused, [refuse(257, Refusal::Forgotten)]);
}

#[test]
fn long_results_are_forgotten_sooner() {
    let mut bench = Bench::new();
    let bytes = 3 << 20;
    for command in 0..3 {
        bench.run_through(command);
        let forgotten = bench.handle(command, CommandFact::Answered { bytes });
        let expected = if command == 2 { vec![Order::ForgetResult { command: CommandKey(0) }] } else { vec![] };
        assert_eq!(forgotten, expected);
    }
    assert_eq!(bench.request_as(3, 0, 0), [refuse(3, Refusal::Forgotten)]);
    assert_eq!(bench.request_as(4, 1, 0), [Order::RepeatResult { command: CommandKey(4), of: CommandKey(1) }]);
}

#[test]
fn without_room_commands_are_refused_and_others_run() {
    let mut bench = Bench::new();
    for command in 0..17 {
        bench.request(command);
    }
    bench.commands.set_room(false);
    assert_eq!(bench.request(17), [refuse(17, Refusal::Busy)]);
    assert_eq!(bench.request_as(18, 0, 0), [], "a repeat needs no room");
    let over = bench.exit(0, 0);
    assert_eq!(over, [finish(0, CommandEnd::Exited, 0), Order::StartCommand { command: CommandKey(16) }]);
    bench.commands.set_room(true);
    assert_eq!(bench.request_as(19, 17, 0), []);
    assert_eq!(bench.commands.waiting(), 1);
}

#[test]
fn drain_refuses_waiting_and_ends_running_commands() {
    let mut bench = Bench::new();
    for command in 0..17 {
        bench.request(command);
    }
    for command in 0..3 {
        bench.handle(command, CommandFact::Started);
    }
    for command in 3..16 {
        bench.exit(command, 0);
    }
    for command in 17..31 {
        bench.request(command);
    }
    let mut expected = Vec::new();
    for command in 29..31 {
        expected.push(refuse(command, Refusal::Draining));
    }
    assert_eq!(bench.drain(|commands, _, orders| commands.drain_begin(orders)), expected);
    assert_eq!(bench.request(40), [refuse(40, Refusal::Draining)]);
    for command in 16..29 {
        bench.exit(command, 0);
    }
    assert_eq!(bench.commands.running(), 3);
    let terminated = bench.drain(Commands::drain_terminate);
    let terminate = |command| Order::TerminateCommand { command: CommandKey(command) };
    assert_eq!(terminated, [terminate(0), terminate(1), terminate(2)]);
    let kill = |command| Order::KillCommand { command: CommandKey(command) };
    assert_eq!(bench.exit(0, 0), [kill(0), finish(0, CommandEnd::Drained, 0)], "it caught the signal");
    assert_eq!(bench.handle(1, CommandFact::Exited { code: 143 }), []);
    assert_eq!(bench.drain(Commands::drain_kill), [kill(1), kill(2)]);
    assert_eq!(bench.handle(1, CommandFact::EndOfOutput), [finish(1, CommandEnd::Drained, 143)]);
    assert_eq!(bench.exit(2, 137), [finish(2, CommandEnd::Drained, EXIT_KILLED)]);
    assert!(bench.commands.is_empty());
}

#[test]
fn drain_keeps_the_earlier_reason_of_an_ending_command() {
    let mut bench = Bench::new();
    bench.run(1, 1);
    bench.pass_ms(1);
    assert_eq!(bench.drain(Commands::drain_terminate), []);
    let killed = bench.drain(Commands::drain_kill);
    assert_eq!(killed, [Order::KillCommand { command: CommandKey(1) }]);
    assert_eq!(bench.exit(1, 137), [finish(1, CommandEnd::TimedOut, EXIT_TIMED_OUT)]);
}

#[test]
fn time_without_a_running_machine_does_not_count() {
    let mut bench = Bench::new();
    bench.run(1, 1_000);
    bench.now = bench.now.after_ms(60_000);
    bench.commands.shift_ms(60_000);
    assert_eq!(bench.pass_ms(999), []);
    assert_eq!(bench.pass_ms(1).len(), 1);
}

#[test]
fn facts_about_unknown_commands_change_nothing() {
    let mut bench = Bench::new();
    for fact in [
        CommandFact::Started,
        CommandFact::Failed,
        CommandFact::Exited { code: 0 },
        CommandFact::EndOfOutput,
        CommandFact::CancelRequested,
    ] {
        assert_eq!(bench.handle(9, fact), vec![]);
    }
    bench.run(1, 0);
    assert_eq!(bench.request_as(1, 77, 0), []);
    bench.handle(1, CommandFact::Exited { code: 1 });
    assert_eq!(bench.handle(1, CommandFact::Exited { code: 2 }), []);
    let over = bench.handle(1, CommandFact::EndOfOutput);
    assert_eq!(over, [finish(1, CommandEnd::Exited, 1)]);
}

#[test]
fn hanging_start_is_answered_when_its_time_is_up() {
    let mut bench = Bench::new();
    bench.request_as(1, 1, 5_000);
    assert_eq!(bench.pass_ms(4_999), []);
    assert_eq!(bench.pass_ms(1), [finish(1, CommandEnd::TimedOut, EXIT_TIMED_OUT)]);
    assert_eq!(bench.handle(1, CommandFact::Started), [], "the caller that starts it kills it");
    assert!(bench.commands.is_empty());
}

#[test]
fn hanging_starts_make_room_for_waiting_commands() {
    let mut bench = Bench::new();
    for command in 0..=16 {
        bench.request_as(command, u128::from(command), 1_000);
    }
    let over = bench.pass_ms(1_000);
    assert_eq!(over.last(), Some(&Order::StartCommand { command: CommandKey(16) }));
    assert_eq!((bench.commands.running(), bench.commands.waiting()), (1, 0));
}

#[test]
fn cancel_or_drain_during_start_is_answered_at_once() {
    let mut bench = Bench::new();
    bench.request(1);
    bench.request(2);
    assert_eq!(bench.handle(1, CommandFact::CancelRequested), [finish(1, CommandEnd::Cancelled, EXIT_CANCELLED)]);
    assert_eq!(bench.drain(|commands, _, orders| commands.drain_begin(orders)), []);
    assert_eq!(bench.drain(Commands::drain_terminate), [finish(2, CommandEnd::Drained, EXIT_KILLED)]);
    assert!(bench.commands.is_empty());
}

#[test]
fn drained_command_that_survives_sigkill_reports_137() {
    let mut bench = Bench::new();
    bench.run(1, 0);
    bench.drain(Commands::drain_terminate);
    assert_eq!(bench.drain(Commands::drain_kill), [Order::KillCommand { command: CommandKey(1) }]);
    assert_eq!(bench.pass_ms(KILL_TIMEOUT_MS), [finish(1, CommandEnd::Drained, EXIT_KILLED)]);
}
