//! stub until the session lifecycle lands
use crate::fact::{Key, SessionFact};
use crate::order::Order;
use crate::time::Time;
use alloc::vec::Vec;
/// stub
pub const SESSIONS_MAX: usize = 256;
/// stub
#[derive(Clone, Debug, Default)]
pub struct Sessions {}
#[allow(missing_docs, clippy::unused_self)]
impl Sessions {
    pub fn new() -> Self {
        Self {}
    }
    pub fn handle(&mut self, _now: Time, _s: Key, _f: &SessionFact, _o: &mut Vec<Order>) {}
    pub fn tick(&mut self, _now: Time, _o: &mut Vec<Order>) {}
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }
    pub fn shift_ms(&mut self, _ms: u64) {}
    pub fn link_up(&mut self, _now: Time) {}
    pub fn link_down(&mut self, _now: Time) {}
    pub fn drain_hang_up(&mut self, _now: Time, _o: &mut Vec<Order>) {}
    pub fn drain_kill(&mut self, _now: Time, _o: &mut Vec<Order>) {}
    pub fn is_empty(&self) -> bool {
        true
    }
    pub fn is_orphan(&self, _s: Key) -> bool {
        false
    }
}
