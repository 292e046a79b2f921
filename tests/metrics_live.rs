//! The figures against the real kernel: groups with limits and a known load, file systems mounted several times, and what
//! other tools say of the same machine at the same time.
//!
//! A process under test is measured from outside: the sampler's roots show this machine with that process in the place of
//! our own, so that no test has to move itself into a group or a namespace.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use draupnir::metrics::{Roots, Sampler, Space};
use draupnir::protocol::metrics::{Metrics, Source};
use futures_lite::future::block_on;

const DEADLINE: Duration = Duration::from_secs(60);

/// Says that a test cannot be done here, and why.
fn skip(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
    if let Ok(path) = std::env::var("DRAUPNIR_SKIPS") {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{test}\t{reason}")).expect("the list of skips can be written");
    }
}

fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("draupnir-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory of our own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique());
        fs::create_dir_all(&path).expect("the directory can be made");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that does one thing per line that it is told, and answers with a line.
struct Worker {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl Worker {
    fn start(command: &mut Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let input = child.stdin.take().expect("it was piped");
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let (said, output) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.send(line)));
        let worker = Self { child, input, output };
        (worker.answer()? == "ready").then_some(worker)
    }

    fn tell(&mut self, line: &str) -> Option<String> {
        writeln!(self.input, "{line}").ok()?;
        self.answer()
    }

    /// The next line; `None` when the child is gone.
    fn answer(&self) -> Option<String> {
        match self.output.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no answer within {DEADLINE:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This machine, with another process in the place of our own.
struct Seen {
    scratch: Scratch,
    pid: u32,
}

impl Seen {
    fn new(pid: u32) -> Self {
        let scratch = Scratch::new();
        for name in ["stat", "meminfo", "loadavg", "pressure", "uptime", "vmstat", "diskstats", "sys", "1"] {
            symlink(Path::new("/proc").join(name), scratch.0.join(name)).expect("the link can be made");
        }
        symlink(format!("/proc/{pid}"), scratch.0.join("self")).expect("the link can be made");
        symlink(format!("/proc/{pid}/net"), scratch.0.join("net")).expect("the link can be made");
        Self { scratch, pid }
    }

    fn sampler(&self) -> Sampler {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        let inside = move |place: &Path| Space::of(&root.join(place.strip_prefix("/").unwrap_or(place)));
        Sampler::new(Roots { proc: self.scratch.0.clone(), measure: Arc::new(inside), ..Roots::default() })
    }
}

/// A control group of our own, gone with the test.
struct Group {
    places: Vec<PathBuf>,
}

impl Group {
    /// Made in each of these hierarchies; the reason if that is not possible here.
    fn make(hierarchies: &[PathBuf]) -> Result<Self, String> {
        let name = unique();
        let mut group = Self { places: Vec::new() };
        for hierarchy in hierarchies {
            let place = hierarchy.join(&name);
            fs::create_dir(&place)
                .map_err(|error| format!("no group can be made in {}: {error}", hierarchy.display()))?;
            group.places.push(place);
        }
        Ok(group)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let place = self.places.iter().find(|place| place.join(file).exists()).ok_or(format!("there is no {file}"))?;
        fs::write(place.join(file), text).map_err(|error| format!("{file} cannot be set: {error}"))
    }

    fn read(&self, file: &str, key: &str) -> u64 {
        let place = self.places.iter().find(|place| place.join(file).exists()).expect("the file is there");
        let text = fs::read_to_string(place.join(file)).expect("the group is ours");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
        line.trim().parse().expect("the value is a number")
    }

    fn take(&self, pid: u32) {
        for place in &self.places {
            fs::write(place.join("cgroup.procs"), pid.to_string()).expect("the process can be moved");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for place in &self.places {
            let end = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(place).is_err() && Instant::now() < end {
                std::thread::yield_now(); // the last process is on its way out
            }
        }
    }
}

/// Where a controller is: a legacy hierarchy by its name, or the unified one if it has it.
fn hierarchies(unified: bool, controllers: &[&str]) -> Result<Vec<PathBuf>, String> {
    let base = Path::new("/sys/fs/cgroup");
    if !unified {
        let places: Vec<PathBuf> = controllers.iter().map(|name| base.join(name)).collect();
        return match places.iter().find(|place| !place.join("cgroup.procs").exists()) {
            None => Ok(places),
            Some(place) => Err(format!("there is no legacy hierarchy at {}", place.display())),
        };
    }
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root =
        root.iter().find(|root| root.join("cgroup.controllers").exists()).ok_or("there is no unified hierarchy")?;
    for controller in controllers {
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
        if !enabled.split_whitespace().any(|name| name == *controller) {
            fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
                .map_err(|_| format!("the unified hierarchy has no {controller} controller to give"))?;
        }
    }
    Ok(vec![root.to_path_buf()])
}

/// Holds on to as many bytes as it is told, one byte each of them written.
const HOLD: &str = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin:\n  held = b'x' * int(line)\n  print('held', flush=True)\n";

/// Runs on one processor without end once it is told, and says when it has had a little and a lot of its time.
const BURN: &str = "import sys, time\nprint('ready', flush=True)\nsys.stdin.readline()\nfor used in 0.3, 3.6:\n  \
    while time.process_time() < used: pass\n  print(used, flush=True)\nwhile True: pass\n";

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    command
}

fn known_memory(test: &str, unified: bool, limit_file: &str, source: Source) -> Result<(), String> {
    const ALLOCATED: u64 = 200 << 20;
    const LIMIT: u64 = 400 << 20;
    let group = Group::make(&hierarchies(unified, &["memory"])?)?;
    group.write(limit_file, &LIMIT.to_string())?;
    let mut worker = Worker::start(&mut python(HOLD)).ok_or("there is no python3")?;
    group.take(worker.child.id());
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    let before = block_on(sampler.sample()).memory;
    assert_eq!((before.total_bytes.value(), before.source), (LIMIT, source), "{test}");
    worker.tell(&ALLOCATED.to_string()).expect("it is there");
    let after = block_on(sampler.sample()).memory;
    let grown = after.used_bytes.value() - before.used_bytes.value();
    assert!(grown.abs_diff(ALLOCATED) <= ALLOCATED / 50, "{test}: {grown} of {ALLOCATED}");
    println!("{test}: {ALLOCATED} bytes allocated, {grown} more used of {LIMIT}");
    // The limit is lowered while we look.
    group.write(limit_file, &(300_u64 << 20).to_string())?;
    assert_eq!(sampler.live().memory_total.value(), 300 << 20, "{test}");
    Ok(())
}

#[test]
fn known_memory_in_a_legacy_group() {
    let test = "known_memory_in_a_legacy_group";
    if let Err(reason) = known_memory(test, false, "memory.limit_in_bytes", Source::Cgroup1) {
        skip(test, &reason);
    }
}

#[test]
fn known_memory_in_a_unified_group() {
    let test = "known_memory_in_a_unified_group";
    if let Err(reason) = known_memory(test, true, "memory.max", Source::Cgroup2) {
        skip(test, &reason);
    }
}

fn saturated_quota(test: &str, unified: bool) -> Result<(), String> {
    const PERIODS: u64 = 50;
    let group = Group::make(&hierarchies(unified, if unified { &["cpu"] } else { &["cpu", "cpuacct"] })?)?;
    // Half a core, and the weight of a whole machine, so that what else runs here does not keep the group from its quota.
    if unified {
        group.write("cpu.max", "50000 100000")?;
        group.write("cpu.weight", "10000")?;
    } else {
        group.write("cpu.cfs_period_us", "100000")?;
        group.write("cpu.cfs_quota_us", "50000")?;
        group.write("cpu.shares", "262144")?;
    }
    let mut worker = Worker::start(&mut python(BURN)).ok_or("there is no python3")?;
    group.take(worker.child.id());
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    worker.tell("go").expect("it is there");
    block_on(sampler.sample());
    let first = group.read("cpu.stat", "nr_throttled");
    // The figure is exact to a period at each end, so there must be many between.
    worker.answer().expect("it is there");
    assert!(group.read("cpu.stat", "nr_throttled") >= first + PERIODS, "{test}: the quota was never the limit");
    let cpu = block_on(sampler.sample()).cpu;
    println!("{test}: {} % of half a core", cpu.usage_percent.value());
    assert!(cpu.usage_percent.value() >= 97.0, "{test}: {cpu:?}");
    assert_eq!((cpu.core_count, cpu.cores.map(|cores| cores.value())), (1, Some(0.5)), "{test}");
    Ok(())
}

#[test]
fn a_saturated_quota_in_a_legacy_group() {
    let test = "a_saturated_quota_in_a_legacy_group";
    if let Err(reason) = saturated_quota(test, false) {
        skip(test, &reason);
    }
}

#[test]
fn a_saturated_quota_in_a_unified_group() {
    let test = "a_saturated_quota_in_a_unified_group";
    if let Err(reason) = saturated_quota(test, true) {
        skip(test, &reason);
    }
}

/// Mounts what it is told, in a namespace of its own.
const MOUNT: &str =
    "echo ready; while read -r line; do if eval \"$line\" >/dev/null 2>&1; then echo done; else echo failed; fi; done";

fn mount_namespace() -> Option<Worker> {
    Worker::start(Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", MOUNT]))
}

#[test]
fn a_file_system_mounted_four_times_counts_once() {
    let test = "a_file_system_mounted_four_times_counts_once";
    let Some(mut worker) = mount_namespace() else {
        return skip(test, "no mount namespace can be made");
    };
    let scratch = Scratch::new();
    let place = scratch.0.display().to_string();
    let image = format!("cd '{place}' && mkdir a b c d && truncate -s 32M image && mkfs.ext4 -q -F image");
    if worker.tell(&image).as_deref() != Some("done") {
        return skip(test, "mkfs.ext4 does not work here");
    }
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    let before = block_on(sampler.sample()).disk;
    if worker.tell(&format!("cd '{place}' && mount -o loop image a")).as_deref() != Some("done") {
        return skip(test, "no loop device can be mounted");
    }
    let bind = "mount --bind a b && mount --bind a c && mkdir -p a/inner && mount --bind a/inner d && touch a/f g && mount --bind a/f g";
    assert_eq!(worker.tell(bind).as_deref(), Some("done"));
    // It is the next sample that has it: the kernel told us that the mounts changed.
    let after = block_on(sampler.sample()).disk;
    let ours: Vec<_> = after.iter().filter(|disk| disk.mount_point.starts_with(&place)).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(&*ours[0].mount_point, format!("{place}/a"));
    assert!((20 << 20..32 << 20).contains(&ours[0].total_bytes.value()), "{ours:?}");
    assert_eq!(after.len(), before.len() + 1, "{before:?} {after:?}");
    assert_eq!(worker.tell("umount g d c b a").as_deref(), Some("done"));
    assert_eq!(block_on(sampler.sample()).disk.len(), before.len());
}

#[test]
fn a_directory_bound_three_times_adds_nothing() {
    let test = "a_directory_bound_three_times_adds_nothing";
    let Some(mut worker) = mount_namespace() else {
        return skip(test, "no mount namespace can be made");
    };
    let scratch = Scratch::new();
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    let places = |metrics: Metrics| metrics.disk.iter().map(|disk| disk.mount_point.to_string()).collect::<Vec<_>>();
    let before = places(block_on(sampler.sample()));
    let bind = "mkdir a b c && mount --bind /usr a && mount --bind /usr b && mount --bind /usr c";
    assert_eq!(worker.tell(&format!("cd '{}' && {bind}", scratch.0.display())).as_deref(), Some("done"));
    assert_eq!(places(block_on(sampler.sample())), before);
    assert_eq!(worker.tell("umount a b c").as_deref(), Some("done"));
}

/// The lines of a tool's output, split into words; `None` when there is no such tool.
fn table(command: &str, arguments: &[&str]) -> Option<Vec<Vec<String>>> {
    let output = Command::new(command).args(arguments).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
}

/// Compares before, with and after, until nothing moved in between: what others do on the machine meanwhile is no fault.
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
            let cpu = block_on(sampler.sample()).cpu;
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
    let memory = block_on(sampler.sample()).memory;
    let Some(lines) = table("free", &["--bytes"]) else { return skip(test, "there is no free") };
    if memory.source != Source::Host {
        return skip(test, "we are in a container, and free shows its host");
    }
    let column = |row: usize, column: usize| lines[row][column].parse::<u64>().expect("it is a number");
    // total used free shared buff/cache available; of old versions used is another thing.
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
    let disks = block_on(sampler.sample()).disk;
    let root = disks.iter().find(|disk| &*disk.mount_point == "/").expect("there is a root");
    let number = |index: usize| theirs[index].parse::<u64>().expect("it is a number");
    assert_eq!((root.total_bytes.value(), &*root.fs_type), (number(0), theirs[5].as_str()));
    let moved = 64 << 20; // a build runs beside us
    close("used", root.used_bytes.value(), number(1), moved);
    close("free", root.free_bytes.value(), number(2), moved);
    if let (Some(total), Some(used)) = (root.inodes_total, root.inodes_used) {
        assert_eq!(total.value(), number(3));
        close("inodes", used.value(), number(4), 5000);
    }
}

/// Answers each line with what psutil says.
const PSUTIL: &str = "import json, sys, psutil\npsutil.cpu_times_percent()\nprint('ready', flush=True)\n\
    for line in sys.stdin:\n  c = psutil.cpu_times_percent()\n  m = psutil.virtual_memory()\n  d = psutil.disk_usage('/')\n  \
    n = psutil.net_io_counters(pernic=True)\n  \
    print(json.dumps(dict(busy=100 - c.idle - c.iowait - getattr(c, 'steal', 0), total=m.total, used=m.total - m.available, cores=psutil.cpu_count(), \
    disk_total=d.total, disk_used=d.used, nics={k: [v.bytes_sent, v.bytes_recv] for k, v in n.items()}, swap=psutil.swap_memory().total)), flush=True)\n";

#[test]
fn psutil_says_the_same() {
    let test = "psutil_says_the_same";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let Some(mut worker) = Worker::start(Command::new(python).args(["-c", PSUTIL]).stderr(Stdio::null())) else {
        return skip(test, "there is no psutil in target/venv");
    };
    let mut sampler = Sampler::new(Roots::default());
    let first = block_on(sampler.sample());
    if first.memory.source != Source::Host {
        return skip(test, "we are in a container, and psutil shows its host");
    }
    // Both measure over the same time, in which one processor does two seconds' work.
    worker.tell("begin").expect("it is there");
    block_on(sampler.sample());
    let start = Instant::now();
    let mut turns = 0_u64;
    while start.elapsed() < Duration::from_secs(2) {
        turns = std::hint::black_box(turns + 1);
    }
    let theirs: serde_json::Value =
        serde_json::from_str(&worker.tell("end").expect("it is there")).expect("psutil's answer is JSON");
    let ours = block_on(sampler.sample());
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
    // Where there is one card, it is the whole traffic; elsewhere psutil adds up what is one packet.
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
    let metrics = block_on(sampler.sample());
    let live = sampler.live();
    assert_eq!(live.memory_total, metrics.memory.total_bytes);
    let total: u64 = metrics.disk.iter().map(|disk| disk.total_bytes.value()).sum();
    assert_eq!(live.disk_total.value(), total);
    close("used", live.memory_used.value(), metrics.memory.used_bytes.value(), live.memory_total.value() / 50);
}
