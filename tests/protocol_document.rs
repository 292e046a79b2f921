//! `PROTOCOL.md` is right: the agent writes its outbound examples and reads its inbound ones.

use draupnir::logs::record::Origin;
use draupnir::logs::splitter::Record;
use draupnir::logs::time::Zone;
use draupnir::protocol::metrics::{
    Cpu, Disk, DiskIo, Instance, Live, Memory, Metrics, Network, Pressure, Ratio, Source, Stall, Stamped,
};
use draupnir::protocol::{
    Captured, ClosedReason, CommandId, CommandOutput, CommandResult, Count, Event, EventType, Heartbeat, Inbound,
    InstanceId, Inventory, MessageId, Metadata, OutputStream, Percent, Registration, SessionId, TerminalClosed,
    TerminalOutput, Timestamp, UsageRecord, decode, echo, log_batch,
};
use draupnir_fsm::order::{ProviderName, RegisterPath};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

const DOCUMENT: &str = include_str!("../src/protocol/PROTOCOL.md");

/// The examples of one kind in the document.
fn examples(kind: &str) -> Vec<Value> {
    let fence = format!("```json {kind}\n");
    let blocks = DOCUMENT.split(&fence).skip(1);
    blocks
        .map(|block| {
            let (example, _) = block.split_once("```").expect("a fence is closed");
            serde_json::from_str(example).unwrap_or_else(|error| panic!("{error} in {example}"))
        })
        .collect()
}

fn values(frames: &[String]) -> Vec<Value> {
    frames.iter().map(|frame| serde_json::from_str(frame).expect("JSON")).collect()
}

/// Replaces the values that depend on the machine that built the agent.
fn with_this_build(mut example: Value) -> Value {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let fields = if example.get("payload").is_some() { &mut example["payload"] } else { &mut example };
    for (field, here) in [
        ("os", if os == "macos" { "darwin" } else { os }),
        (
            "arch",
            match arch {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        ),
        ("agent_version", env!("CARGO_PKG_VERSION")),
    ] {
        if let Some(value) = fields.get_mut(field) {
            *value = here.into();
        }
    }
    example
}

#[test]
fn every_example_belongs_to_a_kind_that_is_checked() {
    let fences = DOCUMENT.matches("```json").count();
    let kinds = ["http", "outbound", "inbound", "ignored"];
    assert_eq!(fences, kinds.map(|kind| examples(kind).len()).iter().sum::<usize>());
}

#[test]
fn outbound_examples_are_what_the_agent_writes() {
    let examples: Vec<Value> = examples("outbound").into_iter().map(with_this_build).collect();
    assert_eq!(examples, values(&outbound()));
}

#[test]
fn registration_example_is_what_the_agent_writes() {
    let examples: Vec<Value> = examples("http").into_iter().map(with_this_build).collect();
    let id = InstanceId::new("web-1").expect("an id");
    let (tags, inventory) = (tags(), inventory());
    let body = registration(&id, &tags, &inventory).http_body(RegisterPath::Designed, ProviderName::Configured);
    assert_eq!(examples, values(&[body]));
}

#[test]
fn inbound_examples_are_actions() {
    let mut kinds = Vec::new();
    for example in examples("inbound") {
        let decoded = decode(&example.to_string()).expect("an envelope");
        assert_eq!(decoded.version_mismatch, None);
        assert!(echo(&decoded.message).is_some(), "{:?}", decoded.message);
        kinds.push(example["type"].as_str().expect("a type").to_owned());
    }
    let expected = [
        "terminal:create",
        "terminal:input",
        "terminal:resize",
        "terminal:close",
        "command:dispatch",
        "command:cancel",
        "log:subscribe",
        "log:unsubscribe",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn ignored_examples_are_ignored() {
    for example in examples("ignored") {
        let message = decode(&example.to_string()).expect("an envelope").message;
        assert!(matches!(message, Inbound::Ignored(_)), "{message:?}");
    }
}

fn timestamp() -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(1_795_211_178))
}

fn tags() -> BTreeMap<String, String> {
    BTreeMap::from([("team".to_owned(), "shop".to_owned())])
}

fn inventory() -> Inventory {
    Inventory::new(Some("ubuntu"), Some(["node", "python"].map(str::to_owned).to_vec()))
}

fn registration<'a>(
    instance_id: &'a InstanceId,
    tags: &'a BTreeMap<String, String>,
    inventory: &'a Inventory,
) -> Registration<'a> {
    static NAME: OnceLock<InstanceId> = OnceLock::new();
    Registration {
        instance_id,
        hostname: "web-1.internal",
        name: Some(NAME.get_or_init(|| InstanceId::new("web-1").expect("an id"))),
        provider: Some("fly"),
        region: Some("fra"),
        tags,
        inventory,
        timestamp: timestamp(),
    }
}

/// The messages of the document, in its order.
fn outbound() -> Vec<String> {
    let instance_id = &InstanceId::new("cmwpidtof006e3y7d5f56w9lr").expect("an id");
    let session_id = &SessionId::new("0dc35302-b8d0-4ee0-8530-e2a37d518a44").expect("an id");
    let command_id = &CommandId::new("f11f22b3-0085-415f-8392-1803e935e6ce").expect("an id");
    let id = |number| MessageId { process: 0x9f86_d081_884c_7d65, number };
    let live = Live {
        cpu_percent: Percent::new(1.5),
        memory_used: Count::from(100 << 20),
        memory_total: Count::from(512 << 20),
        disk_used: Count::from(1 << 30),
        disk_total: Count::from(8 << 30),
    };
    let event = Event {
        instance_id,
        event_type: EventType::Disconnect,
        id: id(12),
        message: Some("the console closed the connection"),
        metadata: Metadata::new().with("cause", "closed").with("close_code", 1012_u64),
        timestamp: timestamp(),
    };
    let output = TerminalOutput { session_id, data: "hello é\r\n".as_bytes(), offset: Some(4096), replay: false };
    let closed = TerminalClosed {
        session_id,
        exit_code: 127,
        reason: ClosedReason::SpawnFailed,
        message: Some("/bin/zsh: not found"),
        id: id(13),
    };
    let result = CommandResult {
        command_id,
        stdout: Captured { head: b"one\n", left_out: 1 << 20, tail: b"two\n" },
        stderr: Captured::default(),
        exit_code: 124,
        duration_ms: 5002,
        timed_out: true,
        cancelled: false,
        reason: None,
    };
    let stream = CommandOutput { command_id, stream: OutputStream::Stdout, data: b"hi\n", offset: 0 };
    let installed = Event {
        event_type: EventType::ExtensionInstall,
        id: id(14),
        message: Some("extension python upgraded"),
        metadata: Metadata::new()
            .with("source", "sindri")
            .with("name", "python")
            .with("ledger_event_id", "5f0c3f62-6f0e-4d53-a5a1-0c1f2d7a9d11")
            .with("version", "1.1.0")
            .with("from_version", "1.0.0")
            .with("duration_seconds", 12_u64)
            .with("cli_version", "3.1.0"),
        ..event.clone()
    };
    let (tags, inventory) = (&tags(), &inventory());
    let (timestamp, inventory_now) = (timestamp(), Some(inventory));
    let used = UsageRecord {
        provider: "anthropic",
        model: "claude-sonnet-4-5".to_owned(),
        operation: "chat",
        input_tokens: 25,
        output_tokens: 15,
        cache_read_tokens: Some(7),
        cache_write_tokens: Some(0),
        trace_id: MessageId { process: 0x9f86_d081_884c_7d65, number: 15 },
        ts: Count::new(1_795_211_222_103),
    };
    let text = br#"{"ts":1795211222103,"level":"warn","msg":"slow"}"#;
    let record = Record { start: 4_096, end: 4_147, text: text.to_vec(), dropped_bytes: 0 };
    let line = Origin::below_logs("node/out.log").line(&record, 1_795_211_222_200, &mut Zone::default());
    vec![
        registration(instance_id, tags, inventory).message(),
        Heartbeat {
            instance_id,
            timestamp,
            uptime_seconds: Count::from(101),
            live: Some(live),
            inventory: inventory_now,
        }
        .message(),
        Stamped { instance_id, timestamp, metrics: &metrics() }.message(),
        event.message(),
        installed.message(),
        output.message(),
        closed.message(),
        result.message(),
        stream.message(),
        UsageRecord::batch(&[used]),
        log_batch("node/out.log", [line.as_str()].into_iter()),
    ]
}

/// Figures with every optional field.
fn metrics() -> Metrics {
    let (count, percent, ratio) = (|value| Some(Count::new(value)), Percent::new, Ratio::new);
    let stall = |some, full: Option<f64>| Some(Stall { some_avg10: percent(some), full_avg10: full.map(percent) });
    let source = Source::Cgroup2;
    Metrics {
        cpu: Cpu {
            usage_percent: percent(12.5),
            load_avg_1: ratio(0.1),
            load_avg_5: ratio(0.2),
            load_avg_15: ratio(0.3),
            core_count: 2,
            per_core: vec![percent(10.0), percent(15.0)],
            cores: Some(ratio(1.5)),
            steal_percent: Some(percent(0.0)),
            source,
        },
        memory: Memory {
            total_bytes: Count::new(512 << 20),
            used_bytes: Count::new(100 << 20),
            free_bytes: Count::new(362 << 20),
            cached_bytes: Count::new(50 << 20),
            usage_percent: Percent::of(100, 512),
            swap_total_bytes: Count::new(0),
            swap_used_bytes: Count::new(0),
            source,
        },
        disk: vec![Disk {
            mount_point: "/".into(),
            device: "/dev/vda1".into(),
            fs_type: "ext4".into(),
            total_bytes: Count::new(8 << 30),
            used_bytes: Count::new(1 << 30),
            free_bytes: Count::new(7 << 30),
            usage_percent: Percent::of(1, 8),
            inodes_total: count(524_288),
            inodes_used: count(4096),
            read_bytes_per_second: count(0),
            write_bytes_per_second: count(4096),
        }],
        network: Network {
            bytes_sent: Count::new(7),
            bytes_recv: Count::new(8),
            packets_sent: Count::new(9),
            packets_recv: Count::new(10),
            sent_bytes_per_second: count(1),
            recv_bytes_per_second: count(2),
            errors: count(0),
            drops: count(0),
            tcp_connections: count(3),
        },
        disk_io: Some(DiskIo {
            read_bytes_per_second: Count::new(0),
            write_bytes_per_second: Count::new(4096),
            source,
        }),
        pressure: Some(Pressure {
            cpu: stall(0.5, None),
            memory: stall(0.0, Some(0.0)),
            io: stall(1.25, Some(0.75)),
            source,
        }),
        instance: Instance {
            uptime_seconds: count(3600),
            process_count: count(12),
            task_count: count(40),
            task_limit: count(4096),
            oom_kill_count: count(0),
            open_descriptors: count(11),
            descriptor_limit: count(1024),
            machine_open_descriptors: count(1504),
            machine_descriptor_limit: count(100_000),
        },
    }
}
