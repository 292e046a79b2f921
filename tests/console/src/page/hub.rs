//! What all open pages share: the frames that a page gets at its beginning, and the queue of each page.
//!
//! A frame is one JSON text. A page that reads too slowly loses output and gets it again when it has caught up (see
//! [`Outbox::has_caught_up`]); a page for which anything else does not fit is dropped, and connects again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Receiver, Sender};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::now_ms;

/// Most pages at a time.
const PAGES_MAX: usize = 8;

/// Most bytes of output that wait for one page: what a browser reads in about a second.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// Most bytes of any kind that wait for one page: all histories and as much output as may wait.
const QUEUE_BYTES_MAX: usize = 12 << 20;

/// Bytes of one command's output that a page gets after a reload.
const COMMAND_BYTES_MAX: usize = 128 << 10;

/// Most commands that a page gets after a reload.
const COMMANDS_MAX: usize = 10;

/// A history of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Metrics: at 2 KB a second, eight minutes.
    Metrics,
    /// What happened on the console's side.
    Events,
    /// Transitions of the state chart.
    States,
    /// Log lines.
    Logs,
}

impl Topic {
    /// How many bytes of it are kept.
    fn bytes_max(self) -> usize {
        match self {
            Topic::Metrics | Topic::Logs => 1 << 20,
            Topic::Events => 256 << 10,
            Topic::States => 128 << 10,
        }
    }
}

/// The newest frames within a bound in bytes.
#[derive(Debug, Default)]
struct Ring {
    frames: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, frame: Arc<str>, bytes_max: usize) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.bytes > bytes_max {
            let Some(oldest) = self.frames.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }
}

/// The frames of one command.
#[derive(Debug)]
struct CommandFrames {
    id: String,
    begin: Arc<str>,
    output: Ring,
    result: Option<Arc<str>>,
}

impl CommandFrames {
    fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.begin).chain(&self.output.frames).chain(&self.result)
    }
}

/// The shared state.
#[derive(Debug)]
pub(super) struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pages: BTreeMap<u64, Outbox>,
    last_page: u64,
    /// Frames of which only the newest counts, by name.
    newest: BTreeMap<&'static str, Arc<str>>,
    histories: BTreeMap<Topic, Ring>,
    commands: VecDeque<CommandFrames>,
}

/// The queue of one page.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub(super) page: u64,
    sender: Sender<Arc<str>>,
    queued_bytes: Arc<AtomicUsize>,
    lost_output: Arc<AtomicBool>,
}

impl Outbox {
    fn push(&self, frame: &Arc<str>, bytes_max: usize) -> bool {
        let queued = self.queued_bytes.fetch_add(frame.len(), Ordering::Relaxed);
        if queued + frame.len() > bytes_max {
            self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
            return false;
        }
        self.sender.try_send(frame.clone()).is_ok()
    }

    /// Records that a frame was written. True once after output was lost: everything that was queued is written now,
    /// and the page is to get its terminals and commands again.
    pub(super) fn has_caught_up(&self, frame: &str) -> bool {
        let queued = self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        queued == frame.len() && self.lost_output.swap(false, Ordering::Relaxed)
    }
}

impl Hub {
    pub(super) fn new() -> Hub {
        Hub { inner: Mutex::default() }
    }

    /// Whether another page may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.lock().pages.len() < PAGES_MAX
    }

    /// Opens the queue of another page. It begins with the histories.
    pub(super) fn enter(&self) -> (Outbox, Receiver<Arc<str>>) {
        let mut inner = self.lock();
        let (sender, frames) = async_channel::unbounded(); // bounded by `queued_bytes`
        inner.last_page += 1;
        let page = inner.last_page;
        let outbox = Outbox { page, sender, queued_bytes: Arc::default(), lost_output: Arc::default() };
        let histories = inner.histories.values().flat_map(|ring| &ring.frames);
        let commands = inner.commands.iter().flat_map(CommandFrames::all);
        for frame in inner.newest.values().chain(histories).chain(commands) {
            outbox.push(frame, QUEUE_BYTES_MAX);
        }
        outbox.push(&text(&json!({"type": "live"})), QUEUE_BYTES_MAX);
        inner.pages.insert(page, outbox.clone());
        (outbox, frames)
    }

    /// Closes the queue of a page.
    pub(super) fn leave(&self, page: u64) {
        self.lock().pages.remove(&page);
    }

    /// Sends a frame to all pages, and keeps it in a history.
    pub(super) fn publish(&self, topic: Topic, frame: &Value) {
        let frame = text(frame);
        let mut inner = self.lock();
        inner.histories.entry(topic).or_default().push(frame.clone(), topic.bytes_max());
        inner.send(&frame);
    }

    /// Sends a remark of the page's own, which stands among the events.
    pub(super) fn note(&self, text: &str) {
        self.publish(
            Topic::Events,
            &json!({"type": "event", "what": "note", "wall_ms": now_ms(), "fields": {"text": text}}),
        );
    }

    /// Sends a frame to all pages, and keeps it in place of the last one of this name.
    pub(super) fn publish_newest(&self, name: &'static str, frame: &Value) {
        let frame = text(frame);
        let mut inner = self.lock();
        inner.newest.insert(name, frame.clone());
        inner.send(&frame);
    }

    /// A command begins. Returns the ids of those that are no longer kept.
    pub(super) fn begin_command(&self, id: &str, line: &str) -> Vec<String> {
        let begin = text(&json!({"type": "command", "id": id, "line": line}));
        let mut inner = self.lock();
        inner.send(&begin);
        inner.commands.push_back(CommandFrames { id: id.to_owned(), begin, output: Ring::default(), result: None });
        let surplus = inner.commands.len().saturating_sub(COMMANDS_MAX);
        inner.commands.drain(..surplus).map(|command| command.id).collect()
    }

    /// Sends output of a terminal, or of a command (its id and stream). The console calls this with its own lock held.
    pub(super) fn output(&self, id: &str, stream: Option<&str>, bytes: &[u8]) {
        let data = BASE64.encode(bytes);
        let frame = text(&json!({"type": "output", "id": id, "stream": stream, "data": data}));
        let mut inner = self.lock();
        for outbox in inner.pages.values() {
            if outbox.lost_output.load(Ordering::Relaxed) || !outbox.push(&frame, OUTPUT_BYTES_MAX) {
                outbox.lost_output.store(true, Ordering::Relaxed);
            }
        }
        if let Some(command) = inner.commands.iter_mut().find(|command| command.id == id) {
            command.output.push(frame, COMMAND_BYTES_MAX);
        }
    }

    /// A command has ended. Its own copy of the output is left out where the output was streamed.
    pub(super) fn end_command(&self, id: &str, payload: &Value) {
        let mut inner = self.lock();
        let Some(command) = inner.commands.iter_mut().find(|command| command.id == id) else { return };
        let mut payload = payload.clone();
        for stream in ["stdout", "stderr"] {
            let all = payload[stream].as_str().unwrap_or_default();
            let kept = if command.output.frames.is_empty() { end_of(all, COMMAND_BYTES_MAX) } else { "" };
            payload[stream] = kept.into();
        }
        let frame = text(&json!({"type": "result", "id": id, "payload": payload}));
        command.result = Some(frame.clone());
        inner.send(&frame);
    }

    /// Sends the kept output of all commands again to a page that lost some.
    pub(super) fn repeat_commands(&self, page: u64) {
        let inner = self.lock();
        let Some(outbox) = inner.pages.get(&page) else { return };
        for frame in inner.commands.iter().flat_map(CommandFrames::all) {
            outbox.push(frame, QUEUE_BYTES_MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Sends a frame that must not be lost: a page whose queue is full loses its queue, and with it its connection.
    fn send(&mut self, frame: &Arc<str>) {
        self.pages.retain(|_, outbox| {
            let fits = outbox.push(frame, QUEUE_BYTES_MAX);
            if !fits {
                outbox.sender.close();
            }
            fits
        });
    }
}

fn text(frame: &Value) -> Arc<str> {
    frame.to_string().into()
}

/// The end of a text, at most so many bytes, from the beginning of a character.
fn end_of(text: &str, bytes_max: usize) -> &str {
    let from = (text.len().saturating_sub(bytes_max)..=text.len()).find(|from| text.is_char_boundary(*from));
    from.and_then(|from| text.get(from..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(frames: &Receiver<Arc<str>>) -> Vec<Value> {
        std::iter::from_fn(|| frames.try_recv().ok()).map(|frame| serde_json::from_str(&frame).expect("JSON")).collect()
    }

    #[test]
    fn histories_keep_the_newest_within_their_bytes() {
        let hub = Hub::new();
        for n in 0..100_000 {
            hub.publish(Topic::States, &json!({"type": "state", "n": n}));
        }
        hub.publish_newest("buttons", &json!({"type": "buttons", "n": 1}));
        hub.publish_newest("buttons", &json!({"type": "buttons", "n": 2}));
        let (_, frames) = hub.enter();
        let frames = queued(&frames);
        assert_eq!(frames.first(), Some(&json!({"type": "buttons", "n": 2})));
        assert_eq!(frames.last(), Some(&json!({"type": "live"})));
        assert_eq!(frames.get(frames.len() - 2), Some(&json!({"type": "state", "n": 99_999})));
        let bytes: usize = frames.iter().map(|frame| frame.to_string().len()).sum();
        assert!(bytes <= (128 << 10) + 100, "{bytes}");
    }

    #[test]
    fn slow_page_loses_output_and_gets_it_again() {
        let hub = Hub::new();
        let (outbox, frames) = hub.enter();
        hub.begin_command("c", "yes");
        for _ in 0..100 {
            hub.output("c", Some("stdout"), &[b'y'; 64 << 10]);
        }
        hub.publish(Topic::Events, &json!({"type": "event"}));
        let mut caught_up = 0;
        let mut written = Vec::new();
        while let Ok(frame) = frames.try_recv() {
            caught_up += usize::from(outbox.has_caught_up(&frame));
            written.push(frame);
        }
        assert_eq!(caught_up, 1);
        let bytes: usize = written.iter().map(|frame| frame.len()).sum();
        assert!((OUTPUT_BYTES_MAX / 2..OUTPUT_BYTES_MAX + 100).contains(&bytes), "{bytes}");
        assert!(written.last().is_some_and(|frame| frame.contains("event")), "what is not output still comes");
        hub.repeat_commands(outbox.page);
        assert_eq!(queued(&frames).first(), Some(&json!({"type": "command", "id": "c", "line": "yes"})));
    }

    #[test]
    fn page_that_reads_nothing_is_dropped() {
        let hub = Hub::new();
        let (_, frames) = hub.enter();
        for _ in 0..13 {
            hub.publish(Topic::Logs, &json!({"lines": "x".repeat(1 << 20)}));
        }
        assert!(frames.is_closed());
        assert_eq!(hub.lock().pages.len(), 0);
    }

    #[test]
    fn result_has_output_only_where_none_was_streamed() {
        let hub = Hub::new();
        let (_, frames) = hub.enter();
        for id in ["a", "b"] {
            hub.begin_command(id, "true");
        }
        hub.output("a", Some("stdout"), b"out");
        hub.end_command("a", &json!({"stdout": "out", "exit_code": 0}));
        hub.end_command("b", &json!({"stdout": "out", "exit_code": 1}));
        let results: Vec<Value> = queued(&frames).into_iter().filter(|frame| frame["type"] == "result").collect();
        assert_eq!(results[0]["payload"], json!({"stdout": "", "exit_code": 0, "stderr": ""}));
        assert_eq!(results[1]["payload"], json!({"stdout": "out", "exit_code": 1, "stderr": ""}));
    }
}
