//! The agent as the first process of a container: it must reap orphans, and the kernel filters its signals.

use crate::support;
use crate::support::namespace;
use crate::support::{Agent, Setup, Signal, skip};
use draupnir_console::{Console, Personality};

/// The agent as the first process of a namespace. The test knows the process that created the namespace.
fn first(console: &Console) -> Agent {
    let setup = Setup::new(console);
    let agent = setup.program_path().to_owned();
    let setup =
        setup.program("unshare").args_before(["--pid", "--fork", "--kill-child", "--mount-proc"].map(Into::into));
    setup.env("SINDRI_AGENT_HEARTBEAT", "0.2").arg(agent).spawn()
}

#[test]
fn first_process_reaps_orphans() {
    const TEST: &str = "first_process_reaps_orphans";
    if !namespace::is_possible() {
        return skip(TEST, "no process namespace can be had here");
    }
    let console = Console::start(Personality::production());
    let agent = first(&console);
    let browser = console.browser();
    assert_eq!(browser.run("echo $PPID")["stdout"], "1\n", "the agent is not the first process");
    // Each leaves a child that ends a moment later, like a daemon that forks twice.
    let orphan = "for i in 1 2 3 4 5 6 7 8; do (exec 0<&- 1>&- 2>&-; (sleep 0.05; exit 7) &) ; done; exit 5";
    // A command's text is its id: the same text would only bring the first result again.
    for number in 0..4 {
        let code = &browser.run(&format!("{orphan} # {number}"))["exit_code"];
        assert_eq!(*code, 5, "the status of a child of its own is not stolen");
    }
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    let mut looks = 0..;
    support::settles(&console, "the orphans are reaped", || {
        let look = looks.next();
        browser.run(&format!("{zombies} # {look:?}"))["stdout"].as_str().map(str::trim) == Some("0")
    });
    agent.kill();
}

#[test]
fn as_the_first_process_it_drains_in_order() {
    const TEST: &str = "as_the_first_process_it_drains_in_order";
    if !namespace::is_possible() {
        return skip(TEST, "no process namespace can be had here");
    }
    let console = Console::start(Personality::production());
    let agent = first(&console);
    let browser = console.browser();
    assert_eq!(browser.run("echo $PPID")["stdout"], "1\n", "the agent is not the first process");
    browser.create("s", 80, 24).input("s", b"echo re''ady\n");
    console.wait_text("s", "ready");
    browser.dispatch("c", "sleep 600");
    agent.wait_log(|line| line["message"] == "command started" && line["command"] == 2);
    // The kernel delivers a signal to the first process only if that has a handler for it.
    let [(pid, _)] = agent.process().children()[..] else { panic!("unshare has one child") };
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a number");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert_eq!(console.result("c")["exit_code"], 128 + 15);
    assert_eq!(console.closed("s")["session_id"], "s");
    let status = agent.wait_exit(support::DRAIN_MAX);
    assert!(status.success(), "{status}");
    assert_eq!(console.close_frame(), (Some(1000), "agent shutdown".to_owned()));
}
