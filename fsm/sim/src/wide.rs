//! Floods over links of many speeds and lengths: how much of the link the window uses, and how long its queue is.
//!
//! The driver that ships, terminals that print without end, and one link: a queue that the rate empties, and the way
//! there and back. Each run measures the use of the link, the shares of the sessions, the queue, an echo beside the
//! flood and Ctrl-C, and holds them to bounds. It is a world of its own because the other one is about faults, and its
//! links last for seconds; here nothing fails. Units: milliseconds, bytes on the wire.

use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Action, Body, ByteSource, Chunk, CommandKey, ConsoleId, ConsoleMessage, Driver, Encode, Frame, IdSource, Input,
    LinkId, Message, Output, PING_PAYLOAD_BYTES, Policy, RING_BYTES_MAX, RING_CHECK_MS, SCROLLBACK_BYTES_MAX, Schedule,
    SessionInput, SessionKey, StreamKey, Time,
};
use draupnir_fsm::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// The round trips of the table, in milliseconds.
pub const ROUND_TRIPS_MS: [u64; 4] = [20, 50, 100, 200];

/// The speeds of the table, in megabits a second.
pub const MEGABITS: [u64; 2] = [10, 100];

/// What of the link a flood uses at least, in percent.
const USE_PERCENT_MIN: u64 = 90;

/// By how much the shares of four sessions may differ from their mean, in percent.
const SHARE_PERCENT_MAX: u64 = 10;

/// How much longer than a round trip Ctrl-C may take until the console hears nothing more, in milliseconds.
const CTRL_C_MS_MAX: u64 = 250;

/// How much longer than a round trip an echo beside the flood may take, in milliseconds.
const ECHO_MS_MAX: u64 = 120;

/// So many of a hundred echoes are held to that.
const ECHO_PERCENT: usize = 99;

/// A console is late with a Pong by up to this, in milliseconds; and the world has steps of one.
const LATE_MS_MAX: u64 = 4;

/// The longest queue that counts as part of a round trip, in milliseconds.
const QUEUE_MS_MAX: u64 = 100;

/// So many round trips, with such a queue, after what was under way at a change all bounds hold again.
const SETTLED_ROUND_TRIPS: u64 = 10;

/// The queue that the agent aims at, in milliseconds.
const QUEUE_MS: u64 = draupnir_fsm::delivery::QUEUE_TARGET_MS;

/// How long a flood lasts before it is measured, in milliseconds, beside the round trips.
const WARM_UP_MS: u64 = 1_000;

/// How long it is measured: more than one dip, and a keep-alive.
const MEASURED_MS: u64 = 6_000;

/// What a terminal gives in a millisecond, in bytes; measured: 60 to 90 MB/s.
const PTY_BYTES_PER_MS: u64 = 70_000;

/// What a frame of output costs beside its bytes, and any other message as a whole.
const FRAME_BYTES: usize = 170;

/// A frame of the agent's on its way.
#[derive(Clone, Copy, Debug)]
enum Up {
    Bytes { session: SessionKey, bytes: u64 },
    Ping([u8; PING_PAYLOAD_BYTES]),
    Other,
}

/// What reaches the agent.
#[derive(Clone, Copy, Debug)]
enum Down {
    Pong([u8; PING_PAYLOAD_BYTES]),
    Keys(SessionKey),
}

/// A body is what the console gets of it.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    up: Up,
    size_bytes: usize,
}

impl Body for Text {
    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// One terminal: what its program prints, and what is held of it.
#[derive(Clone, Debug, Default)]
struct Terminal {
    floods: bool,
    to_print: u64,
    end: u64,
    retained: u64,
    known: u64,
    credit_end: u64,
    keep_from: u64,
    ring_bytes_max: u64,
    received: u64,
    heard_ms: u64,
}

impl Terminal {
    /// Reads what the program prints, as far as the credit and the buffer go; whether that was anything.
    fn read(&mut self, most: u64, ring_bytes_max: u64) -> bool {
        let printed = if self.floods { most } else { self.to_print };
        let room = ring_bytes_max.saturating_sub(self.end - self.keep_from);
        let bytes = printed.min(self.credit_end.saturating_sub(self.end)).min(room);
        self.to_print = self.to_print.saturating_sub(bytes);
        self.end += bytes;
        // The buffer grows for what must be kept, and holds more only where it has grown.
        let bound = (self.end - self.keep_from).max(SCROLLBACK_BYTES_MAX as u64);
        self.ring_bytes_max = self.ring_bytes_max.max(bound.next_power_of_two());
        self.retained = self.retained.max(self.end.saturating_sub(self.ring_bytes_max));
        bytes > 0
    }
}

/// What the driver asks of the host.
struct Host<'a> {
    terminals: &'a BTreeMap<SessionKey, Terminal>,
}

impl Encode for Host<'_> {
    type Body = Text;

    fn encode(&mut self, _message: &Message) -> Option<Text> {
        Some(Text { up: Up::Other, size_bytes: FRAME_BYTES })
    }
}

impl ByteSource for Host<'_> {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        match stream {
            StreamKey::Terminal(session) => self.terminals.get(&session).map_or(0..0, |t| t.retained..t.end),
            StreamKey::Stdout(CommandKey(_)) | StreamKey::Stderr(CommandKey(_)) | StreamKey::Logs => 0..0,
        }
    }

    fn cut(&mut self, stream: StreamKey, chunk: Chunk) -> (usize, Option<Text>) {
        let (StreamKey::Terminal(session), Chunk::Bytes { max, .. }) = (stream, chunk) else { return (0, None) };
        let up = Up::Bytes { session, bytes: max as u64 };
        (max, Some(Text { up, size_bytes: max.div_ceil(3) * 4 + FRAME_BYTES }))
    }
}

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The way there and back, in milliseconds.
    pub round_trip_ms: u64,
    /// What the link carries in a millisecond, in bytes.
    pub bytes_per_ms: u64,
    /// How many terminals print without end.
    pub sessions: u32,
    /// What the link is like from the middle of the flood on.
    pub then: Option<(u64, u64)>,
    /// The budget has no room for a buffer that grows.
    pub poor: bool,
}

impl Cell {
    /// One of the table.
    pub const fn of_table(round_trip_ms: u64, megabits: u64, sessions: u32) -> Self {
        Self { round_trip_ms, bytes_per_ms: megabits * 125, sessions, then: None, poor: false }
    }

    /// The cell of a seed: each of the table, with one session and with four, and changes by ten.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut one_of = |choices: &[u64]| {
            let last = choices.len() as u64 - 1;
            choices[usize::try_from(random.between(0, last)).unwrap_or(0)]
        };
        let (round_trip_ms, megabits) = (one_of(&ROUND_TRIPS_MS), one_of(&MEGABITS));
        let sessions = if one_of(&[1, 4]) == 1 { 1 } else { 4 };
        let then = match one_of(&[0, 0, 1, 2]) {
            1 if round_trip_ms == 20 => Some((round_trip_ms * 10, megabits * 125)),
            1 if round_trip_ms >= 100 => Some((round_trip_ms / 10, megabits * 125)),
            2 => Some((round_trip_ms, if megabits == 10 { 12_500 } else { 1_250 })),
            _ => None,
        };
        // The window is no wider than four megabytes.
        let fits = |(way_ms, bytes_per_ms): (u64, u64)| (way_ms + QUEUE_MS) * bytes_per_ms <= 4 << 20;
        Self { then: then.filter(|then| fits(*then)), ..Self::of_table(round_trip_ms, megabits, sessions) }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabits = |bytes_per_ms: u64| bytes_per_ms / 125;
        write!(f, "{} ms, {} Mbit/s", self.round_trip_ms, megabits(self.bytes_per_ms))?;
        if let Some((way_ms, rate)) = self.then {
            write!(f, " → {way_ms} ms, {} Mbit/s", megabits(rate))?;
        }
        write!(f, ", {} session{}", self.sessions, if self.sessions == 1 { "" } else { "s" })?;
        if self.poor { write!(f, ", no budget") } else { Ok(()) }
    }
}

/// Every cell of the table, and the changes by ten of which the window can follow both sides.
pub fn table() -> Vec<Cell> {
    let one = |way_ms, megabits| Cell::of_table(way_ms, megabits, 1);
    let changes = [
        (one(20, 100), (200, 12_500)),
        (one(200, 100), (20, 12_500)),
        (one(50, 100), (50, 1_250)),
        (one(50, 10), (50, 12_500)),
        (one(200, 10), (200, 12_500)),
        (one(200, 100), (200, 1_250)),
    ];
    let cells = ROUND_TRIPS_MS.into_iter().flat_map(|way_ms| {
        MEGABITS.into_iter().flat_map(move |megabits| [1, 4].map(|sessions| Cell::of_table(way_ms, megabits, sessions)))
    });
    let changed = changes.into_iter().map(|(cell, then)| Cell { then: Some(then), ..cell });
    cells.chain(changed).chain([Cell { poor: true, ..one(200, 100) }]).collect()
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of what the link could have carried, in tenths of a percent.
    pub used_permille: u64,
    /// How far the session that differs most is from the mean, in tenths of a percent.
    pub uneven_permille: u64,
    /// The longest that a frame waited in the queue, in milliseconds.
    pub queue_ms: u64,
    /// The echo that is slower than 99 of a hundred, beyond the round trip, in milliseconds.
    pub echo_ms: u64,
    /// From Ctrl-C to the last byte of the flood, beyond the round trip, in milliseconds.
    pub ctrl_c_ms: u64,
    /// The most that a buffer held, in bytes.
    pub ring_bytes: u64,
    /// The most Pings in a second.
    pub pings: u64,
}

/// A bound that was not kept, with what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub bound: &'static str,
    /// All figures of the run.
    pub figures: Figures,
}

/// The world of one run.
struct Wide {
    driver: Driver<Text>,
    budget: Rc<Budget>,
    terminals: BTreeMap<SessionKey, Terminal>,
    now_ms: u64,
    way_up_ms: u64,
    way_down_ms: u64,
    bytes_per_ms: u64,
    /// What the link takes before it takes nothing more, in bytes.
    queue_bytes_max: u64,
    /// Pongs are late by up to this.
    late_ms: u64,
    random: Random,
    queue: VecDeque<(u64, Up, u64)>,
    queued_bytes: u64,
    writing: bool,
    up: VecDeque<(u64, Up)>,
    down: VecDeque<(u64, Down)>,
    sent_bytes: u64,
    queue_ms: u64,
    ring_bytes: u64,
    poor: bool,
    pings: (u64, u64),
    pings_most: u64,
    broken: Option<&'static str>,
}

const LINK: LinkId = LinkId(1);

impl Wide {
    fn new(cell: Cell, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5EED);
        let budget = Rc::new(Budget::new());
        let policy = Policy::default();
        let up_ms = cell.round_trip_ms / 2;
        let mut world = Self {
            driver: Driver::new(policy, Schedule::default(), seed, false, Rc::clone(&budget)),
            budget,
            terminals: BTreeMap::new(),
            now_ms: random.between(0, 1_000),
            way_up_ms: up_ms,
            way_down_ms: cell.round_trip_ms - up_ms,
            bytes_per_ms: cell.bytes_per_ms,
            queue_bytes_max: 1 << random.between(18, 23),
            late_ms: random.between(0, LATE_MS_MAX),
            random,
            queue: VecDeque::new(),
            queued_bytes: 0,
            writing: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            sent_bytes: 0,
            queue_ms: 0,
            ring_bytes: 0,
            poor: cell.poor,
            pings: (0, 0),
            pings_most: 0,
            broken: None,
        };
        world.hear(Input::Started { id: IdSource::Remembered });
        world.turn();
        world.hear(Input::LinkOpened { link: LINK });
        world.turn();
        world.hear(Input::Received { link: LINK, message: ConsoleMessage::Other });
        world.turn();
        world
    }

    fn hear(&mut self, input: Input) {
        self.driver.handle(Time::from_ms(self.now_ms), input);
    }

    fn open(&mut self, number: u32) -> SessionKey {
        let session = SessionKey(number);
        let id = ConsoleId(number.into());
        let message = ConsoleMessage::Create { session, id, cols: 80, rows: 24, allowed: true };
        self.terminals.insert(session, Terminal::default());
        self.hear(Input::Received { link: LINK, message });
        self.turn();
        self.hear(Input::Session { session, what: SessionInput::Opened });
        self.turn();
        session
    }

    fn floods(&self) -> Vec<SessionKey> {
        self.terminals.iter().filter(|(_, terminal)| terminal.floods).map(|(session, _)| *session).collect()
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now_ms += 1;
        self.carry();
        while let Some((_, up)) = self.up.pop_front_if(|(at_ms, _)| *at_ms <= self.now_ms) {
            self.reach_console(up);
        }
        while let Some((_, down)) = self.down.pop_front_if(|(at_ms, _)| *at_ms <= self.now_ms) {
            match down {
                Down::Pong(payload) => self.hear(Input::Pong { link: LINK, payload }),
                Down::Keys(session) => {
                    let id = ConsoleId(session.0.into());
                    self.hear(Input::Received { link: LINK, message: ConsoleMessage::Keys { id } });
                }
            }
        }
        if self.writing && self.queued_bytes < self.queue_bytes_max {
            self.writing = false;
            self.hear(Input::Written { link: LINK });
        }
        let ring_bytes_max = if self.poor { SCROLLBACK_BYTES_MAX } else { RING_BYTES_MAX } as u64;
        let share = PTY_BYTES_PER_MS / self.floods().len().max(1) as u64;
        let mut news = Vec::new();
        for (session, terminal) in &mut self.terminals {
            if terminal.read(share, ring_bytes_max) {
                news.push((*session, terminal.retained, terminal.end));
                terminal.known = terminal.end;
            }
            self.ring_bytes = self.ring_bytes.max(terminal.end - terminal.keep_from);
        }
        for (session, from, end) in news {
            self.hear(Input::Output { stream: StreamKey::Terminal(session), from, end });
        }
        self.turn();
    }

    /// The link carries what it can in a millisecond.
    fn carry(&mut self) {
        let mut left = self.bytes_per_ms;
        while let Some((since_ms, up, bytes)) = self.queue.front_mut() {
            let part = left.min(*bytes);
            *bytes -= part;
            left -= part;
            self.queued_bytes -= part;
            self.sent_bytes += part;
            if *bytes > 0 {
                return;
            }
            self.queue_ms = self.queue_ms.max(self.now_ms - *since_ms);
            let at_ms = (self.now_ms + self.way_up_ms).max(self.up.back().map_or(0, |(at_ms, _)| *at_ms));
            let up = *up;
            self.queue.pop_front();
            self.up.push_back((at_ms, up));
        }
    }

    fn reach_console(&mut self, up: Up) {
        match up {
            Up::Bytes { session, bytes } => {
                if let Some(terminal) = self.terminals.get_mut(&session) {
                    terminal.received += bytes;
                    terminal.heard_ms = self.now_ms;
                }
            }
            Up::Ping(payload) => {
                let late_ms = self.random.between(0, self.late_ms);
                self.send_down(late_ms, Down::Pong(payload));
            }
            Up::Other => {}
        }
    }

    fn send_down(&mut self, late_ms: u64, down: Down) {
        let at_ms = self.now_ms + self.way_down_ms + late_ms;
        let at_ms = at_ms.max(self.down.back().map_or(0, |(at_ms, _)| *at_ms));
        self.down.push_back((at_ms, down));
    }

    fn turn(&mut self) {
        let now = Time::from_ms(self.now_ms);
        loop {
            let mut host = Host { terminals: &self.terminals };
            let Some(output) = self.driver.poll(now, &mut host) else { return };
            match output {
                Output::Write { link: _, frames } => self.write(&frames),
                Output::Do(action) => self.perform(action),
                Output::Append { .. } => {}
            }
        }
    }

    fn write(&mut self, frames: &[Frame<Text>]) {
        for frame in frames {
            let (up, bytes) = match frame {
                Frame::Text(text) => (text.up, text.size_bytes),
                Frame::Ping(payload) => {
                    let second = self.now_ms / 1_000;
                    self.pings = if self.pings.0 == second { (second, self.pings.1 + 1) } else { (second, 1) };
                    self.pings_most = self.pings_most.max(self.pings.1);
                    (Up::Ping(*payload), payload.len() + 6)
                }
            };
            self.queue.push_back((self.now_ms, up, bytes as u64));
            self.queued_bytes += bytes as u64;
        }
        self.writing = true;
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::ReadCredit { stream: StreamKey::Terminal(session), bytes: Some(bytes), keep_from } => {
                let Some(terminal) = self.terminals.get_mut(&session) else { return };
                terminal.credit_end = terminal.known + bytes as u64;
                terminal.keep_from = keep_from.unwrap_or(0);
            }
            Action::ShrinkScrollback { session, to_bytes } => {
                let Some(terminal) = self.terminals.get_mut(&session) else { return };
                terminal.ring_bytes_max = to_bytes as u64;
                terminal.retained = terminal.retained.max(terminal.end.saturating_sub(to_bytes as u64));
                if terminal.retained > terminal.keep_from {
                    self.broken = Some("what the console may need was given back");
                }
            }
            Action::TakeInput { session: Some(session) } => {
                let Some(terminal) = self.terminals.get_mut(&session) else { return };
                // Ctrl-C in a flood; a letter elsewhere.
                if terminal.floods {
                    terminal.floods = false;
                } else {
                    terminal.to_print += 1;
                }
            }
            _ => {}
        }
    }

    /// Lets the flood run for a while, and measures the link.
    fn measure(&mut self, for_ms: u64) -> Figures {
        let floods = self.floods();
        let received = |world: &Self| -> Vec<u64> { floods.iter().map(|s| world.terminals[s].received).collect() };
        let (before, sent_before) = (received(self), self.sent_bytes);
        self.queue_ms = 0;
        let echo = SessionKey(ECHO);
        let (mut echoes, mut typed_ms, mut heard) = (Vec::new(), None, self.terminals[&echo].received);
        for _ in 0..for_ms {
            self.step();
            let received = self.terminals[&echo].received;
            if received > heard {
                heard = received;
                let since_ms: u64 = typed_ms.take().unwrap_or(self.now_ms);
                echoes.push((self.now_ms - since_ms).saturating_sub(self.way_up_ms + self.way_down_ms));
            } else if typed_ms.is_none() && self.random.between(1, 20) == 1 {
                typed_ms = Some(self.now_ms);
                self.send_down(0, Down::Keys(echo));
            }
        }
        let shares: Vec<u64> = received(self).iter().zip(before).map(|(now, before)| now - before).collect();
        let mean = (shares.iter().sum::<u64>() / shares.len().max(1) as u64).max(1);
        echoes.sort_unstable();
        Figures {
            used_permille: (self.sent_bytes - sent_before) * 1_000 / (self.bytes_per_ms * for_ms),
            uneven_permille: shares.iter().map(|share| share.abs_diff(mean) * 1_000 / mean).max().unwrap_or(0),
            queue_ms: self.queue_ms,
            echo_ms: echoes.get(echoes.len() * ECHO_PERCENT / 100).copied().unwrap_or(u64::MAX),
            ..Figures::default()
        }
    }

    /// Ctrl-C to every flood at once: when the console heard the last of them, beyond the round trip.
    fn interrupt(&mut self) -> u64 {
        let floods = self.floods();
        let since_ms = self.now_ms;
        floods.iter().for_each(|session| self.send_down(0, Down::Keys(*session)));
        for _ in 0..2_000 {
            self.step();
        }
        let last_ms = floods.iter().map(|session| self.terminals[session].heard_ms).max().unwrap_or(0);
        last_ms.saturating_sub(since_ms + self.way_up_ms + self.way_down_ms)
    }
}

/// The terminal that is typed into beside the floods.
const ECHO: u32 = 99;

/// Runs one cell, and holds it to its bounds.
pub fn run(cell: Cell, seed: u64) -> Result<Figures, Broken> {
    let mut world = Wide::new(cell, seed);
    world.open(ECHO);
    for number in 1..=cell.sessions {
        let session = world.open(number);
        if let Some(terminal) = world.terminals.get_mut(&session) {
            terminal.floods = true;
        }
    }
    let steps = |world: &mut Wide, for_ms: u64| (0..for_ms).for_each(|_| world.step());
    steps(&mut world, WARM_UP_MS + 10 * cell.round_trip_ms);
    let mut figures = world.measure(MEASURED_MS);
    if let Some((round_trip_ms, bytes_per_ms)) = cell.then {
        // What is under way must be gone first, at the new speed.
        let drained_ms = world.driver.snapshot().stream_bytes_in_flight / bytes_per_ms;
        (world.way_up_ms, world.way_down_ms) = (round_trip_ms / 2, round_trip_ms - round_trip_ms / 2);
        world.bytes_per_ms = bytes_per_ms;
        let longer_ms = round_trip_ms.max(cell.round_trip_ms);
        steps(&mut world, drained_ms + SETTLED_ROUND_TRIPS * (longer_ms + QUEUE_MS_MAX));
        let then = world.measure(MEASURED_MS);
        figures = Figures {
            used_permille: figures.used_permille.min(then.used_permille),
            uneven_permille: figures.uneven_permille.max(then.uneven_permille),
            queue_ms: figures.queue_ms.max(then.queue_ms),
            echo_ms: figures.echo_ms.max(then.echo_ms),
            ..figures
        };
    }
    figures.ctrl_c_ms = world.interrupt();
    figures.ring_bytes = world.ring_bytes;
    figures.pings = world.pings_most;
    steps(&mut world, 10_000 - 2_000);
    let kept = world.terminals.values().map(|terminal| terminal.end - terminal.retained).max().unwrap_or(0);
    let bounds = [
        ("use of the link", !cell.poor && figures.used_permille < USE_PERCENT_MIN * 10),
        ("equal shares", figures.uneven_permille > SHARE_PERCENT_MAX * 10),
        ("echo", figures.echo_ms > ECHO_MS_MAX),
        ("Ctrl-C", figures.ctrl_c_ms > CTRL_C_MS_MAX),
        ("memory without a budget", cell.poor && figures.ring_bytes > SCROLLBACK_BYTES_MAX as u64),
        ("memory", figures.ring_bytes > RING_BYTES_MAX as u64),
        ("memory given back", kept > SCROLLBACK_BYTES_MAX as u64),
        ("Pings a second", figures.pings > PINGS_PER_SECOND_MAX),
    ];
    let broken = world.broken.or(bounds.into_iter().find(|(_, broken)| *broken).map(|(bound, _)| bound));
    debug_assert!(
        2 * RING_CHECK_MS < 10_000 && world.budget.granted() > 0,
        "a buffer is given back within ten seconds"
    );
    broken.map_or(Ok(figures), |bound| Err(Broken { bound, figures }))
}

/// The bound that PROTOCOL.md states for markers, and a few keep-alives.
const PINGS_PER_SECOND_MAX: u64 = 325;
