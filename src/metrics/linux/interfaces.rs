//! Which network interfaces are the instance's own.
//!
//! Source: `/sys/class/net/<name>/`, the kernel's ABI documents sysfs-class-net*. Counts nothing.
//!
//! A packet that leaves through a container's veth, the bridge behind it and the machine's card is one packet. So: where there
//! is hardware, the hardware counts, and a function of it that is enslaved to another one (accelerated networking) does not;
//! where there is none, as in a container, what is neither a bridge nor a tunnel, neither on top of another interface nor
//! enslaved to one; and where there is only a tunnel (rootless containers), that. Loopback never.

use std::path::Path;

/// What an interface is, in the order in which they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// It has a device of its own.
    Hardware,
    /// A container's end of a pair, or anything else that nothing else carries.
    Own,
    /// A tunnel; what it carries usually leaves through another interface, too.
    Tunnel,
    /// It repeats what others count.
    Duplicate,
}

/// The role of an interface, by what sysfs says below `class_net`, else by its name.
pub(crate) fn role(class_net: &Path, name: &str) -> Role {
    // A name goes into a path: the kernel allows neither of these in one.
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

/// Whether it is on top of an interface that we see, as a VLAN is: sysfs has a link to each lower one.
fn is_on_top(place: &Path) -> bool {
    std::fs::read_dir(place).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"lower_"))
    })
}

/// Whether its link type is not Ethernet (1): tunnels of all kinds have types of their own (ARPHRD_TUNNEL, ARPHRD_NONE, …).
fn is_tunnel(place: &Path) -> bool {
    std::fs::read_to_string(place.join("type")).is_ok_and(|text| text.trim() != "1")
}

/// Devices that swallow or mirror what others carry, and look like any other in sysfs.
fn is_dummy(name: &str) -> bool {
    starts_with_any(name, &["dummy", "ifb", "nlmon", "vcan"])
}

/// What the usual names mean, where sysfs does not show our network namespace.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_the_last_resort() {
        let nowhere = Path::new("/nowhere");
        assert_eq!(role(nowhere, "eth0"), Role::Own);
        assert_eq!(role(nowhere, "docker0"), Role::Duplicate);
        assert_eq!(role(nowhere, "tun0"), Role::Tunnel);
        assert_eq!(role(nowhere, "lo"), Role::Duplicate);
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_sysfs(name in "[./a-z]{0,12}") {
            let found = role(Path::new("/sys/class/net"), &name);
            prop_assert!(!name.contains('/') || found == Role::Duplicate);
        }
    }
}
