//! Writes the life of the machine down, as a scenario that anyone can replay (`SINDRI_AGENT_RECORD`).
//!
//! Facts and orders hold no secret, no terminal byte and no command text, so neither does the file. It is bounded, and
//! whatever goes wrong with it ends the recording and never the agent.

use crate::own_file;
use draupnir_fsm::engine::Engine;
use draupnir_fsm::limits::Schedule;
use draupnir_fsm::scenario::{End, Header, Step, VERSION};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The longest recording, in bytes: days of ordinary life.
const RECORDING_BYTES_MAX: u64 = 64 << 20;

/// Begins to record `engine`, or says in the log why not.
pub(super) fn begin<M>(engine: &mut Engine<M>, path: &Path, seed: u64, config: Schedule) {
    let about = format!("recorded by sindri-agent {}", env!("CARGO_PKG_VERSION"));
    let header = Header { scenario: VERSION, about, seed, config };
    match Recording::create(path, &header, RECORDING_BYTES_MAX) {
        Ok(mut recording) => engine.record(Box::new(move |step| recording.write(step))),
        Err(error) => tracing::warn!(path = %path.display(), %error, "nothing is recorded"),
    }
}

struct Recording {
    /// None once it has ended.
    file: Option<File>,
    /// Whole lines so far.
    bytes: u64,
    bytes_max: u64,
}

impl Recording {
    fn create(path: &Path, header: &Header, bytes_max: u64) -> io::Result<Self> {
        let mut file = own_file::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.len() > 0 {
            // The life before may have ended in a panic, of which nobody else knows as much.
            fs::rename(path, previous(path))?;
            file = own_file::open(path)?;
        }
        let mut recording = Self { file: Some(file), bytes: 0, bytes_max };
        recording.append(&header.to_line())?;
        Ok(recording)
    }

    fn write(&mut self, step: &Step) {
        if self.file.is_none() {
            return;
        }
        let end = End { ended: format!("the recording is {} MiB long", RECORDING_BYTES_MAX >> 20) }.to_line();
        let line = step.to_line();
        let full = self.bytes + (line.len() + end.len() + 2) as u64 > self.bytes_max;
        let written = self.append(if full { &end } else { &line });
        if let Err(error) = &written {
            tracing::warn!(%error, "the recording ends here");
        }
        if full || written.is_err() {
            self.file = None;
        }
    }

    /// One write for each line, so that a crash leaves whole lines; what a full disk took of one is cut off again.
    fn append(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let written = file.write_all(&bytes);
        match &written {
            Ok(()) => self.bytes = self.bytes.saturating_add(bytes.len() as u64),
            // A device has no length to cut off.
            Err(_) => drop(file.set_len(self.bytes)),
        }
        written
    }
}

/// Where the recording of the life before is kept. What stands there is replaced, and a link is not followed.
fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".previous");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::fact::Fact;
    use draupnir_fsm::scenario::parse;
    use draupnir_fsm::time::Time;
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt as _;

    fn header() -> Header {
        Header { scenario: VERSION, about: "a test".into(), seed: 1, config: Schedule::default() }
    }

    fn tick() -> Step {
        Step { at_ms: Time::START, fact: Fact::Tick, orders: Vec::new(), state: None, next: None }
    }

    #[test]
    fn a_recording_that_is_full_says_so_and_stays_within_its_bound() {
        let path = std::env::temp_dir().join(format!("draupnir-recording-{}", std::process::id()));
        let mut recording = Recording::create(&path, &header(), 1_000).expect("a temporary file");
        for _ in 0..100 {
            recording.write(&tick());
        }
        let text = fs::read_to_string(&path).expect("it was written");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        fs::remove_file(&path).expect("it is ours");
        assert!(text.len() <= 1_000 && text.len() > 900, "{} bytes", text.len());
        assert!(parse(&text).expect("a scenario").end.is_some());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_recording_of_the_life_before_is_kept_and_no_other() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, target) = (directory.path().join("life"), directory.path().join("target"));
        // Of what somebody may have put there nothing is followed.
        fs::write(&target, "precious").expect("written");
        std::os::unix::fs::symlink(&target, previous(&path)).expect("a link");
        for lives in 0..3 {
            let about = format!("life {lives}");
            Recording::create(&path, &Header { about, ..header() }, 1_000).expect("a temporary file");
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
    fn a_disk_that_is_full_ends_the_recording_and_nothing_else() {
        let Ok(file) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let mut recording = Recording { file: Some(file), bytes: 0, bytes_max: u64::MAX };
        recording.write(&tick());
        assert!(recording.file.is_none());
        recording.write(&tick());
    }
}
