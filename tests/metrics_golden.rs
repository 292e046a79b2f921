//! Recorded trees of the kernel's files, and the payload that each must give.
//!
//! Every directory of `tests/fixtures/metrics` is an environment: a description (`about.txt`), the files at first
//! (`tree/`), the files that differ ten seconds later (`later/`), the use of its file systems (`spaces.tsv`), and the
//! payload of the second sample (`expected.json`), calculated by hand from the kernel's documents. To add an
//! environment, copy a directory.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use draupnir::metrics::{Roots, Sampler, Space};
use serde_json::{Value, json};

/// A copy of the environment that the test may change.
struct Environment {
    recorded: PathBuf,
    copy: PathBuf,
    now_s: Arc<AtomicU64>,
}

impl Environment {
    fn open(name: &str) -> Self {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics").join(name);
        // Tests run in parallel, and several use the same recording.
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let copy = format!("golden-{}-{}-{name}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(copy);
        copy_tree(&recorded.join("tree"), &copy);
        Self { recorded, copy, now_s: Arc::new(AtomicU64::new(100)) }
    }

    fn roots(&self) -> Roots {
        let spaces = spaces(&self.recorded.join("spaces.tsv"));
        let now_s = self.now_s.clone();
        Roots {
            proc: self.copy.join("proc"),
            sys: self.copy.join("sys"),
            measure: Arc::new(move |place| {
                let Some((space, hangs)) = spaces.get(place) else { return Err(io::ErrorKind::NotFound.into()) };
                assert!(!hangs, "{} would never answer, and the process could not end", place.display());
                Ok(*space)
            }),
            clock: Arc::new(move || Duration::from_secs(now_s.load(Ordering::SeqCst))),
        }
    }

    fn pass_ten_seconds(&self) {
        // Changes the files in place, as the kernel does: an open file shows the new content.
        if self.recorded.join("later").exists() {
            copy_tree(&self.recorded.join("later"), &self.copy);
        }
        self.now_s.fetch_add(10, Ordering::SeqCst);
    }

    fn expected(&self) -> Value {
        let text = fs::read_to_string(self.recorded.join("expected.json")).expect("the environment is complete");
        serde_json::from_str(&text).expect("the expectation is JSON")
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.copy);
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory can be made");
    for entry in fs::read_dir(from).expect("the recording can be read") {
        let entry = entry.expect("the recording can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

fn spaces(path: &Path) -> HashMap<PathBuf, (Space, bool)> {
    let text = fs::read_to_string(path).expect("the environment is complete");
    let mut spaces = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |index: usize| fields[index].parse::<u64>().expect("the field is a number");
        let space = Space {
            total_bytes: number(1),
            free_bytes: number(2),
            available_bytes: number(3),
            inodes_total: number(4),
            inodes_free: number(5),
            id: number(6),
            directory: fields[7] != "file",
        };
        spaces.insert(fields[0].into(), (space, fields[7] == "hangs"));
    }
    spaces
}

/// Two samples ten seconds apart, and the heartbeat's figures, which must agree with the second one.
fn check(name: &str) {
    let environment = Environment::open(name);
    let mut sampler = Sampler::new(environment.roots());
    assert!(!sampler.has_cpu_sample());
    let first = sampler.sample();
    assert_eq!(serde_json::to_value(&first).expect("it encodes")["cpu"]["usage_percent"], json!(0.0));
    environment.pass_ten_seconds();
    assert!(sampler.has_cpu_sample());
    let metrics = sampler.sample();
    let measured = serde_json::to_value(&metrics).expect("it encodes");
    let expected = environment.expected();
    compare(name, &measured, &expected);

    let sum = |field: &str| -> u64 {
        let entries = expected["disk"].as_array().expect("the expectation has disks");
        entries.iter().map(|entry| entry[field].as_u64().expect("the expectation has sizes")).sum()
    };
    let live = serde_json::to_value(sampler.live()).expect("it encodes");
    let expected_live = json!({
        "cpuPercent": expected["cpu"]["usage_percent"],
        "memoryUsed": expected["memory"]["used_bytes"],
        "memoryTotal": expected["memory"]["total_bytes"],
        "diskUsed": sum("used_bytes"),
        "diskTotal": sum("total_bytes"),
    });
    compare(name, &live, &expected_live);
    assert_eq!(sampler.take_missing(), [], "{name}");
}

/// Compares part by part, so that a difference is readable, and integers by type, too. The expectation may write a
/// percentage as a whole number.
fn compare(name: &str, measured: &Value, expected: &Value) {
    let empty = serde_json::Map::new();
    let (measured, expected) = (measured.as_object().unwrap_or(&empty), expected.as_object().unwrap_or(&empty));
    assert!(!expected.is_empty(), "{name}: nothing is expected");
    for (part, value) in expected {
        let found = measured.get(part);
        let same = found.is_some_and(|found| alike(found, value));
        assert!(same, "{name}: {part}\n measured {}\n expected {value}", found.unwrap_or(&Value::Null));
    }
    let unexpected: Vec<&String> = measured.keys().filter(|part| !expected.contains_key(*part)).collect();
    assert!(unexpected.is_empty(), "{name}: not expected: {unexpected:?}");
}

fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            if one.is_u64() {
                one == other
            } else {
                one.as_f64() == other.as_f64()
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| alike(value, other)))
        }
        (Value::Null | Value::Bool(_) | Value::String(_), _)
        | (Value::Number(_) | Value::Array(_) | Value::Object(_), _) => one == other,
    }
}

#[test]
fn a_plain_machine() {
    check("host");
}

#[test]
fn docker_on_the_unified_hierarchy() {
    check("docker-v2");
}

#[test]
fn docker_on_legacy_hierarchies() {
    check("docker-v1");
}

#[test]
fn a_guaranteed_pod() {
    check("k8s-guaranteed");
}

#[test]
fn a_burstable_pod() {
    check("k8s-burstable");
}

#[test]
fn a_system_container_with_lxcfs() {
    check("lxc");
}

#[test]
fn a_firecracker_machine() {
    check("fly");
}

#[test]
fn sandbox_with_missing_files_and_hanging_mount() {
    check("gvisor");
}

#[test]
fn wsl_2() {
    check("wsl2");
}

#[test]
fn hybrid_and_nested_groups() {
    check("hybrid");
}

#[test]
fn quota_above_all_processors() {
    check("wide-quota");
}

#[test]
fn quota_equal_to_all_processors() {
    check("quota-of-all");
}

#[test]
fn quota_shared_with_a_neighbour_and_a_smaller_cpuset() {
    check("pinned");
}

#[test]
fn shared_quota_within_a_container() {
    check("nested-pinned");
}

#[test]
fn zfs_cache_is_not_used_memory() {
    check("zfs");
}

#[test]
fn served_file_systems_are_named_once() {
    let environment = Environment::open("host");
    let mut sampler = Sampler::new(environment.roots());
    sampler.live();
    let left_out = ["/mnt/endless".to_owned(), "/mnt/share".to_owned()];
    assert_eq!(sampler.take_left_out(), Some(&left_out[..]));
    sampler.live();
    assert_eq!(sampler.take_left_out(), None);
    let table = environment.copy.join("proc/self/mountinfo");
    let text = fs::read_to_string(&table).expect("the copy is ours");
    let rest: String =
        text.lines().filter(|line| !line.contains("/mnt/endless")).flat_map(|line| [line, "\n"]).collect();
    fs::write(&table, rest).expect("the copy is ours");
    while sampler.take_left_out() != Some(&left_out[1..]) {
        sampler.live(); // the reader reads a table that cannot be polled again after some readings
    }
}

#[test]
fn every_recorded_environment_is_checked() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics");
    let checked = include_str!("metrics_golden.rs");
    for entry in fs::read_dir(recorded).expect("the recordings can be read") {
        let name = entry.expect("the recordings can be read").file_name().to_string_lossy().into_owned();
        assert!(checked.contains(&format!("check(\"{name}\")")), "{name} is recorded and never checked");
    }
}

#[test]
fn changed_limit_is_seen_at_the_next_sample() {
    let environment = Environment::open("docker-v2");
    let mut sampler = Sampler::new(environment.roots());
    assert_eq!(sampler.live().memory_total.value(), 512 << 20);
    let group = environment.copy.join("sys/fs/cgroup");
    fs::write(group.join("memory.max"), format!("{}\n", 768_u64 << 20)).expect("the copy is ours");
    fs::write(group.join("cpu.max"), "300000 100000\n").expect("the copy is ours");
    let metrics = sampler.sample();
    assert_eq!(metrics.memory.total_bytes.value(), 768 << 20);
    assert_eq!(metrics.cpu.core_count, 3);
    fs::write(group.join("memory.max"), "max\n").expect("the copy is ours");
    // Without a limit it is the container's own use and the machine's memory.
    let live = sampler.live();
    assert_eq!((live.memory_total.value(), live.memory_used.value()), (64 << 30, 256 << 20));
}

#[test]
fn moving_to_another_group_is_seen() {
    let environment = Environment::open("hybrid");
    let mut sampler = Sampler::new(environment.roots());
    assert_eq!(sampler.live().memory_total.value(), 1 << 30);
    let membership = environment.copy.join("proc/self/cgroup");
    fs::write(membership, "4:memory:/\n2:cpuacct:/\n1:cpu:/\n0::/\n").expect("the copy is ours");
    assert_eq!(sampler.live().memory_total.value(), 8 << 30);
    environment.pass_ten_seconds();
    let metrics = sampler.sample();
    assert_eq!((metrics.cpu.core_count, metrics.cpu.usage_percent.value()), (2, 50.0));
}

#[test]
fn no_single_missing_file_stops_the_others() {
    let name = "docker-v2";
    let full = Environment::open(name).expected();
    let mut files = Vec::new();
    list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics").join(name).join("tree"), &mut files);
    for file in files {
        let environment = Environment::open(name);
        fs::remove_file(environment.copy.join(&file)).expect("the copy is ours");
        let mut sampler = Sampler::new(environment.roots());
        sampler.sample();
        environment.pass_ten_seconds();
        let _ = fs::remove_file(environment.copy.join(&file));
        let metrics = sampler.sample();
        let measured = serde_json::to_value(&metrics).expect("it encodes");
        let parts = full.as_object().expect("the expectation is an object");
        let different =
            parts.iter().filter(|(part, value)| !measured.get(*part).is_some_and(|found| alike(found, value)));
        // Several parts need the mount table and the file with the agent's groups.
        let shared = file.ends_with("mountinfo") || file.ends_with("self/cgroup") || file.ends_with("cgroup.type");
        let different: Vec<&String> = different.map(|(part, _)| part).collect();
        assert!(shared || different.len() <= 2, "without {} these are different: {different:?}", file.display());
    }
}

#[test]
fn missing_figures_are_reported_once() {
    use draupnir::metrics::Figure;
    // The machine's files of processors and memory may be missing if the group has its own.
    for (name, file, missing) in [
        ("host", "stat", Some(Figure::Processors)),
        ("host", "meminfo", Some(Figure::Memory)),
        ("host", "self/mountinfo", Some(Figure::FileSystems)),
        ("docker-v2", "stat", None),
        ("docker-v2", "meminfo", None),
        ("fly", "pressure/cpu", None),
    ] {
        let environment = Environment::open(name);
        let _ = fs::remove_file(environment.copy.join("proc").join(file));
        let mut sampler = Sampler::new(environment.roots());
        sampler.live();
        assert_eq!(sampler.take_missing(), Vec::from_iter(missing), "{name} without {file}");
        environment.pass_ten_seconds();
        let _ = fs::remove_file(environment.copy.join("proc").join(file));
        sampler.sample();
        assert_eq!(sampler.take_missing(), [], "{name} without {file}: once");
    }
}

#[test]
fn any_file_contents_are_tolerated() {
    let nonsense: [&[u8]; 6] = [
        b"",
        b"\xff\xfe\0\x01: \n\n=",
        b"18446744073709551615 18446744073709551615\n18446744073709551615: 18446744073709551615\n",
        b"-1 -1\nusage_usec -5\ncpu -1 -1 -1 -1\n",
        b"0 0 0 0\ncpu 0 0 0 0 0 0 0 0\nMemTotal: 0 kB\nusage_usec 0\n",
        b"cpu 18446744073709551615 1 1 1 18446744073709551615\nMemTotal: 18446744073709551615 kB\nfile 18446744073709551615\n",
    ];
    for name in ["docker-v2", "docker-v1", "host"] {
        let environment = Environment::open(name);
        let mut files = Vec::new();
        list(&environment.copy, &mut files);
        for file in files {
            let path = environment.copy.join(&file);
            let proper = fs::read(&path).expect("the copy is ours");
            let mut sampler = Sampler::new(environment.roots());
            for text in nonsense {
                fs::write(&path, text).expect("the copy is ours");
                environment.now_s.fetch_add(1, Ordering::SeqCst);
                let metrics = sampler.sample();
                sound(&metrics, &file);
                let live = sampler.live();
                assert!(
                    live.memory_used <= live.memory_total && live.disk_used <= live.disk_total,
                    "{}",
                    file.display()
                );
            }
            fs::write(&path, proper).expect("the copy is ours");
        }
    }
}

/// Checks what must hold for any file contents. The types guarantee the rest.
fn sound(metrics: &draupnir::protocol::metrics::Metrics, file: &Path) {
    let memory = metrics.memory;
    assert!(memory.used_bytes <= memory.total_bytes && memory.free_bytes <= memory.total_bytes, "{}", file.display());
    assert!(memory.swap_used_bytes <= memory.swap_total_bytes, "{}", file.display());
    assert!(metrics.cpu.core_count >= 1 && metrics.cpu.core_count <= 4096, "{}: {:?}", file.display(), metrics.cpu);
    let rate = metrics.network.sent_bytes_per_second.map_or(0, |rate| rate.value());
    assert!(rate <= 200_000_000_000, "{}: {rate} bytes per second", file.display());
}

/// The files below a directory, relative to it.
fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    fn walk(base: &Path, inner: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(base.join(inner)).expect("the recording can be read") {
            let path = inner.join(entry.expect("the recording can be read").file_name());
            if base.join(&path).is_dir() { walk(base, &path, files) } else { files.push(path) }
        }
    }
    walk(directory, Path::new(""), files);
}
