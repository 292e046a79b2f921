//! Real commands: their surroundings, their captured output, and their end.

use super::*;
use crate::report::{self, channel};
use crate::sys::environment::Environment;
use async_channel::Receiver;
use async_io::Timer;
use draupnir_fsm::driver::CommandKey;
use futures_lite::future::or;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How long a test waits for a report.
const WAIT_MAX: Duration = Duration::from_secs(20);

const COMMAND: CommandKey = CommandKey(7);

/// Commands, a loop that takes their reports, and a home directory.
struct Bench {
    commands: CommandRunner,
    executor: Rc<LocalExecutor<'static>>,
    reports: Receiver<report::Report>,
    budget: Rc<Budget>,
    home: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.commands.kill(COMMAND);
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Bench {
    fn new(test: &str) -> Self {
        let home = std::env::temp_dir().join(format!("draupnir-command-{test}-{}", std::process::id()));
        fs::create_dir_all(&home).expect("the temporary directory is writable");
        let mut environment = Environment::default();
        environment.set("PATH", "/usr/bin:/bin");
        environment.set("HOME", &home);
        let executor = Rc::new(LocalExecutor::new());
        let (reporter, reports) = channel();
        let budget = Rc::new(Budget::new());
        let settings = CommandSettings { environment, home: home.clone() };
        let commands = CommandRunner::new(settings, Rc::clone(&executor), reporter, Rc::clone(&budget));
        Self { commands, executor, reports, budget, home }
    }

    fn next(&self) -> CommandReport {
        let next = async {
            match self.reports.recv().await.expect("open") {
                report::Report::Command(report) => report,
                other => panic!("{other:?}"),
            }
        };
        let too_long = async {
            Timer::after(WAIT_MAX).await;
            panic!("nothing happens");
        };
        async_io::block_on(self.executor.run(or(next, too_long)))
    }

    /// Starts a command, to the end of its start.
    fn start(&mut self, spec: Spec) {
        self.commands.start(COMMAND, spec);
        let report = self.next();
        assert!(matches!(report, CommandReport::Started { command: COMMAND }), "{report:?}");
    }

    /// Starts a command that cannot be started.
    fn failure(&mut self, spec: Spec) -> NotStarted {
        self.commands.start(COMMAND, spec);
        match self.next() {
            CommandReport::StartFailed { command: COMMAND, error } => error,
            other => panic!("{other:?}"),
        }
    }

    /// Takes reports until one fits; returns the exit code if a report had it.
    fn until(&self, is_it: impl Fn(&CommandReport) -> bool) -> Option<i32> {
        let mut code = None;
        loop {
            let report = self.next();
            if let CommandReport::Exited { code: reported, .. } = report {
                code = Some(reported);
            }
            if is_it(&report) {
                return code;
            }
        }
    }

    /// Lets a command run to the end of its process and of its output.
    fn run(&mut self, spec: Spec) -> CommandResult {
        self.start(spec);
        let (mut code, mut ended) = (None, false);
        while code.is_none() || !ended {
            match self.next() {
                CommandReport::Exited { command: COMMAND, code: reported } => code = Some(reported),
                CommandReport::EndOfOutput { command: COMMAND } => ended = true,
                other => panic!("{other:?}"),
            }
        }
        self.result(code.expect("it has ended"))
    }

    fn result(&mut self, code: i32) -> CommandResult {
        let mut captured = self.commands.finish(COMMAND);
        let text = |output: &mut Output| {
            let kept = output.kept();
            assert_eq!(kept.left_out, 0);
            String::from_utf8([kept.head, kept.tail].concat()).expect("text")
        };
        CommandResult {
            stdout: text(&mut captured.stdout),
            stderr: text(&mut captured.stderr),
            code: captured.exit_code(code),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct CommandResult {
    stdout: String,
    stderr: String,
    code: i32,
}

fn shell(line: &str) -> Spec {
    Spec { line: Line::Shell(line.into()), env: Vec::new(), script: None, directory: None, stream: false }
}

fn program(program: &str, arguments: &[&str]) -> Spec {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Spec { line: Line::Program { program: program.into(), arguments }, ..shell("") }
}

fn is_exit(report: &CommandReport) -> bool {
    matches!(report, CommandReport::Exited { .. })
}

fn is_output(report: &CommandReport) -> bool {
    matches!(report, CommandReport::Output { .. })
}

#[test]
fn a_shell_line_has_pipes_globs_and_a_home() {
    let mut bench = Bench::new("shell");
    for name in ["b.txt", "a.txt"] {
        fs::write(bench.home.join(name), name).expect("writable");
    }
    let result = bench.run(shell("cat ~/*.txt | tr a-z A-Z; pwd; echo err >&2; exit 3"));
    let expected = format!("A.TXTB.TXT{}\n", bench.home.display());
    assert_eq!(result, CommandResult { stdout: expected, stderr: "err\n".into(), code: 3 });
}

#[test]
fn arguments_are_left_alone() {
    let mut bench = Bench::new("arguments");
    let result = bench.run(program("printf", &["%s|", "a b", "\"c'", "$HOME", "*", ""]));
    assert_eq!(result.stdout, "a b|\"c'|$HOME|*||");
}

#[test]
fn variables_are_those_of_the_agent_and_those_of_the_payload() {
    let mut bench = Bench::new("variables");
    let env = [("HOME", "/nowhere"), ("A", "1"), ("A", "x=y z")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let result = bench.run(Spec { env, ..program("env", &["--"]) });
    let mut lines: Vec<_> = result.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    let pwd = format!("PWD={}", bench.home.display());
    assert_eq!(lines, ["A=x=y z", "HOME=/nowhere", "PATH=/usr/bin:/bin", &pwd]);
}

#[test]
fn standard_input_is_empty_or_the_script() {
    let mut bench = Bench::new("input");
    assert_eq!(bench.run(shell("wc -c")).stdout.trim(), "0");
    let script = Some(vec![b'x'; 300 << 10]);
    let result = bench.run(Spec { script: script.clone(), ..shell("wc -c") });
    assert_eq!(result.stdout.trim(), (300 << 10).to_string());
    let unread = bench.run(Spec { script, ..shell("exit 4") });
    assert_eq!(unread.code, 4, "the command ends without having read its script");
    let script = Some(b"echo \"$1 $0\"; exit 5".to_vec());
    let result = bench.run(Spec { script, ..program("/bin/sh", &["-s", "one"]) });
    assert_eq!((result.stdout.as_str(), result.code), ("one /bin/sh\n", 5));
}

#[test]
fn working_directory_is_the_named_one_or_home() {
    let mut bench = Bench::new("directory");
    fs::create_dir(bench.home.join("sub")).expect("writable");
    let named = |name: &str| Spec { directory: Some(name.into()), ..shell("pwd") };
    let result = bench.run(named("sub"));
    assert_eq!(result.stdout, format!("{}/sub\n", bench.home.display()));
    assert_eq!(bench.run(named("/")).stdout, "/\n");
    let failure = bench.failure(named("missing"));
    assert_eq!(failure.exit_code, 126);
    let result = bench.result(0);
    assert!(result.stderr.contains("missing") && result.stderr.contains("No such file"), "{result:?}");
    assert_eq!(result.code, 126);
    bench.commands.settings.home = "/nowhere".into();
    assert_eq!(bench.run(shell("pwd")).stdout, "/\n");
}

#[test]
fn failed_start_gives_reason_and_exit_code() {
    let mut bench = Bench::new("failures");
    let plain = bench.home.join("plain");
    fs::write(&plain, "no program").expect("writable");
    let plain = plain.to_str().expect("text");
    for (name, code, reason) in [("no-such-program", 127, "not found"), (plain, 126, "ermission denied")] {
        let failure = bench.failure(program(name, &["x"]));
        assert_eq!(failure.exit_code, code);
        let result = bench.result(0);
        assert!(result.stderr.contains(name) && result.stderr.contains(reason), "{result:?}");
        assert_eq!(result.code, code);
    }
    let result = bench.run(shell("no-such-program"));
    assert_eq!(result.code, 127, "the shell says so itself");
    assert!(result.stderr.contains("not found"));
}

#[test]
fn death_by_signal_is_128_plus_n() {
    let mut bench = Bench::new("signal");
    assert_eq!(bench.run(shell("kill -9 $$")).code, 128 + 9);
}

#[test]
fn signals_reach_the_group_and_what_it_printed_stays() {
    let mut bench = Bench::new("group");
    // A shell loses a signal that comes between its fork and the exec of its child: each child prints "up" first.
    let child = "sh -c 'echo up; exec sleep 600' &";
    let line = format!("trap 'echo ended; exit 9' TERM; {child} {child} wait; wait");
    bench.start(Spec { stream: true, ..shell(&line) });
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        bench.commands.grant(COMMAND, stream, usize::MAX);
    }
    while bench.commands.held(COMMAND, OutputStream::Stdout).end < 6 {
        bench.until(is_output);
    }
    bench.commands.terminate(COMMAND);
    let code = bench.until(|report| matches!(report, CommandReport::EndOfOutput { .. }));
    let code = code.or_else(|| bench.until(is_exit));
    let expected = CommandResult { stdout: "up\nup\nended\n".into(), stderr: String::new(), code: 9 };
    assert_eq!(bench.result(code.expect("reported")), expected);
}

#[test]
fn sigkill_ends_program_ignoring_sigterm_and_children() {
    let mut bench = Bench::new("stubborn");
    let line = "trap '' TERM; sleep 600 & echo up; wait";
    bench.start(Spec { stream: true, ..shell(line) });
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        bench.commands.grant(COMMAND, stream, usize::MAX);
    }
    bench.until(is_output);
    bench.commands.terminate(COMMAND);
    bench.commands.kill(COMMAND);
    let code = bench.until(|report| matches!(report, CommandReport::EndOfOutput { .. }));
    let code = code.or_else(|| bench.until(is_exit));
    assert_eq!(code, Some(128 + 9));
}

#[test]
fn a_child_in_the_background_does_not_hold_the_output_back() {
    let mut bench = Bench::new("background");
    let fifo = bench.home.join("fifo");
    let line = format!("mkfifo {0}; (read go < {0}; echo late) & echo early", fifo.display());
    bench.start(shell(&line));
    assert_eq!(bench.until(is_exit), Some(0));
    assert_eq!(bench.result(0).stdout, "early\n");
    // The child still runs: it has opened the other end.
    fs::write(&fifo, "go\n").expect("the child reads");
}

#[test]
fn memory_is_bounded_whatever_is_printed() {
    let mut bench = Bench::new("flood");
    let before = bench.budget.granted();
    bench.start(shell("yes | head -c 64M; echo end"));
    bench.until(|report| matches!(report, CommandReport::EndOfOutput { .. }));
    assert!(bench.budget.granted() - before <= CAPTURE_BYTES_MAX);
    let mut captured = bench.commands.finish(COMMAND);
    assert_eq!(captured.stdout.bytes(), (64 << 20) + 4);
    let kept = captured.stdout.kept();
    assert!(kept.head.starts_with(b"y\ny\n") && kept.tail.ends_with(b"y\nend\n"));
    assert_eq!(kept.head.len() + kept.tail.len(), CAPTURE_BYTES_MAX);
    drop(captured);
    bench.run(shell("true"));
    assert_eq!(bench.budget.granted(), before);
}

#[test]
fn a_streamed_output_is_read_as_fast_as_it_is_allowed() {
    let mut bench = Bench::new("stream");
    let before = bench.budget.granted();
    let line = "head -c 300000 /dev/zero | tr '\\0' x; echo problem >&2";
    bench.start(Spec { stream: true, ..shell(line) });
    let mut end = 0;
    for allowed in [1, 1_000, 100_000] {
        bench.commands.grant(COMMAND, OutputStream::Stdout, allowed);
        end += allowed as u64;
        while bench.commands.held(COMMAND, OutputStream::Stdout) != (0..end) {
            bench.until(is_output);
        }
    }
    assert_eq!(bench.commands.held(COMMAND, OutputStream::Stderr), 0..0);
    let chunk = bench.commands.chunk(COMMAND, OutputStream::Stdout, 1_000, 50);
    assert_eq!(chunk, Chunk { offset: 1_000, data: vec![b'x'; 50] });
    bench.commands.grant(COMMAND, OutputStream::Stderr, 100);
    bench.commands.grant(COMMAND, OutputStream::Stdout, usize::MAX);
    bench.until(|report| matches!(report, CommandReport::EndOfOutput { .. }));

    let mut captured = bench.commands.finish(COMMAND);
    assert_eq!(captured.stdout.bytes(), 300_000, "the result has all of it, too");
    assert_eq!(captured.stderr.kept().head, b"problem\n");
    drop(captured);
    let held = bench.commands.held(COMMAND, OutputStream::Stdout);
    assert_eq!((held.end, held.end - held.start), (300_000, pipe::STREAM_BYTES_MAX as u64));
    let chunk = bench.commands.chunk(COMMAND, OutputStream::Stdout, 0, 10);
    assert_eq!(chunk.offset, held.start, "what is lost is left out");
    assert_eq!(bench.commands.chunk(COMMAND, OutputStream::Stderr, 0, 100).data, b"problem\n");
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        bench.commands.release(COMMAND, stream);
        assert_eq!(bench.commands.held(COMMAND, stream), 0..0);
    }
    bench.run(shell("true"));
    assert_eq!(bench.budget.granted(), before);
}

#[test]
fn granted_credit_can_be_withdrawn() {
    let mut bench = Bench::new("taken-back");
    let fifo = bench.home.join("fifo");
    let line = format!("mkfifo {0}; echo up >&2; read go < {0}; echo late; echo done >&2", fifo.display());
    bench.start(Spec { stream: true, ..shell(&line) });
    bench.commands.grant(COMMAND, OutputStream::Stdout, 100);
    bench.commands.grant(COMMAND, OutputStream::Stderr, 100);
    bench.until(is_output);
    bench.commands.grant(COMMAND, OutputStream::Stdout, 0);
    fs::write(&fifo, "go\n").expect("it reads");
    while bench.commands.held(COMMAND, OutputStream::Stderr).end < 8 {
        bench.until(is_output);
    }
    assert_eq!(bench.commands.held(COMMAND, OutputStream::Stdout), 0..0);
    bench.commands.grant(COMMAND, OutputStream::Stdout, 100);
    bench.until(|report| matches!(report, CommandReport::EndOfOutput { .. }));
    assert_eq!(bench.commands.chunk(COMMAND, OutputStream::Stdout, 0, 100).data, b"late\n");
}

#[test]
fn refused_output_is_in_the_result_and_the_stream() {
    let mut bench = Bench::new("rest");
    bench.start(Spec { stream: true, ..shell("echo one; echo two >&2") });
    assert_eq!(bench.until(is_exit), Some(0));
    assert_eq!(bench.result(0), CommandResult { stdout: "one\n".into(), stderr: "two\n".into(), code: 0 });
    assert_eq!(bench.commands.chunk(COMMAND, OutputStream::Stdout, 0, 100).data, b"one\n");
    assert_eq!(bench.commands.chunk(COMMAND, OutputStream::Stderr, 0, 100).data, b"two\n");
}

#[test]
fn characters_are_sent_whole_unless_they_never_end() {
    let mut bench = Bench::new("characters");
    let fifo = bench.home.join("fifo");
    let line = format!("mkfifo {0}; printf 'a\\342\\202'; read go < {0}; printf '\\254b\\303'", fifo.display());
    bench.start(Spec { stream: true, ..shell(&line) });
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        bench.commands.grant(COMMAND, stream, usize::MAX);
    }
    while bench.commands.held(COMMAND, OutputStream::Stdout).end < 3 {
        bench.until(is_output);
    }
    let chunk = |bench: &Bench, from, max| bench.commands.chunk(COMMAND, OutputStream::Stdout, from, max).data;
    assert_eq!(chunk(&bench, 0, 100), b"a");
    assert_eq!(chunk(&bench, 1, 100), b"", "it may still go on");
    fs::write(&fifo, "go\n").expect("it reads");
    bench.until(|report| matches!(report, CommandReport::EndOfOutput { .. }));
    assert_eq!(chunk(&bench, 1, 100), b"\xe2\x82\xacb\xc3");
    assert_eq!(chunk(&bench, 0, 3), b"a");
    assert_eq!(chunk(&bench, 1, 2), b"\xe2\x82", "longer than what was asked for");
}

#[test]
fn command_never_started_has_no_output() {
    let mut bench = Bench::new("never");
    assert_eq!(bench.result(130), CommandResult { stdout: String::new(), stderr: String::new(), code: 130 });
    bench.commands.terminate(COMMAND);
    bench.commands.kill(COMMAND);
    bench.commands.grant(COMMAND, OutputStream::Stdout, 1);
}
