//! Looks for the key in everything that an agent printed, recorded, stored or audited, and records how much that was.
//!
//! Requests to the console are not searched, because their header has the key. It looks for the key in every usual
//! encoding, and for its first half, because a part of a key is a leak, too. If `DRAUPNIR_TRACES` names a file, each
//! agent adds a line to it. `tests/scripts/traces.py` reads the lines at the end of a run, so that a scan of nothing
//! cannot pass. Counts are in bytes.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};

/// How many levels of folders below a home are searched; an agent creates one.
const DEPTH_MAX: usize = 8;

/// The longest file that is read (64 MiB): a recording is not longer.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The shortest half of a key that is searched for: a shorter one occurs in ordinary text.
const HALF_BYTES_MIN: usize = 12;

/// How much was searched, and where the key was found.
#[derive(Debug)]
pub(crate) struct Trace {
    needles: Vec<(&'static str, String)>,
    bytes: [usize; Kind::ALL.len()],
    seen: BTreeSet<PathBuf>,
    found: Vec<String>,
}

/// The origin of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Standard output and standard error.
    Printed,
    /// `SINDRI_AGENT_RECORD`.
    Recorded,
    /// The state directory.
    Remembered,
    /// `SINDRI_AGENT_AUDIT`.
    Audited,
    /// Every other file in the home directory.
    Other,
}

impl Kind {
    const ALL: [(Kind, &str); 5] = [
        (Kind::Printed, "printed"),
        (Kind::Recorded, "recorded"),
        (Kind::Remembered, "remembered"),
        (Kind::Audited, "audited"),
        (Kind::Other, "other"),
    ];
}

impl Trace {
    /// A search for this key. An empty key finds nothing.
    pub(crate) fn of(key: &str) -> Trace {
        let needles = if key.is_empty() { Vec::new() } else { needles(key) };
        Trace { needles, bytes: [0; Kind::ALL.len()], seen: BTreeSet::new(), found: Vec::new() }
    }

    /// Searches a text.
    pub(crate) fn look(&mut self, kind: Kind, place: &str, bytes: &[u8]) {
        self.bytes[kind as usize] += bytes.len();
        let text = String::from_utf8_lossy(bytes);
        let lower = text.to_lowercase();
        for (form, needle) in &self.needles {
            // Upper and lower case differ in base64 only.
            if text.contains(needle.as_str()) || (*form != "base64" && lower.contains(&needle.to_lowercase())) {
                let form = if *form == "as it is" { String::new() } else { format!(" ({form})") };
                self.found.push(format!("the key stands in {place}{form}"));
            }
        }
    }

    /// Searches a file, or every file in a folder, unless it was searched before.
    pub(crate) fn look_at(&mut self, kind: Kind, path: &Path) {
        let mut left = vec![(path.to_owned(), 0)];
        while let Some((path, depth)) = left.pop() {
            let Ok(metadata) = std::fs::metadata(&path) else { continue }; // removed, or never created
            if metadata.is_dir() && depth < DEPTH_MAX {
                let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| (entry.path(), depth + 1)));
            } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX && self.seen.insert(path.clone()) {
                let bytes = std::fs::read(&path).unwrap_or_default();
                self.look(kind, &path.display().to_string(), &bytes);
            }
        }
    }

    /// Records how much was searched, if there was a key to find.
    ///
    /// # Panics
    /// If the key was found.
    #[track_caller]
    pub(crate) fn judge(&self) {
        if let Some(path) = std::env::var_os("DRAUPNIR_TRACES").filter(|_| !self.needles.is_empty()) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let line = format!("{}\n", self.line());
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list of traces can be written");
        }
        assert!(self.found.is_empty(), "{}", self.found.join("; "));
    }

    /// The same without a record, for a leak that a test has planted.
    #[track_caller]
    pub(crate) fn judge_planted(&self) {
        assert!(self.found.is_empty(), "{}", self.found.join("; "));
    }

    fn line(&self) -> Value {
        let thread = std::thread::current();
        let mut line = json!({"test": thread.name().unwrap_or("main"), "found": self.found});
        for (kind, name) in Kind::ALL {
            line[name] = self.bytes[kind as usize].into();
        }
        line
    }
}

/// The key and its first half in every form, with the form's name.
fn needles(key: &str) -> Vec<(&'static str, String)> {
    let half = key.get(..key.len() / 2).filter(|half| half.len() >= HALF_BYTES_MIN);
    [Some(key), half].into_iter().flatten().flat_map(forms).collect()
}

fn forms(key: &str) -> Vec<(&'static str, String)> {
    let each = |form: fn(u8) -> String| key.bytes().map(form).collect::<String>();
    let quoted = Value::from(key).to_string();
    let mut forms = vec![
        ("as it is", key.to_owned()),
        ("escaped", quoted.trim_matches('"').to_owned()),
        ("escaped", each(|byte| format!("\\u{byte:04x}"))),
        ("percent-encoded", each(|byte| format!("%{byte:02x}"))),
        (
            "percent-encoded",
            each(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                reserved => format!("%{reserved:02x}"),
            }),
        ),
        ("hexadecimal", HEXLOWER.encode(key.as_bytes())),
    ];
    // Within a longer text the key can begin at any of three offsets of a base64 group. The characters at its ends also
    // encode other bytes, so they are left out.
    for before in 0..3 {
        let padded = [&b"\0\0"[..before], key.as_bytes()].concat();
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            let text = encoding.encode(&padded);
            let whole = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
            forms.push(("base64", text.get(whole).unwrap_or_default().to_owned()));
        }
    }
    let mut known = BTreeSet::new();
    forms.retain(|(_, needle)| known.insert(needle.clone()));
    forms
}
