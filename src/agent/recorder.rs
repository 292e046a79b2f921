//! Writes a recording: a scenario that anyone can replay (`SINDRI_AGENT_RECORD`).
//!
//! Inputs and outputs hold no secret, no terminal byte and no command text, so neither does the file. It is bounded and
//! written off the loop's thread (`writer`). A fault ends the recording and never the agent.

use crate::own_file;
use crate::writer::{Answer, Writer};
use draupnir_fsm::driver::{Body, Driver, Schedule};
use draupnir_fsm::scenario::{End, Header, VERSION};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The longest recording, in bytes: days of ordinary life.
const RECORDING_BYTES_MAX: u64 = 64 << 20;

/// How much may wait for the file, in bytes: seconds of the busiest life.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// What the queue counts for a line besides its text, in bytes.
const LINE_OVERHEAD_BYTES: usize = 128;

/// Begins to record `driver`.
pub(super) fn begin<B: Body>(
    driver: &mut Driver<B>,
    path: &Path,
    seed: u64,
    config: Schedule,
    audited: bool,
) -> Opening {
    let about = format!("recorded by sindri-agent {}", env!("CARGO_PKG_VERSION"));
    let header = Header { scenario: VERSION, about, seed, config, audited };
    let (recording, opening) = Recording::begin(path, header.to_line());
    driver.record(Box::new(move |step| {
        if !recording.has_ended() {
            recording.write(step.to_line());
        }
    }));
    opening
}

/// A recording, as the loop knows it.
#[derive(Debug)]
pub(super) struct Recording {
    /// Locked on the writer's thread alone; none before it is open and once it has ended.
    file: Arc<Mutex<Option<RecordingFile>>>,
    has_ended: Arc<AtomicBool>,
    writer: Writer,
}

/// The opening of the file, which may take long.
#[derive(Debug)]
pub(super) struct Opening {
    path: PathBuf,
    answer: Answer<io::Result<()>>,
    has_ended: Arc<AtomicBool>,
}

impl Opening {
    /// Waits until the file is open. Where it cannot be, the log says why and the recording has ended.
    pub(super) fn wait(self, deadline: Instant) {
        if let Err(error) = self.answer.wait(deadline).flatten() {
            self.has_ended.store(true, Ordering::Relaxed);
            tracing::warn!(path = %self.path.display(), %error, "recording not started");
        }
    }
}

impl Recording {
    /// Begins to open the file, whose first line is `header`. What an earlier process left there is kept beside it.
    pub(super) fn begin(path: &Path, header: String) -> (Self, Opening) {
        let (file, has_ended) = (Arc::default(), Arc::default());
        let recording = Self { file, has_ended, writer: Writer::new("recording", QUEUE_BYTES_MAX) };
        let (file, path) = (Arc::clone(&recording.file), path.to_owned());
        let path_to_open = path.clone();
        let answer = recording.writer.ask(move || {
            let created = RecordingFile::create(&path_to_open, &header, RECORDING_BYTES_MAX)?;
            *file.lock().unwrap_or_else(PoisonError::into_inner) = Some(created);
            Ok(())
        });
        let has_ended = Arc::clone(&recording.has_ended);
        (recording, Opening { path, answer, has_ended })
    }

    /// Whether another line would not be written.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Enqueues a line. Where the queue is full the recording ends with a line that says so: one with a hole would not
    /// replay.
    pub(super) fn write(&self, line: String) {
        if self.has_ended() {
            return;
        }
        let (file, has_ended) = (Arc::clone(&self.file), Arc::clone(&self.has_ended));
        let enqueued = self.writer.push(line.len() + LINE_OVERHEAD_BYTES, move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let goes_on = file.as_mut().is_some_and(|file| file.write(&line));
            if !goes_on {
                *file = None;
                has_ended.store(true, Ordering::Relaxed);
            }
        });
        let Err(refused) = enqueued else { return };
        self.has_ended.store(true, Ordering::Relaxed);
        tracing::warn!(error = %refused, "recording stopped: queue full");
        let file = Arc::clone(&self.file);
        let last = End { ended: format!("recording stopped: {refused}") }.to_line();
        // Without a thread there is no last line either.
        let _ = self.writer.push_beyond_bound(move || {
            if let Some(mut file) = file.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = file.append(&last);
            }
        });
    }
}

/// The file, as the writer's thread knows it.
#[derive(Debug)]
struct RecordingFile {
    file: File,
    /// Whole lines so far.
    bytes: u64,
    bytes_max: u64,
}

impl RecordingFile {
    fn create(path: &Path, header: &str, bytes_max: u64) -> io::Result<Self> {
        let mut file = own_file::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.len() > 0 {
            // The process before may have ended in a panic, of which no other file says as much.
            fs::rename(path, previous(path))?;
            file = own_file::open(path)?;
        }
        let mut recording = Self { file, bytes: 0, bytes_max };
        recording.append(header)?;
        Ok(recording)
    }

    /// Writes a line; false where it was the last one.
    fn write(&mut self, line: &str) -> bool {
        let end = End { ended: format!("the recording is {} MiB long", RECORDING_BYTES_MAX >> 20) }.to_line();
        let is_full = self.bytes + (line.len() + end.len() + 2) as u64 > self.bytes_max;
        let written = self.append(if is_full { &end } else { line });
        if let Err(error) = &written {
            tracing::warn!(%error, "recording stopped: write failed");
        }
        !is_full && written.is_ok()
    }

    /// One write for each line, so that a crash leaves whole lines; what a full disk took of one is cut off again.
    fn append(&mut self, line: &str) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let written = self.file.write_all(&bytes);
        match &written {
            Ok(()) => self.bytes = self.bytes.saturating_add(bytes.len() as u64),
            // A device has no length to cut off.
            Err(_) => drop(self.file.set_len(self.bytes)),
        }
        written
    }
}

/// Where the recording of the process before is kept. What stands there is replaced, and a link is not followed.
fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".previous");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::scenario::{Step, parse};
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt as _;

    fn header() -> Header {
        Header { scenario: VERSION, about: "a test".into(), seed: 1, config: Schedule::default(), audited: false }
    }

    fn tick() -> String {
        Step { state: Some("connected.ready".into()), ..Step::default() }.to_line()
    }

    fn in_time() -> Instant {
        Instant::now() + std::time::Duration::from_secs(30)
    }

    #[test]
    fn full_recording_says_so_and_keeps_its_bound() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("life");
        let mut recording = RecordingFile::create(&path, &header().to_line(), 1_000).expect("a temporary file");
        while recording.write(&tick()) {}
        let text = fs::read_to_string(&path).expect("it was written");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert!(text.len() <= 1_000 && text.len() > 900, "{} bytes", text.len());
        assert!(parse(&text).expect("a scenario").end.is_some());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn previous_recording_is_kept_and_no_other() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, target) = (directory.path().join("life"), directory.path().join("target"));
        // A link that another user may have put there is not followed.
        fs::write(&target, "precious").expect("written");
        std::os::unix::fs::symlink(&target, previous(&path)).expect("a link");
        for lives in 0..3 {
            let about = format!("life {lives}");
            let header = Header { about, ..header() }.to_line();
            RecordingFile::create(&path, &header, 1_000).expect("a temporary file");
        }
        let about =
            |path: &Path| parse(&fs::read_to_string(path).expect("it is there")).expect("a scenario").header.about;
        assert_eq!((about(&path).as_str(), about(&previous(&path)).as_str()), ("life 2", "life 1"));
        assert_eq!(fs::read_to_string(&target).expect("it is there"), "precious");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 3);
        let mode = fs::metadata(previous(&path)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn full_disk_ends_the_recording() {
        let Ok(file) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let mut recording = RecordingFile { file, bytes: 0, bytes_max: u64::MAX };
        assert!(!recording.write(&tick()));
    }

    #[test]
    fn full_queue_ends_the_recording_with_a_last_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("life");
        let (recording, opening) = Recording::begin(&path, header().to_line());
        opening.wait(in_time());
        let file = Arc::clone(&recording.file);
        // Here the writer's thread waits, as it does in a write that does not return.
        let hung = file.lock().expect("no test panics with it");
        let mut lines = 0;
        while !recording.has_ended() {
            recording.write(tick());
            lines += 1;
        }
        drop(hung);
        assert!(recording.writer.flush(in_time()));
        let recorded = parse(&fs::read_to_string(&path).expect("it is there")).expect("a scenario");
        let end = recorded.end.expect("a last line");
        assert!(end.ended.starts_with("recording stopped: too much waits"), "{end:?}");
        assert_eq!(recorded.steps.len(), lines - 1, "all but the one that found no room");
    }
}
