//! What a service manager hears: READY, STATUS, WATCHDOG, RELOADING and STOPPING of sd_notify(3), on a socket that the
//! test holds in its place.

use crate::support;
use crate::support::delayed::Delayed;
use crate::support::{Agent, Home, Setup, Signal, WAIT_MAX, skip};
use draupnir_console::{Console, Personality};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The time of the watchdog, in microseconds: the agent sends a sign twice within it, at each end of 500 ms.
const WATCHDOG_USEC: &str = "1000000";

/// The socket of the manager.
struct Manager {
    home: Home,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let home = Home::new();
        let socket = UnixDatagram::bind(home.path().join("notify")).expect("bound");
        Manager { home, socket }
    }

    fn setup(&self, console: &Console) -> Setup {
        Setup::new(console).home(&self.home).env("NOTIFY_SOCKET", self.home.path().join("notify"))
    }

    /// The next datagram; `None` if none comes within this time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).expect("a time");
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a datagram with this line, and returns those before it and itself.
    #[track_caller]
    fn wait(&self, line: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(datagram) = self.next(WAIT_MAX) {
            let is_it = datagram.lines().any(|said| said.starts_with(line));
            seen.push(datagram);
            if is_it {
                return seen;
            }
        }
        panic!("{line} never comes: {seen:?}");
    }

    /// Takes what is there already.
    fn drain(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }
}

fn has(datagrams: &[String], line: &str) -> bool {
    datagrams.iter().any(|datagram| datagram.lines().any(|said| said == line))
}

#[test]
fn ready_follows_the_first_connect_and_stopping_the_signal() {
    let console = Console::start(Personality::production());
    let manager = Manager::new();
    let agent = manager.setup(&console).spawn();
    let seen = manager.wait("READY=1");
    let ready = seen.last().expect("it came");
    assert!(ready.contains(&format!("STATUS=Connected to {}", console.url())), "{seen:?}");
    // Without WATCHDOG_USEC no sign is wanted.
    assert!(!has(&seen, "WATCHDOG=1"), "{seen:?}");
    agent.signal(Signal::TERM);
    let seen = manager.wait("STOPPING=1");
    assert!(has(&seen, "STATUS=Draining: sessions and commands end"), "{seen:?}");
    assert!(agent.wait_exit(support::DRAIN_MAX).success());
}

#[test]
fn ready_comes_without_a_console_and_says_why() {
    let console = Console::builder(Personality::production()).own_address().start();
    console.stop_listening();
    let manager = Manager::new();
    let agent = manager.setup(&console).spawn();
    let ready = manager.wait("READY=1").pop().expect("it came");
    assert!(ready.contains("STATUS=Not connected to") && ready.contains("refused"), "{ready}");
    assert!(agent.process().runs());
    agent.drain();
}

#[test]
fn signs_for_the_watchdog_come_with_and_without_a_console() {
    let console = Console::builder(Personality::production()).own_address().start();
    let manager = Manager::new();
    let agent = manager.setup(&console).env("WATCHDOG_USEC", WATCHDOG_USEC).spawn();
    manager.wait("READY=1");
    for _ in 0..3 {
        manager.wait("WATCHDOG=1");
    }
    console.stop_listening();
    console.connection(1).reset();
    manager.wait("STATUS=Not connected to");
    for _ in 0..3 {
        manager.wait("WATCHDOG=1");
    }
    agent.drain();
}

#[test]
fn another_process_s_watchdog_is_not_served() {
    let console = Console::start(Personality::production());
    let manager = Manager::new();
    let agent = manager.setup(&console).env("WATCHDOG_USEC", WATCHDOG_USEC).env("WATCHDOG_PID", "1").spawn();
    assert!(!has(&manager.wait("READY=1"), "WATCHDOG=1"));
    agent.drain();
}

#[test]
fn stopped_agent_sends_no_sign() {
    let console = Console::start(Personality::production());
    let manager = Manager::new();
    let agent = manager.setup(&console).env("WATCHDOG_USEC", WATCHDOG_USEC).spawn();
    manager.wait("READY=1");
    agent.signal(Signal::STOP);
    while !agent.process().is_stopped() {}
    manager.drain();
    assert_eq!(manager.next(Duration::from_secs(3)), None);
    agent.signal(Signal::CONT);
    manager.wait("WATCHDOG=1");
    agent.drain();
}

/// A loop that hangs while the process runs: the manager would end it after the time of the watchdog.
#[test]
fn hung_loop_sends_no_sign() {
    let console = Console::start(Personality::production());
    let manager = Manager::new();
    let agent = manager.setup(&console).env("WATCHDOG_USEC", WATCHDOG_USEC).spawn();
    manager.wait("READY=1");
    let Some(delayed) = Delayed::attach(&agent, "?epoll_wait,epoll_pwait,?epoll_pwait2", None) else {
        return skip("hung_loop_sends_no_sign", "the agent cannot be traced here");
    };
    // The call that was under way may return once more. Each later one takes ten times as long as the watchdog.
    let silent = (0..3).any(|_| {
        manager.drain();
        manager.next(Duration::from_secs(2)).is_none()
    });
    assert!(silent, "a sign comes from beside the loop");
    drop(delayed);
    manager.wait("WATCHDOG=1");
    agent.drain();
}

/// As systemd does it: SIGABRT ends the agent, and it starts again at once.
#[test]
fn signal_of_the_watchdog_ends_the_agent() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    console.frame("heartbeat");
    agent.signal(Signal::ABORT);
    let status = agent.wait_exit(WAIT_MAX);
    assert!(!status.success(), "{status}");
}

#[test]
fn manager_that_is_not_there_stops_nothing() {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("NOTIFY_SOCKET", "/nonexistent/notify").env("WATCHDOG_USEC", WATCHDOG_USEC);
    let agent = setup.env("SINDRI_AGENT_HEARTBEAT", "0.2").spawn();
    console.nth_frame(5, "heartbeat");
    // A notice that fails is tried again after a pause, not in each turn.
    let failures = agent.log().count(|line| line["message"] == "the service manager was not notified");
    assert!((1..60).contains(&failures), "{failures} tries");
    agent.drain();
}

#[test]
fn children_do_not_inherit_the_manager() {
    let console = Console::start(Personality::production());
    let manager = Manager::new();
    let agent = manager.setup(&console).env("WATCHDOG_USEC", WATCHDOG_USEC).spawn();
    manager.wait("READY=1");
    let result = console.browser().run("env");
    let text = result["stdout"].as_str().expect("text");
    assert!(!text.contains("NOTIFY_SOCKET") && !text.contains("WATCHDOG_"), "{text}");
    agent.drain();
}
