//! Finds the processes that remain of sessions whose shell is gone, in one scan for all sessions of one turn.
//!
//! The loop orders when to kill. Where the system cannot show the end of a process that is no child, nothing is
//! reported, and the kill ends the session.

use super::TerminalReport;
use crate::report::Reporter;
use crate::sys::session::{Member, kill_sessions, members};
use draupnir_fsm::driver::SessionKey;
use futures_lite::future::yield_now;
use rustix::process::Pid;
use smol::LocalExecutor;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// How many remaining processes of one session are watched. Each takes a descriptor; a session with more is rare, and
/// its end is then reported after the kill.
const MEMBERS_WATCHED_MAX: usize = 8;

/// How often to scan again for processes that the remaining ones have started.
const LOOKS_MAX: usize = 4;

/// Collects the questions of one turn.
#[derive(Clone)]
pub(super) struct Sweeper {
    executor: Rc<LocalExecutor<'static>>,
    reports: Reporter,
    asked: Rc<RefCell<Asked>>,
}

#[derive(Debug, Default)]
struct Asked {
    kill: Vec<Pid>,
    report: Vec<(SessionKey, Pid)>,
    sweeps: bool,
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweeper").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Sweeper {
    pub(super) fn new(executor: Rc<LocalExecutor<'static>>, reports: Reporter) -> Self {
        Self { executor, reports, asked: Rc::default() }
    }

    /// Kills every process of this session, soon.
    pub(super) fn kill(&self, session: Pid) {
        self.asked.borrow_mut().kill.push(session);
        self.start();
    }

    /// Reports when no process of this session is left but its leader.
    pub(super) fn report_when_gone(&self, key: SessionKey, session: Pid) {
        self.asked.borrow_mut().report.push((key, session));
        self.start();
    }

    fn start(&self) {
        if self.asked.borrow_mut().sweeps {
            return;
        }
        self.asked.borrow_mut().sweeps = true;
        let sweeper = self.clone();
        self.executor.spawn(async move { sweeper.sweep().await }).detach();
    }

    async fn sweep(self) {
        // All sessions that ask in this turn share one scan.
        yield_now().await;
        let Asked { kill, report, .. } = self.asked.take();
        kill_sessions(&kill);
        if report.is_empty() {
            return;
        }
        let sessions: Vec<Pid> = report.iter().map(|(_, session)| *session).collect();
        let mut found = members(&sessions);
        for (key, session) in report {
            let of_it = take_those_of(session, &mut found);
            if of_it.is_empty() {
                self.reports.report(TerminalReport::Reaped { session: key }).await;
            } else if of_it.len() <= MEMBERS_WATCHED_MAX {
                let reports = self.reports.clone();
                self.executor.spawn(report_after(of_it, key, session, reports)).detach();
            }
        }
    }
}

fn take_those_of(session: Pid, found: &mut Vec<Member>) -> Vec<Member> {
    let (those, others) = std::mem::take(found).into_iter().partition(|member| member.session() == session);
    *found = others;
    those
}

/// Waits for these, and for what they have started meanwhile.
async fn report_after(mut found: Vec<Member>, key: SessionKey, session: Pid, reports: Reporter) {
    for _ in 0..LOOKS_MAX {
        for member in found {
            if !member.gone().await {
                return; // The system cannot show it.
            }
        }
        found = members(&[session]);
        if found.is_empty() {
            reports.report(TerminalReport::Reaped { session: key }).await;
            return;
        }
        if found.len() > MEMBERS_WATCHED_MAX {
            return;
        }
    }
}
