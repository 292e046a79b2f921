//! Real shells in real terminals, with a loop that only keeps the reports.

use super::{Open, SCROLLBACK_BYTES_MAX, TerminalReport, TerminalSettings, Terminals};
use crate::report::{self, channel};
use async_channel::Receiver;
use async_io::{Timer, block_on};
use draupnir_fsm::driver::SessionKey;
use draupnir_fsm::driver::budget::Budget;
use futures_lite::future;
use smol::LocalExecutor;
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How long anything may take before a test gives up, in seconds: far beyond a busy machine.
const PATIENCE_S: u64 = 60;

/// What the loop of these tests knows of one session.
#[derive(Debug, Default)]
struct Seen {
    output: Vec<u8>,
    /// Where the output of the test's own begins.
    mark: usize,
    frames: Vec<Vec<u8>>,
    opened: bool,
    ended: bool,
    code: Option<i32>,
    reaped: bool,
}

impl Seen {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.output.get(self.mark..).unwrap_or_default()).into_owned()
    }

    fn is_over(&self) -> bool {
        self.ended && self.code.is_some()
    }
}

struct Stage {
    terminals: Terminals,
    reports: Receiver<report::Report>,
    seen: BTreeMap<u32, Seen>,
    /// Nothing is read from these.
    held_up: Vec<u32>,
}

impl Stage {
    async fn open(&mut self, key: u32, line: &str) {
        self.open_sized(key, line, 80, 24).await;
    }

    /// A shell without echo and prompt, that is given one line.
    async fn open_sized(&mut self, key: u32, line: &str, cols: u16, rows: u16) {
        self.terminals.open(SessionKey(key), Open { shell: Some("/bin/sh"), cols, rows });
        self.seen.insert(key, Seen::default());
        self.terminals.grant(SessionKey(key), usize::MAX, Some(0));
        self.type_line(key, "stty -echo; PS1=; PS2=; echo set''tled");
        self.until_text(key, "settled\r\n").await;
        let seen = self.seen.entry(key).or_default();
        seen.mark = seen.output.len();
        self.type_line(key, line);
    }

    fn type_line(&mut self, key: u32, line: &str) {
        self.terminals.input(SessionKey(key), format!("{line}\n").as_bytes()).expect("there is room");
    }

    fn seen(&self, key: u32) -> &Seen {
        self.seen.get(&key).expect("opened")
    }

    /// Takes reports until the session is as wanted.
    async fn until(&mut self, key: u32, wanted: impl Fn(&Seen) -> bool) {
        while !wanted(self.seen(key)) {
            let report = future::or(async { self.reports.recv().await.ok() }, async {
                Timer::after(Duration::from_secs(PATIENCE_S)).await;
                None
            });
            let Some(report::Report::Terminal(report)) = report.await else {
                panic!("waited in vain; seen: {:?}", self.seen(key).text());
            };
            self.take(&report);
        }
    }

    async fn until_text(&mut self, key: u32, text: &str) {
        self.until(key, |seen| seen.text().contains(text)).await;
    }

    fn take(&mut self, report: &TerminalReport) {
        match *report {
            TerminalReport::Opened { session } => self.seen.entry(session.0).or_default().opened = true,
            TerminalReport::OpenFailed { session, ref error } => {
                self.pull(session.0);
                let seen = self.seen.entry(session.0).or_default();
                (seen.ended, seen.code) = (true, Some(error.exit_code()));
            }
            TerminalReport::Output { session } => self.pull(session.0),
            TerminalReport::EndOfOutput { session } => {
                self.pull(session.0);
                self.seen.entry(session.0).or_default().ended = true;
            }
            TerminalReport::Exited { session, code } => self.seen.entry(session.0).or_default().code = Some(code),
            TerminalReport::Reaped { session } => self.seen.entry(session.0).or_default().reaped = true,
        }
    }

    fn pull(&mut self, key: u32) {
        let seen = self.seen.entry(key).or_default();
        let end = self.terminals.held(SessionKey(key)).end;
        let mut at = seen.output.len() as u64;
        while at < end {
            let chunk = self.terminals.chunk(SessionKey(key), at, 32 << 10);
            assert_eq!(chunk.from, at, "nothing is lost");
            if chunk.bytes.is_empty() {
                break;
            }
            at += chunk.bytes.len() as u64;
            seen.output.extend_from_slice(chunk.bytes);
            seen.frames.push(chunk.bytes.to_vec());
        }
        if !self.held_up.contains(&key) {
            self.terminals.grant(SessionKey(key), 64 << 10, Some(at));
        }
    }

    async fn process_of(&mut self, key: u32, line: &str) -> u32 {
        self.type_line(key, &format!("{line} echo \"pid=$!=\""));
        self.until_text(key, "=\r\n").await;
        let text = self.seen(key).text();
        text.split('=').nth(1).expect("a number").parse().expect("a number")
    }
}

fn on_stage<F: Future<Output = ()>>(play: impl FnOnce(Stage) -> F) {
    let executor = Rc::new(LocalExecutor::new());
    let (reporter, reports) = channel();
    let settings =
        TerminalSettings { shell: "/bin/bash".into(), home: None, secrets: vec!["CARGO_PKG_NAME".to_owned()] };
    let terminals = Terminals::new(settings, executor.clone(), reporter, Rc::new(Budget::new()));
    let stage = Stage { terminals, reports, seen: BTreeMap::new(), held_up: Vec::new() };
    block_on(executor.run(play(stage)));
}

/// What follows the name in `/proc/PID/stat`: the state, the parent, and more.
fn stat(process: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn is_running(process: u32) -> bool {
    !matches!(stat(process).first().map(String::as_str), None | Some("Z" | "X"))
}

#[test]
fn a_shell_answers_and_ends() {
    on_stage(|mut stage| async move {
        stage.open(1, "echo $((6 * 7))").await;
        stage.until_text(1, "42").await;
        stage.type_line(1, "exit 3");
        stage.until(1, Seen::is_over).await;
        assert_eq!(stage.seen(1).code, Some(3));
        let end = stage.terminals.end(SessionKey(1));
        assert_eq!(end, stage.seen(1).output.len() as u64);
        let kept = stage.terminals.chunk(SessionKey(1), 0, 1 << 20).bytes.to_vec();
        assert_eq!(kept, stage.seen(1).output, "kept until it is finished");
        stage.terminals.finish(SessionKey(1));
        assert_eq!(stage.terminals.held(SessionKey(1)), 0..0);
    });
}

#[test]
fn the_size_is_set_and_changes_arrive() {
    on_stage(|mut stage| async move {
        // The shell has the terminal back when it prints by itself.
        stage.open_sized(1, "trap 'stty size' WINCH; stty size; echo back", 100, 30).await;
        stage.until_text(1, "30 100\r\nback").await;
        stage.terminals.resize(SessionKey(1), 132, 43);
        stage.type_line(1, ":");
        stage.until_text(1, "43 132").await;
    });
}

#[test]
fn ctrl_c_interrupts_and_ctrl_d_ends_the_shell() {
    on_stage(|mut stage| async move {
        // The program that prints it is in the foreground.
        stage.open(1, "sh -c 'echo ready; exec sleep 100'").await;
        stage.until_text(1, "ready").await;
        stage.terminals.input(SessionKey(1), b"\x03").expect("there is room");
        stage.type_line(1, "echo \"was $?\"");
        stage.until_text(1, "was 130").await;
        stage.terminals.input(SessionKey(1), b"\x04").expect("there is room");
        stage.until(1, Seen::is_over).await;
    });
}

#[test]
fn the_default_shell_is_a_login_shell_without_secrets() {
    assert!(std::env::var("CARGO_PKG_NAME").is_ok(), "the stand-in for a secret");
    on_stage(|mut stage| async move {
        stage.terminals.open(SessionKey(1), Open { shell: None, cols: 80, rows: 24 });
        stage.seen.insert(1, Seen::default());
        stage.terminals.grant(SessionKey(1), usize::MAX, None);
        stage.type_line(
            1,
            "shopt -q login_shell && echo lo''gin; echo \"[$0][$TERM][$COLORTERM][$CARGO_PKG_NAME][$PWD]\"",
        );
        let home = std::env::var("HOME").expect("set");
        stage.until_text(1, &format!("[-bash][xterm-256color][truecolor][][{home}]")).await;
        assert!(stage.seen(1).text().contains("login\r\n"));
    });
}

#[test]
fn missing_shell_leaves_one_line() {
    on_stage(|mut stage| async move {
        let open = Open { shell: Some("/no/such/shell"), cols: 80, rows: 24 };
        stage.terminals.open(SessionKey(7), open);
        stage.seen.insert(7, Seen::default());
        stage.until(7, Seen::is_over).await;
        assert_eq!((stage.seen(7).opened, stage.seen(7).code), (false, Some(127)));
        assert_eq!(stage.terminals.held(SessionKey(7)), 0..27);
        assert_eq!(stage.terminals.chunk(SessionKey(7), 0, 100).bytes, b"/no/such/shell: not found\r\n");
        assert_eq!(stage.terminals.end(SessionKey(7)), 27);
        stage.terminals.finish(SessionKey(7));
        assert_eq!(stage.terminals.held(SessionKey(7)), 0..0);
    });
}

#[test]
fn everything_that_was_printed_comes_before_the_end() {
    on_stage(|mut stage| async move {
        for key in 1..=50 {
            stage.open(key, "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit").await;
        }
        for key in 1..=50 {
            stage.until(key, Seen::is_over).await;
            assert!(stage.seen(key).text().ends_with("line 199\r\n"), "{:?}", stage.seen(key).text());
            let lines = stage.seen(key).text().matches("line").count();
            assert_eq!(lines, 200);
            stage.terminals.finish(SessionKey(key));
        }
    });
}

#[test]
fn a_background_job_holds_the_terminal_open() {
    on_stage(|mut stage| async move {
        stage.open(1, "").await;
        let job = stage.process_of(1, "sleep 100 &").await;
        stage.type_line(1, "exit 5");
        stage.until(1, |seen| seen.code == Some(5)).await;
        assert!(!stage.seen(1).ended);
        stage.terminals.kill(SessionKey(1));
        stage.until(1, |seen| seen.ended && seen.reaped).await;
        assert!(!is_running(job));
    });
}

#[test]
fn a_hang_up_ends_the_shell_and_its_jobs() {
    on_stage(|mut stage| async move {
        stage.open(1, "PS1= exec bash --norc --noediting -i").await;
        let job = stage.process_of(1, "sleep 100 &").await;
        assert!(is_running(job));
        stage.terminals.hang_up(SessionKey(1));
        stage.type_line(1, ""); // a bash that gets the signal just before it reads notices it at the next line only
        stage.until(1, |seen| seen.is_over() && seen.reaped).await;
        assert_eq!(stage.seen(1).code, Some(128 + 1));
        assert!(!is_running(job));
    });
}

#[test]
fn process_ignoring_sighup_is_reaped_after_sigkill() {
    on_stage(|mut stage| async move {
        stage.open(1, "trap '' HUP").await;
        let job = stage.process_of(1, "(trap '' HUP; exec sleep 100 <&- >&- 2>&-) &").await;
        stage.terminals.hang_up(SessionKey(1));
        stage.type_line(1, "echo st''ill here");
        stage.until_text(1, "still here").await;
        stage.type_line(1, "exit");
        stage.until(1, Seen::is_over).await;
        assert!(is_running(job) && !stage.seen(1).reaped);
        stage.terminals.kill(SessionKey(1));
        stage.until(1, |seen| seen.reaped).await;
        assert!(!is_running(job));
    });
}

#[test]
fn program_not_reading_delays_no_other_session() {
    on_stage(|mut stage| async move {
        stage.open(1, "stty raw; echo ready; exec sleep 100").await;
        stage.until_text(1, "ready").await;
        let paste = vec![b'x'; 64 << 10];
        let mut taken = 0;
        while stage.terminals.input(SessionKey(1), &paste).is_ok() {
            taken += paste.len();
            assert!(taken < 4 << 20, "the queue has a bound");
        }
        assert!(taken >= super::INPUT_BYTES_MAX, "{taken}");
        stage.open(2, "echo $((6 * 7))").await;
        stage.until_text(2, "42").await;
        stage.terminals.kill(SessionKey(1));
        stage.until(1, |seen| seen.code == Some(137)).await;
    });
}

#[test]
fn a_large_paste_arrives_whole() {
    on_stage(|mut stage| async move {
        stage.open(1, "stty raw; echo ready; head -c 700000 | cksum; exit").await;
        stage.until_text(1, "ready").await;
        let paste: Vec<u8> = (0..700_000_u32).map(|i| b"0123456789abcdef"[(i as usize * 7) % 16]).collect();
        stage.terminals.input(SessionKey(1), &paste).expect("there is room");
        stage.until(1, Seen::is_over).await;
        let file = std::env::temp_dir().join(format!("draupnir-paste-{}", std::process::id()));
        fs::write(&file, &paste).expect("writable");
        let sum = std::process::Command::new("cksum").stdin(fs::File::open(&file).expect("there")).output();
        fs::remove_file(&file).expect("ours");
        let sum = String::from_utf8(sum.expect("runs").stdout).expect("text");
        assert!(stage.seen(1).text().contains(sum.trim()), "{:?} {sum}", stage.seen(1).text());
    });
}

#[test]
fn program_waits_while_its_terminal_has_no_credit() {
    on_stage(|mut stage| async move {
        stage.open(1, "").await;
        stage.held_up.push(1);
        stage.terminals.grant(SessionKey(1), 0, Some(0));
        stage.type_line(1, "yes | head -c 3000000; echo; echo done");
        stage.open(2, "echo $((6 * 7))").await;
        stage.until_text(2, "42").await;
        let before = stage.seen(1).output.len();
        assert!(stage.seen(1).text().is_empty());
        stage.terminals.grant(SessionKey(1), 1_000, Some(0));
        stage.until(1, |seen| seen.output.len() == before + 1_000).await;
        stage.held_up.clear();
        stage.terminals.grant(SessionKey(1), 1_000, Some(before as u64 + 1_000));
        stage.until_text(1, "done").await;
        assert_eq!(stage.seen(1).text().matches('y').count(), 1_500_000);
    });
}

#[test]
fn no_character_is_split_however_it_arrives() {
    on_stage(|mut stage| async move {
        let text = "aé€🦀z".repeat(3);
        let octal: Vec<String> = text.bytes().map(|byte| format!("\\\\{byte:03o}")).collect();
        for cut in 0..=octal.len() {
            let key = u32::try_from(cut).expect("small") + 1;
            let (front, back) = octal.split_at(cut);
            // The two parts are two writes.
            stage.open(key, &format!("printf \"{}\"; printf \"{}\"; exit", front.concat(), back.concat())).await;
        }
        for key in (1..).take(octal.len() + 1) {
            stage.until(key, Seen::is_over).await;
            let seen = stage.seen(key);
            assert!(seen.text().ends_with(&text), "{:?}", seen.text());
            assert!(seen.frames.iter().all(|frame| std::str::from_utf8(frame).is_ok()), "{:?}", seen.frames);
            stage.terminals.finish(SessionKey(key));
        }
    });
}

#[test]
fn incomplete_character_is_sent_after_20_ms() {
    on_stage(|mut stage| async move {
        stage.open(1, "printf 'x\\342\\202'; sleep 100").await;
        stage.until(1, |seen| seen.output.ends_with(b"x\xe2\x82")).await;
        assert_eq!(stage.seen(1).frames.last().map(Vec::as_slice), Some(b"\xe2\x82".as_slice()));
    });
}

#[test]
fn bytes_that_are_no_text_flow() {
    on_stage(|mut stage| async move {
        stage.open(1, "stty raw; head -c 500000 /dev/urandom; exit").await;
        stage.until(1, Seen::is_over).await;
        assert!(stage.seen(1).output.len() >= 500_000);
    });
}

#[test]
fn unwatched_session_keeps_its_last_output() {
    on_stage(|mut stage| async move {
        stage.open(1, "").await;
        stage.held_up.push(1);
        stage.terminals.grant(SessionKey(1), usize::MAX, None);
        stage.type_line(1, "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; echo over");
        // Only the ends are looked at, as without a link.
        loop {
            let held = stage.terminals.held(SessionKey(1));
            let mut tail = stage.terminals.chunk(SessionKey(1), held.end.saturating_sub(6), 6).bytes.to_vec();
            tail.retain(|byte| *byte >= b' ');
            if tail == b"over" {
                break;
            }
            let report = stage.reports.recv().await.expect("there is a channel");
            assert!(matches!(report, report::Report::Terminal(TerminalReport::Output { session: SessionKey(1) })));
        }
        let held = stage.terminals.held(SessionKey(1));
        assert_eq!(held.end - held.start, SCROLLBACK_BYTES_MAX as u64);
        let made = stage.terminals.snapshot(SessionKey(1), held.end, None);
        assert_eq!((made.at, made.exact), (held.end, true));
        let mut shown = Vec::new();
        while shown.len() < made.bytes {
            shown.extend_from_slice(stage.terminals.snapshot_chunk(SessionKey(1), shown.len() as u64, 1_000));
        }
        let text = String::from_utf8(shown).expect("text");
        assert!(text.starts_with("\x1bcline ") && text.contains("line 59000\r\n") && text.contains("over"), "{text}");
        assert!(stage.terminals.snapshot_chunk(SessionKey(1), 0, 1_000).is_empty(), "it is freed");
    });
}

#[test]
fn a_full_screen_program_is_made_to_draw_again() {
    on_stage(|mut stage| async move {
        let program = "trap 'echo \"now $(stty size)\"' WINCH; printf '\\033[?1049h\\033[?2004h'; echo ready; \
                       while :; do sleep 0.01; done";
        stage.open(1, &format!("exec sh -c '{}'", program.replace('\'', "'\\''"))).await;
        stage.until_text(1, "ready").await;
        let end = stage.terminals.held(SessionKey(1)).end;
        assert!(stage.terminals.snapshot(SessionKey(1), end, None).exact);
        stage.terminals.redraw(SessionKey(1));
        stage.until_text(1, "now 23 80").await;
        stage.until_text(1, "now 24 80").await;
        stage.terminals.kill(SessionKey(1));
    });
}

#[test]
fn a_shell_at_its_prompt_is_not_disturbed_by_a_redraw() {
    on_stage(|mut stage| async move {
        stage.open(1, "trap 'echo resized' WINCH; echo ready").await;
        stage.until_text(1, "ready").await;
        stage.terminals.snapshot(SessionKey(1), 0, None);
        stage.terminals.redraw(SessionKey(1));
        stage.type_line(1, "echo do''ne");
        stage.until_text(1, "done").await;
        assert!(!stage.seen(1).text().contains("resized"));
    });
}
