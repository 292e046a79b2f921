//! Reliable messages survive links that break at any byte, also inside a frame. All of them arrive, in order, and only
//! those without an acknowledgement arrive twice. The bytes of a terminal arrive by their offsets.
//!
//! The machine waits up to half a minute between links, so several agents run their cuts at the same time.

use crate::support;
use crate::support::{Agent, skip};
use draupnir_console::{Connection, Console, End, Greeting, Keep, Personality, Record, View, What};
use draupnir_fsm::random::Random;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The longest wait for the next link: twice the longest of the policy's.
const NEXT_LINK: Duration = Duration::from_secs(60);

/// How long one message, or one block of a stream, may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const AGENTS: u64 = 10;
const CUTS_PER_AGENT: usize = 5;
const RESULTS_PER_AGENT: usize = 200;

/// How many commands run at a time.
const BURST: usize = 8;

/// The first number of the commands that prove that a link works.
const PROBES: usize = 1_000_000;

fn start() -> (Console, Agent) {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    let agent = Agent::spawn(&console, &[("SINDRI_LOG_LEVEL", "info"), ("SINDRI_AGENT_HEARTBEAT", "0.5")]);
    (console, agent)
}

/// The n-th connection that the console listens to.
#[track_caller]
fn nth_link(console: &Console, n: usize) -> Connection {
    let attached = |record: &Record| matches!(record.what, What::Attached);
    let record = console.within(NEXT_LINK).nth(n, "a connection", attached);
    console.connection(record.connection)
}

#[test]
fn two_thousand_events_and_results_arrive_over_fifty_cuts() {
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        return skip("two_thousand_events_and_results_arrive_over_fifty_cuts", "quick: reconnects take their time");
    }
    let lives: Vec<_> = (0..AGENTS).map(|seed| std::thread::spawn(move || live_through_cuts(seed))).collect();
    let mut all = Stats::default();
    for life in lives {
        let tally = life.join().expect("a life without a fault");
        all.messages += tally.messages;
        all.cuts += tally.cuts;
        all.duplicates += tally.duplicates;
    }
    println!("{} messages over {} cuts, {} of them seen twice", all.messages, all.cuts, all.duplicates);
    assert!(all.messages >= 2_000 && all.cuts >= 50, "{all:?}");
    assert!(all.duplicates > 0, "no acknowledgement was ever cut off, so nothing was shown");
}

#[derive(Debug, Default)]
struct Stats {
    messages: usize,
    cuts: usize,
    duplicates: usize,
}

/// An agent, and its console, which dispatches commands and follows their results.
struct Life {
    console: Console,
    seen: View,
    random: Random,
    /// Commands without a result, and how many bytes each prints.
    unanswered: BTreeMap<usize, u64>,
    started: usize,
    /// On which connection, and after how many records, each was dispatched last.
    dispatched: BTreeMap<usize, (u32, usize)>,
}

impl Life {
    /// Dispatches a few more commands.
    fn begin_some(&mut self, link: &Connection) {
        while self.unanswered.len() < BURST && self.started < RESULTS_PER_AGENT {
            let (id, length) = (self.started, self.random.between(0, 3_000));
            self.started += 1;
            self.unanswered.insert(id, length);
            self.dispatch(link, id, length);
        }
    }

    fn dispatch(&mut self, link: &Connection, id: usize, length: u64) {
        let command = format!("head -c {length} /dev/zero | tr '\\000' x; echo run >> ~/ran-{id}");
        let payload = json!({"command_id": id.to_string(), "command": command});
        self.dispatched.insert(id, (link.number(), self.console.count(|_| true)));
        link.send(&json!({"protocol_version": "1.0", "type": "command:dispatch", "payload": payload}));
    }

    /// Dispatches again what has no result: the link may have broken before the agent read the dispatch. It does so
    /// only after the result of a new command, because everything that the ledger still holds comes before that.
    fn ask_again(&mut self, link: &Connection) -> bool {
        let probe = PROBES + usize::try_from(link.number()).expect("few");
        self.unanswered.insert(probe, 10);
        self.dispatch(link, probe, 10);
        let alive = self.follow(link, |life| !life.unanswered.contains_key(&probe));
        for (id, length) in self.unanswered.clone() {
            self.dispatch(link, id, length);
        }
        alive
    }

    /// Follows the records until the condition holds (true) or the connection is over (false).
    fn follow(&mut self, link: &Connection, is_so: impl Fn(&Self) -> bool) -> bool {
        while !is_so(self) {
            let record = self.seen.take_next().expect("a result, or the end of the link");
            if record.kind() == "command:result" {
                command(&record).and_then(|id| self.unanswered.remove(&id));
            }
            if record.connection == link.number() && matches!(record.what, What::Ended(_)) {
                return false;
            }
        }
        true
    }

    /// Works until the link breaks (false), or every command has its result (true).
    fn work(&mut self, link: &Connection) -> bool {
        let mut alive = self.ask_again(link);
        while alive && (self.started < RESULTS_PER_AGENT || !self.unanswered.is_empty()) {
            self.begin_some(link);
            alive = self.follow(link, |life| {
                life.unanswered.len() < BURST / 2 && life.started < RESULTS_PER_AGENT || life.unanswered.is_empty()
            });
        }
        alive
    }
}

fn command(record: &Record) -> Option<usize> {
    record.payload()["command_id"].as_str()?.parse().ok()
}

fn live_through_cuts(seed: u64) -> Stats {
    let (console, agent) = start();
    let mut life = Life {
        seen: console.within(SOON),
        console: console.clone(),
        random: Random::new(seed),
        unanswered: BTreeMap::new(),
        started: 0,
        dispatched: BTreeMap::new(),
    };
    for n in 1..=CUTS_PER_AGENT {
        let link = nth_link(&console, n);
        link.cut_after(life.random.between(3_000, 50_000));
        if life.work(&link) {
            // Every command has its result: heartbeats use up the bytes that are left before the cut.
            assert!(!life.follow(&link, |_| false));
        }
        assert_eq!(console.ended(link.number()), End::Ours);
    }
    assert!(life.work(&nth_link(&console, CUTS_PER_AGENT + 1)), "the last link is not cut");
    agent.drain();
    for id in 0..RESULTS_PER_AGENT {
        let ran = std::fs::read_to_string(agent.home().path().join(format!("ran-{id}"))).expect("it ran");
        assert_eq!(ran, "run\n", "once, whatever was dispatched again");
    }
    judge(&life)
}

/// The name of a reliable message, by which the test recognises a repeat.
fn reliable(record: &Record) -> Option<String> {
    match record.kind() {
        "command:result" => Some(format!("result {}", record.payload()["command_id"])),
        "event" => Some(format!("event {}", record.payload()["id"])),
        _ => None,
    }
}

fn judge(life: &Life) -> Stats {
    let records = life.console.all(|_| true);
    let mut first_seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut duplicates = 0;
    for link in 1.. {
        let here: Vec<_> = records.iter().filter(|record| record.connection == link).collect();
        if here.is_empty() {
            break;
        }
        let mut previous = None;
        for (record, name) in here.iter().filter_map(|record| Some((record, reliable(record)?))) {
            // An answer to a repeated dispatch is a message of its own.
            if is_repeat(&records, record) {
                continue;
            }
            let count = first_seen.len();
            let place = *first_seen.entry(name.clone()).or_insert(count);
            if place < count {
                duplicates += 1;
                assert!(!was_acknowledged(&records, &name, link, life), "{name} came again on {link}");
            }
            assert!(previous < Some(place), "{name} out of order on connection {link}");
            previous = Some(place);
        }
    }
    for id in 0..RESULTS_PER_AGENT {
        assert!(first_seen.contains_key(&format!("result \"{id}\"")), "no result of {id}");
    }
    let events: BTreeSet<u64> =
        records.iter().filter(|one| one.kind() == "event").map(|one| event_number(one)).collect();
    let newest = events.last().copied().expect("events");
    assert_eq!(events.len() as u64, newest, "no event is missing: {events:?}");
    let cuts = records.iter().filter(|record| matches!(record.what, What::Ended(End::Ours))).count();
    Stats { messages: first_seen.len(), cuts, duplicates }
}

/// The process numbers its events. An event id is the id of the process and this number.
fn event_number(record: &Record) -> u64 {
    let id = record.payload()["id"].as_str().expect("an id");
    id.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Whether the console dispatched this command again after its result had arrived.
fn is_repeat(records: &[std::sync::Arc<Record>], record: &Record) -> bool {
    record.kind() == "command:result"
        && records[..record.seq].iter().any(|earlier| {
            earlier.kind() == "command:result"
                && earlier.connection == record.connection
                && command(earlier) == command(record)
        })
}

/// Whether the agent has certainly received the Pong for a Ping after this message, on a connection before `link`. It
/// has if it ran a command that the console sent there after that Pong.
fn was_acknowledged(records: &[std::sync::Arc<Record>], name: &str, link: u32, life: &Life) -> bool {
    let earlier: Vec<_> = records.iter().filter(|record| record.connection < link).collect();
    earlier.iter().filter(|record| reliable(record).as_deref() == Some(name)).any(|sent| {
        let here = || records.iter().filter(|record| record.connection == sent.connection && record.seq > sent.seq);
        let Some(ping) = here().find(|record| matches!(record.what, What::Ping(_))) else { return false };
        here()
            .filter(|record| record.kind() == "command:result")
            .filter_map(|record| command(record))
            .any(|id| life.dispatched.get(&id).is_some_and(|(on, after)| *on == sent.connection && *after > ping.seq))
    })
}

const BLOCK_BYTES: u64 = 128 << 10;
const CUTS_OF_STREAM: usize = 5;

/// Sixteen digits, one character of up to four bytes, and a line feed.
const LINE_BYTES_MAX: usize = 21;

/// Text without repetition, with characters of one to four bytes, none of which crosses the end of a block.
fn text(blocks: u64, seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut text = String::new();
    for block in 1..=blocks {
        let end = usize::try_from(block * BLOCK_BYTES).expect("fits");
        while text.len() + LINE_BYTES_MAX < end {
            let number = random.next_u64();
            let mark = ['e', 'é', '€', '𝄞'][usize::try_from(number % 4).expect("below four")];
            writeln!(text, "{number:016x}{mark}").expect("a string takes everything");
        }
        text.extend(std::iter::repeat_n('.', end - text.len()));
    }
    text
}

/// A terminal whose program writes only the output of the script.
fn open_terminal(console: &Console, script: &str) {
    console.browser().create_with("s1", &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.wait_stream("s1", "a prompt", |stream| stream.end > 0);
    console.browser().input("s1", format!("stty raw -echo; printf 'go\\n'; exec sh -c '{script}'\r").as_bytes());
    console.within(SOON).wait_stream("s1", "the program", |stream| stream.data.ends_with(b"\ngo\n"));
}

fn send_terminal(link: &Connection, kind: &str, mut payload: Value) {
    payload["session_id"] = json!("s1");
    link.send(&json!({"protocol_version": "1.0", "type": kind, "session_id": "s1", "payload": payload}));
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("coreutils");
    let text = String::from_utf8(output.stdout).expect("hexadecimal");
    text.split(' ').next().expect("a sum").to_owned()
}

#[test]
fn sixty_four_mebibytes_arrive_whole_over_twenty_cuts() {
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        return skip("sixty_four_mebibytes_arrive_whole_over_twenty_cuts", "quick: reconnects take their time");
    }
    // Four agents wait for their links at the same time.
    let lives: Vec<_> =
        (7..11).map(|seed| std::thread::spawn(move || sixteen_mebibytes_over_five_cuts(seed))).collect();
    for life in lives {
        life.join().expect("a life without a fault");
    }
}

fn sixteen_mebibytes_over_five_cuts(seed: u64) {
    const BLOCKS: u64 = 128;
    let (console, agent) = start();
    console.keep(Keep::Bytes);
    let data = text(BLOCKS, seed);
    std::fs::write(agent.home().path().join("data"), &data).expect("the home is writable");
    // The program writes a block when the test types its number. So never more output waits for a link than a
    // scrollback holds. The program ignores a number that comes twice.
    let block = format!("dd if=data bs={BLOCK_BYTES} count=1 skip=$n status=none");
    open_terminal(
        &console,
        &format!("i=0; while read n; do if [ \"$n\" = \"$i\" ]; then {block}; i=$((i+1)); fi; done"),
    );
    let start = console.stream("s1").end;
    let before = console.stream("s1").data;
    console.keep(Keep::Counts);
    let mut random = Random::new(seed + 4);
    let mut links = 1;
    let mut link = nth_link(&console, links);
    link.cut_after(random.between(300_000, 5 << 20));
    for number in 0..BLOCKS {
        let end = start + (number + 1) * BLOCK_BYTES;
        let typed = data_encoding::BASE64.encode(format!("{number}\n").as_bytes());
        loop {
            send_terminal(&link, "terminal:input", json!({"data": typed}));
            if console.on(link.number()).within(SOON).reaches("s1", end) {
                break;
            }
            links += 1;
            link = nth_link(&console, links);
            if links <= CUTS_OF_STREAM {
                link.cut_after(random.between(300_000, 5 << 20));
            }
            send_terminal(&link, "terminal:create", json!({"cols": 80, "rows": 24}));
        }
    }
    let stream = console.stream("s1");
    println!(
        "{} links, {} bytes, {} repeated, {} frames of replays",
        links, stream.bytes, stream.repeated_bytes, stream.replays
    );
    assert!(stream.gaps.is_empty(), "{:?}", stream.gaps);
    let home = agent.home().path();
    std::fs::write(home.join("all"), [&before, data.as_bytes()].concat()).expect("the home is writable");
    assert_eq!(stream.sha256(), sha256(&home.join("all")), "every byte, in its place");
    assert!(links > CUTS_OF_STREAM, "only {links} links");
    agent.drain();
}

#[test]
fn flood_over_cuts_reports_lost_bytes() {
    const NAME: &str = "flood_over_cuts_reports_lost_bytes";
    const FLOOD_CUTS: usize = 4;
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        return skip(NAME, "quick: reconnects take their time");
    }
    let (console, agent) = start();
    console.keep(Keep::Bytes);
    let data = text(512, 13);
    std::fs::write(agent.home().path().join("data"), &data).expect("the home is writable");
    // A pause after each piece, or all of it would be gone before the first reconnect.
    open_terminal(
        &console,
        "read go; i=0; while [ $i -lt 256 ]; do dd if=data bs=262144 count=1 skip=$i status=none; i=$((i+1)); sleep 0.2; done",
    );
    let start = console.stream("s1").end;
    let mut random = Random::new(17);
    for n in 1..=FLOOD_CUTS {
        let link = nth_link(&console, n);
        link.cut_after(random.between(500_000, 4 << 20));
        if n == 1 {
            send_terminal(&link, "terminal:input", json!({"data": data_encoding::BASE64.encode(b"\n")}));
        }
        console.within(SOON).ended(link.number());
    }
    let end = start + data.len() as u64;
    let stream = console.within(Duration::from_secs(180)).wait_stream("s1", "the end", |stream| stream.end >= end);
    assert!(!stream.gaps.is_empty(), "the scrollback does not hold what a flood prints in a reconnect");
    let missing: u64 = stream.gaps.iter().map(|gap| gap.missing).sum();
    assert_eq!(stream.bytes + missing, end);
    // Every received byte has the right offset.
    let (mut at, mut taken) = (0, stream.data.as_slice());
    for gap in stream.gaps.iter().chain([&draupnir_console::Gap { offset: end, missing: 0 }]) {
        let length = usize::try_from(gap.offset - at).expect("fits");
        let (piece, rest) = taken.split_at(length);
        let skipped = start.saturating_sub(at);
        let from = usize::try_from((at + skipped) - start).expect("fits");
        let piece = &piece[usize::try_from(skipped).expect("fits")..];
        assert!(data.as_bytes().get(from..from + piece.len()) == Some(piece), "the bytes before {gap:?}");
        (at, taken) = (gap.offset + gap.missing, rest);
    }
    // The agent counts the bytes that it discarded without an acknowledgement. The console may have some of them.
    let lost = |line: &support::Line| line.value["fields"]["lost_bytes"].as_u64().or(line.value["lost_bytes"].as_u64());
    let reported: u64 = agent.log().lines().iter().filter_map(lost).sum();
    assert!(reported >= missing, "{reported} bytes reported as lost, {missing} missing");
    let event = console.wait("an event", |record| !record.payload()["metadata"]["lost_bytes"].is_null());
    assert_eq!(event.payload()["event_type"], "error");
    println!("{missing} bytes missing in {} gaps, {reported} reported as lost", stream.gaps.len());
    agent.drain();
}
