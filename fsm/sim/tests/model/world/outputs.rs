//! What the driver wants, done.

use super::World;
use super::calm::Broken;
use super::wire::{Ping, Up};
use super::work::{Host, Text};
use crate::setting::Part;
use draupnir_fsm::driver::{Action as Do, Frame, Input, LinkId, Notice, Output, SessionInput};
use draupnir_sim::planted::Planted;

/// More outputs in one turn are a loop that does not end.
const OUTPUTS_MAX: u32 = 1_000;

impl World {
    pub(super) fn turn(&mut self, input: Input) {
        self.driver.handle(self.now, input);
        self.polled();
    }

    /// Does what the driver wants until it wants nothing.
    pub(super) fn polled(&mut self) {
        let mut outputs = 0;
        loop {
            let mut follow_up = Vec::new();
            let mut host = Host { part: self.setting.part, planted: self.setting.planted, work: &mut self.work };
            while let Some(output) = self.driver.poll(self.now, &mut host) {
                outputs += 1;
                if outputs > OUTPUTS_MAX {
                    self.require(false, Broken::Deadline);
                    return;
                }
                follow_up.extend(self.perform(output));
                host = Host { part: self.setting.part, planted: self.setting.planted, work: &mut self.work };
            }
            if follow_up.is_empty() {
                break;
            }
            follow_up.into_iter().for_each(|input| self.driver.handle(self.now, input));
        }
        self.check();
    }

    pub(super) fn perform(&mut self, output: Output<Text>) -> Option<Input> {
        match output {
            Output::Write { link, frames } => return self.write(link, frames),
            Output::Append { append, .. } => return Some(Input::Appended { append }),
            Output::Do(Do::Register { attempt, .. }) => {
                (self.registering, self.newest_attempt, self.hung) = (Some(attempt), attempt, false);
            }
            Output::Do(Do::AbandonRegistration { attempt, .. }) => {
                (self.registering, self.late_registration) = (None, Some(attempt));
            }
            Output::Do(Do::Dial { link }) => {
                let is_open = self.wire.is_some() || self.closing.is_some_and(|(_, is_closed)| !is_closed);
                self.require(!is_open && self.dialling.is_none(), Broken::SecondLink);
                (self.dialling, self.newest_link, self.hung) = (Some(link), link, false);
            }
            Output::Do(Do::ProbePort { probe }) => (self.probing, self.hung) = (Some(probe), false),
            Output::Do(Do::AbandonPortProbe { .. }) => self.probing = None,
            Output::Do(Do::AbandonDial { link, .. }) => (self.dialling, self.late_dial) = (None, Some(link)),
            Output::Do(Do::CloseLink { link, .. }) => {
                if let Some(wire) = self.wire.take_if(|wire| wire.link == link) {
                    self.leave(wire.up, wire.down);
                    self.closing = Some((link, false));
                }
            }
            Output::Do(Do::DropLink { link }) => {
                let is_dropped = self.setting.planted != Some(Planted::KeepsDeadSockets);
                if let Some(wire) = self.wire.take_if(|wire| wire.link == link) {
                    self.leave(wire.up, wire.down);
                    self.closing = Some((link, is_dropped));
                } else if let Some((_, is_closed)) = self.closing.as_mut().filter(|(closing, _)| *closing == link) {
                    *is_closed |= is_dropped;
                }
            }
            Output::Do(Do::TakeSample { sample }) => return Some(Input::Sampled { sample }),
            Output::Do(Do::OpenSession { session, .. }) => {
                self.work.is_open = true;
                return Some(Input::Session { session, what: SessionInput::Opened });
            }
            Output::Do(Do::ReadCredit { keep_from: Some(acked), .. }) => {
                self.require(acked <= self.console.bytes, Broken::Acknowledged);
            }
            Output::Do(Do::Release { .. }) => {
                self.require(self.console.bytes == self.work.printed, Broken::Acknowledged);
            }
            Output::Do(Do::Log {
                notice: Notice::MessageDropped { .. } | Notice::PoisonDropped { .. } | Notice::ResultCut { .. },
            }) => self.require(false, Broken::Order),
            Output::Do(_) => {}
        }
        None
    }

    pub(super) fn write(&mut self, link: LinkId, mut frames: Vec<Frame<Text>>) -> Option<Input> {
        let Some(wire) = self.wire.as_mut().filter(|wire| wire.link == link) else {
            self.require(false, Broken::SecondLink);
            return None;
        };
        if self.setting.planted == Some(Planted::ReversesBatches) {
            frames.reverse();
        }
        for frame in frames {
            match frame {
                Frame::Text(text) if self.setting.part == Part::Delivery => wire.up.push_back(Up::Text(text)),
                Frame::Text(_) => {}
                Frame::Ping(payload) => {
                    self.newest_ping = Some(payload);
                    wire.newest_ping = Ping(payload).number();
                    match self.setting.part {
                        Part::Delivery => wire.up.push_back(Up::Ping(Ping(payload))),
                        Part::Connection => wire.down.push_back(Ping(payload)),
                    }
                }
            }
        }
        if wire.silent {
            wire.up.clear();
            wire.down.clear();
        }
        (!wire.stuck).then_some(Input::Written { link })
    }
}
