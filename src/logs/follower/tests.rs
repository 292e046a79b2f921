use super::*;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// A home with logs, and a follower of them.
struct Stage {
    home: tempfile::TempDir,
    follower: Follower,
    now: Instant,
    /// Up to where the console has each log.
    acked: Positions,
}

const PLENTY: Credit = Credit { lines: 10_000, bytes: 10 << 20 };

impl Stage {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(home.path().join(".sindri/logs")).expect("directories");
        let follower = Follower::new(Root::of_home(home.path()), Vec::new(), OPEN_FILES_MAX);
        Self { home, follower, now: Instant::now(), acked: Positions::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(".sindri/logs").join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).expect("a log file");
        file.write_all(text.as_bytes()).expect("there is room");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn all(&self) -> Orders {
        let mut selection = Selection::default();
        selection.add(&["*".to_owned()]);
        Orders { select: Some((selection, self.acked.clone())), ..Orders::default() }
    }

    /// Works, and a while later again, so that no record waits; what was read.
    fn work(&mut self, orders: Orders) -> Vec<String> {
        let mut lines = self.follower.work(orders, PLENTY, self.now).lines;
        self.now += Duration::from_secs(1);
        let later = Orders { polls: true, ..Orders::default() };
        lines.extend(self.follower.work(later, PLENTY, self.now).lines);
        let texts = lines.iter().map(|line| {
            self.acked.insert(line.origin.path.clone(), line.mark.position);
            let value: serde_json::Value = serde_json::from_str(&line.text).expect("JSON");
            value["line"].as_str().expect("a text").to_owned()
        });
        texts.collect()
    }

    /// As a process that died does.
    fn restart(&mut self) {
        self.follower = Follower::new(Root::of_home(self.home.path()), Vec::new(), OPEN_FILES_MAX);
    }
}

/// Renames the files of a log as logrotate does, and keeps so many.
fn rotate(stage: &Stage, kept: u32) {
    for number in (1..kept).rev().filter(|number| stage.path(&format!("app.log.{number}")).exists()) {
        stage.rename(&format!("app.log.{number}"), &format!("app.log.{}", number + 1));
    }
    stage.rename("app.log", "app.log.1");
}

/// Rotates so often between two looks; what is read then.
fn rotate_between_looks(rotations: u32, kept: u32) -> Vec<String> {
    let mut stage = Stage::new();
    stage.append("app.log", "0\n");
    assert_eq!(stage.work(stage.all()), ["0"]);
    for number in 1..=rotations {
        stage.append("app.log", &format!("{number} old\n"));
        rotate(&stage, kept);
        stage.append("app.log", &format!("{number} new\n"));
    }
    stage.work(Orders::default())
}

#[test]
fn renamed_files_are_read_in_their_order() {
    let all = ["1 old", "1 new", "2 old", "2 new", "3 old", "3 new"];
    assert_eq!(rotate_between_looks(3, 9), all);
    // The first of them has been removed, and is open.
    assert_eq!(rotate_between_looks(3, 2), all);
}

#[test]
fn restart_finds_renamed_files_by_their_inode() {
    let mut stage = Stage::new();
    stage.append("app.log", "0\n");
    stage.append("app-error.log", "other\n");
    assert_eq!(stage.work(stage.all()), ["other", "0"]);
    stage.append("app.log", "1\n");
    rotate(&stage, 9);
    stage.append("app.log", "2\n");
    rotate(&stage, 9);
    stage.append("app.log", "3\n");
    stage.restart();
    assert_eq!(stage.work(stage.all()), ["1", "2", "3"]);
    // What was compressed since is lost; the new file is read from its start.
    stage.append("app.log", "4\n");
    rotate(&stage, 9);
    stage.rename("app.log.1", "app.log.1.gz");
    stage.append("app.log", "5\n");
    stage.restart();
    assert_eq!(stage.work(stage.all()), ["5"]);
}

#[test]
fn inode_that_is_used_again_is_another_file() {
    let mut stage = Stage::new();
    stage.append("app.log", "one\n");
    assert_eq!(stage.work(stage.all()), ["one"]);
    // The same inode and a longer file, but not the same beginning.
    fs::write(stage.path("app.log"), "other\nand more\n").expect("written");
    stage.restart();
    assert_eq!(stage.work(stage.all()), ["other", "and more"]);
}

#[test]
fn unacknowledged_lines_are_read_again_after_a_stop() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n2\n");
    let at_start = stage.all();
    assert_eq!(stage.work(at_start), ["1", "2"]);
    let acked = stage.acked.clone();
    stage.append("app.log", "3\n");
    rotate(&stage, 9);
    stage.append("app.log", "4\n");
    assert_eq!(stage.work(Orders::default()), ["3", "4"]);
    // The link is lost, the old file removed: it is still open.
    fs::remove_file(stage.path("app.log.1")).expect("removed");
    stage.acked = acked;
    stage.append("app.log", "5\n");
    let mut again = stage.all();
    again.restart();
    assert_eq!(stage.work(again), ["3", "4", "5"]);
    // A stop that the follower never saw, because the next request came first.
    let mut again = stage.all();
    again.restart();
    stage.append("app.log", "6\n");
    assert_eq!(stage.work(again), ["6"]);
}

#[test]
fn lines_that_were_truncated_away_are_counted() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n");
    assert_eq!(stage.work(stage.all()), ["1"]);
    stage.append("app.log", "2\n3\n4\n");
    // There is credit for one line alone, and the next one waits; the rest is seen and not read.
    let credit = Credit { lines: 1, bytes: 1_000 };
    let polls = || Orders { polls: true, ..Orders::default() };
    assert!(stage.follower.work(polls(), credit, stage.now).has_more);
    fs::write(stage.path("app.log"), "").expect("truncated");
    stage.append("app.log", "5\n");
    let found = stage.work(Orders::default());
    assert_eq!((found.len(), &found[0], &found[2]), (3, &"3".to_owned(), &"5".to_owned()), "{found:?}");
    assert!(found[1].starts_with("lost at least 2 bytes"), "{found:?}");
}

#[test]
fn credit_bounds_what_is_read_and_logs_take_turns() {
    let mut stage = Stage::new();
    let many: String = (0..100).map(|number| format!("{number}\n")).collect();
    stage.append("a.log", &many);
    stage.append("b.log", &many);
    let credit = Credit { lines: 10, bytes: 10_000 };
    let mut paths = Vec::new();
    let mut orders = stage.all();
    for _ in 0..4 {
        let outcome = stage.follower.work(std::mem::take(&mut orders), credit, stage.now);
        assert!(outcome.lines.len() <= 11 && outcome.has_more, "{} lines", outcome.lines.len());
        paths.extend(outcome.lines.first().map(|line| line.origin.path.to_string()));
    }
    assert_eq!(paths, ["a.log", "b.log", "a.log", "b.log"]);
}

#[test]
fn files_that_no_console_wants_are_not_read() {
    let mut stage = Stage::new();
    stage.append("a.log", "1\n");
    stage.append("b.log", "1\n");
    let mut selection = Selection::default();
    selection.add(&["b.log".to_owned()]);
    let orders = Orders { select: Some((selection, Positions::new())), ..Orders::default() };
    assert_eq!(stage.work(orders), ["1"]);
    assert_eq!(stage.acked.keys().map(|path| &**path).collect::<Vec<_>>(), ["b.log"]);
    let nothing = Orders { select: Some((Selection::default(), Positions::new())), ..Orders::default() };
    stage.append("b.log", "2\n");
    assert!(stage.work(nothing).is_empty() && !stage.follower.watch().is_on());
    assert_eq!(stage.work(stage.all()), ["1", "2"]);
}
