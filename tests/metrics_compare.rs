//! Compares the figures with those of other tools on the same machine at the same time.
#![cfg(target_os = "linux")]

mod metrics_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use draupnir::metrics::{Roots, Sampler};
use draupnir::protocol::metrics::Source;
use metrics_support::{Worker, skip};

/// The lines of a tool's output, split into words; `None` if the tool is missing.
fn table(command: &str, arguments: &[&str]) -> Option<Vec<Vec<String>>> {
    let output = Command::new(command).args(arguments).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
}

/// Measures before and after the other tool, until both agree: other programs may change the figures meanwhile.
fn agree<T: PartialEq + std::fmt::Debug>(what: &str, mut ours: impl FnMut() -> T, mut theirs: impl FnMut() -> T) -> T {
    let mut seen = None;
    for _ in 0..200 {
        let (before, other, after) = (ours(), theirs(), ours());
        if before == other || after == other {
            return other;
        }
        seen = Some((before, other, after));
    }
    panic!("{what}: {seen:?}");
}

#[test]
fn the_load_is_the_kernel_s() {
    let mut sampler = Sampler::new(Roots::default());
    let load = agree(
        "load",
        || {
            let cpu = sampler.sample().cpu;
            [cpu.load_avg_1, cpu.load_avg_5, cpu.load_avg_15].map(|load| format!("{:.2}", load.value()))
        },
        || {
            let text = fs::read_to_string("/proc/loadavg").expect("it is there");
            let words: Vec<&str> = text.split(' ').collect();
            [words[0], words[1], words[2]].map(str::to_owned)
        },
    );
    println!("load {load:?}");
}

#[test]
fn memory_is_as_free_says() {
    let test = "memory_is_as_free_says";
    let mut sampler = Sampler::new(Roots::default());
    let memory = sampler.sample().memory;
    let Some(lines) = table("free", &["--bytes"]) else { return skip(test, "there is no free") };
    if memory.source != Source::Host {
        return skip(test, "we are in a container, and free shows its host");
    }
    let column = |row: usize, column: usize| lines[row][column].parse::<u64>().expect("it is a number");
    // total used free shared buff/cache available; old versions define "used" in another way.
    let (total, available, swap) = (column(1, 1), column(1, 6), column(2, 1));
    assert_eq!((memory.total_bytes.value(), memory.swap_total_bytes.value()), (total, swap));
    close("used", memory.used_bytes.value(), total - available, total / 50);
    close("cached", memory.cached_bytes.value(), column(1, 5), total / 50);
}

fn close(what: &str, one: u64, other: u64, by: u64) {
    println!("{what}: {one} and {other}");
    assert!(one.abs_diff(other) <= by, "{what}: {one} and {other} are not within {by}");
}

#[test]
fn the_root_is_as_full_as_df_says() {
    let test = "the_root_is_as_full_as_df_says";
    let mut sampler = Sampler::new(Roots::default());
    let Some(lines) = table("df", &["-B1", "--output=size,used,avail,itotal,iused,fstype", "/"]) else {
        return skip(test, "there is no df");
    };
    let theirs = &lines[1];
    let disks = sampler.sample().disk;
    let root = disks.iter().find(|disk| &*disk.mount_point == "/").expect("there is a root");
    let number = |index: usize| theirs[index].parse::<u64>().expect("it is a number");
    assert_eq!((root.total_bytes.value(), &*root.fs_type), (number(0), theirs[5].as_str()));
    let moved = 64 << 20; // other programs run at the same time
    close("used", root.used_bytes.value(), number(1), moved);
    close("free", root.free_bytes.value(), number(2), moved);
    if let (Some(total), Some(used)) = (root.inodes_total, root.inodes_used) {
        assert_eq!(total.value(), number(3));
        close("inodes", used.value(), number(4), 5000);
    }
}

/// Answers each line with what psutil says.
const PSUTIL: &str = "import json, sys, psutil\npsutil.cpu_times_percent()\nprint('ready', flush=True)\n\
    for line in sys.stdin:\n  c = psutil.cpu_times_percent()\n  m = psutil.virtual_memory()\n  \
    d = psutil.disk_usage('/')\n  n = psutil.net_io_counters(pernic=True)\n  \
    print(json.dumps(dict(busy=100 - c.idle - c.iowait - getattr(c, 'steal', 0), total=m.total, \
    used=m.total - m.available, cores=psutil.cpu_count(), disk_total=d.total, disk_used=d.used, \
    nics={k: [v.bytes_sent, v.bytes_recv] for k, v in n.items()}, swap=psutil.swap_memory().total)), flush=True)\n";

#[test]
fn psutil_says_the_same() {
    let test = "psutil_says_the_same";
    let python = std::env::var_os("DRAUPNIR_PYTHON")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python"), PathBuf::from);
    let Some(mut worker) = Worker::start(Command::new(python).args(["-c", PSUTIL]).stderr(Stdio::null())) else {
        return skip(test, "there is no psutil in target/venv");
    };
    let mut sampler = Sampler::new(Roots::default());
    let first = sampler.sample();
    if first.memory.source != Source::Host {
        return skip(test, "we are in a container, and psutil shows its host");
    }
    // Both measure over the same time, in which one processor is busy for two seconds.
    worker.ask("begin").expect("it is there");
    sampler.sample();
    let start = Instant::now();
    let mut turns = 0_u64;
    while start.elapsed() < Duration::from_secs(2) {
        turns = std::hint::black_box(turns + 1);
    }
    let theirs: serde_json::Value =
        serde_json::from_str(&worker.ask("end").expect("it is there")).expect("psutil's answer is JSON");
    let ours = sampler.sample();
    let number = |key: &str| theirs[key].as_u64().expect("it is a number");
    let busy = theirs["busy"].as_f64().expect("it is a number");
    println!("processors: {} and {busy} %", ours.cpu.usage_percent.value());
    assert!((ours.cpu.usage_percent.value() - busy).abs() <= 5.0, "{} and {busy}", ours.cpu.usage_percent.value());
    assert_eq!(u64::from(ours.cpu.core_count), number("cores"));
    assert_eq!(
        (ours.memory.total_bytes.value(), ours.memory.swap_total_bytes.value()),
        (number("total"), number("swap"))
    );
    close("used", ours.memory.used_bytes.value(), number("used"), number("total") / 50);
    let root = ours.disk.iter().find(|disk| &*disk.mount_point == "/").expect("there is a root");
    assert_eq!(root.total_bytes.value(), number("disk_total"));
    close("disk", root.used_bytes.value(), number("disk_used"), 64 << 20);
    // With one network card, its traffic is the total. Otherwise psutil counts one packet several times.
    let hardware = |name: &String| Path::new("/sys/class/net").join(name).join("device").exists();
    let nics = theirs["nics"].as_object().expect("it is a table");
    let cards: Vec<&String> = nics.keys().filter(|name| hardware(name)).collect();
    if let [card] = cards[..] {
        let count = |index: usize| nics[card][index].as_u64().expect("it is a number");
        close("sent", ours.network.bytes_sent.value(), count(0), 1 << 20);
        close("received", ours.network.bytes_recv.value(), count(1), 1 << 20);
    }
}

#[test]
fn a_heartbeat_and_a_sample_agree() {
    let mut sampler = Sampler::new(Roots::default());
    let metrics = sampler.sample();
    let live = sampler.live();
    assert_eq!(live.memory_total, metrics.memory.total_bytes);
    let total: u64 = metrics.disk.iter().map(|disk| disk.total_bytes.value()).sum();
    assert_eq!(live.disk_total.value(), total);
    close("used", live.memory_used.value(), metrics.memory.used_bytes.value(), live.memory_total.value() / 50);
}
