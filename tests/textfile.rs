//! `SINDRI_AGENT_TEXTFILE`: the figures of the metrics message and of the agent, as OpenMetrics.

use crate::support;
use crate::support::{Home, Setup, skip};
use draupnir_console::{Console, Personality};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The samples by name and labels.
type Samples = BTreeMap<String, f64>;

/// Reads what is OpenMetrics and the text format of Prometheus at once: families one behind the other, with their type
/// and help first; gauges have a type and no ending of another; counters have none and end in `_total`; labels in
/// quotes; `# EOF` at the end.
fn parse(text: &str) -> Result<Samples, String> {
    let text = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    let is_name = |name: &str| {
        let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.chars().all(letters)
    };
    let (mut samples, mut families, mut typed, mut helped) = (Samples::new(), Vec::<&str>::new(), None, None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed = Some(rest.strip_suffix(" gauge").ok_or("a type that is not that of a gauge")?);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(line)?;
            if !is_name(name) || families.contains(&name) || help.is_empty() {
                return Err(format!("a family must be whole: {line}"));
            }
            families.push(name);
            helped = Some(name);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or(line)?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let is_labelled = labels.strip_suffix('}').is_some_and(|labels| {
            labels.is_empty() || labels.matches("=\"").count() * 2 == labels.matches('"').count()
        });
        let is_reserved = ["_total", "_count", "_sum", "_bucket", "_info"].iter().any(|end| name.ends_with(end));
        let is_typed = if typed == Some(name) { !is_reserved } else { name.ends_with("_total") };
        if helped != Some(name) || !is_typed || !is_labelled {
            return Err(format!("no sample of {helped:?}: {line}"));
        }
        let value: f64 = value.parse().map_err(|_| line)?;
        if samples.insert(series.to_owned(), value).is_some() {
            return Err(format!("twice: {line}"));
        }
    }
    Ok(samples)
}

#[test]
fn parser_refuses_what_the_format_forbids() {
    assert_eq!(parse("# EOF\n"), Ok(Samples::new()));
    let good = "# TYPE a gauge\n# HELP a x\na{b=\"c\"} 1\n# HELP d_total x\nd_total 2\n# EOF\n";
    assert_eq!(parse(good).map(|samples| samples.len()), Ok(2));
    for (from, to) in [
        ("# EOF\n", ""),
        ("d_total 2", "d 2"),
        ("# TYPE a gauge\n", ""),
        ("# HELP a x\n", ""),
        ("a gauge", "a counter"),
        ("HELP d_total", "HELP a"),
        ("# TYPE a gauge\n# HELP a x\na", "# TYPE a_count gauge\n# HELP a_count x\na_count"),
        ("a{b=\"c\"} 1\n", "a{b=\"c\"} 1\na{b=\"c\"} 2\n"),
        ("a{b=\"c\"} 1", "a{b=c\"} 1"),
        ("} 1", "} one"),
    ] {
        assert!(parse(&good.replacen(from, to, 1)).is_err(), "{from} by {to}");
    }
}

fn setup(console: &Console, home: &Home) -> (Setup, PathBuf) {
    let file = home.path().join("collector").join("sindri.prom");
    let setup = Setup::new(console).home(home).env("SINDRI_AGENT_METRICS", "0.2").env("SINDRI_AGENT_HEARTBEAT", "0.2");
    (setup.env("SINDRI_AGENT_TEXTFILE", &file), file)
}

#[test]
fn file_has_the_figures_of_the_message() {
    let console = Console::start(Personality::production());
    let home = Home::new();
    let (setup, file) = setup(&console, &home);
    std::fs::create_dir(home.path().join("collector")).expect("a directory");
    let agent = setup.spawn();
    support::settles(&console, "it is written", || file.exists());
    console.nth_frame(2, "metrics");
    agent.drain();
    let text = std::fs::read_to_string(&file).expect("it is there");
    let samples = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    // The last sample may be on disk and not have reached the console.
    let equals = |message: &Value| {
        let number = |pointer: &str| message.pointer(pointer).and_then(Value::as_f64);
        let same = |name: &str, value: Option<f64>| samples.get(name).copied() == value;
        same("sindri_memory_total_bytes", number("/memory/total_bytes"))
            && same("sindri_memory_used_bytes", number("/memory/used_bytes"))
            && same("sindri_cpu_usable_cores", number("/cpu/core_count"))
            && same("sindri_network_bytes_sent_total", number("/network/bytes_sent"))
            && same("sindri_instance_processes", number("/instance/process_count"))
            && same("sindri_cpu_usage_ratio", number("/cpu/usage_percent").map(|percent| percent / 100.0))
    };
    let messages: Vec<Value> = console.frames("metrics").iter().map(|frame| frame.payload().clone()).collect();
    assert!(messages.iter().any(equals), "{text}\n{messages:?}");
    let disks = messages[0]["disk"].as_array().map_or(0, Vec::len);
    assert_eq!(
        samples.keys().filter(|series| series.starts_with("sindri_disk_total_bytes{mount_point=\"/")).count(),
        disks
    );
    for own in [
        "sindri_agent_reconnects_total",
        "sindri_agent_unacknowledged_messages",
        "sindri_agent_unacknowledged_bytes",
        "sindri_agent_dropped_messages_total",
        "sindri_agent_output_gaps_total",
    ] {
        assert!(samples.contains_key(own), "{own} is missing: {text}");
    }
    assert!(samples.keys().any(|series| series == "sindri_agent_round_trip_seconds"), "{text}");
    // The collector runs as another user, and reads every file of this ending.
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let left = std::fs::read_dir(home.path().join("collector")).expect("a directory").count();
    assert_eq!(left, 1, "no other file is left");
}

/// `promtool check metrics`, of the Debian package `prometheus`.
#[test]
fn promtool_finds_no_fault() {
    const PROMTOOL: &str = "/usr/bin/promtool";
    if !Path::new(PROMTOOL).exists() {
        return skip("promtool_finds_no_fault", "promtool is not installed");
    }
    let console = Console::start(Personality::production());
    let home = Home::new();
    let (setup, file) = setup(&console, &home);
    std::fs::create_dir(home.path().join("collector")).expect("a directory");
    let agent = setup.spawn();
    console.nth_frame(3, "metrics");
    support::settles(&console, "it is written", || file.exists());
    agent.drain();
    let text = std::fs::File::open(&file).expect("it is there");
    let output = Command::new(PROMTOOL).args(["check", "metrics"]).stdin(text).output().expect("it starts");
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn file_that_cannot_be_written_is_one_warning() {
    let console = Console::start(Personality::production());
    let home = Home::new();
    let (setup, file) = setup(&console, &home);
    let agent = setup.spawn();
    console.nth_frame(5, "metrics");
    let is_it = |line: &Value| line["message"] == "SINDRI_AGENT_TEXTFILE not writable";
    agent.wait_log(is_it);
    assert_eq!(agent.log().count(is_it), 1);
    assert!(!file.exists());
    agent.drain();
}
