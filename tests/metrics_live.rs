//! The figures against the real kernel: groups with limits and a known load, and file systems mounted several times.
//!
//! The test measures another process from outside: the sampler's roots show this machine with that process in place of
//! the test's own. So no test must move itself into a group or a namespace.
#![cfg(target_os = "linux")]

mod metrics_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use draupnir::metrics::{Roots, Sampler, Space};
use draupnir::protocol::metrics::{Metrics, Source};
use metrics_support::{Worker, skip};

fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("draupnir-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that the test removes at its end.
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

/// This machine, with another process in place of the test's own.
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

/// A control group that the test removes at its end.
struct Group {
    places: Vec<PathBuf>,
}

impl Group {
    /// Creates a group in each of these hierarchies, or returns why this machine does not allow it.
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
                std::thread::yield_now(); // the last process is still exiting
            }
        }
    }
}

/// The directories of these controllers: legacy hierarchies by their names, or the unified one if it has them.
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

/// For each line of standard input, allocates and fills that number of bytes.
const HOLD: &str = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin:\n  held = b'x' * int(line)\n  print('held', flush=True)\n";

/// Uses one processor without end after a line of input, and prints when it has used 0.3 s and 3.6 s of its time.
const BURN: &str = "import sys, time\nprint('ready', flush=True)\nsys.stdin.readline()\nfor used in 0.3, 3.6:\n  \
    while time.process_time() < used: pass\n  print(used, flush=True)\nwhile True: pass\n";

/// Uses one processor for at most a quarter of the time, and answers each time when it has used another half second.
const DAWDLE: &str = "import sys, time\nprint('ready', flush=True)\nfor line in sys.stdin:\n  for turn in range(50):\n    \
    end = time.process_time() + 0.01\n    while time.process_time() < end: pass\n    time.sleep(0.03)\n  \
    print('done', flush=True)\n";

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
    let before = sampler.sample().memory;
    assert_eq!((before.total_bytes.value(), before.source), (LIMIT, source), "{test}");
    worker.ask(&ALLOCATED.to_string()).expect("it is there");
    let after = sampler.sample().memory;
    let grown = after.used_bytes.value() - before.used_bytes.value();
    assert!(grown.abs_diff(ALLOCATED) <= ALLOCATED / 50, "{test}: {grown} of {ALLOCATED}");
    println!("{test}: {ALLOCATED} bytes allocated, {grown} more used of {LIMIT}");
    // Lowers the limit between two samples.
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

/// A group with a quota of half a core and the largest weight, so that other programs do not keep it from its quota.
fn half_a_core(unified: bool) -> Result<Group, String> {
    let group = Group::make(&hierarchies(unified, if unified { &["cpu"] } else { &["cpu", "cpuacct"] })?)?;
    if unified {
        group.write("cpu.max", "50000 100000")?;
        group.write("cpu.weight", "10000")?;
    } else {
        group.write("cpu.cfs_period_us", "100000")?;
        group.write("cpu.cfs_quota_us", "50000")?;
        group.write("cpu.shares", "262144")?;
    }
    Ok(group)
}

fn saturated_quota(test: &str, unified: bool) -> Result<(), String> {
    const PERIODS: u64 = 50;
    let group = half_a_core(unified)?;
    let mut worker = Worker::start(&mut python(BURN)).ok_or("there is no python3")?;
    group.take(worker.child.id());
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    worker.ask("go").expect("it is there");
    sampler.sample();
    let first = group.read("cpu.stat", "nr_throttled");
    // The figure is exact to one quota period at each end, so the window must have many periods.
    worker.answer().expect("it is there");
    assert!(group.read("cpu.stat", "nr_throttled") >= first + PERIODS, "{test}: the quota was never the limit");
    let cpu = sampler.sample().cpu;
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

/// Readings of the group's own account and of a clock before and after an action.
struct Around {
    before: (Instant, u64),
    after: (Instant, u64),
}

impl Around {
    fn make(group: &Group, unified: bool, act: impl FnOnce()) -> Self {
        let used_ns = || match unified {
            true => group.read("cpu.stat", "usage_usec") * 1000,
            false => group.read("cpuacct.usage", ""),
        };
        let before = (Instant::now(), used_ns());
        act();
        let used_ns = used_ns();
        Self { before, after: (Instant::now(), used_ns) }
    }
}

/// The bounds, in percent, of a figure from one reading within `first` and one within `last`.
#[allow(clippy::cast_precision_loss)] // seconds in nanoseconds
fn bounds(first: &Around, last: &Around) -> (f64, f64) {
    let share = |used_ns: u64, span: Duration| used_ns as f64 / (span.as_secs_f64() * 1e9 * 0.5) * 100.0;
    let least = share(last.before.1 - first.after.1, last.after.0 - first.before.0);
    let most = share(last.after.1 - first.before.1, last.before.0 - first.after.0);
    (least, most)
}

/// The figure is what the group used by its own account, neither less nor more. A group that uses up its quota would
/// not show the "more", because the figure ends at 100.
fn half_used_quota(test: &str, unified: bool) -> Result<(), String> {
    /// How far apart the bounds may be, in percentage points. They are wider if the test itself had to wait for a
    /// processor; then it measures again.
    const WIDTH_MAX: f64 = 3.0;
    const TRIES: usize = 20;
    let group = half_a_core(unified)?;
    let mut worker = Worker::start(&mut python(DAWDLE)).ok_or("there is no python3")?;
    group.take(worker.child.id());
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    worker.ask("go").expect("it is there");
    let mut first = Around::make(&group, unified, || drop(sampler.sample()));
    for _ in 0..TRIES {
        worker.ask("go on").expect("it is there");
        let mut measured = 0.0;
        let last = Around::make(&group, unified, || measured = sampler.sample().cpu.usage_percent.value());
        let (least, most) = bounds(&first, &last);
        println!("{test}: {measured} % of half a core, by its account between {least:.2} and {most:.2}");
        // The figure has two digits.
        assert!(least - 0.01 <= measured && measured <= most + 0.01, "{test}: not {measured}");
        if most - least <= WIDTH_MAX && most < 100.0 && least > 0.0 {
            return Ok(());
        }
        first = last;
    }
    panic!("{test}: the bounds were never close enough to say anything");
}

#[test]
fn a_half_used_quota_in_a_legacy_group() {
    let test = "a_half_used_quota_in_a_legacy_group";
    if let Err(reason) = half_used_quota(test, false) {
        skip(test, &reason);
    }
}

#[test]
fn a_half_used_quota_in_a_unified_group() {
    let test = "a_half_used_quota_in_a_unified_group";
    if let Err(reason) = half_used_quota(test, true) {
        skip(test, &reason);
    }
}

/// Runs each line of standard input as a shell command in its own mount namespace.
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
    if worker.ask(&image).as_deref() != Some("done") {
        return skip(test, "mkfs.ext4 does not work here");
    }
    let seen = Seen::new(worker.child.id());
    let mut sampler = seen.sampler();
    let before = sampler.sample().disk;
    if worker.ask(&format!("cd '{place}' && mount -o loop image a")).as_deref() != Some("done") {
        return skip(test, "no loop device can be mounted");
    }
    let bind = "mount --bind a b && mount --bind a c && mkdir -p a/inner && mount --bind a/inner d && touch a/f g && mount --bind a/f g";
    assert_eq!(worker.ask(bind).as_deref(), Some("done"));
    // The next sample has the change, because the kernel reports that the mounts changed.
    let after = sampler.sample().disk;
    let ours: Vec<_> = after.iter().filter(|disk| disk.mount_point.starts_with(&place)).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(&*ours[0].mount_point, format!("{place}/a"));
    assert!((20 << 20..32 << 20).contains(&ours[0].total_bytes.value()), "{ours:?}");
    assert_eq!(after.len(), before.len() + 1, "{before:?} {after:?}");
    assert_eq!(worker.ask("umount g d c b a").as_deref(), Some("done"));
    assert_eq!(sampler.sample().disk.len(), before.len());
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
    let before = places(sampler.sample());
    let bind = "mkdir a b c && mount --bind /usr a && mount --bind /usr b && mount --bind /usr c";
    assert_eq!(worker.ask(&format!("cd '{}' && {bind}", scratch.0.display())).as_deref(), Some("done"));
    assert_eq!(places(sampler.sample()), before);
    assert_eq!(worker.ask("umount a b c").as_deref(), Some("done"));
}
