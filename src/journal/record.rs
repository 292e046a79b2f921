//! What one record says, and its bytes: a kind, the owner, then fields in fixed places and one text to the end.

use super::key::{Hash, Key};
use super::place::Process;
use crate::logs::position::{FileId, Head, Position};
use async_tungstenite::tungstenite::Utf8Bytes;
use draupnir_fsm::driver::Kind;

/// What a record counts in the queue besides its text, in bytes.
const OVERHEAD_BYTES: usize = 128;

/// The text of a message; clones share it.
pub type Body = Utf8Bytes;

/// A record and whose it is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The owner.
    pub owner: Hash,
    /// What it says.
    pub what: What,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A process of the agent began on this machine (a hash of its id).
    Began {
        /// The machine.
        machine: Hash,
    },
    /// A command was accepted.
    Accepted {
        /// The hash of its id.
        id: Hash,
        /// Its id.
        text: Box<str>,
    },
    /// It runs as this process.
    Started {
        /// The hash of its id.
        id: Hash,
        /// The process: as a number, until the record is written.
        process: Process,
    },
    /// It has ended, and its result is not kept.
    Ended {
        /// The hash of its id.
        id: Hash,
        /// Its exit code.
        exit_code: i32,
    },
    /// It was not run after all.
    Withdrawn {
        /// The hash of its id.
        id: Hash,
    },
    /// A session was admitted.
    Opened {
        /// The hash of its id.
        id: Hash,
        /// Its id.
        text: Box<str>,
    },
    /// It was not opened after all.
    Unopened {
        /// The hash of its id.
        id: Hash,
    },
    /// A message waits for the console.
    Message {
        /// Its number.
        number: u64,
        /// What it is.
        kind: Kind,
        /// The hash of the id whose end it reports.
        of: Option<Hash>,
        /// The exit code of that command.
        exit_code: i32,
        /// Its text.
        body: Body,
    },
    /// The console has it, or it was dropped.
    Done {
        /// Its number.
        number: u64,
    },
    /// The console has the lines of this log up to here.
    LogPosition {
        /// Where.
        position: Position,
        /// The path by which the console knows the log.
        path: Box<str>,
        /// Where in the system's journal.
        cursor: Option<Box<str>>,
    },
    /// Changes of Sindri's status ledger up to this position are in the journal as events, or older than the agent.
    Position {
        /// The position.
        text: Box<str>,
    },
}

impl Entry {
    /// What it counts in the queue.
    pub(super) fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match &self.what {
                What::Accepted { text, .. } | What::Opened { text, .. } | What::Position { text } => text.len(),
                What::LogPosition { path, cursor, .. } => path.len() + cursor.as_ref().map_or(0, |text| text.len()),
                What::Message { body, .. } => body.len(),
                What::Began { .. }
                | What::Started { .. }
                | What::Ended { .. }
                | What::Withdrawn { .. }
                | What::Unopened { .. }
                | What::Done { .. } => 0,
            }
    }

    /// Its payload.
    pub(super) fn encode(&self, key: &Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        bytes.push(self.what.number());
        bytes.extend(self.owner.to_le_bytes());
        match &self.what {
            What::Began { machine: hash } | What::Withdrawn { id: hash } | What::Unopened { id: hash } => {
                bytes.extend(hash.to_le_bytes());
            }
            What::Accepted { id, text } | What::Opened { id, text } => {
                bytes.extend(id.to_le_bytes());
                bytes.extend(text.as_bytes());
            }
            What::Started { id, process } => {
                bytes.extend(id.to_le_bytes());
                process.known(key).encode(&mut bytes);
            }
            What::Ended { id, exit_code } => {
                bytes.extend(id.to_le_bytes());
                bytes.extend(exit_code.to_le_bytes());
            }
            What::Message { number, kind, of, exit_code, body } => {
                bytes.extend(number.to_le_bytes());
                bytes.push(match kind {
                    Kind::Result => 0,
                    Kind::Closed => 1,
                    Kind::Event => 2,
                });
                bytes.push(u8::from(of.is_some()));
                bytes.extend(of.unwrap_or_default().to_le_bytes());
                bytes.extend(exit_code.to_le_bytes());
                bytes.extend(body.as_bytes());
            }
            What::Done { number } => bytes.extend(number.to_le_bytes()),
            What::Position { text } => bytes.extend(text.as_bytes()),
            What::LogPosition { position: Position { file, head, offset }, path, cursor } => {
                let numbers = [file.device, file.inode, *offset, head.hash];
                bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
                bytes.extend(head.bytes.to_le_bytes());
                bytes.extend(path.as_bytes());
                // No path holds a NUL.
                if let Some(cursor) = cursor {
                    bytes.push(0);
                    bytes.extend(cursor.as_bytes());
                }
            }
        }
        bytes
    }

    /// Reads a payload; `None` where it is none of this version.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let kind = fields.byte()?;
        let owner = fields.hash()?;
        let what = match kind {
            1 => What::Began { machine: fields.hash()? },
            2 => What::Accepted { id: fields.hash()?, text: fields.text()?.into() },
            3 => What::Started { id: fields.hash()?, process: Process::decode(&mut fields)? },
            4 => What::Ended { id: fields.hash()?, exit_code: i32::from_le_bytes(fields.take()?) },
            5 => What::Withdrawn { id: fields.hash()? },
            6 => What::Opened { id: fields.hash()?, text: fields.text()?.into() },
            7 => What::Unopened { id: fields.hash()? },
            8 => {
                let number = fields.number()?;
                let kind = match fields.byte()? {
                    0 => Kind::Result,
                    1 => Kind::Closed,
                    2 => Kind::Event,
                    _ => return None,
                };
                let has_id = fields.byte()? == 1;
                let of = Some(fields.hash()?).filter(|_| has_id);
                let exit_code = i32::from_le_bytes(fields.take()?);
                What::Message { number, kind, of, exit_code, body: fields.text()?.into() }
            }
            9 => What::Done { number: fields.number()? },
            10 => What::Position { text: fields.text()?.into() },
            11 => {
                let file = FileId { device: fields.number()?, inode: fields.number()? };
                let (offset, hash) = (fields.number()?, fields.number()?);
                let head = Head { bytes: u16::from_le_bytes(fields.take()?), hash };
                let text = fields.text()?;
                let (path, cursor) = text.split_once('\0').map_or((text, None), |(path, text)| (path, Some(text)));
                let position = Position { file, head, offset };
                What::LogPosition { position, path: path.into(), cursor: cursor.map(Box::from) }
            }
            _ => return None,
        };
        Some(Self { owner, what })
    }
}

impl What {
    /// The command whose end it reports.
    pub(super) const fn ends(&self) -> Option<Hash> {
        match self {
            Self::Ended { id, .. } | Self::Withdrawn { id } => Some(*id),
            Self::Message { kind: Kind::Result, of, .. } => *of,
            Self::Message { kind: Kind::Closed | Kind::Event, .. }
            | Self::Began { .. }
            | Self::Accepted { .. }
            | Self::Started { .. }
            | Self::Opened { .. }
            | Self::Unopened { .. }
            | Self::Done { .. }
            | Self::Position { .. }
            | Self::LogPosition { .. } => None,
        }
    }

    const fn number(&self) -> u8 {
        match self {
            Self::Began { .. } => 1,
            Self::Accepted { .. } => 2,
            Self::Started { .. } => 3,
            Self::Ended { .. } => 4,
            Self::Withdrawn { .. } => 5,
            Self::Opened { .. } => 6,
            Self::Unopened { .. } => 7,
            Self::Message { .. } => 8,
            Self::Done { .. } => 9,
            Self::Position { .. } => 10,
            Self::LogPosition { .. } => 11,
        }
    }
}

/// What is left to read of a payload.
pub(super) struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn hash(&mut self) -> Option<Hash> {
        self.take().map(Hash::from_le_bytes)
    }

    fn text(&mut self) -> Option<&str> {
        std::str::from_utf8(std::mem::take(&mut self.0)).ok()
    }
}
