//! The state that one program gives the next, and its form.
//!
//! | part | bytes |
//! |---|---|
//! | magic | 8 |
//! | schema, length of the head, number of blobs | 4 each, little-endian |
//! | the length of each blob | 4 each |
//! | head: a JSON object, [`State`] without its blobs | |
//! | the blobs, in the order of `State::blobs` | |
//!
//! A program reads its own schema and every older one, and refuses a newer one. A field that an older schema does not
//! have needs a default.
//!
//! Bounds: [`BYTES_MAX`] for all of it. The reader asks for no more memory than the state is long.

use crate::json;
use crate::{command, terminal};
use draupnir_fsm::driver::{CommandKey, RegisterPath, SessionKey, TakenOver};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::RawFd;

/// The form that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// The longest state, in bytes: the budget of all buffers, the messages, 16,384 ids, and as much again.
pub const BYTES_MAX: usize = 96 << 20;

const MAGIC: [u8; 8] = *b"sindri\0s";
const WORD: usize = size_of::<u32>();

/// Why some bytes are no state for this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Format {
    /// They cannot be read.
    #[error("the state cannot be read")]
    Unreadable,
    /// They are longer than any state.
    #[error("the state is longer than {} MiB", BYTES_MAX >> 20)]
    TooLong,
    /// They are something else, or damaged.
    #[error("the state is damaged")]
    Damaged,
    /// A newer program wrote them.
    #[error("the state has schema {0}, and this program knows schemas up to {SCHEMA}")]
    Newer(u32),
}

/// Everything that the next program goes on with.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// A panic hands it over: it holds sessions and commands alone, and the rest is in the journal.
    #[serde(default)]
    pub is_partial: bool,
    /// The program that takes over if the new one cannot begin.
    #[serde(default)]
    pub previous: Option<String>,
    /// From which the jitter goes on.
    pub seed: u64,
    /// The id that the console gave, and the path of its registration.
    pub identity: (Option<String>, Option<RegisterPath>),
    /// The number of the next session.
    pub next_session: SessionKey,
    /// The number of the next command.
    pub next_command: CommandKey,
    /// What the driver takes in, in this order.
    pub given: Vec<Given>,
    /// The sessions whose ids are known.
    pub sessions: Vec<Session>,
    /// The commands whose ids are known.
    pub commands: Vec<Command>,
    /// The outputs of ended commands that are read and discarded.
    pub discarded: Vec<RawFd>,
    /// Children that nothing waits for.
    pub abandoned: Vec<u32>,
    /// The streamed outputs of commands that are kept.
    pub streams: Vec<Stream>,
    /// The key of the console.
    #[serde(skip)]
    pub api_key: Vec<u8>,
    /// The key under which the console's ids are hashed.
    #[serde(skip)]
    pub hash_key: Vec<u8>,
}

/// An input of the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The input.
    pub what: TakenOver,
    /// Its message.
    #[serde(skip)]
    pub text: Vec<u8>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its number.
    pub key: SessionKey,
    /// The console's id.
    pub id: String,
    /// How much was typed, in bytes.
    pub input_bytes: u64,
    /// Its terminal, or what is left of it.
    pub terminal: Option<terminal::SavedSession>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its number.
    pub key: CommandKey,
    /// The console's id.
    pub id: String,
    /// How long it may run, in milliseconds.
    pub timeout_ms: u64,
    /// Its process.
    pub process: Option<command::SavedCommand>,
    /// What to start, if it waits.
    pub spec: Option<command::SavedSpec>,
    /// The script of that.
    #[serde(skip)]
    pub script: Vec<u8>,
}

/// A streamed output of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The command.
    pub command: CommandKey,
    /// Its standard error, as opposed to its standard output.
    pub is_stderr: bool,
    /// What is kept of it.
    pub saved: command::SavedStream,
}

impl State {
    /// The descriptors that it names.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let shells = self.sessions.iter().filter_map(|session| session.terminal.as_ref()?.shell.as_ref());
        let processes = self.commands.iter().filter_map(|command| command.process.as_ref());
        let of_shells = shells.flat_map(terminal::SavedShell::descriptors);
        let of_processes = processes.flat_map(command::SavedCommand::descriptors);
        of_shells.chain(of_processes).chain(self.discarded.iter().copied()).collect()
    }

    /// The processes that it names.
    pub fn processes(&self) -> Vec<u32> {
        let shells = self.sessions.iter().filter_map(|session| Some(session.terminal.as_ref()?.shell.as_ref()?.pid));
        shells.chain(self.commands.iter().filter_map(|command| Some(command.process.as_ref()?.pid))).collect()
    }

    /// The texts and bytes that are not in the head, always in the same order for the same head.
    fn blobs(&mut self) -> Vec<&mut Vec<u8>> {
        let mut blobs = vec![&mut self.api_key, &mut self.hash_key];
        blobs.extend(self.given.iter_mut().map(|given| &mut given.text));
        for terminal in self.sessions.iter_mut().filter_map(|session| session.terminal.as_mut()) {
            blobs.extend([&mut terminal.kept, &mut terminal.modes, &mut terminal.typed]);
        }
        for command in &mut self.commands {
            blobs.push(&mut command.script);
            let Some(process) = &mut command.process else { continue };
            blobs.push(&mut process.script);
            blobs.extend(process.outputs.iter_mut().flat_map(|output| [&mut output.head, &mut output.tail]));
        }
        blobs.extend(self.streams.iter_mut().map(|stream| &mut stream.saved.kept));
        blobs
    }

    /// Writes it, part by part.
    ///
    /// # Errors
    /// Those of `write`; or a part is too long.
    pub fn encode(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let head = serde_json::to_vec(self)?;
        let blobs = self.blobs();
        let lengths: Vec<usize> = blobs.iter().map(|blob| blob.len()).collect();
        write(&preface(head.len(), &lengths)?)?;
        write(&head)?;
        blobs.into_iter().try_for_each(|blob| write(blob))
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is none, or of a newer program.
    pub fn decode(bytes: &[u8]) -> Result<Self, Format> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(Format::Damaged)?;
        let schema = take_word(&mut rest)?;
        if schema > SCHEMA {
            return Err(Format::Newer(schema));
        }
        let (head_bytes, count) = (take_number(&mut rest)?, take_number(&mut rest)?);
        let lengths = take_part(&mut rest, count.checked_mul(WORD).ok_or(Format::Damaged)?)?;
        let head = take_part(&mut rest, head_bytes)?;
        let mut state: Self = json::read(head).ok_or(Format::Damaged)?;
        let blobs = state.blobs();
        if blobs.len() != count {
            return Err(Format::Damaged);
        }
        for (blob, mut length) in blobs.into_iter().zip(lengths.chunks_exact(WORD)) {
            let length = take_number(&mut length)?;
            *blob = take_part(&mut rest, length)?.to_vec();
        }
        if rest.is_empty() { Ok(state) } else { Err(Format::Damaged) }
    }
}

/// What stands before the head of a state: with these lengths of the head and the blobs.
///
/// # Errors
/// One of them is too long.
pub fn preface(head_bytes: usize, blob_bytes: &[usize]) -> io::Result<Vec<u8>> {
    let mut preface = [&MAGIC[..], &SCHEMA.to_le_bytes()].concat();
    for number in [head_bytes, blob_bytes.len()].iter().chain(blob_bytes) {
        let number = u32::try_from(*number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        preface.extend(number.to_le_bytes());
    }
    Ok(preface)
}

impl Drop for State {
    fn drop(&mut self) {
        crate::config::wipe(&mut self.api_key);
    }
}

fn take_part<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Format> {
    let (part, after) = rest.split_at_checked(bytes).ok_or(Format::Damaged)?;
    *rest = after;
    Ok(part)
}

fn take_word(rest: &mut &[u8]) -> Result<u32, Format> {
    let (word, after) = rest.split_first_chunk().ok_or(Format::Damaged)?;
    *rest = after;
    Ok(u32::from_le_bytes(*word))
}

fn take_number(rest: &mut &[u8]) -> Result<usize, Format> {
    usize::try_from(take_word(rest)?).map_err(|_| Format::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::driver::{ConsoleId, Kind};
    use proptest::prelude::*;

    /// One of everything, with these bytes in it.
    fn state(bytes: &[u8], count: u32) -> State {
        let shell = terminal::SavedShell { pid: 7, terminal: 8, slave: Some(9), cols: 80, rows: 24, is_ending: true };
        let terminal = terminal::SavedSession {
            shell: Some(shell),
            end: u64::MAX,
            kept: bytes.to_vec(),
            modes: vec![1],
            sizes: vec![(0, 80, 24), (9, 1, 65_535)],
            typed: bytes.to_vec(),
        };
        let output = command::SavedOutput { pipe: Some(11), bytes: 1 << 40, head: bytes.to_vec(), tail: vec![2] };
        let process = command::SavedCommand {
            pid: 10,
            ran_ms: 5,
            outputs: [output.clone(), command::SavedOutput { pipe: None, ..output }],
            stdin: Some(12),
            script: bytes.to_vec(),
        };
        let number = |count: u32| SessionKey(count);
        let session = |key| Session { key, id: "é\"\\".into(), input_bytes: 3, terminal: Some(terminal.clone()) };
        let command = |key: SessionKey| Command {
            key: CommandKey(key.0),
            id: "c".into(),
            timeout_ms: 30_000,
            process: Some(process.clone()),
            spec: Some(command::SavedSpec::default()),
            script: bytes.to_vec(),
        };
        let saved = command::SavedStream { end: 9, has_ended: true, kept: bytes.to_vec() };
        let stream = |key: SessionKey| Stream { command: CommandKey(key.0), is_stderr: true, saved: saved.clone() };
        let message = TakenOver::Message {
            number: 4,
            kind: Kind::Closed,
            of: Some(ConsoleId(u128::MAX)),
            session: Some(SessionKey(1)),
            command: None,
            after: Default::default(),
        };
        let keys = || (0..count).map(number);
        State {
            is_partial: true,
            previous: Some("/bin/sindri-agent.previous".into()),
            seed: 1,
            identity: (Some("id".into()), Some(RegisterPath::Observed)),
            next_session: SessionKey(count),
            next_command: CommandKey(count),
            given: vec![Given { what: message, text: bytes.to_vec() }],
            sessions: keys().map(session).collect(),
            commands: keys().map(command).collect(),
            streams: keys().map(stream).collect(),
            discarded: vec![14],
            abandoned: vec![13],
            api_key: b"key".to_vec(),
            hash_key: vec![0; 32],
        }
    }

    fn encoded(state: &mut State) -> Vec<u8> {
        let mut bytes = Vec::new();
        let write = |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok(())
        };
        state.encode(write).expect("it is short");
        bytes
    }

    #[test]
    fn newer_schema_is_refused_by_its_number() {
        let mut bytes = encoded(&mut state(b"", 1));
        bytes[MAGIC.len()] += 1;
        assert_eq!(State::decode(&bytes).err(), Some(Format::Newer(SCHEMA + 1)));
    }

    #[test]
    fn key_is_not_in_the_head() {
        let head = serde_json::to_string(&state(b"", 1)).expect("JSON");
        assert!(!head.contains("key\":[") && !head.contains("api_key"), "{head}");
    }

    #[test]
    fn every_cut_state_is_damaged() {
        let bytes = encoded(&mut state(b"abc", 2));
        for length in 0..bytes.len() {
            assert_eq!(State::decode(&bytes[..length]).err(), Some(Format::Damaged), "{length}");
        }
        assert_eq!(State::decode(&[&bytes[..], b"x"].concat()).err(), Some(Format::Damaged));
    }

    proptest! {
        #[test]
        fn decoded_state_is_the_encoded_one(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0_u32..4,
        ) {
            let mut state = state(&bytes, count);
            prop_assert!(State::decode(&encoded(&mut state)).is_ok_and(|decoded| decoded == state));
        }

        #[test]
        fn damaged_state_is_read_without_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encoded(&mut state(b"abc", 2));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = State::decode(&bytes);
        }
    }
}
