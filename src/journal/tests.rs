//! What a file says after a death, after damage, and after compaction; and what stands in its place without harm.

use super::*;
use async_channel::Receiver;
use draupnir_fsm::driver::Kind;
use proptest::prelude::*;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;
use tempfile::TempDir;

const OWNER: Hash = 1;
const STRANGER: Hash = 2;

struct Rig {
    journal: Journal,
    found: Found,
    reports: Receiver<JournalReport>,
    append: u64,
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Opens the journal of this directory as a new process does. POSIX locks do not hold against the same process.
fn open(directory: &TempDir) -> Rig {
    let (sender, reports) = async_channel::bounded(64);
    let opening = Journal::reporting_to(Some(directory.path()), sender).expect("there is a directory");
    let (journal, found) = opening.wait(in_time());
    journal.begin([OWNER, OWNER]);
    Rig { journal, found: found.expect("the journal opens"), reports, append: 0 }
}

impl Rig {
    /// Writes these records in one turn; whether that worked.
    fn write_for(&mut self, owner: Hash, all: Vec<What>) -> bool {
        for what in all {
            self.append += 1;
            self.journal.append(self.append, Entry { owner, what }, true);
        }
        let report = self.journal.end_turn().or_else(|| self.reports.recv_blocking().ok()).expect("a report");
        assert_eq!(report.append, self.append);
        report.is_written
    }

    fn write(&mut self, all: Vec<What>) {
        assert!(self.write_for(OWNER, all));
    }

    fn left(&self) -> Vec<Left> {
        self.found.left.iter().filter(|(owner, _)| *owner == OWNER).map(|(_, left)| left.clone()).collect()
    }

    /// Waits until everything is done that was enqueued.
    fn settle(&self) {
        assert!(self.journal.kept.as_ref().expect("it is kept").writer.flush(in_time()));
    }
}

fn accepted(id: Hash) -> What {
    What::Accepted { id, text: format!("id {id}").into() }
}

fn result(number: u64, id: Hash, body: &str) -> What {
    What::Message { number, kind: Kind::Result, of: Some(id), exit_code: 3, body: body.into() }
}

fn waiting(number: u64, id: Hash, body: &str) -> Left {
    Left::Message { number, kind: Kind::Result, of: Some(id), body: body.into() }
}

fn interrupted(id: Hash) -> Left {
    Left::Command { id, text: format!("id {id}").into(), remains: SessionRemains::Doubtful }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join(FILE_NAME)
}

#[test]
fn death_keeps_results_ids_and_sessions() {
    let directory = directory();
    let mut rig = open(&directory);
    rig.write(vec![accepted(1), accepted(2), accepted(3), accepted(4)]);
    rig.write(vec![What::Opened { id: 5, text: "s".into() }, What::Opened { id: 6, text: "t".into() }]);
    rig.write(vec![result(7, 1, "one"), result(8, 2, "two"), What::Done { number: 8 }]);
    rig.write(vec![What::Withdrawn { id: 4 }, What::Unopened { id: 6 }]);
    rig.write(["first", "last"].map(|text| What::Position { text: text.into() }).to_vec());
    drop(rig);
    for _ in 0..3 {
        // Compacted or not, it says the same.
        let rig = open(&directory);
        let session = Left::Session { id: 5, text: "s".into() };
        let position = Left::Position { text: "last".into() };
        assert_eq!(rig.left(), [Left::Ended { id: 2 }, waiting(7, 1, "one"), interrupted(3), session, position]);
        assert_eq!(rig.found.numbers_up_to, 8);
        rig.settle();
    }
    assert_eq!(fs::metadata(file(&directory)).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn result_whose_id_came_again_is_kept_without_it() {
    let directory = directory();
    let mut rig = open(&directory);
    rig.write(vec![accepted(1), result(1, 1, "old"), accepted(1), result(2, 1, "new")]);
    rig.write(vec![accepted(2), result(3, 2, "old"), accepted(2), What::Done { number: 3 }]);
    drop(rig);
    for _ in 0..2 {
        // Compacted or not, it says the same: the first is no result of that id, and its end not that of the second.
        let rig = open(&directory);
        let old = Left::Message { number: 1, kind: Kind::Result, of: None, body: "old".into() };
        assert_eq!(rig.left(), [old, waiting(2, 1, "new"), interrupted(2)]);
        rig.settle();
    }
}

#[test]
fn acknowledged_output_is_gone_after_compaction() {
    let directory = directory();
    let mut rig = open(&directory);
    rig.write(vec![accepted(1), result(1, 1, "a secret that was printed"), What::Done { number: 1 }]);
    drop(rig);
    let holds = |text: &[u8]| memchr::memmem::find(&fs::read(file(&directory)).expect("there"), text).is_some();
    assert!(holds(b"a secret"));
    let rig = open(&directory);
    rig.settle();
    assert!(!holds(b"a secret") && !holds(b"id 1"), "the hash of its id and its exit code are left");
    assert_eq!(rig.left(), [Left::Ended { id: 1 }]);
}

#[test]
fn shorter_form_takes_the_place_of_the_message() {
    let directory = directory();
    let mut rig = open(&directory);
    rig.write(vec![accepted(1), result(1, 1, "long")]);
    rig.write(vec![What::Message { number: 1, kind: Kind::Result, of: None, exit_code: 0, body: "l".into() }]);
    drop(rig);
    for _ in 0..3 {
        // Also after a compaction, which a start brings.
        let rig = open(&directory);
        assert_eq!(rig.left(), [waiting(1, 1, "l")]);
        rig.settle();
    }
}

#[test]
fn file_stays_within_its_bounds() {
    let directory = directory();
    let mut rig = open(&directory);
    let body = "x".repeat(200_000);
    for number in 0..400 {
        let id = number.into();
        rig.write(vec![accepted(id), result(number, id, &body), What::Done { number }]);
        assert!(fs::metadata(file(&directory)).expect("there").len() <= FILE_BYTES_MAX);
    }
    rig.write(vec![accepted(1_000)]);
    drop(rig);
    let rig = open(&directory);
    rig.settle();
    assert_eq!(rig.left().len(), 401);
    assert!(fs::metadata(file(&directory)).expect("there").len() < 100_000, "ids and exit codes alone");
}

#[test]
fn records_of_another_owner_make_way_and_are_kept_until_then() {
    let directory = directory();
    let mut rig = open(&directory);
    let body = "x".repeat(700_000);
    assert!(rig.write_for(STRANGER, vec![accepted(1), result(1, 1, &body)]));
    rig.write(vec![accepted(1), result(2, 1, "ours")]);
    drop(rig);
    let mut rig = open(&directory);
    assert_eq!(rig.left(), [waiting(2, 1, "ours")]);
    assert_eq!(rig.found.left.len(), 2, "the stranger's is kept");
    for number in 3..14 {
        rig.write(vec![result(number, number.into(), &body)]);
    }
    drop(rig);
    let rig = open(&directory);
    rig.settle();
    drop(rig);
    let rig = open(&directory);
    assert_eq!((rig.left().len(), rig.found.left.len()), (12, 12), "the stranger's made way");
}

#[test]
fn torn_record_costs_itself_and_the_next_ones_are_read() {
    let directory = directory();
    let mut rig = open(&directory);
    rig.write(vec![accepted(1)]);
    rig.write(vec![result(2, 2, "torn by a death")]);
    drop(rig);
    let path = file(&directory);
    let length = fs::metadata(&path).expect("there").len();
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(length - 5)).expect("ours");
    let mut rig = open(&directory);
    assert_eq!(rig.left(), [interrupted(1)]);
    rig.write(vec![accepted(3)]);
    drop(rig);
    assert_eq!(open(&directory).left(), [interrupted(1), interrupted(3)]);
}

#[test]
fn damage_in_the_middle_costs_only_what_it_hits() {
    let directory = directory();
    let mut rig = open(&directory);
    for id in 1..=9 {
        rig.write(vec![accepted(id)]);
    }
    drop(rig);
    let path = file(&directory);
    let bytes = fs::read(&path).expect("there");
    let place = memchr::memmem::find(&bytes, b"id 5").expect("it is there") as u64;
    let damaged = fs::OpenOptions::new().write(true).open(&path).expect("ours");
    damaged.write_at(b"id 6", place).expect("ours");
    let left = open(&directory).left();
    assert_eq!(left.len(), 8);
    assert!(!left.contains(&interrupted(5)));
}

#[test]
fn what_is_no_journal_is_set_aside_and_a_new_one_begins() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let future = |path: &Path| {
        let mut head = frame::head(&Key::random());
        head[8] = 2;
        fs::write(path, head).expect("writable");
    };
    let long = |path: &Path| {
        let file = fs::File::create(path).expect("writable");
        file.set_len(1 << 30).expect("it is sparse");
    };
    let plants: [&dyn Fn(&Path); 7] = [
        &|path| fs::write(path, "{\"this\": \"is another's\"}").expect("writable"),
        &|path| fs::write(path, &frame::head(&Key::random())[..20]).expect("writable"),
        &|path| fs::create_dir(path).expect("writable"),
        &|path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("writable"),
        &|path| std::os::unix::fs::symlink("/etc/passwd", path).expect("writable"),
        &future,
        &long,
    ];
    for (place, plant) in plants.iter().enumerate() {
        let directory = directory();
        plant(&file(&directory));
        let mut rig = open(&directory);
        assert!(rig.left().is_empty());
        rig.write(vec![accepted(1)]);
        drop(rig);
        assert!(fs::symlink_metadata(directory.path().join("journal.unusable")).is_ok(), "{place}");
        assert_eq!(open(&directory).left(), [interrupted(1)], "{place}");
    }
}

#[test]
fn empty_file_becomes_a_journal() {
    let directory = directory();
    fs::write(file(&directory), "").expect("writable");
    open(&directory).write(vec![accepted(1)]);
    assert_eq!(open(&directory).left(), [interrupted(1)]);
    assert!(!directory.path().join("journal.unusable").exists());
}

#[test]
fn directory_that_cannot_be_written_leaves_no_journal() {
    let directory = directory();
    fs::write(directory.path().join("file"), "").expect("writable");
    let (sender, _reports) = async_channel::bounded(1);
    let opening = Journal::reporting_to(Some(&directory.path().join("file/state")), sender).expect("a directory");
    let (journal, found) = opening.wait(in_time());
    assert!(matches!(found, Err(Error::Unusable { .. })));
    assert!(journal.kept.is_none());
    assert!(matches!(Journal::reporting_to(None, async_channel::bounded(1).0), Err(Error::NoDirectory)));
}

#[test]
fn failed_write_is_reported_and_leaves_whole_records() {
    let directory = directory();
    let mut rig = open(&directory);
    rig.write(vec![accepted(1)]);
    // A descriptor that takes nothing stands for a full disk.
    let kept = rig.journal.kept.as_ref().expect("it is kept");
    let full = Arc::new(fs::OpenOptions::new().read(true).open(file(&directory)).expect("there"));
    let good = lock(&kept.file).swap(full);
    assert!(!rig.write_for(OWNER, vec![accepted(2)]));
    lock(&rig.journal.kept.as_ref().expect("it is kept").file).swap(good);
    rig.write(vec![accepted(3)]);
    drop(rig);
    assert_eq!(open(&directory).left(), [interrupted(1), interrupted(3)]);
}

#[test]
fn ids_are_hashed_under_the_key_of_the_file() {
    let directory = directory();
    let (one, other) = (open(&directory), open(&directory));
    assert_eq!(one.journal.key().id("c"), other.journal.key().id("c"));
    assert_ne!(one.journal.key().id("c"), Journal::absent().key().id("c"));
    let owner = |console: &str, given| one.journal.key().owner(console, "web", given);
    assert_ne!(owner("https://a", Some("x")), owner("https://a", None));
    assert_ne!(owner("https://a", Some("x")), owner("https://b", Some("x")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut anywhere, changed anywhere: it opens, and what it says is a part of what was written.
    #[test]
    fn damaged_file_opens_and_invents_nothing(cut in 0..2_000usize, at in 0..2_000usize, change: u8) {
        let directory = directory();
        let mut rig = open(&directory);
        for id in 1..=12 {
            rig.write(vec![accepted(id)]);
        }
        drop(rig);
        let path = file(&directory);
        let mut bytes = fs::read(&path).expect("there");
        bytes.truncate(bytes.len().saturating_sub(cut % 400));
        let place = at % bytes.len();
        bytes[place] ^= change;
        fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("ours");
        let all: Vec<Left> = (1..=12).map(interrupted).collect();
        let mut rig = open(&directory);
        prop_assert!(rig.left().iter().all(|left| all.contains(left)), "{:?}", rig.left());
        rig.write(vec![accepted(13)]);
        drop(rig);
        prop_assert!(open(&directory).left().contains(&interrupted(13)));
    }
}
