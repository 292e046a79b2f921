//! Hosts that lack what programs expect: the agent goes on sending heartbeats, does what it can, and reports what it
//! cannot.

use crate::support;
use crate::support::group::Group;
use crate::support::namespace;
use crate::support::stranger::{STRANGER, as_limited_user, as_stranger};
use crate::support::{Agent, Setup, skip};
use draupnir_console::{Console, Personality};
use std::process::Command;

/// The agent, started by this wrapper command, with five heartbeats a second.
fn wrapped(console: &Console, words: &[&str]) -> Setup {
    let setup = Setup::new(console).env("SINDRI_AGENT_HEARTBEAT", "0.2");
    let agent = setup.program_path().to_owned();
    let (program, arguments) = words.split_first().expect("a wrapper has a name");
    let setup = arguments.iter().fold(setup.program(program), |setup, word| setup.arg(word));
    setup.arg(agent)
}

/// The agent in a mount namespace that these shell commands have changed; `None` if the host does not allow it.
fn mounted(test: &str, console: &Console, commands: &[&str]) -> Option<Agent> {
    if !namespace::is_possible() {
        skip(test, "no mount namespace can be had here");
        return None;
    }
    let setup = Setup::new(console).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_AGENT_METRICS", "0.5");
    Some(namespace::mounted(setup, commands).spawn())
}

/// Waits for three heartbeats from now on.
#[track_caller]
fn assert_beats(console: &Console) {
    console.from_now().nth_frame(3, "heartbeat");
}

#[test]
fn without_descriptors_open_sessions_go_on() {
    let console = Console::start(Personality::production());
    let agent = wrapped(&console, &["sh", "-c", "ulimit -n 44; exec \"$0\""]).spawn();
    let browser = console.browser();
    let ids: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
    for id in &ids {
        browser.create(id, 80, 24);
    }
    let refused = console.frame("terminal:closed");
    assert_eq!(refused.payload()["reason"], "spawn_failed", "{}", refused.raw());
    browser.input("s0", b"echo st''ill\n");
    console.wait_text("s0", "still");
    assert_beats(&console);
    // There is room again as soon as sessions end.
    for id in &ids {
        browser.close(id);
    }
    console.nth_frame(ids.len(), "terminal:closed");
    browser.create("again", 80, 24).input("again", b"echo ro''om\n");
    console.wait_text("again", "room");
    agent.drain();
}

/// Limits the agent to this many descriptors. It keeps those that are open.
#[track_caller]
fn limit_descriptors(agent: &Agent, limit: &str) {
    let mut command = Command::new("prlimit");
    command.arg("--pid").arg(agent.process().pid().to_string()).arg(format!("--nofile={limit}:"));
    assert!(command.status().expect("util-linux is there").success(), "{command:?}");
}

#[test]
fn without_descriptors_it_warns_and_dials_once_it_can() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    console.browser().create("s", 80, 24).input("s", b"echo re''ady\n");
    console.wait_text("s", "ready");
    limit_descriptors(&agent, "4");
    console.link().reset();
    let line = agent.wait_log(|line| line["message"].as_str().is_some_and(|text| text.contains("Too many open files")));
    assert_eq!(line["level"], "WARN", "{line}");
    assert!(line["message"].as_str().is_some_and(|text| text.contains("this machine could not open a connection")));
    limit_descriptors(&agent, "1024");
    console.connection(2);
    assert_beats(&console);
    console.browser().input("s", b"echo st''ill\n");
    console.wait_text("s", "still");
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    agent.drain();
}

#[test]
fn without_proc_everything_but_its_figures_works() {
    let console = Console::start(Personality::production());
    let test = "without_proc_everything_but_its_figures_works";
    let Some(agent) = mounted(test, &console, &["mount -t tmpfs none /proc"]) else { return };
    assert_beats(&console);
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    console.browser().create("s", 80, 24).input("s", b"echo o''n; exit 3\n");
    assert_eq!(console.closed("s")["exit_code"], 3);
    console.frame("metrics");
    // One warning for all heartbeats and metrics without figures.
    let message = "figures are 0 because this machine does not report them";
    let warnings = |line: &serde_json::Value| line["level"] == "WARN" && line["message"] == message;
    let warning = agent.wait_log(warnings);
    assert!(warning["metadata"].to_string().contains("processors, memory, file systems"), "{warning}");
    let event = console.event("error");
    let metadata = &event.payload()["metadata"];
    let expected = (&"metrics".into(), &"processors, memory, file systems".into());
    assert_eq!((&metadata["source"], &metadata["figures"]), expected, "{}", event.raw());
    console.from_now().nth_frame(2, "metrics");
    assert_eq!(agent.log().count(warnings), 1);
    agent.drain();
}

#[test]
fn without_a_way_to_terminals_commands_go_on() {
    let console = Console::start(Personality::production());
    let test = "without_a_way_to_terminals_commands_go_on";
    let Some(agent) = mounted(test, &console, &["mount --bind /dev/null /dev/ptmx"]) else { return };
    console.browser().create("s", 80, 24);
    let closed = console.closed("s");
    assert_eq!(closed["reason"], "spawn_failed", "{closed}");
    assert_eq!(closed["exit_code"], 126, "{closed}");
    assert!(!console.stream("s").text().is_empty(), "one line says why");
    console.event("error");
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    assert_beats(&console);
    agent.drain();
}

#[test]
fn read_only_state_directory_is_one_warning() {
    let console = Console::start(Personality::production());
    let test = "read_only_state_directory_is_one_warning";
    let Some(agent) = mounted(test, &console, &["mount -t tmpfs -o ro none \"$HOME\""]) else { return };
    agent.wait_log(|line| {
        line["level"] == "WARN"
            && line["message"] == "state directory not writable; instance id will not survive a restart"
    });
    assert_beats(&console);
    console.link().close(1012, "restart");
    console.on(2).frame("heartbeat");
    assert_eq!(
        agent
            .log()
            .count(|line| line["message"] == "state directory not writable; instance id will not survive a restart"),
        1
    );
    assert_eq!(console.browser().run("touch ~/x || echo full")["stdout"], "full\n");
    agent.drain();
}

/// Mounts a full file system of 64 KiB over the home directory.
const FULL_HOME: [&str; 2] =
    ["mount -t tmpfs -o size=64k none \"$HOME\"", "(head -c 1M /dev/zero >\"$HOME/fill\" 2>&-; true)"];

/// A file in the home directory of an agent with its own mount namespace.
fn within(agent: &Agent, file: &str) -> std::path::PathBuf {
    let root = format!("/proc/{}/root", agent.process().pid());
    std::path::Path::new(&root).join(agent.home().path().strip_prefix("/").expect("absolute")).join(file)
}

#[test]
fn full_disk_ends_only_the_recording_and_the_identity_file() {
    const TEST: &str = "full_disk_ends_only_the_recording_and_the_identity_file";
    if !namespace::is_possible() {
        return skip(TEST, "no mount namespace can be had here");
    }
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2");
    let life = setup.home_path().join("life.jsonl");
    let agent = namespace::mounted(setup.env("SINDRI_AGENT_RECORD", life), &FULL_HOME).spawn();
    for text in ["state directory not writable; instance id will not survive a restart", "recording not started"] {
        agent.wait_log(|line| line["level"] == "WARN" && line["message"] == text);
    }
    assert_eq!(console.browser().run("echo x >~/x || echo full")["stdout"], "full\n");
    console.browser().create("s", 80, 24).input("s", b"echo o''n\n");
    console.wait_text("s", "on");
    console.link().close(1012, "restart");
    assert_beats(&console);
    agent.drain();
}

#[test]
fn full_disk_ends_the_recording_after_a_whole_line() {
    const TEST: &str = "full_disk_ends_the_recording_after_a_whole_line";
    if !namespace::is_possible() {
        return skip(TEST, "no mount namespace can be had here");
    }
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console);
    let life = setup.home_path().join("life.jsonl");
    let room = ["mount -t tmpfs -o size=64k none \"$HOME\"", "head -c 40k /dev/zero >\"$HOME/fill\""];
    let agent = namespace::mounted(setup.env("SINDRI_AGENT_RECORD", life), &room).spawn();
    let has_ended = || agent.log().count(|line| line["message"] == "recording stopped: write failed") == 1;
    for _ in 0..1_000 {
        if has_ended() {
            break;
        }
        assert_eq!(console.browser().run("true")["exit_code"], 0);
    }
    assert!(has_ended(), "the disk is not full after a thousand commands");
    let life = within(&agent, "life.jsonl");
    let text = std::fs::read_to_string(&life).expect("it is there");
    assert!(text.len() > 8 << 10 && text.ends_with("}\n"), "{} bytes: {text}", text.len());
    let replayed = Setup::alone().arg("replay").arg(&life).output();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stdout));
    agent.drain();
}

#[test]
fn full_disk_under_the_audit_refuses_new_work() {
    const TEST: &str = "full_disk_under_the_audit_refuses_new_work";
    if !namespace::is_possible() {
        return skip(TEST, "no mount namespace can be had here");
    }
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2");
    let audit = setup.home_path().join("audit.jsonl");
    let agent = namespace::mounted(setup.env("SINDRI_AGENT_AUDIT", audit), &FULL_HOME).spawn();
    let browser = console.browser();
    let refused = browser.run("touch ~/ran");
    assert_eq!((&refused["reason"], &refused["exit_code"]), (&"audit_unavailable".into(), &126.into()), "{refused}");
    browser.create("s", 80, 24);
    assert_eq!(console.closed("s")["reason"], "audit_unavailable");
    assert_eq!(console.event("error").payload()["metadata"]["source"], "audit");
    assert_beats(&console);
    assert!(!within(&agent, "ran").exists());

    std::fs::remove_file(within(&agent, "fill")).expect("it fills the disk");
    assert_eq!(browser.run("echo room")["stdout"], "room\n");
    browser.create("t", 80, 24).input("t", b"exit 3\n");
    assert_eq!(console.closed("t")["exit_code"], 3);
    let audit = std::fs::File::open(within(&agent, "audit.jsonl")).expect("it is there");
    // Ends do not wait for their lines; the exit writes the last ones, and takes the mount with it.
    agent.drain();
    let lines = std::io::read_to_string(audit).expect("readable");
    let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert_eq!(lines.lines().filter(whole).count(), 4, "{lines}");
}

#[test]
fn read_only_file_systems_lose_only_stored_state() {
    let console = Console::start(Personality::production());
    let test = "read_only_file_systems_lose_only_stored_state";
    // Mounts that cannot be made read-only are pseudo file systems.
    let all = "cut -d' ' -f5 /proc/self/mountinfo | while read -r place; do mount -o remount,bind,ro \"$place\"; done \
               2>&- || true";
    let Some(agent) = mounted(test, &console, &[all]) else { return };
    agent.wait_log(|line| {
        line["level"] == "WARN"
            && line["message"] == "state directory not writable; instance id will not survive a restart"
    });
    let tried = "for d in / /tmp /proc ~ ; do touch $d/draupnir-x && echo $d can be written; done; echo done";
    assert_eq!(console.browser().run(tried)["stdout"], "done\n");
    console.browser().create("s", 80, 24).input("s", b"echo o''n; exit 3\n");
    console.wait_text("s", "on");
    assert_eq!(console.closed("s")["exit_code"], 3);
    assert_beats(&console);
    agent.drain();
}

#[test]
fn without_a_locale_characters_arrive_whole() {
    let console = Console::start(Personality::production());
    let setup = ["LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE"].iter().fold(Setup::new(&console), |s, name| s.without(name));
    let agent = setup.spawn();
    let result =
        console.browser().run("printf 'gr\\303\\274\\303\\237 \\342\\202\\254 %s\\n' \"${LANG-unset}${LC_ALL-}\"");
    assert_eq!(result["stdout"], "grüß € unset\n", "{result}");
    console.browser().create("s", 80, 24).input("s", "echo 'grüß' \"${LANG-none}\"'!'\n".as_bytes());
    // A terminal gets a locale that exists, or its programs would draw characters as dashes.
    console.wait_text("s", "grüß C.UTF-8!");
    agent.drain();
}

#[test]
fn without_a_home_shells_and_commands_start_at_the_root() {
    let console = Console::start(Personality::production());
    let agent = Setup::new(&console).without("HOME").without("SINDRI_AGENT_STATE_DIR").spawn();
    let result = console.browser().run("pwd");
    assert_eq!(result["exit_code"], 0, "{result}");
    console.browser().create("s", 80, 24).input("s", b"echo h''ere; exit\n");
    console.wait_text("s", "here");
    assert_eq!(console.closed("s")["reason"], "exited");
    agent.drain();
}

#[test]
fn agent_runs_as_a_user_without_a_name() {
    const TEST: &str = "agent_runs_as_a_user_without_a_name";
    if !rustix::process::geteuid().is_root() {
        return skip(TEST, "only root can become another user");
    }
    let console = Console::start(Personality::production());
    let (setup, _program) = as_stranger(&console, &[]);
    let agent = setup.spawn();
    let result = console.browser().run("id -u; pwd");
    assert_eq!(result["stdout"], "54321\n/\n", "{result}");
    console.browser().create("s", 80, 24).input("s", b"id -u; exit\n");
    console.wait_text("s", "54321");
    assert_beats(&console);
    agent.drain();
}

#[test]
fn home_that_may_not_be_entered_is_left_for_the_root() {
    const TEST: &str = "home_that_may_not_be_entered_is_left_for_the_root";
    if !rustix::process::geteuid().is_root() {
        return skip(TEST, "only root can become another user");
    }
    let console = Console::start(Personality::production());
    let home = tempfile::tempdir().expect("a temporary directory");
    let of_owner_alone = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(home.path(), of_owner_alone).expect("it is ours");
    let (setup, _program) = as_stranger(&console, &[]);
    let agent = setup.env("HOME", home.path()).spawn();
    let result = console.browser().run("pwd; echo $PWD");
    assert_eq!((&result["stdout"], &result["exit_code"]), (&"/\n/\n".into(), &0.into()), "{result}");
    console.browser().dispatch_with("relative", &serde_json::json!({"command": "pwd", "working_dir": "usr"}));
    assert_eq!(console.result("relative")["stdout"], "/usr\n");
    console.browser().create("s", 80, 24).input("s", b"echo at=$(pwd)=\n");
    console.wait_text("s", "at=/=");
    agent.drain();
}

/// Limits the user of this process to this many processes and threads. The limit does not hold for root. A limit below
/// the current number ends no process, but no new one can start.
#[track_caller]
fn limit_processes(agent: &Agent, limit: &str) {
    let by_its_own_user = rustix::process::geteuid().is_root().then_some(STRANGER);
    let words = by_its_own_user.iter().flatten().copied().chain(["prlimit"]).collect::<Vec<_>>();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("--pid").arg(agent.process().pid().to_string()).arg(format!("--nproc={limit}:"));
    assert!(command.status().expect("util-linux is there").success(), "{command:?}");
}

#[test]
fn without_new_processes_the_running_ones_go_on() {
    let console = Console::start(Personality::production());
    let (setup, _program) = as_limited_user(&console, &[]);
    let agent = setup.spawn();
    let browser = console.browser();
    browser.create("before", 80, 24).input("before", b"echo re''ady\n");
    console.wait_text("before", "ready");
    let limits = agent.process().read("limits");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max processes")).expect("Linux tells");
    limit_processes(&agent, "1");

    let result = browser.run("echo never");
    assert_eq!((&result["reason"], &result["exit_code"]), (&"spawn_failed".into(), &126.into()), "{result}");
    let stderr = result["stderr"].as_str().expect("text");
    assert!(stderr.starts_with("cannot start a process: Resource temporarily unavailable"), "{stderr}");
    let event = console.event("error");
    assert_eq!(event.payload()["metadata"]["source"], "command", "{}", event.raw());
    let from_now = console.from_now();
    browser.create("during", 80, 24);
    let closed = console.closed("during");
    assert_eq!((&closed["reason"], &closed["exit_code"]), (&"spawn_failed".into(), &126.into()), "{closed}");
    assert!(console.stream("during").text().contains("cannot start a process"), "one line says why");
    let event = from_now.event("error");
    assert_eq!(event.payload()["metadata"]["source"], "terminal", "{}", event.raw());
    browser.input("before", b"echo st''ill\n");
    console.wait_text("before", "still");
    assert_beats(&console);

    limit_processes(&agent, limit.split_whitespace().next().expect("a soft limit"));
    assert_eq!(browser.run("echo again")["stdout"], "again\n");
    browser.create("after", 80, 24).input("after", b"echo ba''ck\n");
    console.wait_text("after", "back");
    agent.drain();
}

#[test]
fn without_a_thread_it_exits_with_a_clear_line() {
    let console = Console::start(Personality::production());
    let (setup, _program) = as_limited_user(&console, &["prlimit", "--nproc=1:"]);
    let agent = setup.spawn();
    assert!(!agent.wait_exit(support::WAIT_MAX).success(), "a supervisor must see that it failed");
    assert!(agent.log().wait_end(support::WAIT_MAX));
    let text = agent.log().text();
    assert!(text.contains("thread") && text.contains("Resource temporarily unavailable"), "{text}");
}

#[test]
fn its_children_are_killed_before_it_when_memory_runs_out() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    let own: i32 = agent.process().read("oom_score_adj").trim().parse().expect("a number");
    // The agent raises it once the shell runs: before, the two share their memory, and so their score.
    let result = console.browser().run(&format!(
        "while read score </proc/$$/oom_score_adj && [ $score -le {own} ]; do :; done; cat /proc/$$/oom_score_adj"
    ));
    let childs: i32 = result["stdout"].as_str().and_then(|text| text.trim().parse().ok()).expect("a number");
    assert!(childs > own, "{childs} is not more than {own}");
    let own_now: i32 = agent.process().read("oom_score_adj").trim().parse().expect("a number");
    assert_eq!(own_now, own);
    agent.drain();
}

#[test]
fn out_of_memory_kills_a_command_and_not_the_agent() {
    const TEST: &str = "out_of_memory_kills_a_command_and_not_the_agent";
    const BYTES: &str = "67108864";
    let group = match Group::new("memory", ["memory.max", "memory.limit_in_bytes"], BYTES) {
        Ok(group) => group,
        Err(reason) => return skip(TEST, &reason),
    };
    // No swap, or the group would swap instead of running out of memory. Without swap accounting the file is missing.
    for (file, text) in [("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", BYTES)] {
        let _ = std::fs::write(group.place().join(file), text);
    }
    let console = Console::start(Personality::production());
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$0\"", group.place().display());
    let agent = wrapped(&console, &["sh", "-c", &enter]).spawn();
    // tail keeps a line until its end, and zeros have none.
    let result = console.browser().run("head -c 1G /dev/zero | tail");
    assert_eq!(result["exit_code"], 128 + 9, "{result}");
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    assert_beats(&console);
    assert_eq!(console.link().number(), 1, "it is the same life");
    agent.kill();
}
