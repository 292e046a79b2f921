//! The agent resolves a name and connects: IPv6, several addresses, an address that drops all packets, a resolver that
//! hangs.

use crate::support;
use crate::support::{Setup, skip};
use draupnir_console::{Console, Personality};
use std::net::{SocketAddr, TcpListener};

#[test]
fn a_console_with_an_ipv6_address_is_reached() {
    let address: SocketAddr = "[::1]:0".parse().expect("an address");
    if TcpListener::bind(address).is_err() {
        return skip("a_console_with_an_ipv6_address_is_reached", "no IPv6 here");
    }
    let console = Console::builder(Personality::production()).address(address).start();
    assert!(console.url().starts_with("http://[::1]:"));
    let agent = Setup::new(&console).spawn();
    console.frame("heartbeat");
    agent.drain();
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::support::namespace::{is_possible, mounted, run_apart};
    use draupnir_console::Builder;
    use std::net::UdpSocket;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;
    use support::{Agent, Home};

    const NAME: &str = "console.test";

    fn named() -> Builder {
        Console::builder(Personality::production()).host(NAME)
    }

    /// A file in this home.
    fn file(home: &Home, name: &str, text: &str) -> PathBuf {
        let path = home.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn instead_of(path: &str, file: &Path) -> String {
        format!("mount --bind {} {path}", file.display())
    }

    fn failures(agent: &Agent) -> usize {
        agent.log().count(|line| line["message"].as_str().is_some_and(|text| text.contains("registration failed")))
    }

    #[test]
    fn one_address_of_several_works() {
        if !is_possible() {
            return skip("linux::one_address_of_several_works", "no mount namespace can be had here");
        }
        let (home, console) = (Home::new(), named().start());
        // The other addresses refuse the connection; the one that works comes last.
        let hosts = file(
            &home,
            "hosts",
            "::1 console.test\n127.0.0.7 console.test\n127.0.0.8 console.test\n127.0.0.1 console.test\n",
        );
        let agent = mounted(Setup::new(&console).home(&home), &[&instead_of("/etc/hosts", &hosts)]).spawn();
        console.frame("heartbeat");
        assert_eq!(failures(&agent), 0);
        agent.drain();
    }

    #[test]
    fn unreachable_address_family_costs_no_attempt() {
        const TEST: &str = "linux::unreachable_address_family_costs_no_attempt";
        // The neighbour's address is fixed but no host has it, so no router reports it as unreachable.
        let network = [
            "ip link add black type veth peer name void",
            "ip addr add 2001:db8::1/64 dev black nodad",
            "ip link set black up",
            "ip link set void up",
            "ip neigh add 2001:db8::dead lladdr 02:00:00:00:00:01 dev black nud permanent",
        ];
        if !run_apart("link_dial::linux::with_a_black_hole", &network) {
            skip(TEST, "no network namespace can be had here");
        }
    }

    #[test]
    #[ignore = "on a network of its own"]
    fn with_a_black_hole() {
        let (home, console) = (Home::new(), named().start());
        let hosts = file(&home, "hosts", "2001:db8::dead console.test\n127.0.0.1 console.test\n");
        let agent = mounted(Setup::new(&console).home(&home), &[&instead_of("/etc/hosts", &hosts)]).spawn();
        console.frame("heartbeat");
        assert_eq!(failures(&agent), 0, "the first attempt found the address that works");
        agent.drain();
    }

    #[test]
    fn hanging_resolver_is_asked_once() {
        const TEST: &str = "linux::hanging_resolver_is_asked_once";
        if std::env::var_os("DRAUPNIR_QUICK").is_some() {
            return skip(TEST, "quick: it waits until an attempt is given up");
        }
        if !run_apart("link_dial::linux::with_a_resolver_that_hangs", &[]) {
            skip(TEST, "no network namespace can be had here");
        }
    }

    #[test]
    #[ignore = "on a network of its own"]
    fn with_a_resolver_that_hangs() {
        let (home, console) = (Home::new(), named().start());
        let socket = UdpSocket::bind("127.0.0.53:53").expect("the name server's port");
        let resolv_conf = file(&home, "resolv.conf", "nameserver 127.0.0.53\noptions timeout:60 attempts:1\n");
        let (let_go, held) = channel();
        let asked = serve_names(socket, held);
        let commands = [instead_of("/etc/resolv.conf", &resolv_conf)];
        let agent = mounted(Setup::new(&console).home(&home), &commands.each_ref().map(String::as_str)).spawn();
        // The agent gives up the first attempt. The second one waits for the same look-up.
        let second = |line: &serde_json::Value| line["message"] == "registering" && line["attempt"] == 2;
        agent.log().wait(Duration::from_secs(40), second);
        let threads = agent.process().threads();
        let_go.send(()).expect("the name server still serves");
        console.frame("heartbeat");
        let registered = agent.wait_log(|line| line["message"] == "registered");
        assert!(registered["attempt"].as_u64().is_some_and(|attempt| attempt <= 3), "{registered}");
        // The loop, the reactor, a look-up for both families and for each alone, and the one that writes the log while
        // there are lines.
        assert!(threads <= 6, "there were {threads} threads");
        // One question for each family of the look-ups that hung; a later look-up may have followed.
        assert_eq!(asked.try_iter().take_while(|late| !late).count(), 4);
        agent.drain();
    }

    /// Holds all questions until `held` gets a message, then answers each with 127.0.0.1. Sends, for each question,
    /// whether it came after that.
    fn serve_names(socket: UdpSocket, held: Receiver<()>) -> Receiver<bool> {
        let (sender, asked): (Sender<bool>, _) = channel();
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        std::thread::spawn(move || {
            let (mut waiting, mut late, mut packet) = (Vec::new(), false, [0; 512]);
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut packet) {
                    waiting.push((packet[..length].to_vec(), from));
                    // The test may be over.
                    let _ = sender.send(late);
                }
                late = late || held.try_recv().is_ok();
                if late {
                    for (question, from) in waiting.drain(..) {
                        socket.send_to(&answer(&question), from).expect("answered");
                    }
                }
            }
        });
        asked
    }

    /// An answer (RFC 1035, section 4.1): the question, and one record if it asks for an IPv4 address.
    fn answer(question: &[u8]) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).expect("a name ends") + 5;
        let is_v4 = question[end - 4..end - 2] == [0, 1];
        let mut answer = question[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[6..12].copy_from_slice(&[0, u8::from(is_v4), 0, 0, 0, 0]);
        if is_v4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        answer
    }
}
