//! Real children: what they find in themselves, how they are waited for, and that nothing of them stays.

use super::child::{Child, reap_orphans, take_over_abandoned};
use super::environment::Environment;
use super::process;
use super::session::{kill_sessions, session_of};
use super::spawn::{Program, SpawnError};
use async_io::block_on;
use rustix::process::{Pid, Signal, getpgid, getsid};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A directory of one test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("draupnir-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn environment() -> Environment {
    let mut environment = Environment::default();
    environment.set("PATH", "/usr/bin:/bin");
    environment
}

/// Starts a program, to the end of its start.
fn spawn(program: &Program<'_>) -> Result<Child, SpawnError> {
    let (child, start) = super::spawn::spawn(program)?;
    block_on(start.done(&child))?;
    Ok(child)
}

/// Starts a program whose output and errors go into a pipe.
fn start(path: &str, arguments: &[&str]) -> Result<(Child, File), SpawnError> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let nothing = File::open("/dev/null").expect("there");
    let (output, writes) = io::pipe().expect("a pipe");
    let child = spawn(&Program {
        path: OsStr::new(path),
        name: None,
        arguments: &arguments,
        environment: &environment(),
        home: Path::new("/"),
        directory: None,
        stdio: [nothing.as_fd(), writes.as_fd(), writes.as_fd()],
        controlling_terminal: false,
    })?;
    Ok((child, File::from(OwnedFd::from(output))))
}

/// Runs a shell line to its end.
fn run(line: &str) -> (i32, String) {
    let (child, mut output) = start("sh", &["-c", line]).expect("sh starts");
    let mut said = String::new();
    output.read_to_string(&mut said).expect("text");
    (block_on(child.exited()), said)
}

fn lines_of(line: &str) -> Vec<String> {
    run(line).1.lines().map(str::to_owned).collect()
}

#[test]
fn exit_code_is_that_of_the_program() {
    assert_eq!(run("exit 0").0, 0);
    assert_eq!(run("exit 7").0, 7);
    assert_eq!(run("exit 255").0, 255);
}

#[test]
fn death_by_signal_is_128_plus_n() {
    assert_eq!(run("kill -TERM $$").0, 128 + 15);
    assert_eq!(run("kill -KILL $$").0, 128 + 9);
}

#[test]
fn an_end_may_be_asked_for_more_than_once() {
    let (child, _output) = start("sh", &["-c", "exit 3"]).expect("sh starts");
    assert_eq!(block_on(child.exited()), 3);
    assert_eq!(block_on(child.exited()), 3);
    assert_eq!(child.exit_code(), Some(3));
}

#[test]
#[cfg(target_os = "linux")]
fn session_of_another_namespace_is_none_of_ours() {
    let ran = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", "sys::tests::has_a_session_elsewhere", "--ignored", "--nocapture"])
        .output()
        .expect("there is unshare");
    let said = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    // Not every machine lets one make namespaces.
    assert!(said.contains("1 passed") || errors.starts_with("unshare: "), "{said}{errors}");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by session_of_another_namespace_is_none_of_ours"]
fn has_a_session_elsewhere() {
    let own = Pid::from_raw(i32::try_from(std::process::id()).expect("small")).expect("not 0");
    assert_eq!(session_of(own).expect("it runs"), None);
    assert_eq!(kill_sessions(&[own]), 0);
}

#[test]
fn a_child_leads_a_session_of_its_own() {
    let (child, _output) = start("sleep", &["1000"]).expect("sleep starts");
    assert_eq!(getsid(Some(child.id())).ok(), Some(child.id()));
    assert_eq!(getpgid(Some(child.id())).ok(), Some(child.id()));
    assert_eq!(child.exit_code(), None);
    child.signal_group(Signal::KILL);
    assert_eq!(block_on(child.exited()), 128 + 9);
}

#[test]
#[cfg(target_os = "linux")]
fn a_dropped_child_leaves_no_zombie() {
    let (child, _output) = start("true", &[]).expect("true starts");
    let number = child.id().as_raw_nonzero();
    block_on(child.exited());
    assert!(Path::new(&format!("/proc/{number}")).exists(), "its number is held");
    drop(child);
    assert!(!Path::new(&format!("/proc/{number}")).exists());
}

#[test]
#[cfg(target_os = "linux")]
fn a_child_has_no_descriptor_of_ours() {
    // Two that an exec would not close by itself.
    let leaking = File::open("/dev/null").expect("there");
    // SAFETY: duplicates a descriptor that is open; the copy is ours.
    let copy = unsafe { OwnedFd::from_raw_fd(libc::dup(leaking.as_raw_fd())) };
    assert!(copy.as_raw_fd() > 2);
    // The listing has the directory itself open as the lowest free one.
    assert_eq!(lines_of("exec ls /proc/self/fd"), ["0", "1", "2", "3"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_child_starts_with_default_signals_and_none_blocked() {
    // SAFETY: no test uses SIGUSR2, and SIGUSR1 is blocked on this thread alone.
    unsafe {
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut blocked);
        libc::sigaddset(&mut blocked, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, std::ptr::null_mut());
    }
    let own = fs::read_to_string("/proc/thread-self/status").expect("readable");
    let at = |what: &str| own.lines().find(|line| line.starts_with(what)).map(str::to_owned);
    assert_ne!(at("SigIgn:"), Some("SigIgn:\t0000000000000000".to_owned()));
    assert_ne!(at("SigBlk:"), Some("SigBlk:\t0000000000000000".to_owned()));
    let (child, mut output) = start("grep", &["-E", "^Sig(Blk|Ign)", "/proc/self/status"]).expect("grep starts");
    let mut said = String::new();
    output.read_to_string(&mut said).expect("text");
    block_on(child.exited());
    let none = "0000000000000000";
    assert_eq!(said, format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"));
    // The agent's own mask is as it was.
    let own = fs::read_to_string("/proc/thread-self/status").expect("readable");
    assert!(own.contains("SigBlk:\t0000000000000200"), "{own}");
}

#[test]
#[cfg(target_os = "linux")]
fn the_kernel_is_asked_to_take_the_child_first() {
    let score = |of: &str| -> i32 {
        let text = fs::read_to_string(format!("/proc/{of}/oom_score_adj")).expect("readable");
        text.trim().parse().expect("a number")
    };
    let (child, _output) = start("sleep", &["1000"]).expect("sleep starts");
    let own = score("self");
    assert!(score(&child.id().as_raw_nonzero().to_string()) > own || own == 1_000);
    child.signal(Signal::KILL);
    block_on(child.exited());
}

#[test]
fn missing_program_is_127() {
    for name in ["no-such-program", "/no/such/program", ""] {
        let error = start(name, &[]).expect_err("no such program");
        assert!(matches!(error, SpawnError::NotFound { .. }), "{error}");
        assert_eq!(error.exit_code(), 127);
    }
}

#[test]
fn file_without_execute_permission_is_126() {
    let scratch = Scratch::new("no-program");
    let text = scratch.file("text", "hello", 0o755);
    let script = scratch.file("script", "#!/no/such/interpreter\n", 0o755);
    let data = scratch.file("data", "#!/bin/sh\n", 0o644);
    let error_of = |path: &Path| start(path.to_str().expect("text"), &[]).expect_err("no program");
    assert!(matches!(error_of(&script), SpawnError::Interpreter { .. }));
    assert_eq!(error_of(&script).exit_code(), 126);
    for path in [&text, &data, &scratch.0] {
        let error = error_of(path);
        assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
        assert_eq!(error.exit_code(), 126);
    }
}

#[test]
fn a_bad_directory_is_an_error_and_not_another_directory() {
    let nothing = File::open("/dev/null").expect("there");
    let error = spawn(&Program {
        path: OsStr::new("true"),
        name: None,
        arguments: &[],
        environment: &environment(),
        home: Path::new("/"),
        directory: Some(Path::new("/no/such/directory")),
        stdio: [nothing.as_fd(), nothing.as_fd(), nothing.as_fd()],
        controlling_terminal: false,
    });
    assert!(matches!(error, Err(SpawnError::Directory { .. })));
    assert!(matches!(start("tr\0ue", &[]), Err(SpawnError::Nul)));
    assert!(matches!(start("true", &["\0"]), Err(SpawnError::Nul)));
}

#[test]
fn the_name_the_arguments_and_the_variables_arrive_as_they_are() {
    let nothing = File::open("/dev/null").expect("there");
    let (mut output, writes) = io::pipe().expect("a pipe");
    let mut environment = environment();
    environment.set("ODD", "a=b\nc");
    let child = spawn(&Program {
        path: OsStr::new("sh"),
        name: Some(OsStr::new("-named")),
        arguments: &["-c", "echo \"$0|$1|$2|$ODD|$PWD\"; echo $HOME", "zero", "", "two words"].map(OsString::from),
        environment: &environment,
        home: Path::new("/usr"),
        directory: None,
        stdio: [nothing.as_fd(), writes.as_fd(), writes.as_fd()],
        controlling_terminal: false,
    })
    .expect("sh starts");
    drop(writes);
    let mut said = String::new();
    output.read_to_string(&mut said).expect("text");
    assert_eq!(said, "zero||two words|a=b\nc|/usr\n\n");
    assert_eq!(block_on(child.exited()), 0);
}

#[test]
fn the_terminal_becomes_the_controlling_one() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).expect("opens");
    let child = spawn(&Program {
        path: OsStr::new("sh"),
        name: None,
        arguments: &["-c", "echo seen >/dev/tty"].map(OsString::from),
        environment: &environment(),
        home: Path::new("/"),
        directory: None,
        stdio: [slave.as_fd(), slave.as_fd(), slave.as_fd()],
        controlling_terminal: true,
    })
    .expect("sh starts");
    drop(slave);
    let mut said = Vec::new();
    // On Linux the end of a terminal is an error, after its last byte.
    let _ = File::from(master).read_to_end(&mut said);
    assert_eq!(said, b"seen\r\n");
    assert_eq!(block_on(child.exited()), 0);
}

fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

/// Waits until a process is gone: at once after a SIGKILL, but for what the kernel has still to do.
fn await_end(pid: Pid) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, pidfd_open};
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        assert_eq!(ended.ok(), Some(1), "{pid:?} still runs");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn remaining_processes_of_a_session_can_be_killed() {
    // The second job is in a group of its own, as an interactive shell would put it.
    let line = "sleep 1000 & echo $!; set -m; sleep 1000 & echo $!; exit 5";
    let (child, mut output) = start("bash", &["-c", line]).expect("bash starts");
    assert_eq!(block_on(child.exited()), 5);
    let mut said = vec![0; 64];
    let length = output.read(&mut said).expect("readable");
    let said = String::from_utf8_lossy(&said[..length]).into_owned();
    let jobs: Vec<Pid> = said.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
    assert_eq!(jobs.len(), 2, "{said}");
    assert!(jobs.iter().all(|job| is_running(*job)));
    let killed = kill_sessions(&[child.id()]);
    // The leader is a zombie still, and of the session.
    assert_eq!(killed, 3);
    for job in jobs {
        await_end(job);
        assert!(!is_running(job));
    }
    assert_eq!(kill_sessions(&[]), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn the_group_can_be_signalled_when_its_leader_is_gone() {
    let (child, mut output) = start("sh", &["-c", "sleep 1000 & echo $!; exit 0"]).expect("sh starts");
    block_on(child.exited());
    let mut said = [0; 32];
    let length = output.read(&mut said).expect("readable");
    let number = String::from_utf8_lossy(&said[..length]).trim().parse().expect("a number");
    let job = Pid::from_raw(number).expect("a process");
    assert!(is_running(job));
    child.signal_group(Signal::KILL);
    await_end(job);
}

/// These run in a process of their own, since they change the whole process or reap whatever they find.
#[cfg(target_os = "linux")]
fn in_a_process_of_its_own(test: &str) {
    let this = std::env::current_exe().expect("own path");
    let ran = std::process::Command::new(this)
        .args(["--exact", &format!("sys::tests::{test}"), "--ignored", "--nocapture"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}{errors}");
}

#[test]
#[cfg(target_os = "linux")]
fn orphans_are_reaped_and_our_own_are_left() {
    in_a_process_of_its_own("reaps_orphans");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by orphans_are_reaped_and_our_own_are_left"]
fn reaps_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("any process may");
    assert_eq!(reap_orphans(), 0);
    // An ended child of ours, in front of the orphans in the kernel's list or behind them.
    let (first, _output) = start("sh", &["-c", "exit 3"]).expect("sh starts");
    assert_eq!(block_on(first.exited()), 3);
    let orphan = || {
        let (_, said) = run("sleep 1000 >/dev/null 2>&1 & echo $!");
        let orphan = Pid::from_raw(said.trim().parse().expect("a number")).expect("a process");
        rustix::process::kill_process(orphan, Signal::KILL).expect("it runs");
        await_end(orphan);
        orphan
    };
    orphan();
    orphan();
    assert_eq!(reap_orphans(), 2);
    assert_eq!(first.exit_code(), Some(3), "our own status is where it was");
    drop(first);
    orphan();
    let (second, _output) = start("sh", &["-c", "exit 4"]).expect("sh starts");
    assert_eq!(block_on(second.exited()), 4);
    orphan();
    assert_eq!(reap_orphans(), 2);
    assert_eq!(second.exit_code(), Some(4));
    assert_eq!(reap_orphans(), 0);
}

/// A number may be another process's by the time that a former program takes its place again.
#[test]
fn process_of_others_is_not_taken_over() {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-mc", "sleep 60 & echo $!; wait $!; echo $?"]).stdout(std::process::Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    let mut lines = io::BufReader::new(shell.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let grandchild: i32 = line().parse().expect("a number");
    take_over_abandoned(&[grandchild.unsigned_abs()]);
    rustix::process::kill_process(Pid::from_raw(grandchild).expect("not 0"), Signal::TERM).expect("it runs");
    assert_eq!(line(), (128 + 15).to_string(), "SIGTERM was the first signal");
    shell.wait().expect("ours");
}

#[test]
#[cfg(target_os = "linux")]
fn hardened_process_passes_inherited_limits_on() {
    in_a_process_of_its_own("hardens_itself");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by hardened_process_passes_inherited_limits_on"]
fn hardens_itself() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, setrlimit};
    let small = Rlimit { current: Some(200), maximum: Some(300) };
    setrlimit(Resource::Nofile, small).expect("lower is allowed");
    // SAFETY: installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let limits = |of: &str| -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{of}/limits")).expect("readable");
        let wanted = ["Max core file size", "Max open files"];
        text.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
    };
    let before = limits("self");
    process::harden();
    assert_eq!(dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
    assert_eq!(getrlimit(Resource::Core).current, Some(0));
    assert_eq!(getrlimit(Resource::Nofile).current, Some(300));
    assert_ne!(before, limits("self"));
    let (child, _output) = start("sleep", &["1000"]).expect("sleep starts");
    assert_eq!(before, limits(&child.id().as_raw_nonzero().to_string()));
    child.signal(Signal::KILL);
    assert_eq!(block_on(child.exited()), 128 + 9, "the status was not thrown away");
}

#[test]
#[cfg(target_os = "linux")]
fn starts_that_hang_are_bounded_in_number_and_memory() {
    in_a_process_of_its_own("takes_every_start");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by starts_that_hang_are_bounded_in_number_and_memory"]
fn takes_every_start() {
    use super::flight::{STARTS_BYTES_MAX, STARTS_MAX, Share};
    let many: Vec<_> = (0..STARTS_MAX).map(|_| Share::take(1).expect("there is room")).collect();
    let error = start("true", &[]).expect_err("too many");
    assert!(matches!(error, SpawnError::Hanging), "{error}");
    assert_eq!((error.exit_code(), error.is_exhaustion()), (126, true));
    drop(many);
    let large = Share::take(STARTS_BYTES_MAX).expect("there is room");
    assert!(matches!(start("true", &[]), Err(SpawnError::Hanging)));
    drop(large);
    assert_eq!(run("exit 3").0, 3);
    assert!(Share::take(STARTS_BYTES_MAX).is_some(), "nothing of it is held on to");
}

#[test]
fn start_that_is_dropped_ends_its_child() {
    let nothing = File::open("/dev/null").expect("there");
    let (child, start) = super::spawn::spawn(&Program {
        path: OsStr::new("sleep"),
        name: None,
        arguments: &["1000".into()],
        environment: &environment(),
        home: Path::new("/"),
        directory: None,
        stdio: [nothing.as_fd(), nothing.as_fd(), nothing.as_fd()],
        controlling_terminal: false,
    })
    .expect("sleep starts");
    // Stopped on its way, unless it was faster; a signal that comes before the session is there reaches it too.
    child.signal_group(Signal::STOP);
    drop(start);
    child.signal_group(Signal::KILL);
    assert_eq!(block_on(child.exited()), 128 + 9);
}

#[test]
fn home_that_cannot_be_entered_is_left_for_the_root() {
    let nothing = File::open("/dev/null").expect("there");
    for (home, directory, expected) in [
        ("/no/such/home", None, "/ /\n"),
        ("/no/such/home", Some("usr"), "/usr /usr\n"),
        ("/usr", None, "/usr /usr\n"),
        ("/usr", Some("bin/.."), "/usr /usr\n"),
        ("/no/such/home", Some("/usr"), "/usr /usr\n"),
    ] {
        let (mut output, writes) = io::pipe().expect("a pipe");
        let child = spawn(&Program {
            path: OsStr::new("sh"),
            name: None,
            arguments: &["-c", "echo $(pwd -P) $PWD"].map(OsString::from),
            environment: &environment(),
            home: Path::new(home),
            directory: directory.map(Path::new),
            stdio: [nothing.as_fd(), writes.as_fd(), writes.as_fd()],
            controlling_terminal: false,
        })
        .expect("sh starts");
        drop(writes);
        let mut said = String::new();
        output.read_to_string(&mut said).expect("text");
        assert_eq!((said.as_str(), block_on(child.exited())), (expected, 0), "{home} {directory:?}");
    }
}
