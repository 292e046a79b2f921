//! What goes wrong, and what is asked of the agent meanwhile.
//!
//! It applies what the plan permits, at moments drawn from the world's generator. When the storm is over it mends what
//! a network and a console mend by themselves; a dead link stays dead.

use crate::network::CALM_BYTES_PER_MS;
use crate::plan::{Fault, Terminals};
use crate::wire::Down;
use crate::work::{Dispatch, Poison, Terminal};
use crate::world::{Event, World};
use draupnir_fsm::driver::{
    COMMANDS_RUNNING_MAX, COMMANDS_WAITING_MAX, CloseReason, LinkId, Loss, SESSIONS_MAX, StreamKey, USAGE_RECORDS_MAX,
};

/// Codes that a console, or what stands before it, closes with.
const CLOSE_CODES: [u16; 14] = [1000, 1001, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 4999];

/// Codes of those that blame a message.
const POISON_CODES: [u16; 3] = [1003, 1007, 1009];

/// How many terminals a console opens, but for a crowd.
const TERMINALS_MAX: usize = 3;

/// How long a command lasts that does not end by itself.
const FOR_EVER_MS: u64 = 1 << 40;

impl World {
    pub(crate) fn next_fault(&mut self) {
        if self.script_is_over() {
            return self.note_in(0, Event::Calms);
        }
        let in_ms = self.between(1, self.plan.fault_every_ms);
        self.note_in(in_ms, Event::InjectFault);
    }

    pub(crate) fn next_work(&mut self) {
        let in_ms = self.between(1, self.plan.work_ms);
        self.note_in(in_ms, Event::Works);
    }

    /// One of the faults that strike by themselves does.
    pub(crate) fn inject_fault(&mut self) {
        if !self.storm {
            return;
        }
        self.next_fault();
        let known = Fault::INJECTED.into_iter().filter(|fault| self.plan.faults.has(*fault)).count();
        if known == 0 {
            return;
        }
        let place = self.pick(known);
        let fault = Fault::INJECTED.into_iter().filter(|fault| self.plan.faults.has(*fault)).nth(place);
        if let Some(fault) = fault {
            self.apply(fault);
        }
    }

    fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Freeze => self.freeze(false),
            Fault::Suspend => self.freeze(true),
            Fault::ClockStep => {
                self.host.real_step_ms += self.between(6_000, 40_000_000_000);
                self.log(|| "the real-time clock is set".to_owned());
            }
            Fault::Shutdown => self.shut_down(),
            Fault::Crash => self.crash(),
            Fault::Recreated => {
                if self.host.running {
                    self.crash();
                    self.recreate();
                }
            }
            Fault::Twin => self.twin_comes(),
            Fault::HandOver => self.ask_to_hand_over(),
            Fault::PanicRestart => self.panic_restart(),
            Fault::KeyRefused => {
                self.console.key_refused_until_ms = self.now_ms + self.between(1_000, 120_000);
                self.log(|| "the key is refused for a while".to_owned());
                self.apply_to_link(fault);
            }
            Fault::Forgotten => {
                self.forget_instance();
                self.log(|| "the console forgets the instance".to_owned());
                self.apply_to_link(fault);
            }
            Fault::Restart => {
                self.console.away_until_ms = self.now_ms + self.between(200, 60_000);
                self.log(|| "the console restarts".to_owned());
                self.apply_to_link(fault);
            }
            _ => self.apply_to_link(fault),
        }
    }

    /// What befalls the connection that is up, if one is.
    fn apply_to_link(&mut self, fault: Fault) {
        let Some(wire) = self.wires.iter().rev().find(|wire| wire.agent_open && wire.console_open) else { return };
        let link = wire.link;
        let brief_ms = self.between(200, 15_000);
        match fault {
            Fault::Reset => self.cut_link(link, Loss::Reset, true),
            Fault::Eof => self.cut_link(link, Loss::Eof, true),
            Fault::Garbage => {
                let loss = if self.chance(50) { Loss::Protocol } else { Loss::TooBig };
                self.cut_link(link, loss, true);
            }
            Fault::OneSidedReset => self.cut_link(link, Loss::Reset, false),
            Fault::StallForEver => self.stall(link, None),
            Fault::StallBriefly => self.stall(link, Some(brief_ms)),
            Fault::SlowLink => {
                let bytes_per_ms = self.between(2, 60);
                if let Some(wire) = self.wire(link) {
                    (wire.bytes_per_ms, wire.harmed) = (bytes_per_ms, true);
                }
                self.log(|| format!("link {link}: {bytes_per_ms} bytes a millisecond"));
            }
            Fault::CloseCodes => {
                let place = self.pick(CLOSE_CODES.len());
                let code = CLOSE_CODES.get(place).copied().unwrap_or(1000);
                self.console_closes(link, code, CloseReason::Other);
            }
            Fault::Replaced => self.console_closes(link, 1001, CloseReason::Replaced),
            Fault::KeyRefused => self.console_closes(link, 1008, CloseReason::Authentication),
            Fault::Forgotten => self.console_closes(link, 1008, CloseReason::UnknownInstance),
            Fault::Restart => match self.between(0, 2) {
                0 => self.console_closes(link, 1012, CloseReason::Other),
                1 => self.console_closes(link, 1001, CloseReason::Other),
                _ => self.cut_link(link, Loss::Reset, true),
            },
            Fault::PongsSwallowed => {
                let now_ms = self.now_ms;
                if let Some(wire) = self.wire(link) {
                    (wire.answers_pings, wire.harmed) = (false, true);
                    wire.dead_since_ms.get_or_insert(now_ms);
                }
                self.log(|| format!("link {link}: Pings are answered no more"));
            }
            Fault::PongsForeign => {
                let mut payload = [0; 16];
                payload[..8].copy_from_slice(&self.random.next_u64().to_be_bytes());
                self.send_down(link, Down::Pong(payload));
            }
            _ => {}
        }
    }

    /// The process stops, or the machine under it sleeps.
    fn freeze(&mut self, asleep: bool) {
        if self.host.frozen || !self.host.running {
            return;
        }
        let for_ms = match self.between(0, 3) {
            0 => self.between(1, 1_900),
            1 => self.between(2_100, 20_000),
            2 => self.between(20_000, 300_000),
            _ => self.between(1_000, 3_600_000),
        };
        self.host.frozen = true;
        self.host.asleep_since_ms = asleep.then_some(self.now_ms);
        let life = self.host.life;
        self.log(|| format!("the {} for {for_ms} ms", if asleep { "machine sleeps" } else { "process is stopped" }));
        self.note_in(for_ms, Event::Thaws { life });
    }

    pub(crate) fn shut_down(&mut self) {
        if self.host.running && self.host.stop_asked_ms.is_none() {
            self.host.stop_asked_ms = Some(self.now_ms);
            self.log(|| "SIGTERM".to_owned());
            self.hand(Event::Stop);
            // A console that does not know yet goes on asking.
            if let Some(link) = self.routed().filter(|_| self.storm) {
                let terminal = self.some_terminal();
                self.send_down(link, Down::Create(terminal));
                let dispatch = self.new_dispatch();
                self.send_down(link, Down::Dispatch(dispatch));
            }
        }
    }

    /// The process dies: at any moment, of what it does in a turn too. What it had handed to the kernel stays.
    pub(crate) fn crash(&mut self) {
        if self.host.running {
            self.log(|| "SIGKILL".to_owned());
            let pending = self.journal.pending();
            let written = self.pick(pending + 1);
            self.journal.die(written);
            self.process_gone();
            let in_ms = self.between(3_000, 10_000);
            self.note_in(in_ms, Event::Begins);
        }
    }

    /// The storm is over.
    pub(crate) fn become_calm(&mut self) {
        self.storm = false;
        self.log(|| "calm".to_owned());
        self.console.away_until_ms = 0;
        self.console.key_refused_until_ms = 0;
        self.calm.since_ms = Some(self.now_ms);
        let life = self.host.life;
        if self.host.frozen {
            self.thaw(life);
        }
        if !self.host.running || self.host.stop_asked_ms.is_some() {
            self.calm.waits_for_life = true;
        }
        for place in 0..self.wires.len() {
            let Some(wire) = self.wires.get_mut(place) else { break };
            let link = wire.link;
            let (soon_ms, frames) = wire.speed_up(self.now_ms, CALM_BYTES_PER_MS);
            (0..frames).for_each(|_| self.agenda.note(soon_ms, Event::Reaches { life, link }));
            self.agenda.note(self.now_ms + 1, Event::Written { life, link });
        }
        let sources: Vec<StreamKey> = self.work.sources.keys().copied().collect();
        for stream in sources {
            if let Some(source) = self.work.sources.get_mut(&stream) {
                source.to_print = 0;
            }
        }
    }

    /// The link on which the console reaches the agent, if it does.
    pub(crate) fn routed(&self) -> Option<LinkId> {
        let link = self.console.table?;
        let wire = self.wires.iter().find(|wire| wire.link == link)?;
        (wire.console_open && wire.listens_ms <= self.now_ms).then_some(link)
    }

    /// Something is asked of the agent.
    pub(crate) fn do_work(&mut self) {
        if !self.storm {
            return;
        }
        self.next_work();
        self.write_logs();
        // AI tools work whether or not the console is there; at times many answers end at once.
        if self.chance(20) {
            let program = self.host.program;
            let answers = if self.chance(5) { USAGE_RECORDS_MAX + 20 } else { 1 };
            (0..answers).for_each(|_| self.note_in(0, Event::Counted { program }));
        }
        let Some(link) = self.routed() else {
            self.stats.requests_lost += u64::from(self.host.rules.live.is_some() && self.console.table.is_none());
            return;
        };
        let terminals = self.work.terminals.len();
        match self.between(0, 9) {
            0..=3 => {
                let dispatch = self.new_dispatch();
                self.send_down(link, Down::Dispatch(dispatch));
                if self.meets(Fault::RepeatedDispatch) {
                    self.send_down(link, Down::Dispatch(dispatch));
                }
            }
            4 if !self.work.dispatches.is_empty() => {
                let place = self.pick(self.work.dispatches.len());
                let place = u32::try_from(place).unwrap_or(0);
                let again = self.plan.faults.has(Fault::RepeatedDispatch);
                self.send_down(link, if again { Down::Dispatch(place) } else { Down::Cancel(place) });
            }
            5 if self.may_open_terminal() => {
                let exits = self.chance(50) || self.plan.terminals != Terminals::Few;
                self.open_terminal(link, Terminal { exits, crowded: false });
            }
            6 | 7 if terminals > 0 => {
                let terminal = self.some_terminal();
                let resizes = self.chance(10);
                self.send_down(link, if resizes { Down::Resize(terminal) } else { Down::Input(terminal) });
            }
            8 if terminals > 0 => {
                let terminal = self.some_terminal();
                match (self.meets(Fault::Reattach), self.chance(70)) {
                    (true, true) => self.send_down(link, Down::Create(terminal)),
                    (again, _) => {
                        self.send_down(link, Down::EndSession(terminal));
                        if again {
                            self.send_down(link, Down::Create(terminal));
                        }
                    }
                }
            }
            9 if self.meets(Fault::Crowd) => self.send_crowd(link),
            _ => self.send_down(link, Down::Text),
        }
    }

    fn may_open_terminal(&self) -> bool {
        match self.plan.terminals {
            Terminals::Few => self.work.terminals.len() < TERMINALS_MAX,
            Terminals::OneAtATime { .. } => self.work.live_shells() == 0,
        }
    }

    fn open_terminal(&mut self, link: LinkId, terminal: Terminal) {
        let place = u32::try_from(self.work.terminals.len()).unwrap_or(0);
        self.work.terminals.push(terminal);
        self.send_down(link, Down::Create(place));
    }

    /// More is asked for at once than there may be; once in a world, because it is slow.
    fn send_crowd(&mut self, link: LinkId) {
        if std::mem::replace(&mut self.work.crowded, true) {
            return;
        }
        let (sessions, commands) = (SESSIONS_MAX + 8, COMMANDS_RUNNING_MAX + COMMANDS_WAITING_MAX + 8);
        if self.chance(50) {
            self.log(|| format!("{sessions} terminals at once"));
            (0..sessions).for_each(|_| self.open_terminal(link, Terminal { exits: true, crowded: true }));
        } else {
            self.log(|| format!("{commands} commands at once"));
            for _ in 0..commands {
                let dispatch = self.new_dispatch();
                if let Some(asked) = self.work.dispatches.get_mut(dispatch as usize) {
                    (asked.lasts_ms, asked.prints_bytes) = (asked.lasts_ms.min(100), asked.prints_bytes.min(100));
                    (asked.stubborn, asked.leaves_child, asked.streams, asked.poison) = (false, false, false, None);
                }
                self.send_down(link, Down::Dispatch(dispatch));
            }
        }
    }

    fn some_terminal(&mut self) -> u32 {
        u32::try_from(self.pick(self.work.terminals.len())).unwrap_or(0)
    }

    pub(crate) fn new_dispatch(&mut self) -> u32 {
        let lasts_ms = match self.between(0, 9) {
            0 => FOR_EVER_MS,
            1..=3 => self.between(1_000, 20_000),
            _ => self.between(1, 500),
        };
        let dispatch = Dispatch {
            timeout_ms: self.between(0, 10) * 1_000,
            lasts_ms,
            stubborn: self.meets(Fault::StubbornCommands),
            leaves_child: self.meets(Fault::StubbornCommands),
            fails: self.chance(5),
            streams: self.chance(40),
            prints_bytes: self.output_bytes(),
            poison: self.meets(Fault::Poison).then(|| self.some_poison()),
            taken_in_life: None,
            started: false,
            answered: false,
            result: None,
        };
        self.work.dispatches.push(dispatch);
        u32::try_from(self.work.dispatches.len() - 1).unwrap_or(u32::MAX)
    }

    fn some_poison(&mut self) -> Poison {
        let place = self.pick(POISON_CODES.len());
        let code = POISON_CODES.get(place).copied().unwrap_or(1009);
        Poison { code, only_long: self.chance(70) }
    }

    /// How much a program prints.
    pub(crate) fn output_bytes(&mut self) -> u64 {
        if self.meets(Fault::BulkOutput) { self.between(10_000, 1_500_000) } else { self.between(0, 6_000) }
    }

    /// A program prints some of what it has to say, and waits while it is not read.
    pub(crate) fn print(&mut self, stream: StreamKey) {
        let some = self.random.between(200, 24_000);
        let program = self.host.program;
        let Some(source) = self.work.sources.get_mut(&stream) else { return };
        let bytes = source.to_print.min(some);
        source.to_print -= bytes;
        source.unread += bytes;
        if source.wants_to_read() {
            source.reading = true;
            self.note_in(1, Event::Read { program, stream });
        }
    }
}
