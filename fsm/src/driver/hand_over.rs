//! The hand-over: when the program at the agent's own path takes the place of this one.
//!
//! Nothing is given up before the new program has said that it can read the state, and before every file is written.
//! Then the link is closed with 1012, what is about to start has started, and the adapter replaces the program
//! (`take_over` is the other side of it). A step that fails or takes too long ends the hand-over; the agent goes on.
//!
//! | step | the adapter is asked | at most |
//! |---|---|---|
//! | [`Ask`](HandOverStep::Ask) | whether the new program can read the state | [`HAND_OVER_ASK_MS`] |
//! | [`AwaitTools`](HandOverStep::AwaitTools) | when no answer to an AI tool is in flight | [`HAND_OVER_TOOLS_MS`] |
//! | [`Flush`](HandOverStep::Flush) | when every file is written | [`HAND_OVER_FLUSH_MS`] |
//! | | nothing: the link closes, and starts end | [`HAND_OVER_SETTLE_MS`] |
//! | [`Replace`](HandOverStep::Replace) | to replace the program | |
//!
//! Answers to AI tools that take longer are cut; every other step that takes longer ends the hand-over.
//!
//! Units: milliseconds.

use super::output::{Action, Notice};
use super::ports::Body;
use super::{Driver, LinkId};
use crate::fact::Fact;
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// How long the new program may take to read the state: it is started for that, from a disk that may be slow.
pub const HAND_OVER_ASK_MS: u64 = 5_000;

/// How long answers to AI tools may go on before they are cut: most are over by then.
pub const HAND_OVER_TOOLS_MS: u64 = 30_000;

/// How long the files may take to be written, as at an exit.
pub const HAND_OVER_FLUSH_MS: u64 = 1_000;

/// How long the close handshake (1 s) and starts under way may take. A shell takes milliseconds to start.
pub const HAND_OVER_SETTLE_MS: u64 = 2_000;

/// What happens during a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandOverInput {
    /// The process received a signal that asks for it.
    Requested,
    /// The new program can read the state.
    Accepted,
    /// It cannot, or does not start.
    Rejected,
    /// No answer to an AI tool is in flight.
    ToolsDone,
    /// Every file is written.
    Flushed,
    /// The program could not be replaced.
    Failed,
}

/// What the adapter does for a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HandOverStep {
    /// Ask the new program whether it can read the state.
    Ask,
    /// Report when no answer to an AI tool is in flight.
    AwaitTools,
    /// Report when every file is written.
    Flush,
    /// Replace the program, at the end of this turn.
    Replace,
}

/// Why a hand-over did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HandOverRefusal {
    /// The agent is stopping.
    Draining,
    /// The new program cannot read the state, or does not start.
    Rejected,
    /// It did not answer in time.
    NoAnswer,
    /// A file is not written: its file system is too slow, or does not answer.
    NotFlushed,
    /// The start of a shell or command, or its record, took too long.
    NotSettled,
    /// The kernel refused.
    Failed,
}

/// How far a hand-over has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Idle,
    Asking(Time),
    AwaitingTools(Time),
    Flushing(Time),
    /// The link that is being closed.
    Settling(Option<LinkId>, Time),
    Replacing,
}

/// The hand-over.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct HandOver {
    stage: Stage,
    /// A dial that the machine wants: the new program dials.
    held_dial: Option<LinkId>,
}

impl HandOver {
    pub(super) const fn next_deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Idle | Stage::Replacing => None,
            Stage::Asking(at) | Stage::AwaitingTools(at) | Stage::Flushing(at) | Stage::Settling(_, at) => Some(at),
        }
    }

    pub(super) fn shift_ms(&mut self, ms: u64) {
        match &mut self.stage {
            Stage::Idle | Stage::Replacing => {}
            Stage::Asking(at) | Stage::AwaitingTools(at) | Stage::Flushing(at) | Stage::Settling(_, at) => {
                *at = at.after_ms(ms);
            }
        }
    }

    /// Whether the link is given up, and the program about to be replaced.
    pub(super) const fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Settling(..) | Stage::Replacing)
    }

    /// Keeps back a dial for which the new program will stand; false where none is expected.
    pub(super) fn hold_dial(&mut self, link: LinkId) -> bool {
        let holds = self.is_closing();
        if holds {
            self.held_dial = Some(link);
        }
        holds
    }

    pub(super) fn link_closed(&mut self, link: LinkId) {
        if let Stage::Settling(closing, _) = &mut self.stage {
            closing.take_if(|closing| *closing == link);
        }
    }

    /// The agent stops: no other program takes its place.
    pub(super) fn cancel(&mut self) {
        *self = Self::default();
    }
}

impl<B: Body> Driver<B> {
    pub(super) fn hand_over_input(&mut self, now: Time, what: HandOverInput) {
        match (what, self.hand_over.stage) {
            (HandOverInput::Requested, _) if self.machine.is_draining() => {
                self.log(Notice::HandOverRefused { why: HandOverRefusal::Draining });
            }
            (HandOverInput::Requested, Stage::Idle) => {
                self.hand_over.stage = Stage::Asking(now.after_ms(HAND_OVER_ASK_MS));
                self.order_step(HandOverStep::Ask);
            }
            (HandOverInput::Accepted, Stage::Asking(_)) => {
                self.hand_over.stage = Stage::AwaitingTools(now.after_ms(HAND_OVER_TOOLS_MS));
                self.order_step(HandOverStep::AwaitTools);
            }
            (HandOverInput::Rejected, Stage::Asking(_)) => self.refuse_hand_over(HandOverRefusal::Rejected),
            (HandOverInput::ToolsDone, Stage::AwaitingTools(_)) => self.begin_flush(now),
            (HandOverInput::Flushed, Stage::Flushing(_)) => self.begin_settle(now),
            (HandOverInput::Failed, Stage::Replacing) => self.refuse_hand_over(HandOverRefusal::Failed),
            // A second request, or an answer that comes too late.
            (
                HandOverInput::Requested
                | HandOverInput::Accepted
                | HandOverInput::Rejected
                | HandOverInput::ToolsDone
                | HandOverInput::Flushed
                | HandOverInput::Failed,
                _,
            ) => {}
        }
    }

    /// Does what time or the end of the last start brings; false where that is nothing.
    pub(super) fn advance_hand_over(&mut self, now: Time) -> bool {
        let is_due = self.hand_over.next_deadline().is_some_and(|deadline| deadline <= now);
        match self.hand_over.stage {
            // A dial was under way.
            Stage::Settling(None, until) if self.machine.has_link() => self.close_link(now, until),
            Stage::Settling(None, _) if self.is_settled_for_hand_over() => {
                self.hand_over.stage = Stage::Replacing;
                self.order_step(HandOverStep::Replace);
            }
            Stage::Asking(_) if is_due => self.refuse_hand_over(HandOverRefusal::NoAnswer),
            Stage::AwaitingTools(_) if is_due => {
                self.log(Notice::HandOverCutsTools);
                self.begin_flush(now);
            }
            Stage::Flushing(_) if is_due => self.refuse_hand_over(HandOverRefusal::NotFlushed),
            Stage::Settling(..) if is_due => self.refuse_hand_over(HandOverRefusal::NotSettled),
            Stage::Idle
            | Stage::Asking(_)
            | Stage::AwaitingTools(_)
            | Stage::Flushing(_)
            | Stage::Settling(..)
            | Stage::Replacing => return false,
        }
        true
    }

    fn begin_flush(&mut self, now: Time) {
        self.hand_over.stage = Stage::Flushing(now.after_ms(HAND_OVER_FLUSH_MS));
        self.order_step(HandOverStep::Flush);
    }

    fn begin_settle(&mut self, now: Time) {
        // Usage records become a message, which travels like the others.
        self.send_usage_now(now);
        self.close_link(now, now.after_ms(HAND_OVER_SETTLE_MS));
    }

    fn close_link(&mut self, now: Time, until: Time) {
        self.hand_over.stage = Stage::Settling(self.machine.link(), until);
        self.step(now, Fact::HandOverDue);
    }

    /// Whether nothing is between two states that the new program can take over.
    fn is_settled_for_hand_over(&self) -> bool {
        !self.machine.is_starting_a_child()
            && !self.machine.has_old_socket()
            && !self.sessions.is_admitting()
            && !self.commands.is_starting()
            && !self.journal.is_awaited()
            && self.audits.is_idle()
    }

    fn order_step(&mut self, step: HandOverStep) {
        self.out(Action::HandOver { step });
    }

    fn refuse_hand_over(&mut self, why: HandOverRefusal) {
        self.log(Notice::HandOverRefused { why });
        if let Some(link) = core::mem::take(&mut self.hand_over).held_dial {
            self.out(Action::Dial { link });
        }
    }
}
