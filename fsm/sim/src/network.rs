//! What the network does: dials, batches on their way, breaks, stalls, and what both ends hear of that.
//!
//! It does not decide when something breaks; that is the storm's. Within one link nothing is lost or reordered but its
//! end.

use crate::plan::Fault;
use crate::planted::Planted;
use crate::wire::{Down, Up, Wire};
use crate::world::{Event, World};
use draupnir_fsm::driver::{Failure, LinkId, Loss, PortProbe, PortState};

/// What the network takes once all is calm.
pub(crate) const CALM_BYTES_PER_MS: u64 = 10_000;

/// When the console gives up on a socket of which it hears nothing (CONSOLE.md, "The WebSocket").
const GIVES_UP_MS: u64 = 30_000;

impl World {
    /// The agent dials: what the network and the console make of it.
    pub(crate) fn dial(&mut self, link: LinkId) {
        let (life, program) = (self.host.life, self.host.program);
        let way_ms = self.plan.latency_ms;
        let fail = |world: &mut Self, in_ms: u64, cause: Failure, retry_after_ms: Option<u64>| {
            world.note_in(in_ms, Event::DialFailed { program, link, cause, retry_after_ms });
        };
        let away = self.now_ms < self.console.away_until_ms;
        let unauthorized = self.now_ms < self.console.key_refused_until_ms && self.chance(50);
        let wait_ms = self.between(1, 3_000);
        match self.meets_one_of(&Fault::DIALS) {
            _ if away => fail(self, way_ms + 1, self.refusal(), None),
            _ if unauthorized => fail(self, way_ms + 5, Failure::Unauthorized, None),
            Some(Fault::DialRefused) => fail(self, way_ms + 1, self.refusal(), None),
            Some(Fault::DialUnreachable) => fail(self, wait_ms, Failure::Connect, None),
            Some(Fault::DialUnresolved) => fail(self, wait_ms, Failure::Resolve, None),
            Some(Fault::DialProxy) => fail(self, wait_ms, Failure::Proxy, None),
            Some(Fault::DialTls) => fail(self, wait_ms, Failure::Tls, None),
            Some(Fault::DialProtocol) => fail(self, wait_ms, Failure::Protocol, None),
            Some(Fault::DialBusy) => {
                let retry_after_ms = self.retry_after_ms();
                fail(self, wait_ms, Failure::Status, retry_after_ms);
            }
            Some(Fault::DialUnauthorized) => fail(self, way_ms + 5, Failure::Unauthorized, None),
            Some(Fault::DialHangs) => {}
            Some(Fault::DialSlow) => {
                let in_ms = self.between(2_000, 14_000);
                self.note_in(in_ms, Event::Accepts { life, link });
            }
            Some(_) | None => self.note_in(way_ms, Event::Accepts { life, link }),
        }
    }

    /// How a dial fails that is refused: a refusal by a proxy says nothing of the console.
    fn refusal(&self) -> Failure {
        if self.plan.faults.has(Fault::DialProxy) { Failure::Connect } else { Failure::Refused }
    }

    /// The agent probes the console's port.
    pub(crate) fn probe_port(&mut self, probe: PortProbe) {
        let program = self.host.program;
        let in_ms = self.plan.latency_ms + 1;
        let away = self.now_ms < self.console.away_until_ms;
        let found = match self.meets_one_of(&Fault::PORT_PROBES) {
            _ if away => PortState::Refused,
            Some(Fault::DialRefused) => PortState::Refused,
            Some(Fault::DialUnreachable) => PortState::Unreachable,
            Some(Fault::DialHangs) => return,
            Some(_) | None => PortState::Open,
        };
        self.note_in(in_ms, Event::PortProbed { program, probe, found });
    }

    /// The console's side of a connection comes up.
    pub(crate) fn accept(&mut self, life: u32, link: LinkId) {
        if life != self.host.life || self.host.dialling != Some(link) {
            return;
        }
        let slow = self.meets(Fault::LongDelay);
        let latency_ms = self.plan.latency_ms + if slow { self.between(200, 2_000) } else { 0 };
        let bytes_per_ms = if self.storm { self.plan.bytes_per_ms } else { CALM_BYTES_PER_MS };
        let stalled = |wire: &Wire| wire.stall.is_some() || wire.broken;
        self.wires.retain(|wire| wire.agent_open || wire.console_open || stalled(wire) && !wire.end_noticed);
        let row = self.dialled_row();
        let mut wire = Wire::new(link, latency_ms, bytes_per_ms, self.now_ms);
        wire.row = row;
        self.greeting_of(&mut wire);
        let (greets_ms, listens_ms) = (wire.greets_ms, wire.listens_ms);
        self.wires.push(wire);
        let program = self.host.program;
        self.note_in(latency_ms, Event::Opened { program, link });
        self.console_accepts(link);
        let refused = self.now_ms < self.console.key_refused_until_ms || !self.is_known(row);
        if refused {
            return self.note_at(listens_ms, Event::RefusesLink { life, link });
        }
        if let Some(greets_ms) = greets_ms {
            self.note_at(greets_ms, Event::Greets { life, link });
        }
    }

    /// The agent gave up a dial: the console hears of it at once.
    pub(crate) fn abandon(&mut self, link: LinkId) {
        if let Some(wire) = self.wire(link) {
            (wire.agent_open, wire.console_open, wire.end_noticed) = (false, false, true);
        }
        self.console.table.take_if(|current| *current == link);
    }

    /// Puts frames on their way; with `bytes`, they are the batch that the socket is writing.
    pub(crate) fn transmit(&mut self, link: LinkId, frames: &[(Up, u64)], bytes: u64) {
        let (now_ms, life) = (self.now_ms, self.host.life);
        let Some(wire) = self.wires.iter_mut().find(|wire| wire.link == link) else { return };
        // What is written to a link that broke goes nowhere, until the agent hears of it.
        if !wire.broken {
            for (frame, bytes) in frames {
                let at_ms = wire.send_up(now_ms, *frame, *bytes);
                self.agenda.note(at_ms, Event::Reaches { life, link });
            }
        }
        if bytes > 0 {
            let at_ms = wire.begin_batch(now_ms, bytes);
            self.agenda.note(at_ms, Event::Written { life, link });
        }
    }

    pub(crate) fn send_down(&mut self, link: LinkId, frame: Down) {
        let (now_ms, life) = (self.now_ms, self.host.life);
        let Some(wire) = self.wire(link) else { return };
        let at_ms = wire.send_down(now_ms, frame);
        self.note_at(at_ms, Event::Arrives { life, link });
    }

    /// A frame has reached the console, unless nothing passes.
    pub(crate) fn reach_console(&mut self, life: u32, link: LinkId) {
        let now_ms = self.now_ms;
        if life != self.host.life {
            return;
        }
        let Some(wire) = self.wire(link) else { return };
        if let Some(until_ms) = wire.stalled_until(now_ms) {
            if until_ms < u64::MAX {
                self.note_at(until_ms, Event::Reaches { life, link });
            }
            return;
        }
        let Some(frame) = wire.take_up(now_ms) else { return };
        match frame {
            Up::Reset => self.console_notices_end(life, link),
            frame if wire.console_open => self.console_reads(link, frame),
            _ => {}
        }
    }

    /// A stall is over.
    pub(crate) fn heal(&mut self, life: u32, link: LinkId) {
        let now_ms = self.now_ms;
        if life != self.host.life {
            return;
        }
        let Some(wire) = self.wire(link) else { return };
        if let Some(at_ms) = wire.heal(now_ms) {
            self.note_at(at_ms, Event::Written { life, link });
        }
        self.log(|| format!("link {link}: passes again"));
    }

    /// Nothing passes any more, for a while or for ever.
    pub(crate) fn stall(&mut self, link: LinkId, for_ms: Option<u64>) {
        let (now_ms, life) = (self.now_ms, self.host.life);
        let Some(wire) = self.wire(link).filter(|wire| wire.stall.is_none()) else { return };
        wire.harmed = true;
        wire.stall = Some((now_ms, for_ms.map_or(u64::MAX, |for_ms| now_ms + for_ms)));
        wire.dead_since_ms = Some(now_ms);
        match for_ms {
            Some(for_ms) => self.note_in(for_ms, Event::Heals { life, link }),
            None => self.note_in(GIVES_UP_MS, Event::GivesUp { life, link }),
        }
        self.log(|| format!("link {link}: nothing passes{}", if for_ms.is_some() { ", for a while" } else { "" }));
    }

    /// The link breaks in the middle of what is under way; each side hears of it, or not.
    pub(crate) fn cut_link(&mut self, link: LinkId, loss: Loss, console_notices: bool) {
        let (now_ms, life) = (self.now_ms, self.host.life);
        let kept_up = self.between(0, 4);
        let kept_down = self.between(0, 4);
        let Some(wire) = self.wire(link) else { return };
        (wire.harmed, wire.broken) = (true, true);
        wire.up.truncate(usize::try_from(kept_up).unwrap_or(0));
        wire.down.truncate(usize::try_from(kept_down).unwrap_or(0));
        if console_notices {
            let at_ms = wire.reset(now_ms);
            self.note_at(at_ms, Event::Reaches { life, link });
        } else {
            self.note_in(GIVES_UP_MS, Event::GivesUp { life, link });
        }
        self.log(|| format!("link {link}: breaks ({loss:?})"));
        self.send_down(link, Down::Lost(loss));
    }

    /// The agent's socket has nothing more to do: when it is gone, and whether that is said.
    pub(crate) fn socket_ends(&mut self, link: LinkId) {
        let program = self.host.program;
        let in_ms = if self.meets(Fault::ClosesLate) { self.between(500, 4_000) } else { self.between(0, 3) };
        self.note_in(in_ms, Event::Closed { program, link });
    }

    /// The agent resets its socket.
    pub(crate) fn drop_socket(&mut self, link: LinkId) {
        let (now_ms, life, program) = (self.now_ms, self.host.life, self.host.program);
        let silent = self.meets(Fault::ClosesLate);
        let in_ms = self.between(0, 2);
        let Some(wire) = self.wire(link) else { return };
        wire.agent_open = false;
        if wire.stalled_until(now_ms).is_some() {
            // The reset is lost like everything else.
            self.note_in(GIVES_UP_MS, Event::GivesUp { life, link });
        } else {
            let at_ms = wire.reset(now_ms);
            self.note_at(at_ms, Event::Reaches { life, link });
        }
        if !silent {
            self.note_in(in_ms, Event::Closed { program, link });
        }
    }

    /// The process is gone, and the kernel closes what it had open.
    pub(crate) fn process_gone(&mut self) {
        self.host.running = false;
        self.host.frozen = false;
        self.host.asleep_since_ms = None;
        self.host.rules.live = None;
        (self.host.dialling, self.host.probing) = (None, None);
        let now_ms = self.now_ms;
        let stalled = self.wires.iter().any(|wire| wire.console_open && wire.stalled_until(now_ms).is_some());
        // The next process cannot know that the console lost its route, so it will not resync.
        self.console.lost_routing_unseen |= stalled;
        let open: Vec<LinkId> = self.wires.iter().filter(|wire| wire.agent_open).map(|wire| wire.link).collect();
        for link in open {
            self.drop_socket(link);
        }
        if self.planted == Some(Planted::LeavesWithoutGoodbye) {
            self.console.goodbye = false;
        }
    }
}
