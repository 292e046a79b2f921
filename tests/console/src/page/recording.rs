//! Follows the recording that the agent writes, and publishes each change of the state chart.
//!
//! A line of a recording has what happened (`inputs`), the state after it and the next deadline, with the agent's own
//! clock in milliseconds. The file may come later, and may be replaced where the agent starts again.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use smol::Timer;

use super::hub::{Hub, Topic};
use super::now_ms;

/// How often the file is read. A wait is at least ten times as long, so the chart is seen to walk.
const POLL: Duration = Duration::from_millis(50);

/// How much is read at a time, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The longest line; a longer one is left out.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Most inputs of a line that are shown.
const INPUTS_SHOWN_MAX: usize = 4;

/// Follows the file for as long as the page is served.
pub(super) async fn follow(path: PathBuf, hub: Arc<Hub>) {
    let mut recording = Recording::default();
    loop {
        // An error: the file is not there yet, or was just replaced. The next turn tries again.
        let more = recording.read(&path, now_ms(), &mut |frame| hub.publish(Topic::States, frame));
        if !more.unwrap_or(false) {
            Timer::after(POLL).await;
        }
    }
}

/// The part of the file that was read.
#[derive(Debug, Default)]
struct Recording {
    file: Option<(File, u64)>,
    partial: Vec<u8>,
    state: String,
    next: Value,
    /// The wall clock at 0 ms of the agent's: the smallest that any line suggests, in milliseconds since 1970.
    epoch_ms: Option<u64>,
}

impl Recording {
    /// Reads a piece, and returns whether there may be more.
    fn read(&mut self, path: &Path, now_ms: u64, emit: &mut dyn FnMut(&Value)) -> io::Result<bool> {
        if self.file.is_none() {
            let file = File::open(path)?;
            let inode = file.metadata()?.ino();
            *self = Recording { file: Some((file, inode)), ..Recording::default() };
        }
        let Some((file, inode)) = &mut self.file else { return Ok(false) };
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = file.read(&mut chunk)?;
        if read == 0 && path.metadata()?.ino() != *inode {
            self.file = None;
            return Ok(true);
        }
        for piece in chunk.get(..read).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() <= LINE_BYTES_MAX {
                self.partial.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                self.take(&serde_json::from_slice(&line).unwrap_or_default(), now_ms, emit);
            }
        }
        Ok(read == CHUNK_BYTES)
    }

    fn take(&mut self, line: &Value, now_ms: u64, emit: &mut dyn FnMut(&Value)) {
        if let Some(why) = line["ended"].as_str() {
            emit(&json!({"type": "recording_ended", "why": why}));
        }
        let (Some(at_ms), Some(state)) = (line["at_ms"].as_u64(), line["state"].as_str()) else { return };
        let epoch_ms = now_ms.saturating_sub(at_ms);
        let epoch_ms = *self.epoch_ms.insert(self.epoch_ms.map_or(epoch_ms, |before| before.min(epoch_ms)));
        let changed = self.state != state;
        // While connected there is a deadline in every line; elsewhere it is the wait that a reader wants to see.
        if !changed && (state.starts_with("connected") || self.next == line["next"]) {
            return;
        }
        let inputs = line["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let because = inputs.get(..INPUTS_SHOWN_MAX).unwrap_or(inputs);
        emit(&json!({
            "type": "state", "from": self.state, "state": state, "because": because, "at_ms": at_ms,
            "wall_ms": epoch_ms + at_ms, "next": line["next"],
        }));
        state.clone_into(&mut self.state);
        self.next = line["next"].clone();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(recording: &mut Recording, path: &Path, now_ms: u64) -> Vec<Value> {
        let mut frames = Vec::new();
        while recording.read(path, now_ms, &mut |frame| frames.push(frame.clone())).expect("it can be read") {}
        frames
    }

    #[test]
    fn changes_of_the_state_come_once_and_lines_may_be_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recording.jsonl");
        let mut recording = Recording::default();
        assert!(recording.read(&path, 0, &mut |_| {}).is_err(), "not there yet");
        let mut file = File::create(&path).expect("a file");
        writeln!(file, r#"{{"scenario":3}}"#).expect("written");
        writeln!(file, r#"{{"at_ms":5,"inputs":["a"],"state":"connected.ready","next":10}}"#).expect("written");
        writeln!(file, r#"{{"at_ms":6,"inputs":["b"],"state":"connected.ready","next":11}}"#).expect("written");
        write!(file, r#"{{"at_ms":7,"inputs":["c"],"state":"connecting."#).expect("written");
        let frames = read(&mut recording, &path, 1005);
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!((&frames[0]["state"], &frames[0]["wall_ms"]), (&json!("connected.ready"), &json!(1005)));
        writeln!(file, r#"waiting","next":2000}}"#).expect("written");
        writeln!(file, r#"{{"at_ms":8,"state":"connecting.waiting","next":3000}}"#).expect("written");
        writeln!(file, r#"{{"ended":"recording stopped"}}"#).expect("written");
        let frames = read(&mut recording, &path, 2000);
        assert_eq!(frames.len(), 3, "{frames:?}");
        assert_eq!((&frames[0]["from"], &frames[0]["because"]), (&json!("connected.ready"), &json!(["c"])));
        assert_eq!((&frames[1]["next"], &frames[1]["wall_ms"]), (&json!(3000), &json!(1007)));
        assert_eq!(frames[2]["type"], "recording_ended");
    }

    #[test]
    fn replaced_file_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recording.jsonl");
        let line = r#"{"at_ms":5,"state":"registering.requesting"}"#;
        std::fs::write(&path, format!("{line}\n")).expect("written");
        let mut recording = Recording::default();
        assert_eq!(read(&mut recording, &path, 100).len(), 1);
        std::fs::rename(&path, folder.path().join("recording.jsonl.previous")).expect("renamed");
        std::fs::write(&path, format!("{line}\n")).expect("written");
        assert_eq!(read(&mut recording, &path, 200).len(), 1);
    }
}
