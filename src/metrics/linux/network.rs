//! Reads the traffic of the instance's own interfaces, and the number of its TCP connections.
//!
//! Sources: `/proc/net/dev`, proc_pid_net(5), and `tcpCurrEstab` (RFC 1213) of `/proc/net/snmp`, for the agent's
//! network namespace; `/sys/class/net/<name>/`, described in the kernel's ABI documents sysfs-class-net*, decides which
//! interfaces count.
//!
//! A packet that leaves through a container's veth, a bridge and the machine's card must count once. So only interfaces
//! of one role count, the first of these that exists: (1) hardware, but not a function that is enslaved to another
//! interface (accelerated networking); (2) as in a container, interfaces that are no bridge and no tunnel, not on top
//! of another interface and not enslaved to one; (3) tunnels, as in rootless containers. Loopback never counts.
//!
//! Invariants: the counts start with the kernel's counters at the first reading, and never go back while the agent
//! runs: not when an interface is replaced, and not when a counter wraps or restarts. An interface that appears later,
//! or whose counter restarts, counts from then on. Connections are not listed: with many of them that would cost more
//! than all other figures together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::rate::{Rate, growth};
use super::super::roots::Roots;
use super::super::scan::{line_of, lines, number, words};
use super::kept::{Kept, Scratch};
use crate::protocol::metrics::{Count, Network};

/// The most interfaces that are read: a busy container host has a few hundred pairs.
const INTERFACES_MAX: usize = 1024;

/// All roles are looked up again after this many readings, because an interface can be enslaved without a new name.
const ROLE_READINGS: u32 = 64;

/// Bytes, packets, errors and drops of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Direction {
    bytes: u64,
    packets: u64,
    errors: u64,
    drops: u64,
}

/// Both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    received: Direction,
    sent: Direction,
}

/// Reads the counters, and keeps the previous readings.
#[derive(Debug)]
pub(crate) struct NetworkReader {
    file: Kept,
    snmp: Kept,
    class_net: PathBuf,
    interfaces: Vec<Interface>,
    readings_left: u32,
    total: Counters,
    last: Option<Duration>,
    sent: Rate,
    received: Rate,
}

#[derive(Debug)]
struct Interface {
    name: String,
    role: Role,
    counters: Counters,
    /// The growth since the previous reading.
    grown: Counters,
    /// Whether the last reading listed it.
    present: bool,
}

impl NetworkReader {
    /// A reader of the files below these roots.
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            file: Kept::new(roots.proc.join("net/dev")),
            snmp: Kept::new(roots.proc.join("net/snmp")),
            class_net: roots.sys.join("class/net"),
            interfaces: Vec::new(),
            readings_left: ROLE_READINGS,
            total: Counters::default(),
            last: None,
            sent: Rate::default(),
            received: Rate::default(),
        }
    }

    /// The figures at `at`; the previous ones if the file cannot be read.
    pub(crate) fn read(&mut self, at: Duration, scratch: &mut Scratch) -> Network {
        if let Some(text) = self.file.read(scratch) {
            update(&mut self.interfaces, &self.class_net, text, self.last.map(|last| at.saturating_sub(last)));
            self.refresh_roles();
            let counting = counting_role(&self.interfaces);
            for interface in self.interfaces.iter().filter(|interface| Some(interface.role) == counting) {
                self.total = combined(self.total, interface.grown, u64::saturating_add);
            }
            self.last = Some(at);
            self.sent.advance(at, self.total.sent.bytes);
            self.received.advance(at, self.total.received.bytes);
        }
        let tcp_connections = self.snmp.read(scratch).and_then(established).map(Count::new);
        Network { tcp_connections, ..self.figures() }
    }

    fn refresh_roles(&mut self) {
        self.readings_left = self.readings_left.saturating_sub(1);
        if self.readings_left == 0 {
            self.readings_left = ROLE_READINGS;
            for interface in &mut self.interfaces {
                interface.role = role(&self.class_net, &interface.name);
            }
        }
    }

    fn figures(&self) -> Network {
        let Counters { received, sent } = self.total;
        let known = |count: u64| self.last.map(|_| Count::new(count));
        Network {
            bytes_sent: Count::new(sent.bytes),
            bytes_recv: Count::new(received.bytes),
            packets_sent: Count::new(sent.packets),
            packets_recv: Count::new(received.packets),
            sent_bytes_per_second: self.sent.per_second().map(Count::new),
            recv_bytes_per_second: self.received.per_second().map(Count::new),
            errors: known(sent.errors.saturating_add(received.errors)),
            drops: known(sent.drops.saturating_add(received.drops)),
            tcp_connections: None,
        }
    }
}

/// Updates the interfaces from the file's lines. `elapsed` is the time since the previous reading, `None` at the first.
fn update(interfaces: &mut Vec<Interface>, class_net: &Path, text: &[u8], elapsed: Option<Duration>) {
    for interface in interfaces.iter_mut() {
        interface.present = false;
    }
    for (index, (name, now)) in lines(text).filter_map(line).take(INTERFACES_MAX).enumerate() {
        // The file keeps its order, so the first guess is nearly always right.
        let is_it = |interface: &Interface| interface.name.as_bytes() == name;
        let guess = interfaces.get(index).is_some_and(is_it).then_some(index);
        let known = guess.or_else(|| interfaces.iter().position(is_it));
        if let Some(interface) = known.and_then(|known| interfaces.get_mut(known)) {
            let elapsed = elapsed.unwrap_or_default();
            interface.grown = combined(interface.counters, now, |earlier, now| growth(earlier, now, elapsed));
            interface.counters = now;
            interface.present = true;
        } else {
            let name = String::from_utf8_lossy(name).into_owned();
            // The counters of the first reading count in full; an interface that appears later counts from now on.
            let grown = if elapsed.is_none() { now } else { Counters::default() };
            interfaces.push(Interface { role: role(class_net, &name), name, counters: now, grown, present: true });
        }
    }
    interfaces.retain(|interface| interface.present);
}

/// `  eth0: 47987978    3226    0    0 …`: eight columns received, eight sent; of each the first four count.
fn line(line: &[u8]) -> Option<(&[u8], Counters)> {
    // A name can contain a colon (an alias), but no space. Old kernels write no space after the colon at its end.
    let end = line.iter().rposition(|byte| *byte == b':')?;
    let (name, rest) = line.split_at_checked(end)?;
    let mut fields = words(rest.get(1..)?).map(number);
    let mut direction = || {
        let direction = Direction {
            bytes: fields.next()??,
            packets: fields.next()??,
            errors: fields.next()??,
            drops: fields.next()??,
        };
        fields.by_ref().take(4).flatten().count();
        Some(direction)
    };
    Some((name.trim_ascii(), Counters { received: direction()?, sent: direction()? }))
}

/// The role of the interfaces that count: the first one that any interface has.
fn counting_role(interfaces: &[Interface]) -> Option<Role> {
    interfaces.iter().map(|interface| interface.role).filter(|role| *role != Role::Duplicate).min()
}

fn combined(one: Counters, other: Counters, by: impl Fn(u64, u64) -> u64) -> Counters {
    let direction = |one: Direction, other: Direction| Direction {
        bytes: by(one.bytes, other.bytes),
        packets: by(one.packets, other.packets),
        errors: by(one.errors, other.errors),
        drops: by(one.drops, other.drops),
    };
    Counters { received: direction(one.received, other.received), sent: direction(one.sent, other.sent) }
}

/// The roles of interfaces. The first one that exists counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It has its own device.
    Hardware,
    /// A container's end of a veth pair, or another interface whose packets no other interface repeats.
    Own,
    /// A tunnel: its packets usually leave through another interface, too.
    Tunnel,
    /// Its packets count at another interface.
    Duplicate,
}

/// The role of an interface, by what sysfs says below `class_net`, else by its name.
fn role(class_net: &Path, name: &str) -> Role {
    // The name becomes part of a path. The kernel allows none of these names.
    if name == "lo" || name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Role::Duplicate;
    }
    let place = class_net.join(name);
    if !place.is_dir() {
        return by_name(name);
    }
    let master_is_hardware = || place.join("master/device").exists();
    if place.join("device").exists() {
        return if master_is_hardware() { Role::Duplicate } else { Role::Hardware };
    }
    let has = |entry: &str| place.join(entry).exists();
    if has("bridge") || has("bonding") || has("master") || is_on_top(&place) || is_dummy(name) {
        return Role::Duplicate;
    }
    if has("tun_flags") || is_tunnel(&place) { Role::Tunnel } else { Role::Own }
}

/// Whether it is on top of a visible interface, as a VLAN is: sysfs has a link to each lower interface.
fn is_on_top(place: &Path) -> bool {
    std::fs::read_dir(place).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"lower_"))
    })
}

/// Whether its link type is not Ethernet (1): tunnels of all kinds have types of their own (ARPHRD_TUNNEL, ARPHRD_NONE,
/// …).
fn is_tunnel(place: &Path) -> bool {
    std::fs::read_to_string(place.join("type")).is_ok_and(|text| text.trim() != "1")
}

/// Whether it is an interface that drops or mirrors packets. In sysfs it looks like any other.
fn is_dummy(name: &str) -> bool {
    starts_with_any(name, &["dummy", "ifb", "nlmon", "vcan"])
}

/// The role by the usual names, if sysfs does not show the agent's network namespace.
fn by_name(name: &str) -> Role {
    if is_dummy(name)
        || starts_with_any(name, &["docker", "br-", "veth", "virbr", "cni", "lxcbr", "lxdbr", "cali", "bond", "team"])
    {
        Role::Duplicate
    } else if starts_with_any(name, &["tun", "tap", "wg", "tailscale", "flannel", "ip6tnl", "sit", "gre"]) {
        Role::Tunnel
    } else {
        Role::Own
    }
}

fn starts_with_any(name: &str, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|beginning| name.starts_with(beginning))
}

/// The number of connections; `None` if the file does not have it.
fn established(text: &[u8]) -> Option<u64> {
    // Each protocol has a line of names and a line of values under it. Values can be negative (MaxConn is -1).
    let mut both = lines(text).filter(|line| line.starts_with(b"Tcp:"));
    let names = line_of(both.next()?, b"Tcp")?;
    let values = line_of(both.next()?, b"Tcp")?;
    words(names).zip(words(values)).find_map(|(name, value)| (name == b"CurrEstab").then(|| number(value)).flatten())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn text(lines: &[(&str, u64)]) -> String {
        let line = |(name, bytes): &(&str, u64)| format!("{name}: {bytes} 2 3 4 0 0 0 0 {bytes} 6 7 8 0 0 0 0\n");
        "Inter-| Receive | Transmit\n face |bytes packets\n".to_owned() + &lines.iter().map(line).collect::<String>()
    }

    fn grown(interfaces: &mut Vec<Interface>, lines: &[(&str, u64)], elapsed: Option<Duration>) -> Vec<u64> {
        update(interfaces, Path::new("/nowhere"), text(lines).as_bytes(), elapsed);
        interfaces.iter().map(|interface| interface.grown.sent.bytes).collect()
    }

    #[test]
    fn received_and_sent_columns_are_separate() {
        let (name, counters) = line(b"eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").expect("the line is whole");
        assert_eq!(name, b"eth0");
        assert_eq!(counters.received, Direction { bytes: 1, packets: 2, errors: 3, drops: 4 });
        assert_eq!(counters.sent, Direction { bytes: 9, packets: 10, errors: 11, drops: 12 });
        assert_eq!(line(b"eth0: 1 2 3"), None);
        assert_eq!(line(b" face |bytes    packets errs"), None);
    }

    #[test]
    fn counts_go_on_through_replacement_restart_and_arrival() {
        let mut interfaces = Vec::new();
        assert_eq!(grown(&mut interfaces, &[("eth0", 1000)], None), [1000]);
        assert_eq!(grown(&mut interfaces, &[("eth0", 1500)], SECOND), [500]);
        assert_eq!(grown(&mut interfaces, &[("eth0", 20)], SECOND), [0]);
        assert_eq!(grown(&mut interfaces, &[("eth0", 50), ("eth1", 1 << 40)], SECOND), [30, 0]);
        assert_eq!(grown(&mut interfaces, &[("eth1", (1 << 40) + 7)], SECOND), [7]);
    }

    #[test]
    fn names_are_the_last_resort() {
        let nowhere = Path::new("/nowhere");
        assert_eq!(role(nowhere, "eth0"), Role::Own);
        assert_eq!(role(nowhere, "docker0"), Role::Duplicate);
        assert_eq!(role(nowhere, "tun0"), Role::Tunnel);
        assert_eq!(role(nowhere, "lo"), Role::Duplicate);
    }

    #[test]
    fn the_value_is_below_its_name() {
        let text = b"Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn CurrEstab InSegs\nTcp: 1 -1 42 7\nUdp: CurrEstab\nUdp: 9\n";
        assert_eq!(established(text), Some(42));
        assert_eq!(established(b"Tcp: CurrEstab\n"), None);
        assert_eq!(established(b"Tcp: CurrEstab\nTcp: x\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            update(&mut Vec::new(), Path::new("/nowhere"), &text, None);
            let _ = established(&text);
        }

        #[test]
        fn any_line_of_the_right_form_is_read(name in "[a-z0-9:.@-]{1,15}", values in proptest::collection::vec(any::<u64>(), 16)) {
            let values: Vec<String> = values.iter().map(u64::to_string).collect();
            let whole = format!("{name}: {}", values.join(" "));
            let (read, _) = line(whole.as_bytes()).expect("the line is whole");
            prop_assert_eq!(read, name.as_bytes());
        }

        #[test]
        fn no_name_leads_out_of_sysfs(name in "[./a-z]{0,12}") {
            let found = role(Path::new("/sys/class/net"), &name);
            prop_assert!(!name.contains('/') || found == Role::Duplicate);
        }
    }
}
