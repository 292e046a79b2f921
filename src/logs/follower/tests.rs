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
    /// The same as acknowledgements.
    marks: Vec<(Box<str>, Mark)>,
}

const PLENTY: Credit = Credit { lines: 10_000, bytes: 10 << 20 };

impl Stage {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(home.path().join(".sindri/logs")).expect("directories");
        let follower = Follower::new(Root::of_home(home.path()), Vec::new(), OPEN_FILES_MAX);
        Self { home, follower, now: Instant::now(), acked: Positions::new(), marks: Vec::new() }
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
        let Outcome { mut lines, begun, .. } = self.follower.work(orders, PLENTY, self.now);
        self.now += Duration::from_secs(1);
        let later = self.follower.work(polls(), PLENTY, self.now);
        lines.extend(later.lines);
        for (origin, mark) in begun.into_iter().chain(later.begun) {
            self.acked.insert(origin.path.clone(), mark.position);
        }
        let texts = lines.iter().map(|line| {
            self.acked.insert(line.origin.path.clone(), line.mark.position);
            self.marks.push((line.origin.path.clone(), line.mark.clone()));
            let value: serde_json::Value = serde_json::from_str(&line.text).expect("JSON");
            value["line"].as_str().expect("a text").to_owned()
        });
        texts.collect()
    }

    /// The console has everything that was read.
    fn acks(&mut self) -> Orders {
        Orders { acked: std::mem::take(&mut self.marks), ..Orders::default() }
    }

    /// The link is lost.
    fn stop(&mut self) {
        let mut nothing = Orders { select: Some((Selection::default(), Positions::new())), ..Orders::default() };
        nothing.restart();
        assert!(self.work(nothing).is_empty());
    }

    /// Writes a file again, in place.
    fn overwrite(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).expect("copied");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("removed");
    }

    /// As a process that died does.
    fn restart(&mut self) {
        self.follower = Follower::new(Root::of_home(self.home.path()), Vec::new(), OPEN_FILES_MAX);
    }
}

fn polls() -> Orders {
    Orders { polls: true, ..Orders::default() }
}

/// Whether these are the lines, with a report of a loss in place of each `LOST` and `UNKNOWN`.
#[track_caller]
fn assert_lines(found: &[String], expected: &[&str]) {
    let remarks = [(LOST, "lost at least "), (UNKNOWN, "may have lost lines: ")];
    let is_it = |(found, expected): (&String, &&str)| {
        let remark = remarks.iter().find(|(name, _)| expected.starts_with(name));
        remark.map_or(found == expected, |(name, begin)| found.starts_with(&expected.replace(name, begin)))
    };
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(is_it), "{found:?} is not {expected:?}");
}

const LOST: &str = "LOST ";
const UNKNOWN: &str = "UNKNOWN";

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
}

#[test]
fn rotations_that_are_not_kept_are_reported() {
    // The first of them has been removed, and is open; whether others were removed, too, is not known.
    let all = ["1 old", UNKNOWN, "1 new", "2 old", "2 new", "3 old", "3 new"];
    assert_lines(&rotate_between_looks(3, 2), &all);
    let last = ["1 old", UNKNOWN, "3 new", "4 old", "4 new", "5 old", "5 new"];
    assert_lines(&rotate_between_looks(5, 2), &last);
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
    assert_lines(&stage.work(stage.all()), &[UNKNOWN, "5"]);
}

#[test]
fn inode_that_is_used_again_is_another_file() {
    let mut stage = Stage::new();
    stage.append("app.log", "one\n");
    assert_eq!(stage.work(stage.all()), ["one"]);
    // The same inode and a longer file, but not the same beginning.
    fs::write(stage.path("app.log"), "other\nand more\n").expect("written");
    stage.restart();
    assert_lines(&stage.work(stage.all()), &[UNKNOWN, "other", "and more"]);
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
    assert!(stage.follower.work(polls(), credit, stage.now).has_more);
    fs::write(stage.path("app.log"), "").expect("truncated");
    stage.append("app.log", "5\n");
    assert_lines(&stage.work(Orders::default()), &["3", "LOST 2 bytes", "5"]);
}

#[test]
fn truncation_between_two_looks_is_reported() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n");
    assert_eq!(stage.work(stage.all()), ["1"]);
    stage.append("app.log", "2\n");
    stage.overwrite("app.log", "3\n");
    assert_lines(&stage.work(Orders::default()), &[UNKNOWN, "3"]);
}

#[test]
fn truncated_file_of_the_same_beginning_is_known() {
    let mut stage = Stage::new();
    let line = "x".repeat(HEAD_BYTES_MAX) + "\n";
    stage.append("app.log", &line.repeat(3));
    // There is credit for one line; the next one waits, and the third was seen.
    assert!(stage.follower.work(stage.all(), Credit { lines: 1, bytes: 1_000 }, stage.now).has_more);
    stage.overwrite("app.log", &line.repeat(2));
    let line = line.trim_end();
    assert_lines(&stage.work(Orders::default()), &[line, "LOST 257 bytes", line, line]);
}

#[test]
fn truncation_while_no_console_listens_is_counted() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n");
    assert_eq!(stage.work(stage.all()), ["1"]);
    let acked = stage.acked.clone();
    stage.append("app.log", "2\n3\n");
    assert_eq!(stage.work(Orders::default()), ["2", "3"]);
    // The console has not acknowledged two lines, and they are gone when it asks again.
    stage.acked = acked.clone();
    stage.stop();
    stage.overwrite("app.log", "4\n");
    assert_lines(&stage.work(stage.all()), &["LOST 4 bytes", "4"]);
    // The report was not acknowledged either.
    stage.acked = acked;
    stage.stop();
    assert_lines(&stage.work(stage.all()), &["LOST 4 bytes", "4"]);
    let acks = stage.acks();
    assert!(stage.work(acks).is_empty());
    stage.stop();
    assert!(stage.work(stage.all()).is_empty(), "once is enough");
}

#[test]
fn truncation_while_no_agent_runs_is_reported() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n2\n");
    assert_eq!(stage.work(stage.all()), ["1", "2"]);
    stage.append("app.log", "3\n");
    stage.overwrite("app.log", "4\n");
    stage.restart();
    assert_lines(&stage.work(stage.all()), &[UNKNOWN, "4"]);
    stage.restart();
    assert!(stage.work(stage.all()).is_empty());
    // The new one is long: one report says both.
    let line = "x".repeat(1_023) + "\n";
    stage.overwrite("app.log", &line.repeat(2_000));
    stage.restart();
    let found = stage.work(stage.all());
    assert!(found[0].starts_with("may have lost lines: ") && found[0].contains("; skipped 99"), "{}", found[0]);
    assert!(found[1].starts_with('x') && (1_020..=1_026).contains(&found.len()), "{} lines", found.len());
}

#[test]
fn copy_of_a_truncated_file_is_read_to_its_end() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n");
    assert_eq!(stage.work(stage.all()), ["1"]);
    let copy_and_truncate = |stage: &Stage, line: &str| {
        stage.append("app.log", line);
        if stage.path("app.log.1").exists() {
            stage.rename("app.log.1", "app.log.2");
        }
        stage.copy("app.log", "app.log.1");
        stage.overwrite("app.log", "");
    };
    copy_and_truncate(&stage, "2\n");
    stage.append("app.log", "3\n");
    assert_eq!(stage.work(Orders::default()), ["2", "3"]);
    // Twice, while no agent runs.
    copy_and_truncate(&stage, "4\n");
    copy_and_truncate(&stage, "5\n");
    stage.append("app.log", "6\n");
    let acked = stage.acked.clone();
    stage.restart();
    assert_eq!(stage.work(stage.all()), ["4", "5", "6"]);
    stage.acked = acked;
    stage.stop();
    assert_eq!(stage.work(stage.all()), ["4", "5", "6"], "again: the console does not have them");
    // Nothing was written in between, so that nothing is lost.
    copy_and_truncate(&stage, "");
    assert!(stage.work(Orders::default()).is_empty());
}

#[test]
fn removed_file_is_read_to_its_end() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n");
    assert_eq!(stage.work(stage.all()), ["1"]);
    let acks = stage.acks();
    assert!(stage.work(acks).is_empty());
    stage.append("app.log", "2\n");
    stage.remove("app.log");
    assert_eq!(stage.work(Orders::default()), ["2"]);
    // The console has all of it: one that comes in its place has lost nothing, now or for a later process.
    let acks = stage.acks();
    assert!(stage.work(acks).is_empty());
    stage.append("other.log", "3\n");
    assert_eq!(stage.work(Orders::default()), ["3"]);
    stage.append("app.log", "4\n");
    let acked = stage.acked.clone();
    assert_eq!(stage.work(Orders::default()), ["4"]);
    stage.acked = acked;
    stage.restart();
    assert_eq!(stage.work(stage.all()), ["4"]);
}

#[test]
fn removal_of_a_closed_file_is_reported() {
    let mut stage = Stage::new();
    stage.follower = Follower::new(Root::of_home(stage.home.path()), Vec::new(), 1);
    stage.append("a.log", "1\n");
    stage.append("b.log", "2\n");
    assert_eq!(stage.work(stage.all()), ["1", "2"]);
    // Renamed, it is found.
    stage.append("b.log", "3\n");
    stage.rename("b.log", "b.log.1");
    assert_eq!(stage.work(Orders::default()), ["3"]);
    stage.append("b.log", "4\n");
    assert_eq!(stage.work(Orders::default()), ["4"]);
    stage.append("a.log", "5\n");
    stage.remove("a.log");
    stage.append("b.log", "6\n");
    stage.remove("b.log");
    assert_lines(&stage.work(Orders::default()), &[UNKNOWN, UNKNOWN]);
    stage.append("a.log", "7\n");
    stage.append("b.log", "8\n");
    assert_eq!(stage.work(Orders::default()), ["7", "8"]);
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
fn rotated_file_that_is_emptied_unread_is_counted() {
    let mut stage = Stage::new();
    stage.append("app.log", "1\n2\n3\n");
    stage.append("other.log", "4\n");
    assert_eq!(stage.work(stage.all()), ["1", "2", "3", "4"]);
    stage.append("app.log", "5\n6\n7\n");
    stage.rename("app.log", "app.log.1");
    stage.append("app.log", "8\n");
    // There is credit for one line; the next one waits, and the third is in a file that an operator empties.
    assert!(stage.follower.work(polls(), Credit { lines: 1, bytes: 1_000 }, stage.now).has_more);
    stage.overwrite("app.log.1", "");
    assert_lines(&stage.work(Orders::default()), &["6", "LOST 2 bytes", "8"]);
}

/// Linux and macOS tell by different means.
#[test]
fn changes_are_noticed_without_polling() {
    let mut stage = Stage::new();
    // A line of its own is read at once where the next one follows.
    let work = |stage: &mut Stage, orders: Orders| {
        let mut outcome = stage.follower.work(orders, PLENTY, stage.now);
        let mut lines = std::mem::take(&mut outcome.lines);
        while outcome.has_more {
            outcome = stage.follower.work(Orders::default(), PLENTY, stage.now);
            lines.append(&mut outcome.lines);
        }
        assert!(!outcome.must_poll);
        lines.len()
    };
    fs::create_dir(stage.path("node")).expect("a directory");
    stage.append("app.log", "1\n2\n");
    let orders = stage.all();
    assert_eq!(work(&mut stage, orders), 1);
    assert_eq!(work(&mut stage, Orders::default()), 0);
    stage.append("app.log", "3\n");
    assert_eq!(work(&mut stage, Orders::default()), 1);
    stage.append("node/new.log", "1\n2\n");
    assert_eq!(work(&mut stage, Orders::default()), 1, "a new file");
    stage.append("node/new.log", "3\n");
    assert_eq!(work(&mut stage, Orders::default()), 1);
    stage.rename("app.log", "app.log.1");
    stage.append("app.log", "4\n5\n");
    assert_eq!(work(&mut stage, Orders::default()), 2, "the end of the old one, and the new one");
    stage.append("app.log", "6\n");
    assert_eq!(work(&mut stage, Orders::default()), 1);
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
