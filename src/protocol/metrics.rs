//! The payload of a `metrics` message, and the live figures of a `heartbeat`.
//!
//! Measures nothing and decodes nothing: the agent only ever sends these.
//!
//! Invariants, by type: a byte or packet count is a whole number that a double holds exactly ([`Count`]); a percentage
//! is finite and within 0–100 ([`Percent`]); every other fraction is finite and not negative ([`Ratio`]); nothing is
//! ever `null`, because what is not known is left out, and no list can hold an empty entry. The console exits on frames
//! that break these.
//!
//! Units: bytes, percent, seconds; rates are per second. The public description is PROTOCOL.md beside this file.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::encode::{Payload, encode, sealed};
use super::id::InstanceId;
pub use super::number::{COUNT_MAX, Count, Percent, Ratio};
use super::timestamp::Timestamp;

/// Which authority a figure comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Source {
    /// A control group of the unified hierarchy.
    Cgroup2,
    /// A control group of a legacy hierarchy.
    Cgroup1,
    /// The machine as its kernel describes it to us.
    #[default]
    Host,
}

/// What a `metrics` message says, without the instance and the time, which its sender adds ([`Stamped`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory and swap.
    pub memory: Memory,
    /// One entry for each real file system.
    pub disk: Vec<Disk>,
    /// Traffic of the instance's own interfaces.
    pub network: Network,
    /// What the instance reads from and writes to block devices, where the kernel counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_io: Option<DiskIo>,
    /// How long work had to wait, where the kernel measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// The instance as a whole.
    pub instance: Instance,
}

/// A payload as it goes out: whose it is, when it was measured, and the figures. Three of them stand at the top once
/// more, under the names that fill columns of the production console (CONSOLE.md, "Metrics").
#[derive(Clone, Copy, Debug)]
pub struct Stamped<'a> {
    /// The instance's identity.
    pub instance_id: &'a InstanceId,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// The figures.
    pub metrics: &'a Metrics,
}

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { instance_id, timestamp, metrics } = *self;
        let disk_read = metrics.disk_io.map(|io| io.read_bytes_per_second);
        let disk_write = metrics.disk_io.map(|io| io.write_bytes_per_second);
        let cpu_steal = metrics.cpu.steal_percent;
        MetricsWire { instance_id, timestamp, cpu_steal, disk_read, disk_write, metrics }.serialize(serializer)
    }
}

/// What the instance uses of what it has.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Metrics"))]
pub(super) struct MetricsWire<'a> {
    instance_id: &'a InstanceId,
    timestamp: Timestamp,
    /// As `cpu.steal_percent`, for the production console.
    #[serde(rename = "cpuSteal", skip_serializing_if = "Option::is_none")]
    cpu_steal: Option<Percent>,
    /// As `disk_io.read_bytes_per_second`, for the production console.
    #[serde(rename = "diskReadBps", skip_serializing_if = "Option::is_none")]
    disk_read: Option<Count>,
    /// As `disk_io.write_bytes_per_second`, for the production console.
    #[serde(rename = "diskWriteBps", skip_serializing_if = "Option::is_none")]
    disk_write: Option<Count>,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

impl Stamped<'_> {
    /// The message.
    pub fn message(&self) -> String {
        encode(self)
    }
}

impl sealed::Object for Stamped<'_> {}

impl Payload for Stamped<'_> {
    const KIND: &'static str = "metrics";
}

/// Processor time, as a share of what the instance may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cpu {
    /// Time used since the last sample, as a share of what is allowed. Time that the hypervisor took is not used time.
    pub usage_percent: Percent,
    /// Load average over one minute.
    pub load_avg_1: Ratio,
    /// Load average over five minutes.
    pub load_avg_5: Ratio,
    /// Load average over fifteen minutes.
    pub load_avg_15: Ratio,
    /// How many cores may be used, rounded up; 0 when that is not known.
    pub core_count: u32,
    /// Use of each core that may be used; empty where a quota rather than a set of cores is the limit.
    pub per_core: Vec<Percent>,
    /// The cores that may be used, exactly: half a core is 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<Ratio>,
    /// The share of the machine's time that its hypervisor gave to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steal_percent: Option<Percent>,
    /// Where `usage_percent` is from.
    pub source: Source,
}

/// Memory and swap, against the limit that binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Memory {
    /// The smaller of the limit and the machine.
    pub total_bytes: Count,
    /// What could not be given back without swapping: in a control group, usage without inactive file pages.
    pub used_bytes: Count,
    /// What holds nothing at all, not even cache.
    pub free_bytes: Count,
    /// File pages and other caches.
    pub cached_bytes: Count,
    /// Used of total.
    pub usage_percent: Percent,
    /// Swap that may be used.
    pub swap_total_bytes: Count,
    /// Swap in use.
    pub swap_used_bytes: Count,
    /// Where the figures are from.
    pub source: Source,
}

/// One real file system.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Disk {
    /// Where it is mounted: the best of its places when there are several.
    #[serde(serialize_with = "text")]
    #[cfg_attr(test, schemars(with = "str"))]
    pub mount_point: Arc<str>,
    /// What is mounted, as the mount table names it.
    #[serde(serialize_with = "text")]
    #[cfg_attr(test, schemars(with = "str"))]
    pub device: Arc<str>,
    /// Its type, as the mount table names it.
    #[serde(serialize_with = "text")]
    #[cfg_attr(test, schemars(with = "str"))]
    pub fs_type: Arc<str>,
    /// Its size.
    pub total_bytes: Count,
    /// What is taken.
    pub used_bytes: Count,
    /// What an ordinary user may still take.
    pub free_bytes: Count,
    /// Used of used and free together, as `df` counts: what is reserved for root is neither.
    pub usage_percent: Percent,
    /// How many inodes it has, where their number is fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_total: Option<Count>,
    /// Inodes in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<Count>,
    /// What its device read since the last sample. Left out in a container, which does not own the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<Count>,
    /// What its device wrote since the last sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_second: Option<Count>,
}

/// Block device traffic of the whole instance since the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiskIo {
    /// Bytes read.
    pub read_bytes_per_second: Count,
    /// Bytes written.
    pub write_bytes_per_second: Count,
    /// Where the figures are from.
    pub source: Source,
}

/// Traffic of the instance's own interfaces. The counts never go back while the agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Network {
    /// Bytes sent.
    pub bytes_sent: Count,
    /// Bytes received.
    pub bytes_recv: Count,
    /// Packets sent.
    pub packets_sent: Count,
    /// Packets received.
    pub packets_recv: Count,
    /// Bytes sent, over the time since the last sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes_per_second: Option<Count>,
    /// Bytes received, over the time since the last sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recv_bytes_per_second: Option<Count>,
    /// Faulty packets, both ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Count>,
    /// Dropped packets, both ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops: Option<Count>,
    /// TCP connections that are established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_connections: Option<Count>,
}

/// Pressure stall information: the share of the last ten seconds in which work waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pressure {
    /// Waiting for a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Stall>,
    /// Waiting for block devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Stall>,
    /// Where the figures are from.
    pub source: Source,
}

/// How much of the last ten seconds some, and all, of the work waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stall {
    /// At least one task waited.
    pub some_avg10: Percent,
    /// Every task waited; old kernels do not say it for the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_avg10: Option<Percent>,
}

/// The instance as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Instance {
    /// Seconds since the instance, not its host, was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<Count>,
    /// Processes that the instance sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_count: Option<Count>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_count: Option<Count>,
    /// How many processes and threads there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_limit: Option<Count>,
    /// How often the kernel killed a process for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_count: Option<Count>,
    /// Descriptors that the agent has open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_descriptors: Option<Count>,
    /// How many it may have open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor_limit: Option<Count>,
    /// Descriptors that the machine has open, where the instance is the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_open_descriptors: Option<Count>,
    /// How many it may have open, where that is bounded at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_descriptor_limit: Option<Count>,
}

/// What a `heartbeat` says about the instance (CONSOLE.md, "Heartbeats"): the same figures as in `metrics`, in the
/// console's spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Live {
    /// As [`Cpu::usage_percent`], since the last heartbeat.
    pub cpu_percent: Percent,
    /// As [`Memory::used_bytes`].
    pub memory_used: Count,
    /// As [`Memory::total_bytes`].
    pub memory_total: Count,
    /// The sum of [`Disk::used_bytes`].
    pub disk_used: Count,
    /// The sum of [`Disk::total_bytes`].
    pub disk_total: Count,
}

/// Shared text goes out as text; serde's own feature for it would be switched on for every crate of the workspace.
fn text<S: Serializer>(value: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What the console exits on: a `null` anywhere, or a number that is negative or not finite.
    fn fault(value: &Value, path: &str) -> Option<String> {
        match value {
            Value::Null => Some(format!("{path} is null")),
            Value::Bool(_) | Value::String(_) => None,
            Value::Number(number) => {
                let counted = ["bytes", "packets", "_count", "inodes", "Used", "Total", "Bps"]
                    .iter()
                    .any(|part| path.contains(part));
                match number.as_f64() {
                    Some(plain) if plain >= 0.0 && plain.is_finite() => {
                        (counted && !number.is_u64()).then(|| format!("{path} is a fraction: {number}"))
                    }
                    Some(_) | None => Some(format!("{path} is {number}")),
                }
            }
            Value::Array(entries) => entries.iter().find_map(|entry| fault(entry, &format!("{path}[]"))),
            Value::Object(fields) => fields.iter().find_map(|(name, entry)| fault(entry, &format!("{path}.{name}"))),
        }
    }

    fn everything(bytes: u64, fraction: f64) -> Metrics {
        let (count, percent, ratio) = (Count::new(bytes), Percent::new(fraction), Ratio::new(fraction));
        let stall = Some(Stall { some_avg10: percent, full_avg10: Some(percent) });
        Metrics {
            cpu: Cpu {
                usage_percent: percent,
                load_avg_1: ratio,
                per_core: vec![percent],
                cores: Some(ratio),
                steal_percent: Some(percent),
                ..Cpu::default()
            },
            memory: Memory {
                total_bytes: count,
                used_bytes: count,
                usage_percent: Percent::of(bytes, bytes / 3),
                ..Memory::default()
            },
            disk: vec![Disk {
                mount_point: "/".into(),
                device: "/dev/vda".into(),
                fs_type: "ext4".into(),
                total_bytes: count,
                used_bytes: count,
                free_bytes: count,
                usage_percent: percent,
                inodes_total: Some(count),
                inodes_used: Some(count),
                read_bytes_per_second: Some(count),
                write_bytes_per_second: Some(count),
            }],
            network: Network { bytes_sent: count, tcp_connections: Some(count), ..Network::default() },
            disk_io: Some(DiskIo {
                read_bytes_per_second: count,
                write_bytes_per_second: count,
                source: Source::Cgroup2,
            }),
            pressure: Some(Pressure { cpu: stall, memory: stall, io: stall, source: Source::Cgroup2 }),
            instance: Instance { process_count: Some(count), ..Instance::default() },
        }
    }

    proptest! {
        #[test]
        fn no_payload_can_crash_the_console(bytes: u64, bits: u64) {
            let metrics = everything(bytes, f64::from_bits(bits));
            let instance_id = InstanceId::new("i").expect("a short id");
            let stamped = Stamped { instance_id: &instance_id, timestamp: Timestamp::now(), metrics: &metrics };
            let value = serde_json::to_value(stamped).expect("the payload encodes");
            prop_assert_eq!(fault(&value, ""), None);
            let cpu_percent = Percent::new(f64::from_bits(bits));
            let live = Live { cpu_percent, memory_used: Count::new(bytes), ..Live::default() };
            prop_assert_eq!(fault(&serde_json::to_value(live).expect("the figures encode"), ""), None);
        }

        #[test]
        fn a_percentage_stays_within_its_bounds(bits: u64) {
            let value = Percent::new(f64::from_bits(bits)).value();
            prop_assert!((0.0..=100.0).contains(&value), "{}", value);
        }
    }

    #[test]
    fn the_checker_of_these_tests_sees_each_fault() {
        for bad in [r#"{"disk":[null]}"#, r#"{"used_bytes":1.5}"#, r#"{"used_bytes":-1}"#, r#"{"payload":null}"#] {
            let value: Value = serde_json::from_str(bad).expect("the example is JSON");
            assert!(fault(&value, "").is_some(), "{bad}");
        }
    }

    #[test]
    fn three_figures_stand_at_the_top_once_more() {
        let stamp = |metrics: &Metrics| {
            let instance_id = &InstanceId::new("i").expect("a short id");
            serde_json::to_value(Stamped { instance_id, timestamp: Timestamp::now(), metrics }).expect("it encodes")
        };
        let value = stamp(&everything(7, 12.5));
        assert_eq!(value["cpuSteal"], value["cpu"]["steal_percent"]);
        assert_eq!(value["diskReadBps"], value["disk_io"]["read_bytes_per_second"]);
        assert_eq!(value["diskWriteBps"], serde_json::json!(7));
        let value = stamp(&Metrics::default());
        assert!(["cpuSteal", "diskReadBps", "diskWriteBps"].iter().all(|name| value.get(name).is_none()), "{value}");
    }

    #[test]
    fn unknown_figures_are_left_out() {
        let value = serde_json::to_value(Metrics::default()).expect("the payload encodes");
        assert_eq!(
            value,
            serde_json::json!({
                "cpu": {"usage_percent": 0.0, "load_avg_1": 0.0, "load_avg_5": 0.0, "load_avg_15": 0.0, "core_count": 0, "per_core": [], "source": "host"},
                "memory": {"total_bytes": 0, "used_bytes": 0, "free_bytes": 0, "cached_bytes": 0, "usage_percent": 0.0,
                    "swap_total_bytes": 0, "swap_used_bytes": 0, "source": "host"},
                "disk": [],
                "network": {"bytes_sent": 0, "bytes_recv": 0, "packets_sent": 0, "packets_recv": 0},
                "instance": {}
            })
        );
    }

    #[test]
    fn the_live_figures_are_spelt_as_the_console_reads_them() {
        let value = serde_json::to_value(Live::default()).expect("the figures encode");
        assert_eq!(
            value,
            serde_json::json!({"cpuPercent": 0.0, "memoryUsed": 0, "memoryTotal": 0, "diskUsed": 0, "diskTotal": 0})
        );
    }
}
