//! How records stand in the file: a head, then frames. See the module above for the bytes.

use super::key::{KEY_BYTES, Key};
use ring::digest::{SHA256, digest};

const HEAD_MAGIC: &[u8; 8] = b"SINDRIJ\n";
const FRAME_MAGIC: &[u8; 4] = b"\xf5Jr\n";

/// The version of the format that this code reads and writes.
pub(super) const VERSION: u32 = 1;

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 8 + 4 + KEY_BYTES + 8;

/// Bytes of a frame beside its payload.
pub(super) const FRAME_BYTES: usize = 4 + 4 + 8;

/// The longest payload, in bytes: the longest result, its ids and numbers.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// How many bytes are hashed in vain before the rest of a file is given up, as a multiple of its length: a damaged file
/// must not cost the start more than reading a sound one does.
const VAIN_HASHES_MAX: usize = 4;

/// Why the beginning of a file is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoHead {
    #[error("it was written by a later version of the agent")]
    Later,
    #[error("it is damaged or no journal")]
    Foreign,
}

pub(super) fn head(key: &Key) -> Vec<u8> {
    let mut head = HEAD_MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend(key.bytes());
    let sum = digest(&SHA256, &head);
    head.extend(sum.as_ref().iter().take(8));
    head
}

/// Reads the head of a file.
pub(super) fn read_head(bytes: &[u8]) -> Result<Key, NoHead> {
    let head = bytes.get(..HEAD_BYTES).ok_or(NoHead::Foreign)?;
    let (magic, rest) = head.split_first_chunk::<8>().ok_or(NoHead::Foreign)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(NoHead::Foreign)?;
    let (key, sum) = rest.split_first_chunk::<KEY_BYTES>().ok_or(NoHead::Foreign)?;
    if magic != HEAD_MAGIC {
        return Err(NoHead::Foreign);
    }
    if u32::from_le_bytes(*version) > VERSION {
        return Err(NoHead::Later);
    }
    let expected = digest(&SHA256, head.get(..HEAD_BYTES - 8).unwrap_or_default());
    let is_sound = u32::from_le_bytes(*version) == VERSION && expected.as_ref().starts_with(sum);
    if is_sound { Ok(Key::of(*key)) } else { Err(NoHead::Foreign) }
}

/// Adds a frame.
pub(super) fn push(key: &Key, payload: &[u8], to: &mut Vec<u8>) {
    to.extend(FRAME_MAGIC);
    to.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend(key.checksum(payload));
    to.extend(payload);
}

/// The sound frames of a file, in order, each with the place of the whole frame.
pub(super) struct Frames<'a> {
    key: &'a Key,
    bytes: &'a [u8],
    at: usize,
    hashed_in_vain: usize,
    /// Where the last sound frame ends.
    pub(super) sound_to: usize,
    /// Bytes that were skipped and had a sound frame behind them.
    pub(super) skipped: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn of(key: &'a Key, bytes: &'a [u8]) -> Self {
        Self { key, bytes, at: HEAD_BYTES, hashed_in_vain: 0, sound_to: HEAD_BYTES, skipped: 0 }
    }

    /// The payload of the frame that begins at `at`, if one does.
    fn frame_at(&mut self, at: usize) -> Option<&'a [u8]> {
        let rest = self.bytes.get(at..)?.strip_prefix(FRAME_MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX)?;
        let payload = rest.get(..length)?;
        if self.key.checksum(payload) == *sum {
            return Some(payload);
        }
        self.hashed_in_vain += length;
        None
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (std::ops::Range<usize>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.bytes.len() && self.hashed_in_vain <= VAIN_HASHES_MAX * self.bytes.len() {
            if let Some(payload) = self.frame_at(self.at) {
                let end = self.at + FRAME_BYTES + payload.len();
                self.skipped += self.at - self.sound_to;
                let place = self.at..end;
                (self.at, self.sound_to) = (end, end);
                return Some((place, payload));
            }
            let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
            let next = memchr::memmem::find(rest, FRAME_MAGIC);
            self.at = next.map_or(self.bytes.len(), |place| self.at + 1 + place);
        }
        None
    }
}
