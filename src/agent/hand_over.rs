//! The agent's side of a hand-over: does the driver's steps, gathers the state, and goes on with that of the program
//! before this one.

use super::Agent;
use super::host::Host;
use crate::hand_over::state::{Given, State};
use crate::hand_over::{self, question};
use crate::identity::Identity;
use crate::protocol::InstanceId;
use crate::report::Reporter;
use crate::sys;
use crate::writer::flush_all;
use async_io::Timer;
use draupnir_fsm::driver::{HAND_OVER_FLUSH_MS, HAND_OVER_TOOLS_MS, HandOverInput, HandOverStep, Input, TakenOver};
use smol::LocalExecutor;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How often a step looks whether it is done.
const POLL: Duration = Duration::from_millis(5);

/// The step that the driver wants, and what it needs.
pub(super) struct Steps {
    pub(super) wanted: Option<HandOverStep>,
    /// The program that takes over if the new one cannot begin.
    previous: Rc<RefCell<Option<String>>>,
    executor: Rc<LocalExecutor<'static>>,
    reporter: Reporter,
}

impl Steps {
    pub(super) fn new(executor: &Rc<LocalExecutor<'static>>, reporter: &Reporter) -> Self {
        Self { wanted: None, previous: Rc::default(), executor: Rc::clone(executor), reporter: reporter.clone() }
    }

    fn report(&self, what: impl Future<Output = HandOverInput> + 'static) {
        let reporter = self.reporter.clone();
        let report = async move {
            let what = what.await;
            reporter.report(what).await;
        };
        self.executor.spawn(report).detach();
    }

    /// Reports once this is so, unless the driver has given the step up by then.
    fn report_when(&self, what: HandOverInput, within_ms: u64, is_so: impl Fn() -> bool + 'static) {
        self.report(async move {
            let polls = u128::from(within_ms) / POLL.as_millis();
            for _ in 0..polls {
                if is_so() {
                    break;
                }
                Timer::after(POLL).await;
            }
            // One that comes too late has no effect.
            what
        });
    }
}

impl Agent {
    /// Does the step that this turn wants.
    pub(super) fn do_hand_over(&mut self) {
        let Some(step) = self.host.hand_over.wanted.take() else { return };
        match step {
            HandOverStep::Ask => {
                tracing::info!(program = %hand_over::own_program().display(), "hand-over requested");
                let (state, previous) = (self.state(), Rc::clone(&self.host.hand_over.previous));
                self.host.hand_over.report(async move {
                    match question::ask(state).await {
                        Ok(program) => {
                            previous.replace(program);
                            HandOverInput::Accepted
                        }
                        Err(error) => {
                            tracing::error!(%error, "the new program cannot take over");
                            HandOverInput::Rejected
                        }
                    }
                });
            }
            HandOverStep::AwaitTools => {
                let in_flight = self.host.listeners.as_ref().map_or_else(Rc::default, |tools| tools.in_flight());
                let is_done = move || Cell::get(&in_flight) == 0;
                self.host.hand_over.report_when(HandOverInput::ToolsDone, HAND_OVER_TOOLS_MS, is_done);
            }
            HandOverStep::Flush => {
                let is_done = || flush_all(Duration::ZERO);
                self.host.hand_over.report_when(HandOverInput::Flushed, 2 * HAND_OVER_FLUSH_MS, is_done);
            }
            HandOverStep::Replace => {
                tracing::info!("replacing the program");
                if let Some(service) = &self.service {
                    service.replacing();
                }
                let mut state = self.state();
                let error = hand_over::replace(&mut state);
                tracing::error!(%error, "the program was not replaced");
                self.pending.push(Input::HandOver { what: HandOverInput::Failed });
            }
        }
    }

    /// Everything that the next program goes on with.
    fn state(&mut self) -> State {
        let seed = self.driver.next_seed();
        let inheritance = self.driver.inheritance(self.now);
        let text = |text: super::Text| text.text.as_str().as_bytes().to_vec();
        let given = inheritance.into_iter();
        let given = given.map(|(what, body)| Given { what, text: body.map(text).unwrap_or_default() }).collect();
        let host = &self.host;
        let (next_session, sessions) = host.sessions.save();
        let (next_command, commands, streams) = host.commands.save();
        let Identity { id, path } = &host.identity;
        let mut state = State {
            is_partial: false,
            previous: host.hand_over.previous.borrow().clone(),
            seed,
            identity: (id.as_ref().map(|id| id.as_str().to_owned()), *path),
            next_session,
            next_command,
            given,
            sessions,
            commands,
            streams,
            discarded: host.commands.runner.save_discarded(),
            abandoned: Vec::new(),
            api_key: host.config.api_key.expose().as_bytes().to_vec(),
            hash_key: host.kept.journal.key().bytes().to_vec(),
        };
        state.abandoned = sys::child::abandoned(&state.processes());
        state
    }
}

/// The identity that the program before this one knew, which may be in no file.
pub(super) fn identity(state: &State) -> Option<Identity> {
    let (id, path) = &state.identity;
    let id = id.as_ref().and_then(|id| InstanceId::new(id).ok());
    id.map(|id| Identity { id: Some(id), path: *path })
}

impl Host {
    /// Goes on with the terminals and commands of the program before this one; the inputs that the driver takes in.
    pub(super) fn take_over(&mut self, state: &mut State) -> Vec<Input> {
        let (sessions, commands) = (std::mem::take(&mut state.sessions), std::mem::take(&mut state.commands));
        tracing::info!(sessions = sessions.len(), commands = commands.len(), "took over");
        sys::child::take_over_abandoned(&state.abandoned);
        let has_same_key = self.kept.journal.key().bytes()[..] == state.hash_key[..];
        self.sessions.take_over(state.next_session, sessions);
        self.commands.take_over(state.next_command, std::mem::take(&mut state.streams), commands);
        self.commands.runner.take_over_discarded(&state.discarded);
        let given = std::mem::take(&mut state.given).into_iter();
        given.filter_map(|given| self.given(given, has_same_key)).map(|what| Input::TakenOver { what }).collect()
    }

    /// Keeps the text of an input. Ids are hashed again where the journal has another key, as far as they are known.
    fn given(&mut self, Given { mut what, text }: Given, has_same_key: bool) -> Option<TakenOver> {
        let number = match what {
            TakenOver::Message { number, .. } | TakenOver::Result { number: Some(number), .. } => Some(number),
            TakenOver::Begun { .. }
            | TakenOver::Ended { .. }
            | TakenOver::Session { .. }
            | TakenOver::Command { .. }
            | TakenOver::Waiting { .. }
            | TakenOver::Stream { .. }
            | TakenOver::Result { number: None, .. } => None,
        };
        if let (Some(number), Ok(text)) = (number.filter(|_| !text.is_empty()), String::from_utf8(text)) {
            self.kept.keep_text(number, text.into());
        }
        if has_same_key {
            return Some(what);
        }
        match &mut what {
            TakenOver::Begun { .. } | TakenOver::Stream { .. } => {}
            TakenOver::Session { session, id, .. } => *id = self.kept.console_id(self.sessions.id(*session)?.as_str()),
            TakenOver::Command { command, id, .. } | TakenOver::Waiting { command, id, .. } => {
                *id = self.kept.console_id(self.commands.id(*command)?.as_str());
            }
            TakenOver::Message { of, session, .. } => (*of, *session) = (None, None),
            TakenOver::Ended { .. } | TakenOver::Result { .. } => return None,
        }
        Some(what)
    }
}
