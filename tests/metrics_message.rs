//! What a metrics message contains and when it comes (PROTOCOL.md, "metrics"; CONSOLE.md, "Frames that bring it down").

use std::collections::BTreeSet;

use crate::support::{Agent, INSTANCE_ID};
use draupnir_console::{Console, Personality};
use serde_json::{Map, Value};

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a whole number, not {value}"))
}

fn percent(value: &Value) {
    let share = value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"));
    assert!((0.0..=100.0).contains(&share), "{share}");
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("an object, not {value}"))
}

#[test]
fn it_has_every_field_of_the_protocol() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]); // the first message does not wait for the interval of a minute
    let metrics = console.frame("metrics");
    let payload = metrics.payload();
    assert_eq!((metrics.value()["protocol_version"].as_str(), metrics.value().get("session_id")), (Some("1.0"), None));
    assert_eq!(payload["instance_id"], INSTANCE_ID);
    assert!(payload["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')));
    let cpu = &payload["cpu"];
    percent(&cpu["usage_percent"]);
    for load in ["load_avg_1", "load_avg_5", "load_avg_15"] {
        assert!(cpu[load].as_f64().is_some_and(|load| load >= 0.0), "{cpu}");
    }
    assert!(count(&cpu["core_count"]) >= 1);
    cpu["per_core"].as_array().expect("a list").iter().for_each(percent);
    let memory = &payload["memory"];
    percent(&memory["usage_percent"]);
    for field in ["free_bytes", "cached_bytes", "swap_total_bytes", "swap_used_bytes"] {
        count(&memory[field]);
    }
    assert!(count(&memory["used_bytes"]) <= count(&memory["total_bytes"]), "{memory}");
    for field in ["bytes_sent", "bytes_recv", "packets_sent", "packets_recv"] {
        count(&payload["network"][field]);
    }
    agent.drain();
}

#[test]
fn columns_of_the_console_are_the_nested_figures() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_METRICS", "0.3")]);
    // Rates need two readings.
    let metrics = console.nth_frame(3, "metrics");
    let payload = metrics.payload();
    for (column, figure) in [
        ("cpuSteal", payload["cpu"].get("steal_percent")),
        ("diskReadBps", payload["disk_io"].get("read_bytes_per_second")),
        ("diskWriteBps", payload["disk_io"].get("write_bytes_per_second")),
    ] {
        assert_eq!(payload.get(column), figure, "{column}");
        assert!(payload.get(column).is_none_or(|value| column == "cpuSteal" || value.is_u64()), "{column}: {payload}");
    }
    agent.drain();
}

#[test]
fn each_file_system_stands_there_once() {
    let console = Console::start(Personality::designed());
    let agent = Agent::spawn(&console, &[]);
    let metrics = console.frame("metrics");
    let disks = metrics.payload()["disk"].as_array().expect("a list");
    assert!(!disks.is_empty(), "the tests run from some file system");
    let mut devices = BTreeSet::new();
    for disk in disks {
        let disk = object(disk);
        for field in ["mount_point", "device", "fs_type"] {
            assert!(disk[field].is_string(), "{disk:?}");
        }
        let (total, used, free) = (&disk["total_bytes"], &disk["used_bytes"], &disk["free_bytes"]);
        assert!(count(used) <= count(total) && count(free) <= count(total), "{disk:?}");
        percent(&disk["usage_percent"]);
        assert!(
            devices.insert((disk["device"].clone().to_string(), disk["fs_type"].to_string(), count(total))),
            "{disks:?}"
        );
    }
    agent.drain();
}

#[test]
fn it_comes_again_and_counts_on() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_METRICS", "0.3"), ("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    let (first, fourth) = (console.nth_frame(1, "metrics"), console.nth_frame(4, "metrics"));
    for field in ["bytes_sent", "bytes_recv", "packets_sent", "packets_recv"] {
        let of = |record: &draupnir_console::Record| count(&record.payload()["network"][field]);
        assert!(of(&fourth) >= of(&first), "{field} went back");
    }
    assert!(fourth.payload()["timestamp"].as_str() >= first.payload()["timestamp"].as_str());
    agent.drain();
    assert_eq!(console.poison(), None);
}

#[test]
fn a_reconnect_does_not_bring_the_next_one_forward() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_METRICS", "3600")]);
    console.frame("metrics");
    console.connection(1).close(1000, "");
    console.on(2).frame("heartbeat");
    console.browser().run("true"); // every message that was sent at once has arrived by then
    agent.drain();
    assert_eq!(console.frames("metrics").len(), 1);
}
