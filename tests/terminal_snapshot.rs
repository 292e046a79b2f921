//! A snapshot brings a terminal that we did not write to the state of one that never left: full-screen programs, a
//! shell with a long history and random sequences, at random moments.
//!
//! The gate asks pyte. For `tests/screen/run` the moments are left in a folder, and xterm.js and tmux judge them.

use crate::support;
use crate::support::Agent;
use data_encoding::BASE64;
use draupnir::terminal::screen::{Screen, Size};
use draupnir_console::{Console, Personality, Record};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A program, what its first screen shows, what is typed, and what always makes it print something.
type Program = (&'static str, &'static str, &'static [&'static str], &'static str);

const RANDOM: Program = ("while read x; do cat random; done", "begun", &["\n", "\n", "\n", "\n"], "\n");

const PROGRAMS: [Program; 5] = [
    (
        "ls -l --color=always /usr/bin /etc; seq 1 3000",
        "3000\r\n",
        &["\n", "echo 界 e\u{301}\n", "printf 'no end of line'\n"],
        "",
    ),
    ("less numbers", "1010", &[" ", "/77\n", "G", "b"], ""),
    ("vim -u NONE -N numbers", "1010", &["G", "ithe quick brown fox\u{1b}", ":set number\r", "\u{2}", "5dd"], ""),
    ("top -d 0.2", "PID", &["c", "1", "m", "t"], ""),
    RANDOM,
];

/// What `tests/screen/run` asks for.
const MANY_PROGRAMS: [Program; 8] = [
    (
        "vim -u NONE -N -n -c 'syntax on' -c 'set number hlsearch mouse=a' code.c",
        "include",
        &[
            "j",
            "\u{6}",
            "\u{2}",
            "G",
            "gg",
            "20G",
            "zz",
            "dd",
            "u",
            "yyp",
            "ofor (int i = 0; i < 9; i++) {\u{1b}",
            "A // 界 e\u{301}\u{1b}",
            ":split\r",
            "\u{17}w",
            ":only\r",
            "/int\r",
            "n",
            "v3j",
            "\u{1b}",
            ":set cursorline!\r",
            ":set list!\r",
            "5x",
            "J",
            ">>",
            ":!echo shell\r",
            "\r",
        ],
        "\u{c}",
    ),
    (
        "less numbers",
        "1010",
        &[" ", "b", "j", "k", "/77\n", "n", "G", "g", "10\n", "-N\n", "d", "u", "=", "?8\n"],
        "\u{c}",
    ),
    ("top -d 0.2", "PID", &["c", "1", "m", "t", "x", "z", "b", "y", "V", "i", "R", "\u{1b}OB", "\u{1b}OA", "l"], " "),
    (
        "htop -d 2",
        "PID",
        &[
            "\u{1b}OB",
            "\u{1b}OA",
            "t",
            "\u{1b}[6~",
            "\u{1b}[5~",
            "H",
            "K",
            "p",
            "\u{1b}OS",
            "\u{1b}",
            "\u{1b}OR",
            "a\u{1b}",
            "<\u{1b}",
        ],
        "\u{c}",
    ),
    (
        "tmux -S socket$$ -f /dev/null new \\; set destroy-unattached on",
        "[0]",
        &[
            "ls --color=always /etc\n",
            "\u{2}\"",
            "\u{2}%",
            "\u{2}o",
            "\u{2}x",
            "y",
            "\u{2}c",
            "\u{2}n",
            "seq 1 200\n",
            "\u{2}[",
            "\u{1b}[5~",
            "q",
            "\u{2}z",
            "\u{2} ",
            "echo 界 e\u{301}\n",
            "\u{2}t",
            "clear\n",
        ],
        "\u{2}r\u{2}r",
    ),
    (
        "mc -u /usr/share /etc",
        "Help",
        &[
            "\u{1b}OB",
            "\u{1b}OA",
            "\t",
            "\r",
            "\u{1b}[6~",
            "\u{1b}[5~",
            "\u{1b}OR",
            "q",
            "\u{14}",
            "\u{1b}OH",
            "\u{1b}OF",
        ],
        "\u{c}",
    ),
    (
        "seq 1 60000; exec bash --norc --noprofile",
        "60000\r\n",
        &[
            "ls -l --color=always /usr/bin\n",
            "seq 1 3000\n",
            "\n",
            "echo 界 e\u{301} 語\n",
            "printf 'no end'\n",
            "clear\n",
            "PS1='\\[\\e[1;32m\\]\\u@\\h\\[\\e[m\\]:\\[\\e]0;title\\a\\]\\w\\$ '\n",
            "ls --color=always /etc\n",
            "echo abc\u{1b}[D\u{1b}[Dx\n",
            "printf '\\e[44mblue\\e[K\\n\\e[m'\n",
            "printf '\\e[?2004h\\e[4:3;58:5:9mcurly\\e[m\\n'\n",
            "cat numbers\n",
            "printf '%200s|\\n' wide\n",
            "tput smcup; tput cup 3 3; echo there; tput rmcup\n",
            "history | tail -n 5\n",
        ],
        "\n",
    ),
    RANDOM,
];

/// After this time without output the last key is typed again.
const PRINTS_WITHIN: Duration = Duration::from_secs(3);

/// How many of them, and how many a session has: then a new one begins, with another size.
const MOMENTS: usize = 500;
const MOMENTS_A_SESSION: usize = 16;
const SIZES: [(u16, u16); 4] = [(80, 24), (100, 30), (132, 43), (61, 17)];

/// Numbers that look random, the same in each run.
struct Choices(u32);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(self.0 >> 8).expect("24 bits") % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Random legal sequences that terminals agree on; for a judge that is not pyte, also what pyte does in its own way:
/// rows and cells that come in with a background, wide characters cut in half, the first 16 of 256 colours, the
/// insertion and deletion of rows (where one that moves was never written to, what stood there stays), and the deletion
/// of characters (what an insertion pushed behind the last column comes back).
fn random_output(seed: u32, is_for_pyte: bool) -> String {
    let mut choices = Choices(seed);
    let mut output = String::new();
    for _ in 0..300 {
        let mut next = |bound| choices.below(bound);
        let (row, column, count) = (next(24) + 1, next(60) + 1, next(5) + 1);
        let place = format!("\x1b[m\x1b[{row};{column}H");
        let colours = if is_for_pyte { 16 } else { 0 };
        match next(if is_for_pyte { 12 } else { 18 }) {
            0 => write!(output, "{place}\x1b[{};{}mcolours\x1b[m", 30 + next(8), 40 + next(8)),
            1 => {
                let mut colour = || colours + next(256 - colours);
                write!(output, "{place}\x1b[1;4;38;5;{};48;5;{}m256\x1b[m", colour(), colour())
            }
            2 => write!(output, "{place}\x1b[7;9;38;2;{};{count};{row}mdirect", next(256)),
            3 => write!(output, "{place}\x1b[{}K", next(3)),
            4 => write!(output, "{place}\x1b[{count}{}", ['@', 'X', 'P'][next(if is_for_pyte { 2 } else { 3 })]),
            5 => write!(output, "{place}\x1b[{count}{}x", ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'd'][next(8)]),
            6 => write!(output, "{place}{}", ["\x1bM", "\x1bD", "\x1bE", "\r\n", "\tx", "\x08y"][next(6)]),
            7 => write!(output, "{place}\x1b[4hinserted\x1b[4l"),
            8 => write!(output, "{place}\x1b7saved\x1b8é€"),
            9 => write!(output, "\x1b[m\x1b[5;15r\x1b[15;1H{}\x1b[r", "region\r\n".repeat(count)),
            10 => write!(output, "\x1b[m\x1b[5;15r\x1b[5;1H{}\x1b[r", "\x1bMregion\r".repeat(count)),
            11 => write!(output, "{place}some words that may well reach the end of the line {count}"),
            12 => {
                write!(output, "{place}\x1b[{}m\x1b[{count}{}", 40 + next(8), ['L', 'M', 'S', 'T', '@', 'P'][next(6)])
            }
            13 => {
                write!(output, "{place}界語\x1b[{}D{}", next(4), ["x", "\x1b[X", "\x1b[P", "\x1b[@", "\x1b[K"][next(5)])
            }
            14 => write!(output, "\x1b[{}m\x1b[{row};70Hwrapped 界 with a background", 40 + next(8)),
            15 => write!(output, "{place}\x1b(0lqk\x1b(B \x1b[2;3;4:{}mstyled\x1b[{count}b", 1 + next(5)),
            16 => write!(output, "{place}\x1b]8;id={count};http://example/{row}\x1b\\link\x1b]8;;\x1b\\"),
            _ => write!(output, "{place}e\u{301}o\u{308}\x1b[{}J", [0, 1, 3][next(3)]),
        }
        .expect("a string takes everything");
    }
    let ends =
        ["\x1b[?25l", "\x1b[?7l", "\x1b[4h", "\x1b[3;9r\x1b[?6h", "\x1b[?1049h\x1b[Halternate", "\x1b[?1;2004h\x1b="];
    output + ends[seed as usize % if is_for_pyte { 4 } else { 6 }]
}

/// A session in which a program runs.
struct Session<'a> {
    console: &'a Console,
    name: String,
    size: Size,
}

/// A snapshot, and the output of its session.
struct Moment {
    snapshot: Vec<u8>,
    /// Up to where in the output it shows the screen.
    at: usize,
    /// All that came so far.
    output: Vec<u8>,
}

impl<'a> Session<'a> {
    fn start(console: &'a Console, home: &Path, name: String, size: Size, terminal: &str, program: Program) -> Self {
        let (program, sign, ..) = program;
        console.browser().create_with(&name, &json!({"cols": size.cols, "rows": size.rows, "shell": "/bin/sh"}));
        let environment = format!("TERM={terminal} LC_ALL=C.UTF-8 HOME={}", home.display());
        let start = format!("cd {}; export {environment}; echo be''gun; {program}\n", home.display());
        console.browser().input(&name, start.as_bytes());
        console.wait_text(&name, sign);
        Self { console, name, size }
    }

    /// A terminal comes, and these keys are typed. What they print comes behind the snapshot. The last of them makes
    /// the program print; some states of a program swallow it once (a question of tmux does).
    fn moment(&self, keys: &[&str]) -> Moment {
        let (console, name) = (self.console, self.name.as_str());
        let earlier = console.all(|_| true).pop().expect("frames came before");
        console.browser().create(name, self.size.cols, self.size.rows);
        let is_output = |record: &Record, replay: bool| {
            let payload = record.payload();
            let is_live = payload["offset"].is_number();
            payload["session_id"] == name && payload["data"].is_string() && is_live != replay
        };
        // Its parts follow each other. What is typed before one is there may be in it already.
        let part = console.after(&earlier).wait("a snapshot", |record| is_output(record, true));
        console.browser().input(name, keys.concat().as_bytes());
        let prints = || console.after(&part).within(PRINTS_WITHIN).comes(|record| is_output(record, false));
        if let Some(last) = keys.last() {
            (0..3).find(|_| {
                prints() || {
                    console.browser().input(name, last.as_bytes());
                    false
                }
            });
        }
        let live = console.after(&part).wait("live output", |record| is_output(record, false));
        let parts = console.after(&earlier).all(|record| is_output(record, true) && record.seq < live.seq);
        let data = |record: &Arc<Record>| {
            let text = record.payload()["data"].as_str().expect("text").as_bytes();
            BASE64.decode(text).expect("base64")
        };
        let stream = console.stream(name);
        assert!(stream.gaps.is_empty() && stream.repeated_bytes == 0);
        let at = live.payload()["offset"].as_u64().and_then(|at| usize::try_from(at).ok()).expect("an offset");
        Moment { snapshot: parts.iter().flat_map(data).collect(), at, output: stream.data }
    }
}

fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let python = std::env::var_os("DRAUPNIR_PYTHON").map_or(own, PathBuf::from);
    let has_pyte = Command::new(&python).args(["-c", "import pyte"]).status().is_ok_and(|status| status.success());
    has_pyte.then_some(python)
}

/// Bytes in a file of this name.
fn file(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("writable");
    path
}

/// What the programs show.
fn fill(home: &Path) {
    file(home, "numbers", (1_000..3_000).map(|n| format!("{n} of many lines\n")).collect::<String>());
    let line =
        |n: usize| format!("{}int f{n}(char *s) {{ /* of many */ return \"x\\n\"[{n}]; }}\n", "\t".repeat(n % 4));
    file(home, "code.c", format!("#include <stdio.h>\n{}", (0..300).map(line).collect::<String>()));
}

#[test]
fn fresh_terminal_shows_what_one_does_that_never_left() {
    let Some(python) = python() else { return support::skip("terminal_snapshot", "no pyte in target/venv") };
    if let Some(missing) = ["less", "vim", "top"].iter().find(|name| !Path::new("/usr/bin").join(name).exists()) {
        return support::skip("terminal_snapshot", &format!("no {missing}"));
    }
    let console = Console::builder(Personality::production()).own_address().start();
    let agent = Agent::spawn(&console, &[]);
    let home = agent.home().path().to_owned();
    fill(&home);
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/terminal_judge.py");
    let size = Size { cols: 80, rows: 24 };
    let mut sizes = Vec::new();
    for (place, program) in PROGRAMS.into_iter().enumerate() {
        let session = Session::start(&console, &home, format!("s{place}"), size, "linux", program);
        for (seed, key) in (40..).zip(program.2) {
            file(&home, "random", random_output(seed, true));
            let moment = session.moment(&[key]);
            sizes.push(moment.snapshot.len());
            let fresh = [&*moment.snapshot, moment.output.get(moment.at..).expect("it came")].concat();
            let judged = Command::new(&python)
                .arg(&judge)
                .args([size.cols.to_string(), size.rows.to_string()])
                .args([file(&home, "never_left", &moment.output), file(&home, "fresh", fresh)])
                .output()
                .expect("a Python");
            let said = String::from_utf8_lossy(&judged.stdout);
            assert!(judged.status.success(), "{program:?}, after {key:?}: {said}{judged:?}");
        }
        console.browser().close(&session.name);
    }
    sizes.sort_unstable();
    println!("{} moments without a difference; snapshots of {sizes:?} bytes", sizes.len());
    assert!(sizes.len() >= 20);
    agent.drain();
}

/// Leaves files and a list of them in the folder `DRAUPNIR_MOMENTS`.
#[test]
#[ignore = "tests/screen/run asks for it and has what judges it"]
fn moments_for_other_judges() {
    let folder = PathBuf::from(std::env::var_os("DRAUPNIR_MOMENTS").expect("a folder in DRAUPNIR_MOMENTS"));
    let console = Console::builder(Personality::production()).own_address().start();
    let agent = Agent::spawn(&console, &[]);
    let home = agent.home().path().to_owned();
    fill(&home);
    let (mut choices, mut list, mut moments) = (Choices(1), String::new(), 0);
    for number in 0.. {
        let program = MANY_PROGRAMS[number % MANY_PROGRAMS.len()];
        let (cols, rows) = choices.of(&SIZES);
        let name = format!("s{number}");
        let session = Session::start(&console, &home, name.clone(), Size { cols, rows }, "xterm-256color", program);
        let mut output = Vec::new();
        for _ in 0..MOMENTS_A_SESSION.min(MOMENTS - moments) {
            file(&home, "random", random_output(u32::try_from(moments).expect("few"), false));
            // Of what this one prints, nothing is waited for.
            if choices.below(2) == 0 {
                console.browser().input(&name, choices.of(program.2).as_bytes());
            }
            let moment = session.moment(&[choices.of(program.2), program.3]);
            let snapshot = format!("{moments}.snapshot");
            file(&folder, &snapshot, &moment.snapshot);
            // Without the history, which may be longer than everything else.
            let mut screen = Screen::new(session.size);
            screen.feed(&moment.snapshot);
            let line = agent.wait_log(|line| line["message"] == "snapshot of a screen" && line["at"] == moment.at);
            let one = json!({
                "exact": line["exact"],
                "program": program.0, "cols": cols, "rows": rows, "output": format!("{name}.output"), "at": moment.at,
                "end": moment.output.len(), "snapshot": snapshot, "snapshot_bytes": moment.snapshot.len(),
                "screen_bytes": screen.snapshot(false).len(),
            });
            writeln!(list, "{one}").expect("a string takes everything");
            output = moment.output;
            moments += 1;
        }
        file(&folder, &format!("{name}.output"), &output);
        console.browser().close(&name);
        if moments == MOMENTS {
            break;
        }
    }
    file(&folder, "list.jsonl", list);
    agent.drain();
}
