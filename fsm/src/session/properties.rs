//! Console, processes and clock act in any order; a model beside the sessions checks every order they give.

use super::*;
use crate::id::SessionKey;
use alloc::collections::{BTreeMap, BTreeSet};
use proptest::prelude::*;

/// One thing that can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A fact about one of a few sessions, sensible or not.
    Fact(SessionKey, SessionFact),
    /// Time passes, with a tick at its end.
    Pass(u64),
    /// The machine is suspended: time passes without the process.
    Sleep(u64),
    LinkUp,
    LinkDown,
    DrainHangUp,
    DrainKill,
}

fn fact() -> impl Strategy<Value = SessionFact> {
    prop_oneof![
        3 => Just(SessionFact::Opening),
        3 => Just(SessionFact::Opened),
        1 => (0..256).prop_map(|exit_code| SessionFact::OpenFailed { exit_code }),
        1 => Just(SessionFact::Attached),
        1 => Just(SessionFact::CloseRequested),
        1 => (0..256).prop_map(|code| SessionFact::Exited { code }),
        1 => Just(SessionFact::EndOfOutput),
        1 => Just(SessionFact::Reaped),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1_u32..6, fact()).prop_map(|(session, fact)| Step::Fact(SessionKey(session), fact)),
        8 => prop_oneof![0_u64..3_000, 0_u64..700_000].prop_map(Step::Pass),
        1 => (0_u64..100_000).prop_map(Step::Sleep),
        2 => Just(Step::LinkUp),
        2 => Just(Step::LinkDown),
        1 => Just(Step::DrainHangUp),
        1 => Just(Step::DrainKill),
    ]
}

/// What the model knows of one session that is not finished.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    hung_up: bool,
    killed: bool,
    exited_by_itself: Option<i32>,
    opened: bool,
    /// It was closed at this time, sleep not counted.
    closed: Option<Time>,
}

#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<SessionKey, Known>,
    finished: BTreeSet<SessionKey>,
    linked: bool,
}

impl Model {
    fn see(&mut self, now: Time, orders: &[Order]) -> Result<(), TestCaseError> {
        for order in orders {
            match *order {
                Order::HangUpSession { session } => {
                    let known = self.known(session)?;
                    prop_assert!(known.opened && !known.hung_up && known.exited_by_itself.is_none());
                    known.hung_up = true;
                    known.closed = Some(now);
                }
                Order::KillSession { session } => {
                    let known = self.known(session)?;
                    prop_assert!(known.hung_up && !known.killed && known.exited_by_itself.is_none());
                    known.killed = true;
                }
                Order::FinishSession { session, reason, exit_code } => {
                    let known = *self.known(session)?;
                    if let Some(code) = known.exited_by_itself {
                        prop_assert_eq!((reason, exit_code), (SessionEnd::Exited, code));
                    }
                    prop_assert!(known.hung_up || known.exited_by_itself.is_some() || !known.opened);
                    self.sessions.remove(&session);
                    self.finished.insert(session);
                }
                ref other => prop_assert!(false, "not an order of a session: {other:?}"),
            }
        }
        Ok(())
    }

    fn known(&mut self, session: SessionKey) -> Result<&mut Known, TestCaseError> {
        self.sessions.get_mut(&session).ok_or_else(|| TestCaseError::fail("an order for a session that is finished"))
    }

    /// What a fact changes, before the sessions see it.
    fn learn(&mut self, session: SessionKey, fact: SessionFact) {
        match fact {
            SessionFact::Opening => {
                self.sessions.entry(session).or_default();
            }
            SessionFact::Opened => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.opened = true;
                }
            }
            SessionFact::Exited { code } => {
                if let Some(known) = self.sessions.get_mut(&session).filter(|known| !known.hung_up) {
                    known.exited_by_itself.get_or_insert(code);
                }
            }
            SessionFact::OpenFailed { .. }
            | SessionFact::Attached
            | SessionFact::CloseRequested
            | SessionFact::EndOfOutput
            | SessionFact::Reaped => {}
        }
    }

    fn check(&self, now: Time, sessions: &Sessions) -> Result<(), TestCaseError> {
        prop_assert_eq!(sessions.live(), self.sessions.len());
        prop_assert_eq!(sessions.is_empty(), self.sessions.is_empty());
        for (session, known) in &self.sessions {
            // A session that was closed, has ended, or cannot be reached, has a deadline.
            let waits = !known.opened || known.hung_up || known.exited_by_itself.is_some() || !self.linked;
            let found = sessions.sessions.get(session).ok_or_else(|| TestCaseError::fail("a session is lost"))?;
            prop_assert!(!waits || found.deadline().is_some(), "{:?} {:?}", known, found);
            if let Some(closed) = known.closed {
                // Letting go of a terminal and then being closed are two beginnings.
                prop_assert!(now.ms_since(closed) <= 2 * KILL_AFTER_MS + KILL_TIMEOUT_MS);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_session_ends_once_and_in_order(steps in proptest::collection::vec(step(), 1..200)) {
        let mut sessions = Sessions::new();
        let mut model = Model::default();
        let mut now = Time::START;
        let mut orders = Vec::new();
        for step in steps {
            match step {
                Step::Fact(session, fact) => {
                    // Numbers are never used again.
                    if fact != SessionFact::Opening || !model.finished.contains(&session) {
                        model.learn(session, fact);
                        sessions.handle(now, session, &fact, &mut orders);
                    }
                }
                Step::Pass(ms) => {
                    let until = now.after_ms(ms);
                    while let Some(next) = sessions.next_deadline().filter(|next| *next <= until) {
                        now = now.max(next);
                        sessions.tick(now, &mut orders);
                        model.see(now, &orders)?;
                        orders.clear();
                    }
                    now = until;
                }
                Step::Sleep(ms) => {
                    now = now.after_ms(ms);
                    sessions.shift_ms(ms);
                    for known in model.sessions.values_mut() {
                        known.closed = known.closed.map(|closed| closed.after_ms(ms));
                    }
                }
                Step::LinkUp => {
                    model.linked = true;
                    sessions.link_up(now);
                }
                Step::LinkDown => {
                    model.linked = false;
                    sessions.link_down(now);
                }
                Step::DrainHangUp => sessions.drain_hang_up(now, &mut orders),
                Step::DrainKill => sessions.drain_kill(now, &mut orders),
            }
            model.see(now, &orders)?;
            orders.clear();
            model.check(now, &sessions)?;
        }
        // Left alone for long enough, nothing is left.
        sessions.link_down(now);
        let kill_ms = 2 * KILL_AFTER_MS + KILL_TIMEOUT_MS;
        let end = now.after_ms(ORPHAN_MS + EXIT_AFTER_EOF_TIMEOUT_MS + kill_ms + OUTPUT_DRAIN_TIMEOUT_MS);
        while let Some(next) = sessions.next_deadline() {
            prop_assert!(next <= end);
            now = now.max(next);
            sessions.tick(now, &mut orders);
            model.see(now, &orders)?;
            orders.clear();
        }
        prop_assert!(sessions.is_empty());
        prop_assert!(model.sessions.is_empty());
    }
}
