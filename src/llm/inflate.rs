//! Decompresses an answer while it streams by: gzip (RFC 1952) and deflate with its zlib frame (RFC 1950).
//!
//! Checksums are skipped: the tool that gets the answer checks them. Each piece gives at once all that it holds, so
//! that an answer that is cancelled has counted as far as it came. Memory: 44 KiB of state and window, and one buffer.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// What is decompressed at once, in bytes.
const BUFFER_BYTES: usize = 8 << 10;

/// It is not compressed as it says, or becomes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The state between two pieces.
pub(super) struct Inflater {
    stage: Stage,
    state: Box<InflateState>,
    is_gzip: bool,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The first ten bytes of a gzip member, of which so many have come; and its flags.
    Header {
        count: u8,
        flags: u8,
    },
    /// The length of the extra field: its first byte, if that has come.
    ExtraLength {
        flags: u8,
        low: Option<u8>,
    },
    /// So many bytes to skip, and then what the flags say.
    Skip {
        flags: u8,
        left: u16,
    },
    /// A text to skip.
    Text {
        flags: u8,
    },
    Data,
    /// So many bytes of checksum and length.
    Trailer {
        left: u8,
    },
    /// Behind the end of zlib's data.
    End,
}

const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

impl Inflater {
    pub(super) fn gzip() -> Self {
        let stage = Stage::Header { count: 0, flags: 0 };
        Self { stage, state: InflateState::new_boxed(DataFormat::Raw), is_gzip: true }
    }

    pub(super) fn zlib() -> Self {
        let state = InflateState::new_boxed(DataFormat::ZLibIgnoreChecksum);
        Self { stage: Stage::Data, state, is_gzip: false }
    }

    /// Gives what the next piece holds to `take`, and at most `room_bytes` of it.
    pub(super) fn feed(
        &mut self,
        mut piece: &[u8],
        mut room_bytes: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        let mut buffer = [0; BUFFER_BYTES];
        while let Some((byte, after)) = piece.split_first() {
            match self.stage {
                Stage::End => return Ok(()),
                Stage::Data => {}
                _ => {
                    self.stage = self.frame(*byte)?;
                    piece = after;
                    continue;
                }
            }
            loop {
                let done = inflate(&mut self.state, piece, &mut buffer, MZFlush::None);
                piece = piece.get(done.bytes_consumed..).unwrap_or_default();
                let inflated = buffer.get(..done.bytes_written).unwrap_or_default();
                room_bytes = room_bytes.checked_sub(inflated.len()).ok_or(Broken)?;
                take(inflated);
                match done.status {
                    Ok(MZStatus::StreamEnd) => {
                        self.stage = if self.is_gzip { Stage::Trailer { left: 8 } } else { Stage::End };
                        break;
                    }
                    // All that came is taken, and the buffer was large enough for what it gave.
                    Ok(_) | Err(MZError::Buf) if piece.is_empty() && inflated.len() < BUFFER_BYTES => return Ok(()),
                    Ok(_) => {}
                    Err(_) => return Err(Broken),
                }
            }
        }
        Ok(())
    }

    /// The stage after one byte of a gzip member's frame.
    fn frame(&mut self, byte: u8) -> Result<Stage, Broken> {
        Ok(match self.stage {
            Stage::Header { count, flags } => {
                let expected = [0x1f, 0x8b, 8].get(usize::from(count));
                if expected.is_some_and(|expected| *expected != byte) {
                    return Err(Broken);
                }
                let flags = if count == 3 { byte } else { flags };
                if count == 9 { Self::option(flags) } else { Stage::Header { count: count + 1, flags } }
            }
            Stage::ExtraLength { flags, low: None } => Stage::ExtraLength { flags, low: Some(byte) },
            Stage::ExtraLength { flags, low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => Self::option(flags),
                left => Stage::Skip { flags, left },
            },
            Stage::Skip { flags, left: 1 } => Self::option(flags),
            Stage::Skip { flags, left } => Stage::Skip { flags, left: left - 1 },
            Stage::Text { flags } if byte == 0 => Self::option(flags),
            Stage::Text { flags } => Stage::Text { flags },
            Stage::Trailer { left: 1 } => {
                self.state.reset(DataFormat::Raw);
                Stage::Header { count: 0, flags: 0 }
            }
            Stage::Trailer { left } => Stage::Trailer { left: left - 1 },
            Stage::Data | Stage::End => self.stage,
        })
    }

    /// What follows in a member's header; each flag is cleared once its field begins.
    fn option(flags: u8) -> Stage {
        match flags {
            _ if flags & EXTRA != 0 => Stage::ExtraLength { flags: flags & !EXTRA, low: None },
            _ if flags & NAME != 0 => Stage::Text { flags: flags & !NAME },
            _ if flags & COMMENT != 0 => Stage::Text { flags: flags & !COMMENT },
            _ if flags & HEADER_CRC != 0 => Stage::Skip { flags: flags & !HEADER_CRC, left: 2 },
            _ => Stage::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};
    use std::io::Write as _;

    fn inflated(pieces: &[&[u8]]) -> Result<Vec<u8>, Broken> {
        let (mut inflater, mut out) = (Inflater::gzip(), Vec::new());
        pieces.iter().try_for_each(|piece| inflater.feed(piece, usize::MAX, |part| out.extend_from_slice(part)))?;
        Ok(out)
    }

    #[test]
    fn members_with_every_field_follow_each_other() {
        let text = b"some text, some text, some text".repeat(2_000);
        let builder = GzBuilder::new().extra(vec![7; 300]).filename("name").comment("comment");
        let mut named = builder.write(Vec::new(), Compression::default());
        let mut plain = GzEncoder::new(Vec::new(), Compression::none());
        named.write_all(&text).expect("memory");
        plain.write_all(b"the end").expect("memory");
        let mut bytes = named.finish().expect("memory");
        bytes.extend(plain.finish().expect("memory"));
        let expected = [&text[..], b"the end"].concat();
        assert_eq!(inflated(&[&bytes]).as_ref(), Ok(&expected));
        assert_eq!(inflated(&bytes.chunks(1).collect::<Vec<_>>()).as_ref(), Ok(&expected));
        // The checksum of a header, which the encoder does not write.
        let mut checked = bytes.clone();
        checked[3] |= HEADER_CRC;
        let end = 10 + 2 + 300 + "name\0comment\0".len();
        checked.splice(end..end, [1, 2]);
        assert_eq!(inflated(&[&checked]).as_ref(), Ok(&expected));
    }

    #[test]
    fn what_is_not_compressed_is_broken() {
        assert_eq!(inflated(&[b"{}"]), Err(Broken));
        assert_eq!(inflated(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0xff]]), Err(Broken));
        assert_eq!(inflated(&[&[0x1f]]), Ok(Vec::new()));
    }
}
