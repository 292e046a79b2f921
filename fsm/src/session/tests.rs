//! One rule a test.

use super::*;
use crate::id::SessionKey;
use SessionFact::{Attached, CloseRequested, EndOfOutput, Exited, OpenFailed, Opened, Opening, Reaped};

const HANG_UP: Order = Order::HangUpSession { session: SessionKey(1) };
const KILL: Order = Order::KillSession { session: SessionKey(1) };

fn finish(reason: SessionEnd, exit_code: i32) -> Order {
    Order::FinishSession { session: SessionKey(1), reason, exit_code }
}

/// Session 1, with a link; its shell runs unless said otherwise.
struct Stage {
    sessions: Sessions,
    now: Time,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self::starting();
        assert_eq!(stage.handle(Opened), []);
        stage
    }

    fn starting() -> Self {
        let mut sessions = Sessions::new();
        sessions.link_up(Time::START);
        let mut stage = Self { sessions, now: Time::START };
        assert_eq!(stage.handle(Opening), []);
        stage
    }

    fn handle(&mut self, fact: SessionFact) -> Vec<Order> {
        let mut orders = Vec::new();
        self.sessions.handle(self.now, SessionKey(1), &fact, &mut orders);
        orders
    }

    /// Lets time pass; the orders of every deadline in it.
    fn pass(&mut self, ms: u64) -> Vec<Order> {
        let until = self.now.after_ms(ms);
        let mut orders = Vec::new();
        while let Some(next) = self.sessions.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.sessions.tick(self.now, &mut orders);
        }
        self.now = until;
        orders
    }
}

#[test]
fn shell_exit_is_reported_after_the_end_of_output() {
    let mut stage = Stage::new();
    assert_eq!(stage.pass(1_000_000_000), []);
    assert_eq!(stage.handle(Exited { code: 3 }), []);
    assert_eq!(stage.handle(EndOfOutput), [finish(SessionEnd::Exited, 3)]);
    assert!(stage.sessions.is_empty());
    let mut stage = Stage::new();
    assert_eq!(stage.handle(EndOfOutput), []);
    assert_eq!(stage.handle(Exited { code: 4 }), [finish(SessionEnd::Exited, 4)]);
}

#[test]
fn a_background_process_may_hold_the_terminal_for_half_a_second() {
    let mut stage = Stage::new();
    stage.handle(Exited { code: 0 });
    assert_eq!(stage.pass(OUTPUT_DRAIN_TIMEOUT_MS - 1), []);
    assert_eq!(stage.pass(1), [finish(SessionEnd::Exited, 0)]);
}

#[test]
fn a_close_hangs_up_at_once_and_kills_after_two_seconds() {
    let mut stage = Stage::new();
    assert_eq!(stage.handle(CloseRequested), [HANG_UP]);
    assert_eq!(stage.handle(CloseRequested), []);
    assert_eq!(stage.pass(KILL_AFTER_MS - 1), []);
    assert_eq!(stage.pass(1), [KILL]);
    assert_eq!(stage.handle(Exited { code: 137 }), []);
    assert_eq!(stage.handle(EndOfOutput), [finish(SessionEnd::Closed, 137)]);
}

#[test]
fn close_ends_when_no_process_is_left() {
    let mut stage = Stage::new();
    stage.handle(CloseRequested);
    assert_eq!(stage.handle(Exited { code: 129 }), []);
    assert_eq!(stage.handle(EndOfOutput), []);
    assert_eq!(stage.handle(Reaped), [finish(SessionEnd::Closed, 129)]);
    // A stranger's process may hold the terminal.
    let mut stage = Stage::new();
    stage.handle(CloseRequested);
    stage.handle(Exited { code: 129 });
    assert_eq!(stage.handle(Reaped), []);
    assert_eq!(stage.pass(OUTPUT_DRAIN_TIMEOUT_MS), [finish(SessionEnd::Closed, 129)]);
}

#[test]
fn process_surviving_the_shell_of_a_closed_session_is_killed() {
    let mut stage = Stage::new();
    stage.handle(CloseRequested);
    stage.handle(Exited { code: 129 });
    stage.handle(EndOfOutput);
    assert_eq!(stage.pass(KILL_AFTER_MS), [KILL, finish(SessionEnd::Closed, 129)]);
}

#[test]
fn process_surviving_sigkill_is_given_up() {
    let mut stage = Stage::new();
    stage.handle(CloseRequested);
    assert_eq!(stage.pass(KILL_AFTER_MS + KILL_TIMEOUT_MS), [KILL, finish(SessionEnd::Closed, EXIT_KILLED)]);
}

#[test]
fn a_close_after_the_exit_kills_nothing() {
    let mut stage = Stage::new();
    stage.handle(Exited { code: 0 });
    assert_eq!(stage.handle(CloseRequested), []);
    assert_eq!(stage.pass(1_000_000), [finish(SessionEnd::Exited, 0)]);
}

#[test]
fn shell_that_closes_its_terminal_is_hung_up() {
    let mut stage = Stage::new();
    stage.handle(EndOfOutput);
    assert_eq!(stage.pass(EXIT_AFTER_EOF_TIMEOUT_MS), [HANG_UP]);
    assert_eq!(stage.pass(KILL_AFTER_MS), [finish(SessionEnd::Exited, EXIT_HUNG_UP)]);
    let mut stage = Stage::new();
    stage.handle(EndOfOutput);
    stage.pass(EXIT_AFTER_EOF_TIMEOUT_MS);
    assert_eq!(stage.handle(Exited { code: 129 }), [finish(SessionEnd::Exited, 129)]);
    let mut stage = Stage::new();
    stage.handle(EndOfOutput);
    stage.pass(EXIT_AFTER_EOF_TIMEOUT_MS);
    assert_eq!(stage.handle(CloseRequested), [], "it was hung up already");
    assert_eq!(stage.pass(KILL_AFTER_MS), [KILL]);
}

#[test]
fn ten_minutes_without_a_link_make_an_orphan() {
    let mut stage = Stage::new();
    assert!(!stage.sessions.is_orphan(SessionKey(1)));
    stage.sessions.link_down(stage.now);
    assert!(stage.sessions.is_orphan(SessionKey(1)));
    assert_eq!(stage.pass(ORPHAN_MS - 1), []);
    assert_eq!(stage.pass(1), [HANG_UP]);
    stage.handle(Exited { code: 129 });
    stage.handle(EndOfOutput);
    assert_eq!(stage.handle(Reaped), [finish(SessionEnd::Orphaned, 129)]);
}

#[test]
fn only_an_attach_stops_the_limit_of_a_session() {
    let mut stage = Stage::new();
    stage.sessions.link_down(stage.now);
    stage.pass(ORPHAN_MS / 2);
    stage.sessions.link_up(stage.now);
    assert!(stage.sessions.is_orphan(SessionKey(1)));
    stage.sessions.link_down(stage.now);
    assert_eq!(stage.pass(ORPHAN_MS / 2), [HANG_UP], "from when it was first left alone");
    let mut stage = Stage::new();
    stage.sessions.link_down(stage.now);
    stage.pass(ORPHAN_MS - 1);
    stage.sessions.link_up(stage.now);
    assert_eq!(stage.handle(Attached), []);
    assert!(!stage.sessions.is_orphan(SessionKey(1)));
    assert_eq!(stage.sessions.next_deadline(), None);
}

#[test]
fn session_used_without_a_link_has_a_limit() {
    let mut stage = Stage::new();
    stage.sessions.link_down(stage.now);
    stage.pass(1_000);
    stage.handle(Attached);
    assert_eq!(stage.sessions.next_deadline(), Some(Time::from_ms(1_000 + ORPHAN_MS)));
    let mut orders = Vec::new();
    stage.sessions.handle(stage.now, SessionKey(2), &Opening, &mut orders);
    assert!(stage.sessions.is_orphan(SessionKey(2)));
}

#[test]
fn time_that_was_not_lived_through_does_not_count() {
    let mut stage = Stage::new();
    stage.sessions.link_down(stage.now);
    stage.sessions.shift_ms(1_000);
    assert_eq!(stage.sessions.next_deadline(), Some(Time::from_ms(ORPHAN_MS + 1_000)));
    stage.sessions.link_up(stage.now);
    stage.handle(CloseRequested);
    stage.sessions.shift_ms(1_000);
    assert_eq!(stage.sessions.next_deadline(), Some(Time::from_ms(KILL_AFTER_MS + 1_000)));
}

#[test]
fn a_drain_hangs_up_and_then_kills() {
    let mut stage = Stage::new();
    let mut orders = Vec::new();
    stage.sessions.drain_hang_up(stage.now, &mut orders);
    assert_eq!(orders, [HANG_UP]);
    stage.now = Time::from_ms(1_500);
    stage.sessions.drain_kill(stage.now, &mut orders);
    assert_eq!(orders, [HANG_UP, KILL]);
    assert_eq!(stage.pass(KILL_TIMEOUT_MS), [finish(SessionEnd::Drained, EXIT_KILLED)]);
    orders.clear();
    stage.sessions.handle(stage.now, SessionKey(2), &Opening, &mut orders);
    let (reason, exit_code) = (SessionEnd::Drained, EXIT_KILLED);
    assert_eq!(orders, [Order::FinishSession { session: SessionKey(2), reason, exit_code }], "it came too late");
}

#[test]
fn drain_does_not_kill_processes_a_shell_left() {
    let mut stage = Stage::new();
    stage.handle(Exited { code: 0 });
    let mut orders = Vec::new();
    stage.sessions.drain_hang_up(stage.now, &mut orders);
    stage.sessions.drain_kill(stage.now, &mut orders);
    assert_eq!(orders, []);
    assert_eq!(stage.pass(OUTPUT_DRAIN_TIMEOUT_MS), [finish(SessionEnd::Exited, 0)]);
}

#[test]
fn one_session_too_many_ends_at_once() {
    let mut sessions = Sessions::new();
    let mut orders = Vec::new();
    for session in (2..).take(SESSIONS_MAX) {
        sessions.handle(Time::START, SessionKey(session), &Opening, &mut orders);
    }
    assert_eq!((orders.as_slice(), sessions.live()), ([].as_slice(), SESSIONS_MAX));
    sessions.handle(Time::START, SessionKey(1), &Opening, &mut orders);
    assert_eq!(orders, [finish(SessionEnd::SpawnFailed, EXIT_NOT_STARTED)]);
    assert_eq!(sessions.live(), SESSIONS_MAX);
}

#[test]
fn hanging_start_fails_after_ten_seconds() {
    let mut stage = Stage::starting();
    assert_eq!(stage.pass(SESSION_START_TIMEOUT_MS - 1), []);
    assert_eq!(stage.pass(1), [finish(SessionEnd::SpawnFailed, EXIT_NOT_STARTED)]);
    assert_eq!(stage.handle(Opened), [], "the host that starts it kills it");
    assert!(stage.sessions.is_empty());
}

#[test]
fn failed_start_reports_its_own_exit_code() {
    let mut stage = Stage::starting();
    assert_eq!(stage.handle(OpenFailed { exit_code: 127 }), [finish(SessionEnd::SpawnFailed, 127)]);
    let mut stage = Stage::new();
    assert_eq!(stage.handle(OpenFailed { exit_code: 127 }), [], "it runs already");
    assert!(!stage.sessions.is_empty());
}

#[test]
fn close_or_drain_during_start_finishes_at_once() {
    let mut stage = Stage::starting();
    assert_eq!(stage.handle(CloseRequested), [finish(SessionEnd::Closed, EXIT_KILLED)]);
    let mut stage = Stage::starting();
    let mut orders = Vec::new();
    stage.sessions.drain_hang_up(stage.now, &mut orders);
    assert_eq!(orders, [finish(SessionEnd::Drained, EXIT_KILLED)]);
}

#[test]
fn output_that_ends_before_start_is_reported_closes_terminal() {
    let mut stage = Stage::starting();
    assert_eq!(stage.handle(EndOfOutput), []);
    assert_eq!(stage.handle(Opened), []);
    assert_eq!(stage.pass(EXIT_AFTER_EOF_TIMEOUT_MS), [HANG_UP]);
    let mut stage = Stage::starting();
    assert_eq!(stage.handle(Exited { code: 1 }), []);
    assert_eq!(stage.handle(Opened), []);
    assert_eq!(stage.handle(EndOfOutput), [finish(SessionEnd::Exited, 1)]);
}

#[test]
fn new_session_opens_while_old_one_ends() {
    let mut stage = Stage::new();
    assert!(stage.sessions.is_usable(SessionKey(1)));
    assert_eq!(stage.handle(CloseRequested), [HANG_UP]);
    assert!(!stage.sessions.is_usable(SessionKey(1)));
    let mut orders = Vec::new();
    stage.sessions.handle(stage.now, SessionKey(2), &Opening, &mut orders);
    stage.sessions.handle(stage.now, SessionKey(2), &Opened, &mut orders);
    assert_eq!(orders, []);
    assert!(stage.sessions.is_usable(SessionKey(2)));
    assert_eq!(stage.pass(KILL_AFTER_MS + KILL_TIMEOUT_MS), [KILL, finish(SessionEnd::Closed, EXIT_KILLED)]);
    assert_eq!(stage.sessions.live(), 1);
}

#[test]
fn exited_shell_is_not_usable() {
    let mut stage = Stage::new();
    stage.handle(Exited { code: 0 });
    assert!(!stage.sessions.is_usable(SessionKey(1)));
}
