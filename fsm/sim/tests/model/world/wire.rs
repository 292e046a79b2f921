//! A connection as the agent sees it: what is on its way up and down.

use super::World;
use super::work::Text;
use draupnir_fsm::driver::{Input, LinkId, PING_PAYLOAD_BYTES, Time};
use draupnir_sim::planted::Planted;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// A Ping or its Pong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping(pub(super) [u8; PING_PAYLOAD_BYTES]);

impl Ping {
    pub(super) fn number(self) -> u32 {
        u32::from_be_bytes(self.0[6..10].try_into().expect("four bytes"))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Up {
    Text(Text),
    Ping(Ping),
}

/// A connection as the agent sees it.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) link: LinkId,
    pub(super) opened: Time,
    /// What the console hears; before, it reads and forgets.
    pub(super) listens: bool,
    pub(super) greeted: bool,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<Ping>,
    pub(super) newest_ping: u32,
    pub(super) silent: bool,
    pub(super) stuck: bool,
}

/// A Ping of an old link is like any other: of the live one, its age tells which it is.
pub(super) fn hash_frames<H: Hasher>(frames: &VecDeque<Up>, newest: Option<u32>, state: &mut H) {
    state.write_usize(frames.len());
    for frame in frames {
        match (frame, newest) {
            (Up::Text(text), _) => text.hash(state),
            (Up::Ping(ping), Some(newest)) => hash_ping(*ping, newest, state),
            (Up::Ping(_), None) => state.write_u8(u8::MAX),
        }
    }
}

pub(super) fn hash_ping<H: Hasher>(ping: Ping, newest: u32, state: &mut H) {
    state.write_u8(u8::MAX);
    (newest.wrapping_sub(ping.number()), &ping.0[10..]).hash(state);
}

impl World {
    pub(super) fn pong_arrives(&mut self) {
        let planted = self.setting.planted;
        let Some(wire) = &mut self.wire else { return };
        let Some(Ping(mut payload)) = wire.down.pop_front() else { return };
        let link = wire.link;
        if planted == Some(Planted::AcknowledgesPastThePing) {
            payload = self.newest_ping.unwrap_or(payload);
        }
        self.turn(Input::Pong { link, payload });
    }

    pub(super) fn old_pong_arrives(&mut self) {
        let Some(Ping(payload)) = self.old_down.pop_front() else { return };
        match (self.setting.planted, &self.wire, self.newest_ping) {
            (Some(Planted::AcceptsPongsOfOldLinks), Some(Wire { link, .. }), Some(payload)) => {
                self.turn(Input::Pong { link: *link, payload });
            }
            _ => {
                let link = LinkId(u32::from_be_bytes(payload[2..6].try_into().expect("four bytes")));
                self.turn(Input::Pong { link, payload });
            }
        }
    }
}
